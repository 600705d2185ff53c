# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Exported files that take pictures as they are, and folders for transformers.js: against OpenCV, the image processor,
the pipeline, and a plain maximum of enlarged logits.

The graphs around a model are tested alone, which takes no export. One model is exported, once.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.resizing_denseclip import resize_logits
from tests.test_export import RUN_WITHOUT_TORCH, map_of_pipeline, save, words_for
from tests.test_export import sliding as sliding
from tests.tiny import TINY_CLASS_NAMES, draw_picture, tiny_model
from training import export, run_onnx
from training.publishing import export as exporting
from training.publishing import formats, pictures, transformers_js


RULE = {"rescale_factor": 1 / 255, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
VERSIONS = (10, 18)  # of the file and of its operators
SIZES = {
    "both edges": {"shortest_edge": 96, "longest_edge": 160},
    "one edge": {"shortest_edge": 96},
    "fixed": {"height": 80, "width": 112},
    "unchanged": None,
}


def run(model: onnx.ModelProto, **values: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, values)


# --- The graphs around a model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("takes", ["pictures", "picture_values"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_pictures_are_prepared_as_by_opencv_and_the_image_processor(size, takes):
    generator = np.random.default_rng(0)
    model = pictures.build_preparation(RULE | {"size": size}, takes, *VERSIONS)
    fields = {"do_resize": False} if size is None else {"size": size}
    processor = DenseCLIPImageProcessor(**fields, image_mean=RULE["image_mean"], image_std=RULE["image_std"])
    # Odd, tall, tiny, larger than the model sees it, a strip that the longest edge limits, and of its own size.
    for batch_size, height, width in ((2, 75, 131), (1, 211, 64), (1, 3, 5), (1, 400, 301), (1, 2, 900), (3, 96, 96)):
        batch = generator.integers(0, 256, (batch_size, height, width, 3), dtype=np.uint8)
        expected = processor(list(batch), return_tensors="np", input_data_format="channels_last").pixel_values
        given = batch if takes == "pictures" else batch.transpose(0, 3, 1, 2).astype(np.float32)
        found, picture_size = run(model, **{takes.replace("picture_values", "pixel_values"): given})
        np.testing.assert_array_equal(picture_size, [height, width])
        np.testing.assert_array_equal(found, expected)
        resized = cv2.resize(batch[0], found.shape[:1:-1]).astype(np.float32) * np.float32(1 / 255)
        resized = (resized - np.float32(RULE["image_mean"])) / np.float32(RULE["image_std"])
        np.testing.assert_array_equal(found[0], resized.transpose(2, 0, 1))


@pytest.mark.parametrize("size", [SIZES["both edges"], {"height": 64, "width": 2048}])
def test_graphs_need_no_float64_and_no_more_than_31_bits(size):
    """Browsers have no float64, and OpenVINO computes int64 in 32 bits, of which nothing tells but wrong masks."""
    model = pictures.build_preparation(RULE | {"size": size}, "pictures", *VERSIONS)
    for graph in (model, pictures.build_class_map(5, *VERSIONS)):
        values = onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph.value_info
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        assert len(types) > 50 and onnx.TensorProto.DOUBLE not in types.values()
        if graph is model:
            whole = [name for name, code in types.items() if code == onnx.TensorProto.INT64]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.INT64, None) for n in whole)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(whole, {"pictures": np.zeros((1, 3, 20_000, 3), np.uint8)})
    assert len(found) == len(whole) > 40
    assert all(np.abs(values).max() < 2**31 for values in found)


