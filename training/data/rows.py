# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Data sets of rows: those of the Hub, and local ones that `datasets` loads or has saved."""

import csv
import json
import shlex
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import datasets
import pyarrow.compute as pc
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher
from transformers.utils import logging

from .class_names import read_class_names
from .files import printable, without_path
from .findings import Finding, UnreadableFileError, examine_pair, first_error
from .segmentation_folder import sum_pixels
from .streaming import KEY, WEB_DATASET, RowStream, expand_shards
from .transforms import EncodedImage, with_encoded


logger = logging.get_logger(__name__)

# What `save_to_disk` writes beside rows, and beside splits of them.
SAVED_ROWS = ("dataset_info.json", "state.json")
SAVED_SPLITS = ("dataset_dict.json",)
DEFAULT_SPLIT = "train"  # of rows that were saved without splits
METADATA_FILES = ("metadata.csv", "metadata.jsonl")  # of an "imagefolder"
MAXIMUM_HEAD = 2**16  # bytes of the first line of such a file
RULES_OF_MISSING = ("mask_without_image", "image_without_mask")  # of a row without an image, and without a mask
SLICES = "parts of one are named 'train[:80%]' and 'train[80%:]'"


def is_saved(folder: str | Path) -> bool:
    """Whether a folder is one that `save_to_disk` has written."""
    folder = Path(folder)
    return any(all((folder / name).is_file() for name in names) for names in (SAVED_ROWS, SAVED_SPLITS))


def has_metadata(folder: str | Path) -> bool:
    """Whether a folder, or one in it, has a file by which `datasets` makes rows of pictures: an "imagefolder"."""
    folder = Path(folder)
    places = [f"{within}{name}" for within in ("", "*/") for name in METADATA_FILES]
    return any(_names_two_files(path) for place in places for path in folder.glob(place))


def _names_two_files(path: Path) -> bool:
    """Whether the columns of such a file name two files in each row, as in "file_name" and "mask_file_name"."""
    try:
        with open(path, "rb") as file:
            head = file.readline(MAXIMUM_HEAD).decode("utf-8-sig")
        columns = next(csv.reader([head])) if path.suffix == ".csv" else list(json.loads(head))
    except (OSError, RecursionError, StopIteration, TypeError, ValueError, csv.Error):
        return False
    return sum(str(column).strip().endswith("file_name") for column in columns) >= 2


def has_archives(folder: str | Path) -> bool:
    """Whether a folder, or one in it, has archives of samples: files that share a name, one behind the other."""
    archives = (path for place in ("*.tar", "*/*.tar") for path in sorted(Path(folder).glob(place)))
    try:
        with tarfile.open(next(archives), "r:") as archive:
            paths = [PurePosixPath(member.name) for member in islice(filter(tarfile.TarInfo.isfile, archive), 2)]
    except (StopIteration, OSError, tarfile.TarError):
        return False
    return len(paths) == 2 and len({(path.parent, path.name.partition(".")[0]) for path in paths}) == 1


@dataclass(frozen=True, eq=False)
class Row:
    """
    A photograph and its mask in one row, as [`Pair`] has them in files. They are read when they are asked for.

    Attributes:
        split (`str`): the split, by the name that the data set has for it.
        index (`int`): the place in it.
        rows (`datasets.Dataset`): the split, with the columns `image` and `annotation`, still encoded.
        source (`str`): what an error calls the split.
        stem (`str`): of the name of the photograph's file, where the row says it; otherwise the place.
        image, mask (`str`, *optional*): what a report calls them; `None` for what the row lacks.
    """

    split: str
    index: int
    rows: datasets.Dataset
    source: str
    stem: str
    image: str | None
    mask: str | None

    def encoded(self) -> tuple[EncodedImage | None, EncodedImage | None]:
        """The photograph and the mask, as they are stored."""
        row = self.rows[self.index]
        return row["image"] if self.image else None, row["annotation"] if self.mask else None

    def error_names(self) -> tuple[str, str]:
        """What errors call the photograph and the mask."""
        return name_row(self.index, self.source)


def name_row(index: int, source: str) -> tuple[str, str]:
    """What errors call the photograph and the mask of a row."""
    return f"The image of row {index} in {source}", f"The mask of row {index} in {source}"


