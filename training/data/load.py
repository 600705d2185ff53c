# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The data sets: a folder of your own, ADE20K, or one of the Hub; all with the same columns, and checked once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
from transformers.utils import logging

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.class_names_denseclip import check_class_names
from modeling_denseclip.tools.files.photographs import open_photograph

from .ade20k import ADE20K
from .class_names import read_class_names
from .files import IGNORE_INDEX, count_by_class, find_rare, holds_no_label, is_binary, without_path
from .findings import IMPORT_COMMAND, UnreadableFileError, examine_pair, first_error
from .segmentation_folder import FolderForm, SegmentationFolder, sum_pixels
from .transforms import encoded_file, with_encoded


logger = logging.get_logger(__name__)

# The least height and width that the usual image encoders take, ResNets and ViTs of patches of 16. A model says its
# own by `DenseCLIPForSemanticSegmentation.min_image_size`.
MIN_IMAGE_SIZE = 32
# What `--dataset` names: all that loading and inspection know of a form stands in its class.
FORMS = {"folder": FolderForm, "ade20k": ADE20K}
# What splits are called where nobody says otherwise. Folders call them by the words that are used here.
HUB_SPLITS = {"training": "train", "validation": "validation"}


@dataclass
class SegmentationData:
    """
    A data set, its classes, and how its ids are to be read.

    Args:
        name (`str`): its name, without a path of this machine: it is written into reports and model cards.
        class_names (`list[str]`): the K names in the order of ids.
        palette (`tuple`): their colours in RGB, where the data set has some.
        reduce_labels (`bool`): whether 0 is unlabelled in the masks and a class has its id plus one. The ids are as
            the files have them; the transforms reduce them, if their image processor's `do_reduce_labels` is set.
        train, validation (`datasets.Dataset`): the splits that were asked for. Columns: `image` and `annotation`
            (decoded when read), `name`, and `index`, the position.
        left_out (`tuple[str, ...]`): what is wrong with each pair of a folder that was left out of its split.
        validation_split (`str`): what the data set itself calls the split that is scored, for reports.
        pixels (`dict[str, dict[int, int]]`): of "training" and "validation", as far as they were asked for: each id,
            as the masks store it, with its number of pixels.
    """

    name: str
    class_names: list[str]
    palette: tuple[tuple[int, int, int], ...] | None
    reduce_labels: bool
    train: datasets.Dataset | None
    validation: datasets.Dataset | None
    left_out: tuple[str, ...] = ()
    validation_split: str = "validation"
    pixels: dict[str, dict[int, int]] = field(default_factory=dict)

    def rare_classes(self) -> dict[str, float]:
        """Name -> share of the labelled pixels of training, of the classes that [`find_rare`] finds."""
        pixels = count_by_class(self.pixels["training"], len(self.class_names), self.reduce_labels)
        return {self.class_names[index]: float(pixels[index] / pixels.sum()) for index in find_rare(pixels)}


