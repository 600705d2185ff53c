"""
Fifty steps of training, recorded: loss and gradient norm of each, and slices of what the model became.

The record in `fixtures/trajectories` is our own output, made by `make_trajectories.py`. It guards against drift alone:
what is right is said by the published run in `test_trainer.py`, and of the first step by the formula and the
differences of losses below. After a change that is meant to change training, make it anew.

Weights and pictures follow a rule of their own, since fresh ones differ between releases of Transformers, and runs are
in float64 from end to end: in float32 rounding alone moves the last gradient norms of the ResNet by a quarter.

The tolerance lies between what rounding can do and what a fault does. Where every weight starts one unit in the last
place up or down, arrays differ by 2e-16 to 6e-13; that is what another processor, another order of summing or another
number of threads amounts to. A learning rate or gamma that is off by 1e-3 of itself moves them by 3e-4 to 1e-1.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modeling_denseclip import DenseCLIPForSemanticSegmentation
from tests.test_backbones import SWIN
from tests.test_trainer import walk
from tests.tiny import tiny_model
from training.learning.optimization import freeze_text_encoder


RECORDS = Path(__file__).parent / "fixtures" / "trajectories"
STEPS, BATCHES, BATCH_SIZE, SIDE = 50, 5, 2, 64
# Of `tests.tiny`, and the fields that make it this variant.
VARIANTS = {
    "resnet": ("resnet", {}),
    "vit": ("vit", {"drop_path_rate": 0.0}),
    "swin": ("resnet", {"vision_config": {"model_type": "swin", "drop_path_rate": 0.0, **SWIN}}),
}
WITHOUT_DROPOUT = {"context_decoder_dropout": 0.0, "decode_head_dropout": 0.0}
# Relative to each loss and norm, in standard deviations of maps, and absolute in weights, which are of size 1.
TOLERANCE = 1e-9


@dataclass
class Run:
    """What [`walk`] takes: a model, and batches of `(steps, batch_size, ...)`."""

    model: DenseCLIPForSemanticSegmentation
    pixel_values: torch.Tensor
    labels: torch.Tensor
    schedule: dict

    def build_model(self) -> DenseCLIPForSemanticSegmentation:
        return self.model.train()


def numbers(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Normally distributed; NumPy promises that `RandomState` gives the same ones for ever."""
    return np.random.RandomState(seed).standard_normal(shape)


