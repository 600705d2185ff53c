"""Weights of CLIP in all of its forms and of the published DenseCLIP, and the command that converts them."""

import argparse
import json
import math
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModelForSemanticSegmentation,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPVisionModel,
    PreTrainedTokenizerBase,
    pipeline,
)
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.quantizers import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip import conversion_denseclip as conversion
from modeling_denseclip.checkpoint_formats_denseclip import FORMATS, SourceWeights, read_source, rename
from modeling_denseclip.weight_files_denseclip import read_checkpoint
from tests.fixtures import openai_clip_fixtures
from tests.parity import CASES, REFERENCE, load_fixture, load_reference
from training import convert
from training.demo import build_tokenizer
from training.options.arguments import ModelArguments
from training.publishing.hub import prepare_upload
from training.train import build_model


TOLERANCE = 1e-4
CLASS_NAMES = ("a", "b")
# The small ResNet CLIP has text heads 8 wide instead of CLIP's 64, which no tensor shows.
UNSEEN_FIELDS = {"resnet": {"text_config": {"num_attention_heads": 4}}, "vit": {}}
# What is new beside CLIP, made small.
SMALL_FIELDS = {"context_decoder_hidden_size": 32, "neck_hidden_size": 16, "decode_head_hidden_size": 16}

needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the whole files of the published code are not beside this checkout"
)


@dataclass
class ClipCase:
    """A small CLIP: its files, and what OpenAI's code computes with it."""

    kind: str
    files: dict[str, Path]
    state_dict: dict[str, torch.Tensor]
    outputs: dict[str, np.ndarray]

    def load(self, form: str = "safetensors", **fields) -> DenseCLIPForSemanticSegmentation:
        tokenizer = build_tokenizer(CLASS_NAMES)
        fields = SMALL_FIELDS | UNSEEN_FIELDS[self.kind] | fields
        source = self.files[form]
        return DenseCLIPForSemanticSegmentation.from_clip_pretrained(source, CLASS_NAMES, tokenizer, **fields)

    def error(self, name: str, values: torch.Tensor) -> float:
        expected = self.outputs[name]
        return float(np.abs(values.numpy() - expected).max() / expected.std())


def module_of(state_dict: dict[str, torch.Tensor]) -> nn.Module:
    """A tree of modules that hold these tensors: numbers with a gradient as parameters, others as buffers."""
    root = nn.Module()
    for name, tensor in state_dict.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, nn.Module())
            module = module._modules[parent]
        if tensor.is_floating_point() and "running_" not in leaf:
            module.register_parameter(leaf, nn.Parameter(tensor))
        else:
            module.register_buffer(leaf, tensor)
    return root


def write_torchscript(state_dict: dict[str, torch.Tensor], path: Path) -> Path:
    """An archive as OpenAI's: a tree of scripted modules that hold these tensors."""
    torch.jit.save(torch.jit.script(module_of(state_dict)), path)
    return path


@pytest.fixture(scope="module")
def clip_cases(tmp_path_factory) -> dict[str, ClipCase]:
    cases = {}
    for kind in ("resnet", "vit"):
        arrays, outputs = openai_clip_fixtures.load(kind)
        state_dict = {name: torch.from_numpy(values) for name, values in arrays.items()}
        folder = tmp_path_factory.mktemp(kind)
        save_file(state_dict, folder / "open_clip_model.safetensors")
        of_archive = {"input_resolution": 64, "context_length": 77, "vocab_size": 9}
        archived = state_dict | {name: torch.tensor(value) for name, value in of_archive.items()}
        files = {
            "torchscript": write_torchscript(archived, folder / "CLIP.pt"),
            "safetensors": folder / "open_clip_model.safetensors",
            "folder": folder,
        }
        cases[f"{kind}-sampled"] = ClipCase(kind, files, state_dict, outputs)
        whole = REFERENCE / f"openai-clip-{kind}"
        if whole.is_dir():
            files = {
                "torchscript": next(whole.glob("*.pt")),
                "safetensors": whole / "open_clip_model.safetensors",
                "folder": whole,
            }
            outputs = np.load(whole / "outputs.npz")
            cases[f"{kind}-whole"] = ClipCase(kind, files, read_checkpoint(files["safetensors"]), outputs)
    return cases


ALL_CLIPS = [
    *("resnet-sampled", "vit-sampled"),
    *(pytest.param(name, marks=needs_reference) for name in ("resnet-whole", "vit-whole")),
]
SMALL_CLIPS = ["resnet-sampled", "vit-sampled"]


@torch.no_grad()
def image_and_text_features(model, pixel_values, input_ids) -> tuple[torch.Tensor, torch.Tensor]:
    end_states = model.text_encoder(input_ids=input_ids).last_hidden_state
    end_states = end_states[torch.arange(len(input_ids)), input_ids.argmax(dim=-1)]
    return model.image_encoder(pixel_values).global_embedding, model.text_projection(end_states)


# --- CLIP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["torchscript", "safetensors", "folder"])
@pytest.mark.parametrize("name", ALL_CLIPS)
def test_features_are_those_of_clip(clip_cases, name, form):
    case = clip_cases[name]
    model = case.load(form)
    assert not model.training
    inputs = (torch.from_numpy(case.outputs[key]) for key in ("pixel_values", "input_ids"))
    image_features, text_features = image_and_text_features(model, *inputs)
    assert case.error("image_features", image_features) < TOLERANCE
    assert case.error("text_features", text_features) < TOLERANCE
    cosines = F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T
    assert case.error("logits_per_image", case.state_dict["logit_scale"].exp() * cosines) < TOLERANCE


def test_heads_are_64_wide_where_nothing_says_otherwise(clip_cases):
    """As in OpenAI's `build_model`: `width // 64` in transformers, `width * 32 // 64` in the attention pool."""
    config = read_source(clip_cases["resnet-sampled"].files["torchscript"]).fields
    assert config["text_config"]["num_attention_heads"] == 1  # of width 32: at least one
    resnet = clip_cases["resnet-sampled"].load().config.vision_config
    assert (resnet.embedding_size, resnet.num_attention_heads) == (8, 4)
    vit = clip_cases["vit-sampled"].load().config.vision_config
    assert (vit.hidden_size, vit.num_attention_heads) == (64, 1)


@pytest.mark.parametrize("name", SMALL_CLIPS)
def test_config_of_open_clip_tells_heads_and_activation(clip_cases, name, tmp_path):
    case = clip_cases[name]
    save_file(case.state_dict, tmp_path / "open_clip_model.safetensors")
    text_heads = 4 if case.kind == "resnet" else 1
    model_cfg = {"quick_gelu": True, "text_cfg": {"heads": text_heads}, "vision_cfg": {"head_width": 64}}
    tokenizer = build_tokenizer(CLASS_NAMES)

    def load(**changes):
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg | changes}))
        return DenseCLIPForSemanticSegmentation.from_clip_pretrained(tmp_path, CLASS_NAMES, tokenizer, **SMALL_FIELDS)

    inputs = [torch.from_numpy(case.outputs[key]) for key in ("pixel_values", "input_ids")]
    for expected, features in zip(
        ("image_features", "text_features"), image_and_text_features(load(), *inputs), strict=True
    ):
        assert case.error(expected, features) < TOLERANCE
    # Of open_clip's own models most have the exact GELU, and the text tower has 8 heads where nothing is said.
    other = load(quick_gelu=False, text_cfg={}, vision_cfg={"head_width": 32}).config
    assert other.text_config.hidden_act == "gelu"
    assert other.text_config.num_attention_heads == 8
    assert other.vision_config.num_attention_heads == (8 if case.kind == "resnet" else 2)


