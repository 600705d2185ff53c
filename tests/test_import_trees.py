# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Photographs and masks are told from each other and paired, however data sets arrange and name them."""

import shlex
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from training.importing.classes import Question
from training.importing.masks import find_masks, find_matching, item_name, recognise_masks
from training.importing.sources import Listing
from training.importing.trees import find_series, look_of
from training.importing.words import is_kind_word, words


RNG = np.random.default_rng(0)
IDS = np.zeros((40, 52), np.uint8)
IDS[10:20, 5:30], IDS[25:, :10] = 1, 2


def digest(*names) -> str:
    return f"{zlib.crc32(repr(names).encode()):08x}"


def in_splits(photograph: str, mask: str, **parts: range) -> list[tuple[str, str]]:
    return [
        (photograph.format(split=split, index=index), mask.format(split=split, index=index))
        for split, indices in parts.items()
        for index in indices
    ]


def numbered(photograph: str, mask: str, indices=range(1, 5)) -> list[tuple[str, str]]:
    return [(photograph.format(index), mask.format(index)) for index in indices]


# Photographs and their masks, as public data sets and tools lay them out.
LAYOUTS = {
    "one folder, a suffix": numbered("{:03}.jpg", "{:03}_mask.png"),
    "one folder, other types": numbered("base/cmp_b{:04}.jpg", "base/cmp_b{:04}.png"),
    "CamVid": in_splits("{split}/0001TP_{index:06}.png", "{split}_labels/0001TP_{index:06}_L.png", train=range(4))
    + in_splits("{split}/0016E5_{index:06}.png", "{split}_labels/0016E5_{index:06}_L.png", val=range(3)),
    "Cityscapes": [
        (f"leftImg8bit/{split}/{city}/{city}_{i:06}_leftImg8bit.png",
         f"gtFine/{split}/{city}/{city}_{i:06}_gtFine_labelIds.png")
        for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "ulm")) for i in range(3)
    ],
    "words on both": numbered("images/{:03}_image.png", "annotations/{:03}_annotation.png"),
    "numbers in two trees": numbered("membrane/train/image/{}.png", "membrane/train/label/{}.png"),
    "a word within": [
        (f"training/image_2/{kind}_{i:06}.png", f"training/gt_image_2/{kind}_road_{i:06}.png")
        for kind in ("um", "umm", "uu") for i in range(3)
    ],
    "other words at the end": numbered("training/images/{}_training.tif", "training/1st_manual/{}_manual1.png"),
    "names in two folders": [
        (f"images/{name}_{i}.jpg", f"annotations/trimaps/{name}_{i}.png")
        for name in ("Abyssinian", "great_pyrenees") for i in range(1, 4)
    ],
    "suffixes of both": numbered("train/{}_sat.jpg", "train/{}_mask.png", (855, 119, 4321)),
    "VOC": numbered("JPEGImages/2007_{:06}.jpg", "SegmentationClass/2007_{:06}.png"),
    "Roboflow": [
        (f"{split}/a{i}_jpg.rf.{digest(i)}.jpg", f"{split}/a{i}_jpg.rf.{digest(i)}_mask.png")
        for split, i in (("train", 0), ("train", 1), ("train", 2), ("valid", 3), ("valid", 4))
    ],
    "zeros in front": [(f"img/{i}.jpg", f"lab/{i:03}.png") for i in (1, 2, 10, 11)],
    "words that touch numbers": numbered("image{:02}.bmp", "mask{:02}.png"),
    "the same name in many folders": [(f"images/{city}/1.jpg", f"labels/{city}/1.png") for city in "abc"],
    "splits in names of folders": in_splits("{split}_img/{index}.jpg", "{split}_lab/{index}.png",
                                            train=range(3), test=range(3)),
    "names that are words": [(f"photos/{n}.webp", f"masks/{n}.png") for n in ("red barn", "cat_sitting", "Ölfleck")],
    "CamelCase": numbered("trainImages/{}.jpg", "trainMasks/{}.png"),
    "splits and kinds in one word": in_splits("{split}/{index}.png", "{split}annot/{index}.png",
                                              train=range(3), val=range(2), default=range(2)),
    "a folder for each pair": numbered("{:03}_json/img.png", "{:03}_json/label.png"),
    "GIF": numbered("training/images/{:02}_training.tif", "training/1st_manual/{:02}_manual1.gif"),
    "case alone": [(f"images/{name}.jpg", f"masks/{name}.png") for name in ("a", "A", "b")],
    "letters of other systems": [(f"a/{name}.jpg", f"masks/{name}.png") for name in ("\udcff\udcfe", "\udcfe", "a")],
    "upper case": numbered("IMAGES/IMG_{:04}.JPG", "MASKS/IMG_{:04}.PNG"),
    "masks of a part": numbered("images/{}.jpg", "masks/{}.png", range(2, 4)),
    "one pair": [("house.jpg", "house_label.png")],
    "numbers and titles": [
        (f"1. Original Images/a. Training Set/IDRiD_{i:02}.jpg",
         f"2. All Segmentation Groundtruths/a. Training Set/1. Microaneurysms/IDRiD_{i:02}_MA.png")
        for i in range(1, 4)
    ],
}  # fmt: skip


