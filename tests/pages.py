"""
The pages for people as programs: their fenced blocks, who runs them, and what a reader has who types them.

A block says what it is (see `LANGUAGES`) and is run, in the order of its page. One that cannot be run by a test has
its reason on the line above, in a comment that readers do not see:

    <!-- not run: needs eight GPUs -->
    <!-- not run: `pip install`: needs the network -->

The first speaks of the whole block, the second of the commands of the block that begin so.
"""

import ast
import contextlib
import functools
import importlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model, ResNetConfig, ResNetModel

from modeling_denseclip import DenseCLIPImageProcessor, tokenize_class_names
from modeling_denseclip.tools.command import SUB_COMMANDS
from tests.fixtures import openai_clip_fixtures
from tests.foreign import make_scenes, write_roboflow_masks
from tests.hub_server import USER
from tests.parity import load_fixture
from tests.test_conversion import write_torchscript
from tests.tiny import (
    draw_picture,
    make_tiny_tokenizer,
    save_checkpoint,
    save_exported_model,
    save_tiny_architecture,
    save_tiny_dataset,
    tiny_config,
    tiny_model,
)
from tests.warm import warm_python


ROOT = Path(__file__).resolve().parents[1]
CLIP = "openai/clip-vit-base-patch16"
LANGUAGES = ("python", "bash", "yaml", "js", "text", "bibtex", "mermaid")
OUR_PACKAGES = ("modeling_denseclip", "training", "benchmarks")


# ---------------------------------------------------------------------------------------------------------- the blocks


class Block(NamedTuple):
    language: str
    text: str
    line: int  # of the page, of the first line of the text
    before: str  # the line of the page that stands above it
    not_run: dict[str, str]  # why not: by the beginning of the commands, "" being the whole block


def read_blocks(page: str) -> list[Block]:
    """
    All fenced blocks, in order.

    Raises:
        AssertionError: for a fence that is never closed or is indented, which nothing would run.
    """
    blocks = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE):
        *lines, last = page[: match.start()].rstrip().split("\n")
        not_run = {}
        while comment := re.fullmatch(r"<!-- not run: *(?:`([^`]+)`: *)?(.*?) *-->", last):
            assert len(comment[2].split()) > 1, f"A reason, in words: {last}"
            not_run[comment[1] or ""] = comment[2]
            last = next((line for line in reversed(lines) if line), "")
            lines = lines[: -1 - lines[::-1].index(last)] if last else []
        line = page.count("\n", 0, match.start()) + 2
        blocks.append(Block(match[1], match[2], line, last, not_run))
    fences = re.findall(r"^[ >]*(?:```|~~~)", page, flags=re.MULTILINE)
    assert len(fences) == 2 * len(blocks), "A fence is indented, is never closed, or has no language alone behind it."
    return blocks


