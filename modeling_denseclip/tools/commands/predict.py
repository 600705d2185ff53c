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
r"""`denseclip predict`: photographs and videos -> overlays, id masks, and a JSON of classes with areas and scores."""

import argparse
import fnmatch
import glob
import itertools
import json
import math
import os
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL.Image
import torch
from tqdm import tqdm

from ...image_processing_denseclip import DenseCLIPImageProcessor
from ...modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPSemanticSegmenterOutput
from ...multi_scale_denseclip import PAPER_SCALES, average_probabilities, scaled_size
from ..command import escape_controls
from ..files.loading import TooLittleMemoryError, choose_device, load_model, naming_lack_of_memory
from ..files.photographs import IMAGE_SUFFIXES, open_file, read_photograph
from ..files.saving import save_whole
from ..insight.text_scores import describe, draw_scores, format_scores
from ..pictures.drawing import draw_overlay
from ..pictures.palettes import color_blind_palette, generate_palette


VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
PREDICTIONS = "predictions.json"
# What a call of the model takes for windows as its config has them.
MODEL_WINDOW = {"inference_mode": None, "window_size": None, "window_stride": None}
JPEG_QUALITY = 90
OVERLAY_SIDE = 1600  # the longer side of the photograph under an overlay, at most
# A palette PNG holds no more ids.
PALETTE_SIZE = 256
# How many classes the line about a photograph names.
NAMED_CLASSES = 4
# Raised of broken files, and of those that do not serve.
LEFT_OUT = (OSError, ValueError)
# What an MP4 or a MOV begins with, behind the length of it.
MOVIE_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
MATROSKA = b"\x1a\x45\xdf\xa3"  # and WebM
FRAMES_PER_SECOND = 65535  # that an MPEG-4 can have
# How many frames may be broken, one behind the other, before the rest of a video is given up: where its header does
# not say that there are more, and where it does.
LOST_FRAMES = (16, 10_000)
NAME_BYTES = 255  # of the name of a file, at most, on nearly all file systems

Item = TypeVar("Item")

