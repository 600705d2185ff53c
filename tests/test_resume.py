"""A run that is killed and gone on from ends with the weights of a run that was never stopped, to the last bit."""

import json
import logging
import math
import random
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.test_security import build_trainer
from tests.tiny import save_tiny_architecture, save_tiny_dataset, tiny_model
from tests.warm import warm_python
from training import train
from training.learning.averaging import AVERAGED_WEIGHTS_NAME
from training.learning.checkpoints import checkpoint_to_resume
from training.learning.resuming import check_resumable, check_weights


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
    architecture = save_tiny_architecture(folder, "shallow vit", drop_path_rate=0.3)
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
    result = subprocess.run([*warm_python(), "-c", DRIVER, *settings], cwd=ROOT, capture_output=True, text=True)
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
    logging.getLogger("training.learning.resuming").addHandler(caplog.handler)
    try:
        check_resumable(checkpoint, num_processes)
    finally:
        logging.getLogger("training.learning.resuming").removeHandler(caplog.handler)
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


# --- Files that were tampered with, or come from elsewhere -----------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """The checkpoint of two steps of a small model."""
    folder = tmp_path_factory.mktemp("stopped")
    build_trainer(folder, max_steps=2).train()
    return folder / "checkpoint-2"


def edit_tensors(change):
    """What lets `change` lay hands on what `optimizer.pt`, or another file of torch, holds."""

    def edit(path: Path) -> None:
        saved = torch.load(path, weights_only=False)
        change(saved)
        torch.save(saved, path)

    return edit


def edit_moments(**moments):
    return edit_tensors(lambda saved: saved["state"][5].update(moments))


def edit_options(**options):
    return edit_tensors(lambda saved: saved["param_groups"][1].update(options))


def edit_fields(**fields):
    return edit_tensors(lambda saved: saved.update(fields))


