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

import dataclasses
import difflib
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

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import CLIPModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .class_names_denseclip import check_class_names, check_vocabulary, tokenize_class_names
from .configuration_denseclip import DenseCLIPConfig, DenseCLIPResNetConfig, is_color
from .loading_denseclip import (
    HUB_KWARGS,
    check_number_types,
    find_file,
    load_clip_tokenizer,
    naming_checkpoint,
    read_heads,
)
from .modeling_denseclip_attention import CLIP_HEAD_DIM
from .modeling_denseclip_backbone import load_backbone, measure_layout
from .resizing_denseclip import resize_grid


# CLIP has one tokenizer; this is where the Hub keeps it.
DEFAULT_TOKENIZER = "openai/clip-vit-base-patch16"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
OPEN_CLIP_CONFIG = "open_clip_config.json"
# OpenAI's heads have CLIP_HEAD_DIM in all of its towers. open_clip's text towers have 8 where its config says nothing.
OPEN_CLIP_TEXT_HEADS = 8

# Of CLIP, what dense prediction has no use for: scalars of its contrastive loss and of its archive, the causal mask.
UNUSED_CLIP_TENSORS = r"logit_scale|logit_bias|input_resolution|context_length|vocab_size|.+\.attn_mask"
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors")
# Under what training programs save the weights, beside the optimizer and more: mmcv, Lightning and open_clip,
# tutorials of PyTorch, DeiT and those after it, DeepSpeed, BasicSR. The first that is there is taken, and looked into
# again; averages are taken where there is nothing else.
NESTINGS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "params", "weights", "checkpoint")
AVERAGES = ("ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema")
# By these the weights are found, whatever they stand under: "module.", "model.", ...
FIRST_LAYERS = ("backbone.conv1.weight", "visual.conv1.weight")
# What torch.compile and FSDP put into names.
WRAPPERS = r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
# Of what `from_pretrained` takes: how weights are stored, and where.
PLACING_KWARGS = ("dtype", "device_map", "max_memory", "offload_folder", "offload_buffers", "quantization_config")
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
    `state_dict` under our names, in float32, or in float64 where it was.

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
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            tensor = tensor.float()
        if new_name.endswith("{T}"):
            renamed[new_name.removesuffix("{T}")] = tensor.mT.contiguous() if tensor.ndim == 2 else tensor
        elif "{qkv}" in new_name:
            for part, chunk in zip("qkv", torch.atleast_1d(tensor).tensor_split(3), strict=True):
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
    # Quantised weights are integers: copied, they would be weights of 0 to 255.
    mistyped = [
        f"{describe(name)} ({state_dict[name].dtype})"
        for name in own.keys() & state_dict.keys()
        if own[name].is_floating_point() and not state_dict[name].is_floating_point()
    ]
    diverged = [
        describe(name)
        for name in own.keys() & state_dict.keys()
        if state_dict[name].is_floating_point() and not state_dict[name].isfinite().all()
    ]
    problems = [
        f"{len(names)} {what}: {_listed(sorted(names))}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
            ("that are no floating-point numbers", mistyped),
            ("with NaN or infinity in them", diverged),
        )
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
        if math.prod(size) > storage.numel():
            raise ValueError(f"a tensor of shape {tuple(size)} with {storage.numel()} values")
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


class _NumpyType:
    """
    Stands in for `numpy.dtype` in a pickle: the type of numbers, truth values or text. Of any other, such as objects,
    which a pickle could make anything of, none is made.
    """

    def __init__(self, code, *_):
        if not isinstance(code, str) or not re.fullmatch(r"[biufcUS][1-9]\d*", code):
            raise pickle.UnpicklingError(f"It asks for numpy.dtype({code!r}), which no weights need.")
        self.code = code

    def __setstate__(self, state):
        self.code = state[1].replace("|", "") + self.code  # the order of bytes; what follows belongs to other types

    def read(self, data) -> np.ndarray:
        if not isinstance(data, bytes):
            raise pickle.UnpicklingError(f"It asks for numpy values of {type(data).__name__}, which no weights need.")
        return np.frombuffer(data, np.dtype(self.code)) if data else np.empty(0, np.dtype(self.code))