EPILOG = f"""files that are written, below --out:
  NAME-overlay.jpg  the photograph, of {OVERLAY_SIDE} pixels at most, under the colours
                    of its classes, beside a legend of names and areas
  NAME-mask.png     the id of each pixel's class, in the size of the upright
                    photograph: a PNG whose palette has the classes' colours,
                    or of 16-bit greys for more than {PALETTE_SIZE} classes
  NAME-overlay.mp4  of a video: the overlay alone, without sound
  NAME-texts.png    with --text, instead: where each text matches
  {PREDICTIONS}  for programs: each file's classes, their areas and scores

A folder is searched at all depths, and the folders in it come again below
--out. A file that is there already is replaced as a whole, once the new one
is complete; {PREDICTIONS}, written at the end, tells of this run alone.
A file or folder that cannot be read, or for which memory does not suffice, is
named and left out; so are frames of a video. Then the exit status is 1. Links
to files are followed, links to folders only where they are named.

In {PREDICTIONS} a name that is not UTF-8 has each byte of another encoding as
\\udcXX: Python's os.fsencode makes of it the name on the disk.

The area of a class is in pixels, and as a share of the picture, in [0, 1].
Its score is the mean of its softmax probability over its pixels, the same as
of pipeline("image-segmentation").

examples:
  denseclip predict street.jpg --model user/model --out results
  denseclip predict photos "more/*/left.png" --model user/model --out results
  denseclip predict drive.mp4 --model user/model --out results --batch_size 8
  denseclip predict wide.jpg --model user/model --out results --window 512
  denseclip predict street.jpg --model user/model --out results \\
      --text "a bus stop" "a bicycle"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help='photographs, videos, folders, and patterns in quotes ("photos/**/*.jpg")',
    )
    parser.add_argument("--model", required=True, help="a DenseCLIP: a folder, or the id of a repository on the Hub")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the results; made if it is missing")
    parser.add_argument(
        "--text",
        metavar="TEXT",
        nargs="+",
        help="show where any words match instead, by the score map: cosines of CLIP's kind, no masks. The decode head,"
        " which knows the classes of the training alone, takes no part",
    )
    parser.add_argument(
        "--window",
        metavar="WINDOW",
        type=parse_window,
        default=MODEL_WINDOW,
        help='"whole", "slide" (the windows of the model\'s config), or SIZE or SIZE,STRIDE in pixels of the prepared'
        " image, for overlapping windows; STRIDE is two thirds of SIZE if not said. By default as the config says",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help=f"average over {len(PAPER_SCALES)} sizes of the photograph, each seen mirrored too, as the paper's"
        " multi-scale and flip: the model sees 17 times the pixels",
    )
    parser.add_argument(
        "--batch_size",
        metavar="N",
        type=positive_integer,
        default=4,
        help="photographs of one size, one behind the other, or frames, that go through the model at once (default:"
        " 4). Nothing is padded",
    )
    parser.add_argument(
        "--palette",
        choices=("auto", "colorblind"),
        default="auto",
        help="colours: the model's, or else generated ones (auto); or ones that colour-blind people tell apart, as far"
        " as the number of classes allows",
    )
    parser.add_argument("--device", help="such as cpu, cuda:1 or mps. By default a GPU of CUDA if there is one")


def positive_integer(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more; got {word}")
    return number


def parse_window(word: str) -> dict[str, Any]:
    """What a call of the model takes for `--window`."""
    if word in ("whole", "slide"):
        return {**MODEL_WINDOW, "inference_mode": word}
    try:
        size, *others = (int(number) for number in word.split(","))
    except ValueError:
        size, others = 0, []
    stride = others[0] if others else 2 * size // 3
    # How small a window may be depends on the model, which is not loaded yet.
    if len(others) > 1 or not 0 < stride <= size:
        raise argparse.ArgumentTypeError(
            f'must be "whole", "slide", SIZE or SIZE,STRIDE, with STRIDE of 1 to SIZE pixels; got {word!r}'
        )
    return {"inference_mode": "slide", "window_size": size, "window_stride": stride}


# --- Which files -----------------------------------------------------------------------------------------------------


def find_inputs(words: Sequence[str], output: Path, left_out: dict[Path, str] | None = None) -> dict[Path, Path]:
    """
    The photographs and videos that words name, each once, and what their results are called.

    Args:
        words (`Sequence[str]`): files, folders and patterns. A folder stands for the photographs and videos in it, at
            all depths, without hidden ones; a pattern for those that it fits. What lies below `output` is left out.
        output (`Path`): folder for the results.
        left_out (`dict[Path, str]`, *optional*): gets folders that cannot be read, and why.

    Returns:
        `dict[Path, Path]`: file -> its path, without the suffix, below the folder or below the fixed part of the
        pattern; of a file that is named itself the name alone.

    Raises:
        ValueError: for a word that stands for nothing.
        OSError: for a folder that cannot be read, if `left_out` is not given.
    """
    names, seen = {}, set()
    for word in words:
        for file, name in expand(word, output, left_out):
            place = os.path.realpath(file)
            if place not in seen:
                seen.add(place)
                names[file] = name.with_name(name.stem)
    return names


def expand(word: str, output: Path, left_out: dict[Path, str] | None) -> list[tuple[Path, Path]]:
    """Files that a word stands for, and their paths below what it fixes; see `find_inputs`."""

    def note(error: OSError) -> None:
        if left_out is None:
            raise error
        if Path(error.filename) not in left_out:
            leave_out(Path(error.filename), error, left_out)

    path = Path(word)
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        root, found = path, search(path, ["**"], note)
    elif glob.has_magic(word):
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        found = search(root, path.parts[len(root.parts) :], note)
    elif os.path.lexists(path):
        raise ValueError(f"{word} is neither a file nor a folder: it is a device or a pipe, or a link that is broken.")
    else:
        raise ValueError(f"{word}: there is no such file or folder.")
    top, results = os.path.realpath(root), os.path.realpath(output)
    if top == results:
        raise ValueError(
            f"--out {output} is the folder that {word} is looked for in, where results would be taken for photographs"
            " the next time: choose another, which may lie in it."
        )
    # With --out above all of them, everything lies in it.
    has_results = not Path(top).is_relative_to(results)
    files = []
    for file in sorted(set(found)):
        below = file.relative_to(root)
        is_hidden = any(part.startswith(".") for part in below.parts)
        is_result = has_results and os.path.realpath(file).startswith(os.path.join(results, ""))
        if file.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES and not (
            is_hidden or is_result or os.path.isdir(file)
        ):
            files.append((file, below))
    if not files:
        suffixes = ", ".join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)
        raise ValueError(
            f"{word}: no photograph or video was found there. They are known by their suffix: {suffixes}."
        )
    return files


def search(folder: Path, parts: Sequence[str], note: Callable[[OSError], None]) -> Iterator[Path]:
    """
    What a pattern fits below a folder. `**`, for folders at all depths, follows no links: they may lead back to where
    they lie, and then there are more paths than any run could go through.

    Args:
        folder (`Path`): where the first part of the pattern is looked for.
        parts (`Sequence[str]`): the pattern. At its end, `**` stands for all files.
        note (`Callable[[OSError], None]`): is called for each folder that cannot be read.
    """
    first, *rest = parts
    if first == "**":
        rest = list(itertools.dropwhile(lambda part: part == "**", rest))
        for deeper, _, files in os.walk(folder, onerror=note):
            if len(rest) <= 1:
                yield from (Path(deeper, name) for name in (fnmatch.filter(files, rest[0]) if rest else files))
            else:
                yield from search(Path(deeper), rest, note)
        return
    try:
        names = fnmatch.filter(os.listdir(folder), first) if glob.has_magic(first) else [first]
    except OSError as error:
        note(error)
        return
    for path in (folder / name for name in names):
        if not rest:
            if os.path.lexists(path):
                yield path
        elif os.path.isdir(path):
            yield from search(path, rest, note)


def choose_targets(names: dict[Path, Path], output: Path, has_texts: bool) -> dict[Path, list[Path]]:
    """
    The files to write for each input.

    Args:
        names (`dict[Path, Path]`): from `find_inputs`.
        output (`Path`): folder for the results.
        has_texts (`bool`): whether texts are scored.

    Raises:
        ValueError: where a result would replace another, or an input, or its name is too long.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"--out {output} is a file; it must be a folder.")
    inputs = {os.path.realpath(file) for file in names}
    targets, sources, alike = {}, {}, {}
    for file, name in names.items():
        endings = ["-overlay.jpg", "-mask.png"]
        if is_video(file):
            endings = ["-overlay.mp4"]
        elif has_texts:
            endings = ["-texts.png"]
        targets[file] = [output / name.with_name(f"{name.name}{ending}") for ending in endings]
        for target in targets[file]:
            # Some file systems take upper and lower case, or the two ways to write an accent, for the same.
            other = alike.setdefault(unicodedata.normalize("NFC", str(target)).casefold(), target)
            if target in sources or (other != target and not tells_apart(output, other, target)):
                raise ValueError(
                    f"{sources[other]} and {file} would both become {target}: name a folder above both, or give each"
                    " an --out of its own."
                )
            if os.path.realpath(target) in inputs:
                raise ValueError(f"{target} is one of the inputs and would be replaced: choose another --out.")
            check_name(target, file)
            sources[target] = file
    return targets


