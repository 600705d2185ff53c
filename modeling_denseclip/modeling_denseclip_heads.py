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

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import UperNetConfig
from transformers import initialization as init
from transformers.models.upernet.modeling_upernet import UperNetConvModule, UperNetHead

from .configuration_denseclip import NUM_FEATURE_LEVELS, DenseCLIPConfig
from .initialization_denseclip import InitializesItself, initialize_as_torch, initialize_conv


# Standard deviation of a fresh classifier of UperNet and of the auxiliary head. Source: mmseg `BaseDecodeHead`.
CLASSIFIER_STD = 0.01


class DenseCLIPNeck(InitializesItself, nn.Module):
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
        self.out_channels = (hidden_size,) * len(in_channels)

    def initialize_own_weights(self):
        for conv in (*self.lateral_convs, *self.output_convs):
            initialize_conv(conv.weight)

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        laterals = [conv(feature_map) for conv, feature_map in zip(self.lateral_convs, feature_maps, strict=True)]
        for level in range(len(laterals) - 1, 0, -1):
            finer = laterals[level - 1]
            laterals[level - 1] = finer + F.interpolate(laterals[level], size=finer.shape[-2:], mode="nearest")
        return [conv(lateral) for conv, lateral in zip(self.output_convs, laterals, strict=True)]

    def convs_reading(self, level: int) -> list[nn.Conv2d]:
        """The convolutions whose first input channels are those of one of the encoder's four maps."""
        return [self.lateral_convs[level]]


class DenseCLIPNoNeck(nn.Module):
    """In place of a neck, for a decode head that reads the encoder's maps itself."""

    def __init__(self, config: DenseCLIPConfig, in_channels: Sequence[int]):
        super().__init__()
        self.out_channels = tuple(in_channels)

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        return feature_maps

    def convs_reading(self, level: int) -> list[nn.Conv2d]:
        return []


class DenseCLIPHead(InitializesItself, nn.Module):
    """A head that ends in dropout of whole channels and a classifier of each cell."""

    def make_classifier(self, config: DenseCLIPConfig, in_channels: int):
        self.dropout = nn.Dropout2d(config.decode_head_dropout)
        self.classifier = nn.Conv2d(in_channels, config.num_labels, kernel_size=1)

    def classify(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(hidden_states))

    @staticmethod
    def initialize_classifier(weight: torch.Tensor, bias: torch.Tensor):
        """Fresh values of a classifier, of all its classes or of new ones alone."""
        init.normal_(weight, std=CLASSIFIER_STD)
        init.zeros_(bias)

    def initialize_own_weights(self):
        self.initialize_classifier(self.classifier.weight, self.classifier.bias)


class DenseCLIPDecodeHead(DenseCLIPHead):
    """
    What every decode head has and says of itself. A new one is a class in this file, a line in `DECODE_HEADS`, and a
    value of `decode_head_type` in the config.

    A subclass makes its layers and then its classifier in its constructor, which is given the channels of the maps
    that its neck makes; `forward` turns these into (batch_size, num_labels, height / 4, width / 4).
    """

    title: ClassVar[str]  # what model cards and `denseclip info` call it
    neck_class: ClassVar[type[nn.Module]] = DenseCLIPNoNeck  # what it reads the encoder's maps through

    def convs_reading(self, level: int) -> list[nn.Conv2d]:
        """The head's own convolutions whose first input channels are those of one of the encoder's four maps."""
        return []


class DenseCLIPDecodeHeadStep(InitializesItself, nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    folded_norms = (("conv", "norm"),)

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU(inplace=True)

    def initialize_own_weights(self):
        initialize_conv(self.conv.weight)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(self.conv(hidden_states)))


class DenseCLIPSemanticFPNHead(DenseCLIPDecodeHead):
    """
    Semantic FPN: each level is brought to stride 4 by convolutions and bilinear doublings, and the levels are summed.
    Four maps of `neck_hidden_size` -> (batch_size, num_labels, height / 4, width / 4).

    Source: "Panoptic Feature Pyramid Networks", section 3; mmseg `FPNHead`.
    """

    title = "Semantic FPN"
    neck_class = DenseCLIPNeck

    def __init__(self, config: DenseCLIPConfig, in_channels: Sequence[int]):
        super().__init__()
        hidden_size = config.decode_head_hidden_size
        # One step and one doubling per factor of 2 above stride 4; the level of stride 4 has a step alone.
        self.levels = nn.ModuleList(
            nn.ModuleList(
                DenseCLIPDecodeHeadStep(in_channels[level] if step == 0 else hidden_size, hidden_size)
                for step in range(max(level, 1))
            )
            for level in range(NUM_FEATURE_LEVELS)
        )
        self.make_classifier(config, hidden_size)

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        fused = self.levels[0][0](feature_maps[0])
        for level in range(1, len(feature_maps)):
            hidden_states = feature_maps[level]
            for step in self.levels[level]:
                hidden_states = step(hidden_states)
                hidden_states = F.interpolate(hidden_states, scale_factor=2, mode="bilinear", align_corners=False)
            # Sizes that are no multiple of 32 leave the doubled map a few cells short.
            fused = fused + F.interpolate(hidden_states, size=fused.shape[-2:], mode="bilinear", align_corners=False)
        return self.classify(fused)

    @staticmethod
    def initialize_classifier(weight: torch.Tensor, bias: torch.Tensor):
        initialize_as_torch(weight, bias)


class DenseCLIPUperNetHead(DenseCLIPDecodeHead):
    """
    UperNet: pyramid pooling of the last map, a feature pyramid, and one classifier on all levels together. Four maps
    of any width -> (batch_size, num_labels, height / 4, width / 4). Transformers' own, with mmseg's dropout.

    Source: "Unified Perceptual Parsing for Scene Understanding"; mmseg `UPerHead`.
    """

    title = "UperNet"

    def __init__(self, config: DenseCLIPConfig, in_channels: Sequence[int]):
        super().__init__()
        hidden_size = config.decode_head_hidden_size
        upernet_config = UperNetConfig(hidden_size=hidden_size, pool_scales=config.pool_scales)
        self.fusion = UperNetHead(upernet_config, in_channels=list(in_channels))
        self.fusion.classifier = nn.Identity()
        self.make_classifier(config, hidden_size)
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
        return self.classify(self.fusion(feature_maps))

    def convs_reading(self, level: int) -> list[nn.Conv2d]:
        if level < len(self.fusion.lateral_convs):
            return [self.fusion.lateral_convs[level].conv]
        pooling = [block.layers[1].conv for block in self.fusion.psp_modules.blocks]
        return [*pooling, self.fusion.bottleneck.conv]


class DenseCLIPAuxiliaryHead(DenseCLIPHead):
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
        self.make_classifier(config, hidden_size)

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.classify(self.conv(feature_maps[self.level]))


DECODE_HEADS: dict[str, type[DenseCLIPDecodeHead]] = {
    "semantic_fpn": DenseCLIPSemanticFPNHead,
    "upernet": DenseCLIPUperNetHead,
}


__all__ = ["DECODE_HEADS", "DenseCLIPAuxiliaryHead", "DenseCLIPDecodeHead"]
