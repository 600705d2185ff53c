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

import torch
from transformers import PreTrainedConfig

from ..class_names_denseclip import load_clip_tokenizer
from ..configuration_denseclip import DenseCLIPConfig
from ..image_processing_denseclip import DenseCLIPImageProcessor
from ..modeling_denseclip import DenseCLIPForSemanticSegmentation


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


def load_model(
    name_or_path: str, is_clip: bool, tokenizer: str | None
) -> tuple[DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor]:
    """
    A DenseCLIP or CLIP to score texts with, with its tokenizer, and what prepares its images.

    Raises:
        ValueError: for a model of another kind.
    """
    if is_clip:
        # A model has classes; these words of one are in nothing that is drawn.
        model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(name_or_path, ["thing"], tokenizer)
        return model, DenseCLIPImageProcessor()
    model_type = PreTrainedConfig.get_config_dict(name_or_path)[0].get("model_type")
    if model_type != DenseCLIPConfig.model_type:
        advice = " Say --clip to score with it as it is." if model_type == "clip" else ""
        raise ValueError(f"{name_or_path} is no DenseCLIP: the model_type in its config is {model_type!r}.{advice}")
    model = DenseCLIPForSemanticSegmentation.from_pretrained(name_or_path)
    if tokenizer is not None:
        model.tokenizer = load_clip_tokenizer(tokenizer)
    return model, DenseCLIPImageProcessor.from_pretrained(name_or_path)
