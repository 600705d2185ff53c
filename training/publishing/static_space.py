# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
A page on which a model runs in the visitor's browser: a folder that any server of files serves, and a static Space.

Its own scripts are in model_cards/static_space, the viewer is that of `denseclip web`, and onnxruntime-web comes from
npm. Folders in it are named by what is in them, so that a browser never takes an old file for a new one.
"""

import hashlib
import html
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modeling_denseclip.class_maps_denseclip import NOT_FINITE
from modeling_denseclip.tools.files import received
from modeling_denseclip.tools.files.photographs import STRANGERS
from modeling_denseclip.tools.files.saving import replace_folder
from modeling_denseclip.tools.page import answers
from modeling_denseclip.tools.page.viewer import MASTHEAD_CSS, VIEWER_CSS, VIEWER_HTML, VIEWER_SCRIPT

from .. import REPOSITORY
from .export import export_model, find_calibration_images, read_license
from .formats import RUNNER, describe_smaller_kind, open_session, quantize
from .npm import fetch_package, find_npm, locked_version, unpack


SOURCES = REPOSITORY / "model_cards" / "static_space"
LOCK = SOURCES / "package-lock.json"
RUNTIME = "onnxruntime-web"
# For each way to compute: the script of the runtime, its glue, its binary, and the model that is fastest by it.
RUNTIMES = {
    "webgpu": (
        "ort.webgpu.min.mjs",
        "ort-wasm-simd-threaded.asyncify.mjs",
        "ort-wasm-simd-threaded.asyncify.wasm",
        "float",
    ),
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm", "int8"),
}
RUNTIME_LICENCES = ("LICENSE", "ThirdPartyNotices.txt")  # in the wheel of onnxruntime, whose source is the same
KINDS = {"image/bmp": "BMP", "image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}  # that browsers read
LARGE = 2**20  # bytes from which on a file is kept when it is used, and not at once
CHECKED_LOGITS = 64
CHECKED_SIDE = 64  # at least, of the pattern by which WebGPU is checked


def write_static_space(
    output: Path,
    checkpoint: Path,
    name: str,
    inference_mode: str | None = None,
    int8: str | None = None,
    calibration_images: Sequence[Path] = (),
) -> None:
    """
    Args:
        output (`Path`): the folder, which must not be there or be empty.
        checkpoint (`Path`): the folder of a saved DenseCLIP.
        name (`str`): what the page calls the model.
        inference_mode, int8, calibration_images: as of `training.export`. With `int8`, browsers that compute by
            WebAssembly take a second file, in integers of 8 bits.

    Raises:
        ValueError: as [`~export.export_model`], and where onnxruntime-web is not to be had. Nothing is written then.
    """
    find_npm()
    images = find_calibration_images([] if int8 is None else ["int8"], calibration_images)
    licence = (read_license(checkpoint) or "not stated").replace("|", " ")  # for a table

    def write(folder: Path) -> None:
        model, card = write_model(folder, checkpoint, inference_mode, int8, images)
        write_page(folder, name, licence, card, describe_files(folder, model), write_runtime(folder))

    replace_folder(output, write, "index.html")


def write_runtime(folder: Path) -> Path:
    """Write what is used of onnxruntime-web, with its licences, into a folder of its own."""
    import onnxruntime

    version, _ = locked_version(LOCK, RUNTIME)
    target = folder / f"{RUNTIME}-{version}"
    target.mkdir()
    with tempfile.TemporaryDirectory() as temporary:
        archive = fetch_package(LOCK, RUNTIME, Path(temporary))
        unpack(archive, [f"dist/{file}" for files in RUNTIMES.values() for file in files[:3]], target)
    for licence in RUNTIME_LICENCES:
        shutil.copy(Path(onnxruntime.__file__).parent / licence, target)
    return target


def write_model(
    folder: Path, checkpoint: Path, inference_mode: str | None, int8: str | None, images: Sequence[Path]
) -> tuple[Path, dict[str, Any]]:
    """Write the exported files of a model; returns their folder, and the card with what WebGPU is checked by."""
    staging = folder / "model"
    exported = staging / "float.onnx"
    staging.mkdir()
    card = export_model(checkpoint, exported, "onnx", "logits", inference_mode, None, (), says_where=False)
    (staging / RUNNER.name).unlink()
    if int8 is not None:
        quantized = staging / "int8.onnx"
        card["int8"] = quantize(exported, quantized, card, int8, images)
        (staging / "folded.onnx").unlink(missing_ok=True)
        print(describe_smaller_kind("int8", card["int8"], exported.stat().st_size, quantized.stat().st_size))
    card["check"] = find_logits(exported, card)
    (staging / f"{exported.name}.json").unlink()
    (staging / "model.json").write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return name_by_content(staging), card


def find_logits(exported: Path, card: dict[str, Any]) -> dict[str, Any]:
    """Some logits of a pattern that the page makes too, by which it finds out whether WebGPU computes rightly."""
    height = max(card["smallest_side"], CHECKED_SIDE)
    width = height * 3 // 2
    rows, columns = np.arange(height)[:, None], np.arange(width)
    pattern = np.stack([np.sin(0.11 * columns + 0.07 * rows * (channel + 1)) for channel in range(3)])
    logits = open_session(exported).run(None, {"pixel_values": pattern[None].astype(np.float32)})[0].ravel()
    places = np.linspace(0, logits.size - 1, CHECKED_LOGITS).astype(int)
    return {
        "height": height,
        "width": width,
        "places": places.tolist(),
        "logits": logits[places].tolist(),
        "deviation": float(logits.std()),
    }


def name_by_content(folder: Path) -> Path:
    """Give a folder a name that tells what is in it."""
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
    named = folder.with_name(f"{folder.name}-{hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:12]}")
    return folder.rename(named)


def describe_files(folder: Path, part: Path) -> dict[str, dict[str, Any]]:
    """Path from `folder` on, size and checksum of each file of a folder in it, by its name."""
    return {
        file.name: {
            "path": file.relative_to(folder).as_posix(),
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in sorted(part.iterdir())
    }


def write_page(
    folder: Path,
    name: str,
    licence: str,
    card: dict[str, Any],
    model: dict[str, dict[str, Any]],
    runtime_folder: Path,
) -> None:
    """Write all but the model and the runtime, which are there."""
    runtime = describe_files(folder, runtime_folder)
    staging = folder / "page"
    shutil.copytree(SOURCES / "page", staging)
    (staging / "viewer.css").write_text(MASTHEAD_CSS + VIEWER_CSS, encoding="utf-8")
    (staging / "viewer.js").write_text(
        f"export const startViewer = (element, props, watch) => {{\n{VIEWER_SCRIPT}}};\n", encoding="utf-8"
    )
    settings = make_settings(name, card, model, runtime)
    (staging / "settings.js").write_text(
        f"export default {json.dumps(settings, ensure_ascii=False, indent=1)};\n", encoding="utf-8"
    )
    page = name_by_content(staging)
    shutil.copy(REPOSITORY / "LICENSE", folder)
    num_classes = len(card["class_names"])
    words = {
        "name": name,
        "count": "1 class" if num_classes == 1 else f"{num_classes} classes",
        "page": page.name,
        "accept": ",".join(KINDS),
        "kinds": list_kinds(),
        "megabytes": str(received.MAXIMUM_BYTES // 2**20),
        "megapixels": str(received.MAXIMUM_PIXELS // 10**6),
        "runtime": runtime_folder.name,
        "version": locked_version(LOCK, RUNTIME)[0],
        "model": Path(model["float.onnx"]["path"]).parent.name,
        "licence": licence,
    }
    write_text(folder, "index.html", words | {"viewer": VIEWER_HTML}, html.escape)
    write_text(folder, "README.md", words, str)
    write_service_worker(folder)


def list_kinds() -> str:
    return ", ".join(KINDS.values())


def write_text(folder: Path, file: str, words: dict[str, str], escape: Callable[[str], str]) -> None:
    """Write a file of the template with words in the place of their names in two braces each."""
    escaped = {name: word if name == "viewer" else escape(word) for name, word in words.items()}
    text = (SOURCES / file).read_text(encoding="utf-8")
    (folder / file).write_text(re.sub(r"{{(\w+)}}", lambda found: escaped[found[1]], text), encoding="utf-8")


def write_service_worker(folder: Path) -> None:
    """Write the script that keeps the page's files; the last of them, since it names them all."""
    files = [file for part in sorted(folder.iterdir()) if part.is_dir() for file in sorted(part.iterdir())]
    used = [file for file in files if file.suffix in (".css", ".js", ".mjs", ".onnx", ".wasm")]
    large = {file for file in used if file.stat().st_size >= LARGE or file.suffix in (".onnx", ".wasm")}
    # A page that has changed brings another worker, even if it names the same files.
    version = hashlib.sha256((folder / "index.html").read_bytes()).hexdigest()[:12]
    paths = ["./", *(file.relative_to(folder).as_posix() for file in used)]
    small = ["./", *(file.relative_to(folder).as_posix() for file in used if file not in large)]
    text = (SOURCES / "service-worker.js").read_text(encoding="utf-8")
    text = text.replace("/* small files */ []", json.dumps(small, indent=2))
    text = text.replace("/* all files */ []", json.dumps(paths, indent=2))
    (folder / "service-worker.js").write_text(f"{text}// index.html: {version}\n", encoding="utf-8")


