# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What stands beside the weights for Hugging Face's Inference Endpoints."""

from pathlib import Path

from modeling_denseclip.tools.files import devices, photographs, received

from .. import REPOSITORY
from .standalone import join_texts


FOLDER = REPOSITORY / "model_cards" / "endpoint"
# First line of what is written here.
MARK = "# Written by `python -m training.push --handler` of the DenseCLIP repository.\n"


def write_endpoint_files() -> dict[str, str]:
    """
    The texts of files by their names: the handler, with those of the package's files in it that it imports, and what
    an endpoint installs before it runs it.
    """
    handler = join_texts(FOLDER / "handler.py", (devices, photographs, received))
    requirements = (FOLDER / "requirements.txt").read_text(encoding="utf-8")
    return {"handler.py": MARK + handler, "requirements.txt": MARK + requirements}


def is_written_here(path: Path) -> bool:
    """Whether a file is one that was written here, and not somebody's own."""
    with open(path, "rb") as file:
        return file.read(len(MARK.encode())) == MARK.encode()
