# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The data sets: what they hold, what they refuse, and what they remember."""

import json
import multiprocessing
import os
import re
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from training.data import findings, rows, segmentation_folder
from training.data.class_names import read_class_names
from training.data.files import find_rare, without_path
from training.data.load import SegmentationData, load_data
from training.data.segmentation_folder import SegmentationFolder
from training.data.transforms import read_image, read_mask, with_encoded


STREET_SCENES = Path(__file__).parents[2] / "shared" / "street-scenes"
NAMES = ["sky", "road", "traffic light"]


def write_pair(folder: Path, name: str, mask: PIL.Image.Image, size=None, split="training", suffix=".jpg"):
    for kind in ("images", "annotations"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size or mask.size, (10, 20, 30)).save(folder / "images" / split / f"{name}{suffix}")
    mask.save(folder / "annotations" / split / f"{name}.png")


def as_mask(values) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.array(values, dtype=np.uint8))


def noise(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def load_training(folder, num_labels=3, **kwargs) -> Dataset:
    return SegmentationFolder(folder, "training", num_labels, **kwargs).load()


@pytest.fixture
def checked(monkeypatch) -> list[str]:
    """The masks that are checked from now on."""
    names = []
    examine_pair = findings.examine_pair

    def examine(image, mask, image_name, mask_name, *args):
        names.append(mask_name)
        return examine_pair(image, mask, image_name, mask_name, *args)

    monkeypatch.setattr(segmentation_folder, "examine_pair", examine)
    monkeypatch.setattr(rows, "examine_pair", examine)
    return names


# -------------------------------------------------------------------------------------------------------- the folder


def test_pairs_are_found_by_name_and_sorted(tmp_path):
    write_pair(tmp_path, "b", as_mask([[0, 1], [2, 255]]))
    write_pair(tmp_path, "a", as_mask([[1, 1], [1, 1]]), suffix=".png")
    dataset = load_training(tmp_path)
    assert dataset["name"][:] == ["a", "b"] and dataset["index"][:] == [0, 1]
    assert dataset.column_names == ["image", "annotation", "name", "index"]
    assert np.asarray(dataset[1]["annotation"]).tolist() == [[0, 1], [2, 255]]
    # The pictures stay where they are.
    raw = dataset.cast_column("image", Image(decode=False))[0]["image"]
    assert raw == {"path": str(tmp_path / "images/training/a.png"), "bytes": None}


def test_masks_are_ids_in_every_mode(tmp_path):
    ids = np.array([[0, 1, 2], [255, 2, 0]])
    palette_image = as_mask(ids)
    palette_image.putpalette([value for i in range(256) for value in (255 - i, 7, 200)])
    write_pair(tmp_path, "palette", palette_image)
    write_pair(tmp_path, "grey", as_mask(ids))
    write_pair(tmp_path, "sixteen", PIL.Image.fromarray(ids.astype(np.uint16)))
    dataset = load_training(tmp_path)
    assert {PIL.Image.open(path).mode for path in (tmp_path / "annotations/training").iterdir()} == {"P", "L", "I;16"}
    for row in dataset:
        assert read_mask(row["annotation"]).tolist() == ids.tolist(), row["name"]


def test_colour_mask_is_refused(tmp_path):
    write_pair(tmp_path, "a", PIL.Image.new("RGB", (4, 3)))
    with pytest.raises(ValueError, match=r"a\.png has the mode RGB.*one id per pixel"):
        load_training(tmp_path)


def test_image_without_mask_and_mask_without_image_are_refused(tmp_path):
    write_pair(tmp_path, "a", as_mask([[0]]))
    write_pair(tmp_path, "b", as_mask([[0]]))
    (tmp_path / "annotations/training/a.png").unlink()
    with pytest.raises(ValueError, match=r"a\.jpg has no mask"):
        load_training(tmp_path)
    (tmp_path / "images/training/a.jpg").unlink()
    (tmp_path / "images/training/b.jpg").rename(tmp_path / "images/training/c.jpg")
    as_mask([[0]]).save(tmp_path / "annotations/training/c.png")
    with pytest.raises(ValueError, match=r"b\.png has no image"):
        load_training(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path):
    write_pair(tmp_path, "a", as_mask([[0]]))
    write_pair(tmp_path, "a", as_mask([[0]]), suffix=".png")
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png share a name"):
        load_training(tmp_path)


def test_different_sizes_are_refused(tmp_path):
    write_pair(tmp_path, "a", as_mask([[0, 1, 2]]), size=(4, 2))
    with pytest.raises(ValueError, match=r"a\.png has 3 x 1 pixels .*a\.jpg has 4 x 2"):
        load_training(tmp_path)


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("wrong", [3, 254])
def test_id_out_of_range_is_refused_and_named(tmp_path, wrong, num_workers):
    write_pair(tmp_path, "a", as_mask([[0, wrong, 255]]))
    with pytest.raises(ValueError, match=rf"a\.png holds the id {wrong}; with 3 classes .* \[0, 2\]") as raised:
        load_training(tmp_path, num_workers=num_workers)
    assert raised.tb is not None and not multiprocessing.active_children()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ids_are_checked_as_they_are_before_the_reduction(tmp_path, dtype):
    write_pair(tmp_path, "a", PIL.Image.fromarray(np.array([[0, 1, 3, 255]], dtype=dtype)))
    assert read_mask(load_training(tmp_path, reduce_labels=True)[0]["annotation"]).tolist() == [[0, 1, 3, 255]]
    with pytest.raises(ValueError, match=r"a\.png holds the id 3; .* \[0, 2\]"):
        load_training(tmp_path)
    with pytest.raises(ValueError, match=r"a\.png holds the id 3; .* \[1, 2\], and 0 and 255 are unlabelled"):
        load_training(tmp_path, num_labels=2, reduce_labels=True)


def test_id_above_255_is_refused(tmp_path):
    write_pair(tmp_path, "a", PIL.Image.fromarray(np.array([[0, 1, 258]], dtype=np.uint16)))
    with pytest.raises(ValueError, match=r"a\.png holds the id 258"):  # 2 in eight bits
        load_training(tmp_path)


def test_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_training(tmp_path)
    for kind in ("images", "annotations"):
        (tmp_path / kind / "training").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no"):
        load_training(tmp_path)


@pytest.mark.parametrize("kind, suffix", [("images", "jpg"), ("annotations", "png")])
def test_file_that_was_cut_off_is_refused(tmp_path, kind, suffix):
    write_pair(tmp_path, "a", as_mask(np.zeros((40, 60))))
    path = tmp_path / kind / "training" / f"a.{suffix}"
    if kind == "images":
        noise(60, 40).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"a\.{suffix} cannot be read"):
        load_training(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"a\.{suffix} cannot be read"):
        load_training(tmp_path)


