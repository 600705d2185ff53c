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
"""From class names to packed prompts, and the change of class names of a loaded model."""

import copy
import math
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import CLIPTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging
from transformers.utils.hub import cached_file

from .loading_denseclip import HubError, ask_hub, check_weight_files, naming_checkpoint
from .modeling_denseclip_heads import initialize_conv


logger = logging.get_logger(__name__)

# About how many positions the text tower reads as one sequence. So many that the prefix, which each sequence repeats,
# counts little; so few that attention does. See "Many class names" in benchmarks/README.md.
POSITIONS_PER_SEQUENCE = 512

# Of a name, or of words to look for: many times what the 77 positions of CLIP's text tower hold.
MAXIMUM_LETTERS = 1000
# Letters that turn or hide their neighbours, so that a name does not read as what it is. Those that only join letters
# or say their direction (U+200C to U+200F) belong to the spelling of some languages.
INVISIBLE = frozenset("\u200b\u2028\u2029\u2060\ufeff") | {
    chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
}

HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")

# By which of Transformers' Auto classes a checkpoint is found.
AUTO_CLASSES = ("AutoModel", "AutoModelForSemanticSegmentation")


def normalize_class_name(class_name: str) -> str:
    """The words that the text tower reads: `_` is a space, and runs of spaces count once."""
    return " ".join(class_name.replace("_", " ").split())


