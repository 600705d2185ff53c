# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Threads beside a model: order, bounds, errors and ends."""

import threading
import time
from contextlib import closing

import pytest
import torch

from modeling_denseclip.tools.files.pipelines import map_in_threads


def worker_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_results_come_in_the_order_of_the_items():
    def square(number):
        time.sleep(0.02 * (number % 3 == 0))  # the first ones are the slowest
        return number**2

    assert list(map_in_threads(square, range(20), 4, 6)) == [number**2 for number in range(20)]
    assert list(map_in_threads(square, [], 4, 6)) == []
    assert not worker_threads()


@pytest.mark.parametrize("num_waiting", [0, 1, 5])
def test_no_more_items_are_taken_than_may_wait(num_waiting):
    taken = []

    def items():
        for number in range(20):
            assert threading.current_thread() is threading.main_thread()
            taken.append(number)
            yield number

    with closing(map_in_threads(lambda number: number, items(), 2, num_waiting)) as results:
        for count, _ in enumerate(results, start=1):
            time.sleep(0.005)  # so that all that was taken is done, and the next one could be taken early
            assert len(taken) <= count + num_waiting
    assert len(taken) == 20


def test_calls_run_at_once():
    together = threading.Barrier(3)
    assert list(map_in_threads(lambda _: together.wait(timeout=60) >= 0, range(6), 3, 3)) == [True] * 6


def test_an_error_comes_in_the_place_of_its_result():
    called = []

    def refuse(number):
        called.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    results = map_in_threads(refuse, range(100), 2, 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(called) <= 8 and not worker_threads()


def test_what_is_closed_takes_nothing_more_and_leaves_no_thread():
    started = threading.Semaphore(0)

    def wait(number):
        started.release()
        time.sleep(0.01)
        return number

    with closing(map_in_threads(wait, iter(range(100)), 2, 50)) as results:
        next(results)
    assert not worker_threads()
    count = 0
    while started.acquire(blocking=False):
        count += 1
    assert count < 60


def test_pytorch_has_one_thread_in_each_and_as_many_as_before_elsewhere():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert list(map_in_threads(lambda _: torch.get_num_threads(), range(4), 2, 2)) == [1] * 4
        seen = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert torch.get_num_threads() == 3 and seen == [3]
    finally:
        torch.set_num_threads(before)
