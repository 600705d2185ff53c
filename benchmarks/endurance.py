# Copyright 2026 The DenseCLIP for Transformers authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
What lasts: a training that is killed again and again, and predictions without end.

    python -m benchmarks.endurance kills --number 20
    python -m benchmarks.endurance predictions --number 10000

`kills` trains a tiny model to its end, then trains it again, kills it (SIGKILL) at random moments, each second time
while a checkpoint is written, and goes on from the last whole checkpoint each time. It compares weights, averaged
weights, optimizer and scores, bit for bit. Only the last checkpoint is kept.

`predictions` segments pictures of random sizes for lists of classes that change, and scores other texts, in one
process. Resident memory, what Python has allocated, and the number of objects are printed on the way.
"""

import argparse
import gc
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import tracemalloc
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools.commands.predict import ClassPredictor
from modeling_denseclip.tools.pictures.visualization import generate_palette
from tests.tiny import (
    draw_picture,
    make_tiny_tokenizer,
    save_tiny_architecture,
    save_tiny_dataset,
    tiny_model,
)
from training import train
from training.learning.checkpoints import LAST, checkpoint_to_resume
from training.learning.trainer import DenseCLIPTrainer


NUM_STEPS, SAVE_STEPS, EVAL_STEPS = 80, 4, 20
CLASS_LISTS = 25  # that take turns
PREDICTIONS_PER_LIST = 10


# --- Kills -----------------------------------------------------------------------------------------------------------


def write_data(folder: Path) -> list[str]:
    """Pictures, masks and an architecture with everything that draws random numbers; the words of the training."""
    save_tiny_dataset(folder, training=14, validation=2)
    architecture = save_tiny_architecture(folder, "vit", drop_path_rate=0.3)
    return (
        f"--data_dir {folder} {architecture} --short_side 64 --long_side 128 --crop_size 64 --max_steps {NUM_STEPS}"
        " --per_device_train_batch_size 2 --gradient_accumulation_steps 2 --learning_rate 1e-2 --ema_decay 0.9"
        f" --save_strategy steps --save_steps {SAVE_STEPS} --save_total_limit 1 --eval_strategy steps"
        f" --eval_steps {EVAL_STEPS} --lr_schedule published_poly --warmup_steps 2 --use_cpu true --report_to none"
        " --disable_tqdm true --num_sample_images 0"
    ).split()


class Run:
    """
    One process that trains; a fork of this one, which has imported everything.

    Attributes:
        progress (array of 5 numbers): the step, how many checkpoints were begun, how many are whole, seconds until the
            first was begun, and the fewest seconds that one took.
    """

    def __init__(self, words: list[str], output: Path):
        self.log = output.with_suffix(".log")
        self.progress = multiprocessing.get_context("fork").Array("d", 5, lock=False)
        self.pid = os.fork()
        if self.pid == 0:
            self._train([*words, "--output_dir", str(output), "--resume_from_checkpoint", LAST])

    def _train(self, words: list[str]) -> None:
        progress, save_checkpoint, training_step = (
            self.progress,
            DenseCLIPTrainer._save_checkpoint,
            DenseCLIPTrainer.training_step,
        )

        start = time.monotonic()

        def save_and_count(trainer, *args, **kwargs):
            begun = time.monotonic()
            progress[0] = trainer.state.global_step
            progress[3] = progress[3] or begun - start
            progress[1] += 1
            save_checkpoint(trainer, *args, **kwargs)
            progress[2] += 1
            progress[4] = min(progress[4] or time.monotonic() - begun, time.monotonic() - begun)

        def train_and_count(trainer, *args, **kwargs):
            progress[0] = trainer.state.global_step
            return training_step(trainer, *args, **kwargs)

        DenseCLIPTrainer._save_checkpoint, DenseCLIPTrainer.training_step = save_and_count, train_and_count
        code = 1
        try:
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, sys.stdout.fileno())
            os.dup2(log, sys.stderr.fileno())
            train.main(words)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill_after(self, seconds: float, in_save: int) -> None:
        """Kill it so long after its start, or after the beginning of its `in_save`-th checkpoint."""
        while in_save and self.progress[1] < in_save and not self.has_ended():
            time.sleep(0.0005)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.has_ended():
            time.sleep(0.0005)
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """
        Its exit status: 0, or -9 where it was killed.

        Raises:
            SystemExit: for any other; says what it wrote.
        """
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if code not in (0, -signal.SIGKILL):
            raise SystemExit(f"A run failed with exit status {code}:\n{self.log.read_text()}")
        return code


def step_of(checkpoint: str | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.rpartition("-")[2])


def read_results(output: Path) -> dict[str, torch.Tensor]:
    """All that two runs must have in common, by name."""
    last = output / f"checkpoint-{NUM_STEPS}"
    results = {f"model: {name}": tensor for name, tensor in load_file(output / "model.safetensors").items()}
    for file in ("model.safetensors", "averaged_weights.safetensors"):
        results |= {f"last {file}: {name}": tensor for name, tensor in load_file(last / file).items()}
    states = torch.load(last / "optimizer.pt", weights_only=True)["state"]
    results |= {f"optimizer: {i} {name}": tensor for i, state in states.items() for name, tensor in state.items()}
    scores = json.loads((output / "metrics.json").read_text())
    return results | {"mean_iou": torch.tensor(scores["mean_iou"], dtype=torch.float64)}


def kills(number: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        words, numbers = write_data(Path(folder) / "data"), random.Random(seed)
        straight, killed = Path(folder) / "straight", Path(folder) / "killed"
        start, run = time.monotonic(), Run(words, straight)
        run.wait()
        until_saving, saving = run.progress[3:]
        print(
            f"seed {seed}; the straight run takes {time.monotonic() - start:.1f} s and has its first checkpoint after"
            f" {until_saving:.1f} s; one takes {1000 * saving:.0f} ms or more\n"
        )

        print("| Kill | After, s | At step | While saving | Whole checkpoint | Steps lost |")
        print("|---:|---:|---:|---|---:|---:|")
        lost = saves = count = last = 0
        while count < number:
            in_save = numbers.randint(1, 2) if count % 2 and last < NUM_STEPS else 0
            seconds = numbers.uniform(0, saving if in_save else 2 * until_saving)
            start, run = time.monotonic(), Run(words, killed)
            run.kill_after(seconds, in_save)
            seconds = time.monotonic() - start
            if run.wait() == 0:
                last = NUM_STEPS
                print("| - | the run came to its end, and is started anew behind it | | | | |")
                continue
            count += 1
            last = step_of(checkpoint_to_resume(killed, LAST)) if killed.is_dir() else 0
            is_saving = run.progress[1] > run.progress[2]
            step = max(int(run.progress[0]), last)
            lost, saves = lost + step - last, saves + is_saving
            print(f"| {count} | {seconds:.2f} | {step} | {'yes' if is_saving else ''} | {last} | {step - last} |")
        Run(words, killed).wait()
        expected, found = read_results(straight), read_results(killed)
        different = [name for name in expected if not torch.equal(expected[name], found[name])]
        print(
            f"\n{count} kills, {saves} of them while a checkpoint was written; {lost} steps were trained again."
            f" {len(expected) - len(different)} of {len(expected)} results are equal, bit for bit."
        )
        if different or expected.keys() != found.keys():
            raise SystemExit(f"Different: {different[:10]}")


# --- Predictions -----------------------------------------------------------------------------------------------------


def predictions(number: int, seed: int) -> None:
    numbers, tokenizer = random.Random(seed), make_tiny_tokenizer()
    model = tiny_model("vit").eval()
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 256})
    words = ("person", "wall", "sky", "traffic light", "red wall", "cat", "zebra", "car")
    lists = [numbers.sample(words, numbers.randint(2, len(words))) for _ in range(CLASS_LISTS)]
    process = psutil.Process()
    tracemalloc.start()
    print("| Predictions | Resident, MiB | Python's, MiB | Objects |\n|---:|---:|---:|---:|")
    for index in range(number + 1):
        if index % max(number // 10, 1) == 0:
            gc.collect()
            resident, traced = process.memory_info().rss / 2**20, tracemalloc.get_traced_memory()[0] / 2**20
            print(f"| {index:,} | {resident:.1f} | {traced:.2f} | {len(gc.get_objects()):,} |", flush=True)
        if index % PREDICTIONS_PER_LIST == 0:
            names = lists[index // PREDICTIONS_PER_LIST % len(lists)]
            model.set_class_names(names, tokenizer=tokenizer)
            predictor = ClassPredictor(model, processor, generate_palette(len(names)))
        picture = draw_picture(numbers.randint(40, 320), numbers.randint(40, 320), seed=index)
        ((class_ids, _),) = predictor([picture])
        if class_ids.shape != picture.size[::-1] or class_ids.max() >= len(names):
            raise SystemExit(f"Prediction {index} is none of its picture and classes.")
        if index % PREDICTIONS_PER_LIST == 5:
            model.score_text(predictor.prepare([picture]), numbers.sample(words, 3), tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "predictions"))
    parser.add_argument("--number", type=int, help="20 kills or 10,000 predictions if not said")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in ("modeling_denseclip", "training"):
        logging.getLogger(name).setLevel(logging.ERROR)  # of renamed classes and checkpoints that are passed over
    torch.set_num_threads(1)  # one that has worked with several threads must not fork
    if args.what == "kills":
        kills(args.number or 20, args.seed)
    else:
        predictions(args.number or 10_000, args.seed)


if __name__ == "__main__":
    main()
