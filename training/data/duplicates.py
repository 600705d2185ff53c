# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Which pictures show nearly the same: copies that were saved anew or mirrored, or that augmentation made."""

import re
from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
import PIL.Image


# A hash has a bit for each of the lowest frequencies of a picture, SIDE x SIDE of them but the mean.
SIDE, SAMPLES = 11, 32
HASH_BITS = SIDE * SIDE - 1
# The bits that mirroring changes, those of uneven frequencies along the width; the last frequency has the lowest bit.
MIRRORED_BITS = sum(1 << (SIDE * SIDE - 1 - place) for place in range(SIDE * SIDE) if place % SIDE % 2)
# Bits in which copies of a picture differ at most. Pictures that have nothing in common differ in about half.
MAXIMUM_DISTANCE = 9
# Hashes that differ in no more bits agree in all bits of at least one of so many bands.
NUM_BANDS = MAXIMUM_DISTANCE + 1
# Of pictures that share a band this many, the last, are compared with the next one, so that the time is bounded.
CROWDED = 200
# Standard deviation of the samples, of 255, below which a picture is flat: a night or a wall, as many others are.
FLAT = 6.0

# What tools and people put behind the name of a source for its copies, cut off again and again from the end.
COPY_ENDINGS = (
    re.compile(r"[._](?:jpe?g|png|bmp|tiff?|webp)\.rf\.[0-9a-zA-Z]{8,}$", re.IGNORECASE),  # Roboflow: a_jpg.rf.HASH
    re.compile(r"\.rf\.[0-9a-zA-Z]{8,}$", re.IGNORECASE),
    re.compile(r"[ _.-]?\(\d+\)$"),  # a (1)
    re.compile(r"[_-](?:copy|kopie)(?:[ _-]?\d+)?$", re.IGNORECASE),
    re.compile(
        r"[_-](?:aug(?:mented)?|flip(?:ped)?|[hv]flip|fliplr|flipud|mirror(?:ed)?|rot(?:ate|ated)?|crop(?:ped)?|tile"
        r"|patch|blur(?:red)?|noise|bright(?:ness)?|scale[d]?|shift(?:ed)?|hue|jitter)(?:[_-]?(?:[xyhvlr]|lr|ud|tb))?"
        r"(?:[_-]?\d+)*$",
        re.IGNORECASE,
    ),
    re.compile(r"[_-]x\d+[_-]?y\d+$", re.IGNORECASE),  # where a tile lies
    re.compile(r"[_-]r\d+[_-]?c\d+$", re.IGNORECASE),
    re.compile(r"[_-]row\d+[_-]?col\d+$", re.IGNORECASE),
)


def source_stem(name: str) -> str:
    """
    What the copies of one source have in common, of the stem of a file: `a_jpg.rf.0f3e...`, `a_aug1`, `a_flip`,
    `a_rot90`, `a_tile_2_3` and `a_x512_y0` are copies of `a`. Numbers alone tell pictures apart: `frame_000123` and
    `frame_000124` are two.
    """
    stem = name
    while True:
        shorter = next((ending.sub("", stem) for ending in COPY_ENDINGS if ending.search(stem)), "")
        if not shorter:
            return stem
        stem = shorter


def picture_hash(image: PIL.Image.Image) -> int | None:
    """
    What a picture shows, coarsely, as a number of `HASH_BITS` bits: copies of other sizes, formats and qualities
    differ in few, and a mirrored one in few others than `MIRRORED_BITS`. `None` for a picture in which there is too
    little to tell it from others.

    The picture is scaled to 32 x 32 greys; each of the lowest frequencies of their cosine transform gives its sign.

    Source: the "pHash" of C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), but
    for signs in place of a comparison with the median: of these mirroring changes just those of uneven frequencies.
    """
    greys = image.convert("L").resize((SAMPLES, SAMPLES), PIL.Image.Resampling.BILINEAR)
    values = np.asarray(greys, dtype=np.float32)
    if values.std() < FLAT:
        return None
    signs = cv2.dct(values)[:SIDE, :SIDE] > 0
    signs[0, 0] = False  # the mean
    return int("".join("1" if sign else "0" for sign in signs.flat), 2)


class Groups:
    """Places from 0 on, each alone at first, that are joined by pairs."""

    def __init__(self, count: int):
        self._earlier = list(range(count))  # of each place one of its group that is not later

    def first(self, place: int) -> int:
        """The first place of its group."""
        earlier = self._earlier
        while earlier[place] != place:
            earlier[place] = place = earlier[earlier[place]]
        return place

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.first(one), self.first(other)))
        self._earlier[high] = low


def find_near(hashes: Sequence[int | None], maximum_distance: int = MAXIMUM_DISTANCE) -> list[list[int]]:
    """
    Groups of pictures that are joined by pairs of nearly equal hashes, mirrored or not: places in `hashes`, two or
    more in each group, in order.

    Hashes that differ in fewer bits than there are bands agree in one of these, so each is only compared with those
    that share one with it: of 20,000 unlike pictures with about a hundred. `maximum_distance` is at most
    `MAXIMUM_DISTANCE`.
    """
    groups = Groups(len(hashes))
    first_with: dict[int, int] = {}
    for place, value in enumerate(hashes):
        if value is not None:
            groups.join(place, first_with.setdefault(value, place))
    edges = [round(edge) for edge in np.linspace(0, HASH_BITS, NUM_BANDS + 1)]
    for start, end in zip(edges, edges[1:], strict=False):
        band = (1 << end) - (1 << start)
        sharing: dict[int, list[int]] = defaultdict(list)
        for value, place in first_with.items():
            for variant in (value, value ^ MIRRORED_BITS):
                for other in sharing[variant & band][-CROWDED:]:
                    if (variant ^ hashes[other]).bit_count() <= maximum_distance:
                        groups.join(place, other)
            sharing[value & band].append(place)
    members: dict[int, list[int]] = defaultdict(list)
    for place in range(len(hashes)):
        members[groups.first(place)].append(place)
    return sorted(group for group in members.values() if len(group) > 1)
