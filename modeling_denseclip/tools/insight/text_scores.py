# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""Where any words match a photograph: scores, and what they are as pictures, tables and sentences."""

from collections.abc import Sequence

import PIL.Image
import torch

from ...image_processing_denseclip import DenseCLIPImageProcessor
from ...modeling_denseclip import DenseCLIPForSemanticSegmentation
from ...resizing_denseclip import resize_logits
from ..command import escape_controls
from ..pictures.drawing import PICTURE_WIDTH, contact_sheet, draw_heat_map, draw_overlay, to_picture_width
from .predictors import Predictor


class TextPredictor(Predictor):
    """
    Where each of several texts matches, by the score map: the decode head, which knows the classes of its training
    alone, takes no part. `learned_prompts` and `value_projection` are those of
    [`~DenseCLIPForSemanticSegmentation.score_text`].
    """

    def __init__(
        self,
        model: DenseCLIPForSemanticSegmentation,
        image_processor: DenseCLIPImageProcessor,
        texts: Sequence[str],
        learned_prompts: bool | None = None,
        value_projection: bool = False,
    ):
        super().__init__(model, image_processor)
        self.texts = texts
        self.learned_prompts = learned_prompts
        self.value_projection = value_projection

    def __call__(self, photographs: Sequence[PIL.Image.Image]) -> torch.Tensor:
        """
        Photographs of one size -> cosines in [-1, 1], `(batch_size, num_texts, grid_height, grid_width)`, float32.

        Raises:
            ValueError: for a model without language, or texts that are empty, repeated or too long.
        """
        return self.compute(self.prepare_scales(photographs), photographs[0].size[::-1])

    def compute(self, copies: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """What [`~Predictor.prepare_scales`] has made of photographs of any one size -> what a call returns."""
        with self.stopwatch.measure_model(self.model.device):
            return self.model.score_text(
                copies[0],
                self.texts,
                learned_prompts=self.learned_prompts,
                value_projection=self.value_projection,
            )

    def explain_scores(self, name: str) -> str:
        """Say what the scores of the model that is called so are."""
        config, learned_prompts = self.model.config, self.learned_prompts
        if learned_prompts is None:  # as `score_text` decides
            learned_prompts = not self.model.has_untrained_contexts()
        lines = [
            f"From the score map of {name}. The decode head takes no part: it knows {config.num_labels} classes alone."
        ]
        if not learned_prompts:
            lines.append("Texts are read plainly, as sentences, without what training learned for class names.")
        else:
            lines.append("Texts are prompted as class names are; other words than those are untrained.")
            if self.model.prompting.prompts_see_each_other:
                lines.append(
                    "They attend to each other: with another list of texts, the scores of the same text differ."
                )
        return "\n".join(lines)


def draw_scores(
    photograph: PIL.Image.Image, scores: torch.Tensor, texts: Sequence[str], temperature: float, name: str
) -> PIL.Image.Image:
    """
    Draw the photograph, the best text of each pixel, and below, text by text, its cosines and its share.

    Cosines have one scale of colours for all texts: with a scale of its own, a text that names nothing in the
    photograph would be as bright as one that does. The share is a softmax over the texts, of cosines divided by
    `temperature`. One text alone has no other to be compared with, so there its cosines stand beside the photograph.

    `photograph` is upright and RGB, and called `name`; `scores` are cosines in [-1, 1], float32, of shape
    `(num_texts, grid_height, grid_width)`.
    """
    photograph = to_picture_width(photograph)
    limits = (float(scores.min()), float(scores.max()))
    per_pixel = resize_logits(scores[None], photograph.size[::-1])[0]
    shares = (per_pixel / temperature).softmax(dim=0)

    pictures, captions = [photograph], [name]
    if len(texts) > 1:
        best = per_pixel.argmax(dim=0).numpy()
        pictures.append(draw_overlay(photograph, best, dict(enumerate(texts)), legend_below=True))
        captions.append("the best of these texts at each pixel")
    for index, text in enumerate(texts):
        low, high = scores[index].min(), scores[index].max()
        pictures.append(draw_heat_map(photograph, per_pixel[index].numpy(), title=text, limits=limits))
        captions.append(f"cosine, {low:.3f} to {high:.3f}")
        if len(texts) > 1:
            pictures.append(draw_heat_map(photograph, shares[index].numpy(), title=text, limits=(0, 1)))
            captions.append(f"share among the texts, up to {100 * shares[index].max():.1f} %")
    return contact_sheet(pictures, captions, columns=2, tile_width=PICTURE_WIDTH)


def format_scores(scores: torch.Tensor, texts: Sequence[str], name: str) -> str:
    """A table of the cosines of each text, `(num_texts, grid_height, grid_width)`."""
    name = escape_controls(name)
    width = max(map(len, [name, *texts]))
    lines = [f"{name:<{width}}  cosine: least    mean  greatest"]
    for text, values in zip(texts, scores, strict=True):
        lines.append(f"{text:<{width}}  {values.min():13.3f}  {values.mean():6.3f}  {values.max():8.3f}")
    return "\n".join(lines)
