# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""JSON files of others."""

import json
from collections.abc import Callable
from pathlib import Path

from modeling_denseclip.configuration_denseclip import shorten
from modeling_denseclip.tools.files.photographs import open_file


def read_json(path: Path, may_be_of_form: Callable[[bytes], bool]) -> object:
    """
    What a JSON file holds, in UTF-8 with or without a mark before it, UTF-16 or UTF-32.

    A folder may hold thousands of JSON files of other forms, some with pictures in them. They are told by their words,
    which are found sooner than parsed.

    Args:
        path (`Path`): the file.
        may_be_of_form (`Callable[[bytes], bool]`): whether its text, with one byte for each letter of ASCII, holds the
            words without which a file is not of the form.

    Returns:
        `object`: what it holds, `None` for a file of another form.

    Raises:
        ValueError: for a file that holds the words and cannot be parsed. Its message does not name the file.
        OSError: for a file that cannot be read.
    """
    try:
        with open_file(path) as file:
            text = file.read()
        if not may_be_of_form(text.replace(b"\0", b"")):  # UTF-16 and UTF-32 fill up with zeros
            return None
        return json.loads(text)
    except OSError as error:
        raise OSError(f"{path} cannot be read: {shorten(error)}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text in UTF-8 ({shorten(error)}): save it in that encoding") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no valid JSON ({shorten(error)}): export or copy it again") from error
    except MemoryError as error:
        raise ValueError("it needs more memory than there is to be read: split it") from error
