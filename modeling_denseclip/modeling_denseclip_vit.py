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
"""CLIP's vision transformer as an image encoder. Source: DenseCLIP `models.py` (MIT)."""

import torch
from torch import nn
from transformers import CLIPVisionModel
from transformers import initialization as init
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPVisionEmbeddings
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring
from transformers.utils.output_capturing import capture_outputs

from .configuration_denseclip import NUM_FEATURE_LEVELS, DenseCLIPConfig
from .initialization_denseclip import InitializesItself
from .modeling_denseclip_backbone import resize_to_multiple
from .modeling_denseclip_encoder import DenseCLIPImageEncoderOutput, DenseCLIPPreTrainedModel, DenseCLIPPyramid
from .resizing_denseclip import resize_grid


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
        # Called, not indexed: the call fetches a weight that is offloaded.
        positions = self.position_embedding(torch.arange(self.num_positions, device=patches.device))
        positions = resize_grid(positions, patches.shape[-2:])
        class_embedding = (self.class_embedding_scale * self.class_embedding).expand(patches.shape[0], 1, -1)
        return torch.cat([class_embedding, patches.flatten(2).transpose(1, 2)], dim=1) + positions


@auto_docstring(
    custom_intro="""
    CLIP's vision transformer as an image encoder: four feature maps and, with language, embeddings in the joint space.
    """
)
class DenseCLIPViTEncoder(InitializesItself, DenseCLIPPreTrainedModel):
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

    def initialize_own_weights(self):
        # CODEPATH: DenseCLIP rows embed every patch, "CLIP + Semantic FPN" rows need no embeddings
        if self.config.use_language:
            init.normal_(self.visual_projection.weight, std=self.visual_projection.in_features**-0.5)

    def get_input_embeddings(self) -> nn.Module:
        return self.vision_model.embeddings.patch_embedding

    def set_input_embeddings(self, value: nn.Module):
        self.vision_model.embeddings.patch_embedding = value

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
        # The first layer's input and every layer's output, each (batch_size, 1 + patches, hidden_size)
        states = [self.vision_model.pre_layrnorm(self.vision_model.embeddings(pixel_values))]
        for layer in self.vision_model.encoder.layers:
            states.append(layer(states[-1], None))
        # (batch_size, 1 + patches, hidden_size) -> (batch_size, hidden_size, height, width), without the class token
        layer_maps = [
            states[layer + 1][:, 1:].transpose(1, 2).unflatten(2, grid) for layer in self.config.feature_layers
        ]
        outputs = DenseCLIPImageEncoderOutput(feature_maps=self.pyramid(layer_maps))
        # CODEPATH: DenseCLIP rows embed every patch, "CLIP + Semantic FPN" rows need no embeddings
        if self.config.use_language:
            # CLIP's last layer norm, on all tokens where CLIP has it on the class token alone (published code)
            final_norm = self.vision_model.post_layernorm
            embeddings = self.visual_projection(final_norm(states[-1]))
            outputs["global_embedding"] = embeddings[:, 0]
            outputs["pixel_embeddings"] = embeddings[:, 1:].transpose(1, 2).unflatten(2, grid)
            if value_projection:
                values = self.visual_projection(final_norm(self.last_layer_values(states[-2])))
                outputs["value_embeddings"] = values[:, 1:].transpose(1, 2).unflatten(2, grid)
        return outputs

    def last_layer_values(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        The last layer with each token attending to itself alone, (batch_size, 1 + patches, hidden_size) -> the same.

        Source: "Extract Free Dense Labels from CLIP", section 3.2.
        """
        layer = self.vision_model.encoder.layers[-1]
        attention = layer.self_attn
        hidden_states = hidden_states + attention.out_proj(attention.v_proj(layer.layer_norm1(hidden_states)))
        return hidden_states + layer.mlp(layer.layer_norm2(hidden_states))


__all__ = ["DenseCLIPViTEncoder"]
