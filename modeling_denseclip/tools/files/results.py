# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The results of a run, for programs: a line of JSON for each file as it is done, by which a run that was killed goes on,
and in the end one JSON of all.
"""

import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock, Timeout

from ...configuration_denseclip import shorten
from ..options.predict import LINES, PREDICTIONS, SETTINGS
from .saving import naming_what_failed, save_json, save_whole


PARTS = "predictions-*-of-*.jsonl"
LOCK = ".predictions.lock"
# Settings that others tell the difference of: the same weights may have several names.
NAMES = ("model", "revision")


class DoneFiles(NamedTuple):
    """
    Where the line of each file is.

    Attributes:
        paths (`list[Path]`): of files of lines.
        path_of (`array`): for each file which of them has its line, or -1 where none has.
        offsets (`array`): for each file where its line begins.
    """

    paths: list[Path]
    path_of: array
    offsets: array

    @property
    def count(self) -> int:
        return len(self.path_of) - self.path_of.count(-1)

    def take(self, indices: Iterable[int]) -> "DoneFiles":
        """Those of some of the files."""
        indices = list(indices)
        of_some = [array(values.typecode, (values[index] for index in indices)) for values in self[1:]]
        return DoneFiles(self.paths, *of_some)

    def read(self, files: Iterable[Path]) -> Iterator[dict[str, Any] | None]:
        """The entry of each of the files, or `None`."""
        streams = [path.open("rb") for path in self.paths]
        try:
            for file, number, offset in zip(files, self.path_of, self.offsets, strict=True):
                entry = None if number < 0 else parse_line(_read_line(streams[number], offset))
                yield entry if entry and entry["file"] == str(file) else None  # another one may have the same hash
        finally:
            for stream in streams:
                stream.close()


class ResultLines:
    """
    `predictions.jsonl` in the folder of results, and what belongs to it.

    Each process of several writes a part of its own, which are put together in the end. Next to it
    `predictions.settings.json` says how they are made, so that no run goes on by others, and whether that run has
    ended. The older files are replaced when the first result is there.

    Args:
        folder (`Path`): of the results.
        settings (`dict`): plain values, on which the results depend.
        number, count (`int`, *optional*, defaults to 0 and 1): of this process, and how many there are.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], number: int = 0, count: int = 1):
        self.folder, self.settings = folder, settings
        self.path = folder / (LINES if count == 1 else f"predictions-{number:05}-of-{count:05}.jsonl")
        self._stream: BinaryIO | None = None
        self._keeps_former = False
        self._has_begun = count > 1  # the main process begins for all

    @contextmanager
    def alone(self) -> Iterator[None]:
        """
        Within this context no other run writes into the folder. The system releases the lock when a process ends,
        however it does. On a file system that has no locks, nothing keeps another run away.

        Raises:
            ValueError: if another run does.
        """
        is_new = not self.folder.exists()
        with naming_what_failed(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK)
            try:
                lock.acquire(timeout=0)
            except NotImplementedError:  # a file system without locks
                pass
            except Timeout as error:
                raise ValueError(
                    f"Another run writes into {self.folder}, and the lines of both would be mixed. Wait until it has"
                    " ended, or choose another --out."
                ) from error
        try:
            yield
        finally:
            with suppress(
                OSError
            ):  # while it is locked: whoever waits for it sees that it is gone, and makes a new one
                (self.folder / LOCK).unlink()
            lock.release()
            if is_new:
                with suppress(OSError):  # results are in it
                    self.folder.rmdir()

    def find_done(self, files: Iterable[Path], is_resumed: bool) -> DoneFiles:
        """
        The lines that there are for these files.

        Args:
            files (`Iterable[Path]`): as they are asked for.
            is_resumed (`bool`): whether they are to be kept. If not, none counts.

        Raises:
            ValueError: for lines of other settings, if they are to be kept, or of a run of the same settings that did
                not end, if they are not.
        """
        paths = self._find_paths()
        done = index_lines(paths, files)
        former = self._read_settings()
        changes = [name for name in {**former, **self.settings} if former.get(name) != self.settings.get(name)]
        changes = [name for name in changes if name not in (*NAMES, "finished")]
        if is_resumed and done.count and changes:
            raise ValueError(self._explain(former, changes))
        self._keeps_former = is_resumed and not changes
        if self._keeps_former:
            return done
        if not is_resumed and not changes and not former["finished"] and any(path.stat().st_size for path in paths):
            raise ValueError(
                f"A run into {self.folder} with these settings, that did not end, has done {done.count} of these"
                f" files: go on with it by --resume, or remove {LINES} there to begin anew."
                if done.count
                else f"A run into {self.folder} with these settings did not end, and its lines, of other files, would"
                f" be lost: end that run by --resume, choose another --out, or remove {LINES} there."
            )
        # The files of the former lines are removed when the first result is there.
        return DoneFiles([], array("i", [-1]) * len(done.path_of), done.offsets)

    def _explain(self, former: dict[str, Any], changes: Sequence[str]) -> str:
        if not former:
            return (
                f"--resume cannot go on: {self.folder / SETTINGS}, which says how the results there were made, is"
                " missing or broken. Choose another --out, or leave --resume away."
            )
        said = [
            f"{name} was {shorten(json.dumps(former.get(name)))} and is {shorten(json.dumps(self.settings.get(name)))}"
            for name in changes
            if name != "checksum"
        ]
        if "checksum" in changes:
            names = [f"{kept['model']} ({kept['revision']})" for kept in (former, self.settings)]
            said.append(f"the weights or the preparation of {names[0]} are not those of {names[1]} now")
        return (
            f"--resume cannot go on: {self.folder} holds results of other settings: {'; '.join(said)}. Choose the"
            " same, or another --out, or leave --resume away."
        )

    def _find_paths(self) -> list[Path]:
        return [path for path in (self.folder / LINES, *sorted(self.folder.glob(PARTS))) if path.is_file()]

    def _read_settings(self) -> dict[str, Any]:
        try:
            settings = json.loads((self.folder / SETTINGS).read_bytes())
        except (OSError, ValueError):
            return {}
        return settings if isinstance(settings, dict) and {*NAMES, "finished"} <= {*settings} else {}

    def begin(self) -> None:
        """Put the settings of this run in the place of a former one's, and remove its lines unless they stay."""
        with naming_what_failed(self.folder):
            (self.folder / PREDICTIONS).unlink(missing_ok=True)  # it would tell of another run until this one ends
            if not self._keeps_former:
                for path in self._find_paths():
                    path.unlink()
            save_json(self.folder / SETTINGS, {**self.settings, "finished": False})
        self._has_begun = True

    def add(self, entry: dict[str, Any]) -> None:
        """
        Write the line of a file that is done: then the results are there, and stay if the process is killed.

        Raises:
            OSError: where it cannot be written, such as on a full disk.
        """
        if not self._has_begun:
            self.begin()
        with naming_what_failed(self.path):
            if self._stream is None:
                self._stream = self.path.open("ab+")
                _cut_torn_line(self._stream)
            self._stream.write(self._encode(entry) + b"\n")
            self._stream.flush()

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with naming_what_failed(self.path):
                stream.close()

    def finish(self, files: Iterable[Path], head: dict[str, Any], left_out: dict[Path, str]) -> tuple[int, int]:
        """
        Bring the lines of all processes into the order of the files, without those of others, and write `PREDICTIONS`
        of them; returns how many files are done, and of how many videos frames were lost. Neither is in memory as a
        whole.

        Args:
            files (`Iterable[Path]`): all of the run.
            head (`dict`): what the JSON begins with.
            left_out (`dict[Path, str]`): the files that are left out, and why.
        """
        self.close()
        if not self._has_begun:
            self.begin()
        done = index_lines(self._find_paths(), files)

        num_done = 0

        def write_lines(path: Path) -> None:
            nonlocal num_done
            with path.open("wb") as stream:
                for file, entry in zip(files, done.read(files), strict=True):
                    if entry is not None and file not in left_out:
                        stream.write(self._encode(entry) + b"\n")
                        num_done += 1

        lines = self.folder / LINES
        save_whole(lines, write_lines)
        for path in done.paths:
            if path != lines:
                path.unlink()
        num_lossy = 0

        def read(is_video: bool) -> Iterator[dict[str, Any]]:
            with lines.open("rb") as stream:
                yield from (entry for entry in map(json.loads, stream) if ("frames" in entry) == is_video)

        def read_videos() -> Iterator[dict[str, Any]]:
            nonlocal num_lossy
            for entry in read(is_video=True):
                num_lossy += entry["frames_lost"] > 0
                yield entry

        lists = {
            "images": read(is_video=False),
            "videos": read_videos(),
            "left_out": ({"file": str(file), "error": error} for file, error in left_out.items()),
        }
        save_whole(self.folder / PREDICTIONS, lambda path: _write_json(path, head, lists))
        save_json(self.folder / SETTINGS, {**self.settings, "finished": True})
        return num_done, num_lossy

    def _encode(self, entry: dict[str, Any]) -> bytes:
        return _encode(entry, default=lambda path: path.relative_to(self.folder).as_posix())