def make_settings(
    name: str, card: dict[str, Any], model: dict[str, dict[str, Any]], runtime: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """What the scripts of the page have to know, for JSON: limits and messages are those of `denseclip web`."""
    models = {file.removesuffix(".onnx"): entry for file, entry in model.items() if file.endswith(".onnx")}
    fields = ("class_names", "palette", "image_processor", "windows", "smallest_side")
    return {
        "name": name,
        "hint": answers.class_hint(card["class_names"]),
        "card": {field: card[field] for field in fields},
        "check": card["check"],
        "models": models,
        "runtimes": {
            way: {
                "script": runtime[script]["path"],
                "binary": runtime[binary],
                "model": best if best in models else "float",
            }
            for way, (script, _, binary, best) in RUNTIMES.items()
        },
        "maximumBytes": received.MAXIMUM_BYTES,
        "maximumPixels": received.MAXIMUM_PIXELS,
        "maximumMapValues": answers.MAXIMUM_MAP_VALUES,
        "viewSide": answers.VIEW_SIDE,
        "meaning": answers.CLASS_MEANING,
        "scoreMeaning": answers.SCORE_MEANING,
        "strangers": [[beginning.decode("latin-1"), kind] for beginning, kind in STRANGERS.items()],
        "messages": {
            "manyBytes": received.TOO_MANY_BYTES,
            "manyPixels": received.TOO_MANY_PIXELS,
            "unreadable": received.UNREADABLE.replace("{kinds}", list_kinds()),
            "damaged": received.DAMAGED,
            "memory": received.MEMORY_ADVICE,
            "tooNarrow": received.TOO_NARROW,
            "notFinite": NOT_FINITE,
        },
    }
