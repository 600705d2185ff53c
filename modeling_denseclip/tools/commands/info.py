# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""`denseclip info`: what a checkpoint is, without its weights being read or downloaded."""

import argparse
import json
import math
import reprlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_local_safetensors_metadata, get_safetensors_metadata
from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError
from huggingface_hub.utils import SafetensorsRepoMetadata
from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ...configuration_denseclip import DenseCLIPConfig, shorten
from ...image_processing_denseclip import DenseCLIPImageProcessor
from ...loading_denseclip import check_is_inside, find_file
from ...modeling_denseclip_heads import DECODE_HEADS
from ...modeling_denseclip_prompting import PROMPTING_MODES
from ..files.loading import load_image_processor, read_card_head, read_config
from ..insight.complexity import measure
from ..insight.description import describe, name_normalization


SHOWN_CLASSES = 10
SQUARE = (512, 512)
# Fields of image encoders that tell how large they are -> in words.
ENCODER_FIELDS = {
    "depths": "blocks per stage",
    "num_hidden_layers": "layers",
    "embedding_size": "width of the stem",
    "embed_dim": "width",
    "hidden_size": "width",
    "hidden_sizes": "widths",
    "patch_size": "patch size",
}
NUMBER_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Parts of a model -> where their weights are.
PARTS = {
    "image encoder": ("image_encoder.backbone.", "image_encoder.vision_model."),
    "pyramid": ("image_encoder.pyramid.",),
    "text tower": ("text_encoder.",),
    "context decoder": ("context_decoder.",),
    "neck": ("neck.",),
    "decode head": ("decode_head.",),
    "auxiliary head": ("auxiliary_head.",),
}
# Parts that begin with pretrained weights: whether training went on with them cannot be told from the weights.
TOWERS = ("image encoder", "text tower")
PART_STATES = {"initial": "no", "learned": "yes", None: "not known"}
# A norm has one number per channel, so a larger tensor is not a norm's, whatever its name.
MAX_NORM_SIZE = 2**20


def run(args: argparse.Namespace) -> int:
    """
    Raises:
        ValueError: for what is no DenseCLIP, or an image that is too small for it.
        OSError: for a repository that cannot be reached.
    """
    facts = collect(args.model, args.revision, args.size and tuple(args.size))
    print(json.dumps(facts, indent=2, ensure_ascii=False) if args.json else format_facts(facts, args.all))
    return 0


def collect(name_or_path: str, revision: str = "main", size: tuple[int, int] | None = None) -> dict[str, Any]:
    """
    What is known of a checkpoint, a folder or a repository on the Hub, as plain values. `size` is the height and width
    of the image whose multiply-adds are counted, by default a square of the short side that images are prepared with.

    Raises:
        ValueError: for what is no DenseCLIP, or an image that is too small for it.
        OSError: for a repository that cannot be reached.
    """
    config = read_config(name_or_path, revision)
    has_processor = find_file(name_or_path, "preprocessor_config.json", revision=revision) is not None
    image_processor = DenseCLIPImageProcessor()
    if has_processor:
        image_processor = load_image_processor(name_or_path, revision)
    if size is None:
        size = image_processor.get_resized_size(*SQUARE) if image_processor.do_resize else SQUARE
    weights, card = read_weights(name_or_path, revision), read_card(name_or_path, revision)
    try:
        parts = read_parts(name_or_path, revision, config)
    except SafetensorError as error:
        raise ValueError(f"The weights of {name_or_path} are broken: {shorten(error)}") from error
    # Every decode head has norms, so its state is known wherever the weights can be read.
    head_state = parts["decode head"]["state"]
    is_trained = head_state == "learned" if head_state else False if config.untrained_contexts else None
    complexity = measure(config, size)
    slides = config.inference_mode == "slide"
    description, vision_fields = describe(config), config.vision_config.to_dict()
    language = images = None
    if config.use_language:
        language = {
            "num_hidden_layers": config.text_config.num_hidden_layers,
            "hidden_size": config.text_config.hidden_size,
            "num_context_tokens": config.num_context_tokens,
            "prompting_mode": config.prompting_mode,
        }
    if has_processor:
        images = {
            "size": dict(image_processor.size) if image_processor.do_resize else None,
            "mean": as_list(image_processor.image_mean),
            "std": as_list(image_processor.image_std),
            "pads": image_processor.do_pad,
        }
    return {
        "model": name_or_path,
        "is_trained": is_trained,
        "parts": parts,
        "image_encoder": {
            "name": description.image_encoder,
            "model_type": config.vision_config.model_type,
            **{field: vision_fields[field] for field in ENCODER_FIELDS if field in vision_fields},
        },
        "language": language,
        "decode_head": {"type": config.decode_head_type, "hidden_size": config.decode_head_hidden_size},
        "classes": description.class_names,
        "parameters": {
            "total": complexity.parameters + complexity.text_parameters,
            "image": complexity.parameters,
            "text": complexity.text_parameters,
        },
        "multiply_adds": {
            "height": size[0],
            "width": size[1],
            "image": complexity.flops,
            "text": complexity.flops_with_text - complexity.flops,
            "text_runs_per_image": complexity.encodes_text_per_image,
        },
        "images": images,
        "window": {"size": config.window_size, "stride": config.window_stride} if slides else None,
        "weights": weights,
        **card,
    }


