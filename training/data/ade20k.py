# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""ADE20K, 150 classes: read from an unpacked archive, or downloaded."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import datasets
from filelock import FileLock
from huggingface_hub.file_download import http_get
from transformers.utils import logging

from .files import read_ade20k_classes
from .segmentation_folder import FolderForm


logger = logging.get_logger(__name__)

URL = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
SHA1 = "219e1696abb36c8ba3a3afe7fb2f4b4606a897c7"
FOLDER = "ADEChallengeData2016"
NUM_IMAGES = {"training": 20210, "validation": 2000}


class ADE20K(FolderForm):
    """
    ADE20K as the scene parsing challenge of 2016 published it: 20,210 and 2,000 images, 150 classes. In its masks 0 is
    unlabelled and the first class has the id 1.

    Args:
        data_dir (`str` or `Path`, *optional*): an unpacked `ADEChallengeData2016`, or the folder that holds it.
            Without one the archive (about 1 GB) is downloaded and unpacked once, see [`download_ade20k`].
        class_names_file, reduce_labels (*optional*): no others than ADE20K's own, so that these are refused.
        cache_dir (`str` or `Path`, *optional*): see [`download_ade20k`].

    Raises:
        `ValueError`: if `data_dir` is not such a folder, or for options by which ADE20K would be another data set. One
        with other numbers of images is only warned about.
    """

    fixes = {
        "wrong_ids": "The 150 classes come with ADEChallengeData2016, whose masks hold 0 to 150; the full ADE20K has"
        " others.",
        "rare_classes": "ADE20K is so. It is trained by the published loss, unless --dice_weight or another is given.",
    }
    may_leave_out = False  # scores on a part of it could be taken for scores on ADE20K

    def __init__(
        self,
        data_dir: str | Path | None,
        class_names_file: str | Path | None = None,
        reduce_labels: bool | None = None,
        cache_dir: str | Path | None = None,
    ):
        if reduce_labels is False or class_names_file is not None:
            raise ValueError(
                f"ADE20K has its own classes, and 0 is unlabelled in it; received reduce_labels={reduce_labels} and "
                f"class_names_file={class_names_file}. Leave both out; a folder of its form with other ids is a "
                "'folder' with a classes.txt."
            )
        self.data_dir = download_ade20k(cache_dir) if data_dir is None else find_ade20k(Path(data_dir))
        self.name, self.reduce_labels = "ADE20K", True

    def read_classes(self) -> tuple[list[str], tuple[tuple[int, int, int], ...]]:
        return read_ade20k_classes()

    def compare_size(self, split: str, num_images: int) -> None:
        expected = NUM_IMAGES.get(split, 0)
        if num_images != expected:
            logger.warning(
                f"{self.data_dir} has {num_images:,} {split} images, where ADE20K has {expected:,}: do not "
                "compare results with published ones."
            )


def download_ade20k(
    cache_dir: str | Path | None = None,
    url: str = URL,
    sha1: str = SHA1,
    num_images: dict[str, int] = NUM_IMAGES,
) -> Path:
    """
    Download and unpack the archive, unless that was done before. A download that was cut off goes on where it was, and
    what is there under its final name is complete. Nothing is unpacked of an archive with another SHA-1, even if it
    lay there already.

    Args:
        cache_dir (`str` or `Path`, *optional*, defaults to the cache of `datasets`): where it goes, and stays.
        url, sha1 (`str`): the archive and its SHA-1.
        num_images (`dict[str, int]`): how many images and masks its splits have.

    Returns:
        `Path`: the folder `ADEChallengeData2016`.

    Raises:
        `ValueError`: if the archive is not the official one, or its content is not.
        `OSError`: if the disk has no room for what it holds.
    """
    parent = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "downloads"
    folder, archive = parent / FOLDER, parent / f"{FOLDER}.zip"
    parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{archive}.lock"):  # several processes may start at once
        if not folder.is_dir():
            if not archive.is_file() or _sha1(archive) != sha1:
                _download(url, sha1, archive)
            _unpack(archive, folder, num_images)
            archive.unlink()
    return folder


def _download(url: str, sha1: str, path: Path) -> None:
    incomplete = path.with_name(f"{path.name}.incomplete")
    # A process that ended between the last byte and the check left a file to which no server can add.
    if not incomplete.is_file() or _sha1(incomplete) != sha1:
        with open(incomplete, "ab") as file:
            http_get(url, file, resume_size=file.tell(), displayed_filename=path.name)
    found = _sha1(incomplete)
    if found != sha1:
        incomplete.unlink()
        raise ValueError(
            f"{url} was downloaded with the SHA-1 {found}, which has to be {sha1}, and is removed again. Try once "
            "more, or download and unpack it yourself and name the folder (data_dir)."
        )
    incomplete.replace(path)


def _unpack(archive: Path, folder: Path, num_images: dict[str, int]) -> None:
    """Unpack into a temporary folder, look at it, and only then give it its name."""
    temporary = folder.with_name(f"{folder.name}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)
    with zipfile.ZipFile(archive) as content:
        size, free = sum(member.file_size for member in content.infolist()), shutil.disk_usage(archive.parent).free
        if size > free:  # no member gives more than its declared size
            raise OSError(
                f"{archive} holds {size / 2**20:,.0f} MB, and {archive.parent} has {free / 2**20:,.0f} MB left. Make"
                " room, or choose another folder (HF_DATASETS_CACHE)."
            )
        for name in datasets.utils.tqdm(content.namelist(), desc=f"Unpacking {archive.name}", unit=" files"):
            content.extract(name, temporary)  # drops "..", drives and leading slashes, and makes no links
    for split, expected in num_images.items():
        for kind in ("images", "annotations"):
            found = len(list((temporary / folder.name / kind / split).glob("*.*")))
            if found != expected:
                shutil.rmtree(temporary)
                raise ValueError(
                    f"{archive} holds {found:,} files in {folder.name}/{kind}/{split}, and has to hold {expected:,}. "
                    "Remove it to download it again."
                )
    (temporary / folder.name).rename(folder)
    shutil.rmtree(temporary)


def _sha1(path: Path) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def find_ade20k(data_dir: Path) -> Path:
    for folder in (data_dir, data_dir / FOLDER):
        if (folder / "images").is_dir():
            return folder
    raise ValueError(
        f"{data_dir} holds neither images/ and annotations/ nor a folder {FOLDER} that does. Name the unpacked "
        f"{FOLDER} or the folder around it, or none to have it downloaded."
    )
