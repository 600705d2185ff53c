# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import PIL.Image
import pytest

from tests.tiny import draw_picture


@pytest.fixture(scope="module")
def photograph():
    """Upright, as `photo.png` is after it was turned."""
    return draw_picture(100, 150, seed=3)


@pytest.fixture(scope="module")
def photo(photograph, tmp_path_factory):
    """A file whose pixels lie on their side, as phones write them."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    photograph.transpose(PIL.Image.Transpose.ROTATE_90).save(path, exif=exif)
    return path


@pytest.fixture
def neighbour():
    """A server that the page has nothing to ask: its address, and the paths that it was asked for."""
    asked = []

    class Neighbour(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Neighbour) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
