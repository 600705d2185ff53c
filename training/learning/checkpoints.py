# Copyright 2026 The DenseCLIP for Transformers authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Which checkpoint of a run to go on from, and that no other run writes there."""

import dataclasses
import json
import math
import os
import pickle
import random
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from transformers import TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging

from modeling_denseclip import DenseCLIPConfig
from modeling_denseclip.weight_files_denseclip import PLAIN_DATA


logger = logging.get_logger(__name__)

LAST = "last"
CHECKPOINT_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
ADVICE = "Name another checkpoint of the run, or start anew in another --output_dir."
# Fields of the Trainer's state that are whole numbers, and the least of each.
STATE_INTEGERS = {
    **{"global_step": 0, "max_steps": 0, "num_train_epochs": 0, "num_input_tokens_seen": 0},
    **{"train_batch_size": 1, "best_global_step": 0},
}
STATE_OPTIONAL = ("train_batch_size", "best_global_step")
LOCK_NAME = ".training.lock"
# The processes that load images hold the lock too, and look every 5 seconds whether the one that they work for, when
# it was killed, is still there.
LOCK_SECONDS = 10.0


@contextmanager
def alone_in(output_dir: str | Path) -> Iterator[None]:
    """
    Inside of it no other training writes into `output_dir`. The system gives the lock back however a process ends.

    Raises:
        ValueError: if another training does.
    """
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output_dir / LOCK_NAME)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise ValueError(
            f"Another training writes into {output_dir}, and the checkpoints of both would be mixed. Wait until it has"
            " ended, or choose another --output_dir."
        ) from error
    try:
        yield
    finally:
        lock.release()


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """The folders `checkpoint-N` of a run, in order of N."""
    found = [
        (int(match.group(1)), path)
        for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (match := CHECKPOINT_NAME.fullmatch(path.name)) and path.is_dir()
    ]
    return [path for _, path in sorted(found)]


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: the Trainer writes its own state last."""
    return is_json(checkpoint / TRAINER_STATE_NAME)


def is_json(path: Path) -> bool:
    """Whether there is such a file, written to its end."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def checkpoint_to_resume(output_dir: str | Path, asked: str | None) -> str | None:
    """
    The checkpoint that a run in `output_dir` goes on from, or `None` for a new run.

    Args:
        output_dir (`str` or `Path`): the folder of the run.
        asked (`str`, *optional*): what `--resume_from_checkpoint` says: a checkpoint's folder, or "last" for the
            newest complete one of `output_dir`, and a new run if there is none. A checkpoint that a killed run left
            half written is passed over, and said so.

    Raises:
        ValueError: for a folder that is no complete checkpoint, or if nothing is asked and `output_dir` holds
            checkpoints, which a new run would mix with its own and in the end delete.
    """
    checkpoints = list_checkpoints(output_dir)
    if asked is None:
        if checkpoints:
            raise ValueError(
                f"{output_dir} holds {checkpoints[-1].name} of an earlier run. Go on from it with"
                f" --resume_from_checkpoint {LAST}, or start anew in another --output_dir."
            )
        return None
    if asked != LAST:
        if not is_complete(Path(asked)):
            raise ValueError(
                f"{asked} is no complete checkpoint: it has no readable {TRAINER_STATE_NAME}. Name another one, or"
                f" '{LAST}' for the newest complete one of --output_dir."
            )
        return asked
    for checkpoint in reversed(checkpoints):
        if is_complete(checkpoint):
            return str(checkpoint)
        logger.warning(f"{checkpoint} was not written to its end, so it is passed over.")
    return None


def check_classes(checkpoint: str | Path, class_names: Sequence[str]) -> None:
    """
    Raises:
        ValueError: if the checkpoint, which a run is to go on from, was trained for other classes than those of the
            data.
    """
    trained = list(DenseCLIPConfig.from_pretrained(checkpoint).id2label.values())
    if trained != list(class_names):
        raise ValueError(
            f"{checkpoint} was trained for the classes {', '.join(trained)}; the data now name"
            f" {', '.join(class_names)}. Give the data the same classes in the same order, or start anew in another"
            " --output_dir."
        )


