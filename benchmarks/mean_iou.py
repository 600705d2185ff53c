# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Compares the `mean_iou` metric of this project with the public one of `evaluate`: results, time, memory.

    python -m benchmarks.mean_iou [--public FOLDER_OR_NAME]

Both get the same maps in batches, as stacked arrays, and compute once. They take turns in one process. "Regions" are
maps as a model's logits make them: the largest of smooth random fields, of which some 4 % of the pixels border on
another pair of label and prediction; "noise" is an id drawn for every pixel, which no segmentation looks like. Memory
is the growth of the process's resident memory at its highest, in a pass that is not timed.
"""

import argparse
import warnings
from functools import partial

import evaluate
import numpy as np
import torch
from PIL import Image

from training import REPOSITORY

from .speed import alternate, memory_of


OURS = REPOSITORY / "training" / "metrics" / "mean_iou"
HEIGHT, WIDTH, NUM_LABELS, IGNORE_INDEX = 512, 683, 150, 255
NUM_REGION_CLASSES = 24  # in one image


def draw_fields(generator: np.random.Generator) -> np.ndarray:
    """Smooth random fields of shape `(num_region_classes, height, width)`: noise at low resolution, enlarged."""
    fields = generator.normal(size=(NUM_REGION_CLASSES, 6, 8)).astype(np.float32)
    size = (WIDTH, HEIGHT)
    return np.stack([np.asarray(Image.fromarray(field).resize(size, Image.Resampling.BICUBIC)) for field in fields])


def draw_regions(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A prediction that is right for most pixels, and a label with some unlabelled ones, of type uint8."""
    fields = draw_fields(generator)
    ids = generator.permutation(NUM_LABELS)[:NUM_REGION_CLASSES].astype(np.uint8)
    label, prediction = ids[fields.argmax(axis=0)], ids[(fields + 0.35 * draw_fields(generator)).argmax(axis=0)]
    label[:40, :60] = IGNORE_INDEX
    return prediction, label


def draw_noise(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a label drawn pixel by pixel, of type uint8."""
    prediction, label = generator.integers(0, NUM_LABELS, (2, HEIGHT, WIDTH), dtype=np.uint8)
    label[:40, :60] = IGNORE_INDEX
    return prediction, label


def run(metric: evaluate.Metric, predictions: np.ndarray, labels: np.ndarray, batch_size: int) -> dict:
    for start in range(0, len(labels), batch_size):
        batch = slice(start, start + batch_size)
        metric.add_batch(predictions=predictions[batch], references=labels[batch])
    return metric.compute(num_labels=NUM_LABELS, ignore_index=IGNORE_INDEX)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--public", default="mean_iou", help="Folder of the public metric, or its name on the Hub.")
    parser.add_argument("--num_maps", type=int, default=50)
    parser.add_argument("--batch_size", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7, help="The median of so many is printed.")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # the public metric's, of types and of 0 / 0

    public_metric, our_metric = evaluate.load(arguments.public), evaluate.load(str(OURS))
    num_threads = torch.get_num_threads()
    print(f"{arguments.num_maps} maps of {HEIGHT} x {WIDTH}, {NUM_LABELS} classes, threads of torch: {num_threads}\n")
    print("| Maps | Type | Public, ms/map | Ours, ms/map | Ratio | Public, MB | Ours, MB |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for kind, draw in (("regions", draw_regions), ("noise", draw_noise)):
        generator = np.random.default_rng(0)
        pairs = [draw(generator) for _ in range(arguments.num_maps)]
        for dtype in (np.uint8, np.int64):
            predictions, labels = (np.stack(maps).astype(dtype) for maps in zip(*pairs, strict=True))
            run_public, run_ours = (
                partial(run, metric, predictions, labels, arguments.batch_size)
                for metric in (public_metric, our_metric)
            )
            results = run_ours()
            for name, value in run_public().items():
                np.testing.assert_allclose(results[name], value, rtol=1e-12, err_msg=name)
            ours_mb, public_mb = (memory_of(function) / 1e6 for function in (run_ours, run_public))
            public, ours, ratio = alternate(run_public, run_ours, arguments.rounds)
            public_ms, ours_ms = (1000 * seconds / arguments.num_maps for seconds in (public, ours))
            print(
                f"| {kind} | {dtype.__name__} | {public_ms:.2f} | {ours_ms:.2f} | {ratio:.0f} x | {public_mb:.0f} | "
                f"{ours_mb:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
