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
"""Checks of files from elsewhere, which come before a model is made of them or memory of their size is taken."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from huggingface_hub import _CACHED_NO_EXIST, constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError, StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from transformers import CLIPTokenizer, PreTrainedTokenizerBase
from transformers.modeling_utils import load_state_dict
from transformers.utils.hub import cached_file

from .configuration_denseclip import WEIGHT_DTYPES, shorten
from .weight_files_denseclip import refuse_compressed


HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
# Modules take memory even where their weights do not. The largest backbone of Transformers has a fifth of so many.
MAX_MODULES = 10_000
# How many numbers of a model its weights may lack, besides two for each byte of them, as of 4-bit quantised ones.
MAX_NEW_NUMBERS = 10**8
# Errors that are passed on as they are: they are clear, or the caller's to handle, or no fault of the file.
CLEAR_ERRORS = (ValueError, OSError, ImportError, StrictDataclassError, torch.OutOfMemoryError)
# How many modules this thread has made of a config; `None` where it makes none.
_num_modules: ContextVar[int | None] = ContextVar("num_modules", default=None)


@contextmanager
def refusing_unbuildable() -> Iterator[None]:
    """
    A decorator, `@refusing_unbuildable()`, for the `__init__` of a model.

    Raises:
        ValueError: for whatever Transformers or torch raises of a config whose values do not go together, and for more
            than `MAX_MODULES` modules that this thread makes.
    """

    def count_one(*_):
        count = _num_modules.get()
        if count is not None:
            _num_modules.set(count + 1)
            if count >= MAX_MODULES:
                raise ValueError(f"The config asks for more than {MAX_MODULES} modules; no model has so many layers.")

    token = _num_modules.set(0)
    hook = register_module_module_registration_hook(count_one)
    try:
        yield
    except CLEAR_ERRORS:
        raise
    except Exception as error:
        raise ValueError(
            f"No model can be built of this config ({type(error).__name__}: {shorten(error)})."
        ) from error
    finally:
        hook.remove()
        _num_modules.reset(token)


def check_weight_files(model: nn.Module, files: Sequence[str], folder: str | None, is_quantized: bool = False):
    """
    Compare a model on the meta device with the heads of its weights, of which no number is read. The files may be
    safetensors or what torch has saved; quantised weights are integers.

    Raises:
        ValueError: for files elsewhere, numbers of another kind, or a model far larger than its weights.
    """
    found = {}
    for file in files:
        check_is_inside(file, folder)
        if not file.endswith(".safetensors"):
            try:
                refuse_compressed(file)
            except ValueError as error:
                raise ValueError(f"{file} cannot be read: {error}.") from error
        found |= load_state_dict(file, map_location="meta")
    own = dict(model.state_dict())
    if not is_quantized:
        check_number_types(own, found)
    fitting = {name for name, tensor in own.items() if name in found and found[name].shape == tensor.shape}
    named = own | dict(model.named_buffers())
    new = sum(tensor.numel() for name, tensor in named.items() if name not in fitting)
    num_bytes = sum(Path(file).stat().st_size for file in files)
    limit = MAX_NEW_NUMBERS + 2 * num_bytes
    if new > limit:
        raise ValueError(
            f"The config asks for {new} numbers that the weights do not hold, of which at most {limit} would be made"
            f" beside {num_bytes} bytes of weights. Config and weights have to come"
            " from one model."
        )


def read_heads(name: str | os.PathLike, **hub_kwargs) -> dict[str, torch.Tensor]:
    """
    Type and shape of each tensor of a checkpoint in one file of safetensors; of others none. A tensor is named as it
    is and without the first part of its name: of a model with a head, the image encoder is a part.
    """
    path = cached_file(name, "model.safetensors", _raise_exceptions_for_missing_entries=False, **hub_kwargs)
    heads = {} if path is None else load_state_dict(path, map_location="meta")
    return {name.partition(".")[2]: tensor for name, tensor in heads.items()} | heads


def check_number_types(own: dict[str, torch.Tensor], found: dict[str, torch.Tensor]):
    """
    Raises:
        ValueError: for tensors in files that are integers, truth values, complex or of 8 bits where a model has
            floating-point numbers: they would be taken for such. Also the other way round.
    """
    mistyped = [
        f"{name} ({found[name].dtype})"
        for name, tensor in own.items()
        if name in found and (found[name].dtype in WEIGHT_DTYPES) != tensor.is_floating_point()
    ]
    if mistyped:
        raise ValueError(
            f"The weights hold {len(mistyped)} tensors of another type than the model has: {', '.join(mistyped[:5])}."
            " Weights are float32, float16, bfloat16 or float64. Save the model again where it was made."
        )


def check_is_inside(file: str, folder: str | None):
    """
    Raises:
        ValueError: for a shard whose name leads out of its checkpoint.
    """
    path = Path(file)
    if folder is not None and Path(folder).is_dir():
        inside = path.is_relative_to(folder) and ".." not in path.relative_to(folder).parts
    else:  # the cache of the Hub, whose names hold no ".."
        inside = "snapshots" in path.parts and ".." not in path.parts
    if not inside and str(file) != str(folder):
        raise ValueError(
            f"The index of the weights names {file}, which is not in {folder or 'its repository'}. Shards lie beside"
            " their index."
        )


@contextmanager
def naming_checkpoint(name: str | os.PathLike) -> Iterator[None]:
    """
    Make what the readers of weights raise an error that names the checkpoint.

    Raises:
        ValueError: for anything but errors of arguments, and of shapes, which Transformers words itself.
    """
    try:
        yield
    except SafetensorError as error:
        raise ValueError(
            f"The weights in {name} cannot be read ({error}): the file is cut off, or no safetensors. Save or download"
            " it again."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"The index of the weights in {name} is no valid JSON: {shorten(error)}.") from error
    except CLEAR_ERRORS:
        raise
    except Exception as error:
        if re.search("ignore_mismatched_sizes|unexpected keyword|meta device context", str(error)):
            raise
        if type(error).__name__ == "UnpicklingError":  # torch advises to load the pickle after all
            raise ValueError(
                f"The weights in {name} are a pickle that holds more than tensors, or none. Nothing that it asks for"
                " was executed. Take a checkpoint of safetensors, as `save_pretrained` writes them."
            ) from error
        raise ValueError(f"{name} cannot be loaded ({type(error).__name__}: {shorten(error)}).") from error


class HubError(OSError):
    """What the Hub answered in place of a file."""


def ask_hub(name: str | os.PathLike, filename: str, **hub_kwargs) -> OSError | None:
    """
    Why a file of a repository was not found: Transformers takes any answer for "there is no such file".

    Returns:
        `OSError`, *optional*: a [`HubError`], or a `ConnectionError` where there was no answer; `None` where the
        repository has no such file, or nobody was to be asked.
    """
    if constants.is_offline_mode() or hub_kwargs.get("local_files_only") or Path(name).exists():
        return None
    place = {key: hub_kwargs[key] for key in ("subfolder", "revision") if hub_kwargs.get(key)}
    cached = try_to_load_from_cache(
        str(name),
        str(Path(hub_kwargs.get("subfolder") or "", filename)),
        cache_dir=hub_kwargs.get("cache_dir") or constants.HF_HUB_CACHE,
        revision=hub_kwargs.get("revision"),
    )
    if cached is _CACHED_NO_EXIST:
        return None
    try:
        get_hf_file_metadata(hf_hub_url(str(name), filename, **place), token=hub_kwargs.get("token"))
    except (EntryNotFoundError, ValueError):  # the latter for what is no id of a repository
        return None
    except HfHubHTTPError as error:
        status, said = error.response.status_code, error.server_message or error.response.reason_phrase
        return HubError(
            f"The Hub answered with status {status} ({said}) for {filename} of {name}. Try again later, or name a"
            " folder."
        )
    except (HTTPError, OSError) as error:
        return ConnectionError(
            f"The connection to {constants.ENDPOINT} failed ({shorten(error)}), so {filename} of {name} could not be"
            " loaded. Try again later, or name a folder."
        )
    return None


def find_file(name_or_path: str | os.PathLike, filename: str, **hub_kwargs) -> str | None:
    """
    Path of a file of a directory or Hub repository, or `None` where that has no such file or cannot be reached.

    Raises:
        OSError: for what is neither, and where the Hub answers with another error than that there is no such file.
    """
    path = cached_file(
        name_or_path,
        filename,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **hub_kwargs,
    )
    if path is None and isinstance(error := ask_hub(name_or_path, filename, **hub_kwargs), HubError):
        raise error
    return path


def find_tokenizer(name_or_path: str | os.PathLike, **hub_kwargs) -> str | None:
    """Path of a file that CLIP's tokenizer is read from; as `find_file`."""
    path = find_file(name_or_path, "tokenizer.json", **hub_kwargs)
    return path or find_file(name_or_path, "vocab.json", **hub_kwargs)


