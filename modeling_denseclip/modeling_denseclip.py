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
"""DenseCLIP in PyTorch. Source: arXiv 2112.01518; code published at raoyongming/DenseCLIP (MIT)."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPVisionModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPVisionEmbeddings
from transformers.models.upernet.modeling_upernet import UperNetConvModule
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple
from transformers.utils.generic import maybe_autocast
from transformers.utils.output_capturing import capture_outputs

from .class_names_denseclip import DenseCLIPClassNamesMixin, check_weights_are_loaded, class_names_of
from .configuration_denseclip import NUM_FEATURE_LEVELS, DenseCLIPConfig, as_pair
from .fusion_denseclip import fold_batch_norms
from .loading_denseclip import refuse_unbuildable
from .modeling_denseclip_attention import DenseCLIPAttentionPool, at_least_float32, resize_grid
from .modeling_denseclip_backbone import build_backbone, resize_to_multiple
from .modeling_denseclip_heads import (
    DenseCLIPAuxiliaryHead,
    DenseCLIPDecodeHead,
    DenseCLIPDecodeHeadStep,
    DenseCLIPNeck,
    DenseCLIPUperNetHead,
    initialize_as_torch,
    initialize_conv,
)
from .modeling_denseclip_prompting import (
    DenseCLIPContextDecoder,
    DenseCLIPPrompts,
    embed_prompts,
    prompt_attention_mask,
)
from .modeling_denseclip_resnet import DenseCLIPInitializationMixin, DenseCLIPPicklingMixin
from .text_cache_denseclip import TextEmbeddingCache, is_cacheable, version_of


# Of how many classes `segment_classes` holds logits at full size.
CLASSES_AT_A_TIME = 16


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


@auto_docstring(
    custom_intro="""
    Output of [`DenseCLIPForSemanticSegmentation`].
    """
)
@dataclass
class DenseCLIPSemanticSegmenterOutput(ModelOutput):
    r"""
    loss (`torch.Tensor` of shape `(1,)`, *optional*, returned when `labels` is given):
        Cross-entropy of the logits plus the weighted cross-entropies of the score map, with language, and of the
        auxiliary logits, in training.
    logits (`torch.Tensor` of shape `(batch_size, num_labels, height / 4, width / 4)`):
        Scores of each class before the softmax, at the size of the finest feature map: sides are rounded up to the
        next multiple of the coarsest stride first, so 683 columns have 704 / 4. They cover the whole image. With
        sliding windows they have the full size `(batch_size, num_labels, height, width)`.
    score_map (`torch.Tensor` of shape `(batch_size, num_labels, grid_height, grid_width)`, *optional*):
        Cosine similarity of pixels and class names, in [-1, 1]. Only with language and without sliding windows.
    text_embeddings (`torch.Tensor` of shape `(batch_size, num_labels, projection_dim)`, *optional*):
        Class embeddings, as the image prompted them. Only with language and without sliding windows.
    auxiliary_logits (`torch.Tensor` of shape `(batch_size, num_labels, height / 16, width / 16)`, *optional*):
        Scores of the auxiliary head. Only in training mode.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    score_map: torch.Tensor | None = None
    text_embeddings: torch.Tensor | None = None
    auxiliary_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class DenseCLIPDropPath(nn.Module):
    """
    Stochastic depth: leaves a residual branch out for whole samples, and scales it up for the others.

    Source: "Deep Networks with Stochastic Depth".
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.rate == 0 or not self.training:
            return hidden_states
        keep_rate = 1 - self.rate
        kept = hidden_states.new_empty(hidden_states.shape[0], 1, 1).bernoulli_(keep_rate)
        return hidden_states * kept / keep_rate

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class DenseCLIPViTLayer(CLIPEncoderLayer):
    """CLIP's layer with stochastic depth on both of its branches."""

    def __init__(self, config: DenseCLIPConfig, layer_index: int):
        super().__init__(config.vision_config)
        last_layer = max(config.vision_config.num_hidden_layers - 1, 1)
        self.drop_path = DenseCLIPDropPath(config.drop_path_rate * layer_index / last_layer)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attention_output, _ = self.self_attn(self.layer_norm1(hidden_states), attention_mask=attention_mask, **kwargs)
        hidden_states = hidden_states + self.drop_path(attention_output)
        return hidden_states + self.drop_path(self.mlp(self.layer_norm2(hidden_states)))


class DenseCLIPViTEmbeddings(CLIPVisionEmbeddings):
    """CLIP's patch embeddings for any image size, with bilinear position embeddings."""

    def __init__(self, config: DenseCLIPConfig):
        super().__init__(config.vision_config)
        # The published code adds the class embedding twice, and its released weights were trained so.
        self.class_embedding_scale = config.class_embedding_scale

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> torch.Tensor:
        # (batch_size, channels, height, width) -> (batch_size, hidden_size, grid_height, grid_width)
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))
        # By a call, which fetches an offloaded weight.
        positions = self.position_embedding(torch.arange(self.num_positions, device=patches.device))
        positions = resize_grid(positions, patches.shape[-2:])
        class_embedding = (self.class_embedding_scale * self.class_embedding).expand(patches.shape[0], 1, -1)
        return torch.cat([class_embedding, patches.flatten(2).transpose(1, 2)], dim=1) + positions


