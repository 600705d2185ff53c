# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Which class each key of a source is: what its files say, what its user says, and what has to be asked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from modeling_denseclip.class_names_denseclip import check_class_names, normalize_class_name

from ..data.files import IGNORE_INDEX
from ..data.name_files import read_colour
from .names import ClassNames, is_unlabelled, read_names
from .sources import UNCOVERED, Source


UNLABELLED, REST, OTHERS = "unlabelled", "rest", "others"
BACKGROUND = "background"
# Where shapes cover nearly everything, what they leave is slivers between them and no class.
LEAST_SHARE_OF_BACKGROUND = 0.05
NUM_ASKED = 30  # lines of a question


class Question(ValueError):
    """What cannot be known from files: the message says what was found, and how to answer."""


@dataclass
class Classes:
    """
    The classes of the folder that is written.

    Attributes:
        names (`list[str]`): by id.
        id_of (`dict[int, int]`): of each key its id, or `IGNORE_INDEX`.
        notes (`list[str]`): what was decided, and how to decide otherwise.
    """

    names: list[str]
    id_of: dict[int, int]
    notes: list[str] = field(default_factory=list)


@dataclass
class Answers:
    """
    What a user says by `--names`.

    Attributes:
        file ([`ClassNames`], *optional*): of a file of names.
        names (`dict[str, str]`): of keys, or of names that the source uses, what they are to be called.
    """

    file: ClassNames | None = None
    names: dict[str, str] = field(default_factory=dict)


def read_answers(words: Sequence[str]) -> Answers:
    """
    Read the words behind `--names`: at most one file, and pairs of a key and a name such as `255=crack`,
    `#ff004d=lake`, `255,0,77=lake`, `trf_lgt=traffic light`, `rest=street`, `0=unlabelled`
    and `others=cell`, which names all keys that nothing else names.

    Raises:
        `ValueError`: for a word that is neither, two files, or a file that names no classes.
    """
    answers = Answers()
    for word in words:
        key, mark, name = word.partition("=")
        if mark and not Path(word).is_file():
            if not key.strip() or not name.strip():
                raise ValueError(f"--names takes KEY=NAME with both sides, such as 255=crack; got {word!r}.")
            answers.names[key.strip()] = name.strip()
        elif answers.file is not None:
            raise ValueError(f"--names takes one file, and KEY=NAME besides; got a second file {word}.")
        elif not Path(word).is_file():
            raise ValueError(
                f"--names takes a file of names, or KEY=NAME such as 255=crack; there is no file {word!r}."
            )
        else:
            answers.file = read_names(Path(word))
    return answers


def name_keys(
    source: Source,
    pixels: Mapping[int, int],
    holders: Mapping[int, str],
    answers: Answers,
    found: Mapping[PurePosixPath, ClassNames],
) -> Classes:
    """
    Give each key that occurs a class.

    Args:
        source ([`Source`]): with the names that its form itself gives.
        pixels (`Mapping[int, int]`): of each key that occurs its number of pixels.
        holders (`Mapping[int, str]`): of each key an annotation that holds it.
        answers ([`Answers`]): of the user, which come before all else.
        found (`Mapping[PurePosixPath, ClassNames]`): files of names that lie in the source.

    Raises:
        `Question`: for keys without a name, or files that name them differently.
        `ValueError`: for answers about keys and names that do not occur, or names that are none.
    """
    notes: list[str] = []
    table: dict[int, str | None] = {**source.names, **dict.fromkeys(source.unlabelled)}  # `None` is unlabelled
    keys = set(pixels) - {UNCOVERED}
    refused: list[str] = []
    if not source.names:
        of_masks, notes, refused = _names_of_masks(source, pixels, answers, found)
        table |= of_masks
    elif answers.file is not None:
        table = _names_of_file(source, keys, answers.file, "--names", notes)
    _apply(table, source, pixels, answers.names)
    if not source.keys_are_colours and IGNORE_INDEX in keys and len(keys) > 2:
        if IGNORE_INDEX not in table:
            notes.append(
                f"{IGNORE_INDEX} in masks is taken for unlabelled, {_share(pixels, IGNORE_INDEX)} of the pixels."
            )
        table.setdefault(IGNORE_INDEX, None)
    unnamed = sorted(keys - table.keys())
    others = next((name for said, name in answers.names.items() if _means_others(said, table)), None)
    if others is not None:
        table |= dict.fromkeys(unnamed, None if is_unlabelled(others) else others)
    elif unnamed:
        raise Question("\n".join([_ask(source, unnamed, pixels, holders, table), *refused]))
    if UNCOVERED in pixels and UNCOVERED not in table:
        _decide_rest(table, pixels, notes)
    elif UNCOVERED in pixels and table[UNCOVERED] is None and UNCOVERED in source.unlabelled:
        notes.append(
            f"{_share(pixels, UNCOVERED)} of the pixels are transparent or have no number, and so unlabelled. --names"
            f" {REST}=NAME makes them a class."
        )
    return _number(table, notes)


