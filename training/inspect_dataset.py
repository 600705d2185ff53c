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
"""
Look at a data set of images and masks before training on it: does training accept it, and is it what it should be?

    python -m training.inspect_dataset my_data
    python -m training.inspect_dataset ADEChallengeData2016 --dataset ade20k
    python -m training.inspect_dataset my_data --similar_names openai/clip-vit-base-patch16

A folder is laid out as

    my_data/
        classes.txt                     one name per line; line 0 names id 0 (ADE20K brings no such file)
        images/training/a.jpg           images/validation/...      (.jpg, .jpeg or .png)
        annotations/training/a.png      annotations/validation/... (a class id per pixel, 255 = unlabelled)

Training stops at the first file that it cannot use. This reads every file, names all that is wrong and how to put it
right, and exits with 0 if training accepts the data set, with 1 if not: it asks the checks of training. Give it the
--short_side and --long_side of training, by which images are too narrow or not. It prints the report, and writes it to
`report.json`, beside a `contact_sheet.png` of samples under their masks.

Names of classes that differ in a plural, an accent or punctuation alone are warned of; with --similar_names MODEL, a
CLIP or DenseCLIP, also those that its text tower hardly tells apart.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import statistics
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, fields
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
from tqdm import tqdm

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.class_names_denseclip import check_class_names, normalize_class_name
from modeling_denseclip.tools.command import escape_controls, run_command
from modeling_denseclip.tools.files.photographs import open_image, read_photograph
from modeling_denseclip.tools.files.saving import save_whole
from modeling_denseclip.tools.insight.explanation import class_similarity, confusable_names, load_text_reader
from modeling_denseclip.tools.pictures.drawing import contact_sheet, draw_overlay

from .data.ade20k import find_ade20k
from .data.class_names import CLASSES_FILE, read_class_names
from .data.files import (
    IGNORE_INDEX,
    IMAGE_SUFFIXES,
    MASK_MODES,
    MASK_SUFFIXES,
    find_wrong_ids,
    is_text,
    printable,
    read_ade20k_classes,
)
from .data.load import MIN_IMAGE_SIZE, check_ade20k_options, holds_no_label, is_binary, narrow_size
from .data.processes import starting_helpers
from .data.segmentation_folder import check_image
from .data.transforms import read_bytes, read_mask
from .options.arguments import DataArguments


DEEP_IMAGE_MODES = ("I;16", "I;16B")
UNKNOWN_RANGE_MODES = ("I", "F")
MAXIMUM_IDS = 2**16  # in a mask: more are measurements or noise, of which each would be an entry of the report
NUM_SIZES_SHOWN = 5
NUM_ITEMS_SHOWN = 5  # of a finding in the terminal; report.json has all of them
NUM_FILES_PER_ID = 3
# Starting processes takes longer than reading so many pairs.
FEW_PAIRS = 500
TILE_WIDTH = 320

# What can be found, by level: a title, and what to do. A note is worth knowing; with a warning training runs, but
# perhaps not as meant; an error is what training refuses, or would learn nonsense from.
RULES = {
    "note": {
        "palette_masks": ("Masks are palette images", "Their indices are read as ids, their colours are not."),
        "turned_images": (
            "Images that their orientation, of EXIF or XMP, turns or mirrors",
            "Training turns them upright: their masks have to be upright too. See the contact sheet.",
        ),
    },
    "warning": {
        "files_left_out": (
            "Files and folders that training does not read",
            "Images are .jpg, .jpeg or .png, masks are .png, and both lie directly in the split's folder.",
        ),
        "deep_images": (
            "Images of 16 bits",
            "65535 is read as white. If the camera has fewer bits, they are nearly black: scale all by one factor.",
        ),
        "same_picture_in_two_splits": (
            "The same picture in two splits (equal files; copies that were saved anew are not found)",
            "Remove it from one of them, or scores come out too high.",
        ),
        "same_picture_twice": ("The same picture twice in one split (equal files)", "Remove one, or it counts twice."),
        "unlabelled_masks": ("Masks without a labelled pixel", "Label them, or remove them with their images."),
        "classes_never_seen": (
            "Classes that never occur",
            "If that surprises you, compare the order of names with the ids.",
        ),
        "classes_not_in_training": (
            "Classes that training never sees, but another split does",
            "Move images between the splits: nobody can learn these classes.",
        ),
        "reduced_by_mistake": (
            "Labels are reduced, but the masks seem to count from 0",
            "The greatest id is one less than expected. If 0 is a class here, leave --reduce_labels true out.",
        ),
        "nearly_the_same_names": (
            "Class names that differ in a plural, an accent or punctuation alone",
            "The text tower reads them nearly alike. If they are one class, join them, or choose other words.",
        ),
        "names_read_alike": (
            "Class names that the text tower hardly tells apart",
            "At no pixel can their scores differ much. Choose words that say in what the classes differ.",
        ),
        "some_binary_masks": (
            "Masks of only 0 and 255, in a data set of two classes",
            "255 is unlabelled. If it means the second class there, save it as 1.",
        ),
    },
    "error": {
        "one_class": (
            "A single class",
            "A softmax over one class is 1 everywhere: name the rest too, such as 'background', with its own id.",
        ),
        "unknown_range": (
            "Images of floating-point numbers or 32-bit integers, whose range is unknown",
            "Save them with 8 bits, all scaled alike.",
        ),
        "class_names": ("The names of the classes cannot be read", "Write one per line, in the order of ids."),
        "same_class_names": (
            "Class names that are the same words",
            "Case and underscores make no difference to the text tower: give them different names.",
        ),
        "missing_folder": (
            "A folder is missing or empty",
            "A split keeps .jpg, .jpeg or .png images in images/SPLIT and .png masks in annotations/SPLIT.",
        ),
        "same_name": (
            "Files that share a name but for the suffix",
            "Images and masks are paired by name: rename or remove one.",
        ),
        "narrow_images": (
            "Images that are too narrow for the model, in a split that is not cropped (width x height)",
            "Remove them with their masks, or raise --short_side and --long_side, in training too.",
        ),
        "file_names": ("Names of files that are no text in UTF-8", "Rename them, as data sets store names as text."),
        "image_without_mask": ("Images without a mask", "Add annotations/SPLIT/NAME.png, or remove the image."),
        "mask_without_image": ("Masks without an image", "Add images/SPLIT/NAME.jpg (or .png), or remove the mask."),
        "unreadable": ("Files that cannot be read", "Fetch them again, or remove them with their partners."),
        "other_size": (
            "Masks that differ in size from their image (width x height)",
            "Export them again; or resize them to the nearest pixel, so that no new id appears.",
        ),
        "mask_mode": (
            "Masks that are no images of ids",
            "A mask stores one id per pixel: turn colours into ids, and save it as an 8-bit greyscale or palette PNG.",
        ),
        "mask_bit_depth": (
            "Greyscale masks of less than 8 bits",
            "Readers spread their values over 0 to 255, so that ids change: save them with 8 bits, and keep tools "
            "that shrink PNG files away from them.",
        ),
        "binary_masks": (
            "All masks hold only 0 and 255",
            "255 is unlabelled, so one class is left. Save the other class as 1: "
            "Image.fromarray(np.asarray(mask) // 255).save(path).",
        ),
        "wrong_ids": ("Ids without a class name", f"Add the missing names, or set these pixels to {IGNORE_INDEX}."),
        "nothing_labelled": (
            "Splits without a labelled pixel",
            "Compare the ids in the masks with the names of the classes, and with --reduce_labels.",
        ),
    },
}


# --------------------------------------------------------------------------------------------------- one pair of files


@dataclass
class ImageFacts:
    """What an image file tells. `size` is (width, height) after turning it upright."""

    format: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    digest: bytes = b""
    problem: str | None = None


@dataclass
class MaskFacts:
    """What a mask holds: `pixels` maps ids as stored to numbers of pixels, and is empty if it is no image of ids."""

    mode: str = ""
    size: tuple[int, int] = (0, 0)
    bit_depth: int = 8
    pixels: dict[int, int] = field(default_factory=dict)
    problem: str | None = None


class Pair(NamedTuple):
    """Files of one name in one split; either may be missing."""

    split: str
    image: Path | None
    mask: Path | None


def inspect_pair(pair: Pair) -> tuple[Pair, ImageFacts | None, MaskFacts | None]:
    """Read the files of one pair. Runs in the workers."""
    image = None if pair.image is None else inspect_image(pair.image)
    return pair, image, None if pair.mask is None else inspect_mask(pair.mask)


def inspect_image(path: Path) -> ImageFacts:
    """Read an image as training checks it."""
    facts = ImageFacts()
    try:
        data = read_bytes(path)
        facts.digest = hashlib.blake2b(data, digest_size=16).digest()
        with contextlib.suppress(OSError), open_image(io.BytesIO(data), "it") as image:
            facts.format, facts.mode, facts.size = image.format, image.mode, image.size
        height, width, facts.orientation = check_image({"path": str(path), "bytes": data}, "it")
        facts.size = (width, height)
    except (MemoryError, OSError, ValueError) as error:
        facts.problem = str(error)
    return facts


def inspect_mask(path: Path) -> MaskFacts:
    """Read a mask as training does, and count the pixels of every id."""
    facts = MaskFacts()
    try:
        data = read_bytes(path)
        with contextlib.suppress(OSError), open_image(io.BytesIO(data), "it") as mask:
            facts.mode, facts.size = mask.mode, mask.size
            # Pillow multiplies grey values of 2 and 4 bits by 85 and 17. Byte 24 of a PNG is its depth.
            if mask.format == "PNG" and mask.mode == "L":
                facts.bit_depth = data[24]
        ids = read_mask({"path": str(path), "bytes": data}, "it")
        facts.size = ids.shape[::-1]
        labels, counts = np.unique(ids, return_counts=True)
        if len(labels) > MAXIMUM_IDS:
            raise ValueError(f"it holds {len(labels):,} different ids, as many as no list of classes has")
        facts.pixels = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    except (MemoryError, OSError, ValueError) as error:
        facts.problem = str(error)
    return facts


# ------------------------------------------------------------------------------------------------------------- reports


@dataclass
class Statistics:
    """Counts over the pairs of a split, or over all. The keys of the last three are ids as stored in the masks."""

    files: Counter = field(default_factory=Counter)  # "images", "masks", "pairs" -> files
    image_formats: Counter = field(default_factory=Counter)
    image_modes: Counter = field(default_factory=Counter)
    image_sizes: Counter = field(default_factory=Counter)  # (width, height) -> files
    mask_modes: Counter = field(default_factory=Counter)
    masks: Counter = field(default_factory=Counter)  # id -> masks that hold it
    pixels: Counter = field(default_factory=Counter)  # id -> pixels
    pixels_around: Counter = field(default_factory=Counter)  # id -> pixels of all masks that hold it

    def add(self, pair: Pair, image: ImageFacts | None, mask: MaskFacts | None) -> None:
        self.files.update(images=pair.image is not None, masks=pair.mask is not None)
        self.files.update(pairs=pair.image is not None and pair.mask is not None)
        if image is not None and image.format:
            self.image_formats[image.format] += 1
            self.image_modes[image.mode] += 1
            self.image_sizes[image.size] += 1
        if mask is not None and mask.mode:
            self.mask_modes[mask.mode] += 1
            self.masks.update(mask.pixels.keys())
            self.pixels.update(mask.pixels)
            self.pixels_around.update(dict.fromkeys(mask.pixels, sum(mask.pixels.values())))

    @classmethod
    def total(cls, parts: Iterable["Statistics"]) -> "Statistics":
        parts = list(parts)
        return cls(*(sum((getattr(part, f.name) for part in parts), Counter()) for f in fields(cls)))


@dataclass
class DatasetReport:
    """
    All that was found in a data set.

    Attributes:
        dataset_dir (`Path`): the folder.
        class_names (`list[str]`): K names; made up ("id 0", ...) if they cannot be read.
        palette (`Sequence` of RGB triples, *optional*): their colours, if the data set has its own.
        reduce_labels (`bool`): whether 0 in a mask is unlabelled, and n names the class n - 1.
        splits (`dict[str, Statistics]`): what was counted, per split.
        findings (`dict[str, list[str]]`): keys of `RULES`, each with what it was found in.
        fixes (`dict[str, str]`): better advice than that of `RULES`, where the ids give it away.
        drawable (`list[Pair]`): pairs whose mask fits the image.
    """

    dataset_dir: Path
    class_names: list[str]
    palette: Sequence[Sequence[int]] | None
    reduce_labels: bool
    splits: dict[str, Statistics]
    findings: dict[str, list[str]] = field(default_factory=dict)
    fixes: dict[str, str] = field(default_factory=dict)
    drawable: list[Pair] = field(default_factory=list)

    def add(self, rule: str, item: str) -> None:
        self.findings.setdefault(rule, []).append(item)

    def name(self, path: Path) -> str:
        return printable(path.relative_to(self.dataset_dir).as_posix())

    def explain(self, level: str, rule: str) -> tuple[str, str]:
        """The title of a finding, and what to do."""
        title, fix = RULES[level][rule]
        return title, self.fixes.get(rule, fix)

    @property
    def total(self) -> Statistics:
        return Statistics.total(self.splits.values())

    @property
    def columns(self) -> dict[str, Statistics]:
        """The splits, and all of them together where there are several."""
        return {**self.splits, "all": self.total} if len(self.splits) > 1 else self.splits

    def findings_of(self, level: str) -> list[str]:
        """The findings of one level, in the order of `RULES`."""
        return [rule for rule in RULES[level] if rule in self.findings]

    @property
    def accepted(self) -> bool:
        return not self.findings_of("error")

    def class_of(self, label: int) -> int | None:
        """The class that a stored id means; `None` is unlabelled, and from K on there is no such class."""
        if label == IGNORE_INDEX or (self.reduce_labels and label == 0):
            return None
        return label - 1 if self.reduce_labels else label

    def per_class(self, counts: Counter) -> np.ndarray:
        """Sort counts of stored ids by class: an array of K."""
        result = np.zeros(len(self.class_names), dtype=np.int64)
        for label, count in counts.items():
            index = self.class_of(label)
            if index is not None and 0 <= index < len(result):
                result[index] = count
        return result

    def unlabelled(self, counts: Counter) -> int:
        """Sum counts of stored ids that mean "unlabelled"."""
        return sum(count for label, count in counts.items() if self.class_of(label) is None)

    def wrong_ids(self, counts: Counter) -> list[int]:
        """Stored ids that are neither a class nor unlabelled."""
        return find_wrong_ids(counts, len(self.class_names), self.reduce_labels)


# -------------------------------------------------------------------------------------------------------- the data set


def inspect_dataset(
    dataset_dir: str | Path,
    dataset: str = "folder",
    reduce_labels: bool | None = None,
    splits: Sequence[str] = ("training", "validation"),
    num_workers: int | None = None,
    similar_names: str | None = None,
    tokenizer: str | None = None,
    short_side: int = DataArguments.short_side,
    long_side: int = DataArguments.long_side,
    min_image_size: int = MIN_IMAGE_SIZE,
) -> DatasetReport:
    """
    Read every file of a data set and report what is there and what is wrong.

    Args:
        dataset_dir (`str` or `Path`): the folder; see the top of this file for its layout.
        dataset (`str`, *optional*, defaults to `"folder"`): "ade20k" takes the 150 names of ADE20K instead of those in
            classes.txt.
        reduce_labels (`bool`, *optional*): 0 in a mask is unlabelled and n names the class n - 1. By default so for
            ADE20K only.
        splits (`Sequence[str]`, *optional*): names of the sub-folders.
        num_workers (`int`, *optional*): processes that read files; 0 reads in this one. By default one per core for
            more than 500 pairs, and 0 for fewer.
        similar_names (`str`, *optional*): a CLIP or DenseCLIP whose text tower is to read the names of the classes: a
            folder, or the id of a repository on the Hub.
        tokenizer (`str`, *optional*): where its tokenizer is, if not beside it.
        short_side, long_side (`int`, *optional*, default to those of training): to what size training brings images.
        min_image_size (`int`, *optional*, defaults to 32): the least side in pixels that the model takes.

    Raises:
        `ValueError`: if there is no such folder, options are none of ADE20K, or the model is of another kind. All else
            that is wrong is in the report.
        `ChildProcessError`: if a process that reads files died.
    """
    dataset_dir = Path(dataset_dir)
    if not dataset_dir.is_dir():
        raise ValueError(f"{dataset_dir} is no folder: name the one that holds images/ and annotations/.")
    if dataset == "ade20k":
        check_ade20k_options(reduce_labels)
        dataset_dir, reduce_labels = find_ade20k(dataset_dir), True
    image_processor = DenseCLIPImageProcessor(size={"shortest_edge": short_side, "longest_edge": long_side})
    reduce_labels = bool(reduce_labels)
    report = DatasetReport(dataset_dir, [], None, reduce_labels, {split: Statistics() for split in splits})
    if dataset == "ade20k":
        report.class_names, report.palette = read_ade20k_classes()
        report.fixes["wrong_ids"] = (
            "The 150 classes come with ADEChallengeData2016, whose masks hold 0 to 150; the full ADE20K has others."
        )
    else:
        try:
            report.class_names = read_class_names(dataset_dir)
        except ValueError as error:
            report.add("class_names", str(error))
    _check_names(report)
    if similar_names is not None and report.accepted:
        _read_names(report, similar_names, tokenizer)

    pairs = [pair for split in report.splits for pair in _find_pairs(report, split)]
    pictures: dict[bytes, list[Pair]] = defaultdict(list)
    holders: dict[int, list[str]] = defaultdict(list)
    binary_masks: list[str] = []
    if num_workers is None:
        num_workers = (os.cpu_count() or 1) if len(pairs) > FEW_PAIRS else 0
    results = tqdm(_inspect_pairs(pairs, num_workers), "Reading", len(pairs), unit=" pairs", disable=None)
    for pair, image, mask in results:
        report.splits[pair.split].add(pair, image, mask)
        _check_pair(report, pair, image, mask)
        # Training crops and pads its own split.
        if pair.split != "training" and image is not None and image.problem is None:
            width, height = image.size
            if (seen := narrow_size(height, width, image_processor, min_image_size)) is not None:
                report.add(
                    "narrow_images",
                    f"{report.name(pair.image)}: {_format_size(image.size)}, of which the model sees"
                    f" {_format_size(seen[::-1])}; both sides must have at least {min_image_size}",
                )
        if image is not None and image.digest:
            pictures[image.digest].append(pair)
        if mask is not None:
            for label in mask.pixels:
                if len(holders[label]) < NUM_FILES_PER_ID:
                    holders[label].append(report.name(pair.mask))
            if is_binary(mask.pixels.keys()):
                binary_masks.append(report.name(pair.mask))

    if not report.class_names:
        highest = max(holders.keys() - {IGNORE_INDEX}, default=0)
        report.class_names = [f"id {label}" for label in range(highest + 1)]
        report.fixes["class_names"] = f"Write one per line, in the order of ids. The masks hold ids up to {highest}."
    _check_pictures(report, pictures)
    _check_ids(report, holders, binary_masks)
    _check_classes(report)
    return report


def median_frequency_weights(pixels: np.ndarray, pixels_around: np.ndarray) -> np.ndarray:
    """
    Weigh classes by the median frequency over their own.

    The frequency of a class is its share of the pixels of those images that it occurs in. A class that never occurs
    has none: its weight is 1, which changes nothing where it does not occur and ignores nothing where it does.

    Args:
        pixels (array of K integers): pixels of each class.
        pixels_around (array of K integers): pixels of all images that hold the class, unlabelled ones too.

    Returns:
        an array of K positive weights: 1 for the median class, more for rare ones.

    Source: Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a Common Multi-Scale
    Convolutional Architecture" (ICCV 2015), on semantic labels.
    """
    present = pixels > 0
    frequency = pixels[present] / pixels_around[present]
    weights = np.ones(len(pixels))
    if present.any():
        weights[present] = np.median(frequency) / frequency
    return weights


def draw_samples(report: DatasetReport, num_samples: int) -> PIL.Image.Image:
    """Draw a contact sheet of samples under their masks, spread evenly over the pairs whose mask fits the image."""
    last = len(report.drawable) - 1
    indices = np.unique(np.linspace(0, last, min(num_samples, last + 1)).round().astype(int))
    id2label = dict(enumerate(report.class_names))
    pictures, captions = [], []
    for pair in (report.drawable[index] for index in indices):
        image = read_photograph(pair.image)
        ids = read_mask({"path": str(pair.mask), "bytes": None}).astype(np.int32)
        # Drawn at the size that is shown; every n-th pixel of a mask is its nearest-neighbour reduction.
        step = max(1, image.width // TILE_WIDTH)
        ids = ids[::step, ::step]
        image = image.resize(ids.shape[::-1], PIL.Image.Resampling.BOX)
        if report.reduce_labels:
            ids = np.where((ids == 0) | (ids == IGNORE_INDEX), IGNORE_INDEX, ids - 1)
        pictures.append(draw_overlay(image, ids, id2label, report.palette, legend=False))
        captions.append(f"{pair.split}/{pair.image.stem}")
    return contact_sheet(pictures, captions, columns=4, tile_width=TILE_WIDTH)


def _check_names(report: DatasetReport) -> None:
    """Compare names by their letters; one alone is none to tell from others."""
    if len(report.class_names) == 1:
        report.add("one_class", report.class_names[0])
    words: dict[str, str] = {}
    spellings: dict[str, str] = {}
    for name in report.class_names:
        key = normalize_class_name(name).lower()
        if key in words:
            report.add("same_class_names", f"{words[key]} / {name}")
        else:
            words[key] = name
            spellings.setdefault(_letters(name), name)
    if report.class_names and report.accepted:
        try:
            check_class_names(report.class_names)
        except ValueError as error:
            report.add("class_names", str(error))
    for name in words.values():
        letters = _letters(name)
        # The name itself, and what it may be the plural of.
        for singular in (letters, letters.removesuffix("s"), letters.removesuffix("es"), re.sub("ies$", "y", letters)):
            other = spellings.get(singular, name)
            if other != name:
                report.add("nearly_the_same_names", f"{other} / {name}")
                break


def _letters(name: str) -> str:
    """Letters and digits of a name, in lower case, without accents."""
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    return "".join(character for character in decomposed if character.isalnum())


def _read_names(report: DatasetReport, name_or_path: str, tokenizer: str | None) -> None:
    """Compare names as the text tower of a model reads them."""
    model = load_text_reader(name_or_path, report.class_names, tokenizer)
    similarity = class_similarity(model, report.class_names)
    for first, second, cosine in confusable_names(similarity, report.class_names):
        report.add("names_read_alike", f"{first} / {second}: cosine {cosine:.3f}")


def _find_pairs(report: DatasetReport, split: str) -> list[Pair]:
    images = _files_by_stem(report, report.dataset_dir / "images" / split, IMAGE_SUFFIXES)
    masks = _files_by_stem(report, report.dataset_dir / "annotations" / split, MASK_SUFFIXES)
    return [Pair(split, images.get(stem), masks.get(stem)) for stem in sorted(images.keys() | masks.keys())]


def _files_by_stem(report: DatasetReport, folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    left_out: Counter = Counter()
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem, suffix = os.path.splitext(path.name)  # as training does; Path.stem differs for "..png"
        if suffix.lower() not in suffixes:
            if not path.name.startswith("."):
                left_out["folders" if path.is_dir() else f"files *{printable(suffix)}"] += 1
        elif not is_text(path.name):
            report.add("file_names", report.name(path))
        elif stem in files:
            report.add("same_name", f"{report.name(files[stem])} and {path.name}")
        else:
            files[stem] = path
    for kind, count in left_out.items():
        report.add("files_left_out", f"{report.name(folder)}: {count:,} {kind}")
    if not files:
        report.add("missing_folder", f"{report.name(folder)} holds no {' or '.join(suffixes)} file")
    return files


def _inspect_pairs(pairs: list[Pair], num_workers: int) -> Iterator[tuple[Pair, ImageFacts | None, MaskFacts | None]]:
    """Inspect all pairs, in order."""
    if num_workers == 0:
        yield from map(inspect_pair, pairs)
        return
    # A forked process may wait for ever for a lock that a thread of its parent held.
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as executor:
        try:
            with starting_helpers():
                inspected = executor.map(inspect_pair, pairs, chunksize=16)
            yield from inspected
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "A process that reads images and masks died, so nothing is reported. The system ends those that take"
                " too much memory, for example: take fewer by --num_workers."
            ) from error


def _check_pair(report: DatasetReport, pair: Pair, image: ImageFacts | None, mask: MaskFacts | None) -> None:
    if mask is None:
        report.add("image_without_mask", report.name(pair.image))
    if image is None:
        report.add("mask_without_image", report.name(pair.mask))
    for path, facts in ((pair.image, image), (pair.mask, mask)):
        if facts is not None and facts.problem is not None:
            rule, found = _explain_problem(facts)
            report.add(rule, f"{report.name(path)}: {found}")

    if image is not None and image.problem is None:
        if image.mode in DEEP_IMAGE_MODES:
            report.add("deep_images", f"{report.name(pair.image)}: mode {image.mode}")
        if image.orientation > 1:
            report.add("turned_images", f"{report.name(pair.image)}: orientation {image.orientation}")
    if mask is None or mask.problem is not None:
        return
    if mask.mode == "P":
        report.add("palette_masks", report.name(pair.mask))
    if mask.pixels and holds_no_label(mask.pixels.keys(), report.reduce_labels):
        report.add("unlabelled_masks", report.name(pair.mask))

    if image is None or image.problem is not None:
        return
    if mask.size != image.size:
        turned = f", turned by its EXIF orientation {image.orientation}" if image.orientation >= 5 else ""
        report.add(
            "other_size",
            f"{report.name(pair.mask)}: {_format_size(mask.size)}, the image {_format_size(image.size)}{turned}",
        )
    elif mask.pixels:
        report.drawable.append(pair)


def _explain_problem(facts: ImageFacts | MaskFacts) -> tuple[str, str]:
    """The rule that a file breaks for which training's own check has an error, and what was found."""
    if isinstance(facts, ImageFacts) and facts.mode in UNKNOWN_RANGE_MODES:
        return "unknown_range", f"mode {facts.mode}"
    if isinstance(facts, MaskFacts) and facts.mode and facts.mode not in MASK_MODES:
        return "mask_mode", f"mode {facts.mode}"
    if isinstance(facts, MaskFacts) and facts.bit_depth < 8:
        return "mask_bit_depth", f"{facts.bit_depth} bits"
    return "unreadable", facts.problem


