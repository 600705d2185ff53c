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
"""Shared fixtures."""

import gc
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from tests.tiny import make_tiny_tokenizer


CLIP_TOKENIZER = Path(__file__).resolve().parents[2] / "shared" / "clip-tokenizer"


def pytest_collection_finish():
    """
    What is imported by now stays to the end. The garbage collector, which every training runs, takes half a second to
    look through it; it need not.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_tokenizer():
    return make_tiny_tokenizer()


@pytest.fixture(scope="session")
def clip_tokenizer():
    if not CLIP_TOKENIZER.is_dir():
        pytest.skip("CLIP's own tokenizer is not beside this checkout")
    return CLIPTokenizer.from_pretrained(CLIP_TOKENIZER)
