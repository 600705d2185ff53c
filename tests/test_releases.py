# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What the last release saved, with its `auto_map` (see `tests/fixtures/make_release.py`), loaded by this one."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSemanticSegmentation

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from tests.fixtures.make_release import MODELS
from tests.test_remote_code import run_elsewhere
from tests.tiny import draw_picture


RELEASE = Path(__file__).parent / "fixtures" / "release_0.1.0"
# Logits have variance 1, and go through some hundred sums of float32 in orders that differ between processors; a
# weight that is missing or in another place moves them by about 1.
TOLERANCE = {"rtol": 1e-3, "atol": 1e-3}


@pytest.fixture
def checkpoint(request, tmp_path) -> Path:
    return Path(shutil.copytree(RELEASE / request.param, tmp_path / request.param))


def add_code(checkpoint: Path):
    with zipfile.ZipFile(RELEASE / "code.zip") as archive:
        archive.extractall(checkpoint)


@torch.no_grad()
def check_outputs(model: DenseCLIPForSemanticSegmentation, checkpoint: Path):
    image_processor = DenseCLIPImageProcessor.from_pretrained(checkpoint)
    pictures = [draw_picture(140, 100, seed=seed) for seed in (3, 4)]
    pixel_values = image_processor(pictures, return_tensors="pt").pixel_values
    labels = (torch.arange(2 * 96 * 128) % model.num_labels).reshape(2, 96, 128)
    outputs = dict(model.eval()(pixel_values, labels=labels))
    if model.config.use_auxiliary_head:
        outputs["auxiliary_logits"] = model.auxiliary_head(model.image_encoder(pixel_values).feature_maps)
    with np.load(checkpoint / "outputs.npz") as recorded:
        assert set(outputs) == set(recorded)
        for name in recorded:
            torch.testing.assert_close(outputs[name], torch.from_numpy(recorded[name]), **TOLERANCE)


@pytest.mark.parametrize("checkpoint", MODELS, indirect=True)
def test_a_checkpoint_of_the_last_release_gives_what_it_gave(checkpoint):
    model, loaded = DenseCLIPForSemanticSegmentation.from_pretrained(checkpoint, output_loading_info=True)
    assert not any(loaded.values()), loaded
    check_outputs(model, checkpoint)


@pytest.mark.parametrize("checkpoint", ["pre_model_fpn_resnet"], indirect=True)
def test_a_checkpoint_with_its_code_is_loaded_by_this_package_where_it_is_installed(checkpoint):
    add_code(checkpoint)
    model = AutoModelForSemanticSegmentation.from_pretrained(checkpoint, trust_remote_code=True)
    assert type(model) is DenseCLIPForSemanticSegmentation
    check_outputs(model, checkpoint)


SEGMENT = """
model = AutoModelForSemanticSegmentation.from_pretrained(directory, trust_remote_code=True)
image_processor = AutoImageProcessor.from_pretrained(directory, trust_remote_code=True)
check(model, image_processor)
torch.save(segment(model, image_processor), output_path)
print("done")
"""


@pytest.mark.parametrize("checkpoint", ["language_upernet_backbone"], indirect=True)
def test_a_checkpoint_that_is_saved_again_runs_by_the_code_of_this_release(checkpoint, tmp_path):
    add_code(checkpoint)
    model = DenseCLIPForSemanticSegmentation.from_pretrained(checkpoint).eval()
    image_processor = DenseCLIPImageProcessor.from_pretrained(checkpoint)
    model.save_pretrained(checkpoint)
    image_processor.save_pretrained(checkpoint)
    picture = draw_picture(140, 100, seed=3)
    results, _ = run_elsewhere(SEGMENT, checkpoint, picture, tmp_path / "elsewhere")
    with torch.no_grad():
        logits = model(**image_processor(picture, return_tensors="pt")).logits
    torch.testing.assert_close(results["logits"], logits, **TOLERANCE)
