# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""YOLO data sets, in the trees that ultralytics, CVAT, Roboflow and Label Studio write, and drawings made by hand."""

import os
import pickle
import random

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from training.importing.painting import HIDDEN
from training.importing.sources import UNCOVERED, Listing
from training.importing.yolo import find_yolo


HEIGHT, WIDTH = 10, 20
SIZE = (HEIGHT, WIDTH)
TRIANGLE = "1 0.1 0.1 0.9 0.1 0.5 0.9"


def save_photograph(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)


def save_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def one_photograph(folder, text, **config):
    """A data set of one photograph, images/train/a.png."""
    save_photograph(folder / "images" / "train" / "a.png")
    save_text(folder / "labels" / "train" / "a.txt", text)
    config = {"path": ".", "train": "images/train", "names": ["lake", "tree", "road"]} | config
    save_text(folder / "data.yaml", yaml.safe_dump(config))
    return find_yolo(Listing(folder))


def draw(item):
    return item.draw(SIZE).keys


def expect(*rectangles):
    """Rectangles of (key, left, top, right, bottom), the last two included, over each other."""
    keys = np.full(SIZE, UNCOVERED)
    for key, left, top, right, bottom in rectangles:
        keys[top : bottom + 1, left : right + 1] = key
    return keys


def test_hand_made_drawing(tmp_path):
    # 0.47 of 10 is cut to 4. The border belongs to the object, as cv2.fillPoly has it.
    lines = ["2 0.2 0.2 0.29 0.2 0.29 0.47 0.2 0.47", "0 0.1 0.1 0.5 0.1 0.5 0.8 0.1 0.8", ""]
    source = one_photograph(tmp_path, "\n".join(lines))
    np.testing.assert_array_equal(draw(source.items[0]), expect((0, 2, 1, 10, 8), (2, 4, 2, 5, 4)))  # smaller: on top
    assert draw(source.items[0]).dtype == np.int32
    assert source.names == {0: "lake", 1: "tree", 2: "road"} and source.form == "YOLO polygons"
    item = source.items[0]
    assert (item.name, item.split, item.size) == ("a", "training", None)
    assert item.image == tmp_path / "images" / "train" / "a.png"
    assert item.annotations == (tmp_path / "labels" / "train" / "a.txt",)
    assert not source.notes and not source.left_out
    later = find_yolo(Listing(tmp_path), overlaps="later").items[0].draw(SIZE)
    np.testing.assert_array_equal(later.keys, expect((0, 2, 1, 10, 8)))
    assert later.remarks == {HIDDEN: 1}


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_rule_of_ultralytics(tmp_path, seed):
    # Each polygon is filled with corners cut to integers, in float32; then the largest is painted first.
    rng = np.random.default_rng(seed)
    objects = [(int(rng.integers(3)), rng.random((rng.integers(3, 9), 2)).round(5)) for _ in range(rng.integers(1, 8))]
    text = "\n".join(" ".join(map(str, [number, *points.reshape(-1).tolist()])) for number, points in objects)
    masks = []
    for number, points in objects:
        mask = np.zeros(SIZE, np.uint8)
        corners = [
            [int(np.float32(x) * np.float32(WIDTH)), int(np.float32(y) * np.float32(HEIGHT))] for x, y in points
        ]
        cv2.fillPoly(mask, np.array([corners], np.int32), 1)
        masks.append((number, mask))
    expected = np.full(SIZE, UNCOVERED)
    for number, mask in sorted(masks, key=lambda pair: -int(pair[1].sum())):
        expected[mask == 1] = number
    source = one_photograph(tmp_path, text)
    np.testing.assert_array_equal(draw(pickle.loads(pickle.dumps(source.items[0]))), expected)


