# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What every reader of a form of annotations gives, so that all that comes after is written once."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from modeling_denseclip.tools.files.photographs import IMAGE_SUFFIXES


# The key of pixels that nothing covers: no shape of a file of shapes, no file of several masks; or that a mask leaves
# transparent.
UNCOVERED = -1
# Left by operating systems and tools beside what they copy.
PASSED_OVER = ("__MACOSX", "@eaDir", "System Volume Information")


class Drawing(NamedTuple):
    """
    An annotation at the size of its picture.

    Attributes:
        keys (`numpy.ndarray`): of shape (height, width) and type int32: what the form itself has for the class of a
            pixel, such as the id of a category, the value of a mask or 0xRRGGBB of its colour; or `UNCOVERED`.
        remarks (`dict[str, int]`): what is summed over all pictures and told in the end, such as "objects that lie
            wholly under others" with their number.
    """

    keys: np.ndarray
    remarks: dict[str, int] = {}


@dataclass(frozen=True)
class Item:
    """
    A photograph with its annotation.

    Attributes:
        image (`Path`): the photograph, as it lies.
        annotations (`tuple[Path, ...]`): the files that annotate it; none where the form annotates "nothing is here"
            by their absence.
        draw (`Callable[[tuple[int, int]], Drawing]`): given the height and width of the annotated picture, the keys of
            its pixels. Can be pickled. Raises a ValueError that names the file for what it cannot draw.
        size (`tuple[int, int]`, *optional*): height and width as the annotation tells them, where it does.
        split (`str`, *optional*): the part that it belongs to: "training", "validation" or "test".
        name (`str`): what it is to be called, without a suffix; relative folders joined by "/".
    """

    image: Path
    annotations: tuple[Path, ...]
    draw: Callable[[tuple[int, int]], Drawing]
    size: tuple[int, int] | None = None
    split: str | None = None
    name: str = ""


@dataclass
class Source:
    """
    A data set of a foreign form, as its reader understands it.

    Attributes:
        form (`str`): what it is, as the report says it, such as "COCO polygons".
        items (`list[Item]`): its photographs that have an annotation.
        names (`dict[int, str]`): what the form itself says of keys: names of classes, in the order in which classes
            are to have ids. Empty where it says nothing.
        unlabelled (`set[int]`): keys of which the form itself says that they mean "unlabelled".
        keys_are_colours (`bool`): whether keys are 0xRRGGBB.
        notes (`list[str]`): what a user should know of how it was read, a sentence each.
        left_out (`list[str]`): what was not taken, a file and its reason each.
    """

    form: str
    items: list[Item]
    names: dict[int, str] = field(default_factory=dict)
    unlabelled: set[int] = field(default_factory=set)
    keys_are_colours: bool = False
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


class Listing:
    """
    All files below a folder, found once and asked by every form.

    Args:
        root (`Path`): the folder.

    Attributes:
        files (`list[PurePosixPath]`): the files, as seen from the root, sorted. Hidden ones are left out, and those
            that systems leave beside copies.
    """

    def __init__(self, root: Path):
        self.root = root
        self.files = sorted(_walk(root))

    def with_suffix(self, *suffixes: str) -> list[PurePosixPath]:
        """Those whose name ends so, in either case; suffixes as ".json"."""
        return [file for file in self.files if file.suffix.lower() in suffixes]

    @property
    def images(self) -> list[PurePosixPath]:
        """Files with the suffix of a picture: photographs, and masks too."""
        return self.with_suffix(*IMAGE_SUFFIXES)

    def path(self, file: PurePosixPath) -> Path:
        return self.root / file

    def paths(self, files: Iterable[PurePosixPath]) -> list[Path]:
        return [self.root / file for file in files]


def _walk(root: Path) -> Iterator[PurePosixPath]:
    seen = set()  # a link may lead back to a folder above it
    for folder, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".") and name not in PASSED_OVER]
        relative = PurePosixPath(Path(folder).relative_to(root).as_posix())
        yield from (relative / name for name in files if not name.startswith("."))
