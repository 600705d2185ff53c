"""Photographs of all kinds of files, as RGB of 8 bits or refused, and alike at every door."""

import os
import re
import socket
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.JpegImagePlugin
import pytest
from PIL.PngImagePlugin import PngInfo

from modeling_denseclip.tools.files import photographs as files
from modeling_denseclip.tools.files.photographs import naming_errors, open_photograph, read_photograph, to_rgb
from training.data.files import upright_size
from training.data.findings import UnreadableFileError, examine_pair, first_error
from training.data.transforms import read_image, read_mask
from training.run_onnx import read_picture


RAMP = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
MIN_IS_BLACK, RGB, UNSPECIFIED, FLOAT = 1, 2, 0, 3


def check_pair(*args):
    _, _, findings = examine_pair(*args)
    if (error := first_error(findings)) is not None:
        raise error


def write_tiff(path, values: np.ndarray, photometric: int, sample_format: int = 1, extra_samples=()):
    """A plain TIFF of `values`, (height, width, bands): Pillow itself writes none of such bands."""
    height, width, bands = values.shape
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    lists = {258: [8 * values.itemsize] * bands, 338: list(extra_samples), 339: [sample_format] * bands}
    tags = {256: width, 257: height, 259: 1, 262: photometric, 273: None, 277: bands, 278: height, 279: len(data)}
    tags = {tag: tags.get(tag) for tag in sorted({*tags, *(tag for tag, values in lists.items() if values)})}
    position = 8 + 2 + 12 * len(tags) + 4
    entries, behind = b"", b""
    for tag, value in tags.items():
        if tag in lists:
            packed = struct.pack(f"<{len(lists[tag])}H", *lists[tag])
            count, kind = len(lists[tag]), 3
            if len(packed) > 4:
                packed, behind = struct.pack("<I", position + len(behind)), behind + packed
        else:
            count, kind, packed = 1, 4, struct.pack("<I", 0 if value is None else value)
        entries += struct.pack("<HHI", tag, kind, count) + packed.ljust(4, b"\0")
    start = struct.pack("<HHI4s", 273, 4, 1, b"\0" * 4)
    entries = entries.replace(start, start[:8] + struct.pack("<I", position + len(behind)))
    path.write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0" * 4 + behind + data)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_of_16_bits_is_scaled_by_its_full_range(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), RAMP)
    # The trap: the library's own conversion, which is also `pipeline`'s, leaves white.
    assert (np.asarray(PIL.Image.open(path).convert("RGB")) == 255).mean() > 0.99
    expected = np.rint(RAMP / 257).astype(np.uint8)
    for picture in (
        np.asarray(read_photograph(path)),
        read_image({"path": str(path), "bytes": None}),
        read_image({"path": None, "bytes": path.read_bytes()}),
        read_image(PIL.Image.open(path)),
        read_picture(path),
    ):
        assert picture.shape == (64, 64, 3) and (picture == expected[..., None]).all()


def test_both_ends_of_16_bits_and_both_byte_orders():
    for values in (np.array([[0, 128, 129, 65535]], dtype="<u2"), np.array([[0, 128, 129, 65535]], dtype=">u2")):
        assert np.asarray(to_rgb(PIL.Image.fromarray(values)))[0, :, 1].tolist() == [0, 0, 1, 255]


def test_colour_of_16_bits_keeps_the_upper_8(tmp_path):
    """That is Pillow's doing, in all its releases that we take; here it is only held on to."""
    for suffix in (".png", ".tif"):
        cv2.imwrite(str(tmp_path / f"a{suffix}"), np.dstack([RAMP, RAMP.T, RAMP[::-1]]))
        red, green, blue = np.moveaxis(np.asarray(read_photograph(tmp_path / f"a{suffix}")), -1, 0)
        for band, values in ((red, RAMP[::-1]), (green, RAMP.T), (blue, RAMP)):
            assert np.array_equal(band, values >> 8)