@pytest.mark.parametrize("form", ["torchscript", "safetensors"])
@pytest.mark.parametrize("name", SMALL_CLIPS)
def test_half_precision_becomes_single(clip_cases, name, form, tmp_path):
    case = clip_cases[name]
    halves = {key: value.half() if value.is_floating_point() else value for key, value in case.state_dict.items()}
    halves["transformer.resblocks.0.attn_mask"] = torch.zeros(77, 77).half()  # some archives hold it
    if form == "torchscript":
        path = write_torchscript(halves, tmp_path / "CLIP.pt")
    else:
        path = tmp_path / "CLIP.safetensors"
        save_file(halves, path)
    tokenizer = build_tokenizer(CLASS_NAMES)
    model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(path, CLASS_NAMES, tokenizer, **SMALL_FIELDS)
    # Before position embeddings are resized, too.
    for tensors in (read_source(path).state_dict, model.state_dict()):
        assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float32}
    torch.testing.assert_close(
        model.text_encoder.embeddings.token_embedding.weight,
        case.state_dict["token_embedding.weight"].half().float(),
        rtol=0,
        atol=0,
    )
    torch.testing.assert_close(
        model.text_projection.weight, case.state_dict["text_projection"].half().float().T, rtol=0, atol=0
    )


@pytest.mark.parametrize("name", SMALL_CLIPS)
@pytest.mark.parametrize("side", [2, 5])
def test_position_grid_is_resized_bilinearly(clip_cases, name, side):
    case = clip_cases[name]
    cell = 32 if case.kind == "resnet" else 16
    model = case.load(vision_config={"image_size": side * cell})
    key = {"resnet": "visual.attnpool.positional_embedding", "vit": "visual.positional_embedding"}[case.kind]
    original = case.state_dict[key]
    old_side = math.isqrt(len(original) - 1)
    if case.kind == "resnet":
        resized = model.image_encoder.attention_pool.position_embedding
    else:
        resized = model.image_encoder.vision_model.embeddings.position_embedding.weight
    grid = original[1:].reshape(1, old_side, old_side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized[0], original[0], rtol=0, atol=0)
    torch.testing.assert_close(resized[1:], grid[0].permute(1, 2, 0).reshape(side * side, -1), rtol=0, atol=0)


def test_text_positions_are_cut_at_the_end(clip_cases):
    case = clip_cases["vit-sampled"]
    model = case.load(text_config={"max_position_embeddings": 13})
    weight = model.text_encoder.embeddings.position_embedding.weight
    torch.testing.assert_close(weight, case.state_dict["positional_embedding"][:13], rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"of another shape: positional_embedding .*\(77, 64\).*\(80, 64\)"):
        case.load(text_config={"max_position_embeddings": 80})


@pytest.mark.parametrize("name", SMALL_CLIPS)
def test_baseline_takes_the_image_tower_alone(clip_cases, name):
    case = clip_cases[name]
    with_language, baseline = case.load(), case.load(use_language=False)
    own = with_language.image_encoder.state_dict()
    language = ("attention_pool", "visual_projection", "vision_model.post_layernorm", "pyramid")
    tower = {key for key in own if not key.startswith(language)}
    kept = baseline.image_encoder.state_dict()
    assert {key for key in kept if not key.startswith("pyramid")} == tower
    for key in tower:
        torch.testing.assert_close(kept[key], own[key], rtol=0, atol=0)
    assert baseline.tokenizer is None


# --- CLIP of Transformers --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers_clip() -> CLIPModel:
    torch.manual_seed(0)
    special = {"bos_token_id": 4, "eos_token_id": 5, "pad_token_id": 5}
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 6}
    config = CLIPConfig(
        text_config=text | special | {"vocab_size": 6, "max_position_embeddings": 20},
        vision_config=vision | {"image_size": 64, "patch_size": 16},
        projection_dim=24,
    )
    clip = CLIPModel(config).eval()
    # Fresh biases and norms are zeros and ones, which a mix-up would not show.
    for parameter in clip.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return clip


@pytest.fixture
def clip_folder(transformers_clip, tmp_path) -> Path:
    folder = tmp_path / "clip"
    transformers_clip.save_pretrained(folder)
    build_tokenizer(CLASS_NAMES).save_pretrained(folder)
    return folder


def test_features_are_those_of_transformers(transformers_clip, clip_folder):
    model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(clip_folder, CLASS_NAMES, **SMALL_FIELDS)
    pixel_values = torch.randn(2, 3, 64, 64)
    input_ids = torch.tensor([[4, 0, 5, 5, 5], [4, 1, 2, 3, 5]])
    with torch.no_grad():
        expected = (
            transformers_clip.get_image_features(pixel_values=pixel_values).pooler_output,
            transformers_clip.get_text_features(input_ids=input_ids).pooler_output,
        )
    for features, wanted in zip(image_and_text_features(model, pixel_values, input_ids), expected, strict=True):
        assert ((features - wanted).abs().max() / wanted.std()).item() < TOLERANCE
    # The class names were read by the tokenizer beside the weights: [start, name, end].
    assert model.config.class_token_ids == ((4, 2, 5), (4, 3, 5))
    assert model.config.dtype in (None, torch.float32)


def test_weights_load_under_the_names_of_transformers(transformers_clip, clip_folder):
    model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(clip_folder, CLASS_NAMES, **SMALL_FIELDS)
    text = CLIPTextModel(transformers_clip.config.text_config)
    vision = CLIPVisionModel(transformers_clip.config.vision_config)
    model.text_encoder.load_state_dict(text.state_dict(), strict=True)
    model.image_encoder.vision_model.load_state_dict(vision.state_dict(), strict=True)
    text.load_state_dict(model.text_encoder.state_dict(), strict=True)


