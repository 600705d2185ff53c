# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""A DenseCLIP as one file that runs without this code. See `training.export`."""

import copy
import functools
import hashlib
import logging
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers
from torch import nn
from torch.export import Dim

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.resizing_denseclip import resize_logits
from modeling_denseclip.tools.files.loading import load_model, read_card_head
from modeling_denseclip.tools.files.photographs import list_images
from modeling_denseclip.tools.files.saving import naming_what_failed, staging_folder
from modeling_denseclip.tools.insight.description import describe as describe_model
from modeling_denseclip.tools.pictures.palettes import generate_palette

from .card import LICENSE
from .formats import (
    FORMATS,
    OnnxFormat,
    TorchFormat,
    describe_smaller_kind,
    halve,
    quantize,
)
from .pictures import surround


# Sizes of 0 or 1 and equal sizes would be taken for constants. At these sides no map is a multiple of a window of
# 7 x 7 at any stride: Swin pads such maps, and a program that was traced without padding would never pad.
TRACED_SHAPE = (2, 3, 288, 352)
# (batch_size, height, width), neither traced ones nor only multiples of 32.
CHECKED_SIZES = ((1, 256, 330), (2, 300, 410), (1, 420, 288))
# Some backbones work differently on maps smaller than their windows, and programs refuse maps of one cell.
SMALLER_SIDES = (128, 64)
# Of pictures: odd ones in a batch, a tall one that is larger than most models see it, and a tiny one.
CHECKED_PICTURES = ((2, 151, 227), (1, 811, 402), (1, 19, 23))
# The largest difference allowed, as a share of the standard deviation of the logits.
TOLERANCE = 1e-4


def export_model(
    checkpoint: Path,
    target: Path,
    file_format: str,
    output: str,
    inference_mode: str | None,
    int8: str | None,
    calibration_images: Sequence[Path],
    takes: str = "pixel_values",
    float16: bool = False,
    says_where: bool = True,
) -> dict:
    """
    Export, check and write; prints what was found and, if `says_where`, what was written; returns what `TARGET.json`
    holds. The other arguments are those of `python -m training.export`.

    Raises:
        ValueError: for words that contradict each other, a model that cannot be exported, and a file that does not
            compute what the model does. Nothing that existed before is changed then.
        OSError: for files that are not there.
    """
    chosen = FORMATS[file_format]
    chosen.check_target(target)
    if not checkpoint.is_dir():
        raise ValueError(f"{checkpoint} is no folder. Give the one that `save_pretrained` or a training wrote.")
    chosen.check_packages()
    smaller_kinds = {"float16": halve} if float16 else {}
    if int8 is not None:
        smaller_kinds["int8"] = functools.partial(quantize, method=int8)
    check_words(chosen, takes, output, list(smaller_kinds))
    images = find_calibration_images(list(smaller_kinds), calibration_images)
    # They warn of operators that no model here has, of constants that are not folded, and of their own deprecations.
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
    model, image_processor = load_model(str(checkpoint), dtype=torch.float32, **chosen.model_options)
    weights = sorted(checkpoint.glob("*.safetensors"))
    inference_mode = inference_mode or model.config.inference_mode
    if inference_mode == "slide" and not chosen.slides:
        print(f"This model is run by sliding windows. {chosen.name} shows it whole images: results differ.")
        inference_mode = "whole"
    card = describe(model.config, image_processor, output, inference_mode, weights, takes)
    card["license"] = read_license(checkpoint) or LICENSE
    with naming_what_failed(target), staging_folder(target.parent) as folder:
        kinds = make_files(folder, chosen, model, image_processor, card, smaller_kinds, images)
        described = chosen.put_in_place(kinds, target, card)
    if says_where:
        print(f"Written to: {described}")
    return card


