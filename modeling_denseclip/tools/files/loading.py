# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""A model, the processor of its images, and the device that they run on, as commands name them."""

import errno
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HTTPError, StrictDataclassError
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from ...configuration_denseclip import DenseCLIPConfig, shorten
from ...image_processing_denseclip import DenseCLIPImageProcessor
from ...loading_denseclip import CLEAR_ERRORS, ask_hub, load_clip_tokenizer
from ...modeling_denseclip import DenseCLIPForSemanticSegmentation
from ..options.names import check_model_name


# Ten times the largest card of the Hub. PyYAML reads about 100 kB in a second.
MAX_YAML_BYTES = 2**18
# An alias repeats what was read before, with the aliases in it, so that a few lines can stand for values without end.
# Files that people write have none; programs write one where a list occurs twice.
MAX_YAML_ALIASES = 100
MAX_YAML_VALUES = 10**5
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


def prepare_for_inference(
    model: DenseCLIPForSemanticSegmentation, device: torch.device, dtype: str = "auto"
) -> DenseCLIPForSemanticSegmentation:
    """
    Bring a model to a device, fuse it and let it compute in a type, all in place; `dtype` as in [`choose_dtype`].

    Batch norms are folded and class embeddings computed in float32 at least, and rounded once, at the end.
    """
    chosen = choose_dtype(dtype, device, model.dtype)
    return model.to(device, torch.promote_types(model.dtype, torch.float32)).fuse().to(chosen)


def digest_model(model: DenseCLIPForSemanticSegmentation, image_processor: DenseCLIPImageProcessor) -> str:
    """
    Some letters that change when a model learns on, or its config or the preparation of its images changes, wherever
    it lies. Of each tensor the sum of its bytes is taken, eight of them as one number: a tenth of a second for a
    gigabyte.
    """
    sums = {}
    for name, tensor in model.state_dict().items():
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        whole = len(data) // 8 * 8
        total = data[:whole].view(np.int64).sum(dtype=np.int64) + data[whole:].sum(dtype=np.int64)
        sums[name] = [str(tensor.dtype), list(tensor.shape), int(total)]
    config = {name: value for name, value in model.config.to_dict().items() if name != "transformers_version"}
    config.pop("_name_or_path", None)
    text = json.dumps([sums, config, image_processor.to_dict()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]


class _BoundedLoader(yaml.SafeLoader):
    def __init__(self, stream: str):
        super().__init__(stream)
        self.aliases = 0

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_YAML_ALIASES:
                raise ValueError(f"it holds more than {MAX_YAML_ALIASES} aliases")
        return super().compose_node(parent, index)

    def flatten_mapping(self, node):
        super().flatten_mapping(node)
        if len(node.value) > MAX_YAML_VALUES:
            raise ValueError(f"it holds more than {MAX_YAML_VALUES} values")


def parse_yaml(text: str, source: str) -> Any:
    """
    What a YAML text holds; `source` is what an error calls it.

    Raises:
        ValueError: for no YAML, or more of it than anybody writes, aliases counted as what they stand for.
    """
    try:
        if len(text.encode()) > MAX_YAML_BYTES:
            raise ValueError(f"it is longer than {MAX_YAML_BYTES} bytes")
        content = _BoundedLoader(text).get_single_data()
        remaining, count = [content], 0
        while remaining:
            value = remaining.pop()
            count += 1
            if count > MAX_YAML_VALUES:
                raise ValueError(f"it holds more than {MAX_YAML_VALUES} values, or itself")
            if isinstance(value, dict):
                remaining += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple | set):
                remaining += value
        return content
    except Exception as error:  # PyYAML raises many types: for a date of month 13, for brackets without end, ...
        raise ValueError(f"{source} is no valid YAML: {shorten(error)}") from error


def read_card_head(path: str | Path, source: str) -> dict[str, Any]:
    """
    The head of a model card, of which no more is read; empty where it has none.

    Raises:
        ValueError: for a head that is no mapping in YAML.
    """
    with open(path, "rb") as file:
        text = file.read(MAX_YAML_BYTES + 1).decode("utf-8-sig", errors="replace")
    found = REGEX_YAML_BLOCK.search(text)
    if found is None and not (text.lstrip().startswith("---") and len(text) > MAX_YAML_BYTES):
        return {}
    head = parse_yaml(found[2] if found else text, source)
    if not isinstance(head, dict | None):
        raise ValueError(f"{source} is no valid YAML: a {type(head).__name__}, not a mapping of fields to values")
    return head or {}


