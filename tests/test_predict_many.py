# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""`denseclip predict` on many files: runs that are stopped and go on, several processes, long lists, and the times."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from modeling_denseclip.tools.command import main
from modeling_denseclip.tools.commands import predict
from modeling_denseclip.tools.commands.predict import choose_targets, divide, find_inputs
from modeling_denseclip.tools.files import inputs
from modeling_denseclip.tools.files.inputs import FoundFiles
from modeling_denseclip.tools.files.loading import digest_model, load_model
from modeling_denseclip.tools.files.results import ResultLines, index_lines
from modeling_denseclip.tools.stopwatch import PARTS, Stopwatch, format_times
from tests.test_pipeline import save_model
from tests.test_predict import tree, write_video
from tests.tiny import TINY_CLASS_NAMES, draw_picture, make_tiny_tokenizer
from tests.warm import warm_python, write_scripts
from training.evaluate import main as evaluate


ROOT = Path(__file__).resolve().parents[1]
# Two sizes, one behind the other, so that a batch of two is cut by the change of size too.
SIZES = {"a": (96, 64), "b": (96, 64), "c": (96, 64), "d": (64, 64), "e": (64, 64)}
SETTINGS = {"model": "tiny", "revision": "main", "dtype": "float32", "checksum": "0"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model("resnet", folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """The working folder, with `photos`, of which one is broken."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        draw_picture(*size, seed).save(f"photos/{name}.png")
    Path("photos/b2.png").write_bytes(b"broken")
    return tmp_path


def words(saved: Path, output: str, *more: str) -> list[str]:
    options = ["--model", str(saved), "--out", output, "--batch_size", "2", "--dtype", "float32"]
    return ["predict", "photos", *options, *more]


# --- Runs that go on -------------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_and_gives_the_same(saved, work, monkeypatch, capsys):
    """
    Stopped by Ctrl-C behind the line of the first of two photographs that the model has seen together, and within the
    line of the second: that is computed again, with its neighbour.
    """
    write_video("photos/v.mp4", num_frames=2)
    assert main(words(saved, "one")) == 1
    add, read, were_read = ResultLines.add, predict.read_photograph, []

    def interrupt(self, entry):
        if self._stream is not None:
            self._stream.write(self._encode(entry)[:20])
            raise KeyboardInterrupt
        add(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(ResultLines, "add", interrupt)
        assert main(words(saved, "two")) == 130
    whole, torn = Path("two/predictions.jsonl").read_bytes().splitlines()
    assert json.loads(whole)["file"] == "photos/a.png" and len(torn) == 20

    capsys.readouterr()
    assert main(words(saved, "two")) == 2
    assert "that did not end, has done 1 of these files: go on with it by --resume" in capsys.readouterr().err
    assert main(words(saved, "two", "--resume", "--palette", "colorblind")) == 2
    assert 'other settings: palette was "auto" and is "colorblind"' in capsys.readouterr().err
    monkeypatch.setattr(predict, "read_photograph", lambda file: were_read.append(file.name) or read(file))
    assert main(words(saved, "two", "--resume")) == 1
    printed = capsys.readouterr()
    assert "1 of 7 are done already." in printed.err and "6 done, 1 left out" in printed.out
    assert "photos/a.png" not in printed.out and "photos/b.png" in printed.out
    assert sorted(were_read) == ["a.png", "b.png", "b2.png", "c.png", "d.png", "e.png"]  # a for the batch of b
    assert {path.relative_to("two"): data for path, data in tree(Path("two")).items()} == {
        path.relative_to("one"): data for path, data in tree(Path("one")).items()
    }

    # All is done now: only what was left out is tried again, and a result that has gone is made again.
    draw_picture(64, 64, 9).save("photos/b2.png")
    Path("two/d-mask.png").unlink()
    were_read.clear()
    assert main(words(saved, "two", "--resume")) == 0
    assert set(were_read) >= {"b2.png", "d.png"} and not {"a.png", "b.png"} & set(were_read)
    report = json.loads(Path("two/predictions.json").read_text())
    assert [Path(entry["file"]).stem for entry in report["images"]] == ["a", "b", "b2", "c", "d", "e"]
    assert Path("two/d-mask.png").read_bytes() == Path("one/d-mask.png").read_bytes()
    assert report["left_out"] == [] and len(report["videos"]) == 1


KILL = """
import os, signal, sys
from modeling_denseclip.tools.command import main
from modeling_denseclip.tools.files.results import ResultLines

write, count = ResultLines.add, 0

def add(self, entry):
    global count
    count += 1
    if count == 3:  # its mask is there; half of the line gets out
        self._stream.write(self._encode(entry)[:60])
        self._stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, entry)

ResultLines.add = add
main(sys.argv[1:])
"""


def test_a_killed_run_goes_on(saved, work, monkeypatch):
    command = [*warm_python(), "-c", KILL, *words(saved, "two")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == -signal.SIGKILL
    assert Path("two/c-mask.png").exists()
    data = Path("two/predictions.jsonl").read_bytes()
    assert data.count(b"\n") == 2 and not data.endswith(b"\n")
    were_read, read = [], predict.read_photograph
    with monkeypatch.context() as patch:
        patch.setattr(predict, "read_photograph", lambda file: were_read.append(file.name) or read(file))
        assert main(words(saved, "two", "--resume")) == 1
    assert sorted(were_read) == ["b2.png", "c.png", "d.png", "e.png"]
    assert main(words(saved, "one")) == 1
    for name in ("predictions.json", "predictions.jsonl"):
        assert Path("two", name).read_bytes() == Path("one", name).read_bytes()
    for name in SIZES:
        assert np.array_equal(read_png(f"two/{name}-mask.png"), read_png(f"one/{name}-mask.png"))
    assert not list(Path("two").glob(".*"))  # what the killed process left


def read_png(path: str) -> np.ndarray:
    return np.asarray(PIL.Image.open(path))


def write_lines(folder: Path, names: str, settings: dict = SETTINGS, is_resumed: bool = False) -> list[str]:
    """Do what has no line yet, and end; returns what was done."""
    files = [Path("photos", name) for name in names]
    lines = ResultLines(folder, settings)
    done, made = lines.find_done(files, is_resumed), []
    for file, entry in zip(files, done.read(files), strict=True):
        if entry is None:
            made.append(file.name)
            size = {"width": len(made), "height": 1}
            lines.add({"file": str(file), **size, "mask": folder / f"{file.name}.png"})
    lines.finish(files, {"model": "tiny"}, {})
    return made


def test_a_last_line_may_end_anywhere(tmp_path):
    assert write_lines(tmp_path / "one", "ab\udce9") == ["a", "b", "\udce9"]
    whole = (tmp_path / "one/predictions.jsonl").read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    folder = tmp_path / "two"
    for length in range(len(third) + 1):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "one", folder)
        (folder / "predictions.jsonl").write_bytes(first + second + third[:length])
        # A line is whole without its end too. In the place of the third one the first is done anew.
        made = write_lines(folder, "ab\udce9", is_resumed=True)
        assert made == ([] if length >= len(third) - 1 else ["\udce9"])
        entries = [json.loads(line) for line in (folder / "predictions.jsonl").read_bytes().splitlines()]
        assert [entry["file"] for entry in entries] == ["photos/a", "photos/b", "photos/\udce9"]
        assert json.loads((folder / "predictions.json").read_bytes())["images"] == entries


def test_a_line_without_its_end_is_kept_when_others_follow(tmp_path):
    write_lines(tmp_path, "abc")
    lines = (tmp_path / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    for whole in (lines[:1], lines[:2]):
        (tmp_path / "predictions.jsonl").write_bytes(b"".join(whole)[:-1])
        assert write_lines(tmp_path, "abc", is_resumed=True) == list("abc")[len(whole) :]
        made = [json.loads(line)["file"] for line in (tmp_path / "predictions.jsonl").read_bytes().splitlines()]
        assert made == ["photos/a", "photos/b", "photos/c"]


def test_of_several_lines_of_a_file_the_last_one_counts(tmp_path):
    write_lines(tmp_path, "ab")
    path = tmp_path / "predictions.jsonl"
    first = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(path.read_bytes() + json.dumps({**json.loads(first), "again": 1}).encode() + b"\n")
    assert write_lines(tmp_path, "ab", is_resumed=True) == []
    entries = json.loads((tmp_path / "predictions.json").read_bytes())["images"]
    assert ["again" in entry for entry in entries] == [True, False]


def test_former_lines_are_not_asked_for_when_a_run_begins_anew(tmp_path):
    files = [Path("photos/a"), Path("photos/b")]
    write_lines(tmp_path, "ab")
    (tmp_path / "predictions-00000-of-00002.jsonl").write_bytes((tmp_path / "predictions.jsonl").read_bytes())
    lines = ResultLines(tmp_path, {**SETTINGS, "dtype": "other"})
    done = lines.find_done(files, is_resumed=False)
    lines.begin()
    assert [*done.read(files)] == [None, None] and not [*tmp_path.glob("*.jsonl")]


def test_lines_that_are_none_are_passed_over(tmp_path):
    write_lines(tmp_path, "abc")
    lines = (tmp_path / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    zeros = b"\0" * 5000 + b"\n"  # as a machine leaves it that lost its power
    sizeless = b'{"file": "photos/b"}\n'  # as somebody else may have written it
    others = b"".join((zeros, b"[]\n7\n", b'{"file": 7}\n', sizeless))
    (tmp_path / "predictions.jsonl").write_bytes(lines[0] + others + lines[2])
    assert write_lines(tmp_path, "abc", is_resumed=True) == ["b"]
    assert (tmp_path / "predictions.jsonl").read_bytes().count(b"\n") == 3
    # Lines of a file that is not asked for any more, and another order.
    assert write_lines(tmp_path, "ca", is_resumed=True) == []
    entries = json.loads((tmp_path / "predictions.json").read_bytes())["images"]
    assert [entry["file"] for entry in entries] == ["photos/c", "photos/a"]


def test_lines_of_a_run_that_did_not_end_do_not_go_unasked(tmp_path):
    write_lines(tmp_path, "ab")
    lines = ResultLines(tmp_path, SETTINGS)
    lines.find_done([Path("photos/a")], is_resumed=True)
    lines.begin()
    assert not (tmp_path / "predictions.json").exists()  # it would tell of the run before
    others = "its lines, of other files, would be lost: end that run by --resume"
    for names, message in (("abc", "has done 2 of these files"), ("xy", others)):
        with pytest.raises(ValueError, match=message):
            write_lines(tmp_path, names)
    assert (tmp_path / "predictions.jsonl").read_bytes().count(b"\n") == 2
    assert write_lines(tmp_path, "xy", is_resumed=True) == ["x", "y"]


def test_a_file_system_may_have_no_locks(tmp_path, monkeypatch):
    def refuse(lock, **options):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("modeling_denseclip.tools.files.results.FileLock.acquire", refuse)
    with ResultLines(tmp_path / "out", SETTINGS).alone():
        assert (tmp_path / "out").is_dir()
    assert not (tmp_path / "out").exists()


def test_the_json_is_what_python_writes(tmp_path):
    files = [Path(name) for name in ("a.png", "b.mp4", "é\u2028.png")]
    lines = ResultLines(tmp_path, SETTINGS)
    entries = [
        {"file": "a.png", "width": 3, "height": 2, "classes": [{"id": 1, "score": 1e-7}]},
        {"file": "b.mp4", "width": 3, "height": 2, "frames": 3, "frames_lost": 1},
        {"file": "é\u2028.png", "width": 3, "height": 2, "classes": [], "overlay": "é.jpg"},
    ]
    for entry in entries:
        lines.add(entry)
    assert lines.finish(files, {"model": "tiny", "classes": ["ä"]}, {Path("c"): "broken"}) == (3, 1)
    expected = {
        "model": "tiny",
        "classes": ["ä"],
        "images": [entries[0], entries[2]],
        "videos": [entries[1]],
        "left_out": [{"file": "c", "error": "broken"}],
    }
    text = (tmp_path / "predictions.json").read_text(encoding="utf-8")
    assert text == json.dumps(expected, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dtype": "bfloat16"}, 'dtype was "float32" and is "bfloat16"'),
        ({"window": {"size": [64, 64]}}, r'window was null and is {"size": \[64, 64\]}'),
        ({"checksum": "1"}, r"the weights or the preparation of tiny \(main\) are not those of tiny \(main\) now"),
    ],
)
def test_other_settings_do_not_go_on(tmp_path, change, message):
    write_lines(tmp_path, "ab")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=f"--resume cannot go on: .* holds results of other settings: {message}"):
        write_lines(tmp_path, "abc", {**SETTINGS, **change}, is_resumed=True)
    assert tree(tmp_path) == before
    assert write_lines(tmp_path, "abc", {**SETTINGS, "revision": "v2"}, is_resumed=True) == ["c"]  # the same weights
    assert write_lines(tmp_path, "abc", {**SETTINGS, **change}) == ["a", "b", "c"]  # anew
    # Where none of these files was done, it begins, and lines of other settings do not stay, not even if it is killed.
    lines = ResultLines(tmp_path, SETTINGS)
    assert lines.find_done([Path("photos/x")], is_resumed=True).count == 0
    lines.add({"file": "photos/x"})
    lines.close()
    assert write_lines(tmp_path, "abc", is_resumed=True) == ["a", "b", "c"]
    (tmp_path / "predictions.settings.json").write_text("[]")
    with pytest.raises(ValueError, match=r"predictions.settings.json, which says .* is missing or broken"):
        write_lines(tmp_path, "abc", is_resumed=True)


def test_a_model_that_has_learned_on_is_another(saved, work):
    folder = shutil.copytree(saved, "copy")
    model, image_processor = load_model(str(saved))
    digest = digest_model(model, image_processor)
    assert digest_model(*load_model(str(folder))) == digest
    assert main(["predict", "photos/a.png", "--model", str(folder), "--out", "out"]) == 0
    assert json.loads(Path("out/predictions.settings.json").read_text())["checksum"] == digest
    for change in (
        lambda: model.decode_head.classifier.bias.data[:1].add_(1e-3),
        lambda: setattr(model.config, "score_map_loss_weight", 0.3),
        lambda: setattr(image_processor, "size", {"shortest_edge": 65}),
    ):
        change()
        former, digest = digest, digest_model(model, image_processor)
        assert digest != former


# --- Several processes -----------------------------------------------------------------------------------------------

TWO = """
import os, sys
from pathlib import Path
from modeling_denseclip.tools.command import main
from training.evaluate import main as evaluate

evaluate(Path(sys.argv[1]).read_text().splitlines())
sys.exit(main(Path(sys.argv[2]).read_text().splitlines()))
"""


def test_two_processes_do_what_one_does(saved, work):
    """A torchrun of two: an evaluation, then `predict`, each with a file that is left out."""
    for kind in ("images", "annotations"):
        Path("data", kind, "validation").mkdir(parents=True)
    for index in range(6):
        picture = draw_picture(96 + 8 * index, 80, seed=index)
        picture.save(f"data/images/validation/{index}.png")
        mask = picture.convert("L").point(lambda value: min(value // 45, 4))
        mask.save(f"data/annotations/validation/{index}.png")
    Path("data/images/validation/3.png").write_bytes(b"broken")
    Path("data/classes.txt").write_text("\n".join(TINY_CLASS_NAMES))
    evaluation = f"{saved}\n--data_dir\ndata\n--use_cpu\ntrue\n--dataloader_num_workers\n0\n--output_dir\n"
    Path("evaluate.txt").write_text(evaluation + "scores two")
    Path("predict.txt").write_text("\n".join(words(saved, "two", "--profile", "--device", "cpu")))
    Path("two.py").write_text(TWO)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    environment["PYTHON_EXEC"] = str(write_scripts(work / "bin") / "python")
    result = subprocess.run(
        [*warm_python(), *launcher, "two.py", "evaluate.txt", "predict.txt"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # as each of the two has
        evaluate((evaluation + "scores one").splitlines())
        assert main(words(saved, "one")) == 1
    finally:
        torch.set_num_threads(threads)

    for name in ("metrics.json", "per_class.csv", "worst_images.jpg"):
        assert Path("scores two", name).read_bytes() == Path("scores one", name).read_bytes(), name
    report = json.loads(Path("scores two/metrics.json").read_text())
    assert report["dataset"]["num_images"] == 5 and len(report["dataset"]["left_out"]) == 1

    one, two = (json.loads(Path(folder, "predictions.json").read_text()) for folder in ("one", "two"))
    assert two["left_out"] == one["left_out"] and "left out: photos/b2.png" in result.stderr
    assert [entry["file"] for entry in two["images"]] == [entry["file"] for entry in one["images"]]
    for ours, theirs in zip(two["images"], one["images"], strict=True):
        assert [found["id"] for found in ours["classes"]] == [found["id"] for found in theirs["classes"]]
        mask, other = read_png(f"two/{ours['mask']}"), read_png(f"one/{theirs['mask']}")
        assert (mask != other).mean() < 1e-3  # in other batches: other sums
    assert sorted(Path("two").glob("predictions*")) == sorted(
        Path("two", name) for name in ("predictions.json", "predictions.jsonl", "predictions.settings.json")
    )
    assert result.stdout.count("5 done, 1 left out. Written to: two") == 1
    assert "The model computed in" in result.stdout and "GPU" not in result.stdout


def test_lines_of_other_processes_count(tmp_path):
    """Of a run of three processes that was killed, two of which had written something, one goes on."""
    files = [Path("photos", name) for name in "abcd"]
    main_lines = ResultLines(tmp_path, SETTINGS, 0, 3)
    main_lines.find_done(files, False)
    main_lines.begin()
    size = {"width": 1, "height": 1}
    main_lines.add({"file": "photos/a", **size})
    last = ResultLines(tmp_path, SETTINGS, 2, 3)
    last.add({"file": "photos/d", **size})
    last.add({"file": "photos/c", **size})
    with (tmp_path / "predictions-00002-of-00003.jsonl").open("ab") as stream:
        stream.write(b'{"file": "pho')
    assert write_lines(tmp_path, "abcd", is_resumed=True) == ["b"]
    entries = json.loads((tmp_path / "predictions.json").read_bytes())["images"]
    assert [entry["file"] for entry in entries] == [f"photos/{name}" for name in "abcd"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("predictions.json", "predictions.jsonl", "predictions.settings.json")
    ]
    # A run that begins anew takes nothing of them.
    last = ResultLines(tmp_path, SETTINGS, 2, 3)
    last.add({"file": "photos/b", **size})
    last.close()
    assert write_lines(tmp_path, "ab") == ["a", "b"] and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_files_are_divided_whole_and_evenly(num_processes):
    files = FoundFiles()
    for number in range(23):
        files.add(Path("photos"), Path(), f"{number:02}.{'mp4' if number % 5 == 0 else 'jpg'}")
    shares = divide(files, index_lines([], files), num_processes, 2)
    taken = [[file.name for file in share] for share, _ in shares]
    assert sorted(sum(taken, [])) == [file.name for file in files]
    photographs = [[name for name in of_one if name.endswith("jpg")] for of_one in taken]
    assert max(map(len, photographs)) - min(map(len, photographs)) <= 2  # a batch
    assert max(len(of_one) - len(some) for of_one, some in zip(taken, photographs, strict=True)) == -(
        -5 // num_processes
    )
    for some in photographs:  # neighbours stay together
        order = [int(name[:2]) for name in some]
        all_names = [number for number in range(23) if number % 5]
        for first, second in zip(order[::2], order[1::2], strict=False):
            assert all_names.index(second) == all_names.index(first) + 1


# --- Long lists ------------------------------------------------------------------------------------------------------


def test_files_of_a_list(saved, work, monkeypatch, capsys):
    Path("photos/in").mkdir()
    Path("photos/c.png").rename("photos/in/c.png")
    listed = [b"photos/a.png\n", b"\r\n", b"./photos/in/c.png\r\n", b"photos/nowhere.png\n", b"photos/a.png\n"]
    listed.append(os.fsencode(work / "photos/d.png"))
    Path("list.txt").write_bytes(b"".join(listed))
    options = ["--model", str(saved), "--out", "out"]
    assert main(["predict", "photos/e.png", "--files_from", "list.txt", *options]) == 1
    report = json.loads(Path("out/predictions.json").read_text())
    below = work.relative_to("/").as_posix()
    masks = ["e-mask.png", "photos/a-mask.png", "photos/in/c-mask.png", f"{below}/photos/d-mask.png"]
    assert [entry["mask"] for entry in report["images"]] == masks and all(Path("out", mask).exists() for mask in masks)
    assert [entry["file"] for entry in report["left_out"]] == ["photos/nowhere.png"]
    assert "No such file" in report["left_out"][0]["error"]

    assert [name for _, name in find_inputs([], Path("out"), lines=[b"../x/a.png", b"b.png"]).items()] == [
        *(Path("x/a"), Path("b"))
    ]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"photos/b.png\n")))
    assert main(["predict", "--files_from", "-", *options]) == 0
    assert len(json.loads(Path("out/predictions.json").read_text())["images"]) == 1
    capsys.readouterr()
    assert main(["predict", *options]) == 2 and "No photographs are named" in capsys.readouterr().err
    Path("list.txt").write_bytes("photos/a.png\n".encode("utf-16"))  # with the mark of its order of bytes
    assert main(["predict", "--files_from", "list.txt", *options]) == 2
    assert "The list of files is text in UTF-16: save it as UTF-8" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)  # of a process that was started with `<&-`
    assert main(["predict", "--files_from", "-", *options]) == 2
    assert "reads standard input, which is closed" in capsys.readouterr().err


def test_names_are_in_memory_once(monkeypatch, tmp_path):
    """
    Names of 24 letters take 73 bytes each as Python's strings. What finds them and their results, and sees that none
    replaces another, takes little more; as paths, they would take ten times as much.
    """
    count, at_the_end = 10_000, []
    name_last = f"photograph_{count - 1:09}-mask.png"

    def walk(folder, onerror):
        yield str(folder), [], [f"photograph_{index:09}.jpg" for index in range(count)]

    def look(target, file):
        if target.name == name_last:
            # Without the table of all interned strings of Python, to which `Path` adds: it is made anew now and then.
            sizes = [trace.size for trace in tracemalloc.take_snapshot().traces]
            at_the_end.append(sum(size for size in sizes if size < 2**20))

    monkeypatch.setattr(inputs.os, "walk", walk)
    monkeypatch.setattr(inputs, "check_name", look)
    tracemalloc.start()
    try:
        found = find_inputs([str(ROOT)], tmp_path, masks=FoundFiles())
        targets = choose_targets(found, tmp_path, False)
    finally:
        tracemalloc.stop()
    assert len(targets) == count
    assert 73 < at_the_end[0] / count < 130


# --- Times -----------------------------------------------------------------------------------------------------------


def test_times_are_those_of_the_parts(saved, work, monkeypatch, capsys):
    """By a clock that goes on by a second each time that somebody looks."""
    clock = iter(range(10**6))
    monkeypatch.setattr("modeling_denseclip.tools.stopwatch.time.perf_counter", lambda: next(clock))
    assert main(["predict", "photos/a.png", "photos/d.png", "--model", str(saved), "--out", "out", "--profile"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    seconds = {line[0]: line for line in table if line and line[0] in PARTS}
    assert list(seconds) == list(PARTS)
    assert all(float(seconds[part][1]) >= 2 for part in PARTS)  # each of two photographs looks twice at it
    # Once written as files, and once as a line.
    assert float(seconds["writing"][1]) > float(seconds["reading"][1]) / 2
    # What was done before took none of the time.
    files = [f"photos/{name}.png" for name in "adbc"]
    assert main(["predict", *files, "--model", str(saved), "--out", "out", "--profile", "--resume"]) == 0
    *_, whole = (line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("all of it"))
    assert float(whole[4]) == pytest.approx(1000 * float(whole[3]) / 2, abs=0.06)


def test_a_stopwatch_that_is_off_measures_nothing(monkeypatch):
    watch = Stopwatch()
    monkeypatch.setattr("modeling_denseclip.tools.stopwatch.time.perf_counter", pytest.fail)
    with watch.measure("reading"), watch.measure_model(torch.device("cuda")):
        pass
    assert watch.measure("reading") is watch.measure("writing")


def test_the_table_adds_processes_up():
    times = [(10.0, {**dict.fromkeys(PARTS, 0.0), "model": 8.0, "reading": 12.0}), (8.0, dict.fromkeys(PARTS, 1.0))]
    lines = format_times(times, 20, on_gpu=True).splitlines()
    rows = {line.split()[0]: line.split() for line in lines}
    assert rows["model"][1:4] == ["9.00", "450.0", "45.0"]  # of twice ten seconds
    assert rows["reading"][1:4] == ["13.00", "650.0", "65.0"]
    assert "The model computed in 45.0 % of the time; 55.0 % of it the GPU did not." in lines