def check_resumable(checkpoint: str | Path, num_processes: int, output_dir: str | Path | None = None) -> None:
    """
    Check all of a checkpoint that can be told without model and optimizer: that nothing is lacking, what the Trainer
    noted of its run, random numbers, and the scale of float16. Warns where the random numbers of a run of another
    number of processes are in it. [`check_weights`] and [`check_optimizer`] check the rest.

    Args:
        checkpoint (`str` or `Path`): a complete one, of whole weights.
        num_processes (`int`): of the run that is to go on from it.
        output_dir (`str` or `Path`, *optional*): of that run, where its best checkpoint may be too.

    Raises:
        ValueError: if it lacks what a run goes on with (what the Trainer does not find it begins anew, without a
            word), or if a file of it is damaged, or is not what a training here writes.
    """
    checkpoint = Path(checkpoint)
    states = {OPTIMIZER_NAME: "optimizer", SCHEDULER_NAME: "learning rate schedule"}
    lacking = [f"that of the {of} ({name})" for name, of in states.items() if not (checkpoint / name).is_file()]
    found = {path.name for path in checkpoint.glob("rng_state*.pth")}
    if not found:
        lacking.append("that of the random numbers (rng_state.pth)")
    if lacking:
        raise ValueError(
            f"{checkpoint} lacks a part of the state of its run: {', '.join(lacking)}. Checkpoints of a run with"
            " --save_only_model do. They can be evaluated and used, not gone on from: name another one, or start anew"
            " in another --output_dir."
        )
    read_trainer_state(checkpoint, output_dir)
    names = ["rng_state.pth"] if num_processes == 1 else [f"rng_state_{index}.pth" for index in range(num_processes)]
    for name in sorted(found.intersection(names)):
        _check_random_numbers(checkpoint / name)
    if (checkpoint / SCALER_NAME).is_file():
        _check_scaler(checkpoint / SCALER_NAME)
    if found != set(names):
        logger.warning(
            f"{checkpoint} holds {', '.join(sorted(found))}, where a run of {num_processes} process"
            f"{'' if num_processes == 1 else 'es'} has {', '.join(names)}: from here on other random numbers are drawn"
            " than in a run that was never stopped."
        )


# ------------------------------------------------------------------------------------------------ what is in the files


def unusable(path: Path, fault: str) -> ValueError:
    """The error of a file with which a run cannot go on."""
    return ValueError(f"{path} cannot be gone on from: {' '.join(fault.split())}. {ADVICE}")


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Whatever the readers of others raise inside, which may be anything, is an error of this file, in one line."""
    try:
        yield
    except torch.OutOfMemoryError:  # by which the Trainer finds the size of its batches
        raise
    except Exception as error:
        if str(error).endswith(ADVICE):  # ours
            raise
        first_line = (str(error).strip().splitlines() or [""])[0]
        raise unusable(path, f"{type(error).__name__} {first_line}".rstrip(". ")) from error


def read_state(path: Path) -> object:
    """
    What a file of [`torch.save`] holds. Its tensors are not read into memory, they are maps of the file.

    Raises:
        ValueError: for a file that was cut off or changed since it was written (it has checksums), that is compressed,
            or that holds more than tensors and numbers. Nothing that it asks for is called.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            # torch compresses none; of compressed or of overlapping parts a small file could hold any number.
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("it is compressed, which files of torch are not")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise ValueError("its parts overlap")
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"its part {damaged} has another checksum than when it was written")
        with torch.serialization.safe_globals(PLAIN_DATA):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError):
            # torch's own message advises how to have the code run.
            asked = re.search(r"GLOBAL (\S+)|asks for (.+?), which", str(error))
            fault = "it holds more than tensors and numbers, such as code that would be run, and was not read" + (
                f" (it asks for {asked[1] or asked[2]})" if asked else ""
            )
        elif isinstance(error, zipfile.BadZipFile):
            fault = f"it is no whole file of torch ({error})"
        else:
            fault = str(error).strip().split("\n")[0] or type(error).__name__
        raise unusable(path, fault) from error


