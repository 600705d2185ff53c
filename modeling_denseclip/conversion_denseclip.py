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
"""Models of weights from elsewhere: CLIP's, a backbone's of Transformers, and those of the published DenseCLIP."""

import dataclasses
import difflib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .checkpoint_formats_denseclip import (
    NEW_MODULES,
    TEXT_POSITIONS,
    SourceWeights,
    read_source,
    reading_dtype,
    widest_dtype,
)
from .class_names_denseclip import check_class_names, check_vocabulary, tokenize_class_names
from .configuration_denseclip import DenseCLIPConfig
from .loading_denseclip import HUB_KWARGS, find_tokenizer, load_clip_tokenizer
from .modeling_denseclip_backbone import load_backbone, measure_layout
from .resizing_denseclip import resize_grid
from .weight_files_denseclip import listed, read_checkpoint


# CLIP has one tokenizer; this is where the Hub keeps it.
DEFAULT_TOKENIZER = "openai/clip-vit-base-patch16"
# Arguments of `from_pretrained` that say how weights are stored, and where.
PLACING_KWARGS = ("dtype", "device_map", "max_memory", "offload_folder", "offload_buffers", "quantization_config")
POSITION_GRIDS = (
    "image_encoder.attention_pool.position_embedding",
    "image_encoder.vision_model.embeddings.position_embedding.weight",
)
# Fields of a saved config that describe its checkpoint and not an architecture.
CHECKPOINT_FIELDS = (
    "model_type",
    "architectures",
    "auto_map",
    "dtype",
    "torch_dtype",
    "quantization_config",
    "transformers_version",
    "_name_or_path",
    "class_names",
    "prompt_names",
    "class_token_ids",
    "untrained_contexts",
    "id2label",
    "label2id",
    "num_labels",
)
# What the "CLIP + Semantic FPN" baseline leaves behind.
LANGUAGE_MODULES = (
    "text_encoder.",
    "text_projection.",
    "image_encoder.attention_pool.",
    "image_encoder.visual_projection.",
    "image_encoder.vision_model.post_layernorm.",
)


def load_exactly(
    model: PreTrainedModel,
    state_dict: dict[str, torch.Tensor],
    may_be_new: tuple[str, ...] = (),
    may_be_left: tuple[str, ...] = (),
    describe: Callable[[str], str] = str,
) -> None:
    """
    Copy `state_dict` into `model`, accounting for every tensor on both sides. Absent may be `num_batches_tracked`
    alone, a counter of BatchNorm that no result depends on, and what has a prefix of `may_be_new`; left over may be
    what has one of `may_be_left`. An error calls a tensor by what `describe` makes of its name.

    Raises:
        ValueError: names what is missing, unexpected or of another shape. The model is untouched then.
    """
    own = model.state_dict()
    common = own.keys() & state_dict.keys()
    found = {
        "missing": [
            describe(name)
            for name in own.keys() - common
            if not name.startswith(may_be_new) and not name.endswith("num_batches_tracked")
        ],
        "unexpected": [describe(name) for name in state_dict.keys() - common if not name.startswith(may_be_left)],
        "of another shape": [
            f"{describe(name)} ({tuple(state_dict[name].shape)}, the model has {tuple(own[name].shape)})"
            for name in common
            if own[name].shape != state_dict[name].shape
        ],
        # Quantised weights are integers: copied, they would be weights of 0 to 255.
        "that are no floating-point numbers": [
            f"{describe(name)} ({state_dict[name].dtype})"
            for name in common
            if own[name].is_floating_point() and not state_dict[name].is_floating_point()
        ],
        "with NaN or infinity in them": [
            describe(name)
            for name in common
            if state_dict[name].is_floating_point() and not state_dict[name].isfinite().all()
        ],
    }
    problems = [f"{len(names)} {what}: {listed(sorted(names))}" for what, names in found.items() if names]
    if problems:
        raise ValueError(f"The weights do not fit the config. Tensors {'; '.join(problems)}.")
    model.load_state_dict({name: tensor for name, tensor in state_dict.items() if name in own}, strict=False)


