# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""By which protocol an evaluation is made, and what is written of it: for `training.train` and `training.evaluate`."""

from collections.abc import Sequence
from pathlib import Path

import datasets
import PIL.Image
import torch
from transformers import PreTrainedConfig

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools.files.saving import save_whole
from modeling_denseclip.tools.pictures.drawing import contact_sheet, draw_class_names, stack

from ..data.load import SegmentationData
from ..data.transforms import with_encoded
from ..learning.trainer import DenseCLIPTrainer
from ..metrics.report import format_scores, write_report
from .panels import draw_comparison


NUM_NAMES_SHOWN = 5


def describe_protocol(
    config: PreTrainedConfig,
    image_processor: DenseCLIPImageProcessor,
    scales: Sequence[float] = (1.0,),
    dtype: str = "float32",
) -> dict:
    """
    The protocol by which scores are computed; all reports name it.

    Args:
        config ([`DenseCLIPConfig`]): how windows slide.
        image_processor ([`DenseCLIPImageProcessor`]): how large images are.
        scales (`Sequence[float]`, *optional*): several stand for multi-scale and flip.
        dtype (`str`, *optional*, defaults to `"float32"`): what the model computes in.

    Returns:
        `dict`: for JSON; `name` is "SS" or "MS", `description` a line to print.
    """
    size = image_processor.size
    short_side, long_side = size.get("shortest_edge"), size.get("longest_edge")
    is_multi_scale = len(scales) > 1
    slides = config.inference_mode == "slide"
    parts = [f"MS ({', '.join(f'{scale:g}' for scale in scales)}, each with flip)" if is_multi_scale else "SS"]
    if slides:
        (height, width), (step_y, step_x) = config.window_size, config.window_stride
        stride = f"{step_y}" if step_y == step_x else f"{step_y} x {step_x}"
        parts.append(f"sliding window {height} x {width} with stride {stride}")
    else:
        parts.append("whole images")
    if short_side is None:
        parts.append(f"resized to {size.get('height')} x {size.get('width')}")
    else:
        parts.append(f"short side {short_side}" + ("" if long_side is None else f", long side at most {long_side}"))
    if dtype != "float32":
        parts.append(f"in {dtype}")
    return {
        "name": "MS" if is_multi_scale else "SS",
        "description": ", ".join(parts),
        "inference_mode": config.inference_mode,
        "window_size": list(config.window_size) if slides else None,
        "window_stride": list(config.window_stride) if slides else None,
        "short_side": short_side,
        "long_side": long_side,
        "scales": list(scales),
        "flip": is_multi_scale,
        "dtype": dtype,
    }


def report_evaluation(
    trainer: DenseCLIPTrainer, data: SegmentationData, output_dir: str | Path, scales: Sequence[float] = (1.0,)
) -> dict:
    """
    Write what the trainer's last evaluation found: `metrics.json` (for multi-scale `metrics_multi_scale.json`),
    tables, the confusion matrix and the worst images.

    Returns:
        `dict`: the content of the JSON file.
    """
    output_dir = Path(output_dir)
    suffix = "_multi_scale" if len(scales) > 1 else ""
    dtype = "bfloat16 by autocast" if trainer.args.bf16 else str(trainer.model.dtype).removeprefix("torch.")
    dataset = {"name": data.name, "split": data.validation_split, "num_images": len(data.validation)}
    if data.left_out:
        dataset["left_out"] = list(data.left_out)
    report = write_report(
        output_dir,
        trainer.scores,
        trainer.confusion,
        data.class_names,
        protocol=describe_protocol(trainer.model.config, trainer.processing_class, scales, dtype),
        dataset=dataset,
        summary_name=f"metrics{suffix}",
    )
    if trainer.worst_images:
        with trainer.evaluated_weights():
            picture = draw_worst_images(trainer, data.validation)
        save_whole(output_dir / f"worst_images{suffix}.jpg", picture.save)
    return report


def format_report(trainer: DenseCLIPTrainer, data: SegmentationData, report: dict, output_dir: str | Path) -> str:
    """
    What a command prints of a report: the table of scores, what to do about classes that were never found, by which
    protocol, and where more is written.
    """
    return (
        f"{format_scores(trainer.scores, data.class_names)}\n"
        f"{advise_on_lost_classes(trainer, data.class_names)}"
        f"{data.name}, {data.validation_split}: {report['protocol']['description']}\nWritten to: {output_dir}"
    )


def advise_on_lost_classes(trainer: DenseCLIPTrainer, class_names: Sequence[str]) -> str:
    """A line on the classes of which no labelled pixel was predicted, and what to do; empty if there is none."""
    confusion = trainer.confusion
    lost = torch.nonzero((confusion.sum(dim=1) > 0) & (confusion.diagonal() == 0)).flatten().tolist()
    if not lost:
        return ""
    names = ", ".join(f"'{class_names[label]}'" for label in lost[:NUM_NAMES_SHOWN])
    more = f" and {len(lost) - NUM_NAMES_SHOWN} more" if len(lost) > NUM_NAMES_SHOWN else ""
    advice = "train longer, or with --class_weights" if trainer.args.dice_weight else "train with --dice_weight 1.0"
    return (
        f"{names}{more} {'is' if len(lost) == 1 else 'are'} never predicted where labelled: {advice}, see"
        ' "Rare classes" in docs/special_data.md.\n'
    )


def draw_worst_images(trainer: DenseCLIPTrainer, rows: datasets.Dataset) -> PIL.Image.Image:
    """
    Photograph, truth and prediction of each of the worst images, the worst first, as one picture with a legend. The
    class of the most labelled pixels is left faint.
    """
    rows, config = with_encoded(rows, "image", "annotation"), trainer.model.config
    labelled, predicted = trainer.confusion.sum(dim=1), trainer.confusion.sum(dim=0)
    faint_id = int(labelled.argmax())
    pictures, captions = [], []
    for mean_iou, index in trainer.worst_images:
        row = rows[index]
        pictures += draw_comparison(trainer, row, trainer.eval_dataset[index], faint_id)
        captions += [row["name"], "truth", f"prediction: mIoU {100 * mean_iou:.1f}"]
    sheet = contact_sheet(pictures, captions, columns=3)
    pixels = (labelled + predicted).tolist()
    return stack(sheet, draw_class_names(pixels, config.id2label, config.palette, sheet.width, faint_id))
