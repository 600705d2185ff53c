# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Label Studio's JSON, against drawings by hand, `pycocotools` and brushes packed bit by bit."""

import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask

from tests.damage import damage_bytes, damage_values, survives
from training.importing.label_studio import find_label_studio
from training.importing.sources import UNCOVERED, Listing


# pycocotools' own drawings, with which ours are compared.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = SIZE = (20, 25)  # a pixel is 5 and 4 per cent


def result(kind: str, labels: list[str], **value) -> dict:
    return {
        "id": "x1",
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": value | {kind: labels},
    }


def box(label: str, left: float, top: float, width: float, height: float, **more) -> dict:
    """A box, in pixels."""
    in_percent = {"x": left * 4, "y": top * 5, "width": width * 4, "height": height * 5, "rotation": 0}
    return result("rectanglelabels", [label], **(in_percent | more))


def polygon(label: str, points, **more) -> dict:
    return result("polygonlabels", [label], points=[[x * 4, y * 5] for x, y in points], closed=True, **more)


def pack(values: np.ndarray, literal: bool = False, bits: int = 8) -> list[int]:
    """Values as Label Studio packs them, with lengths of 3, 4, 8 and 16 bits."""
    lengths = (3, 4, 8, 16)
    text = f"{len(values):032b}{bits - 1:05b}" + "".join(f"{length - 1:04b}" for length in lengths)
    runs = [list(group) for _, group in itertools.groupby(values.tolist())]
    if literal:
        runs = [values[start : start + 13].tolist() for start in range(0, len(values), 13)]
    for run in runs:
        kind = next(kind for kind, length in enumerate(lengths) if len(run) <= 2**length)
        text += f"{int(not literal)}{kind:02b}{len(run) - 1:0{lengths[kind]}b}"
        text += "".join(f"{value:0{bits}b}" for value in (run if literal else run[:1]))
    text += "0" * (-len(text) % 8)
    return [int(text[start : start + 8], 2) for start in range(0, len(text), 8)]


def brush(label: str, alpha: np.ndarray, **more) -> dict:
    colours = np.stack([np.full_like(alpha, 9), np.zeros_like(alpha), alpha, alpha], axis=-1)
    return result("brushlabels", [label], format="rle", rle=pack(colours.ravel(), **more))


def annotation(*results: dict, created_at: str = "2026-01-01T00:00:00Z", **more) -> dict:
    return {"id": 1, "result": list(results), "was_cancelled": False, "created_at": created_at, **more}


def task(*annotations: dict, image: str = "/data/upload/3/0a1b2c3d-a.png", number: int = 1) -> dict:
    return {"id": number, "annotations": list(annotations), "predictions": [], "data": {"image": image}}


def write(folder: Path, tasks: object, *pictures: str, name: str = "export.json") -> None:
    for picture in pictures:
        (folder / picture).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(folder / picture)
    (folder / name).write_text(json.dumps(tasks), encoding="utf-8")


def draw(folder: Path, *results: dict, overlaps=None) -> np.ndarray:
    write(folder, [task(annotation(*results))], "a.png")
    [item] = find_label_studio(Listing(folder), overlaps).items
    assert item.size in (SIZE, None)
    return pickle.loads(pickle.dumps(item.draw))(SIZE).keys


def test_boxes_by_hand_and_what_comes_later_is_seen(tmp_path):
    expected = np.full(SIZE, UNCOVERED)
    expected[2:9, 1:8] = 1
    expected[4:12, 5:20] = 0
    shapes = [box("b", 1, 2, 7, 7), box("a", 5, 4, 15, 8)]
    np.testing.assert_array_equal(draw(tmp_path, *shapes), expected)
    assert (draw(tmp_path, *shapes, overlaps="smaller") == 1).sum() == 49


def test_boxes_are_turned_around_their_corner_in_pixels(tmp_path):
    drawn = draw(tmp_path, box("a", 12, 3, 8, 4, rotation=90))
    expected = np.full(SIZE, UNCOVERED)
    expected[3:11, 8:12] = 0
    np.testing.assert_array_equal(drawn, expected)


def test_polygons_are_those_of_pycocotools(tmp_path):
    generator = np.random.default_rng(0)
    for num_points in (3, 4, 7, 12):
        points = generator.uniform((-3, -3), (WIDTH + 3, HEIGHT + 3), (num_points, 2)).round(2)
        encoded = coco_mask.frPyObjects([points.ravel().tolist()], HEIGHT, WIDTH)
        expected = np.where(coco_mask.decode(coco_mask.merge(encoded)), 0, UNCOVERED)
        np.testing.assert_array_equal(draw(tmp_path, polygon("a", points)), expected)


