# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""`denseclip explain`: what it prints and writes, and what it refuses."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.commands.explain import find_class, run
from modeling_denseclip.tools.insight.explanation import class_similarity
from modeling_denseclip.tools.options.explain import add_arguments, check
from tests.tiny import TINY_CLASS_NAMES, draw_picture, save_checkpoint, spread_classes, tiny_model


WIDTH, HEIGHT = 90, 60


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "street.png"
    draw_picture(WIDTH, HEIGHT).save(path)
    return path


@pytest.fixture(scope="module")
def model_folder(photo, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    # Padding is for batches: a map of a padded image would not lie on the photograph.
    processor = DenseCLIPImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 256}, do_pad=True, pad_size={"height": 128, "width": 192}
    )
    pixel_values = processor(Image.open(photo), do_pad=False, return_tensors="pt").pixel_values
    model = spread_classes(tiny_model("resnet"), pixel_values)
    return save_checkpoint(model, processor, folder)


@pytest.fixture
def explain(model_folder, tmp_path):
    """Runs the command; returns what was written, and the JSON."""

    def explain(*words, model: str | Path = model_folder):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        out = tmp_path / "out"
        args = parser.parse_args([*map(str, words), "--model", str(model), "--out", str(out), "--json"])
        check(args)
        assert run(args) == 0
        numbers = json.loads((out / "explanation.json").read_text(encoding="utf-8"))
        return sorted(path.name for path in out.iterdir()), numbers

    return explain


@torch.no_grad()
def probabilities_of(model_folder: Path, photo: Path) -> torch.Tensor:
    """Of each pixel of the photograph, as post-processing has it: (num_labels, HEIGHT, WIDTH)."""
    model = DenseCLIPForSemanticSegmentation.from_pretrained(model_folder).eval()
    processor = DenseCLIPImageProcessor.from_pretrained(model_folder, do_pad=False)
    outputs = model(**processor(Image.open(photo), return_tensors="pt"))
    results = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[(HEIGHT, WIDTH)], return_segmentation_scores=True
    )
    return results[0]["segmentation_scores"].softmax(dim=0)


def test_pixels_are_explained_as_they_are_predicted(explain, model_folder, photo, capsys):
    written, numbers = explain(photo, "--pixel", 80, 7, "--pixel", 0, HEIGHT - 1)
    assert written == ["explanation.json", "street-pixel-0-59.png", "street-pixel-80-7.png"]
    probabilities, text = probabilities_of(model_folder, photo), capsys.readouterr().out
    assert numbers["photo"] == "street.png" and numbers["classes"] == []
    for pixel, (x, y) in zip(numbers["pixels"], ((80, 7), (0, HEIGHT - 1)), strict=True):
        expected = probabilities[:, y, x]
        assert (pixel["x"], pixel["y"]) == (x, y) and list(pixel["probability"]) == list(TINY_CLASS_NAMES)
        np.testing.assert_allclose(list(pixel["probability"].values()), expected, atol=1e-4)
        best = TINY_CLASS_NAMES[expected.argmax()]
        assert pixel["class"] == best and f"pixel x {x}, y {y}: {best}" in text
        rows = [line for line in text.split(f"pixel x {x}, y {y}")[1].splitlines() if line.startswith(best)]
        shown = (
            f"{100 * expected.max():.1f} %  {pixel['score_before'][best]:12.3f}  {pixel['score_after'][best]:11.3f}"
        )
        assert rows[0].endswith(shown)


def test_classes_are_found_whatever_their_case_and_spaces(explain, photo):
    written, numbers = explain(photo, "--class", "Traffic_Light", "sky")
    assert written == ["explanation.json", "street-class-1-sky.png", "street-class-2-traffic_light.png"]
    assert [entry["class"] for entry in numbers["classes"]] == ["traffic light", "sky"]
    for entry in numbers["classes"]:
        assert sum(entry["mean_probability"].values()) == pytest.approx(1, abs=1e-4)
        assert max(entry["mean_probability"], key=entry["mean_probability"].get) == entry["class"]


def test_without_a_choice_the_largest_classes_are_explained(explain, model_folder, photo):
    written, numbers = explain(photo)
    shares = [entry["share"] for entry in numbers["classes"]]
    areas = probabilities_of(model_folder, photo).argmax(dim=0).flatten().bincount(minlength=5)
    largest = [TINY_CLASS_NAMES[index] for index in areas.argsort(descending=True)[:3]]
    assert len(written) == 4 and shares == sorted(shares, reverse=True)
    assert {entry["class"] for entry in numbers["classes"]} == set(largest)


