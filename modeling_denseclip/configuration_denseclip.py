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
"""DenseCLIP model configuration. Source: arXiv 2112.01518 (CVPR 2022) and the configs published with it."""

import dataclasses
import difflib
import functools
import operator
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, CLIPTextConfig, PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin
from transformers.utils import auto_docstring


# Every image encoder ends in four feature maps at strides 4, 8, 16 and 32.
NUM_FEATURE_LEVELS = 4
# The largest number that the config of a tower may hold: Transformers makes as many stages or labels of some.
MAX_NUMBER = 10**6
# The start token, one of a name, and the end token.
MIN_NAME_TOKENS = 3
MAX_POOL_SCALE = 100
DEFAULT_MODEL_TYPES = {"text_config": "clip_text_model", "vision_config": "denseclip_resnet"}
WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@auto_docstring(checkpoint="openai/clip-vit-base-patch16")
@strict
class DenseCLIPResNetConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""
    CLIP's modified ResNet: a stem of three convolutions, anti-aliased bottlenecks and an attention pool. The defaults
    are RN50; RN101 has `depths=(3, 4, 23, 3)`.

    Source: "Learning Transferable Visual Models From Natural Language Supervision", section 2.4; openai/CLIP.

    Args:
        num_channels (`int`, *optional*, defaults to 3):
            Channels of the input image.
        embedding_size (`int`, *optional*, defaults to 64):
            Width of the stem. The four stages are 4, 8, 16 and 32 times as wide.
        depths (`tuple[int, ...]`, *optional*, defaults to `(3, 4, 6, 3)`):
            Bottlenecks per stage.
        num_attention_heads (`int`, *optional*):
            Heads of the attention pool. Defaults to `embedding_size // 2`: CLIP's heads are 64 wide.
        image_size (`int`, *optional*, defaults to 512):
            Side in pixels of the images that the position embeddings of the attention pool were made for. They are
            resized to any other input, so this is the size to train at, not a limit. CLIP's own weights have 224.
    """

    model_type = "denseclip_resnet"

    num_channels: int = 3
    embedding_size: int = 64
    depths: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    num_attention_heads: int | None = None
    image_size: int = 512
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        refuse_misspelt(kwargs, type(self))
        self.depths = tuple(self.depths)
        if self.num_attention_heads is None:
            self.num_attention_heads = max(self.embedding_size // 2, 1)
        self.stage_names = ["stem"] + [f"stage{index}" for index in range(1, len(self.depths) + 1)]
        out_features = kwargs.pop("out_features", None)
        out_indices = kwargs.pop("out_indices", None)
        if out_features is None and out_indices is None:
            out_features = self.stage_names[1:]
        self.set_output_features_output_indices(out_features=out_features, out_indices=out_indices)
        super().__post_init__(**kwargs)

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Channels of the four stages."""
        return tuple(self.embedding_size * 4 * 2**stage for stage in range(len(self.depths)))

    @property
    def hidden_size(self) -> int:
        """Channels of the last stage, and so of the attention pool."""
        return self.hidden_sizes[-1]

    @property
    def patch_size(self) -> int:
        """Pixels of one side of a cell of the attention pool's grid: the stride of the last stage."""
        return 2 ** (len(self.depths) + 1)

    def validate_architecture(self):
        """Part of `@strict`-powered validation. Validates the architecture of the config."""
        if len(self.depths) != NUM_FEATURE_LEVELS:
            raise ValueError(
                f"`depths` must name the bottlenecks of {NUM_FEATURE_LEVELS} stages, for strides 4, 8, 16 and 32; got"
                f" {self.depths}. RN50 is (3, 4, 6, 3)."
            )
        check_positive(self, "num_channels", "embedding_size", "num_attention_heads", "image_size")
        if min(self.depths) < 1:
            raise ValueError(f"`depths` must be at least 1 each; got {self.depths}.")
        if self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"`num_attention_heads` ({self.num_attention_heads}) must divide the width of the last stage"
                f" ({self.hidden_size}, that is 32 x `embedding_size`)."
            )


