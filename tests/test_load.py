# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Many predictions in one process, and many threads on one model: nothing piles up, and answers are those of one."""

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.insight.predictors import ClassPredictor
from modeling_denseclip.tools.pictures.palettes import generate_palette
from tests.tiny import TINY_CLASS_NAMES, draw_picture, make_tiny_tokenizer, tiny_model


NUM_THREADS = 8
CLASS_LISTS = (("person", "sky"), ("wall", "sky", "traffic light"), TINY_CLASS_NAMES, ("red wall", "person", "cat"))
SIZES = ((64, 64), (96, 64), (64, 160), (120, 72), (200, 130))


@pytest.fixture
def model() -> DenseCLIPForSemanticSegmentation:
    return tiny_model("vit").eval()


@pytest.fixture
def processor() -> DenseCLIPImageProcessor:
    return DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 160})


@pytest.fixture
def hasty_switches() -> Iterator[None]:
    """Threads take turns after every microsecond."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def count_objects() -> tuple[int, int]:
    """All objects that Python's collector knows, and the tensors among them."""
    gc.collect()
    objects = gc.get_objects()
    return len(objects), sum(isinstance(thing, torch.Tensor) for thing in objects)


def test_predictions_leave_nothing_behind(model, processor, caplog):
    """A hundred predictions; benchmarks/README.md has the memory that 10,000 took."""
    caplog.set_level("ERROR", "modeling_denseclip")  # pytest keeps what is logged
    tokenizer = make_tiny_tokenizer()

    def predict_all() -> None:
        for names in CLASS_LISTS:
            model.set_class_names(names, tokenizer=tokenizer)
            predictor = ClassPredictor(model, processor, generate_palette(len(names)))
            for seed, size in enumerate(SIZES):
                picture = draw_picture(*size, seed)
                ((class_ids, _),) = predictor([picture])
                assert class_ids.shape == size[::-1]
                model.score_text(predictor.prepare([picture]), names[:2], tokenizer)

    predict_all()
    counts = []
    for _ in range(5):
        predict_all()
        counts.append(count_objects())
    objects, tensors = zip(*counts, strict=True)
    # A round is 20 predictions, 4 lists of names and 20 texts: what each of one kind leaves behind are 16 objects.
    assert max(objects[1:]) - min(objects[1:]) <= 2, counts
    assert len(set(tensors)) == 1, counts


def ask_in_threads(questions: list[Callable[[], object]], rounds: int) -> list[list]:
    """All threads begin at once; each asks its question again and again, and gives its answers."""
    start = threading.Barrier(len(questions))

    def ask(question: Callable[[], object]) -> list:
        start.wait()
        return [question() for _ in range(rounds)]

    with ThreadPoolExecutor(len(questions)) as pool:
        return list(pool.map(ask, questions))


def assert_equal(answer, expected):
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_threads_share_a_model(kind, processor, hasty_switches):
    """Each with pictures of its own size, and its own kind of question."""
    shared, alone, tokenizer = tiny_model(kind).eval(), tiny_model(kind).eval(), make_tiny_tokenizer()
    pictures = [draw_picture(96 + 8 * index, 64 + 4 * index, seed=index) for index in range(NUM_THREADS)]
    pixel_values = [processor(picture, return_tensors="pt").pixel_values for picture in pictures]
    windows = {"inference_mode": "slide", "window_size": 64, "window_stride": 48}

    def questions(model) -> list[Callable[[], object]]:
        @torch.no_grad()
        def segment(index, **kwargs):
            outputs = model(pixel_values[index], **kwargs)
            return {name: value for name, value in outputs.items() if name != "auxiliary_logits"}

        @torch.inference_mode()
        def segment_in_inference_mode(index):
            return model(pixel_values[index]).logits.clone()

        def segment_with_gradients(index):
            return model(pixel_values[index]).logits.detach()

        @torch.no_grad()
        def segment_in_bfloat16(index):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return model(pixel_values[index]).logits

        return [
            lambda: segment(0),
            lambda: segment(1, output_hidden_states=True),
            lambda: segment(2, **windows)["logits"],
            lambda: segment_in_inference_mode(3),
            lambda: segment_with_gradients(4),
            lambda: segment_in_bfloat16(5),
            lambda: model.segment_classes(pixel_values[6], target_size=(100, 150)),
            lambda: model.score_text(pixel_values[7], ["a cat", "sky"], tokenizer),
        ]

    expected = [question() for question in questions(alone)]
    assert len(expected[1]["hidden_states"]) > 2 and "hidden_states" not in expected[0]
    for answers, right in zip(ask_in_threads(questions(shared), rounds=6), expected, strict=True):
        for answer in answers:
            assert_equal(answer, right)


def test_threads_that_rename_classes_between_calls(model, processor, hasty_switches):
    """Whoever sets names and asks holds a lock, as for anything that changes a model."""
    tokenizer, lock = make_tiny_tokenizer(), threading.Lock()
    pixel_values = processor(draw_picture(96, 64), return_tensors="pt").pixel_values

    @torch.no_grad()
    def ask(model, names):
        with lock:
            model.set_class_names(names, tokenizer=tokenizer)
            outputs = model(pixel_values)
        return outputs.text_embeddings, outputs.score_map

    lists = [*CLASS_LISTS, *(names[::-1] for names in CLASS_LISTS)]
    expected = [ask(tiny_model("vit").eval(), names) for names in lists]
    found = ask_in_threads([lambda names=names: ask(model, names) for names in lists], rounds=4)
    for answers, right in zip(found, expected, strict=True):
        for answer in answers:
            assert_equal(answer, right)