def test_twelve_bits_in_sixteen_are_warned_about(monkeypatch):
    said = []
    monkeypatch.setattr(files, "_warn_once", said.append)
    to_rgb(PIL.Image.fromarray(RAMP))
    assert not said
    to_rgb(PIL.Image.fromarray(RAMP // 16))
    assert "no value above 4095" in said[0] and "-scale 0 4095 0 255" in said[0]


@pytest.mark.parametrize("values, message", [(np.float32, "floating-point"), (np.int32, "32 bits or with a sign")])
def test_numbers_of_unknown_range_are_refused(tmp_path, values, message):
    path = tmp_path / "depth.tif"
    PIL.Image.fromarray(RAMP.astype(values)).save(path)
    encoded = {"path": str(path), "bytes": None}
    for read in (
        lambda: read_photograph(path),
        lambda: read_picture(path),
        lambda: read_image(encoded),
        lambda: check_pair(encoded, encoded, f"The image {path}", "The mask", 2, False),
    ):
        with pytest.raises(ValueError, match=rf"depth\.tif holds .*{message}.*gdal_translate"):
            read()
    with pytest.raises(ValueError, match=f"The picture holds .*{message}"):
        to_rgb(PIL.Image.open(path))


@pytest.mark.parametrize(
    "bands, dtype, arguments",
    [
        (2, np.uint8, (MIN_IS_BLACK,)),
        (4, np.uint8, (MIN_IS_BLACK,)),
        (5, np.uint8, (MIN_IS_BLACK,)),
        (6, np.uint16, (MIN_IS_BLACK,)),
        (3, np.float32, (RGB, FLOAT)),
    ],
)
def test_bands_that_are_not_said_to_be_rgb_are_refused(tmp_path, bands, dtype, arguments):
    path = tmp_path / "satellite.tif"
    write_tiff(path, np.zeros((3, 4, bands), dtype), *arguments)
    with pytest.raises(ValueError, match=r"satellite\.tif is a TIFF whose bands are not read.*gdal_translate -b 3"):
        read_photograph(path)
    for encoded in ({"path": str(path), "bytes": None}, {"path": None, "bytes": path.read_bytes()}):
        with pytest.raises(ValueError, match="The image of row 3 is a TIFF whose bands"):
            check_pair(encoded, encoded, "The image of row 3", "The mask", 2, False)


def test_of_a_tiff_that_is_said_to_be_rgb_the_first_three_bands_are_read(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    for extra_samples in ((UNSPECIFIED,), ()):  # as infra-red, and as nothing at all
        write_tiff(tmp_path / "a.tif", values, RGB, extra_samples=extra_samples)
        assert np.array_equal(np.asarray(read_photograph(tmp_path / "a.tif")), values[..., :3])


def test_other_modes():
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    alpha = PIL.Image.fromarray(picture)
    assert np.array_equal(np.asarray(to_rgb(alpha)), picture[..., :3])  # whatever the alpha
    grey = PIL.Image.fromarray(picture[..., 0])
    for image in (grey, PIL.Image.merge("LA", (grey, grey))):
        assert np.array_equal(np.asarray(to_rgb(image)), picture[..., [0, 0, 0]])
    palette = grey.convert("P")
    colours = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    palette.putpalette(colours.tobytes())
    assert np.array_equal(np.asarray(to_rgb(palette)), colours[np.asarray(palette)])
    cyan, magenta, yellow, key = (picture[..., band].astype(int) for band in range(4))
    inks = PIL.Image.frombytes("CMYK", (8, 6), picture.tobytes())
    for band, ink in enumerate((cyan, magenta, yellow)):
        expected = (255 - ink) * (255 - key) / 255  # each ink, and black, take their share of the light
        assert np.abs(np.asarray(to_rgb(inks))[..., band] - expected).max() <= 1


def test_a_file_that_is_no_image_is_an_os_error(tmp_path):
    (tmp_path / "a.tif").write_text("no image")
    for file in (tmp_path / "a.tif", tmp_path / "none.png"):
        with pytest.raises(OSError):
            read_photograph(file)
    with pytest.raises(OSError):
        open_photograph(BytesIO(b"no image"))


# ------------------------------------------------------------------------------------------------------- orientation

# What turns an array upright, by the table of the EXIF standard: where its row 0 and its column 0 lie.
TURNED = {
    1: lambda pixels: pixels,  # at the top, at the left
    2: lambda pixels: pixels[:, ::-1],  # at the top, at the right
    3: lambda pixels: pixels[::-1, ::-1],  # at the bottom, at the right
    4: lambda pixels: pixels[::-1],  # at the bottom, at the left
    5: lambda pixels: pixels.swapaxes(0, 1),  # at the left, at the top
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],  # at the right, at the top
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],  # at the right, at the bottom
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],  # at the left, at the bottom
}
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
SHORT, LONG, BYTE, ASCII, SIGNED_LONG, FLOAT_NUMBER, UNDEFINED = 3, 4, 1, 2, 9, 11, 7


