# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What the fast reader of masks takes gives Pillow's values; the rest it leaves to Pillow."""

import random
import struct
import zlib
from io import BytesIO

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

from tests.test_inspect_dataset import grey_png
from training.data import png_ids
from training.data.png_ids import decode_plain_png


needs_kornia = pytest.mark.skipif(
    png_ids.decode_image_png_u8 is None, reason="needs kornia_rs, of the extra 'train'; without it Pillow reads masks"
)

PALETTE = [value for index in range(256) for value in (255 - index, 7, 200)]


def mask_of(generator: np.random.Generator, mode: str) -> PIL.Image.Image:
    """A mask of a few regions, with up to 256 ids."""
    height, width = generator.integers(1, 40, 2)
    blocks = generator.integers(0, 256, (-(-height // 5), -(-width // 7)))
    mask = PIL.Image.fromarray(np.kron(blocks, np.ones((5, 7)))[:height, :width].astype(np.uint8))
    if mode == "P":
        mask.putpalette(PALETTE)
    return mask


def saved(mask: PIL.Image.Image, **options) -> bytes:
    file = BytesIO()
    mask.save(file, "PNG", **options)
    return file.getvalue()


def png_of_filters(ids: np.ndarray, interlaced: int = 0) -> bytes:
    """A PNG by hand, whose rows take turns in the five filters of the specification. Interlaced it is of one pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def paeth(a: int, b: int, c: int) -> int:
        return min((a, b, c), key=lambda value: abs(a + b - c - value))  # of equally near ones the first

    height, width = ids.shape
    rows = bytearray()
    for y in range(height):
        rows.append(y % 5)
        for x in range(width):
            left, above = int(ids[y, x - 1]) if x else 0, int(ids[y - 1, x]) if y else 0
            corner = int(ids[y - 1, x - 1]) if x and y else 0
            predicted = (0, left, above, (left + above) // 2, paeth(left, above, corner))[y % 5]
            rows.append((int(ids[y, x]) - predicted) % 256)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def described(**texts: str) -> dict:
    info = PIL.PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key.replace("_", " "), text, zip=len(text) % 2 == 1)
    return {"pnginfo": info}


@needs_kornia
@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize(
    "options",
    [{}, {"compress_level": 1}, {"transparency": 3}, {"dpi": (72, 72)}, described(Software="x", Comment="xy")],
)
def test_plain_masks_have_the_values_of_pillow(mode, options):
    generator = np.random.default_rng(0)
    for _ in range(20):
        mask = mask_of(generator, mode)
        data = saved(mask, **options, **({"bits": 8} if mode == "P" else {}))
        ids = decode_plain_png(data)
        assert ids.dtype == np.uint8 and np.array_equal(ids, np.asarray(mask))


@needs_kornia
def test_every_filter_is_undone():
    ids = np.random.default_rng(0).integers(0, 256, (35, 23), dtype=np.uint8)
    assert np.array_equal(decode_plain_png(png_of_filters(ids)), ids)


def exif_of(orientation: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


NOT_PLAIN = {
    "few bits": grey_png([[0, 1, 2, 2]], 4),
    "indices of few bits": saved(mask_of(np.random.default_rng(0), "P"), bits=4),
    "16 bits": saved(PIL.Image.fromarray(np.full((3, 4), 1000, np.uint16))),
    "colours": saved(PIL.Image.new("RGB", (4, 3))),
    "alpha": saved(PIL.Image.new("LA", (4, 3))),
    "turned by EXIF": saved(PIL.Image.new("L", (4, 3)), exif=exif_of(6)),
    "turned by XMP": saved(PIL.Image.new("L", (4, 3)), **described(**{"XML:com.adobe.xmp": "<x/>"})),
    "turned by a text": saved(PIL.Image.new("L", (4, 3)), **described(Raw_profile_type_exif="exif")),
    "turned by a packed text": saved(PIL.Image.new("L", (4, 3)), **described(Raw_profile_type_exif="exif ")),
    "several": saved(PIL.Image.new("L", (4, 3)), save_all=True, append_images=[PIL.Image.new("L", (4, 3), 9)]),
    "interlaced": png_of_filters(np.ones((1, 1), np.uint8), interlaced=1),
    "no PNG": b"BM" + bytes(60),
    "nothing": b"",
    "a beginning": b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR",
    "cut off": saved(mask_of(np.random.default_rng(0), "L"))[:-30],
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_the_rest_is_left_to_pillow(name):
    assert decode_plain_png(NOT_PLAIN[name]) is None


@needs_kornia
def test_damaged_masks_never_get_other_values_than_from_pillow():
    generator, draw = np.random.default_rng(0), random.Random(0)
    read = 0
    for index in range(600):
        data = bytearray(saved(mask_of(generator, "LP"[index % 2]), compress_level=draw.randrange(10)))
        place, count = draw.randrange(8, len(data)), draw.randint(1, 6)
        match index % 4:
            case 0:
                data[place] ^= 1 << draw.randrange(8)
            case 1:
                del data[place:]
            case 2:
                del data[place : place + count]
            case 3:
                data[place:place] = draw.randbytes(count)
        try:
            expected = PIL.Image.open(BytesIO(data), formats=("PNG",))
            expected.load()
        except Exception:
            continue  # refused before anything is decoded, or in any case
        ids = decode_plain_png(bytes(data))
        if ids is not None:
            assert np.array_equal(ids, np.asarray(expected)), index
            read += 1
    assert read > 10
