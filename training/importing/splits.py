# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Which photographs are for training and which for validation: by folders, by lists, or by a share of groups."""

import csv
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import PurePosixPath

import yaml

from .sources import Item, Listing
from .words import JOINT, MASK_WORDS, SPLIT_WORDS, split_in, words


DIGITS = "0123456789"  # behind a word: "train2017"
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".yaml", ".yml")
MAXIMUM_LIST_BYTES = 2**28
# A list is one if most of what it names is there; some data sets list pictures that are not part of a download.
LEAST_SHARE_FOUND = 0.5


def find_split(name: str | None) -> str | None:
    """The split that a word means, such as "valid" or "train2017"; `None` for other words."""
    return None if name is None else SPLIT_WORDS.get(name.lower().rstrip(DIGITS))


def split_of_folders(file: PurePosixPath) -> str | None:
    """The split that the innermost folder with such a name says."""
    return next((split for part in reversed(file.parts[:-1]) if (split := split_in(part)) is not None), None)


def split_of_file(file: PurePosixPath, photograph: PurePosixPath) -> str | None:
    """The split of a photograph in a file that annotates many: as the name of the file says, its folders, its own."""
    return split_in(file.stem) or split_of_folders(file) or split_of_folders(photograph)


# --------------------------------------------------------------------------------------------------------------- lists


def find_lists(listing: Listing, items: Sequence[Item]) -> tuple[dict[str, list[Item]], list[str]]:
    """
    Split by files that list names of photographs: `train.txt` and `val.txt`, a table with a column of splits, or YAML
    with a list for each split.

    Returns:
        The items of each split, in the order of the data set, and a sentence on each list; empty without lists.
    """
    names = _Names(items)
    found: dict[str, dict[str, _Named]] = {}  # file -> split
    for file in listing.with_suffix(*LIST_SUFFIXES):
        path = listing.path(file)
        if path.stat().st_size > MAXIMUM_LIST_BYTES:
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            continue
        splits: dict[str, _Named] = {}
        for split, entries in _read_lists(file, text):
            positions = [names.find(entry) for entry in entries]
            num_found = sum(position is not None for position in positions)
            if positions and num_found >= LEAST_SHARE_FOUND * len(positions):
                named = splits.setdefault(split, _Named())
                named.positions.update(position for position in positions if position is not None)
                named.num_missing += len(positions) - num_found
        if splits:
            found[file.as_posix()] = splits
    return _agree(found, items)


@dataclass
class _Named:
    """The positions of items that a list names, and how many entries of it name none."""

    positions: set[int] = field(default_factory=set)
    num_missing: int = 0


def _agree(found: dict[str, dict[str, _Named]], items: Sequence[Item]) -> tuple[dict[str, list[Item]], list[str]]:
    """
    Take the lists of one folder; lists of one split there are joined. It is the folder whose lists name most; of
    equals one that is called like masks, as ImageSets/Segmentation of VOC, and the one that names fewest others.
    """
    by_folder: dict[PurePosixPath, dict[str, set[int]]] = defaultdict(dict)
    num_missing: dict[PurePosixPath, int] = defaultdict(int)
    notes: dict[PurePosixPath, list[str]] = defaultdict(list)
    for name, splits in found.items():
        folder = PurePosixPath(name).parent
        for split, named in splits.items():
            # Of train.txt and trainval.txt the first is for training, where there is a list for validation.
            is_joint = JOINT.search(PurePosixPath(name).stem) is not None
            key = "trainval" if is_joint else split
            by_folder[folder].setdefault(key, set()).update(named.positions)
            num_missing[folder] += named.num_missing
            notes[folder].append(f"{name} lists {len(named.positions):,} photographs for {split}.")
    if not by_folder:
        return {}, []
    for splits in by_folder.values():
        joint = splits.pop("trainval", None)
        if joint is not None and "training" not in splits:
            splits["training"] = joint - splits.get("validation", set())

    def rank(folder: PurePosixPath) -> tuple[int, bool, int]:
        is_of_masks = any(word.lower() in MASK_WORDS for word in words(folder.name))
        return sum(map(len, by_folder[folder].values())), is_of_masks, -num_missing[folder]

    chosen = max(by_folder, key=rank)
    best = by_folder[chosen]
    splits = list(best)
    for index, split in enumerate(splits):
        for other in splits[index + 1 :]:
            if both := best[split] & best[other]:
                name = items[min(both)].name
                raise ValueError(
                    f"Lists of splits name {len(both):,} photographs both for {split} and for {other}, such as {name}:"
                    " what is scored must not be trained on. Correct the lists, or remove them to split by a share."
                )
    return {split: [items[position] for position in sorted(best[split])] for split in splits}, notes[chosen]


