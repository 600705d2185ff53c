# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Whether the files of a checkpoint hold what a training here writes, before a run goes on from it.

The Trainer loads what it finds: it begins anew what is lacking, takes options over from the file without a word, and
ends with a traceback, or with weights that are no numbers, where a file was damaged or tampered with.
"""

import dataclasses
import json
import math
import os
import pickle
import random
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from transformers import TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging

from modeling_denseclip.weight_files_denseclip import PLAIN_DATA

from .checkpoints import CHECKPOINT_NAME


logger = logging.get_logger(__name__)


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _whole(lowest: int) -> tuple[Callable[[object], bool], str]:
    return lambda value: type(value) is int and lowest <= value < 2**53, f"a whole number from {lowest} on is"


def _real(lowest: float) -> tuple[Callable[[object], bool], str]:
    return lambda value: _is_number(value) and lowest <= value and abs(value) < math.inf, "a number is"


def _or_none(is_right: Callable[[object], bool], due: str) -> tuple[Callable[[object], bool], str]:
    return lambda value: value is None or is_right(value), due


# Of each field of the Trainer's state: whether a value is right, and what is due in its place.
STATE_FIELDS = {
    **dict.fromkeys(("global_step", "max_steps", "num_train_epochs", "num_input_tokens_seen"), _whole(0)),
    "train_batch_size": _or_none(*_whole(1)),
    "best_global_step": _or_none(*_whole(0)),
    **dict.fromkeys(("epoch", "total_flos"), _real(0)),
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), _real(-math.inf)),
    # Infinite before the first evaluation that has a score.
    "best_metric": _or_none(lambda value: _is_number(value) and -math.inf <= value <= math.inf, "a number is"),
    "log_history": (
        lambda value: isinstance(value, list) and all(isinstance(entry, dict) for entry in value),
        "a list of logs is",
    ),
    "stateful_callbacks": _or_none(lambda value: isinstance(value, dict), "fields are"),
    "best_model_checkpoint": _or_none(lambda value: isinstance(value, str), "the path of a checkpoint is"),
}


def check_resumable(
    checkpoint: str | Path, num_processes: int, output_dir: str | Path | None = None, is_sharded: bool = False
) -> dict:
    """
    Check of a checkpoint what can be checked without the model and the optimizer: that nothing is lacking, the state
    of the Trainer, random numbers, and the scale of float16. Warns if it is from a run with another number of
    processes. [`check_weights`] and [`check_optimizer`] check the rest.

    Args:
        output_dir (`str` or `Path`, *optional*): of the run that is to go on, where its best checkpoint may be too.
        is_sharded (`bool`, *optional*, defaults to `False`): whether FSDP or DeepSpeed wrote weights and optimizer,
            which have files of their own.

    Returns:
        `dict`: the state of the Trainer, as [`read_trainer_state`] returns it.

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
    if lacking and not is_sharded:
        raise ValueError(
            f"{checkpoint} lacks a part of the state of its run: {', '.join(lacking)}. Checkpoints of a run with"
            " --save_only_model do. They can be evaluated and used, not gone on from: name another one, or start anew"
            " in another --output_dir."
        )
    state = read_trainer_state(checkpoint, output_dir)
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
    return state


# ------------------------------------------------------------------------------------------------ what is in the files


class Fault(ValueError):
    """What is wrong with a file, raised within [`naming_file`], which names it."""


