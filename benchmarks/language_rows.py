# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The rows of the experiment on the worth of language: what each one starts from, and what it changes.

A row is the words behind `python -m training.train` and a JSON of the architecture. What rows do not say is the same
for all: data, order, crops and colours of a seed, steps, learning rate, neck and head.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformers import CLIPTokenizer

from .language_pretraining import Pretraining, resnet_fields


@dataclass(frozen=True)
class Row:
    """
    A way of training.

    Args:
        title (`str`): what tables call it.
        clip (`str`, *optional*): the pretraining that `--clip` names.
        image (`str`, *optional*): the pretraining that `--image` names.
        fields (`dict`): of [`DenseCLIPConfig`], beside those of every row.
        words (`tuple[str, ...]`): more arguments of training.
        has_meaningless_names (`bool`): whether classes are called by words that say nothing.
    """

    title: str
    clip: str | None = None
    image: str | None = None
    fields: dict = field(default_factory=dict)
    words: tuple[str, ...] = ()
    has_meaningless_names: bool = False

    @property
    def uses_language(self) -> bool:
        return self.fields.get("use_language", True)


@dataclass(frozen=True)
class FineTuning:
    """
    Sizes of a training on masks.

    Args:
        side (`int`): to which pictures are enlarged, and that of a crop, in pixels.
        crop (`tuple[int, int]`): height and width of a crop.
        width (`int`): of neck and head, and of the context decoder.
        steps, batch_size, warmup_steps (`int`), learning_rate (`float`): of all rows alike. The rate of pretrained
            image encoders is a tenth, as published.
    """

    side: int = 128
    crop: tuple[int, int] = (128, 128)
    width: int = 64
    steps: int = 400
    batch_size: int = 4
    warmup_steps: int = 40
    learning_rate: float = 2e-3


WITHOUT_LANGUAGE = {"use_language": False}
POST_MODEL = {"prompting_mode": "post_model"}
_CLIP = Row("+ post-model prompting", clip="clip_resnet", fields=POST_MODEL)


def _variant(title: str, words: tuple[str, ...] = (), **fields) -> Row:
    return replace(_CLIP, title=title, words=words, fields={**POST_MODEL, **fields})


# Table 2 of the paper, each row below the one that it is compared with.
STEPS = {
    "random": Row("random weights + FPN", fields=WITHOUT_LANGUAGE),
    "numbers": Row('"ImageNet" + FPN', clip="numbers_resnet", fields=WITHOUT_LANGUAGE),
    "clip": Row("CLIP + FPN", clip="clip_resnet", fields=WITHOUT_LANGUAGE),
    "language": Row("+ language prompt", clip="clip_resnet", fields={"prompting_mode": "language"}),
    "pre_model": Row("+ pre-model prompting", clip="clip_resnet", fields={"prompting_mode": "pre_model"}),
    "post_model": _CLIP,
}
# Table 5: another encoder without and with language.
BACKBONES = {
    "convnext": Row('ConvNeXt of "ImageNet" + FPN', image="numbers_convnext", fields=WITHOUT_LANGUAGE),
    "convnext_post_model": Row(
        'ConvNeXt of "ImageNet" + post-model prompting',
        clip="clip_resnet",
        image="numbers_convnext",
        fields=POST_MODEL,
    ),
}
# Table 1, on as many masks as ablations.
VITS = {
    "vit": Row("CLIP's ViT + FPN", clip="clip_vit", fields=WITHOUT_LANGUAGE),
    "vit_post_model": Row("CLIP's ViT + post-model prompting", clip="clip_vit", fields=POST_MODEL),
}
# Beside the ablation "frozen_image": what freezing does without language.
FROZEN = {
    "frozen_clip": replace(
        STEPS["clip"], title="CLIP + FPN, image encoder frozen", words=("--freeze_image_encoder", "true")
    ),
}
# What the paper leaves out: each is the row "post_model" but for one thing.
ABLATIONS = {
    "meaningless": replace(_CLIP, title="meaningless names", has_meaningless_names=True),
    "contexts_1": _variant("1 context", num_context_tokens=1),
    "temperature_0.01": _variant("temperature 0.01", temperature=0.01),
    "auxiliary_0": _variant("auxiliary loss x 0", auxiliary_loss_weight=0.0),
    "gamma_1": _variant("gamma from 1", gamma_init_value=1.0),
    "tuned_text": _variant("text tower tuned", ("--freeze_text_encoder", "false")),
    "frozen_image": _variant("image encoder frozen", ("--freeze_image_encoder", "true")),
    "full_rate": _variant("image encoder at the full rate", ("--image_encoder_lr_multiplier", "1.0")),
}
# Photographs have no CLIP here: what prompting is worth to a model that learns its words from masks alone.
PHOTOGRAPHS = {
    "random": STEPS["random"],
    "random_language": Row("+ language prompt", fields={"prompting_mode": "language"}),
    "random_pre_model": Row("+ pre-model prompting", fields={"prompting_mode": "pre_model"}),
    "random_post_model": Row("+ post-model prompting", fields=POST_MODEL),
}
ROWS = {**PHOTOGRAPHS, **STEPS, **BACKBONES, **VITS, **FROZEN, **ABLATIONS}