def _names_of_masks(
    source: Source, pixels: Mapping[int, int], answers: Answers, found: Mapping[PurePosixPath, ClassNames]
) -> tuple[dict[int, str | None], list[str], list[str]]:
    """The table of the user's file, or of one in the source that names all keys; notes; and what files do not fit."""
    keys = set(pixels) - {UNCOVERED}
    if answers.file is not None:
        notes = list(answers.file.notes)
        return _names_of_file(source, keys, answers.file, "--names", notes), notes, []
    refused = []
    tables: dict[PurePosixPath, tuple[dict[int, str | None], list[str]]] = {}
    for path, names in found.items():
        notes = [f"Names are those of {path}.", *names.notes]
        try:
            table = _names_of_file(source, keys, names, str(path), notes)
        except Question as error:
            refused.append(str(error))
            continue
        tables[path] = table, notes
    # Of several files, those that leave no key without a name; colours of a table may be more than occur.
    complete = {path: entry for path, entry in tables.items() if keys - {IGNORE_INDEX} <= entry[0].keys()} or tables
    different = {tuple((key, table[key]) for key in sorted(keys & table.keys())) for table, _ in complete.values()}
    if len(different) > 1:
        shown = " or ".join(f"--names {path}" for path in complete)
        raise Question(f"Several files name the classes, and not alike: say which is right, by {shown}.")
    if complete:
        _refuse_shifted(next(iter(complete)), found[next(iter(complete))], keys)
    table, notes = next(iter(complete.values()), ({}, []))
    return table, notes, refused


def _refuse_shifted(path: PurePosixPath, names: ClassNames, keys: set[int]) -> None:
    """
    Raises:
        [`Question`]: where a file seems to count from 1, and masks from 0, as those of COCO-Stuff do.
    """
    if not names.ids_are_written or names.keys_are_colours or not names.by_id:
        return
    last = max(names.by_id)
    if 0 in names.unlabelled_ids and {0, IGNORE_INDEX} <= keys and last not in keys and last - 1 in keys:
        raise Question(
            f"{path} calls 0 unlabelled, but masks hold 0, and {IGNORE_INDEX} too; and none holds {last},"
            f" '{names.by_id[last]}'. Do masks count from 0, and the file from 1? Then write the names into a file,"
            " one a line and without numbers, and say --names FILE. If the file is right, name it by --names."
        )


def _names_of_file(
    source: Source, keys: set[int], names: ClassNames, path: str, notes: list[str]
) -> dict[int, str | None]:
    """
    The keys of a source as a file names them. A list without numbers names the ids from 0 on; or, where masks hold no
    others, those from 1 on, or the two values of masks of two.

    Raises:
        `Question`: where a list fits in no such way.
    """
    if source.keys_are_colours:
        if not names.by_colour:
            raise Question(f"{path} tells no colours, and the masks hold colours. Name these, by --names.")
        return {**names.by_colour, **dict.fromkeys(names.unlabelled_colours)}
    table: dict[int, str | None] = {**names.by_id, **dict.fromkeys(names.unlabelled_ids)}
    labels = keys - {IGNORE_INDEX}
    if names.ids_are_written or (labels <= table.keys() and (len(table), keys) != (2, {0, IGNORE_INDEX})):
        return table
    ordered = [table[key] for key in sorted(table)]
    if len(keys) == len(ordered) == 2:
        lower, upper = sorted(keys)
        notes.append(f"{lower} in masks is '{ordered[0]}' and {upper} is '{ordered[1]}', in the order of {path}.")
        return {lower: ordered[0], upper: ordered[1]}
    if max(labels) == len(ordered) and min(labels) >= 0:
        notes.append(
            f"Masks hold ids up to {len(ordered)}, and {path} has {len(ordered)} names: the first is taken for id 1,"
            " and 0 for unlabelled. If 0 is a class, name it, by --names 0=NAME."
        )
        return {0: None, **{key + 1: name for key, name in enumerate(ordered)}}
    raise Question(
        f"{path} has {len(ordered)} names and masks hold {len(keys)} values ({_listed(sorted(keys))}): which is which"
        " cannot be known. Say it by --names, such as "
        + " ".join(f"{key}='{name}'" for key, name in zip(sorted(keys), ordered, strict=False))
    )


def _apply(
    table: dict[int, str | None],
    source: Source,
    pixels: Mapping[int, int],
    names: Mapping[str, str],
) -> None:
    """Let the user's words replace names in the table."""
    for said, name in names.items():
        if _means_others(said, table):
            continue  # which are known when all else is
        keys = [key for key, known in table.items() if known is not None and known == said]
        if not keys:
            keys = [key for key in [_parse_key(said, source)] if key is not None and (key in pixels or key in table)]
        if not keys:
            known = [show_key(key, source) for key in sorted(pixels)]
            names_known = dict.fromkeys(name for name in table.values() if name is not None)
            raise ValueError(
                f"--names {said}={name}: there is no {said}. There are {_listed([*known, *names_known])}."
            )
        for key in keys:
            table[key] = None if is_unlabelled(name) else name