def read_commands(block: Block) -> list[list[str]]:
    """The commands of a shell block, as words: without comments, and continued lines joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def reason_not_to_run(block: Block, words: list[str]) -> str | None:
    """Why the page says that this command is not run, if it does."""
    typed = " ".join(words)
    starts = [start for start in block.not_run if typed == start or typed.startswith(f"{start} ") or not start]
    return block.not_run[starts[0]] if starts else None


def is_printed(expected: str, lines: list[str]) -> bool:
    """Whether one of the lines is as expected, but for decimals, which were measured elsewhere; `...` is anything."""
    parts = re.split(r"(\.\.\.|\d+\.\d+)", " ".join(expected.split()))
    for index in range(1, len(parts), 2):
        parts[index] = ".*" if parts[index] == "..." else r"\d+\.\d+"
    parts[::2] = map(re.escape, parts[::2])
    return any(re.fullmatch("".join(parts), " ".join(line.split())) for line in lines)


def run_blocks(
    blocks: Iterable[Block], folder: Path, run_shell: Callable[[Block], str], run_python: Callable[[Block], str]
):
    """
    Go through a page as a reader would: run commands and code, write the files that it shows, and compare what it says
    is printed with what the block before has printed.
    """
    printed = ""
    for block in blocks:
        if "" in block.not_run or block.language in ("bibtex", "mermaid"):
            continue
        if block.language == "bash":
            printed = run_shell(block)
        elif block.language == "python":
            printed = run_python(block)
        elif block.language == "yaml":
            (name,) = re.findall(r"`(\S+\.yaml)`:$", block.before)
            (folder / name).write_text(block.text, encoding="utf-8")
        else:
            assert block.language == "text", f"Say of what language the block of line {block.line} is:\n{block.text}"
            lines = re.split(r"[\r\n]", printed)
            for expected in block.text.splitlines():
                assert is_printed(expected, lines), f"{expected!r} was not printed, but\n{printed}"


def run_to_its_end(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """In a process of its own. The end has to be a good one; returns what was written."""
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, f"{command[-1]}\n{result.stdout}"
    return result.stdout


# ------------------------------------------------------------------------------------------------------- our commands


def find_our_module(words: list[str]) -> tuple[str, list[str]] | None:
    """The module of ours that a command runs, and the words that are its arguments."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[:2] == ["taskset", "-c"]:
        words = words[3:]
    if words[:2] == ["accelerate", "launch"]:
        # Its own options take a value each.
        start = next((index for index in range(2, len(words), 2) if words[index] == "-m"), len(words))
        words = ["python", *words[start:]]
    if words[:1] == ["denseclip"]:
        return "modeling_denseclip.tools.command", words[1:]
    if words[:1] != ["python"]:
        return None
    is_module = words[1:2] == ["-m"]
    name, *arguments = words[1 + is_module :] or [""]
    module = name if is_module else name.removesuffix(".py").replace("/", ".")
    return (module, arguments) if module.split(".")[0] in OUR_PACKAGES else None


def call_main(module: str, arguments: list[str]) -> str:
    """What `python -m MODULE ARGUMENTS` does, in this process, to a good end; returns what was printed."""
    output, before = io.StringIO(), sys.argv
    sys.argv = [module, *arguments]
    try:
        with contextlib.redirect_stdout(output):
            result = importlib.import_module(module).main()
    except SystemExit as end:
        result = end.code
    finally:
        sys.argv = before
    assert not isinstance(result, int | str) or result == 0, f"{module} {arguments}: {result}\n{output.getvalue()}"
    return output.getvalue()


@functools.cache
def read_options(module: str, *sub_command: str) -> set[str]:
    """The options that the help of a command lists."""
    printed = call_main(module, [*sub_command, "--help"])
    return set(re.findall(r"(?<![\w-])--\w[\w-]*", printed))


def check_command(words: list[str]):
    """
    That a command could be run: its options are ones of the program, its extras and targets exist. For those that are
    not run here, and for those in the text.
    """
    found = find_our_module(words)
    if found is not None:
        module, arguments = found
        assert importlib.util.find_spec(module), f"There is no {module}"
        sub_command = [word for word in arguments[:1] if module.endswith("tools.command") and word in SUB_COMMANDS]
        options = {word.split("=")[0] for word in arguments if word.startswith("--")}
        unknown = options - read_options(module, *sub_command)
        assert not unknown, f"{' '.join(words)}: there is no {', '.join(sorted(unknown))}"
    elif words[:2] == ["pip", "install"]:
        setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
        for extra in re.findall(r"\w+", " ".join(re.findall(r"\[(.*?)\]", " ".join(words)))):
            assert re.search(rf"^{extra} =$", setup, flags=re.MULTILINE), f"setup.cfg has no extra {extra!r}"
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (word for word in words[1:] if re.fullmatch(r"[a-z-]+", word)):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"The Makefile has no target {target!r}"


