# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
What a visitor cannot do to the page, without a browser: the requests are made by hand, as a stranger would make them.
That a decoder never sees what is too large is said by the memory that it takes.
"""

import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import PIL.Image
import PIL.PngImagePlugin
import pytest

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools.files import received
from modeling_denseclip.tools.page import answers, server, uploads
from tests.tiny import draw_picture, make_tiny_tokenizer, save_checkpoint, tiny_model


def encode(picture: PIL.Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def png_of_zeros(width: int, height: int) -> bytes:
    """A whole PNG of one bit per pixel, made without having its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff_of_a_tile(side: int, tile: int) -> bytes:
    """A TIFF of `side` x `side` grey pixels in one tile, which is larger."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(tile)) for _ in range(tile)) + packer.flush()
    # Width, height, bits, compression, black is 0, then width, height, place and size of the tile.
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 322: tile, 323: tile, 324: 0, 325: len(data)}
    tags[324] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def bomb_in_text() -> bytes:
    """A small PNG with 100 MB of text, packed."""
    text = PIL.PngImagePlugin.PngInfo()
    text.add_text("comment", " " * (100 * 2**20), zip=True)
    return encode(draw_picture(40, 30), pnginfo=text)


def jpeg_of_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each takes 30 bytes, and goes over all of it."""
    data = encode(PIL.Image.new("L", (4000, 4000)), "JPEG", progressive=True)[:-2]
    last = data[data.rindex(b"\xff\xda") :]
    return data + last * scans + b"\xff\xd9"


def tags_of_the_same_bytes(number: int, size: int) -> bytes:
    """A TIFF whose tags all name the same bytes, of which each would be a copy."""
    start = 8 + 2 + 12 * number + 4
    entries = [struct.pack("<HHII", 40_000 + tag, 7, size, start) for tag in range(number)]
    return b"II*\0" + struct.pack("<IH", 8, number) + b"".join(entries) + bytes(4) + bytes(size)