def load_tokenizer(
    tokenizer: PreTrainedTokenizerBase | str | os.PathLike | None,
    beside: str | os.PathLike | None = None,
    **hub_kwargs,
) -> PreTrainedTokenizerBase:
    """
    The tokenizer given, or the one at the place given, or the one `beside` the weights, or OpenAI's on the Hub.
    `hub_kwargs` are `HUB_KWARGS`; `revision` and `subfolder` are those of the weights, and mean nothing elsewhere.
    """
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        return tokenizer
    if tokenizer is None and beside is not None and not Path(beside).is_file():
        tokenizer = beside if find_tokenizer(beside, **hub_kwargs) else None
    if tokenizer is None or str(tokenizer) != str(beside):
        hub_kwargs = {name: value for name, value in hub_kwargs.items() if name not in ("revision", "subfolder")}
    return load_clip_tokenizer(DEFAULT_TOKENIZER if tokenizer is None else tokenizer, **hub_kwargs)


def merge_fields(shown: dict, asked: dict) -> dict:
    """
    Fields of [`DenseCLIPConfig`]: those that weights show, and over them those that are asked for, tower by tower.

    Raises:
        ValueError: for an image encoder of another kind than the weights'.
    """
    # None stands for a default that follows from the rest.
    asked = {name: value for name, value in asked.items() if name not in CHECKPOINT_FIELDS and value is not None}
    fields = {**shown, **asked}
    for tower in {"text_config", "vision_config"} & shown.keys() & asked.keys():
        own, other = shown[tower], asked[tower]
        other = other.to_dict() if isinstance(other, PreTrainedConfig) else other
        if not isinstance(other, dict):
            raise ValueError(f"`{tower}` must be a mapping of fields to values; got {other!r}.")
        if tower == "vision_config" and other.get("model_type", own["model_type"]) != own["model_type"]:
            raise ValueError(
                f"The weights have an image encoder of type {own['model_type']!r}, the config asks for"
                f" {other['model_type']!r}. Take the config of the same architecture."
            )
        fields[tower] = {**own, **other}
    return fields


def with_image_backbone(
    weights: SourceWeights | None,
    image: str | os.PathLike,
    asked: dict,
    dtype: torch.dtype | str = torch.float32,
    **hub_kwargs,
) -> SourceWeights:
    """
    The text tower of CLIP's `weights`, `None` for a model without language, beside a backbone of Transformers with its
    own weights: `image`, or what that is built on. Of its config, fields of the `vision_config` that is `asked` for
    replace the backbone's own.

    Raises:
        ValueError: for a model that is no backbone, or whose weights do not fit; names tensors.
    """
    own = DenseCLIPConfig.get_config_dict(image, **hub_kwargs)[0]
    if own.get("model_type") in ("clip", "clip_vision_model"):
        raise ValueError(
            f"`image` names a CLIP ({str(image)!r}), whose image encoder belongs to its own text tower. Pass it as the"
            " first argument, without `image`."
        )
    own = {name: value for name, value in own.items() if name == "model_type" or name not in CHECKPOINT_FIELDS}
    fields = {} if weights is None else {name: weights.fields[name] for name in ("text_config", "projection_dim")}
    fields["vision_config"] = own
    merged = merge_fields(fields, asked)
    vision_config = DenseCLIPConfig(vision_config=merged["vision_config"], use_language=False).vision_config
    layout = measure_layout(vision_config.to_json_string(use_diff=False), merged.get("feature_layers"))
    state_dict = load_backbone(image, vision_config, layout, dtype, **hub_kwargs)
    text_state_dict = {} if weights is None else weights.state_dict
    return SourceWeights(
        form=f"{own['model_type']} backbone" + ("" if weights is None else f" and text tower of {weights.form}"),
        state_dict={
            **{name: tensor for name, tensor in text_state_dict.items() if not name.startswith("image_encoder.")},
            **{f"image_encoder.backbone.{name}": tensor for name, tensor in state_dict.items()},
        },
        table=[("*", "image_encoder.backbone.*"), *([] if weights is None else weights.table)],
        fields=fields,
        new_modules=(*NEW_MODULES, "image_encoder.attention_pool."),
        dtype=widest_dtype(
            [*state_dict.values(), *([] if weights is None else [torch.empty(0, dtype=weights.dtype)])]
        ),
    )


