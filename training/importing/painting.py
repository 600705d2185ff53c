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
    """Paint shapes, from the lowest to the topmost, into a mask of this height and width."""
    parts = [(shape.key, shape.render(size)) for shape in shapes]
    if overlaps == "smaller":
        parts.sort(key=lambda part: -int(part[1].sum()))  # stable, so that of equals the later one is seen
    keys, owners = np.full(size, UNCOVERED, np.int32), np.full(size, -1, np.int32)
    for index, (key, pixels) in enumerate(parts):
        keys[pixels] = key
        owners[pixels] = index
    seen = np.unique(owners)
    hidden = sum(index not in seen and bool(pixels.any()) for index, (_, pixels) in enumerate(parts))
    return Drawing(keys, {HIDDEN: hidden} if hidden else {})
