# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Formats of exported files.

A format is a class with what `TorchFormat` has, and an entry in `FORMATS`.
"""

import json
import operator
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from modeling_denseclip import sizes_denseclip
from modeling_denseclip.tools.files import photographs
from modeling_denseclip.tools.files.saving import move_together

from .. import REPOSITORY
from . import transformers_js
from .standalone import join_texts


# The program that runs an ONNX file. It imports nothing of the checkout, so it stands outside of the rooms.
RUNNER = REPOSITORY / "training" / "run_onnx.py"
# Operators whose sums float16 may not hold, and Gemm, of which onnxruntime has none for CPUs and says so each time.
KEPT_IN_FLOAT32 = ("Gemm", "LayerNormalization", "Pow", "ReduceL2", "ReduceSum", "ReduceSumSquare", "Softmax")
# First line of a copy of `RUNNER`.
COPY_MARK = "# Written by training.export: run_onnx.py and photographs.py of the DenseCLIP repository in one file.\n"


class TorchFormat:
    """A program of `torch.export`."""

    name = "torch"
    suffix = ".pt2"
    runtime = "the program"  # what computes, in words
    model_options = {}  # for `from_pretrained` of the model that is exported
    max_bytes = float("inf")  # of the weights
    inputs = ("pixel_values",)  # what a file may take,
    outputs = ("logits", "class_map")  # and give
    smaller_kinds = ()  # of numbers than float32
    slides = True  # whether windows may slide over images, outside of the file
    prepares_pictures = False  # whether `pixel_values` are pictures that the file has to prepare
    holds_all_kinds = False  # whether what is written holds each kind of numbers, or one
    hint = "what prepares pictures is written for --format onnx."  # for words that do not go with the format

    def check_target(self, target: Path) -> None:
        """Raise a ValueError for a place where this format is not written."""
        if target.suffix != self.suffix or target.is_dir():
            raise ValueError(f"--format {self.name} writes a file that ends in {self.suffix}; got {target}.")

    def check_packages(self) -> None:
        """Raise a ValueError for a package that the format needs and that is not installed."""

    def trace(self, module: nn.Module, example: torch.Tensor, dynamic_shapes: tuple) -> ExportedProgram:
        """The graph of a module, which `convert` takes."""
        return torch.export.export(module, (example,), dynamic_shapes=dynamic_shapes, strict=False)

    def convert(self, program: ExportedProgram, output: str):
        """The program in this format; `output` is what it computes, `"logits"` or `"class_map"`."""
        return program

    def save(self, converted, path: Path) -> None:
        torch.export.save(converted, path)

    def load(self, path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
        """The file as a function of its input, on the CPU."""
        return torch.export.load(path).module()

    def put_in_place(self, kinds: dict[str, Path], target: Path, card: dict) -> str:
        """
        Write what belongs beside the files, and move all to where it belongs.

        Args:
            kinds (`dict[str, Path]`): `"float32"`, and those of `smaller_kinds` that were asked for -> the files. They
                lie in a folder of their own on the file system of `target`.
            target (`Path`): where to.
            card (`dict`): what a program that runs the file has to know.

        Returns:
            `str`: what was written, in words.
        """
        *_, file = kinds.values()  # the one that was asked for
        folder = file.parent
        file.replace(folder / target.name)
        card_file = folder / f"{target.name}.json"
        lines = (f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in card.items())
        card_file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        names = [*self.write_programs(folder, target), target.name, card_file.name]
        move_together(folder, target.parent, names)
        others = [str(target.with_name(name)) for name in (card_file.name, *names[:-2])]
        return ", ".join([f"{target} ({target.stat().st_size / 1e6:.1f} MB)", *others])

    def write_programs(self, folder: Path, target: Path) -> list[str]:
        """Programs that belong beside `target`, written into `folder`; returns their names."""
        return []


class OnnxFormat(TorchFormat):
    """ONNX, for onnxruntime."""

    name = "onnx"
    suffix = ".onnx"
    runtime = "onnxruntime"
    # There is no operator of fused attention in the ONNX that is written; without it, Swin can be exported too.
    model_options = {"attn_implementation": "eager"}
    max_bytes = 2**31 - 1  # what a protobuf, and so an ONNX file, can hold
    inputs = ("pixel_values", "pictures")
    smaller_kinds = ("float16", "int8")

    def check_packages(self) -> None:
        try:
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ValueError(
                f'ONNX needs a package that is not installed, {error.name!r}: pip install ".[export]"'
            ) from error

    def convert(self, program: ExportedProgram, output: str):
        from onnxscript import opset18 as op

        def floor_division(dividend, divisor):
            # torch.onnx divides towards zero: rounding up, written -(-side // 32), would round down.
            return op.Div(op.Sub(dividend, op.Mod(dividend, divisor)), divisor)

        def cell_weights(length, num_cells):
            # (num_cells, length): the share of each place in each cell; cells overlap where they do not divide length.
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
            dynamic_shapes=({0: "batch_size", 2: "height", 3: "width"},),  # names alone; the program says what varies
            custom_translation_table={
                operator.floordiv: floor_division,
                torch.ops.aten.adaptive_avg_pool2d.default: adaptive_average_pool,
            },
            dynamo=True,
            verbose=False,
        )
        # These say where each node came from, with the paths of this machine, and are as large as a small model.
        exported.model.graph.metadata_props.clear()
        for node in exported.model.graph.all_nodes():
            node.metadata_props.clear()
        return exported

    def save(self, converted, path: Path) -> None:
        converted.save(path, external_data=False)

    def load(self, path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
        session = open_session(path)
        (taken,) = session.get_inputs()
        return lambda values: torch.from_numpy(session.run(None, {taken.name: values.numpy()})[0])

    def write_programs(self, folder: Path, target: Path) -> list[str]:
        if not may_replace(target.with_name(RUNNER.name)):
            return []
        (folder / RUNNER.name).write_text(copy_runner(), encoding="utf-8")
        return [RUNNER.name]


class TransformersJsFormat(OnnxFormat):
    """A folder for transformers.js, with a file of each kind of numbers."""

    name = "transformers.js"
    suffix = ""
    outputs = ("logits",)
    inputs = ("pixel_values",)
    slides = False
    prepares_pictures = True
    holds_all_kinds = True
    hint = "the library makes the input, and enlarges the logits, by itself. Leave it out."

    def check_target(self, target: Path) -> None:
        transformers_js.check_target(target)

    def put_in_place(self, kinds: dict[str, Path], target: Path, card: dict) -> str:
        return transformers_js.write_folder(kinds, target, card)


FORMATS = {file_format.name: file_format for file_format in (OnnxFormat(), TorchFormat(), TransformersJsFormat())}


def open_session(path: Path):
    """A session of onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # an error is raised, and need not be printed too
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def copy_runner() -> str:
    """The text of `run_onnx.py` with those of the files in it that it loads, so that it needs no checkout."""
    return COPY_MARK + join_texts(RUNNER, (photographs, sizes_denseclip))


