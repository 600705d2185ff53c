# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""All files of a data set, counted and examined before training on it."""

import hashlib
import os
import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.class_names_denseclip import check_class_names, normalize_class_name
from modeling_denseclip.tools.insight.explanation import class_similarity, confusable_names, load_text_reader

from ..options.arguments import DataArguments
from .class_names import CLASSES_FILE
from .duplicates import find_near, source_stem
from .files import IGNORE_INDEX, count_by_class, find_rare, find_wrong_ids, holds_no_label, is_binary, printable
from .findings import IMAGE, MASK, RULES, FileFacts, Finding, Pair, examine_pair, format_size, in_processes
from .load import MIN_IMAGE_SIZE, name_splits, narrow_size, open_source
from .rows import Row
from .transforms import read_bytes


NUM_FILES_PER_ID = 3
# Splits that are held out, by usual names: none of them is the one to train on.
HELD_OUT = ("validation", "valid", "val", "dev", "test", "testing")
NEAR = 32  # how far a compression with losses takes most values from 0 and from 255
# Starting processes takes longer than reading so many pairs.
FEW_PAIRS = 500


@dataclass
class Statistics:
    """Counts over the pairs of a split, or over all. Where keys are ids, they are as stored in the masks."""

    files: Counter = field(default_factory=Counter)  # "images", "masks", "pairs" -> files
    image_formats: Counter = field(default_factory=Counter)
    image_modes: Counter = field(default_factory=Counter)
    image_sizes: Counter = field(default_factory=Counter)  # (width, height) -> files
    mask_modes: Counter = field(default_factory=Counter)
    masks: Counter = field(default_factory=Counter)  # id -> masks that hold it
    pixels: Counter = field(default_factory=Counter)  # id -> pixels
    pixels_around: Counter = field(default_factory=Counter)  # id -> pixels of all masks that hold it
    colours: Counter = field(default_factory=Counter)  # 0xRRGGBB -> pixels of masks that are no ids but colours

    def add(self, pair: Pair | Row, image: FileFacts, mask: FileFacts) -> None:
        self.files.update(images=pair.image is not None, masks=pair.mask is not None)
        self.files.update(pairs=pair.image is not None and pair.mask is not None)
        if image.format:
            self.image_formats[image.format] += 1
            self.image_modes[image.mode] += 1
            self.image_sizes[image.size] += 1
        if mask.format:
            self.mask_modes[mask.mode] += 1
            self.colours.update(mask.colours)
            self.masks.update(mask.pixels.keys())
            self.pixels.update(mask.pixels)
            self.pixels_around.update(dict.fromkeys(mask.pixels, sum(mask.pixels.values())))

    @classmethod
    def total(cls, parts: Iterable["Statistics"]) -> "Statistics":
        parts = list(parts)
        return cls(*(sum((getattr(part, f.name) for part in parts), Counter()) for f in fields(cls)))


