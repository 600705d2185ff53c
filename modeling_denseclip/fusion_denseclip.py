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
"""Batch norms folded into the convolutions before them: what inference does not have to compute."""

import torch
from torch import nn
from transformers.models.resnet.modeling_resnet import ResNetConvLayer, ResNetShortCut
from transformers.models.upernet.modeling_upernet import UperNetConvModule

from .modeling_denseclip_attention import at_least_float32


# Every convolution of these modules that a batch norm follows at once, and that norm.
_PAIRS_BY_NAME = {
    "DenseCLIPResNetStem": (("conv1", "norm1"), ("conv2", "norm2"), ("conv3", "norm3")),
    "DenseCLIPResNetBottleneck": (
        ("conv1", "norm1"),
        ("conv2", "norm2"),
        ("conv3", "norm3"),
        ("shortcut_conv", "shortcut_norm"),
    ),
    "DenseCLIPPyramid": (("upsample4_first", "upsample4_norm"),),
    "DenseCLIPDecodeHeadStep": (("conv", "norm"),),
    UperNetConvModule.__name__: (("conv", "batch_norm"),),
    ResNetConvLayer.__name__: (("convolution", "normalization"),),
    ResNetShortCut.__name__: (("convolution", "normalization"),),
}


@torch.no_grad()
def fold_batch_norms(model: nn.Module):
    """
    Replace each batch norm by scaling the convolution before it, in place; in evaluation mode the model computes the
    same. Batch norms of other modules stay.
    """
    for module in model.modules():
        for conv_name, norm_name in _PAIRS_BY_NAME.get(type(module).__name__, ()):
            norm = getattr(module, norm_name, None)  # not every bottleneck has a convolution in its shortcut
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                _fold(getattr(module, conv_name), norm)
                setattr(module, norm_name, nn.Identity())


def _fold(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d):
    scale = at_least_float32(norm.weight) * torch.rsqrt(at_least_float32(norm.running_var) + norm.eps)
    shift = at_least_float32(norm.bias) - at_least_float32(norm.running_mean) * scale
    if conv.bias is not None:
        shift = shift + at_least_float32(conv.bias) * scale
    # A transposed convolution has its output channels second.
    shape = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    weight = conv.weight
    conv.weight = nn.Parameter((at_least_float32(weight) * scale.view(shape)).to(weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)


__all__ = ["fold_batch_norms"]
