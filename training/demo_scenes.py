# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Paint a small data set, for the tutorial in docs/your_own_data.md:

    python -m training.demo_scenes my_data
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modeling_denseclip.tools.command import run_command

from .demonstration.scenes import NOUNS, write_scenes


def main(words: Sequence[str] | None = None) -> None:
    """
    Raises:
        FileExistsError: for a folder that is there already: scenes would be mixed with what is in it.
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.demo_scenes",
        description="Paint a small data set of 11 classes: images/, annotations/ and classes.txt.",
    )
    parser.add_argument("dataset_dir", metavar="FOLDER", help="made, so it must not exist yet")
    parser.add_argument("--num_training", type=int, default=40, help="scenes to train on (default: %(default)s)")
    parser.add_argument("--num_validation", type=int, default=8, help="scenes to score on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides all scenes (default: %(default)s)")
    args = parser.parse_args(words)
    if Path(args.dataset_dir).exists():
        raise FileExistsError(f"{args.dataset_dir} exists already; name a new folder.")
    write_scenes(args.dataset_dir, args.num_training, args.num_validation, args.seed, nouns_only=True)
    print(
        f"Written to {args.dataset_dir}: {args.num_training} scenes to train on, {args.num_validation} to score on,"
        f" {len(NOUNS)} classes."
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
