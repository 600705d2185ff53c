# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The folder that transformers.js, as it is, runs by `pipeline('image-segmentation', FOLDER)`.

The library knows no DenseCLIP, and its ways to resize and to round are not ours. So the folder says SegFormer, whose
logits it enlarges as we do, and leaves nothing of the preparation to it: the graph takes the pixels of the picture.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from modeling_denseclip.tools.files.loading import read_json
from modeling_denseclip.tools.files.saving import replace_folder


# What the library calls its files, by the kind of numbers in them.
FILES = {"float32": "model.onnx", "float16": "model_fp16.onnx", "int8": "model_quantized.onnx"}
MODELS = "onnx"
CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
README = "README.md"
# In `config.json`: where a folder comes from, which the library passes over.
ORIGIN = "exported_from"
# The branch of a repository that holds such a folder: `config.json` of the main one is for Python.
BRANCH = "transformers.js"
PREPROCESSOR = {
    "image_processor_type": "SegformerImageProcessor",
    "do_convert_rgb": True,
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_pad"), False),
}
TEXT = """\
---
library_name: transformers.js
pipeline_tag: image-segmentation
license: {license_id}
---

# {name} for transformers.js

```js
import {{ pipeline }} from '@huggingface/transformers';

const segmenter = await pipeline('image-segmentation', './{name}');
const segments = await segmenter('street.jpg'); // [{{ label: 'sky', score: null, mask: RawImage }}, ...]
```

From the Hub, where these files are on the branch `{branch}` of the model: `await pipeline('image-segmentation',
'user/model', {{ revision: '{branch}' }})`.

{num_labels} classes. The model resizes and normalises pictures itself: give them as they are. {kinds}

The library enlarges the logits of all classes to the size of the picture, {num_labels} numbers a pixel. Shrink large
photographs before: `(await RawImage.read('street.jpg')).resize(1024, 768)`.

License of the model: {license}.
"""


def check_target(target: Path) -> None:
    """
    Raises:
        ValueError: for a place that holds anything but a folder that was written for transformers.js before.
    """
    if not target.exists() or (target.is_dir() and (not any(target.iterdir()) or is_export(target))):
        return
    raise ValueError(
        f"--format transformers.js writes a folder, and {target} is there already and was not written by it. Name"
        " another one."
    )


def is_export(folder: Path) -> bool:
    """Whether a folder was written by `write_folder`."""
    return (folder / CONFIG).is_file() and ORIGIN in read_json(folder / CONFIG)


def write_folder(kinds: dict[str, Path], target: Path, card: dict) -> str:
    """
    Write the folder, which replaces a former one when it is complete.

    Args:
        kinds (`dict[str, Path]`): `"float32"`, and with it `"float16"` and `"int8"` -> files, which are moved.
        target (`Path`): the folder.
        card (`dict`): what the JSON beside an exported file holds.

    Returns:
        `str`: what was written, in words.
    """

    def fill(folder: Path) -> None:
        (folder / MODELS).mkdir()
        for kind, file in kinds.items():
            file.replace(folder / MODELS / FILES[kind])
        for name, content in ((CONFIG, build_config(kinds, card)), (PROCESSOR, PREPROCESSOR)):
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (folder / name).write_text(f"{text}\n", encoding="utf-8")
        (folder / README).write_text(build_readme(kinds, target.name, card), encoding="utf-8")

    replace_folder(target, fill, last=CONFIG)
    files = [f"{MODELS}/{FILES[kind]}" for kind in kinds]
    sizes = [f"{file} ({(target / file).stat().st_size / 1e6:.1f} MB)" for file in files]
    return f"{target}: {', '.join([*sizes, CONFIG, PROCESSOR, README])}"


def build_config(kinds: dict[str, Path], card: dict) -> dict:
    """`config.json`. Browsers take integers by themselves: where there are none, it says so."""
    names = card["class_names"]
    return {
        "architectures": ["SegformerForSemanticSegmentation"],
        "model_type": "segformer",
        "id2label": dict(enumerate(names)),
        "label2id": {name: class_id for class_id, name in enumerate(names)},
        **({} if "int8" in kinds else {"transformers.js_config": {"dtype": "fp32"}}),
        ORIGIN: {"model_type": "denseclip", **{name: card[name] for name in ("checkpoint_sha256", "versions")}},
    }


def build_readme(kinds: dict[str, Path], name: str, card: dict) -> str:
    """What a reader has to know, with what the smaller kinds of numbers were found to cost."""
    sentences = {
        "float32": "Node.js and WebGPU take `onnx/model.onnx`, in float32"
        + ("." if "int8" in kinds else ", and so do browsers without WebGPU."),
        "float16": "`dtype: 'fp16'` takes `onnx/model_fp16.onnx`, of half the size, which is for WebGPU",
        "int8": "Browsers without WebGPU take `onnx/model_quantized.onnx`, in integers of 8 bits, unless"
        " `dtype: 'fp32'` is said",
    }
    for kind in kinds.keys() - {"float32"}:
        report = card[kind]
        sentences[kind] += (
            f": {100 * report['agreement']:.2f} % of the pixels of {report['num_measured_images']} photographs keep"
            " their class."
        )
    return TEXT.format(
        name=name,
        branch=BRANCH,
        num_labels=len(card["class_names"]),
        kinds=" ".join(sentences[kind] for kind in kinds),
        license=card["license"],
        license_id=card["license"] if re.fullmatch(r"[\w.-]+", card["license"]) else "other",
    )


def find_files(folder: Path, weights: Sequence[Path]) -> dict[str, Path]:
    """
    What of a folder belongs into a repository: name there -> file.

    Args:
        folder (`Path`): what `write_folder` has written.
        weights (`Sequence[Path]`): those of the model that the repository holds.

    Raises:
        ValueError: for another folder, or one of another model.
    """
    if not is_export(folder):
        raise ValueError(
            f"{folder} was not written by `python -m training.export DIR {folder} --format transformers.js`, so"
            " nothing was sent. Write it anew, or name another folder."
        )
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in weights}
    origin = read_json(folder / CONFIG)[ORIGIN]
    expected = origin.get("checkpoint_sha256") if isinstance(origin, dict) else None
    if found != expected:
        raise ValueError(
            f"{folder} was exported from other weights than {', '.join(map(str, weights))}, so nothing was sent."
            " Export it anew."
        )
    names = [CONFIG, PROCESSOR, README, *(f"{MODELS}/{name}" for name in FILES.values())]
    files = {name: folder / name for name in names if (folder / name).is_file()}
    missing = {CONFIG, PROCESSOR, README, f"{MODELS}/{FILES['float32']}"} - files.keys()
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(sorted(missing))}, so nothing was sent. Export it anew.")
    return files