def read_trainer_state(checkpoint: Path, output_dir: str | Path | None = None) -> dict:
    """
    What the Trainer noted of a run, checked. Its best checkpoint is where it is now.

    Raises:
        ValueError: for values of other types, or a best checkpoint elsewhere than in the folder of the run.
    """
    path = checkpoint / TRAINER_STATE_NAME
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(path, str(error)) from error
    if not isinstance(state, dict):
        raise unusable(path, f"it holds a {type(state).__name__}, not the fields of a run")
    known = {field.name for field in dataclasses.fields(TrainerState)}
    if unknown := sorted(state.keys() - known):
        raise unusable(path, f"it has a field {unknown[0]!r}, which this release of Transformers does not know")
    if "global_step" not in state:
        raise unusable(path, "it does not say after which step (global_step) it was written")
    for name, lowest in STATE_INTEGERS.items():
        value = state.get(name, lowest)
        if value is None and name in STATE_OPTIONAL:
            continue
        if type(value) is not int or not lowest <= value < 2**53:
            raise unusable(path, f"{name} is {_short(value)}, where a whole number from {lowest} on is due")
    for name in ("epoch", "total_flos", "logging_steps", "eval_steps", "save_steps", "best_metric"):
        value = state.get(name, 0)
        if value is None and name == "best_metric":
            continue
        lowest = 0 if name in ("epoch", "total_flos") else -math.inf
        if not _is_number(value) or not lowest <= value <= math.inf or (math.isinf(value) and name != "best_metric"):
            raise unusable(path, f"{name} is {_short(value)}, where a number is due")
    # An epoch has a step at least. Crops are drawn by its number.
    if state.get("epoch", 0) > max(state["global_step"], 1):
        raise unusable(path, f"epoch is {_short(state['epoch'])} after {state['global_step']} steps")
    history = state.get("log_history", [])
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise unusable(path, f"log_history is {_short(history)}, where a list of logs is due")
    callbacks = state.get("stateful_callbacks")
    if callbacks is not None and not isinstance(callbacks, dict):
        raise unusable(path, f"stateful_callbacks is {_short(callbacks)}, where fields are due")
    best = state.get("best_model_checkpoint")
    if best is not None and not isinstance(best, str):
        raise unusable(path, f"best_model_checkpoint is {_short(best)}, where the path of a checkpoint is due")
    if best is not None:
        # A run that was copied or moved has its best checkpoint beside this one, and names the former place.
        folders = [Path(folder) for folder in (output_dir, checkpoint.parent) if folder is not None]
        places = [Path(best), *(folder / Path(best).name for folder in folders)]
        own = [place for place in places if place.is_dir() and _is_checkpoint_in(folders, place)]
        if own:
            state["best_model_checkpoint"] = str(own[0])
        elif os.path.isdir(best):  # what is gone the Trainer passes over
            raise unusable(
                path,
                f"best_model_checkpoint is {_short(best)}, which is no checkpoint of this run, and would be loaded at"
                " its end. Correct it, or make it null",
            )
    return state


def _is_checkpoint_in(folders: Sequence[Path], place: Path) -> bool:
    is_named = CHECKPOINT_NAME.fullmatch(place.name) is not None
    return is_named and place.resolve().parent in [folder.resolve() for folder in folders]


def check_weights(checkpoint: Path, expected: Mapping[str, torch.Tensor]) -> None:
    """
    Raises:
        ValueError: if the weights of a checkpoint are others than those of the model, by their names, shapes or types,
            of which the Trainer would leave some as they are, or hold what is no number.
    """
    index, whole = checkpoint / SAFE_WEIGHTS_INDEX_NAME, checkpoint / SAFE_WEIGHTS_NAME
    names = [whole.name]
    if not whole.is_file() and index.is_file():
        with naming_file(index):
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            if any(Path(name).name != name for name in names):
                raise unusable(index, "it names files of another folder")
    elif not whole.is_file():
        raise unusable(whole, "there is no such file, and weights are read of no other")
    check_tensors([checkpoint / name for name in names], expected)


