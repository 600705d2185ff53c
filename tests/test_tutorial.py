# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The tutorial and its notebook, run as they are printed; and what a newcomer is told who takes a wrong step."""

import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from PIL import Image

from tests.foreign import NAMES, WRITERS, make_scenes, save
from tests.hub_server import USER, WRITE_TOKEN, HubServer, read_card_head
from tests.pages import CLIP, is_printed, read_blocks, run_blocks, run_to_its_end, save_clip_stand_in
from tests.test_hub import make_environment
from tests.tiny import TINY_CLASS_NAMES, tiny_model
from tests.warm import warm_python, write_scripts
from training import train
from training.demo_scenes import main as write_tutorial_scenes
from training.demonstration.scenes import CLASS_NAMES, NOUNS, write_scenes
from training.learning.checkpoints import check_classes
from training.options.command_line import parse_evaluation_arguments


ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "your_own_data.md"
NOTEBOOK = ROOT / "docs" / "your_own_data.ipynb"


# -------------------------------------------------------------------------------------------------------- the tutorial


def test_every_block_of_the_tutorial_does_what_the_page_says(tmp_path):
    folder = tmp_path / "work"
    # What a reader has.
    scenes = make_scenes()
    for form, write in WRITERS.items():
        write(folder / "downloads" / form, scenes)
    for index in range(5):
        save(folder / "downloads/nameless/img" / f"{index}.jpg", scenes[index].pixels[:30, :45])
        colours = np.zeros((30, 45, 3), np.uint8)
        colours[:, :15] = (255, 0, 77)
        save(folder / "downloads/nameless/gt" / f"{index}.png", colours)
    with HubServer() as hub:
        # Of larger patches: a quarter of the work for heads, which have the size of published ones.
        save_clip_stand_in(tmp_path / "clip", patch_size=32)
        hub.add_files("model", CLIP, {path.name: path.read_bytes() for path in (tmp_path / "clip").iterdir()})
        environment = make_environment(hub, tmp_path, WRITE_TOKEN)
        # As in a checkout with its environment activated.
        environment["PATH"] = f"{write_scripts(tmp_path / 'bin')}{os.pathsep}{environment['PATH']}"
        environment["PYTHONPATH"] = str(ROOT)
        run_blocks(
            read_blocks(PAGE.read_text(encoding="utf-8")),
            folder,
            run_shell=lambda block: run_to_its_end(
                ["bash", "-euo", "pipefail", "-c", block.text], folder, environment
            ),
            run_python=lambda block: run_to_its_end(["python", "-c", block.text], folder, environment),
        )
        files = hub.files(f"{USER}/my-denseclip")

    for form in WRITERS:
        if form != "roboflow_coco":
            assert (folder / f"from_{form}" / "classes.txt").read_text().split() == list(NAMES), form
    scores = json.loads((folder / "my_model" / "metrics.json").read_text(encoding="utf-8"))
    assert scores["mean_iou"] > 1 / len(NOUNS)  # one class everywhere would give 0.04
    assert len(list((folder / "predictions").glob("*-overlay.jpg"))) == 8
    assert read_card_head(files)["base_model"] == CLIP
    assert files["model.safetensors"] == (folder / "my_model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "expected, printed, fits",
    [
        ("mIoU   62.02", "mIoU    4.10", True),
        ("mIoU   62.02", "mAcc    4.10", False),
        ("mIoU   62.02", "mIoU       -", False),
        ("images 32 8 40", "images   32    8   40", True),
        ("images 32 8 40", "images   33    8   41", False),
        ("Pushed to: ...", "Pushed to: http://x/y", True),
        ("Written to: my_model", "Written to: my_models", False),
        ("a (b) [c]", "a (b) [c]", True),
    ],
)
def test_printed_lines_are_compared_but_for_what_was_measured(expected, printed, fits):
    assert is_printed(expected, ["something else", printed]) == fits


def test_the_recipe_of_the_tutorial_is_as_short_as_promised():
    (text,) = (block.text for block in read_blocks(PAGE.read_text(encoding="utf-8")) if block.language == "yaml")
    assert len(text.splitlines()) == 12


# -------------------------------------------------------------------------------------------------------- the notebook


def test_the_notebook_is_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.source


class WarmKernel(AsyncKernelManager):
    def format_kernel_cmd(self, *args, **kwargs) -> list[str]:
        return [*warm_python(), *super().format_kernel_cmd(*args, **kwargs)[1:]]


