"""Two processes with half of the batch each compute what one computes with all of it: losses, weights, scores."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import TINY_CLASS_NAMES, draw_picture, save_tiny_architecture
from tests.warm import warm_python, write_scripts


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five validation images for two processes: the last turn is filled up."""
    folder = tmp_path_factory.mktemp("distributed")
    for split, count in (("training", 8), ("validation", 5)):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            picture = draw_picture(96 + 8 * index, 80, seed=index + 100 * len(split))
            picture.save(folder / "images" / split / f"{index}.png")
            mask = picture.convert("L").point(lambda value: min(value // 45, 4))
            mask.save(folder / "annotations" / split / f"{index}.png")
    (folder / "classes.txt").write_text("\n".join(TINY_CLASS_NAMES))
    # Dropout would draw other numbers in each process.
    save_tiny_architecture(folder, "resnet", context_decoder_dropout=0.0, decode_head_dropout=0.0)
    return folder


def run(folder: Path, name: str, num_processes: int, *extra: str) -> dict:
    words = (
        f"--data_dir {folder} --config {folder}/model.json --tokenizer {folder}/tokenizer --output_dir {folder}/{name}"
        f" --per_device_train_batch_size {4 // num_processes} --short_side 64 --long_side 160 --crop_size 64"
        " --max_steps 4 --save_strategy no --learning_rate 1e-3 --weight_decay 0.1 --logging_steps 1"
        " --use_cpu true --report_to none --disable_tqdm true --num_sample_images 1"
        " --ddp_find_unused_parameters false"
    ).split()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    command = [*warm_python(), *launcher, "-m", "training.train", *words, *extra]
    python = write_scripts(folder / f"bin-{name}") / "python"  # what the launcher runs
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "PYTHON_EXEC": str(python)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"x {num_processes} process" in result.stdout, result.stdout  # the launcher really started as many
    state = json.loads((folder / name / "trainer_state.json").read_text())
    return {
        "losses": [entry for entry in state["log_history"] if "loss" in entry],
        "evaluation": json.loads((folder / name / "eval_results.json").read_text()),
        "report": json.loads((folder / name / "metrics.json").read_text()),
        "weights": load_file(folder / name / "model.safetensors"),
        "stdout": result.stdout,
    }


def test_two_processes_equal_one(folder):
    # Of five images one is left over: what drops batches in training counts them all the same.
    drop_last = ("--dataloader_drop_last", "true", "--per_device_eval_batch_size", "2")
    one, two = run(folder, "one", 1), run(folder, "two", 2, *drop_last)
    assert len(one["losses"]) == 4
    for alone, shared in zip(one["losses"], two["losses"], strict=True):
        for part in ("loss", "loss_decode", "loss_score_map"):
            assert shared[part] == pytest.approx(alone[part], rel=1e-4), part
    for name, tensor in one["weights"].items():
        if name.endswith("k_proj.bias"):
            continue  # has no effect on attention; its gradient is rounding noise, which Adam scales up to whole steps
        torch.testing.assert_close(two["weights"][name], tensor, rtol=1e-3, atol=2e-4, msg=name)
    # The same pixels, each counted once: 5 images of 80 rows, 96 to 128 columns.
    pixels = [sum(entry["pixels"] for entry in result["report"]["per_class"]) for result in (one, two)]
    assert pixels[0] == pixels[1] == 80 * sum(96 + 8 * index for index in range(5))
    for name in ("mean_iou", "mean_accuracy", "overall_accuracy"):
        assert two["report"][name] == pytest.approx(one["report"][name], abs=2e-3), name
    assert two["evaluation"]["eval_loss"] == pytest.approx(one["evaluation"]["eval_loss"], rel=1e-3)
    assert two["stdout"].count("effective batch: 4 images") == 1  # said once
