# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Rows that are streamed: each once in each pass, whoever reads; the same order after a stop; faults named by their keys.

Each sample's mask holds one id, that of no other, so that a batch tells which samples it is made of.
"""

import io
import json
import os
import shutil
import string
import subprocess
import tarfile
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from modeling_denseclip import DenseCLIPImageProcessor
from tests.tiny import pack_archives, save_tiny_architecture
from tests.warm import warm_python, write_scripts
from training.data.load import SegmentationData, load_data
from training.data.streaming import (
    SHARDS_AT_ONCE,
    STREAM_POSITION,
    Position,
    RowStream,
    TrainingStream,
    by_turns,
    drawn_from_buffer,
    expand_shards,
)
from training.data.transforms import TrainingTransform
from training.learning.stream_progress import StreamProgress


ROOT = Path(__file__).resolve().parents[1]
SIZES = [3, 7, 4, 5, 4]  # samples of each archive
NUM_SAMPLES = sum(SIZES)
NAMES = list(string.ascii_lowercase[:NUM_SAMPLES])
COLUMNS = {"image_column": "jpg", "label_column": "png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Photographs of noise as JPEGs, each with an id of its own, in five archives; and two to validate."""
    folder = tmp_path_factory.mktemp("streaming")
    generator = np.random.default_rng(0)
    for split, count in (("training", NUM_SAMPLES), ("validation", 2)):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / split / f"{index:02d}.jpg")
            Image.new("L", (48, 40), index).save(folder / "annotations" / split / f"{index:02d}.png")
    (folder / "classes.txt").write_text("\n".join(NAMES))
    pack_archives(folder, "training", folder / "shards", "train", SIZES)
    pack_archives(folder, "validation", folder / "shards", "validation", [2])
    return folder


