# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Matrices with the names of their rows and columns: how alike names are, which classes are taken for which."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .drawing import BACKGROUND, EMPTY_COLOR, PICTURE_WIDTH, TEXT_COLOR, draw_scale, heat_color, shorten, stack


def draw_matrix(values: np.ndarray, names: Sequence[str], title: str = "") -> Image.Image:
    """
    Draw how much each of some things has to do with each, with their names along both sides. The diagonal, a thing and
    itself, is left grey.

    Args:
        values (array of shape `(num_names, num_names)`): finite numbers.
        names (`Sequence[str]`): at least two; the middle of long ones is left out.
        title (`str`, *optional*): written below, between the least and the greatest value.

    Raises:
        `ValueError`: if there are not as many rows and columns as names, or fewer than two.
    """
    values = np.asarray(values, dtype=np.float64)
    num_names = len(names)
    if values.shape != (num_names, num_names) or num_names < 2:
        raise ValueError(
            f"A matrix has a row and a column for each of two names or more; got the shape {values.shape} and "
            f"{num_names} names."
        )
    is_pair = ~np.eye(num_names, dtype=bool)
    low, high = float(values[is_pair].min()), float(values[is_pair].max())
    fractions = (values - low) / (high - low if high > low else 1.0)
    colors = np.where(is_pair[..., None], heat_color(fractions).round(), EMPTY_COLOR).astype(np.uint8)
    digits = 2 if high - low > 0.1 else 3
    cell = min(72, max(44, 1200 // num_names))
    cells = draw_cells(colors, names, cell, lambda *place: f"{values[place]:.{digits}f}" if is_pair[place] else "")
    margin = 16
    canvas = Image.new("RGB", (max(margin + cells.width, PICTURE_WIDTH) + margin, margin + cells.height), BACKGROUND)
    canvas.paste(cells, (margin, margin))
    return stack(canvas, draw_scale(canvas.width, low, high, title, unit=20))


def draw_cells(
    colors: np.ndarray,
    names: Sequence[str],
    cell: int,
    write: Callable[[int, int], str],
    line_color: tuple[int, int, int] | None = None,
) -> Image.Image:
    """
    Draw squares with names at their left and, read upwards, above them. The squares end at the lower right corner.

    Args:
        colors (array of shape `(num_names, num_names, 3)`): RGB of type uint8.
        names (`Sequence[str]`): the middle of long ones is left out, and all of them below 9 pixels per cell.
        cell (`int`): the side of a square, in pixels.
        write (`Callable[[int, int], str]`): row and column -> what stands in a cell, which is drawn from 40 pixels on.
        line_color (RGB in [0, 255], *optional*): of lines along cells of 8 pixels or more, which lead to the names.
    """
    font, gap = ImageFont.load_default(size=min(16, max(9, cell - 2))), 8
    names = [shorten(name, font, 240) if cell >= 9 else "" for name in names]
    side, left = len(names) * cell, math.ceil(max(map(font.getlength, names))) + gap
    picture = Image.new("RGB", (left + side, left + side), BACKGROUND)
    picture.paste(Image.fromarray(colors.repeat(cell, axis=0).repeat(cell, axis=1)), (left, left))
    draw = ImageDraw.Draw(picture)
    # Names of columns are written on a strip that is turned upright.
    strip = Image.new("RGB", (left, side), BACKGROUND)
    strip_draw = ImageDraw.Draw(strip)
    for index, name in enumerate(names):
        middle = (index + 0.5) * cell
        draw.text((left - gap, left + middle), name, TEXT_COLOR, font=font, anchor="rm")
        strip_draw.text((gap, middle), name, TEXT_COLOR, font=font, anchor="lm")
    picture.paste(strip.transpose(Image.Transpose.ROTATE_90), (left, 0))
    if line_color and cell >= 8:
        for place in range(left, left + side, cell):
            draw.line([(place, left), (place, left + side)], line_color)
            draw.line([(left, place), (left + side, place)], line_color)
    if cell >= 40:
        font = ImageFont.load_default(size=min(18, cell // 3))
        for row, column in np.ndindex(len(names), len(names)):
            # Of the weights by which Rec. 601 makes greys.
            is_light = colors[row, column] @ (0.299, 0.587, 0.114) > 132
            place = (left + (column + 0.5) * cell, left + (row + 0.5) * cell)
            draw.text(place, write(row, column), TEXT_COLOR if is_light else BACKGROUND, font=font, anchor="mm")
    return picture
