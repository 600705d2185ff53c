# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""COCO files of objects against pycocotools' own reading of them, and against drawings made by hand."""

import copy
import json
import os
import pickle
import random
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from training.importing.coco import find_coco
from training.importing.painting import HIDDEN, Shape, draw_shapes
from training.importing.places import Photographs, name_photographs
from training.importing.sources import UNCOVERED, Listing


# pycocotools' own drawings, with which ours are compared.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = SIZE = (13, 17)
CATEGORIES = [{"id": 3, "name": "lake"}, {"id": 7, "name": "tree"}, {"id": 90, "name": "road"}]


def save_photograph(path, size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def save_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def coco_file(file_names, annotations, categories=CATEGORIES):
    images = [
        {"id": index, "file_name": name, "height": HEIGHT, "width": WIDTH} for index, name in enumerate(file_names)
    ]
    annotations = [{"id": index, "image_id": 0} | annotation for index, annotation in enumerate(annotations)]
    return {"images": images, "annotations": annotations, "categories": categories}


def one_photograph(folder, annotations, **changes):
    """A data set of one photograph, a.png."""
    save_photograph(folder / "a.png")
    content = coco_file(["a.png"], annotations)
    content["images"][0] |= changes
    save_json(folder / "labels.json", content)
    return find_coco(Listing(folder))


def draw(item):
    return item.draw(item.size or (HEIGHT, WIDTH)).keys


def square(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


@pytest.mark.filterwarnings("error")
def test_hand_made_drawing(tmp_path):
    source = one_photograph(
        tmp_path,
        [
            {"category_id": 3, "segmentation": [square(1, 1, 6, 4), square(8, 2, 9, 3)]},
            {"category_id": 90, "segmentation": [square(4, 2, 8, 6)]},
        ],
    )
    expected = np.full((HEIGHT, WIDTH), UNCOVERED)
    expected[1:4, 1:6] = 3
    expected[2, 8] = 3
    expected[2:6, 4:8] = 90  # later, and so over the lake
    np.testing.assert_array_equal(draw(source.items[0]), expected)
    assert draw(source.items[0]).dtype == np.int32
    assert source.names == {3: "lake", 7: "tree", 90: "road"}
    assert source.form == "COCO polygons"
    assert (source.items[0].name, source.items[0].split, source.items[0].size) == ("a", None, (HEIGHT, WIDTH))
    assert source.items[0].image == tmp_path / "a.png" and source.items[0].annotations == (tmp_path / "labels.json",)
    assert not source.notes and not source.left_out
    smaller = find_coco(Listing(tmp_path), overlaps="smaller")
    expected[2:4, 4:6] = 90  # 16 pixels, and the lake 16: the later one of equals
    np.testing.assert_array_equal(draw(smaller.items[0]), expected)


def random_annotations(rng, count):
    annotations = []
    for _ in range(count):
        annotation = {"category_id": int(rng.choice([3, 7, 90])), "iscrowd": 0}
        kind = rng.integers(3)
        if kind == 0:  # polygons that reach beyond the picture too
            parts = rng.uniform(-5, 22, (rng.integers(1, 4), 2 * rng.integers(3, 9))).round(2)
            annotation["segmentation"] = parts.tolist()
        else:
            pixels = np.asfortranarray(rng.random((HEIGHT, WIDTH)) < rng.random(), np.uint8)
            if kind == 1:
                runs = coco_mask.encode(pixels)
                annotation["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}
            else:
                flat = pixels.reshape(-1, order="F")
                edges = np.flatnonzero(np.diff(flat, prepend=0))
                counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
                annotation |= {"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}, "iscrowd": 1}
        annotations.append(annotation)
    return annotations


@pytest.mark.parametrize("seed", range(20))
def test_equals_pycocotools(tmp_path, seed):
    rng = np.random.default_rng(seed)
    source = one_photograph(tmp_path, random_annotations(rng, int(rng.integers(1, 9))))
    reference = COCO(tmp_path / "labels.json")
    expected = np.full((HEIGHT, WIDTH), UNCOVERED)
    for annotation in reference.loadAnns(reference.getAnnIds(imgIds=[0])):
        expected[reference.annToMask(annotation) > 0] = annotation["category_id"]
    np.testing.assert_array_equal(draw(pickle.loads(pickle.dumps(source.items[0]))), expected)


def test_long_run_lengths_of_a_large_picture(tmp_path):
    # Numbers of several characters, and differences that are negative.
    pixels = np.zeros((301, 503), np.uint8)
    for row, column in np.random.default_rng(0).integers(0, 280, (40, 2)):
        pixels[row : row + 15, column : column + 200] ^= 1
    runs = coco_mask.encode(np.asfortranarray(pixels))
    runs["counts"] = runs["counts"].decode()
    source = one_photograph(tmp_path, [{"category_id": 7, "segmentation": runs}], height=301, width=503)
    np.testing.assert_array_equal(draw(source.items[0]) == 7, pixels == 1)
    assert source.form == "COCO run lengths"


@pytest.mark.parametrize("segmentation", [[], None, {}])
def test_box_alone_is_filled_and_told(tmp_path, segmentation):
    source = one_photograph(
        tmp_path, [{"category_id": 7, "segmentation": segmentation, "bbox": [2, "3", 5, 4.0]}, {"category_id": 3}]
    )
    assert source.items == [] and "neither" in source.left_out[0]  # the second has nothing at all
    source = one_photograph(tmp_path, [{"category_id": 7, "segmentation": segmentation, "bbox": [2, "3", 5, 4.0]}])
    expected = np.full((HEIGHT, WIDTH), UNCOVERED)
    expected[3:7, 2:7] = 7
    np.testing.assert_array_equal(draw(source.items[0]), expected)
    assert source.form == "COCO boxes"
    assert source.notes == ["1 objects have a box alone; it is filled."]


def test_degenerate_shapes(tmp_path):
    source = one_photograph(
        tmp_path,
        [
            {"category_id": 3, "segmentation": [[1, 1, 9, 9]]},  # pycocotools would take it for a box
            {"category_id": 3, "segmentation": [], "bbox": [1, 1, 0, 5]},
            {"category_id": 3, "segmentation": [], "bbox": [1, 1, 5, 0]},
            {"category_id": 7, "segmentation": [[1, 1], square(2, 2, 4, 4)]},
            {"category_id": 90, "segmentation": square(10, 10, 100, 12), "iscrowd": 1},  # without the outer list
        ],
    )
    expected = np.full((HEIGHT, WIDTH), UNCOVERED)
    expected[2:4, 2:4] = 7
    expected[10:12, 10:] = 90
    np.testing.assert_array_equal(draw(source.items[0]), expected)
    notes = " ".join(source.notes)
    assert "3 objects have outlines of fewer than 3 points" in notes
    assert "1 objects reach beyond their picture" in notes and "1 regions are marked as crowds" in notes


@pytest.mark.parametrize(
    ("box", "is_beyond"),
    [
        ((0, 0, WIDTH, HEIGHT), False),
        ((-1, -1, WIDTH + 1, HEIGHT + 1), False),  # as rounding explains
        ((-1.5, 2, 5, 5), True),
        ((2, -1.5, 5, 5), True),
        ((2, 2, WIDTH + 1.5, 5), True),
        ((2, 2, 5, HEIGHT + 1.5), True),
    ],
)
def test_objects_that_reach_beyond_their_picture_are_told(tmp_path, box, is_beyond):
    source = one_photograph(tmp_path, [{"category_id": 7, "segmentation": [square(*box)]}])
    assert any("reach beyond" in note for note in source.notes) == is_beyond


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"segmentation": [[1, 1, 5, float("nan"), 5, 5]]}, "finite"),
        ({"segmentation": [[1, 1, 5, None, 5, 5]]}, "finite"),
        ({"segmentation": [[1, 1, 5, "x", 5, 5]]}, "something else than numbers is in its segmentation"),
        ({"segmentation": [[1, 1, 5, 1, 5, 5, 3]]}, "odd"),
        ({"segmentation": [[1, 1], [5, 1], [5, 5]]}, "list of points"),
        ({"segmentation": [[[1, 1], [5, 1], [5, 5]]]}, "numbers of shape (3, 2)"),
        ({"segmentation": [[1, 1, 5e9, 1, 5, 5]]}, "far outside"),
        ({"segmentation": [[1e30, 1, 1e30, 1, 1e30, 5]]}, "far outside"),
        ({"segmentation": [[0, 0, 160, 0] * 13_000]}, "pixels long"),
        ({"segmentation": "polygon"}, "neither polygons"),
        ({"segmentation": 5}, "neither polygons"),
        ({"segmentation": {"counts": [1]}}, "size"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [3, 4]}}, "add up"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]}}, "add up"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [0.5, HEIGHT * WIDTH - 0.5]}}, "add up"),
        ({"segmentation": {"size": [HEIGHT + 0.5, WIDTH], "counts": [HEIGHT * WIDTH]}}, "it is height, width"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": ""}}, "add up"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "\ud800"}}, "no compressed"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "oo"}}, "middle of a number"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "é"}}, "no compressed"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "p"}}, "no compressed"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "/"}}, "no compressed"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "o" * 99 + "0"}}, "no compressed"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": None}}, "numbers"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}}, "the picture is of"),
        ({"bbox": [1, 2, -3, 4]}, "x, y, width"),
        ({"bbox": [1, 2, 3]}, "x, y, width"),
        ({"segmentation": [square(1, 1, 3, 3)], "category_id": 4}, "not listed"),
        ({"segmentation": [square(1, 1, 3, 3)], "category_id": None}, "not listed"),
    ],
)
def test_photograph_of_an_object_that_cannot_be_drawn_is_left_out(tmp_path, changes, said):
    source = one_photograph(tmp_path, [{"category_id": 7} | changes])
    assert source.items == []
    assert len(source.left_out) == 1 and said in source.left_out[0] and "a.png" in source.left_out[0]
    assert "annotation 0" in source.left_out[0] and "labels.json" in source.left_out[0]


