# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The words of `denseclip info`."""

import argparse

from .names import check_model_name


EPILOG = """Code of the checkpoint is not run, and of its weights only norms, gamma and
counters are read, of which a part that was never trained still has the initial
ones: where norms were frozen in training, nothing shows. Of a repository on the
Hub only the configuration, the card and the heads of the weights' files are
downloaded, so what is trained is not known. Multiply-adds are counted while the
architecture runs without numbers, as in the paper: a multiply-add is 1.

examples:
  denseclip info outputs/mine
  denseclip info user/model --size 1024 1024 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("model", metavar="MODEL", help="a DenseCLIP: a folder, or the id of a repository on the Hub")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a model on the Hub")
    parser.add_argument(
        "--size",
        metavar=("H", "W"),
        type=int,
        nargs=2,
        help="height and width in pixels of the image whose multiply-adds are counted (default: a square of the short"
        " side that images are prepared with)",
    )
    parser.add_argument("--all", action="store_true", help="name all classes, not the first ones alone")
    parser.add_argument("--json", action="store_true", help="print it as JSON, for programs, with all classes")


def check(args: argparse.Namespace) -> None:
    """
    Raises:
        ValueError: for what can be no model.
    """
    check_model_name(args.model)
