# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What commands call photographs, models and types of numbers, checked before PyTorch is imported."""

import glob
import os
from pathlib import Path


DTYPES = ("auto", "float32", "bfloat16")  # what `--dtype` may say


def check_word(word: str) -> None:
    """
    Raises:
        ValueError: for a word that is no pattern, and stands for nothing on the disk.
    """
    if os.path.isfile(word) or os.path.isdir(word) or glob.has_magic(word):
        return
    if os.path.lexists(word):
        raise ValueError(f"{word} is neither a file nor a folder: it is a device or a pipe, or a link that is broken.")
    raise ValueError(f"{word}: there is no such file or folder.")


def check_model_name(name_or_path: str, may_be_file: bool = False) -> None:
    """
    Raises:
        ValueError: for what is not there and can be no repository on the Hub either.
    """
    path = Path(name_or_path)
    if path.is_dir() or (may_be_file and path.exists()):
        return
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # takes longer than all else here

    try:
        validate_repo_id(name_or_path)
    except HFValidationError:
        kinds = "neither a file, nor a folder, nor" if may_be_file else "neither a folder nor"
        raise ValueError(f"{name_or_path} is {kinds} the id of a repository on the Hub, such as user/name.") from None
