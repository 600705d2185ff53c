# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Annotations of CVAT: the XML of "CVAT for images 1.1" and "CVAT for video 1.1".

Source: `cvat/apps/dataset_manager/formats` of https://github.com/cvat-ai/cvat, which writes these files and the masks
of "Segmentation mask 1.1": shapes are painted in the order of `z_order`, then of the file.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.parsers import expat

import numpy as np

from modeling_denseclip.configuration_denseclip import shorten
from modeling_denseclip.tools.files.photographs import open_file

from .outlines import Ellipse, Patch, Polygons, box_corners, expand_runs, read_numbers, turn
from .painting import Overlaps
from .pairing import Entry, LabelledShape, make_source, note_without_area
from .places import Photographs
from .sources import Listing, Source
from .splits import split_of_file
from .words import split_in


ROOT = "annotations"
BELOW_ROOT = ("version", "meta", "image", "track")
AREAS = ("polygon", "box", "ellipse", "mask")
NO_AREAS = ("polyline", "points", "cuboid", "skeleton", "tag")
CHUNK_BYTES = 2**16
MAXIMUM_MASK_PIXELS = 2**31  # more than any photograph that can be read
# What CVAT calls the frames of a video. They are numbered from 0.
FRAME = re.compile(r"frame_(\d{6,})", re.IGNORECASE)


class _NotCVATError(Exception):
    """The file is an XML of something else, or none."""


@dataclass
class _Picture:
    """An <image>, or a frame of a video, as the file has it."""

    called: str
    name: str
    subset: str
    size: tuple[int, int] | None
    shapes: list[tuple[int, LabelledShape]] = field(default_factory=list)  # with their z_order
    problem: str | None = None


