"""Links of the pages lead somewhere, names that they mention exist, and their blocks are run."""

import hashlib
import pydoc
import re
import shutil
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from modeling_denseclip import DenseCLIPImageProcessor
from modeling_denseclip.tools.command import SUB_COMMANDS
from tests.hub_server import WRITE_TOKEN, HubServer
from tests.pages import (
    CLIP,
    LANGUAGES,
    OUR_PACKAGES,
    Reader,
    check_command,
    check_python,
    find_our_module,
    prepare,
    read_blocks,
    read_commands,
    read_options,
    reason_not_to_run,
    run_blocks,
)
from tests.test_hub import make_environment
from tests.tiny import draw_picture, tiny_config
from training.model_card import RECIPES, build_model_card
from training.publishing import export
from training.publishing.export import ExportableDenseCLIP
from training.publishing.formats import OnnxFormat, TorchFormat


matplotlib.use("agg")

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for folder in (".", "docs", "benchmarks", "configuration", "model_cards", "model_cards/space")
    for path in (ROOT / folder).glob("*.md")
)
FOLDERS = ("benchmarks", "configuration", "docs", "model_cards", "modeling_denseclip", "tests", "training")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them of titles."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in LINK.findall(without_code(page)):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors_of(target), f"{link}: no such title"