def unusable(path: Path, fault: str) -> ValueError:
    """The error of a file with which a run cannot go on."""
    return ValueError(
        f"{path} cannot be gone on from: {' '.join(fault.split())}. Name another checkpoint of the run, or start anew"
        " in another --output_dir."
    )


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Turn a [`Fault`], and whatever torch and Transformers raise, into an error of one line that names the file."""
    try:
        yield
    except torch.OutOfMemoryError:  # which tells the Trainer to try smaller batches (--auto_find_batch_size)
        raise
    except Fault as fault:
        raise unusable(path, str(fault)) from fault
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        raise unusable(path, f"{type(error).__name__} {first_line}".rstrip(". ")) from error


def read_state(path: Path) -> object:
    """
    What a file of [`torch.save`] holds. Its tensors are not read into memory, but mapped from the file.

    Raises:
        ValueError: for a file that was cut off or changed since it was written (it has checksums), that is compressed,
            or that holds more than tensors and numbers. Nothing that it asks for is called.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            # torch compresses nothing. A small file with compressed or overlapping parts could fill the memory.
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
            # Not torch's own message, which says how to run the code all the same.
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
    The state of the Trainer in a checkpoint, checked. The path of the best checkpoint is corrected if it was moved.

    Raises:
        ValueError: for values of other types, or a best checkpoint elsewhere than in the folder of the run.
    """
    path = checkpoint / TRAINER_STATE_NAME
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(path, str(error)) from error
    with naming_file(path):
        if not isinstance(state, dict):
            raise Fault(f"it holds a {type(state).__name__}, not the fields of a run")
        known = {field.name for field in dataclasses.fields(TrainerState)}
        if unknown := sorted(state.keys() - known):
            raise Fault(f"it has a field {unknown[0]!r}, which this release of Transformers does not know")
        if "global_step" not in state:
            raise Fault("it does not say after which step (global_step) it was written")
        for name, (is_right, due) in STATE_FIELDS.items():
            if name in state and not is_right(state[name]):
                raise Fault(f"{name} is {_short(state[name])}, where {due} due")
        # An epoch has at least one step. The random crops of a picture depend on the number of the epoch.
        if state.get("epoch", 0) > max(state["global_step"], 1):
            raise Fault(f"epoch is {_short(state['epoch'])} after {state['global_step']} steps")
        if (best := state.get("best_model_checkpoint")) is not None:
            # In a run that was copied or moved it lies beside this one, and the path names the former place.
            folders = [Path(folder).resolve() for folder in (output_dir, checkpoint.parent) if folder is not None]
            places = [Path(best), *(folder / Path(best).name for folder in folders)]
            own = [place for place in places if place.is_dir() and place.resolve().parent in folders]
            own = [place for place in own if CHECKPOINT_NAME.fullmatch(place.name)]
            if own:
                state["best_model_checkpoint"] = str(own[0])
            elif os.path.isdir(best):  # the Trainer passes over one that does not exist
                raise Fault(
                    f"best_model_checkpoint is {_short(best)}, which is no checkpoint of this run, and would be loaded"
                    " at its end. Correct it, or make it null"
                )
    return state


def check_weights(checkpoint: Path, expected: Mapping[str, torch.Tensor]) -> None:
    """
    Raises:
        ValueError: if the weights of a checkpoint differ from those of the model in names, shapes or types (the
            Trainer would leave such weights of the model as they are), or hold what is no finite number.
    """
    index, whole = checkpoint / SAFE_WEIGHTS_INDEX_NAME, checkpoint / SAFE_WEIGHTS_NAME
    names = [whole.name]
    if not whole.is_file() and index.is_file():
        with naming_file(index):
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            if any(Path(name).name != name for name in names):
                raise Fault("it names files of another folder")
    elif not whole.is_file():
        raise unusable(whole, "there is no such file, and weights are read of no other")
    check_tensors([checkpoint / name for name in names], expected)


def check_tensors(paths: Sequence[Path], expected: Mapping[str, torch.Tensor]) -> None:
    """
    Raises:
        ValueError: if files of safetensors do not hold exactly the expected names, with the same shapes, finite
            floating-point numbers where these are expected.
    """
    found = set()
    for path in paths:
        with naming_file(path), safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                tensor, own = file.get_tensor(name), expected.get(name)
                if own is None:
                    raise Fault(f"it holds a tensor {name!r}, of which this run has none")
                if tensor.shape != own.shape or tensor.is_floating_point() != own.is_floating_point():
                    raise Fault(f"{name} is {_type_of(tensor)}, where this run has {_type_of(own)}")
                if not _is_finite(tensor):
                    raise Fault(f"{name} holds what is no finite number")
                found.add(name)
    if lacking := [name for name in expected if name not in found]:
        raise unusable(paths[0], f"it lacks {lacking[0]}{f' and {len(lacking) - 1} more' if lacking[1:] else ''}")


def check_optimizer(
    checkpoint: Path, step: int, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler
) -> None:
    """
    Check the saved state of optimizer and schedule, after `step`, before they load it. torch loads tensors of any
    shape, and its fused optimizers then write outside of those that are too small.

    Raises:
        ValueError: if they are damaged, or are not those of a run with the same parameters, the same optimizer and the
            same settings.
    """
    path = checkpoint / OPTIMIZER_NAME
    saved = read_state(path)
    with naming_file(path):
        _check_optimizer_state(saved, optimizer, step)
    path = checkpoint / SCHEDULER_NAME
    saved = read_state(path)
    with naming_file(path):
        # With float16 the schedule makes no step where gradients overflowed.
        may_lag = (checkpoint / SCALER_NAME).is_file()
        _check_schedule(saved, scheduler, len(optimizer.param_groups), step, may_lag)


def _check_optimizer_state(saved: object, optimizer: torch.optim.Optimizer, global_step: int) -> None:
    if not isinstance(saved, dict) or saved.keys() != {"state", "param_groups"}:
        raise Fault("it is no state of an optimizer, which has `state` and `param_groups`")
    state, groups = saved["state"], saved["param_groups"]
    if not isinstance(state, dict) or not isinstance(groups, list) or not all(isinstance(g, dict) for g in groups):
        raise Fault("`state` is no mapping, or `param_groups` no list of mappings")
    old, new = (
        ", ".join(f"{group.get('name', '')} ({len(group['params'])})" for group in of)
        for of in (groups, optimizer.param_groups)
    )
    if old != new:
        raise Fault(
            f"its groups of parameters are {old}, those of this run {new}. What is frozen and what learns at another"
            " rate has to be as it was"
        )
    owners = []  # of each parameter: itself, and its group
    for saved_group, group in zip(groups, optimizer.param_groups, strict=True):
        _check_group(saved_group, group, len(owners))
        owners += [(parameter, group) for parameter in group["params"]]
    if not all(type(index) is int and 0 <= index < len(owners) for index in state):
        raise Fault(f"its state is of other parameters than the {len(owners)} of this run")
    expected: dict[tuple, dict | None] = {}
    storages = set()
    for index, values in state.items():
        parameter, group = owners[index]
        key = (id(group), parameter.shape, parameter.dtype)
        if key not in expected:
            expected[key] = _state_after_a_step(optimizer, group, parameter)
        what = f"the state of parameter {index} of shape {tuple(parameter.shape)}"
        if not isinstance(values, dict):
            raise Fault(f"{what} is no mapping")
        _check_values(what, values, expected[key], global_step)
        for value in values.values():
            if isinstance(value, torch.Tensor) and value.numel():
                start = value.untyped_storage().data_ptr()
                if start in storages:
                    raise Fault(f"{what} shares its memory with another")
                storages.add(start)
    if global_step and not state and _state_after_a_step(optimizer, owners[0][1], owners[0][0]):
        raise Fault(f"it has the state of no parameter, after {global_step} steps")


def _check_group(saved: dict, group: dict, first: int) -> None:
    """Check that the options of a saved group are those of this run: torch would replace the latter by them."""
    what = f"of the group {group['name']!r}" if "name" in group else "of a group"
    if saved["params"] != list(range(first, first + len(group["params"]))):
        raise Fault(f"the parameters {what} are in another order")
    if not _is_number(saved["lr"]) or not 0 <= saved["lr"] < math.inf:
        raise Fault(f"the learning rate {what} is {_short(saved['lr'])}")
    for name in saved.keys() & group.keys() - {"params", "lr"}:
        old, new = saved[name], group[name]
        if name in ("fused", "foreach"):  # how it is computed, not what
            same = old is None or (isinstance(old, bool) and not (saved.get("fused") and saved.get("foreach")))
        elif name == "initial_lr":
            same = _is_number(old) and math.isclose(old, new, rel_tol=1e-9)
        else:
            same = old is None or isinstance(old, bool | int | float | str | list | tuple)
            same = same and _as_tuple(old) == _as_tuple(new)
        if not same:
            option = "learning rate" if name == "initial_lr" else name
            raise Fault(
                f"the {option} {what} is {_short(old)}, that of this run {_short(new)}; it would be taken over from"
                " the file. Give the same arguments as before"
            )


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _state_after_a_step(optimizer: torch.optim.Optimizer, group: dict, parameter: torch.Tensor) -> dict | None:
    """
    What the state of such a parameter has to look like: found by a step of a copy of the optimizer with a gradient of
    0. `None` for an optimizer that cannot make such a step.
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


