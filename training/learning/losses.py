# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The loss of training: the published cross-entropies, and the options beside them."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from modeling_denseclip import DenseCLIPSemanticSegmenterOutput
from modeling_denseclip.configuration_denseclip import DenseCLIPConfig
from modeling_denseclip.loss_denseclip import by_pixel, loss_parts, pixel_cross_entropy, resize_to_labels

from ..options.arguments import DenseCLIPTrainingArguments


@dataclass
class SegmentationLoss:
    """
    The parts of the loss, by name: `decode` of the logits, `score_map` of the score map (with language), `auxiliary`
    of the auxiliary head (in training, where there is one), and `dice`.

    Without options the sum of the parts is what the model computes itself when it is given labels.

    Args:
        config ([`DenseCLIPConfig`]): its `ignore_index`, `temperature` and `auxiliary_loss_weight` apply.
        class_weights (`torch.Tensor` of shape `(num_labels,)`, *optional*): factors on each class's pixels in all
            cross-entropies.
        ohem_threshold (`float`, *optional*): online hard example mining in the cross-entropy of the logits: only
            pixels count that give their own class at most this probability, but at least the `ohem_min_kept` hardest.
            The mean is then over the pixels that count.
        ohem_min_kept (`int`, *optional*, defaults to 100,000): pixels of the batch.
        dice_weight (`float`, *optional*, defaults to 0.0): weight of a Dice loss of the logits, averaged over the
            classes that the batch's labels hold.

    Source: cross-entropies: published `DenseCLIP.forward_train`; OHEM: "Training Region-based Object Detectors with
    Online Hard Example Mining", in the form of mmseg's `OHEMPixelSampler`; Dice: "V-Net", equation 3.
    """

    config: DenseCLIPConfig
    class_weights: torch.Tensor | None = None
    ohem_threshold: float | None = None
    ohem_min_kept: int = 100_000
    dice_weight: float = 0.0

    def __post_init__(self):
        if self.class_weights is not None and self.class_weights.shape != (self.config.num_labels,):
            raise ValueError(
                f"There are {self.class_weights.numel()} class weights for {self.config.num_labels} classes: each"
                " class needs one, in the order of ids."
            )

    @classmethod
    def from_arguments(cls, config: DenseCLIPConfig, args: DenseCLIPTrainingArguments) -> "SegmentationLoss":
        """The loss that a training is asked for. Raises ValueError as [`read_class_weights`]."""
        weights = None if args.class_weights is None else read_class_weights(args.class_weights, config.num_labels)
        return cls(config, weights, args.ohem_threshold, args.ohem_min_kept, args.dice_weight or 0.0)

    def __call__(self, outputs: DenseCLIPSemanticSegmenterOutput, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            outputs: of the model, with `logits` and, where it has them, `score_map` and `auxiliary_logits`.
            labels (`torch.Tensor` of shape `(batch_size, height, width)`): ids, or `ignore_index`. Logits of any size
                are resized to them.
        """
        labels = labels.to(
            outputs.logits.device
        ).long()  # of a byte, they would be compared with an id of more wrongly
        # Resized here, once for all parts that read them: at the size of the labels they take most of the memory.
        logits = resize_to_labels(outputs.logits, labels)
        outputs = dataclasses.replace(outputs, logits=logits)
        parts = loss_parts(outputs, labels, self.config, self._cross_entropy, self._decode_loss)
        if self.dice_weight > 0:
            dice = dice_loss(logits, labels, self.config.ignore_index)
            parts["dice"] = self.dice_weight * dice
        return parts

    def _cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return pixel_cross_entropy(logits, labels, self.config.ignore_index, self._weights_for(logits))

    def _weights_for(self, logits: torch.Tensor) -> torch.Tensor | None:
        return None if self.class_weights is None else self.class_weights.to(logits)

    def _decode_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if not self.ohem_threshold:
            return self._cross_entropy(logits, labels)
        weight, ignore_index = self._weights_for(logits), self.config.ignore_index
        pixel_losses = F.cross_entropy(
            *by_pixel(logits, labels), weight=weight, ignore_index=ignore_index, reduction="none"
        ).view_as(labels)
        labelled = labels != ignore_index
        # Chosen by probability, not by loss: class weights do not make a pixel harder.
        with torch.no_grad():
            own = labels.masked_fill(~labelled, 0)[:, None]
            probability = logits.softmax(dim=1).gather(1, own)[:, 0].masked_fill(~labelled, torch.inf)
            hardest = probability.flatten().kthvalue(min(self.ohem_min_kept, probability.numel())).values
            kept = labelled & (probability <= hardest.clamp(min=self.ohem_threshold))
        return (pixel_losses * kept).sum() / kept.sum().clamp(min=1)


def dice_loss(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """
    1 - Dice = 1 - 2 |P * L| / (|P|^2 + |L|^2) for the softmax P and the one-hot labels L of each class, over all
    labelled pixels of the batch; the mean over the classes that `labels` hold, 0 if they hold none.
    """
    num_labels = logits.shape[1]
    labelled = labels != ignore_index
    # (batch_size, num_labels, height, width) -> (labelled pixels, num_labels)
    probabilities = logits.movedim(1, -1).softmax(dim=-1)[labelled]
    labels = labels[labelled]
    pixels = torch.bincount(labels, minlength=num_labels)
    overlap = probabilities.gather(1, labels[:, None])[:, 0]
    overlap = overlap.new_zeros(num_labels).index_add(0, labels, overlap)
    dice = 2 * overlap / (probabilities.square().sum(dim=0) + pixels).clamp(min=1e-6)
    present = pixels > 0
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


def read_class_weights(path: str | os.PathLike, num_labels: int) -> torch.Tensor:
    """
    Read one weight per line, in the order of ids. `python -m training.inspect_dataset --write_class_weights` writes
    such a file.

    Raises:
        ValueError: for another number of lines than classes, or a weight that is negative or no number.
    """
    lines = Path(path).read_text(encoding="utf-8").split()
    try:
        weights = torch.tensor([float(line) for line in lines])
    except ValueError as error:
        raise ValueError(f"{path} holds something that is no number: {error}.") from error
    if len(weights) != num_labels:
        raise ValueError(
            f"{path} holds {len(weights)} weights; there must be one for each of the {num_labels} classes."
        )
    for line, weight in enumerate(weights.tolist(), start=1):
        if not 0 <= weight < float("inf"):
            raise ValueError(f"{path} holds the weight {weight} on line {line}; weights are finite and not negative.")
    return weights
