# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""A saved model, loaded in a process that cannot import this package: what a user of the Hub has."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from modeling_denseclip import DenseCLIPImageProcessor, tokenize_class_names
from tests.tiny import TINY_CLASS_NAMES, draw_picture, make_tiny_tokenizer, spread_classes, tiny_model
from tests.warm import warm_python


ROOT = Path(__file__).resolve().parents[1]
SIZE = {"shortest_edge": 96, "longest_edge": 160}
# Names in another order, one new, one dropped ("sky").
NEW_NAMES = ("person", "right ventricle cavity", "red wall", "traffic_light", "wall")

# What each process does first. The package may be installed in the environment of the tests, so it is hidden.
PROLOGUE = """
import sys

HIDDEN = ("modeling_denseclip", "training", "tests")

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Hide())
for name in HIDDEN:
    try:
        __import__(name)
    except ModuleNotFoundError:
        pass
    else:
        raise SystemExit(f"{name} can be imported")

import torch
from PIL import Image
from transformers import (
    AutoConfig, AutoModel, AutoModelForSemanticSegmentation, AutoProcessor, AutoTokenizer, pipeline
)
# Up to 5.17, `from transformers import AutoImageProcessor` is a placeholder where torchvision is missing.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

root, directory, picture_path, output_path = sys.argv[1:]
picture = Image.open(picture_path)

def check(*objects):
    for loaded in objects:
        assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    assert not [file for file in files if file.startswith(root) and "site-packages" not in file]

def segment(model, image_processor):
    with torch.no_grad():
        outputs = model(**image_processor(picture, return_tensors="pt"))
    mask = image_processor.post_process_semantic_segmentation(outputs, [picture.size[::-1]])[0]
    return {"logits": outputs.logits, "mask": mask}
"""

LOAD_BY_AUTO_CLASSES = """
config = AutoConfig.from_pretrained(directory, trust_remote_code=True)
by_other_names = [auto.from_pretrained(directory, trust_remote_code=True) for auto in (AutoModel, AutoProcessor)]
check(*by_other_names)
model = AutoModelForSemanticSegmentation.from_pretrained(directory, trust_remote_code=True)
image_processor = AutoImageProcessor.from_pretrained(directory, trust_remote_code=True)
segmenter = pipeline("image-segmentation", model=directory, trust_remote_code=True, device="cpu")
check(config, model, image_processor, segmenter.model, segmenter.image_processor)
results = segment(model, image_processor)
results["by_other_names"] = segment(*by_other_names)
results["pipeline"] = [
    (segment["label"], segment["score"], torch.frombuffer(bytearray(segment["mask"].tobytes()), dtype=torch.uint8))
    for segment in segmenter(picture)
]
results["config"] = config.to_json_string()

# Code that came from a checkpoint goes into the next one.
by_other_names[0].save_pretrained(directory + "-again")
by_other_names[1].save_pretrained(directory + "-again")
again = AutoModelForSemanticSegmentation.from_pretrained(directory + "-again", trust_remote_code=True)
again_processor = AutoImageProcessor.from_pretrained(directory + "-again", trust_remote_code=True)
check(again, again_processor, AutoProcessor.from_pretrained(directory + "-again", trust_remote_code=True))
results["again"] = segment(again, again_processor)
torch.save(results, output_path)
print("done")
"""

LOAD_BY_OTHER_NAMES = """
import json

names = json.loads(open(directory + "/new_names.json").read())
image_processor = AutoImageProcessor.from_pretrained(directory, trust_remote_code=True)
model = AutoModelForSemanticSegmentation.from_pretrained(directory, trust_remote_code=True)
results = segment(model, image_processor)
renamed = AutoModelForSemanticSegmentation.from_pretrained(
    directory, id2label=dict(enumerate(names)), trust_remote_code=True
)
check(model, renamed, image_processor)
results["renamed"] = segment(renamed, image_processor)
results["class_token_ids"] = renamed.config.class_token_ids
results["id2label"] = renamed.config.id2label
results["label2id"] = renamed.config.label2id
results["text_embeddings"] = renamed.get_text_embeddings().detach()
results["tokens"] = AutoTokenizer.from_pretrained(directory, trust_remote_code=True)("a red wall").input_ids
torch.save(results, output_path)
print("done")
"""


