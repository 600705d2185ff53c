# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Annotations of labelme: a JSON file for each photograph.

Source: `labelme/utils/shape.py` of https://github.com/wkentaro/labelme, whose `shapes_to_label` paints these masks,
and its `examples/semantic_segmentation`, where a labels.txt begins with `__ignore__` and `_background_`.
"""

import base64
import binascii
import math
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath

import numpy as np
import PIL.Image
import PIL.ImageDraw

from modeling_denseclip.configuration_denseclip import shorten
from modeling_denseclip.tools.files.photographs import naming_errors, open_image

from .json_files import read_json
from .outlines import Patch, check_reach, read_numbers
from .painting import Overlaps
from .pairing import Entry, LabelledShape, make_source, note_without_area, read_size
from .places import Photographs, with_slashes
from .sources import UNCOVERED, Listing, Source
from .splits import split_of_folders


IGNORE, BACKGROUND = "__ignore__", "_background_"
LABELS_FILE = "labels.txt"
LINE_WIDTH, POINT_RADIUS = 10, 5
# How many points a shape of each type has; of those that are not here, three at least.
NUM_POINTS = {"rectangle": (2, 4), "circle": (2,), "line": (2,), "point": (1,), "mask": (2,)}
POLYGONS = ("polygon", "oriented_rectangle", "rotation")
# Several points are prompts to a model that draws the shape; labelme does not draw them itself.
NO_AREAS = ("points",)
FIELDS = ("imagePath", "imageData", "imageHeight")  # one of these a file has, beside its shapes


@dataclass(frozen=True)
class _Drawn:
    """
    A shape as labelme draws it, by Pillow.

    Attributes:
        kind (`str`): "polygon", "rectangle", "circle", "line" (through any number of points) or "point".
        points (`numpy.ndarray`): (x, y) in pixels, of shape (num_points, 2).
    """

    kind: str
    points: np.ndarray

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        check_reach(self.points, size)
        canvas = PIL.Image.new("L", (size[1], size[0]))
        draw = PIL.ImageDraw.Draw(canvas)
        points = [tuple(point) for point in self.points.tolist()]
        if self.kind == "polygon":
            draw.polygon(points, outline=1, fill=1)
        elif self.kind == "rectangle":
            draw.rectangle([*self.points.min(axis=0).tolist(), *self.points.max(axis=0).tolist()], outline=1, fill=1)
        elif self.kind == "line":
            draw.line(points, fill=1, width=LINE_WIDTH)
        else:
            center_x, center_y = points[0]
            # A circle is told by its centre and a point on it.
            radius = math.dist(*points) if self.kind == "circle" else POINT_RADIUS
            box = [center_x - radius, center_y - radius, center_x + radius, center_y + radius]
            draw.ellipse(box, outline=1, fill=1)
        return np.array(canvas, dtype=bool)


@dataclass(frozen=True)
class _Mask:
    """
    A mask of labelme.

    Attributes:
        encoded (`bytes`): a PNG of one channel; what is not 0 belongs to the object.
        left (`int`), top (`int`), right (`int`), bottom (`int`): the pixels that it covers, the last ones included.
    """

    encoded: bytes
    left: int
    top: int
    right: int
    bottom: int

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        try:
            with naming_errors("its mask"):
                pixels = np.array(open_image(BytesIO(self.encoded), "its mask"))
        except OSError as error:
            raise ValueError(str(error)) from error
        expected = (self.bottom - self.top + 1, self.right - self.left + 1)
        if pixels.shape != expected:
            raise ValueError(f"its mask is of shape {pixels.shape}, where its points tell {expected}")
        return Patch(pixels.astype(bool), self.left, self.top)(size)


def find_labelme(listing: Listing, overlaps: Overlaps | None = None) -> Source | None:
    """
    Photographs with a JSON file of labelme each.

    Shapes are drawn as labelme draws them, later ones over earlier ones: lines 10 pixels wide, points as discs with a
    radius of 5. `__ignore__` is unlabelled, and `_background_` is what nothing covers. Names are in the order of the
    files called labels.txt, then in that of the alphabet.

    Args:
        listing (`Listing`): the files.
        overlaps (`str`, *optional*): "smaller" to let the smaller of two shapes be seen, instead of the later one.

    Returns:
        `Source`, or `None` if there is no such file. If labelme's `_background_` is in use, `names` has "background"
        for `UNCOVERED`.

    Raises:
        ValueError: if no photograph with an annotation that can be understood is there.
        OSError: for a file that cannot be read.
    """
    photographs = Photographs(listing)
    entries, left_out, num_without_area = [], [], Counter()
    was_found = False
    for file in listing.with_suffix(".json"):
        try:
            content = read_json(listing.path(file), _has_words)
        except ValueError as error:
            was_found = True
            left_out.append(f"{file}: {error}")
            continue
        if not _is_labelme(content):
            continue
        was_found = True
        try:
            entries.append(_read_entry(listing, file, content, photographs, num_without_area))
        except ValueError as error:
            left_out.append(f"{file}: {error}")
    if not was_found:
        return None
    # If several files are of one photograph, the one that is called like it counts, as the last.
    entries.sort(key=lambda entry: entry.file.stem == entry.photograph.stem)

    drawn = {shape.label for entry in entries for shape in entry.shapes}
    listed, notes = _read_labels(listing)
    unlisted = sorted(drawn - set(listed))
    if unlisted and listed:
        notes.append(f"Labels that {LABELS_FILE} does not list: {', '.join(map(repr, unlisted))}.")
    elif unlisted:
        notes.append(f"There is no {LABELS_FILE}, so classes are in the order of the alphabet.")
    labels = listed + unlisted
    names = [label for label in labels if label not in (IGNORE, BACKGROUND)]
    special = {BACKGROUND: UNCOVERED, IGNORE: len(names)}
    notes += note_without_area(num_without_area)
    source = make_source("labelme", listing, entries, names, overlaps, notes, left_out, photographs, special)
    if BACKGROUND in labels:
        source.names = {UNCOVERED: "background", **source.names}
    if IGNORE in labels:
        source.unlabelled = {special[IGNORE]}
    return source


def _has_words(text: bytes) -> bool:
    return b'"shapes"' in text and any(f'"{name}"'.encode() in text for name in FIELDS)


def _is_labelme(content: object) -> bool:
    has_shapes = isinstance(content, dict) and isinstance(content.get("shapes"), list)
    return has_shapes and not content.keys().isdisjoint(FIELDS)


def _read_labels(listing: Listing) -> tuple[list[str], list[str]]:
    """The labels of all files called labels.txt, each once, and notes on them."""
    labels, notes = {}, []
    for file in listing.files:
        if file.name.lower() != LABELS_FILE:
            continue
        try:
            text = listing.path(file).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{listing.path(file)} is no text in UTF-8 ({shorten(error)}).") from error
        labels |= dict.fromkeys(line.strip() for line in text.splitlines() if line.strip())
        notes.append(f"Classes are in the order of {file}.")
    return list(labels), notes


def _read_entry(
    listing: Listing, file: PurePosixPath, content: dict, photographs: Photographs, num_without_area: Counter
) -> Entry:
    photograph = _find_photograph(file, content, photographs)
    shapes = []
    for index, shape in enumerate(content["shapes"]):
        try:
            labelled = _read_shape(shape, num_without_area)
        except ValueError as error:
            raise ValueError(f"shape {index}: {error}") from error
        if labelled is not None:
            shapes.append(labelled)
    return Entry(
        file=listing.path(file),
        where=str(listing.path(file)),
        photograph=photograph,
        name=photograph.as_posix(),
        shapes=shapes,
        size=read_size(content.get("imageHeight"), content.get("imageWidth")),
        split=split_of_folders(photograph) or split_of_folders(file),
    )


def _find_photograph(file: PurePosixPath, content: dict, photographs: Photographs) -> PurePosixPath:
    """
    The picture that `imagePath` tells, else the one beside the file that is called like it, else the one anywhere that
    is called as `imagePath` tells: that path is often of another machine, and files are renamed.
    """
    path, _ = with_slashes(content.get("imagePath") or file.stem)
    found = (
        photographs.at(file.parent, path)
        or photographs.at(file.parent, path.split("/")[-1])
        or photographs.with_stem(file.parent / file.stem)
    )
    if found is not None:
        photographs.claimed.add(found)
        return found
    try:
        return photographs.find(path, [])
    except ValueError as error:
        if content.get("imageData"):
            raise ValueError(
                f"{error} but inside the JSON, as imageData: write it beside as {file.stem}.png"
            ) from error
        raise


def _read_shape(shape: object, num_without_area: Counter) -> LabelledShape | None:
    """A shape; none for one that covers no area, which is counted."""
    if not isinstance(shape, dict):
        raise ValueError(f"it is a {type(shape).__name__}, not a mapping")
    label = shape.get("label")
    if not isinstance(label, str) or not label.strip():
        raise ValueError("it has no label")
    kind = shape.get("shape_type") or "polygon"  # early releases had no other
    points = read_numbers(shape.get("points"), (-1, 2), "points")
    if kind in NO_AREAS or (kind in (*POLYGONS, "linestrip") and len(points) < (2 if kind == "linestrip" else 3)):
        num_without_area[kind if kind in NO_AREAS else f"{kind} of {len(points)} points"] += 1
        return None
    if kind not in (*NUM_POINTS, *POLYGONS, "linestrip"):
        raise ValueError(f"its shape_type {shorten(str(kind))!r} is unknown")
    if kind in NUM_POINTS and len(points) not in NUM_POINTS[kind]:
        raise ValueError(f"a {kind} has {NUM_POINTS[kind][0]} points, not {len(points)}")
    if kind == "mask":
        return LabelledShape(label.strip(), _read_mask(shape, points))
    drawn_as = {"linestrip": "line"}.get(kind, "polygon" if kind in POLYGONS else kind)
    return LabelledShape(label.strip(), _Drawn(drawn_as, points))


def _read_mask(shape: dict, points: np.ndarray) -> _Mask:
    try:
        encoded = base64.b64decode(shape.get("mask"), validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError(f"its mask is no text of base64 ({shorten(error)})") from error
    (left, top), (right, bottom) = (tuple(map(int, point)) for point in points.tolist())
    return _Mask(encoded, left, top, right, bottom)
