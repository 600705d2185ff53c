# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Every backbone of the installed Transformers as the image encoder of DenseCLIP, and weights from checkpoints."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.modeling_denseclip_backbone import BackboneLayout, measure_layout
from tests.hub_server import USER, HubServer
from tests.test_remote_code import ROOT, SIZE, assert_same, run_elsewhere, segment_here
from tests.tiny import (
    TINY_CLASS_NAMES,
    draw_picture,
    make_tiny_tokenizer,
    save_checkpoint,
    spread_classes,
    tiny_config,
    tiny_model,
)
from tests.warm import warm_python


@dataclass(frozen=True)
class Case:
    """
    A tiny backbone, and what it makes of 90 x 128 pixels.

    Args:
        fields: What makes its config tiny.
        size: The height and width that the image is resized to, by default to the next multiples of 32.
        stride: Pixels per cell of the patches, if all maps have one stride.
        stages: Whose outputs are used.
    """

    fields: dict
    size: tuple[int, int] = (96, 128)
    stride: int | None = None
    stages: tuple[str, ...] = ("stage1", "stage2", "stage3", "stage4")


VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64}
VIT_OF_14 = VIT | {"image_size": 56}
FOUR_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
RESNET = FOUR_STAGES | {"embedding_size": 8}
# The second stage has a shifted window, too.
SWIN = {"embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}
PP_LCNET = {
    "scale": 0.25,
    "block_configs": [
        [[3, 16, 32, 1, False]],
        [[3, 32, 64, 2, False]],
        [[3, 64, 128, 2, False]],
        [[3, 128, 256, 2, False]],
        [[5, 256, 512, 2, True]],
    ],
}
PP_LCNET_STAGES = ("stage2", "stage3", "stage4", "stage5")

WORKING = {
    "beit": Case(VIT | {"intermediate_size": 32, "use_relative_position_bias": True}, stride=16),
    "bit": Case(RESNET | {"num_groups": 4}),
    "convnext": Case(FOUR_STAGES),
    "convnextv2": Case(FOUR_STAGES),
    "deit": Case(VIT | {"intermediate_size": 32}, stride=16),
    "dinov2": Case(VIT_OF_14, size=(112, 140), stride=14),
    "dinov2_with_registers": Case(VIT, stride=16),
    "dinov3_convnext": Case(FOUR_STAGES),
    "dinov3_vit": Case(VIT | {"intermediate_size": 32, "num_register_tokens": 2}, stride=16),
    "focalnet": Case(
        {"embed_dim": 8, "hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1]},
        stages=("stem", "stage1", "stage2", "stage4"),  # its third stage has the stride of the fourth
    ),
    "hgnet_v2": Case(
        RESNET
        | {
            "stem_channels": [3, 4, 8],
            "stage_in_channels": [8, 8, 16, 24],
            "stage_mid_channels": [4, 4, 8, 8],
            "stage_out_channels": [8, 16, 24, 32],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [1, 1, 1, 1],
        }
    ),
    "hiera": Case(
        {"embed_dim": 8, "image_size": [64, 96], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}, size=(64, 96)
    ),
    "lw_detr_vit": Case(  # 4 x 4 windows of patches
        VIT | {"pretrain_image_size": 64, "window_block_indices": [0, 2]}, size=(128, 128), stride=16
    ),
    "maskformer-swin": Case(SWIN),
    "pixio": Case(VIT, stride=16),
    "pp_lcnet": Case(PP_LCNET, stages=PP_LCNET_STAGES),
    "pp_lcnet_v3": Case(PP_LCNET, stages=PP_LCNET_STAGES),
    "pvt_v2": Case(FOUR_STAGES | {"num_attention_heads": [1, 2, 2, 4]}),
    "resnet": Case(RESNET),
    "rf_detr_dinov2": Case(VIT_OF_14 | {"num_windows": 2}, size=(112, 140), stride=14),  # 2 x 2 windows
    "rt_detr_resnet": Case(RESNET),
    "sapiens2": Case(
        VIT
        | {
            "intermediate_size": 32,
            "num_key_value_heads_per_layer": [2, 1, 1, 2],
            "num_key_value_attention_heads": 1,
            "num_first_full_attention_layers": 1,
            "num_last_full_attention_layers": 1,
        },
        stride=16,
    ),
    "swin": Case(SWIN),
    "swinv2": Case(SWIN),
    "textnet": Case(
        {
            "stem_out_channels": 8,
            "hidden_sizes": [8, 8, 16, 24, 32],
            "conv_layer_kernel_sizes": [[[3, 3]], [[1, 3]], [[3, 1]], [[3, 3]]],
            "conv_layer_strides": [[2], [2], [2], [2]],
        }
    ),
    "tipsv2_vision_model": Case(VIT_OF_14, size=(112, 140), stride=14),
    "uvdoc_backbone": Case(
        {
            "resnet_head": [[3, 8], [8, 8]],
            "resnet_configs": [[[8, 8, 1, False]], [[8, 16, 1, True]], [[16, 32, 1, True]]],
            "stage_configs": [[[32, dilation]] for dilation in (1, 2, 5, 8, 12, 18)],
        },
        stride=16,
        stages=("stage2", "stage3", "stage4", "stage6"),  # at 1/3, 1/2, 2/3 and the whole of its depth
    ),
    "vit": Case(VIT | {"intermediate_size": 32}, stride=16),
    "vitdet": Case(VIT | {"pretrain_image_size": 64}, stride=16),
}

# What the error says of the others.
REFUSED = {
    "dinat": (ImportError, "requires the natten library"),
    "pp_lcnet_v4": (ValueError, r"'stage3' .* gives \(1, 192, 56, 112\) .* both sides shrunk by the same"),
    "timm_backbone": (ValueError, "'timm_backbone', whose config names no stages .* backbone of Transformers' own"),
    "tipsv2": (ValueError, "'tipsv2', whose config names no stages .* image encoder alone: 'tipsv2_vision_model'"),
    "vitpose_backbone": (ValueError, r"gives \(1, 192, 768\) .* needs \(batch_size, channels, height, width\)"),
}

# Not registered as backbones, but ours makes one of each.
PLAIN_VITS = ("vit", "deit")
NOT_A_SIZE = (90, 128)  # 90 is no multiple of a patch or window


def image_config(name: str, **changes) -> dict:
    # With the dtype that a saved config has, so that the layout of a loaded model is that in the cache.
    return {"model_type": name, "dtype": "float32", **WORKING[name].fields, **changes}


def model_on(vision_config: dict | PreTrainedConfig, **fields) -> DenseCLIPForSemanticSegmentation:
    return tiny_model("resnet", vision_config=vision_config, **fields).eval()


def layout_of(vision_config: dict, feature_layers: tuple[int, ...] | None = None) -> BackboneLayout:
    config = AutoConfig.for_model(**vision_config)
    return measure_layout(config.to_json_string(use_diff=False), feature_layers)


def noise(size: tuple[int, int] = NOT_A_SIZE) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


# --- Every backbone of this release ----------------------------------------------------------------------------------


@pytest.fixture(
    scope="module", params=[name for name in WORKING if name in (*PLAIN_VITS, *MODEL_FOR_BACKBONE_MAPPING_NAMES)]
)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name) -> DenseCLIPForSemanticSegmentation:
    return model_on(image_config(name))


def test_maps_gradients_and_logits(name, model):
    case = WORKING[name]
    labels = torch.randint(0, len(TINY_CLASS_NAMES), (2, *NOT_A_SIZE))
    outputs = model.train()(pixel_values=noise(), labels=labels)
    outputs.loss.backward()
    model.eval()
    assert outputs.loss.isfinite()
    assert not [key for key, parameter in model.named_parameters() if parameter.grad is None]

    # A plain ViT has patches of 14 or 16, and maps from a quarter of one to two.
    stride = 4 if case.stride is None else case.stride / 4
    sizes = [(case.size[0] / stride, case.size[1] / stride)]
    for _ in range(3):
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    with torch.no_grad():
        feature_maps = model.image_encoder(noise()).feature_maps
    assert [feature_map.shape[-2:] for feature_map in feature_maps] == sizes
    assert tuple(feature_map.shape[1] for feature_map in feature_maps) == model.image_encoder.layout.channels
    assert outputs.logits.shape == (2, len(TINY_CLASS_NAMES), *sizes[0])
    assert outputs.score_map.shape == (2, len(TINY_CLASS_NAMES), *sizes[3 if case.stride is None else 2])


@torch.no_grad()
def test_maps_are_those_of_transformers(name, model):
    case, encoder = WORKING[name], model.image_encoder
    takes_one_size = encoder.layout.input_size is not None
    pixel_values = F.interpolate(
        noise(), size=case.size, mode="bilinear", align_corners=False, antialias=takes_one_size
    )
    if name in PLAIN_VITS:
        vit = AutoModel.from_config(AutoConfig.for_model(**image_config(name)), add_pooling_layer=False).eval()
        vit.load_state_dict(encoder.backbone.model.state_dict(), strict=False)  # the last norm is left out
        expected = maps_of_plain_vit(vit, pixel_values)
    else:
        config = AutoConfig.for_model(**image_config(name))
        config.out_features = list(case.stages)
        backbone = AutoBackbone.from_config(config).eval()
        backbone.load_state_dict(encoder.backbone.state_dict())
        expected = backbone(pixel_values).feature_maps
    assert encoder.layout.stages == case.stages
    if case.stride is not None:
        expected = encoder.pyramid(expected)
    for received, wanted in zip(encoder(noise()).feature_maps, expected, strict=True):
        torch.testing.assert_close(received, wanted)


def maps_of_plain_vit(vit: nn.Module, pixel_values: torch.Tensor) -> list[torch.Tensor]:
    """What leaves each layer of a ViT with patches of 16, without the tokens that come before the patches."""
    states = []
    for module in vit.modules():
        if type(module).__name__ in ("ViTLayer", "DeiTLayer"):
            module.register_forward_hook(lambda _, __, output: states.append(output))
    vit(pixel_values, interpolate_pos_encoding=True)
    height, width = pixel_values.shape[-2] // 16, pixel_values.shape[-1] // 16
    return [state[:, -height * width :].permute(0, 2, 1).reshape(2, -1, height, width) for state in states]


@torch.no_grad()
def test_saved_and_loaded(name, model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path)
    assert torch.equal(loaded(noise()).logits, model(noise()).logits)
    # Distributed training waits for a gradient of each that asks for one: still those of which the first test saw it.
    before, after = ({key for key, value in m.named_parameters() if value.requires_grad} for m in (model, loaded))
    assert after == before


@pytest.mark.parametrize("refused", [name for name in REFUSED if name in MODEL_FOR_BACKBONE_MAPPING_NAMES])
def test_the_others_are_refused_with_the_reason(refused):
    error, said = REFUSED[refused]
    with pytest.raises(error, match=f"(?s){said}"):
        model_on({"model_type": refused})


def test_no_backbone_of_this_release_is_passed_over():
    problems = []
    for new in MODEL_FOR_BACKBONE_MAPPING_NAMES.keys() - WORKING.keys() - REFUSED.keys():
        try:
            layout_of({"model_type": new})
        except Exception as error:
            problems.append(f"{new}: {type(error).__name__}: {error}")
    assert not problems, (
        "This release of Transformers has backbones that do not work and that are not named here. Make them work, or"
        " name them in REFUSED and in docs/backbones.md with the reason:\n" + "\n".join(problems)
    )


def test_the_readme_says_which_work():
    section = (ROOT / "docs" / "backbones.md").read_text()
    rows = [row.split("|")[1:3] for row in section.splitlines() if row.startswith("| ")][1:]
    works = {name for names, what in rows for name in re.findall(r"`(.+?)`", names) if not what.startswith(" no:")}
    refused = {name for names, what in rows for name in re.findall(r"`(.+?)`", names) if what.startswith(" no:")}
    assert (works, refused) == (WORKING.keys(), REFUSED.keys())


# --- Stages ----------------------------------------------------------------------------------------------------------


def test_four_stages_that_are_named_are_taken():
    stages = ["stem", "stage1", "stage3", "stage4"]
    assert layout_of(image_config("dinov2", out_features=stages)).stages == tuple(stages)
    # Of a hierarchical one each must have half the size of the one before.
    with pytest.raises(ValueError, match=r"'resnet' has stages of strides \{'stem': 4, 'stage1': 4, 'stage2': 8"):
        layout_of(image_config("resnet", out_features=["stem", "stage1", "stage2", "stage3"]))
    with pytest.raises(ValueError, match="needs 4 of which each is twice the one before"):
        layout_of(image_config("resnet", hidden_sizes=[8, 16, 24], depths=[1, 1, 1]))


def test_layers_of_a_plain_backbone_are_those_of_the_config():
    config = image_config("dinov2", num_hidden_layers=6)
    assert layout_of(config).stages == ("stage2", "stage3", "stage4", "stage6")  # 6/3, 6/2, 6 * 2/3, 6
    assert layout_of(config, (0, 1, 4, 5)).stages == ("stage1", "stage2", "stage5", "stage6")
    # A checkpoint may bring other names along.
    config["out_features"] = ["stage3", "stage4", "stage5", "stage6"]
    assert layout_of(config, (0, 1, 4, 5)).stages == ("stage1", "stage2", "stage5", "stage6")
    with pytest.raises(ValueError, match=r"four ascending layer indices below 6 .* got \(0, 1, 4, 6\)"):
        layout_of(config, (0, 1, 4, 6))


def test_config_with_tuples():
    """ConvNeXt's backbone cannot add the tuples of its own config's defaults to a list."""
    model_on(ConvNextConfig(hidden_sizes=(8, 16, 24, 32), depths=(1, 1, 1, 1)))


# --- Sizes -----------------------------------------------------------------------------------------------------------


def ramp(height: int, width: int) -> torch.Tensor:
    """Each pixel says where it is: column + 1000 * row."""
    return (torch.arange(width) + 1000 * torch.arange(height)[:, None]).float().expand(1, 3, height, width)


def resized_ramp(size: tuple[int, int], to: tuple[int, int]) -> torch.Tensor:
    """Bilinear resizing keeps a ramp a ramp: a new pixel has the old position of its centre, inside the image."""
    rows, columns = (
        ((torch.arange(new) + 0.5) * old / new - 0.5).clamp(0, old - 1) for old, new in zip(size, to, strict=True)
    )
    return (columns + 1000 * rows[:, None]).expand(1, 3, *to)


@pytest.mark.parametrize("backbone", ["dinov2", "hiera", "lw_detr_vit", "swin"])
def test_images_of_other_sizes_are_resized_whole(backbone):
    layout, size = layout_of(image_config(backbone)), WORKING[backbone].size
    expected = resized_ramp(NOT_A_SIZE, size)
    if layout.input_size is not None:  # made smaller, by Pillow's rule, which smooths
        picture = Image.fromarray(ramp(*NOT_A_SIZE)[0, 0].numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
        expected = torch.from_numpy(np.array(picture)).expand(1, 3, *size)
    torch.testing.assert_close(layout.resize_input(ramp(*NOT_A_SIZE)), expected, rtol=1e-5, atol=1e-2)
    fits = noise(size)
    for pixel_values in (fits, fits.to(torch.bfloat16), fits.to(memory_format=torch.channels_last)):
        assert torch.equal(layout.resize_input(pixel_values), pixel_values)


@pytest.mark.parametrize("backbone", ["dinov2", "hiera"])
def test_every_pixel_counts(backbone):
    """Also those of the last row and column, which are no whole patch."""
    pixel_values = noise().requires_grad_()
    encoder = model_on(image_config(backbone), use_language=False).image_encoder
    sum(feature_map.square().sum() for feature_map in encoder(pixel_values).feature_maps).backward()
    assert (pixel_values.grad.abs().amax(dim=(0, 1)) > 0).all()


# --- Weights of checkpoints ------------------------------------------------------------------------------------------

# What users' checkpoints hold, and the prefix that its tensors have beside those of the backbone.
CHECKPOINTS = {
    "dinov2": (AutoModel, ""),
    "resnet": (AutoModelForImageClassification, "resnet."),
    "swin": (AutoModelForImageClassification, ""),
    "vit": (AutoModelForImageClassification, "vit."),
}
# What is new beside the checkpoints, made small.
SMALL_FIELDS = {
    "context_decoder_hidden_size": 32,
    "neck_hidden_size": 16,
    "decode_head_hidden_size": 16,
    "attention_pool_grid_size": 3,
}


@torch.no_grad()
def save_with_random_weights(model: PreTrainedModel, folder: Path):
    """No tensor is as it was initialised, so that one that is left behind shows."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.05, 0.15)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    """A folder of checkpoints: `clip`, with its tokenizer, and one for each of `CHECKPOINTS`."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("checkpoints")
    for image, (model_class, _) in CHECKPOINTS.items():
        config = AutoConfig.for_model(**image_config(image))
        save_with_random_weights(model_class.from_config(config), folder / image)
    text_config = tiny_config("resnet").text_config.to_dict()
    vision_config = VIT | {"intermediate_size": 32, "patch_size": 16}
    clip = CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=24)
    save_with_random_weights(CLIPModel(clip), folder / "clip")
    make_tiny_tokenizer().save_pretrained(folder / "clip")
    return folder


def from_clip_pretrained(**kwargs) -> DenseCLIPForSemanticSegmentation:
    return DenseCLIPForSemanticSegmentation.from_clip_pretrained(
        **(SMALL_FIELDS | {"class_names": TINY_CLASS_NAMES} | kwargs)
    )


@pytest.mark.parametrize("image", CHECKPOINTS)
@torch.no_grad()
def test_every_tensor_is_the_checkpoints(image, checkpoints):
    model = from_clip_pretrained(text=checkpoints / "clip", image=checkpoints / image)
    assert not model.training
    source = CHECKPOINTS[image][0].from_pretrained(checkpoints / image).state_dict()
    new = set()
    for name, tensor in model.image_encoder.backbone.state_dict().items():
        source_name = CHECKPOINTS[image][1] + name.removeprefix("model.")
        if source_name in source:
            assert torch.equal(tensor, source.pop(source_name)), name
        else:
            new.add(name)
    # Swin's backbone has a norm for each of its maps, which no checkpoint of a classifier has.
    norms = {f"hidden_states_norms.stage{stage}.{kind}" for stage in (1, 2, 3, 4) for kind in ("weight", "bias")}
    assert new == (norms if image == "swin" else set())
    assert all(name.startswith(("classifier.", "vit.layernorm.")) for name in source), source.keys()

    clip = load_file(checkpoints / "clip" / "model.safetensors")
    for name, tensor in model.text_encoder.state_dict().items():
        assert torch.equal(tensor, clip[f"text_model.{name}"]), name
    assert torch.equal(model.text_projection.weight, clip["text_projection.weight"])
    # The pool is new, and brings the pixels into the width of the text tower.
    assert model.image_encoder(noise()).pixel_embeddings.shape[:2] == (2, 24)
    assert model(pixel_values=noise(), labels=torch.zeros(2, *NOT_A_SIZE, dtype=torch.long)).loss.isfinite()


@pytest.mark.parametrize("image", ["dinov2", "resnet", "vit"])
@torch.no_grad()
def test_maps_are_hidden_states_of_the_checkpoint(image, checkpoints):
    source = CHECKPOINTS[image][0].from_pretrained(checkpoints / image).eval()
    pixel_values = noise(WORKING[image].size)
    if image == "vit":
        expected = maps_of_plain_vit(source.vit, pixel_values)
    else:
        expected = source(pixel_values, output_hidden_states=True).hidden_states[1:]
    if image == "dinov2":  # its last norm, on each layer; the class token goes
        expected = [source.layernorm(state)[:, 1:].transpose(1, 2).unflatten(2, (8, 10)) for state in expected]
    encoder = from_clip_pretrained(image=checkpoints / image, use_language=False).image_encoder
    for received, wanted in zip(encoder.backbone(pixel_values).feature_maps, expected, strict=True):
        torch.testing.assert_close(received, wanted)


def test_image_encoder_alone(checkpoints):
    """The baseline: no CLIP, no tokenizer, no text."""
    model = from_clip_pretrained(image=checkpoints / "resnet", use_language=False)
    assert dict(model.named_children()).keys() == {"image_encoder", "neck", "decode_head"}
    assert not any(name.startswith("image_encoder.attention_pool") for name in model.state_dict())
    outputs = model(pixel_values=noise(), labels=torch.zeros(2, *NOT_A_SIZE, dtype=torch.long))
    assert outputs.loss.isfinite() and outputs.score_map is None and outputs.text_embeddings is None
    assert model.config.id2label == dict(enumerate(TINY_CLASS_NAMES))


def test_a_config_goes_before_the_checkpoint(checkpoints):
    config = tiny_config("resnet", False, vision_config={"model_type": "swin", **SWIN, "drop_path_rate": 0.3})
    model = from_clip_pretrained(image=checkpoints / "swin", config=config)
    assert (model.config.vision_config.drop_path_rate, model.config.vision_config.embed_dim) == (0.3, 8)
    with pytest.raises(ValueError, match="image encoder of type 'resnet', the config asks for 'swin'"):
        from_clip_pretrained(image=checkpoints / "resnet", config=config)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"text": "clip", "image": "clip"}, "`image` names a CLIP .* Pass it as the first argument"),
        ({"text": "clip", "image": "bert"}, "'bert', which is no image backbone of Transformers. Take one"),
        ({"text": "resnet", "image": "resnet"}, "model of type 'resnet'; the weights must be CLIP's"),
        ({"image": "resnet"}, "No text tower is named .* Pass `text`"),
        ({"clip_name_or_path": "clip", "text": "clip", "image": "resnet"}, "each has a text tower. Pass one of them"),
        ({"text": "clip"}, "An image encoder is missing"),
        ({}, "An image encoder is missing"),
    ],
)
def test_what_is_no_pair_of_towers_is_refused(places, said, checkpoints):
    BertConfig().save_pretrained(checkpoints / "bert")
    with pytest.raises(ValueError, match=said):
        from_clip_pretrained(**{argument: checkpoints / place for argument, place in places.items()})


