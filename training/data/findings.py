# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What is found in the files of a data set: training refuses it with the first error, inspection reports all."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from modeling_denseclip.tools.files.photographs import (
    IMAGE_SUFFIXES,
    naming_errors,
    open_image,
    open_photograph,
    read_orientation,
    to_rgb,
    turn_upright,
)

from .duplicates import SAMPLES, picture_hash
from .files import (
    IGNORE_INDEX,
    MASK_MODES,
    MASK_SUFFIXES,
    RARE_SHARE,
    find_wrong_ids,
    holds_no_label,
    is_text,
    printable,
    upright_size,
)
from .processes import leave_interrupts_to_parent, starting_helpers
from .transforms import EncodedImage, decode_mask, encoded_bytes, encoded_file, stored_form


DEEP_IMAGE_MODES = ("I;16", "I;16B")
UNKNOWN_RANGE_MODES = ("I", "F")
PHOTOGRAPHS = f"{', '.join(IMAGE_SUFFIXES[:-1])} or {IMAGE_SUFFIXES[-1]}"
COLOUR_MODES = ("RGB", "RGBA", "RGBX")
MAXIMUM_COLOURS = 256  # of a mask, the most frequent: of more each would be an entry of the report
# The verb that makes this form of data set of others.
IMPORT_COMMAND = "python -m training.import_data"
MAXIMUM_IDS = 2**16  # in a mask: more are measurements or noise, of which each would be an entry of the report

