# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The surroundings of every test: no network, no cache of whoever runs them, no fight for cores. The libraries read these
variables when they are imported, and this file comes before them.
"""

import os
import tempfile


_cache = tempfile.TemporaryDirectory(prefix="denseclip-tests-", ignore_cleanup_errors=True)
for _name in ("HF_DATASETS_CACHE", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_TOKEN"):
    os.environ.pop(_name, None)
os.environ["HF_HOME"] = _cache.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# With `pytest -n`, one thread per process: on two cores, two processes of two threads each wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