@auto_docstring(checkpoint="openai/clip-vit-base-patch16")
@strict
class DenseCLIPConfig(PreTrainedConfig):
    r"""
    Configuration of a [`DenseCLIPForSemanticSegmentation`]. Every row of the paper's Tables 1, 2 and 5 is such a
    configuration: the defaults are DenseCLIP with CLIP's RN50, `use_language=False` is "CLIP + Semantic FPN".

    Args:
        text_config (`dict` or `CLIPTextConfig`, *optional*):
            CLIP's text tower. `None` stands for the text tower of RN50, or for none with `use_language=False`.
        vision_config (`dict` or `PreTrainedConfig`, *optional*):
            The image encoder. A dictionary names its kind by `model_type`: `"denseclip_resnet"` (the default),
            `"clip_vision_model"`, or any backbone of Transformers (`"resnet"`, `"swin"`, `"dinov2"`, ...; also
            `"vit"`). A backbone whose stages have four strides gives four maps, by default the last stage of each;
            `out_features` names others. One of a single stride goes through the same pyramid as CLIP's ViT.
        projection_dim (`int`, *optional*, defaults to 1024):
            Width C of the space that pixels and class names share. Of CLIP's towers 1024 for RN50, 512 for RN101 and
            ViT-B/16.
        use_language (`bool`, *optional*, defaults to `True`):
            Whether a pixel-text score map guides the decoder (paper section 3.2). `False` gives the baseline.
        prompting_mode (`str`, *optional*, defaults to `"post_model"`):
            What the class embeddings know of the image (paper section 3.3, Table 2): `"language"`, nothing, the
            contexts are learned alone; `"pre_model"`, the context decoder makes the contexts from the image, and the
            text tower reads them, once per image; `"post_model"`, it adds to the embeddings that the text tower made.
        num_context_tokens (`int`, *optional*, defaults to 8):
            Learned context vectors that stand in each class prompt (paper section 3.3, N2 in the published code).
        context_position (`str`, *optional*, defaults to `"before_name"`):
            Where they stand: `"before_name"` gives [SOT, contexts, name, EOT] as published, `"after_name"` gives
            [SOT, name, contexts, EOT].
        class_names (`tuple[str, ...]`, *optional*):
            The names, in order, of the classes that the head's weights stand for. Set by the library from `id2label`,
            which is where users name their classes. Where a config file holds other names of the same number in
            `id2label`, the classes are called so from then on; see `adopt_labels`.
        prompt_names (`tuple[str, ...]`, *optional*):
            The names that the text tower reads, where they are not `class_names`: those before a renaming, of which
            `class_token_ids` are the tokens. Set by the library.
        class_token_ids (`tuple[tuple[int, ...], ...]`, *optional*):
            Token ids of each class name, start and end token included, so that a checkpoint segments without a
            tokenizer. See `tokenize_class_names`. A model with language that has none can be built, saved and loaded,
            but not called before `set_class_names(names, tokenizer)` gives it some.
        untrained_contexts (`bool`, *optional*, defaults to `False`):
            Whether the contexts are as they were initialised. Set by the library when a model is saved.
        context_decoder_hidden_size (`int`, *optional*, defaults to 256):
            Width of the context decoder (paper section 3.3), which `"language"` does without.
        context_decoder_num_hidden_layers (`int`, *optional*, defaults to 3):
            Its layers.
        context_decoder_num_attention_heads (`int`, *optional*, defaults to 4):
            Its heads.
        context_decoder_intermediate_size (`int`, *optional*):
            Width of its MLPs. Defaults to four times its width.
        context_decoder_dropout (`float`, *optional*, defaults to 0.1):
            Its dropout, in [0, 1).
        gamma_init_value (`float`, *optional*, defaults to 0.0001):
            Initial weight of the context decoder's update to the text embeddings, in `"post_model"`.
        attention_pool_grid_size (`int`, *optional*, defaults to 16):
            Side in cells of the grid of positions in the attention pool of a Transformers backbone. It is resized to
            any other, so this is the grid to train at: 512 / 32 for hierarchical backbones.
        score_map_level (`int`, *optional*):
            The feature map that the score map is concatenated to, 0 to 3 for strides 4 to 32. Defaults to the one on
            whose grid it is: 3, or 2 for ViTs.
        temperature (`float`, *optional*, defaults to 0.07):
            tau: what the score map is divided by in its auxiliary loss.
        auxiliary_loss_weight (`float`, *optional*, defaults to 0.4):
            Weight of the score map's own cross-entropy, and of the auxiliary head's.
        ignore_index (`int`, *optional*, defaults to 255):
            Label of pixels that carry no class.
        feature_layers (`tuple[int, ...]`, *optional*):
            ViTs only: the four layers (from 0) whose outputs become feature maps. Defaults to those at 1/3, 1/2, 2/3
            and the whole of the depth, (3, 5, 7, 11) for 12 layers.
        class_embedding_scale (`int` or `float`, *optional*, defaults to 1):
            CLIP's ViT only: factor of the class embedding. The published code adds it twice, so released ViT weights
            have 2.
        fit_to_grid (`bool`, *optional*, defaults to `True`):
            CLIP's own encoders only: whether an image is resized so that its sides are multiples of a cell of the
            coarsest feature map (twice a ViT's patch, 32 pixels of a ResNet), where they are not. So each row and
            column counts, and a feature lies where its pixels lie. The published code cuts the rest off and stretches
            what is left over the image: `False`. Other backbones are always given sizes that they take.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            CLIP's ViT only: stochastic depth of the last layer, in [0, 1); it grows linearly from 0 over the layers.
            Other backbones have their own in `vision_config`.
        decode_head_type (`str`, *optional*, defaults to `"semantic_fpn"`):
            `"semantic_fpn"`, a feature pyramid and the Semantic FPN head, or `"upernet"`, which holds both.
        neck_hidden_size (`int`, *optional*, defaults to 256):
            Channels of the feature pyramid before the Semantic FPN head.
        decode_head_hidden_size (`int`, *optional*, defaults to 256):
            Channels of the decode head. Published UperNets have 512.
        decode_head_dropout (`float`, *optional*, defaults to 0.1):
            Dropout of whole channels before the classifier, in [0, 1).
        pool_scales (`tuple[int, ...]`, *optional*, defaults to `(1, 2, 3, 6)`):
            UperNet only: sides in cells of the grids that its pyramid pooling averages the last map over.
        use_auxiliary_head (`bool`, *optional*):
            Whether a second, fully convolutional head on the map of stride 16 learns along in training, without the
            score map. Defaults to whether the decode head is UperNet, as is usual.
        auxiliary_head_hidden_size (`int`, *optional*, defaults to 256):
            Its channels.
        inference_mode (`str`, *optional*, defaults to `"whole"`):
            How a model in evaluation mode treats an image that is larger than the window: `"whole"`, or `"slide"` for
            overlapping windows whose logits are averaged.
        window_size (`int` or `tuple[int, int]`, *optional*, defaults to `(512, 512)`):
            Height and width of the sliding window in pixels.
        window_stride (`int` or `tuple[int, int]`, *optional*, defaults to `(341, 341)`):
            Its steps in pixels.
        window_batch_size (`int`, *optional*, defaults to 4):
            How many windows go through the model at once. It bounds memory and changes no result.
        palette (`tuple[tuple[int, int, int], ...]`, *optional*):
            One RGB colour per class, 0 to 255, for pictures of the result.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of freshly initialised linear layers.

    Example:

    ```python
    >>> from modeling_denseclip import DenseCLIPConfig

    >>> config = DenseCLIPConfig(use_language=False, id2label={0: "wall", 1: "sky"})
    >>> config.num_labels
    2
    ```"""

    model_type = "denseclip"
    sub_configs = {"text_config": CLIPTextConfig, "vision_config": AutoConfig}
    keys_to_ignore_at_inference = [
        "score_map",
        "text_embeddings",
        "auxiliary_logits",
        "hidden_states",
        "attentions",
    ]

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    projection_dim: int = 1024
    use_language: bool = True
    prompting_mode: Literal["language", "pre_model", "post_model"] = "post_model"
    num_context_tokens: int = 8
    context_position: Literal["before_name", "after_name"] = "before_name"
    class_names: list[str] | tuple[str, ...] | None = None
    prompt_names: list[str] | tuple[str, ...] | None = None
    class_token_ids: list | tuple | None = None
    untrained_contexts: bool = False
    context_decoder_hidden_size: int = 256
    context_decoder_num_hidden_layers: int = 3
    context_decoder_num_attention_heads: int = 4
    context_decoder_intermediate_size: int | None = None
    context_decoder_dropout: float | int = 0.1
    gamma_init_value: float | int = 1e-4
    attention_pool_grid_size: int = 16
    score_map_level: int | None = None
    temperature: float = 0.07
    auxiliary_loss_weight: float | int = 0.4
    ignore_index: int = 255
    feature_layers: list[int] | tuple[int, ...] | None = None
    class_embedding_scale: float | int = 1
    fit_to_grid: bool = True
    drop_path_rate: float | int = 0.0
    decode_head_type: Literal["semantic_fpn", "upernet"] = "semantic_fpn"
    neck_hidden_size: int = 256
    decode_head_hidden_size: int = 256
    decode_head_dropout: float | int = 0.1
    pool_scales: list[int] | tuple[int, ...] = (1, 2, 3, 6)
    use_auxiliary_head: bool | None = None
    auxiliary_head_hidden_size: int = 256
    inference_mode: Literal["whole", "slide"] = "whole"
    window_size: int | list[int] | tuple[int, ...] = (512, 512)
    window_stride: int | list[int] | tuple[int, ...] = (341, 341)
    window_batch_size: int = 4
    palette: list | tuple | None = None
    initializer_range: float = 0.02

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> tuple[dict, dict]:
        """
        As [`PreTrainedConfig.get_config_dict`].

        Raises:
            OSError: for a file that is missing, is no JSON, or holds something else than a config.
        """
        read = functools.partial(super().get_config_dict, pretrained_model_name_or_path, **kwargs)
        return read_fields(read, f"The config of {pretrained_model_name_or_path}", "A config.json")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs) -> "DenseCLIPConfig":
        """
        As [`PreTrainedConfig.from_dict`].

        Raises:
            ValueError: for fields that no config can have, or that name code of the Hub.
        """
        refuse_kernels(config_dict)
        with naming_errors("The config is"):
            return super().from_dict(config_dict, **kwargs)

    def __post_init__(self, **kwargs):
        refuse_misspelt(kwargs, type(self))
        if not isinstance(self.id2label, dict | None):
            raise ValueError(f"`id2label` must be a dictionary from ids to names; got {reprlib.repr(self.id2label)}.")
        if not isinstance(kwargs.get("auto_map"), dict | None):
            raise ValueError(f"`auto_map` must be a dictionary of classes; got {reprlib.repr(kwargs['auto_map'])}.")
        check_dtype(kwargs.get("torch_dtype", self.dtype))
        check_numbers("num_labels", kwargs.get("num_labels"))
        for name in ("text_config", "vision_config"):
            if isinstance(tower := getattr(self, name), dict):
                check_numbers(name, select_fields(tower, DEFAULT_MODEL_TYPES[name]))
                check_dtype(tower.get("torch_dtype", tower.get("dtype")))
        if isinstance(self.vision_config, dict | None):
            vision_config = dict(self.vision_config or {})
            model_type = vision_config.pop("model_type", DenseCLIPResNetConfig.model_type)
            config_class = find_config_class(model_type)
            if config_class is None:
                raise ValueError(
                    f"`vision_config` has the model_type {model_type!r}, which this release of Transformers does not"
                    f" know. It is {DenseCLIPResNetConfig.model_type!r}, 'clip_vision_model', or a backbone of"
                    " Transformers such as 'resnet', 'swin' or 'dinov2'."
                )
            with naming_errors("`vision_config` is"):
                self.vision_config = config_class(**vision_config)
        if not self.use_language:
            self.text_config = None
            self.class_token_ids = None
            self.prompt_names = None
        elif isinstance(self.text_config, dict | None):
            with naming_errors("`text_config` is"):
                self.text_config = CLIPTextConfig(**(self.text_config or {}))

        if self.context_decoder_intermediate_size is None:
            self.context_decoder_intermediate_size = 4 * self.context_decoder_hidden_size
        # Of other backbones only the model finds out which levels they have; see `BackboneLayout`.
        if self.is_clip_vit:
            if self.score_map_level is None:
                self.score_map_level = 2
            if self.feature_layers is None:
                self.feature_layers = spread_feature_layers(self.vision_config.num_hidden_layers)
        elif self.score_map_level is None and self.is_clip_resnet:
            self.score_map_level = 3
        if self.feature_layers is not None:
            self.feature_layers = tuple(self.feature_layers)
        if self.use_auxiliary_head is None:
            self.use_auxiliary_head = self.decode_head_type == "upernet"
        self.pool_scales = tuple(self.pool_scales)
        self.window_size = as_pair(self.window_size, "window_size")
        self.window_stride = as_pair(self.window_stride, "window_stride")
        super().__post_init__(**kwargs)

        if self.prompt_names is not None:
            self.prompt_names = tuple(self.prompt_names)
        if self.class_names is not None:
            self.class_names = tuple(self.class_names)
        elif self.class_token_ids is not None or not self.use_language:
            self.class_names = tuple(self.id2label.values())
        self.adopt_labels()
        self.class_token_ids = as_rows(self.class_token_ids, "class_token_ids")
        self.palette = as_rows(self.palette, "palette")

    def adopt_labels(self):
        """
        Take `id2label` for new names of the same classes, in the same order: their weights, and what the text tower
        reads of them, stay. Of another number of names nothing is adopted, since they are other classes.
        """
        self.id2label = {int(index): name for index, name in self.id2label.items()}
        self.label2id = {name: index for index, name in self.id2label.items()}
        names = tuple(self.id2label.get(index) for index in range(len(self.id2label)))
        if self.class_names is None or self.class_names == names or len(self.class_names) != len(names):
            return
        if self.use_language and self.prompt_names is None:
            self.prompt_names = self.class_names
        self.class_names = names

    @property
    def is_clip_vit(self) -> bool:
        """Whether the image encoder is CLIP's vision transformer."""
        return self.vision_config.model_type == "clip_vision_model"

    @property
    def is_clip_resnet(self) -> bool:
        """Whether the image encoder is CLIP's ResNet."""
        return self.vision_config.model_type == DenseCLIPResNetConfig.model_type

    @property
    def num_channels(self) -> int:
        """Channels of an image. A few backbones of Transformers have no such field: they take RGB."""
        return getattr(self.vision_config, "num_channels", 3)

    def validate_architecture(self):
        """Part of `@strict`-powered validation. Validates the architecture of the config."""
        check_positive(
            self,
            *("projection_dim", "context_decoder_hidden_size", "context_decoder_num_attention_heads"),
            *("context_decoder_num_hidden_layers", "context_decoder_intermediate_size", "attention_pool_grid_size"),
            *("neck_hidden_size", "decode_head_hidden_size", "auxiliary_head_hidden_size", "window_batch_size"),
        )
        if self.context_decoder_hidden_size % self.context_decoder_num_attention_heads != 0:
            raise ValueError(
                f"`context_decoder_num_attention_heads` ({self.context_decoder_num_attention_heads}) must divide"
                f" `context_decoder_hidden_size` ({self.context_decoder_hidden_size})."
            )
        if self.score_map_level is not None and not 0 <= self.score_map_level < NUM_FEATURE_LEVELS:
            raise ValueError(f"`score_map_level` must be 0, 1, 2 or 3 (strides 4 to 32); got {self.score_map_level}.")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"`temperature` must be positive; got {self.temperature}.")
        if not 0 <= self.auxiliary_loss_weight < float("inf"):
            raise ValueError(f"`auxiliary_loss_weight` must be 0 or more; got {self.auxiliary_loss_weight}.")
        if self.use_language:
            check_positive(self, "num_context_tokens")
            check_tower("text_config", self.text_config, "vocab_size", "max_position_embeddings")
            room = self.text_config.max_position_embeddings - MIN_NAME_TOKENS
            if self.num_context_tokens > room:
                raise ValueError(
                    f"`num_context_tokens` is {self.num_context_tokens}, and the text tower has"
                    f" {room + MIN_NAME_TOKENS} positions, of which a name takes {MIN_NAME_TOKENS} or more: at most"
                    f" {room} contexts are left."
                )
        if self.is_clip_vit:
            check_tower("vision_config", self.vision_config, "image_size", "patch_size", "num_channels")
        for name in ("drop_path_rate", "context_decoder_dropout", "decode_head_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1); got {getattr(self, name)}.")
        # An integer is legal when the field is set on an existing config.
        window_size, window_stride = (as_pair(getattr(self, name), name) for name in ("window_size", "window_stride"))
        for size, stride in zip(window_size, window_stride, strict=True):
            if not 0 < stride <= size:
                raise ValueError(
                    f"`window_stride` {self.window_stride} must be positive and at most `window_size`"
                    f" {self.window_size}, or pixels between two windows would never be seen."
                )
        if self.is_clip_vit:
            check_feature_layers(self.feature_layers, self.vision_config.num_hidden_layers)
        if not self.pool_scales or min(self.pool_scales) < 1 or max(self.pool_scales) > MAX_POOL_SCALE:
            raise ValueError(
                f"`pool_scales` must be one or more numbers of cells from 1 to {MAX_POOL_SCALE}; got"
                f" {reprlib.repr(self.pool_scales)}."
            )
        if self.class_token_ids is not None and len(self.class_token_ids) != len(self.class_names):
            raise ValueError(
                f"`class_token_ids` has {len(self.class_token_ids)} entries for {len(self.class_names)} class names."
                " Use `class_token_ids=tokenize_class_names(names, tokenizer)`."
            )
        if self.prompt_names is not None and len(self.prompt_names) != len(self.class_names or ()):
            raise ValueError(
                f"`prompt_names` has {len(self.prompt_names)} entries for {len(self.class_names or ())} class names."
                " The library sets it; leave it out."
            )
        for ids in self.class_token_ids or ():
            if len(ids) < 3 or not all(isinstance(i, int) and 0 <= i < self.text_config.vocab_size for i in ids):
                raise ValueError(
                    f"`class_token_ids` holds {reprlib.repr(ids)}. Each entry is the start token, those of a name and"
                    " the end token,"
                    f" integers from 0 to {self.text_config.vocab_size - 1}. Use `class_token_ids="
                    "tokenize_class_names(names, tokenizer)`."
                )
        if self.palette is not None:
            num_colors = len(self.class_names or self.id2label)
            if len(self.palette) != num_colors or not all(is_color(color) for color in self.palette):
                raise ValueError(
                    f"`palette` must be one colour for each of the {num_colors} classes, red, green and blue from 0 to"
                    f" 255; got {reprlib.repr(self.palette)}."
                )