def test_ids_of_all_kinds(tmp_path):
    for name in ("a.png", "b.png", "c.png", "d.png"):
        save_photograph(tmp_path / name)
    content = coco_file(["a.png", "b.png"], [])
    content["images"] += [
        {"id": "text", "file_name": "c.png"},
        {"id": 0, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},  # again
        {"id": 9, "file_name": "d.png"},
        {"id": 9, "file_name": "e.png"},
        {"id": None, "file_name": "a.png"},
        {"id": 10, "file_name": None},
        {"id": 11, "file_name": "a.png", "width": "wide", "height": 3},
        {"id": 12, "file_name": "a.png", "width": 20_000, "height": 20_000},
        None,
    ]
    lake = {"category_id": "3", "segmentation": [square(0, 0, 5, 5)]}
    content["annotations"] = [
        {"image_id": "1"} | lake,
        {"image_id": "text", "category_id": 7.0, "segmentation": [square(0, 0, 5, 5)]},
        {"image_id": 9} | lake,
        {"image_id": 77} | lake,
        {"image_id": [1]} | lake,
        None,
        "annotation",
    ]
    save_json(tmp_path / "labels.json", content)
    source = find_coco(Listing(tmp_path))
    assert [(item.name, sorted(np.unique(draw(item)))) for item in source.items] == [
        ("a", [UNCOVERED]),
        ("b", [UNCOVERED, 3]),
        ("c", [UNCOVERED, 7]),
    ]
    assert source.items[2].size is None
    left_out = "\n".join(source.left_out)
    assert "'d.png': labels.json has several images of the id 9" in left_out
    assert "'e.png': labels.json has several images of the id 9" in left_out
    for entry in (6, 7, 8, 9, 10):
        assert f"labels.json, entry {entry} of images: " in left_out
    notes = "\n".join(source.notes)
    assert "4 annotations belong to no image" in notes
    assert "1 photographs are listed without annotations" in notes


