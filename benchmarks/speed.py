# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
How fast it is: each figure a ratio of two ways to the same result, taken in one run.

    make bench                                        # everything, a quarter of an hour on two cores
    python -m benchmarks.speed rn50_inference load    # some rows

"Plain" is `benchmarks/plain.py`, DenseCLIP as its published code computes it, with the same weights. Both sides are
checked to give the same before they are timed. Then they take turns, the first one changing from round to round;
times are medians, the ratio is the median of the rounds' ratios.

The floor is how long the convolutions and products of ours would take at the rate of this machine. That is the best of
several products and convolutions, each alone and in a loop, which are measured before each turn of either side: on a
shared machine the rate of another moment is none. The best, not the median, is beside a median of ours: what ours does
in a good moment the rate has to have been given the chance to do as well.
"""

import argparse
import copy
import ctypes
import gc
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.files.devices import multiplies_bfloat16, prepare_for_inference
from modeling_denseclip.tools.insight.complexity import CONVOLUTION, LINEAR, MATCHING, TEXT_TOWER, measure
from training import REPOSITORY
from training.data.files import read_ade20k_classes
from training.learning.optimization import build_parameter_groups, freeze_text_encoder
from training.metrics import MeanIoU, confusion_matrix

from .plain import PlainDenseCLIP


MODELS = REPOSITORY / "configuration" / "models"
# Word pieces of ADE20K's names by CLIP's tokenizer: 116 names have one, 34 have two, in the lengths that count here.
START, WORD, END = 49406, 320, 49407
NUM_LONGER_NAMES = 34


@dataclass
class Row:
    """
    One line of the table. Times in seconds, except where `unit` says otherwise.

    Args:
        what: The row, in words.
        plain, ours: The two sides; what `plain` is, if not the plain DenseCLIP, says `what`.
        ratio: The gain, plain / ours, or the cost, ours / plain.
        target: What was asked for.
        reached: Whether `ratio` satisfies it.
        floor: Seconds that the products and convolutions of ours take at the rate of this machine.
        unit: Of both sides.
    """

    what: str
    plain: float
    ours: float
    ratio: float
    target: str
    reached: bool
    floor: float | None = None
    unit: str = "s"


class Rate:
    """
    How many multiply-adds this machine makes in a second: the best that any of some products and convolutions has
    shown so far. On some processors a convolution of few channels, which stays in the cache, is a sixth faster than
    any product; so a rate of products alone is no limit.

    Args:
        dtype, device: What is multiplied, and where.
        clock: That of the times that the rate stands beside.
        size: Rows and columns of the largest product.
    """

    # Channels, and height and width beside a product of 2048 x 2048, of convolutions of 3 x 3 with channels last.
    CONVOLUTIONS = ((64, 128), (256, 32))

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        clock: Callable[[], float] = time.perf_counter,
        size: int = 2048,
    ):
        self.best, self.clock, self.device, self.jobs = 0.0, clock, device, []
        make = partial(torch.randn, dtype=dtype, device=device)
        for rows, inner, columns in ((size, size, size), (2 * size, size // 2, size // 2)):
            call = partial(torch.mm, make(rows, inner), make(inner, columns))
            self.jobs.append((rows * inner * columns, call))
        for channels, side in self.CONVOLUTIONS:
            side = side * size // 2048
            images, weight = make(1, channels, side, side), make(channels, channels, 3, 3)
            images, weight = (tensor.to(memory_format=torch.channels_last) for tensor in (images, weight))
            call = partial(torch.conv2d, images, weight, padding=1)
            self.jobs.append((9 * images.numel() * channels, call))
        self.look()

    @torch.no_grad()
    def look(self) -> None:
        """Measure again, and keep what is better than before."""
        for multiply_adds, call in self.jobs:
            call()
            wait_for(self.device)
            seconds = seconds_of(lambda call=call: (call(), wait_for(self.device)), self.clock)
            self.best = max(self.best, multiply_adds / seconds)


def alternate(
    plain: Callable[[], object],
    ours: Callable[[], object],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    rate: Rate | None = None,
) -> tuple[float, float, float]:
    """Median seconds of both, and the median of plain / ours. A `rate` is measured before each turn of either side."""
    sides = {"plain": plain, "ours": ours}
    for run in sides.values():
        run()
    seconds = {name: [] for name in sides}
    for turn in range(rounds):
        for name in sorted(sides, reverse=turn % 2 == 0):
            if rate is not None:
                rate.look()
            seconds[name].append(seconds_of(sides[name], clock))
    ratios = [slow / fast for slow, fast in zip(seconds["plain"], seconds["ours"], strict=True)]
    return statistics.median(seconds["plain"]), statistics.median(seconds["ours"]), statistics.median(ratios)


def seconds_of(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long a call takes; by `time.process_time`, on which other jobs of the machine weigh little."""
    start = clock()
    run()
    return clock() - start


