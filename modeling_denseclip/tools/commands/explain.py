# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""`denseclip explain`: why a model sees what it sees, by pixel and by class, and class names that are alike."""

import argparse
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from ...class_names_denseclip import normalize_class_name
from ..files.devices import choose_device, naming_lack_of_memory
from ..files.inputs import check_name
from ..files.loading import load_model
from ..files.photographs import read_photograph
from ..files.saving import save_json, save_whole
from ..insight.explanation import (
    ClassExplanation,
    PixelExplanation,
    class_similarity,
    confusable_names,
    explain_image,
    load_text_reader,
    similar_names,
    similarity_threshold,
)
from ..insight.explanation_sheets import draw_class, draw_pixel, draw_similarity
from ..options.explain import LARGEST_CLASSES, NUMBERS


LISTED = 5  # the best classes of a table, and pairs of names that come next
NAMED_LETTERS = 40  # of a class, in the name of a file


def run(args: argparse.Namespace) -> int:
    """
    Explain, print and draw; returns the exit status, 0.

    Raises:
        ValueError: for a model, pixels, classes or names that do not serve; nothing is written then.
        OSError: for files that are not there or no image.
    """
    out = Path(args.out)
    # All of it is there before anything is printed or written; `numbers` are for JSON.
    sections, pictures, numbers = [], {}, {}
    with naming_lack_of_memory(
        "There is too little memory for this: make the photograph smaller, or try --device cpu."
    ):
        if args.photo is not None:
            _explain_photograph(args, sections, pictures, numbers)
        if args.names is not None:
            _compare_names(args, sections, pictures, numbers)
    for name in pictures:
        check_name(out / name, args.photo)
    print("\n\n".join(sections))
    for name, picture in pictures.items():
        save_whole(out / name, picture.save)
    written = list(pictures)
    if args.json:
        save_json(out / NUMBERS, numbers)
        written.append(NUMBERS)
    print(f"\nWritten to {out}: {', '.join(written)}")
    return 0


# -------------------------------------------------------------------------------------------------------- photographs


def _explain_photograph(
    args: argparse.Namespace, sections: list[str], pictures: dict[str, PIL.Image.Image], numbers: dict[str, Any]
) -> None:
    photo = Path(args.photo)
    photograph = read_photograph(photo)
    device = choose_device(args.device)
    model, image_processor = load_model(args.model, tokenizer=args.tokenizer)
    indices = [find_class(name, model.config.class_names) for name in args.classes]
    model.to(device).eval()
    # Not padded, even if the processor pads batches: the maps have to lie on the photograph.
    pixel_values = image_processor(photograph, do_pad=False, return_tensors="pt").pixel_values
    explanation = explain_image(model, pixel_values.to(device, model.dtype), photograph.size[::-1])
    pixels = [explanation.explain_pixel(row, column) for column, row in args.pixel]
    if not pixels and not indices:
        ids, counts = explanation.logits.argmax(dim=0).unique(return_counts=True)
        indices = ids[counts.argsort(descending=True)[:LARGEST_CLASSES]].tolist()

    def by_name(values: torch.Tensor) -> dict[str, float]:
        return dict(zip(explanation.class_names, values.tolist(), strict=True))

    palette = model.config.palette
    numbers.update(photo=photo.name, pixels=[], classes=[])
    for pixel in pixels:
        sections.append(format_pixel(pixel))
        numbers["pixels"].append(
            {
                "x": pixel.column,
                "y": pixel.row,
                "class": pixel.class_names[pixel.probabilities.argmax()],
                "probability": by_name(pixel.probabilities),
                "score_before": by_name(pixel.score_before),
                "score_after": by_name(pixel.score_after),
            }
        )
        picture = draw_pixel(photograph, explanation, pixel, palette)
        pictures[f"{photo.stem}-pixel-{pixel.column}-{pixel.row}.png"] = picture
    for index in indices:
        a_class = explanation.explain_class(index)
        sections.append(format_class(a_class))
        numbers["classes"].append(
            {
                "class": a_class.class_names[index],
                "share": a_class.share,
                "mean_probability": by_name(a_class.probabilities) if a_class.share else None,
                "greatest_probability": a_class.probability_map.max().item(),
                "most_probable_at": {"x": a_class.best_pixel[1], "y": a_class.best_pixel[0]},
            }
        )
        name = re.sub(r"\W+", "_", a_class.class_names[index])[:NAMED_LETTERS]
        pictures[f"{photo.stem}-class-{index}-{name}.png"] = draw_class(photograph, explanation, a_class, palette)
    if not model.prompting.has_context_decoder:
        sections.append("This model's names are not prompted by the picture: before and after are the same.")


