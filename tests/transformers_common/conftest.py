# Copyright 2026 The DenseCLIP for Transformers authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
