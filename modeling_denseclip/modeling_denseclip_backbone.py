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
"""Any image model of Transformers as a source of four feature maps, by what it is measured to give."""

import functools
import json
import math
import os
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoBackbone, AutoConfig, AutoModel, PreTrainedConfig
from transformers.modeling_outputs import BackboneOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING, MODEL_FOR_BACKBONE_MAPPING_NAMES
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, logging

from .configuration_denseclip import (
    NUM_FEATURE_LEVELS,
    DenseCLIPConfig,
    check_feature_layers,
    spread_feature_layers,
)
from .loading_denseclip import check_number_types, naming_checkpoint, read_heads
from .modeling_denseclip_resnet import DenseCLIPResNetBackbone
from .resizing_denseclip import at_least_float32
from .weight_files_denseclip import listed


logger = logging.get_logger(__name__)

# A multiple of 32 and of the usual patches, 14 and 16; of other patches the next common multiple is taken.
PROBE_SIZE = 448
# What models raise for sizes that they do not take.
PROBE_ERRORS = (RuntimeError, ValueError, AssertionError)
# ViTs that Transformers has no backbone of, but that take any size and can leave out their pooling layer.
PLAIN_VITS = ("vit", "deit")
# What backbones add to the models that checkpoints hold: norms of their maps, which begin without scale and shift.
NEW_IN_BACKBONES = ("hidden_states_norms.",)


