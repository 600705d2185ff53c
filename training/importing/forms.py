# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Which of the forms that are known a folder has."""

from collections.abc import Callable, Sequence
from pathlib import Path

from .classes import Question
from .coco import find_coco
from .cvat import find_cvat
from .label_studio import find_label_studio
from .labelme import find_labelme
from .masks import find_masks, recognise_masks, say_what_lacks
from .painting import Overlaps
from .sources import Listing, Source
from .yolo import find_yolo


# Files of shapes. A new one is a module with such a function, and an entry here.
SHAPES: dict[str, Callable[..., Source | None]] = {
    "coco": find_coco,
    "cvat": find_cvat,
    "labelme": find_labelme,
    "label_studio": find_label_studio,
    "yolo": find_yolo,
}
MASKS = "masks"
FORMS = (*SHAPES, MASKS)


def find_source(
    listing: Listing,
    form: str | None = None,
    overlaps: Overlaps | None = None,
    images: Sequence[str] = (),
    masks: Sequence[str] = (),
    colours: dict[int, str] | None = None,
    values: Sequence[int] = (),
    mat_key: str | None = None,
    num_workers: int = 0,
) -> Source:
    """
    Read a data set of a form that is found out.

    Args:
        form (`str`, *optional*): one of `FORMS`, where a folder has several.
        overlaps (`str`, *optional*): see [`draw_shapes`]; by default as the form's own tool has it.
        images, masks, colours, values, mat_key, num_workers (*optional*): see [`find_masks`].

    Raises:
        `Question`: for a folder of several forms.
        `ValueError`: for a folder of none, or files of a form that are broken.
    """
    if images or masks:
        form = MASKS
    found: dict[str, Source] = {}
    for name, find in SHAPES.items():
        if form in (None, name) and (source := find(listing, overlaps=overlaps)) is not None:
            found[name] = source
    if form == MASKS or (form is None and not found):
        source = find_masks(listing, images, masks, colours, values, mat_key, num_workers, overlaps)
        if source is not None:
            found[MASKS] = source
    elif form is None and recognise_masks(listing) is not None:
        names = " or ".join(f"--form {name}" for name in (*found, MASKS))
        raise Question(
            f"{listing.root} holds {', '.join(source.form for source in found.values())}, and masks too. Say which are"
            f" to be taken: {names}."
        )
    if len(found) > 1:
        raise Question(
            f"{listing.root} holds annotations of several forms: "
            + "; ".join(f"{source.form}, of {len(source.items):,} photographs" for source in found.values())
            + f". Say which are to be taken: {' or '.join(f'--form {name}' for name in found)}."
        )
    if not found:
        raise ValueError(_say_what_is_there(listing, form))
    return next(iter(found.values()))


def recognise(folder: Path) -> str | None:
    """The form of annotations in a folder, in words such as "COCO polygons"; `None` if it is none that is known."""
    listing = Listing(folder)
    for find in SHAPES.values():
        try:
            source = find(listing)
        except ValueError:
            continue  # broken, which its import says
        if source is not None:
            return source.form
    return recognise_masks(listing)


def _say_what_is_there(listing: Listing, form: str | None) -> str:
    kinds: dict[str, int] = {}
    for file in listing.files:
        kinds[file.suffix.lower()] = kinds.get(file.suffix.lower(), 0) + 1
    there = (
        ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in sorted(kinds.items())) or "no file"
    )
    wanted = "photographs with annotations of a known form" if form is None else f"annotations of the form {form}"
    return (
        f"{listing.root} holds no {wanted}; it holds {there}. Known are {', '.join(FORMS)}."
        f" {_name_unread(listing) or say_what_lacks(listing)}"
    )


def _name_unread(listing: Listing) -> str:
    """What to do about a form that is known by its files and not read."""
    names = {file.name.lower() for file in listing.files}
    if "meta.json" in names and any("ann" in file.parts for file in listing.with_suffix(".json")):
        return "This is a project of Supervisely: export it as COCO, or as masks."
    for file in listing.with_suffix(".csv"):
        with open(listing.path(file), encoding="utf-8-sig", errors="replace") as lines:
            title = lines.readline(1000).lower()
        if "rle" in title or "encodedpixels" in title:
            return (
                f"{file} seems to hold run lengths: draw each as a mask, a PNG of the name and size of its photograph"
                " with the id of the class, and put them in a folder beside."
            )
    return ""