def as_list(values: float | Sequence[float] | None) -> list[float]:
    """One value per channel as a list; one value for all channels as a list of it; `None` as an empty list."""
    return [] if values is None else list(values) if isinstance(values, Sequence) else [values]


def read_local_heads(name_or_path: str, revision: str) -> tuple[Path, SafetensorsRepoMetadata | None]:
    """
    The folder of a checkpoint, which for a repository is the one in the cache, and the heads of the weights in it;
    `None` where it has no safetensors.

    Raises:
        ValueError: for a shard of another folder.
        OSError: for what is not a regular file: reading a named pipe would wait for ever.
    """
    folder = Path(find_file(name_or_path, "config.json", revision=revision)).parent
    files, index = [folder / SAFE_WEIGHTS_NAME], folder / SAFE_WEIGHTS_INDEX_NAME
    if not files[0].exists() and index.is_file():
        files = [folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()]
    for file in set(files):
        check_is_inside(str(file), str(folder))
        if file.exists() and not file.is_file():
            raise OSError(f"{file} is no regular file, but a folder, a named pipe, a socket or a device.")
    try:
        return folder, get_local_safetensors_metadata(folder)
    except NotASafetensorsRepoError:
        return folder, None


def read_weights(name_or_path: str, revision: str) -> dict[str, Any] | None:
    """
    Bytes of the weights, and how many numbers there are of each type; `None` where no safetensors are found.

    Raises:
        ValueError: for files that are no safetensors.
    """
    try:
        _, metadata = read_local_heads(name_or_path, revision)
        if metadata is None:
            if Path(name_or_path).is_dir():
                return None
            metadata = get_safetensors_metadata(name_or_path, revision=revision)
        tensors = [tensor for file in metadata.files_metadata.values() for tensor in file.tensors.values()]
        types = Counter({NUMBER_TYPES.get(kind, kind): count for kind, count in metadata.parameter_count.items()})
        return {
            "bytes": sum(tensor.data_offsets[1] - tensor.data_offsets[0] for tensor in tensors),
            "numbers": dict(types.most_common()),
        }
    except NotASafetensorsRepoError:
        return None
    except HfHubHTTPError as error:
        status, said = error.response.status_code, error.server_message or error.response.reason_phrase
        raise OSError(f"The Hub answered with status {status} ({said}) for the weights of {name_or_path}.") from error
    except OSError:
        raise
    except Exception as error:  # the reader does not check that head and index hold what they should
        raise ValueError(
            f"The weights of {name_or_path} are broken: {type(error).__name__}: {shorten(error)}"
        ) from error


