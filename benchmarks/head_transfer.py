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
What head transfer by class name is worth: a model of some classes goes on with all, two ways.

    python -m benchmarks.head_transfer --data_dir DIR --tokenizer TOKENIZER --output_dir OUT \
        --drop car bicyclist fence

First a model is trained from scratch on the folder without the dropped classes (their pixels are unlabelled) and with
the others in reverse order. Then it goes on with all classes in the folder's order, once by `from_pretrained(...,
id2label=...)`, which keeps what belongs to a class by its name, and once as `ignore_mismatched_sizes` would do it:
every tensor whose shape depends on the classes is initialised anew, the whole convolution that reads the score map
among them. Both see the same batches. Needs the folder layout of `training.data.segmentation_folder`. Prints the mIoU
of all classes after some steps, and writes it to OUT/results.md.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import TrainerCallback

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation, tokenize_class_names
from training import REPOSITORY
from training.data.class_names import read_class_names
from training.data.load import load_data
from training.options.command_line import parse_train_arguments
from training.train import build_image_processor, build_trainer
from training.train import main as train


CONFIG = REPOSITORY / "configuration" / "models" / "denseclip_fpn_small.json"
EVALUATED = (0, 25, 50, 100, 200)


class EvaluateAt(TrainerCallback):
    """Evaluates after the steps in `EVALUATED` and keeps each mIoU in `scores`."""

    def __init__(self, scores: dict[int, float]):
        self.scores = scores

    def on_step_end(self, args, state, control, **kwargs):
        control.should_evaluate = state.global_step in EVALUATED

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.scores[state.global_step] = metrics["eval_mean_iou"]


def write_reduced_folder(source: Path, target: Path, dropped: set[str]) -> None:
    """The folder with fewer classes in reverse order: images are linked, masks written anew."""
    names = read_class_names(source / "classes.txt")
    kept = [name for name in reversed(names) if name not in dropped]
    new_id = np.full(256, 255, dtype=np.uint8)
    for index, name in enumerate(kept):
        new_id[names.index(name)] = index
    shutil.rmtree(target, ignore_errors=True)
    for split in ("training", "validation"):
        folder = target / "annotations" / split
        folder.mkdir(parents=True)
        for mask in sorted((source / "annotations" / split).glob("*.png")):
            Image.fromarray(new_id[np.asarray(Image.open(mask, formats=["PNG"]))]).save(folder / mask.name)
    (target / "images").symlink_to((source / "images").absolute())
    (target / "classes.txt").write_text("\n".join(kept) + "\n")


def words_of(
    args: argparse.Namespace, data_dir: Path, output: Path, max_steps: int, learning_rate: float
) -> list[str]:
    words = {
        **{"config": CONFIG, "tokenizer": args.tokenizer, "data_dir": data_dir, "output_dir": output},
        **{"max_steps": max_steps, "learning_rate": learning_rate, "per_device_train_batch_size": 8},
        **{"short_side": 240, "crop_size": 192, "warmup_steps": 20, "lr_schedule": "published_poly"},
        **{"eval_strategy": "no", "save_strategy": "no", "logging_steps": 50, "report_to": "none", "seed": 0},
    }
    return [word for name, value in words.items() for word in (f"--{name}", str(value))]


def by_name(base: Path, names: list[str]) -> DenseCLIPForSemanticSegmentation:
    return DenseCLIPForSemanticSegmentation.from_pretrained(base, id2label=dict(enumerate(names)))


def by_shape(base: Path, names: list[str]) -> DenseCLIPForSemanticSegmentation:
    """Everything of the checkpoint that still has its shape, and the rest as it was initialised."""
    former = DenseCLIPForSemanticSegmentation.from_pretrained(base)
    former.save_pretrained(base)  # fetches the tokenizer
    fields = json.loads(former.config.to_json_string(use_diff=False)) | {
        "id2label": dict(enumerate(names)),
        "label2id": None,
        "class_names": None,
        "class_token_ids": tokenize_class_names(names, former.tokenizer),
        "palette": None,
    }
    model = DenseCLIPForSemanticSegmentation(DenseCLIPConfig(**fields))
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in former.state_dict().items() if own[name].shape == tensor.shape}
    print(f"initialised anew: {', '.join(sorted(own.keys() - fitting.keys()))}")
    model.load_state_dict(fitting, strict=False)
    model.tokenizer = former.tokenizer
    return model


def go_on(model: DenseCLIPForSemanticSegmentation, args: argparse.Namespace, output: Path) -> dict[int, float]:
    """Train on all classes; the mIoU after each number of steps in `EVALUATED`."""
    words = words_of(args, args.data_dir, output, EVALUATED[-1], args.learning_rate)
    data_args, model_args, training_args, _ = parse_train_arguments(words)
    data = load_data(**data_args.source())
    image_processor = build_image_processor(data_args, model_args, data.reduce_labels)
    training_args.num_sample_images = 0
    trainer = build_trainer(model, image_processor, data, data_args, training_args)
    scores = {0: trainer.evaluate()["eval_mean_iou"]}

    trainer.add_callback(EvaluateAt(scores))
    trainer.train()
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of pictures and masks")
    parser.add_argument("--tokenizer", required=True, help="CLIP's tokenizer, a folder or a Hub id")
    parser.add_argument("--output_dir", type=Path, required=True, help="where models and the table go")
    parser.add_argument("--drop", nargs="+", required=True, help="classes that the first model does not know")
    parser.add_argument("--base_steps", type=int, default=600, help="steps of the first model")
    parser.add_argument("--learning_rate", type=float, default=3e-4, help="of the second training")
    args = parser.parse_args()

    base, reduced = args.output_dir / "base", args.output_dir / "reduced"
    write_reduced_folder(args.data_dir, reduced, set(args.drop))
    train(words_of(args, reduced, base, args.base_steps, 1e-3))
    names = read_class_names(args.data_dir / "classes.txt")
    scores = {}
    for title, start in (("by name", by_name), ("by shape", by_shape)):
        torch.manual_seed(0)
        scores[title] = go_on(start(base, names), args, args.output_dir / title.replace(" ", "_"))
    lines = [
        f"| Steps on all {len(names)} classes | " + " | ".join(map(str, EVALUATED)) + " |",
        "|---|" + "---:|" * len(EVALUATED),
        *(
            f"| {title} | " + " | ".join(f"{100 * values[step]:.1f}" for step in EVALUATED) + " |"
            for title, values in scores.items()
        ),
    ]
    (args.output_dir / "results.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
