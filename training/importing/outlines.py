# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The pixels within polygons, ellipses and boxes and of run lengths, and what is checked of numbers that a file gives.

Source: `maskApi.c` of pycocotools, for polygons and for how run lengths are compressed.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from modeling_denseclip.configuration_denseclip import shorten


# Coordinates may lie beyond the picture, where somebody drew over its edge. So many widths and heights away they are
# those of another picture or no coordinates, and would take the renderers hours.
REACH = 10
# Pixels of the outline of an object; those of objects are thousands long. `pycocotools` takes 80 bytes of memory for
# each.
MAXIMUM_LENGTH = 4_000_000
# Numbers of compressed run lengths are written in characters from this one on, 5 bits each, with a bit that says
# whether the number goes on and, in the last character, one that says whether it is negative.
FIRST_CHARACTER, GOES_ON, IS_NEGATIVE = 48, 0x20, 0x10
MAXIMUM_CHARACTERS = 7  # of a number: those of pictures have 31 bits


def read_numbers(values: object, shape: tuple[int, ...], called: str) -> np.ndarray:
    """
    Coordinates as a file gives them, as numbers; those that are written as texts too.

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
        raise ValueError(f"something else than numbers is in its {called}: {shorten(repr(values))}") from error
    if numbers.size == 0 and -1 in shape:
        return np.zeros([max(length, 0) for length in shape])
    wanted = tuple(have if want == -1 else want for have, want in zip(numbers.shape, shape, strict=False))
    if numbers.ndim != len(shape) or numbers.shape != wanted:
        raise ValueError(f"its {called} has numbers of shape {numbers.shape}, where {shape} is expected")
    if not np.isfinite(numbers).all():
        raise ValueError(f"something else than finite numbers is in its {called}: {shorten(repr(values))}")
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


@dataclass(frozen=True, eq=False)
class Polygons:
    """
    The area within straight lines, as `pycocotools` fills it; with it CVAT and the tools of COCO make masks.

    Attributes:
        parts (`tuple[numpy.ndarray, ...]`): the corners (x, y) in pixels of each polygon, of shape (num_points, 2),
            three at least. What lies within any of them is of the object.
    """

    parts: tuple[np.ndarray, ...]

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        self.check(size)
        encoded = coco_mask.merge(coco_mask.frPyObjects([part.ravel().tolist() for part in self.parts], *size))
        # coco_mask.decode would warn of what it does with arrays under NumPy 2.
        runs = decompress_runs(encoded["counts"])
        height, width = size
        return expand_runs(runs, width * height).reshape(width, height).T

    def check(self, size: tuple[int, int]) -> None:
        """
        Refuse what cannot be drawn into a picture of this height and width.

        Raises:
            ValueError: for corners far outside of it, or an outline that is too long.
        """
        for part in self.parts:
            check_reach(part, size)
        length = sum(np.abs(part - np.roll(part, 1, axis=0)).max(axis=1).sum() for part in self.parts)
        if length > MAXIMUM_LENGTH:
            raise ValueError(f"its outline is {length:,.0f} pixels long, where up to {MAXIMUM_LENGTH:,} can be drawn")

    def content(self) -> tuple:
        """What is equal for two that are drawn alike."""
        return tuple(part.tobytes() for part in self.parts)

    def reach_beyond(self, size: tuple[int, int]) -> bool:
        """Whether they reach beyond a picture of this size by more than a pixel, which rounding explains."""
        height, width = size
        return any((part < -1).any() or (part > (width + 1, height + 1)).any() for part in self.parts)


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


def expand_runs(lengths: np.ndarray, num_pixels: int) -> np.ndarray:
    """
    Pixels of runs that are in turn outside and inside an object; those after the last run are outside.

    Args:
        lengths (`numpy.ndarray`): of the runs, at least 0 and in sum at most `num_pixels`.
        num_pixels (`int`): how many pixels there are.

    Returns:
        `numpy.ndarray`: of shape (num_pixels,) and type bool.
    """
    pixels = np.zeros(num_pixels, bool)
    pixels[: lengths.sum()] = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return pixels


def decompress_runs(text: bytes) -> np.ndarray:
    """
    The numbers of COCO's compressed run lengths.

    Each is written in groups of 5 bits, the lowest first, the last group with a sign; from the fourth on it is the
    difference to the one two before.

    Returns:
        `numpy.ndarray`: of type int64.

    Raises:
        ValueError: for what is no such text.
    """
    groups = np.frombuffer(text, np.uint8).astype(np.int64) - FIRST_CHARACTER
    ends = np.flatnonzero(groups & GOES_ON == 0)
    if ((groups < 0) | (groups > 63)).any():
        raise ValueError("its counts are no compressed run lengths")
    if len(groups) and (not len(ends) or ends[-1] != len(groups) - 1):
        raise ValueError("its counts end in the middle of a number")
    if not len(groups):
        return groups
    starts = np.append(0, ends[:-1] + 1)
    num_groups = ends - starts + 1
    if num_groups.max() > MAXIMUM_CHARACTERS:
        raise ValueError("its counts are no compressed run lengths")
    places = np.arange(len(groups)) - np.repeat(starts, num_groups)
    numbers = np.add.reduceat((groups & 31) << 5 * places, starts)
    numbers -= np.where(groups[ends] & IS_NEGATIVE, 1 << 5 * num_groups, 0)
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers
