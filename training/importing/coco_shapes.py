# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Polygons, run lengths and boxes, as COCO files hold them and `pycocotools.mask` draws them.

Source: [the form](https://cocodataset.org/#format-data).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modeling_denseclip.configuration_denseclip import shorten

from .outlines import Polygons, box_corners, decompress_runs, expand_runs, read_numbers


POLYGONS, RUNS, BOXES = "polygons", "run lengths", "boxes"  # kinds of shapes


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
        height, width = size
        return expand_runs(self.counts, height * width).reshape(width, height).T

    def content(self) -> tuple:
        """What is equal for two that are drawn alike."""
        return (self.size, self.counts.tobytes())


def read_shape(annotation: dict, size: tuple[int, int] | None) -> tuple[str, Polygons | RunLengths | None]:
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


def _read_polygons(segmentation: list) -> Polygons | None:
    parts = [segmentation] if not isinstance(segmentation[0], list) else segmentation
    parts = [read_numbers(part, (-1,), "segmentation") for part in parts]
    if any(len(part) % 2 for part in parts):
        raise ValueError("its segmentation has a polygon of an odd number of coordinates")
    if len(parts) > 2 and all(len(part) == 2 for part in parts):
        raise ValueError(
            "its segmentation is a list of points. It is a list of polygons, [[x1, y1, x2, y2, ...], ...]"
        )
    # Two points are no area; pycocotools would take their four numbers for a box.
    parts = [part.reshape(-1, 2) for part in parts if len(part) >= 6]
    return Polygons(tuple(parts)) if parts else None


def _read_box(box: Any) -> Polygons | None:
    numbers = read_numbers(box, (-1,), "bbox")
    if len(numbers) != 4 or numbers[2:].min() < 0:
        raise ValueError(f"its bbox is {shorten(repr(box))}; it is x, y, width and height")
    left, top, width, height = numbers
    return Polygons((box_corners(left, top, left + width, top + height),)) if width > 0 and height > 0 else None


def _read_runs(segmentation: dict, size: tuple[int, int] | None) -> RunLengths:
    sides = read_numbers(segmentation.get("size"), (2,), "size of run lengths")
    if (sides < 1).any() or (sides % 1).any():
        raise ValueError(
            f"the size of its run lengths is {shorten(repr(segmentation.get('size')))}; it is height, width"
        )
    stated = (int(sides[0]), int(sides[1]))
    if size is not None and stated != size:
        raise ValueError(f"its run lengths are of {spell_size(stated)}, the picture is of {spell_size(size)}")
    counts = segmentation.get("counts")
    counts = (
        decompress_runs(counts.encode(errors="surrogatepass"))
        if isinstance(counts, str)
        else read_numbers(counts, (-1,), "counts")
    )
    # Summed as floats: the sum of integers could be too large for them, and begin anew.
    if (counts < 0).any() or (counts % 1).any() or counts.sum(dtype=np.float64) != stated[0] * stated[1]:
        raise ValueError(f"its run lengths do not add up to {spell_size(stated)}")
    return RunLengths(counts.astype(np.int64), stated)


def spell_size(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]} pixels"
