# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What is installed, what it imports, and whether its files can go to the Hub."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import tokenize
import zipfile
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_imports

from tests import structure
from tests.warm import warm_python


ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "modeling_denseclip"
# `__init__.py` stays behind when a checkpoint is saved; the others are copied beside the weights.
COPIED_FILES = sorted(path for path in PACKAGE.glob("*.py") if path.name != "__init__.py")
# Installed, but never copied.
TOOLS = sorted((PACKAGE / "tools").rglob("*.py"))
# What `pip install` brings along with the package, or Python itself.
ALLOWED_IMPORTS = {"huggingface_hub", "numpy", "PIL", "safetensors", "torch", "transformers", *sys.stdlib_module_names}


def tracked_files() -> list[Path]:
    """The files under version control and those that could be added, as paths from the root."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(line) for line in listing.splitlines() if (ROOT / line).is_file()]


# --------------------------------------------------------------------------------------------------------- imports

IMPORT_IN_NEW_PROCESS = """
import sys

class NoTorchvision:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            asked.append(name)

asked = []
sys.meta_path.insert(0, NoTorchvision())
sys.path.insert(0, sys.argv[1])
import transformers, torch
before = list(asked)
import modeling_denseclip
assert modeling_denseclip.__file__.startswith(sys.argv[1])
assert asked == before, asked
from modeling_denseclip import plot_score_maps, plot_segmentation
assert "matplotlib" not in sys.modules
print("imported")
"""


def test_importing_prints_nothing_and_asks_for_neither_torchvision_nor_matplotlib():
    command = [sys.executable, "-W", "error", "-c", IMPORT_IN_NEW_PROCESS, str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.stdout, result.stderr, result.returncode) == ("imported\n", "", 0)


def test_every_file_is_found_by_the_rules_below():
    assert len(COPIED_FILES) >= 8
    assert {path.name for path in PACKAGE.iterdir()} - {"__pycache__", "__init__.py", "tools"} == {
        path.name for path in COPIED_FILES
    }, "data files and sub-packages are not copied to the Hub"
    tools = {path for path in (PACKAGE / "tools").rglob("*") if path.is_file() and path.parent.name != "__pycache__"}
    assert tools == set(TOOLS)


@pytest.mark.parametrize("path", COPIED_FILES, ids=lambda path: path.stem)
def test_file_can_be_remote_code(path):
    """The rules of `transformers.dynamic_module_utils`, which finds by regular expressions what it has to copy."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    siblings = {other.stem for other in COPIED_FILES}
    relative_imports = set()
    guarded = {statement for node in ast.walk(tree) if isinstance(node, ast.Try) for statement in node.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            assert node.level == 1 and node.module in siblings, (
                f"line {node.lineno}: only `from .sibling import name` is copied, never `from . import sibling`"
            )
            relative_imports.add(node.module)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for module in modules:
                is_there = module.split(".")[0] in ALLOWED_IMPORTS
                assert is_there or node in guarded, f"line {node.lineno}: {module} may not be installed"
    # Lines that the regular expressions take for imports, docstrings included.
    found = re.findall(r"^\s*(?:import|from)\s+\.(\S*)", source, flags=re.MULTILINE)
    assert set(found) == relative_imports, "a docstring line reads like a relative import"
    # What has to be installed before Transformers runs the file.
    assert set(get_imports(path)) <= ALLOWED_IMPORTS


@pytest.mark.parametrize("path", COPIED_FILES, ids=lambda path: path.stem)
def test_file_never_asks_for_the_class_of_our_own_configs(path):
    """From a local directory config and model are loaded as two modules, so each class of ours exists twice."""
    own_classes = {
        node.name
        for other in COPIED_FILES
        for node in ast.walk(ast.parse(other.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config")
    }
    assert own_classes
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("isinstance", "issubclass"):
            names = {child.id for child in ast.walk(node.args[1]) if isinstance(child, ast.Name)}
            assert not names & own_classes, f"line {node.lineno}: compare `model_type` instead"


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_tool_needs_no_more_than_is_installed(path):
    """Extras are imported where they are used, so that `denseclip --help` works without them."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom | ast.Import) and getattr(node, "level", 0) == 0:
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for module in modules:
                assert module.split(".")[0] in {*ALLOWED_IMPORTS, "filelock", "tqdm", "yaml"}, (
                    f"line {node.lineno}: {module} is an extra"
                )


def test_no_file_imports_torchvision():
    for path in sorted((*PACKAGE.rglob("*.py"), *(ROOT / "training").rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = {getattr(node, "module", None) or "", *(alias.name for alias in node.names)}
                assert not any(name.split(".")[0] == "torchvision" for name in names), f"{path.name}:{node.lineno}"


# ----------------------------------------------------------------------------------------------------------- style


def test_transformers_house_style():
    if importlib.util.find_spec("mlinter") is None:
        pytest.skip("transformers-mlinter is not installed; `make quality` installs and runs it")
    command = [sys.executable, "-m", "mlinter", "--no-progress", "--no-cache", str(PACKAGE)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_model_files_suppress_no_linter():
    for path in PACKAGE.glob("*.py"):
        with tokenize.open(path) as file:
            comments = [token for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.COMMENT]
        for comment in comments:
            suppressed = re.search(r"noqa|type:\s*ignore|ruff:|mlinter:|trf-ignore", comment.string)
            assert suppressed is None, f"{path.name}:{comment.start[0]}: {comment.string}"


# Written in two parts, or this file would hold them.
FOREIGN_WORDS = ["/wo" + "rk/", "/tm" + "p/", "/ho" + "me/", "/roo" + "t/", "assis" + "tant"]


def test_no_file_names_the_machine_it_was_written_on():
    for name in tracked_files():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:  # pictures and arrays
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            for word in FOREIGN_WORDS:
                assert word not in line.lower(), f"{name}:{number}: {word!r}"


def test_every_code_file_names_its_licence():
    for path in (*COPIED_FILES, *TOOLS, *(ROOT / "training").rglob("*.py")):
        head = path.read_text(encoding="utf-8")[:1000]
        # What goes to the Hub has Transformers' own header, since it stands there alone.
        own_header = path in COPIED_FILES
        licence = "Licensed under the Apache License" if own_header else "SPDX-License-Identifier: Apache-2.0"
        assert path.name == "__init__.py" or licence in head, path.name


# As CHANGELOG.md lists them.
FORMER_NAMES = {
    "modeling_denseclip.tools.explanation": "modeling_denseclip.tools.insight.explanation",
    "modeling_denseclip.tools.info": "modeling_denseclip.tools.commands.info",
    "modeling_denseclip.tools.loading": "modeling_denseclip.tools.files.loading",
    "modeling_denseclip.tools.predict": "modeling_denseclip.tools.commands.predict",
    "modeling_denseclip.tools.visualization": "modeling_denseclip.tools.pictures",
    "modeling_denseclip.tools.web": "modeling_denseclip.tools.page.server",
    "training.arguments": "training.options.arguments",
    "training.dataset_files": "training.data.files",
    "training.demo_tokenizer": "training.demonstration.tokenizer",
    "training.trainer": "training.learning.trainer",
    "training.transforms": "training.data.transforms",
}


def test_what_runs_exported_models_starts_without_pytorch():
    pytest.importorskip("onnxruntime")
    script = "import sys, training.run_onnx; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_modules_are_found_by_the_names_that_they_had_in_the_last_release():
    script = (
        "import importlib, sys\n"
        f"for former, now in {FORMER_NAMES!r}.items():\n"
        "    by_former_name, module = importlib.import_module(former), importlib.import_module(now)\n"
        "    assert by_former_name is module, former\n"
        "    assert module.__spec__.name == module.__name__ == now\n"
        "from training.trainer import DenseCLIPTrainer\n"
        "assert sys.modules['training'].trainer.DenseCLIPTrainer is DenseCLIPTrainer\n"
        "from modeling_denseclip import conversion_denseclip, weight_files_denseclip\n"
        "assert conversion_denseclip.read_checkpoint is weight_files_denseclip.read_checkpoint\n"
    )
    subprocess.run([*warm_python(), "-c", script], cwd=ROOT, check=True)


# ---------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("find_arrows", [structure.room_arrows, structure.model_arrows])
def test_nothing_imports_itself_over_others_and_contributing_shows_it(find_arrows):
    """By every import, those of types and in functions too."""
    arrows = find_arrows()
    assert len(arrows) > 10
    assert structure.circles(arrows) == set()
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{structure.draw(arrows)}\n```" in page, "python -m tests.structure prints it as it is"


def test_every_room_is_described():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for room in structure.room_arrows():
        assert f"| `{room}/` |" in page, room


def test_small_files_name_the_same_release():
    (version,) = re.findall(r"^version = (\S+)$", (ROOT / "setup.cfg").read_text(), flags=re.MULTILINE)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    first = re.search(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert first[1] == version
    assert f'\ndate-released: "{first[2]}"\n' in (ROOT / "CITATION.cff").read_text()


# ----------------------------------------------------------------------------------------------------------- wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that the checkout stays as it is."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, so no wheel can be built without a network")
    copy, output = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
        elif path.name in ("modeling_denseclip", "training", "tests", "configuration"):
            shutil.copytree(path, copy / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "."]
    result = subprocess.run([*command, "--wheel-dir", str(output)], cwd=copy, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = output.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())


def test_wheel_requires_what_the_package_imports(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = wheel.read(name).decode("utf-8")
    requirements = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, flags=re.MULTILINE)
    assert "License-Expression: Apache-2.0" in metadata
    assert {"transformers", "torch", "datasets", "evaluate", "accelerate", "safetensors", "numpy", "pillow"} <= {
        requirement.lower() for requirement in requirements
    }
    assert "opencv-python-headless" not in requirements, "training needs it, the package does not"
