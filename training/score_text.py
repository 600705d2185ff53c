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
Draw where a model sees what any words say: open vocabulary, from the branch of the score map.

    python -m training.score_text MODEL street.jpg --texts "road" "bus stop" --output scores
    python -m training.score_text openai/clip-vit-base-patch16 street.jpg --clip --value_projection \
        --texts "a photo of a road" "a photo of a bus stop" --output scores

MODEL is a DenseCLIP, or with --clip a CLIP that has seen no masks. The decode head takes no part in it: that knows the
classes of its training alone. Whole images, no sliding windows.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from modeling_denseclip.tools.command import run_command
from modeling_denseclip.tools.commands.predict import check_name
from modeling_denseclip.tools.files.loading import choose_device, load_model
from modeling_denseclip.tools.files.photographs import read_photograph
from modeling_denseclip.tools.files.saving import save_whole
from modeling_denseclip.tools.insight.text_scores import describe, draw_scores, format_scores


# What CLIP's own training ended at: its `logit_scale` is 100.
CLIP_TEMPERATURE = 0.01


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.score_text",
        description="Draw where a model sees what any words say, by its score map; the decode head knows its own"
        " classes alone.",
        epilog="A picture per image: the text that scores best at each pixel, and for each text its cosines, in"
        " colours that mean the same for all texts, and its share of a softmax over the texts. Shares always add up"
        " to 100 %: where nothing named is to be seen, one of the texts wins all the same.",
    )
    parser.add_argument("model", metavar="MODEL", help="a DenseCLIP with language: a folder or a Hub id")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="photographs")
    parser.add_argument(
        "--texts",
        metavar="TEXT",
        nargs="+",
        required=True,
        help='names as a DenseCLIP was trained with ("sofa"), or sentences where they are read plainly ("a photo of a'
        ' sofa")',
    )
    parser.add_argument("--output", metavar="DIR", required=True, help="folder for the pictures, IMAGE-texts.png")
    parser.add_argument(
        "--clip",
        action="store_true",
        help="MODEL is a CLIP: of Transformers or open_clip (folder or Hub id), or OpenAI's archive (.pt). Zero-shot,"
        " and read plainly",
    )
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument(
        "--plain",
        dest="learned_prompts",
        action="store_false",
        help="read texts as CLIP does, without what training learned for class names; the default where nobody has"
        " trained that",
    )
    prompts.add_argument(
        "--learned_prompts",
        action="store_true",
        help="prompt texts as class names are, which is the default for a trained DenseCLIP",
    )
    parser.set_defaults(learned_prompts=None)
    parser.add_argument(
        "--value_projection",
        action="store_true",
        help="embed each pixel by its own value of the last attention: sharper maps of a CLIP that has seen no masks",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        help=f"of the softmax over texts. Defaults to the model's, or with --clip to CLIP's {CLIP_TEMPERATURE}",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="DIR_OR_ID",
        help="CLIP's tokenizer. By default the one beside MODEL, or else, with --clip, OpenAI's on the Hub",
    )
    parser.add_argument("--device", help="such as cpu, cuda:1 or mps. By default a GPU of CUDA if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """
    Score, print and draw; returns the paths of the pictures.

    Raises:
        ValueError: for words, a model or texts that do not serve; nothing is written then.
        OSError: for files that are not there or no images.
    """
    args = build_parser().parse_args(argv)
    if args.clip and args.learned_prompts:
        raise ValueError("A CLIP has no learned prompts: leave --learned_prompts or --clip away.")
    if args.temperature is not None and not args.temperature > 0:
        raise ValueError(f"--temperature must be positive; got {args.temperature}.")
    targets = choose_targets([Path(image) for image in args.images], Path(args.output))
    for image in targets:
        if not image.exists():
            raise FileNotFoundError(f"There is no photograph {image}.")
        read_photograph(image)  # all of them are looked at before the first is scored
    device = choose_device(args.device)

    model, image_processor = load_model(args.model, args.clip, args.tokenizer)
    model.to(device)
    learned_prompts = args.learned_prompts
    if learned_prompts is None:  # as `score_text` decides, to say which it was
        learned_prompts = not model.has_untrained_contexts()
    temperature = args.temperature or (CLIP_TEMPERATURE if args.clip else model.config.temperature)
    for image, target in targets.items():
        photograph = read_photograph(image)
        # Not padded, even if the processor pads batches: the map has to lie on the photograph.
        inputs = image_processor(photograph, do_pad=False, return_tensors="pt")
        scores = model.score_text(
            inputs.pixel_values.to(device, model.dtype),
            args.texts,
            learned_prompts=learned_prompts,
            value_projection=args.value_projection,
        )[0].cpu()
        picture = draw_scores(photograph, scores, args.texts, temperature, image.name)
        save_whole(target, picture.save)
        print(f"\n{format_scores(scores, args.texts, image.name)}")
    print(f"\n{describe(args.model, model.config, args.clip, learned_prompts)}")
    print(f"Written to: {args.output}")
    return list(targets.values())


def choose_targets(images: Sequence[Path], output: Path) -> dict[Path, Path]:
    """
    The picture to write for each photograph.

    Raises:
        ValueError: where one picture or photograph would replace another, or the name of a picture is too long.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; --output must be a folder.")
    targets = {image: output / f"{image.stem}-texts.png" for image in images}
    sources = {os.path.realpath(image) for image in images}
    seen = {}
    for image, target in targets.items():
        if target in seen:
            raise ValueError(f"{seen[target]} and {image} would both become {target}: draw them one after the other.")
        if os.path.realpath(target) in sources:
            raise ValueError(f"{target} is one of the photographs and would be replaced: choose another --output.")
        check_name(target, image)
        seen[target] = image
    return targets


if __name__ == "__main__":
    sys.exit(run_command(main))