def exif_of(kind: int, count: int, value: bytes, other: bytes = b"") -> bytes:
    """EXIF with the tag of the orientation, as any type, behind another tag of 12 bytes if there is one."""
    entries = other + struct.pack("<HHI4s", 0x0112, kind, count, value)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries) // 12) + entries + b"\0" * 4


ONE_BYTE_PER_INCH = struct.pack("<HHI4sHHI4s", 0x0128, SHORT, 1, b"\2\0\0\0", 0x011A, BYTE, 1, b"\1\0\0\0")


def xmp_of(orientation: int, as_element: bool = False) -> bytes:
    inside = ("", f"<tiff:Orientation>{orientation}</tiff:Orientation>")
    if not as_element:
        inside = (f' tiff:Orientation="{orientation}"', "")
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"{inside[0]}>{inside[1]}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def write_jpeg(path, pixels: np.ndarray, exif: bytes = b"", xmp: bytes = b"", **options):
    """Metadata is put in by hand: not every release of Pillow writes it, or writes it as it is given."""
    file = BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=90, **options)
    segments = b""
    for data in (exif, b"http://ns.adobe.com/xap/1.0/\0" + xmp if xmp else b""):
        segments += b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data if data else b""
    path.write_bytes(b"\xff\xd8" + segments + file.getvalue()[2:])


def write_png(path, pixels: np.ndarray, exif: bytes = b"", xmp: bytes = b""):
    info = PngInfo()
    if xmp:
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    PIL.Image.fromarray(pixels).save(path, "PNG", pnginfo=info, **({"exif": exif} if exif else {}))


def check_all_doors(path, expected: np.ndarray):
    """Every reader of photographs gives these pixels, and what checks sizes looks at the same picture."""
    encoded = {"path": str(path), "bytes": None}
    for name, found in {
        "prediction": np.asarray(read_photograph(path)),
        "training, from a file": read_image(encoded),
        "training, from bytes": read_image({"path": None, "bytes": path.read_bytes()}),
        "run_onnx.py": read_picture(path),
    }.items():
        assert found.dtype == np.uint8 and np.array_equal(found, expected), name
    with open_photograph(path) as picture:
        assert upright_size(picture) == expected.shape[:2]
    image, _, _ = examine_pair(encoded, None, "The image", "The mask", 2, False)
    assert image.size == expected.shape[1::-1]


def stored(path) -> np.ndarray:
    """The pixels of a file as they lie in it."""
    with PIL.Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("write", [write_jpeg, write_png])
