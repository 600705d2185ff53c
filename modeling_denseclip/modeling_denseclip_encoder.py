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
"""
Image encoders: four feature maps and, with language, embeddings of the image and its cells in the space of the class
names. CLIP's vision transformer is in `modeling_denseclip_vit.py`. Source: DenseCLIP `models.py` (MIT).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple

from .configuration_denseclip import NUM_FEATURE_LEVELS, DenseCLIPConfig
from .initialization_denseclip import DenseCLIPInitializationMixin, InitializesItself, initialize_as_torch
from .modeling_denseclip_attention import DenseCLIPAttentionPool
from .modeling_denseclip_backbone import build_backbone
from .modeling_denseclip_resnet import DenseCLIPPicklingMixin


@auto_docstring(
    custom_intro="""
    Output of an image encoder of [`DenseCLIPForSemanticSegmentation`].
    """
)
@dataclass
class DenseCLIPImageEncoderOutput(ModelOutput):
    r"""
    feature_maps (`tuple[torch.Tensor]`):
        Four maps of shape `(batch_size, channels, height, width)`, each of half the size of the one before: at
        strides 4, 8, 16 and 32, or a quarter to twice a ViT's patch. They show the whole image, whose sides count as
        the next multiples of the coarsest stride (with `config.fit_to_grid`).
    global_embedding (`torch.Tensor` of shape `(batch_size, projection_dim)`, *optional*):
        Embedding of the whole image. Only with language.
    pixel_embeddings (`torch.Tensor` of shape `(batch_size, projection_dim, height, width)`, *optional*):
        Embedding of each cell: of stride 32 for hierarchical encoders, of the patch size for ViTs. Only with
        language.
    value_embeddings (`torch.Tensor` of shape `(batch_size, projection_dim, height, width)`, *optional*):
        Embedding of each cell by its own value alone. Only where it is asked for.
    """

    feature_maps: tuple[torch.Tensor, ...] | None = None
    global_embedding: torch.Tensor | None = None
    pixel_embeddings: torch.Tensor | None = None
    value_embeddings: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class DenseCLIPPyramid(InitializesItself, nn.Module):
    """
    Four maps of one ViT stride (16) -> the same at strides 4, 8, 16 and 32.

    Source: published `CLIPVisionTransformer.fpn1` to `fpn4` in `models.py`.
    """

    folded_norms = (("upsample4_first", "upsample4_norm"),)

    def __init__(self, channels: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, channels) for _ in range(NUM_FEATURE_LEVELS))
        self.upsample4_first = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.upsample4_norm = nn.BatchNorm2d(channels)
        self.upsample4_activation = nn.GELU()
        self.upsample4_second = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.upsample2 = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.downsample2 = nn.MaxPool2d(kernel_size=2)

    def initialize_own_weights(self):
        for conv in (self.upsample4_first, self.upsample4_second, self.upsample2):
            initialize_as_torch(conv.weight, conv.bias)

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        stride4, stride8, stride16, stride32 = (
            norm(feature_map) for norm, feature_map in zip(self.norms, feature_maps, strict=True)
        )
        stride4 = self.upsample4_activation(self.upsample4_norm(self.upsample4_first(stride4)))
        return self.upsample4_second(stride4), self.upsample2(stride8), stride16, self.downsample2(stride32)


@auto_docstring
class DenseCLIPPreTrainedModel(DenseCLIPInitializationMixin, DenseCLIPPicklingMixin, PreTrainedModel):
    config: DenseCLIPConfig
    base_model_prefix = "denseclip"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    # What has parameters of its own, or brings together what its modules give: all of it on one device.
    _no_split_modules = [
        "DenseCLIPResNetBackbone",
        "DenseCLIPViTEmbeddings",
        "DenseCLIPViTLayer",
        "DenseCLIPAttentionPool",
        "DenseCLIPContextDecoder",
        "DenseCLIPNeck",
    ]


@auto_docstring(
    custom_intro="""
    CLIP's ResNet, or any backbone of Transformers, as an image encoder: four feature maps and, with language,
    embeddings in the joint space by an attention pool on the last map.
    """
)
class DenseCLIPBackboneEncoder(DenseCLIPPreTrainedModel):
    def __init__(self, config: DenseCLIPConfig):
        super().__init__(config)
        self.backbone, self.layout = build_backbone(config)
        channels = self.layout.channels
        # CODEPATH: ViT rows make four maps of one stride, ResNet and Swin rows have them
        self.pyramid = DenseCLIPPyramid(channels[-1]) if self.layout.is_plain else None
        # CODEPATH: DenseCLIP rows embed every cell, rows without language need no embeddings
        if config.use_language:
            self.attention_pool = DenseCLIPAttentionPool(config, channels[-1])
        self.feature_sizes = tuple(channels)
        self.embedding_level = 2 if self.layout.is_plain else 3
        self.coarsest_stride = self.layout.coarsest_stride
        self.supports_gradient_checkpointing = self.backbone.supports_gradient_checkpointing
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.backbone.set_input_embeddings(value)

    # Not `capture_outputs`, which would put a second set of hooks on the backbone: that has its own.
    @can_return_tuple
    @auto_docstring
    def forward(
        self, pixel_values: torch.Tensor, value_projection: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> DenseCLIPImageEncoderOutput:
        r"""
        value_projection (`bool`, *optional*, defaults to `False`):
            Whether to give `value_embeddings` too; see `DenseCLIPForSemanticSegmentation.score_text`.
        """
        wanted = {"output_hidden_states": kwargs.get("output_hidden_states", self.config.output_hidden_states)}
        output_attentions = kwargs.get("output_attentions", self.config.output_attentions)
        if self.backbone.has_attentions:
            wanted["output_attentions"] = output_attentions
        # CODEPATH: released ResNet checkpoints cut images off at the grid, all other rows see the whole
        if self.config.fit_to_grid or not self.config.is_clip_resnet:
            pixel_values = self.layout.resize_input(pixel_values)
        backbone_outputs = self.backbone(pixel_values.to(dtype_of(self)), return_dict=True, **wanted)
        feature_maps = backbone_outputs.feature_maps
        attentions = (backbone_outputs.attentions or ()) if output_attentions else ()
        outputs = DenseCLIPImageEncoderOutput(
            # CODEPATH: ViT rows make four maps of one stride, ResNet and Swin rows have them
            feature_maps=feature_maps if self.pyramid is None else self.pyramid(feature_maps),
            hidden_states=backbone_outputs.hidden_states,
        )
        # CODEPATH: DenseCLIP rows embed every cell, rows without language need no embeddings
        if self.config.use_language:
            embeddings, attention_weights = self.attention_pool(feature_maps[-1])
            outputs["global_embedding"] = embeddings[:, 0]
            grid = feature_maps[-1].shape[-2:]
            outputs["pixel_embeddings"] = embeddings[:, 1:].transpose(1, 2).unflatten(2, grid)
            if value_projection:
                outputs["value_embeddings"] = self.attention_pool.project_values(feature_maps[-1])
            if output_attentions and attention_weights is not None:
                attentions = (*attentions, attention_weights)
        if attentions:
            outputs["attentions"] = attentions
        return outputs


def dtype_of(model: PreTrainedModel) -> torch.dtype:
    """`model.dtype`, also of a replica of `nn.DataParallel`, where parameters are plain attributes."""
    if not getattr(model, "_is_replica", False):
        return model.dtype
    tensors = (tensor for module in model.modules() for tensor in module._former_parameters.values())
    return next(tensor.dtype for tensor in tensors if tensor.is_floating_point())


__all__ = ["DenseCLIPBackboneEncoder", "DenseCLIPImageEncoderOutput", "DenseCLIPPreTrainedModel", "DenseCLIPPyramid"]