def check_tensors(paths: Sequence[Path], expected: Mapping[str, torch.Tensor]) -> None:
    """
    Raises:
        ValueError: if files of safetensors do not hold exactly these names, of these shapes, floating-point numbers
            where those are, all finite.
    """
    found = {}
    for path in paths:
        with naming_file(path), safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                tensor = file.get_tensor(name)
                own = expected.get(name)
                if own is None:
                    raise unusable(path, f"it holds a tensor {name!r}, of which this run has none")
                if tensor.shape != own.shape or tensor.is_floating_point() != own.is_floating_point():
                    raise unusable(path, f"{name} is {_describe(tensor)}, where this run has {_describe(own)}")
                if not _is_finite(tensor):
                    raise unusable(path, f"{name} holds what is no finite number")
                found[name] = path
    if lacking := [name for name in expected if name not in found]:
        raise unusable(paths[0], f"it lacks {lacking[0]}{f' and {len(lacking) - 1} more' if lacking[1:] else ''}")


def check_optimizer(
    checkpoint: str | Path, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler
) -> None:
    """
    Check the state of optimizer and schedule before a run goes on with them. The optimizers of torch do not: the fused
    ones write where the shapes of the weights tell them to.

    Args:
        checkpoint (`str` or `Path`): the checkpoint.
        optimizer (`torch.optim.Optimizer`): of the run, with its groups, new.
        scheduler (`LRScheduler`): of the run, new.

    Raises:
        ValueError: if they are damaged, or are not those of a run with the same parameters, the same optimizer and the
            same settings.
    """
    checkpoint = Path(checkpoint)
    step = read_trainer_state(checkpoint)["global_step"]
    _check_optimizer_state(checkpoint / OPTIMIZER_NAME, optimizer, step)
    _check_schedule(checkpoint / SCHEDULER_NAME, scheduler, len(optimizer.param_groups), step)


def _check_optimizer_state(path: Path, optimizer: torch.optim.Optimizer, global_step: int) -> None:
    saved = read_state(path)
    with naming_file(path):
        if not isinstance(saved, dict) or saved.keys() != {"state", "param_groups"}:
            raise unusable(path, "it is no state of an optimizer, which has `state` and `param_groups`")
        state, groups = saved["state"], saved["param_groups"]
        if not isinstance(state, dict) or not isinstance(groups, list) or not all(isinstance(g, dict) for g in groups):
            raise unusable(path, "`state` is no mapping, or `param_groups` no list of mappings")
        described = [
            [f"{group.get('name', '')} ({len(group['params'])})" for group in of]
            for of in (groups, optimizer.param_groups)
        ]
        if described[0] != described[1]:
            raise unusable(
                path,
                f"its groups of parameters are {', '.join(described[0])}, those of this run {', '.join(described[1])}."
                " What is frozen and what learns at another rate has to be as it was",
            )
        first = 0
        for saved_group, group in zip(groups, optimizer.param_groups, strict=True):
            _check_group(path, saved_group, group, first)
            first += len(group["params"])
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not all(type(index) is int and 0 <= index < len(parameters) for index in state):
            raise unusable(path, f"its state is of other parameters than the {len(parameters)} of this run")
        owners = [group for group in optimizer.param_groups for _ in group["params"]]
        expected: dict[tuple, dict | None] = {}
        storages = set()
        for index, values in state.items():
            parameter, group = parameters[index], owners[index]
            key = (id(group), parameter.shape, parameter.dtype)
            if key not in expected:
                expected[key] = _state_after_a_step(optimizer, group, parameter)
            what = f"the state of parameter {index} of shape {tuple(parameter.shape)}"
            if not isinstance(values, dict):
                raise unusable(path, f"{what} is no mapping")
            _check_values(path, what, values, expected[key], global_step)
            for value in values.values():
                if isinstance(value, torch.Tensor) and value.numel():
                    start = value.untyped_storage().data_ptr()
                    if start in storages:
                        raise unusable(path, f"{what} shares its memory with another")
                    storages.add(start)
        if global_step and not state and _state_after_a_step(optimizer, owners[0], parameters[0]):
            raise unusable(path, f"it has the state of no parameter, after {global_step} steps")


