# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Data sets of rows: inspected as folders are, saved ones and those with metadata read, names taken from a model."""

import json
import os
import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest
from packaging.version import parse
from PIL import Image

from modeling_denseclip import DenseCLIPImageProcessor
from tests.test_inspect_dataset import IDS, NAMES, write_image, write_mask, write_pair
from tests.tiny import TINY_CLASS_NAMES, draw_picture, save_checkpoint, tiny_model
from training import evaluate
from training.data.inspection import inspect_pair
from training.data.inspection_report import report_to_json
from training.data.load import check_for_training, load_data, open_source
from training.importing.advice import advise_import, advising_import
from training.importing.importer import import_data
from training.inspect_dataset import inspect_dataset, main


SPLITS = {"train": "training", "validation": "validation"}
FEATURES = datasets.Features({"image": datasets.Image(), "annotation": datasets.Image()})
SIDES = {"short_side": 64, "long_side": 256}


def to_rows(folder: Path, split: str) -> datasets.Dataset:
    """The files of a split of a folder, as they are, in rows that are sorted by name."""
    columns = {"image": [], "annotation": []}
    for image in sorted((folder / "images" / split).iterdir()):
        mask = folder / "annotations" / split / f"{image.stem}.png"
        columns["image"].append({"bytes": image.read_bytes(), "path": image.name})
        columns["annotation"].append({"bytes": mask.read_bytes(), "path": mask.name} if mask.exists() else None)
    return datasets.Dataset.from_dict(columns, features=FEATURES)


