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

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .checkpoints import LAST, checkpoint_to_resume


def leave_signals_to_parent() -> None:
    """
    For processes that help: a terminal sends Ctrl-C to all of a command, and the one that they work for ends them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not what they inherited, and what their parent ends them by


def initialize_worker(initialize: Callable[[int], None] | None, worker_id: int) -> None:
    """As `worker_init_fn` of a `DataLoader`, before what was to be called there."""
    leave_signals_to_parent()
    if initialize is not None:
        initialize(worker_id)


@contextmanager
def saying_how_to_go_on(output_dir: str, is_main_process: bool = True) -> Iterator[None]:
    """
    Inside of it Ctrl-C is followed by a word on how to go on, and so is SIGTERM, which SLURM and Docker send: then the
    exit status is 143.
    """

    def end(number: int, frame) -> None:
        raise SystemExit(128 + number)

    handles = threading.current_thread() is threading.main_thread()
    former = signal.signal(signal.SIGTERM, end) if handles else None
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as interrupt:
        is_terminated = isinstance(interrupt, SystemExit)
        if is_main_process and (not is_terminated or interrupt.code == 128 + signal.SIGTERM):
            last = checkpoint_to_resume(output_dir, LAST)
            print(
                f"\n{'Terminated' if is_terminated else 'Interrupted'}. "
                + (
                    f"The last checkpoint is {last}: go on from it with --resume_from_checkpoint {LAST}."
                    if last
                    else f"There is no checkpoint in {output_dir} yet, so nothing was saved to go on from."
                ),
                file=sys.stderr,
                flush=True,
            )
        raise
    finally:
        if handles:
            signal.signal(signal.SIGTERM, former)
