# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""`denseclip predict`: photographs and videos -> overlays, id masks, and a JSON of classes with areas and scores."""

import argparse
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from tqdm import tqdm

from ..command import escape_controls
from ..files.devices import TooLittleMemoryError, choose_device, naming_lack_of_memory, prepare_for_inference
from ..files.inputs import FoundFiles, check_targets, find_inputs, is_video, leave_out
from ..files.loading import digest_model, load_model
from ..files.photographs import read_photograph
from ..files.pipelines import map_in_threads
from ..files.results import DoneFiles, ResultLines
from ..files.saving import save_whole
from ..insight.predictors import ClassPredictor, batched
from ..insight.text_scores import TextPredictor, draw_scores, format_scores
from ..insight.videos import write_overlays
from ..options.predict import LINES, OVERLAY_SIDE, PREDICTIONS
from ..pictures.drawing import draw_mask, draw_overlay, to_picture_width
from ..pictures.palettes import color_blind_palette
from ..processes import Processes, join_processes
from ..stopwatch import Stopwatch, format_times


JPEG_QUALITY = 90
# How many classes the line about a photograph names.
NAMED_CLASSES = 4
# Raised for broken files, and for those that cannot be used; such a file is left out.
LEFT_OUT = (OSError, ValueError)


class Targets:
    """
    The files to write for each input. They are named as they are asked for: those of a million inputs would take a
    gigabyte.

    Args:
        names ([`~tools.files.inputs.FoundFiles`] or `dict[Path, Path]`): the inputs, and what their results are
            called.
        output (`Path`): folder for the results.
        has_texts (`bool`): whether texts are scored.
    """

    def __init__(self, names: FoundFiles | dict[Path, Path], output: Path, has_texts: bool):
        self.names, self.output = names, output
        self.endings = ("-texts.png",) if has_texts else ("-overlay.jpg", "-mask.png")

    def __len__(self) -> int:
        return len(self.names)

    def items(self) -> Iterator[tuple[Path, list[Path]]]:
        for file, name in self.names.items():
            endings = ("-overlay.mp4",) if is_video(file) else self.endings
            yield file, [self.output / name.parent / f"{name.name}{ending}" for ending in endings]


def choose_targets(names: FoundFiles | dict[Path, Path], output: Path, has_texts: bool) -> Targets:
    """
    As [`Targets`].

    Raises:
        ValueError: as [`~tools.files.inputs.check_targets`].
    """
    targets = Targets(names, output, has_texts)
    check_targets(targets, output, "--out", "name a folder above both, or give each an --out of its own")
    return targets


class Task(NamedTuple):
    """
    A file to do.

    Attributes:
        file (`Path`): where it lies.
        targets (`list[Path]`): the files to write.
        done (`dict`, *optional*): its entry, if it has been done before, and all targets are there.
    """

    file: Path
    targets: list[Path]
    done: dict[str, Any] | None = None


def list_tasks(targets: Targets, done: DoneFiles) -> Iterator[Task]:
    """Of a file that has been done, but of which a result has gone, nothing counts."""
    with closing(done.read(targets.names)) as entries:
        for (file, of_file), entry in zip(targets.items(), entries, strict=True):
            yield Task(file, of_file, entry if entry and all(map(os.path.isfile, of_file)) else None)


class PreparedPhotograph(NamedTuple):
    """
    What is kept of a photograph, a tenth of its memory.

    Attributes:
        task ([`Task`]): what it is for.
        size (`tuple[int, int]`): its height and width.
        view (`PIL.Image.Image`, *optional*): it in a size to look at; `None` as long as it is not read, because it is
            done.
        copies (`list[torch.Tensor]`): what the model sees of it, at each scale.
    """

    task: Task
    size: tuple[int, int]
    view: PIL.Image.Image | None
    copies: list[torch.Tensor]

    @property
    def file(self) -> Path:
        return self.task.file


def save_classes(
    predictor: ClassPredictor, photograph: PreparedPhotograph, logits: torch.Tensor
) -> tuple[dict[str, Any], str]:
    """Write overlay and mask; returns the entry for the JSON, and a line of what was found."""
    ((class_ids, totals),) = predictor.find_classes(logits[None], photograph.size)
    overlay, mask = photograph.task.targets
    with predictor.stopwatch.measure("drawing"):
        ids = resize_ids(class_ids, photograph.view.size)
        picture = draw_overlay(photograph.view, ids, dict(enumerate(predictor.labels)), predictor.palette)
    with predictor.stopwatch.measure("writing"):
        save_whole(overlay, lambda path: picture.save(path, quality=JPEG_QUALITY))
        save_whole(mask, lambda path: draw_mask(class_ids, predictor.palette).save(path, compress_type=zlib.Z_RLE))
    classes = predictor.list_classes(totals)
    line = escape_controls(f"{photograph.file}: {name_classes(classes)}")
    return {"overlay": overlay, "mask": mask, "classes": classes}, line


