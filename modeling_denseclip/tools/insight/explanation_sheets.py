# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Sheets that show an explanation: of a pixel, of a class, and of names that are alike."""

from collections.abc import Sequence

import PIL.Image
import torch

from ..pictures.drawing import (
    PICTURE_WIDTH,
    contact_sheet,
    draw_bars,
    draw_heat_map,
    draw_matrix,
    draw_overlay,
    mark_pixel,
    to_picture_width,
)
from ..pictures.palettes import generate_palette
from .explanation import ClassExplanation, ImageExplanation, PixelExplanation, similar_pairs


# A picture of similarities has room for so many names.
MAXIMUM_NAMES = 24
# How many bars are drawn: the best classes at a pixel, and what a class is confused with.
DRAWN_AT_A_PIXEL, DRAWN_OF_A_CLASS = 5, 8


def draw_pixel(
    photograph: PIL.Image.Image,
    explanation: ImageExplanation,
    pixel: PixelExplanation,
    palette: Sequence[Sequence[int]] | None = None,
) -> PIL.Image.Image:
    """
    Draw what speaks for each class at a pixel: the photograph and the classes with the pixel marked, the best classes
    as bars, and below, the score map of the predicted class before and after prompting and that of the next.
    """
    names, order = pixel.class_names, pixel.probabilities.argsort(descending=True)
    palette = generate_palette(len(names)) if palette is None else palette
    photograph = to_picture_width(photograph)
    place = (
        (pixel.row + 0.5) * photograph.height / explanation.size[0],
        (pixel.column + 0.5) * photograph.width / explanation.size[1],
    )
    best, second = order[:2].tolist() if len(order) > 1 else [0, 0]
    low, high = _limits([pixel.score_before, pixel.score_after])
    span = high - low if high > low else 1.0

    def bars(values: torch.Tensor, scores: bool) -> list:
        rows = []
        for index in values.argsort(descending=True)[:DRAWN_AT_A_PIXEL].tolist():
            value = values[index].item()
            length, text = ((value - low) / span, f"{value:.3f}") if scores else (value, f"{100 * value:.1f} %")
            rows.append((names[index], length, text, palette[index]))
        return rows

    groups = [
        ("probability, decode head", bars(pixel.probabilities, scores=False)),
        (f"score after prompting; bars start at {low:.2f}", bars(pixel.score_after, scores=True)),
        (f"score before prompting; bars start at {low:.2f}", bars(pixel.score_before, scores=True)),
    ]
    panels = [
        (mark_pixel(photograph, *place), f"pixel x {pixel.column}, y {pixel.row}"),
        (mark_pixel(_draw_classes(photograph, explanation, palette), *place), f"predicted here: {names[best]}"),
        (draw_bars(groups), "the best classes at this pixel"),
    ]
    maps = [
        (explanation.score_before[best], names[best], "before prompting", pixel.score_before[best]),
        (explanation.score_after[best], names[best], "after prompting", pixel.score_after[best]),
        (explanation.score_after[second], names[second], "after prompting, the next class", pixel.score_after[second]),
    ]
    limits = _limits([values for values, *_ in maps])
    for values, name, when, score in maps:
        heat_map = draw_heat_map(photograph, values.numpy(), name, limits)
        panels.append((mark_pixel(heat_map, *place), f"{when}: {score:.3f} at the pixel"))
    return _draw_sheet(panels)


def draw_class(
    photograph: PIL.Image.Image,
    explanation: ImageExplanation,
    a_class: ClassExplanation,
    palette: Sequence[Sequence[int]] | None = None,
) -> PIL.Image.Image:
    """
    Draw where a class is seen: the photograph, the classes, what it is confused with as bars, and below, its score map
    before and after prompting and its probability.
    """
    names, name = a_class.class_names, a_class.class_names[a_class.index]
    palette = generate_palette(len(names)) if palette is None else palette
    photograph = to_picture_width(photograph)
    if a_class.share:
        title, means = f"mean probability where {name} is predicted", a_class.probabilities
    else:
        row, column = a_class.best_pixel
        title = f"predicted nowhere; probabilities at x {column}, y {row}"
        means = explanation.explain_pixel(row, column).probabilities
    rows = [
        (names[other], means[other].item(), f"{100 * means[other]:.1f} %", palette[other])
        for other in means.argsort(descending=True)[:DRAWN_OF_A_CLASS].tolist()
    ]
    limits = _limits([a_class.score_before, a_class.score_after])
    change = (a_class.score_after - a_class.score_before).abs().max()
    maps = [
        (a_class.score_before, limits, "score before prompting"),
        (a_class.score_after, limits, f"score after prompting, changed by up to {change:.3f}"),
        (a_class.probability_map, (0.0, 1.0), f"probability, up to {100 * a_class.probability_map.max():.1f} %"),
    ]
    return _draw_sheet(
        [
            (photograph, "photograph"),
            (_draw_classes(photograph, explanation, palette), f"{100 * a_class.share:.1f} % are predicted as {name}"),
            (draw_bars([(title, rows)]), "what it is confused with"),
            *((draw_heat_map(photograph, values.numpy(), name, ends), caption) for values, ends, caption in maps),
        ]
    )


def draw_similarity(similarity: torch.Tensor, class_names: Sequence[str]) -> PIL.Image.Image:
    """
    Draw the cosines of names as a matrix in which similar names stand together; of more than 24 names, those of the
    most similar pairs.
    """
    shown = _most_similar(similarity, MAXIMUM_NAMES)
    title = "cosine of class names"
    if len(shown) < len(class_names):
        title += f": the {len(shown)} of {len(class_names)} most alike"
    return draw_matrix(similarity[shown][:, shown].numpy(), [class_names[index] for index in shown], title)


def _most_similar(similarity: torch.Tensor, limit: int) -> list[int]:
    """The ids of the names in the most similar pairs, each behind the one that it is most similar to."""
    chosen: list[int] = []
    for *pair, _ in similar_pairs(similarity):
        chosen += [index for index in pair if index not in chosen][: limit - len(chosen)]
    ordered, rest = chosen[:1], chosen[1:]
    while rest:
        ordered.append(max(rest, key=lambda index: similarity[ordered[-1], index].item()))
        rest.remove(ordered[-1])
    return ordered


def _limits(maps: Sequence[torch.Tensor]) -> tuple[float, float]:
    """One scale for all, so that their colours can be compared."""
    return min(values.min().item() for values in maps), max(values.max().item() for values in maps)


def _draw_classes(
    photograph: PIL.Image.Image, explanation: ImageExplanation, palette: Sequence[Sequence[int]]
) -> PIL.Image.Image:
    segmentation = explanation.segmentation(photograph.size[::-1])
    return draw_overlay(photograph, segmentation, dict(enumerate(explanation.class_names)), palette, legend=False)


def _draw_sheet(panels: Sequence[tuple[PIL.Image.Image, str]]) -> PIL.Image.Image:
    """Pictures with their captions at one width, three per row."""
    pictures, captions = zip(*panels, strict=True)
    return contact_sheet(pictures, captions, columns=3, tile_width=PICTURE_WIDTH)
