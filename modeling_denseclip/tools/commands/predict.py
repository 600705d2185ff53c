# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""`denseclip predict`: photographs and videos -> overlays, id masks, and a JSON of classes with areas and scores."""

import argparse
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from tqdm import tqdm

from ..command import escape_controls
from ..files.inputs import check_targets, find_inputs, is_video, leave_out
from ..files.loading import (
    TooLittleMemoryError,
    choose_device,
    load_model,
    naming_lack_of_memory,
    prepare_for_inference,
)
from ..files.photographs import read_photograph
from ..files.pipelines import map_in_threads
from ..files.saving import save_json, save_whole
from ..insight.predictors import ClassPredictor, batched
from ..insight.text_scores import TextPredictor, draw_scores, format_scores
from ..insight.videos import write_overlays
from ..options.predict import OVERLAY_SIDE, PREDICTIONS
from ..pictures.drawing import draw_mask, draw_overlay, to_picture_width
from ..pictures.palettes import color_blind_palette, generate_palette


JPEG_QUALITY = 90
# How many classes the line about a photograph names.
NAMED_CLASSES = 4
# Raised for broken files, and for those that cannot be used; such a file is left out.
LEFT_OUT = (OSError, ValueError)


def choose_targets(names: Mapping[Path, Path], output: Path, has_texts: bool) -> dict[Path, list[Path]]:
    """
    The files to write for each input, of `names` as `find_inputs` gives them; `has_texts` tells whether texts are
    scored.

    Raises:
        ValueError: as [`~tools.files.inputs.check_targets`].
    """
    targets = {}
    for file, name in names.items():
        endings = ["-overlay.jpg", "-mask.png"]
        if is_video(file):
            endings = ["-overlay.mp4"]
        elif has_texts:
            endings = ["-texts.png"]
        targets[file] = [output / name.with_name(f"{name.name}{ending}") for ending in endings]
    check_targets(targets, output, "--out", "name a folder above both, or give each an --out of its own")
    return targets


class PreparedPhotograph(NamedTuple):
    """
    What is kept of a photograph, a tenth of its memory.

    Attributes:
        file (`Path`): where it lies.
        size (`tuple[int, int]`): its height and width.
        view (`PIL.Image.Image`): it in a size to look at.
        copies (`list[torch.Tensor]`): what the model sees of it, at each scale.
    """

    file: Path
    size: tuple[int, int]
    view: PIL.Image.Image
    copies: list[torch.Tensor]


def save_classes(
    predictor: ClassPredictor, photograph: PreparedPhotograph, logits: torch.Tensor, targets: Sequence[Path]
) -> tuple[dict[str, Any], str]:
    """Write overlay and mask; returns the entry for the JSON, and a line of what was found."""
    ((class_ids, totals),) = predictor.find_classes(logits[None], photograph.size)
    overlay, mask = targets
    ids = resize_ids(class_ids, photograph.view.size)
    picture = draw_overlay(photograph.view, ids, dict(enumerate(predictor.labels)), predictor.palette)
    save_whole(overlay, lambda path: picture.save(path, quality=JPEG_QUALITY))
    save_whole(mask, lambda path: draw_mask(class_ids, predictor.palette).save(path, compress_type=zlib.Z_RLE))
    classes = predictor.list_classes(totals)
    line = escape_controls(f"{photograph.file}: {name_classes(classes)}")
    return {"overlay": overlay, "mask": mask, "classes": classes}, line


def save_texts(
    predictor: TextPredictor, photograph: PreparedPhotograph, scores: torch.Tensor, targets: Sequence[Path]
) -> tuple[dict[str, Any], str]:
    """Write the picture; returns the entry for the JSON, and a table of the cosines."""
    (target,) = targets
    scores, name = scores.cpu(), photograph.file.name
    picture = draw_scores(photograph.view, scores, predictor.texts, predictor.model.config.temperature, name)
    save_whole(target, picture.save)
    cosines = [
        {
            "text": text,
            "least": round(values.min().item(), 6),
            "mean": round(values.mean().item(), 6),
            "greatest": round(values.max().item(), 6),
        }
        for text, values in zip(predictor.texts, scores, strict=True)
    ]
    return {"picture": target, "cosines": cosines}, f"{format_scores(scores, predictor.texts, name)}\n"


