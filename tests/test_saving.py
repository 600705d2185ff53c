# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Results replace older ones whole or not at all, wherever the process that writes them dies."""

import os
import shutil
import signal
import stat
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from modeling_denseclip.tools.files import saving
from modeling_denseclip.tools.files.saving import (
    clear_leftovers,
    move_together,
    naming_what_failed,
    replace_folder,
    save_whole,
    staging_folder,
)


# The calls by which files come, go and change their names.
CALLS = ("rename", "replace", "link", "unlink", "rmdir", "mkdir")


@pytest.fixture(autouse=True)
def looking_anew(monkeypatch):
    """As in a process that has written nothing yet."""
    monkeypatch.setattr(saving, "_cleared_folders", set())


def dies_at(count: int, work) -> bool:
    """Whether `work`, in a process of its own, was killed before its call number `count` of those in `CALLS`."""
    process = os.fork()
    if process == 0:
        left = [count]

        def counted(call):
            def wrapper(*args, **kwargs):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return call(*args, **kwargs)

            return wrapper

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def read_files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


OLD = {"config.json": "old", "model.safetensors": "old", "former.safetensors": "old"}
KEPT = {"README.md": "mine", "checkpoint-2/state": "mine"}
NEW = {"config.json": "new", "model.safetensors": "new"}


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def replace(folder: Path) -> None:
    def is_replaced(file: Path) -> bool:
        return file.match("*.safetensors")

    replace_folder(folder, lambda new: write_files(new, NEW), "config.json", is_replaced)


def test_folder_is_the_old_or_the_new_one_wherever_the_process_dies(tmp_path):
    ends = []
    for count in range(100):
        folder = tmp_path / str(count) / "model"
        write_files(folder, OLD | KEPT)
        died = dies_at(count, lambda folder=folder: replace(folder))
        ends.append("neither" if not folder.exists() else "old" if read_files(folder) == OLD | KEPT else "new")
        clear_leftovers(folder.parent)
        assert read_files(folder) in (OLD | KEPT, NEW | KEPT), count
        assert list(folder.parent.iterdir()) == [folder]
        replace(folder)
        assert read_files(folder) == NEW | KEPT and list(folder.parent.iterdir()) == [folder]
        if not died:
            break
    assert not died and ends[0] == "old" and ends[-1] == "new"
    # Between the two renamings, and nowhere else.
    assert ends.count("neither") == 1 and ends == sorted(ends, key=["old", "neither", "new"].index)


def test_folder_that_was_not_there_is_whole_or_not_there(tmp_path):
    for count in range(100):
        folder = tmp_path / str(count) / "deep" / "model"
        died = dies_at(count, lambda folder=folder: replace(folder))
        assert not folder.exists() or read_files(folder) == NEW
        if not died:
            break
    assert not died and folder.exists()


