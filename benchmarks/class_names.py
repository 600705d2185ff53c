# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
What it costs to read many class names, by the text tower of CLIP's RN50 with random weights.

    OMP_NUM_THREADS=1 python -m benchmarks.class_names            # some minutes on one quiet core
    OMP_NUM_THREADS=1 python -m benchmarks.class_names 150 1000   # these numbers of names
    OMP_NUM_THREADS=1 python -m benchmarks.class_names --growth   # all that is done with names, on a tiny model

Ours packs prompts into sequences; "padded" is one prompt in each row of a batch, filled up to the longest, as the
published code computes it, on the first 150 prompts: each batch of them costs the same. Both are checked to give the
same. Times are of the processor, so run it with one thread.

`--growth` measures how time and memory of each thing that is done with class names grow with their number K, as the
exponent e of K ** e between the smallest and the largest number: 1 is linear, and less is where something else counts
besides. Memory is what Python and NumPy hold at most, which leaves PyTorch's tensors out.
"""

import argparse
import itertools
import logging
import math
import random
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from modeling_denseclip import (
    DenseCLIPConfig,
    DenseCLIPForSemanticSegmentation,
    DenseCLIPImageProcessor,
    tokenize_class_names,
)
from modeling_denseclip.modeling_denseclip import compute_score_map
from modeling_denseclip.tools.insight.predictors import ClassPredictor
from modeling_denseclip.tools.pictures.palettes import generate_palette
from tests.tiny import make_tiny_tokenizer, tiny_model

from .speed import END, START, check_equal, memory_of, seconds_of


NUM_PADDED, BATCH_SIZE, VOCABULARY = 150, 50, 49_000
# The numbers of tokens that are drawn from. Most names have one, as in ADE20K.
KINDS = {"names": (1, 1, 1, 1, 1, 2, 2, 3), "sentences": (20,)}


def make_token_ids(count: int, lengths: tuple[int, ...]) -> list[list[int]]:
    """Random words between start and end token."""
    generator = random.Random(0)
    return [
        [START, *(generator.randrange(VOCABULARY) for _ in range(generator.choice(lengths))), END]
        for _ in range(count)
    ]


def make_model(token_ids: list[list[int]]) -> DenseCLIPForSemanticSegmentation:
    """RN50's text tower on an image encoder that is not run."""
    torch.manual_seed(0)
    config = DenseCLIPConfig(
        vision_config={"model_type": "denseclip_resnet", "embedding_size": 8, "depths": (1, 1, 1, 1)},
        prompting_mode="language",
        id2label={index: f"class {index}" for index in range(len(token_ids))},
        class_token_ids=token_ids,
    )
    return DenseCLIPForSemanticSegmentation(config).eval()


def read_padded(model: DenseCLIPForSemanticSegmentation, token_ids: list[list[int]]) -> torch.Tensor:
    """One prompt in each row."""
    text, contexts, embeddings = model.text_encoder, model.prompts(), []
    longest = max(map(len, token_ids))
    length = longest + contexts.shape[1]
    mask = torch.full((1, 1, length, length), torch.finfo(torch.float32).min).triu(1)
    for first in range(0, len(token_ids), BATCH_SIZE):
        batch = token_ids[first : first + BATCH_SIZE]
        tokens = torch.tensor([ids + [END] * (longest - len(ids)) for ids in batch])
        tokens = text.embeddings.token_embedding(tokens)
        states = torch.cat([tokens[:, :1], contexts.expand(len(batch), -1, -1), tokens[:, 1:]], dim=1)
        states = states + text.embeddings.position_embedding(torch.arange(length))
        for layer in text.encoder.layers:
            states = layer(states, mask)
        ends = torch.tensor([len(ids) - 1 + contexts.shape[1] for ids in batch])
        embeddings.append(model.text_projection(text.final_layer_norm(states[torch.arange(len(batch)), ends])))
    return torch.cat(embeddings)