def test_broken_png_is_refused(tmp_path):
    mask = as_mask(np.random.default_rng(0).integers(0, 256, (400, 400)))  # 160 kB, in three pieces
    write_pair(tmp_path, "a", mask)
    path = tmp_path / "annotations/training/a.png"
    start, piece, rest = path.read_bytes().partition(b"IDAT")
    path.write_bytes(start + piece + rest.replace(b"IDAT", bytes([0, 1, 2, 3])))
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image: broken PNG"):
        load_training(tmp_path)


def test_rotated_photograph_matches_its_upright_mask(tmp_path):
    write_pair(tmp_path, "a", as_mask(np.zeros((6, 4))))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (6, 4)).save(tmp_path / "images/training/a.jpg", exif=exif)
    row = load_training(tmp_path)[0]
    assert row["image"].size == row["annotation"].size == (4, 6)


def test_class_names(tmp_path):
    path = tmp_path / "classes.txt"
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_class_names(tmp_path)
    path.write_text("sky\n traffic light \n\n")
    assert read_class_names(tmp_path) == ["sky", "traffic light"]
    path.write_text("sky\n\nroad\n")
    with pytest.raises(ValueError, match="no name on line 2"):
        read_class_names(tmp_path)
    path.write_text("sky\nroad\nsky\n")
    with pytest.raises(ValueError, match="'sky' twice, again on line 3"):
        read_class_names(tmp_path)


