# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
What the values of the masks of a data set mean: ids or colours, decided once over all files, and then drawn.

What a format or a program has changed is told from what an annotator meant by the width of it. A value is called flat
if at least `MINIMUM_FLAT` of its pixels, over all masks, are the middle of 3 x 3 that hold it; JPEG and resizing leave
values between classes at their edges alone, where hardly any are. In masks whose format loses nothing a flat value, or
a colour of the table, always stays a key of its own. They count as blurred, so that each other value becomes the
nearest of those, only if

- every two flat values differ by at least `SEPARATION` levels in some channel, which ids 0, 1, 2, ... never do;
- all other values lie between flat ones, or as far beyond them as a resize may overshoot; at most `MAXIMUM_BLURRED` of
  the pixels hold them; they are at least as many as the flat ones, and not all near one flat value alone;
- and of those farther than `TOLERANCE` from every flat value there are none or at least three: one or two may be
  classes that are drawn as thin lines.

Of a lossy format the values that were meant are the peaks of what is flat within `TOLERANCE`, `SEPARATION` apart.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ..data.findings import format_size, in_processes
from ..data.name_files import format_colour
from .mask_files import MASK_FILE_SUFFIXES, MaskValues, read_values
from .painting import Overlaps, Shape, draw_shapes
from .sources import UNCOVERED, Drawing


__all__ = [
    "MASK_FILE_SUFFIXES", "MaskReading", "MaskScan", "MaskValues", "decide_reading", "draw_mask", "draw_parts",
    "pack_colours", "read_values", "scan_masks",
]  # fmt: skip

# Levels from 0 to 255: what JPEG changes where nothing ends, and how far values have to differ to survive it.
TOLERANCE, SEPARATION = 8, 24
MINIMUM_FLAT = 0.2  # share of the pixels of a value; of a square of 4 x 4 pixels it is 0.25
MAXIMUM_BLURRED = 0.25  # share of the pixels of blurred masks that lie between the values meant
OVERSHOOT = 0.3  # of bicubic and Lanczos resampling at corners, as a share of the range of values
# Share of the pixels of lossy masks that lie within TOLERANCE of a value meant. Of a photograph it can be 0.7 for
# greys, as so many of all levels are near to one of several, and less than 0.4 for colours.
MINIMUM_CLEAR, MINIMUM_CLEAR_COLOURS = 0.8, 0.5
MINIMUM_PEAK = 1e-4  # share of the flat pixels; what fewer share is an accident of the compression
MAXIMUM_KEYS = 4096  # more are photographs, measurements, or the numbers of single objects
MAXIMUM_CANDIDATES = 1024  # for a peak: the most frequent values; more can only be noise
# Where there are more keys than this, it is looked at whether they are measurements, or a photograph.
SUSPICIOUS_KEYS = 64
# Keys that are counted: photographs and noise hold up to 16 million colours.
COUNTED_KEYS, COUNTED_KEYS_OF_FILE = 2**16, 2**12
DOUBTFUL = "pixels that lie between two values of the masks, about as near to either"


@dataclass
class KeyCounts:
    """
    How often keys occur, the more frequent ones where they are too many to count.

    Attributes:
        pixels (`Counter`): number of pixels of each key.
        flat (`Counter`): number of those around which 3 x 3 pixels are alike.
        files (`Counter`): number of files that hold each key.
        examples (`dict[int, Path]`): a file that holds it, the one with the most pixels of it.
        others (`int`): number of pixels of keys that are not counted.
    """

    pixels: Counter = field(default_factory=Counter)
    flat: Counter = field(default_factory=Counter)
    files: Counter = field(default_factory=Counter)
    examples: dict[int, Path] = field(default_factory=dict)
    others: int = 0
    most: Counter = field(default_factory=Counter)  # pixels of a key in its example

    def add(self, path: Path, pixels: dict[int, int], flat: dict[int, int], others: int) -> None:
        self.pixels.update(pixels)
        self.flat.update(flat)
        self.files.update(pixels.keys())
        self.others += others
        for key, count in pixels.items():
            if count > self.most[key]:
                self.most[key], self.examples[key] = count, path
        if len(self.pixels) > 2 * COUNTED_KEYS:
            self._forget_rare()

    def _forget_rare(self) -> None:
        kept = dict(self.pixels.most_common(COUNTED_KEYS))
        self.others += self.pixels.total() - sum(kept.values())
        for name in ("pixels", "flat", "files", "most"):
            setattr(self, name, Counter({key: n for key, n in getattr(self, name).items() if key in kept}))
        self.examples = {key: path for key, path in self.examples.items() if key in kept}

    @property
    def total(self) -> int:
        return self.pixels.total() + self.others