def save_rows(folder: Path, target: Path) -> Path:
    rows = {name: to_rows(folder, split) for name, split in SPLITS.items()}
    datasets.DatasetDict(rows).save_to_disk(target)
    return target


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three pairs for training and two for validation, of odd sizes, with nothing wrong."""
    folder = tmp_path / "data"
    for split, name, shape in (
        *(("training", "a", (41, 63)), ("training", "b", (50, 37)), ("training", "c", (40, 40))),
        *(("validation", "d", (45, 71)), ("validation", "e", (33, 33))),
    ):
        write_pair(folder, name, np.resize(IDS, shape), split)
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


def nothing(folder):
    pass


def unknown_id(folder):
    write_mask(folder, "b", np.resize([0, 1, 9], (50, 37)))


def other_size(folder):
    write_mask(folder, "b", np.resize(IDS, (37, 50)))


def jpeg_as_mask(folder):
    Image.fromarray(np.resize(np.uint8(IDS), (50, 37))).save(folder / "annotations/training/b.png", "JPEG")


def colours(folder):
    Image.new("RGB", (37, 50), (255, 0, 77)).save(folder / "annotations/training/b.png")


def cut_image(folder):
    path = folder / "images/training/b.png"
    path.write_bytes(path.read_bytes()[:-2000])


def no_mask(folder):
    (folder / "annotations/training/b.png").unlink()


def narrow(folder):
    write_pair(folder, "d", np.resize(IDS, (300, 5)), "validation")


def nothing_labelled(folder):
    for name, shape in (("d", (45, 71)), ("e", (33, 33))):
        write_mask(folder, name, np.full(shape, 255), "validation")


def same_picture(folder):
    shutil.copy(folder / "images/training/b.png", folder / "images/validation/d.png")
    write_mask(folder, "d", np.resize(IDS, (50, 37)), "validation")


def copies_by_name(folder):
    for kind in ("images", "annotations"):
        (folder / kind / "validation/d.png").rename(folder / kind / "validation/b_flip.png")


def rare_class(folder):
    for name, shape in (("a", (41, 63)), ("b", (50, 37)), ("c", (40, 40))):
        ids = np.resize([0, 1], shape)
        ids[0, :3] = 2
        write_mask(folder, name, ids)


def palette_and_orientation(folder):
    mask = Image.fromarray(np.resize(np.uint8(IDS), (50, 37)))
    mask.putpalette([7] * 768)
    mask.save(folder / "annotations/training/b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(folder, "c", exif=exif)
    write_image(folder, "c", (40, 40), exif=exif)


@pytest.mark.parametrize(
    "change, rule, item",
    [
        (nothing, None, None),
        (unknown_id, "wrong_ids", "id 9: 616 pixels in 1 masks: mask of row 1 in the split 'train'"),
        (other_size, "other_size", "mask of row 1 in the split 'train': 50 x 37, the image 37 x 50"),
        (jpeg_as_mask, "unreadable", "mask of row 1 in the split 'train': it is a JPEG, whatever its name says"),
        (colours, "mask_mode", "mask of row 1 in the split 'train': mode RGB"),
        (cut_image, "unreadable", "image of row 1 in the split 'train': it cannot be read as an image"),
        (no_mask, "image_without_mask", "mask of row 1 in the split 'train' is missing"),
        (
            narrow,
            "narrow_images",
            "image of row 0 in the split 'validation': 5 x 300, of which the model sees 4 x 256",
        ),
        (nothing_labelled, "nothing_labelled", "validation: 2 masks"),
        (
            *(same_picture, "same_picture_in_two_splits"),
            "image of row 1 in the split 'train' = image of row 0 in the split 'validation'",
        ),
        (
            *(copies_by_name, "near_duplicates_in_two_splits"),
            "image of row 1 in the split 'train' ~ image of row 0 in the split 'validation' (by name)",
        ),
        (rare_class, "rare_classes", "tree: 0.15%"),
        (palette_and_orientation, "turned_images", "image of row 2 in the split 'train': orientation 6"),
    ],
)
def test_rows_are_inspected_and_refused_as_their_files_in_a_folder(folder, tmp_path, change, rule, item):
    change(folder)
    saved, names = save_rows(folder, tmp_path / "saved"), {"class_names_file": folder / "classes.txt"}
    expected = report_to_json(inspect_dataset(folder, **SIDES))
    report = inspect_dataset(dataset_name=str(saved), **names, **SIDES)
    written = report_to_json(report)
    assert written["dataset_name"] == str(saved)
    for of_rows, of_files in SPLITS.items():
        assert written["splits"][of_rows] == expected["splits"][of_files]
    found = {finding["rule"]: (finding["level"], len(finding["found"])) for finding in written["findings"]}
    assert found == {entry["rule"]: (entry["level"], len(entry["found"])) for entry in expected["findings"]}
    if rule is None:
        assert found == {}
    else:
        assert report.findings[rule][0].startswith(item)
    # And training: it accepts what the inspection accepts, of either.
    image_processor = DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 256})
    for arguments in ({"dataset_name": str(saved), **names}, {"data_dir": folder}):
        try:
            check_for_training(load_data(**arguments, cache_dir=tmp_path / "cache"), image_processor)
        except ValueError:
            assert not report.accepted
        else:
            assert report.accepted


def test_rows_reach_other_processes(folder, tmp_path):
    """As [`in_processes`] sends them, to where nothing but the files is shared."""
    splits = ("train", "train[1:]")
    form = open_source(dataset_name=str(save_rows(folder, tmp_path / "saved")), splits=splits, class_names=NAMES)
    for split in splits:
        pairs, _ = form.list_pairs(split)
        sent = pickle.dumps(pairs)
        assert len(sent) < 50_000  # paths, and not the pictures
        for pair, received in zip(pairs, pickle.loads(sent), strict=True):
            assert received.encoded() == pair.encoded()
            assert inspect_pair(received, 3, False) == inspect_pair(pair, 3, False)


def test_the_command_writes_what_it_writes_of_folders(folder, tmp_path, capsys):
    saved, out = save_rows(folder, tmp_path / "saved"), tmp_path / "out"
    words = ["--class_names_file", str(folder / "classes.txt"), "--write_class_weights", str(tmp_path / "weights.txt")]
    sheets, weights = [], []
    for source in ([str(folder)], ["--dataset_name", str(saved)]):
        assert main([*source, *words, "--output_dir", str(out)]) == 0
        sheets.append(np.asarray(Image.open(out / "contact_sheet.png")))
        weights.append((tmp_path / "weights.txt").read_text())
    assert weights[0] == weights[1]
    assert sheets[0].shape == sheets[1].shape
    # They differ in the captions alone, which name the split.
    assert (sheets[0] == sheets[1]).all(axis=-1).mean() > 0.95
    assert "Training accepts this data set." in capsys.readouterr().out
    words += ["--train_split", "validation", "--validation_split", "train[1:]", "--output_dir", str(out)]
    assert main(["--dataset_name", str(saved), *words]) == 0
    said = "Training accepts this data set, with --train_split validation --validation_split 'train[1:]'."
    assert said in capsys.readouterr().out
    assert (tmp_path / "weights.txt").read_text() != weights[0]  # of the split to train on, whatever it is called


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "no data set is named"),
        (["a", "--data_dir", "b"], "--data_dir b and a name two folders"),
        (["a", "--splits", "x", "--train_split", "y"], "leave --train_split and --validation_split out"),
    ],
)
def test_contradicting_words_are_refused(words, said, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert said in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- saved rows


def test_one_saved_split_is_parted_by_its_name(folder, tmp_path):
    saved = tmp_path / "saved"
    rows = to_rows(folder, "training")
    rows.save_to_disk(saved)
    before = sorted(os.listdir(saved))
    arguments = {"dataset_name": str(saved), "class_names": NAMES, "cache_dir": tmp_path / "cache"}
    said = r"The split 'validation' of .*saved cannot be loaded: .*\['train'\].*'train\[:80%\]' and 'train\[80%:\]'"
    with pytest.raises(ValueError, match=said):
        load_data(**arguments)
    data = load_data(**arguments, train_split="train[:67%]", validation_split="train[67%:]")
    kept = [np.asarray(rows[index]["annotation"]).tolist() for index in range(3)]
    assert [np.asarray(row["annotation"]).tolist() for row in data.train] == kept[:2]
    assert [np.asarray(row["annotation"]).tolist() for row in data.validation] == kept[2:]
    assert data.validation_split == "train[67%:]" and data.name == "saved"
    assert sorted(os.listdir(saved)) == before  # what is remembered lies elsewhere
    report = inspect_dataset(dataset_name=str(saved), class_names=NAMES)
    assert report.findings_of("error") == ["missing_split"]
    assert report.findings["missing_split"][0].startswith("'validation': Unknown split")
    with pytest.raises(ValueError, match="The split 'train\\[:0%\\]' of .* has no rows"):
        load_data(**arguments, train_split="train[:0%]")
    with pytest.raises(ValueError, match="neither configurations nor folders"):
        load_data(**arguments, dataset_config_name="small")


def test_a_saved_split_that_has_a_name_is_called_by_it(folder, tmp_path):
    saved = save_rows(folder, tmp_path / "saved") / "validation"
    arguments = {"dataset_name": str(saved), "class_names": NAMES, "cache_dir": tmp_path / "cache"}
    assert len(load_data(**arguments, splits=("validation",), validation_split="train").validation) == 2
    rows = datasets.Dataset.from_dict(to_rows(folder, "validation")[:], features=FEATURES, split="validation")
    rows.save_to_disk(tmp_path / "named")
    arguments["dataset_name"] = str(tmp_path / "named")
    assert len(load_data(**arguments, splits=("validation",)).validation) == 2
    with pytest.raises(ValueError, match=r"The split 'train' .*\['validation'\]"):
        load_data(**arguments, splits=("training",))


def test_saved_rows_are_checked_once_until_they_change(folder, tmp_path, monkeypatch):
    from training.data import rows as module

    names = []
    examine_pair = module.examine_pair
    monkeypatch.setattr(module, "examine_pair", lambda *args: (names.append(args[3]), examine_pair(*args))[1])
    saved = save_rows(folder, tmp_path / "saved")
    for number in (5, 5):
        load_data(dataset_name=str(saved), class_names=NAMES, cache_dir=tmp_path / "cache")
        assert len(names) == number
    shutil.rmtree(saved)
    unknown_id(folder)
    save_rows(folder, saved)
    with pytest.raises(ValueError, match="The mask of row 1 in the split 'train' of .* holds the id 9"):
        load_data(dataset_name=str(saved), class_names=NAMES, cache_dir=tmp_path / "cache")


def lose_rows(saved):
    next((saved / "train").glob("*.arrow")).unlink()


def cut_rows(saved):
    path = next((saved / "train").glob("*.arrow"))
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    "damage",
    [
        lose_rows,
        cut_rows,
        lambda saved: (saved / "train/state.json").write_text("{"),
        lambda saved: (saved / "train/state.json").write_text("[]"),
        lambda saved: (saved / "train/dataset_info.json").write_text('{"features": 5}'),
        lambda saved: (saved / "dataset_dict.json").write_text("[1]"),
        lambda saved: (saved / "dataset_dict.json").write_text('{"splits": ["train", "nope"]}'),
    ],
)
def test_saved_rows_that_are_broken_are_named(folder, tmp_path, damage):
    saved = save_rows(folder, tmp_path / "saved")
    damage(saved)
    for use in (load_data, inspect_dataset):
        with pytest.raises(ValueError, match=r"The split 'train' of .*saved cannot be loaded: what save_to_disk"):
            use(dataset_name=str(saved), class_names=NAMES, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("place", [0, 4, -30])
def test_broken_files_of_rows_are_named(folder, tmp_path, place):
    path = tmp_path / "rows" / "train.parquet"
    to_rows(folder, "training").to_parquet(path)
    data = bytearray(path.read_bytes())
    data[place : place + 20] = b"x" * 20
    path.write_bytes(data)
    with pytest.raises(ValueError, match="The split 'train' of .*rows cannot be loaded: .* Splits are named by"):
        load_data(dataset_name=str(tmp_path / "rows"), class_names=NAMES, cache_dir=tmp_path / "cache")


def test_names_of_files_that_are_no_text_are_refused(folder, tmp_path):
    saved = save_rows(folder, tmp_path / "saved")
    path = next((saved / "train").glob("*.arrow"))
    path.write_bytes(path.read_bytes().replace(b"a.pngb.pngc.png", b"a.pngb.pngc.pn\xdf", 1))
    for use in (load_data, inspect_dataset):
        with pytest.raises(ValueError, match="A name of a file in the split 'train' of .*saved is no text in UTF-8"):
            use(dataset_name=str(saved), class_names=NAMES, cache_dir=tmp_path / "cache")


# --------------------------------------------------------------------------------------------- pictures with metadata


def write_metadata(folder: Path, suffix: str) -> Path:
    """Both kinds of files of each split in one folder, and a line on each pair beside them."""
    target = folder.parent / "pictures"
    for of_rows, of_files in SPLITS.items():
        part = target / of_rows
        part.mkdir(parents=True)
        lines = []
        for image in sorted((folder / "images" / of_files).iterdir()):
            shutil.copy(image, part / f"photo_{image.name}")
            shutil.copy(folder / "annotations" / of_files / image.name, part / f"ids_{image.name}")
            lines.append({"file_name": f"photo_{image.name}", "annotation_file_name": f"ids_{image.name}"})
        if suffix == "csv":
            text = "\n".join([",".join(lines[0]), *(",".join(line.values()) for line in lines)])
        else:
            text = "\n".join(map(json.dumps, lines))
        (part / f"metadata.{suffix}").write_text(text)
    return target


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_pictures_with_metadata_are_rows(folder, tmp_path, suffix):
    if suffix == "csv" and parse(datasets.__version__) < parse("4.5") and parse(pandas.__version__) >= parse("3"):
        pytest.skip("this release of datasets takes no text of pandas 3 for names of files")
    unknown_id(folder)
    pictures = write_metadata(folder, suffix)
    arguments = {"dataset_name": str(pictures), "class_names": NAMES, "cache_dir": tmp_path / "cache"}
    report = inspect_dataset(**arguments)
    (found,) = report.findings["wrong_ids"]
    assert found == "id 9: 616 pixels in 1 masks: mask of row 1 in the split 'train'"
    assert {split: counts.files["pairs"] for split, counts in report.splits.items()} == {"train": 3, "validation": 2}
    assert [pair.stem for pair in report.drawable] == [f"photo_{name}" for name in "abcde"]
    with pytest.raises(ValueError, match="The mask of row 1 in the split 'train' of .* holds the id 9"):
        load_data(**arguments)


def test_folders_of_rows_get_words_that_say_so(folder, tmp_path, capsys):
    saved, pictures = save_rows(folder, tmp_path / "my rows"), write_metadata(folder, "jsonl")
    for path, said in ((saved, "was written by save_to_disk"), (pictures, "holds pictures with a metadata file")):
        advice = advise_import(path)
        assert said in advice and "--dataset_name" in advice
        with pytest.raises(ValueError, match=said), advising_import("folder", str(path), None):
            load_data(data_dir=path)
        assert main([str(path), "--output_dir", str(tmp_path / "out")]) == 1
        assert advice in capsys.readouterr().out
    assert f"--dataset_name '{saved}'" in advise_import(saved)
    with pytest.raises(ValueError, match="was written by save_to_disk.*no import is needed"):
        import_data(saved, tmp_path / "target")
    assert advise_import(folder) == ""
    # Other tables are called so too.
    (pictures / "train/metadata.jsonl").unlink()
    (pictures / "validation/metadata.jsonl").write_text('{"file_name": "a", "split": "b"}')
    (pictures / "metadata.csv").write_text("image_id,split,mask_path\n")
    assert "metadata" not in advise_import(pictures)


# ------------------------------------------------------------------------------------------------------ names of rows


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    model = tiny_model("resnet", use_language=False)
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 160})
    return save_checkpoint(model, processor, tmp_path_factory.mktemp("checkpoint"))


def test_rows_without_names_are_scored_by_those_of_the_model(checkpoint, tmp_path, capsys, caplog):
    images = [draw_picture(96, 64, seed) for seed in range(2)]
    masks = [Image.fromarray(np.resize(np.arange(5, dtype=np.uint8), (64, 96))) for _ in images]
    plain = datasets.Dataset.from_dict({"image": images, "annotation": masks}, features=FEATURES)
    words = [
        str(checkpoint),
        "--use_cpu",
        "true",
        "--dataloader_num_workers",
        "0",
        "--output_dir",
        str(tmp_path / "o"),
    ]
    reports = []
    for name, column in (
        ("plain", None),
        ("agrees", list(TINY_CLASS_NAMES)),
        ("differs", [*TINY_CLASS_NAMES[:4], "fog"]),
    ):
        rows = plain
        if column is not None:
            rows = plain.add_column("kind", [0, 1]).cast_column("kind", datasets.ClassLabel(names=column))
        datasets.DatasetDict({"validation": rows}).save_to_disk(tmp_path / name)
        arguments = [*words, "--dataset_name", str(tmp_path / name)]
        caplog.clear()
        if name == "differs":
            with pytest.raises(ValueError, match="differ in id 4: .*'fog'"):
                evaluate.main(arguments)
            continue
        reports.append(evaluate.main(arguments))
        from_model = "taken for the classes of the model, from 0 ('wall') to 4 ('person')" in caplog.text
        assert from_model == (column is None)
    assert [entry["name"] for entry in reports[0]["per_class"]] == list(TINY_CLASS_NAMES)
    assert reports[0]["per_class"] == reports[1]["per_class"]
    # Training has no model whose names it could take; the config of one is a file of names.
    with pytest.raises(ValueError, match="does not say what the ids of its masks mean"):
        load_data(dataset_name=str(tmp_path / "plain"), splits=("validation",))
    report = inspect_dataset(
        dataset_name=str(tmp_path / "plain"), splits=("validation",), class_names_file=checkpoint / "config.json"
    )
    assert report.class_names == list(TINY_CLASS_NAMES) and report.accepted