@dataclass(frozen=True)
class BackboneLayout:
    """What a backbone gives."""

    stages: tuple[str, ...]  # the four whose outputs are used
    channels: tuple[int, ...]  # of their maps
    is_plain: bool  # whether all maps have one stride, so that a pyramid has to make four of it
    coarsest_stride: int  # pixels of one side of a cell of the coarsest map, that of the pyramid if there is one
    # Height and width of the input must be multiples of this, so that no map leaves out a row or column: the coarsest
    # stride, or several where attention runs in windows of cells.
    size_divisor: int
    # What the maps do not depend on, such as a last norm. They become buffers, since distributed training would wait
    # for their gradients.
    unused_parameters: tuple[str, ...]
    input_size: tuple[int, int] | None = None  # the only height and width that it takes, if there is only one

    def resize_input(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`pixel_values` in a size that the backbone takes, see `resize_to_multiple`."""
        if self.input_size is None:
            return resize_to_multiple(pixel_values, self.size_divisor)
        # A picture may be several times as large. Without smoothing, pixels between those that are read do not count.
        # PyTorch smooths in no precision below float32.
        resized = F.interpolate(
            at_least_float32(pixel_values), size=self.input_size, mode="bilinear", align_corners=False, antialias=True
        )
        return resized.to(pixel_values.dtype)


def resize_to_multiple(pixel_values: torch.Tensor, divisor: int) -> torch.Tensor:
    """
    (batch_size, num_channels, height, width) -> the same with both sides enlarged to the next multiple of `divisor`.
    Resized, not cropped or padded, so that feature maps show the whole image and nothing else, each cell as large a
    part of it.
    """
    size = tuple(-(-side // divisor) * divisor for side in pixel_values.shape[-2:])
    # In a graph, where this branch would be baked in, interpolated in any case: that changes nothing at the same size.
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if not is_traced and size == tuple(pixel_values.shape[-2:]):
        return pixel_values
    return F.interpolate(pixel_values, size=size, mode="bilinear", align_corners=False)


class DenseCLIPPlainViTBackbone(nn.Module):
    """
    A ViT that Transformers has no backbone of, as one: (batch_size, num_channels, height, width) -> four maps
    (batch_size, hidden_size, height / patch_size, width / patch_size). Its last norm, which only follows the last
    layer, is left out, as in the published code.
    """

    has_attentions = True

    def __init__(self, config: PreTrainedConfig, stages: tuple[str, ...]):
        super().__init__()
        self.config = config
        self.model = AutoModel.from_config(config, add_pooling_layer=False)
        self.model.layernorm = nn.Identity()
        self.supports_gradient_checkpointing = self.model.supports_gradient_checkpointing
        self.layers = tuple(int(stage.removeprefix("stage")) for stage in stages)  # "stage1" is the first layer

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        wanted = {**kwargs, "output_hidden_states": True, "return_dict": True}
        outputs = self.model(pixel_values, interpolate_pos_encoding=True, **wanted)
        grid = tuple(side // self.config.patch_size for side in pixel_values.shape[-2:])
        num_patches = grid[0] * grid[1]
        # (batch_size, tokens + patches, hidden_size) -> (batch_size, hidden_size, height, width)
        feature_maps = tuple(
            outputs.hidden_states[layer][:, -num_patches:].transpose(1, 2).unflatten(2, grid) for layer in self.layers
        )
        hidden_states = outputs.hidden_states if kwargs.get("output_hidden_states") else None
        return BackboneOutput(feature_maps=feature_maps, hidden_states=hidden_states, attentions=outputs.attentions)


def build_backbone(config: DenseCLIPConfig) -> tuple[nn.Module, BackboneLayout]:
    """
    The backbone that `config.vision_config` names, with random weights, and its layout.

    Raises:
        ValueError: for a model that gives neither four maps, each of half the size of the one before, nor several of
            one size.
    """
    vision_config = config.vision_config
    # CODEPATH: rows on CLIP's ResNet, and rows on a backbone of Transformers
    if config.is_clip_resnet:
        layout = BackboneLayout(
            stages=tuple(vision_config.stage_names[1:]),
            channels=vision_config.hidden_sizes,
            is_plain=False,
            coarsest_stride=vision_config.patch_size,
            size_divisor=vision_config.patch_size,
            unused_parameters=(),
        )
        return DenseCLIPResNetBackbone(vision_config), layout
    layout = measure_layout(vision_config.to_json_string(use_diff=False), config.feature_layers)
    backbone = make_backbone(vision_config, layout.stages)
    for name in layout.unused_parameters:
        # Not frozen by `requires_grad`, which `from_pretrained` would set again.
        module_name, _, leaf = name.rpartition(".")
        module, parameter = backbone.get_submodule(module_name), backbone.get_parameter(name)
        delattr(module, leaf)
        module.register_buffer(leaf, parameter.detach())
    return backbone, layout


def make_backbone(vision_config: PreTrainedConfig, stages: tuple[str, ...]) -> nn.Module:
    """The Transformers backbone that gives the maps of these stages."""
    if vision_config.model_type in PLAIN_VITS:
        return DenseCLIPPlainViTBackbone(vision_config, stages)
    backbone = AutoBackbone.from_config(with_stages(vision_config, stages))
    if not backbone.has_attentions:
        # Every implementation of attention computes the same where there is none; some classes do not say so.
        backbone._supports_sdpa = True
    return backbone


def with_stages(vision_config: PreTrainedConfig, stages: tuple[str, ...]) -> PreTrainedConfig:
    """A copy of a backbone's config that names these stages."""
    # As read from a file, where there are lists: some backbones (ConvNeXt) fail on the tuples of their own defaults.
    fields = json.loads(vision_config.to_json_string(use_diff=False)) | {"return_dict": True}
    has_attentions = MODEL_FOR_BACKBONE_MAPPING[type(vision_config)].has_attentions
    attn_implementation = vision_config._attn_implementation if has_attentions else "eager"
    copy = type(vision_config).from_dict(fields, attn_implementation=attn_implementation)
    copy.out_features = list(stages)
    return copy


def load_backbone(
    name_or_path: str | os.PathLike,
    vision_config: PreTrainedConfig,
    layout: BackboneLayout,
    dtype: torch.dtype | str = torch.float32,
    **hub_kwargs,
) -> dict[str, torch.Tensor]:
    """
    Weights of a Transformers backbone, or of a model that is built on it, by the names that they have in
    `build_backbone`'s. `dtype` and `hub_kwargs` are for `from_pretrained`.

    Raises:
        ValueError: for tensors that are missing or have another shape; names them. Only what no map depends on may be
            missing, and norms that the backbone adds to its maps. It logs them.
    """
    arguments = {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True, **hub_kwargs}
    with naming_checkpoint(name_or_path):
        if vision_config.model_type in PLAIN_VITS:
            model, loading = AutoModel.from_pretrained(
                name_or_path, config=vision_config, add_pooling_layer=False, **arguments
            )
            prefix, left_out = "model.", ("layernorm.",)
        else:
            # Not `AutoBackbone.from_pretrained`, which asks the Hub even for a directory.
            model, loading = MODEL_FOR_BACKBONE_MAPPING[type(vision_config)].from_pretrained(
                name_or_path, config=with_stages(vision_config, layout.stages), **arguments
            )
            prefix, left_out = "", ()
        check_number_types(model.state_dict(), read_heads(name_or_path, **hub_kwargs))
    missing = sorted(loading["missing_keys"])
    may_be_missing = (*NEW_IN_BACKBONES, *left_out, *layout.unused_parameters)
    problems = [
        name for name in missing if not name.startswith(may_be_missing) and not name.endswith("num_batches_tracked")
    ]
    problems += sorted(
        f"{name} ({tuple(found)}, the config says {tuple(expected)})"
        for name, found, expected in loading["mismatched_keys"]
    )
    if problems:
        raise ValueError(
            f"The weights of {str(name_or_path)!r} do not fit a {vision_config.model_type!r} backbone of this"
            f" `vision_config`. Tensors missing or of another shape: {listed(problems)}."
        )
    if missing:
        logger.info(f"Not in {str(name_or_path)!r}, and new: {', '.join(missing)}.")
    return {prefix + name: tensor for name, tensor in model.state_dict().items() if not name.startswith(left_out)}


@functools.lru_cache(maxsize=64)
@torch.enable_grad()
def measure_layout(vision_config_json: str, feature_layers: tuple[int, ...] | None) -> BackboneLayout:
    """
    What a backbone gives, found by running it without weights (on the meta device): of strides and of the sizes that
    it takes, Transformers knows nothing.

    Raises:
        ValueError: for a model that is no backbone, or whose maps do not serve; names them.
    """
    vision_config = AutoConfig.for_model(**json.loads(vision_config_json))
    name = vision_config.model_type
    if name in PLAIN_VITS:
        all_stages = tuple(f"stage{layer + 1}" for layer in range(vision_config.num_hidden_layers))
        named = ()
    elif name not in MODEL_FOR_BACKBONE_MAPPING_NAMES:
        raise ValueError(
            f"`vision_config` has the model_type {name!r}, which is no image backbone of Transformers. Take one that"
            f" `AutoBackbone` knows, such as 'resnet', 'swin' or 'dinov2', or {' or '.join(map(repr, PLAIN_VITS))}."
        )
    elif not hasattr(vision_config, "stage_names"):
        parts = [getattr(vision_config, part).model_type for part in vision_config.sub_configs]
        parts = [part for part in parts if part in MODEL_FOR_BACKBONE_MAPPING_NAMES]
        raise ValueError(
            f"`vision_config` has the model_type {name!r}, whose config names no stages to take maps from. "
            + (f"Name its image encoder alone: {parts[0]!r}." if parts else "Take a backbone of Transformers' own.")
        )
    else:
        all_stages = tuple(vision_config.stage_names)
        named = tuple(vision_config.out_features)
    # `out_features` counts where it names four stages: one stage is Transformers' default, and other numbers were
    # chosen for another model. `feature_layers`, which was asked for, goes before it.
    is_named = len(named) == NUM_FEATURE_LEVELS and feature_layers is None
    stages = all_stages if is_named and "stem" in named else tuple(stage for stage in all_stages if stage != "stem")
    probe = _Probe(vision_config, stages)
    maps, size, is_only_size = _probe_any_size(probe)
    strides = _strides(name, maps, size)
    if len(set(strides.values())) not in (1, NUM_FEATURE_LEVELS) and stages != all_stages:
        # In some, the stem has a stride of its own.
        stages = all_stages
        probe = _Probe(vision_config, stages)
        maps = probe.run(size)
        strides = _strides(name, maps, size)

    if is_named:
        chosen = named
    elif len(set(strides.values())) == 1:
        layers = feature_layers or spread_feature_layers(len(stages))
        check_feature_layers(layers, len(stages))
        chosen = tuple(stages[layer] for layer in layers)
    else:
        last_of_stride = {stride: stage for stage, stride in strides.items()}
        chosen = tuple(last_of_stride[stride] for stride in sorted(last_of_stride))[-NUM_FEATURE_LEVELS:]
    found = [strides[stage] for stage in chosen]
    is_plain = len(set(found)) == 1
    doubles = all(coarse == 2 * fine for fine, coarse in zip(found[:-1], found[1:], strict=True))
    if len(found) != NUM_FEATURE_LEVELS or not (is_plain or doubles):
        raise ValueError(
            f"The backbone {name!r} has stages of strides {strides}; DenseCLIP needs {NUM_FEATURE_LEVELS} of which"
            " each is twice the one before, or of one stride. `out_features` in `vision_config` can name them."
        )
    window_cells = 1 if is_only_size else _window_cells(probe, found[-1])
    # The pyramid's coarsest map takes two by two cells together.
    coarsest_stride = 2 * found[-1] if is_plain else found[-1]
    return BackboneLayout(
        stages=chosen,
        channels=tuple(maps[stage].shape[1] for stage in chosen),
        is_plain=is_plain,
        coarsest_stride=coarsest_stride,
        size_divisor=math.lcm(coarsest_stride, window_cells * found[-1]),
        unused_parameters=probe.unused_parameters(maps, chosen),
        input_size=size if is_only_size else None,
    )


class _Probe:
    """A backbone without values that gives the maps of these stages."""

    def __init__(self, vision_config: PreTrainedConfig, stages: tuple[str, ...]):
        self.vision_config, self.stages = vision_config, stages

    @functools.cached_property
    def backbone(self) -> nn.Module:
        return self.build(self.stages)

    def build(self, stages: tuple[str, ...]) -> nn.Module:
        with torch.device("meta"):
            # Some models make a parameter on the CPU all the same.
            return make_backbone(self.vision_config, stages).eval().to("meta")

    def run(self, size: tuple[int, int]) -> dict[str, torch.Tensor]:
        """What it makes of one image."""
        with torch.device("meta"):
            pixel_values = torch.empty(1, getattr(self.vision_config, "num_channels", 3), *size)
            return dict(zip(self.stages, self.backbone(pixel_values).feature_maps, strict=True))

    def unused_parameters(self, maps: dict[str, torch.Tensor], chosen: tuple[str, ...]) -> tuple[str, ...]:
        """What the maps of the chosen stages do not depend on, in a backbone that gives them alone."""
        sum(maps[stage].sum() for stage in chosen).backward()
        backbone = self.backbone if chosen == self.stages else self.build(chosen)
        used = {name for name, parameter in self.backbone.named_parameters() if parameter.grad is not None}
        return tuple(name for name, _ in backbone.named_parameters() if name not in used)


def _probe_any_size(probe: _Probe) -> tuple[dict[str, torch.Tensor], tuple[int, int], bool]:
    """The maps, of which size in pixels, and whether the backbone takes no other size."""
    vision_config = probe.vision_config
    patch_size = getattr(vision_config, "patch_size", None)
    probe_size = math.lcm(PROBE_SIZE, patch_size) if isinstance(patch_size, int) else PROBE_SIZE
    sizes = [(probe_size, probe_size)]
    own_size = getattr(vision_config, "image_size", None)
    if own_size is not None:
        sizes.append(tuple(own_size) if isinstance(own_size, list | tuple) else (own_size, own_size))
    for size in sizes:
        try:
            return probe.run(size), size, size != sizes[0]
        except PROBE_ERRORS as error:
            failure = error
    raise ValueError(f"The backbone {vision_config.model_type!r} could not be run: {failure}") from failure


def _strides(name: str, maps: dict[str, torch.Tensor], size: tuple[int, int]) -> dict[str, int]:
    """Pixels of one side of a cell, for each stage."""
    strides = {}
    for stage, feature_map in maps.items():
        shape = tuple(feature_map.shape)
        is_map = len(shape) == 4 and size[0] % shape[2] == 0 and size[1] % shape[3] == 0
        if not is_map or size[0] // shape[2] != size[1] // shape[3]:
            raise ValueError(
                f"Stage {stage!r} of the backbone {name!r} gives {shape} for {size[0]} x {size[1]} pixels. DenseCLIP"
                " needs (batch_size, channels, height, width), with both sides shrunk by the same whole number."
            )
        strides[stage] = size[0] // shape[2]
    return strides


@torch.no_grad()
def _window_cells(probe: _Probe, stride: int) -> int:
    """How many cells of the coarsest map have to come together, as where attention runs in a grid of windows."""
    for cells in (1, 2, 4, 8):
        try:
            probe.run((7 * cells * stride, 5 * cells * stride))
        except PROBE_ERRORS:
            continue
        return cells
    raise ValueError(
        f"The backbone {probe.vision_config.model_type!r} takes {PROBE_SIZE} x {PROBE_SIZE} pixels, but not multiples"
        f" of {stride} in general."
    )


__all__ = [
    "BackboneLayout",
    "DenseCLIPPlainViTBackbone",
    "build_backbone",
    "load_backbone",
    "measure_layout",
    "resize_to_multiple",
]
