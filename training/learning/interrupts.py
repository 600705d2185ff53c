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
"""
How Ctrl-C ends a training: with a word, and without the tracebacks of the processes that help it.

SIGTERM, which SLURM and Docker send, keeps what the system does: it ends all at once. Pools of processes end theirs by
it, and wait for them; a handler, which is inherited, may miss it where a process has just begun.
"""

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from .checkpoints import LAST, checkpoint_to_resume


SECONDS_UNTIL_AGAIN = 0.05


def leave_interrupts_to_parent() -> None:
    """For processes that help: a terminal sends Ctrl-C to all of a command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _hook_of_helper


@contextmanager
def starting_helpers() -> Iterator[None]:
    """
    Processes that are started inside of it are never told of Ctrl-C, not even while they import what they need. To the
    parent it comes afterwards: interrupted between a fork and the note of it, a pool would forget the process, which
    would wait for work for ever.
    """
    handler = signal.getsignal(signal.SIGINT)
    is_handled = threading.current_thread() is threading.main_thread() and callable(handler)
    if not (is_handled and hasattr(signal, "pthread_sigmask")):  # the latter Windows lacks
        yield
        return
    received = []
    # A process that is forked keeps the handler. One that begins another program keeps what is blocked; that alone is
    # not enough here, as any other thread may take the signal for this one.
    signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)


def _hook_of_helper(error_type: type[BaseException], *args) -> None:
    # The thread that hands tensors over meets a parent that was interrupted while it took one.
    if not issubclass(error_type, ConnectionError | EOFError):
        sys.__excepthook__(error_type, *args)


def initialize_worker(initialize: Callable[[int], None] | None, worker_id: int) -> None:
    """As `worker_init_fn` of a `DataLoader`, before what was to be called there."""
    leave_interrupts_to_parent()
    if initialize is not None:
        initialize(worker_id)


def _end_workers() -> None:
    """
    End the processes of all `DataLoader`s. Those that are left to the garbage collector may end late: it closes their
    queues first, so that none hears that it is to end, and torch waits for each for 5 seconds.
    """
    for found in gc.get_objects():
        if issubclass(type(found), _MultiProcessingDataLoaderIter):
            with suppress(AttributeError):  # of one that was interrupted as it was made
                found._shutdown_workers()


def how_to_go_on(output_dir: str) -> str:
    """What is left of a training that was interrupted."""
    if last := checkpoint_to_resume(output_dir, LAST):
        return f"The last checkpoint is {last}: go on from it with --resume_from_checkpoint {LAST}."
    return f"There is no checkpoint in {output_dir} yet, so nothing was saved to go on from."


@contextmanager
def quiet_interrupts(say: Callable[[], str], is_main_process: bool = True) -> Iterator[None]:
    """
    Inside of it Ctrl-C is a `KeyboardInterrupt` that is followed by a word, and by no traceback of helpers.

    Args:
        say (`Callable[[], str]`): makes the word, when it is due.
        is_main_process (`bool`, *optional*, defaults to `True`): whether this is the one of several that speaks.
    """
    former = signal.getsignal(signal.SIGINT)
    # Only the main thread is told of signals; and one that is ignored, as in a script's background, stays so.
    if threading.current_thread() is not threading.main_thread() or former in (signal.SIG_IGN, None):
        yield
        return
    own, is_interrupted = os.getpid(), False

    def interrupt(number: int, frame) -> None:
        nonlocal is_interrupted
        if os.getpid() == own:  # and not one that was forked, and has not yet said that it leaves them to this one
            is_interrupted = True
            raise KeyboardInterrupt

    def hook(unraisable) -> None:
        # Python cannot raise where it forks, or where an object ends: it prints a traceback, and what came is lost.
        if not is_interrupted or os.getpid() != own:
            former_hook(unraisable)
        elif isinstance(unraisable.exc_value, KeyboardInterrupt):
            threading.Timer(SECONDS_UNTIL_AGAIN, os.kill, (own, signal.SIGINT)).start()
        # What else ends badly does so as it was interrupted.

    signal.signal(signal.SIGINT, interrupt)
    former_hook, sys.unraisablehook = sys.unraisablehook, hook
    try:
        yield
    except KeyboardInterrupt as end:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one is as good as the first
        if is_main_process:
            end.args = (say(),)  # which `run_command` prints
        # What loads images is ended here and not later, where nobody keeps it quiet.
        _end_workers()
        traceback.clear_frames(end.__traceback__)
        gc.collect()
        raise
    finally:
        sys.unraisablehook = former_hook
        signal.signal(signal.SIGINT, former)