def tells_apart(folder: Path, first: Path, second: Path) -> bool:
    """Whether two paths below a folder, which may have to be made yet, are two files on its file system."""
    first, second = first.relative_to(folder), second.relative_to(folder)
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as trial:
        Path(trial, first).parent.mkdir(parents=True, exist_ok=True)
        Path(trial, first).touch()
        return not Path(trial, second).exists()


def check_name(target: Path, file: Path | str) -> None:
    """
    Raises:
        ValueError: for a result whose name is longer than file systems take.
    """
    length = len(os.fsencode(target.name))
    if length > NAME_BYTES:
        raise ValueError(
            f"The name of {file} is too long for its results: {target.name} has {length} bytes, and {NAME_BYTES} are"
            " the limit. Give it a shorter name."
        )


def is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEO_SUFFIXES


# --- Predictions -----------------------------------------------------------------------------------------------------


class Predictor:
    """
    What all predictions of photographs share.

    Args:
        model ([`DenseCLIPForSemanticSegmentation`]): in evaluation mode.
        image_processor ([`DenseCLIPImageProcessor`]): prepares the images, without padding.
        scales (`Sequence[float]`, *optional*, defaults to `(1.0,)`): of the image processor's size.
    """

    def __init__(
        self,
        model: DenseCLIPForSemanticSegmentation,
        image_processor: DenseCLIPImageProcessor,
        scales: Sequence[float] = (1.0,),
    ):
        self.model = model
        self.image_processor = image_processor
        self.scales = scales
        smaller = "make it smaller" if model.device.type == "cpu" else "--device cpu"
        self.memory_advice = f"{model.device} has too little memory for this: try --batch_size 1, or {smaller}."

    def check(self, photograph: PIL.Image.Image) -> None:
        """
        Raises:
            ValueError: for a photograph that is too small or too narrow for the model.
        """
        height, width = min((self.prepared_size(photograph, scale) for scale in self.scales), key=min)
        if min(height, width) < self.model.min_image_size:
            raise ValueError(
                f"A photograph of {photograph.height} x {photograph.width} pixels (height x width) is {height} x"
                f" {width} as the model sees it, and both sides must have at least {self.model.min_image_size}."
            )

    def prepared_size(self, photograph: PIL.Image.Image, scale: float = 1.0) -> tuple[int, int]:
        """Height and width of what the model sees."""
        size = photograph.size[::-1]
        if not self.image_processor.do_resize:
            return size
        return self.image_processor.get_resized_size(*size, scaled_size(self.image_processor.size, scale))

    def prepare(self, photographs: Sequence[PIL.Image.Image], scale: float = 1.0) -> torch.Tensor:
        """Photographs of one size -> `(batch_size, 3, height, width)`."""
        inputs = self.image_processor(
            list(photographs), size=scaled_size(self.image_processor.size, scale), return_tensors="pt"
        )
        return inputs.pixel_values.to(self.model.device, self.model.dtype)


