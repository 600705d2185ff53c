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
"""CLIP's modified ResNet as a Transformers backbone. Source: openai/CLIP and DenseCLIP `models.py` (MIT)."""

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import BackboneOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring
from transformers.utils.output_capturing import capture_outputs, maybe_install_capturing_hooks

from .configuration_denseclip import DenseCLIPResNetConfig
from .initialization_denseclip import DenseCLIPInitializationMixin


class DenseCLIPPicklingMixin:
    """
    Has a model pickled without the hooks by which Transformers records hidden states and attentions: they are local
    functions, which no other process could find. Transformers installs them anew where they are asked for.
    """

    def __getstate__(self) -> dict:
        return vars(without_capturing_hooks(self))

    def __setstate__(self, state: dict):
        super().__setstate__(state)
        for module in self.modules():
            # A backbone always records, so it has them from the start.
            if isinstance(module, BackboneMixin):
                maybe_install_capturing_hooks(module)


def without_capturing_hooks(value: Any, copies: dict[int, nn.Module] | None = None) -> Any:
    """
    A copy of a module and its children, with the same tensors, that has none of Transformers' recording hooks. A child
    that is known in two places, such as an attribute that is a list, is one child in the copy too.
    """
    copies = {} if copies is None else copies
    if isinstance(value, list | tuple):
        copied = [without_capturing_hooks(item, copies) for item in value]
        is_same = all(new is old for new, old in zip(copied, value, strict=True))
        return value if is_same or type(value) not in (list, tuple) else type(value)(copied)
    if isinstance(value, dict):
        copied = {key: without_capturing_hooks(item, copies) for key, item in value.items()}
        return value if all(copied[key] is item for key, item in value.items()) else copied
    if not isinstance(value, nn.Module):
        return value
    if id(value) not in copies:
        copies[id(value)] = bare = object.__new__(type(value))
        recording = maybe_install_capturing_hooks.__module__
        hooks = [(k, h) for k, h in value._forward_hooks.items() if getattr(h, "__module__", None) != recording]
        for name, attribute in vars(value).items():
            kept = OrderedDict(hooks) if name == "_forward_hooks" else without_capturing_hooks(attribute, copies)
            vars(bare)[name] = kept
        if "_output_capturing_hooks_installed" in vars(bare):
            bare._output_capturing_hooks_installed = False
    return copies[id(value)]


class DenseCLIPResNetStem(nn.Module):
    """
    Three convolutions and an average pool in place of ResNet's one convolution and max pool:
    (batch_size, num_channels, height, width) -> (batch_size, embedding_size, height / 4, width / 4).
    """

    folded_norms = (("conv1", "norm1"), ("conv2", "norm2"), ("conv3", "norm3"))

    def __init__(self, config: DenseCLIPResNetConfig):
        super().__init__()
        width = config.embedding_size
        self.conv1 = nn.Conv2d(config.num_channels, width // 2, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, kernel_size=3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.activation = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(kernel_size=2)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        hidden_states = self.activation(self.norm1(self.conv1(pixel_values)))
        hidden_states = self.activation(self.norm2(self.conv2(hidden_states)))
        hidden_states = self.activation(self.norm3(self.conv3(hidden_states)))
        return self.pool(hidden_states)


class DenseCLIPResNetBottleneck(nn.Module):
    """
    Anti-aliased bottleneck: a strided one pools by averaging before its last convolution and its shortcut, so that
    every convolution has stride 1. (batch_size, in_channels, height, width) -> (batch_size, 4 * channels, ...).
    """

    # Not a GradientCheckpointingLayer: recomputing would update the running statistics of its batch norms twice.
    folded_norms = (("conv1", "norm1"), ("conv2", "norm2"), ("conv3", "norm3"), ("shortcut_conv", "shortcut_norm"))

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        out_channels = 4 * channels
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(channels, out_channels, kernel_size=1, bias=False)
        self.norm3 = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU(inplace=True)

        self.has_projection = stride > 1 or in_channels != out_channels
        if self.has_projection:
            self.shortcut_conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        residual = hidden_states
        if self.has_projection:
            residual = self.shortcut_norm(self.shortcut_conv(self.pool(hidden_states)))
        hidden_states = self.activation(self.norm1(self.conv1(hidden_states)))
        hidden_states = self.activation(self.norm2(self.conv2(hidden_states)))
        hidden_states = self.norm3(self.conv3(self.pool(hidden_states)))
        return self.activation(hidden_states + residual)


class DenseCLIPResNetStage(nn.Module):
    """Bottlenecks of one resolution; all stages but the first halve height and width."""

    def __init__(self, config: DenseCLIPResNetConfig, stage: int):
        super().__init__()
        channels = config.embedding_size * 2**stage
        in_channels = config.embedding_size if stage == 0 else config.hidden_sizes[stage - 1]
        self.blocks = nn.ModuleList(
            DenseCLIPResNetBottleneck(
                in_channels=in_channels if block == 0 else config.hidden_sizes[stage],
                channels=channels,
                stride=2 if block == 0 and stage > 0 else 1,
            )
            for block in range(config.depths[stage])
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states


@auto_docstring(
    custom_intro="""
    CLIP's modified ResNet without its attention pool: feature maps at strides 4, 8, 16 and 32.
    """
)
class DenseCLIPResNetBackbone(DenseCLIPInitializationMixin, DenseCLIPPicklingMixin, BackboneMixin, PreTrainedModel):
    config: DenseCLIPResNetConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    has_attentions = False
    _supports_sdpa = True  # it has no attention, so every implementation computes the same
    _can_record_outputs = {"hidden_states": DenseCLIPResNetStage}

    def __init__(self, config: DenseCLIPResNetConfig):
        super().__init__(config)
        self.num_features = [config.embedding_size, *config.hidden_sizes]
        self.stem = DenseCLIPResNetStem(config)
        self.stages = nn.ModuleList(DenseCLIPResNetStage(config, stage) for stage in range(len(config.depths)))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.stem.conv1

    def set_input_embeddings(self, value: nn.Module):
        self.stem.conv1 = value

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, DenseCLIPResNetBottleneck):
            # Each residual branch starts at zero, as in openai/CLIP.
            init.zeros_(module.norm3.weight)

    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        r"""
        Examples:

        ```python
        >>> import torch
        >>> from modeling_denseclip import DenseCLIPResNetBackbone, DenseCLIPResNetConfig

        >>> backbone = DenseCLIPResNetBackbone(DenseCLIPResNetConfig())
        >>> [tuple(feature_map.shape[1:]) for feature_map in backbone(torch.rand(2, 3, 64, 64)).feature_maps]
        [(256, 16, 16), (512, 8, 8), (1024, 4, 4), (2048, 2, 2)]
        ```"""
        hidden_states = self.stem(pixel_values.to(self.stem.conv1.weight.dtype))
        feature_maps = (hidden_states,) if "stem" in self.out_features else ()
        for name, stage in zip(self.stage_names[1:], self.stages, strict=True):
            hidden_states = stage(hidden_states)
            if name in self.out_features:
                feature_maps += (hidden_states,)
        return BackboneOutput(feature_maps=feature_maps)


__all__ = ["DenseCLIPResNetBackbone"]
