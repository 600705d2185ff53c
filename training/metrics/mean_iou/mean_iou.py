# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Mean intersection over union of a data set, from counts of (label, prediction) pairs instead of kept maps.

One file, since `evaluate.load` copies it elsewhere: it imports nothing of ours.
"""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import datasets
import evaluate
import numpy as np
import torch


_DESCRIPTION = """
Intersection over union (IoU) of a class is the number of pixels that labels and predictions both give to the class,
divided by the number of those that either gives to it, counted over all images together. Mean IoU is its mean over the
classes. Maps are counted as they come, and none is kept.
"""

_INPUTS_DESCRIPTION = """
Args:
    predictions (`list` of maps of any sizes, or an array or tensor of shape `(num_maps, height, width)`):
        The predicted ids. A map is a `torch.Tensor` on any device, a `np.ndarray`, a `PIL.Image.Image` or nested
        lists, of integers in [-32768, 65535]. May be left out of `compute` after `add` or `add_batch`.
    references (as `predictions`):
        The ids of the labels; every map has the shape of its prediction.
    num_labels (`int`):
        The number of classes K. Labels and predictions have to lie in [0, K) wherever the label is not ignored. This
        is the one difference to the public metric, which drops other ids in silence, and so reports too high an IoU.
    ignore_index (`int`):
        Pixels with this label do not count. It is looked for after `label_map` and `reduce_labels`.
    nan_to_num (`float`, *optional*):
        Stands in the results for a score that is not defined, which is NaN otherwise. Means are taken before.
    label_map (`dict[int, int]`, *optional*):
        New ids for ids of the references, all at once: {0: 1, 1: 0} swaps two classes.
    reduce_labels (`bool`, *optional*, defaults to `False`):
        Lower the ids of the references by one, after `label_map`; 0 becomes 255, and 255 stays.

Returns:
    `dict` of fractions in [0, 1], NaN where a score is not defined:
    - *mean_iou* (`float`): the mean over the classes that occur in labels or predictions.
    - *mean_accuracy* (`float`): the mean over the classes that occur in labels.
    - *overall_accuracy* (`float`): the share of the labelled pixels that are predicted correctly.
    - *per_category_iou* (`np.ndarray` of shape `(num_labels,)`).
    - *per_category_accuracy* (`np.ndarray` of shape `(num_labels,)`): recall.
    - *frequency_weighted_iou* (`float`): the mean IoU, weighted by the number of labelled pixels of each class.
    - *num_classes_present* (`int`): how many classes occur in the labels.

Example:

    >>> mean_iou = evaluate.load("training/metrics/mean_iou")
    >>> mean_iou.add(prediction=[[0, 1, 1]], reference=[[0, 0, 1]])
    >>> mean_iou.add(prediction=[[1], [0]], reference=[[1], [255]])
    >>> mean_iou.compute(num_labels=3, ignore_index=255)["per_category_iou"].round(2).tolist()
    [0.5, 0.67, nan]
