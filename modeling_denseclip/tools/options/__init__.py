# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What the verbs of `denseclip` take, and what can be refused by looking at it, all without PyTorch."""
