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
"""A folder of images and masks as a data set, and its augmentation."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import torch
from datasets import Dataset, Features, Image, Value
from transformers import TrainerCallback


IGNORE_INDEX = 255
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_MODES = ("L", "P", "I", "I;16", "I;16B")
EXIF_ORIENTATION = 0x0112


def load_folder_dataset(dataset_dir: str | Path, split: str, class_names: Sequence[str]) -> Dataset:
    """
    Load one split of a folder of images and masks, and check all of it first.

        dataset_dir/
            classes.txt
            images/training/a.jpg           images/validation/...      (.jpg, .jpeg or .png)
            annotations/training/a.png      annotations/validation/... (a class id per pixel, 255 = unlabelled)

    Args:
        dataset_dir (`str` or `Path`): the folder.
        split (`str`): the name of the sub-folder, "training" or "validation".
        class_names (`Sequence[str]`): the K names; a mask holds ids in [0, K) and 255.

    Returns:
        `datasets.Dataset` with the columns `image` and `annotation` (decoded when read), `name` (the file's stem) and
        `index` (its position), sorted by name.

    Raises:
        `ValueError`: names the file, what was found in it, and the rule, if an image has no mask or a mask no image,
        their sizes differ, a mask is not an image of ids, or an id is out of range.
    """
    images = _files_by_stem(Path(dataset_dir) / "images" / split, IMAGE_SUFFIXES)
    masks = _files_by_stem(Path(dataset_dir) / "annotations" / split, (".png",))
    for stem in sorted(images.keys() - masks.keys()):
        expected = Path(dataset_dir) / "annotations" / split / f"{stem}.png"
        raise ValueError(f"The image {images[stem]} has no mask: every image needs one, here {expected}.")
    for stem in sorted(masks.keys() - images.keys()):
        expected = Path(dataset_dir) / "images" / split / f"{stem}.jpg"
        raise ValueError(
            f"The mask {masks[stem]} has no image: every mask needs one, {expected} (or .png) does not exist."
        )

    names = sorted(images)
    for name in names:
        _check_pair(images[name], masks[name], num_labels=len(class_names))

    # No `mode` for the masks: converting a palette image to "L" replaces its ids by the grey values of their colours.
    features = Features({"image": Image(), "annotation": Image(), "name": Value("string"), "index": Value("int64")})
    columns = {
        "image": [str(images[name]) for name in names],
        "annotation": [str(masks[name]) for name in names],
        "name": names,
        "index": range(len(names)),
    }
    return Dataset.from_dict(columns, features=features)


def read_mask(mask: PIL.Image.Image, source: str = "the mask") -> np.ndarray:
    """
    Read a mask as ids: an array of shape `(height, width)` and type int64.

    Palette images give their indices. Colour images are refused, as their colours are not ids.
    """
    if mask.mode not in MASK_MODES:
        raise ValueError(
            f"{source} has the mode {mask.mode}; a mask stores one id per pixel, in a mode of {MASK_MODES}. "
            "Convert its colours to ids and save them as a greyscale or palette PNG."
        )
    return np.asarray(mask).astype(np.int64)


class TrainingTransform:
    """
    The published augmentation, on image and mask together; for [`datasets.Dataset.with_transform`].

    In order: keep-ratio resize, random crop, horizontal flip, photometric distortion, normalisation, padding.
    Every sample draws from a generator of its own, seeded by `(seed, epoch, index)`. So the same seed gives the same
    batches with any number of workers, and every epoch other crops (see [`AugmentationEpoch`]).

    Args:
        crop_size (`tuple[int, int]`): height and width of what is returned, in pixels.
        short_side (`int`): length of the short side at scale 1, in pixels.
        long_side (`int`): upper bound of the long side at scale 1, in pixels.
        image_mean, image_std (`Sequence[float]`): of RGB in [0, 1], from the image processor.
        scale_range (`tuple[float, float]`, *optional*, defaults to `(0.5, 2.0)`): the scale is uniform in it.
        max_class_share (`float`, *optional*, defaults to 0.75): a crop is drawn again (up to 10 times) when one class
            has at least this share of its labelled pixels.
        seed (`int`, *optional*, defaults to 0): the seed.

    Returns, for a batch of rows: `pixel_values`, float tensors `(3, crop height, crop width)`, and `labels`, int64
    tensors `(crop height, crop width)`. Padding is 0 (the mean colour) and 255.

    Source: the training pipeline of the published configurations; mmseg/datasets/pipelines/transforms.py.
    """

    CROP_TRIES = 10

    def __init__(
        self,
        crop_size: tuple[int, int],
        short_side: int,
        long_side: int,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        scale_range: tuple[float, float] = (0.5, 2.0),
        max_class_share: float = 0.75,
        seed: int = 0,
    ):
        self.crop_size = crop_size
        self.short_side, self.long_side = short_side, long_side
        self.scale_range = scale_range
        self.image_mean, self.image_std = np.float32(image_mean), np.float32(image_std)
        self.max_class_share = max_class_share
        self.seed = seed
        # In shared memory, so that workers that outlive an epoch see it change.
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __call__(self, rows: dict[str, list]) -> dict[str, list[torch.Tensor]]:
        samples = [self.augment(*row) for row in zip(rows["image"], rows["annotation"], rows["index"], strict=True)]
        pixel_values, labels = zip(*samples, strict=True)
        return {"pixel_values": list(pixel_values), "labels": list(labels)}

    def augment(self, image: PIL.Image.Image, mask: PIL.Image.Image, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment one image and its mask."""
        generator = np.random.default_rng((self.seed, int(self.epoch), index))
        image, mask = np.asarray(image.convert("RGB")), read_mask(mask)
        scale = generator.uniform(*self.scale_range)
        image, mask = resize_keep_ratio(image, mask, self.short_side * scale, self.long_side * scale)
        image, mask = self.random_crop(image, mask, generator)
        if generator.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        image = photometric_distortion(np.ascontiguousarray(image), generator)
        image = (image.astype(np.float32) / 255 - self.image_mean) / self.image_std
        image, mask = self.pad(image, mask)
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), torch.from_numpy(mask)

    def random_crop(self, image: np.ndarray, mask: np.ndarray, generator: np.random.Generator):
        """Crop image and mask to at most `crop_size`, with one class below `max_class_share` if 10 tries allow it."""
        height, width = mask.shape
        crop_height, crop_width = min(self.crop_size[0], height), min(self.crop_size[1], width)
        for _ in range(self.CROP_TRIES):
            top = generator.integers(height - crop_height + 1)
            left = generator.integers(width - crop_width + 1)
            window = np.s_[top : top + crop_height, left : left + crop_width]
            _, counts = np.unique(mask[window][mask[window] != IGNORE_INDEX], return_counts=True)
            if len(counts) > 1 and counts.max() / counts.sum() < self.max_class_share:
                break
        return image[window], mask[window]

    def pad(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pad a normalised image with 0 and its mask with 255, at the bottom and at the right, to `crop_size`."""
        bottom, right = self.crop_size[0] - mask.shape[0], self.crop_size[1] - mask.shape[1]
        image = np.pad(image, ((0, bottom), (0, right), (0, 0)))
        return image, np.pad(mask, ((0, bottom), (0, right)), constant_values=IGNORE_INDEX)


class EvaluationTransform:
    """
    The image processor's image beside the untouched mask; for [`datasets.Dataset.with_transform`].

    Returns, for a batch of rows: `pixel_values`, float tensors `(3, height, width)` at the size that the image
    processor gives; `labels`, int64 tensors at the *original* size of the mask.
    """

    def __init__(self, image_processor):
        self.image_processor = image_processor

    def __call__(self, rows: dict[str, list]) -> dict[str, list[torch.Tensor]]:
        images = [image.convert("RGB") for image in rows["image"]]
        # One at a time: images of different sizes do not stack.
        pixel_values = [self.image_processor(image, return_tensors="pt")["pixel_values"][0] for image in images]
        return {"pixel_values": pixel_values, "labels": [torch.from_numpy(read_mask(m)) for m in rows["annotation"]]}


class AugmentationEpoch(TrainerCallback):
    """Tell a [`TrainingTransform`] which epoch begins, so that no two epochs see the same crops."""

    def __init__(self, transform: TrainingTransform):
        self.transform = transform

    def on_epoch_begin(self, args, state, control, **kwargs):
        # The epoch is a float: 1.5 after resuming in the middle of the second one.
        self.transform.set_epoch(int(state.epoch or 0))


def collate_for_evaluation(samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor | list[torch.Tensor]]:
    """
    Collect samples of any sizes, as lists.

    `num_images` comes first, with one entry per image: from the first tensor that it finds in a batch the Trainer
    reads the batch size.
    """
    return {
        "num_images": torch.ones(len(samples)),
        "pixel_values": [sample["pixel_values"] for sample in samples],
        "labels": [sample["labels"] for sample in samples],
    }


def resize_keep_ratio(
    image: np.ndarray, mask: np.ndarray, short_side: float, long_side: float
) -> tuple[np.ndarray, np.ndarray]:
    """
    Resize until the short side has `short_side` pixels, or the long side `long_side` if that comes first.

    Args:
        image (`np.ndarray` of shape `(height, width, 3)`): resized bilinearly, without antialias.
        mask (`np.ndarray` of shape `(height, width)`): resized to the nearest pixel, so no new id appears.

    Source: `imrescale` of mmcv 1.3, for its rounding.
    """
    height, width = mask.shape
    scale = min(short_side / min(height, width), long_side / max(height, width))
    size = (int(width * scale + 0.5), int(height * scale + 0.5))
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    # OpenCV resizes no int64; 16 bits hold every id.
    return image, cv2.resize(mask.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST).astype(np.int64)


def photometric_distortion(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """
    Change brightness, contrast, saturation and hue, each with probability 0.5.

    Brightness moves by up to 32 of 255, contrast and saturation are multiplied by 0.5 to 1.5, hue turns by up to 18
    of OpenCV's 180 steps. Contrast comes either before or after the two colour changes.

    Args:
        image (`np.ndarray` of shape `(height, width, 3)` and type uint8): RGB.

    Source: `PhotoMetricDistortion` of mmseg 0.19.
    """

    def apply() -> bool:
        return generator.random() < 0.5

    def scale_and_shift(values: np.ndarray, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
        return np.clip(values.astype(np.float32) * scale + shift, 0, 255).astype(np.uint8)

    if apply():
        image = scale_and_shift(image, shift=generator.uniform(-32, 32))
    contrast_first = apply()
    if contrast_first and apply():
        image = scale_and_shift(image, scale=generator.uniform(0.5, 1.5))
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    if apply():
        hsv[..., 1] = scale_and_shift(hsv[..., 1], scale=generator.uniform(0.5, 1.5))
    if apply():
        # int16, since uint8 would wrap at 256 and hue wraps at 180.
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + generator.integers(-18, 18)) % 180
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not contrast_first and apply():
        image = scale_and_shift(image, scale=generator.uniform(0.5, 1.5))
    return image


def _files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(
            f"The folder {folder} does not exist; a split keeps its {' and '.join(suffixes)} files there."
        )
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes:
            continue
        if path.stem in files:
            raise ValueError(f"{files[path.stem]} and {path} share a name: images and masks are paired by it.")
        files[path.stem] = path
    if not files:
        raise ValueError(f"The folder {folder} holds no {' or '.join(suffixes)} file.")
    return files


def _check_pair(image_path: Path, mask_path: Path, num_labels: int) -> None:
    with PIL.Image.open(image_path) as image:
        size = image.size
        # `datasets` turns an image upright when it decodes it: orientations 5 to 8 swap width and height.
        if image.getexif().get(EXIF_ORIENTATION, 1) >= 5:
            size = size[::-1]
    with PIL.Image.open(mask_path) as mask:
        ids = read_mask(mask, source=f"The mask {mask_path}")
    if ids.shape != size[::-1]:
        raise ValueError(
            f"The mask {mask_path} has {ids.shape[1]} x {ids.shape[0]} pixels and its image {image_path} has "
            f"{size[0]} x {size[1]}: they have to have the same size."
        )
    present = np.unique(ids)
    wrong = present[((present < 0) | (present >= num_labels)) & (present != IGNORE_INDEX)]
    if wrong.size:
        raise ValueError(
            f"The mask {mask_path} holds the id {wrong[0]}; with {num_labels} classes in classes.txt ids lie in "
            f"[0, {num_labels - 1}], and {IGNORE_INDEX} is unlabelled."
        )
