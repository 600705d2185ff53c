# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Shapes that are painted over each other, as a mask of keys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .sources import UNCOVERED, Drawing


HIDDEN = "objects that lie wholly under others"
# Which of two shapes is seen where they overlap: the one that the file names later, or the one of fewer pixels.
Overlaps = Literal["later", "smaller"]


@dataclass(frozen=True)
class Shape:
    """
    One object.

    Attributes:
        key (`int`): of its class, see [`Drawing`].
        render (`Callable[[tuple[int, int]], numpy.ndarray]`): given height and width, an array of this shape and of
            type bool: the pixels of the object, by the rule of the tool that the form comes from. Can be pickled.
    """

    key: int
    render: Callable[[tuple[int, int]], np.ndarray]


def draw_shapes(size: tuple[int, int], shapes: Sequence[Shape], overlaps: Overlaps = "later") -> Drawing:
    """
    Paint shapes, from the lowest to the topmost, into a mask of this height and width.

    One shape is held in memory at a time, and only the rectangle around it is painted: a photograph may have hundreds.
    """
    owners = np.full(size, -1, np.int32)  # index of the shape that is seen; -1 is the last entry of both tables below
    keys = np.array([shape.key for shape in shapes] + [UNCOVERED], np.int32)
    areas = np.full(len(shapes) + 1, np.iinfo(np.int64).max)
    for index, shape in enumerate(shapes):
        pixels = shape.render(size)
        window = _bounding_box(pixels)
        pixels, below = pixels[window], owners[window]
        areas[index] = pixels.sum()
        if overlaps == "smaller":
            pixels = pixels & (areas[below] >= areas[index])  # of equals the later one is seen
        below[pixels] = index
    is_seen = np.bincount(owners.reshape(-1) + 1, minlength=len(shapes) + 1)[1:] > 0
    hidden = int(np.sum(~is_seen & (areas[:-1] > 0)))
    return Drawing(keys[owners], {HIDDEN: hidden} if hidden else {})


@dataclass(frozen=True)
class DrawShapes:
    """
    Draws what a file says of a photograph, see [`Item`].

    Attributes:
        called (`str`): what an error calls the annotation; it names the file.
        shapes (`tuple[Shape, ...]`): from the lowest to the topmost.
        overlaps (`str`): see [`draw_shapes`].
    """

    called: str
    shapes: tuple[Shape, ...]
    overlaps: Overlaps

    def __call__(self, size: tuple[int, int]) -> Drawing:
        try:
            return draw_shapes(size, self.shapes, self.overlaps)
        except ValueError as error:
            raise ValueError(f"{self.called}: {error}") from error


def _bounding_box(pixels: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle that holds all pixels that are set; empty where none is."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
