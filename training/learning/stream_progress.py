# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""How far a training is in data that are streamed, so that a run that was stopped goes on with the next sample."""

import json
from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.utils import logging

from ..data.streaming import Position, TrainingStream
from .resuming import Fault, naming_file


logger = logging.get_logger(__name__)

STATE_NAME = "stream_state_{}.json"  # of each process
STATES = STATE_NAME.format("*")


class StreamProgress(TrainerCallback):
    """
    Follows the batches that a process trains on; those that its readers have made beforehand do not count.

    Args:
        stream ([`TrainingStream`]): what the process trains on.
    """

    def __init__(self, stream: TrainingStream):
        self.stream = stream
        self.begin()

    def begin(self) -> None:
        """Begin where the stream does."""
        self.positions, self.num_batches, self.latest = list(self.stream.positions), self.stream.num_batches, None

    def note(self, positions: torch.Tensor) -> None:
        """Note a batch that is trained on, by the positions of its samples, of shape `(batch_size, 4)`."""
        self.latest = Position(*positions[-1].tolist())
        self.positions[self.latest.reader] = self.latest
        self.num_batches += 1

    def on_step_end(self, args, state, control, **kwargs):
        # The Trainer's own would be the share of all steps. A checkpoint in which it is above the steps is refused.
        if self.latest is not None:
            state.epoch = min(self.stream.passes(self.latest), float(state.global_step))

    def save(self, folder: str | Path) -> None:
        """Write the state of this process into a checkpoint."""
        state = {"layout": self.stream.layout, "num_batches": self.num_batches, "positions": self.positions}
        path = Path(folder) / STATE_NAME.format(self.stream.process_index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(state), encoding="utf-8")

    def load(self, checkpoint: Path) -> None:
        """
        Let the stream go on behind a checkpoint. Where the order of samples is another now, such as with other numbers
        of processes, it begins a new pass with a warning.

        Raises:
            ValueError: for a checkpoint of a run that was not streamed, or with a damaged file.
        """
        states = {path.name: _read_state(path) for path in sorted(checkpoint.glob(STATES))}
        if not states:
            raise ValueError(
                f"{checkpoint} comes from a run without --streaming, so it cannot be gone on from with it."
            )
        layout, state = self.stream.layout, states.get(STATE_NAME.format(self.stream.process_index))
        if state is not None and state["layout"] == layout and len(state["positions"]) == self.stream.num_readers:
            positions, num_batches = state["positions"], state["num_batches"]
        else:
            old = next(iter(states.values()))["layout"]
            changed = [f"{name} {old.get(name)} -> {new}" for name, new in layout.items() if old.get(name) != new]
            logger.warning(
                f"{checkpoint} comes from a stream in another order ({', '.join(changed)}): a new pass over the data"
                " begins, and what the former one had not come to is passed over."
            )
            epoch = 1 + max(position.epoch for state in states.values() for position in state["positions"])
            positions, num_batches = [Position(reader, epoch) for reader in range(self.stream.num_readers)], 0
        self.stream.begin_at(positions, num_batches)


def _read_state(path: Path) -> dict:
    with naming_file(path):
        state = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(state, dict) or not {"layout", "num_batches", "positions"} <= state.keys():
            raise Fault("it is no state of a stream")
        positions = [Position(*numbers) for numbers in state["positions"]]
        numbers = [state["num_batches"], *(number for position in positions for number in position)]
        if not positions or not isinstance(state["layout"], dict) or not all(_is_count(number) for number in numbers):
            raise Fault("its positions are no whole numbers from 0 on")
        if [position.reader for position in positions] != list(range(len(positions))):
            raise Fault("its readers are not numbered from 0")
        return {**state, "positions": positions}


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53