def refuse_misspelt(names: Iterable[str], config_class: type[PreTrainedConfig]):
    """
    Raises:
        ValueError: for a name that is nearly one of the fields of a config. Any other unknown name is kept, as by all
            configs of Transformers, where later releases may have put it.
    """
    fields = {field.name for field in dataclasses.fields(config_class)}
    for name in names:
        if name not in fields and (near := difflib.get_close_matches(name, fields, n=1, cutoff=0.85)):
            raise ValueError(f"{config_class.__name__} has no field {name!r}; did you mean {near[0]!r}?")


def check_positive(config: PreTrainedConfig, *names: str, of: str = ""):
    """
    Raises:
        ValueError: for a field that is not at least 1; `of` is how the error calls its tower.
    """
    for name in names:
        if getattr(config, name) < 1:
            field = f"{of}.{name}" if of else name
            raise ValueError(f"`{field}` must be at least 1; got {getattr(config, name)}.")


def check_tower(name: str, config: PreTrainedConfig, *names: str):
    """
    Raises:
        ValueError: for a tower of CLIP without layers, heads or width, of which its own class says nothing.
    """
    with naming_errors(f"`{name}` is"):
        check_positive(
            config, "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", *names, of=name
        )


def find_config_class(model_type: Any) -> type[PreTrainedConfig] | None:
    """The class of configs of this type; `None` for what is no type of this release of Transformers, nor ours."""
    # Ours is not looked up in AutoConfig: remote code is not registered there.
    if model_type == DenseCLIPResNetConfig.model_type:
        return DenseCLIPResNetConfig
    return CONFIG_MAPPING[model_type] if isinstance(model_type, str) and model_type in CONFIG_MAPPING else None


