# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The arguments of training and evaluation.

A new one is a field here (a number with a lower bound has an entry in `LEAST`), and is read where it has an effect.
The command line, `--help` and recipes take theirs from the fields.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from transformers import TrainingArguments
from transformers.hf_argparser import HfArg
from transformers.integrations import get_available_reporting_integrations, is_tensorboard_available
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK


# Sides in pixels and factors beyond which a picture as a training makes it would fill the memory.
MAX_SIDE, MAX_SCALE = 2**14, 16.0
# The least of numbers that nothing else checks, Transformers' and ours. What is not finite is refused too.
LEAST = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"), 1),
    **dict.fromkeys(("dataloader_prefetch_factor", "lora_rank", "lora_alpha"), 1),
    **dict.fromkeys(("learning_rate", "image_encoder_lr_multiplier", "min_learning_rate", "weight_decay"), 0),
    **dict.fromkeys(("lr_power", "warmup_start_ratio", "max_grad_norm", "dice_weight", "num_train_epochs"), 0),
    **dict.fromkeys(("num_sample_images", "ohem_min_kept", "dataloader_num_workers"), 0),
}
# Those that say where and on what a run takes place, and change nothing of what comes out: a recipe of which only
# these are overridden is still that recipe.
NEUTRAL_ARGUMENTS = (
    *("data_dir", "output_dir", "tokenizer", "preprocessing_num_workers", "dataloader_num_workers", "use_cpu"),
    *("push_to_hub", "hub_model_id", "hub_token", "hub_private_repo", "hub_strategy", "report_to", "run_name"),
    *("resume_from_checkpoint", "save_steps", "save_total_limit", "logging_steps", "num_sample_images"),
    *("disable_tqdm", "per_device_eval_batch_size", "dataloader_pin_memory", "ddp_find_unused_parameters"),
)
# Integrations for logs of which Transformers has no function that tells whether they are installed.
UNKNOWN_REPORTERS = ("azure_ml", "flyte")


