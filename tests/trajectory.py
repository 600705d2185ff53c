"""Ten steps of training by the published code: where it started, what it saw, where it arrived."""

import json
from dataclasses import dataclass

import numpy as np
import torch

from modeling_denseclip import DenseCLIPForSemanticSegmentation
from modeling_denseclip.checkpoint_formats_denseclip import convert_denseclip_state_dict
from tests.parity import FIXTURES, REFERENCE, ParityCase, config_fields


@dataclass
class Trajectory:
    """
    Args:
        start: The model before the first step, as a case to build it from.
        pixel_values: (steps, batch_size, 3, height, width).
        labels: (steps, batch_size, height, width).
        decode, score_map: The two losses of each step.
        schedule: `power`, `min_lr`, `warmup_iters`, `warmup_ratio`, `max_iters`.
        arrival: Weights after the last step, under the published names; NaN where they were not
            kept.
        rates: Learning rates of text encoder, image encoder and the rest at each step.
    """

    start: ParityCase
    pixel_values: torch.Tensor
    labels: torch.Tensor
    decode: list[float]
    score_map: list[float]
    schedule: dict
    arrival: dict[str, torch.Tensor]
    rates: list[list[float]]

    def build_model(self) -> DenseCLIPForSemanticSegmentation:
        return self.start.build_model().train()

    def converted_arrival(self) -> dict[str, torch.Tensor]:
        """Weights after the last step, under our names; NaN where they were not kept."""
        return convert_denseclip_state_dict(self.arrival)

    def error_of_arrival(self, name: str, weights: torch.Tensor) -> float:
        """Largest difference of `weights` to those after the last step."""
        difference = (weights - self.converted_arrival()[name]).abs()
        return difference[~difference.isnan()].max().item()


def load_trajectory(kind: str) -> Trajectory:
    """From beside the checkout; `kind` is "resnet" or "vit"."""
    folder = REFERENCE / f"training-{kind}"
    published = json.loads((folder / "trajectory.json").read_text())
    checkpoint = torch.load(folder / "checkpoint.pth", weights_only=True)
    # The same class names as in the case without training.
    token_ids = np.load(REFERENCE / f"denseclip-{kind}" / "outputs.npz")["texts"]
    fields = config_fields(published, list(checkpoint["meta"]["CLASSES"]), token_ids)
    fields |= {"context_decoder_dropout": 0.0, "decode_head_dropout": 0.0, "drop_path_rate": 0.0}
    batches = np.load(folder / "batches.npz")
    return Trajectory(
        start=ParityCase(checkpoint["state_dict"], fields, {}, {}, {}, {}, {}),
        pixel_values=torch.from_numpy(batches["pixel_values"]),
        labels=torch.from_numpy(batches["labels"].astype(np.int64)),
        decode=[step["decode"] for step in published["steps"]],
        score_map=[step["score_map"] for step in published["steps"]],
        schedule=published["schedule"],
        arrival=torch.load(folder / "checkpoint_after_10_steps.pth", weights_only=True)["state_dict"],
        rates=[step["lr"] for step in published["steps"]],
    )


def load_trajectory_fixture() -> Trajectory:
    """The ResNet's from the repository, with a sample of the weights after the last step."""
    arrays = np.load(FIXTURES / "trajectory_resnet.npz")
    meta = json.loads(str(arrays["meta"]))

    def group(name: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(f"{name}/"): torch.from_numpy(arrays[key]) for key in arrays if key.startswith(name)}

    state_dict, sampled, indices = group("state_dict"), group("sampled"), group("indices")
    arrival = {}
    for name, values in sampled.items():
        flat = torch.full_like(state_dict[name].flatten(), torch.nan) if name in indices else values.flatten()
        if name in indices:
            flat[indices[name].long()] = values
        arrival[name] = flat.reshape(state_dict[name].shape)
    return Trajectory(
        start=ParityCase(state_dict, meta["fields"], {}, {}, {}, {}, {}),
        pixel_values=torch.from_numpy(arrays["pixel_values"]),
        labels=torch.from_numpy(arrays["labels"].astype(np.int64)),
        arrival=arrival,
        **{name: meta[name] for name in ("decode", "score_map", "schedule", "rates")},
    )
