# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Masks that lie in folders beside photographs, as a source: one per photograph, per class or per object."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import combinations
from pathlib import Path, PurePosixPath

import numpy as np

from modeling_denseclip.tools.files.photographs import IMAGE_SUFFIXES

from .classes import Question
from .mask_files import MATRIX_SUFFIXES, ONLY_MASK_SUFFIXES, MaskValues, read_values
from .mask_values import decide_reading, draw_mask, draw_parts, pack_colours, scan_masks
from .painting import Overlaps
from .sources import UNCOVERED, Item, Listing, Source
from .splits import split_of_folders
from .trees import (
    LOOKED_AT_SIDE,
    NUM_LOOKED_AT,
    OBJECT_WORDS,
    Match,
    Pairing,
    Series,
    find_series,
    mask_votes,
    name_votes,
    pair,
)
from .words import COLOUR_WORDS, SHOWN_WORDS, SPLIT_WORDS, is_kind_word, words


TEXT_SUFFIXES = (".txt", ".csv")
# Of texts in a folder that are masks, nearly all are called like a photograph.
LEAST_SHARE_OF_MATRICES = 0.9
LEAST_SHARE_OF_KIND = 0.1  # matrices for fewer of the photographs that have masks are something else
NUM_NAMED = 3  # files in a sentence
# Share of the smaller of two masks that the other covers too. Masks of the same thing by two people have most of it in
# common; classes have little, or all where one is a part of the other.
RIVALS = (0.5, 0.95)


@dataclass
class Kind:
    """Masks of one kind, with their photographs: for some data sets in several series, such as one for each split."""

    series: list[Series]
    pairing: Pairing

    @property
    def patterns(self) -> list[str]:
        """Patterns of its files, as `--masks` takes them."""
        return list(dict.fromkeys(pattern for series in self.series for pattern in series.patterns))

    @property
    def name(self) -> str:
        return ", ".join(self.patterns)


