# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""`denseclip predict`, against the pipeline and plain computations."""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.command import main
from modeling_denseclip.tools.commands import predict
from modeling_denseclip.tools.commands.predict import (
    ClassPredictor,
    batched,
    choose_targets,
    find_inputs,
    resize_ids,
    to_overlay_size,
)
from modeling_denseclip.tools.files.devices import TooLittleMemoryError, naming_lack_of_memory
from modeling_denseclip.tools.files.inputs import FoundFiles
from modeling_denseclip.tools.insight import predictors
from modeling_denseclip.tools.insight.text_scores import draw_scores
from modeling_denseclip.tools.options.predict import OVERLAY_SIDE, parse_window
from modeling_denseclip.tools.pictures.drawing import OPACITY, draw_mask
from modeling_denseclip.tools.pictures.palettes import color_blind_palette, generate_palette
from tests.test_pipeline import SIZE, as_map, load_pipeline, save_model
from tests.tiny import TINY_CLASS_NAMES, draw_jpeg, draw_picture, make_tiny_tokenizer, write_avi


ORIENTATION = 0x0112
# File -> width and height. The first three are one batch, though the third lies in another folder.
PHOTOGRAPHS = {
    "a.png": (120, 90),
    "b.png": (120, 90),
    "inner/a.png": (120, 90),
    "inner/c.png": (64, 64),
    "inner/deep/d.png": (133, 71),
}


# What a run writes of all its files, in the order of names.
OF_ALL = ("predictions.json", "predictions.jsonl", "predictions.settings.json")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A model in whose photographs each class is found."""
    folder = tmp_path_factory.mktemp("model")
    save_model("resnet", folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(saved) -> DenseCLIPForSemanticSegmentation:
    return DenseCLIPForSemanticSegmentation.from_pretrained(saved)


@pytest.fixture(scope="module")
def image_processor(saved) -> DenseCLIPImageProcessor:
    return DenseCLIPImageProcessor.from_pretrained(saved)


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """The working folder, with `photos`."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, size) in enumerate(PHOTOGRAPHS.items()):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(*size, seed).save(path)
    return tmp_path


def run(saved: Path, *words, status: int = 0) -> dict:
    """
    `denseclip predict`, with its results in "out" -> what it wrote for programs. In float32, as what it is compared
    with, if the words do not say otherwise.
    """
    words = [*map(str, words)]
    if "--dtype" not in words:
        words += ["--dtype", "float32"]
    assert main(["predict", *words, "--model", str(saved), "--out", "out"]) == status
    return json.loads(Path("out/predictions.json").read_text())


def read_mask(name: str) -> np.ndarray:
    return np.asarray(Image.open(Path("out") / name))


