# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Folders of `training.export --format transformers.js` in the library as npm has it, in Node.js and in a headless
browser, against the pipeline in Python: `make test-web`.
"""

import base64
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image

from tests.hub_server import USER, WRITE_TOKEN, HubServer
from tests.tiny import draw_picture


onnx = pytest.importorskip("onnx", reason="an export needs ONNX: `make test-web`")
pytest.importorskip("playwright", reason="a browser needs Playwright: `make test-web`")

from modeling_denseclip import DenseCLIPImageProcessor  # noqa: E402
from tests.test_export import map_of_pipeline  # noqa: E402
from tests.tiny import TINY_CLASS_NAMES, save_checkpoint, spread_classes, tiny_model  # noqa: E402
from tests.web.browser import open_browser  # noqa: E402
from tests.web.clients import JAVASCRIPT, MODULES, job, run_node, serve  # noqa: E402
from training import export  # noqa: E402
from training.publishing import export as exporting  # noqa: E402
from training.publishing import pictures, transformers_js  # noqa: E402


if not MODULES.is_dir():
    pytest.skip("transformers.js is not installed: `make test-web`", allow_module_level=True)

SIZE = {"shortest_edge": 96, "longest_edge": 160}


def map_of(segments: list[dict], names: list[str]) -> np.ndarray:
    """Class ids of masks, of which each pixel is in one."""
    height, width = segments[0]["height"], segments[0]["width"]
    classes, counts = np.full((height, width), -1), np.zeros((height, width), int)
    for segment in segments:
        mask = np.frombuffer(base64.b64decode(segment["mask"]), np.uint8).reshape(height, width)
        assert set(np.unique(mask)) == {0, 255} or (len(segments) == 1 and (mask == 255).all())
        classes[mask > 0], counts = names.index(segment["label"]), counts + (mask > 0)
    assert (counts == 1).all()
    return classes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    model, processor = tiny_model("shallow"), DenseCLIPImageProcessor(size=SIZE)
    drawn = [draw_picture(96, 96, seed=seed) for seed in (1, 2)]
    spread_classes(model, processor(drawn, return_tensors="pt").pixel_values)
    return save_checkpoint(model, processor, tmp_path_factory.mktemp("checkpoint") / "model")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """
    Odd, tall, tiny, and larger than the model sees them; grey, with transparency, and with a palette. The last one is
    a JPEG that lies on its side.
    """
    folder = tmp_path_factory.mktemp("images")
    drawn = [draw_picture(*size, seed=seed) for seed, size in enumerate(((131, 77), (64, 211), (9, 7), (301, 240)))]
    transparent = drawn[0].copy()
    transparent.putalpha(drawn[3].convert("L").resize(drawn[0].size))
    drawn += [drawn[0].convert("L"), transparent, drawn[0].quantize(32)]
    for index, picture in enumerate(drawn):
        picture.save(folder / f"{index}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn[0].transpose(Image.Transpose.ROTATE_90).save(folder / "7.jpg", exif=exif, quality=95)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def folder(checkpoint, images, tmp_path_factory) -> Path:
    """For transformers.js, and beside it a file that takes pictures, of the same graph: making it takes long."""
    target = tmp_path_factory.mktemp("served") / "web"
    core, write = target.with_name("core"), exporting.write

    def write_once(module, file_format, path):
        if not core.exists():
            write(module, file_format, core)
        shutil.copy(core, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "write", write_once)
        words = ["--format", "transformers.js", "--float16", "--int8", "dynamic", "--calibration_images"]
        export.main([str(checkpoint), str(target), *words, *map(str, images[:4])])
        words = ["--input", "pictures", "--output", "class_map"]
        export.main([str(checkpoint), str(target.with_name("pictures.onnx")), *words])
    return target


def test_node_finds_the_masks_of_the_pipeline(checkpoint, folder, images):
    kinds = {"fp32": 0.9999, "fp16": 0.99, "q8": 0.9}
    results = run_node(job(folder, *images), *(job(folder, *images[:4], dtype=kind) for kind in kinds))
    assert [result["dtype"] for result in results] == ["fp32", *kinds]
    expected = [map_of_pipeline(checkpoint, load_image(str(image))) for image in images]  # upright
    for result, least in zip(results, (0.9999, *kinds.values()), strict=True):
        for index, segments in enumerate(result["found"]):
            limit = least if index < 7 else 0.99  # decoders of JPEG differ
            assert np.mean(map_of(segments, list(TINY_CLASS_NAMES)) == expected[index]) >= limit, (limit, index)
            assert {segment["score"] for segment in segments} == {None}


@pytest.mark.parametrize("names", [["дорога"], [f"класс {index} ä\u0308 \U0001f6b2" for index in range(300)]])
def test_node_has_any_names_and_numbers_of_classes(names, images, tmp_path):
    weights = np.random.default_rng(0).standard_normal((len(names), 3, 1, 1)).astype(np.float32)
    shape = ["batch_size", 3, "height", "width"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["pixel_values", "weights"], ["logits"])],
        "small",
        [onnx.helper.make_tensor_value_info("pixel_values", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [shape[0], len(names), *shape[2:]])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    core = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    rule = {"size": None, "rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    onnx.save(pictures.surround(core, rule, "picture_values", "logits", len(names)), tmp_path / "float32")
    card = {"class_names": names, "license": "mit", "checkpoint_sha256": {}, "versions": {}}
    transformers_js.write_folder({"float32": tmp_path / "float32"}, tmp_path / "дорога 1", card)
    ((segments,),) = (result["found"] for result in run_node(job(tmp_path / "дорога 1", images[0])))
    values = (np.asarray(Image.open(images[0])) / 255 - 0.5) / 0.25
    expected = (values @ weights[:, :, 0, 0].T.astype(np.float64)).argmax(axis=-1)
    assert np.mean(map_of(segments, names) == expected) > 0.999
    assert [segment["label"] for segment in segments] == [names[index] for index in np.unique(expected)]


def test_lines_of_the_readme_run_as_they_are(folder, images, tmp_path):
    (lines,) = re.findall("^```js\n(.*?)^```", (folder / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "web").symlink_to(folder)
    (tmp_path / "node_modules").symlink_to(MODULES)
    Image.open(images[0]).save(tmp_path / "street.jpg")
    (tmp_path / "lines.mjs").write_text(f"{lines}\nconsole.log(segments[0].label, segments[0].mask.size)\n")
    result = subprocess.run(["node", "lines.mjs"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{TINY_CLASS_NAMES[0]} [ 131, 77 ]\n"


def test_one_repository_of_the_hub_serves_python_and_javascript(checkpoint, folder, images, tmp_path):
    with HubServer() as hub:
        repo_id = f"{USER}/tiny"
        command = [sys.executable, "-m", "training.push", str(checkpoint), repo_id, "--transformers_js", str(folder)]
        environment = {"PATH": "/usr/bin:/bin", **hub.environment(tmp_path, WRITE_TOKEN)}
        result = subprocess.run(command, cwd=JAVASCRIPT.parents[2], env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert f"pipeline('image-segmentation', '{repo_id}', {{ revision: 'transformers.js' }})" in result.stdout
        (found,) = run_node(job(repo_id, images[0], revision="transformers.js"), hub=(hub.url, tmp_path / "cache"))
    expected = map_of_pipeline(checkpoint, Image.open(images[0]))
    assert np.mean(map_of(found["found"][0], list(TINY_CLASS_NAMES)) == expected) > 0.9999


# --- In a browser ----------------------------------------------------------------------------------------------------


def test_a_browser_finds_the_masks_of_the_pipeline(checkpoint, folder, images):
    with serve(folder.parent, images[0].parent) as address, open_browser() as browser:
        page = browser.new_page()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/page.html")
        page.wait_for_function("window.segment !== undefined")
        # By itself a browser without WebGPU takes integers.
        seen = [f"{address}/images/{image.name}" for image in images[:4]]
        results = page.evaluate("jobs => segment(jobs)", [job("web", *seen), job("web", *seen, dtype="fp32")])
        found = page.evaluate("([file, image]) => classMap(file, image)", ["/models/pictures.onnx", seen[0]])
    assert [result["dtype"] for result in results] == ["q8", "fp32"]
    assert all(url.startswith((address, "blob:")) for url in asked), "nothing comes from elsewhere"
    for result, least in zip(results, (0.9, 0.9999), strict=True):
        for image, segments in zip(images, result["found"], strict=False):
            expected = map_of_pipeline(checkpoint, Image.open(image))
            assert np.mean(map_of(segments, list(TINY_CLASS_NAMES)) == expected) >= least
    # Numbers that JavaScript compares with others, of the picture's size.
    expected = map_of_pipeline(checkpoint, Image.open(images[0]))
    assert (found["type"], found["dims"]) == ("uint8", [1, *expected.shape])
    assert np.mean(np.reshape(found["data"], expected.shape) == expected) > 0.9999
