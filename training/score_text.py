# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""
Draw where a model sees what any words say: open vocabulary, from the branch of the score map.

    python -m training.score_text MODEL street.jpg --texts "road" "bus stop" --output scores
    python -m training.score_text openai/clip-vit-base-patch16 street.jpg --clip --value_projection \
        --texts "a photo of a road" "a photo of a bus stop" --output scores

MODEL is a DenseCLIP, or with --clip a CLIP that has seen no masks. The decode head takes no part in it: that knows the
classes of its training alone. Whole images, no sliding windows.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modeling_denseclip.tools.command import run_command
from modeling_denseclip.tools.files.devices import choose_device
from modeling_denseclip.tools.files.inputs import check_targets
from modeling_denseclip.tools.files.loading import load_model
from modeling_denseclip.tools.files.photographs import read_photograph
from modeling_denseclip.tools.files.saving import save_whole
from modeling_denseclip.tools.insight.text_scores import TextPredictor, draw_scores, format_scores


# CLIP's own training ended at a `logit_scale` of 100, of which this is the inverse.
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
    output = Path(args.output)
    images = [Path(image) for image in args.images]
    targets = {image: [output / f"{image.stem}-texts.png"] for image in images}
    check_targets(targets, output, "--output", "draw them one after the other")
    for image in targets:
        if not image.exists():
            raise FileNotFoundError(f"There is no photograph {image}.")
        read_photograph(image)  # all of them are looked at before the first is scored
    device = choose_device(args.device)

    model, image_processor = load_model(args.model, args.clip, args.tokenizer)
    model.to(device)
    predictor = TextPredictor(model, image_processor, args.texts, args.learned_prompts, args.value_projection)
    temperature = args.temperature or (CLIP_TEMPERATURE if args.clip else model.config.temperature)
    for image, (target,) in targets.items():
        photograph = read_photograph(image)
        scores = predictor([photograph])[0].cpu()
        picture = draw_scores(photograph, scores, args.texts, temperature, image.name)
        save_whole(target, picture.save)
        print(f"\n{format_scores(scores, args.texts, image.name)}")
    meaning = predictor.explain_scores(args.model)
    if args.clip:
        meaning = f"Zero-shot: the CLIP {args.model} as it is, which has seen no masks."
        meaning += " Texts are read plainly, as sentences."
    print(f"\n{meaning}\nWritten to: {output}")
    return [target for (target,) in targets.values()]


if __name__ == "__main__":
    sys.exit(run_command(main))
