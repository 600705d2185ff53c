# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Photographs and masks, read from files.

`training/run_onnx.py` loads this file by its path, where neither PyTorch nor Transformers is installed, and
`training.export` copies its text. So it imports NumPy and Pillow alone, and nothing of this package.
"""

import functools
import logging
import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image
from PIL.ExifTags import Base
from PIL.Image import DecompressionBombError, Transpose
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TILELENGTH, TILEWIDTH


logger = logging.getLogger(__name__)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What a file begins with that is a TIFF of either byte order, or a large one.
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TO_8_BITS = (
    "Choose one band or three, and write them with 8 bits, such as by `gdal_translate -b 3 -b 2 -b 1 -ot Byte -scale 0"
    " 4095 0 255 in.tif out.png` for values from 0 to 4095."
)
# Pillow's names of the formats that are read; it would read many more, and start another program to draw EPS.
IMAGE_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# What files that are none of these begin with, and what to say of them; see `describe_stranger`.
LFS_POINTER = b"version https://git-lfs.github.com/spec"
NOT_FETCHED = "a pointer of Git LFS in place of the file: fetch it by `git lfs pull`"
REWRITTEN = "a PNG whose line ends were rewritten as those of a text, which destroys it: fetch it again, as binary"
STRANGERS = {
    LFS_POINTER: NOT_FETCHED,
    b"\x89PNG\n": REWRITTEN,  # a PNG begins with \x89PNG\r\n\x1a\n, which tells what was done to it
    b"\x89PNG\r\r\n": REWRITTEN,
    b"\x89PNG\r\n\x1a\r\n": REWRITTEN,
    b"\xef\xbf\xbdPNG": "a PNG that was read and saved as a text, which destroys it: fetch it again, as binary",
    b"GIF8": "a GIF",
    b"8BPS": "a file of Photoshop (PSD)",
    b"%PDF-": "a PDF",
    b"%!PS": "an EPS",
    b"\xc5\xd0\xd3\xc6": "an EPS",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\xff\x0a": "a JPEG XL",
    b"\x76\x2f\x31\x01": "an OpenEXR picture",
    b"\x93NUMPY": "an array of NumPy",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
}
HEIC_BRANDS = (b"hei", b"hev", b"mif", b"msf")  # of pictures in the container of MPEG-4, which else holds a video
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
# Scans of a JPEG that are read; each one goes over the whole picture. Usual are 1 and, if it is progressive, 10.
# libtiff has the same limit.
MAXIMUM_SCANS = 100
# What the tags of EXIF or of a TIFF may take in memory beyond the size of the file: Pillow copies the bytes that each
# tag refers to, and all may refer to the same ones. Pillow's own limit for the texts in a PNG is as large.
MAXIMUM_TAG_BYTES = 64 * 2**20
# What a segment of a JPEG begins with, and so where the data of a scan ends.
JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
START_OF_JPEG = b"\xff\xd8\xff"
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
START_OF_SCAN, END_OF_IMAGE, EXIF, MULTI_PICTURE = 0xDA, 0xD9, 0xE1, 0xE2
BYTE_ORDERS = {b"II": "<", b"MM": ">"}  # of a TIFF
TAG_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # by type
SIZE_TAGS = (IMAGEWIDTH, IMAGELENGTH, TILEWIDTH, TILELENGTH)
SIZE_TYPES = (3, 4, 16)  # integers of 16, 32 and 64 bits


def list_images(path: Path) -> list[Path]:
    """The photograph, or those in a folder, by name."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    return [path]


