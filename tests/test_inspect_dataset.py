# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The inspector of data sets: each kind of mistake is found, named with its file, and decides the exit code."""

import contextlib
import json
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from modeling_denseclip import DenseCLIPImageProcessor, tokenize_class_names
from modeling_denseclip.tools.insight.explanation import class_similarity, load_text_reader
from modeling_denseclip.tools.pictures.drawing import draw_overlay
from tests.test_duplicates import draw
from tests.test_files import write_tiff
from tests.tiny import make_tiny_tokenizer, tiny_model
from training import train
from training.data import inspection_report
from training.data.findings import _count_ids
from training.data.inspection import find_training_split
from training.data.inspection_report import median_frequency_weights, report_to_json
from training.data.load import check_for_training, load_data
from training.data.transforms import read_pair, with_encoded
from training.importing.advice import advise_import
from training.inspect_dataset import draw_samples, format_report, inspect_dataset, main


STREET_SCENES = Path(__file__).resolve().parents[2] / "shared" / "street-scenes"
NAMES = ["sky", "road", "tree"]
IDS = [[0, 1, 2, 255], [0, 0, 1, 2]]


def write_image(folder: Path, name: str, size=(4, 2), split="training", suffix=".png", **options) -> Path:
    """Noise of its own for every name, so that no two files are equal."""
    path = folder / "images" / split / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(list(f"{split}/{name}".encode()))
    pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_mask(folder: Path, name: str, ids=IDS, split="training", dtype=np.uint8) -> Path:
    path = folder / "annotations" / split / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(ids, dtype=dtype)).save(path)
    return path


