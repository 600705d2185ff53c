# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The scripts of the page without a server, in Node, against Python. That they make a page: test_static_page.py."""

import base64
import io
import json
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn import functional as F

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.inference_denseclip import average_windows
from modeling_denseclip.tools.files import received
from modeling_denseclip.tools.files.photographs import STRANGERS
from modeling_denseclip.tools.page import answers
from modeling_denseclip.tools.pictures.palettes import generate_palette
from tests.tiny import draw_picture
from training.publishing.static_space import SOURCES


NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="the scripts run in Node here, which is not installed")

# Each call names a function of the page, what it gets, and how its result is told in JSON.
RUN = """
import { readFileSync } from "node:fs";
const folder = process.argv[1], modules = {};
for (const name of ["prepare", "maps", "png", "pictures"]) modules[name] = await import(`${folder}/${name}.js`);
const { prepare, maps, png, pictures } = modules;
const input = JSON.parse(readFileSync(0, "utf-8"), (key, value) => value?.floats === undefined ? value
  : new Float32Array(Uint8Array.from(Buffer.from(value.floats, "base64")).buffer));
const output = await (async (input) => { %s })(input);
const tell = (view) => ({ type: view.constructor.name,
  bytes: Buffer.from(view.buffer, view.byteOffset, view.byteLength).toString("base64") });
process.stdout.write(JSON.stringify(output, (key, value) => ArrayBuffer.isView(value) ? tell(value) : value));
"""
TYPES = {"Uint8Array": "u1", "Uint16Array": "<u2", "Int32Array": "<i4", "Float32Array": "<f4", "Float64Array": "<f8"}


def run(body: str, **inputs):
    """What the body of a JavaScript function returns, of `input`; arrays of floats become typed arrays."""

    def tell(value: np.ndarray) -> dict:
        return {"floats": base64.b64encode(np.ascontiguousarray(value, "<f4").tobytes()).decode()}

    def read(value: dict):
        if set(value) == {"type", "bytes"}:
            return np.frombuffer(base64.b64decode(value["bytes"]), TYPES[value["type"]])
        return value

    done = subprocess.run(
        [NODE, "--input-type=module", "-e", RUN % body, (SOURCES / "page").as_uri()],
        input=json.dumps(inputs, default=tell),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout, object_hook=read)


def encode(picture: PIL.Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def random_logits(*shape: int, seed: int = 0) -> torch.Tensor:
    """Smooth as those of a model, so that neighbours often have one class."""
    coarse = torch.randn(shape[0], 3, 4, generator=torch.Generator().manual_seed(seed))
    fine = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))
    return 4 * F.interpolate(coarse[None], size=shape[1:], mode="bilinear")[0] + 0.3 * fine


# --- Preparing -------------------------------------------------------------------------------------------------------

SIZES = {
    "smaller": ((90, 131), {"shortest_edge": 40, "longest_edge": 200}),
    "larger": ((37, 50), {"shortest_edge": 64, "longest_edge": 200}),
    "half": ((64, 96), {"height": 32, "width": 48}),
    "one size": ((61, 83), {"height": 48, "width": 48}),
    "a strip": ((17, 400), {"shortest_edge": 64, "longest_edge": 128}),
    "of rounding": ((96, 133), {"shortest_edge": 63}),
    "as it is": ((45, 38), None),
}


@pytest.mark.parametrize("case", SIZES)
def test_pictures_are_prepared_as_in_python_to_the_last_bit(case):
    (height, width), size = SIZES[case]
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    processor = DenseCLIPImageProcessor(size=size) if size else DenseCLIPImageProcessor(do_resize=False)
    expected = processor(PIL.Image.fromarray(picture), do_pad=False, return_tensors="np").pixel_values[0]
    rule = {
        "size": size,
        "rescale_factor": processor.rescale_factor,
        "image_mean": processor.image_mean,
        "image_std": processor.image_std,
    }
    found = run(
        """const row = (y) => Uint8Array.from(input.rows[y]);
        return prepare.prepare({ width: input.width, height: input.height, row }, input.rule);""",
        width=width,
        height=height,
        rows=np.concatenate([picture, np.full((height, width, 1), 255, np.uint8)], axis=2)
        .reshape(height, -1)
        .tolist(),
        rule=rule,
    )
    assert (found["height"], found["width"]) == expected.shape[1:]
    assert np.array_equal(found["values"].reshape(expected.shape), expected)


# --- Class maps and probabilities ------------------------------------------------------------------------------------

