# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What `training.import_data` does, step by step: find, look, name, split, write, inspect."""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modeling_denseclip.tools.command import escape_controls
from modeling_denseclip.tools.files.saving import save_whole

from ..data.inspection import DatasetReport, inspect_dataset
from ..data.inspection_report import draw_samples, format_findings, spread
from ..data.name_files import read_colour
from ..data.rows import advise_rows, is_saved
from .classes import UNLABELLED, Answers, Classes, name_keys, read_answers
from .folder import IMPORT_FILE, Survey, find_groups, survey, write_folder
from .forms import find_source
from .names import ClassNames, find_names
from .painting import Overlaps
from .sources import Item, Listing, Source
from .splits import find_lists, find_split, find_splits_of_names, split_by_share


PARTS = ("training", "validation", "test")
DEFAULT_SHARE = 0.2
NUM_SAMPLES = 24
NUM_SHOWN = 5  # items of a list in the terminal
FEW_BYTES = 5 * 10**8  # starting processes takes longer than reading so much
SHEET = "contact_sheet.png"
NEXT_COMMAND = "python -m training.train --data_dir {target} --clip openai/clip-vit-base-patch16 --output_dir mine"


@dataclass
class Wishes:
    """
    What a user may say; see `python -m training.import_data --help`.

    Raises:
        `ValueError`: for a share that is none, or an expression that is none.
    """

    form: str | None = None
    images: Sequence[str] = ()
    masks: Sequence[str] = ()
    mat_key: str | None = None
    names: Sequence[str] = ()
    overlaps: Overlaps | None = None
    validation_share: float | None = None
    seed: int = 0
    group_by: str | None = None
    copy: bool = False
    overwrite: bool = False
    dry_run: bool = False
    num_workers: int | None = None

    def __post_init__(self):
        if self.validation_share is not None and not 0 < self.validation_share < 1:
            raise ValueError(
                f"--validation_share is a share of the photographs, in (0, 1); got {self.validation_share}."
            )
        if self.group_by is not None:
            try:
                re.compile(self.group_by)
            except re.error as error:
                raise ValueError(f"--group_by takes a regular expression; got {self.group_by!r}: {error}.") from error


def import_data(
    root: str | Path, target: str | Path, wishes: Wishes | None = None, say: Callable[[str], object] = print
) -> bool:
    """
    Write a folder that training reads, from a data set of another form.

    Args:
        root (`str` or `Path`): the data set, as it lies.
        target (`str` or `Path`): the folder to write.
        wishes ([`Wishes`], *optional*): what is not to be as files have it.
        say (`Callable[[str], object]`, *optional*): is given each sentence of the report.

    Returns:
        `bool`: whether all that is annotated was taken, and training accepts it.

    Raises:
        [`Question`]: for what cannot be known from files; nothing is written.
        `ValueError`: for a folder of no form that is known, or files that are broken; nothing is written.
        `OSError`: where the folder cannot be written.
        `ChildProcessError`: if a process that reads files died.
    """
    root, target, wishes = Path(root), Path(target), wishes or Wishes()
    _check_folders(root, target, wishes.overwrite or wishes.dry_run)
    listing = Listing(root)
    answers, (found, not_understood) = read_answers(wishes.names), find_names(listing)
    num_workers = wishes.num_workers
    if num_workers is None:
        is_much = sum(listing.path(file).stat().st_size for file in listing.images) > FEW_BYTES
        num_workers = (os.cpu_count() or 1) if is_much else 0

    colours = _known_colours(answers, found)
    source = find_source(
        listing,
        wishes.form,
        wishes.overlaps,
        wishes.images,
        wishes.masks,
        colours,
        sorted(int(said) for said in answers.names if said.isdecimal()),
        wishes.mat_key,
        num_workers,
    )
    splits_said = _say_splits(source.items)
    say(f"{root}: {source.form}; {splits_said}")
    for note in source.notes:
        say(f"  {note}")
    _say_list(say, "Left out", source.left_out)
    _say_list(say, "Files that seem to name classes, and do not", not_understood)

    seen = survey(source, root, num_workers)
    _say_list(say, "Left out, as it is there twice", seen.copies)
    _say_list(say, "CANNOT BE TAKEN", seen.broken)
    for remark, count in sorted(seen.remarks.items()):
        say(f"  {count:,} {remark}.")
    classes = name_keys(source, seen.pixels, seen.holders, answers, found)
    for note in classes.notes:
        say(f"  {note}")
    say(_format_classes(classes, seen))
    splits = choose_splits(listing, seen, classes, wishes, say)

    if wishes.dry_run:
        _draw_plan(target, splits, classes, source, root, say)
        return not seen.broken
    counts = write_folder(target, splits, classes, source, root, num_workers, wishes.copy)
    written = ", ".join(f"{len(items):,} {split}" for split, items in splits.items())
    placed = " and ".join(f"{count:,} photographs {how}" for how, count in counts.items())
    say(f"Written to: {target} ({written}; {placed})")
    report = _inspect(target, splits, num_workers)
    for text in format_findings(report):
        say(text)
    _save_sheet(report, target / SHEET, say)
    if report.accepted:
        say(f"Training accepts it. Next: {NEXT_COMMAND.format(target=target)}")
    return report.accepted and not seen.broken