def find_masks(
    listing: Listing,
    images: Sequence[str] = (),
    masks: Sequence[str] = (),
    colours: dict[int, str] | None = None,
    values: Sequence[int] = (),
    mat_key: str | None = None,
    num_workers: int = 0,
    overlaps: Overlaps | None = None,
) -> Source | None:
    """
    Find photographs and masks below a folder, and pair them by their names.

    Args:
        images, masks (`Sequence[str]`, *optional*): patterns of paths, such as "*/labels/*.png", in place of what
            names and pictures themselves tell of which are which; see [`find_matching`]. Those that begin with "!" say
            what is not meant.
        colours (`dict[int, str]`, *optional*): names of classes by 0xRRGGBB, where a table of colours is known.
        values (`Sequence[int]`, *optional*): numbers of classes that the user names. Where compression or a resize
            has changed numbers, each pixel takes the nearest of these.
        mat_key (`str`, *optional*): the array of a .mat file that is the mask, where it holds several.
        num_workers (`int`, *optional*): processes that read masks.
        overlaps (`str`, *optional*): which of several masks of a photograph is seen where they overlap, see
            [`draw_shapes`]; by default the smaller one.

    Raises:
        [`Question`]: where it cannot be known whether several masks of a photograph are of classes.
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
    if chosen.pairing.photographs_left and chosen.pairing.masks_left:
        notes.append(
            f"Photographs such as {chosen.pairing.photographs_left[0]} and masks such as"
            f" {chosen.pairing.masks_left[0]} have no partner. If their numbers begin differently, all pairs are"
            " shifted: look at the contact sheet."
        )
    if any(len(matches) > 1 for matches in chosen.pairing.masks.values()):
        return _source_of_parts(listing, chosen, overlaps, notes, left_out)
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
    return f"masks {', '.join(pattern for series, _ in found for pattern in series.patterns)}" if found else None


def say_what_lacks(listing: Listing) -> str:
    """Why no photograph has a mask: there is none of either, or they are not called alike."""
    photographs, masks = _sort_out(listing, (), ())
    masks = [series for series in masks if series.suffix.lower() not in TEXT_SUFFIXES]
    if not photographs and masks:
        return (
            f"{_say_files(masks)} look like masks, and nothing like their photographs: put these into the folder as"
            " well, under the same names, or name them by --images."
        )
    if not masks:
        return "Masks that do not look like some are named by --masks, with a pattern such as '*/labels/*.png'."
    return (
        f"{_say_files(photographs)} look like photographs and {_say_files(masks)} like masks, and their names do not"
        " agree: call each mask as its photograph, or say by --images and --masks which are which, each with a pattern"
        " such as '*/labels/*.png'."
    )


def _say_files(series: Sequence[Series]) -> str:
    files = [file for one in series for file in one.files]
    return f"{len(files):,} {'files' if len(files) > 1 else 'file'} such as {files[0]}"


def item_name(photograph: PurePosixPath) -> str:
    """Its path without what every path of a data set has: folders of splits and of photographs, and the suffix."""
    parts = [part for part in photograph.parts[:-1] if not _is_common(part)]
    return "/".join([*parts, photograph.name.removesuffix(photograph.suffix)])


def _is_common(folder: str) -> bool:
    return all(is_kind_word(word) or word.lower() in SPLIT_WORDS for word in words(folder))


def _name_photographs(photographs: Sequence[Series], pairing: Pairing) -> str:
    paired = [series for series in photographs if not pairing.masks.keys().isdisjoint(series.files)]
    return ", ".join(dict.fromkeys(pattern for series in paired for pattern in series.patterns))


# ----------------------------------------------------------------------------------------------------- which are which


def _sort_out(listing: Listing, images: Sequence[str], masks: Sequence[str]) -> tuple[list[Series], list[Series]]:
    """The series of photographs, and those that may be of masks."""

    def matching(patterns: Sequence[str], files: list[PurePosixPath], argument: str) -> list[PurePosixPath]:
        wanted, others = [p for p in patterns if not p.startswith("!")], [p[1:] for p in patterns if p.startswith("!")]
        taken, left_out = find_matching(wanted, files), find_matching(others, files)
        found = [file for file in files if file in taken and file not in left_out]
        if not found:
            example = f", such as {files[0]}" if files else ""
            raise ValueError(
                f"{argument} {' '.join(patterns)} matches none of the {len(files):,} files{example}. Patterns are of"
                " paths as seen from the folder; ** stands for any folders."
            )
        return found

    pictures, matrices = listing.images, listing.with_suffix(*ONLY_MASK_SUFFIXES)
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
    votes |= _votes_of_names([series for series in rest if series.suffix.lower() in IMAGE_SUFFIXES], votes)
    photographs = [series for series in rest if votes[id(series)] <= 0]
    if of_masks is not None:
        return photographs or [series for series in rest if series.suffix.lower() in IMAGE_SUFFIXES], find_series(
            of_masks
        )
    if of_images is not None:
        return find_series(of_images), rest
    return photographs, [series for series in rest if votes[id(series)] > 0]


def _votes_of_names(pictures: Sequence[Series], votes: dict[int, int]) -> dict[int, int]:
    """The votes of names alone, if all pictures look alike, drawings or noise, and names tell two kinds; else none."""
    names = {id(series): name_votes(series) for series in pictures}
    looks_like_masks = {votes[id(series)] > 0 for series in pictures}
    if looks_like_masks == {True} and {vote > 0 for vote in names.values()} == {True, False}:
        return names
    return names if looks_like_masks == {False} and min(names.values()) < 0 < max(names.values()) else {}


def find_matching(patterns: Sequence[str], files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
    """
    Files whose path, as seen from the root, is as one of the patterns: folder by folder, where "**" stands for any
    number of folders. Where a pattern matches no file so, "*" stands for "/" too, as in "*labels*".
    """
    found: set[PurePosixPath] = set()
    for pattern in patterns:
        exact = {file for file in files if _fits(file.parts, pattern.split("/"))}
        found |= exact or {file for file in files if fnmatchcase(file.as_posix(), pattern)}
    return found


def _fits(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns or not parts:
        return not parts and all(pattern == "**" for pattern in patterns)
    if patterns[0] == "**":
        return _fits(parts, patterns[1:]) or _fits(parts[1:], patterns)
    return fnmatchcase(parts[0], patterns[0]) and _fits(parts[1:], patterns[1:])


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
    same photographs, those of objects give way to those of classes, copies and drawings in colours to what they were
    made of, and matrices of a few photographs to masks of all.

    Raises:
        `ValueError`: where that leaves several, none of which is one class.
    """
    others = [kind for kind in kinds if OBJECT_WORDS.isdisjoint(kind.series[0].kind_words)]
    covered = set().union(*(other.pairing.masks for other in others))
    for kind in [kind for kind in kinds if kind not in others and kind.pairing.masks.keys() <= covered]:
        notes.append(f"Masks {kind.name} tell objects from each other, and others beside them are taken.")
        kinds.remove(kind)
    for kind in sorted(kinds, key=lambda kind: (len(kind.pairing.masks), not _is_of_matrices(kind))):
        for other in kinds:
            if kind is not other and kind.pairing.masks.keys() <= other.pairing.masks.keys():
                is_rare = len(kind.pairing.masks) < LEAST_SHARE_OF_KIND * len(other.pairing.masks)
                if is_rare and _is_of_matrices(kind):  # pictures may be of a rare class
                    said = f"are of {len(kind.pairing.masks):,} of {len(other.pairing.masks):,} photographs alone"
                elif _is_drawing_of(kind, other, listing):
                    said = f"say the same as {other.name}"
                else:
                    continue
                notes.append(f"Masks {kind.name} {said}, and are left out.")
                kinds.remove(kind)
                break
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
    shown = " or ".join(f"--masks {_say_patterns(kind, merged)}" for kind in merged)
    photograph = next(iter(merged[0].pairing.masks))
    raise ValueError(
        f"Photographs such as {photograph} have {len(merged)} kinds of masks: say which are to be taken, by {shown}."
    )


