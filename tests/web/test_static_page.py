# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The page without a server in a headless browser, against the model in Python: `make test-web`.

It is served by Python's own server of files. The models are tiny and untrained, but give every class to some pixels.
"""

import contextlib
import hashlib
import io
import json
import shutil
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn import functional as F

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools.files import received
from modeling_denseclip.tools.page import answers
from modeling_denseclip.tools.pictures.palettes import generate_palette
from tests.tiny import TINY_CLASS_NAMES, draw_picture, save_checkpoint, spread_classes, tiny_model


pytest.importorskip("playwright", reason="these tests need Playwright: `make test-web`")
pytest.importorskip("onnxscript", reason="the page holds an exported model: `make test-web`")
if shutil.which("npm") is None:
    pytest.skip("the page holds a package of npm, which is not installed", allow_module_level=True)

from tests.web.browser import (  # noqa: E402
    download,
    hover,
    inner_pixels,
    is_flat,
    middle_of,
    open_browser,
    open_browser_with_webgpu,
    read_canvas,
    set_opacity,
    upload,
)
from training import run_onnx  # noqa: E402
from training.space import main  # noqa: E402


PROCESSOR = DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 256})
# A name as somebody could give it to attack those who look at the page.
NAMES = [*TINY_CLASS_NAMES[:-1], "<img src=x onerror=document.title='broken'>"]


# --- The pages, and what they are compared with ----------------------------------------------------------------------


def save_model(folder: Path, photograph: PIL.Image.Image, **overrides) -> torch.nn.Module:
    pixel_values = PROCESSOR(photograph, return_tensors="pt").pixel_values
    model = tiny_model("shallow", id2label=dict(enumerate(NAMES)), **overrides)
    save_checkpoint(spread_classes(model, pixel_values), PROCESSOR, folder)
    return model


@torch.no_grad()
def ask(model: torch.nn.Module, photograph: PIL.Image.Image) -> SimpleNamespace:
    """What the model says in Python: its logits, probabilities of the photograph's pixels, and their classes."""
    logits = model(**PROCESSOR(photograph, return_tensors="pt")).logits
    enlarged = F.interpolate(logits, size=photograph.size[::-1], mode="bilinear")[0]
    return SimpleNamespace(
        logits=logits, probabilities=enlarged.softmax(dim=0).numpy(), ids=enlarged.argmax(0).numpy()
    )


@pytest.fixture(scope="module")
def spaces(photograph, tmp_path_factory):
    """
    Folders as `python -m training.space --static` writes them, and their models: `float`, which slides windows, and
    `int8`, which sees whole pictures, and has a second file in integers of 8 bits.
    """
    root = tmp_path_factory.mktemp("spaces")
    calibration = [str(root / f"{seed}.png") for seed in range(4)]
    for seed, path in enumerate(calibration):
        draw_picture(120, 96, seed=seed).save(path)
    windows = {"inference_mode": "slide", "window_size": (64, 64), "window_stride": (48, 48), "seed": 1}
    written = {}
    for name, overrides, options in (
        ("float", windows, []),
        ("int8", {}, ["--int8", "static", "--calibration_images", *calibration]),
    ):
        model = save_model(root / f"{name} model", photograph, **overrides)
        words = ["--model", str(root / f"{name} model"), "--static", "--name", f"<b>{name}</b>"]
        main([str(root / name), *words, *options])
        written[name] = SimpleNamespace(folder=root / name, model=model, said=ask(model, photograph))
    return written


class Server:
    """A server of files, whose folder can be exchanged, and which can be gone for a while."""

    def __init__(self, folder: Path):
        self.folder, self.paths, self.port = folder, [], 0
        self.start()

    def start(self) -> None:
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=str(server.folder))

            def do_GET(self):
                server.paths.append(self.path)
                super().do_GET()

            def log_message(self, *arguments):
                pass

        self.listener = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.listener.server_port
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}/"

    def stop(self) -> None:
        self.listener.shutdown()
        self.listener.server_close()


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def requests():
    """Every address that a page has asked for."""
    return []