def find_splits_of_names(items: Sequence[Item]) -> dict[str, list[Item]]:
    """
    Split by the words of the photographs' own names, such as `train_7` and `testA_7`.

    Returns:
        The items of each split; empty unless every name says one, and there is one for training and another.
    """
    splits: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        split = split_in(item.image.stem)
        if split is None:
            return {}
        splits[split].append(item)
    return dict(splits) if "training" in splits and len(splits) > 1 else {}


def _read_lists(file: PurePosixPath, text: str) -> Iterator[tuple[str, list[str]]]:
    """Splits, and the names that a file lists for them."""
    if file.suffix.lower() in (".yaml", ".yml"):
        try:
            content = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError, ValueError):
            return
        for key, entries in content.items() if isinstance(content, dict) else ():
            split = split_in(str(key))
            if split is not None and isinstance(entries, list) and entries:
                yield split, [str(entry) for entry in entries]
        return
    if file.suffix.lower() in (".csv", ".tsv"):
        yield from _read_table(text)
    split = split_in(file.stem) or split_of_folders(file)
    if split is not None:
        # Some lists have labels or the mask behind the name.
        yield split, [re.split(r"[\s,;]", line.strip())[0] for line in text.splitlines() if line.strip()]


def _read_table(text: str) -> Iterator[tuple[str, list[str]]]:
    """A table with a column that says the split of each row, and one that names the photograph."""
    try:
        dialect = csv.Sniffer().sniff(text[:4096], delimiters=",;\t")
        rows = [row for row in csv.reader(StringIO(text), dialect) if row]
    except csv.Error:
        return
    if not rows:
        return
    columns = list(zip(*(row for row in rows[1:] if len(row) == len(rows[0])), strict=True))
    for index, column in enumerate(columns):
        values = set(column)
        if 1 < len(values) <= 4 and all(split_in(value) for value in values):
            for other, names in enumerate(columns):
                if other != index:
                    for value in sorted(values):
                        chosen = [name for name, said in zip(names, column, strict=True) if said == value]
                        yield split_in(value), chosen
            return


class _Names:
    """Finds an item by what a list calls it: a path, a name with or without its suffix, or its number."""

    def __init__(self, items: Sequence[Item]):
        self.positions: dict[str, set[int]] = defaultdict(set)
        for position, item in enumerate(items):
            for name in {item.name, PurePosixPath(item.name).name, item.image.name, item.image.stem}:
                self.positions[name].add(position)
            numbers = re.findall(r"\d+", item.image.stem)
            if len(numbers) == 1:
                self.positions[f"number {int(numbers[0])}"].add(position)

    def find(self, entry: str) -> int | None:
        path = PurePosixPath(entry.replace("\\", "/").strip("\"' "))
        candidates = [str(path), path.with_suffix("").as_posix() if path.suffix else str(path), path.name, path.stem]
        if entry.strip().isdecimal():
            candidates.append(f"number {int(entry)}")
        for candidate in candidates:
            positions = self.positions.get(candidate, ())
            if len(positions) == 1:
                return next(iter(positions))
        return None


# -------------------------------------------------------------------------------------------------------------- shares


def split_by_share(
    items: Sequence[Item], group_of: Callable[[int], object], share: float, seed: int
) -> tuple[list[Item], list[Item]]:
    """
    Draw photographs for validation, whole groups at a time.

    Args:
        group_of (`Callable`): of the position of an item, what all pictures have in common that must not be parted,
            such as the photograph that crops or augmented copies were made of.
        share (`float`): of the photographs, in (0, 1).
        seed (`int`): the same seed, items and groups give the same split.

    Returns:
        Those for training and those for validation, in their order, at least one group each.

    Raises:
        `ValueError`: if all belong to one group.
    """
    groups: dict[object, list[int]] = defaultdict(list)
    for position in range(len(items)):
        groups[group_of(position)].append(position)
    if len(groups) < 2:
        raise ValueError(
            f"All {len(items):,} photographs belong together ({items[0].name if items else 'none'}), so none can be"
            " kept for validation. Add others, or say by --group_by which belong together."
        )
    order = sorted(groups, key=lambda group: groups[group][0])
    random.Random(seed).shuffle(order)
    wanted, chosen = share * len(items), set()
    for group in order[:-1]:
        # The group that comes nearest to the share is the last.
        if chosen and len(chosen) + len(groups[group]) / 2 > wanted:
            break
        chosen.update(groups[group])
    training = [item for position, item in enumerate(items) if position not in chosen]
    return training, [items[position] for position in sorted(chosen)]