def check_python(block: Block):
    """That the code compiles, and that what it imports from us exists."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OUR_PACKAGES:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"line {block.line}: {node.module} has no {alias.name}"


# --------------------------------------------------------------------------------------- what is made small, and how

# Words behind those of the page, which override them: two steps on small crops stand for a long run, without a GPU
# and without processes that load pictures. The figures of `training.complexity` are those of small images.
SHORTER = {
    "training.train": "--max_steps 2 --per_device_train_batch_size 2 --short_side 64 --crop_size 64 --use_cpu true"
    " --dataloader_num_workers 0 --preprocessing_num_workers 1",
    "training.evaluate": "--use_cpu true --dataloader_num_workers 0 --preprocessing_num_workers 1",
    "training.complexity": "--size 64 64",
}
# A recipe names an architecture of a hundred million weights and CLIP's weights for it.
SHORTER_RECIPE = "--config tiny/model.json --tokenizer tiny/tokenizer --clip none"


def make_shorter(module: str, arguments: list[str]) -> list[str]:
    words = SHORTER.get(module, "").split()
    if module == "training.train" and arguments[0].endswith(".yaml"):
        words += SHORTER_RECIPE.split()
    return [*arguments, *words]


class Reader:
    """
    Somebody who types the blocks of a page into one shell and one Python, in the current folder. Our commands are
    called in this process, since a new one takes ten seconds to import PyTorch; other programs, and what speaks to the
    Hub, are processes.

    Args:
        hub_environment (`dict[str, str]`): of processes, with a Hub on which the reader has an account.
        names (`dict`): what the page speaks of without a definition.
    """

    def __init__(self, page: str, hub_environment: dict[str, str], names: dict):
        self.page = page
        self.names = {"__name__": "__main__", **names}
        self.hub_environment = {**hub_environment, "PYTHONPATH": str(ROOT)}

    def run_shell(self, block: Block) -> str:
        commands = read_commands(block)
        if not block.not_run and not any(map(find_our_module, commands)):
            return run_to_its_end(["bash", "-euo", "pipefail", "-c", block.text], Path.cwd())
        return "".join(self.run_command(words) for words in commands if reason_not_to_run(block, words) is None)

    def run_command(self, words: list[str]) -> str:
        found = find_our_module(words)
        if found is None:
            return run_to_its_end(words, Path.cwd())
        module, arguments = found
        if module == "training.push":
            arguments = [re.sub(r"^you/", f"{USER}/", word) for word in arguments]
            return run_to_its_end([*warm_python(), "-m", module, *arguments], Path.cwd(), self.hub_environment)
        return call_main(module, make_shorter(module, arguments))

    def run_python(self, block: Block) -> str:
        # Empty lines before it: an error then names the line of the page.
        code = compile("\n" * (block.line - 1) + block.text, self.page, "exec")
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(code, self.names)
        plt.close("all")
        return output.getvalue()


# ------------------------------------------------------------------------------------------------ what the reader has

CLASS_NAMES = ("wall", "sky", "road", "sidewalk", "person")
# A published text tower has 13 positions: names of one token each.
PUBLISHED_CLASS_NAMES = ("wall", "sky", "person", "a", "b", "c", "d", "e", "f", "g", "h")


def save_clip_stand_in(folder: Path, **vision_fields):
    """CLIP's ViT-B/16 in small and with random weights."""
    torch.manual_seed(0)
    towers = {name: getattr(tiny_config("vit"), name).to_dict() for name in ("text_config", "vision_config")}
    towers["vision_config"] |= vision_fields
    CLIPModel(CLIPConfig(**towers, projection_dim=32)).save_pretrained(folder)
    make_tiny_tokenizer().save_pretrained(folder)


def save_model(folder: Path):
    """A checkpoint that segments into `CLASS_NAMES`."""
    token_ids = tokenize_class_names(CLASS_NAMES, make_tiny_tokenizer())
    model = tiny_model(
        "shallow vit",
        id2label=dict(enumerate(CLASS_NAMES)),
        class_token_ids=token_ids,
        prompting_mode="language",
    )
    save_checkpoint(model, DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 256}), folder)


def save_openai_archive(path: Path):
    """`RN50.pt` as OpenAI published it, a TorchScript archive, in small and with the vocabulary of our tokenizer."""
    arrays, _ = openai_clip_fixtures.load("resnet")
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    tensors["token_embedding.weight"] = torch.randn(len(make_tiny_tokenizer()), 32)
    tensors |= {"input_resolution": torch.tensor(64), "context_length": torch.tensor(77)}
    write_torchscript(tensors, path)


