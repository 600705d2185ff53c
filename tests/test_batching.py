# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The queue of servers: who goes through the model together, who waits, and who gets which answer or error."""

import base64
import io
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait

import numpy as np
import PIL.Image
import pytest
import torch

from modeling_denseclip.tools.files.received import MAXIMUM_BYTES, TooLargeError
from modeling_denseclip.tools.insight import batching
from modeling_denseclip.tools.insight.batching import QueueFullError, SegmentationQueue
from modeling_denseclip.tools.insight.predictors import ClassPredictor
from tests.test_pipeline import SIZE, save_model
from tests.tiny import draw_picture


# Two of them are one size as the model sees them.
SIZES = ((120, 90), (240, 180), (90, 120))


def encode(picture: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def read_ids(answer: dict) -> np.ndarray:
    """The mask of an answer, as ids `(height, width)`."""
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(answer["mask"]))))


def assert_same(answer: dict, other: dict):
    """Neighbours in a batch change the last bits of logits, and so the class where two are as good as equal."""
    assert (read_ids(answer) == read_ids(other)).mean() > 0.999


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, model, image processor)"""
    folder = tmp_path_factory.mktemp("model")
    # A processor that pads batches: what lies beside a photograph would change its classes.
    model, processor = save_model("resnet", folder, do_pad=True, pad_size={"height": 160, "width": 160})
    return folder, model.eval(), processor


class Gate:
    """Stands before the model: photographs go through when it is opened, and it notes which went together."""

    def __init__(self, queue: SegmentationQueue, monkeypatch):
        self.batches, self.opened, self.arrived = [], threading.Event(), threading.Event()
        compute = queue.predictor.compute

        def wait_and_compute(copies, size):
            self.arrived.set()
            assert self.opened.wait(60)
            self.batches.append(tuple(copies[0].shape))
            return compute(copies, size)

        monkeypatch.setattr(queue.predictor, "compute", wait_and_compute)


@pytest.fixture
def make_queue(saved):
    queues = []

    def make(**kwargs) -> SegmentationQueue:
        queues.append(SegmentationQueue(*saved[1:], **kwargs))
        return queues[-1]

    yield make
    for queue in queues:
        queue.close()


def hold_back(queue: SegmentationQueue, monkeypatch) -> Gate:
    """A gate with a photograph before it, of which the model sees another size than of all others."""
    gate = Gate(queue, monkeypatch)
    queue.submit(encode(draw_picture(96, 96)))
    assert gate.arrived.wait(60)
    return gate


def wait_until_read(queue: SegmentationQueue, number: int) -> None:
    """Until so many photographs wait for the model."""
    with queue._changed:
        assert queue._changed.wait_for(lambda: len(queue._waiting) >= number, timeout=60)


def submit_in_order(queue: SegmentationQueue, photographs: list[bytes]) -> list:
    answers = []
    for photograph in photographs:
        answers.append(queue.submit(photograph))
        wait_until_read(queue, len(answers))
    return answers


def test_each_client_gets_the_answer_of_its_photograph(saved, make_queue):
    _, model, processor = saved
    pictures = [draw_picture(*SIZES[seed % 3], seed) for seed in range(24)]
    queue = make_queue(batch_size=4, maximum_waiting=24)
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda picture: queue.submit(encode(picture)).result(60), pictures))
    predictor = ClassPredictor(model, processor)
    for picture, answer in zip(pictures, answers, strict=True):
        ((class_ids, totals),) = predictor([picture])
        mask = PIL.Image.open(io.BytesIO(base64.b64decode(answer["mask"])))
        assert mask.mode == "P" and mask.size == picture.size == (answer["width"], answer["height"])
        # Neighbours in a batch change the last bits of logits, and so the class where two are as good as equal.
        assert (np.asarray(mask) == class_ids).mean() > 0.999
        expected = {entry["label"]: entry for entry in predictor.list_classes(totals)}
        assert {entry["label"] for entry in answer["classes"]} == expected.keys()
        for entry in answer["classes"]:
            assert entry["score"] == pytest.approx(expected[entry["label"]]["score"], abs=1e-3)


def test_those_that_wait_in_one_size_go_together_and_the_oldest_first(make_queue, monkeypatch):
    queue = make_queue(batch_size=3)
    gate = hold_back(queue, monkeypatch)
    order = (0, 2, 1, 0, 1, 2)  # of SIZES, whose first two become (96, 128)
    answers = submit_in_order(queue, [encode(draw_picture(*SIZES[kind], seed)) for seed, kind in enumerate(order)])
    gate.opened.set()
    wait(answers)
    assert gate.batches == [(1, 3, 96, 96), (3, 3, 96, 128), (2, 3, 128, 96), (1, 3, 96, 128)]
    sizes = [(answer.result()["width"], answer.result()["height"]) for answer in answers]
    assert sizes == [SIZES[kind] for kind in order]


def test_who_finds_no_place_is_told_at_once_and_the_others_are_answered(make_queue, monkeypatch):
    queue = make_queue(maximum_waiting=3)
    gate = hold_back(queue, monkeypatch)
    photograph = encode(draw_picture(60, 50))
    answers = [queue.submit(photograph) for _ in range(2)]
    with pytest.raises(QueueFullError, match="3 photographs are waiting: try again"):
        queue.submit(photograph)
    gate.opened.set()
    wait(answers)
    assert_same(queue.submit(photograph).result(60), answers[0].result())


def test_what_cannot_be_read_takes_no_place_and_stops_nobody(make_queue):
    queue = make_queue(maximum_waiting=1)
    whole = encode(draw_picture(60, 50))
    for data, error, words in (
        (b"no picture", ValueError, "cannot be read as a picture"),
        (whole[:-40], ValueError, "cannot be read as a picture"),
        (b"", ValueError, "cannot be read as a picture"),
        (encode(PIL.Image.new("RGB", (2000, 20))), ValueError, "both sides must have at least 32"),
        (bytes(MAXIMUM_BYTES + 1), TooLargeError, "20 are the limit"),
        (encode(PIL.Image.new("1", (6001, 4000))), TooLargeError, "24 megapixels are the limit"),
    ):
        with pytest.raises(error, match=words):
            queue.submit(data).result(60)
    assert queue.submit(whole).result(60)["width"] == 60


def test_who_leaves_before_its_turn_costs_nothing(make_queue, monkeypatch):
    queue = make_queue(maximum_waiting=3)
    gate = hold_back(queue, monkeypatch)
    left, stays = submit_in_order(queue, [encode(draw_picture(120, 90, seed)) for seed in range(2)])
    assert left.cancel()
    again = queue.submit(encode(draw_picture(120, 90, 1)))  # its place is free
    wait_until_read(queue, 3)
    gate.opened.set()
    wait([stays, again])
    assert gate.batches == [(1, 3, 96, 96), (2, 3, 96, 128)]
    assert_same(stays.result(), again.result())


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), KeyError("odd")])
def test_what_fails_together_is_tried_one_by_one(make_queue, monkeypatch, error):
    queue = make_queue()
    gate = hold_back(queue, monkeypatch)
    compute = queue.predictor.compute
    failing = encode(draw_picture(120, 90, 5))
    marked = queue.predictor.prepare_scales([draw_picture(120, 90, 5)])[0]

    def fail(copies, size):
        if len(copies[0]) > 1 or torch.equal(copies[0], marked):
            raise error
        return compute(copies, size)

    monkeypatch.setattr(queue.predictor, "compute", fail)
    first, second, third = submit_in_order(
        queue, [encode(draw_picture(120, 90)), failing, encode(draw_picture(120, 90))]
    )
    gate.opened.set()
    assert first.result(60) == third.result(60)
    words = "needs more memory than there is" if isinstance(error, RuntimeError) else "odd"
    with pytest.raises(ValueError if isinstance(error, RuntimeError) else KeyError, match=words):
        second.result(60)
    assert queue.submit(encode(draw_picture(96, 96))).result(60)["width"] == 96


def test_who_waits_when_it_is_closed_is_told_so(saved, monkeypatch):
    queue = SegmentationQueue(*saved[1:])
    gate = Gate(queue, monkeypatch)
    computed = queue.submit(encode(draw_picture(96, 96)))
    assert gate.arrived.wait(60)
    (waiting,) = submit_in_order(queue, [encode(draw_picture(120, 90))])
    closing = threading.Thread(target=queue.close)
    closing.start()
    while not queue._is_closed:
        time.sleep(0.001)
    gate.opened.set()
    closing.join(60)
    assert computed.result(60)["width"] == 96
    with pytest.raises(CancelledError):
        waiting.result(60)
    with pytest.raises(RuntimeError):
        queue.submit(encode(draw_picture(96, 96)))
    assert not [thread for thread in threading.enumerate() if thread in (queue._thread, closing)]


def test_a_folder_is_loaded_and_made_fast(saved, monkeypatch):
    monkeypatch.setattr("modeling_denseclip.tools.files.devices.multiplies_bfloat16", lambda device: True)
    queue = SegmentationQueue.from_pretrained(str(saved[0]), device="cpu", batch_size=2)
    assert queue.predictor.model.is_fused and queue.predictor.model.dtype == torch.bfloat16
    assert queue.batch_size == 2
    assert queue.submit(encode(draw_picture(60, 50))).result(60)["height"] == 50
    queue.close()


@pytest.mark.parametrize("words", [{"batch_size": 0}, {"maximum_waiting": 0}])
def test_numbers_that_let_nothing_through_are_refused(saved, words):
    with pytest.raises(ValueError, match=f"{next(iter(words))} is at least 1; got 0"):
        SegmentationQueue(*saved[1:], **words)


def test_ids_of_many_classes_have_16_bits():
    class Many:
        palette = [(0, 0, 0)] * 300
        list_classes = staticmethod(lambda totals: [])

    class_ids = np.arange(300, dtype=np.int32).reshape(15, 20)
    answer = batching.describe_segmentation(Many, class_ids, np.zeros((2, 300)))
    assert np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(answer["mask"])))), class_ids)


assert SIZE == {"shortest_edge": 96, "longest_edge": 160}, "of which the sizes above are made"
