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
"""What the package offers by name, and its registration with the Auto classes, which importing this file does."""

from transformers import AutoConfig, AutoModel, AutoModelForSemanticSegmentation, AutoProcessor

# `from transformers import AutoImageProcessor` is a placeholder where torchvision is missing, up to transformers 5.17.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from .class_names_denseclip import ClassNameReport, tokenize_class_names
from .configuration_denseclip import DenseCLIPConfig, DenseCLIPResNetConfig
from .image_processing_denseclip import DenseCLIPImageProcessor
from .inference_denseclip import average_probabilities, multi_scale_inference
from .modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPSemanticSegmenterOutput
from .modeling_denseclip_resnet import DenseCLIPResNetBackbone


AutoConfig.register("denseclip", DenseCLIPConfig, exist_ok=True)
AutoConfig.register("denseclip_resnet", DenseCLIPResNetConfig, exist_ok=True)
AutoModel.register(DenseCLIPConfig, DenseCLIPForSemanticSegmentation, exist_ok=True)
AutoModelForSemanticSegmentation.register(DenseCLIPConfig, DenseCLIPForSemanticSegmentation, exist_ok=True)
AutoImageProcessor.register(DenseCLIPConfig, slow_image_processor_class=DenseCLIPImageProcessor, exist_ok=True)
# What prepares inputs, as for other segmentation models. Of a folder, AutoProcessor would take the tokenizer instead.
AutoProcessor.register(DenseCLIPConfig, DenseCLIPImageProcessor, exist_ok=True)
# `save_pretrained` copies the code beside the weights, so that they load where this package is not installed.
DenseCLIPConfig.register_for_auto_class()
DenseCLIPForSemanticSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")
DenseCLIPImageProcessor.register_for_auto_class("AutoImageProcessor")


__all__ = [
    "ClassNameReport",
    "DenseCLIPConfig",
    "DenseCLIPForSemanticSegmentation",
    "DenseCLIPImageProcessor",
    "DenseCLIPResNetBackbone",
    "DenseCLIPResNetConfig",
    "DenseCLIPSemanticSegmenterOutput",
    "average_probabilities",
    "multi_scale_inference",
    "tokenize_class_names",
]
