# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The class of each pixel, found with few enlarged logits, is the one that all of them give, to the last bit."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modeling_denseclip import class_maps_denseclip
from modeling_denseclip.class_maps_denseclip import axis_positions, class_maps, iterate_enlarged


SIZES = [(13, 17), (52, 68), (101, 37), (9, 300), (7, 5), (1, 1), (120, 160), (1, 90)]


def positions(logits: torch.Tensor, size: tuple[int, int]):
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return [axis_positions(new, new, new, old, dtype) for new, old in zip(size, logits.shape[1:], strict=True)]


def find(logits: torch.Tensor, size: tuple[int, int], **options):
    """Class ids and scores of one picture."""
    return class_maps([(logits, *positions(logits, size))], **options)[0][:2]


def by_all_logits(logits: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The greatest class of each pixel, the pixels of each class, and their probabilities: by NumPy."""
    rows, columns = positions(logits, size)
    enlarged = torch.cat([slab for _, slab in iterate_enlarged(logits, rows, columns)])
    class_ids = torch.from_numpy(enlarged.numpy().argmax(axis=-1))  # NumPy gives the first of equal ones
    probabilities = logits.double().softmax(dim=0).numpy()
    near_rows, near_columns = (
        torch.where(axis.weight < 0.5, axis.lower, axis.upper).numpy() for axis in (rows, columns)
    )
    own = probabilities[class_ids.numpy(), near_rows[:, None], near_columns]
    pixels, sums = (np.bincount(class_ids.numpy().ravel(), weights, len(logits)) for weights in (None, own.ravel()))
    return class_ids, torch.from_numpy(pixels.astype(float)), torch.from_numpy(sums)


def like_a_trained_model(num_labels: int, generator: torch.Generator) -> torch.Tensor:
    """Areas of a few classes, with noise."""
    areas = torch.randint(0, min(num_labels, 6), (4, 5), generator=generator)
    areas = areas.repeat_interleave(4, 0).repeat_interleave(4, 1)[:13, :17]
    logits = torch.randn(num_labels, 13, 17, generator=generator)
    return logits.scatter_add(0, areas[None], torch.full((1, 13, 17), 6.0))


def one_step_apart(num_labels: int, generator: torch.Generator) -> torch.Tensor:
    logits = (1 + torch.rand(13, 17, generator=generator)).repeat(num_labels, 1, 1)
    logits[1] = torch.nextafter(logits[1], torch.tensor(3.0))
    return logits


KINDS = {
    "like a trained model's": like_a_trained_model,
    "random": lambda num_labels, generator: torch.randn(num_labels, 13, 17, generator=generator),
    # Whole numbers: many ties, at corners and between them.
    "tied": lambda num_labels, generator: torch.randint(0, 3, (num_labels, 13, 17), generator=generator).float(),
    "all equal": lambda num_labels, generator: torch.zeros(num_labels, 13, 17),
    # Neighbouring numbers of float32: differences are as large as roundings.
    "nearly tied": lambda num_labels, generator: torch.nextafter(
        torch.ones(num_labels, 13, 17), 2.0 * torch.randint(0, 2, (num_labels, 13, 17), generator=generator)
    ),
    # The second class is greater everywhere, by one step: interpolated ones are equal here and there.
    "one step apart": one_step_apart,
    "large": lambda num_labels, generator: 1e30 * torch.randn(num_labels, 13, 17, generator=generator),
    "two classes that cross": lambda num_labels, generator: (
        torch.linspace(-1, 1, 17).expand(num_labels, 13, 17) * torch.linspace(-1, 1, num_labels)[:, None, None]
    ),
}


@pytest.mark.parametrize("num_labels", [2, 7])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_classes_and_scores_are_those_of_all_logits(kind, size, num_labels, monkeypatch):
    logits = KINDS[kind](num_labels, torch.Generator().manual_seed(num_labels))
    expected, pixels, sums = by_all_logits(logits, size)
    limits = ("LEAST_PIXELS_OF_A_CELL", "MOST_DOUBTFUL", "GREATEST_SHARE")
    for values in ((0, 2.0, 2.0), (8, 0.9, 0.4), (10**9, 0.0, 0.0)):  # always few, as it is, always all
        for name, value in zip(limits, values, strict=True):
            monkeypatch.setattr(class_maps_denseclip, name, value)
        class_ids, scores = find(logits, size, with_scores=True)
        assert torch.equal(class_ids, expected)
        assert torch.equal(scores.pixels, pixels)
        torch.testing.assert_close(scores.probability_sums, sums, rtol=1e-5, atol=1e-5)
        assert torch.equal(find(logits, size)[0], expected)
        short, scores = find(logits, size, with_scores=True, dtype=torch.uint8)
        assert short.dtype == torch.uint8 and torch.equal(short.long(), expected)
        assert torch.equal(scores.pixels, pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_small_and_change_nothing(kind, monkeypatch):
    logits = KINDS[kind](7, torch.Generator().manual_seed(0))
    whole, scores = find(logits, (100, 140), with_scores=True)
    for name in ("MAX_ELEMENTS", "MAX_BAND_ELEMENTS", "CELLS_AT_A_TIME", "CELLS_OF_A_GROUP"):
        monkeypatch.setattr(class_maps_denseclip, name, 3)
    parts, scores_of_parts = find(logits, (100, 140), with_scores=True)
    assert torch.equal(parts, whole) and torch.equal(scores_of_parts.pixels, scores.pixels)
    torch.testing.assert_close(scores_of_parts.probability_sums, scores.probability_sums)


@pytest.mark.parametrize("max_elements", [1, 5 * 68 * 3, 5 * 68 * 52])
def test_slabs_are_small(max_elements, monkeypatch):
    logits = torch.randn(5, 13, 17, generator=torch.Generator().manual_seed(0))
    whole = torch.cat([slab for _, slab in iterate_enlarged(logits, *positions(logits, (52, 68)))])
    monkeypatch.setattr(class_maps_denseclip, "MAX_ELEMENTS", max_elements)
    slabs = list(iterate_enlarged(logits, *positions(logits, (52, 68))))
    assert all(slab.numel() <= max(max_elements, 5 * 68) for _, slab in slabs)
    assert len(slabs) == -(-52 // max(1, max_elements // (5 * 68)))
    assert torch.equal(torch.cat([slab for _, slab in slabs]), whole)


@pytest.mark.parametrize("size", SIZES)
def test_enlarged_logits_are_interpolated_ones(size):
    logits = torch.randn(5, 13, 17, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    enlarged = torch.cat([slab for _, slab in iterate_enlarged(logits, *positions(logits, size))]).movedim(-1, 0)
    torch.testing.assert_close(enlarged, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_labels", [300, 1])
def test_any_number_of_classes(num_labels):
    logits = torch.randn(num_labels, 6, 5, generator=torch.Generator().manual_seed(0))
    logits[-1, 2:4, 2:4] += 20  # an area of the last class, whose id takes more than a byte
    expected, pixels, _ = by_all_logits(logits, (90, 70))
    class_ids, scores = find(logits, (90, 70), with_scores=True)
    assert torch.equal(class_ids, expected) and torch.equal(scores.pixels, pixels)
    assert pixels[-1] > 500


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    logits = like_a_trained_model(7, torch.Generator().manual_seed(0)).to(dtype)
    expected, _, _ = by_all_logits(logits, (100, 140))
    assert torch.equal(find(logits, (100, 140))[0], expected)


def test_few_logits_are_enlarged(monkeypatch):
    """Of areas as a trained model has them, what is made is a small part of all: the purpose of it."""
    made = []
    mix = class_maps_denseclip.mix

    def counting(*args):
        made.append(mix(*args))
        return made[-1]

    monkeypatch.setattr(class_maps_denseclip, "mix", counting)
    generator = torch.Generator().manual_seed(0)
    areas = torch.randint(0, 20, (5, 6), generator=generator).repeat_interleave(12, 0).repeat_interleave(12, 1)
    logits = torch.randn(150, 60, 72, generator=generator)
    logits = logits.scatter_add(0, areas[None], torch.full((1, 60, 72), 8.0))
    find(logits, (480, 576), with_scores=True)
    assert sum(tensor.numel() for tensor in made) < 150 * 480 * 576 / 25


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_refused(value):
    logits = torch.zeros(3, 6, 5)
    logits[1, 5, 4] = value
    with pytest.raises(ValueError, match="NaN or infinite, and have no greatest class"):
        find(logits, (30, 30))


@pytest.mark.parametrize("options", [{}, {"with_scores": True}, {"with_enlarged": True}])
def test_on_a_device_the_host_waits_once_and_last(options, monkeypatch):
    """Meta tensors have no values, and refuse everything that would have to wait for one."""
    checked = []
    monkeypatch.setattr(class_maps_denseclip, "_check_finite", lambda checks: checked.append(len(checks)))
    logits = torch.empty(7, 13, 17, device="meta")
    sizes = [(52, 68), (101, 37)]
    maps = class_maps([(logits, *positions(logits, size)) for size in sizes], **options)
    assert checked == [2]
    assert [(found.class_ids.shape, found.class_ids.device.type) for found in maps] == [
        (size, "meta") for size in sizes
    ]
    if "with_enlarged" in options:
        assert [found.enlarged.shape for found in maps] == [(7, *size) for size in sizes]
    monkeypatch.undo()
    with pytest.raises(RuntimeError):  # it would have been seen
        class_maps([(logits, *positions(logits, (52, 68)))])


def test_all_enlarged_logits_are_kept_on_request():
    logits = like_a_trained_model(7, torch.Generator().manual_seed(0))
    (found,) = class_maps([(logits, *positions(logits, (52, 68)))], with_scores=True, with_enlarged=True)
    expected = F.interpolate(logits[None], size=(52, 68), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found.enlarged, expected, atol=1e-5, rtol=0)
    class_ids, scores = find(logits, (52, 68), with_scores=True)
    assert torch.equal(found.class_ids, class_ids) and torch.equal(found.scores.pixels, scores.pixels)
