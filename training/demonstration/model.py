# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The demonstration's model, small enough to be trained from nothing in minutes, and its Trainer."""

from collections.abc import Sequence
from pathlib import Path

from transformers import CLIPTokenizer

from modeling_denseclip import (
    DenseCLIPConfig,
    DenseCLIPForSemanticSegmentation,
    DenseCLIPImageProcessor,
    tokenize_class_names,
)

from ..data.load import load_data
from ..data.transforms import AugmentationEpoch, EvaluationTransform, TrainingTransform, with_transform
from ..learning.trainer import DenseCLIPTrainer
from ..options.arguments import DenseCLIPTrainingArguments
from .scenes import HEIGHT, PALETTE, WIDTH


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
