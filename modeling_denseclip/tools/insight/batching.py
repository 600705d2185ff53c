# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Photographs of many clients through one model: they queue, and those that wait go through it together."""

import asyncio
import base64
import io
import os
import threading
from collections import deque
from collections.abc import AsyncIterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

from ...image_processing_denseclip import DenseCLIPImageProcessor
from ...modeling_denseclip import DenseCLIPForSemanticSegmentation
from ..files.devices import choose_device, naming_lack_of_memory, prepare_for_inference
from ..files.loading import load_model
from ..files.received import MAXIMUM_BYTES, MEMORY_ADVICE, TooLargeError, read_received
from ..pictures.drawing import draw_mask
from .predictors import ClassPredictor


class QueueFullError(RuntimeError):
    """As many photographs wait as may. HTTP has the status 503 for it."""


class _Waiting(NamedTuple):
    """A photograph that waits for the model: what the model sees of it, `(1, 3, height, width)`, and its own size."""

    answer: Future
    pixel_values: torch.Tensor
    size: tuple[int, int]


class SegmentationQueue:
    """
    Segments photographs of many clients, whose threads may be any.

    Threads, one for each core, read and prepare photographs and pack answers, and one has the model. When that one is
    free, it takes the photograph that has waited longest, and with it those that have the same size as the model sees
    them. Nothing waits for others to come.

    Args:
        model ([`DenseCLIPForSemanticSegmentation`]): in evaluation mode.
        image_processor ([`DenseCLIPImageProcessor`]): of its pictures.
        batch_size (`int`, *optional*, defaults to 8): how many photographs go through the model together, at most.
        maximum_waiting (`int`, *optional*, defaults to 32): how many may be here at a time, those in the model too.
            The bytes of each file are kept until it is read, and then what the model sees of it.
    """

    def __init__(
        self,
        model: DenseCLIPForSemanticSegmentation,
        image_processor: DenseCLIPImageProcessor,
        batch_size: int = 8,
        maximum_waiting: int = 32,
    ):
        for name, value in (("batch_size", batch_size), ("maximum_waiting", maximum_waiting)):
            if value < 1:
                raise ValueError(f"{name} is at least 1; got {value}.")
        self.predictor = ClassPredictor(model, image_processor)
        self.batch_size = batch_size
        self.maximum_waiting = maximum_waiting
        self._places = threading.BoundedSemaphore(maximum_waiting)
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._readers = ThreadPoolExecutor(min(os.cpu_count() or 1, 2 * batch_size), "photographs")
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        device: str | None = None,
        dtype: str = "auto",
        revision: str = "main",
        **kwargs: int,
    ) -> "SegmentationQueue":
        """
        Load a model by its folder or Hub id, and make it fast; `dtype` as in [`~tools.files.devices.choose_dtype`],
        `kwargs` as of the class.

        Raises:
            ValueError, OSError: as [`~tools.files.loading.load_model`].
        """
        chosen = choose_device(device)
        model, image_processor = load_model(name_or_path, revision=revision)
        return cls(prepare_for_inference(model, chosen, dtype), image_processor, **kwargs)

    def submit(self, data: bytes) -> "Future[dict[str, Any]]":
        """
        Queue a photograph, by the bytes of its file.

        Returns:
            `Future`: its result is what [`describe_segmentation`] gives. Its errors are `TooLargeError`, and any other
            `ValueError` for what cannot be read, is too small, or needs more memory than there is. Where it is
            cancelled before its turn, nothing is computed.

        Raises:
            QueueFullError: where `maximum_waiting` photographs are here.
            RuntimeError: after [`~SegmentationQueue.close`].
        """
        if not self._places.acquire(blocking=False):
            raise QueueFullError(f"{self.maximum_waiting} photographs are waiting: try again in a moment.")
        answer: Future[dict[str, Any]] = Future()
        answer.add_done_callback(self._forget_cancelled)
        try:
            self._readers.submit(self._read, data, answer)
        except RuntimeError:  # it is closed
            answer.cancel()
            raise
        return answer

    async def answer(self, parts: AsyncIterable[bytes], seconds: float = 30.0) -> dict[str, Any]:
        """
        Receive a photograph, queue it, and wait for its answer.

        Args:
            parts (`AsyncIterable[bytes]`): of its file, as they come.
            seconds (`float`, *optional*, defaults to 30): how long all of them may take, so that nobody keeps a
                connection by sending a byte now and then.

        Returns:
            `dict`: what [`~SegmentationQueue.submit`] promises.

        Raises:
            asyncio.TimeoutError: where `seconds` have passed. HTTP has the status 408 for it.
            TooLargeError: as soon as there are more bytes than a photograph may have.
            ValueError, QueueFullError, RuntimeError: as [`~SegmentationQueue.submit`].
        """
        data = await asyncio.wait_for(receive(parts), seconds)
        return await asyncio.wrap_future(self.submit(data))

    def close(self) -> None:
        """End the threads. Who still waits gets a `CancelledError`."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()
        self._readers.shutdown()
        for waiting in self._waiting:
            waiting.answer.cancel()

    def _read(self, data: bytes, answer: Future) -> None:
        if answer.cancelled():
            return
        try:
            with naming_lack_of_memory(MEMORY_ADVICE):
                photograph = read_received(data)
                self.predictor.check(photograph)
                (pixel_values,) = self.predictor.prepare_scales([photograph])
        except Exception as error:
            if answer.set_running_or_notify_cancel():
                self._finish(answer, error)
            return
        with self._changed:
            self._waiting.append(_Waiting(answer, pixel_values, photograph.size[::-1]))
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                batch = self._take_batch()
            self._compute([waiting for waiting in batch if waiting.answer.set_running_or_notify_cancel()])

    def _take_batch(self) -> list[_Waiting]:
        """The photograph that has waited longest, and the next ones that the model sees in the same size."""
        shape = self._waiting[0].pixel_values.shape
        batch = [waiting for waiting in self._waiting if waiting.pixel_values.shape == shape][: self.batch_size]
        taken = set(map(id, batch))
        self._waiting = deque(waiting for waiting in self._waiting if id(waiting) not in taken)
        return batch

    def _compute(self, batch: list[_Waiting]) -> None:
        found = None
        try:
            with naming_lack_of_memory(MEMORY_ADVICE):
                found = self._find_classes(batch)
        except Exception as error:
            if len(batch) == 1:
                self._finish(batch[0].answer, error)
                return
        if found is None:  # what is wrong with one, or too much for the memory together, is not the others' matter
            for waiting in batch:
                self._compute([waiting])
            return
        for waiting, (class_ids, totals) in zip(batch, found, strict=True):
            self._readers.submit(self._pack, waiting.answer, class_ids, totals)

    def _find_classes(self, batch: list[_Waiting]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each photograph what a call of the predictor gives."""
        if not batch:
            return []
        pixel_values = torch.cat([waiting.pixel_values for waiting in batch])
        logits = self.predictor.compute([pixel_values], batch[0].size)
        found = [
            self.predictor.find_classes(of_image[None], waiting.size)
            for waiting, of_image in zip(batch, logits, strict=True)
        ]
        return [of_image for (of_image,) in found]

    def _pack(self, answer: Future, class_ids: np.ndarray, totals: np.ndarray) -> None:
        try:
            with naming_lack_of_memory(MEMORY_ADVICE):
                packed = describe_segmentation(self.predictor, class_ids, totals)
        except Exception as error:
            packed = error
        self._finish(answer, packed)

    def _finish(self, answer: Future, result: dict[str, Any] | Exception) -> None:
        self._places.release()  # before anybody knows, who may send the next photograph at once
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def _forget_cancelled(self, answer: Future) -> None:
        if answer.cancelled():
            self._places.release()


async def receive(parts: AsyncIterable[bytes]) -> bytes:
    """
    All parts of a file in one.

    Raises:
        TooLargeError: as soon as there are more than `MAXIMUM_BYTES`; the others are not waited for.
    """
    data = bytearray()
    async for part in parts:
        data += part
        if len(data) > MAXIMUM_BYTES:
            raise TooLargeError(f"A photograph may have {MAXIMUM_BYTES // 2**20} MB.")
    return bytes(data)


def describe_segmentation(predictor: ClassPredictor, class_ids: np.ndarray, totals: np.ndarray) -> dict[str, Any]:
    """
    What a server answers, for JSON, of what a call of the predictor has found in a photograph.

    Returns:
        `dict`: `height` and `width` in pixels; `mask`, a PNG as base64, whose pixels are class ids in the colours of
        the classes, or greys of 16 bits for more than 256; and `classes`, as [`~ClassPredictor.list_classes`].
    """
    file = io.BytesIO()
    draw_mask(class_ids, predictor.palette).save(file, "PNG")
    return {
        "height": class_ids.shape[0],
        "width": class_ids.shape[1],
        "mask": base64.b64encode(file.getvalue()).decode(),
        "classes": predictor.list_classes(totals),
    }