class ClassPredictor(Predictor):
    """
    The class of each pixel.

    Args:
        model ([`DenseCLIPForSemanticSegmentation`]): in evaluation mode.
        image_processor ([`DenseCLIPImageProcessor`]): prepares the images, without padding.
        palette (`Sequence` of RGB triples in [0, 255]): one colour per class.
        window (`dict[str, Any]`, *optional*): what a call of the model says about sliding windows.
        use_tta (`bool`, *optional*, defaults to `False`): average over the scales of the paper, each mirrored too.

    Raises:
        ValueError: for an image processor that does not resize, where several sizes are asked for.
    """

    def __init__(
        self,
        model: DenseCLIPForSemanticSegmentation,
        image_processor: DenseCLIPImageProcessor,
        palette: Sequence[Sequence[int]],
        window: dict[str, Any] | None = None,
        use_tta: bool = False,
    ):
        super().__init__(model, image_processor, PAPER_SCALES if use_tta else (1.0,))
        if use_tta and not image_processor.do_resize:
            raise ValueError("The images of this model are not resized (`do_resize`), so --tta has no sizes for them.")
        self.palette = palette
        self.window = window or {}
        self.use_tta = use_tta
        self.labels = [model.config.id2label[index] for index in range(model.config.num_labels)]

    @torch.no_grad()
    def __call__(self, photographs: Sequence[PIL.Image.Image]) -> list[tuple[np.ndarray, np.ndarray]]:
        """
        Segment photographs of one size.

        Returns:
            `list[tuple[np.ndarray, np.ndarray]]`: for each photograph the class ids, `(height, width)`, and for each
            class its pixels and the sum of its probability over them, `(2, num_labels)`.
        """
        size = photographs[0].size[::-1]
        if self.use_tta:
            # At the photograph's own size, as in the evaluation, unless that is large: the probabilities of all
            # classes would take gigabytes.
            smaller = min(size, self.prepared_size(photographs[0]), key=math.prod)
            copies = (self.prepare(photographs, scale) for scale in self.scales)
            probabilities = average_probabilities(self.model, copies, smaller, **self.window)
            # As logits, whose softmax they are again.
            logits = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
        else:
            logits = self.model(self.prepare(photographs), return_dict=True, **self.window).logits
        results = self.image_processor.post_process_panoptic_segmentation(
            DenseCLIPSemanticSegmenterOutput(logits=logits.cpu()), target_sizes=[size] * len(photographs)
        )
        predictions = []
        for result in results:
            class_ids = result["segmentation"].numpy()
            totals = np.zeros((2, len(self.labels)))
            totals[0] = np.bincount(class_ids.ravel(), minlength=len(self.labels))
            for segment in result["segments_info"]:
                totals[1, segment["id"]] = segment["score"] * totals[0, segment["id"]]
            predictions.append((class_ids, totals))
        return predictions

    def save(
        self, file: Path, photograph: PIL.Image.Image, prediction: tuple[np.ndarray, np.ndarray], targets: list[Path]
    ) -> dict[str, Any]:
        """Write overlay and mask, and say in a line what was found; returns the entry for the JSON."""
        class_ids, totals = prediction
        overlay, mask = targets
        picture = draw_overlay(*shrink(photograph, class_ids), dict(enumerate(self.labels)), self.palette)
        save_whole(overlay, lambda path: picture.save(path, quality=JPEG_QUALITY))
        save_whole(mask, draw_mask(class_ids, self.palette).save)
        classes = self.describe(totals)
        tqdm.write(escape_controls(f"{file}: {name_classes(classes)}"))
        return {"overlay": overlay, "mask": mask, "classes": classes}

    def describe(self, totals: np.ndarray) -> list[dict[str, Any]]:
        """Pixels and sums of probabilities, `(2, num_labels)` -> the classes that are there, the largest first."""
        pixels, probabilities = totals
        return [
            {
                "id": index,
                "label": self.labels[index],
                "pixels": int(pixels[index]),
                "area": round(pixels[index] / pixels.sum(), 6),
                "score": round(probabilities[index] / pixels[index], 6),
            }
            for index in np.argsort(-pixels, kind="stable")[: np.count_nonzero(pixels)].tolist()
        ]