def select_fields(tower: dict[str, Any], model_type: str) -> dict[str, Any]:
    """What a tower is made by: without what others have noted in it, such as a number of operations or of samples."""
    config_class = find_config_class(tower.get("model_type", model_type))
    if config_class is None:
        return tower  # which is refused for its type
    known = {"num_labels", "out_indices", "stage_names", *config_class.attribute_map}
    known.update(field.name for field in dataclasses.fields(config_class))
    return {name: value for name, value in tower.items() if name in known}


def check_numbers(name: str, value: Any):
    """
    Raises:
        ValueError: for a number, in this value or anywhere in its lists and dictionaries, that no tower has.
    """
    values = [(name, value)]
    while values:
        name, value = values.pop()
        if isinstance(value, dict):
            values += [(f"{name}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list | tuple):
            values += [(name, inner) for inner in value]
        elif isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise ValueError(f"`{name}` must be at most {MAX_NUMBER}; got {reprlib.repr(value)}.")


def refuse_kernels(fields: dict[str, Any]):
    """
    Raises:
        ValueError: for an attention of the Hub, whose code Transformers would fetch and run. Whoever loads a model may
            ask for one; its config may not.
    """
    for section in (fields, fields.get("text_config"), fields.get("vision_config")):
        for name in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
            if isinstance(section, dict) and "/" in str(section.get(name)):
                raise ValueError(
                    f"The config asks for {name} {reprlib.repr(section[name])}, which is code of the Hub. Remove it,"
                    " and pass `attn_implementation` to `from_pretrained` if you trust that code."
                )


def check_dtype(dtype: Any):
    """
    Raises:
        ValueError: for what is no type that weights have.
    """
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype.removeprefix("torch."), dtype)
    if dtype is not None and dtype not in WEIGHT_DTYPES:
        names = ", ".join(str(known).removeprefix("torch.") for known in WEIGHT_DTYPES)
        raise ValueError(f"`dtype` must be one of {names}; got {reprlib.repr(dtype)}.")


def shorten(error: Exception | str) -> str:
    """What an error says, on one line that can be read: some repeat all that they were given."""
    words = " ".join(str(error).split())
    return words if len(words) <= 300 else f"{words[:300]}..."


def read_fields(read: Callable[[], tuple[Any, dict]], called: str, file: str) -> tuple[dict[str, Any], dict]:
    """
    What a function of Transformers reads of a JSON file of fields; `called` and `file` are what an error calls it.

    Raises:
        OSError: for a file that is missing, is no JSON, or holds something else than fields.
    """
    try:
        fields, unused = read()
        if isinstance(fields, dict):
            return fields, unused
        reason = f"it holds a {type(fields).__name__}"
    except (OSError, ValueError):
        raise
    except Exception as error:  # Transformers reads entries before it checks that they are a dictionary
        reason = f"{type(error).__name__}: {shorten(error)}"
    raise OSError(
        f"{called} cannot be read ({reason}). {file} is a mapping of fields to values, as `save_pretrained` writes it."
    )


@contextmanager
def naming_errors(where: str) -> Iterator[None]:
    """
    Make what Transformers raises of fields of any type and value an error that begins with `where`, such as "The
    config is".

    Raises:
        ValueError: for anything but the errors that name a field already.
    """
    try:
        yield
    except (ValueError, ImportError, StrictDataclassError):
        raise
    except Exception as error:
        raise ValueError(f"{where} invalid ({type(error).__name__}: {shorten(error)}).") from error


def as_rows(rows: list | tuple | None, name: str) -> tuple[tuple, ...] | None:
    """Lists of lists as tuples of tuples."""
    if not isinstance(rows, list | tuple):
        return rows
    for row in rows:
        if not isinstance(row, list | tuple):
            raise ValueError(f"`{name}` must be a list of lists; got {reprlib.repr(row)} in it.")
    return tuple(tuple(row) for row in rows)


def is_color(color: tuple[Any, ...]) -> bool:
    return len(color) == 3 and all(isinstance(value, int) and 0 <= value <= 255 for value in color)


def spread_feature_layers(depth: int) -> tuple[int, ...]:
    """The layers, from 0, at 1/3, 1/2, 2/3 and the whole of a ViT's depth, as published."""
    return tuple(max(round(depth * part) - 1, 0) for part in (1 / 3, 1 / 2, 2 / 3, 1))


def check_feature_layers(layers: tuple[int, ...], depth: int):
    """
    Raises:
        ValueError: unless `layers` are four ascending layers of a ViT of this depth.
    """
    in_order = list(layers) == sorted(layers) and all(0 <= layer < depth for layer in layers)
    if len(layers) != NUM_FEATURE_LEVELS or not in_order:
        raise ValueError(
            f"`feature_layers` must be four ascending layer indices below {depth} (the depth of the ViT); got"
            f" {layers}."
        )


def as_pair(value: int | list[int] | tuple[int, ...], name: str) -> tuple[int, int]:
    """`value` as (height, width); an integer stands for both."""
    try:
        pair = (value, value) if isinstance(value, int) else tuple(map(operator.index, value))
    except TypeError:
        pair = ()
    if len(pair) != 2:
        raise ValueError(f"`{name}` must be an integer or (height, width); got {value!r}.")
    return pair


__all__ = ["DenseCLIPConfig", "DenseCLIPResNetConfig"]
