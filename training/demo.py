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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import CLIPTokenizer, pipeline, set_seed

from modeling_denseclip import (
    DenseCLIPConfig,
    DenseCLIPForSemanticSegmentation,
    DenseCLIPImageProcessor,
    tokenize_class_names,
)
from modeling_denseclip.tools.command import run_command
from modeling_denseclip.tools.pictures.visualization import save_overlay

from .data.class_names import read_class_names
from .data.load import load_data
from .data.transforms import AugmentationEpoch, EvaluationTransform, TrainingTransform, with_transform
from .demonstration.ablation import DEMANDED, break_after_training, break_in_training
from .demonstration.scenes import HEIGHT, PALETTE, WIDTH, write_scenes
from .demonstration.tokenizer import build_tokenizer
from .learning.trainer import DenseCLIPTrainer
from .metrics import format_scores
from .options.arguments import DenseCLIPTrainingArguments


NUM_TRAINING, NUM_VALIDATION = 320, 32
MINIMUM_MEAN_IOU = 0.75
MAXIMUM_BROKEN_MEAN_IOU = 0.65  # with any one of the demanded parts broken after training


def build_model(class_names: Sequence[str], tokenizer: CLIPTokenizer, **overrides) -> DenseCLIPForSemanticSegmentation:
    """A DenseCLIP of 0.6 million parameters. `overrides` are fields of its configuration."""
    special_tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    fields = {
        "text_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 16,
            "vocab_size": len(tokenizer),
            **special_tokens,
        },
        "vision_config": {
            "model_type": "denseclip_resnet",
            "embedding_size": 8,
            "depths": (1, 1, 1, 1),
            "image_size": 128,
        },
        "projection_dim": 64,
        "context_decoder_hidden_size": 64,
        "context_decoder_num_hidden_layers": 1,
        "context_decoder_num_attention_heads": 2,
        "context_decoder_dropout": 0.0,
        "neck_hidden_size": 32,
        "decode_head_hidden_size": 32,
        "decode_head_dropout": 0.0,
        "id2label": dict(enumerate(class_names)),
        "class_token_ids": tokenize_class_names(class_names, tokenizer),
        "palette": tuple(PALETTE[name] for name in class_names),
    }
    model = DenseCLIPForSemanticSegmentation(DenseCLIPConfig(**{**fields, **overrides}))
    model.tokenizer = tokenizer  # saved with the model
    return model


def build_trainer(
    model: DenseCLIPForSemanticSegmentation,
    dataset_dir: str | Path,
    output_dir: str | Path,
    num_train_epochs: float,
    seed: int,
) -> DenseCLIPTrainer:
    """A Trainer on the scenes. They are not scaled or cropped: what is far away has to stay in the picture."""
    data = load_data(data_dir=dataset_dir)
    image_processor = DenseCLIPImageProcessor(size={"shortest_edge": HEIGHT, "longest_edge": WIDTH})
    train_transform = TrainingTransform(image_processor, (HEIGHT, WIDTH), scale_range=(1.0, 1.0), seed=seed)
    training_arguments = DenseCLIPTrainingArguments(
        output_dir=str(output_dir),
        num_train_epochs=num_train_epochs,
        per_device_train_batch_size=8,
        learning_rate=2e-3,
        weight_decay=1e-2,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        dataloader_pin_memory=False,  # has nothing to gain here, and warns where there is no GPU
        seed=seed,
    )
    return DenseCLIPTrainer(
        model=model,
        args=training_arguments,
        train_dataset=with_transform(data.train, train_transform),
        eval_dataset=with_transform(data.validation, EvaluationTransform(image_processor)),
        processing_class=image_processor,
        callbacks=[AugmentationEpoch(train_transform)],
    )


def segment_in_new_process(model_dir: str | Path, image_path: str | Path, overlay_path: str | Path) -> None:
    """Load what was saved as a user would, in a process that has not seen this one, and draw an overlay."""
    command = [sys.executable, "-m", "training.demo", "--model_dir", str(model_dir)]
    subprocess.run([*command, "--image", str(image_path), "--overlay", str(overlay_path)], check=True)


def segment(model_dir: str, image_path: str, overlay_path: str) -> None:
    """Segment one image with the pipeline and save the picture."""
    segmenter = pipeline("image-segmentation", model=model_dir, trust_remote_code=True)
    image = Image.open(image_path).convert("RGB")
    config = segmenter.model.config
    segmentation = np.full(image.size[::-1], 255)
    for segment in segmenter(image):
        segmentation[np.asarray(segment["mask"]) > 0] = config.label2id[segment["label"]]
    save_overlay(image, segmentation, config.id2label, config.palette, overlay_path)


def run(output_dir: str | Path, num_train_epochs: float, seed: int) -> DenseCLIPTrainer:
    """The demonstration: paint, train, score, save, load, draw. Returns the Trainer, after evaluation."""
    output_dir = Path(output_dir)
    dataset_dir, model_dir = output_dir / "scenes", output_dir / "model"
    write_scenes(dataset_dir, NUM_TRAINING, NUM_VALIDATION, seed)
    class_names = read_class_names(dataset_dir)

    set_seed(seed)
    model = build_model(class_names, build_tokenizer(class_names))
    trainer = build_trainer(model, dataset_dir, model_dir, num_train_epochs, seed)
    trainer.train()
    trainer.evaluate()
    print(format_scores(trainer.scores, class_names))

    trainer.save_model()
    overlay_path = output_dir / "overlay.png"
    segment_in_new_process(model_dir, dataset_dir / "images" / "validation" / "scene_0001.png", overlay_path)
    print(f"The model is in {model_dir}, a picture of its work in {overlay_path}.")
    return trainer


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
        return

    trainer = run(args.output_dir, args.num_train_epochs, args.seed)
    mean_iou = trainer.scores.mean_iou
    broken = break_after_training(trainer)
    print_table("broken after training", {"nothing": mean_iou, **broken})
    if args.ablation:
        dataset_dir, model_dir = Path(args.output_dir) / "scenes", Path(args.output_dir) / "ablation"
        class_names = read_class_names(dataset_dir)

        def build_broken_trainer(**overrides) -> DenseCLIPTrainer:
            set_seed(args.seed)
            model = build_model(class_names, build_tokenizer(class_names), **overrides)
            return build_trainer(model, dataset_dir, model_dir, args.num_train_epochs, args.seed)

        print_table("broken in training", {"nothing": mean_iou, **break_in_training(build_broken_trainer)})
    check(mean_iou, broken)


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
