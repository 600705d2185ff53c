# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The written report of an evaluation: table, CSV, Markdown, JSON and a picture of the confusion matrix."""

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from modeling_denseclip.tools.files.saving import move_together, naming_what_failed, staging_folder
from modeling_denseclip.tools.pictures.drawing import (
    BACKGROUND,
    EMPTY_COLOR,
    MUTED_COLOR,
    TEXT_COLOR,
    draw_cells,
    shorten,
)

from .mean_iou.mean_iou import SCORES, SegmentationScores


LOW_COLOR, HIGH_COLOR = np.array([247, 251, 255]), np.array([8, 48, 107])  # of recall 0 and 1
MATRIX_SIDE = 1800  # pixels; the cells of many classes share it, those of few are no larger than MAX_CELL
MIN_CELL, MAX_CELL = 2, 96


def format_scores(scores: SegmentationScores, class_names: Sequence[str]) -> str:
    """
    Write the scores as a table in per cent, one row per class, the best IoU first.

    A dash stands for a score that is not defined; such classes come last.
    """
    names = [" ".join(name.split()) for name in class_names]
    width = max(map(len, [*names, "classes present"]))
    rule = "-" * (width + 18)
    lines = [f"{'class':<{width}}  {'IoU':>7}  {'Acc':>7}", rule]
    for label in _sort_by_iou(scores, class_names):
        lines.append(
            f"{names[label]:<{width}}  {_percent(scores.iou[label]):>7}  {_percent(scores.accuracy[label]):>7}"
        )
    lines.append(rule)
    lines += [f"{name:<{width}}  {_percent(value):>7}" for name, value in _summary(scores)]
    lines.append(f"{'classes present':<{width}}  {scores.num_classes_present:>7} of {len(class_names)}")
    return "\n".join(lines)


def write_report(
    output_dir: str | Path,
    scores: SegmentationScores,
    confusion: torch.Tensor | np.ndarray,
    class_names: Sequence[str],
    protocol: Mapping[str, Any],
    dataset: Mapping[str, Any],
    summary_name: str = "metrics",
) -> dict[str, Any]:
    """
    Write what an evaluation found, and how it was done, as four files.

    - `metrics.json`: everything, as it is returned. It is put in place last: where it is, the report is whole.
    - `per_class.csv`: one row per class, the best IoU first; fractions in [0, 1], empty where a score is not defined.
      A name that begins as a formula does has an apostrophe before it.
    - `per_class.md`: the same as a Markdown table in per cent, under the data set and the protocol.
    - `confusion_matrix.png`: see [`draw_confusion_matrix`].

    Args:
        output_dir (`str` or `Path`): the folder, made if it does not exist. Files of an older report are replaced.
        scores (`SegmentationScores`): of `confusion`.
        confusion (`torch.Tensor` or `np.ndarray` of shape `(num_labels, num_labels)`): row label, column prediction.
        class_names (`Sequence[str]`): a name for each id.
        protocol (`Mapping`): how it was measured: `name` ("SS" or "MS"), `description`, `inference_mode` ("slide" or
            "whole"), `window_size` and `window_stride` (`[height, width]` or `None`), `short_side`, `long_side`,
            `scales`, `flip`.
        dataset (`Mapping`): on what: `name`, `split`, `num_images`.
        summary_name (`str`, *optional*, defaults to `"metrics"`): the name of the JSON file, without its suffix. What
            follows "metrics_" in another name ends the names of the other files too.

    Returns:
        `dict`: what the JSON file holds; fractions in [0, 1], and `None` where a score is not defined.

    Raises:
        `ValueError`: if scores, confusion matrix and names are not about the same number of classes, or if `protocol`
            or `dataset` hold what JSON cannot. Nothing is written then.
    """
    confusion = _as_matrix(confusion, class_names)
    summary = {
        "protocol": dict(protocol),
        "dataset": dict(dataset),
        **{name: _defined(getattr(scores, name)) for name in SCORES},
        "num_classes": len(class_names),
        "num_classes_present": scores.num_classes_present,
        "per_class": [
            {
                "id": label,
                "name": name,
                "iou": _defined(scores.iou[label]),
                "accuracy": _defined(scores.accuracy[label]),
                "pixels": int(scores.pixels[label]),
            }
            for label, name in enumerate(class_names)
        ],
    }
    order = _sort_by_iou(scores, class_names)
    try:
        text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"`protocol` and `dataset` have to hold plain, finite values of JSON: {error}.") from error

    output_dir = Path(output_dir)
    suffix = "" if summary_name == "metrics" else "_" + summary_name.removeprefix("metrics_")
    rows, table, picture = f"per_class{suffix}.csv", f"per_class{suffix}.md", f"confusion_matrix{suffix}.png"
    whole = f"{summary_name}.json"
    with naming_what_failed(output_dir / whole), staging_folder(output_dir) as staging:
        _write_csv(staging / rows, [summary["per_class"][label] for label in order], protocol)
        markdown = _format_markdown(scores, class_names, order, protocol, dataset)
        (staging / table).write_text(markdown, encoding="utf-8")
        draw_confusion_matrix(confusion, class_names).save(staging / picture)
        (staging / whole).write_text(text, encoding="utf-8")
        move_together(staging, output_dir, [rows, table, picture, whole])
    return summary