@pytest.fixture(scope="module")
def open_page(browser, requests):
    """Open a page as a new visitor, and wait until its model has been loaded."""

    def open_page(address, before="", engine="wasm", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 1500}} | options)
        context.set_default_timeout(60_000)  # a limit, not a wait; the machine may be busy
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
        page.add_init_script(before)
        page.goto(address)
        if engine:
            wait_for_model(page, engine)
        return page

    return open_page


def wait_for_model(page, engine="wasm"):
    page.locator(f"#status[data-engine={engine}]").wait_for()


@pytest.fixture(scope="module")
def page(spaces, open_page, photo):
    """The page of windows, in floats, with the photograph."""
    with serve(spaces["float"].folder) as server:
        page = open_page(server.address)
        upload(page, photo)
        yield page


# --- What it shows ---------------------------------------------------------------------------------------------------


def read_mask(page) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(download(page, "#classes", "mask"))))


def test_classes_are_those_of_python(page, spaces):
    said = spaces["float"].said
    assert len(np.unique(said.ids)) == len(NAMES), "every class is somewhere"
    mask = PIL.Image.open(io.BytesIO(download(page, "#classes", "mask")))
    assert mask.mode == "P" and mask.size == said.ids.shape[::-1]
    assert (np.asarray(mask) == said.ids).mean() >= 0.999
    colors = np.uint8(generate_palette(len(NAMES)))[np.asarray(mask)]
    assert np.array_equal(np.asarray(mask.convert("RGB")), colors)


def test_details_are_those_of_python(page, spaces):
    said = spaces["float"].said
    details = json.loads(download(page, "#classes", "details"))
    assert (details["model"], details["height"], details["width"]) == ("<b>float</b>", *said.ids.shape)
    nearest = F.interpolate(said.logits.softmax(dim=1), size=said.ids.shape, mode="nearest-exact")[0].numpy()
    assert [entry["label"] for entry in details["classes"]] == [
        NAMES[label] for label in np.argsort(-np.bincount(said.ids.ravel()), kind="stable")
    ]
    for entry in details["classes"]:
        pixels = said.ids == entry["id"]
        assert entry["pixels"] == pytest.approx(pixels.sum(), abs=0.001 * pixels.size)
        assert entry["area"] == pytest.approx(pixels.mean(), abs=0.001)
        assert entry["score"] == pytest.approx(nearest[entry["id"]][pixels].mean(), abs=0.001)


def test_overlay_has_the_colours_of_the_classes(page, spaces, photograph):
    ids = spaces["float"].said.ids
    palette = np.array(generate_palette(len(NAMES)))
    set_opacity(page, "#classes", 100)
    full = read_canvas(page, "#classes")
    overlay = np.asarray(PIL.Image.open(io.BytesIO(download(page, "#classes", "overlay"))).convert("RGB"))
    assert np.array_equal(overlay, full)
    # The pixel of the photograph below the centre of each pixel of the page; boundaries are drawn darker.
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(full.shape[:2], ids.shape, strict=True)
    )
    shown = ids[np.ix_(rows, columns)]
    is_inner = np.ones(shown.shape, bool)
    is_inner[:, :-1] &= shown[:, 1:] == shown[:, :-1]
    is_inner[:-1] &= shown[1:] == shown[:-1]
    assert (np.abs(full - palette[shown]).max(axis=2)[is_inner] <= 1).mean() >= 0.999
    set_opacity(page, "#classes", 0)
    none = read_canvas(page, "#classes")
    places = [place for place in inner_pixels(ids) if is_flat(photograph, *place)]
    assert len(places) >= 5
    for x, y in places:
        assert np.abs(middle_of(none, x, y, photograph) - photograph.getpixel((x, y))).max() <= 2
    set_opacity(page, "#classes", 55)


