# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run is asked for: arguments, recipes, and the words of the command line."""
