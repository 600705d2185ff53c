# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Segment photographs by a file that `python -m training.export` wrote.

    python run_onnx.py model.onnx street.jpg --output maps

It needs onnxruntime, NumPy, OpenCV and Pillow, not PyTorch; with `--runtime openvino` also OpenVINO, which computes
then, by the same file. What it knows of the model stands in `model.onnx.json`.
In a checkout it reads photographs by `modeling_denseclip/tools/files/photographs.py` and resizes them by the rule of
`modeling_denseclip/sizes_denseclip.py`. The copy that `training.export` writes beside a model holds the texts of both
files, and needs nothing else of this repository: take it to where the model runs.
"""

import argparse
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import onnxruntime
import PIL.Image
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException


# Begin: in the copy that training.export writes, the texts of these files stand in the place of these lines.
PACKAGE = Path(__file__).resolve().parents[1] / "modeling_denseclip"


def load_file(path: Path) -> ModuleType:
    """A file of the checkout as a module, without the package around it, which needs PyTorch."""
    if not path.is_file():
        print(
            f"error: {__file__} needs {path}, which is not there. Outside of a checkout, run the copy that"
            " training.export writes beside a model.",
            file=sys.stderr,
        )
        sys.exit(2)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


read_photograph = load_file(PACKAGE / "tools" / "files" / "photographs.py").read_photograph
resized_size = load_file(PACKAGE / "sizes_denseclip.py").resized_size
# End


RUNTIMES = ("onnxruntime", "openvino")
# What terminals obey, in names of classes and files: control characters, and marks that turn the order of letters.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class OpenVINOSession:
    """
    A file in OpenVINO, on the CPU, with what is used here of `onnxruntime.InferenceSession`. What is no integer is
    computed in float32: by itself OpenVINO takes bfloat16 where the processor has it.
    """

    def __init__(self, path: str | Path, num_threads: int = 0):
        try:
            import openvino
        except ImportError as error:
            raise ImportError(f"--runtime openvino: {error}. pip install openvino") from error
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": num_threads}  # 0: as many as there are
        self.model = openvino.Core().compile_model(path, "CPU", options)

    def get_inputs(self) -> list:
        return [SimpleNamespace(name=port.any_name) for port in self.model.inputs]

    def run(self, output_names: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [self.model(feed)[0]]


def open_session(path: str | Path, runtime: str) -> onnxruntime.InferenceSession | OpenVINOSession:
    """A file on the CPU."""
    if runtime == "openvino":
        return OpenVINOSession(path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def load(
    path: str | Path, runtime: str = "onnxruntime"
) -> tuple[onnxruntime.InferenceSession | OpenVINOSession, dict]:
    """
    The model, on the CPU, and what `PATH.json` says of it; `runtime` is one of `RUNTIMES`.

    Raises:
        OSError: for a file that is not there.
        ValueError: for files of which one is broken or not what `training.export` writes.
        ImportError: for OpenVINO that is not installed.
    """
    try:
        card = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
        check_card(card)
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path}.json is not what training.export writes beside a model ({type(error).__name__}: {error}). Export"
            " it anew."
        ) from error
    try:
        session = open_session(path, runtime)
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # onnxruntime has a class of errors for each of its codes
        raise ValueError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    inputs = [value.name for value in session.get_inputs()]
    if inputs != [takes(card)]:
        raise ValueError(f"{path} takes {', '.join(inputs)}, and {path}.json says that it takes {takes(card)} alone.")
    return session, card


def takes(card: dict) -> str:
    """The input of the file: `pixel_values`, which `prepare` makes, or `pictures` as they are."""
    return card.get("takes", "pixel_values")  # of files of the last release


def check_card(card: dict) -> None:
    """Use every field as it is used later on, so that a card that somebody has edited raises its error here."""
    names, rule, windows = card["class_names"], card["image_processor"], card["windows"]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names are no list of names")
    if len(names) <= 256:
        np.array(card["palette"], dtype=np.uint8).reshape(len(names), 3)
    if rule["size"] is not None:
        resized_size(1, 1, rule["size"])
    for field, shape in (("rescale_factor", ()), ("image_mean", 3), ("image_std", 3)):
        np.array(rule[field], dtype=np.float32).reshape(shape)
    if windows is not None:
        for field in ("size", "stride"):
            if not min(np.array(windows[field], dtype=np.int64).reshape(2)) > 0:
                raise ValueError(f"windows have a {field} that is not positive")
    if card["output"] not in ("logits", "class_map") or not card["smallest_side"] >= 1:
        raise ValueError(f"output {card['output']!r} or smallest_side {card['smallest_side']!r}")
    if takes(card) not in ("pixel_values", "pictures") or (takes(card) == "pictures" and windows is not None):
        raise ValueError(f"takes {takes(card)!r}, windows {windows!r}")


def save_whole(mask: PIL.Image.Image, target: Path) -> None:
    """
    Write a map, which replaces an older one when it is complete.

    Raises:
        OSError: where it cannot be written, such as on a full disk; names `target`.
    """
    part = target.parent / f".run_onnx-{os.getpid()}.png"
    try:
        mask.save(part)
        os.replace(part, target)
    except OSError as error:
        raise OSError(f"{target} could not be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def printable(text: object) -> str:
    """With escapes, such as `\\x1b`, for what a terminal would obey."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def read_picture(path: str | Path) -> np.ndarray:
    """
    The upright photograph, uint8 of shape `(height, width, 3)`, RGB; greys of 16 bits are scaled as in training.

    Raises:
        OSError: for a file that is not there, no image, or broken.
        ValueError: for one of more bands or another type of numbers than can be read.
    """
    return np.asarray(read_photograph(path))


