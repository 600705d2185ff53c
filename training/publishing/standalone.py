# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""A program of this repository as one file, which runs where neither the package nor a checkout is."""

import ast
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType


BEGIN, END = "# Begin: ", "# End\n"  # of the lines of a program that load what is copied into it


def join_texts(program: Path, modules: Iterable[ModuleType]) -> str:
    """
    The text of a program with those of modules in the place of what stands between `BEGIN` and `END`. Each module may
    import names of those before it; other relative imports it cannot have.
    """
    before, _, rest = program.read_text(encoding="utf-8").partition(BEGIN)
    bodies = [read_body(Path(module.__file__)) for module in modules]
    return before + "\n\n\n".join(bodies) + "\n" + rest.partition(END)[2]


def read_body(path: Path) -> str:
    """The text of a module without its licence, its docstring, its imports of siblings, and `__all__`."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    docstring, *statements = ast.parse(text).body
    for statement in statements:
        is_sibling = isinstance(statement, ast.ImportFrom) and statement.level > 0
        names = [getattr(target, "id", None) for target in getattr(statement, "targets", ())]
        if is_sibling or names == ["__all__"]:
            lines[statement.lineno - 1 : statement.end_lineno] = [""] * (statement.end_lineno - statement.lineno + 1)
    return "".join(lines[docstring.end_lineno :]).strip()