def build_from_clip(
    model_class: type[PreTrainedModel],
    clip_name_or_path: str | os.PathLike | None,
    class_names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase | str | os.PathLike | None,
    config: DenseCLIPConfig | None,
    text: str | os.PathLike | None,
    image: str | os.PathLike | None,
    **kwargs,
) -> PreTrainedModel:
    """See `DenseCLIPForSemanticSegmentation.from_clip_pretrained`."""
    if clip_name_or_path is not None and text is not None:
        raise ValueError(
            f"Both a CLIP ({str(clip_name_or_path)!r}) and `text` ({str(text)!r}) are given, and each has a text"
            " tower. Pass one of them."
        )
    clip = text if clip_name_or_path is None else clip_name_or_path
    if not isinstance(config, PreTrainedConfig | None):
        raise TypeError(
            f"`config` must be a DenseCLIPConfig; got {config!r}. Read a file by `DenseCLIPConfig.from_pretrained`."
        )
    kwargs, hub_kwargs, placing = split_keywords(kwargs)
    asked = kwargs if config is None else merge_fields(config.to_dict(), kwargs)
    use_language = asked.get("use_language", True)
    if image is None and (clip is None or text is not None):
        raise ValueError(
            "An image encoder is missing. Pass a CLIP as the first argument, for both of its towers, or `image`: a"
            " backbone of Transformers such as 'microsoft/resnet-50'."
        )
    if clip is None and use_language:
        raise ValueError(
            f"No text tower is named to go with the image encoder {str(image)!r}. Pass `text`, a CLIP such as"
            f" {DEFAULT_TOKENIZER!r}, or `use_language=False` for a model without language."
        )
    weights = None
    reads_clip = clip is not None and (use_language or image is None)
    of_one = [name for name in ("revision", "subfolder") if name in hub_kwargs]
    if reads_clip and image is not None and of_one:
        raise ValueError(
            f"`{of_one[0]}` names a place in one repository, and the two towers come from two: {str(clip)!r} and"
            f" {str(image)!r}. Download them by `huggingface_hub.snapshot_download`, and name the folders."
        )
    dtype = reading_dtype(placing.get("dtype"))
    if reads_clip:
        weights = read_source(clip, dtype, **hub_kwargs)
        if not weights.is_clip:
            raise ValueError(
                f"{clip} is a {weights.form}, which has a head and classes of its own. `python -m training.convert`"
                " makes a checkpoint of it that `from_pretrained` loads."
            )
    if image is not None:
        weights = with_image_backbone(weights, image, asked, dtype, **hub_kwargs)
    if use_language:
        tokenizer = load_tokenizer(tokenizer, beside=clip, **hub_kwargs)
    return build_model(model_class, weights, merge_fields(weights.fields, asked), class_names, tokenizer, **placing)


def split_keywords(kwargs: dict) -> tuple[dict, dict, dict]:
    """
    Keywords of `from_clip_pretrained`: fields of [`DenseCLIPConfig`], `HUB_KWARGS` and `PLACING_KWARGS`.

    Raises:
        TypeError: for any other, which must not reach the config, and the Hub with it.
    """
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    if "torch_dtype" in kwargs:  # its former name
        kwargs = {"dtype": kwargs.pop("torch_dtype"), **kwargs}
    fields = {field.name for field in dataclasses.fields(DenseCLIPConfig)} - {*CHECKPOINT_FIELDS}
    fields |= {"attn_implementation", "output_attentions"}
    for name in kwargs.keys() - fields - {*HUB_KWARGS, *PLACING_KWARGS}:
        near = difflib.get_close_matches(name, [*fields, *HUB_KWARGS, *PLACING_KWARGS], n=1, cutoff=0.8)
        if name in CHECKPOINT_FIELDS:
            advice = "; it follows from `class_names` and the weights."
        else:
            advice = f"; did you mean {near[0]!r}?" if near else "."
        raise TypeError(
            f"from_clip_pretrained() got an unexpected keyword argument {name!r}{advice} It takes fields of"
            f" DenseCLIPConfig, and as from_pretrained {', '.join((*HUB_KWARGS, *PLACING_KWARGS))}."
        )
    return tuple(
        {name: value for name, value in kwargs.items() if name in group}
        for group in (fields, HUB_KWARGS, PLACING_KWARGS)
    )