@dataclass
class DatasetReport:
    """
    All that was found in a data set.

    Attributes:
        dataset_dir (`Path` or `str`): the folder, or the name of a data set of rows.
        class_names (`list[str]`): K names; made up ("id 0", ...) if they cannot be read.
        palette (`Sequence` of RGB triples, *optional*): their colours, if the data set has its own.
        reduce_labels (`bool`): whether 0 in a mask is unlabelled, and n names the class n - 1.
        splits (`dict[str, Statistics]`): what was counted, per split.
        findings (`dict[str, list[str]]`): keys of `RULES`, each with what it was found in.
        fixes (`dict[str, str]`): better advice than that of `RULES`, where the ids give it away.
        drawable (`list[Pair | Row]`): pairs whose mask fits the image.
        training_split (`str`, *optional*): the split to train on, by the name that the data set has for it.
    """

    dataset_dir: Path | str
    class_names: list[str]
    palette: Sequence[Sequence[int]] | None
    reduce_labels: bool
    splits: dict[str, Statistics]
    findings: dict[str, list[str]] = field(default_factory=dict)
    fixes: dict[str, str] = field(default_factory=dict)
    drawable: list[Pair | Row] = field(default_factory=list)
    training_split: str | None = None

    def add(self, rule: str, item: str) -> None:
        self.findings.setdefault(rule, []).append(item)

    def add_findings(self, findings: Iterable[Finding], pair: Pair | Row | None = None) -> None:
        for finding in findings:
            place = finding.place
            if pair is not None:
                place = {IMAGE: pair.image, MASK: pair.mask}[place]
            self.add(finding.rule, f"{self.name(place)}{finding.said}")

    def name(self, place: Path | str) -> str:
        """A file or folder as seen from that of the data set; what else has a name as it is."""
        return printable(place.relative_to(self.dataset_dir).as_posix() if isinstance(place, Path) else place)

    def explain(self, level: str, rule: str) -> tuple[str, str]:
        """The title of a finding, and what to do."""
        title, fix = RULES[level][rule]
        return title, self.fixes.get(rule, fix)

    @property
    def total(self) -> Statistics:
        return Statistics.total(self.splits.values())

    @property
    def columns(self) -> dict[str, Statistics]:
        """The splits, and all of them together where there are several."""
        return {**self.splits, "all": self.total} if len(self.splits) > 1 else self.splits

    def findings_of(self, level: str) -> list[str]:
        """The findings of one level, in the order of `RULES`."""
        return [rule for rule in RULES[level] if rule in self.findings]

    @property
    def split_arguments(self) -> str:
        """What training is to be told, where the splits have other names than it expects."""
        training = self.training_split
        names = {"train_split": training, "validation_split": next((s for s in self.splits if s != training), None)}
        dataset_name = None if isinstance(self.dataset_dir, Path) else self.dataset_dir
        usual = dict(zip(names, name_splits(dataset_name).values(), strict=True))
        return " ".join(
            f"--{option} {shlex.quote(name)}" for option, name in names.items() if name not in (None, usual[option])
        )

    @property
    def accepted(self) -> bool:
        return not self.findings_of("error")

    def class_of(self, label: int) -> int | None:
        """The class that a stored id means; `None` is unlabelled, and from K on there is no such class."""
        if label == IGNORE_INDEX or (self.reduce_labels and label == 0):
            return None
        return label - 1 if self.reduce_labels else label

    def per_class(self, counts: Counter) -> np.ndarray:
        """Sort counts of stored ids by class: an array of K."""
        return count_by_class(counts, len(self.class_names), self.reduce_labels)

    def unlabelled(self, counts: Counter) -> int:
        """Sum counts of stored ids that mean "unlabelled"."""
        return sum(count for label, count in counts.items() if self.class_of(label) is None)


def find_training_split(splits: Iterable[str]) -> str | None:
    """The split to train on: the first whose name does not say that it is held out."""
    return next((split for split in splits if split.lower() not in HELD_OUT), None)