def smooth_logits(num_labels: int, size: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Regions, as a model finds them: few classes in each place, with borders of several cells."""
    batch_size, height, width = size
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch_size, num_labels, height // 4 + 2, width // 4 + 2, generator=generator)
    return (6 * F.interpolate(coarse, size=(height, width), mode="bicubic")).numpy()


@pytest.mark.parametrize("num_labels", [1, 2, 5, 256, 300])
@pytest.mark.parametrize("is_smooth", [True, False])
def test_class_map_is_the_greatest_of_all_enlarged_logits(num_labels, is_smooth):
    model = pictures.build_class_map(num_labels, *VERSIONS)
    # Larger by odd factors, smaller, the same size, and of one cell.
    for size, target in (((2, 9, 13), (37, 50)), ((1, 24, 17), (11, 200)), ((1, 8, 8), (8, 8)), ((1, 1, 1), (3, 1))):
        logits = smooth_logits(num_labels, size)
        if not is_smooth:
            logits = np.random.default_rng(1).standard_normal(logits.shape).astype(np.float32)
        (found,) = run(model, logits_of_model=logits, size_of_pictures=np.int64(target))
        enlarged = resize_logits(torch.from_numpy(logits), target)
        lost = enlarged.amax(dim=1) - enlarged.gather(1, torch.from_numpy(found).long()[:, None])[:, 0]
        assert found.shape == (size[0], *target) and found.dtype == (np.uint8 if num_labels <= 256 else np.int32)
        # Positions are rounded otherwise: by some 1e-6 of a cell.
        assert lost.max() <= 1e-5 * np.abs(logits).max()
        assert len(np.unique(found)) > 1 or num_labels == 1 or target == (3, 1)


def test_of_equal_logits_the_lowest_class_is_taken():
    logits = np.zeros((1, 4, 5, 6), np.float32)
    logits[:, 0] = -1
    (found,) = run(pictures.build_class_map(4, *VERSIONS), logits_of_model=logits, size_of_pictures=np.int64([20, 24]))
    assert (found == 1).all()


def candidates_of(logits: np.ndarray) -> np.ndarray:
    model = pictures.build_class_map(logits.shape[1], *VERSIONS)
    model.graph.output.append(onnx.helper.make_tensor_value_info("candidates", onnx.TensorProto.INT64, ["n"]))
    return run(model, logits_of_model=logits, size_of_pictures=np.int64([4 * side for side in logits.shape[2:]]))[1]


def test_only_classes_that_may_win_are_enlarged():
    logits = np.full((1, 150, 12, 12), -5.0, np.float32)
    logits[:, 7, :, :6], logits[:, 90, :, 6:] = 5, 5
    assert candidates_of(logits).tolist() == [7, 90]
    # Best nowhere, and greatest between: 3.9 at all four corners, of which two are 4 and 0 in two classes each.
    logits[:, 7, :, :6], logits[:, 90, :, 6:] = 4, 4
    logits[:, [7], :, 6:], logits[:, [90], :, :6] = 0, 0
    logits[:, 33] = 3.9
    assert candidates_of(logits).tolist() == [7, 33, 90]
    smooth = smooth_logits(150, (1, 32, 40))
    enlarged = resize_logits(torch.from_numpy(smooth), (128, 160))
    assert set(enlarged.argmax(dim=1).unique().tolist()) <= set(candidates_of(smooth).tolist())


# --- A whole export --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    model = tiny_model("shallow")
    save(model, folder, image_mean=(0.4, 0.5, 0.6), image_std=(0.2, 0.3, 0.4))
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    for seed, size in enumerate(((200, 150), (97, 211), (64, 64), (301, 160))):
        draw_picture(*size, seed=seed).save(folder / f"{seed}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def core(checkpoint, tmp_path_factory) -> Path:
    """The file of the model alone, whose making takes seconds."""
    path = tmp_path_factory.mktemp("core") / "core.onnx"
    chosen = formats.FORMATS["onnx"]
    model = DenseCLIPForSemanticSegmentation.from_pretrained(checkpoint, **chosen.model_options).eval()
    exporting.write(exporting.ExportableDenseCLIP(model, "logits"), chosen, path)
    return path


@pytest.fixture
def quick(core, monkeypatch):
    """Exports of that model that take its file."""

    def write(module, file_format, path):
        assert module.output == "logits"
        shutil.copy(core, path)

    monkeypatch.setattr(exporting, "write", write)


def maps_of(path: Path, card: dict, images: list[Path]) -> list[np.ndarray]:
    session, found = run_onnx.load(path)
    assert found == json.loads(json.dumps(card))
    return [run_onnx.segment(session, card, run_onnx.read_picture(image)) for image in images]


@pytest.mark.parametrize("output", ["class_map", "logits"])
def test_file_that_takes_pictures_gives_the_maps_of_the_pipeline(
    output, checkpoint, photographs, quick, tmp_path, capsys
):
    target = tmp_path / "pictures.onnx"
    card = export.main([str(checkpoint), str(target), "--input", "pictures", "--output", output])
    assert "With pictures it differs from image processor and model by at most " in capsys.readouterr().out
    assert (card["takes"], card["output"], card["license"]) == ("pictures", output, "apache-2.0")
    for image, found in zip(photographs, maps_of(target, card, photographs), strict=True):
        expected = map_of_pipeline(checkpoint, Image.open(image))
        assert np.mean(found == expected) > 0.9999, image
    session = onnxruntime.InferenceSession(target)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape[3]) == ("pictures", "tensor(uint8)", 3)
    assert (given.name, given.type) == (output, "tensor(uint8)" if output == "class_map" else "tensor(float)")
    # Two at once, each as if alone.
    batch = np.stack([np.asarray(draw_picture(90, 70, seed=seed)) for seed in (5, 6)])
    both = session.run(None, {"pictures": batch})[0]
    alone = [session.run(None, {"pictures": picture[None]})[0][0] for picture in batch]
    np.testing.assert_allclose(both, alone, atol=1e-4)


def test_file_that_takes_pictures_runs_without_torch(checkpoint, photographs, quick, tmp_path):
    target = tmp_path / "new" / "pictures.onnx"
    export.main([str(checkpoint), str(target), "--input", "pictures", "--output", "class_map"])
    words = ["run_onnx.py", "pictures.onnx", str(photographs[1]), "--output", "maps"]
    command = [sys.executable, "-c", RUN_WITHOUT_TORCH, *words]
    result = subprocess.run(command, cwd=target.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = np.asarray(Image.open(target.parent / "maps" / "1-classes.png"))
    assert np.mean(found == map_of_pipeline(checkpoint, Image.open(photographs[1]))) > 0.9999


def test_smaller_kinds_of_numbers(checkpoint, photographs, quick, tmp_path, capsys):
    words = [str(checkpoint), "--input", "pictures", "--output", "class_map"]
    images = ["--calibration_images", *map(str, photographs)]
    whole = export.main([*words, str(tmp_path / "whole.onnx")])
    expected = maps_of(tmp_path / "whole.onnx", whole, photographs)
    for kind, options in {"float16": ["--float16"], "int8": ["--int8", "static"]}.items():
        target = tmp_path / f"{kind}.onnx"
        card = export.main([*words, str(target), *options, *images])
        assert f"{kind}" in capsys.readouterr().out and kind in card
        measured = range(len(photographs))[1::2] if kind == "int8" else range(len(photographs))
        found = maps_of(target, card, photographs)
        equal = [found[index] == expected[index] for index in measured]
        share = sum(map(np.sum, equal)) / sum(map(np.size, equal))
        # The report is of the model alone, with the picture prepared and its logits enlarged by OpenCV.
        assert card[kind]["agreement"] == pytest.approx(share, abs=2e-3) and 0.8 < share < 1
        assert card[kind]["num_measured_images"] == len(measured)
        assert target.stat().st_size < (0.75 if kind == "float16" else 0.65) * (tmp_path / "whole.onnx").stat().st_size


def test_openvino_computes_files_that_take_pictures(checkpoint, photographs, quick, tmp_path):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    target = tmp_path / "pictures.onnx"
    card = export.main([str(checkpoint), str(target), "--input", "pictures", "--output", "class_map"])
    session, _ = run_onnx.load(target, "openvino")
    found = run_onnx.segment(session, card, run_onnx.read_picture(photographs[0]))
    assert np.mean(found == maps_of(target, card, photographs[:1])[0]) > 0.9999


def test_pictures_that_are_too_small_for_the_model_are_refused(checkpoint, quick, tmp_path):
    target = tmp_path / "pictures.onnx"
    card = export.main([str(checkpoint), str(target), "--input", "pictures"])
    session, _ = run_onnx.load(target)
    with pytest.raises(ValueError, match="The picture is 8 x 160 pixels when .* Enlarge the picture before."):
        run_onnx.segment(session, card, np.zeros((20, 400, 3), np.uint8))


# --- transformers.js -------------------------------------------------------------------------------------------------


def test_folder_for_transformers_js(checkpoint, photographs, quick, tmp_path, capsys):
    target = tmp_path / "web"
    words = [str(checkpoint), str(target), "--format", "transformers.js"]
    images = ["--calibration_images", *map(str, photographs)]
    export.main([*words, "--float16", "--int8", "dynamic", *images])
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    models = {"onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_quantized.onnx"}
    assert names == {"config.json", "preprocessor_config.json", "README.md", *models}
    config = json.loads((target / "config.json").read_text())
    assert config["model_type"] == "segformer" and "transformers.js_config" not in config
    assert list(config["id2label"].values()) == list(TINY_CLASS_NAMES)
    assert config["label2id"]["sky"] == 1
    readme = (target / "README.md").read_text()
    assert "pipeline('image-segmentation', './web')" in readme and "license: apache-2.0" in readme

    # As the library calls it: whole numbers of the picture, and logits that it enlarges.
    for image in photographs:
        picture = np.asarray(Image.open(image))
        session = onnxruntime.InferenceSession(target / "onnx" / "model.onnx")
        (logits,) = session.run(["logits"], {"pixel_values": picture.transpose(2, 0, 1)[None].astype(np.float32)})
        found = resize_logits(torch.from_numpy(logits), picture.shape[:2]).argmax(dim=1)[0].numpy()
        assert np.mean(found == map_of_pipeline(checkpoint, Image.open(image))) > 0.9999

    # Written anew, without the smaller kinds; what somebody has put there stays.
    (target / "notes.txt").write_text("mine")
    (checkpoint / "README.md").write_text("---\nlicense: mit\n---\n")
    capsys.readouterr()
    export.main(words)
    (checkpoint / "README.md").unlink()
    assert [path.name for path in (target / "onnx").iterdir()] == ["model.onnx"]
    assert json.loads((target / "config.json").read_text())["transformers.js_config"] == {"dtype": "fp32"}
    assert (target / "notes.txt").read_text() == "mine"
    assert "license: mit" in (target / "README.md").read_text()


def test_sliding_model_for_transformers_js_sees_whole_images(checkpoint, quick, tmp_path, capsys):
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"inference_mode": "slide"}))
    card = export.main([str(folder), str(tmp_path / "web"), "--format", "transformers.js"])
    assert card["windows"] is None
    assert "run by sliding windows. transformers.js shows it whole images: results differ." in capsys.readouterr().out


CARD = {"license": "mit", "checkpoint_sha256": {}, "versions": {}}


@pytest.mark.parametrize("names", [["дорога", "空", "a\u0308 b"], ["one"], [f"class {i}" for i in range(300)]])
def test_class_names_for_transformers_js(names, tmp_path):
    (tmp_path / "float32").write_bytes(b"")
    transformers_js.write_folder({"float32": tmp_path / "float32"}, tmp_path / "web", CARD | {"class_names": names})
    config = json.loads((tmp_path / "web" / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {str(index): name for index, name in enumerate(names)}
    assert f"{len(names)} classes" in (tmp_path / "web" / "README.md").read_text(encoding="utf-8")


def test_folder_for_transformers_js_replaces_nothing_else(checkpoint, tmp_path):
    before = {path: path.read_bytes() for path in checkpoint.iterdir()}
    with pytest.raises(ValueError, match="writes a folder, and .*model is there already and was not written by it"):
        export.main([str(checkpoint), str(checkpoint), "--format", "transformers.js"])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is there already"):
        export.main([str(checkpoint), str(tmp_path / "file"), "--format", "transformers.js"])
    assert {path: path.read_bytes() for path in checkpoint.iterdir()} == before


# --- What goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "pictures"], "run by sliding windows, and a file that takes pictures .* --inference_mode whole"),
        (["--float16"], "--float16 needs at least one photograph as --calibration_images"),
        (["--float16", "--int8", "dynamic"], "make a file each: choose one of them, or --format transformers.js"),
    ],
)
def test_words_that_contradict_each_other(words, message, sliding):
    with pytest.raises(ValueError, match=message):
        export.main(words_for(sliding, *words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["new.pt2", "--format", "torch", "--input", "pictures"], "--input pictures .* --format torch: .* onnx"),
        (["new.pt2", "--format", "torch", "--float16"], "--float16 is onnxruntime's: it needs --format onnx"),
        (["new", "--format", "transformers.js", "--input", "pictures"], "--input pictures .* Leave it out"),
        (["new", "--format", "transformers.js", "--output", "class_map"], "--output class_map .* Leave it out"),
    ],
)
def test_words_that_a_format_lacks(words, message, sliding):
    with pytest.raises(ValueError, match=message):
        export.main([str(sliding), str(sliding.parent / words[0]), *words[1:]])


def wrong_mean(model: onnx.ModelProto):
    (mean,) = (entry for entry in model.graph.initializer if entry.name == "before.image_mean")
    mean.CopyFrom(onnx.numpy_helper.from_array(np.float32([0.4, 0.5, 0.61]).reshape(3, 1, 1), mean.name))


def wrong_places(model: onnx.ModelProto):
    (lower,) = (node for node in model.graph.node if node.output[0] == "before.height_lower")
    lower.op_type = "Add"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong_mean, r"differs from image processor and model by .* 0\.0001 is allowed"),
        (wrong_places, r"does not run on pictures of \(2, 151, 227\) and was not kept"),
    ],
)
def test_a_wrong_graph_around_the_model_replaces_nothing(change, message, checkpoint, quick, tmp_path, monkeypatch):
    surround = exporting.surround

    def surround_wrongly(*words):
        model = surround(*words)
        change(model)
        return model

    monkeypatch.setattr(exporting, "surround", surround_wrongly)
    (tmp_path / "old.onnx").write_text("old")
    with pytest.raises(ValueError, match=message):
        export.main([str(checkpoint), str(tmp_path / "old.onnx"), "--input", "pictures"])
    assert [path.name for path in tmp_path.iterdir()] == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_text() == "old"


@pytest.mark.parametrize(
    "edit", [{"takes": "boxes"}, {"takes": "pictures", "windows": {"size": [9, 9], "stride": [9, 9]}}]
)
def test_run_onnx_names_a_card_that_was_edited(edit, checkpoint, quick, tmp_path):
    target = tmp_path / "pictures.onnx"
    card = export.main([str(checkpoint), str(target), "--input", "pictures"])
    Path(f"{target}.json").write_text(json.dumps(card | edit))
    with pytest.raises(ValueError, match="is not what training.export writes beside a model .ValueError: takes "):
        run_onnx.load(target)
    Path(f"{target}.json").write_text(json.dumps(card | {"takes": "pixel_values"}))
    with pytest.raises(ValueError, match="takes pictures, and .* says that it takes pixel_values alone"):
        run_onnx.load(target)
