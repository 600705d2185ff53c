# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
What happens to an image and its mask between the file and the model: in training the published augmentation, in
evaluation the image processor.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import PIL.Image
import torch
from transformers import TrainerCallback

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.inference_denseclip import scaled_size
from modeling_denseclip.tools.files.photographs import (
    decode_photograph,
    naming_errors,
    open_file,
    open_image,
    open_photograph,
    read_orientation,
    to_rgb,
    turn_upright,
)

from .files import IGNORE_INDEX, MASK_MODES, find_wrong_ids
from .png_ids import decode_plain_png


# Workers are the parallelism: threads of OpenCV's own, one per core in each of them, would only fight for cores.
cv2.setNumThreads(0)

EVERY_VALUE = np.arange(256, dtype=np.uint8)

# An image file as `datasets.Image(decode=False)` gives it: `{"path": ..., "bytes": ...}`, one of them `None`.
EncodedImage = dict[str, Any]
# A photograph or a mask as a row holds it: encoded, or decoded already.
Picture = EncodedImage | PIL.Image.Image
# Height and width of a picture -> those to which it is resized.
ResizedSize = Callable[[int, int], tuple[int, int]]

# By what libjpeg can make a picture smaller while it decodes, and how OpenCV is told.
JPEG_REDUCTIONS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def with_transform(dataset: datasets.Dataset, transform: "TrainingTransform | EvaluationTransform"):
    """
    [`datasets.Dataset.with_transform`] on rows whose images and masks are still encoded. The transforms take decoded
    ones too, but decode them faster themselves, which saves about a tenth of the time of a training sample.
    """
    return with_encoded(dataset, "image", "annotation").with_transform(transform)


def with_encoded(dataset: datasets.Dataset, *columns: str) -> datasets.Dataset:
    """A data set whose images come as they are stored, an [`EncodedImage`] each, in these columns."""
    for column in columns:
        dataset = dataset.cast_column(column, datasets.Image(decode=False))
    return dataset


def encoded_file(image: EncodedImage) -> str | BytesIO:
    """What an encoded image is opened from."""
    return image["path"] if image["bytes"] is None else BytesIO(image["bytes"])


def read_bytes(path: str | Path) -> bytes:
    """What a file holds; see [`open_file`]."""
    with open_file(path) as file:
        return file.read()


def encoded_bytes(image: EncodedImage) -> bytes:
    """What the file of an encoded image holds."""
    return read_bytes(image["path"]) if image["bytes"] is None else image["bytes"]


def read_image(image: Picture) -> np.ndarray:
    """
    Read an image as upright RGB: an array of shape `(height, width, 3)` and type uint8. See [`decode_photograph`].
    """
    return read_scaled_image(image)[0]


