# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What a model finds in photographs: the class of each pixel. Where any words match: `text_scores.py`."""

import copy
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import PIL.Image
import torch

from ...class_maps_denseclip import class_maps, id_dtype, whole_positions
from ...image_processing_denseclip import DenseCLIPImageProcessor
from ...inference_denseclip import PAPER_SCALES, average_probabilities, scaled_size
from ...modeling_denseclip import DenseCLIPForSemanticSegmentation
from ..files.received import check_seen_size
from ..pictures.palettes import generate_palette
from ..stopwatch import Stopwatch


Item = TypeVar("Item")


class Predictor:
    """
    What all predictions of photographs share, by a model in evaluation mode, at some `scales` of the image processor's
    size. Images are not padded, even if it pads batches: what lies beside a photograph changes its classes, and maps
    have to lie on it. Its `stopwatch` measures where the time goes, if one is put there that is on.
    """

    def __init__(
        self,
        model: DenseCLIPForSemanticSegmentation,
        image_processor: DenseCLIPImageProcessor,
        scales: Sequence[float] = (1.0,),
    ):
        self.model = model
        self.image_processor = copy.copy(image_processor)
        self.image_processor.do_pad = False
        self.scales = scales
        self.stopwatch = Stopwatch()
        smaller = "make it smaller" if model.device.type == "cpu" else "--device cpu"
        self.memory_advice = f"{model.device} has too little memory for this: try --batch_size 1, or {smaller}."

    def check(self, photograph: PIL.Image.Image) -> None:
        """
        Raises:
            ValueError: for a photograph that is too small or too narrow for the model.
        """
        size = photograph.size[::-1]
        smallest = min((self.prepared_size(size, scale) for scale in self.scales), key=min)
        check_seen_size(size, smallest, self.model.min_image_size)

    def prepared_size(self, size: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
        """Height and width of what the model sees of a photograph of this height and width."""
        if not self.image_processor.do_resize:
            return size
        return self.image_processor.get_resized_size(*size, scaled_size(self.image_processor.size, scale))

    def prepare_scales(self, photographs: Sequence[PIL.Image.Image]) -> list[torch.Tensor]:
        """Photographs of one size -> what the model sees of them at each of the scales, as [`~Predictor.prepare`]."""
        with self.stopwatch.measure("preparing"):
            return [self.prepare(photographs, scale) for scale in self.scales]

    def prepare(self, photographs: Sequence[PIL.Image.Image], scale: float = 1.0) -> torch.Tensor:
        """Photographs of one size -> `(batch_size, 3, height, width)`."""
        inputs = self.image_processor(
            list(photographs), size=scaled_size(self.image_processor.size, scale), return_tensors="pt"
        )
        return inputs.pixel_values.to(self.model.device, self.model.dtype)


class ClassPredictor(Predictor):
    """
    The class of each pixel. `palette` has one RGB colour per class, in [0, 255], and is by default the model's own, or
    generated; `window` is what a call of the model says about sliding windows; `use_tta` averages over the scales of
    the paper, each mirrored too.

    Raises:
        ValueError: for an image processor that does not resize, where several sizes are asked for.
    """

    def __init__(
        self,
        model: DenseCLIPForSemanticSegmentation,
        image_processor: DenseCLIPImageProcessor,
        palette: Sequence[Sequence[int]] | None = None,
        window: dict[str, Any] | None = None,
        use_tta: bool = False,
    ):
        super().__init__(model, image_processor, PAPER_SCALES if use_tta else (1.0,))
        if use_tta and not image_processor.do_resize:
            raise ValueError("The images of this model are not resized (`do_resize`), so --tta has no sizes for them.")
        self.palette = palette or model.config.palette or generate_palette(model.config.num_labels)
        self.window = window or {}
        self.use_tta = use_tta
        self.labels = [model.config.id2label[index] for index in range(model.config.num_labels)]

    @torch.no_grad()
    def __call__(self, photographs: Sequence[PIL.Image.Image]) -> list[tuple[np.ndarray, np.ndarray]]:
        """
        Segment photographs of one size.

        Returns:
            `list[tuple[np.ndarray, np.ndarray]]`: for each photograph the class ids, `(height, width)`, of 8 bits or,
            for more than 256 classes, of 32, and for each class its pixels and the sum of its probability over them,
            `(2, num_labels)`.
        """
        size = photographs[0].size[::-1]
        return self.find_classes(self.compute(self.prepare_scales(photographs), size), size)

    @torch.no_grad()
    def compute(self, copies: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """
        What [`~Predictor.prepare_scales`] has made of photographs of this height and width -> logits, `(batch_size,
        num_labels, logits_height, logits_width)`.
        """
        with self.stopwatch.measure_model(self.model.device):
            if not self.use_tta:
                return self.model(copies[0], return_dict=True, **self.window).logits
            # At the photograph's own size, as in the evaluation, unless that is large: the probabilities of all
            # classes would take gigabytes.
            smaller = min(size, self.prepared_size(size), key=math.prod)
            probabilities = average_probabilities(self.model, copies, smaller, **self.window)
            # The softmax of these logarithms gives the probabilities back.
            return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()

    def find_classes(self, logits: torch.Tensor, size: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The logits of photographs of this height and width -> what a call returns."""
        with self.stopwatch.measure("resizing"):
            rows, columns = whole_positions(size, logits)
            dtype = id_dtype(len(self.labels))
            found = class_maps(((of_image, rows, columns) for of_image in logits), with_scores=True, dtype=dtype)
            return [(class_ids.cpu().numpy(), torch.stack(scores).cpu().numpy()) for class_ids, scores, _ in found]

    def list_classes(self, totals: np.ndarray) -> list[dict[str, Any]]:
        """Pixels and sums of probabilities, `(2, num_labels)` -> the classes that are there, the largest first."""
        pixels, probabilities = totals.tolist()  # plain numbers, as JSON takes them
        total = sum(pixels)
        return [
            {
                "id": index,
                "label": self.labels[index],
                "pixels": int(pixels[index]),
                "area": round(pixels[index] / total, 6),
                "score": round(probabilities[index] / pixels[index], 6),
            }
            for index in np.argsort(-totals[0], kind="stable")[: np.count_nonzero(pixels)].tolist()
        ]


def batched(items: Iterable[Item], batch_size: int, key: Callable[[Item], Hashable]) -> Iterator[list[Item]]:
    """Divide items into lists of up to `batch_size` consecutive ones that have the same key."""
    for _, group in itertools.groupby(items, key):
        while batch := list(itertools.islice(group, batch_size)):
            yield batch