TARGETS = {"enlarged": (45, 61), "by a little": (14, 19), "shrunk": (9, 8), "a row": (1, 40), "a column": (50, 1)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("num_labels", [1, 2, 37, 300])
def test_class_map_and_scores_are_those_of_python(target, num_labels):
    logits, size = random_logits(num_labels, 13, 17), TARGETS[target]
    found = run(
        """const source = maps.wholeRows(input.logits, input.numLabels, 13, 17);
        return maps.classMap(source, ...input.size);""",
        logits=logits.numpy(),
        numLabels=num_labels,
        size=size,
    )
    enlarged = F.interpolate(logits[None].double(), size=size, mode="bilinear")[0]
    best = enlarged.topk(min(2, num_labels), dim=0).values
    is_clear = (best[0] - best[-1] > 1e-5).numpy() if num_labels > 1 else np.ones(size, bool)
    ids = found["ids"].reshape(size)
    assert np.array_equal(ids[is_clear], enlarged.argmax(dim=0).numpy()[is_clear]) and is_clear.mean() > 0.99
    (expected,) = DenseCLIPImageProcessor(do_pad=False).post_process_panoptic_segmentation(
        SimpleNamespace(logits=logits[None]), target_sizes=[size]
    )
    scores = {segment["label_id"]: segment["score"] for segment in expected["segments_info"]}
    assert np.flatnonzero(found["pixels"]).tolist() == sorted(scores)
    assert found["pixels"].tolist() == np.bincount(ids.ravel(), minlength=num_labels).tolist()
    for label, score in scores.items():
        assert found["sums"][label] / found["pixels"][label] == pytest.approx(score, abs=2e-6)


@pytest.mark.parametrize("size", [(45, 61), (9, 8)])
def test_probabilities_of_the_best_class_and_of_each_are_those_of_python(size):
    logits = random_logits(37, 13, 17)
    found = run(
        """const source = maps.wholeRows(input.logits, 37, 13, 17), shape = maps.mapSize(source, 37 * 60);
        return { best: maps.winningProbabilities(source, ...input.size), shape,
          each: maps.probabilityMaps(source, ...shape) };""",
        logits=logits.numpy(),
        size=size,
    )
    expected = 255 * answers.winning_probability(logits[None], size).numpy()
    # Half a step of rounding, and half a step of classes that are left out.
    assert np.abs(found["best"].reshape(size) - expected).max() <= 1 + 1e-3
    assert tuple(found["shape"]) == (6, 8) and 37 * 6 * 8 <= 37 * 60
    each = 255 * F.interpolate(logits[None], size=(6, 8), mode="bilinear").softmax(dim=1)[0].numpy()
    assert np.abs(found["each"].reshape(each.shape) - each).max() <= 0.5 + 1e-3


def test_windows_are_averaged_as_in_python():
    height, width = 40, 50
    places = [(top, left) for top in (0, 8) for left in (0, 12, 18)]
    parts = [random_logits(7, 8, 8, seed=2 * index) for index in range(len(places))]
    windows = [
        (slice(top, top + 32), slice(left, left + 32), part[None])
        for (top, left), part in zip(places, parts, strict=True)
    ]
    expected = average_windows(windows, slice(None), (height, width))[0].numpy()
    described = [
        {"top": top, "left": left, "height": 32, "width": 32, "rows": 8, "columns": 8, "logits": part.numpy()}
        for (top, left), part in zip(places, parts, strict=True)
    ]
    found = run(
        """const source = maps.windowRows(input.windows, 7, 40, 50);
        return { rows: Array.from({ length: 40 }, (_, y) => Float32Array.from(source.read(y))),
          starts: [maps.windowStarts(40, 32, 12), maps.windowStarts(50, 32, 12), maps.windowStarts(32, 32, 9)],
          map: maps.classMap(source, 80, 100) };""",
        windows=described,
    )
    rows = np.stack([row.reshape(width, 7) for row in found["rows"]]).transpose(2, 0, 1)
    assert np.abs(rows - expected).max() < 1e-5
    assert found["starts"] == [[0, 8], [0, 12, 18], [0]]
    enlarged = F.interpolate(torch.from_numpy(expected)[None], size=(80, 100), mode="bilinear")[0].argmax(dim=0)
    assert (found["map"]["ids"].reshape(80, 100) == enlarged.numpy()).mean() > 0.999


def test_logits_that_are_not_finite_are_seen():
    found = run(
        "return input.all.map((logits) => maps.areFinite(logits));",
        all=[np.array(values) for values in ([1.0, -2.0], [1.0, np.nan], [np.inf, 0.0])],
    )
    assert found == [True, False, False]


def test_ids_of_the_page_are_those_below_its_pixels():
    ids = np.random.default_rng(0).integers(0, 300, (30, 50))
    expected = ids[np.ix_(*(((np.arange(new) + 0.5) * old / new).astype(int) for new, old in ((12, 30), (77, 50))))]
    found = run("return maps.nearestIds(Uint16Array.from(input.ids), 30, 50, 12, 77);", ids=ids.ravel().tolist())
    assert np.array_equal(found.reshape(12, 77), expected)


@pytest.mark.parametrize("num_labels", [5, 256, 300])
def test_mask_is_a_picture_of_ids(num_labels):
    ids = np.random.default_rng(0).integers(0, num_labels, (30, 51))
    palette = generate_palette(num_labels) if num_labels <= 256 else [[0, 0, 0]] * num_labels
    found = run(
        """const ids = (input.palette.length > 256 ? Uint16Array : Uint8Array).from(input.ids);
        return new Uint8Array(await (await png.encodeMask(ids, 30, 51, input.palette)).arrayBuffer());""",
        ids=ids.ravel().tolist(),
        palette=[list(color) for color in palette],
    )
    mask = PIL.Image.open(io.BytesIO(found.tobytes()))
    assert np.array_equal(np.asarray(mask), ids)
    if num_labels <= 256:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask.convert("RGB")), np.uint8(palette)[ids])


