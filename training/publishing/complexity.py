# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Parameters and GFLOPs of configurations, as tables beside the paper's."""

import os
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from modeling_denseclip import DenseCLIPConfig
from modeling_denseclip.tools.files.loading import read_json
from modeling_denseclip.tools.insight.complexity import KINDS, Complexity

from .. import REPOSITORY
from ..options.config_fields import read_config_fields
from ..options.recipes import load_recipe


RECIPES = REPOSITORY / "configuration" / "recipes" / "ade20k"
ADE20K_NUM_LABELS = 150
# Tokens that CLIP's tokenizer makes of ADE20K's names, start and end tokens left out. The cost of the text tower
# depends on their sum alone, since all names run in one packed sequence.
ADE20K_NAME_TOKENS = 184


def read_config(source: str | os.PathLike, num_labels: int | None = None) -> DenseCLIPConfig:
    """
    A config that a model can be built of without a tokenizer.

    Args:
        source (`str` or `os.PathLike`): a JSON file, or a checkpoint's directory.
        num_labels (`int`, *optional*): how many classes; defaults to those of the file, or else 150. Their names are
            as long as ADE20K's on average. Classes that the file names itself keep their lengths.

    Raises:
        ValueError: for a file that is not there or does not hold a DenseCLIP config.
    """
    path = Path(source) / "config.json" if Path(source).is_dir() else Path(source)
    if not path.is_file():
        raise ValueError(f"{path} does not exist. Name a JSON file as in configuration/models, or a checkpoint.")
    if read_json(path).get("model_type", DenseCLIPConfig.model_type) != DenseCLIPConfig.model_type:
        raise ValueError(f"{path} is not the config of a DenseCLIP: its model_type must be 'denseclip'.")
    fields = read_config_fields(path)
    if num_labels is not None or "id2label" not in fields:
        num_labels = ADE20K_NUM_LABELS if num_labels is None else num_labels
        for name in ("class_names", "prompt_names", "class_token_ids", "label2id", "num_labels", "palette"):
            fields.pop(name, None)
        fields["id2label"] = {index: f"class {index}" for index in range(num_labels)}
        # Names of one or two tokens between start and end, which are together as long as ADE20K's would be. Which ids
        # these are does not matter where nothing is computed.
        num_longer = round(num_labels * (ADE20K_NAME_TOKENS - ADE20K_NUM_LABELS) / ADE20K_NUM_LABELS)
        token_ids = [[0] * (4 if index < num_longer else 3) for index in range(num_labels)]
        fields["class_token_ids"] = token_ids if fields.get("use_language", True) else None
    try:
        return DenseCLIPConfig(**fields)
    except StrictDataclassError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def format_parts(complexity: Complexity) -> str:
    """A Markdown table: one row per part, one column per kind of operator."""
    used = set().union(*(part.flops for part in complexity.parts.values()))
    kinds = [kind for kind in dict.fromkeys([*KINDS.values(), *sorted(used)]) if kind in used]
    rows = [["Part", "Parameters, M", "GFLOPs", *kinds]]
    for name, part in complexity.parts.items():
        flops = [part.flops.total(), *(part.flops[kind] for kind in kinds)]
        rows.append([name, f"{part.parameters / 1e6:.3f}", *(f"{count / 1e9:.3f}" for count in flops)])
    return format_table(rows)


def format_complexities(rows: list[tuple[str, Complexity]]) -> str:
    """A Markdown table: one row per config, the paper's values beside ours where a recipe of its name has them."""
    table = [
        ["Config", "Parameters, M", "paper", "of the text tower, M", "GFLOPs", "paper", "with the text tower, GFLOPs"]
    ]
    for name, complexity in rows:
        recipe = RECIPES / f"{name}.yaml"
        paper = load_recipe(recipe).paper if recipe.is_file() else {}
        has_text = complexity.text_parameters > 0
        table.append(
            [
                name,
                f"{complexity.parameters / 1e6:.3f}",
                str(paper.get("parameters_millions") or "-"),
                f"{complexity.text_parameters / 1e6:.3f}" if has_text else "-",
                f"{complexity.flops / 1e9:.2f}" + (" *" if complexity.encodes_text_per_image else ""),
                str(paper.get("gflops") or "-"),
                f"{complexity.flops_with_text / 1e9:.2f}" if has_text else "-",
            ]
        )
    return format_table(table)


def format_table(rows: list[list[str]]) -> str:
    """Markdown with a title row; the first column at the left, numbers at the right."""
    title, *others = rows
    lines = [title, ["---", *["---:"] * (len(title) - 1)], *others]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def name_of(source: str) -> str:
    """What a row is called: the stem of a JSON file, or the name of the directory that holds a checkpoint."""
    path = Path(source).resolve()
    if path.name == "config.json":
        path = path.parent
    return path.name if path.is_dir() else path.stem
