# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The checkpoints in the folder of a run: which one to go on from, and that no other run writes there meanwhile.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from modeling_denseclip import DenseCLIPConfig


logger = logging.get_logger(__name__)

LAST = "last"
CHECKPOINT_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-\d+")
# How long to wait for the lock. The processes that load images inherit it; of a training that was killed they release
# it within 5 seconds, which is how often they look whether that is still there.
LOCK_SECONDS = 10.0


@contextmanager
def alone_in(output_dir: str | Path) -> Iterator[None]:
    """
    Within this context no other training writes into `output_dir`. The system releases the lock when a process
    ends, however it does.

    Raises:
        ValueError: if another training does.
    """
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(output_dir / ".training.lock").acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise ValueError(
            f"Another training writes into {output_dir}, and the checkpoints of both would be mixed. Wait until it has"
            " ended, or choose another --output_dir."
        ) from error
    with lock:
        yield


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
            newest complete one of `output_dir`, and a new run if there is none. One that a killed run left half
            written is passed over with a warning.

    Raises:
        ValueError: for a folder that is no complete checkpoint, or if nothing is asked and `output_dir` holds
            checkpoints, which a new run would mix with its own and in the end delete.
    """
    checkpoints = [path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir()]
    checkpoints = [path for path in checkpoints if CHECKPOINT_NAME.fullmatch(path.name)]
    checkpoints.sort(key=lambda path: int(path.name.rpartition("-")[2]))
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


def how_to_go_on(output_dir: str | Path) -> str:
    """What is left of a training that was interrupted."""
    if last := checkpoint_to_resume(output_dir, LAST):
        return f"The last checkpoint is {last}: go on from it with --resume_from_checkpoint {LAST}."
    return f"There is no checkpoint in {output_dir} yet, so nothing was saved to go on from."


@contextmanager
def explain_full_disk(what: str, output_dir: str | Path) -> Iterator[None]:
    """
    Explain errors of writing a checkpoint or a model, by whichever library: what was not written, and how to go on.

    Raises:
        OSError: in place of the library's.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None  # the cause of the error: it interrupted torch within a file
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        advice = "There is none before: make room, and start anew."
        if checkpoint_to_resume(output_dir, LAST):
            advice = f"Those before are whole: make room, and go on by --resume_from_checkpoint {LAST}."
        reason = " ".join(str(error).split())
        raise OSError(f"{what} could not be written to {output_dir} ({reason}). {advice}") from error


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
