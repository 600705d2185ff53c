# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Which photographs and videos words stand for, and that no result replaces another file."""

import fnmatch
import glob
import itertools
import os
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def find_inputs(
    words: Sequence[str],
    output: Path,
    left_out: dict[Path, str] | None = None,
    masks: list[Path] | None = None,
) -> dict[Path, Path]:
    """
    The photographs and videos that words name, each once, and what their results are called.

    Args:
        words (`Sequence[str]`): files, folders and patterns. A folder stands for the photographs and videos in it, at
            all depths, without hidden ones; a pattern for those that it fits. What lies below `output` is left out.
        output (`Path`): folder for the results.
        left_out (`dict[Path, str]`, *optional*): gets folders that cannot be read, and why.
        masks (`list[Path]`, *optional*): gets the masks that lie beside photographs in folders, see [`find_masks`],
            which are passed over then. What is named itself or by a pattern is taken.

    Returns:
        `dict[Path, Path]`: file -> its path, without the suffix, below the folder or below the fixed part of the
        pattern; of a file that is named itself the name alone.

    Raises:
        ValueError: for a word that stands for nothing.
        OSError: for a folder that cannot be read, if `left_out` is not given.
    """
    names, seen = {}, set()
    for word in words:
        files = _expand(word, output, left_out)
        if masks is not None and Path(word).is_dir():
            beside = find_masks([file for file, _ in files])
            masks.extend(sorted(beside))
            files = [(file, name) for file, name in files if file not in beside]
        for file, name in files:
            place = os.path.realpath(file)
            if place not in seen:
                seen.add(place)
                names[file] = name.with_name(name.stem)
    return names


def find_masks(files: Sequence[Path]) -> set[Path]:
    """
    Those of the files that are masks of others in the same folder: called as a photograph with one of `MASK_ENDINGS`
    behind it, or just as it but for the suffix, and of few colours, which no photograph has.
    """
    stems = {(file.parent, file.stem) for file in files}
    photographs = {(file.parent, file.stem) for file in files if file.suffix.lower() in (".jpg", ".jpeg")}
    masks = set()
    for file in files:
        ending = next((end for end in MASK_ENDINGS if file.stem.lower().endswith(end)), None)
        has_ending = ending is not None and (file.parent, file.stem[: -len(ending)]) in stems
        has_twin = file.suffix.lower() not in (".jpg", ".jpeg") and (file.parent, file.stem) in photographs
        if (has_ending or has_twin) and _looks_like_mask(file):
            masks.add(file)
    return masks


def _looks_like_mask(file: Path) -> bool:
    """Whether a picture has few colours, exactly; what cannot be read is left to who reads it."""
    try:
        with open_image(file, str(file)) as picture, naming_errors(str(file)):
            return picture.format not in ("JPEG", "MPO") and picture.getcolors(MASK_COLOURS) is not None
    except (OSError, MemoryError):
        return False


def _expand(word: str, output: Path, left_out: dict[Path, str] | None) -> list[tuple[Path, Path]]:
    """Files that a word stands for, and their paths below what it fixes; see `find_inputs`."""

    def note(error: OSError) -> None:
        if left_out is None:
            raise error
        if Path(error.filename) not in left_out:
            leave_out(Path(error.filename), error, left_out)

    check_word(word)
    path = Path(word)
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        root, found = path, _search(path, ["**"], note)
    else:
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        found = _search(root, path.parts[len(root.parts) :], note)
    top, results = os.path.realpath(root), os.path.realpath(output)
    if top == results:
        raise ValueError(
            f"--out {output} is the folder that {word} is looked for in, where results would be taken for photographs"
            " the next time: choose another, which may lie in it."
        )
    # Where --out is above all inputs, everything lies below it, and nothing can be told to be a result by that.
    has_results = not Path(top).is_relative_to(results)
    files = []
    for file in sorted(set(found)):
        below = file.relative_to(root)
        is_hidden = any(part.startswith(".") for part in below.parts)
        is_result = has_results and os.path.realpath(file).startswith(os.path.join(results, ""))
        if file.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES and not (
            is_hidden or is_result or os.path.isdir(file)
        ):
            files.append((file, below))
    if not files:
        suffixes = ", ".join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)
        raise ValueError(
            f"{word}: no photograph or video was found there. They are known by their suffix: {suffixes}."
        )
    return files


def _search(folder: Path, parts: Sequence[str], note: Callable[[OSError], None]) -> Iterator[Path]:
    """
    What a pattern fits below a folder. `**`, for folders at all depths, follows no links: they may lead back to where
    they lie, and then there are more paths than any run could go through.

    The first of the `parts` of the pattern is looked for in `folder`; at the end, `**` stands for all files. `note` is
    called for each folder that cannot be read.
    """
    first, *rest = parts
    if first == "**":
        rest = list(itertools.dropwhile(lambda part: part == "**", rest))
        for deeper, _, files in os.walk(folder, onerror=note):
            if len(rest) <= 1:
                yield from (Path(deeper, name) for name in (fnmatch.filter(files, rest[0]) if rest else files))
            else:
                yield from _search(Path(deeper), rest, note)
        return
    try:
        names = fnmatch.filter(os.listdir(folder), first) if glob.has_magic(first) else [first]
    except OSError as error:
        note(error)
        return
    for path in (folder / name for name in names):
        if not rest:
            if os.path.lexists(path):
                yield path
        elif os.path.isdir(path):
            yield from _search(path, rest, note)


def check_targets(targets: Mapping[Path, Sequence[Path]], output: Path, option: str, advice: str) -> None:
    """
    Refuse results that would replace each other or what they are made of: `targets` are the files to write for each
    input, below `output`, which was named by `option`. An error about two results of one name ends in `advice`.

    Raises:
        ValueError: where a result would replace another, or an input, or its name is too long.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{option} {output} is a file; it must be a folder.")
    inputs = {os.path.realpath(file) for file in targets}
    sources, alike = {}, {}
    for file, results in targets.items():
        for target in results:
            # Some file systems take upper and lower case, or the two encodings of an accent, for the same name.
            other = alike.setdefault(unicodedata.normalize("NFC", str(target)).casefold(), target)
            if target in sources or (other != target and not _tells_apart(output, other, target)):
                raise ValueError(f"{sources[other]} and {file} would both become {target}: {advice}.")
            if os.path.realpath(target) in inputs:
                raise ValueError(f"{target} is one of the inputs and would be replaced: choose another {option}.")
            check_name(target, file)
            sources[target] = file


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
