# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The folders that are uploaded as Spaces. That their pages work is in tests/web."""

import ast
import base64
import configparser
import hashlib
import io
import json
import os
import re
import shlex
import sys
import tarfile

import pytest
from huggingface_hub import metadata_load

from training import REPOSITORY
from training.publishing import npm
from training.publishing.static_space import LOCK, RUNTIME, SOURCES
from training.space import main


@pytest.fixture
def space(tmp_path):
    main([str(tmp_path / "space"), "--model", "somebody/village"])
    return tmp_path / "space"


def test_printed_commands_are_words_of_a_shell(tmp_path, capsys):
    main([str(tmp_path / "my page"), "--model", "somebody/village"])
    printed = capsys.readouterr().out.splitlines()[-1].removeprefix("Upload it:")
    assert shlex.split(printed)[3:4] == [str(tmp_path / "my page")]


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


# --- A page without a server -----------------------------------------------------------------------------------------


@pytest.fixture
def fake_npm(tmp_path, monkeypatch):
    """Puts a program called npm before all others, which does what a script of the shell says."""

    def write(script: str) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "npm").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    return write


def test_package_is_pinned_by_version_and_checksum():
    wanted = json.loads((SOURCES / "package.json").read_text())["dependencies"]
    version, integrity = npm.locked_version(LOCK, RUNTIME)
    assert wanted == {RUNTIME: version} and re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert len(base64.b64decode(integrity.removeprefix("sha512-"))) == 64
    assert "http" not in LOCK.read_text(), "the registry is that of whoever writes a page"


def test_package_is_fetched_checked_and_unpacked(fake_npm, tmp_path):
    archive = tmp_path / "made.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        for name in ("dist/used.js", "dist/other.js"):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(name)
            packed.addfile(entry, io.BytesIO(name.encode()))
    integrity = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    lock = tmp_path / "package-lock.json"
    entry = {"version": "1.2.3", "integrity": f"sha512-{integrity}"}
    lock.write_text(json.dumps({"packages": {"node_modules/thing": entry}}))
    fake_npm(f'echo "$@" > {tmp_path}/words; cp {archive} "$PWD/thing-1.2.3.tgz"')
    (tmp_path / "cache").mkdir()
    found = npm.fetch_package(lock, "thing", tmp_path / "cache")
    assert {"pack", "thing@1.2.3", "--ignore-scripts"} <= set((tmp_path / "words").read_text().split())
    (tmp_path / "target").mkdir()
    npm.unpack(found, ["dist/used.js"], tmp_path / "target")
    assert [(path.name, path.read_text()) for path in (tmp_path / "target").iterdir()] == [("used.js", "dist/used.js")]

    found.unlink()
    archive.write_bytes(archive.read_bytes() + b"more")
    with pytest.raises(ValueError, match="is not the archive that package-lock.json names"):
        npm.fetch_package(lock, "thing", tmp_path / "cache")


def test_npm_that_reaches_no_registry_is_explained(fake_npm, tmp_path):
    fake_npm("echo 'npm error code ENOTFOUND' >&2; echo 'npm error request to the registry failed' >&2; exit 1")
    with pytest.raises(ValueError, match="npm could not get .* ENOTFOUND request to the registry failed .*npm ping"):
        npm.fetch_package(LOCK, RUNTIME, tmp_path)


@pytest.mark.parametrize("option", [["--int8", "static"], ["--name", "mine"], ["--inference_mode", "whole"]])
def test_options_of_a_static_space_need_it(option, tmp_path):
    with pytest.raises(ValueError, match=f"{option[0]} is for --static, which is missing"):
        main([str(tmp_path / "space"), "--model", "somebody/village", *option])


def test_front_matter_of_a_static_space():
    front = metadata_load(SOURCES / "README.md")
    assert (front["sdk"], front["app_file"]) == ("static", "index.html") and (SOURCES / "index.html").is_file()
    assert len(front["short_description"]) <= 60, "the Hub takes no longer one"
    assert front["custom_headers"]["cross-origin-embedder-policy"] == "require-corp"


def test_scripts_and_styles_are_in_files():
    """The policy of the page allows no other, and no address of another host."""
    text = (SOURCES / "index.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "unsafe-inline" not in policy and "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|https?://", text)
    for path in (SOURCES / "page").glob("*.js"):
        assert not re.search(r"https?://", path.read_text(encoding="utf-8")), path.name