def test_one_entry_per_object(tmp_path):
    save_photograph(tmp_path / "a.png")
    content = coco_file(
        ["a.png", "a.png"],
        [
            {"category_id": 3, "segmentation": [square(0, 0, 2, 2)]},
            {"image_id": 1, "category_id": 7, "segmentation": [square(4, 4, 6, 6)]},
        ],
    )
    save_json(tmp_path / "labels.json", content)
    source = find_coco(Listing(tmp_path))
    assert len(source.items) == 1 and set(np.unique(draw(source.items[0]))) == {UNCOVERED, 3, 7}
    assert "1 images are listed more than once" in source.notes[0]


def test_entries_of_one_photograph_that_differ_in_size(tmp_path):
    save_photograph(tmp_path / "a.png")
    content = coco_file(["a.png", "a.png"], [])
    content["images"][1]["height"] = HEIGHT + 1
    save_json(tmp_path / "labels.json", content)
    source = find_coco(Listing(tmp_path))
    assert source.items == [] and "different sizes" in source.left_out[0]


def test_photographs_beside_the_folder_of_annotations(tmp_path):
    for place in ("set/images/a.png", "set/other/a.png"):
        save_photograph(tmp_path / place)
    save_json(tmp_path / "set" / "annotations" / "labels.json", coco_file(["a.png"], []))
    assert [item.image for item in find_coco(Listing(tmp_path)).items] == [tmp_path / "set" / "images" / "a.png"]