def test_label_and_probability_under_the_mouse(page, spaces, photograph):
    said = spaces["float"].said
    for x, y in inner_pixels(said.ids):
        name, score = hover(page, "#classes", x, y, photograph)
        assert name == NAMES[said.ids[y, x]], (x, y)
        assert abs(int(score.removesuffix(" %")) / 100 - said.probabilities[:, y, x].max()) < 0.03, (x, y)
    # The same by the keyboard, from the middle on.
    page.mouse.move(0, 0)
    page.locator("#classes [data-download=details]").focus()
    page.locator("#classes canvas").focus()
    page.keyboard.press("ArrowLeft")
    x, y = int(0.46 * photograph.width), int(0.5 * photograph.height)
    assert page.locator("#classes .tip .name").inner_text() in {NAMES[label] for label in said.ids[y, x - 1 : x + 2]}


def test_heat_map_is_the_probability_of_a_class(page, spaces, photograph):
    expected = spaces["float"].said.probabilities[NAMES.index("sky")]
    page.click("#classes [data-view=heat]")
    page.select_option("#classes .heat-class", label="sky")
    assert page.locator("#classes .heat-class option").count() == len(NAMES)
    for y in range(10, photograph.height, 31):
        for x in range(10, photograph.width, 23):
            name, score = hover(page, "#classes", x, y, photograph)
            assert name == "sky"
            # Probabilities are interpolated here and logits there.
            assert abs(int(score.removesuffix(" %")) / 100 - expected[y, x]) < 0.08, (x, y)
    assert answers.CLASS_MEANING in page.locator("#classes .scale").inner_text()
    page.click("#classes [data-view=classes]")


def test_names_are_text_and_nothing_went_wrong(page):
    assert page.locator("h1").inner_text() == "DenseCLIP"
    assert "<b>float</b>, 5 classes" in page.locator(".masthead p").inner_text()
    assert sorted(page.locator("#classes .legend .name").all_inner_texts()) == sorted(NAMES)
    assert page.locator("img").count() == 0 and page.title() == "DenseCLIP: <b>float</b>"
    assert page.errors == []


def test_picture_of_a_window_is_seen_whole(page, spaces, photograph, tmp_path):
    small = photograph.crop((0, 0, 64, 64))
    small.save(tmp_path / "small.png")
    upload_anew(page, tmp_path / "small.png")
    said = ask(spaces["float"].model, small)
    assert said.logits.shape[2:] == (16, 16) and len(np.unique(said.ids)) > 2
    assert (read_mask(page) == said.ids).mean() >= 0.999


def expected_of_8_bits(folder: Path, photograph: PIL.Image.Image) -> np.ndarray:
    """What onnxruntime makes of the second file in Python. Kernels round the sums of integers differently."""
    (file,) = folder.glob("model-*/int8.onnx")
    card = json.loads(file.with_name("model.json").read_text())
    return run_onnx.segment(run_onnx.open_session(file, "onnxruntime"), card, np.asarray(photograph))


def test_webassembly_takes_the_integers_of_8_bits(spaces, open_page, photo, photograph):
    folder = spaces["int8"].folder
    expected = expected_of_8_bits(folder, photograph)
    with serve(folder) as server:
        page = open_page(server.address)
        assert "integers of 8 bits" in page.locator("#status").inner_text()
        upload(page, photo)
        found = read_mask(page)
        assert not any(path.endswith("float.onnx") for path in server.paths)
    assert (found == expected).mean() >= 0.99 and len(np.unique(found)) > 2
    assert (found != spaces["int8"].said.ids).any(), "float was taken"


def test_jpeg_of_another_decoder(page, spaces, photograph, tmp_path):
    photograph.resize((400, 600)).save(tmp_path / "photo.jpg", quality=95)
    upload_anew(page, tmp_path / "photo.jpg")
    with PIL.Image.open(tmp_path / "photo.jpg") as decoded:
        expected = ask(spaces["float"].model, decoded.convert("RGB")).ids
    assert (read_mask(page) == expected).mean() >= 0.99


# --- Files that are no photographs -----------------------------------------------------------------------------------


def upload_anew(page, file: Path, state: str = "shown") -> None:
    if page.get_by_label("Clear").is_visible():
        page.get_by_label("Clear").click()
    page.locator("#classes .viewer[data-state=empty]").wait_for()
    upload(page, file, state)


