# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What the page answers: a photograph's classes, or where words match it, packed for the browser."""

import base64
import io
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import PIL.Image
import torch

from ...image_processing_denseclip import DenseCLIPImageProcessor
from ...modeling_denseclip import DenseCLIPForSemanticSegmentation
from ...resizing_denseclip import resize_logits
from ..files.devices import naming_lack_of_memory
from ..files.received import MEMORY_ADVICE, read_received
from ..insight.batching import describe_segmentation
from ..insight.predictors import ClassPredictor
from ..insight.text_scores import TextPredictor
from ..pictures.drawing import draw_mask
from ..pictures.palettes import generate_palette


MAXIMUM_TEXTS = 20
MAXIMUM_LETTERS = 2000  # of all words together
VIEW_SIDE = 1280  # the longer side of the picture on the page, in pixels
MAXIMUM_MAP_VALUES = 2**22  # of all heat maps of a photograph together
CLASSES_AT_A_TIME = 16
NAMED_CLASSES = 40  # of those that the page begins with
SCORE_MEANING = "softmax probability of the class at the nearest logits, averaged over its pixels"
TEXT_MEANING = "Cosine similarity of picture and words; the colours mean the same for all words of this picture."
CLASS_MEANING = "Probability of the class: the softmax over all classes of the model."


def class_hint(names: Sequence[str]) -> str:
    """What the page says before the first photograph, with the names of the model's classes."""
    more = f" and {len(names) - NAMED_CLASSES} more" if len(names) > NAMED_CLASSES else ""
    return (
        "Choose a photograph to see which of its classes the model finds in it, and where.\n\n"
        f"{', '.join(names[:NAMED_CLASSES])}{more}"
    )


def answer(compute: Callable[[], dict]) -> dict:
    """What `compute` returns, or, as `{"error": ...}`, what people have to know instead."""
    try:
        with naming_lack_of_memory(MEMORY_ADVICE):
            return compute()
    except ValueError as error:
        return {"error": str(error)}


def read_upload(data: bytes | None) -> PIL.Image.Image:
    """
    The upright photograph, RGB.

    Raises:
        ValueError: where there is none, and as [`~tools.files.received.read_received`].
    """
    if not isinstance(data, bytes):
        raise ValueError("There is no photograph yet: upload one above.")
    return read_received(data)


def split_texts(words: str | None) -> list[str]:
    """
    The words between commas and line ends, without repetition.

    Raises:
        ValueError: if there are none, or too many, or too long ones: letters are counted before anything else is done.
    """
    words = words if isinstance(words, str) else ""
    if len(words) > MAXIMUM_LETTERS:
        raise ValueError(f"These words have {len(words)} letters; {MAXIMUM_LETTERS} are the limit.")
    texts = list(dict.fromkeys(" ".join(part.split()) for part in re.split("[,;\n]", words) if part.strip()))
    if not texts:
        raise ValueError("There are no words yet: type some, separated by commas.")
    if len(texts) > MAXIMUM_TEXTS:
        raise ValueError(f"These are {len(texts)} words or phrases; {MAXIMUM_TEXTS} are the limit.")
    return texts


def find_classes(
    model: DenseCLIPForSemanticSegmentation, image_processor: DenseCLIPImageProcessor, photograph: PIL.Image.Image
) -> dict:
    """The classes of the decode head, for programs; see `describe_segmentation`."""
    predictor = ClassPredictor(model, image_processor)
    predictor.check(photograph)
    ((class_ids, totals),) = predictor([photograph])
    return describe_segmentation(predictor, class_ids, totals)


@torch.no_grad()
def segment(
    model: DenseCLIPForSemanticSegmentation,
    image_processor: DenseCLIPImageProcessor,
    photograph: PIL.Image.Image,
    name: str,
) -> dict:
    """The classes of the decode head, as the pipeline finds them; see `pack_maps`."""
    size, num_labels = photograph.size[::-1], model.config.num_labels
    predictor = ClassPredictor(model, image_processor)
    predictor.check(photograph)
    logits = predictor.compute(predictor.prepare_scales([photograph]), size)
    ((segmentation, totals),) = predictor.find_classes(logits, size)
    classes = predictor.list_classes(totals)
    maps = resize_logits(logits.float(), map_size(logits.shape[-2:], num_labels))
    return pack_maps(
        photograph,
        segmentation,
        names=predictor.labels,
        palette=predictor.palette,
        remarks={entry["id"]: f"mean probability {100 * entry['score']:.1f} %" for entry in classes},
        scores=winning_probability(logits, view_size(photograph)),
        maps=maps.softmax(dim=1)[0],
        limits=(0.0, 1.0),
    ) | {
        "title": f"{len(classes)} {'class' if len(classes) == 1 else 'classes'} found",
        "view": "Classes",
        "note": "",
        "meaning": CLASS_MEANING,
        "percent": True,
        "details": {
            "model": name,
            "height": size[0],
            "width": size[1],
            "score": SCORE_MEANING,
            "classes": classes,
        },
    }