def size_for_model(picture: np.ndarray, card: dict) -> tuple[int, int]:
    """
    Height and width of a picture when the model sees it, in pixels.

    Raises:
        ValueError: for a picture that is too small.
    """
    size = card["image_processor"]["size"]
    height, width = picture.shape[:2] if size is None else resized_size(*picture.shape[:2], size)
    if min(height, width) < card["smallest_side"]:
        # What is in the JSON beside a file that takes pictures is in the file too.
        where = " before" if takes(card) == "pictures" else ", or `size` in the JSON beside the file"
        raise ValueError(
            f"The picture is {height} x {width} pixels when the model sees it, and this file was found right from"
            f" {card['smallest_side']} pixels on. Enlarge the picture{where}."
        )
    return height, width


def prepare(picture: np.ndarray, card: dict) -> np.ndarray:
    """
    A picture as the model takes it: uint8 `(height, width, 3)` -> float32 `(1, 3, resized_height, resized_width)`.

    Raises:
        ValueError: as [`size_for_model`].
    """
    rule = card["image_processor"]
    height, width = size_for_model(picture, card)
    # Without antialiasing, as in training.
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    resized = resized * np.float32(rule["rescale_factor"])
    resized = (resized - np.float32(rule["image_mean"])) / np.float32(rule["image_std"])
    return np.ascontiguousarray(resized.transpose(2, 0, 1)[None])


