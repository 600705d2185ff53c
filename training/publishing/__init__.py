# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What makes a model ready for others: repositories and Spaces of the Hub, model cards, exported files."""
