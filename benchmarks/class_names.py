# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
What it costs to read many class names, by the text tower of CLIP's RN50 with random weights.

    OMP_NUM_THREADS=1 python -m benchmarks.class_names            # some minutes on one quiet core
    OMP_NUM_THREADS=1 python -m benchmarks.class_names 150 1000   # these numbers of names

Ours packs prompts into sequences; "padded" is one prompt in each row of a batch, filled up to the longest, as the
published code computes it, on the first 150 prompts: each batch of them costs the same. Both are checked to give the
same. Times are of the processor, so run it with one thread.
"""

import argparse
import random
import statistics
import time

import torch

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", nargs="*", type=int, default=[150, 1000, 5000], metavar="NAMES")
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    args = parser.parse_args()
    print(
        "| What | Sequences | Ours | each | Padded, each | Ratio | Peak memory |\n|---|---|---:|---:|---:|---:|---:|"
    )
    for kind in args.kinds:
        for count in args.counts:
            print(measure(count, kind, args.rounds), flush=True)


if __name__ == "__main__":
    main()
