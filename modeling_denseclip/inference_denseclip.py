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
"""Inference: sliding windows, class maps in little memory, models fused for speed, and multi-scale testing."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.models.resnet.modeling_resnet import ResNetConvLayer, ResNetShortCut
from transformers.models.upernet.modeling_upernet import UperNetConvModule

from .class_maps_denseclip import NOT_FINITE, class_maps, whole_positions
from .class_names_denseclip import check_weights_are_loaded
from .configuration_denseclip import as_pair
from .resizing_denseclip import at_least_float32, resize_logits


PAPER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
# How many classes' logits `segment_classes` enlarges at a time.
CLASSES_AT_A_TIME = 16
# Transformers' modules in which a batch norm follows a convolution at once; ours name them in `folded_norms`.
FOLDED_NORMS = {
    UperNetConvModule: (("conv", "batch_norm"),),
    ResNetConvLayer: (("convolution", "normalization"),),
    ResNetShortCut: (("convolution", "normalization"),),
}


class DenseCLIPInferenceMixin:
    """What a [`DenseCLIPForSemanticSegmentation`] can do in evaluation mode beside a call on the whole image."""

    is_fused = False

    def sliding_window(
        self,
        inference_mode: str | None = None,
        window_size: int | tuple[int, int] | None = None,
        window_stride: int | tuple[int, int] | None = None,
    ) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """
        Size and stride of the window that a call asks for, or `None` for the whole image.

        Raises:
            ValueError: for another mode, a stride that leaves out pixels, or a window that is too small for the
                coarsest feature map.
        """
        config = self.config
        inference_mode = config.inference_mode if inference_mode is None else inference_mode
        if inference_mode not in ("whole", "slide"):
            raise ValueError(f"`inference_mode` must be 'whole' or 'slide'; got {inference_mode!r}.")
        if inference_mode == "whole":
            return None
        size = as_pair(config.window_size if window_size is None else window_size, "window_size")
        stride = as_pair(config.window_stride if window_stride is None else window_stride, "window_stride")
        if min(stride) < 1 or stride[0] > size[0] or stride[1] > size[1] or min(size) < self.min_image_size:
            raise ValueError(
                f"`window_stride` {stride} must be positive and at most `window_size` {size}, and windows at least"
                f" {self.min_image_size} pixels high and wide."
            )
        return size, stride

    def slide(
        self, pixel_values: torch.Tensor, window_size: tuple[int, int], window_stride: tuple[int, int]
    ) -> torch.Tensor:
        """
        Average the logits of overlapping windows: (batch_size, channels, height, width) ->
        (batch_size, num_labels, height, width). The last window of a row or column is shifted back into the image.

        Source: mmseg `EncoderDecoder.slide_inference`.
        """
        windows = self.segment_windows(pixel_values, window_size, window_stride)
        return average_windows(windows, slice(None), tuple(pixel_values.shape[-2:]))

    def segment_windows(
        self, pixel_values: torch.Tensor, window_size: tuple[int, int], window_stride: tuple[int, int]
    ) -> list[tuple[slice, slice, torch.Tensor]]:
        """Rows and columns of each window in the image, and its logits at stride 4."""
        batch_size, _, height, width = pixel_values.shape
        window_height, window_width = min(window_size[0], height), min(window_size[1], width)
        places = [
            (slice(top, top + window_height), slice(left, left + window_width))
            for top in window_starts(height, window_height, window_stride[0])
            for left in window_starts(width, window_width, window_stride[1])
        ]
        windows = []
        for first in range(0, len(places), self.config.window_batch_size):
            chunk = places[first : first + self.config.window_batch_size]
            logits = self.segment(torch.cat([pixel_values[:, :, rows, columns] for rows, columns in chunk])).logits
            for place, part in zip(chunk, logits.split(batch_size), strict=True):
                windows.append((*place, part))
        return windows

    @torch.no_grad()
    def segment_classes(
        self,
        pixel_values: torch.Tensor,
        target_size: tuple[int, int] | None = None,
        inference_mode: str | None = None,
        window_size: int | tuple[int, int] | None = None,
        window_stride: int | tuple[int, int] | None = None,
    ) -> torch.Tensor:
        r"""
        The class of each pixel, as post-processing makes it of the logits of a call, in a fraction of the memory: of
        windows, logits are enlarged for a few classes at a time. For large photographs; images must not be padded.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Images as the image processor makes them.
            target_size (`tuple[int, int]`, *optional*):
                Height and width of the result, such as the photograph's own. Defaults to those of `pixel_values`.
            inference_mode, window_size, window_stride (*optional*):
                As in a call.

        Returns:
            `torch.LongTensor` of shape `(batch_size, *target_size)`: class ids in `[0, num_labels)`.

        Raises:
            ValueError: for a model in training mode, images or windows that a call would refuse, or logits that are
                not finite.
        """
        if self.training:
            raise ValueError("This model is in training mode; call `model.eval()` first.")
        size = check_pixel_values(pixel_values, self.config.num_channels, self.min_image_size)
        target_size = size if target_size is None else as_pair(target_size, "target_size")
        window = self.sliding_window(inference_mode, window_size, window_stride)
        if window is not None and (size[0] > window[0][0] or size[1] > window[0][1]):
            windows = self.segment_windows(pixel_values, *window)
        else:
            logits = self.segment(pixel_values).logits
            positions = whole_positions(target_size, logits)
            return torch.stack(
                [found.class_ids for found in class_maps((of_image, *positions) for of_image in logits)]
            )
        best = classes = None
        for first in range(0, self.num_labels, CLASSES_AT_A_TIME):
            some = slice(first, first + CLASSES_AT_A_TIME)
            values, indices = resize_logits(average_windows(windows, some, size), target_size).max(dim=1)
            if best is None:
                best, classes = values, indices
            else:
                classes = torch.where(values > best, indices + first, classes)
                best = torch.maximum(best, values)
        if not best.isfinite().all():
            raise ValueError(NOT_FINITE)
        return classes

    def fuse(self) -> PreTrainedModel:
        """
        Prepare the model for inference alone, in place: batch norms are folded into the convolutions before them,
        convolutions work with channels last, and class embeddings, if they do not depend on the image, become a
        constant, for which no call has to look whether a weight of the text tower has changed. Results are equal up to
        rounding. From then on the model cannot be trained or saved, and weights must not be edited; class names can be
        set.

        Raises:
            ValueError: for a model in training mode.
        """
        if self.training:
            raise ValueError("`fuse` is for inference; call `model.eval()` first.")
        check_weights_are_loaded(self)
        self.keep_text_embeddings()
        fold_batch_norms(self)
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.is_fused = True
        return self

    @torch.no_grad()
    def keep_text_embeddings(self):
        """Make the class embeddings of a fused model a constant."""
        # CODEPATH: DenseCLIP rows read class names, "CLIP + Semantic FPN" rows have no text tower
        if self.config.use_language and not self.prompting.makes_contexts_from_image:
            self.constant_text_embeddings = self.encode_class_names()

    def train(self, mode: bool = True):
        if mode and self.is_fused:
            raise ValueError("This model was fused for inference, so it cannot be trained. Load it anew.")
        return super().train(mode)


def check_pixel_values(pixel_values: torch.Tensor, num_channels: int, min_image_size: int) -> tuple[int, int]:
    """
    Height and width of images.

    Raises:
        ValueError: for what is no batch of prepared images, or images that are too small for the coarsest feature map.
    """
    is_tensor = isinstance(pixel_values, torch.Tensor)
    if not is_tensor or pixel_values.ndim != 4 or pixel_values.shape[0] == 0 or pixel_values.shape[1] != num_channels:
        received = f"shape {tuple(pixel_values.shape)}" if is_tensor else f"a {type(pixel_values).__name__}"
        raise ValueError(
            f"`pixel_values` must be a tensor of shape (batch_size, {num_channels}, height, width), as"
            f" DenseCLIPImageProcessor makes it; got {received}."
        )
    # Integers are pixels as a file has them. Floating-point ones of that range cannot be told without a look at them.
    if not pixel_values.is_floating_point():
        raise ValueError(
            f"`pixel_values` is of type {pixel_values.dtype}, so it was not normalised. Prepare images by"
            " DenseCLIPImageProcessor."
        )
    height, width = pixel_values.shape[-2:]
    if min(height, width) < min_image_size:
        raise ValueError(
            f"`pixel_values` is {height} x {width} pixels; both sides must have at least {min_image_size}, one cell of"
            " the coarsest feature map. Resize the image, e.g. with DenseCLIPImageProcessor."
        )
    return height, width


def average_windows(
    windows: Sequence[tuple[slice, slice, torch.Tensor]], classes: slice, size: tuple[int, int]
) -> torch.Tensor:
    """
    Mean of all windows that see a pixel, for some classes: windows as `segment_windows` gives them ->
    (batch_size, classes, *size), in float32 or the precision that came in, if that is higher.
    """
    first = at_least_float32(windows[0][2][:, classes])
    logits = first.new_zeros((*first.shape[:2], *size))
    counts = logits.new_zeros(size)
    for rows, columns, part in windows:
        # One window at a time: enlarged, they take far more than all else in the model.
        window_size = (rows.stop - rows.start, columns.stop - columns.start)
        logits[:, :, rows, columns] += resize_logits(at_least_float32(part[:, classes]), window_size)
        counts[rows, columns] += 1
    return logits.div_(counts)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixel of each window along one side; the last one ends with the image."""
    steps = max(math.ceil((length - window) / stride), 0)
    return [min(step * stride, length - window) for step in range(steps + 1)]


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


@torch.no_grad()
def fold_batch_norms(model: nn.Module):
    """
    Replace each batch norm by scaling the convolution before it, in place; in evaluation mode the model computes the
    same. Batch norms of other modules stay.
    """
    for module in model.modules():
        pairs = getattr(module, "folded_norms", None) or FOLDED_NORMS.get(type(module), ())
        for conv_name, norm_name in pairs:
            norm = getattr(module, norm_name, None)  # not every bottleneck has a convolution in its shortcut
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                _fold(getattr(module, conv_name), norm)
                setattr(module, norm_name, nn.Identity())


def _fold(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d):
    scale = at_least_float32(norm.weight) * torch.rsqrt(at_least_float32(norm.running_var) + norm.eps)
    shift = at_least_float32(norm.bias) - at_least_float32(norm.running_mean) * scale
    if conv.bias is not None:
        shift = shift + at_least_float32(conv.bias) * scale
    # A transposed convolution has its output channels second.
    shape = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    weight = conv.weight
    conv.weight = nn.Parameter((at_least_float32(weight) * scale.view(shape)).to(weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)


__all__ = ["DenseCLIPInferenceMixin", "average_probabilities", "multi_scale_inference", "scaled_size"]