def wait_for(device: str) -> None:
    """Until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def make_config(stem: str) -> DenseCLIPConfig:
    """A row of the paper, with ADE20K's classes."""
    names, _ = read_ade20k_classes()
    fields = json.loads((MODELS / f"{stem}.json").read_text()) | {"id2label": dict(enumerate(names))}
    if fields["use_language"]:
        words = [[WORD] * (2 if index < NUM_LONGER_NAMES else 1) for index in range(len(names))]
        fields["class_token_ids"] = [[START, *word, END] for word in words]
    return DenseCLIPConfig(**fields)


def make_pair(stem: str) -> tuple[PlainDenseCLIP, DenseCLIPForSemanticSegmentation]:
    """Plain and ours with the same random weights, in evaluation mode."""
    torch.manual_seed(0)
    config = make_config(stem)
    ours = DenseCLIPForSemanticSegmentation(copy.deepcopy(config)).eval()
    plain = PlainDenseCLIP(config).eval()
    plain.load_state_dict(ours.state_dict())
    return plain, ours


def check_equal(plain: torch.Tensor, ours: torch.Tensor, what: str, tolerance: float = 1e-4) -> None:
    error = ((plain - ours).abs().max() / plain.std()).item()
    if not error < tolerance:
        raise SystemExit(f"{what}: the two sides differ by {error:.1e} of the standard deviation; nothing is timed.")


def multiply_adds(config: DenseCLIPConfig, size: tuple[int, int]) -> int:
    """
    Of the convolutions and products of an image of this height and width, without the text tower. Batch norms are
    folded into convolutions, and resizing is no matter of multiplying.
    """
    parts = (part for name, part in measure(config, size).parts.items() if name not in TEXT_TOWER)
    return sum(part.flops[kind] for part in parts for kind in (CONVOLUTION, LINEAR, MATCHING))


@torch.inference_mode()
def inference(stem: str, side: int, target: float, rounds: int) -> Row:
    plain, ours = make_pair(stem)
    ours.fuse()
    pixel_values = torch.randn(1, 3, side, side)
    check_equal(plain(pixel_values).logits, ours(pixel_values).logits, stem)
    rate = Rate()
    times = alternate(lambda: plain(pixel_values), lambda: ours(pixel_values), rounds, rate=rate)
    floor = multiply_adds(ours.config, (side, side)) / rate.best
    return Row(f"{stem}, inference, {side} x {side}", *times, f">= {target}", times[2] >= target, floor)


