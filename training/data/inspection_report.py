# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What the inspection of a data set gives: a report as text and as JSON, a contact sheet, weights of classes."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import PIL.Image

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools.command import escape_controls
from modeling_denseclip.tools.files.saving import save_whole
from modeling_denseclip.tools.pictures.drawing import contact_sheet, draw_class_names, draw_overlay, stack

from .files import IGNORE_INDEX, printable
from .findings import MAXIMUM_COLOURS, RULES, format_size
from .inspection import DatasetReport, Statistics
from .transforms import read_image, read_labels


NUM_SIZES_SHOWN = 5
NUM_COLOURS_SHOWN = 20
NUM_ITEMS_SHOWN = 5  # of a finding in the terminal; report.json has all of them
TILE_WIDTH = 320


def format_report(report: DatasetReport) -> str:
    """Write the report as text: counts, classes, findings from notes to errors, and whether training accepts it."""
    meaning = "0 = unlabelled, n = class n - 1" if report.reduce_labels else "n = class n"
    sections = [
        f"{report.dataset_dir}: {len(report.class_names)} classes; masks: {meaning}, {IGNORE_INDEX} = unlabelled",
        _format_files(report),
        _format_classes(report),
    ]
    if report.total.colours:
        sections.append(_format_colours(report.total.colours))
    sections += format_findings(report)
    reasons = report.findings_of("error")
    named = f", with {report.split_arguments}" if report.split_arguments else ""
    sections.append(
        f"Training accepts this data set{named}."
        if report.accepted
        else "Training refuses this data set: " + "; ".join(RULES["error"][rule][0].lower() for rule in reasons) + "."
    )
    return "\n\n".join(sections)


def format_findings(report: DatasetReport) -> list[str]:
    """A text for each finding, from notes to errors."""
    return [_format_finding(report, level, rule) for level in RULES for rule in report.findings_of(level)]


def _format_files(report: DatasetReport) -> str:
    columns = report.columns
    total = list(columns.values())[-1]
    rows = [["", *columns]]

    def add(title: str, cells: Iterable[str]) -> None:
        rows.append([title, *cells])

    for kind in ("images", "masks", "pairs"):
        add(kind, (f"{counts.files[kind]:,}" for counts in columns.values()))
    for title, name in (("images,", "image_formats"), ("images, mode", "image_modes"), ("masks, mode", "mask_modes")):
        for key, _ in getattr(total, name).most_common():
            add(f"{title} {key}", (f"{getattr(counts, name)[key]:,}" for counts in columns.values()))
    for title, axis in (("width", 0), ("height", 1)):
        lengths = [sorted(size[axis] for size in counts.image_sizes.elements()) for counts in columns.values()]
        for which, function in (("min", min), ("median", statistics.median_low), ("max", max)):
            add(f"{title}, {which}", (f"{function(values):,}" if values else "-" for values in lengths))
    sizes = total.image_sizes.most_common(NUM_SIZES_SHOWN)
    for size, _ in sizes:
        add(f"images of {format_size(size)}", (f"{counts.image_sizes[size]:,}" for counts in columns.values()))
    if len(total.image_sizes) > len(sizes):
        others = [
            counts.image_sizes.total() - sum(counts.image_sizes[size] for size, _ in sizes)
            for counts in columns.values()
        ]
        add("images of other sizes", (f"{count:,}" for count in others))
    add("pixels of masks", (f"{counts.pixels.total():,}" for counts in columns.values()))
    add(
        "unlabelled",
        (_percent(report.unlabelled(counts.pixels), counts.pixels.total(), 2) for counts in columns.values()),
    )
    return _format_table(rows)