def inspect_dataset(
    dataset_dir: str | Path | None = None,
    dataset: str = "folder",
    reduce_labels: bool | None = None,
    splits: Sequence[str] | None = None,
    num_workers: int | None = None,
    similar_names: str | None = None,
    tokenizer: str | None = None,
    short_side: int = DataArguments.short_side,
    long_side: int = DataArguments.long_side,
    min_image_size: int = MIN_IMAGE_SIZE,
    dataset_name: str | None = None,
    train_split: str | None = None,
    validation_split: str | None = None,
    **source,
) -> DatasetReport:
    """
    Read all of a data set and report what is there and what is wrong.

    Args:
        dataset_dir (`str` or `Path`, *optional*): the folder; see [`SegmentationFolder`] for its layout. With
            `dataset_name` it is the `data_dir` of [`load_data`].
        dataset (`str`, *optional*, defaults to `"folder"`): "ade20k" takes the 150 names of ADE20K instead of those in
            classes.txt.
        reduce_labels (`bool`, *optional*): 0 in a mask is unlabelled and n names the class n - 1. By default so for
            ADE20K only.
        splits (`Sequence[str]`, *optional*): names of all splits to inspect, such as "test" too, that of training
            first. By default those of `train_split` and `validation_split`.
        num_workers (`int`, *optional*): processes that read files; 0 reads in this one. By default one per core for
            more than 500 pairs, and 0 for fewer.
        similar_names (`str`, *optional*): a CLIP or DenseCLIP whose text tower is to read the names of the classes: a
            folder, or the id of a repository on the Hub.
        tokenizer (`str`, *optional*): where its tokenizer is, if not beside it.
        short_side, long_side (`int`, *optional*, default to those of training): to what size training brings images.
        min_image_size (`int`, *optional*, defaults to 32): the least side in pixels that the model takes.
        dataset_name, train_split, validation_split (`str`, *optional*): as of [`load_data`], whose other arguments on
            where pictures and names come from are taken as well.

    Raises:
        `ValueError`: if there is no such folder, no split or column of rows can be loaded, options are none of ADE20K,
            or the model is of another kind. All else that is wrong is in the report.
        `OSError`: if there are no such rows.
        `ChildProcessError`: if a process that reads files died.
    """
    if dataset_name is None and dataset_dir is not None and not Path(dataset_dir).is_dir():
        raise ValueError(f"{dataset_dir} is no folder: name the one that holds images/ and annotations/.")
    names = name_splits(dataset_name, train_split, validation_split)
    training_split = names["training"] if splits is None else find_training_split(splits)
    splits = tuple(names.values()) if splits is None else splits
    form = open_source(dataset, dataset_dir, dataset_name, splits=splits, reduce_labels=reduce_labels, **source)
    image_processor = DenseCLIPImageProcessor(size={"shortest_edge": short_side, "longest_edge": long_side})
    report = DatasetReport(
        *(form.place, [], None, form.reduce_labels, {split: Statistics() for split in splits}),
        fixes=dict(form.fixes),
        training_split=training_split,
    )
    try:
        report.class_names, report.palette = form.read_classes()
    except ValueError as error:
        report.add("class_names", str(error))
    _check_names(report)
    if similar_names is not None and report.accepted:
        model = load_text_reader(similar_names, report.class_names, tokenizer)
        similarity = class_similarity(model, report.class_names)
        for first, second, cosine in confusable_names(similarity, report.class_names):
            report.add("names_read_alike", f"{first} / {second}: cosine {cosine:.3f}")

    pairs: list[Pair | Row] = []
    for split in report.splits:
        of_split, findings = form.list_pairs(split)
        pairs += of_split
        report.add_findings(findings)
    pictures: dict[bytes, list[Pair | Row]] = defaultdict(list)
    hashes: dict[Pair | Row, int | None] = {}
    holders: dict[int, list[str]] = defaultdict(list)
    binary_masks: list[str] = []
    if num_workers is None:
        num_workers = (os.cpu_count() or 1) if len(pairs) > FEW_PAIRS else 0
    inspect = partial(inspect_pair, num_labels=len(report.class_names), reduce_labels=report.reduce_labels)
    died = "A process that reads images and masks died, so nothing is reported"
    # A forked process may wait for ever for a lock that a thread of its parent held.
    results = in_processes(inspect, pairs, num_workers, died, "--num_workers", start_method="spawn")
    progress = tqdm(results, "Reading", len(pairs), unit=" pairs", disable=None)
    for pair, (digest, image, mask, findings) in zip(pairs, progress, strict=True):
        report.splits[pair.split].add(pair, image, mask)
        # Of ids there is one finding for each in all masks, see `_check_ids`.
        report.add_findings((finding for finding in findings if finding.rule != "wrong_ids"), pair)
        if image.is_read and mask.pixels and image.size == mask.size:
            report.drawable.append(pair)
        # Training crops and pads its own split.
        if pair.split != report.training_split and image.is_read:
            width, height = image.size
            if (seen := narrow_size(height, width, image_processor, min_image_size)) is not None:
                report.add(
                    "narrow_images",
                    f"{report.name(pair.image)}: {format_size(image.size)}, of which the model sees"
                    f" {format_size(seen[::-1])}; both sides must have at least {min_image_size}",
                )
        if digest:
            pictures[digest].append(pair)
            hashes[pair] = image.hash
        for label in mask.pixels:
            if len(holders[label]) < NUM_FILES_PER_ID:
                holders[label].append(report.name(pair.mask))
        if is_binary(mask.pixels.keys()):
            binary_masks.append(report.name(pair.mask))

    if not report.class_names:
        highest = max(holders.keys() - {IGNORE_INDEX}, default=0)
        report.class_names = [f"id {label}" for label in range(highest + 1)]
        report.fixes["class_names"] = (
            f"{report.explain('error', 'class_names')[1]} The masks hold ids up to {highest}."
        )
    _check_pictures(report, pictures)
    _check_near_pictures(report, pictures, hashes)
    _check_ids(report, holders, binary_masks)
    _check_classes(report)
    return report


