# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Train a small DenseCLIP from nothing on painted scenes, and look at the result: no network, no GPU, a few minutes.

    python -m training.demo --output_dir demo_output

It paints the scenes, fine-tunes with the Trainer, prints the scores of every class, saves, loads what it saved with
`pipeline("image-segmentation")` in a new process, and writes a picture of the result. Then it breaks the trained
model in four ways (see [`training.demonstration.ablation`]). It fails if the mIoU is low, or if breaking a part costs
too little: then the model does not use that part. `--ablation` also trains with a part broken from the start, six
times.
"""

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import pipeline, set_seed

from modeling_denseclip.tools.command import run_command
from modeling_denseclip.tools.pictures.drawing import save_overlay

from .data.class_names import read_class_names
from .demonstration.ablation import DEMANDED, break_after_training, break_in_training
from .demonstration.model import build_model, build_trainer
from .demonstration.scenes import write_scenes
from .demonstration.tokenizer import build_tokenizer
from .learning.trainer import DenseCLIPTrainer
from .metrics import format_scores


NUM_TRAINING, NUM_VALIDATION = 320, 32
MINIMUM_MEAN_IOU = 0.75
MAXIMUM_BROKEN_MEAN_IOU = 0.65  # with any one of the demanded parts broken after training


def segment(model_dir: str, image_path: str, overlay_path: str) -> None:
    """Segment one image with the pipeline and save the picture."""
    segmenter = pipeline("image-segmentation", model=model_dir, trust_remote_code=True)
    image = Image.open(image_path).convert("RGB")
    config = segmenter.model.config
    segmentation = np.full(image.size[::-1], 255)
    for segment in segmenter(image):
        segmentation[np.asarray(segment["mask"]) > 0] = config.label2id[segment["label"]]
    save_overlay(image, segmentation, config.id2label, config.palette, overlay_path)


def run(output_dir: Path, num_train_epochs: float, seed: int, ablation: bool) -> tuple[float, dict[str, float]]:
    """Paint, train, score, save, load, draw and break. Returns the mIoU, and what was broken -> mIoU."""
    dataset_dir, model_dir, overlay_path = output_dir / "scenes", output_dir / "model", output_dir / "overlay.png"
    write_scenes(dataset_dir, NUM_TRAINING, NUM_VALIDATION, seed)
    class_names = read_class_names(dataset_dir)

    def build_fresh_trainer(trainer_dir: Path, **overrides) -> DenseCLIPTrainer:
        set_seed(seed)
        model = build_model(class_names, build_tokenizer(class_names), **overrides)
        return build_trainer(model, dataset_dir, trainer_dir, num_train_epochs, seed)

    trainer = build_fresh_trainer(model_dir)
    trainer.train()
    trainer.evaluate()
    mean_iou = trainer.scores.mean_iou
    print(format_scores(trainer.scores, class_names))

    trainer.save_model()
    # As a user would load it, in a process that has not seen this one.
    command = [sys.executable, "-m", "training.demo", "--model_dir", str(model_dir), "--overlay", str(overlay_path)]
    subprocess.run([*command, "--image", str(dataset_dir / "images/validation/scene_0001.png")], check=True)
    print(f"The model is in {model_dir}, a picture of its work in {overlay_path}.")

    broken = break_after_training(trainer)
    print_table("broken after training", {"nothing": mean_iou, **broken})
    if ablation:
        in_training = break_in_training(partial(build_fresh_trainer, output_dir / "ablation"))
        print_table("broken in training", {"nothing": mean_iou, **in_training})
    return mean_iou, broken


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="demo_output", help="where the scenes, the model and the picture go")
    parser.add_argument("--num_train_epochs", type=float, default=15, help="epochs of 40 steps")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes, the weights and the training")
    parser.add_argument("--ablation", action="store_true", help="break one part after another and score each")
    parser.add_argument("--model_dir", help="only segment --image with this model and write --overlay")
    parser.add_argument("--image")
    parser.add_argument("--overlay")
    args = parser.parse_args(arguments)
    if args.model_dir is not None:
        segment(args.model_dir, args.image, args.overlay)
    else:
        check(*run(Path(args.output_dir), args.num_train_epochs, args.seed, args.ablation))


def check(mean_iou: float, broken: dict[str, float]) -> None:
    """Exit with a message unless the model works, and needs each of its parts to."""
    if not mean_iou >= MINIMUM_MEAN_IOU:
        sys.exit(
            f"mIoU {100 * mean_iou:.2f} is below {100 * MINIMUM_MEAN_IOU:.0f}: the model has not learned the scenes."
        )
    for name in DEMANDED:
        if not broken[name] <= MAXIMUM_BROKEN_MEAN_IOU:
            sys.exit(
                f"With '{name}' the mIoU is still {100 * broken[name]:.2f}, above"
                f" {100 * MAXIMUM_BROKEN_MEAN_IOU:.0f}: the model does not use what was broken."
            )


def print_table(title: str, mean_iou: dict[str, float]) -> None:
    """Print mIoU in per cent, one row per name."""
    width = max(map(len, [title, *mean_iou]))
    print(f"\n{title:<{width}}    mIoU")
    for name, value in mean_iou.items():
        print(f"{name:<{width}}  {100 * value:6.2f}")


if __name__ == "__main__":
    sys.exit(run_command(main))
