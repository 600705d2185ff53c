# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Recipes: one YAML file holds everything that makes up one training run.

A recipe becomes words of the command line, before those that the user types. So the same parser reads it, its values
are checked like typed ones, and whatever is typed overrides it.
"""

import dataclasses
import difflib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from modeling_denseclip.tools.files.loading import parse_yaml

from .arguments import DataArguments, DenseCLIPTrainingArguments, ModelArguments


# What a recipe says of a row of the paper. It goes into the model card and never into the training.
PAPER_KEYS = ("table", "row", "pretraining", "mean_iou", "mean_iou_multi_scale", "gflops", "parameters_millions")
DEFAULT_HARDWARE = "8gpu"


@dataclass
class Recipe:
    """
    One recipe.

    Args:
        name (`str`): the file's stem, which model JSON and card share.
        path (`Path`): the file.
        paper (`dict`): what the paper says of this row; see `PAPER_KEYS`. Empty for a recipe that is no row.
        model (`dict`): fields of `ModelArguments`.
        data (`dict`): fields of `DataArguments`.
        training (`dict`): fields of `DenseCLIPTrainingArguments`.
        hardware (`dict`): name of a machine -> the fields of `DenseCLIPTrainingArguments` that differ there.
    """

    name: str
    path: Path
    paper: dict
    model: dict
    data: dict
    training: dict
    hardware: dict[str, dict]

    def words(self, hardware: str | None = None) -> list[str]:
        """
        The recipe as words of the command line, for a machine of `hardware`, by default the paper's, "8gpu".

        Raises:
            ValueError: for a name that the recipe does not have.
        """
        if hardware is None:
            hardware = DEFAULT_HARDWARE if DEFAULT_HARDWARE in self.hardware else None
        elif hardware not in self.hardware:
            raise ValueError(
                f"{self.path} has no hardware {hardware!r}; it names {', '.join(self.hardware) or 'none'}."
                " Choose one of these, or set the batch by --per_device_train_batch_size."
            )
        fields = {**self.model, **self.data, **self.training, **self.hardware.get(hardware, {})}
        words = []
        for name, value in fields.items():
            if isinstance(value, (list, tuple)):
                words += [f"--{name}", *map(str, value)]
            elif value is not None:  # the default
                words += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
        return words


def load_recipe(path: str | os.PathLike) -> Recipe:
    """
    Read a recipe, and check that each of its keys is an argument of the training.

    Raises:
        ValueError: for a file that is not there or no YAML mapping, a section or a key that does not exist (with the
            nearest name), or a value that would be taken for another type (`1e-4`, which YAML reads as a string).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no recipe {path}; it is a YAML file, such as those in configuration/recipes/.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no valid YAML: {error}") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; a recipe is a mapping of sections.")
    sections = {"model": ModelArguments, "data": DataArguments, "training": DenseCLIPTrainingArguments}
    known = {"paper": PAPER_KEYS}
    for name, arguments in sections.items():
        known[name] = [field.name for field in dataclasses.fields(arguments) if field.init]
    _refuse_unknown(path, "section", content, [*known, "hardware"])
    sections = {name: content.get(name) or {} for name in [*known, "hardware"]}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise ValueError(f"{path}: the section {name!r} must be a mapping; got {section!r}.")
    for name, keys in known.items():
        _refuse_unknown(path, f"key in {name!r}", sections[name], keys)
        for key, value in sections[name].items():
            if isinstance(value, str) and _is_number(value):
                raise ValueError(
                    f"{path}: YAML reads {name}.{key} = {value} as a string, not as a number. Write it with a point,"
                    " such as 1.0e-4."
                )
    for machine, fields in sections["hardware"].items():
        if not isinstance(fields, dict):
            raise ValueError(f"{path}: 'hardware: {machine}' must be a mapping of arguments; got {fields!r}.")
        _refuse_unknown(path, f"key in 'hardware: {machine}'", fields, known["training"])
    return Recipe(name=path.stem, path=path, **sections)


def _refuse_unknown(path: Path, what: str, found: Iterable[str], known: Iterable[str]) -> None:
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"it may be one of {', '.join(sorted(known))}."
            raise ValueError(f"{path} has an unknown {what}: {name!r}; {advice}")


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