def test_every_page_is_in_the_readme():
    links = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(without_code(ROOT / "README.md"))}
    missing = {path for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")} - links
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_modules_that_are_run_exist(page):
    for package, verb in re.findall(r"python -m (training|benchmarks)\.(\w+)", page.read_text(encoding="utf-8")):
        assert (ROOT / package / f"{verb}.py").is_file(), f"python -m {package}.{verb}"


# ------------------------------------------------------------------------------------------------- names in the text

OPTIONS_OF_OTHERS = {"--config_file"}  # of `accelerate launch`
PAGES_WITH_TEXT = [page for page in PAGES if page.parent.name != "model_cards"]


def read_code_spans(page: Path) -> list[str]:
    """What stands in the text as code; a span may go on in the next line."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


@lru_cache
def read_all_options() -> set[str]:
    verbs = [path for path in (ROOT / "training").glob("*.py") if "__main__" in path.read_text(encoding="utf-8")]
    options = [read_options(f"training.{path.stem}") for path in verbs]
    options += [read_options("modeling_denseclip.tools.command", name) for name in SUB_COMMANDS]
    return OPTIONS_OF_OTHERS.union(*options)


@pytest.mark.parametrize("page", PAGES_WITH_TEXT, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_options_files_and_names_in_the_text_exist(page):
    for span in read_code_spans(page):
        words = span.split()
        if find_our_module(words) and "<" not in span:  # `training.<verb>` is any
            check_command(words)
        elif span.startswith("--"):
            unknown = {word.split("=")[0] for word in words if word.startswith("--")} - read_all_options()
            assert not unknown, f"no command of ours takes {', '.join(unknown)}"
        elif re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]+", span):
            assert (ROOT / span).exists(), f"{span} is not there"
        elif re.fullmatch(rf"({'|'.join(OUR_PACKAGES)})(\.\w+)+", span):
            assert pydoc.locate(span) is not None, f"{span} cannot be imported"


# ---------------------------------------------------------------------------------------------------------- the blocks

CARDS_OF_ROWS = {ROOT / "model_cards" / f"{path.stem}.md" for path in RECIPES.glob("*.yaml")}
# What the reader of a page has, by its names in the page; each also has a checkout.
PAGES_WITH_BLOCKS = {
    "CONTRIBUTING.md": (),  # pictures of the imports, which tests/test_package.py compares
    "README.md": ("path/or/hub-repo", "photo.jpg", "photos", "downloads", CLIP),
    "benchmarks/README.md": (),
    "benchmarks/complexity.md": ("CONFIG",),
    "configuration/README.md": ("ADEChallengeData2016", "RN50.pt", "denseclip_fpn_r50.pth", "classes.txt", CLIP),
    "docs/backbones.md": (CLIP, "facebook/dinov2-base", "microsoft/resnet-50"),
    "docs/ecosystem.md": ("mine",),
    "docs/export.md": ("mine", "street.jpg"),
    "docs/looking.md": ("MODEL", "photo.jpg", "photos", "more", "drive.mp4"),
    "docs/serving.md": ("mine",),
    "docs/model.md": (
        *("photo.jpg", "street.jpg", "ids.png", "outputs/denseclip_fpn_rn50", "RN50.pt", "denseclip_fpn_r50.pth"),
        *("classes.txt", CLIP),
    ),
    "docs/special_data.md": ("mask.png", "my_data", "mine", "scan.tif", CLIP),
    "docs/training.md": ("ADEChallengeData2016",),
    "model_cards/README.md": (),
    "model_cards/TEMPLATE.md": ("path/or/hub-repo", "photo.jpg"),
}
TUTORIAL = "docs/your_own_data.md"  # tests/test_tutorial.py runs it in processes, as it is typed


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def read_page(page: Path) -> str:
    if page.name == "TEMPLATE.md":
        return str(build_model_card(tiny_config("vit"), DenseCLIPImageProcessor(), repo_id="path/or/hub-repo"))
    return page.read_text(encoding="utf-8")


def test_every_page_with_blocks_is_run():
    with_blocks = {name_of(page) for page in PAGES if page not in CARDS_OF_ROWS and read_blocks(read_page(page))}
    assert with_blocks == {*PAGES_WITH_BLOCKS, TUTORIAL}


def check_blocks(page: str):
    """Every block says what it is and is run, or says why not; and what is not run could be, as far as one can see."""
    previous = None
    for block in read_blocks(page):
        assert block.language in LANGUAGES, f"line {block.line}: say ```python, ```bash, ```yaml or ```text"
        if block.language == "python":
            check_python(block)
        elif block.language == "bash":
            commands = read_commands(block)
            for words in commands:
                check_command(words)
            for start in filter(None, block.not_run):
                alone = block._replace(not_run={start: "is it there?"})
                assert any(reason_not_to_run(alone, words) for words in commands), f"no command begins {start}"
        elif block.language == "text" and not block.not_run:
            assert previous in ("bash", "python"), f"line {block.line}: nothing before it prints this"
        previous = block.language


@pytest.mark.parametrize("name", [*PAGES_WITH_BLOCKS, TUTORIAL])
def test_blocks_are_run_or_say_why_not(name):
    check_blocks(read_page(ROOT / name))


@pytest.mark.parametrize(
    "page, said",
    [
        ("```\nls\n```\n", "say ```python"),
        ("- a list\n  ```bash\n  ls\n  ```\n", "indented"),
        ("```bash\nls\n", "never closed"),
        ("```text\n8 done\n```\n", "nothing before it prints this"),
        ("<!-- not run: -->\n```bash\nls\n```\n", "A reason, in words"),
        ("<!-- not run: `pip install`: needs the network -->\n```bash\nls\n```\n", "no command begins pip install"),
        ("<!-- not run: needs a GPU -->\n```bash\npython -m training.trian --data_dir d\n```\n", "no training.trian"),
        ("```bash\npython -m training.train --data_dir d \\\n    --clipp none\n```\n", "there is no --clipp"),
        ("```bash\naccelerate launch -m training.train a.yaml --data-dirs d\n```\n", "there is no --data-dirs"),
        ("```bash\nOMP_NUM_THREADS=1 python -m benchmarks.gpu --sides 1\n```\n", "there is no --sides"),
        ("```bash\npython training/run_onnx.py m.onnx a.jpg --out b\n```\n", "there is no --out"),
        ("```bash\ndenseclip predict a.jpg --model m --output b\n```\n", "there is no --output"),
        ('```bash\npip install ".[trains]"\n```\n', "no extra 'trains'"),
        ("```bash\nmake tests\n```\n", "no target 'tests'"),
        ("```python\nfrom modeling_denseclip import plot_everything\n```\n", "has no plot_everything"),
    ],
)
def test_a_block_with_a_mistake_is_found_without_running_it(page, said):
    with pytest.raises(AssertionError, match=re.escape(said)):
        check_blocks(page)


def test_a_reason_is_of_the_block_or_of_some_commands():
    page = "Text.\n\n<!-- not run: `ls -l`: why a -->\n<!-- not run: `b`: why b -->\n"
    page += "```bash\nls -l x  # c\nls\nbc\nb\n```\n"
    (block,) = read_blocks(page)
    assert (block.before, block.line) == ("Text.", 6)
    reasons = [reason_not_to_run(block, words) for words in read_commands(block)]
    assert reasons == ["why a", None, None, "why b"]
    (block,) = read_blocks("<!-- not run: it is long -->\n```bash\nls\n```\n")
    assert reason_not_to_run(block, ["ls"]) == "it is long"


@pytest.mark.parametrize(
    "page, error, said",
    [
        ("```bash\ncp there_is_no_such_file b\n```\n", AssertionError, "there_is_no_such_file"),
        ("```bash\npython -m training.complexity no.json\n```\n", ValueError, "no.json"),
        ("```bash\ndenseclip info no_model\n```\n", AssertionError, "info"),
        ("```python\nimage.size\n```\n", NameError, "image"),
        ("```bash\necho 3 classes\n```\n\n```text\n4 classes\n```\n", AssertionError, "'4 classes' was not printed"),
    ],
)
def test_a_block_that_fails_is_found_by_running_it(page, error, said, tmp_path):
    reader = Reader("a page", {}, {})
    with pytest.raises(error, match=said):
        run_blocks(read_blocks(page), tmp_path, reader.run_shell, reader.run_python)


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        yield hub


WRITTEN: dict[tuple, bytes] = {}


def write_once(
    module: ExportableDenseCLIP, file_format: OnnxFormat | TorchFormat, path: Path, write=export.write
) -> None:
    """`write` of the export, which takes ten seconds: two pages export the same model in the same way."""
    weights = sorted((name, tensor.numpy().tobytes()) for name, tensor in module.state_dict().items())
    key = (isinstance(file_format, OnnxFormat), module.output, hashlib.sha256(repr(weights).encode()).digest())
    if key not in WRITTEN:
        write(module, file_format, path)
        WRITTEN[key] = path.read_bytes()
    path.write_bytes(WRITTEN[key])


@pytest.mark.parametrize("name", PAGES_WITH_BLOCKS)
def test_every_block_runs(name, hub, tmp_path, monkeypatch):
    blocks = read_blocks(read_page(ROOT / name))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    prepare(folder, PAGES_WITH_BLOCKS[name])
    # Cards are written into the checkout; this is another.
    cards = shutil.copytree(ROOT / "model_cards", folder / "model_cards")
    monkeypatch.setattr("training.model_card.CARDS", cards)
    # Two architectures of all.
    models = folder / "two_models"
    models.mkdir()
    for stem in ("clip_fpn_rn50", "denseclip_fpn_small"):
        shutil.copy(ROOT / "configuration" / "models" / f"{stem}.json", models)
    monkeypatch.setattr("training.complexity.MODELS", models)
    monkeypatch.setattr(export, "write", write_once)
    names = {}
    if name == "docs/ecosystem.md":
        examples = [
            {"image": draw_picture(104, 72, seed), "label": np.full((72, 104), seed % 5, np.uint8)}
            for seed in range(4)
        ]
        names = {"pixel_values": torch.rand(1, 3, 96, 64), "train_dataset": examples, "eval_dataset": examples}
    reader = Reader(name, make_environment(hub, tmp_path, WRITE_TOKEN), names)
    run_blocks(blocks, folder, reader.run_shell, reader.run_python)
