# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Masks that lie in folders beside photographs, as a source: one per photograph, per class or per object."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from modeling_denseclip.tools.files.photographs import IMAGE_SUFFIXES

from .mask_files import MaskValues, read_values
from .mask_values import decide_reading, draw_mask, draw_parts, scan_masks
from .sources import UNCOVERED, Item, Listing, Source
from .splits import split_of_folders
from .trees import (
    MATRIX_SUFFIXES,
    NUM_LOOKED_AT,
    OBJECT_WORDS,
    Match,
    Pairing,
    Series,
    find_series,
    mask_votes,
    pair,
)
from .words import COLOUR_WORDS, SHOWN_WORDS, SPLIT_WORDS, is_kind_word, words


TEXT_SUFFIXES = (".txt", ".csv")
# Of texts in a folder that are masks, nearly all are called like a photograph.
LEAST_SHARE_OF_MATRICES = 0.9
NUM_NAMED = 3  # files in a sentence


@dataclass
class Kind:
    """Masks of one kind, with their photographs: for some data sets in several series, such as one for each split."""

    series: list[Series]
    pairing: Pairing

    @property
    def name(self) -> str:
        return ", ".join(series.name for series in self.series)


def find_masks(
    listing: Listing,
    images: Sequence[str] = (),
    masks: Sequence[str] = (),
    colours: dict[int, str] | None = None,
    values: Sequence[int] = (),
    mat_key: str | None = None,
    num_workers: int = 0,
) -> Source | None:
    """
    Find photographs and masks below a folder, and pair them by their names.

    Args:
        images, masks (`Sequence[str]`, *optional*): patterns of paths, such as "*/labels/*.png", in place of what
            names and pictures themselves tell of which are which. "*" stands for "/" too.
        colours (`dict[int, str]`, *optional*): names of classes by 0xRRGGBB, where a table of colours is known.
        values (`Sequence[int]`, *optional*): numbers of classes that the user names. Where compression or a resize
            has changed numbers, each pixel takes the nearest of these.
        mat_key (`str`, *optional*): the array of a .mat file that is the mask, where it holds several.
        num_workers (`int`, *optional*): processes that read masks.

    Raises:
        `ValueError`: where there are masks of several kinds for the same photographs, or none of what patterns name.
    """
    photographs, mask_series = _sort_out(listing, images, masks)
    if not photographs or not mask_series:
        return None
    kinds = [Kind([series], pairing) for series, pairing in _pair_all(photographs, mask_series, listing.root)]
    if not kinds:
        return None
    notes: list[str] = []
    chosen = _choose(kinds, listing, notes)
    left_out = [f"{file}: a photograph without a mask" for file in chosen.pairing.photographs_left]
    left_out += [f"{file}: a mask without a photograph" for file in chosen.pairing.masks_left]
    if any(len(matches) > 1 for matches in chosen.pairing.masks.values()):
        return _source_of_parts(listing, chosen, notes, left_out)
    masks_of = {photograph: match.mask for photograph, (match,) in chosen.pairing.masks.items()}
    scan = scan_masks(listing.paths(masks_of.values()), num_workers, mat_key)
    if scan.num_files == 0:
        raise ValueError(next(iter(scan.broken.values())))
    try:
        reading = decide_reading(scan, colours, values if scan.num_lossy else (), mat_key)
    except ValueError:
        if not values:
            raise
        reading = decide_reading(scan, colours, values, mat_key)
    items = [
        Item(
            listing.path(photograph),
            (listing.path(mask),),
            partial(draw_mask, path=listing.path(mask), reading=reading),
            split=split_of_folders(photograph) or split_of_folders(mask),
            name=item_name(photograph),
        )
        for photograph, mask in sorted(masks_of.items())
    ]
    return Source(
        f"masks {chosen.name} of photographs {_name_photographs(photographs, chosen.pairing)}",
        items,
        names=dict(sorted(scan.names.items())),
        unlabelled={UNCOVERED},
        keys_are_colours=reading.are_colours,
        notes=[*notes, *reading.notes],
        left_out=left_out,
    )


def recognise_masks(listing: Listing) -> str | None:
    """What [`find_masks`] would find, in words, before a mask is read for good; `None` if there are no pairs."""
    photographs, mask_series = _sort_out(listing, (), ())
    found = _pair_all(photographs, mask_series, listing.root) if photographs else []
    return f"masks {', '.join(series.name for series, _ in found)}" if found else None


