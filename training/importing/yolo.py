# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Objects in text files as YOLO reads them, of ultralytics itself, CVAT, Roboflow and Label Studio.

Source: [the form](https://docs.ultralytics.com/datasets/segment/), and how ultralytics' own `data/utils.py` reads it.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np

from modeling_denseclip.configuration_denseclip import shorten
from modeling_denseclip.tools.files.loading import MAX_YAML_BYTES, parse_yaml
from modeling_denseclip.tools.files.photographs import open_file

from .painting import DrawShapes, Overlaps, Shape
from .places import Photographs, join, name_photographs, with_slashes
from .sources import Item, Listing, Source
from .splits import split_of_folders
from .words import split_in


SPLIT_KEYS = ("train", "val", "validation", "test", "minival")  # of data.yaml
NAMES_FILES = ("classes.txt", "obj.names")
# How far coordinates may lie outside of a picture, whose sides are 1: as ultralytics allows.
TOLERANCE = 0.01
# Bytes of a file of one photograph's objects.
MAXIMUM_BYTES = 64 * 2**20
# Files that are looked at to see whether a folder without a data.yaml is of this form.
SAMPLE = 20

BOXES_ALONE = "objects have a box alone; it is filled"
EMPTY = "photographs have an empty .txt, or none: nothing is there, as ultralytics takes it"


def find_yolo(listing: Listing, overlaps: Overlaps | None = None) -> Source | None:
    """
    The objects of a YOLO data set: a data.yaml, or photographs with texts of the form beside them or in labels/.

    Keys are the numbers of classes. The text of images/a.jpg is labels/a.txt, by the last "images" of its path; where
    no photograph has such a text, or its path has no "images", it is the text beside it.

    Args:
        listing (`Listing`): the data set.
        overlaps (`str`, *optional*, defaults to `"smaller"`): which of two objects is seen where they overlap.

    Returns:
        `Source`, *optional*: None for another form.

    Raises:
        ValueError: for a data.yaml that contradicts itself or another one.
        OSError: for a file that cannot be read.
    """
    photographs = Photographs(listing)
    texts = frozenset(text for text in listing.with_suffix(".txt") if text.name not in NAMES_FILES)
    pairs = _add_texts({image: split_of_folders(image) for image in listing.images}, texts)
    if not any(pair.text is not None for pair in pairs):
        return None
    notes: list[str] = []
    config = _find_config(listing)
    if config is not None:
        pairs = _follow_config(listing, config, photographs, texts, notes)
        names, names_file = config.names, config.place
    elif _are_of_this_form(listing, pairs):
        pairs = _drop_unlabelled_folders(pairs, notes)
        names, names_file = _read_names_files(listing)
    else:
        return None
    keys, names, notes_on_names = _unify_names(names)
    notes += notes_on_names
    remarks: Counter[str] = Counter()
    left_out: list[str] = []
    annotated = []
    for pair in _drop_unlabelled_splits(pairs, notes):
        try:
            rows = [] if pair.text is None else _read_rows(listing, pair.text)
            _check_classes(rows, keys, names_file)
        except ValueError as error:
            left_out.append(f"{pair.image}: {error} ({pair.text})")
            continue
        annotated.append((pair, rows))
        remarks[EMPTY] += not rows
        remarks[BOXES_ALONE] += sum(isinstance(row.render, Box) for row in rows)
    if left_out:
        notes.append(f"{len(left_out):,} photographs are left out.")
    notes += [f"{count:,} {remark}." for remark, count in remarks.items() if count]
    objects = [row.render for _, rows in annotated for row in rows]
    kinds = [
        word
        for word, kind in (("polygons", Outline), ("boxes", Box))
        if any(isinstance(render, kind) for render in objects)
    ]
    return Source(
        form=f"YOLO {', '.join(kinds) or 'without objects'}",
        items=_make_items(listing, annotated, keys, overlaps or "smaller"),
        names=names,
        notes=notes,
        left_out=left_out,
    )


# What can be drawn.


@dataclass(frozen=True, eq=False)
class Outline:
    """
    A polygon, filled with its border as ultralytics fills it: corners are cut down to whole pixels.

    Attributes:
        points (`numpy.ndarray`): of shape (corners, 2) and type float32: x and y as shares of width and height.
    """

    points: np.ndarray

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        height, width = size
        mask = np.zeros(size, np.uint8)
        corners = (self.points * np.array([width, height], np.float32)).astype(np.int32)
        cv2.fillPoly(mask, [corners], 1)
        return mask.astype(bool)


@dataclass(frozen=True, eq=False)
class Box:
    """
    The pixels between the sides of a box, each brought to the nearest border of pixels. No tool fills boxes, so that
    there is no rule to follow; COCO's boxes are filled alike.

    Attributes:
        sides (`numpy.ndarray`): centre, width and height as shares of those of the picture, of type float32.
    """

    sides: np.ndarray

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        height, width = size
        x, y, box_width, box_height = self.sides
        columns = np.rint([(x - box_width / 2) * width, (x + box_width / 2) * width])
        rows = np.rint([(y - box_height / 2) * height, (y + box_height / 2) * height])
        (left, right), (top, bottom) = np.maximum([columns, rows], 0).astype(int)
        mask = np.zeros(size, bool)
        mask[top:bottom, left:right] = True
        return mask


# data.yaml.


@dataclass(frozen=True)
class _Config:
    place: PurePosixPath
    path: str | None  # of the data set, where it says so
    names: dict[int, str]
    parts: dict[str, list[str]] = field(default_factory=dict)  # folders and lists of photographs of each split


@dataclass(frozen=True)
class _Pair:
    image: PurePosixPath
    text: PurePosixPath | None
    split: str | None


def _find_config(listing: Listing) -> _Config | None:
    """The YAML file that describes the data set; of several that say the same, the one nearest to the root."""
    configs = [
        config
        for place in listing.with_suffix(".yaml", ".yml")
        if (config := _read_config(listing, place)) is not None
    ]
    configs.sort(key=lambda config: len(config.place.parts))
    for other in configs[1:]:
        if (other.names, other.parts) != (configs[0].names, configs[0].parts):
            raise ValueError(
                f"{configs[0].place} and {other.place} describe the data set differently. Move one of them out of the"
                " folder."
            )
    return configs[0] if configs else None


def _read_config(listing: Listing, place: PurePosixPath) -> _Config | None:
    """None for YAML of another kind."""
    path = listing.path(place)
    text = _read_bytes(listing, place, MAX_YAML_BYTES + 1)
    # Other YAML of any kind is not read: it may be long, or of a dialect of its own.
    if not any(f"{key}:".encode() in text for key in SPLIT_KEYS) or not (b"names" in text or b"nc:" in text):
        return None
    try:
        content = parse_yaml(text.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {shorten(error)}. Save it anew, as UTF-8.") from error
    if not isinstance(content, dict) or not ("names" in content or "nc" in content):
        return None
    parts = {key: _as_texts(content[key], key, path) for key in SPLIT_KEYS if content.get(key)}
    if not parts:
        return None
    if content.get("kpt_shape"):
        raise ValueError(
            f"{path} has a kpt_shape, so that its texts hold boxes and key points. Import a data set of outlines."
        )
    names = _read_names(content.get("names"), path)
    count = content.get("nc")
    if names and count is not None and count != len(names):
        raise ValueError(f"{path} has {len(names)} names and nc: {shorten(repr(count))}, which must be their number.")
    root = content.get("path")
    return _Config(place, root if isinstance(root, str) and root.strip() else None, names, parts)


def _as_texts(value: Any, called: str, path: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in values):
        raise ValueError(
            f"{path} has {called}: {shorten(repr(value))}. It is a folder, a .txt list, or a list of these."
        )
    return values


def _read_names(value: Any, path: object) -> dict[int, str]:
    """Names by the numbers of their classes; empty where there are none."""
    if not value:
        return {}
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    names = {}
    for key, name in pairs:
        number = int(key) if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10 else key
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**31:
            raise ValueError(f"{path} has a name of class {shorten(repr(key))}. Classes are counted from 0.")
        if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
            # Such as no, which is false in YAML.
            raise ValueError(f"{path} has {shorten(repr(name))} for class {number}. Put its name in quotation marks.")
        names[number] = " ".join(str(name).split())
    if not names:
        raise ValueError(
            f"{path} has names: {shorten(repr(value))}. It is a list of names, or a mapping of numbers to names."
        )
    return names


def _follow_config(
    listing: Listing, config: _Config, photographs: Photographs, texts: frozenset[PurePosixPath], notes: list[str]
) -> list[_Pair]:
    """The photographs that a data.yaml names, each in the first split that has it, with their texts."""
    split_of: dict[PurePosixPath, str] = {}
    repeated = 0
    for key, entries in config.parts.items():
        split = split_in(key)
        for entry in entries:
            images = _find_part(listing, config, entry, photographs, notes)
            repeated += sum(split_of.setdefault(image, split) != split for image in images)
    if repeated:
        notes.append(f"{repeated:,} photographs stand in more than one split; they are taken for the first.")
    if not split_of:
        raise ValueError(
            f"{listing.path(config.place)} names no photograph that is there: {shorten(repr(config.parts))}. Paths are"
            " relative to its `path`, or to itself."
        )
    return _add_texts(split_of, texts)


def _find_part(
    listing: Listing, config: _Config, entry: str, photographs: Photographs, notes: list[str]
) -> list[PurePosixPath]:
    """The photographs of a folder, or of a list in a .txt."""
    path, is_absolute = with_slashes(entry)
    # ultralytics looks for ../train/images, which Roboflow writes, without the first ".." too.
    endings = [path, path.removeprefix("../")]
    if is_absolute:  # of another machine: its last parts may be here
        parts = path.split("/")
        # "images" alone could be those of any split.
        endings = ["/".join(parts[start:]) for start in range(len(parts)) if parts[start:] != ["images"]]
    bases = [base for base in _name_bases(config) if base is not None]
    lists = frozenset(listing.with_suffix(".txt"))
    for ending in endings:
        for base in bases:
            place = join(base, ending)
            if place in photographs.folders:
                return [image for image in photographs.images if place in image.parents]
            if place in lists:
                return _read_list(listing, place, bases, photographs, notes)
    notes.append(f"{config.place} names {entry!r}, which is not there.")
    return []


def _name_bases(config: _Config) -> list[PurePosixPath | None]:
    """What paths in a data.yaml may be relative to."""
    folder = config.place.parent
    bases = [folder, PurePosixPath(".")]
    if config.path is not None:
        path, is_absolute = with_slashes(config.path)
        if not is_absolute:
            bases.insert(0, join(folder, path))
    return bases


def _read_list(
    listing: Listing, place: PurePosixPath, bases: list[PurePosixPath], photographs: Photographs, notes: list[str]
) -> list[PurePosixPath]:
    """The photographs that a text lists, one per line."""
    lines = [line.strip() for line in _read_text(listing, place).splitlines()]
    images, missing = [], []
    for line in filter(None, lines):
        try:
            images.append(photographs.find(line, [[place.parent], *([base] for base in bases)]))
        except ValueError as error:
            missing.append(f"{line!r}: {error}")
    if missing:
        notes.append(f"{place} lists {len(missing):,} photographs that are not taken, such as {missing[0]}.")
    return images


# Texts.


def _are_of_this_form(listing: Listing, pairs: list[_Pair]) -> bool:
    """Whether texts beside photographs hold objects, and not words, or numbers of another meaning."""
    good = bad = 0
    for text in [pair.text for pair in pairs if pair.text is not None]:
        try:
            rows = _read_rows(listing, text)
        except ValueError:
            bad += 1
        else:
            # A matrix of the ids 0 and 1 could be read as rows too.
            is_fractional = "." in _read_text(listing, text)
            good, bad = good + is_fractional, bad + (len(rows) > 0 and not is_fractional)
        if good + bad == SAMPLE:
            break
    return good > bad


def _drop_unlabelled_folders(pairs: list[_Pair], notes: list[str]) -> list[_Pair]:
    """Without the folders of which no photograph has a text: nothing says that they belong to the data set."""
    folders = {pair.image.parent for pair in pairs if pair.text is not None}
    for folder, count in Counter(pair.image.parent for pair in pairs if pair.image.parent not in folders).items():
        notes.append(f"{count:,} pictures in {folder} are passed over: none of them has a .txt.")
    return [pair for pair in pairs if pair.image.parent in folders]


def _add_texts(split_of: dict[PurePosixPath, str | None], texts: frozenset[PurePosixPath]) -> list[_Pair]:
    """Photographs with their texts; see [`find_yolo`]."""
    mirrored = {image: _mirror(image) for image in split_of}
    if not any(text in texts for text in mirrored.values()):
        mirrored = {image: image.with_suffix(".txt") for image in split_of}
    return [_Pair(image, text if text in texts else None, split_of[image]) for image, text in mirrored.items()]


def _mirror(image: PurePosixPath) -> PurePosixPath:
    """Where ultralytics looks for the text of a photograph."""
    parts = list(image.parent.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return PurePosixPath(*parts, f"{image.stem}.txt")


def _drop_unlabelled_splits(pairs: list[_Pair], notes: list[str]) -> list[_Pair]:
    """Without the splits of which no photograph has a text: their texts were left away, not their objects."""
    labelled = {pair.split for pair in pairs if pair.text is not None}
    for split, count in Counter(pair.split for pair in pairs if pair.split not in labelled).items():
        notes.append(f"{count:,} photographs of {split!r} are left out: none of them has a .txt.")
    return [pair for pair in pairs if pair.split in labelled]


@dataclass(frozen=True, eq=False)
class _Row:
    number: int  # of the class
    render: Outline | Box


def _read_rows(listing: Listing, place: PurePosixPath) -> list[_Row]:
    """
    The objects of a text.

    Raises:
        ValueError: for what ultralytics does not read either. It does not name the file.
    """
    rows = []
    for index, line in enumerate(_read_text(listing, place).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            numbers = np.array(words, np.float64)
        except ValueError as error:
            raise ValueError(f"line {index} holds something else than numbers: {shorten(repr(line))}") from error
        if len(numbers) < 5 or len(numbers) % 2 == 0:
            raise ValueError(
                f"line {index} has {len(numbers)} numbers; they are a class and 4 of a box, or x and y of 3 corners or"
                " more"
            )
        number, coordinates = float(numbers[0]), numbers[1:]
        if not (number.is_integer() and 0 <= number < 2**31):
            raise ValueError(f"line {index} begins with {words[0]!r}; classes are counted from 0")
        if not ((coordinates >= -TOLERANCE) & (coordinates <= 1 + TOLERANCE)).all():
            raise ValueError(f"line {index} has coordinates outside of 0 to 1, the sides of the picture")
        coordinates = coordinates.astype(np.float32)
        render = Box(coordinates) if len(coordinates) == 4 else Outline(coordinates.reshape(-1, 2))
        rows.append(_Row(int(number), render))
    return rows


def _read_text(listing: Listing, place: PurePosixPath) -> str:
    text = _read_bytes(listing, place, MAXIMUM_BYTES + 1)
    if len(text) > MAXIMUM_BYTES:
        raise ValueError(f"{place} is larger than {MAXIMUM_BYTES:,} bytes")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is no text in UTF-8: {shorten(error)}") from error


def _read_bytes(listing: Listing, place: PurePosixPath, limit: int) -> bytes:
    path = listing.path(place)
    try:
        with open_file(path) as file:
            return file.read(limit)
    except OSError as error:
        raise OSError(f"{path} cannot be read: {shorten(error)}") from error


# Names.


def _read_names_files(listing: Listing) -> tuple[dict[int, str], PurePosixPath | None]:
    """
    What classes.txt or obj.names say, where there is one.

    Raises:
        ValueError: for several that differ.
    """
    found = {}
    for place in listing.files:
        if place.name in NAMES_FILES:
            lines = [" ".join(line.split()) for line in _read_text(listing, place).splitlines()]
            found[place] = {number: name for number, name in enumerate(lines) if name}
    places = sorted(found, key=lambda place: len(place.parts))
    for other in places[1:]:
        if found[other] != found[places[0]]:
            raise ValueError(f"{places[0]} and {other} name different classes. Move one of them out of the folder.")
    return (found[places[0]], places[0]) if places else ({}, None)


def _unify_names(names: dict[int, str]) -> tuple[dict[int, int], dict[int, str], list[str]]:
    """The key of each number, one for all of the same name; the names of keys; and notes."""
    keys, first, notes = {}, {}, []
    for number, name in sorted(names.items()):
        keys[number] = first.setdefault(name.lower(), number)
        if keys[number] != number:
            notes.append(f"Classes {keys[number]} and {number} are both called {name!r}: one class.")
    return keys, {key: names[key] for key in first.values()}, notes


def _check_classes(rows: list[_Row], keys: dict[int, int], names_file: PurePosixPath | None) -> None:
    for row in rows:
        if keys and row.number not in keys:
            raise ValueError(f"it has an object of class {row.number}, which {names_file} does not name")


def _make_items(
    listing: Listing, annotated: list[tuple[_Pair, list[_Row]]], keys: dict[int, int], overlaps: Overlaps
) -> list[Item]:
    pairs = [pair for pair, _ in annotated]
    names = name_photographs([pair.image for pair in pairs], [pair.split for pair in pairs])
    return [
        Item(
            image=listing.path(pair.image),
            annotations=() if pair.text is None else (listing.path(pair.text),),
            draw=DrawShapes(
                f"{listing.path(pair.text or pair.image)}",
                tuple(Shape(keys.get(row.number, row.number), row.render) for row in rows),
                overlaps,
            ),
            split=pair.split,
            name=name,
        )
        for (pair, rows), name in zip(annotated, names, strict=True)
    ]