@pytest.mark.parametrize("how", ["missing", "misshapen"])
@pytest.mark.parametrize(
    ("image", "broken"),
    [
        ("resnet", "encoder.stages.1.layers.0.shortcut.convolution.weight"),
        # Norms, which must not pass for those that are new.
        ("resnet", "embedder.embedder.normalization.running_mean"),
        ("dinov2", "layernorm.weight"),
        ("swin", "swin.embeddings.norm.bias"),
        ("vit", "embeddings.position_embeddings"),
    ],
)
def test_broken_tensors_are_named(image, broken, how, checkpoints, tmp_path):
    tensors = load_file(checkpoints / image / "model.safetensors")
    source_name = CHECKPOINTS[image][1] + broken
    tensor = tensors.pop(source_name)
    said = broken
    if how == "misshapen":
        tensors[source_name] = torch.cat([tensor, tensor])
        said = f"{broken} ({tuple(tensors[source_name].shape)}, the config says {tuple(tensor.shape)})"
    (tmp_path / "config.json").write_bytes((checkpoints / image / "config.json").read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=re.escape(f"Tensors missing or of another shape: {said}.")):
        from_clip_pretrained(image=tmp_path, use_language=False)


# --- Other processes -------------------------------------------------------------------------------------------------

# `tests` is not imported, since it switches the Hub off.
LOAD_BY_ID = """
import json, sys
import torch
from modeling_denseclip import DenseCLIPForSemanticSegmentation

torch.manual_seed(0)
DenseCLIPForSemanticSegmentation.from_clip_pretrained(**json.loads(sys.argv[1])).save_pretrained(sys.argv[2])
"""