def tree(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def probabilities_by_hand(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0].softmax(dim=0)


def probabilities_of_nearest(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """What scores are means of: at each pixel the probabilities of the logits that are nearest."""
    return F.interpolate(logits.softmax(dim=1), size=size, mode="nearest-exact")[0]


def assert_scores_are_means(classes: list[dict], mask: np.ndarray, probabilities: torch.Tensor):
    """Areas counted in the mask, and scores as means over it."""
    assert [entry["id"] for entry in classes] == sorted(np.unique(mask), key=lambda i: -np.count_nonzero(mask == i))
    for entry in classes:
        own = mask == entry["id"]
        assert entry["label"] == TINY_CLASS_NAMES[entry["id"]]
        assert entry["pixels"] == np.count_nonzero(own)
        assert entry["area"] == pytest.approx(own.mean(), abs=1e-6)
        assert entry["score"] == pytest.approx(probabilities[entry["id"]].numpy()[own].mean(), abs=1e-3)


# --- Classes ---------------------------------------------------------------------------------------------------------


def test_results_are_those_of_the_pipeline(saved, work):
    """A folder with folders in it, photographs of several sizes and one that the camera has turned."""
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    draw_picture(100, 80, seed=9).save("photos/turned.jpg", exif=turned, quality=95)
    report = run(saved, "photos", "--batch_size", 3)

    segmenter = load_pipeline(saved)
    assert (report["classes"], report["left_out"], report["videos"]) == (list(TINY_CLASS_NAMES), [], [])
    assert report["model"] == str(saved) and report["window"] is None and report["tta"] is False
    assert {entry["file"] for entry in report["images"]} == {f"photos/{name}" for name in [*PHOTOGRAPHS, "turned.jpg"]}
    palette, seen = np.array(generate_palette(5)), set()
    for entry in report["images"]:
        name = Path(entry["file"]).relative_to("photos").with_suffix("").as_posix()
        assert (entry["overlay"], entry["mask"]) == (f"{name}-overlay.jpg", f"{name}-mask.png")
        segments = segmenter(entry["file"])
        mask, picture = read_mask(entry["mask"]), Image.open(Path("out") / entry["mask"])
        assert mask.shape == (entry["height"], entry["width"]) and picture.mode == "P"
        expected = as_map(segments, (entry["width"], entry["height"]))
        assert (mask != expected).mean() < 1e-3  # fused, and in batches: other sums
        assert np.array_equal(np.asarray(picture.convert("RGB")), palette[mask])
        scores = {segment["label"]: segment["score"] for segment in segments}
        for found in entry["classes"]:
            assert found["pixels"] == np.count_nonzero(mask == found["id"])
            assert found["score"] == pytest.approx(scores[found["label"]], abs=1e-3)
        assert sum(found["area"] for found in entry["classes"]) == pytest.approx(1, abs=1e-5)
        areas = [found["area"] for found in entry["classes"]]
        assert areas == sorted(areas, reverse=True)
        seen.update(found["label"] for found in entry["classes"])
        Image.open(Path("out") / entry["overlay"]).load()
    assert seen == set(TINY_CLASS_NAMES)
    assert Image.open("out/turned-mask.png").size == (80, 100)
    written = {path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()}
    assert written == {*OF_ALL} | {entry[kind] for entry in report["images"] for kind in ("overlay", "mask")}


def test_the_overlay_has_the_colours_of_the_mask(saved, work):
    report = run(saved, "photos/a.png", "--palette", "colorblind")
    mask = read_mask("a-mask.png")
    overlay = np.asarray(Image.open("out/a-overlay.jpg"), dtype=float)
    factor = 6  # a photograph of 120 pixels beside a legend is enlarged to 640 or more
    photograph = np.asarray(draw_picture(120, 90, 0), dtype=float)
    grey = 0.5 * photograph + 0.5 * photograph.mean(axis=-1, keepdims=True)
    palette = np.array(color_blind_palette(5), dtype=float)
    expected = (1 - OPACITY) * grey + OPACITY * palette[mask]
    # Far from any edge.
    flat = (mask[2:-2, 2:-2] == mask[:-4, 2:-2]) & (mask[2:-2, 2:-2] == mask[4:, 2:-2])
    flat &= (photograph[2:-2, 2:-2] == photograph[:-4, 2:-2]).all(-1) & (
        photograph[2:-2, 2:-2] == photograph[4:, 2:-2]
    ).all(-1)
    centres = overlay[factor // 2 : 90 * factor : factor, factor // 2 : 120 * factor : factor]
    difference = np.abs(centres - expected)[2:-2, 2:-2][flat].mean(axis=-1)
    assert flat.sum() > 1000 and np.quantile(difference, 0.8) < 8
    assert np.array_equal(np.asarray(Image.open("out/a-mask.png").convert("RGB")), palette[mask])
    assert report["images"][0]["overlay"] == "a-overlay.jpg"


@pytest.mark.parametrize("words, window", [("64,43", (64, 43)), ("64", (64, 42)), ("slide", (80, 40))])
def test_windows(saved, model, image_processor, work, words, window, tmp_path):
    """Those of the command line, and with "slide" those of the config."""
    folder = shutil.copytree(saved, tmp_path / "with windows")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "window_size": [80, 80], "window_stride": [40, 40]}))
    report = run(folder, "photos/inner/deep/d.png", "--window", words)
    photograph = Image.open("photos/inner/deep/d.png")
    pixel_values = image_processor(photograph, return_tensors="pt").pixel_values
    with torch.no_grad():
        logits = model(pixel_values, inference_mode="slide", window_size=window[0], window_stride=window[1]).logits
        whole = model(pixel_values).logits
    mask = read_mask("d-mask.png")
    probabilities = probabilities_by_hand(logits, (71, 133))
    assert (mask != probabilities.argmax(dim=0).numpy()).mean() < 1e-3
    assert (mask != probabilities_by_hand(whole, (71, 133)).argmax(dim=0).numpy()).any()
    assert_scores_are_means(report["images"][0]["classes"], mask, probabilities_of_nearest(logits, (71, 133)))
    assert report["window"] == {"size": [window[0]] * 2, "stride": [window[1]] * 2}


@pytest.mark.parametrize("word, message", [("wide", "SIZE"), ("64,65", "STRIDE"), ("64,8,8", "STRIDE")])
def test_windows_that_are_none(work, saved, capsys, word, message):
    with pytest.raises(SystemExit) as end:
        run(saved, "photos", "--window", word)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_windows_that_the_model_is_too_coarse_for(work, saved, capsys):
    assert main(["predict", "photos", "--model", str(saved), "--out", "out", "--window", "16"]) == 2
    assert "windows at least 32 pixels high and wide" in capsys.readouterr().err


def test_a_stride_of_two_thirds_is_that_of_the_paper():
    assert [parse_window(word)["window_stride"] for word in ("512", "640")] == [341, 426]


def test_tta_is_a_mean_over_sizes_and_mirrors(saved, model, image_processor, work):
    """A photograph no larger than what the model sees: all at its own size, as an evaluation does it."""
    report = run(saved, "photos/inner/c.png", "--tta")
    photograph, size = Image.open("photos/inner/c.png"), (64, 64)
    total = 0
    for scale in (0.5, 0.75, 1, 1.25, 1.5, 1.75):
        scaled = {side: int(length * scale) for side, length in SIZE.items()}
        pixels = image_processor(photograph, size=scaled, return_tensors="pt").pixel_values
        for mirrored in (False, True):
            with torch.no_grad():
                logits = model(pixels.flip(-1) if mirrored else pixels).logits
            logits = F.interpolate(logits, size=pixels.shape[-2:], mode="bilinear", align_corners=False)
            probabilities = probabilities_by_hand(logits, size)
            total = total + (probabilities.flip(-1) if mirrored else probabilities)
    mask = read_mask("c-mask.png")
    assert (mask != (total / 12).argmax(dim=0).numpy()).mean() < 1e-3
    assert_scores_are_means(report["images"][0]["classes"], mask, total / 12)
    assert report["tta"] is True


