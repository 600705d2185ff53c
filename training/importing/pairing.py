# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""From what a file of shapes says of its pictures to items: finding their photographs, one annotation for each."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from modeling_denseclip.configuration_denseclip import shorten

from .painting import DrawShapes, Overlaps, Shape
from .places import Photographs, name_photographs
from .sources import Item, Listing, Source


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


def read_size(height: object, width: object) -> tuple[int, int] | None:
    """
    Height and width of a picture, as a file tells them; none where it does not.

    Raises:
        ValueError: for what are no numbers of pixels.
    """
    if height is None and width is None:
        return None
    if not all(isinstance(length, int) and not isinstance(length, bool) and length > 0 for length in (height, width)):
        raise ValueError(f"its height and width are {shorten(f'{height!r} and {width!r}')}, not two numbers of pixels")
    return height, width


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
                f"{rival.where}: of {rival.name!r} only {photograph} was found, as of other names" for rival in rivals
            ]
            continue
        chosen.append(([rival for rival in rivals if rival.shapes] or rivals)[-1])
        num_others += len(rivals) - 1
    return chosen, num_others


def make_items(root: Path, entries: Sequence[Entry], keys: dict[str, int], overlaps: Overlaps) -> list[Item]:
    """Items of entries, whose shapes get the keys of their labels."""
    names = name_photographs([entry.photograph for entry in entries], [entry.split for entry in entries])
    return [
        Item(
            image=root / entry.photograph,
            annotations=(entry.file,),
            draw=DrawShapes(
                entry.where, tuple(Shape(keys[shape.label], shape.render) for shape in entry.shapes), overlaps
            ),
            size=entry.size,
            split=entry.split,
            name=name,
        )
        for entry, name in zip(entries, names, strict=True)
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
        overlaps (`str`, *optional*, defaults to `"later"`): see [`draw_shapes`].
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
    left_out = left_out + [f"{file}: nothing annotates it" for file in photographs.unclaimed]
    chosen.sort(key=lambda entry: entry.photograph)
    keys = {name: key for key, name in enumerate(names)} | (fixed_keys or {})
    items = make_items(listing.root, chosen, keys, overlaps or "later")
    return Source(form, items, dict(enumerate(names)), notes=notes, left_out=left_out)


def note_without_area(counts: Counter) -> list[str]:
    """What a user should know of shapes that were not drawn, of which there are so many of each kind."""
    told = ", ".join(f"{count} x {kind}" for kind, count in sorted(counts.items()))
    return [f"Not drawn, as they cover no area: {told}."] if told else []
