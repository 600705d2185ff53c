# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Data sets as they are given, and what training and evaluation make of their pictures."""

from .load import check_for_training, load_data
