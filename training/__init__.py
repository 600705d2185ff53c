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

# Modules by the names that they had in 0.1.0.
MOVED = {
    "arguments": "options.arguments",
    "dataset_files": "data.files",
    "demo_tokenizer": "demonstration.tokenizer",
    "trainer": "learning.trainer",
    "transforms": "data.transforms",
}


class _FormerNames:
    """Asks the tools, whose package imports PyTorch, once such a module is asked for: `run_onnx` does without both."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] != __name__ or name.removeprefix(f"{__name__}.") not in MOVED:
            return None
        from modeling_denseclip.tools import FormerNames

        return FormerNames(__name__, MOVED).find_spec(name)


sys.meta_path.append(_FormerNames)
