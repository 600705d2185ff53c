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
"""Class names: what they may be, their tokens, and the change of those of a loaded model."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .initialization_denseclip import initialize_conv
from .loading_denseclip import load_clip_tokenizer
from .weight_files_denseclip import listed


logger = logging.get_logger(__name__)

# In a class name, or in words to look for. The 77 positions of CLIP's text tower hold far fewer.
MAXIMUM_LETTERS = 1000
# Letters that turn or hide their neighbours, so that a name does not read as what it is. Those that only join letters
# or say their direction (U+200C to U+200F) belong to the spelling of some languages.
INVISIBLE = frozenset("\u200b\u2028\u2029\u2060\ufeff") | {
    chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def normalize_class_name(class_name: str) -> str:
    """The words that the text tower reads: `_` is a space, and runs of spaces count once."""
    return " ".join(class_name.replace("_", " ").split())


def check_class_name(class_name: str, called: str) -> str:
    """
    The words of one name, which an error calls `called`; see `normalize_class_name`. All lists of names come here: of
    a model, a config, a file, a data set, and of words to look for.

    Raises:
        ValueError: for no string, no word, more than `MAXIMUM_LETTERS`, or letters that cannot be seen.
    """
    if not isinstance(class_name, str):
        raise ValueError(f"{called} must be a string; got {class_name!r}.")
    if len(class_name) > MAXIMUM_LETTERS:
        raise ValueError(
            f"{called} has {len(class_name):,} letters, {class_name[:20]!r}...; {MAXIMUM_LETTERS:,} are the limit."
        )
    try:
        class_name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{called}, {class_name!r}, holds half a character: {error}.") from error
    for letter in class_name.strip():
        # Line ends and tabs separate words as spaces do.
        if letter in INVISIBLE or (unicodedata.category(letter) == "Cc" and letter not in "\t\r\n"):
            raise ValueError(
                f"{called}, {class_name!r}, holds U+{ord(letter):04X}, which cannot be seen and may change what is"
                " printed. Take it out."
            )
    return normalize_class_name(class_name)


def check_class_names(class_names: Sequence[str]) -> list[str]:
    """
    The words of class names; see `normalize_class_name`.

    Raises:
        ValueError: for what is no list of different, non-empty names.
    """
    # A set has no order, in which ids could stand for its members.
    if isinstance(class_names, str) or not isinstance(class_names, Sequence):
        raise ValueError(f"`class_names` must be a list of names; got {class_names!r}.")
    if not class_names:
        raise ValueError("`class_names` is empty; a segmentation model needs at least one class.")
    words, first_index = [], {}
    for index, class_name in enumerate(class_names):
        word = check_class_name(class_name, f"The name of class {index}")
        if not word:
            raise ValueError(f"Class {index} has an empty name ({class_name!r}); give it a word to look for.")
        words.append(word)
        first = first_index.setdefault(word.lower(), index)
        if first != index:
            raise ValueError(
                f"Classes {first} and {index} are both called {word!r}; nothing could tell them apart. Give them"
                " different names."
            )
    return words


def tokenize_class_names(
    class_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> tuple[tuple[int, ...], ...]:
    """
    Token ids of each class name, start and end token included and without padding.

    Args:
        class_names (`Sequence[str]`): Names as a user writes them; "traffic light" and "traffic_light" are the same.
        tokenizer (`PreTrainedTokenizerBase`): CLIP's tokenizer.

    Returns:
        One tuple of ids per name, [start, name..., end].

    Raises:
        ValueError: for what is no list of names; an empty or a repeated name, or two that the tokenizer reads alike;
            or a tokenizer that frames names otherwise.
    """
    token_ids = tuple(map(tuple, tokenizer(check_class_names(class_names)).input_ids))
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    first_index = {}
    for index, (class_name, ids) in enumerate(zip(class_names, token_ids, strict=True)):
        if len(ids) < 3 or ids[0] != bos or ids[-1] != eos:
            raise ValueError(
                f"The tokenizer turns {class_name!r} into {list(ids)}; CLIP's gives [{bos}, name..., {eos}]. Pass"
                " CLIP's tokenizer, e.g. that of 'openai/clip-vit-base-patch16'."
            )
        first = first_index.setdefault(ids, index)
        if first != index:  # such as one letter with an accent, and a letter and an accent
            raise ValueError(
                f"Classes {first} and {index}, {class_names[first]!r} and {class_name!r}, are the same tokens"
                f" {list(ids)}; the text tower could not tell them apart. Give them different names."
            )
    return token_ids


def check_vocabulary(token_ids: Sequence[Sequence[int]], vocab_size: int):
    """
    Raises:
        ValueError: for a token that the text tower does not have.
    """
    largest = max(max(ids) for ids in token_ids)
    if largest >= vocab_size:
        raise ValueError(
            f"The tokenizer has a token {largest}, the text tower only {vocab_size}. Pass the tokenizer that the"
            " weights were trained with."
        )


@dataclass
class ClassNameReport:
    """
    What a change of class names did to the weights that belong to a class: its row of the classifier and its channel
    of the score map in the neck or head.

    Args:
        kept (`tuple[str, ...]`): Classes whose weights were carried over, by name.
        new (`tuple[str, ...]`): Classes whose weights are freshly initialised.
        dropped (`tuple[str, ...]`): Former classes that are gone.
    """

    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        kept, new, dropped = (
            listed([*map(repr, names)], 10) or "none" for names in (self.kept, self.new, self.dropped)
        )
        parts = [f"head weights kept for {kept}", f"newly initialised for {new}"]
        if self.dropped:
            parts.append(f"dropped for {dropped}")
        advice = " Fine-tune the model before you use it." if self.new else ""
        return f"{len(self.kept) + len(self.new)} class names set: {'; '.join(parts)}.{advice}"


def check_weights_are_loaded(model: nn.Module):
    """
    Raises:
        ValueError: for a model whose weights are to be edited, but are offloaded.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(
            "This model was loaded with weights offloaded to disk or memory (`device_map`), which can be run but not"
            " edited. Load it without `device_map`, set class names or fuse it then; to offload a model with new class"
            " names, save it and load that."
        )


