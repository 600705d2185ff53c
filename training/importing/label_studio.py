# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Annotations of Label Studio: what it exports as JSON and as JSON_MIN.

Source: `src/label_studio_sdk/converter` of https://github.com/HumanSignal/label-studio-sdk for boxes and brushes, and
`web/libs/editor/src/regions` of https://github.com/HumanSignal/label-studio for what is stored of each region.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from modeling_denseclip.configuration_denseclip import shorten
from modeling_denseclip.tools.files.photographs import IMAGE_SUFFIXES

from .json_files import read_json
from .outlines import Polygons, box_corners, read_numbers, turn
from .painting import Overlaps
from .pairing import Entry, LabelledShape, make_source, note_without_area, read_size
from .places import Photographs
from .sources import Listing, Source
from .splits import split_of_file


ANNOTATIONS = ("annotations", "completions")  # the second in early releases
LABELS = ("polygonlabels", "rectanglelabels", "ellipselabels", "brushlabels", "labels")
HASH, HASH_LENGTH = re.compile(r"[0-9a-f]{8}-."), 9  # what Label Studio puts before the names of uploaded files
NUM_CORNERS = 360  # of the polygon that stands for an ellipse


class _Annotation(NamedTuple):
    """What one person said of one picture: a list of results, each a region or something else."""

    task: str
    picture: str
    results: list[dict]
    created_at: str
    is_cancelled: bool


@dataclass(frozen=True)
class _InPercent:
    """
    A region within straight lines, or an ellipse. Lengths are in per cent of width and height, angles those of the
    picture in pixels.

    Attributes:
        points (`numpy.ndarray`): the corners (x, y), of shape (num_points, 2); of an ellipse or a box turned by
            `angle` in degrees around `pivot`.
    """

    points: np.ndarray
    angle: float = 0.0
    pivot: tuple[float, float] = (0.0, 0.0)

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        to_pixels = np.array([size[1], size[0]]) / 100
        points = self.points * to_pixels
        if self.angle:
            points = turn(points, self.angle, np.array(self.pivot) * to_pixels)
        return Polygons((points,))(size)


@dataclass(frozen=True)
class _Brush:
    """
    A mask as Label Studio packs it: the bytes of an RGBA picture in runs, of which alpha tells the region.

    Attributes:
        packed (`bytes`): see [`unpack_runs`].
    """

    packed: bytes

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        return unpack_runs(self.packed, 4 * size[0] * size[1]).reshape(*size, 4)[:, :, 3] > 0


