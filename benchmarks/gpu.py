# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
How fast it is on one GPU: training steps and inference, beside plain DenseCLIP and beside the rate of the chip.

    python -m benchmarks.gpu                                                     # everything, some minutes
    python -m benchmarks.gpu --device cpu --batch_size 1 --side 64 --rounds 1    # only to see that it runs

Plain trains in float32 with TF32 products, as PyTorch would today; ours in bfloat16, channels last, compiled, with
fused AdamW. The rate is that of a product of two matrices of 8192 x 8192 in bfloat16, and the share of it counts the
multiply-adds of `training.complexity`: three times the forward pass for a training step. "Idle" is the share of a step
in which the GPU works on nothing, by PyTorch's profiler; the batch is there already, so it says nothing of the data.
"""

import argparse
import platform
from collections.abc import Callable
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from .speed import (
    alternate,
    check_equal,
    check_losses,
    make_config,
    make_pair,
    make_training_steps,
    matrix_rate,
    multiply_adds,
    wait_for,
)


# Row of the paper: shares of the rate that were asked for, in training and in inference.
SHARES = {"denseclip_fpn_rn50": (0.40, 0.55), "denseclip_fpn_vit_b16": (0.50, 0.60)}
SIDES = {"denseclip_fpn_rn50": 512, "denseclip_fpn_vit_b16": 640}
# Allowed differences in bfloat16, as shares of the loss and of the logits' standard deviation.
LOSS_TOLERANCE, LOGITS_TOLERANCE = 0.02, 0.2


def idle_share(step, device: str) -> float:
    """1 - the time in which at least one kernel runs / the time of the step."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        step()
        wait_for(device)
    events = profiler.events()
    on_gpu = [event.time_range for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    busy, covered = 0.0, float("-inf")
    for start, end in sorted((kernel.start, kernel.end) for kernel in on_gpu):
        busy += max(0.0, end - max(start, covered))
        covered = max(covered, end)
    whole = max(event.time_range.end for event in events) - min(event.time_range.start for event in events)
    return 1 - busy / whole


def training(stem: str, batch_size: int, side: int, device: str, rounds: int, rate: float) -> str:
    pixel_values = torch.randn(batch_size, 3, side, side, device=device)
    labels = torch.randint(0, 150, (batch_size, side, side), device=device)
    torch.set_float32_matmul_precision("high")  # TF32
    torch.backends.cudnn.allow_tf32 = True
    plain, ours = make_training_steps(stem, pixel_values, labels, dtype=torch.bfloat16)
    check_losses(plain, ours, LOSS_TOLERANCE)
    what = f"{stem}, training step, {batch_size} x {side} x {side}"
    flops = 3 * batch_size * multiply_adds(make_config(stem), (side, side))
    return measure_row(what, plain, ours, ">= 2", flops / rate, SHARES[stem][0], batch_size, device, rounds)


@torch.inference_mode()
def inference(stem: str, batch_size: int, side: int, device: str, rounds: int, rate: float) -> str:
    plain, ours = (model.to(device) for model in make_pair(stem))
    ours = ours.to(torch.bfloat16).fuse()
    pixel_values = torch.randn(batch_size, 3, side, side, device=device)
    half = pixel_values.to(torch.bfloat16, memory_format=torch.channels_last)
    run = torch.compile(ours)
    check_equal(plain(pixel_values).logits, run(half).logits.float(), stem, LOGITS_TOLERANCE)
    what = f"{stem}, inference, {batch_size} x {side} x {side}"
    floor = batch_size * multiply_adds(ours.config, (side, side)) / rate
    plain_call, our_call = partial(plain, pixel_values), partial(run, half)
    return measure_row(what, plain_call, our_call, "-", floor, SHARES[stem][1], batch_size, device, rounds)


def measure_row(
    what: str,
    plain: Callable[[], object],
    ours: Callable[[], object],
    target: str,
    floor: float,
    share_target: float,
    batch_size: int,
    device: str,
    rounds: int,
) -> str:
    """One line of the table. `floor` is how many seconds ours would take at the rate of the chip."""
    slow, fast, gain = alternate(lambda: (plain(), wait_for(device)), lambda: (ours(), wait_for(device)), rounds)
    idle = f"{idle_share(ours, device):.1%}" if device == "cuda" else "-"
    return (
        f"| {what} | {1000 * slow:.1f} ms | {1000 * fast:.1f} ms | {gain:.2f} | {target} | {floor / fast:.1%} |"
        f" >= {share_target:.0%} | {batch_size / fast:.0f} | {idle} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--batch_size", type=int, help="32 in training and 16 in inference by default")
    parser.add_argument("--side", type=int, help="pixels; 512 for RN50 and 640 for ViT-B by default")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each side")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here; --device cpu only shows that the script runs")

    rate = matrix_rate(8192 if args.device == "cuda" else 512, torch.bfloat16, args.device)
    name = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or "CPU"
    print(f"{name}, PyTorch {torch.__version__}: {rate / 1e12:.1f} trillion multiply-adds per second in bfloat16.\n")
    print("| What | Plain | Ours | Ratio | Target | Share of the rate | Target | Images/s | Idle |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for stem, side in SIDES.items():
        side = args.side or side
        # What was compiled before would make the next sizes dynamic.
        torch._dynamo.reset()
        print(training(stem, args.batch_size or 32, side, args.device, args.rounds, rate), flush=True)
        torch._dynamo.reset()
        print(inference(stem, args.batch_size or 16, side, args.device, args.rounds, rate), flush=True)


if __name__ == "__main__":
    main()