@dataclass
class MaskScan:
    """
    What all masks of a data set hold.

    Attributes:
        num_files (`int`): number of files that could be read.
        forms (`Counter`): how many files are of which form, such as "palette PNG of 8 bits".
        broken (`dict[Path, str]`): files that could not be read, and why.
        values (`KeyCounts`): of files of numbers: what they store. Of colour images that hold greys alone, their
            greys, too.
        colours (`KeyCounts`): of all files: colours, 0xRRGGBB; of palette images those that their indices stand for,
            and greys of others.
        num_coloured (`int`): number of files that hold colours other than greys.
        num_palettes (`int`): number of palette images.
        conflicts (`list[str]`): indices that stand for other colours in other files, in words.
        num_colourless (`int`): number of files with numbers that stand for no colour.
        num_lossy (`int`): number of files of a lossy format.
        num_edges, num_steps (`int`): pairs of neighbours that differ, and those that differ by at most 2 levels.
        names (`dict[int, str]`): names of values that the files themselves tell.
    """

    num_files: int = 0
    forms: Counter = field(default_factory=Counter)
    broken: dict[Path, str] = field(default_factory=dict)
    values: KeyCounts = field(default_factory=KeyCounts)
    colours: KeyCounts = field(default_factory=KeyCounts)
    num_coloured: int = 0
    num_palettes: int = 0
    conflicts: list[str] = field(default_factory=list)
    num_colourless: int = 0
    num_lossy: int = 0
    num_edges: int = 0
    num_steps: int = 0
    names: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MaskReading:
    """
    How the masks of a data set are read; made by [`decide_reading`].

    Attributes:
        are_colours (`bool`): whether keys are colours, 0xRRGGBB, or the stored numbers.
        allowed (`tuple[int, ...]`): the keys, of which each pixel takes the nearest; empty where masks are exact.
        mat_key (`str`, *optional*): of files of MATLAB, see [`read_values`].
        notes (`tuple[str, ...]`): what a user should know of the decision.
    """

    are_colours: bool = False
    allowed: tuple[int, ...] = ()
    mat_key: str | None = None
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------------------------- scan


@dataclass
class _FileScan:
    path: Path
    error: str = ""
    form: str = ""
    is_lossy: bool = False
    is_coloured: bool = False
    palette: dict[int, int] = field(default_factory=dict)
    pixels: dict[int, int] = field(default_factory=dict)
    flat: dict[int, int] = field(default_factory=dict)
    others: int = 0
    colours: dict[int, int] = field(default_factory=dict)  # colour of a key; empty where keys are colours
    num_edges: int = 0
    num_steps: int = 0
    names: dict[int, str] = field(default_factory=dict)


def scan_masks(paths: Iterable[Path], num_workers: int = 0, mat_key: str | None = None) -> MaskScan:
    """
    Read all masks of a data set once: a class may occur in a single one of them.

    Args:
        num_workers (`int`, *optional*, defaults to 0): number of processes; with 0 all is done in this one.
        mat_key (`str`, *optional*): of files of MATLAB, see [`read_values`].
    """
    scan = MaskScan()
    palette: dict[int, tuple[int, Path]] = {}
    died = "A process that reads masks died"
    for found in in_processes(partial(_scan_file, mat_key=mat_key), list(paths), num_workers, died, "--num_workers"):
        if found.error:
            scan.broken[found.path] = found.error
            continue
        scan.num_files += 1
        scan.forms[found.form] += 1
        scan.num_lossy += found.is_lossy
        scan.num_coloured += found.is_coloured
        scan.num_edges += found.num_edges
        scan.num_steps += found.num_steps
        scan.names.update(found.names)
        _add_counts(scan, found)
        if found.palette:
            scan.num_palettes += 1
            for index in found.pixels:
                _compare_palettes(scan, palette, index, found)
    return scan