def _check_pictures(report: DatasetReport, pictures: dict[bytes, list[Pair]]) -> None:
    for same in pictures.values():
        if len(same) > 1:
            rule = "same_picture_in_two_splits" if len({pair.split for pair in same}) > 1 else "same_picture_twice"
            report.add(rule, " = ".join(report.name(pair.image) for pair in same))


def _check_ids(report: DatasetReport, holders: dict[int, list[str]], binary_masks: list[str]) -> None:
    total, num_labels = report.total, len(report.class_names)
    for label in report.wrong_ids(total.pixels):
        files, count = ", ".join(holders[label]), total.masks[label]
        more = f" and {count - len(holders[label]):,} more" if count > len(holders[label]) else ""
        report.add("wrong_ids", f"id {label}: {total.pixels[label]:,} pixels in {count:,} masks: {files}{more}")

    labels = total.pixels.keys() - {IGNORE_INDEX}
    highest = max(labels, default=-1)
    if highest == num_labels and not report.reduce_labels:
        if 0 in labels:
            share = total.pixels[0] / total.pixels.total()
            report.fixes["wrong_ids"] = (
                f"Ids run from 0 to {highest}, one more than there are names. If 0 ({share:.1%} of all pixels) means "
                f'"other" or unlabelled, pass --reduce_labels true; if it is a class, put its name on top of '
                f"{CLASSES_FILE}."
            )
        else:
            report.fixes["wrong_ids"] = (
                f"Ids run from 1 to {highest}, so 0 means unlabelled here: pass --reduce_labels true."
            )
    if highest == num_labels - 1 and 0 in labels and report.reduce_labels:
        report.add("reduced_by_mistake", f"ids run from 0 to {highest}, with {num_labels} names")

    if is_binary(total.pixels.keys()):
        report.add("binary_masks", f"{total.files['masks']:,} masks")
    elif num_labels == 2:
        for name in binary_masks:
            report.add("some_binary_masks", name)
    for split, counts in report.splits.items():
        if counts.pixels and holds_no_label(counts.pixels.keys(), report.reduce_labels):
            report.add("nothing_labelled", f"{split}: {counts.files['masks']:,} masks")


