"""A process that begins with PyTorch imported does what a new one does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warm import WarmProcess, warm_python, write_scripts


ROOT = Path(__file__).resolve().parents[1]

SAY = """
import atexit, os, sys

SAID = "said"
atexit.register(print, "the end")
print(sys.argv, os.getcwd(), os.environ.get("NAME"), __name__, sys.modules["__main__"].SAID, sys.stdin.read())
"""
ENDS = {
    "by itself": "",
    "by a status": "import sys; sys.exit(3)",
    "by words": "import sys; sys.exit('words')",
    "by an error": "raise ValueError('wrong')",
    "by Ctrl-C": "raise KeyboardInterrupt",
    "by a signal": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "without exit handlers": "import os; os._exit(4)",
}


def run(python: list[str], *words, **kwargs) -> tuple[int, str, str]:
    result = subprocess.run([*python, *map(str, words)], capture_output=True, text=True, **kwargs)
    return result.returncode, result.stdout, (result.stderr.splitlines() or [""])[-1]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", ["-c", "-I -c", "-m", "file"])
def test_words_streams_and_the_end_are_those_of_a_new_process(kind, end, tmp_path):
    code = SAY + ENDS[end]
    (tmp_path / "say.py").write_text(code)
    words = {"-c": ("-c", code), "-I -c": ("-I", "-c", code), "-m": ("-m", "say"), "file": (tmp_path / "say.py",)}[
        kind
    ]
    surroundings = {"cwd": tmp_path, "env": {"NAME": "value"}, "input": "typed"}
    warm, new = (run(python, *words, "a", "b c", **surroundings) for python in (warm_python(), [sys.executable]))
    assert warm == new
    assert "value" in new[1] and "typed" in new[1] or end in ("by a signal", "without exit handlers")  # unflushed


def test_python_path_is_that_of_the_command(tmp_path):
    (tmp_path / "only_here.py").write_text("print('found')")
    assert run(warm_python(), "-c", "import only_here", env={"PYTHONPATH": str(tmp_path)})[:2] == (0, "found\n")
    assert run(warm_python(), "-I", "-c", "import only_here", env={"PYTHONPATH": str(tmp_path)})[0] == 1


def test_a_script_stands_for_python_in_a_shell(tmp_path):
    environment = {"PATH": f"{write_scripts(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-c", "python -c 'import sys; sys.exit(\"torch\" not in sys.modules)' && denseclip --version"]
    assert run(command, cwd=ROOT, env=environment)[1].startswith("denseclip ")


def test_a_session_gets_signals_and_takes_itself_apart(tmp_path):
    code = "import os, signal, sys\nif os.fork() == 0: signal.pause()\nprint('ready', flush=True)\nsignal.pause()"
    with open(os.devnull) as nothing, open(tmp_path / "output", "w") as output:
        process = WarmProcess(["-c", code], str(tmp_path), {}, [nothing.fileno(), output.fileno(), output.fileno()])
    assert os.getpgid(process.pid) == process.pid and process.poll() is None
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == process.poll() == -signal.SIGTERM


ASK = """
import sys
print(len(sys.argv), "transformers" in sys.modules)
from huggingface_hub import constants
print(constants.HF_HOME)
"""


def test_commands_in_one_environment_are_forks_of_a_process_that_imported_in_it(tmp_path):
    (tmp_path / "ask.py").write_text(ASK)
    found = []
    for name in ("a", "a", "a", "b", "a"):
        environment = {"HF_HOME": str(tmp_path / name)}
        status, printed, _ = run(warm_python(), "-m", "ask", *found, cwd=tmp_path, env=environment)
        number, is_imported, home = printed.split()
        assert (status, int(number), home) == (0, 1 + len(found), environment["HF_HOME"])
        found.append(is_imported == "True")
    assert found == [False, True, True, False, False]
