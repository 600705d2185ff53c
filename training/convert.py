# Copyright 2026 The DenseCLIP for Transformers authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
r"""
Make a checkpoint of published DenseCLIP weights, or of CLIP's, that Transformers loads.

    python -m training.convert denseclip_fpn_r50.pth denseclip-rn50
    python -m training.convert RN50.pt start --class_names classes.txt \
        --config configuration/models/denseclip_fpn_rn50.json

No pickle is executed, every tensor is accounted for, and nothing is written before the whole model is built.
"""

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.conversion_denseclip import (
    CHECKPOINT_FIELDS,
    POSITION_GRIDS,
    SourceWeights,
    build_model,
    load_tokenizer,
    merge_fields,
    read_source,
)
from modeling_denseclip.tools.command import run_command
from modeling_denseclip.tools.files.loading import read_json
from modeling_denseclip.tools.files.saving import clear_leftovers, replace_folder

from .data.class_names import read_class_names
from .push import push_directory


# The published upper bound of an image's long side, whatever its short side.
LONGEST_EDGE = 2048
# What makes a folder one that holds a model.
MODEL_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "pytorch_model*.bin")


def read_config_fields(path: str | os.PathLike) -> dict:
    """
    Fields of [`DenseCLIPConfig`] from a JSON file: one of `configuration/models/`, a few fields, or a saved config.

    Raises:
        ValueError: for a field that the config does not have, or a value that it does not take.
    """
    fields = read_json(path)
    known = {field.name for field in dataclasses.fields(DenseCLIPConfig)} | set(CHECKPOINT_FIELDS)
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise ValueError(f"{path} has fields that DenseCLIPConfig does not know: {', '.join(unknown)}.")
    return fields


def choose_class_names(weights: SourceWeights, class_names_file: str | None) -> tuple[str, ...]:
    """The checkpoint's own class names, or those of the file where it has none."""
    if weights.class_names is not None:
        if class_names_file is not None:
            raise ValueError(
                f"The checkpoint names its {len(weights.class_names)} classes itself, so --class_names does not apply."
                " Leave it away, and change names afterwards by `model.set_class_names`."
            )
        return weights.class_names
    if class_names_file is None:
        raise ValueError(
            f"The source ({weights.form}) names no classes. Pass --class_names FILE with one name per line, in the"
            " order of the label ids."
        )
    return tuple(read_class_names(class_names_file))


def check_output(output: Path, source: str, overwrite: bool) -> None:
    """Refuse an output folder in which something would be lost."""
    for folder in (output.resolve(), output.resolve().parent):
        clear_leftovers(folder)
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; the output must be a folder.")
    source_folder = Path(source).parent if Path(source).is_file() else Path(source)
    if output.exists() and source_folder.exists() and output.samefile(source_folder):
        raise ValueError(f"{output} holds the source itself. Choose another folder for the output.")
    found = [file.name for pattern in MODEL_FILES for file in sorted(output.glob(pattern))]
    if found and not overwrite:
        raise ValueError(f"{output} holds a model already ({', '.join(found)}). Use --overwrite to replace it.")


def save(model: DenseCLIPForSemanticSegmentation, image_processor: DenseCLIPImageProcessor, output: Path) -> None:
    """Write everything, in the place of a model that is there."""

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        image_processor.save_pretrained(folder)

    replace_folder(output, write, "config.json", is_replaced=lambda file: any(map(file.match, MODEL_FILES)))


def summarize(weights: SourceWeights, model: DenseCLIPForSemanticSegmentation) -> str:
    """What was read, what was built of it, and what of it is not in the source."""
    config = model.config
    counts = {}
    for name, parameter in model.named_parameters():
        is_text = name.startswith(("text_encoder.", "text_projection."))
        counts[is_text] = counts.get(is_text, 0) + parameter.numel()
    text_tower = f", and {counts[True] / 1e6:.3f} million in the text tower" if True in counts else ""
    names = ", ".join(config.class_names[:5]) + (", ..." if len(config.class_names) > 5 else "")
    lines = [
        f"Source:     {weights.form}, {len(weights.state_dict)} tensors",
        f"Parameters: {counts[False] / 1e6:.3f} million{text_tower}",
        f"Classes:    {len(config.class_names)} ({names})",
    ]
    own = model.state_dict()
    for name in POSITION_GRIDS:
        if name in own and name in weights.state_dict:
            before, after = (math.isqrt(state[name].shape[0] - 1) for state in (weights.state_dict, own))
            change = "as in the source" if before == after else f"resized bilinearly from {before} x {before}"
            lines.append(f"Positions:  {after} x {after}, {change}")
    new = sorted(
        {prefix.rstrip(".") for prefix in weights.new_modules if any(name.startswith(prefix) for name in own)}
    )
    if weights.copies:
        lines.append(f"Left out:   {len(weights.copies)} averaged copies, such as {weights.copies[0]}")
    if weights.is_clip:
        lines.append(f"New:        {', '.join(new)} are freshly initialised; fine-tune the model before you use it")
    return "\n".join(lines)


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
    image_processor = DenseCLIPImageProcessor(
        size={"shortest_edge": min(model.config.window_size), "longest_edge": LONGEST_EDGE}
    )

    save(model, image_processor, output)
    print(summarize(weights, model))
    print(f"Written to: {output}")
    if args.push_to_hub is not None:
        print(f"Pushed to:  {push_directory(output, args.push_to_hub)}")
    return model


if __name__ == "__main__":
    sys.exit(run_command(main, error_status=1))