class DenseCLIPPyramid(nn.Module):
    """
    Four maps of one ViT stride (16) -> the same at strides 4, 8, 16 and 32.

    Source: published `CLIPVisionTransformer.fpn1` to `fpn4` in `models.py`.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, channels) for _ in range(NUM_FEATURE_LEVELS))
        self.upsample4_first = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.upsample4_norm = nn.BatchNorm2d(channels)
        self.upsample4_activation = nn.GELU()
        self.upsample4_second = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.upsample2 = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.downsample2 = nn.MaxPool2d(kernel_size=2)

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
        "DenseCLIPDecodeHead",
        "DenseCLIPUperNetHead",
    ]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, DenseCLIPPrompts):
            init.trunc_normal_(module.contexts)
            for name, values in module.packed(self.config.class_names, self.config.class_token_ids).items():
                init.copy_(getattr(module, name), torch.tensor(values))
        elif isinstance(module, DenseCLIPContextDecoder):
            if module.gamma is not None:
                init.constant_(module.gamma, self.config.gamma_init_value)
            for linear in module.modules():
                if isinstance(linear, nn.Linear):
                    init.trunc_normal_(linear.weight, std=self.config.initializer_range)
        elif isinstance(module, DenseCLIPAttentionPool):
            std = module.q_proj.in_features**-0.5
            init.normal_(module.position_embedding, std=std)
            for linear in (module.q_proj, module.k_proj, module.v_proj, module.out_proj):
                init.normal_(linear.weight, std=std)
        elif isinstance(module, DenseCLIPNeck):
            for conv in (*module.lateral_convs, *module.output_convs):
                initialize_conv(conv.weight)
        elif isinstance(module, (DenseCLIPDecodeHeadStep, UperNetConvModule)):
            initialize_conv(module.conv.weight)
        elif isinstance(module, (DenseCLIPDecodeHead, DenseCLIPUperNetHead, DenseCLIPAuxiliaryHead)):
            module.initialize_classifier(module.classifier.weight, module.classifier.bias)
        elif isinstance(module, DenseCLIPPyramid):
            for conv in (module.upsample4_first, module.upsample4_second, module.upsample2):
                initialize_as_torch(conv.weight, conv.bias)
        elif isinstance(module, DenseCLIPForSemanticSegmentation) and module.config.use_language:
            init.normal_(module.text_projection.weight, std=module.text_projection.in_features**-0.5)
        elif isinstance(module, DenseCLIPViTEncoder) and module.config.use_language:
            init.normal_(module.visual_projection.weight, std=module.visual_projection.in_features**-0.5)


@auto_docstring(
    custom_intro="""
    CLIP's vision transformer as an image encoder: four feature maps and, with language, embeddings in the joint space.
    """
)
class DenseCLIPViTEncoder(DenseCLIPPreTrainedModel):
    _can_record_outputs = {"hidden_states": DenseCLIPViTLayer, "attentions": CLIPEncoderLayer}

    def __init__(self, config: DenseCLIPConfig):
        super().__init__(config)
        vision_model = CLIPVisionModel(config.vision_config)
        vision_model.embeddings = DenseCLIPViTEmbeddings(config)
        vision_model.encoder.layers = nn.ModuleList(
            DenseCLIPViTLayer(config, layer_index) for layer_index in range(config.vision_config.num_hidden_layers)
        )
        # CODEPATH: DenseCLIP rows embed every patch, "CLIP + Semantic FPN" rows need no embeddings
        if config.use_language:
            self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        else:
            vision_model.post_layernorm = nn.Identity()
        vision_model.init_weights()  # of the modules that are new in it, by CLIP's own rule
        self.vision_model = vision_model
        self.pyramid = DenseCLIPPyramid(config.vision_config.hidden_size)
        self.feature_sizes = (config.vision_config.hidden_size,) * NUM_FEATURE_LEVELS
        self.embedding_level = 2  # its embeddings are of the patches, at stride 16
        self.coarsest_stride = 2 * config.vision_config.patch_size  # the pyramid takes two by two patches together
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.vision_model.embeddings.patch_embedding

    def set_input_embeddings(self, value: nn.Module):
        self.vision_model.embeddings.patch_embedding = value

    def run_layers(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """
        (batch_size, channels, height, width) -> the first layer's input and every layer's output, each of shape
        (batch_size, 1 + patches, hidden_size).
        """
        hidden_states = self.vision_model.pre_layrnorm(self.vision_model.embeddings(pixel_values))
        states = [hidden_states]
        for layer in self.vision_model.encoder.layers:
            hidden_states = layer(hidden_states, None)
            states.append(hidden_states)
        return states

    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(
        self, pixel_values: torch.Tensor, value_projection: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> DenseCLIPImageEncoderOutput:
        r"""
        value_projection (`bool`, *optional*, defaults to `False`):
            Whether to give `value_embeddings` too; see `DenseCLIPForSemanticSegmentation.score_text`.
        """
        # CODEPATH: released ViT checkpoints cut images off at the patch grid, all other rows see the whole
        if self.config.fit_to_grid:
            pixel_values = resize_to_multiple(pixel_values, self.coarsest_stride)
        patch_size = self.config.vision_config.patch_size
        grid = (pixel_values.shape[-2] // patch_size, pixel_values.shape[-1] // patch_size)
        states = self.run_layers(pixel_values)
        # (batch_size, 1 + patches, hidden_size) -> (batch_size, hidden_size, height, width), without the class token
        taps = [states[layer + 1][:, 1:].transpose(1, 2).unflatten(2, grid) for layer in self.config.feature_layers]
        outputs = DenseCLIPImageEncoderOutput(feature_maps=self.pyramid(taps))
        # CODEPATH: DenseCLIP rows embed every patch, "CLIP + Semantic FPN" rows need no embeddings
        if self.config.use_language:
            embeddings = self.visual_projection(self.final_norm(states[-1]))
            outputs["global_embedding"] = embeddings[:, 0]
            outputs["pixel_embeddings"] = embeddings[:, 1:].transpose(1, 2).unflatten(2, grid)
            if value_projection:
                values = self.visual_projection(self.final_norm(self.last_layer_values(states[-2])))
                outputs["value_embeddings"] = values[:, 1:].transpose(1, 2).unflatten(2, grid)
        return outputs

    def final_norm(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """CLIP's last layer norm, on all tokens where CLIP has it on the class token alone (published code)."""
        return self.vision_model.post_layernorm(hidden_states)

    def last_layer_values(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        The last layer with each token attending to itself alone, (batch_size, 1 + patches, hidden_size) -> the same.

        Source: "Extract Free Dense Labels from CLIP", section 3.2.
        """
        layer = self.vision_model.encoder.layers[-1]
        attention = layer.self_attn
        hidden_states = hidden_states + attention.out_proj(attention.v_proj(layer.layer_norm1(hidden_states)))
        return hidden_states + layer.mlp(layer.layer_norm2(hidden_states))


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
            pixel_values = self.layout.fit(pixel_values)
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


@auto_docstring(
    custom_intro="""
    DenseCLIP for semantic segmentation: an image encoder, CLIP's text tower, a pixel-text score map, and a decode head
    that it guides. With `config.use_language=False` it is the paper's "CLIP + Semantic FPN" baseline.
    """
)
class DenseCLIPForSemanticSegmentation(DenseCLIPClassNamesMixin, DenseCLIPPreTrainedModel):
    # The loss is a mean over pixels: the Trainer must not rescale it by a number of items in the batch.
    accepts_loss_kwargs = False
    _untrained_contexts: torch.Tensor | None = None
    is_fused = False

    @refuse_unbuildable
    def __init__(self, config: DenseCLIPConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        class_names = class_names_of(config.id2label)
        # CODEPATH: rows on CLIP's ViT, and all others
        self.image_encoder = DenseCLIPViTEncoder(config) if config.is_clip_vit else DenseCLIPBackboneEncoder(config)
        self.score_map_level = config.score_map_level
        if self.score_map_level is None:
            self.score_map_level = self.image_encoder.embedding_level
        in_channels = list(self.image_encoder.feature_sizes)
        # CODEPATH: DenseCLIP rows read class names, "CLIP + Semantic FPN" rows have no text tower
        if config.use_language:
            config.class_names = config.class_names or class_names  # none are set as long as they have no tokens
            if config.class_names != class_names:
                raise ValueError(
                    f"The config's `class_token_ids` stand for {config.class_names}, its `id2label` for {class_names}."
                    " Change names by `set_class_names` or `from_pretrained(..., id2label=...)`, which tokenise anew."
                )
            self.prompts = DenseCLIPPrompts(config)
            self.text_encoder = CLIPTextModel(config.text_config)
            self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
            # CODEPATH: the "language prompt only" row of Table 2 does without a context decoder
            if config.prompting_mode != "language":
                self.context_decoder = DenseCLIPContextDecoder(config)
            # One score-map channel per class
            in_channels[self.score_map_level] += config.num_labels
        else:
            config.class_names = class_names
        # CODEPATH: UperNet rows of Table 5 have their pyramid in the head; all others have a neck of their own
        if config.decode_head_type == "upernet":
            self.decode_head = DenseCLIPUperNetHead(config, in_channels)
        else:
            self.neck = DenseCLIPNeck(config, in_channels)
            self.decode_head = DenseCLIPDecodeHead(config)
        # CODEPATH: UperNet rows of Table 5 train a second head
        if config.use_auxiliary_head:
            self.auxiliary_head = DenseCLIPAuxiliaryHead(config, self.image_encoder.feature_sizes)
        self.text_cache = TextEmbeddingCache()
        self.constant_text_embeddings = nn.Buffer(torch.empty(0), persistent=False)  # filled by `fuse`
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.image_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.image_encoder.set_input_embeddings(value)

    @property
    def min_image_size(self) -> int:
        """The least height and width of an image in pixels: one cell of the image encoder's coarsest feature map."""
        return self.image_encoder.coarsest_stride

    def get_text_embeddings(self) -> torch.Tensor:
        """
        Class embeddings before they see an image, `(num_labels, projection_dim)`.

        They are computed once and kept while no weight of the text side changes, if no gradient is asked for.
        """
        if self.is_fused:
            return self.constant_text_embeddings
        modules = (self.text_encoder, self.text_projection)
        trainable = self.prompts.contexts.requires_grad or any(
            parameter.requires_grad for module in modules for parameter in module.parameters()
        )
        if (
            self.training
            or (torch.is_grad_enabled() and trainable)
            or self.prompts.contexts.is_meta
            or not is_cacheable(*modules)
        ):
            return self.encode_class_names()
        device_type = self.prompts.contexts.device.type
        token_embedding = self.text_encoder.get_input_embeddings()
        settings = (
            torch.is_inference_mode_enabled(),  # an inference tensor must not reach a later call that needs gradients
            torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type),
            self.text_encoder.config._attn_implementation,
            version_of(token_embedding.weight),
        )
        tensors = [
            *self.prompts.parameters(),
            *self.prompts.buffers(),
            # Of the vocabulary only the words in use: its table is larger than the rest of the tower.
            token_embedding(self.prompts.layout["token_ids"]),
            *(
                parameter
                for module in modules
                for parameter in module.parameters()
                if parameter is not token_embedding.weight
            ),
        ]
        with torch.no_grad():
            return self.text_cache.get(tensors, settings, self.encode_class_names)

    def fuse(self) -> "DenseCLIPForSemanticSegmentation":
        """
        Prepare the model for inference alone, in place: batch norms are folded into the convolutions before them,
        convolutions work with channels last, and class embeddings, if they do not depend on the image, become a
        constant, for which no call has to look whether a weight of the text tower has changed. Results are equal up to
        rounding. From then on the model cannot be trained or saved, and weights must not be edited; class names can be
        set.

        Raises:
            ValueError: for a model in training mode.
        """
        if self.training:
            raise ValueError("`fuse` is for inference; call `model.eval()` first.")
        check_weights_are_loaded(self)
        self.keep_text_embeddings()
        fold_batch_norms(self)
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.is_fused = True
        return self

    @torch.no_grad()
    def keep_text_embeddings(self):
        """Make the class embeddings of a fused model a constant."""
        # CODEPATH: in the "pre-model prompting" row of Table 2 they depend on the image
        if self.config.use_language and self.config.prompting_mode != "pre_model":
            self.constant_text_embeddings = self.encode_class_names()

    def train(self, mode: bool = True):
        if mode and self.is_fused:
            raise ValueError("This model was fused for inference, so it cannot be trained. Load it anew.")
        return super().train(mode)

    def encode_class_names(self) -> torch.Tensor:
        """Run the text tower on the learned contexts and the names of the classes: `(num_labels, projection_dim)`."""
        return self.encode_prompts(self.prompts(), self.prompts.layout)[0]

    def encode_prompts(self, contexts: torch.Tensor, layout: dict[str, torch.Tensor]) -> torch.Tensor:
        """
        Run the text tower, prompts as packed sequences: contexts `(batch_size, num_context_tokens, hidden_size)` ->
        `(batch_size, prompts, projection_dim)`.
        """
        embeddings = []
        for hidden_states, class_index, end_index in embed_prompts(self.text_encoder.embeddings, contexts, layout):
            attention_mask = prompt_attention_mask(class_index, hidden_states.dtype)
            for layer in self.text_encoder.encoder.layers:
                hidden_states = layer(hidden_states, attention_mask)
            end_states = hidden_states[:, end_index.to(hidden_states.device)]
            embeddings.append(self.text_projection(self.text_encoder.final_layer_norm(end_states)))
        embeddings = torch.cat(embeddings, dim=1)
        return embeddings[:, layout["prompt_index"].to(embeddings.device)]

    def embed_prompts_of_image(
        self, image_outputs: DenseCLIPImageEncoderOutput, layout: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """
        Embeddings of the classes, or of the prompts laid out by `layout`, as each image prompts them:
        `(batch_size, prompts, projection_dim)`.
        """
        # What the image shows, (batch_size, 1 + height * width, projection_dim)
        pixels = image_outputs.pixel_embeddings.flatten(2).transpose(1, 2)
        visual_embeddings = torch.cat([image_outputs.global_embedding[:, None], pixels], dim=1)
        # CODEPATH: the "pre-model prompting" row of Table 2 reads the image before the text tower, all others after it
        if self.config.prompting_mode == "pre_model":
            contexts = self.context_decoder(self.prompts()[0], visual_embeddings)
            return self.encode_prompts(contexts, self.prompts.layout if layout is None else layout)
        if layout is None:
            text_embeddings = self.get_text_embeddings()
        else:
            text_embeddings = self.encode_prompts(self.prompts(), layout)[0]
        # CODEPATH: the "language prompt only" row of Table 2 stops here
        if self.config.prompting_mode == "post_model":
            return self.context_decoder(text_embeddings, visual_embeddings)
        return text_embeddings.expand(visual_embeddings.shape[0], -1, -1)

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        inference_mode: str | None = None,
        window_size: int | tuple[int, int] | None = None,
        window_stride: int | tuple[int, int] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DenseCLIPSemanticSegmenterOutput:
        r"""
        labels (`torch.Tensor` of integers of shape `(batch_size, height, width)`, *optional*):
            Class of each pixel in `[0, config.num_labels)`, or `config.ignore_index`. Any height and width: all
            logits are resized to them. The loss is a mean over all pixels, unlabelled ones included, as published;
            a batch without a labelled pixel has loss 0.
        inference_mode (`str`, *optional*, defaults to `config.inference_mode`):
            `"whole"` or `"slide"`; sliding windows are for evaluation mode and images larger than the window.
        window_size (`int` or `tuple[int, int]`, *optional*, defaults to `config.window_size`):
            Height and width of the window in pixels.
        window_stride (`int` or `tuple[int, int]`, *optional*, defaults to `config.window_stride`):
            Steps of the window in pixels.

        Examples:

        ```python
        >>> import torch
        >>> from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation

        >>> config = DenseCLIPConfig(use_language=False, id2label={0: "wall", 1: "sky"})
        >>> model = DenseCLIPForSemanticSegmentation(config).eval()
        >>> model(torch.rand(1, 3, 64, 96)).logits.shape
        torch.Size([1, 2, 16, 24])
        ```"""
        height, width = check_pixel_values(pixel_values, self.config.num_channels, self.min_image_size)
        if labels is not None:
            check_labels(labels, pixel_values.shape[0], self.num_labels)
        window = self.sliding_window(inference_mode, window_size, window_stride)
        if window is not None and not self.training and (height > window[0][0] or width > window[0][1]):
            logits = self.slide(pixel_values, *window)
            outputs = DenseCLIPSemanticSegmenterOutput(logits=logits)
        else:
            outputs = self.segment(pixel_values, **kwargs)

        if labels is not None:
            # Of a model on several devices the parts of the loss come together where the logits are.
            device = outputs.logits.device
            labels = labels.to(device)
            loss = pixel_cross_entropy(outputs.logits, labels, self.config.ignore_index)
            auxiliary = [] if outputs.score_map is None else [outputs.score_map / self.config.temperature]
            if outputs.auxiliary_logits is not None:
                auxiliary.append(outputs.auxiliary_logits)
            for logits in auxiliary:
                auxiliary_loss = pixel_cross_entropy(logits.to(device), labels, self.config.ignore_index)
                loss = loss + self.config.auxiliary_loss_weight * auxiliary_loss
            outputs = DenseCLIPSemanticSegmenterOutput(**{**outputs, "loss": loss})
        return outputs

    def segment(
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> DenseCLIPSemanticSegmenterOutput:
        """The whole of `pixel_values` at once; see `forward`."""
        image_outputs = self.image_encoder(pixel_values, return_dict=True, **kwargs)
        feature_maps = list(image_outputs.feature_maps)
        score_map = text_embeddings = auxiliary_logits = None
        # CODEPATH: UperNet rows of Table 5 train a second head
        if self.config.use_auxiliary_head and self.training:
            auxiliary_logits = self.auxiliary_head(feature_maps)
        # CODEPATH: DenseCLIP rows guide the decoder by a score map, "CLIP + Semantic FPN" rows do not
        if self.config.use_language:
            # 1. Class embeddings, prompted by what the image shows.
            text_embeddings = self.embed_prompts_of_image(image_outputs)
            # 2. Pixel-text matching.
            score_map = compute_score_map(image_outputs.pixel_embeddings, text_embeddings)
            # 3. Its guidance for the decoder.
            guided = feature_maps[self.score_map_level].to(score_map.device)
            guidance = score_map.to(guided.dtype)
            if self.score_map_level != self.image_encoder.embedding_level:
                guidance = resize_logits(guidance, guided.shape[-2:])
            feature_maps[self.score_map_level] = torch.cat([guided, guidance], dim=1)
        # CODEPATH: UperNet rows of Table 5 have their pyramid in the head; all others have a neck of their own
        if self.config.decode_head_type == "semantic_fpn":
            feature_maps = self.neck(feature_maps)
        return DenseCLIPSemanticSegmenterOutput(
            logits=self.decode_head(feature_maps),
            score_map=score_map,
            text_embeddings=text_embeddings,
            auxiliary_logits=auxiliary_logits,
            hidden_states=image_outputs.hidden_states,
            attentions=image_outputs.attentions,
        )

    def sliding_window(
        self,
        inference_mode: str | None = None,
        window_size: int | tuple[int, int] | None = None,
        window_stride: int | tuple[int, int] | None = None,
    ) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """
        Size and stride of the window that a call asks for, or `None` for the whole image.

        Raises:
            ValueError: for another mode, a stride that leaves out pixels, or a window that is too small for the
                coarsest feature map.
        """
        config = self.config
        inference_mode = config.inference_mode if inference_mode is None else inference_mode
        if inference_mode not in ("whole", "slide"):
            raise ValueError(f"`inference_mode` must be 'whole' or 'slide'; got {inference_mode!r}.")
        if inference_mode == "whole":
            return None
        size = as_pair(config.window_size if window_size is None else window_size, "window_size")
        stride = as_pair(config.window_stride if window_stride is None else window_stride, "window_stride")
        if min(stride) < 1 or stride[0] > size[0] or stride[1] > size[1] or min(size) < self.min_image_size:
            raise ValueError(
                f"`window_stride` {stride} must be positive and at most `window_size` {size}, and windows at least"
                f" {self.min_image_size} pixels high and wide."
            )
        return size, stride

    def slide(
        self, pixel_values: torch.Tensor, window_size: tuple[int, int], window_stride: tuple[int, int]
    ) -> torch.Tensor:
        """
        Average the logits of overlapping windows: (batch_size, channels, height, width) ->
        (batch_size, num_labels, height, width). The last window of a row or column is shifted back into the image.

        Source: mmseg `EncoderDecoder.slide_inference`.
        """
        windows = self.segment_windows(pixel_values, window_size, window_stride)
        return average_windows(windows, slice(None), tuple(pixel_values.shape[-2:]))

    def segment_windows(
        self, pixel_values: torch.Tensor, window_size: tuple[int, int], window_stride: tuple[int, int]
    ) -> list[tuple[slice, slice, torch.Tensor]]:
        """Rows and columns of each window in the image, and its logits at stride 4."""
        batch_size, _, height, width = pixel_values.shape
        window_height, window_width = min(window_size[0], height), min(window_size[1], width)
        places = [
            (slice(top, top + window_height), slice(left, left + window_width))
            for top in window_starts(height, window_height, window_stride[0])
            for left in window_starts(width, window_width, window_stride[1])
        ]
        windows = []
        for first in range(0, len(places), self.config.window_batch_size):
            chunk = places[first : first + self.config.window_batch_size]
            logits = self.segment(torch.cat([pixel_values[:, :, rows, columns] for rows, columns in chunk])).logits
            for place, part in zip(chunk, logits.split(batch_size), strict=True):
                windows.append((*place, part))
        return windows

    @torch.no_grad()
    def segment_classes(
        self,
        pixel_values: torch.Tensor,
        target_size: tuple[int, int] | None = None,
        inference_mode: str | None = None,
        window_size: int | tuple[int, int] | None = None,
        window_stride: int | tuple[int, int] | None = None,
    ) -> torch.Tensor:
        r"""
        The class of each pixel, as post-processing makes it of the logits of a call, in a fraction of the memory: the
        logits are enlarged for a few classes at a time. For large photographs; images must not be padded.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Images as the image processor makes them.
            target_size (`tuple[int, int]`, *optional*):
                Height and width of the result, such as the photograph's own. Defaults to those of `pixel_values`.
            inference_mode, window_size, window_stride (*optional*):
                As in a call.

        Returns:
            `torch.LongTensor` of shape `(batch_size, *target_size)`: class ids in `[0, num_labels)`.

        Raises:
            ValueError: for a model in training mode, images or windows that a call would refuse, or logits that are
                not finite.
        """
        if self.training:
            raise ValueError("This model is in training mode; call `model.eval()` first.")
        size = check_pixel_values(pixel_values, self.config.num_channels, self.min_image_size)
        target_size = size if target_size is None else as_pair(target_size, "target_size")
        window = self.sliding_window(inference_mode, window_size, window_stride)
        if window is not None and (size[0] > window[0][0] or size[1] > window[0][1]):
            windows = self.segment_windows(pixel_values, *window)
        else:
            windows = None
            logits = self.segment(pixel_values).logits
        best = classes = None
        for first in range(0, self.num_labels, CLASSES_AT_A_TIME):
            some = slice(first, first + CLASSES_AT_A_TIME)
            enlarged = at_least_float32(logits[:, some]) if windows is None else average_windows(windows, some, size)
            values, indices = resize_logits(enlarged, target_size).max(dim=1)
            if best is None:
                best, classes = values, indices
            else:
                classes = torch.where(values > best, indices + first, classes)
                best = torch.maximum(best, values)
        if not best.isfinite().all():
            raise ValueError(
                "The logits are NaN or infinite, and have no greatest class. Look for such values in `pixel_values`,"
                " and in the weights, whose training may have diverged."
            )
        return classes

    @torch.no_grad()
    def score_text(
        self,
        pixel_values: torch.Tensor,
        texts: Sequence[str],
        tokenizer: PreTrainedTokenizerBase | None = None,
        learned_prompts: bool | None = None,
        value_projection: bool = False,
    ) -> torch.Tensor:
        r"""
        How well each pixel matches any words, from the branch of the score map: open vocabulary, where the decode head
        knows its own classes alone.

        With learned prompts it is what training made of CLIP: for the names of the model's classes it equals
        `score_map` of a call. Without, the words are read as CLIP reads them and nothing that training adds is used:
        on CLIP's own weights, zero-shot dense CLIP. (With another image encoder there is no such thing: its
        attention pool knows nothing before it is trained.)

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Images as the image processor makes them.
            texts (`Sequence[str]`):
                Any words: "sofa" with learned prompts, "a photo of a sofa" without. In post-model prompting the
                prompts of an image attend to each other, so the scores of one text depend on the others.
            tokenizer (`PreTrainedTokenizerBase`, *optional*):
                CLIP's tokenizer. Defaults to the one saved beside the checkpoint.
            learned_prompts (`bool`, *optional*):
                Whether `texts` are prompted as class names are, by the learned contexts and by the image. Defaults to
                `True`, but to `False` as long as the contexts that `from_clip_pretrained` made are untrained.
            value_projection (`bool`, *optional*, defaults to `False`):
                Whether pixels are embedded by the values of CLIP's last attention alone, each by its own. What the
                last attention mixes in from the whole image blurs the maps of a CLIP that was not trained on masks.
                Source: "Extract Free Dense Labels from CLIP", section 3.2.

        Returns:
            `torch.Tensor` of shape `(batch_size, len(texts), grid_height, grid_width)`: cosine similarities in
            [-1, 1]. Differences between texts say more than the values: CLIP's lie close together.

        Raises:
            ValueError: for a model without language or in training mode, images that are too small, or texts that are
                empty, repeated or too long.
        """
        if not self.config.use_language:
            raise ValueError("This model has `use_language=False`: it has no text tower that could read `texts`.")
        if self.training:
            raise ValueError(
                "This model is in training mode, where scores depend on chance. Call `model.eval()` first."
            )
        check_pixel_values(pixel_values, self.config.num_channels, self.min_image_size)
        token_ids, _ = self._tokenize(texts, tokenizer)
        if learned_prompts is None:
            learned_prompts = not self.has_untrained_contexts()
        packed = self.prompts.packed(texts, token_ids, num_context_tokens=None if learned_prompts else 0)
        image_outputs = self.image_encoder(pixel_values, value_projection=value_projection, return_dict=True)
        # The device that the model works on; its weights may be elsewhere between calls.
        device = image_outputs.pixel_embeddings.device
        layout = {name: torch.tensor(values, device=device) for name, values in packed.items()}
        if learned_prompts:
            text_embeddings = self.embed_prompts_of_image(image_outputs, layout)
        else:
            text_embeddings = self.encode_prompts(self.prompts()[:, :0], layout)
            text_embeddings = text_embeddings.expand(pixel_values.shape[0], -1, -1)
        pixels = image_outputs.value_embeddings if value_projection else image_outputs.pixel_embeddings
        return compute_score_map(pixels, text_embeddings)

    def remember_untrained_contexts(self):
        """Take the contexts as they are now for untrained."""
        self._untrained_contexts = self.prompts().detach().clone()

    def has_untrained_contexts(self) -> bool:
        """Whether the contexts still are those of `from_clip_pretrained`, also if it was saved since."""
        contexts = self.prompts()
        return self._untrained_contexts is not None and torch.equal(self._untrained_contexts.to(contexts), contexts)

    @classmethod
    def from_clip_pretrained(
        cls,
        clip_name_or_path: str | os.PathLike | None = None,
        class_names: Sequence[str] = (),
        tokenizer: PreTrainedTokenizerBase | str | os.PathLike | None = None,
        config: DenseCLIPConfig | None = None,
        text: str | os.PathLike | None = None,
        image: str | os.PathLike | None = None,
        **kwargs,
    ) -> "DenseCLIPForSemanticSegmentation":
        r"""
        A model to fine-tune: CLIP's two towers with their weights, or its text tower and any backbone of Transformers
        with its own, and everything else freshly initialised.

        Args:
            clip_name_or_path (`str` or `os.PathLike`, *optional*):
                Where CLIP is: a Transformers `CLIPModel` (directory or Hub id, "openai/clip-vit-base-patch16"),
                OpenAI's TorchScript archive ("RN50.pt"), or safetensors of open_clip (file, directory or Hub id,
                "timm/resnet50_clip.openai").
            class_names (`Sequence[str]`):
                Names of the classes, in the order of their label ids.
            tokenizer (`PreTrainedTokenizerBase`, `str` or `os.PathLike`, *optional*):
                CLIP's tokenizer, or where it is. Defaults to the one beside the weights, or else OpenAI's on the Hub.
            config ([`DenseCLIPConfig`], *optional*):
                The architecture to build. Its towers must have the shapes of the weights; position embeddings are
                resized bilinearly to its `image_size`. Defaults to DenseCLIP on the towers that the weights show.
            text (`str` or `os.PathLike`, *optional*):
                With `image`: where CLIP's text tower is, as `clip_name_or_path`.
            image (`str` or `os.PathLike`, *optional*):
                Where the image encoder is, if it is not CLIP's: directory or Hub id of a backbone of Transformers, or
                of a model on it ("microsoft/resnet-50", "facebook/dinov2-base"). Its pixels come into the width of
                the text tower by a new attention pool.
            kwargs:
                Fields of [`DenseCLIPConfig`] to set besides; and as in [`PreTrainedModel.from_pretrained`]:

                - `token`, `revision`, `subfolder`, `cache_dir`, `force_download`, `local_files_only`, `proxies`: how
                  files are fetched from the Hub. `revision` and `subfolder` are those of the weights, and of the
                  tokenizer beside them; where `text` and `image` are two repositories they are refused.
                - `dtype`: the type of all weights, new ones too; `"auto"` is the one that the weights have (of two
                  towers, the wider one). Defaults to float32, for training.
                - `device_map`, `max_memory`, `offload_folder`, `offload_buffers`: where the model is placed.
                - `quantization_config`: how it is quantised.

        Raises:
            TypeError: for any other keyword.
            ValueError: for weights that are not CLIP's, are no backbone's, or do not fit `config`; names every tensor.

        Examples:

        ```python
        from_clip_pretrained("openai/clip-vit-base-patch16", class_names=["wall", "sky"])
        from_clip_pretrained(
            text="openai/clip-vit-base-patch16", image="facebook/dinov2-base", class_names=["wall", "sky"]
        )
        from_clip_pretrained(image="microsoft/resnet-50", class_names=["wall", "sky"], use_language=False)
        ```"""
        from .conversion_denseclip import build_from_clip

        return build_from_clip(
            cls, clip_name_or_path, class_names, tokenizer, config, text=text, image=image, **kwargs
        )


def dtype_of(model: PreTrainedModel) -> torch.dtype:
    """`model.dtype`, also of a replica of `nn.DataParallel`, where parameters are plain attributes."""
    if not getattr(model, "_is_replica", False):
        return model.dtype
    tensors = (tensor for module in model.modules() for tensor in module._former_parameters.values())
    return next(tensor.dtype for tensor in tensors if tensor.is_floating_point())


def check_pixel_values(pixel_values: torch.Tensor, num_channels: int, min_image_size: int) -> tuple[int, int]:
    """
    Height and width of images.

    Raises:
        ValueError: for what is no batch of prepared images, or images that are too small for the coarsest feature map.
    """
    is_tensor = isinstance(pixel_values, torch.Tensor)
    if not is_tensor or pixel_values.ndim != 4 or pixel_values.shape[0] == 0 or pixel_values.shape[1] != num_channels:
        received = f"shape {tuple(pixel_values.shape)}" if is_tensor else f"a {type(pixel_values).__name__}"
        raise ValueError(
            f"`pixel_values` must be a tensor of shape (batch_size, {num_channels}, height, width), as"
            f" DenseCLIPImageProcessor makes it; got {received}."
        )
    # Integers are pixels as a file has them. Floating-point ones of that range cannot be told without a look at them.
    if not pixel_values.is_floating_point():
        raise ValueError(
            f"`pixel_values` is of type {pixel_values.dtype}, so it was not normalised. Prepare images by"
            " DenseCLIPImageProcessor."
        )
    height, width = pixel_values.shape[-2:]
    if min(height, width) < min_image_size:
        raise ValueError(
            f"`pixel_values` is {height} x {width} pixels; both sides must have at least {min_image_size}, one cell of"
            " the coarsest feature map. Resize the image, e.g. with DenseCLIPImageProcessor."
        )
    return height, width


def check_labels(labels: torch.Tensor, batch_size: int, num_labels: int):
    """
    Raises:
        ValueError: for labels of another form, or a model of a single class, which has nothing to learn.
    """
    is_integer = isinstance(labels, torch.Tensor) and not (labels.is_floating_point() or labels.is_complex())
    if not is_integer or labels.ndim != 3 or labels.shape[0] != batch_size or 0 in labels.shape:
        is_tensor = isinstance(labels, torch.Tensor)
        received = f"{labels.dtype} of shape {tuple(labels.shape)}" if is_tensor else f"a {type(labels).__name__}"
        raise ValueError(
            f"`labels` must be integers of shape (batch_size, height, width), here ({batch_size}, height, width): the"
            f" class of each pixel; got {received}."
        )
    if num_labels == 1:
        raise ValueError(
            "`labels` were given to a model of one class, whose softmax is 1 everywhere: there is nothing to learn."
            " Name what is not of this class too, such as 'background'."
        )


def compute_score_map(pixel_embeddings: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
    """
    Pixel-text matching: cosine similarity of every pixel and every class, in [-1, 1].
    (batch_size, projection_dim, height, width) and (batch_size, num_labels, projection_dim) ->
    (batch_size, num_labels, height, width), on the device of the classes. Computed in float32, also under autocast, or
    in float64 if that comes in.

    Source: paper section 3.2, equation 1.
    """
    # CLIP's cosines lie close together: in bfloat16 some pixels would change their best class.
    with maybe_autocast(text_embeddings.device.type, enabled=False):
        texts = F.normalize(at_least_float32(text_embeddings), dim=2)
        pixels = F.normalize(at_least_float32(pixel_embeddings.to(texts.device)), dim=1)
        return torch.matmul(texts, pixels.flatten(2)).unflatten(2, pixels.shape[-2:])


def resize_logits(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(batch_size, num_labels, height, width) -> (batch_size, num_labels, *size), bilinearly."""
    if logits.is_cuda and logits.requires_grad:
        return resize_by_products(logits, size)
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def resize_by_products(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    `resize_logits` as two products with matrices of weights. On a GPU the gradient of `F.interpolate` adds pixel by
    pixel into memory: in a training step it took longer than all else together, and no two runs were equal.
    """
    # What interpolation makes of unit vectors are its weights, (length, new length).
    units = (
        at_least_float32(torch.eye(length, dtype=logits.dtype, device=logits.device)) for length in logits.shape[-2:]
    )
    rows, columns = (
        F.interpolate(unit[None], size=new, mode="linear", align_corners=False)[0]
        for unit, new in zip(units, size, strict=True)
    )
    with maybe_autocast(logits.device.type, enabled=False):
        return rows.to(logits.dtype).T @ (logits @ columns.to(logits.dtype))


def pixel_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """
    Cross-entropy at the size of `labels`, averaged over all pixels. Ignored ones count as 0, as in mmseg 0.19; so a
    batch that has no labelled pixel gives 0 with zero gradients, where torch's own mean gives NaN.
    """
    logits = resize_logits(at_least_float32(logits), labels.shape[-2:])
    try:
        loss = F.cross_entropy(logits, labels.long(), ignore_index=ignore_index, reduction="sum")
    except IndexError as error:  # on a CPU; a GPU says that an assertion failed
        raise ValueError(
            f"`labels` must lie in [0, {logits.shape[1] - 1}], or be {ignore_index} (`config.ignore_index`) for pixels"
            f" without a class: {error}"
        ) from error
    return loss / labels.numel()


def average_windows(
    windows: Sequence[tuple[slice, slice, torch.Tensor]], classes: slice, size: tuple[int, int]
) -> torch.Tensor:
    """
    Mean of all windows that see a pixel, for some classes: windows as `segment_windows` gives them ->
    (batch_size, classes, *size), in float32 or the precision that came in, if that is higher.
    """
    first = at_least_float32(windows[0][2][:, classes])
    logits = first.new_zeros((*first.shape[:2], *size))
    counts = logits.new_zeros(size)
    for rows, columns, part in windows:
        # One window at a time: enlarged, they take far more than all else in the model.
        window_size = (rows.stop - rows.start, columns.stop - columns.start)
        logits[:, :, rows, columns] += resize_logits(at_least_float32(part[:, classes]), window_size)
        counts[rows, columns] += 1
    return logits.div_(counts)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixel of each window along one side; the last one ends with the image."""
    steps = max(math.ceil((length - window) / stride), 0)
    return [min(step * stride, length - window) for step in range(steps + 1)]


# `pipeline("image-segmentation")` looks class names up in this table, and logs an error for those it does not hold.
MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES.setdefault("denseclip", "DenseCLIPForSemanticSegmentation")


__all__ = [
    "DenseCLIPBackboneEncoder",
    "DenseCLIPForSemanticSegmentation",
    "DenseCLIPImageEncoderOutput",
    "DenseCLIPPreTrainedModel",
    "DenseCLIPSemanticSegmenterOutput",
    "DenseCLIPViTEncoder",
]