@torch.inference_mode()
def bfloat16(stem: str, target: float, rounds: int) -> list[Row]:
    """Ours, fused, in float32 beside the same in bfloat16, in processor time; no row where that is emulated."""
    device = torch.device("cpu")
    if not multiplies_bfloat16(device):
        print(f"{stem}: this processor does not multiply in bfloat16.", file=sys.stderr)
        return []
    torch.manual_seed(0)
    precise = DenseCLIPForSemanticSegmentation(make_config(stem)).eval()
    half = prepare_for_inference(copy.deepcopy(precise), device, "bfloat16")
    precise = prepare_for_inference(precise, device, "float32")
    pixel_values = torch.randn(1, 3, 512, 512)
    # Random weights keep classes hardly apart; of a trained model more pixels are the same, see the README.
    classes = [model(pixel_values).logits.argmax(dim=1) for model in (precise, half)]
    agreement = (classes[0] == classes[1]).float().mean().item()
    if agreement < 0.95:
        raise SystemExit(f"{stem}, bfloat16: only {agreement:.1%} of the pixels are the same; nothing is timed.")
    rate = Rate(torch.bfloat16, clock=time.process_time)
    times = alternate(lambda: precise(pixel_values), lambda: half(pixel_values), rounds, time.process_time, rate)
    floor = multiply_adds(half.config, (512, 512)) / rate.best
    what = f"{stem}, inference, 512 x 512: our fused model in bfloat16 beside the same in float32, processor time"
    return [Row(what, *times, f">= {target}", times[2] >= target, floor)]


@torch.no_grad()
def text_check(stem: str, rounds: int) -> Row:
    """What a call that is not fused spends on finding out that its text tower has not changed, in processor time."""
    torch.manual_seed(0)
    model = DenseCLIPForSemanticSegmentation(make_config(stem)).eval()
    pixel_values = torch.randn(1, 3, 512, 512)
    check_equal(model.get_text_embeddings(), model.encode_class_names(), stem)
    whole, check, ratio = alternate(lambda: model(pixel_values), model.get_text_embeddings, rounds, time.process_time)
    what = f"{stem}, inference, 512 x 512, not fused: share of the look at the text tower, processor time"
    return Row(what, whole, check, 1 / ratio, "<= 0.01", 1 / ratio <= 0.01)


@torch.inference_mode()
def language_cost(rounds: int) -> Row:
    """Ours with language beside ours without."""
    torch.manual_seed(0)
    with_language = DenseCLIPForSemanticSegmentation(make_config("denseclip_fpn_rn50")).eval().fuse()
    without = DenseCLIPForSemanticSegmentation(make_config("clip_fpn_rn50")).eval().fuse()
    pixel_values = torch.randn(1, 3, 512, 512)
    rate = Rate()
    sides = (lambda: without(pixel_values)), (lambda: with_language(pixel_values))
    baseline, ours, gain = alternate(*sides, rounds, rate=rate)
    what = "denseclip_fpn_rn50 beside clip_fpn_rn50, inference, 512 x 512: cost of language"
    floor = multiply_adds(with_language.config, (512, 512)) / rate.best
    return Row(what, baseline, ours, 1 / gain, "<= 1.12", 1 / gain <= 1.12, floor)


def segment_photograph(model: DenseCLIPForSemanticSegmentation, pixel_values: torch.Tensor) -> torch.Tensor:
    """Class ids of a whole photograph, each side in its own way."""
    size = tuple(pixel_values.shape[-2:])
    with torch.inference_mode():
        if not isinstance(model, PlainDenseCLIP):
            return model.segment_classes(pixel_values, inference_mode="slide")[0]
        logits = model(pixel_values, inference_mode="slide").logits
        logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return logits.softmax(dim=1).argmax(dim=1)[0]


