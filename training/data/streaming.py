# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Training data that are read as they come, as they may be larger than a disk: which samples, when, by which process.

`datasets` finds and reads the shards: archives, files of Parquet, local or remote. Their order is ours: its own
shuffling forgets the content of its buffer when it is stopped, gives all shards to all processes unless their numbers
fit, and differs between its releases.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple, TypeVar

import datasets
import fsspec
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info
from transformers.utils import logging

from .files import last_part
from .findings import UnreadableFileError, examine_pair, first_error
from .transforms import EncodedImage, TrainingTransform


logger = logging.get_logger(__name__)

# What `datasets` calls archives in which the files of a sample share a name, and adds to each sample.
WEB_DATASET = "webdataset"
KEY, URL = "__key__", "__url__"
SHARDS_AT_ONCE = 4  # that a reader mixes
STREAM_POSITION = "stream_position"  # what a batch calls the places of its samples
NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")

Item = TypeVar("Item")


class Position(NamedTuple):
    """
    How far a reader is.

    Attributes:
        reader (`int`): which one of its process.
        epoch (`int`): passes over the data that it has made.
        group (`int`): groups of shards that it has read in this pass.
        sample (`int`): samples that it has taken of this group.
    """

    reader: int
    epoch: int = 0
    group: int = 0
    sample: int = 0


class StreamedRow(NamedTuple):
    """
    A photograph and its mask, still encoded; `None` for what the row lacks.

    Attributes:
        shard, number (`int`): which shard of the data set, and the place in it: the same in each pass and each run.
        key (`str`): the name that its files share, in archives; otherwise empty.
    """

    shard: int
    number: int
    image: EncodedImage | None
    annotation: EncodedImage | None
    key: str


@dataclass(eq=False)
class RowStream:
    """
    A split of a data set of rows that is not loaded.

    Args:
        rows (`datasets.IterableDataset`): with the columns `image` and `annotation`, encoded, and in archives `KEY`.
        source (`str`): what an error calls the split.
        files (`Sequence[str]`): paths or addresses of the shards, in order; empty where a shard is not a file.
    """

    rows: datasets.IterableDataset
    source: str
    files: Sequence[str] = ()

    def __post_init__(self):
        self.num_shards = self.rows.num_shards
        if len(self.files) != self.num_shards:
            self.files = ()

    def read_shard(self, shard: int, offset: int = 0, step: int = 1) -> Iterator[StreamedRow]:
        """
        The rows of a shard, of each `step` that with the number `offset`.

        Raises:
            OSError: if the shard is not there, is broken, or its server does not answer; names it.
        """
        number = 0
        try:
            # Not `__iter__`, which in a process of a `DataLoader` would leave shards to the others.
            for number, row in enumerate(self.rows.shard(num_shards=self.num_shards, index=shard).iter(batch_size=1)):
                if number % step == offset:
                    image, annotation, key = (row.get(name, [""])[0] for name in ("image", "annotation", KEY))
                    yield StreamedRow(shard, number, _if_there(image), _if_there(annotation), key)
        except Exception as error:  # of whatever reads archives, tables, and answers of servers
            said = " ".join(f"{type(error).__name__} {error}".split())
            raise OSError(
                f"{self.source[0].upper()}{self.source[1:]} cannot be read in {self.name_shard(shard)}, near row"
                f" {number} ({said}). Put it right, and go on by --resume_from_checkpoint last."
            ) from error

    def name_shard(self, shard: int) -> str:
        """What an error calls a shard."""
        return self.files[shard] if self.files else f"shard {shard} of {self.source}"

    def name_row(self, row: StreamedRow) -> tuple[str, str]:
        """What errors call the photograph and the mask of a row."""
        of = f"'{row.key}'" if row.key else f"of row {row.number}"
        return tuple(f"The {kind} {of} in {self.name_shard(row.shard)}" for kind in ("image", "mask"))


