# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What `training.import_data` does: a reader for each form that annotations come in, and one writer of the folder."""
