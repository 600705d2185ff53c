# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The processes that load images and check masks for a command: how Ctrl-C ends them, and what their errors say.

Ctrl-C ends a command with a message, and without the tracebacks of these processes. SIGTERM, which SLURM and Docker
send, is left to the system, which ends the command at once: pools end their processes by SIGTERM and wait for them,
and a handler in Python, which these would inherit, may miss the signal where a process has just started.
"""

import gc
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter


def leave_interrupts_to_parent() -> None:
    """Ignore Ctrl-C, in a process that works for another one: a terminal sends it to all processes of a command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _report_unless_parent_is_gone


def _report_unless_parent_is_gone(error_type: type[BaseException], *args) -> None:
    # The thread that hands tensors over fails so when the parent was interrupted while it received one.
    if not issubclass(error_type, ConnectionError | EOFError):
        sys.__excepthook__(error_type, *args)


def leave_interrupts_to_us(dataloader: DataLoader) -> DataLoader:
    """Let the processes of a `DataLoader` ignore Ctrl-C."""
    initialize = partial(_initialize_worker, dataloader.worker_init_fn)
    for loader in (dataloader, getattr(dataloader, "base_dataloader", dataloader)):  # Accelerate's wraps one
        loader.worker_init_fn = initialize
    return dataloader


def _initialize_worker(initialize: Callable[[int], None] | None, worker_id: int) -> None:
    leave_interrupts_to_parent()
    if initialize is not None:
        initialize(worker_id)


@contextmanager
def starting_helpers() -> Iterator[None]:
    """
    Processes that are started within this context never receive Ctrl-C, not even while they import what they need. The
    parent receives it afterwards: interrupted after it has started a process and before it has noted that, a pool
    would forget the process, which would wait for work for ever.
    """
    handler = signal.getsignal(signal.SIGINT)
    is_handled = threading.current_thread() is threading.main_thread() and callable(handler)
    if not (is_handled and hasattr(signal, "pthread_sigmask")):  # the latter Windows lacks
        yield
        return
    received = []
    # A forked process inherits the handler, one that runs another program the blocked signal. To block it would not
    # be enough for the parent, where another thread may receive it.
    signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)


def _end_workers() -> None:
    """
    End the processes of all `DataLoader`s. The garbage collector would do it late: it may close their queues first, by
    which they are told to end, and torch then waits 5 seconds for each.
    """
    for found in gc.get_objects():
        if issubclass(type(found), _MultiProcessingDataLoaderIter):
            with suppress(AttributeError):  # of one that was interrupted as it was made
                found._shutdown_workers()


@contextmanager
def quiet_interrupts(say: Callable[[], str], is_main_process: bool = True) -> Iterator[None]:
    """
    Within this context Ctrl-C raises a `KeyboardInterrupt` with the message of `say`, which only the main process
    prints, and helping processes print no traceback.
    """
    former = signal.getsignal(signal.SIGINT)
    # Only the main thread receives signals. An ignored one, as of a command in a script's background, stays ignored.
    if threading.current_thread() is not threading.main_thread() or former in (signal.SIG_IGN, None):
        yield
        return
    own, is_interrupted = os.getpid(), False

    def interrupt(number: int, frame) -> None:
        nonlocal is_interrupted
        if os.getpid() == own:  # not in a forked process that has not yet called `leave_interrupts_to_parent`
            is_interrupted = True
            raise KeyboardInterrupt

    def hook(unraisable) -> None:
        # Within a fork and within `__del__` Python cannot raise: it would print the KeyboardInterrupt and drop it, so
        # the signal is sent once more. Other errors there are consequences of the interrupt, and are not printed.
        if not is_interrupted or os.getpid() != own:
            former_hook(unraisable)
        elif isinstance(unraisable.exc_value, KeyboardInterrupt):
            threading.Timer(0.05, os.kill, (own, signal.SIGINT)).start()

    signal.signal(signal.SIGINT, interrupt)
    former_hook, sys.unraisablehook = sys.unraisablehook, hook
    try:
        yield
    except KeyboardInterrupt as end:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would only interrupt this clean-up
        if is_main_process:
            end.args = (say(),)  # which `run_command` prints
        # Within the hook, so that the processes that load images print nothing as they end.
        _end_workers()
        traceback.clear_frames(end.__traceback__)
        gc.collect()
        raise
    finally:
        sys.unraisablehook = former_hook
        signal.signal(signal.SIGINT, former)


@contextmanager
def explain_worker_errors(advise: Callable[[], str]) -> Iterator[None]:
    """
    Explain the errors of processes that load images, of which torch passes on a whole traceback as the message.

    Raises:
        ChildProcessError: in place of torch's `RuntimeError`, if such a process died; ends with what `advise` says.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if not re.match(r"Caught \w+ in DataLoader worker process", str(error)):
            raise
        *_, message = re.split(rf"^(?:[\w.]+\.)?{type(error).__name__}: ", str(error), flags=re.MULTILINE)
        raise type(error)(message.strip()) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise ChildProcessError(
            f"A process that loads images died ({str(error).strip()}). The system ends those that take too much"
            f" memory; take fewer by --dataloader_num_workers, or 0 to see the error that they meet.{advise()}"
        ) from error
