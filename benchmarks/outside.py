# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
What `pipeline("image-segmentation")` and `training.evaluate` take beside their model, on photographs of 12 megapixels.

    OMP_NUM_THREADS=1 python -m benchmarks.outside

One process reads, prepares, computes and scores, so that all of its processor time is seen: that within calls of the
model is the model's, the rest is what lies around it. The weights are random; the model is run and its logits are
replaced by those of `benchmarks/predict.py`, whose map has a trained one's borders.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from transformers import pipeline
from transformers.utils import logging

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.class_maps_denseclip import class_maps, id_dtype, whole_positions
from training.data.load import load_data
from training.data.transforms import EvaluationTransform, with_transform
from training.learning.trainer import DenseCLIPTrainer
from training.options.arguments import DenseCLIPTrainingArguments

from .predict import draw_logits, draw_photograph
from .speed import make_config


HEIGHT, WIDTH = 3000, 4000


class TimedModel(DenseCLIPForSemanticSegmentation):
    """Returns logits of its own, and notes the processor time of its calls."""

    seconds = 0.0

    def forward(self, pixel_values: torch.Tensor, **kwargs):
        start = time.process_time()
        outputs = super().forward(pixel_values, **kwargs)
        self.seconds += time.process_time() - start
        outputs.logits = self.drawn
        return outputs


def measure(model: TimedModel, run: Callable[[], object]) -> tuple[float, float]:
    """Processor time within the model, and around it."""
    model.seconds, start = 0.0, time.process_time()
    run()
    return model.seconds, time.process_time() - start - model.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photographs", type=int, default=2)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = TimedModel(make_config("denseclip_fpn_rn50")).eval().fuse()
    logging.set_verbosity_error()  # the pipeline does not know the name of the class
    image_processor = DenseCLIPImageProcessor()
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    prepared = image_processor.get_resized_size(HEIGHT, WIDTH)
    model.drawn = draw_logits(len(names), tuple(side // 4 for side in prepared))
    model.config.inference_mode = "whole"
    (found,) = class_maps(
        [(model.drawn[0], *whole_positions((HEIGHT, WIDTH), model.drawn))], dtype=id_dtype(len(names))
    )
    with tempfile.TemporaryDirectory() as folder:
        for index in range(args.photographs):
            for kind, picture in (
                ("images", draw_photograph(index, HEIGHT, WIDTH)),
                ("annotations", PIL.Image.fromarray(np.roll(found.class_ids.numpy(), 40 * index))),
            ):
                path = Path(folder, kind, "validation", f"{index}.{'jpg' if kind == 'images' else 'png'}")
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path, **({"quality": 90} if kind == "images" else {}))
        Path(folder, "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        photographs = sorted(str(path) for path in Path(folder, "images").glob("*/*"))
        data = load_data(data_dir=folder, splits=("validation",))
        trainer = DenseCLIPTrainer(
            model=model,
            args=DenseCLIPTrainingArguments(
                folder, report_to="none", use_cpu=True, per_device_eval_batch_size=1, dataloader_num_workers=0
            ),
            eval_dataset=with_transform(data.validation, EvaluationTransform(image_processor)),
            processing_class=image_processor,
        )
        segment = pipeline("image-segmentation", model=model, image_processor=image_processor, device="cpu")

        def post_process() -> None:
            for photograph in photographs:
                with PIL.Image.open(photograph) as picture, torch.no_grad():
                    outputs = model(**image_processor(picture, return_tensors="pt"))
                image_processor.post_process_panoptic_segmentation(outputs, target_sizes=[(HEIGHT, WIDTH)])

        sides = {
            "`pipeline`": lambda: [segment(photograph) for photograph in photographs],
            "the same without its masks: processor, model, `post_process_panoptic_segmentation`": post_process,
            "`Trainer.evaluate`": trainer.evaluate,
        }
        print(f"{len(found.class_ids.unique())} classes in a map")
        seconds = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, run in sides.items():
                seconds[name].append(measure(model, run))
        print("| What | Model, a photograph | Around it | Share |\n|---|---:|---:|---:|")
        for name, pairs in seconds.items():
            inside, outside = (statistics.median(column) / args.photographs for column in zip(*pairs, strict=True))
            share = statistics.median(around / (around + within) for within, around in pairs)
            print(f"| {name} | {inside:.2f} s | {outside:.2f} s | {100 * share:.0f} % |")


if __name__ == "__main__":
    main()