def test_tta_of_a_large_photograph_takes_the_memory_of_a_small_one(model, image_processor, monkeypatch):
    photograph = draw_picture(360, 288, seed=3)
    small = photograph.resize((120, 96), Image.Resampling.BILINEAR)
    predictor = ClassPredictor(model, image_processor, generate_palette(5), use_tta=True)
    sizes, average = [], predictors.average_probabilities

    def note_size(model, copies, target_size):
        sizes.append(target_size)
        return average(model, copies, target_size)

    monkeypatch.setattr(predictors, "average_probabilities", note_size)
    (class_ids, _), (of_small, _) = predictor([photograph])[0], predictor([small])[0]
    assert sizes == [(96, 120), (96, 120)] and class_ids.shape == (288, 360)
    # The same, but for edges and for what shrinking has smoothed.
    assert (class_ids[1::3, 1::3] == of_small).mean() > 0.8


def test_an_image_processor_that_pads_does_not_here(saved, work, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "padding")
    DenseCLIPImageProcessor(size=SIZE, do_pad=True, pad_size={"height": 160, "width": 160}).save_pretrained(folder)
    run(saved, "photos/a.png")
    plain = read_mask("a-mask.png")
    run(folder, "photos/a.png")
    assert np.array_equal(read_mask("a-mask.png"), plain)


def test_half_precision_and_no_training(saved, model, work, tmp_path, capsys):
    """A checkpoint of 16 bits is run with its rounded weights; of one that nobody has trained it is said."""
    run(saved, "photos/a.png")
    assert "warning" not in capsys.readouterr().err
    mask = read_mask("a-mask.png")
    folder = shutil.copytree(saved, tmp_path / "half")
    half = DenseCLIPForSemanticSegmentation.from_pretrained(saved, dtype=torch.bfloat16)
    half.remember_untrained_contexts()
    half.save_pretrained(folder)
    run(folder, "photos/a.png")
    assert 0 < (read_mask("a-mask.png") != mask).mean() < 0.1
    assert "is not trained" in capsys.readouterr().err


@pytest.mark.parametrize("num_labels", [256, 257])
def test_masks_hold_every_id(tmp_path, num_labels):
    class_ids = np.arange(num_labels * 4).reshape(4, -1) % num_labels
    palette = generate_palette(num_labels)
    draw_mask(class_ids, palette).save(tmp_path / "mask.png")
    read = Image.open(tmp_path / "mask.png")
    assert np.array_equal(np.asarray(read), class_ids)
    assert read.mode == ("P" if num_labels == 256 else "I;16")


def test_large_photographs_are_shrunk_under_the_overlay():
    class_ids = np.zeros((1000, 3200), dtype=np.int32)
    class_ids[:, 1600:] = 300
    photograph = to_overlay_size(Image.new("RGB", (3200, 1000)))
    ids = resize_ids(class_ids, photograph.size)
    assert photograph.size == (OVERLAY_SIDE, 500) and ids.shape == (500, OVERLAY_SIDE)
    assert (ids[:, :800] == 0).all() and (ids[:, 800:] == 300).all()
    assert to_overlay_size(photograph) is photograph


def test_batches_are_of_one_kind_and_keep_the_order():
    items = ["a1", "a2", "a3", "b1", "a4", "a5"]
    assert list(batched(items, 2, key=lambda item: item[0])) == [["a1", "a2"], ["a3"], ["b1"], ["a4", "a5"]]


def test_what_follows_is_read_and_what_was_before_is_written_while_the_model_computes(saved, work, monkeypatch):
    compute, read, batches = ClassPredictor.compute, predict.read_photograph, []
    is_read = {name: threading.Event() for name in PHOTOGRAPHS}

    def note_read(file):
        photograph = read(file)
        is_read[file.relative_to("photos").as_posix()].set()
        return photograph

    def wait(self, copies, size):
        batches.append(size)
        if len(batches) == 1:
            assert is_read["inner/c.png"].wait(timeout=60)
        elif len(batches) == 3:
            for _ in range(6000):
                if Path("out/a-mask.png").exists():
                    break
                time.sleep(0.01)
            assert Path("out/a-mask.png").exists()
        return compute(self, copies, size)

    monkeypatch.setattr(predict, "read_photograph", note_read)
    monkeypatch.setattr(ClassPredictor, "compute", wait)
    assert len(run(saved, "photos")["images"]) == 5
    assert batches == [(90, 120), (64, 64), (71, 133)]


def test_an_interrupt_ends_it_with_whole_files(saved, work, monkeypatch, capsys):
    compute, batches = ClassPredictor.compute, []

    def interrupt(self, copies, size):
        batches.append(size)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return compute(self, copies, size)

    monkeypatch.setattr(ClassPredictor, "compute", interrupt)
    assert main(["predict", "photos", "--model", str(saved), "--out", "out", "--batch_size", "1"]) == 130
    assert "Interrupted. What has a line in predictions.jsonl is done; --resume goes on" in capsys.readouterr().err
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]
    written = [path for path in Path("out").rglob("*") if path.is_file()]
    assert {*OF_ALL[1:]} == {path.name for path in written if path.suffix not in (".jpg", ".png")}
    for path in written:
        if path.suffix in (".jpg", ".png"):
            Image.open(path).load()
    assert not list(Path("out").rglob(".*"))


