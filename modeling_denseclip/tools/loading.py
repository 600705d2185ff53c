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
r"""A model, the processor of its images, and the device that they run on, as commands name them."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedConfig

from ..class_names_denseclip import load_clip_tokenizer
from ..configuration_denseclip import DenseCLIPConfig
from ..image_processing_denseclip import DenseCLIPImageProcessor
from ..modeling_denseclip import DenseCLIPForSemanticSegmentation


# What errors say that have no type of their own: those of PyTorch's CPU allocator, oneDNN, MPS, cuDNN, Pillow, OpenCV.
NO_MEMORY = re.compile(
    "out of memory|not enough memory|allocate memory|insufficient memory|could not create a memory|bad_alloc"
    "|CUDNN_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)


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
            # `cv2.error` is neither of the types; its texts are as OpenCV's file and line, and then a reason.
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


def read_config(name_or_path: str, revision: str = "main") -> DenseCLIPConfig:
    """
    The config of a checkpoint, of which nothing else is read or downloaded.

    Args:
        name_or_path (`str`): a folder, or the id of a repository on the Hub.
        revision (`str`, *optional*, defaults to `"main"`): branch, tag or commit of a repository.

    Raises:
        ValueError: for what is no checkpoint, or one of another kind.
        OSError: for a repository that cannot be reached.
    """
    if not Path(name_or_path).is_dir():
        try:
            validate_repo_id(name_or_path)
        except HFValidationError:
            raise ValueError(
                f"{name_or_path} is neither a folder nor the id of a repository on the Hub, such as user/name."
            ) from None
    try:
        fields = PreTrainedConfig.get_config_dict(name_or_path, revision=revision)[0]
    except OSError as error:
        # Transformers guesses at a folder of that name where a connection broke.
        reason = error.__context__
        if isinstance(reason, HTTPError) and not isinstance(reason, HfHubHTTPError):
            raise ConnectionError(
                f"The connection to {constants.ENDPOINT} failed ({reason}), so {name_or_path} could not be loaded. Try"
                " again later, or name a folder."
            ) from error
        raise
    if not fields:
        raise ValueError(f"{name_or_path} has no config.json: name the folder that `save_pretrained` wrote.")
    model_type = fields.get("model_type")
    if model_type != DenseCLIPConfig.model_type:
        advice = " Score with a CLIP by `python -m training.score_text --clip`." if model_type == "clip" else ""
        raise ValueError(f"{name_or_path} is no DenseCLIP: the model_type in its config is {model_type!r}.{advice}")
    try:
        return DenseCLIPConfig.from_dict(fields)
    except StrictDataclassError as error:
        raise ValueError(f"The config of {name_or_path} is invalid: {' '.join(str(error).split())}") from error


def load_model(
    name_or_path: str, is_clip: bool = False, tokenizer: str | None = None, revision: str = "main"
) -> tuple[DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor]:
    """
    A model, in evaluation mode, and what prepares its images.

    Args:
        name_or_path (`str`): a DenseCLIP: a folder, or the id of a repository on the Hub.
        is_clip (`bool`, *optional*, defaults to `False`): it is a CLIP instead, to score texts with.
        tokenizer (`str`, *optional*): where CLIP's tokenizer is, if not beside the model.
        revision (`str`, *optional*, defaults to `"main"`): branch, tag or commit of a DenseCLIP on the Hub.

    Raises:
        ValueError: for a model of another kind, or whose weights are missing, cut off or do not fit its config.
        OSError: for a repository that cannot be reached.
    """
    if is_clip:
        # A model has classes; these words of one are in nothing that is drawn.
        model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(name_or_path, ["thing"], tokenizer)
        return model, DenseCLIPImageProcessor()
    read_config(name_or_path, revision)
    try:
        model, loaded = DenseCLIPForSemanticSegmentation.from_pretrained(
            name_or_path, revision=revision, output_loading_info=True
        )
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(
            f"The weights in {name_or_path} have other shapes than its config says; the report above names them. Both"
            " have to come from one model."
        ) from error
    if loaded["missing_keys"]:
        raise ValueError(
            f"The weights in {name_or_path} lack {len(loaded['missing_keys'])} tensors, which would be random:"
            f" {', '.join(sorted(loaded['missing_keys'])[:5])}. Config and weights have to come from one model."
        )
    if tokenizer is not None:
        model.tokenizer = load_clip_tokenizer(tokenizer)
    return model, DenseCLIPImageProcessor.from_pretrained(name_or_path, revision=revision)
