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
"""The decoders: feature pyramid and Semantic FPN, UperNet, and the auxiliary head of training."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import UperNetConfig
from transformers import initialization as init
from transformers.models.upernet.modeling_upernet import UperNetConvModule, UperNetHead

from .configuration_denseclip import NUM_FEATURE_LEVELS, DenseCLIPConfig


# Standard deviation of a fresh classifier of UperNet and of the auxiliary head. Source: mmseg `BaseDecodeHead`.
CLASSIFIER_STD = 0.01


def initialize_conv(weight: torch.Tensor):
    """
    He's values for a convolution before a ReLU, counted over its outputs.

    Source: mmcv `ConvModule`, which sets them in the neck too: published training never calls mmseg's own
    initialisation of neck and head.
    """
    init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


def initialize_as_torch(weight: torch.Tensor, bias: torch.Tensor):
    """
    The values that PyTorch makes a convolution with: weight and bias uniform up to one over the square root of the
    number of inputs. Source: `torch.nn.Conv2d`; published training leaves classifier and pyramid at them.
    """
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    # Of a transposed convolution PyTorch counts the second dimension for the inputs too.
    bound = weight[0].numel() ** -0.5
    init.uniform_(bias, -bound, bound)


class DenseCLIPNeck(nn.Module):
    """
    Feature pyramid: four maps of any width -> four of `neck_hidden_size`, each with what the coarser ones know.

    Source: "Feature Pyramid Networks for Object Detection"; mmseg `FPN` with nearest top-down steps.
    """

    def __init__(self, config: DenseCLIPConfig, in_channels: Sequence[int]):
        super().__init__()
        hidden_size = config.neck_hidden_size
        self.lateral_convs = nn.ModuleList(nn.Conv2d(channels, hidden_size, kernel_size=1) for channels in in_channels)
        self.output_convs = nn.ModuleList(
            nn.Conv2d(hidden_size, hidden_size, kernel_size=3, padding=1) for _ in in_channels
        )

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        laterals = [conv(feature_map) for conv, feature_map in zip(self.lateral_convs, feature_maps, strict=True)]
        for level in range(len(laterals) - 1, 0, -1):
            finer = laterals[level - 1]
            laterals[level - 1] = finer + F.interpolate(laterals[level], size=finer.shape[-2:], mode="nearest")
        return [conv(lateral) for conv, lateral in zip(self.output_convs, laterals, strict=True)]

    def convs_reading(self, level: int) -> list[nn.Conv2d]:
        """The convolutions whose first input channels are those of one of the four maps."""
        return [self.lateral_convs[level]]


class DenseCLIPDecodeHeadStep(nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(self.conv(hidden_states)))


class DenseCLIPDecodeHead(nn.Module):
    """
    Semantic FPN: each level is brought to stride 4 by convolutions and bilinear doublings, and the levels are summed.
    Four maps of `neck_hidden_size` -> (batch_size, num_labels, height / 4, width / 4).

    Source: "Panoptic Feature Pyramid Networks", section 3; mmseg `FPNHead`.
    """

    def __init__(self, config: DenseCLIPConfig):
        super().__init__()
        in_channels, hidden_size = config.neck_hidden_size, config.decode_head_hidden_size
        # One step and one doubling per factor of 2 above stride 4; the level of stride 4 has a step alone.
        self.levels = nn.ModuleList(
            nn.ModuleList(
                DenseCLIPDecodeHeadStep(in_channels if step == 0 else hidden_size, hidden_size)
                for step in range(max(level, 1))
            )
            for level in range(NUM_FEATURE_LEVELS)
        )
        self.dropout = nn.Dropout2d(config.decode_head_dropout)
        self.classifier = nn.Conv2d(hidden_size, config.num_labels, kernel_size=1)

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        fused = self.levels[0][0](feature_maps[0])
        for level in range(1, len(feature_maps)):
            hidden_states = feature_maps[level]
            for step in self.levels[level]:
                hidden_states = step(hidden_states)
                hidden_states = F.interpolate(hidden_states, scale_factor=2, mode="bilinear", align_corners=False)
            # Sizes that are no multiple of 32 leave the doubled map a few cells short.
            fused = fused + F.interpolate(hidden_states, size=fused.shape[-2:], mode="bilinear", align_corners=False)
        return self.classifier(self.dropout(fused))

    @staticmethod
    def initialize_classifier(weight: torch.Tensor, bias: torch.Tensor):
        initialize_as_torch(weight, bias)


class DenseCLIPUperNetHead(nn.Module):
    """
    UperNet: pyramid pooling of the last map, a feature pyramid, and one classifier on all levels together. Four maps
    of any width -> (batch_size, num_labels, height / 4, width / 4). Transformers' own, with mmseg's dropout.

    Source: "Unified Perceptual Parsing for Scene Understanding"; mmseg `UPerHead`.
    """

    def __init__(self, config: DenseCLIPConfig, in_channels: Sequence[int]):
        super().__init__()
        hidden_size = config.decode_head_hidden_size
        upernet_config = UperNetConfig(hidden_size=hidden_size, pool_scales=config.pool_scales)
        self.fusion = UperNetHead(upernet_config, in_channels=list(in_channels))
        self.fusion.classifier = nn.Identity()
        self.dropout = nn.Dropout2d(config.decode_head_dropout)
        self.classifier = nn.Conv2d(hidden_size, config.num_labels, kernel_size=1)
        self.pools_to_one_value = 1 in config.pool_scales

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        # Batch norms of other classes take their statistics over the images of all processes.
        if (
            self.training
            and feature_maps[0].shape[0] == 1
            and self.pools_to_one_value
            and any(type(module) is nn.BatchNorm2d for module in self.fusion.modules())
        ):
            raise ValueError(
                "UperNet was given a batch of one image in training mode; its pyramid pooling normalises one value per"
                " image and channel over the batch, so it needs at least two. Raise the batch size per device."
            )
        return self.classifier(self.dropout(self.fusion(feature_maps)))

    @staticmethod
    def initialize_classifier(weight: torch.Tensor, bias: torch.Tensor):
        init.normal_(weight, std=CLASSIFIER_STD)
        init.zeros_(bias)

    def convs_reading(self, level: int) -> list[nn.Conv2d]:
        """The convolutions whose first input channels are those of one of the four maps."""
        if level < len(self.fusion.lateral_convs):
            return [self.fusion.lateral_convs[level].conv]
        pooling = [block.layers[1].conv for block in self.fusion.psp_modules.blocks]
        return [*pooling, self.fusion.bottleneck.conv]


class DenseCLIPAuxiliaryHead(nn.Module):
    """
    A fully convolutional head on the map of stride 16, whose loss helps the image encoder along in training:
    (batch_size, channels, height / 16, width / 16) -> (batch_size, num_labels, height / 16, width / 16).

    Source: "Fully Convolutional Networks for Semantic Segmentation"; mmseg `FCNHead` with one convolution.
    """

    # The map of stride 16, as in mmseg's UperNets.
    level = 2

    def __init__(self, config: DenseCLIPConfig, in_channels: Sequence[int]):
        super().__init__()
        hidden_size = config.auxiliary_head_hidden_size
        self.conv = UperNetConvModule(in_channels[self.level], hidden_size, kernel_size=3, padding=1)
        self.dropout = nn.Dropout2d(config.decode_head_dropout)
        self.classifier = nn.Conv2d(hidden_size, config.num_labels, kernel_size=1)

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.classifier(self.dropout(self.conv(feature_maps[self.level])))

    initialize_classifier = staticmethod(DenseCLIPUperNetHead.initialize_classifier)


__all__ = [
    "DenseCLIPAuxiliaryHead",
    "DenseCLIPDecodeHead",
    "DenseCLIPNeck",
    "DenseCLIPUperNetHead",
    "initialize_as_torch",
    "initialize_conv",
]