class TextPredictor(Predictor):
    """
    Where each of several texts matches.

    Args:
        model ([`DenseCLIPForSemanticSegmentation`]): in evaluation mode, with language.
        image_processor ([`DenseCLIPImageProcessor`]): prepares the images, without padding.
        texts (`Sequence[str]`): any words.
    """

    def __init__(
        self,
        model: DenseCLIPForSemanticSegmentation,
        image_processor: DenseCLIPImageProcessor,
        texts: Sequence[str],
    ):
        super().__init__(model, image_processor)
        self.texts = texts

    def __call__(self, photographs: Sequence[PIL.Image.Image]) -> list[torch.Tensor]:
        """Photographs of one size -> for each the cosines, `(num_texts, grid_height, grid_width)`."""
        return list(self.model.score_text(self.prepare(photographs), self.texts).cpu())

    def save(
        self, file: Path, photograph: PIL.Image.Image, prediction: torch.Tensor, targets: list[Path]
    ) -> dict[str, Any]:
        """Write the picture, and the table of cosines; returns the entry for the JSON."""
        (target,) = targets
        picture = draw_scores(photograph, prediction, self.texts, self.model.config.temperature, file.name)
        save_whole(target, picture.save)
        tqdm.write(f"{format_scores(prediction, self.texts, file.name)}\n")
        cosines = [
            {
                "text": text,
                "least": round(values.min().item(), 6),
                "mean": round(values.mean().item(), 6),
                "greatest": round(values.max().item(), 6),
            }
            for text, values in zip(self.texts, prediction, strict=True)
        ]
        return {"picture": target, "cosines": cosines}


def shrink(photograph: PIL.Image.Image, class_ids: np.ndarray) -> tuple[PIL.Image.Image, np.ndarray]:
    """Photograph and ids in a size to look at: on a large photograph, nobody could read the legend."""
    scale = OVERLAY_SIDE / max(photograph.size)
    if scale >= 1:
        return photograph, class_ids
    size = tuple(max(round(side * scale), 1) for side in photograph.size)
    ids = PIL.Image.fromarray(class_ids.astype(np.int32)).resize(size, PIL.Image.Resampling.NEAREST)
    return photograph.resize(size, PIL.Image.Resampling.LANCZOS), np.asarray(ids)


