# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all, so that what was there before stays until then."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError


STAGING_PREFIX = ".denseclip-"
LOCK_NAME = ".lock"
FORMER = ".former"
# One of these is in the RuntimeErrors of PyTorch's writer of archives.
PYTORCH_WRITER = ("PytorchStreamWriter", "inline_container", "iostream error")
_cleared_folders: set[Path] = set()


def save_whole(target: Path, write: Callable[[Path], object]) -> None:
    """
    Let `write` make a file, of the name of `target`, and put it in place when it is complete. What was there before
    stays until then. Folders that are missing are made.

    Raises:
        OSError: where it cannot be written, such as on a full disk; names `target`.
    """
    with naming_what_failed(target), staging_folder(target.parent) as staging:
        write(staging / target.name)
        os.replace(staging / target.name, target)


def save_json(target: Path, content: object, default: Callable[[Any], object] | None = None) -> None:
    """
    As [`save_whole`], of plain values, and of others that `default` makes plain. Of a name that is not UTF-8, JSON has
    the bytes as escapes, so that the file itself is valid.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, default=default)
    save_whole(target, lambda path: path.write_bytes(f"{text}\n".encode(errors="backslashreplace")))


def move_together(staging: Path, folder: Path, names: Sequence[str]) -> None:
    """
    Move complete files to where they belong. They replace older ones as a set: as long as not all are there, the last
    one, without which the others count for nothing, is missing, so that no process that dies leaves old and new files
    that are taken for one result; [`clear_leftovers`] then puts the old ones back. `staging`, where they are, is on
    the same file system, and they are moved in the order of `names`.
    """
    former = staging / FORMER
    former.mkdir()
    try:
        for name in reversed(names):
            if (folder / name).exists():
                os.replace(folder / name, former / name)
        for name in names:
            os.replace(staging / name, folder / name)
    except BaseException:
        _put_back(former, folder)
        raise


def _put_back(former: Path, folder: Path) -> None:
    """Put files or a folder back that others were to replace, unless all of the others are there."""
    entries = sorted(former.glob("*"), key=lambda entry: not (folder / entry.name).exists())
    if not all((folder / entry.name).exists() for entry in entries):
        for entry in entries:  # those that are missing come last: without them the others count for nothing
            os.replace(entry, folder / entry.name)


def replace_folder(
    folder: Path, write: Callable[[Path], object], last: str, is_replaced: Callable[[Path], bool] = lambda file: False
) -> None:
    """
    Let `write` fill a folder, and put it in the place of another one when it is complete. The other one stays, whole,
    until then: a process that dies leaves one or the other. (Between two renamings there is neither for a moment;
    [`clear_leftovers`], which each call begins with, then puts the former one back.)

    A folder in which somebody works, or where a disk is mounted, cannot be renamed; its files are replaced one by one,
    as by [`move_together`]; `last` is the file without which the others count for nothing.

    Files of the former folder, if there is one, go where `is_replaced` says so. Others are kept, unless `write` has
    made some of the same name.

    Raises:
        OSError: where it cannot be written, such as on a full disk; names `folder`.
    """
    folder = folder.resolve()
    if os.path.ismount(folder) or folder in (Path.cwd().resolve() / "file").parents:
        clear_leftovers(folder)
        with naming_what_failed(folder), staging_folder(folder) as staging:
            write(staging)
            names = [file.name for file in staging.iterdir() if file.name not in (last, LOCK_NAME)]
            move_together(staging, folder, [*names, last])
            for entry in folder.iterdir():
                if is_replaced(entry) and entry.name not in (*names, last):
                    entry.unlink()
        return
    clear_leftovers(folder.parent)
    with naming_what_failed(folder), staging_folder(folder.parent) as staging:
        new, former = staging / folder.name, staging / FORMER / folder.name
        new.mkdir()
        write(new)
        if not folder.exists():
            os.rename(new, folder)
            return
        for entry in folder.iterdir():
            if not (is_replaced(entry) or (new / entry.name).exists()):
                _link_or_copy(entry, new / entry.name)
        shutil.copymode(folder, new)
        former.parent.mkdir()
        try:
            os.rename(folder, former)
            os.rename(new, folder)
        except BaseException:
            _put_back(former.parent, folder.parent)
            raise


def _link_or_copy(source: Path, target: Path) -> None:
    """The same bytes by another name, where the file system has that, or else a copy; of a folder all files in it."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except (OSError, NotImplementedError):
            shutil.copy2(source, target, follow_symlinks=False)

    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=link)
    else:
        link(str(source), str(target))


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """
    A hidden folder in `folder` for files that are not complete, which is removed in the end. What killed processes
    left is removed by the next process that writes there.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if folder not in _cleared_folders:  # looking through a folder of many results takes time
        clear_leftovers(folder)
        _cleared_folders.add(folder)
    staging = folder / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
    # The system gives the lock back however a process ends, so that others see whether this one is alive.
    lock = FileLock(staging / LOCK_NAME)
    try:
        while not staging.exists():  # another process may remove the folder, as a leftover, until it is locked
            lock.release()
            staging.mkdir()
            # Some file systems have no locks (NotImplementedError); there leftovers stay.
            with suppress(FileNotFoundError, NotImplementedError):
                lock.acquire()
        yield staging
    finally:
        lock.release()
        shutil.rmtree(staging, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """
    Remove what killed processes left in a folder of files that were not complete. What one of them was about to
    replace, see [`replace_folder`] and [`move_together`], is put back.
    """
    for staging in folder.glob(f"{STAGING_PREFIX}*"):
        try:
            if not (staging / LOCK_NAME).exists():
                staging.rmdir()  # it is empty; a process that has just made it makes it again
                continue
            lock = FileLock(staging / LOCK_NAME)
            lock.acquire(timeout=0)
        except (OSError, NotImplementedError, Timeout):  # in use, or of another user
            continue
        try:  # a process that has just made the folder waits until the lock is released
            _put_back(staging / FORMER, folder)
            shutil.rmtree(staging, ignore_errors=True)
        finally:
            lock.release()
        if os.name == "nt":  # Windows does not remove an open file, such as the lock above
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def naming_what_failed(target: Path) -> Iterator[None]:
    """
    Make what writers raise where a disk does not take their bytes an error that names `target`: the system's errors,
    and those of safetensors and PyTorch, which wrap them.

    Raises:
        OSError: for any of these.
    """
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{target} could not be written: {error}") from error
    except OSError as error:
        if error.errno is None:  # raised by the caller, whose message says what it means
            raise
        kind = PermissionError if isinstance(error, PermissionError) else OSError
        raise kind(f"{target} could not be written: {error}") from error
    except RuntimeError as error:
        if not any(words in str(error) for words in PYTORCH_WRITER):
            raise
        raise OSError(f"{target} could not be written: {str(error).splitlines()[0]}") from error
