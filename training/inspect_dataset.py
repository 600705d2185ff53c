# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Look at a data set of images and masks before training on it: does training accept it, and is it what it should be?

    python -m training.inspect_dataset my_data
    python -m training.inspect_dataset ADEChallengeData2016 --dataset ade20k
    python -m training.inspect_dataset my_data --similar_names openai/clip-vit-base-patch16
    python -m training.inspect_dataset --dataset_name user/name --label_column mask

A folder is laid out as

    my_data/
        classes.txt                     one name per line; line 0 names id 0 (ADE20K brings no such file)
        images/training/a.jpg           images/validation/...      (.jpg, .png, .tif, .webp or .bmp)
        annotations/training/a.png      annotations/validation/... (a class id per pixel, 255 = unlabelled)

and --dataset_name names rows of the Hub, or local ones, with the arguments that training has for them.

Training stops at the first file that it cannot use. This reads every file, names all that is wrong and how to put it
right, and exits with 0 if training accepts the data set, with 1 if not: it asks the checks of training. Give it the
--short_side and --long_side of training, by which images are too narrow or not. It prints the report, and writes it to
`report.json`, beside a `contact_sheet.png` of samples under their masks.

Names of classes that differ in a plural, an accent or punctuation alone are warned of; with --similar_names MODEL, a
CLIP or DenseCLIP, also those that its text tower hardly tells apart.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers import HfArgumentParser

from modeling_denseclip.tools.command import escape_controls, run_command

from .data.inspection import FEW_PAIRS, find_training_split, inspect_dataset
from .data.inspection_report import (
    draw_samples,
    format_report,
    write_inspection,
)
from .importing.advice import advise_import
from .options.arguments import DataArguments, SourceArguments


__all__ = ["draw_samples", "format_report", "inspect_dataset"]  # for Python


def build_parser() -> HfArgumentParser:
    parser = HfArgumentParser(
        SourceArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_dir", nargs="?", help="the folder that holds images/ and annotations/: --data_dir")
    for name, side in (("short_side", "short"), ("long_side", "long")):
        parser.add_argument(
            f"--{name}",
            type=int,
            default=getattr(DataArguments, name),
            help=f"the {side} side that training brings images to; give what you train with (default: %(default)s)",
        )
    parser.add_argument(
        "--splits",
        nargs="+",
        help="names of all splits to look at, that of training first, in place of --train_split and"
        " --validation_split",
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        help=f"processes that read files, 0 for none besides. By default one per core for more than {FEW_PAIRS} pairs",
    )
    parser.add_argument(
        "--similar_names",
        metavar="MODEL",
        help="warn of class names that the text tower of this CLIP or DenseCLIP hardly tells apart: a folder, or the"
        " id of a repository on the Hub",
    )
    parser.add_argument("--tokenizer", metavar="DIR_OR_ID", help="its tokenizer, if it is not beside MODEL")
    parser.add_argument("--output_dir", default="inspection", help="for report.json and contact_sheet.png")
    parser.add_argument("--num_samples", type=int, default=24, help="pictures on the contact sheet; 0 for no sheet")
    parser.add_argument(
        "--write_class_weights",
        metavar="FILE",
        help="write one weight per class of the training split, in order of ids: median frequency balancing",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Inspect, print, write. Returns the exit code: 0 without errors, 1 with."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if (args.num_workers or 0) < 0 or args.num_samples < 0:
        parser.error(f"numbers are at least 0, got {args.num_workers} workers and {args.num_samples} samples")
    if args.tokenizer is not None and args.similar_names is None:
        parser.error("--tokenizer goes with --similar_names")
    if args.splits is not None and (args.train_split, args.validation_split) != (None, None):
        parser.error("--splits names all splits; leave --train_split and --validation_split out")
    if args.write_class_weights is not None and args.splits and find_training_split(args.splits) is None:
        parser.error(f"--write_class_weights weighs the split to train on, which is not among {args.splits}")
    source = {field.name: getattr(args, field.name) for field in dataclasses.fields(SourceArguments)}
    data_dir = source.pop("data_dir")
    if data_dir is not None and args.dataset_dir is not None:
        parser.error(f"--data_dir {data_dir} and {args.dataset_dir} name two folders: give one")
    data_dir = args.dataset_dir if data_dir is None else data_dir
    if args.dataset == "folder" and data_dir is None and args.dataset_name is None:
        parser.error("no data set is named: give a FOLDER, --dataset ade20k or --dataset_name NAME")

    report = inspect_dataset(
        data_dir,
        splits=args.splits,
        num_workers=args.num_workers,
        similar_names=args.similar_names,
        tokenizer=args.tokenizer,
        short_side=args.short_side,
        long_side=args.long_side,
        **source,
    )
    print(format_report(report))
    if "missing_folder" in report.findings and (advice := advise_import(report.dataset_dir)):
        print(f"\n{escape_controls(advice)}\n")

    written = write_inspection(report, Path(args.output_dir), args.num_samples, args.write_class_weights)
    print("Written: " + ", ".join(written))
    if args.write_class_weights is not None and not report.accepted:
        print(f"Not written: {args.write_class_weights}, since weights of a data set with errors would be wrong.")
    return 0 if report.accepted else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
