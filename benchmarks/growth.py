# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
How cost grows: by pixels, classes, images, windows, processes.

    OMP_NUM_THREADS=1 python -m benchmarks.growth               # some minutes
    OMP_NUM_THREADS=1 python -m benchmarks.growth windows       # some rows

Each row runs the same thing in several sizes, which take turns, and fits seconds = c * size ** exponent by least
squares of the logarithms of the medians. 1 is growth in proportion; below it, a part does not grow. Seconds are of the
processor, and of one thread. Weights are random. Where the network itself is not the question, it is
`denseclip_fpn_small`, so that the rest weighs more.
"""

import argparse
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.command import main as run_denseclip
from training.evaluate import main as evaluate

from .class_maps import areas_in_noise, find
from .class_names import KINDS, make_model, make_token_ids
from .speed import make_config, seconds_of


AT_MOST = 1.1
SMALL = "denseclip_fpn_small"
CLASS_COUNTS = (150, 600, 2400)
WINDOW, STRIDE = 256, 128
IMAGES_OF_A_PROCESS = 16
# A size, such as a number of pixels -> a function that runs something in it and returns seconds of the processor.
Runs = Mapping[int, Callable[[], float]]


def timed(call: Callable, *args, **kwargs) -> Callable[[], float]:
    """A function that runs a call and returns seconds of the processor."""
    return lambda: seconds_of(partial(call, *args, **kwargs), time.process_time)


def build(stem: str, **changes) -> DenseCLIPForSemanticSegmentation:
    """A model of random weights; `changes` are fields of the config."""
    torch.manual_seed(0)
    fields = make_config(stem).to_dict()
    if "id2label" in changes:
        del fields["class_names"], fields["label2id"]  # which follow from it
    return DenseCLIPForSemanticSegmentation(DenseCLIPConfig(**{**fields, **changes})).eval()


def class_ids_by_pixels(folder: Path) -> Runs:
    logits = areas_in_noise()
    sizes = ((540, 720), (1080, 1440), (2160, 2880), (4320, 5760))
    return {height * width: timed(find, logits, (height, width), with_scores=True) for height, width in sizes}


def class_ids_by_classes(folder: Path) -> Runs:
    return {count: timed(find, areas_in_noise(count), (1080, 1440), with_scores=True) for count in CLASS_COUNTS}


def model_by_pixels(stem: str, folder: Path) -> Runs:
    model = build(stem).fuse()
    return {
        side * side: timed(model, torch.randn(1, 3, side, side), inference_mode="whole")
        for side in (256, 384, 512, 768)
    }


def model_by_classes(folder: Path) -> Runs:
    models = {
        count: build(
            SMALL,
            id2label={index: f"class {index}" for index in range(count)},
            class_token_ids=make_token_ids(count, KINDS["names"]),
        ).fuse()
        for count in CLASS_COUNTS
    }
    return {count: timed(model, torch.randn(1, 3, 512, 512)) for count, model in models.items()}


def reading_names(folder: Path) -> Runs:
    models = (make_model(make_token_ids(count, KINDS["names"])) for count in CLASS_COUNTS)
    return {count: timed(model.encode_class_names) for count, model in zip(CLASS_COUNTS, models, strict=True)}


def windows(folder: Path) -> Runs:
    model = build(SMALL).fuse()
    options = {"inference_mode": "slide", "window_size": WINDOW, "window_stride": STRIDE}
    return {
        count: timed(model.segment_classes, torch.randn(1, 3, WINDOW, WINDOW + (count - 1) * STRIDE), **options)
        for count in (4, 8, 16, 32)
    }


def training_step(folder: Path) -> Runs:
    model = build(SMALL).train()
    optimizer = torch.optim.AdamW(model.parameters())

    @torch.enable_grad()
    def step(batch_size: int) -> None:
        labels = torch.randint(0, 150, (batch_size, 256, 256))
        model(torch.randn(batch_size, 3, 256, 256), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {batch_size: timed(step, batch_size) for batch_size in (1, 2, 4, 8)}


def save_model(folder: Path) -> Path:
    build(SMALL).save_pretrained(folder / "model")
    DenseCLIPImageProcessor(size={"shortest_edge": 256, "longest_edge": 1024}).save_pretrained(folder / "model")
    return folder / "model"


def draw_photographs(folder: Path, count: int) -> None:
    """JPEGs of coarse noise, and below `annotations/` masks of blocks: a data set of validation pictures alone."""
    generator = np.random.default_rng(0)
    for kind in ("images", "annotations"):
        (folder / kind / "validation").mkdir(parents=True)
    for index in range(count):
        picture = PIL.Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((480, 360))
        picture.save(folder / "images" / "validation" / f"{index}.jpg", quality=90)
        mask = generator.integers(0, 150, (9, 12), dtype=np.uint8).repeat(40, axis=0).repeat(40, axis=1)
        PIL.Image.fromarray(mask).save(folder / "annotations" / "validation" / f"{index}.png")
    (folder / "classes.txt").write_text("\n".join(make_config(SMALL).id2label.values()))


def predict(folder: Path) -> Runs:
    model = save_model(folder)

    def run(count: int) -> None:
        words = ("predict", folder / str(count) / "images", "--model", model, "--out", folder / "results")
        said = StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            status = run_denseclip([str(word) for word in words])
        if status:
            raise SystemExit(said.getvalue())

    counts = (8, 16, 32, 64)
    for count in counts:
        draw_photographs(folder / str(count), count)
    return {count: timed(run, count) for count in counts}


def evaluate_share(rank: int, world_size: int, port: int, words: list[str]) -> float:
    """In a process of its own: seconds of the processor that its share of an evaluation takes, after all imports."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "1"}
    with redirect_stdout(StringIO()):
        return timed(evaluate, words)()