def read_by_tarfile(shards: Path) -> dict[str, tuple[int, bytes]]:
    """Key -> id and photograph of all samples to train on, by Python's own reader of archives."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(shards.glob("train-*.tar")):
        with tarfile.open(path) as archive:
            for member in archive.getmembers():
                key, _, suffix = member.name.partition(".")
                found.setdefault(key, {})[suffix] = archive.extractfile(member).read()
    masks = {key: Image.open(io.BytesIO(files["png"])).getpixel((0, 0)) for key, files in found.items()}
    return {key: (masks[key], files["jpg"]) for key, files in found.items()}


def load(folder: Path, tmp_path: Path, archives: Path | None = None, **arguments) -> SegmentationData:
    source = {"dataset_name": str(archives or folder / "shards"), "class_names_file": folder / "classes.txt"}
    arguments = {"cache_dir": tmp_path / "cache", "splits": ("training",), "streaming": True, **arguments}
    return load_data(**source, **COLUMNS, **arguments)


@pytest.fixture(scope="module")
def rows(folder) -> RowStream:
    return load(folder, folder).train


def open_stream(rows: RowStream, process_index=0, num_processes=1, num_workers=0, **arguments) -> TrainingStream:
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 40, "longest_edge": 80})
    transform = TrainingTransform(processor, (32, 32), num_labels=NUM_SAMPLES)
    processes = {"process_index": process_index, "num_processes": num_processes, "num_workers": num_workers}
    return TrainingStream(rows, transform, **{"shuffle_buffer": 3, **processes, **arguments})


def id_of(labels: torch.Tensor) -> int:
    (found,) = set(labels.unique().tolist()) - {255}
    return found


def read_passes(stream: TrainingStream, num_passes: int = 2) -> list[list[dict]]:
    """What a process without others that load images sees in its first passes."""
    passes = [[] for _ in range(num_passes)]
    for sample in stream:
        epoch = sample[STREAM_POSITION][1]
        if epoch == num_passes:
            return passes
        passes[epoch].append({"id": id_of(sample["labels"]), **sample})


# ------------------------------------------------------------------------------------------------------- who sees what


@pytest.mark.parametrize("num_processes", [1, 2, 5, 7])
def test_processes_see_each_sample_once_in_a_pass(rows, folder, num_processes):
    """With as many shards as processes, with more, and with fewer."""
    expected = Counter(label for label, _ in read_by_tarfile(folder / "shards").values())
    assert len(expected) == NUM_SAMPLES
    streams = [open_stream(rows, index, num_processes) for index in range(num_processes)]
    passes = [read_passes(stream) for stream in streams]
    for of_all in zip(*passes, strict=True):
        assert Counter(sample["id"] for of_process in of_all for sample in of_process) == expected
        assert all(of_all)


def test_order_and_crops_are_others_in_each_pass_and_the_same_in_each_run(rows):
    (first, second), again = read_passes(open_stream(rows)), read_passes(open_stream(rows))
    assert [s["id"] for s in first] not in (sorted(s["id"] for s in first), [s["id"] for s in second])
    for one, other in zip([*first, *second], [*again[0], *again[1]], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("pixel_values", "labels", "sizes"))
    crops = [{sample["id"]: sample["pixel_values"] for sample in samples} for samples in (first, second)]
    assert not any(torch.equal(crops[0][label], crops[1][label]) for label in crops[0])
    other_seed = open_stream(rows)
    other_seed.transform.seed = 1
    assert [s["id"] for s in read_passes(other_seed, 1)[0]] != [s["id"] for s in first]


def test_crops_do_not_depend_on_who_reads(rows):
    alone = {sample["id"]: sample["pixel_values"] for sample in read_passes(open_stream(rows), 1)[0]}
    for num_processes in (2, 7):
        for index in range(num_processes):
            for sample in read_passes(open_stream(rows, index, num_processes), 1)[0]:
                assert torch.equal(sample["pixel_values"], alone[sample["id"]])


def test_what_is_streamed_is_what_is_loaded(folder, rows, tmp_path):
    """Bit by bit what the archive holds, and in the end what training makes of the same rows without streaming."""
    expected = read_by_tarfile(folder / "shards")
    for shard, size in enumerate(SIZES):
        samples = list(rows.read_shard(shard))
        assert len(samples) == size
        for sample in samples:
            assert sample.image["bytes"] == expected[sample.key][1]
    loaded = load(folder, tmp_path, streaming=False).train
    transform = open_stream(rows).transform
    row = list(rows.read_shard(0))[1]
    mine = transform.augment(row.image, row.annotation, 1)
    others = transform.augment(loaded[1]["image"], loaded[1]["annotation"], 1)
    assert id_of(mine["labels"]) == id_of(others["labels"]) == 1
    assert all(torch.equal(mine[name], others[name]) for name in mine)


def test_validation_is_loaded_without_the_files_of_training(folder, tmp_path):
    data = load(folder, tmp_path, splits=("training", "validation"))
    assert [np.unique(row["annotation"]).tolist() for row in data.validation] == [[0], [1]]
    assert data.pixels == {"validation": {0: 40 * 48, 1: 40 * 48}}
    written = [path.name for path in (tmp_path / "cache").rglob("*.arrow")]
    assert written and not [name for name in written if "train" in name]


def test_items_by_turns_and_from_a_buffer():
    assert list(by_turns([iter("abc"), iter(""), iter("de")])) == list("adbec")
    generator = np.random.default_rng(0)
    for size in (1, 4, 100):
        drawn = list(drawn_from_buffer(iter(range(50)), size, generator))
        assert sorted(drawn) == list(range(50))
        # An item cannot come before all but `size` of those in front of it have.
        assert all(item < place + size for place, item in enumerate(drawn))
        assert (drawn == sorted(drawn)) == (size == 1)


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..10}.tar", ["a-08.tar", "a-09.tar", "a-10.tar"]),
        ("{0..1}/{1..2}", ["0/1", "0/2", "1/1", "1/2"]),
        ("{a,b}.tar", ["{a,b}.tar"]),
    ],
)
def test_numbers_in_braces_stand_for_names(pattern, names):
    assert expand_shards(pattern) == names


# ----------------------------------------------------------------------------------------------------------- a new run


@pytest.mark.parametrize("seen", [0, 1, 11, 19, 20, 22, 23, 40])
def test_a_stream_goes_on_behind_each_position(rows, seen):
    """In the first group, between two, in the last one, at the end of a pass and in the second pass."""
    straight = list(islice(open_stream(rows), seen + 12))
    stream = open_stream(rows)
    if seen:
        stream.begin_at([Position(*straight[seen - 1][STREAM_POSITION].tolist())], num_batches=seen)
    for expected, sample in zip(straight[seen:], stream, strict=False):
        assert all(torch.equal(sample[name], expected[name]) for name in expected)


def test_groups_that_are_done_are_not_read_again(rows, monkeypatch):
    read, read_shard = [], RowStream.read_shard
    monkeypatch.setattr(
        RowStream, "read_shard", lambda self, *part: (read.append(part[0]), read_shard(self, *part))[1]
    )
    last = list(islice(open_stream(rows), NUM_SAMPLES))[-1]
    assert sorted(read) == [0, 1, 2, 3, 4]
    of_last_group = read[SHARDS_AT_ONCE:]
    read.clear()
    stream = open_stream(rows)
    position = Position(*last[STREAM_POSITION].tolist())
    assert position.group == 1
    stream.begin_at([position._replace(sample=1)], num_batches=NUM_SAMPLES - 2)
    next(iter(stream))
    assert read == of_last_group


def test_processes_that_load_images_take_turns_and_go_on(rows):
    def load_batches(stream, num_workers):
        return DataLoader(stream, batch_size=2, num_workers=num_workers, generator=torch.Generator())

    stream = open_stream(rows, num_workers=2)
    straight = list(islice(load_batches(stream, 2), 9))
    progress = StreamProgress(stream)
    for batch in straight[:5]:
        progress.note(batch[STREAM_POSITION])
    other = open_stream(rows, num_workers=2)
    other.begin_at(progress.positions, progress.num_batches)
    for batch, expected in zip(load_batches(other, 2), straight[5:], strict=False):
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
    # Both have read a part that the other has not.
    ids = [[id_of(labels) for batch in straight[reader::2] for labels in batch["labels"]] for reader in (0, 1)]
    assert not set(ids[0][:8]) & set(ids[1][:8])


def save_progress(stream: TrainingStream, folder: Path, num_samples: int = 5) -> None:
    progress = StreamProgress(stream)
    for sample in islice(stream, num_samples):
        progress.note(sample[STREAM_POSITION][None])
    progress.save(folder)


def test_another_order_begins_a_new_pass(rows, tmp_path, caplog):
    for index in (0, 1):
        save_progress(open_stream(rows, index, 2), tmp_path)
    same = open_stream(rows, 1, 2)
    StreamProgress(same).load(tmp_path)
    assert (same.positions[0].epoch, same.positions[0].sample, same.num_batches) == (0, 5, 5) and not caplog.text
    other = open_stream(rows, 0, 3, num_workers=2)
    StreamProgress(other).load(tmp_path)
    assert other.positions == [Position(0, 1), Position(1, 1)] and other.num_batches == 0
    assert "another order (processes 2 -> 3, readers of each 1 -> 2): a new pass" in caplog.text


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "JSONDecodeError"),
        ("[]", "it is no state of a stream"),
        ('{"layout": {}, "num_batches": 0, "positions": []}', "no whole numbers"),
        ('{"layout": {}, "num_batches": -1, "positions": [[0, 0, 0, 0]]}', "no whole numbers"),
        ('{"layout": {}, "num_batches": 1, "positions": [[0, 0.5, 0, 0]]}', "no whole numbers"),
        ('{"layout": {}, "num_batches": 1, "positions": [[1, 0, 0, 0]]}', "not numbered"),
        ('{"layout": {}, "num_batches": 1, "positions": [[0, 0, 0, 0, 0]]}', "TypeError"),
    ],
)
def test_a_state_that_is_damaged_is_named(rows, tmp_path, text, said):
    (tmp_path / "stream_state_0.json").write_text(text)
    with pytest.raises(ValueError, match=f"stream_state_0.json cannot be gone on from: .*{said}"):
        StreamProgress(open_stream(rows)).load(tmp_path)


# -------------------------------------------------------------------------------------------------------------- faults


def change_archive(path: Path, changes: dict[str, bytes | None]) -> None:
    """Replace the content of some members, or leave them out."""
    with tarfile.open(path) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive.getmembers()}
    with tarfile.open(path, "w") as archive:
        for name, data in {**members, **changes}.items():
            if data is not None:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def as_png(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def damaged(folder, tmp_path) -> Path:
    """A folder of the same archives, in the last of which something may be changed."""
    return Path(shutil.copytree(folder / "shards", tmp_path / "damaged"))


@pytest.mark.parametrize(
    "changes, said, may_be_left_out",
    [
        ({"20.png": None}, "The mask '20' in {path} is missing: every sample needs both", True),
        ({"20.jpg": None}, "The image '20' in {path} is missing: every sample needs both", True),
        ({"20.jpg": b"\xff\xd8"}, "The image '20' in {path} cannot be read as an image", True),
        ({"20.png": as_png(np.uint8([[99] * 48] * 40))}, "The mask '20' in {path} holds the id 99; with 23 cl", False),
        ({"20.png": as_png(np.zeros((40, 47), np.uint8))}, "The mask '20' in {path} has 47 x 40 pixels", False),
        ({"20.png": as_png(np.zeros((40, 48, 3), np.uint8))}, "The mask '20' in {path} has the mode RGB", False),
    ],
)
def test_samples_that_cannot_be_used_are_named_by_their_keys(
    damaged, folder, tmp_path, caplog, changes, said, may_be_left_out
):
    path = damaged / "train-004.tar"
    change_archive(path, changes)
    rows = load(folder, tmp_path, damaged).train
    said = said.format(path=path)
    with pytest.raises(ValueError) as error:
        read_passes(open_stream(rows), 1)
    assert str(error.value).startswith(said)
    stream = open_stream(rows, leave_out_unreadable=True)
    if not may_be_left_out:
        with pytest.raises(ValueError, match="The mask '20'"):
            read_passes(stream, 1)
        return
    for samples in read_passes(stream):
        assert sorted(sample["id"] for sample in samples) == [*range(20), 21, 22]
    assert f"left out: {said}" in caplog.text


def test_a_stream_of_nothing_that_can_be_used_ends(folder, damaged, tmp_path):
    for path in damaged.glob("train-*.tar"):
        with tarfile.open(path) as archive:
            names = [name for name in archive.getnames() if name.endswith("jpg")]
        change_archive(path, dict.fromkeys(names, b""))
    rows = load(folder, tmp_path, damaged).train
    with pytest.raises(ValueError, match="a reader found no sample that can be used: all were left out"):
        next(iter(open_stream(rows, leave_out_unreadable=True)))


def test_an_archive_without_samples_is_passed_over(folder, damaged, tmp_path):
    change_archive(damaged / "train-004.tar", {f"{key}.{suffix}": None for key in range(19, 23) for suffix in COLUMNS})
    with tarfile.open(damaged / "train-004.tar", "w"):
        pass
    rows = load(folder, tmp_path, damaged).train
    assert sorted(sample["id"] for sample in read_passes(open_stream(rows), 1)[0]) == list(range(19))
    # A reader that is dealt nothing in a pass goes on with the next one.
    assert all(next(iter(open_stream(rows, index, 5))) for index in range(5))


def test_more_readers_than_rows_are_refused(folder, damaged, tmp_path):
    for path in damaged.glob("train-*.tar"):
        if path.name != "train-000.tar":
            path.unlink()
    with tarfile.open(damaged / "train-000.tar") as archive:
        names = archive.getnames()
    change_archive(damaged / "train-000.tar", {name: None for name in names if not name.startswith("0.")})
    rows = load(folder, tmp_path, damaged).train
    with pytest.raises(
        ValueError, match="no rows for one of its readers, in 8 passes: its 1 shards are empty, or hold"
    ):
        for index in range(2):
            next(iter(open_stream(rows, index, 2)))


def test_an_archive_that_was_cut_off_is_named(folder, damaged, tmp_path):
    path = damaged / "train-004.tar"
    path.write_bytes(path.read_bytes()[:5000])
    rows = load(folder, tmp_path, damaged).train
    with pytest.raises(OSError, match="The split 'train' of .* cannot be read in .*train-004.tar, near row 0"):
        read_passes(open_stream(rows), 1)


# ------------------------------------------------------------------------------------------- two processes, one server


class Server(ThreadingHTTPServer):
    """A server of files, that counts what is asked for."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.daemon_threads = True
        self.asked = Counter()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked[self.path] += 1
        super().do_GET()

    def log_message(self, *_):
        """Nothing on stderr."""


