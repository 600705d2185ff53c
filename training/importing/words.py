# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What the words of file and folder names say: which part of a data set a file belongs to, and which kind it is of."""

import re


# What data sets call their parts, in lower case, and what the folder that is written calls them.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "training"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "minival"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
JOINT = re.compile(r"(?<![^\W_])train[\W_]?val(?![^\W_])", re.I)
# Words of file and folder names that say that a picture is a mask, or that it is a photograph.
MASK_WORDS = frozenset(
    (
        "mask", "masks", "label", "labels", "labelled", "labeled", "lab", "seg", "segs", "segm", "segmentation",
        "segmentations", "segmented", "semseg", "semantic", "semantics", "gt", "gts", "groundtruth", "groundtruths",
        "ground", "truth", "truths", "annotation", "annotations", "annot", "annots", "anno", "annos", "ann", "trimap",
        "trimaps", "matte", "mattes", "alpha", "target", "targets", "parsing", "manual", "class", "classes",
        "ids", "id", "trainids", "instance", "instances", "object", "objects", "binary", "bw", "pixel",
        "pixels", "polygon", "regions", "fine", "coarse",
    )
)  # fmt: skip
IMAGE_WORDS = frozenset(
    (
        "image", "images", "img", "imgs", "im", "photo", "photos", "photograph", "photographs", "picture",
        "pictures", "jpeg", "jpegs", "jpg", "rgb", "sat", "satellite", "left", "original", "originals", "orig",
        "source", "src", "raw", "input", "inputs", "bit",
    )
)  # fmt: skip
# Words that are used of both.
COLOUR_WORDS = frozenset(("color", "colour", "colors", "colours", "colormap", "colormaps", "colourmap", "colourmaps"))
# Pictures of masks for people to look at, and results: neither photographs nor masks.
SHOWN_WORDS = frozenset(
    (
        "overlay", "overlays", "vis", "viz", "visualization", "visualisation", "visualize", "preview",
        "previews", "blend", "pred", "preds", "prediction", "predictions", "predict", "result", "results",
    )
)  # fmt: skip
KIND_WORDS = MASK_WORDS | IMAGE_WORDS | COLOUR_WORDS | SHOWN_WORDS | {"png", "tif", "data", "dataset", "set"}
# "trainannot": some put the name of a part and that of a kind together. CVAT calls its only part "default".
JOINED = re.compile(
    rf"({'|'.join(sorted((*SPLIT_WORDS, 'default'), key=len, reverse=True))})({'|'.join(sorted(KIND_WORDS))})", re.I
)


def words(text: str) -> list[str]:
    """
    The words of a name: parted by anything that is no letter and no digit, and between letters and digits where a word
    is one of each, such as "image001" (but not in "3f2a9c", which means something as a whole only); and a part of the
    data set from the kind that follows it, as in "trainannot".
    """
    found = []
    for word in re.findall(r"[^\W_]+", text):
        parts = re.fullmatch(r"([^\W\d_]+)(\d+)|(\d+)([^\W\d_]+)", word)
        for part in [part for part in parts.groups() if part] if parts else [word]:
            joined = None if part.lower() in KIND_WORDS else JOINED.fullmatch(part)
            found += joined.groups() if joined else [part]
    return found


def parts_of(word: str) -> list[str]:
    """ "labelIds" is "label" and "ids", "JPEGImages" is "jpeg" and "images"."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+|\d+", word)] or [word.lower()]


def is_kind_word(word: str) -> bool:
    """Whether a word says what kind of picture a file is, and nothing of what is on it."""
    parts = [part for part in parts_of(word) if not part.isdigit()]
    return bool(parts) and all(part in KIND_WORDS for part in parts)


def split_in(text: str) -> str | None:
    """
    The one split that the words of a name say: of "train_labels" training, of "train_or_test" none. What is to be
    parted into training and validation, "train_val", is for training as far as names tell.
    """
    found = set()
    for word in words(JOINT.sub("trainval", text)):
        parts = [word.lower()] if word.lower() in SPLIT_WORDS else parts_of(word)
        found |= {SPLIT_WORDS[part] for part in parts if part in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None