def test_boxes_and_oriented_boxes(tmp_path):
    # Centre (0.5, 0.5), 0.4 wide and 0.6 high: 8 x 6 pixels, from 6 and 2 on. Borders of polygons belong to them.
    source = one_photograph(
        tmp_path, "0 0.5 0.5 0.4 0.6\n1.0 0.5 0.5 0.6 0.5 0.6 0.6 0.5 0.6\n2 1 1 0.2 0.2\n2 0 0 0.2 0.2"
    )
    np.testing.assert_array_equal(
        draw(source.items[0]), expect((0, 6, 2, 13, 7), (1, 10, 5, 12, 6), (2, 18, 9, 19, 9), (2, 0, 0, 1, 0))
    )
    assert source.form == "YOLO polygons, boxes"
    assert source.notes == ["3 objects have a box alone; it is filled."]


def test_missing_and_empty_texts_say_that_nothing_is_there(tmp_path):
    for name in ("b", "c"):
        save_photograph(tmp_path / "images" / "train" / f"{name}.png")
    save_text(tmp_path / "labels" / "train" / "b.txt", "\n")
    source = one_photograph(tmp_path, TRIANGLE)
    assert [item.name for item in source.items] == ["a", "b", "c"]
    for item in source.items[1:]:
        np.testing.assert_array_equal(draw(item), expect())
    assert source.items[2].annotations == ()
    assert len(source.notes) == 1 and source.notes[0].startswith("2 photographs have an empty .txt, or none")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 0.1 0.2 0.3\n", "4 numbers"),
        ("0 0.5 0.5 0.4 0.6 0.99\n", "6 numbers"),  # with a score, of predictions
        ("lake 0.5 0.5 0.4 0.6\n", "else than numbers"),
        ("0 0.5 0.5 nan 0.6\n", "outside"),
        ("0 0.5 0.5 1e60 0.6\n", "outside"),
        ("0 0.1 0.1 0.9 0.1 0.5 1.2\n", "outside"),
        ("0 0.1 -0.2 0.9 0.1 0.5 1\n", "outside"),
        ("0.5 0.5 0.5 0.4 0.6\n", "classes are counted"),
        ("-1 0.5 0.5 0.4 0.6\n", "classes are counted"),
        ("nan 0.5 0.5 0.4 0.6\n", "classes are counted"),
        ("3 0.5 0.5 0.4 0.6\n", "class 3, which data.yaml does not name"),
    ],
)
def test_texts_of_another_form_are_left_out(tmp_path, text, said):
    save_photograph(tmp_path / "images" / "train" / "b.png")
    save_text(tmp_path / "labels" / "train" / "b.txt", TRIANGLE)
    source = one_photograph(tmp_path, TRIANGLE + "\n\n" + text)
    assert [item.name for item in source.items] == ["b"]
    assert len(source.left_out) == 1 and said in source.left_out[0]
    assert "images/train/a.png" in source.left_out[0] and "labels/train/a.txt" in source.left_out[0]
    assert "1 photographs are left out." in source.notes


