# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The words of `denseclip predict`."""

import argparse
from typing import Any

from .names import DTYPES, check_model_name, check_word


# Files of results: a line for each input, one JSON of all, and what they depend on.
LINES = "predictions.jsonl"
PREDICTIONS = "predictions.json"
SETTINGS = "predictions.settings.json"
# Arguments of a call of the model, by which it slides windows as its config says.
MODEL_WINDOW = {"inference_mode": None, "window_size": None, "window_stride": None}
OVERLAY_SIDE = 1600  # the longer side of the photograph under an overlay, at most

EPILOG = f"""files that are written, below --out:
  NAME-overlay.jpg  the photograph, of {OVERLAY_SIDE} pixels at most, under the colours
                    of its classes, beside a legend of names and areas
  NAME-mask.png     the id of each pixel's class, in the size of the upright
                    photograph: a PNG whose palette has the classes' colours,
                    or of 16-bit greys for more than 256 classes
  NAME-overlay.mp4  of a video: the overlay alone, without sound
  NAME-texts.png    with --text, instead: where each text matches
  {LINES}  for programs: a line of JSON for each file as it is done,
                    with its classes, their areas and scores
  {PREDICTIONS}  the same as one JSON, in the end, with what was left out
  {SETTINGS}  what the results depend on, for --resume

A folder is searched at all depths, and the folders in it come again below
--out, and so do those of a name that --files_from lists. A file that is there
already is replaced as a whole, once the new one is complete; {LINES}
and {PREDICTIONS} tell of this run alone.
A file or folder that cannot be read, or for which memory does not suffice, is
named and left out; so are frames of a video. Then the exit status is 1. Links
to files are followed, links to folders only where they are named.

A run that was stopped goes on by the same command with --resume: what has a
line is not done again. Results are the same as of one run, to the last bit
with the same --batch_size and number of processes. Of other settings it is
refused.

Under `torchrun` or `accelerate launch` the processes divide the files among
them, each on its GPU; --out has to be one folder for all.

In {PREDICTIONS} a name that is not UTF-8 has each byte of another encoding as
\\udcXX: Python's os.fsencode makes of it the name on the disk.

The area of a class is in pixels, and as a share of the picture, in [0, 1].
Its score is the mean of its softmax probability over its pixels, the same as
of pipeline("image-segmentation").

examples:
  denseclip predict street.jpg --model user/model --out results
  denseclip predict photos "more/*/left.png" --model user/model --out results
  denseclip predict drive.mp4 --model user/model --out results --batch_size 8
  denseclip predict wide.jpg --model user/model --out results --window 512
  denseclip predict street.jpg --model user/model --out results \\
      --text "a bus stop" "a bicycle"
  find . -name "*.jpg" -not -path "./results/*" | denseclip predict \\
      --files_from - --model user/model --out results --resume
  torchrun --nproc_per_node 8 --no-python denseclip predict photos \\
      --model user/model --out results --resume
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="*",
        help='photographs, videos, folders, and patterns in quotes ("photos/**/*.jpg")',
    )
    parser.add_argument(
        "--files_from",
        metavar="LIST",
        help="a text with the name of a file in each line; - is standard input. Their folders come again below --out",
    )
    parser.add_argument("--model", required=True, help="a DenseCLIP: a folder, or the id of a repository on the Hub")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the results; made if it is missing")
    parser.add_argument(
        "--text",
        metavar="TEXT",
        nargs="+",
        help="show where any words match instead, by the score map: cosines of CLIP's kind, no masks. The decode head,"
        " which knows the classes of the training alone, takes no part",
    )
    parser.add_argument(
        "--window",
        metavar="WINDOW",
        type=parse_window,
        default=MODEL_WINDOW,
        help='"whole", "slide" (the windows of the model\'s config), or SIZE or SIZE,STRIDE in pixels of the prepared'
        " image, for overlapping windows; STRIDE is two thirds of SIZE if not said. By default as the config says",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="average over 6 sizes of the photograph, each seen mirrored too, as the paper's"
        " multi-scale and flip: the model sees 17 times the pixels",
    )
    parser.add_argument(
        "--batch_size",
        metavar="N",
        type=positive_integer,
        default=4,
        help="photographs of one size, one behind the other, or frames, that go through the model at once (default:"
        " 4). Nothing is padded. At most twice as many threads read photographs, and as many write results",
    )
    parser.add_argument(
        "--palette",
        choices=("auto", "colorblind"),
        default="auto",
        help="colours: the model's, or else generated ones (auto); or ones that colour-blind people tell apart, as far"
        " as the number of classes allows",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="take masks in folders too. They are passed over where they lie beside their photographs: called as"
        " these, with an ending such as _mask or _label or with another suffix, and of few colours",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help=f"go on with the run whose results are in --out, by its {LINES}; without one, begin",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="say in the end where the time went: reading, preparing, model, resizing to classes, drawing, writing",
    )
    parser.add_argument("--device", help="such as cpu, cuda:1 or mps. By default a GPU of CUDA if there is one")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="what numbers the model computes in. auto is bfloat16, about twice as fast, where the processor"
        " multiplies in it (GPUs; of CPUs those with AVX-512 BF16 or AMX, under Linux), and float32 elsewhere and with"
        " --text. In bfloat16 a few pixels in a thousand get another class",
    )


def positive_integer(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more; got {word}")
    return number


def parse_window(word: str) -> dict[str, Any]:
    """What a call of the model takes for `--window`."""
    if word in ("whole", "slide"):
        return {**MODEL_WINDOW, "inference_mode": word}
    try:
        size, *others = (int(number) for number in word.split(","))
    except ValueError:
        size, others = 0, []
    stride = others[0] if others else 2 * size // 3
    # How small a window may be depends on the model, which is not loaded yet.
    if len(others) > 1 or not 0 < stride <= size:
        raise argparse.ArgumentTypeError(
            f'must be "whole", "slide", SIZE or SIZE,STRIDE, with STRIDE of 1 to SIZE pixels; got {word!r}'
        )
    return {"inference_mode": "slide", "window_size": size, "window_stride": stride}


def check(args: argparse.Namespace) -> None:
    """
    Raises:
        ValueError: for options that exclude each other, inputs that are not there, and what can be no model.
    """
    if args.text and (args.tta or args.window != MODEL_WINDOW or args.palette != "auto"):
        raise ValueError(
            "--text scores whole photographs and has colours of its own: leave --tta, --window and --palette away."
        )
    for word in args.inputs:
        check_word(word)
    check_model_name(args.model)
