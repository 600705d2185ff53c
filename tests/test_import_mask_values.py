# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What single masks store, against files that are written byte by byte, and what the masks of a data set mean."""

import contextlib
import os
import pickle
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.importing.mask_values import (
    DOUBTFUL,
    MaskReading,
    decide_reading,
    draw_mask,
    draw_parts,
    read_values,
    scan_masks,
)
from training.importing.sources import UNCOVERED


VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
PIXELS = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 1], [0, 0, 1, 1, 0]])


def key_of(colour):
    red, green, blue = colour
    return 256 * (256 * red + green) + blue


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def write_png(path, rows, bits, colour_type=0, palette=None, transparency=None):
    """A PNG as its specification has it: samples of `bits`, from the left in each byte, rows padded to whole bytes."""
    lines = b""
    for row in rows:
        text = "".join(f"{value:0{bits}b}" for value in np.ravel(row))
        text += "0" * (-len(text) % 8)
        lines += b"\0" + bytes(int(text[start : start + 8], 2) for start in range(0, len(text), 8))
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    chunks += [] if palette is None else [(b"PLTE", bytes(np.ravel(palette).tolist()))]
    chunks += [] if transparency is None else [(b"tRNS", bytes(transparency))]
    chunks += [(b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*pair) for pair in chunks))
    return path


def save(path, array, mode=None, **kwargs):
    picture = Image.fromarray(np.asarray(array))
    (picture if mode is None else picture.convert(mode)).save(path, **kwargs)
    return path


def draw(paths, reading=None):
    reading = reading or decide_reading(scan_masks(paths))
    return [draw_mask(read_values(path).size, path, reading) for path in paths]


