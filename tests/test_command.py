# Copyright 2026 The DenseCLIP for Transformers authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The console command `denseclip`: what it passes on, and how it ends."""

import configparser
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_denseclip.tools import command, info
from modeling_denseclip.tools.command import SUB_COMMANDS, main


ROOT = Path(__file__).resolve().parents[1]
# Runs the file by itself: importing it as a part of the package would import the package, and so PyTorch.
RUN_BY_ITSELF = """
import runpy, sys

sys.argv = ["denseclip", "--help"]
try:
    runpy.run_path(PATH, run_name="__main__")
except SystemExit as end:
    print("status", end.code)
print([name for name in ("torch", "transformers", "numpy", "PIL") if name in sys.modules])
"""


def test_help_needs_no_library():
    script = f"PATH = {command.__file__!r}\n{RUN_BY_ITSELF}"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *_, status, libraries = ended.stdout.splitlines()
    assert (status, libraries) == ("status 0", "[]")
    assert all(name in ended.stdout for name in SUB_COMMANDS) and ended.stderr == ""


@pytest.mark.parametrize("name", SUB_COMMANDS)
def test_each_command_has_a_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    printed = capsys.readouterr().out
    assert end.value.code == 0 and printed.startswith(f"usage: denseclip {name}") and "MODEL" in printed


def test_the_installed_command_is_this_one():
    (entry_point,) = importlib.metadata.entry_points(group="console_scripts", name="denseclip")
    assert entry_point.load() is main


def test_version_is_that_of_the_distribution(capsys):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"denseclip {setup['metadata']['version']}\n"


def test_without_a_command_it_says_what_there_is(capsys):
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_an_unknown_command_is_named(capsys):
    with pytest.raises(SystemExit) as end:
        main(["predictt"])
    assert end.value.code == 2 and "invalid choice: 'predictt'" in capsys.readouterr().err


@pytest.mark.parametrize("status", [0, 1])
def test_the_status_is_passed_on(monkeypatch, status):
    monkeypatch.setattr(info, "run", lambda args: status if args.model == "some" else 5)
    assert main(["info", "some"]) == status


@pytest.mark.parametrize(
    "error, status, printed",
    [
        (ValueError("not so"), 2, "error: not so\n"),
        (FileNotFoundError(2, "No such file", "a.jpg"), 2, "error: [Errno 2] No such file: 'a.jpg'\n"),
        (ImportError("pip install it"), 2, "error: pip install it\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_expected_errors_end_without_a_traceback(monkeypatch, capsys, error, status, printed):
    def run(args):
        raise error

    monkeypatch.setattr(info, "run", run)
    assert main(["info", "some"]) == status
    assert capsys.readouterr() == ("", printed)


def test_a_mistake_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr(info, "run", lambda args: {}["missing"])
    with pytest.raises(KeyError):
        main(["info", "some"])
