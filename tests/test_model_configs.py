"""The architectures of configuration/models: they load, they are complete, and they are as large as the paper's."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers.initialization import no_init_weights

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
# Millions of the rows that no code was published for: the paper's Table 1, and for Swin its own repository's figures.
PAPER_MILLIONS = {
    "imagenet_fpn_rn50": "31.0",
    "imagenet_fpn_rn101": "50.0",
    "upernet_swin_tiny": "60",
    "upernet_swin_small": "81",
}
# Of torchvision's models, without the classifier and, for transformers, the last norm. The maps of Swin have norms of
# their own here: twice 96 + 192 + 384 + 768.
BACKBONE_PARAMETERS = {
    "imagenet_fpn_rn50": 25_557_032 - 2_049_000,
    "imagenet_fpn_rn101": 44_549_160 - 2_049_000,
    "imagenet_fpn_vit_b16": 86_567_656 - 769_000 - 1_536,
    "upernet_swin_tiny": 28_288_354 - 769_000 - 1_536 + 2_880,
    "upernet_swin_small": 49_606_258 - 769_000 - 1_536 + 2_880,
}
# Rows that differ in language or weights, not in the image encoder.
BACKBONE_PARAMETERS |= {
    "imagenet21k_fpn_vit_b16": BACKBONE_PARAMETERS["imagenet_fpn_vit_b16"],
    "denseclip_imagenet_fpn_rn50": BACKBONE_PARAMETERS["imagenet_fpn_rn50"],
    "denseclip_imagenet_fpn_rn101": BACKBONE_PARAMETERS["imagenet_fpn_rn101"],
    "denseclip_upernet_swin_tiny": BACKBONE_PARAMETERS["upernet_swin_tiny"],
    "denseclip_upernet_swin_small": BACKBONE_PARAMETERS["upernet_swin_small"],
}
# Millions in the text tower of CLIP, as OpenAI's archives hold it: (width, projection) with 49,408 tokens.
TEXT_MILLIONS = {
    "denseclip_fpn_rn50": 63.166 + 512 * 1024 / 1e6,
    "denseclip_fpn_rn101": 63.166 + 512 * 512 / 1e6,
    "denseclip_fpn_vit_b16": 63.166 + 512 * 512 / 1e6,
    # Towers of RN50 and ViT-B/16.
    "denseclip_language_fpn_rn50": 63.166 + 512 * 1024 / 1e6,
    "denseclip_pre_model_fpn_rn50": 63.166 + 512 * 1024 / 1e6,
    "denseclip_imagenet_fpn_rn50": 63.166 + 512 * 512 / 1e6,
    "denseclip_imagenet_fpn_rn101": 63.166 + 512 * 512 / 1e6,
    "denseclip_upernet_swin_tiny": 63.166 + 512 * 512 / 1e6,
    "denseclip_upernet_swin_small": 63.166 + 512 * 512 / 1e6,
}


def build_on_meta(path: Path, **fields) -> DenseCLIPForSemanticSegmentation:
    config = DenseCLIPConfig.from_json_file(path).to_dict() | fields
    config["id2label"] = {index: f"class {index}" for index in range(NUM_CLASSES)}
    config["label2id"] = None
    if config["use_language"]:
        config["class_names"] = list(config["id2label"].values())
        config["class_token_ids"] = [[49406, 320 + index, 49407] for index in range(NUM_CLASSES)]
    with torch.device("meta"), no_init_weights():
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


def count_parameters(model: DenseCLIPForSemanticSegmentation) -> tuple[int, int]:
    """In the text tower, and in the rest. The published text encoder holds its projection, and not the contexts."""
    counts = {True: 0, False: 0}
    for name, parameter in model.named_parameters():
        counts[name.startswith(("text_encoder.", "text_projection."))] += parameter.numel()
    return counts[True], counts[False]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_model_is_as_large_as_published(path):
    model = build_on_meta(path)
    text, rest = count_parameters(model)
    assert rest > 0
    if path.stem in PUBLISHED_MILLIONS:
        assert f"{rest / 1e6:.3f}" == f"{PUBLISHED_MILLIONS[path.stem]:.3f}"
    if path.stem in PAPER_MILLIONS:
        decimals = len(PAPER_MILLIONS[path.stem].partition(".")[2])
        assert f"{rest / 1e6:.{decimals}f}" == PAPER_MILLIONS[path.stem]
    if path.stem in BACKBONE_PARAMETERS:
        backbone = {name: p.numel() for name, p in model.image_encoder.backbone.named_parameters()}
        # Some releases of Transformers keep Swin's last norm, which no map passes through.
        assert sum(backbone.values()) - backbone.get("swin.layernorm.weight", 0) * 2 == BACKBONE_PARAMETERS[path.stem]
    if path.stem != "denseclip_fpn_small":
        assert text / 1e6 == pytest.approx(TEXT_MILLIONS.get(path.stem, 0), abs=5e-4)


@pytest.mark.parametrize("stem", ["clip_fpn_vit_b16", "imagenet_fpn_vit_b16", "imagenet21k_fpn_vit_b16"])
def test_the_papers_vits_are_counted_with_positions_for_512_pixels(stem):
    model = build_on_meta(FOLDER / f"{stem}.json")
    (positions,) = (
        parameter.shape[-2] for name, parameter in model.named_parameters() if "position_embedding" in name
    )
    assert positions == 1 + (14**2 if "imagenet" in stem else 40**2)
    assert f"{(count_parameters(model)[1] + (1 + 32**2 - positions) * 768) / 1e6:.1f}" == "100.8"


def test_table_2_is_counted_with_what_runs_for_every_image():
    """As near as its 46.5, 116.9 and 50.2 million come: see the README beside the models."""
    language, pre_model = (FOLDER / f"denseclip_{mode}_fpn_rn50.json" for mode in ("language", "pre_model"))
    _, rest = count_parameters(build_on_meta(language))
    assert f"{rest / 1e6:.3f}" == "46.299"
    assert f"{(rest + NUM_CLASSES * 1024) / 1e6:.1f}" == "46.5"  # the class embeddings in place of the text tower
    text, rest = count_parameters(build_on_meta(pre_model))
    assert (f"{rest / 1e6:.3f}", f"{(rest + text) / 1e6:.3f}") == ("49.984", "113.674")
    assert sum(count_parameters(build_on_meta(pre_model, context_decoder_num_hidden_layers=6))) / 1e6 == pytest.approx(
        116.9, abs=0.1
    )
    assert f"{PUBLISHED_MILLIONS['denseclip_fpn_rn50']:.1f}" == "50.2"


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


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem in BACKBONE_PARAMETERS], ids=lambda path: path.stem
)
def test_rows_without_published_code_are_what_their_recipes_say(path):
    """What no parameter count shows."""
    config = DenseCLIPConfig.from_json_file(path)
    vision = config.vision_config
    if vision.model_type == "resnet":
        assert vision.layer_type == "bottleneck" and not vision.downsample_in_bottleneck
    if vision.model_type == "swin":
        assert tuple(vision.num_heads) == (3, 6, 12, 24)
        assert (vision.window_size, vision.drop_path_rate, vision.hidden_act) == (7, 0.3, "gelu")
        assert (config.decode_head_hidden_size, config.pool_scales) == (512, (1, 2, 3, 6))
        assert (config.auxiliary_head_hidden_size, config.auxiliary_loss_weight) == (256, 0.4)
    if vision.model_type == "vit":
        assert (vision.num_attention_heads, vision.hidden_act, vision.qkv_bias) == (12, "gelu", True)
        # Its weights load as they are; another grid of positions is made from this one at run time.
        assert vision.image_size == 224
        assert config.feature_layers == (3, 5, 7, 11)
    assert (config.decode_head_type == "upernet") == config.use_auxiliary_head == (vision.model_type == "swin")
    assert config.inference_mode == ("whole" if vision.model_type == "swin" else "slide")
    side, stride = (640, 426) if vision.model_type == "vit" else (512, 341)
    assert (config.window_size, config.window_stride) == ((side, side), (stride, stride))
    if config.use_language:
        assert (config.projection_dim, config.prompting_mode, config.score_map_level) == (512, "post_model", 3)
        # The last map of a crop of 512 pixels.
        assert config.attention_pool_grid_size == 512 // 32
        assert (config.text_config.num_attention_heads, config.text_config.hidden_act) == (8, "quick_gelu")
        assert (config.temperature, config.auxiliary_loss_weight, config.gamma_init_value) == (0.07, 0.4, 1e-4)


@pytest.mark.parametrize("mode", ["language", "pre_model"])
def test_prompting_modes_of_table_2_differ_in_nothing_else(mode):
    post_model = json.loads((FOLDER / "denseclip_fpn_rn50.json").read_text())
    other = json.loads((FOLDER / f"denseclip_{mode}_fpn_rn50.json").read_text())
    differing = {name for name in post_model.keys() | other.keys() if post_model.get(name) != other.get(name)}
    of_the_decoder = {name for name in post_model if name.startswith("context_decoder_")}
    assert len(of_the_decoder) == 5
    assert differing == {"prompting_mode", "gamma_init_value"} | (of_the_decoder if mode == "language" else set())
