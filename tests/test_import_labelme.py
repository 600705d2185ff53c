# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""labelme's JSON, against drawings by hand and loops over pixels. Its own functions would need Qt."""

import base64
import io
import json
import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.damage import damage_bytes, damage_values, survives
from training.importing.labelme import find_labelme
from training.importing.sources import UNCOVERED, Listing


HEIGHT, WIDTH = SIZE = (23, 31)


def shape(label: str, points: list, kind: str | None = "polygon", **more) -> dict:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def write(folder: Path, stem: str, shapes: list[dict], suffix: str = ".png", picture: bool = True, **more) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    if picture:
        PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{stem}{suffix}")
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{stem}{suffix}",
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    } | more
    (folder / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
    return content


def encode(mask: np.ndarray) -> str:
    stream = io.BytesIO()
    PIL.Image.fromarray(mask).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def draw(folder: Path, *shapes: dict, overlaps=None) -> np.ndarray:
    write(folder, "a", list(shapes))
    [item] = find_labelme(Listing(folder), overlaps).items
    return pickle.loads(pickle.dumps(item.draw))(SIZE).keys


def test_corners_and_edges_belong_to_what_they_bound(tmp_path):
    expected = np.full(SIZE, UNCOVERED)
    expected[3:8, 2:11] = 0  # the last row and column included
    for kind, points in [
        ("rectangle", [[2, 3], [10, 7]]),
        ("rectangle", [[10, 7], [2, 3]]),
        ("polygon", [[2, 3], [10, 3], [10, 7], [2, 7]]),
        (None, [[2, 3], [10, 3], [10, 7], [2, 7]]),
        ("oriented_rectangle", [[2, 3], [10, 3], [10, 7], [2, 7]]),
    ]:
        np.testing.assert_array_equal(draw(tmp_path, shape("cat", points, kind)), expected)


def test_a_triangle_by_hand(tmp_path):
    drawn = draw(tmp_path, shape("cat", [[2, 2], [9, 2], [9, 9]]))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    np.testing.assert_array_equal(drawn == 0, (y >= 2) & (x <= 9) & (x >= y))


@pytest.mark.parametrize(("kind", "points", "radius"), [("circle", [[15, 11], [12, 15]], 5), ("point", [[15, 11]], 5)])
def test_circles_are_told_by_centre_and_rim_and_points_are_discs(tmp_path, kind, points, radius):
    drawn = draw(tmp_path, shape("cat", points, kind)) == 0
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(x - 15, y - 11)
    assert drawn[distance <= radius - 0.5].all()
    assert not drawn[distance > radius + 0.8].any()


def test_lines_are_ten_pixels_wide(tmp_path):
    for kind, points in [("line", [[5, 11], [25, 11]]), ("linestrip", [[5, 11], [15, 11], [25, 11]])]:
        drawn = draw(tmp_path, shape("cat", points, kind)) == 0
        assert (drawn[:, 7:24].sum(axis=0) == 10).all()
        assert drawn[11, 5:26].all() and not drawn[:, :5].any() and not drawn[:, 26:].any()


def test_masks_fill_their_box(tmp_path):
    mask = np.random.default_rng(0).random((5, 7)) < 0.5
    expected = np.full(SIZE, UNCOVERED)
    expected[9:14, 4:11][mask] = 0
    for stored in (mask, mask.astype(np.uint8), mask.astype(np.uint8) * 255):
        drawn = draw(tmp_path, shape("cat", [[4.0, 9.0], [10.0, 13.0]], "mask", mask=encode(stored)))
        np.testing.assert_array_equal(drawn, expected)


def test_later_shapes_lie_on_earlier_ones_and_smaller_ones_if_asked(tmp_path):
    shapes = [shape("b", [[3, 3], [5, 5]], "rectangle"), shape("a", [[0, 0], [20, 20]], "rectangle")]
    assert set(np.unique(draw(tmp_path, *shapes))) == {UNCOVERED, 0}
    assert (draw(tmp_path, *shapes, overlaps="smaller") == 1).sum() == 9


def test_the_words_of_labelme_and_the_order_of_its_list(tmp_path):
    shapes = [
        shape("zebra", [[0, 0], [9, 9]], "rectangle"),
        shape("__ignore__", [[2, 2], [4, 4]], "rectangle"),
        shape("_background_", [[6, 6], [7, 7]], "rectangle"),
        shape("ape", [[12, 12], [12, 12]], "rectangle"),
        shape("new", [[14, 14], [14, 14]], "rectangle"),
    ]
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nzebra\nape\nnever drawn\n")
    drawn = draw(tmp_path, *shapes)
    source = find_labelme(Listing(tmp_path))
    assert list(source.names.items()) == [
        (UNCOVERED, "background"),
        (0, "zebra"),
        (1, "ape"),
        (2, "never drawn"),
        (3, "new"),
    ]
    [ignored] = source.unlabelled
    assert ignored not in source.names
    expected = np.full(SIZE, UNCOVERED)
    expected[:10, :10] = 0
    expected[2:5, 2:5] = ignored
    expected[6:8, 6:8] = UNCOVERED
    expected[12, 12], expected[14, 14] = 1, 3
    np.testing.assert_array_equal(drawn, expected)
    assert any("labels.txt does not list: 'new'" in note for note in source.notes)


def test_without_a_list_names_are_in_the_order_of_the_alphabet(tmp_path):
    write(tmp_path, "a", [shape("wolf", [[0, 0], [9, 9]], "rectangle"), shape("bear", [[0, 0], [3, 3]], "rectangle")])
    source = find_labelme(Listing(tmp_path))
    assert source.names == {0: "bear", 1: "wolf"}
    assert not source.unlabelled
    assert any("alphabet" in note for note in source.notes)


def test_shapes_without_area_are_counted_and_not_drawn(tmp_path):
    flat = [
        shape("a", [[1, 1], [5, 5]]),
        shape("a", [[1, 1], [5, 5], [7, 7]], "points"),
        shape("a", [[1, 1]], "linestrip"),
    ]
    assert (draw(tmp_path, *flat) == UNCOVERED).all()
    [note] = [note for note in find_labelme(Listing(tmp_path)).notes if "no area" in note]
    assert "1 x linestrip of 1 points, 1 x points, 1 x polygon of 2 points" in note


A_SHAPE = shape("cat", [[2, 3], [10, 7]], "rectangle")


@pytest.mark.parametrize(
    ("told", "place"),
    [
        ("..\\images\\p.png", "x/images/p.png"),
        ("../images/p.png", "x/images/p.png"),
        ("C:\\Users\\x\\p.png", "x/labels/p.png"),
        ("/mnt/x/p.png", "x/labels/p.png"),
        ("old_name.png", "x/labels/a.JPG"),
        ("P.PNG", "x/labels/p.png"),
        ("p.png", "elsewhere/p.png"),
        (None, "x/labels/a.jpg"),
        ("old_name.png", "x/labels/A.jpg"),
    ],
)
def test_photographs_are_found(tmp_path, told, place):
    write(tmp_path / "x" / "labels", "a", [A_SHAPE], picture=False, imagePath=told)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / place)
    [item] = find_labelme(Listing(tmp_path)).items
    assert item.image == tmp_path / place
    assert item.size == SIZE
    assert item.name == (tmp_path / place).stem