class _Reader:
    """
    What one file holds, read element by element, so that its length does not matter.

    Attributes:
        labels (`dict[str, str]`): labels of the task or project with the type of their shapes.
        images (`list[_Picture]`): the <image> elements.
        frames (`dict[int, _Picture]`): the frames in which a track has a shape.
        frame_size (`tuple[int, int]`, *optional*): height and width of a video.
        num_without_area (`Counter`): shapes that cover no area, by their kind.
    """

    def __init__(self):
        self.labels: dict[str, str] = {}
        self.images: list[_Picture] = []
        self.frames: dict[int, _Picture] = {}
        self.frame_size: tuple[int, int] | None = None
        self.num_without_area = Counter()
        self._path: list[str] = []
        self._began = False  # whether an element below the root was seen
        self._text: list[str] | None = None
        self._label, self._label_type = "", ""
        self._lengths: dict[str, str] = {}
        self._image: _Picture | None = None
        self._track: Mapping[str, str] | None = None
        self._tracked: dict[int, tuple[str, Mapping[str, str]]] = {}
        self._tasks = set()

    def read(self, path: Path) -> None:
        """
        Raises:
            _NotCVATError: for another file.
            ValueError: for a broken one. Its message does not name the file.
        """
        parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = self._add_text, _refuse_doctype
        try:
            with open_file(path) as file:
                while chunk := file.read(CHUNK_BYTES):
                    parser.Parse(chunk, False)
                parser.Parse(b"", True)
        except (expat.ExpatError, LookupError) as error:
            if not self._began:
                raise _NotCVATError from error
            raise ValueError(f"it is no whole XML ({shorten(error)}): export or copy it again") from error

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        depth = len(self._path)
        if (depth == 0 and tag != ROOT) or (depth == 1 and not self._began and tag not in BELOW_ROOT):
            raise _NotCVATError
        self._began = depth > 0
        parent = self._path[-1] if self._path else ""
        self._path.append(tag)
        if tag in ("name", "type", "width", "height") and "meta" in self._path:
            self._text = []
        elif tag == "label" and parent == "labels":
            self._label, self._label_type = "", "any"
        elif tag == "image" and depth == 1:
            self._image = _start_image(attributes, len(self.images))
        elif tag == "track" and depth == 1:
            self._track, self._tracked = attributes, {}
        elif (tag in AREAS or tag in NO_AREAS) and depth == 2:  # deeper ones are parts of a skeleton
            self._add_shape(tag, attributes)

    def _end(self, tag: str) -> None:
        self._path.pop()
        parent = self._path[-1] if self._path else ""
        text = "".join(self._text).strip() if self._text is not None else ""
        self._text = None
        if parent == "label" and tag == "name":
            self._label = text
        elif parent == "label" and tag == "type":
            self._label_type = text
        elif parent == "original_size":
            self._lengths[tag] = text
        elif tag == "original_size":
            self.frame_size = _read_size(self._lengths)
        elif tag == "label" and parent == "labels" and self._label:
            self.labels.setdefault(self._label, self._label_type)
        elif tag == "image" and self._image is not None:
            self.images.append(self._image)
            self._image = None
        elif tag == "track" and self._track is not None:
            self._end_track()

    def _add_text(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _add_shape(self, tag: str, attributes: dict[str, str]) -> None:
        if self._track is not None:
            # Of a track only the frame is read now: a later shape of the same frame replaces this one.
            try:
                frame = int(attributes["frame"])
            except (KeyError, ValueError) as error:
                raise ValueError(f"a {tag} of track {self._track.get('id')} has no number of a frame") from error
            self._tracked[frame] = (tag, attributes)
        elif self._image is not None:
            self._add_to(self._image, tag, attributes, attributes)

    def _end_track(self) -> None:
        self._tasks.add(self._track.get("task_id", ""))
        if len(self._tasks) > 1:
            raise ValueError(
                "it holds videos of several tasks, whose frames have the same numbers: export each task on its own"
            )
        for number, (tag, attributes) in self._tracked.items():
            if attributes.get("outside") == "1":
                continue
            frame = self.frames.setdefault(number, _name_frame(number, self.frame_size, self._track.get("subset", "")))
            self._add_to(frame, tag, attributes, self._track)
        self._track = None

    def _add_to(self, picture: _Picture, tag: str, attributes: Mapping[str, str], labelled: Mapping[str, str]) -> None:
        """Add a shape, whose label the shape itself or its track has, or what is wrong with it."""
        if tag in NO_AREAS:
            self.num_without_area[tag] += 1
            return
        try:
            if not labelled.get("label"):
                raise ValueError("it has no label")
            render = _RENDERERS[tag](attributes)
            z_order = int(attributes.get("z_order", 0))
        except (KeyError, ValueError) as error:
            missing = f"it has no {error}" if isinstance(error, KeyError) else shorten(error)
            picture.problem = picture.problem or f"of its {tag} {len(picture.shapes)}: {missing}"
            return
        if render is None:
            self.num_without_area[f"{tag} of fewer than three corners"] += 1
        else:
            picture.shapes.append((z_order, LabelledShape(labelled["label"], render)))


def _refuse_doctype(name: str, *_) -> None:
    if name != ROOT:
        raise _NotCVATError
    raise ValueError("it declares a DOCTYPE, which CVAT does not write and which may make a file endless: remove it")


def _name_frame(number: int, size: tuple[int, int] | None, subset: str) -> _Picture:
    return _Picture(f"frame {number}", f"frame_{number:06}", subset, size)


def _start_image(attributes: Mapping[str, str], index: int) -> _Picture:
    picture = _Picture(
        called=f"image {attributes.get('id', index)}",
        name=attributes.get("name", ""),
        subset=attributes.get("subset", ""),
        size=None,
    )
    try:
        picture.size = _read_size(attributes)
    except ValueError as error:
        picture.problem = str(error)
    return picture


def _read_size(attributes: Mapping[str, str]) -> tuple[int, int] | None:
    if "width" not in attributes and "height" not in attributes:
        return None
    try:
        size = int(attributes["height"]), int(attributes["width"])
    except (KeyError, ValueError):
        size = (0, 0)
    if min(size) < 1:
        told = f"{attributes.get('width')} x {attributes.get('height')}"
        raise ValueError(f"its size {shorten(told)} is none")
    return size


def _numbers(attributes: Mapping[str, str], *names: str) -> np.ndarray:
    return read_numbers([attributes[name] for name in names], (len(names),), ", ".join(names))


def _angle(attributes: Mapping[str, str]) -> float:
    return float(read_numbers(attributes.get("rotation", "0"), (), "rotation"))


def _read_polygon(attributes: Mapping[str, str]) -> Polygons | None:
    pairs = [pair.split(",") for pair in attributes["points"].split(";") if pair.strip()]
    points = read_numbers(pairs, (-1, 2), "points")
    return Polygons((points,)) if len(points) > 2 else None


def _read_box(attributes: Mapping[str, str]) -> Polygons:
    corners = box_corners(*_numbers(attributes, "xtl", "ytl", "xbr", "ybr"))
    angle = _angle(attributes)
    return Polygons((turn(corners, angle, corners.mean(axis=0)) if angle else corners,))


def _read_ellipse(attributes: Mapping[str, str]) -> Ellipse:
    center_x, center_y, *radii = _numbers(attributes, "cx", "cy", "rx", "ry").tolist()
    if min(radii) < 0:
        raise ValueError("its radii are negative")
    return Ellipse((center_x, center_y), tuple(radii), _angle(attributes))


@dataclass(frozen=True)
class _RunLengths:
    """
    A mask within a box, as runs of pixels row by row, in turn outside and inside the object.

    Attributes:
        lengths (`numpy.ndarray`): of the runs, of type int64.
        left (`int`), top (`int`), width (`int`), height (`int`): the box.
    """

    lengths: np.ndarray
    left: int
    top: int
    width: int
    height: int

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        if self.height > size[0] or self.width > size[1]:
            raise ValueError(f"a mask of {self.width} x {self.height} pixels is larger than its picture")
        pixels = expand_runs(self.lengths, self.width * self.height)
        return Patch(pixels.reshape(self.height, self.width), self.left, self.top)(size)


def _read_mask(attributes: Mapping[str, str]) -> _RunLengths:
    left, top, width, height = (int(attributes[name]) for name in ("left", "top", "width", "height"))
    lengths = [int(length) for length in attributes["rle"].split(",")]
    # Pixels after the last run are outside the object.
    if min(width, height) < 1 or min(lengths) < 0 or not sum(lengths) <= width * height <= MAXIMUM_MASK_PIXELS:
        raise ValueError(f"its rle of {sum(lengths)} pixels does not fit {width} x {height}")
    return _RunLengths(np.array(lengths, np.int64), left, top, width, height)


_RENDERERS = {"polygon": _read_polygon, "box": _read_box, "ellipse": _read_ellipse, "mask": _read_mask}


def find_cvat(listing: Listing, overlaps: Overlaps | None = None) -> Source | None:
    """
    Photographs with a CVAT XML, "for images 1.1" or "for video 1.1".

    Where shapes overlap, that of the higher `z_order` is seen, of equals the later one. Polylines, points, skeletons,
    cuboids and tags cover no area, as in CVAT's own masks. Shapes of one group stay apart. Of a video the shapes are
    taken as the file has them, which is for each frame; its frames have to lie beside the file as pictures.

    Args:
        listing (`Listing`): the files.
        overlaps (`str`, *optional*): "smaller" to let the smaller of two shapes be seen, instead of the rule above.

    Returns:
        `Source`, or `None` if there is no such file.

    Raises:
        ValueError: for a broken file, which it names, or if no photograph of it is there.
        OSError: for a file that cannot be read.
    """
    photographs = Photographs(listing)
    entries, left_out, labels = [], [], {}
    num_without_area, forms = Counter(), set()
    for file in listing.with_suffix(".xml"):
        reader = _Reader()
        try:
            reader.read(listing.path(file))
            entries += _pair_images(listing, file, reader, photographs, left_out)
            entries += _pair_frames(listing, file, reader, photographs, left_out)
        except _NotCVATError:
            continue
        except ValueError as error:
            raise ValueError(f"{listing.path(file)}: {error}.") from error
        labels |= {label: kind for label, kind in reader.labels.items() if label not in labels}
        num_without_area += reader.num_without_area
        forms |= {"images"} if reader.images or not reader.frames else set()
        forms |= {"video"} if reader.frames else set()
    if not forms:
        return None
    drawn = {shape.label for entry in entries for shape in entry.shapes}
    # Labels of points or lines alone name no class of pixels.
    names = [label for label, kind in labels.items() if kind not in NO_AREAS or label in drawn]
    unlisted = sorted(drawn - set(names))
    notes = note_without_area(num_without_area)
    if unlisted:
        notes.append(f"Labels that the file does not list among its own: {', '.join(map(repr, unlisted))}.")
    form = f"CVAT for {' and '.join(sorted(forms))}"
    return make_source(form, listing, entries, names + unlisted, overlaps, notes, left_out, photographs)


def _pair_images(
    listing: Listing, file: PurePosixPath, reader: _Reader, photographs: Photographs, left_out: list[str]
) -> list[Entry]:
    entries = []
    for image in reader.images:
        try:
            photograph = photographs.find(image.name, _folders(file.parent, image.subset))
            entries.append(_make_entry(listing, file, image, photograph))
        except ValueError as error:
            left_out.append(f"{file}, {image.called}: {error}")
    return entries


def _pair_frames(
    listing: Listing, file: PurePosixPath, reader: _Reader, photographs: Photographs, left_out: list[str]
) -> list[Entry]:
    if not reader.frames:
        return []
    pictures = _find_frames(file.parent, photographs)
    if not pictures:
        raise ValueError(
            "it annotates a video, and none of its frames lies beside it as a picture, such as "
            f"images/frame_{min(reader.frames):06}.png: export it again with 'Save images', or write the frames with "
            "'ffmpeg -i VIDEO -start_number 0 images/frame_%06d.png'"
        )
    subset = next(iter(reader.frames.values())).subset
    entries = []
    for number in sorted(reader.frames.keys() | pictures.keys()):
        frame = reader.frames.get(number) or _name_frame(number, reader.frame_size, subset)
        found = pictures.get(number, [])
        try:
            if len(found) != 1:
                raise ValueError(f"{len(found)} pictures are called {frame.name}")
            photographs.claimed.add(found[0])
            entries.append(_make_entry(listing, file, frame, found[0]))
        except ValueError as error:
            left_out.append(f"{file}, {frame.called}: {error}")
    return entries


def _folders(folder: PurePosixPath, subset: str) -> list[list[PurePosixPath]]:
    """Where CVAT and its users put the pictures of a file in this folder, the likeliest first."""
    root = PurePosixPath()
    subsets = [folder / "images" / subset, folder / subset] if subset else []
    return [[place] for place in (*subsets, folder / "images", folder, root / "images", root)]


def _find_frames(folder: PurePosixPath, photographs: Photographs) -> dict[int, list[PurePosixPath]]:
    """Pictures below a folder that are called as CVAT calls the frames of a video, by their numbers."""
    frames = defaultdict(list)
    for file in photographs.images:
        if file.is_relative_to(folder) and (match := FRAME.fullmatch(file.stem)):
            frames[int(match[1])].append(file)
    return frames


def _make_entry(listing: Listing, file: PurePosixPath, picture: _Picture, photograph: PurePosixPath) -> Entry:
    if picture.problem:
        raise ValueError(picture.problem)
    in_order = sorted(picture.shapes, key=lambda shape: shape[0])  # stable, so that of equals the later is on top
    return Entry(
        file=listing.path(file),
        where=f"{listing.path(file)}, {picture.called}",
        photograph=photograph,
        name=f"{picture.subset}/{picture.name}",
        shapes=[shape for _, shape in in_order],
        size=picture.size,
        split=split_in(picture.subset) or split_of_file(file, photograph),
    )