def edit_state(**fields):
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def deflate(path: Path) -> None:
    """Write a zip archive again, compressed, as a small file of many zeros would be."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_weights(change):
    def edit(path: Path) -> None:
        weights = load_file(path)
        save_file(change(weights), path)

    return edit


TAMPERED = [
    ("optimizer.pt", lambda path: path.write_bytes(b""), "no whole file of torch"),
    ("optimizer.pt", lambda path: path.write_bytes(path.read_bytes()[:-100]), "no whole file of torch"),
    ("optimizer.pt", flip, "checksum"),
    ("optimizer.pt", deflate, "compressed"),
    ("optimizer.pt", lambda path: torch.save({"state": {}}, path), "no state of an optimizer"),
    ("optimizer.pt", edit_tensors(lambda saved: saved["state"].clear()), "the state of no parameter, after 2 steps"),
    ("optimizer.pt", edit_tensors(lambda saved: saved["state"].update({999: saved["state"][0]})), "other parameters"),
    ("optimizer.pt", edit_tensors(lambda saved: saved["state"][5].pop("exp_avg")), "has step, exp_avg_sq, where"),
    ("optimizer.pt", edit_tensors(lambda saved: saved["param_groups"].pop()), "groups of parameters are"),
    ("optimizer.pt", edit_tensors(lambda saved: saved["param_groups"][0]["params"].reverse()), "in another order"),
    ("optimizer.pt", edit_moments(exp_avg=torch.zeros(3)), "exp_avg .* float32 of shape \\(3,\\), where"),
    ("optimizer.pt", edit_moments(exp_avg_sq=torch.zeros(1)), "exp_avg_sq .* where this run has"),
    ("optimizer.pt", edit_moments(exp_avg=torch.zeros(4, dtype=torch.int64)), "is int64 of shape"),
    ("optimizer.pt", edit_moments(exp_avg=torch.zeros(1).expand(4)), "no tensor of plain values"),
    ("optimizer.pt", edit_moments(exp_avg=torch.full((4,), math.nan)), "no finite number"),
    ("optimizer.pt", edit_moments(exp_avg_sq=torch.full((4,), -1.0)), "holds a negative number"),
    ("optimizer.pt", edit_moments(step=torch.tensor(-1.0)), "after -1.0 steps, where the run was after 2"),
    ("optimizer.pt", edit_moments(step="2"), "step in .* is '2'"),
    ("optimizer.pt", edit_options(lr=-1.0), "the learning rate of the group 'decay' is -1.0"),
    ("optimizer.pt", edit_options(betas=(0.9, 2.0)), "betas of the group 'decay' is \\(0.9, 2.0\\), that of this run"),
    ("optimizer.pt", edit_options(maximize=True), "maximize of the group 'decay' is True"),
    ("optimizer.pt", edit_options(initial_lr=1.0), "the learning rate .* is 1.0, that of this run 5e-05"),
    ("scheduler.pt", lambda path: torch.save([1], path), "no state of a learning rate schedule"),
    ("scheduler.pt", edit_fields(last_epoch=7), "after 7 steps, and trainer_state.json after 2"),
    ("scheduler.pt", edit_fields(last_epoch=-1), "after -1 steps"),
    ("scheduler.pt", edit_fields(step=3), "step is 3, where the schedule of this run has"),
    ("scheduler.pt", edit_fields(base_lrs=[1.0]), "base_lrs is"),
    ("scheduler.pt", edit_fields(base_lrs=[1.0, 1.0, 1.0]), "learning rates are .*, those of this run"),
    ("rng_state.pth", edit_tensors(lambda saved: saved.pop("numpy")), "lacks the random numbers"),
    ("rng_state.pth", edit_fields(python=(3, (1, 2), None)), "cannot be gone on from"),
    ("rng_state.pth", edit_fields(cpu=torch.zeros(3, dtype=torch.uint8)), "cannot be gone on from"),
    ("rng_state.pth", edit_fields(numpy=("MT19937", np.zeros(624, np.uint32), 700, 0, 0.0)), "are at 700 of 624"),
    ("trainer_state.json", lambda path: path.write_text("[]"), "not the fields of a run"),
    ("trainer_state.json", edit_state(global_step=-2), "global_step is -2"),
    ("trainer_state.json", edit_state(global_step=2.5), "global_step is 2.5"),
    ("trainer_state.json", edit_state(global_step=10**9), "after 2 steps, and trainer_state.json after 1000000000"),
    ("trainer_state.json", edit_state(epoch=1e300), "epoch is 1e\\+300 after 2 steps"),
    ("trainer_state.json", edit_state(log_history={"loss": 1}), "log_history is"),
    ("trainer_state.json", edit_state(logging_steps=0), "logging_steps is 0"),
    ("trainer_state.json", edit_state(train_batch_size="all"), "train_batch_size is 'all'"),
    ("trainer_state.json", edit_state(best_model_checkpoint="/"), "no checkpoint of this run"),
    ("trainer_state.json", edit_state(colour="red"), "a field 'colour'"),
    ("model.safetensors", edit_weights(lambda weights: {"x": torch.zeros(1)}), "a tensor 'x', of which this run"),
    ("model.safetensors", edit_weights(lambda weights: dict(list(weights.items())[1:])), "it lacks"),
    (
        "model.safetensors",
        edit_weights(lambda weights: {n: t[None] for n, t in weights.items()}),
        "of shape \\(1, .*where this run has",
    ),
    ("model.safetensors", edit_weights(lambda weights: {n: t.long() for n, t in weights.items()}), "is int64"),
    ("model.safetensors", edit_weights(lambda weights: {n: t * math.nan for n, t in weights.items()}), "finite"),
    (
        AVERAGED_WEIGHTS_NAME,  # `copy_` would spread a single number over all
        edit_weights(lambda weights: {n: t.flatten()[:1] if t.ndim else t for n, t in weights.items()}),
        "where this run has",
    ),
    (AVERAGED_WEIGHTS_NAME, edit_weights(lambda weights: dict(list(weights.items())[1:])), "it lacks"),
    ("scaler.pt", lambda path: torch.save({"scale": -1.0}, path), "a scale of float16 has the numbers scale"),
]


@pytest.mark.parametrize("name, tamper, said", TAMPERED, ids=[f"{name} {said[:20]}" for name, _, said in TAMPERED])
def test_what_was_tampered_with_is_refused_by_name(stopped, tmp_path, name, tamper, said):
    checkpoint = Path(shutil.copytree(stopped, tmp_path / "checkpoint-2"))
    tamper(checkpoint / name)
    trainer = build_trainer(tmp_path / "run", max_steps=3)
    before = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
    with pytest.raises(ValueError, match=said) as error:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    message = str(error.value)
    assert f"{checkpoint}/{name}" in message or name == "trainer_state.json" and str(checkpoint) in message
    assert "\n" not in message and "Name another checkpoint" in message
    if name == "model.safetensors":
        assert all(torch.equal(tensor, before[key]) for key, tensor in trainer.model.state_dict().items())
    assert not list((tmp_path / "run").glob("checkpoint-*"))


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"optim": "adafactor"}, "eps of the group"),
        ({"optim": "sgd"}, "Go on with the same --optim"),
        ({"learning_rate": 1e-3}, "the learning rate .* 5e-05, that of this run 0.001"),
        ({"image_encoder_lr_multiplier": 0.1}, "the learning rate of the group 'image_encoder'"),
        ({"weight_decay": 0.1}, "weight_decay of the group"),
        ({"freeze_text_encoder": True}, "groups of parameters are"),
    ],
)
def test_a_run_with_other_arguments_is_refused(stopped, tmp_path, arguments, said):
    """torch would take those of the checkpoint, and Transformers not say that those of the run have no effect."""
    with pytest.raises(ValueError, match=said):
        build_trainer(tmp_path, max_steps=3, **arguments).train(resume_from_checkpoint=str(stopped))


@pytest.mark.parametrize(
    "arguments",
    [
        {"optim": "sgd", "optim_args": "momentum=0.9"},
        *({"optim": optim} for optim in ("adamw_torch", "sgd", "adafactor", "rmsprop", "adagrad")),
        *({"lr_scheduler_type": name} for name in ("constant", "cosine", "inverse_sqrt")),
        {"lr_schedule": "published_poly", "warmup_steps": 1},
        {"channels_last": True},
        {"bf16": True},
    ],
    ids=str,
)
def test_what_each_optimizer_and_schedule_saves_is_taken(tmp_path, arguments):
    build_trainer(tmp_path, max_steps=2, **arguments).train()
    trainer = build_trainer(tmp_path, max_steps=3, **arguments)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert trainer.state.global_step == 3


@pytest.mark.parametrize("is_moved", [False, True])
def test_best_checkpoint_of_a_run_that_was_copied_or_moved_is_beside_it(stopped, tmp_path, is_moved):
    former, now = tmp_path / "former", tmp_path / "now"
    shutil.copytree(stopped, now / "checkpoint-2")
    if not is_moved:
        shutil.copytree(stopped, former / "checkpoint-2")
    edit_state(best_model_checkpoint=str(former / "checkpoint-2"))(now / "checkpoint-2" / "trainer_state.json")
    # At its end already, so that nothing is saved that would name the best checkpoint anew.
    trainer = build_trainer(now, max_steps=2)
    trainer.train(resume_from_checkpoint=str(now / "checkpoint-2"))
    assert trainer.state.best_model_checkpoint == str(now / "checkpoint-2")


def test_best_checkpoint_is_no_link_to_another_folder(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "elsewhere")
    checkpoint = Path(shutil.copytree(stopped, tmp_path / "run" / "checkpoint-2"))
    link = tmp_path / "run" / "checkpoint-1"
    link.symlink_to(tmp_path / "elsewhere")
    edit_state(best_model_checkpoint=str(link))(checkpoint / "trainer_state.json")
    with pytest.raises(ValueError, match="no checkpoint of this run"):
        build_trainer(tmp_path / "run", max_steps=3).train(resume_from_checkpoint=str(checkpoint))


def test_how_fast_a_step_is_computed_may_change(stopped, tmp_path):
    trainer = build_trainer(tmp_path, max_steps=3, optim="adamw_torch")
    trainer.train(resume_from_checkpoint=str(stopped))
    assert trainer.state.global_step == 3


def test_weights_in_several_files_are_gone_on_from_and_compared(tmp_path):
    """As Transformers writes models of more than 50 GB."""
    model = tiny_model("resnet")
    model.save_pretrained(tmp_path, max_shard_size="500KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    check_weights(tmp_path, model.state_dict())
    name = next(iter(load_file(shards[1])))
    save_file(load_file(shards[1]) | {name: torch.zeros(7, 7, 7)}, shards[1])
    with pytest.raises(ValueError, match=f"{shards[1].name}.*{re.escape(name)} is "):
        check_weights(tmp_path, model.state_dict())
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(shards[1].name, f"../{shards[1].name}"))
    with pytest.raises(ValueError, match="files of another folder"):
        check_weights(tmp_path, model.state_dict())
