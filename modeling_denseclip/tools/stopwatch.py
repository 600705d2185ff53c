# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Where the time of a command goes."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


MODEL = "model"
# In the order in which a photograph goes through them.
PARTS = ("reading", "preparing", MODEL, "resizing", "drawing", "writing")
_OFF = nullcontext()


class Stopwatch:
    """
    Sums the seconds that the parts of the work take, in all threads. One that is off measures nothing.

    What a GPU of CUDA computes is measured there, by events, since the host does not wait for it: no more than before.

    Attributes:
        seconds (`dict[str, float]`): of each part.
    """

    def __init__(self, is_on: bool = False):
        self.is_on = is_on
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._lock = threading.Lock()
        self._began = time.perf_counter()
        self._events: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def measure(self, part: str) -> AbstractContextManager:
        """Within this context time passes for one of `PARTS`."""
        return self._measure(part) if self.is_on else _OFF

    def measure_model(self, device: torch.device) -> AbstractContextManager:
        """Within this context the model computes, on a device; in one thread at a time."""
        if self.is_on and device.type == "cuda":
            return self._measure_events(device)
        return self.measure(MODEL)

    @contextmanager
    def _measure(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._add(part, time.perf_counter() - began)

    @contextmanager
    def _measure_events(self, device: torch.device) -> Iterator[None]:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(device)
        began.record(stream)
        try:
            yield
        finally:
            ended.record(stream)
            self._events.append((began, ended))
            self._add_events()

    def _add_events(self) -> None:
        """Take the times of what the GPU has done by now."""
        while self._events and self._events[0][1].query():
            began, ended = self._events.popleft()
            self._add(MODEL, began.elapsed_time(ended) / 1000)

    def _add(self, part: str, seconds: float) -> None:
        with self._lock:
            self.seconds[part] += seconds

    def stop(self) -> tuple[float, dict[str, float]]:
        """The seconds since this was made, and those of the parts."""
        if self._events:
            self._events[-1][1].synchronize()
            self._add_events()
        return time.perf_counter() - self._began, self.seconds


def format_times(times: Sequence[tuple[float, dict[str, float]]], num_files: int, on_gpu: bool) -> str:
    """
    A table of what the stopwatch of each process says when it is stopped, of all of them together; `num_files` is the
    number of photographs and videos.
    """
    passed = max(seconds for seconds, _ in times)
    of_all = passed * len(times)
    lines = ["where the time goes   seconds   ms a file   share of the time"]
    for part in PARTS:
        seconds = sum(parts[part] for _, parts in times)
        each = 1000 * seconds / max(num_files, 1)
        lines.append(f"{part:<18} {seconds:>10.2f} {each:>11.1f} {100 * seconds / of_all:>17.1f} %")
    lines.append(f"{'all of it':<18} {passed:>10.2f} {1000 * passed / max(num_files, 1):>11.1f}")
    share = min(sum(parts[MODEL] for _, parts in times) / of_all, 1)
    idle = f"; {100 * (1 - share):.1f} % of it the GPU did not" if on_gpu else ""
    lines.append(f"The model computed in {100 * share:.1f} % of the time{idle}.")
    lines.append("Seconds are those of all threads, which work at once, waiting included; loading is not counted.")
    return "\n".join(lines)
