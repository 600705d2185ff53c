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
"""How maps and position embeddings are resized, and in which precision."""

import math

import torch
from torch.nn import functional as F
from transformers.utils.generic import maybe_autocast


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in float32 where it has fewer bits; float64 keeps its precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def resize_grid(positions: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    Position embeddings of another grid: (1 + side * side, hidden_size) -> (1 + height * width, hidden_size).

    Bilinear as published, where Transformers' CLIP is bicubic. It is always interpolated, since a branch on the size
    of the input would be baked into an exported graph; at the same size that changes nothing.
    """
    side = math.isqrt(positions.shape[0] - 1)
    grid = positions[1:].unflatten(0, (side, side)).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, size=size, mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], grid[0].flatten(1).T])


def resize_logits(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(batch_size, num_labels, height, width) -> (batch_size, num_labels, *size), bilinearly."""
    if logits.is_cuda and logits.requires_grad:
        return resize_by_products(logits, size)
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def resize_by_products(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    `resize_logits` as two products with matrices of weights. On a GPU the gradient of `F.interpolate` adds pixel by
    pixel into memory: in a training step it took longer than all else together, and no two runs were equal.
    """
    # What interpolation makes of unit vectors are its weights, (length, new length).
    units = (
        at_least_float32(torch.eye(length, dtype=logits.dtype, device=logits.device)) for length in logits.shape[-2:]
    )
    rows, columns = (
        F.interpolate(unit[None], size=new, mode="linear", align_corners=False)[0]
        for unit, new in zip(units, size, strict=True)
    )
    with maybe_autocast(logits.device.type, enabled=False):
        return rows.to(logits.dtype).T @ (logits @ columns.to(logits.dtype))


__all__ = ["at_least_float32", "resize_grid", "resize_logits"]
