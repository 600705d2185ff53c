# Copyright 2026 The DenseCLIP for Transformers authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Pictures to look at: overlays with a legend, heat maps, bars, matrices, contact sheets, and plots of Matplotlib. And
the colours of classes.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont


if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


OPACITY = 0.55  # of the class colours over the image
HEAT_OPACITY = 0.6  # of a heat map over the image
MINIMUM_WIDTH = 640  # smaller images are enlarged by a whole factor, so that the legend does not dwarf them
PICTURE_WIDTH = MINIMUM_WIDTH  # of photographs on a sheet, so that what is written on them has one size
MAXIMUM_LEGEND_ROWS = 24  # an untrained model sees all classes at once; the rest shares one row
DRAWN_LETTERS = 200  # of a name, at its beginning and at its end
JOINERS = "\u200c\u200d"  # without a width of their own, part of words in Persian and in Hindi
BACKGROUND, TEXT_COLOR, MUTED_COLOR, UNLABELLED_COLOR = (250, 250, 250), (32, 32, 32), (120, 120, 120), (0, 0, 0)
EMPTY_COLOR = (226, 226, 226)  # of a cell that has no value
# Viridis (S. van der Walt and N. Smith, CC0) at nine even steps: what is lighter is more, to every kind of eye.
HEAT_COLORS = (
    (68, 1, 84),
    (71, 45, 123),
    (59, 82, 139),
    (44, 114, 142),
    (33, 144, 140),
    (39, 173, 129),
    (93, 200, 99),
    (170, 220, 50),
    (253, 231, 37),
)


# Colours of classes are chosen among those whose channels are multiples of this.
GRID_STEP = 15
# From linear sRGB to CIE XYZ under D65, and the white of both (IEC 61966-2-1).
RGB_TO_XYZ = np.array([(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)])
# Linear sRGB as it looks without the cones of long, of middle, of short waves. Source: G. Machado, M. Oliveira and
# L. Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009), severity 1.
WITHOUT_LONG = np.array(
    [(0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)]
)
WITHOUT_MIDDLE = np.array(
    [(0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)]
)
WITHOUT_SHORT = np.array(
    [(1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)]
)
# The last of these is the least sure, so a second model has a say: H. Brettel, F. Vienot and J. Mollon, "Computerized
# simulation of color appearance for dichromats" (1997), on either side of a plane, for linear sRGB.
WITHOUT_SHORT_SIDES = np.array(
    [
        [(1.01277, 0.13548, -0.14826), (-0.01243, 0.86812, 0.14431), (0.07589, 0.80500, 0.11911)],
        [(0.93678, 0.18979, -0.12657), (0.06154, 0.81526, 0.12320), (-0.37562, 1.12767, 0.24796)],
    ]
)
WITHOUT_SHORT_PLANE = np.array([0.03901, -0.02788, -0.01113])


def generate_palette(num_labels: int) -> list[tuple[int, int, int]]:
    """
    Choose one RGB colour in [0, 255] per class: each as different as can be from all before it, so that the colour of
    a class does not depend on how many classes follow it.

    None is near black, white or grey. The smallest difference between two of them (CIEDE2000) is 25 for 11 classes,
    17 for 19, 11 for 40 and 5 for 150; the last of these are hard to tell apart without a legend.
    """
    return list(_choose_colors(num_labels, is_color_blind_safe=False))


def color_blind_palette(num_labels: int) -> list[tuple[int, int, int]]:
    """
    As [`generate_palette`], with colours that also differ for people who lack one kind of cone: long waves (protan),
    middle (deutan) or short (tritan).

    The smallest difference between two of them (CIEDE2000), to the eye that tells them apart worst, is 34 for 4
    classes, 19 for 6, 14 for 8, 12 for 12 and less than 8 from 13 on. So trust it up to 12 classes; with more, read
    the boundaries and the legend too. (The first 8 of Okabe and Ito, without black, come to 8.)
    """
    return list(_choose_colors(num_labels, is_color_blind_safe=True))