def _add_counts(scan: MaskScan, found: _FileScan) -> None:
    if found.is_coloured:
        scan.colours.add(found.path, found.pixels, found.flat, found.others)
        return
    scan.values.add(found.path, found.pixels, found.flat, found.others)
    scan.num_colourless += not found.pixels.keys() <= found.colours.keys()
    pixels, flat = Counter(), Counter()  # two indices may have one colour
    for key, count in found.pixels.items():
        if (colour := found.colours.get(key, UNCOVERED)) != UNCOVERED:
            pixels[colour] += count
            flat[colour] += found.flat.get(key, 0)
    scan.colours.add(found.path, pixels, +flat, found.others)


def _compare_palettes(scan: MaskScan, palette: dict[int, tuple[int, Path]], index: int, found: _FileScan) -> None:
    colour = found.palette.get(index, UNCOVERED)
    other, path = palette.setdefault(index, (colour, found.path))
    if other != colour and len(scan.conflicts) < 5:
        words = [format_colour(c) if c != UNCOVERED else "transparent" for c in (other, colour)]
        scan.conflicts.append(f"index {index} is {words[0]} in {path} and {words[1]} in {found.path}")


def _scan_file(path: Path, mat_key: str | None) -> _FileScan:
    try:
        mask = read_values(path, mat_key)
    except (OSError, ValueError) as error:
        return _FileScan(path, error=str(error))
    is_coloured = mask.values.ndim == 3 and not _is_grey(mask)
    keys = pack_colours(mask.values) if is_coloured else _greys(mask)
    covered = keys != UNCOVERED if mask.covered is None else mask.covered
    keys = np.where(covered, keys, UNCOVERED)
    pixels, others = _count(keys[covered])
    flat, _ = _count(keys[_find_flat(mask, keys) & covered])
    num_edges, num_steps = _count_steps(mask.values)
    return _FileScan(
        path=path,
        form=mask.form,
        is_lossy=mask.is_lossy,
        is_coloured=is_coloured,
        palette=mask.palette,
        pixels=pixels,
        flat={key: count for key, count in flat.items() if key in pixels},
        others=others,
        colours={} if is_coloured else _colours_of_values(mask, pixels),
        num_edges=num_edges,
        num_steps=num_steps,
        names=mask.names,
    )


def _is_grey(mask: MaskValues) -> bool:
    """Whether a colour image holds greys alone; of a lossy one, nearly so."""
    colours = mask.values if mask.covered is None else mask.values[mask.covered]
    spread = colours.max(axis=-1).astype(int) - colours.min(axis=-1)
    return bool((spread <= (TOLERANCE if mask.is_lossy else 0)).all())


def _greys(mask: MaskValues) -> np.ndarray:
    """The numbers of a mask of numbers, or of a colour image of greys: its green, which JPEG changes least."""
    return mask.values if mask.values.ndim == 2 else mask.values[..., 1].astype(np.int32)


def pack_colours(colours: np.ndarray) -> np.ndarray:
    """Colours (..., 3) as 0xRRGGBB."""
    channels = colours.astype(np.int32)
    return channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2]


def _unpack(keys: Sequence[int] | np.ndarray) -> np.ndarray:
    """Colours of 0xRRGGBB, of shape (..., 3)."""
    keys = np.asarray(keys, np.int32)
    return np.stack([keys >> 16 & 255, keys >> 8 & 255, keys & 255], axis=-1)


def _count(keys: np.ndarray) -> tuple[dict[int, int], int]:
    """Numbers of pixels by key, of the most frequent ones, and the number of all others."""
    found, counts = np.unique(keys, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:COUNTED_KEYS_OF_FILE]
    kept = dict(zip(found[order].tolist(), counts[order].tolist(), strict=True))
    return kept, int(counts.sum() - counts[order].sum())