def read_parts(name_or_path: str, revision: str, config: DenseCLIPConfig) -> dict[str, dict[str, Any]]:
    """
    Of each part of the model its `state`, and the `batches` that its batch norms saw in training mode. The state is

    - `"initial"`, as long as each norm (and gamma of the context decoder) has its initial value, or the contexts are
      those that `from_clip_pretrained` made;
    - `"learned"` otherwise; a tower may have learned all of it in its pretraining;
    - `None` where it is not known: a neck has no norms, and weights on the Hub are not read.

    Raises:
        ValueError: for files that are no safetensors.
    """
    evidence = {name: [] for name in PARTS}
    batches = dict.fromkeys(PARTS)
    folder, metadata = read_local_heads(name_or_path, revision)
    files = {} if metadata is None else metadata.files_metadata
    shapes = {key: tensor.shape for file in files.values() for key, tensor in file.tensors.items()}
    for file, metadata in files.items():
        with safe_open(folder / file, framework="pt") as tensors:
            for key in metadata.tensors:
                part = next((part for part, prefixes in PARTS.items() if key.startswith(prefixes)), None)
                if part is None or math.prod(shapes[key]) > MAX_NORM_SIZE:
                    continue
                module, _, leaf = key.rpartition(".")
                if leaf == "num_batches_tracked":
                    batches[part] = max(batches[part] or 0, int(tensors.get_tensor(key)))
                elif key == "context_decoder.gamma":
                    initial = torch.tensor(config.gamma_init_value).to(tensors.get_tensor(key).dtype)
                    evidence[part].append(bool((tensors.get_tensor(key) == initial).all()))
                elif leaf in ("weight", "bias") and len(shapes.get(f"{module}.weight", ())) == 1:
                    # The last norm of a residual branch may begin with 0.
                    values = tensors.get_tensor(key)
                    is_initial = bool((values == 0).all()) or leaf == "weight" and bool((values == 1).all())
                    evidence[part].append(is_initial)
    # Whether a backbone of Transformers needs a pyramid, its config does not tell, but its weights do.
    has_part = {"pyramid": any(key.startswith(PARTS["pyramid"]) for key in shapes), **describe(config).has_part}
    parts = {}
    for name, found in evidence.items():
        if has_part.get(name, True):
            state = None if not found else "initial" if all(found) else "learned"
            parts[name] = {"state": state, "batches": batches[name]}
    if config.use_language:
        parts["contexts"] = {"state": "initial" if config.untrained_contexts else None, "batches": None}
    return parts


def read_card(name_or_path: str, revision: str) -> dict[str, Any]:
    """
    Licence and base model, as the head of the card states them.

    Raises:
        ValueError: for a head that is not valid YAML.
    """
    path = find_file(name_or_path, "README.md", revision=revision)
    source = f"The head of the card, README.md of {name_or_path},"
    head = {} if path is None else read_card_head(path, source)
    fields = {field: head.get(field) for field in ("license", "license_name", "base_model")}
    for field, value in fields.items():
        words = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(word, str) for word in words):
            raise ValueError(f"{source} has a {field} that is no text: {shorten(reprlib.repr(value))}.")
    return fields