def evaluate_in_processes(checkpoint: Path, data: Path, count: int) -> float:
    """Seconds of the processor of all processes together."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = f"{checkpoint} --data_dir {data} --output_dir {data}/results --use_cpu true"
    words += " --dataloader_num_workers 0 --preprocessing_num_workers 1"
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        shares = [pool.submit(evaluate_share, rank, count, port, words.split()) for rank in range(count)]
        return sum(share.result() for share in shares)


def processes(folder: Path) -> Runs:
    checkpoint, counts = save_model(folder), (1, 2, 4)
    for count in counts:
        draw_photographs(folder / str(count), count * IMAGES_OF_A_PROCESS)
    return {count: partial(evaluate_in_processes, checkpoint, folder / str(count), count) for count in counts}


ROWS = {
    "class_ids": ("class ids and scores from logits, by pixels of the photograph", class_ids_by_pixels),
    "class_ids_by_classes": ("the same for 1080 x 1440, by classes", class_ids_by_classes),
    "rn50": ("RN50's pass, by pixels", partial(model_by_pixels, "denseclip_fpn_rn50")),
    "vit": ("ViT-B/16's pass, by pixels", partial(model_by_pixels, "denseclip_fpn_vit_b16")),
    "classes": ("the small model's pass at 512 x 512, by classes", model_by_classes),
    "names": ("RN50's text tower, by names", reading_names),
    "windows": ("`segment_classes` of the small model, by windows", windows),
    "predict": ("`denseclip predict`, loading included, by photographs", predict),
    "training": ("training step of the small model, by images of a batch", training_step),
    "processes": (f"`training.evaluate`, {IMAGES_OF_A_PROCESS} pictures a process, by processes", processes),
}


def measure(runs: Runs, rounds: int) -> list[float]:
    """Median seconds of each size."""
    runs[min(runs)]()  # what every first call takes
    seconds = {size: [] for size in runs}
    for turn in range(rounds):
        for size in sorted(runs, reverse=turn % 2 == 1):
            seconds[size].append(runs[size]())
    return [statistics.median(values) for values in seconds.values()]


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each size")
    args = parser.parse_args(words)
    unknown = set(args.rows) - ROWS.keys()
    if unknown:
        parser.error(f"no row is called {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    torch.set_num_threads(1)
    print(f"| What | Sizes | Seconds | Exponent | At most {AT_MOST} |\n|---|---|---|---:|---|")
    for name in args.rows or ROWS:
        what, make_runs = ROWS[name]
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            runs = make_runs(Path(folder))
            seconds = measure(runs, args.rounds)
        exponent = np.polyfit(np.log(list(runs)), np.log(seconds), 1)[0]
        sizes, times = ", ".join(f"{size:,}" for size in runs), ", ".join(f"{value:.3g}" for value in seconds)
        print(
            f"| {what} | {sizes} | {times} | {exponent:.2f} | {'yes' if exponent <= AT_MOST else 'no'} |", flush=True
        )


if __name__ == "__main__":
    main()
