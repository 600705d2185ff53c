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
"""Photographs that are read."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image
from PIL.ExifTags import Base
from PIL.Image import Transpose
from transformers.utils import logging


logger = logging.get_logger(__name__)

# What a file begins with that is a TIFF of either byte order, or a large one.
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TO_8_BITS = (
    "Choose one band or three, and write them with 8 bits, such as by `gdal_translate -b 3 -b 2 -b 1 -ot Byte -scale 0"
    " 4095 0 255 in.tif out.png` for values from 0 to 4095."
)
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
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])["<]')


def list_images(path: Path) -> list[Path]:
    """The photograph, or those in a folder, by name."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    return [path]


@contextmanager
def naming_errors(source: str) -> Iterator[None]:
    """
    Make what Pillow raises of a broken file an error that names it. Its readers do not say what they may raise: beside
    OSError there are SyntaxError, ValueError, TypeError, struct.error, DecompressionBombError and others.

    Raises:
        OSError: for any of these. One that names a file, such as a file that is not there, stays as it is.
    """
    try:
        yield
    except MemoryError:
        raise
    except PIL.UnidentifiedImageError as error:
        reason = f"cannot identify image file, as it is none of {', '.join(IMAGE_FORMATS)}"
        raise OSError(f"{source} cannot be read as an image: {reason}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise OSError(f"{source} cannot be read as an image: {str(error) or repr(error)}") from error


def open_image(file: str | Path | BinaryIO, source: str) -> PIL.Image.Image:
    """
    Open an image of one of `IMAGE_FORMATS`, without decoding it; `source` is what an error calls it.

    Raises:
        OSError: for a file that is not there or no such image.
    """
    with naming_errors(source):
        image = PIL.Image.open(file, formats=IMAGE_FORMATS)
    if image.format == "TIFF":
        # Pillow reads a TIFF that it can map into memory by the size of the turned picture, so that its rows break in
        # wrong places. Without a name it does not map it.
        image.filename = ""
    return image


def open_photograph(file: str | Path | BinaryIO, source: str | None = None) -> PIL.Image.Image:
    """
    Open a photograph that [`decode_photograph`] takes, without decoding it.

    Args:
        file (`str`, `Path` or `BinaryIO`): the file, or its bytes as a stream.
        source (`str`, *optional*): what an error calls it, by default by its name.

    Raises:
        OSError: for a file that is not there or no image.
        ValueError: for a TIFF that Pillow does not read, and as [`to_rgb`].
    """
    source = str(file) if source is None else source
    try:
        image = open_image(file, source)
    except OSError as error:
        if isinstance(error.__cause__, PIL.UnidentifiedImageError) and _first_bytes(file) in TIFF_BEGINNINGS:
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
    photograph.info = {}  # by which the next reader would turn it again
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
    if image.mode == "La":  # a TIFF of greys that were multiplied by their alpha, which Pillow converts to "LA" alone
        image = image.convert("LA")
    if not image.mode.startswith("I;16"):
        return image.convert("RGB")
    # Pillow's own conversion would cut off at 255, and leave white.
    values = np.asarray(image).astype(np.uint32)
    if values.max() < 4096:
        logger.warning_once(
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


def _first_bytes(file: str | Path | BinaryIO) -> bytes:
    if isinstance(file, str | Path):
        with open(file, "rb") as stream:
            return stream.read(4)
    file.seek(0)
    return file.read(4)


def _refuse_unknown_range(image: PIL.Image.Image, source: str) -> None:
    if image.mode in ("I", "F"):
        numbers = "floating-point numbers" if image.mode == "F" else "integers of 32 bits or with a sign"
        raise ValueError(f"{source} holds {numbers}, whose range is unknown. {TO_8_BITS}")
