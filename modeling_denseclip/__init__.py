"""DenseCLIP for Hugging Face Transformers. What goes to the Hub with a checkpoint lies flat in this folder."""

import os
import sys


if os.path.basename(sys.argv[0] if sys.argv else "").removesuffix(".exe") == "denseclip":
    # The command is starting. Until it has imported PyTorch and the rest, nobody else sees Ctrl-C.
    def _end_quietly(error_type, error, traceback):
        if issubclass(error_type, KeyboardInterrupt):
            os._exit(130)
        sys.__excepthook__(error_type, error, traceback)

    sys.excepthook = _end_quietly

from transformers import AutoConfig, AutoModel, AutoModelForSemanticSegmentation, AutoProcessor

# `from transformers import AutoImageProcessor` is a placeholder where torchvision is missing, up to transformers 5.17.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from .class_names_denseclip import ClassNameReport, tokenize_class_names
from .configuration_denseclip import DenseCLIPConfig, DenseCLIPResNetConfig
from .image_processing_denseclip import DenseCLIPImageProcessor
from .inference_denseclip import average_probabilities, multi_scale_inference
from .modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPSemanticSegmenterOutput
from .modeling_denseclip_resnet import DenseCLIPResNetBackbone
from .tools.pictures import plot_score_maps, plot_segmentation


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
    "plot_score_maps",
    "plot_segmentation",
    "tokenize_class_names",
]
