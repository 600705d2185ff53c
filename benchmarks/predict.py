# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
How long `denseclip predict` takes beside its model's own passes, on photographs of 12 megapixels.

    python -m benchmarks.predict                      # a quarter of an hour on two cores
    python -m benchmarks.predict --photographs 8 --rounds 1

Four things take turns: the command, which reads and writes in threads; the same functions one after the other; the
model alone, on photographs that are prepared already; and the command with a model that takes no time, which tells how
many photographs a core reads and writes. Both ways are first checked to write the same files.

The weights are random, and no trained model is at hand, so the model is run and its logits are replaced by others:
smooth ones of 150 classes with some noise, whose map has borders as that of a trained one.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch.nn import functional as F
from tqdm import tqdm

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.commands.predict import (
    PreparedPhotograph,
    Task,
    predict_photographs,
    save_classes,
    to_overlay_size,
)
from modeling_denseclip.tools.files.photographs import read_photograph
from modeling_denseclip.tools.insight.predictors import ClassPredictor, batched
from modeling_denseclip.tools.pictures.palettes import generate_palette

from .speed import make_config, wait_for


NUM_DRAWN = 4  # photographs that differ; the others are links to them
MODEL, COMMAND = "model's own passes", "command"


def draw_logits(num_labels: int, size: tuple[int, int]) -> torch.Tensor:
    """Smooth logits with some noise, `(1, num_labels, *size)`, whose map has borders as that of a trained model."""
    generator = torch.Generator().manual_seed(0)
    frequency = 8 * torch.randn(1, num_labels, 1, 1, generator=generator)
    coarse = frequency + 6 * torch.randn(1, num_labels, 8, 11, generator=generator)
    smooth = F.interpolate(coarse, size=size, mode="bicubic")
    return smooth + 0.15 * torch.randn(smooth.shape, generator=generator)


