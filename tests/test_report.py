# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The written report: that every number in it is the right one, and that names of any kind survive."""

import csv
import json
import os
import re
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch

from training.metrics import (
    draw_confusion_matrix,
    format_scores,
    mean_iou_from_confusion,
    most_confused_pairs,
    write_report,
)
from training.reports.evaluation import advise_on_lost_classes


# Class 0: 6 of 12 pixels hit, 3 false alarms. Class 1: 12 of 16 hit, 4 false alarms. Class 2 is only predicted, and
# class 3 is nowhere.
CONFUSION = torch.tensor([[6, 4, 2, 0], [3, 12, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
IOU, RECALL = (6 / 15, 12 / 20, 0.0), (6 / 12, 12 / 16)
NAMES = ["a | b \\ *c*", 'stone, "road"', "traffic_light\nred", "<b>" + "very " * 60 + "long name"]
PROTOCOL = {
    "name": "SS",
    "description": "SS, whole images, short side 512",
    "inference_mode": "whole",
    "window_size": None,
    "window_stride": None,
    "short_side": 512,
    "long_side": 2048,
    "scales": [1.0],
    "flip": False,
}
DATASET = {"name": "streets", "split": "validation", "num_images": 1234}


def report(folder, **changes):
    arguments = {"class_names": NAMES, "protocol": PROTOCOL, "dataset": DATASET, **changes}
    return write_report(folder, mean_iou_from_confusion(CONFUSION), CONFUSION, **arguments)


def test_terminal_table_is_sorted_and_ends_with_the_means():
    names = ["tree", "stone road", "sign", "fence"]
    lines = format_scores(mean_iou_from_confusion(CONFUSION), names).splitlines()
    assert [line.split() for line in lines[2:6]] == [
        ["stone", "road", "60.00", "75.00"],
        ["tree", "40.00", "50.00"],
        ["sign", "0.00", "-"],
        ["fence", "-", "-"],
    ]
    assert [line.split() for line in lines[7:]] == [
        ["mIoU", "33.33"],
        ["mAcc", "62.50"],
        ["aAcc", "64.29"],
        ["fwIoU", "51.43"],  # (12 x 40 + 16 x 60) / 28
        ["classes", "present", "2", "of", "4"],
    ]


def test_json_holds_every_number_and_no_nan(tmp_path):
    summary = report(tmp_path / "new" / "folder")
    path = tmp_path / "new" / "folder" / "metrics.json"
    assert json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail) == summary
    assert list(summary) == [
        *("protocol", "dataset", "mean_iou", "mean_accuracy", "overall_accuracy", "frequency_weighted_iou"),
        *("num_classes", "num_classes_present", "per_class"),
    ]
    assert summary["protocol"] == PROTOCOL and summary["dataset"] == DATASET
    assert summary["mean_iou"] == pytest.approx(sum(IOU) / 3)
    assert summary["mean_accuracy"] == pytest.approx(sum(RECALL) / 2)
    assert summary["overall_accuracy"] == pytest.approx(18 / 28)
    assert summary["frequency_weighted_iou"] == pytest.approx((12 * IOU[0] + 16 * IOU[1]) / 28)
    assert (summary["num_classes"], summary["num_classes_present"]) == (4, 2)
    assert [tuple(entry.values()) for entry in summary["per_class"]] == [
        (0, NAMES[0], pytest.approx(IOU[0]), pytest.approx(RECALL[0]), 12),
        (1, NAMES[1], pytest.approx(IOU[1]), pytest.approx(RECALL[1]), 16),
        (2, NAMES[2], 0.0, None, 0),
        (3, NAMES[3], None, None, 0),
    ]
    assert list(summary["per_class"][0]) == ["id", "name", "iou", "accuracy", "pixels"]


def test_nothing_labelled_is_written_as_null(tmp_path):
    empty = torch.zeros(1, 1, dtype=torch.int64)
    summary = write_report(tmp_path, mean_iou_from_confusion(empty), empty, ["sky"], PROTOCOL, DATASET)
    assert summary["mean_iou"] is None and summary["overall_accuracy"] is None
    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)


def test_csv_gives_back_names_and_numbers(tmp_path):
    report(tmp_path)
    with (tmp_path / "per_class.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [NAMES[1], NAMES[0], NAMES[2], NAMES[3]]
    assert [row["iou"] for row in rows] == [str(IOU[1]), str(IOU[0]), "0.0", ""]
    assert rows[0] == {
        **{"id": "1", "name": NAMES[1], "iou": str(IOU[1]), "accuracy": "0.75", "pixels": "16"},
        "protocol": "SS",
    }


def test_markdown_states_the_protocol_and_keeps_four_cells_per_row(tmp_path):
    report(tmp_path)
    lines = (tmp_path / "per_class.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "streets, validation, 1,234 images. Protocol: SS, whole images, short side 512."
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[2:8]]
    assert all(len(cells) == 4 for cells in rows)
    # A backslash before punctuation stands for the character itself.
    cells = [[re.sub(r"\\([^A-Za-z0-9\s])", r"\1", cell).strip() for cell in row] for row in rows[2:]]
    assert cells == [
        [NAMES[1], "60.00", "75.00", "16"],
        [NAMES[0], "40.00", "50.00", "12"],
        ["traffic_light red", "0.00", "-", "0"],
        [" ".join(NAMES[3].split()), "-", "-", "0"],
    ]
    assert rows[2 + 3][0].strip().startswith(r"\<b\>")
    assert "mIoU 33.33, mAcc 62.50, aAcc 64.29, fwIoU 51.43 (in per cent); 2 of 4 classes present." in lines


def test_another_summary_leaves_the_first_one_whole(tmp_path):
    report(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    report(tmp_path, protocol={**PROTOCOL, "name": "MS", "flip": True}, summary_name="metrics_multi_scale")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"metrics.json", "per_class.csv", "per_class.md", "confusion_matrix.png"}
    assert set(after) - set(before) == {
        *("metrics_multi_scale.json", "per_class_multi_scale.csv", "per_class_multi_scale.md"),
        "confusion_matrix_multi_scale.png",
    }
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": {**PROTOCOL, "scales": [float("nan")]}},
        {"dataset": {**DATASET, "num_images": {1, 2}}},
        {"class_names": NAMES[:3]},
    ],
)
def test_a_refused_report_leaves_the_old_one_untouched(tmp_path, changes):
    report(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="of JSON|one row|class names"):
        report(tmp_path, **changes)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interrupted_write_leaves_the_old_report_and_no_temporary_file(tmp_path, monkeypatch):
    report(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    replace = os.replace

    def interrupt(source, target):
        if target == tmp_path / "confusion_matrix.png" and source.parent.name != ".former":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("modeling_denseclip.tools.files.saving.os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report(tmp_path, dataset={**DATASET, "name": "other"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_name_that_begins_as_a_formula_is_none_in_a_spreadsheet(name, tmp_path):
    report(tmp_path, class_names=[name, "a = b", *NAMES[2:]])
    with (tmp_path / "per_class.csv").open(encoding="utf-8", newline="") as file:
        names = {row["id"]: row["name"] for row in csv.DictReader(file)}
    assert (names["0"], names["1"]) == (f"'{name}", "a = b")


def test_most_confused_pairs_by_hand():
    assert most_confused_pairs(CONFUSION) == [(0, 1, 4), (1, 0, 3), (0, 2, 2), (1, 2, 1)]
    assert most_confused_pairs(CONFUSION.numpy(), limit=2) == [(0, 1, 4), (1, 0, 3)]
    assert most_confused_pairs(torch.eye(3, dtype=torch.int64)) == []
    assert CONFUSION[0, 0] == 6


@pytest.mark.parametrize("num_labels", [1, 3, 30, 150, 300])
def test_picture_has_each_class_in_its_row_and_column(num_labels):
    # Every class is taken for the next one, and the last for the first.
    confusion = np.roll(1000 * np.eye(num_labels, dtype=int), 1, axis=1)
    names = [f"class {label}" for label in range(num_labels - 1)] + ["long " * 50]
    picture = draw_confusion_matrix(confusion, names)
    assert picture.mode == "RGB" and max(picture.size) < 3200
    # The darkest colour fills one cell in each row and column.
    pixels = np.asarray(picture)
    dark = (pixels == (8, 48, 107)).all(axis=-1)
    dark[:72] = False  # the scale of the colours, beside the names of the columns
    rows, columns = np.flatnonzero(dark.sum(axis=1) > 1), np.flatnonzero(dark.sum(axis=0) > 1)
    side = (rows[-1] - rows[0] + 1) / num_labels
    assert (columns[-1] - columns[0] + 1) / num_labels == pytest.approx(side, abs=1)
    # A little away from the middle, where the numbers are, and from the lines between the cells.
    centers = (np.arange(num_labels) + 0.5 - 0.2 * (side > 20)) * side
    cells = dark[np.ix_((rows[0] + centers).astype(int), (columns[0] + centers).astype(int))]
    assert (cells == (confusion > 0)).all()


def test_picture_tells_absent_classes_and_names_apart():
    confusion = np.array([[4, 0], [0, 0]])
    picture = np.asarray(draw_confusion_matrix(confusion, ["sky", "tree"]))
    assert (picture == (226, 226, 226)).all(axis=-1).sum() > 96 * 96  # the row of the class without labels
    for names in (["sky", "bush"], ["tree", "sky"]):
        assert not np.array_equal(np.asarray(draw_confusion_matrix(confusion, names)), picture)


def test_names_stand_at_their_row_and_column():
    # Of four classes only the second has a name; the matrix begins at its first cell of the darkest colour.
    pixels = np.asarray(draw_confusion_matrix(1000 * np.eye(4, dtype=int), ["", "mmmmmm", "", ""]))
    dark = (pixels == (8, 48, 107)).all(axis=-1)
    dark[:72] = False  # the scale of the colours
    (top, left), cell = np.argwhere(dark)[0], 96
    written = (pixels < 64).all(axis=-1)
    above = [written[:top, left + index * cell : left + (index + 1) * cell].any() for index in range(4)]
    beside = [written[top + index * cell : top + (index + 1) * cell, :left].any() for index in range(4)]
    assert above == beside == [False, True, False, False]


def test_saved_picture_opens(tmp_path):
    report(tmp_path)
    with PIL.Image.open(tmp_path / "confusion_matrix.png") as picture:
        assert picture.format == "PNG" and picture.size == draw_confusion_matrix(CONFUSION, NAMES).size


@pytest.mark.parametrize(
    "confusion, dice_weight, said",
    [
        ([[5, 0], [0, 5]], None, ""),
        ([[5, 0], [3, 0]], None, "'lake' is never predicted where labelled: train with --dice_weight 1.0, see"),
        ([[0, 5], [3, 0]], None, "'land', 'lake' are never predicted where labelled"),
        (
            [[5, 0], [3, 0]],
            1.0,
            "'lake' is never predicted where labelled: train longer, or with --class_weights, see",
        ),
        ([[5, 1], [0, 0]], None, ""),  # there is none
    ],
)
def test_classes_that_are_never_predicted_are_named_with_what_helps(confusion, dice_weight, said):
    trainer = SimpleNamespace(confusion=torch.tensor(confusion), args=SimpleNamespace(dice_weight=dice_weight))
    text = advise_on_lost_classes(trainer, ["land", "lake"])
    assert text.startswith(said) and bool(text) == bool(said)


def test_of_many_classes_that_are_never_predicted_a_few_are_named():
    confusion = torch.zeros(9, 9, dtype=torch.long)
    confusion[:, 0] = 4
    trainer = SimpleNamespace(confusion=confusion, args=SimpleNamespace(dice_weight=None))
    text = advise_on_lost_classes(trainer, list("abcdefghi"))
    assert text.startswith("'b', 'c', 'd', 'e', 'f' and 3 more are never predicted")