def _check_values(what: str, values: dict, expected: dict | None, global_step: int) -> None:
    if expected is not None and values.keys() != expected.keys():
        raise Fault(
            f"{what} has {', '.join(map(str, values))}, where the optimizer of this run has {', '.join(expected)}. Go"
            " on with the same --optim"
        )
    for name, value in values.items():
        own = None if expected is None else expected[name]
        is_alike = own is None or type(own) is type(value) or (_is_number(own) and _is_number(value))
        if isinstance(value, torch.Tensor):
            if isinstance(own, torch.Tensor):
                # torch converts floating-point numbers to the type of the parameter as it loads them, and no others.
                is_of_type = value.is_floating_point() if own.is_floating_point() else value.dtype == own.dtype
                is_alike = value.shape == own.shape and is_of_type
            elif own is not None:
                is_alike = not value.ndim and _is_number(own)
        if not is_alike:
            raise Fault(f"{name} in {what} is {_type_of(value)}, where this run has {_type_of(own)}")
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or not _is_dense(value):
                raise Fault(f"{name} in {what} is no tensor of plain values")
            if not _is_finite(value):
                raise Fault(f"{name} in {what} holds what is no finite number: the run had diverged")
            is_square = "sq" in name or name in ("sum", "exp_inf")
            if is_square and value.is_floating_point() and value.numel() and value.min() < 0:
                raise Fault(f"{name} in {what} is an average of squares, and holds a negative number")
        if name == "step":
            number = value.item() if isinstance(value, torch.Tensor) else value
            if not 0 <= number <= global_step or number != int(number):
                raise Fault(f"{what} is after {_short(number)} steps, where the run was after {global_step}")


