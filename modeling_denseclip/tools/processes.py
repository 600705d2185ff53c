# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The processes that `torchrun` or `accelerate launch` has started for one command, by Accelerate's means."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch


Value = TypeVar("Value")


class Processes:
    """
    This process alone.

    Attributes:
        count (`int`): how many work together.
        index (`int`): which of them this one is; 0 is the main one.
        count_here (`int`): how many run on this machine.
    """

    count, index, count_here = 1, 0, 1

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def use_own_gpu(self) -> None:
        """Let "cuda" mean the GPU of this process."""

    def main_first(self) -> AbstractContextManager:
        """Within this context the others wait for the main process to leave it; then they enter it."""
        return nullcontext()

    def scatter(self, shares: Sequence[Value] | None) -> Value:
        """The share of this process, of those that the main one gives; the others give `None`."""
        return shares[0]

    def gather(self, value: Value) -> list[Value]:
        """What all processes give, in their order."""
        return [value]


class LaunchedProcesses(Processes):
    """
    Those of a launcher, which also ends them all when one fails.

    Raises:
        ValueError: where the launcher's variables of the environment are not all there.
    """

    def __init__(self):
        from accelerate import PartialState

        # Plain objects are exchanged, so they go through the CPU's backend, on GPUs too. Who is done first waits, for
        # as long as the others take: the default of minutes would end it.
        self._state = PartialState(cpu=True, timeout=timedelta(days=365))
        self.count, self.index = self._state.num_processes, self._state.process_index
        self.count_here = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))

    def use_own_gpu(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.set_device(self._state.local_process_index % torch.cuda.device_count())

    @contextmanager
    def main_first(self) -> Iterator[None]:
        if not self.is_main:
            self.scatter(None)
        yield
        if self.is_main:
            self.scatter([None] * self.count)

    def scatter(self, shares: Sequence[Value] | None) -> Value:
        received = [None]
        with _naming_lost_process():
            torch.distributed.scatter_object_list(received, shares)
        return received[0]

    def gather(self, value: Value) -> list[Value]:
        from accelerate.utils import gather_object

        with _naming_lost_process():
            return gather_object([value])


@contextmanager
def _naming_lost_process() -> Iterator[None]:
    """
    Raises:
        ChildProcessError: in place of the backend's error where another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        raise ChildProcessError("another process of this run has ended; what it printed says why.") from error


def join_processes() -> Processes:
    """Those that a launcher has started this one with, or else this one alone, without importing Accelerate."""
    is_launched = all(name in os.environ for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    return LaunchedProcesses() if is_launched and int(os.environ["WORLD_SIZE"]) > 1 else Processes()
