# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""A folder that Transformers loads, of weights from elsewhere: what it holds, where it goes, what is new in it."""

import math
from collections import Counter
from pathlib import Path

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.checkpoint_formats_denseclip import SourceWeights
from modeling_denseclip.conversion_denseclip import POSITION_GRIDS
from modeling_denseclip.tools.files.saving import clear_leftovers, replace_folder

from ..data.class_names import read_class_names


# The published upper bound of an image's long side, whatever its short side.
LONGEST_EDGE = 2048
# What makes a folder one that holds a model.
MODEL_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "pytorch_model*.bin")


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


def save_with_image_processor(model: DenseCLIPForSemanticSegmentation, output: Path) -> None:
    """Write the model and an image processor that fits, in the place of a model that is there."""
    image_processor = DenseCLIPImageProcessor(
        size={"shortest_edge": min(model.config.window_size), "longest_edge": LONGEST_EDGE}
    )

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        image_processor.save_pretrained(folder)

    replace_folder(output, write, "config.json", is_replaced=lambda file: any(map(file.match, MODEL_FILES)))


def summarize(weights: SourceWeights, model: DenseCLIPForSemanticSegmentation) -> str:
    """What was read, what was built of it, and what of it is not in the source."""
    config = model.config
    counts = Counter()
    for name, parameter in model.named_parameters():
        counts[name.startswith(("text_encoder.", "text_projection."))] += parameter.numel()
    text_tower = f", and {counts[True] / 1e6:.3f} million in the text tower" if counts[True] else ""
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
    if weights.copies:
        lines.append(f"Left out:   {len(weights.copies)} averaged copies, such as {weights.copies[0]}")
    if weights.is_clip:
        present = [prefix for prefix in weights.new_modules if any(name.startswith(prefix) for name in own)]
        new = ", ".join(sorted(prefix.rstrip(".") for prefix in present))
        lines.append(f"New:        {new} are freshly initialised; fine-tune the model before you use it")
    return "\n".join(lines)
