# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Training, evaluation and demonstration of DenseCLIP, run from a checkout: `python -m training.<verb>`."""

import os
import sys
from pathlib import Path


def _end_quietly(error_type, error, traceback, otherwise=sys.excepthook):
    if not issubclass(error_type, KeyboardInterrupt):
        return otherwise(error_type, error, traceback)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130)


# Python is about to run a verb. Until it has imported PyTorch and the rest, nobody else sees Ctrl-C.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _end_quietly

REPOSITORY = Path(__file__).resolve().parents[1]

from modeling_denseclip.tools import keep_former_names  # noqa: E402


keep_former_names(
    __name__,
    {
        "arguments": "options.arguments",
        "dataset_files": "data.files",
        "demo_tokenizer": "demonstration.tokenizer",
        "trainer": "learning.trainer",
        "transforms": "data.transforms",
    },
)