def test_of_two_pictures_of_a_name_the_one_beside_is_meant(tmp_path):
    write(tmp_path / "x", "a", [A_SHAPE], picture=False, imagePath="C:\\Users\\me\\p.png")
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir(exist_ok=True)
        PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / folder / "p.png")
    assert [item.image for item in find_labelme(Listing(tmp_path)).items] == [tmp_path / "x" / "p.png"]


def test_case_does_not_part_a_file_from_the_picture_beside(tmp_path):
    write(tmp_path, "A", [A_SHAPE], picture=False, imagePath="old_name.png")
    PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.JPG")
    assert [item.image for item in find_labelme(Listing(tmp_path)).items] == [tmp_path / "a.JPG"]


def test_pictures_within_the_json_and_pictures_without_one_are_left_out(tmp_path):
    write(tmp_path, "a", [A_SHAPE])
    write(tmp_path, "b", [A_SHAPE], picture=False, imageData="aGVsbG8=")
    write(tmp_path, "c", [A_SHAPE], picture=False)
    PIL.Image.new("RGB", (5, 5)).save(tmp_path / "d.png")
    source = find_labelme(Listing(tmp_path))
    assert [item.name for item in source.items] == ["a"]
    told = "\n".join(source.left_out)
    assert "b.json: its photograph 'b.png' is not there but inside the JSON, as imageData: write it beside" in told
    assert "c.json: its photograph 'c.png' is not there" in told
    assert "d.png: nothing annotates it" in told


def test_of_two_files_of_a_picture_the_one_that_is_called_like_it_counts(tmp_path):
    write(tmp_path, "b", [A_SHAPE])
    for other in ("a", "c"):
        write(tmp_path, other, [shape("dog", [[0, 0], [1, 1]], "rectangle")], picture=False, imagePath="b.png")
    source = find_labelme(Listing(tmp_path))
    [item] = source.items
    assert item.annotations == (tmp_path / "b.json",)
    assert any("2 earlier annotations" in note for note in source.notes)


