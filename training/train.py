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
Fine-tune DenseCLIP on a folder of images and masks.

    python -m training.train --dataset_dir DATASET --config MODEL.json --tokenizer TOKENIZER --output_dir OUTPUT

The folder's layout is described in [`training.data.load_folder_dataset`]. All of Hugging Face's training arguments
are accepted; `--help` lists them.
"""

from dataclasses import dataclass, field

from transformers import HfArgumentParser, set_seed

from modeling_denseclip import (
    DenseCLIPConfig,
    DenseCLIPForSemanticSegmentation,
    DenseCLIPImageProcessor,
    tokenize_class_names,
)
from modeling_denseclip.conversion_denseclip import load_tokenizer

from .class_names import read_class_names
from .convert import read_config_fields
from .data import (
    AugmentationEpoch,
    EvaluationTransform,
    TrainingTransform,
    load_folder_dataset,
)
from .metrics import format_scores
from .trainer import DenseCLIPTrainer, DenseCLIPTrainingArguments


@dataclass
class DataArguments:
    dataset_dir: str = field(metadata={"help": "Folder with classes.txt, images/ and annotations/."})
    short_side: int = field(
        default=512, metadata={"help": "Length in pixels to which the short side is resized, keeping the ratio."}
    )
    long_side: int = field(default=2048, metadata={"help": "Upper bound of the long side in pixels."})
    crop_size: list[int] = field(
        default_factory=lambda: [512], metadata={"help": "Training crop in pixels: one side, or height and width."}
    )
    scale_range: list[float] = field(
        default_factory=lambda: [0.5, 2.0], metadata={"help": "Range of the random scale in training."}
    )

    def __post_init__(self):
        if len(self.crop_size) not in (1, 2):
            raise ValueError(f"--crop_size takes one side or height and width, got {self.crop_size}.")
        if len(self.scale_range) != 2 or not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise ValueError(f"--scale_range takes two positive numbers, low and high, got {self.scale_range}.")


@dataclass
class ModelArguments:
    config: str | None = field(
        default=None, metadata={"help": "JSON file with fields of DenseCLIPConfig; the rest keeps its defaults."}
    )
    clip: str | None = field(
        default=None, metadata={"help": "CLIP checkpoint to start from; without one the weights are random."}
    )
    tokenizer: str | None = field(
        default=None,
        metadata={"help": "CLIP tokenizer, a folder or a Hub id; by default that beside --clip, or else OpenAI's."},
    )


def build_model(arguments: ModelArguments, class_names: list[str]) -> DenseCLIPForSemanticSegmentation:
    """Build the model for these classes: from CLIP's weights, or from random ones."""
    fields = read_config_fields(arguments.config) if arguments.config else {}
    if arguments.clip is not None:
        return DenseCLIPForSemanticSegmentation.from_clip_pretrained(
            arguments.clip, class_names=class_names, tokenizer=arguments.tokenizer, **fields
        )
    fields["id2label"] = dict(enumerate(class_names))
    if not fields.get("use_language", True):
        return DenseCLIPForSemanticSegmentation(DenseCLIPConfig(**fields))
    tokenizer = load_tokenizer(arguments.tokenizer)
    fields["class_token_ids"] = tokenize_class_names(class_names, tokenizer)
    model = DenseCLIPForSemanticSegmentation(DenseCLIPConfig(**fields))
    model.tokenizer = tokenizer  # saved with the model
    return model


def parse_arguments(arguments: list[str] | None = None):
    """Parse the command line. With --clip two defaults become the published ones: encoder rate x 0.1, text frozen."""
    parser = HfArgumentParser((DataArguments, ModelArguments, DenseCLIPTrainingArguments))
    if parser.parse_known_args(arguments)[0].clip is not None:
        parser.set_defaults(image_encoder_lr_multiplier=0.1, freeze_text_encoder=True)
    return parser.parse_args_into_dataclasses(arguments)


def main(arguments: list[str] | None = None) -> DenseCLIPTrainer:
    data_args, model_args, training_args = parse_arguments(arguments)
    set_seed(training_args.seed)

    class_names = read_class_names(data_args.dataset_dir)
    train_dataset = load_folder_dataset(data_args.dataset_dir, "training", class_names)
    eval_dataset = load_folder_dataset(data_args.dataset_dir, "validation", class_names)

    model = build_model(model_args, class_names)
    image_processor = DenseCLIPImageProcessor(
        size={"shortest_edge": data_args.short_side, "longest_edge": data_args.long_side}
    )

    train_transform = TrainingTransform(
        crop_size=(data_args.crop_size[0], data_args.crop_size[-1]),
        short_side=data_args.short_side,
        long_side=data_args.long_side,
        image_mean=image_processor.image_mean,
        image_std=image_processor.image_std,
        scale_range=tuple(data_args.scale_range),
        seed=training_args.seed,
    )
    trainer = DenseCLIPTrainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset.with_transform(train_transform),
        eval_dataset=eval_dataset.with_transform(EvaluationTransform(image_processor)),
        processing_class=image_processor,
        callbacks=[AugmentationEpoch(train_transform)],
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)

    metrics = trainer.evaluate()
    trainer.save_metrics("eval", metrics)
    if trainer.is_world_process_zero():
        print(format_scores(trainer.scores, class_names))

    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main()