def test_photographs_are_upright_by_exif_and_by_xmp(tmp_path, write, orientation):
    path, other = tmp_path / "a.jpg", 1 + orientation % 8
    by_exif = exif_of(SHORT, 1, struct.pack("<I", orientation))
    for metadata in (
        {"exif": by_exif},
        {"xmp": xmp_of(orientation)},
        {"xmp": xmp_of(orientation, as_element=True)},
        {"xmp": xmp_of(orientation).replace(b'"', b"'")},  # as ExifTool writes it
        {"xmp": xmp_of(orientation).replace(b"=", b" = ")},
        {"xmp": xmp_of(orientation, as_element=True).replace(b"%d<" % orientation, b"\n%d\n<" % orientation)},
        {"exif": by_exif, "xmp": xmp_of(other)},  # EXIF comes first
    ):
        write(path, PIXELS, **metadata)
        check_all_doors(path, TURNED[orientation](stored(path)))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_turned_jpegs_of_every_mode(tmp_path, mode, progressive):
    path = tmp_path / "a.jpg"
    pixels = PIXELS[..., 0] if mode == "L" else PIXELS
    if mode == "CMYK":
        PIL.Image.fromarray(PIXELS).convert("CMYK").save(path, exif=exif_of(SHORT, 1, b"\6\0\0\0"))
    else:
        write_jpeg(path, pixels, exif_of(SHORT, 1, b"\6\0\0\0"), progressive=progressive)
    check_all_doors(path, TURNED[6](stored(path)))


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(
    "suffix, options",
    [(".png", {}), (".tif", {}), (".tif", {"compression": "tiff_lzw"}), (".webp", {"lossless": True})],
)
def test_turned_pictures_of_other_formats(tmp_path, suffix, options, orientation):
    exif, path = PIL.Image.Exif(), tmp_path / f"a{suffix}"
    exif[0x0112] = orientation
    PIL.Image.fromarray(PIXELS).save(path, exif=exif, **options)
    check_all_doors(path, TURNED[orientation](PIXELS))
    if suffix != ".webp":
        grey = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 67
        for values, expected in ((grey, np.rint(grey / 257).astype(np.uint8)), (PIXELS[..., 0], PIXELS[..., 0])):
            PIL.Image.fromarray(values).save(path, exif=exif, **options)
            check_all_doors(path, TURNED[orientation](expected[..., None].repeat(3, axis=2)))
            encoded = {"path": str(path), "bytes": None}
            assert np.array_equal(read_mask(encoded), TURNED[orientation](values))


def test_turned_tiffs_by_xmp(tmp_path):
    PIL.Image.fromarray(PIXELS).save(tmp_path / "a.tif", tiffinfo={700: xmp_of(8)})
    check_all_doors(tmp_path / "a.tif", TURNED[8](PIXELS))