def save_published_checkpoint(path: Path):
    """A released DenseCLIP in small, with the vocabulary of our tokenizer."""
    case = load_fixture("denseclip-resnet")
    state_dict = dict(case.state_dict)
    name = "text_encoder.token_embedding.weight"
    state_dict[name] = torch.randn(len(make_tiny_tokenizer()), state_dict[name].shape[1])
    class_names = PUBLISHED_CLASS_NAMES[: len(case.fields["id2label"])]
    torch.save({"meta": {"CLASSES": class_names}, "state_dict": state_dict}, path)


def save_ade20k(folder: Path):
    """Of ADE20K's form: 0 is unlabelled, and 1 to 150 are the classes."""
    generator = np.random.default_rng(0)
    for split, count in (("training", 4), ("validation", 1)):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            draw_picture(96, 64, index).save(folder / "images" / split / f"ADE_{split}_{index}.jpg")
            ids = generator.integers(0, 151, (64, 96)).astype(np.uint8)
            Image.fromarray(ids).save(folder / "annotations" / split / f"ADE_{split}_{index}.png")


def save_video(path: Path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, (96, 64))
    for seed in range(3):
        writer.write(np.asarray(draw_picture(96, 64, seed))[..., ::-1])
    writer.release()


def save_backbone(model: torch.nn.Module, folder: Path):
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]})
    )


def save_checkout(folder: Path):
    """What a command names of a checkout: recipes, and architectures in small."""
    shutil.copytree(ROOT / "configuration" / "recipes", folder / "configuration" / "recipes")
    shutil.copytree(ROOT / "training" / "metrics", folder / "training" / "metrics")
    models = folder / "configuration" / "models"
    models.mkdir()
    small = {"context_decoder_hidden_size": 32, "neck_hidden_size": 16, "decode_head_hidden_size": 16}
    (models / "denseclip_fpn_rn50.json").write_text(json.dumps(small))
    (folder / "tiny").mkdir()
    save_tiny_architecture(folder / "tiny", "resnet")
    shutil.copy(folder / "tiny" / "model.json", models / "denseclip_fpn_small.json")


THINGS: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys(("photo.jpg", "street.jpg"), lambda path: draw_picture(640, 480).save(path)),
    "photos": lambda path: [draw_picture(96, 64, seed).save(path / f"{seed}.jpg") for seed in range(2)],
    "more": lambda path: [
        ((path / name).mkdir(), draw_picture(96, 64).save(path / name / "left.png")) for name in ("a", "b")
    ],
    "drive.mp4": save_video,
    "ids.png": lambda path: Image.fromarray(np.kron([[0, 1], [2, 255]], np.ones((240, 320))).astype(np.uint8)).save(
        path
    ),
    "mask.png": lambda path: Image.fromarray(np.kron([[0, 255], [255, 0]], np.ones((240, 320))).astype(np.uint8)).save(
        path
    ),
    "scan.tif": lambda path: Image.fromarray(np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16)).save(
        path
    ),
    "classes.txt": lambda path: path.write_text("\n".join(CLASS_NAMES)),
    "my_data": lambda path: save_tiny_dataset(path, training=4, validation=1),
    "downloads": lambda path: write_roboflow_masks(path, make_scenes(4, 1)),
    "ADEChallengeData2016": save_ade20k,
    CLIP: save_clip_stand_in,
    "facebook/dinov2-base": lambda path: save_backbone(
        Dinov2Model(Dinov2Config(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, image_size=64)), path
    ),
    "microsoft/resnet-50": lambda path: save_backbone(
        ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1])), path
    ),
    **dict.fromkeys(("path/or/hub-repo", "MODEL", "CONFIG", "outputs/denseclip_fpn_rn50"), save_model),
    "mine": save_exported_model,
    "RN50.pt": save_openai_archive,
    "denseclip_fpn_r50.pth": save_published_checkpoint,
}


def prepare(folder: Path, things: Iterable[str]):
    """Put things into the reader's folder: by their names, which on the Hub are names of repositories."""
    save_checkout(folder)
    for name in things:
        path = folder / name
        (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
        if name in ("my_data", "ADEChallengeData2016"):
            path.rmdir()
        THINGS[name](path)