def save_photograph(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*IDS.shape, 3), dtype=np.uint8)).save(path)


def save_mask(path: Path, ids: np.ndarray = IDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


def pairs_of(source) -> set[tuple[str, ...]]:
    return {(item.image, *item.annotations) for item in source.items}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_photograph_has_its_own_mask(tmp_path, name):
    for photograph, mask in LAYOUTS[name]:
        save_photograph(tmp_path / photograph)
        save_mask(tmp_path / mask)
    source = find_masks(Listing(tmp_path))
    assert pairs_of(source) == {(tmp_path / photograph, tmp_path / mask) for photograph, mask in LAYOUTS[name]}
    assert source.left_out == [] and recognise_masks(Listing(tmp_path))


def test_every_layout_is_found_among_others_of_its_kind(tmp_path):
    """Two trees that use the same names, one for each split, are not mixed."""
    for split in ("train", "val"):
        for index in range(3):
            save_photograph(tmp_path / split / "images" / f"{index}.jpg")
            save_mask(tmp_path / split / "masks" / f"{index}.png", IDS + (split == "val"))
    source = find_masks(Listing(tmp_path))
    assert len(source.items) == 6
    for item in source.items:
        assert item.image.parts[-3] == item.annotations[0].parts[-3]
        assert item.draw(IDS.shape).keys.max() == (3 if "val" in item.image.parts else 2)
    assert {item.split for item in source.items} == {"training", "validation"}
    assert sorted(item.name for item in source.items) == ["0", "0", "1", "1", "2", "2"]


def test_what_has_no_partner_is_named(tmp_path):
    for index in range(4):
        save_photograph(tmp_path / "images" / f"{index}.jpg")
        save_mask(tmp_path / "masks" / f"{index + 1}.png")
    source = find_masks(Listing(tmp_path))
    assert len(source.items) == 3
    assert source.left_out == ["images/0.jpg: a photograph without a mask", "masks/4.png: a mask without a photograph"]


def test_numbers_that_begin_differently_are_suspicious(tmp_path):
    for index in range(4):
        save_photograph(tmp_path / "images" / f"frame_{index:04}.jpg")
        save_mask(tmp_path / "PixelLabelData" / f"Label_{index + 1}.png")
    assert any("all pairs are shifted" in note for note in find_masks(Listing(tmp_path)).notes)


def test_a_mask_of_another_split_is_no_mask(tmp_path):
    save_photograph(tmp_path / "train/images/1.jpg")
    save_mask(tmp_path / "train/masks/1.png")
    save_photograph(tmp_path / "train/images/2.jpg")
    save_mask(tmp_path / "val/masks/2.png")
    source = find_masks(Listing(tmp_path))
    assert [item.image.name for item in source.items] == ["1.jpg"] and len(source.left_out) == 2


def test_the_masks_that_tell_classes_are_chosen(tmp_path):
    colours = np.array([(0, 0, 0), (128, 64, 128), (70, 70, 70)], np.uint8)
    for index in range(3):
        save_photograph(tmp_path / f"leftImg8bit/train/ulm/ulm_{index:06}_leftImg8bit.png")
        stem = f"gtFine/train/ulm/ulm_{index:06}_gtFine"
        save_mask(tmp_path / f"{stem}_labelIds.png")
        save_mask(tmp_path / f"{stem}_instanceIds.png", IDS + 5)
        save_mask(tmp_path / f"{stem}_color.png", colours[IDS])
    source = find_masks(Listing(tmp_path))
    assert all(item.annotations[0].name.endswith("_labelIds.png") for item in source.items) and len(source.items) == 3
    assert len(source.notes) == 2


def test_of_masks_of_several_kinds_one_has_to_be_named(tmp_path):
    for index in range(3):
        save_photograph(tmp_path / f"images/{index}.jpg")
        for number, kind in enumerate(("regions", "surfaces")):
            save_mask(tmp_path / f"labels/{index}.{kind}.png", IDS + number)
    with pytest.raises(ValueError, match=r"2 kinds of masks.*--masks 'labels/\*\.regions\.png' or"):
        find_masks(Listing(tmp_path))
    source = find_masks(Listing(tmp_path), masks=["labels/*.surfaces.png"])
    assert {item.annotations[0].name for item in source.items} == {f"{index}.surfaces.png" for index in range(3)}


def suggested(error: Exception) -> list[list[str]]:
    """The words behind each `--masks` of a message."""
    said = str(error).partition("--masks ")[2].rstrip(".")
    return [shlex.split(words) for words in said.split(" or --masks ")]


def test_suggested_patterns_are_of_one_kind_each(tmp_path):
    """Of masks that also lie in folders below those that are meant, and whose names end alike."""
    for index in range(3):
        save_photograph(tmp_path / f"TEST/images/d_{index}.jpg")
        save_mask(tmp_path / f"TEST/masks/d_{index}.bmp")
        save_mask(tmp_path / f"TEST/masks/cars/d_{index}.bmp", (IDS + 1) % 3)
        save_mask(tmp_path / f"TEST/masks/d_{index}_fine.bmp", (IDS + 2) % 3)
    with pytest.raises(ValueError, match="3 kinds of masks") as raised:
        find_masks(Listing(tmp_path))
    taken = [
        sorted(str(item.annotations[0].relative_to(tmp_path)) for item in find_masks(Listing(tmp_path), masks=m).items)
        for m in suggested(raised.value)
    ]
    assert sorted(taken) == [
        [f"TEST/masks/cars/d_{index}.bmp" for index in range(3)],
        [f"TEST/masks/d_{index}.bmp" for index in range(3)],
        [f"TEST/masks/d_{index}_fine.bmp" for index in range(3)],
    ]


@pytest.mark.parametrize("name", ["colormaps", "semantic_rgb", "npy"])
def test_drawings_and_copies_of_masks_give_way(tmp_path, name):
    """But not what says something else."""
    colours = np.array([(9, 0, 0), (128, 64, 128), (70, 70, 70)], np.uint8)
    for index in range(3):
        save_photograph(tmp_path / f"images/{index}.jpg")
        save_mask(tmp_path / f"labels/{index}.png")
        if name == "npy":
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / name / f"{index}.npy", IDS)
        else:
            save_mask(tmp_path / name / f"{index}.png", colours[IDS])
    source = find_masks(Listing(tmp_path))
    assert {item.annotations[0].parent.name for item in source.items} == {"labels"}
    assert "say the same" in source.notes[0]
    save_mask(tmp_path / "labels/1.png", np.roll(IDS, 5, axis=0))
    with pytest.raises(ValueError, match="2 kinds of masks"):
        find_masks(Listing(tmp_path))


