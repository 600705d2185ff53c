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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPVisionModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPVisionEmbeddings
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .class_names_denseclip import DenseCLIPClassNamesMixin, class_names_of, pack_prompts
from .configuration_denseclip import DenseCLIPConfig, as_pair
from .modeling_denseclip_resnet import DenseCLIPInitializationMixin, DenseCLIPResNetBackbone
from .text_cache_denseclip import TextEmbeddingCache, is_cacheable, version_of


# The smallest side in pixels that leaves one cell at stride 32.
MIN_IMAGE_SIZE = 32


@auto_docstring(
    custom_intro="""
    Output of an image encoder of [`DenseCLIPForSemanticSegmentation`].
    """
)
@dataclass
class DenseCLIPImageEncoderOutput(ModelOutput):
    r"""
    feature_maps (`tuple[torch.Tensor]`):
        Four maps of shape `(batch_size, channels, height, width)` at strides 4, 8, 16 and 32.
    global_embedding (`torch.Tensor` of shape `(batch_size, projection_dim)`, *optional*):
        Embedding of the whole image. Only with language.
    pixel_embeddings (`torch.Tensor` of shape `(batch_size, projection_dim, height, width)`, *optional*):
        Embedding of each cell: of stride 32 for ResNets, of the patch size for ViTs. Only with language.
    """

    feature_maps: tuple[torch.Tensor, ...] | None = None
    global_embedding: torch.Tensor | None = None
    pixel_embeddings: torch.Tensor | None = None
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
        Cross-entropy of the logits plus, with language, the weighted cross-entropy of the score map.
    logits (`torch.Tensor` of shape `(batch_size, num_labels, height / 4, width / 4)`):
        Scores of each class before the softmax. With sliding windows they have the full size
        `(batch_size, num_labels, height, width)`.
    score_map (`torch.Tensor` of shape `(batch_size, num_labels, grid_height, grid_width)`, *optional*):
        Cosine similarity of pixels and class names, in [-1, 1]. Only with language and without sliding windows.
    text_embeddings (`torch.Tensor` of shape `(batch_size, num_labels, projection_dim)`, *optional*):
        Class embeddings after the context decoder. Only with language and without sliding windows.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    score_map: torch.Tensor | None = None
    text_embeddings: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    attention_weights = torch.matmul(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        attention_weights = attention_weights + attention_mask
    attention_weights = F.softmax(attention_weights, dim=-1, dtype=torch.float32).to(query.dtype)
    attention_weights = F.dropout(attention_weights, p=dropout, training=module.training)
    attention_output = torch.matmul(attention_weights, value)
    return attention_output.transpose(1, 2).contiguous(), attention_weights


def attend(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_heads: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    Multi-head attention of projected states by the implementation that `module.config` names:
    (batch_size, length, hidden_size) -> (batch_size, query_length, hidden_size), and the weights where it makes them.
    """
    # (batch_size, length, hidden_size) -> (batch_size, num_heads, length, head_dim)
    head_dim = query.shape[-1] // num_heads
    query, key, value = (states.unflatten(-1, (num_heads, head_dim)).transpose(1, 2) for states in (query, key, value))
    attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
        module.config._attn_implementation, eager_attention_forward
    )
    output, weights = attention_interface(
        module, query, key, value, None, scaling=head_dim**-0.5, dropout=0.0, is_causal=False
    )
    return output.flatten(-2), weights


def resize_grid(positions: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    Position embeddings of another grid: (1 + side * side, hidden_size) -> (1 + height * width, hidden_size).

    Bilinear as published, where Transformers' CLIP is bicubic. It is always interpolated, since a branch on the size
    of the input would be baked into an exported graph; at the same size that changes nothing.
    """
    side = math.isqrt(positions.shape[0] - 1)
    grid = positions[1:].unflatten(0, (side, side)).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, size=size, mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], grid[0].flatten(1).T])


