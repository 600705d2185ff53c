# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Which photographs and videos words stand for, and that no result replaces another file."""

import codecs
import fnmatch
import glob
import itertools
import os
import sys
import tempfile
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from ..command import escape_controls
from ..options.names import check_word
from .photographs import IMAGE_SUFFIXES, naming_errors, open_image


VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
# What the names of masks have behind that of their photograph, in lower case.
MASK_ENDINGS = ("_mask", "-mask", "_masks", "_label", "_labels", "_l", "_gt", "_seg", "_segmentation", "_annotation")
MASK_ENDINGS += ("_gtfine_labelids", "_gtfine_color", "_labelids", "_trainids", "_color_mask")
MASK_COLOURS = 64  # that a mask of the very name of a photograph has at most
NAME_BYTES = 255  # of the name of a file, at most, on nearly all file systems


def is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEO_SUFFIXES


def leave_out(file: Path, error: Exception, left_out: dict[Path, str]) -> None:
    """Name a file that cannot be read, and go on."""
    left_out[file] = str(error)  # the error itself would keep the photograph alive by its traceback
    tqdm.write(escape_controls(f"left out: {file}: {error}"), file=sys.stderr)


class FoundFiles:
    """
    Files, and what their results are called, in hardly more memory than their names take: there may be a million, most
    of them in few folders. Paths are made as they are asked for.
    """

    def __init__(self):
        self._folders: list[tuple[Path, Path]] = []  # where files lie, and where below the results theirs do
        self._numbers: dict[tuple[Path, Path], int] = {}
        self._folder_of = array("L")
        self._names: list[str] = []

    def add(self, folder: Path, below: Path, name: str) -> None:
        number = self._numbers.setdefault((folder, below), len(self._folders))
        if number == len(self._folders):
            self._folders.append((folder, below))
        self._folder_of.append(number)
        self._names.append(name)

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Path]:
        for number, name in zip(self._folder_of, self._names, strict=True):
            yield self._folders[number][0] / name

    def items(self) -> Iterator[tuple[Path, Path]]:
        """Each file, and its path below the results, without the suffix."""
        for number, name in zip(self._folder_of, self._names, strict=True):
            folder, below = self._folders[number]
            file = folder / name
            yield file, below / file.stem

    def take(self, indices: Iterable[int]) -> "FoundFiles":
        """Some of the files."""
        taken = FoundFiles()
        for index in indices:
            taken.add(*self._folders[self._folder_of[index]], self._names[index])
        return taken


def find_inputs(
    words: Sequence[str],
    output: Path,
    left_out: dict[Path, str] | None = None,
    masks: FoundFiles | None = None,
    lines: Iterable[bytes] = (),
) -> FoundFiles:
    """
    The photographs and videos that words name, each once, and what their results are called.

    Args:
        words (`Sequence[str]`): files, folders and patterns. A folder stands for the photographs and videos in it, at
            all depths, without hidden ones; a pattern for those that it fits. What lies below `output` is left out.
        output (`Path`): folder for the results.
        left_out (`dict[Path, str]`, *optional*): gets folders that cannot be read, and why.
        masks ([`FoundFiles`], *optional*): gets the masks that lie beside photographs in folders, see [`find_masks`],
            which are passed over then. What is named itself or by a pattern is taken.
        lines (`Iterable[bytes]`, *optional*): of a list of files, a name in each. Whether they are there is not looked
            at.

    Returns:
        [`FoundFiles`]: what results are called is the path of the file, without the suffix, below the folder or below
        the fixed part of the pattern; of a file that is named itself the name alone; of one in `lines` its path as it
        stands there, without what leads to the root or above the current folder.

    Raises:
        ValueError: for a word that stands for nothing, or lines that hold no names.
        OSError: for a folder that cannot be read, if `left_out` is not given.
    """
    files = FoundFiles()
    for word in words:
        path = Path(word)
        if path.is_file():
            files.add(path.parent, Path(), path.name)
            continue
        number = len(files)
        for folder, below, names in _expand(word, output, left_out):
            beside = find_masks(folder, names) if masks is not None and path.is_dir() else ()
            for name in names:
                (masks if name in beside else files).add(folder, below, name)
        if len(files) == number:
            suffixes = ", ".join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)
            raise ValueError(
                f"{word}: no photograph or video was found there. They are known by their suffix: {suffixes}."
            )
    _add_listed(lines, files)
    return _without_repeats(files)