def test_names_of_the_model_are_compared(explain, model_folder, capsys):
    written, numbers = explain("--names", "--threshold", "-1")
    assert written == ["class-names.png", "explanation.json"]
    similarity = class_similarity(DenseCLIPForSemanticSegmentation.from_pretrained(model_folder))
    np.testing.assert_allclose(numbers["names"]["cosines"], similarity, atol=1e-5)
    pairs = numbers["names"]["confusable"]
    assert len(pairs) == 10 and [pair["cosine"] for pair in pairs] == sorted(
        (p["cosine"] for p in pairs), reverse=True
    )
    first, second = pairs[0]["names"]
    assert f"  {pairs[0]['cosine']:.3f}  {first} / {second}" in capsys.readouterr().out


def test_other_names_are_compared_by_their_own(explain, model_folder):
    model = DenseCLIPForSemanticSegmentation.from_pretrained(model_folder)
    _, numbers = explain("--names", "wall", "big wall", "person", "--threshold", "1")
    assert numbers["names"]["class_names"] == ["wall", "big wall", "person"] and not numbers["names"]["confusable"]
    expected = class_similarity(model, ["wall", "big wall", "person"])
    np.testing.assert_allclose(numbers["names"]["cosines"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "name a PHOTO, or compare class names by --names"),
        (["--pixel", 1, 2], "explain a photograph: name a PHOTO"),
        (["PHOTO", "--pixel", WIDTH, 0], "column 90 .* 90 columns and 60 rows"),
        (["PHOTO", "--class", "trafic light"], "no class 'trafic light'. Did you mean 'traffic light'"),
        (["PHOTO", "--class", "xyz"], "no class 'xyz'. It has: wall, sky"),
        (["PHOTO", "--threshold", "0.5"], "goes with --names"),
        (["--names", "--threshold", "2"], r"a cosine in \[-1, 1\]"),
        (["--names", "wall"], "two names or more; got 'wall' alone"),
        (["--names", "wall", "Wall"], "both called"),
        (["PHOTO", "--device", "cuda:99"], "cuda:99"),
    ],
)
def test_what_does_not_serve_is_refused_and_nothing_is_written(explain, photo, tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        explain(*(photo if word == "PHOTO" else word for word in words))
    assert not (tmp_path / "out").exists()


def test_a_model_without_language_is_refused(explain, photo, tmp_path):
    tiny_model("resnet", use_language=False).save_pretrained(tmp_path / "model")
    DenseCLIPImageProcessor().save_pretrained(tmp_path / "model")
    for words in ([photo], ["--names"]):
        with pytest.raises(ValueError, match="no text tower"):
            explain(*words, model=tmp_path / "model")


def test_a_file_in_the_place_of_the_folder_is_kept(explain, photo, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        explain(photo)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_photograph_that_is_none_is_refused(explain, tmp_path):
    (tmp_path / "a.png").write_text("nothing")
    with pytest.raises(OSError):
        explain(tmp_path / "a.png")


def test_unknown_classes_get_the_nearest_names():
    assert find_class("SIDE_walk", ["road", "side walk"]) == 1
    with pytest.raises(ValueError, match="Did you mean 'side walk'"):
        find_class("sidewalk", ["road", "side walk"])


def test_odd_names_of_photographs_and_classes(explain, photo, model_folder, tmp_path):
    """A name that is not UTF-8, a class of 300 letters, one with a line end, and a name that leaves no room."""
    odd = tmp_path / "caf\udce9\n.png"
    odd.write_bytes(photo.read_bytes())
    names = ["a" * 300, "two\nlines", "$x_$", "b", "c"]
    config = json.loads((model_folder / "config.json").read_text())
    assert len(config["id2label"]) == len(names)
    config["id2label"] = dict(enumerate(names))
    config.pop("label2id", None)
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_text(json.dumps(config))
    files, numbers = explain(odd, "--class", "a" * 300, "two\nlines", model=folder)
    assert numbers["photo"] == odd.name
    assert files == [f"caf\udce9\n-class-0-{'a' * 40}.png", "caf\udce9\n-class-1-two_lines.png", "explanation.json"]
    long = tmp_path / f"{'x' * 245}.png"
    long.write_bytes(photo.read_bytes())
    with pytest.raises(ValueError, match="too long for its results"):
        explain(long, "--class", "b", model=folder)


def test_too_little_memory_is_said(explain, photo, monkeypatch):
    def run_out(*args):
        raise MemoryError

    monkeypatch.setattr("modeling_denseclip.tools.commands.explain.explain_image", run_out)
    with pytest.raises(ValueError, match="make the photograph smaller"):
        explain(photo)