BOMBS = {
    "PNG of 30,000 x 30,000 pixels": (lambda: png_of_zeros(30_000, 30_000), "too large; 24 megapixels"),
    "PNG of 6,000 x 4,001 pixels": (lambda: png_of_zeros(6000, 4001), "6000 x 4001 pixels; 24 megapixels"),
    "tile of a TIFF": (lambda: tiff_of_a_tile(100, 8192), "8192 x 8192 pixels; 24 megapixels"),
    "scans of a JPEG": (lambda: jpeg_of_scans(3000), "cannot be read: it is a JPEG of more than 100 scans"),
    "tags of a TIFF": (lambda: tags_of_the_same_bytes(20_000, 600_000), "cannot be read: its metadata takes"),
    "text in a PNG": (bomb_in_text, "cannot be read as a picture: it is damaged"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_small_file_that_swells_is_refused_before_it_is_decoded(kind, monkeypatch):
    make, message = BOMBS[kind]
    data = make()
    assert len(data) < 2**20, "the limit of bytes would do"
    decoded = []
    monkeypatch.setattr(received, "decode_photograph", lambda *arguments: decoded.append(arguments))
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        answers.read_upload(data)
    assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    tracemalloc.stop()
    assert not decoded


def test_largest_photographs_that_are_allowed_are_read():
    assert answers.read_upload(png_of_zeros(6000, 4000)).size == (6000, 4000)
    assert answers.read_upload(tiff_of_a_tile(100, 128)).size == (100, 100)


# What draws an EPS is another program, to which Pillow hands the file.
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n%%EOF\n"
OTHERS = {"EPS": EPS, **{form: encode(draw_picture(40, 30), form) for form in ("GIF", "PPM", "TGA")}}


@pytest.mark.parametrize("form", OTHERS)
def test_other_formats_are_refused_whatever_their_name(form, monkeypatch):
    with PIL.Image.open(io.BytesIO(OTHERS[form])) as file:
        assert file.format == form, "Pillow itself would read it"
        monkeypatch.setattr(type(file), "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        answers.read_upload(OTHERS[form])


@pytest.mark.parametrize("form", ["BMP", "JPEG", "MPO", "PNG", "TIFF", "WEBP"])
def test_formats_that_the_page_names_are_read(form):
    picture = draw_picture(40, 30)
    second = {"save_all": True, "append_images": [picture]} if form == "MPO" else {}
    assert answers.read_upload(encode(picture, form, **second)).size == (40, 30)


# --- Requests --------------------------------------------------------------------------------------------------------


class Site:
    """A page that is served, and what a stranger sends it."""

    def __init__(self, address: str):
        self.address = address
        with urllib.request.urlopen(f"{address}config") as answer:
            self.events = json.load(answer)["dependencies"]

    def post(self, path: str, data: bytes, content_type: str) -> tuple[int, bytes]:
        request = urllib.request.Request(self.address + path, data, {"Content-Type": content_type})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def upload(self, data: bytes, name: str = "photo.png") -> tuple[int, bytes]:
        head = f'--limit\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + b"\r\n--limit--\r\n"
        return self.post("gradio_api/upload", body, "multipart/form-data; boundary=limit")

    def segment(self, **file) -> dict | None:
        """What the page answers to the event of an upload; `None` if it gives no answer at all."""
        return self.ask("upload", file_data(**file))

    def ask(self, target: str, *data) -> dict | None:
        """The same of the event of any target."""
        assert self.join(target, "stranger", *data) == 200
        with urllib.request.urlopen(f"{self.address}gradio_api/queue/data?session_hash=stranger") as stream:
            for line in stream:
                message = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
                if message.get("msg") == "process_completed":
                    return message["output"]["data"][0] if message["success"] else None
        raise AssertionError("the page hung up")

    def join(self, target: str, session: str, *data) -> int:
        """Ask a question, without waiting for the answer."""
        (event,) = (event["id"] for event in self.events if any(name == target for _, name in event["targets"]))
        question = {"data": data, "fn_index": event, "session_hash": session}
        return self.post("gradio_api/queue/join", json.dumps(question).encode(), "application/json")[0]


def file_data(**file) -> dict:
    return {"meta": {"_type": "gradio.FileData"}, "orig_name": "photo.png", **file}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("gradio", reason="the page needs Gradio: `make test-web`")
    model = tiny_model("resnet").eval()
    model.tokenizer = make_tiny_tokenizer()
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    page = server.build_page(model, processor, "tiny")
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listener:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        port = listener.getsockname()[1]
        listener.close()
        site = Site(server.serve(page, host="127.0.0.1", port=port)[0])
        site.page = page
        yield site
    page.close()


@pytest.fixture(scope="module")
def uploaded(site) -> str:
    status, answer = site.upload(encode(draw_picture(60, 50)))
    assert status == 200
    return json.loads(answer)[0]


def test_photograph_is_answered(site, uploaded):
    assert site.segment(path=uploaded)["title"].endswith("found")


def test_upload_of_too_many_bytes_is_cut_off_by_the_server(site):
    status, answer = site.upload(bytes(uploads.MAXIMUM_BYTES + 1))
    assert status == 413 and b"exceeded maximum allowed size of 20971520 bytes" in answer
    assert site.upload(bytes(uploads.MAXIMUM_BYTES))[0] == 200


def test_bomb_that_is_uploaded_is_explained_and_the_page_lives_on(site, uploaded):
    status, answer = site.upload(png_of_zeros(30_000, 30_000))
    assert status == 200
    assert "24 megapixels are the limit" in site.segment(path=json.loads(answer)[0])["error"]
    assert site.segment(path=uploaded)["title"].endswith("found")


def test_name_of_an_upload_leads_nowhere_else(site, uploaded):
    folder = uploaded.rpartition("/")[0].rpartition("/")[0]
    for name in ("../../../escaped.png", "/escaped.png", "..%2f..%2fescaped.png"):
        status, answer = site.upload(encode(draw_picture(20, 20)), name)
        assert status == 200
        (path,) = json.loads(answer)
        assert path.startswith(folder) and ".." not in path.split("/")


def test_files_of_the_server_are_not_to_be_had(site, uploaded):
    assert site.segment(path=__file__) is None
    for path in (__file__, f"{uploaded.rpartition('/')[0]}/../../../../../../../..{__file__}"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{site.address}gradio_api/file={path}")
        assert refused.value.code == 403


def test_server_asks_no_address_of_its_own_network(site, uploaded, neighbour):
    address, asked = neighbour
    secret = f"{address}/secret.png"
    assert site.segment(path=secret) is None
    assert site.segment(path=secret, url=secret) is None
    assert site.segment(path=uploaded, url=secret)["title"].endswith("found")
    assert asked == []


@pytest.mark.parametrize("path", ["http://example.org/photo.png", "https://example.org/photo.png"])
def test_server_downloads_nothing(site, uploaded, path, monkeypatch):
    from gradio import processing_utils

    asked = []
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", lambda *args, **kwargs: asked.append(args))
    assert site.segment(path=path) is None and asked == []
    assert site.segment(path=uploaded)["title"].endswith("found")


DIRECT = ["run/show_classes", "run/show_classes/", "api/show_classes", "call/show_classes", "call/v2/show_classes"]


@pytest.mark.parametrize("route", [*DIRECT, "run/predict", "/run/show_classes", "component_server", "vibe-edit"])
def test_nothing_is_computed_past_the_queue(site, uploaded, route, monkeypatch):
    monkeypatch.setattr(server, "segment", lambda *args: pytest.fail("it was computed"))
    body = json.dumps({"data": [file_data(path=uploaded)], "fn_index": 1, "session_hash": "direct"}).encode()
    status, answer = site.post(f"gradio_api/{route}", body, "application/json")
    assert status == 404 and len(answer) < 100


@pytest.mark.parametrize("route", ["deep_link?session_hash=stranger", "proxy=http://127.0.0.1/", "vibe-code"])
def test_other_routes_of_gradio_are_closed(site, route):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{site.address}gradio_api/{route}")
    assert refused.value.code == 404


def test_photographs_go_through_the_model_one_at_a_time_and_few_wait(monkeypatch):
    """Of the functions themselves, whatever calls them."""
    pytest.importorskip("gradio", reason="the page needs Gradio: `make test-web`")
    monkeypatch.setattr(server, "MAXIMUM_WAITING", 3)
    page = server.build_page(tiny_model("resnet").eval(), DenseCLIPImageProcessor(), "tiny")
    (show_classes,) = (fn.fn for fn in page.fns.values() if fn.api_name == "show_classes")
    begun, go_on, running, most = threading.Event(), threading.Event(), [], []

    def segment(*args):
        running.append(1)
        most.append(len(running))
        begun.set()
        go_on.wait(60)
        running.pop()
        return {"title": "done"}

    monkeypatch.setattr(server, "segment", segment)
    data, answers = encode(draw_picture(40, 30)), []
    threads = [threading.Thread(target=lambda: answers.append(show_classes(data)[0])) for _ in range(7)]
    for thread in threads:
        thread.start()
    begun.wait(60)
    while len(answers) < 4:  # of those for whom there is no place; one is segmented, and two wait
        time.sleep(0.01)
    go_on.set()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and answers.count({"title": "done"}) == 3
    assert sum("Too many photographs are waiting" in answer.get("error", "") for answer in answers) == 4


def test_words_without_end_are_not_read(site, uploaded, monkeypatch):
    monkeypatch.setattr(server, "score_texts", lambda *args: pytest.fail("it was computed"))
    answer = site.ask("click", file_data(path=uploaded), "a" * (answers.MAXIMUM_LETTERS + 1))
    assert answer == {"error": "These words have 2001 letters; 2000 are the limit."}
    body = json.dumps({"data": ["a" * uploads.MAXIMUM_QUESTION], "fn_index": 0, "session_hash": "long"}).encode()
    status, answer = site.post("gradio_api/queue/join", body, "application/json")
    assert status == 413 and len(answer) < 100


def test_length_of_a_request_is_counted_where_it_is_not_said(site):
    """In chunks, without a Content-Length."""
    host, port = site.address.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = "POST /gradio_api/queue/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode())
        chunk = b"1" * 2**16
        for _ in range(uploads.MAXIMUM_QUESTION // len(chunk) + 1):
            connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(64).split()[1] in (b"413", b"400")


def test_a_request_that_never_ends_is_given_up(site, monkeypatch):
    monkeypatch.setattr(uploads, "UPLOAD_SECONDS", 0.2)
    host, port = site.address.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = "POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n--b\r\n".encode())
        assert connection.recv(64).split()[1] == b"408"


WRONG_DATA = [None, "photo.png", 5, [], {}, {"path": __file__}, [file_data(path=__file__)], {"meta": {"_type": "x"}}]


@pytest.mark.parametrize("data", WRONG_DATA, ids=str)
def test_what_is_no_file_is_answered_in_words_or_not_at_all(site, uploaded, data):
    answer = site.ask("upload", data)
    assert answer is None or answer == {"error": "There is no photograph yet: upload one above."}
    assert site.segment(path=uploaded)["title"].endswith("found")


@pytest.mark.parametrize("words", [None, "", 5, True, ["a"], {"a": 1}], ids=str)
def test_words_of_any_type_do_not_end_the_page(site, uploaded, words):
    answer = site.ask("click", file_data(path=uploaded), words)
    assert "title" in answer or "no words yet" in answer["error"]


def test_where_memory_ends_the_page_says_so_and_lives_on(site, uploaded, monkeypatch):
    with monkeypatch.context() as patch:
        for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
            patch.setattr(server, "segment", lambda *args, error=error: (_ for _ in ()).throw(error))
            assert "needs more memory than there is" in site.segment(path=uploaded)["error"]
    assert site.segment(path=uploaded)["title"].endswith("found")


def test_answers_that_nobody_fetches_are_dropped(site, uploaded, monkeypatch):
    monkeypatch.setattr(uploads, "MAXIMUM_WAITING", 2)
    for number in range(6):
        assert site.join("upload", f"gone {number}", file_data(path=uploaded)) == 200
        site.segment(path=uploaded)  # behind it in the queue, so that one is done
    sessions = site.page._queue.pending_messages_per_session
    assert sum(not messages.empty() for messages in sessions.values()) <= 3


def test_uploads_that_are_many_or_old_are_removed(site, tmp_path, monkeypatch):
    def upload(seed: int) -> Path:
        return Path(json.loads(site.upload(encode(draw_picture(20, 20, seed)))[1])[0])

    kept = [upload(seed) for seed in range(100, 104)]
    for age, path in enumerate(kept):
        os.utime(path, (time.time() - age,) * 2)
    old = upload(104)
    os.utime(old, (time.time() - uploads.TEMPORARY_SECONDS - 9,) * 2)
    partial = old.parents[1] / "tmp-of-a-visitor-who-broke-off"
    partial.touch()
    os.utime(partial, (time.time() - uploads.TEMPORARY_SECONDS - 9,) * 2)
    upload(105)
    assert not old.exists() and not old.parent.exists() and not partial.exists()
    assert all(path.exists() for path in kept)
    monkeypatch.setattr(uploads, "MAXIMUM_KEPT", 2)
    last = upload(106)
    upload(107)
    assert last.exists() and not any(path.exists() for path in kept[1:])


def test_what_a_killed_page_left_is_removed_by_the_next_and_nothing_else(tmp_path, monkeypatch):
    pytest.importorskip("fcntl", reason="Windows removes it once it is old")
    parent = tmp_path / "uploads"
    script = (
        "import sys, os; from modeling_denseclip.tools.page.uploads import make_upload_folder;"
        " print(make_upload_folder(), flush=True);"
        " sys.stdin.read(); os._exit(9)"
    )
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(parent)}
    pages = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        for _ in range(2)
    ]
    folders = [Path(page.stdout.readline().strip()) for page in pages]
    for folder in folders:
        (folder / "photo.png").touch()
    (parent / "of_another_app").mkdir()
    (parent / "of_another_app" / "photo.png").touch()
    (parent / f"{uploads.UPLOADS}link").symlink_to(parent / "of_another_app")
    pages[0].kill()
    pages[0].wait()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(parent))
    own = uploads.make_upload_folder()
    assert own.is_dir() and own not in folders and os.environ["GRADIO_TEMP_DIR"] == str(own)
    assert own.stat().st_mode & 0o777 == 0o700
    assert not folders[0].exists()
    assert (folders[1] / "photo.png").exists() and (parent / "of_another_app" / "photo.png").exists()
    assert uploads.make_upload_folder() == own  # of all pages of a process
    pages[1].communicate("")


def test_page_that_is_asked_to_end_removes_its_uploads(tmp_path):
    """As systemd and Docker ask."""
    pytest.importorskip("gradio", reason="the page needs Gradio: `make test-web`")
    model = save_checkpoint(
        tiny_model("resnet").eval(), DenseCLIPImageProcessor(size={"shortest_edge": 64}), tmp_path / "m"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    words = [sys.executable, "-m", "modeling_denseclip.tools.command", "web", "--model", model, "--port", str(port)]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path / "uploads")}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert "until you press" in process.stdout.readline()
        (path,) = json.loads(Site(f"http://127.0.0.1:{port}/").upload(encode(draw_picture(40, 30)))[1])
        assert path.startswith(str(tmp_path / "uploads")) and Path(path).is_file()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not [path for path in (tmp_path / "uploads").rglob("*") if path.is_file() or uploads.UPLOADS in path.name]
