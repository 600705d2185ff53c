# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Files that name classes."""

import os
from pathlib import Path

from modeling_denseclip.class_names_denseclip import check_class_name


CLASSES_FILE = "classes.txt"


def read_class_names(path: str | os.PathLike) -> list[str]:
    """
    Read a file of class names, or the `classes.txt` of a data set's folder: line n (from 0) names the id n.

    Raises:
        `ValueError`: if the file is missing or no text in UTF-8, a line is empty or no name (see
            [`check_class_name`]), or a name occurs twice.
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
    class_names = [line.strip() for line in text.rstrip().split("\n")]
    known = set()
    for line, name in enumerate(class_names):
        if not check_class_name(name, f"{path}: the name on line {line + 1}"):
            raise ValueError(f"{path} has no name on line {line + 1}: every id needs one, remove or fill the line.")
        if name in known:
            raise ValueError(f"{path} names '{name}' twice, again on line {line + 1}: names have to differ.")
        known.add(name)
    return class_names