def _check_folders(root: Path, target: Path, may_replace: bool) -> None:
    if not root.is_dir():
        what = "is a file: unpack an archive, and name the folder" if root.exists() else "does not exist"
        raise ValueError(f"{root} {what}. SOURCE is the folder that holds the data set.")
    if is_saved(root):
        raise ValueError(advise_rows(root))
    own, others = target.resolve(), root.resolve()
    if own == others or own.is_relative_to(others) or others.is_relative_to(own):
        raise ValueError(f"TARGET {target} and SOURCE {root} lie in each other: name a folder beside {others}.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        if not (target / IMPORT_FILE).is_file():
            raise ValueError(
                f"{target} is there already, and no import has made it: name another folder, or remove it."
            )
        if not may_replace:
            raise ValueError(f"{target} is there already. Say --overwrite to replace it, or name another folder.")


def _known_colours(answers: Answers, found: Mapping[PurePosixPath, ClassNames]) -> dict[int, str] | None:
    """The table of colours, if a file or the user gives one: by it masks are read as colours, or cleaned."""
    tables = [answers.file] if answers.file is not None else list(found.values())
    colours: dict[int, str] = {}
    for table in tables:
        colours |= table.by_colour | dict.fromkeys(table.unlabelled_colours, UNLABELLED)
    for said, name in answers.names.items():
        if (key := read_colour(said)) is not None:
            colours[key] = name
    return colours or None


def _place_of_part(entry: tuple[str | None, int]) -> int:
    return PARTS.index(entry[0]) if entry[0] in PARTS else len(PARTS)


def _say_splits(items: Sequence[Item]) -> str:
    counts = Counter(find_split(item.split) for item in items)
    if set(counts) == {None}:
        return f"{len(items):,} photographs"
    return " + ".join(
        f"{count:,} {split or 'of no part'}" for split, count in sorted(counts.items(), key=_place_of_part)
    )


def _say_list(say: Callable[[str], object], title: str, entries: Sequence[str]) -> None:
    if not entries:
        return
    say(f"{title} ({len(entries):,}):")
    for entry in entries[:NUM_SHOWN]:
        say(f"    {escape_controls(entry)}")
    if len(entries) > NUM_SHOWN:
        say(f"    and {len(entries) - NUM_SHOWN:,} more")


def _format_classes(classes: Classes, seen: Survey) -> str:
    total = sum(seen.pixels.values())
    lines = []
    for id, name in enumerate(classes.names):
        pixels = sum(seen.pixels[key] for key, of_key in classes.id_of.items() if of_key == id)
        lines.append(f"  {id:>3}  {pixels / total:>7.2%}  {escape_controls(name)}")
    unlabelled = total - sum(seen.pixels[key] for key, id in classes.id_of.items() if id < len(classes.names))
    lines.append(f"       {unlabelled / total:>7.2%}  unlabelled")
    return f"{len(classes.names)} classes, by id and share of the pixels:\n" + "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------- the splits


def choose_splits(
    listing: Listing, seen: Survey, classes: Classes, wishes: Wishes, say: Callable[[str], object]
) -> dict[str, list[Item]]:
    """
    Bring photographs to "training", "validation" and, if the source has it, "test". Folders say which, or else lists,
    or else the names of the photographs. A part without a pixel of any class, as tests of contests are, is left out.

    Raises:
        `ValueError`: for a share that is asked for where there is a part for validation, or lists that contradict.
    """
    splits: dict[str, list[Item]] = {}
    without: list[Item] = []
    for item in seen.items:
        split = find_split(item.split)
        (without if split is None else splits.setdefault(split, [])).append(item)
    if not splits:
        splits, notes = find_lists(listing, seen.items)
        for note in notes:
            say(f"  {note}")
        listed = {id(item) for items in splits.values() for item in items}
        without = [item for item in seen.items if id(item) not in listed]
    if splits and "training" not in splits and without:
        say(f"  The {len(without):,} others are for training.")
        splits["training"], without = without, []
    if not splits and (splits := find_splits_of_names(seen.items)):
        parts = ", ".join(f"{len(items):,} for {split}" for split, items in splits.items())
        say(f"  Names of photographs say which part they belong to: {parts}.")
        without = []
    if not splits:
        splits, without = {"training": without}, []
    labelled = _labelled(seen, classes)
    for split in [split for split, items in splits.items() if labelled.isdisjoint(map(id, items))]:
        if len(splits) > 1:
            say(f"  Left out: {len(splits.pop(split)):,} photographs for {split}, of which no pixel has a class.")
    if without:
        _say_list(say, "Left out, as they belong to no part", [item.name for item in without])
    if "training" not in splits:  # only one part, whatever it is called
        splits = {"training": [item for items in splits.values() for item in items]}
    if "validation" in splits:
        if wishes.validation_share is not None:
            raise ValueError(
                f"--validation_share {wishes.validation_share}: there are {len(splits['validation']):,} photographs"
                " for validation already. Leave it out."
            )
    else:
        pool = splits["training"]
        share = wishes.validation_share or DEFAULT_SHARE
        groups = _groups_of(pool, seen, wishes)
        splits["training"], splits["validation"] = split_by_share(pool, groups.__getitem__, share, wishes.seed)
        say(
            f"  No part is for validation: {len(splits['validation']):,} of {len(pool):,} photographs become one"
            f" (--validation_share {share}, --seed {wishes.seed}), drawn from {len(set(groups)):,} groups of crops,"
            " copies and near duplicates, which stay together."
        )
    return {split: splits[split] for split in PARTS if split in splits}


def _labelled(seen: Survey, classes: Classes) -> set[int]:
    """The `id()` of each item that has a pixel of a class."""
    of_classes = {key for key, id in classes.id_of.items() if id < len(classes.names)}
    return {id(item) for item, keys in zip(seen.items, seen.keys, strict=True) if not of_classes.isdisjoint(keys)}


def _groups_of(pool: Sequence[Item], seen: Survey, wishes: Wishes) -> list[object]:
    if wishes.group_by is not None:
        matches = [re.search(wishes.group_by, f"{item.name}{item.image.suffix}") for item in pool]
        if missing := [item.name for item, match in zip(pool, matches, strict=True) if match is None]:
            raise ValueError(
                f"--group_by {wishes.group_by!r} matches nothing in the names of {len(missing):,} photographs, such as"
                f" {missing[0]}."
            )
        return [match[match.lastindex or 0] for match in matches]
    digest_of = {id(item): digest for item, digest in zip(seen.items, seen.digests, strict=True)}
    return list(find_groups(pool, [digest_of[id(item)] for item in pool]))


# --------------------------------------------------------------------------------------------------------- the picture


def _draw_plan(
    target: Path,
    splits: Mapping[str, Sequence[Item]],
    classes: Classes,
    source: Source,
    root: Path,
    say: Callable[[str], object],
) -> None:
    """Write a few photographs as they all would be, aside, and draw them."""
    some = {
        split: [items[i] for i in spread(len(items), NUM_SAMPLES // len(splits))] for split, items in splits.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample"
        write_folder(sample, some, classes, source, root)
        report = _inspect(sample, some, 0)
        _save_sheet(report, target.with_name(f"{target.name}_{SHEET}"), say)
    planned = ", ".join(f"{len(items):,} {split}" for split, items in splits.items())
    say(f"Nothing else is written. Without --dry_run {target} gets {planned}.")


def _inspect(folder: Path, splits: Mapping[str, Sequence[Item]], num_workers: int) -> DatasetReport:
    return inspect_dataset(folder, splits=tuple(splits), num_workers=num_workers)


def _save_sheet(report: DatasetReport, path: Path, say: Callable[[str], object]) -> None:
    if report.drawable:
        save_whole(path, draw_samples(report, NUM_SAMPLES).save)
        say(f"Look at {path}: do masks lie on what they name?")