def test_wrong_files_are_explained_and_the_next_one_works(page, photo, tmp_path):
    def refused(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        upload_anew(page, tmp_path / name, "error")
        assert not page.locator("#classes canvas").is_visible(), "nothing of the photograph before stays"
        return page.locator("#classes [role=alert]").inner_text()

    whole = photo.read_bytes()
    assert "cannot be read as a picture: it is damaged" in refused("words.jpg", b"These are words, not a picture.")
    assert "cannot be read as a picture: it is damaged" in refused("half.png", whole[: len(whole) // 2])
    changed = bytearray(whole)
    changed[len(whole) // 2 : len(whole) // 2 + 99] = bytes(99)
    assert "cannot be read as a picture: it is damaged" in refused("changed.png", bytes(changed))
    assert "it is a GIF" in refused("photo.png", save(draw_picture(40, 30), "GIF"))
    large = save(PIL.Image.new("1", (6001, 4000)), "PNG")
    assert "6001 x 4000 pixels; 24 megapixels are the limit" in refused("large.png", large)
    heavy = bytes(received.MAXIMUM_BYTES + 2**20)
    assert "21.0 MB; 20 are the limit" in refused("heavy.jpg", heavy)
    narrow = save(draw_picture(500, 20), "PNG")
    assert "20 x 500 pixels (height x width) is 10 x 256 as the model sees it" in refused("narrow.png", narrow)
    upload_anew(page, photo)


def save(picture: PIL.Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


ODD = {
    "grey of 16 bits": lambda picture: PIL.Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257),
    "a palette": lambda picture: picture.quantize(32, dither=PIL.Image.Dither.NONE),
    "two colours": lambda picture: picture.convert("1"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_pngs_are_read_as_in_python(kind, page, spaces, photograph, tmp_path):
    ODD[kind](photograph).save(tmp_path / "odd.png")
    upload_anew(page, tmp_path / "odd.png")
    expected = ask(spaces["float"].model, run_onnx_picture(tmp_path / "odd.png")).ids
    assert (read_mask(page) == expected).mean() >= 0.999


@pytest.mark.parametrize("orientation", range(2, 9))
def test_webps_become_upright_as_in_python(orientation, page, spaces, photograph, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    photograph.save(tmp_path / "turned.webp", lossless=True, exif=exif)
    upload_anew(page, tmp_path / "turned.webp")
    expected = ask(spaces["float"].model, run_onnx_picture(tmp_path / "turned.webp")).ids
    found = read_mask(page)
    assert found.shape == expected.shape and (found == expected).mean() >= 0.999


def run_onnx_picture(path: Path) -> PIL.Image.Image:
    return PIL.Image.fromarray(run_onnx.read_picture(path))


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_photograph_is_dropped_or_pasted(event, page):
    page.get_by_label("Clear").click()
    page.locator("#classes .viewer[data-state=empty]").wait_for()
    script = """async (event) => {
        const canvas = new OffscreenCanvas(90, 70);
        canvas.getContext("2d").fillRect(20, 20, 30, 30);
        const data = new DataTransfer();
        data.items.add(new File([await canvas.convertToBlob()], "drawn.png"));
        const options = { bubbles: true, cancelable: true, clipboardData: data, dataTransfer: data };
        document.body.dispatchEvent(new (event === "drop" ? DragEvent : ClipboardEvent)(event, options));
    }"""
    page.evaluate(script, event)
    page.locator("#classes .viewer[data-state=shown]").wait_for()
    assert page.locator("#upload .name").inner_text() == "drawn.png" and read_mask(page).shape == (70, 90)


def test_transparency_is_told(page, photograph, tmp_path):
    clear = photograph.copy()
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    upload_anew(page, tmp_path / "clear.png")
    assert "Transparent pixels count as black" in page.locator("#classes .note").inner_text()


# --- Without a network, and new versions -----------------------------------------------------------------------------


def read_cache(page) -> set[str]:
    """Paths of the files that the browser keeps."""
    script = """async () => {
        const names = await caches.keys(), entries = await Promise.all(names.map(async (name) =>
            (await (await caches.open(name)).keys()).map(({ url }) => new URL(url).pathname)));
        return entries.flat();
    }"""
    return set(page.evaluate(script))


def wait_for_service_worker(page) -> None:
    page.evaluate("async () => { await navigator.serviceWorker.ready; }")


def test_page_needs_no_network_after_the_first_visit_and_takes_a_new_version(spaces, open_page, photo, photograph):
    with serve(spaces["float"].folder) as server:
        page = open_page(server.address)
        wait_for_service_worker(page)
        former = read_cache(page)
        assert any(path.endswith("float.onnx") for path in former)
        assert not any("webgpu" in path and path.endswith(".wasm") for path in former), "what is not used is not kept"

        server.stop()
        page.reload()
        wait_for_model(page)
        upload(page, photo)
        assert (read_mask(page) == spaces["float"].said.ids).mean() >= 0.999
        # Now the headers are there by which threads are allowed, from the service worker.
        assert page.evaluate("crossOriginIsolated")
        threads = min(page.evaluate("navigator.hardwareConcurrency"), 8)
        assert threads == 1 or f"{threads} threads" in page.locator("#status").inner_text()

        server.folder = spaces["int8"].folder
        server.start()
        page.reload()
        wait_for_model(page)
        upload(page, photo)
        assert (read_mask(page) == expected_of_8_bits(spaces["int8"].folder, photograph)).mean() >= 0.99
        # The files of the former version are removed when the new one has come.
        script = """async () => {
            const cache = await caches.open((await caches.keys())[0]);
            for (let attempt = 0; attempt < 300; attempt++) {
                if (!(await cache.keys()).some(({ url }) => url.endsWith("/float.onnx"))) return true;
                await new Promise((resolve) => setTimeout(resolve, 50));
            }
            return false;
        }"""
        assert page.evaluate(script)
        pages = {path for path in read_cache(page) if path.startswith("/page-") or path.startswith("/model-")}
        assert pages and not pages & former
        server.stop()
        page.reload()
        wait_for_model(page)
        assert "<b>int8</b>" in page.title()
        server.start()


def test_other_pages_of_the_host_are_left_alone(spaces, open_page, tmp_path):
    shutil.copytree(spaces["float"].folder, tmp_path / "root")
    (tmp_path / "root" / "other").mkdir()
    (tmp_path / "root" / "other" / "index.html").write_text("<title>Another page</title>")
    with serve(tmp_path / "root") as server:
        page = open_page(server.address)
        wait_for_service_worker(page)
        page.goto(f"{server.address}index.html?wasm")
        wait_for_model(page)
        assert page.evaluate("crossOriginIsolated"), "the worker answers for the page"
        page.goto(f"{server.address}other/")
        assert page.title() == "Another page"
        # What is from other hosts may be on it.
        assert not page.evaluate("crossOriginIsolated")
        assert page.goto(f"{server.address}missing/").status == 404
        assert "DenseCLIP" not in page.title()


def test_model_that_arrives_broken_is_refused(spaces, open_page, tmp_path):
    shutil.copytree(spaces["float"].folder, tmp_path / "space")
    (file,) = (tmp_path / "space").glob("model-*/float.onnx")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with serve(tmp_path / "space") as server:
        page = open_page(server.address, engine=None)
        page.locator("#status[data-state=failed]").wait_for()
        assert "float.onnx did not arrive as it was written" in page.locator("#status").inner_text()
        assert not any(path.endswith(".onnx") for path in read_cache(page))


# --- Devices ---------------------------------------------------------------------------------------------------------

# In the place of a graphics processor and its runtime: the first run gives the logits that the page compares.
ADAPTER = 'Object.defineProperty(navigator, "gpu", { value: { requestAdapter: async () => ({}) } });\n'
RUNTIME = """
import settings from "../%s/settings.js";
let runs = 0;
export class Tensor { constructor(type, data, dims) { Object.assign(this, { type, data, dims }); } }
export const env = { wasm: {} };
export const InferenceSession = { create: async () => ({ run: async ({ pixel_values: { dims } }) => {
  if (++runs > 1) throw new Error("the device was lost");
  const logits = { dims: [1, 5, dims[2] / 4, dims[3] / 4] };
  logits.data = new Float32Array(5 * dims[2] * dims[3] / 16);
  settings.check.places.forEach((place, index) => { logits.data[place] = settings.check.logits[index] + %s; });
  return { logits };
} }) };
"""


@pytest.mark.parametrize("error", [0, 1])
def test_webgpu_that_fails_is_given_up(error, spaces, browser, photo):
    folder = spaces["float"].folder
    (worker,) = folder.glob("page-*/worker.js")
    with serve(folder) as server, contextlib.closing(browser.new_context(service_workers="block")) as context:
        context.set_default_timeout(60_000)
        page = context.new_page()
        script = {"content_type": "text/javascript"}
        page.route("**/worker.js", lambda route: route.fulfill(body=ADAPTER + worker.read_text(), **script))
        runtime = RUNTIME % (worker.parent.name, error)
        page.route("**/ort.webgpu.min.mjs", lambda route: route.fulfill(body=runtime, **script))
        page.goto(server.address)
        if error:
            wait_for_model(page, "wasm")
            assert "its results are wrong on this device" in page.locator("#status").inner_text()
        else:
            wait_for_model(page, "webgpu")
        upload(page, photo)
        assert (read_mask(page) == spaces["float"].said.ids).mean() >= 0.999
        status = page.locator("#status").inner_text()
        assert "WebAssembly" in status and ("the device was lost" in status) is (error == 0)


def test_webgpu_gives_the_classes_of_python(spaces, browser, photo):
    with (
        contextlib.closing(open_browser_with_webgpu(browser)) as other,
        serve(spaces["float"].folder) as server,
    ):
        page = other.new_page()
        page.set_default_timeout(120_000)  # a limit, not a wait
        page.goto(server.address)
        page.locator("#status[data-engine]").wait_for()
        if page.locator("#status").get_attribute("data-engine") != "webgpu":
            assert page.evaluate("async () => await navigator.gpu?.requestAdapter() ?? null") is None
            pytest.skip("this Chromium has no WebGPU by its processor")
        upload(page, photo)
        assert (read_mask(page) == spaces["float"].said.ids).mean() >= 0.999


def test_page_fits_a_phone(spaces, open_page, photo):
    with serve(spaces["float"].folder) as server:
        page = open_page(server.address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        upload(page, photo)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.locator("#classes canvas").tap()
        assert page.locator("#classes .tip .name").inner_text() in NAMES


# --- The folder ------------------------------------------------------------------------------------------------------


def test_folder_holds_what_is_used_and_no_more(spaces):
    folder = spaces["int8"].folder
    (runtime,) = folder.glob("onnxruntime-web-*")
    assert {path.name for path in runtime.iterdir()} == {
        *("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
        *("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
        *("LICENSE", "ThirdPartyNotices.txt"),
    }
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        *("index.html", "service-worker.js", "README.md", "LICENSE")
    }
    (model,) = folder.glob("model-*")
    assert {path.name for path in model.iterdir()} == {"float.onnx", "int8.onnx", "model.json"}
    settings = next(folder.glob("page-*")) / "settings.js"
    settings = json.loads(settings.read_text(encoding="utf-8").removeprefix("export default ").rstrip(";\n"))
    for entry in settings["models"].values():
        data = (folder / entry["path"]).read_bytes()
        assert entry["bytes"] == len(data) and entry["sha256"] == hashlib.sha256(data).hexdigest()
    for file in ("index.html", "README.md"):
        assert "{{" not in (folder / file).read_text(encoding="utf-8")


# --- After all others ------------------------------------------------------------------------------------------------


def test_nothing_was_asked_for_from_another_host(requests):
    assert len(requests) > 50
    hosts = {urllib.parse.urlsplit(url).hostname for url in requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {"localhost"}
