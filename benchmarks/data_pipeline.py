# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
How many images per second one core brings from file to collated training batch, and where the time goes.

    python -m benchmarks.data_pipeline --data_dir DIR

Three things take turns on the same images and scales: the whole pipeline; and what any pipeline has to do, decoding
JPEGs and resizing images and masks, once with the decoder used here (OpenCV's) and once with that of `datasets`
(Pillow's). One process, one thread; processor time, so that waiting for a disk or for other processes does not count;
medians of the rounds. The steps are timed inside of the whole pipeline, in rounds of their own.

The pipeline of the workers ends with bytes. Normalising a batch of them is a step of the model's device; what it takes
one core here is shown beside, for runs without an accelerator.
"""

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from unittest.mock import patch

import cv2
import datasets
import numpy as np
import torch
from torch.utils.data import default_collate

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools.files.photographs import open_photograph
from training.data import transforms
from training.data.load import load_data
from training.data.transforms import (
    TrainingTransform,
    encoded_file,
    normalize_batch,
    read_image,
    read_mask,
    scaled_size,
    with_transform,
)

from .speed import seconds_of


STEPS = {
    "decode image": (transforms, "read_image"),
    "decode mask": (transforms, "read_labels"),
    "resize image and mask": (cv2, "resize"),
    "crop": (TrainingTransform, "random_crop"),
    "flip": (cv2, "flip"),
    "photometric distortion": (transforms, "photometric_distortion"),
    "channels first, pad": (TrainingTransform, "pad"),
}


def seconds_of_steps(function: Callable[[], None]) -> Counter:
    """Seconds in each of the steps while the function runs, the rest of it under "rows, collate, all else"."""
    seconds: Counter = Counter()

    def timed(step: str, call: Callable) -> Callable:
        def timed_call(*args, **kwargs):
            start = time.process_time()
            result = call(*args, **kwargs)
            seconds[step] += time.process_time() - start
            return result

        return timed_call

    with ExitStack() as stack:
        for step, (owner, name) in STEPS.items():
            stack.enter_context(patch.object(owner, name, timed(step, getattr(owner, name))))
        total = seconds_of(function, time.process_time)
    seconds["rows, collate, all else"] = total - seconds.total()
    return seconds


def pillow_decode(image: dict) -> np.ndarray:
    return np.asarray(open_photograph(encoded_file(image)).convert("RGB"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="the folder of the data set")
    parser.add_argument("--dataset", default="folder", help="'folder' or 'ade20k'")
    parser.add_argument("--short_side", type=int, default=512)
    parser.add_argument("--crop_size", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--num_images", type=int, default=120, help="the first so many are used")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)

    data = load_data(args.dataset, args.data_dir, splits=("training",))
    rows = data.train.select(range(min(args.num_images, len(data.train))))
    image_processor = DenseCLIPImageProcessor(
        size={"shortest_edge": args.short_side, "longest_edge": 4 * args.short_side},
        do_reduce_labels=data.reduce_labels,
    )
    transform = TrainingTransform(image_processor, (args.crop_size, args.crop_size))
    batches = [range(start, min(start + args.batch_size, len(rows))) for start in range(0, len(rows), args.batch_size)]
    augmented = with_transform(rows, transform)

    def whole_pipeline() -> None:
        for indices in batches:
            default_collate(augmented.__getitems__(list(indices)))

    images = list(rows.cast_column("image", datasets.Image(decode=False))["image"])
    masks = [read_mask(mask) for mask in rows["annotation"]]
    sizes = []
    for index, mask in enumerate(masks):
        scale = np.random.default_rng((transform.seed, 0, index)).uniform(*transform.scale_range)
        sizes.append(image_processor.get_resized_size(*mask.shape, scaled_size(image_processor.size, scale))[::-1])

    def decode_and_resize(decode: Callable[[dict], np.ndarray]) -> None:
        for image, mask, size in zip(images, masks, sizes, strict=True):
            cv2.resize(decode(image), size, interpolation=cv2.INTER_LINEAR)
            cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)

    batch = default_collate(augmented.__getitems__(list(batches[0])))

    def normalize() -> None:
        for _ in batches:
            normalize_batch(batch, image_processor)

    whole, normalized, opencv, pillow, steps = [], [], [], [], []
    for _ in range(args.rounds + 1):
        whole.append(seconds_of(whole_pipeline, time.process_time))
        normalized.append(seconds_of(normalize, time.process_time))
        opencv.append(seconds_of(lambda: decode_and_resize(read_image), time.process_time))
        pillow.append(seconds_of(lambda: decode_and_resize(pillow_decode), time.process_time))
        steps.append(seconds_of_steps(whole_pipeline))

    def milliseconds(seconds: list[float]) -> float:
        return 1000 * statistics.median(seconds[1:]) / len(rows)  # the first round warms up

    print(f"{data.name}: {len(rows)} images, mean size {np.mean([mask.size for mask in masks]) / 1e6:.2f} megapixels")
    print("\n| step | ms per image |\n|---|---|")
    for step in steps[0]:
        print(f"| {step} | {milliseconds([seconds[step] for seconds in steps]):.2f} |")
    print(f"| **whole pipeline** | {milliseconds(whole):.2f}, {1000 / milliseconds(whole):.0f} images/s/core |")
    print(f"| not of the workers: normalise a batch, on this CPU | {milliseconds(normalized):.2f} |")
    for name, floor in (("OpenCV", opencv), ("Pillow", pillow)):
        ratio = milliseconds(whole) / milliseconds(floor)
        ratio_on_cpu = (milliseconds(whole) + milliseconds(normalized)) / milliseconds(floor)
        ratios = f"ratio {ratio:.2f}; {ratio_on_cpu:.2f} with normalisation on this CPU"
        print(f"| JPEG decode ({name}) and resize alone | {milliseconds(floor):.2f}, {ratios} |")


if __name__ == "__main__":
    main()