def test_loaded_by_ids_of_the_hub(checkpoints, tmp_path):
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    with HubServer() as hub:
        for name in ("clip", "dinov2"):
            files = {path.name: path.read_bytes() for path in (checkpoints / name).iterdir()}
            hub.add_files("model", f"{USER}/{name}", files)
        arguments = {"text": f"{USER}/clip", "image": f"{USER}/dinov2", "class_names": TINY_CLASS_NAMES}
        subprocess.run(
            [*warm_python(), "-c", LOAD_BY_ID, json.dumps(SMALL_FIELDS | arguments), str(tmp_path / "loaded")],
            cwd=ROOT,
            env=kept | hub.environment(tmp_path) | {"CUDA_VISIBLE_DEVICES": ""},
            check=True,
        )
    torch.manual_seed(0)
    expected = from_clip_pretrained(text=checkpoints / "clip", image=checkpoints / "dinov2").state_dict()
    received = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path / "loaded").state_dict()
    assert received.keys() == expected.keys()
    assert all(torch.equal(received[name], tensor) for name, tensor in expected.items())


LOAD_ELSEWHERE = """
model = AutoModelForSemanticSegmentation.from_pretrained(directory, trust_remote_code=True)
image_processor = AutoImageProcessor.from_pretrained(directory, trust_remote_code=True)
segmenter = pipeline("image-segmentation", model=directory, trust_remote_code=True, device="cpu")
check(model, image_processor, segmenter.model)
results = segment(model, image_processor)
results["backbone"] = type(model.image_encoder.backbone).__name__
results["labels"] = [segment["label"] for segment in segmenter(picture)]
torch.save(results, output_path)
print("done")
"""


