# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""From a source to the folder that training reads: look at everything, decide, write."""

import json
import os
import re
import shlex
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from glob import escape
from hashlib import blake2b
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image
from tqdm import tqdm

from modeling_denseclip.tools.files.photographs import open_photograph, read_orientation, turn_upright
from modeling_denseclip.tools.files.saving import replace_folder

from ..data.class_names import CLASSES_FILE
from ..data.duplicates import Groups, find_near, picture_hash, source_stem
from ..data.files import IGNORE_INDEX, printable
from ..data.findings import format_size, in_processes
from .classes import Classes, Question, show_key
from .sources import UNCOVERED, Drawing, Item, Source


IMPORT_FILE = "import.json"
MASKS, PHOTOGRAPHS = "annotations", "images"
LONGEST_NAME = 230  # bytes; file systems take 255, with a number and a suffix


@dataclass(frozen=True)
class Facts:
    """
    What an item tells when it is looked at.

    Attributes:
        pixels (`dict[int, int]`): of each key its number of pixels.
        remarks (`dict[str, int]`): see [`Drawing`].
        digest (`int`, *optional*): by which near duplicates of the photograph are found; `None` of flat ones.
        content (`tuple[bytes, bytes]`, *optional*): by which the very same photograph, and the very same annotation,
            are known again; only where it is asked for.
        error (`str`, *optional*): why it cannot be taken; then there is nothing else.
    """

    pixels: dict[int, int] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    digest: int | None = None
    content: tuple[bytes, bytes] | None = None
    error: str | None = None


def look_at(job: tuple[Item, bool]) -> Facts:
    """Draw an item's annotation and count its keys; `job` says too whether its `content` is wanted."""
    item, with_content = job
    try:
        drawing, digest = draw_upright(item, with_digest=True)
        content = (_digest_photograph(item.image), _digest(drawing.keys)) if with_content else None
    except (MemoryError, OSError, ValueError) as error:
        return Facts(error=str(error))
    lowest = int(drawing.keys.min())
    counts = np.bincount((drawing.keys - lowest).ravel())
    pixels = {key + lowest: int(counts[key]) for key in np.flatnonzero(counts).tolist()}
    return Facts(pixels, dict(drawing.remarks), digest, content)


def _digest(pixels: np.ndarray) -> bytes:
    return blake2b(np.ascontiguousarray(pixels), digest_size=16, person=repr(pixels.shape).encode()[:16]).digest()


def _digest_photograph(path: Path) -> bytes:
    with open_photograph(path, f"The image {path}") as picture:
        return _digest(np.asarray(picture.convert("RGB")))


def draw_upright(item: Item, with_digest: bool = False) -> tuple[Drawing, int | None]:
    """
    An annotation as training reads it: of the size of the photograph, and turned as the photograph is. Tools draw on
    photographs that were turned upright, or not; of those on their side the size tells which.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if the annotation is of another size than the photograph.
    """
    source = f"The image {item.image}"
    with open_photograph(item.image, source) as picture:
        width, height = picture.size
        orientation = read_orientation(picture)
        digest = picture_hash(picture) if with_digest else None
    stored = (height, width)
    upright = (width, height) if orientation >= 5 else stored
    if item.size is None:
        return _draw_by_files(item, stored, upright, orientation), digest
    if item.size == upright:
        return item.draw(upright), digest
    if item.size == stored:
        return _turned(item.draw(stored), orientation), digest
    raise ValueError(
        f"{source} has {format_size(upright[::-1])} pixels (width x height), and its annotation was made on"
        f" {format_size(item.size[::-1])}: both need the same size. Take the photograph that was annotated."
    )


def _draw_by_files(item: Item, stored: tuple[int, int], upright: tuple[int, int], orientation: int) -> Drawing:
    try:
        return item.draw(upright)
    except ValueError:
        if stored == upright:
            raise
        return _turned(item.draw(stored), orientation)


def _turned(drawing: Drawing, orientation: int) -> Drawing:
    keys = np.asarray(turn_upright(PIL.Image.fromarray(drawing.keys), orientation))
    return drawing._replace(keys=keys)


# ---------------------------------------------------------------------------------------------------------- the survey


@dataclass
class Survey:
    """
    All that a source holds.

    Attributes:
        items (`list[Item]`): those that can be taken.
        digests (`list[int | None]`): of their photographs.
        keys (`list[frozenset[int]]`): that occur in their annotations.
        pixels (`Counter`): of each key its number of pixels.
        holders (`dict[int, str]`): of each key an annotation that holds it.
        remarks (`Counter`): of all drawings.
        broken (`list[str]`): what cannot be taken, and why.
        copies (`list[str]`): what is left out as it is there twice.
    """

    items: list[Item] = field(default_factory=list)
    digests: list[int | None] = field(default_factory=list)
    keys: list[frozenset[int]] = field(default_factory=list)
    pixels: Counter = field(default_factory=Counter)
    holders: dict[int, str] = field(default_factory=dict)
    remarks: Counter = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)