def _find_flat(mask: MaskValues, keys: np.ndarray) -> np.ndarray:
    """Pixels around which 3 x 3 pixels are alike: equal, or within `TOLERANCE` where the format changes them."""
    is_flat = np.zeros(keys.shape, bool)
    if min(keys.shape) < 3:
        return is_flat
    if mask.is_lossy:
        levels = np.ascontiguousarray(mask.values).astype(np.uint8)
        square = np.ones((3, 3), np.uint8)
        spread = cv2.subtract(cv2.dilate(levels, square), cv2.erode(levels, square))
        spread = spread if spread.ndim == 2 else spread.max(axis=-1)
        is_flat[1:-1, 1:-1] = spread[1:-1, 1:-1] <= TOLERANCE
        return is_flat
    rows = (keys[:, 1:-1] == keys[:, :-2]) & (keys[:, 1:-1] == keys[:, 2:])
    columns = (keys[1:-1, 1:-1] == keys[:-2, 1:-1]) & (keys[1:-1, 1:-1] == keys[2:, 1:-1])
    is_flat[1:-1, 1:-1] = rows[:-2] & rows[1:-1] & rows[2:] & columns
    return is_flat


def _count_steps(values: np.ndarray) -> tuple[int, int]:
    """Pairs of neighbours in a row that differ, and those that differ by at most 2 levels."""
    steps = np.abs(np.diff(values.astype(np.int64), axis=1))
    steps = steps if steps.ndim == 2 else steps.max(axis=-1)
    num_edges = int(np.count_nonzero(steps))
    return num_edges, num_edges - int(np.count_nonzero(steps > 2))


def _colours_of_values(mask: MaskValues, values: Iterable[int]) -> dict[int, int]:
    """The colours that values are seen in: those of a palette, or greys. Numbers of more than 8 bits have none."""
    if mask.palette:
        return {value: mask.palette.get(value, UNCOVERED) for value in values}
    scale = 255 // (2**mask.bits - 1) if 0 < mask.bits < 8 else 1
    return {value: value * scale * 0x010101 for value in values if mask.bits <= 8 and 0 <= value * scale <= 255}


# -------------------------------------------------------------------------------------------------------------- decide


def decide_reading(
    scan: MaskScan,
    colour_table: dict[int, str] | None = None,
    allowed: Sequence[int] = (),
    mat_key: str | None = None,
) -> MaskReading:
    """
    Decide whether masks hold ids or colours, and whether they have to be cleaned.

    Indices of palette images and numbers are ids, unless palettes of several files contradict each other, or a table
    of colours names each colour that is seen. Colour images hold colours, unless all are grey. For what is cleaned see
    the top of this module.

    Args:
        colour_table (`dict[int, str]`, *optional*): names by colour, 0xRRGGBB, if the data set has such a table.
        allowed (`Sequence[int]`, *optional*): the keys that may occur, of which each pixel takes the nearest; by
            default found out.
        mat_key (`str`, *optional*): as given to [`scan_masks`].

    Raises:
        ValueError: for masks without a pixel; that contradict each other; or that are no masks, but photographs, noise
            or measurements.
    """
    if scan.num_files == 0 or scan.colours.total + scan.values.total == 0:
        raise ValueError("No mask holds a pixel that is not transparent." if scan.num_files else "There is no mask.")
    table = colour_table or {}
    are_colours, notes = _choose_colours(scan, table)
    counts = scan.colours if are_colours else scan.values
    if allowed:
        return MaskReading(are_colours, tuple(allowed), mat_key, tuple(notes))
    named = [colour for colour in table if are_colours]
    if scan.num_lossy:
        allowed = _find_peaks(scan, counts, named, are_colours)
        notes.append(
            f"{scan.num_lossy:,} of {scan.num_files:,} masks are of a format that changes values. Each pixel takes the"
            f" nearest of {_list_keys(allowed, are_colours)}."
        )
    else:
        allowed = _find_meant(counts, named, are_colours)
        if not allowed:
            _refuse_measurements(scan, counts, are_colours)
        else:
            num_others = counts.total - sum(counts.pixels[key] for key in allowed)
            notes.append(
                f"Masks have blurred edges, as by a resize: {num_others / counts.total:.2%} of the pixels hold one of"
                f" {len(counts.pixels.keys() - set(allowed)):,} values that hardly ever fill 3 x 3 pixels. Each pixel"
                f" takes the nearest of {_list_keys(allowed, are_colours)}."
            )
    return MaskReading(are_colours, tuple(allowed), mat_key, tuple(notes))