# --- Files -----------------------------------------------------------------------------------------------------------


def test_which_files_words_stand_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        *("photos/a.jpg", "photos/notes.txt", "photos/.hidden/b.jpg", "photos/.c.jpg", "photos/in/D.PNG"),
        *("photos/in/e.MP4", "photos/out/a-overlay.jpg", "other/f.webp", "other/g.unknown", "odd[1].jpg"),
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    output = Path("photos/out")

    def found(*words):
        return {file.as_posix(): name.as_posix() for file, name in find_inputs(words, output).items()}

    photos = {"photos/a.jpg": "a", "photos/in/D.PNG": "in/D", "photos/in/e.MP4": "in/e"}
    assert found("photos") == photos and list(found("photos")) == list(photos)
    assert found("photos", "photos/a.jpg", "./photos/in") == photos
    assert found("photos/**/*.*") == photos
    assert found("photos/in/*") == {"photos/in/D.PNG": "D", "photos/in/e.MP4": "e"}
    assert found("*/?.jpg", "other/g.unknown") == {"photos/a.jpg": "photos/a", "other/g.unknown": "g"}
    assert found("odd[1].jpg") == {"odd[1].jpg": "odd[1]"}
    # Above all photographs, results are in nobody's way.
    assert "photos/out/a-overlay.jpg" in {file.as_posix() for file in find_inputs(["photos"], Path())}
    targets = choose_targets({Path("x/a.b.jpg"): Path("a.b"), Path("x/a.b.mp4"): Path("a.b")}, output, False)
    assert [path.name for _, paths in targets.items() for path in paths] == [
        *("a.b-overlay.jpg", "a.b-mask.png", "a.b-overlay.mp4")
    ]


