# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What is installed beside the model, and never goes to the Hub: commands, pictures, files, the page."""

import importlib
import importlib.machinery
import sys
from collections.abc import Mapping
from importlib.abc import Loader, MetaPathFinder


class FormerNames(MetaPathFinder, Loader):
    """
    Imports modules by the names that they had before they were moved, as the modules that they are now, for code that
    was written for them.

    Args:
        package (`str`): where they were and are.
        moved (`Mapping[str, str]`): former names in it, each with the one of now.
    """

    def __init__(self, package: str, moved: Mapping[str, str]):
        self.moved = {f"{package}.{old}": f"{package}.{new}" for old, new in moved.items()}

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name in self.moved else None

    def create_module(self, spec):
        module = importlib.import_module(self.moved[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module):
        module.__spec__ = module.__spec__.loader_state  # the import has just replaced it by one of the former name


MOVED = {
    "explanation": "insight.explanation",
    "info": "commands.info",
    "loading": "files.loading",
    "predict": "commands.predict",
    "visualization": "pictures",
    "web": "page.server",
}
sys.meta_path.append(FormerNames(__name__, MOVED))
