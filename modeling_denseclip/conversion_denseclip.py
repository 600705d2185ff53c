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
"""Weights of CLIP and of the published DenseCLIP under our names. Reads no pickle that could run code."""

import json
import math
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from .class_names_denseclip import tokenize_class_names
from .configuration_denseclip import DenseCLIPConfig, DenseCLIPResNetConfig


# CLIP has one tokenizer; this is where the Hub keeps it.
DEFAULT_TOKENIZER = "openai/clip-vit-base-patch16"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
OPEN_CLIP_CONFIG = "open_clip_config.json"
# CLIP's heads are 64 wide in all of its towers.
CLIP_HEAD_DIM = 64

# Of CLIP, what dense prediction has no use for: scalars of its contrastive loss and of its archive.
UNUSED_CLIP_TENSORS = ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size")
# What CLIP does not bring and training has to make.
NEW_MODULES = ("prompts.", "context_decoder.", "neck.", "decode_head.", "image_encoder.pyramid.")
# What the "CLIP + Semantic FPN" baseline leaves behind.
LANGUAGE_MODULES = (
    "text_encoder.",
    "text_projection.",
    "image_encoder.attention_pool.",
    "image_encoder.visual_projection.",
    "image_encoder.vision_model.post_layernorm.",
)

# OpenAI's names -> ours. A pattern matches a whole name; the first that does is taken.
_TRANSFORMER = [
    (r"resblocks\.(\d+)\.ln_(\d)\.(.+)", r"\1.layer_norm\2.\3"),
    (r"resblocks\.(\d+)\.attn\.out_proj\.(.+)", r"\1.self_attn.out_proj.\2"),
    (r"resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", r"\1.self_attn.{qkv}_proj.\2"),
    (r"resblocks\.(\d+)\.mlp\.c_fc\.(.+)", r"\1.mlp.fc1.\2"),
    (r"resblocks\.(\d+)\.mlp\.c_proj\.(.+)", r"\1.mlp.fc2.\2"),
]
_TEXT = [
    (r"token_embedding\.weight", r"text_encoder.embeddings.token_embedding.weight"),
    (r"positional_embedding", r"text_encoder.embeddings.position_embedding.weight"),
    (r"ln_final\.(.+)", r"text_encoder.final_layer_norm.\1"),
    (r"text_projection", r"text_projection.weight{T}"),
    *((rf"transformer\.{old}", rf"text_encoder.encoder.layers.{new}") for old, new in _TRANSFORMER),
]
_VIT = [
    (r"class_embedding", r"image_encoder.vision_model.embeddings.class_embedding"),
    (r"positional_embedding", r"image_encoder.vision_model.embeddings.position_embedding.weight"),
    (r"conv1\.weight", r"image_encoder.vision_model.embeddings.patch_embedding.weight"),
    (r"ln_pre\.(.+)", r"image_encoder.vision_model.pre_layrnorm.\1"),
    (r"ln_post\.(.+)", r"image_encoder.vision_model.post_layernorm.\1"),
    (r"proj", r"image_encoder.visual_projection.weight{T}"),
    *((rf"transformer\.{old}", rf"image_encoder.vision_model.encoder.layers.{new}") for old, new in _TRANSFORMER),
    # The published pyramid, in the order of its nn.Sequential.
    (r"fpn1\.0\.(.+)", r"image_encoder.pyramid.norms.0.\1"),
    (r"fpn1\.1\.(.+)", r"image_encoder.pyramid.upsample4_first.\1"),
    (r"fpn1\.2\.(.+)", r"image_encoder.pyramid.upsample4_norm.\1"),
    (r"fpn1\.4\.(.+)", r"image_encoder.pyramid.upsample4_second.\1"),
    (r"fpn2\.0\.(.+)", r"image_encoder.pyramid.norms.1.\1"),
    (r"fpn2\.1\.(.+)", r"image_encoder.pyramid.upsample2.\1"),
    (r"fpn3\.(weight|bias)", r"image_encoder.pyramid.norms.2.\1"),
    (r"fpn4\.0\.(.+)", r"image_encoder.pyramid.norms.3.\1"),
]
_RESNET = [
    (r"conv(\d)\.(.+)", r"image_encoder.backbone.stem.conv\1.\2"),
    (r"bn(\d)\.(.+)", r"image_encoder.backbone.stem.norm\1.\2"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.(.+)", r"image_encoder.backbone.stages.{\1}.blocks.\2.conv\3.\4"),
    (r"layer(\d)\.(\d+)\.bn(\d)\.(.+)", r"image_encoder.backbone.stages.{\1}.blocks.\2.norm\3.\4"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.(.+)", r"image_encoder.backbone.stages.{\1}.blocks.\2.shortcut_conv.\3"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.(.+)", r"image_encoder.backbone.stages.{\1}.blocks.\2.shortcut_norm.\3"),
    (r"attnpool\.positional_embedding", r"image_encoder.attention_pool.position_embedding"),
    (r"attnpool\.c_proj\.(.+)", r"image_encoder.attention_pool.out_proj.\1"),
    (r"attnpool\.([qkv]_proj\..+)", r"image_encoder.attention_pool.\1"),
]
_DECODER = [
    (r"contexts", r"prompts.contexts"),
    (r"gamma", r"context_decoder.gamma"),
    (r"context_decoder\.memory_proj\.0\.(.+)", r"context_decoder.memory_norm_in.\1"),
    (r"context_decoder\.memory_proj\.1\.(.+)", r"context_decoder.memory_proj.\1"),
    (r"context_decoder\.memory_proj\.2\.(.+)", r"context_decoder.memory_norm_out.\1"),
    (r"context_decoder\.text_proj\.0\.(.+)", r"context_decoder.text_norm.\1"),
    (r"context_decoder\.text_proj\.1\.(.+)", r"context_decoder.text_proj.\1"),
    (r"context_decoder\.out_proj\.0\.(.+)", r"context_decoder.out_norm.\1"),
    (r"context_decoder\.out_proj\.1\.(.+)", r"context_decoder.out_proj.\1"),
    (r"context_decoder\.decoder\.(\d+)\.norm1\.(.+)", r"context_decoder.layers.\1.self_attention_norm.\2"),
    (r"context_decoder\.decoder\.(\d+)\.norm2\.(.+)", r"context_decoder.layers.\1.cross_attention_norm.\2"),
    (r"context_decoder\.decoder\.(\d+)\.norm3\.(.+)", r"context_decoder.layers.\1.mlp_norm.\2"),
    (r"context_decoder\.decoder\.(\d+)\.mlp\.0\.(.+)", r"context_decoder.layers.\1.fc1.\2"),
    (r"context_decoder\.decoder\.(\d+)\.mlp\.3\.(.+)", r"context_decoder.layers.\1.fc2.\2"),
    (
        r"context_decoder\.decoder\.(\d+)\.(self|cross)_attn\.proj\.(.+)",
        r"context_decoder.layers.\1.\2_attention.out_proj.\3",
    ),
    (r"context_decoder\.decoder\.(\d+)\.(self|cross)_attn\.(.+)", r"context_decoder.layers.\1.\2_attention.\3"),
    (r"neck\.lateral_convs\.(\d)\.conv\.(.+)", r"neck.lateral_convs.\1.\2"),
    (r"neck\.fpn_convs\.(\d)\.conv\.(.+)", r"neck.output_convs.\1.\2"),
    (r"decode_head\.conv_seg\.(.+)", r"decode_head.classifier.\1"),
    # Every second child of a scale head is an upsampling without weights.
    (r"decode_head\.scale_heads\.(\d)\.0\.conv\.(.+)", r"decode_head.levels.\1.0.conv.\2"),
    (r"decode_head\.scale_heads\.(\d)\.0\.bn\.(.+)", r"decode_head.levels.\1.0.norm.\2"),
    (r"decode_head\.scale_heads\.(\d)\.2\.conv\.(.+)", r"decode_head.levels.\1.1.conv.\2"),
    (r"decode_head\.scale_heads\.(\d)\.2\.bn\.(.+)", r"decode_head.levels.\1.1.norm.\2"),
    (r"decode_head\.scale_heads\.(\d)\.4\.conv\.(.+)", r"decode_head.levels.\1.2.conv.\2"),
    (r"decode_head\.scale_heads\.(\d)\.4\.bn\.(.+)", r"decode_head.levels.\1.2.norm.\2"),
]
_CLIP_MODEL = [
    (r"text_model\.(.+)", r"text_encoder.\1"),
    (r"vision_model\.(.+)", r"image_encoder.vision_model.\1"),
    (r"visual_projection\.weight", r"image_encoder.visual_projection.weight"),
    (r"text_projection\.weight", r"text_projection.weight"),
]


def _prefixed(prefix: str, table: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(re.escape(prefix) + old, new) for old, new in table]


def rename(state_dict: dict[str, torch.Tensor], table: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
    """
    `state_dict` under our names, in float32.

    Raises:
        ValueError: for tensors that no line of `table` knows; names them.
    """
    renamed, unknown = {}, []
    for name, tensor in state_dict.items():
        new_name = next((m.expand(new) for old, new in table if (m := re.fullmatch(old, name))), None)
        if new_name is None:
            unknown.append(name)
            continue
        new_name = re.sub(r"\{(\d)\}", lambda stage: str(int(stage[1]) - 1), new_name)  # layer1 is stage 0
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        if new_name.endswith("{T}"):
            renamed[new_name.removesuffix("{T}")] = tensor.T.contiguous()
        elif "{qkv}" in new_name:
            for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                renamed[new_name.replace("{qkv}", part)] = chunk.clone()
        else:
            renamed[new_name] = tensor
    if unknown:
        raise ValueError(f"{len(unknown)} tensors of the checkpoint have no place in DenseCLIP: {_listed(unknown)}.")
    return renamed


def convert_clip_state_dict(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """OpenAI's or open_clip's names -> ours."""
    state_dict = {name: tensor for name, tensor in state_dict.items() if name not in UNUSED_CLIP_TENSORS}
    image = _VIT if "visual.class_embedding" in state_dict else _RESNET
    return rename(state_dict, _prefixed("visual.", image) + _TEXT)


def convert_denseclip_state_dict(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of the published DenseCLIP or CLIP + Semantic FPN -> ours."""
    image = _VIT if "backbone.class_embedding" in state_dict else _RESNET
    return rename(state_dict, _prefixed("backbone.", image) + _prefixed("text_encoder.", _TEXT) + _DECODER)


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def load_exactly(
    model: PreTrainedModel,
    state_dict: dict[str, torch.Tensor],
    may_be_new: tuple[str, ...] = (),
    may_be_left: tuple[str, ...] = (),
) -> None:
    """
    Copy `state_dict` into `model`, accounting for every tensor on both sides.

    Args:
        may_be_new: Prefixes of tensors that the model may keep as they were initialised.
        may_be_left: Prefixes of tensors that the model may have no place for.

    Raises:
        ValueError: names what is missing, unexpected or of another shape. The model is untouched then.
    """
    own = model.state_dict()
    missing = [
        name
        for name in own.keys() - state_dict.keys()
        if not name.startswith(may_be_new) and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state_dict.keys() - own.keys() if not name.startswith(may_be_left)]
    misshapen = [
        f"{name} ({tuple(state_dict[name].shape)}, the model has {tuple(own[name].shape)})"
        for name in own.keys() & state_dict.keys()
        if own[name].shape != state_dict[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {_listed(sorted(names))}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise ValueError(f"The weights do not fit the config. Tensors {'; '.join(problems)}.")
    model.load_state_dict({name: tensor for name, tensor in state_dict.items() if name in own}, strict=False)


class _RestrictedUnpickler(pickle.Unpickler):
    """
    Reads the tensors of a TorchScript archive and nothing else: objects become bare holders of their attributes, and
    no function that the pickle names is called, save the one that makes a tensor of a storage.
    """

    class Holder:
        def __setstate__(self, state):
            self.state = state

    def __init__(self, file, archive: zipfile.ZipFile, root: str):
        super().__init__(file)
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str):
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name.endswith("Storage"):
            return name
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
            return lambda value, *_: value
        if module.startswith("__torch__"):
            return self.Holder
        raise pickle.UnpicklingError(
            f"The archive asks for {module}.{name}, which no weights need; it was not loaded."
        )

    def persistent_load(self, reference):
        _, storage_type, key, _, _ = reference
        data_type = getattr(torch, _STORAGE_TYPES[storage_type])
        data = bytearray(self.archive.read(f"{self.root}/data/{key}"))
        return torch.frombuffer(data, dtype=data_type) if data else torch.empty(0, dtype=data_type)

    @staticmethod
    def rebuild_tensor(storage, offset, size, stride, *_):
        return torch.as_strided(storage, size, stride, offset).clone()


_STORAGE_TYPES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "BoolStorage": "bool",
}


def read_torchscript(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Parameters and buffers of a TorchScript archive, by name. Its code is not run, nor any pickled function."""
    tensors = {}

    def collect(prefix: str, holder) -> None:
        for name, value in holder.state.items():
            if isinstance(value, torch.Tensor):
                tensors[prefix + name] = value
            elif isinstance(value, _RestrictedUnpickler.Holder):
                collect(f"{prefix}{name}.", value)

    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        with archive.open(f"{root}/data.pkl") as file:
            collect("", _RestrictedUnpickler(file, archive, root).load())
    return tensors


def read_checkpoint(path: str | os.PathLike) -> dict:
    """
    What a checkpoint file holds: tensors by name, or `{"state_dict": ..., "meta": ...}` for a published one.

    Raises:
        ValueError: for a file that is no checkpoint, or one that holds more than data.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                    return read_torchscript(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path} could not be read as weights: {str(error).splitlines()[0]} Files of safetensors, of tensors saved"
            " by torch and OpenAI's TorchScript archives can; pickles that hold anything else are never executed."
        ) from error


def _num_layers(names: Sequence[str], pattern: str) -> int:
    """How many indices the group of `pattern` takes in `names`."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _text_config(state_dict: dict[str, torch.Tensor], hidden_act: str) -> dict:
    hidden_size = state_dict["text_encoder.final_layer_norm.weight"].shape[0]
    token_embedding = state_dict["text_encoder.embeddings.token_embedding.weight"]
    return {
        "vocab_size": token_embedding.shape[0],
        "hidden_size": hidden_size,
        "intermediate_size": state_dict["text_encoder.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _num_layers(state_dict, r"text_encoder\.encoder\.layers\.(\d+)\."),
        "num_attention_heads": max(hidden_size // CLIP_HEAD_DIM, 1),
        "max_position_embeddings": state_dict["text_encoder.embeddings.position_embedding.weight"].shape[0],
        "projection_dim": state_dict["text_projection.weight"].shape[0],
        "hidden_act": hidden_act,
    }


def _vision_config(state_dict: dict[str, torch.Tensor], hidden_act: str) -> dict:
    vit = "image_encoder.vision_model."
    if f"{vit}embeddings.class_embedding" in state_dict:
        patch_embedding = state_dict[f"{vit}embeddings.patch_embedding.weight"]
        hidden_size, num_channels, patch_size = patch_embedding.shape[:3]
        num_positions = state_dict[f"{vit}embeddings.position_embedding.weight"].shape[0]
        return {
            "model_type": "clip_vision_model",
            "hidden_size": hidden_size,
            "intermediate_size": state_dict[f"{vit}encoder.layers.0.mlp.fc1.weight"].shape[0],
            "num_hidden_layers": _num_layers(state_dict, r"image_encoder\.vision_model\.encoder\.layers\.(\d+)\."),
            "num_attention_heads": max(hidden_size // CLIP_HEAD_DIM, 1),
            "num_channels": num_channels,
            "patch_size": patch_size,
            "image_size": math.isqrt(num_positions - 1) * patch_size,
            "hidden_act": hidden_act,
        }
    resnet = "image_encoder.backbone."
    embedding_size, _, _, _ = state_dict[f"{resnet}stages.0.blocks.0.conv1.weight"].shape
    config = {
        "model_type": DenseCLIPResNetConfig.model_type,
        "embedding_size": embedding_size,
        "depths": tuple(
            _num_layers(state_dict, rf"image_encoder\.backbone\.stages\.{stage}\.blocks\.(\d+)\.")
            for stage in range(4)
        ),
    }
    if "image_encoder.attention_pool.position_embedding" in state_dict:
        num_positions = state_dict["image_encoder.attention_pool.position_embedding"].shape[0]
        config["image_size"] = math.isqrt(num_positions - 1) * 32
    return config


def infer_clip_config(state_dict: dict[str, torch.Tensor], hidden_act: str = "quick_gelu") -> dict:
    """Fields of [`DenseCLIPConfig`] that CLIP's weights under our names show. Heads are 64 wide, as all of CLIP's."""
    return {
        "text_config": _text_config(state_dict, hidden_act),
        "vision_config": _vision_config(state_dict, hidden_act),
        "projection_dim": state_dict["text_projection.weight"].shape[0],
    }


def infer_denseclip_config(state_dict: dict[str, torch.Tensor]) -> dict:
    """
    Fields of [`DenseCLIPConfig`] that a published checkpoint under our names shows, with the paper's protocol: sliding
    windows of the training size. Its text tower is its own; what shapes cannot show (heads) is as published.
    """
    use_language = "prompts.contexts" in state_dict
    vision_config = _vision_config(state_dict, "quick_gelu")
    is_vit = vision_config["model_type"] == "clip_vision_model"
    image_size = vision_config.get("image_size", 512)
    fields = {
        "vision_config": vision_config,
        "use_language": use_language,
        "neck_hidden_size": state_dict["neck.lateral_convs.0.weight"].shape[0],
        "decode_head_hidden_size": state_dict["decode_head.classifier.weight"].shape[1],
        "inference_mode": "slide",
        "window_size": (image_size, image_size),
        "window_stride": (image_size * 2 // 3, image_size * 2 // 3),
    }
    if is_vit:
        fields["class_embedding_scale"] = 2
        fields["drop_path_rate"] = 0.1
    else:
        # The published attention pool has 32 heads whatever its width.
        vision_config["num_attention_heads"] = 32
    if use_language:
        fields |= {
            "text_config": _text_config(state_dict, "quick_gelu"),
            "projection_dim": state_dict["text_projection.weight"].shape[0],
            "num_context_tokens": state_dict["prompts.contexts"].shape[1],
            "context_decoder_hidden_size": state_dict["context_decoder.text_proj.weight"].shape[0],
            "context_decoder_intermediate_size": state_dict["context_decoder.layers.0.fc1.weight"].shape[0],
            "context_decoder_num_hidden_layers": _num_layers(state_dict, r"context_decoder\.layers\.(\d+)\."),
        }
    return fields


def read_clip(clip_name_or_path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict]:
    """
    CLIP's weights under our names, and the fields of [`DenseCLIPConfig`] that describe its towers.

    Raises:
        ValueError: for weights of something else.
    """
    source = Path(clip_name_or_path)
    weights, open_clip_config = None, None
    if source.is_file():
        weights, open_clip_config = source, source.with_name(OPEN_CLIP_CONFIG)
    else:
        weights = _find_file(clip_name_or_path, OPEN_CLIP_WEIGHTS)
        open_clip_config = _find_file(clip_name_or_path, OPEN_CLIP_CONFIG) if weights else None

    if weights is None:
        clip = CLIPModel.from_pretrained(clip_name_or_path, dtype=torch.float32)
        state_dict = {name: tensor for name, tensor in clip.state_dict().items() if name not in UNUSED_CLIP_TENSORS}
        return rename(state_dict, _CLIP_MODEL), {
            "text_config": clip.config.text_config.to_dict(),
            "vision_config": clip.config.vision_config.to_dict(),
            "projection_dim": clip.config.projection_dim,
        }
    state_dict = read_checkpoint(weights)
    if "visual.conv1.weight" not in state_dict or "token_embedding.weight" not in state_dict:
        raise ValueError(
            f"{weights} holds no CLIP with OpenAI's names ('visual.conv1.weight', 'token_embedding.weight'); its first"
            f" tensors are {_listed(list(state_dict), 3)}."
        )
    hidden_act = "quick_gelu"
    if open_clip_config is not None and Path(open_clip_config).is_file():
        # Of open_clip's own models only those that say so have OpenAI's activation.
        model_config = json.loads(Path(open_clip_config).read_text())["model_cfg"]
        hidden_act = "quick_gelu" if model_config.get("quick_gelu") else "gelu"
    state_dict = convert_clip_state_dict(state_dict)
    return state_dict, infer_clip_config(state_dict, hidden_act)


def _find_file(name_or_path: str | os.PathLike, filename: str) -> str | None:
    """Path of a file of a directory or Hub repository, or `None` where that has no such file."""
    return cached_file(
        name_or_path,
        filename,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def load_tokenizer(
    tokenizer: PreTrainedTokenizerBase | str | os.PathLike | None, beside: str | os.PathLike | None = None
) -> PreTrainedTokenizerBase:
    """
    The tokenizer given, or the one at the place given, or the one `beside` the weights, or OpenAI's on the Hub.
    """
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        return tokenizer
    if tokenizer is None and beside is not None and not Path(beside).is_file():
        has_one = _find_file(beside, "tokenizer.json") or _find_file(beside, "vocab.json")
        tokenizer = beside if has_one else None
    source = DEFAULT_TOKENIZER if tokenizer is None else tokenizer
    try:
        return AutoTokenizer.from_pretrained(source)
    except Exception as error:
        raise ValueError(
            f"CLIP's tokenizer could not be loaded from {str(source)!r}: {error} Pass `tokenizer`, a directory that"
            " holds it."
        ) from error


def build_from_clip(
    model_class: type[PreTrainedModel],
    clip_name_or_path: str | os.PathLike,
    class_names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase | str | os.PathLike | None,
    config: DenseCLIPConfig | None,
    **kwargs,
) -> PreTrainedModel:
    """See `DenseCLIPForSemanticSegmentation.from_clip_pretrained`."""
    state_dict, clip_fields = read_clip(clip_name_or_path)
    fields = clip_fields | kwargs if config is None else config.to_dict() | kwargs
    config = build_config(fields, class_names, tokenizer, beside=clip_name_or_path)
    model = model_class(config[0])
    fit_positions(state_dict, model.state_dict())
    load_exactly(
        model,
        state_dict,
        may_be_new=NEW_MODULES,
        # CODEPATH: the baseline leaves the language side of CLIP behind
        may_be_left=() if config[0].use_language else LANGUAGE_MODULES,
    )
    model._tokenizer = config[1]
    return model


def build_config(
    fields: dict,
    class_names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase | str | os.PathLike | None,
    beside: str | os.PathLike | None = None,
) -> tuple[DenseCLIPConfig, PreTrainedTokenizerBase | None]:
    """[`DenseCLIPConfig`] with `fields` for these classes, and the tokenizer that read them (with language)."""
    fields = {
        name: value
        for name, value in fields.items()
        if name not in ("class_names", "class_token_ids", "label2id", "num_labels")
    }
    fields["id2label"] = dict(enumerate(class_names))
    if not fields.get("use_language", True):
        return DenseCLIPConfig(**fields), None
    tokenizer = load_tokenizer(tokenizer, beside)
    return DenseCLIPConfig(**fields, class_token_ids=tokenize_class_names(class_names, tokenizer)), tokenizer


def fit_positions(state_dict: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> None:
    """
    Bring CLIP's position embeddings to the model's sizes, in place: grids bilinearly, text by leaving the end away.

    Source: published `init_weights` of `CLIPResNetWithAttention`, `CLIPVisionTransformer`, `CLIPTextContextEncoder`.
    """
    from .modeling_denseclip import resize_grid

    for name in (
        "image_encoder.attention_pool.position_embedding",
        "image_encoder.vision_model.embeddings.position_embedding.weight",
    ):
        if name in state_dict and name in own and state_dict[name].shape[0] != own[name].shape[0]:
            side = math.isqrt(own[name].shape[0] - 1)
            state_dict[name] = resize_grid(state_dict[name], (side, side))
    name = "text_encoder.embeddings.position_embedding.weight"
    if name in state_dict and name in own:
        state_dict[name] = state_dict[name][: own[name].shape[0]]


__all__ = ["build_from_clip", "convert_clip_state_dict", "convert_denseclip_state_dict", "read_checkpoint"]
