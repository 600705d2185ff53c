# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""
Make a checkpoint of published DenseCLIP weights, or of CLIP's, that Transformers loads.

    python -m training.convert denseclip_fpn_r50.pth denseclip-rn50
    python -m training.convert RN50.pt start --class_names classes.txt \
        --config configuration/models/denseclip_fpn_rn50.json

No pickle is executed, every tensor is accounted for, and nothing is written before the whole model is built.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modeling_denseclip import DenseCLIPForSemanticSegmentation
from modeling_denseclip.checkpoint_formats_denseclip import read_source
from modeling_denseclip.conversion_denseclip import build_model, load_tokenizer, merge_fields
from modeling_denseclip.tools.command import run_command

from .options.config_fields import read_config_fields
from .publishing.conversion import check_output, choose_class_names, save_with_image_processor, summarize
from .publishing.hub import push_directory


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.convert",
        description="Make a checkpoint of published DenseCLIP weights, or of CLIP's, that Transformers loads.",
        epilog="A CLIP source gives a model to fine-tune: its prompts, context decoder, neck and head are new.",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="published DenseCLIP or CLIP + Semantic FPN checkpoint (.pth); or CLIP: OpenAI's TorchScript archive"
        " (.pt), safetensors of open_clip (file, folder or Hub id), or a CLIPModel of Transformers (folder or Hub id)",
    )
    parser.add_argument("output", metavar="OUT", help="folder to write the model, its code and its processors to")
    parser.add_argument(
        "--config",
        metavar="JSON",
        help="architecture, e.g. configuration/models/denseclip_fpn_rn50.json. Its fields go before what the weights"
        " show, which is everything but numbers of heads and the protocol; a few fields are enough",
    )
    parser.add_argument(
        "--class_names",
        metavar="FILE",
        help="one class name per line, in the order of the label ids. Required where the source names no classes,"
        " as CLIP does not",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="DIR_OR_ID",
        help="CLIP's tokenizer. By default the one beside the source, or else OpenAI's, which the Hub has: without a"
        " network, name a folder",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model that OUT holds")
    parser.add_argument("--push_to_hub", metavar="REPO", help="also upload everything to this repository of the Hub")
    return parser


def main(argv: Sequence[str] | None = None) -> DenseCLIPForSemanticSegmentation:
    """
    Raises:
        ValueError: for a source, class names or an output that do not serve; nothing is written then.
        OSError: for files that are not there, or a Hub that does not take the upload; the output is written then.
    """
    args = build_parser().parse_args(argv)
    output = Path(args.output)
    check_output(output, args.source, args.overwrite)
    asked = read_config_fields(args.config) if args.config else {}

    weights = read_source(args.source)
    class_names = choose_class_names(weights, args.class_names)
    fields = merge_fields(weights.fields, asked)
    use_language = fields.get("use_language", True)
    tokenizer = load_tokenizer(args.tokenizer, beside=args.source) if use_language else None
    model = build_model(DenseCLIPForSemanticSegmentation, weights, fields, class_names, tokenizer)

    save_with_image_processor(model, output)
    print(summarize(weights, model))
    print(f"Written to: {output}")
    if args.push_to_hub is not None:
        print(f"Pushed to:  {push_directory(output, args.push_to_hub)}")
    return model


if __name__ == "__main__":
    sys.exit(run_command(main, error_status=1))