def item_name(photograph: PurePosixPath) -> str:
    """Its path without what every path of a data set has: folders of splits and of photographs, and the suffix."""
    parts = [part for part in photograph.parts[:-1] if not _is_common(part)]
    return "/".join([*parts, photograph.name.removesuffix(photograph.suffix)])


def _is_common(folder: str) -> bool:
    return all(is_kind_word(word) or word.lower() in SPLIT_WORDS for word in words(folder))


def _name_photographs(photographs: Sequence[Series], pairing: Pairing) -> str:
    return ", ".join(series.name for series in photographs if not pairing.masks.keys().isdisjoint(series.files))


# ----------------------------------------------------------------------------------------------------- which are which


def _sort_out(listing: Listing, images: Sequence[str], masks: Sequence[str]) -> tuple[list[Series], list[Series]]:
    """The series of photographs, and those that may be of masks."""

    def matching(patterns: Sequence[str], files: list[PurePosixPath], argument: str) -> list[PurePosixPath]:
        found = [file for file in files if any(fnmatchcase(str(file), pattern) for pattern in patterns)]
        if not found:
            example = f", such as {files[0]}" if files else ""
            raise ValueError(
                f"{argument} {' '.join(patterns)} matches none of the {len(files):,} files{example}. Patterns are of"
                " paths as seen from the folder, where * stands for any letters and for / too."
            )
        return found

    pictures, matrices = listing.images, listing.with_suffix(*MATRIX_SUFFIXES)
    of_masks = matching(masks, [*pictures, *matrices], "--masks") if masks else None
    of_images = matching(images, pictures, "--images") if images else None
    if of_masks is not None and of_images is not None:
        return find_series(of_images), find_series(of_masks)
    taken = {*(of_masks or ()), *(of_images or ())}
    rest = [
        series
        for series in find_series(file for file in [*pictures, *matrices] if file not in taken)
        if SHOWN_WORDS.isdisjoint(series.kind_words)
    ]
    votes = {id(series): mask_votes(series, listing.root) for series in rest}
    photographs = [series for series in rest if votes[id(series)] <= 0]
    if of_masks is not None:
        return photographs or [series for series in rest if series.suffix.lower() in IMAGE_SUFFIXES], find_series(
            of_masks
        )
    if of_images is not None:
        return find_series(of_images), rest
    return photographs, [series for series in rest if votes[id(series)] > 0]


def _pair_all(photographs: list[Series], mask_series: list[Series], root: Path) -> list[tuple[Series, Pairing]]:
    found = []
    for series in mask_series:
        pairing = pair(photographs, series)
        if pairing.masks and (series.suffix.lower() not in TEXT_SUFFIXES or _are_matrices(series, pairing, root)):
            found.append((series, pairing))
    return found


def _are_matrices(series: Series, pairing: Pairing, root: Path) -> bool:
    """Whether texts that are called like photographs are masks: most of them are, and the first holds a matrix."""
    if len(pairing.masks_left) > (1 - LEAST_SHARE_OF_MATRICES) * len(series.files):
        return False
    try:
        read_values(root / series.files[0])
    except (OSError, ValueError):
        return False
    return True


# ------------------------------------------------------------------------------------------------------ kinds of masks


def _choose(kinds: list[Kind], listing: Listing, notes: list[str]) -> Kind:
    """
    The masks to take where photographs have several. Series of different photographs belong together; of masks for the
    same photographs, those of objects give way to those of classes, and pictures in colours to ids.

    Raises:
        `ValueError`: where that leaves several, none of which is one class.
    """
    for given_way, said in ((OBJECT_WORDS, "tell objects from each other"), (COLOUR_WORDS, "are in colours")):
        others = [kind for kind in kinds if given_way.isdisjoint(kind.series[0].kind_words)]
        for kind in [kind for kind in kinds if kind not in others]:
            covered = set().union(*(other.pairing.masks for other in others))
            if kind.pairing.masks.keys() <= covered:
                notes.append(f"Masks {kind.name} {said}, and others beside them are taken.")
                kinds.remove(kind)
    merged: list[Kind] = []
    for kind in sorted(kinds, key=lambda kind: -len(kind.pairing.masks)):
        other = next((one for one in merged if one.pairing.masks.keys().isdisjoint(kind.pairing.masks)), None)
        if other is None:
            merged.append(kind)
        else:
            other.series += kind.series
            other.pairing.masks.update(kind.pairing.masks)
            other.pairing.masks_left += kind.pairing.masks_left
            other.pairing.photographs_left = [
                file for file in other.pairing.photographs_left if file not in kind.pairing.masks
            ]
    if len(merged) == 1:
        return merged[0]
    if all(_class_of_end(kind) and _is_binary(kind, listing) for kind in merged):
        return _join_classes(merged)
    shown = " or ".join(f"--masks '{kind.name}'" for kind in merged)
    photograph = next(iter(merged[0].pairing.masks))
    raise ValueError(
        f"Photographs such as {photograph} have {len(merged)} kinds of masks: say which are to be taken, by {shown}."
    )


