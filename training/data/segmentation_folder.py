# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""A folder of images and masks as a data set that is checked once."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pyarrow.compute as pc
from datasets.exceptions import DatasetGenerationError

from .class_names import read_class_names
from .findings import Finding, Pair, UnreadableFileError, examine_pair, find_pairs, first_error, in_processes


class FolderForm:
    """
    The form of data set that is called "folder", on which other forms build: what loading and inspection both ask.

    Args:
        data_dir (`str` or `Path`): the folder; see [`SegmentationFolder`] for what lies in it.
        class_names_file (`str` or `Path`, *optional*): one name per line, by default the folder's own `classes.txt`.
        reduce_labels (`bool`, *optional*): whether 0 is unlabelled and a class has its id plus one.
        cache_dir (`str` or `Path`, *optional*): for forms that are downloaded.

    Raises:
        `ValueError`: if there is no such folder.
    """

    find_pairs = staticmethod(find_pairs)
    fixes: dict[str, str] = {}  # rules of findings, with better advice than that of `RULES`
    refusals: dict[str, ValueError] = {}  # of splits that cannot be loaded; of a folder the list of pairs tells it
    may_leave_out = True  # whether pairs that cannot be read may be left out

    def __init__(
        self,
        data_dir: str | Path | None,
        class_names_file: str | Path | None = None,
        reduce_labels: bool | None = None,
        cache_dir: str | Path | None = None,
    ):
        if data_dir is None:
            raise ValueError("The data set 'folder' needs data_dir, the folder with images/ and annotations/.")
        if not Path(data_dir).is_dir():
            raise ValueError(
                f"There is no folder {data_dir}; data_dir is the one that holds images/, annotations/ and classes.txt."
            )
        self.data_dir, self.class_names_file = Path(data_dir), class_names_file
        self.name, self.reduce_labels = self.data_dir.absolute().name, bool(reduce_labels)

    def read_classes(self) -> tuple[list[str], tuple[tuple[int, int, int], ...] | None]:
        """The names, and their colours in RGB where the form has some."""
        return read_class_names(self.class_names_file or self.data_dir), None

    @property
    def place(self) -> Path:
        """What a report is of, and names its files as seen from."""
        return self.data_dir

    def list_pairs(self, split: str) -> tuple[list[Pair], list[Finding]]:
        """The pairs of a split, and what is wrong with its files as far as names tell it."""
        return self.find_pairs(self.data_dir, split)

    def compare_size(self, split: str, num_images: int) -> None:
        """Warn of a split of another size than was published."""


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
            images/training/a.jpg           images/validation/...      (.jpg, .png, .tif, .webp or .bmp)
            annotations/training/a.png      annotations/validation/... (a class id per pixel, 255 = unlabelled)

    Every pair is checked while the data set is made, and `datasets` keeps the result: as long as no file is added,
    removed or changed, and the number of classes stays, the next load only looks at the list of files. Images and
    masks stay where they are.

    Args:
        data_dir (`str` or `Path`): the folder.
        split (`str`): the name of the sub-folder, such as "training" or "validation".
        num_labels (`int`): K, the number of classes.
        reduce_labels (`bool`, *optional*, defaults to `False`): whether 0 is unlabelled in the files and a class has
            its id plus one, as in ADE20K. The check allows for it; the ids stay as they are.
        num_workers (`int`, *optional*, defaults to 1): number of processes that check.
        cache_dir (`str` or `Path`, *optional*): where the result is kept, by default with all of `datasets`.
        leave_out_unreadable (`bool`, *optional*, defaults to `False`): whether a pair of which a file cannot be read
            is left out, see [`find_left_out`], and not refused.
        find_pairs (`Callable`, *optional*): for forms with other folders, see [`FolderForm`].

    Raises:
        `ValueError`: names the file, what was found in it, the rule and the fix, if an image has no mask or a mask no
        image (at once); or if a file (with `leave_out_unreadable`: of every pair one) cannot be read, sizes differ, a
        mask is not an image of ids, or an id is out of range (in [`load`]).
        `ChildProcessError`: if a process that checks died (in [`load`]).
    """

    VERSION = datasets.Version("1.3.0")  # to be raised when the check changes, so that it is made again
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
        find_pairs: Callable[[Path, str], tuple[list[Pair], list[Finding]]] = find_pairs,
    ):
        # The paths are written into the result.
        data_dir = Path(data_dir).absolute()
        self.pairs, findings = find_pairs(data_dir, split)
        if (error := first_error(findings)) is not None:
            raise error
        self.num_workers = num_workers
        super().__init__(
            cache_dir=None if cache_dir is None else str(cache_dir),
            config_name=re.sub(r"\W", "_", f"images_{split}"),  # which may hold letters, digits and "_" alone
            data_dir=str(data_dir),
            num_labels=num_labels,
            reduce_labels=reduce_labels,
            leave_out_unreadable=leave_out_unreadable,
            files=_digest(self.pairs),
        )

    def load(self) -> datasets.Dataset:
        """
        Check the folder if it is new or changed.

        Returns:
            `datasets.Dataset` with the columns `image` and `annotation` (decoded when read), `name` (the file's stem)
            and `index` (its position), sorted by name.

        The attribute `pixels` (`dict[int, int]`) holds then how many pixels of all masks have each id, as stored.
        """
        try:
            self.download_and_prepare()
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, ValueError | ChildProcessError):
                raise error.__cause__ from None
            raise
        rows = self.as_dataset(split=self.config.name)
        self.pixels = sum_pixels(rows)
        return rows.remove_columns(["ids", "pixels"])

    def find_left_out(self, rows: datasets.Dataset) -> list[str]:
        """
        What is wrong with each pair that is not among the rows of [`load`]. The result that `datasets` keeps does not
        say it, so these few are read again. Files are named as seen from the folder, as reports are published.
        """
        names, found = set(rows["name"]), []
        for pair in self.pairs:
            if pair.image.stem not in names and (error := self.check(pair)[0]) is not None:
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
            # What each mask holds, counted as it is checked: no other pass over the files is needed to know the whole.
            "ids": datasets.List(datasets.Value("int64")),
            "pixels": datasets.List(datasets.Value("int64")),
        }
        return datasets.DatasetInfo(features=datasets.Features(features))

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        split = datasets.SplitGenerator(name=self.config.name, gen_kwargs={})
        split.split_info.num_examples = len(self.pairs)  # the length of the progress bar
        return [split]

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        # Processes of our own: those of `datasets` do not say which error they met.
        num_workers = self.num_workers if self.num_workers > 1 else 0
        died, option = "A process that checks images and masks died", "--preprocessing_num_workers"
        index, left_out = 0, []
        # Closed at an error, which would keep its processes at work as long as somebody has its traceback.
        with closing(in_processes(self.check, self.pairs, num_workers, died, option)) as results:
            for pair, (error, pixels) in zip(self.pairs, results, strict=True):
                if error is None:
                    files = {"image": str(pair.image), "annotation": str(pair.mask)}
                    counts = {"ids": list(pixels), "pixels": list(pixels.values())}
                    yield index, {**files, "name": pair.image.stem, "index": index, **counts}
                    index += 1
                elif self.config.leave_out_unreadable and isinstance(error, UnreadableFileError):
                    left_out.append(error)
                else:
                    raise error
        if index == 0:
            raise left_out[0]

    @property
    def check(self) -> Callable[[Pair], tuple[ValueError | None, dict[int, int]]]:
        return partial(_check_files, num_labels=self.config.num_labels, reduce_labels=self.config.reduce_labels)


def _check_files(pair: Pair, num_labels: int, reduce_labels: bool) -> tuple[ValueError | None, dict[int, int]]:
    """What training is refused with, if it is; and the ids of the mask with their numbers of pixels."""
    _, mask, findings = examine_pair(*pair.encoded(), *pair.error_names(), num_labels, reduce_labels)
    return first_error(findings), mask.pixels


def sum_pixels(rows: datasets.Dataset) -> dict[int, int]:
    """Id -> pixels of all rows, of the columns `ids` and `pixels`, which hold those of each."""
    table = rows.select_columns(["ids", "pixels"]).with_format("arrow")[:]
    ids, pixels = (pc.list_flatten(table[column]).to_numpy() for column in ("ids", "pixels"))
    labels, places = np.unique(ids, return_inverse=True)
    sums = np.bincount(places, weights=pixels).astype(np.int64)  # floating point is exact up to 2**53
    return dict(zip(labels.tolist(), sums.tolist(), strict=True))


def _digest(pairs: list[Pair]) -> str:
    """A digest that changes when a file is added, removed, renamed or written."""
    digest = hashlib.sha256()
    for path in (path for pair in pairs for path in (pair.image, pair.mask)):
        try:
            status = path.stat()
        except OSError:  # a link to nothing or to itself, which the check names
            digest.update(f"{path}\0\n".encode())
        else:
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