def _format_classes(report: DatasetReport) -> str:
    columns = report.columns
    rows = [["class", "id", "pixels", *(f"{name} {what}" for name in columns for what in ("share", "masks"))]]
    pixels = {name: report.per_class(counts.pixels) for name, counts in columns.items()}
    masks = {name: report.per_class(counts.masks) for name, counts in columns.items()}
    *_, last = columns
    for index, class_name in enumerate(report.class_names):
        row = [class_name, str(index), f"{pixels[last][index]:,}"]
        for name in columns:
            row += [_percent(pixels[name][index], pixels[name].sum(), 3), f"{masks[name][index]:,}"]
        rows.append(row)
    text = "Pixels per class: share of the labelled ones, and masks that hold it\n\n" + _format_table(rows)

    present = np.flatnonzero(pixels[last])
    if len(present) > 1:
        most, least = (present[function(pixels[last][present])] for function in (np.argmax, np.argmin))
        ratio = pixels[last][most] / pixels[last][least]
        names = f"'{report.class_names[most]}' has {ratio:,.1f} times as many pixels as '{report.class_names[least]}'."
        text += f"\n\n{names}"
    return text


def _format_colours(colours: Counter) -> str:
    rows = [
        [f"#{colour:06x}", str(to_rgb_triple(colour)), _percent(count, colours.total(), 3)]
        for colour, count in colours.most_common(NUM_COLOURS_SHOWN)
    ]
    text = "Colours in masks that are no ids: red, green and blue, and share of the pixels\n\n" + _format_table(rows)
    if len(colours) > len(rows):
        text += f"\nand {len(colours) - len(rows):,} more: report.json lists up to {MAXIMUM_COLOURS}"
    return text


def to_rgb_triple(colour: int) -> tuple[int, int, int]:
    """0xRRGGBB as red, green and blue."""
    return colour >> 16, colour >> 8 & 255, colour & 255


def _percent(part: int, whole: int, digits: int) -> str:
    return f"{100 * part / whole:.{digits}f} %" if part else "-"


def _format_table(rows: list[list[str]]) -> str:
    """Align columns: the first at the left, the others at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)


def _format_finding(report: DatasetReport, level: str, rule: str) -> str:
    (title, fix), items = report.explain(level, rule), report.findings[rule]
    lines = [f"{level.upper()}: {title} ({len(items):,})"]
    lines += [f"    {_cut(item)}" for item in items[:NUM_ITEMS_SHOWN]]
    if len(items) > NUM_ITEMS_SHOWN:
        lines.append(f"    and {len(items) - NUM_ITEMS_SHOWN:,} more")
    return "\n".join([*lines, f"  -> {fix}"])


def _cut(item: str) -> str:
    item = escape_controls(item)  # names of files
    return item if len(item) <= 200 else f"{item[:197]}..."


def report_to_json(report: DatasetReport) -> dict:
    """The report as JSON: all counts and findings, none of them cut."""

    def of_split(counts: Statistics) -> dict:
        pixels, masks = report.per_class(counts.pixels), report.per_class(counts.masks)
        sizes = sorted(counts.image_sizes.items(), key=lambda item: (-item[1], item[0]))
        return {
            **{kind: counts.files[kind] for kind in ("images", "masks", "pairs")},
            "image_formats": dict(counts.image_formats),
            "image_modes": dict(counts.image_modes),
            "mask_modes": dict(counts.mask_modes),
            "image_sizes": [{"width": size[0], "height": size[1], "images": count} for size, count in sizes],
            "pixels": counts.pixels.total(),
            "unlabelled_pixels": report.unlabelled(counts.pixels),
            "colours": [
                {"colour": f"#{colour:06x}", "pixels": count}
                for colour, count in counts.colours.most_common(MAXIMUM_COLOURS)
            ],
            "classes": [
                {"id": index, "name": name, "pixels": int(pixels[index]), "masks": int(masks[index])}
                for index, name in enumerate(report.class_names)
            ],
        }

    return {
        "dataset_dir" if isinstance(report.dataset_dir, Path) else "dataset_name": printable(str(report.dataset_dir)),
        "reduce_labels": report.reduce_labels,
        "accepted": report.accepted,
        "splits": {name: of_split(counts) for name, counts in report.splits.items()},
        "all": of_split(report.total),
        "findings": [
            {"level": level, "rule": rule, "title": title, "fix": fix, "found": report.findings[rule]}
            for level in reversed(RULES)
            for rule in report.findings_of(level)
            for title, fix in [report.explain(level, rule)]
        ],
    }


def spread(length: int, count: int) -> list[int]:
    """So many places of a list, or all, spread evenly from its first to its last."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()