def test_half_precision_clip_of_transformers_becomes_single(transformers_clip, tmp_path):
    CLIPModel(transformers_clip.config).half().save_pretrained(tmp_path)
    model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(
        tmp_path, CLASS_NAMES, build_tokenizer(CLASS_NAMES), **SMALL_FIELDS
    )
    assert {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("change", ["missing", "unexpected", "misshapen"])
def test_clip_of_transformers_is_never_made_up(transformers_clip, clip_folder, change):
    """Transformers itself fills missing and misshapen tensors with random values, and warns."""
    state_dict = {name: tensor.clone() for name, tensor in transformers_clip.state_dict().items()}
    name = "text_model.encoder.layers.1.mlp.fc2.bias"
    if change == "missing":
        del state_dict[name]
    elif change == "unexpected":
        name = "text_model.encoder.layers.2.mlp.fc2.bias"
        state_dict[name] = torch.zeros(3)
    else:
        state_dict[name] = torch.zeros(3)
    state_dict["text_model.embeddings.position_ids"] = torch.arange(20)[None]  # in older files, not a weight
    save_file(state_dict, clip_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=name.replace(".", r"\.")) as raised:
        DenseCLIPForSemanticSegmentation.from_clip_pretrained(clip_folder, CLASS_NAMES, **SMALL_FIELDS)
    assert "position_ids" not in str(raised.value)


def test_a_model_of_another_type_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="'bert'"):
        DenseCLIPForSemanticSegmentation.from_clip_pretrained(tmp_path, CLASS_NAMES)
    with pytest.raises(FileNotFoundError, match=r"RN50\.pt"):
        DenseCLIPForSemanticSegmentation.from_clip_pretrained(tmp_path / "RN50.pt", CLASS_NAMES)


def test_config_of_another_image_encoder_is_refused(clip_cases):
    with pytest.raises(ValueError, match=r"'clip_vision_model'.*'denseclip_resnet'"):
        clip_cases["vit-sampled"].load(vision_config={"model_type": "denseclip_resnet"})


# --- Every tensor is accounted for -----------------------------------------------------------------------------------


def source_weights(title: str, state_dict: dict[str, torch.Tensor]) -> SourceWeights:
    """As a file of this format would be read."""
    (table,) = (known.make_table(state_dict) for known in FORMATS if known.title == title)
    return SourceWeights(title, rename(state_dict, table), table)


@pytest.mark.parametrize("name", CASES)
def test_every_published_name_and_back(name):
    state_dict = load_fixture(name).state_dict
    weights = source_weights("a published DenseCLIP", state_dict)
    assert {weights.source_name(new) for new in weights.state_dict} == state_dict.keys()


@pytest.mark.parametrize("name", SMALL_CLIPS)
def test_every_name_of_clip_and_back(clip_cases, name):
    state_dict = clip_cases[name].state_dict
    weights = source_weights("CLIP", state_dict)
    assert {weights.source_name(new) for new in weights.state_dict} == state_dict.keys() - {"logit_scale"}


# What a name is, and another place of the same kind that nothing has.
PUBLISHED_TENSORS = {
    "denseclip-resnet": ("backbone.layer2.0.conv1.weight", "backbone.layer2.7.conv1.weight"),
    "denseclip-vit": ("backbone.transformer.resblocks.0.attn.in_proj_weight", "backbone.fpn9.weight"),
    "clip-fpn-resnet": ("decode_head.scale_heads.3.4.bn.running_var", "text_encoder.text_projection"),
    "clip-fpn-vit": ("neck.fpn_convs.1.conv.bias", "decode_head.scale_heads.0.2.conv.weight"),
}
CLIP_TENSORS = {
    "resnet-sampled": ("visual.attnpool.c_proj.weight", "visual.layer4.5.bn1.bias"),
    "vit-sampled": ("transformer.resblocks.1.mlp.c_fc.bias", "visual.class_head.weight"),
}


def spoil(state_dict: dict[str, torch.Tensor], change: str, present: str, absent: str) -> str:
    """Break one tensor, and return its name."""
    if change == "missing":
        del state_dict[present]
    elif change == "misshapen":
        state_dict[present] = torch.cat([state_dict[present], state_dict[present]])
    else:
        state_dict[absent] = torch.zeros(3)
        return absent
    return present


@pytest.mark.parametrize("change", ["missing", "unexpected", "misshapen"])
@pytest.mark.parametrize("name", PUBLISHED_TENSORS)
def test_published_tensor_that_does_not_fit_is_named(name, change, tmp_path):
    case = load_fixture(name)
    changed = spoil(case.state_dict, change, *PUBLISHED_TENSORS[name])
    command = published_command(case, tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=changed.replace(".", r"\.") + r"[ ,.]"):
        convert.main(command)
    assert sorted(tmp_path.iterdir()) == before, "a refused conversion leaves nothing behind"


@pytest.mark.parametrize("change", ["missing", "unexpected", "misshapen"])
@pytest.mark.parametrize("name", SMALL_CLIPS)
def test_tensor_of_clip_that_does_not_fit_is_named(clip_cases, name, change, tmp_path):
    state_dict = dict(clip_cases[name].state_dict)
    changed = spoil(state_dict, change, *CLIP_TENSORS[name])
    path = tmp_path / "clip.safetensors"
    save_file(state_dict, path)
    with pytest.raises(ValueError, match=changed.replace(".", r"\.") + r"[ ,.]"):
        DenseCLIPForSemanticSegmentation.from_clip_pretrained(
            path, CLASS_NAMES, build_tokenizer(CLASS_NAMES), **SMALL_FIELDS
        )


# The architecture is read off these, so that a broken one could pass for another architecture.
DECISIVE_TENSORS = {
    "denseclip-resnet": [
        *("contexts", "gamma", "backbone.conv1.weight", "backbone.layer1.0.conv1.weight"),
        *("text_encoder.ln_final.weight", "text_encoder.text_projection", "backbone.attnpool.c_proj.weight"),
        *("text_encoder.transformer.resblocks.0.mlp.c_fc.weight", "context_decoder.text_proj.1.weight"),
        *("context_decoder.decoder.0.mlp.0.weight", "neck.lateral_convs.0.conv.weight", "decode_head.conv_seg.weight"),
    ],
    "clip-fpn-vit": [
        *("backbone.class_embedding", "backbone.conv1.weight", "backbone.transformer.resblocks.0.mlp.c_fc.weight"),
        *("backbone.positional_embedding", "neck.lateral_convs.0.conv.weight", "decode_head.conv_seg.weight"),
    ],
}


@pytest.mark.parametrize("change", ["missing", "misshapen"])
@pytest.mark.parametrize("name", DECISIVE_TENSORS)
def test_tensors_that_show_the_architecture_are_named(name, change, tmp_path):
    case = load_fixture(name)
    command = [*published_command(case, tmp_path), "--overwrite"]
    (tmp_path / "config.json").write_text(json.dumps({"feature_layers": [0, 1, 2, 3]} if "vit" in name else {}))
    checkpoint = torch.load(tmp_path / "published.pth", weights_only=True)
    for changed in DECISIVE_TENSORS[name]:
        state_dict = dict(checkpoint["state_dict"])
        spoil(state_dict, change, changed, "")
        torch.save(checkpoint | {"state_dict": state_dict}, tmp_path / "published.pth")
        with pytest.raises(ValueError, match=changed.replace(".", r"\.") + r"[ ,.')]"):
            convert.main(command)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, [1, 2], {"state_dict": {"a": 1}}, {"w": torch.zeros(1)}])
def test_a_file_without_such_weights_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"model\.pth holds"):
        read_source(tmp_path / "model.pth")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_source(tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match=r"text\.pth could not be read"):
        read_source(tmp_path / "text.pth")


# --- As training programs write them ---------------------------------------------------------------------------------


