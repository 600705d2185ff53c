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
"""Overlays, heat maps and contact sheets."""

import cv2
import numpy as np
import pytest
from PIL import Image

from modeling_denseclip.tools.visualization import (
    BACKGROUND,
    HEAT_COLORS,
    HEAT_OPACITY,
    OPACITY,
    contact_sheet,
    draw_heat_map,
    draw_overlay,
    save_overlay,
)


VIRIDIS_MIDDLE = np.array([33, 145, 140])  # matplotlib's viridis at 0.5


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


# -------------------------------------------------------------------------------------------------------- overlays


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_overlay_equals_painting_pixel_by_pixel(dtype):
    image = photograph(30, 40)
    # 2 and everything from 5 on has no name; small values wrap in uint8 and are large there.
    segmentation = np.random.default_rng(1).choice(
        np.array([0, 1, 2, 3, 4, 5, 7, 150, 255, -3]).astype(dtype), (30, 40)
    )
    palette = [(255, 0, 0), (0, 255, 0), (9, 9, 9), (0, 0, 255), (200, 100, 50)]
    names = {0: "sky", 1: "road", 3: "tree", 4: "car"}
    overlay = np.asarray(draw_overlay(image, segmentation, names, palette, legend=False))
    pixels = np.asarray(image).astype(float)

    def group(row, column):  # all ids without a name are alike
        return segmentation[row, column] if segmentation[row, column] in names else None

    for row in range(30):
        for column in range(40):
            color = 0.5 * pixels[row, column] + 0.5 * pixels[row, column].mean()
            here = group(row, column)
            if here is not None:
                color = (1 - OPACITY) * color + OPACITY * np.array(palette[here])
            if (column < 39 and group(row, column + 1) != here) or (row < 29 and group(row + 1, column) != here):
                color = color * 0.35
            np.testing.assert_allclose(overlay[row, column], color, atol=0.51)


def test_overlay_without_a_legend_has_the_size_of_the_image():
    segmentation = np.zeros((30, 50), dtype=int)
    assert draw_overlay(photograph(30, 50), segmentation, {0: "sky"}, legend=False).size == (50, 30)
    assert draw_overlay(photograph(30, 50), segmentation, {0: "sky"}).width > 640


def test_saved_overlay_is_the_drawn_one(tmp_path):
    arguments = (photograph(30, 50), np.arange(1500).reshape(30, 50) % 3, {0: "sky", 1: "road"}, None)
    save_overlay(*arguments, tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(draw_overlay(*arguments)))


def test_legend_of_many_classes_stays_short_and_keeps_the_largest():
    segmentation = np.arange(150).repeat(20).reshape(30, 100)
    segmentation[:10] = 149
    segmentation[-1] = 255
    palette = [(label, 255 - label, 7) for label in range(150)]
    names = {label: f"class {label}" for label in range(150)}
    picture = np.asarray(draw_overlay(Image.new("RGB", (100, 30)), segmentation, names, palette))
    assert picture.shape[0] <= 800
    legend = picture[:, 700:].reshape(-1, 3)  # an image of 100 pixels is enlarged sevenfold

    def shown(color):
        return (legend == color).all(axis=1).any()

    assert shown(palette[149]) and shown((0, 0, 0))  # the largest class and the unlabelled pixels
    assert sum(shown(color) for color in palette) == 24


def test_legend_below_has_the_width_of_the_picture():
    image, segmentation = photograph(320, 640), np.arange(320).repeat(640).reshape(320, 640) // 160
    names, palette = {0: "sky " * 100, 1: "road"}, [(255, 0, 0), (0, 0, 255)]
    picture = np.asarray(draw_overlay(image, segmentation, names, palette, legend_below=True))
    overlay = np.asarray(draw_overlay(image, segmentation, names, palette, legend=False))
    assert picture.shape[1] == 640 and np.array_equal(picture[:320], overlay)
    legend = picture[320:]
    rows = [np.flatnonzero((legend[:, :40] == color).all(axis=2).any(axis=1)) for color in palette]
    assert rows[0].size and rows[1].size and rows[0].max() < rows[1].min()  # a swatch each, one below the other
    # The long name ends before the share of its class, which is as wide as that of the other.
    shares = [(legend[row.min() : row.max(), 500:] != BACKGROUND).any(axis=(0, 2)) for row in rows]
    width_of_share = 140 - np.flatnonzero(shares[1]).min()
    assert not shares[0][140 - width_of_share - 10 : 140 - width_of_share].any() and shares[0][:40].any()


# ------------------------------------------------------------------------------------------------------- heat maps


def test_heat_map_spreads_values_bilinearly_and_writes_their_range():
    picture = draw_heat_map(Image.new("RGB", (640, 480)), [[0.0, 1.0]], title="score of 'road'")
    assert picture.width == 640 and picture.height > 480
    row = np.asarray(picture)[240, :, :].astype(float)
    # Half a pixel of the map before the first centre and after the last one, the colour stays.
    assert np.ptp(row[:160], axis=0).max() == 0 and np.ptp(row[480:], axis=0).max() == 0
    np.testing.assert_allclose(row[0], HEAT_OPACITY * np.array(HEAT_COLORS[0]), atol=0.51)
    np.testing.assert_allclose(row[639], HEAT_OPACITY * np.array(HEAT_COLORS[-1]), atol=0.51)
    np.testing.assert_allclose(row[319], HEAT_OPACITY * VIRIDIS_MIDDLE, atol=2)
    below = np.asarray(picture.convert("L"))[490:]
    assert (below[:, 8:60] < 150).any() and (below[:, -40:-8] < 150).any()  # the least and the greatest value