def test_categories_of_a_file(tmp_path):
    save_photograph(tmp_path / "a.png")
    categories = [
        {"id": 4, "name": " Lake  water"},
        {"id": 0, "name": "tree"},
        {"id": 2, "name": "lake water"},
        {"id": -1, "name": "road"},
        {"id": "x", "name": None},
    ]
    objects = [
        {"category_id": value, "segmentation": [square(3 * index, 0, 3 * index + 2, 2)]}
        for index, value in enumerate([4, 0, 2, -1, "x"])
    ]
    save_json(tmp_path / "labels.json", coco_file(["a.png"], objects, categories))
    source = find_coco(Listing(tmp_path))
    keys = [draw(source.items[0])[0, 3 * index] for index in range(5)]
    lake, tree, _, road, nameless = keys
    assert keys[2] == lake == 2 and tree == 0
    assert len({lake, tree, road, nameless, UNCOVERED}) == 5 and min(keys) >= 0
    assert source.names == {road: "road", tree: "tree", lake: "lake water"}
    assert any("2 and 4 are both called" in note for note in source.notes)
    assert any("Category x of labels.json has no name" in note for note in source.notes)
    categories[1]["id"] = 4
    save_json(tmp_path / "labels.json", coco_file(["a.png"], [], categories))
    with pytest.raises(ValueError, match=r"labels\.json has two categories of the id 4"):
        find_coco(Listing(tmp_path))


def test_roboflow_export(tmp_path):
    # Names by https://github.com/roboflow/roboflow-100-benchmark/issues/45, and one class called as its project.
    categories = [
        {"id": 0, "name": "peixos", "supercategory": "none"},
        {"id": 1, "name": "peix", "supercategory": "peixos"},
        {"id": 2, "name": "peixos", "supercategory": "peixos"},
    ]
    for split, key in (("train", 1), ("valid", 2), ("test", 1)):
        save_photograph(tmp_path / split / "a_jpg.rf.0.jpg")
        objects = [{"category_id": key, "segmentation": [square(0, 0, 5, 5)]}]
        save_json(tmp_path / split / "_annotations.coco.json", coco_file(["a_jpg.rf.0.jpg"], objects, categories))
    source = find_coco(Listing(tmp_path))
    assert source.names == {1: "peix", 2: "peixos"}
    found = {item.split: (item.image, draw(item)[0, 0]) for item in source.items}
    assert found == {
        split: (tmp_path / folder / "a_jpg.rf.0.jpg", key)
        for split, folder, key in (("training", "train", 1), ("validation", "valid", 2), ("test", "test", 1))
    }
    assert source.notes == ["Category 0, 'peixos', is no class: it only groups others, and no object has it."]
    # Where it occurs, it stays.
    objects = [{"category_id": 0, "segmentation": [square(0, 0, 5, 5)]}]
    categories[2]["name"] = "other"
    save_json(tmp_path / "test" / "_annotations.coco.json", coco_file(["a_jpg.rf.0.jpg"], objects, categories))
    assert 0 in find_coco(Listing(tmp_path)).names


def coco_tree(folder):
    """The folder of COCO 2017: photographs of one name in both splits."""
    for split in ("train", "val"):
        save_photograph(folder / f"{split}2017" / "a.jpg")
        objects = [{"category_id": 3 if split == "train" else 7, "segmentation": [square(0, 0, 5, 5)]}]
        save_json(folder / "annotations" / f"instances_{split}2017.json", coco_file(["a.jpg"], objects))