def save_texts(
    predictor: TextPredictor, photograph: PreparedPhotograph, scores: torch.Tensor
) -> tuple[dict[str, Any], str]:
    """Write the picture; returns the entry for the JSON, and a table of the cosines."""
    (target,) = photograph.task.targets
    with predictor.stopwatch.measure("drawing"):
        scores, name = scores.cpu(), photograph.file.name
        picture = draw_scores(photograph.view, scores, predictor.texts, predictor.model.config.temperature, name)
    with predictor.stopwatch.measure("writing"):
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
    tasks: Iterable[Task],
    progress: tqdm,
    batch_size: int,
    left_out: dict[Path, str],
    num_threads: int | None = None,
) -> Iterator[tuple[dict[str, Any], str]]:
    """
    Read, predict and write, by [`save_classes`] or [`save_texts`], with the photographs as `shrink` makes them; yields
    the entry for the JSON and the line to print of each. Up to `batch_size` photographs of one size go through the
    model at once, while threads, by default one for each core, read those that follow and write the results of those
    before; `left_out` gets those that cannot be read, and why.

    Tasks that are done count in the division into batches, so that the others come with the same neighbours as in a
    run in one go: sums of floating point numbers differ in their last bits with them. Where a batch is done in part,
    the done ones go through the model once more.
    """
    # Each thread holds a photograph, or the maps of one, so that a smaller batch takes less memory here too.
    num_threads = min(num_threads or os.cpu_count() or 1, 2 * batch_size)
    Found = PreparedPhotograph | tuple[Task, Exception]

    def read(task: Task) -> Found:
        try:
            with predictor.stopwatch.measure("reading"), naming_lack_of_memory(predictor.memory_advice):
                photograph = read_photograph(task.file)
            predictor.check(photograph)
        except LEFT_OUT as error:
            return task, error
        try:
            with naming_lack_of_memory(predictor.memory_advice):
                copies = predictor.prepare_scales([photograph])
                return PreparedPhotograph(task, photograph.size[::-1], shrink(photograph), copies)
        except TooLittleMemoryError as error:
            return task, error

    def read_new(task: Task) -> Found:
        if task.done is None:
            return read(task)
        return PreparedPhotograph(task, (task.done["height"], task.done["width"]), None, [])

    def leave(task: Task, error: Exception) -> None:
        if task.done is None:
            leave_out(task.file, error, left_out)
            progress.update()

    def take_readable(found: Iterable[Found]) -> Iterator[PreparedPhotograph]:
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
                leave(batch[0].task, error)
                return
            outputs = None
        # One at a time; outside of the `except` block, during which the memory of the attempt is not freed.
        if outputs is None:
            for item in batch:
                yield from compute([item])
        else:
            yield from zip(batch, outputs, strict=True)

    def compute_all() -> Iterator[tuple[PreparedPhotograph, torch.Tensor]]:
        with closing(map_in_threads(read_new, tasks, num_threads, max(batch_size, num_threads))) as found:
            for batch in batched(take_readable(found), batch_size, key=lambda item: item.size):
                num_done = sum(item.task.done is not None for item in batch)
                progress.update(num_done)
                if num_done == len(batch):
                    continue
                if num_done:
                    size, tasks_again = batch[0].size, (item.task for item in batch if item.task.done)
                    again = [item for item in take_readable(map(read, tasks_again)) if item.size == size]
                    batch = again + [item for item in batch if not item.task.done]
                for item, output in compute(batch):
                    if item.task.done is None:
                        yield item, output

    def write(
        computed: tuple[PreparedPhotograph, torch.Tensor],
    ) -> tuple[PreparedPhotograph, tuple[dict[str, Any], str] | TooLittleMemoryError]:
        photograph, output = computed
        try:
            with naming_lack_of_memory(predictor.memory_advice):
                return photograph, save(predictor, photograph, output)
        except TooLittleMemoryError as error:
            return photograph, error

    with (
        closing(compute_all()) as computed,
        closing(map_in_threads(write, computed, num_threads, batch_size)) as written,
    ):
        for photograph, saved in written:
            if isinstance(saved, TooLittleMemoryError):
                leave(photograph.task, saved)
                continue
            entry, line = saved
            height, width = photograph.size
            yield {"file": str(photograph.file), "width": width, "height": height, **entry}, line
            progress.update()


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
    if lost := entry["frames_lost"]:
        said = f"{file}: {lost} of {entry['frames'] + lost} frames are broken and left out"
        tqdm.write(escape_controls(said), file=sys.stderr)
    return {**entry, "overlay": target}