def open_file(path: str | Path) -> BinaryIO:
    """
    Open a file to read its bytes.

    Raises:
        OSError: for what is no file, such as a named pipe, at which a reader would wait for ever. Its message does
            not name the file.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a folder raises an error
        raise OSError("it is no regular file, but a named pipe, a socket or a device")
    return open(path, "rb")


@contextmanager
def _opened(file: str | Path | BinaryIO) -> Iterator[BinaryIO]:
    """The bytes of a file, which is closed in the end, or of a stream, which stays open; from the beginning."""
    if isinstance(file, str | Path):
        with open_file(file) as stream:
            yield stream
    else:
        file.seek(0)
        yield file


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
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise OSError(f"{source} cannot be read as an image: {str(error) or repr(error)}") from error


def open_image(file: str | Path | BinaryIO, source: str, more_formats: Sequence[str] = ()) -> PIL.Image.Image:
    """
    Open an image of one of `IMAGE_FORMATS`, without decoding it; `source` is what an error calls it. All that reads
    images and masks of files comes here, so that what is too large to decode is refused here.

    Args:
        more_formats (`Sequence[str]`, *optional*): others that are read too, as Pillow calls them.

    Raises:
        OSError: for a file that is not there or no such image. Its cause is a `DecompressionBombError` for one of more
            pixels than Pillow takes, counted by tiles too; of more than `MAXIMUM_SCANS`; or of too many tags.
    """
    with naming_errors(source):
        with _opened(file) as stream:
            _refuse_bombs(stream)
            beginning = stream.read(512)
        try:
            image = _open_known(file, (*IMAGE_FORMATS, *more_formats), beginning.startswith(START_OF_JPEG))
        except PIL.UnidentifiedImageError as error:  # which names an object in memory
            raise PIL.UnidentifiedImageError(explain_unidentified(beginning)) from error
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


def _open_known(file: str | Path | BinaryIO, formats: Sequence[str], is_jpeg: bool) -> PIL.Image.Image:
    try:
        return PIL.Image.open(file, formats=formats)
    except (DecompressionBombError, MemoryError):
        raise
    except Exception:
        if not is_jpeg:
            raise
        with _opened(file) as stream:
            return _open_without_metadata(stream)


def explain_unidentified(beginning: bytes) -> str:
    """Why a file is not read as a picture, by its first 512 bytes."""
    for signature, name in ((PNG_SIGNATURE, "PNG"), (START_OF_JPEG, "JPEG")):
        if beginning.startswith(signature):
            return f"cannot identify image file: it begins as a {name}, and is broken behind that. Fetch it again"
    stranger = describe_stranger(beginning)
    known = f"cannot identify image file, as it is none of {', '.join(IMAGE_FORMATS)}"
    return f"{known}, but {stranger}" if stranger else known


def describe_stranger(beginning: bytes) -> str:
    """What a file is that is none of `IMAGE_FORMATS`, by its first 512 bytes; empty if that cannot be told."""
    if not beginning:
        return "an empty file"
    if not beginning.strip(b"\0"):
        return "zeros, as a copy that broke off leaves: fetch it again"
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in text:
        return "an SVG"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a page of HTML, as servers send in place of a file: fetch it again, signed in if need be"
    if beginning[4:8] == b"ftyp":
        if b"avif" in beginning[8:64]:  # its first brand may be one that AVIF and HEIC share
            return "an AVIF"
        return "a HEIC" if beginning[8:11] in HEIC_BRANDS else "a video"
    return next((name for first, name in STRANGERS.items() if beginning.startswith(first)), "")


def decoded_size(image: PIL.Image.Image) -> tuple[int, int]:
    """Width and height that are decoded: of a TIFF whole tiles, each of which may be larger than the picture."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    return max(image.width, tags.get(TILEWIDTH, 0)), max(image.height, tags.get(TILELENGTH, 0))


def open_photograph(file: str | Path | BinaryIO, source: str | None = None) -> PIL.Image.Image:
    """
    Open a photograph that [`decode_photograph`] takes, without decoding it. An error calls it `source`, by default by
    its name.

    Raises:
        OSError: for a file that is not there or no image.
        ValueError: for a TIFF that Pillow does not read, and as [`to_rgb`].
    """
    source = str(file) if source is None else source
    try:
        image = open_image(file, source)
    except OSError as error:
        if isinstance(error.__cause__, PIL.UnidentifiedImageError):
            with _opened(file) as stream:
                is_tiff = stream.read(4) in TIFF_BEGINNINGS
            if is_tiff:
                raise ValueError(
                    f"{source} is a TIFF whose bands are not read: they are more than three and not said to be RGB, or"
                    f" numbers other than integers of 8 or 16 bits. {TO_8_BITS}"
                ) from error
        raise
    _refuse_unknown_range(image, source)
    return image


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


