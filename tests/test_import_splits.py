# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Photographs go to training and validation as folders and lists say, or as a share is drawn from groups."""

from pathlib import Path, PurePosixPath

import pytest

from training.importing.sources import Item, Listing
from training.importing.splits import (
    find_lists,
    find_split,
    find_splits_of_names,
    split_by_share,
    split_of_file,
    split_of_folders,
)
from training.importing.words import split_in


def make_items(*names: str) -> list[Item]:
    return [Item(Path(f"/data/{name}"), (), draw=None, name=name.rsplit(".", 1)[0]) for name in names]


TEN = make_items(*(f"images/{index:03}_image.png" for index in range(1, 11)))


def split_numbers(folder: Path, items: list[Item] = TEN) -> dict[str, list[int]]:
    splits, _ = find_lists(Listing(folder), items)
    return {split: [items.index(item) + 1 for item in found] for split, found in splits.items()}


LISTS = {
    "stems": {"train.txt": "001_image\n003_image\n", "val.txt": "002_image\n"},
    "names of files": {"lists/train.txt": "001_image.png\n003_image.png\n", "lists/val.txt": "002_image.png\n"},
    "paths": {"train.txt": "./images/001_image.png\n./images/003_image.png", "valid.txt": "images/002_image.png"},
    "Windows": {"train.txt": "images\\001_image.png\r\nimages\\003_image.png\r\n", "val.txt": "images\\002_image.png"},
    "pairs with masks": {
        "train.txt": "images/001_image.png masks/001.png\nimages/003_image.png masks/003.png\n",
        "val.txt": "images/002_image.png masks/002.png\n",
    },
    "labels behind names": {
        "training.txt": "001_image 1 1 2\n003_image 1 2 1\n",
        "validation.txt": "002_image 5 2 1\n",
    },
    "YAML of numbers": {"split.yaml": "train: [1, 3]\nval: [2]\n"},
    "YAML of names": {"split.yml": "train:\n- 001_image\n- 003_image\nval:\n- 002_image.png\n"},
    "a column": {"metadata.csv": "file,split\n001_image.png,train\n002_image.png,val\n003_image.png,train\n"},
    "another order": {"info.csv": "set;weather;id\nTrain;rain;1\nValid;sun;2\nTrain;sun;3\n"},
    "a list of all beside": {
        "all.txt": "".join(f"{index:03}_image\n" for index in range(1, 11)),
        "train.txt": "001_image\n003_image\n",
        "val.txt": "002_image\n",
    },
    "VOC": {
        "ImageSets/Segmentation/train.txt": "001_image\n003_image\n",
        "ImageSets/Segmentation/val.txt": "002_image\n",
        "ImageSets/Segmentation/trainval.txt": "001_image\n002_image\n003_image\n",
        "ImageSets/Main/train.txt": "002_image\n",  # other tasks have other parts
        "ImageSets/Main/val.txt": "001_image\n003_image\n",
    },
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_every_form(tmp_path, name):
    for file, text in LISTS[name].items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(text.encode())
    assert split_numbers(tmp_path) == {"training": [1, 3], "validation": [2]}


def test_a_joint_list_is_for_training_where_another_is_for_tests(tmp_path):
    (tmp_path / "trainval.txt").write_text("001_image\n002_image\n")
    (tmp_path / "test.txt").write_text("003_image\n")
    assert split_numbers(tmp_path) == {"test": [3], "training": [1, 2]}


def test_photographs_of_two_lists_are_refused(tmp_path):
    (tmp_path / "train.txt").write_text("001_image\n002_image\n")
    (tmp_path / "val.txt").write_text("002_image\n")
    with pytest.raises(
        ValueError, match="1 photographs both for training and for validation, such as images/002_image"
    ):
        find_lists(Listing(tmp_path), TEN)


@pytest.mark.parametrize(
    "files",
    [
        {"train.txt": "these are notes\non how to train\n"},
        {"train.txt": "101_image\n102_image\n001_image\n"},  # of another data set, mostly
        {"README.txt": "001_image\n"},
        {"split.yaml": "train: &a [*a]\n"},
        {"split.yaml": "["},
        {"train.txt": b"\xff\xfe\x00\xd8"},
        {"train.txt": ""},
    ],
)
def test_what_is_no_list_says_nothing(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert split_numbers(tmp_path) == {}


def test_a_name_that_several_photographs_have_is_not_guessed(tmp_path):
    items = make_items("a/1.png", "b/1.png", "a/2.png")
    (tmp_path / "train.txt").write_text("a/1.png\na/2.png\n")
    (tmp_path / "val.txt").write_text("1\n")
    splits, _ = find_lists(Listing(tmp_path), items)
    assert {split: [item.name for item in found] for split, found in splits.items()} == {"training": ["a/1", "a/2"]}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_train2017", "training"),
        ("instances_default", None),
        ("train_val", "training"),
        ("Valid", "validation"),
        ("valid_dev", "validation"),
        ("my-test.set", "test"),
        ("training", "training"),
        ("trains", None),
        ("2017", None),
        ("", None),
    ],
)
def test_words_of_names(name, split):
    assert split_in(name) == split
    assert split_of_folders(PurePosixPath("train", name, "test.png")) == (split or "training")
    photograph = PurePosixPath("test", "x", "a.png")
    assert split_of_file(PurePosixPath("val", f"{name}.json"), photograph) == (split or "validation")
    assert split_of_file(PurePosixPath(f"{name}.json"), photograph) == (split or "test")


def test_names_of_photographs_say_their_split_if_all_do():
    items = make_items("a/train_1.bmp", "a/train_2.bmp", "a/testA_1.bmp", "a/testB_1.bmp")
    assert find_splits_of_names(items) == {"training": items[:2], "test": items[2:]}
    assert find_splits_of_names(items[:2]) == find_splits_of_names([*items, *make_items("a/7.bmp")]) == {}


def test_words_of_splits():
    assert find_split("valid") == find_split("val2017") == "validation" and find_split("city") is None
    assert split_in("trainannot") == split_in("trainImages") == split_in("train_val") == "training"
    assert (
        split_in("TestSet1") == split_in("testA") == "test" and split_in("trained") is split_in("idtrainval7") is None
    )
    assert split_in("train_labels") == "training" and split_in("train_or_test") is None
    assert split_of_folders(PurePosixPath("gtFine/val/ulm/1.png")) == "validation"
    assert split_of_folders(PurePosixPath("train.png")) is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_a_share_takes_whole_groups(seed, share):
    items = make_items(*(f"{index:03}.png" for index in range(60)))
    groups = [index // 3 for index in range(60)]
    training, validation = split_by_share(items, groups.__getitem__, share, seed)
    assert sorted(item.name for item in training + validation) == [item.name for item in items]
    parts = [{groups[items.index(item)] for item in part} for part in (training, validation)]
    assert parts[0].isdisjoint(parts[1])
    assert abs(len(validation) - 60 * share) <= 1.5
    assert split_by_share(items, groups.__getitem__, share, seed) == (training, validation)


def test_another_seed_draws_others():
    drawn = {tuple(item.name for item in split_by_share(TEN, lambda i: i, 0.3, seed)[1]) for seed in range(5)}
    assert len(drawn) > 1


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_both_parts_have_a_group_at_least(share):
    training, validation = split_by_share(TEN, lambda position: position, share, 0)
    assert training and validation


def test_one_group_cannot_be_parted():
    with pytest.raises(ValueError, match=r"All 10 photographs belong together .*--group_by"):
        split_by_share(TEN, lambda position: 0, 0.2, 0)
