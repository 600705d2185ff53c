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
Prompts before the text tower, and the context decoder. Source: paper section 3.3; DenseCLIP `models.py` (MIT).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .class_names_denseclip import pack_prompts
from .configuration_denseclip import DenseCLIPConfig
from .modeling_denseclip_attention import attend


class DenseCLIPPrompts(nn.Module):
    """
    Learned contexts, and where they stand among the names of the classes: all prompts in packed sequences.

    Source: paper section 3.3 "language-domain prompting"; published `CLIPTextContextEncoder`, which runs one padded
    sequence per class instead.
    """

    def __init__(self, config: DenseCLIPConfig):
        super().__init__()
        self.config = config
        self.contexts = nn.Parameter(torch.empty(1, config.num_context_tokens, config.text_config.hidden_size))
        self.pack(config.class_names, config.class_token_ids)

    def pack(self, class_names: Sequence[str], class_token_ids: Sequence[Sequence[int]] | None):
        """Lay out the prompts of these classes from now on. Raises ValueError for one that is too long."""
        for name, values in self.packed(class_names, class_token_ids).items():
            setattr(self, name, nn.Buffer(torch.tensor(values, device=self.contexts.device), persistent=False))

    def packed(
        self,
        names: Sequence[str],
        token_ids: Sequence[Sequence[int]] | None,
        num_context_tokens: int | None = None,
    ) -> dict[str, list]:
        """
        The layout of prompts, see `PackedPrompts`; by default with as many contexts as are learned. Empty where the
        names have no tokens yet.
        """
        if token_ids is None:
            return {}
        packed = pack_prompts(
            names,
            token_ids,
            self.config.num_context_tokens if num_context_tokens is None else num_context_tokens,
            self.config.context_position,
            self.config.text_config.max_position_embeddings,
        )
        return vars(packed)

    def forward(self) -> torch.Tensor:
        """The learned contexts, `(1, num_context_tokens, hidden_size)`. A call fetches offloaded ones."""
        return self.contexts

    @property
    def layout(self) -> dict[str, torch.Tensor]:
        """
        The layout of the classes' prompts, on the device of the model.

        Raises:
            ValueError: for a model whose config has no tokens of its class names.
        """
        layout = dict(self.named_buffers())
        if not layout:
            raise ValueError(
                f"The config has no `class_token_ids` for its {self.config.num_labels} class names, so this model"
                " cannot read them. Call `set_class_names(names, tokenizer)` with CLIP's tokenizer, or give the config"
                " `class_token_ids=tokenize_class_names(names, tokenizer)`."
            )
        return layout


def embed_prompts(
    embeddings: nn.Module, contexts: torch.Tensor, layout: dict[str, torch.Tensor]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """
    Contexts and names as the text tower reads them, one packed sequence after the other: contexts
    (batch_size, num_context_tokens, hidden_size) -> states (batch_size, T, hidden_size), the class of each position
    (T,), and where prompts end, (P,). `embeddings` is the tower's `CLIPTextEmbeddings`; all is brought to its device.
    """
    tokens = embeddings.token_embedding(layout["token_ids"])
    contexts = contexts.to(tokens)
    sources = torch.cat([contexts, tokens.expand(contexts.shape[0], -1, -1)], dim=1)
    names = ("source_index", "position_ids", "class_index", "end_index")
    for source_index, position_ids, class_index, end_index in zip(
        *(layout[name].to(tokens.device).unbind() for name in names), strict=True
    ):
        yield sources[:, source_index] + embeddings.position_embedding(position_ids), class_index, end_index


def prompt_attention_mask(class_index: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """
    Additive mask of shape (1, 1, T, T): a position sees the shared prefix and its own class, up to itself.
    """
    order = torch.arange(class_index.shape[0], device=class_index.device)
    same_prompt = (class_index[None, :] == -1) | (class_index[None, :] == class_index[:, None])
    visible = same_prompt & (order[None, :] <= order[:, None])
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill(~visible, torch.finfo(dtype).min)[None, None]


class DenseCLIPContextAttention(nn.Module):
    """Attention of queries to themselves or to the image. Query, key and value have no bias, as published."""

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
    """Pre-norm decoder layer: self-attention among queries, cross-attention to the image, MLP."""

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
    What the image adds to the prompts: queries of any width W read the image embeddings.
    (num_queries, W) and (batch_size, 1 + height * width, projection_dim) -> (batch_size, num_queries, W).

    In post-model prompting the queries are class embeddings, `text + gamma * decoder(text, image)`. In pre-model
    prompting they are the learned contexts, and the output stands in their place before the text tower.

    Source: paper section 3.3, equations 3 to 5; published `ContextDecoder` (post-model).
    """

    def __init__(self, config: DenseCLIPConfig):
        super().__init__()
        self.config = config
        hidden_size = config.context_decoder_hidden_size
        # CODEPATH: the "pre-model prompting" row of Table 2 works in the text tower's width, all others after it
        is_pre_model = config.prompting_mode == "pre_model"
        query_size = config.text_config.hidden_size if is_pre_model else config.projection_dim
        self.memory_norm_in = nn.LayerNorm(config.projection_dim)
        self.memory_proj = nn.Linear(config.projection_dim, hidden_size)
        self.memory_norm_out = nn.LayerNorm(hidden_size)
        self.text_norm = nn.LayerNorm(query_size)
        self.text_proj = nn.Linear(query_size, hidden_size)
        self.layers = nn.ModuleList(
            DenseCLIPContextDecoderLayer(config) for _ in range(config.context_decoder_num_hidden_layers)
        )
        self.out_norm = nn.LayerNorm(hidden_size)
        self.out_proj = nn.Linear(hidden_size, query_size)
        self.gamma = None if is_pre_model else nn.Parameter(torch.empty(query_size))

    def forward(self, queries: torch.Tensor, visual_embeddings: torch.Tensor) -> torch.Tensor:
        memory = self.memory_norm_out(self.memory_proj(self.memory_norm_in(visual_embeddings)))
        hidden_states = self.text_proj(self.text_norm(queries))
        hidden_states = hidden_states.expand(memory.shape[0], -1, -1)
        for layer in self.layers:
            hidden_states = layer(hidden_states, memory)
        update = self.out_proj(self.out_norm(hidden_states))
        # CODEPATH: the "pre-model prompting" row of Table 2 replaces its queries, all others shift them
        return update if self.gamma is None else queries + self.gamma * update


__all__ = ["DenseCLIPContextDecoder", "DenseCLIPPrompts", "embed_prompts", "prompt_attention_mask"]
