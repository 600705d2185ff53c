# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""From what a file of shapes says of its pictures to items: finding their photographs, one annotation for each."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from modeling_denseclip.configuration_denseclip import shorten

from .painting import Overlaps, Shape, draw_shapes
from .sources import Drawing, Item, Listing, Source


SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


class LabelledShape(NamedTuple):
    """A shape under the name of its class; see [`Shape`] for `render`."""

    label: str
    render: Callable[[tuple[int, int]], np.ndarray]


@dataclass
class Entry:
    """
    What a file of annotations says of one picture.

    Attributes:
        file (`Path`): the file.
        where (`str`): what messages call it, such as "annotations.xml, image 3".
        photograph (`PurePosixPath`): as the listing has it.
        name (`str`): what the file calls the picture.
        shapes (`list[LabelledShape]`): from the lowest to the topmost.
        size (`tuple[int, int]`, *optional*): height and width, where the file tells them.
        split (`str`, *optional*): see [`Item`].
    """

    file: Path
    where: str
    photograph: PurePosixPath
    name: str
    shapes: list[LabelledShape] = field(default_factory=list)
    size: tuple[int, int] | None = None
    split: str | None = None


class Photographs:
    """
    The pictures of a listing, found by what files of annotations call them.

    Attributes:
        files (`list[PurePosixPath]`): all of them.
        claimed (`set[PurePosixPath]`): those that a file of annotations calls its own, as far as they were found.
    """

    def __init__(self, listing: Listing):
        self.files = listing.images
        self.claimed: set[PurePosixPath] = set()
        self._by_path = {}
        self._by_name, self._by_stem = defaultdict(list), defaultdict(list)
        for file in self.files:
            self._by_path.setdefault(file.as_posix().lower(), []).append(file)
            self._by_name[file.name.lower()].append(file)
            self._by_stem[file.parent / file.stem.lower()].append(file)

    def at(self, place: PurePosixPath) -> PurePosixPath | None:
        """
        The picture at this place below the root, which may hold ".."; if there is none, the one whose name differs in
        the case of letters alone.

        Raises:
            ValueError: if several differ in the case of letters alone.
        """
        place = _without_dots(place)
        if place is None:
            return None
        found = self._by_path.get(place.as_posix().lower(), [])
        return place if place in found else _only(found, place.as_posix())

    def with_stem(self, place: PurePosixPath) -> PurePosixPath | None:
        """
        The picture that is called so but for its suffix.

        Raises:
            ValueError: if there are several.
        """
        return _only(self._by_stem.get(place.parent / place.name.lower(), []), f"{place}.*")

    def find(self, name: str, folders: Sequence[PurePosixPath]) -> PurePosixPath:
        """
        The picture of this name, see [`read_path`]: in the first of the folders that has it, else the one anywhere
        whose path agrees best with the name, from the last part on; of equals the one in the first of the folders.

        Raises:
            ValueError: if there is none or cannot be told which.
        """
        relative = read_path(name)
        found = next(filter(None, (self.at(folder / relative) for folder in folders)), None)
        if found is None:
            found = self._find_anywhere(relative, folders)
        self.claimed.add(found)
        return found

    def _find_anywhere(self, relative: PurePosixPath, folders: Sequence[PurePosixPath]) -> PurePosixPath:
        candidates = self._by_name.get(relative.name.lower(), [])
        agreeing = [_count_agreeing(candidate, relative) for candidate in candidates]
        best = [candidate for candidate, count in zip(candidates, agreeing, strict=True) if count == max(agreeing)]
        for folder in folders:
            if (found := self.at(folder / relative.name)) in best:
                return found
        if (found := _only(best, relative.name)) is None:
            raise ValueError(f"its photograph {shorten(repr(relative.as_posix()))} is not there")
        return found


def read_path(name: object) -> PurePosixPath:
    """
    What a file calls its picture, which may be a path of any system, as seen from some folder.

    Raises:
        ValueError: for what is no name of a file.
    """
    if not isinstance(name, str):
        raise ValueError(f"what it calls its picture is a {type(name).__name__}, not the name of a file")
    path = PurePosixPath(re.sub(r"^[A-Za-z]:", "", name.replace("\\", "/")))
    if path.name in ("", ".."):
        raise ValueError(f"it calls its picture {shorten(repr(name))}, which is no name of a file")
    return PurePosixPath(*path.parts[1:]) if path.is_absolute() else path


def _without_dots(place: PurePosixPath) -> PurePosixPath | None:
    """The place that a path with ".." means; none for one above the root."""
    parts = []
    for part in place.parts:
        if part == ".." and not parts:
            return None
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return PurePosixPath(*parts)


def _count_agreeing(first: PurePosixPath, second: PurePosixPath) -> int:
    """How many parts two paths have in common, counted from the last."""
    count = 0
    for one, other in zip(reversed(first.parts), reversed(second.parts), strict=False):
        if one.lower() != other.lower():
            break
        count += 1
    return count