@pytest.mark.parametrize("rotation", [0, 30, 90])
def test_ellipses_are_told_by_their_centre(tmp_path, rotation):
    value = {"x": 12 * 4, "y": 10 * 5, "radiusX": 8 * 4, "radiusY": 3 * 5, "rotation": rotation}
    drawn = draw(tmp_path, result("ellipselabels", ["a"], **value)) == 0
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5  # a pixel is covered where its centre is
    angle = np.radians(rotation)
    along = (x - 12) * np.cos(angle) + (y - 10) * np.sin(angle)
    across = -(x - 12) * np.sin(angle) + (y - 10) * np.cos(angle)
    distance = np.hypot(along / 8, across / 3)
    assert drawn[distance < 0.85].all()
    assert not drawn[distance > 1.2].any()


@pytest.mark.parametrize("literal", [False, True])
def test_brushes_cover_where_alpha_is_not_zero(tmp_path, literal):
    generator = np.random.default_rng(1)
    alpha = np.where(generator.random(SIZE) < 0.5, generator.choice([1, 128, 255], SIZE), 0)
    alpha[3:15] = 255  # long runs
    drawn = draw(tmp_path, brush("a", alpha, literal=literal))
    np.testing.assert_array_equal(drawn, np.where(alpha > 0, 0, UNCOVERED))


def test_brushes_of_fewer_bits_are_read(tmp_path):
    alpha = np.random.default_rng(2).integers(0, 2, SIZE)
    colours = np.repeat(alpha.ravel(), 4)
    for literal in (False, True):
        told = result("brushlabels", ["a"], format="rle", rle=pack(colours, literal, bits=3))
        np.testing.assert_array_equal(draw(tmp_path, told), np.where(alpha, 0, UNCOVERED))


def test_the_newest_annotation_that_is_not_cancelled_is_taken(tmp_path):
    annotations = [
        annotation(box("old", 0, 0, 9, 9), created_at="2026-01-01T00:00:00Z"),
        annotation(box("new", 0, 0, 9, 9), created_at="2026-03-01T00:00:00Z"),
        annotation(box("older", 0, 0, 9, 9), created_at="2026-02-01T00:00:00Z"),
        annotation(box("cancelled", 0, 0, 9, 9), created_at="2026-04-01T00:00:00Z", was_cancelled=True),
    ]
    write(tmp_path, [task(*annotations), task(annotations[0], number=2)], "a.png")
    source = find_label_studio(Listing(tmp_path))
    assert source.names == {0: "new"}
    told = "\n".join(source.notes)
    assert "3 annotations were passed over for newer ones" in told and "1 annotations were cancelled" in told


def test_an_annotation_without_regions_says_that_nothing_is_there(tmp_path):
    write(
        tmp_path,
        [
            task(annotation()),
            task(annotation(box("a", 1, 1, 3, 3)), image="b.png", number=2),
            task(image="c.png", number=3),
        ],
        "a.png",
        "b.png",
        "c.png",
    )
    source = find_label_studio(Listing(tmp_path))
    assert [item.name for item in source.items] == ["a", "b"]
    assert (source.items[0].draw(SIZE).keys == UNCOVERED).all()
    assert "export.json, task 3: nobody has annotated it" in source.left_out


def test_labels_and_shapes_in_results_of_their_own(tmp_path):
    geometry = {"x": 4, "y": 5, "width": 28, "height": 35, "rotation": 0}
    pair = [
        {"id": "r", "type": "rectangle", "value": geometry},
        {"id": "r", "type": "labels", "value": geometry | {"labels": ["a"]}},
        {"id": "s", "type": "rectangle", "value": geometry},
        {"id": "t", "type": "keypointlabels", "value": {"x": 1, "y": 1, "width": 1, "keypointlabels": ["p"]}},
        {"id": "u", "type": "choices", "value": {"choices": ["sunny"]}},
        {"type": "relation", "from_id": "r", "to_id": "s"},
        polygon("c", [(1, 1), (2, 2)]),
    ]
    drawn = draw(tmp_path, *pair)
    expected = np.full(SIZE, UNCOVERED)
    expected[1:8, 1:8] = 0
    np.testing.assert_array_equal(drawn, expected)
    told = "\n".join(find_label_studio(Listing(tmp_path)).notes)
    assert "1 regions have no label" in told and "1 x keypointlabels" in told and "1 x polygonlabels that" in told