def _check_classes(report: DatasetReport) -> None:
    seen = {split: report.per_class(counts.pixels) > 0 for split, counts in report.splits.items() if counts.pixels}
    for split, present in seen.items():
        if not present.all():
            names = [report.class_names[index] for index in np.flatnonzero(~present)]
            report.add("classes_never_seen", f"{split}, {len(names)} of {len(present)}: {', '.join(names)}")
        if split != "training" and "training" in seen:
            for index in np.flatnonzero(present & ~seen["training"]):
                report.add("classes_not_in_training", f"{split}: {report.class_names[index]}")


# ---------------------------------------------------------------------------------------------------------------- text


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def format_report(report: DatasetReport) -> str:
    """Write the report as text: counts, classes, findings from notes to errors, and whether training accepts it."""
    meaning = "0 = unlabelled, n = class n - 1" if report.reduce_labels else "n = class n"
    sections = [
        f"{report.dataset_dir}: {len(report.class_names)} classes; masks: {meaning}, {IGNORE_INDEX} = unlabelled",
        _format_files(report),
        _format_classes(report),
    ]
    for level in RULES:
        sections += [_format_finding(report, level, rule) for rule in report.findings_of(level)]
    reasons = report.findings_of("error")
    sections.append(
        "Training accepts this data set."
        if report.accepted
        else "Training refuses this data set: " + "; ".join(RULES["error"][rule][0].lower() for rule in reasons) + "."
    )
    return "\n\n".join(sections)