def survey(source: Source, root: Path, num_workers: int) -> Survey:
    """
    Look at every item of a source. A photograph that lies in it twice, with the same annotation, is taken once.

    Raises:
        [`Question`]: if annotations of the very same photograph differ.
        `ValueError`: if none can be taken.
        `ChildProcessError`: if a process died.
    """
    found = Survey()
    died = "A process that reads photographs and annotations died"
    often = Counter(_last_name(item) for item in source.items)
    jobs = [(item, often[_last_name(item)] > 1) for item in source.items]
    results = in_processes(look_at, jobs, num_workers, died, "--num_workers", start_method="spawn")
    looked_at: list[tuple[Item, Facts]] = []
    for item, facts in zip(source.items, tqdm(results, "Reading", len(source.items), disable=None), strict=True):
        if facts.error is not None:
            found.broken.append(facts.error)
        else:
            looked_at.append((item, facts))
    if not looked_at:
        first = found.broken[0] if found.broken else f"{root} holds no photograph that is annotated"
        raise ValueError(f"{first}. None of {len(source.items):,} photographs can be taken.")
    for item, facts in _without_copies(looked_at, root, found.copies):
        found.items.append(item)
        found.digests.append(facts.digest)
        found.keys.append(frozenset(facts.pixels))
        found.pixels.update(facts.pixels)
        found.remarks.update(facts.remarks)
        holder = (item.annotations or (item.image,))[0]
        for key in facts.pixels:
            found.holders.setdefault(key, _as_seen_from(root, holder))
    return found


def _last_name(item: Item) -> str:
    return item.image.stem.casefold()


def _without_copies(
    looked_at: Sequence[tuple[Item, Facts]], root: Path, copies: list[str]
) -> list[tuple[Item, Facts]]:
    """
    Photographs of one name and the very same pixels once for each part of the data set, and only there, if one of them
    belongs to a part: some data sets hold a folder of all beside those of the parts, or each picture in two formats.
    """
    by_content: dict[tuple[str, bytes], list[int]] = defaultdict(list)
    for position, (item, facts) in enumerate(looked_at):
        if facts.content is not None:
            by_content[_last_name(item), facts.content[0]].append(position)
    dropped = set()
    for positions in by_content.values():
        first, *others = sorted(positions, key=lambda position: looked_at[position][0].split is None)
        taken = {looked_at[first][0].split: first}
        for other in others:
            item, facts = looked_at[other]
            if facts.content != looked_at[first][1].content:
                raise Question(_ask_which(looked_at[first][0], item, root))
            if item.split is None or item.split in taken:
                dropped.add(other)
                same = _as_seen_from(root, looked_at[taken.get(item.split, first)][0].image)
                copies.append(f"{_as_seen_from(root, item.image)}: the same photograph and annotation as {same}")
            else:  # in two parts, which the inspection of the result says
                taken[item.split] = other
    return [entry for position, entry in enumerate(looked_at) if position not in dropped]


def _ask_which(first: Item, second: Item, root: Path) -> str:
    images = [_as_seen_from(root, item.image) for item in (first, second)]
    masks = [PurePosixPath(_as_seen_from(root, path)) for item in (first, second) for path in item.annotations[:1]]
    said = f"{images[0]} and {images[1]} are the same photograph, and their annotations differ"
    patterns = [shlex.quote(f"{escape(str(mask.parent))}/*{mask.suffix}") for mask in masks]
    if len(set(patterns)) < 2:
        return f"{said} ({' and '.join(map(str, masks))}): keep one of them."
    return f"{said}: say which are to be taken, by {' or '.join(f'--masks {pattern}' for pattern in patterns)}."


def _as_seen_from(root: Path, path: Path) -> str:
    path = path.relative_to(root) if path.is_relative_to(root) else path
    return printable(path.as_posix())