def read_scaled_image(image: Picture, resized_size: ResizedSize | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """
    Read an image as [`read_image`], or a JPEG smaller by the factor that [`jpeg_reduction`] allows.

    Args:
        resized_size (`Callable[[int, int], tuple[int, int]]`, *optional*): what height and width the upright image
            will be resized to. By default no image is made smaller.

    Returns:
        The pixels, and the height and width of the upright image as its file has it.
    """
    if isinstance(image, PIL.Image.Image):
        pixels = np.asarray(to_rgb(image))
        return pixels, pixels.shape[:2]
    encoded = encoded_bytes(image)
    source = f"The image {image['path']}"
    picture = open_photograph(BytesIO(encoded), source)
    if picture.format in ("JPEG", "MPO") and picture.mode in ("L", "RGB"):
        orientation = read_orientation(picture)
        size = picture.size if orientation >= 5 else picture.size[::-1]
        reduction = 1 if resized_size is None else jpeg_reduction(size, resized_size(*size))
        # The pixels that Pillow gives, without its detour through four bytes per pixel. OpenCV knows fewer ways to
        # write an orientation, so it is asked to leave the picture as it is.
        flags = JPEG_REDUCTIONS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
        decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
        # Behind a fault in the data of a JPEG, OpenCV fills the picture with grey and says nothing. Pillow names it.
        if decoded is not None and not (decoded[-1] == 128).all():
            decoded = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
            if orientation != 1:
                decoded = np.asarray(turn_upright(PIL.Image.fromarray(decoded), orientation))
            return decoded, size
    pixels = np.asarray(decode_photograph(picture, source))
    return pixels, pixels.shape[:2]


def jpeg_reduction(size: tuple[int, int], resized: tuple[int, int]) -> int:
    """
    By which factor a JPEG can be decoded smaller before it is resized: the greatest of 8, 4, 2 and 1 that leaves both
    sides at least as long as they have to become, and moves nothing in the result by more than a quarter of a pixel.

    A decoder makes one pixel of `factor x factor`. Where a side is no multiple of the factor, the last one stands for
    pixels beyond the edge too, so that what is resized is a little longer than the picture.

    Args:
        size (`tuple[int, int]`): height and width of the picture.
        resized (`tuple[int, int]`): height and width to which it is resized.
    """
    for factor in sorted(JPEG_REDUCTIONS, reverse=True):
        beyond = [-side % factor for side in size]
        is_enough = all(-(-side // factor) >= wanted for side, wanted in zip(size, resized, strict=True))
        if is_enough and all(4 * b * wanted <= side for b, side, wanted in zip(beyond, size, resized, strict=True)):
            return factor
    return 1


def read_mask(mask: Picture) -> np.ndarray:
    """
    Read a mask as the ids that it stores: an array of shape `(height, width)`, of type uint8 or, for modes of more
    than 8 bits, int32.

    Palette images give their indices. Colour images are refused, as their colours are not ids, and so are JPEGs, whose
    compression changes ids, and greyscale PNGs of less than 8 bits, as Pillow does not give the values that they
    store. That can no longer be seen of an image that Pillow has decoded already.

    Raises:
        OSError: for a file that is not there, no image, or broken.
        ValueError: for an image that holds no ids.
    """
    if isinstance(mask, PIL.Image.Image):
        return decode_mask(mask, "The mask", is_upright=True)
    source = f"The mask {mask['path']}" if mask["path"] else "The mask"
    with naming_errors(source):
        encoded = encoded_bytes(mask)
    return decode_mask(open_image(BytesIO(encoded), source), source, encoded)


def decode_mask(
    mask: PIL.Image.Image, source: str, encoded: bytes | None = None, is_upright: bool = False
) -> np.ndarray:
    """
    The ids of a mask that [`open_image`] has opened, as [`read_mask`].

    Args:
        encoded (`bytes`, *optional*): the file, where it is known. A plain PNG is decoded faster from it.
        is_upright (`bool`, *optional*, defaults to `False`): whether it is turned no more. One of a file is turned as
            its image is; of a picture that others have opened it cannot be known whether it already was.
    """
    if mask.format in ("JPEG", "MPO"):
        raise ValueError(
            f"{source} is a JPEG, whatever its name says, and its compression changes ids. Save the ids as PNG, from"
            " what the JPEG was made of; of few values `python -m training.import_data` tells which each pixel had."
        )
    if mask.mode not in MASK_MODES:
        raise ValueError(
            f"{source} has the mode {mask.mode}; a mask stores one id per pixel, in a mode of {MASK_MODES}. "
            "Convert its colours to ids and save them as a greyscale or palette PNG, as `python -m"
            " training.import_data` does."
        )
    form = stored_form(mask)
    if form[2:3].isdigit():
        bits = int(form[2])
        raise ValueError(
            f"{source} is a greyscale {mask.format} of {bits} bits; masks have 8 or more, as readers spread fewer "
            f"over 0 to 255 (here times {255 // (2**bits - 1)}), so that ids change. Save the ids with 8 bits, "
            "and keep tools that shrink PNG files away from masks."
        )
    if form.startswith("L;I"):
        raise ValueError(
            f"{source} is a greyscale {mask.format} in which 0 is white. Readers invert it, so that ids change:"
            " save the ids as PNG."
        )
    if encoded is not None and (plain := decode_plain_png(encoded)) is not None:
        return plain
    with naming_errors(source):
        ids = np.asarray(mask if is_upright else turn_upright(mask, read_orientation(mask)))
    return ids if ids.dtype == np.uint8 else ids.astype(np.int32)


def stored_form(mask: PIL.Image.Image) -> str:
    """How a greyscale mask lies in its file, such as "L", "L;4" for 4 bits, or "L;I"; empty if that is not known."""
    if mask.mode != "L" or not getattr(mask, "tile", None):
        return ""
    _, _, _, decoder = mask.tile[0]
    return decoder if isinstance(decoder, str) else decoder[0]


def read_labels(mask: Picture, image_processor: DenseCLIPImageProcessor, num_labels: int | None = None) -> np.ndarray:
    """
    Read a mask as labels, those that the loss and the metric see: ids as in [`read_mask`], with the zero label
    reduced if the image processor says so. Nothing else in training or evaluation reduces it.

    Raises:
        OSError, ValueError: as [`read_mask`]; and, of `num_labels` classes, for an id that is none of them.
    """
    ids = read_mask(mask)
    if num_labels is not None:  # checked in a time that is nothing beside that of decoding the mask
        highest = num_labels if image_processor.do_reduce_labels else num_labels - 1
        if ids.dtype == np.uint8:
            are_right = int((ids + np.uint8(1)).max()) <= highest + 1  # 255 becomes 0
        else:
            are_right = (((ids >= 0) & (ids <= highest)) | (ids == IGNORE_INDEX)).all()
        if not are_right:
            wrong, *_ = find_wrong_ids(np.unique(ids).tolist(), num_labels, image_processor.do_reduce_labels)
            raise ValueError(f"it holds the id {wrong}, which is none of the {num_labels} classes")
    if not image_processor.do_reduce_labels:
        return ids
    if ids.dtype == np.uint8:
        # 256 values are reduced instead of all pixels.
        return cv2.LUT(ids, image_processor.reduce_labels(EVERY_VALUE).astype(np.uint8))
    return image_processor.reduce_labels(ids).astype(np.int32)


class ChangedRowError(OSError, ValueError):
    """A row that can be used no more, as it could when the data set was checked."""

    def __init__(self, message: str):
        # What happened in a process that loads images comes as the text of its traceback, whose end is what was said.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[-1].strip())


def read_pair(
    image: Picture,
    mask: Picture,
    index: int,
    image_processor: DenseCLIPImageProcessor,
    num_labels: int | None = None,
    resized_size: ResizedSize | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """
    An image and its labels; see [`read_scaled_image`] and [`read_labels`]. The labels have the size of the file,
    whatever that of the image.

    Raises:
        ChangedRowError: for a file that is gone or broken; an image and a mask that differ in size; or, of
            `num_labels` classes, an id that is none of them. Names the file.
        MemoryError: where memory ends; names it too.
    """
    image_name, mask_name = _name(image, f"The image of row {index}"), _name(mask, f"The mask of row {index}")
    with _naming_changes(image_name):
        picture, size = read_scaled_image(image, resized_size)
    with _naming_changes(mask_name):
        labels = read_labels(mask, image_processor, num_labels)
    if size != labels.shape:
        raise ChangedRowError(
            f"{image_name} has {size} pixels (height, width) and its mask {labels.shape}. When the data"
            " set was checked they were equal: put back what was changed, and go on by --resume_from_checkpoint last."
        )
    return picture, labels


def _name(file: Picture, name: str) -> str:
    return f"{name}, {file['path']}," if isinstance(file, dict) and file["path"] is not None else name


@contextmanager
def _naming_changes(name: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"{name} needs more memory than there is ({error})") from error
    except (OSError, ValueError, cv2.error) as error:
        raise ChangedRowError(
            f"{name} cannot be read ({error}). When the data set was checked it could: put it back, and go on by"
            " --resume_from_checkpoint last."
        ) from error


@dataclass(eq=False)
class TrainingTransform:
    """
    The published augmentation, on image and mask together; for [`with_transform`].

    In order: keep-ratio resize, random crop, horizontal flip, photometric distortion, padding. Normalisation is left
    to [`normalize_batch`], on the device of the model: a picture of bytes is faster to make, collate and send there
    than one of floats.

    Every sample draws from a generator of its own, seeded by `(seed, epoch, index)`. So the same seed gives the same
    batches with any number of workers, and every epoch other crops (see [`AugmentationEpoch`]).

    Args:
        image_processor ([`DenseCLIPImageProcessor`]): gives the size at scale 1 (`shortest_edge`, `longest_edge`), and
            whether the zero label is reduced.
        crop_size (`tuple[int, int]`): height and width of what is returned, in pixels.
        scale_range (`tuple[float, float]`, *optional*, defaults to `(0.5, 2.0)`): the scale is uniform in it.
        max_class_share (`float`, *optional*, defaults to 0.75): a crop is drawn again (up to 10 times) while one class
            has at least this share of its labelled pixels; at 1 none is.
        seed (`int`, *optional*, defaults to 0): the seed.
        num_labels (`int`, *optional*): K. Masks that hold other ids are refused, which the loss could not name.
        reduce_jpegs (`bool`, *optional*, defaults to `False`): whether JPEGs are decoded at 1/2, 1/4 or 1/8 of their
            size where that is enough for the size at the scale that was drawn; see [`jpeg_reduction`]. Samples then
            have the places, colours and labels of the published ones, in pixels that are averages of several and not
            single ones.

    Returns, for a batch of rows, tensors that stack: `pixel_values`, uint8 `(3, crop height, crop width)`; `labels`
    `(crop height, crop width)`, uint8, or int32 if a mask of the batch has more than 8 bits; `sizes`, int64 `(2,)`,
    height and width without the padding at the bottom and at the right, which is 0 and 255.

    Source: the training pipeline of the published configurations; mmseg/datasets/pipelines/transforms.py.
    """

    image_processor: DenseCLIPImageProcessor
    crop_size: tuple[int, int]
    scale_range: tuple[float, float] = (0.5, 2.0)
    max_class_share: float = 0.75
    seed: int = 0
    num_labels: int | None = None
    reduce_jpegs: bool = False

    def __post_init__(self):
        # In shared memory, so that workers that outlive an epoch see it change.
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __call__(self, rows: dict[str, list]) -> dict[str, list[torch.Tensor]]:
        samples = [self.augment(*row) for row in zip(rows["image"], rows["annotation"], rows["index"], strict=True)]
        batch = {name: [sample[name] for sample in samples] for name in samples[0]}
        # Masks of 8 and of 16 bits may meet in a batch, and tensors of two types do not stack in a worker.
        labels_type = max((labels.dtype for labels in batch["labels"]), key=lambda dtype: dtype.itemsize)
        return {**batch, "labels": [labels.to(labels_type) for labels in batch["labels"]]}

    def augment(self, image: Picture, mask: Picture, index: int) -> dict[str, torch.Tensor]:
        """Augment one image and its mask."""
        generator = np.random.default_rng((self.seed, int(self.epoch), index))
        size = scaled_size(self.image_processor.size, generator.uniform(*self.scale_range))
        resized_size = partial(self.image_processor.get_resized_size, size=size)
        image, labels = read_pair(
            *(image, mask, index, self.image_processor, self.num_labels),
            resized_size if self.reduce_jpegs else None,
        )
        height, width = resized_size(*labels.shape)
        # The image processor's own `resize` gives the same pixels without OpenCV, and takes forty times as long.
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
        image, labels = self.random_crop(image, labels, generator)
        if generator.random() < 0.5:
            image, labels = cv2.flip(image, 1), cv2.flip(labels, 1)
        return self.pad(photometric_distortion(image, generator), labels)

    def random_crop(self, image: np.ndarray, labels: np.ndarray, generator: np.random.Generator):
        """Crop image and labels to at most `crop_size`, at a place that [`has_dominant_class`] is content with."""
        height, width = labels.shape
        crop_height, crop_width = min(self.crop_size[0], height), min(self.crop_size[1], width)

        def draw() -> tuple[slice, slice]:
            top = generator.integers(height - crop_height + 1)
            left = generator.integers(width - crop_width + 1)
            return np.s_[top : top + crop_height, left : left + crop_width]

        window = draw()
        # Where the crop is the whole picture, there is no other one.
        if self.max_class_share < 1 and (crop_height, crop_width) != (height, width):
            for _ in range(10):
                if not has_dominant_class(labels[window], self.max_class_share):
                    break
                window = draw()
        return image[window], labels[window]

    def pad(self, image: np.ndarray, labels: np.ndarray) -> dict[str, torch.Tensor]:
        """Put the image, channels first, and the labels onto canvases of `crop_size`."""
        height, width = labels.shape
        pixel_values = np.zeros((3, *self.crop_size), dtype=np.uint8)
        pixel_values[:, :height, :width] = image.transpose(2, 0, 1)
        padded_labels = np.full(self.crop_size, IGNORE_INDEX, dtype=labels.dtype)
        padded_labels[:height, :width] = labels
        return {
            "pixel_values": torch.from_numpy(pixel_values),
            "labels": torch.from_numpy(padded_labels),
            "sizes": torch.tensor([height, width]),
        }


def normalize_batch(
    batch: dict[str, torch.Tensor], image_processor: DenseCLIPImageProcessor
) -> dict[str, torch.Tensor]:
    """
    What the model and the loss take of a collated batch of [`TrainingTransform`], on the device of the batch, which is
    not waited for.

    Args:
        batch (`dict[str, torch.Tensor]`): `pixel_values` of shape `(batch_size, 3, height, width)` and type uint8,
            `labels` of shape `(batch_size, height, width)`, `sizes` of shape `(batch_size, 2)`.
        image_processor ([`DenseCLIPImageProcessor`]): gives the normalisation.

    Returns:
        `dict[str, torch.Tensor]`: `pixel_values`, float32, on a CPU bit for bit what
        [`DenseCLIPImageProcessor.rescale_and_normalize`] gives, and 0 (the mean colour) in the padding; and `labels`,
        int64.

    Source: `Normalize` comes before `Pad` in the training pipeline of the published configurations.
    """
    pixel_values = batch["pixel_values"].float()
    if image_processor.do_rescale:
        pixel_values *= image_processor.rescale_factor
    if image_processor.do_normalize:
        # Numbers travel with the calls to the device; a tensor of them would be copied there first, and waited for.
        means, stds = (np.broadcast_to(value, 3) for value in (image_processor.image_mean, image_processor.image_std))
        for channel, mean, std in zip(pixel_values.unbind(1), means.tolist(), stds.tolist(), strict=True):
            channel.sub_(mean).div_(std)
    heights, widths = batch["sizes"].unbind(1)
    rows, columns = (torch.arange(length, device=pixel_values.device) for length in pixel_values.shape[2:])
    below, beside = rows >= heights[:, None], columns >= widths[:, None]
    pixel_values.masked_fill_(below[:, None, :, None] | beside[:, None, None, :], 0)
    return {"pixel_values": pixel_values, "labels": batch["labels"].long()}


@dataclass(eq=False)
class EvaluationTransform:
    """
    What the image processor makes of an image, at one or more scales, beside the labels at their *original* size; for
    [`with_transform`]. Images are seen one at a time and not padded, even if the image processor pads batches.

    Args:
        image_processor ([`DenseCLIPImageProcessor`]): prepares the image, says whether the zero label is reduced.
        scales (`Sequence[float]`, *optional*, defaults to `(1.0,)`): multiples of the image processor's size. Each is
            made from the original image.
        num_labels (`int`, *optional*): as of [`TrainingTransform`].

    Returns, for a batch of rows: `pixel_values`, for each image a list of float tensors `(3, height, width)`, one per
    scale; `labels`, tensors of uint8 or int64, `(original height, original width)`; `index`, as in the rows.

    Source: `MultiScaleFlipAug` of mmseg 0.19 with `img_ratios`, for the sizes.
    """

    image_processor: DenseCLIPImageProcessor
    scales: Sequence[float] = (1.0,)
    num_labels: int | None = None

    def __post_init__(self):
        self.sizes = [scaled_size(self.image_processor.size, scale) for scale in self.scales]

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        columns = (rows["image"], rows["annotation"], rows["index"])
        pairs = [read_pair(*row, self.image_processor, self.num_labels) for row in zip(*columns, strict=True)]
        # One at a time: images of different sizes do not stack.
        options = {"do_pad": False, "input_data_format": "channels_last", "return_tensors": "pt"}
        return {
            "pixel_values": [
                [self.image_processor(image, size=size, **options)["pixel_values"][0] for size in self.sizes]
                for image, _ in pairs
            ],
            # Of one byte where the mask is: eight would take as long to send as the mask to decode.
            "labels": [
                torch.tensor(labels if labels.dtype == np.uint8 else labels.astype(np.int64)) for _, labels in pairs
            ],
            "index": rows["index"],
        }


class AugmentationEpoch(TrainerCallback):
    """Tell a [`TrainingTransform`] which epoch begins, so that no two epochs see the same crops."""

    def __init__(self, transform: TrainingTransform):
        self.transform = transform

    def on_epoch_begin(self, args, state, control, **kwargs):
        # The epoch is a float: 1.5 after resuming in the middle of the second one.
        self.transform.set_epoch(int(state.epoch or 0))


def collate_for_evaluation(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """
    Collect samples of any sizes, as lists.

    `num_images` comes first, with one entry per image: from the first tensor that it finds in a batch the Trainer
    reads the batch size.

    Raises:
        ValueError: for samples without masks.
    """
    if "labels" not in samples[0]:
        raise ValueError(
            f"Samples to score hold 'labels', the mask at its original size, as EvaluationTransform gives them; got"
            f" {sorted(samples[0])}. For images without masks use the pipeline, or `denseclip predict`."
        )
    return {
        "num_images": torch.ones(len(samples)),
        "pixel_values": [sample["pixel_values"] for sample in samples],
        "labels": [sample["labels"] for sample in samples],
        "index": torch.tensor([sample["index"] for sample in samples]),
    }


def has_dominant_class(labels: np.ndarray, max_class_share: float) -> bool:
    """
    Whether one class has at least `max_class_share` of the labelled pixels, or all of them, or none is labelled.

    Args:
        labels (`np.ndarray` of shape `(height, width)`): ids of at least 0.

    Source: `cat_max_ratio` in `RandomCrop` of mmseg 0.19.
    """
    # Counting one id is ten times as fast as counting all, and the most frequent one of a few pixels mostly decides.
    sample = labels[::16, ::16]
    sample = sample[sample != IGNORE_INDEX]
    if sample.size:
        frequent = np.count_nonzero(labels == np.bincount(sample).argmax())
        num_labelled = np.count_nonzero(labels != IGNORE_INDEX)
        if frequent == num_labelled or frequent / num_labelled >= max_class_share:
            return True
        if (num_labelled - frequent) / num_labelled < max_class_share:
            return False  # all others together have less than the share
    counts = np.bincount(labels[labels != IGNORE_INDEX])
    return np.count_nonzero(counts) < 2 or counts.max() / counts.sum() >= max_class_share


def photometric_distortion(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """
    Change brightness, contrast, saturation and hue, each with probability 0.5.

    Brightness moves by up to 32 of 255, contrast and saturation are multiplied by 0.5 to 1.5, hue turns by up to 18
    of OpenCV's 180 steps. Contrast comes either before or after the two colour changes.

    Args:
        image (`np.ndarray` of shape `(height, width, 3)` and type uint8): RGB. It is not changed.

    Returns:
        `np.ndarray`: the image, of the same shape and type; the one passed in if nothing changes.

    Source: `PhotoMetricDistortion` of mmseg 0.19.
    """

    def apply() -> bool:
        return generator.random() < 0.5

    # Brightness and contrast map values to values: they are collected in a table, which is applied when it has to be.
    table = EVERY_VALUE
    if apply():
        table = _scale_and_shift(table, shift=generator.uniform(-32, 32))
    contrast_first = apply()
    if contrast_first and apply():
        table = _scale_and_shift(table, scale=generator.uniform(0.5, 1.5))
    # Two changes take two round trips through HSV, whose rounding is part of what was published.
    if apply():
        saturation = _scale_and_shift(EVERY_VALUE, scale=generator.uniform(0.5, 1.5))
        image, table = _change_hsv(_apply_table(image, table), 1, saturation), EVERY_VALUE
    if apply():
        # int16, since uint8 would wrap at 256 and hue wraps at 180.
        hue = ((EVERY_VALUE.astype(np.int16) + generator.integers(-18, 18)) % 180).astype(np.uint8)
        image, table = _change_hsv(_apply_table(image, table), 0, hue), EVERY_VALUE
    if not contrast_first and apply():
        table = _scale_and_shift(table, scale=generator.uniform(0.5, 1.5))
    return _apply_table(image, table)


def _scale_and_shift(values: np.ndarray, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return np.clip(values.astype(np.float32) * scale + shift, 0, 255).astype(np.uint8)


def _apply_table(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    return image if table is EVERY_VALUE else cv2.LUT(image, table)


def _change_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Apply `table` to one channel of the HSV form of an RGB image."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
