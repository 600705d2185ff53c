# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
How large exported files are, and how long one picture takes, in three clients: Python, Node.js and a browser.

    python -m benchmarks.clients
    python -m benchmarks.clients denseclip_fpn_rn50 --rounds 3 --side 512

Python runs the file of `--input pictures --output class_map` in onnxruntime. Node.js and headless Chromium run the
folder of `--format transformers.js` by the library's own pipeline, the latter in WebAssembly. All have one thread, and
each reads a PNG and ends with masks. They take turns; times are medians of the wall clock, the first turn left out, so
the machine has to be quiet. Models have random weights and 150 classes, which costs the most that enlarging can.
"""

import argparse
import contextlib
import io
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime
import PIL.Image
import torch

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from tests.web.clients import job, run_node, serve
from training.export import main as export
from training.publishing import export as exporting
from training.run_onnx import read_picture

from .speed import make_config


ROWS = ("denseclip_fpn_rn50", "denseclip_fpn_vit_b16", "denseclip_upernet_swin_tiny")
NUM_CALIBRATION_IMAGES = 4


def draw_noise(path: Path, side: int, seed: int) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).resize((side, side), PIL.Image.Resampling.BICUBIC).save(path)
    return path


def make_files(stem: str, side: int, folder: Path) -> tuple[Path, Path, Path]:
    """A row of the paper with random weights: its file that takes pictures, its folder for JavaScript, a picture."""
    torch.manual_seed(0)
    DenseCLIPForSemanticSegmentation(make_config(stem)).save_pretrained(folder / "model")
    DenseCLIPImageProcessor(size={"height": side, "width": side}).save_pretrained(folder / "model")
    (folder / "images").mkdir()
    images = [draw_noise(folder / "images" / f"{seed}.png", side, seed) for seed in range(NUM_CALIBRATION_IMAGES)]
    words = [str(folder / "model"), "--inference_mode", "whole"]
    pictures, web = folder / "pictures.onnx", folder / "models" / "web"
    write, core = exporting.write, folder / "core.onnx"

    def write_once(module, file_format, path):  # both have the same graph, and making it takes long
        if not core.exists():
            write(module, file_format, core)
        shutil.copy(core, path)

    with contextlib.redirect_stdout(io.StringIO()), mock.patch.object(exporting, "write", write_once):
        export([*words, str(pictures), "--input", "pictures", "--output", "class_map"])
        smaller = ["--float16", "--int8", "static", "--calibration_images", *map(str, images)]
        export([*words, str(web), "--format", "transformers.js", *smaller])
    return pictures, web, images[0]


def run_python(path: Path, image: Path, rounds: int) -> list[float]:
    """Seconds of each round but the first."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session, seconds = onnxruntime.InferenceSession(path, options), []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        session.run(None, {"pictures": read_picture(image)[None]})
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def open_clients(pictures: Path, web: Path, image: Path, page, address: str, rounds: int) -> dict[str, Callable]:
    """Client and numbers -> what returns the seconds of some rounds."""
    one_thread = {"session_options": {"intraOpNumThreads": 1}}
    seen = [f"{address}/images/{image.name}"] * (rounds + 1)

    def in_page(kind: str) -> list[float]:
        (result,) = page.evaluate("jobs => segment(jobs)", [job(web.name, *seen, dtype=kind)])
        return result["seconds"][1:]

    def in_node(kind: str) -> list[float]:
        (result,) = run_node(job(web, *[image] * (rounds + 1), dtype=kind, **one_thread))
        return result["seconds"][1:]

    clients = {"Python, float32": lambda: run_python(pictures, image, rounds)}
    for kind, name in (("fp32", "float32"), ("q8", "int8")):
        clients[f"Node.js, {name}"] = lambda kind=kind: in_node(kind)
        clients[f"Chromium, {name}"] = lambda kind=kind: in_page(kind)
    return clients


def measure(stem: str, side: int, rounds: int, turns: int) -> None:
    from tests.web.browser import open_browser  # needs Playwright, which the help of this command does not

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures, web, image = make_files(stem, side, folder)
        sizes = {file.name: file.stat().st_size / 1e6 for file in (pictures, *sorted((web / "onnx").iterdir()))}
        print(f"{stem}: {', '.join(f'{file} {size:.1f} MB' for file, size in sizes.items())}", flush=True)
        with serve(web.parent, image.parent) as address, open_browser() as browser:
            page = browser.new_page()
            page.set_default_timeout(0)
            page.goto(f"{address}/page.html")
            page.wait_for_function("window.segment !== undefined")
            clients = open_clients(pictures, web, image, page, address, rounds)
            seconds: dict[str, list[float]] = {client: [] for client in clients}
            for turn in range(turns):
                for client in sorted(clients, reverse=turn % 2 == 1):
                    seconds[client] += clients[client]()
        fastest = statistics.median(seconds["Python, float32"])
        for client, times in seconds.items():
            median = statistics.median(times)
            print(f"| {stem} | {client} | {median:.2f} s | {median / fastest:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--side", type=int, default=512, help="of the picture and as the model sees it, in pixels")
    parser.add_argument("--rounds", type=int, default=2, help="pictures of each turn, besides the first one")
    parser.add_argument("--turns", type=int, default=2, help="of each client")
    args = parser.parse_args()
    if set(args.rows) - set(ROWS):
        parser.error(f"rows are {', '.join(ROWS)}; got {', '.join(args.rows)}")
    for stem in args.rows or ROWS:
        measure(stem, args.side, args.rounds, args.turns)


if __name__ == "__main__":
    main()