class _NumpyArray(np.ndarray):
    """Stands in for `numpy.ndarray` in a pickle: an array of plain values, as large as the bytes that it holds."""

    def __new__(cls, *_):
        return super().__new__(cls, 0)  # whatever size is asked for: values come by `__setstate__`

    def __setstate__(self, state):
        _, shape, data_type, is_fortran, data = state
        values = data_type.read(data)
        if not all(isinstance(side, int) and side > 0 for side in shape):
            shape = (0,)
        values = values.reshape(shape)  # fails where there are not so many
        super().__setstate__((1, values.shape, values.dtype, bool(is_fortran), data))


class _Record:
    """Stands in for an object that is nothing but its attributes, of which weights need none."""

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


def _read_numpy_scalar(data_type: _NumpyType, data: bytes):
    (value,) = data_type.read(data)
    return value.item()


def _rebuild_numpy_array(*_) -> _NumpyArray:
    return _NumpyArray()


def _empty_bytes(*_) -> bytes:
    return b""  # all that `bytes` is called for: others are written out


# What a pickle of weights may name besides what `torch.load(weights_only=True)` knows, and what is made of it. None of
# it is imported or called by that name.
PLAIN_DATA = [
    *((_read_numpy_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),  # NumPy 1 and 2
    *((_rebuild_numpy_array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (_NumpyArray, "numpy.ndarray"),
    (_NumpyType, "numpy.dtype"),
    (_empty_bytes, "builtins.bytes"),
    # The command line of a training program.
    (_Record, "argparse.Namespace"),
    *((_Record, f"pathlib.{place}{kind}Path") for place in ("", "_local.") for kind in ("Posix", "Windows")),
]


def read_checkpoint(path: str | os.PathLike) -> dict:
    """
    What a checkpoint file holds: tensors by name, or what a training program saved with them, such as
    `{"state_dict": ..., "meta": ...}`. Values and arrays of NumPy are read, objects of other kinds are not.

    Raises:
        ValueError: for a file that is no checkpoint, or one that holds more than data.
    """
    path = Path(path)
    allowed = torch.serialization.get_safe_globals()
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        refuse_compressed(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                    return read_torchscript(path)
        # What the program around us allows all its files is not allowed this one.
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(PLAIN_DATA)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        advice = ""
        if not isinstance(error, pickle.UnpicklingError):
            reason = f"{type(error).__name__} {str(error).split(chr(10))[0]}".rstrip(". ")
        elif asked := re.search(r"GLOBAL (\S+)|asks for (.+?), which", str(error)):
            reason = f"it asks for {asked[1] or asked[2]}, which no weights need"
            advice = (
                " If you trust it, load it where it was made and save its weights alone:"
                " `torch.save(model.state_dict(), path)`, or `torch.save(checkpoint['state_dict'], path)`."
            )
        else:
            reason = "it is no file of tensors"  # torch's message would advise to load the pickle after all
        raise ValueError(
            f"{path} could not be read as weights: {reason}. Safetensors, files of tensors saved by torch, and"
            f" OpenAI's TorchScript archives can be. Nothing that a pickle asks for is executed.{advice}"
        ) from error
    finally:
        # With what torch has added of its own since, as it does where it imports a part of itself.
        allowed = {*allowed, *torch.serialization.get_safe_globals()} - {*PLAIN_DATA}
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


def refuse_compressed(path: str | os.PathLike):
    """
    Raises:
        ValueError: for an archive of tensors that are compressed. Torch compresses code and nothing else; a few bytes
            could become any number.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(
                member.compress_type != zipfile.ZIP_STORED and re.search(r"/data/|\.pkl$", member.filename)
                for member in archive.infolist()
            ):
                raise ValueError("its tensors are compressed, which those of torch are not")


def find_weights(checkpoint, path: Path) -> tuple[dict[str, torch.Tensor], dict, tuple[str, ...]]:
    """
    Of what a checkpoint file holds, the weights of a CLIP or a published DenseCLIP, wherever a training program has
    put them: under `NESTINGS`, in wrappers such as `DistributedDataParallel`, beside averaged copies of themselves.

    Args:
        checkpoint: As `read_checkpoint` returns it.
        path: The file, for errors.

    Returns:
        The tensors by the names that they have in the model itself; the `meta` of mmcv beside them, if any; and the
        names of averaged copies, which are left out.

    Raises:
        ValueError: for a file without such weights, or with two.
    """
    meta = {}
    for _ in range(len(NESTINGS)):  # a dictionary may hold itself
        if not isinstance(checkpoint, dict):
            break
        meta = checkpoint["meta"] if isinstance(checkpoint.get("meta"), dict) else meta
        inner = [key for key in (*NESTINGS, *AVERAGES) if isinstance(checkpoint.get(key), dict)]
        if not inner:
            break
        refuse_two_models({key: checkpoint[key] for key in inner if key in NESTINGS}, path)
        checkpoint = checkpoint[inner[0]]
    others = (
        []
        if not isinstance(checkpoint, dict)
        else [
            f"{name!r} is a {type(value).__name__}"
            for name, value in checkpoint.items()
            if not isinstance(name, str) or not isinstance(value, torch.Tensor)
        ]
    )
    if not isinstance(checkpoint, dict) or not checkpoint or others:
        raise ValueError(
            f"{path} holds no tensors by name, nor a dictionary of such as {', '.join(map(repr, NESTINGS))}; it is no"
            f" checkpoint{': ' + _listed(others, 3) if others else ''}. Save the weights alone:"
            " `torch.save(model.state_dict(), path)`."
        )
    unfit = [
        name
        for name, tensor in checkpoint.items()
        if tensor.layout != torch.strided
        or tensor.is_quantized
        or tensor.is_meta
        or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
    ]
    if unfit:
        raise ValueError(
            f"{path} holds tensors that are sparse or quantised, or have fewer values than their shape says:"
            f" {_listed(unfit)}. Save dense floating-point ones."
        )

    names = {name: re.sub(WRAPPERS, "", name) for name in checkpoint}
    prefixes = {
        name.removesuffix(first)
        for name in names.values()
        for first in FIRST_LAYERS
        if name == first or name.endswith(f".{first}")
    }
    averaged = {prefix for prefix in prefixes if re.search(r"(^|[._])ema[._]", prefix)}
    live = sorted(prefixes - averaged or averaged)
    if len(live) > 1:
        raise ValueError(
            f"{path} holds the weights of {len(live)} models, under {', '.join(map(repr, live))}. Save those of one:"
            " `torch.save(model.state_dict(), path)`."
        )
    prefix = live[0] if live else ""
    others = tuple(averaged - {prefix})
    state_dict, copies = {}, []
    for name, plain in names.items():
        if (others and plain.startswith(others)) or plain == "n_averaged":  # the counter of torch's AveragedModel
            copies.append(name)
        elif plain.removeprefix(prefix) in state_dict:
            raise ValueError(f"{path} holds {plain.removeprefix(prefix)} twice, as {name} too. Save each tensor once.")
        else:
            state_dict[plain.removeprefix(prefix)] = checkpoint[name].detach()
    # mmcv's EMAHook: buffers of the model itself.
    for name in {f"ema_{name.replace('.', '_')}" for name in state_dict} & state_dict.keys():
        copies.append(name)
        del state_dict[name]
    return state_dict, meta, tuple(copies)


def refuse_two_models(parts: dict[str, dict], path: Path):
    """
    Raises:
        ValueError: for several dictionaries of tensors that are not the same.
    """
    models = {
        key: part for key, part in parts.items() if part and all(isinstance(t, torch.Tensor) for t in part.values())
    }
    first, *others = models.values() or [{}]
    if any(
        other.keys() != first.keys() or not all(torch.equal(tensor, other[name]) for name, tensor in first.items())
        for other in others
    ):
        raise ValueError(
            f"{path} holds the weights of {len(models)} models, under {', '.join(map(repr, models))}. Save those of"
            " one: `torch.save(model.state_dict(), path)`."
        )


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
    Weights as they were read: under our names and in float32, or in float64 where they were.

    Args:
        form (`str`): What the source is, in words.
        state_dict (`dict[str, torch.Tensor]`): Tensors by our names.
        table (`list[tuple[str, str]]`): What they were renamed by.
        fields (`dict`): Fields of [`DenseCLIPConfig`] that they show.
        is_clip (`bool`): Whether they are CLIP's alone, without prompts, decoder and head.
        class_names (`tuple[str, ...]`, *optional*): Classes of the head, where the source names them.
        new_modules (`tuple[str, ...]`): Prefixes of what they do not bring, if they are CLIP's, and training makes.
        dtype (`torch.dtype`): The floating-point type that they had.
        copies (`tuple[str, ...]`): Names of averaged copies beside them, which were left out.
    """

    form: str
    state_dict: dict[str, torch.Tensor]
    table: list[tuple[str, str]]
    fields: dict | None = None
    is_clip: bool = True
    class_names: tuple[str, ...] | None = None
    new_modules: tuple[str, ...] = NEW_MODULES
    dtype: torch.dtype = torch.float32
    copies: tuple[str, ...] = ()

    def describe(self, name: str) -> str:
        """One of our names, with the one in the source."""
        original = source_name(name, self.table)
        return name if original == name else f"{original} (here {name})"


def read_source(source: str | os.PathLike, dtype: torch.dtype | str = torch.float32, **hub_kwargs) -> SourceWeights:
    """
    Weights of CLIP or of a published DenseCLIP in any form that `from_clip_pretrained` and `training/convert.py` take.

    Args:
        source: A file, a directory, or the id of a repository on the Hub.
        dtype: As what a CLIPModel of Transformers is read; see `reading_dtype`.
        hub_kwargs: `HUB_KWARGS`: how files are fetched from the Hub.

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
    state_dict, meta, copies = find_weights(read_checkpoint(path), path)
    if "backbone.conv1.weight" in state_dict:
        weights = SourceWeights(
            form="published checkpoint",
            state_dict=convert_denseclip_state_dict(state_dict),
            table=_denseclip_table(state_dict),
            is_clip=False,
            class_names=_class_names(meta, path),
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
    weights.dtype, weights.copies = _widest(state_dict.values()), copies

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
        weights.form = "published DenseCLIP" if weights.fields["use_language"] else "published CLIP + Semantic FPN"
        if (palette := _palette(meta, path)) is not None:
            weights.fields["palette"] = palette
    return weights


def _widest(tensors: Iterable[torch.Tensor]) -> torch.dtype:
    """The widest floating-point type among tensors."""
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).bits, default=torch.float32)


def _class_names(meta: dict, path: Path) -> tuple[str, ...] | None:
    """The classes that mmseg writes into `meta`, if it does."""
    names = meta.get("CLASSES")
    names = names.tolist() if isinstance(names, np.ndarray) else names
    if names is None or names in ([], ()):
        return None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} has a `meta['CLASSES']` ({type(names).__name__}) that is no list of names.")
    return tuple(name.strip() for name in names)  # mmseg's ADE20K has names such as "bed "


def _palette(meta: dict, path: Path) -> tuple[tuple[int, ...], ...] | None:
    """The colours that mmseg writes into `meta`, if it does: random ones, in an array, for data sets without."""
    palette = meta.get("PALETTE")
    palette = palette.tolist() if isinstance(palette, np.ndarray) else palette
    if palette is None or palette in ([], ()):
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
    """As what weights are read, for a model of `dtype`: float32, unless that would round or the file has the word."""
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
        dtype=clip.dtype,
    )


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
        has_one = find_file(beside, "tokenizer.json", **hub_kwargs) or find_file(beside, "vocab.json", **hub_kwargs)
        tokenizer = beside if has_one else None
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
    The text tower of `weights` beside a backbone of Transformers with its own weights.

    Args:
        weights: CLIP's, or `None` for a model without language.
        image: Directory or Hub id of the backbone, or of a model that is built on it.
        asked: Fields of [`DenseCLIPConfig`]; those of its `vision_config` go before the backbone's own.
        dtype, hub_kwargs: See `read_source`.

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
        table=[(r"(.+)", r"image_encoder.backbone.\1"), *([] if weights is None else weights.table)],
        fields=fields,
        new_modules=(*NEW_MODULES, "image_encoder.attention_pool."),
        dtype=_widest([*state_dict.values(), *([] if weights is None else [torch.empty(0, dtype=weights.dtype)])]),
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
    A model of the architecture `fields` for these classes, with `weights`; what CLIP does not bring is initialised.

    Args:
        fields: As `merge_fields` returns them.
        tokenizer: CLIP's. Not needed without language.
        placing: `PLACING_KWARGS`, for `from_pretrained`. By default the model is in float32, on the CPU.

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


__all__ = ["build_from_clip", "convert_clip_state_dict", "convert_denseclip_state_dict", "read_checkpoint"]