class RowForm:
    """
    A data set of rows, and what loading and inspection both ask of it; [`FolderForm`] is that of folders.

    Args:
        dataset_name (`str`): what [`datasets.load_dataset`] takes, or a folder that `save_to_disk` has written.
        splits (`Sequence[str]`): the splits to load, such as "train" or "train[:80%]".
        dataset_config_name, data_dir (*optional*): as of [`datasets.load_dataset`].
        image_column, label_column (`str`, *optional*): the columns of photographs and masks.
        class_names_file (`str` or `Path`, *optional*): names of the classes, by default those in the features.
        class_names (`Sequence[str]`, *optional*): names that are taken, with a warning, where neither tells them.
        reduce_labels (`bool`, *optional*): whether 0 is unlabelled and a class has its id plus one.
        cache_dir (`str` or `Path`, *optional*): instead of the cache of `datasets`.
        streamed (`Sequence[str]`, *optional*): those of the splits that are not loaded, see [`open_stream`]. Of the
            others then only their own files are fetched.

    The attribute `refusals` (`dict[str, ValueError]`) says of each split that cannot be loaded why.

    Raises:
        `ValueError`: if no split can be loaded, or the columns are others.
        `OSError`: if there is no such data set.
    """

    fixes = {
        "image_without_mask": "Every row needs both: add the mask, or remove the row.",
        "mask_without_image": "Every row needs both: add the image, or remove the row.",
        "unreadable": "Replace them, or remove their rows.",
        "class_names": "Write the names into a file, in the order of ids, and name it by --class_names_file.",
        "mask_mode": "A mask stores one id per pixel: make ids of the colours, by `datasets.Dataset.map`.",
        "narrow_images": "Remove their rows, or raise --short_side and --long_side, in training too.",
        "missing_split": f"Name another by --train_split and --validation_split; {SLICES}.",
    }

    def __init__(
        self,
        dataset_name: str,
        splits: Sequence[str],
        dataset_config_name: str | None = None,
        data_dir: str | Path | None = None,
        image_column: str = "image",
        label_column: str = "annotation",
        class_names_file: str | Path | None = None,
        class_names: Sequence[str] | None = None,
        reduce_labels: bool | None = None,
        cache_dir: str | Path | None = None,
        streamed: Sequence[str] | None = None,
    ):
        self.dataset_name, self.name = dataset_name, without_path(dataset_name)
        self.place = dataset_name  # what a report is of
        self.class_names_file, self.class_names = class_names_file, class_names
        self.reduce_labels, self.cache_dir = bool(reduce_labels), cache_dir
        self.is_saved = is_saved(dataset_name)
        columns = {"image_column": image_column, "label_column": label_column}
        rows: dict[str, datasets.Dataset | datasets.IterableDataset] = {}
        self.refusals: dict[str, ValueError] = {}
        self.files: dict[str, list[str]] = {}  # of the splits that are streamed
        source = (dataset_name, dataset_config_name, None if data_dir is None else str(data_dir))
        for split in splits:
            try:
                if streamed is None:
                    rows[split] = _load_split(*source, split, cache_dir)
                elif split in streamed:
                    rows[split], self.files[split] = _open_split(*source, split, cache_dir)
                else:
                    rows[split] = _load_split_alone(*source, split, cache_dir)
            except ValueError as error:
                self.refusals[split] = error
        if not rows:
            raise next(iter(self.refusals.values()))
        self.features = next(iter(rows.values())).features
        self.rows = {split: _choose_columns(dataset_name, of_split, columns) for split, of_split in rows.items()}

    def read_classes(self) -> tuple[list[str], None]:
        """
        The names, and no colours: rows have none.

        Raises:
            ValueError: if neither a file nor the features nor anybody else tells the names.
        """
        if self.class_names_file:
            return read_class_names(self.class_names_file), None
        found = _names_in_features(self.features)
        if not found and self.class_names:
            logger.warning(
                f"{self.dataset_name} does not say what the ids of its masks mean. They are taken for the classes of"
                f" the model, from 0 ('{self.class_names[0]}') to {len(self.class_names) - 1}"
                f" ('{self.class_names[-1]}')."
            )
            return list(self.class_names), None
        if len(found) != 1:
            raise ValueError(
                f"{self.dataset_name} does not say what the ids of its masks mean: names of classes come with the"
                f" columns {list(found)} of {list(self.features)}, where exactly one has to have them. Write the names"
                " into a file, one per line in the order of ids, and pass it as class_names_file."
            )
        ((column, class_names),) = found.items()
        # It could be a column of labels for whole images, so the user is told.
        logger.warning(
            f"The ids of the masks of {self.dataset_name} are taken for the classes of its column '{column}'."
        )
        return class_names, None

    def list_pairs(self, split: str) -> tuple[list[Row], list[Finding]]:
        """
        The rows of a split, and those that lack a photograph or a mask.

        Raises:
            ValueError: for names of files that are no text.
        """
        if split in self.refusals:
            refusal = self.refusals[split]
            return [], [Finding("missing_split", f"'{split}'", f": {refusal.__cause__ or refusal}", refusal)]
        rows, source = with_encoded(self.rows[split], "image", "annotation"), self._describe(split)
        columns = [rows.data.column(name) for name in ("image", "annotation")]
        missing = [set(pc.indices_nonzero(_is_missing(column)).to_pylist()) for column in columns]
        try:
            paths = pc.struct_field(columns[0], "path").to_pylist()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"A name of a file in {source} is no text in UTF-8 ({error}): save the rows anew."
            ) from error
        pairs, findings = [], []
        for index, path in enumerate(paths):
            stem = PurePosixPath(path or "").stem or f"{index:08d}"
            image, mask = (f"{kind} of row {index} in the split '{split}'" for kind in ("image", "mask"))
            lacking = [index in of_column for of_column in missing]
            for is_lacking, rule, place, name in zip(
                lacking, RULES_OF_MISSING, (image, mask), name_row(index, source), strict=True
            ):
                if is_lacking:
                    refusal = f"{name} is missing: every row needs both. Add it, or remove the row."
                    findings.append(Finding(rule, place, " is missing", UnreadableFileError(refusal)))
            image, mask = None if lacking[0] else image, None if lacking[1] else mask
            pairs.append(Row(split, index, rows, source, stem, image, mask))
        return pairs, findings

    def load(self, split: str, num_labels: int, num_workers: int = 1) -> tuple[datasets.Dataset, dict[int, int]]:
        """
        Bring a split to the columns that all data sets have, and check it; `datasets` remembers that it was.

        Returns:
            The rows, with `image` and `annotation` (decoded when read), `name` and `index`, the place; and each id, as
            the masks store it, with its number of pixels.

        Raises:
            ValueError: names the row, what was found in it, the rule and the fix.
        """
        if split in self.refusals:
            raise self.refusals[split]
        if (error := first_error(self.list_pairs(split)[1])) is not None:
            raise error
        rows, source = self.rows[split], self._describe(split)
        arguments = {"source": source, "num_labels": num_labels, "reduce_labels": self.reduce_labels}
        counts = with_encoded(rows, "image", "annotation").map(
            _check_row,
            with_indices=True,
            fn_kwargs=arguments,
            remove_columns=["image", "annotation"],
            num_proc=num_workers if num_workers > 1 else None,
            desc=f"Checking {source}",
            cache_file_name=self._cache_file(rows, arguments) if self.is_saved else None,
        )
        rows = rows.add_column("name", [f"{index:08d}" for index in range(len(rows))], new_fingerprint=None)
        return rows.add_column("index", list(range(len(rows))), new_fingerprint=None), sum_pixels(counts)

    def open_stream(self, split: str) -> RowStream:
        """
        A split that is streamed: nothing of it is checked.

        Raises:
            ValueError: if it cannot be opened.
        """
        if split in self.refusals:
            raise self.refusals[split]
        return RowStream(self.rows[split], self._describe(split), self.files[split])

    def _describe(self, split: str) -> str:
        return f"the split '{split}' of {self.dataset_name}"

    def _cache_file(self, rows: datasets.Dataset, arguments: dict) -> str:
        """Where the check is remembered. By default that is beside the rows: in a folder of the user's, here."""
        folder = Path(self.cache_dir or datasets.config.HF_DATASETS_CACHE) / "checks_of_saved_rows"
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder / f"{Hasher.hash((rows, _check_row, arguments))}.arrow")


