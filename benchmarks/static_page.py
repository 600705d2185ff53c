# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The page without a server in Chromium: processor time of a picture by WebAssembly in one thread, from the file to the
overlay, with a row of the paper at random weights, in float32 and in integers of 8 bits.

    .venv-web/bin/python -m benchmarks.static_page --rounds 3

Processor time of the page's process, so that other programs do not count. Random weights leave all classes in the
race at every pixel, which is the dearest case for what follows the model.
"""

import argparse
import functools
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from training.space import main as write_space

from .runtimes import make_row


ROW = "denseclip_fpn_rn50"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/?wasm"
        server.shutdown()


def in_floats(page: Path, folder: Path) -> Path:
    """A copy of a page that takes the file in float32."""
    copy = Path(shutil.copytree(page, folder / "float32", copy_function=os.link))
    settings = next(copy.glob("page-*")) / "settings.js"
    text = settings.read_text(encoding="utf-8")
    settings.unlink()  # which is the original's too
    settings.write_text(text.replace('"model": "int8"', '"model": "float"'), encoding="utf-8")
    return copy


def measure(browser, page_folder: Path, photograph: Path, rounds: int) -> list[float]:
    """Seconds of processor time of each picture, behind a first one."""
    session = browser.new_browser_cdp_session()

    def seconds() -> float:
        processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
        return sum(process["cpuTime"] for process in processes if process["type"] == "renderer")

    found = []
    with serve(page_folder) as address:
        page = browser.new_context(service_workers="block").new_page()
        page.set_default_timeout(600_000)
        page.goto(address)
        page.locator("#status[data-engine=wasm]").wait_for()
        for _ in range(rounds + 1):
            start = seconds()
            page.set_input_files("#upload input", photograph)
            page.locator("#classes .viewer[data-state=shown]").wait_for()
            found.append(seconds() - start)
            page.get_by_label("Clear").click()
            page.locator("#classes .viewer[data-state=empty]").wait_for()
        page.close()
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.static_page", description=__doc__.strip())
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    from tests.web.browser import open_browser  # Playwright, of the extra test-web

    with tempfile.TemporaryDirectory() as temporary, open_browser() as browser:
        folder = Path(temporary)
        checkpoint, images = make_row(ROW, folder)
        words = ["--static", "--int8", "static", "--calibration_images", *map(str, images)]
        write_space([str(folder / "int8"), "--model", str(checkpoint), *words])
        for page in (folder / "int8", in_floats(folder / "int8", folder)):
            times = measure(browser, page, images[0], rounds)
            print(f"{page.name}: {min(times):.2f} to {max(times):.2f} s of processor time a picture", flush=True)


if __name__ == "__main__":
    main()
