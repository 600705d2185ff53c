# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Image encoders that have learned the painted world from its words, or from its classes as plain numbers.

"clip_resnet" and "clip_vit" learn captioned pictures by CLIP's contrastive loss, "numbers_resnet" and
"numbers_convnext" learn which classes the same captions name, as ImageNet teaches: the same pictures in the same
order, the same things named, as many steps, the same optimiser. All are saved in forms that `from_clip_pretrained`
reads: of Transformers, and of open_clip, which is the one with a CLIP of a ResNet. The ResNet of numbers has the same
architecture as CLIP's, and beside it a text tower that has learned nothing, which its rows leave behind.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    ConvNextConfig,
    ConvNextForImageClassification,
)

from modeling_denseclip import DenseCLIPConfig, DenseCLIPImageProcessor
from modeling_denseclip.checkpoint_formats_denseclip import FORMATS, OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, translate
from modeling_denseclip.modeling_denseclip_encoder import DenseCLIPBackboneEncoder
from training.demonstration.tokenizer import build_tokenizer

from .language_world import ALL_NAMES, GROUNDS, SKIES, vocabulary


PRETRAININGS = ("clip_resnet", "clip_vit", "numbers_resnet", "numbers_convnext")
WARMUP_SHARE, WEIGHT_DECAY = 0.05, 0.05
FIRST_LOGIT_SCALE, MAX_LOGIT_SCALE = math.log(1 / 0.07), math.log(100)  # as CLIP's
HEAD_DIM = 64  # of CLIP's towers
EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Pretraining:
    """
    Sizes of a pretraining.

    Args:
        side (`int`): of the pictures in pixels, a multiple of 32.
        width (`int`): of the joint space and of the text tower, a multiple of 64.
        resnet_width (`int`): of the stem of the ResNet.
        vit_layers (`int`): of the ViT.
        steps, batch_size (`int`), learning_rate (`float`): of all encoders alike.
    """

    side: int = 64
    width: int = 128
    resnet_width: int = 16
    vit_layers: int = 4
    steps: int = 1600
    batch_size: int = 128
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class CaptionedPictures:
    """What [`paint_captioned`] paints."""

    pictures: np.ndarray
    captions: np.ndarray
    named: np.ndarray
    shown: np.ndarray


def world_tokenizer() -> CLIPTokenizer:
    """A tokenizer of CLIP's kind for which each word of the world is a token."""
    return build_tokenizer(vocabulary())


# ---------------------------------------------------------------------------------------------------------- models


def text_fields(sizes: Pretraining, tokenizer: CLIPTokenizer) -> dict:
    """Fields of a `CLIPTextConfig`."""
    special_tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": sizes.width,
        "intermediate_size": 4 * sizes.width,
        "num_hidden_layers": 2,
        "num_attention_heads": sizes.width // HEAD_DIM,
        "max_position_embeddings": 40,
        "projection_dim": sizes.width,
        "hidden_act": "quick_gelu",
        **special_tokens,
    }


def resnet_fields(sizes: Pretraining, tokenizer: CLIPTokenizer) -> dict:
    """Fields of a [`DenseCLIPConfig`]: CLIP's ResNet, and the text tower."""
    return {
        "text_config": text_fields(sizes, tokenizer),
        "vision_config": {
            "model_type": "denseclip_resnet",
            "embedding_size": sizes.resnet_width,
            "depths": (1, 1, 1, 1),
            "image_size": sizes.side,
        },
        "projection_dim": sizes.width,
    }


