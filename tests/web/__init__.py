# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The web page: what it is sent, and, in a browser, what it makes of that (`make test-web`)."""