@pytest.mark.parametrize(
    "exif, orientation",
    [
        (exif_of(LONG, 1, b"\6\0\0\0"), 6),
        (exif_of(FLOAT_NUMBER, 1, struct.pack("<f", 6)), 6),
        (exif_of(SHORT, 1, b"\0\0\0\0"), 1),
        (exif_of(SHORT, 1, b"\x09\0\0\0"), 1),
        (exif_of(SHORT, 0, b"\6\0\0\0"), 1),
        (exif_of(BYTE, 1, b"\6\0\0\0"), 1),
        (exif_of(ASCII, 2, b"6\0\0\0"), 1),
        (exif_of(UNDEFINED, 4, b"\6\0\0\0"), 1),
        (exif_of(SIGNED_LONG, 1, struct.pack("<i", -6)), 1),
        (b"Exif\0\0no EXIF at all", 1),
        (b"Exif\0\0II*\0", 1),
        # The width of the picture as text: Pillow cannot write it anew.
        (exif_of(SHORT, 1, b"\6\0\0\0", other=struct.pack("<HHI4s", 0x0100, ASCII, 4, b"ABC\0")), 6),
        # A resolution of one byte: Pillow looks for its second number as it opens a JPEG.
        (exif_of(SHORT, 1, b"\6\0\0\0", other=ONE_BYTE_PER_INCH), 6),
    ],
)
@pytest.mark.parametrize("write", [write_jpeg, write_png])
def test_orientations_of_odd_types_are_read_alike(tmp_path, write, exif, orientation):
    write(tmp_path / "a.jpg", PIXELS)
    pixels = stored(tmp_path / "a.jpg")
    write(tmp_path / "a.jpg", PIXELS, exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, on such metadata
        check_all_doors(tmp_path / "a.jpg", TURNED[orientation](pixels))


def test_a_list_of_pictures_that_cannot_be_read_is_passed_over(tmp_path, monkeypatch):
    """As it stands in the JPEGs of some cameras; its reader may raise anything."""
    path = tmp_path / "a.jpg"
    write_jpeg(path, PIXELS, exif_of(SHORT, 1, b"\6\0\0\0"))
    data, expected = path.read_bytes(), TURNED[6](stored(path))
    path.write_bytes(data[:2] + b"\xff\xe2\0\x10MPF\0II*\0\x08\0\0\0\0\0" + data[2:])

    def fail(file):
        raise OverflowError

    def find(file):
        return fail(file) if "mp" in file.info else None

    monkeypatch.setattr(PIL.JpegImagePlugin, "_getmp", find)
    with pytest.raises(OverflowError):
        PIL.Image.open(path)
    check_all_doors(path, expected)


@pytest.mark.filterwarnings("ignore")
def test_random_metadata_never_stops_a_reader(tmp_path):
    """1,200 photographs whose EXIF or XMP was hit by chance: the pixels are whole, so each is read, and alike."""
    generator, path = np.random.default_rng(0), tmp_path / "a.jpg"
    turned = 0
    for index in range(1200):
        exif = exif_of(SHORT, 1, b"\6\0\0\0", other=struct.pack("<HHI4s", 0x0100, LONG, 1, b"\x28\0\0\0"))
        exif, xmp = bytearray(exif), bytearray(xmp_of(6))
        for data in (exif, xmp):
            for _ in range(generator.integers(0, 4)):
                data[generator.integers(6, len(data))] = generator.integers(0, 256)
        write_jpeg(path, PIXELS, bytes(exif), bytes(xmp) if index % 2 else b"")
        pictures = [np.asarray(read_photograph(path)), read_image({"path": str(path), "bytes": None})]
        pictures.append(read_picture(path))
        assert all(np.array_equal(picture, pictures[0]) for picture in pictures), index
        turned += pictures[0].shape[0] == PIXELS.shape[1]
    assert 100 < turned < 1100  # so both happen


def test_a_photograph_that_was_read_is_not_turned_again(tmp_path):
    """A pipeline of Transformers turns what it is given."""
    write_jpeg(tmp_path / "a.jpg", PIXELS, exif_of(SHORT, 1, b"\6\0\0\0"), xmp_of(6))
    photograph = read_photograph(tmp_path / "a.jpg")
    assert np.array_equal(np.asarray(PIL.ImageOps.exif_transpose(photograph)), np.asarray(photograph))


# -------------------------------------------------------------------------------------------------- errors and masks


@pytest.mark.parametrize(
    "error", [struct.error("bad"), KeyError("bad"), TypeError("bad"), ValueError("bad"), EOFError()]
)
def test_whatever_a_reader_raises_names_the_file(error):
    with pytest.raises(OSError, match=r"a\.tif cannot be read as an image: .*(bad|EOFError)"), naming_errors("a.tif"):
        raise error
    error = FileNotFoundError(2, "No such file", "b.tif")  # says a name itself
    with pytest.raises(FileNotFoundError) as raised, naming_errors("a.tif"):
        raise error
    assert raised.value is error
    with pytest.raises(MemoryError, match=r"a\.tif needs more memory than there is"), naming_errors("a.tif"):
        raise MemoryError


@pytest.mark.parametrize("form", ["GIF", "ICO"])
def test_other_formats_are_no_photographs_and_no_masks(tmp_path, form):
    """Whatever they are named: other readers of Pillow are many, and one starts another program."""
    path = tmp_path / "a.png"
    PIL.Image.fromarray(PIXELS[:16, :16, 0]).convert("P").save(path, form)
    encoded = {"path": str(path), "bytes": None}
    for read in (read_photograph, read_picture, lambda path: read_image(encoded), lambda path: read_mask(encoded)):
        with pytest.raises(OSError, match="cannot identify image file"):
            read(path)


def _as_bytes(form: str, **options) -> bytes:
    stream = BytesIO()
    PIL.Image.fromarray(PIXELS[:16, :16]).save(stream, form, **options)
    return stream.getvalue()


STRANGERS = {
    "nothing": (b"", "an empty file"),
    "a copy that broke off": (bytes(4096), "zeros, as a copy that broke off leaves"),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n",
        "a pointer of Git LFS .* `git lfs pull`",
    ),
    "line ends of Unix": (_as_bytes("PNG").replace(b"\r\n", b"\n"), "a PNG whose line ends were rewritten"),
    "line ends of Windows": (_as_bytes("PNG").replace(b"\n", b"\r\n"), "a PNG whose line ends were rewritten"),
    "text": (_as_bytes("PNG").decode(errors="replace").encode(), "a PNG that was read and saved as a text"),
    "a page": (b"\n <!DOCTYPE html>\n<html><title>404</title></html>", "a page of HTML"),
    "a page with a mark": (b"\xef\xbb\xbf<html lang=en>", "a page of HTML"),
    "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG"),
    "GIF": (_as_bytes("GIF"), "a GIF"),
    "PDF": (_as_bytes("PDF"), "a PDF"),
    "PSD": (b"8BPS\0\1" + bytes(20), r"a file of Photoshop \(PSD\)"),
    "HEIC": (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(40), "a HEIC"),
    "HEIC of another brand": (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic" + bytes(40), "a HEIC"),
    "AVIF": (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf" + bytes(40), "an AVIF"),
    "AVIF of another brand": (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif" + bytes(40), "an AVIF"),
    "MP4": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(40), "a video"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "a JPEG 2000"),
    "JPEG 2000 without its box": (b"\xff\x4f\xff\x51" + bytes(40), "a JPEG 2000"),
    "a PNG that is broken": (_as_bytes("PNG")[:8] + bytes(40), "it begins as a PNG, and is broken"),
    "a JPEG that is broken": (b"\xff\xd8\xff\xe0" + bytes(40), "it begins as a JPEG, and is broken"),
    "something": (b"\x01\x02\x03 of no format", "none of BMP, JPEG, PNG, TIFF, WEBP$"),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_file_that_is_no_picture_is_named_with_its_cause(kind, tmp_path):
    content, cause = STRANGERS[kind]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    streamed = {"path": None, "bytes": content}
    for read in (
        lambda: read_photograph(path),
        lambda: read_picture(path),
        lambda: read_image(streamed),
        lambda: read_mask(streamed),
        lambda: open_photograph(BytesIO(content), "The upload"),
    ):
        with pytest.raises(OSError, match=cause) as caught:
            read()
        assert "object at" not in str(caught.value)


def test_masks_whose_ids_a_reader_changes_are_refused(tmp_path):
    path, ids = tmp_path / "a.png", np.full((16, 16), 7, np.uint8)
    PIL.Image.fromarray(ids).save(path, "JPEG")
    for mask, name in (({"path": str(path), "bytes": None}, f"The mask {path}"), (PIL.Image.open(path), "The mask")):
        said = re.escape(f"{name} is a JPEG, whatever its name says, and its compression")
        with pytest.raises(ValueError, match=said):
            read_mask(mask)
    white_is_zero = 0
    write_tiff(path, ids[..., None], white_is_zero)
    assert np.asarray(PIL.Image.open(path))[0, 0] == 255 - 7  # the trap
    with pytest.raises(ValueError, match="is a greyscale TIFF in which 0 is white"):
        read_mask({"path": str(path), "bytes": None})
    write_tiff(path, ids[..., None], MIN_IS_BLACK)
    assert (read_mask({"path": str(path), "bytes": None}) == 7).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_masks_of_16_bits_keep_their_ids(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    ids = np.array([[0, 255, 256], [4096, 32768, 65535]], np.uint16)
    cv2.imwrite(str(path), ids)
    for mask in ({"path": str(path), "bytes": None}, {"path": None, "bytes": path.read_bytes()}, PIL.Image.open(path)):
        assert read_mask(mask).tolist() == ids.tolist()


# -------------------------------------------------------------------------- what costs more than its pixels are worth


def refuse_at_all_doors(path, words: str):
    """Every reader of photographs and of masks says these words of the file, and decodes nothing."""
    encoded = {"path": str(path), "bytes": None}
    for read in (read_photograph, read_picture, lambda path: read_image(encoded), lambda path: read_mask(encoded)):
        with pytest.raises(OSError, match=words):
            read(path)
    _, _, findings = examine_pair(encoded, encoded, "The image", "The mask", 2, False)
    assert len(findings) == 2 and all(words in finding.said for finding in findings)
    with pytest.raises(UnreadableFileError, match=words):
        check_pair(encoded, encoded, "The image", "The mask", 2, False)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: socket.socket(socket.AF_UNIX).bind(str(path))])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    make("a.png")
    refuse_at_all_doors(Path("a.png"), "it is no regular file, but a named pipe, a socket or a device")


def test_devices_and_folders_are_no_pictures(tmp_path):
    for path in (Path("/dev/zero"), Path("/dev/null")):
        refuse_at_all_doors(path, "it is no regular file")
    (tmp_path / "a.png").mkdir()
    refuse_at_all_doors(tmp_path / "a.png", "Is a directory")


def tiff_of(tags, data: bytes, kinds=(), head: bytes = b"II*\0") -> bytes:
    """A little-endian TIFF of `(tag, value)`, all LONG but for `kinds`; 273 and 324 get the place of `data`."""
    start = 8 + 2 + 12 * len(tags) + 4
    kinds = dict(kinds)
    entries = [
        struct.pack("<HHII", tag, kinds.get(tag, LONG), 1, start if tag in (273, 324) else value)
        for tag, value in tags
    ]
    return head + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4) + data