def _is_missing(column):
    """Whether neither bytes nor a path are there, of each picture of a column."""
    return pc.and_(*(pc.is_null(pc.struct_field(column, name)) for name in ("bytes", "path")))


def _load_split(
    dataset_name: str, config_name: str | None, data_dir: str | None, split: str, cache_dir: str | Path | None
) -> datasets.Dataset:
    with _naming_split(dataset_name, split):
        if is_saved(dataset_name):
            rows = _read_saved(dataset_name, config_name, data_dir, split)
        else:
            name, files = _files_of(dataset_name, split)
            rows = datasets.load_dataset(
                dataset_name, config_name, data_dir=data_dir, split=name, cache_dir=cache_dir, **files
            )
    if len(rows) == 0:
        raise ValueError(f"The split '{split}' of {dataset_name} has no rows. Name another, or a larger part of it.")
    return rows


def _load_split_alone(
    dataset_name: str, config_name: str | None, data_dir: str | None, split: str, cache_dir: str | Path | None
) -> datasets.Dataset:
    """As [`_load_split`], which fetches and prepares the files of all splits: here those of this one alone."""
    if is_saved(dataset_name) or dataset_name == WEB_DATASET:
        return _load_split(dataset_name, config_name, data_dir, split, cache_dir)
    with _naming_split(dataset_name, split):
        builder, files = _find_files(dataset_name, config_name, data_dir, split, cache_dir)
        rows = datasets.load_dataset(
            type(builder).__module__.rpartition(".")[2],  # the reader of `datasets` that the files of the Hub name
            data_files={split: files},
            split=split,
            features=builder.info.features,
            cache_dir=cache_dir,
        )
    if len(rows) == 0:
        raise ValueError(f"The split '{split}' of {dataset_name} has no rows. Name another.")
    return rows


