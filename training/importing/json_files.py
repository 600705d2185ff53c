# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""JSON files of others."""

import json
from pathlib import Path

from modeling_denseclip.configuration_denseclip import shorten
from modeling_denseclip.tools.files.photographs import open_file


def parse_json(path: Path) -> object:
    """
    What a JSON file in UTF-8 holds; a mark before its text, as some editors put, is no part of it.

    Raises:
        ValueError: for what is no such file. Its message does not name the file.
        OSError: for a file that cannot be read.
    """
    with open_file(path) as file:
        content = file.read()
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text in UTF-8 ({shorten(error)}): save it in that encoding") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no valid JSON ({shorten(error)}): export or copy it again") from error


def holds_words(path: Path, words: tuple[bytes, ...]) -> bool:
    """Whether a file that cannot be parsed holds words by which it would be known."""
    with open_file(path) as file:
        content = file.read()
    return all(word in content for word in words)
