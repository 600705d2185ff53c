# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What the server sends, without Gradio or a browser."""

import base64
import io
import re
import sys
import zlib

import numpy as np
import PIL.Image
import pytest
import torch

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools.page import answers, server
from tests.tiny import draw_picture, spread_classes, tiny_model


def encode(picture: PIL.Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def test_photograph_is_turned_upright_and_made_rgb():
    picture = draw_picture(40, 30).convert("RGBA")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    upright = answers.read_upload(encode(picture, exif=exif))
    assert upright.mode == "RGB" and upright.size == (30, 40)
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(picture)[..., :3], -1))


def header_of_png(width: int, height: int) -> bytes:
    """A PNG that breaks off where its pixels would begin."""
    whole = encode(PIL.Image.new("1", (1, 1)))
    body = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + whole[24:29]
    return whole[:12] + body + zlib.crc32(body).to_bytes(4, "big") + b"\0\0\x20\0IDAT\0"


@pytest.mark.parametrize("size", [(6001, 4000), (20_000, 20_000)])
def test_pixels_are_counted_before_they_are_decoded(size):
    with pytest.raises(ValueError, match="24 megapixels are the limit"):
        answers.read_upload(header_of_png(*size))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"These are words, not a picture.",
        header_of_png(600, 400),
        encode(draw_picture(64, 64), "JPEG")[:700],
        encode(draw_picture(64, 64))[:200],
        encode(draw_picture(64, 64), "WEBP")[:100],
    ],
)
def test_broken_file_is_no_picture(data):
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        answers.read_upload(data)


def test_words_are_split_and_counted():
    assert answers.split_texts(" bus  stop,dog;\n dog ,, a red car\n") == ["bus stop", "dog", "a red car"]
    with pytest.raises(ValueError, match="no words yet"):
        answers.split_texts(" , \n")
    with pytest.raises(ValueError, match="21 words or phrases; 20 are"):
        answers.split_texts(",".join(map(str, range(21))))


def test_probability_of_the_best_class_is_that_of_a_softmax():
    logits = 3 * torch.randn(1, 37, 5, 7, generator=torch.Generator().manual_seed(0))
    enlarged = torch.nn.functional.interpolate(logits, size=(20, 31), mode="bilinear", align_corners=False)
    expected = enlarged.double().softmax(dim=1).amax(dim=1)[0]
    assert torch.allclose(answers.winning_probability(logits, (20, 31)).double(), expected, atol=1e-6)


@pytest.mark.parametrize(("size", "num_maps"), [((128, 171), 11), ((512, 2048), 150), ((3000, 8), 4000)])
def test_heat_maps_together_stay_within_their_limit(size, num_maps):
    height, width = answers.map_size(size, num_maps)
    assert 1 <= height <= size[0] and 1 <= width <= size[1]
    assert num_maps * height * width <= answers.MAXIMUM_MAP_VALUES
    if num_maps * size[0] * size[1] <= answers.MAXIMUM_MAP_VALUES:
        assert (height, width) == size


def test_more_classes_than_a_palette_holds():
    names = [f"class {index}" for index in range(300)]
    segmentation = np.random.default_rng(0).integers(0, 300, (30, 50))
    page = answers.pack_maps(
        draw_picture(50, 30),
        segmentation,
        names=names,
        palette=[(index % 256, index // 256, 0) for index in range(300)],
        remarks={},
        scores=torch.rand(answers.view_size(draw_picture(50, 30))),
        maps=torch.rand(300, 3, 5),
        limits=(0.0, 1.0),
    )
    mask = PIL.Image.open(io.BytesIO(base64.b64decode(page["mask"].partition(",")[2])))
    assert np.array_equal(np.asarray(mask), segmentation)
    ids = np.frombuffer(zlib.decompress(base64.b64decode(page["ids"])), dtype="<u2")
    # 1280 / 50 pixels of the page to one of the picture: the middle one of each.
    middles = ids.reshape(page["height"], page["width"])[
        np.ix_(*((np.arange(length) * 25.6 + 12.8).astype(int) for length in (30, 50)))
    ]
    assert np.array_equal(middles, segmentation)


def test_picture_that_the_model_cannot_take_is_explained():
    model = spread_classes(tiny_model("resnet"), torch.randn(1, 3, 64, 64))
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    page = answers.answer(lambda: answers.segment(model, processor, draw_picture(500, 20), "tiny"))
    assert page.keys() == {"error"} and re.search("20 x 500 pixels.* both sides must have at least 32", page["error"])


def test_memory_that_is_too_small_is_explained():
    def fail():
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert "make it smaller" in answers.answer(fail)["error"]


def test_page_names_the_extra_that_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=re.escape('pip install "modeling-denseclip[web]"')):
        server.build_page(tiny_model("resnet").eval(), DenseCLIPImageProcessor(), "tiny")
