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
"""A folder of images and masks as a data set that is checked once."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import datasets
import numpy as np
from datasets.exceptions import DatasetGenerationError

from modeling_denseclip.tools.files.photographs import naming_errors, open_photograph, read_orientation

from .files import (
    IGNORE_INDEX,
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    find_wrong_ids,
    is_text,
    printable,
    upright_size,
)
from .processes import leave_interrupts_to_parent, starting_helpers
from .transforms import EncodedImage, encoded_file, read_mask


@dataclass
class SegmentationFolderConfig(datasets.BuilderConfig):
    """What the cached result depends on."""

    num_labels: int = 0
    reduce_labels: bool = False
    leave_out_unreadable: bool = False
    files: str = ""  # a digest of all names, sizes and times of change


class SegmentationFolder(datasets.GeneratorBasedBuilder):
    """
    One split of a folder of images and masks:

        data_dir/
            images/training/a.jpg           images/validation/...      (.jpg, .jpeg or .png)
            annotations/training/a.png      annotations/validation/... (a class id per pixel, 255 = unlabelled)

    Every pair is checked while the data set is made, and `datasets` keeps the result: as long as no file is added,
    removed or changed, and the number of classes stays, the next load only looks at the list of files. Images and
    masks stay where they are.

    Args:
        data_dir (`str` or `Path`): the folder.
        split (`str`): the name of the sub-folder, "training" or "validation".
        num_labels (`int`): K, the number of classes.
        reduce_labels (`bool`, *optional*, defaults to `False`): whether 0 is unlabelled in the files and a class has
            its id plus one, as in ADE20K. The check allows for it; the ids stay as they are.
        num_workers (`int`, *optional*, defaults to 1): number of processes that check.
        cache_dir (`str` or `Path`, *optional*): where the result is kept, by default with all of `datasets`.
        leave_out_unreadable (`bool`, *optional*, defaults to `False`): whether a pair of which a file cannot be read
            is left out, see [`find_left_out`], and not refused.

    Raises:
        `ValueError`: names the file, what was found in it, the rule and the fix, if an image has no mask or a mask no
        image (at once); or if a file (with `leave_out_unreadable`: of every pair one) cannot be read, sizes differ, a
        mask is not an image of ids, or an id is out of range (in [`load`]).
        `ChildProcessError`: if a process that checks died (in [`load`]).
    """

    VERSION = datasets.Version("1.2.0")  # to be raised when the check changes, so that it is made again
    BUILDER_CONFIG_CLASS = SegmentationFolderConfig

    def __init__(
        self,
        data_dir: str | Path,
        split: str,
        num_labels: int,
        reduce_labels: bool = False,
        num_workers: int = 1,
        cache_dir: str | Path | None = None,
        leave_out_unreadable: bool = False,
    ):
        # The paths are written into the result.
        data_dir = Path(data_dir).absolute()
        images = _files_by_stem(data_dir / "images" / split, IMAGE_SUFFIXES)
        masks = _files_by_stem(data_dir / "annotations" / split, MASK_SUFFIXES)
        for stem in sorted(images.keys() - masks.keys()):
            expected = data_dir / "annotations" / split / f"{stem}.png"
            raise ValueError(
                f"The image {images[stem].path} has no mask: every image needs one, here {expected}. Add it or remove "
                "the image."
            )
        for stem in sorted(masks.keys() - images.keys()):
            expected = data_dir / "images" / split / f"{stem}.jpg"
            raise ValueError(
                f"The mask {masks[stem].path} has no image: every mask needs one, {expected} (or .png) does not "
                "exist. Add it or remove the mask."
            )
        self.pairs = [(stem, images[stem].path, masks[stem].path) for stem in sorted(images)]
        self.num_workers = num_workers
        super().__init__(
            cache_dir=None if cache_dir is None else str(cache_dir),
            config_name=split,
            data_dir=str(data_dir),
            num_labels=num_labels,
            reduce_labels=reduce_labels,
            leave_out_unreadable=leave_out_unreadable,
            files=_digest([*images.values(), *masks.values()]),
        )

    def load(self) -> datasets.Dataset:
        """
        Check the folder if it is new or changed.

        Returns:
            `datasets.Dataset` with the columns `image` and `annotation` (decoded when read), `name` (the file's stem)
            and `index` (its position), sorted by name.
        """
        try:
            self.download_and_prepare()
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None
            if isinstance(error.__cause__, BrokenProcessPool):
                raise ChildProcessError(
                    "A process that checks images and masks died. The system ends those that take too much memory, for"
                    " example: take fewer by --preprocessing_num_workers."
                ) from error
            raise
        return self.as_dataset(split=self.config.name)

    def find_left_out(self, rows: datasets.Dataset) -> list[str]:
        """
        What is wrong with each pair that is not among the rows of [`load`]. The result that `datasets` keeps does not
        say it, so these few are read again. Files are named as seen from the folder, as reports are published.
        """
        names, found = set(rows["name"]), []
        for pair in self.pairs:
            if pair[0] not in names:
                try:
                    self.check(pair)
                except UnreadableFileError as error:
                    found.append(str(error).replace(f"{self.config.data_dir}{os.sep}", ""))
        return found

    def _info(self) -> datasets.DatasetInfo:
        # No `mode` for the masks: converting a palette image to "L" replaces its ids by the grey values of their
        # colours.
        features = {
            "image": datasets.Image(),
            "annotation": datasets.Image(),
            "name": datasets.Value("string"),
            "index": datasets.Value("int64"),
        }
        return datasets.DatasetInfo(features=datasets.Features(features))

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        split = datasets.SplitGenerator(name=self.config.name, gen_kwargs={})
        split.split_info.num_examples = len(self.pairs)  # the length of the progress bar
        return [split]

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        check = partial(_is_readable, self.check) if self.config.leave_out_unreadable else self.check
        if self.num_workers > 1:
            # Processes of our own: those of `datasets` do not say which error they met.
            with ProcessPoolExecutor(self.num_workers, initializer=leave_interrupts_to_parent) as pool:
                try:
                    with starting_helpers():
                        checked = pool.map(check, self.pairs, chunksize=16)
                    yield from self._rows(checked)
                finally:
                    pool.shutdown(cancel_futures=True)
        else:
            yield from self._rows(map(check, self.pairs))

    @property
    def check(self) -> Callable[[tuple[str, str, str]], bool]:
        return partial(_check_files, num_labels=self.config.num_labels, reduce_labels=self.config.reduce_labels)

    def _rows(self, checked: Iterator[bool]) -> Iterator[tuple[int, dict]]:
        index = 0
        for (name, image, mask), is_readable in zip(self.pairs, checked, strict=True):
            if is_readable:
                yield index, {"image": image, "annotation": mask, "name": name, "index": index}
                index += 1
        if index == 0:
            self.check(self.pairs[0])  # which raises


class UnreadableFileError(ValueError):
    """An image or a mask that no reader understands, such as one that was cut off."""


def check_pair(
    image: EncodedImage,
    mask: EncodedImage,
    image_name: str,
    mask_name: str,
    num_labels: int,
    reduce_labels: bool,
) -> None:
    """
    Check that both can be read, the image as RGB, that they have the same size, and that the mask holds ids of classes
    and 255 only.

    Args:
        image, mask (`dict`): `{"path": ..., "bytes": ...}`, as of [`datasets.Image`].
        image_name, mask_name (`str`): what an error calls them.
        num_labels (`int`): K; ids lie in [0, K), or with `reduce_labels` in [1, K], where 0 is unlabelled too.

    Raises:
        `UnreadableFileError`, `ValueError`: as [`SegmentationFolder`].
    """
    with _explaining(image_name, "Replace it, or remove it and its mask."):
        height, width, _ = check_image(image, image_name)
    with _explaining(mask_name, "Replace it, or remove it and its image."):
        ids = read_mask(mask, source=mask_name)
    if ids.shape != (height, width):
        raise ValueError(
            f"{mask_name} has {ids.shape[1]} x {ids.shape[0]} pixels (width x height). {image_name} has "
            f"{width} x {height}, and both need the same size: export the mask again, or resize it to the nearest "
            "pixel."
        )
    if ids.dtype == np.uint8:
        present = np.flatnonzero(cv2.calcHist([ids], [0], None, [256], [0, 256]))
    else:
        present = np.unique(ids)
    wrong = find_wrong_ids(present.tolist(), num_labels, reduce_labels)
    if wrong:
        lowest, highest = (1, num_labels) if reduce_labels else (0, num_labels - 1)
        unlabelled = (0, IGNORE_INDEX) if reduce_labels else (IGNORE_INDEX,)
        raise ValueError(
            f"{mask_name} holds the id {wrong[0]}; with {num_labels} classes ids lie in [{lowest}, {highest}], and "
            f"{' and '.join(map(str, unlabelled))} {'are' if reduce_labels else 'is'} unlabelled. Correct the mask or "
            "name all classes; set reduce_labels if, and only if, 0 is unlabelled and the first class has the id 1."
        )


@contextmanager
def _explaining(name: str, advice: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:  # which says nothing of the file on another machine, so that it is not left out
        raise ValueError(
            f"{error}. Make it smaller, or check fewer at a time (--preprocessing_num_workers)."
        ) from error
    except OSError as error:
        # Errors of the system, such as of a file that is not there, name a file and no row.
        said = str(error) if error.filename is None else f"{name} cannot be read: {error}"
        raise UnreadableFileError(f"{said}. {advice}") from error


def check_image(image: EncodedImage, source: str) -> tuple[int, int, int]:
    """
    Check that an image can be read as RGB; returns height and width of the upright picture, and the orientation of
    [`read_orientation`] that turned it.

    Raises:
        OSError, ValueError: as [`open_photograph`] and [`decode_photograph`].
    """
    picture = open_photograph(encoded_file(image), source)
    with naming_errors(source):
        height, width = upright_size(picture)
        orientation = read_orientation(picture)
        # All bytes are read, at an eighth of the size, which is enough to notice a file that was cut off.
        picture.draft("RGB", (1, 1))
        picture.load()
    return height, width, orientation


def _check_files(pair: tuple[str, str, str], num_labels: int, reduce_labels: bool) -> bool:
    _, image, mask = pair
    check_pair(
        {"path": image, "bytes": None},
        {"path": mask, "bytes": None},
        f"The image {image}",
        f"The mask {mask}",
        num_labels,
        reduce_labels,
    )
    return True


def _is_readable(check: Callable[[tuple[str, str, str]], bool], pair: tuple[str, str, str]) -> bool:
    try:
        return check(pair)
    except UnreadableFileError:
        return False


def _files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, os.DirEntry]:
    if not folder.is_dir():
        raise ValueError(
            f"The folder {folder} does not exist; a split keeps its {', '.join(suffixes)} files there. Move some "
            "there, or rename yours: the splits are called training and validation."
        )
    files: dict[str, os.DirEntry] = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() not in suffixes:
            continue
        if not is_text(entry.name):
            raise ValueError(
                f"The name of {printable(entry.path)} is no text in UTF-8, as data sets store it: rename it."
            )
        if stem in files:
            raise ValueError(
                f"{files[stem].path} and {entry.path} share a name: images and masks are paired by it. Rename one."
            )
        files[stem] = entry
    if not files:
        raise ValueError(
            f"The folder {folder} holds no {' or '.join(suffixes)} file. Put some there; other formats are not read."
        )
    return files


def _digest(files: list[os.DirEntry]) -> str:
    """A digest that changes when a file is added, removed, renamed or written."""
    digest = hashlib.sha256()
    for file in files:
        try:
            status = file.stat()
        except OSError:  # a link to nothing or to itself, which the check names
            digest.update(f"{file.path}\0\n".encode())
        else:
            digest.update(f"{file.path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