def class_names_of(id2label: dict) -> tuple[str, ...]:
    """The names of `id2label` in the order of their ids, which must be 0 to K - 1; see `check_class_name`."""
    try:
        id2label = {int(index): name for index, name in id2label.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"`id2label` must be a dictionary from ids to names; got {id2label!r}.") from error
    if sorted(id2label) != list(range(len(id2label))):
        raise ValueError(
            f"The ids of `id2label` must be 0 to {len(id2label) - 1} without a gap; got {sorted(id2label)}."
        )
    for index, name in id2label.items():
        check_class_name(name, f"The name of class {index}")
    return tuple(id2label[index] for index in range(len(id2label)))


class DenseCLIPClassNamesMixin:
    """
    Keeps class names, token ids, tokenizer and head of a [`DenseCLIPForSemanticSegmentation`] together.

    Attributes:
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            CLIP's tokenizer, which `save_pretrained` writes beside the weights. A loaded model fetches it from its
            checkpoint only when names change or it is saved; set it on a model that is built from a config.
    """

    tokenizer: PreTrainedTokenizerBase | None = None
    # Where a loaded model finds it: name or path, and the arguments of the Hub that it was loaded with.
    _tokenizer_source: tuple[str, dict] | None = None

    def set_class_names(
        self, class_names: Sequence[str], tokenizer: PreTrainedTokenizerBase | None = None
    ) -> ClassNameReport:
        """
        Give the model other classes: tokenises the names and rebuilds the head, in which the weights of every class
        that keeps its name are carried over, wherever it now stands. On an error the model stays as it was.

        Args:
            class_names (`Sequence[str]`):
                New names, in the order of their label ids. `_` reads as a space.
            tokenizer (`PreTrainedTokenizerBase`, *optional*):
                CLIP's tokenizer. Defaults to the one saved beside the checkpoint.

        Returns:
            [`ClassNameReport`]: classes whose weights were kept, are new, or are gone. It is logged as well.

        Raises:
            ValueError: for an empty, repeated or too long name, or where no tokenizer is found, or another than the
                model's.
        """
        check_weights_are_loaded(self)
        config = self.config
        self._adopt_labels()
        check_class_names(class_names)
        names = tuple(class_names)
        kept_rows = self._rows_of(names)
        prompt_names = None
        if config.use_language:
            if config.prompt_names is not None:
                # A class that keeps its weights keeps the words that they were trained with.
                prompt_names = tuple(
                    name if row is None else config.prompt_names[row]
                    for name, row in zip(names, kept_rows, strict=True)
                )
            class_token_ids, tokenizer = self._tokenize(prompt_names or names, tokenizer)
            self.prompts.pack(names, class_token_ids)
            self.tokenizer = tokenizer
            config.class_token_ids = class_token_ids

        self._rebuild_head(kept_rows)
        kept = {*kept_rows}
        report = ClassNameReport(
            kept=tuple(name for name, row in zip(names, kept_rows, strict=True) if row is not None),
            new=tuple(name for name, row in zip(names, kept_rows, strict=True) if row is None),
            dropped=tuple(name for row, name in enumerate(config.class_names) if row not in kept),
        )
        if kept_rows != list(range(len(config.class_names))):
            config.palette = None  # one colour per former class
        config.class_names = names
        config.prompt_names = None if prompt_names == names else prompt_names
        config.id2label = dict(enumerate(names))
        config.label2id = {name: index for index, name in enumerate(names)}
        self.num_labels = len(names)
        if self.is_fused:
            self.keep_text_embeddings()
        # Something that the user has to know, unless every class keeps its weights.
        (logger.warning if report.new or report.dropped else logger.info)(str(report))
        return report

    def _adopt_labels(self):
        """
        Make an edit of `config.id2label` the names of the classes; see [`DenseCLIPConfig`].

        Raises:
            ValueError: for an edit that adds or removes classes.
        """
        names = class_names_of(self.config.id2label)
        if len(names) != self.num_labels:
            raise ValueError(
                f"`config.id2label` has {len(names)} names, the model {self.num_labels} classes. Edited, it gives the"
                " classes other names; to add or remove classes undo the edit and call `set_class_names`, which"
                " changes the head along."
            )
        check_class_names(names)
        self.config.adopt_labels()

    def _rows_of(self, names: Sequence[str]) -> list[int | None]:
        """The class that each name stands for: by what it is called, or else by what the text tower reads of it."""
        keys = [normalize_class_name(name).lower() for name in names]
        called, read = (
            {normalize_class_name(name).lower(): index for index, name in enumerate(own or ())}
            for own in (self.config.class_names, self.config.prompt_names)
        )
        rows = [called.get(key) for key in keys]
        taken = {*rows}
        return [
            read.get(key) if row is None and read.get(key) not in taken else row
            for key, row in zip(keys, rows, strict=True)
        ]

    @torch.no_grad()
    def _rebuild_head(self, kept_rows: list[int | None]):
        """Classifiers and score-map channels for new classes; entry k of `kept_rows` is the former class to copy."""
        config = self.config
        # CODEPATH: UperNet rows of Table 5 train a second head
        heads = [self.decode_head, self.auxiliary_head] if config.use_auxiliary_head else [self.decode_head]
        for head in heads:
            classifier = head.classifier
            classifier.out_channels = len(kept_rows)
            old = dict(classifier.named_parameters())
            fresh = {name: values.new_empty(len(kept_rows), *values.shape[1:]) for name, values in old.items()}
            head.initialize_classifier(**fresh)
            for name, values in old.items():
                setattr(classifier, name, _with_rows(values, fresh[name], kept_rows, dim=0))
        if not config.use_language:
            return
        # Of each convolution that reads the score map: channels of the image first, then one per class, then others.
        level = self.score_map_level
        num_features = self.image_encoder.feature_sizes[level]
        for conv in (*self.neck.convs_reading(level), *self.decode_head.convs_reading(level)):
            num_others = conv.in_channels - num_features - len(config.class_names)
            features, scores, others = conv.weight.split([num_features, len(config.class_names), num_others], dim=1)
            conv.in_channels = num_features + len(kept_rows) + num_others
            fresh = conv.weight.new_empty(conv.out_channels, conv.in_channels, *conv.kernel_size)
            initialize_conv(fresh)
            fresh = fresh[:, num_features : num_features + len(kept_rows)]
            scores = _with_rows(scores, fresh, kept_rows, dim=1)
            conv.weight = nn.Parameter(
                torch.cat([features, scores, others], dim=1), requires_grad=conv.weight.requires_grad
            )

    def _tokenize(
        self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase | None
    ) -> tuple[tuple[tuple[int, ...], ...], PreTrainedTokenizerBase]:
        """
        Token ids of texts, and the tokenizer; by default the model's own.

        Raises:
            ValueError: for texts that the text tower does not know, or a tokenizer that reads the model's own class
                names otherwise than the one that it was made with, whose tokens stand in the config.
        """
        config = self.config
        tokenizer = self._load_tokenizer() if tokenizer is None else tokenizer
        token_ids = tokenize_class_names(texts, tokenizer)
        check_vocabulary(token_ids, config.text_config.vocab_size)
        if config.class_token_ids is not None:
            words = [normalize_class_name(name) for name in config.prompt_names or config.class_names]
            for word, ids, own in zip(words, tokenizer(words).input_ids, config.class_token_ids, strict=True):
                if tuple(ids) != own:
                    raise ValueError(
                        f"The tokenizer turns {word!r} into {ids}, that of this model into {list(own)}: its vocabulary"
                        " is another one. Pass the tokenizer that the weights were trained with."
                    )
        return token_ids, tokenizer

    def _load_tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            if self._tokenizer_source is None:
                raise ValueError(
                    "This model was not loaded from a checkpoint, so it has no tokenizer to read new class names with."
                    " Pass CLIP's: `tokenizer=CLIPTokenizer.from_pretrained('openai/clip-vit-base-patch16')`."
                )
            source, hub_kwargs = self._tokenizer_source
            self.tokenizer = load_clip_tokenizer(source, **hub_kwargs)
        return self.tokenizer


def _with_rows(old: torch.Tensor, fresh: torch.Tensor, kept_rows: list[int | None], dim: int) -> nn.Parameter:
    """`fresh` with the slices of `old` that `kept_rows` names, as a parameter like `old`."""
    for row, old_row in enumerate(kept_rows):
        if old_row is not None:
            fresh.select(dim, row).copy_(old.select(dim, old_row))
    return nn.Parameter(fresh, requires_grad=old.requires_grad)


__all__ = ["ClassNameReport", "DenseCLIPClassNamesMixin", "tokenize_class_names"]