def test_a_stray_matrix_is_no_kind_of_masks(tmp_path):
    for index in range(12):
        save_photograph(tmp_path / f"images/{index}.jpg")
        save_mask(tmp_path / f"trimaps/{index}.png")
    np.save(tmp_path / "images/3.npy", np.zeros((5, 5), np.uint8))
    source = find_masks(Listing(tmp_path))
    assert len(source.items) == 12 and "images/*.npy are of 1 of 12 photographs" in source.notes[0]


def test_several_masks_of_two_colours_are_not_one_for_each_class(tmp_path):
    """KITTI's roads: red is what is none, and magenta what is one, in a mask of lanes and in one of roads."""
    for index in range(3):
        save_photograph(tmp_path / f"image_2/um_{index:06}.png")
        for name in ("lane", "road"):
            colours = np.array([(255, 0, 0), (255, 0, 255), (255, 0, 255)], np.uint8)[IDS]
            save_mask(tmp_path / f"gt_image_2/um_{name}_{index:06}.png", colours)
    with pytest.raises(ValueError, match="um_000000.png has 2 masks .* more than one class each"):
        find_masks(Listing(tmp_path))


@pytest.mark.parametrize("pattern", ["{index}_{name}.png", "{name}/{index}.png"])
def test_what_two_people_drew_of_one_thing_is_no_two_classes(tmp_path, pattern):
    for index in range(3):
        save_photograph(tmp_path / f"images/{index}.jpg")
        for name, shift in (("anna", 0), ("bob", 1)):
            mask = np.roll(IDS == 1, shift, axis=0) * np.uint8(255)
            save_mask(tmp_path / "masks" / pattern.format(index=index, name=f"by {name}"), mask)
    with pytest.raises(Question, match="cover much the same pixels, 90% of the smaller"):
        find_masks(Listing(tmp_path))
    assert len(find_masks(Listing(tmp_path), overlaps="later").items) == 3
    assert len(find_masks(Listing(tmp_path), masks=[f"masks/{pattern.format(index='*', name='by bob')}"]).items) == 3


