# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Where the photographs lie that a file of annotations names, and which part of a data set they belong to."""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath, PureWindowsPath

from .sources import Listing


# What folders and files are called that hold one part of a data set, and which part that is.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def find_split(name: str) -> str | None:
    """The split that the name of a file or folder tells: "train" for "instances_train2017"; None for none or two."""
    words = (word.rstrip("0123456789").lower() for word in re.split(r"[\W_]+", name))
    found = {word for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def find_split_of_folder(folder: PurePosixPath) -> str | None:
    """The split that a folder belongs to: as its name says, or that of the nearest folder above it that says one."""
    return next((split for name in reversed(folder.parts) if (split := find_split(name)) is not None), None)


def join(folder: PurePosixPath, path: str) -> PurePosixPath | None:
    """`folder` / `path` with ".." resolved, as seen from the root of the data set; None for a place outside of it."""
    place = posixpath.normpath(posixpath.join(folder.as_posix(), path))
    return None if place.startswith(("..", "/")) else PurePosixPath(place)


def with_slashes(path: str) -> tuple[str, bool]:
    """A path of any system with "/" between its parts, and whether it is absolute. Windows has drives and "\\"."""
    windows = PureWindowsPath(path)
    is_absolute = path.startswith(("/", "\\")) or bool(windows.drive)
    parts = windows.parts[1:] if windows.anchor else windows.parts
    return "/".join(parts), is_absolute


class Photographs:
    """
    Finds the photographs that annotations name.

    Args:
        listing (`Listing`): the data set. Nothing outside of it is ever found.

    Attributes:
        images (`frozenset[PurePosixPath]`): all its pictures, as seen from the root.
        folders (`list[PurePosixPath]`): the folders that hold any, and those above them.
    """

    def __init__(self, listing: Listing):
        self.images = frozenset(listing.images)
        self.folders = sorted({folder for image in listing.images for folder in image.parents})
        self.by_name = defaultdict(list)  # in lower case: Windows does not tell a.JPG from a.jpg
        for image in listing.images:
            self.by_name[image.name.lower()].append(image)

    def find(self, named: str, folders: Sequence[Sequence[PurePosixPath]]) -> tuple[PurePosixPath, bool]:
        """
        The photograph of a name such as "train2017/a.jpg".

        It is looked for in the folders, and then anywhere: the only file whose path ends in all parts of the name, or
        in as many of them as any file's does, down to the last. Of a path of another machine, absolute, the last parts
        are looked for in the folders too.

        Args:
            named (`str`): the name, with "/" or "\\" between its parts.
            folders (`Sequence[Sequence[PurePosixPath]]`): where to look first; those of one sequence count the same,
                and only one of them may have it.

        Returns:
            `tuple`: the photograph, and whether all parts of the name say so (of an absolute path: the last).

        Raises:
            LookupError: for no such photograph, or several. It says which.
        """
        path, is_absolute = with_slashes(named)
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        if not parts:
            raise LookupError("it has no name")
        for start in range(len(parts)):
            ending = path if start == 0 and not is_absolute else "/".join(parts[start:])
            if start == 0 or is_absolute:
                for group in folders:
                    places = {join(folder, ending) for folder in group} & self.images
                    if places:
                        return _only(places), True
            places = self._ending_in(parts[start:])
            if places:
                return _only(places), start == 0 or is_absolute
        raise LookupError("there is no such photograph")

    def _ending_in(self, parts: Sequence[str]) -> list[PurePosixPath]:
        wanted = [part.lower() for part in parts]
        count = len(parts)
        places = [
            image
            for image in self.by_name.get(wanted[-1], ())
            if [part.lower() for part in image.parts[-count:]] == wanted
        ]
        exact = [image for image in places if list(image.parts[-count:]) == list(parts)]
        return exact or places


def _only(places: Collection[PurePosixPath]) -> PurePosixPath:
    if len(places) > 1:
        raise LookupError(f"several files may be meant, such as {' and '.join(map(str, sorted(places)[:2]))}")
    return next(iter(places))


def name_photographs(files: Sequence[PurePosixPath], splits: Sequence[str | None]) -> list[str]:
    """
    What photographs are to be called, see [`Item`]: their path below the folder that holds all of their split.

    Where only suffixes tell two apart, a.jpg and a.png, they become a_jpg and a_png.
    """
    folders = defaultdict(set)
    for file, split in zip(files, splits, strict=True):
        folders[split].add(file.parent.as_posix())
    common = {split: posixpath.commonpath(of_split) for split, of_split in folders.items()}
    below = [file.relative_to(common[split]) for file, split in zip(files, splits, strict=True)]
    names = [file.with_suffix("").as_posix() for file in below]
    counts = Counter(zip(splits, names, strict=True))
    return [
        name if counts[split, name] == 1 else f"{name}_{file.suffix[1:]}"
        for file, split, name in zip(below, splits, names, strict=True)
    ]