def memory_of_process(name: str) -> int:
    """Bytes: "VmRSS" now, "VmHWM" at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def memory_of(run: Callable[[], object]) -> int:
    """Bytes of resident memory that a call takes at its highest beyond what is taken before."""
    gc.collect()
    # What was freed, such as weights of another type, stays with the process otherwise, and the call would use it.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the highest is counted anew
    before = memory_of_process("VmRSS")
    run()
    return memory_of_process("VmHWM") - before


def peak_of(is_plain: bool) -> int:
    """In a process of its own: bytes of resident memory that a photograph takes beyond the weights."""
    model = make_pair("denseclip_fpn_rn50")[0] if is_plain else make_pair("denseclip_fpn_rn50")[1].fuse()
    pixel_values = torch.randn(1, 3, 1024, 2048)
    with torch.inference_mode():  # what every call takes once, and the text tower
        model(pixel_values[:, :, :64, :64], inference_mode="whole")
    return memory_of(lambda: segment_photograph(model, pixel_values))


def sliding_window(rounds: int) -> list[Row]:
    plain, ours = make_pair("denseclip_fpn_rn50")
    ours.fuse()
    pixel_values = torch.randn(1, 3, 1024, 2048)
    agreement = (segment_photograph(plain, pixel_values) == segment_photograph(ours, pixel_values)).float().mean()
    if agreement < 0.9999:
        raise SystemExit(f"sliding windows: only {agreement:.3%} of the pixels are the same; nothing is timed.")
    rate = Rate()
    sides = (partial(segment_photograph, model, pixel_values) for model in (plain, ours))
    times = alternate(*sides, rounds, rate=rate)
    floor = 3 * 6 * multiply_adds(ours.config, (512, 512)) / rate.best
    name = "denseclip_fpn_rn50, sliding window and post-processing, 1024 x 2048"
    rows = [Row(name, *times, ">= 2.2", times[2] >= 2.2, floor)]

    peaks = []
    for is_plain in (True, False):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks.append(pool.apply(peak_of, (is_plain,)) / 2**30)
    ratio = peaks[0] / peaks[1]
    return [*rows, Row(f"{name}: peak memory beyond the weights", *peaks, ratio, ">= 3", ratio >= 3, unit="GiB")]


Step = Callable[[], torch.Tensor]


def make_training_steps(
    stem: str,
    pixel_values: torch.Tensor,
    labels: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> tuple[Step, Step]:
    """
    Forward, backward and AdamW, plain and ours; each step returns its loss. The plain side computes gradients of the
    text tower's weights too and then takes a rate of 0, as published.

    Args:
        stem (`str`): the row of the paper.
        pixel_values, labels (`torch.Tensor`): a batch, on the device that both run on.
        dtype (`torch.dtype`): what ours computes in.
        backend (`str`, *optional*): what compiles ours; by default it is not compiled.
    """
    plain, ours = (model.to(pixel_values.device) for model in make_pair(stem))
    for model in (plain, ours):  # without dropout, or the losses of the two sides could not be compared
        for module in model.train().modules():
            if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
                module.p = 0.0
    ours.to(memory_format=torch.channels_last)
    for model in (plain, ours):
        freeze_text_encoder(model)
    plain_groups = build_parameter_groups(plain, 1e-4, 1e-4, 0.1)
    frozen = [parameter.requires_grad_() for parameter in plain.parameters() if not parameter.requires_grad]
    plain_groups.append({"params": frozen, "lr": 0.0, "weight_decay": 0.0})
    plain_optimizer = torch.optim.AdamW(plain_groups, foreach=False)
    optimizer = torch.optim.AdamW(build_parameter_groups(ours, 1e-4, 1e-4, 0.1), fused=True)
    run = ours if backend is None else torch.compile(ours, backend=backend)

    def step(model: Callable, optimizer: torch.optim.Optimizer, dtype: torch.dtype) -> torch.Tensor:
        with torch.autocast(pixel_values.device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = model(pixel_values, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return partial(step, plain, plain_optimizer, torch.float32), partial(step, run, optimizer, dtype)


def check_losses(plain: Step, ours: Step, tolerance: float) -> None:
    """Compare two steps of each."""
    losses = [torch.stack([step() for _ in range(2)]) for step in (plain, ours)]
    error = (losses[0] / losses[1] - 1).abs().max().item()
    if not error < tolerance:
        raise SystemExit(f"training step: the losses differ by {error:.1e}; nothing is timed.")


def training_step(rounds: int) -> Row:
    pixel_values, labels = torch.randn(4, 3, 512, 512), torch.randint(0, 150, (4, 512, 512))
    plain, ours = make_training_steps("denseclip_fpn_rn50", pixel_values, labels)
    check_losses(plain, ours, 1e-4)
    rate = Rate()
    times = alternate(plain, ours, rounds, rate=rate)
    floor = 3 * 4 * multiply_adds(make_config("denseclip_fpn_rn50"), (512, 512)) / rate.best
    return Row("denseclip_fpn_rn50, training step, 4 x 512 x 512", *times, ">= 1.3", times[2] >= 1.3, floor)


def training_step_bfloat16(rounds: int) -> list[Row]:
    """Plain in float32 beside ours by autocast, in processor time; no row where that is emulated."""
    if not multiplies_bfloat16(torch.device("cpu")):
        print("training step: this processor does not multiply in bfloat16.", file=sys.stderr)
        return []
    pixel_values, labels = torch.randn(4, 3, 512, 512), torch.randint(0, 150, (4, 512, 512))
    plain, ours = make_training_steps("denseclip_fpn_rn50", pixel_values, labels, torch.bfloat16)
    check_losses(plain, ours, 2e-2)
    rate = Rate(torch.bfloat16, clock=time.process_time)
    times = alternate(plain, ours, rounds, time.process_time, rate)
    floor = 3 * 4 * multiply_adds(make_config("denseclip_fpn_rn50"), (512, 512)) / rate.best
    what = "denseclip_fpn_rn50, training step, 4 x 512 x 512: plain in float32, ours in bfloat16 (processor time)"
    return [Row(what, *times, ">= 1.8", times[2] >= 1.8, floor)]


def load(rounds: int) -> Row:
    """`from_pretrained` beside reading the file and building the modules."""
    config = make_config("denseclip_fpn_rn50")
    with tempfile.TemporaryDirectory() as folder:
        DenseCLIPForSemanticSegmentation(config).save_pretrained(folder)

        def read_and_build() -> None:
            with torch.device("meta"):
                model = DenseCLIPForSemanticSegmentation(copy.deepcopy(config))
            weights = load_file(f"{folder}/model.safetensors")
            model.load_state_dict(weights, assign=True, strict=False)
            for parameter in model.parameters():  # the file is mapped: without this nothing would be read
                parameter.sum()

        def from_pretrained() -> None:
            for parameter in DenseCLIPForSemanticSegmentation.from_pretrained(folder).parameters():
                parameter.sum()

        plain, ours, gain = alternate(read_and_build, from_pretrained, rounds)
    what = "denseclip_fpn_rn50, from_pretrained beside reading the weights and building the modules: cost"
    return Row(what, plain, ours, 1 / gain, "<= 1.5", 1 / gain <= 1.5)


def onnx(rounds: int) -> Row:
    """The exported file in onnxruntime beside ours, fused."""
    import onnxruntime

    from training.export import main as export

    _, ours = make_pair("denseclip_fpn_rn50")
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(f"{folder}/model")
        DenseCLIPImageProcessor().save_pretrained(f"{folder}/model")
        export([f"{folder}/model", f"{folder}/model.onnx"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
    ours.fuse()
    pixel_values = torch.randn(1, 3, 512, 512)
    feed = {"pixel_values": pixel_values.numpy()}
    with torch.inference_mode():
        check_equal(ours(pixel_values).logits, torch.from_numpy(session.run(None, feed)[0]), "onnxruntime")
        rate = Rate()
        times = alternate(lambda: ours(pixel_values), lambda: session.run(None, feed), rounds, rate=rate)
    what = "denseclip_fpn_rn50, inference, 512 x 512: onnxruntime beside our fused model"
    return Row(what, *times, "-", True, multiply_adds(ours.config, (512, 512)) / rate.best)


IMPORTS = (
    "from transformers import AutoBackbone, AutoConfig, AutoModel, CLIPModel, CLIPTextModel, CLIPTokenizer,"
    " CLIPVisionModel, PreTrainedModel, PreTrainedTokenizerBase, UperNetConfig, AutoModelForSemanticSegmentation;"
    " from transformers.models.auto.image_processing_auto import AutoImageProcessor;"
    " from transformers.models.upernet.modeling_upernet import UperNetHead;"
    " from transformers.image_processing_backends import PilBackend"
)


def import_package(rounds: int) -> Row:
    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)

    plain, ours, gain = alternate(lambda: run(IMPORTS), lambda: run("import modeling_denseclip"), max(rounds, 7))
    what = "import modeling_denseclip beside the Transformers classes that it stands on: cost"
    return Row(what, plain, ours, 1 / gain, "<= 1.1", 1 / gain <= 1.1)


def evaluation(rounds: int) -> list[Row]:
    """The metric's share of an evaluation, and what 2,000 maps leave behind in memory."""
    _, ours = make_pair("denseclip_fpn_rn50")
    ours.fuse()
    image_processor = DenseCLIPImageProcessor()
    pixel_values, labels = torch.randn(1, 3, 512, 683), torch.randint(0, 150, (16, 22))
    labels = labels.repeat_interleave(32, 0).repeat_interleave(32, 1)[:512, :683]
    metric = MeanIoU()

    @torch.inference_mode()
    def segment() -> torch.Tensor:
        return image_processor.post_process_semantic_segmentation(ours(pixel_values), [(512, 683)])[0]

    segmentation = segment()

    def count() -> None:
        metric.add_counts(confusion_matrix(segmentation, labels, ours.num_labels, ours.config.ignore_index))

    seconds, counting, _ = alternate(segment, count, rounds)
    before = memory_of_process("VmRSS")
    for _ in range(2000):
        count()
    grown = (memory_of_process("VmRSS") - before) / 2**20
    share = counting / (counting + seconds)
    return [
        Row("metric's share of an evaluation, 512 x 683, K = 150", seconds, counting, share, "<= 0.02", share <= 0.02),
        Row("growth of memory over 2,000 maps", 0.0, grown, grown, "<= 1", grown <= 1, unit="MiB"),
    ]


