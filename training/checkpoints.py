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
"""Which checkpoint of a run to go on from."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from modeling_denseclip import DenseCLIPConfig


logger = logging.get_logger(__name__)

LAST = "last"


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
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
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