GREY_8 = [(258, 8), (259, 8), (262, 1), (277, 1)]  # deflated


def tiled(width: int, height: int, more=(), kinds=()) -> bytes:
    data = zlib.compress(bytes(4096))
    sizes = [(256, 100), (257, 100), (322, width), (323, height), *more]
    return tiff_of([*sizes, *GREY_8, (324, 0), (325, len(data))], data, kinds)


def test_tiles_that_are_larger_than_the_picture_are_counted(tmp_path):
    path = tmp_path / "a.png"
    for width, height in ((30_000, 30_000), (2**31, 16), (16, 2**20 * 112)):
        path.write_bytes(tiled(width, height))
        refuse_at_all_doors(path, f"tiles of {max(width, 100)} x {max(height, 100)} pixels exceed the limit")
    path.write_bytes(tiled(112, 112))  # no bomb, but too few bytes
    with pytest.raises(OSError, match="cannot be read as an image: (?!.*limit)"):
        read_photograph(path)


@pytest.mark.parametrize(
    "data",
    [
        tiled(30_000, 30_000, more=[(322, 112), (323, 112)]),  # of two values libtiff takes the first, Pillow the last
        tiled(30_000, 30_000, kinds=[(322, 13)]),
        tiled(30_000, 30_000, kinds=[(323, 17)]),
        tiff_of([(256, 100), (257, 100), (257, 2**30), *GREY_8, (273, 0), (278, 2**30), (279, 8)], bytes(8)),
        b"MM\0+" + tiled(30_000, 30_000)[4:],
    ],
)
def test_a_size_that_two_readers_understand_in_two_ways_is_refused(tmp_path, data):
    (tmp_path / "a.tif").write_bytes(data)
    refuse_at_all_doors(tmp_path / "a.tif", "Save it anew")


