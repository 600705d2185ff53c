# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Time and memory of a picture, beside other segmenters of Transformers.

    python -m benchmarks.peers                        # everything, ten minutes on two cores
    python -m benchmarks.peers segformer rn50         # some models

All get the same picture of 512 x 512, prepared, and give the class of each of its pixels, one of 150: the peers by
bilinear resizing of their logits and arg max, as their image processors do it. Weights are random, in the published
sizes. They take turns in one process; the first one changes from round to round, and times are medians. For its peak
memory each runs in a process of its own, which has called the model once on a small picture before: what comes on top
of libraries, weights and buffers counts.

bfloat16 is measured where the processor multiplies in it; elsewhere it takes many times as long. int8 is what
`training.export --int8 static` writes, in onnxruntime, with the class ids of `training/run_onnx.py`.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPSegConfig, SegformerConfig, SwinConfig, UperNetConfig
from transformers.initialization import no_init_weights
from transformers.models.clipseg.modeling_clipseg import CLIPSegForImageSegmentation
from transformers.models.segformer.modeling_segformer import SegformerForSemanticSegmentation
from transformers.models.upernet.modeling_upernet import UperNetForSemanticSegmentation

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.files.devices import multiplies_bfloat16, prepare_for_inference
from modeling_denseclip.tools.insight.complexity import measure
from training.export import main as export
from training.run_onnx import best_classes

from .class_names import KINDS, make_token_ids
from .speed import make_config, memory_of, multiply_adds


SIDE, NUM_LABELS = 512, 150
CPU = torch.device("cpu")
# What takes a picture of shape (1, 3, height, width) and returns class ids of shape (1, height, width).
Segmenter = Callable[[torch.Tensor], torch.Tensor]


def build_segformer() -> nn.Module:
    """Source: "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", table 6."""
    sizes = {"depths": (3, 4, 6, 3), "hidden_sizes": (64, 128, 320, 512), "decoder_hidden_size": 768}
    return SegformerForSemanticSegmentation(SegformerConfig(**sizes, num_labels=NUM_LABELS))


def build_upernet() -> nn.Module:
    """Source: "Swin Transformer", section 3.3; mmseg's head of 512 channels. Without the head that only trains."""
    stages = [f"stage{index}" for index in range(1, 5)]
    backbone = SwinConfig(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), out_features=stages)
    config = UperNetConfig(backbone_config=backbone, hidden_size=512, use_auxiliary_head=False, num_labels=NUM_LABELS)
    return UperNetForSemanticSegmentation(config)


class CLIPSegOfWords(CLIPSegForImageSegmentation):
    """
    CLIPSeg with a mask for each of some words. A call on an image and a word passes the image through CLIP; here it
    passes once for all words, and words are read once for all images, so that a call is the decoder alone.

    Source: "Image Segmentation Using Text and Image Prompts", the decoder of 64 channels ("rd64").
    """

    WORDS_AT_A_TIME = 2  # of one word the maps of attention are 17 MB in each layer

    def __init__(self, config: CLIPSegConfig | None = None):
        # Patches of 16 pixels, where Transformers' default is 32; all else is its default.
        super().__init__(config or CLIPSegConfig(vision_config={"patch_size": 16}))
        self.register_buffer("words", torch.empty(NUM_LABELS, self.config.projection_dim))

    def read_words(self, token_ids: torch.Tensor) -> None:
        """Keep the embeddings of words, `(number of words, length)`; rows are filled up by end tokens."""
        self.words = self.clip.get_text_features(token_ids).pooler_output

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        states = self.clip.get_image_features(
            pixel_values, interpolate_pos_encoding=True, output_hidden_states=True
        ).hidden_states
        levels = [states[index + 1] for index in self.extract_layers]
        parts = [
            self.decoder([level.expand(len(words), -1, -1) for level in levels], words).logits
            for words in self.words.split(self.WORDS_AT_A_TIME)
        ]
        return torch.cat(parts)[None]


def load_peer(build: Callable[[], nn.Module], dtype: str) -> Segmenter:
    model = build().eval()
    if isinstance(model, CLIPSegOfWords):
        rows = make_token_ids(NUM_LABELS, KINDS["names"])
        longest = max(map(len, rows))
        model.read_words(torch.tensor([row + row[-1:] * (longest - len(row)) for row in rows]))
    model.to(getattr(torch, dtype))

    def segment(pixel_values: torch.Tensor) -> torch.Tensor:
        return enlarge_and_choose(model(pixel_values.to(model.dtype)), pixel_values)

    return segment


