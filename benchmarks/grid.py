# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
What it is worth, and costs, that a picture off the grid of cells is seen as a whole (`config.fit_to_grid`).

    python -m benchmarks.grid CHECKPOINT [CHECKPOINT ...] --data_dir DIR --short_sides 360 512 640

Scores each trained model on the validation split of a folder, whole images at each size, both ways in turn: as it is
by default, and cut off at the grid as in the published code. Prints a table: mIoU and aAcc over the data set at the
masks' own size, and the median over pictures of how many times as long the default takes.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.files.photographs import to_rgb
from training.data.load import load_data
from training.metrics import confusion_matrix, mean_iou_from_confusion


WAYS = {"cut off": False, "whole": True}


@torch.no_grad()
def score(checkpoint: str, data_dir: str, short_side: int) -> str:
    """One line of the table: both ways on all pictures of one size."""
    model = DenseCLIPForSemanticSegmentation.from_pretrained(checkpoint).eval()
    config = model.config
    config.inference_mode = "whole"
    image_processor = DenseCLIPImageProcessor.from_pretrained(
        checkpoint, size={"shortest_edge": short_side, "longest_edge": 4 * short_side}
    )
    rows = load_data(data_dir=data_dir, splits=("validation",)).validation
    confusion = {way: torch.zeros(config.num_labels, config.num_labels, dtype=torch.int64) for way in WAYS}
    ratios, sizes = [], set()
    for row in rows:
        pixel_values = image_processor(to_rgb(row["image"]), return_tensors="pt").pixel_values
        labels = torch.from_numpy(np.array(row["annotation"])).long()
        sizes.add(tuple(pixel_values.shape[-2:]))
        seconds = {}
        for way, fit_to_grid in WAYS.items():
            config.fit_to_grid = fit_to_grid
            start = time.perf_counter()
            outputs = model(pixel_values)
            seconds[way] = time.perf_counter() - start
            (classes,) = image_processor.post_process_semantic_segmentation(outputs, target_sizes=[labels.shape])
            confusion[way] += confusion_matrix(classes, labels, config.num_labels, config.ignore_index)
        ratios.append(seconds["whole"] / seconds["cut off"])
    scores = {way: mean_iou_from_confusion(counts) for way, counts in confusion.items()}
    size = " ".join(f"{height} x {width}" for height, width in sorted(sizes))
    mean_iou = " / ".join(f"{100 * scores[way].mean_iou:.1f}" for way in WAYS)
    accuracy = " / ".join(f"{100 * scores[way].overall_accuracy:.1f}" for way in WAYS)
    return f"| {Path(checkpoint).name} | {size} | {mean_iou} | {accuracy} | {statistics.median(ratios):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="trained models, folders or Hub ids")
    parser.add_argument("--data_dir", required=True, help="folder of pictures and masks")
    parser.add_argument("--short_sides", nargs="+", type=int, default=[512, 640])
    args = parser.parse_args()
    rows = [score(checkpoint, args.data_dir, side) for checkpoint in args.checkpoints for side in args.short_sides]
    print("| Model | Pictures | mIoU, cut off / whole | aAcc, cut off / whole | Time, whole to cut off |")
    print("|---|---|---:|---:|---:|", *rows, sep="\n")


if __name__ == "__main__":
    main()
