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
"""How new weights begin."""

import math

import torch
from transformers import initialization as init
from transformers.models.upernet.modeling_upernet import UperNetConvModule


class DenseCLIPInitializationMixin:
    """
    Has weights that are missing in a checkpoint initialised as those of a new model are, CLIP's towers included, and
    asks each module of DenseCLIP for its own initial values.
    """

    @classmethod
    def is_custom_code(cls) -> bool:
        # In code outside the library `_init_weights` does not see modules that hold no tensor of their own, such as
        # CLIP's attentions, in case it writes over loaded weights. Ours writes by `transformers.initialization`
        # alone, which never does.
        return False

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, InitializesItself):
            module.initialize_own_weights()
        elif isinstance(module, UperNetConvModule):
            initialize_conv(module.conv.weight)


class InitializesItself:
    """A module that knows its initial values, for which Transformers' own rule is not meant."""

    def initialize_own_weights(self):
        """Write them by `transformers.initialization`, which leaves loaded weights as they are."""
        raise NotImplementedError


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


__all__ = ["DenseCLIPInitializationMixin", "InitializesItself", "initialize_as_torch", "initialize_conv"]
