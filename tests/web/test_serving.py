# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The server of docs/serving.md, as it stands there, with eight clients at once. FastAPI comes with Gradio."""

import base64
import io
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools.files.received import MAXIMUM_BYTES
from modeling_denseclip.tools.insight.batching import SegmentationQueue
from tests.tiny import draw_picture, spread_classes, tiny_model


pytest.importorskip("fastapi", reason="the server needs FastAPI: `make test-web`")
httpx = pytest.importorskip("httpx", reason="its clients need httpx: `make test-web`")
uvicorn = pytest.importorskip("uvicorn", reason="it is run by uvicorn: `make test-web`")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
SIZES = ((120, 90), (240, 180), (90, 120), (64, 64))  # the first two are one size as the model sees them


def read_block(marker: str) -> str:
    """The Python block of the page that holds these words."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if marker in block]
    return block


def encode(picture: PIL.Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "mine"
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 96, "longest_edge": 160})
    pixel_values = processor([draw_picture(160, 128, seed) for seed in range(4)], return_tensors="pt").pixel_values
    spread_classes(tiny_model("resnet"), pixel_values).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def names(checkpoint):
    """What the block of the page defines, with a model in float32, as the pipeline has it."""
    block = read_block("FastAPI(")
    assert len(block.splitlines()) <= 22, "about twenty lines"
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modeling_denseclip.tools.files.devices.multiplies_bfloat16", lambda device: False)
        exec(compile(block.replace('"mine"', repr(str(checkpoint))), str(PAGE), "exec"), names)
    yield names
    names["queue"].close()


@pytest.fixture(scope="module")
def address(names):
    server = uvicorn.Server(uvicorn.Config(names["app"], log_level="warning"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/segment"
    server.should_exit = True
    thread.join()


@pytest.fixture
def noted(names, monkeypatch) -> list[int]:
    """How many photographs went through the model together, each time."""
    batches, predictor = [], names["queue"].predictor
    compute = predictor.compute

    def note(copies, size):
        batches.append(len(copies[0]))
        return compute(copies, size)

    monkeypatch.setattr(predictor, "compute", note)
    return batches


def test_eight_clients_at_once_get_the_answers_of_the_pipeline(address, checkpoint, noted):
    from transformers import pipeline

    segmenter = pipeline("image-segmentation", model=str(checkpoint), trust_remote_code=True, device="cpu")
    pictures = [draw_picture(*SIZES[seed // 2 % 4], seed) for seed in range(64)]
    begin = threading.Barrier(8)

    def ask(client: int) -> list[dict]:
        begin.wait(60)
        with httpx.Client(timeout=120) as connection:
            answers = [connection.post(address, content=encode(picture)) for picture in pictures[client::8]]
        assert [answer.status_code for answer in answers] == [200] * 8
        return [answer.json() for answer in answers]

    with ThreadPoolExecutor(8) as clients:
        of_clients = list(clients.map(ask, range(8)))
    assert sum(noted) == 64 and 1 < max(noted) <= 8, "some waited, and went through the model together"
    names = segmenter.model.config.label2id
    for client, answers in enumerate(of_clients):
        for picture, answer in zip(pictures[client::8], answers, strict=True):
            expected = segmenter(picture)
            decoded = {"answer": answer}
            exec(read_block("np.asarray(Image.open("), decoded)
            class_ids = decoded["class_ids"]
            assert class_ids.shape == (answer["height"], answer["width"]) == picture.size[::-1]
            agree = [
                (class_ids == names[segment["label"]])[np.asarray(segment["mask"]) > 0].sum() for segment in expected
            ]
            # Folded norms, and neighbours in a batch, change the last bits of logits.
            assert sum(agree) > 0.999 * class_ids.size
            scores = {entry["label"]: entry["score"] for entry in answer["classes"]}
            assert scores == pytest.approx({segment["label"]: segment["score"] for segment in expected}, abs=1e-3)


def test_who_comes_when_the_queue_is_full_is_sent_away_with_words(address, names, monkeypatch):
    queue: SegmentationQueue = names["queue"]
    arrived, opened, compute = threading.Event(), threading.Event(), queue.predictor.compute

    def wait(copies, size):
        arrived.set()
        assert opened.wait(60)
        return compute(copies, size)

    monkeypatch.setattr(queue.predictor, "compute", wait)
    photograph = encode(draw_picture(60, 50))
    with ThreadPoolExecutor(33) as clients:
        waiting = [clients.submit(httpx.post, address, content=photograph, timeout=120) for _ in range(32)]
        assert arrived.wait(60)
        while queue._places._value:  # until all 32 are in the house
            time.sleep(0.01)
        refused = httpx.post(address, content=photograph, timeout=120)
        opened.set()
        assert {answer.result().status_code for answer in waiting} == {200}
    assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
    assert refused.json() == {"detail": "32 photographs are waiting: try again in a moment."}
    assert httpx.post(address, content=photograph, timeout=120).status_code == 200


WRONG = {
    "nothing": (b"", 422, "cannot be read as a picture"),
    "a text": (b"no picture", 422, "cannot be read as a picture"),
    "a broken picture": (encode(draw_picture(60, 50))[:-40], 422, "cannot be read as a picture"),
    "a GIF": (encode(draw_picture(60, 50), "GIF"), 422, "cannot be read as a picture: it is a GIF."),
    "a page": (b"<!doctype html><title>Sign in</title>", 422, "cannot be read as a picture: it is a page of HTML"),
    "a strip": (encode(PIL.Image.new("RGB", (2000, 20))), 422, "both sides must have at least 32"),
    "too many pixels": (encode(PIL.Image.new("1", (6001, 4000))), 413, "24 megapixels are the limit"),
    "a bomb": (encode(PIL.Image.new("1", (20_000, 20_000))), 413, "too large; 24 megapixels are the limit"),
    "too many bytes": (bytes(MAXIMUM_BYTES + 1), 413, "may have 20 MB"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_photographs_get_a_status_and_words(address, kind):
    data, status, words = WRONG[kind]
    answer = httpx.post(address, content=data, timeout=120)
    assert answer.status_code == status and words in answer.json()["detail"]


def test_upload_without_end_is_cut_off(address):
    """In chunks, without a length."""
    host, port = re.match(r"http://([\d.]+):(\d+)", address).groups()
    chunk = b"%x\r\n%b\r\n" % (2**20, bytes(2**20))
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(21):
            connection.sendall(chunk)
        answer = connection.recv(2**16)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_upload_that_takes_too_long_is_cut_off(address, names, monkeypatch):
    """A byte now and then would keep one of the 64 connections for ever."""
    queue, allowed = names["queue"], []
    answer = queue.answer

    def answer_soon(parts, seconds):
        allowed.append(seconds)
        return answer(parts, seconds=0.2)

    monkeypatch.setattr(queue, "answer", answer_soon)
    host, port = re.match(r"http://([\d.]+):(\d+)", address).groups()
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        received = b""
        while part := connection.recv(2**16):  # until the server closes the connection
            received += part
    assert received.startswith(b"HTTP/1.1 408 ") and b"within 30 seconds" in received
    assert allowed == [30]


def test_who_leaves_in_the_middle_of_a_photograph_leaves_no_error(address, caplog):
    host, port = re.match(r"http://([\d.]+):(\d+)", address).groups()
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
    # The server notices it before it answers the next one.
    assert httpx.post(address, content=encode(draw_picture(60, 50)), timeout=120).status_code == 200
    assert [record for record in caplog.records if record.exc_info] == []


def test_answers_are_json_that_other_programs_read(address):
    answer = httpx.post(address, content=encode(draw_picture(60, 50)), timeout=120)
    assert answer.headers["Content-Type"] == "application/json"
    read = json.loads(answer.content)
    assert read.keys() == {"height", "width", "mask", "classes"}
    assert base64.b64decode(read["mask"]).startswith(b"\x89PNG")
    assert sum(entry["pixels"] for entry in read["classes"]) == 60 * 50