def _is_of_matrices(kind: Kind) -> bool:
    return kind.series[0].suffix.lower() in MATRIX_SUFFIXES


def _say_patterns(kind: Kind, kinds: Sequence[Kind]) -> str:
    """Patterns of a kind as they are typed, and after a "!" those of others that they would match as well."""
    files_of = {id(one): [file for series in one.series for file in series.files] for one in kinds}
    every = [file for one in kinds for file in files_of[id(one)]]
    too_many = find_matching(kind.patterns, every).difference(files_of[id(kind)])
    others = [one for one in kinds if one is not kind and not too_many.isdisjoint(files_of[id(one)])]
    excluded = [pattern for one in others for pattern in one.patterns if pattern not in kind.patterns]
    return " ".join(map(shlex.quote, [*kind.patterns, *(f"!{pattern}" for pattern in excluded)]))


def _is_drawing_of(kind: Kind, other: Kind, listing: Listing) -> bool:
    """
    Whether masks say nothing that others of the same photographs do not: numbers that are equal, or colours of which
    each is one number of the others and the reverse (or, if they are called colours, the reverse alone, as several
    numbers may have the colour of what is unlabelled).
    """
    is_called_colour = not COLOUR_WORDS.isdisjoint(kind.series[0].kind_words)
    drawn: dict[int, set[int]] = defaultdict(set)
    meant: dict[int, set[int]] = defaultdict(set)
    photographs = sorted(kind.pairing.masks)
    for photograph in photographs[:: max(1, len(photographs) // NUM_LOOKED_AT)]:
        if len(kind.pairing.masks[photograph]) > 1 or len(other.pairing.masks[photograph]) > 1:
            return False
        try:
            own = read_values(listing.path(kind.pairing.masks[photograph][0].mask))
            numbers = read_values(listing.path(other.pairing.masks[photograph][0].mask))
        except (MemoryError, OSError, ValueError):
            return False
        if own.size != numbers.size or numbers.values.ndim == 3:
            return False
        if own.values.ndim == 2:
            if not np.array_equal(own.values, numbers.values):
                return False
            continue
        pairs = np.stack([pack_colours(own.values), numbers.values], axis=-1).reshape(-1, 2)
        for colour, number in np.unique(pairs, axis=0).tolist():
            drawn[number].add(colour)
            meant[colour].add(number)
    tables = [drawn] if is_called_colour else [drawn, meant]
    return all(len(found) == 1 for table in tables for found in table.values())


def _class_of_end(kind: Kind) -> str:
    """The class that the names of all masks of a kind end with, such as "road" of `007_road.png`."""
    ends = {" ".join(word for word in words(series.end) if not is_kind_word(word)) for series in kind.series}
    return ends.pop() if len(ends) == 1 else ""


def _is_binary(kind: Kind, listing: Listing) -> bool:
    """Whether each of a few masks tells one thing from the rest, but for what compression made of it."""
    files = [match.mask for matches in kind.pairing.masks.values() for match in matches]
    return all(
        _marks_one_thing(read_values(listing.path(file))) for file in files[:: max(1, len(files) // NUM_LOOKED_AT)]
    )


def _marks_one_thing(mask: MaskValues) -> bool:
    """Whether all that is not 0, or not transparent, is of one value."""
    values = mask.values.astype(np.int32) // 128 if mask.is_lossy else mask.values
    keys = values if values.ndim == 2 else pack_colours(values)
    if mask.covered is not None:
        keys = keys[mask.covered]
    return np.unique(keys[(keys != 0) & (keys != UNCOVERED)]).size <= 1


def _join_classes(kinds: list[Kind]) -> Kind:
    masks: dict[PurePosixPath, list[Match]] = defaultdict(list)
    for kind in kinds:
        name = _class_of_end(kind)
        for photograph, matches in kind.pairing.masks.items():
            masks[photograph] += [Match(match.mask, (name, *match.extra)) for match in matches]
    left = set.intersection(*(set(kind.pairing.photographs_left) for kind in kinds))
    masks_left = [file for kind in kinds for file in kind.pairing.masks_left]
    return Kind([series for kind in kinds for series in kind.series], Pairing(dict(masks), sorted(left), masks_left))


def _source_of_parts(
    listing: Listing, kind: Kind, overlaps: Overlaps | None, notes: list[str], left_out: list[str]
) -> Source:
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
    if overlaps is None:
        _refuse_rivals(listing, kind, classes)
    items = [
        Item(
            listing.path(photograph),
            tuple(listing.path(match.mask) for match in matches),
            partial(
                draw_parts,
                parts=tuple((keys[classes[match.mask]], listing.path(match.mask)) for match in matches),
                overlaps=overlaps or "smaller",
            ),
            split=split_of_folders(photograph) or split_of_folders(matches[0].mask),
            name=item_name(photograph),
        )
        for photograph, matches in sorted(kind.pairing.masks.items())
    ]
    for_each = "object" if len(keys) == 1 else "class"
    seen = "one that comes later by its name" if overlaps == "later" else "smaller one"
    notes.append(f"Where masks of one photograph overlap, the {seen} is seen.")
    names = {} if set(keys) == {""} else {key: name for name, key in keys.items()}
    return Source(f"one mask for each {for_each}, {kind.name}", items, names, notes=notes, left_out=left_out)


def _refuse_rivals(listing: Listing, kind: Kind, classes: dict[PurePosixPath, str]) -> None:
    """
    Find out whether masks are of classes at all, or were drawn of the same thing by several people.

    Raises:
        [`Question`]: if those of two names cover much the same pixels. Where one lies in the other, as a pupil in an
            eye, they are classes.
    """
    common: Counter[tuple[str, str]] = Counter()
    smaller: Counter[tuple[str, str]] = Counter()
    examples: dict[str, PurePosixPath] = {}
    photographs = [photograph for photograph, matches in sorted(kind.pairing.masks.items()) if len(matches) > 1]
    for photograph in photographs[:: max(1, len(photographs) // NUM_LOOKED_AT)]:
        covered: dict[str, np.ndarray] = {}
        for mask, _ in kind.pairing.masks[photograph]:
            path, name = listing.path(mask), classes[mask]
            examples.setdefault(name, mask)
            pixels = draw_parts(read_values(path).size, ((0, path),)).keys != UNCOVERED
            step = max(1, max(pixels.shape) // LOOKED_AT_SIDE)
            pixels = pixels[::step, ::step]
            if name in covered and covered[name].shape != pixels.shape:
                continue  # which is said where the masks are read for good
            covered[name] = covered[name] | pixels if name in covered else pixels
        for first, second in combinations(sorted(covered), 2):
            if covered[first].shape == covered[second].shape:
                common[first, second] += int((covered[first] & covered[second]).sum())
                smaller[first, second] += int(min(covered[first].sum(), covered[second].sum()))
    for (first, second), count in common.items():
        if RIVALS[0] < count / max(1, smaller[first, second]) < RIVALS[1]:
            raise Question(
                f"Masks of '{first}' and of '{second}', such as {examples[first]} and {examples[second]}, cover much"
                f" the same pixels, {count / smaller[first, second]:.0%} of the smaller ones. If several people drew"
                " the same, say by --masks PATTERN whose are to be taken; if these are two classes, say by --overlaps"
                " smaller or --overlaps later which is seen."
            )


def _classes_of_parts(pairing: Pairing) -> dict[PurePosixPath, str]:
    """The class of each mask: words of its path beyond the photograph's, if several photographs have such masks."""
    own = {
        match.mask: [word for word in match.extra if not any(map(str.isdigit, word))]
        for matches in pairing.masks.values()
        for match in matches
    }
    shared = set.intersection(*map(set, own.values()))  # of the data set, such as its name in each folder
    if any(set(found) <= shared for found in own.values()):
        shared = set()
    words_of = {mask: " ".join(word for word in found if word not in shared) for mask, found in own.items()}
    holders: dict[str, set[PurePosixPath]] = defaultdict(set)
    for photograph, matches in pairing.masks.items():
        for match in matches:
            holders[words_of[match.mask]].add(photograph)
    several = len(pairing.masks) > 1
    if any(len(found) < 2 for found in holders.values()) and several:  # each has names of its own: no classes
        return dict.fromkeys(words_of, "")
    return words_of
