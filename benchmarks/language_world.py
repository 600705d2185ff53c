# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
A painted world with words: scenes of things with names of two words, their masks, and captions that name them.

A class is an attribute and a kind, "striped tower": each attribute is known from other kinds, and each kind with other
attributes, as words of captions are. Scenes have one to three things before one of three skies, on one of three
grounds. How often a thing is drawn falls from the first to the last by a power law, so that some are rare. The classes
of `UNSEEN_NAMES` stand in captions, and in no scene whose mask is trained on.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


SIDE = 128  # pixels of a scene
UNLABELLED = 255
MIN_PIXELS = 40  # a thing of fewer visible pixels is not named

SKIES = ("clear sky", "cloudy sky", "night sky")
GROUNDS = ("grassy ground", "sandy ground", "snowy ground")
KINDS = ("tower", "house", "tent", "fence", "arch", "tree", "barrel", "pond", "balloon", "kite")
ATTRIBUTES = ("red", "striped", "wooden", "blue", "spotted", "brick", "yellow", "checked", "mossy", "white")
UNSEEN_OFFSET = 5
# Each kind with four of the ten attributes, each attribute with four of the ten kinds.
_COMBINATIONS = tuple(
    (f"{ATTRIBUTES[(number + offset) % len(ATTRIBUTES)]} {kind}", offset == UNSEEN_OFFSET and number < 6)
    for offset in (0, 2, 7, UNSEEN_OFFSET)
    for number, kind in enumerate(KINDS)
)
THINGS = tuple(name for name, _ in _COMBINATIONS)
UNSEEN_NAMES = tuple(name for name, is_unseen in _COMBINATIONS if is_unseen)
# In the order of ids; those of `UNSEEN_NAMES` follow.
CLASS_NAMES = (*SKIES, *GROUNDS, *(name for name in THINGS if name not in UNSEEN_NAMES))
ALL_NAMES = (*CLASS_NAMES, *UNSEEN_NAMES)

# The order of frequency is drawn once, so that it has nothing to do with kinds and attributes.
_RANKS = np.random.default_rng(0).permutation(len(THINGS))
FREQUENCIES = {name: (rank + 3.0) ** -1.2 for name, rank in zip(THINGS, _RANKS, strict=True)}
_SEEN_BY_FREQUENCY = sorted(CLASS_NAMES[len(SKIES) + len(GROUNDS) :], key=FREQUENCIES.get, reverse=True)
NUM_OF_THE_TAIL = 12
FREQUENT_NAMES, RARE_NAMES = _SEEN_BY_FREQUENCY[:NUM_OF_THE_TAIL], _SEEN_BY_FREQUENCY[-NUM_OF_THE_TAIL:]

# What captions say for a word of a name. The first is the name's own.
SYNONYMS = {
    "red": ("red", "crimson", "scarlet"),
    "blue": ("blue", "azure"),
    "yellow": ("yellow", "lemon"),
    "white": ("white", "pale"),
    "striped": ("striped", "banded"),
    "spotted": ("spotted", "dotted"),
    "checked": ("checked", "tiled"),
    "wooden": ("wooden", "timber"),
    "brick": ("brick", "masonry"),
    "mossy": ("mossy", "overgrown"),
    "tower": ("tower", "spire"),
    "house": ("house", "cottage", "home"),
    "tent": ("tent", "pavilion"),
    "fence": ("fence", "railing"),
    "arch": ("arch", "gateway"),
    "tree": ("tree", "oak"),
    "barrel": ("barrel", "cask"),
    "pond": ("pond", "pool"),
    "balloon": ("balloon", "airship"),
    "kite": ("kite", "glider"),
    "clear": ("clear", "cloudless"),
    "cloudy": ("cloudy", "overcast"),
    "night": ("night", "starry"),
    "sky": ("sky", "heaven"),
    "grassy": ("grassy", "green"),
    "sandy": ("sandy", "dusty"),
    "snowy": ("snowy", "frosty"),
    "ground": ("ground", "land"),
}
OWN_WORD_SHARE, BACKGROUND_SHARE = 0.6, 0.35
OPENINGS = ("", "a picture of", "a painting of", "here is", "there is")
LINKS = ("and", "beside", "next to", "near")
# No caption has them; a name of two is read by the text tower as words that it has never met.
MEANINGLESS_WORDS = tuple(f"{start}{end}" for start in ("zor", "bli", "vek", "dru", "hax") for end in ("p", "m", "fu"))

