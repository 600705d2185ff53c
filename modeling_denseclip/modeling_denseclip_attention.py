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
"""Attention, and CLIP's attention pool. Source: DenseCLIP `models.py` (MIT)."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .configuration_denseclip import DenseCLIPConfig
from .initialization_denseclip import InitializesItself
from .resizing_denseclip import at_least_float32, resize_grid


# CLIP's attention heads have this width.
CLIP_HEAD_DIM = 64


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """That of Transformers' CLIP without mask and dropout; in float64, where that comes in, the softmax is so too."""
    attention_weights = torch.matmul(query, key.transpose(-1, -2)) * scaling
    attention_weights = F.softmax(at_least_float32(attention_weights), dim=-1).to(query.dtype)
    attention_output = torch.matmul(attention_weights, value)
    return attention_output.transpose(1, 2).contiguous(), attention_weights


def attend(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_heads: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    Multi-head attention of projected states by the implementation that `module.config` names:
    (batch_size, length, hidden_size) -> (batch_size, query_length, hidden_size), and the weights where it makes them.
    """
    # (batch_size, length, hidden_size) -> (batch_size, num_heads, length, head_dim)
    head_dim = query.shape[-1] // num_heads
    query, key, value = (states.unflatten(-1, (num_heads, head_dim)).transpose(1, 2) for states in (query, key, value))
    attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
        module.config._attn_implementation, eager_attention_forward
    )
    output, weights = attention_interface(
        module, query, key, value, None, scaling=head_dim**-0.5, dropout=0.0, is_causal=False
    )
    return output.flatten(-2), weights


class DenseCLIPAttentionPool(InitializesItself, nn.Module):
    """
    CLIP's attention pool, kept dense: attention among all cells and their mean, projected to the joint space.
    (batch_size, channels, height, width) -> (batch_size, 1 + height * width, projection_dim); the first is global.

    Source: paper section 3.2; published `AttentionPool2d` in `models.py`.
    """

    def __init__(self, config: DenseCLIPConfig, channels: int):
        super().__init__()
        self.config = config
        # CODEPATH: CLIP's ResNet rows have CLIP's own pool; rows of Table 5 a new one, with heads as wide as CLIP's
        if config.is_clip_resnet:
            self.num_heads = config.vision_config.num_attention_heads
            side = config.vision_config.image_size // config.vision_config.patch_size
        else:
            self.num_heads = math.gcd(channels, max(channels // CLIP_HEAD_DIM, 1))
            side = config.attention_pool_grid_size
        self.position_embedding = nn.Parameter(torch.empty(1 + side * side, channels))
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, config.projection_dim)

    def initialize_own_weights(self):
        std = self.q_proj.in_features**-0.5
        init.normal_(self.position_embedding, std=std)
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            init.normal_(linear.weight, std=std)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        size = hidden_states.shape[-2:]
        # (batch_size, channels, height, width) -> (batch_size, height * width, channels)
        hidden_states = hidden_states.flatten(2).transpose(1, 2)
        hidden_states = torch.cat([hidden_states.mean(dim=1, keepdim=True), hidden_states], dim=1)
        hidden_states = hidden_states + resize_grid(self.position_embedding, size)
        query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        hidden_states, attention_weights = attend(self, query, key, value, self.num_heads)
        return self.out_proj(hidden_states), attention_weights

    def project_values(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Each cell's own value, without attention and without positions: (batch_size, channels, height, width) ->
        (batch_size, projection_dim, height, width).

        Source: "Extract Free Dense Labels from CLIP", section 3.2.
        """
        values = self.out_proj(self.v_proj(hidden_states.flatten(2).transpose(1, 2)))
        return values.transpose(1, 2).unflatten(2, hidden_states.shape[-2:])


__all__ = ["CLIP_HEAD_DIM", "DenseCLIPAttentionPool", "attend"]