def most_confused_pairs(confusion: torch.Tensor | np.ndarray, limit: int = 20) -> list[tuple[int, int, int]]:
    """
    Find the mistakes that cost the most pixels.

    Args:
        confusion (`torch.Tensor` or `np.ndarray` of shape `(num_labels, num_labels)`): row label, column prediction.
        limit (`int`, *optional*, defaults to 20): at most so many.

    Returns:
        `list` of `(label, prediction, pixels)`: most pixels first; only pairs that occur.
    """
    mistakes = torch.as_tensor(confusion).numpy(force=True).copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    pairs = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    return [(int(row), int(column), int(mistakes[row, column])) for row, column in pairs if mistakes[row, column]]


def draw_confusion_matrix(confusion: torch.Tensor | np.ndarray, class_names: Sequence[str]) -> Image.Image:
    """
    Draw the confusion matrix, each row divided by its sum: the share of a class's pixels that was given to each class.

    The diagonal is recall. Colours go with the square root of a share, so that a confusion of 1 % is visible. The row
    of a class that has no labels is grey. Beside the matrix the pairs are named that cost the most pixels.

    Args:
        confusion (`torch.Tensor` or `np.ndarray` of shape `(num_labels, num_labels)`): row label, column prediction.
        class_names (`Sequence[str]`): a name for each id; the middle of long ones is left out.

    Returns:
        `PIL.Image.Image`: an RGB picture. With more than 200 classes its cells are too small for names on the axes.
    """
    confusion = _as_matrix(confusion, class_names)
    pixels = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(pixels, 1)
    colors = _color(shares)
    colors[pixels[:, 0] == 0] = EMPTY_COLOR
    cell = min(MAX_CELL, max(MIN_CELL, MATRIX_SIDE // len(class_names)))

    def write_share(row: int, column: int) -> str:
        return f"{100 * shares[row, column]:.1f}" if confusion[row, column] else ""

    matrix = draw_cells(colors, class_names, cell, write_share, line_color=EMPTY_COLOR)

    font, margin, title_height = ImageFont.load_default(size=18), 24, 40
    panel = _draw_panel(confusion, class_names)
    corner = margin + title_height
    left = corner + matrix.width - cell * len(class_names)
    width = corner + matrix.width + 2 * margin + panel.width
    height = max(corner + matrix.height, margin + panel.height)
    canvas = Image.new("RGB", (width + margin, height + margin), BACKGROUND)
    canvas.paste(matrix, (corner, corner))
    canvas.paste(panel, (corner + matrix.width + 2 * margin, margin))
    ImageDraw.Draw(canvas).text((left, margin), "predicted as", MUTED_COLOR, font=font, anchor="lt")
    title = Image.new("RGB", (math.ceil(font.getlength("labelled as")), title_height), BACKGROUND)
    ImageDraw.Draw(title).text((0, 0), "labelled as", MUTED_COLOR, font=font, anchor="lt")
    title = title.rotate(90, expand=True)
    canvas.paste(title, (margin, max(left, corner + matrix.height - title.height)))
    return canvas


def _draw_panel(confusion: np.ndarray, class_names: Sequence[str]) -> Image.Image:
    """The scale of the colours, and the most confused pairs by name."""
    title_font, font, row_height = ImageFont.load_default(size=18), ImageFont.load_default(size=15), 24
    rows = []
    for label, prediction, pixels in most_confused_pairs(confusion):
        names = [shorten(class_names[index], font, 200) for index in (label, prediction)]
        share = 100 * pixels / confusion[label].sum()
        rows.append((names[0], names[1], f"{share:.1f} % of its pixels", f"{pixels:,}"))
    columns = [max((math.ceil(font.getlength(row[index])) for row in rows), default=0) for index in range(4)]
    gap, scale_width = 28, 360
    starts = [sum(columns[:index]) + index * gap for index in range(4)]
    width = max(scale_width + 60, starts[3] + columns[3])
    panel = Image.new("RGB", (width, 150 + row_height * max(1, len(rows))), BACKGROUND)
    draw = ImageDraw.Draw(panel)

    draw.text((0, 0), "share of the labelled pixels of a class, in %", MUTED_COLOR, font=title_font, anchor="lt")
    # The scale runs evenly in colour, which is the square root of the share.
    scale = _color(np.linspace(0, 1, scale_width)[None] ** 2).repeat(18, axis=0)
    panel.paste(Image.fromarray(scale), (0, 30))
    for share in (0, 1, 5, 10, 25, 50, 100):
        position = round(math.sqrt(share / 100) * (scale_width - 1))
        draw.line([(position, 48), (position, 53)], MUTED_COLOR)
        draw.text((position, 56), str(share), MUTED_COLOR, font=font, anchor="mt" if share else "lt")

    title = f"the {len(rows)} most frequent confusions, in pixels" if rows else "no pixel is confused"
    draw.text((0, 108), title, MUTED_COLOR, font=title_font, anchor="lt")
    for index, row in enumerate(rows):
        middle = 150 + index * row_height
        draw.text((starts[0], middle), row[0], TEXT_COLOR, font=font, anchor="lm")
        # The built-in font has no arrow.
        arrow = starts[1] - gap // 2
        draw.line([(arrow - 8, middle), (arrow + 7, middle)], MUTED_COLOR)
        draw.polygon([(arrow + 8, middle), (arrow + 3, middle - 3), (arrow + 3, middle + 3)], MUTED_COLOR)
        draw.text((starts[1], middle), row[1], TEXT_COLOR, font=font, anchor="lm")
        draw.text((starts[2], middle), row[2], MUTED_COLOR, font=font, anchor="lm")
        draw.text((starts[3] + columns[3], middle), row[3], MUTED_COLOR, font=font, anchor="rm")
    return panel


def _color(shares: np.ndarray) -> np.ndarray:
    """RGB of type uint8 for shares in [0, 1] of any shape, in a last axis of 3."""
    strength = np.sqrt(shares)[..., None]
    return ((1 - strength) * LOW_COLOR + strength * HIGH_COLOR).round().astype(np.uint8)


def _format_markdown(
    scores: SegmentationScores, class_names: Sequence[str], order: list[int], protocol: Mapping, dataset: Mapping
) -> str:
    lines = [
        f"{_escape(dataset['name'])}, {_escape(dataset['split'])}, {dataset['num_images']:,} images. "
        f"Protocol: {_escape(protocol['description'])}.",
        "",
        "| Class | IoU | Acc | Pixels |",
        "|---|---:|---:|---:|",
    ]
    for label in order:
        lines.append(
            f"| {_escape(class_names[label])} | {_percent(scores.iou[label])} | {_percent(scores.accuracy[label])} | "
            f"{int(scores.pixels[label]):,} |"
        )
    means = ", ".join(f"{name} {_percent(value)}" for name, value in _summary(scores))
    lines += ["", f"{means} (in per cent); {scores.num_classes_present} of {len(class_names)} classes present."]
    return "\n".join(lines) + "\n"


def _write_csv(path: Path, rows: list[dict[str, Any]], protocol: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "protocol"])
        writer.writeheader()
        # csv writes None as an empty field.
        for row in rows:
            # A spreadsheet would compute a name that begins like a formula. Behind an apostrophe it stays a text.
            apostrophe = "'" if row["name"].startswith(("=", "+", "-", "@", "\t", "\r")) else ""
            writer.writerow({**row, "name": f"{apostrophe}{row['name']}", "protocol": protocol["name"]})


def _as_matrix(confusion: torch.Tensor | np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    confusion = torch.as_tensor(confusion).numpy(force=True)
    if confusion.shape != (len(class_names), len(class_names)):
        raise ValueError(
            f"Got a confusion matrix of shape {confusion.shape} and {len(class_names)} class names; it needs one row "
            "and one column for each name."
        )
    return confusion


def _sort_by_iou(scores: SegmentationScores, class_names: Sequence[str]) -> list[int]:
    """Ids of the classes, the best IoU first and those without one last; ids decide between equals."""
    if len(scores.iou) != len(class_names):
        raise ValueError(f"Got scores of {len(scores.iou)} classes and {len(class_names)} class names.")
    return np.argsort(-scores.iou, kind="stable").tolist()  # NaN is sorted to the end


def _summary(scores: SegmentationScores) -> list[tuple[str, float]]:
    return [(title, getattr(scores, name)) for name, title in SCORES.items()]


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _escape(text: str) -> str:
    """Text as it is in Markdown, in a cell of a table too."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(text.split()))