def test_heat_colors_grow_lighter_evenly():
    lightness = cv2.cvtColor(np.float32([HEAT_COLORS]) / 255, cv2.COLOR_RGB2LAB)[0, :, 0]
    steps = np.diff(lightness)
    assert steps.min() > 0.7 * steps.mean() and steps.max() < 1.3 * steps.mean()


def test_heat_map_shows_the_photograph_in_grey():
    image = Image.new("RGB", (640, 4), (255, 0, 0))
    image.paste((0, 0, 255), (320, 0, 640, 4))
    picture = np.asarray(draw_heat_map(image, np.zeros((2, 2)))).astype(int)
    difference = picture[2, 100] - picture[2, 500]
    assert difference[0] > 10 and np.ptp(difference) == 0  # red is lighter than blue, by the same in every channel


def test_heat_map_limits_fix_the_colours():
    image = Image.new("RGB", (640, 4))
    half = np.asarray(draw_heat_map(image, [[0.5]], limits=(0, 1)))[2, 100]
    np.testing.assert_allclose(half, HEAT_OPACITY * VIRIDIS_MIDDLE, atol=2)
    for values, color in (([[-3.0]], HEAT_COLORS[0]), ([[7.0]], HEAT_COLORS[-1])):
        beyond = np.asarray(draw_heat_map(image, values, limits=(0, 1)))[2, 100]
        np.testing.assert_allclose(beyond, HEAT_OPACITY * np.array(color), atol=0.51)


@pytest.mark.parametrize(
    "values, limits, message",
    [
        (np.zeros((2, 3, 4)), None, r"\(2, 3, 4\).*map of one class"),
        (np.zeros((0, 4)), None, r"\(0, 4\)"),
        (np.array([[0.0, np.nan]]), None, "1 values that are not finite"),
        (np.zeros((2, 2)), (1.0, 0.0), r"low <= high, got \(1.0, 0.0\)"),
        (np.zeros((2, 2)), (float("nan"), 0.0), "low <= high"),
    ],
)
def test_heat_map_refuses_what_is_no_map(values, limits, message):
    with pytest.raises(ValueError, match=message):
        draw_heat_map(photograph(4, 4), values, limits=limits)


# -------------------------------------------------------------------------------------------------- contact sheets


def test_contact_sheet_places_pictures_of_any_size():
    colors = [(255, 0, 0), (0, 160, 0), (0, 0, 255)]
    sizes = [(20, 10), (400, 200), (10, 1000)]
    pictures = [Image.new("RGB", size, color) for size, color in zip(sizes, colors, strict=True)]
    sheet = np.asarray(contact_sheet(pictures, ["first", "", "third"], columns=2, tile_width=100))
    boxes = []
    for color in colors:
        rows, columns = np.nonzero((sheet == color).all(axis=2))
        boxes.append((rows.min(), rows.max() + 1, columns.min(), columns.max() + 1))
        assert len(rows) == (boxes[-1][1] - boxes[-1][0]) * (boxes[-1][3] - boxes[-1][2])  # a full rectangle
    (top, bottom, left, right), second, third = boxes
    assert (bottom - top, right - left) == (50, 100)  # enlarged to the width of a tile
    assert second[:2] == (top, bottom) and second[2] > right and second[3] - second[2] == 100  # reduced, beside it
    assert third[1] - third[0] == 200 and third[3] - third[2] == 2 and third[0] > bottom  # at most twice as high
    assert (third[2] + third[3]) / 2 == (left + right) / 2  # in the middle of its column

    def is_written(box):
        return (sheet[box[1] : box[1] + 22, max(0, box[2] - 20) : box[3] + 20] < 128).all(axis=2).any()

    assert [is_written(box) for box in boxes] == [True, False, True]


def test_long_captions_are_shortened_to_their_tile():
    pictures = [Image.new("RGB", (100, 50))] * 2
    captions = ["training/" + "very_" * 20 + "long_0001", "x"]
    sheet = np.asarray(contact_sheet(pictures, captions, columns=2, tile_width=100))
    gap = slice(8 + 100, 8 + 100 + 8)
    assert (sheet[:, gap] == BACKGROUND).all() and (sheet[:, :8] == BACKGROUND).all()
    # Names of files differ at their ends: both ends are kept.
    other_end = np.asarray(contact_sheet(pictures, [captions[0][:-1] + "2", "x"], columns=2, tile_width=100))
    other_start = np.asarray(contact_sheet(pictures, ["V" + captions[0][1:], "x"], columns=2, tile_width=100))
    assert not np.array_equal(sheet, other_end) and not np.array_equal(sheet, other_start)


@pytest.mark.parametrize(
    "number, captions, columns, message",
    [
        (0, [], 1, "at least one picture"),
        (2, ["a"], 1, "2 pictures and 1 captions"),
        (1, ["a"], 0, "at least 1, got 0"),
    ],
)
def test_contact_sheet_refuses_wrong_numbers(number, captions, columns, message):
    with pytest.raises(ValueError, match=message):
        contact_sheet([photograph(4, 4)] * number, captions, columns)