def draw_mask(class_ids: np.ndarray, palette: Sequence[Sequence[int]]) -> PIL.Image.Image:
    """Class ids, `(height, width)`, as the pixels of a palette picture, or of 16-bit greys where that is too small."""
    if len(palette) > PALETTE_SIZE:
        return PIL.Image.fromarray(class_ids.astype(np.uint16))
    mask = PIL.Image.fromarray(class_ids.astype(np.uint8))
    mask.putpalette(np.asarray(palette, dtype=np.uint8).tobytes())
    return mask


def name_classes(classes: Sequence[dict[str, Any]]) -> str:
    """The largest classes and their areas, in a line."""
    named = [f"{entry['label']} {100 * entry['area']:.1f} %" for entry in classes[:NAMED_CLASSES]]
    others = len(classes) - len(named)
    return ", ".join([*named, f"{others} more"] if others else named)


def predict_photographs(
    predictor: ClassPredictor | TextPredictor, targets: dict[Path, list[Path]], batch_size: int, left_out: dict
) -> list[dict[str, Any]]:
    """
    Read, predict and write; returns the entries for the JSON.

    Args:
        predictor (`ClassPredictor` or `TextPredictor`): what is predicted.
        targets (`dict[Path, list[Path]]`): photograph -> the files to write.
        batch_size (`int`): how many of one size go through the model at once.
        left_out (`dict[Path, str]`): gets those that cannot be read, and why.
    """

    def read() -> Iterator[tuple[Path, PIL.Image.Image]]:
        for file in targets:
            try:
                with naming_lack_of_memory(predictor.memory_advice):
                    photograph = read_photograph(file)
                predictor.check(photograph)
            except LEFT_OUT as error:
                leave_out(file, error, left_out)
                progress.update()
            else:
                yield file, photograph

    def predict(batch: list[tuple[Path, PIL.Image.Image]]) -> None:
        try:
            with naming_lack_of_memory(predictor.memory_advice):
                predictions = predictor([photograph for _, photograph in batch])
        except TooLittleMemoryError as error:
            if len(batch) == 1:
                leave_out(batch[0][0], error, left_out)
                progress.update()
                return
            predictions = None
        if predictions is None:  # one at a time, outside of the handler, which keeps what the attempt has allocated
            for item in batch:
                predict([item])
            return
        for (file, photograph), prediction in zip(batch, predictions, strict=True):
            try:
                with naming_lack_of_memory(predictor.memory_advice):
                    entry = predictor.save(file, photograph, prediction, targets[file])
            except TooLittleMemoryError as error:
                leave_out(file, error, left_out)
            else:
                entries.append({"file": str(file), "width": photograph.width, "height": photograph.height, **entry})
            progress.update()

    entries = []
    with tqdm(total=len(targets), unit="photograph", disable=None) as progress:
        for batch in batched(read(), batch_size, key=lambda item: item[1].size):
            predict(batch)
    return entries


def batched(items: Iterable[Item], batch_size: int, key: Callable[[Item], Hashable]) -> Iterator[list[Item]]:
    """Up to `batch_size` items, one behind the other, of the same key."""
    for _, group in itertools.groupby(items, key):
        while batch := list(itertools.islice(group, batch_size)):
            yield batch


def leave_out(file: Path, error: Exception, left_out: dict[Path, str]) -> None:
    """Name a file that cannot be read, and go on."""
    left_out[file] = str(error)  # of the error itself, its traceback would keep the photograph
    tqdm.write(escape_controls(f"left out: {file}: {error}"), file=sys.stderr)


# --- Videos ----------------------------------------------------------------------------------------------------------


def predict_video(predictor: ClassPredictor, file: Path, target: Path, batch_size: int) -> dict[str, Any]:
    """
    Write the overlay of a video; returns the entry for the JSON.

    Raises:
        ImportError: without OpenCV.
        ValueError: for a file that is no video or that OpenCV does not read as one, or frames that are too small.
        OSError: for an overlay that OpenCV does not write.
    """
    entry = {"file": str(file)}
    save_whole(target, lambda path: entry.update(write_overlays(predictor, file, path, batch_size)))
    tqdm.write(escape_controls(f"{file}: {name_classes(entry['classes'])}"))
    if lost := entry["frames_lost"]:
        said = f"{file}: {lost} of {entry['frames'] + lost} frames are broken and left out"
        tqdm.write(escape_controls(said), file=sys.stderr)
    return {**entry, "overlay": target}