def _class_of_end(kind: Kind) -> str:
    """The class that the names of all masks of a kind end with, such as "road" of `007_road.png`."""
    ends = {" ".join(word for word in words(series.end) if not is_kind_word(word)) for series in kind.series}
    return ends.pop() if len(ends) == 1 else ""


def _is_binary(kind: Kind, listing: Listing) -> bool:
    """Whether a few masks hold two values at most, but for what compression made of them."""
    files = [match.mask for matches in kind.pairing.masks.values() for match in matches]
    return all(
        _has_two_values(read_values(listing.path(file))) for file in files[:: max(1, len(files) // NUM_LOOKED_AT)]
    )


def _has_two_values(mask: MaskValues) -> bool:
    levels = mask.values if mask.values.ndim == 2 else mask.values.max(axis=-1)
    if mask.is_lossy:
        levels = levels.astype(np.int32) // 128
    return np.unique(levels).size <= 2


def _join_classes(kinds: list[Kind]) -> Kind:
    masks: dict[PurePosixPath, list[Match]] = defaultdict(list)
    for kind in kinds:
        name = _class_of_end(kind)
        for photograph, matches in kind.pairing.masks.items():
            masks[photograph] += [Match(match.mask, (name, *match.extra)) for match in matches]
    left = set.intersection(*(set(kind.pairing.photographs_left) for kind in kinds))
    masks_left = [file for kind in kinds for file in kind.pairing.masks_left]
    return Kind([series for kind in kinds for series in kind.series], Pairing(dict(masks), sorted(left), masks_left))


def _source_of_parts(listing: Listing, kind: Kind, notes: list[str], left_out: list[str]) -> Source:
    """Several masks for each photograph: one per class, one per object, or one per object of each class."""
    if not _is_binary(kind, listing):
        photograph, matches = next(entry for entry in kind.pairing.masks.items() if len(entry[1]) > 1)
        names = ", ".join(str(match.mask) for match in matches[:NUM_NAMED])
        raise ValueError(
            f"The photograph {photograph} has {len(matches):,} masks ({names}), which hold more than one class each:"
            " say by --masks PATTERN which are to be taken."
        )
    classes = _classes_of_parts(kind.pairing)
    keys = {name: key for key, name in enumerate(sorted(set(classes.values())))}
    items = [
        Item(
            listing.path(photograph),
            tuple(listing.path(match.mask) for match in matches),
            partial(
                draw_parts, parts=tuple((keys[classes[match.mask]], listing.path(match.mask)) for match in matches)
            ),
            split=split_of_folders(photograph) or split_of_folders(matches[0].mask),
            name=item_name(photograph),
        )
        for photograph, matches in sorted(kind.pairing.masks.items())
    ]
    for_each = "object" if len(keys) == 1 else "class"
    notes.append("Where masks of one photograph overlap, the one that comes later by its name is seen.")
    names = {} if set(keys) == {""} else {key: name for name, key in keys.items()}
    return Source(f"one mask for each {for_each}, {kind.name}", items, names, notes=notes, left_out=left_out)


def _classes_of_parts(pairing: Pairing) -> dict[PurePosixPath, str]:
    """The class of each mask: words of its path beyond the photograph's, if several photographs have such masks."""
    words_of = {
        match.mask: " ".join(word for word in match.extra if not any(map(str.isdigit, word)))
        for matches in pairing.masks.values()
        for match in matches
    }
    holders: dict[str, set[PurePosixPath]] = defaultdict(set)
    for photograph, matches in pairing.masks.items():
        for match in matches:
            holders[words_of[match.mask]].add(photograph)
    several = len(pairing.masks) > 1
    if any(len(found) < 2 for found in holders.values()) and several:  # each has names of its own: no classes
        return dict.fromkeys(words_of, "")
    return words_of