def check_class_name(class_name: str, called: str) -> str:
    """
    The words of one name; see `normalize_class_name`. All lists of names come here: of a model, a config, a file, a
    data set, and of words to look for.

    Args:
        class_name (`str`): the name.
        called (`str`): what an error calls it.

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


def find_file(name_or_path: str | os.PathLike, filename: str, **hub_kwargs) -> str | None:
    """
    Path of a file of a directory or Hub repository, or `None` where that has no such file or cannot be reached.

    Raises:
        OSError: for what is neither, and where the Hub answers with another error than that there is no such file.
    """
    path = cached_file(
        name_or_path,
        filename,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **hub_kwargs,
    )
    if path is None and isinstance(error := ask_hub(name_or_path, filename, **hub_kwargs), HubError):
        raise error
    return path


def load_clip_tokenizer(name_or_path: str | os.PathLike, **hub_kwargs) -> PreTrainedTokenizerBase:
    """
    CLIP's tokenizer from a directory or Hub repository.

    Raises:
        ValueError: where there is none (Transformers would make an empty one, which reads every word alike), or it
            cannot be read.
        OSError: where the Hub answers with an error.
    """
    try:
        found = find_file(name_or_path, "tokenizer.json", **hub_kwargs) or find_file(
            name_or_path, "vocab.json", **hub_kwargs
        )
    except HubError:
        raise
    except OSError:  # neither a directory nor the id of a repository
        found = None
    if found is None:
        raise ValueError(
            f"No CLIP tokenizer (tokenizer.json or vocab.json) was found in {str(name_or_path)!r}. Pass `tokenizer`"
            " (`--tokenizer` on the command line): a directory or Hub repository that holds it, such as"
            " 'openai/clip-vit-base-patch16'."
        )
    # Not AutoTokenizer: it reads the model's config, and asks whether to run the model's code for that.
    try:
        return CLIPTokenizer.from_pretrained(name_or_path, **hub_kwargs)
    except Exception as error:  # its readers raise anything, and none of them names the file
        raise ValueError(
            f"The CLIP tokenizer in {str(name_or_path)!r} cannot be read: {found} is cut off or of another kind"
            f" ({type(error).__name__}: {error}). Save or download it again."
        ) from error


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
class PackedPrompts:
    """
    All class prompts in S sequences of T positions: in each the prefix that all prompts share, then the rest of some.

    Under a causal mask no position sees what follows it, so the states of a shared prefix are equal in all prompts and
    need to be computed once: 343 positions instead of 150 x 13 for ADE20K. Many prompts take several sequences, since
    attention takes time and memory with the square of T. Sequences that end before the longest one are padded.
    """

    token_ids: list[int]  # (M,) tokens to embed, each once
    source_index: list[list[int]]  # (S, T) into [contexts, embedded tokens]
    position_ids: list[list[int]]  # (S, T) position within its own prompt
    class_index: list[list[int]]  # (S, T) class that a position belongs to, -1 for the shared prefix, -2 for padding
    end_index: list[list[int]]  # (S, P) where in its sequence each prompt's end token stands, and zeros
    prompt_index: list[int]  # (K,) which of the S x P ends is each prompt's


def pack_prompts(
    class_names: Sequence[str],
    class_token_ids: Sequence[Sequence[int]],
    num_context_tokens: int,
    context_position: str,
    max_positions: int,
) -> PackedPrompts:
    """
    Lay out all class prompts in sequences of equal length.

    Raises:
        ValueError: for a prompt with more than `max_positions` positions; names the class.
    """
    for class_name, ids in zip(class_names, class_token_ids, strict=True):
        if len(ids) + num_context_tokens > max_positions:
            raise ValueError(
                f"The prompt of class {class_name!r} takes {len(ids) + num_context_tokens} positions ({len(ids)}"
                f" tokens of its name and {num_context_tokens} learned contexts); the text tower has {max_positions}."
                " Shorten the name."
            )
    contexts = list(range(num_context_tokens))
    # Among [contexts, embedded tokens]
    tokens = dict.fromkeys(token for ids in class_token_ids for token in ids)
    index_of_token = {token: num_context_tokens + index for index, token in enumerate(tokens)}
    is_before = context_position == "before_name"
    start = index_of_token[class_token_ids[0][0]]
    prefix = [start, *contexts] if is_before else [start]
    suffixes = [[index_of_token[token] for token in ids[1:]] for ids in class_token_ids]
    if not is_before:
        suffixes = [[*suffix[:-1], *contexts, suffix[-1]] for suffix in suffixes]

    total = sum(map(len, suffixes))
    # As many sequences as are needed, each as full as the others.
    full = len(prefix) + math.ceil(total / math.ceil(total / POSITIONS_PER_SEQUENCE))
    packed = PackedPrompts(list(index_of_token), [], [], [], [], [])
    places = []
    for index, suffix in enumerate(suffixes):
        if not packed.source_index or len(packed.source_index[-1]) >= full:
            packed.source_index.append(list(prefix))
            packed.position_ids.append(list(range(len(prefix))))
            packed.class_index.append([-1] * len(prefix))
            packed.end_index.append([])
        packed.source_index[-1].extend(suffix)
        packed.position_ids[-1].extend(range(len(prefix), len(prefix) + len(suffix)))
        packed.class_index[-1].extend([index] * len(suffix))
        places.append((len(packed.source_index) - 1, len(packed.end_index[-1])))
        packed.end_index[-1].append(len(packed.source_index[-1]) - 1)
    for rows, padding in (
        (packed.source_index, start),
        (packed.position_ids, 0),
        (packed.class_index, -2),
        (packed.end_index, 0),
    ):
        longest = max(map(len, rows))
        for row in rows:
            row.extend([padding] * (longest - len(row)))
    packed.prompt_index = [sequence * len(packed.end_index[0]) + place for sequence, place in places]
    return packed


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
        parts = [f"head weights kept for {_listed(self.kept)}", f"newly initialised for {_listed(self.new)}"]
        if self.dropped:
            parts.append(f"dropped for {_listed(self.dropped)}")
        advice = " Fine-tune the model before you use it." if self.new else ""
        return f"{len(self.kept) + len(self.new)} class names set: {'; '.join(parts)}.{advice}"


def _listed(names: Sequence[str], most: int = 10) -> str:
    if not names:
        return "none"
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


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
        report = ClassNameReport(
            kept=tuple(name for name, row in zip(names, kept_rows, strict=True) if row is not None),
            new=tuple(name for name, row in zip(names, kept_rows, strict=True) if row is None),
            dropped=tuple(name for row, name in enumerate(config.class_names) if row not in kept_rows),
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
        return [
            read.get(key) if row is None and read.get(key) not in rows else row
            for key, row in zip(keys, rows, strict=True)
        ]

    @torch.no_grad()
    def _rebuild_head(self, kept_rows: list[int | None]):
        """Classifiers and score-map channels for new classes; entry k of `kept_rows` is the former class to copy."""
        config = self.config
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
        reader = self.decode_head if config.decode_head_type == "upernet" else self.neck
        num_features = self.image_encoder.feature_sizes[self.score_map_level]
        for conv in reader.convs_reading(self.score_map_level):
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
        """Token ids of texts, which the text tower must know, and the tokenizer; by default the model's own."""
        tokenizer = self._load_tokenizer() if tokenizer is None else tokenizer
        token_ids = tokenize_class_names(texts, tokenizer)
        check_vocabulary(token_ids, self.config.text_config.vocab_size)
        self._check_tokenizer(tokenizer)
        return token_ids, tokenizer

    def _check_tokenizer(self, tokenizer: PreTrainedTokenizerBase):
        """
        Raises:
            ValueError: for a tokenizer that reads the model's own class names otherwise than the one that it was made
                with, whose tokens stand in the config.
        """
        if self.config.class_token_ids is None:
            return
        words = [normalize_class_name(name) for name in self.config.prompt_names or self.config.class_names]
        for word, ids, own in zip(words, tokenizer(words).input_ids, self.config.class_token_ids, strict=True):
            if tuple(ids) != own:
                raise ValueError(
                    f"The tokenizer turns {word!r} into {ids}, that of this model into {list(own)}: its vocabulary is"
                    " another one. Pass the tokenizer that the weights were trained with."
                )

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

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """
        As [`PreTrainedModel.from_pretrained`]. With other class names (`id2label`, `num_labels`, or a `config` that
        was made with them) the checkpoint is loaded with its own names first, those in its `config.json`, and then
        given the others by `set_class_names`.
        """
        hub_kwargs = {name: kwargs[name] for name in HUB_KWARGS if name in kwargs}
        requested = kwargs.pop("id2label", None)
        num_labels = kwargs.pop("num_labels", None)
        kwargs.pop("label2id", None)  # follows from id2label
        if config is None or isinstance(config, (str, os.PathLike)):
            source = pretrained_model_name_or_path if config is None else config
            stored = cls.config_class.from_dict(cls.config_class.get_config_dict(source, **hub_kwargs)[0])
        else:
            stored = config = copy.deepcopy(config)  # the caller's object is left as it is
        names = class_names_of(stored.id2label)
        weight_names = stored.class_names or names
        if config is not None and pretrained_model_name_or_path is not None:
            # What the weights stand for is said beside them: another config, once saved, calls its names its own.
            own = cls._config_beside(pretrained_model_name_or_path, **hub_kwargs)
            if own is not None and own.class_names not in (None, weight_names):
                config, weight_names = stored, own.class_names
                for name in ("class_names", "prompt_names", "class_token_ids"):
                    setattr(config, name, getattr(own, name))
        if requested is not None:
            names = class_names_of(requested)
        elif num_labels is not None and num_labels != len(weight_names):
            names = tuple(f"LABEL_{index}" for index in range(num_labels))

        if names != weight_names:
            own_labels = {
                "id2label": dict(enumerate(weight_names)),
                "label2id": {name: index for index, name in enumerate(weight_names)},
            }
            if stored is config:
                config.update(own_labels)
            else:
                kwargs.update(own_labels)
        try:
            with naming_checkpoint(pretrained_model_name_or_path):
                loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        except OSError as error:
            if pretrained_model_name_or_path is None:
                raise
            raise ask_hub(pretrained_model_name_or_path, "model.safetensors", **hub_kwargs) or error from error
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if pretrained_model_name_or_path is not None:
            model._tokenizer_source = (str(pretrained_model_name_or_path), hub_kwargs)
        if model.config.untrained_contexts:
            model.remember_untrained_contexts()
        if names != weight_names:
            model.set_class_names(names)
        return loaded

    @classmethod
    def _load_pretrained_model(cls, model, state_dict, checkpoint_files, load_config, *args, **kwargs):
        """A step of `from_pretrained`: the model is there, without numbers, and files are named."""
        if state_dict is None and checkpoint_files:
            folder, is_quantized = load_config.pretrained_model_name_or_path, load_config.hf_quantizer is not None
            check_weight_files(model, checkpoint_files, folder, is_quantized)
        return super()._load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs)

    @classmethod
    def _config_beside(cls, name_or_path: str | os.PathLike, **hub_kwargs) -> PreTrainedConfig | None:
        """The config of a checkpoint, or `None` where weights lie without one or as another model's."""
        try:
            fields = cls.config_class.get_config_dict(name_or_path, **hub_kwargs)[0]
        except OSError:
            return None
        return cls.config_class.from_dict(fields) if fields.get("model_type") == cls.config_class.model_type else None

    def save_pretrained(self, save_directory, is_main_process: bool = True, **kwargs):
        """As [`PreTrainedModel.save_pretrained`], with the tokenizer beside the weights, so that names can change."""
        if self.is_fused:
            raise ValueError("This model was fused for inference, so it cannot be saved. Save it before `fuse()`.")
        self._adopt_labels()
        self.config.untrained_contexts = self.config.use_language and self.has_untrained_contexts()
        if self._auto_class is not None:
            # Transformers notes one Auto class; of code from a Hub, the others would go on pointing there.
            code = f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__}"
            auto_map = getattr(self.config, "auto_map", None) or {}
            self.config.auto_map = {**auto_map, **dict.fromkeys(AUTO_CLASSES, code)}
        if is_main_process and self.config.use_language:
            try:
                tokenizer = self._load_tokenizer()
            except ValueError:
                logger.info("No tokenizer is known to this model, so none is saved beside it.")
            else:
                tokenizer.save_pretrained(save_directory)
        return super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)


def _with_rows(old: torch.Tensor, fresh: torch.Tensor, kept_rows: list[int | None], dim: int) -> nn.Parameter:
    """`fresh` with the slices of `old` that `kept_rows` names, as a parameter like `old`."""
    for row, old_row in enumerate(kept_rows):
        if old_row is not None:
            fresh.select(dim, row).copy_(old.select(dim, old_row))
    return nn.Parameter(fresh, requires_grad=old.requires_grad)


__all__ = ["ClassNameReport", "DenseCLIPClassNamesMixin", "tokenize_class_names"]
