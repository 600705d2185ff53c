# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Files that name classes."""

import os
from pathlib import Path

from modeling_denseclip.class_names_denseclip import check_class_name

from .name_files import NamedClass, NameTable, parse_names


CLASSES_FILE = "classes.txt"


def read_class_names(path: str | os.PathLike) -> list[str]:
    """
    Read a file of class names, or the `classes.txt` of a data set's folder: line n (from 0) names the id n. A file
    that numbers its classes from 0 is read too, of each form that [`parse_names`] knows.

    Raises:
        `ValueError`: if the file is missing or no text in UTF-8, numbers classes otherwise or gives them colours, a
            line is empty or no name (see [`check_class_name`]), or a name occurs twice.
    """
    path = Path(path)
    path = path / CLASSES_FILE if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path} does not exist. It names the classes, one per line in the order of ids.")
    try:
        # Some editors put a mark before the first name, which is no part of it.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): save it in that encoding.") from error
    table = parse_names(text, str(path), path.suffix.lower())
    check_names(table, str(path))
    _refuse_other_keys(table, path)
    return [entry.name for entry in sorted(table.classes, key=lambda entry: entry.id)]


def check_names(table: NameTable, source: str) -> None:
    """
    Raises:
        ValueError: for a line without a name, what is no name (see [`check_class_name`]), or a name that occurs twice.
    """
    known: dict[str, NamedClass] = {}
    for entry in table.classes:
        if not check_class_name(entry.name, f"{source}: the name {entry.place}"):
            raise ValueError(f"{source} has no name {entry.place}: every id needs one, remove or fill the line.")
        if known.setdefault(entry.name, entry) is not entry:
            raise ValueError(f"{source} names '{entry.name}' twice, again {entry.place}: names have to differ.")


def _refuse_other_keys(table: NameTable, path: Path) -> None:
    ids = [entry.id for entry in table.classes]
    if table.classes[0].colour is not None and not table.ids_are_written:
        said = "gives classes colours, which masks of ids do not have"
    elif sorted(ids) != list(range(len(ids))):
        said = f"numbers {len(ids)} classes from {min(ids)} to {max(ids)}, and ids here count from 0 without a gap"
    else:
        return
    raise ValueError(
        f"{path} {said}. Write the names alone, one per line, in the order of ids; or let `python -m"
        " training.import_data` make a folder of ids of the data set as it is."
    )
