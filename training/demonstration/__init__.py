# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Painted scenes, a tokenizer and ablations, for a demonstration without a network or a GPU."""