# What can be found, by level: a title, and what to do. A note is worth knowing; with a warning training runs, but
# perhaps not as meant; an error is what training refuses, or would learn nonsense from.
RULES = {
    "note": {
        "palette_masks": ("Masks are palette images", "Their indices are read as ids, their colours are not."),
        "turned_images": (
            "Images that their orientation, of EXIF or XMP, turns or mirrors",
            "Training turns them upright: their masks have to be upright too. See the contact sheet.",
        ),
    },
    "warning": {
        "files_left_out": (
            "Files and folders that training does not read",
            f"Images are {PHOTOGRAPHS}, masks are .png, and both lie directly in the split's folder.",
        ),
        "deep_images": (
            "Images of 16 bits",
            "65535 is read as white. If the camera has fewer bits, they are nearly black: scale all by one factor.",
        ),
        "same_picture_in_two_splits": (
            "The same picture in two splits (equal files)",
            "Remove it from one of them, or scores come out too high.",
        ),
        "near_duplicates_in_two_splits": (
            "Pictures in two splits that look nearly the same, or are copies of one source by their names",
            "Keep copies of a source, and neighbouring frames of a film, in one split, or scores come out too high.",
        ),
        "same_picture_twice": ("The same picture twice in one split (equal files)", "Remove one, or it counts twice."),
        "unlabelled_masks": ("Masks without a labelled pixel", "Label them, or remove them with their images."),
        "classes_never_seen": (
            "Classes that never occur",
            "If that surprises you, compare the order of names with the ids.",
        ),
        "classes_not_in_training": (
            "Classes that training never sees, but another split does",
            "Move images between the splits: nobody can learn these classes.",
        ),
        "rare_classes": (
            f"Classes of less than {RARE_SHARE:.0%} of the labelled pixels of the split to train on",
            "A short training may never find them. Where no loss is chosen it takes --dice_weight 1.0 by itself;"
            ' --class_weights and --ohem_threshold are others: see "Rare classes" in docs/special_data.md.',
        ),
        "reduced_by_mistake": (
            "Labels are reduced, but the masks seem to count from 0",
            "The greatest id is one less than expected. If 0 is a class here, leave --reduce_labels true out.",
        ),
        "nearly_the_same_names": (
            "Class names that differ in a plural, an accent or punctuation alone",
            "The text tower reads them nearly alike. If they are one class, join them, or choose other words.",
        ),
        "names_read_alike": (
            "Class names that the text tower hardly tells apart",
            "At no pixel can their scores differ much. Choose words that say in what the classes differ.",
        ),
        "some_binary_masks": (
            "Masks of only 0 and 255, in a data set of two classes",
            "255 is unlabelled. If it means the second class there, save it as 1.",
        ),
    },
    "error": {
        "one_class": (
            "A single class",
            "A softmax over one class is 1 everywhere: name the rest too, such as 'background', with its own id.",
        ),
        "unknown_range": (
            "Images of floating-point numbers or 32-bit integers, whose range is unknown",
            "Save them with 8 bits, all scaled alike.",
        ),
        "class_names": ("The names of the classes cannot be read", "Write one per line, in the order of ids."),
        "same_class_names": (
            "Class names that are the same words",
            "Case and underscores make no difference to the text tower: give them different names.",
        ),
        "missing_folder": (
            "A folder is missing or empty",
            "A split keeps photographs in images/SPLIT and .png masks in annotations/SPLIT. Other names of"
            " splits are said here by --splits, and to training by --train_split and --validation_split.",
        ),
        "missing_split": ("A split cannot be loaded", "Name another by --train_split and --validation_split."),
        "same_name": (
            "Files that share a name but for the suffix",
            "Images and masks are paired by name: rename or remove one.",
        ),
        "narrow_images": (
            "Images that are too narrow for the model, in a split that is not cropped (width x height)",
            "Remove them with their masks, or raise --short_side and --long_side, in training too.",
        ),
        "file_names": ("Names of files that are no text in UTF-8", "Rename them, as data sets store names as text."),
        "image_without_mask": ("Images without a mask", "Add annotations/SPLIT/NAME.png, or remove the image."),
        "mask_without_image": (
            "Masks without an image",
            "Add images/SPLIT/NAME.jpg (or .png, .tif, ...), or remove the mask.",
        ),
        "unreadable": ("Files that cannot be read", "Fetch them again, or remove them with their partners."),
        "other_size": (
            "Masks that differ in size from their image (width x height)",
            "Export them again; or resize them to the nearest pixel, so that no new id appears.",
        ),
        "mask_mode": (
            "Masks that are no images of ids",
            "A mask stores one id per pixel, as an 8-bit greyscale or palette PNG."
            f" `{IMPORT_COMMAND} SOURCE my_data` gives each colour its id.",
        ),
        "mask_bit_depth": (
            "Greyscale masks of less than 8 bits",
            "Readers spread their values over 0 to 255, so that ids change: save them with 8 bits, and keep tools "
            "that shrink PNG files away from them.",
        ),
        "binary_masks": (
            "All masks hold only 0 and 255",
            "255 is unlabelled, so one class is left. Save the other class as 1: "
            f"Image.fromarray(np.asarray(mask) // 255).save(path), or `{IMPORT_COMMAND} SOURCE my_data`.",
        ),
        "lossy_masks": (
            "Masks that hold values near 0 and near 255, as a compression with losses leaves of two",
            f"255 is unlabelled, so the second class needs another id. `{IMPORT_COMMAND} SOURCE my_data` takes each"
            " value for the nearer of the two, and says how many pixels were doubtful.",
        ),
        "wrong_ids": (
            "Ids without a class name",
            f"Add the missing names. If these are no ids, `{IMPORT_COMMAND} SOURCE my_data` makes ids of them.",
        ),
        "nothing_labelled": (
            "Splits without a labelled pixel",
            "Compare the ids in the masks with the names of the classes, and with --reduce_labels.",
        ),
    },
}


# What is examined of a pair.
IMAGE, MASK = "image", "mask"


class Finding(NamedTuple):
    """
    What is found in one image or mask, or in one folder of files.

    Attributes:
        rule (`str`): a key of `RULES`.
        place (`Path` or `str`): the file or folder; of a pair that is examined `IMAGE` or `MASK`; of other things a
            description.
        said (`str`): what the report says behind its name.
        error (`ValueError`, *optional*): what training is refused with; without one it runs.
    """

    rule: str
    place: Path | str
    said: str = ""
    error: ValueError | None = None


class UnreadableFileError(ValueError):
    """An image or a mask that no reader understands, such as one that was cut off."""


def first_error(findings: list[Finding]) -> ValueError | None:
    """What training is refused with, unless it accepts all that was found."""
    return next((finding.error for finding in findings if finding.error is not None), None)


# --------------------------------------------------------------------------------------------------------- the folders


class Pair(NamedTuple):
    """Files of one name in one split; either may be missing, for which there is a finding then."""

    split: str
    image: Path | None
    mask: Path | None

    @property
    def stem(self) -> str:
        return (self.image or self.mask).stem

    def encoded(self) -> tuple[EncodedImage | None, EncodedImage | None]:
        """The photograph and the mask, by their paths."""
        files = (self.image, self.mask)
        return tuple(None if file is None else {"path": str(file), "bytes": None} for file in files)

    def error_names(self) -> tuple[str, str]:
        """What errors call the photograph and the mask."""
        return f"The image {self.image}", f"The mask {self.mask}"


