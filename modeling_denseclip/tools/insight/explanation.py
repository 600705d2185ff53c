# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""
Why a model sees what it sees: scores before and after prompting, the classes that it confuses, and the class names
that its text tower cannot tell apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ...class_names_denseclip import normalize_class_name
from ...configuration_denseclip import DenseCLIPConfig
from ...modeling_denseclip import DenseCLIPForSemanticSegmentation, compute_score_map
from ...resizing_denseclip import resize_logits
from ..files.loading import load_denseclip
from ..options.names import check_model_name


# How names are read where the learned contexts are untrained: as a caption, as CLIP saw them in its training.
PLAIN_PROMPT = "a photo of a {}"
# Names are confusable whose scores differ by no more than this part of what those of two names usually may.
CONFUSABLE_PART = 0.5


# -------------------------------------------------------------------------------------------------------- photographs


@dataclass
class PixelExplanation:
    """What speaks for each class at one pixel. Tensors are of shape `(num_labels,)`."""

    row: int
    column: int
    cell: tuple[int, int]  # row and column of the cell of the score map that the pixel lies in
    class_names: tuple[str, ...]
    score_before: torch.Tensor  # cosines of the cell and the class embeddings as the text tower makes them, in [-1, 1]
    score_after: torch.Tensor  # and as the image prompted them, which is what the decode head is given
    probabilities: torch.Tensor  # the decode head's, of the pixel itself


@dataclass
class ClassExplanation:
    """Where a class is seen, and what it is confused with."""

    index: int  # the id of the class
    class_names: tuple[str, ...]
    share: float  # of the picture that is predicted as this class, in [0, 1]
    # Its score map without what the image adds to the prompts, (grid_height, grid_width): cosines in [-1, 1].
    score_before: torch.Tensor
    score_after: torch.Tensor  # its score map, of the same shape
    probability_map: torch.Tensor  # the decode head's, (height / 4, width / 4)
    # Mean probability of each class, (num_labels,), over the pixels that are predicted as this one; what is large
    # beside it is what the model wavers about. NaN where no pixel is.
    probabilities: torch.Tensor
    best_pixel: tuple[int, int]  # row and column in the photograph where the class is most probable


