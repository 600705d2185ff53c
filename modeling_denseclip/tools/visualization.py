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
"""Pictures to look at: overlays with a legend, heat maps, contact sheets."""

import colorsys
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont


OPACITY = 0.55  # of the class colours over the image
HEAT_OPACITY = 0.6  # of a heat map over the image
MINIMUM_WIDTH = 640  # smaller images are enlarged by a whole factor, so that the legend does not dwarf them
MAXIMUM_LEGEND_ROWS = 24  # an untrained model sees all classes at once; the rest shares one row
BACKGROUND, TEXT_COLOR, MUTED_COLOR, UNLABELLED_COLOR = (250, 250, 250), (32, 32, 32), (120, 120, 120), (0, 0, 0)
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


def generate_palette(num_labels: int) -> list[tuple[int, int, int]]:
    """
    Choose one RGB colour in [0, 255] per class: neighbouring ids get hues far apart.

    Hues advance by the golden ratio of the circle, and brightness and saturation alternate; so the colour of a class
    does not depend on how many classes follow it.
    """
    palette = []
    for label in range(num_labels):
        hue = (0.58 + label * 0.618034) % 1.0
        saturation, value = ((0.75, 0.95), (0.55, 1.0), (0.9, 0.7))[label % 3]
        palette.append(tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value)))
    return palette


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
        `ValueError`: if image and segmentation differ in size.
    """
    segmentation = np.asarray(segmentation)
    if segmentation.shape != image.size[::-1]:
        raise ValueError(
            f"The segmentation has the shape {segmentation.shape} and the image has {image.size[::-1]} (height, "
            "width): pass `target_sizes` to `post_process_semantic_segmentation` to get it at the image's size."
        )
    num_ids = max(id2label) + 1
    palette = generate_palette(num_ids) if palette is None else palette
    # All ids without a name become one, the last, so that tables of `num_ids + 1` entries serve every pixel.
    named = np.isin(np.arange(num_ids), list(id2label))
    in_range = (segmentation >= 0) & (segmentation < num_ids)
    segmentation = np.where(in_range, segmentation, num_ids).astype(np.intp)
    segmentation = np.where(np.append(named, False)[segmentation], segmentation, num_ids)

    image = image.convert("RGB")
    if not legend:
        return _blend(image, segmentation, id2label, palette)
    factor = max(1, -(-MINIMUM_WIDTH // image.width))
    enlarged = image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS)
    overlay = _blend(enlarged, segmentation.repeat(factor, axis=0).repeat(factor, axis=1), id2label, palette)
    if legend_below:
        legend_picture = _draw_legend(segmentation, id2label, palette, width=overlay.width)
        canvas = Image.new("RGB", (overlay.width, overlay.height + legend_picture.height), BACKGROUND)
        canvas.paste(overlay)
        canvas.paste(legend_picture, (0, overlay.height))
        return canvas
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

    # Sized by the picture, so that the text can still be read on a contact sheet.
    unit = heat_map.width // 32
    font, margin = ImageFont.load_default(size=unit), unit // 2
    canvas = Image.new("RGB", (heat_map.width, heat_map.height + 3 * unit), BACKGROUND)
    canvas.paste(heat_map)
    bar = _heat_color(np.linspace(0, 1, canvas.width - 2 * margin)[None].repeat(unit // 2, axis=0))
    canvas.paste(Image.fromarray(bar.round().astype(np.uint8)), (margin, heat_map.height + margin))
    draw = ImageDraw.Draw(canvas)
    lowest, highest, middle = f"{low:.3g}", f"{high:.3g}", heat_map.height + 2 * unit
    draw.text((margin, middle), lowest, MUTED_COLOR, font=font, anchor="lm")
    draw.text((canvas.width - margin, middle), highest, MUTED_COLOR, font=font, anchor="rm")
    room = canvas.width - 2 * (2 * margin + max(font.getlength(lowest), font.getlength(highest)))
    draw.text((canvas.width // 2, middle), _shorten(title, font, room), TEXT_COLOR, font=font, anchor="mm")
    return canvas


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
    counts = np.bincount(segmentation.ravel(), minlength=max(id2label) + 2)
    present = sorted((label for label in id2label if counts[label]), key=lambda label: -counts[label])
    rows = [(id2label[label], counts[label], tuple(palette[label])) for label in present[:MAXIMUM_LEGEND_ROWS]]
    if rest := present[MAXIMUM_LEGEND_ROWS:]:
        rows.append((f"{len(rest)} other classes", counts[rest].sum(), BACKGROUND))
    if unlabelled := counts[-1]:
        rows.append(("unlabelled", unlabelled, UNLABELLED_COLOR))

    row_height, swatch, margin, gap = 28, 17, 16, 10
    font = ImageFont.load_default(size=16)
    name_width = max((font.getlength(name) for name, _, _ in rows), default=0)
    beside_names = margin + swatch + gap + 2 * gap + font.getlength("100.0 %") + margin
    width = math.ceil(name_width + beside_names) if width is None else width
    legend = Image.new("RGB", (width, max(height, len(rows) * row_height + 24)), BACKGROUND)
    draw = ImageDraw.Draw(legend)
    for row, (name, count, color) in enumerate(rows):
        middle = 12 + row * row_height + row_height // 2
        box = (margin, middle - swatch // 2, margin + swatch, middle + swatch // 2)
        draw.rounded_rectangle(box, radius=3, fill=color)
        name = _shorten(name, font, width - beside_names)
        draw.text((margin + swatch + gap, middle), name, TEXT_COLOR, font=font, anchor="lm")
        share = f"{100 * count / segmentation.size:.1f} %"
        draw.text((width - margin, middle), share, MUTED_COLOR, font=font, anchor="rm")
    return legend


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


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Leave out the middle of a text until it fits; names of files differ at their ends."""
    shortened, kept = text, len(text)
    while kept > 0 and font.getlength(shortened) > width:
        kept -= 1
        shortened = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
    return shortened
