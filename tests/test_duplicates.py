# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Near duplicates: copies are found however they were saved, and unlike pictures are told apart."""

import itertools
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from training.data.duplicates import (
    HASH_BITS,
    MAXIMUM_DISTANCE,
    MIRRORED_BITS,
    find_near,
    picture_hash,
    source_stem,
)


STREET_SCENES = Path(__file__).resolve().parents[2] / "shared" / "street-scenes"


def draw(seed: int, width: int = 203, height: int = 151) -> Image.Image:
    """A landscape of blots of its own."""
    generator = np.random.default_rng(seed)
    small = generator.normal(120, 50, (9, 12, 3)).astype(np.float32)
    noise = generator.normal(0, 8, (height, width, 3))
    return Image.fromarray(np.clip(cv2.resize(small, (width, height)) + noise, 0, 255).astype(np.uint8))


def saved_anew(image: Image.Image, form: str = "JPEG", **options) -> Image.Image:
    stream = BytesIO()
    image.save(stream, form, **options)
    return Image.open(stream)


COPIES = {
    "JPEG": lambda image: saved_anew(image, quality=30),
    "WebP": lambda image: saved_anew(image, "WEBP", quality=40),
    "reduced": lambda image: image.resize((71, 53)),
    "enlarged": lambda image: image.resize((499, 377)),
    "stretched": lambda image: image.resize((128, 128)),
    "mirrored": ImageOps.mirror,
    "mirrored, as JPEG": lambda image: saved_anew(ImageOps.mirror(image), quality=40),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_other_pictures_are_not(kind):
    pictures = [draw(seed) for seed in range(12)]
    hashes = [picture_hash(picture) for picture in pictures]
    hashes += [picture_hash(COPIES[kind](picture)) for picture in pictures[::-1]]
    assert find_near(hashes) == [[index, 23 - index] for index in range(12)]


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGB", (64, 48), (3, 3, 3)),
        Image.fromarray(np.random.default_rng(0).normal(4, 3, (60, 90)).clip(0, 255).astype(np.uint8)),
        Image.new("L", (1, 1), 255),
        Image.new("RGBA", (5, 1000), (255, 255, 255, 0)),
    ],
)
def test_flat_and_dark_pictures_have_no_hash(picture):
    assert picture_hash(picture) is None
    assert find_near([None, None, 5, None]) == []


def test_unlike_pictures_are_far_from_each_other_mirrored_or_not():
    hashes = [picture_hash(draw(seed)) for seed in range(40)]
    for first, second in itertools.combinations(hashes, 2):
        for other in (second, second ^ MIRRORED_BITS):
            assert (first ^ other).bit_count() > 3 * MAXIMUM_DISTANCE


def test_mirroring_changes_the_mirrored_bits_alone():
    picture = draw(0)
    assert picture_hash(ImageOps.mirror(picture)) == picture_hash(picture) ^ MIRRORED_BITS
    assert 0 <= picture_hash(picture) < 1 << HASH_BITS


def naive_groups(hashes: list[int]) -> list[list[int]]:
    """All pairs, joined until nothing changes."""
    groups = [{index} for index in range(len(hashes))]
    for i, j in itertools.combinations(range(len(hashes)), 2):
        distance = min((hashes[i] ^ other).bit_count() for other in (hashes[j], hashes[j] ^ MIRRORED_BITS))
        if distance <= MAXIMUM_DISTANCE:
            first, second = (next(group for group in groups if index in group) for index in (i, j))
            if first is not second:
                groups.remove(second)
                first |= second
    return sorted(sorted(group) for group in groups if len(group) > 1)


def test_groups_are_those_of_all_pairs():
    generator = np.random.default_rng(1)
    hashes = [int.from_bytes(generator.bytes(15), "big") for _ in range(25)]
    for index in range(60):  # changed in as many bits as are allowed, one more, or in few, and some mirrored
        value = hashes[int(generator.integers(len(hashes)))]
        for bit in generator.permutation(HASH_BITS)[: int(generator.integers(0, MAXIMUM_DISTANCE + 3))].tolist():
            value ^= 1 << bit
        hashes.append(value ^ MIRRORED_BITS if index % 3 == 0 else value)
    groups = find_near(hashes)
    assert groups == naive_groups(hashes) and len(groups) > 5


def test_many_equal_pictures_are_one_group():
    assert find_near([7] * 20_000) == [list(range(20_000))]


@pytest.mark.parametrize(
    "name, source",
    [
        ("street_jpg.rf.0c55cf1a7a3e4f4d9c1f5c7be1a1c0b2", "street"),
        ("street_png.rf.AbCdEf0123456789", "street"),
        ("street-12_jpeg.rf.0c55cf1a7a3e4f4d", "street-12"),
        ("street_aug1", "street"),
        ("street_aug_12", "street"),
        ("street-flip", "street"),
        ("street_hflip", "street"),
        ("street_rot90", "street"),
        ("street_crop3", "street"),
        ("street_tile_2_3", "street"),
        ("street_x512_y0", "street"),
        ("street_r3_c14", "street"),
        ("street_flip_rot90_x512_y0", "street"),
        ("street (1)", "street"),
        ("street_copy", "street"),
        ("street_crop3_jpg.rf.0c55cf1a7a3e4f4d", "street"),
        ("frame_000123", "frame_000123"),
        ("frame_000124", "frame_000124"),
        ("0016E5_04440", "0016E5_04440"),
        ("IMG_2023-11-02_12-30-59", "IMG_2023-11-02_12-30-59"),
        ("flip", "flip"),
        ("crop_12", "crop_12"),
        ("outcrop3", "outcrop3"),
        ("reptile_2_3", "reptile_2_3"),
        ("field_crops_a", "field_crops_a"),
        ("rotterdam_000001_000019", "rotterdam_000001_000019"),
        ("plot_x", "plot_x"),
        ("(1)", "(1)"),
        ("", ""),
    ],
)
def test_what_copies_of_a_source_are_called(name, source):
    assert source_stem(name) == source


def test_in_street_scenes_only_neighbouring_frames_are_near():
    if not STREET_SCENES.is_dir():
        pytest.skip("the street scenes are not beside this checkout")
    files = sorted((STREET_SCENES / "images" / "training").iterdir())
    groups = find_near([picture_hash(Image.open(file)) for file in files])
    assert groups and all(group == list(range(group[0], group[-1] + 1)) for group in groups)
    assert sum(map(len, groups)) < len(files) / 10