@dataclass
class SourceArguments:
    """Where pictures and masks come from, as [`load_data`] takes it."""

    dataset: Literal["folder", "ade20k"] = HfArg(
        default="folder", help="'folder' for your own classes.txt, images/ and annotations/; 'ade20k' for ADE20K."
    )
    data_dir: str | None = HfArg(
        default=None, help="The folder. For ADE20K that of ADEChallengeData2016; without one it is downloaded."
    )
    dataset_name: str | None = HfArg(
        default=None,
        help="Instead, rows: a data set of the Hub, or anything that `datasets` loads, such as a folder with"
        " metadata.csv or one that `save_to_disk` has written.",
    )
    dataset_config_name: str | None = HfArg(default=None, help="Its configuration.")
    image_column: str = HfArg(default="image", help="Its column of pictures.")
    label_column: str = HfArg(default="annotation", help="Its column of masks.")
    train_split: str | None = HfArg(
        default=None,
        help="The split to train on: a folder in images/ and annotations/, by default 'training'; or a split of"
        " --dataset_name, by default 'train', or a part of it, such as 'train[:80%%]'.",
    )
    validation_split: str | None = HfArg(
        default=None, help="The split to evaluate on, of either; by default 'validation'."
    )
    class_names_file: str | None = HfArg(
        default=None,
        help="Names of the classes, one per line, in place of those in classes.txt or in the features of the rows.",
    )
    reduce_labels: bool | None = HfArg(
        default=None, help="Whether id 0 means unlabelled and ids 1..K are the classes. ADE20K: yes; otherwise no."
    )

    def source(self) -> dict:
        """What [`load_data`] is to load."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(SourceArguments)}


@dataclass
class DataArguments(SourceArguments):
    """Where pictures and masks come from, and how large they are made. Every verb that reads data shares these."""

    preprocessing_num_workers: int = HfArg(default=2, help="Processes that check all masks, once per data set.")
    short_side: int = HfArg(
        default=512, help="Length in pixels to which the short side is resized, keeping the ratio."
    )
    long_side: int = HfArg(default=2048, help="Upper bound of the long side in pixels.")
    crop_size: list[int] = HfArg(
        default_factory=lambda: [512], help="Training crop in pixels: one side, or height and width."
    )
    scale_range: list[float] = HfArg(default_factory=lambda: [0.5, 2.0], help="Range of the random scale in training.")
    max_class_share: float = HfArg(
        default=0.75, help="A crop is drawn again, up to 10 times, if one class has this share of it."
    )
    streaming: bool = HfArg(
        default=False,
        help="Read the split to train on of --dataset_name as it comes, and neither fetch nor check it before. Of the"
        " split to evaluate on only its own files are fetched.",
    )
    shuffle_buffer: int = HfArg(
        default=256,
        help="Rows from which each process that loads images draws the next one, where they are streamed.",
    )
    leave_out_unreadable: bool = HfArg(
        default=False,
        help="Leave out rows that are streamed and lack a file, or have one that cannot be read, with a warning each.",
    )

    def __post_init__(self):
        self.check_sizes(1)  # again where the model is known, which may demand more
        if len(self.crop_size) not in (1, 2):
            raise ValueError(f"--crop_size takes one side or height and width, got {self.crop_size}.")
        if len(self.scale_range) != 2 or not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise ValueError(f"--scale_range takes two positive numbers, low and high, got {self.scale_range}.")
        if self.scale_range[0] * self.short_side < 1 or self.scale_range[1] > MAX_SCALE:
            raise ValueError(
                f"--scale_range leaves a short side of at least one pixel, and is at most {MAX_SCALE:g}; got"
                f" {self.scale_range}."
            )
        if not 0 < self.max_class_share <= 1:
            raise ValueError(f"--max_class_share is a share of a crop, in (0, 1]; got {self.max_class_share}.")
        for name, sides in (("crop_size", self.crop_size), ("short_side", [self.short_side])):
            if max(sides) > MAX_SIDE:
                raise ValueError(f"--{name} is at most {MAX_SIDE} pixels; got {sides}.")
        if self.dataset == "folder" and self.data_dir is None and self.dataset_name is None:
            raise ValueError("No data set is named: pass --data_dir FOLDER, --dataset ade20k or --dataset_name NAME.")
        if self.shuffle_buffer < 1:
            raise ValueError(f"--shuffle_buffer is a number from 1 on; got {self.shuffle_buffer}.")

    def source(self) -> dict:
        """What [`load_data`] is to load, and how it is checked."""
        return {"num_workers": self.preprocessing_num_workers, "streaming": self.streaming, **super().source()}

    def check_sizes(self, min_image_size: int) -> None:
        """
        Raises:
            ValueError: for a size in which the model would not take images.
        """
        sizes = {"crop_size": self.crop_size, "short_side": [self.short_side], "long_side": [self.long_side]}
        for name, sides in sizes.items():
            if min(sides) < min_image_size:
                unit = "pixel" if min_image_size == 1 else "pixels"
                raise ValueError(
                    f"--{name} is at least {min_image_size} {unit}, the least that the model sees; got {sides}."
                )


@dataclass
class ModelArguments:
    """What is trained."""

    config: str | None = HfArg(
        default=None, help="JSON file with fields of DenseCLIPConfig; the rest keeps its defaults."
    )
    clip: str | None = HfArg(
        default=None, help="CLIP checkpoint to start from; 'none', as without one, for random weights."
    )
    image: str | None = HfArg(
        default=None,
        help="Checkpoint of another image encoder to start from, any backbone of Transformers such as"
        " 'microsoft/resnet-50'; --clip then gives the text encoder alone. 'none', as without one, for CLIP's own.",
    )
    image_mean: list[float] | None = HfArg(
        default=None,
        help="Mean of red, green and blue, in [0, 1], that pictures are normalised with; by default that of"
        " --image, or else CLIP's.",
    )
    image_std: list[float] | None = HfArg(
        default=None, help="Their standard deviation; by default that of --image, or else CLIP's."
    )
    tokenizer: str | None = HfArg(
        default=None, help="CLIP tokenizer, a folder or a Hub id; by default that beside --clip, or else OpenAI's."
    )

    def __post_init__(self):
        if self.clip == "none":
            self.clip = None
        if self.image == "none":
            self.image = None
        for name in ("image_mean", "image_std"):
            values = getattr(self, name)
            if values is not None and len(values) != 3:
                raise ValueError(f"--{name} takes three numbers, for red, green and blue; got {values}.")
        if (self.image_mean is None) != (self.image_std is None):
            raise ValueError("--image_mean and --image_std belong together; give both or neither.")
        if self.image_std is not None and min(self.image_std) <= 0:
            raise ValueError(f"--image_std is divided by, so it must be positive; got {self.image_std}.")

    def pretrained(self) -> list[str]:
        """The checkpoints that training starts from."""
        return [name for name in (self.clip, self.image) if name is not None]


@dataclass
class DenseCLIPTrainingArguments(TrainingArguments):
    """[`TrainingArguments`], and what is DenseCLIP's own."""

    recipe_batch_size: int | None = HfArg(
        default=None, help="Images per step that the learning rate was chosen for; any other is warned about."
    )
    image_encoder_lr_multiplier: float = HfArg(
        default=1.0, help="Factor on the learning rate of the image encoder; 0.1 keeps CLIP's weights close."
    )
    image_encoder_no_decay: list[str] = HfArg(
        default_factory=list,
        help="Parts of names, such as 'norm': what of the image encoder has one in its name is not decayed. By"
        " default all of it is, as published for CLIP's.",
    )
    freeze_text_encoder: bool = HfArg(
        default=False, help="Do not train the text encoder and its projection; the contexts still train."
    )
    freeze_image_encoder: bool = HfArg(
        default=False,
        help="Do not train what of the image encoder is pretrained: for few images. Its batch norms keep their"
        " statistics, and nothing in it is dropped. What is new in it, such as a ViT's pyramid, still trains.",
    )
    lora_rank: int | None = HfArg(
        default=None,
        help="Freeze the pretrained image encoder, and train LoRA matrices of this rank, such as 8, beside its"
        " layers (needs `peft`). They are merged into the weights that are saved.",
    )
    lora_alpha: int | None = HfArg(
        default=None, help="LoRA's updates are scaled by this over the rank; defaults to twice the rank."
    )
    lr_schedule: Literal["transformers", "published_poly"] = HfArg(
        default="transformers",
        help="'published_poly' is the paper's: every group falls to the same --min_learning_rate, and warms up"
        " from --warmup_start_ratio over --warmup_steps. 'transformers' follows --lr_scheduler_type.",
    )
    lr_power: float = HfArg(default=0.9, help="Exponent of published_poly.")
    min_learning_rate: float = HfArg(default=1e-6, help="Where published_poly ends, in every group.")
    warmup_start_ratio: float = HfArg(default=1e-6, help="Factor of published_poly at the first step.")
    batch_norm: Literal["sync", "local", "frozen"] = HfArg(
        default="sync",
        help="'sync' takes statistics over all processes, 'local' over each device's images, 'frozen' keeps"
        " those of the pretrained ResNet; pyramid and head, which are new, take theirs as 'sync' does.",
    )
    channels_last: bool = HfArg(
        default=False, help="Train convolutions with channels last: faster, and equal up to rounding."
    )
    class_weights: str | None = HfArg(
        default=None, help="File with one weight per line, in order of ids, for the cross-entropy."
    )
    ohem_threshold: float | None = HfArg(
        default=None,
        help="Online hard example mining: of the labelled pixels count only those whose own class has at most"
        " this probability, in (0, 1].",
    )
    ohem_min_kept: int = HfArg(default=100_000, help="Pixels of a batch that it keeps at least.")
    dice_weight: float | None = HfArg(
        default=None,
        help="Weight of a Dice loss beside the cross-entropy. By default 1.0 where a class has less than 2 %% of the"
        " labelled pixels and no other loss is chosen, and 0 otherwise, for ADE20K and in the paper's recipes.",
    )
    ema_decay: float | None = HfArg(
        default=None,
        help="Decay per step, such as 0.999, of an average of the weights that is evaluated and saved in place"
        " of the last ones.",
    )
    jpeg_decoding: Literal["auto", "full", "reduced"] = HfArg(
        default="auto",
        help="'full' decodes JPEGs as published; 'reduced' at 1/2, 1/4 or 1/8 of their size where a training sample"
        " is smaller anyway, which takes a quarter of the time of photographs of 12 megapixels. 'auto' is full for"
        " ADE20K and the paper's recipes, and reduced otherwise. Evaluation always decodes in full.",
    )
    num_sample_images: int = HfArg(
        default=4, help="Validation images drawn at each evaluation, with prediction and score map."
    )
    logging_steps: float | None = HfArg(
        default=None,
        help="Steps from one printed loss to the next; by default a twentieth of the run, at most 500.",
    )
    # The transforms read columns that are no arguments of the model, and that the Trainer would remove.
    remove_unused_columns: bool = HfArg(default=False, help="Has to stay False here.")
    report_to: None | str | list[str] = HfArg(
        default=None, help="Where logs go, such as 'wandb' or 'none'. Defaults to TensorBoard where it is installed."
    )

    def __post_init__(self):
        if self.report_to is None:
            self.report_to = "tensorboard" if is_tensorboard_available() else "none"
        if self.greater_is_better is None and "/" in (self.metric_for_best_model or ""):
            self.greater_is_better = True  # also of a class whose name ends in "loss", such as "forest loss"
        # How long the run is, only the Trainer knows.
        self.logs_by_length = self.logging_steps is None
        if self.logging_steps is None:
            self.logging_steps = TrainingArguments.logging_steps
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise ValueError(f"--{name} is a number from {least} on; got {value}.")
        super().__post_init__()
        self.check_launcher()
        missing = set(self.report_to) & set(INTEGRATION_TO_CALLBACK) - {*get_available_reporting_integrations()}
        if missing := missing.difference(UNKNOWN_REPORTERS):
            raise ValueError(
                f"--report_to {', '.join(sorted(missing))} is not installed here. Install it, or leave --report_to"
                " out."
            )
        if self.ohem_threshold is not None and not 0 < self.ohem_threshold <= 1:
            raise ValueError(f"--ohem_threshold is a probability in (0, 1]; got {self.ohem_threshold}.")
        if self.label_smoothing_factor != 0:
            raise ValueError("--label_smoothing_factor is not part of any loss here; leave it at 0.")
        if self.lora_rank is not None and self.freeze_image_encoder:
            raise ValueError(
                "--lora_rank freezes the pretrained image encoder and trains adapters in it, --freeze_image_encoder"
                " trains nothing in it. Give one of the two."
            )
        if self.lora_rank is None and self.lora_alpha is not None:
            raise ValueError(f"--lora_alpha {self.lora_alpha} scales adapters; without --lora_rank there are none.")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"--ema_decay lies in [0, 1), such as 0.999; got {self.ema_decay}.")
        if self.ema_decay is not None and self.load_best_model_at_end:
            raise ValueError(
                "--load_best_model_at_end would load the raw weights of the checkpoint whose *averaged* weights were"
                " best. Use one of --ema_decay and --load_best_model_at_end."
            )

    def check_for_stream(self) -> None:
        """
        Raises:
            ValueError: where the end of an epoch is asked for, which data that are streamed do not tell.
        """
        if self.max_steps <= 0:
            raise ValueError(
                "How many rows a split has that is streamed is not known before it was read, so --num_train_epochs"
                " says nothing: give --max_steps. An epoch has the number of rows over that of images in a step."
            )
        for name in ("eval_strategy", "save_strategy", "logging_strategy"):
            if getattr(self, name) == "epoch":
                raise ValueError(f"--{name} epoch needs the end of an epoch, which a stream has not: use 'steps'.")

    def check_launcher(self) -> None:
        """
        Raises:
            ValueError: where one process would spread its batches over several GPUs.
        """
        if self.n_gpu > 1:
            raise ValueError(
                f"One process sees {self.n_gpu} GPUs, and Transformers would spread it over them by nn.DataParallel,"
                " where each GPU's batch norms see its own images alone. Start a process for each GPU, by `torchrun"
                f" --nproc_per_node {self.n_gpu} -m training.train ...` or `accelerate launch -m training.train ...`"
                " (or training.evaluate), or show it one GPU by CUDA_VISIBLE_DEVICES=0."
            )


