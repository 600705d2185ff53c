# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
`training.export` and `training.run_onnx` against the model, its image processor and the pipeline.

An export takes seconds, the more the deeper the model. So there are few, of shallow models, each with all that is
asked of it.
"""

import ast
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import pipeline

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.files import photographs
from modeling_denseclip.tools.pictures.palettes import generate_palette
from tests.tiny import (
    TINY_CLASS_NAMES,
    draw_picture,
    save_checkpoint,
    save_exported_model,
    spread_classes,
    tiny_model,
)
from training import export, run_onnx
from training.publishing import export as exporting
from training.publishing import formats


ROOT = Path(__file__).resolve().parents[1]
SIZE = {"shortest_edge": 96, "longest_edge": 160}
# (batch_size, height, width): none is a size of the command's own check, and most are no multiples of 32 or 16.
SIZES = ((1, 64, 96), (2, 75, 130), (3, 201, 167))

# Whatever runs the file needs none of these.
RUN_WITHOUT_TORCH = """
import runpy
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "modeling_denseclip", "training"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Hide())
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def save(
    model: DenseCLIPForSemanticSegmentation, folder: Path, **processor_fields
) -> DenseCLIPForSemanticSegmentation:
    """Make it give every class, and save it with an image processor."""
    pictures = [draw_picture(96, 96, seed=seed) for seed in (1, 2)]
    processor = DenseCLIPImageProcessor(size=SIZE, **processor_fields)
    spread_classes(model, processor(pictures, return_tensors="pt").pixel_values)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def smooth_noise(size: tuple[int, int, int]) -> torch.Tensor:
    """As smooth as pictures: where neighbours differ by all of the range, the last digits of coordinates count."""
    batch_size, height, width = size
    values = torch.randn(batch_size, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(7))
    return torch.nn.functional.interpolate(values, size=(height, width), mode="bicubic")


def run_file(path: Path, pixel_values: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"pixel_values": pixel_values.numpy()})[0]


@torch.no_grad()
def assert_logits_equal(path: Path, model: DenseCLIPForSemanticSegmentation):
    for size in SIZES:
        logits = model(smooth_noise(size)).logits.numpy()
        found = run_file(path, smooth_noise(size))
        assert found.shape == logits.shape
        assert np.abs(found - logits).max() <= 1e-4 * logits.std(), size


def map_of_pipeline(folder: Path, picture: Image.Image) -> np.ndarray:
    segmenter = pipeline("image-segmentation", model=str(folder), trust_remote_code=True, device="cpu")
    classes = np.full(picture.size[::-1], -1)
    for part in segmenter(picture):
        classes[np.asarray(part["mask"]) > 0] = TINY_CLASS_NAMES.index(part["label"])
    return classes


# --- Whole exports --------------------------------------------------------------------------------------------------


def test_resnet_with_language_runs_without_torch(tmp_path, capsys):
    folder, target = tmp_path / "model", tmp_path / "new" / "resnet.onnx"
    model = save(tiny_model("shallow"), folder, image_mean=(0.4, 0.5, 0.6), image_std=(0.2, 0.3, 0.4))
    card = export.main([str(folder), str(target)])

    assert "In 3 sizes onnxruntime differs from the model by at most " in capsys.readouterr().out
    assert sorted(file.name for file in target.parent.iterdir()) == ["resnet.onnx", "resnet.onnx.json", "run_onnx.py"]
    assert_logits_equal(target, model)
    check_that_text_is_folded(target, model)

    # The JSON
    assert json.loads(Path(f"{target}.json").read_text()) == json.loads(json.dumps(card))
    assert card["class_names"] == list(TINY_CLASS_NAMES)
    assert card["palette"] == generate_palette(len(TINY_CLASS_NAMES))
    assert (card["ignore_index"], card["smallest_side"], card["windows"]) == (255, 32, None)
    checksum = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert card["checkpoint_sha256"] == {"model.safetensors": checksum}

    # A photograph, by that alone
    picture = draw_picture(300, 210, seed=1)
    picture.save(tmp_path / "street.png")
    runner = shutil.copy(target.with_name("run_onnx.py"), tmp_path)
    words = [runner, target, "street.png", "--output", "maps"]
    command = [sys.executable, "-c", RUN_WITHOUT_TORCH, *words]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    mask = Image.open(tmp_path / "maps" / "street-classes.png")
    expected = map_of_pipeline(folder, picture)
    assert len(np.unique(expected)) == len(TINY_CLASS_NAMES)
    assert np.mean(np.asarray(mask) == expected) > 0.9999
    first = np.asarray(mask.convert("RGB"))[0, 0]
    assert tuple(first) == generate_palette(5)[np.asarray(mask)[0, 0]]
    counts = np.bincount(expected.ravel())
    share = f"{TINY_CLASS_NAMES[counts.argmax()]} {100 * counts.max() / counts.sum():.1f} %"
    assert f"street-classes.png: {share}, " in result.stdout

    # In 8 bits
    images = [tmp_path / f"{seed}.png" for seed in range(4)]
    for seed, image in enumerate(images):
        draw_picture(200, 150, seed=seed).save(image)
    check_static_quantization(target, card, images, tmp_path / "int8.onnx")


