# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Which form of annotations a folder holds."""

import json
from pathlib import Path

from .sources import Listing


COCO_KEYS = {"images", "annotations", "categories"}


def recognise(folder: Path) -> str | None:
    """What a folder holds, in words such as "COCO polygons", or `None` if that is no known form."""
    listing = Listing(folder)
    for file in listing.with_suffix(".json"):
        try:
            content = json.loads(listing.path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and content.keys() >= COCO_KEYS:
            return "COCO polygons"
    if (folder / "JPEGImages").is_dir() and (folder / "SegmentationClass").is_dir():
        return "masks in SegmentationClass/ (VOC)"
    return None
