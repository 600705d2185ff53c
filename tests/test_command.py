# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""How commands end, `denseclip` and those of `training`, and what `denseclip` passes on."""

import configparser
import importlib
import importlib.metadata
import io
import logging
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from modeling_denseclip.inference_denseclip import PAPER_SCALES
from modeling_denseclip.tools import command
from modeling_denseclip.tools.command import SUB_COMMANDS, main
from modeling_denseclip.tools.commands import info
from tests.warm import warm_python


ROOT = Path(__file__).resolve().parents[1]
# Words that are answered without PyTorch, and the exit status. The name of a folder may be that of a repository too.
QUICK_ANSWERS = {
    "--help": 0,
    "--version": 0,
    **{f"{name} --help": 0 for name in SUB_COMMANDS},
    "predict --batch_size 0 . --model . --out OUT": 2,
    "predict nowhere --model . --out OUT": 2,
    "predict . --model ./nowhere --out OUT": 2,
    "predict . --model . --out OUT --text sky --tta": 2,
    "info ./nowhere": 2,
    "explain nowhere.jpg --model . --out OUT": 2,
    "explain --model . --out OUT": 2,
    "web --model ./nowhere": 2,
}
ANSWER_EACH = """
import sys
sys.argv[0] = "denseclip"
from modeling_denseclip.tools.command import main
for words in ANSWERS:
    try:
        status = main(words.split())
    except SystemExit as end:
        status = end.code
    heavy = sorted({"torch", "transformers", "huggingface_hub.hf_api", "matplotlib", "cv2"} & {*sys.modules})
    print("ANSWERED", words, status, heavy)
"""


def test_help_and_errors_of_what_is_asked_for_need_no_pytorch(tmp_path):
    script = f"ANSWERS = {list(QUICK_ANSWERS)}\n{ANSWER_EACH}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    answered = [line for line in ended.stdout.splitlines() if line.startswith("ANSWERED")]
    assert answered == [f"ANSWERED {words} {status} []" for words, status in QUICK_ANSWERS.items()]
    assert ended.stderr.count("error: ") == sum(status == 2 for status in QUICK_ANSWERS.values())
    assert all(f"    {name} " in ended.stdout for name in SUB_COMMANDS)


@pytest.mark.parametrize("is_module", [False, True])
def test_in_the_command_the_package_offers_what_it_offers_elsewhere(is_module):
    words = ["-m", "modeling_denseclip.tools.command"] if is_module else ["/usr/bin/denseclip"]
    script = (
        f"import sys; sys.argv = {words[:1]}; sys.orig_argv = ['python', *{words}]\n"
        "import modeling_denseclip as package\n"
        "assert not {'transformers', 'modeling_denseclip.modeling_denseclip'} & {*sys.modules}\n"
        "assert not hasattr(package, 'nothing')\n"
        "from modeling_denseclip import *\n"
        "assert all(getattr(package, name) is globals()[name] for name in package.__all__)\n"
        "from transformers import AutoConfig\n"
        "assert type(AutoConfig.for_model('denseclip')) is DenseCLIPConfig\n"
    )
    subprocess.run([*warm_python(), "-c", script], cwd=ROOT, check=True)


def test_help_names_what_the_model_does():
    parser = command.build_parser("predict")
    (subparsers,) = (action for action in parser._actions if isinstance(action.choices, dict))
    assert f"over {len(PAPER_SCALES)} sizes" in " ".join(subparsers.choices["predict"].format_help().split())


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
        (MemoryError(), 2, "error: there is too little memory\n"),
        (MemoryError("Unable to allocate 1 TiB"), 2, "error: there is too little memory: Unable to allocate 1 TiB\n"),
        (KeyboardInterrupt(), 130, "\nInterrupted.\n"),
        (KeyboardInterrupt("Go on so."), 130, "\nInterrupted. Go on so.\n"),
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


# Words behind each command of `training` that are an error of input: a name that is nowhere, of letters beyond ASCII.
NOWHERE = "небо/天空"
WRONG_WORDS = {
    "complexity": f"{NOWHERE}.json",
    "convert": f"{NOWHERE}.pth OUT --class_names {NOWHERE}.txt",
    "demo": f"--model_dir {NOWHERE} --image {NOWHERE}.png --overlay OUT.png",
    "demo_scenes": ".",
    "evaluate": f"{NOWHERE} --data_dir {NOWHERE} --use_cpu true",
    "export": f"{NOWHERE} OUT.onnx",
    "import_data": f"{NOWHERE} OUT",
    "inspect_dataset": f"{NOWHERE} --output_dir OUT",
    "model_card": "--check",
    "push": f"{NOWHERE} user/model",
    "run_onnx": f"{NOWHERE}.onnx {NOWHERE}.png --output OUT",
    "score_text": f"{NOWHERE} {NOWHERE}.png --texts sky --output OUT",
    "space": f"OUT --model {NOWHERE}",
    "train": f"--data_dir {NOWHERE} --output_dir OUT --use_cpu true",
}


