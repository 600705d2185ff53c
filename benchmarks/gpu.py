# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
How fast it is on one GPU: training, inference, and what comes around them, beside the rate of the chip.

    python -m benchmarks.gpu                   # everything, some minutes
    python -m benchmarks.gpu --tables ways     # some tables
    python -m benchmarks.gpu --smoke           # on a CPU, with a small model: only to see that all of it runs

Tables: "beside_plain", plain DenseCLIP beside ours; "ways", ours in inference by kind of attention and of compilation;
"changes", what might make training faster, beside what is; "ids", class ids on the device; "predict", the command
beside its model.

Plain trains in float32 with TF32 products, as PyTorch would today; ours in bfloat16, channels last, compiled, with
fused AdamW. The rate is the best that products and convolutions in bfloat16 show beside each row, and the share of it
counts their multiply-adds: three times the forward pass for a training step. "Idle" is the share of a call in which
the GPU works on nothing, and "waits" are the times that the host waits for it in a call, both by PyTorch's profiler;
the batch is there already, so it says nothing of the data.
"""

import argparse
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.loss_denseclip import pixel_cross_entropy
from modeling_denseclip.resizing_denseclip import resize_by_products, resize_logits
from modeling_denseclip.tools.files.devices import prepare_for_inference
from modeling_denseclip.tools.pictures.palettes import generate_palette

from .predict import COMMAND, MODEL, ReplacedLogits, compare, parse_arguments
from .speed import (
    Rate,
    alternate,
    check_equal,
    check_losses,
    make_config,
    make_pair,
    make_training_steps,
    multiply_adds,
    wait_for,
)


@dataclass(frozen=True)
class Subject:
    """A row of the paper, its side in pixels, and the shares of the rate asked for in training and in inference."""

    stem: str
    side: int
    training_share: float
    inference_share: float


SUBJECTS = (
    Subject("denseclip_fpn_rn50", 512, 0.40, 0.55),
    Subject("denseclip_fpn_vit_b16", 640, 0.50, 0.60),
)
# Allowed differences in bfloat16, as shares of the loss and of the logits' standard deviation.
LOSS_TOLERANCE, LOGITS_TOLERANCE = 0.02, 0.2
# Attention, and the mode of `torch.compile` or None. The last ones try many kernels, which takes minutes.
WAYS = (
    ("eager", None),
    ("sdpa", None),
    ("eager", "default"),
    ("sdpa", "default"),
    ("sdpa", "reduce-overhead"),
    ("sdpa", "max-autotune"),
)
PHOTOGRAPH = (3000, 4000)


@dataclass(frozen=True)
class Bench:
    """
    Where and how large everything runs.

    Args:
        device: "cuda", or "cpu", where times say nothing.
        subjects: The models.
        training_batch, inference_batch: Images of a call.
        photographs: Of the table "predict".
        rounds: Turns of each side.
        photograph_size: Height and width of class ids.
        dtype: What ours computes in, and what the rate is of.
        backend: Of `torch.compile`, or None where nothing is compiled.
        product_size: Rows and columns of the product that measures the rate.
    """

    device: str = "cuda"
    subjects: tuple[Subject, ...] = SUBJECTS
    training_batch: int = 32
    inference_batch: int = 16
    photographs: int = 40
    rounds: int = 10
    photograph_size: tuple[int, int] = PHOTOGRAPH
    dtype: str = "bfloat16"
    backend: str | None = "inductor"
    product_size: int = 8192

    def compile(self, call: Callable, mode: str | None = "default") -> Callable:
        """The call compiled in a mode of `torch.compile`; as it is without a mode or a backend."""
        torch._dynamo.reset()  # what was compiled before would make the next sizes dynamic
        if mode is None or self.backend is None:
            return call
        return torch.compile(call, backend=self.backend, mode=mode)

    def wait(self) -> None:
        wait_for(self.device)

    def waiting(self, call: Callable[[], object]) -> Callable[[], None]:
        """The call, which is over when the device has done its work."""
        return lambda: (call(), self.wait())

    def rate(self) -> Rate:
        return Rate(getattr(torch, self.dtype), self.device, size=self.product_size)

    def images(self, count: int, side: int) -> torch.Tensor:
        return torch.randn(count, 3, side, side, device=self.device)

    def to_half(self, images: torch.Tensor) -> torch.Tensor:
        """Images as ours takes them."""
        return images.to(getattr(torch, self.dtype), memory_format=torch.channels_last)

    def times(self, first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float, float]:
        """Median seconds of two calls that take turns, and multiply-adds per second that the chip makes meanwhile."""
        rate = self.rate()
        slow, fast, _ = alternate(self.waiting(first), self.waiting(second), self.rounds, rate=rate)
        return slow, fast, rate.best

    def idle_and_waits(self, call: Callable[[], object]) -> tuple[str, str]:
        """1 - the time in which at least one kernel runs / the time of the call; and how often the host waits."""
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self.device == "cuda")
        with profile(activities=activities) as profiler:
            self.waiting(call)()
        events = profiler.events()
        on_gpu = [event.time_range for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
        busy, covered = 0.0, float("-inf")
        for start, end in sorted((kernel.start, kernel.end) for kernel in on_gpu):
            busy += max(0.0, end - max(start, covered))
            covered = max(covered, end)
        whole = max(event.time_range.end for event in events) - min(event.time_range.start for event in events)
        # The last wait is ours, and is called otherwise: cudaDeviceSynchronize.
        waits = sum(event.name in ("cudaStreamSynchronize", "cudaEventSynchronize") for event in events)
        return (f"{1 - busy / whole:.0%}", str(waits)) if self.device == "cuda" else ("-", "-")

    def peak(self, call: Callable[[], object]) -> str:
        """Memory that a call takes at its highest beyond what is taken before."""
        if self.device != "cuda":
            call()
            return "-"
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return f"{(torch.cuda.max_memory_allocated() - before) / 2**20:,.0f} MiB"


def format_row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def head(*names: str) -> Iterator[str]:
    yield ""
    yield format_row(*names)
    yield format_row("---", *["---:"] * (len(names) - 1))


def beside_plain(bench: Bench) -> Iterator[str]:
    names = ("Plain", "Ours", "Ratio", "Asked for", "Share of the rate", "Asked for", "Images/s", "Idle", "Waits")
    yield from head("What", *names)
    for subject in bench.subjects:
        for kind in (training, inference):
            yield kind(bench, subject)


def training(bench: Bench, subject: Subject) -> str:
    plain, ours = training_sides(bench, subject)
    check_losses(plain, ours, LOSS_TOLERANCE)
    flops = 3 * multiply_adds(make_config(subject.stem), (subject.side, subject.side))
    what = f"{subject.stem}, training step"
    return row_beside_plain(
        bench, what, subject.side, (plain, ours), flops, bench.training_batch, ">= 2", subject.training_share
    )


@torch.inference_mode()
def inference(bench: Bench, subject: Subject) -> str:
    plain, ours = (model.to(bench.device) for model in make_pair(subject.stem))
    pixel_values = bench.images(bench.inference_batch, subject.side)
    half = bench.to_half(pixel_values)
    run = bench.compile(prepare_for_inference(ours, torch.device(bench.device), bench.dtype))
    check_equal(plain(pixel_values).logits, run(half).logits.float(), subject.stem, LOGITS_TOLERANCE)
    sides = partial(plain, pixel_values), partial(run, half)
    flops = multiply_adds(ours.config, (subject.side, subject.side))
    what = f"{subject.stem}, inference"
    return row_beside_plain(
        bench, what, subject.side, sides, flops, bench.inference_batch, "-", subject.inference_share
    )


def training_sides(bench: Bench, subject: Subject) -> tuple[Callable, Callable]:
    torch._dynamo.reset()
    pixel_values = bench.images(bench.training_batch, subject.side)
    labels = torch.randint(0, 150, (bench.training_batch, subject.side, subject.side), device=bench.device)
    return make_training_steps(
        subject.stem, pixel_values, labels, dtype=getattr(torch, bench.dtype), backend=bench.backend
    )


def row_beside_plain(
    bench: Bench,
    what: str,
    side: int,
    sides: tuple[Callable, Callable],
    flops: int,
    batch_size: int,
    target: str,
    share_target: float,
) -> str:
    """`flops` are multiply-adds of ours for an image."""
    slow, fast, rate = bench.times(*sides)
    share = batch_size * flops / rate / fast
    return format_row(
        f"{what}, {batch_size} x {side} x {side}",
        f"{1000 * slow:.1f} ms",
        f"{1000 * fast:.1f} ms",
        f"{slow / fast:.2f}",
        target,
        f"{share:.0%}",
        f">= {share_target:.0%}",
        f"{batch_size / fast:.0f}",
        *bench.idle_and_waits(sides[1]),
    )


@torch.inference_mode()
def ways(bench: Bench) -> Iterator[str]:
    """Attention and compilation. Each way stands beside the first, with which it takes turns."""
    yield from head(
        "Inference", "Attention", "Compiled", "Time", "Beside the first", "Share of the rate", "Idle", "Waits"
    )
    for subject in bench.subjects:
        half = bench.to_half(bench.images(bench.inference_batch, subject.side))
        flops = bench.inference_batch * multiply_adds(make_config(subject.stem), (subject.side, subject.side))
        first = expected = None
        for attention, mode in WAYS:
            run = partial(bench.compile(build(bench, subject, attention), mode), half)
            logits = run().logits.float().clone()  # a CUDA graph writes the next ones into the same place
            first, expected = first or run, logits if expected is None else expected
            check_equal(expected, logits, f"{subject.stem}, {attention}, {mode}", LOGITS_TOLERANCE)
            slow, fast, rate = bench.times(first, run)
            yield format_row(
                subject.stem,
                attention,
                mode or "no",
                f"{1000 * fast:.1f} ms",
                f"{slow / fast:.2f}",
                f"{flops / rate / fast:.0%}",
                *bench.idle_and_waits(run),
            )


def build(bench: Bench, subject: Subject, attention: str = "sdpa") -> DenseCLIPForSemanticSegmentation:
    torch.manual_seed(0)
    config = make_config(subject.stem)
    config._attn_implementation = attention
    model = DenseCLIPForSemanticSegmentation(config).eval()
    return prepare_for_inference(model, torch.device(bench.device), bench.dtype)


def changes(bench: Bench) -> Iterator[str]:
    """What might be faster in training, or take less memory. Both sides are checked to give the same."""
    yield from head("Training", "Now", "Changed", "Ratio", "Memory now", "Memory changed")
    subject = bench.subjects[0]
    _, ours = training_sides(bench, subject)
    # Another model of the same weights: steps change them.
    _, changed = training_sides(bench, subject)
    yield row_of_change(bench, "products in place of the head's interpolations", ours, with_products(changed))
    shape = (bench.training_batch, 150, subject.side // 4, subject.side // 4)
    logits = torch.randn(shape, device=bench.device, requires_grad=True)
    labels = torch.randint(0, 150, (bench.training_batch, subject.side, subject.side), device=bench.device)
    compiled = bench.compile(loss_of)
    for what, loss in (
        ("loss compiled", compiled),
        ("loss of one image after the other", partial(loss_in_slices, loss_of)),
        ("the same, compiled", partial(loss_in_slices, compiled)),
    ):
        sides = (partial(gradient_of, way, logits, labels) for way in (loss_of, loss))
        yield row_of_change(bench, what, *sides)


def row_of_change(
    bench: Bench, what: str, now: Callable[[], torch.Tensor], changed: Callable[[], torch.Tensor]
) -> str:
    first, second = now().float(), changed().float()
    error = ((first - second).norm() / first.norm()).item()
    if not error < LOSS_TOLERANCE:
        raise SystemExit(f"{what}: the two sides differ by {error:.1e}; nothing is timed.")
    slow, fast, _ = bench.times(now, changed)
    times = f"{1000 * slow:.1f} ms", f"{1000 * fast:.1f} ms", f"{slow / fast:.2f}"
    return format_row(what, *times, bench.peak(now), bench.peak(changed))


def with_products(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The step with bilinear resizing by two products of matrices."""
    interpolate = F.interpolate

    def resize(hidden_states: torch.Tensor, size=None, scale_factor=None, mode="nearest", **kwargs) -> torch.Tensor:
        if mode != "bilinear":
            return interpolate(hidden_states, size=size, scale_factor=scale_factor, mode=mode, **kwargs)
        return resize_by_products(
            hidden_states, size or tuple(scale_factor * side for side in hidden_states.shape[-2:])
        )

    def changed() -> torch.Tensor:
        with patch.object(F, "interpolate", resize):
            return step()

    return changed


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return pixel_cross_entropy(resize_logits(logits, labels.shape[-2:]), labels, ignore_index=255)


