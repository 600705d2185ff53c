# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Photographs and masks that lie in folders: which are which, and which belong together.

Names are read as words: `leftImg8bit/train/aachen/aachen_000019_leftImg8bit.png` and
`gtFine/train/aachen/aachen_000019_gtFine_labelIds.png` differ only in words that say what kind of picture a file is.
Words of this kind are dropped, known ones and those that all files of a series share; what is left is the key by which
a mask finds its photograph.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from glob import escape
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from modeling_denseclip.tools.files.photographs import open_image

from .mask_files import ONLY_MASK_SUFFIXES
from .words import IMAGE_WORDS, MASK_WORDS, SPLIT_WORDS, is_kind_word, parts_of, words


Key = tuple[str, ...]

# Ends of names that are letters alone, such as CamVid's "_L".
MASK_ENDS = frozenset("LPMS")
# Masks that tell objects of one class from each other, where others beside them tell classes.
OBJECT_WORDS = frozenset(("instance", "instances", "object", "objects"))
MAXIMUM_EXTRA_WORDS = 3  # that the name of a mask has beyond that of its photograph, such as a class and a number
NUM_LOOKED_AT = 6  # files of a series
FEW_VALUES = 64
LOOKED_AT_SIDE = 512


@dataclass
class Series:
    """
    Files that are named alike: of one suffix, with the same end of the name, in folders of the same kind.

    Attributes:
        suffix (`str`): as ".png".
        end (`str`): what all their stems end with, such as "_gtFine_labelIds"; often empty.
        folder_words (`tuple[str, ...]`): words of their folders that say what kind they are, the innermost last.
        files (`list[PurePosixPath]`): the files.
    """

    suffix: str
    end: str
    folder_words: Key
    files: list[PurePosixPath] = field(default_factory=list)

    @property
    def patterns(self) -> list[str]:
        """Patterns of its files, one for each depth, as a report shows them and `--images` and `--masks` take them."""
        by_depth: dict[int, list[PurePosixPath]] = defaultdict(list)
        for file in self.files:
            by_depth[len(file.parts)].append(file)
        found = []
        for _, files in sorted(by_depth.items()):
            columns = zip(*(file.parts[:-1] for file in files), strict=True)
            folders = [escape(same.pop()) if len(same := set(column)) == 1 else "*" for column in columns]
            found.append("/".join([*folders, f"*{escape(self.end)}{self.suffix}"]))
        return found

    @cached_property
    def kind_words(self) -> list[str]:
        """Words that say what kind of picture these are, in lower case: of the folders, then of the names."""
        return [part for word in (*self.folder_words, *words(self.end)) for part in parts_of(word)]

    @cached_property
    def stems(self) -> dict[PurePosixPath, Key]:
        """The words of each name, without those that say its kind."""
        return {file: _stem_words(file, self.end) for file in self.files}

    @cached_property
    def short_stems(self) -> dict[PurePosixPath, Key]:
        """The same without the words that all of them begin or end with, where there are three or more."""
        names = list(self.stems.values())
        if len(names) < 3:
            return self.stems
        least, ends = min(map(len, names)) - 1, []
        for sign in (1, -1):
            count = 0
            while count < least and len({name[::sign][count] for name in names}) == 1:
                count += 1
            ends.append(count)
            least -= count
        return {file: name[ends[0] : len(name) - ends[1]] for file, name in self.stems.items()}


def _stem_words(file: PurePosixPath, end: str) -> Key:
    stem = file.name.removesuffix(file.suffix).removesuffix(end)
    found = [word.casefold() for word in words(stem)]
    # Names without a letter that is text, as of files from other systems, are one word.
    return tuple(word for word in found if not is_kind_word(word)) or tuple(found) or ((stem,) if stem else ())


def folder_words(file: PurePosixPath) -> Key:
    """The words of its folders that say which part of the data set it belongs to: a split, a city, a class."""
    found = [word for part in file.parts[:-1] for word in words(part)]
    return tuple(SPLIT_WORDS.get(word.lower(), word.casefold()) for word in found if not is_kind_word(word))


def find_series(files: Iterable[PurePosixPath]) -> list[Series]:
    """Group files that are named alike."""
    by_folder: dict[tuple, list[PurePosixPath]] = defaultdict(list)
    for file in files:
        kinds = tuple(word for part in file.parts[:-1] for word in words(part) if is_kind_word(word))
        by_folder[kinds, _depth_below_kind(file), file.suffix.lower()].append(file)
    found: dict[tuple, Series] = {}
    for (kinds, depth, suffix), members in by_folder.items():
        ends = Counter(_end_of(file) for file in members)
        for file in members:
            end = _end_of(file)
            # An end that few share is a name: "cat_sitting.jpg".
            is_shared = ends[end] >= max(2, len(members) / 20) or any(map(is_kind_word, words(end)))
            end = end if is_shared else ""
            found.setdefault((kinds, depth, suffix, end), Series(file.suffix, end, kinds)).files.append(file)
    return list(found.values())


