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
Segment photographs by a file that `python -m training.export` wrote.

    python run_onnx.py model.onnx street.jpg --output maps

This file needs onnxruntime, NumPy, OpenCV and Pillow, not PyTorch and nothing else of this repository: copy it to
where the model runs. What it knows of the model stands in `model.onnx.json`.
"""

import argparse
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException
from PIL import Image


FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
ORIENTATION = 0x0112  # of EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load(path: str | Path) -> tuple[onnxruntime.InferenceSession, dict]:
    """The model, on the CPU, and what `PATH.json` says of it."""
    card = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]), card


def read_picture(path: str | Path) -> np.ndarray:
    """
    The upright photograph, uint8 of shape `(height, width, 3)`, RGB. Greys of 16 bits are divided by 257, as in
    training.

    Raises:
        OSError: for a file that is not there or cannot be read.
        ValueError: for floating-point numbers and integers of 32 bits, whose range is unknown.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            if file.format == "TIFF":
                file.filename = ""  # so that Pillow does not map it into memory, which goes wrong for turned pictures
            turn = find_turn(file)
            file.load()
            if file.mode in ("I", "F"):
                picture = None
            elif file.mode.startswith("I;16"):
                picture = Image.fromarray(((np.asarray(file).astype(np.uint32) + 128) // 257).astype(np.uint8))
            else:
                picture = (file.convert("LA") if file.mode == "La" else file).convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # readers of broken files raise whatever they meet
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise OSError(f"{path} cannot be read as an image: {error}") from error
    if picture is None:
        raise ValueError(
            f"{path} holds numbers whose range is unknown. Save it with 8 bits, all pictures scaled alike."
        )
    return np.asarray((picture if turn is None else picture.transpose(turn)).convert("RGB"))


def find_turn(file: Image.Image) -> Image.Transpose | None:
    """What turns a picture upright, by EXIF or, where that says nothing, by XMP; metadata may be odd or broken."""
    if file.format in ("PNG", "TIFF"):
        file.load()  # metadata of a PNG may stand behind the pixels, and TIFFs are turned by Pillow's own reader
    try:
        exif = file.getexif()
        if ORIENTATION in exif:
            return UPRIGHT.get(exif[ORIENTATION])
        xmp = file.info.get("XML:com.adobe.xmp") or file.info.get("xmp") or b""
        xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
        found = re.search(rb'tiff:Orientation(?:="|>)([0-9])["<]', xmp)
        return UPRIGHT.get(int(found[1])) if found else None
    except Exception:
        return None


def resized_size(height: int, width: int, size: dict[str, int] | None) -> tuple[int, int]:
    """Height and width at which the model sees a picture; `size` as in the card."""
    if size is None:
        return height, width
    if "height" in size:
        return size["height"], size["width"]
    scale = size["shortest_edge"] / min(height, width)
    if "longest_edge" in size:
        scale = min(scale, size["longest_edge"] / max(height, width))
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def prepare(picture: np.ndarray, card: dict) -> np.ndarray:
    """
    A picture as the model takes it: uint8 `(height, width, 3)` -> float32 `(1, 3, resized_height, resized_width)`.

    Raises:
        ValueError: for a picture that is too small.
    """
    rule = card["image_processor"]
    height, width = resized_size(*picture.shape[:2], rule["size"])
    if min(height, width) < card["smallest_side"]:
        raise ValueError(
            f"The picture is {height} x {width} pixels when the model sees it, and this file was found right from"
            f" {card['smallest_side']} pixels on. Enlarge the picture, or `size` in the JSON beside the file."
        )
    # Without antialiasing, as in training.
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    resized = resized * np.float32(rule["rescale_factor"])
    resized = (resized - np.float32(rule["image_mean"])) / np.float32(rule["image_std"])
    return np.ascontiguousarray(resized.transpose(2, 0, 1)[None])


def segment(session: onnxruntime.InferenceSession, card: dict, picture: np.ndarray) -> np.ndarray:
    """The class id of each pixel of a picture: uint8 `(height, width, 3)` -> int64 `(height, width)`."""
    pixel_values = prepare(picture, card)
    if card["output"] == "class_map":
        classes = session.run(None, {"pixel_values": pixel_values})[0][0].astype(np.int32)
        return cv2.resize(classes, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(np.int64)
    return best_classes(run(session, card, pixel_values), *picture.shape[:2])


def run(session: onnxruntime.InferenceSession, card: dict, pixel_values: np.ndarray) -> np.ndarray:
    """The logits of one image, `(num_labels, height / 4, width / 4)`, or of full size where windows slide over it."""
    windows, (height, width) = card["windows"], pixel_values.shape[2:]
    if windows is None or (height <= windows["size"][0] and width <= windows["size"][1]):
        return session.run(None, {"pixel_values": pixel_values})[0][0]
    window_height, window_width = min(windows["size"][0], height), min(windows["size"][1], width)
    logits = np.zeros((len(card["class_names"]), height, width), dtype=np.float32)
    counts = np.zeros((height, width), dtype=np.float32)
    for top in window_starts(height, window_height, windows["stride"][0]):
        for left in window_starts(width, window_width, windows["stride"][1]):
            rows, columns = slice(top, top + window_height), slice(left, left + window_width)
            window = np.ascontiguousarray(pixel_values[:, :, rows, columns])
            for class_logits, part in zip(logits, session.run(None, {"pixel_values": window})[0][0], strict=True):
                class_logits[rows, columns] += cv2.resize(part, (window_width, window_height))
            counts[rows, columns] += 1
    return logits / counts


def window_starts(length: int, window: int, stride: int) -> Iterator[int]:
    """First pixel of each window along one side; the last window ends with the image."""
    yield from range(0, length - window, stride)
    yield length - window


def best_classes(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    """
    The best class of each pixel: float32 `(num_labels, ...)` -> int64 `(height, width)`. One class is enlarged at a
    time; all of them, for 150 classes and a photograph of 12 megapixels, would take 7 GB.
    """
    best, classes = np.full((height, width), -np.inf, dtype=np.float32), np.zeros((height, width), dtype=np.int64)
    for class_id, class_logits in enumerate(logits):
        scores = cv2.resize(class_logits, (width, height), interpolation=cv2.INTER_LINEAR)
        is_better = scores > best
        best[is_better], classes[is_better] = scores[is_better], class_id
    return classes


def choose_targets(images: list[Path], output: Path) -> dict[Path, Path]:
    """
    The map to write for each photograph.

    Raises:
        ValueError: where a map would replace another, or a photograph, or has too long a name.
    """
    inputs, sources, targets = {image.resolve() for image in images}, {}, {}
    for image in images:
        target = output / f"{image.stem}-classes.png"
        source = sources.setdefault(target, image)
        if source.resolve() != image.resolve():
            raise ValueError(f"{source} and {image} would both become {target}: give each an --output of its own.")
        if target.resolve() in inputs:
            raise ValueError(f"{target} is one of the photographs and would be replaced: choose another --output.")
        if len(os.fsencode(target.name)) > 255:
            raise ValueError(f"The name of {image} is too long: {target.name} has more than 255 bytes. Shorten it.")
        targets[source] = target
    return targets


def main(argv: Sequence[str] | None = None) -> int:
    """
    Returns 0, or 1 where photographs were left out, which are named.

    Raises:
        OSError: for a model that is not there, or maps that cannot be written.
        ValueError: for empty words, and as [`choose_targets`].
    """
    parser = argparse.ArgumentParser(
        description="Segment photographs by an exported model: writes the class id of each pixel, IMAGE-classes.png."
    )
    parser.add_argument("model", metavar="MODEL.onnx", help="with MODEL.onnx.json beside it")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="photographs")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder for the maps")
    args = parser.parse_args(argv)
    if not all(word.strip() for word in (args.model, args.output, *args.images)):
        raise ValueError("A word is empty, as of a variable that is not set. It would stand for the current folder.")
    targets = choose_targets(list(map(Path, args.images)), Path(args.output))
    session, card = load(args.model)
    names = card["class_names"]
    Path(args.output).mkdir(parents=True, exist_ok=True)
    left_out = 0
    for image, target in targets.items():
        try:
            if not stat.S_ISREG(image.stat().st_mode):
                raise OSError(f"{image} is no file, but a folder, a device or a pipe.")
            classes = segment(session, card, read_picture(image))
        except (OSError, ValueError, MemoryError, cv2.error, RuntimeException) as error:
            print(f"left out: {image}: {str(error) or 'It needs more memory than there is.'}", file=sys.stderr)
            left_out += 1
            continue
        if len(names) <= 256:
            # Class ids that any viewer shows in the colours of the classes.
            mask = Image.fromarray(classes.astype(np.uint8))
            mask.putpalette([channel for color in card["palette"] for channel in color])
        else:
            mask = Image.fromarray(classes.astype(np.uint16))
        mask.save(target)
        shares = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
        found = sorted(np.flatnonzero(shares), key=lambda class_id: -shares[class_id])
        print(f"{target}: {', '.join(f'{names[class_id]} {100 * shares[class_id]:.1f} %' for class_id in found)}")
    return 1 if left_out else 0


if __name__ == "__main__":
    # Names of classes and files may hold letters that the encoding of a terminal or a pipe lacks.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