def write_overlays(predictor: ClassPredictor, file: Path, target: Path, batch_size: int) -> dict[str, Any]:
    """A few frames at a time, so that the length of the video takes no memory; see `predict_video`."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError("Videos are read by OpenCV: `pip install opencv-python-headless`.") from error
    check_container(file)
    # An absolute path, for FFmpeg, is this file: OpenCV takes other names for addresses, patterns and pipelines.
    source = os.path.abspath(file)
    try:
        f"{source}{target}".encode()
    except UnicodeEncodeError as error:  # of which OpenCV crashes
        raise ValueError(
            "OpenCV takes names of files and folders that are UTF-8 alone: give it another one."
        ) from error
    capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG)
    frames_per_second = capture.get(cv2.CAP_PROP_FPS)
    stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # not positive where the format does not say it
    lost = 0

    def read() -> Iterator[PIL.Image.Image]:
        nonlocal lost
        num_read = failed = 0
        # The end and a broken frame look the same: behind a broken one there are others.
        while failed <= min(max(stated - num_read - lost, LOST_FRAMES[0]), LOST_FRAMES[1]):
            is_there, frame = capture.read()
            if is_there and frame is not None:
                num_read, lost, failed = num_read + 1, lost + failed, 0
                yield PIL.Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            else:
                failed += 1
        if stated > num_read + lost and states_frames(file):
            lost = stated - num_read

    frames = read()
    first = next(frames, None)
    if first is None or not 0 < frames_per_second <= FRAMES_PER_SECOND:
        rate = f" Its header states {frames_per_second:g} frames per second." if first is not None else ""
        raise ValueError(f"OpenCV does not read it as a video.{rate}")
    predictor.check(first)
    id2label = dict(enumerate(predictor.labels))
    totals, count = 0, 0
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*"mp4v"), frames_per_second, first.size)
    name = escape_controls(file.name)
    with tqdm(total=stated if stated > 0 else None, unit="frame", desc=name, disable=None) as progress:
        for batch in batched(itertools.chain([first], frames), batch_size, key=lambda frame: frame.size):
            for frame, (class_ids, frame_totals) in zip(batch, predictor(batch), strict=True):
                overlay = draw_overlay(frame, class_ids, id2label, predictor.palette, legend=False)
                if overlay.size != first.size:  # frames of another size OpenCV would drop
                    overlay = overlay.resize(first.size)
                writer.write(cv2.cvtColor(np.asarray(overlay), cv2.COLOR_RGB2BGR))
                totals, count = totals + frame_totals, count + 1
                progress.update()
    writer.release()
    # OpenCV does not say when it fails to write, as on a full disk.
    written = int(cv2.VideoCapture(str(target)).get(cv2.CAP_PROP_FRAME_COUNT))
    if written != count:
        raise OSError(f"OpenCV has written {max(written, 0)} of {count} frames.")
    return {
        "width": first.width,
        "height": first.height,
        "frames": count,
        "frames_lost": lost,
        "frames_per_second": frames_per_second,
        "classes": predictor.describe(totals),
    }


def check_container(file: Path) -> None:
    """
    Raises:
        OSError: as [`open_file`].
        ValueError: for what does not begin as a video of one of `VIDEO_SUFFIXES`. Whatever its name, FFmpeg would read
            many other formats, among them lists of other files and of addresses.
    """
    with open_file(file) as stream:
        beginning = stream.read(12)
    if not (
        (beginning[:4] == b"RIFF" and beginning[8:] == b"AVI ")
        or beginning[4:8] in MOVIE_BOXES
        or beginning.startswith((MATROSKA, b"\0\0\1\xba", b"\0\0\1\xb3"))  # the others are of MPEG
    ):
        raise ValueError(
            "OpenCV does not read it as a video: it begins as none that is AVI, MP4, MOV, Matroska, WebM or MPEG."
        )


def states_frames(file: Path) -> bool:
    """
    Whether the number of frames that OpenCV takes from a video's header tells how many there have to be. AVI counts
    them. MP4 counts those too that an edit leaves out, and Matroska says how long it is alone: there the number tells
    something where the file is shorter than its parts, by their own lengths.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        header = stream.read(16)
        if header[4:8] in MOVIE_BOXES:
            place = 0
            while len(header) >= 8:
                length = int.from_bytes(header[:4], "big")
                if length == 1:  # it follows, as 64 bits
                    length = int.from_bytes(header[8:16], "big")
                if length < 8:  # 0: up to the end
                    return False
                place += length
                stream.seek(min(place, size))
                header = stream.read(16)
            return place > size
        if header[:4] == MATROSKA:
            place = 0
            for _ in ("header", "segment"):
                stream.seek(min(place, size) + 4)  # behind the id
                first = int.from_bytes(stream.read(1), "big")
                more = 8 - first.bit_length()  # bytes of the length, as the first 1 in it says
                length = (first << 8 * more | int.from_bytes(stream.read(more), "big")) & (1 << 7 * (more + 1)) - 1
                if length == (1 << 7 * (more + 1)) - 1:  # unknown: up to the end
                    return False
                place = stream.tell() + length
            return place > size
        return header[:4] == b"RIFF"


