# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What Transformers' own conftest does, as far as its common tests need it."""

import re

import torch

from tests.transformers_common import SOURCE


def pytest_configure(config):
    torch.backends.cudnn.allow_tf32 = False
    paths = [*SOURCE.glob("tests/test_*_common.py"), *SOURCE.glob("src/transformers/testing_utils.py")]
    marks = {mark for path in paths for mark in re.findall(r"\bmark\.(\w+)", path.read_text(encoding="utf-8"))}
    for mark in marks - {"parametrize", "skip"}:
        config.addinivalue_line("markers", f"{mark}: of Transformers' tests")