def test_coco_2017(tmp_path):
    coco_tree(tmp_path)
    annotations = tmp_path / "annotations"
    content = coco_file(["a.jpg"], [{"caption": "A lake."}])
    del content["categories"]
    save_json(annotations / "captions_val2017.json", content)
    key_points = [{"id": 1, "name": "person", "keypoints": ["nose"], "skeleton": []}]
    objects = [{"category_id": 1, "segmentation": [square(0, 0, 5, 5)], "keypoints": [1, 1, 2]}]
    save_json(annotations / "person_keypoints_val2017.json", coco_file(["a.jpg"], objects, key_points))
    save_json(
        annotations / "panoptic_val2017.json", coco_file(["a.jpg"], [{"segments_info": [], "file_name": "a.png"}])
    )
    save_json(annotations / "image_info_test2017.json", coco_file(["z.jpg"], []) | {"annotations": None})
    save_json(annotations / "results.json", [{"image_id": 0, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}])
    save_json(annotations / "settings.json", {"images": "a folder"})
    source = find_coco(Listing(tmp_path))
    assert {item.split: (item.image, item.name, draw(item)[0, 0]) for item in source.items} == {
        "training": (tmp_path / "train2017" / "a.jpg", "a", 3),
        "validation": (tmp_path / "val2017" / "a.jpg", "a", 7),
    }
    notes = "\n".join(source.notes)
    for file, said in [
        ("captions_val2017", "holds captions"),
        ("person_keypoints_val2017", "key points"),
        ("panoptic_val2017", "panoptic"),
        ("image_info_test2017", "without annotations"),
        ("results", "results of a model"),
    ]:
        assert any(f"annotations/{file}.json is passed over: " in note and said in note for note in source.notes), (
            notes
        )
    assert len(source.notes) == 5
    for split in ("train", "val"):
        (annotations / f"instances_{split}2017.json").unlink()
    assert find_coco(Listing(tmp_path)).names == {1: "person"}  # nothing else has outlines


def test_ids_of_files_that_differ(tmp_path):
    coco_tree(tmp_path)
    categories = [{"id": 3, "name": "road"}, {"id": 7, "name": "Lake"}, {"id": 8, "name": "cow"}]
    objects = [
        {"category_id": key, "segmentation": [square(4 * index, 0, 4 * index + 3, 3)]}
        for index, key in enumerate([3, 7, 8])
    ]
    save_json(tmp_path / "annotations" / "instances_val2017.json", coco_file(["a.jpg"], objects, categories))
    source = find_coco(Listing(tmp_path))
    keys = draw(next(item for item in source.items if item.split == "validation"))[0, [0, 4, 8]].tolist()
    assert [source.names[key] for key in keys] == ["road", "lake", "cow"]
    assert source.names == {3: "lake", 7: "tree", 90: "road", 8: "cow"} and list(source.names) == [3, 7, 90, 8]
    assert any("has the id 7 for 'Lake', others 3" in note for note in source.notes)


def test_file_of_all_beside_those_of_splits(tmp_path):
    coco_tree(tmp_path)
    objects = [
        {"category_id": 3, "segmentation": [square(0, 0, 5, 5)]},
        {"image_id": 1, "category_id": 7, "segmentation": [square(0, 0, 5, 5)]},
    ]
    content = coco_file(["train2017/a.jpg", "val2017/a.jpg"], objects)
    save_json(tmp_path / "all.json", content)
    source = find_coco(Listing(tmp_path))
    assert [item.split for item in source.items] == ["training", "validation"]
    assert sum("each is taken once" in note for note in source.notes) == 2
    content["annotations"][1]["category_id"] = 90
    save_json(tmp_path / "all.json", content)
    with pytest.raises(
        ValueError, match=r"all\.json and .*instances_val2017\.json annotate val2017/a\.jpg differently"
    ):
        find_coco(Listing(tmp_path))
    # A file that only lists the photograph contradicts nobody.
    content["annotations"].pop()
    save_json(tmp_path / "all.json", content)
    assert [draw(item)[0, 0] for item in find_coco(Listing(tmp_path)).items] == [3, 7]


