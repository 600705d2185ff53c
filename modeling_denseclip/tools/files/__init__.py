# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Photographs, models and results on disk: each is read and written at one place."""

from .photographs import read_photograph, to_rgb