def _check_group(path: Path, saved: dict, group: dict, first: int) -> None:
    """Options of a saved group are those that this run was started with; torch would take them over in silence."""
    what = f"of the group {group['name']!r}" if "name" in group else "of a group"
    if saved["params"] != list(range(first, first + len(group["params"]))):
        raise unusable(path, f"the parameters {what} are in another order")
    if not _is_number(saved["lr"]) or not 0 <= saved["lr"] < math.inf:
        raise unusable(path, f"the learning rate {what} is {_short(saved['lr'])}")
    for name in saved.keys() & group.keys() - {"params", "lr"}:
        old, new = saved[name], group[name]
        if name in ("fused", "foreach"):  # how it is computed, not what
            same = old is None or (isinstance(old, bool) and not (saved.get("fused") and saved.get("foreach")))
        elif name == "initial_lr":
            same = _is_number(old) and math.isclose(old, new, rel_tol=1e-9)
        else:
            same = old is None or isinstance(old, bool | int | float | str | list | tuple)
            same = same and (tuple(old) if isinstance(old, list) else old) == (
                tuple(new) if isinstance(new, list) else new
            )
        if not same:
            option = "learning rate" if name == "initial_lr" else name
            raise unusable(
                path,
                f"the {option} {what} is {_short(old)}, that of this run {_short(new)}; it would be taken over from"
                " the file. Give the same arguments as before",
            )


def _state_after_a_step(optimizer: torch.optim.Optimizer, group: dict, parameter: torch.Tensor) -> dict | None:
    """
    What an optimizer holds of such a parameter: what one like it does after a step along a gradient of 0. `None` of an
    optimizer that makes no step like that.
    """
    stand_in = torch.zeros_like(parameter, requires_grad=True)
    stand_in.grad = torch.zeros_like(parameter)
    alike = object.__new__(type(optimizer))
    alike.__dict__.update(optimizer.__dict__)
    alike.__dict__.update(state=defaultdict(dict), param_groups=[{**group, "params": [stand_in]}])
    try:
        type(optimizer).step(alike)
        return dict(alike.state[stand_in])
    except Exception:
        return None


def _check_values(path: Path, what: str, values: dict, expected: dict | None, global_step: int) -> None:
    if expected is not None and values.keys() != expected.keys():
        raise unusable(
            path,
            f"{what} has {', '.join(map(str, values))}, where the optimizer of this run has {', '.join(expected)}. Go"
            " on with the same --optim",
        )
    for name, value in values.items():
        own = None if expected is None else expected[name]
        if isinstance(value, torch.Tensor):
            if own is not None and not isinstance(own, torch.Tensor) and (value.ndim or not _is_number(own)):
                raise unusable(path, f"{name} in {what} is {_describe(value)}, where this run has {_short(own)}")
            if isinstance(own, torch.Tensor):
                # torch brings real numbers to the type of the parameter, and leaves others as they are.
                is_of_type = value.is_floating_point() if own.is_floating_point() else value.dtype == own.dtype
                if value.shape != own.shape or not is_of_type:
                    other = f"{_describe(value)}, where this run has {_describe(own)}"
                    raise unusable(path, f"{name} in {what} is {other}")
            if value.layout != torch.strided or value.device.type != "cpu" or not _is_dense(value):
                raise unusable(path, f"{name} in {what} is no tensor of plain values")
            if not _is_finite(value):
                raise unusable(path, f"{name} in {what} holds what is no finite number: the run had diverged")
            is_square = "sq" in name or name in ("sum", "exp_inf")
            if is_square and value.is_floating_point() and value.numel() and value.min() < 0:
                raise unusable(path, f"{name} in {what} is an average of squares, and holds a negative number")
        elif own is not None and not (_is_number(own) and _is_number(value)) and type(own) is not type(value):
            raise unusable(path, f"{name} in {what} is {_short(value)}, where this run has {_short(own)}")
        if name == "step":
            number = value.item() if isinstance(value, torch.Tensor) else value
            if not 0 <= number <= global_step or number != int(number):
                raise unusable(path, f"{what} is after {_short(number)} steps, where the run was after {global_step}")