def test_several_labels_and_turned_pictures_are_told(tmp_path):
    several = box("a", 0, 0, 5, 5)
    several["value"]["rectanglelabels"] = ["b", "a"]
    turned = polygon("c", [(10, 10), (15, 10), (15, 15), (10, 15)]) | {"image_rotation": 90}
    drawn = draw(tmp_path, several, turned)
    expected = np.full(SIZE, UNCOVERED)
    expected[:5, :5], expected[10:15, 10:15] = 0, 1
    np.testing.assert_array_equal(drawn, expected)
    told = "\n".join(find_label_studio(Listing(tmp_path)).notes)
    assert "1 regions have several labels" in told and "1 regions were drawn on a picture turned" in told


@pytest.mark.parametrize(
    ("image", "place"),
    [
        ("/data/upload/3/0a1b2c3d-a.png", "x/a.png"),
        ("/data/upload/3/0a1b2c3d-a.png", "x/0a1b2c3d-a.png"),
        ("/data/local-files/?d=data/set/a%20b.png", "images/a b.png"),
        ("https://example.org/folder/a.png?d=1&sign=x%2Fy.png", "a.png"),
        ("s3://bucket/val/a.png", "val/a.png"),
        ("gs://bucket/a.PNG", "a.png"),
        ("C:\\pictures\\a.png", "a.png"),
        ("abcdef-a.png", "abcdef-a.png"),
    ],
)
def test_photographs_are_found(tmp_path, image, place):
    write(tmp_path, [task(annotation(box("a", 1, 1, 3, 3)), image=image)], place)
    source = find_label_studio(Listing(tmp_path))
    assert source.items[0].image == tmp_path / place
    assert not source.left_out


def test_pictures_of_the_same_name_are_told_apart_by_their_folders(tmp_path):
    tasks = [
        task(annotation(box(split, 1, 1, 3, 3)), image=f"/data/local-files/?d=root/{split}/a.png")
        for split in ("train", "val")
    ]
    write(tmp_path, [*tasks, task(annotation(), image="http://x/a.png")], "train/a.png", "val/a.png")
    source = find_label_studio(Listing(tmp_path))
    assert [(item.name, item.split) for item in source.items] == [("a", "training"), ("a", "validation")]
    assert any("several pictures are called 'a.png'" in line for line in source.left_out)


def test_a_name_with_a_hash_that_two_pictures_have_is_no_other_one(tmp_path):
    write(
        tmp_path,
        [task(annotation(), image="/data/upload/1/0a1b2c3d-a.png"), task(annotation(), image="b.png", number=2)],
        "x/0a1b2c3d-a.png",
        "y/0a1b2c3d-a.png",
        "a.png",
        "b.png",
    )
    source = find_label_studio(Listing(tmp_path))
    assert [item.name for item in source.items] == ["b"]
    assert any("several pictures are called '0a1b2c3d-a.png'" in line for line in source.left_out)


def test_other_words_for_the_picture_and_early_exports(tmp_path):
    early = {
        "id": 1,
        "completions": [{"result": [box("a", 1, 1, 3, 3)], "skipped": False}],
        "data": {"photo": "a.png"},
    }
    write(tmp_path, early, "a.png", "b.png")
    assert len(find_label_studio(Listing(tmp_path)).items) == 1
    early["data"] = {"first": "a.png", "second": "b.png"}
    write(tmp_path, [early])
    with pytest.raises(ValueError, match="its data name 2 pictures"):
        find_label_studio(Listing(tmp_path))