@torch.inference_mode()
def measure(count: int, kind: str, rounds: int) -> str:
    """One line of the table."""
    token_ids = make_token_ids(count, KINDS[kind])
    model, some = make_model(token_ids), token_ids[:NUM_PADDED]
    embeddings, ours, padded = {}, [], []

    def read_ours() -> None:
        embeddings["ours"] = model.encode_class_names()

    def read_plain() -> None:
        embeddings["padded"] = read_padded(model, some)

    read_padded(model, some[:BATCH_SIZE])  # what every first call takes
    peak = memory_of(lambda: ours.append(seconds_of(read_ours, time.process_time))) / 2**20
    for turn in range(rounds):
        if turn > 0:
            ours.append(seconds_of(read_ours, time.process_time))
        padded.append(seconds_of(read_plain, time.process_time))
    check_equal(embeddings["padded"], embeddings["ours"][: len(some)], kind)
    ours, padded = statistics.median(ours), 1000 * statistics.median(padded) / len(some)
    each = 1000 * ours / count
    sequences, length = model.prompts.source_index.shape
    return (
        f"| {count:,} {kind} | {sequences} x {length} | {ours:.1f} s | {each:.1f} ms | {padded:.1f} ms |"
        f" {padded / each:.1f} | {peak:.0f} MiB |"
    )


def things_to_do(count: int, folder: Path) -> dict[str, Callable[[], object]]:
    """What is done with so many class names, a part each."""
    words = ("wall", "sky", "person", "rock", "car", "side", "walk", "light")
    names = [" ".join(some) for some in itertools.islice(itertools.product(words, repeat=5), count)]
    others = [f"{name} part" for name in names]
    tokenizer, image_processor = make_tiny_tokenizer(), DenseCLIPImageProcessor(size={"shortest_edge": 64})
    model = tiny_model("resnet").eval()
    model.set_class_names(names, tokenizer=tokenizer)
    model.save_pretrained(folder)
    pixels, texts = torch.randn(1, 64, 32, 32), torch.randn(1, count, 64)
    photograph = Image.new("RGB", (64, 64))
    totals = np.ones((2, count))
    turns = itertools.cycle((others, names))

    def predict() -> None:
        palette = generate_palette(count)
        predictor = ClassPredictor(model, image_processor, palette)
        predictor.find_classes(predictor.compute(predictor.prepare_scales([photograph]), (64, 64)), (64, 64))
        predictor.list_classes(totals)

    return {
        "tokenize_class_names": lambda: tokenize_class_names(names, tokenizer),
        "set_class_names, all new": lambda: model.set_class_names(next(turns), tokenizer=tokenizer),
        "set_class_names, in another order": lambda: model.set_class_names(
            model.config.class_names[::-1], tokenizer=tokenizer
        ),
        "text tower": lambda: model.encode_class_names(),
        "score map, 32 x 32": lambda: compute_score_map(pixels, texts),
        "save the model": lambda: model.save_pretrained(folder),
        "load the config": lambda: DenseCLIPConfig.from_pretrained(folder),
        "load the model": lambda: DenseCLIPForSemanticSegmentation.from_pretrained(folder),
        "ClassPredictor, 64 x 64": predict,
    }


@torch.no_grad()
def measure_growth(counts: list[int], rounds: int) -> None:
    """Print the table of exponents."""
    logging.getLogger("modeling_denseclip").setLevel(logging.ERROR)  # which reports each change of names
    seconds, peaks = {}, {}
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            for what, work in things_to_do(count, Path(folder)).items():
                tracemalloc.start()
                work()  # the first time, which also takes what only first calls take
                peaks.setdefault(what, []).append(tracemalloc.get_traced_memory()[1] / 2**20)
                tracemalloc.stop()
                times = [seconds_of(work, time.process_time) for _ in range(rounds)]
                seconds.setdefault(what, []).append(statistics.median(times))
    shown = ", ".join(f"{count:,}" for count in counts)
    print(f"| What | ms for K = {shown} | Exponent | MiB for the same | Exponent |\n|---|---|---:|---|---:|")
    for what in seconds:
        cells = []
        for values, scale in ((seconds[what], 1000), (peaks[what], 1)):
            exponent = math.log(values[-1] / values[0]) / math.log(counts[-1] / counts[0])
            cells.append(f"{', '.join(f'{scale * value:.3g}' for value in values)} | {exponent:.2f}")
        print(f"| {what} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", nargs="*", type=int, default=[150, 1000, 5000], metavar="NAMES")
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--growth", action="store_true", help="print exponents instead")
    args = parser.parse_args()
    if args.growth:
        return measure_growth(args.counts, args.rounds)
    print(
        "| What | Sequences | Ours | each | Padded, each | Ratio | Peak memory |\n|---|---|---:|---:|---:|---:|---:|"
    )
    for kind in args.kinds:
        for count in args.counts:
            print(measure(count, kind, args.rounds), flush=True)


if __name__ == "__main__":
    main()
