# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The page's endpoint for programs, by the client of Gradio, and what it does not let them do."""

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
from modeling_denseclip.tools.insight.predictors import ClassPredictor
from modeling_denseclip.tools.page import server, uploads
from tests.tiny import draw_picture, make_tiny_tokenizer, spread_classes, tiny_model


pytest.importorskip("gradio", reason="the page needs Gradio: `make test-web`")

import httpx  # noqa: E402
from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402
from gradio_client.utils import QueueError  # noqa: E402


PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def read_block(marker: str) -> str:
    """The Python block of the page of the documentation that holds these words."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if marker in block]
    return block


def save(path: Path, picture: PIL.Image.Image, **options) -> Path:
    picture.save(path, **options)
    return path


@pytest.fixture(scope="module")
def predictor():
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    pixel_values = processor([draw_picture(150, 100, seed) for seed in range(4)], return_tensors="pt").pixel_values
    model = spread_classes(tiny_model("resnet"), pixel_values)
    model.tokenizer = make_tiny_tokenizer()
    return ClassPredictor(model, processor)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where uploads lie."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def page(predictor, folder):
    page = server.build_page(predictor.model, predictor.image_processor, "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield page
        page.close()


@pytest.fixture(scope="module")
def address(page):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return server.serve(page, host="127.0.0.1", port=port)[0]


@pytest.fixture
def client(address, tmp_path):
    client = Client(address, verbose=False, download_files=tmp_path / "downloads")
    yield client
    client.close()


def ask(client: Client, path: Path) -> dict:
    return client.predict(handle_file(path), api_name="/segment")


def list_uploads(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_the_documentation_shows_gets_what_the_model_finds(address, predictor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = draw_picture(150, 100, seed=3)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned upright
    save(tmp_path / "street.png", picture.transpose(PIL.Image.Transpose.ROTATE_90), exif=exif)
    names = {}
    block = read_block("gradio_client").replace("http://127.0.0.1:7860", address).replace("street.jpg", "street.png")
    exec(block + read_block("np.asarray(Image.open("), names)
    names["client"].close()
    ((class_ids, totals),) = predictor([picture])
    assert len(np.unique(class_ids)) >= 4
    assert np.array_equal(names["class_ids"], class_ids)
    assert names["answer"]["classes"] == predictor.list_classes(totals)
    assert names["answer"].keys() == {"height", "width", "mask", "classes"}


def test_it_is_the_only_one(client):
    info = client.view_api(return_format="dict", print_info=False)
    assert info["named_endpoints"].keys() == {"/segment"} and not info["unnamed_endpoints"]
    (parameter,) = info["named_endpoints"]["/segment"]["parameters"]
    assert parameter["parameter_name"] == "photograph"


def test_nothing_else_of_the_page_is_open_to_programs(address, client, page, tmp_path):
    photograph = handle_file(save(tmp_path / "a.png", draw_picture(60, 50)))
    for fn in page.fns.values():
        if fn.api_name != "segment":
            with pytest.raises(ValueError):
                client.predict(photograph, api_name=f"/{fn.api_name}")
            with pytest.raises(ValueError):
                client.predict(photograph, fn_index=fn._id)


def test_wrong_files_get_words_and_the_next_one_an_answer(client, tmp_path):
    whole = save(tmp_path / "a.png", draw_picture(60, 50))
    broken = tmp_path / "broken.png"
    broken.write_bytes(whole.read_bytes()[:-40])
    words = tmp_path / "words.png"
    words.write_text("no picture")
    gif = save(tmp_path / "b.png", draw_picture(60, 50), format="GIF")
    for path, said in (
        (broken, "cannot be read as a picture"),
        (words, "cannot be read as a picture"),
        (gif, "cannot be read as a picture"),
        (save(tmp_path / "strip.png", PIL.Image.new("RGB", (2000, 20))), "both sides must have at least 32"),
        (save(tmp_path / "large.png", PIL.Image.new("1", (6001, 4000))), "6001 x 4000 pixels; 24 megapixels"),
        (save(tmp_path / "bomb.png", PIL.Image.new("1", (20_000, 20_000))), "too large; 24 megapixels"),
    ):
        with pytest.raises(AppError, match=said):
            ask(client, path)
    with pytest.raises(AppError, match="There is no photograph yet"):
        client.predict(None, api_name="/segment")
    assert ask(client, whole)["width"] == 60


def test_file_of_too_many_bytes_is_refused(client, tmp_path):
    heavy = tmp_path / "heavy.png"
    heavy.write_bytes(bytes(uploads.MAXIMUM_BYTES + 1))
    with pytest.raises(ValueError, match="exceeds the maximum file size of 20971520 bytes"):  # the client's own words
        ask(client, heavy)
    client.config["max_file_size"] = None  # one that does not look
    with pytest.raises(Exception, match="413"):
        ask(client, heavy)


def test_addresses_and_files_of_the_server_are_refused(client, page, neighbour, tmp_path, monkeypatch):
    from gradio import processing_utils

    address, asked = neighbour
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", lambda *args, **kwargs: asked.append(args))
    for place in (f"{address}/secret.png", "https://example.org/photo.png"):
        with pytest.raises(AppError, match="A photograph is uploaded, not named by its address"):
            client.predict(handle_file(place), api_name="/segment")
    assert asked == []
    # The client would upload a path; this one names it.
    monkeypatch.setattr("gradio_client.client.Endpoint.process_input_files", lambda self, *data: data)
    for path in (__file__, save(tmp_path / "private.png", draw_picture(60, 50))):
        with pytest.raises(AppError):
            ask(client, Path(path))


def hold_back(page, monkeypatch) -> tuple[threading.Event, threading.Event]:
    """Nothing is computed until the second event is set; the first says that something would be."""
    begun, go_on = threading.Event(), threading.Event()
    find_classes = server.find_classes

    def wait(*args):
        begun.set()
        assert go_on.wait(60)
        return find_classes(*args)

    monkeypatch.setattr(server, "find_classes", wait)
    return begun, go_on


def test_it_waits_in_the_queue_of_the_page_and_is_sent_away_when_that_is_full(address, page, tmp_path, monkeypatch):
    monkeypatch.setattr(page._queue, "max_size", 2)
    begun, go_on = hold_back(page, monkeypatch)
    photograph = handle_file(save(tmp_path / "a.png", draw_picture(60, 50)))
    clients = [Client(address, verbose=False) for _ in range(4)]
    jobs = [clients[0].submit(photograph, api_name="/segment")]
    assert begun.wait(60)
    jobs += [client.submit(photograph, api_name="/segment") for client in clients[1:3]]
    while len(page._queue) < 2:
        time.sleep(0.01)
    with pytest.raises(QueueError, match="Queue is full"):
        clients[3].predict(photograph, api_name="/segment")
    # People on the page wait in the same queue.
    (upload,) = (fn._id for fn in page.fns.values() if fn.api_name == "show_classes")
    question = {"data": [None], "fn_index": upload, "session_hash": "visitor"}
    refused = httpx.post(f"{address}gradio_api/queue/join", json=question)
    assert refused.status_code == 503 and "Queue is full" in json.dumps(refused.json())
    go_on.set()
    answers = [job.result(60) for job in jobs]
    assert all(answer == answers[0] for answer in answers)
    assert clients[3].predict(photograph, api_name="/segment") == answers[0]
    for client in clients:
        client.close()


def test_programs_at_once_get_their_own_answers_and_the_model_one_photograph_at_a_time(
    address, predictor, tmp_path, monkeypatch
):
    running, most = [], []
    find_classes = server.find_classes

    def note(*args):
        running.append(1)
        most.append(len(running))
        try:
            return find_classes(*args)
        finally:
            running.pop()

    monkeypatch.setattr(server, "find_classes", note)
    pictures = [draw_picture(60 + 4 * seed, 50, seed) for seed in range(16)]
    paths = [save(tmp_path / f"{seed}.png", picture) for seed, picture in enumerate(pictures)]

    def ask_alone(part: int) -> list[dict]:
        client = Client(address, verbose=False)
        answers = [ask(client, path) for path in paths[part::4]]
        client.close()
        return answers

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask_alone, range(4)))
    for part in range(4):
        for picture, answer in zip(pictures[part::4], answers[part], strict=True):
            ((class_ids, totals),) = predictor([picture])
            assert answer["classes"] == predictor.list_classes(totals)
            assert (answer["height"], answer["width"]) == class_ids.shape
    assert max(most) == 1 and len(most) == 16


def test_uploads_are_removed_as_those_of_the_page_are(client, folder, tmp_path, monkeypatch):
    for seed in range(4):
        ask(client, save(tmp_path / f"{seed}.png", draw_picture(60, 50, seed + 100)))
    assert len(list_uploads(folder)) >= 4
    monkeypatch.setattr(uploads, "MAXIMUM_KEPT", 2)
    ask(client, save(tmp_path / "last.png", draw_picture(60, 50, 200)))
    assert len(list_uploads(folder)) <= 3
    assert not list((tmp_path / "downloads").rglob("*")), "nothing had to be fetched"


def test_uploads_of_programs_end_with_the_page(predictor, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    page = server.build_page(predictor.model, predictor.image_processor, "tiny")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = Client(server.serve(page, host="127.0.0.1", port=port)[0], verbose=False)
    ask(client, save(tmp_path / "a.png", draw_picture(60, 50)))
    assert list_uploads(tmp_path / "uploads")
    client.close()
    page.close()
    assert not list_uploads(tmp_path / "uploads")


def test_pictures_are_read_from_bytes_alone():
    """A name of a file says nothing: what comes is bytes."""
    file = io.BytesIO()
    draw_picture(60, 50).save(file, "JPEG")
    assert server.read_upload(file.getvalue()).size == (60, 50)