class Job(NamedTuple):
    """
    What is done with photographs.

    Attributes:
        predictor ([`ClassPredictor`] or [`TextPredictor`]): with its model.
        shrink, save (`Callable`): of [`predict_photographs`].
        about (`dict`): what the JSON says of it.
        settings (`dict`): all that the results depend on.
    """

    predictor: ClassPredictor | TextPredictor
    shrink: Callable[[PIL.Image.Image], PIL.Image.Image]
    save: Callable[..., tuple[dict[str, Any], str]]
    about: dict[str, Any]
    settings: dict[str, Any]


def load_job(args: argparse.Namespace, device: torch.device) -> Job:
    """
    Raises:
        ValueError, OSError: for options, a model or texts that do not serve.
    """
    model, image_processor = load_model(args.model, revision=args.revision)
    checksum = digest_model(model, image_processor)
    if args.text:
        # Cosines lie close together, and are shown as numbers.
        model.to(device, model.dtype if args.dtype == "auto" else getattr(torch, args.dtype))
        predictor = TextPredictor(model, image_processor, args.text)
        shrink, save = to_picture_width, save_texts
        about = {"texts": args.text}
    else:
        if model.config.untrained_contexts:
            print(f"warning: {args.model} was made of CLIP and is not trained: these are no results.", file=sys.stderr)
        window = model.sliding_window(**args.window)
        palette = color_blind_palette(model.config.num_labels) if args.palette == "colorblind" else None
        prepare_for_inference(model, device, args.dtype)
        predictor = ClassPredictor(model, image_processor, palette, args.window, args.tta)
        shrink, save = to_overlay_size, save_classes
        about = {
            "classes": predictor.labels,
            "tta": args.tta,
            "window": window and dict(zip(("size", "stride"), window, strict=True)),
        }
    dtype = str(model.dtype).removeprefix("torch.")
    about = {"model": args.model, "revision": args.revision, "dtype": dtype, **about}
    return Job(predictor, shrink, save, about, {**about, "palette": args.palette, "checksum": checksum})


def find_files(args: argparse.Namespace, left_out: dict[Path, str]) -> FoundFiles:
    """
    Raises:
        ValueError, OSError: for inputs that do not serve.
    """
    output, masks = Path(args.out), None if args.all else FoundFiles()
    if args.files_from is None:
        files = find_inputs(args.inputs, output, left_out, masks)
    elif args.files_from == "-":
        if sys.stdin is None:
            raise ValueError("--files_from - reads standard input, which is closed. Name a file with the list.")
        files = find_inputs(args.inputs, output, left_out, masks, sys.stdin.buffer)
    else:
        with open(args.files_from, "rb") as lines:
            files = find_inputs(args.inputs, output, left_out, masks, lines)
    if not len(files):
        raise ValueError(
            "No photographs are named: name files, folders or patterns, or a list of files by --files_from."
            if args.files_from is None
            else f"--files_from {args.files_from} names no file; it has one name in each line."
        )
    choose_targets(files, output, bool(args.text))
    if masks:
        said = f"passed over {len(masks)} masks beside photographs, such as {min(masks)}: --all takes them too"
        print(escape_controls(said), file=sys.stderr)
    return files


def divide(
    files: FoundFiles, done: DoneFiles, num_processes: int, batch_size: int
) -> list[tuple[FoundFiles, DoneFiles]]:
    """
    The share of each process: photographs in turns of as many as a batch has, so that neighbours of one size stay
    together, and videos one by one.
    """
    indices, counts = [[] for _ in range(num_processes)], [0, 0]
    for index, file in enumerate(files):
        kind = is_video(file)
        turn = counts[kind] // (1 if kind else batch_size)
        indices[turn % num_processes].append(index)
        counts[kind] += 1
    return [(files.take(of_one), done.take(of_one)) for of_one in indices]