Point = tuple[float, float]
_ROWS, _COLUMNS = np.indices((SIDE, SIDE), dtype=np.float32)
_COLORS = {
    "red": (205, 50, 45),
    "blue": (45, 85, 205),
    "yellow": (235, 205, 60),
    "white": (232, 232, 232),
    "black": (35, 35, 40),
    "green": (60, 150, 70),
    "orange": (235, 135, 45),
    "purple": (130, 70, 160),
}


def vocabulary() -> list[str]:
    """Every word that a caption or a name may have, and the letters, so that any other word is spelled."""
    phrases = (*OPENINGS, *LINKS, "a", "an", "on", "under", *MEANINGLESS_WORDS, *"abcdefghijklmnopqrstuvwxyz")
    words = [word for phrase in phrases for word in phrase.split()]
    return list(dict.fromkeys([*words, *(word for same in SYNONYMS.values() for word in same)]))


def meaningless_names(count: int) -> list[str]:
    """So many names of two words, in which nothing tells which classes have something in common."""
    pairs = [f"{first} {second}" for first in MEANINGLESS_WORDS for second in MEANINGLESS_WORDS if first != second]
    return [pairs[index] for index in np.random.default_rng(0).permutation(len(pairs))[:count]]


# --------------------------------------------------------------------------------------------------------- pictures