def segment(session: onnxruntime.InferenceSession | OpenVINOSession, card: dict, picture: np.ndarray) -> np.ndarray:
    """The class id of each pixel of a picture: uint8 `(height, width, 3)` -> int64 `(height, width)`."""
    if takes(card) == "pictures":
        size_for_model(picture, card)
        (found,) = session.run(None, {"pictures": np.ascontiguousarray(picture[None])})[0]
        return found.astype(np.int64) if card["output"] == "class_map" else best_classes(found, *picture.shape[:2])
    pixel_values = prepare(picture, card)
    if card["output"] == "class_map":
        classes = session.run(None, {"pixel_values": pixel_values})[0][0].astype(np.int32)
        return cv2.resize(classes, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(np.int64)
    return best_classes(run(session, card, pixel_values), *picture.shape[:2])


def run(session: onnxruntime.InferenceSession | OpenVINOSession, card: dict, pixel_values: np.ndarray) -> np.ndarray:
    """The logits of one image, `(num_labels, height / 4, width / 4)`, or of full size where windows slide over it."""
    windows, (height, width) = card["windows"], pixel_values.shape[2:]
    if windows is None or (height <= windows["size"][0] and width <= windows["size"][1]):
        return session.run(None, {"pixel_values": pixel_values})[0][0]
    window_height, window_width = min(windows["size"][0], height), min(windows["size"][1], width)
    logits = np.zeros((len(card["class_names"]), height, width), dtype=np.float32)
    counts = np.zeros((height, width), dtype=np.float32)
    for top in window_starts(height, window_height, windows["stride"][0]):
        for left in window_starts(width, window_width, windows["stride"][1]):
            rows, columns = slice(top, top + window_height), slice(left, left + window_width)
            window = np.ascontiguousarray(pixel_values[:, :, rows, columns])
            for class_logits, part in zip(logits, session.run(None, {"pixel_values": window})[0][0], strict=True):
                class_logits[rows, columns] += cv2.resize(part, (window_width, window_height))
            counts[rows, columns] += 1
    return logits / counts


def window_starts(length: int, window: int, stride: int) -> Iterator[int]:
    """First pixel of each window along one side; the last window ends with the image."""
    yield from range(0, length - window, stride)
    yield length - window


def best_classes(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    """
    The best class of each pixel: float32 `(num_labels, ...)` -> int64 `(height, width)`. One class is enlarged at a
    time; all of them, for 150 classes and a photograph of 12 megapixels, would take 7 GB.
    """
    best, classes = np.full((height, width), -np.inf, dtype=np.float32), np.zeros((height, width), dtype=np.int64)
    for class_id, class_logits in enumerate(logits):
        scores = cv2.resize(class_logits, (width, height), interpolation=cv2.INTER_LINEAR)
        is_better = scores > best
        best[is_better], classes[is_better] = scores[is_better], class_id
    return classes


def choose_targets(images: list[Path], output: Path) -> dict[Path, Path]:
    """
    The map to write for each photograph.

    Raises:
        ValueError: where a map would replace another, or a photograph, or has too long a name.
    """
    inputs, sources, targets = {os.path.realpath(image) for image in images}, {}, {}
    for image in images:
        target = output / f"{image.stem}-classes.png"
        source = sources.setdefault(target, image)
        if os.path.realpath(source) != os.path.realpath(image):
            raise ValueError(f"{source} and {image} would both become {target}: give each an --output of its own.")
        if os.path.realpath(target) in inputs:
            raise ValueError(f"{target} is one of the photographs and would be replaced: choose another --output.")
        if len(os.fsencode(target.name)) > 255:
            raise ValueError(f"The name of {image} is too long: {target.name} has more than 255 bytes. Shorten it.")
        targets[source] = target
    return targets


def main(argv: Sequence[str] | None = None) -> int:
    """
    Returns 0, or 1 where photographs were left out, which are named.

    Raises:
        OSError: for a model that is not there, or maps that cannot be written.
        ValueError: for empty words, and as [`choose_targets`].
    """
    parser = argparse.ArgumentParser(
        description="Segment photographs by an exported model: writes the class id of each pixel, IMAGE-classes.png."
    )
    parser.add_argument("model", metavar="MODEL.onnx", help="with MODEL.onnx.json beside it")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="photographs")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder for the maps")
    parser.add_argument("--runtime", choices=RUNTIMES, default="onnxruntime", help="what computes")
    args = parser.parse_args(argv)
    if not all(word.strip() for word in (args.model, args.output, *args.images)):
        raise ValueError("A word is empty, as of a variable that is not set. It would stand for the current folder.")
    targets = choose_targets(list(map(Path, args.images)), Path(args.output))
    session, card = load(args.model, args.runtime)
    names = card["class_names"]
    Path(args.output).mkdir(parents=True, exist_ok=True)
    left_out = 0
    for image, target in targets.items():
        try:
            classes = segment(session, card, read_picture(image))
        except (OSError, ValueError, MemoryError, cv2.error, RuntimeException, RuntimeError) as error:
            reason = str(error) or "It needs more memory than there is."
            print(printable(f"left out: {image}: {reason}"), file=sys.stderr)
            left_out += 1
            continue
        if classes.max() >= len(names):
            raise ValueError(f"{args.model} has more classes than the {len(names)} that {args.model}.json names.")
        if len(names) <= 256:
            # Class ids that any viewer shows in the colours of the classes.
            mask = PIL.Image.fromarray(classes.astype(np.uint8))
            mask.putpalette([channel for color in card["palette"] for channel in color])
        else:
            mask = PIL.Image.fromarray(classes.astype(np.uint16))
        save_whole(mask, target)
        shares = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
        found = sorted(np.flatnonzero(shares), key=lambda class_id: -shares[class_id])
        areas = ", ".join(f"{names[class_id]} {100 * shares[class_id]:.1f} %" for class_id in found)
        print(printable(f"{target}: {areas}"))
    return 1 if left_out else 0


if __name__ == "__main__":
    # Names of classes and files may hold letters that the encoding of a terminal or a pipe lacks.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except (ImportError, MemoryError, OSError, ValueError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(130)
