# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The data sets: a folder of your own, ADE20K, or one of the Hub; all with the same columns, and checked once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.class_names_denseclip import check_class_names
from modeling_denseclip.tools.files.photographs import open_photograph

from .ade20k import ADE20K
from .files import IGNORE_INDEX, count_by_class, find_rare, holds_no_label, is_binary
from .findings import IMPORT_COMMAND
from .rows import RowForm
from .segmentation_folder import FolderForm, SegmentationFolder
from .streaming import WEB_DATASET, RowStream, name_shards
from .transforms import encoded_file, with_encoded


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
            (decoded when read), `name`, and `index`, the position. Of data that are streamed `train` is a
            [`RowStream`].
        left_out (`tuple[str, ...]`): what is wrong with each pair of a folder that was left out of its split.
        validation_split (`str`): what the data set itself calls the split that is scored, for reports.
        pixels (`dict[str, dict[int, int]]`): of "training" and "validation", as far as they were asked for: each id,
            as the masks store it, with its number of pixels. What is streamed is not counted.
    """

    name: str
    class_names: list[str]
    palette: tuple[tuple[int, int, int], ...] | None
    reduce_labels: bool
    train: datasets.Dataset | RowStream | None
    validation: datasets.Dataset | None
    left_out: tuple[str, ...] = ()
    validation_split: str = "validation"
    pixels: dict[str, dict[int, int]] = field(default_factory=dict)

    def rare_classes(self) -> dict[str, float]:
        """
        Name -> share of the labelled pixels of training, which is not streamed, of the classes that [`find_rare`]
        finds.
        """
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
    class_names: Sequence[str] | None = None,
    streaming: bool = False,
) -> SegmentationData:
    """
    Load a data set, and check all images and masks of it the first time.

    Args:
        dataset (`str`, *optional*, defaults to `"folder"`): "folder", for `images/{training,validation}`,
            `annotations/...` and `classes.txt` in `data_dir` (see [`SegmentationFolder`]), or "ade20k" (see
            [`ADE20K`]).
        data_dir (`str` or `Path`, *optional*): the folder; ADE20K without one is downloaded.
        dataset_name (`str`, *optional*): instead of `dataset`, a data set of the Hub or anything else that
            [`datasets.load_dataset`] takes, with `dataset_config_name` and `data_dir`; or a folder that `save_to_disk`
            has written. See [`RowForm`].
        image_column, label_column (`str`, *optional*): its columns.
        train_split, validation_split (`str`, *optional*): what the splits are called: folders in `images/` and
            `annotations/`, by default "training" and "validation", or splits of `dataset_name`, by default "train"
            and "validation", or parts of them, such as "train[:80%]".
        class_names_file (`str` or `Path`, *optional*): one name per line. By default a folder's own `classes.txt`,
            or the names in the features of `dataset_name`.
        reduce_labels (`bool`, *optional*): see [`SegmentationData`]; `True` for ADE20K, otherwise `False` by default.
        splits (`Sequence[str]`, *optional*): which to load, of "training" and "validation".
        num_workers (`int`, *optional*, defaults to 1): number of processes that check.
        cache_dir (`str` or `Path`, *optional*): instead of the cache of `datasets`.
        leave_out_unreadable (`bool`, *optional*, defaults to `False`): whether pairs of a "folder" of which a file
            cannot be read are left out, and not refused. (Of ADE20K none is: its scores are of the whole set.)
        class_names (`Sequence[str]`, *optional*): names for a `dataset_name` that tells none: those of the model to
            score. They are warned of.
        streaming (`bool`, *optional*, defaults to `False`): whether "training" of `dataset_name` is neither fetched
            nor checked, but read as it comes. "validation" is, without the files of other splits.

    Raises:
        `ValueError`: if an argument or the data set is wrong; it names the file or row.
    """
    sources = name_splits(dataset_name, train_split, validation_split)
    if streaming and sources["training"] == sources["validation"] and len(splits) > 1:
        raise ValueError(
            f"The split '{sources['training']}' cannot be streamed for training and loaded for validation: name two"
            " by train_split and validation_split."
        )
    form = open_source(
        *(dataset, data_dir, dataset_name, dataset_config_name, image_column, label_column),
        splits=[sources[split] for split in splits],
        class_names_file=class_names_file,
        class_names=class_names,
        reduce_labels=reduce_labels,
        cache_dir=cache_dir,
        streamed=[sources["training"]] if streaming else None,
    )
    for refusal in form.refusals.values():
        raise refusal
    names, palette = form.read_classes()
    _check_names(form.name, names)
    loaded, pixels, left_out = {}, {}, []
    for split in splits:
        if streaming and split == "training":
            loaded[split] = form.open_stream(sources[split])
            continue
        if isinstance(form, RowForm):
            loaded[split], pixels[split] = form.load(sources[split], len(names), num_workers)
            continue
        arguments = (len(names), form.reduce_labels, num_workers, cache_dir, leave_out_unreadable & form.may_leave_out)
        folder = SegmentationFolder(form.data_dir, sources[split], *arguments, form.find_pairs)
        form.compare_size(sources[split], len(folder.pairs))
        loaded[split] = folder.load()
        pixels[split] = folder.pixels
        left_out += folder.find_left_out(loaded[split])
    train, validation = loaded.get("training"), loaded.get("validation")
    return SegmentationData(
        *(form.name, names, palette, form.reduce_labels, train, validation, tuple(left_out)),
        validation_split=(name_shards if dataset_name == WEB_DATASET else str)(sources["validation"]),
        pixels=pixels,
    )


def name_splits(
    dataset_name: str | None, train_split: str | None = None, validation_split: str | None = None
) -> dict[str, str]:
    """What the data set calls "training" and "validation"."""
    defaults = {"training": "training", "validation": "validation"} if dataset_name is None else HUB_SPLITS
    named = {"training": train_split, "validation": validation_split}
    return {split: defaults[split] if name is None else name for split, name in named.items()}


def open_source(
    dataset: str = "folder",
    data_dir: str | Path | None = None,
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    image_column: str = "image",
    label_column: str = "annotation",
    *,
    splits: Sequence[str],
    class_names_file: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    reduce_labels: bool | None = None,
    cache_dir: str | Path | None = None,
    streamed: Sequence[str] | None = None,
) -> FolderForm | RowForm:
    """
    What loading and inspection both ask of a data set. The arguments are those of [`load_data`], but for `splits`, the
    names that the data set itself has for them, and `streamed`, as of [`RowForm`].

    Raises:
        ValueError: for a form that is none of `FORMS`, or as the form itself.
        OSError: for rows that are not there.
    """
    if dataset_name is not None:
        return RowForm(
            *(dataset_name, splits, dataset_config_name, data_dir, image_column, label_column),
            *(class_names_file, class_names, reduce_labels, cache_dir, streamed),
        )
    if streamed is not None:
        raise ValueError(
            "Only rows are streamed: --dataset_name names a data set of the Hub, or a folder of archives or of other"
            " files that `datasets` reads. Pictures of a folder, and ADE20K, are read from the disk when they are"
            " asked for anyway: leave --streaming out."
        )
    if dataset not in FORMS:
        raise ValueError(
            f"There is no data set '{dataset}': it is {' or '.join(map(repr, FORMS))}, or dataset_name names one of"
            " the Hub."
        )
    return FORMS[dataset](data_dir, class_names_file, reduce_labels, cache_dir)


def check_for_training(
    data: SegmentationData, image_processor: DenseCLIPImageProcessor, min_image_size: int = MIN_IMAGE_SIZE
) -> None:
    """
    Refuse what training could only fail on, or learn nonsense from, after hours. `training.inspect_dataset` refuses
    the same.

    Args:
        data ([`SegmentationData`]): both of its splits; of what is streamed nothing is known.
        image_processor ([`DenseCLIPImageProcessor`]): gives the size at which the model sees an image.
        min_image_size (`int`, *optional*, defaults to 32): the least side in pixels that the model takes.

    Raises:
        ValueError: for a split without a labelled pixel; masks that hold 0 and 255 alone, which mostly means that 255
            is the second class; or an image of the validation that is too narrow for the model.
    """
    ids = {split: set(pixels) for split, pixels in data.pixels.items()}
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