def index_lines(paths: Sequence[Path], files: Iterable[Path]) -> DoneFiles:
    """
    Where the line of each file is, in files of lines. What is no whole line, as a killed process leaves it, is passed
    over. Names are compared by their hashes, so that few bytes are in memory for each.
    """
    import numpy as np

    hashes, path_of, offsets = array("q"), array("i"), array("q")
    for number, path in enumerate(paths):
        offset = 0
        with path.open("rb") as stream:
            for line in stream:
                entry = parse_line(line)
                if entry is not None:
                    hashes.append(hash(entry["file"]))
                    path_of.append(number)
                    offsets.append(offset)
                offset += len(line)
    wanted = np.fromiter((hash(str(file)) for file in files), np.int64)
    if not hashes:
        return DoneFiles([*paths], array("i", [-1]) * len(wanted), array("q", [0]) * len(wanted))
    known = np.frombuffer(hashes, np.int64)
    order = np.argsort(known, kind="stable")
    # Of several lines of a file the last one: its results have been made again.
    places = order[np.maximum(np.searchsorted(known, wanted, side="right", sorter=order) - 1, 0)]
    is_there = known[places] == wanted
    numbers = np.where(is_there, np.frombuffer(path_of, np.intc)[places], np.intc(-1))
    places = np.frombuffer(offsets, np.int64)[places]
    return DoneFiles([*paths], array("i", numbers.tobytes()), array("q", places.tobytes()))


