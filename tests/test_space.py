# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The folder that is uploaded as a Space. That its page works is in tests/web."""

import ast
import configparser
import sys

import pytest
from huggingface_hub import metadata_load

from training import REPOSITORY
from training.space import main


@pytest.fixture
def space(tmp_path):
    main([str(tmp_path / "space"), "--model", "somebody/village"])
    return tmp_path / "space"


def read_requirements(text: str) -> dict[str, str]:
    """Names and the rest of each line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    return {line[: min(map(line.find, ">="))]: line[line.find(">") :] for line in lines}


def test_folder_holds_all_that_a_space_needs(space):
    assert {path.name for path in space.iterdir()} == {
        *("app.py", "requirements.txt", "README.md", "LICENSE", "modeling_denseclip")
    }
    package = REPOSITORY / "modeling_denseclip"
    expected = {path.relative_to(package): path.read_bytes() for path in package.rglob("*.py")}
    copied = space / "modeling_denseclip"
    files = [path for path in copied.rglob("*") if path.is_file()]
    assert {path.relative_to(copied): path.read_bytes() for path in files} == expected
    for path in (space / "app.py", space / "README.md"):
        text = path.read_text(encoding="utf-8")
        assert "somebody/village" in text and "you/" not in text


def test_front_matter_names_the_app_and_the_model(space):
    front = metadata_load(space / "README.md")
    assert (space / front["app_file"]).is_file()
    assert front["sdk"] == "gradio" and front["license"] == "apache-2.0"
    assert front["models"] == ["somebody/village"]
    assert len(front["short_description"]) <= 60, "the Hub takes no longer one"
    # The version that the Space installs is one that the extra `web` allows.
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    lowest = read_requirements(setup["options.extras_require"]["web"])["gradio"].removeprefix(">=")
    assert [int(part) for part in front["sdk_version"].split(".")] >= [int(part) for part in lowest.split(".")]


def test_requirements_are_those_of_the_package(space):
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    installed = read_requirements(setup["options"]["install_requires"])
    required = read_requirements((space / "requirements.txt").read_text(encoding="utf-8"))
    assert required.items() <= installed.items()
    # What the page imports when it starts, other than Python's own and Gradio, which the Space brings.
    imported = set()
    for path in (space / "modeling_denseclip").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.partition(".")[0])
    names = {"PIL": "pillow"}
    brought = {"filelock", "tqdm", "yaml"}  # by huggingface_hub
    assert {names.get(name, name) for name in imported} - sys.stdlib_module_names - brought <= required.keys()


def test_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "space").mkdir()
    main([str(tmp_path / "space"), "--model", "somebody/village"])  # empty: taken
    before = {path: path.read_bytes() for path in (tmp_path / "space").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="there already"):
        main([str(tmp_path / "space"), "--model", "somebody/other"])
    assert before == {path: path.read_bytes() for path in (tmp_path / "space").rglob("*") if path.is_file()}


@pytest.mark.parametrize("model", ["village", "a/b/c", "two words/model", "{folder}"])
def test_model_that_is_not_on_the_hub_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="id of a repository on the Hub"):
        main([str(tmp_path / "space"), "--model", model.format(folder=tmp_path)])
    assert list(tmp_path.iterdir()) == []
