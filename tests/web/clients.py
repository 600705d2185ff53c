# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
transformers.js as npm has it, in Node.js and in a page: what it makes of pictures, as `segment.js` returns it.

`make test-web` installs it, by `npm ci --ignore-scripts` in `tests/web/javascript`.
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


JAVASCRIPT = Path(__file__).parent / "javascript"
MODULES = JAVASCRIPT / "node_modules"


def job(model: Path | str, *images: Path | str, **options) -> dict:
    """Pictures for a model; `options` are those of `pipeline`."""
    return {"model": str(model), "images": list(map(str, images)), "options": options}


def run_node(*jobs: dict, hub: tuple[str, Path] | None = None) -> list[dict]:
    """The results of jobs in Node.js. Models are folders; with `hub`, its address and a cache, repositories there."""
    fields = None if hub is None else {"remoteHost": f"{hub[0]}/", "cacheDir": str(hub[1])}
    words = json.dumps({"hub": fields, "jobs": jobs})
    result = subprocess.run(["node", "node.js"], cwd=JAVASCRIPT, input=words, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


class _Handler(SimpleHTTPRequestHandler):
    """Files of folders, by the first part of an address, or of the page."""

    folders: dict[str, Path]
    extensions_map = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def translate_path(self, path: str) -> str:
        first, _, rest = path.split("?")[0].lstrip("/").partition("/")
        return str(self.folders[first] / rest if first in self.folders else JAVASCRIPT / first)

    def log_message(self, *_):
        """Nothing on stderr."""


@contextmanager
def serve(models: Path, images: Path) -> Iterator[str]:
    """The address of a server of plain files with `page.html`: models in `/models/NAME/`, pictures in `/images/`."""
    folders = {
        "library": MODULES / "@huggingface" / "transformers" / "dist",
        "runtime": MODULES / "onnxruntime-web" / "dist",
        "models": models,
        "images": images,
    }
    handler = type("Handler", (_Handler,), {"folders": folders})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