"""

_CITATION = """\
@software{MMSegmentation_Contributors_OpenMMLab_Semantic_Segmentation_2020,
author = {{MMSegmentation Contributors}},
license = {Apache-2.0},
month = {7},
title = {{OpenMMLab Semantic Segmentation Toolbox and Benchmark}},
url = {https://github.com/open-mmlab/mmsegmentation},
year = {2020}
}"""

# All ids of 16-bit masks, signed and unsigned.
MIN_ID, MAX_ID = -(2**15), 2**16 - 1
# Ids 0 to 255 have their place in the table from the start. Others get one when they first occur.
NUM_BYTE_IDS = 256
# The table is square: 4,096 ids take 128 MiB.
MAX_NUM_IDS = 4096


@dataclass
class SegmentationScores:
    """
    The scores of one confusion matrix. All but the counts are fractions in [0, 1], or NaN where they are not defined.

    Args:
        mean_iou (`float`): mIoU, the mean of `iou` over the classes that occur in the labels or the predictions.
        mean_accuracy (`float`): mAcc, the mean of `accuracy` over the classes that occur in the labels.
        overall_accuracy (`float`): aAcc, the share of the labelled pixels that are predicted correctly.
        iou (`np.ndarray` of shape `(num_labels,)`): NaN for a class in neither the labels nor the predictions.
        accuracy (`np.ndarray` of shape `(num_labels,)`): recall; NaN for a class that is not in the labels.
        frequency_weighted_iou (`float`): fwIoU, the mean of `iou` weighted by `pixels`.
        num_classes_present (`int`): the number of classes that occur in the labels.
        pixels (`np.ndarray` of shape `(num_labels,)` and type int64): labelled pixels of each class.
    """

    mean_iou: float
    mean_accuracy: float
    overall_accuracy: float
    iou: np.ndarray
    accuracy: np.ndarray
    frequency_weighted_iou: float
    num_classes_present: int
    pixels: np.ndarray


# The scores of all classes, and what tables call them: a new one is a field above, its value in
# [`mean_iou_from_confusion`], and a line here.
SCORES = {
    "mean_iou": "mIoU",
    "mean_accuracy": "mAcc",
    "overall_accuracy": "aAcc",
    "frequency_weighted_iou": "fwIoU",
}


def confusion_matrix(
    predictions: torch.Tensor, labels: torch.Tensor, num_labels: int, ignore_index: int = 255
) -> torch.Tensor:
    """
    Count the pixels of every (label, prediction) pair.

    Confusion matrices add: the matrix of a data set is the sum of those of its images, in any order and split over
    any number of processes.

    Args:
        predictions (`torch.Tensor` of any shape): class ids in [0, num_labels).
        labels (`torch.Tensor` of the same shape, on the same device): class ids in [0, num_labels), or `ignore_index`.
        num_labels (`int`): the number of classes K.
        ignore_index (`int`, *optional*, defaults to 255): pixels with this label are not counted.

    Returns:
        `torch.Tensor` of shape `(num_labels, num_labels)` and type int64: row = label, column = prediction.

    Raises:
        `ValueError`: if the shapes differ, or an id is outside its range.
    """
    counts = JointCounts(labels.device)
    counts.add(*counts.find(predictions, labels))
    return counts.confusion(num_labels, ignore_index)


def mean_iou_from_confusion(confusion: torch.Tensor | np.ndarray) -> SegmentationScores:
    """
    Compute mIoU, mAcc and aAcc as mmsegmentation and the `mean_iou` metric of `evaluate` do.

    The mean is taken over classes, on the pixels of all images together: it is not a mean of per-image values.
    A class that occurs nowhere counts in no mean. A class that is predicted but never labelled has IoU 0.

    Args:
        confusion (`torch.Tensor` or `np.ndarray` of shape `(num_labels, num_labels)`): row label, column prediction.

    Source: `mean_iou` in mmseg/core/evaluation/metrics.py.
    """
    confusion = confusion.cpu().numpy() if isinstance(confusion, torch.Tensor) else confusion
    intersection = np.diag(confusion)
    labelled, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    iou = _divide(intersection, labelled + predicted - intersection)
    accuracy = _divide(intersection, labelled)
    present = labelled > 0
    return SegmentationScores(
        mean_iou=_nanmean(iou),
        mean_accuracy=_nanmean(accuracy),
        overall_accuracy=float(_divide(intersection.sum(), labelled.sum())),
        iou=iou,
        accuracy=accuracy,
        # Without the absent classes, whose weight is 0 but whose IoU may be NaN.
        frequency_weighted_iou=float(_divide(labelled[present] @ iou[present], labelled.sum())),
        num_classes_present=int(present.sum()),
        pixels=labelled,
    )


class JointCounts:
    """
    How many pixels have each (label, prediction) pair of ids, before anything is said about classes.

    Since nothing is mapped or ignored yet, the number of classes, the ignored id and the changes of labels can be
    chosen when all is counted. Ids outside [0, 255], such as -100 or 65535 for "unlabelled", get the next free row and
    column when they first occur.

    Args:
        device (`torch.device` or `str`): where to count.

    Attributes:
        table (`torch.Tensor` of shape `(num_ids, num_ids)` and type int64): row = label, column = prediction.
        ids (`torch.Tensor` of shape `(num_ids,)` and type int64): the id that row and column i stand for; i itself
            for the first 256.
    """

    def __init__(self, device: torch.device | str):
        self.table = torch.from_numpy(np.zeros((NUM_BYTE_IDS, NUM_BYTE_IDS), dtype=np.int64)).to(device)
        self.ids = torch.arange(NUM_BYTE_IDS, device=device)
        # The inverse of `ids`, from `MIN_ID` on: the row and column of an id, or -1. Made when an id needs it.
        self._rows: torch.Tensor | None = None

    def find(self, predictions: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Find the columns, rows and numbers of pixels that a map adds to the table, which [`JointCounts.add`] takes.

        Raises:
            `ValueError`: if the shapes differ, or if there are more ids than the table may have.
        """
        if predictions.shape != labels.shape:
            raise ValueError(
                f"Predictions of shape {tuple(predictions.shape)} cannot be compared with labels of shape "
                f"{tuple(labels.shape)}: resize the predictions to the size of the labels first."
            )
        if labels.numel() == 0:
            return (labels.new_zeros(0, dtype=torch.int64),) * 3
        predictions, labels, num_pixels = _find_runs(predictions.reshape(-1), labels.reshape(-1))
        return self._find_rows(predictions), self._find_rows(labels), num_pixels

    def add(self, columns: torch.Tensor, rows: torch.Tensor, num_pixels: torch.Tensor) -> None:
        """Add to entries of the table."""
        if _is_on_cpu(self.table):
            pairs = len(self.ids) * rows.numpy().astype(np.intp) + columns.numpy()
            np.add.at(self.table.numpy().reshape(-1), pairs, num_pixels.numpy())
        else:
            self.table.view(-1).index_add_(0, torch.add(columns.int(), rows.int(), alpha=len(self.ids)), num_pixels)

    def add_table(self, ids: torch.Tensor, table: torch.Tensor) -> None:
        """Add a table of counts, from any device, whose rows and columns stand for `ids`."""
        rows = self._find_rows(ids.to(self.table.device)).long()
        self.table[rows[:, None], rows] += table.to(self.table.device)

    def confusion(
        self,
        num_labels: int,
        ignore_index: int,
        label_map: Mapping[int, int] | None = None,
        reduce_labels: bool = False,
    ) -> torch.Tensor:
        """
        The part of the table that is about classes, as [`confusion_matrix`] returns it.

        Raises:
            `ValueError`: if a label that is not ignored, or the prediction on it, is outside [0, num_labels).
        """
        ids, table = self.ids.cpu().numpy(), self.table.cpu().numpy()
        labels = ids.copy()
        for old, new in (label_map or {}).items():
            labels[ids == old] = new
        if reduce_labels:
            labels = np.where((labels == 0) | (labels == 255), 255, labels - 1)
        counted = labels != ignore_index
        label_exists = (labels >= 0) & (labels < num_labels)
        prediction_exists = (ids >= 0) & (ids < num_labels)
        expected = f"with {num_labels} classes ids lie in [0, {num_labels - 1}]"
        if (wrong := counted & ~label_exists & table.any(axis=1)).any():
            label, given = labels[wrong][0], ids[wrong][0]
            origin = "" if label == given else f" (it was {given} in the references)"
            raise ValueError(f"Found the label {label}{origin}; {expected}, and {ignore_index} is unlabelled.")
        if (wrong := ~prediction_exists & table[counted].any(axis=0)).any():
            raise ValueError(f"Found the prediction {ids[wrong][0]}; {expected}.")

        counted &= label_exists
        confusion = np.zeros((num_labels, num_labels), dtype=np.int64)
        columns = ids[prediction_exists]
        for label, row in zip(labels[counted], table[np.ix_(counted, prediction_exists)], strict=True):
            confusion[label, columns] += row  # several ids may have become one label
        return torch.from_numpy(confusion).to(self.table.device)

    def sum_over_processes(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Replace the counts by the sum of those of all processes; `reduce` sums a tensor over them."""
        # Each process has met other ids, in another order: first all agree on one table, so that the tables add.
        device = self.table.device
        num_processes_with = torch.zeros(MAX_ID - MIN_ID + 1, dtype=torch.int64, device=device)
        num_processes_with[self.ids - MIN_ID] = 1
        ids = reduce(num_processes_with).to(device).nonzero().view(-1) + MIN_ID
        common = JointCounts(device)
        common._find_rows(ids)
        common.add_table(self.ids, self.table)
        self.ids, self._rows, self.table = common.ids, common._rows, reduce(common.table).to(device)

    def _find_rows(self, ids: torch.Tensor) -> torch.Tensor:
        """The row (and column) of each id, with new ones at the end for ids that have none yet."""
        if ids.dtype == torch.uint8:
            return ids
        if _is_on_cpu(ids):
            lowest, highest = ids.numpy().min().item(), ids.numpy().max().item()
        else:
            lowest, highest = torch.stack(torch.aminmax(ids)).tolist()
        if lowest >= 0 and highest < NUM_BYTE_IDS:
            return ids
        if lowest < MIN_ID or highest > MAX_ID:
            raise ValueError(
                f"Found ids from {lowest} to {highest} in a segmentation map; ids lie in [{MIN_ID}, {MAX_ID}]. Is it "
                "a mask of instances, or one whose ids are packed into colours?"
            )
        if self._rows is None:
            self._rows = torch.full((MAX_ID - MIN_ID + 1,), -1, dtype=torch.int32, device=ids.device)
            self._rows[self.ids - MIN_ID] = self.ids.int()
        ids = ids.long() - MIN_ID
        rows = self._rows[ids]
        if (new := torch.unique(ids[rows < 0])).numel():
            num_ids, size = len(self.ids), len(self.ids) + len(new)
            if size > MAX_NUM_IDS:
                raise ValueError(
                    f"Found more than {MAX_NUM_IDS} different ids in segmentation maps. Are they masks of instances?"
                )
            self._rows[new] = torch.arange(num_ids, size, dtype=torch.int32, device=new.device)
            self.ids = torch.cat([self.ids, new + MIN_ID])
            table = self.table.new_zeros((size, size))
            table[:num_ids, :num_ids] = self.table
            self.table = table
            rows = self._rows[ids]
        return rows


class MeanIoU(evaluate.Metric):
    """
    The public `mean_iou` metric of `evaluate`, streaming: the same arguments and results, faster, in constant memory.

    It counts every map when it is given, on the device of the maps. Ids outside [0, num_labels) are errors, where the
    public metric drops them in silence; its results are the same otherwise. `compute` begins anew afterwards, as all
    modules of `evaluate` do; if it fails, everything that was added before is still there.

    Args:
        device (`torch.device` or `str`, *optional*): where to keep the counts; by default on the device of the first
            map.
        num_process (`int`, *optional*, defaults to 1): has to stay 1. Several processes use `sum_over_processes`.
        kwargs: those of [`evaluate.Metric`]; nothing is written, so they change nothing but names.
    """

    def __init__(self, *args, device: torch.device | str | None = None, num_process: int = 1, **kwargs):
        if num_process != 1:
            raise ValueError(
                f"Got num_process={num_process}; this metric exchanges no files. Make one in each process, and call "
                "`sum_over_processes` with a function that sums a tensor over processes before `compute`."
            )
        super().__init__(*args, **kwargs)
        self._device = device
        self._counts: JointCounts | None = None

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS_DESCRIPTION,
            features=datasets.Features({"predictions": datasets.Image(), "references": datasets.Image()}),
            reference_urls=[
                "https://github.com/open-mmlab/mmsegmentation/blob/v0.19.0/mmseg/core/evaluation/metrics.py"
            ],
        )

    def _build_data_dir(self) -> str:
        # The base class makes this folder, for maps. Here nothing is written, also where nothing can be.
        return os.path.join(self._data_dir_root, self.name, self.config_name)

    # The base class appends the description of the inputs to the docstrings of `add`, `add_batch` and `compute`.

    def add(self, *, prediction=None, reference=None, predictions=None, references=None) -> None:
        """Count one map. (`evaluate.combine` names the arguments in the plural.)"""
        prediction = predictions if prediction is None else prediction
        reference = references if reference is None else reference
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions=None, references=None) -> None:
        """Count several maps: all of them or, where one is refused with a `ValueError`, none."""
        self._counts = self._count(predictions, references, self._counts)

    def add_counts(self, counts: torch.Tensor) -> None:
        """
        Add what [`confusion_matrix`] returned.

        Args:
            counts (`torch.Tensor` of shape `(num_labels, num_labels)` and an integer type): row label, column
                prediction.
        """
        if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.is_floating_point():
            raise ValueError(
                f"Got counts of shape {tuple(counts.shape)} and type {counts.dtype}; a confusion matrix is square and "
                "holds integers."
            )
        if self._counts is None:
            self._counts = JointCounts(self._device or counts.device)
        self._counts.add_table(torch.arange(len(counts)), counts)

    def compute(
        self,
        *,
        predictions=None,
        references=None,
        num_labels: int,
        ignore_index: int,
        nan_to_num: float | None = None,
        label_map: Mapping[int, int] | None = None,
        reduce_labels: bool = False,
    ) -> dict[str, float | int | np.ndarray]:
        """Compute the scores of all that was added, and of the maps given here, and begin anew."""
        counts = self._counts
        if predictions is not None or references is not None:
            counts = self._count(predictions, references, copy.deepcopy(self._counts))
        if counts is None:
            raise ValueError("Nothing was added since the last `compute`: call `add` or `add_batch` first.")
        results = _compute_results(counts, num_labels, ignore_index, nan_to_num, label_map, reduce_labels)
        self.reset()
        return results

    def _compute(self, predictions, references, *args, **kwargs) -> dict[str, float | int | np.ndarray]:
        """Score the given maps alone. Transformers' examples call the public metric's method of this name."""
        return _compute_results(self._count(predictions, references, None), *args, **kwargs)

    def confusion(self, num_labels: int, ignore_index: int = 255) -> torch.Tensor:
        """
        The confusion matrix of all that was added, which stays.

        Returns:
            `torch.Tensor` of shape `(num_labels, num_labels)` and type int64: row = label, column = prediction.

        Raises:
            `ValueError`: if a label that is not ignored, or the prediction on it, is outside [0, num_labels).
        """
        return self._counts_or_empty().confusion(num_labels, ignore_index)

    def reset(self) -> None:
        """Forget all that was added."""
        self._counts = None

    def sum_over_processes(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """
        Replace the counts by their sum over all processes, each of which has to call this.

        Processes may have met different ids, or no map at all: they first agree on one table.

        Args:
            reduce (`Callable[[torch.Tensor], torch.Tensor]`): returns the sum over processes of a tensor of type
                int64, such as `accelerator.reduce`. It is called twice. Where it needs the tensor on some device, give
                that one to the constructor.
        """
        self._counts = self._counts_or_empty()
        self._counts.sum_over_processes(reduce)

    def _counts_or_empty(self) -> JointCounts:
        return JointCounts(self._device or "cpu") if self._counts is None else self._counts

    def _count(self, predictions: Sequence, references: Sequence, counts: JointCounts | None) -> JointCounts:
        """Add these maps to `counts`, or to new ones on the device of the first map."""
        if predictions is None or references is None:
            raise ValueError("Both predictions and references are needed, got only one of them.")
        if len(predictions) != len(references):
            raise ValueError(
                f"Mismatch in the number of predictions ({len(predictions)}) and references ({len(references)})."
            )
        predictions, references = list(map(_as_ids, predictions)), list(map(_as_ids, references))
        if counts is None:
            counts = JointCounts(self._device or (predictions[0].device if predictions else "cpu"))
        device = counts.table.device
        # Nothing is added before all maps are known to be good.
        found = [
            counts.find(prediction.to(device), reference.to(device))
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        for columns, rows, num_pixels in found:
            counts.add(columns, rows, num_pixels)
        return counts


def _is_on_cpu(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu"


def _find_runs(predictions: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Shorten maps of shape `(num_pixels,)` to one prediction and one label for each run of equal pairs, and its length.

    Maps consist of regions, so on a CPU nearly all of the time goes into comparing neighbours, whatever the type: what
    follows sees some per cent of the pixels. NumPy does it, here and in [`JointCounts`], since it needs no second
    thread, for which evaluation would have to wait where data loaders keep all cores busy. Maps that are hardly
    shorter, and those on other devices, stay as they are, in runs of one pixel.
    """
    if _is_on_cpu(labels):
        prediction_ids, label_ids = predictions.numpy(), labels.numpy()
        ends = np.ones(labels.numel(), dtype=bool)
        np.not_equal(label_ids[1:], label_ids[:-1], out=ends[:-1])
        ends[:-1] |= prediction_ids[1:] != prediction_ids[:-1]
        if np.count_nonzero(ends) < 0.25 * labels.numel():
            (ends,) = np.nonzero(ends)
            lengths = np.diff(ends, prepend=-1)
            return tuple(map(torch.from_numpy, (prediction_ids.take(ends), label_ids.take(ends), lengths)))
    return predictions, labels, torch.ones(1, dtype=torch.int64, device=labels.device).expand(labels.numel())


def _compute_results(
    counts: JointCounts,
    num_labels: int,
    ignore_index: int,
    nan_to_num: float | None = None,
    label_map: Mapping[int, int] | None = None,
    reduce_labels: bool = False,
) -> dict[str, float | int | np.ndarray]:
    scores = mean_iou_from_confusion(counts.confusion(num_labels, ignore_index, label_map, reduce_labels))
    results = {name: getattr(scores, name) for name in SCORES}
    results |= {"per_category_iou": scores.iou, "per_category_accuracy": scores.accuracy}
    if nan_to_num is not None:
        results = {name: np.nan_to_num(value, nan=nan_to_num) for name, value in results.items()}
    return {**results, "num_classes_present": scores.num_classes_present}


def _as_ids(segmentation_map) -> torch.Tensor:
    """A map of any kind as a tensor of a signed type or uint8, without a copy where it is one already."""
    if not isinstance(segmentation_map, torch.Tensor):
        array = np.asarray(segmentation_map)
        if array.dtype.kind not in "iub":
            raise ValueError(f"A segmentation map holds integers, one id per pixel; got the type {array.dtype}.")
        # torch takes neither another byte order nor negative strides, and warns of read-only memory (PIL's).
        segmentation_map = torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    if segmentation_map.is_floating_point() or segmentation_map.is_complex():
        raise ValueError(
            f"A segmentation map holds integers, one id per pixel; got the type {segmentation_map.dtype}."
        )
    # Of the unsigned types torch can do little with any but uint8.
    wider = {torch.bool: torch.uint8, torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
    return segmentation_map.to(wider.get(segmentation_map.dtype, segmentation_map.dtype))


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """A quotient of counts, a part by its whole: NaN where both are 0."""
    with np.errstate(invalid="ignore"):
        return numerator / denominator


def _nanmean(values: np.ndarray) -> float:
    # np.nanmean warns about a list of nothing but NaN; here that is a legal case, in which nothing was labelled.
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