def _only(found: Sequence[PurePosixPath], called: str) -> PurePosixPath | None:
    if len(found) > 1:
        raise ValueError(f"several pictures are called '{called}': {', '.join(map(str, found[:3]))}")
    return found[0] if found else None


def find_split(*paths: PurePosixPath) -> str | None:
    """The name of a split that a folder of the paths bears, the innermost of the first that has one."""
    for path in paths:
        for folder in reversed(path.parts[:-1]):
            if folder.lower() in SPLITS:
                return folder.lower()
    return None


def find_split_in_name(file: PurePosixPath) -> str | None:
    """The split that the name of a file of annotations tells, such as "train" of "annotations_train.json"."""
    words = [word for word in re.split(r"[^a-z]+", file.stem.lower()) if word in SPLITS]
    return words[0] if len(set(words)) == 1 else None


def choose_entries(entries: Sequence[Entry], left_out: list[str]) -> tuple[list[Entry], int]:
    """
    One entry for each photograph: of those that call it by the same name the last that has a shape, else the last.
    If entries of several names lead to one photograph, it is known of none of them that it is theirs.

    Args:
        entries (`Sequence[Entry]`): in the order of the files.
        left_out (`list[str]`): is appended to.

    Returns:
        `tuple[list[Entry], int]`: the entries, and how many others there were of the same names.
    """
    by_photograph = defaultdict(list)
    for entry in entries:
        by_photograph[entry.photograph].append(entry)
    chosen, num_others = [], 0
    for photograph, rivals in by_photograph.items():
        if len({rival.name for rival in rivals}) > 1:
            left_out += [
                f"{rival.where}: of '{rival.name}' only {photograph} was found, as of other names" for rival in rivals
            ]
            continue
        chosen.append(([rival for rival in rivals if rival.shapes] or rivals)[-1])
        num_others += len(rivals) - 1
    return chosen, num_others


def paint(size: tuple[int, int], shapes: Sequence[Shape], overlaps: Overlaps, where: str) -> Drawing:
    """
    What [`draw_shapes`] paints.

    Raises:
        ValueError: for a shape that cannot be drawn; it names the file.
    """
    try:
        return draw_shapes(size, shapes, overlaps)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def make_items(root: Path, entries: Iterable[Entry], keys: dict[str, int], overlaps: Overlaps | None) -> list[Item]:
    """Items of entries, whose shapes get the keys of their labels; overlaps are as listed if not told otherwise."""
    return [
        Item(
            image=root / entry.photograph,
            annotations=(entry.file,),
            draw=partial(
                paint,
                shapes=[Shape(keys[shape.label], shape.render) for shape in entry.shapes],
                overlaps=overlaps or "later",
                where=entry.where,
            ),
            size=entry.size,
            split=entry.split,
            name=entry.photograph.with_suffix("").as_posix(),
        )
        for entry in entries
    ]


def make_source(
    form: str,
    listing: Listing,
    entries: Sequence[Entry],
    names: Sequence[str],
    overlaps: Overlaps | None,
    notes: list[str],
    left_out: list[str],
    photographs: Photographs,
    fixed_keys: dict[str, int] | None = None,
) -> Source:
    """
    A source of entries.

    Args:
        names (`Sequence[str]`): of all classes, in the order of their keys, from 0.
        fixed_keys (`dict[str, int]`, *optional*): keys of labels that are no class.

    Raises:
        ValueError: if no entry is left.
    """
    chosen, num_others = choose_entries(entries, left_out)
    if not chosen:
        reasons = "; ".join(left_out[:3]) or "it names no picture"
        raise ValueError(f"{listing.root} holds {form}, but no photograph with an annotation: {reasons}.")
    notes = list(notes)
    if num_others:
        notes.append(f"Pictures annotated more than once: {num_others} earlier annotations were passed over.")
    if num_empty := sum(not entry.shapes for entry in chosen):
        notes.append(f"{num_empty} of {len(chosen)} photographs have no shape that covers an area.")
    unclaimed = [file for file in photographs.files if file not in photographs.claimed]
    left_out = left_out + [f"{file}: nothing annotates it" for file in unclaimed]
    chosen.sort(key=lambda entry: entry.photograph)
    keys = {name: key for key, name in enumerate(names)} | (fixed_keys or {})
    items = make_items(listing.root, chosen, keys, overlaps)
    return Source(form, items, dict(enumerate(names)), notes=notes, left_out=left_out)


def note_without_area(counts: Counter) -> list[str]:
    """What a user should know of shapes that were not drawn, of which there are so many of each kind."""
    told = ", ".join(f"{count} x {kind}" for kind, count in sorted(counts.items()))
    return [f"Not drawn, as they cover no area: {told}."] if told else []
