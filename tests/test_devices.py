"""A model in several places: replicas of `nn.DataParallel`, and towers on two devices, without a GPU."""

import copy
import sys

import accelerate.hooks
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from modeling_denseclip import DenseCLIPForSemanticSegmentation
from tests.test_backbones import image_config
from tests.test_modeling_denseclip import rough_model
from tests.tiny import TINY_CLASS_NAMES, make_tiny_tokenizer, tiny_config, tiny_model


ENCODERS = ("resnet", "vit", "swin", "dinov2")
MODES = ("language", "pre_model", "post_model")


def make_model(encoder, **fields):
    if encoder in ("resnet", "vit"):
        return rough_model({"resnet": "shallow", "vit": "shallow vit"}[encoder], **fields)
    torch.manual_seed(0)
    return DenseCLIPForSemanticSegmentation(tiny_config("shallow", vision_config=image_config(encoder), **fields))


# -- nn.DataParallel


@pytest.fixture
def replicate(monkeypatch):
    """torch's own, which `nn.DataParallel` calls in each forward; only the copy to GPUs is a copy on the CPU here."""
    module = sys.modules["torch.nn.parallel.replicate"]
    monkeypatch.setattr(
        module,
        "_broadcast_coalesced_reshape",
        lambda tensors, devices, detach=False: [[tensor.clone() for tensor in tensors] for _ in devices],
    )
    return lambda model: module.replicate(model, [0, 1], detach=not torch.is_grad_enabled())[1]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("mode", [*MODES, None])
def test_a_replica_computes_and_learns_as_its_model(replicate, encoder, mode):
    fields = {"use_language": False} if mode is None else {"prompting_mode": mode}
    model = make_model(encoder, **fields)
    pixel_values = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, len(TINY_CLASS_NAMES), (2, 64, 96), generator=torch.Generator().manual_seed(1))
    twin = copy.deepcopy(model).train()
    torch.manual_seed(0)  # the same dropout
    twin(pixel_values, labels=labels).loss.backward()
    torch.manual_seed(0)
    replicate(model.train())(pixel_values, labels=labels).loss.backward()
    for (name, found), expected in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6, msg=name)

    model.eval()
    for _ in range(2):
        with torch.no_grad():
            expected, found = model(pixel_values), replicate(model)(pixel_values)
            torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
            if mode is not None:
                torch.testing.assert_close(found.score_map, expected.score_map, rtol=1e-4, atol=1e-5)
                model.prompts.contexts.normal_(generator=torch.Generator().manual_seed(2))  # training


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.no_grad()
def test_a_replica_of_half_precision_takes_pictures_in_float32(replicate, encoder):
    model = make_model(encoder, use_language=False).eval().to(torch.bfloat16)
    assert replicate(model)(torch.rand(1, 3, 64, 64)).logits.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "part", ["prompts.contexts", "text_encoder.final_layer_norm.weight", "text_projection.weight"]
)
@torch.no_grad()
def test_class_embeddings_of_a_replica_follow_every_weight(replicate, part):
    model = tiny_model("resnet").eval()
    before = replicate(model).get_text_embeddings()
    model.get_parameter(part).mul_(1.5).add_(0.1)
    after = replicate(model).get_text_embeddings()
    torch.testing.assert_close(after, model.encode_class_names(), rtol=0, atol=1e-6)
    assert not torch.allclose(after, before)


# -- two devices


class RefuseMixedDevices(TorchDispatchMode):
    """As GPUs do: operators take tensors of one device, apart from copies and numbers."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.ndim]
        if len({tensor.device for tensor in tensors}) > 1 and "copy" not in str(func):
            raise RuntimeError(f"{func}: tensors are on several devices")
        if func is torch.ops.aten._to_copy.default and args[0].is_meta and kwargs.get("device") == torch.device("cpu"):
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def spread(monkeypatch):
    """
    What `device_map` does with two devices: each module brings its inputs to its own. "meta" is the second one here,
    from which only the copy back has to be made up.
    """

    def send_to_device(data, device, **kwargs):
        def send(value):
            if device is None or not isinstance(value, torch.Tensor) or value.device == torch.device(device):
                return value
            return torch.zeros(value.shape, dtype=value.dtype, device=device)

        return tree_map(send, data)

    monkeypatch.setattr(accelerate.hooks, "send_to_device", send_to_device)

    def place(model, second):
        places = {name: "meta" if name in second else "cpu" for name, _ in model.named_children()}
        for name, device in places.items():
            model.get_submodule(name).to(device)
        accelerate.hooks.attach_align_device_hook_on_blocks(
            model, execution_device=places, offload=dict.fromkeys(places, False)
        )
        return model

    return place


PARTS = ("image_encoder", "prompts", "text_encoder", "text_projection", "context_decoder", "neck", "decode_head")


@pytest.mark.parametrize(
    ("encoder", "fields"),
    [("vit", {"prompting_mode": mode}) for mode in MODES]
    + [("resnet", {}), ("resnet", {"decode_head_type": "upernet"}), ("swin", {"decode_head_type": "upernet"})],
)
def test_a_model_runs_on_two_devices_wherever_it_is_split(spread, encoder, fields):
    pixel_values, labels = torch.randn(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.long)
    original = make_model(encoder, **fields).eval()
    original.tokenizer = make_tiny_tokenizer()
    parts = [name for name in PARTS if hasattr(original, name)]
    # Cut in two, and each part alone elsewhere; with other encoders than CLIP's ViT only what is theirs.
    cuts = [set(parts[index:]) for index in range(1, len(parts))] + [{part} for part in parts[:-1]]
    for second in cuts if encoder == "vit" else [{"image_encoder"}, set(parts) - {"image_encoder"}]:
        model = spread(copy.deepcopy(original), second)
        with RefuseMixedDevices():
            model.train()(pixel_values, labels=labels)
            model.eval()
            with torch.no_grad():
                model(pixel_values, labels=labels.to("meta"), inference_mode="slide", window_size=64, window_stride=32)
                for learned in (True, False):
                    model.score_text(pixel_values, ["sofa", "a red sofa"], learned_prompts=learned)


def test_what_brings_states_together_is_not_split():
    for encoder, modules in (
        ("vit", {"DenseCLIPViTEmbeddings", "DenseCLIPViTLayer", "DenseCLIPContextDecoder", "CLIPTextEmbeddings"}),
        ("resnet", {"DenseCLIPResNetBackbone", "DenseCLIPAttentionPool", "DenseCLIPNeck", "CLIPEncoderLayer"}),
    ):
        assert modules <= set(tiny_model(encoder)._no_split_modules)
