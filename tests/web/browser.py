# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""A browser for the pages, Debian's Chromium where it is installed, or else Playwright's own; how pages are read."""

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
from playwright.sync_api import Browser, Page, sync_playwright


ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


# A graphics processor that is computed by the processor.
WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]


@contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)


def open_browser_with_webgpu(browser: Browser) -> Browser:
    """Another one beside `browser`."""
    arguments = [argument for argument in ARGUMENTS if argument != "--disable-gpu"]
    return browser.browser_type.launch(executable_path=shutil.which("chromium"), args=[*arguments, *WEBGPU])


def upload(page: Page, file: Path, state: str = "shown") -> None:
    """Upload a file, and wait for the classes in it, or with `state="error"` for what is said instead."""
    page.set_input_files("#upload input[type=file]", file)
    # Attached, since another tab may be open.
    page.locator(f"#classes .viewer[data-state={state}]").wait_for(state="attached")


def hover(page: Page, viewer: str, x: int, y: int, photograph: PIL.Image.Image) -> tuple[str, str]:
    """Move to the middle of a pixel of the photograph, and read the name and the score there."""
    box = page.locator(f"{viewer} canvas").bounding_box()
    page.mouse.move(
        box["x"] + (x + 0.5) * box["width"] / photograph.width,
        box["y"] + (y + 0.5) * box["height"] / photograph.height,
    )
    name, score = (page.locator(f"{viewer} .tip {part}").inner_text() for part in (".name", ".score"))
    return name, score


def read_canvas(page: Page, viewer: str) -> np.ndarray:
    """The picture as it is drawn, `(height, width, 3)`."""
    script = """canvas => new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(() => {
        const { width, height } = canvas;
        resolve([height, width, btoa(Array.from(canvas.getContext("2d").getImageData(0, 0, width, height).data,
            (byte) => String.fromCharCode(byte)).join(""))]);
    })))"""
    height, width, data = page.locator(f"{viewer} canvas").evaluate(script)
    return np.frombuffer(base64.b64decode(data), dtype=np.uint8).reshape(height, width, 4)[..., :3].astype(int)


def set_opacity(page: Page, viewer: str, percent: int) -> None:
    page.locator(f"{viewer} .opacity input").fill(str(percent))


def middle_of(canvas: np.ndarray, x: int, y: int, photograph: PIL.Image.Image) -> np.ndarray:
    """The colour in the middle of a pixel of the photograph."""
    height, width = canvas.shape[:2]
    return canvas[int((y + 0.5) * height / photograph.height), int((x + 0.5) * width / photograph.width)]


def inner_pixels(ids: np.ndarray) -> list[tuple[int, int]]:
    """Some (x, y) whose neighbours have the same class, of every class that has such."""
    height, width = ids.shape
    found = {}
    for y in range(3, height - 3, 2):
        for x in range(3, width - 3, 2):
            if (ids[y - 3 : y + 4, x - 3 : x + 4] == ids[y, x]).all():
                found.setdefault(int(ids[y, x]), []).append((x, y))
    return [place for places in found.values() for place in places[:: max(1, len(places) // 4)]]


def is_flat(photograph: PIL.Image.Image, x: int, y: int) -> bool:
    """Whether the photograph has one colour around a pixel, so that resizing and JPEG leave it."""
    around = np.asarray(photograph)[y - 3 : y + 4, x - 3 : x + 4]
    return bool((around == around[3, 3]).all())


def download(page: Page, viewer: str, kind: str) -> bytes:
    with page.expect_download() as waiting:
        page.click(f"{viewer} [data-download={kind}]")
    return Path(waiting.value.path()).read_bytes()
