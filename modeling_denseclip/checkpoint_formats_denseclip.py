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
The formats that weights of CLIP and of the published DenseCLIP come in: their names as ours, and the architecture.

A further format of files is a table of names and an entry of `FORMATS`.
"""

import functools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import CLIPModel

from .configuration_denseclip import DenseCLIPConfig, DenseCLIPResNetConfig, is_color
from .loading_denseclip import check_number_types, find_file, naming_checkpoint, read_heads
from .modeling_denseclip_attention import CLIP_HEAD_DIM
from .weight_files_denseclip import find_weights, listed, read_checkpoint


OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
OPEN_CLIP_CONFIG = "open_clip_config.json"
# Heads of a text tower of open_clip whose config does not name them. Those of OpenAI are CLIP_HEAD_DIM wide.
OPEN_CLIP_TEXT_HEADS = 8
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors")
TEXT_POSITIONS = "text_encoder.embeddings.position_embedding.weight"
# Prefixes of modules that CLIP does not bring, so that training has to make them.
NEW_MODULES = (
    "prompts.",
    "context_decoder.",
    "neck.",
    "decode_head.",
    "auxiliary_head.",
    "image_encoder.pyramid.",
)

# Each line of a table is a name in the source and our name for it. `#` is a number and `*` the rest of a name; both
# sides have them in the same order, so that errors can read a line from right to left. Where several lines fit a name,
# its tensor is cut into as many equal parts, in the order of the lines. ".T" at the end of our name: a matrix is
# transposed. An empty name of ours: dense prediction has no use for the tensor.
Table = list[tuple[str, str]]


def _within(theirs: str, ours: str, table: Table) -> Table:
    """The lines of `table`, for modules of these prefixes."""
    return [(theirs + their_name, ours + our_name) for their_name, our_name in table]


_LAYERS = _within(
    "transformer.resblocks.",
    "encoder.layers.",
    [
        ("#.ln_#.*", "#.layer_norm#.*"),
        ("#.attn.out_proj.*", "#.self_attn.out_proj.*"),
        *(("#.attn.in_proj_*", f"#.self_attn.{part}_proj.*") for part in "qkv"),
        ("#.mlp.c_fc.*", "#.mlp.fc1.*"),
        ("#.mlp.c_proj.*", "#.mlp.fc2.*"),
    ],
)
_TEXT = [
    ("text_projection", "text_projection.weight.T"),
    ("token_embedding.weight", "text_encoder.embeddings.token_embedding.weight"),
    ("positional_embedding", "text_encoder.embeddings.position_embedding.weight"),
    ("ln_final.*", "text_encoder.final_layer_norm.*"),
    *_within("", "text_encoder.", _LAYERS),
]
_VIT = [
    ("proj", "visual_projection.weight.T"),
    ("class_embedding", "vision_model.embeddings.class_embedding"),
    ("positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    ("ln_pre.*", "vision_model.pre_layrnorm.*"),
    ("ln_post.*", "vision_model.post_layernorm.*"),
    *_within("", "vision_model.", _LAYERS),
    # The published pyramid, in the order of its nn.Sequential.
    ("fpn1.0.*", "pyramid.norms.0.*"),
    ("fpn1.1.*", "pyramid.upsample4_first.*"),
    ("fpn1.2.*", "pyramid.upsample4_norm.*"),
    ("fpn1.4.*", "pyramid.upsample4_second.*"),
    ("fpn2.0.*", "pyramid.norms.1.*"),
    ("fpn2.1.*", "pyramid.upsample2.*"),
    ("fpn3.*", "pyramid.norms.2.*"),
    ("fpn4.0.*", "pyramid.norms.3.*"),
]
_BLOCK = [
    ("#.conv#.*", "#.conv#.*"),
    ("#.bn#.*", "#.norm#.*"),
    ("#.downsample.0.*", "#.shortcut_conv.*"),
    ("#.downsample.1.*", "#.shortcut_norm.*"),
]
_RESNET = [
    ("conv#.*", "backbone.stem.conv#.*"),
    ("bn#.*", "backbone.stem.norm#.*"),
    *(
        line
        for stage in range(4)
        for line in _within(f"layer{stage + 1}.", f"backbone.stages.{stage}.blocks.", _BLOCK)
    ),
    ("attnpool.positional_embedding", "attention_pool.position_embedding"),
    ("attnpool.c_proj.*", "attention_pool.out_proj.*"),
    *((f"attnpool.{part}_proj.*", f"attention_pool.{part}_proj.*") for part in "qkv"),
]
_ATTENTION = [
    ("proj.*", "out_proj.*"),
    *((f"{part}_proj.*", f"{part}_proj.*") for part in "qkv"),
]
_DECODER_LAYER = [
    ("norm1.*", "self_attention_norm.*"),
    ("norm2.*", "cross_attention_norm.*"),
    ("norm3.*", "mlp_norm.*"),
    ("mlp.0.*", "fc1.*"),
    ("mlp.3.*", "fc2.*"),
    *_within("self_attn.", "self_attention.", _ATTENTION),
    *_within("cross_attn.", "cross_attention.", _ATTENTION),
]
_CONTEXT_DECODER = [
    ("memory_proj.0.*", "memory_norm_in.*"),
    ("memory_proj.1.*", "memory_proj.*"),
    ("memory_proj.2.*", "memory_norm_out.*"),
    ("text_proj.0.*", "text_norm.*"),
    ("text_proj.1.*", "text_proj.*"),
    ("out_proj.0.*", "out_norm.*"),
    ("out_proj.1.*", "out_proj.*"),
    *_within("decoder.#.", "layers.#.", _DECODER_LAYER),
]
_HEAD = [
    ("contexts", "prompts.contexts"),
    ("gamma", "context_decoder.gamma"),
    *_within("context_decoder.", "context_decoder.", _CONTEXT_DECODER),
    ("neck.lateral_convs.#.conv.*", "neck.lateral_convs.#.*"),
    ("neck.fpn_convs.#.conv.*", "neck.output_convs.#.*"),
    ("decode_head.conv_seg.*", "decode_head.classifier.*"),
    # Every second child of a scale head is an upsampling without weights.
    *((f"decode_head.scale_heads.#.{2 * i}.conv.*", f"decode_head.levels.#.{i}.conv.*") for i in range(3)),
    *((f"decode_head.scale_heads.#.{2 * i}.bn.*", f"decode_head.levels.#.{i}.norm.*") for i in range(3)),
]
# Scalars of CLIP's contrastive loss and of its archive, and the causal mask.
_UNUSED = [
    (name, "")
    for name in ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size", "*.attn_mask")
]
_TRANSFORMERS_CLIP = [
    ("text_model.*", "text_encoder.*"),
    ("vision_model.*", "image_encoder.vision_model.*"),
    ("visual_projection.weight", "image_encoder.visual_projection.weight"),
    ("text_projection.weight", "text_projection.weight"),
    *_UNUSED,
]


def _image_table(prefix: str, names: Iterable[str]) -> Table:
    is_vit = any(name.startswith((f"{prefix}class_embedding", f"{prefix}transformer.")) for name in names)
    return _within(prefix, "image_encoder.", _VIT if is_vit else _RESNET)


def _clip_table(names: Iterable[str]) -> Table:
    return _image_table("visual.", names) + _TEXT + _UNUSED


def _denseclip_table(names: Iterable[str]) -> Table:
    return _image_table("backbone.", names) + _within("text_encoder.", "", _TEXT) + _HEAD


class Format(NamedTuple):
    """A format of files."""

    title: str  # what a file of it is, for errors
    form: str  # what weights of it are
    marks: tuple[str, ...]  # tensors that every file of it has, the first layer first
    make_table: Callable[[Iterable[str]], Table]  # from the names in a file
    is_clip: bool  # whether it has CLIP's weights alone, without prompts, decoder and head


FORMATS = (
    Format(
        "CLIP",
        "CLIP with OpenAI's names",
        ("visual.conv1.weight", "token_embedding.weight"),
        _clip_table,
        is_clip=True,
    ),
    Format(
        "a published DenseCLIP", "published DenseCLIP", ("backbone.conv1.weight",), _denseclip_table, is_clip=False
    ),
)


@functools.cache
def _pattern(before: str) -> re.Pattern:
    return re.compile(re.escape(before).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)"))


def translate(name: str, table: Table) -> list[str]:
    """What the lines of `table` that a name fits make of it."""
    translated = []
    for before, after in table:
        if match := _pattern(before).fullmatch(name):
            translated.append(after.replace("#", "{}").replace("*", "{}").format(*match.groups()))
    return translated


def rename(state_dict: dict[str, torch.Tensor], table: Table) -> dict[str, torch.Tensor]:
    """
    `state_dict` under our names, in float32, or in float64 where it was.

    Raises:
        ValueError: for tensors that no line of `table` knows; names them.
    """
    renamed, unknown = {}, []
    for name, tensor in state_dict.items():
        new_names = translate(name, table)
        if not new_names:
            unknown.append(name)
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            tensor = tensor.float()
        parts = [tensor]
        if len(new_names) > 1:
            parts = [part.clone() for part in torch.atleast_1d(tensor).tensor_split(len(new_names))]
        for new_name, part in zip(new_names, parts, strict=False):
            if new_name.endswith(".T"):
                part = part.mT.contiguous() if part.ndim == 2 else part
            if new_name:
                renamed[new_name.removesuffix(".T")] = part
    if unknown:
        raise ValueError(f"{len(unknown)} tensors of the checkpoint have no place in DenseCLIP: {listed(unknown)}.")
    return renamed


def convert_denseclip_state_dict(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of the published DenseCLIP or CLIP + Semantic FPN -> ours."""
    return rename(state_dict, _denseclip_table(state_dict))


