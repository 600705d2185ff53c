# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Score a checkpoint by the paper's protocol: original size of the masks, sliding windows, one confusion matrix.

    python -m training.evaluate CHECKPOINT --dataset ade20k --data_dir ADEChallengeData2016 [--multi_scale]

CHECKPOINT is a folder or a Hub id. How images are resized and windows slide comes with it, unless an argument says
otherwise. Several GPUs: `accelerate launch -m training.evaluate ...`.

Rows of the Hub that do not tell names of classes are scored by the model's own, which a warning says.

A pair of a folder of which a file cannot be read is named and left out. Then the exit status is 1; after an error it
is 2.
"""

import sys
from pathlib import Path

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.inference_denseclip import PAPER_SCALES
from modeling_denseclip.tools.command import escape_controls, run_command
from modeling_denseclip.tools.files.devices import prepare_for_inference
from modeling_denseclip.tools.files.loading import load_model

from .data.load import SegmentationData, load_data
from .data.processes import quiet_interrupts
from .data.transforms import EvaluationTransform, with_transform
from .importing.advice import advising_import
from .learning.trainer import DenseCLIPTrainer
from .options.arguments import EvaluationArguments
from .options.command_line import parse_evaluation_arguments
from .reports.evaluation import format_report, report_evaluation


@quiet_interrupts(lambda: "An evaluation begins anew.")
def main(words: list[str] | None = None) -> dict:
    """Evaluate, print and write; returns the report, as `metrics.json` holds it."""
    words = sys.argv[1:] if words is None else words
    evaluation_args, data_args, sizes_given = parse_evaluation_arguments(words)
    checkpoint = evaluation_args.checkpoint
    if not evaluation_args.output_dir:
        # The name of a repository of the Hub is no folder here.
        is_folder = Path(checkpoint).is_dir()
        evaluation_args.output_dir = checkpoint if is_folder else f"outputs/{checkpoint.replace('/', '--')}"
    output_dir, training_args = evaluation_args.output_dir, evaluation_args.training_arguments()
    model, image_processor = load_model(checkpoint, revision=evaluation_args.revision or "main")
    with advising_import(data_args.dataset, data_args.data_dir, data_args.dataset_name):
        data = load_data(
            **data_args.source(),
            splits=("validation",),
            leave_out_unreadable=True,
            class_names=names_of(model),
        )
    apply_choices(evaluation_args, model, image_processor, data)
    if sizes_given:
        data_args.check_sizes(model.min_image_size)
        image_processor.size = {"shortest_edge": data_args.short_side, "longest_edge": data_args.long_side}

    if evaluation_args.dtype != "checkpoint":
        prepare_for_inference(model, training_args.device, evaluation_args.dtype)
    scales = PAPER_SCALES if evaluation_args.multi_scale else (1.0,)
    transform = EvaluationTransform(image_processor, scales, num_labels=len(data.class_names))
    trainer = DenseCLIPTrainer(
        model=model,
        args=training_args,
        eval_dataset=with_transform(data.validation, transform),
        processing_class=image_processor,
    )
    trainer.evaluate()
    if not trainer.is_world_process_zero():
        return {}
    report = report_evaluation(trainer, data, output_dir, scales)
    print(format_report(trainer, data, report, output_dir))
    for fault in data.left_out:
        print(escape_controls(f"left out: {fault}"), file=sys.stderr)
    if data.left_out:
        print(f"{len(data.validation)} images were scored, {len(data.left_out)} left out.", file=sys.stderr)
    return report


def names_of(model: DenseCLIPForSemanticSegmentation) -> list[str]:
    """The names of the model's classes, in the order of ids, as files of names have them."""
    return [name.strip() for name in model.config.id2label.values()]


def apply_choices(
    arguments: EvaluationArguments,
    model: DenseCLIPForSemanticSegmentation,
    image_processor: DenseCLIPImageProcessor,
    data: SegmentationData,
) -> None:
    """
    Let the arguments override what came with the checkpoint.

    Raises:
        ValueError: for data whose classes are not the model's.
    """
    names = names_of(model)
    if names != data.class_names:
        pairs = enumerate(zip(names, data.class_names, strict=False))
        different = next(
            (f", which differ in id {i}: {ours!r} and {other!r}" for i, (ours, other) in pairs if ours != other), ""
        )
        raise ValueError(
            f"The model has {len(names)} classes and the data {len(data.class_names)}{different}. Scores need the same"
            " names in the same order. `model.set_class_names` gives a model other ones."
        )
    image_processor.do_reduce_labels = data.reduce_labels
    config = model.config
    if arguments.inference_mode != "checkpoint":
        config.inference_mode = arguments.inference_mode
    if arguments.window_size is not None:
        config.window_size = (arguments.window_size,) * 2
    if arguments.window_stride is not None:
        config.window_stride = (arguments.window_stride,) * 2


if __name__ == "__main__":
    sys.exit(run_command(lambda: int("left_out" in main().get("dataset", {}))))