def in_ascii(monkeypatch) -> list[io.BytesIO]:
    """Let all that is printed go to what holds ASCII alone, and nothing in place of another letter."""
    printed = [io.BytesIO(), io.BytesIO()]
    for name, stream in zip(("stdout", "stderr"), printed, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(stream, encoding="ascii", write_through=True))
    return printed


def test_each_command_of_training_is_here():
    verbs = {
        path.stem for path in (ROOT / "training").glob("*.py") if 'if __name__ == "__main__":' in path.read_text()
    }
    assert WRONG_WORDS.keys() == verbs


@pytest.mark.filterwarnings("ignore:.*found in sys.modules after import of package")
@pytest.mark.parametrize("verb", WRONG_WORDS)
def test_wrong_input_ends_each_of_them_with_a_line(verb, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_cards").mkdir()
    (tmp_path / "model_cards" / "небо.md").write_text("of no recipe")
    importlib.import_module(f"training.{verb}")  # so that the modules below it find the files of the checkout
    monkeypatch.setattr("training.REPOSITORY", tmp_path)
    printed = in_ascii(monkeypatch)
    monkeypatch.setattr(sys, "argv", [verb, *WRONG_WORDS[verb].split()])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"training.{verb}", run_name="__main__")
    said = printed[1].getvalue().decode()
    # Those with 1 leave no files out, which 1 stands for elsewhere.
    assert end.value.code == (1 if verb in ("convert", "train") else 2), said
    assert "error: " in said and "usage:" not in said


@pytest.mark.parametrize("result, status", [(None, 0), ({}, 0), (0, 0), (1, 1)])
def test_what_a_command_returns_is_its_status_if_it_is_a_number(result, status):
    assert command.run_command(lambda: result) == status


def test_letters_that_the_output_lacks_are_printed_as_escapes(monkeypatch):
    printed = in_ascii(monkeypatch)

    def work():
        print("sky 天")
        raise ValueError("дом")

    assert command.run_command(work) == 2
    assert [stream.getvalue().decode() for stream in printed] == [
        "sky \\u5929\n",
        "error: \\u0434\\u043e\\u043c\n",
    ]


def test_a_choice_of_replacement_is_kept(monkeypatch):
    printed = io.BytesIO()
    stream = io.TextIOWrapper(printed, encoding="ascii", errors="replace", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    assert command.run_command(lambda: print("天")) == 0
    assert printed.getvalue().decode() == "?\n"


@pytest.mark.parametrize(
    "text, shown",
    [
        ("\x1b]0;owned\x07wall", "\\x1b]0;owned\\x07wall"),  # the title of the window
        ("\x1b[2J\x1b[31mred\x1b[0m", "\\x1b[2J\x1b[31mred\x1b[0m"),  # clears the screen; colours are passed
        ("\x9b2J \x7f \x08", "\\x9b2J \\x7f \\x08"),
        ("abc\u202edcb", "abc\\u202edcb"),  # from here on letters go to the left
        ("50 %\r60 %\n\x1b[A\ta\r\n", "50 %\r60 %\n\x1b[A\ta\r\n"),  # progress bars
        ("Straße 天 \u05d0", "Straße 天 \u05d0"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text, shown, capsys):
    logger = logging.Logger("of a library")
    logger.addHandler(logging.StreamHandler())  # keeps the stream that there is now
    logging.root.manager.loggerDict[logger.name] = logger
    before = sys.stdout, sys.stderr

    def work():
        print(text)
        sys.stderr.writelines([text, "\n"])
        logger.warning(text)
        tqdm.write(text)
        raise ValueError(text)

    as_error = shown.replace("\x1b", "\\x1b").replace("\r", "\\r")  # which is no progress bar
    try:
        assert command.run_command(work) == 2
    finally:
        del logging.root.manager.loggerDict[logger.name]
    assert capsys.readouterr() == (f"{shown}\n" * 2, f"{shown}\n" * 2 + f"error: {as_error}\n")
    assert (sys.stdout, sys.stderr) == before and logger.handlers[0].stream is before[1]


def test_streams_are_still_those_of_the_system(monkeypatch):
    with open(os.devnull, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        found = []
        command.run_command(lambda: found.extend((sys.stdout.fileno(), sys.stdout.encoding, sys.stdout.isatty())))
        assert found == [stream.fileno(), stream.encoding, False]


@pytest.mark.parametrize("name, status, has_traceback", [("denseclip", 130, False), ("my_program", 1, True)])
def test_ctrl_c_while_the_command_imports_is_quiet_and_that_of_other_programs_is_theirs(name, status, has_traceback):
    code = f"import sys; sys.argv = ['/usr/bin/{name}']; import modeling_denseclip; raise KeyboardInterrupt"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ("Traceback" in ended.stderr) == has_traceback and (ended.returncode == 130) == (status == 130)