def check_that_text_is_folded(path: Path, model: DenseCLIPForSemanticSegmentation):
    """No tensor of the text tower is in the file; what the image needs of it is, and little else."""
    sizes = {tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer}
    text_config = model.config.text_config
    assert (text_config.vocab_size, text_config.hidden_size) not in sizes
    assert (text_config.max_position_embeddings, text_config.hidden_size) not in sizes
    image_side = ("image_encoder", "context_decoder", "neck", "decode_head")
    image_bytes = sum(parameter.nbytes for name, parameter in model.named_parameters() if name.startswith(image_side))
    assert image_bytes < path.stat().st_size < image_bytes + 300_000


def test_copy_of_run_onnx_replaces_copies_alone(tmp_path):
    runner = tmp_path / "run_onnx.py"
    assert formats.may_replace(runner)
    runner.write_text(formats.copy_runner())
    assert formats.may_replace(runner)
    runner.write_text("somebody's own")
    assert not formats.may_replace(runner)
    assert not formats.may_replace(ROOT / "training" / "run_onnx.py")


def test_run_onnx_says_where_it_works(tmp_path):
    runner = shutil.copy(ROOT / "training" / "run_onnx.py", tmp_path)
    command = [sys.executable, "-c", RUN_WITHOUT_TORCH, runner, "m.onnx", "a.png", "--output", "maps"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert "photographs.py, which is not there" in result.stderr and "Traceback" not in result.stderr


def test_copy_of_run_onnx_holds_the_reader_of_photographs():
    reader, copy = Path(photographs.__file__).read_text(), formats.copy_runner()
    assert reader[reader.index("\nimport ") :].strip() in copy
    names = [node.name for node in ast.parse(copy).body if isinstance(node, ast.FunctionDef)]
    assert len(names) == len(set(names)) > 30  # none of one file hides one of the other
    assert "importlib" not in copy.replace("import importlib.util\n", "")


def check_static_quantization(path: Path, card: dict, images: list[Path], target: Path):
    report = formats.quantize(path, target, card, "static", images)
    assert (report["num_calibration_images"], report["num_measured_images"]) == (2, 2)
    pictures = [run_onnx.read_picture(image) for image in images[1::2]]  # those that it was not calibrated on
    sessions = [onnxruntime.InferenceSession(file) for file in (path, target)]
    maps = [np.stack([run_onnx.segment(session, card, picture) for picture in pictures]) for session in sessions]
    assert report["agreement"] == np.mean(maps[0] == maps[1])
    assert 0.8 < report["agreement"] < 1
    weights = [tensor for tensor in onnx.load(target).graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    num_convolutions = sum(node.op_type == "Conv" for node in onnx.load(target).graph.node)
    assert len({tensor.name for tensor in weights if len(tensor.dims) == 4}) == num_convolutions > 20
    assert target.stat().st_size < 0.6 * path.stat().st_size


def small_file(path: Path):
    """Two convolutions as an ONNX file: "light" where the red of a pixel is more than half, else "dark"."""
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[:, 0, 0, 0] = -1, 1
    shape = ["batch_size", 3, "height", "width"]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["pixel_values", "same"], ["copied"], name="first"),
            onnx.helper.make_node("Conv", ["copied", "weights", "bias"], ["logits"], name="classifier"),
        ],
        "small",
        [onnx.helper.make_tensor_value_info("pixel_values", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [shape[0], 2, *shape[2:]])],
        [
            onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32)[:, :, None, None], "same"),
            onnx.numpy_helper.from_array(weights, "weights"),
            onnx.numpy_helper.from_array(np.float32([127.5, -127.5]), "bias"),
        ],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.mark.parametrize("is_int8", [False, True])
