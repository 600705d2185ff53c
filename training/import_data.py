# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
From a data set as it lies to a folder that training reads.

    python -m training.import_data SOURCE my_data
    python -m training.train --data_dir my_data ...

SOURCE is a folder with photographs and, in any arrangement of folders, their annotations:

    masks         of ids, colours, two values or one class each, as pictures, .npy, .mat or text
    coco          COCO's JSON (polygons, run lengths, boxes), also of Roboflow and CVAT
    cvat          CVAT's XML
    labelme       labelme's JSON
    label_studio  Label Studio's JSON
    yolo          YOLO's outlines, with data.yaml

It says what it found and what it makes of it. What files do not tell, such as names of colours, it asks for, and
writes nothing then. `my_data` holds links to the photographs (copies, where a disk has no links), masks of ids,
`classes.txt`, `import.json`, which says where each picture came from, and `contact_sheet.png`: look at it.

Without a part for validation, a fifth of the photographs becomes one; crops, augmented copies and near duplicates of a
photograph stay together.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modeling_denseclip.tools.command import run_command

from .importing.forms import FORMS
from .importing.importer import DEFAULT_SHARE, Wishes, import_data


__all__ = ["Wishes", "import_data"]  # for Python


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the folder as it lies")
    parser.add_argument("target", type=Path, metavar="TARGET", help="the folder to write")
    parser.add_argument("--form", choices=FORMS, help="of the annotations, where SOURCE has several")
    parser.add_argument(
        "--images",
        nargs="+",
        default=(),
        metavar="PATTERN",
        help="which files are photographs, such as '*/rgb/*.png' or '!*/depth/*', which are not",
    )
    parser.add_argument(
        "--masks", nargs="+", default=(), metavar="PATTERN", help="which files are masks, such as '*_labelIds.png'"
    )
    parser.add_argument("--mat_key", metavar="NAME", help="the array of .mat files that is the mask")
    parser.add_argument(
        "--names",
        nargs="+",
        default=(),
        metavar="FILE|KEY=NAME",
        help="names of classes: a file; or 255=crack, '#ff004d=lake', 'trf_lgt=traffic light'; rest=... names what"
        " nothing covers, others=... all that nothing names; the name 'unlabelled' leaves out",
    )
    parser.add_argument(
        "--overlaps",
        choices=("later", "smaller"),
        help="which of two shapes is seen: the later one of the file, or the smaller one; by default as the form's own"
        " tool has it, and of masks the smaller one",
    )
    parser.add_argument(
        "--validation_share",
        type=float,
        metavar="SHARE",
        help=f"of the photographs for validation, where no part is (default: {DEFAULT_SHARE})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of that drawing (default: 0)")
    parser.add_argument(
        "--group_by",
        metavar="REGEX",
        help="what of a photograph's path those share that must stay together, such as 'patient\\d+'",
    )
    parser.add_argument("--copy", action="store_true", help="copy photographs, rather than link them")
    parser.add_argument("--overwrite", action="store_true", help="replace TARGET, if an import has made it")
    parser.add_argument("--dry_run", action="store_true", help="write nothing but TARGET_contact_sheet.png")
    parser.add_argument("--num_workers", type=int, help="processes that read files; by default one per core")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Import, and print. Returns the exit code: 0, or 1 if files were broken or training would refuse the result."""
    parser = build_parser()
    args = vars(parser.parse_args(argv))
    if args["num_workers"] is not None and args["num_workers"] < 0:
        parser.error(f"--num_workers is at least 0; got {args['num_workers']}")
    source, target = args.pop("source"), args.pop("target")
    return 0 if import_data(source, target, Wishes(**args), say=print) else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
