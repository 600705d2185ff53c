# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Colours of classes, overlays, heat maps, bars, matrices, contact sheets, and plots of Matplotlib."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import cv2
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from modeling_denseclip.tools import pictures
from modeling_denseclip.tools.pictures import (
    color_blind_palette,
    contact_sheet,
    draw_bars,
    draw_heat_map,
    draw_matrix,
    draw_overlay,
    generate_palette,
    mark_pixel,
    plot_score_maps,
    plot_segmentation,
    save_overlay,
)
from modeling_denseclip.tools.pictures.drawing import (
    BACKGROUND,
    EMPTY_COLOR,
    HEAT_COLORS,
    HEAT_OPACITY,
    OPACITY,
    draw_class_names,
)
from tests.fixtures.make_palettes import WITHOUT_LONG, WITHOUT_MIDDLE, WITHOUT_SHORT, choose_colors


matplotlib.use("agg")


VIRIDIS_MIDDLE = np.array([33, 145, 140])  # matplotlib's viridis at 0.5


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


# --------------------------------------------------------------------------------------------------------- colours


def ciede2000(first, second) -> float:
    """Difference of two colours in CIELAB. Source: G. Sharma, W. Wu and E. Dalal (2005)."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean_chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0
    hue_difference = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    lightness, chroma, hue = (l1 + l2) / 2, (c1 + c2) / 2, (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    weight = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    dl = (l2 - l1) / (1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2))
    dc, dh = (c2 - c1) / (1 + 0.045 * chroma), hue_difference / (1 + 0.015 * chroma * weight)
    rotation = (
        -2 * np.sqrt(chroma**7 / (chroma**7 + 25**7)) * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    )
    return np.sqrt(dl**2 + dc**2 + dh**2 + rotation * dc * dh)


def smallest_difference(linear) -> float:
    """Of any two colours, which are linear RGB in [0, 1] of shape (colours, 3)."""
    linear = np.clip(linear, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    lab = cv2.cvtColor(np.float32(srgb)[None], cv2.COLOR_RGB2LAB)[0].astype(float)
    return min(ciede2000(*pair) for pair in combinations(lab, 2))


def to_linear(palette) -> np.ndarray:
    srgb = np.array(palette) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def as_seen_by(kind: str, linear: np.ndarray) -> np.ndarray:
    """
    Linear RGB as people see it who lack one kind of cone.

    Without long or middle waves: F. Vienot, H. Brettel and J. Mollon, "Digital video colourmaps for checking the
    legibility of displays by dichromats" (1999). Without short waves: Brettel et al. (1997), built from the cones.
    """
    to_xyz = np.array([[40.9568, 35.5041, 17.9167], [21.3389, 70.6743, 7.98680], [1.86297, 11.4620, 91.2367]]) / 100
    cones = np.array([[0.15514, 0.54312, -0.03286], [-0.15514, 0.45684, 0.03286], [0, 0, 0.01608]])
    to_cones = cones @ to_xyz
    lms = linear @ to_cones.T
    white, blue, yellow = (to_cones @ color for color in np.array([[1, 1, 1], [0, 0, 1], [1, 1, 0]]))
    if kind == "short":
        # What they see lies in two half planes, through white and the hues of 485 and 660 nm, which they see alike.
        seen = lms.copy()
        hues = cones @ np.array([[0.05699, 0.16987, 0.5864], [0.16161, 0.061, 0.00001]]).T
        for row, (long, middle, _) in enumerate(lms):
            hue = hues[:, 0] if long / middle < white[0] / white[1] else hues[:, 1]
            normal = np.cross(white, hue)
            seen[row, 2] = -(normal[0] * long + normal[1] * middle) / normal[2]
    else:
        # In one plane, through black, white, blue and yellow: the missing cone follows from the others.
        missing, known = {"long": (0, [1, 2]), "middle": (1, [0, 2])}[kind]
        weights = np.linalg.lstsq(
            np.array([white, blue, yellow])[:, known], np.array([white, blue, yellow])[:, missing]
        )
        seen = lms.copy()
        seen[:, missing] = lms[:, known] @ weights[0]
    return seen @ np.linalg.inv(to_cones).T


def test_the_difference_of_colours_is_that_of_its_authors():
    # Rows 1, 25 and 34 of their table.
    for first, second, expected in (
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ):
        assert ciede2000(first, second) == pytest.approx(expected, abs=1e-4)


def test_generated_colours_are_far_apart_and_stay_with_their_class():
    palette = generate_palette(150)
    assert all(isinstance(channel, int) and 0 <= channel <= 255 for color in palette for channel in color)
    assert generate_palette(5) == palette[:5] and generate_palette(0) == []
    for num_labels, difference in ((11, 25), (19, 17), (40, 11), (150, 5)):
        assert smallest_difference(to_linear(palette[:num_labels])) > difference
    neutrals = to_linear([(grey, grey, grey) for grey in (0, 64, 128, 192, 255)])
    assert min(smallest_difference([color, grey]) for color in to_linear(palette) for grey in neutrals) > 8


@pytest.mark.parametrize("palette, is_color_blind_safe", [(generate_palette, False), (color_blind_palette, True)])
def test_the_tables_of_colours_can_be_made_again_and_more_classes_get_others(palette, is_color_blind_safe):
    assert palette(256) == choose_colors(256, is_color_blind_safe)
    assert palette(2000)[:256] == palette(256) and len(set(palette(2000))) == 2000


def test_a_palette_that_is_changed_is_nobody_elses():
    generate_palette(3)[0] = None
    assert None not in generate_palette(3)


def test_color_blind_palette_differs_to_every_kind_of_eye():
    palette = color_blind_palette(12)
    assert palette == color_blind_palette(20)[:12]
    linear = to_linear(palette)
    views = [linear, *(as_seen_by(kind, linear) for kind in ("long", "middle", "short"))]
    # By those of the models that are tables of numbers too
    views += [linear @ matrix.T for matrix in (WITHOUT_LONG, WITHOUT_MIDDLE, WITHOUT_SHORT)]
    for num_labels, difference in ((4, 34), (6, 19), (8, 14), (12, 12)):
        assert min(smallest_difference(view[:num_labels]) for view in views) > difference
    # The generated palette does not, so the check can fail.
    plain = to_linear(generate_palette(12))
    assert min(smallest_difference(as_seen_by(kind, plain)) for kind in ("long", "middle", "short")) < 8


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


def test_a_faint_class_leaves_the_photograph_to_be_seen():
    image = Image.new("RGB", (6, 5), (40, 100, 160))
    ids = np.zeros((5, 6), dtype=int)
    ids[:, 3:] = 1
    palette = [(250, 0, 0), (0, 250, 0)]
    drawn = np.asarray(draw_overlay(image, ids, {0: "sky", 1: "road"}, palette, legend=False, faint_id=1))
    greyed = 0.5 * np.array([40, 100, 160]) + 0.5 * 100
    assert np.abs(drawn[2, 0] - (0.45 * greyed + 0.55 * np.array(palette[0]))).max() <= 0.5
    assert np.abs(drawn[2, 5] - (0.9 * greyed + 0.1 * np.array(palette[1]))).max() <= 0.5


def test_legend_of_a_sheet_names_what_is_there_the_largest_first():
    id2label = {0: "sky", 1: "road", 2: "never there", 3: "tree"}
    palette = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 0, 250)]
    legend = np.asarray(draw_class_names([5, 90, 0, 7], id2label, palette, width=640, faint_id=1))
    assert legend.shape[1] == 640
    places = [np.argwhere((legend == color).all(axis=2)) for color in palette]
    assert not len(places[2])
    lefts = [int(place[:, 1].min()) for index, place in enumerate(places) if index != 2]
    assert lefts[1] < lefts[2] < lefts[0]
    narrow = draw_class_names([1] * 4, id2label, palette, width=120)
    assert narrow.width == 120 and narrow.height > 4 * 20  # one below the other
    many = {index: f"class {index}" for index in range(150)}
    assert draw_class_names([1] * 150, many, None, width=1300).height < 400


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


# ------------------------------------------------------------------------------------------- marks, bars, matrices


def test_a_marked_pixel_is_ringed_in_black_and_white_and_stays_visible():
    for ground in ((0, 0, 0), (255, 255, 255)):
        picture = np.asarray(mark_pixel(Image.new("RGB", (640, 480), ground), row=100, column=200)).astype(int)
        rows, columns = np.nonzero((picture != ground).any(axis=2))
        assert (rows.min() + rows.max()) / 2 == 100 and (columns.min() + columns.max()) / 2 == 200
        assert tuple(picture[100, 200]) == ground


def test_bars_are_as_long_as_their_values():
    colors = [(255, 0, 0), (0, 160, 0), (0, 0, 255)]
    rows = [("a", 1.0, "1.0", colors[0]), ("b" * 200, 0.5, "0.5", colors[1])]
    picture = np.asarray(draw_bars([("first", rows), ("second", [("c", 0.0, "0.0", colors[2])])], width=640))
    boxes = [np.nonzero((picture == color).all(axis=2)) for color in colors]
    lengths = [np.ptp(columns) for _, columns in boxes]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=1) and lengths[2] <= 1
    assert len({columns.min() for _, columns in boxes}) == 1  # all begin in one column
    assert boxes[0][0].max() < boxes[1][0].min() and boxes[1][0].max() < boxes[2][0].min()


def test_matrix_has_a_cell_per_pair_and_a_grey_diagonal():
    values = np.array([[9.0, 0.0, 0.5], [0.0, 9.0, 1.0], [0.5, 1.0, 9.0]])
    picture = np.asarray(draw_matrix(values, ["sky", "road", "tree"]))
    is_empty = (picture == EMPTY_COLOR).all(axis=2)  # and here and there at the edge of a letter
    rows, columns = np.flatnonzero(is_empty.sum(axis=1) > 20), np.flatnonzero(is_empty.sum(axis=0) > 20)
    top, left, cell = rows.min(), columns.min(), (rows.max() + 1 - rows.min()) // 3
    for row in range(3):
        for column in range(3):
            corner = picture[top + row * cell + 2, left + column * cell + 2]  # beside the number
            place = {0.0: HEAT_COLORS[0], 0.5: VIRIDIS_MIDDLE, 1.0: HEAT_COLORS[-1], 9.0: EMPTY_COLOR}
            np.testing.assert_allclose(corner, place[values[row, column]], atol=2)
    # Names of columns read upwards and end above their own: "tree" is longer than "sky".
    above = (picture[:top] < 128).all(axis=2)
    lengths = [np.ptp(np.flatnonzero(above[:, left + i * cell : left + (i + 1) * cell].any(axis=1))) for i in range(3)]
    assert lengths[0] < lengths[1] and lengths[0] < lengths[2]


def test_matrix_of_another_number_of_names_is_refused():
    for values, names in ((np.zeros((2, 3)), ["a", "b"]), (np.zeros((1, 1)), ["a"])):
        with pytest.raises(ValueError, match="two names or more"):
            draw_matrix(values, names)


def test_palette_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="2 colours, and the ids of the classes go up to 2"):
        draw_overlay(photograph(4, 4), np.zeros((4, 4)), {0: "a", 2: "b"}, [(0, 0, 0), (1, 1, 1)])


# ------------------------------------------------------------------------------------------------------------ plots

NAMES = {0: "sky", 1: "road", 2: "tree"}


@pytest.fixture
def figures():
    """Closes what a test has plotted."""
    yield
    plt.close("all")


def test_plot_shows_the_overlay_and_names_what_is_in_it(figures):
    image, segmentation = photograph(30, 40), np.zeros((30, 40), dtype=int)
    segmentation[:, 30:] = 2
    segmentation[:3, 30:] = 255
    figure = plot_segmentation(image, torch.tensor(segmentation), NAMES, title="a street")
    assert plt.fignum_exists(figure.number)
    (ax,) = figure.axes
    overlay = draw_overlay(image, segmentation, NAMES, legend=False)
    assert np.array_equal(ax.images[0].get_array(), np.asarray(overlay)) and ax.get_title() == "a street"
    handles = ax.get_legend().legend_handles
    assert [handle.get_label() for handle in handles] == ["sky  75.0 %", "tree  22.5 %", "unlabelled  2.5 %"]
    colors = [tuple(round(255 * channel) for channel in handle.get_facecolor()[:3]) for handle in handles]
    palette = generate_palette(3)
    assert colors == [palette[0], palette[2], (0, 0, 0)]


def test_plot_goes_where_it_is_told(figures):
    own, axes = plt.subplots(1, 2)
    assert plot_segmentation(photograph(4, 6), np.zeros((4, 6), dtype=int), NAMES, ax=axes[1]) is own
    assert not axes[0].images and axes[1].images and len(plt.get_fignums()) == 1


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        lambda image: np.asarray(image) / 255,
        lambda image: torch.tensor(np.asarray(image)).permute(2, 0, 1),
        lambda image: (torch.tensor(np.asarray(image)).permute(2, 0, 1) / 255).requires_grad_(),
    ],
)
def test_images_in_any_container_are_the_same_picture(figures, convert):
    image = photograph(5, 7)
    shown = plot_score_maps(convert(image), np.zeros((3, 2, 2)), NAMES).axes[0].images[0].get_array()
    assert np.array_equal(shown, np.asarray(image))


def test_score_maps_are_those_of_the_classes_that_are_there_on_one_scale(figures):
    # By hand: class 2 is best in three cells, 0 in one; of the others 3 has the greater score.
    score_map = torch.tensor([[[0.5, 0.0, 0.0, 0.0]], [[-0.9, 0.0, 0.0, 0.0]], [[0.1] * 4], [[0.4, 0.0, 0.0, 0.0]]])
    names = ["sky", "road", "tree", "car"]
    figure = plot_score_maps(photograph(4, 8), score_map.bfloat16().requires_grad_(), names, top_k=3)
    panels = [ax for ax in figure.axes if ax.images and len(ax.images) == 2]
    assert [ax.get_title().split(":")[0] for ax in panels] == ["tree", "sky", "car"]
    assert panels[0].get_title() == "tree: best in 75%"
    for ax, index in zip(panels, (2, 0, 3), strict=True):
        heat_map = ax.images[1]
        np.testing.assert_allclose(heat_map.get_array(), score_map[index], atol=2e-3)
        assert heat_map.get_clim() == pytest.approx((0.0, 0.5)) and list(heat_map.get_extent()) == [
            -0.5,
            7.5,
            3.5,
            -0.5,
        ]
    figure = plot_score_maps(photograph(4, 8), score_map, names, classes=["road"])
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == ["photograph", "road: best in 0%"]


@pytest.mark.parametrize(
    "plot, message",
    [
        (lambda image: plot_segmentation(image, np.zeros((3, 4)), NAMES), r"\(3, 4\) and the image has \(4, 4\)"),
        (lambda image: plot_segmentation(np.zeros((1, 3, 4, 4)), np.zeros((4, 4)), NAMES), r"shape \(1, 3, 4, 4\)"),
        (
            lambda image: plot_segmentation(torch.full((3, 4, 4), -1.5), np.zeros((4, 4)), NAMES),
            "not the `pixel_values`",
        ),
        (lambda image: plot_score_maps(image, np.zeros((1, 3, 2, 2)), NAMES), r"score_map\[0\]"),
        (lambda image: plot_score_maps(image, np.zeros((4, 2, 2)), NAMES), "each of the 3 labels"),
        (lambda image: plot_score_maps(image, np.full((3, 2, 2), np.nan), NAMES), "finite"),
        (
            lambda image: plot_score_maps(image, np.zeros((3, 2, 2)), NAMES, classes=["bus"]),
            "'bus'; the labels are sky",
        ),
        (lambda image: plot_score_maps(image, np.zeros((3, 2, 2)), NAMES, top_k=0), "at least 1, got 0"),
    ],
)
def test_plots_refuse_what_they_cannot_show(figures, plot, message):
    with pytest.raises(ValueError, match=message):
        plot(photograph(4, 4))


def test_without_matplotlib_plots_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"modeling-denseclip\[plot\]"):
        plot_segmentation(photograph(4, 4), np.zeros((4, 4)), NAMES)


def test_the_pictures_need_numpy_and_pillow_alone():
    # Imported as a package of their own, without the one around it.
    code = (
        f"import sys; sys.path.insert(0, {str(Path(pictures.__file__).parents[1])!r}); import pictures;"
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "name, drawn",
    [
        ("two\nlines\tand\x1b[31m", "two\\nlines\\tand\\x1b[31m"),
        ("turned\u202egnp", "turned\\u202egnp"),
        ("caf\udce9", "caf\\udce9"),
        ("\u0646\u0645\u06cc\u200c\u062f", "\u0646\u0645\u06cc\u200c\u062f"),
        ("straße \u5929\u7a7a", "straße \u5929\u7a7a"),
        ("a" * 100_000, "a" * 200 + "..." + "a" * 200),
    ],
    ids=["control", "direction", "bytes", "joiner", "letters", "long"],
)
def test_names_are_drawn_in_one_line_and_show_what_they_hold(name, drawn):
    segmentation = np.zeros((40, 60), dtype=np.uint8)
    picture = Image.fromarray(np.full((40, 60, 3), 90, dtype=np.uint8))
    overlays = [draw_overlay(picture, segmentation, {0: text}) for text in (name, drawn)]
    assert overlays[0].size == overlays[1].size and np.array_equal(*map(np.asarray, overlays))
    sheets = [contact_sheet([picture], [text], columns=1) for text in (name, drawn)]
    assert np.array_equal(*map(np.asarray, sheets))


def test_plots_take_names_as_they_are():
    """Matplotlib leaves labels out that begin with "_", and reads as mathematics what stands between dollars."""
    pytest.importorskip("matplotlib")
    segmentation = np.array([[0] * 30, [1] * 30])
    image = np.zeros((2, 30, 3), dtype=np.uint8)
    figure = plot_segmentation(image, segmentation, {0: "_background_", 1: "$\\frac$ 5"})
    figure.canvas.draw()
    shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert shown == ["_background_  50.0 %", "$\\frac$ 5  50.0 %"]
    plot_score_maps(image, np.random.rand(2, 2, 3), ["a$^$b", "_"]).canvas.draw()
