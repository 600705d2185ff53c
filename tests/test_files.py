"""Photographs of all kinds of files, as RGB of 8 bits or refused."""

import struct
from io import BytesIO

import cv2
import numpy as np
import PIL.Image
import pytest

from modeling_denseclip.tools import files
from modeling_denseclip.tools.files import open_photograph, read_photograph, to_rgb
from training.segmentation_folder import check_pair
from training.transforms import read_image, read_mask


RAMP = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
MIN_IS_BLACK, RGB, UNSPECIFIED, FLOAT = 1, 2, 0, 3


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
    monkeypatch.setattr(files.logger, "warning_once", said.append)
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


def test_photographs_are_upright(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(RAMP[:8, :16]).save(tmp_path / "a.png", exif=exif)
    expected = np.rot90(np.rint(RAMP[:8, :16] / 257), -1)
    assert np.array_equal(np.asarray(read_photograph(tmp_path / "a.png"))[..., 0], expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_masks_of_16_bits_keep_their_ids(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    ids = np.array([[0, 255, 256], [4096, 32768, 65535]], np.uint16)
    cv2.imwrite(str(path), ids)
    for mask in ({"path": str(path), "bytes": None}, {"path": None, "bytes": path.read_bytes()}, PIL.Image.open(path)):
        assert read_mask(mask).tolist() == ids.tolist()
