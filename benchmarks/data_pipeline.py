# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
How many images per second one core brings from file to collated training batch, and where the time goes.

    python -m benchmarks.data_pipeline --data_dir DIR
    python -m benchmarks.data_pipeline --data_dir DIR --enlarge 4000 3000 --num_images 16 --rounds 3

With `--enlarge` it compares ways to decode on photographs of that size, which it makes of the first ones, with their
masks, in a temporary folder; `--grain` puts noise into them, as cameras do, which makes files larger and slower to
decode. Three ways take turns: JPEGs decoded in full and masks by Pillow, as before; JPEGs in full and masks by
`kornia_rs`, with the same samples to the last bit; and JPEGs decoded smaller, with the same labels.

Otherwise three things take turns on the same images and scales: the whole pipeline; and what any pipeline has to do,
decoding JPEGs and resizing images and masks, once with the decoder used here (OpenCV's) and once with that of
`datasets` (Pillow's).

One process, one thread; processor time, so that waiting for a disk or for other processes does not count; medians of
the rounds. The steps are timed inside of the whole pipeline, in rounds of their own.

The pipeline of the workers ends with bytes. Normalising a batch of them is a step of the model's device; what it takes
one core here is shown beside, for runs without an accelerator.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest.mock import patch

import cv2
import datasets
import numpy as np
import PIL.Image
import torch
from torch.utils.data import default_collate

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools.files.photographs import open_photograph
from training.data import png_ids, transforms
from training.data.load import SegmentationData, load_data
from training.data.transforms import (
    TrainingTransform,
    encoded_file,
    normalize_batch,
    read_image,
    read_mask,
    scaled_size,
    with_encoded,
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


def enlarge(data: SegmentationData, num_images: int, size: tuple[int, int], grain: float, folder: Path) -> None:
    """Write the first pairs of the training split as a data set of photographs of this width and height."""
    noise = np.random.default_rng(0).standard_normal((*size[::-1], 3), dtype=np.float32) * grain
    for kind in ("images", "annotations"):
        (folder / kind / "training").mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(data.class_names), encoding="utf-8")
    for row in with_encoded(data.train, "image", "annotation").select(range(num_images)):
        image = cv2.resize(read_image(row["image"]), size, interpolation=cv2.INTER_CUBIC)
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
        mask = cv2.resize(read_mask(row["annotation"]), size, interpolation=cv2.INTER_NEAREST)
        name = f"{row['index']:05}"
        PIL.Image.fromarray(image).save(folder / "images" / "training" / f"{name}.jpg", quality=92)
        PIL.Image.fromarray(mask).save(folder / "annotations" / "training" / f"{name}.png")


def compare_ways(
    rows: datasets.Dataset, image_processor: DenseCLIPImageProcessor, crop_size: int, rounds: int
) -> None:
    """Print what a sample takes in each way to decode, and how far reduced ones are from published ones."""
    if png_ids.decode_image_png_u8 is None:
        raise SystemExit("kornia_rs is not installed, so masks are decoded by Pillow in each way.")
    ways = {
        "JPEGs in full, masks by Pillow": (False, None),
        "JPEGs in full": (False, png_ids.decode_image_png_u8),
        "JPEGs decoded smaller": (True, png_ids.decode_image_png_u8),
    }

    def read(way: str) -> dict[str, torch.Tensor]:
        reduce_jpegs, decode = ways[way]
        transform = TrainingTransform(image_processor, (crop_size, crop_size), reduce_jpegs=reduce_jpegs)
        with patch.object(png_ids, "decode_image_png_u8", decode):
            return default_collate(with_transform(rows, transform).__getitems__(list(range(len(rows)))))

    published, *_ = batches = [read(way) for way in ways]
    seconds = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            seconds[way].append(seconds_of(partial(read, way), time.process_time))
    medians = [statistics.median(times) for times in seconds.values()]
    print("\n| way | ms per sample | ratio | mean difference of pixels, of 255 |\n|---|---:|---:|---:|")
    for (way, (reduce_jpegs, _)), batch, median in zip(ways.items(), batches, medians, strict=True):
        assert torch.equal(batch["labels"], published["labels"]), way
        difference = (batch["pixel_values"].float() - published["pixel_values"].float()).abs().sum().item()
        difference /= 3 * published["sizes"].prod(dim=1).sum().item()  # without the padding
        assert reduce_jpegs or difference == 0, way
        print(f"| {way} | {1000 * median / len(rows):.1f} | {medians[0] / median:.2f} | {difference:.2f} |")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="the folder of the data set")
    parser.add_argument("--dataset", default="folder", help="'folder' or 'ade20k'")
    parser.add_argument("--short_side", type=int, default=512)
    parser.add_argument("--crop_size", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--num_images", type=int, default=120, help="the first so many are used")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--enlarge", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="of photographs to compare on"
    )
    parser.add_argument("--grain", type=float, default=0.0, help="deviation of their noise, of 255")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)

    data = load_data(args.dataset, args.data_dir, splits=("training",))
    num_images = min(args.num_images, len(data.train))
    rows = data.train.select(range(num_images))
    image_processor = DenseCLIPImageProcessor(
        size={"shortest_edge": args.short_side, "longest_edge": 4 * args.short_side},
        do_reduce_labels=data.reduce_labels,
    )
    if args.enlarge is not None:
        with tempfile.TemporaryDirectory() as name:
            enlarge(data, num_images, tuple(args.enlarge), args.grain, Path(name) / "data")
            enlarged = load_data(data_dir=Path(name) / "data", splits=("training",), cache_dir=Path(name) / "cache")
            sizes = [file.stat().st_size for file in Path(name).glob("data/images/*/*")]
            width, height = args.enlarge
            print(f"{num_images} photographs of {height} x {width} pixels, {np.mean(sizes) / 1e6:.1f} MB each")
            compare_ways(enlarged.train, image_processor, args.crop_size, args.rounds)
        return
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
