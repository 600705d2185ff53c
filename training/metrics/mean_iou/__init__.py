# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The metric as a module of `evaluate`: `evaluate.load("training/metrics/mean_iou")`."""