@pytest.mark.skipif(not STREET_SCENES.is_dir(), reason="needs the photographs in ../shared/street-scenes")
def test_street_scenes_load():
    data = load_data(data_dir=STREET_SCENES, num_workers=2)
    names = data.class_names
    assert len(names) == 11 and names[6] == "sign symbol"
    assert data.name == "street-scenes" and data.palette is None and data.reduce_labels is False
    assert (len(data.train), len(data.validation)) == (120, 32)
    # The order is that of the names, whichever process was first.
    assert data.train["name"][:] == sorted(path.stem for path in (STREET_SCENES / "images/training").iterdir())
    assert data.train["index"][:] == list(range(120))
    with pytest.raises(ValueError, match=r"holds the id 10; with 10 classes"):
        SegmentationFolder(STREET_SCENES, "validation", 10).load()


# -------------------------------------------------------------------------------------------------- what is remembered


def test_folder_is_checked_once_until_it_changes(tmp_path, checked):
    folder = tmp_path / "data"
    for name in "ab":
        write_pair(folder, name, as_mask([[0, 1], [2, 255]]))
    mask = folder / "annotations/training/a.png"

    def checks(**kwargs) -> int:
        checked.clear()
        load_training(folder, cache_dir=tmp_path / "cache", **kwargs)
        return len(checked)

    assert checks() == 2
    assert checks() == 0
    assert checks(num_workers=2) == 0  # another number of workers makes no other result
    assert checks(num_labels=4) == 2 and checks() == 0
    assert checks(reduce_labels=True) == 2
    # Another content of the same size, at another time.
    status = mask.stat()
    as_mask([[0, 1], [1, 255]]).save(mask)
    os.utime(mask, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    assert checks() == 2 and checks() == 0
    write_pair(folder, "c", as_mask([[0]]))
    assert checks() == 3
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        (folder / kind / "training" / f"c.{suffix}").rename(folder / kind / "training" / f"d.{suffix}")
    assert checks() == 3
    assert load_training(folder, cache_dir=tmp_path / "cache")["name"][:] == ["a", "b", "d"]


def test_a_failed_check_is_not_remembered(tmp_path, checked):
    write_pair(tmp_path, "a", as_mask([[0, 9]]))
    for _ in range(2):
        with pytest.raises(ValueError, match="holds the id 9"):
            load_training(tmp_path)
    assert len(checked) == 2
    as_mask([[0, 2]]).save(tmp_path / "annotations/training/a.png")
    assert len(load_training(tmp_path)) == 1


# ---------------------------------------------------------------------------------------------------------- load_data


def test_splits_are_loaded_as_asked(tmp_path):
    write_pair(tmp_path, "a", as_mask([[0, 1]]))
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    data = load_data(data_dir=tmp_path, splits=("training",))  # there is no validation set
    assert len(data.train) == 1 and data.validation is None and data.class_names == ["sky", "road"]
    other = tmp_path / "other.txt"
    other.write_text("water\nland\nice\n")
    assert load_data(data_dir=tmp_path, splits=("training",), class_names_file=other).class_names[2] == "ice"
    with pytest.raises(ValueError, match=r"images/validation does not exist"):
        load_data(data_dir=tmp_path)


def test_splits_of_other_names_are_loaded_by_them(tmp_path, checked):
    for split, name in (("train 1.0", "a"), ("train 1.0", "b"), ("all", "c")):
        write_pair(tmp_path / "data", name, as_mask([[0, 1]]), split=split)
    (tmp_path / "data" / "classes.txt").write_text("sky\nroad\n")

    def load():
        names = {"train_split": "train 1.0", "validation_split": "all"}
        return load_data(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", **names)

    data = load()
    assert data.train["name"][:] == ["a", "b"] and data.validation["name"][:] == ["c"]
    assert data.validation_split == "all" and len(checked) == 3
    load()
    assert len(checked) == 3  # remembered, as those of the usual names are


def test_a_split_that_is_missing_names_those_that_are_there(tmp_path):
    for split in ("train", "valid"):
        write_pair(tmp_path, "a", as_mask([[0, 1]]), split=split)
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(ValueError, match=r"images/training does not exist.* images/ holds train, valid: .*--train_s"):
        load_data(data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"images/validation does not exist.* images/ holds train, valid"):
        load_data(data_dir=tmp_path, train_split="train")
    for name in ("", "..", "a/b", "a\\b", "a\0b"):
        with pytest.raises(ValueError, match="is no name of a folder in images/ and annotations/"):
            load_data(data_dir=tmp_path, train_split=name)


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".TIFF", ".webp", ".jpeg", ".JPG", ".png"])
def test_photographs_of_a_folder_may_be_of_any_format(tmp_path, suffix):
    write_pair(tmp_path, "a", as_mask([[0, 1, 2], [2, 1, 255]]), suffix=suffix)
    (row,) = with_encoded(load_training(tmp_path), "image", "annotation")
    assert row["name"] == "a" and row["image"]["path"].endswith(f"a{suffix}")
    assert np.abs(read_image(row["image"]).astype(int) - [10, 20, 30]).max() <= 3
    assert read_mask(row["annotation"]).tolist() == [[0, 1, 2], [2, 1, 255]]


