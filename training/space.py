# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Write a folder that is a Space of the Hub: the web page of one model.

    python -m training.space OUT --model you/denseclip-rn50
    hf upload you/space OUT --repo-type space

The folder carries the package, which is on no index. The model stays on the Hub.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modeling_denseclip.tools.command import run_command

from .publishing.space import PLACEHOLDER, write_space


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.space",
        description="Write a folder that is a Space of the Hub: the web page of one model.",
        epilog="Then: hf upload you/space OUT --repo-type space",
    )
    parser.add_argument("output", metavar="OUT", help="folder to write; it must not be there, or be empty")
    parser.add_argument("--model", metavar="REPO", required=True, help=f"on the Hub, such as {PLACEHOLDER}")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """
    Raises:
        ValueError: for an output or a model that do not serve.
    """
    args = build_parser().parse_args(argv)
    write_space(Path(args.output), args.model)
    print(f"Written to: {args.output}")
    print(f"Upload it:  hf upload you/space {args.output} --repo-type space")


if __name__ == "__main__":
    sys.exit(run_command(main))
