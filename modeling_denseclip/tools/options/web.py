# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The words of `denseclip web`."""

import argparse

from .names import DTYPES, check_model_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODEL", required=True, help="a DenseCLIP: a folder or a Hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--port", type=int, default=7860, help="of the page; default: %(default)s")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen at; 0.0.0.0 lets other machines in. Default: %(default)s, this machine alone",
    )
    parser.add_argument(
        "--share",
        choices=("yes", "no"),
        default="no",
        help="yes makes a public address by way of Gradio's servers; default: %(default)s",
    )
    parser.add_argument("--tokenizer", metavar="DIR_OR_ID", help="CLIP's tokenizer; by default the one beside MODEL")
    parser.add_argument("--device", help="such as cpu, cuda:1 or mps. By default a GPU of CUDA if there is one")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="what numbers the model computes in, as in denseclip predict: auto is bfloat16 where the processor"
        " multiplies in it, and float32 elsewhere. In bfloat16 cosines of words are off by some hundredths",
    )


def check(args: argparse.Namespace) -> None:
    """
    Raises:
        ValueError: for what can be no model.
    """
    check_model_name(args.model)