def _means_others(said: str, table: Mapping[int, str | None]) -> bool:
    """Whether it stands for all keys that nothing names; a class of this name comes first."""
    return said.lower() == OTHERS and said not in table.values()


def _parse_key(said: str, source: Source) -> int | None:
    if said.lower() == REST:
        return UNCOVERED
    if source.keys_are_colours:
        return read_colour(said)
    return int(said) if re.fullmatch(r"[+-]?\d{1,9}", said) else None


def _decide_rest(table: dict[int, str | None], pixels: Mapping[int, int], notes: list[str]) -> None:
    """What nothing covers: a class of its own, unless a class of this name is there, or it is slivers."""
    share = pixels[UNCOVERED] / sum(pixels.values())
    named = [name for name in table.values() if name is not None]
    if BACKGROUND not in (name.lower() for name in named) and share < LEAST_SHARE_OF_BACKGROUND and len(named) > 1:
        table[UNCOVERED] = None
        notes.append(
            f"Nothing covers {share:.2%} of the pixels; they are unlabelled. --names {REST}=NAME makes them a class."
        )
    else:
        table[UNCOVERED] = next((name for name in named if name.lower() == BACKGROUND), BACKGROUND)
        notes.append(
            f"Nothing covers {share:.1%} of the pixels: they are the class '{table[UNCOVERED]}'. CLIP reads names, so"
            f" a better one may help, such as --names {REST}=asphalt; or --names {REST}={UNLABELLED}, if there may be"
            " objects of these classes in it."
        )


def _number(table: dict[int, str | None], notes: list[str]) -> Classes:
    """Ids from 0 on: what nothing covers first, then in the order of the table; keys of one name share an id."""
    order = sorted(table, key=lambda key: key != UNCOVERED)
    names: list[str] = []
    ids: dict[str, int] = {}
    id_of: dict[int, int] = {}
    for key in order:
        name = table[key]
        if name is None:
            id_of[key] = IGNORE_INDEX
            continue
        words = normalize_class_name(name).lower()
        if words in ids and key != UNCOVERED and names[ids[words]] != name:
            notes.append(f"'{name}' and '{names[ids[words]]}' are the same words, and so one class.")
        if words not in ids:
            ids[words] = len(names)
            names.append(name)
        id_of[key] = ids[words]
    check_class_names(names)
    if len(names) > IGNORE_INDEX:
        raise ValueError(
            f"There are {len(names):,} classes, and masks of 8 bits have ids for {IGNORE_INDEX}. Join some by --names,"
            f" or leave some out by --names NAME={UNLABELLED}."
        )
    if len(names) == 1:
        raise Question(
            f"There is one class, '{names[0]}', and all else is unlabelled: name the rest, by --names {REST}=NAME."
        )
    return Classes(names, id_of, notes)


# --------------------------------------------------------------------------------------------------------------- words


def _ask(
    source: Source,
    unnamed: Sequence[int],
    pixels: Mapping[int, int],
    holders: Mapping[int, str],
    table: Mapping[int, str | None],
) -> str:
    """A question for the names of keys: with the share of each, and a file in which it can be seen."""
    what = "colours" if source.keys_are_colours else "ids"
    by_share = sorted(unnamed, key=lambda key: -pixels[key])
    lines = [f"No file says what {len(unnamed)} of the {what} in the masks mean. They are"]
    lines += [
        f"    {show_key(key, source):>8}  {_share(pixels, key):>8} of the pixels, such as in {holders[key]}"
        for key in by_share[:NUM_ASKED]
    ]
    if len(by_share) > NUM_ASKED:
        lines.append(f"    and {len(by_share) - NUM_ASKED:,} more")
    if named := list(dict.fromkeys(name for name in table.values() if name is not None)):
        lines.append(f"Named are {_listed(named)}.")
    pairs = " ".join(f"'{show_key(key, source)}=NAME'" for key in sorted(by_share[:NUM_ASKED]))
    lines.append(f"Name them: --names {pairs}, with '{UNLABELLED}' for what is no class; or by --names FILE.")
    if len(unnamed) > 2:
        lines.append(f"'{OTHERS}=NAME' names all that are left alike, such as numbers of single objects.")
    return "\n".join(lines)


def show_key(key: int, source: Source) -> str:
    """A key as `--names` takes it."""
    if key == UNCOVERED:
        return REST
    return f"#{key:06x}" if source.keys_are_colours else str(key)


def _share(pixels: Mapping[int, int], key: int) -> str:
    return f"{pixels[key] / sum(pixels.values()):.2%}"


def _listed(entries: Sequence[object], most: int = 20) -> str:
    shown = ", ".join(map(str, entries[:most]))
    return shown if len(entries) <= most else f"{shown} and {len(entries) - most:,} more"