def decode_photograph(image: PIL.Image.Image, source: str) -> PIL.Image.Image:
    """
    The upright photograph, RGB, of what [`open_photograph`] has opened; see [`to_rgb`]. All that reads photographs of
    files comes here: prediction, the web page, training, evaluation and export.

    Raises:
        OSError: for a file that is broken.
    """
    with naming_errors(source):
        orientation = read_orientation(image)
        photograph = turn_upright(to_rgb(image, source), orientation)
    photograph.info = {}  # its orientation would have the next reader turn it again
    return photograph


def to_rgb(image: PIL.Image.Image, source: str = "The picture") -> PIL.Image.Image:
    """
    A picture of any mode as RGB of 8 bits.

    16 bits of grey are scaled by 1 / 257, so that 65535 becomes 255, whatever the picture holds: all pictures of a
    camera stay comparable. (Of 16-bit RGB Pillow itself keeps the upper 8 bits.) An alpha channel is dropped: a
    transparent pixel has the colour that is stored beneath. CMYK is converted without a colour profile.

    Raises:
        ValueError: for 32 bits per pixel, integers or floating point, whose range is unknown.
    """
    _refuse_unknown_range(image, source)
    if image.mode == "La":  # greys multiplied by their alpha, of a TIFF; Pillow converts them to "LA" alone
        image = image.convert("LA")
    if not image.mode.startswith("I;16"):
        return image.convert("RGB")
    # Pillow's own conversion would cut off at 255, and leave white.
    values = np.asarray(image).astype(np.uint32)
    if values.max() < 4096:
        _warn_once(
            "A 16-bit picture holds no value above 4095. As it is read, 65535 is white, so it is nearly black. If its"
            f" camera has 12 bits or fewer, scale its pictures, all by one factor. {TO_8_BITS}"
        )
    return PIL.Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def read_photograph(path: str | Path) -> PIL.Image.Image:
    """
    The upright photograph, RGB; see [`decode_photograph`].

    Raises:
        OSError: for a file that is not there, no image, or broken.
        ValueError: for one of more bands or another type of numbers than can be read.
    """
    with open_photograph(path) as file:
        return decode_photograph(file, str(path))


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


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
            exif += segment[6:]  # Pillow joins all such segments, and reads the resolution of them in `PIL.Image.open`
        elif marker == MULTI_PICTURE and segment.startswith(b"MPF\0"):
            _check_tags(BytesIO(segment[4:]))
        elif marker == START_OF_SCAN and (is_progressive or segment[:1] != components):  # else it is the only one
            _count_scans(file.read())
    _check_tags(BytesIO(exif))


def _read_segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment of a JPEG, up to the header of the first scan; `file` is behind them."""
    file.seek(2)
    byte = file.read(1)
    while byte:
        last, byte = byte, file.read(1)
        if JPEG_MARKER.match(last + byte):  # bytes between segments are passed over
            marker = byte[0]
            yield marker, file.read(max(int.from_bytes(file.read(2), "big") - 2, 0))
            if marker == START_OF_SCAN:
                break
            byte = file.read(1)


def _open_without_metadata(file: BinaryIO) -> PIL.Image.Image:
    """Open a JPEG of which `PIL.Image.open` raises an error, as it looks for the resolution in broken metadata."""
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
    # This counts too many, since metadata may hold these bytes by chance, but it is fast, and enough for most files.
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
        return  # Pillow does not read it either
    if head.startswith(b"MM\0+"):  # Pillow and libtiff, by which it decodes, would not read the same
        raise ValueError("it is a BigTIFF of the byte order MM, which is not read. Save it anew")
    offset_type, count_type, entry = ("Q", "Q", "HHQ8s") if 43 in head[2:4] else ("I", "H", "HHI4s")
    offset_size, entry_size = struct.calcsize(offset_type), struct.calcsize(order + entry)
    file.seek(struct.unpack_from(order + offset_type, head, offset_size)[0] % 2**63)
    count = int.from_bytes(file.read(struct.calcsize(count_type)), "little" if order == "<" else "big")
    # There are no more tags than these, so further entries would only replace others.
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


def _refuse_unknown_range(image: PIL.Image.Image, source: str) -> None:
    if image.mode in ("I", "F"):
        numbers = "floating-point numbers" if image.mode == "F" else "integers of 32 bits or with a sign"
        raise ValueError(f"{source} holds {numbers}, whose range is unknown. {TO_8_BITS}")
