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
"""The confusion matrix and mIoU, against figures of mmseg, a naive loop and cases done by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from training.metrics import SegmentationScores, confusion_matrix, format_scores, mean_iou_from_confusion


FIXTURE = Path(__file__).parent / "fixtures" / "mean_iou.npz"


def score(predictions, labels, num_labels, ignore_index=255):
    confusion = confusion_matrix(torch.as_tensor(predictions), torch.as_tensor(labels), num_labels, ignore_index)
    return mean_iou_from_confusion(confusion)


def test_agrees_with_mmseg_over_images_of_different_sizes():
    data = np.load(FIXTURE)
    num_labels = len(data["iou"])
    confusion = sum(
        confusion_matrix(torch.from_numpy(data[f"pred_{i}"]), torch.from_numpy(data[f"label_{i}"]), num_labels)
        for i in range(3)
    )
    scores = mean_iou_from_confusion(confusion)
    np.testing.assert_allclose(scores.iou, data["iou"], rtol=1e-12)
    np.testing.assert_allclose(scores.accuracy, data["acc"], rtol=1e-12)
    assert scores.overall_accuracy == pytest.approx(float(data["aacc"]), rel=1e-12)
    assert scores.mean_iou == pytest.approx(np.nanmean(data["iou"]), rel=1e-12)
    assert scores.mean_accuracy == pytest.approx(np.nanmean(data["acc"]), rel=1e-12)


def test_agrees_with_a_loop_over_pixels():
    generator = np.random.default_rng(0)
    labels = generator.choice([0, 1, 2, 3, 255], (17, 23))
    predictions = generator.integers(0, 4, (17, 23))
    expected = np.zeros((4, 4), dtype=int)
    for label, prediction in zip(labels.flat, predictions.flat, strict=True):
        if label != 255:
            expected[label, prediction] += 1
    confusion = confusion_matrix(torch.from_numpy(predictions), torch.from_numpy(labels), 4)
    assert confusion.tolist() == expected.tolist()
    for k in range(4):
        seen = labels != 255
        union = (((labels == k) | (predictions == k)) & seen).sum()
        both = ((labels == k) & (predictions == k)).sum()
        assert mean_iou_from_confusion(confusion).iou[k] == pytest.approx(both / union)


def test_small_case_by_hand():
    # Class 0: 2 labelled, 1 hit, no false alarm. Class 1: 2 labelled, 2 hit, 1 false alarm. One pixel is unlabelled.
    scores = score([[0, 1, 1, 1, 0]], [[0, 0, 1, 1, 255]], 2)
    np.testing.assert_allclose(scores.iou, [1 / 2, 2 / 3])
    np.testing.assert_allclose(scores.accuracy, [1 / 2, 1])
    assert (scores.mean_iou, scores.mean_accuracy, scores.overall_accuracy) == pytest.approx((7 / 12, 3 / 4, 3 / 4))


def test_class_that_is_nowhere_counts_in_no_mean():
    scores = score([0, 0], [0, 0], 3)
    assert scores.iou[0] == 1 and np.isnan(scores.iou[1:]).all() and np.isnan(scores.accuracy[1:]).all()
    assert scores.mean_iou == 1 and scores.mean_accuracy == 1


def test_class_that_is_only_predicted_has_iou_zero_and_no_accuracy():
    scores = score([0, 1], [0, 0], 2)
    assert scores.iou[1] == 0 and math.isnan(scores.accuracy[1])
    assert scores.mean_iou == pytest.approx(0.25) and scores.mean_accuracy == pytest.approx(0.5)


def test_nothing_labelled_is_nan_throughout():
    scores = score([0, 1], [255, 255], 2)
    values = (scores.mean_iou, scores.mean_accuracy, scores.overall_accuracy, *scores.iou, *scores.accuracy)
    assert all(map(math.isnan, values))


def test_ignore_index_may_be_another_and_uint8_does_not_overflow():
    labels = torch.full((4,), 200, dtype=torch.uint8)
    assert confusion_matrix(labels.clone(), labels, 201, ignore_index=7)[200, 200] == 4
    assert confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, 7]), 2, ignore_index=7).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("labels, predictions", [([3], [0]), ([-1], [0]), ([0], [3]), ([0], [-1])])
def test_ids_out_of_range_are_refused(labels, predictions):
    with pytest.raises(ValueError, match=r"(3|-1); with 3 classes ids lie in \[0, 2\]"):
        score(predictions, labels, 3)


def test_different_sizes_are_refused():
    with pytest.raises(ValueError, match="resize the predictions"):
        score([[0, 0]], [[0], [0]], 1)


def test_table_shows_per_cent_and_a_dash_where_nothing_is_defined():
    scores = SegmentationScores(0.5, 0.5, 0.75, np.array([0.5, np.nan]), np.array([0.5, np.nan]))
    lines = format_scores(scores, ["road", "sign symbol"]).splitlines()
    assert lines[2].split() == ["road", "50.00", "50.00"]
    assert lines[3].split() == ["sign", "symbol", "-", "-"]
    assert lines[-1].split() == ["aAcc", "75.00"]
