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
"""Keeps the class embeddings of an unchanged text tower between calls."""

from collections.abc import Callable, Iterable

import torch
from torch import nn


# A checksum reads the bits of a tensor as integers of the same width.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class TextEmbeddingCache:
    """
    Holds one result and the fingerprint of everything that it was computed from.

    A stale entry would be a wrong answer that nobody notices, so the fingerprint looks at the weights themselves in
    each call: their version counters, types and devices, and the sum of their bits. The counters see every edit that
    autograd knows of; the sum sees those behind its back (`parameter.data`, as EMA and LoRA merges write). Entries
    are replaced whole, so threads that share a model each get a right one, as long as none changes weights or class
    names while another is in a call.
    """

    def __init__(self):
        self._entry: tuple[tuple, torch.Tensor] | None = None

    def get(
        self, tensors: Iterable[torch.Tensor], settings: tuple, compute: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """
        The result of `compute()`, kept as long as `tensors` and `settings` do not change.

        Args:
            tensors: Everything that `compute` reads.
            settings: Hashable values that it depends on besides (precision, attention implementation).
            compute: Called without gradient.
        """
        fingerprint = (settings, *fingerprint_tensors(tensors))
        entry = self._entry
        if entry is None or entry[0] != fingerprint:
            entry = (fingerprint, compute())
            self._entry = entry
        return entry[1]

    def __deepcopy__(self, memo):
        return type(self)()

    def __reduce__(self):
        return (type(self), ())


@torch.no_grad()
def fingerprint_tensors(tensors: Iterable[torch.Tensor]) -> tuple:
    """Version and checksum of each tensor, as a comparable tuple. One transfer from the device."""
    tensors = [tensor.detach() for tensor in tensors]
    kinds = tuple((version_of(tensor), tensor.dtype, tensor.device, tensor.shape) for tensor in tensors)
    values = [_checksum(tensor) for tensor in tensors]
    return kinds, tuple(torch.cat([value.to(values[0].device) for value in values]).tolist())


def _checksum(tensor: torch.Tensor) -> torch.Tensor:
    """
    The sum of a tensor's bits, `(1,)`; of token ids and places the values themselves, since those of the same class
    names in another order have the same sum.
    """
    values = tensor.reshape(-1)
    if tensor.dtype == torch.int64:
        return values
    return values.view(_INTEGERS[tensor.element_size()]).sum(dtype=torch.int64)[None]


def version_of(tensor: torch.Tensor) -> int:
    """How often `tensor` was edited in place, as far as autograd knows; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def is_cacheable(*modules: nn.Module) -> bool:
    """
    Whether the output of `modules` depends on their tensors alone, and those can be read.

    Not so with foreign modules inside (an adapter that is switched on and off), with hooks, or with weights that are
    elsewhere at the moment (offloaded, sharded).
    """
    if torch.compiler.is_compiling():
        return False
    for module in modules:
        for child in module.modules():
            if child.training or child._forward_hooks or child._forward_pre_hooks:
                return False
            if type(child).__module__.split(".")[0] not in ("torch", "transformers"):
                return False
        for tensor in module.parameters():
            if type(tensor) is not nn.Parameter or tensor.is_meta or tensor.element_size() not in _INTEGERS:
                return False
    return True


__all__ = ["TextEmbeddingCache"]