def _depth_below_kind(file: PurePosixPath) -> int:
    """How many folders lie below the innermost that says a kind: masks/1.png and masks/cars/1.png are of two kinds."""
    for depth, folder in enumerate(reversed(file.parts[:-1])):
        if any(map(is_kind_word, words(folder))):
            return depth
    return 0


def _end_of(file: PurePosixPath) -> str:
    """
    What follows the last word that is not of letters alone, or else the words at the end that say a kind: of "img"
    and "label_viz" all of it.
    """
    stem = file.name.removesuffix(file.suffix)
    behind_digits = re.fullmatch(r".*\d((?:[^\w]|_)+[^\d]*)", stem)
    if behind_digits:
        return behind_digits[1]
    parts = re.split(r"((?:[^\w]|_)+)", stem)  # words and what parts them, in turn
    end = ""
    while len(parts) > 2 and (is_kind_word(parts[-1]) or (parts[-1] in MASK_ENDS)):
        end = parts[-2] + parts[-1] + end
        parts = parts[:-2]
    return stem if len(parts) == 1 and parts[0].isalpha() and is_kind_word(parts[0]) else end


# ---------------------------------------------------------------------------------------------- photographs, and masks


def name_votes(series: Series) -> int:
    """How many words of its names speak for a series being masks (positive) or photographs (negative)."""
    votes = sum((word in MASK_WORDS) - (word in IMAGE_WORDS) for word in series.kind_words)
    return votes + (words(series.end)[-1:] != [] and words(series.end)[-1] in MASK_ENDS)


