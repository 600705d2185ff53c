# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The page in a headless browser, against what the model says when it is asked without a page: `make test-web`.

The model is tiny and untrained, but gives every class to some pixels. It takes sliding windows, and its processor pads
batches, which a page must not do.
"""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn import functional as F

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools.command import main
from modeling_denseclip.tools.page import answers, server, uploads
from modeling_denseclip.tools.pictures.palettes import generate_palette
from tests.tiny import TINY_CLASS_NAMES, draw_picture, make_tiny_tokenizer, spread_classes, tiny_model
from training.space import write_space


pytest.importorskip("gradio", reason="the page needs Gradio: `make test-web`")
pytest.importorskip("playwright", reason="these tests need Playwright: `make test-web`")

from tests.web.browser import (  # noqa: E402
    download,
    hover,
    inner_pixels,
    is_flat,
    middle_of,
    open_browser,
    read_canvas,
    set_opacity,
    upload,
)


ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = ("127.0.0.1", "::1", "localhost")
WORDS = ["wall", "person", "traffic light", "zebra", "sky", "cat"]
# How far a heat map's colour may be off, in [0, 255]: it is one of 256 colours, and hover labels are whole per cents.
COLOR_TOLERANCE = 8


# --- What the page is compared with ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processor():
    return DenseCLIPImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 256}, do_pad=True, pad_size={"height": 256, "width": 256}
    )


@pytest.fixture(scope="module")
def pixel_values(processor, photograph):
    return processor(photograph, do_pad=False, return_tensors="pt").pixel_values


@pytest.fixture(scope="module")
def model(pixel_values):
    # Of this seed, several words are the best somewhere.
    model = tiny_model("resnet", seed=30, inference_mode="slide", window_size=(64, 64), window_stride=(48, 48))
    model.tokenizer = make_tiny_tokenizer()
    return spread_classes(model, pixel_values)


@pytest.fixture(scope="module")
def logits(model, pixel_values):
    with torch.no_grad():
        return model(pixel_values).logits


@pytest.fixture(scope="module")
def probabilities(logits, photograph):
    """`(num_labels, height, width)`, of the photograph's pixels."""
    size = photograph.size[::-1]
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False).softmax(dim=1)[0].numpy()


@pytest.fixture(scope="module")
def cosines(model, pixel_values, photograph):
    """`(len(WORDS), height, width)`."""
    scores = model.score_text(pixel_values, WORDS)
    return F.interpolate(scores, size=photograph.size[::-1], mode="bilinear", align_corners=False)[0].numpy()


# --- The page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def connections():
    """Every address that this process has connected to."""
    addresses = []

    def listen(event, arguments):
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            addresses.append(arguments[1][0])

    sys.addaudithook(listen)
    return addresses


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
    """Open a page as a new visitor."""

    def open_page(address, **options):
        # High enough for the whole picture, so that the mouse reaches every pixel.
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 1200}} | options)
        context.set_default_timeout(120_000)  # a limit, not a wait; the machine may be busy
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.goto(address)
        page.locator("#classes .hint").wait_for()
        return page

    return open_page


@pytest.fixture(scope="module")
def address(model, processor, connections):
    page = server.build_page(model, processor, "tiny")
    yield server.serve(page, host="127.0.0.1", port=free_port())[0]
    page.close()


@pytest.fixture(scope="module")
def page(open_page, address, photo):
    """The page with the photograph."""
    page = open_page(address)
    upload(page, photo)
    return page


@pytest.fixture(scope="module")
def words_page(open_page, address, photo):
    """The other tab, with the photograph and `WORDS`."""
    page = open_page(address)
    upload(page, photo)
    page.get_by_role("tab", name="Any words").click()
    page.fill("#words textarea", ", ".join(WORDS))
    page.click("#find")
    page.locator("#texts .viewer[data-state=shown]").wait_for()
    return page


@pytest.fixture(scope="module")
def careless_page(open_page, address):
    """For mistakes, one after the other."""
    return open_page(address)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# --- Classes ---------------------------------------------------------------------------------------------------------


def test_label_under_the_mouse_is_the_class_of_the_pixel(page, probabilities, photograph):
    ids = probabilities.argmax(axis=0)
    assert len(np.unique(ids)) == len(TINY_CLASS_NAMES), "every class is somewhere"
    for y in range(6, photograph.height - 6, 27):
        for x in range(6, photograph.width - 6, 17):
            name, score = hover(page, "#classes", x, y, photograph)
            assert name == TINY_CLASS_NAMES[ids[y, x]], (x, y)
            assert abs(int(score.removesuffix(" %")) / 100 - probabilities[:, y, x].max()) < 0.03, (x, y)


