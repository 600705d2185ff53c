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
"""The Hugging Face Trainer with DenseCLIP's learning rates and with evaluation by one confusion matrix."""

import math
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from .data import collate_for_evaluation
from .metrics import SegmentationScores, confusion_matrix, mean_iou_from_confusion


# The first part of a parameter's name says which part of the model it belongs to.
IMAGE_ENCODER = ("image_encoder",)
TEXT_ENCODER = ("text_encoder", "text_projection")


@dataclass
class DenseCLIPTrainingArguments(TrainingArguments):
    """[`TrainingArguments`], and what is DenseCLIP's own."""

    image_encoder_lr_multiplier: float = field(
        default=1.0,
        metadata={"help": "Factor on the learning rate of the image encoder; 0.1 keeps CLIP's weights close."},
    )
    freeze_text_encoder: bool = field(
        default=False, metadata={"help": "Do not train the text encoder and its projection; the contexts still train."}
    )
    # The transforms read columns of which the model's forward knows nothing.
    remove_unused_columns: bool = field(default=False, metadata={"help": "Has to stay False here."})


def freeze_text_encoder(model: nn.Module) -> None:
    """Freeze the text encoder and its projection. The learned contexts in its input are left trainable."""
    for name, parameter in model.named_parameters():
        if name.split(".")[0] in TEXT_ENCODER:
            parameter.requires_grad_(False)


def build_parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, image_encoder_lr_multiplier: float = 1.0
) -> list[dict]:
    """
    Sort the trainable parameters into the groups of the published recipe.

    The image encoder has a learning rate of its own. Everything decays but the norms in the context decoder's layers
    (not those around its projections, whose published names do not say that they are norms).

    Args:
        model (`nn.Module`): a DenseCLIP model; parameters with `requires_grad=False` are left out.
        learning_rate (`float`): the rate of all that is not the image encoder.
        weight_decay (`float`): the decoupled weight decay.
        image_encoder_lr_multiplier (`float`, *optional*, defaults to 1.0): factor on the image encoder's rate.

    Returns:
        `list[dict]`: groups for a `torch.optim.Optimizer`, each trainable parameter in exactly one, in a fixed order
        (a checkpoint of the optimizer knows its groups by their order only); empty groups are left out.

    Source: `paramwise_cfg` of the published configurations.
    """
    groups = {
        "image_encoder": {"lr": learning_rate * image_encoder_lr_multiplier, "weight_decay": weight_decay},
        "decay": {"lr": learning_rate, "weight_decay": weight_decay},
        "no_decay": {"lr": learning_rate, "weight_decay": 0.0},
    }
    for group in groups.values():
        group["params"] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = name.split(".")[0]
        if part in IMAGE_ENCODER:
            groups["image_encoder"]["params"].append(parameter)
        elif name.startswith("context_decoder.layers.") and "norm" in name:
            groups["no_decay"]["params"].append(parameter)
        else:
            groups["decay"]["params"].append(parameter)
    return [{"name": name, **group} for name, group in groups.items() if group["params"]]


class DenseCLIPTrainer(Trainer):
    """
    Trains DenseCLIP with its parameter groups, and evaluates it at the original size of the masks.

    Evaluation keeps no logits: each image's are brought to the size of its mask, turned into classes by the image
    processor's `post_process_semantic_segmentation`, and counted in one confusion matrix, summed over processes.

    It reports `eval_mean_iou`, `eval_mean_accuracy`, `eval_overall_accuracy`, and per class `eval_iou/<name>` and
    `eval_accuracy/<name>`, all fractions in [0, 1]; a class for which a score is not defined has no key. `scores`
    holds the last evaluation's [`SegmentationScores`].

    Pass the image processor as `processing_class`: it is saved with every checkpoint.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.freeze_text_encoder:
            freeze_text_encoder(self.model)
        self.scores: SegmentationScores | None = None
        self._confusion: torch.Tensor | None = None

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, optimizer_kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
            parameter_groups = build_parameter_groups(
                model, self.args.learning_rate, self.args.weight_decay, self.args.image_encoder_lr_multiplier
            )
            self.optimizer = optimizer_class(parameter_groups, **optimizer_kwargs)
        return self.optimizer

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        # Training stacks crops of one size; evaluation collects images of any.
        training_collator, self.data_collator = self.data_collator, collate_for_evaluation
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training_collator

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Count the classes of a batch of images of any sizes. Returns the mean loss and neither logits nor labels."""
        inputs = self._prepare_inputs(inputs)
        pairs = list(zip(inputs["pixel_values"], inputs["labels"], strict=True))
        losses = []
        # The filling images that a process may hold at the very end only contribute to the loss.
        for image_index, (pixel_values, labels) in enumerate(pairs):
            with torch.no_grad(), self.compute_loss_context_manager():
                outputs = model(pixel_values=pixel_values[None], labels=labels[None])
            losses.append(outputs.loss.detach().mean())
            if image_index < self._num_images_to_count(len(pairs)):
                (segmentation,) = self.processing_class.post_process_semantic_segmentation(
                    outputs, target_sizes=[tuple(labels.shape)]
                )
                self._confusion += confusion_matrix(
                    segmentation, labels, self.model.config.num_labels, self.model.config.ignore_index
                )
        return torch.stack(losses).mean(), None, None

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        config = self.model.config
        self._confusion = torch.zeros((config.num_labels,) * 2, dtype=torch.int64, device=self.args.device)
        output = super().evaluation_loop(
            dataloader, description, True, ignore_keys=ignore_keys, metric_key_prefix=metric_key_prefix
        )
        confusion = self.accelerator.reduce(self._confusion, reduction="sum").cpu()
        if not confusion.any():
            raise ValueError(
                f"All labels are {config.ignore_index} (unlabelled): there is nothing to score in this set."
            )
        self.scores = mean_iou_from_confusion(confusion)
        for name, value in _named_scores(self.scores, config.id2label).items():
            output.metrics[f"{metric_key_prefix}_{name}"] = value
        return output

    def _num_images_to_count(self, batch_size: int) -> int:
        """
        How many of this process's images are not repeats.

        Several processes take turns in batches, and the last turn is filled up with images from the beginning.
        """
        state = self.accelerator.gradient_state
        if state.end_of_dataloader and state.remainder > 0:
            return min(batch_size, max(0, state.remainder - self.args.process_index * self.args.eval_batch_size))
        return batch_size


def _named_scores(scores: SegmentationScores, id2label: dict[int, str]) -> dict[str, float]:
    """The scores that are defined: the Trainer writes them as JSON, which has no NaN."""
    named = {
        "mean_iou": scores.mean_iou,
        "mean_accuracy": scores.mean_accuracy,
        "overall_accuracy": scores.overall_accuracy,
    }
    for label, name in id2label.items():
        named[f"iou/{name}"] = float(scores.iou[label])
        named[f"accuracy/{name}"] = float(scores.accuracy[label])
    return {name: value for name, value in named.items() if not math.isnan(value)}
