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
"""Image processor for DenseCLIP: the test pipeline of https://github.com/raoyongming/DenseCLIP without mmcv."""

import functools
import os
import reprlib
from collections.abc import Iterable, Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import (
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
    infer_channel_dimension_format,
)
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import TensorType, auto_docstring, logging

from .class_maps_denseclip import AxisPositions, axis_positions, class_maps
from .configuration_denseclip import naming_errors, read_fields
from .sizes_denseclip import resized_size


logger = logging.get_logger(__name__)

IGNORE_INDEX = 255
# What Pillow opens at most, twice its `MAX_IMAGE_PIXELS`. A file may ask for any size.
MAX_PIXELS = 178_956_970
# OpenCV keeps bilinear weights as integers of this many bits.
OPENCV_WEIGHT_BITS = 11


class DenseCLIPImageProcessorKwargs(ImagesKwargs, total=False):
    r"""
    size (`dict`, *optional*, defaults to `self.size`):
        Pixels after resizing. With `shortest_edge` and `longest_edge` (mmcv's `(2048, 512)`) the picture becomes as
        large as possible within both, keeping its aspect ratio; with `shortest_edge` alone the longer side is free;
        `height` and `width` do not keep the ratio.
    resample (`PILImageResampling`, *optional*, defaults to `self.resample`):
        Only bilinear is supported: OpenCV's, which does *not* smooth when it shrinks (PIL's and torchvision's do).
    do_convert_rgb (`bool`, *optional*, defaults to `self.do_convert_rgb`):
        Whether to bring every picture to three channels: grey is repeated, an alpha channel is dropped, as OpenCV's
        reader and `transformers.image_utils.load_image` do.
    do_pad (`bool`, *optional*, defaults to `self.do_pad`):
        Whether to pad at the bottom and at the right, *after* normalisation: pictures with 0, which is the mean
        colour, and labels with 255, which the loss ignores.
    pad_size (`dict`, *optional*, defaults to `self.pad_size`):
        Canvas to pad to, `height` and `width`. If unset, the largest processed height and width of the batch.
    do_reduce_labels (`bool`, *optional*, defaults to `self.do_reduce_labels`):
        Whether to lower every id of the segmentation maps by one, as ADE20K needs: 0 ("other") becomes 255, which the
        loss ignores, 1 becomes 0, and 255 stays 255. Nothing else does it: call metrics with `reduce_labels=False`.
    """

    do_reduce_labels: bool