def test_a_photograph_of_16_bits_and_one_of_two_pictures(tmp_path):
    """What `read_photograph` does with them: scaled to 8 bits, and the first of several."""
    deep = np.array([[0, 257, 65535]], np.uint16)
    write_pair(tmp_path, "deep", as_mask([[0, 1, 2]]), suffix=".tif")
    PIL.Image.fromarray(deep).save(tmp_path / "images/training/deep.tif")
    write_pair(tmp_path, "two", as_mask([[0, 1, 2]]), suffix=".tif")
    first, second = (PIL.Image.new("RGB", (3, 1), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "images/training/two.tif", save_all=True, append_images=[second])
    rows = with_encoded(load_training(tmp_path), "image", "annotation")
    images = [read_image(row["image"]) for row in rows]
    assert images[0][0].tolist() == [[0] * 3, [1] * 3, [255] * 3]
    assert (images[1] == [255, 0, 0]).all()


def test_pixels_are_counted_as_the_masks_are_checked(tmp_path, checked):
    masks = [[[0, 1, 255]], [[2, 2], [2, 0]], [[255, 255]]]
    for name, ids in zip("abc", masks, strict=True):
        write_pair(tmp_path / "data", name, as_mask(ids))
    (tmp_path / "data" / "classes.txt").write_text("sky\nroad\ntraffic light\n")
    hub = write_parquet(tmp_path / "hub", [as_mask(ids) for ids in masks], label_feature=ClassLabel(names=NAMES))
    expected = {0: 2, 1: 1, 2: 3, 255: 3}
    for _ in range(2):  # the second time nothing is read
        kwargs = {"splits": ("training",), "cache_dir": tmp_path / "cache"}
        assert load_data(data_dir=tmp_path / "data", **kwargs).pixels == {"training": expected}
        data = load_data(dataset_name=str(hub), image_column="photo", label_column="segments", **kwargs)
        assert data.pixels == {"training": expected}
        assert data.train.column_names == ["image", "annotation", "name", "index"]
        assert len(checked) == 6


@pytest.mark.parametrize(
    "pixels, reduce_labels, rare",
    [
        ([981, 0, 19, 0], False, {"lake": 0.019}),
        ([980, 0, 20, 0], False, {}),
        ([500, 990, 0, 10], True, {"lake": 0.01}),  # 500 are unlabelled
        ([19, 981, 0, 0], False, {"land": 0.019}),
    ],
)
def test_rare_classes(pixels, reduce_labels, rare):
    names = ["land", "ice", "lake"]
    counts = {"training": {label: count for label, count in enumerate(pixels) if count}}
    data = SegmentationData("x", names, None, reduce_labels, None, None, pixels=counts)
    assert data.rare_classes() == pytest.approx(rare)


def test_of_many_classes_few_are_rare():
    pixels = np.full(150, 1000)  # each has 0.67 %
    pixels[[7, 3]] = 400, 200
    assert find_rare(pixels).tolist() == [3, 7]


def test_unknown_data_sets_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no data set 'cityscapes'"):
        load_data("cityscapes", data_dir=tmp_path)
    with pytest.raises(ValueError, match="needs data_dir"):
        load_data()


# --------------------------------------------------------------------------------------- anything that datasets loads


def write_parquet(folder: Path, masks, split="train", label_feature=None) -> Path:
    """A repository in the form that the Hub keeps: pictures inside of Parquet files."""
    columns = {"photo": [], "segments": [], "name": []}
    for index, mask in enumerate(masks):
        columns["photo"].append(noise(*mask.size, seed=index))
        columns["segments"].append(mask)
        columns["name"].append("not ours")
    features = {"photo": Image(), "segments": Image(), "name": Value("string")}
    if label_feature is not None:
        columns["present"] = [[0] if isinstance(label_feature, datasets.List) else 0 for _ in masks]
        features["present"] = label_feature
    dataset = Dataset.from_dict(columns, features=Features(features))
    dataset = dataset.with_format("arrow").map(datasets.table.embed_table_storage, batched=True)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    dataset.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def load_parquet(folder: Path, **kwargs):
    columns = {"image_column": "photo", "label_column": "segments"}
    return load_data(**{"dataset_name": str(folder), "cache_dir": folder / "cache", **columns, **kwargs})


def palette_mask(ids) -> PIL.Image.Image:
    mask = as_mask(ids)
    mask.putpalette([value for i in range(256) for value in (255 - i, 7, 200)])
    return mask


def test_hub_data_set_gets_the_columns_of_all(tmp_path, checked):
    folder = write_parquet(
        tmp_path / "repo",
        [palette_mask([[0, 1], [2, 255]]), as_mask([[1, 1, 1]])],
        label_feature=datasets.List(ClassLabel(names=NAMES)),
    )
    write_parquet(folder, [as_mask([[2]])], "validation", label_feature=datasets.List(ClassLabel(names=NAMES)))
    data = load_parquet(folder)
    assert data.class_names == NAMES and data.palette is None and data.reduce_labels is False
    assert data.train.column_names == ["image", "annotation", "name", "index"]
    assert data.train["name"][:] == ["00000000", "00000001"] and data.train["index"][:] == [0, 1]
    assert read_mask(data.train[0]["annotation"]).tolist() == [[0, 1], [2, 255]]
    assert np.array_equal(data.train[0]["image"], noise(2, 2, seed=0))
    assert len(data.validation) == 1 and len(checked) == 3
    assert len(load_parquet(folder).train) == 2 and len(checked) == 3  # remembered


@pytest.mark.parametrize("num_workers", [1, 2])
def test_wrong_ids_of_a_hub_data_set_are_named_by_row(tmp_path, num_workers):
    folder = write_parquet(tmp_path / "repo", [as_mask([[0, 1]]), as_mask([[0, 3]]), as_mask([[0, 1]])])
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES))
    kwargs = {"class_names_file": names, "splits": ("training",), "num_workers": num_workers}
    with pytest.raises(ValueError, match=r"The mask of row 1 in the split 'train' of .* holds the id 3"):
        load_parquet(folder, **kwargs)
    assert len(load_parquet(folder, reduce_labels=True, **kwargs).train) == 3


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize(
    "column, kind, value, message",
    [
        ("segments", "mask", None, "is missing: every row needs both"),
        ("photo", "image", None, "is missing: every row needs both"),
        ("segments", "mask", {"bytes": None, "path": None}, "is missing: every row needs both"),
        ("segments", "mask", {"bytes": b"no image", "path": None}, "cannot be read as an image: cannot identify"),
        ("photo", "image", {"bytes": b"", "path": None}, "cannot be read as an image: cannot identify"),
        ("segments", "mask", {"bytes": None, "path": "gone.png"}, "No such file"),
    ],
)
def test_rows_of_a_hub_data_set_without_a_file_are_named(tmp_path, num_workers, column, kind, value, message):
    folder = write_parquet(tmp_path / "repo", [as_mask([[0, 1]])] * 3, label_feature=ClassLabel(names=NAMES))
    (file,) = folder.rglob("*.parquet")
    table = pq.read_table(file)
    position = table.column_names.index(column)
    values = table[column].to_pylist()
    values[1] = value
    field = table.field(position)
    pq.write_table(table.set_column(position, field, pa.array(values, type=field.type)), file)
    with pytest.raises(ValueError, match=rf"The {kind} of row 1 in the split 'train'.*{message}"):
        load_parquet(folder, splits=("training",), num_workers=num_workers)


