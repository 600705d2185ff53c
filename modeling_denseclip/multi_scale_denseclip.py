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
"""Multi-scale and flip testing on top of a segmentation model."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from .configuration_denseclip import as_pair
from .modeling_denseclip_attention import at_least_float32


PAPER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def scaled_size(size: Mapping[str, int], scale: float) -> dict[str, int]:
    """
    An image processor's size, in any of its forms, times a scale.

    Source: `Resize.random_sample_ratio` and `MultiScaleFlipAug` of mmseg 0.19, which cut off fractions.
    """
    return {side: int(length * scale) for side, length in dict(size).items()}


@torch.no_grad()
def multi_scale_inference(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    scales: Sequence[float] = PAPER_SCALES,
    flip: bool = True,
    target_size: tuple[int, int] | None = None,
    **kwargs,
) -> torch.Tensor:
    """
    Class probabilities, averaged over scaled and mirrored copies of the image.

    Args:
        model ([`DenseCLIPForSemanticSegmentation`]):
            The model, in evaluation mode. It slides a window over copies larger than that, if its config says so.
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            Normalised images at scale 1.
        scales (`Sequence[float]`, *optional*, defaults to the paper's six from 0.5 to 1.75):
            Factors of height and width; sizes round half up, and resizing is bilinear without antialiasing.
        flip (`bool`, *optional*, defaults to `True`):
            Whether each scale is seen mirrored as well.
        target_size (`tuple[int, int]`, *optional*):
            Height and width of the result in pixels. Defaults to those of `pixel_values`.
        kwargs:
            Passed to the model (`inference_mode`, `window_size`, `window_stride`).

    Returns:
        `torch.Tensor` of shape `(batch_size, num_labels, *target_size)`: probabilities, which sum to 1 over classes.

    Raises:
        ValueError: for a model in training mode, no scale, or a size that is no pair.
    """
    if len(scales) == 0 or min(scales) <= 0:
        raise ValueError(f"`scales` must be one or more positive factors; got {list(scales)}.")
    height, width = pixel_values.shape[-2:]
    target_size = (height, width) if target_size is None else target_size
    sizes = [(int(height * scale + 0.5), int(width * scale + 0.5)) for scale in scales]
    copies = (F.interpolate(pixel_values, size=size, mode="bilinear", align_corners=False) for size in sizes)
    return average_probabilities(model, copies, target_size, flip, **kwargs)


@torch.no_grad()
def average_probabilities(
    model: PreTrainedModel, copies: Iterable[torch.Tensor], target_size: tuple[int, int], flip: bool = True, **kwargs
) -> torch.Tensor:
    """
    Class probabilities, averaged over copies of the same image that differ in size.

    Args:
        model ([`DenseCLIPForSemanticSegmentation`]):
            The model, in evaluation mode.
        copies (`Iterable[torch.Tensor]`):
            Normalised images of shape `(batch_size, num_channels, height, width)`, each of its own height and width.
            The paper's are resized from the original photograph, not from one another.
        target_size (`tuple[int, int]`):
            Height and width of the result in pixels.
        flip (`bool`, *optional*, defaults to `True`):
            Whether each copy is seen mirrored as well.
        kwargs:
            Passed to the model (`inference_mode`, `window_size`, `window_stride`).

    Returns:
        `torch.Tensor` of shape `(batch_size, num_labels, *target_size)`: probabilities, which sum to 1 over classes.

    Raises:
        ValueError: for a model in training mode, or a size that is no pair.

    Source: paper section 4.1, "MS"; mmseg `EncoderDecoder.aug_test`, which averages softmax outputs, not logits.
    """
    if model.training:
        raise ValueError("The model is in training mode, where dropout is on; call `model.eval()` first.")
    target_size = as_pair(target_size, "target_size")
    total, count = 0, 0
    for copy in copies:
        for mirrored in (False, True) if flip else (False,):
            logits = model(copy.flip(-1) if mirrored else copy, return_dict=True, **kwargs).logits
            logits = at_least_float32(logits)
            # In two steps, over the size of the input, as the published code does.
            logits = F.interpolate(logits, size=copy.shape[-2:], mode="bilinear", align_corners=False)
            logits = F.interpolate(logits, size=target_size, mode="bilinear", align_corners=False)
            probabilities = logits.softmax(dim=1)
            total = total + (probabilities.flip(-1) if mirrored else probabilities)
            count += 1
    return total / count


__all__ = ["average_probabilities", "multi_scale_inference", "scaled_size"]