def mask_votes(series: Series, root: Path) -> int:
    """How much speaks for a series being masks (positive) or photographs (negative): its names, and a few files."""
    if series.suffix.lower() in ONLY_MASK_SUFFIXES:
        return 9
    step = max(1, len(series.files) // NUM_LOOKED_AT)
    looks = [look for file in series.files[::step][:NUM_LOOKED_AT] if (look := look_of(root / file)) is not None]
    return 2 * int(np.sign(name_votes(series))) + (int(np.median(looks)) if looks else 0)


def look_of(path: Path) -> int | None:
    """
    Whether a picture looks like a mask: from 3, a few values and nothing else, to -3, a photograph. `None` if it
    cannot be read, which is said where it is read for good.
    """
    try:
        with open_image(path, path.name) as picture:
            if picture.mode in ("1", "P"):
                return 3
            is_lossy = picture.format in ("JPEG", "MPO")
            pixels = np.asarray(picture)
    except (MemoryError, OSError, ValueError):
        return None
    pixels = pixels[:: max(1, pixels.shape[0] // LOOKED_AT_SIDE), :: max(1, pixels.shape[1] // LOOKED_AT_SIDE)]
    if is_lossy:
        pixels = (pixels.astype(np.int32) + 4) // 8  # as coarse as what compression does to a flat colour
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3].astype(np.int32) @ (1 << 16, 1 << 8, 1)
    counts = np.sort(np.unique(pixels, return_counts=True)[1])[::-1]
    if len(counts) <= FEW_VALUES and not is_lossy:
        return 3 if len(counts) <= 8 else 2
    most = counts[:8].sum() / counts.sum()
    return 1 if most > 0.9 else -1 if most > 0.7 else -3


# ----------------------------------------------------------------------------------------------------------- the pairs


class Match(NamedTuple):
    """A mask of a photograph. What its name says beyond the photograph's is `extra`, such as a class or a number."""

    mask: PurePosixPath
    extra: Key


@dataclass
class Pairing:
    """
    Which masks belong to which photograph.

    Attributes:
        masks (`dict[PurePosixPath, list[Match]]`): of each photograph that has some.
        photographs_left, masks_left (`list[PurePosixPath]`): those without the other.
    """

    masks: dict[PurePosixPath, list[Match]]
    photographs_left: list[PurePosixPath]
    masks_left: list[PurePosixPath]


def pair(photographs: Sequence[Series], masks: Series) -> Pairing:
    """Find the photograph of each mask of a series, by the reading of names under which most masks have one."""
    files = [file for series in photographs for file in series.files]
    best: dict[PurePosixPath, Match] = {}
    photograph_of: dict[PurePosixPath, PurePosixPath] = {}
    for short_photographs, short_masks in ((False, False), (True, False), (False, True), (True, True)):
        stems = {}
        for series in photographs:
            stems |= series.short_stems if short_photographs else series.stems
        index = _Photographs(stems)
        found = {}
        for mask, stem in (masks.short_stems if short_masks else masks.stems).items():
            if (match := index.find(mask, stem)) is not None:
                found[mask] = match
        if len(found) > len(photograph_of):
            photograph_of = {mask: photograph for mask, (photograph, _) in found.items()}
            best = {mask: Match(mask, extra) for mask, (_, extra) in found.items()}
        if len(photograph_of) == len(masks.files):
            break
    exact = [mask for mask, match in best.items() if not match.extra]
    if 2 * len(exact) >= len(best):  # the others belong to photographs that are not here
        photograph_of = {mask: photograph_of[mask] for mask in exact}
    by_photograph: dict[PurePosixPath, list[Match]] = defaultdict(list)
    for mask, photograph in photograph_of.items():
        by_photograph[photograph].append(best[mask])
    return Pairing(
        dict(by_photograph),
        [file for file in files if file not in by_photograph],
        [mask for mask in masks.files if mask not in photograph_of],
    )


class _Photographs:
    """Photographs by the words of their names, to be found by masks."""

    def __init__(self, stems: dict[PurePosixPath, Key]):
        self.folders = {file: folder_words(file) for file in stems}
        self.by_stem: dict[Key, list[PurePosixPath]] = defaultdict(list)
        self.by_numbers: dict[Key, list[PurePosixPath]] = defaultdict(list)
        for file, stem in stems.items():
            self.by_stem[stem].append(file)
            self.by_numbers[_without_zeros(stem)].append(file)
        self.in_folder: dict[tuple[str, ...], list[PurePosixPath]] = defaultdict(list)
        for file in stems:
            self.in_folder[file.parts[:-2]].append(file)
        self.beside: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
        for file in stems:
            self.beside[file.parent].append(file)

    def find(self, mask: PurePosixPath, stem: Key) -> tuple[PurePosixPath, Key] | None:
        """The photograph, and the words of the mask that it lacks."""
        folders = folder_words(mask)
        for extra, rest in _subsets(stem):
            found = self.by_stem.get(rest) or (not extra and self.by_numbers.get(_without_zeros(rest)))
            if not extra and found and len(found) > 1:  # a.jpg and A.jpg are two
                same = _name_without(mask)
                found = [file for file in found if _name_without(file) == same] or found
            if found and (photograph := self._nearest(found, folders)) is not None:
                own = Counter(folders) - Counter(self.folders[photograph])
                return photograph, (*own.elements(), *extra)
        # Some call a folder like the photograph, and in it each mask like its class.
        named = tuple(word.casefold() for word in words(mask.parent.name))
        if named in self.by_stem and (photograph := self._nearest(self.by_stem[named], folders)) is not None:
            return photograph, stem
        # Or they keep both in it, and call them by their kinds alone: 7/img.png and 7/label.png.
        beside = self.beside.get(mask.parent, ())
        if all(map(is_kind_word, stem)) and len(beside) == 1:
            return beside[0], ()
        # Others keep a folder for each photograph, with one mask for each object in a folder beside it.
        alone = self.in_folder.get(mask.parts[:-2], ())
        if len(mask.parts) > 2 and len(alone) == 1 and alone[0].parent != mask.parent:
            return alone[0], stem
        return None

    def _nearest(self, found: list[PurePosixPath], folders: Key) -> PurePosixPath | None:
        """The photograph whose folders have most words of the mask's; none of another split, and none if two do."""
        splits = {word for word in folders if word in SPLIT_WORDS.values()}
        scores = []
        for file in found:
            own = self.folders[file]
            if splits and (others := {word for word in own if word in SPLIT_WORDS.values()}) and splits != others:
                continue
            shared = sum((Counter(own) & Counter(folders)).values())
            scores.append((shared - (len(own) - shared) / 100, file))
        scores.sort(key=lambda entry: -entry[0])
        if not scores or (len(scores) > 1 and scores[0][0] == scores[1][0]):
            return None
        return scores[0][1]


def _name_without(file: PurePosixPath) -> Key:
    """The words of a name that do not say its kind, in the case that they have."""
    return tuple(word for word in words(file.stem) if not is_kind_word(word))


def _without_zeros(stem: Key) -> Key:
    """ "007" as "7": some tools count with zeros in front, and others without."""
    return tuple(str(int(word)) if word.isdecimal() else word for word in stem)


def _subsets(stem: Key) -> Iterator[tuple[Key, Key]]:
    """The words without none, one, two ... of them: those that are left out, and the rest, never empty."""
    for count in range(min(MAXIMUM_EXTRA_WORDS, len(stem) - 1) + 1):
        # The last words first: "7_2" is the second mask of "7" before it is one of "2".
        for chosen in combinations(reversed(range(len(stem))), count):
            extra = tuple(stem[position] for position in sorted(chosen))
            yield extra, tuple(word for position, word in enumerate(stem) if position not in chosen)
