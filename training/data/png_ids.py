# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The ids in a plain PNG, which most masks are, in a fifth of the time that Pillow takes: a mask of twelve megapixels
takes Pillow as long as half of its photograph. `kornia_rs` decodes it, in Rust.

What is no plain PNG, broken, or stands where `kornia_rs` is not installed, is left to Pillow, which has an error for
each fault.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from modeling_denseclip.tools.files.photographs import PNG_SIGNATURE


try:
    from kornia_rs.io import decode_image_png_u8
except ImportError:
    decode_image_png_u8 = None

GREY, PALETTE = 0, 3  # colour types of one byte per pixel
# Metadata that may say how a mask is turned, and pictures that move. Readers that look for these decode the whole file
# first, as they may stand behind the pixels.
METADATA = (b"eXIf", b"acTL")
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
ORIENTING_TEXTS = (b"XML:com.adobe.xmp\0", b"xmp\0", b"Raw profile type exif\0")


def decode_plain_png(data: bytes) -> np.ndarray | None:
    """
    The values of a PNG of 8 bits, greyscale or indices of a palette: an array of shape `(height, width)` and type
    uint8. `None` for any other file, for one that may have to be turned, and for one that is broken.
    """
    if decode_image_png_u8 is None or not data.startswith(PNG_SIGNATURE + b"\0\0\0\x0dIHDR"):
        return None
    width, height, bits, colour_type, _, _, interlaced = struct.unpack_from(">IIBBBBB", data.ljust(33), 16)
    if bits != 8 or colour_type not in (GREY, PALETTE) or interlaced or _may_be_turned(data):
        return None
    with suppress(Exception):  # whatever it says of a broken file: Pillow reads it, or tells what is wrong
        return decode_image_png_u8(data, (height, width), "mono")[..., 0]
    return None


def _may_be_turned(data: bytes) -> bool:
    for name, content in _iterate_chunks(data):
        if name in METADATA or (name in TEXTS and data.startswith(ORIENTING_TEXTS, content)):
            return True
    return False


def _iterate_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Name of each chunk of a PNG, and where its content begins."""
    place = len(PNG_SIGNATURE)
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        yield name, place + 8
        place += length + 12  # its length, name and checksum