def load_clip_tokenizer(name_or_path: str | os.PathLike, **hub_kwargs) -> PreTrainedTokenizerBase:
    """
    CLIP's tokenizer from a directory or Hub repository.

    Raises:
        ValueError: where there is none (Transformers would make an empty one, which reads every word alike), or it
            cannot be read.
        OSError: where the Hub answers with an error.
    """
    try:
        found = find_tokenizer(name_or_path, **hub_kwargs)
    except HubError:
        raise
    except OSError:  # neither a directory nor the id of a repository
        found = None
    if found is None:
        raise ValueError(
            f"No CLIP tokenizer (tokenizer.json or vocab.json) was found in {str(name_or_path)!r}. Pass `tokenizer`"
            " (`--tokenizer` on the command line): a directory or Hub repository that holds it, such as"
            " 'openai/clip-vit-base-patch16'."
        )
    # Not AutoTokenizer: it reads the model's config, and asks whether to run the model's code for that.
    try:
        return CLIPTokenizer.from_pretrained(name_or_path, **hub_kwargs)
    except Exception as error:  # its readers raise anything, and none of them names the file
        raise ValueError(
            f"The CLIP tokenizer in {str(name_or_path)!r} cannot be read: {found} is cut off or of another kind"
            f" ({type(error).__name__}: {error}). Save or download it again."
        ) from error
