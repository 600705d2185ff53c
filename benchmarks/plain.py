# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
DenseCLIP as its published code computes it, with our weights: what ours is measured against.

The text tower reads 150 padded prompts of 13 positions in each call, attention is written out, windows go one after
the other and are added up padded to the whole image, logits are resized to the image and once more to the
photograph, and for the loss to the labels. Source: published `models.py` and `denseclip.py`; mmseg
`EncoderDecoder.slide_inference`.
"""

import math

import torch
from torch.nn import functional as F

from modeling_denseclip import DenseCLIPForSemanticSegmentation


# Start, 8 contexts, at most three word pieces, end.
TEXT_LENGTH = 13


class PlainDenseCLIP(DenseCLIPForSemanticSegmentation):
    """Loads what the other does. Names longer than three word pieces have no place, as published."""

    def __init__(self, config):
        config._attn_implementation = "eager"
        super().__init__(config)

    def get_text_embeddings(self) -> torch.Tensor:
        token_ids = torch.zeros(self.num_labels, TEXT_LENGTH - self.config.num_context_tokens, dtype=torch.long)
        for row, ids in zip(token_ids, self.config.class_token_ids, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        token_ids = token_ids.to(self.device)
        embeddings = self.text_encoder.embeddings
        tokens = embeddings.token_embedding(token_ids)
        contexts = self.prompts.contexts.expand(self.num_labels, -1, -1)
        hidden_states = torch.cat([tokens[:, :1], contexts, tokens[:, 1:]], dim=1)
        hidden_states = hidden_states + embeddings.position_embedding.weight[:TEXT_LENGTH]
        mask = torch.full((TEXT_LENGTH, TEXT_LENGTH), -math.inf, dtype=hidden_states.dtype, device=self.device).triu(1)
        for layer in self.text_encoder.encoder.layers:
            hidden_states = layer(hidden_states, mask[None, None])
        end = token_ids.argmax(dim=1) + self.config.num_context_tokens
        hidden_states = self.text_encoder.final_layer_norm(hidden_states)
        return self.text_projection(hidden_states[torch.arange(self.num_labels, device=self.device), end])

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs):
        outputs = super().forward(pixel_values, **kwargs)
        if labels is not None:
            outputs.loss = resized_cross_entropy(outputs.logits, labels)
            score_logits = outputs.score_map / self.config.temperature
            outputs.loss = outputs.loss + self.config.auxiliary_loss_weight * resized_cross_entropy(
                score_logits, labels
            )
        return outputs

    def slide(
        self, pixel_values: torch.Tensor, window_size: tuple[int, int], window_stride: tuple[int, int]
    ) -> torch.Tensor:
        batch_size, _, height, width = pixel_values.shape
        rows = max(height - window_size[0] + window_stride[0] - 1, 0) // window_stride[0] + 1
        columns = max(width - window_size[1] + window_stride[1] - 1, 0) // window_stride[1] + 1
        logits = pixel_values.new_zeros((batch_size, self.num_labels, height, width))
        counts = pixel_values.new_zeros((batch_size, 1, height, width))
        for row in range(rows):
            for column in range(columns):
                bottom = min(row * window_stride[0] + window_size[0], height)
                right = min(column * window_stride[1] + window_size[1], width)
                top, left = max(bottom - window_size[0], 0), max(right - window_size[1], 0)
                window = pixel_values[:, :, top:bottom, left:right]
                window_logits = self.segment_at_full_size(window)
                logits += F.pad(window_logits, (left, width - right, top, height - bottom))
                counts[:, :, top:bottom, left:right] += 1
        return logits / counts

    def segment_at_full_size(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits of whole images at their size, as the published `encode_decode` gives them."""
        logits = self.segment(pixel_values).logits
        return F.interpolate(logits, size=pixel_values.shape[-2:], mode="bilinear", align_corners=False)


def resized_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, labels, ignore_index=255, reduction="none").mean()
