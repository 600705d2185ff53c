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
"""How Ctrl-C and SIGTERM end a training: with a word, and without the tracebacks of the processes that help it."""

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
_handling_processes: list[int] = []  # those inside of `quiet_interrupts`: of a process that was forked, the parent


def _forget_handlers() -> None:
    # A handler in Python is not called while the process waits for a lock, and pools end theirs by SIGTERM: one that
    # kept the parent's handler could wait for ever.
    if _handling_processes:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):  # Windows forks nothing
    os.register_at_fork(after_in_child=_forget_handlers)


def leave_signals_to_parent() -> None:
    """For processes that help: a terminal sends Ctrl-C, and SLURM SIGTERM, to all of a command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One that dies of a signal is an error to the process that waits for it.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    sys.excepthook = _hook_of_helper


def _hook_of_helper(error_type: type[BaseException], *args) -> None:
    # The thread that hands tensors over meets a parent that was interrupted while it took one.
    if not issubclass(error_type, ConnectionError | EOFError):
        sys.__excepthook__(error_type, *args)


def initialize_worker(initialize: Callable[[int], None] | None, worker_id: int) -> None:
    """As `worker_init_fn` of a `DataLoader`, before what was to be called there."""
    leave_signals_to_parent()
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
    Inside of it Ctrl-C, and SIGTERM, which SLURM and Docker send, end the work with a word and no traceback: they are
    raised as `KeyboardInterrupt` and as `SystemExit`, whose exit status is 143.

    Args:
        say (`Callable[[], str]`): makes the word, when it is due.
        is_main_process (`bool`, *optional*, defaults to `True`): whether this is the one of several that speaks.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one is told of signals
        yield
        return
    received, own = [], os.getpid()

    def interrupt(number: int, frame) -> None:
        received.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def hook(unraisable) -> None:
        # Python cannot raise where it forks, or where an object ends: it prints a traceback, and what came is lost.
        if not received or os.getpid() != own:
            former_hook(unraisable)
        elif isinstance(unraisable.exc_value, KeyboardInterrupt | SystemExit):
            threading.Timer(SECONDS_UNTIL_AGAIN, os.kill, (own, received[-1])).start()
        # What else ends badly does so as it was interrupted.

    # One that is ignored, as in a script's background, stays so.
    handled = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    former = {number: signal.signal(number, interrupt) for number in handled}
    former_hook, sys.unraisablehook = sys.unraisablehook, hook
    _handling_processes.append(own)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        if received:
            for number in former:  # a second one is as good as the first
                signal.signal(number, signal.SIG_IGN)
            if is_main_process and isinstance(end, KeyboardInterrupt):
                end.args = (say(),)  # which `run_command` prints
            elif is_main_process:
                print(f"\nTerminated. {say()}", file=sys.stderr, flush=True)
            # What loads images is ended here and not later, where nobody keeps it quiet.
            _end_workers()
            traceback.clear_frames(end.__traceback__)
            gc.collect()
        raise
    finally:
        _handling_processes.remove(own)
        sys.unraisablehook = former_hook
        for number, handler in former.items():
            signal.signal(number, handler)
