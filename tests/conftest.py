# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Shared fixtures. They import what they need themselves: `pytest -n` reads this file in one process more than run tests.
"""

import gc
from pathlib import Path

import pytest


CLIP_TOKENIZER = Path(__file__).resolve().parents[2] / "shared" / "clip-tokenizer"


# With tests of tens of seconds. They come first, so that in the end no process waits for one of them.
LONG_FILES = ("test_docs", "test_export", "test_fusion", "test_fuzzing", "test_resume", "test_tutorial")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG_FILES)


def pytest_collection_finish():
    """
    What is imported by now stays to the end. The garbage collector, which every training runs, takes half a second to
    look through it; it need not. What tests make it looks through a tenth as often as by default, where that takes 7 %
    of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(7_000, *gc.get_threshold()[1:])


@pytest.fixture(scope="session")
def tiny_tokenizer():
    from tests.tiny import make_tiny_tokenizer

    return make_tiny_tokenizer()


@pytest.fixture(scope="session")
def clip_tokenizer():
    if not CLIP_TOKENIZER.is_dir():
        pytest.skip("CLIP's own tokenizer is not beside this checkout")
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(CLIP_TOKENIZER)


@pytest.fixture(scope="session")
def write_once():
    """`write` of exports, which takes ten seconds: what was written of the same model in the same way is copied."""
    import hashlib

    from training.publishing import export

    write, written = export.write, {}

    def write_or_copy(module, file_format, path: Path):
        weights = sorted((name, tensor.numpy().tobytes()) for name, tensor in module.state_dict().items())
        key = (file_format.name, module.output, hashlib.sha256(repr(weights).encode()).digest())
        if key not in written:
            write(module, file_format, path)
            written[key] = path.read_bytes()
        path.write_bytes(written[key])

    return write_or_copy
