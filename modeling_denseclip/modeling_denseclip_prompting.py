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
Prompting: how prompts are laid out for the text tower, and what class embeddings learn from the image. Source: paper
section 3.3; DenseCLIP `models.py` (MIT).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_denseclip import DenseCLIPConfig
from .initialization_denseclip import InitializesItself
from .modeling_denseclip_attention import attend


# About how many positions the text tower reads as one sequence. With fewer, the prefix that each sequence repeats
# would cost more, and with more, attention. See "Many class names" in benchmarks/README.md.
POSITIONS_PER_SEQUENCE = 512


@dataclass
class PackedPrompts:
    """
    All class prompts in S sequences of T positions: in each the prefix that all prompts share, then the rest of some.

    Under a causal mask no position sees what follows it, so the states of a shared prefix are equal in all prompts and
    need to be computed once: 343 positions instead of 150 x 13 for ADE20K. Many prompts take several sequences, since
    attention takes time and memory with the square of T. Sequences that end before the longest one are padded.
    """

    token_ids: list[int]  # (M,) tokens to embed, each once
    source_index: list[list[int]]  # (S, T) into [contexts, embedded tokens]
    position_ids: list[list[int]]  # (S, T) position within its own prompt
    class_index: list[list[int]]  # (S, T) class that a position belongs to, -1 for the shared prefix, -2 for padding
    end_index: list[list[int]]  # (S, P) where in its sequence each prompt's end token stands, and zeros
    prompt_index: list[int]  # (K,) which of the S x P ends is each prompt's


def pack_prompts(
    class_names: Sequence[str],
    class_token_ids: Sequence[Sequence[int]],
    num_context_tokens: int,
    context_position: str,
    max_positions: int,
) -> PackedPrompts:
    """
    Lay out all class prompts in sequences of equal length.

    Raises:
        ValueError: for a prompt with more than `max_positions` positions; names the class.
    """
    for class_name, ids in zip(class_names, class_token_ids, strict=True):
        if len(ids) + num_context_tokens > max_positions:
            raise ValueError(
                f"The prompt of class {class_name!r} takes {len(ids) + num_context_tokens} positions ({len(ids)}"
                f" tokens of its name and {num_context_tokens} learned contexts); the text tower has {max_positions}."
                " Shorten the name."
            )
    contexts = list(range(num_context_tokens))
    # Among [contexts, embedded tokens]
    tokens = dict.fromkeys(token for ids in class_token_ids for token in ids)
    index_of_token = {token: num_context_tokens + index for index, token in enumerate(tokens)}
    is_before = context_position == "before_name"
    start = index_of_token[class_token_ids[0][0]]
    prefix = [start, *contexts] if is_before else [start]
    suffixes = [[index_of_token[token] for token in ids[1:]] for ids in class_token_ids]
    if not is_before:
        suffixes = [[*suffix[:-1], *contexts, suffix[-1]] for suffix in suffixes]

    total = sum(map(len, suffixes))
    # As many sequences as are needed, each as full as the others.
    full = len(prefix) + math.ceil(total / math.ceil(total / POSITIONS_PER_SEQUENCE))
    packed = PackedPrompts(list(index_of_token), [], [], [], [], [])
    places = []
    for index, suffix in enumerate(suffixes):
        if not packed.source_index or len(packed.source_index[-1]) >= full:
            packed.source_index.append(list(prefix))
            packed.position_ids.append(list(range(len(prefix))))
            packed.class_index.append([-1] * len(prefix))
            packed.end_index.append([])
        packed.source_index[-1].extend(suffix)
        packed.position_ids[-1].extend(range(len(prefix), len(prefix) + len(suffix)))
        packed.class_index[-1].extend([index] * len(suffix))
        places.append((len(packed.source_index) - 1, len(packed.end_index[-1])))
        packed.end_index[-1].append(len(packed.source_index[-1]) - 1)
    for rows, padding in (
        (packed.source_index, start),
        (packed.position_ids, 0),
        (packed.class_index, -2),
        (packed.end_index, 0),
    ):
        longest = max(map(len, rows))
        for row in rows:
            row.extend([padding] * (longest - len(row)))
    packed.prompt_index = [sequence * len(packed.end_index[0]) + place for sequence, place in places]
    return packed


class DenseCLIPPrompts(InitializesItself, nn.Module):
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

    def initialize_own_weights(self):
        init.trunc_normal_(self.contexts)
        for name, values in self.packed(self.config.class_names, self.config.class_token_ids).items():
            init.copy_(getattr(self, name), torch.tensor(values))

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