def test_openvino_computes_the_same_file(is_int8, tmp_path, capsys):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    path, image = tmp_path / "small.onnx", tmp_path / "a.png"
    small_file(path)
    picture = draw_picture(90, 60)
    picture.save(image)
    if is_int8:
        formats.quantize(path, tmp_path / "int8.onnx", CARD, "static", [image] * 2)
        path = tmp_path / "int8.onnx"
    Path(f"{path}.json").write_text(json.dumps(CARD))
    assert run_onnx.main([str(path), str(image), "--output", str(tmp_path), "--runtime", "openvino"]) == 0
    red = np.asarray(picture.convert("RGB"))[..., 0].astype(int)
    found = np.asarray(Image.open(tmp_path / "a-classes.png"))
    assert 0 < found.mean() < 1
    is_clear = abs(red - 127.5) > (2 if is_int8 else 0)
    assert np.array_equal(found[is_clear], red[is_clear] > 127.5)
    session = run_onnx.load(path, "openvino")[0]
    with pytest.raises(RuntimeError):  # which `main` reports of a photograph
        session.run(None, {"pixel_values": np.zeros((1, 5, 8, 8), np.float32)})


def test_openvino_that_is_missing_is_named(tmp_path, monkeypatch):
    small_file(tmp_path / "m.onnx")
    (tmp_path / "m.onnx.json").write_text(json.dumps(CARD))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match="--runtime openvino: .*pip install openvino"):
        run_onnx.main([str(tmp_path / "m.onnx"), "a.png", "--output", str(tmp_path), "--runtime", "openvino"])


def test_class_map_of_a_vit_is_that_of_the_image_processor(tmp_path, monkeypatch, write_once):
    folder, target = tmp_path / "model", tmp_path / "vit.onnx"
    model = save_exported_model(folder)
    monkeypatch.setattr(exporting, "write", write_once)
    target.write_text("an older file")
    card = export.main([str(folder), str(target), "--output", "class_map", "--inference_mode", "whole"])

    processor = DenseCLIPImageProcessor()
    for size in SIZES:
        with torch.no_grad():
            outputs = model(smooth_noise(size), inference_mode="whole")
        expected = torch.stack(processor.post_process_semantic_segmentation(outputs, [size[1:]] * size[0])).numpy()
        found = run_file(target, smooth_noise(size))
        assert found.dtype.kind == "i" and found.shape == size
        assert np.mean(found == expected) > 0.9999, size  # two classes may be a rounding error apart

    # Its map is enlarged to a photograph by repeating pixels.
    session = onnxruntime.InferenceSession(target)
    picture = np.asarray(draw_picture(288, 192))
    seen = run_file(target, torch.from_numpy(run_onnx.prepare(picture, card)))[0]
    assert seen.shape == (96, 144)
    np.testing.assert_array_equal(run_onnx.segment(session, card, picture), seen.repeat(2, axis=0).repeat(2, axis=1))


def test_backbone_of_transformers_under_upernet(tmp_path):
    """DINOv2 rounds sizes up to multiples of 14, and UperNet pools to 1, 2, 3 and 6 cells whatever the size."""
    folder, target = tmp_path / "model", tmp_path / "dinov2.onnx"
    vision_config = {
        "model_type": "dinov2",
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
    }
    model = tiny_model("resnet", use_language=False, vision_config=vision_config, decode_head_type="upernet")
    save(model, folder)
    export.main([str(folder), str(target)])
    assert_logits_equal(target, model)


