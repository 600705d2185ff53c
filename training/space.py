# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Write a folder that is a Space of the Hub: the web page of one model.

    python -m training.space OUT --model you/denseclip-rn50
    python -m training.space OUT --model DIR --static
    python -m training.space OUT --model DIR --static --int8 static --calibration_images photographs/
    hf upload you/space OUT --repo-type space

The folder carries the package, which is on no index. The model stays on the Hub. With `--static` the folder carries
the model, and the browser of each visitor computes: there is no server but one of files, and no photograph leaves the
visitor's machine.
"""

import argparse
import shlex
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


def check_output(output: Path) -> None:
    """
    Raises:
        ValueError: for an output that holds something.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is there already. Name a new folder, or remove that one.")


def write_space(output: Path, model: str) -> None:
    """
    Args:
        output (`Path`): the folder, which must not be there or be empty.
        model (`str`): id of a repository on the Hub.

    Raises:
        ValueError: for an output that holds something, or a model that is no such id; nothing is written then.
    """
    check_output(output)
    try:
        validate_repo_id(model)
    except HFValidationError:
        valid = False
    else:
        valid = "/" in model and not Path(model).is_dir()
    if not valid:
        raise ValueError(
            f"--model takes the id of a repository on the Hub, such as {PLACEHOLDER}; got {model!r}. A Space does not"
            " carry the weights: push a folder by `python -m training.push` first, or say --static for one that does."
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
    parser.add_argument(
        "--model", metavar="MODEL", required=True, help=f"on the Hub, such as {PLACEHOLDER}; with --static a folder"
    )
    parser.add_argument(
        "--static",
        action="store_true",
        help="the model runs in the visitor's browser, and the folder carries it; needs npm, and its registry once",
    )
    static = parser.add_argument_group("with --static")
    static.add_argument("--name", help="what the page calls the model; by default its folder's name")
    static.add_argument(
        "--inference_mode",
        choices=("whole", "slide"),
        help="whether the model sees whole photographs or sliding windows. Defaults to the checkpoint's",
    )
    static.add_argument(
        "--int8",
        choices=("static", "dynamic"),
        help="a second file, in integers of 8 bits, for browsers without WebGPU; see training.export",
    )
    static.add_argument(
        "--calibration_images",
        metavar="PATH",
        type=Path,
        nargs="+",
        default=[],
        help="with --int8: photographs, or folders of them",
    )
    args = parser.parse_args(argv)
    output, model = Path(args.output), args.model
    names = ("name", "inference_mode", "int8", "calibration_images")
    given = [f"--{name}" for name in names if getattr(args, name)]
    if args.static:
        from .publishing.static_space import write_static_space  # PyTorch

        check_output(output)
        if not Path(model).is_dir():
            raise ValueError(
                f"--static takes the folder of a model, which goes into the page; got {model!r}. Fetch one of the Hub"
                f" first: hf download {PLACEHOLDER} --local-dir mine"
            )
        name = args.name or Path(model).resolve().name
        write_static_space(output, Path(model), name, args.inference_mode, args.int8, args.calibration_images)
    elif given:
        raise ValueError(f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} for --static, which is missing.")
    else:
        write_space(output, model)
    print(f"Written to: {args.output}")
    word = shlex.quote(args.output)  # for a shell
    if args.static:
        print(f"Look at it: python -m http.server --directory {word} --bind 127.0.0.1")
    print(f"Upload it:  hf upload you/space {word} --repo-type space")


if __name__ == "__main__":
    sys.exit(run_command(main))
