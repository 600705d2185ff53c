# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""A tokenizer of CLIP's kind that knows a few class names, for models that are trained from nothing."""

from collections import Counter
from collections.abc import Sequence

from transformers import CLIPTokenizer


def build_tokenizer(class_names: Sequence[str]) -> CLIPTokenizer:
    """
    Learn a byte-pair vocabulary from the class names alone, in which every word becomes one token.

    Its form is that of CLIP's: letters, letters that end a word, merges, and the two special tokens last.
    """
    letters = sorted({letter for name in class_names for letter in name if letter != " "})
    words = [[*word[:-1], f"{word[-1]}</w>"] for name in class_names for word in name.split()]
    merges = []
    while pairs := Counter(pair for word in words for pair in zip(word, word[1:], strict=False)):
        best = max(sorted(pairs), key=pairs.get)
        merges.append(best)
        words = [_merge(word, best) for word in words]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    vocabulary = {token: index for index, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocabulary, merges)


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged
