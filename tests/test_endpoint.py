# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
`handler.py` for Inference Endpoints: as it is pushed, in a process that has nothing else of ours, behind a stand-in
for their server; and, by itself, with all that may be sent to it.
"""

import base64
import importlib.util
import io
import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import huggingface_hub
import numpy as np
import PIL.Image
import pytest
import torch
from huggingface_hub import InferenceClient

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools.files import devices, received
from modeling_denseclip.tools.files.devices import choose_device, prepare_for_inference
from modeling_denseclip.tools.files.loading import load_model
from modeling_denseclip.tools.insight.predictors import ClassPredictor
from tests.hub_server import USER, WRITE_TOKEN, HubServer
from tests.test_hub import make_environment
from tests.test_pipeline import as_map, load_pipeline
from tests.test_remote_code import ROOT, SIZE, settled_model
from tests.tiny import TINY_CLASS_NAMES, draw_picture, save_checkpoint
from tests.warm import warm_python
from training.publishing.endpoint import MARK, write_endpoint_files


REPO = f"{USER}/served"


def encode(picture: PIL.Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def to_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decode_mask(mask: str) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(base64.b64decode(mask)))


def decode_segments(segments: list[dict]) -> list[dict]:
    """With pictures for masks, as the pipeline gives them."""
    return [{**segment, "mask": decode_mask(segment["mask"])} for segment in segments]


@pytest.fixture(scope="module")
def picture():
    return draw_picture(150, 100, seed=7)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model that slides windows, and pads batches, which an endpoint must not do."""
    processor = DenseCLIPImageProcessor(size=SIZE, do_pad=True, pad_size={"height": 160, "width": 160})
    model = settled_model("resnet", processor)
    model.config.inference_mode, model.config.window_size, model.config.window_stride = "slide", (64, 64), (48, 48)
    return save_checkpoint(model, processor, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def class_ids(checkpoint, picture):
    """What `denseclip predict` finds by itself, and the sums of it."""
    model, image_processor = load_model(str(checkpoint))
    predictor = ClassPredictor(prepare_for_inference(model, choose_device(None)), image_processor)
    ((found, totals),) = predictor([picture])
    assert len(np.unique(found)) >= 4
    return found, predictor.list_classes(totals)


# ----------------------------------------------------------------------------------------------------- as it is pushed


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        yield hub


def push(hub, directory: Path, home: Path, *words: str, repo_id: str = REPO) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*warm_python(), "-m", "training.push", str(directory), repo_id, "--token", WRITE_TOKEN, *words],
        cwd=ROOT,
        env=make_environment(hub, home),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def pushed(hub, checkpoint, tmp_path_factory):
    """The files of the repository in a folder."""
    pushing = push(hub, checkpoint, tmp_path_factory.mktemp("home"), "--handler")
    assert pushing.returncode == 0, pushing.stdout + pushing.stderr
    folder = tmp_path_factory.mktemp("repository")
    for name, data in hub.files(REPO).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def address(pushed, tmp_path_factory):
    """Of a server on these files, which cannot import this package."""
    home = tmp_path_factory.mktemp("endpoint")
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment |= {"HOME": str(home), "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    script = Path(__file__).with_name("toolkit_server.py")
    with subprocess.Popen(
        [*warm_python(), "-I", str(script), str(pushed), "modeling_denseclip", "training"],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        line = server.stdout.readline().strip()
        if not line:
            pytest.fail(server.communicate()[1])
        yield line
        server.terminate()


def post(address: str, body: bytes, content_type: str) -> tuple[int, dict | list]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, {"Content-Type": content_type})) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def post_json(address: str, **body) -> tuple[int, dict | list]:
    return post(address, json.dumps(body).encode(), "application/json")


def test_push_sends_the_handler_on_request_alone(pushed, hub, checkpoint, tmp_path):
    assert {"handler.py", "requirements.txt"} <= {path.name for path in pushed.iterdir()}
    assert not (checkpoint / "handler.py").exists(), "the folder stays as it was"
    assert push(hub, checkpoint, tmp_path, repo_id=f"{USER}/without").returncode == 0
    assert hub.files(REPO).keys() - hub.files(f"{USER}/without").keys() == {"handler.py", "requirements.txt"}