def with_averages_of_mmcv(model: nn.Module) -> nn.Module:
    """As mmcv's `EMAHook.before_run` registers them."""
    for name, parameter in list(model.named_parameters()):
        model.register_buffer(f"ema_{name.replace('.', '_')}", parameter.data.clone() + 1)
    return model


def within(model: nn.Module, **names: nn.Module) -> nn.Module:
    root = nn.Module()
    for name, module in (names or {"model": model}).items():
        root.add_module(name, module)
    return root


def averaged(model: nn.Module) -> nn.Module:
    copy = torch.optim.swa_utils.AveragedModel(model)
    copy.update_parameters(model)
    return copy


TRAINED = {
    "data-parallel": lambda model: {"state_dict": nn.DataParallel(model).state_dict()},
    "compiled": lambda model: {"model": torch.compile(model).state_dict()},
    "compiled-data-parallel": lambda model: torch.compile(nn.DataParallel(model)).state_dict(),
    "compiled-part": lambda model: {
        name.replace("conv1.weight", "conv1._orig_mod.weight"): tensor for name, tensor in model.state_dict().items()
    },
    "model": lambda model: {"model": model.state_dict()},
    "nested": lambda model: {"epoch": 3, "state_dict": {"step": 1, "model": model.state_dict()}},
    "lightning": lambda model: {
        "state_dict": within(model).state_dict(),
        "hyper_parameters": {"lr": 0.1, "folder": Path("data")},
        "callbacks": {"checkpoint": {"best": np.float64(0.5), "scores": {"a.ckpt": torch.tensor(0.5)}}},
    },
    "open-clip": lambda model: {
        "epoch": 3,
        "name": "RN50",
        "state_dict": nn.DataParallel(model).state_dict(),
        "optimizer": stepped(model).state_dict(),
        "scaler": {"scale": 65536.0},
    },
    "arguments": lambda model: {"args": argparse.Namespace(lr=0.1, out=Path("out")), "model": model.state_dict()},
    "averages-of-mmcv": lambda model: {"state_dict": with_averages_of_mmcv(model).state_dict()},
    "averages-of-mmcv-in-data-parallel": lambda model: nn.DataParallel(with_averages_of_mmcv(model)).state_dict(),
    "averages-beside": lambda model: {
        "model_ema": {name: tensor + 1 for name, tensor in model.state_dict().items()},
        "model": model.state_dict(),
    },
    "averages-in-a-part": lambda model: within(model, student=model, ema=module_of(model.state_dict())).state_dict(),
    "averages-alone": lambda model: averaged(model).state_dict(),
    "averages-alone-in-a-part": lambda model: {"model": None, "model_ema": model.state_dict()},
    "the-same-twice": lambda model: {"model": model.state_dict(), "params": dict(model.state_dict())},
    "parameters": lambda model: dict(model.named_parameters()) | dict(model.named_buffers()),
}


