# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What is installed beside the model, and never goes to the Hub: commands, pictures, files, the page."""

import importlib
import importlib.machinery
import sys
from collections.abc import Mapping
from importlib.abc import Loader, MetaPathFinder


class _FormerNames(MetaPathFinder, Loader):
    """Imports a module by the name that it had before it was moved, as the module that it is now."""

    def __init__(self, moved: Mapping[str, str]):
        self.moved = moved

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name in self.moved else None

    def create_module(self, spec):
        module = importlib.import_module(self.moved[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module):
        module.__spec__ = module.__spec__.loader_state  # the import has just replaced it by one of the former name


def keep_former_names(package: str, moved: Mapping[str, str]):
    """Let `import` find modules of a package by former names, each with the one of now, for code written for them."""
    sys.meta_path.append(_FormerNames({f"{package}.{old}": f"{package}.{new}" for old, new in moved.items()}))


keep_former_names(
    __name__,
    {
        "explanation": "insight.explanation",
        "info": "commands.info",
        "loading": "files.loading",
        "predict": "commands.predict",
        "visualization": "pictures",
        "web": "page.server",
    },
)