# --- The command -----------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """
    Returns 0, or 1 where files were left out.

    Raises:
        ValueError: for inputs, options or a model that do not serve; nothing is written then.
        OSError: for a model that cannot be reached, or results that cannot be written.
    """
    if args.text and (args.tta or args.window != MODEL_WINDOW or args.palette != "auto"):
        raise ValueError(
            "--text scores whole photographs and has colours of its own: leave --tta, --window and --palette away."
        )
    output = Path(args.out)
    left_out = {}
    targets = choose_targets(find_inputs(args.inputs, output, left_out), output, bool(args.text))
    device = choose_device(args.device)
    model, image_processor = load_model(args.model, revision=args.revision)
    model.to(device)
    # What lies beside a photograph changes its classes.
    image_processor.do_pad = False
    if args.text:
        predictor = TextPredictor(model, image_processor, args.text)
        about = {"texts": args.text}
    else:
        if model.config.untrained_contexts:
            print(f"warning: {args.model} was made of CLIP and is not trained: these are no results.", file=sys.stderr)
        window = model.sliding_window(**args.window)
        palette = model.config.palette or generate_palette(model.config.num_labels)
        if args.palette == "colorblind":
            palette = color_blind_palette(model.config.num_labels)
        predictor = ClassPredictor(model.fuse(), image_processor, palette, args.window, args.tta)
        about = {
            "classes": predictor.labels,
            "tta": args.tta,
            "window": window and dict(zip(("size", "stride"), window, strict=True)),
        }

    photographs = {file: paths for file, paths in targets.items() if not is_video(file)}
    images, videos = predict_photographs(predictor, photographs, args.batch_size, left_out), []
    for file in targets:
        if is_video(file):
            try:
                if args.text:
                    raise ValueError("--text scores photographs alone.")
                with naming_lack_of_memory(predictor.memory_advice):
                    videos.append(predict_video(predictor, file, *targets[file], args.batch_size))
            except (*LEFT_OUT, ImportError) as error:
                leave_out(file, error, left_out)
    if not images and not videos and {*left_out.values()} == {predictor.memory_advice}:
        raise ValueError(predictor.memory_advice)
    report = {
        "model": args.model,
        "revision": args.revision,
        **about,
        "images": images,
        "videos": videos,
        "left_out": [{"file": str(file), "error": error} for file, error in left_out.items()],
    }
    # The files that were written are named as seen from this one.
    text = json.dumps(report, indent=2, ensure_ascii=False, default=lambda path: path.relative_to(output).as_posix())
    # Of a name that is not UTF-8, JSON has the bytes as escapes, so that the file itself is valid.
    save_whole(output / PREDICTIONS, lambda path: path.write_bytes(f"{text}\n".encode(errors="backslashreplace")))
    if args.text:
        print(describe(args.model, model.config, is_clip=False, learned_prompts=not model.has_untrained_contexts()))
    done = len(images) + len(videos)
    print(f"{done} done, {len(left_out)} left out. Written to: {output}, with {PREDICTIONS}")
    return 1 if left_out or any(video["frames_lost"] for video in videos) else 0
