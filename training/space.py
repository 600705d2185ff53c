# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Write a folder that is a Space of the Hub: the web page of one model.

    python -m training.space OUT --model you/denseclip-rn50
    hf upload you/space OUT --repo-type space

The folder carries the package, which is on no index. The model stays on the Hub.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from modeling_denseclip.tools.command import run_command
from modeling_denseclip.tools.files.saving import replace_folder

from . import REPOSITORY


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
        for file in (REPOSITORY / "model_cards" / "space").iterdir():
            text = file.read_text(encoding="utf-8").replace(PLACEHOLDER, model)
            (folder / file.name).write_text(text, encoding="utf-8")
        shutil.copy(REPOSITORY / "LICENSE", folder)
        package = "modeling_denseclip"
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))

    replace_folder(output, write, "README.md")


def main(argv: Sequence[str] | None = None) -> None:
    """
    Raises:
        ValueError: for an output or a model that do not serve.
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.space",
        description="Write a folder that is a Space of the Hub: the web page of one model.",
        epilog="Then: hf upload you/space OUT --repo-type space",
    )
    parser.add_argument("output", metavar="OUT", help="folder to write; it must not be there, or be empty")
    parser.add_argument("--model", metavar="REPO", required=True, help=f"on the Hub, such as {PLACEHOLDER}")
    args = parser.parse_args(argv)
    write_space(Path(args.output), args.model)
    print(f"Written to: {args.output}")
    print(f"Upload it:  hf upload you/space {args.output} --repo-type space")


if __name__ == "__main__":
    sys.exit(run_command(main))