def test_photograph_in_two_splits(tmp_path):
    save_photograph(tmp_path / "images" / "a.png")
    for split in ("train", "val"):
        objects = [{"category_id": 3, "segmentation": [square(0, 0, 5, 5)]}]
        save_json(tmp_path / f"{split}.json", coco_file(["a.png"], objects))
    source = find_coco(Listing(tmp_path))
    assert [item.split for item in source.items] == ["training"]
    assert any("1 photographs stand in more than one split" in note for note in source.notes)
    (tmp_path / "val.json").rename(tmp_path / "all.json")
    source = find_coco(Listing(tmp_path))
    assert [item.split for item in source.items] == ["training"]
    assert not any("more than one split" in note for note in source.notes)


@pytest.mark.parametrize(
    ("file_name", "found"),
    [
        ("a.jpg", "images/a.jpg"),  # before val/a.jpg: the JSON tells no split
        ("./images/a.jpg", "images/a.jpg"),
        ("../val/a.jpg", "val/a.jpg"),
        ("val\\a.jpg", "val/a.jpg"),
        ("C:\\data\\val\\a.jpg", "val/a.jpg"),
        ("/mnt/photos/val/a.jpg", "val/a.jpg"),
        ("/mnt/photos/a.jpg", "images/a.jpg"),
        ("b.jpg", "deep/city/b.jpg"),
        ("elsewhere/b.jpg", "deep/city/b.jpg"),
        ("B.JPG", "deep/city/b.jpg"),
        ("c.jpg", None),  # two of the name
        ("one/c.jpg", "deep/one/c.jpg"),
        ("../../etc/d.jpg", None),
        ("", None),
        ("..", None),
        ("nul\0.jpg", None),
        ("annotations/labels.json", None),
    ],
)
def test_where_photographs_are_looked_for(tmp_path, file_name, found):
    root = tmp_path / "root"
    for place in ("images/a.jpg", "val/a.jpg", "deep/city/b.jpg", "deep/one/c.jpg", "deep/two/c.jpg"):
        save_photograph(root / place)
    save_photograph(tmp_path / "etc" / "d.jpg")
    save_json(root / "annotations" / "labels.json", coco_file([file_name], []))
    source = find_coco(Listing(root))
    assert [item.image for item in source.items] == ([root / found] if found else [])
    told = [line for line in source.left_out if "nothing annotates it" not in line]
    assert len(told) == (not found)
    assert f"{found}: nothing annotates it" not in source.left_out
    assert len(source.left_out) - len(told) == 5 - bool(found)


def test_name_of_another_folder_is_no_guess(tmp_path):
    # rome/1.png is not there; paris/1.png, the only other file of this name, is another photograph.
    save_photograph(tmp_path / "paris" / "1.png")
    save_json(tmp_path / "labels.json", coco_file(["paris/1.png", "rome/1.png"], []))
    source = find_coco(Listing(tmp_path))
    assert source.items == [] and "it may be each of 'paris/1.png', 'rome/1.png'" in source.left_out[0]


def test_two_absolute_names_of_one_photograph_are_no_guess(tmp_path):
    save_photograph(tmp_path / "images" / "1.png")
    save_json(tmp_path / "labels.json", coco_file(["/data/paris/1.png", "C:\\data\\rome\\1.png"], []))
    source = find_coco(Listing(tmp_path))
    assert source.items == [] and "it may be each of 'data/paris/1.png', 'data/rome/1.png'" in source.left_out[0]
    # The same name in two spellings is one.
    save_json(tmp_path / "labels.json", coco_file(["./images/1.png", "images\\1.png"], []))
    assert [item.name for item in find_coco(Listing(tmp_path)).items] == ["1"]


def test_cvat_and_labelme2coco(tmp_path):
    save_photograph(tmp_path / "cvat" / "images" / "default" / "a.png")
    save_json(tmp_path / "cvat" / "annotations" / "instances_default.json", coco_file(["a.png"], []))
    item = find_coco(Listing(tmp_path / "cvat")).items[0]
    assert item.image == tmp_path / "cvat" / "images" / "default" / "a.png" and item.split is None
    save_photograph(tmp_path / "labelme" / "JPEGImages" / "a.jpg")
    save_json(tmp_path / "labelme" / "annotations.json", coco_file(["JPEGImages\\a.jpg"], []))
    item = find_coco(Listing(tmp_path / "labelme")).items[0]
    assert item.image == tmp_path / "labelme" / "JPEGImages" / "a.jpg"
    assert not item.draw((HEIGHT, WIDTH)).keys.max() > UNCOVERED