@torch.no_grad()
def score_texts(
    model: DenseCLIPForSemanticSegmentation,
    image_processor: DenseCLIPImageProcessor,
    photograph: PIL.Image.Image,
    texts: Sequence[str],
    name: str,
) -> dict:
    """The best of the texts at each pixel, from the branch of the score map; see `pack_maps`."""
    size = photograph.size[::-1]
    predictor = TextPredictor(model, image_processor, texts)
    predictor.check(photograph)
    cosines = predictor([photograph])
    (segmentation,) = predictor.image_processor.post_process_semantic_segmentation(
        SimpleNamespace(logits=cosines), target_sizes=[size]
    )
    segmentation = segmentation.cpu().numpy()
    pixels = np.bincount(segmentation.ravel(), minlength=len(texts)).tolist()
    return pack_maps(
        photograph,
        segmentation,
        names=texts,
        palette=generate_palette(len(texts)),
        remarks={index: f"cosine {values.min():.3f} to {values.max():.3f}" for index, values in enumerate(cosines[0])},
        scores=resize_logits(cosines, view_size(photograph))[0].amax(dim=0),
        maps=cosines[0],
        limits=(cosines.min().item(), cosines.max().item()),
    ) | {
        "title": "Best at each pixel",
        "view": "Best words",
        "note": f"{predictor.explain_scores(name)}\nOne of them is the best everywhere, even where none applies.",
        "meaning": TEXT_MEANING,
        "percent": False,
        "details": {
            "model": name,
            "height": size[0],
            "width": size[1],
            "score": "cosine similarity with the pixels of the score map, in [-1, 1]",
            "texts": [
                {
                    "id": index,
                    "text": text,
                    "pixels": pixels[index],
                    "area": round(pixels[index] / segmentation.size, 6),
                    **{part: round(getattr(values, part)().item(), 6) for part in ("min", "mean", "max")},
                }
                for index, (text, values) in enumerate(zip(texts, cosines[0], strict=True))
            ],
        },
    }


def pack_maps(
    photograph: PIL.Image.Image,
    segmentation: np.ndarray,
    names: Sequence[str],
    palette: Sequence[Sequence[int]],
    remarks: Mapping[int, str],
    scores: torch.Tensor,
    maps: torch.Tensor,
    limits: tuple[float, float],
) -> dict:
    """
    Pack maps for the browser, as JSON: arrays are base64 of zlib, since a browser that guards against fingerprinting
    changes what is read back from a PNG.

    Args:
        photograph (`PIL.Image.Image`): upright, RGB.
        segmentation (array of shape `(height, width)`): ids of `names`, per pixel of the photograph.
        names (`Sequence[str]`): of ids from 0 on.
        palette (`Sequence` of RGB triples in [0, 255]): their colours.
        remarks (`Mapping[int, str]`): on each name that is found, beside its area.
        scores (`torch.Tensor` of shape `(view_height, view_width)`): of the best name at each pixel of the page.
        maps (`torch.Tensor` of shape `(num_names, map_height, map_width)`): the scores of each name.
        limits (`tuple[float, float]`): least and greatest score; in 256 steps between them scores are shown.
    """
    view = view_size(photograph)
    # The photograph's pixel below the centre of each pixel of the page.
    rows, columns = (
        ((np.arange(length) + 0.5) * original / length).astype(np.intp)
        for length, original in zip(view, segmentation.shape, strict=True)
    )
    areas = np.bincount(segmentation.ravel(), minlength=len(names)) / segmentation.size
    low, high = limits
    span = high - low if high > low else 1.0

    def quantize(values: torch.Tensor) -> np.ndarray:
        return ((values.cpu() - low) / span * 255).round().clamp(0, 255).to(torch.uint8).numpy()

    return {
        "width": view[1],
        "height": view[0],
        "map_width": maps.shape[-1],
        "map_height": maps.shape[-2],
        "limits": [low, low + span],
        "photo": data_url(photograph.resize(view[::-1], PIL.Image.Resampling.LANCZOS), "JPEG", quality=90),
        "mask": data_url(draw_mask(segmentation, palette), "PNG"),
        "ids": pack(segmentation[np.ix_(rows, columns)].astype("<u2")),
        "scores": pack(quantize(scores)),
        "maps": pack(quantize(maps)),
        "classes": [
            {"id": index, "name": label, "color": color, "area": area, "remark": remarks.get(index, "")}
            for index, (label, color, area) in enumerate(zip(names, palette, areas.tolist(), strict=True))
        ],
    }


def view_size(photograph: PIL.Image.Image) -> tuple[int, int]:
    """Height and width on the page."""
    scale = VIEW_SIDE / max(photograph.size)
    return max(round(photograph.height * scale), 1), max(round(photograph.width * scale), 1)


def map_size(size: tuple[int, int], num_maps: int) -> tuple[int, int]:
    """The largest (height, width) up to `size` of which `num_maps` maps are few enough."""
    scale = min((MAXIMUM_MAP_VALUES / (num_maps * size[0] * size[1])) ** 0.5, 1)
    return max(int(size[0] * scale), 1), max(int(size[1] * scale), 1)


def winning_probability(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    The softmax probability of the best class at each pixel of an image of `size`, of which the logits are enlarged for
    a few classes at a time: (1, num_labels, logits_height, logits_width) -> size.
    """
    best = total = torch.full(size, float("-inf"), device=logits.device)
    for some in logits[0].split(CLASSES_AT_A_TIME):
        enlarged = resize_logits(some[None].float(), size)[0]
        best = torch.maximum(best, enlarged.amax(dim=0))
        total = torch.logaddexp(total, enlarged.logsumexp(dim=0))
    return (best - total).exp()


def data_url(picture: PIL.Image.Image, form: str, **options) -> str:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def pack(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(array.tobytes())).decode()
