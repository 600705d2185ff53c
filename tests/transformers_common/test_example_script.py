# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Transformers' own `run_semantic_segmentation.py` fine-tunes DenseCLIP, without a network and unmodified.

The script is on GitHub and in no release, and needs albumentations, so the test runs where a copy is named:

    RUN_SEMANTIC_SEGMENTATION=run_semantic_segmentation.py make test PYTEST_ARGS=tests/transformers_common
"""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from tests.hub_server import USER, HubServer
from tests.test_remote_code import ROOT
from tests.tiny import draw_picture, save_checkpoint, tiny_model


SCRIPT = os.environ.get("RUN_SEMANTIC_SEGMENTATION")
NAMES = ("nothing", "wall", "sky", "person")


def make_dataset() -> dict[str, bytes]:
    """Two splits of pictures with the ids 0 to 3, by their brightness, and the names of the ids."""
    files = {"id2label.json": json.dumps(dict(enumerate(NAMES))).encode()}
    for split, first in (("train", 0), ("validation", 8)):
        pictures = [draw_picture(120, 96, seed=seed) for seed in range(first, first + 8)]
        labels = [Image.fromarray((np.asarray(picture.convert("L")) // 64).astype(np.uint8)) for picture in pictures]
        columns = {"image": pictures, "label": labels}
        features = datasets.Features(dict.fromkeys(columns, datasets.Image()))
        stream = io.BytesIO()
        datasets.Dataset.from_dict(columns, features=features).to_parquet(stream)
        files[f"data/{split}-00000-of-00001.parquet"] = stream.getvalue()
    return files


@pytest.mark.skipif(SCRIPT is None, reason="the script is in no release; RUN_SEMANTIC_SEGMENTATION names a copy")
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_the_script_fine_tunes_denseclip(kind, tmp_path):
    model = tmp_path / "model"
    save_checkpoint(tiny_model(kind), DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}), model)
    # `evaluate` takes a metric from a folder of its name before it asks the Hub.
    shutil.copytree(ROOT / "training" / "metrics" / "mean_iou", tmp_path / "mean_iou")
    with HubServer() as hub:
        hub.add_files("dataset", f"{USER}/scenes", make_dataset())
        words = [
            *("--model_name_or_path", model, "--trust_remote_code", "true", "--dataset_name", f"{USER}/scenes"),
            *("--output_dir", tmp_path / "out", "--do_train", "--do_eval", "--remove_unused_columns", "false"),
            *("--max_steps", "60", "--learning_rate", "1e-3", "--per_device_train_batch_size", "4"),
            *(
                "--logging_steps",
                "1",
                "--eval_strategy",
                "steps",
                "--eval_steps",
                "30",
                "--use_cpu",
                "--report_to",
                "none",
            ),
        ]
        result = subprocess.run(
            [sys.executable, str(Path(SCRIPT).resolve()), *map(str, words)],
            cwd=tmp_path,
            env=os.environ | hub.environment(tmp_path / "home"),
            capture_output=True,
            text=True,
        )
    assert result.returncode == 0, result.stderr[-3000:]
    history = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 60 and np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    results = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert 0 < results["eval_mean_iou"] <= 1
    assert {f"eval_iou_{name}" for name in NAMES[1:]} <= results.keys()
    trained = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert trained.config.class_names == NAMES
