# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Two processes that write one folder, and processes that die: what is refused, said and kept."""

import gc
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader, get_worker_info

from modeling_denseclip import DenseCLIPForSemanticSegmentation
from modeling_denseclip.tools.command import main as denseclip
from modeling_denseclip.tools.files.results import LOCK, ResultLines
from tests.test_pipeline import save_model
from tests.test_resume import ROOT, write_run
from tests.tiny import draw_picture, make_tiny_tokenizer
from tests.warm import WarmProcess, warm_python
from training import evaluate, inspect_dataset, train
from training.data import findings, inspection
from training.data.findings import UnreadableFileError
from training.data.processes import quiet_interrupts
from training.data.segmentation_folder import SegmentationFolder
from training.data.transforms import EvaluationTransform, TrainingTransform
from training.learning import checkpoints
from training.learning.checkpoints import alone_in, checkpoint_to_resume


LIMIT = ["--max_steps", "4", "--save_steps", "2", "--eval_strategy", "no"]

# Two processes at a time do the same, both forks of one that imports everything. The second training does not wait.
DRIVER = """
import json, os, sys
from modeling_denseclip import DenseCLIPForSemanticSegmentation
from modeling_denseclip.tools.command import main as denseclip
from training import train
from training.learning import checkpoints

words, folder = map(json.loads, sys.argv[1:])
checkpoints.LOCK_SECONDS = 0

def twice(work):
    children = []
    for _ in range(2):
        sys.stdout.flush()
        children.append(os.fork())
        if children[-1] == 0:
            try:
                code = work()
            except ValueError as error:
                print("REFUSED", error)
                code = 1
            finally:
                sys.stdout.flush()
                os._exit(code)
    return sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)

def training():
    train.main([*words, "--output_dir", f"{folder}/run"])
    return 0

def predicting():
    out = ["--model", f"{folder}/model", "--out", f"{folder}/out"]
    return denseclip(["predict", f"{folder}/photos", *out])

def saving():
    model = DenseCLIPForSemanticSegmentation.from_pretrained(f"{folder}/model")
    for _ in range(8):
        model.save_pretrained(f"{folder}/saved", max_shard_size="100KB")
    return 0

print("CODES", json.dumps({work.__name__: twice(work) for work in (training, predicting, saving)}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def words(folder):
    """Of a training of four steps, which saves the second and the last."""
    return [*write_run(folder / "data"), *LIMIT]


@pytest.fixture(scope="module")
def straight(words, folder):
    """The weights of a training that nothing happens to."""
    train.main([*words, "--output_dir", f"{folder}/straight"])
    return load_file(folder / "straight" / "model.safetensors")


@pytest.fixture(scope="module")
def photos(folder):
    (folder / "photos").mkdir()
    for index in range(6):
        draw_picture(120, 90, index).save(folder / "photos" / f"{index}.png")
    return folder / "photos"


@pytest.fixture(scope="module")
def model_folder(folder):
    save_model("resnet", folder / "model")
    make_tiny_tokenizer().save_pretrained(folder / "model")
    return folder / "model"


def assert_same_weights(path: Path, expected: dict[str, torch.Tensor]):
    found = load_file(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


# --- Two at once -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(words, folder, photos, model_folder):
    """The exit codes of each pair, and what both wrote."""
    command = [*warm_python(), "-c", DRIVER, json.dumps(words), json.dumps(str(folder))]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "CODES" in result.stdout, result.stdout + result.stderr
    return json.loads(result.stdout.split("CODES")[1]), result.stdout


def test_the_second_training_in_a_folder_is_refused(pairs, folder, straight):
    codes, printed = pairs
    assert codes["training"] == [0, 1]
    assert f"REFUSED Another training writes into {folder}/run" in printed
    assert_same_weights(folder / "run" / "model.safetensors", straight)
    # The lock is no reason to refuse the next one, which has nothing left to do.
    assert checkpoint_to_resume(folder / "run", "last") == str(folder / "run" / "checkpoint-4")


def test_two_predictions_into_a_folder_leave_whole_files(pairs, folder, photos, model_folder):
    codes, _ = pairs
    # The second is refused, unless the first has ended when it comes to write.
    assert codes["predicting"] in ([0, 0], [0, 2])
    alone = folder / "alone"
    assert denseclip(["predict", str(photos), "--model", str(model_folder), "--out", str(alone)]) == 0
    files = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    assert files == {path.name: path.read_bytes() for path in alone.iterdir()}


def test_a_prediction_into_the_folder_of_another_is_refused(folder, photos, model_folder, capsys):
    words = ["predict", str(photos), "--model", str(model_folder), "--out", str(folder / "taken")]
    with ResultLines(folder / "taken", {}).alone():
        assert denseclip(words) == 2
        assert f"Another run writes into {folder / 'taken'}" in capsys.readouterr().err
        assert [path.name for path in (folder / "taken").iterdir()] == [LOCK]
    assert denseclip(words) == 0
    assert not (folder / "taken" / LOCK).exists()


def test_two_that_save_a_model_leave_a_whole_one(pairs, folder, model_folder):
    codes, _ = pairs
    assert codes["saving"] == [0, 0]
    expected = DenseCLIPForSemanticSegmentation.from_pretrained(model_folder).state_dict()
    saved, loading = DenseCLIPForSemanticSegmentation.from_pretrained(folder / "saved", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in saved.state_dict().items())
    assert not [path for path in (folder / "saved").iterdir() if path.name.startswith((".", "tmp"))]


def test_a_killed_process_leaves_no_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LOCK_SECONDS", 0)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with alone_in(tmp_path):
            os.write(write, b"locked")
            signal.pause()
    assert os.read(read, 6) == b"locked"
    with pytest.raises(ValueError, match="Another training writes into"), alone_in(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for _ in range(2):
        with alone_in(tmp_path):
            pass


# --- Processes that die ----------------------------------------------------------------------------------------------


def die_once(monkeypatch, transform: type, name: str, marker: Path):
    """Let the next process that loads images end itself in this method, as one that the system ends."""
    method = getattr(transform, name)

    def die(self, *args):
        if get_worker_info() is not None and not marker.exists():
            marker.touch()
            os._exit(9)
        return method(self, *args)

    monkeypatch.setattr(transform, name, die)


def test_a_training_whose_worker_died_goes_on_from_its_last_checkpoint(
    words, folder, straight, tmp_path, monkeypatch, capsys
):
    words = [*words, "--output_dir", f"{folder}/died", "--dataloader_num_workers", "2"]
    train_steps, marker = train.DenseCLIPTrainer.training_step, tmp_path / "died"
    marker.touch()

    def arm_in_second_epoch(self, *args, **kwargs):
        if self.state.global_step == 2 and not list(tmp_path.glob("armed")):
            (tmp_path / "armed").touch()
            marker.unlink()
        return train_steps(self, *args, **kwargs)

    monkeypatch.setattr(train.DenseCLIPTrainer, "training_step", arm_in_second_epoch)
    die_once(monkeypatch, TrainingTransform, "augment", marker)
    with pytest.raises(ChildProcessError) as raised:
        train.main(words)
    message = str(raised.value)
    assert "A process that loads images died (DataLoader worker" in message and "--dataloader_num_workers" in message
    assert f"The last checkpoint is in {folder}/died: --resume_from_checkpoint last." in message
    train.main([*words, "--resume_from_checkpoint", "last"])
    assert_same_weights(folder / "died" / "model.safetensors", straight)


def test_a_checkpoint_that_is_written_over_is_not_whole_meanwhile(words, straight, folder, monkeypatch):
    """The run went on from an earlier one than the last, and ends while it writes that one anew."""
    run = shutil.copytree(folder / "straight", folder / "written over")
    assert checkpoint_to_resume(run, "last").endswith("checkpoint-4")

    def interrupt(self, output_dir):
        raise KeyboardInterrupt

    monkeypatch.setattr(train.DenseCLIPTrainer, "_save_rng_state", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train.main([*words, "--output_dir", str(run), "--resume_from_checkpoint", f"{run}/checkpoint-2"])
    assert checkpoint_to_resume(run, "last").endswith("checkpoint-2")


def test_an_evaluation_whose_worker_died_says_so_and_writes_nothing(straight, folder, tmp_path, monkeypatch):
    words = [f"{folder}/straight", "--data_dir", f"{folder}/data", "--output_dir", f"{tmp_path}/out"]
    die_once(monkeypatch, EvaluationTransform, "__call__", tmp_path / "died")
    with pytest.raises(
        ChildProcessError, match="A process that loads images died.*--dataloader_num_workers"
    ) as raised:
        evaluate.main([*words, "--use_cpu", "true", "--dataloader_num_workers", "2"])
    assert "checkpoint" not in str(raised.value)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_check_whose_worker_died_says_so_and_the_next_one_does_it_all(words, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "get_context", lambda name: multiprocessing.get_context("fork"))
    decode_mask, marker = findings.decode_mask, tmp_path / "died"

    def die(*args, **kwargs):
        if not marker.exists():
            marker.touch()
            os._exit(9)
        return decode_mask(*args, **kwargs)

    monkeypatch.setattr(findings, "decode_mask", die)
    data = SegmentationFolder(folder / "data", "training", 5, num_workers=2, cache_dir=tmp_path / "cache")
    with pytest.raises(ChildProcessError, match="checks images and masks died.*--preprocessing_num_workers"):
        data.load()
    assert len(data.load()) == 6


def die_in_inspection(pair, **kwargs):
    os._exit(9)


def test_an_inspection_whose_worker_died_says_so(words, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "get_context", lambda name: multiprocessing.get_context("fork"))
    monkeypatch.setattr(inspection, "inspect_pair", die_in_inspection)
    with pytest.raises(ChildProcessError, match="reads images and masks died.*--num_workers"):
        inspect_dataset.main([f"{folder}/data", "--num_workers", "2", "--output_dir", f"{tmp_path}/report"])
    assert not (tmp_path / "report").exists()


# --- Errors and signals that reach several processes -----------------------------------------------------------------


def meet_in_worker(monkeypatch, error: Exception):
    augment = TrainingTransform.augment

    def meet(self, *args):
        if get_worker_info() is not None:
            raise error
        return augment(self, *args)

    monkeypatch.setattr(TrainingTransform, "augment", meet)


def test_what_a_worker_met_is_said_without_its_traceback(words, folder, monkeypatch):
    meet_in_worker(monkeypatch, UnreadableFileError("The image a.png is strange.\nValueError: replace it."))
    with pytest.raises(UnreadableFileError) as raised:
        train.main([*words, "--output_dir", f"{folder}/met", "--dataloader_num_workers", "1"])
    assert str(raised.value) == "The image a.png is strange.\nValueError: replace it."


def test_a_fault_of_our_own_in_a_worker_keeps_its_traceback(words, folder, monkeypatch):
    meet_in_worker(monkeypatch, TypeError("not ours to explain"))
    with pytest.raises(TypeError, match="Traceback"):
        train.main([*words, "--output_dir", f"{folder}/own", "--dataloader_num_workers", "1"])


# The whole group of processes gets the signal, as from a terminal or from SLURM: when the check has begun, when a
# checkpoint is written, or when all are at work.
MOMENTS = {
    "check": lambda run, log: "Generating" in log.read_text(),
    "saving": lambda run, log: any(run.glob("checkpoint-*/model.safetensors")),
    "training": lambda run, log: any(run.glob("checkpoint-*/trainer_state.json")),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_all_processes_without_tracebacks(words, straight, tmp_path, moment, number):
    run, log = tmp_path / "run", tmp_path / "log"
    helpers = ["--dataloader_num_workers", "2", "--preprocessing_num_workers", "2", "--max_steps", "3000"]
    command = ["-m", "training.train", *words, *helpers, "--output_dir", str(run)]
    environment = dict(os.environ)
    if moment != "saving":  # where the data are as `straight` has checked them
        environment["HF_DATASETS_CACHE"] = str(tmp_path / "cache")
    with open(log, "w") as output:
        process = WarmProcess(command, str(ROOT), environment, [0, output.fileno(), output.fileno()])
    while process.poll() is None and not MOMENTS[moment](run, log):
        time.sleep(0.05)
    os.killpg(process.pid, number)
    status, said = process.wait(), log.read_text()
    assert "Traceback" not in said and "Exception ignored" not in said, said
    last = checkpoint_to_resume(run, "last")
    if number == signal.SIGTERM:
        assert status == -number
        return
    assert status == 130, said
    (line,) = [line for line in said.splitlines() if line.startswith("Interrupted. ")]
    assert line.endswith(f"The last checkpoint is {last}: go on from it with --resume_from_checkpoint last.") or (
        last is None and line.endswith("so nothing was saved to go on from.")
    )
    with pytest.raises(ProcessLookupError):  # nobody is left of the group, once the system has noticed their ends
        for _ in range(600):
            os.killpg(process.pid, 0)
            time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="a process is asked for its children")
def test_an_interrupted_inspection_ends_without_the_tracebacks_of_processes_that_still_import(words, tmp_path):
    command = ["-m", "training.inspect_dataset", words[words.index("--data_dir") + 1], "--num_workers", "2"]
    with open(tmp_path / "output", "w") as output, open(tmp_path / "log", "w") as log:
        process = WarmProcess(command, str(ROOT), dict(os.environ), [0, output.fileno(), log.fileno()])
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and len(children.read_text().split()) < 2:
        time.sleep(0.01)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert (process.wait(), (tmp_path / "log").read_text().strip()) == (130, "Interrupted.")


def test_an_interrupt_that_python_loses_comes_again():
    """Where an object ends, nothing can be raised: Python prints what was, and goes on."""
    said = []

    class Ending:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)
            sum(range(1000))

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where tests run in the background
    with pytest.raises(KeyboardInterrupt), quiet_interrupts(lambda: said.append("asked") or "word"):
        ending = Ending()
        del ending
        for _ in range(500):  # five seconds, of which it takes a fraction
            time.sleep(0.01)
    assert said == ["asked"]


def test_processes_that_load_images_end_before_the_garbage_collector_looks_for_them(monkeypatch):
    """It closes the queues by which they hear of it, and torch waits in vain for each."""
    alive, collect = [], gc.collect
    with pytest.raises(KeyboardInterrupt), quiet_interrupts(str):
        iterator = iter(DataLoader(range(8), num_workers=1))
        next(iterator)
        workers = iterator._workers
        monkeypatch.setattr(gc, "collect", lambda: alive.append([w.is_alive() for w in workers]) or collect())
        signal.raise_signal(signal.SIGINT)
    assert alive == [[False]]


def test_ctrl_c_while_all_is_imported_has_no_traceback():
    code = "import sys; sys.argv = ['-m']; import training; raise KeyboardInterrupt"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (130, "")


@pytest.mark.parametrize("number, ends", [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_a_process_that_waits_for_a_lock_ends_by_sigterm_alone(number, ends):
    """As those of a pool do, which is ended by SIGTERM, while the training handles the signals in Python."""
    context = multiprocessing.get_context("fork")
    lock = context.Lock()
    with lock, quiet_interrupts(str):
        process = context.Process(target=lock.acquire)
        process.start()
        time.sleep(0.5)
        os.kill(process.pid, number)
        process.join(timeout=10 if ends else 0.5)
        assert process.exitcode == (-number if ends else None)
    process.join(timeout=60)
    assert process.exitcode is not None