def make_files(
    folder: Path,
    file_format: TorchFormat,
    model: DenseCLIPForSemanticSegmentation,
    image_processor: DenseCLIPImageProcessor,
    card: dict,
    smaller_kinds: dict[str, Callable],
    images: Sequence[Path],
) -> dict[str, Path]:
    """
    Write and check a file of each kind of numbers, and say in the card what was found.

    Args:
        smaller_kinds (`dict[str, Callable]`): kinds besides `"float32"` -> what makes them, [`halve`] or [`quantize`].
        images (`Sequence[Path]`): photographs for those.

    Returns:
        `dict[str, Path]`: kinds -> files in `folder`.

    Raises:
        ValueError: as [`export_model`].
    """
    # What is put around the model needs its logits.
    is_surrounded = card["takes"] == "pictures" or file_format.prepares_pictures
    core = {"takes": "pixel_values", "output": "logits"} if is_surrounded else {}
    output = core.get("output", card["output"])
    kinds = {kind: folder / f"{kind}{file_format.suffix}" for kind in ("float32", *smaller_kinds)}
    precise = kinds["float32"]
    write(ExportableDenseCLIP(model, output), file_format, precise)
    found, card["smallest_side"] = check(file_format.load(precise), model, output)
    print(
        f"In {len(CHECKED_SIZES)} sizes {file_format.runtime} differs from the model by at most {found:.1e} of the"
        " logits' standard deviation."
    )
    if card["smallest_side"] > model.min_image_size:
        print(f"Smaller images than {card['smallest_side']} pixels it refuses, or computes otherwise.")
    for kind, make in smaller_kinds.items():
        card[kind] = make(precise, kinds[kind], card | core, images=images)
        print(describe_smaller_kind(kind, card[kind], precise.stat().st_size, kinds[kind].stat().st_size))
    if is_surrounded:
        for file in kinds.values():
            surround_file(file, card)
        found = check_pictures(file_format.load(precise), model, image_processor, card)
        print(f"With pictures it differs from image processor and model by at most {found:.1e} of that.")
    return kinds


def check_words(file_format: TorchFormat, takes: str, output: str, smaller_kinds: Sequence[str]) -> None:
    """
    Raises:
        ValueError: for what a format does not have.
    """
    for option, value, allowed in (("input", takes, file_format.inputs), ("output", output, file_format.outputs)):
        if value not in allowed:
            raise ValueError(f"--{option} {value} does not go with --format {file_format.name}: {file_format.hint}")
    for kind in smaller_kinds:
        if kind not in file_format.smaller_kinds:
            raise ValueError(f"--{kind} is onnxruntime's: it needs --format onnx or transformers.js.")
    if len(smaller_kinds) > 1 and not file_format.holds_all_kinds:
        raise ValueError("--float16 and --int8 make a file each: choose one of them, or --format transformers.js.")


def find_calibration_images(smaller_kinds: Sequence[str], paths: Sequence[Path]) -> list[Path]:
    """
    The photographs that `paths` are, or that lie in these folders, for files in `"float16"` or `"int8"`.

    Raises:
        ValueError: for photographs that no kind of numbers needs, or too few of them.
    """
    if not smaller_kinds and paths:
        raise ValueError("--calibration_images are for --int8 and --float16, which are missing.")
    images = [file for path in paths for file in list_images(path)]
    least, words = (2, "two photographs") if "int8" in smaller_kinds else (1, "one photograph")
    if smaller_kinds and len(images) < least:
        raise ValueError(
            f"--{smaller_kinds[-1]} needs at least {words} as --calibration_images, to measure what it costs; got"
            f" {len(images)}."
        )
    return images


def read_license(checkpoint: Path) -> str | None:
    """
    The licence of a model as its card states it, in a line; `None` where it states none.

    Raises:
        ValueError: for a card whose head is no YAML.
    """
    card = checkpoint / "README.md"
    head = read_card_head(card, f"The head of the card, {card},") if card.is_file() else {}
    found = head.get("license_name") or head.get("license")
    return " ".join(found.split()) if isinstance(found, str) else None