def load_data(
    dataset: str = "folder",
    data_dir: str | Path | None = None,
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    image_column: str = "image",
    label_column: str = "annotation",
    train_split: str | None = None,
    validation_split: str | None = None,
    class_names_file: str | Path | None = None,
    reduce_labels: bool | None = None,
    splits: Sequence[str] = ("training", "validation"),
    num_workers: int = 1,
    cache_dir: str | Path | None = None,
    leave_out_unreadable: bool = False,
) -> SegmentationData:
    """
    Load a data set, and check all images and masks of it the first time.

    Args:
        dataset (`str`, *optional*, defaults to `"folder"`): "folder", for `images/{training,validation}`,
            `annotations/...` and `classes.txt` in `data_dir` (see [`SegmentationFolder`]), or "ade20k" (see
            [`ADE20K`]).
        data_dir (`str` or `Path`, *optional*): the folder; ADE20K without one is downloaded.
        dataset_name (`str`, *optional*): instead of `dataset`, a data set of the Hub or anything else that
            [`datasets.load_dataset`] takes, with `dataset_config_name` and `data_dir`.
        image_column, label_column (`str`, *optional*): its columns.
        train_split, validation_split (`str`, *optional*): what the splits are called: folders in `images/` and
            `annotations/`, by default "training" and "validation", or splits of `dataset_name`, by default "train"
            and "validation".
        class_names_file (`str` or `Path`, *optional*): one name per line. By default a folder's own `classes.txt`,
            or the names in the features of `dataset_name`.
        reduce_labels (`bool`, *optional*): see [`SegmentationData`]; `True` for ADE20K, otherwise `False` by default.
        splits (`Sequence[str]`, *optional*): which to load, of "training" and "validation".
        num_workers (`int`, *optional*, defaults to 1): number of processes that check.
        cache_dir (`str` or `Path`, *optional*): instead of the cache of `datasets`.
        leave_out_unreadable (`bool`, *optional*, defaults to `False`): whether pairs of a "folder" of which a file
            cannot be read are left out, and not refused. (Of ADE20K none is: its scores are of the whole set.)

    Raises:
        `ValueError`: if an argument or the data set is wrong; it names the file or row.
    """
    left_out = []
    sources = {"training": train_split, "validation": validation_split}
    defaults = {split: split for split in sources} if dataset_name is None else HUB_SPLITS
    sources = {split: defaults[split] if name is None else name for split, name in sources.items()}
    if dataset_name is not None:
        rows = {
            split: _load_split(
                dataset_name, dataset_config_name, data_dir, sources[split], (image_column, label_column), cache_dir
            )
            for split in splits
        }
        features = next(iter(rows.values())).features
        name, palette, reduce_labels = without_path(dataset_name), None, bool(reduce_labels)
        class_names = (
            read_class_names(class_names_file) if class_names_file else _names_in_features(dataset_name, features)
        )
        _check_names(name, class_names)
        results = {
            split: _select_and_check(
                rows[split],
                (image_column, label_column),
                f"the split '{sources[split]}' of {dataset_name}",
                len(class_names),
                reduce_labels,
                num_workers,
            )
            for split in splits
        }
        loaded = {split: checked for split, (checked, _) in results.items()}
        pixels = {split: counts for split, (_, counts) in results.items()}
    else:
        form = open_form(dataset, data_dir, class_names_file, reduce_labels, cache_dir)
        name, reduce_labels, (class_names, palette) = form.name, form.reduce_labels, form.read_classes()
        _check_names(name, class_names)
        leave_out_unreadable &= form.may_leave_out
        loaded, pixels = {}, {}
        for split in splits:
            arguments = (len(class_names), reduce_labels, num_workers, cache_dir, leave_out_unreadable)
            folder = SegmentationFolder(form.data_dir, sources[split], *arguments, form.find_pairs)
            form.compare_size(sources[split], len(folder.pairs))
            loaded[split] = folder.load()
            pixels[split] = folder.pixels
            left_out += folder.find_left_out(loaded[split])
    train, validation = loaded.get("training"), loaded.get("validation")
    return SegmentationData(
        *(name, class_names, palette, reduce_labels, train, validation, tuple(left_out)),
        validation_split=sources["validation"],
        pixels=pixels,
    )


def open_form(dataset: str, *args, **kwargs) -> FolderForm:
    """
    A data set of one of `FORMS`; the other arguments are those of [`FolderForm`].

    Raises:
        ValueError: for another form, or as the form itself.
    """
    if dataset not in FORMS:
        raise ValueError(
            f"There is no data set '{dataset}': it is {' or '.join(map(repr, FORMS))}, or dataset_name names one of"
            " the Hub."
        )
    return FORMS[dataset](*args, **kwargs)


def check_for_training(
    data: SegmentationData, image_processor: DenseCLIPImageProcessor, min_image_size: int = MIN_IMAGE_SIZE
) -> None:
    """
    Refuse what training could only fail on, or learn nonsense from, after hours. `training.inspect_dataset` refuses
    the same.

    Args:
        data ([`SegmentationData`]): both of its splits.
        image_processor ([`DenseCLIPImageProcessor`]): gives the size at which the model sees an image.
        min_image_size (`int`, *optional*, defaults to 32): the least side in pixels that the model takes.

    Raises:
        ValueError: for a split without a labelled pixel; masks that hold 0 and 255 alone, which mostly means that 255
            is the second class; or an image of the validation that is too narrow for the model.
    """
    ids = {split: set(data.pixels[split]) for split in ("training", "validation")}
    for name, found in ids.items():
        if holds_no_label(found, data.reduce_labels):
            raise ValueError(
                f"All masks of the split {name} hold {' and '.join(map(str, sorted(found)))} alone, which is"
                " unlabelled: there is nothing to learn or to score. Compare their ids with the names of the classes."
            )
    if is_binary(set().union(*ids.values())):
        raise ValueError(
            f"All masks hold 0 and {IGNORE_INDEX} alone, and {IGNORE_INDEX} is unlabelled, so one class is left. Save"
            " the other class as 1: Image.fromarray(np.asarray(mask) // 255).save(path), or let"
            f" `{IMPORT_COMMAND}` do it."
        )
    for row in with_encoded(data.validation.select_columns(["image", "name"]), "image"):
        with open_photograph(encoded_file(row["image"]), f"The image {row['name']} of the validation") as picture:
            width, height = picture.size  # whether upright or not makes no difference here
        if (seen := narrow_size(height, width, image_processor, min_image_size)) is not None:
            raise ValueError(
                f"The image {row['name']} of the validation has {height} x {width} pixels (height x width), of"
                f" which the model sees {seen[0]} x {seen[1]}: both sides must have at least {min_image_size}. Remove"
                " it with its mask, or raise --short_side and --long_side."
            )


