# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Model cards of the paper's rows, from their configurations and recipes.

    python -m training.model_card            # writes the cards of the paper's rows, model_cards/<recipe>.md, anew
    python -m training.model_card --check    # fails if one of them is not what would be written

[`training.push`] writes the card of a model of yours.
"""

import argparse
import sys
from collections.abc import Sequence

from modeling_denseclip.tools.command import run_command

from . import REPOSITORY
from .options.recipes import load_recipe
from .publishing.card import build_model_card, build_row_card, find_stale_cards


__all__ = ["build_model_card"]  # for Python

CARDS = REPOSITORY / "model_cards"
RECIPES = REPOSITORY / "configuration" / "recipes" / "ade20k"


def main(argv: Sequence[str] | None = None) -> None:
    """
    Raises:
        ValueError: with `--check`, if a card is stale; names it and the difference.
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.model_card",
        description="Write the cards of the paper's rows, one for each recipe in configuration/recipes/ade20k.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a card is not up to date")
    check = parser.parse_args(argv).check

    cards = {f"{path.stem}.md": str(build_row_card(load_recipe(path))) for path in sorted(RECIPES.glob("*.yaml"))}
    stale = find_stale_cards(cards, CARDS)
    if check and stale:
        raise ValueError(
            f"{len(stale)} cards in {CARDS.name}/ are stale; `python -m training.model_card` writes them anew.\n"
            + "\n".join(stale.values())
        )
    for name in stale:
        if name in cards:
            (CARDS / name).write_text(cards[name], encoding="utf-8")
        print(f"{CARDS.name}/{name} {'is written' if name in cards else 'belongs to no recipe: remove it'}.")


if __name__ == "__main__":
    sys.exit(run_command(main))
