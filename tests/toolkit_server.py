# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
What the server of Hugging Face's Inference Endpoints does with a request, around the `handler.py` of a model's folder.

    python tests/toolkit_server.py FOLDER HIDDEN ...

prints its address and serves on loopback until it is ended. It runs alone: packages that are named as HIDDEN, and this
one, cannot be imported in it. The task of the endpoint is in the address, `/pipeline/image-segmentation`; there texts
are decoded before the handler gets them. Elsewhere, as on endpoints of the task `custom`, it gets them as they are.

Source: huggingface-inference-toolkit of 2026, `webservice_starlette.py`, `utils.py` and `serialization/`, of which
this does the same for the requests of the tests; nothing of its text is here.
"""

import base64
import importlib.util
import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import PIL.Image


TASK = "image-segmentation"
IMAGE_TYPES = {f"image/{kind}" for kind in ("png", "jpeg", "jpg", "tiff", "bmp", "gif", "webp", "x-image")}


class Hide:
    """Lets packages be missing that are installed here."""

    def __init__(self, names: list[str]):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def load_handler(folder: Path):
    """The handler of a folder, which is on the path then, for its submodules."""
    spec = importlib.util.spec_from_file_location("handler.EndpointHandler", folder / "handler.py")
    sys.path.insert(0, str(folder))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.EndpointHandler(str(folder))


def open_image(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data)).convert("RGB")


def decode_texts(value: Any) -> Any:
    """Texts that stand for media; all others stay."""
    if isinstance(value, str):
        return open_image(base64.b64decode(value, validate=True))
    return [decode_texts(item) for item in value] if isinstance(value, list) else value


def read_body(content_type: str, task: str, body: bytes) -> dict[str, Any]:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in IMAGE_TYPES or (media_type == "application/octet-stream" and "image" in task):
        return {"inputs": open_image(body)}
    if media_type != "application/json":
        raise ValueError(f'Content type "{content_type}" not supported.')
    read = json.loads(body)
    if "inputs" not in read and "instances" not in read:
        raise ValueError(f"Body needs to provide a inputs key, received: {json.dumps(read)}")
    return read


def convert_parameter(value: str) -> str | int | bool:
    return int(value) if value.isnumeric() else {"true": True, "false": False}.get(value, value)


def write_json(value: Any) -> str:
    if isinstance(value, PIL.Image.Image):
        file = io.BytesIO()
        value.save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()
    raise TypeError(type(value).__name__)


class RequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    handler = None
    turn = threading.Lock()  # one request at a time

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            status, answer = 200, self.predict(body)
        except Exception as error:
            status, answer = 400, json.dumps({"error": str(error)})
        data = answer.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def predict(self, body: bytes) -> str:
        address = urlsplit(self.path)
        task = TASK if address.path == f"/pipeline/{TASK}" else "custom"
        data = read_body(self.headers["Content-Type"], task, body)
        if address.query and "parameters" not in data:
            data["parameters"] = {name: convert_parameter(value) for name, value in parse_qsl(address.query)}
        if task == TASK:
            data["inputs"] = decode_texts(data["inputs"])
        with self.turn:
            return json.dumps(self.handler(data), default=write_json)

    def log_message(self, *args):
        pass


def main(folder: str, *hidden: str) -> None:
    sys.meta_path.insert(0, Hide([*hidden, "tests"]))
    RequestHandler.handler = load_handler(Path(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), RequestHandler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
