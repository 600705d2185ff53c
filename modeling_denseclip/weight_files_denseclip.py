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
"""Files of weights from elsewhere: what they hold, read so that nothing a pickle asks for is executed."""

import math
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file


# The keys under which training programs save weights beside the optimizer and more (mmcv, Lightning, open_clip, DeiT,
# DeepSpeed, BasicSR, tutorials of PyTorch). The first that a file has is taken, and searched again.
NESTINGS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "params", "weights", "checkpoint")
# The keys of averaged weights, which are taken where there are no others.
AVERAGES = ("ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema")
# What torch.compile and FSDP put into names.
WRAPPERS = r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names, for errors, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


class _RestrictedUnpickler(pickle.Unpickler):
    """
    Reads the tensors of a TorchScript archive and nothing else: objects become bare holders of their attributes, and
    no function that the pickle names is called, save the one that makes a tensor of a storage.
    """

    class Holder:
        def __setstate__(self, state):
            self.state = state

    def __init__(self, file, archive: zipfile.ZipFile, root: str):
        super().__init__(file)
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str):
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name.endswith("Storage"):
            return name
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
            return lambda value, *_: value
        if module.startswith("__torch__"):
            return self.Holder
        raise pickle.UnpicklingError(f"The archive asks for {module}.{name}, which no weights need.")

    def persistent_load(self, reference):
        _, storage_type, key, _, _ = reference
        data_type = getattr(torch, _STORAGE_TYPES[storage_type])
        data = bytearray(self.archive.read(f"{self.root}/data/{key}"))
        return torch.frombuffer(data, dtype=data_type) if data else torch.empty(0, dtype=data_type)

    @staticmethod
    def rebuild_tensor(storage, offset, size, stride, *_):
        if math.prod(size) > storage.numel():
            raise ValueError(f"a tensor of shape {tuple(size)} with {storage.numel()} values")
        return torch.as_strided(storage, size, stride, offset).clone()


_STORAGE_TYPES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "BoolStorage": "bool",
}


