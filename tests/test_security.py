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
"""
What files from strangers cannot do. The payload of these tests is a real one: whoever unpickles it, or runs the code
of the checkpoint, writes a file. That `training.convert` refuses it is in `test_conversion.py`, what archives of
pictures may hold in `test_ade20k.py`, the web page's limits in `web/test_limits.py`.
"""

import ast
import json
import pickle
import re
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoModelForSemanticSegmentation, ResNetConfig

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.conversion_denseclip import read_checkpoint
from modeling_denseclip.tools.command import main as denseclip
from tests import audit, licences
from tests.test_conversion import Payload, write_malicious
from tests.test_remote_code import ROOT, run_elsewhere
from tests.tiny import draw_picture, make_tiny_tokenizer, save_checkpoint, tiny_model
from training.arguments import DenseCLIPTrainingArguments
from training.averaging import AVERAGED_WEIGHTS_NAME
from training.trainer import DenseCLIPTrainer


REFUSALS = (ValueError, OSError, pickle.UnpicklingError)


@pytest.fixture
def payload(tmp_path) -> Payload:
    payload = Payload(tmp_path / "executed.txt")
    pickle.loads(pickle.dumps(payload))
    assert payload.marker.exists(), "the payload must be a real one"
    payload.marker.unlink()
    return payload


def write_arrays(path: Path, payload: Payload) -> Path:
    """As NumPy's `.npy` or `.npz`, in which an array of objects is a pickle."""
    array = np.array([payload], dtype=object)
    with open(path, "wb") as file:
        np.save(file, array) if path.suffix == ".npy" else np.savez(file, **{"visual.conv1.weight": array})
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(path)["visual.conv1.weight"]
    return path


# ------------------------------------------------------------------------------------------------- weights are refused


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "torchscript", "transformers", "npy", "npz"])
def test_weights_to_train_from_are_not_executed(form, payload, tmp_path):
    if form in ("npy", "npz"):
        source = write_arrays(tmp_path / f"arrays.{form}", payload).rename(tmp_path / "CLIP.pt")
    else:
        source = write_malicious(form, payload, tmp_path)
    with pytest.raises(REFUSALS):
        DenseCLIPForSemanticSegmentation.from_clip_pretrained(source, ["a", "b"], make_tiny_tokenizer())
    assert not payload.marker.exists()


def test_backbone_to_train_from_is_not_executed(payload, tmp_path):
    folder = tmp_path / "backbone"
    ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1]).save_pretrained(folder)
    torch.save({"embedder.embedder.convolution.weight": payload}, folder / "pytorch_model.bin")
    with pytest.raises(REFUSALS):
        DenseCLIPForSemanticSegmentation.from_clip_pretrained(image=folder, class_names=["a"], use_language=False)
    assert not payload.marker.exists()