def test_torch_program(tmp_path, capsys, monkeypatch, write_once):
    folder, target = tmp_path / "model", tmp_path / "vit.pt2"
    model = save_exported_model(folder)
    monkeypatch.setattr(exporting, "write", write_once)
    card = export.main([str(folder), str(target), "--format", "torch"])
    program = torch.export.load(target).module()
    for size in SIZES:
        with torch.no_grad():
            expected = model(smooth_noise(size), inference_mode="whole").logits
            torch.testing.assert_close(program(smooth_noise(size)), expected)
    assert json.loads(Path(f"{target}.json").read_text())["class_names"] == card["class_names"]
    assert "the program differs" in capsys.readouterr().out


@pytest.mark.parametrize("prompting_mode", ["post_model", "pre_model", "language"])
@torch.no_grad()
def test_what_an_image_does_not_need_is_left_out(prompting_mode):
    model = tiny_model("resnet", prompting_mode=prompting_mode, use_auxiliary_head=True).eval()
    module = exporting.ExportableDenseCLIP(model, "logits")
    pixel_values = smooth_noise((2, 75, 130))
    torch.testing.assert_close(module(pixel_values), model(pixel_values).logits)
    names = {name.split(".")[1] for name, _ in module.model.named_parameters(prefix="model")}
    kept = {"image_encoder", "neck", "decode_head"}
    if prompting_mode != "language":
        kept.add("context_decoder")
    if prompting_mode == "pre_model":
        kept |= {"prompts", "text_encoder", "text_projection"}
        # Of its vocabulary, the words of the classes
        num_words = len(set(model.prompts.token_ids.flatten().tolist()))
        assert len(module.model.text_encoder.get_input_embeddings().weight) == num_words
        assert num_words < model.config.text_config.vocab_size
    assert names == kept


# --- Windows --------------------------------------------------------------------------------------------------------


class ModelAsSession:
    """A model as onnxruntime has it."""

    def __init__(self, model: DenseCLIPForSemanticSegmentation):
        self.model = model

    @torch.no_grad()
    def run(self, output_names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [self.model(torch.from_numpy(inputs["pixel_values"]), inference_mode="whole").logits.numpy()]


@pytest.mark.parametrize("size", [(150, 200), (64, 160), (90, 50), (64, 64), (40, 50)])
def test_windows_outside_the_file_are_those_of_the_model(size):
    model = tiny_model("resnet", window_size=(64, 80), window_stride=(43, 60)).eval()
    card = {"windows": {"size": [64, 80], "stride": [43, 60]}, "class_names": TINY_CLASS_NAMES}
    pixel_values = smooth_noise((1, *size))
    with torch.no_grad():
        expected = model(pixel_values, inference_mode="slide").logits[0].numpy()
    found = run_onnx.run(ModelAsSession(model), card, pixel_values.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.std(), rtol=0)


@pytest.mark.parametrize(
    "size",
    [SIZE, {"shortest_edge": 96}, {"height": 80, "width": 112}, None],
    ids=["both edges", "one edge", "fixed", "unchanged"],
)
@pytest.mark.parametrize("picture_size", [(133, 71), (400, 101), (64, 64)])
def test_pictures_are_prepared_as_by_the_image_processor(size, picture_size):
    fields = {"do_resize": False} if size is None else {"size": size}
    processor = DenseCLIPImageProcessor(**fields, do_rescale=size != SIZE, do_normalize=size != {"shortest_edge": 96})
    config = tiny_model("resnet").config
    card = exporting.describe(config, processor, "logits", "whole", []) | {"smallest_side": 32}
    picture = draw_picture(*picture_size)
    expected = processor(picture, return_tensors="np").pixel_values
    found = run_onnx.prepare(np.asarray(picture), json.loads(json.dumps(card)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_picture_that_the_file_is_wrong_on_is_refused():
    config = tiny_model("resnet").config
    card = exporting.describe(config, DenseCLIPImageProcessor(size=SIZE), "logits", "whole", []) | {
        "smallest_side": 128
    }
    with pytest.raises(ValueError, match="96 x 96 pixels when the model sees it, .* from 128 pixels on"):
        run_onnx.prepare(np.zeros((50, 50, 3), np.uint8), card)


# --- What goes wrong ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sliding(tmp_path_factory) -> Path:
    """A model that slides windows, with an older file to lose beside it."""
    folder = tmp_path_factory.mktemp("sliding") / "model"
    save(tiny_model("vit", use_language=False, inference_mode="slide"), folder)
    (folder.parent / "old.onnx").write_text("old")
    (folder.parent / "old.onnx.json").write_text("old")
    yield folder
    assert sorted(file.name for file in folder.parent.iterdir()) == ["model", "old.onnx", "old.onnx.json"]
    assert {file.read_text() for file in folder.parent.glob("old*")} == {"old"}


def words_for(sliding: Path, *words: str) -> list[str]:
    return [str(sliding), str(sliding.parent / "old.onnx"), *words]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "torch"], r"--format torch writes a file that ends in \.pt2; got .*old\.onnx"),
        (["--int8", "static"], "at least two photographs as --calibration_images.* got 0"),
        (["--calibration_images", "a.png"], "are for --int8 and --float16, which are missing"),
        (["--output", "class_map"], "run by sliding windows.* --inference_mode whole"),
    ],
)
def test_words_that_contradict_each_other(words, message, sliding):
    with pytest.raises(ValueError, match=message):
        export.main(words_for(sliding, *words))