BROKEN = {
    "nothing there": ("nowhere.jpg", "", "nowhere.jpg: there is no such file"),
    "an empty folder": ("empty", "", "empty: no photograph"),
    "a pattern of nothing": ("photos/*.gif", "", "no photograph"),
    "same names": ("photos/a.png photos/inner/a.png", "", "would both become"),
    "an input replaced": ("photos/a.png a-mask.png", "--out .", "would be replaced"),
    "results among inputs": ("photos", "--out photos", "is the folder that photos"),
    "results among matches": ("photos/**/*.png", "--out photos", "is the folder that"),
    "results in a file": ("photos", "--out photos/a.png", "must be a folder"),
    "no model": ("photos", "--model ./nowhere", "neither a folder nor"),
    "another model": ("photos", "--model clip", "no DenseCLIP"),
    "no device": ("photos", "--device abacus", "--device abacus"),
    "texts and windows": ("photos", "--window whole --text sky", "leave --tta"),
    "a text twice": ("photos", "--text sky sky", "0 and 1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_on_an_error_nothing_is_written(saved, work, capsys, name):
    Path("empty").mkdir()
    Path("clip").mkdir()
    Path("clip/config.json").write_text('{"model_type": "clip"}')
    draw_picture(64, 64).save("a-mask.png")
    before = tree(work)
    inputs, options, message = BROKEN[name]
    options = {"--out": "out", "--model": str(saved)} | dict([options.split(maxsplit=1)] if options else [])
    words = [word for name, value in options.items() for word in (name, *value.split())]
    assert main(["predict", *inputs.split(), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert tree(work) == before


def test_broken_files_are_named_and_left_out(saved, work, capsys):
    good = Path("photos/a.png").read_bytes()
    Path("photos/a0.png").write_bytes(good[: len(good) // 2])
    Path("photos/a1.jpg").write_text("no image")
    draw_picture(600, 20).save("photos/a2.png")
    Image.new("F", (64, 64)).save("photos/a3.tiff")
    report = run(saved, "photos", status=1)
    printed = capsys.readouterr()
    left_out = {entry["file"]: entry["error"] for entry in report["left_out"]}
    assert list(left_out) == ["photos/a0.png", "photos/a1.jpg", "photos/a2.png", "photos/a3.tiff"]
    assert "at least 32" in left_out["photos/a2.png"] and "truncated" in left_out["photos/a0.png"]
    assert all(f"left out: {file}: {error}\n" in printed.err for file, error in left_out.items())
    assert "5 done, 4 left out" in printed.out
    assert [entry["file"] for entry in report["images"]] == [f"photos/{name}" for name in PHOTOGRAPHS]
    assert not [path for path in Path("out").rglob("*") if path.name.startswith((".", "a0", "a1", "a2", "a3"))]


def test_a_result_that_cannot_be_written_ends_it(saved, work, capsys, monkeypatch):
    run(saved, "photos/a.png")
    before = tree(Path("out"))

    def save_half(self, target, **kwargs):
        Path(target).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", save_half)
    run(saved, "photos/a.png", status=2)
    assert "error: no space left" in capsys.readouterr().err and tree(Path("out")) == before


def test_too_little_memory_is_said(saved, work, capsys, monkeypatch):
    def run_out(*args):
        raise torch.OutOfMemoryError("Tried to allocate 20 GiB")

    monkeypatch.setattr(ClassPredictor, "compute", run_out)
    assert main(["predict", "photos", "--model", str(saved), "--out", "out"]) == 2
    assert "error: cpu has too little memory for this: try --batch_size 1" in capsys.readouterr().err
    assert not Path("out").exists()


def test_photographs_for_which_memory_does_not_suffice_are_left_out(saved, work, capsys, monkeypatch):
    """With two at once it ends; one alone fits, unless it is the second of them."""
    compute, seen = ClassPredictor.compute, []

    def run_out(self, copies, size):
        seen.append(len(copies[0]))
        if len(copies[0]) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        if len(seen) == 3:
            raise MemoryError
        return compute(self, copies, size)

    monkeypatch.setattr(ClassPredictor, "compute", run_out)
    report = run(saved, "photos", "--batch_size", 2, status=1)
    assert seen == [2, 1, 1, 1, 1, 1]
    assert [entry["file"] for entry in report["left_out"]] == ["photos/b.png"]
    assert (
        "too little memory" in report["left_out"][0]["error"] and "left out: photos/b.png" in capsys.readouterr().err
    )
    assert [entry["file"] for entry in report["images"]] == [
        f"photos/{name}" for name in PHOTOGRAPHS if name != "b.png"
    ]


def test_a_photograph_that_memory_does_not_hold_is_left_out(saved, work, monkeypatch):
    read = predict.read_photograph

    def run_out(file):
        if file.name == "c.png":
            raise MemoryError
        return read(file)

    monkeypatch.setattr(predict, "read_photograph", run_out)
    (left_out,) = run(saved, "photos", status=1)["left_out"]
    assert left_out["file"] == "photos/inner/c.png" and "too little memory" in left_out["error"]


NO_MEMORY = {
    "Python": MemoryError(),
    "NumPy": MemoryError("Unable to allocate 64.0 GiB for an array"),
    "PyTorch, CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
    ),
    "PyTorch, Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    "PyTorch, CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "PyTorch, MPS": RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB, other allocations: 1 KB)"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "Pillow": OSError("out of memory error when reading image file"),
    "the system": OSError(12, "Cannot allocate memory"),
}


@pytest.mark.parametrize("library", NO_MEMORY)
def test_whatever_a_library_raises_where_memory_ends_is_known(library):
    with pytest.raises(TooLittleMemoryError, match="^buy some$"), naming_lack_of_memory("buy some"):
        raise NO_MEMORY[library]


def test_opencv_where_memory_ends_is_known():
    cv2 = pytest.importorskip("cv2")
    with pytest.raises(TooLittleMemoryError, match="^buy some$"), naming_lack_of_memory("buy some"):
        cv2.resize(np.zeros((2, 2), np.uint8), (2**30, 2**15))  # 32 TiB


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(28, "No space left"), KeyError("memory")])
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as raised, naming_lack_of_memory("buy some"):
        raise error
    assert raised.value is error


def test_links_that_lead_back_are_not_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.jpg", "photos/in/b.jpg", "elsewhere/c.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    for name in ("x", "y", "in/up"):  # 2^40 paths without an end
        Path("photos", name).symlink_to(".." if name == "in/up" else ".")
    Path("photos/other").symlink_to("../elsewhere")
    Path("photos/d.jpg").symlink_to("../elsewhere/c.jpg")
    expected = {"photos/a.jpg": "a", "photos/d.jpg": "d", "photos/in/b.jpg": "in/b"}
    for word in ("photos", "photos/**", "photos/**/*.jpg", "photos/**/**/*.jpg", "photos/**/*"):
        found = {file.as_posix(): name.as_posix() for file, name in find_inputs([word], Path("out")).items()}
        assert found == expected, word
    (file,) = find_inputs(["photos/**/in/*.jpg"], Path("out"))
    assert file == Path("photos/in/b.jpg")
    # Of one step, and where it is named, a link is followed.
    assert [file.name for file in find_inputs(["photos/oth*/*.jpg"], Path("out"))] == ["c.jpg"]
    assert [file.name for file in find_inputs(["photos/other"], Path("out"))] == ["c.jpg"]


def test_masks_beside_photographs_are_passed_over_and_said_to_be(saved, work, capsys):
    folder, ids = Path("data"), Image.fromarray(np.eye(64, 96, dtype=np.uint8))
    (folder / "other").mkdir(parents=True)
    photograph = draw_picture(96, 64)
    for name in ("a.jpg", "b.png", "left_L.jpg", "left.jpg", "alone_mask.png", "b_label.jpg"):
        photograph.save(folder / name)
    ids.save(folder / "a.png")  # of the very name
    ids.convert("P").save(folder / "a_mask.png")
    ids.point(lambda value: 200 * value).convert("RGB").save(folder / "b_gtFine_labelIds.tif")
    ids.save(folder / "c_mask.png")  # of no photograph
    ids.save(folder / "other/a_mask.png")  # in another folder than its photograph
    (folder / "b_mask.png").write_bytes(b"broken")
    masks = FoundFiles()
    taken = {file.as_posix()[5:] for file in find_inputs(["data"], Path("out"), masks=masks)}
    assert [mask.name for mask in masks] == ["a.png", "a_mask.png", "b_gtFine_labelIds.tif"]
    others = {"alone_mask.png", "b_label.jpg", "b_mask.png", "c_mask.png", "other/a_mask.png"}
    assert taken == {"a.jpg", "b.png", "left_L.jpg", "left.jpg", *others}
    # What is named, or fits a pattern, is taken as it is.
    masks = FoundFiles()
    assert len(find_inputs(["data/a_mask.png", "data/b*.tif"], Path("out"), masks=masks)) == 2 and not masks

    (folder / "b_mask.png").unlink()
    report = run(saved, "data")
    assert len(report["images"]) == 8
    said = "passed over 3 masks beside photographs, such as data/a.png: --all takes them too"
    assert said in capsys.readouterr().err
    (folder / "a.png").unlink()
    assert len(run(saved, "data", "--all")["images"]) == 10
    assert "passed over" not in capsys.readouterr().err


def test_results_that_a_link_leads_to_are_no_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.jpg", "results/a-overlay.jpg"):
        Path(name).parent.mkdir()
        Path(name).touch()
    Path("photos/out").symlink_to("../results")
    Path("photos/best.jpg").symlink_to("../results/a-overlay.jpg")
    for output in ("results", "photos/out"):
        assert [file.name for file in find_inputs(["photos"], Path(output))] == ["a.jpg"]


def test_what_is_no_file_is_named_and_left_out(saved, work, monkeypatch):
    """A pipe, from which nothing will ever come, a link to nothing, one to itself, and a file that has just gone."""
    os.mkfifo("photos/a1.png")
    Path("photos/a2.png").symlink_to("nowhere")
    Path("photos/a3.png").symlink_to("a3.png")
    os.mkfifo("photos/a4.mp4")
    Path("photos/a5.png").write_bytes(b"")
    find = predict.find_inputs

    def find_and_remove(*args):
        found = find(*args)
        Path("photos/a5.png").unlink()
        return found

    monkeypatch.setattr(predict, "find_inputs", find_and_remove)
    reports = []
    thread = threading.Thread(target=lambda: reports.append(run(saved, "photos", status=1)), daemon=True)
    thread.start()
    thread.join(timeout=120)
    assert reports, "it waits for a pipe"
    left_out = {Path(entry["file"]).name: entry["error"] for entry in reports[0]["left_out"]}
    assert {*left_out} == {"a1.png", "a2.png", "a3.png", "a4.mp4", "a5.png"}
    assert (
        "a named pipe" in left_out["a1.png"]
        and "a named pipe" in left_out["a4.mp4"]
        and "No such file" in left_out["a5.png"]
    )
    assert len(reports[0]["images"]) == len(PHOTOGRAPHS)
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        find_inputs(["photos/a1.png"], Path("out"))


def test_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    """By the system's own error, which nobody gets who may read everything."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.jpg", "photos/secret/b.jpg", "photos/in/c.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    scan, listing = os.scandir, os.listdir

    def refuse(function):
        def read(folder):
            if Path(folder).name == "secret":
                raise PermissionError(13, "Permission denied", str(folder))
            return function(folder)

        return read

    monkeypatch.setattr(os, "scandir", refuse(scan))
    monkeypatch.setattr(os, "listdir", refuse(listing))
    for word in ("photos", "photos/**/*.jpg", "photos/*/*.jpg"):
        left_out = {}
        found = find_inputs([word], Path("out"), left_out)
        assert Path("photos/in/c.jpg") in found
        assert [path.as_posix() for path in left_out] == ["photos/secret"]
        assert "Permission denied" in left_out[Path("photos/secret")]


def test_names_that_are_not_utf_8_or_hold_odd_letters(saved, work, capsys):
    odd = ["caf\udce9.png", "line\nend.png", "turned\u202egnp.png", 'quote".png', "\x1b[31mred.png"]
    folder = work / "odd"
    folder.mkdir()
    for name in odd:
        shutil.copy("photos/a.png", folder / name)
    for words in ((), ("--text", "sky", "a cat")):
        report = run(saved, "odd", *words)
        assert b"\\udce9" in Path("out/predictions.json").read_bytes()
        Path("out/predictions.json").read_bytes().decode("utf-8")
        assert sorted(Path(entry["file"]).name for entry in report["images"]) == sorted(odd)
        printed = capsys.readouterr().out
        assert "line\\nend.png" in printed and "\\x1b[31mred.png" in printed
        for entry in report["images"]:
            assert os.path.exists(entry["file"])
            for key in ("picture",) if words else ("overlay", "mask"):
                assert Path("out", entry[key]).is_file()


def test_names_of_results_that_are_too_long_are_refused(saved, work, capsys):
    stem = "é" * 120  # of two bytes each
    shutil.copy("photos/a.png", f"{stem}.png")  # 244 bytes; "-overlay.jpg" makes them 252, "-texts.png" 250
    run(saved, f"{stem}.png")
    os.rename(f"{stem}.png", f"{stem}1234.png")
    before = tree(work)
    assert main(["predict", f"{stem}1234.png", "--model", str(saved), "--out", "out2"]) == 2
    assert "has 256 bytes, and 255 are the limit" in capsys.readouterr().err and tree(work) == before


def test_results_that_differ_in_case_alone(tmp_path, monkeypatch):
    names = {Path("x/A.jpg"): Path("A"), Path("y/a.jpg"): Path("a"), Path("e\u0301.jpg"): Path("e\u0301")}
    names[Path("é.jpg")] = Path("é")
    output = tmp_path / "not" / "made"
    assert len(choose_targets(names, output, False)) == 4 and list(tmp_path.iterdir()) == []
    exists = Path.exists
    # A file system that does not tell them apart, as those of macOS and Windows.
    monkeypatch.setattr(
        Path,
        "exists",
        lambda path: exists(path) or path.name.lower() in [p.name.lower() for p in path.parent.iterdir()],
    )
    output.mkdir(parents=True)
    with pytest.raises(ValueError, match="x/A.jpg and y/a.jpg would both become"):
        choose_targets(names, output, False)


# --- Texts -----------------------------------------------------------------------------------------------------------


def test_texts(saved, model, image_processor, work, capsys):
    texts = ["traffic light", "a cat"]
    report = run(saved, "photos/a.png", "photos/b.png", "--text", *texts)
    printed = capsys.readouterr().out
    assert report["texts"] == texts and "classes" not in report and "decode head takes no part" in printed
    for name, entry in zip(("a", "b"), report["images"], strict=True):
        photograph = Image.open(f"photos/{name}.png")
        scores = model.score_text(image_processor(photograph, return_tensors="pt").pixel_values, texts)[0]
        expected = [[values.min(), values.mean(), values.max()] for values in scores]
        written = [[cosine[key] for key in ("least", "mean", "greatest")] for cosine in entry["cosines"]]
        np.testing.assert_allclose(written, expected, atol=1e-5)
        assert [cosine["text"] for cosine in entry["cosines"]] == texts
        drawn = draw_scores(photograph, scores, texts, model.config.temperature, f"{name}.png")
        picture = Image.open(Path("out") / entry["picture"])
        assert np.abs(np.asarray(drawn).astype(int) - np.asarray(picture)).max() <= 1
    assert sorted(path.name for path in Path("out").iterdir()) == ["a-texts.png", "b-texts.png", *OF_ALL]


# --- Videos ----------------------------------------------------------------------------------------------------------


def write_video(path: str, num_frames: int = 7, size: tuple[int, int] = (128, 96)) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), 12.0, size)
    for seed in range(num_frames):
        writer.write(cv2.cvtColor(np.asarray(draw_picture(*size, seed)), cv2.COLOR_RGB2BGR))
    writer.release()


def read_video(path: str) -> tuple[float, list[Image.Image]]:
    """Frames per second, and frames."""
    cv2 = pytest.importorskip("cv2")
    capture, frames = cv2.VideoCapture(path), []
    while (frame := capture.read()[1]) is not None:
        frames.append(Image.fromarray(np.ascontiguousarray(frame[..., ::-1])))
    return capture.get(cv2.CAP_PROP_FPS), frames


def test_a_video(saved, model, image_processor, work):
    write_video("drive.mp4")
    report = run(saved, "drive.mp4", "photos/a.png", "--batch_size", 3)
    (entry,) = report["videos"]
    assert (entry["file"], entry["width"], entry["height"], entry["frames"]) == ("drive.mp4", 128, 96, 7)
    assert len(report["images"]) == 1 and report["left_out"] == []

    _, frames = read_video("drive.mp4")
    masks, probabilities = [], []
    for frame in frames:
        with torch.no_grad():
            logits = model(image_processor(frame, return_tensors="pt").pixel_values).logits
        probabilities.append(probabilities_of_nearest(logits, (96, 128)))
        masks.append(probabilities_by_hand(logits, (96, 128)).argmax(dim=0).numpy())
    # One picture of all frames.
    masks, probabilities = np.concatenate(masks), torch.cat(probabilities, dim=1)
    found = {item["id"]: item for item in entry["classes"]}
    assert set(found) == set(np.unique(masks))
    for index, item in found.items():
        assert item["area"] == pytest.approx((masks == index).mean(), abs=1e-3)
        assert item["score"] == pytest.approx(probabilities[index].numpy()[masks == index].mean(), abs=2e-3)

    frames_per_second, overlays = read_video(f"out/{entry['overlay']}")
    assert frames_per_second == entry["frames_per_second"] == 12 and len(overlays) == 7
    palette = np.array(generate_palette(5), dtype=float)
    for number, (frame, overlay) in enumerate(zip(frames, overlays, strict=True)):
        pixels = np.asarray(frame, dtype=float)
        grey = 0.5 * pixels + 0.5 * pixels.mean(axis=-1, keepdims=True)
        expected = (1 - OPACITY) * grey + OPACITY * palette[masks[96 * number : 96 * (number + 1)]]
        pixels = np.asarray(overlay, dtype=float)
        difference, swapped = (np.abs(values - expected).mean() for values in (pixels, pixels[..., ::-1]))
        assert difference < 25 and difference < 0.7 * swapped  # compressed, but red is no blue


def test_videos_that_cannot_be_done_are_left_out(saved, work, monkeypatch, capsys):
    cv2 = pytest.importorskip("cv2")
    write_video("good.mp4", num_frames=2)
    Path("bad.mp4").write_bytes(Path("good.mp4").read_bytes()[:200])

    def left_out(*words) -> dict[str, str]:
        report = run(saved, *words, status=1)
        assert sorted(path.name for path in Path("out").iterdir()) == [*OF_ALL]
        return {entry["file"]: entry["error"] for entry in report["left_out"]}

    assert left_out("bad.mp4") == {"bad.mp4": "OpenCV does not read it as a video."}
    assert "alone" in left_out("good.mp4", "--text", "sky")["good.mp4"]
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "VideoWriter", lambda *args: SilentWriter())
        assert left_out("good.mp4") == {"good.mp4": "OpenCV has written 0 of 2 frames."}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cv2", None)
        assert "pip install opencv-python-headless" in left_out("good.mp4")["good.mp4"]


class SilentWriter:
    """As OpenCV's on a full disk."""

    def write(self, frame):
        pass

    def release(self):
        pass


GARBAGE = b"garbage" * 30


@pytest.mark.parametrize(
    "frames, read, lost",
    [
        ([1, 0, 1, 1, 1], 4, 1),
        ([0, 0, 1, 1], 2, 2),
        ([1, 1, 0], 2, 1),
        ([1, *[0] * 40, 1], 2, 40),
        ([1, 1, 1], 3, 0),
    ],
    ids=["in the middle", "at the beginning", "at the end", "many", "none"],
)
def test_broken_frames_are_counted_and_the_others_taken(saved, work, capsys, frames, read, lost):
    pytest.importorskip("cv2")
    write_avi("drive.avi", [draw_jpeg(seed) if good else GARBAGE for seed, good in enumerate(frames)])
    report = run(saved, "drive.avi", status=int(lost > 0))
    (entry,) = report["videos"]
    assert (entry["frames"], entry["frames_lost"]) == (read, lost) and report["left_out"] == []
    assert len(read_video(f"out/{entry['overlay']}")[1]) == read
    said = f"drive.avi: {lost} of {read + lost} frames are broken and left out"
    assert (said in capsys.readouterr().err) == (lost > 0)


def test_broken_frames_are_counted_where_no_header_counts_them(saved, work):
    """Matroska says how long a video is, and no number of frames."""
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter("drive.mkv", cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (128, 96))
    for seed in range(6):
        writer.write(np.asarray(draw_picture(128, 96, seed)))
    writer.release()
    head, *frames = Path("drive.mkv").read_bytes().split(b"\xff\xd8\xff")
    assert len(frames) == 6
    frames[2] = frames[2][:-40].translate(bytes(256)) + frames[2][-40:]  # what follows it is of the container
    Path("drive.mkv").write_bytes(b"\xff\xd8\xff".join([head, *frames]))
    (entry,) = run(saved, "drive.mkv", status=1)["videos"]
    assert (entry["frames"], entry["frames_lost"]) == (5, 1)


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_video_that_is_cut_off_is_said_to_be(saved, work, suffix):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(f"drive{suffix}", cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (128, 96))
    for seed in range(12):
        writer.write(np.asarray(draw_picture(128, 96, seed)))
    writer.release()
    assert run(saved, f"drive{suffix}")["videos"][0]["frames_lost"] == 0
    data = Path(f"drive{suffix}").read_bytes()
    Path(f"drive{suffix}").write_bytes(data[: len(data) // 2])
    (entry,) = run(saved, f"drive{suffix}", status=1)["videos"]
    assert entry["frames"] + entry["frames_lost"] == 12 and entry["frames_lost"] > 3


def test_frames_of_another_size_are_brought_to_that_of_the_first(saved, work, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    write_video("drive.mp4", num_frames=4)
    real = cv2.VideoCapture

    class Growing:
        """Not a subclass: OpenCV's types crash where garbage is collected."""

        def __init__(self, *args):
            self.capture, self.count = real(*args), 0

        def get(self, number):
            return self.capture.get(number)

        def read(self):
            is_there, frame = self.capture.read()
            self.count += 1
            return is_there, cv2.resize(frame, (160, 120)) if self.count == 3 else frame

    monkeypatch.setattr(cv2, "VideoCapture", Growing)
    (entry,) = run(saved, "drive.mp4")["videos"]
    assert (entry["frames"], entry["width"], entry["height"]) == (4, 128, 96)


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile good.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ngood.mp4\n#EXT-X-ENDLIST\n",
        "v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
    ],
    ids=["concat", "HLS", "SDP"],
)
def test_lists_of_other_files_are_no_videos(saved, work, text):
    cv2 = pytest.importorskip("cv2")
    write_video("good.mp4", num_frames=2)
    Path("list.mp4").write_text(text)
    if text.startswith("ffconcat"):
        assert cv2.VideoCapture("list.mp4").read()[0], "OpenCV itself follows it"
    (left_out,) = run(saved, "list.mp4", status=1)["left_out"]
    assert "OpenCV does not read it as a video: it begins as none" in left_out["error"]


@pytest.mark.parametrize("name", ["img%03d.mp4", "concat:good.mp4", "http:.mp4", "-.mp4", "a | b ! c.mp4"])
def test_names_are_names_of_files_and_nothing_else(saved, work, name):
    pytest.importorskip("cv2")
    write_video("good.mp4", num_frames=2)
    os.rename("good.mp4", name)
    shutil.copy(name, "img000.mp4")
    (entry,) = run(saved, f"./{name}")["videos"]
    assert entry["frames"] == 2


def test_a_video_whose_name_opencv_does_not_take_is_left_out(saved, work):
    pytest.importorskip("cv2")
    write_video("good.mp4", num_frames=2)
    os.rename("good.mp4", "caf\udce9.mp4")
    report = run(saved, "caf\udce9.mp4", "photos/a.png", status=1)
    (left_out,) = report["left_out"]
    assert left_out["file"] == "caf\udce9.mp4" and "UTF-8" in left_out["error"] and len(report["images"]) == 1