def _add_listed(lines: Iterable[bytes], files: FoundFiles) -> None:
    for number, line in enumerate(lines, start=1):
        if number == 1:
            if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise ValueError("The list of files is text in UTF-16: save it as UTF-8, one name a line.")
            line = line.removeprefix(codecs.BOM_UTF8)
        if b"\0" in line:
            raise ValueError(
                f"Line {number} of the list of files holds a NUL character, which no name can: write one name a line,"
                " as `find -print` does, and not `find -print0`."
            )
        path = Path(os.fsdecode(line.rstrip(b"\r\n")))
        if not path.name:  # of an empty line
            continue
        below = Path(os.path.normpath(path.parent))
        steps = (part for part in below.parts if part not in (below.anchor, ".."))
        files.add(path.parent, Path(*steps), path.name)


def _without_repeats(files: FoundFiles) -> FoundFiles:
    """Each file once, where it comes first, whatever links lead to it."""
    repeated = _repeated(_places(files))
    if not repeated:
        return files
    seen, kept = set(), []
    for index, place in enumerate(_places(files)):
        if hash(place) not in repeated or place not in seen:
            kept.append(index)
            if hash(place) in repeated:
                seen.add(place)
    return files.take(kept)


def _places(files: Iterable[Path]) -> Iterator[str]:
    """What `os.path.realpath` says of each file; of a folder of many it is asked once."""
    folders: dict[str, tuple[str, bool]] = {}
    for file in files:
        folder, name = os.path.split(file)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder), os.path.isdir(folder)
        place, is_there = folders[folder]
        yield os.path.realpath(file) if is_there and os.path.islink(file) else os.path.join(place, name)


def _repeated(values: Iterable[str], others: Iterable[str] | None = None) -> set[int]:
    """
    The hashes of values that occur more than once, or also among the others: 8 bytes of memory for each, where a set
    of the values would be as large as all names. Two values may have one hash, so who asks has to compare them.
    """
    import numpy as np  # here, as a word that stands for nothing is to be refused at once

    hashes = np.fromiter(map(hash, values), np.int64)
    if others is not None:
        return set(np.intersect1d(hashes, np.fromiter(map(hash, others), np.int64)).tolist())
    hashes.sort()
    return set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def find_masks(folder: Path, names: Sequence[str]) -> set[str]:
    """
    Those of the files of a folder that are masks of others there: called as a photograph with one of `MASK_ENDINGS`
    behind it, or just as it but for the suffix, and of few colours, which no photograph has.
    """
    by_stem: dict[str, list[str]] = {}  # the stem of its photograph, if there is one -> files that may be its masks
    of_other_suffix: dict[str, list[str]] = {}  # the stem of its photograph, if that is a JPEG -> the same
    for name in names:
        stem, suffix = os.path.splitext(name)
        ending = next((end for end in MASK_ENDINGS if stem.lower().endswith(end)), None)
        if ending is not None:
            by_stem.setdefault(stem[: -len(ending)], []).append(name)
        if suffix.lower() not in (".jpg", ".jpeg"):
            of_other_suffix.setdefault(stem, []).append(name)
    candidates = set()
    if by_stem or of_other_suffix:
        for name in names:
            stem, suffix = os.path.splitext(name)
            candidates.update(by_stem.get(stem, ()))
            if suffix.lower() in (".jpg", ".jpeg"):
                candidates.update(of_other_suffix.get(stem, ()))
    return {name for name in candidates if _looks_like_mask(folder / name)}


def _looks_like_mask(file: Path) -> bool:
    """Whether a picture has few colours, exactly; what cannot be read is left to who reads it."""
    try:
        with open_image(file, str(file)) as picture, naming_errors(str(file)):
            return picture.format not in ("JPEG", "MPO") and picture.getcolors(MASK_COLOURS) is not None
    except (OSError, MemoryError):
        return False


def _expand(word: str, output: Path, left_out: dict[Path, str] | None) -> Iterator[tuple[Path, Path, list[str]]]:
    """
    Photographs and videos that a folder or a pattern stands for: the folder they lie in, that below what the word
    fixes, and their names there.
    """

    def note(error: OSError) -> None:
        if left_out is None:
            raise error
        if Path(error.filename) not in left_out:
            leave_out(Path(error.filename), error, left_out)

    check_word(word)
    path = Path(word)
    if path.is_dir():
        root, found = path, _list_files(path, note)
    else:
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        paths = set(_search(str(root), path.parts[len(root.parts) :], note))
        # In the order of `Path`s, step by step: no name holds the character that stands between the steps.
        in_order = sorted(paths, key=lambda path: path.replace(os.sep, "\0"))
        groups = itertools.groupby(in_order, key=os.path.dirname)
        found = ((folder, map(os.path.basename, of_folder)) for folder, of_folder in groups)
    top, results = os.path.realpath(root), os.path.realpath(output)
    if top == results:
        raise ValueError(
            f"--out {output} is the folder that {word} is looked for in, where results would be taken for photographs"
            " the next time: choose another, which may lie in it."
        )
    # Where --out is above all inputs, everything lies below it, and nothing can be told to be a result by that.
    has_results = not Path(top).is_relative_to(results)

    def is_result(path: str) -> bool:
        return has_results and f"{os.path.realpath(path)}{os.sep}".startswith(os.path.join(results, ""))

    for folder, entries in found:
        below = Path(folder).relative_to(root)
        if any(part.startswith(".") for part in below.parts) or is_result(folder):
            continue
        names = []
        for name in entries:
            if name.startswith(".") or Path(name).suffix.lower() not in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
                continue
            file = os.path.join(folder, name)
            if not (os.path.isdir(file) or (os.path.islink(file) and is_result(file))):
                names.append(name)
        if names:
            yield Path(folder), below, names