class ResNetCLIP(nn.Module):
    """CLIP with its own ResNet, of which Transformers has no model: embeddings of width `sizes.width`."""

    def __init__(self, sizes: Pretraining, tokenizer: CLIPTokenizer):
        super().__init__()
        config = DenseCLIPConfig(**resnet_fields(sizes, tokenizer))
        self.image_encoder = DenseCLIPBackboneEncoder(config)
        self.text_encoder = CLIPTextModel(config.text_config)
        self.text_projection = nn.Linear(sizes.width, sizes.width, bias=False)
        nn.init.normal_(self.text_projection.weight, std=sizes.width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(FIRST_LOGIT_SCALE))

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.image_encoder(pixel_values).global_embedding

    def embed_texts(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.text_projection(self.text_encoder(input_ids).pooler_output)

    def save(self, folder: Path) -> None:
        """In the form of open_clip: names of OpenAI's, and a config that tells the heads."""
        save_file(openai_state_dict(self.state_dict()), folder / OPEN_CLIP_WEIGHTS)
        text_config = self.text_encoder.config
        model_cfg = {
            "embed_dim": text_config.projection_dim,
            "quick_gelu": True,
            "text_cfg": {"heads": text_config.num_attention_heads},
            "vision_cfg": {"head_width": HEAD_DIM},
        }
        (folder / OPEN_CLIP_CONFIG).write_text(json.dumps({"model_cfg": model_cfg}, indent=2), encoding="utf-8")


class ViTCLIP(nn.Module):
    """CLIP with a ViT, a `CLIPModel` of Transformers."""

    def __init__(self, sizes: Pretraining, tokenizer: CLIPTokenizer):
        super().__init__()
        vision_config = {
            "hidden_size": sizes.width,
            "intermediate_size": 4 * sizes.width,
            "num_hidden_layers": sizes.vit_layers,
            "num_attention_heads": sizes.width // HEAD_DIM,
            "image_size": sizes.side,
            "patch_size": 16,
            "hidden_act": "quick_gelu",
        }
        self.model = CLIPModel(
            CLIPConfig(
                text_config=text_fields(sizes, tokenizer),
                vision_config=vision_config,
                projection_dim=sizes.width,
                logit_scale_init_value=FIRST_LOGIT_SCALE,
            )
        )

    @property
    def logit_scale(self) -> nn.Parameter:
        return self.model.logit_scale

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model.visual_projection(self.model.vision_model(pixel_values).pooler_output)

    def embed_texts(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model.text_projection(self.model.text_model(input_ids).pooler_output)

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)


def build_convnext(sizes: Pretraining) -> ConvNextForImageClassification:
    """A small ConvNeXt that tells which classes of `ALL_NAMES` a picture shows."""
    widths = [sizes.resnet_width * factor for factor in (2, 4, 8, 16)]
    return ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=widths, depths=[1, 1, 2, 1], image_size=sizes.side, num_labels=len(ALL_NAMES))
    )