class TrainingStream(IterableDataset):
    """
    The samples of a split for ever, each once in each pass, augmented by a [`TrainingTransform`].

    Readers divide the split: as many as there are processes that load images, or one for each process that trains
    where it loads them itself. In each pass shards are dealt out anew to readers, and each reads its own in groups of
    `SHARDS_AT_ONCE`: rows of these by turns, through a buffer from which they are drawn at random. A shard is read
    by one reader, or, where there are fewer shards than readers, by several that take turns in its rows. No reader
    waits for another at the end of a pass, so that they may be in different ones.

    So the order of samples depends on the number of readers. A sample's crop does not: it is seeded by the pass and
    the sample's place in the data set.

    Args:
        stream ([`RowStream`]): the split.
        transform ([`TrainingTransform`]): what is made of each sample. Its seed is that of the order too.
        shuffle_buffer (`int`): rows in the buffer of each reader, still encoded.
        process_index, num_processes (`int`): which process that trains this is, of how many.
        num_workers (`int`): processes that load images for each of them.
        leave_out_unreadable (`bool`): whether samples that lack a file, or have one that cannot be read, are left out
            with a warning.

    Yields `pixel_values`, `labels` and `sizes` as of the transform, and `stream_position`, int64 `(4,)`: the
    [`Position`] behind the sample.

    Raises, while it is read:
        `ValueError`: for a sample that training cannot use; names it, what was found, the rule and the fix.
        `OSError`: for a shard that cannot be read.
    """

    def __init__(
        self,
        stream: RowStream,
        transform: TrainingTransform,
        shuffle_buffer: int = 256,
        process_index: int = 0,
        num_processes: int = 1,
        num_workers: int = 0,
        leave_out_unreadable: bool = False,
    ):
        self.stream, self.transform, self.shuffle_buffer = stream, transform, shuffle_buffer
        self.process_index, self.num_processes = process_index, num_processes
        self.num_readers = max(1, num_workers)  # of this process
        self.leave_out_unreadable = leave_out_unreadable
        self.begin_at([Position(reader) for reader in range(self.num_readers)], num_batches=0)

    def begin_at(self, positions: Sequence[Position], num_batches: int) -> None:
        """
        Go on where a run was.

        Args:
            positions (`Sequence[Position]`): of each reader of this process.
            num_batches (`int`): batches that this process has had, as readers take turns in them.
        """
        self.positions, self.num_batches = list(positions), num_batches

    @property
    def layout(self) -> dict[str, int]:
        """What the order of samples depends on."""
        return {
            "seed": self.transform.seed,
            "shards": self.stream.num_shards,
            "processes": self.num_processes,
            "readers of each": self.num_readers,
            "shuffle_buffer": self.shuffle_buffer,
        }

    def describe(self) -> str:
        """A line on what is read by whom."""
        num_shards, num_readers = self.stream.num_shards, self.num_readers * self.num_processes
        readers = f"{num_readers:,} reader{'' if num_readers == 1 else 's'}"
        line = f"streamed: {self.stream.source}, {num_shards:,} shard{'' if num_shards == 1 else 's'} for {readers}"
        if num_shards < num_readers:
            line += (
                ". Several readers read the same shard: more shards, or a smaller --dataloader_num_workers, save that"
            )
        return line

    def passes(self, position: Position) -> float:
        """Passes that a reader has made, to the group of shards that it reads."""
        return position.epoch + position.group / len(self._deal(position.reader, position.epoch))

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        fsspec.asyn.reset_lock()  # of the process that this one was forked from
        worker = get_worker_info()
        reader = ((0 if worker is None else worker.id) + self.num_batches) % self.num_readers
        start = self.positions[reader]
        # With an epoch of its own: other readers may be in another one.
        transform = dataclasses.replace(self.transform)
        usable = start.epoch  # the last pass with a sample that could be used
        most = self._most_empty_passes
        for position, row in self._read(reader, start):
            transform.set_epoch(position.epoch)
            sample = self._augment(transform, row)
            if sample is not None:
                usable = position.epoch
                yield {**sample, STREAM_POSITION: torch.tensor(position)}
            elif position.epoch > usable + most:
                raise ValueError(
                    f"In {most} passes over its parts of {self.stream.source} a reader found no sample that can be"
                    " used: all were left out."
                )

    @property
    def _most_empty_passes(self) -> int:
        """After how many passes without a sample a reader gives up; in any one it may be dealt the shards of none."""
        return max(8, 2 * self.stream.num_shards)

    def _read(self, reader: int, start: Position) -> Iterator[tuple[Position, StreamedRow]]:
        """The rows of a reader from a position on, each with the position behind it."""
        num_empty = 0  # passes in turn
        for epoch in count(start.epoch):
            is_empty = True
            for index, group in enumerate(self._deal(reader, epoch)):
                here = Position(reader, epoch, index)
                if here < start[:3]:
                    is_empty = False
                    continue
                generator = self._generator(epoch, self._number(reader), index)
                rows = by_turns([self.stream.read_shard(*part) for part in group])
                # Rows that a run has had already are read once more, as others were drawn from among them.
                for sample, row in enumerate(drawn_from_buffer(rows, self.shuffle_buffer, generator), start=1):
                    is_empty = False
                    position = here._replace(sample=sample)
                    if position > start:
                        yield position, row
            num_empty = num_empty + 1 if is_empty else 0
            if num_empty >= self._most_empty_passes:
                raise ValueError(
                    f"{self.stream.source} has no rows for one of its readers, in {num_empty} passes: its"
                    f" {self.stream.num_shards:,} shards are empty, or hold fewer rows than there are readers that"
                    " share them. Take fewer processes (--dataloader_num_workers), or other shards."
                )

    def _deal(self, reader: int, epoch: int) -> list[list[tuple[int, int, int]]]:
        """The shards of a reader in a pass, in groups: arguments of [`RowStream.read_shard`]."""
        num_shards, number = self.stream.num_shards, self._number(reader)
        num_readers = self.num_readers * self.num_processes
        shards = self._generator(epoch).permutation(num_shards).tolist()
        if num_shards < num_readers:
            place = number % num_shards
            return [[(shards[place], number // num_shards, len(range(place, num_readers, num_shards)))]]
        own = [(shard, 0, 1) for shard in shards[number::num_readers]]
        return [own[start : start + SHARDS_AT_ONCE] for start in range(0, len(own), SHARDS_AT_ONCE)]

    def _number(self, reader: int) -> int:
        """The number of a reader among those of all processes."""
        return reader * self.num_processes + self.process_index

    def _generator(self, *place: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.transform.seed, spawn_key=place))

    def _augment(self, transform: TrainingTransform, row: StreamedRow) -> dict[str, torch.Tensor] | None:
        """What the model is trained on, or `None` for a sample that is left out."""
        try:
            self._check_whole(row)
            row = row._replace(image=_fetch(row.image), annotation=_fetch(row.annotation))
            sample = transform.augment(row.image, row.annotation, (row.shard << 32) + row.number)
        except (OSError, ValueError) as error:
            refusal = self._explain(row, error)
            if self.leave_out_unreadable and isinstance(refusal, UnreadableFileError):
                logger.warning(f"left out: {refusal}")
                return None
            raise refusal from error
        # Masks of 8 and of 16 bits may meet in a batch, and tensors of two types do not stack. Ids are checked by now.
        labels_type = torch.uint8 if transform.num_labels is not None and transform.num_labels < 256 else torch.int32
        return {**sample, "labels": sample["labels"].to(labels_type)}

    def _check_whole(self, row: StreamedRow) -> None:
        names = self.stream.name_row(row)
        for file, name in zip((row.image, row.annotation), names, strict=True):
            if file is None:
                raise UnreadableFileError(
                    f"{name} is missing: every sample needs both. Add it, remove the sample, or leave out such samples"
                    " by --leave_out_unreadable true."
                )

    def _explain(self, row: StreamedRow, error: OSError | ValueError) -> Exception:
        """What training is refused with by data that are checked before: nothing is checked here until it fails."""
        if isinstance(error, UnreadableFileError):
            return error
        classes = (self.transform.num_labels, bool(self.transform.image_processor.do_reduce_labels))
        _, _, findings = examine_pair(row.image, row.annotation, *self.stream.name_row(row), *classes)
        return first_error(findings) or error


def by_turns(sources: Iterable[Iterator[Item]]) -> Iterator[Item]:
    """An item of each source in turn, as long as it has some."""
    sources = list(sources)
    while sources:
        for source in tuple(sources):
            try:
                yield next(source)
            except StopIteration:
                sources.remove(source)


def drawn_from_buffer(items: Iterable[Item], size: int, generator: np.random.Generator) -> Iterator[Item]:
    """All items, each drawn from the `size` that wait: the next one takes its place."""
    waiting = []
    for item in items:
        if len(waiting) < size:
            waiting.append(item)
            continue
        place = int(generator.integers(size))
        drawn, waiting[place] = waiting[place], item
        yield drawn
    for place in generator.permutation(len(waiting)).tolist():
        yield waiting[place]


def expand_shards(pattern: str) -> list[str]:
    """The names that a pattern stands for: "a-{08..10}.tar" for a-08.tar, a-09.tar and a-10.tar."""
    found = NUMBERS.search(pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    if int(first) > int(last):
        raise ValueError(f"{found[0]} in {pattern} counts down: write the lower number first.")
    names = (f"{pattern[: found.start()]}{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return [name + rest for name in names for rest in expand_shards(pattern[found.end() :])]


def name_shards(pattern: str) -> str:
    """What a split that is named by its files is called where others read it: without a path of this machine."""
    return last_part(pattern)


def _if_there(file: EncodedImage | None) -> EncodedImage | None:
    return None if file is None or (file["bytes"] is None and file["path"] is None) else file


def _fetch(file: EncodedImage) -> dict[str, Any]:
    """A file of which a row holds the address alone, with its bytes."""
    if file["bytes"] is not None or "://" not in file["path"]:
        return file
    with fsspec.open(file["path"]) as opened:
        return {**file, "bytes": opened.read()}
