# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Push a trained model to the Hub: weights, configuration, processors, code and model card, in one commit.

    python -m training.push DIR REPO
    python -m training.push DIR REPO --transformers_js FOLDER

The directory is checked and loaded first, so that what arrives can be used with nothing else. Its README.md is pushed
as it is; without one, or with one that was generated, the card is written from what is known. What
`training.export --format transformers.js` wrote goes to a branch of the same repository, in a commit of its own.
"""

import argparse
import sys
from collections.abc import Sequence

from modeling_denseclip.tools.command import run_command

from .options.recipes import load_recipe
from .publishing.hub import COMMIT_MESSAGE, find_code, push_directory
from .publishing.transformers_js import BRANCH


__all__ = ["find_code", "push_directory"]  # for Python


def main(argv: Sequence[str] | None = None) -> None:
    """
    Raises:
        ValueError, OSError: as [`push_directory`].
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.push",
        description="Push a trained model to the Hub in one commit: weights, config, processors, code and card.",
        epilog="A README.md in DIR is the card. Without one, or with one that was generated, it is written anew.",
    )
    parser.add_argument("directory", metavar="DIR", help="what the Trainer or `save_pretrained` wrote; checked first")
    parser.add_argument("repo_id", metavar="REPO", help="user/name; made where it does not exist")
    parser.add_argument("--recipe", metavar="YAML", help="the recipe that it was trained by, for the card")
    parser.add_argument(
        "--base_model",
        metavar="HUB_ID",
        action="append",
        help="the CLIP or the image encoder that it was trained from, for the card; may be given more than once",
    )
    parser.add_argument(
        "--transformers_js",
        metavar="FOLDER",
        help="what training.export --format transformers.js wrote of this model: pushed too, to the branch"
        f" {BRANCH!r}, which `pipeline` of transformers.js takes as `revision`",
    )
    parser.add_argument(
        "--handler",
        action="store_true",
        help="send handler.py and requirements.txt too, by which Inference Endpoints run the model; of these, files"
        " in DIR that somebody wrote are sent as they are",
    )
    # Without the option `private` is None, not False, and the account's setting decides.
    parser.add_argument("--private", action="store_const", const=True, help="a new repository is private")
    parser.add_argument("--revision", metavar="BRANCH", help="commit to this branch, made where it does not exist")
    parser.add_argument("--token", help="by default HF_TOKEN, or that of `hf auth login`")
    parser.add_argument("--commit_message", metavar="TEXT", default=COMMIT_MESSAGE)
    arguments = vars(parser.parse_args(argv))
    if arguments["recipe"] is not None:
        arguments["recipe"] = load_recipe(arguments["recipe"])
    print(f"Pushed to: {push_directory(**arguments)}")
    if arguments["transformers_js"] is not None:
        print(f"For JavaScript: pipeline('image-segmentation', '{arguments['repo_id']}', {{ revision: '{BRANCH}' }})")


if __name__ == "__main__":
    sys.exit(run_command(main))
