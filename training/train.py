# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""
Fine-tune DenseCLIP: a row of the paper by its recipe, or your own pictures.

    accelerate launch -m training.train configuration/recipes/ade20k/denseclip_fpn_rn50.yaml \
        --data_dir ADEChallengeData2016
    python -m training.train --data_dir my_data --clip openai/clip-vit-base-patch16 --output_dir mine

The folder's layout is described in [`training.data.segmentation_folder`]. All of Hugging Face's training arguments are
accepted and override the recipe; `--help` lists them.
"""

import sys

from transformers import set_seed
from transformers.utils import logging

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.command import run_command

from .data.load import SegmentationData, check_for_training, load_data
from .data.processes import quiet_interrupts
from .data.streaming import RowStream, TrainingStream
from .data.transforms import AugmentationEpoch, EvaluationTransform, TrainingTransform, with_transform
from .importing.advice import advising_import
from .learning.building import build_image_processor, build_model, check_pretrained
from .learning.checkpoints import check_classes, checkpoint_to_resume, how_to_go_on
from .learning.optimization import format_parameter_table
from .learning.trainer import DenseCLIPTrainer
from .options.arguments import DataArguments, DenseCLIPTrainingArguments, ModelArguments
from .options.command_line import parse_train_arguments
from .options.recipes import Recipe
from .reports.evaluation import describe_protocol, format_report, report_evaluation
from .reports.panels import SamplePanels


logger = logging.get_logger(__name__)

DICE_WEIGHT_OF_RARE_CLASSES = 1.0
NUM_NAMES_SHOWN = 5
# What is printed of `jpeg_decoding`. Where nobody chose for "auto", it is as published.
FULL = "decoded in full, as published. --jpeg_decoding reduced is faster where they are large."
JPEG_DECODING = {
    "reduced": "decoded at 1/2, 1/4 or 1/8 of their size where a sample is smaller anyway. --jpeg_decoding full is as"
    " published.",
    "full": FULL,
    "auto": FULL,
}


def main(words: list[str] | None = None) -> DenseCLIPTrainer:
    arguments = parse_train_arguments(sys.argv[1:] if words is None else words)
    training_args = arguments[2]
    with quiet_interrupts(lambda: how_to_go_on(training_args.output_dir), training_args.process_index == 0):
        return train(*arguments)


def train(
    data_args: DataArguments,
    model_args: ModelArguments,
    training_args: DenseCLIPTrainingArguments,
    recipe: Recipe | None = None,
) -> DenseCLIPTrainer:
    """Train, evaluate, write, and push if that is asked for."""
    checkpoint = checkpoint_to_resume(training_args.output_dir, training_args.resume_from_checkpoint)
    check_pretrained(model_args, training_args)
    set_seed(training_args.seed)

    if data_args.streaming:
        training_args.check_for_stream()
    source = (data_args.dataset, data_args.data_dir, data_args.dataset_name)
    with advising_import(*source), training_args.main_process_first(desc="checking the data"):
        data = load_data(**data_args.source())
    if checkpoint is not None:
        check_classes(checkpoint, data.class_names)
    model = build_model(model_args, data)
    data_args.check_sizes(model.min_image_size)
    image_processor = build_image_processor(data_args, model_args, data.reduce_labels)
    check_for_training(data, image_processor, model.min_image_size)
    chosen_loss = choose_dice_weight(data, data_args, training_args)
    choose_jpeg_decoding(data_args, training_args)
    trainer = build_trainer(model, image_processor, data, data_args, training_args)
    if trainer.is_world_process_zero():
        print(describe_run(trainer))
        if chosen_loss:
            print(chosen_loss)

    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.save_state()

    # The last step may have been evaluated already. The best model, where it was loaded, is of another step.
    step, metrics = trainer.last_evaluation or (None, None)
    if step != trainer.state.global_step or training_args.load_best_model_at_end:
        metrics = trainer.evaluate()
    protocol = describe_protocol(trainer.model.config, trainer.processing_class)["description"]
    trainer.save_metrics("eval", {**metrics, "eval_protocol": protocol})
    if trainer.is_world_process_zero():
        report = report_evaluation(trainer, data, training_args.output_dir)
        print(format_report(trainer, data, report, training_args.output_dir))
    if training_args.push_to_hub:
        trainer.push_to_hub(recipe=recipe, base_model=model_args.pretrained())
    return trainer


def choose_dice_weight(
    data: SegmentationData, data_args: DataArguments, training_args: DenseCLIPTrainingArguments
) -> str:
    """
    Set `dice_weight` where nobody chose a loss: 1.0 if training has a class of few pixels, which the published loss
    finds late or never (docs/special_data.md has figures), and else 0. ADE20K is trained as published, and data that
    are streamed, which nobody has counted.

    Returns:
        `str`: what to print of it; empty if nothing was added.
    """
    if training_args.dice_weight is not None:
        return ""
    training_args.dice_weight = 0.0
    if is_ade20k(data_args) or training_args.class_weights is not None or training_args.ohem_threshold is not None:
        return ""
    if data_args.streaming:
        return "loss: cross-entropy. Pixels that are streamed are not counted: for rare classes add --dice_weight 1.0."
    rare = data.rare_classes()
    if not rare:
        return ""
    training_args.dice_weight = DICE_WEIGHT_OF_RARE_CLASSES
    names = [f"'{name}' has {share:.2%}" for name, share in rare.items()]
    more = f" and {len(names) - NUM_NAMES_SHOWN} more" if len(names) > NUM_NAMES_SHOWN else ""
    return (
        f"loss: cross-entropy, and {DICE_WEIGHT_OF_RARE_CLASSES} x Dice for rare classes:"
        f" {', '.join(names[:NUM_NAMES_SHOWN])}{more} of the labelled pixels. --dice_weight 0 switches it off."
    )


def choose_jpeg_decoding(data_args: DataArguments, training_args: DenseCLIPTrainingArguments) -> None:
    """Set `jpeg_decoding` where nobody chose it: ADE20K is trained as published, photographs of others faster."""
    if training_args.jpeg_decoding == "auto":
        training_args.jpeg_decoding = "full" if is_ade20k(data_args) else "reduced"


def is_ade20k(data_args: DataArguments) -> bool:
    """Whether the paper's data set is trained on."""
    return data_args.dataset == "ade20k" and data_args.dataset_name is None


