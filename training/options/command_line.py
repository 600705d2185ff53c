# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What is typed behind `python -m training.train` and `training.evaluate`, and how it overrides a recipe."""

import argparse
import dataclasses
import difflib

from transformers import HfArgumentParser

from .arguments import (
    NEUTRAL_ARGUMENTS,
    DataArguments,
    DenseCLIPTrainingArguments,
    EvaluationArguments,
    ModelArguments,
)
from .recipes import Recipe, load_recipe


def parse_train_arguments(
    words: list[str],
) -> tuple[DataArguments, ModelArguments, DenseCLIPTrainingArguments, Recipe | None]:
    """
    Read `[RECIPE.yaml] [--recipe_hardware NAME] [--argument value ...]`. Words override the recipe.

    Without a recipe, pretrained weights make two defaults the published ones: with --clip or --image the rate of the
    image encoder is x 0.1, with --clip the text encoder is frozen. With a recipe of the paper there is no Dice loss,
    and JPEGs are decoded in full, unless words ask for the other.

    Returns:
        The arguments, and the recipe if the run follows it. `None` if words change more than place and machine.

    Raises:
        ValueError: for a recipe with unknown keys, or contradicting values.
        SystemExit: for words that are no arguments, as argparse has it.
    """
    recipe = None
    if words and words[0].endswith((".yaml", ".yml")):
        recipe, words = load_recipe(words[0]), words[1:]
    hardware_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    hardware_parser.add_argument("--recipe_hardware")
    hardware, words = hardware_parser.parse_known_args(words)
    if hardware.recipe_hardware is not None and recipe is None:
        raise ValueError("--recipe_hardware chooses among the machines of a recipe: name RECIPE.yaml first.")
    is_changed = not names_of_arguments(words).issubset(NEUTRAL_ARGUMENTS)
    if recipe is not None:
        words = [*recipe.words(hardware.recipe_hardware), *words]
    parser = HfArgumentParser(
        (DataArguments, ModelArguments, DenseCLIPTrainingArguments),
        prog="python -m training.train",
        usage="python -m training.train [RECIPE.yaml] [--recipe_hardware 8gpu|1gpu] [--argument value ...]",
        description="Fine-tune DenseCLIP. The rows of the paper are in configuration/recipes/; each recipe's first"
        " lines say on which hardware it runs how.",
    )
    if recipe is not None and recipe.paper:
        # The published loss and pictures, whatever data it is trained on.
        parser.set_defaults(dice_weight=0.0, jpeg_decoding="full")
    if recipe is None:
        known = parser.parse_known_args(words)[0]
        starts_from_clip, starts_from_image = (name not in (None, "none") for name in (known.clip, known.image))
        if starts_from_clip or starts_from_image:
            parser.set_defaults(image_encoder_lr_multiplier=0.1, freeze_text_encoder=starts_from_clip)
    return (*parse_words(parser, words), None if is_changed else recipe)


def parse_evaluation_arguments(words: list[str]) -> tuple[EvaluationArguments, DataArguments, bool]:
    """
    Read `CHECKPOINT [--argument value ...]`. The last result tells whether the words say how large images are made.

    Raises:
        ValueError: for words that are no arguments, or contradicting values.
        SystemExit: for values of another type, as argparse has it.
    """
    if words and not words[0].startswith("-"):
        words = ["--checkpoint", *words]
    parser = HfArgumentParser(
        (EvaluationArguments, DataArguments),
        prog="python -m training.evaluate",
        usage="python -m training.evaluate CHECKPOINT --data_dir FOLDER [--argument value ...]",
        description="Score a checkpoint by the paper's protocol.",
    )
    evaluation_args, data_args = parse_words(parser, words)
    return evaluation_args, data_args, not names_of_arguments(words).isdisjoint({"short_side", "long_side"})


def parse_words(parser: HfArgumentParser, words: list[str]) -> tuple:
    """
    The dataclasses of the parser, from words.

    Raises:
        ValueError: for words that are no arguments (with the nearest name).
        SystemExit: for values of another type, as argparse has it.
    """
    *parsed, left = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
    if left:
        known = [f"--{field.name}" for arguments in parser.dataclass_types for field in dataclasses.fields(arguments)]
        near = difflib.get_close_matches(left[0].split("=")[0], known, n=1)
        advice = f"did you mean {near[0]}?" if near else "--help lists all arguments."
        raise ValueError(f"{left[0]!r} is no argument of {parser.prog}; {advice}")
    return tuple(parsed)


def names_of_arguments(words: list[str]) -> set[str]:
    """The arguments that are named in the words: "--data-dir=x" names "data_dir"."""
    return {word[2:].split("=")[0].replace("-", "_") for word in words if word.startswith("--")}