def format_facts(facts: dict[str, Any], shows_all: bool = False) -> str:
    """What [`collect`] gives, for people; `shows_all` tells whether all classes are named."""
    names, language, card_license = facts["classes"], facts["language"], facts["license"]
    shown = names if shows_all else names[:SHOWN_CLASSES]
    more = f", and {len(names) - len(shown)} more (--all)" if len(shown) < len(names) else ""
    encoder, head = facts["image_encoder"], facts["decode_head"]
    sizes = [f"{words} {format_list(encoder[field])}" for field, words in ENCODER_FIELDS.items() if field in encoder]
    if facts["license_name"]:
        card_license = f"{format_list(card_license)}: {format_list(facts['license_name'])}"
    lines = [
        ("Model", facts["model"] + (", not trained on masks yet" if facts["is_trained"] is False else "")),
        ("Image encoder", ", ".join([encoder["name"], *sizes])),
    ]
    if language is None:
        lines.append(("Language", "none: the names of the classes are names alone"))
    else:
        lines += [
            (
                "Language",
                f"CLIP's text tower, layers {language['num_hidden_layers']}, width {language['hidden_size']}; in each"
                f" prompt {language['num_context_tokens']} learned contexts",
            ),
            ("Prompting", PROMPTING_MODES[language["prompting_mode"]].summary),
        ]
    lines += [
        ("Decode head", f"{DECODE_HEADS[head['type']].title}, width {head['hidden_size']}"),
        ("Trained", format_parts(facts["parts"])),
        ("Classes", f"{len(names)}: {', '.join(shown)}{more}"),
        ("Parameters", format_parameters(facts["parameters"])),
        ("Multiply-adds", format_multiply_adds(facts["multiply_adds"])),
        ("Images", format_images(facts["images"])),
        ("Seen", format_window(facts["window"])),
        ("Weights", format_weights(facts["weights"])),
        ("Licence", format_list(card_license or "none is stated")),
        ("Base model", format_list(facts["base_model"] or "none is stated")),
    ]
    return "\n".join(f"{name:<15}{line}" for name, line in lines)


def format_parts(parts: dict[str, dict[str, Any]]) -> str:
    said = {}
    for name, part in parts.items():
        words = PART_STATES[part["state"]]
        if name in TOWERS and part["state"] == "learned":
            words = "yes, before or with this model"
        elif part["state"] == "learned" and part["batches"]:
            words += f", batches seen {part['batches']}"
        said.setdefault(words, []).append(name)
    return "; ".join(f"{', '.join(names)}: {words}" for words, names in said.items())


def format_parameters(parameters: dict[str, int]) -> str:
    total = format_count(parameters["total"])
    if not parameters["text"]:
        return total
    image, text = format_count(parameters["image"]), format_count(parameters["text"])
    return f"{total}: {image} on the way of an image, and {text} of the text tower"


def format_multiply_adds(counts: dict[str, Any]) -> str:
    image = f"{format_count(counts['image'])} for an image of {counts['height']} x {counts['width']} pixels"
    if counts["text_runs_per_image"]:
        return f"{image}, with those of the text tower"
    return f"{image}, and {format_count(counts['text'])} once for the names" if counts["text"] else image


def format_count(count: int) -> str:
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.2f} million"


def format_images(images: dict[str, Any] | None) -> str:
    if images is None:
        return "unknown: there is no preprocessor_config.json"
    size = images["size"]
    if size is None:
        resized = "in their own size"
    elif "height" in size:
        resized = f"{size['height']} x {size['width']} pixels (height x width)"
    else:
        limit = f", the long one at most {size['longest_edge']}" if "longest_edge" in size else ""
        resized = f"the short side {size['shortest_edge']} pixels{limit}"
    mean, std = tuple(images["mean"]), tuple(images["std"])
    normalized = name_normalization(mean, std) or f"mean {mean}, deviation {std}"
    return f"{resized}; {normalized}{'; padded' if images['pads'] else ''}"


def format_window(window: dict[str, Any] | None) -> str:
    if window is None:
        return "as a whole"
    (height, width), (down, right) = window["size"], window["stride"]
    return f"by windows of {height} x {width} pixels, in steps of {down} and {right} (height and width)"


def format_weights(weights: dict[str, Any] | None) -> str:
    if weights is None:
        return "no safetensors are there"
    total = sum(weights["numbers"].values())
    # The few integers are what batch norms count their batches by; they are no type of the weights.
    types = [name for name, count in weights["numbers"].items() if count > total / 100]
    return f"{weights['bytes'] / 1e6:.1f} MB, {' and '.join(types)}"


def format_list(values: Any) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)