def test_legend_has_the_areas_of_the_classes(page, probabilities):
    shares = np.bincount(probabilities.argmax(axis=0).ravel()) / probabilities[0].size
    expected = [f"{TINY_CLASS_NAMES[label]} {100 * shares[label]:.1f} %" for label in np.argsort(-shares)]
    rows = page.locator("#classes .legend li").all_inner_texts()
    assert [" ".join(row.split()) for row in rows] == expected
    assert page.locator("#classes .side h3").inner_text() == "5 classes found"


def test_opacity_goes_from_the_photograph_to_the_colours_of_the_classes(page, probabilities, photograph):
    ids = probabilities.argmax(axis=0)
    places = [place for place in inner_pixels(ids) if is_flat(photograph, *place)]
    assert len(places) >= 5
    palette = generate_palette(len(TINY_CLASS_NAMES))
    pictures = {}
    for percent in (0, 50, 100):
        set_opacity(page, "#classes", percent)
        pictures[percent] = read_canvas(page, "#classes")
        assert page.locator("#classes .opacity output").inner_text() == f"{percent} %"
    for x, y in places:
        none, half, full = (middle_of(picture, x, y, photograph) for picture in pictures.values())
        assert np.abs(none - photograph.getpixel((x, y))).max() < 12, "JPEG"
        assert np.abs(full - palette[ids[y, x]]).max() <= 1
        assert np.abs(half - none).max() > 10 and np.abs(half - full).max() > 10
    set_opacity(page, "#classes", 55)


def test_class_that_is_not_chosen_is_not_painted(page, probabilities, photograph):
    ids = probabilities.argmax(axis=0)
    set_opacity(page, "#classes", 100)
    page.get_by_label(re.compile("^wall")).uncheck()
    page.mouse.move(0, 0)  # away from the row, which would bring its class forward
    picture = read_canvas(page, "#classes")
    wall = TINY_CLASS_NAMES.index("wall")
    palette = generate_palette(len(TINY_CLASS_NAMES))
    for x, y in inner_pixels(ids):
        color = middle_of(picture, x, y, photograph)
        if ids[y, x] != wall:
            assert np.abs(color - palette[ids[y, x]]).max() <= 1
        elif is_flat(photograph, x, y):
            assert np.abs(color - photograph.getpixel((x, y))).max() < 12
    page.click("#classes [data-show=none]")
    assert not any(box.is_checked() for box in page.locator("#classes .legend input").all())
    page.click("#classes [data-show=all]")
    assert all(box.is_checked() for box in page.locator("#classes .legend input").all())
    set_opacity(page, "#classes", 55)


def test_heat_map_shows_the_probability_of_a_class(page, probabilities, photograph):
    page.click("#classes [data-view=heat]")
    page.select_option("#classes .heat-class", label="person")
    set_opacity(page, "#classes", 100)
    picture = read_canvas(page, "#classes")
    expected = probabilities[TINY_CLASS_NAMES.index("person")]
    assert expected.max() - expected.min() > 0.5
    for y in range(10, photograph.height, 31):
        for x in range(10, photograph.width, 23):
            name, score = hover(page, "#classes", x, y, photograph)
            assert name == "person"
            # Probabilities are interpolated here and logits there.
            assert abs(int(score.removesuffix(" %")) / 100 - expected[y, x]) < 0.08, (x, y)
            color = web_heat_color(int(score.removesuffix(" %")) / 100)
            assert np.abs(middle_of(picture, x, y, photograph) - color).max() <= COLOR_TOLERANCE, (x, y)
    assert page.locator("#classes .scale").inner_text().split() == [
        *("0", "%", "100", "%"),
        *answers.CLASS_MEANING.split(),
    ]
    page.locator("#classes .legend li", has_text="sky").click()
    assert hover(page, "#classes", 50, 75, photograph)[0] == "sky"
    page.click("#classes [data-view=classes]")
    assert page.locator("#classes .legend input:checked").count() == len(TINY_CLASS_NAMES), "a click chose a heat map"
    set_opacity(page, "#classes", 55)


def web_heat_color(value: float) -> np.ndarray:
    """Viridis, from Matplotlib."""
    matplotlib = pytest.importorskip("matplotlib", reason="whose viridis the colours are compared with")
    return 255 * np.asarray(matplotlib.colormaps["viridis"](value)[:3])


