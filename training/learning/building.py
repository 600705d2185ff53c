# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What a training starts from: the model and its image processor, from arguments."""

from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from modeling_denseclip import (
    DenseCLIPConfig,
    DenseCLIPForSemanticSegmentation,
    DenseCLIPImageProcessor,
    tokenize_class_names,
)
from modeling_denseclip.conversion_denseclip import load_tokenizer, merge_fields

from .. import REPOSITORY
from ..data.load import SegmentationData
from ..options.arguments import DataArguments, DenseCLIPTrainingArguments, ModelArguments
from ..options.config_fields import read_config_fields


def check_pretrained(model_args: ModelArguments, training_args: DenseCLIPTrainingArguments) -> None:
    """
    Raises:
        ValueError: where the weights of an image encoder that is to be frozen would be random.
    """
    if model_args.pretrained():
        return
    for name in ("freeze_image_encoder", "lora_rank"):
        if getattr(training_args, name):
            raise ValueError(
                f"--{name} keeps the pretrained weights of the image encoder, and without --clip or --image they are"
                " random. Name a checkpoint to start from."
            )


def build_model(arguments: ModelArguments, data: SegmentationData) -> DenseCLIPForSemanticSegmentation:
    """
    Build the model for the data's classes: from CLIP's weights, an image encoder's own, or random ones.

    Raises:
        ValueError: for a config with unknown fields or values of another type, or weights that do not fit.
    """
    fields = {}
    if arguments.config is not None:
        path = Path(arguments.config)
        fields = merge_fields({}, read_config_fields(path if path.exists() else REPOSITORY / path))
    fields["palette"] = data.palette
    try:
        if arguments.pretrained():
            return DenseCLIPForSemanticSegmentation.from_clip_pretrained(
                arguments.clip,
                image=arguments.image,
                class_names=data.class_names,
                tokenizer=arguments.tokenizer,
                **fields,
            )
        fields["id2label"] = dict(enumerate(data.class_names))
        if not fields.get("use_language", True):
            return DenseCLIPForSemanticSegmentation(DenseCLIPConfig(**fields))
        tokenizer = load_tokenizer(arguments.tokenizer)
        fields["class_token_ids"] = tokenize_class_names(data.class_names, tokenizer)
        model = DenseCLIPForSemanticSegmentation(DenseCLIPConfig(**fields))
        model.tokenizer = tokenizer  # saved with the model
        return model
    except StrictDataclassError as error:
        raise ValueError(f"The config {arguments.config} is invalid: {' '.join(str(error).split())}") from error


def build_image_processor(
    data_args: DataArguments, model_args: ModelArguments, reduce_labels: bool
) -> DenseCLIPImageProcessor:
    """
    The image processor. It normalises as the image encoder's weights are used to.

    Raises:
        ValueError: for an image encoder's checkpoint that does not say how.
    """
    mean, std = model_args.image_mean, model_args.image_std
    if mean is None and model_args.image is not None:
        try:
            fields, _ = DenseCLIPImageProcessor.get_image_processor_dict(model_args.image)
            mean, std = fields["image_mean"], fields["image_std"]
        except (OSError, KeyError) as error:
            raise ValueError(
                f"image_mean and image_std could not be read from the preprocessor_config.json of {model_args.image}"
                f" ({type(error).__name__}: {error}). Give both by --image_mean and --image_std."
            ) from error
    return DenseCLIPImageProcessor(
        size={"shortest_edge": data_args.short_side, "longest_edge": data_args.long_side},
        do_reduce_labels=reduce_labels,
        **({} if mean is None else {"image_mean": mean, "image_std": std}),  # CLIP's are the default
    )