def read_json(path: str | Path) -> dict[str, Any]:
    """
    A JSON file of fields and values.

    Raises:
        ValueError: for a file that is no JSON or holds something else.
        OSError: for a file that is not there.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no valid JSON: {shorten(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; it is a mapping of fields to values.")
    return content


@contextmanager
def naming_model(name: str, revision: str, filename: str) -> Iterator[None]:
    """
    Make whatever Transformers raises of the files of a model an error of one line that names it.

    Raises:
        OSError: for a file that is not there or that the Hub does not give.
        ValueError: for all others but memory that is full.
    """
    try:
        yield
    except StrictDataclassError as error:
        raise ValueError(f"The config of {name} is invalid: {shorten(error)}") from error
    except OSError as error:
        raise ask_hub(name, filename, revision=revision) or _on_one_line(error) from error
    except ValueError as error:
        raise _on_one_line(error) from error
    except CLEAR_ERRORS:
        raise
    except Exception as error:
        if "ignore_mismatched_sizes" in str(error):
            raise ValueError(
                f"The weights in {name} have other shapes than its config says; the report above names them. Both"
                " have to come from one model."
            ) from error
        raise ValueError(f"{name} cannot be loaded: {filename} ({type(error).__name__}: {shorten(error)}).") from error


def _on_one_line(error: ValueError | OSError) -> ValueError | OSError:
    if "\n" not in str(error):
        return error
    return (OSError if isinstance(error, OSError) else ValueError)(shorten(error))


def read_config(name_or_path: str, revision: str = "main") -> DenseCLIPConfig:
    """
    The config of a checkpoint, a folder or a repository on the Hub, of which nothing else is read or downloaded.

    Raises:
        ValueError: for what is no checkpoint, or one of another kind.
        OSError: for a repository that cannot be reached.
    """
    check_model_name(name_or_path)
    try:
        fields = DenseCLIPConfig.get_config_dict(name_or_path, revision=revision)[0]
    except OSError as error:
        # Where a connection failed, the error of Transformers suspects a folder of that name.
        reason = error.__context__
        if isinstance(reason, HTTPError) and not isinstance(reason, HfHubHTTPError):
            raise ConnectionError(
                f"The connection to {constants.ENDPOINT} failed ({reason}), so {name_or_path} could not be loaded. Try"
                " again later, or name a folder."
            ) from error
        raise ask_hub(name_or_path, "config.json", revision=revision) or error from error
    if not fields:
        raise ValueError(f"{name_or_path} has no config.json: name the folder that `save_pretrained` wrote.")
    model_type = fields.get("model_type")
    if model_type != DenseCLIPConfig.model_type:
        advice = " Score with a CLIP by `python -m training.score_text --clip`." if model_type == "clip" else ""
        shown = shorten(repr(model_type))
        raise ValueError(f"{name_or_path} is no DenseCLIP: the model_type in its config is {shown}.{advice}")
    with naming_model(name_or_path, revision, "config.json"):
        return DenseCLIPConfig.from_dict(fields)


def load_model(
    name_or_path: str, is_clip: bool = False, tokenizer: str | None = None, revision: str = "main", **kwargs
) -> tuple[DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor]:
    """
    A model, in evaluation mode, and what prepares its images.

    Args:
        name_or_path (`str`): a DenseCLIP: a folder, or the id of a repository on the Hub.
        is_clip (`bool`, *optional*, defaults to `False`): it is a CLIP instead, to score texts with.
        tokenizer (`str`, *optional*): where CLIP's tokenizer is, if not beside the model.
        revision (`str`, *optional*, defaults to `"main"`): branch, tag or commit of a DenseCLIP on the Hub.
        kwargs: for `from_pretrained`, such as `dtype`.

    Raises:
        ValueError: for a model of another kind, or whose weights are missing, cut off or do not fit its config.
        OSError: for a repository that cannot be reached.
    """
    if is_clip:
        # A model needs a class. The name of this one is shown nowhere.
        model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(name_or_path, ["thing"], tokenizer)
        return model, DenseCLIPImageProcessor()
    return load_denseclip(name_or_path, revision, tokenizer, **kwargs), load_image_processor(name_or_path, revision)


def load_denseclip(
    name_or_path: str, revision: str = "main", tokenizer: str | None = None, **kwargs
) -> DenseCLIPForSemanticSegmentation:
    """A DenseCLIP alone, in evaluation mode; as [`load_model`]."""
    config = read_config(name_or_path, revision)
    if config.class_names is not None and len(config.class_names) != len(config.id2label):
        raise ValueError(
            f"The weights in {name_or_path} are of {len(config.class_names)} classes (`class_names` in its config),"
            f" and its `id2label` names {len(config.id2label)}. Undo the edit; other classes come by"
            " `set_class_names`, and have to be trained."
        )
    with naming_model(name_or_path, revision, "model.safetensors"):
        model, loaded = DenseCLIPForSemanticSegmentation.from_pretrained(
            name_or_path, revision=revision, output_loading_info=True, **kwargs
        )
    if loaded["missing_keys"]:
        raise ValueError(
            f"The weights in {name_or_path} lack {len(loaded['missing_keys'])} tensors, which would be random:"
            f" {', '.join(sorted(loaded['missing_keys'])[:5])}. Config and weights have to come from one model."
        )
    if tokenizer is not None:
        model.tokenizer = load_clip_tokenizer(tokenizer)
    return model


def load_image_processor(name_or_path: str, revision: str = "main") -> DenseCLIPImageProcessor:
    """
    What prepares the images of a model.

    Raises:
        ValueError: for fields that it does not take.
        OSError: where the file is missing or no JSON, or the Hub does not give it.
    """
    with naming_model(name_or_path, revision, "preprocessor_config.json"):
        return DenseCLIPImageProcessor.from_pretrained(name_or_path, revision=revision)