def build_trainer(
    model: DenseCLIPForSemanticSegmentation,
    image_processor: DenseCLIPImageProcessor,
    data: SegmentationData,
    data_args: DataArguments,
    training_args: DenseCLIPTrainingArguments,
) -> DenseCLIPTrainer:
    """The Trainer of this model on these data, with the published augmentation."""
    num_labels = len(data.class_names)
    train_transform = TrainingTransform(
        image_processor,
        crop_size=(data_args.crop_size[0], data_args.crop_size[-1]),
        scale_range=tuple(data_args.scale_range),
        max_class_share=data_args.max_class_share,
        seed=training_args.seed,
        num_labels=num_labels,
        reduce_jpegs=training_args.jpeg_decoding == "reduced",
    )
    if isinstance(data.train, RowStream):
        processes = (training_args.process_index, training_args.world_size, training_args.dataloader_num_workers)
        choices = (data_args.shuffle_buffer, *processes, data_args.leave_out_unreadable)
        train_dataset = TrainingStream(data.train, train_transform, *choices)
    else:
        train_dataset = with_transform(data.train, train_transform)
    trainer = DenseCLIPTrainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=with_transform(data.validation, EvaluationTransform(image_processor, num_labels=num_labels)),
        processing_class=image_processor,
        callbacks=[AugmentationEpoch(train_transform)],
    )
    trainer.add_callback(SamplePanels(trainer, data.validation, training_args.num_sample_images))
    return trainer


def describe_run(trainer: DenseCLIPTrainer) -> str:
    """What is going to learn how fast, on how many images at a time; warns where that is not the recipe's number."""
    args = trainer.args
    per_device, accumulation = args.train_batch_size, args.gradient_accumulation_steps
    batch_size = per_device * accumulation * args.world_size
    lines = [
        format_parameter_table(trainer.model, trainer.parameter_groups()),
        "",
        f"effective batch: {batch_size} images = {per_device} per device x {accumulation} accumulated x"
        f" {args.world_size} process{'' if args.world_size == 1 else 'es'}",
        f"batch norm: {args.batch_norm}, statistics over"
        f" {per_device * (1 if args.batch_norm == 'local' else args.world_size)} images at a time",
        f"JPEGs: {JPEG_DECODING[args.jpeg_decoding]}",
    ]
    if isinstance(trainer.train_dataset, TrainingStream):
        lines.append(trainer.train_dataset.describe())
    if args.recipe_batch_size not in (None, batch_size):
        logger.warning(
            f"The effective batch is {batch_size}, the recipe's learning rate was chosen for {args.recipe_batch_size}"
            " and its figures come from that. Reach it by --per_device_train_batch_size and"
            " --gradient_accumulation_steps, or name your machine by --recipe_hardware (see the recipe's first lines)."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main, error_status=1))