@pytest.mark.parametrize("task", ["", "pipeline/image-segmentation"])
def test_the_hubs_client_gets_what_the_model_finds(address, task, picture, class_ids, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    picture.save(tmp_path / "street.png")
    client = InferenceClient(model=f"{address}/{task}")
    expected, classes = class_ids
    scores = {entry["label"]: entry["score"] for entry in classes}
    # Without parameters the client sends the bytes of the file, and with some JSON.
    whole, some = (client.image_segmentation(tmp_path / "street.png", **words) for words in ({}, {"threshold": 0.4}))
    assert (as_map([vars(segment) for segment in whole], picture.size) == expected).mean() > 0.999
    assert {segment.label: segment.score for segment in whole} == pytest.approx(scores, abs=1e-3)
    kept = [segment for segment in whole if segment.score >= 0.4]
    assert [segment.label for segment in some] == [segment.label for segment in kept]
    assert 0 < len(kept) < len(whole), "the threshold leaves out some"
    for segment, same in zip(some, kept, strict=True):
        assert segment.mask.tobytes() == same.mask.tobytes()


def test_every_form_of_a_request_gets_the_same_answer(address, picture, class_ids):
    data = encode(picture)
    status, expected = post(address, data, "image/png")
    assert status == 200
    task = f"{address}/pipeline/image-segmentation"
    for answer in (
        post_json(address, inputs=to_text(data)),
        post_json(address, inputs=f"data:image/png;base64,{to_text(data)}"),
        post_json(address, inputs=base64.encodebytes(data).decode(), parameters={"subtask": "semantic"}),
        post_json(task, inputs=to_text(data), parameters={}),
        post(task, data, "application/octet-stream"),
    ):
        assert answer == (200, expected)
    for where in (address, task):
        other = encode(draw_picture(90, 120, seed=2), "JPEG")
        status, both = post_json(where, inputs=[to_text(data), to_text(other)])
        assert (status, both[0], len(both)) == (200, expected, 2)
        assert decode_segments(both[1])[0]["mask"].size == (90, 120)
    status, ids = post(f"{address}/?output=ids", data, "image/png")
    assert status == 200
    found, classes = class_ids
    assert (ids["height"], ids["width"]) == found.shape
    mask = np.asarray(decode_mask(ids["mask"]))
    assert mask.dtype == np.uint8 and (mask == found).mean() > 0.999
    assert (as_map(decode_segments(expected), picture.size) == mask).all()
    assert [entry["pixels"] for entry in ids["classes"]] == sorted(np.bincount(mask.ravel()), reverse=True)
    for entry, same in zip(ids["classes"], classes, strict=True):
        assert entry.keys() == same.keys() and entry["id"] == same["id"] and entry["label"] == same["label"]
        assert entry["area"] == round(entry["pixels"] / mask.size, 6) == pytest.approx(same["area"], abs=1e-3)
        assert entry["score"] == pytest.approx(same["score"], abs=1e-3)


def test_what_is_wrong_gets_the_status_400_and_words_and_the_next_request_an_answer(address, picture):
    for answer, words in (
        (post_json(address, inputs="http://127.0.0.1:1/secret.png"), "is an address, and nothing is fetched here"),
        (post_json(address, inputs=str(Path(__file__))), "paths are not opened"),
        (post_json(address, instances=[]), "has the field `inputs`"),
        (post(f"{address}/?treshold=1", encode(picture), "image/png"), "Did you mean `threshold`?"),
        (post(address, encode(PIL.Image.new("1", (6001, 4000))), "image/png"), "6001 x 4000 pixels; 24 megapixels"),
        (post_json(address, inputs=to_text(b"no picture")), "cannot be read as a picture"),
    ):
        assert answer[0] == 400 and answer[1].keys() == {"error"} and words in answer[1]["error"], answer
    assert post(address, encode(picture), "image/png")[0] == 200


def test_own_files_of_a_folder_are_sent_in_the_place_of_ours(hub, checkpoint, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "handler.py").write_text("class EndpointHandler: ...\n")
    (folder / "requirements.txt").write_text(f"{MARK}transformers<5\n")  # ours, of an earlier release
    repo_id = f"{USER}/own"
    assert push(hub, folder, tmp_path / "home", "--handler", repo_id=repo_id).returncode == 0
    files = hub.files(repo_id)
    assert files["handler.py"] == b"class EndpointHandler: ...\n"
    assert files["requirements.txt"].decode() == write_endpoint_files()["requirements.txt"]
    (folder / "requirements.txt").unlink()
    (folder / "requirements.txt").symlink_to(__file__)
    refused = push(hub, folder, tmp_path / "home", "--handler", repo_id=repo_id)
    assert refused.returncode == 2 and "which is not in" in refused.stderr
    assert hub.files(repo_id) == files


def test_requirements_are_those_of_the_package():
    lines = write_endpoint_files()["requirements.txt"].splitlines()
    required = [line for line in lines if not line.startswith("#")]
    installed = (ROOT / "setup.cfg").read_text(encoding="utf-8").splitlines()
    assert required and {f"    {line}" for line in required} <= set(installed)


# ---------------------------------------------------------------------------------------------------------- by itself


@pytest.fixture(scope="module")
def handler_file():
    spec = importlib.util.spec_from_file_location("handler", ROOT / "model_cards" / "endpoint" / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def handler(handler_file, checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "multiplies_bfloat16", lambda device: False)
        return handler_file.EndpointHandler(str(checkpoint))


@pytest.mark.parametrize("fast", [False, True])
def test_it_computes_in_bfloat16_where_that_is_faster(handler_file, checkpoint, fast, monkeypatch):
    monkeypatch.setattr(devices, "multiplies_bfloat16", lambda device: fast)
    model = handler_file.EndpointHandler(str(checkpoint)).model
    assert model.is_fused and model.dtype == (torch.bfloat16 if fast else torch.float32)


def test_answer_is_the_pipelines(handler, checkpoint, picture):
    segmenter = load_pipeline(checkpoint, dtype="float32")
    segmenter.image_processor.do_pad = False
    expected = segmenter(picture)
    segments = decode_segments(handler({"inputs": picture}))
    assert [segment["label"] for segment in segments] == [segment["label"] for segment in expected]
    for segment, same in zip(segments, expected, strict=True):
        assert segment["score"] == pytest.approx(same["score"], abs=1e-4)
        assert segment["mask"].mode == same["mask"].mode == "L"
    # Folded batch norms change the last bits of logits, and so the class where two are as good as equal.
    assert (as_map(segments, picture.size) == as_map(expected, picture.size)).mean() > 0.999


def test_photographs_become_upright(handler, picture):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    turned = encode(picture.transpose(PIL.Image.Transpose.ROTATE_90), exif=exif)
    # What the server makes of the body of a request keeps the orientation beside the pixels.
    with PIL.Image.open(io.BytesIO(turned)) as file:
        opened = file.convert("RGB")
    expected = handler({"inputs": picture})
    assert handler({"inputs": turned}) == handler({"inputs": opened}) == expected


def test_ids_of_many_classes_have_16_bits(handler_file):
    class_ids = np.arange(300, dtype=np.uint16).reshape(15, 20)
    assert np.array_equal(np.asarray(decode_mask(handler_file.encode(class_ids))), class_ids)


SMALL = encode(draw_picture(40, 30))
WRONG_REQUESTS = {
    "no dictionary": ([SMALL], "has the field `inputs`, and it is missing"),
    "no inputs": ({"image": SMALL}, "has the field `inputs`, and it is missing"),
    "nothing": ({"inputs": None}, "`inputs` is a NoneType, and a photograph is the bytes of its file"),
    "a dictionary": ({"inputs": {"image": "abcd"}}, "`inputs` is a dict"),
    "an empty text": ({"inputs": ""}, "cannot be read as a picture"),
    "an address": ({"inputs": "https://example.org/a.png"}, "'https://example.org/a.png' is an address"),
    "a file as an address": ({"inputs": f"file://{__file__}"}, "is an address"),
    "a path": ({"inputs": __file__}, "is no base64 (...paths are not opened"),
    "letters that are no ASCII": ({"inputs": "небо"}, "is no base64 ("),
    "a data: URL without base64": ({"inputs": "data:image/png,abc"}, "This data: URL holds no base64"),
    "a data: URL without data": ({"inputs": "data:image/png;base64"}, "cannot be read as a picture"),
    "an empty list": ({"inputs": []}, "1 to 16 photographs; got 0"),
    "a list that is too long": ({"inputs": [SMALL] * 17}, "1 to 16 photographs; got 17"),
    "a broken one among others": (
        {"inputs": [SMALL, SMALL[:-30]]},
        "inputs[1]: This file cannot be read as a picture",
    ),
    "a picture that is opened alone, and broken": (
        {"inputs": PIL.Image.open(io.BytesIO(SMALL[:-30]))},
        "This picture cannot be read: ",
    ),
    "a list in a list": ({"inputs": [[SMALL]]}, "inputs[0]: `inputs` is a list"),
    "a strip": (
        {"inputs": encode(PIL.Image.new("RGB", (2000, 20)))},
        "A photograph of 20 x 2000 pixels...both sides must have at least 32",
    ),
    "too many pixels": ({"inputs": PIL.Image.new("1", (6001, 4000))}, "6001 x 4000 pixels; 24 megapixels"),
    "numbers without a range": ({"inputs": PIL.Image.new("F", (40, 40))}, "floating-point numbers, whose range"),
    "parameters that are a list": ({"inputs": SMALL, "parameters": ["ids"]}, "`parameters` is a list"),
    "an unknown parameter": ({"inputs": SMALL, "parameters": {"candidate_labels": ["a"]}}, "no parameter 'candidate"),
    "a parameter of masks that overlap": ({"inputs": SMALL, "parameters": {"mask_threshold": 1}}, "no meaning here"),
    "instances": ({"inputs": SMALL, "parameters": {"subtask": "instance"}}, "segments classes alone: 'semantic'"),
    "an unknown output": ({"inputs": SMALL, "parameters": {"output": "png"}}, "one of segments, ids"),
    "an output that is a list": ({"inputs": SMALL, "parameters": {"output": ["ids"]}}, "one of segments, ids"),
    "a threshold of 2": ({"inputs": SMALL, "parameters": {"threshold": 2}}, "is 2; it is a number from 0 to 1"),
    "a threshold that is NaN": ({"inputs": SMALL, "parameters": {"threshold": "nan"}}, "a number from 0 to 1"),
    "a threshold that is true": ({"inputs": SMALL, "parameters": {"threshold": True}}, "a number from 0 to 1"),
    "a threshold of ids": ({"inputs": SMALL, "parameters": {"threshold": 0.5, "output": "ids"}}, "leave it out"),
}


@pytest.mark.parametrize("kind", WRONG_REQUESTS)
def test_wrong_requests_get_words(handler, kind):
    request, words = WRONG_REQUESTS[kind]
    with pytest.raises(ValueError) as refused:
        handler(request)
    first, _, last = words.partition("...")
    assert first in str(refused.value) and last in str(refused.value)


def test_texts_that_are_too_long_are_refused_before_they_are_decoded(handler, monkeypatch):
    monkeypatch.setattr(base64, "b64decode", lambda *args, **kwargs: pytest.fail("it was decoded"))
    with pytest.raises(received.TooLargeError, match="letters of base64"):
        handler({"inputs": "a" * (2 * 20 * 2**20 + 1)})


def test_threshold_of_an_address_is_a_text(handler_file):
    assert handler_file.read_parameters({"threshold": "0.25"}) == ("segments", 0.25)
    assert handler_file.read_parameters(None) == handler_file.read_parameters({}) == ("segments", 0.0)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_where_memory_ends_it_says_so(handler, picture, error, monkeypatch):
    monkeypatch.setattr(handler.model, "forward", lambda *args, **kwargs: (_ for _ in ()).throw(error))
    with pytest.raises(ValueError, match="needs more memory than there is"):
        handler({"inputs": picture})


def test_every_class_has_a_name_in_the_answer(handler, picture):
    labels = {entry["label"] for entry in handler({"inputs": picture, "parameters": {"output": "ids"}})["classes"]}
    assert labels <= set(TINY_CLASS_NAMES) and len(labels) >= 4