def jpeg_of_scans(scans: int, progressive: bool = True, between: bytes = b"") -> bytes:
    """A JPEG whose last scan is repeated until there are so many."""
    file = BytesIO()
    if progressive:
        PIL.Image.fromarray(PIXELS[..., 0]).save(file, "JPEG", progressive=True)
        data = file.getvalue()[:-2]
    else:
        # One scan for each of three components: a header of four bytes and of two per component, and three numbers.
        PIL.Image.fromarray(PIXELS).save(file, "JPEG", subsampling=0)
        data = file.getvalue()[:-2]
        place = data.rindex(b"\xff\xda")
        for component in (1, 2, 3):
            data = data[:place] if component == 1 else data
            data += b"\xff\xda\0\x08\1" + bytes([component, 0, 0, 63, 0]) + b"\0"
    last = data[data.rindex(b"\xff\xda") :]
    return data + between + last * (scans - data.count(b"\xff\xda")) + b"\xff\xd9"


@pytest.mark.parametrize("progressive", [True, False])
def test_scans_of_a_jpeg_are_counted_before_they_are_decoded(tmp_path, progressive):
    path = tmp_path / "a.png"
    segment = b"\xff\xe5\0\x06\xff\xd9\xff\xd9"  # in which the end of the image is none
    for data in (jpeg_of_scans(101, progressive), jpeg_of_scans(5000, progressive, between=segment)):
        path.write_bytes(data)
        refuse_at_all_doors(path, "it is a JPEG of more than 100 scans")
        path.write_bytes(data[:20] + b"between segments \xff\xff" + data[20:])
        refuse_at_all_doors(path, "it is a JPEG of more than 100 scans")
    path.write_bytes(jpeg_of_scans(100, progressive))
    assert np.array_equal(np.asarray(read_photograph(path)), stored(path))


