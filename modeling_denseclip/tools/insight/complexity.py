# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""
Parameters and multiply-adds of a config, counted while the real model runs on the meta device.

Counted as by fvcore, which the paper used: a multiply-add is 1. The products of attention always count, where fvcore
leaves out those of fused attention.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers.initialization import no_init_weights

from ...configuration_denseclip import DenseCLIPConfig
from ...modeling_denseclip import DenseCLIPForSemanticSegmentation
from .description import describe


aten = torch.ops.aten

# What the paper's figures leave out.
TEXT_TOWER = ("text_encoder", "text_projection")
# Its parts are listed one by one, as if they were parts of the model.
IMAGE_ENCODER = "image_encoder"
BETWEEN_PARTS = "between the parts"

CONVOLUTION, LINEAR, MATCHING = "convolution", "linear", "attention, matching"
NORMALIZATION, RESIZING = "normalization", "resizing"
KINDS = {
    aten.convolution: CONVOLUTION,
    aten.mm: LINEAR,
    aten.addmm: LINEAR,
    # Products of activations: attention, which is not fused on the meta device, and the score map.
    aten.bmm: MATCHING,
    aten.baddbmm: MATCHING,
    aten.native_batch_norm: NORMALIZATION,
    aten._native_batch_norm_legit_no_training: NORMALIZATION,
    aten.native_group_norm: NORMALIZATION,
    aten.native_layer_norm: NORMALIZATION,
    aten.upsample_bilinear2d: RESIZING,
}


def per_input_element(count: int) -> Callable[..., int]:
    """
    A formula of `FlopCounterMode`, doubled: PyTorch counts a multiply-add as 2, and `kinds_of` halves all counts.
    """
    return lambda input_shape, *args, **kwargs: 2 * count * math.prod(input_shape)


def per_output_element(count: int) -> Callable[..., int]:
    """See `per_input_element`."""
    return lambda *args, out_shape, **kwargs: 2 * count * math.prod(out_shape)


# What fvcore counts besides products, for which PyTorch has formulas. Nearest resizing and pooling are not counted.
FORMULAS = {
    aten.native_batch_norm: per_input_element(2),
    aten._native_batch_norm_legit_no_training: per_input_element(2),
    aten.native_group_norm: per_input_element(5),
    aten.native_layer_norm: per_input_element(5),
    aten.upsample_bilinear2d: per_output_element(4),
}


@dataclass
class Part:
    """A part of a model."""

    parameters: int = 0
    # Kind of operator -> multiply-adds for one image, and what else fvcore counts.
    flops: Counter[str] = field(default_factory=Counter)


@dataclass
class Complexity:
    """What one image costs."""

    parts: dict[str, Part]  # by the names of the model's modules, of the image encoder those inside it
    # Operators that count as 0 -> how often they ran; without those that work element by element or only change views.
    uncounted: Counter[str]
    encodes_text_per_image: bool  # whether the text tower has to run for every image, and not once for all

    @property
    def text_parameters(self) -> int:
        return sum(self.parts[name].parameters for name in TEXT_TOWER if name in self.parts)

    @property
    def parameters(self) -> int:
        """Without the text tower."""
        return sum(part.parameters for part in self.parts.values()) - self.text_parameters

    @property
    def flops_with_text(self) -> int:
        """Of an image and of the text tower."""
        return sum(part.flops.total() for part in self.parts.values())

    @property
    def flops(self) -> int:
        """Of an image whose class embeddings have been computed before, unless they depend on the image."""
        if self.encodes_text_per_image:
            return self.flops_with_text
        return self.flops_with_text - sum(self.parts[name].flops.total() for name in TEXT_TOWER if name in self.parts)


class OperatorRecorder(TorchDispatchMode):
    """Counts which operators run."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def measure(config: DenseCLIPConfig, size: tuple[int, int] = (1024, 1024)) -> Complexity:
    """
    Build the model on the meta device, and count while it segments one image of this height and width as a whole.

    Raises:
        ValueError: for an image that is too small for the model.
    """
    with torch.device("meta"), no_init_weights():  # there are no numbers to initialize, which would take a second
        model = DenseCLIPForSemanticSegmentation(config).eval().requires_grad_(False)
        pixel_values = torch.empty(1, config.num_channels, *size)
    if min(size) < model.min_image_size:
        raise ValueError(
            f"An image of {size[0]} x {size[1]} is too small: both sides must be {model.min_image_size} or more."
        )
    # The model keeps no class embeddings on the meta device, so the text tower runs and is counted.
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with OperatorRecorder() as recorder, counter:
        model(pixel_values, inference_mode="whole")

    parts = {}
    for name, parameter in model.named_parameters():
        parts.setdefault(part_of(name), Part()).parameters += parameter.numel()
    counts = counter.get_flop_counts()
    between = kinds_of(counts["Global"])
    for name, flops in outermost_modules(counts, type(model).__name__):
        parts.setdefault(part_of(name), Part()).flops += kinds_of(flops)
        between.subtract(kinds_of(flops))
    parts[BETWEEN_PARTS] = Part(flops=Counter({kind: count for kind, count in between.items() if count}))

    uncounted = Counter()
    for operator, calls in recorder.calls.items():
        is_free = operator.is_view or torch.Tag.pointwise in operator.tags
        if operator.overloadpacket not in counter.flop_registry and not is_free:
            uncounted[str(operator.overloadpacket).removeprefix("aten.")] += calls
    return Complexity(parts, uncounted, describe(config).encodes_text_per_image)


def part_of(name: str) -> str:
    """The part that a module or parameter belongs to."""
    first, *others = name.split(".")
    return ".".join([first, *others[:1]]) if first == IMAGE_ENCODER else first


def outermost_modules(counts: dict[str, dict], root: str) -> Iterator[tuple[str, dict]]:
    """
    Of each part the modules that were called and are inside no other that was: names and counts. A part need not be
    called itself, as the text tower is not: its layers are.
    """
    names = {name.removeprefix(f"{root}.") for name in counts if name.startswith(f"{root}.")} - {IMAGE_ENCODER}
    for name in sorted(names):
        if not any(name.startswith(f"{other}.") for other in names):
            yield name, counts[f"{root}.{name}"]


def kinds_of(flops: dict) -> Counter[str]:
    """Counts per operator, where a multiply-add is 2 -> counts per kind of operator, where it is 1."""
    kinds = Counter()
    for operator, count in flops.items():
        kinds[KINDS.get(operator, str(operator))] += count // 2
    return kinds