def test_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    write_files(tmp_path / "there", OLD)
    (tmp_path / "link").symlink_to("there")
    replace(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and read_files(tmp_path / "there") == NEW


def test_folder_in_which_somebody_works_is_the_same_one_afterwards(tmp_path, monkeypatch):
    for count in range(100):
        folder = tmp_path / str(count) / "model"
        write_files(folder, OLD | KEPT)
        monkeypatch.chdir(folder)
        before = folder.stat().st_ino
        died = dies_at(count, lambda: replace(Path(".")))
        if (folder / "config.json").exists():
            # Weights of another name that `write` made none of are not read where there are those of the usual one.
            found = {name: text for name, text in read_files(folder).items() if name in NEW}
            assert len(set(found.values())) == 1 and found.keys() == NEW.keys()
        clear_leftovers(folder)
        assert read_files(folder) in (OLD | KEPT, NEW | KEPT, NEW | KEPT | {"former.safetensors": "old"})
        replace(Path("."))
        assert read_files(folder) == NEW | KEPT and folder.stat().st_ino == before
        if not died:
            break
    assert not died


def test_links_and_rights_in_a_folder_are_kept(tmp_path):
    folder = tmp_path / "model"
    write_files(folder, OLD)
    (folder / "latest").symlink_to("nowhere")
    folder.chmod(0o750)
    replace(folder)
    assert os.readlink(folder / "latest") == "nowhere" and stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_folder_stays_where_the_new_one_cannot_be_put(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    write_files(folder, OLD | KEPT)
    rename = os.rename

    def refuse(source, target):
        if Path(target) == folder:
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="model could not be written: .*Permission denied"):
        replace(folder)
    assert read_files(folder) == OLD | KEPT and list(tmp_path.iterdir()) == [folder]


def test_files_that_belong_together_are_never_of_two_results(tmp_path):
    names = ["model.onnx", "model.onnx.json"]

    def write(folder: Path) -> None:
        with staging_folder(folder) as staging:
            write_files(staging, dict.fromkeys(names, "new"))
            move_together(staging, folder, names)

    for count in range(100):
        folder = tmp_path / str(count)
        write_files(folder, dict.fromkeys(names, "old"))
        died = dies_at(count, lambda folder=folder: write(folder))
        if (folder / names[1]).exists():  # without it the others count for nothing
            assert (folder / names[0]).read_text() == (folder / names[1]).read_text()
        clear_leftovers(folder)
        found = read_files(folder)
        assert found in (dict.fromkeys(names, "old"), dict.fromkeys(names, "new"))
        if not died:
            break
    assert not died and found == dict.fromkeys(names, "new")


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    target = tmp_path / "mask.png"
    assert dies_at(3, lambda: save_whole(target, lambda path: path.write_text("half")))
    assert len(list(tmp_path.iterdir())) == 1
    is_written, may_go = threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        path.write_text("slow")
        is_written.set()
        assert may_go.wait(60)

    thread = threading.Thread(target=save_whole, args=(tmp_path / "slow.png", slow))
    thread.start()
    assert is_written.wait(60)
    saving._cleared_folders.clear()
    save_whole(target, lambda path: path.write_text("whole"))
    may_go.set()
    thread.join()
    assert read_files(tmp_path) == {"mask.png": "whole", "slow.png": "slow"}


@pytest.mark.parametrize("is_locked", [False, True])
def test_folder_that_another_process_takes_for_a_leftover_is_made_again(tmp_path, monkeypatch, is_locked):
    acquire, taken = saving.FileLock.acquire, []

    def acquire_too_late(lock, *args, **kwargs):
        if taken:
            return acquire(lock, *args, **kwargs)
        taken.append(lock)
        if is_locked:  # the lock of a file that is there no more
            acquire(lock, *args, **kwargs)
        shutil.rmtree(Path(lock.lock_file).parent)
        if not is_locked:
            raise FileNotFoundError(lock.lock_file)

    monkeypatch.setattr(saving.FileLock, "acquire", acquire_too_late)
    save_whole(tmp_path / "mask.png", lambda path: path.write_text("whole"))
    assert taken and read_files(tmp_path) == {"mask.png": "whole"}


def test_name_may_be_as_long_as_the_file_system_has_them(tmp_path):
    target = tmp_path / f"{'n' * 251}.png"
    save_whole(target, lambda path: path.write_text("whole"))
    assert read_files(tmp_path) == {target.name: "whole"}


def test_file_is_as_readable_as_others(tmp_path):
    (tmp_path / "other").write_text("")
    save_whole(tmp_path / "mask.png", lambda path: path.write_text("whole"))
    assert (tmp_path / "mask.png").stat().st_mode == (tmp_path / "other").stat().st_mode


def save_by_safetensors(path: Path) -> None:
    # It writes beside the file and renames, so that /dev/full does not stand for a full disk.
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("save", [partial(torch.save, torch.zeros(10_000)), save_by_safetensors])
def test_full_disk_is_named_whichever_library_writes(save, tmp_path):
    (tmp_path / "weights").symlink_to("/dev/full")
    with pytest.raises(OSError, match="model could not be written: "), naming_what_failed(Path("model")):
        save(tmp_path / "weights")


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), OSError("of its own")])
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as caught, naming_what_failed(Path("model")):
        raise error
    assert caught.value is error
