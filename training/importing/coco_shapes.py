# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Polygons, run lengths and boxes, as COCO files hold them and `pycocotools.mask` draws them.

Source: [the form](https://cocodataset.org/#format-data), and `maskApi.c` of pycocotools.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from modeling_denseclip.configuration_denseclip import shorten


POLYGONS, RUNS, BOXES = "polygons", "run lengths", "boxes"  # kinds of shapes
# Drawing takes 80 bytes of memory for each pixel of the length of an outline, wherever it lies. Those of objects are
# thousands of pixels long.
MAXIMUM_OUTLINE = 4_000_000
# Larger than the pixels of any picture that is read.
MAXIMUM_COUNT = 2**31 - 1
# Numbers of compressed run lengths are written in characters from this one on, 5 bits each, with a bit that says
# whether the number goes on.
FIRST_CHARACTER, GOES_ON = 48, 0x20


@dataclass(frozen=True, eq=False)
class Outlines:
    """
    Polygons that are one object, as `pycocotools` fills them.

    Attributes:
        parts (`tuple[numpy.ndarray, ...]`): x and y in turns, in pixels, of each polygon.
    """

    parts: tuple[np.ndarray, ...]

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        outlines = coco_mask.frPyObjects([part.tolist() for part in self.parts], *size)
        return coco_mask.decode(coco_mask.merge(outlines)).astype(bool)

    def content(self) -> tuple:
        """What is equal for two that are drawn alike."""
        return tuple(part.tobytes() for part in self.parts)

    def reach_beyond(self, size: tuple[int, int]) -> bool:
        """Whether they reach beyond a picture of this size by more than a pixel, which rounding explains."""
        height, width = size
        return any(
            part.min() < -1 or part[0::2].max() > width + 1 or part[1::2].max() > height + 1 for part in self.parts
        )


@dataclass(frozen=True, eq=False)
class RunLengths:
    """
    Pixels of one object, column by column: how many are not its own, how many are, and so on.

    Attributes:
        counts (`numpy.ndarray`): the numbers; they add up to the pixels of the picture.
        size (`tuple[int, int]`): height and width of the picture.
    """

    counts: np.ndarray
    size: tuple[int, int]

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        if tuple(size) != self.size:
            raise ValueError(f"run lengths of {spell_size(self.size)} cannot be drawn at {spell_size(size)}")
        runs = coco_mask.frPyObjects({"size": list(size), "counts": self.counts.tolist()}, *size)
        return coco_mask.decode(runs).astype(bool)

    def content(self) -> tuple:
        """What is equal for two that are drawn alike."""
        return (self.size, self.counts.tobytes())


def read_shape(annotation: dict, size: tuple[int, int] | None) -> tuple[str, Outlines | RunLengths | None]:
    """
    The pixels of one object.

    Args:
        annotation (`dict`): it may have a "segmentation", polygons or run lengths, or else a "bbox".
        size (`tuple[int, int]`, *optional*): height and width of the picture, if the file tells them.

    Returns:
        `tuple`: `POLYGONS`, `RUNS` or `BOXES`; and what renders it, None for what has no area.

    Raises:
        ValueError: for what is not of the form.
    """
    segmentation = annotation.get("segmentation")
    if segmentation:
        if isinstance(segmentation, dict):
            return RUNS, _read_runs(segmentation, size)
        if isinstance(segmentation, list):
            return POLYGONS, _read_polygons(segmentation)
        raise ValueError(f"its segmentation is {shorten(repr(segmentation))}, neither polygons nor run lengths")
    box = annotation.get("bbox")
    if not box:
        raise ValueError("it has neither a segmentation nor a bbox")
    return BOXES, _read_box(box)


def _read_polygons(segmentation: list) -> Outlines | None:
    parts = [segmentation] if not isinstance(segmentation[0], list) else segmentation
    parts = [read_numbers(part, "segmentation") for part in parts]
    if any(len(part) % 2 for part in parts):
        raise ValueError("its segmentation has a polygon of an odd number of coordinates")
    if len(parts) > 2 and all(len(part) == 2 for part in parts):
        raise ValueError(
            "its segmentation is a list of points. It is a list of polygons, [[x1, y1, x2, y2, ...], ...]"
        )
    # Two points are no area; pycocotools would take their four numbers for a box.
    parts = [part for part in parts if len(part) >= 6]
    _check_lengths(parts)
    return Outlines(tuple(parts)) if parts else None


def _read_box(box: Any) -> Outlines | None:
    """The corners of a box, in the order in which pycocotools fills boxes as polygons."""
    numbers = read_numbers(box, "bbox")
    if len(numbers) != 4 or numbers[2:].min() < 0:
        raise ValueError(f"its bbox is {shorten(repr(box))}; it is x, y, width and height")
    left, top, width, height = numbers
    right, bottom = left + width, top + height
    corners = np.array([left, top, left, bottom, right, bottom, right, top])
    _check_lengths([corners])
    return Outlines((corners,)) if width > 0 and height > 0 else None


def _check_lengths(parts: list[np.ndarray]) -> None:
    for part in parts:
        furthest = np.abs(part).max()
        if furthest * len(part) <= MAXIMUM_OUTLINE:  # as nearly always: no line between corners can be too long
            continue
        points = part.reshape(-1, 2)
        steps = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()
        if max(steps, furthest) > MAXIMUM_OUTLINE:
            raise ValueError(f"its outline is longer, or further away, than {MAXIMUM_OUTLINE:,} pixels")


def _read_runs(segmentation: dict, size: tuple[int, int] | None) -> RunLengths:
    sides = read_numbers(segmentation.get("size"), "size of run lengths")
    if len(sides) != 2 or (sides < 1).any() or (sides % 1).any():
        raise ValueError(
            f"the size of its run lengths is {shorten(repr(segmentation.get('size')))}; it is height, width"
        )
    stated = (int(sides[0]), int(sides[1]))
    if size is not None and stated != size:
        raise ValueError(f"its run lengths are of {spell_size(stated)}, the picture is of {spell_size(size)}")
    counts = segmentation.get("counts")
    counts = _decompress(counts) if isinstance(counts, str) else read_numbers(counts, "counts")
    # pycocotools leaves pixels that no run covers as they were in memory.
    if (counts < 0).any() or (counts % 1).any() or counts.sum() != stated[0] * stated[1]:
        raise ValueError(f"its run lengths do not add up to {spell_size(stated)}")
    return RunLengths(counts.astype(np.int64), stated)


def _decompress(text: str) -> np.ndarray:
    """
    The numbers of compressed run lengths.

    Each is written in groups of 5 bits, the lowest first, the last group with a sign; from the fourth on it is the
    difference to the one two before.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - FIRST_CHARACTER
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its counts are no compressed run lengths")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & GOES_ON:
            if bits & 0x10:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("its counts end in the middle of a number")
    if any(abs(count) > MAXIMUM_COUNT for count in counts):
        raise ValueError("its counts are no compressed run lengths")
    return np.array(counts, np.float64)


def read_numbers(values: Any, called: str) -> np.ndarray:
    """Finite numbers, also those that are written as texts; of shape (length,) and type float64."""
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"its {called} holds something else than numbers: {shorten(repr(values))}") from error
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError(f"its {called} holds something else than finite numbers: {shorten(repr(values))}")
    return numbers


def spell_size(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]} pixels"