def stepped(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    return optimizer


def published_or_clip(name: str, clip_cases) -> dict[str, torch.Tensor]:
    state_dict = clip_cases[name].state_dict if name in clip_cases else load_fixture(name).state_dict
    return {key: tensor.clone() for key, tensor in state_dict.items()}


@pytest.mark.parametrize("form", TRAINED)
@pytest.mark.parametrize(("name", "legacy"), [("denseclip-resnet", False), ("vit-sampled", True)])
def test_weights_are_found_where_training_programs_put_them(name, legacy, form, clip_cases, tmp_path):
    model = module_of(published_or_clip(name, clip_cases))
    content = TRAINED[form](model)
    expected = published_or_clip(name, clip_cases)
    if form == "open-clip":  # one step further than the file of the test
        expected = {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}
    torch.save(expected, tmp_path / "plain.pth")
    torch.save(content, tmp_path / "trained.pth", _use_new_zipfile_serialization=not legacy)
    plain, trained = read_source(tmp_path / "plain.pth"), read_source(tmp_path / "trained.pth")
    assert (trained.form, trained.fields) == (plain.form, plain.fields)
    assert trained.state_dict.keys() == plain.state_dict.keys()
    for key, tensor in plain.state_dict.items():
        assert torch.equal(trained.state_dict[key], tensor), key
        assert not trained.state_dict[key].requires_grad
    counted = {"averages-of-mmcv", "averages-of-mmcv-in-data-parallel", "averages-in-a-part", "averages-alone"}
    assert bool(trained.copies) == (form in counted)


def test_weights_of_two_models_are_refused(clip_cases, tmp_path):
    student = clip_cases["vit-sampled"].state_dict
    both = within(None, student=module_of(student), teacher=module_of(student)).state_dict()
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(ValueError, match=r"weights of 2 models, under 'student\.', 'teacher\.'. Save those of one"):
        read_source(tmp_path / "both.pth")
    torch.save({f"module.{key}": value for key, value in student.items()} | {"logit_scale": 1}, tmp_path / "both.pth")
    with pytest.raises(ValueError, match="'logit_scale' is a int"):
        read_source(tmp_path / "both.pth")
    twice = {f"module.{key}": value for key, value in student.items()} | {"ln_final.bias": student["ln_final.bias"]}
    torch.save(twice, tmp_path / "both.pth")
    with pytest.raises(ValueError, match=r"holds ln_final\.bias twice"):
        read_source(tmp_path / "both.pth")
    other = {key: value + 1 for key, value in student.items()}
    torch.save({"state_dict": student, "model": other, "epoch": 3}, tmp_path / "both.pth")
    with pytest.raises(ValueError, match="weights of 2 models, under 'state_dict', 'model'. Save those of one"):
        read_source(tmp_path / "both.pth")
    # A part that is no copy is not dropped in silence.
    more = {f"model.{key}": value for key, value in student.items()} | {"probe.weight": torch.zeros(3)}
    torch.save(more, tmp_path / "both.pth")
    with pytest.raises(ValueError, match=r"no place in DenseCLIP: probe\.weight"):
        read_source(tmp_path / "both.pth")
    itself = {}
    itself["model"] = itself
    torch.save(itself, tmp_path / "both.pth")
    with pytest.raises(ValueError, match="'model' is a dict"):
        read_source(tmp_path / "both.pth")


def rename_in_pickle(path: Path, old: str, new: str):
    """What the pickle of a file of torch names, as another release of a package calls it."""
    with zipfile.ZipFile(path) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            if name.endswith("data.pkl"):
                assert f"c{old}".encode() in data
                data = data.replace(f"c{old}".encode(), f"c{new}".encode())
            archive.writestr(name, data)


@pytest.mark.parametrize("numpy", [1, 2])
def test_numbers_and_arrays_of_numpy_are_data(numpy, tmp_path, capsys):
    """As mmseg writes them: a best score, and random colours for a data set that has none."""
    case = load_fixture("denseclip-vit")
    case.fields["id2label"] = {int(index): label for index, label in case.fields["id2label"].items()}
    command = published_command(case, tmp_path)
    checkpoint = torch.load(tmp_path / "published.pth", weights_only=True)
    names = [name.strip() for name in checkpoint["meta"]["CLASSES"]]
    palette = np.random.default_rng(0).integers(0, 255, size=(len(names), 3))
    meta = {
        "CLASSES": np.array(names),
        "PALETTE": palette,
        "hook_msgs": {"best_score": np.float64(0.4321), "last_ckpt": "iter_8000.pth", "best": np.str_("mIoU")},
        "arrays": [np.arange(6, dtype=">i2").reshape(2, 3).T, np.array(2.5, dtype=np.float16), np.zeros((0, 3))],
        "flags": (np.bool_(True), np.int64(-3), np.float32(0.5), np.complex64(1j)),
        "time": "Mon",
    }
    torch.save(checkpoint | {"meta": meta}, tmp_path / "published.pth")
    core = "numpy._core.multiarray" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core.multiarray"
    rename_in_pickle(
        tmp_path / "published.pth", core, {1: "numpy.core.multiarray", 2: "numpy._core.multiarray"}[numpy]
    )

    read = read_checkpoint(tmp_path / "published.pth")["meta"]
    assert read["hook_msgs"] == {"best_score": 0.4321, "last_ckpt": "iter_8000.pth", "best": "mIoU"}
    assert read["flags"] == (True, -3, 0.5, 1j)
    np.testing.assert_array_equal(read["PALETTE"], palette)
    np.testing.assert_array_equal(read["arrays"][0], [[0, 3], [1, 4], [2, 5]])
    assert read["arrays"][1] == 2.5 and read["arrays"][1].shape == () and read["arrays"][2].size == 0
    model = convert.main(command)
    assert model.config.class_names == tuple(names)
    assert model.config.palette == tuple(map(tuple, palette.tolist()))
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["palette"] == palette.tolist() and "0.4321" not in json.dumps(written)
    check_published(case, tmp_path / "out")


class ScoreHistory:
    """As what other programs put beside weights: an object of a class of their own."""

    def __init__(self):
        self.values = [0.5]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("beside", "asked"),
    [
        (ScoreHistory(), r"tests\.test_conversion\.ScoreHistory"),
        (np.array([None, "a"], dtype=object), r"numpy\.dtype\('O8'\)"),
        (np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]), r"numpy\.dtype\('V8'\)"),
        (np.datetime64("2020-01-01"), r"numpy\.dtype\('M8'\)"),
    ],
    ids=["class", "objects", "structure", "date"],
)
def test_what_is_no_plain_data_is_refused_with_the_way_out(beside, asked, legacy, tmp_path):
    state_dict = load_fixture("clip-fpn-vit").state_dict
    content = {"state_dict": state_dict, "meta": {"CLASSES": ("a", "b"), "beside": beside}}
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=rf"it asks for {asked}, which no weights need.*torch\.save\(checkpoint"):
        read_source(tmp_path / "model.pth")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_whole_pickled_model_is_refused_with_the_way_out(legacy, clip_cases, tmp_path):
    model = module_of(published_or_clip("vit-sampled", clip_cases))
    torch.save(model, tmp_path / "model.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"asks for torch\.nn.*which no weights need.*torch\.save\(model\.state_dict"):
        read_source(tmp_path / "model.pth")
    # The way out is one.
    torch.save(model.state_dict(), tmp_path / "model.pth")
    assert read_source(tmp_path / "model.pth").is_clip


@pytest.mark.parametrize("name", ["denseclip-resnet", "vit-sampled"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(name, dtype, clip_cases, tmp_path):
    # Counters too, as a cast of the whole dictionary makes them.
    state_dict = {key: (1 + 1e-9) * value.to(dtype) for key, value in published_or_clip(name, clip_cases).items()}
    torch.save({"state_dict": state_dict, "meta": {"CLASSES": tuple("abcdefg")}}, tmp_path / "model.pth")
    weights = read_source(tmp_path / "model.pth")
    assert weights.dtype == dtype
    expected = {torch.float64 if dtype == torch.float64 else torch.float32}
    assert {tensor.dtype for tensor in weights.state_dict.values() if tensor.is_floating_point()} == expected
    if name == "denseclip-resnet":
        command = published_command(load_fixture(name), tmp_path)
        saved = torch.load(tmp_path / "published.pth", weights_only=True)
        saved["state_dict"] = {key: value.to(dtype) for key, value in saved["state_dict"].items()}
        torch.save(saved, tmp_path / "published.pth")
        model = convert.main(command)
        assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
        assert torch.equal(
            model.neck.lateral_convs[0].bias, saved["state_dict"]["neck.lateral_convs.0.conv.bias"].float()
        )


def test_weights_without_floating_point_values_are_refused(clip_cases, tmp_path):
    whole = published_or_clip("vit-sampled", clip_cases)
    name = "visual.transformer.resblocks.0.mlp.c_fc.weight"

    def refusal(tensor) -> str:
        torch.save(whole | {name: tensor}, tmp_path / "model.pth")
        with pytest.raises(ValueError) as raised:
            DenseCLIPForSemanticSegmentation.from_clip_pretrained(
                tmp_path / "model.pth", CLASS_NAMES, build_tokenizer(CLASS_NAMES), **SMALL_FIELDS
            )
        return str(raised.value)

    assert re.search(
        rf"no floating-point numbers: {re.escape(name)} .*int8", refusal((100 * whole[name]).to(torch.int8))
    )
    for tensor in (
        whole[name].to_sparse(),
        torch.empty_like(whole[name], device="meta"),
        torch.zeros(1, 1).expand(whole[name].shape),
    ):
        assert f"fewer values than their shape says: {name}" in refusal(tensor)


# --- The keywords of from_pretrained ---------------------------------------------------------------------------------


def floats(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


@pytest.mark.parametrize("form", ["torchscript", "safetensors", "transformers"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16", torch.float64])
def test_dtype_is_that_of_the_model(form, dtype, clip_cases, clip_folder, tmp_path):
    source = clip_folder if form == "transformers" else clip_cases["resnet-sampled"].files[form]
    fields = SMALL_FIELDS | ({} if form == "transformers" else UNSEEN_FIELDS["resnet"])
    tokenizer = build_tokenizer(CLASS_NAMES)

    def load(**kwargs):
        torch.manual_seed(0)
        return DenseCLIPForSemanticSegmentation.from_clip_pretrained(
            source, CLASS_NAMES, tokenizer, **fields, **kwargs
        )

    model, single = load(dtype=dtype), load()
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {tensor.dtype for tensor in floats(model).values()} == {wanted}
    assert {tensor.dtype for tensor in floats(single).values()} == {torch.float32}
    for name, tensor in floats(single).items():
        assert torch.equal(floats(model)[name], tensor.to(wanted)), name
    assert not model.training and model.has_untrained_contexts() and model.tokenizer is tokenizer
    model.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert getattr(torch, config["dtype"]) == wanted and "torch_dtype" not in config
    again = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path / "saved")
    assert again.dtype == wanted and again.has_untrained_contexts()
    assert load(torch_dtype=dtype).dtype == wanted


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("form", ["safetensors", "transformers"])
def test_dtype_auto_is_that_of_the_weights(form, dtype, clip_cases, transformers_clip, tmp_path):
    tokenizer = build_tokenizer(CLASS_NAMES)
    fine = 1 + 1e-9  # what float32 would round away
    if form == "transformers":
        source, fields = tmp_path / "clip", SMALL_FIELDS
        clip = CLIPModel(transformers_clip.config).to(dtype)
        clip.load_state_dict(
            {name: fine * tensor.to(dtype) for name, tensor in transformers_clip.state_dict().items()}
        )
        clip.save_pretrained(source)
        expected = clip.text_projection.weight
    else:
        source, fields = tmp_path / "clip.safetensors", SMALL_FIELDS | UNSEEN_FIELDS["resnet"]
        state_dict = clip_cases["resnet-sampled"].state_dict
        halves = {
            name: fine * value.to(dtype) if value.is_floating_point() else value for name, value in state_dict.items()
        }
        save_file(halves, source)
        expected = halves["text_projection"].T
    model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(
        source, CLASS_NAMES, tokenizer, **fields, dtype="auto"
    )
    assert {tensor.dtype for tensor in floats(model).values()} == {dtype}
    assert torch.equal(model.text_projection.weight, expected)


def test_device_map_places_the_model(clip_folder, tmp_path):
    def load(**kwargs):
        torch.manual_seed(0)
        return DenseCLIPForSemanticSegmentation.from_clip_pretrained(
            clip_folder, CLASS_NAMES, **SMALL_FIELDS, **kwargs
        )

    plain = load()
    parts = dict.fromkeys((name for name, _ in plain.named_children()), "cpu") | {"decode_head": "disk"}
    placed = load(device_map=parts, offload_folder=str(tmp_path / "offloaded"))
    assert placed.hf_device_map == parts
    assert placed.decode_head.classifier.weight.is_meta and not placed.neck.lateral_convs[0].weight.is_meta
    assert any((tmp_path / "offloaded").iterdir())
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = plain(pixel_values).logits
        torch.testing.assert_close(placed(pixel_values).logits, expected)
        for device in ("cpu", torch.device("cpu"), {"": "cpu"}, "auto"):
            torch.testing.assert_close(load(device_map=device)(pixel_values).logits, expected)
    placed.save_pretrained(tmp_path / "saved")
    assert not {"device_map", "offload_folder"} & json.loads((tmp_path / "saved" / "config.json").read_text()).keys()
    with pytest.raises(ValueError, match="device_map"):
        load(device_map="nowhere")


@register_quantization_config("to_steps")
class StepsConfig(QuantizationConfigMixin):
    def __init__(self, step: float = 0.25, **_):
        self.quant_method, self.step = "to_steps", step


@register_quantizer("to_steps")
class StepsQuantizer(HfQuantizer):
    """Rounds every weight to a multiple: as the quantisers of Transformers do, at this place of loading."""

    requires_calibration = False
    is_trainable = False

    def _process_model_before_weight_loading(self, model, **_):
        pass

    def _process_model_after_weight_loading(self, model, **_):
        for parameter in model.parameters():
            parameter.data = (parameter.data / self.quantization_config.step).round() * self.quantization_config.step

    def is_serializable(self, *_, **__):
        return True


def test_quantization_config_reaches_the_quantiser(clip_folder, tmp_path):
    model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(
        clip_folder, CLASS_NAMES, **SMALL_FIELDS, quantization_config=StepsConfig(0.5)
    )
    clip = load_file(clip_folder / "model.safetensors")
    expected = (2 * clip["text_projection.weight"]).round() / 2
    assert torch.equal(model.text_projection.weight, expected) and expected.unique().numel() > 1
    assert all(torch.equal(2 * parameter, (2 * parameter).round()) for parameter in model.parameters())
    model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["quantization_config"]["step"] == 0.5
    # What describes that checkpoint is no architecture to start another from.
    other = DenseCLIPForSemanticSegmentation.from_clip_pretrained(clip_folder, CLASS_NAMES, config=model.config)
    assert not hasattr(other.config, "quantization_config")


def test_what_is_no_field_stays_out_of_the_config(clip_folder, tmp_path):
    secrets = {"token": "hf_SECRET", "revision": "0123abc", "cache_dir": str(tmp_path / "cache"), "proxies": {}}
    model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(
        *(clip_folder, CLASS_NAMES),
        **(SMALL_FIELDS | secrets | {"local_files_only": True, "force_download": False, "subfolder": ""}),
        attn_implementation="eager",
        window_stride=(100, 100),
    )
    assert model.config._attn_implementation == "eager" and model.config.window_stride == (100, 100)
    model.save_pretrained(tmp_path / "saved")
    files = [path for path in (tmp_path / "saved").iterdir() if path.suffix == ".json"]
    assert {"config.json", "tokenizer_config.json"} <= {path.name for path in files}
    for path in files:
        text = path.read_text()
        assert not any(word in text for word in ("hf_SECRET", "0123abc", str(tmp_path), '"token"', '"revision"')), path
    for name in ("tokenn", "use_auth_token", "id2label", "model_type", "variant"):
        with pytest.raises(TypeError, match=rf"unexpected keyword argument '{name}'"):
            DenseCLIPForSemanticSegmentation.from_clip_pretrained(clip_folder, CLASS_NAMES, **{name: "a"})


def test_config_of_a_checkpoint_says_what_to_build_and_not_in_which_type(clip_folder, tmp_path):
    """`--config` may be the config of a saved model, which is of other classes, and of half precision here."""
    model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(
        clip_folder, ["b"], **SMALL_FIELDS, dtype="bfloat16", temperature=0.5
    )
    model.save_pretrained(tmp_path / "saved")
    data = SimpleNamespace(class_names=CLASS_NAMES, palette=None)
    for start in ({"clip": str(clip_folder)}, {"tokenizer": str(clip_folder)}):
        arguments = ModelArguments(config=str(tmp_path / "saved" / "config.json"), **start)
        built = build_model(arguments, data)
        assert (built.dtype, built.config.temperature) == (torch.float32, 0.5)
        assert built.config.class_names == CLASS_NAMES and len(built.config.class_token_ids) == 2


def test_subfolder(transformers_clip, clip_folder):
    transformers_clip.save_pretrained(clip_folder / "inner" / "clip")
    for path in clip_folder.iterdir():
        if path.is_file():
            path.rename(clip_folder / "inner" / "clip" / path.name) if "token" in path.name else path.unlink()
    model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(
        clip_folder, CLASS_NAMES, **SMALL_FIELDS, subfolder="inner/clip"
    )
    assert torch.equal(model.text_projection.weight, transformers_clip.text_projection.weight)
    assert model.config.class_token_ids == ((4, 2, 5), (4, 3, 5))  # by the tokenizer in that folder


# --- Pickles are not executed ----------------------------------------------------------------------------------------


class Payload:
    """Writes a file when it is unpickled by a reader that trusts its input."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def write_malicious(form: str, payload: Payload, folder: Path) -> Path:
    path = folder / ("evil.pt" if form == "torchscript" else "evil.pth")
    content = {"meta": {"CLASSES": ("a", "b")}, "state_dict": {"backbone.conv1.weight": payload}}
    if form == "zip":
        torch.save(content, path)
    elif form == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    elif form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif form == "torchscript":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evil/data.pkl", pickle.dumps(payload, protocol=2))
            archive.writestr("evil/constants.pkl", pickle.dumps(payload, protocol=2))
            archive.writestr("evil/version", "3\n")
    elif form == "transformers":
        folder = folder / "clip"
        CLIPConfig().save_pretrained(folder)
        torch.save({"logit_scale": payload}, folder / "pytorch_model.bin")
        return folder
    return path


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "torchscript", "transformers"])
def test_malicious_file_is_refused_and_not_executed(form, tmp_path):
    marker = tmp_path / "executed.txt"
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists(), "the payload must be a real one"
    marker.unlink()

    source = write_malicious(form, Payload(marker), tmp_path)
    (tmp_path / "names.txt").write_text("a\nb\n")
    build_tokenizer(CLASS_NAMES).save_pretrained(tmp_path / "tokenizer")
    names = [] if form in ("zip", "legacy", "pickle") else ["--class_names", str(tmp_path / "names.txt")]
    with pytest.raises((ValueError, OSError, pickle.UnpicklingError)) as raised:
        convert.main([str(source), str(tmp_path / "out"), *names, "--tokenizer", str(tmp_path / "tokenizer")])
    assert not marker.exists()
    assert not (tmp_path / "out").exists()
    if form != "transformers":
        # What it asked for, and no advice to load it after all, as torch has it.
        assert re.search(r"could not be read as weights: it asks for \S*exec,", str(raised.value))
        assert "weights_only" not in str(raised.value)


# --- The command -----------------------------------------------------------------------------------------------------


def published_tokenizer(case) -> tuple[PreTrainedTokenizerBase, dict[int, int]]:
    """A tokenizer in which every word of the class names is one token, and what CLIP's tokens in use become."""
    names = case.fields["id2label"].values()
    tokenizer = build_tokenizer(list(names))
    new_ids = {}
    for name, ids in zip(names, case.fields.get("class_token_ids", []), strict=False):
        new_ids |= dict(zip(ids, tokenizer(name).input_ids, strict=True))
    return tokenizer, new_ids


def published_command(case, folder: Path, names_in_file: bool = True) -> list[str]:
    """Files of a published checkpoint in `folder`, and the arguments that convert it."""
    tokenizer, new_ids = published_tokenizer(case)
    state_dict = dict(case.state_dict)
    key = "text_encoder.token_embedding.weight"
    if new_ids and key in state_dict:
        used = state_dict[key]
        state_dict[key] = torch.randn(len(tokenizer), used.shape[1])
        for old, new in new_ids.items():
            state_dict[key][new] = used[old]
    num_classes = len(case.fields["id2label"])
    meta = {
        "CLASSES": tuple(f"{name} " for name in case.fields["id2label"].values()) if names_in_file else None,
        "PALETTE": [[index, 2 * index, 255 - index] for index in range(num_classes)],
        "mmseg_version": "0.19.0",
    }
    torch.save({"meta": meta, "state_dict": state_dict}, folder / "published.pth")
    config = {name: value for name, value in case.fields.items() if name not in ("id2label", "class_token_ids")}
    # As in configuration/models, which asks for CLIP's 77 positions where a published text tower has 13.
    if "text_config" in config:
        config["text_config"] = config["text_config"] | {"max_position_embeddings": 77}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save_pretrained(folder / "tokenizer")
    arguments = [str(folder / "published.pth"), str(folder / "out"), "--config", str(folder / "config.json")]
    return [*arguments, "--tokenizer", str(folder / "tokenizer")]


def check_published(case, out: Path) -> DenseCLIPForSemanticSegmentation:
    """The written model computes what the published code did, and its image processor fits."""
    model = AutoModelForSemanticSegmentation.from_pretrained(out)
    image_processor = AutoImageProcessor.from_pretrained(out)
    compared = 0
    for name, pixel_values in case.inputs.items():
        if not name.startswith("pixel_values"):
            continue
        with torch.no_grad():
            outputs = model(pixel_values, inference_mode="whole")
            slide = model(pixel_values).logits
        slide = F.interpolate(slide, size=pixel_values.shape[-2:], mode="bilinear", align_corners=False)
        assert case.error(f"decode_head{name[-2:]}", outputs.logits) < TOLERANCE
        assert case.error(f"slide{name[-2:]}", slide) < TOLERANCE
        if model.config.use_language:
            assert case.error(f"score_map{name[-2:]}", outputs.score_map) < TOLERANCE
        compared += 1
    assert compared >= 2
    assert type(image_processor) is DenseCLIPImageProcessor
    assert image_processor.size == {"shortest_edge": model.config.window_size[0], "longest_edge": 2048}
    assert model.config.id2label == dict(case.fields["id2label"].items())
    assert model.config.class_embedding_scale == (2 if model.config.is_clip_vit else 1)
    assert model.config.drop_path_rate == (0.1 if model.config.is_clip_vit and model.config.use_language else 0)
    return model


@pytest.mark.parametrize("name", CASES)
def test_published_checkpoint(name, tmp_path, capsys):
    case = load_fixture(name)
    case.fields["id2label"] = {int(index): label for index, label in case.fields["id2label"].items()}
    convert.main(published_command(case, tmp_path))
    out = tmp_path / "out"
    model = check_published(case, out)
    assert tuple(model.config.palette[1]) == (1, 2, 254)
    assert (out / "modeling_denseclip.py").is_file()
    printed = capsys.readouterr().out
    parameters = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not name.startswith(("text_encoder", "text_projection"))
    )
    assert f"{parameters / 1e6:.3f} million" in printed
    assert "published " in printed
    assert "7 (wall, building" in printed
    assert "New:" not in printed
    if model.config.use_language:
        assert model.config.text_config.max_position_embeddings == 13
        # Names can change, with the tokenizer that was written beside the weights.
        assert AutoTokenizer.from_pretrained(out)("sky").input_ids == list(model.config.class_token_ids[2])
        assert set(model.set_class_names(["sky", "wall"]).kept) == {"sky", "wall"}


@needs_reference
@pytest.mark.parametrize("name", CASES)
def test_published_file_as_it_is(name, clip_tokenizer, tmp_path):
    case = load_reference(name)
    config = {key: value for key, value in case.fields.items() if key not in ("id2label", "class_token_ids")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    source, out = REFERENCE / name / "checkpoint.pth", tmp_path / "new" / "out"
    tokenizer = clip_tokenizer.name_or_path
    convert.main([str(source), str(out), "--config", str(tmp_path / "config.json"), "--tokenizer", str(tokenizer)])
    model = check_published(case, out)
    if model.config.use_language:
        assert [list(ids) for ids in model.config.class_token_ids] == case.fields["class_token_ids"]


def test_pipeline_runs_on_the_output(tmp_path):
    case = load_fixture("denseclip-vit")
    convert.main(published_command(case, tmp_path))
    segmenter = pipeline("image-segmentation", model=str(tmp_path / "out"), trust_remote_code=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8))
    results = segmenter(image)
    assert results
    assert {result["label"] for result in results} <= set(case.fields["id2label"].values())
    assert all(result["mask"].size == (80, 48) for result in results)
    assert sum(np.asarray(result["mask"]).astype(bool).sum() for result in results) == 80 * 48


def clip_command(case: ClipCase, folder: Path, form: str = "torchscript") -> list[str]:
    (folder / "classes.txt").write_text("a\nb\n")
    (folder / "config.json").write_text(
        json.dumps(
            SMALL_FIELDS | UNSEEN_FIELDS[case.kind] | {"vision_config": {"image_size": 160}, "window_size": [640, 640]}
        )
    )
    build_tokenizer(CLASS_NAMES).save_pretrained(folder / "tokenizer")
    return [
        *(str(case.files[form]), str(folder / "out"), "--config", str(folder / "config.json")),
        *("--class_names", str(folder / "classes.txt"), "--tokenizer", str(folder / "tokenizer")),
    ]


@pytest.mark.parametrize("form", ["torchscript", "folder"])
@pytest.mark.parametrize("name", SMALL_CLIPS)
def test_clip_to_fine_tune(clip_cases, name, form, tmp_path, capsys):
    case = clip_cases[name]
    convert.main(clip_command(case, tmp_path, form))
    model = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        text_features = image_and_text_features(
            model, torch.zeros(1, 3, 64, 64), torch.from_numpy(case.outputs["input_ids"])
        )[1]
    assert case.error("text_features", text_features) < TOLERANCE
    image_processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert image_processor.size == {"shortest_edge": 640, "longest_edge": 2048}
    assert model.config.id2label == {0: "a", 1: "b"}
    printed = capsys.readouterr().out
    sides = (
        "5 x 5, resized bilinearly from 2 x 2" if case.kind == "resnet" else "10 x 10, resized bilinearly from 4 x 4"
    )
    assert sides in printed
    assert "fine-tune" in printed
    assert "decode_head" in printed


def test_class_names_are_asked_for_where_the_source_has_none(clip_cases, tmp_path):
    command = clip_command(clip_cases["vit-sampled"], tmp_path)
    at = command.index("--class_names")
    without = command[:at] + command[at + 2 :]
    with pytest.raises(ValueError, match="--class_names FILE"):
        convert.main(without)
    (tmp_path / "classes.txt").write_text("a\n\nb\n")
    with pytest.raises(ValueError, match="no name on line 2"):
        convert.main(command)
    assert not (tmp_path / "out").exists()

    case = load_fixture("denseclip-resnet")
    published = published_command(case, tmp_path)
    with pytest.raises(ValueError, match="--class_names does not apply"):
        convert.main([*published, "--class_names", str(tmp_path / "classes.txt")])
    published = published_command(case, tmp_path, names_in_file=False)
    with pytest.raises(ValueError, match="--class_names FILE"):
        convert.main(published)
    # One name short: the head has a row for each.
    (tmp_path / "classes.txt").write_text("\n".join(list(case.fields["id2label"].values())[:6]))
    with pytest.raises(ValueError, match=r"decode_head\.conv_seg\.weight"):
        convert.main([*published, "--class_names", str(tmp_path / "classes.txt")])
    assert not (tmp_path / "out").exists()


def test_a_field_that_the_config_does_not_have_is_named(clip_cases, tmp_path):
    command = clip_command(clip_cases["vit-sampled"], tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"projection_dimension": 3}))
    with pytest.raises(ValueError, match="projection_dimension"):
        convert.main(command)


def test_a_tokenizer_that_does_not_fit_is_named(clip_cases, tmp_path, monkeypatch):
    command = clip_command(clip_cases["vit-sampled"], tmp_path)
    build_tokenizer([*CLASS_NAMES, "many", "other", "words"]).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="only 9"):
        convert.main(command)
    # Without --tokenizer it is OpenAI's, of the Hub; where that cannot be reached the error names the way out.
    monkeypatch.setattr(conversion, "DEFAULT_TOKENIZER", str(tmp_path / "unreachable"))
    with pytest.raises(ValueError, match=r"unreachable.*--tokenizer"):
        convert.main(command[: command.index("--tokenizer")])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_overwritten_unasked_and_nothing_lost_on_an_error(clip_cases, tmp_path, monkeypatch):
    command = clip_command(clip_cases["vit-sampled"], tmp_path)
    out = tmp_path / "out"
    convert.main(command)
    (out / "notes.txt").write_text("mine")
    (out / "pytorch_model.bin").write_bytes(b"stale")
    before, siblings = snapshot(out), sorted(tmp_path.iterdir())

    with pytest.raises(ValueError, match=r"config\.json.*--overwrite"):
        convert.main(command)
    assert snapshot(out) == before

    # Errors before writing and within it.
    with pytest.raises(FileNotFoundError):
        convert.main([str(tmp_path / "missing.pt"), *command[1:], "--overwrite"])
    with monkeypatch.context() as patch:
        patch.setattr(DenseCLIPImageProcessor, "save_pretrained", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert.main([*command, "--overwrite"])
    assert snapshot(out) == before
    assert sorted(tmp_path.iterdir()) == siblings

    (tmp_path / "classes.txt").write_text("b\na\n")
    convert.main([*command, "--overwrite"])
    after = snapshot(out)
    assert after.keys() == before.keys() - {"pytorch_model.bin"}
    assert after["notes.txt"] == b"mine"
    assert AutoModelForSemanticSegmentation.from_pretrained(out).config.id2label == {0: "b", 1: "a"}


def test_the_source_is_not_the_output(clip_folder, tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\n")
    before = snapshot(clip_folder)
    with pytest.raises(ValueError, match="holds the source itself"):
        convert.main(
            [str(clip_folder), str(clip_folder), "--class_names", str(tmp_path / "classes.txt"), "--overwrite"]
        )
    assert snapshot(clip_folder) == before
    with pytest.raises(ValueError, match="is a file"):
        convert.main([str(clip_folder), str(tmp_path / "classes.txt")])


@pytest.mark.parametrize("use_language", [True, False])
def test_push_to_hub_sends_the_written_folder(clip_cases, tmp_path, monkeypatch, use_language):
    pushed = []
    monkeypatch.setattr(convert, "push_directory", lambda *arguments: pushed.append(arguments))
    command = clip_command(clip_cases["resnet-sampled"], tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SMALL_FIELDS | {"use_language": use_language}))
    convert.main(command)
    assert pushed == []
    convert.main([*command, "--overwrite", "--push_to_hub", "someone/denseclip"])
    assert pushed == [(tmp_path / "out", "someone/denseclip")]
    # It is complete, which is checked before it is sent.
    names = set(prepare_upload(tmp_path / "out").files)
    assert {"model.safetensors", "preprocessor_config.json", "modeling_denseclip.py"} < names
    assert ("tokenizer.json" in names) == use_language


def test_help_says_what_each_argument_takes(capsys):
    with pytest.raises(SystemExit):
        convert.main(["--help"])
    printed = capsys.readouterr().out
    for word in ("SOURCE", "OUT", "--config", "--class_names", "--tokenizer", "--overwrite", "--push_to_hub"):
        assert word in printed