def write_pair(folder: Path, name: str, ids=IDS, split="training", suffix=".png") -> tuple[Path, Path]:
    height, width = np.shape(ids)
    return (
        write_image(folder, name, (width, height), split, suffix),
        write_mask(folder, name, ids, split),
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two pairs for training and one for validation, with nothing wrong."""
    folder = tmp_path / "data"
    for split, name in (("training", "a"), ("training", "b"), ("validation", "c")):
        write_pair(folder, name, split=split)
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


def run(folder: Path, *arguments: str) -> tuple[int, dict[str, dict]]:
    """The exit code, and what the written report found: rule -> finding."""
    output_dir = folder.parent / "output"
    code = main([str(folder), "--output_dir", str(output_dir), "--num_workers", "0", *arguments])
    report = json.loads((output_dir / "report.json").read_text(encoding="utf-8"))
    assert report["accepted"] == (code == 0)
    return code, {finding["rule"]: finding for finding in report["findings"]}


def grey_png(ids, bits: int) -> bytes:
    """A greyscale PNG with several ids in a byte, which Pillow reads and never writes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = [np.packbits((np.array(row)[:, None] >> np.arange(bits)[::-1]) & 1).tobytes() for row in ids]
    header = struct.pack(">IIBBBBB", len(ids[0]), len(ids), bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# -------------------------------------------------------------------------------------------------- nothing is wrong


def test_good_data_set_is_accepted_without_findings(folder, capsys):
    assert run(folder) == (0, {})
    text = capsys.readouterr().out
    assert "Training accepts this data set." in text
    assert Image.open(folder.parent / "output" / "contact_sheet.png").width > 3 * 320
    # 9 of 21 labelled pixels of three masks, 3 unlabelled ones of 24.
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert lines["sky"] == ["0", "9", "42.857", "%", "2", "42.857", "%", "1", "42.857", "%", "3"]
    assert lines["unlabelled"] == ["12.50", "%"] * 3


def test_splits_of_other_names(folder, capsys):
    for kind in ("images", "annotations"):
        (folder / kind / "training").rename(folder / kind / "train")
        (folder / kind / "validation").rename(folder / kind / "valid")
    weights = folder.parent / "weights.txt"
    assert run(folder, "--splits", "train", "valid", "--write_class_weights", str(weights)) == (0, {})
    accepted = "Training accepts this data set, with --train_split train --validation_split valid."
    assert accepted in capsys.readouterr().out and len(weights.read_text().split()) == 3
    code, findings = run(folder)
    assert (
        code == 1 and findings["missing_folder"]["found"][0] == "images/training does not exist, beside train, valid"
    )
    with pytest.raises(SystemExit):
        main([str(folder), "--splits", "valid", "test", "--write_class_weights", str(weights)])


@pytest.mark.parametrize(
    "splits, training",
    [
        (["training", "validation"], "training"),
        (["train", "valid", "test"], "train"),
        (["val", "train"], "train"),
        (["Test"], None),
        (["2023", "2024"], "2023"),
    ],
)
def test_which_split_is_trained_on(splits, training):
    assert find_training_split(splits) == training


def test_report_counts_per_split_and_in_all(folder):
    write_pair(folder, "d", [[0, 0, 1], [255, 1, 1]], suffix=".jpg")
    report = report_to_json(inspect_dataset(folder))
    training, everything = report["splits"]["training"], report["all"]
    assert (training["images"], training["masks"], training["pairs"], everything["pairs"]) == (3, 3, 3, 4)
    assert training["image_formats"] == {"PNG": 2, "JPEG": 1} and training["mask_modes"] == {"L": 3}
    assert training["image_sizes"] == [
        {"width": 4, "height": 2, "images": 2},
        {"width": 3, "height": 2, "images": 1},
    ]
    assert (training["pixels"], training["unlabelled_pixels"]) == (22, 3)
    assert [(row["name"], row["pixels"], row["masks"]) for row in training["classes"]] == [
        ("sky", 8, 3),
        ("road", 7, 3),
        ("tree", 4, 2),
    ]
    assert [row["pixels"] for row in everything["classes"]] == [11, 9, 6]


def test_masks_are_ids_in_every_mode(folder):
    ids = np.array(IDS)
    palette_mask = Image.fromarray(np.uint8(ids))
    palette_mask.putpalette([value for index in range(256) for value in (255 - index, 7, 200)])
    palette_mask.save(folder / "annotations/training/a.png")
    write_mask(folder, "b", IDS, dtype=np.uint16)
    assert {Image.open(path).mode for path in folder.glob("annotations/*/*")} == {"P", "I;16", "L"}
    code, findings = run(folder)
    assert code == 0 and list(findings) == ["palette_masks"]
    assert findings["palette_masks"]["found"] == ["annotations/training/a.png"]
    counts = inspect_dataset(folder).splits["training"].pixels
    assert counts == {0: 6, 1: 4, 2: 4, 255: 2}


def test_small_palette_masks_are_not_spread(folder):
    ids = [[0, 1, 2, 2], [0, 0, 1, 1]]
    mask = Image.fromarray(np.uint8(ids))
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    mask.save(folder / "annotations/training/a.png", bits=2)
    assert (folder / "annotations/training/a.png").read_bytes()[24] == 2  # bits per pixel
    code, findings = run(folder)
    assert code == 0 and list(findings) == ["palette_masks"]
    assert inspect_dataset(folder).splits["training"].pixels == {0: 3 + 3, 1: 3 + 2, 2: 2 + 2, 255: 1}


def test_pixels_of_a_large_mask_are_counted_to_the_last():
    ids = np.zeros((1, 2**24 + 2), np.uint8)  # OpenCV counts in float32, which has no 2**24 + 1
    ids[0, -1] = 7
    assert _count_ids(ids) == {0: 2**24 + 1, 7: 1}


def test_a_mask_of_the_first_class_alone_is_no_mistake(folder):
    write_mask(folder, "a", [[0, 0, 255, 255], [0, 0, 0, 0]])
    assert run(folder) == (0, {})


def test_workers_find_the_same(folder):
    for index in range(40):  # more than one chunk for each
        write_pair(folder, f"more{index:02}", [[0, 1, 2]] if index else [[0, 1, 9]])
    alone, together = inspect_dataset(folder), inspect_dataset(folder, num_workers=2)
    assert report_to_json(alone) == report_to_json(together) and alone.drawable == together.drawable
    assert list(alone.findings) == ["wrong_ids"]


def test_photograph_turned_by_exif_needs_an_upright_mask(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(folder, "a", (4, 2), exif=exif)
    write_mask(folder, "a", np.array(IDS).T)
    code, findings = run(folder)
    assert code == 0 and list(findings) == ["turned_images"]
    assert findings["turned_images"]["found"] == ["images/training/a.png: orientation 6"]

    write_mask(folder, "a", IDS)
    code, findings = run(folder)
    (found,) = findings["other_size"]["found"]
    assert code == 1 and found.startswith("annotations/training/a.png: 4 x 2, the image 2 x 4, turned by its EXIF")


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_with_something_behind_it_is_whole(folder, progressive):
    path = write_image(folder, "a", suffix=".jpg", progressive=progressive)
    (folder / "images/training/a.png").unlink()
    path.write_bytes(path.read_bytes() + b"camera's notes")
    assert run(folder) == (0, {})


def test_other_formats_under_a_known_suffix_are_read_as_what_they_are(folder):
    path = folder / "images/training/a.png"
    Image.open(path).save(path, format="BMP")
    assert run(folder) == (0, {})
    data = path.read_bytes()
    path.write_bytes(data[:-4])
    assert list(run(folder)[1]) == ["unreadable"]


# ------------------------------------------------------------------------------------------- what training refuses


def cut(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])


def damage_image_without_mask(folder):
    (folder / "annotations/training/b.png").unlink()


def damage_mask_without_image(folder):
    write_mask(folder, "z", split="validation")


def damage_cut_jpeg(folder):
    (folder / "images/training/a.png").unlink()
    cut(write_image(folder, "a", (64, 48), suffix=".jpg"), 0.9)
    write_mask(folder, "a", np.arange(64 * 48).reshape(48, 64) % 3)


def damage_cut_progressive_jpeg(folder):
    (folder / "images/training/a.png").unlink()
    cut(write_image(folder, "a", (64, 48), suffix=".jpeg", progressive=True), 0.9)
    write_mask(folder, "a", np.arange(64 * 48).reshape(48, 64) % 3)


def damage_cut_png(folder):
    cut(write_image(folder, "a", (64, 48)), 0.9)
    write_mask(folder, "a", np.arange(64 * 48).reshape(48, 64) % 3)


def damage_flipped_png(folder):
    path = folder / "images/training/a.png"
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 10] ^= 255
    path.write_bytes(data)


def damage_empty_image(folder):
    (folder / "images/training/a.png").write_bytes(b"")


def damage_cut_mask(folder):
    cut(folder / "annotations/training/a.png", 0.7)


def damage_other_size(folder):
    write_mask(folder, "a", np.array(IDS).T)


def damage_colour_mask(folder):
    Image.new("RGB", (4, 2)).save(folder / "annotations/training/a.png")


def damage_bilevel_mask(folder):
    Image.fromarray(np.array(IDS) == 1).save(folder / "annotations/training/a.png")


def damage_bit_depth(folder):
    (folder / "annotations/training/a.png").write_bytes(grey_png([[0, 1, 2, 2], [0, 0, 1, 1]], bits=4))


def damage_wrong_id(folder):
    write_mask(folder, "a", [[0, 1, 2, 7], [7, 0, 254, 255]])


def damage_wrong_16_bit_id(folder):
    write_mask(folder, "a", [[0, 1, 2, 300], [0, 0, 0, 255]], dtype=np.uint16)


def damage_same_name(folder):
    write_image(folder, "a", suffix=".jpg")


def damage_missing_folder(folder):
    for path in folder.glob("*/validation/*"):
        path.unlink()
    (folder / "annotations/validation").rmdir()


def damage_class_names(folder):
    (folder / "classes.txt").write_text("sky\nroad\nsky\n")


def damage_binary(folder):
    (folder / "classes.txt").write_text("wall\ncrack\n")
    for split, name in (("training", "a"), ("training", "b"), ("validation", "c")):
        write_mask(folder, name, [[0, 255, 0, 0], [0, 0, 255, 0]], split)


def damage_lossy(folder):
    (folder / "classes.txt").write_text("wall\ncrack\n")
    write_mask(folder, "a", [[0, 1, 254, 255], [2, 0, 250, 255]])
    for split, name in (("training", "b"), ("validation", "c")):
        write_mask(folder, name, [[0, 0, 0, 255], [0, 0, 0, 255]], split)


def damage_unlabelled(folder):
    write_mask(folder, "c", np.full((2, 4), 255), "validation")


@pytest.mark.parametrize(
    "damage, rule, found",
    [
        (damage_image_without_mask, "image_without_mask", ["images/training/b.png"]),
        (damage_mask_without_image, "mask_without_image", ["annotations/validation/z.png"]),
        (
            damage_cut_jpeg,
            "unreadable",
            ["images/training/a.jpg: it cannot be read as an image: image file is"],
        ),
        (
            damage_cut_progressive_jpeg,
            "unreadable",
            ["images/training/a.jpeg: it cannot be read as an"],
        ),
        (
            damage_cut_png,
            "unreadable",
            ["images/training/a.png: it cannot be read as an image: image file is"],
        ),
        (damage_flipped_png, "unreadable", ["images/training/a.png: "]),
        (damage_empty_image, "unreadable", ["images/training/a.png: it cannot be read as an image: cannot identify"]),
        (damage_lossy, "lossy_masks", ["16.7% of the pixels are neither 0 nor 255"]),
        (damage_cut_mask, "unreadable", ["annotations/training/a.png: "]),
        (damage_other_size, "other_size", ["annotations/training/a.png: 2 x 4, the image 4 x 2"]),
        (damage_colour_mask, "mask_mode", ["annotations/training/a.png: mode RGB"]),
        (damage_bilevel_mask, "mask_mode", ["annotations/training/a.png: mode 1"]),
        (damage_bit_depth, "mask_bit_depth", ["annotations/training/a.png: 4 bits"]),
        (
            damage_wrong_id,
            "wrong_ids",
            [
                "id 7: 2 pixels in 1 masks: annotations/training/a.png",
                "id 254: 1 pixels in 1 masks: annotations/training/a.png",
            ],
        ),
        (damage_wrong_16_bit_id, "wrong_ids", ["id 300: 1 pixels in 1 masks: annotations/training/a.png"]),
        (damage_same_name, "same_name", ["images/training/a.jpg and a.png"]),
        (
            damage_missing_folder,
            "missing_folder",
            ["images/validation holds no .bmp", "annotations/validation does not exist, beside training"],
        ),
        (damage_class_names, "class_names", ["{folder}/classes.txt names 'sky' twice"]),
        (damage_binary, "binary_masks", ["3 masks"]),
        (damage_unlabelled, "nothing_labelled", ["validation: 1 masks"]),
    ],
)
def test_what_training_refuses_is_found_and_named(folder, capsys, damage, rule, found):
    damage(folder)
    code, findings = run(folder)
    assert code == 1 and findings[rule]["level"] == "error"
    assert len(findings[rule]["found"]) == len(found)
    for item, start in zip(findings[rule]["found"], found, strict=True):
        assert item.startswith(start.format(folder=folder))
    errors = [finding for finding in findings.values() if finding["level"] == "error"]
    assert [finding["rule"] for finding in errors] == [rule] or damage in (damage_unlabelled, damage_binary)
    text = capsys.readouterr().out
    assert all(finding["title"] in text and f"-> {finding['fix']}" in text for finding in errors)
    assert "Training refuses this data set" in text and found[0].format(folder=folder) in text


def test_all_is_found_in_one_run_and_errors_come_last(folder, capsys):
    for damage in (damage_image_without_mask, damage_mask_without_image, damage_other_size, damage_class_names):
        damage(folder)
    write_pair(folder, "d", [[0, 1, 2, 255]])
    (folder / "images/training/d.png").write_bytes(b"nothing")
    (folder / "images/training/e.bmp").write_bytes(b"nothing")
    code, findings = run(folder)
    assert code == 1
    assert [rule for rule, finding in findings.items() if finding["level"] == "error"] == [
        "class_names",
        "image_without_mask",
        "mask_without_image",
        "unreadable",
        "other_size",
    ]
    text = capsys.readouterr().out
    assert 0 < text.index("WARNING") < text.index("ERROR") and text.rindex("WARNING") < text.index("ERROR")


def test_missing_class_names_do_not_hide_the_ids(folder):
    (folder / "classes.txt").unlink()
    code, findings = run(folder)
    assert code == 1 and list(findings) == ["class_names"]
    assert "classes.txt does not exist" in findings["class_names"]["found"][0]
    assert "ids up to 2" in findings["class_names"]["fix"]
    assert inspect_dataset(folder).class_names == ["id 0", "id 1", "id 2"]


def test_terminal_shows_five_of_many_and_the_file_has_all(folder, capsys):
    for index in range(9):
        write_image(folder, f"more{index}")
    code, findings = run(folder)
    assert code == 1 and len(findings["image_without_mask"]["found"]) == 9
    text = capsys.readouterr().out
    assert "Images without a mask (9)" in text and "and 4 more" in text
    assert "more4.png" in text and "more5.png" not in text


# ------------------------------------------------------------------------- training accepts what inspection accepts


def odd_narrow_image_to_validate(folder):
    write_image(folder, "c", (300, 3), "validation")
    write_mask(folder, "c", np.ones((3, 300)), "validation")


def odd_narrow_image_to_validate_turned(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(folder, "c", (300, 3), "validation", exif=exif)
    write_mask(folder, "c", np.ones((300, 3)), "validation")


def odd_narrow_image_to_train_on(folder):  # crops are padded
    write_image(folder, "a", (300, 3))
    write_mask(folder, "a", np.ones((3, 300)))


def odd_image_format(folder):
    Image.open(folder / "images/training/a.png").convert("P").save(folder / "images/training/a.png", "GIF")


def odd_mask_format(folder):
    Image.open(folder / "annotations/training/a.png").save(folder / "annotations/training/a.png", "GIF")


def odd_jpeg_as_mask(folder):
    Image.open(folder / "annotations/training/a.png").save(folder / "annotations/training/a.png", "JPEG")


def odd_tiff_as_mask(folder):
    Image.open(folder / "annotations/training/a.png").save(folder / "annotations/training/a.png", "TIFF")


def odd_negative_id(folder):
    write_tiff_mask(folder, -3)


def odd_huge_id(folder):
    write_tiff_mask(folder, 2**31 - 1)


def write_tiff_mask(folder, label):
    ids = np.array(IDS, dtype=np.int32)
    ids[0, 0] = label
    Image.fromarray(ids).save(folder / "annotations/training/a.png", "TIFF")


def odd_mask_turned_alone(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "annotations/training/a.png").save(folder / "annotations/training/a.png", exif=exif)


def odd_image_turned_by_xmp(folder):
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    path = write_image(folder, "a", suffix=".jpg")
    path.write_bytes(
        path.read_bytes()[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + path.read_bytes()[2:]
    )
    (folder / "images/training/a.png").unlink()
    write_mask(folder, "a", np.array(IDS).T)


def odd_exif(folder):
    data = b"Exif\0\0nothing that could be read"
    path = folder / "images/training/a.png"
    Image.open(path).save(path, exif=data)


def odd_hidden_file(folder):
    (folder / "images/training/..png").write_bytes(b"")


def odd_link_to_nothing(folder):
    (folder / "images/training/a.png").unlink()
    (folder / "images/training/a.png").symlink_to(folder / "nowhere.png")


def odd_folder_as_image(folder):
    (folder / "images/training/a.png").unlink()
    (folder / "images/training/a.png").mkdir()


def odd_no_label_but_the_first(folder):
    """No mask holds both 0 and 255 alone, and all of them together do."""
    for split, name, label in (("training", "a", 0), ("training", "b", 0)):
        write_mask(folder, name, np.full((2, 4), label), split)
    write_mask(folder, "c", [[0, 255, 0, 0], [0, 0, 255, 0]], "validation")


def odd_empty_name(folder):
    (folder / "classes.txt").write_text("sky\n _ \ntree\n")


def odd_same_names(folder):
    (folder / "classes.txt").write_text("tall tree\nroad\ntall_Tree\n")


def odd_grey_with_premultiplied_alpha(folder):
    values, alpha = np.full((2, 4), 100, np.uint8), np.full((2, 4), 200, np.uint8)
    path = folder / "images/training/a.png"
    write_tiff(path, np.dstack([values, alpha]), 1, extra_samples=(1,))
    try:
        Image.open(path).close()
    except UnidentifiedImageError:
        pytest.skip("this release of Pillow knows no such TIFF")


def odd_named_pipe(folder):
    (folder / "annotations/training/a.png").unlink()
    os.mkfifo(folder / "annotations/training/a.png")


def odd_link_to_itself(folder):
    (folder / "images/training/a.png").unlink()
    (folder / "images/training/a.png").symlink_to("a.png")


def odd_name_of_another_encoding(folder):
    for kind in ("images", "annotations"):
        os.rename(folder / kind / "training/a.png", os.fsencode(folder / kind / "training") + b"/stra\xdfe.png")


def odd_letter_in_a_class_name(folder):
    (folder / "classes.txt").write_text("sky\nroad\x1b[2J\ntree\n")


def odd_noise_as_mask(folder):
    size = (300, 300)
    write_image(folder, "a", size)
    values = np.random.default_rng(0).permutation(size[0] * size[1]).reshape(size)
    Image.fromarray(values.astype(np.int32)).save(folder / "annotations/training/a.png", "TIFF")


def odd_second_frame(folder):
    for path in folder.glob("*/training/a.png"):
        first = Image.open(path)
        first.load()
        first.save(path, "PNG", save_all=True, append_images=[Image.new(first.mode, first.size, 200)])


def odd_second_page(folder):
    for path in folder.glob("*/training/a.png"):
        first = Image.open(path)
        first.load()
        first.save(path, "TIFF", save_all=True, append_images=[Image.new(first.mode, (9, 9), 200)])


@pytest.mark.parametrize(
    "change, accepted",
    [
        (odd_narrow_image_to_validate, False),
        (odd_narrow_image_to_validate_turned, False),
        (odd_narrow_image_to_train_on, True),
        (odd_image_format, False),
        (odd_mask_format, False),
        (odd_jpeg_as_mask, False),
        (odd_tiff_as_mask, True),
        (odd_negative_id, False),
        (odd_huge_id, False),
        (odd_mask_turned_alone, False),
        (odd_image_turned_by_xmp, True),
        (odd_exif, True),
        (odd_hidden_file, True),
        (odd_link_to_nothing, False),
        (odd_folder_as_image, False),
        (odd_no_label_but_the_first, False),
        (odd_empty_name, False),
        (odd_same_names, False),
        (odd_grey_with_premultiplied_alpha, True),
        (odd_named_pipe, False),
        (odd_link_to_itself, False),
        (odd_name_of_another_encoding, False),
        (odd_letter_in_a_class_name, False),
        (odd_noise_as_mask, False),
        (odd_second_frame, True),
        (odd_second_page, True),
    ],
)
def test_training_accepts_what_inspection_accepts(folder, tmp_path, change, accepted):
    change(folder)
    assert inspect_dataset(folder).accepted == accepted
    image_processor = DenseCLIPImageProcessor(size={"shortest_edge": 512, "longest_edge": 2048})
    try:
        data = load_data(data_dir=folder, cache_dir=tmp_path / "cache")
        check_for_training(data, image_processor)
    except ValueError:
        assert not accepted
        return
    assert accepted
    # What was accepted can be read to its end.
    for rows in (data.train, data.validation):
        for row in with_encoded(rows, "image", "annotation"):
            read_pair(row["image"], row["annotation"], row["index"], image_processor)


def test_whether_an_image_is_too_narrow_depends_on_the_sizes_of_training(folder, tmp_path):
    write_image(folder, "c", (50, 100), "validation")
    write_mask(folder, "c", np.ones((100, 50)), "validation")
    data = load_data(data_dir=folder, cache_dir=tmp_path / "cache")
    for short_side, long_side, least, accepted in (
        (512, 2048, 32, True),
        (64, 64, 32, True),  # 64 x 32
        (64, 62, 32, False),  # 62 x 31
        (64, 64, 33, False),
        (31, 2048, 32, False),
        (16, 2048, 16, True),
    ):
        sizes = {"short_side": short_side, "long_side": long_side, "min_image_size": least}
        assert inspect_dataset(folder, **sizes).accepted == accepted
        image_processor = DenseCLIPImageProcessor(size={"shortest_edge": short_side, "longest_edge": long_side})
        with contextlib.nullcontext() if accepted else pytest.raises(ValueError, match=f"have at least {least}"):
            check_for_training(data, image_processor, least)
    code, findings = run(folder, "--short_side", "64", "--long_side", "62")
    assert code == 1 and findings["narrow_images"]["found"] == [
        "images/validation/c.png: 50 x 100, of which the model sees 31 x 62; both sides must have at least 32"
    ]


def test_ade20k_is_found_and_its_options_are_refused_as_in_training(tmp_path):
    folder = tmp_path / "ADEChallengeData2016"
    for split, name in (("training", "ADE_train_1"), ("validation", "ADE_val_1")):
        write_pair(folder, name, np.arange(151).repeat(4).reshape(4, 151), split, suffix=".jpg")
    assert inspect_dataset(tmp_path, "ade20k").accepted
    for function in (lambda: inspect_dataset(folder, "ade20k", False), lambda: load_ade20k(folder)):
        with pytest.raises(ValueError, match="0 is unlabelled in it; received reduce_labels=False"):
            function()


def load_ade20k(folder):
    return load_data("ade20k", folder, reduce_labels=False)


# -------------------------------------------------------------------------------------------- labels that count from 1


def test_ids_from_1_to_k_get_the_hint_and_are_accepted_reduced(folder):
    for split, name in (("training", "a"), ("training", "b"), ("validation", "c")):
        write_mask(folder, name, [[1, 2, 3, 255], [1, 1, 2, 3]], split)
    code, findings = run(folder)
    assert (
        code == 1 and "1 to 3, so 0 means unlabelled here: pass --reduce_labels true" in findings["wrong_ids"]["fix"]
    )
    assert run(folder, "--reduce_labels", "true") == (0, {})
    classes = report_to_json(inspect_dataset(folder, reduce_labels=True))["splits"]["training"]["classes"]
    assert [row["pixels"] for row in classes] == [6, 4, 4]


def test_ids_from_0_to_k_get_both_ways_out(folder):
    write_mask(folder, "a", [[0, 0, 0, 0], [0, 1, 2, 3]])
    code, findings = run(folder)
    fix = findings["wrong_ids"]["fix"]
    # 5 + 3 + 3 of 24 pixels are 0.
    assert code == 1 and "0 (45.8% of all pixels)" in fix and "--reduce_labels true" in fix and "classes.txt" in fix
    report = inspect_dataset(folder, reduce_labels=True)
    assert report.accepted and report.unlabelled(report.total.pixels) == 11 + 2


def test_other_wrong_ids_get_no_such_hint(folder):
    damage_wrong_id(folder)
    assert "--reduce_labels" not in run(folder)[1]["wrong_ids"]["fix"]


def test_reduced_ids_above_k_are_refused_as_stored(folder):
    write_mask(folder, "a", [[0, 1, 2, 3], [4, 4, 4, 255]])
    code, findings = run(folder, "--reduce_labels", "true")
    assert code == 1 and findings["wrong_ids"]["found"][0].startswith("id 4: 3 pixels")


def test_reducing_masks_that_count_from_0_is_suspected(folder):
    code, findings = run(folder, "--reduce_labels", "true")
    assert code == 0 and findings["reduced_by_mistake"]["level"] == "warning"
    assert findings["classes_never_seen"]["found"] == ["training, 1 of 3: tree", "validation, 1 of 3: tree"]


def test_reducing_binary_masks_leaves_nothing(folder):
    damage_binary(folder)
    code, findings = run(folder, "--reduce_labels", "true")
    assert code == 1 and findings["nothing_labelled"]["found"] == ["training: 2 masks", "validation: 1 masks"]


def test_ade20k_has_150_classes_and_reduces_them(tmp_path):
    folder = tmp_path / "ADEChallengeData2016"
    for split, name in (("training", "ADE_train_1"), ("validation", "ADE_val_1")):
        write_pair(folder, name, np.arange(151).repeat(4).reshape(4, 151), split, suffix=".jpg")
    assert run(folder, "--dataset", "ade20k") == (0, {})
    report = inspect_dataset(folder, "ade20k")
    assert len(report.class_names) == 150 and report.class_names[7] == "bed"
    assert (report.per_class(report.splits["training"].pixels) == 4).all()
    write_mask(folder, "ADE_train_1", np.arange(302).repeat(2).reshape(4, 151), dtype=np.uint16)
    code, findings = run(folder, "--dataset", "ade20k")
    assert code == 1 and "full ADE20K" in findings["wrong_ids"]["fix"]
    assert len(findings["wrong_ids"]["found"]) == 301 - 150 - 1  # 151 to 301 without 255


# ----------------------------------------------------------------------------------- what training accepts, with doubt


def doubt_left_out(folder):
    (folder / "images/training/x.svg").write_bytes(b"nothing")
    (folder / "images/training/.hidden").write_bytes(b"nothing")
    (folder / "annotations/training/city").mkdir()


def doubt_two_splits(folder):
    (folder / "images/validation/c.png").write_bytes((folder / "images/training/b.png").read_bytes())


def doubt_rare_class(folder):
    ids = np.zeros((20, 30))
    ids[:, 20:], ids[3, 4:13] = 1, 2  # 9 pixels, beside 4 in the other pair
    write_pair(folder, "b", ids)


def doubt_twice(folder):
    (folder / "images/training/a.png").write_bytes((folder / "images/training/b.png").read_bytes())


def doubt_unlabelled_mask(folder):
    write_mask(folder, "a", np.full((2, 4), 255))


def doubt_never_seen(folder):
    (folder / "classes.txt").write_text("\n".join([*NAMES, "car", "bus"]))
    write_mask(folder, "a", [[0, 1, 2, 3], [0, 0, 0, 255]])


def doubt_not_in_training(folder):
    (folder / "classes.txt").write_text("\n".join([*NAMES, "car"]))
    write_mask(folder, "c", [[0, 1, 2, 3], [0, 0, 0, 255]], "validation")


def doubt_deep_image(folder):
    Image.fromarray(np.full((2, 4), 1000, dtype=np.uint16)).save(folder / "images/training/a.png")


def doubt_some_binary(folder):
    (folder / "classes.txt").write_text("wall\ncrack\n")
    write_mask(folder, "a", [[0, 255, 0, 0], [0, 0, 255, 0]])
    write_mask(folder, "b", [[0, 1, 0, 0], [0, 0, 1, 0]])
    write_mask(folder, "c", [[0, 1, 0, 0], [0, 0, 1, 0]], "validation")


@pytest.mark.parametrize(
    "doubt, rule, found",
    [
        (doubt_left_out, "files_left_out", ["images/training: 1 files *.svg", "annotations/training: 1 folders"]),
        (doubt_two_splits, "same_picture_in_two_splits", ["images/training/b.png = images/validation/c.png"]),
        (doubt_rare_class, "rare_classes", ["tree: 1.81%"]),
        (doubt_twice, "same_picture_twice", ["images/training/a.png = images/training/b.png"]),
        (doubt_unlabelled_mask, "unlabelled_masks", ["annotations/training/a.png"]),
        (doubt_never_seen, "classes_never_seen", ["training, 1 of 5: bus", "validation, 2 of 5: car, bus"]),
        (doubt_not_in_training, "classes_not_in_training", ["validation: car"]),
        (doubt_deep_image, "deep_images", ["images/training/a.png: mode I;16"]),
        (doubt_some_binary, "some_binary_masks", ["annotations/training/a.png"]),
    ],
)
def test_doubts_are_warnings(folder, doubt, rule, found):
    doubt(folder)
    code, findings = run(folder)
    assert code == 0 and findings[rule]["level"] == "warning" and findings[rule]["found"] == found
    assert len(findings) == 1 or doubt is doubt_not_in_training  # there, training never sees it either


# ---------------------------------------------------------------------------------------------------- names of classes


@pytest.mark.parametrize(
    "names, found",
    [
        (["sky", "roads", "road"], ["road / roads"]),
        (["bus", "buses", "tree"], ["bus / buses"]),
        (["city", "sky", "cities"], ["city / cities"]),
        (["t-shirt", "sky", "T Shirt!"], ["t-shirt / T Shirt!"]),
        (["sky", "caf\u00e9", "cafe"], ["café / cafe"]),
        (["traffic light", "trafficlights", "sky"], ["traffic light / trafficlights"]),
        (["glass", "bus", "grass"], None),
        (["pin", "pine", "pineapple"], None),
        (["道", "空", "木"], None),
    ],
)
def test_names_that_are_nearly_the_same_are_warned_of(folder, names, found):
    (folder / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    code, findings = run(folder)
    assert code == 0 and list(findings) == ([] if found is None else ["nearly_the_same_names"])
    if found is not None:
        assert findings["nearly_the_same_names"]["found"] == found
        assert findings["nearly_the_same_names"]["level"] == "warning"


def test_names_that_training_takes_for_one_are_refused(folder):
    names = ["traffic light", "sky", "Traffic_Light"]
    (folder / "classes.txt").write_text("\n".join(names))
    code, findings = run(folder)
    assert code == 1 and findings["same_class_names"]["found"] == ["traffic light / Traffic_Light"]
    with pytest.raises(ValueError, match="both called"):
        tokenize_class_names(names, make_tiny_tokenizer())


@pytest.fixture
def reader(tmp_path) -> Path:
    """A model to which "sky" is nearly the same word as "wall"."""
    model = tiny_model("resnet")
    model.tokenizer = make_tiny_tokenizer()
    words = {word: model.tokenizer(word).input_ids[1] for word in ("wall", "sky", "person")}
    table = model.text_encoder.get_input_embeddings().weight.data
    table[words["sky"]] = table[words["wall"]] + 0.05 * table[words["sky"]]
    model.save_pretrained(tmp_path / "reader")
    return tmp_path / "reader"


def test_names_that_a_text_tower_reads_alike_are_warned_of(folder, reader, capsys):
    (folder / "classes.txt").write_text("wall\nperson\nsky")
    assert run(folder) == (0, {})
    code, findings = run(folder, "--similar_names", str(reader))
    (item,) = findings["names_read_alike"]["found"]
    similarity = class_similarity(load_text_reader(str(reader)), ["wall", "person", "sky"])
    assert code == 0 and findings["names_read_alike"]["level"] == "warning"
    assert item == f"wall / sky: cosine {similarity[0, 2]:.3f}" and similarity[0, 2] > 0.9
    assert "hardly tells apart (1)" in capsys.readouterr().out


def test_names_that_training_refuses_are_not_read(folder, tmp_path):
    (folder / "classes.txt").write_text("sky\nSky\ntree")
    code, findings = run(folder, "--similar_names", str(tmp_path / "no model"))
    assert code == 1 and list(findings) == ["same_class_names"]


def test_a_reader_that_is_none_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="no model is neither a file, nor a folder, nor the id of a repository"):
        run(folder, "--similar_names", str(tmp_path / "no model"))


# ------------------------------------------------------------------------------------------------- samples and weights


def test_samples_are_spread_over_the_data_set_and_show_classes(tmp_path, monkeypatch):
    for index in range(7):
        write_pair(tmp_path, f"{index}", np.full((30, 40), 1 + index % 2))
    write_pair(tmp_path, "last", np.full((30, 40), 2), split="validation")
    write_pair(tmp_path, "broken", np.full((30, 40), 2), split="validation")
    damaged = tmp_path / "images/validation/broken.png"
    cut(damaged, 0.5)
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    sheets = []
    monkeypatch.setattr(
        inspection_report,
        "contact_sheet",
        lambda pictures, captions, **options: sheets.append((pictures, captions)) or Image.new("RGB", (400, 20)),
    )
    report = inspect_dataset(tmp_path, reduce_labels=True)
    draw_samples(report, 3)
    draw_samples(report, 100)
    (pictures, captions), (_, everything) = sheets
    assert (
        captions[0] == "training/0"
        and captions[2] == "validation/last"
        and captions[1] in ("training/3", "training/4")
    )
    assert everything == [*(f"training/{index}" for index in range(7)), "validation/last"]
    image = Image.open(tmp_path / "images/training/0.png")
    expected = draw_overlay(image, np.zeros((30, 40), dtype=int), {0: "sky", 1: "road"}, legend=False, faint_id=0)
    assert np.array_equal(np.asarray(pictures[0]), np.asarray(expected))  # the stored 1 is the class 0, the largest


def test_the_sheet_tells_swapped_names_apart(folder):
    sheets = []
    for names in ("sky\nroad\ntree", "road\nsky\ntree"):
        (folder / "classes.txt").write_text(names)
        sheets.append(np.asarray(draw_samples(inspect_dataset(folder), 3)))
    assert sheets[0].shape == sheets[1].shape
    differs = (sheets[0] != sheets[1]).any(axis=(1, 2))
    assert differs[-40:].any() and not differs[:-40].any()  # in the legend below alone


def test_samples_of_turned_and_large_photographs_are_drawn_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the first column is the visual top
    path = write_image(tmp_path, "a", exif=exif)
    Image.fromarray(np.uint8(np.arange(1000) >= 500)[None].repeat(500, axis=0) * 255).save(path, exif=exif)
    write_mask(tmp_path, "a", np.zeros((1000, 500)))
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    sheet = draw_samples(inspect_dataset(tmp_path, splits=["training"]), 4)
    tile = np.asarray(sheet.convert("L")).astype(int)[8 : 8 + 640, 8 : 8 + 320]
    assert tile[:310].max() + 50 < tile[330:630].min()


def test_no_samples_no_sheet(folder):
    assert run(folder, "--num_samples", "0") == (0, {})
    assert not (folder.parent / "output" / "contact_sheet.png").exists()


def test_class_weights_by_hand(tmp_path):
    folder, weights = tmp_path / "data", tmp_path / "weights.txt"
    write_pair(folder, "a", [[0, 0, 0, 0, 0, 0, 1, 1, 255, 255]])
    write_pair(folder, "b", [[0, 0, 2, 2, 2, 2, 2, 2, 2, 2]])
    write_pair(folder, "c", [[3] * 10], split="validation")
    (folder / "classes.txt").write_text("sky\nroad\ntree\nbus\n")
    assert run(folder, "--write_class_weights", str(weights))[0] == 0
    # Frequencies in training: 8 / 20, 2 / 10, 8 / 10, none. Their median is 0.4.
    assert [float(line) for line in weights.read_text().splitlines()] == [1.0, 2.0, 0.5, 1.0]


def test_class_weights_of_a_refused_data_set_are_not_written(folder, capsys):
    damage_wrong_id(folder)
    assert run(folder, "--write_class_weights", str(folder / "weights.txt"))[0] == 1
    assert not (folder / "weights.txt").exists() and "Not written" in capsys.readouterr().out


def test_weights_without_any_pixel_are_one():
    assert median_frequency_weights(np.zeros(3), np.zeros(3)).tolist() == [1, 1, 1]


# ------------------------------------------------------------------------------------------------------- command line


def test_command_line_refuses_nonsense(folder, capsys):
    with pytest.raises(ValueError, match="is no folder"):
        main([str(folder / "nowhere"), "--output_dir", str(folder.parent / "output")])
    for arguments, message in (
        (["--num_workers", "-1"], "at least 0"),
        (["--write_class_weights", "w.txt", "--splits", "validation"], "not among"),
        (["--tokenizer", "here"], "goes with --similar_names"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([str(folder), *arguments])
        assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_street_scenes():
    if not STREET_SCENES.is_dir():
        pytest.skip("the street scenes are not beside this checkout")
    report = inspect_dataset(STREET_SCENES)
    assert report.accepted and report.findings.keys() == {"rare_classes"}
    assert report.findings["rare_classes"][:2] == ["bicyclist: 0.25%", "pedestrian: 0.69%"]
    counted = {split: {**counts.files} for split, counts in report.splits.items()}
    assert counted == {
        "training": {"images": 120, "masks": 120, "pairs": 120},
        "validation": {"images": 32, "masks": 32, "pairs": 32},
    }
    assert len(report.class_names) == 11
    masks = [np.asarray(Image.open(path)) for path in sorted(STREET_SCENES.glob("annotations/validation/*.png"))]
    validation = report.splits["validation"]
    for index in range(11):
        assert report.per_class(validation.pixels)[index] == sum((mask == index).sum() for mask in masks)
        assert report.per_class(validation.masks)[index] == sum((mask == index).any() for mask in masks)
    assert report.unlabelled(validation.pixels) == sum((mask == 255).sum() for mask in masks)
    assert "480 x 360" in format_report(report)


def test_names_in_another_encoding_are_reported_and_written(folder):
    odd_name_of_another_encoding(folder)
    (folder / os.fsdecode(b"images/training/b.stra\xdfe")).write_text("")
    code, findings = run(folder)
    assert code == 1
    assert findings["file_names"]["found"] == [
        r"images/training/stra\udcdfe.png",
        r"annotations/training/stra\udcdfe.png",
    ]
    assert findings["files_left_out"]["found"] == [r"images/training: 1 files *.stra\udcdfe"]
    with pytest.raises(ValueError, match=r"stra\\udcdfe\.png is no text in UTF-8, as data sets store it: rename it"):
        load_data(data_dir=folder)


def test_memory_that_ends_is_the_files_problem(folder, monkeypatch):
    def fail(self):
        raise MemoryError

    monkeypatch.setattr(PngImageFile, "load", fail)
    code, findings = run(folder)
    assert code == 1
    assert "images/training/a.png: it needs more memory than there is" in findings["unreadable"]["found"][0]
    for leave_out_unreadable in (False, True):  # another machine may read it
        with pytest.raises(ValueError, match=r"a\.png needs more memory .*--preprocessing_num_workers"):
            load_data(data_dir=folder, leave_out_unreadable=leave_out_unreadable)


def test_a_mask_of_noise_is_one_finding(folder):
    """Not one for each of its ids."""
    odd_noise_as_mask(folder)
    _, findings = run(folder)
    assert "wrong_ids" not in findings
    said = "it holds 90,000 different ids, as many as no list of classes has"
    assert findings["unreadable"]["found"] == [f"annotations/training/a.png: {said}"]


def test_names_of_files_do_not_look_like_lines_of_the_report(folder, capsys):
    name = "a\n\nTraining accepts this data set.\x1b[A\r"
    write_image(folder, name)
    code, found = run(folder)
    assert code == 1 and found["image_without_mask"]["found"] == [f"images/training/{name}.png"]  # in JSON as it is
    printed = capsys.readouterr().out
    assert "images/training/a\\n\\nTraining accepts this data set.\\x1b[A\\r.png" in printed
    assert "Training accepts this data set." not in printed.splitlines()


def write_coco(folder: Path) -> None:
    (folder / "train").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "train/a.jpg")
    text = json.dumps({"images": [], "annotations": [], "categories": []})
    (folder / "train/_annotations.coco.json").write_text(text)


def write_voc(folder: Path) -> None:
    for kind in ("JPEGImages", "SegmentationClass"):
        (folder / kind).mkdir(parents=True)
        Image.new("L", (8, 8)).save(folder / kind / "a.png")


@pytest.mark.parametrize("write, form", [(write_coco, "COCO"), (write_voc, "masks SegmentationClass")])
def test_a_folder_of_another_form_is_named_with_the_command_that_imports_it(write, form, tmp_path, capsys):
    source = tmp_path / "their data"
    write(source)
    command = f"python -m training.import_data '{source}' my_data"
    assert run(source)[0] == 1
    text = capsys.readouterr().out
    assert f"{source} holds {form}" in text
    assert command in text
    with pytest.raises(ValueError, match=rf"classes\.txt does not exist.*{re.escape(command)}"):
        train.main(["--data_dir", str(source), "--output_dir", str(tmp_path / "out"), "--report_to", "none"])


def test_no_import_is_advised_for_our_own_form_or_an_unknown_one(folder, tmp_path):
    (folder / "labels.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    assert advise_import(folder) == ""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "broken.json").write_text("{")
    assert advise_import(tmp_path / "empty") == advise_import(tmp_path / "not there") == ""


def test_near_duplicates_in_two_splits_are_named(folder):
    def write(name, split, picture, suffix=".jpg", **options):
        write_mask(folder, name, np.arange(120 * 90).reshape(90, 120) % 3, split)
        picture.save(folder / "images" / split / f"{name}{suffix}", **options)

    exif = Image.Exif()
    exif[0x0112] = 8  # stored turned by a quarter: the reader turns it back
    write("one", "training", draw(1, 120, 90), quality=95)
    write("two", "validation", ImageOps.mirror(draw(1, 120, 90)), quality=60)
    write("turned", "training", draw(2, 120, 90).transpose(Image.Transpose.ROTATE_270), exif=exif)
    write("upright", "validation", draw(2, 120, 90), suffix=".png")
    write("other", "validation", draw(3, 120, 90))
    write("twin", "training", draw(4, 120, 90))
    write("twin2", "training", draw(4, 120, 90), quality=40)  # within a split
    code, findings = run(folder)
    assert code == 0 and findings.keys() == {"near_duplicates_in_two_splits", "turned_images"}
    assert findings["near_duplicates_in_two_splits"]["found"] == [
        "images/training/one.jpg ~ images/validation/two.jpg (look alike)",
        "images/training/turned.jpg ~ images/validation/upright.png (look alike)",
    ]


def test_copies_of_one_source_are_known_by_their_names(folder):
    for split, name in (
        *(("training", "street_jpg.rf.0c55cf1a7a3e"), ("validation", "street_jpg.rf.77aacf1a7a31")),
        *(("training", "field_x0_y0"), ("training", "field_x0_y512"), ("validation", "field_x512_y0")),
        *(("training", "1_flip"), ("training", "1"), ("validation", "1")),  # each split counts its own
        *(("training", "frame_1"), ("validation", "frame_2")),
    ):
        write_pair(folder, name, split=split)
    found = run(folder)[1]["near_duplicates_in_two_splits"]["found"]
    assert found == [
        "images/training/field_x0_y0.png, images/training/field_x0_y512.png ~ images/validation/field_x512_y0.png"
        " (by name)",
        "images/training/street_jpg.rf.0c55cf1a7a3e.png ~ images/validation/street_jpg.rf.77aacf1a7a31.png (by name)",
    ]


def test_equal_files_are_named_once(folder):
    for split in ("training", "validation"):
        write_mask(folder, "d", np.zeros((90, 120)), split)
        draw(1, 120, 90).save(folder / "images" / split / "d.png")
    findings = run(folder)[1]
    assert "same_picture_in_two_splits" in findings and "near_duplicates_in_two_splits" not in findings


def test_colours_of_masks_are_listed_with_their_shares(folder, capsys):
    red, black = (255, 0, 77), (0, 0, 0)
    Image.fromarray(np.array([[red, black, black], [black, red, black]], np.uint8)).save(
        folder / "annotations/training/a.png"
    )
    transparent = np.array([[[255, 0, 77, 0], [9, 8, 7, 255], [0, 0, 0, 255]]], np.uint8)
    Image.fromarray(transparent).save(folder / "annotations/validation/c.png")
    write_image(folder, "a", (3, 2))
    write_image(folder, "c", (3, 1), "validation")
    code, findings = run(folder)
    assert code == 1 and "gives each colour its id" in findings["mask_mode"]["fix"]
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("Colours in masks that are no ids: red, green and blue, and share of the pixels")
    assert [" ".join(line.split()) for line in lines[start + 2 : start + 5]] == [
        "#000000 (0, 0, 0) 55.556 %",
        "#ff004d (255, 0, 77) 33.333 %",
        "#090807 (9, 8, 7) 11.111 %",
    ]
    report = json.loads((folder.parent / "output/report.json").read_text())
    assert report["all"]["colours"][1] == {"colour": "#ff004d", "pixels": 3}
    assert report["splits"]["validation"]["colours"][0] == {"colour": "#000000", "pixels": 1}


def test_a_photograph_as_mask_does_not_fill_the_report_with_its_colours(folder, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "annotations/training/a.png")
    assert run(folder)[0] == 1
    assert "and 236 more: report.json lists up to 256" in capsys.readouterr().out
    assert len(json.loads((folder.parent / "output/report.json").read_text())["all"]["colours"]) == 256