class DenseCLIPAttentionPool(nn.Module):
    """
    CLIP's attention pool, kept dense: attention among all cells and their mean, projected to the joint space.
    (batch_size, hidden_size, height, width) -> (batch_size, 1 + height * width, projection_dim); the first is global.

    Source: paper section 3.2; published `AttentionPool2d` in `models.py`.
    """

    def __init__(self, config: DenseCLIPConfig):
        super().__init__()
        self.config = config
        vision_config = config.vision_config
        hidden_size = vision_config.hidden_size
        self.num_heads = vision_config.num_attention_heads
        side = vision_config.image_size // vision_config.patch_size
        self.position_embedding = nn.Parameter(torch.empty(1 + side * side, hidden_size))
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, config.projection_dim)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        size = hidden_states.shape[-2:]
        # (batch_size, hidden_size, height, width) -> (batch_size, height * width, hidden_size)
        hidden_states = hidden_states.flatten(2).transpose(1, 2)
        hidden_states = torch.cat([hidden_states.mean(dim=1, keepdim=True), hidden_states], dim=1)
        hidden_states = hidden_states + resize_grid(self.position_embedding, size)
        query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        hidden_states, attention_weights = attend(self, query, key, value, self.num_heads)
        return self.out_proj(hidden_states), attention_weights


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
        positions = resize_grid(self.position_embedding.weight, patches.shape[-2:])
        class_embedding = (self.class_embedding_scale * self.class_embedding).expand(patches.shape[0], 1, -1)
        return torch.cat([class_embedding, patches.flatten(2).transpose(1, 2)], dim=1) + positions


class DenseCLIPPyramid(nn.Module):
    """
    Four maps of one ViT stride (16) -> the same at strides 4, 8, 16 and 32.

    Source: published `CLIPVisionTransformer.fpn1` to `fpn4` in `models.py`.
    """

    def __init__(self, config: DenseCLIPConfig):
        super().__init__()
        channels = config.vision_config.hidden_size
        self.norms = nn.ModuleList(nn.GroupNorm(1, channels) for _ in config.feature_layers)
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


class DenseCLIPPrompts(nn.Module):
    """
    Learned contexts and class names as one packed sequence: nothing -> (1, T, hidden_size).

    Source: paper section 3.3 "language-domain prompting"; published `CLIPTextContextEncoder`, which runs one padded
    sequence per class instead.
    """

    def __init__(self, config: DenseCLIPConfig):
        super().__init__()
        self.config = config
        self.contexts = nn.Parameter(torch.empty(1, config.num_context_tokens, config.text_config.hidden_size))
        self.pack(config.class_names, config.class_token_ids)

    def pack(self, class_names: Sequence[str], class_token_ids: Sequence[Sequence[int]]):
        """Lay out the prompts of these classes from now on. Raises ValueError for one that is too long."""
        for name, values in self.packed(class_names, class_token_ids).items():
            setattr(self, name, nn.Buffer(torch.tensor(values, device=self.contexts.device), persistent=False))

    def packed(self, class_names: Sequence[str], class_token_ids: Sequence[Sequence[int]]) -> dict[str, list[int]]:
        """The values of the buffers; see `PackedPrompts`."""
        packed = pack_prompts(
            class_names,
            class_token_ids,
            self.config.num_context_tokens,
            self.config.context_position,
            self.config.text_config.max_position_embeddings,
        )
        return vars(packed)

    def forward(self, embeddings: nn.Module) -> torch.Tensor:
        """`embeddings` is the text tower's `CLIPTextEmbeddings`."""
        tokens = embeddings.token_embedding(self.token_ids)
        sequence = torch.cat([self.contexts[0].to(tokens.dtype), tokens])[self.source_index]
        return (sequence + embeddings.position_embedding(self.position_ids))[None]

    def attention_mask(self, dtype: torch.dtype) -> torch.Tensor:
        """
        Additive mask of shape (1, 1, T, T): a position sees the shared prefix and its own class, up to itself.
        """
        order = torch.arange(self.class_index.shape[0], device=self.class_index.device)
        same_prompt = (self.class_index[None, :] == -1) | (self.class_index[None, :] == self.class_index[:, None])
        visible = same_prompt & (order[None, :] <= order[:, None])
        mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        return mask.masked_fill(~visible, torch.finfo(dtype).min)[None, None]