def test_weights_that_are_missing_are_not_made_up(sliding, tmp_path):
    shutil.copytree(sliding, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["decode_head.classifier.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lack 1 tensors, which would be random: decode_head.classifier.weight"):
        export.main([str(tmp_path / "model"), str(sliding.parent / "old.onnx"), "--inference_mode", "whole"])


def test_a_folder_that_is_not_there(sliding):
    with pytest.raises(ValueError, match="nowhere is no folder"):
        export.main(["nowhere", str(sliding.parent / "old.onnx")])


def test_int8_is_for_onnx(sliding):
    with pytest.raises(ValueError, match="--int8 .* needs --format onnx"):
        export.main([str(sliding), str(sliding.parent / "new.pt2"), "--format", "torch", "--int8", "dynamic"])


def test_a_package_that_is_missing(sliding, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"'onnxscript': pip install \"\.\[export\]\""):
        export.main(words_for(sliding))


def test_an_encoder_that_has_no_graph_is_named_in_one_line(sliding, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("data-dependent\nand much more")

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(
        ValueError, match=r"'clip_vision_model' cannot be exported to onnx: RuntimeError: data-depend\w+$"
    ):
        export.main(words_for(sliding))


def test_weights_that_no_onnx_file_holds(sliding, monkeypatch):
    monkeypatch.setattr(formats.OnnxFormat, "max_bytes", 100_000)
    with pytest.raises(ValueError, match="an ONNX file holds 2.*--format torch"):
        export.main(words_for(sliding))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits, size: logits * 1.001, "differs from the model by .* 0.0001 is allowed"),
        (lambda logits, size: logits * float("nan"), "differs from the model by nan"),
        (
            lambda logits, size: logits[:, :, 1:],
            r"does not run on 1 x 3 x 256 x 330 .*'clip_vision_model'.* gives \(1, 5, 63",
        ),
    ],
)
def test_a_file_that_computes_something_else_replaces_nothing(change, message, sliding, monkeypatch):
    model = DenseCLIPForSemanticSegmentation.from_pretrained(sliding)
    monkeypatch.setattr(exporting, "write", lambda module, file_format, path: path.write_bytes(b""))
    monkeypatch.setattr(
        formats.OnnxFormat,
        "load",
        lambda self, path: lambda pixels: change(model.segment(pixels).logits, pixels.shape),
    )
    with pytest.raises(ValueError, match=message):
        export.main(words_for(sliding))


def test_a_class_map_is_judged_by_what_its_classes_lose():
    model = tiny_model("vit").eval()
    size = (1, 64, 96)
    pixel_values = None

    def second_best(pixels):
        nonlocal pixel_values
        pixel_values = pixels
        logits = torch.nn.functional.interpolate(model(pixels).logits, size=size[1:], mode="bilinear")
        return logits.topk(2, dim=1).indices[:, 1]

    with torch.no_grad():
        found = exporting.difference(second_best, model, "class_map", size)
        logits = model(pixel_values).logits
        best, second = torch.nn.functional.interpolate(logits, size=size[1:], mode="bilinear").topk(2, dim=1).values[0]
    assert found == pytest.approx(((best - second).max() / logits.std()).item()) and found > 1e-3


