# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The words of `denseclip explain`."""

import argparse
from pathlib import Path

from .names import check_model_name, check_word


LARGEST_CLASSES = 3  # that are explained if nothing is named
NUMBERS = "explanation.json"

EPILOG = f"""what is written, below --out:
  PHOTO-pixel-X-Y.png      what speaks for each class at a pixel: probabilities, scores, and score maps
  PHOTO-class-ID-NAME.png  where a class is seen, and what it is confused with
  class-names.png          with --names: cosines of class names, as a matrix
  {NUMBERS}         with --json: the numbers

A score is the cosine of a cell of the picture and a class name. Before prompting, the name is as it comes from the
text tower; after prompting, the picture has changed it, and that is what the decode head is given. The probability is
the decode head's, and decides. The photograph is looked at as a whole, without sliding windows.

Names are hard to tell apart if at no pixel their scores can differ by more than half of what those of the median pair
of these names can; --threshold sets a cosine instead.

examples:
  denseclip explain street.jpg --model user/model --out why
  denseclip explain street.jpg --model user/model --out why --pixel 320 200 --class road sidewalk
  denseclip explain --model user/model --out why --names
  denseclip explain --model openai/clip-vit-base-patch16 --out why --names sofa couch armchair lamp
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("photo", metavar="PHOTO", nargs="?", help="a photograph")
    parser.add_argument(
        "--model",
        required=True,
        help="a DenseCLIP with language: a folder, or the id of a repository on the Hub. For --names NAME ... also a"
        " CLIP",
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the pictures; made if it is missing")
    parser.add_argument(
        "--pixel",
        metavar=("X", "Y"),
        nargs=2,
        type=int,
        action="append",
        default=[],
        help="explain a pixel, counted from 0 at the upper left corner of the upright photograph; may be repeated",
    )
    parser.add_argument(
        "--class",
        dest="classes",
        metavar="NAME",
        nargs="+",
        default=[],
        help=f"explain classes. With neither --pixel nor --class, the {LARGEST_CLASSES} largest in the photograph",
    )
    parser.add_argument(
        "--names",
        metavar="NAME",
        nargs="*",
        help="compare class names as the text tower reads them: these, or the model's own",
    )
    parser.add_argument(
        "--threshold", metavar="COSINE", type=float, help="with --names: report pairs from this cosine on"
    )
    parser.add_argument("--json", action="store_true", help=f"write the numbers to {NUMBERS} too")
    parser.add_argument("--tokenizer", metavar="DIR_OR_ID", help="CLIP's tokenizer, if it is not beside the model")
    parser.add_argument("--device", help="such as cpu, cuda:1 or mps. By default a GPU of CUDA if there is one")


def check(args: argparse.Namespace) -> None:
    """
    Raises:
        ValueError: for options that do not go together, or a photograph that is not there.
    """
    if args.photo is None and (args.pixel or args.classes):
        raise ValueError("--pixel and --class explain a photograph: name a PHOTO.")
    if args.photo is None and args.names is None:
        raise ValueError("There is nothing to explain: name a PHOTO, or compare class names by --names.")
    if args.threshold is not None and not (args.names is not None and -1 <= args.threshold <= 1):
        raise ValueError(f"--threshold is a cosine in [-1, 1] and goes with --names; got {args.threshold}.")
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out must be a folder.")
    if args.photo is not None:
        check_word(args.photo)
    check_model_name(args.model, may_be_file=args.photo is None)
