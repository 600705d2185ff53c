# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""`denseclip info`: every fact of a checkpoint, counted another way."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.command import main
from modeling_denseclip.tools.commands.info import collect, format_facts, read_card, read_weights
from tests.hub_server import USER, HubServer
from tests.tiny import TINY_CLASS_NAMES, draw_picture, make_tiny_tokenizer, save_checkpoint, tiny_model
from tests.warm import warm_python


CARD = """---
license: other
license_name: for-looking-at
base_model: [openai/clip-rn50, someone/else]
---
# A model
"""
TEXT_SIDE = ("text_encoder.", "text_projection.")


@pytest.fixture(scope="module")
def model() -> DenseCLIPForSemanticSegmentation:
    model = tiny_model("resnet")
    model.tokenizer = make_tiny_tokenizer()
    return model


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    DenseCLIPImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy, to be changed."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture(scope="module")
def facts(saved) -> dict:
    return collect(str(saved))


def lines_of(facts: dict, shows_all: bool = False) -> dict[str, str]:
    """Name of a line -> what it says."""
    return {line[:15].strip(): line[15:] for line in format_facts(facts, shows_all).splitlines()}


def test_facts_are_those_of_the_model(model, facts):
    assert facts["classes"] == list(TINY_CLASS_NAMES)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    text = sum(size for name, size in sizes.items() if name.startswith(TEXT_SIDE))
    assert facts["parameters"] == {"total": sum(sizes.values()), "image": sum(sizes.values()) - text, "text": text}
    tensors = list(model.state_dict().values())
    assert facts["weights"]["bytes"] == sum(tensor.nbytes for tensor in tensors)
    assert facts["weights"]["numbers"] == {
        "float32": sum(tensor.numel() for tensor in tensors if tensor.dtype == torch.float32),
        "I64": sum(tensor.numel() for tensor in tensors if tensor.dtype == torch.int64),
    }
    assert facts["image_encoder"]["depths"] == [1, 2, 1, 1] and facts["decode_head"]["type"] == "semantic_fpn"
    assert facts["images"]["size"] == {"shortest_edge": 96, "longest_edge": 160} and facts["window"] is None
    assert (facts["multiply_adds"]["height"], facts["multiply_adds"]["width"]) == (96, 96)


def test_lines_for_people(facts):
    lines = lines_of(facts)
    assert lines["Image encoder"] == "CLIP's ResNet, blocks per stage 1, 2, 1, 1, width of the stem 8"
    assert lines["Language"].startswith("CLIP's text tower, layers 2, width 32; in each prompt 8 learned")
    assert lines["Prompting"].startswith("post-model")
    assert lines["Classes"] == f"5: {', '.join(TINY_CLASS_NAMES)}"
    assert lines["Images"] == "the short side 96 pixels, the long one at most 160; CLIP's mean and deviation"
    assert lines["Seen"] == "as a whole" and lines["Weights"].endswith("MB, float32")
    assert lines["Licence"] == lines["Base model"] == "none is stated"


NEW_IN_A_VIT = {"pyramid", "context decoder", "decode head", "auxiliary head"}