def find_pairs(data_dir: Path, split: str) -> tuple[list[Pair], list[Finding]]:
    """
    Pair the files in `images/SPLIT` and `annotations/SPLIT` by their names but for the suffix, sorted by it.

    Raises:
        ValueError: if the name of the split is none of a folder.
    """
    if split in ("", ".", "..") or re.search(r"[/\\\0]", split):
        raise ValueError(f"The split {split!r} is no name of a folder in images/ and annotations/, as it has to be.")
    image_dir, mask_dir = data_dir / "images" / split, data_dir / "annotations" / split
    findings: list[Finding] = []
    images = _files_by_stem(image_dir, IMAGE_SUFFIXES, findings)
    masks = _files_by_stem(mask_dir, MASK_SUFFIXES, findings)
    for stem in sorted(images.keys() - masks.keys()):
        refusal = (
            f"The image {images[stem]} has no mask: every image needs one, here {mask_dir / stem}.png. Add it or"
            " remove the image."
        )
        findings.append(Finding("image_without_mask", images[stem], error=ValueError(refusal)))
    for stem in sorted(masks.keys() - images.keys()):
        refusal = (
            f"The mask {masks[stem]} has no image: every mask needs one, {image_dir / stem}.jpg (or .png, .tif, ...)"
            " does not exist. Add it or remove the mask."
        )
        findings.append(Finding("mask_without_image", masks[stem], error=ValueError(refusal)))
    stems = sorted(images.keys() | masks.keys())
    return [Pair(split, images.get(stem), masks.get(stem)) for stem in stems], findings