def test_downloads_hold_what_the_model_said(page, logits, probabilities):
    ids = probabilities.argmax(axis=0)
    nearest = F.interpolate(logits.softmax(dim=1), size=ids.shape, mode="nearest-exact")[0].numpy()
    mask = PIL.Image.open(io.BytesIO(download(page, "#classes", "mask")))
    assert mask.mode == "P"
    assert np.array_equal(np.asarray(mask), ids)
    assert np.array_equal(np.asarray(mask.convert("RGB")), np.uint8(generate_palette(len(TINY_CLASS_NAMES)))[ids])

    overlay = np.asarray(PIL.Image.open(io.BytesIO(download(page, "#classes", "overlay"))).convert("RGB"))
    assert np.array_equal(overlay, read_canvas(page, "#classes"))

    details = json.loads(download(page, "#classes", "details"))
    assert (details["model"], details["height"], details["width"]) == ("tiny", *ids.shape)
    for entry in details["classes"]:
        pixels = ids == entry["id"]
        assert entry["label"] == TINY_CLASS_NAMES[entry["id"]]
        assert entry["pixels"] == pixels.sum()
        assert entry["area"] == pytest.approx(pixels.mean(), abs=1e-6)
        assert entry["score"] == pytest.approx(nearest[entry["id"]][pixels].mean(), abs=1e-5)
    assert sum(entry["pixels"] for entry in details["classes"]) == ids.size


# --- Any words -------------------------------------------------------------------------------------------------------


def test_label_of_any_words_is_the_best_of_them(words_page, cosines, photograph):
    best = cosines.argmax(axis=0)
    assert len(np.unique(best)) > 1
    for x, y in inner_pixels(best):
        name, score = hover(words_page, "#texts", x, y, photograph)
        assert name == WORDS[best[y, x]]
        assert abs(float(score) - cosines[:, y, x].max()) < 0.03 * np.ptp(cosines)


def test_heat_map_of_a_word_shows_its_cosines(words_page, cosines, photograph):
    words_page.click("#texts [data-view=heat]")
    words_page.select_option("#texts .heat-class", label="zebra")
    for x, y in ((20, 20), (70, 40), (30, 120), (80, 140)):
        name, score = hover(words_page, "#texts", x, y, photograph)
        assert name == "zebra"
        assert abs(float(score) - cosines[WORDS.index("zebra"), y, x]) < 0.03 * np.ptp(cosines)
    words_page.click("#texts [data-view=classes]")


def test_any_words_say_what_their_scores_are(words_page):
    note = words_page.locator("#texts .note").inner_text()
    assert "The decode head takes no part" in note and "even where none applies" in note


def test_downloads_of_any_words(words_page, cosines):
    best = cosines.argmax(axis=0)
    mask = PIL.Image.open(io.BytesIO(download(words_page, "#texts", "mask")))
    assert np.array_equal(np.asarray(mask), best)
    entries = json.loads(download(words_page, "#texts", "details"))["texts"]
    assert [entry["text"] for entry in entries] == WORDS
    assert [entry["pixels"] for entry in entries] == np.bincount(best.ravel(), minlength=len(WORDS)).tolist()


def test_words_that_cannot_be_read_are_explained(careless_page, photo):
    page = careless_page
    page.get_by_role("tab", name="Any words").click()
    page.click("#find")
    assert "no photograph yet" in page.locator("#texts [role=alert]").inner_text()
    upload(page, photo)
    page.locator("#texts .viewer[data-state=empty]").wait_for()
    page.fill("#words textarea", "zebra " * 40)
    page.click("#find")
    text = page.locator("#texts [role=alert]").inner_text()
    assert "zebra" in text and "Traceback" not in text
    page.fill("#words textarea", "zebra")
    page.click("#find")
    page.locator("#texts .viewer[data-state=shown]").wait_for()


def test_model_without_language_has_no_words_and_names_are_no_html(
    open_page, photo, pixel_values, processor, tmp_path, monkeypatch
):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    names = ["<img src=x onerror=document.title='broken'>", "${1 + 1}{{this}}"]
    model = spread_classes(tiny_model("resnet", use_language=False, id2label=dict(enumerate(names))), pixel_values)
    plain = server.build_page(model, processor, "<b>tiny</b>")
    page = open_page(server.serve(plain, host="127.0.0.1", port=free_port())[0])
    assert page.get_by_role("tab").count() == 0
    assert "<b>tiny</b>" in page.locator(".masthead p").inner_text()
    for name in names:
        assert name in page.locator("#classes .hint").inner_text()
    upload(page, photo)
    assert sorted(page.locator("#classes .legend .name").all_inner_texts()) == sorted(names)
    assert page.locator("#classes img").count() == 0 and page.title() != "broken"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["photo.png"]
    plain.close()
    assert not any(path.is_file() for path in tmp_path.rglob("*")), "uploads are deleted when the page ends"


# --- Errors, limits, visitors ----------------------------------------------------------------------------------------


