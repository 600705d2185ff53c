# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What an evaluation counts while it runs, and the scores that it reports: of all classes, and of each."""

import difflib
import math
from collections.abc import Callable, Collection

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedConfig

from ..metrics import SCORES, SegmentationScores, confusion_matrix, mean_iou_from_confusion


NUM_WORST_IMAGES = 20
# The names of the scores of each class.
CLASS_SCORES = ("iou", "accuracy")


class RunningCounts:
    """
    What an evaluation has counted so far, in one process, and after [`sum_over_processes`] in all.

    Args:
        config ([`DenseCLIPConfig`]): its classes and `ignore_index` apply.
        device (`torch.device`): where counts are kept.

    Attributes:
        confusion (`torch.Tensor` of shape `(num_labels, num_labels)` and type int64): row = label, column =
            prediction.
        num_images (`int`): how many were counted.
        losses (`list[float]`): of the images that have one. Not their sum, whose last bits would depend on the order,
            and so on the number of processes.
        worst_images (`list[tuple[float, int]]`): mean IoU and index of the worst.
    """

    def __init__(self, config: PreTrainedConfig, device: torch.device):
        self.config = config
        self.confusion = torch.zeros((config.num_labels, config.num_labels), dtype=torch.int64, device=device)
        self.num_images = 0
        self.losses: list[float] = []
        self.worst_images: list[tuple[float, int]] = []

    def add(self, segmentation: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor | None, index: int) -> None:
        """Count one image: its classes, its loss where it has one, and its index in the data set."""
        if loss is not None:
            self.losses.append(float(loss))
        confusion = confusion_matrix(segmentation, labels, self.config.num_labels, self.config.ignore_index)
        self.confusion += confusion
        self.num_images += 1
        mean_iou = mean_iou_from_confusion(confusion).mean_iou
        if not math.isnan(mean_iou):
            self._keep_worst([*self.worst_images, (mean_iou, int(index))])

    def sum_over_processes(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Replace the counts by those of all processes; `reduce` sums a tensor over them."""
        self.confusion = reduce(self.confusion).cpu()
        self.num_images = int(reduce(torch.tensor(self.num_images)))
        self.losses = gather_object(self.losses)
        self._keep_worst(gather_object(self.worst_images))
        self.worst_images.sort()

    def _keep_worst(self, images: list[tuple[float, int]]) -> None:
        """Of images with the same IoU the later ones are kept."""
        self.worst_images = sorted(images, key=lambda image: (image[0], -image[1]))[:NUM_WORST_IMAGES]


def name_scores(scores: SegmentationScores, id2label: dict[int, str]) -> dict[str, float]:
    """The scores that are defined, by name: the Trainer writes them as JSON, which has no NaN."""
    named = {score: getattr(scores, score) for score in SCORES}
    for label, name in id2label.items():
        named.update({f"{score}/{name}": float(getattr(scores, score)[label]) for score in CLASS_SCORES})
    return {name: value for name, value in named.items() if not math.isnan(value)}


def check_metric_for_best_model(asked: str, id2label: dict[int, str], set_names: Collection[str] = ()) -> None:
    """
    Raises:
        ValueError: if what is asked to choose the best model is nothing that an evaluation of these classes reports,
            of data sets of these names where there are several.
    """
    sets = [f"{name}_" for name in set_names] or [""]
    of_all = [f"{name}{score}" for name in sets for score in ("loss", *SCORES)]
    of_each = [f"{name}{score}/" for name in sets for score in CLASS_SCORES]
    known = of_all + [f"{score}{label}" for score in of_each for label in id2label.values()]
    name = asked.removeprefix("eval_")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise ValueError(
            f"--metric_for_best_model {asked} is nothing that an evaluation"
            f" reports{f'; did you mean {near[0]}?' if near else '.'} It reports {', '.join(of_all)}, and of each"
            f" class {', '.join(f'{score}NAME' for score in of_each)}, all with or without eval_ in front."
        )
