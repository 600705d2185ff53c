# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""A model and the processor of its images, as commands name them."""

import hashlib
import json
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