def _check_schedule(path: Path, scheduler: torch.optim.lr_scheduler.LRScheduler, num_groups: int, step: int) -> None:
    saved = read_state(path)
    with naming_file(path):
        if not isinstance(saved, dict) or "last_epoch" not in saved:
            raise unusable(path, "it is no state of a learning rate schedule")
        for name, value in saved.items():
            # It becomes attributes, and must put none in place of a method.
            own = getattr(scheduler, name, value) if isinstance(name, str) else None
            if not _is_alike(value, own):
                raise unusable(path, f"{name} is {_short(value)}, where the schedule of this run has {_short(own)}")
        for name in ("base_lrs", "_last_lr", "min_lrs"):
            rates = saved.get(name, [0.0] * num_groups)
            if len(rates) != num_groups or not all(_is_number(rate) and 0 <= rate < math.inf for rate in rates):
                raise unusable(path, f"{name} is {_short(rates)}, where {num_groups} learning rates are due")
        if "base_lrs" in saved and not all(
            math.isclose(old, new, rel_tol=1e-9)
            for old, new in zip(saved["base_lrs"], scheduler.base_lrs, strict=True)
        ):
            raise unusable(
                path,
                f"its learning rates are {_short(saved['base_lrs'])}, those of this run {_short(scheduler.base_lrs)}."
                " Give the same arguments as before",
            )
        last, counts_steps = saved["last_epoch"], "base_lrs" in saved  # of one on plateaus these are evaluations
        # With a scaler the steps whose gradients overflowed are left out.
        is_exact = counts_steps and not (path.parent / SCALER_NAME).is_file()
        if type(last) is not int or not 0 <= last <= step or (is_exact and last != step):
            raise unusable(path, f"it is after {_short(last)} steps, and {TRAINER_STATE_NAME} after {step}")


def _check_random_numbers(path: Path) -> None:
    saved = read_state(path)
    with naming_file(path):
        if not isinstance(saved, dict) or not {"python", "numpy", "cpu"} <= saved.keys():
            raise unusable(path, "it lacks the random numbers of python, numpy or cpu")
        # Each generator checks its state as it takes it; numpy takes any position.
        random.Random().setstate(saved["python"])
        name, words, position, *rest = saved["numpy"]
        if type(position) is not int or not 0 <= position <= len(words):
            raise unusable(path, f"the random numbers of numpy are at {_short(position)} of {len(words)}")
        np.random.RandomState(0).set_state((name, np.array(words), position, *rest))
        torch.Generator().set_state(saved["cpu"])


def _check_scaler(path: Path) -> None:
    saved = read_state(path)
    with naming_file(path):
        own = torch.amp.GradScaler("cpu", enabled=True).state_dict()
        if not isinstance(saved, dict) or saved.keys() != own.keys() or not all(map(_is_number, saved.values())):
            raise unusable(path, f"a scale of float16 has the numbers {', '.join(own)}")
        if not all(0 <= value < math.inf for value in saved.values()) or not saved["scale"]:
            raise unusable(path, f"its numbers are {_short(saved)}, which must be positive")


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _is_alike(value: object, own: object) -> bool:
    """Whether a saved attribute is of the kind of the one that it takes the place of."""
    if own is None:
        return value is None or isinstance(value, (bool, int, float, str))
    if _is_number(own) and _is_number(value):
        return math.isfinite(value) or value == own
    if isinstance(own, list) and isinstance(value, list) and value and own:
        return len(value) == len(own)
    return type(value) is type(own)


def _is_finite(tensor: torch.Tensor) -> bool:
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    # In one pass, and without a map of truth values as large as the tensor.
    lowest, highest = torch.aminmax(tensor)
    return math.isfinite(lowest) and math.isfinite(highest)


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether each value has a place of its own, with none between them: what kernels take for granted."""
    sides = sorted((stride, side) for side, stride in zip(tensor.shape, tensor.stride(), strict=True) if side != 1)
    due = 1
    for stride, side in sides:
        if stride != due:
            return not tensor.numel()
        due *= side
    return True


def _describe(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
