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
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import onnxruntime
import PIL.Image
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException
from PIL.ExifTags import Base
from PIL.Image import DecompressionBombError, Transpose
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TILELENGTH, TILEWIDTH


# What terminals obey, in names of classes and files: control characters, and marks that turn the order of letters.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def load(path: str | Path) -> tuple[onnxruntime.InferenceSession, dict]:
    """
    The model, on the CPU, and what `PATH.json` says of it.

    Raises:
        OSError: for a file that is not there.
        ValueError: for files of which one is broken or not what `training.export` writes.
    """
    try:
        card = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
        check_card(card)
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path}.json is not what training.export writes beside a model ({type(error).__name__}: {error}). Export"
            " it anew."
        ) from error
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime has a class of errors for each of its codes
        raise ValueError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    inputs = [value.name for value in session.get_inputs()]
    if inputs != ["pixel_values"]:
        raise ValueError(f"{path} takes {', '.join(inputs)}, and what training.export writes pixel_values alone.")
    return session, card


def check_card(card: dict) -> None:
    """Read all that is read of a card later on: of one that somebody has edited, this raises whatever comes."""
    names, rule, windows = card["class_names"], card["image_processor"], card["windows"]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names are no list of names")
    if len(names) <= 256:
        np.array(card["palette"], dtype=np.uint8).reshape(len(names), 3)
    resized_size(1, 1, rule["size"])
    for field, shape in (("rescale_factor", ()), ("image_mean", 3), ("image_std", 3)):
        np.array(rule[field], dtype=np.float32).reshape(shape)
    for field in () if windows is None else ("size", "stride"):
        if not min(np.array(windows[field], dtype=np.int64).reshape(2)) > 0:
            raise ValueError(f"windows have a {field} that is not positive")
    if card["output"] not in ("logits", "class_map") or not card["smallest_side"] >= 1:
        raise ValueError(f"output {card['output']!r} or smallest_side {card['smallest_side']!r}")


