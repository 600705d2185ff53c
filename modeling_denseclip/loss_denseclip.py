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
"""The loss: published cross-entropies of the logits, the score map and the auxiliary logits."""

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F
from transformers.modeling_outputs import ModelOutput

from .configuration_denseclip import DenseCLIPConfig
from .resizing_denseclip import at_least_float32, resize_logits


def loss_parts(
    outputs: ModelOutput,
    labels: torch.Tensor,
    config: DenseCLIPConfig,
    cross_entropy: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    decode_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """
    The parts of the loss, by name; their sum is the loss. All are brought to the device of the logits, since the parts
    of a model may lie on several.

    Args:
        outputs ([`DenseCLIPSemanticSegmenterOutput`]):
            Of the model: `logits` and, where it has them, `score_map` and `auxiliary_logits`.
        labels (`torch.Tensor` of integers of shape `(batch_size, height, width)`):
            Ids, or `config.ignore_index`. Logits of any size are resized to them.
        config ([`DenseCLIPConfig`]):
            Its `ignore_index`, `temperature` and `auxiliary_loss_weight` apply.
        cross_entropy (`Callable`, *optional*, defaults to [`pixel_cross_entropy`]):
            The loss of logits that have the size of the labels.
        decode_loss (`Callable`, *optional*, defaults to `cross_entropy`):
            The same for `logits` alone.

    Returns:
        `dict[str, torch.Tensor]`: `decode`, of the logits, and where there are such `score_map` and `auxiliary`.

    Source: published `DenseCLIP.forward_train`.
    """
    device = outputs.logits.device
    labels = labels.to(device).long()

    if cross_entropy is None:
        cross_entropy = partial(pixel_cross_entropy, ignore_index=config.ignore_index)

    def part(logits: torch.Tensor, loss: Callable) -> torch.Tensor:
        return loss(resize_to_labels(logits.to(device), labels), labels)

    parts = {"decode": part(outputs.logits, decode_loss or cross_entropy)}
    if outputs.score_map is not None:
        parts["score_map"] = config.auxiliary_loss_weight * part(outputs.score_map / config.temperature, cross_entropy)
    if outputs.auxiliary_logits is not None:
        parts["auxiliary"] = config.auxiliary_loss_weight * part(outputs.auxiliary_logits, cross_entropy)
    return parts


def resize_to_labels(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Logits of any size in that of the labels, in float32 or more."""
    logits = at_least_float32(logits)
    if logits.shape[-2:] == labels.shape[-2:]:
        return logits
    if not logits.is_cuda:
        # The classes of a pixel side by side: for `by_pixel`, and interpolated in fewer steps.
        logits = logits.contiguous(memory_format=torch.channels_last)
    return resize_logits(logits, labels.shape[-2:])


def by_pixel(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    On a CPU `(pixels, num_labels)` and `(pixels,)`, of which a cross-entropy over 150 classes takes less than half of
    the time that it takes of maps. A GPU gets the maps themselves.
    """
    if logits.is_cuda:
        return logits, labels
    return logits.movedim(1, -1).flatten(0, -2), labels.flatten()


def pixel_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, ignore_index: int, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Cross-entropy at the size of `labels`, averaged over all pixels. Ignored ones count as 0, as in mmseg 0.19; so a
    batch that has no labelled pixel gives 0 with zero gradients, where torch's own mean gives NaN.

    Raises:
        ValueError: for labels that are no classes.
    """
    try:
        loss = F.cross_entropy(
            *by_pixel(logits, labels), weight=class_weights, ignore_index=ignore_index, reduction="sum"
        )
    except IndexError as error:  # on a CPU; a GPU says that an assertion failed
        raise ValueError(
            f"`labels` must lie in [0, {logits.shape[1] - 1}], or be {ignore_index} (`config.ignore_index`) for pixels"
            f" without a class: {error}"
        ) from error
    return loss / labels.numel()


def check_labels(labels: torch.Tensor, batch_size: int, num_labels: int):
    """
    Raises:
        ValueError: for labels of another form, or a model of a single class, which has nothing to learn.
    """
    is_integer = isinstance(labels, torch.Tensor) and not (labels.is_floating_point() or labels.is_complex())
    if not is_integer or labels.ndim != 3 or labels.shape[0] != batch_size or 0 in labels.shape:
        is_tensor = isinstance(labels, torch.Tensor)
        received = f"{labels.dtype} of shape {tuple(labels.shape)}" if is_tensor else f"a {type(labels).__name__}"
        raise ValueError(
            f"`labels` must be integers of shape (batch_size, height, width), here ({batch_size}, height, width): the"
            f" class of each pixel; got {received}."
        )
    if num_labels == 1:
        raise ValueError(
            "`labels` were given to a model of one class, whose softmax is 1 everywhere: there is nothing to learn."
            " Name what is not of this class too, such as 'background'."
        )


__all__ = ["by_pixel", "check_labels", "loss_parts", "pixel_cross_entropy", "resize_to_labels"]
