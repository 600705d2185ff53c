"""Shared fixtures. No test needs a network."""

import os
from pathlib import Path


os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from transformers import CLIPTokenizer

from tests.tiny import make_tiny_tokenizer


CLIP_TOKENIZER = Path(__file__).resolve().parents[2] / "shared" / "clip-tokenizer"


@pytest.fixture(scope="session")
def tiny_tokenizer():
    return make_tiny_tokenizer()


@pytest.fixture(scope="session")
def clip_tokenizer():
    if not CLIP_TOKENIZER.is_dir():
        pytest.skip("CLIP's own tokenizer is not beside this checkout")
    return CLIPTokenizer.from_pretrained(CLIP_TOKENIZER)