def run_elsewhere(
    script: str, source: Path | str, picture, workplace: Path, environment: dict[str, str] | None = None
) -> tuple[dict, list[str]]:
    """
    Runs `script` in a new process with empty caches, on a directory or a repository of the Hub that `environment`
    tells of; returns what it saved and what it wrote to stderr.
    """
    workplace.mkdir()
    picture.save(workplace / "picture.png")
    environment = {
        name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ
    } | {
        "HOME": str(workplace),
        "HF_HOME": str(workplace / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # bars on stderr are no warnings
        "OMP_NUM_THREADS": str(torch.get_num_threads()),  # other sums of other threads
        "CUDA_VISIBLE_DEVICES": "",
        **(environment or {}),
    }
    # -I: no PYTHONPATH, and neither the directory of the script nor the working directory on the path.
    command = [*warm_python(), "-I", "-c", PROLOGUE + script, str(ROOT), str(source)]
    result = subprocess.run(
        [*command, str(workplace / "picture.png"), str(workplace / "results.pt")],
        cwd=workplace,
        env=environment,
        stdin=subprocess.DEVNULL,  # nobody is there to answer
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == "done\n"
    return torch.load(workplace / "results.pt", weights_only=True), result.stderr.splitlines()


def settled_model(kind: str, processor: DenseCLIPImageProcessor, use_language: bool = True):
    pixel_values = processor([draw_picture(160, 96, seed) for seed in range(4)], return_tensors="pt").pixel_values
    model = spread_classes(tiny_model(kind, use_language), pixel_values)
    if use_language:
        model.tokenizer = make_tiny_tokenizer()
    return model


@torch.no_grad()
def segment_here(model, processor, picture) -> dict:
    model.eval()
    outputs = model(**processor(picture, return_tensors="pt"))
    mask = processor.post_process_semantic_segmentation(outputs, [picture.size[::-1]])[0]
    return {"logits": outputs.logits, "mask": mask}


def assert_same(received: dict, expected: dict):
    assert len(expected["mask"].unique()) > 1, "one class everywhere proves little"
    for name, value in expected.items():
        assert torch.equal(received[name], value), name


@pytest.mark.parametrize(("kind", "use_language"), [("resnet", True), ("vit", True), ("resnet", False)])
def test_loaded_by_auto_classes_and_pipeline(kind, use_language, tmp_path):
    processor = DenseCLIPImageProcessor(size=SIZE)
    model = settled_model(kind, processor, use_language)
    directory = tmp_path / "saved"
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    picture = draw_picture(133, 110, seed=7)
    expected = segment_here(model, processor, picture)

    results, stderr = run_elsewhere(LOAD_BY_AUTO_CLASSES, directory, picture, tmp_path / "elsewhere")
    assert stderr == []
    assert_same(results, expected)
    assert_same(results["by_other_names"], expected)
    assert_same(results["again"], expected)
    stored = json.loads(results["config"])
    assert stored["id2label"] == {str(index): name for index, name in enumerate(TINY_CLASS_NAMES)}

    with torch.no_grad():
        outputs = model(**processor(picture, return_tensors="pt"))
    (here,) = processor.post_process_panoptic_segmentation(outputs, target_sizes=[picture.size[::-1]])
    assert len(results["pipeline"]) == len(here["segments_info"])
    for (label, score, mask), segment in zip(results["pipeline"], here["segments_info"], strict=True):
        assert (label, score) == (TINY_CLASS_NAMES[segment["id"]], segment["score"])
        assert torch.equal(mask.unflatten(0, picture.size[::-1]) > 0, here["segmentation"] == segment["id"])


class Pictures(Dataset):
    """Four pictures, each pixel of the class that its brightness suggests."""

    def __init__(self, processor: DenseCLIPImageProcessor):
        pictures = [draw_picture(160, 96, seed) for seed in range(4)]
        pixel_values = processor(pictures, return_tensors="pt").pixel_values
        labels = (pixel_values.mean(dim=1) * 2 + 2).long().clamp(0, len(TINY_CLASS_NAMES) - 1)
        self.items = [{"pixel_values": a, "labels": b} for a, b in zip(pixel_values, labels, strict=True)]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_checkpoint_of_a_trainer_loaded_with_other_class_names(tmp_path):
    """All that a checkpoint of the Trainer needs is in it: code, processor, tokenizer."""
    processor = DenseCLIPImageProcessor(size=SIZE)
    model = settled_model("vit", processor)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=1,
        per_device_train_batch_size=4,
        save_steps=1,
        learning_rate=1e-3,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    Trainer(model=model, args=arguments, train_dataset=Pictures(processor), processing_class=processor).train()
    directory = tmp_path / "run" / "checkpoint-1"
    (directory / "new_names.json").write_text(json.dumps(NEW_NAMES))
    picture = draw_picture(133, 110, seed=8)

    results, stderr = run_elsewhere(LOAD_BY_OTHER_NAMES, directory, picture, tmp_path / "elsewhere")
    assert_same(results, segment_here(model, processor, picture))

    tokenizer = make_tiny_tokenizer()
    assert results["tokens"] == tokenizer("a red wall").input_ids
    assert results["class_token_ids"] == tokenize_class_names(NEW_NAMES, tokenizer)
    assert results["id2label"] == dict(enumerate(NEW_NAMES))
    assert results["label2id"] == {name: index for index, name in enumerate(NEW_NAMES)}
    # The class embeddings are those that a model built for the new names makes with the same text tower.
    fresh = tiny_model("vit", id2label=dict(enumerate(NEW_NAMES)), class_token_ids=results["class_token_ids"])
    fresh.text_encoder.load_state_dict(model.text_encoder.state_dict())
    fresh.text_projection.load_state_dict(model.text_projection.state_dict())
    with torch.no_grad():
        fresh.prompts.contexts.copy_(model.prompts.contexts)
        torch.testing.assert_close(results["text_embeddings"], fresh.eval().get_text_embeddings())
    # The one thing said is the one thing to know.
    report = model.set_class_names(NEW_NAMES)
    assert (report.new, report.dropped) == (("red wall",), ("sky",))
    assert stderr == [str(report)]
