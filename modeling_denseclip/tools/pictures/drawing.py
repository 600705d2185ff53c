# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Pictures to look at: overlays with a legend, heat maps, bars, matrices, contact sheets.

They are drawn by Pillow, which every user has. Matplotlib is an extra, and pictures of `denseclip` and of training do
not depend on it.
"""

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .palettes import generate_palette


PALETTE_SIZE = 256  # a PNG whose palette has the colours holds no more ids
BLENDED_ROWS = 16
OPACITY = 0.55  # of the class colours over the image
FAINT_OPACITY = 0.1  # of the colour of a class that is left faint
HEAT_OPACITY = 0.6  # of a heat map over the image
# Smaller images are enlarged by a whole factor, so that the legend is not much larger than they are. Photographs on a
# sheet have this width too, so that what is written on them has one size.
PICTURE_WIDTH = 640
MAXIMUM_SHEET_NAMES = 60  # in the legend of a sheet; the others are counted
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
    faint_id: int | None = None,
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
        faint_id (`int`, *optional*): a class that is coloured faintly, so that the photograph can be seen beneath and
            the other classes stand out.

    Raises:
        `ValueError`: if image and segmentation differ in size, or the palette has too few colours.
    """
    segmentation = np.asarray(segmentation)
    if segmentation.shape != image.size[::-1]:
        raise ValueError(
            f"The segmentation has the shape {segmentation.shape} and the image has {image.size[::-1]} (height, "
            "width): pass `target_sizes` to `post_process_semantic_segmentation` to get it at the image's size."
        )
    palette = choose_palette(id2label, palette)
    segmentation = gather_unnamed(segmentation, id2label)

    image = image.convert("RGB")
    if not legend:
        return _blend(image, segmentation, id2label, palette, faint_id)
    factor = max(1, -(-PICTURE_WIDTH // image.width))
    enlarged = image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS)
    repeated = segmentation.repeat(factor, axis=0).repeat(factor, axis=1)
    overlay = _blend(enlarged, repeated, id2label, palette, faint_id)
    if legend_below:
        return stack(overlay, _draw_legend(segmentation, id2label, palette, width=overlay.width))
    legend_picture = _draw_legend(segmentation, id2label, palette, height=overlay.height)
    canvas = Image.new(
        "RGB", (overlay.width + legend_picture.width, max(overlay.height, legend_picture.height)), BACKGROUND
    )
    canvas.paste(overlay, (0, (canvas.height - overlay.height) // 2))
    canvas.paste(legend_picture, (overlay.width, 0))
    return canvas


def draw_mask(class_ids: np.ndarray, palette: Sequence[Sequence[int]]) -> Image.Image:
    """Class ids, `(height, width)`, as the pixels of a palette picture, or of 16-bit greys where that is too small."""
    if len(palette) > PALETTE_SIZE:
        return Image.fromarray(class_ids.astype(np.uint16))
    mask = Image.fromarray(class_ids.astype(np.uint8))
    mask.putpalette(np.asarray(palette, dtype=np.uint8).tobytes())
    return mask


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

    factor = max(1, -(-PICTURE_WIDTH // image.width))
    size = (image.width * factor, image.height * factor)
    grey = np.asarray(image.convert("L").resize(size, Image.Resampling.LANCZOS), dtype=np.float32)[..., None]
    values = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    # A constant map has no range: it gets the first colour.
    colors = heat_color((values - low) / (high - low if high > low else 1.0))
    heat_map = Image.fromarray(((1 - HEAT_OPACITY) * grey + HEAT_OPACITY * colors).round().astype(np.uint8))

    return stack(heat_map, draw_scale(heat_map.width, low, high, title))


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
    groups: Sequence[tuple[str, Sequence[tuple[str, float, str, Sequence[int]]]]], width: int = PICTURE_WIDTH
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
    name_width = min(max((font.getlength(printable(name)) for name, *_ in rows), default=0), 0.4 * width)
    text_width = max((font.getlength(text) for _, _, text, _ in rows), default=0)
    left = margin + name_width + gap
    room = width - left - gap - text_width - margin
    height = sum(title_height + len(group) * row_height + gap for _, group in groups) + margin
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    top = margin
    for title, group in groups:
        draw.text((margin, top), shorten(title, title_font, width - 2 * margin), MUTED_COLOR, font=title_font)
        top += title_height
        for name, length, text, color in group:
            middle = top + row_height // 2
            draw.text((left - gap, middle), shorten(name, font, name_width), TEXT_COLOR, font=font, anchor="rm")
            end = left + max(1, round(room * length))
            draw.rectangle((left, middle - thickness // 2, end, middle + thickness // 2), fill=tuple(color))
            draw.text((end + gap // 2, middle), text, TEXT_COLOR, font=font, anchor="lm")
            top += row_height
        top += gap
    return picture


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
    tiles = [_resize_within(picture, tile_width, 2 * tile_width) for picture in pictures]
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
            (left + tile_width // 2, bottom), shorten(caption, font, tile_width), TEXT_COLOR, font=font, anchor="mm"
        )
    return sheet


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
    Draw squares of `cell` pixels and of these colours, `(num_names, num_names, 3)`, uint8, with names at their left
    and, read upwards, above them. The squares end at the lower right corner. The middle of long names is left out, and
    all of them below 9 pixels per cell; what `write` makes of row and column is drawn from 40 pixels on, and lines
    along the cells, which lead to the names, from 8 on.
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
            # By the grey that Rec. 601 makes of the colour.
            is_light = colors[row, column] @ (0.299, 0.587, 0.114) > 132
            place = (left + (column + 0.5) * cell, left + (row + 0.5) * cell)
            draw.text(place, write(row, column), TEXT_COLOR if is_light else BACKGROUND, font=font, anchor="mm")
    return picture


def choose_palette(id2label: Mapping[int, str], palette: Sequence[Sequence[int]] | None) -> Sequence[Sequence[int]]:
    num_ids = max(id2label) + 1
    if palette is None:
        return generate_palette(num_ids)
    if len(palette) < num_ids:
        raise ValueError(
            f"The palette has {len(palette)} colours, and the ids of the classes go up to {num_ids - 1}: give it one "
            "colour per id, or leave it out to have them chosen."
        )
    return palette


def gather_unnamed(segmentation: np.ndarray, id2label: Mapping[int, str]) -> np.ndarray:
    """
    Make all ids without a name one, `max(id2label) + 1`, so that tables with one entry more serve every pixel.
    """
    unnamed = max(id2label) + 1
    gathered = np.full(unnamed + 1, unnamed)
    gathered[list(id2label)] = list(id2label)
    if segmentation.min() < 0 or segmentation.max() > unnamed:
        segmentation = np.where((segmentation >= 0) & (segmentation < unnamed), segmentation, unnamed)
    return gathered[segmentation]


def legend_rows(
    segmentation: np.ndarray, id2label: Mapping[int, str], palette: Sequence[Sequence[int]]
) -> list[tuple[str, str, tuple[int, ...]]]:
    """
    Name, share of the area and colour of what a segmentation shows, the largest first, with `max(id2label) + 1` for
    what has no name.
    """
    counts = np.bincount(segmentation.ravel(), minlength=max(id2label) + 2)
    present = sorted((label for label in id2label if counts[label]), key=lambda label: -counts[label])
    rows = [
        (printable(id2label[label]), counts[label], tuple(palette[label])) for label in present[:MAXIMUM_LEGEND_ROWS]
    ]
    if rest := present[MAXIMUM_LEGEND_ROWS:]:
        rows.append((f"{len(rest)} other classes", counts[rest].sum(), BACKGROUND))
    if unlabelled := counts[-1]:
        rows.append(("unlabelled", unlabelled, UNLABELLED_COLOR))
    return [(name, f"{100 * count / segmentation.size:.1f} %", color) for name, count, color in rows]


def _blend(
    image: Image.Image,
    segmentation: np.ndarray,
    id2label: Mapping[int, str],
    palette: Sequence[Sequence[int]],
    faint_id: int | None,
) -> Image.Image:
    """Colour an RGB image; `max(id2label) + 1` in the segmentation is no class."""
    colors = np.zeros((max(id2label) + 2, 3), dtype=np.float32)
    opacity = np.zeros((len(colors), 1), dtype=np.float32)
    for label in id2label:
        colors[label], opacity[label] = palette[label], FAINT_OPACITY if label == faint_id else OPACITY

    # The last pixel before each change of class, to the right and downwards, is a boundary.
    is_boundary = np.zeros(segmentation.shape, dtype=bool)
    is_boundary[:, :-1] |= segmentation[:, :-1] != segmentation[:, 1:]
    is_boundary[:-1] |= segmentation[:-1] != segmentation[1:]
    colored, seen_through = opacity * colors, (1 - opacity)[:, 0]
    pixels = np.array(image)
    # Some rows at a time, whose floating-point numbers a processor's cache holds.
    for top in range(0, len(pixels), BLENDED_ROWS):
        rows = slice(top, top + BLENDED_ROWS)
        part, ids = pixels[rows].astype(np.float32), segmentation[rows]
        mean = (part[..., 0] + part[..., 1] + part[..., 2]) / 3
        # Greyed a little, so that a colour of the overlay is a class and not the photograph's own.
        part *= 0.5
        part += (0.5 * mean)[..., None]
        part *= seen_through.take(ids)[..., None]
        part += colored.take(ids, axis=0)
        part[is_boundary[rows]] *= 0.35
        pixels[rows] = part.round(out=part)
    return Image.fromarray(pixels)


def _draw_legend(
    segmentation: np.ndarray,
    id2label: Mapping[int, str],
    palette: Sequence[Sequence[int]],
    width: int | None = None,
    height: int = 0,
) -> Image.Image:
    """Names and shares of the area, at least `height` high and as wide as the names, or as `width` says."""
    rows = legend_rows(segmentation, id2label, palette)
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
        name = shorten(name, font, width - beside_names)
        draw.text((margin + swatch + gap, middle), name, TEXT_COLOR, font=font, anchor="lm")
        draw.text((width - margin, middle), share, MUTED_COLOR, font=font, anchor="rm")
    return legend


def draw_class_names(
    pixels: Sequence[int],
    id2label: Mapping[int, str],
    palette: Sequence[Sequence[int]] | None,
    width: int,
    faint_id: int | None = None,
) -> Image.Image:
    """
    Draw what colours of classes mean, in columns, for a sheet of overlays that share this legend.

    Args:
        pixels (`Sequence[int]`): of each class on the sheet; the largest comes first, and classes without any are left
            out.
        id2label, palette, faint_id: as in [`draw_overlay`]; of the faint class the legend says so.
        width (`int`): of the picture, in pixels; the middle of names that are too long is left out.
    """
    palette = choose_palette(id2label, palette)
    present = sorted((label for label in id2label if pixels[label]), key=lambda label: -pixels[label])
    shown, rest = present[:MAXIMUM_SHEET_NAMES], present[MAXIMUM_SHEET_NAMES:]
    entries = [(f"{id2label[label]}{' (faint)' * (label == faint_id)}", palette[label]) for label in shown]
    if rest:
        entries.append((f"{len(rest)} other classes", BACKGROUND))
    font, margin, row_height, swatch, gap = ImageFont.load_default(size=14), 12, 24, 15, 8
    columns = max(1, min(len(entries), width // 200))
    column_width, num_rows = (width - 2 * margin) // columns, -(-len(entries) // columns)
    picture = Image.new("RGB", (width, num_rows * row_height + 2 * margin), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for index, (name, color) in enumerate(entries):
        row, column = divmod(index, columns)
        left, middle = margin + column * column_width, margin + row * row_height + row_height // 2
        box = (left, middle - swatch // 2, left + swatch, middle + swatch // 2)
        draw.rounded_rectangle(box, radius=3, fill=tuple(color))
        name = shorten(name, font, column_width - swatch - 2 * gap)
        draw.text((left + swatch + gap, middle), name, TEXT_COLOR, font=font, anchor="lm")
    return picture


def stack(picture: Image.Image, below: Image.Image) -> Image.Image:
    """Two pictures of one width as one."""
    canvas = Image.new("RGB", (picture.width, picture.height + below.height), BACKGROUND)
    canvas.paste(picture)
    canvas.paste(below, (0, picture.height))
    return canvas


def draw_scale(width: int, low: float, high: float, title: str, unit: int | None = None) -> Image.Image:
    """What the heat colours mean: all of them, and below them the least value, a title and the greatest value."""
    # Sized by the picture, so that the text can still be read on a contact sheet.
    unit = width // 32 if unit is None else unit
    font, margin = ImageFont.load_default(size=unit), unit // 2
    scale = Image.new("RGB", (width, 3 * unit), BACKGROUND)
    bar = heat_color(np.linspace(0, 1, width - 2 * margin)[None].repeat(unit // 2, axis=0))
    scale.paste(Image.fromarray(bar.round().astype(np.uint8)), (margin, margin))
    draw = ImageDraw.Draw(scale)
    lowest, highest, middle = f"{low:.3g}", f"{high:.3g}", 2 * unit
    draw.text((margin, middle), lowest, MUTED_COLOR, font=font, anchor="lm")
    draw.text((width - margin, middle), highest, MUTED_COLOR, font=font, anchor="rm")
    room = width - 2 * (2 * margin + max(font.getlength(lowest), font.getlength(highest)))
    draw.text((width // 2, middle), shorten(title, font, room), TEXT_COLOR, font=font, anchor="mm")
    return scale


def heat_color(values: np.ndarray) -> np.ndarray:
    """Look up the colours of values, [0, 1] -> RGB in [0, 255], float32 of shape `(height, width, 3)`."""
    places = np.linspace(0, 1, len(HEAT_COLORS))
    channels = [np.interp(values, places, channel) for channel in zip(*HEAT_COLORS, strict=True)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _resize_within(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Resize to the largest size within `width` x `height` that keeps the ratio."""
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def printable(text: str) -> str:
    """
    A name in one line that shows what it holds: line ends, control characters, marks that turn the direction of
    writing, and bytes that are not UTF-8 as escapes, such as `\\n`. Of a very long one the middle is left out.

    More letters become escapes here than in what `tools/command.py` prints: fonts draw boxes or nothing for them. Both
    files have to run by themselves, without the package.
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


def shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Leave out the middle of a text until it fits; names of files differ at their ends."""
    text = printable(text)
    shortened, kept = text, len(text)
    while kept > 0 and font.getlength(shortened) > width:
        kept -= 1
        shortened = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
    return shortened