def find_groups(items: Sequence[Item], digests: Sequence[int | None]) -> list[int]:
    """
    Which photographs must not be parted, as a number for each: those whose names say that they are crops or copies of
    one, and those that look alike.
    """
    groups = Groups(len(items))
    by_stem: dict[str, list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        by_stem[source_stem(item.name)].append(position)
    for first, *others in (*find_near(digests), *by_stem.values()):
        for other in others:
            groups.join(first, other)
    return [groups.first(position) for position in range(len(items))]


# ---------------------------------------------------------------------------------------------------------- the writer


def write_folder(
    target: Path,
    splits: Mapping[str, Sequence[Item]],
    classes: Classes,
    source: Source,
    root: Path,
    num_workers: int = 0,
    copy: bool = False,
) -> dict[str, int]:
    """
    Write `images/`, `annotations/`, `classes.txt` and `import.json`. They take the place of an earlier import when all
    of it is complete.

    Args:
        copy (`bool`, *optional*, defaults to `False`): copy photographs; by default they get a second name on their
            disk, or are linked to from another one, and are copied where neither is possible.

    Returns:
        How many photographs were "linked" and "copied".

    Raises:
        OSError: where it cannot be written.
        ChildProcessError: if a process died.
    """
    counts: Counter = Counter()

    def write(folder: Path) -> None:
        record = {}
        for split, items in splits.items():
            names = _file_names(items)
            for kind in (PHOTOGRAPHS, MASKS):
                (folder / kind / split).mkdir(parents=True)
            jobs = [(item, folder / MASKS / split / f"{name}.png") for item, name in zip(items, names, strict=True)]
            died = "A process that writes masks died"
            write_one = partial(_write_mask, id_of=classes.id_of)
            written = in_processes(write_one, jobs, num_workers, died, "--num_workers", start_method="spawn")
            for item, name, _ in zip(
                items, names, tqdm(written, f"Writing {split}", len(jobs), disable=None), strict=True
            ):
                suffix = item.image.suffix.lower()
                counts[_place(item.image, folder / PHOTOGRAPHS / split / f"{name}{suffix}", copy)] += 1
                record[f"{split}/{name}"] = {
                    "image": _as_seen_from(root, item.image),
                    "annotations": [_as_seen_from(root, path) for path in item.annotations],
                }
        (folder / CLASSES_FILE).write_text("".join(f"{name}\n" for name in classes.names), encoding="utf-8")
        content = {
            "source": printable(str(root.absolute())),
            "form": source.form,
            "classes": classes.names,
            "ids": {_name_of_key(key, source): id for key, id in classes.id_of.items()},
            "pictures": record,
        }
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (folder / IMPORT_FILE).write_text(f"{text}\n", encoding="utf-8")

    replace_folder(target, write, IMPORT_FILE, is_replaced=lambda file: True)
    return dict(counts)


def _name_of_key(key: int, source: Source) -> str:
    """What the source itself calls a key; of colours and of what nothing covers, as `--names` takes them."""
    shown = show_key(key, source)
    return shown if source.keys_are_colours or key == UNCOVERED else source.names.get(key, shown)


def _write_mask(job: tuple[Item, Path], id_of: Mapping[int, int]) -> None:
    item, path = job
    drawing, _ = draw_upright(item)
    lowest, highest = int(drawing.keys.min()), int(drawing.keys.max())
    table = np.full(highest - lowest + 1, IGNORE_INDEX, np.uint8)
    for key, id in id_of.items():
        if lowest <= key <= highest:
            table[key - lowest] = id
    PIL.Image.fromarray(table[drawing.keys - lowest]).save(path)


def _place(photograph: Path, target: Path, copy: bool) -> str:
    """Give a photograph a name in the folder. A second name of the same file outlives the first."""
    if not copy:
        photograph = photograph.resolve()
        for link in (os.link, os.symlink):
            try:
                link(photograph, target)
            except (OSError, NotImplementedError):
                continue
            return "linked"
    shutil.copyfile(photograph, target)
    return "copied"


def _file_names(items: Sequence[Item]) -> list[str]:
    """Names of files, all different: the last part of an item's name, or all of it where that is not enough."""
    last = [_as_file_name(item.name.split("/")[-1]) for item in items]
    often = {name for name, count in Counter(name.casefold() for name in last).items() if count > 1}
    names: list[str] = []
    taken: set[str] = set()
    for item, name in zip(items, last, strict=True):
        if name.casefold() in often:
            name = _as_file_name(item.name.replace("/", "_"))
        base, number = name, 1
        while name.casefold() in taken:  # some file systems do not tell cases apart
            number += 1
            name = f"{base}_{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _as_file_name(name: str) -> str:
    """A name that any system takes: no letters that are no text or that some systems refuse, no dot in front."""
    name = re.sub(r'[\x00-\x1f<>:"/\\|?*\x7f]', "_", printable(name)).strip(" .")
    # The end tells names apart that folders begin.
    return name.encode()[-LONGEST_NAME:].decode(errors="ignore").strip(" .") or "picture"
