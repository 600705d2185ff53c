# Copyright 2026 The DenseCLIP for Transformers authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Score a checkpoint by the paper's protocol: original size of the masks, sliding windows, one confusion matrix.

    python -m training.evaluate CHECKPOINT --dataset ade20k --data_dir ADEChallengeData2016 [--multi_scale]

CHECKPOINT is a folder or a Hub id. How images are resized and windows slide comes with it, unless an argument says
otherwise. Several GPUs: `accelerate launch -m training.evaluate ...`.

A pair of a folder of which a file cannot be read is named and left out. Then the exit status is 1; after an error it
is 2.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transformers import HfArgumentParser

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.multi_scale_denseclip import PAPER_SCALES
from modeling_denseclip.tools.command import escape_controls, run_command
from modeling_denseclip.tools.files.loading import load_model

from .data.load import SegmentationData, load_data
from .data.processes import quiet_interrupts
from .data.transforms import EvaluationTransform, with_transform
from .learning.trainer import DenseCLIPTrainer
from .options.arguments import DataArguments, DenseCLIPTrainingArguments
from .options.command_line import names_of_arguments, parse_words
from .reports.evaluation import report_evaluation
from .reports.scores import format_scores


@dataclass
class EvaluationArguments:
    """How to evaluate."""

    checkpoint: str = field(metadata={"help": "The model: a folder or a Hub id."})
    output_dir: str | None = field(
        default=None,
        metadata={"help": "Where tables and pictures go. Defaults to the checkpoint's folder, or one in outputs/."},
    )
    multi_scale: bool = field(default=False, metadata={"help": "Average over six scales, each with flip ('MS')."})
    inference_mode: Literal["checkpoint", "whole", "slide"] = field(
        default="checkpoint", metadata={"help": "Whole images or sliding windows."}
    )
    window_size: int | None = field(default=None, metadata={"help": "Side of the window in pixels."})
    window_stride: int | None = field(default=None, metadata={"help": "Its step in pixels."})
    per_device_eval_batch_size: int = field(default=1, metadata={"help": "Images that are loaded at a time."})
    dataloader_num_workers: int = field(default=2, metadata={"help": "Processes that load them."})
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16."})
    use_cpu: bool = field(default=False, metadata={"help": "Leave GPUs alone."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub checkpoint."})


def main(words: list[str] | None = None) -> dict:
    """Evaluate, print and write; returns the report, as `metrics.json` holds it."""
    arguments = parse_arguments(sys.argv[1:] if words is None else words)
    with quiet_interrupts(lambda: "An evaluation begins anew."):
        return run_evaluation(*arguments)


def run_evaluation(evaluation_args: EvaluationArguments, data_args: DataArguments, sizes_given: bool) -> dict:
    """As [`main`], of arguments that were read."""
    output_dir = evaluation_args.output_dir or evaluation_args.checkpoint
    if not evaluation_args.output_dir and not Path(output_dir).is_dir():
        output_dir = str(Path("outputs") / output_dir.replace("/", "--"))  # the name of a repository is no folder here
    training_args = DenseCLIPTrainingArguments(
        output_dir=output_dir,
        per_device_eval_batch_size=evaluation_args.per_device_eval_batch_size,
        dataloader_num_workers=evaluation_args.dataloader_num_workers,
        bf16=evaluation_args.bf16,
        use_cpu=evaluation_args.use_cpu,
        report_to="none",
    )
    model, image_processor = load_model(evaluation_args.checkpoint, revision=evaluation_args.revision or "main")
    data = load_data(**data_args.source(), splits=("validation",), leave_out_unreadable=True)
    apply_choices(evaluation_args, model, image_processor, data)
    if sizes_given:
        data_args.check_sizes(model.min_image_size)
        image_processor.size = {"shortest_edge": data_args.short_side, "longest_edge": data_args.long_side}

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
    print(format_scores(trainer.scores, data.class_names))
    print(f"{data.name}, validation: {report['protocol']['description']}\nWritten to: {output_dir}")
    for fault in data.left_out:
        print(escape_controls(f"left out: {fault}"), file=sys.stderr)
    if data.left_out:
        print(f"{len(data.validation)} images were scored, {len(data.left_out)} left out.", file=sys.stderr)
    return report


def parse_arguments(words: list[str]) -> tuple[EvaluationArguments, DataArguments, bool]:
    """Read the words; the last result tells whether they say how large images are made."""
    if words and not words[0].startswith("-"):
        words = ["--checkpoint", *words]
    parser = HfArgumentParser(
        (EvaluationArguments, DataArguments),
        prog="python -m training.evaluate",
        usage="python -m training.evaluate CHECKPOINT --data_dir FOLDER [--argument value ...]",
        description="Score a checkpoint by the paper's protocol.",
    )
    evaluation_args, data_args = parse_words(parser, words)
    sizes_given = not names_of_arguments(words).isdisjoint({"short_side", "long_side"})
    return evaluation_args, data_args, sizes_given


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
    names = [name.strip() for name in model.config.id2label.values()]
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