class _Bits:
    """Numbers of any count of bits, one after the other, the highest bit of each first."""

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0

    def read(self, count: int) -> int:
        end = self.position + count
        if end > 8 * len(self.data):
            raise ValueError("its brush ends too early")
        part = int.from_bytes(self.data[self.position // 8 : (end + 7) // 8], "big")
        self.position = end
        return part >> (-end % 8) & ((1 << count) - 1)

    def read_many(self, num_values: int, count: int) -> np.ndarray:
        """Values of at most 32 bits each, of type int64."""
        end = self.position + num_values * count
        if end > 8 * len(self.data):
            raise ValueError("its brush ends too early")
        part = np.frombuffer(self.data, np.uint8)[self.position // 8 : (end + 7) // 8]
        first = self.position % 8
        bits = np.unpackbits(part)[first : first + num_values * count].reshape(num_values, count)
        self.position = end
        return bits @ (1 << np.arange(count - 1, -1, -1, dtype=np.int64))


def unpack_runs(packed: bytes, num_values: int) -> np.ndarray:
    """
    Unpack what Label Studio's "rle" holds.

    After the number of values (32 bits), the bits of a value less 1 (5) and the bits of four kinds of lengths less 1
    (4 each) come runs: a bit that is 1 for one value repeated and 0 for several values, the kind of the length (2),
    the length less 1, then the value or the values.

    Args:
        packed (`bytes`): the numbers of "rle".
        num_values (`int`): how many values are expected.

    Returns:
        `numpy.ndarray`: of shape (num_values,) and type uint8.

    Raises:
        ValueError: if they are not so many.
    """
    bits = _Bits(packed)
    if (told := bits.read(32)) != num_values:
        raise ValueError(f"its brush has {told} values, where 4 for each pixel are {num_values}")
    bits_per_value = bits.read(5) + 1
    bits_per_length = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(num_values, np.uint8)
    start = 0
    while start < num_values:
        is_repeated = bits.read(1)
        end = min(start + 1 + bits.read(bits_per_length[bits.read(2)]), num_values)
        if is_repeated:
            values[start:end] = bits.read(bits_per_value) & 255
        else:
            values[start:end] = bits.read_many(end - start, bits_per_value) & 255
        start = end
    return values


def find_label_studio(listing: Listing, overlaps: Overlaps | None = None) -> Source | None:
    """
    Photographs with an export of Label Studio, JSON or JSON_MIN.

    Of the annotations of a picture the newest is taken, cancelled ones apart; where regions overlap, the later one is
    seen. Polygons, boxes and ellipses are filled as those of COCO, brushes as they are. A picture that was turned on
    the screen (`image_rotation`) is taken as it lies, as its regions are. Classes are in the order of the alphabet,
    since these files do not tell their order.

    Args:
        listing (`Listing`): the files.
        overlaps (`str`, *optional*): "smaller" to let the smaller of two regions be seen, instead of the later one.

    Returns:
        `Source`, or `None` if there is no such file.

    Raises:
        ValueError: for a broken file, which it names, or if no photograph of it is there.
        OSError: for a file that cannot be read.
    """
    photographs = Photographs(listing)
    entries, left_out, counts = [], [], _Counts()
    was_found = False
    for file in listing.with_suffix(".json"):
        try:
            content = read_json(listing.path(file), _has_words)
        except ValueError as error:
            raise ValueError(f"{listing.path(file)}: {error}.") from error
        tasks = [content] if isinstance(content, dict) else content  # early releases wrote a file for each
        if not _is_label_studio(tasks):
            continue
        was_found = True
        annotations = []
        for index, task in enumerate(tasks):
            called = f"task {task.get('id', index) if isinstance(task, dict) else index}"
            try:
                annotations += _read_task(task, called)
            except ValueError as error:
                left_out.append(f"{file}, {called}: {error}")
        for annotation in _choose_newest(annotations, counts):
            try:
                entries.append(_make_entry(listing, file, annotation, photographs, counts))
            except ValueError as error:
                left_out.append(f"{file}, {annotation.task}: {error}")
    if not was_found:
        return None
    names = sorted({shape.label for entry in entries for shape in entry.shapes})
    notes = [*counts.notes(), "Classes are in the order of the alphabet, since the export does not tell their order."]
    return make_source("Label Studio", listing, entries, names, overlaps, notes, left_out, photographs)


class _Counts:
    """What is counted over all pictures."""

    def __init__(self):
        self.without_area = Counter()
        self.older, self.cancelled, self.turned, self.without_label, self.with_several = 0, 0, 0, 0, 0

    def notes(self) -> list[str]:
        told = {
            "annotations were passed over for newer ones of the same picture": self.older,
            "annotations were cancelled and passed over": self.cancelled,
            "regions have no label and are not drawn": self.without_label,
            "regions have several labels, of which the first counts": self.with_several,
            "regions were drawn on a picture turned on the screen; they are taken to lie on it as the file has it": (
                self.turned
            ),
        }
        return [f"{count} {what}." for what, count in told.items() if count] + note_without_area(self.without_area)


def _has_words(text: bytes) -> bool:
    is_whole = b'"data"' in text and any(f'"{name}"'.encode() in text for name in ANNOTATIONS)
    return is_whole or (b'"annotation_id"' in text and b'"annotator"' in text)


def _is_label_studio(tasks: object) -> bool:
    return isinstance(tasks, list) and any(
        (isinstance(task.get("data"), dict) and not task.keys().isdisjoint(ANNOTATIONS))
        or {"annotation_id", "annotator"} <= task.keys()
        for task in tasks
        if isinstance(task, dict)
    )


def _read_task(task: object, called: str) -> Iterator[_Annotation]:
    if not isinstance(task, dict):
        raise ValueError(f"it is a {type(task).__name__}, not a mapping")
    if "data" not in task:
        yield _read_minimal(task, called)
        return
    picture = _find_picture(task["data"])
    annotations = next((task[name] for name in ANNOTATIONS if name in task), [])
    if not isinstance(annotations, list) or not all(isinstance(annotation, dict) for annotation in annotations):
        raise ValueError("its annotations are no list of mappings")
    if not annotations:
        raise ValueError("nobody has annotated it")
    for annotation in annotations:
        yield _Annotation(
            called,
            picture,
            _check_results(annotation.get("result") or []),
            str(annotation.get("created_at") or ""),
            bool(annotation.get("was_cancelled") or annotation.get("skipped")),
        )


def _read_minimal(task: dict, called: str) -> _Annotation:
    """A line of JSON_MIN: the values of the results without what stands around them, in a list for each tool."""
    lists = [
        part
        for part in task.values()
        if isinstance(part, list) and part and all(isinstance(value, dict) for value in part)
    ]
    results = [
        {
            "value": value,
            "original_width": value.get("original_width"),
            "original_height": value.get("original_height"),
        }
        for part in lists
        for value in part
    ]
    return _Annotation(called, _find_picture(task), results, str(task.get("created_at") or ""), False)


def _check_results(results: object) -> list[dict]:
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise ValueError("its result is no list of mappings")
    return results


def _find_picture(data: object) -> str:
    """What the data of a task call the picture: "image", else the only entry that has the suffix of one."""
    if not isinstance(data, dict):
        raise ValueError(f"its data are a {type(data).__name__}, not a mapping")
    if isinstance(data.get("image"), str):
        return data["image"]
    found = [value for value in data.values() if isinstance(value, str) and _is_picture(value)]
    if len(found) != 1:
        raise ValueError(f"its data name {len(found) or 'no'} pictures, where one is expected")
    return found[0]


def _is_picture(address: str) -> bool:
    try:
        return _read_address(address).suffix.lower() in IMAGE_SUFFIXES
    except ValueError:
        return False


def _read_address(address: str) -> PurePosixPath:
    """
    The path of an address, absolute on some other machine: of a file on the Web, in a store, or "d" of one that Label
    Studio itself serves.
    """
    parts = urlsplit(address.replace("\\", "/"))
    path = unquote(parts.path)
    if path.endswith("/local-files/"):
        path = parse_qs(parts.query).get("d", [""])[0]
    return PurePosixPath("/" + path.lstrip("/"))


def _choose_newest(annotations: list[_Annotation], counts: _Counts) -> list[_Annotation]:
    """The newest annotation of each picture; of those with the same time, or without, the last."""
    newest: dict[str, _Annotation] = {}
    for annotation in annotations:
        if annotation.is_cancelled:
            counts.cancelled += 1
            continue
        former = newest.get(annotation.picture)
        counts.older += former is not None
        if former is None or annotation.created_at >= former.created_at:
            newest[annotation.picture] = annotation
    return list(newest.values())


def _make_entry(
    listing: Listing, file: PurePosixPath, annotation: _Annotation, photographs: Photographs, counts: _Counts
) -> Entry:
    photograph = _find_photograph(file, annotation.picture, photographs)
    labelled = {str(result.get("id")) for result in annotation.results if _labels_of(result)}
    shapes, sizes = [], set()
    for index, result in enumerate(annotation.results):
        try:
            shape = _read_shape(result, labelled, counts)
            if shape is not None:
                shapes.append(shape)
                sizes.add(read_size(result.get("original_height"), result.get("original_width")))
        except ValueError as error:
            raise ValueError(f"result {index}: {error}") from error
    if len(sizes) > 1:
        raise ValueError(f"its regions tell several sizes of the picture: {sorted(map(str, sizes))}")
    return Entry(
        file=listing.path(file),
        where=f"{listing.path(file)}, {annotation.task}",
        photograph=photograph,
        name=annotation.picture,
        shapes=shapes,
        size=sizes.pop() if sizes else None,
        split=split_of_file(file, photograph),
    )


def _find_photograph(file: PurePosixPath, picture: str, photographs: Photographs) -> PurePosixPath:
    """The photograph of this name, else of the name that it had before it was uploaded."""
    path = _read_address(picture)
    folders = [[file.parent], [file.parent / "images"], [PurePosixPath()], [PurePosixPath("images")]]
    if HASH.match(path.name) is not None and not photographs.has_name(path.name):
        path = path.with_name(path.name[HASH_LENGTH:])
    return photographs.find(path.as_posix(), folders)


def _labels_of(result: dict) -> list[str]:
    value = result.get("value")
    labels = next((value[name] for name in LABELS if value.get(name)), []) if isinstance(value, dict) else []
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise ValueError(f"its labels are {shorten(str(labels))}, not a list of names")
    return [label.strip() for label in labels]


def _read_shape(result: dict, labelled: set, counts: _Counts) -> LabelledShape | None:
    """
    A region with its label; none for what is no region, covers no area, or is the second of a pair: of regions whose
    tool and labels are separate there are two results, of which one has the label.
    """
    value = result.get("value")
    if not isinstance(value, dict):
        return None
    labels = _labels_of(result)
    read = _choose_reader(value)
    if read is None:
        if kind := next((name for name in value if name.endswith("labels")), None):
            counts.without_area[kind] += 1
        return None
    if not labels:
        counts.without_label += str(result.get("id")) not in labelled
        return None
    render = read(value)
    if render is None:
        counts.without_area["polygonlabels that are open or of fewer than three points"] += 1
        return None
    counts.with_several += len(labels) > 1
    counts.turned += bool(result.get("image_rotation"))
    return LabelledShape(labels[0], render)


def _choose_reader(value: dict) -> Callable[[dict], Callable | None] | None:
    """What reads a region of this kind; none for a kind that covers no area."""
    if "rle" in value or value.get("format") == "rle":
        return _read_brush
    if "points" in value:
        return _read_polygon
    if "radiusX" in value:
        return _read_ellipse
    if {"x", "y", "width", "height"} <= value.keys():
        return _read_box
    if "imageDataURL" in value or "vertices" in value:
        raise ValueError("it is a bitmask or a vector, which are not understood: draw it with a brush or as a polygon")
    return None


def _numbers(value: dict, *names: str) -> list[float]:
    return read_numbers([value.get(name) for name in names], (len(names),), ", ".join(names)).tolist()


def _angle(value: dict) -> float:
    return float(read_numbers(value.get("rotation") or 0, (), "rotation"))


def _read_polygon(value: dict) -> _InPercent | None:
    points = read_numbers(value["points"], (-1, 2), "points")
    return _InPercent(points) if len(points) > 2 and value.get("closed") is not False else None


def _read_box(value: dict) -> _InPercent:
    """A box, turned around its corner (x, y)."""
    left, top, width, height = _numbers(value, "x", "y", "width", "height")
    return _InPercent(box_corners(left, top, left + width, top + height), _angle(value), (left, top))


def _read_ellipse(value: dict) -> _InPercent:
    """An ellipse, turned around its centre (x, y)."""
    center_x, center_y, radius_x, radius_y = _numbers(value, "x", "y", "radiusX", "radiusY")
    angles = np.linspace(0, 2 * np.pi, NUM_CORNERS, endpoint=False)
    points = np.stack([center_x + radius_x * np.cos(angles), center_y + radius_y * np.sin(angles)], axis=1)
    return _InPercent(points, _angle(value), (center_x, center_y))


def _read_brush(value: dict) -> _Brush:
    packed = value.get("rle")
    try:
        return _Brush(bytes(packed if isinstance(packed, list) else None))
    except (TypeError, ValueError) as error:
        raise ValueError(f"its rle is no list of bytes ({shorten(error)})") from error