@dataclass
class ImageExplanation:
    """All maps of one photograph, in float32, from which pixels and classes are explained."""

    class_names: tuple[str, ...]
    size: tuple[int, int]  # height and width in which rows and columns of pixels count
    # Score maps, (num_labels, grid_height, grid_width), before and after the image prompted the class embeddings.
    score_before: torch.Tensor
    score_after: torch.Tensor
    logits: torch.Tensor  # the decode head's, (num_labels, height / 4, width / 4)

    def explain_pixel(self, row: int, column: int) -> PixelExplanation:
        """
        Raises:
            ValueError: for a pixel outside of the picture.
        """
        height, width = self.size
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(
                f"There is no pixel in column {column} (x) and row {row} (y): the picture has {width} columns and"
                f" {height} rows, x from 0 to {width - 1} and y from 0 to {height - 1}."
            )
        grid_height, grid_width = self.score_after.shape[-2:]
        cell_row, cell_column = row * grid_height // height, column * grid_width // width
        # The logits at the centre of the pixel, as post-processing enlarges them, without enlarging all of them.
        place = torch.tensor([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1])
        logits = F.grid_sample(
            self.logits[None], place[None, None, None], mode="bilinear", padding_mode="border", align_corners=False
        )
        return PixelExplanation(
            row=row,
            column=column,
            cell=(cell_row, cell_column),
            class_names=self.class_names,
            score_before=self.score_before[:, cell_row, cell_column],
            score_after=self.score_after[:, cell_row, cell_column],
            probabilities=logits[0, :, 0, 0].softmax(dim=0),
        )

    def explain_class(self, index: int) -> ClassExplanation:
        """
        Explain the class of this id. Shares and means are over the cells of the logits, at stride 4.

        Raises:
            ValueError: for an id that no class has.
        """
        if not 0 <= index < len(self.class_names):
            raise ValueError(f"There is no class {index}: ids go from 0 to {len(self.class_names) - 1}.")
        probabilities = self.logits.softmax(dim=0)
        is_predicted = self.logits.argmax(dim=0) == index
        rows, columns = is_predicted.shape
        row, column = divmod(int(probabilities[index].argmax()), columns)
        center = ((2 * row + 1) * self.size[0] // (2 * rows), (2 * column + 1) * self.size[1] // (2 * columns))
        return ClassExplanation(
            index=index,
            class_names=self.class_names,
            share=is_predicted.float().mean().item(),
            score_before=self.score_before[index],
            score_after=self.score_after[index],
            probability_map=probabilities[index],
            probabilities=probabilities[:, is_predicted].mean(dim=1),
            best_pixel=center,
        )

    def segmentation(self, size: tuple[int, int]) -> np.ndarray:
        """The class of each pixel of a picture of this height and width."""
        return resize_logits(self.logits[None], size)[0].argmax(dim=0).numpy()


@torch.no_grad()
def explain_image(
    model: DenseCLIPForSemanticSegmentation, pixel_values: torch.Tensor, size: tuple[int, int] | None = None
) -> ImageExplanation:
    r"""
    Look at a photograph as a whole, without sliding windows, and keep what the model computes on the way.

    Args:
        model ([`DenseCLIPForSemanticSegmentation`]):
            With language, in evaluation mode.
        pixel_values (`torch.Tensor` of shape `(1, num_channels, height, width)`):
            One image as the image processor makes it, not padded.
        size (`tuple[int, int]`, *optional*):
            Height and width of the photograph, if pixels are to be named in its own rows and columns. Defaults to
            those of `pixel_values`.

    With pre-model prompting the scores before it are those of prompts with the learned contexts themselves; with
    language prompting alone they equal those after it.

    Raises:
        ValueError: for a model without language or in training mode, or more than one image.

    Examples:

    ```python
    explanation = explain_image(model, image_processor(photograph, do_pad=False, return_tensors="pt").pixel_values)
    pixel = explanation.explain_pixel(row=120, column=200)
    print(pixel.class_names[pixel.probabilities.argmax()], pixel.score_before, pixel.score_after)
    ```"""
    _check_language(model)
    if model.training:
        raise ValueError("This model is in training mode, where results depend on chance. Call `model.eval()` first.")
    if pixel_values.ndim != 4 or len(pixel_values) != 1:
        raise ValueError(
            "`pixel_values` is (1, num_channels, height, width), one image; got the shape"
            f" {tuple(pixel_values.shape)}."
        )
    outputs = model(pixel_values, inference_mode="whole", return_dict=True)
    pixel_embeddings = model.image_encoder(pixel_values, return_dict=True).pixel_embeddings
    score_before = compute_score_map(pixel_embeddings, model.encode_class_names()[None])
    return ImageExplanation(
        class_names=tuple(model.config.class_names),
        size=tuple(pixel_values.shape[-2:]) if size is None else size,
        score_before=score_before[0].cpu(),
        score_after=outputs.score_map[0].cpu(),
        logits=outputs.logits[0].float().cpu(),
    )


def _check_language(model: DenseCLIPForSemanticSegmentation) -> None:
    if not model.config.use_language:
        raise ValueError(
            "This model has `use_language=False`: it has no text tower, so it has no score maps and reads no names."
        )


# --------------------------------------------------------------------------------------------------------------- names


@torch.no_grad()
def class_similarity(
    model: DenseCLIPForSemanticSegmentation, class_names: Sequence[str] | None = None
) -> torch.Tensor:
    r"""
    How much alike the text tower finds names, before any image has prompted them.

    Of unit embeddings `a` and `b`, the scores of no pixel can differ by more than `|a - b| = sqrt(2 - 2 cos)`. So
    names of cosine 1 get the same score everywhere.

    Args:
        model ([`DenseCLIPForSemanticSegmentation`]):
            With language. Names are prompted by its learned contexts or, as long as those that `from_clip_pretrained`
            made are untrained, read as "a photo of a NAME".
        class_names (`Sequence[str]`, *optional*):
            Any names; needs the model's tokenizer. Defaults to its own.

    Returns:
        `torch.Tensor` of shape `(num_names, num_names)`: cosines in [-1, 1], float32.

    Raises:
        ValueError: for a model without language, or names that are empty, repeated or too long.
    """
    _check_language(model)
    is_plain = model.has_untrained_contexts()
    if class_names is None and not is_plain:
        embeddings = model.encode_class_names()
    else:
        names = (model.config.prompt_names or model.config.class_names) if class_names is None else class_names
        texts = [PLAIN_PROMPT.format(normalize_class_name(name)) for name in names] if is_plain else names
        token_ids, _ = model._tokenize(texts, None)
        contexts = model.prompts()[:, :0] if is_plain else model.prompts()
        packed = model.prompts.packed(texts, token_ids, num_context_tokens=contexts.shape[1])
        layout = {name: torch.tensor(values, device=model.device) for name, values in packed.items()}
        embeddings = model.encode_prompts(contexts, layout)[0]
    embeddings = F.normalize(embeddings.float(), dim=1).cpu()
    return (embeddings @ embeddings.T).clamp(-1, 1)


def similarity_threshold(similarity: torch.Tensor) -> float:
    r"""
    The cosine from which on two of these names count as confusable.

    CLIP's text embeddings lie close together, and how close differs from model to model; so it is taken from these
    names themselves. The scores of two names can differ by at most `sqrt(2 - 2 cos)` at any pixel. Names are
    confusable where that is no more than half of what it is for the median pair: `cos >= 1 - (1 - median) / 4`. Two
    names alone have no other pair to be compared with, so only equal ones are confusable. Where all names are alike,
    none stands out; the matrix shows that.
    """
    firsts, seconds = torch.triu_indices(*similarity.shape, offset=1)
    median = similarity[firsts, seconds].quantile(0.5).item() if len(firsts) else 1.0
    return 1 - CONFUSABLE_PART**2 * (1 - median)


def confusable_names(
    similarity: torch.Tensor, class_names: Sequence[str], threshold: float | None = None
) -> list[tuple[str, str, float]]:
    """
    Pairs of names that the text tower hardly tells apart, with their cosines, the most similar first.

    Args:
        similarity (`torch.Tensor` of shape `(num_names, num_names)`): cosines of [`class_similarity`].
        class_names (`Sequence[str]`): the names.
        threshold (`float`, *optional*): least cosine of a pair. Defaults to [`similarity_threshold`].

    Raises:
        `ValueError`: if there are not as many names as rows and columns.
    """
    if tuple(similarity.shape) != (len(class_names), len(class_names)):
        raise ValueError(
            f"`similarity` has a row and a column for each of the {len(class_names)} names; got the shape "
            f"{tuple(similarity.shape)}."
        )
    threshold = similarity_threshold(similarity) if threshold is None else threshold
    return [pair for pair in similar_names(similarity, class_names) if pair[2] >= threshold]


def similar_names(similarity: torch.Tensor, class_names: Sequence[str]) -> list[tuple[str, str, float]]:
    """All pairs of names with their cosines, the most similar first."""
    return [(class_names[first], class_names[second], cosine) for first, second, cosine in similar_pairs(similarity)]


def similar_pairs(similarity: torch.Tensor) -> list[tuple[int, int, float]]:
    """The ids of all pairs of names with their cosines, the most similar first."""
    firsts, seconds = torch.triu_indices(*similarity.shape, offset=1)
    cosines = similarity[firsts, seconds]
    order = cosines.argsort(descending=True, stable=True)
    return list(zip(firsts[order].tolist(), seconds[order].tolist(), cosines[order].tolist(), strict=True))


def load_text_reader(
    name_or_path: str, class_names: Sequence[str] | None = None, tokenizer: str | None = None
) -> DenseCLIPForSemanticSegmentation:
    """
    A model to call [`class_similarity`] with: a DenseCLIP or a CLIP, a folder, a file of weights, or the id of a
    repository on the Hub. `class_names` are what a CLIP is to read; a DenseCLIP has classes of its own. `tokenizer` is
    where CLIP's tokenizer is, if not beside the model.

    Raises:
        ValueError: for a model of another kind, or names that do not serve.
        OSError: for what is not there.
    """
    check_model_name(name_or_path, may_be_file=True)
    try:
        model_type = DenseCLIPConfig.get_config_dict(name_or_path)[0].get("model_type")
    except OSError:  # weights without a config are OpenAI's or open_clip's
        model_type = None
    if model_type == DenseCLIPConfig.model_type:
        return load_denseclip(name_or_path, tokenizer=tokenizer)
    if class_names is None:
        raise ValueError(
            f"{name_or_path} is no DenseCLIP, so it has no class names of its own: give those to compare."
        )
    return DenseCLIPForSemanticSegmentation.from_clip_pretrained(name_or_path, class_names, tokenizer).eval()