def narrow_size(
    height: int, width: int, image_processor: DenseCLIPImageProcessor, min_image_size: int
) -> tuple[int, int] | None:
    """Height and width at which the model sees a picture, if one of them is less than it takes."""
    seen = image_processor.get_resized_size(height, width)
    return seen if min(seen) < min_image_size else None


def _check_names(name: str, class_names: list[str]) -> None:
    check_class_names(class_names)
    if len(class_names) == 1:
        raise ValueError(
            f"{name} has the class '{class_names[0]}' alone, and a softmax over one class is 1 everywhere. Name the"
            " rest as a class too: two names, such as 'background' and the other, with the ids 0 and 1 in the masks."
        )


def _load_split(
    dataset_name: str,
    config_name: str | None,
    data_dir: str | Path | None,
    split: str,
    columns: tuple[str, str],
    cache_dir: str | Path | None,
) -> datasets.Dataset:
    data_dir = None if data_dir is None else str(data_dir)
    try:
        rows = datasets.load_dataset(dataset_name, config_name, data_dir=data_dir, split=split, cache_dir=cache_dir)
    except ValueError as error:
        raise ValueError(
            f"The split '{split}' of {dataset_name} cannot be loaded: {error} Splits are named by train_split and "
            "validation_split, a configuration by dataset_config_name."
        ) from error
    for column, argument in zip(columns, ("image_column", "label_column"), strict=True):
        if not isinstance(rows.features.get(column), datasets.Image):
            raise ValueError(
                f"{dataset_name} has no column '{column}' of images; its columns are {dict(rows.features)}. Name the "
                f"right one by {argument}."
            )
    return rows


def _names_in_features(dataset_name: str, features: datasets.Features) -> list[str]:
    """The names of the one column of classes, or of lists of classes, that there is."""
    found = {}
    for column, feature in features.items():
        feature = feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature
        if isinstance(feature, datasets.ClassLabel):
            found[column] = [name.strip() for name in feature.names]  # as lines of a file are
    if len(found) != 1:
        raise ValueError(
            f"{dataset_name} does not say what the ids of its masks mean: names of classes come with the columns "
            f"{list(found)} of {list(features)}, where exactly one has to have them. Write the names into a file, one "
            "per line in the order of ids, and pass it as class_names_file."
        )
    ((column, class_names),) = found.items()
    # It could be a column of labels for whole images, so the user is told.
    logger.warning(f"The ids of the masks of {dataset_name} are taken for the classes of its column '{column}'.")
    return class_names


def _select_and_check(
    rows: datasets.Dataset,
    columns: tuple[str, str],
    source: str,
    num_labels: int,
    reduce_labels: bool,
    num_workers: int,
) -> tuple[datasets.Dataset, dict[int, int]]:
    """
    Bring a split to the columns that all data sets have, and count the pixels of each id. `datasets` remembers that it
    was checked.
    """
    rows = rows.select_columns(list(columns)).rename_columns(dict(zip(columns, ("image", "annotation"), strict=True)))
    counts = with_encoded(rows, "image", "annotation").map(
        _check_row,
        with_indices=True,
        fn_kwargs={"source": source, "num_labels": num_labels, "reduce_labels": reduce_labels},
        remove_columns=["image", "annotation"],
        num_proc=num_workers if num_workers > 1 else None,
        desc=f"Checking {source}",
    )
    for column in ("image", "annotation"):
        # No `mode`: converting a palette image to "L" replaces its ids by the grey values of their colours.
        rows = rows.cast_column(column, datasets.Image())
    rows = rows.add_column("name", [f"{index:08d}" for index in range(len(rows))], new_fingerprint=None)
    return rows.add_column("index", list(range(len(rows))), new_fingerprint=None), sum_pixels(counts)


def _check_row(row: dict, index: int, source: str, num_labels: int, reduce_labels: bool) -> dict[str, list[int]]:
    image, mask = f"The image of row {index} in {source}", f"The mask of row {index} in {source}"
    for column, name in (("image", image), ("annotation", mask)):
        if row[column] is None or (row[column]["bytes"] is None and row[column]["path"] is None):
            raise UnreadableFileError(f"{name} is missing: every row needs both. Add it, or remove the row.")
    _, facts, findings = examine_pair(row["image"], row["annotation"], image, mask, num_labels, reduce_labels)
    if (error := first_error(findings)) is not None:
        raise error
    return {"ids": list(facts.pixels), "pixels": list(facts.pixels.values())}