def _open_split(
    dataset_name: str, config_name: str | None, data_dir: str | None, split: str, cache_dir: str | Path | None
) -> tuple[datasets.IterableDataset, list[str]]:
    """A split that is read as it comes, and the names of its files."""
    if is_saved(dataset_name):
        raise ValueError(
            f"{dataset_name} was written by save_to_disk: its rows are read from the disk when they are asked for, and"
            " are not streamed. Leave --streaming out."
        )
    with _naming_split(dataset_name, split):
        builder, files = _find_files(dataset_name, config_name, data_dir, split, cache_dir)
        rows = builder.as_streaming_dataset(split=DEFAULT_SPLIT if dataset_name == WEB_DATASET else split)
    if rows.features is None:
        raise ValueError(f"{dataset_name} does not say which columns it has, so it cannot be streamed.")
    return rows, files


def _find_files(
    dataset_name: str, config_name: str | None, data_dir: str | None, split: str, cache_dir: str | Path | None
) -> tuple[datasets.DatasetBuilder, list[str]]:
    """What reads a data set, and the files of a split, of which none is read."""
    if "[" in split and dataset_name != WEB_DATASET:
        raise ValueError(
            "parts of a split are not streamed. Make each a split of its own; of archives, --dataset_name"
            f" {WEB_DATASET} takes the names of files for splits"
        )
    name, files = _files_of(dataset_name, split)
    builder = datasets.load_dataset_builder(dataset_name, config_name, data_dir=data_dir, cache_dir=cache_dir, **files)
    found = {str(key): list(names) for key, names in (builder.config.data_files or {}).items()}
    if name not in found:
        raise ValueError(f'Unknown split "{name}". Should be one of {list(found)}')
    return builder, found[name]


def _files_of(dataset_name: str, split: str) -> tuple[str, dict]:
    """What `datasets` is asked for: the name of the split, and the files, where these are the name."""
    if dataset_name != WEB_DATASET:
        return split, {}
    return DEFAULT_SPLIT, {"data_files": {DEFAULT_SPLIT: expand_shards(split)}}


