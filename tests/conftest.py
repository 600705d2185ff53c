# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
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