def config_fields(row: Row, pretraining: Pretraining, sizes: FineTuning, tokenizer: CLIPTokenizer) -> dict:
    """Fields of a [`DenseCLIPConfig`] of a row. What pretrained weights show is left to them."""
    # The position embeddings are resized to the grid that is trained at, as published.
    encoder = {"image_size": sizes.side}
    if row.image is not None:
        fields = {"attention_pool_grid_size": max(sizes.side // 32, 1)}
    elif row.clip == "clip_vit":
        fields = {"vision_config": {"model_type": "clip_vision_model", **encoder}}
    elif row.clip is not None:
        fields = {"vision_config": {"model_type": "denseclip_resnet", **encoder}}
    else:
        fields = resnet_fields(pretraining, tokenizer)
        fields["vision_config"] |= encoder
    return {
        **fields,
        "neck_hidden_size": sizes.width,
        "decode_head_hidden_size": sizes.width,
        "context_decoder_hidden_size": sizes.width,
        "context_decoder_num_attention_heads": 2,
        **row.fields,
    }


def training_words(
    row: Row,
    pretraining: Pretraining,
    sizes: FineTuning,
    tokenizer: CLIPTokenizer,
    encoders: Path,
    output_dir: Path,
    seed: int,
) -> list[str]:
    """
    The words behind `python -m training.train` but those of the data. Writes the architecture and the tokenizer into
    `output_dir`.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    config = output_dir / "architecture.json"
    config.write_text(json.dumps(config_fields(row, pretraining, sizes, tokenizer), indent=2), encoding="utf-8")
    words = ["--config", str(config), "--output_dir", str(output_dir / "model")]
    words += ["--clip", str(encoders / row.clip)] if row.clip else []
    words += ["--image", str(encoders / row.image)] if row.image else []
    if row.uses_language:
        tokenizer.save_pretrained(output_dir / "tokenizer")
        words += ["--tokenizer", str(output_dir / "tokenizer")]
    words += ["--crop_size", *map(str, sizes.crop), "--scale_range", "1.0", "1.25"]
    words += ["--max_steps", str(sizes.steps), "--per_device_train_batch_size", str(sizes.batch_size)]
    words += ["--learning_rate", str(sizes.learning_rate), "--warmup_steps", str(sizes.warmup_steps)]
    words += ["--lr_schedule", "published_poly", "--weight_decay", "1e-4", "--dice_weight", "0"]
    # As published; `Trainer` would clip them to a norm of 1.
    words += ["--max_grad_norm", "0"]
    words += ["--channels_last", "true", "--seed", str(seed), *row.words]
    words += ["--num_sample_images", "0", "--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true"]
    return [*words, "--logging_steps", str(sizes.steps), "--dataloader_pin_memory", "false"]


def size_words(sizes: FineTuning) -> list[str]:
    """How large training and evaluation make pictures."""
    return ["--short_side", str(sizes.side), "--long_side", str(4 * sizes.side)]