def build_run(variant: str) -> Run:
    kind, fields = VARIANTS[variant]
    model = tiny_model(kind, **WITHOUT_DROPOUT, **fields).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = numbers(zlib.crc32(name.encode()), tuple(parameter.shape))
            if parameter.ndim > 1:
                values /= parameter[0].numel() ** 0.5
            else:  # biases are around 0, scales around 1
                values = 0.1 * values + name.endswith(("weight", "gamma"))
            parameter.copy_(torch.from_numpy(values))

    # Blocks of 16 x 16 pixels of a class, whose colours show it through noise; the upper rows are unlabelled.
    blocks = np.random.RandomState(0).randint(0, 5, (BATCHES, BATCH_SIZE, SIDE // 16, SIDE // 16))
    labels = np.kron(blocks, np.ones((16, 16), dtype=np.int64))
    colors = (labels[:, :, None] - 2) * np.array([1.0, -0.5, 0.3])[:, None, None]
    pixel_values = torch.from_numpy(colors + 0.5 * numbers(1, (BATCHES, BATCH_SIZE, 3, SIDE, SIDE)))
    labels[:, :, :6] = 255
    rounds = STEPS // BATCHES
    return Run(
        model,
        pixel_values.repeat(rounds, 1, 1, 1, 1),
        torch.from_numpy(labels).repeat(rounds, 1, 1, 1),
        {"power": 0.9, "min_lr": 1e-6, "warmup_iters": 10, "warmup_ratio": 1e-6},
    )


def record(run: Run, output_dir: Path, **arguments) -> dict[str, np.ndarray]:
    """Train; gradients of the first steps are clipped, later ones are not."""
    trainer = walk(run, output_dir, **{"max_grad_norm": 5.0} | arguments)
    model = trainer.model.eval()
    with torch.no_grad():
        outputs = model(run.pixel_values[0])
    return {
        "decode": np.array([parts["decode"] for parts, _ in trainer.history]),
        "score_map": np.array([parts["score_map"] for parts, _ in trainer.history]),
        "grad_norm": np.array([entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]),
        "logits": outputs.logits[0, :, ::5, ::5].numpy(),
        "scores": outputs.score_map[0].numpy(),
        # Of every tensor the first and the last value, by name.
        "weights": np.array([[weight.flatten()[i].item() for i in (0, -1)] for _, weight in by_name(model)]),
    }


def by_name(model: DenseCLIPForSemanticSegmentation) -> list[tuple[str, torch.Tensor]]:
    return sorted((name, weight) for name, weight in model.state_dict().items() if weight.is_floating_point())


def differences(found: dict[str, np.ndarray], recorded: dict[str, np.ndarray]) -> dict[str, float]:
    """How far each array is off, in tolerances."""
    errors = {name: np.abs(found[name] - recorded[name]) for name in recorded}
    scales = {name: np.abs(recorded[name]) for name in ("decode", "score_map", "grad_norm")}
    scales |= {name: recorded[name].std() for name in ("logits", "scores")} | {"weights": 1.0}
    return {name: float((errors[name] / (TOLERANCE * scales[name])).max()) for name in recorded}


def load_record(variant: str) -> dict[str, np.ndarray]:
    with np.load(RECORDS / f"{variant}.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("variant", VARIANTS)
def test_fifty_steps_are_the_recorded_ones(variant, tmp_path):
    recorded = load_record(variant)
    assert len(recorded["decode"]) == len(recorded["grad_norm"]) == STEPS
    assert recorded["decode"][-5:].mean() < 0.6 * recorded["decode"][:5].mean(), "nothing was learned"
    assert recorded["grad_norm"].min() < 5.0 < recorded["grad_norm"].max()
    found = differences(record(build_run(variant), tmp_path), recorded)
    assert max(found.values()) < 1, found


@pytest.mark.parametrize("variant", VARIANTS)
def test_rounding_is_far_below_the_tolerance(variant, tmp_path):
    run = build_run(variant)
    signs = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in run.model.parameters():
            up = torch.randint(0, 2, parameter.shape, generator=signs).bool()
            parameter.copy_(parameter.nextafter(torch.where(up, torch.inf, -torch.inf).double()))
    found = differences(record(run, tmp_path), load_record(variant))
    assert max(found.values()) < 0.01, found


@pytest.mark.parametrize("planted", ["learning_rate", "gamma"])
def test_change_by_a_thousandth_is_seen(planted, tmp_path):
    run, arguments = build_run("vit"), {}
    if planted == "learning_rate":
        arguments["learning_rate"] = 1.001e-3
    else:
        run.model.context_decoder.gamma.data.mul_(1.001)
    found = differences(record(run, tmp_path, **arguments), load_record("vit"))
    assert all(found[name] > 1000 for name in ("decode", "grad_norm", "logits", "weights")), found


@pytest.mark.parametrize("variant", VARIANTS)
def test_first_recorded_step_is_right(variant):
    """Losses by their formula, in float64, and the norm of the gradient as the slope of the loss along it."""
    run, recorded = build_run(variant), load_record(variant)
    model, pixel_values, labels = run.build_model(), run.pixel_values[0], run.labels[0]
    freeze_text_encoder(model)
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    def losses() -> tuple[torch.Tensor, torch.Tensor]:
        outputs = model(pixel_values)
        means = []
        for maps in (outputs.logits, outputs.score_map / 0.07):
            maps = F.interpolate(maps, size=labels.shape[-2:], mode="bilinear", align_corners=False)
            own = maps.gather(1, labels.where(labels != 255, 0)[:, None])[:, 0]
            # Unlabelled pixels have no loss, and count in the mean all the same.
            means.append(((maps.exp().sum(dim=1).log() - own) * (labels != 255)).mean())
        return means[0], 0.4 * means[1]

    decode, score_map = losses()
    assert recorded["decode"][0] == pytest.approx(decode.item(), rel=1e-12)
    assert recorded["score_map"][0] == pytest.approx(score_map.item(), rel=1e-12)
    gradients = torch.autograd.grad(decode + score_map, weights, allow_unused=True)
    moved = [(weight, gradient) for weight, gradient in zip(weights, gradients, strict=True) if gradient is not None]
    norm = sum(gradient.square().sum() for _, gradient in moved).sqrt()
    assert recorded["grad_norm"][0] == pytest.approx(norm.item(), rel=1e-12)
    step, ends = 1e-7, []
    with torch.no_grad():
        for factor in (step, -2 * step):
            for weight, gradient in moved:
                weight.add_(gradient, alpha=(factor / norm).item())
            ends.append(sum(losses()).item())
    # Of the slope about 1e-16 / 1e-7 is rounding; units of the ResNet that begin or cease to be 0 bend the loss more.
    assert recorded["grad_norm"][0] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)