# What would let a pickle call anything, or read, import or fetch something.
@pytest.mark.parametrize(
    "asked",
    [
        *("builtins getattr", "builtins eval", "builtins __import__", "os system", "posix system", "io open"),
        *("torch load", "torch.hub load", "torch.serialization load", "torch.jit load", "operator attrgetter"),
        *("collections namedtuple", "copyreg _reconstructor", "functools partial", "torch.jit._pickle load"),
        *("torch._utils _rebuild_parameter", "collections OrderedDict.fromkeys", "pickle loads"),
    ],
)
def test_archive_of_torchscript_may_name_nothing_but_tensors(asked, tmp_path):
    module, name = asked.split()
    with zipfile.ZipFile(tmp_path / "CLIP.pt", "w") as archive:
        words = b"".join(b"X" + struct.pack("<I", len(word)) + word.encode() for word in (module, name))
        archive.writestr("CLIP/data.pkl", b"\x80\x04" + words + b"\x93.")  # both words, then "STACK_GLOBAL"
        archive.writestr("CLIP/constants.pkl", pickle.dumps(()))
    with pytest.raises(ValueError, match=f"it asks for {module}.{name}, which no weights need"):
        read_checkpoint(tmp_path / "CLIP.pt")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    image_processor = DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    return save_checkpoint(tiny_model("resnet"), image_processor, tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize("shards", [False, True])
def test_checkpoint_of_pickles_is_not_executed(shards, checkpoint, payload, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    name = "pytorch_model-00001-of-00001.bin" if shards else "pytorch_model.bin"
    torch.save({"prompts.contexts": payload}, folder / name)
    if shards:
        index = {"metadata": {"total_size": 1}, "weight_map": {"prompts.contexts": name}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    for model_class in (DenseCLIPForSemanticSegmentation, AutoModelForSemanticSegmentation):
        with pytest.raises(REFUSALS):
            model_class.from_pretrained(folder)
    with pytest.raises(REFUSALS):
        denseclip(["predict", str(save_photo(tmp_path)), "--model", str(folder), "--out", str(tmp_path / "out")])
    assert not payload.marker.exists()


# -------------------------------------------------------------------------------------------- going on with a training


def build_trainer(output_dir: Path, **arguments) -> DenseCLIPTrainer:
    generator = torch.Generator().manual_seed(0)
    rows = [
        {
            "pixel_values": torch.randn(3, 64, 64, generator=generator),
            "labels": torch.randint(0, 5, (64, 64), generator=generator),
        }
        for _ in range(2)
    ]
    common = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "steps", "save_steps": 1}
    return DenseCLIPTrainer(
        model=tiny_model("resnet"),
        args=DenseCLIPTrainingArguments(
            str(output_dir), per_device_train_batch_size=2, ema_decay=0.9, **common | arguments
        ),
        train_dataset=rows,
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    build_trainer(folder, max_steps=1).train()
    return folder / "checkpoint-1"


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin", AVERAGED_WEIGHTS_NAME]
)
def test_training_does_not_go_on_from_a_pickle(name, run_folder, payload, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "checkpoint-1")
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    else:
        assert (folder / name).is_file()
    torch.save({"state": payload}, folder / name)
    with pytest.raises((ValueError, SafetensorError), match="holds more than tensors|[Hh]eader"):
        build_trainer(tmp_path, max_steps=2).train(resume_from_checkpoint=str(folder))
    assert not payload.marker.exists()


def test_saved_arguments_are_never_read(run_folder, payload, tmp_path):
    """The Trainer writes `training_args.bin`, a whole pickle, for people to look at."""
    folder = shutil.copytree(run_folder, tmp_path / "checkpoint-1")
    assert (folder / "training_args.bin").is_file()
    torch.save(payload, folder / "training_args.bin")
    trainer = build_trainer(tmp_path, max_steps=2)
    trainer.train(resume_from_checkpoint=str(folder))
    assert trainer.state.global_step == 2
    assert not payload.marker.exists()


# ---------------------------------------------------------------------------------------------- code of a checkpoint


def save_photo(folder: Path) -> Path:
    draw_picture(90, 70, seed=1).save(folder / "photo.png")
    return folder / "photo.png"


def test_commands_run_the_package_and_not_the_code_of_a_checkpoint(checkpoint, payload, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "strange")
    files = sorted(folder.glob("*.py"))
    assert len(files) > 5
    for file in files:
        file.write_text(f"open({str(payload.marker)!r}, 'w').close()\n{file.read_text()}")
    # All that may name code, the tokenizer too.
    (folder / "tokenization_strange.py").write_text(f"open({str(payload.marker)!r}, 'w').close()\n")
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer_config["auto_map"] = {"AutoTokenizer": ["tokenization_strange.Strange", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    words = [str(save_photo(tmp_path)), "--model", str(folder), "--out", str(tmp_path / "out")]
    assert denseclip(["info", str(folder)]) == 0
    assert denseclip(["predict", *words]) == 0
    assert denseclip(["predict", *words, "--text", "sky", "wall"]) == 0
    assert not payload.marker.exists()

    # The payload was a real one: who trusts the checkpoint's code runs it.
    run_elsewhere(LOAD_AND_PREDICT, folder, draw_picture(90, 70), tmp_path / "elsewhere", {"HF_HUB_OFFLINE": "0"})
    assert payload.marker.exists()


LOAD_AND_PREDICT = """
import os, tempfile

events = []

def listen(event, arguments):
    if event == "open":
        writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        event, arguments = "write" if writes else "read", arguments[:1]
    elif event.partition(".")[0] not in ("os", "socket", "subprocess", "urllib", "http", "ftplib", "pty"):
        return
    # Not before: to look at a frame is an event itself.
    frame, ours = sys._getframe(), False
    while frame is not None and not ours:
        ours = "transformers_modules" in frame.f_code.co_filename
        frame = frame.f_back
    paths = [os.fsdecode(part) for part in arguments if isinstance(part, (str, bytes, os.PathLike))]
    # A number is a file that is open already.
    events.extend((event, path, ours) for path in paths or ([""] if event not in ("read", "write") else []))

sys.addaudithook(listen)
model = AutoModelForSemanticSegmentation.from_pretrained(directory, trust_remote_code=True).eval()
image_processor = AutoImageProcessor.from_pretrained(directory, trust_remote_code=True)
check(model, image_processor)
results = segment(model, image_processor)
model.set_class_names(["sky", "person"])
results |= {"renamed": segment(model, image_processor)["mask"]}
results |= {"events": list(events), "prefixes": [sys.prefix, sys.base_prefix], "tmp": tempfile.gettempdir()}
torch.save(results, output_path)
print("done")
"""


def test_remote_code_asks_no_network_and_stays_in_its_folder(checkpoint, tmp_path):
    # Nor is it the word "offline" that holds it back.
    workplace = tmp_path / "elsewhere"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {"HF_HUB_OFFLINE": "0", "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    before = {path: path.read_bytes() for path in checkpoint.iterdir()}
    results, _ = run_elsewhere(LOAD_AND_PREDICT, checkpoint, draw_picture(90, 70), workplace, environment)
    assert {path: path.read_bytes() for path in checkpoint.iterdir()} == before

    def inside(path: str, *folders) -> bool:
        return any(Path(path).is_relative_to(Path(folder).resolve()) for folder in folders)

    events = [(kind, str((workplace / path).resolve()), ours) for kind, path, ours in results["events"]]
    assert {"read", "write"} <= {kind for kind, _, _ in events}, "nothing was heard"
    assert any(ours and inside(path, checkpoint) for kind, path, ours in events if kind == "read")
    looks = {"os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.listxattr"}
    variables = {"os.putenv", "os.unsetenv"}
    for kind, path, ours in events:
        assert not kind.startswith(("socket.", "subprocess.", "urllib.", "http.", "ftplib.", "pty.")), (kind, path)
        assert kind not in ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"), path
        if kind in {"read"} | looks:
            # Pseudo-files of the system tell libraries what the machine is.
            allowed = (checkpoint, workplace, temporary, *results["prefixes"], "/proc", "/sys", "/dev", "/etc", "/usr")
            assert not ours or inside(path, *allowed), (kind, path)
        elif kind not in variables:
            assert inside(path, workplace / "huggingface", temporary, "/dev/null"), (kind, path)


# ------------------------------------------------------------------------------------------------------ what code says

FLAT_FILES = [path for path in sorted((ROOT / "modeling_denseclip").glob("*.py")) if path.name != "__init__.py"]
ALL_FILES = [path for room in ("modeling_denseclip", "training", "benchmarks") for path in (ROOT / room).rglob("*.py")]
FORBIDDEN_IMPORTS = {
    *("asyncio", "ctypes", "ftplib", "glob", "http", "httpx", "importlib", "io", "marshal", "mmap", "multiprocessing"),
    *("pickle", "pty", "requests", "runpy", "shelve", "shutil", "signal", "smtplib", "socket", "socketserver", "ssl"),
    *("subprocess", "sys", "tarfile", "tempfile", "threading", "urllib", "webbrowser", "zipfile"),
}
# The reader of OpenAI's archives: an unpickler that calls nothing, and the ZIP around it.
EXCEPTIONS = {"conversion_denseclip": {"pickle", "zipfile"}}
BUILTINS = {"eval", "exec", "compile", "open", "__import__", "input", "breakpoint", "globals"}
METHODS = (".write_text", ".write_bytes", ".unlink", ".rename", ".mkdir", ".rmdir", ".touch", ".chmod", ".symlink_to")


def calls_in(path: Path):
    """Each call, as its line, the words of its function ("torch.load"), and its keyword arguments."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


@pytest.mark.parametrize("path", FLAT_FILES, ids=lambda path: path.stem)
def test_remote_code_has_no_means_to_leave_its_folder(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported = {node.module.partition(".")[0]}
        else:
            continue
        assert not imported & FORBIDDEN_IMPORTS - EXCEPTIONS.get(path.stem, set()), f"line {node.lineno}"
    for line, called, _ in calls_in(path):
        assert called not in BUILTINS, f"line {line}: {called}"
        assert not called.startswith("os."), f"line {line}: {called}, where `os.PathLike` is all that is needed"
        assert not called.endswith(METHODS), f"line {line}: {called}"


@pytest.mark.parametrize("path", ALL_FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_reader_trusts_its_file(path):
    for line, called, words in calls_in(path):
        place = f"{path.name}:{line}"
        assert called not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.jit.load"), place
        assert called not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "os.system"), place
        assert called != "torch.load" or words.get("weights_only") == "True", place
        assert "allow_pickle" not in words and words.get("shell") is None, place
        # The demonstration loads what it has just written itself.
        assert words.get("trust_remote_code") is None or path.name == "demo.py", place


# ------------------------------------------------------------------------------------------------------- dependencies


def test_licences_of_what_comes_along_are_permissive(capsys):
    assert licences.main() == 0, capsys.readouterr()
    table = capsys.readouterr().out
    # Of the package itself, what it needs, and what that needs.
    for name in ("modeling-denseclip", "torch", "networkx", "pillow", "tqdm"):
        assert re.search(rf"^{name} .* all ", table, flags=re.MULTILINE), name


@pytest.mark.parametrize(
    ("name", "licence", "allowed"),
    [
        ("some", "MIT", True),
        ("some", "Apache-2.0 AND MIT", True),
        ("some", "GPL-3.0-only OR BSD-3-Clause", True),
        ("some", "GPL-3.0-only", False),
        ("some", "MIT AND LGPL-2.1-only", False),
        ("some", "MPL-2.0", False),
        ("some", "GPL-3.0-only AND (MIT OR Apache-2.0)", False),
        ("orjson", "MPL-2.0 AND (MIT OR Apache-2.0)", True),
        ("certifi", "MPL-2.0", True),
        ("some", "", False),
    ],
)
def test_other_licences_are_noticed(name, licence, allowed):
    assert licences.is_allowed(name, licence) == allowed


def test_audit_says_when_it_was_not_run():
    vulnerable = {"name": "old", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]}
    sound = {"name": "new", "version": "2.0", "vulns": []}
    unknown = {"name": "own", "skip_reason": "Dependency not found on PyPI"}

    def summarize(*packages):
        return audit.summarize(json.dumps({"dependencies": packages}), "")

    assert summarize(sound) == (0, "1 packages looked up, 0 vulnerabilities known.")
    status, text = summarize(sound, vulnerable, unknown)
    assert status == 1 and "old 1.0: CVE-1, mended in 1.1" in text and "Not looked up: own" in text
    for status, text in (summarize(unknown), audit.summarize("", "Traceback\nConnectionError: no route")):
        assert status == 0 and text.startswith("AUDIT NOT RUN")
