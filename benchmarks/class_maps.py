# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
How long it takes from logits to the class of each pixel, and to a score per class.

    python -m benchmarks.class_maps --model FOLDER --image PHOTOGRAPH      # a model's own logits
    python -m benchmarks.class_maps                                        # without one: areas in noise

Plain enlarges all logits, in parts that stay in a CPU's cache, and takes the greatest class; with scores it adds up
the softmax probability of each pixel. Both give the same classes, which is checked before they are timed, in turns.
"""

import argparse
from functools import partial

import numpy as np
import PIL.Image
import torch

from modeling_denseclip.class_maps_denseclip import class_maps, iterate_enlarged, whole_positions
from modeling_denseclip.tools.files.loading import load_model
from modeling_denseclip.tools.files.photographs import read_photograph

from .speed import alternate


SIZES = ((1080, 1920), (3000, 4000))
NUM_LABELS, LOGITS_SIZE, NUM_AREAS = 150, (128, 171), 24


def areas_in_noise(num_labels: int = NUM_LABELS) -> torch.Tensor:
    """Logits of areas with noise all over, `(num_labels, logits_height, logits_width)`."""
    generator = np.random.default_rng(0)
    fields = [
        np.asarray(PIL.Image.fromarray(field).resize(LOGITS_SIZE[::-1], PIL.Image.Resampling.BICUBIC))
        for field in generator.normal(size=(NUM_AREAS, 6, 8)).astype(np.float32)
    ]
    areas = torch.from_numpy(generator.permutation(num_labels)[:NUM_AREAS][np.argmax(fields, axis=0)])
    logits = torch.from_numpy(generator.normal(size=(num_labels, *LOGITS_SIZE)).astype(np.float32))
    return logits.scatter_add(0, areas[None], torch.full((1, *LOGITS_SIZE), 6.0))


@torch.no_grad()
def logits_of(model_name: str, photograph: str, short_side: int) -> torch.Tensor:
    model, image_processor = load_model(model_name)
    size = {"shortest_edge": short_side, "longest_edge": 4 * short_side}
    inputs = image_processor(read_photograph(photograph), size=size, return_tensors="pt")
    return model.eval()(**inputs).logits[0]


def find(logits: torch.Tensor, size: tuple[int, int], with_scores: bool) -> torch.Tensor:
    return class_maps([(logits, *whole_positions(size, logits))], with_scores=with_scores)[0].class_ids


def plain(logits: torch.Tensor, size: tuple[int, int], with_scores: bool) -> torch.Tensor:
    class_ids = torch.empty(size, dtype=torch.int64)
    sums = torch.zeros(2, len(logits), dtype=torch.float64)
    for rows, enlarged in iterate_enlarged(logits, *whole_positions(size, logits)):
        greatest, class_ids[rows] = enlarged.max(dim=-1)
        if with_scores:
            found = class_ids[rows].flatten()
            probabilities = enlarged.sub_(greatest[..., None]).exp_().sum(dim=-1).reciprocal().flatten().double()
            sums[0] += torch.bincount(found, minlength=len(logits))
            sums[1] += torch.bincount(found, probabilities, len(logits))
    return class_ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--model", help="a trained model: a folder, or the id of a repository on the Hub")
    parser.add_argument("--image", help="a photograph for it")
    parser.add_argument("--short_side", type=int, default=512, help="of what the model sees, in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="the medians of so many are printed")
    args = parser.parse_args()
    logits = areas_in_noise() if args.model is None else logits_of(args.model, args.image, args.short_side)
    print(
        f"{len(logits)} classes, logits of {logits.shape[1]} x {logits.shape[2]}, {torch.get_num_threads()} threads\n"
    )
    print("| Pixels | What | Plain | Ours | Ratio | Scores beside ids |")
    print("|---|---|---:|---:|---:|---:|")
    for size in SIZES:
        ids_time = None
        for what, with_scores in (("class ids", False), ("ids and scores", True)):
            ours, theirs = (partial(compute, logits, size, with_scores) for compute in (find, plain))
            assert torch.equal(ours(), theirs())
            slow, fast, ratio = alternate(theirs, ours, args.rounds)
            ids_time = ids_time or fast
            share = f"{fast / ids_time:.2f}" if with_scores else "-"
            print(f"| {size[0]:,} x {size[1]:,} | {what} | {slow:.2f} s | {fast:.3f} s | {ratio:.1f} | {share} |")


if __name__ == "__main__":
    main()