def test_a_data_set_in_a_folder_is_called_by_the_name_of_the_folder(tmp_path, monkeypatch):
    """Its name is published with a model."""
    folder = write_parquet(tmp_path / "client" / "street", [as_mask([[0, 1]])], label_feature=ClassLabel(names=NAMES))
    monkeypatch.chdir(tmp_path / "client")
    for name in (folder, f"{folder}/", "street", "./street", "../client/street"):
        arguments = {"dataset_name": str(name), "cache_dir": tmp_path / "cache", "splits": ("training",)}
        assert load_parquet(folder, **arguments).name == "street"


@pytest.mark.parametrize(
    "name, expected",
    [
        ("user/scenes", "user/scenes"),
        ("scenes", "scenes"),
        ("/data/me/client/street", "street"),
        ("~/client/street", "street"),
        ("../client/street/", "street"),
        ("client/data/street", "street"),
        ("C:\\Users\\me\\client\\street", "street"),
        ("C:\\Users\\me\\client street\\", "client street"),
        ("C:/Users/me/street", "street"),
        ("C:street", "street"),
        ("\\\\server\\client\\street", "street"),
        ("client\\street", "street"),
        ("file:///data/me/street", "street"),
    ],
)
def test_names_without_their_paths(name, expected):
    assert without_path(name) == expected


