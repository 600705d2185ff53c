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
r"""Photographs that are read, and files that are written as a whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import PIL.ImageOps


IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def list_images(path: Path) -> list[Path]:
    """The photograph, or those in a folder, by name."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    return [path]


def read_photograph(path: str | Path) -> PIL.Image.Image:
    """
    The upright photograph, RGB.

    Raises:
        OSError: for a file that is not there or no image.
    """
    with PIL.Image.open(path) as file:
        return PIL.ImageOps.exif_transpose(file).convert("RGB")


def save_whole(target: Path, write: Callable[[Path], object]) -> None:
    """
    Let `write` make a file beside `target`, with the same suffix, and put it in place when it is complete. What was
    there before stays until then. Folders that are missing are made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", suffix=target.suffix, delete=False) as file:
        partial = Path(file.name)
    try:
        write(partial)
        # A temporary file is its owner's alone; this one is as any other that they write.
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