def read_torchscript(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Parameters and buffers of a TorchScript archive, by name. Its code is not run, nor any pickled function."""
    tensors = {}

    def collect(prefix: str, holder) -> None:
        for name, value in holder.state.items():
            if isinstance(value, torch.Tensor):
                tensors[prefix + name] = value
            elif isinstance(value, _RestrictedUnpickler.Holder):
                collect(f"{prefix}{name}.", value)

    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/", maxsplit=1)[0]
        with archive.open(f"{root}/data.pkl") as file:
            collect("", _RestrictedUnpickler(file, archive, root).load())
    return tensors


class _NumpyType:
    """
    Stands in for `numpy.dtype` in a pickle: the type of numbers, truth values or text. Of any other, such as objects,
    which a pickle could make anything of, none is made.
    """

    def __init__(self, code, *_):
        if not isinstance(code, str) or not re.fullmatch(r"[biufcUS][1-9]\d*", code):
            raise pickle.UnpicklingError(f"It asks for numpy.dtype({code!r}), which no weights need.")
        self.code = code

    def __setstate__(self, state):
        self.code = state[1].replace("|", "") + self.code  # the order of bytes; what follows belongs to other types

    def read(self, data) -> np.ndarray:
        if not isinstance(data, bytes):
            raise pickle.UnpicklingError(f"It asks for numpy values of {type(data).__name__}, which no weights need.")
        return np.frombuffer(data, np.dtype(self.code)) if data else np.empty(0, np.dtype(self.code))


class _NumpyArray(np.ndarray):
    """Stands in for `numpy.ndarray` in a pickle: an array of plain values, as large as the bytes that it holds."""

    def __new__(cls, *_):
        return super().__new__(cls, 0)  # whatever size is asked for: values come by `__setstate__`

    def __setstate__(self, state):
        _, shape, data_type, is_fortran, data = state
        values = data_type.read(data)
        if not all(isinstance(side, int) and side > 0 for side in shape):
            shape = (0,)
        values = values.reshape(shape)  # fails where there are not so many
        super().__setstate__((1, values.shape, values.dtype, bool(is_fortran), data))


class _Record:
    """Stands in for an object that is nothing but its attributes, of which weights need none."""

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


def _read_numpy_scalar(data_type: _NumpyType, data: bytes):
    (value,) = data_type.read(data)
    return value.item()


def _empty_bytes(*_) -> bytes:
    return b""  # all that `bytes` is called for: others are written out


# What a pickle of weights may name besides what `torch.load(weights_only=True)` knows, and what is made of it. None of
# it is imported or called by that name.
PLAIN_DATA = [
    *((_read_numpy_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),  # NumPy 1 and 2
    *((_NumpyArray, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (_NumpyArray, "numpy.ndarray"),
    (_NumpyType, "numpy.dtype"),
    (_empty_bytes, "builtins.bytes"),
    # The command line of a training program.
    (_Record, "argparse.Namespace"),
    *((_Record, f"pathlib.{place}{kind}Path") for place in ("", "_local.") for kind in ("Posix", "Windows")),
]


def read_checkpoint(path: str | os.PathLike) -> dict:
    """
    What a checkpoint file holds: tensors by name, or what a training program saved with them, such as
    `{"state_dict": ..., "meta": ...}`. Values and arrays of NumPy are read, objects of other kinds are not.

    Raises:
        ValueError: for a file that is no checkpoint, or one that holds more than data.
    """
    path = Path(path)
    allowed = torch.serialization.get_safe_globals()
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        refuse_compressed(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                    return read_torchscript(path)
        # What the program around us allows all its files is not allowed this one.
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(PLAIN_DATA)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        advice = ""
        if not isinstance(error, pickle.UnpicklingError):
            reason = f"{type(error).__name__} {str(error).split(chr(10))[0]}".rstrip(". ")
        elif asked := re.search(r"GLOBAL (\S+)|asks for (.+?), which", str(error)):
            reason = f"it asks for {asked[1] or asked[2]}, which no weights need"
            advice = (
                " If you trust it, load it where it was made and save its weights alone:"
                " `torch.save(model.state_dict(), path)`, or `torch.save(checkpoint['state_dict'], path)`."
            )
        else:
            reason = "it is no file of tensors"  # torch's message would advise to load the pickle after all
        raise ValueError(
            f"{path} could not be read as weights: {reason}. Safetensors, files of tensors saved by torch, and"
            f" OpenAI's TorchScript archives can be. Nothing that a pickle asks for is executed.{advice}"
        ) from error
    finally:
        # Torch may have allowed more in the meantime, as it does when it imports a part of itself.
        allowed = {*allowed, *torch.serialization.get_safe_globals()} - {*PLAIN_DATA}
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


def refuse_compressed(path: str | os.PathLike):
    """
    Raises:
        ValueError: for an archive of tensors that are compressed. Torch compresses code and nothing else; a few bytes
            could become any number.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(
                member.compress_type != zipfile.ZIP_STORED and re.search(r"/data/|\.pkl$", member.filename)
                for member in archive.infolist()
            ):
                raise ValueError("its tensors are compressed, which those of torch are not")


def find_weights(
    checkpoint, path: Path, first_layers: Sequence[str]
) -> tuple[dict[str, torch.Tensor], dict, tuple[str, ...]]:
    """
    The weights of one model among all that `read_checkpoint` has read of a file, wherever a training program has put
    them: under `NESTINGS`, in wrappers such as `DistributedDataParallel`, beside averaged copies of themselves. The
    model has one of the tensors `first_layers`; what stands before its name, such as "module.", stands before all.

    Returns:
        The tensors by the names that they have in the model itself; the `meta` of mmcv beside them, if any; and the
        names of averaged copies, which are left out.

    Raises:
        ValueError: for a file without such weights, or with two.
    """
    meta = {}
    for _ in range(len(NESTINGS)):  # a dictionary may hold itself
        if not isinstance(checkpoint, dict):
            break
        meta = checkpoint["meta"] if isinstance(checkpoint.get("meta"), dict) else meta
        inner = [key for key in (*NESTINGS, *AVERAGES) if isinstance(checkpoint.get(key), dict)]
        if not inner:
            break
        refuse_two_models({key: checkpoint[key] for key in inner if key in NESTINGS}, path)
        checkpoint = checkpoint[inner[0]]
    checkpoint = checkpoint if isinstance(checkpoint, dict) else {}
    others = [
        f"{name!r} is a {type(value).__name__}"
        for name, value in checkpoint.items()
        if not isinstance(name, str) or not isinstance(value, torch.Tensor)
    ]
    if not checkpoint or others:
        raise ValueError(
            f"{path} holds no tensors by name, nor a dictionary of such as {', '.join(map(repr, NESTINGS))}; it is no"
            f" checkpoint{': ' + listed(others, 3) if others else ''}. Save the weights alone:"
            " `torch.save(model.state_dict(), path)`."
        )
    unfit = [
        name
        for name, tensor in checkpoint.items()
        if tensor.layout != torch.strided
        or tensor.is_quantized
        or tensor.is_meta
        or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
    ]
    if unfit:
        raise ValueError(
            f"{path} holds tensors that are sparse or quantised, or have fewer values than their shape says:"
            f" {listed(unfit)}. Save dense floating-point ones."
        )

    names = {name: re.sub(WRAPPERS, "", name) for name in checkpoint}
    prefixes = {
        name.removesuffix(first)
        for name in names.values()
        for first in first_layers
        if name == first or name.endswith(f".{first}")
    }
    averaged = {prefix for prefix in prefixes if re.search(r"(^|[._])ema[._]", prefix)}
    live = sorted(prefixes - averaged or averaged)
    if len(live) > 1:
        raise ValueError(
            f"{path} holds the weights of {len(live)} models, under {', '.join(map(repr, live))}. Save those of one:"
            " `torch.save(model.state_dict(), path)`."
        )
    prefix = live[0] if live else ""
    others = tuple(averaged - {prefix})
    state_dict, copies = {}, []
    for name, plain in names.items():
        if (others and plain.startswith(others)) or plain == "n_averaged":  # the counter of torch's AveragedModel
            copies.append(name)
        elif plain.removeprefix(prefix) in state_dict:
            raise ValueError(f"{path} holds {plain.removeprefix(prefix)} twice, as {name} too. Save each tensor once.")
        else:
            state_dict[plain.removeprefix(prefix)] = checkpoint[name].detach()
    # mmcv's EMAHook: buffers of the model itself.
    for name in {f"ema_{name.replace('.', '_')}" for name in state_dict} & state_dict.keys():
        copies.append(name)
        del state_dict[name]
    return state_dict, meta, tuple(copies)


def refuse_two_models(parts: dict[str, dict], path: Path):
    """
    Raises:
        ValueError: for several dictionaries of tensors that are not the same.
    """
    models = {
        key: part for key, part in parts.items() if part and all(isinstance(t, torch.Tensor) for t in part.values())
    }
    first, *others = models.values() or [{}]
    if any(
        other.keys() != first.keys() or not all(torch.equal(tensor, other[name]) for name, tensor in first.items())
        for other in others
    ):
        raise ValueError(
            f"{path} holds the weights of {len(models)} models, under {', '.join(map(repr, models))}. Save those of"
            " one: `torch.save(model.state_dict(), path)`."
        )


__all__ = ["find_weights", "read_checkpoint", "refuse_compressed"]