def describe(
    config: DenseCLIPConfig,
    image_processor: DenseCLIPImageProcessor,
    output: str,
    inference_mode: str,
    weights: Sequence[Path],
    takes: str = "pixel_values",
) -> dict:
    """
    What a program that runs the file has to know, for JSON.

    Raises:
        ValueError: for class maps of a model that slides windows, and files that would have to slide them themselves.
    """
    slides = inference_mode == "slide"
    if slides and takes == "pictures":
        raise ValueError(
            "This model is run by sliding windows, and a file that takes pictures shows the model whole ones: all"
            " windows of a picture would be in memory at once. Say --inference_mode whole for whole pictures, or"
            " --input pixel_values, for which run_onnx.py slides the windows."
        )
    if slides and output == "class_map":
        raise ValueError(
            "This model is run by sliding windows, whose logits are averaged, which class maps cannot be. Say --output"
            " logits (run_onnx.py slides the windows), or --inference_mode whole."
        )
    size = {name: side for name, side in dict(image_processor.size).items() if side is not None}
    identity = (0.0,) * 3, (1.0,) * 3
    mean, std = (image_processor.image_mean, image_processor.image_std) if image_processor.do_normalize else identity
    return {
        "takes": takes,
        "output": output,
        "class_names": describe_model(config).class_names,
        "palette": config.palette or generate_palette(config.num_labels),
        "ignore_index": config.ignore_index,
        "image_processor": {
            # None: pictures keep their size. They are resized by OpenCV, bilinear without antialiasing, to sides of
            # int(side * scale + 0.5).
            "size": size if image_processor.do_resize else None,
            "rescale_factor": image_processor.rescale_factor if image_processor.do_rescale else 1.0,
            "image_mean": list(mean),
            "image_std": list(std),
        },
        "windows": {"size": list(config.window_size), "stride": list(config.window_stride)} if slides else None,
        "checkpoint_sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in weights},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def surround_file(path: Path, card: dict) -> None:
    """Put the graphs that make logits or class maps of pictures around that of a model, in its file."""
    import onnx

    takes = "pictures" if card["takes"] == "pictures" else "picture_values"
    core = onnx.load(path)
    onnx.save(surround(core, card["image_processor"], takes, card["output"], len(card["class_names"])), path)


class ExportableDenseCLIP(nn.Module):
    """
    `pixel_values` (batch_size, 3, height, width) -> logits (batch_size, num_labels, height / 4, width / 4), or class
    ids (batch_size, height, width), int64. Holds a copy of the model without what an image does not need.
    """

    def __init__(self, model: DenseCLIPForSemanticSegmentation, output: str):
        super().__init__()
        self.output = output
        self.model = copy.deepcopy(model).eval()
        config = model.config
        if config.use_auxiliary_head:
            del self.model.auxiliary_head
        if describe_model(config).encodes_text_per_image:
            # Each image makes its own prompts, so the text tower stays, and of its vocabulary the words in use.
            embedding, prompts = self.model.text_encoder.get_input_embeddings(), self.model.prompts
            words, prompts.token_ids = prompts.token_ids.unique(return_inverse=True)
            self.model.text_encoder.set_input_embeddings(nn.Embedding.from_pretrained(embedding.weight[words]))
        elif config.use_language:
            with torch.no_grad():
                self.model.keep_text_embeddings()
            self.model.is_fused = True  # a fused model uses the embeddings that it keeps
            del self.model.text_encoder, self.model.text_projection, self.model.prompts

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits = self.model.segment(pixel_values).logits
        if self.output == "class_map":
            return resize_logits(logits, pixel_values.shape[-2:]).argmax(dim=1)
        return logits


def write(module: ExportableDenseCLIP, file_format: OnnxFormat | TorchFormat, path: Path) -> None:
    """
    Write the graph of a module, for any batch size, height and width.

    Raises:
        ValueError: for an image encoder that has no such graph, or weights that are too large for the format.
    """
    num_bytes = sum(tensor.nbytes for tensor in module.state_dict().values())
    if num_bytes > file_format.max_bytes:
        raise ValueError(
            f"The weights take {num_bytes / 1e9:.1f} GB, and an ONNX file holds 2. Take a smaller image encoder, or"
            " --format torch."
        )
    dynamic_shapes = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
    try:
        with torch.no_grad():
            program = file_format.trace(module, torch.zeros(TRACED_SHAPE), dynamic_shapes)
        converted = file_format.convert(program, module.output)
    except Exception as error:  # the exporters raise errors of all kinds
        raise ValueError(
            f"A DenseCLIP on the image encoder {module.model.config.vision_config.model_type!r} cannot be exported to"
            f" {file_format.name}: {first_line(error)}"
        ) from error
    file_format.save(converted, path)


def first_line(error: BaseException) -> str:
    """What an error came from, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return textwrap.shorten(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", 200)


@torch.no_grad()
def check(
    run: Callable[[torch.Tensor], torch.Tensor], model: DenseCLIPForSemanticSegmentation, output: str
) -> tuple[float, int]:
    """
    Compare a file with its model, in sizes that it was not traced with.

    Returns:
        The largest difference as a share of the standard deviation of the logits, and the smallest side in pixels
        from which on the file is right.

    Raises:
        ValueError: if it does not run or differs by more than `TOLERANCE`.
    """
    model.eval()
    differences = []
    for size in CHECKED_SIZES:
        try:
            differences.append(difference(run, model, output, size))
        except Exception as error:  # the runtimes raise errors of all kinds
            raise ValueError(
                f"The file does not run on {size[0]} x 3 x {size[1]} x {size[2]} and was not kept: the graph of its"
                f" image encoder, {model.config.vision_config.model_type!r}, depends on the size. {first_line(error)}"
            ) from error
    # Not `>`, which NaN would pass.
    if not max(differences) <= TOLERANCE:
        raise ValueError(
            f"The file differs from the model by {max(differences):.1e} of the logits' standard deviation, in the"
            f" sizes {CHECKED_SIZES}; {TOLERANCE} is allowed. It was not kept."
        )
    smallest = min(min(size[1:]) for size in CHECKED_SIZES)
    for side in (*(side for side in SMALLER_SIDES if side > model.min_image_size), model.min_image_size):
        try:
            is_right = difference(run, model, output, (1, side, side * 3 // 2)) <= TOLERANCE
        except Exception:  # this one was only tried
            is_right = False
        if not is_right:
            break
        smallest = side
    return max(differences), smallest


def difference(
    run: Callable[[torch.Tensor], torch.Tensor],
    model: DenseCLIPForSemanticSegmentation,
    output: str,
    size: tuple[int, int, int],
) -> float:
    """
    The largest difference of logits on random pictures; of class maps, by how much the class of a pixel scores worse
    than the model's best. As a share of the standard deviation of the logits.
    """
    batch_size, height, width = size
    generator = torch.Generator().manual_seed(0)
    # Smooth as pictures are: on noise, the last digits of resized coordinates would count.
    noise = torch.randn(batch_size, 3, height // 8, width // 8, generator=generator)
    pixel_values = nn.functional.interpolate(noise, size=(height, width), mode="bilinear")
    logits, found = model.segment(pixel_values).logits, run(pixel_values)
    return lost(found, logits, output, (height, width))


def lost(found: torch.Tensor, logits: torch.Tensor, output: str, size: tuple[int, int]) -> float:
    """The difference of what a file gives, in maps of `size`, from the logits of the model, as `difference` has it."""
    scale = logits.std()
    if output == "class_map":
        logits = resize_logits(logits, size)
        worse = logits.amax(dim=1) - logits.gather(1, found[:, None].long())[:, 0]
    elif found.shape != logits.shape:
        raise ValueError(f"gives {tuple(found.shape)}, the model {tuple(logits.shape)}")
    else:
        worse = (found - logits).abs()
    return (worse.max() / scale).item()


@torch.no_grad()
def check_pictures(
    run: Callable[[torch.Tensor], torch.Tensor],
    model: DenseCLIPForSemanticSegmentation,
    image_processor: DenseCLIPImageProcessor,
    card: dict,
) -> float:
    """
    Compare a file that takes pictures with image processor and model.

    Returns:
        The largest difference as `check` has it.

    Raises:
        ValueError: if it does not run or differs by more than `TOLERANCE`.
    """
    differences = {}
    for size in CHECKED_PICTURES:
        pictures = draw_pictures(size)
        pixel_values = image_processor(list(pictures.numpy()), do_pad=False, return_tensors="pt").pixel_values
        if min(pixel_values.shape[2:]) < card["smallest_side"]:
            continue
        given = pictures if card["takes"] == "pictures" else pictures.permute(0, 3, 1, 2).float()
        try:
            found, logits = run(given), model.segment(pixel_values).logits
            differences[size] = lost(found, logits, card["output"], size[1:])
        except Exception as error:  # the runtimes raise errors of all kinds
            raise ValueError(
                f"The file does not run on pictures of {size} and was not kept. {first_line(error)}"
            ) from error
    # Not `>`, which NaN would pass.
    if differences and not max(differences.values()) <= TOLERANCE:
        raise ValueError(
            f"The file differs from image processor and model by {max(differences.values()):.1e} of the logits'"
            f" standard deviation, on pictures of {list(differences)}; {TOLERANCE} is allowed. It was not kept."
        )
    return max(differences.values(), default=0.0)


def draw_pictures(size: tuple[int, int, int]) -> torch.Tensor:
    """Smooth noise as pictures, uint8 of shape (batch_size, height, width, 3)."""
    batch_size, height, width = size
    noise = torch.rand(batch_size, 3, height // 8 + 2, width // 8 + 2, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(noise, size=(height, width), mode="bilinear")
    return (255 * smooth).round().byte().permute(0, 2, 3, 1).contiguous()