def _check_schedule(
    saved: object, scheduler: torch.optim.lr_scheduler.LRScheduler, num_groups: int, step: int, may_lag: bool
) -> None:
    if not isinstance(saved, dict) or "last_epoch" not in saved:
        raise Fault("it is no state of a learning rate schedule")
    for name, value in saved.items():
        # All of it becomes attributes of the schedule, so none may have the name of a method.
        own = getattr(scheduler, name, value) if isinstance(name, str) else None
        if not _is_alike(value, own):
            raise Fault(f"{name} is {_short(value)}, where the schedule of this run has {_short(own)}")
    for name in ("base_lrs", "_last_lr", "min_lrs"):
        rates = saved.get(name, [0.0] * num_groups)
        if len(rates) != num_groups or not all(_is_number(rate) and 0 <= rate < math.inf for rate in rates):
            raise Fault(f"{name} is {_short(rates)}, where {num_groups} learning rates are due")
    counts_steps = "base_lrs" in saved  # ReduceLROnPlateau, which has none, counts evaluations
    if counts_steps and not np.allclose(saved["base_lrs"], scheduler.base_lrs, rtol=1e-9, atol=0):
        raise Fault(
            f"its learning rates are {_short(saved['base_lrs'])}, those of this run {_short(scheduler.base_lrs)}."
            " Give the same arguments as before"
        )
    last = saved["last_epoch"]
    if type(last) is not int or not 0 <= last <= step or (counts_steps and not may_lag and last != step):
        raise Fault(f"it is after {_short(last)} steps, and {TRAINER_STATE_NAME} after {step}")


def _check_random_numbers(path: Path) -> None:
    saved = read_state(path)
    with naming_file(path):
        if not isinstance(saved, dict) or not {"python", "numpy", "cpu"} <= saved.keys():
            raise Fault("it lacks the random numbers of python, numpy or cpu")
        # Each generator checks the state that it is given, but numpy no position in it.
        random.Random().setstate(saved["python"])
        name, words, position, *rest = saved["numpy"]
        if type(position) is not int or not 0 <= position <= len(words):
            raise Fault(f"the random numbers of numpy are at {_short(position)} of {len(words)}")
        np.random.RandomState(0).set_state(saved["numpy"])
        torch.Generator().set_state(saved["cpu"])


def _check_scaler(path: Path) -> None:
    saved = read_state(path)
    with naming_file(path):
        own = torch.amp.GradScaler("cpu", enabled=True).state_dict()
        if not isinstance(saved, dict) or saved.keys() != own.keys() or not all(map(_is_number, saved.values())):
            raise Fault(f"a scale of float16 has the numbers {', '.join(own)}")
        if not all(0 <= value < math.inf for value in saved.values()) or not saved["scale"]:
            raise Fault(f"its numbers are {_short(saved)}, which must be positive")


def _is_alike(value: object, own: object) -> bool:
    """Whether a saved attribute is of the kind of the one that it would replace."""
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
    """Whether each value has a place of its own in memory, without gaps, as the kernels of optimizers assume."""
    by_stride = sorted(range(tensor.ndim), key=lambda dim: (tensor.stride(dim), tensor.shape[dim] == 1), reverse=True)
    return tensor.permute(by_stride).is_contiguous()


def _type_of(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return _short(value)
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