def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (index,) = (index for index, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    # As papermill does it: a cell behind that of the parameters overrides them.
    parameters = nbformat.v4.new_code_cell(f"folder, max_steps = {str(tmp_path)!r}, 20")
    notebook.cells.insert(index + 1, parameters)
    resources = {"metadata": {"path": NOTEBOOK.parent}}
    NotebookClient(notebook, kernel_manager_class=WarmKernel, timeout=300, resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "Training accepts this data set." in printed
    scores = dict(re.findall(r"^(\w+) +(\d+\.\d\d)", printed, flags=re.MULTILINE))
    assert {*NOUNS, "mIoU"} <= scores.keys()
    assert float(scores["mIoU"]) > 100 / len(NOUNS)  # more than chance, after 20 steps
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3  # the contact sheet, the prediction, the truth
    assert (tmp_path / "my_model" / "model.safetensors").is_file()
    assert not (NOTEBOOK.parent / "tutorial_output").exists()


# ----------------------------------------------------------------------------------------------- the painted data set


def test_scenes_of_the_tutorial_name_nouns_alone(tmp_path, capsys):
    write_tutorial_scenes([str(tmp_path / "a"), "--num_training", "2", "--num_validation", "1", "--seed", "3"])
    assert "2 scenes to train on, 1 to score on, 11 classes" in capsys.readouterr().out
    write_scenes(tmp_path / "b", 2, 1, seed=3)
    assert (tmp_path / "a" / "classes.txt").read_text().split() == list(NOUNS)
    for path in sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").glob("*/*/*.png")):
        ours, other = (np.asarray(Image.open(tmp_path / name / path)) for name in ("a", "b"))
        if path.parts[0] == "images":
            assert np.array_equal(ours, other)
        else:
            # The last word of each name: "night wall" is a wall.
            assert np.array_equal(np.array(NOUNS)[ours], np.array([n.split()[-1] for n in CLASS_NAMES])[other])
    with pytest.raises(FileExistsError, match="exists already; name a new folder"):
        write_tutorial_scenes([str(tmp_path / "a")])


# ------------------------------------------------------------------------------------------------------- wrong steps


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "my_data"
    write_scenes(folder, 1, 1, nouns_only=True)
    return folder


def change_mask(folder: Path, change) -> None:
    path = folder / "annotations" / "training" / "scene_0000.png"
    change(Image.open(path)).save(path)


WRONG_DATA = {
    "no classes.txt": (
        lambda folder: (folder / "classes.txt").unlink(),
        r"classes\.txt does not exist\. It names the classes, one per line",
    ),
    "mask of another size": (
        lambda folder: change_mask(folder, lambda mask: mask.resize((192, 48), Image.Resampling.NEAREST)),
        r"scene_0000\.png has 192 x 48 pixels .*The image .*scene_0000\.png has 384 x 96, .*export the mask again",
    ),
    "colours": (
        lambda folder: change_mask(folder, lambda mask: mask.convert("RGB")),
        r"has the mode RGB; .*Convert its colours to ids",
    ),
    "id out of range": (
        lambda folder: change_mask(folder, lambda mask: mask.point(lambda value: value + 1)),
        r"holds the id 11; with 11 classes ids lie in \[0, 10\].*Correct the mask or name all classes",
    ),
    "empty validation split": (
        lambda folder: [path.unlink() for path in folder.glob("*/validation/*")],
        r"images/validation holds no \.bmp or \.jpeg or \.jpg or .* file\. Put some there",
    ),
    "split of another name": (
        lambda folder: [path.rename(path.with_name("val")) for path in folder.glob("*/validation")],
        r"images/validation does not exist.* images/ holds training, val: .*--train_split and --validation_split",
    ),
}


@pytest.mark.parametrize("mistake", WRONG_DATA)
def test_wrong_data_are_refused_with_cause_and_fix(mistake, scenes, tmp_path):
    change, message = WRONG_DATA[mistake]
    folder = shutil.copytree(scenes, tmp_path / "my_data")
    change(folder)
    with pytest.raises(ValueError, match=message):
        train.main(["--data_dir", str(folder), "--output_dir", str(tmp_path / "out"), "--clip", "never-loaded"])


@pytest.mark.parametrize(
    "words, message",
    [
        (["--data_dir", "my_dta"], "no folder my_dta; data_dir is the one that holds images/"),
        (["my_dta.yaml", "--data_dir", "my_data"], "no recipe my_dta.yaml"),
        (["--data_dir", "d", "--lerning_rate", "1"], "'--lerning_rate' is no argument .*did you mean --learning_rate"),
        (["--data_dir", "d", "--lerning_rate=1"], "did you mean --learning_rate"),
        (["--data_dir", "d", "--zzz"], "'--zzz' is no argument of python -m training.train; --help lists"),
    ],
)
def test_mistyped_words_are_refused_with_cause_and_fix(words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train.main([*words, "--output_dir", str(tmp_path)])


def test_a_mistyped_word_of_the_evaluation_is_refused_too():
    with pytest.raises(ValueError, match="no argument of python -m training.evaluate; did you mean --multi_scale"):
        parse_evaluation_arguments(["model", "--data_dir", "d", "--multiscale"])


def test_a_run_is_not_gone_on_from_with_other_classes(scenes, tmp_path):
    checkpoint = tmp_path / "run" / "checkpoint-1"
    tiny_model("resnet", use_language=False).config.save_pretrained(checkpoint)
    (checkpoint / "trainer_state.json").write_text("{}")
    with pytest.raises(ValueError, match="trained for the classes wall, sky.*the data now name sky, sun.*start anew"):
        train.main(
            [
                *("--data_dir", str(scenes), "--output_dir", str(tmp_path / "run"), "--clip", "never-loaded"),
                *("--resume_from_checkpoint", "last"),
            ]
        )
    check_classes(checkpoint, TINY_CLASS_NAMES)
    with pytest.raises(ValueError, match="in the same order"):
        check_classes(checkpoint, TINY_CLASS_NAMES[::-1])