def find_class(name: str, class_names: Sequence[str]) -> int:
    """
    The id of a class, whatever its case, and with `_` for a space.

    Raises:
        ValueError: for an unknown name; suggests those that are spelt alike.
    """
    known = {normalize_class_name(class_name).lower(): index for index, class_name in enumerate(class_names)}
    wanted = normalize_class_name(name).lower()
    if wanted in known:
        return known[wanted]
    alike = [class_names[known[match]] for match in difflib.get_close_matches(wanted, known)]
    advice = f"Did you mean {' or '.join(map(repr, alike))}?" if alike else f"It has: {', '.join(class_names)}."
    raise ValueError(f"The model has no class {name!r}. {advice}")


def format_pixel(pixel: PixelExplanation) -> str:
    """A table of the classes that are among the best by probability or by score, the most probable first."""
    columns = (pixel.probabilities, pixel.score_before, pixel.score_after)
    shown = {index for values in columns for index in values.argsort(descending=True)[:LISTED].tolist()}
    order = sorted(shown, key=lambda index: -pixel.probabilities[index].item())
    width = max(len("class"), *(len(pixel.class_names[index]) for index in order))
    lines = [
        f"pixel x {pixel.column}, y {pixel.row}: {pixel.class_names[order[0]]}",
        f"{'class':<{width}}  probability  score before  score after",
    ]
    for index in order:
        probability = 100 * pixel.probabilities[index]
        before, after = pixel.score_before[index], pixel.score_after[index]
        lines.append(f"{pixel.class_names[index]:<{width}}  {probability:9.1f} %  {before:12.3f}  {after:11.3f}")
    return "\n".join(lines)


def format_class(a_class: ClassExplanation) -> str:
    """What is predicted as a class, and a table of the classes that are probable there too."""
    names, index = a_class.class_names, a_class.index
    row, column = a_class.best_pixel
    best = f"most probable at x {column}, y {row}: {100 * a_class.probability_map.max():.1f} %"
    lines = [f"class {names[index]}: {100 * a_class.share:.1f} % of the picture, {best}"]
    for when, scores in (("before", a_class.score_before), ("after", a_class.score_after)):
        lines.append(f"score {when} prompting: {scores.min():.3f} to {scores.max():.3f}, mean {scores.mean():.3f}")
    if not a_class.share:
        return "\n".join([*lines, f"It is predicted nowhere. See what is in its place: --pixel {column} {row}"])
    others = [other for other in a_class.probabilities.argsort(descending=True).tolist() if other != index][:LISTED]
    width = max(len(names[other]) for other in [index, *others])
    lines.append("mean probability where it is predicted:")
    for other in [index, *others]:
        lines.append(f"  {names[other]:<{width}}  {100 * a_class.probabilities[other]:5.1f} %")
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------------------- names


def _compare_names(
    args: argparse.Namespace, sections: list[str], pictures: dict[str, PIL.Image.Image], numbers: dict[str, Any]
) -> None:
    if len(args.names) == 1:
        raise ValueError(f"--names compares two names or more; got {args.names[0]!r} alone.")
    model = load_text_reader(args.model, args.names or None, args.tokenizer)
    names = args.names or model.config.class_names
    if len(names) < 2:
        raise ValueError(f"{args.model} has one class alone, {names[0]!r}: give --names NAME ... to compare.")
    similarity = class_similarity(model.to(choose_device(args.device)), args.names or None)
    threshold = similarity_threshold(similarity) if args.threshold is None else args.threshold
    pairs = [f"  {cosine:.3f}  {first} / {second}" for first, second, cosine in similar_names(similarity, names)]
    confusable = confusable_names(similarity, names, threshold)
    lines = [
        f"{len(confusable)} of {len(pairs)} pairs of names are hard to tell apart: cosine {threshold:.3f} or more",
        *pairs[: len(confusable)],
    ]
    if following := pairs[len(confusable) : len(confusable) + LISTED]:
        lines += ["the next:" if confusable else "the most alike:", *following]
    sections.append("\n".join(lines))
    numbers["names"] = {
        "threshold": threshold,
        "confusable": [{"names": pair[:2], "cosine": pair[2]} for pair in confusable],
        "class_names": list(names),
        "cosines": similarity.tolist(),
    }
    pictures["class-names.png"] = draw_similarity(similarity, names)