def test_the_smallest_size_is_found():
    model = tiny_model("vit").eval()

    def run(pixels):
        return model(pixels).logits + (min(pixels.shape[2:]) == 64)

    # Not 32, although that happens to be right
    assert exporting.check(run, model, "logits") == (0, 128)


def test_no_map_of_run_onnx_replaces_another_or_a_photograph(tmp_path):
    for name in ("a/left.png", "b/left.png", "a/left.jpg", "left-classes.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        draw_picture(8, 8).save(tmp_path / name)
    for names, message in (
        (("a/left.png", "b/left.png"), "would both become .*left-classes.png"),
        (("a/left.png", "a/left.jpg"), "would both become .*left-classes.png"),
        (("a/left.png", "left-classes.png"), "is one of the photographs and would be replaced"),
    ):
        images = [str(tmp_path / name) for name in names]
        with pytest.raises(ValueError, match=message):
            run_onnx.main(["no model is loaded for that", *images, "--output", str(tmp_path)])
    long = "é" * 122  # 244 bytes, and "-classes.png" 12 more
    with pytest.raises(ValueError, match="has more than 255 bytes"):
        run_onnx.choose_targets([Path(f"{long}.png")], tmp_path)
    for words in (
        ["", "a.png", "--output", "maps"],
        ["m.onnx", " ", "--output", "maps"],
        ["m.onnx", "a.png", "--output", ""],
    ):
        with pytest.raises(ValueError, match="A word is empty"):
            run_onnx.main(words)
    # One that is named twice is segmented once.
    image = tmp_path / "a/left.png"
    again = tmp_path / "b/../a/left.png"
    targets = run_onnx.choose_targets([image, again], tmp_path / "maps")
    assert targets == {image: tmp_path / "maps/left-classes.png"}


def test_run_onnx_leaves_out_what_it_cannot_read(tmp_path, monkeypatch, capsys):
    card = {"class_names": ["dark", "light"], "palette": [(0, 0, 0), (255, 255, 255)]}
    monkeypatch.setattr(run_onnx, "load", lambda *_: (None, card))

    def segment(session, card, picture):
        if picture.shape[0] == 9:
            raise MemoryError
        return (picture[..., 0] > 127).astype(np.int64)

    monkeypatch.setattr(run_onnx, "segment", segment)
    (tmp_path / "broken.png").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    draw_picture(8, 9).save(tmp_path / "large.png")
    draw_picture(8, 8).save(tmp_path / "good.png")
    names = ["broken", "pipe", "gone", "large", "good"]
    words = ["m.onnx", *(str(tmp_path / f"{name}.png") for name in names), "--output", str(tmp_path / "maps")]
    assert run_onnx.main(words) == 1
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["good-classes.png"]
    said = capsys.readouterr().err.splitlines()
    assert [Path(line.split(": ")[1]).stem for line in said] == names[:4]
    assert "memory" in said[3]
    assert run_onnx.main([words[0], *words[-3:]]) == 0


CARD = {
    "output": "logits",
    "class_names": ["dark", "light"],
    "palette": [[0, 0, 0], [255, 255, 255]],
    "image_processor": {"size": None, "rescale_factor": 1, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]},
    "windows": None,
    "smallest_side": 1,
}


@pytest.mark.parametrize(
    "edit, said",
    [
        ({"class_names": None}, "ValueError: class_names are no list of names"),
        ({"class_names": ["dark", 7]}, "ValueError: class_names are no list of names"),
        ({"palette": [[0, 0, 300], [0, 0, 0]]}, "OverflowError: "),
        ({"palette": [[0, 0, 0]]}, "ValueError: cannot reshape"),
        ({"image_processor": {}}, "KeyError: 'size'"),
        ({"image_processor": {**CARD["image_processor"], "image_std": "x"}}, "ValueError: could not convert"),
        ({"windows": {"size": [64, 64], "stride": [0, 64]}}, "ValueError: windows have a stride"),
        ({"output": "boxes"}, "ValueError: output 'boxes'"),
        ({"smallest_side": "many"}, "TypeError: "),
    ],
)
def test_run_onnx_names_a_card_that_was_edited(tmp_path, edit, said):
    (tmp_path / "m.onnx.json").write_text(json.dumps(CARD | edit))
    with pytest.raises(ValueError, match="m.onnx.json is not what training.export writes beside a model") as raised:
        run_onnx.load(tmp_path / "m.onnx")
    assert said in str(raised.value)


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, "{}", "\udcff"])
def test_run_onnx_names_a_card_that_is_none(tmp_path, text):
    (tmp_path / "m.onnx.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match="m.onnx.json is not what training.export writes beside a model"):
        run_onnx.load(tmp_path / "m.onnx")


@pytest.mark.parametrize("data", [b"", b"junk", bytes(1000)])
def test_run_onnx_names_a_model_that_is_none(tmp_path, data):
    (tmp_path / "m.onnx.json").write_text(json.dumps(CARD))
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ValueError, match="m.onnx (cannot be loaded: |takes )"):
        run_onnx.load(tmp_path / "m.onnx")