def test_loaded_without_this_package(tmp_path):
    processor = DenseCLIPImageProcessor(size=SIZE)
    pixel_values = processor([draw_picture(160, 96, seed) for seed in range(4)], return_tensors="pt").pixel_values
    model = spread_classes(model_on(image_config("swin")), pixel_values)
    save_checkpoint(model, processor, tmp_path / "saved")
    picture = draw_picture(133, 110, seed=7)
    expected = segment_here(model, processor, picture)
    results, stderr = run_elsewhere(LOAD_ELSEWHERE, tmp_path / "saved", picture, tmp_path / "elsewhere")
    assert stderr == []
    assert results["backbone"] == "SwinBackbone"
    assert_same(results, expected)
    assert results["labels"] == [TINY_CLASS_NAMES[index] for index in expected["mask"].unique()]


# --- Ways to run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["dinov2", "swin", "vit"])
@torch.no_grad()
def test_attention_implementations_agree(backbone, tmp_path):
    model_on(image_config(backbone)).save_pretrained(tmp_path)
    outputs = {}
    for implementation in ("eager", "sdpa"):
        model = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path, attn_implementation=implementation)
        parts = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
        assert {part.config._attn_implementation for part in parts} == {implementation}
        outputs[implementation] = model(noise(), output_attentions=implementation == "eager")
    eager, sdpa = outputs["eager"].logits, outputs["sdpa"].logits
    torch.testing.assert_close(eager, sdpa, rtol=0, atol=1e-5 * eager.std().item())
    # Those of the backbone's layers or stages, and of the attention pool among all cells and their mean.
    *of_backbone, of_pool = outputs["eager"].attentions
    assert len(of_backbone) == 4
    length = 1 + outputs["eager"].score_map[0, 0].numel()
    assert of_pool.shape[-2:] == (length, length)