def enlarge_and_choose(outputs: object, pixel_values: torch.Tensor) -> torch.Tensor:
    """Class ids, as the image processors of the peers make them of logits."""
    logits = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
    if logits.shape[-2:] != pixel_values.shape[-2:]:
        logits = F.interpolate(logits, size=pixel_values.shape[-2:], mode="bilinear", align_corners=False)
    return logits.argmax(dim=1)


def load_ours(stem: str, dtype: str) -> Segmenter:
    model = prepare_for_inference(DenseCLIPForSemanticSegmentation(make_config(stem)).eval(), CPU, dtype)
    return lambda pixel_values: model.segment_classes(pixel_values.to(model.dtype), inference_mode="whole")


def load_int8(file: Path) -> Segmenter:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def segment(pixel_values: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run(None, {"pixel_values": pixel_values.numpy()})[0]
        return torch.from_numpy(best_classes(logits, *pixel_values.shape[-2:]))[None]

    return segment


def write_int8(stem: str, folder: Path) -> None:
    """Export a model of random weights, calibrated on noise."""
    generator = np.random.default_rng(0)
    DenseCLIPForSemanticSegmentation(make_config(stem)).eval().save_pretrained(folder / stem)
    DenseCLIPImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder / stem)
    pictures = [folder / stem / f"{index}.png" for index in range(2)]
    for picture in pictures:
        noise = generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).save(picture)
    words = [folder / stem, folder / f"{stem}.onnx", "--inference_mode", "whole", "--int8", "static"]
    with redirect_stdout(StringIO()):
        export([str(word) for word in (*words, "--calibration_images", *pictures)])


@dataclass(frozen=True)
class Contestant:
    """
    A model of the table.

    Args:
        name: In words.
        miou: Of ADE20K's validation set, single scale, in per cent, as published.
        build: Of a peer: makes the model.
        stem: Of ours: the file in `configuration/models/`.
    """

    name: str
    miou: str
    build: Callable[[], nn.Module] | None = None
    stem: str | None = None

    def load(self, dtype: str, folder: Path) -> Segmenter:
        if self.build is not None:
            return load_peer(self.build, dtype)
        return load_int8(folder / f"{self.stem}.onnx") if dtype == "int8" else load_ours(self.stem, dtype)

    def measure_size(self) -> tuple[float, float]:
        """Millions of parameters, and billions of multiply-adds in products and convolutions, without text towers."""
        if self.stem is not None:
            config = make_config(self.stem)
            return measure(config, (SIDE, SIDE)).parameters / 1e6, multiply_adds(config, (SIDE, SIDE)) / 1e9
        with torch.device("meta"), no_init_weights():
            model, pixel_values = self.build().eval(), torch.empty(1, 3, SIDE, SIDE)
        parameters = sum(value.numel() for name, value in model.named_parameters() if not name.startswith("clip.text"))
        with FlopCounterMode(display=False) as counter:
            model(pixel_values)
        return parameters / 1e6, counter.get_total_flops() / 2e9


# mIoU of SegFormer: its paper, table 1. Of all others: the paper of DenseCLIP, tables 1 and 5; ViT-B/16 with windows
# of 640 x 640. For CLIPSeg none on ADE20K is known here.
CONTESTANTS = {
    "segformer": Contestant("SegFormer-B2", "46.5", build=build_segformer),
    "upernet": Contestant("Swin-T, UperNet", "44.5", build=build_upernet),
    "clipseg": Contestant("CLIPSeg, 150 words", "-", build=CLIPSegOfWords),
    "rn50": Contestant("DenseCLIP, RN50", "43.5", stem="denseclip_fpn_rn50"),
    "vit": Contestant("DenseCLIP, ViT-B/16", "50.6", stem="denseclip_fpn_vit_b16"),
}


@torch.no_grad()
def peak_of(key: str, dtype: str, folder: Path, num_threads: int) -> int:
    """In a process of its own: bytes of resident memory that a picture takes."""
    torch.set_num_threads(num_threads)
    segment = CONTESTANTS[key].load(dtype, folder)
    segment(torch.randn(1, 3, 128, 128))
    return memory_of(lambda: segment(torch.randn(1, 3, SIDE, SIDE)))


