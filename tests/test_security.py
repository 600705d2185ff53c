# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
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
from safetensors.torch import load_file
from transformers import AutoModelForSemanticSegmentation, PreTrainedModel, ResNetConfig

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.checkpoint_formats_denseclip import read_source
from modeling_denseclip.tools.command import main as denseclip
from modeling_denseclip.tools.files.loading import load_model, read_card_head
from modeling_denseclip.weight_files_denseclip import read_checkpoint
from tests import audit, licences
from tests.test_conversion import Payload, write_malicious
from tests.test_remote_code import ROOT, run_elsewhere
from tests.tiny import draw_picture, make_tiny_tokenizer, save_checkpoint, tiny_model
from training.learning.averaging import AVERAGED_WEIGHTS_NAME
from training.learning.trainer import DenseCLIPTrainer
from training.options.arguments import DenseCLIPTrainingArguments
from training.options.recipes import load_recipe


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


# As torch writes a pickle: "GLOBAL" (c), "REDUCE" (R), "NEWOBJ" (\x81), "BUILD" (b), a tuple of two (\x86), ...
BYTES = b"c_codecs\nencode\nX%bX\x06\0\0\0latin1\x86R"
EMPTY_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85" + BYTES % b"\1\0\0\0b" + b"tR"
EIGHT_BYTES = BYTES % b"\x08\0\0\0abcdefgh"
HUGE = b"\x8a\x06\0\0\0\0\0\x01"  # 2^40


def data_type(code: str) -> bytes:
    made = b"cnumpy\ndtype\nX" + struct.pack("<I", len(code)) + code.encode() + b"\x85R"
    return made + b"(K\x03X\1\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"


def array_state(shape: bytes, code: str, data: bytes) -> bytes:
    return EMPTY_ARRAY + b"(K\x01(" + shape + b"t" + data_type(code) + b"\x89" + data + b"tb"


@pytest.mark.parametrize(
    ("pickled", "shape"),
    [
        # A size that is asked for is not what is given.
        (b"cnumpy\nndarray\n(" + HUGE + b"tR", (0,)),
        (b"cnumpy\nndarray\n(" + HUGE + b"t\x81", (0,)),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + HUGE + b"\x85K\0tR", (0,)),
        (array_state(HUGE + b"K\0", "f8", b"cbuiltins\nbytes\n)R"), (0,)),
        (b"cbuiltins\nbytes\n" + HUGE + b"\x85R", None),
        # What it says and what it has.
        (array_state(HUGE, "f8", EIGHT_BYTES), "cannot reshape array of size 1"),
        # NumPy 2.0 finds the bytes too few, later releases the type too large.
        (array_state(b"K\x01", "U1000000000", EIGHT_BYTES), "not understood|buffer size"),
        (array_state(b"K\x01", "U100000", EIGHT_BYTES), "buffer size must be a multiple of element size"),
        (array_state(b"K\x01", "U0", EIGHT_BYTES), r"asks for numpy\.dtype\('U0'\)"),
        # Any object.
        (array_state(b"K\x01", "O8", b"]N" + b"a"), r"asks for numpy\.dtype\('O8'\)"),
        (array_state(b"K\x01", "f8", b"]N" + b"a"), "asks for numpy values of list"),
        (array_state(b"K\x01", "i4,O", EIGHT_BYTES), r"asks for numpy\.dtype\('i4,O'\)"),
        (b"cnumpy.core.multiarray\nscalar\n" + data_type("O8") + b"N\x86R", r"asks for numpy\.dtype\('O8'\)"),
        # Neighbours of what is read.
        (b"cnumpy\nload\nN\x85R", "asks for numpy.load"),
        (b"cnumpy.core.multiarray\nfromfile\nN\x85R", "asks for numpy.core.multiarray.fromfile"),
        (b"cnumpy\nndarray.tofile\nN\x85R", "asks for numpy.ndarray.tofile"),
        (b"cpathlib\nPath\nN\x85R", "asks for pathlib.Path"),
    ],
)
def test_numbers_of_numpy_cannot_be_abused(pickled, shape, tmp_path):
    stream = b"\x80\x02" + pickled + b"."
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("model/data.pkl", stream)
        archive.writestr("model/version", "3\n")
        archive.writestr("model/byteorder", "little")
    if isinstance(shape, str):
        with pytest.raises(ValueError, match=f"could not be read as weights: .*{shape}"):
            read_checkpoint(tmp_path / "model.pth")
    else:
        read = read_checkpoint(tmp_path / "model.pth")
        assert read == b"" if shape is None else read.shape == shape


def test_what_a_program_allows_its_own_files_is_not_allowed_a_strangers(payload, tmp_path):
    torch.save({"state_dict": payload}, tmp_path / "model.pth")
    before = torch.serialization.get_safe_globals()
    allowed = {*before, exec, np.dtype, Payload}
    torch.serialization.add_safe_globals(allowed)
    try:
        with pytest.raises(ValueError, match="it asks for exec"):
            read_checkpoint(tmp_path / "model.pth")
        assert {*torch.serialization.get_safe_globals()} == allowed
        # Nor does it hide numbers from us.
        torch.save({"best": np.float32(0.5)}, tmp_path / "model.pth")
        assert read_checkpoint(tmp_path / "model.pth") == {"best": 0.5}
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "model.pth", weights_only=True)