class DenseCLIPContextAttention(nn.Module):
    """Attention of class embeddings to themselves or to the image. Query, key and value have no bias, as published."""

    def __init__(self, config: DenseCLIPConfig):
        super().__init__()
        self.config = config
        hidden_size = config.context_decoder_hidden_size
        self.num_heads = config.context_decoder_num_attention_heads
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.k_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.v_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.out_proj = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(config.context_decoder_dropout)

    def forward(self, hidden_states: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        query, key, value = self.q_proj(hidden_states), self.k_proj(memory), self.v_proj(memory)
        hidden_states, attention_weights = attend(self, query, key, value, self.num_heads)
        return self.dropout(self.out_proj(hidden_states)), attention_weights


class DenseCLIPContextDecoderLayer(GradientCheckpointingLayer):
    """Pre-norm decoder layer: self-attention among classes, cross-attention to the image, MLP."""

    def __init__(self, config: DenseCLIPConfig):
        super().__init__()
        hidden_size = config.context_decoder_hidden_size
        self.self_attention = DenseCLIPContextAttention(config)
        self.cross_attention = DenseCLIPContextAttention(config)
        self.self_attention_norm = nn.LayerNorm(hidden_size)
        self.cross_attention_norm = nn.LayerNorm(hidden_size)
        self.mlp_norm = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, config.context_decoder_intermediate_size)
        self.activation = nn.GELU()
        self.fc2 = nn.Linear(config.context_decoder_intermediate_size, hidden_size)
        self.dropout = nn.Dropout(config.context_decoder_dropout)

    def forward(self, hidden_states: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        queries = self.self_attention_norm(hidden_states)
        hidden_states = hidden_states + self.self_attention(queries, queries)[0]
        hidden_states = hidden_states + self.cross_attention(self.cross_attention_norm(hidden_states), memory)[0]
        update = self.fc2(self.dropout(self.activation(self.fc1(self.mlp_norm(hidden_states)))))
        return hidden_states + self.dropout(update)


class DenseCLIPContextDecoder(nn.Module):
    """
    Post-model prompting: class embeddings take up what the image shows, `text + gamma * decoder(text, image)`.
    (num_labels, projection_dim) and (batch_size, 1 + height * width, projection_dim) ->
    (batch_size, num_labels, projection_dim).

    Source: paper section 3.3, equation 5; published `ContextDecoder`.
    """

    def __init__(self, config: DenseCLIPConfig):
        super().__init__()
        self.config = config
        hidden_size = config.context_decoder_hidden_size
        self.memory_norm_in = nn.LayerNorm(config.projection_dim)
        self.memory_proj = nn.Linear(config.projection_dim, hidden_size)
        self.memory_norm_out = nn.LayerNorm(hidden_size)
        self.text_norm = nn.LayerNorm(config.projection_dim)
        self.text_proj = nn.Linear(config.projection_dim, hidden_size)
        self.layers = nn.ModuleList(
            DenseCLIPContextDecoderLayer(config) for _ in range(config.context_decoder_num_hidden_layers)
        )
        self.out_norm = nn.LayerNorm(hidden_size)
        self.out_proj = nn.Linear(hidden_size, config.projection_dim)
        self.gamma = nn.Parameter(torch.empty(config.projection_dim))

    def forward(self, text_embeddings: torch.Tensor, visual_embeddings: torch.Tensor) -> torch.Tensor:
        memory = self.memory_norm_out(self.memory_proj(self.memory_norm_in(visual_embeddings)))
        hidden_states = self.text_proj(self.text_norm(text_embeddings))
        hidden_states = hidden_states.expand(memory.shape[0], -1, -1)
        for layer in self.layers:
            hidden_states = layer(hidden_states, memory)
        return text_embeddings + self.gamma * self.out_proj(self.out_norm(hidden_states))


class DenseCLIPNeck(nn.Module):
    """
    Feature pyramid: four maps of any width -> four of `neck_hidden_size`, each with what the coarser ones know.

    Source: "Feature Pyramid Networks for Object Detection"; mmseg `FPN` with nearest top-down steps.
    """

    def __init__(self, config: DenseCLIPConfig):
        super().__init__()
        hidden_size = config.neck_hidden_size
        in_channels = list(config.feature_sizes)
        # CODEPATH: DenseCLIP rows bring one score-map channel per class to one level, "CLIP + Semantic FPN" rows none
        if config.use_language:
            in_channels[config.score_map_level] += config.num_labels
        self.lateral_convs = nn.ModuleList(nn.Conv2d(channels, hidden_size, kernel_size=1) for channels in in_channels)
        self.output_convs = nn.ModuleList(
            nn.Conv2d(hidden_size, hidden_size, kernel_size=3, padding=1) for _ in in_channels
        )

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        laterals = [conv(feature_map) for conv, feature_map in zip(self.lateral_convs, feature_maps, strict=True)]
        for level in range(len(laterals) - 1, 0, -1):
            finer = laterals[level - 1]
            laterals[level - 1] = finer + F.interpolate(laterals[level], size=finer.shape[-2:], mode="nearest")
        return [conv(lateral) for conv, lateral in zip(self.output_convs, laterals, strict=True)]


class DenseCLIPDecodeHeadStep(nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(self.conv(hidden_states)))


class DenseCLIPDecodeHead(nn.Module):
    """
    Semantic FPN: each level is brought to stride 4 by convolutions and bilinear doublings, and the levels are summed.
    Four maps of `neck_hidden_size` -> (batch_size, num_labels, height / 4, width / 4).

    Source: "Panoptic Feature Pyramid Networks", section 3; mmseg `FPNHead`.
    """

    classifier_std = 0.01

    def __init__(self, config: DenseCLIPConfig):
        super().__init__()
        in_channels, hidden_size = config.neck_hidden_size, config.decode_head_hidden_size
        # One step and one doubling per factor of 2 above stride 4; the level of stride 4 has a step alone.
        self.levels = nn.ModuleList(
            nn.ModuleList(
                DenseCLIPDecodeHeadStep(in_channels if step == 0 else hidden_size, hidden_size)
                for step in range(max(level, 1))
            )
            for level in range(len(config.feature_sizes))
        )
        self.dropout = nn.Dropout2d(config.decode_head_dropout)
        self.classifier = nn.Conv2d(hidden_size, config.num_labels, kernel_size=1)

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        fused = self.levels[0][0](feature_maps[0])
        for level in range(1, len(feature_maps)):
            hidden_states = feature_maps[level]
            for step in self.levels[level]:
                hidden_states = step(hidden_states)
                hidden_states = F.interpolate(hidden_states, scale_factor=2, mode="bilinear", align_corners=False)
            # Sizes that are no multiple of 32 leave the doubled map a few cells short.
            fused = fused + F.interpolate(hidden_states, size=fused.shape[-2:], mode="bilinear", align_corners=False)
        return self.classifier(self.dropout(fused))


@auto_docstring
class DenseCLIPPreTrainedModel(DenseCLIPInitializationMixin, PreTrainedModel):
    config: DenseCLIPConfig
    base_model_prefix = "denseclip"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["DenseCLIPResNetBackbone", "DenseCLIPViTLayer", "DenseCLIPContextDecoderLayer"]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, DenseCLIPPrompts):
            init.trunc_normal_(module.contexts)
            for name, values in module.packed(self.config.class_names, self.config.class_token_ids).items():
                init.copy_(getattr(module, name), torch.tensor(values))
        elif isinstance(module, DenseCLIPContextDecoder):
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
                init.xavier_uniform_(conv.weight)
        elif isinstance(module, DenseCLIPDecodeHeadStep):
            init.kaiming_normal_(module.conv.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, DenseCLIPDecodeHead):
            init.normal_(module.classifier.weight, std=module.classifier_std)
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
        self.pyramid = DenseCLIPPyramid(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.vision_model.embeddings.patch_embedding

    def set_input_embeddings(self, value: nn.Module):
        self.vision_model.embeddings.patch_embedding = value

    def run_layers(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """(batch_size, channels, height, width) -> every layer's output, (batch_size, 1 + patches, hidden_size)."""
        hidden_states = self.vision_model.pre_layrnorm(self.vision_model.embeddings(pixel_values))
        layer_outputs = []
        for layer in self.vision_model.encoder.layers:
            hidden_states = layer(hidden_states, None)
            layer_outputs.append(hidden_states)
        return layer_outputs

    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> DenseCLIPImageEncoderOutput:
        patch_size = self.config.vision_config.patch_size
        grid = (pixel_values.shape[-2] // patch_size, pixel_values.shape[-1] // patch_size)
        layer_outputs = self.run_layers(pixel_values)
        # (batch_size, 1 + patches, hidden_size) -> (batch_size, hidden_size, height, width), without the class token
        taps = [layer_outputs[layer][:, 1:].transpose(1, 2).unflatten(2, grid) for layer in self.config.feature_layers]
        outputs = DenseCLIPImageEncoderOutput(feature_maps=self.pyramid(taps))
        # CODEPATH: DenseCLIP rows embed every patch, "CLIP + Semantic FPN" rows need no embeddings
        if self.config.use_language:
            embeddings = self.visual_projection(self.final_norm(layer_outputs[-1]))
            outputs["global_embedding"] = embeddings[:, 0]
            outputs["pixel_embeddings"] = embeddings[:, 1:].transpose(1, 2).unflatten(2, grid)
        return outputs

    def final_norm(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """CLIP's last layer norm, on all tokens where CLIP has it on the class token alone (published code)."""
        return self.vision_model.post_layernorm(hidden_states)


@auto_docstring(
    custom_intro="""
    CLIP's ResNet as an image encoder: four feature maps and, with language, embeddings in the joint space.
    """
)
class DenseCLIPResNetEncoder(DenseCLIPPreTrainedModel):
    def __init__(self, config: DenseCLIPConfig):
        super().__init__(config)
        self.backbone = DenseCLIPResNetBackbone(config.vision_config)
        # CODEPATH: DenseCLIP rows embed every cell, "CLIP + Semantic FPN" rows need no embeddings
        if config.use_language:
            self.attention_pool = DenseCLIPAttentionPool(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.stem.conv1

    def set_input_embeddings(self, value: nn.Module):
        self.backbone.stem.conv1 = value

    # Not `capture_outputs`, which would put a second set of hooks on the backbone: that has its own.
    @can_return_tuple
    @auto_docstring
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> DenseCLIPImageEncoderOutput:
        output_hidden_states = kwargs.get("output_hidden_states", self.config.output_hidden_states)
        backbone_outputs = self.backbone(pixel_values, output_hidden_states=output_hidden_states)
        outputs = DenseCLIPImageEncoderOutput(
            feature_maps=backbone_outputs.feature_maps, hidden_states=backbone_outputs.hidden_states
        )
        # CODEPATH: DenseCLIP rows embed every cell, "CLIP + Semantic FPN" rows need no embeddings
        if self.config.use_language:
            embeddings, attention_weights = self.attention_pool(backbone_outputs.feature_maps[-1])
            grid = backbone_outputs.feature_maps[-1].shape[-2:]
            outputs["global_embedding"] = embeddings[:, 0]
            outputs["pixel_embeddings"] = embeddings[:, 1:].transpose(1, 2).unflatten(2, grid)
            if kwargs.get("output_attentions", self.config.output_attentions) and attention_weights is not None:
                outputs["attentions"] = (attention_weights,)
        return outputs


@auto_docstring(
    custom_intro="""
    DenseCLIP for semantic segmentation: CLIP's two towers, a pixel-text score map, a feature pyramid and a Semantic
    FPN head. With `config.use_language=False` it is the paper's "CLIP + Semantic FPN" baseline.
    """
)
class DenseCLIPForSemanticSegmentation(DenseCLIPClassNamesMixin, DenseCLIPPreTrainedModel):
    # The loss is a mean over pixels: the Trainer must not rescale it by a number of items in the batch.
    accepts_loss_kwargs = False

    def __init__(self, config: DenseCLIPConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        class_names = class_names_of(config.id2label)
        # CODEPATH: ViT-B/16 rows and ResNet rows
        self.image_encoder = DenseCLIPViTEncoder(config) if config.is_vit else DenseCLIPResNetEncoder(config)
        # CODEPATH: DenseCLIP rows read class names, "CLIP + Semantic FPN" rows have no text tower
        if config.use_language:
            if config.class_token_ids is None:
                raise ValueError(
                    f"The config has no `class_token_ids` for its {len(class_names)} class names. Give it"
                    " `class_token_ids=tokenize_class_names(names, tokenizer)`, or use `from_clip_pretrained`."
                )
            if config.class_names != class_names:
                raise ValueError(
                    f"The config's `class_token_ids` stand for {config.class_names}, its `id2label` for {class_names}."
                    " Change names by `set_class_names` or `from_pretrained(..., id2label=...)`, which tokenise anew."
                )
            self.prompts = DenseCLIPPrompts(config)
            self.text_encoder = CLIPTextModel(config.text_config)
            self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
            self.context_decoder = DenseCLIPContextDecoder(config)
        else:
            config.class_names = class_names
        self.neck = DenseCLIPNeck(config)
        self.decode_head = DenseCLIPDecodeHead(config)
        self.text_cache = TextEmbeddingCache()
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.image_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.image_encoder.set_input_embeddings(value)

    def get_text_embeddings(self) -> torch.Tensor:
        """
        Class embeddings before they see an image, `(num_labels, projection_dim)`.

        They are computed once and kept while no weight of the text side changes, if no gradient is asked for.
        """
        modules = (self.text_encoder, self.text_projection)
        trainable = self.prompts.contexts.requires_grad or any(
            parameter.requires_grad for module in modules for parameter in module.parameters()
        )
        if self.training or (torch.is_grad_enabled() and trainable) or not is_cacheable(*modules):
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
            token_embedding(self.prompts.token_ids),
            *(
                parameter
                for module in modules
                for parameter in module.parameters()
                if parameter is not token_embedding.weight
            ),
        ]
        with torch.no_grad():
            return self.text_cache.get(tensors, settings, self.encode_class_names)

    def encode_class_names(self) -> torch.Tensor:
        """Run the text tower: all prompts as one packed sequence -> `(num_labels, projection_dim)`."""
        hidden_states = self.prompts(self.text_encoder.embeddings)
        attention_mask = self.prompts.attention_mask(hidden_states.dtype)
        for layer in self.text_encoder.encoder.layers:
            hidden_states = layer(hidden_states, attention_mask)
        end_states = self.text_encoder.final_layer_norm(hidden_states[0, self.prompts.end_index])
        return self.text_projection(end_states)

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
        labels (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*):
            Class of each pixel in `[0, config.num_labels)`, or `config.ignore_index`. Any height and width: the
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
        height, width = pixel_values.shape[-2:]
        if min(height, width) < MIN_IMAGE_SIZE:
            raise ValueError(
                f"`pixel_values` is {height} x {width} pixels; both sides must have at least {MIN_IMAGE_SIZE}, one"
                " cell of the coarsest feature map. Resize the image, e.g. with DenseCLIPImageProcessor."
            )
        window = sliding_window(self.config, inference_mode, window_size, window_stride)
        if window is not None and not self.training and (height > window[0][0] or width > window[0][1]):
            logits = self.slide(pixel_values, *window)
            outputs = DenseCLIPSemanticSegmenterOutput(logits=logits)
        else:
            outputs = self.segment(pixel_values, **kwargs)

        if labels is not None:
            loss = pixel_cross_entropy(outputs.logits, labels, self.config.ignore_index)
            if outputs.score_map is not None:
                score_logits = outputs.score_map / self.config.temperature
                auxiliary_loss = pixel_cross_entropy(score_logits, labels, self.config.ignore_index)
                loss = loss + self.config.auxiliary_loss_weight * auxiliary_loss
            outputs = DenseCLIPSemanticSegmenterOutput(**{**outputs, "loss": loss})
        return outputs

    def segment(
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> DenseCLIPSemanticSegmenterOutput:
        """The whole of `pixel_values` at once; see `forward`."""
        kwargs.pop("return_dict", None)
        image_outputs = self.image_encoder(pixel_values, **kwargs)
        feature_maps = list(image_outputs.feature_maps)
        score_map = text_embeddings = None
        # CODEPATH: DenseCLIP rows guide the neck by a score map, "CLIP + Semantic FPN" rows do not
        if self.config.use_language:
            # 1. What the image shows, (batch_size, 1 + height * width, projection_dim).
            pixel_embeddings = image_outputs.pixel_embeddings
            visual_embeddings = torch.cat(
                [image_outputs.global_embedding[:, None], pixel_embeddings.flatten(2).transpose(1, 2)], dim=1
            )
            # 2. Class embeddings, prompted by it.
            text_embeddings = self.context_decoder(self.get_text_embeddings(), visual_embeddings)
            # 3. Pixel-text matching.
            score_map = compute_score_map(pixel_embeddings, text_embeddings)
            # 4. Its guidance for the decoder.
            level = self.config.score_map_level
            feature_maps[level] = torch.cat([feature_maps[level], score_map.to(feature_maps[level].dtype)], dim=1)
        logits = self.decode_head(self.neck(feature_maps))
        return DenseCLIPSemanticSegmenterOutput(
            logits=logits,
            score_map=score_map,
            text_embeddings=text_embeddings,
            hidden_states=image_outputs.hidden_states,
            attentions=image_outputs.attentions,
        )

    def slide(
        self, pixel_values: torch.Tensor, window_size: tuple[int, int], window_stride: tuple[int, int]
    ) -> torch.Tensor:
        """
        Average the logits of overlapping windows: (batch_size, channels, height, width) ->
        (batch_size, num_labels, height, width). The last window of a row or column is shifted back into the image.

        Source: mmseg `EncoderDecoder.slide_inference`.
        """
        batch_size, _, height, width = pixel_values.shape
        window_height, window_width = min(window_size[0], height), min(window_size[1], width)
        tops = window_starts(height, window_height, window_stride[0])
        lefts = window_starts(width, window_width, window_stride[1])
        corners = [(top, left) for top in tops for left in lefts]

        logits = pixel_values.new_zeros((batch_size, self.num_labels, height, width), dtype=torch.float32)
        for first in range(0, len(corners), self.config.window_batch_size):
            chunk = corners[first : first + self.config.window_batch_size]
            windows = [
                pixel_values[:, :, top : top + window_height, left : left + window_width] for top, left in chunk
            ]
            window_logits = self.segment(torch.cat(windows)).logits.float()
            window_logits = resize_logits(window_logits, (window_height, window_width))
            for (top, left), part in zip(chunk, window_logits.split(batch_size), strict=True):
                logits[:, :, top : top + window_height, left : left + window_width] += part

        # How often each row and column was seen; the windows form a grid, so a pixel was seen their product of times.
        rows, columns = logits.new_zeros(height), logits.new_zeros(width)
        for top in tops:
            rows[top : top + window_height] += 1
        for left in lefts:
            columns[left : left + window_width] += 1
        return logits / rows[:, None] / columns

    @classmethod
    def from_clip_pretrained(
        cls,
        clip_name_or_path: str | os.PathLike,
        class_names: Sequence[str],
        tokenizer: PreTrainedTokenizerBase | str | os.PathLike | None = None,
        config: DenseCLIPConfig | None = None,
        **kwargs,
    ) -> "DenseCLIPForSemanticSegmentation":
        r"""
        A model to fine-tune: CLIP's two towers with their weights, everything else freshly initialised.

        Args:
            clip_name_or_path (`str` or `os.PathLike`):
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
            kwargs:
                Fields of [`DenseCLIPConfig`] to set besides.

        Raises:
            ValueError: for weights that are not CLIP's or do not fit `config`; names every tensor.
        """
        from .conversion_denseclip import build_from_clip

        return build_from_clip(cls, clip_name_or_path, class_names, tokenizer, config, **kwargs)


def compute_score_map(pixel_embeddings: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
    """
    Pixel-text matching: cosine similarity of every pixel and every class, in [-1, 1].
    (batch_size, projection_dim, height, width) and (batch_size, num_labels, projection_dim) ->
    (batch_size, num_labels, height, width). Computed in float32.

    Source: paper section 3.2, equation 1.
    """
    pixels = F.normalize(pixel_embeddings.float(), dim=1)
    texts = F.normalize(text_embeddings.float(), dim=2)
    return torch.matmul(texts, pixels.flatten(2)).unflatten(2, pixels.shape[-2:])


def resize_logits(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(batch_size, num_labels, height, width) -> (batch_size, num_labels, *size), bilinearly."""
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def pixel_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """
    Cross-entropy at the size of `labels`, averaged over all pixels. Ignored ones count as 0, as in mmseg 0.19; so a
    batch that has no labelled pixel gives 0 with zero gradients, where torch's own mean gives NaN.
    """
    logits = resize_logits(logits.float(), labels.shape[-2:])
    return F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="sum") / labels.numel()


def sliding_window(
    config: DenseCLIPConfig,
    inference_mode: str | None,
    window_size: int | tuple[int, int] | None,
    window_stride: int | tuple[int, int] | None,
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Size and stride of the window that a call asks for, or `None` for the whole image."""
    inference_mode = config.inference_mode if inference_mode is None else inference_mode
    if inference_mode not in ("whole", "slide"):
        raise ValueError(f"`inference_mode` must be 'whole' or 'slide'; got {inference_mode!r}.")
    if inference_mode == "whole":
        return None
    size = as_pair(config.window_size if window_size is None else window_size, "window_size")
    stride = as_pair(config.window_stride if window_stride is None else window_stride, "window_stride")
    if min(stride) < 1 or stride[0] > size[0] or stride[1] > size[1] or min(size) < MIN_IMAGE_SIZE:
        raise ValueError(
            f"`window_stride` {stride} must be positive and at most `window_size` {size}, and windows at least"
            f" {MIN_IMAGE_SIZE} pixels high and wide."
        )
    return size, stride


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixel of each window along one side; the last one ends with the image."""
    steps = max(math.ceil((length - window) / stride), 0)
    return [min(step * stride, length - window) for step in range(steps + 1)]


# `pipeline("image-segmentation")` looks class names up in this table, and logs an error for those it does not hold.
MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES.setdefault("denseclip", "DenseCLIPForSemanticSegmentation")


__all__ = [
    "DenseCLIPForSemanticSegmentation",
    "DenseCLIPImageEncoderOutput",
    "DenseCLIPPreTrainedModel",
    "DenseCLIPResNetEncoder",
    "DenseCLIPSemanticSegmenterOutput",
    "DenseCLIPViTEncoder",
]
