# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The pixels within polygons, ellipses and boxes, and what is checked of coordinates that a file gives."""

from dataclasses import dataclass

import cv2
import numpy as np
from pycocotools import mask as coco_mask


# Coordinates may lie beyond the picture, where somebody drew over its edge. So many widths and heights away they are
# those of another picture or no coordinates, and would take the renderers hours.
REACH = 10
# Of an outline, in pixels. `pycocotools` keeps 40 bytes for each.
MAXIMUM_LENGTH = 10**7


def read_numbers(values: object, shape: tuple[int, ...], called: str) -> np.ndarray:
    """
    Coordinates as a file gives them, as numbers.

    Args:
        values (`object`): what the file has.
        shape (`tuple[int, ...]`): of the array; -1 for any length.
        called (`str`): what an error calls them, such as "points".

    Returns:
        `numpy.ndarray`: of type float64.

    Raises:
        ValueError: for what are not so many finite numbers.
    """
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"its {called} are no numbers ({error})") from error
    if numbers.size == 0 and -1 in shape:
        return np.zeros([max(length, 0) for length in shape])
    wanted = tuple(have if want == -1 else want for have, want in zip(numbers.shape, shape, strict=False))
    if numbers.ndim != len(shape) or numbers.shape != wanted:
        raise ValueError(f"its {called} are an array of shape {numbers.shape}, where {shape} is expected")
    if not np.isfinite(numbers).all():
        raise ValueError(f"its {called} are not all finite numbers")
    return numbers


def check_reach(points: np.ndarray, size: tuple[int, int]) -> None:
    """
    Refuse coordinates (x, y) that lie so far from a picture of this height and width that they cannot belong to it.

    Raises:
        ValueError: see `REACH`.
    """
    height, width = size
    farthest = np.abs(points).max(initial=0)
    if farthest > REACH * max(size):
        raise ValueError(f"a coordinate of {farthest:g} lies far outside the picture of {width} x {height} pixels")


@dataclass(frozen=True)
class Polygon:
    """
    An area within straight lines, as `pycocotools` fills it; with it CVAT and the tools of COCO make masks.

    Attributes:
        points (`numpy.ndarray`): the corners (x, y) in pixels, of shape (num_points, 2), three at least.
    """

    points: np.ndarray

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        check_reach(self.points, size)
        sides = np.abs(self.points - np.roll(self.points, -1, axis=0)).max(axis=1)
        if sides.sum() > MAXIMUM_LENGTH:
            raise ValueError(f"its outline is {sides.sum():.0f} pixels long; up to {MAXIMUM_LENGTH} can be drawn")
        [encoded] = coco_mask.frPyObjects([self.points.ravel().tolist()], *size)
        return np.ascontiguousarray(coco_mask.decode(encoded), dtype=bool)


@dataclass(frozen=True)
class Ellipse:
    """
    An area as CVAT fills it for its masks: with centre and radii of whole pixels.

    Attributes:
        center (`tuple[float, float]`): (x, y) in pixels.
        radii (`tuple[float, float]`): along x and y, before it is turned.
        angle (`float`): by which it is turned, clockwise in degrees.
    """

    center: tuple[float, float]
    radii: tuple[float, float]
    angle: float = 0.0

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        check_reach(np.array([self.center, self.radii]), size)
        pixels = np.zeros(size, np.uint8)
        center, radii = map(round, self.center), map(round, self.radii)
        cv2.ellipse(pixels, tuple(center), tuple(radii), self.angle, 0, 360, 1, thickness=-1)
        return pixels.astype(bool)


@dataclass(frozen=True)
class Patch:
    """
    A mask of a part of the picture. What of it lies beyond the picture is cut off.

    Attributes:
        pixels (`numpy.ndarray`): of shape (patch_height, patch_width) and type bool.
        left (`int`), top (`int`): where its first pixel lies.
    """

    pixels: np.ndarray
    left: int
    top: int

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        height, width = self.pixels.shape
        rows = slice(max(self.top, 0), max(self.top + height, 0))
        columns = slice(max(self.left, 0), max(self.left + width, 0))
        filled = np.zeros(size, bool)
        inside = filled[rows, columns]
        first_row, first_column = max(-self.top, 0), max(-self.left, 0)
        inside[:] = self.pixels[first_row:, first_column:][: inside.shape[0], : inside.shape[1]]
        return filled


def box_corners(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The corners (x, y) of a box, of shape (4, 2)."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def turn(points: np.ndarray, angle: float, pivot: np.ndarray) -> np.ndarray:
    """Points (x, y) turned clockwise, as one sees them, by degrees around a point (x, y)."""
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return pivot + (points - pivot) @ np.array([[cosine, sine], [-sine, cosine]])