def test_the_minimal_export_is_read(tmp_path):
    rows = []
    for number, label in enumerate(("old", "new")):
        values = [
            told["value"] | {"original_width": WIDTH, "original_height": HEIGHT}
            for told in (box(label, 1, 2, 7, 7), brush("a", np.eye(*SIZE, dtype=int)))
        ]
        rows.append(
            {
                "img": "/data/upload/1/0a1b2c3d-a.png",
                "id": 1,
                "label": values[:1],
                "brush": values[1:],
                "choice": ["x"],
                "annotator": 1,
                "annotation_id": number,
                "created_at": f"2026-0{number + 1}-01",
            }
        )
    write(tmp_path, rows[::-1], "a.png")
    source = find_label_studio(Listing(tmp_path))
    assert source.names == {0: "a", 1: "new"}
    expected = np.full(SIZE, UNCOVERED)
    expected[2:9, 1:8] = 1
    expected[np.eye(*SIZE, dtype=bool)] = 0
    np.testing.assert_array_equal(source.items[0].draw(SIZE).keys, expected)
    assert source.items[0].size == SIZE


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (polygon("a", [(1, 1), (float("nan"), 2), (3, 3)]), "something else than finite numbers"),
        (result("polygonlabels", ["a"], points=[[1, 2], [3]]), "something else than numbers is in its points"),
        (result("rectanglelabels", ["a"], x=1, y=None, width=2, height=2), "something else than finite numbers"),
        (result("ellipselabels", ["a"], x=1, y=2, radiusX=3), "something else than finite numbers"),
        (result("brushlabels", ["a"], format="rle", rle=[1, 256]), "no list of bytes"),
        (result("brushlabels", ["a"], format="rle"), "no list of bytes"),
        (result("rectanglelabels", [3], x=1, y=1, width=2, height=2), "not a list of names"),
        (result("bitmasklabels", ["a"], imageDataURL="data:image/png;base64,AA=="), "not understood"),
        (box("a", 1, 1, 1, 1) | {"original_width": 0}, "not two numbers of pixels"),
        (box("a", 1, 1, 1, 1) | {"original_width": 99}, "several sizes"),
        (5, "no list of mappings"),
    ],
)
def test_a_picture_with_a_broken_region_is_left_out_alone(tmp_path, broken, reason):
    good = box("a", 1, 1, 3, 3)
    write(
        tmp_path,
        [task(annotation(good, broken)), task(annotation(good), image="b.png", number=2)],
        "a.png",
        "b.png",
    )
    source = find_label_studio(Listing(tmp_path))
    assert [item.name for item in source.items] == ["b"]
    assert any(line.startswith("export.json, task 1: ") and reason in line for line in source.left_out)


@pytest.mark.parametrize(
    "broken",
    [
        polygon("a", [(1, 1), (1e9, 2), (3, 3)]),
        box("a", 1e9, 1, 2, 2, rotation=20),
        brush("a", np.ones((3, 3), int)),
        result("brushlabels", ["a"], format="rle", rle=brush("a", np.eye(*SIZE, dtype=int))["value"]["rle"][:-9]),
        result("brushlabels", ["a"], format="rle", rle=[255] * 8),
        result("brushlabels", ["a"], format="rle", rle=[]),
    ],
)
def test_what_cannot_be_drawn_names_the_file(tmp_path, broken):
    with pytest.raises(ValueError, match=r"export\.json, task 1: "):
        draw(tmp_path, broken)


def test_other_files_are_none_of_label_studio(tmp_path):
    for number, content in enumerate(([], {}, [1], {"images": [], "annotations": [], "categories": []}, [{"a": 1}])):
        write(tmp_path, content, "a.png", name=f"{number}.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "broken.json").write_text('{"a": ')
    assert find_label_studio(Listing(tmp_path)) is None


def test_broken_files_are_named(tmp_path):
    write(tmp_path, [task(annotation(box("a", 1, 1, 3, 3)))], "a.png")
    text = (tmp_path / "export.json").read_text()
    (tmp_path / "export.json").write_text(text[:-5])
    with pytest.raises(ValueError, match=r"export\.json: it is no valid JSON"):
        find_label_studio(Listing(tmp_path))
    (tmp_path / "export.json").write_bytes(text.replace("upload", "ä").encode("latin-1"))
    with pytest.raises(ValueError, match=r"export\.json: it is no text in UTF-8"):
        find_label_studio(Listing(tmp_path))


def test_damaged_files_end_in_an_error_that_is_told(tmp_path):
    regions = [
        box("a", 1, 2, 7, 7, rotation=20),
        polygon("b", [(1, 1), (9, 2), (5, 8)]),
        result("ellipselabels", ["a"], x=40, y=50, radiusX=20, radiusY=10, rotation=0),
        brush("b", np.eye(*SIZE, dtype=int)),
    ]
    content = [task(annotation(*regions)), task(annotation(regions[0]), image="b.png", number=2)]
    write(tmp_path, content, "a.png", "b.png")
    file = tmp_path / "export.json"
    text = file.read_bytes()
    without_brush = [task(annotation(*regions[:3]))]  # whose many numbers would take most of the damage
    for damage, whole in [(damage_bytes, text), (damage_values, content), (damage_values, without_brush)]:
        num_drawn = 0
        for seed in range(120):
            file.write_bytes(damage(whole, seed))
            num_drawn += survives(lambda: find_label_studio(Listing(tmp_path)), SIZE)
        assert 0 < num_drawn < 120