def test_file_of_tensors_does_not_swell(tmp_path):
    torch.save({"visual.conv1.weight": torch.zeros(2**18)}, tmp_path / "model.pth")
    with zipfile.ZipFile(tmp_path / "model.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert (tmp_path / "small.pth").stat().st_size < 2**13
    with pytest.raises(ValueError, match="its tensors are compressed, which those of torch are not"):
        read_checkpoint(tmp_path / "small.pth")
    # One value with the shape of many.
    weight = torch.zeros(1).expand(2**40)
    torch.save({"visual.conv1.weight": weight, "token_embedding.weight": weight}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="fewer values than their shape says: visual.conv1.weight"):
        read_source(tmp_path / "model.pth")
    # The same in an archive of TorchScript.
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\1tQ"
    )
    with zipfile.ZipFile(tmp_path / "CLIP.pt", "w") as archive:
        archive.writestr("CLIP/constants.pkl", pickle.dumps(()))
        archive.writestr("CLIP/data/0", bytes(4))
        archive.writestr(
            "CLIP/data.pkl", b"\x80\x02" + tensor + b"K\0(" + HUGE + b"t(K\0t\x89ccollections\nOrderedDict\n)RtR."
        )
    with pytest.raises(ValueError, match=r"a tensor of shape \(1099511627776,\) with 1 values"):
        read_checkpoint(tmp_path / "CLIP.pt")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    image_processor = DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    return save_checkpoint(tiny_model("resnet"), image_processor, tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize("shards", [False, True])
def test_checkpoint_of_pickles_is_not_executed(shards, checkpoint, payload, tmp_path, capsys):
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
    words = ["predict", str(save_photo(tmp_path)), "--model", str(folder), "--out", str(tmp_path / "out")]
    assert denseclip(words) == 2
    # Torch's own words advise to load the pickle by `weights_only=False`.
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "Nothing that it asks for was executed" in line and "weights_only" not in line
    assert not payload.marker.exists()


# --------------------------------------------------------------------------------------- configs, indexes, heads


@pytest.mark.parametrize("section", ["", "text_config", "vision_config"])
@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_a_config_cannot_ask_for_a_kernel_of_the_hub(section, name, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    fields = json.loads((folder / "config.json").read_text())
    (fields[section] if section else fields)[name] = "someone/kernels"
    (folder / "config.json").write_text(json.dumps(fields))
    for read in (
        lambda: DenseCLIPForSemanticSegmentation.from_pretrained(folder),
        lambda: DenseCLIPConfig.from_pretrained(folder),
        lambda: load_model(str(folder)),
    ):
        with pytest.raises(ValueError, match=f"asks for {name} 'someone/kernels', which is code of the Hub"):
            read()


@pytest.mark.parametrize(
    "shard", ["../outside.safetensors", "{folder}/outside.safetensors", "x/../../outside.safetensors"]
)
def test_an_index_cannot_name_a_file_outside(shard, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    (folder / "x").mkdir()
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    names = load_file(tmp_path / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard.format(folder=tmp_path))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="The index of the weights names .*outside.safetensors, which is not in"):
        DenseCLIPForSemanticSegmentation.from_pretrained(folder)


def test_a_model_cannot_be_larger_than_its_weights(checkpoint, tmp_path, monkeypatch):
    """A width of 10,000 in the neck is 4 x 9 x 10,000^2 numbers, 14 GB; the file has 2 MB."""
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "neck_hidden_size": 10_000}))
    monkeypatch.setattr(PreTrainedModel, "_load_pretrained_model", lambda *_: pytest.fail("it was about to be made"))
    for ignored in (False, True):
        with pytest.raises(ValueError, match=r"asks for 3\d{9} numbers that the weights do not hold"):
            DenseCLIPForSemanticSegmentation.from_pretrained(folder, ignore_mismatched_sizes=ignored)


@pytest.mark.parametrize(
    "head",
    [
        "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 20))]),
        "\n".join(
            [
                "a0: &a0 {a: 1, b: 2}",
                *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 12)}]}}" for i in range(1, 12)),
            ]
        ),
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: [" + "b, " * 10**5 + "]",
        "a: " + "[" * 10**4,
    ],
    ids=["aliases", "merges", "list in itself", "mapping in itself", "long", "deep"],
)
def test_a_card_and_a_recipe_are_bounded(head, tmp_path):
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n")
    (tmp_path / "recipe.yaml").write_text(head)
    for read in (
        lambda: read_card_head(tmp_path / "README.md", "README.md"),
        lambda: load_recipe(tmp_path / "recipe.yaml"),
    ):
        with pytest.raises(ValueError, match="is no valid YAML: "):
            read()


# -------------------------------------------------------------------------------------------- going on with a training


def build_trainer(output_dir: Path, **arguments) -> DenseCLIPTrainer:
    """A training on two images of noise; `arguments` are fields of its arguments."""
    generator = torch.Generator().manual_seed(0)
    rows = [
        {
            "pixel_values": torch.randn(3, 32, 32, generator=generator),
            "labels": torch.randint(0, 5, (32, 32), generator=generator),
        }
        for _ in range(2)
    ]
    common = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "steps", "save_steps": 1}
    return DenseCLIPTrainer(
        model=tiny_model("shallow"),
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
    with pytest.raises((ValueError, SafetensorError), match="holds more than tensors|[Hh]eader|of no other"):
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
EXCEPTIONS = {"weight_files_denseclip": {"pickle", "zipfile"}}
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
        assert words.get("allow_pickle", "False") == "False" and words.get("shell") is None, place
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
