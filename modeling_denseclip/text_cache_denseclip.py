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

import functools
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn


try:  # it comes with `datasets`, which not everybody has who loads this file from a Hub
    import xxhash
except ImportError:
    xxhash = None

# A checksum reads the bits of a tensor as integers, by the width of its numbers in bytes.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int16, 8: torch.int16}
# Integers of 2**15 at most, times factors below 2**26: float64 holds the sum of so many exactly, 2**52.
ROWS_AT_A_TIME = 2048
LARGEST_FACTOR = 2**26


class TextEmbeddingCache:
    """
    Holds one result and the fingerprint of everything that it was computed from.

    A stale entry would be a wrong answer that nobody notices, so the fingerprint looks at the weights themselves in
    each call: their version counters, types and devices, and a checksum of their bits. The counters see every edit
    that autograd knows of; the checksum sees those behind its back (`parameter.data`, as EMA and LoRA merges write,
    and views by NumPy or DLPack). No counter, pointer or hook of PyTorch tells of these, so each number is read in
    each call. On a CPU a hash reads them about as fast as memory gives them. On other devices the checksum is made
    there, and one number comes to the host, which has to know whether to run the text tower. Whoever knows that
    nothing will change says so by `model.fuse()`, which looks at nothing any more.

    Entries are replaced whole, so threads that share a model each get a right one, as long as none changes weights or
    class names while another is in a call.
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

    def __reduce__(self):
        return (type(self), ())  # copies begin empty


@torch.no_grad()
def fingerprint_tensors(tensors: Iterable[torch.Tensor]) -> tuple:
    """
    Version and kind of each tensor, and one checksum of the bits of all, as a comparable tuple. Numbers in another
    order, within a tensor or between two, have another checksum.
    """
    tensors = [tensor.detach() for tensor in tensors]
    kinds = tuple((version_of(tensor), tensor.dtype, tensor.device, tensor.shape) for tensor in tensors)
    if xxhash is not None and all(tensor.device.type == "cpu" for tensor in tensors):
        return kinds, hash_bits(tensors)
    return kinds, sum_bits(tensors)


def hash_bits(tensors: Iterable[torch.Tensor]) -> int:
    """A hash of 128 bits of the numbers of all tensors, which are on a CPU; a tenth of the time of [`sum_bits`]."""
    hashed = xxhash.xxh3_128()
    for tensor in tensors:
        hashed.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return hashed.intdigest()


def sum_bits(tensors: Sequence[torch.Tensor]) -> int:
    """A checksum of 64 bits that needs nothing but PyTorch, on any device. One transfer from the device."""
    sums = []
    for tensor in tensors:
        # As integers of at most 16 bits, (rows, columns); a vector is one row.
        rows = tensor.reshape(len(tensor) if tensor.ndim > 1 else 1, -1).contiguous()
        bits = rows.view(_INTEGERS[tensor.element_size()])
        sums += [weighted_sum(part).to(tensors[0].device) for part in bits.split(ROWS_AT_A_TIME)]
    sums = torch.cat(sums)
    factors = odd_numbers(len(sums), 2**63 - 1, seed=0).to(sums.device)
    return (sums * factors).sum().item()  # modulo 2**64


def weighted_sum(bits: torch.Tensor) -> torch.Tensor:
    """Each row times its factor, summed exactly: at most `ROWS_AT_A_TIME` rows, (columns,) of int64."""
    factors = row_factors(len(bits), bits.device)
    return sum_as_floats(bits, factors) if bits.device.type == "cpu" else sum_as_integers(bits, factors)


def sum_as_floats(bits: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Four times as fast on a CPU, and as exact."""
    return torch.mv(bits.double().T, factors.double()).long()


def sum_as_integers(bits: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """For devices that may not know float64."""
    return (bits.long() * factors[:, None]).sum(dim=0)


@functools.lru_cache(maxsize=256)  # asked for each tensor in each call, and copied to its device
def row_factors(count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """
    Odd numbers without a pattern. With 1, 2, 3 ... an edit that is alike in all columns would not show, such as one
    row doubled twice and the next one halved: twice as large is the same number of bits more, whatever the weight.
    """
    return odd_numbers(count, LARGEST_FACTOR, seed=1).to(device)


def odd_numbers(count: int, largest: int, seed: int) -> torch.Tensor:
    """Factors without a pattern, so that no pattern of changes cancels out; odd, so that none is lost."""
    return torch.randint(0, largest, (count,), generator=torch.Generator().manual_seed(seed)) | 1


def version_of(tensor: torch.Tensor) -> int:
    """How often `tensor` was edited in place, as far as autograd knows; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def is_cacheable(*modules: nn.Module) -> bool:
    """
    Whether the output of `modules` depends on their tensors alone, and those can be read.

    Not so with foreign modules inside (an adapter that is switched on and off), with hooks, with weights that are
    elsewhere at the moment (offloaded, sharded), or in a replica of `nn.DataParallel`, which lists no parameters.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    for module in modules:
        for child in module.modules():
            if child.training or child._forward_hooks or child._forward_pre_hooks:
                return False
            if getattr(child, "_is_replica", False):
                return False
            if type(child).__module__.split(".")[0] not in ("torch", "transformers"):
                return False
        for tensor in module.parameters():
            if type(tensor) is not nn.Parameter or tensor.is_meta or tensor.element_size() not in _INTEGERS:
                return False
    return True


__all__ = ["TextEmbeddingCache"]