ROWS = {
    "rn50_inference": partial(inference, "denseclip_fpn_rn50", 512, 2.2),
    "language_cost": language_cost,
    "vit_inference": partial(inference, "denseclip_fpn_vit_b16", 640, 1.5),
    "rn50_bfloat16": partial(bfloat16, "denseclip_fpn_rn50", 1.9),
    "vit_bfloat16": partial(bfloat16, "denseclip_fpn_vit_b16", 1.7),
    "rn50_text_check": partial(text_check, "denseclip_fpn_rn50"),
    "vit_text_check": partial(text_check, "denseclip_fpn_vit_b16"),
    "sliding_window": sliding_window,
    "training_step": training_step,
    "training_step_bfloat16": training_step_bfloat16,
    "evaluation": evaluation,
    "load": load,
    "import": import_package,
    "onnx": onnx,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    args = parser.parse_args()
    unknown = set(args.rows) - ROWS.keys()
    if unknown:
        parser.error(f"no row is called {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")

    print(f"{torch.get_num_threads()} threads\n")
    print("| What | Plain | Ours | Ratio | Target | Reached | Floor |\n|---|---:|---:|---:|---:|---|---:|")
    for name in args.rows or ROWS:
        rows = ROWS[name](args.rounds)
        for row in rows if isinstance(rows, list) else [rows]:
            floor = "-" if row.floor is None else f"{row.floor:.3f} s"
            print(
                f"| {row.what} | {row.plain:.3f} {row.unit} | {row.ours:.3f} {row.unit} | {row.ratio:.2f} |"
                f" {row.target} | {'yes' if row.reached else 'no'} | {floor} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