@lru_cache
def _choose_colors(num_labels: int, is_color_blind_safe: bool) -> tuple[tuple[int, int, int], ...]:
    """Farthest-point sampling: from a first colour on, always the candidate whose nearest chosen one is farthest."""
    # Where fewer differences can be seen in hue, more lightnesses are needed.
    first, lightness, chroma, views = (
        ((230, 159, 0), (35, 93), (15, math.inf), _as_color_blind_people_see)
        if is_color_blind_safe
        else ((0, 114, 178), (40, 92), (25, 90), lambda linear: linear[None])
    )
    channel = np.arange(0, 256, GRID_STEP)
    candidates = np.stack(np.meshgrid(channel, channel, channel, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _to_lab(_to_linear(candidates))
    is_within = (lightness[0] <= lab[:, 0]) & (lab[:, 0] <= lightness[1])
    is_within &= (chroma[0] <= np.hypot(lab[:, 1], lab[:, 2])) & (np.hypot(lab[:, 1], lab[:, 2]) <= chroma[1])
    candidates = np.concatenate([[first], candidates[is_within]])

    places = _to_even_space(_to_lab(views(_to_linear(candidates))))  # (3, views, candidates)
    distance = np.full(len(candidates), np.inf)
    chosen = []
    for _ in range(num_labels):
        chosen.append(int(distance.argmax()))
        steps = places - places[..., chosen[-1:]]
        distance = np.minimum(distance, np.einsum("dvc,dvc->vc", steps, steps).min(axis=0))
    return tuple(tuple(candidates[index].tolist()) for index in chosen)


def _as_color_blind_people_see(linear: np.ndarray) -> np.ndarray:
    """Linear RGB (colours, 3) -> (views, colours, 3): as it is, and to each kind of colour blindness."""
    views = [linear, *(linear @ matrix.T for matrix in (WITHOUT_LONG, WITHOUT_MIDDLE, WITHOUT_SHORT))]
    is_first_side = (linear @ WITHOUT_SHORT_PLANE >= 0)[:, None]
    views.append(np.where(is_first_side, *(linear @ matrix.T for matrix in WITHOUT_SHORT_SIDES)))
    return np.stack(views).clip(0, 1)


def _to_linear(colors: np.ndarray) -> np.ndarray:
    """sRGB in [0, 255] -> linear RGB in [0, 1]."""
    colors = np.asarray(colors) / 255
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def _to_lab(linear: np.ndarray) -> np.ndarray:
    """Linear RGB (..., 3) -> CIELAB (..., 3)."""
    xyz = linear @ RGB_TO_XYZ.T / RGB_TO_XYZ.sum(axis=1)
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _to_even_space(lab: np.ndarray) -> np.ndarray:
    """
    CIELAB (..., 3) -> a space in which equal distances look equally different also between strong colours, (3, ...).

    Source: DIN 6176 ("DIN99").
    """
    lightness, a, b = np.moveaxis(lab, -1, 0)
    angle = math.radians(16)
    redness, yellowness = a * math.cos(angle) + b * math.sin(angle), 0.7 * (b * math.cos(angle) - a * math.sin(angle))
    chroma = np.hypot(redness, yellowness)
    shrink = np.log1p(0.045 * chroma) / np.maximum(0.045 * chroma, 1e-12)
    return np.stack([105.51 * np.log1p(0.0158 * lightness), redness * shrink, yellowness * shrink])


def save_overlay(
    image: Image.Image,
    segmentation: np.ndarray,
    id2label: Mapping[int, str],
    palette: Sequence[Sequence[int]] | None,
    path: str | Path,
) -> None:
    """Save what [`draw_overlay`] draws, with the legend; the suffix of `path` chooses the format."""
    draw_overlay(image, segmentation, id2label, palette).save(path)


def draw_overlay(
    image: Image.Image,
    segmentation: np.ndarray,
    id2label: Mapping[int, str],
    palette: Sequence[Sequence[int]] | None = None,
    legend: bool = True,
    legend_below: bool = False,
) -> Image.Image:
    """
    Draw the image under the colours of its classes, with boundaries.

    Args:
        image (`PIL.Image.Image`): the photograph.
        segmentation (array of shape `(height, width)`): a class id per pixel of the image; ids that `id2label` does
            not name (such as 255) are left uncoloured.
        id2label (`Mapping[int, str]`): the names.
        palette (`Sequence` of RGB triples in [0, 255], *optional*): one colour per id, generated if `None`.
        legend (`bool`, *optional*, defaults to `True`): add names and shares of the area at the right, and enlarge
            images narrower than 640 pixels; otherwise the picture has the size of the image.
        legend_below (`bool`, *optional*, defaults to `False`): put the legend below instead, at the width of the
            picture; the middle of names that are too long for it is left out.

    Raises:
        `ValueError`: if image and segmentation differ in size, or the palette has too few colours.
    """
    segmentation = np.asarray(segmentation)
    if segmentation.shape != image.size[::-1]:
        raise ValueError(
            f"The segmentation has the shape {segmentation.shape} and the image has {image.size[::-1]} (height, "
            "width): pass `target_sizes` to `post_process_semantic_segmentation` to get it at the image's size."
        )
    palette = _palette_of(id2label, palette)
    segmentation = _gather_unnamed(segmentation, id2label)

    image = image.convert("RGB")
    if not legend:
        return _blend(image, segmentation, id2label, palette)
    factor = max(1, -(-MINIMUM_WIDTH // image.width))
    enlarged = image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS)
    overlay = _blend(enlarged, segmentation.repeat(factor, axis=0).repeat(factor, axis=1), id2label, palette)
    if legend_below:
        return _stack(overlay, _draw_legend(segmentation, id2label, palette, width=overlay.width))
    legend_picture = _draw_legend(segmentation, id2label, palette, height=overlay.height)
    canvas = Image.new(
        "RGB", (overlay.width + legend_picture.width, max(overlay.height, legend_picture.height)), BACKGROUND
    )
    canvas.paste(overlay, (0, (canvas.height - overlay.height) // 2))
    canvas.paste(legend_picture, (overlay.width, 0))
    return canvas


def draw_heat_map(
    image: Image.Image,
    values: np.ndarray,
    title: str = "",
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """
    Draw a map of values, such as the scores of one class, over the greyed image, with a colour bar below.

    Args:
        image (`PIL.Image.Image`): the photograph.
        values (array of shape `(map_height, map_width)`): finite numbers, spread over the whole image bilinearly.
        title (`str`, *optional*): written beside the colour bar.
        limits (`tuple[float, float]`, *optional*): the values of the first and the last colour; what lies beyond gets
            that colour. By default the least and the greatest value of the map.

    Raises:
        `ValueError`: if the values are not a map of finite numbers, or the limits not in order.
    """
    values = np.asarray(values, dtype=np.float32)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            f"A heat map takes finite values of shape (height, width), got the shape {values.shape} with "
            f"{np.count_nonzero(~np.isfinite(values))} values that are not finite: pass the map of one class."
        )
    low, high = (float(values.min()), float(values.max())) if limits is None else limits
    if not low <= high:
        raise ValueError(f"The limits of a heat map are (low, high) with low <= high, got {limits}.")

    factor = max(1, -(-MINIMUM_WIDTH // image.width))
    size = (image.width * factor, image.height * factor)
    grey = np.asarray(image.convert("L").resize(size, Image.Resampling.LANCZOS), dtype=np.float32)[..., None]
    values = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    # A constant map has no range: it gets the first colour.
    colors = _heat_color((values - low) / (high - low if high > low else 1.0))
    heat_map = Image.fromarray(((1 - HEAT_OPACITY) * grey + HEAT_OPACITY * colors).round().astype(np.uint8))

    return _stack(heat_map, _draw_scale(heat_map.width, low, high, title))


def mark_pixel(picture: Image.Image, row: float, column: float) -> Image.Image:
    """Draw a ring around a place of a picture, in pixels from its upper left corner, that stands out on any ground."""
    picture = picture.convert("RGB")
    draw = ImageDraw.Draw(picture)
    radius = max(6, picture.width // 40)
    for color, width in (((0, 0, 0), max(4, radius // 2)), ((255, 255, 255), max(2, radius // 4))):
        reach = radius + width / 2
        draw.ellipse((column - reach, row - reach, column + reach, row + reach), outline=color, width=width)
    return picture


def draw_bars(
    groups: Sequence[tuple[str, Sequence[tuple[str, float, str, Sequence[int]]]]], width: int = MINIMUM_WIDTH
) -> Image.Image:
    """
    Draw lists of values as bars, one list below the other.

    Args:
        groups (`Sequence` of a title and rows): each row is a name, the length of its bar in [0, 1] of the room that
            there is, the text behind it, and its colour.
        width (`int`, *optional*, defaults to 640): of the picture, in pixels.
    """
    title_font, font = ImageFont.load_default(size=18), ImageFont.load_default(size=16)
    margin, gap, title_height, row_height, thickness = 16, 10, 28, 23, 14
    rows = [row for _, group in groups for row in group]
    name_width = min(max((font.getlength(_printable(name)) for name, *_ in rows), default=0), 0.4 * width)
    text_width = max((font.getlength(text) for _, _, text, _ in rows), default=0)
    left = margin + name_width + gap
    room = width - left - gap - text_width - margin
    height = sum(title_height + len(group) * row_height + gap for _, group in groups) + margin
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    top = margin
    for title, group in groups:
        draw.text((margin, top), _shorten(title, title_font, width - 2 * margin), MUTED_COLOR, font=title_font)
        top += title_height
        for name, length, text, color in group:
            middle = top + row_height // 2
            draw.text((left - gap, middle), _shorten(name, font, name_width), TEXT_COLOR, font=font, anchor="rm")
            end = left + max(1, round(room * length))
            draw.rectangle((left, middle - thickness // 2, end, middle + thickness // 2), fill=tuple(color))
            draw.text((end + gap // 2, middle), text, TEXT_COLOR, font=font, anchor="lm")
            top += row_height
        top += gap
    return picture


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
    others = values[~np.eye(num_names, dtype=bool)]
    low, high = float(others.min()), float(others.max())
    fractions = (values - low) / (high - low if high > low else 1.0)
    colors = _heat_color(fractions).round().astype(np.uint8)
    colors[np.eye(num_names, dtype=bool)] = EMPTY_COLOR

    digits = 2 if high - low > 0.1 else 3
    cell = min(72, max(44, 1200 // num_names))
    font, number_font, gap, margin = ImageFont.load_default(size=16), ImageFont.load_default(size=cell // 3), 8, 16
    names = [_shorten(name, font, 240) for name in names]
    side, name_width = num_names * cell, math.ceil(max(map(font.getlength, names))) + gap
    left = margin + name_width
    canvas = Image.new("RGB", (max(left + side, MINIMUM_WIDTH) + margin, left + side), BACKGROUND)
    canvas.paste(Image.fromarray(colors.repeat(cell, axis=0).repeat(cell, axis=1)), (left, left))
    draw = ImageDraw.Draw(canvas)
    # Names of columns are written on a strip that is turned upright.
    strip = Image.new("RGB", (name_width, side), BACKGROUND)
    for index, name in enumerate(names):
        middle = (index + 0.5) * cell
        draw.text((left - gap, left + middle), name, TEXT_COLOR, font=font, anchor="rm")
        ImageDraw.Draw(strip).text((gap, middle), name, TEXT_COLOR, font=font, anchor="lm")
        for other in range(num_names):
            if other != index:
                color = TEXT_COLOR if fractions[index, other] > 0.6 else BACKGROUND
                place = (left + (other + 0.5) * cell, left + middle)
                draw.text(place, f"{values[index, other]:.{digits}f}", color, font=number_font, anchor="mm")
    canvas.paste(strip.transpose(Image.Transpose.ROTATE_90), (left, margin))
    return _stack(canvas, _draw_scale(canvas.width, low, high, title, unit=20))


def to_picture_width(photograph: Image.Image) -> Image.Image:
    """The photograph in the width that it has on a sheet."""
    height = max(round(photograph.height * PICTURE_WIDTH / photograph.width), 1)
    return photograph.resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)


def contact_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], columns: int, tile_width: int = 320
) -> Image.Image:
    """
    Put pictures of any sizes on one sheet, row by row, each with its caption below.

    Args:
        pictures (`Sequence[PIL.Image.Image]`): resized to `tile_width`, or to twice that height if they are taller.
        captions (`Sequence[str]`): one per picture; the middle of long ones is left out.
        columns (`int`): pictures per row.
        tile_width (`int`, *optional*, defaults to 320): in pixels.

    Raises:
        `ValueError`: if there is no picture, a caption is missing or left over, or a number is not positive.
    """
    if not pictures or len(pictures) != len(captions):
        raise ValueError(
            f"A contact sheet takes at least one picture and a caption for each, got {len(pictures)} pictures and "
            f"{len(captions)} captions."
        )
    if columns < 1 or tile_width < 1:
        raise ValueError(f"`columns` and `tile_width` are at least 1, got {columns} and {tile_width}.")

    font, gap, caption_height = ImageFont.load_default(size=14), 8, 22
    tiles = [_fit(picture, tile_width, 2 * tile_width) for picture in pictures]
    columns = min(columns, len(tiles))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) + caption_height + gap for row in rows]
    sheet = Image.new("RGB", (columns * (tile_width + gap) + gap, sum(heights) + gap), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        row, column = divmod(index, columns)
        left, top = gap + column * (tile_width + gap), gap + sum(heights[:row])
        sheet.paste(tile, (left + (tile_width - tile.width) // 2, top))
        bottom = top + heights[row] - gap - caption_height // 2
        draw.text(
            (left + tile_width // 2, bottom), _shorten(caption, font, tile_width), TEXT_COLOR, font=font, anchor="mm"
        )
    return sheet


def plot_segmentation(
    image: "Image.Image | np.ndarray | torch.Tensor",
    segmentation: "Image.Image | np.ndarray | torch.Tensor",
    id2label: Mapping[int, str],
    palette: Sequence[Sequence[int]] | None = None,
    title: str = "",
    ax: "Axes | None" = None,
) -> "Figure":
    """
    Plot the image under the colours of its classes, with boundaries and a legend, by Matplotlib.

    The figure is one of pyplot: `plt.show()` shows it. A notebook shows it at the end of the cell anyway, so there
    give the result a name, or the same figure comes twice.

    Args:
        image (`PIL.Image.Image`, array or tensor): the photograph; `(height, width, 3)` or `(3, height, width)`, as
            integers in [0, 255] or floats in [0, 1].
        segmentation (`PIL.Image.Image`, array or tensor of shape `(height, width)`): a class id per pixel of the
            image, as `post_process_semantic_segmentation(outputs, target_sizes=[(height, width)])[0]`; ids that
            `id2label` does not name (such as 255) are left uncoloured.
        id2label (`Mapping[int, str]`): the names, as in `model.config.id2label`.
        palette (`Sequence` of RGB triples in [0, 255], *optional*): one colour per id, such as `model.config.palette`,
            or of [`color_blind_palette`]. Generated if `None`.
        title (`str`, *optional*): written above.
        ax (`matplotlib.axes.Axes`, *optional*): where to plot. By default on a new figure.

    Raises:
        `ValueError`: if image and segmentation differ in size, or one of them is none.
        `ImportError`: if Matplotlib is not installed.
    """
    plt = _import_pyplot()
    picture, segmentation = _to_picture(image), _to_array(segmentation)
    overlay = draw_overlay(picture, segmentation, id2label, palette, legend=False)
    if ax is None:
        height = min(max(7 * picture.height / picture.width, 2.5), 9)
        ax = plt.figure(figsize=(height * picture.width / picture.height + 2.5, height), layout="constrained").gca()
    ax.imshow(overlay)
    ax.set_axis_off()
    ax.set_anchor("W")  # the legend stands at the right
    ax.set_title(title)
    rows = _legend_rows(_gather_unnamed(segmentation, id2label), id2label, _palette_of(id2label, palette))
    labels = [f"{name}  {share}" for name, share, _ in rows]
    handles = [plt.Rectangle((0, 0), 1, 1, facecolor=np.divide(color, 255)) for *_, color in rows]
    # Of labels, those are left out that begin with "_", and what stands between dollars is read as mathematics.
    legend = ax.legend(handles, map(str, range(len(rows))), loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    for handle, text, label in zip(legend.legend_handles, legend.get_texts(), labels, strict=True):
        handle.set_label(label)
        text.set(text=label, parse_math=False)
    return ax.figure


def plot_score_maps(
    image: "Image.Image | np.ndarray | torch.Tensor",
    score_map: "np.ndarray | torch.Tensor",
    labels: Sequence[str] | Mapping[int, str],
    classes: Sequence[str] | None = None,
    top_k: int = 5,
    columns: int = 3,
) -> "Figure":
    """
    Plot the photograph and, over it in grey, the score maps of some classes, by Matplotlib. All maps share one scale
    of colours, so that a class that is nowhere in the photograph is as dark as it scores.

    The figure is one of pyplot, see [`plot_segmentation`].

    Args:
        image (`PIL.Image.Image`, array or tensor): the photograph, as in [`plot_segmentation`].
        score_map (array or tensor of shape `(num_labels, grid_height, grid_width)`): `outputs.score_map[0]`, or what
            `model.score_text` gives for one image; spread over the whole photograph. Images must not be padded.
        labels (`Sequence[str]` or `Mapping[int, str]`): a name for each map, as in `model.config.id2label`.
        classes (`Sequence[str]`, *optional*): names of the maps to plot, in this order.
        top_k (`int`, *optional*, defaults to 5): how many to plot if `classes` is not given: those that score best in
            the most cells, and then those with the greatest score.
        columns (`int`, *optional*, defaults to 3): panels per row.

    Raises:
        `ValueError`: if the maps are not one per label, a class is unknown, or a number is not positive.
        `ImportError`: if Matplotlib is not installed.
    """
    plt = _import_pyplot()
    picture, score_map = _to_picture(image), _to_array(score_map)
    names = list(labels) if not isinstance(labels, Mapping) else [labels[index] for index in range(len(labels))]
    if score_map.ndim != 3 or len(score_map) != len(names) or not np.isfinite(score_map).all():
        raise ValueError(
            f"`score_map` is (num_labels, grid_height, grid_width) of finite numbers, a map for each of the "
            f"{len(names)} labels; got the shape {score_map.shape}. Pass that of one image: `outputs.score_map[0]`."
        )
    if min(top_k, columns) < 1:
        raise ValueError(f"`top_k` and `columns` are at least 1, got {top_k} and {columns}.")
    wins = np.bincount(score_map.argmax(axis=0).ravel(), minlength=len(names))
    if classes is None:
        chosen = np.lexsort((-score_map.max(axis=(1, 2)), -wins))[:top_k]
    elif unknown := [name for name in classes if name not in names]:
        raise ValueError(f"No label is called {', '.join(map(repr, unknown))}; the labels are {', '.join(names)}.")
    else:
        chosen = [names.index(name) for name in classes]

    num_panels = 1 + len(chosen)
    columns = min(columns, num_panels)
    rows = -(-num_panels // columns)
    height = 4 * picture.height / picture.width
    figure, axes = plt.subplots(
        rows, columns, figsize=(4 * columns + 0.8, (height + 0.4) * rows), squeeze=False, layout="constrained"
    )
    for ax in axes.flat:
        ax.set_axis_off()
    axes.flat[0].imshow(picture)
    axes.flat[0].set_title("photograph")
    shown = score_map[chosen]
    for ax, index in zip(axes.flat[1:], chosen, strict=False):
        ax.imshow(picture.convert("L"), cmap="gray", vmin=0, vmax=255)
        heat_map = ax.imshow(
            score_map[index],
            cmap="viridis",
            vmin=shown.min(),
            vmax=shown.max(),
            alpha=HEAT_OPACITY,
            interpolation="bilinear",
            extent=(-0.5, picture.width - 0.5, picture.height - 0.5, -0.5),
        )
        title = f"{_printable(names[index])}: best in {wins[index] / wins.sum():.0%}"
        ax.set_title(title, parse_math=False)
    figure.colorbar(heat_map, ax=axes, label="score (cosine)", shrink=0.8)
    return figure


def _import_pyplot():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            'Plots need Matplotlib, which is not installed: pip install "modeling-denseclip[plot]". Without it, '
            "`draw_overlay` and `draw_heat_map` make pictures."
        ) from error
    return plt


def _to_array(values: "Image.Image | np.ndarray | torch.Tensor") -> np.ndarray:
    """An array of what may lie on any device, require gradients, or be in half precision."""
    import torch

    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def _to_picture(image: "Image.Image | np.ndarray | torch.Tensor") -> Image.Image:
    """
    An RGB picture of one in any container.

    Raises:
        `ValueError`: for a shape or for values that are no picture's.
    """
    from ..files.photographs import to_rgb

    if isinstance(image, Image.Image):
        return to_rgb(image)
    pixels = _to_array(image)
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] != 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"An image is (height, width, 3) or (3, height, width); got the shape {pixels.shape}.")
    is_float = np.issubdtype(pixels.dtype, np.floating)
    if not (pixels >= 0).all() or not (pixels <= (1 if is_float else 255)).all():
        raise ValueError(
            f"An image has integers in [0, 255] or floats in [0, 1]; got {pixels.dtype} from {pixels.min():.4g} to "
            f"{pixels.max():.4g}. Pass the photograph, not the `pixel_values` that the image processor makes of it."
        )
    return Image.fromarray((pixels * 255 if is_float else pixels).round().astype(np.uint8))


def _palette_of(id2label: Mapping[int, str], palette: Sequence[Sequence[int]] | None) -> Sequence[Sequence[int]]:
    num_ids = max(id2label) + 1
    if palette is None:
        return generate_palette(num_ids)
    if len(palette) < num_ids:
        raise ValueError(
            f"The palette has {len(palette)} colours, and the ids of the classes go up to {num_ids - 1}: give it one "
            "colour per id, or leave it out to have them chosen."
        )
    return palette


def _gather_unnamed(segmentation: np.ndarray, id2label: Mapping[int, str]) -> np.ndarray:
    """
    Make all ids without a name one, `max(id2label) + 1`, so that tables with one entry more serve every pixel.
    """
    num_ids = max(id2label) + 1
    named = np.isin(np.arange(num_ids), list(id2label))
    in_range = (segmentation >= 0) & (segmentation < num_ids)
    segmentation = np.where(in_range, segmentation, num_ids).astype(np.intp)
    return np.where(np.append(named, False)[segmentation], segmentation, num_ids)


def _legend_rows(
    segmentation: np.ndarray, id2label: Mapping[int, str], palette: Sequence[Sequence[int]]
) -> list[tuple[str, str, tuple[int, ...]]]:
    """
    Name, share of the area and colour of what a segmentation shows, the largest first, with `max(id2label) + 1` for
    what has no name.
    """
    counts = np.bincount(segmentation.ravel(), minlength=max(id2label) + 2)
    present = sorted((label for label in id2label if counts[label]), key=lambda label: -counts[label])
    rows = [
        (_printable(id2label[label]), counts[label], tuple(palette[label])) for label in present[:MAXIMUM_LEGEND_ROWS]
    ]
    if rest := present[MAXIMUM_LEGEND_ROWS:]:
        rows.append((f"{len(rest)} other classes", counts[rest].sum(), BACKGROUND))
    if unlabelled := counts[-1]:
        rows.append(("unlabelled", unlabelled, UNLABELLED_COLOR))
    return [(name, f"{100 * count / segmentation.size:.1f} %", color) for name, count, color in rows]


def _blend(
    image: Image.Image, segmentation: np.ndarray, id2label: Mapping[int, str], palette: Sequence[Sequence[int]]
) -> Image.Image:
    """Colour an RGB image; `max(id2label) + 1` in the segmentation is no class."""
    colors = np.zeros((max(id2label) + 2, 3), dtype=np.float32)
    opacity = np.zeros((len(colors), 1), dtype=np.float32)
    for label in id2label:
        colors[label], opacity[label] = palette[label], OPACITY

    pixels = np.asarray(image, dtype=np.float32)
    # Greyed a little, so that a colour of the overlay is a class and not the photograph's own.
    blended = 0.5 * pixels + 0.5 * pixels.mean(axis=-1, keepdims=True)
    blended = blended * (1 - opacity)[segmentation] + (opacity * colors)[segmentation]
    blended[_boundaries(segmentation)] *= 0.35
    return Image.fromarray(blended.round().astype(np.uint8))


def _boundaries(segmentation: np.ndarray) -> np.ndarray:
    """Mark the last pixel before each change of class, to the right and downwards."""
    boundary = np.zeros(segmentation.shape, dtype=bool)
    boundary[:, :-1] |= segmentation[:, :-1] != segmentation[:, 1:]
    boundary[:-1] |= segmentation[:-1] != segmentation[1:]
    return boundary


def _draw_legend(
    segmentation: np.ndarray,
    id2label: Mapping[int, str],
    palette: Sequence[Sequence[int]],
    width: int | None = None,
    height: int = 0,
) -> Image.Image:
    """Names and shares of the area, at least `height` high and as wide as the names, or as `width` says."""
    rows = _legend_rows(segmentation, id2label, palette)
    row_height, swatch, margin, gap = 28, 17, 16, 10
    font = ImageFont.load_default(size=16)
    name_width = max((font.getlength(name) for name, _, _ in rows), default=0)
    beside_names = margin + swatch + gap + 2 * gap + font.getlength("100.0 %") + margin
    width = math.ceil(name_width + beside_names) if width is None else width
    legend = Image.new("RGB", (width, max(height, len(rows) * row_height + 24)), BACKGROUND)
    draw = ImageDraw.Draw(legend)
    for row, (name, share, color) in enumerate(rows):
        middle = 12 + row * row_height + row_height // 2
        box = (margin, middle - swatch // 2, margin + swatch, middle + swatch // 2)
        draw.rounded_rectangle(box, radius=3, fill=color)
        name = _shorten(name, font, width - beside_names)
        draw.text((margin + swatch + gap, middle), name, TEXT_COLOR, font=font, anchor="lm")
        draw.text((width - margin, middle), share, MUTED_COLOR, font=font, anchor="rm")
    return legend


def _stack(picture: Image.Image, below: Image.Image) -> Image.Image:
    """Two pictures of one width as one."""
    canvas = Image.new("RGB", (picture.width, picture.height + below.height), BACKGROUND)
    canvas.paste(picture)
    canvas.paste(below, (0, picture.height))
    return canvas


def _draw_scale(width: int, low: float, high: float, title: str, unit: int | None = None) -> Image.Image:
    """What the heat colours mean: all of them, and below them the least value, a title and the greatest value."""
    # Sized by the picture, so that the text can still be read on a contact sheet.
    unit = width // 32 if unit is None else unit
    font, margin = ImageFont.load_default(size=unit), unit // 2
    scale = Image.new("RGB", (width, 3 * unit), BACKGROUND)
    bar = _heat_color(np.linspace(0, 1, width - 2 * margin)[None].repeat(unit // 2, axis=0))
    scale.paste(Image.fromarray(bar.round().astype(np.uint8)), (margin, margin))
    draw = ImageDraw.Draw(scale)
    lowest, highest, middle = f"{low:.3g}", f"{high:.3g}", 2 * unit
    draw.text((margin, middle), lowest, MUTED_COLOR, font=font, anchor="lm")
    draw.text((width - margin, middle), highest, MUTED_COLOR, font=font, anchor="rm")
    room = width - 2 * (2 * margin + max(font.getlength(lowest), font.getlength(highest)))
    draw.text((width // 2, middle), _shorten(title, font, room), TEXT_COLOR, font=font, anchor="mm")
    return scale


def _heat_color(values: np.ndarray) -> np.ndarray:
    """Look up the colours of values, [0, 1] -> RGB in [0, 255], float32 of shape `(height, width, 3)`."""
    places = np.linspace(0, 1, len(HEAT_COLORS))
    channels = [np.interp(values, places, channel) for channel in zip(*HEAT_COLORS, strict=True)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _fit(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Resize to the largest size within `width` x `height` that keeps the ratio."""
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _printable(text: str) -> str:
    """
    A name in one line that shows what it holds: line ends, control characters, marks that turn the direction of
    writing, and bytes that are not UTF-8 as escapes, such as `\\n`. Of a very long one the middle is left out.
    """
    if len(text) > 2 * DRAWN_LETTERS:  # to find out how wide it is would take minutes
        text = f"{text[:DRAWN_LETTERS]}...{text[-DRAWN_LETTERS:]}"
    if text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in JOINERS
        else letter
        for letter in text
    )


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Leave out the middle of a text until it fits; names of files differ at their ends."""
    text = _printable(text)
    shortened, kept = text, len(text)
    while kept > 0 and font.getlength(shortened) > width:
        kept -= 1
        shortened = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
    return shortened
