# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Names of classes, from the files that tools and data sets keep them in."""

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from modeling_denseclip.class_names_denseclip import check_class_names
from modeling_denseclip.tools.files.photographs import open_file

from ..data.class_names import check_names
from ..data.name_files import MAXIMUM_LETTERS_OF_FILE, NameTable, format_colour, parse_names
from .sources import UNCOVERED, Listing


# Words for "unlabelled", in lower case and without marks. "background" is a class, and so are "other" and "none".
UNLABELLED_WORDS = {
    "unlabelled", "unlabeled", "not labelled", "not labeled", "unannotated", "not annotated", "void", "ignore",
    "ignored", "unknown", "dont care", "dontcare", "dont know",
}  # fmt: skip
# What files that name classes are called, without case; the likelier come first.
FILE_NAMES = (
    "_classes.csv", "class_dict.csv", "labelmap.txt", "label_colors.txt", "label_colours.txt", "classes.txt",
    "class_names.txt", "label_names.txt", "labels.txt", "obj.names", "codes.txt", "names.txt", "id2label.json",
    "label2id.json", "classes.json", "class_names.json", "labels.json", "label_classes.json", "classes.csv",
    "class_names.csv", "labels.csv", "class_dict_seg.csv", "colors.csv", "colormap.csv", "color_map.csv",
    "colormap.txt", "color_map.txt", "colormap.json", "color_map.json", "class_colors.json", "class_colors.csv",
    "class_mapping.csv", "label_map.txt", "label_map.json", "label_map.csv", "classes.yaml", "objectinfo150.txt",
)  # fmt: skip
# Names of files that often say other things as well, or nothing of classes.
GENERAL_FILE_NAMES = ("data.yaml", "dataset.yaml", "dataset.yml", "data.yml", "config.json", "meta.json")
# And of files of any other name that may name classes, such as "CamVid_colours.txt".
LIKELY_NAME = re.compile(r"(class|label|categor|colou?r|legend|palette|names)\w*\.(txt|csv|tsv|json|names|yaml|yml)$")
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class ClassNames:
    """
    What a file says of the classes of masks. Masks may hold ids or colours, and a file may tell both.

    Attributes:
        by_id (`dict[int, str]`): names by id, in the order of the file. Where it does not number its classes, ids are
            places in the file, from 0.
        by_colour (`dict[int, str]`): names by colour, 0xRRGGBB; empty where the file tells no colours.
        ids_are_written (`bool`): whether the file numbers its classes.
        unlabelled_ids, unlabelled_colours (`set[int]`): keys that the file calls "unlabelled", or by a like word.
            Those are in neither table.
        notes (`list[str]`): what a user should know of how the file was read.
    """

    by_id: dict[int, str]
    by_colour: dict[int, str]
    ids_are_written: bool
    unlabelled_ids: set[int] = field(default_factory=set)
    unlabelled_colours: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list, compare=False)

    @property
    def keys_are_colours(self) -> bool:
        """Whether the file tells colours and no ids, so that only these can be meant."""
        return bool(self.by_colour) and not self.ids_are_written

    @property
    def names(self) -> dict[int, str]:
        """Names by the keys that the file itself tells: colours where it tells no ids."""
        return self.by_colour if self.keys_are_colours else self.by_id

    @property
    def unlabelled(self) -> set[int]:
        return self.unlabelled_colours if self.keys_are_colours else self.unlabelled_ids


class FoundNames(NamedTuple):
    """
    Files of a data set that name classes.

    Attributes:
        found (`dict[PurePosixPath, ClassNames]`): the files, the likeliest first. Of those that say the same, as in
            the folder of each split, only one.
        left_out (`list[str]`): files that are called as if they named classes, and could not be read, each with why.
    """

    found: dict[PurePosixPath, ClassNames]
    left_out: list[str]


def read_names(path: Path) -> ClassNames:
    """
    Read a file that names classes, of each form that [`parse_names`] knows. It is in UTF-8 or, with a byte order mark,
    in UTF-16.

    Raises:
        ValueError: for a file that names no classes, that can be understood in two ways, or whose names are none (see
            [`check_class_names`]).
        OSError: for a file that cannot be opened.
    """
    table = parse_names(_read_text(path), str(path), path.suffix.lower())
    check_names(table, str(path))
    if all(re.fullmatch(r"[-+.0-9]+", entry.name) for entry in table.classes):
        raise ValueError(f"{path} holds numbers and no names, such as {table.classes[0].name!r}. Write words.")
    return _to_class_names(table, path)


def _read_text(path: Path) -> str:
    with open_file(path) as file:
        content = file.read(4 * MAXIMUM_LETTERS_OF_FILE + 1)
    if len(content) > 4 * MAXIMUM_LETTERS_OF_FILE:
        raise ValueError(f"{path} has more than {len(content) - 1:,} bytes: it is no list of classes.")
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): save it in that encoding.") from error


def _to_class_names(table: NameTable, path: Path) -> ClassNames:
    notes, unlabelled = [], [entry for entry in table.classes if is_unlabelled(entry.name)]
    named = [entry for entry in table.classes if entry not in unlabelled]
    for entry in unlabelled:
        key = entry.id if entry.colour is None or table.ids_are_written else format_colour(entry.colour)
        notes.append(f"{path.name} calls {key} {entry.name!r}: these pixels are unlabelled.")
    if any(entry.id == UNCOVERED and entry not in unlabelled for entry in table.classes):
        raise ValueError(f"{path} gives a class the number {UNCOVERED}, by which pixels without a class are known.")
    if not named:
        raise ValueError(f"{path} names no class but {', '.join(entry.name for entry in unlabelled)}.")
    try:
        check_class_names([entry.name for entry in named])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    has_colours = table.classes[0].colour is not None
    return ClassNames(
        by_id={entry.id: entry.name for entry in named},
        by_colour={entry.colour: entry.name for entry in named} if has_colours else {},
        ids_are_written=table.ids_are_written,
        unlabelled_ids={entry.id for entry in unlabelled},
        unlabelled_colours={entry.colour for entry in unlabelled} if has_colours else set(),
        notes=notes,
    )


def is_unlabelled(name: str) -> bool:
    """Whether a name is one of the words by which data sets call pixels that have no label."""
    return " ".join(re.sub(r"['’()\[\]<>.]", "", name.lower()).replace("_", " ").replace("-", " ").split()) in (
        UNLABELLED_WORDS
    )


def find_names(listing: Listing) -> FoundNames:
    """Read all files of a data set that are called like one that names classes; see [`FoundNames`]."""
    ranks = {name: rank for rank, name in enumerate((*FILE_NAMES, *GENERAL_FILE_NAMES))}
    files = [file for file in listing.files if file.name.lower() in ranks or LIKELY_NAME.search(file.name.lower())]
    files.sort(key=lambda file: (len(file.parts), ranks.get(file.name.lower(), len(ranks)), file))
    found: dict[PurePosixPath, ClassNames] = {}
    left_out = []
    for file in files:
        try:
            names = read_names(listing.path(file))
        except (OSError, ValueError) as error:
            if file.name.lower() in FILE_NAMES:
                left_out.append(f"{file}: {error}")
            continue
        if names not in found.values():
            found[file] = names
    return FoundNames(found, left_out)
