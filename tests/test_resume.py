"""A run that is killed and gone on from ends with the weights of a run that was never stopped, to the last bit."""

import json
import logging
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import save_tiny_architecture, save_tiny_dataset
from training import train
from training.checkpoints import check_resumable, checkpoint_to_resume


ROOT = Path(__file__).resolve().parents[1]
# Where the run is killed: before which forward pass (two make a step), while which file of a checkpoint is due, or
# when all is trained and half of a table of results is written. Steps 2, 4, 6 and the last, 7, are saved; an epoch has
# 3 steps.
KILLS = {
    "before the first checkpoint": {"forward": 3},
    "in the middle of an accumulation": {"forward": 6},
    "after the end of an epoch": {"forward": 7},
    "right after a checkpoint": {"forward": 9},
    "while a checkpoint is written": {"saving": 4},
    "in the last step": {"forward": 14},
    "behind the last step": {"reporting": True},
}
MOST_KILLS = 4

# One process imports everything, then each run is a fork of it.
DRIVER = """
import json, os, random, signal, sys
from training import train
from training.trainer import DenseCLIPTrainer

words, output, kills, seed, most_kills = map(json.loads, sys.argv[1:])

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def arm(forward=None, saving=None, reporting=False):
    state = {"forward": 0}
    training_step, save_rng_state = DenseCLIPTrainer.training_step, DenseCLIPTrainer._save_rng_state
    save_metrics = DenseCLIPTrainer.save_metrics

    def counted(self, *args, **kwargs):
        state["forward"] += 1
        if state["forward"] == forward:
            kill()
        return training_step(self, *args, **kwargs)

    def interrupted(self, output_dir):
        if self.state.global_step == saving:
            kill()
        return save_rng_state(self, output_dir)

    def halved(self, *args, **kwargs):
        if reporting:
            with open(f"{self.args.output_dir}/all_results.json", "w") as file:
                file.write('{"eval_')
            kill()
        save_metrics(self, *args, **kwargs)

    DenseCLIPTrainer.training_step, DenseCLIPTrainer._save_rng_state = counted, interrupted
    DenseCLIPTrainer.save_metrics = halved

def count_touches(kill_at=None):
    # How often the run opens, makes or removes a file of its own; kills it before the `kill_at`-th time.
    touches = [0]

    def hook(event, args):
        removes = event in ("os.remove", "os.rmdir")  # of a tree by names alone
        if removes or event in ("open", "os.mkdir", "os.rename") and output in str(args[0]):
            touches[0] += 1
            if touches[0] == kill_at:
                kill()

    sys.addaudithook(hook)
    return touches

def fork(name, *extra, kill_at=None, kill_at_touch=None):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        if kill_at is not None:
            arm(**kill_at)
        touches = count_touches(kill_at_touch)
        train.main([*words, "--output_dir", f"{output}/{name}", *extra])
        print("TOUCHES", touches[0])
        sys.stdout.flush()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

codes = {"straight": [fork("straight")]}
for name, kill_at in kills.items():
    codes[name] = [fork(name, kill_at=kill_at), fork(name, "--resume_from_checkpoint", "last")]
# Again and again, until a run comes to its end: most often while it saves, which is when files are touched. One
# checkpoint is kept, so that none but the last can be gone on from.
numbers, moments, results = random.Random(seed), [], [-9]
while results[-1] == -9:
    moments.append(numbers.randint(1, 150) if len(moments) < most_kills else None)
    last = ["--save_total_limit", "1", "--resume_from_checkpoint", "last"]
    results.append(fork("again and again", *last, kill_at_touch=moments[-1]))
codes["again and again"] = results[1:]
print("CODES", json.dumps([codes, moments]))
"""


def write_run(folder: Path) -> list[str]:
    """Six pictures, their masks and an architecture; the words of a training on them."""
    save_tiny_dataset(folder, training=6, validation=2)
    return write_words(folder)


def write_words(folder: Path) -> list[str]:
    # Everything that draws random numbers: stochastic depth, dropout, crops.
    architecture = save_tiny_architecture(folder, "vit", drop_path_rate=0.3)
    return (
        f"--data_dir {folder} {architecture} --short_side 64"
        " --long_side 128 --crop_size 64 --max_steps 7 --per_device_train_batch_size 1 --gradient_accumulation_steps 2"
        " --save_strategy steps --save_steps 2 --eval_strategy steps --eval_steps 3 --learning_rate 1e-2"
        " --ema_decay 0.7 --lr_schedule published_poly --warmup_steps 2 --use_cpu true --report_to none"
        " --disable_tqdm true --num_sample_images 0 --logging_steps 1"
    ).split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    words = write_run(folder)
    output = folder / "runs"
    seed = random.SystemRandom().randrange(2**32)
    settings = [json.dumps(value) for value in (words, str(output), KILLS, seed, MOST_KILLS)]
    result = subprocess.run([sys.executable, "-c", DRIVER, *settings], cwd=ROOT, capture_output=True, text=True)
    assert "CODES" in result.stdout, result.stdout + result.stderr
    codes, moments = json.loads(result.stdout.split("CODES")[1])
    print(f"seed {seed}: killed before touches {moments} of files")  # shown where a test fails
    *killed, ended = codes.pop("again and again")
    assert ended == 0 and set(killed) == {-9}, result.stderr
    assert codes == {"straight": [0], **{name: [-9, 0] for name in KILLS}}, result.stderr
    return output, result.stderr