def scenes(number, colours, size=(97, 131), seed=0, width=None):
    """Rectangles and ellipses of different ids, drawn by Pillow; the ids, and the same in colours."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        picture = Image.new("L", size[::-1])
        pen = ImageDraw.Draw(picture)
        for index in range(12):
            left, top = generator.integers(0, size[1]), generator.integers(0, size[0])
            across, down = generator.integers(8, 60, 2)
            box = [left, top, left + across, top + down]
            (pen.rectangle if index % 2 else pen.ellipse)(box, fill=int(generator.integers(len(colours))))
        if width is not None:
            pen.line([0, 0, *generator.integers(40, 90, 2).tolist()], fill=1, width=width)
        found.append(np.asarray(picture))
    return found


# ------------------------------------------------------------------------------------------------------------ one file


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_pngs_give_the_numbers_that_they_store(tmp_path, bits):
    rows = np.random.default_rng(bits).integers(0, 2**bits, (5, 7)).tolist()
    mask = read_values(write_png(tmp_path / "a.png", rows, bits))
    assert mask.values.tolist() == rows and mask.bits == bits and not mask.is_lossy and not mask.palette
    assert mask.values.dtype == np.int32 and mask.size == (5, 7)
    assert mask.form == f"grey PNG of {bits} bit{'s' * (bits > 1)}"


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_pngs_give_indices_and_colours(tmp_path, bits):
    num_colours = min(2**bits, 9)
    palette = [(3 * index, 200 - index, 7) for index in range(num_colours)]
    rows = np.random.default_rng(bits).integers(0, num_colours, (5, 9)).tolist()
    path = write_png(tmp_path / "a.png", rows, bits, 3, palette, transparency=[1, 0])
    mask = read_values(path)
    assert mask.values.tolist() == rows and mask.form.startswith("palette PNG")
    colours = [key_of(colour) for colour in palette]
    colours[1] = UNCOVERED
    assert [mask.palette[index] for index in range(num_colours)] == colours
    assert draw([path], MaskReading(are_colours=False))[0].keys.tolist() == rows
    expected = [[colours[value] for value in row] for row in rows]
    assert draw([path], MaskReading(are_colours=True))[0].keys.tolist() == expected


@pytest.mark.parametrize("colour_type, channels", [(2, 3), (6, 4)])
def test_colour_pngs_give_colours_and_transparent_pixels_are_uncovered(tmp_path, colour_type, channels):
    rows = np.random.default_rng(0).integers(0, 256, (3, 5, channels))
    if channels == 4:
        rows[..., 3] = [[0, 1, 255, 0, 9]] * 3
    path = write_png(tmp_path / "a.png", rows.tolist(), 8, colour_type)
    mask = read_values(path)
    assert mask.values.tolist() == rows[..., :3].tolist() and mask.values.dtype == np.uint8
    expected = [[key_of(pixel[:3]) if channels == 3 or pixel[3] else -1 for pixel in row] for row in rows.tolist()]
    assert draw([path], MaskReading(are_colours=True))[0].keys.tolist() == expected


@pytest.mark.parametrize("colour_type, channels", [(2, 3), (4, 2), (6, 4)])
def test_several_channels_of_16_bits_are_refused(tmp_path, colour_type, channels):
    """Pillow would keep the upper half of each number, by which small ids all become 0."""
    path = write_png(tmp_path / "a.png", np.ones((2, 3, channels), int).tolist(), 16, colour_type)
    with pytest.raises(ValueError, match=r"a\.png has 16 bits for each of several channels"):
        read_values(path)


@pytest.mark.parametrize("suffix, kwargs", [("png", {}), ("tif", {}), ("bmp", {}), ("webp", {"lossless": True})])
def test_formats_without_a_loss_give_what_pillow_saved(tmp_path, suffix, kwargs):
    colours = np.array(VOC, np.uint8)[PIXELS * 3]
    path = save(tmp_path / f"a.{suffix}", colours, **kwargs)
    mask = read_values(path)
    assert mask.values.tolist() == colours.tolist() and not mask.is_lossy


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_one_bit_is_0_and_1(tmp_path, suffix):
    mask = read_values(save(tmp_path / f"a.{suffix}", PIXELS.astype(np.uint8) * 255, "1"))
    assert mask.values.tolist() == PIXELS.tolist()


def test_numbers_of_more_bits_in_tiff(tmp_path):
    for dtype in (np.uint16, np.int32, np.float32):
        path = save(tmp_path / "a.tif", (PIXELS * 300).astype(dtype))
        assert read_values(path).values.tolist() == (PIXELS * 300).tolist()
    numbers = PIXELS.astype(np.float32)
    numbers[0, 0] = np.nan
    assert read_values(save(tmp_path / "a.tif", numbers)).values[0].tolist() == [-1, 1, 1, 0, 1]
    with pytest.raises(ValueError, match=r"a\.tif holds 0\.5\. Ids are whole numbers"):
        read_values(save(tmp_path / "a.tif", numbers / 2))


def test_grey_with_alpha(tmp_path):
    pixels = np.stack([PIXELS * 9, [[255, 0, 3, 255, 255]] * 3], axis=-1).astype(np.uint8)
    path = save(tmp_path / "a.png", pixels)
    assert draw([path])[0].keys.tolist() == [[0, -1, 9, 0, 9], [9, -1, 0, 9, 9], [0, -1, 9, 9, 0]]


@pytest.mark.parametrize("suffix, kwargs", [("jpg", {"quality": 95}), ("webp", {"quality": 80})])
def test_lossy_formats_are_known(tmp_path, suffix, kwargs):
    mask = read_values(save(tmp_path / f"a.{suffix}", np.zeros((16, 16, 3), np.uint8), **kwargs))
    assert mask.is_lossy and mask.form.startswith("lossy")


@pytest.mark.parametrize("orientation, turned", [(3, np.rot90(PIXELS, 2)), (6, np.rot90(PIXELS, -1))])
def test_masks_are_turned_as_exif_says(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask = read_values(save(tmp_path / "a.png", PIXELS.astype(np.uint8), exif=exif))
    assert mask.values.tolist() == turned.tolist()


def test_grey_in_which_0_is_white_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(PIXELS.astype(np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<HHI", 262, 3, 1))  # an entry is a tag, the type of its value, and their number
    content[place + 8] = 0
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tif is a greyscale TIFF in which 0 is white"):
        read_values(path)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, ">u2"])
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (1, 3, 5)])
def test_numpy_files(tmp_path, dtype, shape):
    np.save(tmp_path / "a.npy", PIXELS.reshape(shape).astype(dtype))
    assert read_values(tmp_path / "a.npy").values.tolist() == PIXELS.tolist()


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((2, 3, 4)), r"has the shape \(2, 3, 4\)"),
        (np.zeros((2, 3, 3)), r"has the shape \(2, 3, 3\)"),
        (np.full((2, 2), 0.25), "holds 0.25. Ids are whole numbers"),
        (np.full((2, 2), np.inf), "which is no id"),
        (np.full((2, 2), 2**40), "holds 1099511627776, which is no id"),
        (np.full((2, 2), "a"), "no numbers"),
        (np.zeros((0, 2)), "none, or too many"),
        (np.array([[{}]]), "no array of NumPy that can be read"),
        (np.zeros((2, 2), complex), "no numbers"),
    ],
)
def test_numpy_files_that_are_no_masks(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=f"The mask .*a.npy .*{words}"):
        read_values(tmp_path / "a.npy")


def test_a_numpy_header_that_promises_more_than_there_is(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 2), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"(2, 2), }" + b" " * 9, b"(200000, 900000), }"[:18]))
    with pytest.raises(ValueError, match="no array of NumPy"):
        read_values(path)


@pytest.mark.parametrize("delimiter", [" ", ",", ", ", "\t", ";"])
def test_text_matrices(tmp_path, delimiter):
    """As the regions of the Stanford background data set, in which -1 is unknown."""
    rows = [[0, 7, -1], [255, -1, 3]]
    (tmp_path / "a.regions.txt").write_text("\n".join(delimiter.join(map(str, row)) for row in rows) + "\n")
    assert draw([tmp_path / "a.regions.txt"])[0].keys.tolist() == rows


@pytest.mark.parametrize("text", ["", "land\nlake\n", "0 1\n0 1 2\n", "0 1\n0 0.5\n", "\x00\x01", "1e400 2\n3 4\n"])
def test_text_that_is_no_matrix(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=r"The mask .*a\.txt"):
        read_values(tmp_path / "a.txt")


# -------------------------------------------------------------------------------------------------------- .mat files


def savemat(path, content, is_compressed=False):
    pytest.importorskip("scipy.io").savemat(path, content, do_compression=is_compressed)
    return path


def cell(*values):
    array = np.empty((1, len(values)), object)
    array[0, :] = values
    return array


@pytest.mark.parametrize("is_compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.float32, bool, np.int16, np.int64])
def test_the_only_array_of_a_mat_file(tmp_path, dtype, is_compressed):
    content = {"LabelMap": PIXELS.astype(dtype), "scale": 2.0, "author": "somebody", "bounds": np.array([1, 2, 3])}
    mask = read_values(savemat(tmp_path / "a.mat", content, is_compressed))
    assert mask.values.tolist() == PIXELS.tolist() and mask.form == "MATLAB array LabelMap"


def test_arrays_inside_structs_and_cells(tmp_path):
    one = savemat(tmp_path / "a.mat", {"groundTruth": cell({"Segmentation": PIXELS.astype(np.uint16)})})
    assert read_values(one).values.tolist() == PIXELS.tolist()
    several = cell(
        {"Segmentation": PIXELS.astype(np.uint16), "Boundaries": PIXELS.astype(bool)},
        {"Segmentation": 1 + PIXELS.astype(np.uint16), "Boundaries": PIXELS.astype(bool)},
    )
    two = savemat(tmp_path / "b.mat", {"groundTruth": several})
    with pytest.raises(ValueError, match=r"several arrays.*groundTruth\{1\}\.Segmentation 3 x 5 uint16.*--mat_key"):
        read_values(two)
    chosen = read_values(two, "groundTruth{2}.Segmentation")
    assert chosen.values.tolist() == (PIXELS + 1).tolist()
    with pytest.raises(ValueError, match=r"holds no array S; it holds groundTruth\{1\}"):
        read_values(two, "S")
    key = "groundTruth{2}.Segmentation"
    reading = decide_reading(scan_masks([two], mat_key=key), mat_key=key)
    assert draw_mask((3, 5), two, reading).keys.tolist() == (PIXELS + 1).tolist()


def test_names_in_a_mat_file(tmp_path):
    """As in SIFT Flow: 0 is unlabelled, and the names begin with 1."""
    path = savemat(tmp_path / "a.mat", {"S": PIXELS.astype(np.uint8), "names": cell("awning", "balcony")})
    assert read_values(path).names == {1: "awning", 2: "balcony"}
    assert scan_masks([path]).names == {1: "awning", 2: "balcony"}


def test_mat_files_that_are_none(tmp_path):
    path = savemat(tmp_path / "a.mat", {"x": "words"})
    with pytest.raises(ValueError, match="holds no matrix of whole numbers"):
        read_values(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" + bytes(64))
    with pytest.raises(ValueError, match="MATLAB 7.3, which is not read"):
        read_values(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 9)
    with pytest.raises(ValueError, match=r"a\.mat is no file of MATLAB"):
        read_values(path)


@pytest.mark.parametrize("order, mark", [("<", b"IM"), (">", b"MI")])
def test_mat_files_written_byte_by_byte(tmp_path, monkeypatch, order, mark):
    """A struct with a compressed neighbour, in both orders of bytes, with elements of 4 bytes in the short form."""

    def element(kind, data):
        if 0 < len(data) <= 4:
            return struct.pack(order + "I", len(data) << 16 | kind) + data.ljust(4, b"\0")
        return struct.pack(order + "II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    def matrix(array_class, shape, name, *parts):
        flags, lengths = struct.pack(order + "II", array_class, 0), struct.pack(f"{order}{len(shape)}i", *shape)
        return element(14, element(6, flags) + element(5, lengths) + element(1, name) + b"".join(parts))

    numbers = element(4, struct.pack(order + "6H", 1, 4, 2, 5, 3, 600))  # of doubles, which these are enough for
    inner = matrix(6, (2, 3), b"", numbers)
    fields = element(5, struct.pack(order + "i", 8)) + element(1, b"Mask\0\0\0\0empty\0\0\0")
    whole = matrix(2, (1, 1), b"s", fields, inner, element(14, b""))
    text = zlib.compress(matrix(4, (1, 2), b"author", element(4, struct.pack(order + "2H", 97, 98))))
    header = b"MATLAB 5.0".ljust(124) + struct.pack(order + "H", 0x0100) + mark
    path = tmp_path / "a.mat"
    path.write_bytes(header + struct.pack(order + "II", 15, len(text)) + text + whole)
    mask = read_values(path)
    assert mask.values.tolist() == [[1, 2, 3], [4, 5, 600]] and mask.form == "MATLAB array s.Mask"
    monkeypatch.setattr("training.importing.mat_files.MAXIMUM_BYTES", 2**20)
    bomb = zlib.compress(bytes(2**20 + 1))
    path.write_bytes(header + struct.pack(order + "II", 15, len(bomb)) + bomb)
    with pytest.raises(ValueError, match="holds more than 1 MB"):
        read_values(path)


# ---------------------------------------------------------------------------------------------------------- decisions


def test_ids_are_kept_and_counted(tmp_path):
    paths = [save(tmp_path / f"{i}.png", np.full((4, 6), i, np.uint8)) for i in (0, 7, 255)]
    scan = scan_masks(paths, num_workers=2)
    assert scan.values.pixels == {0: 24, 7: 24, 255: 24} and scan.values.files == {0: 1, 7: 1, 255: 1}
    assert scan.values.examples == dict(zip((0, 7, 255), paths, strict=True)) and scan.values.flat[7] == 8
    reading = decide_reading(scan)
    assert reading == MaskReading() and pickle.loads(pickle.dumps(reading)) == reading
    assert [int(drawing.keys[0, 0]) for drawing in draw(paths, reading)] == [0, 7, 255]


def test_greys_in_three_channels_are_numbers_only_where_all_files_hold_greys(tmp_path):
    grey = save(tmp_path / "a.png", np.repeat(PIXELS[..., None], 3, -1).astype(np.uint8) * 5)
    assert draw([grey])[0].keys.tolist() == (PIXELS * 5).tolist()
    colour = save(tmp_path / "b.png", np.array([(0, 0, 0), (5, 5, 6)], np.uint8)[PIXELS])
    first, second = draw([grey, colour])
    assert first.keys.tolist() == (PIXELS * 0x050505).tolist() and second.keys.tolist() == (PIXELS * 0x050506).tolist()


def test_palettes_that_contradict_each_other_are_read_as_colours(tmp_path):
    palette = [(0, 0, 0), (0, 255, 0)]
    paths = [
        write_png(tmp_path / "a.png", PIXELS.tolist(), 8, 3, palette),
        write_png(tmp_path / "b.png", PIXELS.tolist(), 8, 3, palette[::-1]),
    ]
    scan = scan_masks(paths)
    assert not decide_reading(scan_masks(paths[:1])).are_colours
    reading = decide_reading(scan)
    assert reading.are_colours and "index 1 is #00ff00 (0, 255, 0) in" in reading.notes[0]
    first, second = draw(paths, reading)
    assert first.keys.tolist() == (PIXELS * 0xFF00).tolist()
    assert second.keys.tolist() == ((1 - PIXELS) * 0xFF00).tolist()
    plain = save(tmp_path / "c.png", PIXELS.astype(np.uint8))
    with pytest.raises(ValueError, match="contradict each other .*1 masks have no palette"):
        decide_reading(scan_masks([*paths, plain]))


def test_palettes_that_differ_in_unused_entries_do_not_contradict(tmp_path):
    for name, last in (("a", (9, 9, 9)), ("b", (1, 2, 3))):
        write_png(tmp_path / f"{name}.png", PIXELS.tolist(), 8, 3, [(0, 0, 0), (0, 255, 0), last])
    assert not decide_reading(scan_masks([tmp_path / "a.png", tmp_path / "b.png"])).are_colours


def test_a_table_that_names_all_colours_of_palettes(tmp_path):
    path = write_png(tmp_path / "a.png", (PIXELS * 2).tolist(), 8, 3, [(0, 0, 0), (7, 7, 7), (0, 255, 0)])
    scan = scan_masks([path])
    assert decide_reading(scan, {0: "land", 0xFF00: "lake"}).are_colours
    assert not decide_reading(scan, {0: "land", 0xFF: "lake"}).are_colours


def test_a_table_of_black_and_white_names_the_greys_of_numbers(tmp_path):
    table = {0: "land", 0xFFFFFF: "lake"}
    white = save(tmp_path / "a.png", PIXELS.astype(np.uint8) * 255)
    assert draw([white], decide_reading(scan_masks([white]), table))[0].keys.tolist() == (PIXELS * 0xFFFFFF).tolist()
    ids = save(tmp_path / "b.png", PIXELS.astype(np.uint8))
    assert draw([ids], decide_reading(scan_masks([ids]), table))[0].keys.tolist() == PIXELS.tolist()
    deep = save(tmp_path / "c.png", (PIXELS * 256).astype(np.uint16))
    assert not decide_reading(scan_masks([deep]), table).are_colours


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("greys", [[0, 255], [0, 128, 255], [10, 60, 120, 180, 240]])
def test_jpegs_of_greys(tmp_path, quality, greys):
    ids = scenes(3, greys)
    paths = [
        save(tmp_path / f"{i}.jpg", np.array(greys, np.uint8)[mask], quality=quality) for i, mask in enumerate(ids)
    ]
    reading = decide_reading(scan_masks(paths))
    assert not reading.are_colours and len(reading.allowed) == len(greys)
    assert np.abs(np.array(reading.allowed) - greys).max() <= 2
    drawn = np.stack([drawing.keys for drawing in draw(paths, reading)])
    wrong = np.abs(drawn - np.array(greys)[np.stack(ids)]) > 2
    assert wrong.mean() < (0.01 if len(greys) > 2 else 1e-4)


@pytest.mark.parametrize("table", [True, False])
def test_jpegs_of_colours(tmp_path, table):
    ids = scenes(3, VOC)
    paths = [save(tmp_path / f"{i}.jpg", np.array(VOC, np.uint8)[mask], quality=85) for i, mask in enumerate(ids)]
    names = {key_of(colour): str(colour) for colour in VOC} if table else None
    reading = decide_reading(scan_masks(paths), names)
    assert reading.are_colours and len(reading.allowed) == len(VOC)
    drawings = draw(paths, reading)
    keys = np.stack([drawing.keys for drawing in drawings])
    near = [[sum(abs(np.array([k >> 16, k >> 8 & 255, k & 255]) - c)) < 9 for c in VOC] for k in reading.allowed]
    assert np.array(near).sum(axis=0).tolist() == [1] * len(VOC)  # each colour has one key near it
    found = np.argmax(near, axis=1)[np.searchsorted(reading.allowed, keys)]
    assert (found != np.stack(ids)).mean() < 0.01
    assert 0 < sum(drawing.remarks[DOUBTFUL] for drawing in drawings) < 0.05 * keys.size
    if table:
        assert reading.allowed == tuple(sorted(names))


def test_a_colour_of_jpegs_that_the_table_lacks_stays_a_key_of_its_own(tmp_path):
    ids = scenes(2, VOC)
    paths = [save(tmp_path / f"{i}.jpg", np.array(VOC, np.uint8)[mask], quality=95) for i, mask in enumerate(ids)]
    allowed = decide_reading(scan_masks(paths), {key_of(colour): "x" for colour in VOC[:-1]}).allowed
    assert len(allowed) == len(VOC) and {key_of(colour) for colour in VOC[:-1]} < set(allowed)


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("colours", [[0, 255], [0, 128, 255], VOC])
def test_blurred_edges_become_the_nearest_value(tmp_path, resample, colours):
    ids, paths = scenes(3, colours, width=3), []
    for index, mask in enumerate(ids):
        picture = Image.fromarray(np.array(colours, np.uint8)[mask])
        small = picture.resize((90, 60), Image.Resampling.NEAREST)
        small.resize(picture.size, resample).save(tmp_path / f"{index}.png")
        paths.append(tmp_path / f"{index}.png")
    scan = scan_masks(paths)
    reading = decide_reading(scan)
    keys = colours if isinstance(colours[0], int) else [key_of(colour) for colour in colours]
    assert sorted(keys) == list(reading.allowed) and "blurred edges" in reading.notes[-1]
    drawn = np.stack([drawing.keys for drawing in draw(paths, reading)])
    assert (drawn != np.array(keys)[np.stack(ids)]).mean() < 0.04  # of edges that a resize has moved


def test_the_remains_of_a_jpeg_in_a_png(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 10:30] = 255
    mask[5:20, 9], mask[5:20, 10] = 1, 254
    [drawing] = draw([save(tmp_path / "a.png", mask)])
    assert np.unique(drawing.keys).tolist() == [0, 255] and (drawing.keys == 255).sum() == 15 * 20
    assert not drawing.remarks


def test_a_clean_value_is_never_swallowed(tmp_path):
    """Exact masks stay as they are, whatever a table says, and thin lines of ids as well."""
    ids = scenes(2, [0, 1, 2], width=2)
    cases = {
        "ids": ([0, 1, 2], {}),
        "thin": ([0, 1, 255], {}),
        "greys": ([0, 128, 255], {}),
        "colours": (VOC[:3], {key_of(VOC[0]): "a", key_of(VOC[1]): "b"}),
    }
    for name, (colours, table) in cases.items():
        paths = [save(tmp_path / f"{name}{i}.png", np.array(colours, np.uint8)[mask]) for i, mask in enumerate(ids)]
        reading = decide_reading(scan_masks(paths), table)
        assert reading.allowed == ()
        assert len(np.unique(draw(paths, reading)[0].keys)) == 3
    lines = np.zeros((40, 50), np.uint8)
    lines[20:35, 5:45] = 255
    lines[4, :], lines[8, :], lines[12:14, :] = 1, 2, 3  # four classes, of which three are lines
    assert np.unique(draw([save(tmp_path / "lines.png", lines)])[0].keys).tolist() == [0, 1, 2, 3, 255]
    lines[lines == 3] = 128  # one class between two others
    lines[(lines > 0) & (lines < 128)] = 0
    assert np.unique(draw([save(tmp_path / "line.png", lines)])[0].keys).tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    "top, columns, cleaned",
    [
        (255, {20: 64, 21: 128, 22: 191}, True),
        (255, {20: 85, 21: 170}, False),  # two values may be classes that are lines
        (100, {20: 30, 21: 60, 22: 125}, True),  # an overshoot
        (100, {20: 30, 21: 60, 22: 240}, False),  # no resize makes this
        (255, dict(zip(range(5, 35), (64, 128, 191) * 10, strict=True)), False),  # too many pixels
        (20, {20: 5, 21: 10, 22: 15}, False),  # ids
    ],
)
def test_which_values_count_as_blurred(tmp_path, top, columns, cleaned):
    mask = np.zeros((30, 43), np.uint8)
    mask[:, 23:] = top
    for column, value in columns.items():
        mask[:, column] = value
    if cleaned:
        mask[5:8, 5:8] = columns[20]  # that a value fills 3 x 3 once, among many pixels, makes it no class
    reading = decide_reading(scan_masks([save(tmp_path / "a.png", mask)]))
    assert reading.allowed == ((0, top) if cleaned else ())


def test_a_clean_value_beside_blurred_ones_stays(tmp_path):
    [mask] = scenes(1, [0, 255])
    picture = np.asarray(
        Image.fromarray(np.array([0, 255], np.uint8)[mask]).resize((90, 60), Image.Resampling.BILINEAR)
    )
    picture = picture.copy()
    picture[3:10, 4:12] = 90
    assert decide_reading(scan_masks([save(tmp_path / "a.png", picture)])).allowed == (0, 90, 255)


def test_given_values_are_taken(tmp_path):
    path = save(tmp_path / "a.png", np.array([[0, 1, 3, 4, 9]] * 3, np.uint8))
    [drawing] = draw([path], decide_reading(scan_masks([path]), allowed=(0, 4)))
    assert drawing.keys.tolist() == [[0, 0, 4, 4, 4]] * 3
    assert drawing.remarks == {DOUBTFUL: 3}  # 9 is 5 from 4, and 9 from 0


def noise(shape, top=256):
    return np.random.default_rng(0).integers(0, top, shape).astype(np.uint8 if top <= 256 else np.uint16)


def photograph(shape):
    small = Image.fromarray(noise((12, 15, 3)))
    picture = np.asarray(small.resize((150, 120), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(picture + noise((120, 150, 3), 5), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "array, suffix, words",
    [
        (noise((60, 70)), "png", "photograph or noise"),
        (noise((60, 70, 3)), "png", "No list of classes has as many"),
        (noise((90, 120), 60000), "png", "No list of classes has as many"),
        (photograph(None), "png", "No list of classes has as many"),
        (photograph(None)[..., 1], "png", "photograph or"),
        (photograph(None), "jpg", "The values that were meant cannot be told"),
        (photograph(None)[..., 1], "jpg", "The values that were meant cannot be told"),
        (np.add.outer(np.arange(90), np.arange(120)).astype(np.uint8), "png", "by at most 2 levels"),
        (np.add.outer(np.arange(300) // 4, np.arange(400) // 4).astype(np.uint8), "png", "by at most 2 levels"),
        (scenes(1, range(5))[0], "jpg", "cannot be told"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, array, suffix, words):
    path = save(tmp_path / f"a.{suffix}", array, **({"quality": 90} if suffix == "jpg" else {}))
    with pytest.raises(ValueError, match=words):
        decide_reading(scan_masks([path]))


def test_resized_ids_are_refused(tmp_path):
    [mask] = scenes(1, range(40))
    small = Image.fromarray(mask * np.uint8(6)).resize((400, 300), Image.Resampling.BILINEAR)
    small.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="Masks hold .* different values"):
        decide_reading(scan_masks([tmp_path / "a.png"]))


def test_many_exact_ids_are_a_mask(tmp_path):
    """150 classes, with small areas too, and numbers that lie near each other."""
    generator = np.random.default_rng(0)
    ids = np.repeat(np.repeat(generator.integers(0, 150, (30, 40)), 5, 0), 6, 1).astype(np.uint8)
    reading = decide_reading(scan_masks([save(tmp_path / "a.png", ids)]))
    assert reading.allowed == ()


def test_counts_take_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("training.importing.mask_values.COUNTED_KEYS", 100)
    monkeypatch.setattr("training.importing.mask_values.COUNTED_KEYS_OF_FILE", 150)
    paths = []
    for index in range(4):
        values = noise((50, 40), 60000) + 10
        values[:20] = index
        paths.append(save(tmp_path / f"{index}.png", values))
    scan = scan_masks(paths)
    assert len(scan.values.pixels) <= 200 and scan.values.total == 4 * 2000
    assert [scan.values.pixels[index] for index in range(4)] == [800] * 4 and scan.values.files[3] == 1
    assert scan.values.examples.keys() == scan.values.pixels.keys()


def test_broken_files_are_listed_and_nothing_is_decided_without_masks(tmp_path):
    (tmp_path / "a.png").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    scan = scan_masks([tmp_path / "a.png", tmp_path / "b.png"])
    assert scan.num_files == 0 and list(scan.broken) == [tmp_path / "a.png", tmp_path / "b.png"]
    assert "a.png cannot be read" in scan.broken[tmp_path / "a.png"]
    with pytest.raises(ValueError, match="There is no mask"):
        decide_reading(scan)
    save(tmp_path / "c.png", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="No mask holds a pixel"):
        decide_reading(scan_masks([tmp_path / "c.png"]))


def test_a_mask_of_another_size(tmp_path):
    path = save(tmp_path / "a.png", PIXELS.astype(np.uint8))
    with pytest.raises(ValueError, match=r"a\.png has 5 x 3 pixels \(width x height\), and its photograph 3 x 5"):
        draw_mask((5, 3), path, MaskReading())


def test_a_mask_that_was_changed_after_the_scan(tmp_path):
    path = save(tmp_path / "a.png", np.array(VOC, np.uint8)[PIXELS])
    with pytest.raises(ValueError, match="holds colours, and those of its data set numbers"):
        draw_mask((3, 5), path, MaskReading())
    save(path, (PIXELS * 300).astype(np.uint16))
    with pytest.raises(ValueError, match="holds the number 0, which is no colour"):
        draw_mask((3, 5), path, MaskReading(are_colours=True))


# --------------------------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("form", ["1 bit", "0/1", "0/255", "JPEG", "alpha", "colour", "npy", "palette"])
def test_one_mask_for_each_class(tmp_path, form):
    size = (24, 40)
    first, second = np.zeros(size, bool), np.zeros(size, bool)
    first[:13, :21], second[9:, 14:33] = True, True
    paths = []
    for index, part in enumerate((first, second)):
        path = tmp_path / f"{index}.{'jpg' if form == 'JPEG' else 'npy' if form == 'npy' else 'png'}"
        values = part.astype(np.uint8)
        if form == "1 bit":
            write_png(path, values.tolist(), 1)
        elif form == "palette":
            write_png(path, values.tolist(), 2, 3, [(9, 9, 9), (0, 0, 0)])
        elif form == "npy":
            np.save(path, part)
        elif form == "alpha":
            save(path, np.stack([0 * values, 0 * values, 0 * values, values * 255], -1))
        elif form == "colour":
            save(path, values[..., None] * np.array([0, 0, 200], np.uint8))
        else:
            save(path, values * np.uint8(1 if form == "0/1" else 255), **({"quality": 90} if form == "JPEG" else {}))
        paths.append(path)
    drawing = draw_parts(size, ((4, paths[0]), (7, paths[1])))
    expected = np.full(size, UNCOVERED)
    expected[:13, :21] = 4
    expected[9:, 14:33] = 7
    assert drawing.keys.tolist() == expected.tolist()


def test_parts_that_others_hide_are_counted_and_sizes_are_compared(tmp_path):
    small = save(tmp_path / "a.png", PIXELS.astype(np.uint8))
    whole = save(tmp_path / "b.png", np.ones((3, 5), np.uint8))
    drawing = draw_parts((3, 5), ((0, small), (1, whole)))
    assert (drawing.keys == 1).all() and list(drawing.remarks.values()) == [1]
    with pytest.raises(ValueError, match=r"a\.png has 5 x 3"):
        draw_parts((4, 5), ((0, small),))
    assert (draw_parts((3, 5), ()).keys == UNCOVERED).all()


# -------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_end_in_errors_that_name_them(tmp_path):
    """Bytes changed, cut off and doubled at random: the file is read, or an error of its name tells of it."""
    generator = np.random.default_rng(3)
    colours = np.array(VOC, np.uint8)[PIXELS]
    wholes = {
        "a.png": save(tmp_path / "a.png", colours),
        "b.png": write_png(tmp_path / "b.png", PIXELS.tolist(), 2, 3, VOC[:4]),
        "c.tif": save(tmp_path / "c.tif", PIXELS.astype(np.uint16)),
        "d.jpg": save(tmp_path / "d.jpg", colours),
        "e.webp": save(tmp_path / "e.webp", colours),
        "f.bmp": save(tmp_path / "f.bmp", colours),
        "h.txt": tmp_path / "h.txt",
        "g.npy": tmp_path / "g.npy",
    }
    (tmp_path / "h.txt").write_text("0 1 -1\n1 1 2\n")
    np.save(tmp_path / "g.npy", PIXELS)
    with contextlib.suppress(pytest.skip.Exception):
        wholes["i.mat"] = savemat(tmp_path / "i.mat", {"x": cell({"S": PIXELS}), "y": PIXELS[:1]})
    num_read = 0
    for name, path in wholes.items():
        whole = path.read_bytes()
        damaged = tmp_path / f"damaged {name}"
        for _ in range(25):
            content = bytearray(whole)
            for _ in range(generator.integers(1, 4)):
                place = int(generator.integers(len(content)))
                content[place] = int(generator.integers(256))
            if generator.random() < 0.3:
                content = content[: generator.integers(len(content))]
            damaged.write_bytes(content)
            try:
                mask = read_values(damaged)
                decide_reading(scan_masks([damaged]))
                num_read += mask.values.size > 0
            except (OSError, ValueError) as error:
                # What is wrong with all masks of a data set names none of them.
                known = f"damaged {name}|Masks hold|No mask|masks are of a format"
                assert re.search(known, str(error))
    assert num_read > 20


def test_pipes(tmp_path):
    for name in ("a.npy", "b.mat", "c.txt", "d.png"):
        os.mkfifo(tmp_path / name)
        with pytest.raises((OSError, ValueError), match="no regular file"):
            read_values(tmp_path / name)
