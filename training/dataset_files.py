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
"""What the files of a data set are, for all that reads them. Imports nothing heavy: worker processes import it too."""

import json
from pathlib import Path

import PIL.Image


IGNORE_INDEX = 255  # unlabelled
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_SUFFIXES = (".png",)
# Of Pillow: those that store one number per pixel.
MASK_MODES = ("L", "P", "I", "I;16", "I;16B")
# A tag of photographs; values from 5 on swap width and height.
EXIF_ORIENTATION = 0x0112
ADE20K_FILE = Path(__file__).parents[1] / "configuration" / "datasets" / "ade20k.json"


def upright_size(picture: PIL.Image.Image) -> tuple[int, int]:
    """Height and width as `datasets` decodes a photograph: turned upright."""
    width, height = picture.size
    return (width, height) if picture.getexif().get(EXIF_ORIENTATION, 1) >= 5 else (height, width)


def read_ade20k_classes() -> tuple[list[str], tuple[tuple[int, int, int], ...]]:
    """The 150 names, in the order of ids after the reduction of the zero label, and their colours in RGB."""
    classes = json.loads(ADE20K_FILE.read_text(encoding="utf-8"))
    return classes["classes"], tuple(map(tuple, classes["palette"]))
