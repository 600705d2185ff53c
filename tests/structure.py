# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Which part of the code imports which, as pictures for CONTRIBUTING.md:

    python -m tests.structure

prints both as they should stand there. An arrow that follows from others is left out: where A imports B and B imports
C, A may import C too.
"""

import ast
from collections.abc import Callable, Iterable
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
Arrows = dict[str, set[str]]


def imported_modules(path: Path) -> Iterable[str]:
    """The modules of this repository that a file imports, anywhere in it, by their absolute names."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                name = f"{module}.{alias.name}"
                yield name if find_module(name) else module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def find_module(name: str) -> Path | None:
    """The file of a module of this repository."""
    path = ROOT.joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def room_of(path: Path) -> str:
    """The folder that a file is in."""
    if path == ROOT / "training" / "run_onnx.py":  # a verb that is written beside exported models too
        return "training/publishing"
    room = path.relative_to(ROOT).parent.as_posix()
    return room.removesuffix("/mean_iou")


def arrows(files: Iterable[Path], part_of: Callable[[Path], str]) -> Arrows:
    """Which parts each part imports, itself left out."""
    found: Arrows = {}
    for path in files:
        here = found.setdefault(part_of(path), set())
        for module in imported_modules(path):
            target = find_module(module)
            if target is not None and target != ROOT / "training" / "__init__.py":
                here.add(part_of(target))
    return {part: others - {part} for part, others in found.items()}


def reachable(graph: Arrows, start: str) -> set[str]:
    """Where arrows lead to from a part, over any number of others."""
    seen, waiting = set(), [start]
    while waiting:
        for part in graph.get(waiting.pop(), ()):
            if part not in seen:
                seen.add(part)
                waiting.append(part)
    return seen


def circles(graph: Arrows) -> set[str]:
    """The parts that import themselves, over others."""
    return {part for part in graph if part in reachable(graph, part)}


def without_implied(graph: Arrows) -> Arrows:
    """The same without arrows that follow from others; for graphs without circles."""
    return {
        part: {other for other in others if not any(other in reachable(graph, third) for third in others - {other})}
        for part, others in graph.items()
    }


def room_arrows() -> Arrows:
    """Which folders import which. What `__init__.py` re-exports is left out."""
    files = [path for top in ("modeling_denseclip", "training") for path in sorted((ROOT / top).rglob("*.py"))]
    return arrows((path for path in files if path.name != "__init__.py"), room_of)


def model_arrows() -> Arrows:
    """Which files of the model import which."""
    files = sorted((ROOT / "modeling_denseclip").glob("*.py"))
    return arrows((path for path in files if path.name != "__init__.py"), lambda path: path.stem)


def draw(graph: Arrows) -> str:
    """A graph in the language of Mermaid, which GitHub and the Hub draw."""
    graph = without_implied(graph)
    lines = ["flowchart TD"]
    for part in sorted(graph):
        lines.extend(f"    {part} --> {other}" for other in sorted(graph[part]))
    return "\n".join(lines)


if __name__ == "__main__":
    print(draw(room_arrows()), "\n")
    print(draw(model_arrows()))