def test_splits_are_told_by_folders(tmp_path):
    write(tmp_path / "Train", "a", [A_SHAPE])
    write(tmp_path / "images" / "valid" / "x", "b", [A_SHAPE])
    write(tmp_path, "c", [A_SHAPE])
    write(tmp_path / "labels", "d", [A_SHAPE], picture=False, imagePath="../test/d.png")
    write(tmp_path / "labels" / "val", "e", [A_SHAPE], picture=False, imagePath="../../all/e.png")
    for place in ("test/d.png", "all/e.png"):
        (tmp_path / place).parent.mkdir()
        PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / place)
    splits = {item.image.stem: item.split for item in find_labelme(Listing(tmp_path)).items}
    assert splits == {"a": "training", "b": "validation", "c": None, "d": "test", "e": "validation"}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (shape("cat", [[1, 1], [float("nan"), 2], [3, 3]]), "something else than finite numbers"),
        (shape("cat", [[1, 1], [2], [3, 3]]), "something else than numbers is in its points"),
        (shape("cat", [[1, 1], [10**400, 2], [3, 3]]), "something else than numbers is in its points"),
        (shape("cat", None), "numbers of shape ()"),
        (shape("cat", [[1, 1, 0], [9, 2, 0], [5, 8, 0]]), "numbers of shape (3, 3)"),
        (shape("", [[1, 1], [2, 2], [3, 1]]), "it has no label"),
        (shape("cat", [[1, 1], [2, 2]], "mask", mask="a?GVsbG8="), "its mask is no text of base64"),
        (shape("cat", [[1, 1]], "circle"), "a circle has 2 points, not 1"),
        (shape("cat", [[1, 1]], "cuboid"), "'cuboid' is unknown"),
        (shape("cat", [[1, 1]], ["x"]), "is unknown"),
        (shape("cat", [[1, 1], [2, 2]], "mask"), "its mask is no text of base64"),
        ("text", "it is a str"),
    ],
)
def test_a_picture_with_a_broken_shape_is_left_out_alone(tmp_path, broken, reason):
    write(tmp_path, "a", [A_SHAPE, broken])
    write(tmp_path, "b", [A_SHAPE])
    source = find_labelme(Listing(tmp_path))
    assert [item.name for item in source.items] == ["b"]
    [line] = source.left_out
    assert line.startswith("a.json: shape 1: ") and reason in line


@pytest.mark.parametrize(
    "broken",
    [
        shape("cat", [[1, 1], [1e9, 2], [3, 3]]),
        shape("cat", [[1, 1], [1e9, 2]], "circle"),
        shape("cat", [[1, 1], [3, 3]], "mask", mask=encode(np.zeros((2, 3), bool))),
        shape("cat", [[1, 1], [3, 3]], "mask", mask="aGVsbG8="),
    ],
)
def test_what_cannot_be_drawn_names_the_file(tmp_path, broken):
    with pytest.raises(ValueError, match=r"a\.json: "):
        draw(tmp_path, broken)


def test_files_that_are_no_json_are_left_out_or_none_of_labelme(tmp_path):
    (tmp_path / "coco.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert find_labelme(Listing(tmp_path)) is None
    write(tmp_path, "a", [A_SHAPE])
    (tmp_path / "deep.json").write_text('{"imagePath": "a.png", "shapes": ' + "[" * 100_000)
    (tmp_path / "latin.json").write_bytes('{"shapes": [], "imagePath": "é.png"}'.encode("latin-1"))
    source = find_labelme(Listing(tmp_path))
    assert len(source.items) == 1
    told = "\n".join(source.left_out)
    assert "latin.json: it is no text in UTF-8" in told and "deep.json: it is no valid JSON" in told
    (tmp_path / "a.json").unlink()
    with pytest.raises(ValueError, match="latin.json: it is no text in UTF-8"):
        find_labelme(Listing(tmp_path))


def test_other_encodings(tmp_path):
    write(tmp_path, "é", [A_SHAPE])
    text = (tmp_path / "é.json").read_text(encoding="utf-8")
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / "é.json").write_text(text, encoding=encoding)
        assert [item.name for item in find_labelme(Listing(tmp_path)).items] == ["é"]


def test_photographs_that_differ_in_their_suffix_have_names_of_their_own(tmp_path):
    write(tmp_path, "a", [A_SHAPE])
    write(tmp_path / "labels", "b", [A_SHAPE], picture=False, imagePath="../a.jpg")
    PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.jpg")
    assert [item.name for item in find_labelme(Listing(tmp_path)).items] == ["a_jpg", "a_png"]


def test_damaged_files_end_in_an_error_that_is_told(tmp_path):
    mask = encode(np.ones((3, 4), np.uint8))
    shapes = [
        shape("cat", [[1, 1], [9, 2], [5, 8]]),
        shape("_background_", [[4, 9], [7, 11]], "mask", mask=mask),
        shape("dog", [[15, 11], [12, 15]], "circle"),
        shape("dog", [[5, 11], [25, 11], [9, 9]], "linestrip"),
    ]
    content = write(tmp_path, "a", shapes)
    file = tmp_path / "a.json"
    text = file.read_bytes()
    for damage, whole in [(damage_bytes, text), (damage_values, content)]:
        num_drawn = 0
        for seed in range(300):
            file.write_bytes(damage(whole, seed))
            num_drawn += survives(lambda: find_labelme(Listing(tmp_path)), SIZE)
        assert 0 < num_drawn < 300