def _files_by_stem(folder: Path, suffixes: tuple[str, ...], findings: list[Finding]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    left_out: Counter = Counter()
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        path = folder / name
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in suffixes:
            if not name.startswith("."):
                left_out["folders" if path.is_dir() else f"files *{printable(suffix)}"] += 1
        elif not is_text(name):
            refusal = f"The name of {printable(str(path))} is no text in UTF-8, as data sets store it: rename it."
            findings.append(Finding("file_names", path, error=ValueError(refusal)))
        elif stem in files:
            refusal = f"{files[stem]} and {path} share a name: images and masks are paired by it. Rename one."
            findings.append(Finding("same_name", files[stem], f" and {name}", ValueError(refusal)))
        else:
            files[stem] = path
    findings += [Finding("files_left_out", folder, f": {count:,} {kind}") for kind, count in left_out.items()]
    if not files:
        said = f" holds no {' or '.join(suffixes)} file"
        refusal = f"The folder {folder}{said}. Put some there; other formats are not read."
        if not folder.is_dir():
            refusal = f"The folder {folder} does not exist; a split keeps its {', '.join(suffixes)} files there."
            if others := _folders_in(folder.parent):
                said = f" does not exist, beside {', '.join(others)}"
                refusal += (
                    f" {folder.parent.name}/ holds {', '.join(others)}: say which of them are the splits by"
                    " --train_split and --validation_split (for the inspection by --splits)."
                )
            else:
                refusal += (
                    " Move some there, or rename yours: the splits are called training and validation, unless"
                    " --train_split and --validation_split say otherwise."
                )
        findings.append(Finding("missing_folder", folder, said, ValueError(refusal)))
    return files


def _folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, if there is one, without hidden ones."""
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(printable(name) for name in names if not name.startswith("."))


# --------------------------------------------------------------------------------------------------- one pair of files


@dataclass
class FileFacts:
    """
    What an image or a mask tells, as far as it can be read.

    Attributes:
        format, mode (`str`): as Pillow calls them; empty if it is no picture.
        size (`tuple[int, int]`): width and height; upright, if it could be read.
        is_read (`bool`): whether it could be read to its end.
        orientation (`int`): what an image was turned by, see [`read_orientation`].
        pixels (`dict[int, int]`): what a mask holds: ids as stored, with their numbers of pixels.
        hash (`int`, *optional*): what an image shows, coarsely, where that was asked for; see [`picture_hash`].
        colours (`dict[int, int]`): what a mask of colours holds in their place: 0xRRGGBB -> number of pixels, of the
            most frequent ones.
    """

    format: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    is_read: bool = False
    orientation: int = 1
    pixels: dict[int, int] = field(default_factory=dict)
    hash: int | None = None
    colours: dict[int, int] = field(default_factory=dict)


def in_processes(
    examine: Callable[[Pair], Any],
    pairs: list[Pair],
    num_workers: int,
    died: str,
    option: str,
    start_method: str | None = None,
) -> Iterator[Any]:
    """
    What `examine` gives of each pair, in order.

    Args:
        num_workers (`int`): number of processes; with 0 all is done in this one.
        died, option (`str`): what an error says of a process that died, and what gives fewer of them.
        start_method (`str`, *optional*): as of [`multiprocessing.get_context`].

    Raises:
        `ChildProcessError`: if a process died.
    """
    if num_workers == 0:
        yield from map(examine, pairs)
        return
    with ProcessPoolExecutor(num_workers, get_context(start_method), leave_interrupts_to_parent) as pool:
        try:
            with starting_helpers():
                results = pool.map(examine, pairs, chunksize=16)
            yield from results
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"{died}. The system ends those that take too much memory, for example: take fewer by {option}."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def examine_pair(
    image: EncodedImage | None,
    mask: EncodedImage | None,
    image_name: str,
    mask_name: str,
    num_labels: int,
    reduce_labels: bool,
    with_hash: bool = False,
) -> tuple[FileFacts, FileFacts, list[Finding]]:
    """
    Read an image as RGB and a mask as ids, both to their ends; compare their sizes, and the ids with the classes.

    Args:
        image, mask (`dict`, *optional*): `{"path": ..., "bytes": ...}`, as of [`datasets.Image`]. One that is missing
            is passed over.
        image_name, mask_name (`str`): what an error calls them.
        num_labels (`int`): K; ids lie in [0, K), or with `reduce_labels` in [1, K], where 0 is unlabelled too.
        with_hash (`bool`, *optional*, defaults to `False`): whether to say what the image shows: [`picture_hash`].

    Returns:
        What the image and the mask tell, and the findings: of the image, of the mask, of both sizes, of the ids.
    """
    findings: list[Finding] = []
    image_facts = FileFacts() if image is None else _examine_image(image, image_name, findings, with_hash)
    mask_facts = FileFacts() if mask is None else _examine_mask(mask, mask_name, findings)
    if image_facts.is_read and mask_facts.is_read and image_facts.size != mask_facts.size:
        size, image_size = format_size(mask_facts.size), format_size(image_facts.size)
        orientation = image_facts.orientation
        turned = f", turned by its EXIF orientation {orientation}" if orientation >= 5 else ""
        refusal = (
            f"{mask_name} has {size} pixels (width x height). {image_name} has {image_size}, and both need the same"
            " size: export the mask again, or resize it to the nearest pixel."
        )
        said = f": {size}, the image {image_size}{turned}"
        findings.append(Finding("other_size", MASK, said, ValueError(refusal)))
    if mask_facts.is_read:
        _examine_ids(mask_name, mask_facts, num_labels, reduce_labels, findings)
    return image_facts, mask_facts, findings


def _examine_image(image: EncodedImage, name: str, findings: list[Finding], with_hash: bool) -> FileFacts:
    facts = FileFacts()
    try:
        picture = open_photograph(encoded_file(image), name)
        facts = FileFacts(picture.format, picture.mode, picture.size)
        with naming_errors(name):
            height, width = upright_size(picture)
            facts.orientation = read_orientation(picture)
            # All bytes are read, large pictures at an eighth of the size: enough to notice a file that was cut off.
            picture.draft("RGB", (2 * SAMPLES, 2 * SAMPLES))
            picture.load()
            if with_hash:
                facts.hash = picture_hash(turn_upright(to_rgb(picture, name), facts.orientation))
    except (MemoryError, OSError, ValueError) as error:
        rule, said = "unreadable", None
        if isinstance(error, ValueError):
            with suppress(MemoryError, OSError):
                picture = open_image(encoded_file(image), name)
                facts = FileFacts(picture.format, picture.mode, picture.size)
            if facts.mode in UNKNOWN_RANGE_MODES:
                rule, said = "unknown_range", f"mode {facts.mode}"
        findings.append(_explain(error, rule, said, IMAGE, name, "Replace it, or remove it and its mask."))
        return facts
    facts.size, facts.is_read = (width, height), True
    if facts.mode in DEEP_IMAGE_MODES:
        findings.append(Finding("deep_images", IMAGE, f": mode {facts.mode}"))
    if facts.orientation > 1:
        findings.append(Finding("turned_images", IMAGE, f": orientation {facts.orientation}"))
    return facts


def _examine_mask(mask: EncodedImage, name: str, findings: list[Finding]) -> FileFacts:
    facts, form = FileFacts(), ""
    try:
        with naming_errors(name):
            encoded = encoded_bytes(mask)
        picture = open_image(BytesIO(encoded), name)
        facts, form = FileFacts(picture.format, picture.mode, picture.size), stored_form(picture)
        ids = decode_mask(picture, name, encoded)
        facts.pixels = _count_ids(ids)
    except (MemoryError, OSError, ValueError) as error:
        rule, said = "unreadable", None
        if facts.mode and facts.mode not in MASK_MODES:
            rule, said = "mask_mode", f"mode {facts.mode}"
            if facts.mode in COLOUR_MODES:
                with suppress(MemoryError, OSError), naming_errors(name):
                    facts.colours = _count_colours(np.asarray(picture.convert("RGB")))
        elif form[2:3].isdigit():
            rule, said = "mask_bit_depth", f"{form[2]} bits"
        findings.append(_explain(error, rule, said, MASK, name, "Replace it, or remove it and its image."))
        return facts
    facts.size, facts.is_read = ids.shape[::-1], True
    if facts.mode == "P":
        findings.append(Finding("palette_masks", MASK))
    return facts


def _count_ids(ids: np.ndarray) -> dict[int, int]:
    if ids.dtype != np.uint8:
        labels, counts = np.unique(ids, return_counts=True)
    else:
        # In parts that are small enough for OpenCV to give their counts in float32 without a loss.
        parts = np.array_split(ids.ravel(), 1 + ids.size // 2**24)
        counts = sum(cv2.calcHist([part], [0], None, [256], [0, 256]).ravel().astype(np.int64) for part in parts)
        labels = np.flatnonzero(counts)
        counts = counts[labels]
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def _count_colours(pixels: np.ndarray) -> dict[int, int]:
    """0xRRGGBB -> number of pixels, of the most frequent colours of `(height, width, 3)`."""
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    colours, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:MAXIMUM_COLOURS]
    return dict(zip(colours[most].tolist(), counts[most].tolist(), strict=True))


def _examine_ids(name: str, facts: FileFacts, num_labels: int, reduce_labels: bool, findings: list[Finding]) -> None:
    wrong = find_wrong_ids(facts.pixels, num_labels, reduce_labels)
    if wrong:
        lowest, highest = (1, num_labels) if reduce_labels else (0, num_labels - 1)
        unlabelled = (0, IGNORE_INDEX) if reduce_labels else (IGNORE_INDEX,)
        refusal = ValueError(
            f"{name} holds the id {wrong[0]}; with {num_labels} classes ids lie in [{lowest}, {highest}], and "
            f"{' and '.join(map(str, unlabelled))} {'are' if reduce_labels else 'is'} unlabelled. Correct the mask or "
            "name all classes; set reduce_labels if, and only if, 0 is unlabelled and the first class has the id 1."
        )
        if len(facts.pixels) > MAXIMUM_IDS:
            said = f": it holds {len(facts.pixels):,} different ids, as many as no list of classes has"
            findings.append(Finding("unreadable", MASK, said, refusal))
            facts.pixels = {}
        else:
            findings.append(Finding("wrong_ids", MASK, f": id {wrong[0]}", refusal))
    elif holds_no_label(facts.pixels.keys(), reduce_labels):
        findings.append(Finding("unlabelled_masks", MASK))


def _explain(error: Exception, rule: str, said: str | None, place: str, name: str, advice: str) -> Finding:
    """The finding that training's own reader has made by this error; without words of its own it says the error's."""
    words = str(error)
    if isinstance(error, MemoryError):  # which says nothing of the file on another machine, so that it is not left out
        refusal = ValueError(f"{words}. Make it smaller, or check fewer at a time (--preprocessing_num_workers).")
    elif isinstance(error, OSError):
        # Errors of the system, such as of a file that is not there, name a file and no row.
        named = words if error.filename is None else f"{name} cannot be read: {words}"
        refusal = UnreadableFileError(f"{named}. {advice}")
    else:
        refusal = ValueError(words)
    return Finding(rule, place, f": {said or words.replace(name, 'it', 1)}", refusal)


def format_size(size: tuple[int, int]) -> str:
    """Width x height, as people write it."""
    return f"{size[0]} x {size[1]}"