def test_wrong_files_are_explained_and_the_next_one_works(careless_page, photo, tmp_path):
    page = careless_page
    replace(page, photo, "shown")
    words = tmp_path / "words.jpg"
    words.write_text("These are words, not a picture.")
    replace(page, words, "error")
    assert "cannot be read as a picture" in page.locator("#classes [role=alert]").inner_text()
    assert not page.locator("#classes canvas").is_visible(), "nothing of the photograph before stays"

    large = tmp_path / "large.png"
    PIL.Image.new("1", (6001, 4000)).save(large)
    replace(page, large, "error")
    assert "6001 x 4000 pixels; 24 megapixels are the limit" in page.locator("#classes [role=alert]").inner_text()
    assert "Traceback" not in page.locator("body").inner_text()
    replace(page, photo, "shown")


def replace(page, file: Path, state: str) -> None:
    clear(page)
    upload(page, file, state)


def clear(page) -> None:
    if page.get_by_label("Clear").count():  # there is a photograph
        page.get_by_label("Clear").click()
    page.locator("#classes .viewer[data-state=empty]").wait_for(state="attached")


def test_file_of_too_many_bytes_is_refused(careless_page, tmp_path):
    page = careless_page
    clear(page)
    (tmp_path / "heavy.jpg").write_bytes(bytes(uploads.MAXIMUM_BYTES + 1))
    page.set_input_files("#upload input[type=file]", tmp_path / "heavy.jpg")
    page.get_by_text(re.compile("exceeds|too large|maximum", re.IGNORECASE)).first.wait_for()
    assert page.locator("#classes .viewer").get_attribute("data-state") == "empty"


def test_visitors_at_the_same_time_get_their_own_answers(open_page, address, photo, tmp_path):
    draw_picture(160, 90, seed=8).save(tmp_path / "other.png")
    pages = [open_page(address) for _ in range(2)]
    for page, file in zip(pages, (photo, tmp_path / "other.png"), strict=True):
        page.set_input_files("#upload input[type=file]", file)
    sizes = []
    for page in pages:
        page.locator("#classes .viewer[data-state=shown]").wait_for()
        details = json.loads(download(page, "#classes", "details"))
        sizes.append((details["width"], details["height"]))
    assert sizes == [(100, 150), (160, 90)]


def test_page_fits_a_phone(open_page, address, photo):
    page = open_page(address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    upload(page, photo)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#classes canvas").tap()
    assert page.locator("#classes .tip .name").inner_text() in TINY_CLASS_NAMES


# --- The command and the Space ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(model, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "village"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_command_prints_the_address_and_ends_by_ctrl_c(checkpoint, capsys):
    port = free_port()
    command = [sys.executable, "-m", "modeling_denseclip.tools.command", "web"]
    words = ["--model", str(checkpoint), "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen([*command, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/config") as answer:
            assert json.load(answer)["title"] == "DenseCLIP: village"
        assert main(["web", *words]) == 2, "the port is taken"
        assert f"cannot listen at 127.0.0.1:{port} (" in capsys.readouterr().err
        process.send_signal(signal.SIGINT)
        assert process.wait() in (0, 130)
    finally:
        process.kill()
        process.wait()


# As a Space does it, but for what this environment has installed: the folder's own package is the only one there is.
START_SPACE = """
import os, runpy, sys
sys.path[:] = [os.getcwd()] + [path for path in sys.path if path not in ("", sys.argv[1])]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder.__module__)]
import modeling_denseclip
assert os.path.dirname(os.path.dirname(modeling_denseclip.__file__)) == os.getcwd(), modeling_denseclip.__file__
print("started", flush=True)
runpy.run_path("app.py", run_name="__main__")
"""


def test_space_runs_from_its_folder(open_page, checkpoint, photo, photograph, probabilities, tmp_path):
    write_space(tmp_path / "space", "somebody/village")
    port = free_port()
    environment = os.environ | {
        "DENSECLIP_MODEL": str(checkpoint),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
    }
    environment.pop("PYTHONPATH", None)
    process = subprocess.Popen(
        [sys.executable, "-c", START_SPACE, str(ROOT)],
        cwd=tmp_path / "space",
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "started\n"
        assert process.stdout.readline().strip() == f"http://127.0.0.1:{port}/"
        page = open_page(f"http://127.0.0.1:{port}")
        upload(page, photo)
        ids = probabilities.argmax(axis=0)
        for x, y in inner_pixels(ids):
            assert hover(page, "#classes", x, y, photograph)[0] == TINY_CLASS_NAMES[ids[y, x]]
    finally:
        process.kill()
        process.wait()


# --- After all others ------------------------------------------------------------------------------------------------


def test_nothing_was_asked_for_outside_this_machine(requests, connections):
    assert len(requests) > 50 and connections
    hosts = {urllib.parse.urlsplit(url).hostname for url in requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    assert {host for host in connections if host not in LOOPBACK} == set()