def test_text_that_is_not_utf8(tmp_path):
    save_photograph(tmp_path / "images" / "train" / "a.png")
    source = one_photograph(tmp_path, TRIANGLE)
    (tmp_path / "labels" / "train" / "a.txt").write_bytes(b"\xef\xbb\xbf" + TRIANGLE.encode())
    assert len(find_yolo(Listing(tmp_path)).items) == len(source.items) == 1
    (tmp_path / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe" + TRIANGLE.encode())
    assert "UTF-8" in find_yolo(Listing(tmp_path)).left_out[0]


def test_coordinates_a_little_outside(tmp_path):
    source = one_photograph(tmp_path, "0 -0.005 0 1.005 0 1.005 1.01 0 1.01\n")
    np.testing.assert_array_equal(draw(source.items[0]), expect((0, 0, 0, WIDTH, HEIGHT)))


# Trees.


def test_roboflow_export(tmp_path):
    for split in ("train", "valid"):
        save_photograph(tmp_path / split / "images" / "a_jpg.rf.0.jpg")
        save_text(tmp_path / split / "labels" / "a_jpg.rf.0.txt", TRIANGLE)
    config = {
        "train": "../train/images",
        "val": "../valid/images",
        "test": "../test/images",
        "nc": 2,
        "names": ["lake", "tree"],
        "roboflow": {"workspace": "w", "version": 1},
    }
    save_text(tmp_path / "data.yaml", yaml.safe_dump(config))
    save_text(tmp_path / "README.roboflow.txt", "lakes - v1")
    source = find_yolo(Listing(tmp_path))
    assert [(item.split, item.name, item.image) for item in source.items] == [
        ("training", "a_jpg.rf.0", tmp_path / "train" / "images" / "a_jpg.rf.0.jpg"),
        ("validation", "a_jpg.rf.0", tmp_path / "valid" / "images" / "a_jpg.rf.0.jpg"),
    ]
    assert all(set(np.unique(draw(item))) == {UNCOVERED, 1} for item in source.items)
    assert source.notes == ["data.yaml names '../test/images', which is not there."]


@pytest.mark.parametrize("prefix", ["", "./", "data/"])
def test_cvat_export(tmp_path, prefix):
    for split in ("train", "val"):
        for city in ("rome", "paris"):
            save_photograph(tmp_path / "images" / split / city / "1.jpg")
            save_text(tmp_path / "labels" / split / city / "1.txt", f"{int(city == 'rome')} 0.5 0.5 0.2 0.2\n")
        lines = [f"{prefix}images/{split}/{city}/1.jpg" for city in ("paris", "rome")]
        save_text(tmp_path / f"{split}.txt", "\r\n".join([*lines, "images/none.jpg", ""]))
    config = {"names": {0: "lake", 1: "tree"}, "path": "./", "train": "train.txt", "val": "val.txt"}
    save_text(tmp_path / "data.yaml", yaml.safe_dump(config))
    source = find_yolo(Listing(tmp_path))
    assert [(item.split, item.name, draw(item).max()) for item in source.items] == [
        ("training", "paris/1", 0),
        ("training", "rome/1", 1),
        ("validation", "paris/1", 0),
        ("validation", "rome/1", 1),
    ]
    assert any(
        "train.txt lists 1 photographs that are not taken, such as 'images/none.jpg'" in x for x in source.notes
    )


@pytest.mark.parametrize(
    "config",
    [
        {"path": "../data", "train": "images/train", "val": "images/val"},  # of ultralytics' own folder of data sets
        {"path": "/content/data", "train": "images/train", "val": "images/val"},
        {"path": "C:\\data", "train": "images\\train", "val": "images\\val"},
        {"train": ["images/train"], "val": "/content/data/images/val"},
        {"train": "images/train/", "val": "./images/val"},
        {"train": "images/train", "validation": "images/val"},
    ],
)
def test_paths(tmp_path, config):
    for split in ("train", "val"):
        save_photograph(tmp_path / "images" / split / f"{split}.png")
        save_text(tmp_path / "labels" / split / f"{split}.txt", TRIANGLE)
    save_text(tmp_path / "my.yaml", yaml.safe_dump(config | {"names": {"0": "lake", "1": "tree"}}))
    source = find_yolo(Listing(tmp_path))
    assert [(item.split, item.name) for item in source.items] == [
        ("training", "train"),
        ("validation", "val"),
    ]
    assert source.names == {0: "lake", 1: "tree"}


def test_path_and_lists_of_a_data_set_below(tmp_path):
    for folder in ("old", "new"):
        save_photograph(tmp_path / folder / "images" / "a.png")
        save_text(tmp_path / folder / "labels" / "a.txt", TRIANGLE)
    save_text(tmp_path / "new" / "train.txt", "images/a.png\n")
    # images alone, of a path of another machine, could be those of any split.
    config = {"path": "new", "train": "train.txt", "val": "/content/valid/images", "names": ["lake", "tree"]}
    save_text(tmp_path / "data.yaml", yaml.safe_dump(config))
    source = find_yolo(Listing(tmp_path))
    assert [item.image for item in source.items] == [tmp_path / "new" / "images" / "a.png"]
    assert source.notes == ["data.yaml names '/content/valid/images', which is not there."]


def test_last_images_of_the_path_counts(tmp_path):
    save_photograph(tmp_path / "images" / "my_images" / "images" / "x" / "a.png")
    save_text(tmp_path / "images" / "my_images" / "labels" / "x" / "a.txt", TRIANGLE)
    assert find_yolo(Listing(tmp_path)).items[0].name == "a"


def test_splits_that_overlap_or_lack_texts(tmp_path):
    save_photograph(tmp_path / "images" / "test" / "b.png")
    source = one_photograph(tmp_path, TRIANGLE, val="images/train", test="images/test")
    assert [(item.split, item.name) for item in source.items] == [("training", "a")]
    assert any("1 photographs stand in more than one split" in note for note in source.notes)
    assert any("1 photographs of 'test' are left out: none of them has a .txt" in note for note in source.notes)


def test_without_data_yaml(tmp_path):
    for split in ("train", "val"):
        save_photograph(tmp_path / "images" / split / "a.png")
        save_text(tmp_path / "labels" / split / "a.txt", TRIANGLE)
    save_photograph(tmp_path / "images" / "train" / "b.png")
    save_photograph(tmp_path / "preview" / "b.png")
    source = find_yolo(Listing(tmp_path))
    assert [(item.split, item.name) for item in source.items] == [
        ("training", "a"),
        ("training", "b"),
        ("validation", "a"),
    ]
    assert source.names == {} and set(np.unique(draw(source.items[0]))) == {UNCOVERED, 1}
    assert source.notes[0] == "1 pictures in preview are passed over: none of them has a .txt."
    save_text(tmp_path / "classes.txt", "lake\ntraffic  light\n")
    assert find_yolo(Listing(tmp_path)).names == {0: "lake", 1: "traffic light"}
    save_text(tmp_path / "labels" / "classes.txt", "tree\nlake\n")
    with pytest.raises(ValueError, match=r"classes\.txt and labels/classes\.txt name different classes"):
        find_yolo(Listing(tmp_path))


def test_darknet_with_texts_beside_photographs(tmp_path):
    save_photograph(tmp_path / "obj_train_data" / "a.jpg")
    save_text(tmp_path / "obj_train_data" / "a.txt", "0 0.5 0.5 0.4 0.6\n")
    save_text(tmp_path / "obj.names", "lake\n")
    save_text(tmp_path / "obj.data", "classes = 1\n")
    save_text(tmp_path / "train.txt", "obj_train_data/a.jpg\n")
    source = find_yolo(Listing(tmp_path))
    assert source.names == {0: "lake"} and source.form == "YOLO boxes" and source.items[0].split == "training"


@pytest.mark.parametrize("text", ["A lake beside a tree.", "0 0 1 1 0\n1 1 0 0 1\n", "", "0 255 7\n", "12\n"])
def test_texts_of_other_meanings(tmp_path, text):
    save_photograph(tmp_path / "a.jpg")
    save_text(tmp_path / "a.txt", text)
    assert find_yolo(Listing(tmp_path)) is None


def test_other_yaml_is_passed_over(tmp_path):
    save_text(tmp_path / "training.yaml", "train: {steps: 5}\nnames: x\n")
    save_photograph(tmp_path / "a.jpg")
    assert find_yolo(Listing(tmp_path)) is None
    save_text(tmp_path / "mkdocs.yaml", "nav: !!python/name:os.system\n")
    assert len(one_photograph_beside(tmp_path).items) == 1


def one_photograph_beside(folder):
    (folder / "training.yaml").unlink()
    return one_photograph(folder, TRIANGLE)


# data.yaml.


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"nc": 2}, "3 names and nc: 2"),
        ({"names": {"lake": 0}}, "name of class 'lake'"),
        ({"names": {-1: "lake"}}, "name of class -1"),
        ({"names": ["lake", False]}, "False for class 1. Put its name in quotation marks"),  # written as no
        ({"names": ["lake", ""]}, "for class 1"),
        ({"names": "lake"}, "list of names"),
        ({"train": 5}, "train: 5"),
        ({"train": "nowhere"}, "no photograph that is there"),
        ({"kpt_shape": [17, 3]}, "key points"),
    ],
)
def test_contradictions(tmp_path, config, said):
    with pytest.raises(ValueError, match=r"data\.yaml") as error:
        one_photograph(tmp_path, TRIANGLE, **config)
    assert said in str(error.value)


