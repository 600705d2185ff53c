"""
New parts start from what published training starts from, at the paper's widths.

Expected values: `train_denseclip.py` initialises the backbone and the text tower and nothing else, so neck and head
keep what mmcv's `ConvModule` and PyTorch's own constructors give them. Those of PyTorch are compared with PyTorch's.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation
from tests.tiny import TINY_CLASS_NAMES, make_tiny_tokenizer, tiny_config, tiny_model


ARCHITECTURES = Path(__file__).resolve().parents[1] / "configuration" / "models"


def full_width(stem: str) -> DenseCLIPForSemanticSegmentation:
    """A row of the paper without language, with fewer layers of the encoder, which start as CLIP's do."""
    fields = json.loads((ARCHITECTURES / f"{stem}.json").read_text())
    if fields["vision_config"]["model_type"] == "clip_vision_model":
        fields["vision_config"]["num_hidden_layers"] = 4
        fields["feature_layers"] = (0, 1, 2, 3)
    else:
        fields["vision_config"]["depths"] = (1, 1, 1, 1)
    fields["id2label"] = {index: f"class {index}" for index in range(150)}
    torch.manual_seed(0)
    return DenseCLIPForSemanticSegmentation(DenseCLIPConfig(**fields))


@pytest.fixture(scope="module", params=["clip_fpn_rn50", "clip_fpn_vit_b16"])
def model(request):
    return full_width(request.param)


def is_normal(values: torch.Tensor, std: float) -> bool:
    """Standard deviation, mean and kurtosis, each within six of its own standard errors."""
    values = values.detach().double().flatten()
    count = values.numel()
    scaled = values / std
    return (
        abs(scaled.std().item() - 1) < 6 / math.sqrt(2 * count)
        and abs(scaled.mean().item()) < 6 / math.sqrt(count)
        and abs((scaled**4).mean().item() - 3) < 6 * math.sqrt(96 / count)
    )


def is_uniform(values: torch.Tensor, bound: float) -> bool:
    """Never beyond `bound`, up to it, and evenly: mean and mean square within six of their standard errors."""
    values = values.detach().double().flatten() / bound
    count = values.numel()
    return (
        values.abs().max().item() <= 1 + 1e-6
        and values.abs().max().item() > 1 - 12 / count  # of so many, all would be smaller once in 160,000 times
        and abs((values**2).mean().item() - 1 / 3) < 6 * math.sqrt(4 / 45 / count)
        and abs(values.mean().item()) < 6 / math.sqrt(3 * count)
    )


def test_neck(model):
    for lateral in model.neck.lateral_convs:
        assert is_normal(lateral.weight, math.sqrt(2 / 256)) and not lateral.bias.any()
    for output in model.neck.output_convs:
        assert is_normal(output.weight, math.sqrt(2 / (256 * 9))) and not output.bias.any()


def test_head(model):
    for level in model.decode_head.levels:
        for step in level:
            assert is_normal(step.conv.weight, math.sqrt(2 / (256 * 9)))
    classifier = model.decode_head.classifier
    assert is_uniform(classifier.weight, 1 / 16) and is_uniform(classifier.bias, 1 / 16)


def test_pyramid_of_the_vit():
    pyramid = full_width("clip_fpn_vit_b16").image_encoder.pyramid
    for conv in (pyramid.upsample4_first, pyramid.upsample4_second, pyramid.upsample2):
        bound = 1 / math.sqrt(768 * 4)
        assert is_uniform(conv.weight, bound) and is_uniform(conv.bias, bound)
        # As PyTorch's constructor makes it.
        torch_conv = nn.ConvTranspose2d(768, 768, kernel_size=2, stride=2)
        assert torch_conv.weight.std().item() == pytest.approx(conv.weight.std().item(), rel=0.01)
    assert all((norm.weight == 1).all() and not norm.bias.any() for norm in pyramid.norms)


def is_published(model: DenseCLIPForSemanticSegmentation) -> bool:
    """Whether the tiny model's new parts start so: widths of 16, five classes."""
    laterals = torch.cat([conv.weight.flatten() for conv in model.neck.lateral_convs])
    classifier = model.decode_head.classifier
    return (
        is_normal(laterals, math.sqrt(2 / 16))
        and is_uniform(classifier.weight, 1 / 4)
        and classifier.bias.abs().min() > 0
        and classifier.bias.abs().max() <= 1 / 4
    )


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_parts_that_a_checkpoint_lacks(kind, tmp_path):
    model = tiny_model(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    new = ("neck.", "decode_head.", "image_encoder.pyramid.")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(new)}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path)
    assert is_published(loaded) and (loaded.image_encoder.get_input_embeddings().weight == 7).all()
    if kind == "vit":
        assert is_uniform(loaded.image_encoder.pyramid.upsample2.weight, 1 / math.sqrt(32 * 4))


def test_from_clip(tmp_path):
    tokenizer = make_tiny_tokenizer()
    config = tiny_config("vit")
    clip = CLIPConfig(
        text_config=config.text_config.to_dict(), vision_config=config.vision_config.to_dict(), projection_dim=32
    )
    CLIPModel(clip).save_pretrained(tmp_path)
    model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(
        tmp_path, TINY_CLASS_NAMES, tokenizer, neck_hidden_size=16, decode_head_hidden_size=16
    )
    assert is_published(model)


def test_new_classes_start_as_those_of_a_new_model():
    model = tiny_model("resnet", decode_head_hidden_size=16)
    model.set_class_names([f"{a}{b}" for a in "abcdefgh" for b in "abcdefgh"], make_tiny_tokenizer())
    classifier = model.decode_head.classifier
    assert is_uniform(classifier.weight, 1 / 4) and is_uniform(classifier.bias, 1 / 4)
    scores = model.neck.lateral_convs[3].weight[:, -64:]
    assert is_normal(scores, math.sqrt(2 / 16))


def test_heads_without_published_code_stay_as_they_were():
    model = tiny_model("resnet", decode_head_type="upernet", decode_head_hidden_size=64, auxiliary_head_hidden_size=64)
    for head in (model.decode_head, model.auxiliary_head):
        assert is_normal(head.classifier.weight, 0.01) and not head.classifier.bias.any()
    for conv in model.decode_head.fusion.lateral_convs:
        assert is_normal(conv.conv.weight, math.sqrt(2 / 64))