@pytest.mark.parametrize(
    ("kind", "overrides", "new"),
    [
        ("resnet", {}, {"context decoder", "decode head"}),
        ("vit", {"use_auxiliary_head": True}, NEW_IN_A_VIT),
        ("resnet", {"decode_head_type": "upernet", "prompting_mode": "language"}, {"decode head", "auxiliary head"}),
        ("resnet", {"prompting_mode": "pre_model"}, {"context decoder", "decode head"}),
        ("vit", {"use_language": False}, {"pyramid", "decode head"}),
    ],
)
def test_what_is_trained(kind, overrides, new, tmp_path):
    """As made, the towers as if they were pretrained; after one step of everything; after a step of the head alone."""
    model = tiny_model(kind, **overrides)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("text_encoder", "image_encoder")) and "pyramid" not in name:
                parameter.add_(0.01)
    if overrides.get("use_language", True):
        model.remember_untrained_contexts()
    towers = {"image encoder", "text tower"} if overrides.get("use_language", True) else {"image encoder"}

    def states():
        model.save_pretrained(tmp_path)
        facts = collect(str(tmp_path), size=(64, 64))
        return facts["is_trained"], {name: part["state"] for name, part in facts["parts"].items()}, facts

    is_trained, found, facts = states()
    assert not is_trained and {name for name, state in found.items() if state == "learned"} == towers
    assert {name for name, state in found.items() if state == "initial"} - {"contexts"} == new
    assert found.get("neck") is None
    assert "not trained on masks yet" in lines_of(facts)["Model"]

    def train(parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        labels = torch.randint(0, 5, (2, 64, 64))
        model.train()(torch.rand(2, 3, 64, 64), labels=labels).loss.backward()
        optimizer.step()

    train(model.decode_head.parameters())
    is_trained, found, facts = states()
    assert is_trained and "not trained" not in lines_of(facts)["Model"]
    assert {name for name, state in found.items() if state == "initial"} - {"contexts"} == new - {"decode head"}
    assert facts["parts"]["decode head"]["batches"] == 1
    assert "decode head: yes, batches seen 1" in lines_of(facts)["Trained"]

    train(model.parameters())
    is_trained, found, facts = states()
    assert is_trained and "initial" not in found.values()
    assert facts["parts"]["decode head"]["batches"] == 2


def test_random_towers_and_weights_that_are_not_there(folder):
    facts = collect(str(folder))
    assert facts["is_trained"] is False
    assert facts["parts"]["image encoder"]["state"] == facts["parts"]["text tower"]["state"] == "initial"
    assert "image encoder, text tower, context decoder, decode head: no" in lines_of(facts)["Trained"]
    (folder / "model.safetensors").unlink()
    facts = collect(str(folder))
    assert facts["is_trained"] is None and {part["state"] for part in facts["parts"].values()} == {None}


def test_the_card_states_licence_and_base_model(folder, facts):
    (folder / "README.md").write_text(CARD)
    lines = lines_of({**facts, **read_card(str(folder), "main")})
    assert lines["Licence"] == "other: for-looking-at"
    assert lines["Base model"] == "openai/clip-rn50, someone/else"


def test_only_the_heads_of_the_weights_are_read(model, folder, facts):
    weights = folder / "model.safetensors"
    length = int.from_bytes(weights.read_bytes()[:8], "little")
    weights.write_bytes(weights.read_bytes()[: 8 + length])
    assert read_weights(str(folder), "main") == facts["weights"]

    weights.unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert read_weights(str(folder), "main") == facts["weights"]


def test_the_type_is_that_of_the_files(folder, facts):
    DenseCLIPForSemanticSegmentation.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    weights = read_weights(str(folder), "main")
    assert lines_of({**facts, "weights": weights})["Weights"].endswith("MB, bfloat16")
    integers = 8 * facts["weights"]["numbers"]["I64"]
    assert weights["bytes"] - integers == (facts["weights"]["bytes"] - integers) / 2


def test_the_command_says_what_is_not_there(folder, capsys):
    (folder / "model.safetensors").unlink()
    (folder / "preprocessor_config.json").unlink()
    assert main(["info", str(folder), "--size", "64", "128"]) == 0
    printed = capsys.readouterr().out
    assert "Weights        no safetensors are there\n" in printed and "Images         unknown: " in printed
    assert " for an image of 64 x 128 pixels" in printed


def test_broken_files_are_named(folder, capsys):
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n")
    assert main(["info", str(folder)]) == 2
    assert f"README.md of {folder}, is no valid YAML" in capsys.readouterr().err
    (folder / "model.safetensors").write_bytes(b"no weights")
    assert main(["info", str(folder)]) == 2
    assert f"The weights of {folder} are broken" in capsys.readouterr().err


def test_other_architectures(tmp_path):
    """Without language, by windows, with a backbone of Transformers and many classes; from the config alone."""
    DenseCLIPConfig(
        vision_config={"model_type": "resnet", "depths": (1, 1, 1, 1), "hidden_sizes": (8, 16, 24, 32)},
        use_language=False,
        inference_mode="slide",
        window_size=(64, 96),
        window_stride=(32, 48),
        id2label={index: f"class {index}" for index in range(12)},
    ).save_pretrained(tmp_path)
    facts = collect(str(tmp_path), size=(64, 64))
    lines = lines_of(facts)
    assert lines["Image encoder"].startswith("ResNet, blocks per stage 1, 1, 1, 1, ")
    assert "widths 8, 16, 24, 32" in lines["Image encoder"]
    assert lines["Language"].startswith("none") and "Prompting" not in lines
    assert lines["Classes"].endswith("class 9, and 2 more (--all)")
    assert lines["Seen"] == "by windows of 64 x 96 pixels, in steps of 32 and 48 (height and width)"
    assert lines_of(facts, shows_all=True)["Classes"].endswith("class 10, class 11")


@pytest.mark.parametrize(
    "name, message",
    [("./nowhere", "neither a folder nor"), ("empty", "no config.json"), ("clip", "no DenseCLIP.*'clip'")],
)
def test_other_things_are_no_model(tmp_path, monkeypatch, capsys, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text('{"model_type": "clip"}')
    assert main(["info", name]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.startswith("error: ")


def test_an_image_that_is_too_small(saved, capsys):
    assert main(["info", str(saved), "--size", "31", "64"]) == 2
    assert "31 x 64" in capsys.readouterr().err


def test_of_a_repository_no_weights_are_kept(folder, facts, tmp_path):
    """The facts of the folder, from a Hub, whose revision is asked for; no code and no weights come into the cache."""
    (folder / "README.md").write_text(CARD)
    with HubServer() as hub:
        sha = hub.add_files("model", f"{USER}/mine", {path.name: path.read_bytes() for path in folder.iterdir()})
        hub.add_files("model", f"{USER}/mine", {"config.json": b"{}"})
        ended = subprocess.run(
            [*warm_python(), "-m", "modeling_denseclip.tools.command", "info", f"{USER}/mine", "--json"]
            + ["--revision", sha],
            env={**os.environ, **hub.environment(tmp_path / "home")},
            capture_output=True,
            text=True,
        )
        asked = [request.path for request in hub.requests]
    assert ended.returncode == 0, ended.stderr
    parts = {name: {"state": None, "batches": None} for name in facts["parts"]}
    expected = {**facts, **read_card(str(folder), "main"), "model": f"{USER}/mine", "is_trained": None, "parts": parts}
    assert json.loads(ended.stdout) == json.loads(json.dumps(expected))
    kept = {path.name for path in (tmp_path / "home").rglob("*")}
    assert "config.json" in kept and "model.safetensors" not in kept
    assert not any(path.endswith(".py") for path in asked)


@pytest.mark.parametrize("command", ["info", "predict"])
def test_a_shard_elsewhere_is_not_read(tmp_path, capsys, command):
    folder = tmp_path / "model"
    save_checkpoint(tiny_model("resnet"), DenseCLIPImageProcessor(), folder, max_shard_size="200KB")
    index = folder / "model.safetensors.index.json"
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.rename(tmp_path / shard.name)
    index.write_text(index.read_text().replace("model-00001-of", "../model-00001-of"))
    draw_picture(96, 64).save(tmp_path / "a.png")
    words = {
        "info": [str(folder)],
        "predict": [str(tmp_path / "a.png"), "--model", str(folder), "--out", str(tmp_path)],
    }
    assert main([command, *words[command]]) == 2
    assert "which is not in" in capsys.readouterr().err


def test_a_named_pipe_in_place_of_weights_is_not_waited_for(tmp_path, capsys):
    folder = save_checkpoint(tiny_model("resnet"), DenseCLIPImageProcessor(), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    assert main(["info", str(folder)]) == 2
    assert "model.safetensors is no regular file" in capsys.readouterr().err
