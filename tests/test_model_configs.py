"""The architectures of configuration/models: they load, they are complete, and they are as large as the paper's."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation


FOLDER = Path(__file__).resolve().parents[1] / "configuration" / "models"
FILES = sorted(FOLDER.glob("*.json"))
NUM_CLASSES = 150

# Millions of parameters without the text tower, from a run of the published code with 150 classes.
PUBLISHED_MILLIONS = {
    "clip_fpn_rn50": 31.043,
    "denseclip_fpn_rn50": 50.248,
    "clip_fpn_rn101": 50.035,
    "denseclip_fpn_rn101": 67.795,
    "clip_fpn_vit_b16": 101.283,
    "denseclip_fpn_vit_b16": 105.273,
}
# Millions in the text tower of CLIP, as OpenAI's archives hold it: (width, projection) with 49,408 tokens.
TEXT_MILLIONS = {
    "denseclip_fpn_rn50": 63.166 + 512 * 1024 / 1e6,
    "denseclip_fpn_rn101": 63.166 + 512 * 512 / 1e6,
    "denseclip_fpn_vit_b16": 63.166 + 512 * 512 / 1e6,
}


def build_on_meta(path: Path) -> DenseCLIPForSemanticSegmentation:
    config = DenseCLIPConfig.from_json_file(path).to_dict()
    config["id2label"] = {index: f"class {index}" for index in range(NUM_CLASSES)}
    config["label2id"] = None
    if config["use_language"]:
        config["class_names"] = list(config["id2label"].values())
        config["class_token_ids"] = [[49406, 320 + index, 49407] for index in range(NUM_CLASSES)]
    with torch.device("meta"):
        return DenseCLIPForSemanticSegmentation(DenseCLIPConfig(**config))


def test_every_row_has_its_file():
    assert {path.stem for path in FILES} >= PUBLISHED_MILLIONS.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_is_a_complete_architecture_and_nothing_else(path):
    fields = json.loads(path.read_text())
    config = DenseCLIPConfig.from_json_file(path)
    known = {field.name for field in dataclasses.fields(DenseCLIPConfig)} | {"model_type"}
    assert fields.keys() <= known, "a field that the config does not have would be ignored"
    for tower in {"vision_config", "text_config"} & fields.keys():
        known = {field.name for field in dataclasses.fields(getattr(config, tower))} | {"model_type"}
        assert fields[tower].keys() <= known, tower
    # Classes belong to the data set.
    assert not fields.keys() & {"id2label", "label2id", "class_names", "class_token_ids", "palette"}
    assert ("text_config" in fields) == fields["use_language"]
    # Both ways of loading it say the same.
    assert DenseCLIPConfig.from_pretrained(path).to_dict() == config.to_dict()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_model_is_as_large_as_published(path):
    model = build_on_meta(path)
    counts = {"text": 0, "rest": 0}
    for name, parameter in model.named_parameters():
        # The published text encoder holds its projection; the contexts lie outside it.
        counts["text" if name.startswith(("text_encoder.", "text_projection.")) else "rest"] += parameter.numel()
    assert counts["rest"] > 0
    if path.stem in PUBLISHED_MILLIONS:
        assert f"{counts['rest'] / 1e6:.3f}" == f"{PUBLISHED_MILLIONS[path.stem]:.3f}"
        assert counts["text"] / 1e6 == pytest.approx(TEXT_MILLIONS.get(path.stem, 0), abs=5e-4)


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem in PUBLISHED_MILLIONS], ids=lambda path: path.stem
)
def test_protocol_and_heads_are_the_published_ones(path):
    """What no parameter count shows."""
    config = DenseCLIPConfig.from_json_file(path)
    is_vit = "vit" in path.stem
    side, stride = (640, 426) if is_vit else (512, 341)
    assert config.inference_mode == "slide"
    assert (config.window_size, config.window_stride) == ((side, side), (stride, stride))
    # Position embeddings have the grid of the training crop: 16 x 16 cells of stride 32, or 40 x 40 patches.
    assert config.vision_config.image_size // config.vision_config.patch_size == (40 if is_vit else 16)
    assert config.vision_config.num_attention_heads == (12 if is_vit else 32)
    if is_vit:
        assert tuple(config.feature_layers) == (3, 5, 7, 11)
        assert config.class_embedding_scale == 2
        # The published baseline has no stochastic depth.
        assert config.drop_path_rate == (0.1 if config.use_language else 0)
    if config.use_language:
        assert config.text_config.num_attention_heads == 8
        assert config.text_config.max_position_embeddings == 77
        assert config.context_decoder_num_attention_heads == 4
        assert (config.temperature, config.auxiliary_loss_weight, config.gamma_init_value) == (0.07, 0.4, 1e-4)
        assert config.score_map_level == (2 if is_vit else 3)
        assert {config.text_config.hidden_act} == {"quick_gelu"}