class DenseCLIPContextDecoder(InitializesItself, nn.Module):
    """
    What the image adds to the prompts: queries of any width W read the image embeddings.
    (num_queries, W) and (batch_size, 1 + height * width, projection_dim) -> (batch_size, num_queries, W).

    W is `query_size`. With `shifts_queries` the result is `queries + gamma * decoder(queries, image)`, with a learned
    `gamma`, and otherwise what the decoder makes of them alone.

    Source: paper section 3.3, equations 3 to 5; published `ContextDecoder`.
    """

    def __init__(self, config: DenseCLIPConfig, query_size: int, shifts_queries: bool):
        super().__init__()
        self.config = config
        hidden_size = config.context_decoder_hidden_size
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
        self.gamma = nn.Parameter(torch.empty(query_size)) if shifts_queries else None

    def initialize_own_weights(self):
        if self.gamma is not None:
            init.constant_(self.gamma, self.config.gamma_init_value)
        for linear in self.modules():
            if isinstance(linear, nn.Linear):
                init.trunc_normal_(linear.weight, std=self.config.initializer_range)

    def forward(self, queries: torch.Tensor, visual_embeddings: torch.Tensor) -> torch.Tensor:
        memory = self.memory_norm_out(self.memory_proj(self.memory_norm_in(visual_embeddings)))
        hidden_states = self.text_proj(self.text_norm(queries))
        hidden_states = hidden_states.expand(memory.shape[0], -1, -1)
        for layer in self.layers:
            hidden_states = layer(hidden_states, memory)
        update = self.out_proj(self.out_norm(hidden_states))
        return update if self.gamma is None else queries + self.gamma * update


class DenseCLIPPrompting:
    """
    What the class embeddings know of the image (paper, Table 2). A new mode is a class in this file, a line in
    `PROMPTING_MODES`, and a value of `prompting_mode` in the config.
    """

    summary: ClassVar[str]  # a line for `denseclip info`
    description: ClassVar[str]  # half a sentence for model cards
    has_context_decoder: ClassVar[bool] = True  # whether the image changes embeddings or contexts at all
    # Whether the text tower reads contexts that depend on the image, so that it has to run for each one.
    makes_contexts_from_image: ClassVar[bool] = False
    prompts_see_each_other: ClassVar[bool] = False  # whether the embedding of one prompt depends on the others

    @classmethod
    def build_context_decoder(cls, config: DenseCLIPConfig) -> DenseCLIPContextDecoder:
        raise NotImplementedError

    @classmethod
    def embed(
        cls, model: PreTrainedModel, visual_embeddings: torch.Tensor, layout: dict[str, torch.Tensor] | None
    ) -> torch.Tensor:
        """
        Embeddings of the prompts laid out by `layout`, by default those of the classes, as each image prompts them:
        visual embeddings (batch_size, 1 + height * width, projection_dim) -> (batch_size, prompts, projection_dim).
        """
        raise NotImplementedError


class DenseCLIPLanguagePrompting(DenseCLIPPrompting):
    """Contexts are learned, and know nothing of the image: "language prompt only" in Table 2."""

    summary = "none: what the text tower makes of the names is the same for every image"
    description = "the names of the classes stand behind learned contexts, which no picture changes"
    has_context_decoder = False

    @classmethod
    def embed(cls, model, visual_embeddings, layout):
        return model.embed_prompts_of_names(layout).expand(visual_embeddings.shape[0], -1, -1)


class DenseCLIPPreModelPrompting(DenseCLIPPrompting):
    """The context decoder makes contexts from the image, which the text tower reads. Source: equation 3."""

    summary = "pre-model: contexts are made from the image, so the text tower runs for each one"
    description = (
        "the names of the classes stand behind contexts that are made from the picture (pre-model prompting), so the"
        " text encoder runs for every picture"
    )
    makes_contexts_from_image = True

    @classmethod
    def build_context_decoder(cls, config):
        return DenseCLIPContextDecoder(config, query_size=config.text_config.hidden_size, shifts_queries=False)

    @classmethod
    def embed(cls, model, visual_embeddings, layout):
        contexts = model.context_decoder(model.prompts()[0], visual_embeddings)
        return model.encode_prompts(contexts, model.prompts.layout if layout is None else layout)


class DenseCLIPPostModelPrompting(DenseCLIPPrompting):
    """The context decoder shifts what the text tower makes of the names. Source: equations 4 and 5."""

    summary = "post-model: the image refines what the text tower makes of the names"
    description = (
        "the names of the classes stand behind learned contexts, and the picture refines what the text encoder makes"
        " of them (post-model prompting), so the text encoder runs once"
    )
    prompts_see_each_other = True

    @classmethod
    def build_context_decoder(cls, config):
        return DenseCLIPContextDecoder(config, query_size=config.projection_dim, shifts_queries=True)

    @classmethod
    def embed(cls, model, visual_embeddings, layout):
        return model.context_decoder(model.embed_prompts_of_names(layout), visual_embeddings)


PROMPTING_MODES: dict[str, type[DenseCLIPPrompting]] = {
    "language": DenseCLIPLanguagePrompting,
    "pre_model": DenseCLIPPreModelPrompting,
    "post_model": DenseCLIPPostModelPrompting,
}


__all__ = ["PROMPTING_MODES", "DenseCLIPContextDecoder", "DenseCLIPPrompts", "embed_prompts", "prompt_attention_mask"]
