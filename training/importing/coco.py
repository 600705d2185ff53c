# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Objects in the JSON files of COCO, as COCO itself, CVAT, Roboflow, Label Studio and labelme2coco write them.

Source: [the form](https://cocodataset.org/#format-data).
"""

import itertools
import posixpath
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import PIL.Image

from modeling_denseclip.configuration_denseclip import shorten

from .coco_shapes import BOXES, POLYGONS, RUNS, RunLengths, read_shape, spell_size
from .json_files import read_json
from .outlines import Polygons, read_numbers
from .painting import DrawShapes, Overlaps, Shape
from .places import Photographs, name_photographs, with_slashes
from .sources import Item, Listing, Source
from .splits import split_of_file, split_of_folders
from .words import split_in


# Ids of categories that can be keys; others get free ones.
MAXIMUM_KEY = 2**31 - 1
UNKNOWN_IMAGES = "annotations belong to no image that their file lists; they are passed over"
BOXES_ALONE = "objects have a box alone; it is filled"
NO_AREA = "objects have outlines of fewer than 3 points, or boxes without an area; nothing is drawn of them"
BEYOND = "objects reach beyond their picture, and are cut at its border"
CROWDS = "regions are marked as crowds; they count as their category"
REPEATED_IMAGES = "images are listed more than once; all that is said of them counts"
EMPTY = "photographs are listed without annotations: nothing is there"


def find_coco(listing: Listing, overlaps: Overlaps | None = None) -> Source | None:
    """
    The objects of all COCO files below a folder: JSON with lists of "images", "annotations" and "categories".

    Keys are ids of categories. Where files differ, those of the first count, and categories of one name are one.
    Of two files that say the same of a photograph, such as one of all and those of its splits, the one whose name
    tells a split counts.

    Args:
        listing (`Listing`): the data set.
        overlaps (`str`, *optional*, defaults to `"later"`): which of two objects is seen where they overlap.

    Returns:
        `Source`, *optional*: None where there is no such file.

    Raises:
        ValueError: for such a file that is broken, or two that contradict each other.
        OSError: for a file that cannot be read.
    """
    remarks: Counter[str] = Counter()
    left_out: list[str] = []
    files, notes = _read_files(listing, remarks, left_out)
    if not files:
        return None
    notes += _drop_unused_supercategories(files)
    names, notes_on_names = _unify_categories(files)
    photographs = Photographs(listing)
    found = [picture for file in files for picture in _find_pictures(file, photographs, remarks, left_out)]
    pictures, notes_on_files = _choose_pictures(found)
    remarks[EMPTY] = sum(not picture.objects for picture in pictures)
    things = [thing for picture in pictures for thing in picture.objects]
    remarks[BOXES_ALONE] = sum(thing.kind == BOXES for thing in things)
    remarks[CROWDS] = sum(thing.is_crowd for thing in things)
    notes += notes_on_names + notes_on_files
    notes += [f"{count:,} {remark}." for remark, count in remarks.items() if count]
    left_out += [f"{image}: nothing annotates it" for image in photographs.unclaimed]
    if left_out:
        notes.append(f"{len(left_out):,} photographs or entries of files are left out.")
    return Source(
        form=_name_form(pictures),
        items=_make_items(listing, pictures, overlaps or "later"),
        names=names,
        notes=notes,
        left_out=left_out,
    )


# What a file says.


@dataclass
class _Category:
    name: str | None
    supercategory: Any
    key: int = -1


@dataclass(frozen=True)
class _Object:
    category: _Category
    kind: str  # POLYGONS, RUNS or BOXES
    render: Polygons | RunLengths
    is_crowd: bool


@dataclass
class _Image:
    file_name: str
    size: tuple[int, int] | None
    annotations: list[dict] = field(default_factory=list)


@dataclass
class _File:
    place: PurePosixPath
    categories: dict[str, _Category]
    images: list[_Image]


@dataclass
class _Picture:
    """A photograph as one file annotates it."""

    file: PurePosixPath
    image: PurePosixPath
    size: tuple[int, int] | None
    split: str | None
    objects: list[_Object]

    def content(self) -> tuple:
        objects = [(thing.category.key, thing.render.content()) for thing in self.objects]
        return self.size, objects


def _read_files(listing: Listing, remarks: Counter[str], left_out: list[str]) -> tuple[list[_File], list[str]]:
    """All COCO files of objects, and a note on each other file of the COCO family."""
    files, notes, of_key_points = [], [], []
    for place in listing.with_suffix(".json"):
        content = _read_json(listing, place)
        passed_over = _say_why_not(content)
        if passed_over is not None:
            notes.append(f"{place} is passed over: {passed_over}.")
        elif _is_of_objects(content):
            if any(isinstance(entry, dict) and "keypoints" in entry for entry in content["categories"]):
                of_key_points.append((place, content))
            else:
                files.append(_read_file(place, content, remarks, left_out))
    for place, content in of_key_points:
        if files:
            notes.append(f"{place} is passed over: it adds key points to objects, which other files tell.")
        else:
            files.append(_read_file(place, content, remarks, left_out))
    return files, notes


def _read_json(listing: Listing, place: PurePosixPath) -> object:
    """What a JSON file holds; None for one that cannot be of the COCO family."""
    try:
        return read_json(listing.path(place), _has_words)
    except ValueError as error:
        raise ValueError(f"{listing.path(place)}: {error}.") from error


def _has_words(text: bytes) -> bool:
    return b'"image_id"' in text or (b'"images"' in text and b'"categories"' in text)


def _is_of_objects(content: Any) -> bool:
    return isinstance(content, dict) and all(
        isinstance(content.get(name), list) for name in ("images", "annotations", "categories")
    )


def _say_why_not(content: Any) -> str | None:
    """Why a file of the COCO family holds no objects that can be drawn; None where it does, or is of another form."""
    if isinstance(content, list):
        is_result = any(isinstance(entry, dict) and "image_id" in entry for entry in content)
        return "it holds results of a model, not annotations" if is_result else None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        return None
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        return "it lists images without annotations" if isinstance(content.get("categories"), list) else None
    entries = [entry for entry in annotations if isinstance(entry, dict)]
    if any("segments_info" in entry for entry in entries):
        return "it is panoptic, and refers to PNG files of segments. Import files of instances, or make masks of it"
    if any(entry.get("segmentation") or entry.get("bbox") for entry in entries):
        return None if _is_of_objects(content) else 'it has no list of "categories"'
    if any("caption" in entry for entry in entries):
        return "it holds captions"
    return "its annotations have neither outlines nor boxes" if entries else None


def _read_file(place: PurePosixPath, content: dict, remarks: Counter[str], left_out: list[str]) -> _File:
    categories = _read_categories(place, content["categories"])
    by_id: dict[str, _Image | None] = {}  # None for an id of several
    for index, entry in enumerate(content["images"]):
        try:
            identity, image = _read_image(entry)
        except ValueError as error:
            left_out.append(f"{place}, entry {index} of images: {error}")
            continue
        if identity not in by_id:
            by_id[identity] = image
            continue
        first = by_id[identity]
        if first is not None and (first.file_name, first.size) == (image.file_name, image.size):
            remarks[REPEATED_IMAGES] += 1
            continue
        # An annotation of this id could belong to either.
        same_id = f"{place} has several images of the id {identity}"
        left_out.append(f"{image.file_name!r}: {same_id}")
        if first is not None:
            left_out.append(f"{first.file_name!r}: {same_id}")
        by_id[identity] = None
    for annotation in content["annotations"]:
        try:
            identity = _read_id(annotation["image_id"])
        except (TypeError, KeyError, ValueError):
            identity = None
        if identity not in by_id:
            remarks[UNKNOWN_IMAGES] += 1
        elif (image := by_id[identity]) is not None:
            image.annotations.append(annotation)
    return _File(place, categories, [image for image in by_id.values() if image is not None])


def _read_categories(place: PurePosixPath, entries: list) -> dict[str, _Category]:
    """Categories by their ids as text, in the order of these."""
    categories = {}
    for index, entry in enumerate(entries):
        try:
            identity = _read_id(entry["id"])
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(
                f"{place}, entry {index} of categories: {shorten(repr(entry))} has no id. A category is an id with a"
                " name."
            ) from error
        name = entry.get("name")
        is_name = isinstance(name, str | int | float) and not isinstance(name, bool)
        category = _Category(" ".join(str(name).split()) or None if is_name else None, entry.get("supercategory"))
        first = categories.setdefault(identity, category)
        if first.name != category.name:
            raise ValueError(
                f"{place} has two categories of the id {identity}, {first.name!r} and {category.name!r}; nothing tells"
                " which one is meant. Give each its own id."
            )
    return dict(sorted(categories.items(), key=lambda pair: _order(pair[0])))


def _order(identity: str) -> tuple[int, int, str]:
    """Numbers by their size, and before texts."""
    return (0, int(identity), "") if _is_number(identity) else (1, 0, identity)


def _is_number(identity: str) -> bool:
    return identity.removeprefix("-").isdecimal() and len(identity) < 20


def _read_id(value: Any) -> str:
    """An id as text, so that 7, 7.0 and "7" are one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_integer = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    is_text = isinstance(value, str) and value.isprintable()
    if not (is_integer or is_text):
        raise ValueError(f"its id is {shorten(repr(value))}")
    return str(value).strip()


def _read_image(entry: Any) -> tuple[str, _Image]:
    """Id and content of an entry of the list of images."""
    if not isinstance(entry, dict):
        raise ValueError(f"it is {shorten(repr(entry))}, no mapping of fields to values")
    identity = _read_id(entry.get("id"))
    file_name = entry.get("file_name")
    if not isinstance(file_name, str) or not file_name.strip():
        raise ValueError(f"its file_name is {shorten(repr(file_name))}")
    sides = [_read_side(entry.get(name), name) for name in ("height", "width")]
    size = None if None in sides else tuple(sides)
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if size is not None and limit is not None and size[0] * size[1] > 2 * limit:
        raise ValueError(f"{file_name!r} is said to be of {spell_size(size)}, more than any picture that is read")
    return identity, _Image(file_name, size)


def _read_side(value: Any, called: str) -> int | None:
    if value in (None, 0, ""):  # as some tools write where they do not know it
        return None
    number = read_numbers([value], (1,), called)[0]
    if number < 1 or not number.is_integer():
        raise ValueError(f"its {called} is {shorten(repr(value))}")
    return int(number)


# Categories of several files.


def _drop_unused_supercategories(files: list[_File]) -> list[str]:
    """
    Take out what only groups other categories, and no object has: Roboflow adds the name of the project so, as id 0.

    Source: Roboflow's own reader drops the same ones ([rf-detr#1303](https://github.com/roboflow/rf-detr/pull/1303)).
    """
    used = set()
    for file in files:
        ids = {_category_id(annotation) for image in file.images for annotation in image.annotations}
        used |= {(identity, file.categories[identity].name) for identity in ids if identity in file.categories}
    dropped = {}
    for file in files:
        groups = {
            identity: category.name
            for identity, category in file.categories.items()
            if category.name is not None
            and (identity, category.name) not in used
            and any(
                other is not category and other.supercategory == category.name for other in file.categories.values()
            )
        }
        for identity in groups:
            del file.categories[identity]
        dropped |= groups
    return [
        f"Category {identity}, {name!r}, is no class: it only groups others, and no object has it."
        for identity, name in dropped.items()
    ]


def _category_id(annotation: dict) -> str | None:
    try:
        return _read_id(annotation.get("category_id"))
    except ValueError:
        return None


def _unify_categories(files: list[_File]) -> tuple[dict[int, str], list[str]]:
    """
    Give each category its key, one for all of the same name; see [`find_coco`].

    Returns:
        `tuple`: names of keys, and notes.
    """
    names: dict[int, str] = {}
    key_of_name: dict[str, int] = {}
    taken: set[int] = set()
    notes = {}  # as a set in order
    for file in files:
        of_file = {}
        for identity, category in file.categories.items():
            word = None if category.name is None else category.name.lower()
            if word in key_of_name:
                category.key = key_of_name[word]
                if word in of_file:
                    notes[
                        f"Categories {of_file[word]} and {identity} are both called {category.name!r}: one class."
                    ] = None
                elif str(category.key) != identity:
                    notes[f"{file.place} has the id {identity} for {category.name!r}, others {category.key}."] = None
            else:
                wanted = int(identity) if _is_number(identity) else -1
                is_free = 0 <= wanted <= MAXIMUM_KEY and wanted not in taken
                category.key = wanted if is_free else next(key for key in itertools.count(1) if key not in taken)
                taken.add(category.key)
                if word is None:
                    notes[f"Category {identity} of {file.place} has no name."] = None
                else:
                    key_of_name[word] = category.key
                    names[category.key] = category.name
            of_file.setdefault(word, identity)
    return names, list(notes)


# Photographs and their objects.


def _find_pictures(
    file: _File, photographs: Photographs, remarks: Counter[str], left_out: list[str]
) -> list[_Picture]:
    """The photographs that a file annotates and that are there, each once."""
    folders = _name_folders(file.place, photographs)
    found = defaultdict(list)
    for image in file.images:
        try:
            place = photographs.find(image.file_name, folders)
        except ValueError as error:
            left_out.append(f"{image.file_name!r} of {file.place}: {error}")
            continue
        found[place].append(image)
    pictures = []
    for place, images in found.items():
        try:
            _check_one_picture(images)
            objects = [
                thing
                for image in images
                for annotation in image.annotations
                if (thing := _read_object(annotation, image.size, file.categories, remarks)) is not None
            ]
        except ValueError as error:
            left_out.append(f"{place}: {error} ({file.place})")
            continue
        remarks[REPEATED_IMAGES] += len(images) - 1
        pictures.append(_Picture(file.place, place, images[0].size, split_of_file(file.place, place), objects))
    return pictures


def _name_folders(file: PurePosixPath, photographs: Photographs) -> list[list[PurePosixPath]]:
    """Where the photographs of a file may lie, the likeliest first."""
    folder, root = file.parent, PurePosixPath(".")
    split = split_in(file.stem) or split_of_folders(file)
    of_split = [place for place in photographs.folders if split is not None and split_in(place.name) == split]
    return [
        [folder],
        [root],
        [folder / "images"],
        [folder.parent / "images"],
        [root / "images"],
        of_split,
    ]


def _check_one_picture(images: list[_Image]) -> None:
    """
    Check the entries that lead to one photograph, which are several where each holds one object.

    Raises:
        ValueError: for several names, of which one may belong to a photograph that is not there, or several sizes.
    """
    names = {posixpath.normpath(with_slashes(image.file_name)[0]) for image in images}
    if len(names) > 1:
        raise ValueError(f"it may be each of {', '.join(sorted(map(repr, names))[:3])}")
    if len({image.size for image in images}) > 1:
        raise ValueError("it is listed more than once, with different sizes")


def _read_object(
    annotation: dict, size: tuple[int, int] | None, categories: dict[str, _Category], remarks: Counter[str]
) -> _Object | None:
    """
    One object; None for one that has no area.

    Raises:
        ValueError: for what is not of the form. The photograph cannot be used then: an object would count as nothing.
    """
    called = f"annotation {shorten(repr(annotation.get('id')))}"
    identity = _category_id(annotation)
    if identity not in categories:
        raise ValueError(
            f"{called} has the category {shorten(repr(annotation.get('category_id')))}, which is not listed. If ids of"
            " annotations and of categories count from different numbers, all names are wrong: see which"
        )
    try:
        kind, render = read_shape(annotation, size)
        if size is not None and isinstance(render, Polygons):
            render.check(size)
    except ValueError as error:
        raise ValueError(f"{called}: {error}") from error
    if render is None:
        remarks[NO_AREA] += 1
        return None
    if size is not None and isinstance(render, Polygons):
        remarks[BEYOND] += render.reach_beyond(size)
    return _Object(categories[identity], kind, render, bool(annotation.get("iscrowd")))


# Several files that annotate a photograph.


def _choose_pictures(found: list[_Picture]) -> tuple[list[_Picture], list[str]]:
    """
    Take each photograph once: as the file says that has objects of it, and of these the first that tells a split.

    Raises:
        ValueError: for files that say different things of it.
    """
    by_image = defaultdict(list)
    for picture in found:
        by_image[picture.image].append(picture)
    chosen, doubled, leaked = [], Counter(), 0
    for image, pictures in by_image.items():
        candidates = [picture for picture in pictures if picture.objects] or pictures
        first = candidates[0]
        for other in candidates[1:]:
            if other.content() != first.content():
                raise ValueError(
                    f"{first.file} and {other.file} annotate {image} differently. Move one of them out of the folder."
                )
        best = next((picture for picture in candidates if picture.split is not None), first)
        chosen.append(best)
        if len(pictures) > 1:
            doubled[tuple(sorted({str(picture.file) for picture in pictures}))] += 1
            leaked += len({picture.split for picture in candidates} - {None}) > 1
    notes = [
        f"{count:,} photographs are listed in each of {', '.join(files)}; each is taken once."
        for files, count in doubled.items()
    ]
    if leaked:
        notes.append(f"{leaked:,} photographs stand in more than one split; they are taken for the first.")
    return chosen, notes


def _make_items(listing: Listing, pictures: list[_Picture], overlaps: Overlaps) -> list[Item]:
    names = name_photographs([picture.image for picture in pictures], [picture.split for picture in pictures])
    return [
        Item(
            image=listing.path(picture.image),
            annotations=(listing.path(picture.file),),
            draw=DrawShapes(
                called=f"{listing.path(picture.file)}, {picture.image}",
                shapes=tuple(Shape(thing.category.key, thing.render) for thing in picture.objects),
                overlaps=overlaps,
            ),
            size=picture.size,
            split=picture.split,
            name=name,
        )
        for picture, name in zip(pictures, names, strict=True)
    ]


def _name_form(pictures: list[_Picture]) -> str:
    kinds = {thing.kind for picture in pictures for thing in picture.objects}
    words = [kind for kind in (POLYGONS, RUNS, BOXES) if kind in kinds]
    return f"COCO {', '.join(words) or 'without objects'}"
