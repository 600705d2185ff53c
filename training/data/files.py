# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What the files of a data set are, for all that reads them."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Set

import numpy as np
import PIL.Image

from modeling_denseclip.tools.files.photographs import read_orientation

from .. import REPOSITORY


IGNORE_INDEX = 255  # unlabelled
MASK_SUFFIXES = (".png",)
RARE_SHARE = 0.02  # of the labelled pixels: a class of fewer may never be found in a short training
# Modes of Pillow that store one number per pixel.
MASK_MODES = ("L", "P", "I", "I;16", "I;16B")
ADE20K_FILE = REPOSITORY / "configuration" / "datasets" / "ade20k.json"


def upright_size(picture: PIL.Image.Image) -> tuple[int, int]:
    """Height and width as a photograph is read: turned upright. A JPEG is not decoded for it."""
    is_on_its_side = read_orientation(picture) >= 5
    width, height = picture.size
    return (width, height) if is_on_its_side else (height, width)


def find_wrong_ids(ids: Iterable[int], num_labels: int, reduce_labels: bool) -> list[int]:
    """Ids, as a mask stores them, that are neither a class of `num_labels` nor unlabelled; the lowest first."""
    highest = num_labels if reduce_labels else num_labels - 1
    return sorted(label for label in ids if not 0 <= label <= highest and label != IGNORE_INDEX)


def holds_no_label(ids: Set[int], reduce_labels: bool) -> bool:
    """Whether the ids of masks all mean "unlabelled"."""
    return ids <= ({0, IGNORE_INDEX} if reduce_labels else {IGNORE_INDEX})


def count_by_class(counts: Mapping[int, int], num_labels: int, reduce_labels: bool) -> np.ndarray:
    """Counts of ids, as masks store them, by class: an int64 array of `num_labels`. Other ids are left out."""
    first = 1 if reduce_labels else 0
    by_class = [0 if first + index == IGNORE_INDEX else counts.get(first + index, 0) for index in range(num_labels)]
    return np.array(by_class, dtype=np.int64)


def find_rare(pixels: np.ndarray) -> np.ndarray:
    """
    Indices of the classes, the rarest first, that have some of the labelled pixels, but less than `RARE_SHARE`, and
    less than half of an even share: of 150 classes most have under 2 %.
    """
    rare = np.flatnonzero((pixels > 0) & (pixels < min(RARE_SHARE, 0.5 / len(pixels)) * pixels.sum()))
    return rare[np.argsort(pixels[rare], kind="stable")]


def is_binary(ids: Set[int]) -> bool:
    """Whether the masks of a data set hold 0 and 255 alone, which mostly means that 255 is the second class."""
    return ids == {0, IGNORE_INDEX}


def is_text(name: str) -> bool:
    """Whether the name of a file is in UTF-8. Of others Python keeps the bytes, as half characters."""
    return printable(name) == name


def printable(name: str) -> str:
    """The name of a file, with escapes for what is no text."""
    return name.encode(errors="backslashreplace").decode()


def without_path(name: str) -> str:
    """
    What a data set or a checkpoint is called where others read it: the id of a repository of the Hub as it is, and of
    a path, of this machine or another, the last part alone.
    """
    is_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) is not None and not os.path.exists(name)
    return name if is_id else last_part(name)


def last_part(path: str) -> str:
    """The last part of a path of any system; of one that is here and ends in "..", say, the name of the folder."""
    path = os.path.abspath(path) if os.path.exists(path) else path
    return re.split(r"[/\\]|^[A-Za-z]:", path.rstrip("/\\"))[-1]


def read_ade20k_classes() -> tuple[list[str], tuple[tuple[int, int, int], ...]]:
    """The 150 names, in the order of ids after the reduction of the zero label, and their colours in RGB."""
    classes = json.loads(ADE20K_FILE.read_text(encoding="utf-8"))
    return classes["classes"], tuple(map(tuple, classes["palette"]))