@pytest.mark.parametrize("name", [*KILLS, "again and again"])
def test_killed_and_resumed_run_ends_like_a_straight_one(runs, name):
    output, _ = runs
    straight, resumed = (load_file(output / run / "model.safetensors") for run in ("straight", name))
    assert straight.keys() == resumed.keys()
    for tensor_name, tensor in straight.items():
        assert torch.equal(tensor, resumed[tensor_name]), tensor_name
    # The averaged weights are what is saved; those that were trained are in the last checkpoint.
    last = [load_file(output / run / "checkpoint-7" / "model.safetensors") for run in ("straight", name)]
    assert all(torch.equal(tensor, last[1][tensor_name]) for tensor_name, tensor in last[0].items())
    assert not torch.equal(straight["prompts.contexts"], last[0]["prompts.contexts"])
    scores = [json.loads((output / run / "metrics.json").read_text())["mean_iou"] for run in ("straight", name)]
    assert scores[0] == scores[1]


def test_half_written_checkpoint_is_passed_over_and_named(runs):
    output, stderr = runs
    assert "checkpoint-4 was not written to its end" in stderr
    # Gone on from step 2, it was written again.
    assert checkpoint_to_resume(output / "while a checkpoint is written", "last").endswith("checkpoint-7")


def make_checkpoint(folder: Path, step: int, state: str | None) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir()
    if state is not None:
        (checkpoint / "trainer_state.json").write_text(state)
    return checkpoint


def test_last_checkpoint_is_the_newest_complete_one(tmp_path):
    assert checkpoint_to_resume(tmp_path, "last") is None
    make_checkpoint(tmp_path, 900, "{}")
    newest = make_checkpoint(tmp_path, 1000, "{}")  # not by the order of letters
    make_checkpoint(tmp_path, 1100, None)
    make_checkpoint(tmp_path, 1200, '{"epoch": 1.')
    assert checkpoint_to_resume(tmp_path, "last") == str(newest)
    assert checkpoint_to_resume(tmp_path, str(tmp_path / "checkpoint-900")).endswith("-900")
    with pytest.raises(ValueError, match="checkpoint-1100 is no complete checkpoint"):
        checkpoint_to_resume(tmp_path, str(tmp_path / "checkpoint-1100"))


def test_new_run_does_not_mix_with_an_old_one(tmp_path):
    make_checkpoint(tmp_path, 10, "{}")
    with pytest.raises(ValueError, match="checkpoint-10 of an earlier run.*--resume_from_checkpoint last"):
        checkpoint_to_resume(tmp_path, None)
    assert checkpoint_to_resume(tmp_path / "other", None) is None


STATE = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


@pytest.mark.parametrize("lost", [*([name] for name in STATE), STATE], ids=[*STATE, "save_only_model"])
def test_checkpoint_without_a_part_of_its_state_is_refused(runs, tmp_path, lost):
    whole = runs[0] / "straight" / "checkpoint-6"
    check_resumable(whole, 1)
    checkpoint = Path(shutil.copytree(whole, tmp_path / "checkpoint-6"))
    for name in lost:
        (checkpoint / name).unlink()
    with pytest.raises(ValueError, match="checkpoint-6 lacks .*--save_only_model.*start anew") as error:
        check_resumable(checkpoint, 1)
    assert [name in str(error.value) for name in STATE] == [name in lost for name in STATE]


@pytest.mark.parametrize("num_processes, found", [(1, ["_0", "_1"]), (2, [""]), (2, ["_0"]), (3, ["_0", "_1"])])
def test_random_numbers_of_other_processes_are_warned_of(runs, tmp_path, caplog, num_processes, found):
    checkpoint = Path(shutil.copytree(runs[0] / "straight" / "checkpoint-6", tmp_path / "checkpoint-6"))
    numbers = (checkpoint / "rng_state.pth").rename(checkpoint / "numbers")
    for suffix in found:
        shutil.copy(numbers, checkpoint / f"rng_state{suffix}.pth")
    logging.getLogger("training.checkpoints").addHandler(caplog.handler)
    try:
        check_resumable(checkpoint, num_processes)
    finally:
        logging.getLogger("training.checkpoints").removeHandler(caplog.handler)
    assert f"where a run of {num_processes} process" in caplog.text and "other random numbers" in caplog.text


def test_trainer_refuses_such_checkpoints_before_it_trains(runs, tmp_path):
    """Also one of averaged weights without their averaging, and the other way round."""
    folder = runs[0].parent
    words = [*write_words(folder), "--output_dir", str(tmp_path / "new")]
    checkpoint = Path(shutil.copytree(runs[0] / "straight" / "checkpoint-6", tmp_path / "checkpoint-6"))
    without_average = [word for word in words if word not in ("--ema_decay", "0.7")]
    with pytest.raises(ValueError, match="comes from a run with --ema_decay"):
        train.main([*without_average, "--resume_from_checkpoint", str(checkpoint)])
    (checkpoint / "averaged_weights.safetensors").unlink()
    with pytest.raises(ValueError, match="comes from a run without --ema_decay"):
        train.main([*words, "--resume_from_checkpoint", str(checkpoint)])
    (checkpoint / "scheduler.pt").unlink()
    with pytest.raises(ValueError, match=r"that of the learning rate schedule \(scheduler.pt\)\. "):
        train.main([*words, "--resume_from_checkpoint", str(checkpoint)])
    assert not list((tmp_path / "new").glob("checkpoint-*"))