def paint_scene(
    generator: np.random.Generator, with_unseen: bool = True, evenly: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """
    Paint one scene: the picture, uint8 `(SIDE, SIDE, 3)` RGB, and its mask, uint8 `(SIDE, SIDE)` with ids of
    `ALL_NAMES`.

    Args:
        generator (`np.random.Generator`): decides all of it.
        with_unseen (`bool`, *optional*, defaults to `True`): whether things of `UNSEEN_NAMES` may be in it.
        evenly (`bool`, *optional*, defaults to `False`): whether rare things are drawn as often as frequent ones.
    """
    sky, ground = generator.choice(SKIES), generator.choice(GROUNDS)
    pixels, mask = _paint_background(generator, sky, ground)
    names = [name for name in THINGS if with_unseen or name not in UNSEEN_NAMES]
    weights = np.array([1.0 if evenly else FREQUENCIES[name] for name in names])
    count = int(generator.integers(1, 4))
    drawn = generator.choice(len(names), size=count, replace=False, p=weights / weights.sum())
    slots = (np.arange(count) + generator.uniform(0.3, 0.7, count)) * SIDE / count
    feet = np.sort(generator.uniform(84, 122, count))  # from far to near, so that near things stand before far ones
    for index, x, foot in zip(drawn, generator.permutation(slots), feet, strict=True):
        attribute, kind = names[index].split()
        size = generator.uniform(60, 88)
        y = size / 2 + generator.uniform(0, 20) if kind in ("balloon", "kite") else foot
        inside = _draw_outline(kind, float(x), float(y), size, generator)
        shade = 1 + 0.15 * (_COLUMNS[inside] - x) / size
        pixels[inside] = _paint_attribute(attribute, generator)[inside] * shade[:, None]
        mask[inside] = ALL_NAMES.index(names[index])
    if sky == "night sky":
        is_lit = mask == ALL_NAMES.index(sky)
        pixels[~is_lit] *= np.float32([0.6, 0.6, 0.75])
    pixels = cv2.GaussianBlur(pixels, (0, 0), 0.6) + generator.normal(0, 4, pixels.shape)
    if generator.random() < 0.5:
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
    return np.ascontiguousarray(np.clip(pixels, 0, 255).astype(np.uint8)), np.ascontiguousarray(mask)


def _noise(generator: np.random.Generator, cell: float, stretch: float = 1.0) -> np.ndarray:
    """Smooth noise in about [-1, 1] that changes over `cell` pixels, and over `stretch` times that along x."""
    shape = (max(2, round(SIDE / cell)), max(2, round(SIDE / (cell * stretch))))
    coarse = generator.uniform(-1, 1, shape).astype(np.float32)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def _paint_background(generator: np.random.Generator, sky: str, ground: str) -> tuple[np.ndarray, np.ndarray]:
    horizon = generator.uniform(58, 80)
    above = {"clear sky": (120, 175, 235), "cloudy sky": (165, 170, 180), "night sky": (28, 32, 72)}[sky]
    below = {"grassy ground": (112, 160, 80), "sandy ground": (214, 184, 130), "snowy ground": (222, 228, 238)}[ground]
    pixels = np.float32(above) * (1 + 0.25 * (_ROWS / horizon - 0.5))[..., None]
    if sky == "cloudy sky":
        pixels += (70 * np.clip(_noise(generator, 12, 3), 0, 1))[..., None]
    elif sky == "night sky":
        stars = generator.uniform(0, 1, (SIDE, SIDE)) > 0.99
        pixels[stars] = 220
    edge = horizon + 3 * np.sin(_COLUMNS / 25 + generator.uniform(0, 6))
    is_ground = edge < _ROWS
    texture = 1 + 0.12 * _noise(generator, 3, 2) + 0.1 * _noise(generator, 20, 2)
    pixels[is_ground] = (np.float32(below) * texture[..., None])[is_ground]
    mask = np.where(is_ground, ALL_NAMES.index(ground), ALL_NAMES.index(sky)).astype(np.uint8)
    return pixels, mask


def _draw_outline(kind: str, x: float, y: float, size: float, generator: np.random.Generator) -> np.ndarray:
    """
    Where a thing is, `(SIDE, SIDE)` of bool. `x` is its middle, `y` its foot, or the middle of what is in the air.
    """
    canvas = np.zeros((SIDE, SIDE), dtype=np.uint8)

    def polygon(*points: Point, value: int = 1) -> None:
        corners = [(x + size * across, y - size * up) for across, up in points]
        cv2.fillPoly(canvas, [np.int32(np.round(corners))], value)

    def ellipse(across: float, up: float, half_width: float, half_height: float, value: int = 1) -> None:
        center, axes = (x + size * across, y - size * up), (size * half_width, size * half_height)
        cv2.ellipse(canvas, (center, (2 * axes[0], 2 * axes[1]), 0), value, thickness=cv2.FILLED)

    if kind == "tower":
        half, top = 0.22, generator.uniform(1.15, 1.35)
        steps = np.linspace(-half, half, 6)
        battlements = [(step, top - 0.12 * (index // 2 % 2)) for index, step in enumerate(np.repeat(steps, 2)[1:-1])]
        polygon((-half, 0), *battlements, (half, 0))
    elif kind == "house":
        polygon((-0.42, 0), (-0.42, 0.5), (-0.52, 0.5), (0, 0.95), (0.52, 0.5), (0.42, 0.5), (0.42, 0))
    elif kind == "tent":
        polygon((-0.6, 0), (-0.05, 0.8), (0.05, 0.8), (0.6, 0))
        polygon((-0.1, 0), (0, 0.35), (0.1, 0), value=0)
    elif kind == "fence":
        for left in np.arange(-0.8, 0.75, 0.2):
            polygon((left, 0), (left, 0.42), (left + 0.08, 0.52), (left + 0.16, 0.42), (left + 0.16, 0))
        polygon((-0.8, 0.15), (-0.8, 0.3), (0.76, 0.3), (0.76, 0.15))
    elif kind == "arch":
        polygon((-0.5, 0), (-0.5, 0.95), (0.5, 0.95), (0.5, 0))
        polygon((-0.26, -0.02), (-0.26, 0.5), (0.26, 0.5), (0.26, -0.02), value=0)
        ellipse(0, 0.5, 0.26, 0.26, value=0)
    elif kind == "tree":
        polygon((-0.09, 0), (-0.07, 0.6), (0.07, 0.6), (0.09, 0))
        for across, up, radius in ((0, 0.85, 0.3), (-0.24, 0.62, 0.24), (0.24, 0.62, 0.24)):
            ellipse(across, up, radius, radius)
    elif kind == "barrel":
        polygon(
            (-0.24, 0), (-0.34, 0.25), (-0.34, 0.5), (-0.24, 0.75), (0.24, 0.75), (0.34, 0.5), (0.34, 0.25), (0.24, 0)
        )
    elif kind == "pond":
        ellipse(0, 0.22, generator.uniform(0.7, 0.85), 0.24)
    elif kind == "balloon":
        ellipse(0, 0.1, 0.38, 0.42)
        polygon((-0.12, -0.36), (-0.12, -0.52), (0.12, -0.52), (0.12, -0.36))
        polygon((-0.2, -0.2), (-0.1, -0.4), (0.1, -0.4), (0.2, -0.2))
    else:  # a kite, and its tail
        polygon((0, 0.5), (0.36, 0.1), (0, -0.4), (-0.36, 0.1))
        polygon(
            (0, -0.4), (0.1, -0.5), (0, -0.58), (0.08, -0.7), (0.02, -0.7), (-0.06, -0.58), (0.04, -0.5), (-0.05, -0.4)
        )
    return canvas.astype(bool)


def _paint_attribute(attribute: str, generator: np.random.Generator) -> np.ndarray:
    """What a thing of this attribute looks like, RGB of type float32 in `(SIDE, SIDE, 3)`."""
    if attribute in ("striped", "spotted", "checked"):
        first, second = generator.choice(list(_COLORS), 2, replace=False)
        period, phase = generator.uniform(8, 12), generator.uniform(0, 10, 2)
        rows, columns = (_ROWS + phase[0]) / period, (_COLUMNS + phase[1]) / period
        if attribute == "striped":
            along = (rows, columns, (rows + columns) / 1.4)[generator.integers(3)]
            where = along % 1 < 0.5
        elif attribute == "spotted":
            where = np.hypot((columns + 0.5 * (rows // 1 % 2)) % 1 - 0.5, rows % 1 - 0.5) < 0.3
        else:
            where = (rows * 1.3 // 1 + columns * 1.3 // 1) % 2 == 0
        return np.where(where[..., None], _color(first, generator), _color(second, generator))
    if attribute == "wooden":
        grain = _noise(generator, 2, 12) if generator.random() < 0.5 else _noise(generator, 24, 1 / 12)
        return np.float32([150, 100, 55]) * (1 + 0.35 * grain)[..., None]
    if attribute == "brick":
        row = _ROWS // 5
        is_mortar = (_ROWS % 5 < 1) | ((_COLUMNS + 5 * (row % 2)) % 10 < 1)
        bricks = np.float32([178, 92, 66]) * (1 + 0.15 * _noise(generator, 5, 2))[..., None]
        return np.where(is_mortar[..., None], np.float32([200, 190, 175]), bricks)
    if attribute == "mossy":
        is_moss = _noise(generator, 6) + 0.5 * _noise(generator, 3) > -0.1
        return np.where(is_moss[..., None], np.float32([70, 110, 50]), np.float32([140, 140, 135]))
    return _color(attribute, generator) * (1 + 0.06 * _noise(generator, 3))[..., None]


def _color(name: str, generator: np.random.Generator) -> np.ndarray:
    return np.float32(_COLORS[name]) + generator.uniform(-16, 16, 3).astype(np.float32)


# ----------------------------------------------------------------------------------------------------------- words


def find_names(mask: np.ndarray) -> list[str]:
    """The classes that a mask shows, by their names in `ALL_NAMES`; of things, those of at least `MIN_PIXELS`."""
    counts = np.bincount(mask.ravel(), minlength=len(ALL_NAMES))[: len(ALL_NAMES)]
    return [name for name, count in zip(ALL_NAMES, counts, strict=True) if count >= MIN_PIXELS]


def choose_names(shown: Sequence[str], generator: np.random.Generator) -> list[str]:
    """
    What somebody would name of a scene: one or more of its things, all numbers of them alike, in any order; sky and
    ground now and then.
    """
    things = [name for name in shown if name not in (*SKIES, *GROUNDS)]
    chosen = generator.permutation(len(things))[: generator.integers(1, len(things) + 1)]
    places = [name for name in shown if name in (*SKIES, *GROUNDS) and generator.random() < BACKGROUND_SHARE]
    return [*(things[index] for index in chosen), *places]


def write_caption(names: Sequence[str], generator: np.random.Generator) -> str:
    """A caption that names these, things first, in varied words."""
    words = [OPENINGS[generator.integers(len(OPENINGS))]]
    for position, name in enumerate(names):
        phrase = _vary(name, generator)
        if name in SKIES:
            words += [f"under {_article(phrase)}"]
        elif name in GROUNDS:
            words += ["on"]
        else:
            words += [LINKS[generator.integers(len(LINKS))]] if position else []
            words += [_article(phrase)]
        words.append(phrase)
    return " ".join(" ".join(words).split())


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def _vary(name: str, generator: np.random.Generator) -> str:
    """A name in words that mean the same."""
    words = []
    for word in name.split():
        own, *others = SYNONYMS[word]
        words.append(own if generator.random() < OWN_WORD_SHARE else others[generator.integers(len(others))])
    return " ".join(words)


# ------------------------------------------------------------------------------------------------------------ files


def paint_captioned(seed: int, count: int, side: int) -> dict[str, np.ndarray]:
    """
    Scenes with captions, as arrays: `pictures`, uint8 `(count, side, side, 3)`; `captions`; and which classes of
    `ALL_NAMES` a caption has `named` and a picture has `shown`, both bool `(count, len(ALL_NAMES))`.
    """
    pictures, captions = np.zeros((count, side, side, 3), dtype=np.uint8), []
    named, shown = np.zeros((2, count, len(ALL_NAMES)), dtype=bool)
    for index in range(count):
        generator = np.random.default_rng((seed, index))
        picture, mask = paint_scene(generator)
        pictures[index] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        visible = find_names(mask)
        chosen = choose_names(visible, generator)
        captions.append(write_caption(chosen, generator))
        for marks, names in ((named, chosen), (shown, visible)):
            marks[index, [ALL_NAMES.index(name) for name in names]] = True
    return {"pictures": pictures, "captions": np.array(captions), "named": named, "shown": shown}


def write_split(data_dir: Path, split: str, scenes: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """
    Write scenes as a split of a folder that training reads (see [`training.data.segmentation_folder`]), with the names
    of its classes. Pixels of `UNSEEN_NAMES` are unlabelled.
    """
    for kind in ("images", "annotations"):
        (data_dir / kind / split).mkdir(parents=True, exist_ok=True)
    for index, (picture, mask) in enumerate(scenes):
        name = f"{index:04d}.png"
        cv2.imwrite(str(data_dir / "images" / split / name), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        labels = np.where(mask < len(CLASS_NAMES), mask, UNLABELLED).astype(np.uint8)
        cv2.imwrite(str(data_dir / "annotations" / split / name), labels)
    (data_dir / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")
