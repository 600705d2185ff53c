# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Where the photographs lie that a file of annotations names, and what they are to be called."""

import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath, PureWindowsPath

from modeling_denseclip.configuration_denseclip import shorten

from .sources import Listing


def join(folder: PurePosixPath, path: str) -> PurePosixPath | None:
    """`folder` / `path` with ".." resolved, as seen from the root of the data set; None for a place outside of it."""
    place = posixpath.normpath(posixpath.join(folder.as_posix(), path))
    return None if place.startswith(("..", "/")) else PurePosixPath(place)


def with_slashes(path: object) -> tuple[str, bool]:
    """
    A path of any system with "/" between its parts, and whether it is absolute. Windows has drives and "\\".

    Raises:
        ValueError: for what is no text.
    """
    if not isinstance(path, str):
        raise ValueError(f"what it calls its picture is a {type(path).__name__}, not the name of a file")
    windows = PureWindowsPath(path)
    is_absolute = path.startswith(("/", "\\")) or bool(windows.drive)
    parts = windows.parts[1:] if windows.anchor else windows.parts
    return "/".join(parts), is_absolute


class Photographs:
    """
    The pictures of a data set, found by what files of annotations call them.

    Args:
        listing (`Listing`): the data set. Nothing outside of it is ever found.

    Attributes:
        images (`list[PurePosixPath]`): all its pictures, as seen from the root, sorted.
        folders (`list[PurePosixPath]`): the folders that hold any, and those above them.
        claimed (`set[PurePosixPath]`): those that a file of annotations calls its own, as far as they were found.
    """

    def __init__(self, listing: Listing):
        self.images = listing.images
        self.folders = sorted({folder for image in self.images for folder in image.parents})
        self.claimed: set[PurePosixPath] = set()
        # In lower case: Windows does not tell a.JPG from a.jpg.
        self._by_path, self._by_name, self._by_stem = defaultdict(list), defaultdict(list), defaultdict(list)
        for image in self.images:
            self._by_path[image.as_posix().lower()].append(image)
            self._by_name[image.name.lower()].append(image)
            self._by_stem[image.parent / image.stem.lower()].append(image)

    @property
    def unclaimed(self) -> list[PurePosixPath]:
        """Those that no file of annotations names."""
        return [image for image in self.images if image not in self.claimed]

    def has_name(self, name: str) -> bool:
        """Whether any picture is called so, in whatever folder and case."""
        return name.lower() in self._by_name

    def at(self, folder: PurePosixPath, path: str) -> PurePosixPath | None:
        """
        The picture at a place, which may hold ".."; where there is none, the one whose path differs in case alone.

        Raises:
            ValueError: if several differ in case alone.
        """
        return _only(self._in_folders(path, [[folder]]), path)

    def with_stem(self, place: PurePosixPath) -> PurePosixPath | None:
        """
        The picture that is called so but for its suffix.

        Raises:
            ValueError: if there are several.
        """
        return _only(self._by_stem.get(place.parent / place.name.lower(), []), f"{place}.*")

    def find(self, named: object, folders: Sequence[Collection[PurePosixPath]]) -> PurePosixPath:
        """
        The picture that a file calls so, which is claimed.

        It is looked for in the folders, and then anywhere: the only one whose path ends in all parts of the name, or
        in as many of them as any picture's does, down to the last. Case counts only where it tells two apart. Of a
        path of another machine, absolute, the last parts are looked for in the folders too.

        Args:
            named (`object`): the name, with "/" or "\\" between its parts.
            folders (`Sequence[Collection[PurePosixPath]]`): where to look first; those of one collection count the
                same, and only one of them may have it.

        Raises:
            ValueError: for what is no name, no such picture, or several. It says which.
        """
        path, is_absolute = with_slashes(named)
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        if not parts:
            raise ValueError(f"it calls its picture {shorten(repr(named))}, which is no name of a file")
        for start in range(len(parts)):
            ending, found = "/".join(parts[start:]), set()
            if start == 0 or is_absolute:
                found = self._in_folders(ending if is_absolute else path, folders)
            photograph = _only(found or self._ending_in(parts[start:]), ending)
            if photograph is not None:
                self.claimed.add(photograph)
                return photograph
        raise ValueError(f"its photograph {shorten(repr(path))} is not there")

    def _in_folders(self, path: str, folders: Sequence[Collection[PurePosixPath]]) -> set[PurePosixPath]:
        """The pictures at this path in the first of the folders that has any: as it is written, else in any case."""
        groups = [{place for folder in group if (place := join(folder, path)) is not None} for group in folders]
        found = [
            {image for place in group for image in self._by_path.get(place.as_posix().lower(), ())} for group in groups
        ]
        exact = [images & group for images, group in zip(found, groups, strict=True)]
        return next(filter(None, [*exact, *found]), set())

    def _ending_in(self, parts: Sequence[str]) -> list[PurePosixPath]:
        wanted, count = [part.lower() for part in parts], len(parts)
        found = [
            image
            for image in self._by_name.get(wanted[-1], ())
            if [part.lower() for part in image.parts[-count:]] == wanted
        ]
        return [image for image in found if list(image.parts[-count:]) == parts] or found


def _only(found: Collection[PurePosixPath], called: str) -> PurePosixPath | None:
    if len(found) > 1:
        raise ValueError(
            f"several pictures are called {shorten(repr(called))}: {', '.join(map(str, sorted(found)[:3]))}"
        )
    return next(iter(found), None)


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