def may_replace(runner: Path) -> bool:
    """Whether there is no file, or a copy of `RUNNER`: not the original, or one that somebody else wrote or edited."""
    return not runner.exists() or (runner.is_file() and runner.read_bytes().startswith(COPY_MARK.encode()))


def quantize(source: Path, target: Path, card: dict, method: str, images: Sequence[Path]) -> dict:
    """
    Write an ONNX file in integers of 8 bits, and measure what it costs.

    Returns:
        Numbers of images, and the agreement: the share of pixels in [0, 1] that get the class of the float file.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from ..run_onnx import prepare, read_picture

    # This folds batch norms into convolutions.
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
                return None if image is None else {"pixel_values": prepare(read_picture(image), card)}

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
    return {
        "method": method,
        "agreement": agreement(source, target, card, measuring),
        "num_calibration_images": len(calibrating),
        "num_measured_images": len(measuring),
    }


def halve(source: Path, target: Path, card: dict, images: Sequence[Path]) -> dict:
    """
    Write an ONNX file in float16, which takes and gives float32, and measure what it costs.

    Returns:
        The number of images, and the agreement: the share of pixels in [0, 1] that get the class of the float32 file.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    kept = [*DEFAULT_OP_BLOCK_LIST, *KEPT_IN_FLOAT32]
    model = convert_float_to_float16(onnx.load(source), keep_io_types=True, op_block_list=kept)
    OnnxModel.graph_topological_sort(model.graph)  # casts stand behind what takes them
    onnx.save(model, target)
    return {"agreement": agreement(source, target, card, images), "num_measured_images": len(images)}


def agreement(source: Path, target: Path, card: dict, images: Sequence[Path]) -> float:
    """The share of the pixels of images, in [0, 1], that get the same class by two files that take `pixel_values`."""
    from ..run_onnx import read_picture, segment

    before, after = open_session(source), open_session(target)
    equal = total = 0
    for image in images:
        picture = read_picture(image)
        same = segment(before, card, picture) == segment(after, card, picture)
        equal, total = equal + int(same.sum()), total + same.size
    return equal / total


def describe_smaller_kind(kind: str, report: dict, before: int, after: int) -> str:
    """Sizes in bytes."""
    calibrated = ""
    if report.get("method") == "static":
        calibrated = f", calibrated on {report['num_calibration_images']} others"
    words = ", ".join([kind, *([report["method"]] if "method" in report else [])])
    return (
        f"{words}: {100 * report['agreement']:.2f} % of the pixels of"
        f" {report['num_measured_images']} images have the class of the float file{calibrated};"
        f" {before / 1e6:.1f} MB -> {after / 1e6:.1f} MB."
    )