def save_whole(mask: PIL.Image.Image, target: Path) -> None:
    """
    Write a map, which replaces an older one when it is complete.

    Raises:
        OSError: where it cannot be written, such as on a full disk; names `target`.
    """
    part = target.parent / f".run_onnx-{os.getpid()}.png"
    try:
        mask.save(part)
        os.replace(part, target)
    except OSError as error:
        raise OSError(f"{target} could not be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def printable(text: object) -> str:
    """With escapes, such as `\\x1b`, for what a terminal would obey."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def read_picture(path: str | Path) -> np.ndarray:
    """
    The upright photograph, uint8 of shape `(height, width, 3)`, RGB. Greys of 16 bits are divided by 257, as in
    training.

    Raises:
        OSError: for a file that is not there or cannot be read.
        ValueError: for floating-point numbers and integers of 32 bits, whose range is unknown.
    """
    source = str(path)
    with open_image(path, source) as file, naming_errors(source):
        orientation = read_orientation(file)
        file.load()
        if file.mode in ("I", "F"):
            picture = None
        elif file.mode.startswith("I;16"):
            picture = PIL.Image.fromarray(((np.asarray(file).astype(np.uint32) + 128) // 257).astype(np.uint8))
        else:
            picture = (file.convert("LA") if file.mode == "La" else file).convert("RGB")
    if picture is None:
        raise ValueError(
            f"{path} holds numbers whose range is unknown. Save it with 8 bits, all pictures scaled alike."
        )
    return np.asarray(turn_upright(picture, orientation).convert("RGB"))


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
    inputs, sources, targets = {os.path.realpath(image) for image in images}, {}, {}
    for image in images:
        target = output / f"{image.stem}-classes.png"
        source = sources.setdefault(target, image)
        if os.path.realpath(source) != os.path.realpath(image):
            raise ValueError(f"{source} and {image} would both become {target}: give each an --output of its own.")
        if os.path.realpath(target) in inputs:
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
            classes = segment(session, card, read_picture(image))
        except (OSError, ValueError, MemoryError, cv2.error, RuntimeException) as error:
            reason = str(error) or "It needs more memory than there is."
            print(printable(f"left out: {image}: {reason}"), file=sys.stderr)
            left_out += 1
            continue
        if classes.max() >= len(names):
            raise ValueError(f"{args.model} has more classes than the {len(names)} that {args.model}.json names.")
        if len(names) <= 256:
            # Class ids that any viewer shows in the colours of the classes.
            mask = PIL.Image.fromarray(classes.astype(np.uint8))
            mask.putpalette([channel for color in card["palette"] for channel in color])
        else:
            mask = PIL.Image.fromarray(classes.astype(np.uint16))
        save_whole(mask, target)
        shares = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
        found = sorted(np.flatnonzero(shares), key=lambda class_id: -shares[class_id])
        areas = ", ".join(f"{names[class_id]} {100 * shares[class_id]:.1f} %" for class_id in found)
        print(printable(f"{target}: {areas}"))
    return 1 if left_out else 0


# From here on as in `modeling_denseclip.tools.files.photographs`, word for word: both read and refuse the same.

# As Pillow calls what these suffixes name. Whatever a file is named, Pillow would read many more, and have another
# program draw EPS.
IMAGE_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Orientation of EXIF -> what turns the picture upright.
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
XMP_ORIENTATION = re.compile(rb"""tiff:Orientation(?:\s*=\s*["']|>)\s*([0-9])\s*["'<]""")
# Of a JPEG: each scan goes over the whole picture. Usual are 1 and, if it is progressive, 10; libtiff takes as many.
MAXIMUM_SCANS = 100
# What tags of EXIF or of a TIFF may take in memory beyond the size of the file: Pillow copies what each of them names,
# and all may name the same. It takes as much for the texts in a PNG.
MAXIMUM_TAG_BYTES = 64 * 2**20
JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)  # of a segment, which ends the data of a scan
START_OF_JPEG = b"\xff\xd8\xff"
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
START_OF_SCAN, END_OF_IMAGE, EXIF, MULTI_PICTURE = 0xDA, 0xD9, 0xE1, 0xE2
BYTE_ORDERS = {b"II": "<", b"MM": ">"}  # of a TIFF
TAG_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # by type
SIZE_TAGS = (IMAGEWIDTH, IMAGELENGTH, TILEWIDTH, TILELENGTH)
SIZE_TYPES = (3, 4, 16)  # integers of 16, 32 and 64 bits


def open_file(path: str | Path) -> BinaryIO:
    """
    Open a file to read its bytes.

    Raises:
        OSError: for what is no file, such as a named pipe, at which a reader would wait for ever; names none.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the system says it
        raise OSError("it is no regular file, but a named pipe, a socket or a device")
    return open(path, "rb")


@contextmanager
def naming_errors(source: str) -> Iterator[None]:
    """
    Make what Pillow raises of a broken file an error that names it. Its readers do not say what they may raise: beside
    OSError there are SyntaxError, ValueError, TypeError, struct.error, DecompressionBombError and others.

    Raises:
        OSError: for any of these. One that names a file, such as a file that is not there, stays as it is.
        MemoryError: where memory ends.
    """
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"{source} needs more memory than there is to be decoded") from error
    except PIL.UnidentifiedImageError as error:
        reason = f"cannot identify image file, as it is none of {', '.join(IMAGE_FORMATS)}"
        raise OSError(f"{source} cannot be read as an image: {reason}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise OSError(f"{source} cannot be read as an image: {str(error) or repr(error)}") from error


def open_image(file: str | Path | BinaryIO, source: str) -> PIL.Image.Image:
    """
    Open an image of one of `IMAGE_FORMATS`, without decoding it; `source` is what an error calls it. All that reads
    images and masks of files comes here, so that what is too large to decode is refused here.

    Raises:
        OSError: for a file that is not there or no such image. Its cause is a `DecompressionBombError` for one of more
            pixels than Pillow takes, counted by tiles too; of more than `MAXIMUM_SCANS`; or of too many tags.
    """
    with naming_errors(source):
        if isinstance(file, str | Path):
            with open_file(file) as stream:
                _refuse_bombs(stream)
        else:
            _refuse_bombs(file)
        try:
            image = PIL.Image.open(file, formats=IMAGE_FORMATS)
        except (DecompressionBombError, MemoryError):
            raise
        except Exception:
            if _first_bytes(file)[:3] != START_OF_JPEG:
                raise
            image = _open_without_metadata(file)
        width, height = decoded_size(image)
        if PIL.Image.MAX_IMAGE_PIXELS is not None and width * height > 2 * PIL.Image.MAX_IMAGE_PIXELS:
            raise DecompressionBombError(
                f"tiles of {width} x {height} pixels exceed the limit of {2 * PIL.Image.MAX_IMAGE_PIXELS} pixels"
            )
    if image.format == "TIFF":
        # Pillow reads a TIFF that it can map into memory by the size of the turned picture, so that its rows break in
        # wrong places. Without a name it does not map it.
        image.filename = ""
    return image


def decoded_size(image: PIL.Image.Image) -> tuple[int, int]:
    """Width and height that are decoded: of a TIFF whole tiles, each of which may be larger than the picture."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    return max(image.width, tags.get(TILEWIDTH, 0)), max(image.height, tags.get(TILELENGTH, 0))


def read_orientation(image: PIL.Image.Image) -> int:
    """
    The orientation of a picture that was opened: a key of `UPRIGHT`, or 1 where it is not to be turned.

    It stands in EXIF or, where EXIF has none, in XMP. What is no orientation, in metadata of any type and length or in
    such that nobody can read, turns nothing: the pixels are as good as without it. PNGs and TIFFs are decoded, which
    may change the size of a TIFF.

    Source: [`PIL.ImageOps.exif_transpose`], by which `datasets` and the pipelines of Transformers turn photographs.
    Older releases of Pillow read no XMP of JPEG files, and it raises errors for odd metadata.
    """
    if image.format in ("PNG", "TIFF"):
        image.load()  # metadata of a PNG may stand behind the pixels, and TIFFs are turned by Pillow's own reader
    try:
        data = image.info.get("exif")
        if data is None and "Raw profile type exif" in image.info:  # in a PNG: hexadecimal, behind three lines
            data = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
        if data is not None and image.format != "TIFF":
            _check_tags(BytesIO(data.removeprefix(b"Exif\0\0")))
        exif = image.getexif()
        if Base.Orientation in exif:
            orientation = exif[Base.Orientation]
        else:
            xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
            found = XMP_ORIENTATION.search(xmp.encode() if isinstance(xmp, str) else bytes(xmp))
            orientation = int(found[1]) if found else 1
        return int(orientation) if orientation in UPRIGHT else 1
    except MemoryError:
        raise
    except Exception:
        return 1


def turn_upright(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """The picture, or a turned copy of it; `orientation` as of [`read_orientation`]."""
    return image if orientation == 1 else image.transpose(UPRIGHT[orientation])


def _refuse_bombs(file: BinaryIO) -> None:
    """
    Look at what a file takes beyond its pixels, before Pillow opens it; `file` is at its beginning before and after.

    Raises:
        DecompressionBombError: for too many scans or tags.
        ValueError: for a TIFF that states its size in more than one way.
    """
    first = file.read(4)
    if first.startswith(START_OF_JPEG):
        _check_jpeg(file)
    elif first[:2] in BYTE_ORDERS:
        _check_tags(file, is_tiff=True)
    file.seek(0)


def _check_jpeg(file: BinaryIO) -> None:
    components, is_progressive, exif = b"", False, b""
    for marker, segment in _read_segments(file):
        if marker in START_OF_FRAME:
            components, is_progressive = segment[5:6], marker in PROGRESSIVE
        elif marker == EXIF and segment.startswith(b"Exif\0\0"):
            exif += segment[6:]  # Pillow joins them, and reads them as it opens the file, for the resolution
        elif marker == MULTI_PICTURE and segment.startswith(b"MPF\0"):
            _check_tags(BytesIO(segment[4:]))
        elif marker == START_OF_SCAN and (is_progressive or segment[:1] != components):  # else there is but one
            _count_scans(file.read())
    _check_tags(BytesIO(exif))


def _read_segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment of a JPEG, up to the header of the first scan; `file` is behind them."""
    file.seek(2)
    byte = file.read(1)
    while byte:
        last, byte = byte, file.read(1)
        if JPEG_MARKER.match(last + byte):  # what belongs to no segment is passed over
            marker = byte[0]
            yield marker, file.read(max(int.from_bytes(file.read(2), "big") - 2, 0))
            if marker == START_OF_SCAN:
                break
            byte = file.read(1)


def _open_without_metadata(file: str | Path | BinaryIO) -> PIL.Image.Image:
    """Open a JPEG, of which Pillow stumbles over EXIF or a list of pictures as it looks for the resolution."""
    if isinstance(file, str | Path):
        with open_file(file) as stream:
            file = BytesIO(stream.read())
    pixels, exif, start = b"\xff\xd8", b"", 2
    for marker, segment in _read_segments(file):
        place = file.tell()
        is_exif = marker == EXIF and segment.startswith(b"Exif\0\0")
        if is_exif:
            exif += segment[6:]
        elif not (marker == MULTI_PICTURE and segment.startswith(b"MPF\0")):
            file.seek(start)
            pixels += file.read(place - start)
        file.seek(place)
        start = place
    image = PIL.Image.open(BytesIO(pixels + file.read()), formats=("JPEG",))
    if exif:
        image.info["exif"] = b"Exif\0\0" + exif
    return image


def _count_scans(data: bytes) -> None:
    """`data` begins behind the header of the first scan."""
    # Metadata may hold these bytes by chance, so this counts too many, but fast; most files need no more.
    if data.count(bytes([0xFF, START_OF_SCAN])) < MAXIMUM_SCANS:
        return
    scans, place = 1, 0
    while (found := JPEG_MARKER.search(data, place)) and found[1][0] != END_OF_IMAGE:
        scans += found[1][0] == START_OF_SCAN
        if scans > MAXIMUM_SCANS:
            raise DecompressionBombError(
                f"it is a JPEG of more than {MAXIMUM_SCANS} scans, each of which goes over the whole picture; others"
                " have 10 at most. Save it anew"
            )
        place = found.end() + max(int.from_bytes(data[found.end() : found.end() + 2], "big"), 2)


def _check_tags(file: BinaryIO, is_tiff: bool = False) -> None:
    """Look at the first directory of a TIFF, or of EXIF and the like, which have the form of one."""
    size = file.seek(0, SEEK_END)
    file.seek(0)
    head = file.read(16)
    order = BYTE_ORDERS.get(head[:2])
    if order is None or len(head) < 16:
        return  # nothing that Pillow reads either
    if head.startswith(b"MM\0+"):  # of which it reads something else than libtiff
        raise ValueError("it is a BigTIFF of the byte order MM, which is not read. Save it anew")
    offset_type, count_type, entry = ("Q", "Q", "HHQ8s") if 43 in head[2:4] else ("I", "H", "HHI4s")
    offset_size, entry_size = struct.calcsize(offset_type), struct.calcsize(order + entry)
    file.seek(struct.unpack_from(order + offset_type, head, offset_size)[0] % 2**63)
    count = int.from_bytes(file.read(struct.calcsize(count_type)), "little" if order == "<" else "big")
    # More entries than there are tags would only replace each other.
    entries = file.read(min(count, 2**16) * entry_size)
    total, sizes = 0, []
    for tag, kind, number, value in struct.iter_unpack(
        order + entry, entries[: len(entries) // entry_size * entry_size]
    ):
        length = number * TAG_BYTES.get(kind, 0)
        if length > offset_size:
            total += max(min(length, size - struct.unpack(order + offset_type, value)[0]), 0)
        if tag in SIZE_TAGS:
            sizes.append(tag)
            if is_tiff and (kind not in SIZE_TYPES or number != 1 or sizes.count(tag) > 1):
                # Pillow and libtiff, which it decodes with, would not read the same.
                raise ValueError("it is a TIFF whose size is stated twice, or not as a number. Save it anew")
    if total > size + MAXIMUM_TAG_BYTES or count > 2**16:
        raise DecompressionBombError(
            f"its metadata takes {total / 2**20:,.0f} MB of memory, in a file of {size / 2**20:,.1f} MB. Save it anew,"
            " without metadata"
        )


def _first_bytes(file: str | Path | BinaryIO) -> bytes:
    if isinstance(file, str | Path):
        with open_file(file) as stream:
            return stream.read(4)
    file.seek(0)
    return file.read(4)


if __name__ == "__main__":
    # Names of classes and files may hold letters that the encoding of a terminal or a pipe lacks.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except (MemoryError, OSError, ValueError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(130)