# Trains once without a stop, and once more from the middle; notes what each process sees.
DRIVER = """
import json, shutil, sys
from pathlib import Path

from accelerate import PartialState

from training import train
from training.learning.trainer import DenseCLIPTrainer

output, *words = sys.argv[1:]
seen, training_step = [], DenseCLIPTrainer.training_step

def noted(self, model, inputs, *args, **kwargs):
    ids = [sorted(set(labels.unique().tolist()) - {255}) for labels in inputs["labels"]]
    epochs = inputs["stream_position"][:, 1].tolist()
    seen.append([self.state.global_step, ids, epochs])
    return training_step(self, model, inputs, *args, **kwargs)

DenseCLIPTrainer.training_step = noted
for name in ("straight", "resumed"):
    seen.clear()
    state = PartialState()
    if name == "resumed":
        if state.is_main_process:
            shutil.copytree(f"{output}/straight/checkpoint-7", f"{output}/resumed/checkpoint-7")
        state.wait_for_everyone()
    train.main([*words, "--output_dir", f"{output}/{name}", "--resume_from_checkpoint", "last"])
    Path(f"{output}/{name}/seen-{state.process_index}.json").write_text(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def two_processes(folder, tmp_path_factory) -> SimpleNamespace:
    if transformers.__version__.startswith("5.17."):
        pytest.skip("Transformers 5.17 loads an optimizer to 'cpu:0' in several processes, which torch does not know")
    output = tmp_path_factory.mktemp("two_processes")
    words = (
        f"--class_names_file {folder}/classes.txt --image_column jpg --label_column png --streaming true"
        f" {save_tiny_architecture(output, 'shallow vit', drop_path_rate=0.3)} --short_side 64 --long_side 80"
        " --crop_size 64 --max_steps 10 --per_device_train_batch_size 2 --save_strategy steps --save_steps 7"
        " --learning_rate 1e-2 --dataloader_num_workers 2 --shuffle_buffer 3 --preprocessing_num_workers 1"
        " --use_cpu true --report_to none --disable_tqdm true --num_sample_images 0"
        " --ddp_find_unused_parameters false"
    ).split()
    (output / "driver.py").write_text(DRIVER)
    python = write_scripts(output / "bin") / "python"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(output / "driver.py")]
    with Server(folder / "shards") as server:
        address = f"http://127.0.0.1:{server.server_port}"
        splits = ["--train_split", f"{address}/train-{{000..004}}.tar", "--validation_split"]
        source = ["--dataset_name", "webdataset", *splits, f"{address}/validation-000.tar"]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "1",
            "PYTHON_EXEC": str(python),
            "PYTHONPATH": str(ROOT),
            "HF_HOME": str(output / "home"),
            "HF_HUB_OFFLINE": "0",
            "no_proxy": "127.0.0.1",
        }
        command = [*warm_python(), *launcher, str(output), *source, *words]
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        server.shutdown()
    assert result.returncode == 0, result.stdout + result.stderr
    seen = {
        name: [json.loads((output / name / f"seen-{index}.json").read_text()) for index in (0, 1)]
        for name in ("straight", "resumed")
    }
    return SimpleNamespace(output=output, stdout=result.stdout, seen=seen, asked=server.asked)


def test_two_processes_see_each_sample_of_a_server_once_in_a_pass(two_processes, folder):
    expected = {label for label, _ in read_by_tarfile(folder / "shards").values()}
    counts = Counter()
    for of_process in two_processes.seen["straight"]:
        assert len(of_process) == 10
        counts.update((epochs[i], *ids[i]) for _, ids, epochs in of_process for i in range(len(ids)))
    assert max(counts.values()) == 1  # none twice in a pass
    # Forty samples are more than a pass has, and all that every reader has left behind are whole.
    assert {label for epoch, label in counts if epoch == 0} == expected
    assert {epoch for epoch, _ in counts} >= {0, 1}
    assert "streamed: the split 'http://127.0.0.1:" in two_processes.stdout
    assert "5 shards for 4 readers" in two_processes.stdout


def test_two_processes_go_on_with_the_next_sample_and_end_with_the_same_weights(two_processes):
    for straight, resumed in zip(*two_processes.seen.values(), strict=True):
        assert resumed == [entry for entry in straight if entry[0] >= 7] and len(resumed) == 3
    straight, resumed = (load_file(two_processes.output / name / "model.safetensors") for name in two_processes.seen)
    first = load_file(two_processes.output / "straight" / "checkpoint-7" / "model.safetensors")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in straight.items())
    assert not all(torch.equal(tensor, first[name]) for name, tensor in straight.items())
    logs = json.loads((two_processes.output / "resumed" / "trainer_state.json").read_text())
    assert 1 <= logs["epoch"] < 3 and logs["num_train_epochs"] == 1