def to_overlay_size(photograph: PIL.Image.Image) -> PIL.Image.Image:
    """The photograph in a size to look at: on a large one, nobody could read the legend."""
    scale = OVERLAY_SIDE / max(photograph.size)
    if scale >= 1:
        return photograph
    size = tuple(max(round(side * scale), 1) for side in photograph.size)
    # It is first shrunk by a whole number, as a mean over squares: less than half the time.
    return photograph.resize(size, PIL.Image.Resampling.LANCZOS, reducing_gap=1.0)


def resize_ids(class_ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Class ids at the nearest pixels of a picture of this width and height."""
    return np.asarray(PIL.Image.fromarray(class_ids).resize(size, PIL.Image.Resampling.NEAREST))


def name_classes(classes: Sequence[dict[str, Any]]) -> str:
    """The largest classes and their areas, in a line."""
    named = [f"{entry['label']} {100 * entry['area']:.1f} %" for entry in classes[:NAMED_CLASSES]]
    others = len(classes) - len(named)
    return ", ".join([*named, f"{others} more"] if others else named)


def predict_photographs(
    predictor: ClassPredictor | TextPredictor,
    shrink: Callable[[PIL.Image.Image], PIL.Image.Image],
    save: Callable[..., tuple[dict[str, Any], str]],
    targets: dict[Path, list[Path]],
    batch_size: int,
    left_out: dict[Path, str],
) -> list[dict[str, Any]]:
    """
    Read, predict and write, by [`save_classes`] or [`save_texts`], with the photographs as `shrink` makes them;
    returns the entries for the JSON. Up to `batch_size` photographs of one size go through the model at once, while
    threads read those that follow and write the results of those before; `left_out` gets those that cannot be read,
    and why.
    """
    # Each thread holds a photograph, or the maps of one, so that a smaller batch takes less memory here too.
    num_threads = min(os.cpu_count() or 1, 2 * batch_size)

    def read(file: Path) -> PreparedPhotograph | tuple[Path, Exception]:
        try:
            with naming_lack_of_memory(predictor.memory_advice):
                photograph = read_photograph(file)
            predictor.check(photograph)
        except LEFT_OUT as error:
            return file, error
        try:
            with naming_lack_of_memory(predictor.memory_advice):
                copies = predictor.prepare_scales([photograph])
                return PreparedPhotograph(file, photograph.size[::-1], shrink(photograph), copies)
        except TooLittleMemoryError as error:
            return file, error

    def leave(file: Path, error: Exception) -> None:
        leave_out(file, error, left_out)
        progress.update()

    def take_readable(found: Iterable[PreparedPhotograph | tuple[Path, Exception]]) -> Iterator[PreparedPhotograph]:
        for photograph in found:
            if isinstance(photograph, PreparedPhotograph):
                yield photograph
            else:
                leave(*photograph)

    def compute(batch: list[PreparedPhotograph]) -> Iterator[tuple[PreparedPhotograph, torch.Tensor]]:
        try:
            with naming_lack_of_memory(predictor.memory_advice):
                copies = [torch.cat(of_scale) for of_scale in zip(*(item.copies for item in batch), strict=True)]
                outputs = predictor.compute(copies, batch[0].size)
        except TooLittleMemoryError as error:
            if len(batch) == 1:
                leave(batch[0].file, error)
                return
            outputs = None
        # One at a time; outside of the `except` block, during which the memory of the attempt is not freed.
        if outputs is None:
            for item in batch:
                yield from compute([item])
        else:
            yield from zip(batch, outputs, strict=True)

    def compute_all() -> Iterator[tuple[PreparedPhotograph, torch.Tensor]]:
        with closing(map_in_threads(read, targets, num_threads, max(batch_size, num_threads))) as found:
            for batch in batched(take_readable(found), batch_size, key=lambda item: item.size):
                yield from compute(batch)

    def write(
        computed: tuple[PreparedPhotograph, torch.Tensor],
    ) -> tuple[PreparedPhotograph, tuple[dict[str, Any], str] | TooLittleMemoryError]:
        photograph, output = computed
        try:
            with naming_lack_of_memory(predictor.memory_advice):
                return photograph, save(predictor, photograph, output, targets[photograph.file])
        except TooLittleMemoryError as error:
            return photograph, error

    entries = []
    with (
        tqdm(total=len(targets), unit="photograph", disable=None) as progress,
        closing(compute_all()) as computed,
        closing(map_in_threads(write, computed, num_threads, batch_size)) as written,
    ):
        for photograph, saved in written:
            if isinstance(saved, TooLittleMemoryError):
                leave(photograph.file, saved)
                continue
            entry, line = saved
            height, width = photograph.size
            entries.append({"file": str(photograph.file), "width": width, "height": height, **entry})
            tqdm.write(line)
            progress.update()
    return entries


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


def run(args: argparse.Namespace) -> int:
    """
    Returns 0, or 1 where files were left out.

    Raises:
        ValueError: for inputs, options or a model that do not serve; nothing is written then.
        OSError: for a model that cannot be reached, or results that cannot be written.
    """
    output = Path(args.out)
    left_out = {}
    masks = None if args.all else []
    targets = choose_targets(find_inputs(args.inputs, output, left_out, masks), output, bool(args.text))
    if masks:
        said = f"passed over {len(masks)} masks beside photographs, such as {min(masks)}: --all takes them too"
        print(escape_controls(said), file=sys.stderr)
    device = choose_device(args.device)
    model, image_processor = load_model(args.model, revision=args.revision)
    if args.text:
        # Cosines lie close together, and are shown as numbers.
        dtype = model.dtype if args.dtype == "auto" else getattr(torch, args.dtype)
        model.to(device, dtype)
        predictor = TextPredictor(model, image_processor, args.text)
        shrink, save = to_picture_width, save_texts
        about = {"texts": args.text}
    else:
        if model.config.untrained_contexts:
            print(f"warning: {args.model} was made of CLIP and is not trained: these are no results.", file=sys.stderr)
        window = model.sliding_window(**args.window)
        palette = model.config.palette or generate_palette(model.config.num_labels)
        if args.palette == "colorblind":
            palette = color_blind_palette(model.config.num_labels)
        prepare_for_inference(model, device, args.dtype)
        predictor = ClassPredictor(model, image_processor, palette, args.window, args.tta)
        shrink, save = to_overlay_size, save_classes
        about = {
            "classes": predictor.labels,
            "tta": args.tta,
            "window": window and dict(zip(("size", "stride"), window, strict=True)),
        }
    dtype_name = str(model.dtype).removeprefix("torch.")

    photographs = {file: paths for file, paths in targets.items() if not is_video(file)}
    images, videos = predict_photographs(predictor, shrink, save, photographs, args.batch_size, left_out), []
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
        "dtype": dtype_name,
        **about,
        "images": images,
        "videos": videos,
        "left_out": [{"file": str(file), "error": error} for file, error in left_out.items()],
    }
    # Paths are those of files that were written; they are named relative to the folder of this one.
    save_json(output / PREDICTIONS, report, default=lambda path: path.relative_to(output).as_posix())
    if args.text:
        print(predictor.explain_scores(args.model))
    done = len(images) + len(videos)
    if model.dtype == torch.bfloat16:
        print("Computed in bfloat16; --dtype float32 is slower and more exact.")
    print(f"{done} done, {len(left_out)} left out. Written to: {output}, with {PREDICTIONS}")
    return 1 if left_out or any(video["frames_lost"] for video in videos) else 0