@contextmanager
def _naming_split(dataset_name: str, split: str) -> Iterator[None]:
    try:
        yield
    except (DatasetGenerationError, OSError, ValueError) as error:
        # What pyarrow says of broken files is an OSError without a number; others tell that there is no such data set.
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) else None
        said = " ".join(str(cause or error).split()).rstrip(".")
        raise ValueError(
            f"The split '{split}' of {dataset_name} cannot be loaded: {said}. Splits are named by train_split and"
            f" validation_split ({SLICES}), a configuration by dataset_config_name."
        ) from error


def _read_saved(folder: str, config_name: str | None, data_dir: str | None, split: str) -> datasets.Dataset:
    """
    A split of what `save_to_disk` has written.

    Raises:
        ValueError: for a folder that is broken, a split that it does not hold, or arguments that only others have.
    """
    if config_name is not None or data_dir is not None:
        raise ValueError(
            "save_to_disk has written it, so that it has neither configurations nor folders: leave dataset_config_name"
            " and data_dir out."
        )
    try:
        saved = datasets.load_from_disk(folder)
    except Exception as error:  # of files that are no JSON, hold other fields, or were cut off
        raise ValueError(f"what save_to_disk has written there is broken ({error}): save it again.") from error
    if isinstance(saved, datasets.Dataset):
        saved = {_name_alone(saved): saved}
    parts = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in saved.items()})
    return datasets.concatenate_datasets([saved[part.splitname].select(range(part.from_, part.to)) for part in parts])


def _name_alone(rows: datasets.Dataset) -> str:
    """What one split that was saved alone is called: by its own name, unless it is a part of a split or has none."""
    name = str(rows.split or "")
    return name if name.isidentifier() else DEFAULT_SPLIT


def _choose_columns(
    dataset_name: str, rows: datasets.Dataset | datasets.IterableDataset, columns: dict[str, str]
) -> datasets.Dataset | datasets.IterableDataset:
    """
    The columns of photographs and masks alone, as `image` and `annotation`; `columns` has their names here. What is
    streamed stays encoded, and keeps the keys of archives.
    """
    for argument, column in columns.items():
        if not isinstance(rows.features.get(column), datasets.Image):
            raise ValueError(
                f"{dataset_name} has no column '{column}' of images; its columns are {dict(rows.features)}. Name the"
                f" right one by {argument}."
            )
    names = list(columns.values())
    new_names = dict(zip(names, ("image", "annotation"), strict=True))
    if isinstance(rows, datasets.IterableDataset):
        rows = rows.decode(False)  # before all else, which would decode pictures and encode them anew
        rows = rows.select_columns([*names, KEY] if KEY in rows.features else names)
        changed = {old: new for old, new in new_names.items() if old != new}
        return rows.rename_columns(changed) if changed else rows
    rows = rows.select_columns(names).rename_columns(new_names)
    for column in ("image", "annotation"):
        # No `mode`: converting a palette image to "L" replaces its ids by the grey values of their colours.
        rows = rows.cast_column(column, datasets.Image())
    return rows


def _names_in_features(features: datasets.Features) -> dict[str, list[str]]:
    """The names of each column of classes, or of lists of classes."""
    found = {}
    for column, feature in features.items():
        feature = feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature
        if isinstance(feature, datasets.ClassLabel):
            found[column] = [name.strip() for name in feature.names]  # as lines of a file are
    return found


def _check_row(row: dict, index: int, source: str, num_labels: int, reduce_labels: bool) -> dict[str, list[int]]:
    names = name_row(index, source)
    _, facts, findings = examine_pair(row["image"], row["annotation"], *names, num_labels, reduce_labels)
    if (error := first_error(findings)) is not None:
        raise error
    return {"ids": list(facts.pixels), "pixels": list(facts.pixels.values())}


def advise_rows(folder: str | Path) -> str:
    """What is to be said of a folder of rows where another is expected; empty for others."""
    folder = Path(folder)
    if is_saved(folder):
        what = "was written by save_to_disk"
    elif has_metadata(folder):
        what = "holds pictures with a metadata file, which `datasets` reads as rows"
    elif has_archives(folder):
        what = "holds archives, which `datasets` reads as rows, with a column for each suffix of the files in them"
    else:
        return ""
    named = shlex.quote(printable(str(folder)))
    return (
        f"{named} {what}: no import is needed. Inspection, training and evaluation read it by --dataset_name {named},"
        " with --image_column and --label_column for its columns, in place of a folder."
    )