def draw_samples(report: DatasetReport, num_samples: int) -> PIL.Image.Image:
    """
    Draw a contact sheet of samples under their masks, spread evenly over the pairs whose mask fits the image, with a
    legend. The largest class is left faint: so it can be seen where two classes have each other's ids.
    """
    indices = spread(len(report.drawable), num_samples)
    id2label = dict(enumerate(report.class_names))
    image_processor = DenseCLIPImageProcessor(do_reduce_labels=report.reduce_labels)
    samples, captions = [], []
    pixels = np.zeros(len(id2label), dtype=np.int64)
    for pair in (report.drawable[index] for index in indices):
        photograph, mask = pair.encoded()
        image = PIL.Image.fromarray(read_image(photograph))
        ids = read_labels(mask, image_processor).astype(np.int32)
        # Drawn at the size that is shown; every n-th pixel of a mask is its nearest-neighbour reduction.
        step = max(1, image.width // TILE_WIDTH)
        ids = ids[::step, ::step]
        image = image.resize(ids.shape[::-1], PIL.Image.Resampling.BOX)
        samples.append((image, ids))
        captions.append(f"{pair.split}/{pair.stem}")
        pixels += np.bincount(ids[(ids >= 0) & (ids < len(pixels))], minlength=len(pixels))
    # With two classes or more, of which one is large, the photograph beneath it tells more than its colour.
    faint_id = int(pixels.argmax())
    pictures = [
        draw_overlay(image, ids, id2label, report.palette, legend=False, faint_id=faint_id) for image, ids in samples
    ]
    sheet = contact_sheet(pictures, captions, columns=4, tile_width=TILE_WIDTH)
    return stack(sheet, draw_class_names(pixels, id2label, report.palette, sheet.width, faint_id))


def write_inspection(report: DatasetReport, output_dir: Path, num_samples: int, weights_file: str | None) -> list[str]:
    """
    Write `report.json`, a `contact_sheet.png` if there is something to draw, and, of a data set that training accepts,
    the weights of classes. Returns the names of what was written.
    """
    text = json.dumps(report_to_json(report), indent=2, ensure_ascii=False) + "\n"
    save_whole(output_dir / "report.json", lambda path: path.write_text(text, encoding="utf-8"))
    written = [str(output_dir / "report.json")]
    if num_samples and report.drawable:
        save_whole(output_dir / "contact_sheet.png", draw_samples(report, num_samples).save)
        written.append(str(output_dir / "contact_sheet.png"))
    if weights_file is not None and report.accepted and report.training_split is not None:
        counts = report.splits[report.training_split]
        weights = median_frequency_weights(report.per_class(counts.pixels), report.per_class(counts.pixels_around))
        lines = "".join(f"{weight:.6g}\n" for weight in weights)
        save_whole(Path(weights_file), lambda path: path.write_text(lines, encoding="utf-8"))
        written.append(weights_file)
    return written


def median_frequency_weights(pixels: np.ndarray, pixels_around: np.ndarray) -> np.ndarray:
    """
    Weigh classes by the median frequency over their own.

    The frequency of a class is its share of the pixels of those images that it occurs in. A class that never occurs
    has none: its weight is 1, which changes nothing where it does not occur and ignores nothing where it does.

    Args:
        pixels (array of K integers): pixels of each class.
        pixels_around (array of K integers): pixels of all images that hold the class, unlabelled ones too.

    Returns:
        an array of K positive weights: 1 for the median class, more for rare ones.

    Source: Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a Common Multi-Scale
    Convolutional Architecture" (ICCV 2015), on semantic labels.
    """
    present = pixels > 0
    frequency = pixels[present] / pixels_around[present]
    weights = np.ones(len(pixels))
    if present.any():
        weights[present] = np.median(frequency) / frequency
    return weights
