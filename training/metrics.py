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
"""Mean intersection over union of a whole data set, from one confusion matrix."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class SegmentationScores:
    """
    The scores of one confusion matrix. All are fractions in [0, 1], or NaN where they are not defined.

    Args:
        mean_iou (`float`): mIoU, the mean of `iou` over the classes that occur in the labels or the predictions.
        mean_accuracy (`float`): mAcc, the mean of `accuracy` over the classes that occur in the labels.
        overall_accuracy (`float`): aAcc, the share of the labelled pixels that are predicted correctly.
        iou (`np.ndarray` of shape `(num_labels,)`): NaN for a class in neither the labels nor the predictions.
        accuracy (`np.ndarray` of shape `(num_labels,)`): recall; NaN for a class that is not in the labels.
    """

    mean_iou: float
    mean_accuracy: float
    overall_accuracy: float
    iou: np.ndarray
    accuracy: np.ndarray


def confusion_matrix(
    predictions: torch.Tensor, labels: torch.Tensor, num_labels: int, ignore_index: int = 255
) -> torch.Tensor:
    """
    Count the pixels of every (label, prediction) pair.

    Confusion matrices add: the matrix of a data set is the sum of those of its images, in any order and split over
    any number of processes.

    Args:
        predictions (`torch.Tensor` of any shape): class ids in [0, num_labels).
        labels (`torch.Tensor` of the same shape): class ids in [0, num_labels), or `ignore_index`.
        num_labels (`int`): the number of classes K.
        ignore_index (`int`, *optional*, defaults to 255): pixels with this label are not counted.

    Returns:
        `torch.Tensor` of shape `(num_labels, num_labels)` and type int64: row = label, column = prediction.

    Raises:
        `ValueError`: if the shapes differ, or an id is outside its range.
    """
    if predictions.shape != labels.shape:
        raise ValueError(
            f"Predictions of shape {tuple(predictions.shape)} cannot be compared with labels of shape "
            f"{tuple(labels.shape)}: resize the predictions to the size of the labels first."
        )
    labelled = labels != ignore_index
    labels, predictions = labels[labelled].long(), predictions[labelled].long()
    for name, ids in (("label", labels), ("prediction", predictions)):
        if ids.numel() and not 0 <= (wrong := ids.max() if ids.max() >= num_labels else ids.min()) < num_labels:
            raise ValueError(
                f"Found the {name} {int(wrong)}; with {num_labels} classes ids lie in [0, {num_labels - 1}]"
                + (f", and {ignore_index} is unlabelled." if name == "label" else ".")
            )
    counts = torch.bincount(labels * num_labels + predictions, minlength=num_labels**2)
    return counts.reshape(num_labels, num_labels)


def mean_iou_from_confusion(confusion: torch.Tensor | np.ndarray) -> SegmentationScores:
    """
    Compute mIoU, mAcc and aAcc as mmsegmentation and the `mean_iou` metric of `evaluate` do.

    The mean is taken over classes, on the pixels of all images together: it is not a mean of per-image values.
    A class that occurs nowhere counts in no mean. A class that is predicted but never labelled has IoU 0.

    Args:
        confusion (`torch.Tensor` or `np.ndarray` of shape `(num_labels, num_labels)`): row label, column prediction.

    Source: `mean_iou` in mmseg/core/evaluation/metrics.py.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    intersection = np.diag(confusion)
    labelled, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    iou = _divide(intersection, labelled + predicted - intersection)
    accuracy = _divide(intersection, labelled)
    return SegmentationScores(
        mean_iou=_nanmean(iou),
        mean_accuracy=_nanmean(accuracy),
        overall_accuracy=float(_divide(intersection.sum(), labelled.sum())),
        iou=iou,
        accuracy=accuracy,
    )


def format_scores(scores: SegmentationScores, class_names: list[str]) -> str:
    """Write the scores as a table in per cent, one row per class; a dash stands for a score that is not defined."""

    def percent(value: float) -> str:
        return f"{'-':>7}" if np.isnan(value) else f"{100 * value:7.2f}"

    width = max(map(len, [*class_names, "class"]))
    lines = [f"{'class':<{width}}  {'IoU':>7}  {'Acc':>7}", "-" * (width + 18)]
    for name, iou, accuracy in zip(class_names, scores.iou, scores.accuracy, strict=True):
        lines.append(f"{name:<{width}}  {percent(iou)}  {percent(accuracy)}")
    lines.append("-" * (width + 18))
    for name, value in (
        ("mIoU", scores.mean_iou),
        ("mAcc", scores.mean_accuracy),
        ("aAcc", scores.overall_accuracy),
    ):
        lines.append(f"{name:<{width}}  {percent(value)}")
    return "\n".join(lines)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return numerator / denominator


def _nanmean(values: np.ndarray) -> float:
    # np.nanmean warns about a list of nothing but NaN; here that is a legal case, in which nothing was labelled.
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
