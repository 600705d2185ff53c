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

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from modeling_denseclip import DenseCLIPConfig


logger = logging.get_logger(__name__)

LAST = "last"
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
        if (match := re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", path.name)) and path.is_dir()
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


def check_resumable(checkpoint: str | Path, num_processes: int) -> None:
    """
    Warns where the random numbers of a run of another number of processes are in the checkpoint.

    Args:
        checkpoint (`str` or `Path`): a complete one, of whole weights.
        num_processes (`int`): of the run that is to go on from it.

    Raises:
        ValueError: if it lacks what a run goes on with: what the Trainer does not find it begins anew, without a word.
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
    names = ["rng_state.pth"] if num_processes == 1 else [f"rng_state_{index}.pth" for index in range(num_processes)]
    if found != set(names):
        logger.warning(
            f"{checkpoint} holds {', '.join(sorted(found))}, where a run of {num_processes} process"
            f"{'' if num_processes == 1 else 'es'} has {', '.join(names)}: from here on other random numbers are drawn"
            " than in a run that was never stopped."
        )
