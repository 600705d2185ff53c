# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Reading and writing in threads, beside the model."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch


Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], num_threads: int, num_waiting: int
) -> Iterator[Result]:
    """
    Call a function with each item, in threads, and yield what it returns, in the order of the items.

    Items are taken in the thread that asks for the results, so `items` may be a generator that computes. Two of these
    around a model, `map_in_threads(write, compute(map_in_threads(read, files, ...)), ...)`, read what comes next and
    write what came before while it computes.

    Decoders, encoders and arithmetic of arrays run beside each other, as they need no lock of Python's. In the threads
    PyTorch computes with one thread each, so that they do not take all cores from the model several times over.

    Args:
        function (`Callable`): may raise; the error comes in the place of the result, and ends it.
        items (`Iterable`): as many as may be; no more are taken than are needed.
        num_threads (`int`): how many calls run at once.
        num_waiting (`int`): how many items are taken, at most, beyond the one whose result is asked for. So many items
            or results are in memory.
    """
    torch_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))
    waiting = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            del item  # or it would stay in memory until the next one
            if len(waiting) > num_waiting or waiting[0].done():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(torch_threads)  # threads that begin later would have one too
