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
r"""
Write a DenseCLIP as one file that runs without this code: for onnxruntime, or as a program of `torch.export`.

    python -m training.export DIR model.onnx
    python -m training.export DIR model.onnx --output class_map --inference_mode whole
    python -m training.export DIR model.onnx --int8 static --calibration_images photographs/
    python -m training.export DIR model.pt2 --format torch

The file takes `pixel_values` of any batch size, height and width. The embeddings of the class names are constants in
it; of the text tower nothing is left, except with pre-model prompting, which runs it for each image. Beside the file
comes `model.onnx.json`, all that `training/run_onnx.py` needs to know: class names, colours, how pictures are resized
and normalised, windows. Both are checked before they replace what was there.
"""

import argparse
import copy
import hashlib
import json
import logging
import operator
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn
from torch.export import Dim, ExportedProgram

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.resizing_denseclip import resize_logits
from modeling_denseclip.tools.command import run_command
from modeling_denseclip.tools.files.loading import load_model
from modeling_denseclip.tools.files.photographs import list_images, read_photograph
from modeling_denseclip.tools.files.saving import move_together, naming_what_failed, staging_folder
from modeling_denseclip.tools.pictures.visualization import generate_palette

from .run_onnx import prepare, segment


SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
# Sizes of 0 or 1 and equal sizes would be taken for constants. Sides whose maps fit no window of 7 x 7 at any stride:
# Swin pads them, and a program that was traced where it does not would never do so.
TRACED_SHAPE = (2, 3, 288, 352)
# (batch_size, height, width), neither traced ones nor only multiples of 32.
CHECKED_SIZES = ((1, 256, 330), (2, 300, 410), (1, 420, 288))
# Some backbones work differently on maps smaller than their windows, and programs refuse maps of one cell.
SMALLER_SIDES = (128, 64)
# Of the standard deviation of the logits.
TOLERANCE = 1e-4
# What a protobuf, and so an ONNX file, can hold.
MAX_ONNX_BYTES = 2**31 - 1


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.export",
        description="Write a DenseCLIP as one file, for onnxruntime or torch.export, and check it.",
    )
    parser.add_argument("checkpoint", metavar="DIR", help="a saved DenseCLIP")
    parser.add_argument("target", metavar="OUT", help="the file to write, .onnx (or .pt2); OUT.json comes beside it")
    parser.add_argument("--format", choices=tuple(SUFFIXES), default="onnx")
    parser.add_argument(
        "--output",
        choices=("logits", "class_map"),
        default="logits",
        help="logits at a quarter of the size, or the class id of each pixel of `pixel_values`",
    )
    parser.add_argument(
        "--inference_mode",
        choices=("whole", "slide"),
        help="whether run_onnx.py shows the file whole images or sliding windows; the file itself takes what it is"
        " shown. Defaults to the checkpoint's",
    )
    parser.add_argument(
        "--int8",
        choices=("static", "dynamic"),
        help="integers of 8 bits: static for convolutions and matrix products, with the ranges that the calibration"
        " images show; dynamic for matrix products alone, which leaves a ResNet nearly as it is",
    )
    parser.add_argument(
        "--calibration_images",
        metavar="PATH",
        nargs="+",
        default=[],
        help="with --int8: photographs, or folders of them. Static calibrates on every other one and measures on the"
        " rest; a hundred of the kind that the model will see are enough",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> dict:
    """
    Export, check and write; returns what `OUT.json` holds.

    Raises:
        ValueError: for words that contradict each other, a model that cannot be exported, and a file that does not
            compute what the model does. Nothing that existed before is changed then.
        OSError: for files that are not there.
    """
    args = build_parser().parse_args(argv)
    target = Path(args.target)
    images = check_arguments(args)
    # Their warnings are of operators that no model here has, of constants that are not folded, and of themselves.
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
    # ONNX has no fused attention here; written out, Swin's goes through the exporter too.
    attention = {"attn_implementation": "eager"} if args.format == "onnx" else {}
    model, image_processor = load_model(args.checkpoint, dtype=torch.float32, **attention)
    inference_mode = args.inference_mode or model.config.inference_mode
    weights = sorted(Path(args.checkpoint).glob("*.safetensors"))
    card = describe(model.config, image_processor, args.output, inference_mode, weights)

    with naming_what_failed(target), staging_folder(target.parent) as folder:
        written = folder / target.name
        write(ExportableDenseCLIP(model, args.output), args.format, written)
        difference, card["smallest_side"] = check(load(written), model, args.output)
        print(
            f"In {len(CHECKED_SIZES)} sizes {'onnxruntime' if args.format == 'onnx' else 'the program'} differs from"
            f" the model by at most {difference:.1e} of the logits' standard deviation."
        )
        if card["smallest_side"] > model.min_image_size:
            print(f"Smaller images than {card['smallest_side']} pixels it refuses, or computes otherwise.")
        if args.int8 is not None:
            quantized = written.with_name("int8.onnx")
            card["int8"] = quantize(written, quantized, card, args.int8, images)
            print(describe_quantization(card["int8"], written.stat().st_size, quantized.stat().st_size))
            quantized.replace(written)
        card_file = folder / f"{target.name}.json"
        lines = (f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in card.items())
        card_file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        move_together(folder, target.parent, [written.name, card_file.name])
    print(f"Written to: {target} ({target.stat().st_size / 1e6:.1f} MB), {target}.json")
    return card


def check_arguments(args: argparse.Namespace) -> list[Path]:
    """
    What can be said before the model is loaded; returns the calibration images.

    Raises:
        ValueError: for words that contradict each other, and packages that are missing.
    """
    target = Path(args.target)
    if target.suffix != SUFFIXES[args.format] or target.is_dir():
        raise ValueError(f"--format {args.format} writes a file that ends in {SUFFIXES[args.format]}; got {target}.")
    if not Path(args.checkpoint).is_dir():
        raise ValueError(f"{args.checkpoint} is no folder. Give the one that `save_pretrained` or a training wrote.")
    if args.format == "onnx":
        try:
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ValueError(
                f'ONNX needs a package that is not installed, {error.name!r}: pip install ".[export]"'
            ) from error
    if args.int8 is None:
        if args.calibration_images:
            raise ValueError("--calibration_images are for --int8, which is missing.")
        return []
    if args.format != "onnx":
        raise ValueError("--int8 is onnxruntime's: it needs --format onnx.")
    images = [file for path in map(Path, args.calibration_images) for file in list_images(path)]
    if len(images) < 2:
        raise ValueError(
            f"--int8 needs at least two photographs as --calibration_images, to measure what it costs; got"
            f" {len(images)}."
        )
    return images


def describe(
    config: DenseCLIPConfig,
    image_processor: DenseCLIPImageProcessor,
    output: str,
    inference_mode: str,
    weights: Sequence[Path],
) -> dict:
    """
    What whoever runs the file has to know, for JSON.

    Raises:
        ValueError: for class maps of a model that slides windows.
    """
    slides = inference_mode == "slide"
    if slides and output == "class_map":
        raise ValueError(
            "This model is run by sliding windows, whose logits are averaged, which class maps cannot be. Say --output"
            " logits (run_onnx.py slides the windows), or --inference_mode whole."
        )
    size = {name: side for name, side in dict(image_processor.size).items() if side is not None}
    identity = (0.0,) * 3, (1.0,) * 3
    mean, std = (image_processor.image_mean, image_processor.image_std) if image_processor.do_normalize else identity
    return {
        "output": output,
        "class_names": [config.id2label[class_id] for class_id in range(config.num_labels)],
        "palette": config.palette or generate_palette(config.num_labels),
        "ignore_index": config.ignore_index,
        "image_processor": {
            # None: pictures keep their size. OpenCV's bilinear without antialiasing, sides int(side * scale + 0.5).
            "size": size if image_processor.do_resize else None,
            "rescale_factor": image_processor.rescale_factor if image_processor.do_rescale else 1.0,
            "image_mean": list(mean),
            "image_std": list(std),
        },
        "windows": {"size": list(config.window_size), "stride": list(config.window_stride)} if slides else None,
        "checkpoint_sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in weights},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


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
        if config.use_language and config.prompting_mode == "pre_model":
            # Each image makes its own prompts, so the text tower stays; of its vocabulary, the words in use.
            embedding, prompts = self.model.text_encoder.get_input_embeddings(), self.model.prompts
            words, prompts.token_ids = prompts.token_ids.unique(return_inverse=True)
            self.model.text_encoder.set_input_embeddings(nn.Embedding.from_pretrained(embedding.weight[words]))
        elif config.use_language:
            with torch.no_grad():
                self.model.keep_text_embeddings()
            self.model.is_fused = True  # so it takes the constant, as a fused model does
            del self.model.text_encoder, self.model.text_projection, self.model.prompts

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits = self.model.segment(pixel_values).logits
        if self.output == "class_map":
            return resize_logits(logits, pixel_values.shape[-2:]).argmax(dim=1)
        return logits


def write(module: ExportableDenseCLIP, file_format: str, path: Path) -> None:
    """
    Write the graph of a module, for any batch size, height and width.

    Raises:
        ValueError: for an image encoder that has no such graph, or weights that are too large for the format.
    """
    num_bytes = sum(tensor.nbytes for tensor in module.state_dict().values())
    if file_format == "onnx" and num_bytes > MAX_ONNX_BYTES:
        raise ValueError(
            f"The weights take {num_bytes / 1e9:.1f} GB, and an ONNX file holds 2. Take a smaller image encoder, or"
            " --format torch."
        )
    dynamic_shapes = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
    try:
        with torch.no_grad():
            program = torch.export.export(
                module, (torch.zeros(TRACED_SHAPE),), dynamic_shapes=dynamic_shapes, strict=False
            )
        if file_format == "onnx":
            save_onnx(program, module.output, path)
    except Exception as error:  # the exporters raise errors of all kinds
        origin = origin_of(error)
        if isinstance(origin, OSError) and origin.errno is not None:  # of the disk
            raise origin from error
        raise ValueError(
            f"A DenseCLIP on the image encoder {module.model.config.vision_config.model_type!r} cannot be exported to"
            f" {file_format}: {first_line(error)}"
        ) from error
    if file_format == "torch":
        torch.export.save(program, path)


def origin_of(error: BaseException) -> BaseException:
    """What an error came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def first_line(error: BaseException) -> str:
    """What an error came from, in one line."""
    error = origin_of(error)
    return textwrap.shorten(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", 200)


def save_onnx(program: ExportedProgram, output: str, path: Path) -> None:
    """Write a program as one ONNX file."""
    from onnxscript import opset18 as op

    def floor_division(dividend, divisor):
        # torch.onnx divides towards zero: rounding up, written -(-side // 32), would round down.
        return op.Div(op.Sub(dividend, op.Mod(dividend, divisor)), divisor)

    def cell_weights(length, num_cells):
        # (num_cells, length): the share that each place has in each cell; cells overlap where they do not divide it.
        firsts = op.Mul(op.Constant(value_ints=list(range(num_cells))), length)
        starts = op.Unsqueeze(op.Div(firsts, num_cells), [1])
        ends = op.Unsqueeze(op.Div(op.Add(op.Add(firsts, length), num_cells - 1), num_cells), [1])
        places = op.Range(0, op.Squeeze(length), 1)
        inside = op.And(op.GreaterOrEqual(places, starts), op.Less(places, ends))
        inside = op.Cast(inside, to=1)  # float32
        return op.Div(inside, op.ReduceSum(inside, [1]))

    def adaptive_average_pool(hidden_states, output_size):
        # As two matrix products: torch.onnx has it for the traced size alone.
        rows = cell_weights(op.Shape(hidden_states, start=2, end=3), output_size[0])
        columns = cell_weights(op.Shape(hidden_states, start=3, end=4), output_size[1])
        return op.MatMul(op.MatMul(rows, hidden_states), op.Transpose(columns, perm=[1, 0]))

    exported = torch.onnx.export(
        program,
        input_names=["pixel_values"],
        output_names=[output],
        dynamic_shapes=({0: "batch_size", 2: "height", 3: "width"},),  # only names: what is dynamic, the program says
        custom_translation_table={
            operator.floordiv: floor_division,
            torch.ops.aten.adaptive_avg_pool2d.default: adaptive_average_pool,
        },
        dynamo=True,
        verbose=False,
    )
    # Where each node came from, with the paths of this machine: as large as a small model.
    exported.model.graph.metadata_props.clear()
    for node in exported.model.graph.all_nodes():
        node.metadata_props.clear()
    exported.save(path, external_data=False)


def load(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """The file as a function of `pixel_values`, on the CPU."""
    if path.suffix == SUFFIXES["torch"]:
        return torch.export.load(path).module()
    session = open_session(path)
    return lambda pixel_values: torch.from_numpy(session.run(None, {"pixel_values": pixel_values.numpy()})[0])


def open_session(path: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a size that does not work is an exception, and need not be printed too
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


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
    # Written so that NaN fails.
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
    scale = logits.std()
    if output == "class_map":
        logits = resize_logits(logits, (height, width))
        worse = logits.amax(dim=1) - logits.gather(1, found[:, None])[:, 0]
    elif found.shape != logits.shape:
        raise ValueError(f"gives {tuple(found.shape)}, the model {tuple(logits.shape)}")
    else:
        worse = (found - logits).abs()
    return (worse.max() / scale).item()


def quantize(source: Path, target: Path, card: dict, method: str, images: Sequence[Path]) -> dict:
    """
    Write an ONNX file in integers of 8 bits, and measure what it costs.

    Returns:
        Numbers of images, and the agreement: the share of pixels in [0, 1] that get the class of the float file.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # It folds batch norms into convolutions.
    folded = source.with_name("folded.onnx")
    quant_pre_process(source, folded, skip_symbolic_shape=True)
    calibrating, measuring = (images[::2], images[1::2]) if method == "static" else ([], images)
    if method == "dynamic":
        quantize_dynamic(folded, target, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True)
    else:

        class Photographs(CalibrationDataReader):
            def __init__(self):
                self.remaining = iter(calibrating)

            def get_next(self) -> dict[str, np.ndarray] | None:
                image = next(self.remaining, None)
                return None if image is None else {"pixel_values": prepare(np.asarray(read_photograph(image)), card)}

        quantize_static(
            folded,
            target,
            Photographs(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    before, after = open_session(source), open_session(target)
    equal = total = 0
    for image in measuring:
        picture = np.asarray(read_photograph(image))
        same = segment(before, card, picture) == segment(after, card, picture)
        equal, total = equal + int(same.sum()), total + same.size
    return {
        "method": method,
        "agreement": equal / total,
        "num_calibration_images": len(calibrating),
        "num_measured_images": len(measuring),
    }


def describe_quantization(report: dict, before: int, after: int) -> str:
    """Sizes in bytes."""
    calibrated = f", calibrated on {report['num_calibration_images']} others" if report["method"] == "static" else ""
    return (
        f"int8, {report['method']}: {100 * report['agreement']:.2f} % of the pixels of"
        f" {report['num_measured_images']} images have the class of the float file{calibrated};"
        f" {before / 1e6:.1f} MB -> {after / 1e6:.1f} MB."
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