def _format_files(report: DatasetReport) -> str:
    columns = report.columns
    total = list(columns.values())[-1]
    rows = [["", *columns]]

    def add(title: str, cells: Iterable[str]) -> None:
        rows.append([title, *cells])

    for kind in ("images", "masks", "pairs"):
        add(kind, (f"{counts.files[kind]:,}" for counts in columns.values()))
    for title, name in (("images,", "image_formats"), ("images, mode", "image_modes"), ("masks, mode", "mask_modes")):
        for key, _ in getattr(total, name).most_common():
            add(f"{title} {key}", (f"{getattr(counts, name)[key]:,}" for counts in columns.values()))
    for title, axis in (("width", 0), ("height", 1)):
        lengths = [sorted(size[axis] for size in counts.image_sizes.elements()) for counts in columns.values()]
        for which, function in (("min", min), ("median", statistics.median_low), ("max", max)):
            add(f"{title}, {which}", (f"{function(values):,}" if values else "-" for values in lengths))
    sizes = total.image_sizes.most_common(NUM_SIZES_SHOWN)
    for size, _ in sizes:
        add(f"images of {_format_size(size)}", (f"{counts.image_sizes[size]:,}" for counts in columns.values()))
    if len(total.image_sizes) > len(sizes):
        others = [
            counts.image_sizes.total() - sum(counts.image_sizes[size] for size, _ in sizes)
            for counts in columns.values()
        ]
        add("images of other sizes", (f"{count:,}" for count in others))
    add("pixels of masks", (f"{counts.pixels.total():,}" for counts in columns.values()))
    add(
        "unlabelled",
        (_percent(report.unlabelled(counts.pixels), counts.pixels.total(), 2) for counts in columns.values()),
    )
    return _format_table(rows)