def _check_names(report: DatasetReport) -> None:
    """Compare names by their letters; one alone is none to tell from others."""
    if len(report.class_names) == 1:
        report.add("one_class", report.class_names[0])
    words: dict[str, str] = {}
    spellings: dict[str, str] = {}
    for name in report.class_names:
        key = normalize_class_name(name).lower()
        if key in words:
            report.add("same_class_names", f"{words[key]} / {name}")
        else:
            words[key] = name
            spellings.setdefault(_letters(name), name)
    if report.class_names and report.accepted:
        try:
            check_class_names(report.class_names)
        except ValueError as error:
            report.add("class_names", str(error))
    for name in words.values():
        letters = _letters(name)
        # The name itself, and what it may be the plural of.
        for singular in (letters, letters.removesuffix("s"), letters.removesuffix("es"), re.sub("ies$", "y", letters)):
            other = spellings.get(singular, name)
            if other != name:
                report.add("nearly_the_same_names", f"{other} / {name}")
                break


def _letters(name: str) -> str:
    """Letters and digits of a name, in lower case, without accents."""
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    return "".join(character for character in decomposed if character.isalnum())


def inspect_pair(pair: Pair | Row, num_labels: int, reduce_labels: bool) -> tuple:
    """A digest of the image file, and what [`examine_pair`] gives. Runs in the workers."""
    digest = b""
    image, mask = pair.encoded()
    if image is not None:
        with suppress(MemoryError, OSError):  # which the examination meets again
            image = {**image, "bytes": read_bytes(image["path"]) if image["bytes"] is None else image["bytes"]}
            digest = hashlib.blake2b(image["bytes"], digest_size=16).digest()
    return digest, *examine_pair(image, mask, *pair.error_names(), num_labels, reduce_labels, with_hash=True)


def _check_pictures(report: DatasetReport, pictures: dict[bytes, list[Pair | Row]]) -> None:
    for same in pictures.values():
        if len(same) > 1:
            rule = "same_picture_in_two_splits" if len({pair.split for pair in same}) > 1 else "same_picture_twice"
            report.add(rule, " = ".join(report.name(pair.image) for pair in same))


def _check_near_pictures(
    report: DatasetReport, pictures: dict[bytes, list[Pair | Row]], hashes: dict[Pair | Row, int | None]
) -> None:
    pairs = list(hashes)
    groups = [("look alike", [pairs[place] for place in group]) for group in find_near(list(hashes.values()))]
    sources: dict[str, list[Pair | Row]] = defaultdict(list)
    for pair in pairs:
        sources[source_stem(pair.stem)].append(pair)
    for group in sources.values():
        # Where both splits number their pictures alike, equal names say nothing.
        if len({pair.stem for pair in group}) == len(group):
            groups.append(("by name", group))
    equal = {pair: digest for digest, same in pictures.items() for pair in same}  # has a finding of its own
    for reason, group in groups:
        if len({pair.split for pair in group}) > 1 and len({equal[pair] for pair in group}) > 1:
            report.add("near_duplicates_in_two_splits", f"{_name_some(report, group)} ({reason})")