def _choose_colours(scan: MaskScan, table: dict[int, str]) -> tuple[bool, list[str]]:
    num_plain = scan.num_files - scan.num_palettes - scan.num_coloured
    if scan.num_coloured:
        notes = []
        if scan.num_coloured < scan.num_files:
            notes.append(
                f"{scan.num_coloured:,} masks hold colours and {scan.num_files - scan.num_coloured:,} do not: of the"
                " latter the colours of the palette, or greys, are read."
            )
        return True, notes
    if scan.conflicts:
        if num_plain:
            raise ValueError(
                f"Palettes contradict each other ({scan.conflicts[0]}), so that colours and not indices are meant, but"
                f" {num_plain:,} masks have no palette. Save all masks alike."
            )
        return True, [f"Palettes contradict each other: {scan.conflicts[0]}. So colours are read, not indices."]
    if table and scan.num_colourless == 0 and _are_named(scan, table):
        return True, ["Each colour that is seen stands in the table of colours. So colours are read, not numbers."]
    if scan.num_palettes:
        return False, ["Of palette images the indices are read, not the colours."]
    return False, []


def _are_named(scan: MaskScan, table: dict[int, str]) -> bool:
    """Whether a table names each colour that is seen, but for what a format or a resize has changed."""
    seen = list(scan.colours.pixels)
    if scan.num_lossy:
        try:
            seen = list(_find_peaks(scan, scan.colours, (), are_colours=True))
        except ValueError:
            return False
        return bool((_find_nearest(_unpack(seen), _unpack(list(table)))[1] <= TOLERANCE).all())
    return set(seen) <= table.keys() or set(_find_meant(scan.colours, (), are_colours=True) or seen) <= table.keys()


def _list_keys(keys: Sequence[int], are_colours: bool) -> str:
    return ", ".join(format_colour(key) if are_colours else str(key) for key in keys)


def _levels(keys: Sequence[int], are_colours: bool) -> np.ndarray:
    """Keys as points of shape (n, 3) or (n, 1), to measure how far they differ."""
    return _unpack(keys) if are_colours else np.asarray(keys, np.int64).reshape(-1, 1)