def check(class_ids: torch.Tensor, name: str) -> None:
    if class_ids.shape != (1, SIDE, SIDE) or not 0 <= class_ids.min() <= class_ids.max() < NUM_LABELS:
        raise SystemExit(f"{name} gave no class ids of {SIDE} x {SIDE}; nothing is timed.")


def check_ours(stem: str, pixel_values: torch.Tensor) -> None:
    """Ours enlarges as few logits as needed. Its class ids against those that the peers' way makes of its logits."""
    model = DenseCLIPForSemanticSegmentation(make_config(stem)).eval().fuse()
    expected = enlarge_and_choose(model(pixel_values, inference_mode="whole"), pixel_values)
    agreement = (model.segment_classes(pixel_values, inference_mode="whole") == expected).float().mean().item()
    if agreement < 0.9999:
        raise SystemExit(f"{stem}: only {agreement:.3%} of the pixels are the same; nothing is timed.")


def take_turns(segmenters: dict, pixel_values: torch.Tensor, rounds: int) -> dict[tuple, list[tuple[float, float]]]:
    """Of each segmenter and round the seconds that pass and those of the processor."""
    seconds = {key: [] for key in segmenters}
    keys = list(segmenters)
    for turn in range(rounds):
        for key in keys[turn % len(keys) :] + keys[: turn % len(keys)]:
            passed, processor = time.perf_counter(), time.process_time()
            segmenters[key](pixel_values)
            seconds[key].append((time.perf_counter() - passed, time.process_time() - processor))
            print(f"{' '.join(key)}: {seconds[key][-1]} s", file=sys.stderr)
    return seconds


@torch.no_grad()
def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(CONTESTANTS)}; all by default")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16", "int8"))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    args = parser.parse_args(words)
    unknown = set(args.models) - CONTESTANTS.keys()
    if unknown:
        parser.error(f"no model is called {', '.join(sorted(unknown))}; there are {', '.join(CONTESTANTS)}")
    torch.manual_seed(0)
    dtypes = args.dtypes or ["float32", *(["bfloat16"] if multiplies_bfloat16(CPU) else []), "int8"]
    if "bfloat16" not in dtypes:
        print("bfloat16 is left out.", file=sys.stderr)
    keys = [
        (key, dtype)
        for key in args.models or CONTESTANTS
        for dtype in dtypes
        if dtype != "int8" or CONTESTANTS[key].stem is not None
    ]
    pixel_values, threads = torch.randn(1, 3, SIDE, SIDE), torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key, dtype in keys:
            if dtype == "int8":
                write_int8(CONTESTANTS[key].stem, folder)
        peaks = {}
        for key in keys:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                peaks[key] = pool.apply(peak_of, (*key, folder, threads)) / 2**20
            print(f"{' '.join(key)}: {peaks[key]:.0f} MiB", file=sys.stderr)
        for stem in sorted({CONTESTANTS[key].stem for key, _ in keys} - {None}):
            check_ours(stem, pixel_values)
        segmenters = {key: CONTESTANTS[key[0]].load(key[1], folder) for key in keys}
        for (key, _), segment in segmenters.items():
            check(segment(pixel_values), CONTESTANTS[key].name)
        seconds = take_turns(segmenters, pixel_values, args.rounds)

    print(f"{threads} threads, a picture of {SIDE} x {SIDE}, {NUM_LABELS} classes\n")
    print(
        "| Model | Type | Time, ms | Processor time, ms | Peak memory, MiB | Parameters, M | Multiply-adds, G | mIoU |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    sizes = {key: CONTESTANTS[key].measure_size() for key in dict(keys)}
    for key, dtype in keys:
        times = (1000 * statistics.median(values) for values in zip(*seconds[key, dtype], strict=True))
        cells = [f"{value:,.0f}" for value in (*times, peaks[key, dtype])] + [f"{size:.1f}" for size in sizes[key]]
        contestant = CONTESTANTS[key]
        print(f"| {contestant.name} | {dtype} | {' | '.join(cells)} | {contestant.miou} |")


if __name__ == "__main__":
    main()
