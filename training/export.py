# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""
Write a DenseCLIP as one file that runs without this code: for onnxruntime, or as a program of `torch.export`.

    python -m training.export DIR model.onnx
    python -m training.export DIR model.onnx --output class_map --inference_mode whole
    python -m training.export DIR model.onnx --int8 static --calibration_images photographs/
    python -m training.export DIR model.onnx --input pictures --output class_map
    python -m training.export DIR model.pt2 --format torch
    python -m training.export DIR folder --format transformers.js

The file takes `pixel_values` of any batch size, height and width; with `--input pictures` it takes the bytes of
pictures of any size, and resizes and normalises them itself. The embeddings of the class names are constants in
it; of the text tower nothing is left, except with pre-model prompting, which runs it for each image. Beside the file
comes `model.onnx.json`, all that `run_onnx.py` needs to know: class names, colours, how pictures are resized and
normalised, windows. Beside an ONNX file comes `run_onnx.py` itself, as one file that needs no checkout. For
transformers.js a folder is written, with all that the library reads. All is checked before it replaces what was there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modeling_denseclip.tools.command import run_command

from .publishing.export import export_model
from .publishing.formats import FORMATS


def main(argv: Sequence[str] | None = None) -> dict:
    """
    Returns what `OUT.json` holds.

    Raises:
        ValueError, OSError: as [`export_model`].
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.export",
        description="Write a DenseCLIP as one file, for onnxruntime or torch.export, and check it.",
    )
    parser.add_argument("checkpoint", metavar="DIR", type=Path, help="a saved DenseCLIP")
    suffixes = " or ".join(file_format.suffix for file_format in FORMATS.values() if file_format.suffix)
    parser.add_argument(
        "target",
        metavar="OUT",
        type=Path,
        help=f"the file to write, {suffixes}; OUT.json comes beside it. Of transformers.js the folder",
    )
    parser.add_argument("--format", dest="file_format", choices=tuple(FORMATS), default="onnx")
    parser.add_argument(
        "--input",
        dest="takes",
        choices=("pixel_values", "pictures"),
        default="pixel_values",
        help="what the file takes: `pixel_values` that the image processor or run_onnx.py has made; or `pictures`,"
        " uint8 of shape (batch_size, height, width, 3), RGB, of any size, which it prepares itself",
    )
    parser.add_argument(
        "--output",
        choices=("logits", "class_map"),
        default="logits",
        help="logits at a quarter of the size that the model sees, or the class id of each pixel of the input",
    )
    parser.add_argument(
        "--inference_mode",
        choices=("whole", "slide"),
        help="whether run_onnx.py shows the file whole images or sliding windows; the file itself takes what it is"
        " shown. Defaults to the checkpoint's",
    )
    parser.add_argument(
        "--float16",
        action="store_true",
        help="numbers of 16 bits, in half of the size, for GPUs and WebGPU; input and output keep their types",
    )
    parser.add_argument(
        "--int8",
        choices=("static", "dynamic"),
        help="integers of 8 bits: static for convolutions and matrix products, with the ranges that the calibration"
        " images show; dynamic for matrix products alone, which leaves a ResNet nearly as it is",
    )
    parser.add_argument(
        "--calibration_images",
        metavar="PATH",
        type=Path,
        nargs="+",
        default=[],
        help="with --int8 and --float16: photographs, or folders of them, to measure how many pixels keep their class."
        " Static calibrates on every other one and measures on the rest; a hundred of the kind that the model will see"
        " are enough",
    )
    return export_model(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(run_command(main))