def _format_classes(report: DatasetReport) -> str:
    columns = report.columns
    rows = [["class", "id", "pixels", *(f"{name} {what}" for name in columns for what in ("share", "masks"))]]
    pixels = {name: report.per_class(counts.pixels) for name, counts in columns.items()}
    masks = {name: report.per_class(counts.masks) for name, counts in columns.items()}
    *_, last = columns
    for index, class_name in enumerate(report.class_names):
        row = [class_name, str(index), f"{pixels[last][index]:,}"]
        for name in columns:
            row += [_percent(pixels[name][index], pixels[name].sum(), 3), f"{masks[name][index]:,}"]
        rows.append(row)
    text = "Pixels per class: share of the labelled ones, and masks that hold it\n\n" + _format_table(rows)

    present = np.flatnonzero(pixels[last])
    if len(present) > 1:
        most, least = (present[function(pixels[last][present])] for function in (np.argmax, np.argmin))
        ratio = pixels[last][most] / pixels[last][least]
        names = f"'{report.class_names[most]}' has {ratio:,.1f} times as many pixels as '{report.class_names[least]}'."
        text += f"\n\n{names}"
    return text


def _percent(part: int, whole: int, digits: int) -> str:
    return f"{100 * part / whole:.{digits}f} %" if part else "-"


