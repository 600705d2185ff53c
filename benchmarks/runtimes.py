# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Which runtime computes an exported file fastest on this processor, and which pixels keep their class.

    OMP_NUM_THREADS=1 python -m benchmarks.runtimes                                       # rows of the paper
    OMP_NUM_THREADS=1 python -m benchmarks.runtimes --model FOLDER --images PHOTOGRAPHS   # one's own model

Our fused model in PyTorch beside its exported file, in float32 and in integers of 8 bits, in onnxruntime and, where
it is installed, OpenVINO, which reads the same files. In float32 all are first checked to give the same. They take
turns; times are medians of processor time, and all runtimes have one thread.

A row of the paper has random weights and sees noise: its times are those of a trained model, its pixels are not, since
it keeps classes hardly apart. With `--model`, every other photograph calibrates and the rest are compared.
"""

import argparse
import copy
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import PIL.Image
import torch

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.files.devices import multiplies_bfloat16, prepare_for_inference, read_cpu_flags
from modeling_denseclip.tools.files.loading import load_model
from modeling_denseclip.tools.files.photographs import list_images
from training.export import main as export
from training.publishing.formats import quantize
from training.run_onnx import OpenVINOSession, prepare, read_picture, segment

from .speed import check_equal, make_config, seconds_of


ROWS = ("denseclip_fpn_rn50", "denseclip_fpn_vit_b16")
# What decides how fast 8 and 16 bits are.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
CPU = torch.device("cpu")


def make_row(stem: str, folder: Path) -> tuple[Path, list[Path]]:
    """A row of the paper with random weights, and pictures of smooth noise."""
    torch.manual_seed(0)
    model = DenseCLIPForSemanticSegmentation(make_config(stem)).eval()
    model.save_pretrained(folder / "model")
    DenseCLIPImageProcessor(size={"height": 512, "width": 512}).save_pretrained(folder / "model")
    images = [folder / f"{index}.png" for index in range(4)]
    generator = np.random.default_rng(0)
    for image in images:
        noise = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).resize((512, 512), PIL.Image.Resampling.BICUBIC).save(image)
    return folder / "model", images


def as_session(model: DenseCLIPForSemanticSegmentation) -> SimpleNamespace:
    """A model with the method by which onnxruntime runs a file."""

    @torch.inference_mode()
    def run(output_names: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [model(torch.from_numpy(feed["pixel_values"]), inference_mode="whole").logits.float().numpy()]

    return SimpleNamespace(run=run)


def open_onnxruntime(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def open_all(checkpoint: Path, images: list[Path], folder: Path) -> tuple[dict, dict]:
    """What computes the model, by name, PyTorch in float32 first; and what the exported file says of it."""
    precise, integers = folder / "float32.onnx", folder / "int8.onnx"
    card = export([str(checkpoint), str(precise), "--inference_mode", "whole"])
    quantize(precise, integers, card, "static", images)
    model = load_model(str(checkpoint), dtype=torch.float32)[0].eval()
    sessions = {"PyTorch, float32": as_session(prepare_for_inference(copy.deepcopy(model), CPU, "float32"))}
    if multiplies_bfloat16(CPU):
        sessions["PyTorch, bfloat16"] = as_session(prepare_for_inference(model, CPU, "bfloat16"))
    for name, path in (("float32", precise), ("int8", integers)):
        sessions[f"onnxruntime, {name}"] = open_onnxruntime(path)
        if importlib.util.find_spec("openvino"):
            sessions[f"OpenVINO, {name}"] = OpenVINOSession(path, num_threads=1)
    return sessions, card


def measure(sessions: dict, pixel_values: np.ndarray, rounds: int) -> dict[str, float]:
    """Median seconds of processor time of each, in turns."""
    feed, seconds = {"pixel_values": pixel_values}, {name: [] for name in sessions}
    logits = {name: torch.from_numpy(session.run(None, feed)[0]) for name, session in sessions.items()}
    for name, found in logits.items():
        if "float32" in name:
            check_equal(logits["PyTorch, float32"], found, name)
    for turn in range(rounds):
        for name in sorted(sessions, reverse=turn % 2 == 0):
            seconds[name].append(seconds_of(lambda name=name: sessions[name].run(None, feed), time.process_time))
    return {name: statistics.median(times) for name, times in seconds.items()}


def agreement(sessions: dict, card: dict, images: list[Path]) -> dict[str, float]:
    """The share of pixels of photographs that get the class that PyTorch finds in float32."""
    same = {name: [] for name in sessions}
    for image in images:
        picture = read_picture(image)
        classes = {name: segment(session, card, picture) for name, session in sessions.items()}
        for name, found in classes.items():
            same[name].append((found == classes["PyTorch, float32"]).mean())
    return {name: float(np.mean(shares)) for name, shares in same.items()}


def compare(what: str, checkpoint: Path, images: list[Path], folder: Path, rounds: int) -> None:
    sessions, card = open_all(checkpoint, images, folder)
    compared = images[1::2]
    seconds = measure(sessions, prepare(read_picture(compared[0]), card), rounds)
    same = agreement(sessions, card, compared)
    slowest = seconds["PyTorch, float32"]
    for name, median in seconds.items():
        print(f"| {what} | {name} | {median:.3f} s | {slowest / median:.2f} | {100 * same[name]:.2f} % |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; both by default")
    parser.add_argument("--model", type=Path, help="a saved model in place of the rows, with --images")
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="photographs, or folders of them")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    args = parser.parse_args()
    if set(args.rows) - set(ROWS):
        parser.error(f"rows are {', '.join(ROWS)}; got {', '.join(args.rows)}")
    if bool(args.model) != bool(args.images):
        parser.error("--model and --images are given together")
    torch.set_num_threads(1)
    flags = read_cpu_flags()
    print(f"This processor has {', '.join(flag for flag in FLAGS if flag in flags) or 'none of ' + str(FLAGS)}.\n")
    print("| Model | Computed by | Time | Beside float32 | Pixels of the same class |\n|---|---|---:|---:|---:|")
    for row in [args.model] if args.model else args.rows or ROWS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if args.model:
                checkpoint, images = args.model, [file for path in args.images for file in list_images(path)]
            else:
                checkpoint, images = make_row(row, folder)
            compare(checkpoint.name if args.model else row, checkpoint, images, folder, args.rounds)


if __name__ == "__main__":
    main()