def test_of_a_class_within_another_both_are_seen(tmp_path):
    for index in range(3):
        save_photograph(tmp_path / f"images/{index}.jpg")
        save_mask(tmp_path / f"masks/{index}_eye.png", (IDS == 1) * np.uint8(255))
        pupil = np.zeros_like(IDS)
        pupil[12:17, 8:20] = 255
        save_mask(tmp_path / f"masks/{index}_central.png", pupil)
    for overlaps, least in ((None, 60), ("later", 0)):  # by its name an eye is later
        source = find_masks(Listing(tmp_path), overlaps=overlaps)
        keys = source.items[0].draw(IDS.shape).keys
        assert (keys == next(key for key, name in source.names.items() if name == "central")).sum() == least


@pytest.mark.parametrize(
    "pattern",
    [
        "{index}_{name}.png",
        "{name}/{index}.png",
        "{index}/{name}.png",
        "CelebAMask-anno/0/{index:05}_{name}.png",  # a folder of thousands, in one that is called like the data set
    ],
)
def test_one_mask_for_each_class(tmp_path, pattern):
    expected = {}
    for index in range(3):
        save_photograph(tmp_path / f"images/{index}.jpg")
        ids = np.roll(IDS, index, axis=1)
        expected[f"{index}.jpg"] = ids
        for name, id in (("road", 1), ("wet roof", 2)):
            save_mask(tmp_path / "masks" / pattern.format(index=index, name=name), (ids == id) * np.uint8(255))
    source = find_masks(Listing(tmp_path))
    assert list(source.names.values()) == ["road", "wet roof"]
    key_of = {name: key for key, name in source.names.items()}
    for item in source.items:
        keys = item.draw(IDS.shape).keys
        ids = expected[item.image.name]
        assert ((keys == key_of["road"]) == (ids == 1)).all() and ((keys == key_of["wet roof"]) == (ids == 2)).all()
        assert (keys[ids == 0] == -1).all()


def test_one_mask_for_each_object(tmp_path):
    for photograph in ("0a1b", "77fe"):
        save_photograph(tmp_path / photograph / "images" / f"{photograph}.png")
        for number in range(3):
            ids = np.zeros_like(IDS)
            ids[10 * number : 10 * number + 5] = 255
            save_mask(tmp_path / photograph / "masks" / f"{digest(photograph, number)}.png", ids)
    source = find_masks(Listing(tmp_path))
    assert len(source.items) == 2 and source.names == {}
    keys = source.items[0].draw(IDS.shape).keys
    assert np.unique(keys).size == 2 and (keys != -1).sum() == 15 * IDS.shape[1]


def test_pictures_for_people_are_neither(tmp_path):
    for index in range(3):
        save_photograph(tmp_path / f"images/{index}.jpg")
        save_mask(tmp_path / f"masks/{index}.png")
        save_mask(tmp_path / f"overlays/{index}.png")
    assert len(find_masks(Listing(tmp_path)).items) == 3