@pytest.mark.parametrize("backbone", ["dinov2", "resnet", "swin", "vit"])
@torch.no_grad()
def test_half_precision(backbone, tmp_path):
    model = model_on(image_config(backbone))
    expected = model(noise()).logits
    model.save_pretrained(tmp_path)
    half = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    logits = half(noise().to(torch.bfloat16)).logits
    assert logits.dtype == torch.bfloat16
    # Its numbers have 8 bits.
    assert (logits.float() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize(("backbone", "layer"), [("dinov2", "Dinov2Layer"), ("swin", "SwinStage")])
def test_gradient_checkpointing_changes_no_gradient(backbone, layer):
    fields = {"context_decoder_dropout": 0.0, "decode_head_dropout": 0.0}
    gradients, runs = {}, {False: 0, True: 0}
    for is_on in runs:
        model = model_on(image_config(backbone, drop_path_rate=0.0), **fields).train()
        if is_on:
            model.gradient_checkpointing_enable()
        (first, *_) = (module for module in model.modules() if type(module).__name__ == layer)
        norm = next(module for module in first.modules() if isinstance(module, nn.LayerNorm))

        def count(*_, is_on=is_on):
            runs[is_on] += 1

        norm.register_forward_hook(count)
        model(pixel_values=noise(), labels=torch.zeros(2, *NOT_A_SIZE, dtype=torch.long)).loss.backward()
        gradients[is_on] = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert runs[True] > runs[False] == 1, "the layer runs again in the backward pass"
    for name, gradient in gradients[False].items():
        assert torch.equal(gradients[True][name], gradient), name