def _difference(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """By how much points differ from others, (n, m), in the channel where they differ most."""
    return np.abs(points[:, None].astype(np.int64) - others[None]).max(axis=-1)


def _refuse_measurements(scan: MaskScan, counts: KeyCounts, are_colours: bool) -> None:
    num_keys, what = len(counts.pixels), "colours" if are_colours else "values"
    shown = f"{num_keys:,} different {what}, such as {_list_keys(list(counts.pixels)[:3], are_colours)}"
    if counts.others or num_keys > MAXIMUM_KEYS:
        raise ValueError(
            f"Masks hold {shown}. No list of classes has as many: they are photographs, measurements such as depth, or"
            " numbers of single objects. A mask holds the id or the colour of a class for each pixel."
        )
    if num_keys <= SUSPICIOUS_KEYS:
        return
    share_of_flat, num_flat = counts.flat.total() / counts.total, len(_flat_keys(counts))
    if share_of_flat > 1 / 2 and num_flat < num_keys / 4:
        raise ValueError(
            f"Masks hold {shown}, of which only {num_flat:,} have an area. They were resized or drawn with blending,"
            " and the values that were meant lie too near each other to be told. Export them anew, and resize masks to"
            " the nearest pixel."
        )
    if scan.num_steps > scan.num_edges / 2:
        raise ValueError(
            f"Masks hold {shown}, and {scan.num_steps / scan.num_edges:.0%} of all neighbours that differ do so by at"
            " most 2 levels. That is a photograph or a measurement such as depth, not a mask of classes."
        )
    if share_of_flat < 1 / 4:
        raise ValueError(
            f"Masks hold {shown}, and only {share_of_flat:.0%} of the pixels lie where 3 x 3 are alike. That is a"
            " photograph or noise, not a mask of classes."
        )


def _flat_keys(counts: KeyCounts) -> list[int]:
    return [key for key, count in counts.flat.items() if count >= MINIMUM_FLAT * counts.pixels[key]]


def _find_meant(counts: KeyCounts, named: Sequence[int], are_colours: bool) -> tuple[int, ...]:
    """Keys of blurred masks that were meant; none where masks are exact. See the top of this module."""
    meant = sorted({*_flat_keys(counts), *(key for key in named if key in counts.pixels)})
    others = sorted(counts.pixels.keys() - set(meant))
    num_pixels = counts.total - sum(counts.pixels[key] for key in meant)
    if not 2 <= len(meant) <= min(len(others), 256) or num_pixels > MAXIMUM_BLURRED * counts.total:
        return ()
    flat_points, points = _levels(meant, are_colours), _levels(others, are_colours)
    lowest, highest = flat_points.min(axis=0), flat_points.max(axis=0)
    margin = OVERSHOOT * (highest - lowest)
    is_between = ((points >= lowest - margin) & (points <= highest + margin)).all()
    apart = _difference(flat_points, flat_points) + np.diag([SEPARATION] * len(meant))
    nearest, differences = _find_nearest(points, flat_points)
    num_far = int((differences > TOLERANCE).sum())
    is_near_one = len(set(nearest.tolist())) == 1 and differences.max() < SEPARATION
    if apart.min() < SEPARATION or not is_between or num_far in (1, 2) or is_near_one:
        return ()
    return tuple(sorted({*meant, *named}))


def _find_peaks(scan: MaskScan, counts: KeyCounts, named: Sequence[int], are_colours: bool) -> tuple[int, ...]:
    """Keys of lossy masks that were meant: those of the table, and peaks of what is flat."""
    keys = list(counts.flat)
    points, numbers = _levels(keys, are_colours), np.array([counts.flat[key] for key in keys], np.int64)
    peaks = list(named)
    is_left = np.ones(len(keys), bool)
    if peaks and keys:
        is_left = _difference(points, _levels(peaks, are_colours)).min(axis=1) >= SEPARATION
    least = max(MINIMUM_PEAK * numbers.sum(), 16)
    for _ in range(MAXIMUM_CANDIDATES):
        if not is_left.any():
            break
        best = int(np.argmax(np.where(is_left, numbers, 0)))
        near = is_left & (_difference(points, points[best : best + 1])[:, 0] <= TOLERANCE)
        is_left &= _difference(points, points[best : best + 1])[:, 0] >= SEPARATION
        if numbers[near].sum() >= least:
            peaks.append(keys[best])
    all_keys = list(counts.pixels)
    num_clear = 0
    if peaks and all_keys:
        _, differences = _find_nearest(_levels(all_keys, are_colours), _levels(peaks, are_colours))
        is_clear = differences <= TOLERANCE
        num_clear = sum(counts.pixels[key] for key, clear in zip(all_keys, is_clear, strict=True) if clear)
    least_clear = MINIMUM_CLEAR_COLOURS if are_colours else MINIMUM_CLEAR
    if len(peaks) < 2 or num_clear < least_clear * counts.total:
        said = f"only {num_clear / counts.total:.0%} of the pixels are near" if len(peaks) > 1 else "there is"
        what = f"one of {len(peaks)} frequent values" if len(peaks) > 1 else "one value alone"
        raise ValueError(
            f"{scan.num_lossy:,} of {scan.num_files:,} masks are of a format that changes values, such as JPEG, and"
            f" {said} {what}. The values that were meant cannot be told: they lie within {SEPARATION} levels of each"
            " other, or these are photographs. Take the PNG files that they were made of."
        )
    return tuple(sorted(peaks))


def _find_nearest(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each point the nearest of others, and how far they differ; in parts that take little memory."""
    nearest, differences = [], []
    for part in np.array_split(points, 1 + len(points) * len(others) // 2**20):
        difference = _difference(part, others)
        nearest.append(difference.argmin(axis=1))
        differences.append(difference.min(axis=1))
    return np.concatenate(nearest), np.concatenate(differences)


# ---------------------------------------------------------------------------------------------------------------- draw


def draw_mask(size: tuple[int, int], path: Path, reading: MaskReading) -> Drawing:
    """
    The keys of a mask, by what was decided over all masks of its data set.

    Raises:
        OSError: for a broken image.
        ValueError: for a mask of another height and width than `size`, or one that cannot be read so.
    """
    mask = read_values(path, reading.mat_key)
    _check_size(mask, size, path)
    keys = _color_keys(mask, path) if reading.are_colours else _value_keys(mask, path)
    covered = keys != UNCOVERED if mask.covered is None else (keys != UNCOVERED) & mask.covered
    remarks = {}
    if reading.allowed:
        keys, num_doubtful = _to_allowed(keys, covered, reading)
        remarks = {DOUBTFUL: num_doubtful} if num_doubtful else {}
    return Drawing(np.where(covered, keys, UNCOVERED).astype(np.int32), remarks)


def _check_size(mask: MaskValues, size: tuple[int, int], path: Path) -> None:
    if mask.size != tuple(size):
        raise ValueError(
            f"The mask {path} has {format_size(mask.size[::-1])} pixels (width x height), and its photograph"
            f" {format_size(size[::-1])}. Both need the same size: export it again, or resize it to the nearest pixel."
        )


def _value_keys(mask: MaskValues, path: Path) -> np.ndarray:
    if mask.values.ndim == 3 and not _is_grey(mask):
        raise ValueError(f"The mask {path} holds colours, and those of its data set numbers. It was changed.")
    return _greys(mask)


def _color_keys(mask: MaskValues, path: Path) -> np.ndarray:
    if mask.values.ndim == 3:
        return pack_colours(mask.values)
    values, places = np.unique(mask.values, return_inverse=True)
    colours = _colours_of_values(mask, values.tolist())
    missing = [value for value in values.tolist() if value != UNCOVERED and value not in colours]
    if missing:
        raise ValueError(
            f"The mask {path} holds the number {missing[0]}, which is no colour, as others of its data set hold."
        )
    return np.array([colours.get(value, UNCOVERED) for value in values.tolist()], np.int32)[places].reshape(mask.size)


def _to_allowed(keys: np.ndarray, covered: np.ndarray, reading: MaskReading) -> tuple[np.ndarray, int]:
    """The nearest allowed key of each pixel, and how many pixels are not twice as near to it as to any other."""
    allowed = np.array(reading.allowed, np.int32)
    found, places, counts = np.unique(np.where(covered, keys, allowed[0]), return_inverse=True, return_counts=True)
    points, others = _levels(found, reading.are_colours), _levels(allowed, reading.are_colours)
    nearest, is_doubtful = [], []
    for part in np.array_split(points, 1 + len(points) * len(others) // 2**22):
        distances = np.sqrt(((part[:, None].astype(np.int64) - others[None]) ** 2).sum(axis=-1))
        order = np.argsort(distances, axis=1, kind="stable")[:, :2]
        nearest.append(order[:, 0])
        ordered = np.take_along_axis(distances, order, axis=1)
        is_doubtful.append(2 * ordered[:, 0] > ordered[:, -1] if len(allowed) > 1 else np.zeros(len(part), bool))
    num_doubtful = int(counts[np.concatenate(is_doubtful)].sum())
    return allowed[np.concatenate(nearest)][places].reshape(keys.shape), num_doubtful


def draw_parts(size: tuple[int, int], parts: tuple[tuple[int, Path], ...], overlaps: Overlaps = "later") -> Drawing:
    """
    The keys of a picture that has one mask for each class, or for each object, and `UNCOVERED` where none is.

    Args:
        parts (`tuple[tuple[int, Path], ...]`): a key and its mask. The object is where an alpha channel is at least
            half, if any of it is transparent; else what is more than half of 255 in a lossy format, and otherwise all
            that is not 0 and, of numbers in a matrix, not missing.
        overlaps (`str`, *optional*, defaults to `"later"`): see [`draw_shapes`].

    Raises:
        OSError: for a broken image.
        ValueError: for a mask of another height and width than `size`, or one that cannot be read.
    """
    return draw_shapes(size, [Shape(key, partial(_render_part, path=path)) for key, path in parts], overlaps)


def _render_part(size: tuple[int, int], path: Path) -> np.ndarray:
    mask = read_values(path)
    _check_size(mask, size, path)
    if mask.alpha is not None:
        return mask.alpha > 127
    values = mask.values if mask.values.ndim == 2 else mask.values.max(axis=-1)
    return values > 127 if mask.is_lossy else (values != 0) & (values != UNCOVERED)