def test_run_lengths_of_another_size_than_drawn(tmp_path):
    runs = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
    source = one_photograph(tmp_path, [{"category_id": 7, "segmentation": runs}], height=None, width=None)
    with pytest.raises(ValueError, match=r"labels\.json, a\.png: run lengths of 17 x 13 pixels"):
        source.items[0].draw((WIDTH, HEIGHT))
    assert (source.items[0].draw((HEIGHT, WIDTH)).keys == 7).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"images": [], "annotations": [], "categories": [' + b"[" * 100_000, "no valid JSON"),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1, "na', "no valid JSON"),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "\xe9t\xe9"}]}', "UTF-8"),
        (b'{"images": [], "annotations": [], "categories": [{"id": ' + b"1" * 5000 + b"}]}", "no valid JSON"),
        (b'{"images": [], "annotations": [], "categories": [{"name": "lake"}]}', "has no id"),
    ],
)
def test_broken_json(tmp_path, text, said):
    (tmp_path / "labels.json").write_bytes(text)
    with pytest.raises(ValueError, match=rf"labels\.json.*{said}"):
        find_coco(Listing(tmp_path))


def test_other_encodings_and_other_json(tmp_path):
    save_photograph(tmp_path / "a.png")
    text = json.dumps(coco_file(["a.png"], []))
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "labels.json").write_text(text, encoding=encoding)
        assert len(find_coco(Listing(tmp_path)).items) == 1
    for other in ("", "[[[", "[]", "null", '{"version": "5.0", "shapes": [], "imagePath": "a.png"}'):
        (tmp_path / "labels.json").write_text(other)
        assert find_coco(Listing(tmp_path)) is None


def damage(value, rng):
    """Change one place, anywhere in a JSON value."""
    replacements = [
        None,
        -1,
        0,
        1e30,
        float("nan"),
        "",
        "\ud800",
        "7",
        [],
        {},
        [[]],
        True,
        "../a",
        2**70,
        [None],
        {"id": 1},
    ]
    while isinstance(value, list | dict) and value:
        place = rng.choice(range(len(value)) if isinstance(value, list) else list(value))
        if rng.random() < 0.3 or not isinstance(value[place], list | dict):
            if rng.random() < 0.2:
                del value[place]
            else:
                value[place] = copy.deepcopy(rng.choice(replacements))
            return
        value = value[place]


def test_damaged_files_raise_no_other_errors(tmp_path):
    save_photograph(tmp_path / "a.png")
    save_photograph(tmp_path / "b.png")
    rng = random.Random(0)
    whole = coco_file(["a.png", "b.png"], random_annotations(np.random.default_rng(1), 6))
    read = 0
    for _ in range(600):
        content = copy.deepcopy(whole)
        for _ in range(rng.randint(1, 3)):
            damage(content, rng)
        text = json.dumps(content)
        if rng.random() < 0.1:
            text = text[: rng.randrange(len(text))]
        (tmp_path / "labels.json").write_text(text)
        try:
            source = find_coco(Listing(tmp_path))
            for item in source.items if source else ():
                "\n".join([*source.notes, *source.left_out]).encode()
                keys = draw(item)
                assert keys.shape == (item.size or SIZE) and keys.dtype == np.int32 and keys.min() >= UNCOVERED
            read += source is not None
        except (ValueError, OSError) as error:
            assert "labels.json" in str(error)
    assert read > 200


def test_named_pipe(tmp_path):
    os.mkfifo(tmp_path / "labels.json")
    with pytest.raises(OSError, match=r"labels\.json.*named pipe"):
        find_coco(Listing(tmp_path))


# Painting, and places.


def naive_painting(size, shapes, overlaps):
    order = list(range(len(shapes)))
    if overlaps == "smaller":
        order.sort(key=lambda index: -shapes[index][1].sum())
    keys = np.full(size, UNCOVERED)
    owner = np.full(size, -1)
    for row in range(size[0]):
        for column in range(size[1]):
            for index in order:
                if shapes[index][1][row, column]:
                    keys[row, column], owner[row, column] = shapes[index][0], index
    hidden = sum(bool(pixels.any()) and not (owner == index).any() for index, (_, pixels) in enumerate(shapes))
    return keys, hidden