def test_names(tmp_path):
    source = one_photograph(tmp_path, TRIANGLE, names={3: "road", 1: "Lake", 2: "lake", 7: 1984})
    assert source.names == {1: "Lake", 3: "road", 7: "1984"} and draw(source.items[0]).max() == 1
    assert source.notes == ["Classes 1 and 2 are both called 'lake': one class."]
    source = one_photograph(tmp_path, TRIANGLE.replace("1", "2", 1), names={1: "Lake", 2: "lake"})
    assert draw(source.items[0]).max() == 1
    assert one_photograph(tmp_path, TRIANGLE, names=None, nc=2).names == {}


def test_two_descriptions(tmp_path):
    one_photograph(tmp_path, TRIANGLE)
    config = (tmp_path / "data.yaml").read_text()
    save_text(tmp_path / "copies" / "data.yaml", config.replace("path: .", "path: .."))
    assert len(find_yolo(Listing(tmp_path)).items) == 1
    save_text(tmp_path / "copies" / "data.yaml", config.replace("lake", "sea"))
    with pytest.raises(ValueError, match=r"data\.yaml and copies/data\.yaml describe the data set differently"):
        find_yolo(Listing(tmp_path))


@pytest.mark.parametrize("text", [b"train: x\nnames: [a", b"train: \xff\nnames: [a]", b"train: &a [*a]\nnames: [a]"])
def test_broken_data_yaml(tmp_path, text):
    one_photograph(tmp_path, TRIANGLE)
    (tmp_path / "data.yaml").write_bytes(text)
    with pytest.raises(ValueError, match=r"data\.yaml"):
        find_yolo(Listing(tmp_path))


