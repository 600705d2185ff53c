# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""
Parameters and GFLOPs of configurations, beside the paper's.

    python -m training.complexity                                     # all of configuration/models, at 1024 x 1024
    python -m training.complexity outputs/mine --size 512 512         # a checkpoint, with its own classes
    python -m training.complexity configuration/models/denseclip_fpn_vit_b16.json --by_module

One image goes through the real model on PyTorch's meta device, which has shapes but no numbers: no weights are read,
and a row takes a second. It is counted as by fvcore, which the paper used: a multiply-add is 1. The products of
attention always count, where fvcore leaves out those of fused attention. benchmarks/complexity.md explains the rest.
"""

import argparse
import sys
from collections.abc import Sequence

from modeling_denseclip.tools.command import run_command
from modeling_denseclip.tools.insight.complexity import measure

from . import REPOSITORY
from .publishing.complexity import ADE20K_NUM_LABELS, format_complexities, format_parts, name_of, read_config


MODELS = REPOSITORY / "configuration" / "models"


def main(argv: Sequence[str] | None = None) -> None:
    """
    Raises:
        ValueError: for a config that is not there or not ours, or an image that is too small.
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.complexity",
        description="Parameters and GFLOPs of configurations, beside the paper's.",
    )
    parser.add_argument(
        "configs",
        metavar="CONFIG",
        nargs="*",
        help="a JSON file, or a checkpoint's directory; all of configuration/models if none is named",
    )
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), default=(1024, 1024), help="of the image, in pixels"
    )
    parser.add_argument(
        "--num_labels", type=int, metavar="K", help=f"classes; by default a checkpoint's own, or {ADE20K_NUM_LABELS}"
    )
    parser.add_argument("--by_module", action="store_true", help="show besides which part does how much of what")
    args = parser.parse_args(argv)
    if args.num_labels is not None and args.num_labels < 1:
        parser.error(f"--num_labels must be at least 1, got {args.num_labels}")

    sources = args.configs or sorted(map(str, MODELS.glob("*.json")))
    size = tuple(args.size)
    rows = [(name_of(source), measure(read_config(source, args.num_labels), size)) for source in sources]
    print(format_complexities(rows))
    print(f"\nOne image of {size[0]} x {size[1]} pixels; a multiply-add counts as 1.")
    if any(complexity.encodes_text_per_image for _, complexity in rows):
        print("* The text tower reads what this image shows, so it runs for every image and is in both columns.")
    if args.by_module:
        for name, complexity in rows:
            print(f"\n{name}\n\n{format_parts(complexity)}")
    uncounted = set().union(*(complexity.uncounted for _, complexity in rows))
    print(f"\nCounted as 0, besides what works element by element: {', '.join(sorted(uncounted))}.")


if __name__ == "__main__":
    sys.exit(run_command(main))