def build_model(
    model_class: type[PreTrainedModel],
    weights: SourceWeights,
    fields: dict,
    class_names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase | None,
    **placing,
) -> PreTrainedModel:
    """
    A model of the architecture `fields`, see `merge_fields`, for these classes, with `weights`; what CLIP does not
    bring is initialised. By default, without `PLACING_KWARGS`, it is in float32, on the CPU.

    Raises:
        ValueError: for weights that do not fit; names every tensor.
    """
    check_class_names(class_names)
    fields = {**fields, "id2label": dict(enumerate(class_names))}
    if len(fields.get("palette") or ()) != len(class_names):
        fields["palette"] = None
    use_language = fields.get("use_language", True)
    if use_language:
        fields["class_token_ids"] = tokenize_class_names(class_names, tokenizer)
        check_vocabulary(fields["class_token_ids"], weights.fields["text_config"]["vocab_size"])
        if not weights.is_clip:
            # The published text tower kept 13 of CLIP's 77 positions; there are no weights for more.
            num_positions = weights.fields["text_config"]["max_position_embeddings"]
            fields["text_config"] = {**fields["text_config"], "max_position_embeddings": num_positions}
    model = model_class(DenseCLIPConfig(**fields))
    if reading_dtype(placing.get("dtype")) == torch.float64 or placing.get("dtype") == "auto":
        model.to(torch.promote_types(weights.dtype, torch.float32))  # or float64 would be rounded
    load_exactly(
        model,
        fit_positions(weights.state_dict, model.state_dict()),
        may_be_new=weights.new_modules if weights.is_clip else (),
        # CODEPATH: the baseline leaves the language side of CLIP behind
        may_be_left=LANGUAGE_MODULES if weights.is_clip and not use_language else (),
        describe=weights.describe,
    )
    if placing:
        if placing.get("dtype") == "auto":
            placing["dtype"] = weights.dtype
        model = model_class.from_pretrained(None, config=model.config, state_dict=model.state_dict(), **placing)
        model.name_or_path = model.config.name_or_path = ""  # not "None"
    model.tokenizer = tokenizer if use_language else None
    if weights.is_clip and use_language:
        model.remember_untrained_contexts()
    return model.eval()


def fit_positions(state_dict: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    `state_dict` with position embeddings of the model's sizes: grids resized bilinearly, CLIP's 77 text positions cut
    off at the end. What cannot be fitted stays as it is, for `load_exactly` to name.

    Source: published `init_weights` of `CLIPResNetWithAttention`, `CLIPVisionTransformer`, `CLIPTextContextEncoder`.
    """
    fitted = dict(state_dict)
    for name in POSITION_GRIDS:
        if name in state_dict and name in own and state_dict[name].shape[0] != own[name].shape[0]:
            side = math.isqrt(own[name].shape[0] - 1)
            if math.isqrt(state_dict[name].shape[0] - 1) ** 2 == state_dict[name].shape[0] - 1:
                fitted[name] = resize_grid(state_dict[name], (side, side))
    if TEXT_POSITIONS in state_dict and TEXT_POSITIONS in own:
        fitted[TEXT_POSITIONS] = state_dict[TEXT_POSITIONS][: own[TEXT_POSITIONS].shape[0]]
    return fitted


__all__ = ["build_from_clip", "read_checkpoint"]  # the second was in this file in 0.1.0