def test_what_only_looks_like_scans_is_not_counted(tmp_path):
    """In metadata, behind the image, and in the one scan of a baseline JPEG, whose header says that it is the only."""
    marks, path = b"\xff\xda" * 200, tmp_path / "a.jpg"
    segment = b"\xff\xe5" + struct.pack(">H", len(marks) + 2) + marks
    for progressive in (True, False):
        write_jpeg(path, PIXELS, progressive=progressive)
        data = path.read_bytes()
        expected = read_photograph(path)
        for changed in (data[:2] + segment + data[2:], data[:-2] + segment + b"\xff\xd9", data + marks):
            path.write_bytes(changed)
            check_all_doors(path, np.asarray(expected))


def tags_of_the_same_bytes(number: int, size: int) -> bytes:
    """Tags that all name the same bytes, as EXIF with an orientation has them."""
    start = 8 + 2 + 12 * (number + 1) + 4
    entries = [struct.pack("<HHI4s", 0x0112, SHORT, 1, b"\6\0\0\0")]
    entries += [struct.pack("<HHII", 40_000 + tag, UNDEFINED, size, start) for tag in range(number)]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4) + bytes(size)


def test_tags_that_are_copied_many_times_are_refused(tmp_path):
    path, tags = tmp_path / "a.jpg", tags_of_the_same_bytes(20_000, 200_000)  # 4 GB of copies
    parts = [b"Exif\0\0" + tags[start : start + 65_000] for start in range(0, len(tags), 65_000)]
    exif = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)
    mpf = tags_of_the_same_bytes(2000, 40_000)
    for segments in (exif, b"\xff\xe2" + struct.pack(">H", len(mpf) + 6) + b"MPF\0" + mpf):
        write_jpeg(path, PIXELS)
        path.write_bytes(b"\xff\xd8" + segments + path.read_bytes()[2:])
        refuse_at_all_doors(path, "its metadata takes")
    path.write_bytes(tags_of_the_same_bytes(20_000, 200_000))
    refuse_at_all_doors(path, "its metadata takes")


def test_metadata_that_is_read_for_the_orientation_alone_is_passed_over(tmp_path, monkeypatch):
    """As all that cannot be read: the pixels are as good as without it."""
    copied, load = [], PIL.Image.Exif.load
    monkeypatch.setattr(PIL.Image.Exif, "load", lambda self, data: copied.append(len(data)) or load(self, data))
    tags = tags_of_the_same_bytes(20_000, 200_000)
    hexadecimal = PngInfo()
    hexadecimal.add_text("Raw profile type exif", f"\nexif\n{len(tags)}\n{tags.hex()}", zip=True)
    for suffix, options in ((".png", {"exif": tags}), (".webp", {"exif": tags, "lossless": True}), (".png", {})):
        path = tmp_path / f"a{suffix}"
        PIL.Image.fromarray(PIXELS).save(path, **(options or {"pnginfo": hexadecimal}))
        del copied[:]
        check_all_doors(path, PIXELS)
        assert not copied
