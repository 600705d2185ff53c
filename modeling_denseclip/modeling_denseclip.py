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

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple
from transformers.utils.generic import maybe_autocast

from .class_names_denseclip import DenseCLIPClassNamesMixin, class_names_of
from .configuration_denseclip import DenseCLIPConfig
from .inference_denseclip import DenseCLIPInferenceMixin, check_pixel_values
from .initialization_denseclip import InitializesItself
from .loading_denseclip import refusing_unbuildable
from .loss_denseclip import check_labels, loss_parts
from .modeling_denseclip_encoder import (
    DenseCLIPBackboneEncoder,
    DenseCLIPImageEncoderOutput,
    DenseCLIPPreTrainedModel,
)
from .modeling_denseclip_heads import DECODE_HEADS, DenseCLIPAuxiliaryHead
from .modeling_denseclip_prompting import PROMPTING_MODES, DenseCLIPPrompts, embed_prompts, prompt_attention_mask
from .modeling_denseclip_vit import DenseCLIPViTEncoder
from .pretrained_denseclip import DenseCLIPPretrainedMixin
from .resizing_denseclip import at_least_float32, resize_logits
from .text_cache_denseclip import TextEmbeddingCache, is_cacheable, version_of


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


@auto_docstring(
    custom_intro="""
    DenseCLIP for semantic segmentation: an image encoder, CLIP's text tower, a pixel-text score map, and a decode head
    that it guides. With `config.use_language=False` it is the paper's "CLIP + Semantic FPN" baseline.
    """
)
class DenseCLIPForSemanticSegmentation(
    DenseCLIPPretrainedMixin,
    DenseCLIPClassNamesMixin,
    DenseCLIPInferenceMixin,
    InitializesItself,
    DenseCLIPPreTrainedModel,
):
    # The loss is a mean over pixels: the Trainer must not rescale it by a number of items in the batch.
    accepts_loss_kwargs = False
    _untrained_contexts: torch.Tensor | None = None

    @refusing_unbuildable()
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
            self.prompting = PROMPTING_MODES[config.prompting_mode]
            if self.prompting.has_context_decoder:
                self.context_decoder = self.prompting.build_context_decoder(config)
            # One score-map channel per class
            in_channels[self.score_map_level] += config.num_labels
        else:
            config.class_names = class_names
        head_class = DECODE_HEADS[config.decode_head_type]
        self.neck = head_class.neck_class(config, in_channels)
        self.decode_head = head_class(config, self.neck.out_channels)
        # CODEPATH: UperNet rows of Table 5 train a second head
        if config.use_auxiliary_head:
            self.auxiliary_head = DenseCLIPAuxiliaryHead(config, self.image_encoder.feature_sizes)
        self.text_cache = TextEmbeddingCache()
        self.constant_text_embeddings = nn.Buffer(torch.empty(0), persistent=False)  # filled by `fuse`
        self.post_init()

    def initialize_own_weights(self):
        # CODEPATH: DenseCLIP rows read class names, "CLIP + Semantic FPN" rows have no text tower
        if self.config.use_language:
            init.normal_(self.text_projection.weight, std=self.text_projection.in_features**-0.5)

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
        return self.prompting.embed(self, visual_embeddings, layout)

    def embed_prompts_of_names(self, layout: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Embeddings of the classes, or of the prompts laid out by `layout`, before they see an image."""
        return self.get_text_embeddings() if layout is None else self.encode_prompts(self.prompts(), layout)[0]

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
            loss = sum(loss_parts(outputs, labels, self.config).values())
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
        return DenseCLIPSemanticSegmenterOutput(
            logits=self.decode_head(self.neck(feature_maps)),
            score_map=score_map,
            text_embeddings=text_embeddings,
            auxiliary_logits=auxiliary_logits,
            hidden_states=image_outputs.hidden_states,
            attentions=image_outputs.attentions,
        )

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


# A decode head brings together what its modules give, so all of it lies on one device.
DenseCLIPForSemanticSegmentation._no_split_modules = [
    *DenseCLIPPreTrainedModel._no_split_modules,
    *(head_class.__name__ for head_class in DECODE_HEADS.values()),
]

# `pipeline("image-segmentation")` looks class names up in this table, and logs an error for those it does not hold.
MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES.setdefault("denseclip", "DenseCLIPForSemanticSegmentation")


__all__ = ["DenseCLIPForSemanticSegmentation", "DenseCLIPSemanticSegmenterOutput"]