def _format_table(rows: list[list[str]]) -> str:
    """Align columns: the first at the left, the others at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)


def _format_finding(report: DatasetReport, level: str, rule: str) -> str:
    (title, fix), items = report.explain(level, rule), report.findings[rule]
    lines = [f"{level.upper()}: {title} ({len(items):,})"]
    lines += [f"    {_cut(item)}" for item in items[:NUM_ITEMS_SHOWN]]
    if len(items) > NUM_ITEMS_SHOWN:
        lines.append(f"    and {len(items) - NUM_ITEMS_SHOWN:,} more")
    return "\n".join([*lines, f"  -> {fix}"])


def _cut(item: str) -> str:
    item = escape_controls(item)  # names of files
    return item if len(item) <= 200 else f"{item[:197]}..."


def report_to_json(report: DatasetReport) -> dict:
    """The report as JSON: all counts and findings, none of them cut."""

    def of_split(counts: Statistics) -> dict:
        pixels, masks = report.per_class(counts.pixels), report.per_class(counts.masks)
        sizes = sorted(counts.image_sizes.items(), key=lambda item: (-item[1], item[0]))
        return {
            **{kind: counts.files[kind] for kind in ("images", "masks", "pairs")},
            "image_formats": dict(counts.image_formats),
            "image_modes": dict(counts.image_modes),
            "mask_modes": dict(counts.mask_modes),
            "image_sizes": [{"width": size[0], "height": size[1], "images": count} for size, count in sizes],
            "pixels": counts.pixels.total(),
            "unlabelled_pixels": report.unlabelled(counts.pixels),
            "classes": [
                {"id": index, "name": name, "pixels": int(pixels[index]), "masks": int(masks[index])}
                for index, name in enumerate(report.class_names)
            ],
        }

    return {
        "dataset_dir": printable(str(report.dataset_dir)),
        "reduce_labels": report.reduce_labels,
        "accepted": report.accepted,
        "splits": {name: of_split(counts) for name, counts in report.splits.items()},
        "all": of_split(report.total),
        "findings": [
            {"level": level, "rule": rule, "title": title, "fix": fix, "found": report.findings[rule]}
            for level in reversed(RULES)
            for rule in report.findings_of(level)
            for title, fix in [report.explain(level, rule)]
        ],
    }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", help="the folder that holds images/ and annotations/")
    parser.add_argument("--dataset", choices=("folder", "ade20k"), default="folder", help="what names the classes")
    parser.add_argument(
        "--reduce_labels",
        choices=("true", "false"),
        help="whether 0 in a mask is unlabelled and n names the class n - 1; by default for ADE20K only",
    )
    for name, side in (("short_side", "short"), ("long_side", "long")):
        parser.add_argument(
            f"--{name}",
            type=int,
            default=getattr(DataArguments, name),
            help=f"the {side} side that training brings images to; give what you train with (default: %(default)s)",
        )
    parser.add_argument("--splits", nargs="+", default=["training", "validation"], help="names of the sub-folders")
    parser.add_argument(
        "--num_workers",
        type=int,
        help=f"processes that read files, 0 for none besides. By default one per core for more than {FEW_PAIRS} pairs",
    )
    parser.add_argument(
        "--similar_names",
        metavar="MODEL",
        help="warn of class names that the text tower of this CLIP or DenseCLIP hardly tells apart: a folder, or the"
        " id of a repository on the Hub",
    )
    parser.add_argument("--tokenizer", metavar="DIR_OR_ID", help="its tokenizer, if it is not beside MODEL")
    parser.add_argument("--output_dir", default="inspection", help="for report.json and contact_sheet.png")
    parser.add_argument("--num_samples", type=int, default=24, help="pictures on the contact sheet; 0 for no sheet")
    parser.add_argument(
        "--write_class_weights",
        metavar="FILE",
        help="write one weight per class of the training split, in order of ids: median frequency balancing",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Inspect, print, write. Returns the exit code: 0 without errors, 1 with."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if (args.num_workers or 0) < 0 or args.num_samples < 0:
        parser.error(f"numbers are at least 0, got {args.num_workers} workers and {args.num_samples} samples")
    if args.tokenizer is not None and args.similar_names is None:
        parser.error("--tokenizer goes with --similar_names")
    if args.write_class_weights is not None and "training" not in args.splits:
        parser.error(f"--write_class_weights weighs the split training, which is not among {args.splits}")

    reduce_labels = None if args.reduce_labels is None else args.reduce_labels == "true"
    report = inspect_dataset(
        args.dataset_dir,
        args.dataset,
        reduce_labels,
        args.splits,
        args.num_workers,
        args.similar_names,
        args.tokenizer,
        args.short_side,
        args.long_side,
    )
    print(format_report(report))

    output_dir = Path(args.output_dir)
    text = json.dumps(report_to_json(report), indent=2, ensure_ascii=False) + "\n"
    save_whole(output_dir / "report.json", lambda path: path.write_text(text, encoding="utf-8"))
    written = [str(output_dir / "report.json")]
    if args.num_samples and report.drawable:
        save_whole(output_dir / "contact_sheet.png", draw_samples(report, args.num_samples).save)
        written.append(str(output_dir / "contact_sheet.png"))
    if args.write_class_weights is not None and report.accepted:
        counts = report.splits["training"]
        weights = median_frequency_weights(report.per_class(counts.pixels), report.per_class(counts.pixels_around))
        lines = "".join(f"{weight:.6g}\n" for weight in weights)
        save_whole(Path(args.write_class_weights), lambda path: path.write_text(lines, encoding="utf-8"))
        written.append(args.write_class_weights)
    print("Written: " + ", ".join(written))
    if args.write_class_weights is not None and not report.accepted:
        print(f"Not written: {args.write_class_weights}, since weights of a data set with errors would be wrong.")
    return 0 if report.accepted else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