def run(args: argparse.Namespace) -> int:
    """
    Returns 0, or 1 where files were left out; of several processes the main one says so, for all.

    Raises:
        ValueError: for inputs, options or a model that do not serve; nothing is written then.
        OSError: for a model that cannot be reached, or results that cannot be written.
    """
    processes = join_processes()
    output = Path(args.out)
    left_out: dict[Path, str] = {}
    files = find_files(args, left_out) if processes.is_main else FoundFiles()
    if args.device in (None, "cuda"):
        processes.use_own_gpu()
    device, shares = choose_device(args.device), None
    with ExitStack() as stack:
        with processes.main_first():
            job = load_job(args, device)
            lines = ResultLines(output, job.settings, processes.index, processes.count)
            if processes.is_main:
                stack.enter_context(lines.alone())
                done = lines.find_done(files, args.resume)
                if done.count:
                    print(f"{done.count} of {len(files)} are done already.", file=sys.stderr)
                if processes.count > 1:
                    lines.begin()
                    shares = divide(files, done, processes.count, args.batch_size)
        own_files, own_done = processes.scatter(shares) if processes.count > 1 else (files, done)
        try:
            num_done, times = predict_share(args, job, own_files, own_done, lines, left_out, processes)
        except KeyboardInterrupt as stop:
            if not processes.is_main:
                return 130  # the main process says it
            stop.args = (f"What has a line in {LINES} is done; --resume goes on behind it.",)
            raise
        finally:
            lines.close()
        return report(args, job, files, lines, processes, (num_done, left_out, times))


def predict_share(
    args: argparse.Namespace,
    job: Job,
    files: FoundFiles,
    done: DoneFiles,
    lines: ResultLines,
    left_out: dict[Path, str],
    processes: Processes,
) -> tuple[int, tuple[float, dict[str, float]]]:
    """Do the files of this process; returns how many are done now, and what the stopwatch says."""
    predictor = job.predictor
    watch = predictor.stopwatch = Stopwatch(args.profile)
    is_alone = processes.count == 1
    targets, num_done = Targets(files, Path(args.out), bool(args.text)), 0
    num_photographs = sum(not is_video(file) for file in files)

    def add(entry: dict[str, Any], line: str) -> None:
        nonlocal num_done
        with watch.measure("writing"):
            lines.add(entry)
        num_done += 1
        if is_alone:  # those of several processes would be torn
            tqdm.write(line)

    with tqdm(
        total=num_photographs,
        unit="photograph",
        desc=None if is_alone else f"process 1 of {processes.count}",
        disable=None if processes.is_main else True,
    ) as progress:
        photographs = (task for task in list_tasks(targets, done) if not is_video(task.file))
        num_threads = max((os.cpu_count() or 1) // processes.count_here, 1)
        with closing(
            predict_photographs(
                *(predictor, job.shrink, job.save, photographs, progress, args.batch_size, left_out, num_threads)
            )
        ) as predicted:
            for entry, line in predicted:
                add(entry, line)
    if num_photographs < len(files):
        for task in list_tasks(targets, done):
            if is_video(task.file) and task.done is None:
                try:
                    if args.text:
                        raise ValueError("--text scores photographs alone.")
                    with naming_lack_of_memory(predictor.memory_advice):
                        entry = predict_video(predictor, task.file, *task.targets, args.batch_size)
                except (*LEFT_OUT, ImportError) as error:
                    leave_out(task.file, error, left_out)
                else:
                    add(entry, escape_controls(f"{task.file}: {name_classes(entry['classes'])}"))
    return num_done, watch.stop()


def report(
    args: argparse.Namespace,
    job: Job,
    files: FoundFiles,
    lines: ResultLines,
    processes: Processes,
    own: tuple[int, dict[Path, str], tuple[float, dict[str, float]]],
) -> int:
    """Put together what all processes have done, and say it; returns the exit status."""
    counts, of_processes, times = zip(*processes.gather(own), strict=True)
    if not processes.is_main:
        return 0
    left_out = {file: error for of_one in of_processes for file, error in of_one.items()}
    if len(left_out) == len(files) and {*left_out.values()} == {job.predictor.memory_advice}:
        raise ValueError(job.predictor.memory_advice)
    if len(of_processes) > 1 and left_out:
        in_order = [file for file in files if file in left_out]
        left_out = {file: left_out[file] for file in dict.fromkeys([*(left_out.keys() - in_order), *in_order])}
    output = Path(args.out)
    num_done, num_lossy = lines.finish(files, job.about, left_out)
    if args.text:
        print(job.predictor.explain_scores(args.model))
    if job.predictor.model.dtype == torch.bfloat16:
        print("Computed in bfloat16; --dtype float32 is slower and more exact.")
    if args.profile:
        print(format_times(times, sum(counts), job.predictor.model.device.type == "cuda"))
    print(f"{num_done} done, {len(left_out)} left out. Written to: {output}, with {PREDICTIONS}")
    return 1 if left_out or num_lossy else 0
