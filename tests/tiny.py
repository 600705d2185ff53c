"""Small models for tests: everything of DenseCLIP in well under a million parameters, without a network."""

import io
import json
import string
import struct
import tarfile
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from transformers import CLIPTokenizer

from modeling_denseclip import (
    DenseCLIPConfig,
    DenseCLIPForSemanticSegmentation,
    DenseCLIPImageProcessor,
    tokenize_class_names,
)
from training.demonstration.tokenizer import build_tokenizer


TINY_CLASS_NAMES = ("wall", "sky", "traffic light", "right ventricle cavity", "person")


@lru_cache
def make_tiny_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows our words whole and any other letter by letter."""
    return build_tokenizer([*TINY_CLASS_NAMES, *string.ascii_lowercase])


def tiny_config(kind: str, use_language: bool = True, **overrides) -> DenseCLIPConfig:
    """
    `kind` is "resnet" or "vit", or a shallower one, for tests that build it many times or compile it: "shallow" is a
    ResNet of one block per stage, "shallow vit" has two layers, and their other transformers have one. `overrides` are
    fields of the config.
    """
    tokenizer = make_tiny_tokenizer()
    resnet = {"model_type": "denseclip_resnet", "embedding_size": 8, "depths": (1, 2, 1, 1), "image_size": 64}
    vit = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
    }
    vision_config, feature_layers, num_layers = {
        "resnet": (resnet, None, 2),
        "vit": (vit, (0, 1, 2, 3), 2),
        "shallow": ({**resnet, "depths": (1, 1, 1, 1)}, None, 1),
        "shallow vit": ({**vit, "num_hidden_layers": 2}, (0, 0, 1, 1), 1),
    }[kind]
    fields = {
        "text_config": {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": num_layers,
            "num_attention_heads": 4,
            "max_position_embeddings": 40,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "vision_config": vision_config,
        "feature_layers": feature_layers,
        "projection_dim": 32,
        "use_language": use_language,
        "context_decoder_hidden_size": 32,
        "context_decoder_num_hidden_layers": num_layers,
        "context_decoder_num_attention_heads": 4,
        # At the published 1e-4 an error of the context decoder would hide below every tolerance.
        "gamma_init_value": 1.0,
        "neck_hidden_size": 16,
        "decode_head_hidden_size": 16,
        "id2label": dict(enumerate(TINY_CLASS_NAMES)),
        "class_token_ids": tokenize_class_names(TINY_CLASS_NAMES, tokenizer) if use_language else None,
    }
    return DenseCLIPConfig(**(fields | overrides))


def tiny_model(kind: str, use_language: bool = True, seed: int = 0, **overrides) -> DenseCLIPForSemanticSegmentation:
    """The same weights for the same seed."""
    torch.manual_seed(seed)
    return DenseCLIPForSemanticSegmentation(tiny_config(kind, use_language, **overrides))


def save_tiny_architecture(folder: Path, kind: str, **overrides) -> str:
    """Write what a training is started from, and return its words: `--config` and `--tokenizer`."""
    fields = tiny_config(kind, **overrides).to_diff_dict()
    # Classes come with the data.
    for name in ("id2label", "label2id", "class_names", "class_token_ids", "transformers_version"):
        fields.pop(name, None)
    (folder / "model.json").write_text(json.dumps(fields))
    make_tiny_tokenizer().save_pretrained(folder / "tokenizer")
    return f"--config {folder}/model.json --tokenizer {folder}/tokenizer"


def save_tiny_dataset(folder: Path, blocks: tuple[int, int] = (4, 6), **counts: int):
    """
    Write a data set into a folder: `counts` pairs of each split, and the names of the classes. Pictures are noise, the
    brighter the higher the id; masks are blocks of 16 x 16 pixels.
    """
    generator = np.random.default_rng(0)
    for split, count in counts.items():
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            mask = np.kron(generator.integers(0, 5, blocks), np.ones((16, 16))).astype(np.uint8)
            image = generator.integers(0, 60, (*mask.shape, 3)).astype(np.uint8) + 40 * mask[..., None]
            Image.fromarray(image).save(folder / "images" / split / f"{index}.png")
            Image.fromarray(mask).save(folder / "annotations" / split / f"{index}.png")
    (folder / "classes.txt").write_text("\n".join(TINY_CLASS_NAMES))


def pack_archives(data_dir: Path, split: str, archives: Path, name: str, sizes: list[int]) -> list[Path]:
    """
    Archives of the pairs of a split of a folder, sorted by name, the next `sizes` of them each: `0.jpg` and `0.png`,
    say, one behind the other.
    """
    archives.mkdir(exist_ok=True)
    images = iter(sorted((data_dir / "images" / split).iterdir()))
    paths = [archives / f"{name}-{index:03d}.tar" for index in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        with tarfile.open(path, "w") as archive:
            for image in islice(images, size):
                archive.add(image, f"{image.stem}.jpg")
                archive.add(data_dir / "annotations" / split / f"{image.stem}.png", f"{image.stem}.png")
    return paths


def save_checkpoint(
    model: DenseCLIPForSemanticSegmentation, image_processor: DenseCLIPImageProcessor, folder: Path, **kwargs
) -> Path:
    """Save a model with all that its user needs; `kwargs` are those of its `save_pretrained`."""
    model.tokenizer = make_tiny_tokenizer() if model.config.use_language else None
    model.save_pretrained(folder, **kwargs)
    image_processor.save_pretrained(folder)
    return folder


def draw_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Discs of random colours on a random ground."""
    generator = np.random.default_rng(seed)
    picture = Image.new("RGB", (width, height), tuple(generator.integers(0, 256, 3).tolist()))
    for _ in range(12):
        x, y, radius = (generator.integers(0, limit).item() for limit in (width, height, max(width, height) // 4))
        color = tuple(generator.integers(0, 256, 3).tolist())
        ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    return picture


@torch.no_grad()
def spread_classes(model: DenseCLIPForSemanticSegmentation, pixel_values: torch.Tensor):
    """
    Make a fresh model give every class to some pixels, where it would give one class to nearly all: settle its
    BatchNorm statistics on `pixel_values`, then bring the logits of every class to mean 0 and variance 1. Returns the
    model, in evaluation mode.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain average of the batches
        norm.reset_running_stats()
    model.train()
    for _ in range(4):
        model(pixel_values)
    for norm in norms:
        norm.momentum = 0.1
    model.eval()
    logits = model(pixel_values).logits
    scale = logits.std(dim=(0, 2, 3))
    classifier = model.decode_head.classifier
    classifier.bias.copy_((classifier.bias - logits.mean(dim=(0, 2, 3))) / scale)
    classifier.weight.div_(scale[:, None, None, None])
    return model


def save_exported_model(folder: Path) -> DenseCLIPForSemanticSegmentation:
    """
    The model that tests of exports and of pages export, so that each of its files is written once, and its image
    processor. It gives every class.
    """
    model = tiny_model("shallow vit", prompting_mode="language", inference_mode="slide")
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 96, "longest_edge": 160})
    pictures = [draw_picture(96, 96, seed=seed) for seed in (1, 2)]
    spread_classes(model, processor(pictures, return_tensors="pt").pixel_values)
    save_checkpoint(model, processor, folder)
    return model


def draw_jpeg(seed: int, size: tuple[int, int] = (128, 96)) -> bytes:
    file = io.BytesIO()
    draw_picture(*size, seed).save(file, "JPEG")
    return file.getvalue()


def write_avi(path: str | Path, frames: list[bytes]) -> None:
    """A video of JPEGs, each of which may be something else."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)

    main_header = struct.pack("<14I", 200_000, 0, 0, 16, len(frames), 0, 1, 0, 128, 96, 0, 0, 0, 0)
    stream = struct.pack("<IHHIIIIIIIIhhhh", 0, 0, 0, 0, 1, 5, 0, len(frames), 0, 0xFFFFFFFF, 0, 0, 0, 128, 96)
    form = struct.pack("<IiiHHI", 40, 128, 96, 1, 24, 0x47504A4D) + struct.pack("<IiiII", 128 * 96 * 3, 0, 0, 0, 0)
    streams = chunk(b"LIST", b"strl" + chunk(b"strh", b"vidsMJPG" + stream) + chunk(b"strf", form))
    head = chunk(b"LIST", b"hdrl" + chunk(b"avih", main_header) + streams)
    movie = chunk(b"LIST", b"movi" + b"".join(chunk(b"00dc", frame) for frame in frames))
    Path(path).write_bytes(chunk(b"RIFF", b"AVI " + head + movie))
