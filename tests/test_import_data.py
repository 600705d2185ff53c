# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""From a data set as it lies to the folder that training reads, through the command."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from modeling_denseclip.tools.files.photographs import read_photograph
from tests.foreign import NAMES, WRITERS, make_scenes, save, write_coco, write_suffixes, write_text
from training.data.load import load_data
from training.import_data import main
from training.importing.forms import recognise


SCENES = make_scenes()
# Forms whose tools paint the line around a shape too, or leave it out: there the last pixel at an edge is a matter of
# their rules, which the tests of each reader check to the pixel. And what compression blurs is nearest to either side.
WITH_EDGES = ("labelme", "yolo", "label_studio", "lossy")
UNLABELLED_ROWS = {"voc": [0, -1], "matrices": [0]}


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "my_data"


def run(*words) -> int:
    return main([str(word) for word in (*words, "--num_workers", 0)])


def read_ids(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def written(target: Path) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Of each photograph's name the split, its pixels and its ids."""
    found = {}
    for path in target.glob("images/*/*"):
        ids = read_ids(target / "annotations" / path.parent.name / f"{path.stem}.png")
        found[path.stem] = path.parent.name, np.asarray(read_photograph(path)), ids
    return found


def edges(ids: np.ndarray) -> np.ndarray:
    """Pixels beside which another class lies."""
    kernel = np.ones((3, 3), np.uint8)
    return cv2.dilate(ids, kernel) != cv2.erode(ids, kernel)


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_becomes_the_same_folder(source, target, form, capsys):
    """Two commands and no line of one's own: this one, and training, which accepts what it wrote."""
    WRITERS[form](source, SCENES)
    assert run(source, target) == 0, capsys.readouterr()
    report = capsys.readouterr().out
    assert "Training accepts it." in report
    assert (target / "classes.txt").read_text().splitlines() == list(NAMES)
    found = written(target)
    assert len(found) == len(SCENES)
    record = json.loads((target / "import.json").read_text())
    for scene in SCENES:
        (name,) = (name for name in found if name.startswith(scene.stem))
        split, pixels, ids = found[name]
        expected = scene.ids
        expected[UNLABELLED_ROWS.get(form, [])] = 255
        wrong = ids != expected
        if form in WITH_EDGES:
            wrong &= ~edges(expected)
        assert not wrong.any(), f"{form}, {name}: {wrong.sum()} pixels"
        origin = source / record["pictures"][f"{split}/{name}"]["image"]
        assert origin.is_file() and scene.stem in origin.name
        assert np.array_equal(pixels, np.asarray(read_photograph(origin)))
    splits = {split for split, _, _ in found.values()}
    assert splits == {"training", "validation"}
    if form in ("coco", "roboflow_coco", "yolo", "roboflow_masks", "camvid", "voc"):  # which have parts of their own
        of_scene = {scene.stem: scene.split for scene in SCENES}
        assert all(split[:3] == of_scene[name[:9]][:3] for name, (split, _, _) in found.items())
    data = load_data(data_dir=target, cache_dir=target.parent / "cache")
    assert len(data.train) + len(data.validation) == len(SCENES) and data.class_names == list(NAMES)
    assert recognise(source) is not None and recognise(source).split()[0] in report


def test_photographs_are_linked_and_outlive_the_source(source, target):
    write_coco(source, SCENES)
    assert run(source, target) == 0
    path = target / "images" / "training" / "field_000.jpg"
    assert os.path.samefile(path, source / "train2017" / "field_000.jpg")
    shutil.rmtree(source)
    assert len(written(target)) == len(SCENES)


def test_photographs_are_copied_on_request(source, target):
    write_coco(source, SCENES)
    assert run(source, target, "--copy") == 0
    assert not os.path.samefile(target / "images/training/field_000.jpg", source / "train2017/field_000.jpg")


def test_photographs_are_linked_to_or_copied_where_a_disk_has_no_second_names(source, target, monkeypatch, capsys):
    def refuse(*paths, **options):
        raise OSError("no links here")

    write_coco(source, SCENES)
    monkeypatch.setattr("training.importing.folder.os.link", refuse)
    assert run(source, target) == 0
    assert (target / "images/training/field_000.jpg").is_symlink() and len(written(target)) == len(SCENES)
    monkeypatch.setattr("training.importing.folder.os.symlink", refuse)
    assert run(source, target, "--overwrite") == 0
    assert "7 photographs copied" in capsys.readouterr().out
    assert not (target / "images/training/field_000.jpg").is_symlink() and len(written(target)) == len(SCENES)


def test_a_dry_run_writes_a_picture_alone(source, target, capsys):
    write_coco(source, SCENES)
    assert run(source, target, "--dry_run") == 0
    report = capsys.readouterr().out
    assert "5 training, 2 validation" in report and "crop" in report
    assert [path.name for path in target.parent.iterdir() if path != source] == ["my_data_contact_sheet.png"]


# ----------------------------------------------------------------------------------------------------------- questions


def write_nameless_colours(folder: Path) -> None:
    for index in range(5):
        save(folder / "img" / f"{index}.jpg", np.full((20, 30, 3), 40 * index, np.uint8))
        mask = np.zeros((20, 30, 3), np.uint8)
        mask[:, :10] = (255, 0, 77)
        save(folder / "gt" / f"{index}.png", mask)


def test_names_of_colours_are_asked_for(source, target, capsys):
    write_nameless_colours(source)
    with pytest.raises(ValueError) as question:
        run(source, target)
    for words in ("#ff004d", "33.33%", "#000000", "66.67%", "gt/0.png", "--names '#000000=NAME' '#ff004d=NAME'"):
        assert words in str(question.value)
    assert not target.exists()
    assert run(source, target, "--names", "#000000=land", "255,0,77=lake", "--validation_share", "0.4") == 0
    assert (target / "classes.txt").read_text() == "land\nlake\n"
    for _, _, ids in written(target).values():
        assert (ids[:, :10] == 1).all() and (ids[:, 10:] == 0).all()


def test_names_in_a_file_of_ones_own(source, target, tmp_path):
    write_nameless_colours(source)
    write_text(tmp_path / "mine.csv", "name,r,g,b\nlake,255,0,77\nland,0,0,0\n")
    assert run(source, target, "--names", tmp_path / "mine.csv") == 0
    assert (target / "classes.txt").read_text() == "lake\nland\n"


@pytest.mark.parametrize("values", [(0, 255), (0, 128), (0, 1), (3, 7)])
def test_masks_of_two_values(source, target, values):
    for scene in SCENES:
        save(source / "images" / f"{scene.stem}.jpg", scene.pixels)
        save(source / "masks" / f"{scene.stem}.png", np.array(values, np.uint8)[(scene.ids > 0).astype(int)])
    with pytest.raises(ValueError, match=f"'{values[0]}=NAME' '{values[1]}=NAME'"):
        run(source, target)
    assert run(source, target, "--names", f"{values[0]}=soil", f"{values[1]}=plant") == 0
    found = written(target)
    assert all(np.array_equal(found[scene.stem][2], scene.ids > 0) for scene in SCENES)
    write_text(source / "classes.txt", "soil\nplant\n")
    assert run(source, target, "--overwrite") == 0
    found = written(target)
    assert all(np.array_equal(found[scene.stem][2], scene.ids > 0) for scene in SCENES)


def test_values_that_are_named_clean_what_compression_changed(source, target):
    """A class of thin lines has no area, so that only its user knows its value."""
    expected = {}
    for scene in SCENES:
        ids = scene.ids % 2
        ids[::9] = 2
        expected[scene.stem] = ids
        save(source / "images" / f"{scene.stem}.jpg", scene.pixels)
        save(source / "masks" / f"{scene.stem}.jpg", np.array([0, 255, 128], np.uint8)[ids], quality=95)
    assert run(source, target, "--names", "0=soil", "255=crop", "128=wire") == 0
    assert (target / "classes.txt").read_text().splitlines() == ["soil", "crop", "wire"]
    for name, (_, _, ids) in written(target).items():
        assert (ids[::9] == 2).mean() > 0.9 and (ids == expected[name]).mean() > 0.95


def test_names_for_ids_from_1_leave_0_unlabelled_and_say_so(source, target, capsys):
    write_suffixes(source, SCENES)
    write_text(source / "labels.txt", "crop\nweed\n")
    assert run(source, target) == 0
    assert "0 for unlabelled" in capsys.readouterr().out
    found = written(target)
    expected = np.array([255, 0, 1], np.uint8)
    assert all(np.array_equal(found[scene.stem][2], expected[scene.ids]) for scene in SCENES)
    assert run(source, target, "--overwrite", "--names", "0=bare soil") == 0
    assert (target / "classes.txt").read_text().splitlines() == ["bare soil", "crop", "weed"]


def test_a_list_that_fits_in_no_way_is_a_question(source, target):
    write_suffixes(source, SCENES)
    write_text(source / "labels.txt", "a cat\na dog\na cow\na hen\n")
    for scene in SCENES:
        save(source / f"{scene.stem}_mask.png", np.array([0, 100, 200], np.uint8)[scene.ids])
    with pytest.raises(ValueError, match=r"(0=|'0=NAME')"):
        run(source, target)


def test_what_nothing_covers_may_be_named_or_left_out(source, target, capsys):
    write_coco(source, SCENES)
    assert run(source, target, "--names", "rest=bare soil", "weed=wild plant") == 0
    assert (target / "classes.txt").read_text().splitlines() == ["bare soil", "crop", "wild plant"]
    assert run(source, target, "--overwrite", "--names", "rest=unlabelled") == 0
    assert (target / "classes.txt").read_text().splitlines() == ["crop", "weed"]
    found = written(target)
    expected = np.array([255, 0, 1], np.uint8)
    assert all(np.array_equal(found[scene.stem][2], expected[scene.ids]) for scene in SCENES)


def test_several_forms_in_a_folder_are_a_question(source, target):
    write_coco(source, SCENES)
    for scene in SCENES:
        split = f"{scene.split}2017"
        save(source / split / f"{scene.stem}_mask.png", scene.ids)
    with pytest.raises(ValueError, match="--form coco or --form masks"):
        run(source, target)
    assert run(source, target, "--form", "coco") == 0
    with pytest.raises(ValueError, match="No file says what"):
        run(source, target, "--overwrite", "--form", "masks")


# --------------------------------------------------------------------------------------------------------- wrong input


def test_one_broken_file_is_named_and_the_rest_taken(source, target, capsys):
    write_coco(source, SCENES)
    (source / "train2017/field_001.jpg").write_bytes(b"no picture")
    assert run(source, target) == 1
    report = capsys.readouterr().out
    assert "CANNOT BE TAKEN (1)" in report and "field_001.jpg" in report
    assert len(written(target)) == len(SCENES) - 1


def test_annotations_of_another_size_are_not_stretched(source, target, capsys):
    write_coco(source, SCENES)
    Image.new("RGB", (33, 44)).save(source / "train2017/field_001.jpg")
    assert run(source, target) == 1
    assert "33 x 44" in capsys.readouterr().out


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("upright", [True, False])
def test_shapes_lie_where_they_were_drawn_on_photographs_that_are_turned(source, target, orientation, upright):
    """Tools show photographs upright, or as they are stored; the size of the annotation tells which."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[5:15, 8:30] = 200
    turned = {1: lambda a: a, 3: lambda a: a[::-1, ::-1], 6: lambda a: np.rot90(a, -1), 8: lambda a: np.rot90(a)}
    shown = turned[orientation](pixels)
    seen = shown if upright or orientation == 3 else pixels
    rows, columns = np.nonzero(seen[..., 0])
    box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
    left, top, right, bottom = box
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": seen.shape[0], "width": seen.shape[1]} for i in range(2)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0,
             "segmentation": [[left, top, right, top, right, bottom, left, bottom]]}
            for i in range(2)
        ],
        "categories": [{"id": 1, "name": "box"}],
    }  # fmt: skip
    write_text(source / "a.json", json.dumps(content))
    for index in range(2):
        Image.fromarray(pixels + np.uint8(index)).save(source / f"{index}.png", exif=exif)
    run(source, target, "--group_by", r"\d")
    for _, photograph, ids in written(target).values():
        assert np.array_equal(ids == 1, photograph[..., 0] > 100) and ids.any()


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (lambda source: None, [], "does not exist. SOURCE is the folder"),
        (lambda source: write_text(source, "x"), [], "is a file: unpack an archive"),
        (lambda source: source.mkdir(), [], "holds no photographs with annotations of a known form; it holds no file"),
        (lambda source: save(source / "a.jpg", SCENES[0].pixels), [], r"holds no .*; it holds 1 \.jpg"),
        (lambda source: write_coco(source, SCENES), ["--form", "yolo"], "annotations of the form yolo"),
        (lambda source: write_coco(source, SCENES), ["--names", "nothing.txt"], "there is no file 'nothing.txt'"),
        (lambda source: write_coco(source, SCENES), ["--names", "tree=oak"], "there is no tree. There are"),
        (lambda source: write_coco(source, SCENES), ["--names", "=oak"], "KEY=NAME with both sides"),
        (
            lambda source: write_coco(source, SCENES),
            ["--validation_share", "0.2"],
            "2 photographs for validation already",
        ),
        (lambda source: write_coco(source, SCENES), ["--validation_share", "1.5"], r"in \(0, 1\); got 1.5"),
        (lambda source: write_suffixes(source, SCENES), ["--group_by", "("], "--group_by takes a regular expression"),
        (lambda source: write_suffixes(source, SCENES), ["--group_by", "x"], "matches nothing in the names of 7"),
    ],
)
def test_wrong_input_has_words_and_writes_nothing(source, target, make, words, message):
    make(source)
    with pytest.raises(ValueError, match=message):
        run(source, target, *words)
    assert not target.exists()


def test_what_is_there_already_stays(source, target):
    write_coco(source, SCENES)
    write_text(target / "thesis.txt", "mine")
    with pytest.raises(ValueError, match="no import has made it"):
        run(source, target, "--overwrite")
    assert [path.name for path in target.iterdir()] == ["thesis.txt"]
    shutil.rmtree(target)
    assert run(source, target) == 0
    with pytest.raises(ValueError, match="--overwrite"):
        run(source, target)
    with pytest.raises(ValueError, match="lie in each other"):
        run(source, source / "my_data")


def test_a_share_keeps_copies_together(source, target, capsys):
    """Augmented copies of Roboflow, and the same photograph under two names, at another size and quality."""
    scenes = make_scenes(8, 0)
    for scene in scenes:
        for copy in range(3):
            stem = f"{scene.stem}_jpg.rf.{copy}{scene.stem[-1]}0a1b2c3d4e"
            save(source / f"{stem}.jpg", scene.pixels, quality=95 - 20 * copy)
            save(source / f"{stem}_mask.png", scene.ids)
        save(source / f"{ord(scene.stem[-1])}.png", scene.pixels)
        save(source / f"{ord(scene.stem[-1])}_mask.png", scene.ids)
    write_text(source / "classes.txt", "".join(f"{name}\n" for name in NAMES))
    assert run(source, target, "--validation_share", "0.25", "--seed", "3") == 0
    assert "8 groups" in capsys.readouterr().out
    split_of = {name: split for name, (split, _, _) in written(target).items()}
    assert sum(split == "validation" for split in split_of.values()) == 8
    for scene in scenes:
        own = {split for name, split in split_of.items() if name.startswith(scene.stem)}
        assert own == {split_of[str(ord(scene.stem[-1]))]} and len(own) == 1


def save_pairs(source: Path, images: str = "images", masks: str = "masks", scenes=SCENES) -> None:
    for scene in scenes:
        save(source / images / f"{scene.stem}.png", scene.pixels)
        save(source / masks / f"{scene.stem}.png", scene.ids)
    write_text(source / "classes.txt", "".join(f"{name}\n" for name in NAMES))


def test_a_list_for_tests_alone_leaves_the_rest_for_training(source, target):
    save_pairs(source)
    write_text(source / "TestSet1.txt", f"images\\{SCENES[0].stem}.png\n")
    assert run(source, target) == 0
    found = written(target)
    assert [name for name, (split, _, _) in found.items() if split == "test"] == [SCENES[0].stem]
    assert len(found) == len(SCENES) and {split for split, _, _ in found.values()} == {
        "training",
        "validation",
        "test",
    }


def test_a_folder_for_tests_alone_leaves_the_rest_for_training(source, target):
    save_pairs(source, "TEST/images", "TEST/masks", SCENES[:2])
    save_pairs(source, "others/images", "others/masks", SCENES[2:])
    assert run(source, target) == 0
    found = written(target)
    assert sorted(name for name, (split, _, _) in found.items() if split == "test") == [s.stem for s in SCENES[:2]]
    assert len(found) == len(SCENES)


def test_a_part_without_a_label_is_left_out(source, target, capsys):
    """As Cityscapes keeps the labels of its test images to itself."""
    save_pairs(source, "train/images", "train/masks", SCENES[:4])
    save_pairs(source, "test/images", "test/masks", SCENES[4:])
    for scene in SCENES[4:]:
        save(source / "test/masks" / f"{scene.stem}.png", np.full_like(scene.ids, 255))
    assert run(source, target) == 0
    assert (
        len(written(target)) == 4
        and "3 photographs for test, of which no pixel has a class" in capsys.readouterr().out
    )


def test_a_photograph_that_is_there_twice_is_taken_once(source, target, capsys):
    """In a folder of all beside those of the parts, and in another format."""
    save_pairs(source)
    save_pairs(source, "train/images", "train/masks", SCENES[:5])
    save_pairs(source, "test/images", "test/masks", SCENES[5:])
    for scene in SCENES[:2]:
        save(source / "train/tiff/images" / f"{scene.stem}.tif", scene.pixels)
        save(source / "train/tiff/masks" / f"{scene.stem}.png", scene.ids)
    assert run(source, target) == 0
    found = written(target)
    assert set(found) == {scene.stem for scene in SCENES}
    assert {name for name, (split, _, _) in found.items() if split == "test"} == {scene.stem for scene in SCENES[5:]}
    assert f"Left out, as it is there twice ({len(SCENES) + 2})" in capsys.readouterr().out
    counts = sum(np.bincount(scene.ids.ravel(), minlength=len(NAMES)) for scene in SCENES)
    assert (
        sum(np.bincount(ids.ravel(), minlength=len(NAMES)) for _, _, ids in found.values()).tolist() == counts.tolist()
    )


def test_two_annotations_of_a_photograph_are_a_question(source, target):
    save_pairs(source, "images/04_x", "annotations/04_x")
    save_pairs(source, "images/08_x", "annotations/08_x")
    save(source / "annotations/04_x" / f"{SCENES[3].stem}.png", np.zeros_like(SCENES[3].ids))
    with pytest.raises(ValueError, match="are the same photograph, and their annotations differ") as raised:
        run(source, target)
    assert "--masks 'annotations/04_x/*.png' or --masks 'annotations/08_x/*.png'" in str(raised.value)
    assert run(source, target, "--masks", "annotations/08_x/*.png") == 0
    found = written(target)
    assert all(np.array_equal(found[scene.stem][2], scene.ids) for scene in SCENES)


def test_a_list_that_counts_from_1_where_masks_count_from_0_is_a_question(source, target, tmp_path):
    """COCO-Stuff: what labels.txt calls 1 is 0 in the masks, and 255 is unlabelled."""
    save_pairs(source)
    (source / "classes.txt").unlink()
    for scene in SCENES:
        ids = scene.ids.copy()
        ids[:3] = 255
        save(source / "masks" / f"{scene.stem}.png", ids)
    listed = "".join(f"{id}: {name}\n" for id, name in enumerate(("unlabeled", *NAMES)))
    write_text(source / "labels.txt", listed)
    with pytest.raises(ValueError, match="calls 0 unlabelled, but masks hold 0, and 255 too; and none holds 3"):
        run(source, target)
    assert run(source, target, "--names", source / "labels.txt") == 0
    write_text(tmp_path / "mine.txt", "".join(f"{name}\n" for name in NAMES))
    assert run(source, target, "--overwrite", "--names", tmp_path / "mine.txt") == 0
    found = written(target)
    assert (target / "classes.txt").read_text().split() == list(NAMES)
    assert all(np.array_equal(found[scene.stem][2][3:], scene.ids[3:]) for scene in SCENES)


def test_numbers_of_objects_are_named_at_once(source, target):
    for number, scene in enumerate(SCENES):
        save(source / "images" / f"{scene.stem}.png", scene.pixels)
        save(source / "masks" / f"{scene.stem}_anno.bmp", scene.ids * np.uint8(1 + number))
    with pytest.raises(ValueError, match="'others=NAME' names all that are left alike"):
        run(source, target, "--names", "0=soil")
    assert run(source, target, "--names", "0=soil", "others=plant") == 0
    assert (target / "classes.txt").read_text() == "soil\nplant\n"
    found = written(target)
    assert all(np.array_equal(found[scene.stem][2], scene.ids > 0) for scene in SCENES)


def test_masks_that_are_gif(source, target):
    for scene in SCENES:
        save(source / "images" / f"{scene.stem}.tif", scene.pixels)
        ids = Image.fromarray(scene.ids, "P")
        ids.putpalette([0, 0, 0, 9, 200, 7, 70, 1, 70])
        (source / "masks").mkdir(exist_ok=True)
        ids.save(source / "masks" / f"{scene.stem}_mask.gif", optimize=False)
    write_text(source / "classes.txt", "".join(f"{name}\n" for name in NAMES))
    assert run(source, target) == 0
    found = written(target)
    assert all(np.array_equal(found[scene.stem][2], scene.ids) for scene in SCENES)


def test_names_that_would_be_too_long_together(source, target):
    for folder in ("x" * 200, "y" * 200):
        for scene in SCENES[:3] if folder[0] == "x" else SCENES[3:6]:
            name = f"{'z' * 150}{scene.stem[-1] if folder[0] == 'x' else int(scene.stem[-1]) - 3}"
            save(source / folder / "images" / f"{name}.png", scene.pixels)
            save(source / folder / "masks" / f"{name}.png", scene.ids)
    write_text(source / "classes.txt", "".join(f"{name}\n" for name in NAMES))
    assert run(source, target) == 0
    assert len(list(target.glob("images/*/*"))) == len(list(target.glob("annotations/*/*"))) == 6


def lose_photographs(root: Path) -> None:
    shutil.rmtree(root / "images")


def rename_masks(root: Path) -> None:
    for index, path in enumerate(sorted((root / "masks").iterdir())):
        path.rename(path.with_stem(f"Label_{chr(ord('p') + index)}"))


def write_run_lengths(root: Path) -> None:
    shutil.rmtree(root / "masks")
    write_text(root / "train.csv", "ImageId,EncodedPixels\na,1 2\n")


def write_supervisely(root: Path) -> None:
    shutil.rmtree(root / "masks")
    write_text(root / "meta.json", "{}")
    write_text(root / "ds0/ann/a.json", "{}")


@pytest.mark.parametrize(
    "make, message",
    [
        (lose_photographs, "7 files such as .* look like masks, and nothing like their photographs"),
        (rename_masks, "7 files such as images.* look like photographs and 7 files .* their names do not agree"),
        (write_run_lengths, "train.csv seems to hold run lengths"),
        (write_supervisely, "project of Supervisely"),
    ],
)
def test_what_lacks_is_said(source, target, make, message):
    save_pairs(source)
    for path in (source / "images").iterdir():
        path.rename(path.with_stem(f"street {path.stem} a"))
    make(source)
    with pytest.raises(ValueError, match=message):
        run(source, target)


def test_names_that_meet_are_told_apart(source, target):
    for city in ("ulm", "bonn"):
        for index in range(3):
            scene = SCENES[index]
            save(source / "images" / city / f"{index}.jpg", scene.pixels + np.uint8(len(city)))
            save(source / "labels" / city / f"{index}.png", scene.ids)
    write_text(source / "classes.txt", "".join(f"{name}\n" for name in NAMES))
    assert run(source, target) == 0
    assert set(written(target)) == {f"{city}_{index}" for city in ("ulm", "bonn") for index in range(3)}
