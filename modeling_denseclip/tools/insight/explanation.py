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
r"""
Why a model sees what it sees: scores before and after prompting, the classes that it confuses, and the class names
that its text tower cannot tell apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from torch.nn import functional as F

from ...class_names_denseclip import load_clip_tokenizer, normalize_class_name
from ...configuration_denseclip import DenseCLIPConfig
from ...modeling_denseclip import DenseCLIPForSemanticSegmentation, compute_score_map, resize_logits
from ..files.loading import load_denseclip
from ..pictures.drawing import (
    PICTURE_WIDTH,
    contact_sheet,
    draw_bars,
    draw_heat_map,
    draw_overlay,
    mark_pixel,
    to_picture_width,
)
from ..pictures.matrices import draw_matrix
from ..pictures.palettes import generate_palette


# As CLIP was trained, on captions; for contexts that nobody has trained.
PLAIN_PROMPT = "a photo of a {}"
# Names are confusable whose scores differ by no more than this part of what those of two names usually may.
CONFUSABLE_PART = 0.5
# A picture of similarities has room for so many names.
MAXIMUM_NAMES = 24


# -------------------------------------------------------------------------------------------------------- photographs


@dataclass
class PixelExplanation:
    r"""
    What speaks for each class at one pixel.

    Args:
        row, column (`int`): The pixel.
        cell (`tuple[int, int]`): Row and column of the cell of the score map that it lies in.
        class_names (`tuple[str, ...]`): K names.
        score_before (`torch.Tensor` of shape `(num_labels,)`): Cosines of the cell and the class embeddings as they
            come from the text tower, in [-1, 1].
        score_after (`torch.Tensor` of shape `(num_labels,)`): Cosines of the cell and the class embeddings as the
            image prompted them: what the decode head is given.
        probabilities (`torch.Tensor` of shape `(num_labels,)`): The decode head's, of the pixel itself.
    """

    row: int
    column: int
    cell: tuple[int, int]
    class_names: tuple[str, ...]
    score_before: torch.Tensor
    score_after: torch.Tensor
    probabilities: torch.Tensor


@dataclass
class ClassExplanation:
    r"""
    Where a class is seen, and what it is confused with.

    Args:
        index (`int`): The id of the class.
        class_names (`tuple[str, ...]`): K names.
        share (`float`): Of the picture that is predicted as this class, in [0, 1].
        score_before (`torch.Tensor` of shape `(grid_height, grid_width)`): Its score map without what the image adds
            to the prompts: cosines in [-1, 1].
        score_after (`torch.Tensor` of shape `(grid_height, grid_width)`): Its score map.
        probability_map (`torch.Tensor` of shape `(height / 4, width / 4)`): The decode head's.
        probabilities (`torch.Tensor` of shape `(num_labels,)`): Mean probability of each class over the pixels that
            are predicted as this one; what is large beside it is what the model wavers about. NaN where no pixel is.
        best_pixel (`tuple[int, int]`): Row and column in the photograph where the class is most probable.
    """

    index: int
    class_names: tuple[str, ...]
    share: float
    score_before: torch.Tensor
    score_after: torch.Tensor
    probability_map: torch.Tensor
    probabilities: torch.Tensor
    best_pixel: tuple[int, int]


@dataclass
class ImageExplanation:
    r"""
    All maps of one photograph, from which pixels and classes are explained.

    Args:
        class_names (`tuple[str, ...]`): K names.
        size (`tuple[int, int]`): Height and width in which rows and columns of pixels count.
        score_before, score_after (`torch.Tensor` of shape `(num_labels, grid_height, grid_width)`): Score maps before
            and after the image prompted the class embeddings: cosines in [-1, 1], float32.
        logits (`torch.Tensor` of shape `(num_labels, height / 4, width / 4)`): The decode head's, float32.
    """

    class_names: tuple[str, ...]
    size: tuple[int, int]
    score_before: torch.Tensor
    score_after: torch.Tensor
    logits: torch.Tensor

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
    confusable where that is no more than half of what it is for the median pair: `cos >= 1 - (1 - median) / 4`. With
    two names there is nothing to compare them with, so only equal ones are; names that are all alike hide each other,
    which the matrix shows.

    Args:
        similarity (`torch.Tensor` of shape `(num_names, num_names)`): cosines of [`class_similarity`].
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
    firsts, seconds = torch.triu_indices(*similarity.shape, offset=1)
    cosines = similarity[firsts, seconds]
    return [
        (class_names[firsts[pair]], class_names[seconds[pair]], cosines[pair].item())
        for pair in cosines.argsort(descending=True, stable=True).tolist()
    ]


def load_text_reader(
    name_or_path: str, class_names: Sequence[str] | None = None, tokenizer: str | None = None
) -> DenseCLIPForSemanticSegmentation:
    """
    A model to call [`class_similarity`] with.

    Args:
        name_or_path (`str`): a DenseCLIP or a CLIP: a folder, a file of weights, or the id of a repository on the Hub.
        class_names (`Sequence[str]`, *optional*): what a CLIP is to read; a DenseCLIP has classes of its own.
        tokenizer (`str`, *optional*): where CLIP's tokenizer is, if not beside the model.

    Raises:
        ValueError: for a model of another kind, or names that do not serve.
        OSError: for what is not there.
    """
    if not Path(name_or_path).exists():
        try:
            validate_repo_id(name_or_path)
        except HFValidationError:
            raise ValueError(
                f"{name_or_path} is neither a file, nor a folder, nor the id of a repository on the Hub."
            ) from None
    try:
        model_type = DenseCLIPConfig.get_config_dict(name_or_path)[0].get("model_type")
    except OSError:  # weights without a config are OpenAI's or open_clip's
        model_type = None
    if model_type == DenseCLIPConfig.model_type:
        model = load_denseclip(name_or_path)
        if tokenizer is not None:
            model.tokenizer = load_clip_tokenizer(tokenizer)
        return model
    if class_names is None:
        raise ValueError(
            f"{name_or_path} is no DenseCLIP, so it has no class names of its own: give those to compare."
        )
    return DenseCLIPForSemanticSegmentation.from_clip_pretrained(name_or_path, class_names, tokenizer).eval()


# ------------------------------------------------------------------------------------------------------------ pictures


def draw_pixel(
    photograph: PIL.Image.Image,
    explanation: ImageExplanation,
    pixel: PixelExplanation,
    palette: Sequence[Sequence[int]] | None = None,
    top_k: int = 5,
) -> PIL.Image.Image:
    """
    Draw what speaks for each class at a pixel: the photograph and the classes with the pixel marked, the best classes
    as bars, and below, the score map of the predicted class before and after prompting and that of the next.
    """
    names, order = pixel.class_names, pixel.probabilities.argsort(descending=True)
    palette = generate_palette(len(names)) if palette is None else palette
    sheet = _Sheet(photograph, explanation, palette)
    place = (
        (pixel.row + 0.5) * sheet.photograph.height / explanation.size[0],
        (pixel.column + 0.5) * sheet.photograph.width / explanation.size[1],
    )
    best, second = order[:2].tolist() if len(order) > 1 else [0, 0]
    low = min(pixel.score_before.min().item(), pixel.score_after.min().item())
    high = max(pixel.score_before.max().item(), pixel.score_after.max().item())
    span = high - low if high > low else 1.0

    def bars(values: torch.Tensor, scores: bool) -> list:
        rows = []
        for index in values.argsort(descending=True)[:top_k].tolist():
            value = values[index].item()
            length, text = ((value - low) / span, f"{value:.3f}") if scores else (value, f"{100 * value:.1f} %")
            rows.append((names[index], length, text, palette[index]))
        return rows

    sheet.add(mark_pixel(sheet.photograph, *place), f"pixel x {pixel.column}, y {pixel.row}")
    sheet.add(mark_pixel(sheet.overlay(), *place), f"predicted here: {names[best]}")
    sheet.add(
        draw_bars(
            [
                ("probability, decode head", bars(pixel.probabilities, scores=False)),
                (f"score after prompting; bars start at {low:.2f}", bars(pixel.score_after, scores=True)),
                (f"score before prompting; bars start at {low:.2f}", bars(pixel.score_before, scores=True)),
            ]
        ),
        "the best classes at this pixel",
    )
    maps = [
        (explanation.score_before[best], names[best], "before prompting", pixel.score_before[best]),
        (explanation.score_after[best], names[best], "after prompting", pixel.score_after[best]),
        (explanation.score_after[second], names[second], "after prompting, the next class", pixel.score_after[second]),
    ]
    limits = _limits([values for values, *_ in maps])
    for values, name, when, score in maps:
        heat_map = sheet.heat_map(values, name, limits)
        sheet.add(mark_pixel(heat_map, *place), f"{when}: {score:.3f} at the pixel")
    return sheet.draw()


def draw_class(
    photograph: PIL.Image.Image,
    explanation: ImageExplanation,
    a_class: ClassExplanation,
    palette: Sequence[Sequence[int]] | None = None,
    top_k: int = 8,
) -> PIL.Image.Image:
    """
    Draw where a class is seen: the photograph, the classes, what it is confused with as bars, and below, its score map
    before and after prompting and its probability.
    """
    names, index = a_class.class_names, a_class.index
    palette = generate_palette(len(names)) if palette is None else palette
    sheet = _Sheet(photograph, explanation, palette)
    sheet.add(sheet.photograph, "photograph")
    sheet.add(sheet.overlay(), f"{100 * a_class.share:.1f} % are predicted as {names[index]}")
    if a_class.share:
        title, means = f"mean probability where {names[index]} is predicted", a_class.probabilities
    else:
        row, column = a_class.best_pixel
        title = f"predicted nowhere; probabilities at x {column}, y {row}"
        means = explanation.explain_pixel(row, column).probabilities
    rows = [
        (names[other], means[other].item(), f"{100 * means[other]:.1f} %", palette[other])
        for other in means.argsort(descending=True)[:top_k].tolist()
    ]
    sheet.add(draw_bars([(title, rows)]), "what it is confused with")
    limits = _limits([a_class.score_before, a_class.score_after])
    change = (a_class.score_after - a_class.score_before).abs().max()
    sheet.add(sheet.heat_map(a_class.score_before, names[index], limits), "score before prompting")
    after = sheet.heat_map(a_class.score_after, names[index], limits)
    sheet.add(after, f"score after prompting, changed by up to {change:.3f}")
    heat_map = sheet.heat_map(a_class.probability_map, names[index], (0.0, 1.0))
    sheet.add(heat_map, f"probability, up to {100 * a_class.probability_map.max():.1f} %")
    return sheet.draw()


def draw_similarity(similarity: torch.Tensor, class_names: Sequence[str]) -> PIL.Image.Image:
    """
    Draw the cosines of names as a matrix in which similar names stand together; of more than 24 names, those of the
    most similar pairs.
    """
    shown = _most_similar(similarity, MAXIMUM_NAMES)
    title = "cosine of class names"
    if len(shown) < len(class_names):
        title += f": the {len(shown)} of {len(class_names)} most alike"
    return draw_matrix(similarity[shown][:, shown].numpy(), [class_names[index] for index in shown], title)


def _most_similar(similarity: torch.Tensor, limit: int) -> list[int]:
    """The ids of the names in the most similar pairs, each behind the one that it is most similar to."""
    firsts, seconds = torch.triu_indices(*similarity.shape, offset=1)
    chosen: list[int] = []
    for pair in similarity[firsts, seconds].argsort(descending=True, stable=True).tolist():
        for index in (firsts[pair].item(), seconds[pair].item()):
            if index not in chosen and len(chosen) < limit:
                chosen.append(index)
    ordered, rest = chosen[:1], chosen[1:]
    while rest:
        ordered.append(max(rest, key=lambda index: similarity[ordered[-1], index].item()))
        rest.remove(ordered[-1])
    return ordered


def _limits(maps: Sequence[torch.Tensor]) -> tuple[float, float]:
    """One scale for all, so that their colours can be compared."""
    return min(values.min().item() for values in maps), max(values.max().item() for values in maps)


class _Sheet:
    """Panels of one photograph at one width, three per row."""

    def __init__(self, photograph: PIL.Image.Image, explanation: ImageExplanation, palette: Sequence[Sequence[int]]):
        self.photograph = to_picture_width(photograph)
        self.explanation, self.palette = explanation, palette
        self.pictures, self.captions = [], []

    def overlay(self) -> PIL.Image.Image:
        segmentation = self.explanation.segmentation(self.photograph.size[::-1])
        id2label = dict(enumerate(self.explanation.class_names))
        return draw_overlay(self.photograph, segmentation, id2label, self.palette, legend=False)

    def heat_map(self, values: torch.Tensor, title: str, limits: tuple[float, float]) -> PIL.Image.Image:
        return draw_heat_map(self.photograph, values.numpy(), title, limits)

    def add(self, picture: PIL.Image.Image, caption: str) -> None:
        self.pictures.append(picture)
        self.captions.append(caption)

    def draw(self) -> PIL.Image.Image:
        return contact_sheet(self.pictures, self.captions, columns=3, tile_width=PICTURE_WIDTH)
