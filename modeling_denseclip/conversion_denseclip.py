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
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import CLIPModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .class_names_denseclip import check_vocabulary, find_file, load_clip_tokenizer, tokenize_class_names
from .configuration_denseclip import DenseCLIPConfig, DenseCLIPResNetConfig
from .modeling_denseclip_attention import CLIP_HEAD_DIM, resize_grid
from .modeling_denseclip_backbone import load_backbone, measure_layout


# CLIP has one tokenizer; this is where the Hub keeps it.
DEFAULT_TOKENIZER = "openai/clip-vit-base-patch16"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
OPEN_CLIP_CONFIG = "open_clip_config.json"
# OpenAI's heads have CLIP_HEAD_DIM in all of its towers. open_clip's text towers have 8 where its config says nothing.
OPEN_CLIP_TEXT_HEADS = 8

# Of CLIP, what dense prediction has no use for: scalars of its contrastive loss and of its archive, the causal mask.
UNUSED_CLIP_TENSORS = r"logit_scale|logit_bias|input_resolution|context_length|vocab_size|.+\.attn_mask"
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
POSITION_GRIDS = (
    "image_encoder.attention_pool.position_embedding",
    "image_encoder.vision_model.embeddings.position_embedding.weight",
)
TEXT_POSITIONS = "text_encoder.embeddings.position_embedding.weight"
# Of a saved config, what describes its checkpoint and not an architecture.
CHECKPOINT_FIELDS = (
    "model_type",
    "architectures",
    "auto_map",
    "dtype",
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
# What CLIP does not bring and training has to make.
NEW_MODULES = (
    "prompts.",
    "context_decoder.",
    "neck.",
    "decode_head.",
    "auxiliary_head.",
    "image_encoder.pyramid.",
)
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
            renamed[new_name.removesuffix("{T}")] = tensor.mT.contiguous() if tensor.ndim == 2 else tensor
        elif "{qkv}" in new_name:
            for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                renamed[new_name.replace("{qkv}", part)] = chunk.clone()
        else:
            renamed[new_name] = tensor
    if unknown:
        raise ValueError(f"{len(unknown)} tensors of the checkpoint have no place in DenseCLIP: {_listed(unknown)}.")
    return renamed


def source_name(name: str, table: list[tuple[str, str]]) -> str:
    """The name that `rename` would have made `name` of: what stands in the user's own file, for errors."""
    for old, new in table:
        pattern = re.escape(new).replace(r"\{T\}", "").replace(r"\{qkv\}", "[qkv]")
        pattern = re.sub(r"\\\{\\\\(\d)\\\}", r"(?P<stage\1>\\d)", pattern)  # {\1}: a stage, counted from 0
        pattern = re.sub(r"\\\\(\d)", r"(?P<group\1>.+)", pattern)  # \1
        if match := re.fullmatch(pattern, name):
            values = {
                int(key[-1]): str(int(value) + 1) if key[:-1] == "stage" else value
                for key, value in match.groupdict().items()
            }
            for index in sorted(values):
                old = re.sub(r"\((?:[^()\\]|\\.)*\)", values[index], old, count=1)
            return old.replace("\\", "")
    return name


def _image_table(prefix: str, names: Iterable[str]) -> list[tuple[str, str]]:
    is_vit = any(name.startswith((f"{prefix}class_embedding", f"{prefix}transformer.")) for name in names)
    return _prefixed(prefix, _VIT if is_vit else _RESNET)


def _clip_table(names: Iterable[str]) -> list[tuple[str, str]]:
    return _image_table("visual.", names) + _TEXT


def _denseclip_table(names: Iterable[str]) -> list[tuple[str, str]]:
    return _image_table("backbone.", names) + _prefixed("text_encoder.", _TEXT) + _DECODER


def without_unused(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CLIP's tensors that dense prediction has a use for."""
    return {name: tensor for name, tensor in state_dict.items() if not re.fullmatch(UNUSED_CLIP_TENSORS, name)}


def convert_clip_state_dict(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """OpenAI's or open_clip's names -> ours."""
    return rename(without_unused(state_dict), _clip_table(state_dict))


def convert_denseclip_state_dict(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of the published DenseCLIP or CLIP + Semantic FPN -> ours."""
    return rename(state_dict, _denseclip_table(state_dict))


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def load_exactly(
    model: PreTrainedModel,
    state_dict: dict[str, torch.Tensor],
    may_be_new: tuple[str, ...] = (),
    may_be_left: tuple[str, ...] = (),
    describe: Callable[[str], str] = str,
) -> None:
    """
    Copy `state_dict` into `model`, accounting for every tensor on both sides. Only `num_batches_tracked` may be
    absent, a counter of BatchNorm that no result depends on.

    Args:
        may_be_new: Prefixes of tensors that the model may keep as they were initialised.
        may_be_left: Prefixes of tensors that the model may have no place for.
        describe: How an error calls a tensor.

    Raises:
        ValueError: names what is missing, unexpected or of another shape. The model is untouched then.
    """
    own = model.state_dict()
    missing = [
        describe(name)
        for name in own.keys() - state_dict.keys()
        if not name.startswith(may_be_new) and not name.endswith("num_batches_tracked")
    ]
    unexpected = [describe(name) for name in state_dict.keys() - own.keys() if not name.startswith(may_be_left)]
    misshapen = [
        f"{describe(name)} ({tuple(state_dict[name].shape)}, the model has {tuple(own[name].shape)})"
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
        raise pickle.UnpicklingError(f"The archive asks for {module}.{name}, which no weights need.")

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
        root = archive.namelist()[0].split("/", maxsplit=1)[0]
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
        if not isinstance(error, pickle.UnpicklingError):
            reason = f"{type(error).__name__} {str(error).split(chr(10))[0]}".rstrip(". ")
        elif asked := re.search(r"GLOBAL (\S+)|asks for (\S+),", str(error)):
            reason = f"it asks for {asked[1] or asked[2]}, which no weights need"
        else:
            reason = "it is no file of tensors"  # torch's message would advise to load the pickle after all
        raise ValueError(
            f"{path} could not be read as weights: {reason}. Safetensors, files of tensors saved by torch, and"
            " OpenAI's TorchScript archives can be. Nothing that a pickle asks for is executed."
        ) from error


def _num_layers(names: Iterable[str], pattern: str) -> int:
    """How many indices the group of `pattern` takes in `names`."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _size(state_dict: dict[str, torch.Tensor], name: str, like: str, dim: int = 0) -> int:
    """
    Size of the tensor `name` along `dim`; or of most that match `like` too, so that a misshapen one does not pass for
    the architecture but is found by `load_exactly`.
    """
    sizes = Counter(tensor.shape[dim] for key, tensor in state_dict.items() if re.fullmatch(like, key))
    return sizes.most_common(1)[0][0] if sizes else state_dict[name].shape[dim]


def _text_config(state_dict: dict[str, torch.Tensor], hidden_act: str = "quick_gelu") -> dict:
    layers = r"text_encoder\.encoder\.layers\.(\d+)\."
    hidden_size = _size(state_dict, "text_encoder.final_layer_norm.weight", r"text_encoder\..+norm\d?\.weight")
    return {
        "vocab_size": state_dict["text_encoder.embeddings.token_embedding.weight"].shape[0],
        "hidden_size": hidden_size,
        "intermediate_size": _size(
            state_dict, "text_encoder.encoder.layers.0.mlp.fc1.weight", layers + r"mlp\.fc1\..+"
        ),
        "num_hidden_layers": _num_layers(state_dict, layers),
        "num_attention_heads": max(hidden_size // CLIP_HEAD_DIM, 1),
        "max_position_embeddings": state_dict[TEXT_POSITIONS].shape[0],
        "projection_dim": _projection_dim(state_dict),
        "hidden_act": hidden_act,
    }


def _projection_dim(state_dict: dict[str, torch.Tensor]) -> int:
    """Width of the joint space: of both towers' projections and, in a published checkpoint, of the context decoder."""
    ends = r"(text|image_encoder\.visual)_projection\.weight|image_encoder\.attention_pool\.out_proj\..+"
    decoder = r"context_decoder\.(gamma|(memory_norm_in|text_norm|out_proj)\..+)"
    return _size(state_dict, "text_projection.weight", f"{ends}|{decoder}")


def _vision_config(state_dict: dict[str, torch.Tensor], hidden_act: str = "quick_gelu") -> dict:
    vit = "image_encoder.vision_model."
    if any(name.startswith(vit) for name in state_dict):
        layers = r"image_encoder\.vision_model\.encoder\.layers\.(\d+)\."
        _, num_channels, patch_size, _ = state_dict[f"{vit}embeddings.patch_embedding.weight"].shape
        hidden_size = _size(state_dict, f"{vit}embeddings.class_embedding", layers + r"layer_norm\d\.weight")
        num_positions = state_dict[f"{vit}embeddings.position_embedding.weight"].shape[0]
        return {
            "model_type": "clip_vision_model",
            "hidden_size": hidden_size,
            "intermediate_size": _size(state_dict, f"{vit}encoder.layers.0.mlp.fc1.weight", layers + r"mlp\.fc1\..+"),
            "num_hidden_layers": _num_layers(state_dict, layers),
            "num_attention_heads": max(hidden_size // CLIP_HEAD_DIM, 1),
            "num_channels": num_channels,
            "patch_size": patch_size,
            "image_size": math.isqrt(num_positions - 1) * patch_size,
            "hidden_act": hidden_act,
        }
    backbone = r"image_encoder\.backbone\.stages\."
    config = {
        "model_type": DenseCLIPResNetConfig.model_type,
        "embedding_size": _size(
            state_dict,
            "image_encoder.backbone.stages.0.blocks.0.conv1.weight",
            backbone + r"0\.blocks\.\d+\.(conv|norm)[12]\.(weight|bias)",
        ),
        "depths": tuple(_num_layers(state_dict, rf"{backbone}{stage}\.blocks\.(\d+)\.") for stage in range(4)),
    }
    if "image_encoder.attention_pool.position_embedding" in state_dict:
        num_positions = state_dict["image_encoder.attention_pool.position_embedding"].shape[0]
        config["image_size"] = math.isqrt(num_positions - 1) * 32
    return config


def infer_clip_config(state_dict: dict[str, torch.Tensor], open_clip: dict | None = None) -> dict:
    """
    Fields of [`DenseCLIPConfig`] that CLIP's weights under our names show. `open_clip` is the `model_cfg` of
    open_clip, which tells what shapes do not: heads and activation. Without it they are OpenAI's.
    """
    # Of open_clip's own models only those that say so have OpenAI's activation.
    hidden_act = "quick_gelu" if open_clip is None or open_clip.get("quick_gelu") else "gelu"
    text_config = _text_config(state_dict, hidden_act)
    vision_config = _vision_config(state_dict, hidden_act)
    if open_clip is not None:
        text_config["num_attention_heads"] = open_clip["text_cfg"].get("heads", OPEN_CLIP_TEXT_HEADS)
        is_vit = vision_config["model_type"] == "clip_vision_model"
        width = vision_config["hidden_size"] if is_vit else 32 * vision_config["embedding_size"]
        vision_config["num_attention_heads"] = width // open_clip["vision_cfg"].get("head_width", CLIP_HEAD_DIM)
    return {
        "text_config": text_config,
        "vision_config": vision_config,
        "projection_dim": _projection_dim(state_dict),
    }


def infer_denseclip_config(state_dict: dict[str, torch.Tensor]) -> dict:
    """
    Fields of [`DenseCLIPConfig`] that a published checkpoint under our names shows, with the paper's protocol: sliding
    windows of the training size. Its text tower is its own; what shapes cannot show (heads) is as published.
    """
    use_language = any(name.startswith(("prompts.", "context_decoder.", "text_encoder.")) for name in state_dict)
    vision_config = _vision_config(state_dict)
    is_vit = vision_config["model_type"] == "clip_vision_model"
    image_size = vision_config.get("image_size", 512)
    fields = {
        "vision_config": vision_config,
        "use_language": use_language,
        "fit_to_grid": False,
        "neck_hidden_size": _size(state_dict, "neck.lateral_convs.0.weight", r"neck\..+"),
        "decode_head_hidden_size": _size(
            state_dict, "decode_head.classifier.weight", r"decode_head\.levels\..+\.(weight|bias)"
        ),
        "inference_mode": "slide",
        "window_size": (image_size, image_size),
        "window_stride": (image_size * 2 // 3, image_size * 2 // 3),
    }
    if is_vit:
        fields["class_embedding_scale"] = 2
        # The published baseline has none.
        fields["drop_path_rate"] = 0.1 if use_language else 0.0
    else:
        # The published attention pool has 32 heads whatever its width.
        vision_config["num_attention_heads"] = 32
    if use_language:
        fields |= {
            "text_config": _text_config(state_dict),
            "projection_dim": _projection_dim(state_dict),
            "num_context_tokens": state_dict["prompts.contexts"].shape[1],
            "context_decoder_hidden_size": _size(
                state_dict, "context_decoder.text_proj.weight", r"context_decoder\.layers\..+_norm\..+"
            ),
            "context_decoder_intermediate_size": _size(
                state_dict, "context_decoder.layers.0.fc1.weight", r"context_decoder\.layers\.\d+\.fc1\..+"
            ),
            "context_decoder_num_hidden_layers": _num_layers(state_dict, r"context_decoder\.layers\.(\d+)\."),
        }
    return fields


@dataclass
class SourceWeights:
    """
    Weights as they were read: under our names and in float32.

    Args:
        form (`str`): What the source is, in words.
        state_dict (`dict[str, torch.Tensor]`): Tensors by our names.
        table (`list[tuple[str, str]]`): What they were renamed by.
        fields (`dict`): Fields of [`DenseCLIPConfig`] that they show.
        is_clip (`bool`): Whether they are CLIP's alone, without prompts, decoder and head.
        class_names (`tuple[str, ...]`, *optional*): Classes of the head, where the source names them.
        new_modules (`tuple[str, ...]`): Prefixes of what they do not bring, if they are CLIP's, and training makes.
    """

    form: str
    state_dict: dict[str, torch.Tensor]
    table: list[tuple[str, str]]
    fields: dict | None = None
    is_clip: bool = True
    class_names: tuple[str, ...] | None = None
    new_modules: tuple[str, ...] = NEW_MODULES

    def describe(self, name: str) -> str:
        """One of our names, with the one in the source."""
        original = source_name(name, self.table)
        return name if original == name else f"{original} (here {name})"


def read_source(source: str | os.PathLike) -> SourceWeights:
    """
    Weights of CLIP or of a published DenseCLIP in any form that `from_clip_pretrained` and `training/convert.py` take.

    Raises:
        FileNotFoundError: for a weight file that is not there.
        ValueError: for weights of something else; names tensors.
    """
    path = Path(source)
    if path.is_file():
        return _read_file(path, path.with_name(OPEN_CLIP_CONFIG))
    if path.suffix in WEIGHT_SUFFIXES:
        raise FileNotFoundError(f"{path} does not exist.")
    weights = find_file(source, OPEN_CLIP_WEIGHTS)
    if weights is not None:
        return _read_file(Path(weights), find_file(source, OPEN_CLIP_CONFIG))
    return _read_clip_model(source)


def _read_file(path: Path, open_clip_config: str | os.PathLike | None) -> SourceWeights:
    checkpoint = read_checkpoint(path)
    published = checkpoint if isinstance(checkpoint, dict) else {}
    meta, state_dict = published.get("meta") or {}, published.get("state_dict", published)
    if not state_dict or not all(isinstance(tensor, torch.Tensor) for tensor in state_dict.values()):
        raise ValueError(f"{path} holds no tensors by name, nor a `state_dict` of such; it is no checkpoint.")

    if "backbone.conv1.weight" in state_dict:
        weights = SourceWeights(
            form="published checkpoint",
            state_dict=convert_denseclip_state_dict(state_dict),
            table=_denseclip_table(state_dict),
            is_clip=False,
            # mmseg's ADE20K has names such as "bed ".
            class_names=tuple(name.strip() for name in meta["CLASSES"]) if meta.get("CLASSES") else None,
        )
    elif "visual.conv1.weight" in state_dict and "token_embedding.weight" in state_dict:
        weights = SourceWeights(
            form="CLIP with OpenAI's names",
            state_dict=convert_clip_state_dict(state_dict),
            table=_clip_table(state_dict),
        )
    else:
        raise ValueError(
            f"{path} holds neither CLIP ('visual.conv1.weight', 'token_embedding.weight') nor a published DenseCLIP"
            f" ('backbone.conv1.weight'); its first tensors are {_listed(list(state_dict), 3)}."
        )

    open_clip = None
    if open_clip_config is not None and Path(open_clip_config).is_file():
        open_clip = json.loads(Path(open_clip_config).read_text(encoding="utf-8"))["model_cfg"]
    try:
        if weights.is_clip:
            weights.fields = infer_clip_config(weights.state_dict, open_clip)
        else:
            weights.fields = infer_denseclip_config(weights.state_dict)
    except KeyError as error:
        raise ValueError(f"{path} lacks the tensor {weights.describe(error.args[0])}.") from error
    if not weights.is_clip:
        weights.form = "published DenseCLIP" if weights.fields["use_language"] else "published CLIP + Semantic FPN"
        if meta.get("PALETTE"):
            weights.fields["palette"] = tuple(tuple(color) for color in meta["PALETTE"])
    return weights


def _read_clip_model(source: str | os.PathLike) -> SourceWeights:
    model_type = PreTrainedConfig.get_config_dict(source)[0].get("model_type")
    if model_type != CLIPModel.config_class.model_type:
        raise ValueError(f"{source} holds a model of type {model_type!r}; the weights must be CLIP's ('clip').")
    # A tensor that is missing or of another shape would be made up with no more than a warning.
    clip, loading = CLIPModel.from_pretrained(
        source, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
    )
    misshapen = [
        f"{name} ({tuple(found)}, the config says {tuple(expected)})"
        for name, found, expected in loading["mismatched_keys"]
    ]
    problems = [
        f"{len(names)} {what}: {_listed(sorted(names))}"
        for what, names in (
            ("missing", [name for name in loading["missing_keys"] if not re.fullmatch(UNUSED_CLIP_TENSORS, name)]),
            ("unexpected", loading["unexpected_keys"]),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise ValueError(f"The weights of {source} do not fit its config. Tensors {'; '.join(problems)}.")
    return SourceWeights(
        form="CLIP of Transformers",
        state_dict=rename(without_unused(clip.state_dict()), _CLIP_MODEL),
        table=_CLIP_MODEL,
        fields={
            "text_config": clip.config.text_config.to_dict(),
            "vision_config": clip.config.vision_config.to_dict(),
            "projection_dim": clip.config.projection_dim,
        },
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
        has_one = find_file(beside, "tokenizer.json") or find_file(beside, "vocab.json")
        tokenizer = beside if has_one else None
    return load_clip_tokenizer(DEFAULT_TOKENIZER if tokenizer is None else tokenizer)


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
        if tower == "vision_config" and other.get("model_type", own["model_type"]) != own["model_type"]:
            raise ValueError(
                f"The weights have an image encoder of type {own['model_type']!r}, the config asks for"
                f" {other['model_type']!r}. Take the config of the same architecture."
            )
        fields[tower] = {**own, **other}
    return fields


def with_image_backbone(weights: SourceWeights | None, image: str | os.PathLike, asked: dict) -> SourceWeights:
    """
    The text tower of `weights` beside a backbone of Transformers with its own weights.

    Args:
        weights: CLIP's, or `None` for a model without language.
        image: Directory or Hub id of the backbone, or of a model that is built on it.
        asked: Fields of [`DenseCLIPConfig`]; those of its `vision_config` go before the backbone's own.

    Raises:
        ValueError: for a model that is no backbone, or whose weights do not fit; names tensors.
    """
    own = PreTrainedConfig.get_config_dict(image)[0]
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
    state_dict = load_backbone(image, vision_config, layout)
    text_state_dict = {} if weights is None else weights.state_dict
    return SourceWeights(
        form=f"{own['model_type']} backbone" + ("" if weights is None else f" and text tower of {weights.form}"),
        state_dict={
            **{name: tensor for name, tensor in text_state_dict.items() if not name.startswith("image_encoder.")},
            **{f"image_encoder.backbone.{name}": tensor for name, tensor in state_dict.items()},
        },
        table=[(r"(.+)", r"image_encoder.backbone.\1"), *([] if weights is None else weights.table)],
        fields=fields,
        new_modules=(*NEW_MODULES, "image_encoder.attention_pool."),
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
    if clip is not None and (use_language or image is None):
        weights = read_source(clip)
        if not weights.is_clip:
            raise ValueError(
                f"{clip} is a {weights.form}, which has a head and classes of its own. `python -m training.convert`"
                " makes a checkpoint of it that `from_pretrained` loads."
            )
    if image is not None:
        weights = with_image_backbone(weights, image, asked)
    if use_language:
        tokenizer = load_tokenizer(tokenizer, beside=clip)
    return build_model(model_class, weights, merge_fields(weights.fields, asked), class_names, tokenizer)


def build_model(
    model_class: type[PreTrainedModel],
    weights: SourceWeights,
    fields: dict,
    class_names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase | None,
) -> PreTrainedModel:
    """
    A model of the architecture `fields` for these classes, with `weights`; what CLIP does not bring is initialised.

    Args:
        fields: As `merge_fields` returns them.
        tokenizer: CLIP's. Not needed without language.

    Raises:
        ValueError: for weights that do not fit; names every tensor.
    """
    if not class_names:
        raise ValueError("`class_names` is empty; a segmentation model needs at least one class.")
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
    load_exactly(
        model,
        fit_positions(weights.state_dict, model.state_dict()),
        may_be_new=weights.new_modules if weights.is_clip else (),
        # CODEPATH: the baseline leaves the language side of CLIP behind
        may_be_left=LANGUAGE_MODULES if weights.is_clip and not use_language else (),
        describe=weights.describe,
    )
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


__all__ = ["build_from_clip", "convert_clip_state_dict", "convert_denseclip_state_dict", "read_checkpoint"]
