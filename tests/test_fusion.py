"""A model that is fused for inference: the same results, no batch norms, and nothing that would spoil it unseen."""

import copy

import pytest
import torch
from torch import nn

from tests.test_heads import RESNET, UPERNET
from tests.test_modeling_denseclip import rough_model
from tests.tiny import TINY_CLASS_NAMES, make_tiny_tokenizer


MODELS = {
    "resnet": ("resnet", {}),
    "resnet, no language": ("resnet", {"use_language": False}),
    "vit": ("vit", {}),
    "vit, no language": ("vit", {"use_language": False}),
    "resnet, pre-model": ("resnet", {"prompting_mode": "pre_model"}),
    "resnet, language": ("resnet", {"prompting_mode": "language"}),
    "ImageNet resnet, upernet": ("resnet", {"vision_config": RESNET, **UPERNET}),
    "ImageNet resnet": ("resnet", {"vision_config": {**RESNET, "layer_type": "bottleneck"}}),
}
all_models = pytest.mark.parametrize("name", MODELS)


def make(name):
    kind, fields = MODELS[name]
    return rough_model(kind, **fields).eval()


def num_batch_norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@all_models
@torch.no_grad()
def test_fused_model_gives_the_same(name):
    model = make(name)
    fused = copy.deepcopy(model).fuse()
    assert num_batch_norms(model) > 0 and num_batch_norms(fused) == 0
    pixel_values = torch.rand(2, 3, 70, 103)
    before, after = model(pixel_values), fused(pixel_values)
    assert before.keys() == after.keys()
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-4 * value.std().item(), msg=key)
    windows = {"inference_mode": "slide", "window_size": 64, "window_stride": 40}
    expected = model(pixel_values, **windows).logits
    torch.testing.assert_close(
        fused(pixel_values, **windows).logits, expected, rtol=1e-4, atol=1e-4 * expected.std().item()
    )


@pytest.mark.parametrize("mode", ["language", "post_model"])
@torch.no_grad()
def test_text_tower_is_not_asked_again(mode):
    model = rough_model("vit", prompting_mode=mode).eval().fuse()
    for layer in model.text_encoder.encoder.layers:
        layer.forward = None  # whoever calls it fails
    model(torch.rand(1, 3, 64, 64))
    # Everything that reads the text tower still can.
    assert model.constant_text_embeddings.shape == (len(TINY_CLASS_NAMES), 32)
    assert "constant_text_embeddings" not in model.state_dict()


@all_models
@torch.no_grad()
def test_names_can_change(name):
    model = make(name)
    fused = copy.deepcopy(model).fuse()
    order = [3, 0, 4, 1, 2]
    for renamed in (model, fused):
        renamed.set_class_names([TINY_CLASS_NAMES[index] for index in order], make_tiny_tokenizer())
    pixel_values = torch.rand(1, 3, 64, 64)
    expected = model(pixel_values).logits
    torch.testing.assert_close(fused(pixel_values).logits, expected, rtol=1e-4, atol=1e-4 * expected.std().item())


@pytest.mark.parametrize("name", ["resnet", "vit, no language"])
def test_fused_model_cannot_be_trained_or_saved(name, tmp_path):
    with pytest.raises(ValueError, match=r"call `model.eval\(\)` first"):
        make(name).train().fuse()
    model = make(name).fuse()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="cannot be trained. Load it anew"):
        model.train()
    with pytest.raises(ValueError, match="cannot be saved"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    assert model.eval() is model


@torch.no_grad()
def test_folding_in_half_precision_rounds_once():
    """Statistics are folded in single precision: the half model is as near as its weights' precision allows."""
    model = make("resnet")
    pixel_values = torch.rand(1, 3, 64, 64)
    expected = model(pixel_values).logits
    half = copy.deepcopy(model).bfloat16()
    error = (half(pixel_values).logits.float() - expected).abs().mean()
    fused_error = (half.fuse()(pixel_values).logits.float() - expected).abs().mean()
    assert half.decode_head.classifier.weight.dtype == torch.bfloat16
    assert fused_error < 2 * error


@pytest.mark.parametrize(
    "kind, fields",
    [
        ("shallow", {}),
        ("shallow vit", {"prompting_mode": "language"}),
        ("shallow", {**MODELS["ImageNet resnet, upernet"][1], "use_language": False}),
    ],
    ids=["resnet", "vit", "ImageNet resnet, upernet"],
)
@torch.no_grad()
def test_image_path_compiles_as_one_graph_for_all_sizes(kind, fields):
    """
    Of few layers, and of each part one: a second one of a kind breaks no graph that the first one does not, and takes
    as long.
    """
    model = rough_model(kind, **fields).eval().fuse()
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=count, fullgraph=True, dynamic=True)
    for size in ((2, 3, 64, 96), (3, 3, 96, 128), (2, 3, 128, 64), (4, 3, 160, 192)):
        pixel_values = torch.rand(*size)
        torch.testing.assert_close(compiled(pixel_values).logits, model(pixel_values).logits)
    assert len(graphs) == 1