def _num_layers(names: Iterable[str], pattern: str) -> int:
    """How many layers the names count: the different numbers that the group of `pattern` matches in them."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _size(state_dict: dict[str, torch.Tensor], name: str, like: str) -> int:
    """
    First size of the tensor `name`; or of most that match `like` too, so that a misshapen one does not pass for the
    architecture but is found by `load_exactly`.
    """
    sizes = Counter(tensor.shape[0] for key, tensor in state_dict.items() if re.fullmatch(like, key))
    return sizes.most_common(1)[0][0] if sizes else state_dict[name].shape[0]


def _tower(state_dict: dict[str, torch.Tensor], prefix: str, hidden_size: int, hidden_act: str) -> dict:
    """What the config of both towers has."""
    layers = rf"{re.escape(prefix)}encoder\.layers\.(\d+)\."
    return {
        "hidden_size": hidden_size,
        "intermediate_size": _size(state_dict, f"{prefix}encoder.layers.0.mlp.fc1.weight", layers + r"mlp\.fc1\..+"),
        "num_hidden_layers": _num_layers(state_dict, layers),
        "num_attention_heads": max(hidden_size // CLIP_HEAD_DIM, 1),
        "hidden_act": hidden_act,
    }


def _text_config(state_dict: dict[str, torch.Tensor], hidden_act: str = "quick_gelu") -> dict:
    hidden_size = _size(state_dict, "text_encoder.final_layer_norm.weight", r"text_encoder\..+norm\d?\.weight")
    # The joint space is as wide as the ends of both towers and, in a published checkpoint, of the context decoder.
    ends = r"(text|image_encoder\.visual)_projection\.weight|image_encoder\.attention_pool\.out_proj\..+"
    decoder = r"context_decoder\.(gamma|(memory_norm_in|text_norm|out_proj)\..+)"
    return {
        "vocab_size": state_dict["text_encoder.embeddings.token_embedding.weight"].shape[0],
        **_tower(state_dict, "text_encoder.", hidden_size, hidden_act),
        "max_position_embeddings": state_dict[TEXT_POSITIONS].shape[0],
        "projection_dim": _size(state_dict, "text_projection.weight", f"{ends}|{decoder}"),
    }


def _vision_config(state_dict: dict[str, torch.Tensor], hidden_act: str = "quick_gelu") -> dict:
    vit = "image_encoder.vision_model."
    if any(name.startswith(vit) for name in state_dict):
        _, num_channels, patch_size, _ = state_dict[f"{vit}embeddings.patch_embedding.weight"].shape
        norms = r"image_encoder\.vision_model\.encoder\.layers\.\d+\.layer_norm\d\.weight"
        hidden_size = _size(state_dict, f"{vit}embeddings.class_embedding", norms)
        num_positions = state_dict[f"{vit}embeddings.position_embedding.weight"].shape[0]
        return {
            "model_type": "clip_vision_model",
            **_tower(state_dict, vit, hidden_size, hidden_act),
            "num_channels": num_channels,
            "patch_size": patch_size,
            "image_size": math.isqrt(num_positions - 1) * patch_size,
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
    # Models of open_clip have the exact GELU, unless their config says "quick_gelu", which is OpenAI's.
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
        "projection_dim": text_config["projection_dim"],
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
        text_config = _text_config(state_dict)
        fields |= {
            "text_config": text_config,
            "projection_dim": text_config["projection_dim"],
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
    """Weights as they were read: under our names and in float32, or in float64 where they were."""

    form: str  # what the source is, in words
    state_dict: dict[str, torch.Tensor]
    table: Table  # what the tensors were renamed by
    fields: dict | None = None  # of [`DenseCLIPConfig`], as the weights show them
    is_clip: bool = True  # whether they are CLIP's alone, without prompts, decoder and head
    class_names: tuple[str, ...] | None = None  # of the head, where the source names them
    new_modules: tuple[str, ...] = NEW_MODULES  # prefixes of what CLIP's weights do not bring, and training makes
    dtype: torch.dtype = torch.float32  # the floating-point type that they had
    copies: tuple[str, ...] = ()  # names of averaged copies beside them, which were left out

    def source_name(self, name: str) -> str:
        """What the source calls one of our tensors; also one that it lacks, as most that an error has to name."""
        reversed_table = [(ours.removesuffix(".T"), theirs) for theirs, ours in self.table]
        return next(iter(translate(name, reversed_table)), name)

    def describe(self, name: str) -> str:
        """One of our names, with the one in the source."""
        original = self.source_name(name)
        return name if original == name else f"{original} (here {name})"


def read_source(source: str | os.PathLike, dtype: torch.dtype | str = torch.float32, **hub_kwargs) -> SourceWeights:
    """
    Weights of CLIP or of a published DenseCLIP in any form that `from_clip_pretrained` and `training/convert.py` take:
    in a file, a directory, or a repository of the Hub. `dtype`, see `reading_dtype`, is for a CLIPModel of
    Transformers.

    Raises:
        FileNotFoundError: for a weight file that is not there.
        ValueError: for weights of something else; names tensors.
    """
    path = Path(source)
    if path.is_file():
        return _read_file(path, path.with_name(OPEN_CLIP_CONFIG))
    if path.suffix in WEIGHT_SUFFIXES:
        raise FileNotFoundError(f"{path} does not exist.")
    weights = find_file(source, OPEN_CLIP_WEIGHTS, **hub_kwargs)
    if weights is not None:
        return _read_file(Path(weights), find_file(source, OPEN_CLIP_CONFIG, **hub_kwargs))
    return _read_clip_model(source, dtype, **hub_kwargs)


def _read_file(path: Path, open_clip_config: str | os.PathLike | None) -> SourceWeights:
    first_layers = [file_format.marks[0] for file_format in FORMATS]
    state_dict, meta, copies = find_weights(read_checkpoint(path), path, first_layers)
    file_format = next((known for known in FORMATS if state_dict.keys() >= set(known.marks)), None)
    if file_format is None:
        known = " nor ".join(f"{known.title} ({', '.join(map(repr, known.marks))})" for known in FORMATS)
        raise ValueError(f"{path} holds neither {known}; its first tensors are {listed(list(state_dict), 3)}.")
    table = file_format.make_table(state_dict)
    weights = SourceWeights(
        form=file_format.form,
        state_dict=rename(state_dict, table),
        table=table,
        is_clip=file_format.is_clip,
        class_names=None if file_format.is_clip else _class_names(meta, path),
        dtype=widest_dtype(state_dict.values()),
        copies=copies,
    )
    open_clip = None
    if open_clip_config is not None and Path(open_clip_config).is_file():
        open_clip = _read_open_clip_config(Path(open_clip_config))
    try:
        if weights.is_clip:
            weights.fields = infer_clip_config(weights.state_dict, open_clip)
        else:
            weights.fields = infer_denseclip_config(weights.state_dict)
    except KeyError as error:
        raise ValueError(f"{path} lacks the tensor {weights.describe(error.args[0])}.") from error
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path} holds tensors of other shapes than a CLIP has ({error}).") from error
    if not weights.is_clip:
        if not weights.fields["use_language"]:
            weights.form = "published CLIP + Semantic FPN"
        if (palette := _palette(meta, path)) is not None:
            weights.fields["palette"] = palette
    return weights


def widest_dtype(tensors: Iterable[torch.Tensor]) -> torch.dtype:
    """The widest floating-point type among tensors."""
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).bits, default=torch.float32)


def _list_of_mmseg(meta: dict, key: str):
    """What mmseg has written into `meta`, an array or a list; `None` for nothing."""
    values = meta.get(key)
    values = values.tolist() if isinstance(values, np.ndarray) else values
    return None if values in ([], ()) else values


def _class_names(meta: dict, path: Path) -> tuple[str, ...] | None:
    """The classes that mmseg writes into `meta`, if it does."""
    names = _list_of_mmseg(meta, "CLASSES")
    if names is None:
        return None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} has a `meta['CLASSES']` ({type(names).__name__}) that is no list of names.")
    return tuple(name.strip() for name in names)  # mmseg's ADE20K has names such as "bed "


def _palette(meta: dict, path: Path) -> tuple[tuple[int, ...], ...] | None:
    """The colours that mmseg writes into `meta`, if it does: random ones, in an array, for data sets without."""
    palette = _list_of_mmseg(meta, "PALETTE")
    if palette is None:
        return None
    is_rows = isinstance(palette, list | tuple) and all(isinstance(color, list | tuple) for color in palette)
    if not is_rows or not all(is_color(color) for color in palette):
        raise ValueError(
            f"{path} has a `meta['PALETTE']` that is no list of colours, red, green and blue from 0 to 255."
        )
    return tuple(tuple(color) for color in palette)


def _read_open_clip_config(path: Path) -> dict:
    try:
        model_cfg = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
        if isinstance(model_cfg["text_cfg"], dict) and isinstance(model_cfg["vision_cfg"], dict):
            return model_cfg
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{path} is no config of open_clip: a `model_cfg` with `text_cfg` and `vision_cfg`.")


def reading_dtype(dtype: torch.dtype | str | dict | None) -> torch.dtype | str:
    """
    The type that weights are read in, for a model of type `dtype`: float64 for float64, which float32 would round;
    "auto" as it is, for the type in the file; and float32 for all others.
    """
    if dtype == "auto":
        return dtype
    return torch.float64 if dtype in (torch.float64, "float64", "double") else torch.float32


def _read_clip_model(source: str | os.PathLike, dtype: torch.dtype | str, **hub_kwargs) -> SourceWeights:
    model_type = DenseCLIPConfig.get_config_dict(source, **hub_kwargs)[0].get("model_type")
    if model_type != CLIPModel.config_class.model_type:
        raise ValueError(f"{source} holds a model of type {model_type!r}; the weights must be CLIP's ('clip').")
    # A tensor that is missing or of another shape would be made up with no more than a warning.
    with naming_checkpoint(source):
        clip, loading = CLIPModel.from_pretrained(
            source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **hub_kwargs
        )
        check_number_types(clip.state_dict(), read_heads(source, **hub_kwargs))
    misshapen = [
        f"{name} ({tuple(found)}, the config says {tuple(expected)})"
        for name, found, expected in loading["mismatched_keys"]
    ]
    problems = [
        f"{len(names)} {what}: {listed(sorted(names))}"
        for what, names in (
            ("missing", [name for name in loading["missing_keys"] if not translate(name, _UNUSED)]),
            ("unexpected", loading["unexpected_keys"]),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise ValueError(f"The weights of {source} do not fit its config. Tensors {'; '.join(problems)}.")
    return SourceWeights(
        form="CLIP of Transformers",
        state_dict=rename(clip.state_dict(), _TRANSFORMERS_CLIP),
        table=_TRANSFORMERS_CLIP,
        fields={
            "text_config": clip.config.text_config.to_dict(),
            "vision_config": clip.config.vision_config.to_dict(),
            "projection_dim": clip.config.projection_dim,
        },
        dtype=clip.dtype,
    )


__all__ = ["FORMATS", "SourceWeights", "convert_denseclip_state_dict", "read_source"]