def test_run_onnx_shows_what_a_terminal_would_obey(tmp_path, monkeypatch, capsys):
    card = CARD | {"class_names": ["dark\x1b[2J", "light\u202e"]}
    monkeypatch.setattr(run_onnx, "load", lambda *_: (None, card))
    monkeypatch.setattr(run_onnx, "segment", lambda session, card, picture: np.eye(8, dtype=np.int64))
    good, broken = tmp_path / "good\r99 done\x1b[A.png", tmp_path / "broken\n\x9b2J.png"
    draw_picture(8, 8).save(good)
    broken.write_text("no picture")
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    out = tmp_path / "maps"
    assert run_onnx.main(["m.onnx", str(good), str(broken), str(loop), "--output", str(out)]) == 1
    said = capsys.readouterr()
    assert said.out == f"{out}/good\\r99 done\\x1b[A-classes.png: dark\\x1b[2J 87.5 %, light\\u202e 12.5 %\n"
    first, second = said.err.splitlines()
    assert first.startswith(f"left out: {tmp_path}/broken\\n\\x9b2J.png: ")
    assert second.startswith(f"left out: {loop}: ")


def test_map_of_run_onnx_replaces_an_older_one_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(run_onnx, "load", lambda *_: (None, CARD))
    monkeypatch.setattr(run_onnx, "segment", lambda session, card, picture: np.eye(8, dtype=np.int64))
    draw_picture(8, 8).save(tmp_path / "a.png")
    words = ["m.onnx", str(tmp_path / "a.png"), "--output", str(tmp_path / "maps")]
    assert run_onnx.main(words) == 0
    target = tmp_path / "maps" / "a-classes.png"
    before, rights = target.read_bytes(), target.stat().st_mode
    (tmp_path / "plain").touch()
    assert rights == (tmp_path / "plain").stat().st_mode  # as readable as others

    def save_half(mask, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save_half)
    with pytest.raises(OSError, match="a-classes.png could not be written: .*No space left on device"):
        run_onnx.main(words)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert target.read_bytes() == before


def test_more_classes_than_the_card_of_run_onnx_names_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(run_onnx, "load", lambda *_: (None, CARD))
    monkeypatch.setattr(run_onnx, "segment", lambda session, card, picture: np.full((8, 8), 2))
    draw_picture(8, 8).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="m.onnx has more classes than the 2 that m.onnx.json names"):
        run_onnx.main(["m.onnx", str(tmp_path / "a.png"), "--output", str(tmp_path)])


@pytest.mark.parametrize("file_format", ["onnx", "torch"])
def test_full_disk_is_no_fault_of_the_exporter(tmp_path, monkeypatch, file_format):
    folder = save_checkpoint(tiny_model("resnet"), DenseCLIPImageProcessor(), tmp_path / "model")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in ("trace", "convert"):  # which take seconds
        monkeypatch.setattr(type(formats.FORMATS[file_format]), step, lambda *_: None)
    monkeypatch.setattr(formats.OnnxFormat, "save", fail)
    monkeypatch.setattr(torch.export, "save", fail)
    with pytest.raises(OSError, match="out.bin.* could not be written: .*No space left on device"):
        target = tmp_path / f"out.bin{formats.FORMATS[file_format].suffix}"
        export.main([str(folder), str(target), "--format", file_format])