@dataclass
class EvaluationArguments:
    """How to evaluate."""

    checkpoint: str = HfArg(help="The model: a folder or a Hub id.")
    output_dir: str | None = HfArg(
        default=None, help="Where tables and pictures go. Defaults to the checkpoint's folder, or one in outputs/."
    )
    multi_scale: bool = HfArg(default=False, help="Average over six scales, each with flip ('MS').")
    inference_mode: Literal["checkpoint", "whole", "slide"] = HfArg(
        default="checkpoint", help="Whole images or sliding windows."
    )
    window_size: int | None = HfArg(default=None, help="Side of the window in pixels.")
    window_stride: int | None = HfArg(default=None, help="Its step in pixels.")
    per_device_eval_batch_size: int = HfArg(default=1, help="Images that are loaded at a time.")
    dataloader_num_workers: int = HfArg(default=2, help="Processes that load them.")
    dtype: Literal["checkpoint", "auto", "float32", "bfloat16"] = HfArg(
        default="checkpoint",
        help="What numbers the model computes in: those of its weights, as published figures need, or fused and in"
        " this type. auto is bfloat16 where the processor multiplies matrices in it, and float32 elsewhere.",
    )
    bf16: bool = HfArg(
        default=False,
        help="Compute in bfloat16 by autocast, as a training with --bf16 does. Weights stay as they are and are"
        " rounded in each call, so --dtype bfloat16 is faster.",
    )
    use_cpu: bool = HfArg(default=False, help="Leave GPUs alone.")
    revision: str | None = HfArg(default=None, help="Branch, tag or commit of a Hub checkpoint.")

    def __post_init__(self):
        if self.bf16 and self.dtype != "checkpoint":
            raise ValueError(
                f"--bf16 and --dtype {self.dtype} both say what the model computes in: give --dtype bfloat16 alone, or"
                " --bf16 alone for autocast."
            )

    def training_arguments(self) -> DenseCLIPTrainingArguments:
        """The arguments of the Trainer that evaluates: those of the same names, but no logs."""
        known = {field.name for field in dataclasses.fields(DenseCLIPTrainingArguments)}
        return DenseCLIPTrainingArguments(
            report_to="none", **{name: value for name, value in vars(self).items() if name in known}
        )