def _name_some(report: DatasetReport, group: list[Pair | Row]) -> str:
    """Names of a few pictures of each split."""
    by_split: dict[str, list[str]] = defaultdict(list)
    for pair in group:
        by_split[pair.split].append(report.name(pair.image))
    return " ~ ".join(
        ", ".join(names[:NUM_FILES_PER_ID])
        + (f" and {len(names) - NUM_FILES_PER_ID:,} more" if len(names) > NUM_FILES_PER_ID else "")
        for names in by_split.values()
    )


def _check_ids(report: DatasetReport, holders: dict[int, list[str]], binary_masks: list[str]) -> None:
    total, num_labels = report.total, len(report.class_names)
    if num_labels == 2 and _looks_lossy(total.pixels):
        others = sum(count for label, count in total.pixels.items() if label not in (0, IGNORE_INDEX))
        report.add("lossy_masks", f"{others / total.pixels.total():.1%} of the pixels are neither 0 nor 255")
        return
    for label in find_wrong_ids(total.pixels, num_labels, report.reduce_labels):
        files, count = ", ".join(holders[label]), total.masks[label]
        more = f" and {count - len(holders[label]):,} more" if count > len(holders[label]) else ""
        report.add("wrong_ids", f"id {label}: {total.pixels[label]:,} pixels in {count:,} masks: {files}{more}")

    labels = total.pixels.keys() - {IGNORE_INDEX}
    highest = max(labels, default=-1)
    if highest == num_labels and not report.reduce_labels:
        if 0 in labels:
            share = total.pixels[0] / total.pixels.total()
            report.fixes["wrong_ids"] = (
                f"Ids run from 0 to {highest}, one more than there are names. If 0 ({share:.1%} of all pixels) means "
                f'"other" or unlabelled, pass --reduce_labels true; if it is a class, put its name on top of '
                f"{CLASSES_FILE} or --class_names_file."
            )
        else:
            report.fixes["wrong_ids"] = (
                f"Ids run from 1 to {highest}, so 0 means unlabelled here: pass --reduce_labels true."
            )
    if highest == num_labels - 1 and 0 in labels and report.reduce_labels:
        report.add("reduced_by_mistake", f"ids run from 0 to {highest}, with {num_labels} names")

    if is_binary(total.pixels.keys()):
        report.add("binary_masks", f"{total.files['masks']:,} masks")
    elif num_labels == 2:
        for name in binary_masks:
            report.add("some_binary_masks", name)
    for split, counts in report.splits.items():
        if counts.pixels and holds_no_label(counts.pixels.keys(), report.reduce_labels):
            report.add("nothing_labelled", f"{split}: {counts.files['masks']:,} masks")


def _looks_lossy(pixels: Counter) -> bool:
    """
    Whether the ids of two classes look like masks of 0 and 255 behind a compression with losses: nearly all pixels lie
    near one of the two, and 255 has neighbours.
    """
    first = IGNORE_INDEX - NEAR
    dark = sum(count for value, count in pixels.items() if value < NEAR)
    light = sum(count for value, count in pixels.items() if first < value <= IGNORE_INDEX)
    has_neighbours = IGNORE_INDEX in pixels and any(first < value < IGNORE_INDEX for value in pixels)
    return has_neighbours and dark > 0 and dark + light > 0.95 * pixels.total()


def _check_classes(report: DatasetReport) -> None:
    seen = {split: report.per_class(counts.pixels) > 0 for split, counts in report.splits.items() if counts.pixels}
    for split, present in seen.items():
        if not present.all():
            names = [report.class_names[index] for index in np.flatnonzero(~present)]
            report.add("classes_never_seen", f"{split}, {len(names)} of {len(present)}: {', '.join(names)}")
        if split == report.training_split:
            pixels = report.per_class(report.splits[split].pixels)
            for index in find_rare(pixels):
                report.add("rare_classes", f"{report.class_names[index]}: {pixels[index] / pixels.sum():.2%}")
        elif report.training_split in seen:
            for index in np.flatnonzero(present & ~seen[report.training_split]):
                report.add("classes_not_in_training", f"{split}: {report.class_names[index]}")