# --- Files -----------------------------------------------------------------------------------------------------------

EXIF = PIL.Image.Exif()
EXIF[0x010E] = "a long description " * 200
PICTURES = {
    "PNG": {"form": "PNG"},
    "PNG of greys": {"form": "PNG", "mode": "L"},
    "PNG of 16 bits": {"form": "PNG", "mode": "I;16"},
    "PNG with alpha": {"form": "PNG", "mode": "RGBA"},
    "PNG of a palette with transparency": {"form": "PNG", "mode": "P", "transparency": 3},
    "JPEG": {"form": "JPEG", "exif": EXIF},
    "JPEG of scans": {"form": "JPEG", "progressive": True},
    "JPEG of CMYK": {"form": "JPEG", "mode": "CMYK"},
    "JPEG with restarts": {"form": "JPEG", "restart_marker_blocks": 2},
    "WEBP": {"form": "WEBP"},
    "WEBP without loss": {"form": "WEBP", "lossless": True},
    "WEBP without loss, with alpha": {"form": "WEBP", "lossless": True, "mode": "RGBA"},
    "WEBP with alpha": {"form": "WEBP", "mode": "RGBA"},
    "WEBP with EXIF": {"form": "WEBP", "exif": EXIF},
    "BMP": {"form": "BMP"},
}


@pytest.fixture(scope="module")
def pictures():
    """What the page says of each file, and of its first half."""
    files = {}
    for name, options in PICTURES.items():
        options = dict(options)
        form, mode = options.pop("form"), options.pop("mode", "RGB")
        picture = draw_picture(123, 77)
        picture = picture.convert("L").convert("I;16") if mode == "I;16" else picture.convert(mode)
        if mode == "RGBA":
            picture.putalpha(90)
        files[name] = encode(picture, form, **options)
    found = run(
        """return Object.fromEntries(Object.entries(input).map(([name, text]) => {
          const bytes = Uint8Array.from(Buffer.from(text, "base64"));
          return [name, [pictures.readHeader(bytes), pictures.readHeader(bytes.subarray(0, bytes.length - 40))]];
        }));""",
        **{name: base64.b64encode(data).decode() for name, data in files.items()},
    )
    return found


@pytest.mark.parametrize("name", PICTURES)
def test_size_of_a_picture_is_read_from_its_header(name, pictures):
    whole, cut = pictures[name]
    has_alpha = "alpha" in name or "transparency" in name
    expected = {"form": PICTURES[name]["form"], "width": 123, "height": 77, "hasAlpha": has_alpha}
    assert whole == expected | {"isWhole": True}
    if name != "BMP":  # whose length the header does not tell
        assert not cut["isWhole"]


STRANGE = {
    "GIF": (encode(draw_picture(40, 30), "GIF"), "it is a GIF"),
    "TIFF": (encode(draw_picture(40, 30), "TIFF"), "it is a TIFF, which browsers do not read"),
    "HTML": (b"\n <!DOCTYPE html><p>Sign in", "it is a page of HTML"),
    "SVG": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "it is an SVG"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC"),
    "AVIF": (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "it is an AVIF"),
    "video": (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", "it is a video"),
    "PDF": (b"%PDF-1.7\n", "it is a PDF"),
    "nothing": (b"", "it is an empty file"),
    "words": (b"These are words, not a picture.", received.DAMAGED),
    "half a PNG": (encode(draw_picture(64, 64), "PNG")[:200], received.DAMAGED),
    "half a JPEG": (encode(draw_picture(64, 64), "JPEG")[:700], received.DAMAGED),
    "a JPEG before its size": (encode(draw_picture(64, 64), "JPEG")[:30], received.DAMAGED),
    "many pixels": (
        encode(PIL.Image.new("1", (6001, 4000)), "PNG"),
        "6001 x 4000 pixels; 24 megapixels are the limit",
    ),
}


def test_what_is_no_picture_is_told_in_words():
    found = run(
        """const settings = { messages: input.messages, maximumPixels: 24e6, strangers: input.strangers };
        return Object.fromEntries(Object.entries(input.files).map(([name, text]) => {
          try {
            pictures.examineFile(Uint8Array.from(Buffer.from(text, "base64")), settings);
          } catch (error) {
            return [name, error instanceof pictures.Refusal ? error.message : error.stack];
          }
          return [name, "taken"];
        }));""",
        files={name: base64.b64encode(data).decode() for name, (data, _) in STRANGE.items()},
        strangers=[[beginning.decode("latin-1"), kind] for beginning, kind in STRANGERS.items()],
        messages={
            "unreadable": received.UNREADABLE,
            "damaged": received.DAMAGED,
            "manyPixels": received.TOO_MANY_PIXELS,
        },
    )
    wrong = {name: words for name, words in found.items() if STRANGE[name][1] not in words}
    assert not wrong