def loss_in_slices(loss: Callable, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Enlarged logits of one image at a time, computed once more in the backward pass."""
    parts = [
        checkpoint(loss, *image, use_reentrant=False) for image in zip(logits.split(1), labels.split(1), strict=True)
    ]
    return torch.stack(parts).mean()


def gradient_of(loss: Callable, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss(logits, labels), logits)[0]


@torch.inference_mode()
def ids(bench: Bench) -> Iterator[str]:
    """From logits to class ids, on the device."""
    yield from head("Class ids of a batch", "The model's pass", "With class ids", "Ratio", "Idle", "Waits", "Memory")
    post_process = DenseCLIPImageProcessor().post_process_semantic_segmentation
    for subject in bench.subjects:
        model, half = build(bench, subject), bench.to_half(bench.images(bench.inference_batch, subject.side))
        whole = {"inference_mode": "whole"}
        own = partial(model, half, **whole)
        for size in ((subject.side, subject.side), bench.photograph_size):
            sizes = [size] * len(half)
            ways = {
                "segment_classes": partial(model.segment_classes, half, size, **whole),
                "post_process": lambda own=own, sizes=sizes: post_process(own(), sizes),
            }
            found = [torch.stack(list(run())) for run in ways.values()]
            if any(of_way.device.type != bench.device for of_way in found) or not torch.equal(*found):
                raise SystemExit(f"{subject.stem}: the two ways to class ids differ; nothing is timed.")
            for name, run in ways.items():
                pass_time, time, _ = bench.times(own, run)
                yield format_row(
                    f"{subject.stem}, {name}, {len(half)} x {size[0]} x {size[1]}",
                    f"{1000 * pass_time:.1f} ms",
                    f"{1000 * time:.1f} ms",
                    f"{time / pass_time:.2f}",
                    *bench.idle_and_waits(run),
                    bench.peak(run),
                )


@torch.inference_mode()
def predict(bench: Bench) -> Iterator[str]:
    """`denseclip predict` on photographs of 12 megapixels beside the model's own passes."""
    yield from head(
        "`denseclip predict`, 12 megapixels", "The model's images/s", "The command's", "Share", "Asked for"
    )
    subject = bench.subjects[0]
    model = build(bench, subject)
    predictor = ReplacedLogits(model, DenseCLIPImageProcessor(), generate_palette(model.config.num_labels))
    words = ["--photographs", str(bench.photographs), "--batch_size", str(min(8, bench.photographs)), "--rounds", "1"]
    words += ["--size", *map(str, bench.photograph_size)]
    seconds = compare(predictor, parse_arguments(words))
    own, command = (bench.photographs / seconds[name][0][0] for name in (MODEL, COMMAND))
    yield format_row(subject.stem, f"{own:.1f}", f"{command:.1f}", f"{command / own:.0%}", ">= 70 %")


TABLES = {table.__name__: table for table in (beside_plain, ids, predict, changes, ways)}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=tuple(TABLES), default=list(TABLES))
    parser.add_argument("--smoke", action="store_true", help="on the CPU, everything small")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each side")
    args = parser.parse_args(words)
    if not args.smoke and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here; --smoke only shows that the script runs")
    bench = Bench(rounds=args.rounds)
    if args.smoke:
        small = Subject("denseclip_fpn_small", 64, 0.4, 0.55)
        bench = Bench("cpu", (small,), 2, 2, 1, 1, (96, 128), "float32", None, 128)
    torch.set_float32_matmul_precision("high")  # TF32
    torch.backends.cudnn.allow_tf32 = True

    rate = bench.rate()
    name = torch.cuda.get_device_name() if bench.device == "cuda" else platform.processor() or "CPU"
    print(f"{name}, PyTorch {torch.__version__}: {rate.best / 1e12:.3g} trillion multiply-adds/s in {bench.dtype}.")
    for table in args.tables:
        for line in TABLES[table](bench):
            print(line, flush=True)


if __name__ == "__main__":
    main()
