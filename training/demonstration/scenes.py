# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Painted scenes for the demonstration: a village at dusk, under the sun or the moon, with a mask of 17 classes.

They are made so that the score map is needed. The village at one end of the picture looks the same by
day and by night, and still its classes are "day wall" or "night wall", "day pond" or "night pond", and so on: the noun
is seen from near, and "day" or "night" only at the other end, where either the sun or the moon stands. That is further
than the convolutions of a small DenseCLIP reach. Only the attention pool sees the whole picture, and what it sees
reaches the decoder in one way: compared with the class names, as the score map.

`training.demo_scenes` writes a small data set of them, for the tutorial in docs/your_own_data.md. Its 11 classes leave
"day" and "night" out, so that crops can be learned from, as with photographs.
"""

from pathlib import Path

import cv2
import numpy as np


PALETTE = {
    "day sky": (150, 205, 255),
    "night sky": (60, 66, 140),
    "sun": (255, 210, 40),
    "moon": (235, 235, 250),
    "hill": (150, 120, 190),
    "meadow": (130, 190, 80),
    "tree": (30, 110, 60),
    "day wall": (255, 226, 150),
    "night wall": (120, 100, 200),
    "day window": (0, 170, 200),
    "night window": (20, 40, 130),
    "day roof": (235, 80, 60),
    "night roof": (130, 20, 80),
    "day fence": (240, 150, 40),
    "night fence": (110, 70, 40),
    "day pond": (70, 170, 255),
    "night pond": (30, 70, 180),
}
CLASS_NAMES = tuple(PALETTE)
NOUNS = tuple(dict.fromkeys(name.split()[-1] for name in CLASS_NAMES))  # "sky", "sun", ...: by day and by night alike
HEIGHT, WIDTH = 96, 384
VILLAGE = 224  # the village begins here; the sun and the moon end before 40
SUPERSAMPLING = 2

Point = tuple[float, float]


class Painter:
    """Paints a picture and its mask together, at twice the final size; coordinates are final pixels (x, y)."""

    def __init__(self, generator: np.random.Generator):
        self.generator = generator
        size = (HEIGHT * SUPERSAMPLING, WIDTH * SUPERSAMPLING)
        self.pixels = np.zeros((*size, 3), dtype=np.float32)
        self.mask = np.zeros(size, dtype=np.uint8)
        # Of shape (height, 1) and (1, width).
        rows, columns = np.indices(size, dtype=np.float32, sparse=True)
        self.rows, self.columns = rows / SUPERSAMPLING, columns / SUPERSAMPLING

    def noise(self, cell: float, stretch: float = 1.0) -> np.ndarray:
        """Smooth noise in about [-1, 1] that changes over `cell` pixels, and over `stretch` times that along x."""
        height, width = self.mask.shape
        shape = (max(2, round(HEIGHT / cell)), max(2, round(WIDTH / (cell * stretch))))
        coarse = self.generator.uniform(-1, 1, shape).astype(np.float32)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    def region(self, outline: list[Point]) -> np.ndarray:
        """The inside of a polygon."""
        inside = np.zeros(self.mask.shape, dtype=np.uint8)
        cv2.fillPoly(inside, [np.int32(np.round(np.float64(outline) * SUPERSAMPLING))], 1)
        return inside.astype(bool)

    def disc(self, center: Point, radius: float) -> np.ndarray:
        """The inside of a circle."""
        inside = np.zeros(self.mask.shape, dtype=np.uint8)
        x, y = (round(coordinate * SUPERSAMPLING) for coordinate in center)
        cv2.circle(inside, (x, y), round(radius * SUPERSAMPLING), 1, thickness=cv2.FILLED)
        return inside.astype(bool)

    def fill(self, where: np.ndarray, name: str, color, texture: np.ndarray | float = 0.0) -> None:
        """Paint a region: RGB color in [0, 255], made lighter or darker by `texture`, a fraction."""
        # Looking for its pixels in the rectangle around a small region alone takes a fraction of the time.
        x, y, width, height = cv2.boundingRect(where.view(np.uint8))
        box = slice(y, y + height), slice(x, x + width)
        where, texture = where[box], np.broadcast_to(np.float32(texture), self.mask.shape)[box]
        np.copyto(self.pixels[box], np.float32(color) * (1 + texture[..., None]), where=where[..., None])
        self.mask[box][where] = CLASS_NAMES.index(name)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """The picture, uint8 `(height, width, 3)`, smoothed; and its mask, uint8 `(height, width)`, not smoothed."""
        pixels = cv2.resize(self.pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        pixels = pixels + self.generator.normal(0, 2.0, pixels.shape)  # film grain
        center = SUPERSAMPLING // 2
        return np.clip(pixels, 0, 255).astype(np.uint8), self.mask[center::SUPERSAMPLING, center::SUPERSAMPLING].copy()


def paint_scene(generator: np.random.Generator, night: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
    """
    Paint one scene, by day or by night (drawn by lot if `None`): the picture, uint8 `(96, 384, 3)` RGB, and its mask,
    uint8 `(96, 384)` with ids of `CLASS_NAMES`.
    """
    night = bool(generator.integers(2)) if night is None else night
    painter = Painter(generator)
    _paint_sky(painter, night)
    _paint_land(painter)
    _paint_village(painter, "night" if night else "day")
    image, mask = painter.finish()
    if generator.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def write_scenes(
    dataset_dir: str | Path, num_training: int, num_validation: int, seed: int = 0, nouns_only: bool = False
) -> None:
    """
    Write a data set of scenes, which `seed` decides, as a folder of images and masks (see
    [`training.data.segmentation_folder`]). With `nouns_only` its classes are `NOUNS` instead of `CLASS_NAMES`.
    """
    dataset_dir = Path(dataset_dir)
    class_names = NOUNS if nouns_only else CLASS_NAMES
    new_ids = np.uint8([class_names.index(name.split()[-1] if nouns_only else name) for name in CLASS_NAMES])
    for split, number, count in (("training", 0, num_training), ("validation", 1, num_validation)):
        for kind in ("images", "annotations"):
            (dataset_dir / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            # As many nights as days, in both splits.
            image, mask = paint_scene(np.random.default_rng((seed, number, index)), night=index % 2 == 1)
            name = f"scene_{index:04d}.png"
            cv2.imwrite(str(dataset_dir / "images" / split / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            cv2.imwrite(str(dataset_dir / "annotations" / split / name), new_ids[mask])
    (dataset_dir / "classes.txt").write_text("\n".join(class_names) + "\n", encoding="utf-8")


def _paint_sky(painter: Painter, night: bool) -> None:
    generator = painter.generator
    painter.mask[:] = CLASS_NAMES.index("night sky" if night else "day sky")
    # From violet above to orange at the horizon, with streaks of cloud: one and the same dusk for sun and moon.
    zenith = np.float32([92, 88, 150]) + generator.uniform(-12, 12, 3).astype(np.float32)
    horizon = np.float32([250, 168, 120]) + generator.uniform(-14, 5, 3).astype(np.float32)
    painter.pixels[:] = zenith + (horizon - zenith) * np.clip(painter.rows / 52, 0, 1)[..., None] ** 0.8
    clouds = np.clip(painter.noise(9, 5) + 0.5 * painter.noise(4, 4) - 0.1, 0, 1)[..., None]
    painter.pixels += 0.45 * clouds * (np.float32([255, 214, 200]) - painter.pixels)

    radius = generator.uniform(10, 12)
    center = (generator.uniform(15, 27), generator.uniform(15, 25))
    distance = np.hypot(painter.columns - center[0], painter.rows - center[1])
    glow = np.exp(-np.clip(distance - radius, 0, None) / 4)[..., None]
    painter.pixels += 0.5 * glow * (np.float32([255, 236, 205]) - painter.pixels)
    # Drawn in any case, so that what follows is the same by day and by night.
    seas, craters = painter.noise(4), generator.uniform(0, 1, (4, 3))
    if night:
        painter.fill(distance < radius, "moon", (226, 230, 240), 0.10 * seas)
        for angle, away, size in craters:
            offset = 0.6 * away * radius * np.float64([np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)])
            crater = painter.disc(tuple(center + offset), (0.12 + 0.12 * size) * radius)
            painter.fill(crater, "moon", (176, 184, 204))
    else:
        painter.fill(distance < radius, "sun", (255, 226, 96), 0.12 * (1 - distance / radius))


def _paint_land(painter: Painter) -> None:
    generator = painter.generator
    columns = np.arange(0, WIDTH + 4, 4)

    def below(line: np.ndarray) -> np.ndarray:
        return painter.region([(0, HEIGHT), *zip(columns.tolist(), line.tolist(), strict=True), (WIDTH, HEIGHT)])

    for layer, (level, color) in enumerate(((44, (104, 96, 138)), (50, (78, 92, 104)))):
        ridge = level + sum(
            generator.uniform(1.5, 4.5) / wave * np.sin(columns * wave / 38 + generator.uniform(0, 2 * np.pi))
            for wave in (1, 2, 3)
        )
        painter.fill(below(ridge), "hill", color, 0.12 * painter.noise(5 - 2 * layer, 2))

    edge = 56 + 2 * np.sin(columns / 50 + generator.uniform(0, 2 * np.pi))
    nearness = 0.008 * (painter.rows - HEIGHT)
    texture = nearness + 0.10 * painter.noise(2, 3) + 0.12 * painter.noise(12, 3)
    painter.fill(below(edge), "meadow", (124, 160, 84), texture)

    # From far to near, so that near trees stand before far ones.
    for foot in np.sort(generator.uniform(60, 90, generator.integers(4, 8))):
        _paint_tree(painter, generator.uniform(8, VILLAGE - 24), foot, size=0.35 + 0.65 * (foot - 60) / 30)


def _paint_tree(painter: Painter, x: float, foot: float, size: float) -> None:
    generator = painter.generator
    height, half = size * generator.uniform(36, 48), size * 2.2
    trunk = [(x - half, foot), (x - half / 2, foot - height), (x + half / 2, foot - height), (x + half, foot)]
    painter.fill(painter.region(trunk), "tree", (92, 66, 48), 0.2 * painter.noise(2, 0.4))
    leaves = painter.noise(2.2)
    for _ in range(9):
        center = (x + size * generator.uniform(-11, 11), foot - height * generator.uniform(0.6, 1.05))
        radius = size * generator.uniform(5, 9)
        # Lighter above than below.
        shade = 0.25 * leaves + 0.25 * np.clip((center[1] - painter.rows) / radius, -1, 1)
        painter.fill(painter.disc(center, radius), "tree", (56, 98, 62), shade)


def _paint_village(painter: Painter, time: str) -> None:
    """Two houses behind a fence, and a pond. Nothing but the names in the mask depends on `time`, "day" or "night"."""
    generator = painter.generator
    for left in (generator.uniform(VILLAGE + 2, VILLAGE + 12), generator.uniform(VILLAGE + 82, VILLAGE + 92)):
        _paint_house(painter, left, time)
    _paint_fence(painter, time)

    angles = np.linspace(0, 2 * np.pi, 40)
    center, width = generator.uniform(VILLAGE + 62, VILLAGE + 98), generator.uniform(42, 58)
    shore = np.stack([center + width * np.cos(angles), 86 + generator.uniform(6.5, 8) * np.sin(angles)], axis=1)
    ripples = 0.10 * painter.noise(1.5, 6) + 0.012 * (painter.rows - 86)
    painter.fill(painter.region(shore.tolist()), f"{time} pond", (112, 134, 168), ripples)


def _paint_house(painter: Painter, left: float, time: str) -> None:
    """A house in oblique view: the front with windows, the gable's side in shade, a tiled roof."""
    generator = painter.generator
    num_columns = generator.integers(2, 4)
    width, bottom = 19.0 * num_columns, generator.uniform(62, 65)
    top = bottom - generator.uniform(23, 26)
    right, depth, rise = left + width, generator.uniform(8, 12), generator.uniform(10, 13)

    color = np.float32([222, 204, 170]) * generator.uniform(0.85, 1.05, 3).astype(np.float32)
    plaster = 0.05 * painter.noise(2) + 0.05 * painter.noise(20)
    front = [(left, bottom), (left, top), (right, top), (right, bottom)]
    side = [(right, bottom), (right, top), (right + depth, top - 2), (right + depth, bottom - 3)]
    painter.fill(painter.region(front), f"{time} wall", color, plaster)
    painter.fill(painter.region(side), f"{time} wall", color, plaster - 0.3)
    for column in range(num_columns):
        x, y, pane_width, pane_height = left + 19 * column + 5, top + 7, 9.0, 11.0
        pane = [(x, y), (x + pane_width, y), (x + pane_width, y + pane_height), (x, y + pane_height)]
        reflection = 0.3 * np.clip((y + pane_height - painter.rows) / pane_height, 0, 1)
        painter.fill(painter.region(pane), f"{time} window", (66, 74, 96), reflection)

    eaves = 3
    ridge = [(left + 5, top - rise), (right + depth - 4, top - rise - 1)]
    roof = [(left - eaves, top + 1), ridge[0], ridge[1], (right + depth + eaves, top - 1), (right + eaves, top + 1)]
    tiles = 0.10 * np.sin(2.6 * painter.rows) + 0.08 * painter.noise(2)
    painter.fill(painter.region(roof), f"{time} roof", (168, 74, 58), tiles)


def _paint_fence(painter: Painter, time: str) -> None:
    """A close-boarded fence, higher towards the edge of the picture, which is nearer."""
    generator = painter.generator
    texture = 0.06 * painter.noise(2)
    x, foot = VILLAGE + generator.uniform(-6, 6), generator.uniform(71, 73)
    width, height = 4.0, generator.uniform(7, 9)
    while x < WIDTH:
        board = [(x, foot), (x, foot - height), (x + width / 2, foot - height - 1.5), (x + width, foot - height)]
        shade = texture + generator.uniform(-0.18, 0.05)
        painter.fill(painter.region([*board, (x + width, foot)]), f"{time} fence", (150, 112, 78), shade)
        x, foot, width, height = x + width, foot + 0.1, width * 1.01, height * 1.01
