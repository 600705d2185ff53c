# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""
How long commands take to begin: help, an error of what was asked for, and the prediction of one small picture, beside
what the model stands on, Transformers' own classes of CLIP.

    OMP_NUM_THREADS=1 python -m benchmarks.startup
    OMP_NUM_THREADS=1 python -m benchmarks.startup --training      # and the help of each verb of training

Each command is a new process. Its times are those of the processor, its own and the system's, and those of a clock,
which on a machine that others use too are longer; medians over rounds in which all commands take turns. The first
round, which writes Python's bytecode, is left out.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from modeling_denseclip import DenseCLIPImageProcessor
from tests.tiny import make_tiny_tokenizer, tiny_model

from .speed import REPOSITORY


ANSWER_SECONDS = 0.4
PREDICTION_RATIO = 1.5
CLIP_CLASSES = "from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel"


class Command(NamedTuple):
    """Words behind `python`, and the exit status."""

    words: list[str]
    status: int = 0


class Seconds(NamedTuple):
    """Of the processor and of a clock."""

    processor: float
    clock: float


def measure(command: Command, environment: dict[str, str]) -> Seconds:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run([sys.executable, *command.words], capture_output=True, text=True, env=environment)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode != command.status:
        raise RuntimeError(f"{' '.join(command.words)} ended with status {ended.returncode}:\n{ended.stderr}")
    return Seconds(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock)


def take_turns(commands: dict[str, Command], rounds: int) -> dict[str, Seconds]:
    """Medians of each command."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    found = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as bytecode:
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        for number in range(rounds + 1):
            for name, command in commands.items():
                seconds = measure(command, environment)
                if number > 0:
                    found[name].append(seconds)
    return {name: Seconds(*map(statistics.median, zip(*times, strict=True))) for name, times in found.items()}


def save_small_model(folder: Path) -> tuple[str, str]:
    """A model of well under a million parameters and a picture of 96 x 128; returns where they are."""
    model, picture = folder / "model", folder / "picture.png"
    tiny_model("resnet").save_pretrained(model)
    make_tiny_tokenizer().save_pretrained(model)
    DenseCLIPImageProcessor(size={"shortest_edge": 96}).save_pretrained(model)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(picture)
    return str(model), str(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each command")
    parser.add_argument("--training", action="store_true", help="measure the help of each verb of training as well")
    args = parser.parse_args()
    denseclip = ["-m", "modeling_denseclip.tools.command"]
    with tempfile.TemporaryDirectory() as name:
        model, picture = save_small_model(Path(name))
        out = ["--model", model, "--out", f"{name}/out"]
        answers = {
            "denseclip --help": Command([*denseclip, "--help"]),
            "denseclip predict --help": Command([*denseclip, "predict", "--help"]),
            "denseclip predict, a folder that is not there": Command([*denseclip, "predict", f"{name}/no", *out], 2),
            "denseclip info, a folder that is not there": Command([*denseclip, "info", f"{name}/no"], 2),
        }
        imports, prediction = f"python -c '{CLIP_CLASSES}'", "denseclip predict, one picture of 96 x 128"
        others = {
            imports: Command(["-c", CLIP_CLASSES]),
            "python -c 'import modeling_denseclip'": Command(["-c", "import modeling_denseclip"]),
            prediction: Command([*denseclip, "predict", picture, *out]),
        }
        verbs = [path.stem for path in sorted((REPOSITORY / "training").glob("[!_]*.py"))] if args.training else []
        helps = {f"training.{verb} --help": Command(["-m", f"training.{verb}", "--help"]) for verb in verbs}
        found = take_turns({**answers, **others, **helps}, args.rounds)
    print("| Command | Processor, s | Clock, s | Target | Reached |\n|---|---:|---:|---|---|")
    for command, seconds in found.items():
        target, is_reached = "-", "-"
        if command in answers:
            target, is_reached = f"<= {ANSWER_SECONDS} s", seconds.processor <= ANSWER_SECONDS
        elif command == prediction:
            ratio = seconds.processor / found[imports].processor
            target, is_reached = f"{ratio:.2f}, <= {PREDICTION_RATIO} x the classes", ratio <= PREDICTION_RATIO
        reached = {True: "yes", False: "no"}.get(is_reached, is_reached)
        print(f"| `{command}` | {seconds.processor:.2f} | {seconds.clock:.2f} | {target} | {reached} |")


if __name__ == "__main__":
    main()
