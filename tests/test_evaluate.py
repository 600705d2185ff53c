"""`python -m training.evaluate`: what it writes, by which protocol, and what it refuses."""

import csv
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from modeling_denseclip import DenseCLIPImageProcessor
from tests.tiny import TINY_CLASS_NAMES, draw_picture, save_checkpoint, spread_classes, tiny_model
from training.evaluate import main
from training.reports.evaluation import describe_protocol


SIZE = {"shortest_edge": 64, "longest_edge": 160}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model that gives every class to some pixels, and slides its window."""
    folder = tmp_path_factory.mktemp("checkpoint")
    processor = DenseCLIPImageProcessor(size=SIZE)
    pictures = processor([draw_picture(160, 96, seed) for seed in range(4)], return_tensors="pt").pixel_values
    model = spread_classes(
        tiny_model("resnet", inference_mode="slide", window_size=(64, 64), window_stride=(40, 40)), pictures
    )
    return save_checkpoint(model, processor, folder)


def write_data(folder, reduce=False, names=TINY_CLASS_NAMES, num_images=3):
    folder.mkdir(exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(names))
    generator = np.random.default_rng(0)
    sizes = [(120, 80), (90, 110), (100, 64)]
    for index in range(num_images):
        width, height = sizes[index % len(sizes)]
        mask = np.kron(generator.integers(0, 5, (4, 4)), np.ones((40, 40), dtype=int))[:height, :width]
        mask[:6] = 255
        if reduce:
            mask = np.where(mask == 255, 0, mask + 1)
        for kind in ("images", "annotations"):
            (folder / kind / "validation").mkdir(parents=True, exist_ok=True)
        draw_picture(width, height, index).save(folder / f"images/validation/{index}.png")
        PIL.Image.fromarray(mask.astype(np.uint8)).save(folder / f"annotations/validation/{index}.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def run(*words):
    return main([*map(str, words), "--use_cpu", "true", "--dataloader_num_workers", "0"])


def test_report_is_complete_and_says_its_protocol(checkpoint, data, tmp_path, capsys):
    report = run(checkpoint, "--data_dir", data, "--output_dir", tmp_path)
    assert report == json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert report["protocol"] == {
        "name": "SS",
        "description": "SS, sliding window 64 x 64 with stride 40, short side 64, long side at most 160",
        "inference_mode": "slide",
        "window_size": [64, 64],
        "window_stride": [40, 40],
        "short_side": 64,
        "long_side": 160,
        "scales": [1.0],
        "flip": False,
        "dtype": "float32",
    }
    assert report["dataset"]["num_images"] == 3
    assert sum(entry["pixels"] for entry in report["per_class"]) == 120 * 74 + 90 * 104 + 100 * 58
    rows = list(csv.reader((tmp_path / "per_class.csv").open()))
    assert set(TINY_CLASS_NAMES) <= {cell for row in rows for cell in row}
    for picture in ("confusion_matrix.png", "worst_images.jpg"):
        PIL.Image.open(tmp_path / picture).verify()
    assert report["protocol"]["description"] in capsys.readouterr().out


def test_arguments_override_what_came_with_the_checkpoint(checkpoint, data, tmp_path):
    slide = run(checkpoint, "--data_dir", data, "--output_dir", tmp_path)
    whole = run(checkpoint, "--data_dir", data, "--output_dir", tmp_path, "--inference_mode", "whole")
    small = run(checkpoint, "--data_dir", data, "--output_dir", tmp_path, "--short_side", 48, "--long_side", 100)
    other = run(checkpoint, "--data_dir", data, "--output_dir", tmp_path, "--window_size", 56, "--window_stride", 28)
    assert whole["protocol"]["inference_mode"] == "whole" and whole["protocol"]["window_size"] is None
    assert (small["protocol"]["short_side"], small["protocol"]["long_side"]) == (48, 100)
    assert (other["protocol"]["window_size"], other["protocol"]["window_stride"]) == ([56, 56], [28, 28])
    assert len({result["mean_iou"] for result in (slide, whole, small, other)}) == 4


def test_multi_scale_has_a_report_of_its_own(checkpoint, data, tmp_path):
    run(checkpoint, "--data_dir", data, "--output_dir", tmp_path)
    report = run(checkpoint, "--data_dir", data, "--output_dir", tmp_path, "--multi_scale")
    assert report["protocol"]["name"] == "MS" and report["protocol"]["flip"]
    assert report["protocol"]["scales"] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert json.loads((tmp_path / "metrics.json").read_text())["protocol"]["name"] == "SS"
    assert json.loads((tmp_path / "metrics_multi_scale.json").read_text()) == report


def test_reduced_labels_give_the_same_scores(checkpoint, data, tmp_path):
    (tmp_path / "data").mkdir()
    reduced = write_data(tmp_path / "data", reduce=True)
    expected = run(checkpoint, "--data_dir", data, "--output_dir", tmp_path)
    report = run(checkpoint, "--data_dir", reduced, "--reduce_labels", "true", "--output_dir", tmp_path)
    assert report["per_class"] == expected["per_class"]


def break_files(data):
    """Three files of 40: one is cut off, one is a text, and of one a bit has changed."""
    cut = data / "images/validation/7.png"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (data / "annotations/validation/13.png").write_text("no image")
    flipped = bytearray((data / "annotations/validation/2.png").read_bytes())
    flipped[50] ^= 255  # within the pixels, of which a PNG has a checksum
    (data / "annotations/validation/2.png").write_bytes(flipped)
    return ["images/validation/7.png", "annotations/validation/13.png", "annotations/validation/2.png"]


def test_broken_files_are_named_and_left_out(checkpoint, tmp_path, capsys, monkeypatch):
    """Scores are those of the good files alone, and the exit status says that they are not of all."""
    everything = write_data(tmp_path / "data", num_images=20)
    good = shutil.copytree(everything, tmp_path / "good")
    broken = break_files(everything)
    for name in broken:
        for kind in ("images", "annotations"):
            (good / kind / "validation" / Path(name).name).unlink()
    expected = run(checkpoint, "--data_dir", good, "--output_dir", tmp_path)
    assert "left_out" not in expected["dataset"] and "left out" not in capsys.readouterr().err

    words = [checkpoint, "--data_dir", everything, "--output_dir", tmp_path / "out", "--use_cpu", "true"]
    words += ["--dataloader_num_workers", 0, "--preprocessing_num_workers", 2]
    monkeypatch.setattr(sys, "argv", ["training.evaluate", *map(str, words)])
    for _ in range(2):  # the second time out of the cache
        with pytest.raises(SystemExit) as end:
            runpy.run_module("training.evaluate", run_name="__main__")
        assert end.value.code == 1
        printed = capsys.readouterr()
        report = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert report["per_class"] == expected["per_class"] and report["mean_iou"] == expected["mean_iou"]
        assert report["dataset"]["num_images"] == 17
        assert len(report["dataset"]["left_out"]) == 3
        for name in broken:
            (fault,) = [fault for fault in report["dataset"]["left_out"] if f" {name} cannot be" in fault]
            assert str(everything) not in fault  # the report is published with the model
            assert f"left out: {fault}\n" in printed.err
        assert "17 images were scored, 3 left out." in printed.err
        assert f"Written to: {tmp_path}/out" in printed.out


def test_where_nothing_can_be_read_nothing_is_scored(checkpoint, tmp_path):
    data = write_data(tmp_path / "data")
    for path in (data / "images/validation").iterdir():
        path.write_text("no image")
    with pytest.raises(ValueError, match="0.png cannot be read"):
        run(checkpoint, "--data_dir", data, "--output_dir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_id_is_no_broken_file(checkpoint, tmp_path):
    """It shows that the masks or the names are others: the scores would be of what nobody asked for."""
    data = write_data(tmp_path / "data")
    PIL.Image.new("L", (90, 110), 5).save(data / "annotations/validation/1.png")
    with pytest.raises(ValueError, match=r"1\.png holds the id 5"):
        run(checkpoint, "--data_dir", data, "--output_dir", tmp_path / "out")


@pytest.mark.parametrize("names", [TINY_CLASS_NAMES[::-1], TINY_CLASS_NAMES + ("tree",)])
def test_classes_of_another_order_or_number_are_refused(checkpoint, tmp_path, names):
    write_data(tmp_path, names=names)
    with pytest.raises(ValueError, match="same names in the same order"):
        run(checkpoint, "--data_dir", tmp_path, "--output_dir", tmp_path)


def test_protocol_names_both_strides_where_they_differ():
    model = tiny_model("resnet", inference_mode="slide", window_size=(64, 96), window_stride=(40, 50))
    processor = DenseCLIPImageProcessor(size=SIZE)
    assert "window 64 x 96 with stride 40 x 50" in describe_protocol(model.config, processor)["description"]
    processor.size = {"height": 64, "width": 96}
    protocol = describe_protocol(model.config, processor)
    assert protocol["short_side"] is None and protocol["description"].endswith("resized to 64 x 96")