class ReplacedLogits(ClassPredictor):
    """Runs the model, unless `is_instant`, and returns other logits."""

    is_instant = False

    def compute(self, copies: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        if not self.is_instant:
            super().compute(copies, size)
        if not hasattr(self, "logits"):
            size = tuple(side // 4 for side in copies[0].shape[2:])
            self.logits = draw_logits(len(self.labels), size).to(copies[0])
        return self.logits.expand(len(copies[0]), -1, -1, -1)


def draw_photograph(seed: int, height: int, width: int) -> PIL.Image.Image:
    """Blots of all sizes under a camera's noise, of which a JPEG has about 3 MB."""
    generator = np.random.default_rng(seed)
    pixels = generator.normal(128, 3, size=(height, width, 3)).astype(np.float32)
    for columns, strength in ((8, 60), (64, 30), (400, 20), (1500, 8)):
        blots = generator.normal(0, strength, size=(3, columns * 3 // 4, columns)).astype(np.float32)
        for channel, values in enumerate(blots):
            pixels[..., channel] += np.asarray(PIL.Image.fromarray(values).resize((width, height)))
    return PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def predict_plainly(predictor: ClassPredictor, targets: dict[Path, list[Path]], batch_size: int) -> list[dict]:
    """As [`predict_photographs`], one thing after the other."""
    photographs = ((file, read_photograph(file)) for file in targets)
    entries = []
    for batch in batched(photographs, batch_size, key=lambda item: item[1].size):
        size = batch[0][1].size[::-1]
        logits = predictor.compute(predictor.prepare_scales([photograph for _, photograph in batch]), size)
        for (file, photograph), of_one in zip(batch, logits, strict=True):
            prepared = PreparedPhotograph(Task(file, targets[file]), size, to_overlay_size(photograph), [])
            entry, _ = save_classes(predictor, prepared, of_one)
            entries.append({"file": str(file), "width": size[1], "height": size[0], **entry})
    return entries


def measure(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds that pass, and seconds of the processor."""
    passed, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - passed, time.process_time() - processor


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(0)
    model = DenseCLIPForSemanticSegmentation(make_config(args.model)).eval().fuse()
    predictor = ReplacedLogits(model, DenseCLIPImageProcessor(), generate_palette(model.config.num_labels))
    seconds = compare(predictor, args)
    print(f"{args.photographs} photographs, batches of {args.batch_size}, {os.cpu_count()} cores\n")
    print("| What | Time of one | Beside the model | Processor time of one | Beside the model |")
    print("|---|---:|---:|---:|---:|")
    for name, values in seconds.items():
        cells = []
        for kind in range(2):
            ratios = [value[kind] / own[kind] for value, own in zip(values, seconds[MODEL], strict=True)]
            each = statistics.median(value[kind] for value in values) / args.photographs
            cells += [f"{each:.3f} s", f"{statistics.median(ratios):.2f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="denseclip_fpn_rn50", metavar="STEM", help="of a file in configuration/models/"
    )
    parser.add_argument("--photographs", type=int, default=40)
    parser.add_argument("--size", type=int, nargs=2, default=(3000, 4000), metavar=("HEIGHT", "WIDTH"), help="of each")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args(words)


def compare(predictor: ReplacedLogits, args: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Of each of the four things and each round: seconds that pass and those of the processor, of all photographs."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = [Path(folder, f"drawn{seed}.jpg") for seed in range(NUM_DRAWN)]
        for seed, file in enumerate(drawn):
            draw_photograph(seed, *args.size).save(file, quality=90)
        files = [Path(folder, f"{index:03}.jpg") for index in range(args.photographs)]
        for index, file in enumerate(files):
            file.symlink_to(drawn[index % NUM_DRAWN])

        def name_targets(output: str) -> dict[Path, list[Path]]:
            return {
                file: [Path(folder, output, f"{file.stem}-{kind}") for kind in ("overlay.jpg", "mask.png")]
                for file in files
            }

        def run_command(output: str = "command") -> list[dict]:
            tasks = [Task(file, paths) for file, paths in name_targets(output).items()]
            progress = tqdm(total=len(tasks), disable=True)
            ways = (to_overlay_size, save_classes)
            predicted = predict_photographs(predictor, *ways, tasks, progress, args.batch_size, {})
            return [entry for entry, _ in predicted]

        def run_plainly(output: str = "plain") -> list[dict]:
            return predict_plainly(predictor, name_targets(output), args.batch_size)

        prepared = predictor.prepare_scales([read_photograph(files[0])])
        prepared = [copy.expand(args.batch_size, -1, -1, -1).contiguous() for copy in prepared]

        def run_model() -> None:
            for _ in range(args.photographs // args.batch_size):
                predictor.compute(prepared, tuple(args.size))
            wait_for(predictor.model.device.type)

        def run_without_model() -> None:
            predictor.is_instant = True
            run_command()
            predictor.is_instant = False

        with redirect_stdout(StringIO()):
            results = run_command(), run_plainly()
        entries = [
            [{key: value for key, value in entry.items() if key not in ("overlay", "mask")} for entry in of_way]
            for of_way in results
        ]
        names = [path.name for paths in name_targets("").values() for path in paths]
        same = all(
            Path(folder, "command", name).read_bytes() == Path(folder, "plain", name).read_bytes() for name in names
        )
        if entries[0] != entries[1] or not same:
            raise SystemExit("The two ways differ; nothing is timed.")

        sides = {
            MODEL: run_model,
            COMMAND: run_command,
            "one after the other": run_plainly,
            "command, model that takes no time": run_without_model,
        }
        seconds = {name: [] for name in sides}
        for turn in range(args.rounds):
            for name in sorted(sides, reverse=turn % 2 == 0):
                with redirect_stdout(StringIO()):
                    seconds[name].append(measure(sides[name]))
                print(f"{name}: {seconds[name][-1]}", file=sys.stderr)
    return seconds


if __name__ == "__main__":
    main()
