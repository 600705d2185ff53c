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
"""How good a segmentation is: mean intersection over union, and the report of an evaluation."""

from .mean_iou.mean_iou import MeanIoU, SegmentationScores, confusion_matrix, mean_iou_from_confusion
from .report import draw_confusion_matrix, format_scores, most_confused_pairs, write_report
