# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What a model is by its config: names and facts that `denseclip info`, model cards and exports have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from ...configuration_denseclip import DenseCLIPConfig
from ...modeling_denseclip_heads import DECODE_HEADS, DenseCLIPNoNeck
from ...modeling_denseclip_prompting import PROMPTING_MODES, DenseCLIPPrompting


NORMALIZATIONS = {
    (tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD)): "CLIP's mean and deviation",
    (tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD)): "ImageNet's mean and deviation",
}


@dataclass(frozen=True)
class Description:
    """A model in words."""

    class_names: list[str]  # in the order of their ids
    image_encoder: str  # name of the architecture
    holds_clip: bool  # whether one of the towers is CLIP's
    prompting: type[DenseCLIPPrompting] | None  # what class embeddings know of the image; `None` without language
    encodes_text_per_image: bool  # whether the text tower has to run for every image, and not once for all
    decode_head: str  # name of the architecture
    has_part: dict[str, bool]  # parts that some models have and others have not, by their names in `denseclip info`


def describe(config: DenseCLIPConfig) -> Description:
    """A model in words, by its config."""
    if config.is_clip_vit:
        image_encoder = "CLIP's Vision Transformer"
    elif config.is_clip_resnet:
        image_encoder = "CLIP's ResNet"
    else:
        image_encoder = type(config.vision_config).__name__.removesuffix("Config")
    prompting = PROMPTING_MODES[config.prompting_mode] if config.use_language else None
    decode_head = DECODE_HEADS[config.decode_head_type]
    return Description(
        class_names=[config.id2label[index] for index in range(config.num_labels)],
        image_encoder=image_encoder,
        holds_clip=config.use_language or config.is_clip_vit or config.is_clip_resnet,
        prompting=prompting,
        encodes_text_per_image=prompting is not None and prompting.makes_contexts_from_image,
        decode_head=decode_head.title,
        has_part={
            "text tower": config.use_language,
            "context decoder": prompting is not None and prompting.has_context_decoder,
            "neck": decode_head.neck_class is not DenseCLIPNoNeck,
            "auxiliary head": config.use_auxiliary_head,
        },
    )


def name_normalization(mean: Sequence[float], std: Sequence[float]) -> str | None:
    """The name of a usual normalisation of images; `None` for any other."""
    return NORMALIZATIONS.get((tuple(mean), tuple(std)))