def openai_state_dict(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Weights of a [`ResNetCLIP`] by OpenAI's names: the table by which they are read, from right to left. Of the parts
    that one tensor of theirs is cut into, the lines of the table have the order.
    """
    table = FORMATS[0].make_table(["visual.conv1.weight"])
    parts: dict[str, list[torch.Tensor]] = {}
    for theirs, ours in table:
        for name, tensor in state_dict.items():
            for original in translate(name, [(ours.removesuffix(".T"), theirs)]) if ours else ():
                parts.setdefault(original, []).append(tensor.mT if ours.endswith(".T") else tensor)
    parts["logit_scale"] = [state_dict["logit_scale"]]
    return {
        name: (tensors[0] if len(tensors) == 1 else torch.cat(tensors)).contiguous() for name, tensors in parts.items()
    }


# --------------------------------------------------------------------------------------------------------- learning


def prepare(pictures: np.ndarray, device: torch.device) -> torch.Tensor:
    """Pictures as CLIP sees them, `(count, 3, side, side)`: normalised by its mean and deviation."""
    processor = DenseCLIPImageProcessor()
    pixel_values = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (
        torch.tensor(values, device=device)[:, None, None] for values in (processor.image_mean, processor.image_std)
    )
    return (pixel_values - mean) / std


def draw_batches(count: int, sizes: Pretraining, seed: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Which pictures each step takes, and whether they are mirrored: the same for every encoder."""
    generator = np.random.default_rng((seed, count))
    order = np.empty(0, dtype=np.int64)
    for _ in range(sizes.steps):
        if len(order) < sizes.batch_size:
            order = np.concatenate([order, generator.permutation(count)])
        batch, order = order[: sizes.batch_size], order[sizes.batch_size :]
        yield batch, bool(generator.integers(2))


def learn(
    model: nn.Module,
    loss_of: Callable[[torch.Tensor, np.ndarray], torch.Tensor],
    data: CaptionedPictures,
    sizes: Pretraining,
    seed: int,
    device: torch.device,
) -> None:
    """AdamW with a warm-up and a cosine, on what `loss_of` makes of pixels and the numbers of their pictures."""
    model.to(device).train()
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=sizes.learning_rate, betas=(0.9, 0.98))
    warmup = max(1, round(WARMUP_SHARE * sizes.steps))
    for step, (batch, is_mirrored) in enumerate(draw_batches(len(data.pictures), sizes, seed)):
        rate = min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / sizes.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * sizes.learning_rate
        pixel_values = prepare(data.pictures[batch], device)
        loss = loss_of(pixel_values.flip(-1) if is_mirrored else pixel_values, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()


def read_captions(tokenizer: CLIPTokenizer, captions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, `(count, length of the longest)`, and how many of them each caption has."""
    read = tokenizer(captions.tolist(), padding=True, return_tensors="pt")
    return read.input_ids, read.attention_mask.sum(dim=1)


def contrast(image_embeddings: torch.Tensor, text_embeddings: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """CLIP's loss: each picture is to find its caption among those of the batch, and each caption its picture."""
    images, texts = F.normalize(image_embeddings, dim=1), F.normalize(text_embeddings, dim=1)
    logits = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp() * images @ texts.T
    targets = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def pretrain(
    name: str,
    train: CaptionedPictures,
    held_out: CaptionedPictures,
    folder: Path,
    sizes: Pretraining,
    seed: int,
    device: torch.device,
) -> dict[str, float]:
    """
    Train one of `PRETRAININGS` and save it.

    Returns:
        `dict[str, float]`: fractions, on pictures that were held out: `mean_average_precision` of telling which
        pictures show a thing, by the class's name for CLIP, with `chance_precision` beside it; for CLIP also
        `caption_recall` and `picture_recall`, how often the nearest caption is a picture's own, and the other way
        round, among `num_held_out`.
    """
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = world_tokenizer()
    if name.startswith("clip"):
        model = (ViTCLIP if name == "clip_vit" else ResNetCLIP)(sizes, tokenizer)
        tokens, lengths = read_captions(tokenizer, train.captions)

        def loss_of(pixel_values: torch.Tensor, batch: np.ndarray) -> torch.Tensor:
            longest = lengths[batch].max()  # what stands behind a text changes nothing before it
            texts = model.embed_texts(tokens[batch, :longest].to(device))
            return contrast(model.embed_images(pixel_values), texts, model.logit_scale)

        learn(model, loss_of, train, sizes, seed, device)
        scores = score_words(model, tokenizer, held_out, device)
    else:
        model, module, tell = build_teller(name, sizes, tokenizer)
        numbers = torch.from_numpy(train.named).float()

        def loss_of(pixel_values: torch.Tensor, batch: np.ndarray) -> torch.Tensor:
            logits = tell(pixel_values)
            # Summed over classes, so that the gradient is as large as that of a softmax over them.
            return F.binary_cross_entropy_with_logits(logits, numbers[batch].to(device), reduction="sum") / len(batch)

        learn(module, loss_of, train, sizes, seed, device)
        scores = score_things(in_batches(tell, held_out, device), held_out)
    if isinstance(model, ConvNextForImageClassification):
        model.save_pretrained(folder)
        DenseCLIPImageProcessor().save_pretrained(folder)
    else:
        model.cpu().save(folder)
        tokenizer.save_pretrained(folder)
    return scores


def build_teller(
    name: str, sizes: Pretraining, tokenizer: CLIPTokenizer
) -> tuple[nn.Module, nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    """What is saved, what is trained, and how it tells numbers: pixels -> logits `(batch_size, len(ALL_NAMES))`."""
    if name == "numbers_convnext":
        model = build_convnext(sizes).to(memory_format=torch.channels_last)
        return model, model, lambda pixel_values: model(pixel_values).logits
    model = ResNetCLIP(sizes, tokenizer)
    classifier = nn.Linear(sizes.width, len(ALL_NAMES))
    return (
        model,
        nn.ModuleList([model.image_encoder, classifier]),
        lambda pixel_values: classifier(model.embed_images(pixel_values)),
    )


# ----------------------------------------------------------------------------------------------------------- scores


@torch.no_grad()
def in_batches(
    embed: Callable[[torch.Tensor], torch.Tensor], data: CaptionedPictures, device: torch.device
) -> torch.Tensor:
    """What `embed` makes of all pictures, a row each."""
    starts = range(0, len(data.pictures), EVALUATION_BATCH)
    return torch.cat(
        [embed(prepare(data.pictures[start : start + EVALUATION_BATCH], device)).cpu() for start in starts]
    )


@torch.no_grad()
def score_words(
    model: nn.Module, tokenizer: CLIPTokenizer, held_out: CaptionedPictures, device: torch.device
) -> dict[str, float]:
    """See [`pretrain`]."""

    def read(texts: list[str]) -> torch.Tensor:
        input_ids = tokenizer(texts, padding=True, return_tensors="pt").input_ids
        return F.normalize(model.embed_texts(input_ids.to(device)).cpu(), dim=1)

    images = F.normalize(in_batches(model.embed_images, held_out, device), dim=1)
    similarity = images @ read(held_out.captions.tolist()).T
    own = torch.arange(len(similarity))
    names = images @ read([f"a {name}" for name in ALL_NAMES]).T
    return {
        "caption_recall": float((similarity.argmax(dim=1) == own).float().mean()),
        "picture_recall": float((similarity.argmax(dim=0) == own).float().mean()),
        **score_things(names, held_out),
    }


def score_things(scores: torch.Tensor, held_out: CaptionedPictures) -> dict[str, float]:
    """Mean average precision over the things that held-out pictures show, from scores `(count, len(ALL_NAMES))`."""
    first = len(SKIES) + len(GROUNDS)
    columns = [index for index in range(first, len(ALL_NAMES)) if held_out.shown[:, index].any()]
    return {
        "mean_average_precision": float(
            np.mean([average_precision(scores[:, index].numpy(), held_out.shown[:, index]) for index in columns])
        ),
        "chance_precision": float(held_out.shown[:, columns].mean()),
        "num_held_out": len(held_out.pictures),
    }


def average_precision(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """The mean, over the positive rows, of the share of positive ones among those of at least their score."""
    found = is_positive[np.argsort(-scores, kind="stable")]
    ranks = np.flatnonzero(found) + 1
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))
