# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""How weights change: the Trainer, what it minimises and by which steps, and how an interrupted run goes on."""