def _list_files(folder: Path, note: Callable[[OSError], None]) -> Iterator[tuple[str, list[str]]]:
    """
    Folders at all depths, and the names of the files in each; none that is hidden. Links to folders are not followed:
    they may lead back to where they lie, and then there are more paths than any run could go through.
    """
    for deeper, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names.sort()
        yield deeper, names


def _search(folder: str, parts: Sequence[str], note: Callable[[OSError], None]) -> Iterator[str]:
    """
    What a pattern fits below a folder. `**`, for folders at all depths, follows no links, as [`_list_files`].

    The first of the `parts` of the pattern is looked for in `folder`; at the end, `**` stands for all files. `note` is
    called for each folder that cannot be read.
    """
    first, *rest = parts
    if first == "**":
        rest = list(itertools.dropwhile(lambda part: part == "**", rest))
        for deeper, _, files in os.walk(folder, onerror=note):
            if len(rest) <= 1:
                names = fnmatch.filter(files, rest[0]) if rest else files
                yield from (os.path.join(deeper, name) for name in names)
            else:
                yield from _search(deeper, rest, note)
        return
    try:
        names = fnmatch.filter(os.listdir(folder), first) if glob.has_magic(first) else [first]
    except OSError as error:
        note(error)
        return
    for path in (os.path.join(folder, name) for name in names):
        if not rest:
            if os.path.lexists(path):
                yield path
        elif os.path.isdir(path):
            yield from _search(path, rest, note)


def check_targets(targets: Mapping[Path, Sequence[Path]], output: Path, option: str, advice: str) -> None:
    """
    Refuse results that would replace each other or what they are made of: `targets` are the files to write for each
    input, below `output`, which was named by `option`. An error about two results of one name ends in `advice`. All
    that is asked of `targets` is their `items()`, several times, so that they need not be in memory.

    Raises:
        ValueError: where a result would replace another, or an input, or its name is too long.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{option} {output} is a file; it must be a folder.")

    def inputs() -> Iterator[str]:
        return _places(file for file, _ in targets.items())

    def results() -> Iterator[Path]:
        return (target for _, of_file in targets.items() for target in of_file)

    # Hashes find the few results of which the names themselves have to be compared.
    alike = _repeated(map(_regardless_of_case, results()))
    replacing = _repeated(_places(results()), inputs())
    replaced = {place for place in inputs() if hash(place) in replacing} if replacing else ()
    for target, place in zip(results(), _places(results()), strict=True) if replaced else ():
        if place in replaced:
            raise ValueError(f"{target} is one of the inputs and would be replaced: choose another {option}.")
    sources, same = {}, {}
    for file, of_file in targets.items():
        for target in of_file:
            check_name(target, file)
            key = _regardless_of_case(target) if alike else None
            if hash(key) in alike:
                other = same.setdefault(key, target)
                if target in sources or (other != target and not _tells_apart(output, other, target)):
                    raise ValueError(f"{sources[other]} and {file} would both become {target}: {advice}.")
                sources[target] = file


def _regardless_of_case(target: Path) -> str:
    """Some file systems take upper and lower case, or the two encodings of an accent, for the same name."""
    return unicodedata.normalize("NFC", str(target)).casefold()


def _tells_apart(folder: Path, first: Path, second: Path) -> bool:
    """Whether two paths below a folder, which may have to be made yet, are two files on its file system."""
    first, second = first.relative_to(folder), second.relative_to(folder)
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as trial:
        Path(trial, first).parent.mkdir(parents=True, exist_ok=True)
        Path(trial, first).touch()
        return not Path(trial, second).exists()


def check_name(target: Path, file: Path | str) -> None:
    """
    Raises:
        ValueError: for a result whose name is longer than file systems take.
    """
    length = len(os.fsencode(target.name))
    if length > NAME_BYTES:
        raise ValueError(
            f"The name of {file} is too long for its results: {target.name} has {length} bytes, and {NAME_BYTES} are"
            " the limit. Give it a shorter name."
        )