def test_patterns_say_what_nothing_else_tells(tmp_path):
    """Two folders of photographs that look alike, of which one is to be taken for masks."""
    for index in range(3):
        save_photograph(tmp_path / f"a/{index}.png")
        save_mask(tmp_path / f"b/{index}.png")
        save_mask(tmp_path / f"c/{index}.png")
    source = find_masks(Listing(tmp_path), images=["a/*"], masks=["c/*"])
    assert pairs_of(source) == {(tmp_path / f"a/{index}.png", tmp_path / f"c/{index}.png") for index in range(3)}
    with pytest.raises(ValueError, match=r"--masks d/\* matches none of the 9 files, such as a/0.png"):
        find_masks(Listing(tmp_path), masks=["d/*"])


@pytest.mark.parametrize("folders", [("images", "masks"), ("drawings", "labels")])
def test_where_all_look_alike_names_decide(tmp_path, folders):
    for index in range(3):
        save_mask(tmp_path / folders[0] / f"{index}.png", np.stack([IDS * 80] * 3, axis=-1))
        save_mask(tmp_path / folders[1] / f"{index}.png", IDS)
    source = find_masks(Listing(tmp_path))
    assert [item.annotations[0].parent.name for item in source.items] == [folders[1]] * 3


def test_patterns_are_of_folders_first():
    files = [PurePosixPath(name) for name in ("a/1.png", "a/b/1.png", "a/b/c/2.png", "[x]/1.png")]
    assert find_matching(["a/*.png"], files) == {files[0]}
    assert find_matching(["a/**/*.png"], files) == set(files[:3]) and find_matching(["**"], files) == set(files)
    assert find_matching(["*/c/*"], files) == {files[2]}  # as "*" stands for "/" where nothing else is meant
    assert find_matching(["[[]x]/*"], files) == {files[3]} and find_matching(["b/*"], files) == set()


def test_photographs_alone_are_no_data_set(tmp_path):
    for index in range(3):
        save_photograph(tmp_path / f"{index}.jpg")
    assert find_masks(Listing(tmp_path)) is None and recognise_masks(Listing(tmp_path)) is None


@pytest.mark.parametrize(
    ("save", "least"),
    [
        (lambda path: Image.fromarray(IDS).save(path, "PNG"), 3),
        (lambda path: Image.fromarray(IDS * 100).save(path, "JPEG"), 1),
        (lambda path: Image.fromarray(IDS > 0).save(path, "PNG"), 3),
        (lambda path: Image.fromarray(IDS).convert("P").save(path, "PNG"), 3),
    ],
)
def test_a_mask_looks_like_one(tmp_path, save, least):
    save(tmp_path / "a")
    assert look_of(tmp_path / "a") >= least


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_photograph_does_not(tmp_path, mode, form):
    smooth = Image.fromarray(RNG.integers(0, 256, (6, 7, 3), dtype=np.uint8)).resize(
        (70, 60), Image.Resampling.BICUBIC
    )
    smooth.convert(mode).save(tmp_path / "a", form)
    assert look_of(tmp_path / "a") < 0


def test_names_are_read_as_words():
    assert words("aachen_000019_leftImg8bit") == ["aachen", "000019", "leftImg8bit"]
    assert words("image001 (copy).v2") == ["image", "001", "copy", "v", "2"] and words("3f2a9c1b") == ["3f2a9c1b"]
    kinds = ("labelIds", "gtFine", "leftImg8bit", "JPEGImages", "SegmentationClass", "mask", "trimaps", "GT")
    assert all(map(is_kind_word, kinds)) and not any(map(is_kind_word, ("road", "aachen", "001", "maskrcnn", "L")))
    assert item_name(PurePosixPath("leftImg8bit/train/aachen/a_1.png")) == "aachen/a_1"


def test_a_series_is_shown_as_a_pattern_of_its_files():
    files = [PurePosixPath(f"gt/{city}/{i}_labelIds.png") for city in "ab" for i in range(3)]
    (series,) = find_series(files)
    assert series.patterns == ["gt/*/*_labelIds.png"] and len(series.files) == 6


def test_links_in_a_circle_are_followed_once(tmp_path):
    save_photograph(tmp_path / "a/1.jpg")
    (tmp_path / "a/again").symlink_to(tmp_path, target_is_directory=True)
    assert Listing(tmp_path).files == [PurePosixPath("a/1.jpg")]