def _read_line(stream: BinaryIO, offset: int) -> bytes:
    stream.seek(offset)
    return stream.readline()


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The entry of a file, or `None` for what is no whole line of one, which says its name and size."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        return None
    return entry if all(isinstance(entry.get(side), int) for side in ("height", "width")) else None


def _cut_torn_line(stream: BinaryIO) -> None:
    """
    Remove the beginning of a line that a killed process, or a full disk, has left at the end of a file, or end the
    line where it lacks nothing else: then it counts as done.
    """
    start = end = stream.seek(0, os.SEEK_END)
    while start:
        block = max(start - 2**16, 0)
        stream.seek(block)
        newline = stream.read(start - block).rfind(b"\n")
        start = block + newline + 1
        if newline >= 0:
            break
    if start == end:
        return
    if parse_line(_read_line(stream, start)) is None:
        stream.truncate(start)
    else:
        stream.write(b"\n")


def _encode(value: object, default: Callable[[Any], object] | None = None, indent: int | None = None) -> bytes:
    """Of a name that is not UTF-8, JSON has the bytes as escapes, so that the file itself is valid."""
    return json.dumps(value, ensure_ascii=False, default=default, indent=indent).encode(errors="backslashreplace")


def _write_json(path: Path, head: dict[str, Any], lists: dict[str, Iterable[dict[str, Any]]]) -> None:
    """What `json.dumps` makes of both with an indent of 2, one entry at a time."""
    with path.open("wb") as stream:
        stream.write(_encode(head, indent=2).removesuffix(b"\n}"))
        for name, entries in lists.items():
            stream.write(b",\n  " + _encode(name) + b": [")
            end = b"]"
            for number, entry in enumerate(entries):
                stream.write((b"," if number else b"") + b"\n    ")
                stream.write(_encode(entry, indent=2).replace(b"\n", b"\n    "))
                end = b"\n  ]"
            stream.write(end)
        stream.write(b"\n}\n")
