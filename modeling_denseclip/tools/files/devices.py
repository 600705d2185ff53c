# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Where and in what type of numbers a model computes, and what is said where memory ends.

`training.push` copies this text into what runs on an endpoint, so it imports nothing of this package.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn


Model = TypeVar("Model", bound=nn.Module)
# Words of errors without a type of their own: those of PyTorch's CPU allocator, oneDNN, MPS, cuDNN, Pillow, OpenCV.
NO_MEMORY = re.compile(
    "out of memory|not enough memory|allocate memory|insufficient memory|could not create a memory|bad_alloc"
    "|CUDNN_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
# Flags of /proc/cpuinfo: processors with one of them multiply matrices in bfloat16. Others only store numbers in it.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


class TooLittleMemoryError(ValueError):
    """One photograph or video needs more memory than there is; others may not."""


@contextmanager
def naming_lack_of_memory(advice: str) -> Iterator[None]:
    """
    Make what libraries raise where memory ends one error, of these words.

    Raises:
        TooLittleMemoryError: for `MemoryError`, PyTorch's `OutOfMemoryError`, and what `NO_MEMORY` knows by its words.
    """
    try:
        yield
    except Exception as error:
        lacks_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
            # `cv2.error` is of neither type; its message is a file and a line of OpenCV's, and then the reason.
            (isinstance(error, RuntimeError | OSError) or type(error).__module__ == "cv2")
            and NO_MEMORY.search(str(error)) is not None
        )
        if not lacks_memory and getattr(error, "errno", None) != errno.ENOMEM:
            raise
        raise TooLittleMemoryError(advice) from error


def choose_device(name: str | None) -> torch.device:
    """
    Raises:
        ValueError: for a device that is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the latter where torch is built without CUDA
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device {name} cannot be used: {reason}") from error


def choose_dtype(name: str, device: torch.device, saved: torch.dtype) -> torch.dtype:
    """
    The type that a model computes in.

    Args:
        name (`str`): of `DTYPES`. `"auto"` is bfloat16 where the device multiplies matrices in it, and float32
            elsewhere; a model that was saved in float16 or float64 keeps its type.
        device (`torch.device`): where the model computes.
        saved (`torch.dtype`): the type of its weights.
    """
    if name != "auto":
        return getattr(torch, name)
    if saved in (torch.float16, torch.float64):
        return saved
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """
    Whether a device multiplies matrices in bfloat16, and so is faster in it than in float32. Of CPUs those of x86
    under Linux are known; of others it is not known here, and the answer is `False`.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Convolutions in bfloat16 are oneDNN's (once called MKL-DNN); PyTorch's own are slow.
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return not BFLOAT16_FLAGS.isdisjoint(read_cpu_flags())


def read_cpu_flags(path: str | Path = "/proc/cpuinfo") -> set[str]:
    """What the processor can do, in the words of Linux; empty where there is no such file."""
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return set()
    # A line for each core, "flags : fpu vme ...", all alike.
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def prepare_for_inference(model: Model, device: torch.device, dtype: str = "auto") -> Model:
    """
    Bring a DenseCLIP to a device, fuse it and let it compute in a type, all in place; `dtype` as in [`choose_dtype`].

    Batch norms are folded and class embeddings computed in float32 at least, and rounded once, at the end.
    """
    chosen = choose_dtype(dtype, device, model.dtype)
    return model.to(device, torch.promote_types(model.dtype, torch.float32)).fuse().to(chosen)