def test_class_names_that_no_model_takes_are_refused_with_the_data(tmp_path):
    write_pair(tmp_path, "a", as_mask([[0, 1], [1, 255]]))
    for names, message in (("sky\n_\n", "no name on line 2"), ("a b\nA_b\n", "both called 'A b'")):
        (tmp_path / "classes.txt").write_text(names)
        with pytest.raises(ValueError, match=message):
            load_data(data_dir=tmp_path, splits=("training",), cache_dir=tmp_path / "cache")


def test_class_names_come_from_one_column_or_a_file(tmp_path):
    masks = [as_mask([[0, 1]])]
    plain = write_parquet(tmp_path / "plain", masks)
    with pytest.raises(ValueError, match="does not say what the ids of its masks mean.*class_names_file"):
        load_parquet(plain, splits=("training",))
    single = write_parquet(tmp_path / "single", masks, label_feature=ClassLabel(names=NAMES))
    assert load_parquet(single, splits=("training",)).class_names == NAMES


def test_wrong_columns_and_splits_of_a_hub_data_set_are_named(tmp_path):
    folder = write_parquet(tmp_path / "repo", [as_mask([[0, 1]])], label_feature=ClassLabel(names=NAMES))
    with pytest.raises(ValueError, match=r"no column 'annotation' of images.*'segments'.*label_column"):
        load_parquet(folder, splits=("training",), label_column="annotation")
    with pytest.raises(ValueError, match=r"no column 'name' of images.*image_column"):
        load_parquet(folder, splits=("training",), image_column="name")
    with pytest.raises(ValueError, match=r"The split 'validation' of .*train.*validation_split"):
        load_parquet(folder)


def test_image_folder_with_metadata(tmp_path):
    folder = tmp_path / "repo" / "train"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    picture = noise(4, 3)
    picture.save(folder / "images" / "a.png")
    palette_mask(np.full((3, 4), 2)).save(folder / "masks" / "a.png")
    row = {"image_file_name": "images/a.png", "mask_file_name": "masks/a.png"}
    (folder / "metadata.jsonl").write_text(json.dumps(row))
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES))
    data = load_data(
        dataset_name=str(tmp_path / "repo"),
        label_column="mask",
        class_names_file=names,
        splits=("training",),
        cache_dir=tmp_path / "cache",
    )
    assert read_mask(data.train[0]["annotation"]).tolist() == [[2] * 4] * 3
    assert np.array_equal(data.train[0]["image"], picture)


def test_one_class_is_refused(tmp_path):
    write_pair(tmp_path, "a", as_mask([[0, 1], [1, 255]]))
    (tmp_path / "classes.txt").write_text("crack\n")
    with pytest.raises(ValueError, match="the class 'crack' alone.*two names, such as 'background'"):
        load_data(data_dir=tmp_path, splits=("training",), cache_dir=tmp_path / "cache")
