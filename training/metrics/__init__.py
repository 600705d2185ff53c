# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""How good a segmentation is: mean intersection over union, and the report of an evaluation."""

from .mean_iou.mean_iou import SCORES, MeanIoU, SegmentationScores, confusion_matrix, mean_iou_from_confusion
from .report import draw_confusion_matrix, format_scores, most_confused_pairs, write_report