@auto_docstring(
    custom_intro="""
    Image processor of DenseCLIP: keep-ratio resize, rescale to [0, 1], normalisation with CLIP's mean and standard
    deviation and, if asked for, padding. The defaults are the published single-scale test pipeline; before
    normalisation its pictures are reproduced to the last bit. No torchvision is used.

    Images may be PIL pictures of any 8-bit mode, uint8 arrays or tensors, or arrays and tensors of another type with
    values in [0, 255]. Rotation tags (EXIF) are *not* applied: `transformers.image_utils.load_image`, and so the
    pipeline, applies them already.

    The model needs neither padding nor a fixed size. Pad only to put pictures of different sizes into one batch: the
    model sees the padded pixels too, so its logits change slightly.

    Source: `test_pipeline` of the published configurations (`MultiScaleFlipAug` with `img_scale=(2048, 512)`); mmcv
    1.3 `rescale_size`, `imrescale`, `imnormalize`; OpenCV `resize` (`INTER_LINEAR`, `INTER_NEAREST`).
    """
)
class DenseCLIPImageProcessor(PilBackend):
    valid_kwargs = DenseCLIPImageProcessorKwargs
    model_input_names = ["pixel_values"]
    resample = PILImageResampling.BILINEAR
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    size = {"shortest_edge": 512, "longest_edge": 2048}
    default_to_square = False
    do_resize = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    do_convert_rgb = True
    do_pad = False
    pad_size = None
    do_reduce_labels = False

    def __init__(self, **kwargs: Unpack[DenseCLIPImageProcessorKwargs]):
        _check_types(kwargs)
        super().__init__(**kwargs)
        if self.do_resize and self.size is None:
            raise ValueError("Received size=None. Pictures are resized unless `do_resize` is False: set a size.")

    @classmethod
    def get_image_processor_dict(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> tuple[dict, dict]:
        """
        As [`ImageProcessingMixin.get_image_processor_dict`].

        Raises:
            `OSError`: for a file that is missing, is no JSON, or holds something else than fields.
        """
        read = functools.partial(super().get_image_processor_dict, pretrained_model_name_or_path, **kwargs)
        return read_fields(read, f"The preprocessor_config.json of {pretrained_model_name_or_path}", "It")

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs) -> "DenseCLIPImageProcessor":
        """
        As [`ImageProcessingMixin.from_dict`].

        Raises:
            `ValueError`: for fields that no image processor can have.
        """
        with naming_errors("The fields of the image processor are"):
            return super().from_dict(image_processor_dict, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> list[str]:
        """As [`ImageProcessingMixin.save_pretrained`]; the file names its code for `AutoProcessor` too."""
        if self._auto_class is not None:
            code = f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__}"
            auto_map = getattr(self, "auto_map", None) or {}
            self.auto_map = auto_map | dict.fromkeys(("AutoImageProcessor", "AutoProcessor"), code)
        return super().save_pretrained(save_directory, push_to_hub, **kwargs)

    @auto_docstring(custom_intro="Prepares pictures, and optionally their segmentation maps, for the model.")
    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        **kwargs: Unpack[DenseCLIPImageProcessorKwargs],
    ) -> BatchFeature:
        r"""
        images (`ImageInput`):
            One picture or a list: PIL, array or tensor of shape `(height, width)`, `(height, width, channels)` or
            `(channels, height, width)`; a four-dimensional array is a batch. Values lie in [0, 255]: floating-point
            pictures in [0, 1] are refused while `do_rescale` is on, as they would be divided by 255 twice.
        segmentation_maps (`ImageInput`, *optional*):
            One map per picture, of its height and width, that holds class ids: PIL (mode L, P, I or I;16; the ids of a
            palette are its *indices*), array or tensor of shape `(height, width)`. Resized by nearest neighbour.

        Returns:
            [`BatchFeature`]: `pixel_values`, float32 of shape `(batch_size, 3, height, width)`, and, where maps were
            given, `labels`, int64 of shape `(batch_size, height, width)`. Without `return_tensors` each is a list of
            arrays, whose sizes may differ.

        Raises:
            `ValueError`: for empty, non-finite, 16-bit or out-of-range pictures, or arrays whose layout is ambiguous;
            for coloured maps, or maps that do not fit their pictures; for pictures larger than `pad_size`; and for
            processed sizes that differ where `return_tensors` asks for one tensor.
        """
        return super().preprocess(images, segmentation_maps, **kwargs)

    def _preprocess_image_like_inputs(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None,
        do_convert_rgb: bool | None,
        input_data_format: str | ChannelDimension | None,
        return_tensors: str | TensorType | None,
        **kwargs,
    ) -> BatchFeature:
        """Handles segmentation maps beside the pictures."""
        images = [
            self.process_image(image, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format)
            for item in _flatten(self.fetch_images(images))
            for image in (item if getattr(item, "ndim", 0) == 4 else [item])
        ]
        if not images:
            raise ValueError("Received an empty list of images. Pass at least one image.")
        labels = []
        if segmentation_maps is not None:
            labels = self._process_segmentation_maps(segmentation_maps, [image.shape[-2:] for image in images])
        images, labels = self._preprocess(images, labels, **kwargs)
        data = {"pixel_values": images, "labels": labels} if labels else {"pixel_values": images}

        processed_sizes = [image.shape[-2:] for image in images]
        if return_tensors is not None and len(set(processed_sizes)) > 1:
            raise ValueError(
                f"Received images whose processed (height, width) differ, {processed_sizes}, while `return_tensors="
                f"{return_tensors!r}` needs one size. Pass `do_pad=True` (and `pad_size` for a fixed canvas), process "
                "the images one by one, or leave `return_tensors` unset to get lists."
            )
        return BatchFeature(data=data, tensor_type=return_tensors)

    def process_image(
        self,
        image: ImageInput,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        **kwargs,
    ) -> np.ndarray:
        """
        Brings one picture to an array of shape `(channels, height, width)`, its values unchanged.

        Args:
            image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
                The picture.
            do_convert_rgb (`bool`, *optional*):
                Whether to bring it to three channels.
            input_data_format (`str` or `ChannelDimension`, *optional*):
                Layout of an array or tensor; inferred from the shape if unset.

        Raises:
            `ValueError`: for empty pictures, unknown layouts and PIL modes of more than 8 bits.
        """
        if isinstance(image, Image.Image):
            if image.mode == "F" or image.mode.startswith("I"):
                raise ValueError(
                    f"Received a PIL image of mode {image.mode!r}, whose range is unknown (converting it to RGB would "
                    "clip it at 255). Pass 8 bits per channel, for a 16-bit image for instance "
                    "`Image.fromarray((np.asarray(image) >> 8).astype('uint8'))`."
                )
            image = np.asarray(image.convert("RGB") if do_convert_rgb and image.mode != "RGB" else image)
            input_data_format = ChannelDimension.LAST
        else:
            image = _to_numpy(image)

        if image.ndim == 2:
            image, input_data_format = image[None], ChannelDimension.FIRST
        if image.ndim != 3 or 0 in image.shape:
            raise ValueError(
                f"Received an image of shape {image.shape}. An image has two or three dimensions, none of them empty."
            )
        if input_data_format is None:
            if not {image.shape[0], image.shape[-1]} & {1, 3, 4}:
                raise ValueError(
                    f"Received an image of shape {image.shape}. Either its first or its last dimension must be the 1, "
                    "3 or 4 channels. Select three channels, or pass `input_data_format` with `do_convert_rgb=False`."
                )
            if {image.shape[0], image.shape[-1]} <= {1, 3, 4}:
                raise ValueError(
                    f"Received an image of shape {image.shape}, whose channels may be the first or the last dimension."
                    ' Pass `input_data_format`: "channels_first" or "channels_last".'
                )
            input_data_format = infer_channel_dimension_format(image, num_channels=(1, 3, 4))
        if input_data_format == ChannelDimension.LAST:
            image = np.moveaxis(image, -1, 0)
        return self.convert_to_rgb(image) if do_convert_rgb else image

    def convert_to_rgb(self, image: np.ndarray, **kwargs) -> np.ndarray:
        """Repeats a grey `(1, height, width)` picture to three channels and drops the alpha channel of a fourth."""
        if image.shape[0] == 1:
            return np.repeat(image, 3, axis=0)
        if image.shape[0] not in (3, 4):
            raise ValueError(
                f"Received an image of {image.shape[0]} channels, shape {image.shape} as (channels, height, width). "
                "RGB is made from 1, 3 or 4 channels. Select three channels, or correct `input_data_format`."
            )
        return image[:3]

    def _process_segmentation_maps(
        self, segmentation_maps: ImageInput, image_sizes: list[tuple[int, int]]
    ) -> list[np.ndarray]:
        """Brings maps to int64 arrays of shape `(height, width)` and checks them against the original image sizes."""
        if getattr(segmentation_maps, "ndim", 0) > 2 and len(segmentation_maps) == len(image_sizes):
            segmentation_maps = list(segmentation_maps)
        labels = [_to_class_ids(label) for label in _flatten(segmentation_maps)]
        if len(labels) != len(image_sizes):
            raise ValueError(
                f"Received {len(labels)} segmentation maps for {len(image_sizes)} images. Pass one map per image."
            )
        for index, (label, image_size) in enumerate(zip(labels, image_sizes, strict=True)):
            if label.shape != tuple(image_size):
                raise ValueError(
                    f"Segmentation map {index} has (height, width) {label.shape} and its image {tuple(image_size)}. "
                    "They must be equal: pass the original image with its original map, both will be resized alike."
                )
        return labels

    def reduce_labels(self, label: np.ndarray) -> np.ndarray:
        """
        Lowers ids by one, as ADE20K needs: 0 becomes 255 (ignored), 1 becomes 0, 255 stays 255.

        Args:
            label (`np.ndarray` of any shape and integer type):
                Class ids.

        Returns:
            `np.ndarray`: int64 ids of the same shape. Ids above 255 are lowered too (in uint8 they would be lost); of
            these 256 becomes 255 and so is ignored, for which a warning is logged once.
        """
        label = np.asarray(label, dtype=np.int64)
        if (label == IGNORE_INDEX + 1).any():
            logger.warning_once(
                f"`do_reduce_labels` turns class id {IGNORE_INDEX + 1} into {IGNORE_INDEX}, which the loss ignores. "
                "Renumber the classes so that this id is not used."
            )
        return np.where((label == 0) | (label == IGNORE_INDEX), IGNORE_INDEX, label - 1)

    def _preprocess(
        self,
        images: list[np.ndarray],
        labels: list[np.ndarray],
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: float | tuple[float, ...] | None,
        image_std: float | tuple[float, ...] | None,
        do_pad: bool | None,
        pad_size: SizeDict | None,
        do_reduce_labels: bool,
        do_center_crop: bool | None = None,
        **kwargs,
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Processes pictures of shape `(channels, height, width)` and, alike, ids of shape `(height, width)`."""
        if do_center_crop:
            raise ValueError("Received `do_center_crop=True`, which would leave pixels without a class. Leave it off.")
        images = [_check_range(image, rescale_factor if do_rescale else None) for image in images]
        if do_reduce_labels:
            labels = [self.reduce_labels(label) for label in labels]
        if do_resize:
            images = [self.resize(image, size, resample) for image in images]
            labels = [self.resize(label, size, PILImageResampling.NEAREST) for label in labels]
        images = [
            self.rescale_and_normalize(image, do_rescale, rescale_factor, do_normalize, image_mean, image_std)
            for image in images
        ]
        if do_pad:
            height, width = self._canvas_size([image.shape[-2:] for image in images], pad_size)
            canvas = SizeDict(height=height, width=width)
            images = self.pad(images, canvas)
            labels = [label[0] for label in self.pad([label[None] for label in labels], canvas, IGNORE_INDEX)]
        return images, labels

    def get_resized_size(
        self, height: int, width: int, size: dict[str, int] | SizeDict | None = None
    ) -> tuple[int, int]:
        """
        Height and width that a picture has after resizing and before padding. An evaluation that pads passes these as
        `input_sizes` to the post-processing.

        Args:
            height, width (`int`):
                Of the original picture, in pixels.
            size (`dict`, *optional*, defaults to `self.size`):
                As in the class.

        Returns:
            `tuple[int, int]`: Height and width in pixels, at least 1 each.
        """
        size = size if size is not None else self.size
        sides = [side for side in dict(size).values() if side is not None]
        if any(side < 0 for side in sides):
            raise ValueError(f"Received size={dict(size)}. Its sides are numbers of pixels, so they must be positive.")
        if any(side > MAX_PIXELS for side in sides):
            raise ValueError(f"Received size={dict(size)}. Pictures become at most {MAX_PIXELS} pixels.")
        if not (size.get("height") and size.get("width")) and not size.get("shortest_edge"):
            raise ValueError(
                f"Received size={dict(size)}. It must hold 'shortest_edge' and 'longest_edge', 'shortest_edge' alone, "
                "or 'height' and 'width'."
            )
        new_height, new_width = resized_size(height, width, dict(size))
        if new_height * new_width > MAX_PIXELS:
            raise ValueError(
                f"Received size={dict(size)}, which makes {new_height} x {new_width} pixels (height x width) of an"
                f" image of {height} x {width}. Pictures become at most {MAX_PIXELS} pixels: lower the size, or limit"
                " it by 'longest_edge'."
            )
        return new_height, new_width

    def resize(
        self,
        image: np.ndarray,
        size: SizeDict,
        resample: PILImageResampling | None = None,
        **kwargs,
    ) -> np.ndarray:
        """
        Resizes as OpenCV does: half-pixel centres, no smoothing; uint8 pictures come out equal to the last bit.

        Args:
            image (`np.ndarray` of shape `(..., height, width)`):
                Picture of type uint8 or float32 or, for `NEAREST`, ids of any type.
            size (`SizeDict`):
                As in the class.
            resample (`PILImageResampling`, *optional*, defaults to `BILINEAR`):
                `BILINEAR` or `NEAREST`.
        """
        resize_functions = {PILImageResampling.BILINEAR: _resize_bilinear, PILImageResampling.NEAREST: _resize_nearest}
        resample = PILImageResampling.BILINEAR if resample is None else resample
        if resample not in resize_functions:
            raise ValueError(
                f"Received resample={resample!r}. Images are resized bilinearly without antialiasing, as in training: "
                f"set `resample={int(PILImageResampling.BILINEAR)}` (BILINEAR)."
            )
        return resize_functions[resample](image, *self.get_resized_size(*image.shape[-2:], size))

    def rescale_and_normalize(
        self,
        image: np.ndarray,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: float | tuple[float, ...] | None,
        image_std: float | tuple[float, ...] | None,
    ) -> np.ndarray:
        """Returns the `(channels, height, width)` picture in float32, rescaled and normalised."""
        image = image.astype(np.float32)
        if do_rescale:
            image *= np.float32(rescale_factor)
        if do_normalize:
            mean, std = (np.asarray(value, dtype=np.float32).reshape(-1, 1, 1) for value in (image_mean, image_std))
            if not {len(mean), len(std)} <= {1, len(image)}:
                raise ValueError(
                    f"Received an image of {len(image)} channels, image_mean={image_mean} and image_std={image_std}. "
                    "Pass one value per channel, or leave `do_convert_rgb` on."
                )
            if not (np.isfinite(mean).all() and (std > 0).all()):
                raise ValueError(
                    f"Received image_mean={image_mean} and image_std={image_std}. Means must be finite, and standard "
                    "deviations positive: pictures are divided by them."
                )
            image -= mean
            image /= std
        return image

    def _canvas_size(self, sizes: list[tuple[int, int]], pad_size: SizeDict | None) -> tuple[int, int]:
        """Height and width that processed pictures of these sizes are padded to."""
        largest = (max(height for height, _ in sizes), max(width for _, width in sizes))
        if pad_size is None:
            return largest
        if not (pad_size.get("height") and pad_size.get("width")):
            raise ValueError(f"Received pad_size={dict(pad_size)}. It must hold 'height' and 'width'.")
        canvas = (pad_size["height"], pad_size["width"])
        if largest[0] > canvas[0] or largest[1] > canvas[1]:
            raise ValueError(
                f"Processed images reach (height, width) {largest}, more than the canvas {canvas} of `pad_size`. "
                "Enlarge `pad_size`, or reduce `size` (a square canvas of its 'longest_edge' holds every picture)."
            )
        return canvas

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: "list[tuple[int, int]] | torch.Tensor | None" = None,
        return_segmentation_scores: bool = False,
        input_sizes: "list[tuple[int, int]] | torch.Tensor | None" = None,
    ) -> "list[torch.Tensor] | list[BatchFeature]":
        r"""
        Turns the model's logits into one class id per pixel of the original pictures: the logits are resized
        bilinearly (`align_corners=False`), then the best class is taken. Padding added by this processor is left out.

        Args:
            outputs ([`DenseCLIPSemanticSegmenterOutput`] or any output with `logits`):
                `logits` of shape `(batch_size, num_labels, logits_height, logits_width)`, of any stride and
                floating-point type; computed in float32, of float64 in that.
            target_sizes (`list[tuple[int, int]]` or `torch.Tensor` of shape `(batch_size, 2)`, *optional*):
                Wanted (height, width) of each map, in pixels. If unset, maps keep the size of the logits, padding
                included.
            return_segmentation_scores (`bool`, *optional*, defaults to `False`):
                Whether to return the enlarged logits too. They take `num_labels * height * width` floats; without them
                only a slice of that is held at any time.
            input_sizes (`list[tuple[int, int]]` or `torch.Tensor` of shape `(batch_size, 2)`, *optional*):
                (height, width) of each picture in `pixel_values` before padding, as
                [`~DenseCLIPImageProcessor.get_resized_size`] gives them. If unset and `do_pad` is on, they are worked
                out from `target_sizes`, taken to be the original sizes. So pass them if padding was asked for in the
                call only, or if `target_sizes` are other sizes. The canvas is `pad_size` or else the largest of these
                sizes: a batch that was padded to its largest picture has to be post-processed as a whole.

        Returns:
            `list[torch.Tensor]` of int64 maps of shape `(height, width)` or, with `return_segmentation_scores`, a list
            of [`BatchFeature`] with the fields `segmentation` (that map) and `segmentation_scores` (float32 logits of
            shape `(num_labels, height, width)`).

        Raises:
            `ValueError`: if the number of sizes is not the batch size, or a size is not two positive integers.
        """
        pictures = self._iterate_positions(outputs.logits, target_sizes, input_sizes)
        maps = class_maps(pictures, with_enlarged=return_segmentation_scores)
        if not return_segmentation_scores:
            return [found.class_ids for found in maps]
        return [
            BatchFeature({"segmentation": found.class_ids, "segmentation_scores": found.enlarged}) for found in maps
        ]

    def post_process_panoptic_segmentation(
        self,
        outputs: Any,
        threshold: float = 0.5,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.8,
        target_sizes: "list[tuple[int, int]] | torch.Tensor | None" = None,
        input_sizes: "list[tuple[int, int]] | torch.Tensor | None" = None,
    ) -> list[dict[str, Any]]:
        r"""
        The same maps as [`~DenseCLIPImageProcessor.post_process_semantic_segmentation`], with a score per class.

        `pipeline("image-segmentation")` tries this method first, and it is the only one whose scores it reports. There
        are no instances: one segment stands for all pixels of one class. Each class that is found is returned.

        Args:
            outputs ([`DenseCLIPSemanticSegmenterOutput`] or any output with `logits`):
                `logits` of shape `(batch_size, num_labels, logits_height, logits_width)`.
            threshold, mask_threshold, overlap_mask_area_threshold (`float`, *optional*):
                Not used. The pipeline always sends its own thresholds (0.9, 0.5, 0.5), but semantic segmentation gives
                every pixel a class, so nothing is dropped. Filter on `score` instead.
            target_sizes, input_sizes (`list[tuple[int, int]]` or `torch.Tensor`, *optional*):
                As in `post_process_semantic_segmentation`.

        Returns:
            `list[dict]`: For each picture `segmentation`, int64 class ids of shape `(height, width)`, and
            `segments_info`, a list in order of the ids with `id` and `label_id` (both the class id) and `score` (the
            softmax probability of the class, in [0, 1], averaged over its pixels; that of a pixel is that of the
            nearest logits).
        """
        results = []
        pictures = self._iterate_positions(outputs.logits, target_sizes, input_sizes)
        for segmentation, scores, _ in class_maps(pictures, with_scores=True):
            pixels, sums = torch.stack(scores).tolist()
            segments_info = [
                {"id": class_id, "label_id": class_id, "score": sums[class_id] / count}
                for class_id, count in enumerate(pixels)
                if count > 0
            ]
            results.append({"segmentation": segmentation, "segments_info": segments_info})
        return results

    def _iterate_positions(
        self,
        logits: torch.Tensor,
        target_sizes: "list[tuple[int, int]] | torch.Tensor | None",
        input_sizes: "list[tuple[int, int]] | torch.Tensor | None",
    ) -> Iterator[tuple[torch.Tensor, AxisPositions, AxisPositions]]:
        """Yields the logits of each picture, and where the rows and columns of its map fall among them."""
        if logits.ndim != 4:
            raise ValueError(
                f"Received logits of shape {tuple(logits.shape)}. It must be (batch_size, num_labels, height, width)."
            )
        if target_sizes is None and input_sizes is not None:
            raise ValueError("Received `input_sizes` without `target_sizes`. Pass the sizes the maps shall have.")
        wanted = [tuple(logits.shape[-2:])] * len(logits)
        if target_sizes is not None:
            wanted = _check_sizes(target_sizes, "target_sizes", len(logits))
        if input_sizes is not None:
            processed = _check_sizes(input_sizes, "input_sizes", len(logits))
            canvas = self._canvas_size(processed, self.pad_size)
        elif target_sizes is not None and self.do_pad:
            processed = [self.get_resized_size(*size) if self.do_resize else size for size in wanted]
            canvas = self._canvas_size(processed, self.pad_size)
        else:
            # No padding is to be left out: the logits cover the map, whatever size the picture was processed at.
            processed, canvas = wanted, None
        dtype = torch.promote_types(logits.dtype, torch.float32)
        for image_logits, target_size, input_size in zip(logits.detach(), wanted, processed, strict=True):
            lengths = zip(target_size, input_size, canvas or input_size, image_logits.shape[1:], strict=True)
            yield image_logits, *(axis_positions(*of_axis, dtype) for of_axis in lengths)


def _check_types(fields: dict[str, Any]):
    """
    Checks fields of the image processor, which a file may give any value. (Those of calls the base class checks.)

    Raises:
        `ValueError`: for a field of another type than in the class.
    """
    for name, value in fields.items():
        values = value if isinstance(value, list | tuple | np.ndarray) else [value]
        if name.startswith("do_"):
            expected, is_right = "True or False", isinstance(value, bool)
        elif name in ("size", "pad_size"):
            expected = (
                f"a dictionary of whole numbers up to {MAX_PIXELS}, such as {{'height': 512, 'width': 512}}, or one or"
                " two of them"
            )
            sides = list(dict(value).values()) if isinstance(value, dict | SizeDict) else values
            is_right = all(side is None or isinstance(side, Integral) and side <= MAX_PIXELS for side in sides)
            is_right = is_right and len(values) in (1, 2)
        elif name in ("image_mean", "image_std"):
            expected, is_right = "one number per channel", all(isinstance(number, Real) for number in values)
        elif name == "rescale_factor":
            expected, is_right = "a positive number", isinstance(value, Real) and 0 < value < float("inf")
        elif name == "resample":
            expected, is_right = "a number", isinstance(value, Real)
        else:
            continue
        if value is not None and not is_right:
            raise ValueError(f"Received {name}={reprlib.repr(value)}. It must be {expected}.")


def _flatten(items: Any) -> list:
    """Lists the members of nested lists; anything else is one member."""
    if isinstance(items, list | tuple):
        return [member for item in items for member in _flatten(item)]
    return [items]


def _to_numpy(image: "np.ndarray | torch.Tensor") -> np.ndarray:
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        # NumPy has no bfloat16.
        return (image.float() if image.dtype == torch.bfloat16 else image).numpy()
    if not isinstance(image, np.ndarray):
        raise ValueError(f"Received a {type(image)}. Pass a PIL image, an array or a tensor.")
    return image


def _to_class_ids(label: "Image.Image | np.ndarray | torch.Tensor") -> np.ndarray:
    """Brings one segmentation map to int64 ids of shape `(height, width)`."""
    # Never through RGB: a palette's colours are not its ids.
    label = np.asarray(label) if isinstance(label, Image.Image) else _to_numpy(label)
    if label.ndim == 3 and 1 in (label.shape[0], label.shape[-1]):
        label = label.squeeze(0 if label.shape[0] == 1 else -1)
    if label.ndim != 2:
        raise ValueError(
            f"Received a segmentation map of shape {label.shape}. A map is (height, width), one class id per pixel: "
            "open it with `PIL.Image.open` without converting it to RGB, or turn its colours into ids first."
        )
    class_ids = label.astype(np.int64)
    if label.dtype.kind not in "bui" and not (label == class_ids).all():
        raise ValueError(f"Received a segmentation map of type {label.dtype} with fractions. Pass whole class ids.")
    if (class_ids < 0).any():
        raise ValueError(
            f"Received a segmentation map with id {class_ids.min()}. Ids are 0 or more, and ignored pixels have "
            f"{IGNORE_INDEX}: replace negative ids by {IGNORE_INDEX}."
        )
    return class_ids


def _check_range(image: np.ndarray, rescale_factor: float | None) -> np.ndarray:
    """Returns the picture as uint8 where its type is integer and its values allow it, else as float32."""
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "uif":
        raise ValueError(f"Received an image of type {image.dtype}. Pass uint8, or another number type in [0, 255].")
    minimum, maximum = float(image.min()), float(image.max())
    if not (np.isfinite(minimum) and np.isfinite(maximum)):
        raise ValueError("Received an image with NaN or infinite values. Replace them, for instance by `nan_to_num`.")
    if rescale_factor is not None:
        if not rescale_factor > 0:
            raise ValueError(f"Received rescale_factor={rescale_factor:g}. It must be positive, such as 1 / 255.")
        received = f"Received an image of type {image.dtype} with values in [{minimum:g}, {maximum:g}]"
        if image.dtype.kind == "f" and 0 < maximum <= 1 and rescale_factor < 1:
            raise ValueError(
                f"{received}, while `do_rescale=True` expects [0, {1 / rescale_factor:g}]: it would be rescaled "
                "twice. Pass `do_rescale=False` for images that are in [0, 1] already."
            )
        # A thousandth of the range is left for rounding.
        if minimum * rescale_factor < -1e-3 or maximum * rescale_factor > 1 + 1e-3:
            raise ValueError(
                f"{received}, outside [0, {1 / rescale_factor:g}] that rescale_factor={rescale_factor:g} brings to "
                "[0, 1]. Clip the image, or bring it to 8 bits per channel, or set `rescale_factor`."
            )
    if image.dtype.kind in "ui" and minimum >= 0 and maximum <= 255:
        return image.astype(np.uint8)
    return image.astype(np.float32)


def _source_positions(num_outputs: int, num_inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower neighbour (or -1) and the upper one's weight, for half-pixel centres, rounded where OpenCV rounds."""
    scale = 1 / (num_outputs / num_inputs)
    positions = ((np.arange(num_outputs) + 0.5) * scale - 0.5).astype(np.float32)
    lower = np.floor(positions)
    return lower.astype(np.int64), positions - lower


def _resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """
    OpenCV's `INTER_LINEAR` of a `(channels, height, width)` picture, columns first and rows second.

    uint8 pictures go through OpenCV's integer arithmetic with its intermediate roundings. Rounding an exact result
    once instead, say that of `torch.nn.functional.interpolate`, moves one value in eight by one level.
    """
    num_rows, num_columns = image.shape[-2:]
    row, row_weight = _source_positions(height, num_rows)
    column, column_weight = _source_positions(width, num_columns)
    # OpenCV drops the weight at the left and right border, and repeats the row at the upper and lower one.
    column_weight = np.where((column < 0) | (column >= num_columns - 1), np.float32(0), column_weight)
    above, below = row.clip(0, num_rows - 1), (row + 1).clip(0, num_rows - 1)
    left, right = column.clip(0, num_columns - 1), (column + 1).clip(0, num_columns - 1)

    # A strong reduction uses few rows and columns; the others need no work.
    used_rows, positions = np.unique(np.concatenate([above, below]), return_inverse=True)
    above, below = positions[:height], positions[height:]
    used_columns, positions = np.unique(np.concatenate([left, right]), return_inverse=True)
    left, right = positions[:width], positions[width:]
    image = image[:, used_rows][..., used_columns]
    row_weight = row_weight[:, None]

    if image.dtype != np.uint8:
        columns = image[..., left] * (1 - column_weight) + image[..., right] * column_weight
        return columns[:, above] * (1 - row_weight) + columns[:, below] * row_weight

    def to_integer(weight):
        return np.rint(weight * np.float32(2**OPENCV_WEIGHT_BITS)).astype(np.int32)

    image = image.astype(np.int32)
    columns = image[..., left] * to_integer(1 - column_weight) + image[..., right] * to_integer(column_weight)
    columns >>= 4
    rows = (columns[:, above] * to_integer(1 - row_weight)) >> 16
    rows += (columns[:, below] * to_integer(row_weight)) >> 16
    # 11 + 11 bits of weights less 4 and 16: two are left, rounded here.
    return ((rows + 2) >> 2).astype(np.uint8)


def _resize_nearest(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's `INTER_NEAREST` of a `(..., height, width)` array: `floor(output index * scale)`, no half pixels."""

    def source_indices(num_outputs, num_inputs):
        scale = 1 / (num_outputs / num_inputs)
        return np.floor(np.arange(num_outputs) * scale).astype(np.int64).clip(max=num_inputs - 1)

    rows, columns = source_indices(height, image.shape[-2]), source_indices(width, image.shape[-1])
    return image[..., rows[:, None], columns]


def _check_sizes(
    sizes: "list[tuple[int, int]] | torch.Tensor | np.ndarray", name: str, batch_size: int
) -> list[tuple[int, int]]:
    """
    Sizes as pairs of integers.

    Raises:
        ValueError: unless they are one (height, width) per image, positive integers.
    """

    def to_plain(value):
        return value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value

    pairs = to_plain(sizes)
    pairs = [*map(to_plain, pairs if isinstance(pairs, Iterable) and not isinstance(pairs, dict | str) else [pairs])]
    if not all(isinstance(size, list | tuple) for size in pairs):
        example = f", such as [{tuple(pairs)}]" if len(pairs) == 2 and batch_size == 1 else ""
        raise ValueError(
            f"Received `{name}` {sizes!r}. It must be a list of one (height, width) per image, here of {batch_size}"
            f"{example}."
        )
    if len(pairs) != batch_size:
        raise ValueError(
            f"Received {len(pairs)} `{name}` for a batch of {batch_size} logits. Pass one (height, width) per image."
        )
    for index, size in enumerate(pairs):
        sides = [*map(to_plain, size)]
        if len(sides) != 2 or not all(isinstance(side, Real) and side == side // 1 and side >= 1 for side in sides):
            raise ValueError(f"Received {size!r} in `{name}`. Each must be (height, width), two positive integers.")
        pairs[index] = int(sides[0]), int(sides[1])
    return pairs


__all__ = ["DenseCLIPImageProcessor"]
