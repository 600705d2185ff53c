# Copyright 2026 The DenseCLIP for Transformers authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
What a visitor cannot do to the page, without a browser: the requests are made by hand, as a stranger would make them.
That a decoder never sees what is too large is said by the memory that it takes.
"""

import io
import json
import socket
import struct
import threading
import tracemalloc
import urllib.error
import urllib.request
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import PIL.Image
import PIL.PngImagePlugin
import pytest

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools import web
from tests.tiny import draw_picture, make_tiny_tokenizer, tiny_model


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
    monkeypatch.setattr(web, "decode_photograph", lambda *arguments: decoded.append(arguments))
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        web.read_upload(data)
    assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    tracemalloc.stop()
    assert not decoded


def test_largest_photographs_that_are_allowed_are_read():
    assert web.read_upload(png_of_zeros(6000, 4000)).size == (6000, 4000)
    assert web.read_upload(tiff_of_a_tile(100, 128)).size == (100, 100)


# What draws an EPS is another program, to which Pillow hands the file.
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n%%EOF\n"
OTHERS = {"EPS": EPS, **{form: encode(draw_picture(40, 30), form) for form in ("GIF", "PPM", "TGA")}}


@pytest.mark.parametrize("form", OTHERS)
def test_other_formats_are_refused_whatever_their_name(form, monkeypatch):
    with PIL.Image.open(io.BytesIO(OTHERS[form])) as file:
        assert file.format == form, "Pillow itself would read it"
        monkeypatch.setattr(type(file), "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        web.read_upload(OTHERS[form])


@pytest.mark.parametrize("form", ["BMP", "JPEG", "MPO", "PNG", "TIFF", "WEBP"])
def test_formats_that_the_page_names_are_read(form):
    picture = draw_picture(40, 30)
    second = {"save_all": True, "append_images": [picture]} if form == "MPO" else {}
    assert web.read_upload(encode(picture, form, **second)).size == (40, 30)


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
        (event,) = (event["id"] for event in self.events if any(target[1] == "upload" for target in event["targets"]))
        file = {"meta": {"_type": "gradio.FileData"}, "orig_name": "photo.png", **file}
        question = {"data": [file], "fn_index": event, "session_hash": "stranger"}
        status, _ = self.post("gradio_api/queue/join", json.dumps(question).encode(), "application/json")
        assert status == 200
        with urllib.request.urlopen(f"{self.address}gradio_api/queue/data?session_hash=stranger") as stream:
            for line in stream:
                message = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
                if message.get("msg") == "process_completed":
                    return message["output"]["data"][0] if message["success"] else None
        raise AssertionError("the page hung up")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("gradio", reason="the page needs Gradio: `make test-web`")
    model = tiny_model("resnet").eval()
    model.tokenizer = make_tiny_tokenizer()
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    page = web.build_page(model, processor, "tiny")
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listener:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        port = listener.getsockname()[1]
        listener.close()
        yield Site(web.serve(page, host="127.0.0.1", port=port)[0])
    page.close()


@pytest.fixture(scope="module")
def uploaded(site) -> str:
    status, answer = site.upload(encode(draw_picture(60, 50)))
    assert status == 200
    return json.loads(answer)[0]


def test_photograph_is_answered(site, uploaded):
    assert site.segment(path=uploaded)["title"].endswith("found")


def test_upload_of_too_many_bytes_is_cut_off_by_the_server(site):
    status, answer = site.upload(bytes(web.MAXIMUM_BYTES + 1))
    assert status == 413 and b"exceeded maximum allowed size of 20971520 bytes" in answer
    assert site.upload(bytes(web.MAXIMUM_BYTES))[0] == 200


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


def test_server_asks_no_address_of_its_own_network(site, uploaded):
    asked = []

    class Neighbour(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Neighbour) as neighbour:
        threading.Thread(target=neighbour.serve_forever, kwargs={"poll_interval": 0.01}).start()
        secret = f"http://127.0.0.1:{neighbour.server_port}/secret.png"
        assert site.segment(path=secret) is None
        assert site.segment(path=secret, url=secret) is None
        assert site.segment(path=uploaded, url=secret)["title"].endswith("found")
        neighbour.shutdown()
    assert asked == []
