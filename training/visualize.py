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
"""An overlay picture of a segmentation, with a legend."""

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont


OPACITY = 0.55  # of the class colours over the image
MINIMUM_WIDTH = 640  # smaller images are enlarged by a whole factor, so that the legend does not dwarf them
BACKGROUND, TEXT_COLOR, MUTED_COLOR, UNLABELLED_COLOR = (250, 250, 250), (32, 32, 32), (120, 120, 120), (0, 0, 0)


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
    """
    Save the image under the colours of its classes, with boundaries and a legend of names and shares of the area.

    Args:
        image (`PIL.Image.Image`): the photograph.
        segmentation (array of shape `(height, width)`): a class id per pixel of the image; ids that `id2label` does
            not name (such as 255) are left uncoloured.
        id2label (`Mapping[int, str]`): the names.
        palette (`Sequence` of RGB triples in [0, 255], *optional*): one colour per id, generated if `None`.
        path (`str` or `Path`): where to write; the suffix chooses the format.

    Raises:
        `ValueError`: if image and segmentation differ in size.
    """
    segmentation = np.asarray(segmentation)
    if segmentation.shape != image.size[::-1]:
        raise ValueError(
            f"The segmentation has the shape {segmentation.shape} and the image has {image.size[::-1]} (height, "
            "width): pass `target_sizes` to `post_process_semantic_segmentation` to get it at the image's size."
        )
    palette = generate_palette(max(id2label) + 1) if palette is None else palette
    overlay = _blend(image.convert("RGB"), segmentation, id2label, palette)
    legend = _draw_legend(segmentation, id2label, palette, height=overlay.height)
    canvas = Image.new("RGB", (overlay.width + legend.width, max(overlay.height, legend.height)), BACKGROUND)
    canvas.paste(overlay, (0, (canvas.height - overlay.height) // 2))
    canvas.paste(legend, (overlay.width, 0))
    canvas.save(path)


def _blend(image: Image.Image, segmentation: np.ndarray, id2label: Mapping[int, str], palette) -> Image.Image:
    factor = max(1, -(-MINIMUM_WIDTH // image.width))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS)
    segmentation = segmentation.repeat(factor, axis=0).repeat(factor, axis=1)

    pixels = np.asarray(image, dtype=np.float32)
    # Greyed a little, so that a colour of the overlay is a class and not the photograph's own.
    grey = pixels.mean(axis=-1, keepdims=True)
    blended = 0.5 * pixels + 0.5 * grey
    for label in id2label:
        where = segmentation == label
        blended[where] = (1 - OPACITY) * blended[where] + OPACITY * np.float32(palette[label])
    blended[_boundaries(segmentation)] *= 0.35
    return Image.fromarray(blended.round().astype(np.uint8))


def _boundaries(segmentation: np.ndarray) -> np.ndarray:
    """Mark the last pixel before each change of class, to the right and downwards."""
    boundary = np.zeros(segmentation.shape, dtype=bool)
    boundary[:, :-1] |= segmentation[:, :-1] != segmentation[:, 1:]
    boundary[:-1] |= segmentation[:-1] != segmentation[1:]
    return boundary


def _draw_legend(segmentation: np.ndarray, id2label: Mapping[int, str], palette, height: int) -> Image.Image:
    shares = {label: float((segmentation == label).mean()) for label in id2label}
    rows = [
        (id2label[label], f"{100 * share:.1f} %", tuple(palette[label]))
        for label, share in sorted(shares.items(), key=lambda item: -item[1])
        if share > 0
    ]
    if (unlabelled := 1.0 - sum(shares.values())) > 1e-6:
        rows.append(("unlabelled", f"{100 * unlabelled:.1f} %", UNLABELLED_COLOR))

    row_height, swatch, margin, gap = 28, 17, 16, 10
    font = ImageFont.load_default(size=16)
    name_width = max((font.getlength(name) for name, _, _ in rows), default=0)
    share_width = font.getlength("100.0 %")
    width = round(margin + swatch + gap + name_width + 2 * gap + share_width + margin)
    legend = Image.new("RGB", (width, max(height, len(rows) * row_height + 24)), BACKGROUND)
    draw = ImageDraw.Draw(legend)
    for row, (name, share, color) in enumerate(rows):
        middle = 12 + row * row_height + row_height // 2
        box = (margin, middle - swatch // 2, margin + swatch, middle + swatch // 2)
        draw.rounded_rectangle(box, radius=3, fill=color)
        draw.text((margin + swatch + gap, middle), name, TEXT_COLOR, font=font, anchor="lm")
        draw.text((width - margin, middle), share, MUTED_COLOR, font=font, anchor="rm")
    return legend