def test_named_pipe(tmp_path):
    one_photograph(tmp_path, TRIANGLE)
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    os.mkfifo(tmp_path / "labels" / "train" / "a.txt")
    with pytest.raises(OSError, match=r"a\.txt.*named pipe"):
        find_yolo(Listing(tmp_path))


def test_damaged_files_raise_no_other_errors(tmp_path):
    one_photograph(tmp_path, TRIANGLE + "\n0 0.5 0.5 0.4 0.6\n2 0.2 0.2 0.5 0.2 0.5 0.5 0.2 0.5\n")
    files = [tmp_path / "data.yaml", tmp_path / "labels" / "train" / "a.txt"]
    whole = [file.read_bytes() for file in files]
    pieces = [
        b"",
        b"\0",
        b"\xff",
        b"\n",
        b"-",
        b"e99",
        b"nan",
        b": ",
        b"[",
        b"{",
        b"..",
        b"/",
        b"\\",
        b"&a *a",
        b"99 ",
    ]
    rng = random.Random(0)
    read = 0
    for _ in range(600):
        for file, content in zip(files, whole, strict=True):
            content = bytearray(content)
            for _ in range(rng.choice([0, 1, 3])):
                place = rng.randrange(len(content) + 1)
                content[place : place + rng.choice([0, 1, 9])] = rng.choice(pieces)
            file.write_bytes(content)
        try:
            source = find_yolo(Listing(tmp_path))
            for item in source.items if source else ():
                keys = draw(item)
                assert keys.shape == SIZE and keys.dtype == np.int32 and keys.min() >= UNCOVERED
            read += source is not None
        except (ValueError, OSError) as error:
            assert "data.yaml" in str(error) or "a.txt" in str(error)
    assert read > 200
