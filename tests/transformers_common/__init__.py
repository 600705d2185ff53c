# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Transformers' own common tests, those of the release that is installed, run on DenseCLIP.

The source distribution on the package index has them, the wheel has not: `make test` unpacks it inside the virtual
environment. Of the modules that the tests import it leaves out a few, for generation, export and downloads; empty ones
stand in for these.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
import transformers


SOURCE = Path(sys.prefix) / "transformers-source"
PACKAGE = "transformers_release"
# What the tests import of the modules that are left out: mixins without a test, and a table that composite configs
# like ours do not read.
LEFT_OUT = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {"config_common_kwargs": {}},
}


def import_common_tests(name: str) -> ModuleType:
    """
    `tests/<name>.py` of the release. Skips the test module that asks for it where there is no source, and fails where
    the source is of another release.
    """
    tests = SOURCE / "tests"
    if not tests.is_dir():
        pytest.skip(
            "the source distribution of transformers is not in this environment; `make test` fetches it",
            allow_module_level=True,
        )
    version = (SOURCE / "VERSION").read_text().strip()
    if version != transformers.__version__:
        raise RuntimeError(
            f"{SOURCE} has the tests of transformers {version}, but {transformers.__version__} is installed. Remove"
            " the folder and run `make test`."
        )
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(tests)]
        sys.modules[PACKAGE] = package
        for module_name, contents in LEFT_OUT.items():
            parent = f"{PACKAGE}.{module_name.partition('.')[0]}"
            sys.modules[parent] = ModuleType(parent)
            module = ModuleType(f"{PACKAGE}.{module_name}")
            vars(module).update(contents)
            sys.modules[module.__name__] = module
        downloads = ModuleType("fetch_hub_objects_for_ci")
        downloads.url_to_local_path = lambda url: url
        sys.modules["fetch_hub_objects_for_ci"] = downloads
    # The configuration tests import the package that they lie in as if it were transformers' sources.
    with mock.patch("transformers.utils.direct_transformers_import", return_value=transformers):
        return importlib.import_module(f"{PACKAGE}.{name}")
