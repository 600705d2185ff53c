# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What verbs say of a folder that is none for training, but one of a form that can be imported."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..data.rows import advise_rows


def advise_import(folder: str | Path) -> str:
    """
    What the folder holds, and the command that imports it or the argument that reads it; empty for one of our form, or
    of none that is known.
    """
    from .forms import recognise  # all readers, which a training that finds its folder need not import

    folder = Path(folder)
    annotations = folder / "annotations"
    if not folder.is_dir() or (annotations.is_dir() and any(path.is_dir() for path in annotations.iterdir())):
        return ""
    if rows := advise_rows(folder):
        return rows
    form = recognise(folder)
    if form is None:
        return ""
    return (
        f"{folder} holds {form}. This makes a folder of it that training reads:"
        f" python -m training.import_data {shlex.quote(str(folder))} my_data"
    )


@contextmanager
def advising_import(dataset: str, data_dir: str | None, dataset_name: str | None) -> Iterator[None]:
    """
    Add to an error of loading a folder what imports it.

    Raises:
        ValueError: the same, with the advice where there is some.
    """
    try:
        yield
    except ValueError as error:
        is_folder = dataset == "folder" and dataset_name is None and data_dir is not None
        advice = advise_import(data_dir) if is_folder else ""
        if not advice:
            raise
        raise ValueError(f"{error} {advice}") from error
