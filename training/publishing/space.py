# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""A folder that is a Space of the Hub."""

import shutil
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from modeling_denseclip.tools.files.saving import replace_folder

from .. import REPOSITORY


TEMPLATE = REPOSITORY / "model_cards" / "space"
PACKAGE = REPOSITORY / "modeling_denseclip"
# Stands in the files of the template in the place of the model's name.
PLACEHOLDER = "you/denseclip-rn50"


def write_space(output: Path, model: str) -> None:
    """
    Args:
        output (`Path`): the folder, which must not be there or be empty.
        model (`str`): id of a repository on the Hub.

    Raises:
        ValueError: for an output that holds something, or a model that is no such id; nothing is written then.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is there already. Name a new folder, or remove that one.")
    try:
        validate_repo_id(model)
    except HFValidationError:
        valid = False
    else:
        valid = "/" in model and not Path(model).is_dir()
    if not valid:
        raise ValueError(
            f"--model takes the id of a repository on the Hub, such as {PLACEHOLDER}; got {model!r}. A Space does not"
            " carry the weights: push a folder by `python -m training.push` first."
        )

    def write(folder: Path) -> None:
        for file in TEMPLATE.iterdir():
            text = file.read_text(encoding="utf-8").replace(PLACEHOLDER, model)
            (folder / file.name).write_text(text, encoding="utf-8")
        shutil.copy(REPOSITORY / "LICENSE", folder)
        shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))

    replace_folder(output, write, "README.md")