@pytest.mark.parametrize("overlaps", ["later", "smaller"])
def test_painting(overlaps):
    rng = np.random.default_rng(0)
    for _ in range(60):
        size = tuple(rng.integers(1, 9, 2).tolist())
        shapes = [(int(rng.integers(5)), rng.random(size) < rng.random()) for _ in range(rng.integers(0, 6))]
        rendered = [Shape(key, lambda size, pixels=pixels: pixels) for key, pixels in shapes]
        drawing = draw_shapes(size, rendered, overlaps)
        keys, hidden = naive_painting(size, shapes, overlaps)
        np.testing.assert_array_equal(drawing.keys, keys)
        assert drawing.remarks == ({HIDDEN: hidden} if hidden else {})


def test_names_of_photographs():
    files = [PurePosixPath(file) for file in ("x/train/rome/a.jpg", "x/train/b.c.jpg", "x/val/a.png", "x/val/a.jpg")]
    assert name_photographs(files, ["train", "train", "val", "val"]) == ["rome/a", "b.c", "a_png", "a_jpg"]
    assert name_photographs(files, [None] * 4) == ["train/rome/a", "train/b.c", "val/a_png", "val/a_jpg"]
    assert name_photographs([PurePosixPath("a.jpg")], [None]) == ["a"]


def find(root, named, *folders):
    return Photographs(Listing(root)).find(named, [[PurePosixPath(folder)] for folder in folders]).as_posix()


def test_which_photograph_is_meant(tmp_path):
    for place in ("x/one/a.PNG", "y/one/a.PNG", "y/one/A.png", "y/two/a.png", "images/b.png", "z/images/b.png"):
        save_photograph(tmp_path / place)
    assert find(tmp_path, "one/a.PNG", "x", "y") == "x/one/a.PNG"
    assert find(tmp_path, "one/a.png", "z", "x", "y") == "x/one/a.PNG"
    assert find(tmp_path, "two/a.png", "x") == "y/two/a.png"
    assert find(tmp_path, "one/../two/a.png", "x", "y") == "y/two/a.png"
    assert find(tmp_path, "y/one/A.png") == "y/one/A.png"  # another differs in case alone
    assert find(tmp_path, "one/A.png") == "y/one/A.png"
    # As it is written in the second folder, before another case in the first.
    assert find(tmp_path, "one/A.png", "x", "y") == "y/one/A.png"
    assert find(tmp_path, "/data/z/images/b.png", "x") == "z/images/b.png"
    assert find(tmp_path, "/data/images/b.png", ".") == "images/b.png"
    assert find(tmp_path, "C:\\data\\images\\b.png", ".") == "images/b.png"
    assert find(tmp_path, "\\\\server\\share\\B.png", "z/images") == "z/images/b.png"
    for named, folders in [
        ("y/one/a.Png", ["."]),  # two in another case
        ("b.png", []),
        ("elsewhere/b.png", ["images"]),  # not there; which of two others it is, a folder does not tell
        ("../images/b.png", ["."]),  # outside, and two have this ending
    ]:
        with pytest.raises(ValueError, match="several pictures are called"):
            find(tmp_path, named, *folders)
    for named in ("c.png", "../b.jpg", 3, "", "/", "..", "./", "C:\\"):
        with pytest.raises(ValueError, match="not there|name of a file"):
            find(tmp_path, named, ".", "images")


def test_of_folders_that_count_the_same_only_one_may_have_it(tmp_path):
    for place in ("p/a.png", "q/a.png", "q/b.png"):
        save_photograph(tmp_path / place)
    photographs = Photographs(Listing(tmp_path))
    folders = [PurePosixPath("p"), PurePosixPath("q")]
    with pytest.raises(ValueError, match=r"called 'a\.png': p/a\.png, q/a\.png"):
        photographs.find("a.png", [folders])
    assert photographs.find("b.png", [folders]) == PurePosixPath("q/b.png")
    assert photographs.unclaimed == [PurePosixPath("p/a.png"), PurePosixPath("q/a.png")]


def test_photographs_outside_are_never_found(tmp_path):
    save_photograph(tmp_path / "a.png")
    (tmp_path / "root").mkdir()
    for name in (str(tmp_path / "a.png"), "../a.png"):
        with pytest.raises(ValueError, match="not there"):
            Photographs(Listing(tmp_path / "root")).find(name, [[PurePosixPath(".")]])
