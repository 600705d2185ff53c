# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Overlays of videos, which OpenCV reads and writes."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from tqdm import tqdm

from ..command import escape_controls
from ..files.photographs import open_file
from ..pictures.drawing import draw_overlay
from .predictors import ClassPredictor, batched


# What an MP4 or a MOV begins with, behind the length of it.
MOVIE_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
MATROSKA = b"\x1a\x45\xdf\xa3"  # and WebM
FRAMES_PER_SECOND = 65535  # that an MPEG-4 can have
# How many frames in a row may be broken before the rest of a video is given up: the first number where its header does
# not say that more follow, the second where it does.
LOST_FRAMES = (16, 10_000)


def write_overlays(predictor: ClassPredictor, file: Path, target: Path, batch_size: int) -> dict[str, Any]:
    """
    Write the overlays of a video, `batch_size` frames at a time, so that a long one needs no more memory; returns its
    entry for the JSON. Errors are those of [`~tools.commands.predict.predict_video`].
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError("Videos are read by OpenCV: `pip install opencv-python-headless`.") from error
    check_container(file)
    # An absolute path, for FFmpeg, is this file: OpenCV takes other names for addresses, patterns and pipelines.
    source = os.path.abspath(file)
    try:
        f"{source}{target}".encode()
    except UnicodeEncodeError as error:  # with such a name OpenCV would end the process
        raise ValueError(
            "OpenCV takes names of files and folders that are UTF-8 alone: give it another one."
        ) from error
    capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG)
    frames_per_second = capture.get(cv2.CAP_PROP_FPS)
    stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # 0 or less where the format does not say it
    lost, measure = 0, predictor.stopwatch.measure

    def read() -> Iterator[PIL.Image.Image]:
        nonlocal lost
        num_read = failed = 0
        # OpenCV tells the end and a broken frame alike, so it is asked some more times: a broken frame has others
        # behind it.
        while failed <= min(max(stated - num_read - lost, LOST_FRAMES[0]), LOST_FRAMES[1]):
            with measure("reading"):
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
                with measure("drawing"):
                    overlay = draw_overlay(frame, class_ids, id2label, predictor.palette, legend=False)
                    if overlay.size != first.size:  # OpenCV would drop a frame of another size
                        overlay = overlay.resize(first.size)
                with measure("writing"):
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
        "classes": predictor.list_classes(totals),
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
    Whether the number of frames that OpenCV takes from a video's header can be trusted to tell how many are missing.

    The header of an AVI counts its frames. That of an MP4 also counts frames that an edit hides, and that of a
    Matroska gives a duration alone, so their numbers may be too large for a file that is whole. They are trusted where
    the file is shorter than the lengths that its parts state: then it was cut off.
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
