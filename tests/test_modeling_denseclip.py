"""Behaviour of the model that the published arrays do not show: sizes, windows, losses, saving, precision."""

import copy
import itertools
import multiprocessing
import pickle

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSemanticSegmentation, CLIPTextModel, CLIPVisionModel

from modeling_denseclip import (
    DenseCLIPConfig,
    DenseCLIPForSemanticSegmentation,
    DenseCLIPImageProcessor,
    DenseCLIPResNetBackbone,
    DenseCLIPSemanticSegmenterOutput,
    inference_denseclip,
    multi_scale_inference,
)
from modeling_denseclip.inference_denseclip import window_starts
from modeling_denseclip.modeling_denseclip import compute_score_map
from modeling_denseclip.modeling_denseclip_vit import DenseCLIPDropPath
from modeling_denseclip.resizing_denseclip import resize_by_products, resize_logits
from tests.tiny import TINY_CLASS_NAMES, spread_classes, tiny_config, tiny_model
from training.learning.losses import SegmentationLoss


KINDS = ("resnet", "vit")
ALL = [(kind, use_language) for kind in KINDS for use_language in (True, False)]
NUM_CLASSES = len(TINY_CLASS_NAMES)
all_models = pytest.mark.parametrize(("kind", "use_language"), ALL)
both_kinds = pytest.mark.parametrize("kind", KINDS)


def rough_model(kind, **overrides):
    """Weights, gammas, norms and running statistics all far from what initialisation gives."""
    model = tiny_model(kind, **overrides)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(0.5 + noise if "running_var" in name else tensor + 0.2 * (noise - 0.5))
    return model


# -- outputs


@all_models
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 64), (70, 103), (128, 35)])
@torch.no_grad()
def test_every_size_gives_logits_at_stride_4(kind, use_language, size):
    model = tiny_model(kind, use_language=use_language).eval()
    outputs = model(torch.rand(2, 3, *size))
    height, width = (-(-side // 32) * 8 for side in size)  # of the next multiple of 32
    assert outputs.logits.shape == (2, NUM_CLASSES, height, width)
    assert outputs.logits.isfinite().all()


@both_kinds
def test_an_image_below_one_cell_is_refused(kind):
    model = tiny_model(kind)
    with pytest.raises(ValueError, match="31 x 64 pixels.*at least 32"):
        model(torch.rand(1, 3, 31, 64))


@both_kinds
@torch.no_grad()
def test_score_map_is_the_cosine_of_pixels_and_words(kind):
    model = tiny_model(kind).eval()
    pixel_values = torch.rand(2, 3, 64, 96)
    outputs = model(pixel_values)
    pixels = model.image_encoder(pixel_values).pixel_embeddings
    for image, label, row, column in itertools.product(range(2), range(NUM_CLASSES), range(2), range(2)):
        cosine = F.cosine_similarity(pixels[image, :, row, column], outputs.text_embeddings[image, label], dim=0)
        assert outputs.score_map[image, label, row, column].item() == pytest.approx(cosine.item(), abs=1e-5)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_cosines_keep_their_precision(dtype, autocast):
    """At least float32, whatever comes in and whatever autocast lowers."""
    generator = torch.Generator().manual_seed(0)
    # Cosines about 0.5: CLIP's lie close together too.
    pixels = (torch.randn(2, 64, 4, 6, generator=generator) + 1).to(dtype).requires_grad_()
    texts = (torch.randn(2, 30, 64, generator=generator) + 1).to(dtype)
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        score_map = compute_score_map(pixels, texts)
    expected = F.cosine_similarity(pixels.double()[:, None], texts.double()[..., None, None], dim=2)
    assert score_map.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # A sum of 64 products that are rounded to 2**-53 or 2**-24; bfloat16 has 2**-9.
    torch.testing.assert_close(score_map.double(), expected, rtol=0, atol=1e-13 if dtype == torch.float64 else 2e-5)
    score_map.sum().backward()
    assert pixels.grad.isfinite().all() and pixels.grad.any()


@both_kinds
@torch.no_grad()
def test_the_score_map_reaches_the_logits_and_only_through_the_neck(kind):
    model = rough_model(kind).eval()
    pixel_values = torch.rand(1, 3, 64, 64)
    before = model(pixel_values)
    features = model.image_encoder.feature_sizes[model.score_map_level]
    model.neck.lateral_convs[model.score_map_level].weight[:, features:] = 0
    without = model(pixel_values)
    model.prompts.contexts.neg_()
    other_words = model(pixel_values)
    assert not torch.allclose(before.logits, without.logits)
    assert not torch.allclose(other_words.score_map, before.score_map)
    torch.testing.assert_close(other_words.logits, without.logits, rtol=0, atol=0)


BACKBONES = {
    "without attention": {"model_type": "resnet", "depths": (1, 1, 1, 1), "hidden_sizes": (8, 16, 24, 32)},
    "of one stride": {
        "model_type": "dinov2",
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 56,
        "patch_size": 14,
    },
    "without a backbone class": {
        "model_type": "vit",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
    },
}
ENCODERS = {
    "resnet": ("shallow", {}),
    "vit": ("shallow vit", {}),
    **{name: ("shallow", {"vision_config": fields}) for name, fields in BACKBONES.items()},
}
all_encoders = pytest.mark.parametrize(
    ("kind", "overrides", "use_language"),
    [
        pytest.param(*encoder, use_language, id=f"{name}-{'language' if use_language else 'plain'}")
        for name, encoder in ENCODERS.items()
        for use_language in (True, False)
    ],
)
CALLS = (
    {},
    {"labels": torch.zeros(1, 64, 96, dtype=torch.long), "output_hidden_states": True, "output_attentions": True},
    {"inference_mode": "slide", "window_size": 64, "window_stride": 32, "labels": torch.ones(1, 64, 96).long()},
)


def flatten(outputs):
    return [tensor for value in outputs for tensor in (value if isinstance(value, tuple) else (value,))]


@all_encoders
@torch.no_grad()
def test_return_dict_of_the_config_and_of_the_call(kind, overrides, use_language, tiny_tokenizer, tmp_path):
    model = tiny_model(kind, use_language, attn_implementation="eager", **overrides).eval()
    pixel_values = torch.rand(1, 3, 64, 96)
    expected = [model(pixel_values, **call).to_tuple() for call in CALLS]
    for config in (model.config, model.config.vision_config, model.config.text_config):
        if config is not None:
            config.return_dict = False
    model.save_pretrained(tmp_path)
    for again in (model, DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path, attn_implementation="eager")):
        for call, values in zip(CALLS, expected, strict=True):
            outputs = again(pixel_values, **call)
            assert type(outputs) is tuple and len(outputs) == len(values)
            torch.testing.assert_close(flatten(outputs), flatten(values))
            outputs = again(pixel_values, return_dict=True, **call)
            torch.testing.assert_close(flatten(outputs.to_tuple()), flatten(values))
        if use_language:
            again.score_text(pixel_values, ["sky"], tiny_tokenizer)
        assert len(multi_scale_inference(again, pixel_values, scales=(1.0,))[0]) == NUM_CLASSES


@all_encoders
@torch.no_grad()
def test_a_pickled_model_is_the_same_model(kind, overrides, use_language, tmp_path):
    model = tiny_model(kind, use_language, attn_implementation="eager", **overrides).eval()
    model.save_pretrained(tmp_path)
    model = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path, attn_implementation="eager")
    pixel_values = torch.rand(1, 3, 64, 96)
    for is_fused in (False, True):
        if is_fused:
            model.fuse()
        # Recording installs hooks, so it comes both before and after.
        expected = [model(pixel_values, **call).to_tuple() for call in CALLS]
        torch.save(model, tmp_path / "model.pt")
        copies = (
            pickle.loads(pickle.dumps(model)),
            torch.load(tmp_path / "model.pt", weights_only=False),
            copy.deepcopy(model),
            pickle.loads(pickle.dumps(copy.deepcopy(model))),
            model,
        )
        for other in copies:
            for call, values in zip(CALLS, expected, strict=True):
                outputs = other(pixel_values, **call).to_tuple()
                assert len(outputs) == len(values)
                torch.testing.assert_close(flatten(outputs), flatten(values))
            assert other.state_dict().keys() == model.state_dict().keys()


def test_a_copy_has_no_module_twice():
    """Transformers' pyramid pooling knows its blocks by a list, too: what trains has to be what computes."""
    model = copy.deepcopy(tiny_model("resnet", use_language=False, decode_head_type="upernet")).train()
    pooling = model.decode_head.fusion.psp_modules
    assert all(block is pooling._modules[str(index)] for index, block in enumerate(pooling.blocks))
    model(torch.rand(2, 3, 64, 64), labels=torch.zeros(2, 64, 64, dtype=torch.long)).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_model_goes_to_a_spawned_process():
    """Which imports what the model needs, and nothing of these tests."""
    model = tiny_model("resnet").eval().requires_grad_(False)
    pixel_values = torch.rand(1, 3, 64, 64)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        logits = pool.apply(model, (pixel_values,)).logits
        torch.testing.assert_close(logits, model(pixel_values).logits)


@all_encoders
@torch.no_grad()
def test_sdpa_can_be_asked_for_through_every_door(kind, overrides, use_language, tmp_path):
    model = tiny_model(kind, use_language, attn_implementation="eager", **overrides).eval()
    model.save_pretrained(tmp_path)
    pixel_values = torch.rand(1, 3, 64, 96)
    expected = model(pixel_values).logits
    loaded = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path, attn_implementation="sdpa")
    built = AutoModelForSemanticSegmentation.from_config(model.config, attn_implementation="sdpa").eval()
    built.load_state_dict(model.state_dict())
    model.set_attn_implementation("sdpa")
    for other in (loaded, built, model):
        parts = [other.config, other.config.vision_config, other.config.text_config]
        assert {config._attn_implementation for config in parts if config is not None} == {"sdpa"}
        torch.testing.assert_close(other(pixel_values).logits, expected)
    with pytest.raises(ValueError, match="does not support"):
        DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path, attn_implementation="flash_attention_2")


@all_models
@torch.no_grad()
def test_tuple_and_dict_outputs_agree(kind, use_language):
    model = tiny_model(kind, use_language=use_language).eval()
    model.set_attn_implementation("eager")
    inputs = {"pixel_values": torch.rand(1, 3, 64, 64), "labels": torch.zeros(1, 64, 64, dtype=torch.long)}
    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    as_tuple = model(**inputs, output_hidden_states=True, output_attentions=True, return_dict=False)
    assert tuple(outputs.keys())[:2] == ("loss", "logits")
    assert len(as_tuple) == len(outputs.to_tuple())
    torch.testing.assert_close(as_tuple[1], outputs.logits)
    if kind == "vit":
        depth = model.config.vision_config.num_hidden_layers
        assert len(outputs.hidden_states) == depth + 1 and len(outputs.attentions) == depth
    else:
        assert len(outputs.hidden_states) == 5
        assert len(outputs.attentions or ()) == int(use_language)
    for weights in outputs.attentions or ():
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def test_baseline_has_no_language_side():
    for kind in KINDS:
        model = tiny_model(kind, use_language=False)
        names = [name for name, _ in model.named_parameters()]
        assert not any("text" in name or "context" in name or "prompts" in name for name in names)
        assert not any("attention_pool" in name or "projection" in name or "post_layernorm" in name for name in names)
        outputs = model(torch.rand(2, 3, 64, 64), labels=torch.zeros(2, 64, 64, dtype=torch.long))
        assert outputs.score_map is None and outputs.text_embeddings is None
        outputs.loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


@both_kinds
@torch.no_grad()
def test_a_batch_is_its_images_one_by_one(kind):
    model = rough_model(kind).eval()
    pixel_values = torch.rand(3, 3, 64, 96)
    together = model(pixel_values)
    for index in range(3):
        alone = model(pixel_values[index : index + 1])
        torch.testing.assert_close(together.logits[index], alone.logits[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.score_map[index], alone.score_map[0], rtol=0, atol=1e-5)


@both_kinds
@torch.no_grad()
def test_attention_implementations_agree(kind):
    model = rough_model(kind).eval()
    pixel_values = torch.rand(2, 3, 70, 103)
    fused = model(pixel_values)
    model.set_attn_implementation("eager")
    eager = model(pixel_values)
    torch.testing.assert_close(fused.logits, eager.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fused.score_map, eager.score_map, rtol=0, atol=1e-5)


@all_models
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision(kind, use_language, dtype):
    model = tiny_model(kind, use_language=use_language).eval()
    pixel_values = torch.rand(1, 3, 64, 64)
    full = model(pixel_values).logits
    outputs = model.to(dtype)(pixel_values.to(dtype), labels=torch.zeros(1, 64, 64, dtype=torch.long))
    assert outputs.logits.dtype == dtype and outputs.loss.isfinite()
    assert (outputs.logits.float() - full).abs().max() < 0.1 * full.std()


# -- losses


def plain_loss(model, outputs, labels):
    """Pixel by pixel, as the published code defines it: a sum over labelled pixels, divided by all pixels."""

    def term(logits):
        logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        total = 0.0
        for image, row, column in itertools.product(*map(range, labels.shape)):
            label = labels[image, row, column].item()
            if label != model.config.ignore_index:
                total -= logits[image, :, row, column].double().log_softmax(dim=0)[label].item()
        return total / labels.numel()

    return term(outputs.logits) + 0.4 * term(outputs.score_map / 0.07)


@both_kinds
def test_loss_is_the_published_sum(kind):
    model = tiny_model(kind).eval()
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, NUM_CLASSES, (2, 20, 27), generator=generator)  # any size: the logits are resized
    labels[0, :9] = 255
    outputs = model(torch.rand(2, 3, 64, 64, generator=generator), labels=labels)
    assert outputs.loss.item() == pytest.approx(plain_loss(model, outputs, labels), rel=1e-5)


@both_kinds
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
def test_autocast_does_not_lower_the_loss(kind, autocast):
    """Of the logits and the score map that it gives, the loss is what float64 makes of them."""
    model = tiny_model(kind).eval()
    labels = torch.randint(0, NUM_CLASSES, (2, 20, 27), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=autocast):
        outputs = model(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)), labels=labels)
    assert outputs.score_map.dtype == outputs.loss.dtype == torch.float32
    outputs.logits, outputs.score_map = outputs.logits.double(), outputs.score_map.double()
    assert outputs.loss.item() == pytest.approx(plain_loss(model, outputs, labels), rel=1e-5)


@pytest.mark.parametrize("size", [(28, 36), (61, 40), (7, 9), (3, 4)])
def test_resizing_on_a_gpu_has_the_values_and_gradients_of_interpolation(size):
    """Called by hand, so that it is tested without one."""
    logits = torch.randn(2, 5, 7, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(1))
    results = resize_by_products(logits, size), resize_logits(logits, size)
    torch.testing.assert_close(*results, rtol=0, atol=2e-6)
    torch.testing.assert_close(*(torch.autograd.grad(result, logits, weights)[0] for result in results))


@all_models
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_without_labels_has_loss_and_gradients_0(kind, use_language, training):
    model = tiny_model(kind, use_language=use_language).train(training)
    outputs = model(torch.rand(2, 3, 64, 64), labels=torch.full((2, 64, 64), 255))
    outputs.loss.backward()
    assert outputs.loss.item() == 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name


def test_ignore_index_follows_the_config():
    model = tiny_model("resnet", ignore_index=3).eval()
    pixel_values = torch.rand(1, 3, 64, 64)
    assert model(pixel_values, labels=torch.full((1, 64, 64), 3)).loss.item() == 0
    assert model(pixel_values, labels=torch.full((1, 64, 64), 2)).loss.item() > 0


def test_the_trainer_must_not_rescale_the_loss():
    assert DenseCLIPForSemanticSegmentation.accepts_loss_kwargs is False


# -- sliding windows


def plain_slide(model, pixel_values, size, stride):
    """One window after the other, counting how often each pixel was seen."""
    height, width = pixel_values.shape[-2:]
    total = torch.zeros(len(pixel_values), NUM_CLASSES, height, width)
    count = torch.zeros(height, width)
    rows = -(-max(height - size[0], 0) // stride[0]) + 1
    columns = -(-max(width - size[1], 0) // stride[1]) + 1
    for row, column in itertools.product(range(rows), range(columns)):
        bottom, right = min(row * stride[0] + size[0], height), min(column * stride[1] + size[1], width)
        top, left = max(bottom - size[0], 0), max(right - size[1], 0)
        crop = pixel_values[:, :, top:bottom, left:right]
        logits = model(crop, inference_mode="whole").logits
        total[:, :, top:bottom, left:right] += F.interpolate(logits, size=crop.shape[-2:], mode="bilinear")
        count[top:bottom, left:right] += 1
    assert count.min() >= 1
    return total / count


@all_models
@pytest.mark.parametrize(
    ("image", "size", "stride"),
    [
        ((96, 128), (64, 64), (42, 42)),
        ((70, 103), (64, 48), (40, 48)),
        ((40, 150), (64, 64), (64, 30)),  # lower than the window
        ((130, 64), (64, 64), (33, 64)),
    ],
)
@torch.no_grad()
def test_windows_equal_a_plain_loop(kind, use_language, image, size, stride):
    model = tiny_model(kind, use_language=use_language).eval()
    pixel_values = torch.rand(2, 3, *image)
    expected = plain_slide(model, pixel_values, size, stride)
    for batch in (1, 3, 100):
        model.config.window_batch_size = batch
        outputs = model(pixel_values, inference_mode="slide", window_size=size, window_stride=stride)
        torch.testing.assert_close(outputs.logits, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_config_and_call_decide_on_windows():
    model = tiny_model("resnet", inference_mode="slide", window_size=64, window_stride=42).eval()
    pixel_values = torch.rand(1, 3, 96, 96)
    slid = model(pixel_values).logits
    whole = model(pixel_values, inference_mode="whole").logits
    assert slid.shape[-2:] == (96, 96) and whole.shape[-2:] == (24, 24)
    model.config.inference_mode = "whole"
    torch.testing.assert_close(model(pixel_values).logits, whole)
    torch.testing.assert_close(model(pixel_values, inference_mode="slide").logits, slid)


def test_training_and_small_images_take_no_windows():
    model = tiny_model("resnet", inference_mode="slide", window_size=64, window_stride=42)
    assert model.train()(torch.rand(2, 3, 96, 96)).logits.shape[-2:] == (24, 24)
    assert model.eval()(torch.rand(2, 3, 64, 64)).logits.shape[-2:] == (16, 16)
    assert model.eval()(torch.rand(2, 3, 64, 65)).logits.shape[-2:] == (64, 65)


def test_windows_see_every_pixel():
    for length, window in itertools.product(range(1, 40), range(1, 20)):
        for stride in range(1, window + 1):
            starts = window_starts(length, min(window, length), stride)
            seen = {pixel for start in starts for pixel in range(start, start + min(window, length))}
            assert seen == set(range(length))
            assert starts == sorted(set(starts)), "a window is taken twice"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inference_mode": "tiles"}, "'whole' or 'slide'"),
        ({"inference_mode": "slide", "window_size": 64, "window_stride": 65}, "at most `window_size`"),
        ({"inference_mode": "slide", "window_size": 64, "window_stride": 0}, "must be positive"),
        ({"inference_mode": "slide", "window_size": (64, 64, 64)}, r"`window_size` must .* \(height, width\)"),
        ({"inference_mode": "slide", "window_size": 64, "window_stride": (9, 9, 9)}, "`window_stride` must be an int"),
        ({"inference_mode": "slide", "window_size": (64, 80), "window_stride": (70, 40)}, "at most `window_size`"),
        ({"inference_mode": "slide", "window_size": (80, 64), "window_stride": (40, 70)}, "at most `window_size`"),
        ({"inference_mode": "slide", "window_size": 16, "window_stride": 16}, "at least 32 pixels"),
    ],
)
def test_bad_windows_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_model("resnet").eval()(torch.rand(1, 3, 96, 96), **options)


# -- the image encoders


def test_stochastic_depth_leaves_out_whole_samples():
    drop_path = DenseCLIPDropPath(0.5)
    hidden_states = torch.ones(2000, 3, 4)
    torch.manual_seed(0)
    dropped = drop_path.train()(hidden_states).flatten(1)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert (dropped == dropped[:, :1]).all()
    assert dropped[:, 0].mean().item() == pytest.approx(1, abs=0.1)
    assert drop_path.eval()(hidden_states) is hidden_states


def test_stochastic_depth_grows_over_the_layers_and_rests_in_evaluation():
    model = tiny_model("vit", drop_path_rate=0.6)
    layers = model.image_encoder.vision_model.encoder.layers
    expected = torch.linspace(0, 0.6, len(layers)).tolist()
    assert [layer.drop_path.rate for layer in layers] == pytest.approx(expected)
    pixel_values = torch.rand(8, 3, 64, 64)
    first, second = (model.train().image_encoder(pixel_values).feature_maps[2] for _ in range(2))
    assert not torch.allclose(first, second)
    first, second = (model.eval().image_encoder(pixel_values).feature_maps[2] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    still = tiny_model("vit").eval().image_encoder(pixel_values).feature_maps[2]
    torch.testing.assert_close(first, still, rtol=0, atol=0)


@torch.no_grad()
def test_vit_equals_transformers_clip_at_its_own_size():
    model = tiny_model("vit").eval()
    size = model.config.vision_config.image_size
    clip = CLIPVisionModel(model.config.vision_config).eval()
    clip.load_state_dict(model.image_encoder.vision_model.state_dict())
    pixel_values = torch.rand(2, 3, size, size)
    expected = clip(pixel_values, output_hidden_states=True)
    outputs = model(pixel_values, output_hidden_states=True)
    for ours, theirs in zip(outputs.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    pooled = model.image_encoder.visual_projection(expected.pooler_output)
    torch.testing.assert_close(model.image_encoder(pixel_values).global_embedding, pooled, rtol=1e-5, atol=1e-5)


def test_towers_of_transformers_load_under_their_own_names():
    model = tiny_model("vit")
    model.image_encoder.vision_model.load_state_dict(CLIPVisionModel(model.config.vision_config).state_dict())
    model.text_encoder.load_state_dict(CLIPTextModel(model.config.text_config).state_dict())


def test_backbone_gives_the_maps_it_is_asked_for():
    config = tiny_config("resnet").vision_config
    config = type(config)(**{**config.to_dict(), "out_features": ["stem", "stage3"], "out_indices": None})
    backbone = DenseCLIPResNetBackbone(config)
    maps = backbone(torch.rand(2, 3, 64, 64)).feature_maps
    assert [feature_map.shape[1] for feature_map in maps] == backbone.channels
    assert [feature_map.shape[-1] for feature_map in maps] == [16, 4]


@both_kinds
@torch.no_grad()
def test_input_embeddings_are_the_first_convolution(kind):
    model = tiny_model(kind).eval()
    first = model.get_input_embeddings()
    assert isinstance(first, torch.nn.Conv2d) and first.in_channels == 3
    silent = torch.nn.Conv2d(3, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False)
    silent.weight.zero_()
    model.set_input_embeddings(silent)
    assert model.get_input_embeddings() is silent
    logits = [model(torch.rand(1, 3, 64, 64)).logits for _ in range(2)]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=0)


# -- training


@both_kinds
def test_gradient_checkpointing_changes_no_gradient(kind):
    gradients = []
    for checkpointing in (False, True):
        model = rough_model(kind, context_decoder_dropout=0.0, decode_head_dropout=0.0).train()
        if checkpointing:
            # The new name, and the old one that transformers 5.17 has.
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        torch.manual_seed(0)
        pixel_values, labels = torch.rand(2, 3, 64, 64), torch.randint(0, NUM_CLASSES, (2, 64, 64))
        model(pixel_values, labels=labels).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        gradients.append(buffers)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[2][name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    for name, buffer in gradients[1].items():
        torch.testing.assert_close(gradients[3][name], buffer, rtol=1e-5, atol=1e-6, msg=name)


@all_models
def test_every_parameter_has_a_gradient(kind, use_language):
    model = rough_model(kind, use_language=use_language).train()
    labels = torch.randint(0, NUM_CLASSES, (2, 64, 64))
    model(torch.rand(2, 3, 64, 64), labels=labels).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


# -- initialisation and saving


@all_models
def test_saved_and_loaded_every_value_comes_back(kind, use_language, tmp_path):
    """With values that no initialisation gives, or a constant that is lost would come back equal."""
    model = rough_model(kind, use_language=use_language, palette=((1, 2, 3),) * NUM_CLASSES).eval()
    model.save_pretrained(tmp_path)
    loaded, info = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    found = dict(itertools.chain(loaded.named_parameters(), loaded.named_buffers()))
    for name, value in itertools.chain(model.named_parameters(), model.named_buffers()):
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    for field in (
        "class_names",
        "class_token_ids",
        "id2label",
        "label2id",
        "palette",
        "window_size",
        "feature_layers",
    ):
        assert getattr(loaded.config, field) == getattr(model.config, field), field
    pixel_values = torch.rand(1, 3, 70, 103)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixel_values).logits, model(pixel_values).logits, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loaded_in_half_precision_the_prompts_stay_whole(dtype, tmp_path):
    model = tiny_model("resnet")
    model.save_pretrained(tmp_path)
    loaded = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path, dtype=dtype)
    for name, buffer in model.prompts.named_buffers():
        assert torch.equal(loaded.prompts.get_buffer(name), buffer), name
    assert loaded.prompts.contexts.dtype == dtype
    assert loaded(torch.rand(1, 3, 64, 64, dtype=dtype)).logits.isfinite().all()


@both_kinds
def test_initial_values_are_the_published_ones(kind):
    model = DenseCLIPForSemanticSegmentation(tiny_config(kind, gamma_init_value=1e-4, num_context_tokens=32))
    assert (model.context_decoder.gamma == 1e-4).all()
    contexts = model.prompts.contexts
    assert contexts.abs().max() <= 2 and contexts.std().item() == pytest.approx(0.88, abs=0.05)
    for module in model.context_decoder.modules():
        if isinstance(module, torch.nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.2)
            assert module.bias is None or not module.bias.any()
    # He initialisation over 9 x 16 outputs per input, in the head.
    head = model.decode_head.levels[1][0].conv.weight
    assert head.std().item() == pytest.approx((2 / (9 * head.shape[0])) ** 0.5, rel=0.1)
    if kind == "resnet":
        norms = [block.norm3.weight for stage in model.image_encoder.backbone.stages for block in stage.blocks]
        assert not any(norm.any() for norm in norms), "residual branches of CLIP's ResNet start at zero"
    else:
        # The layers with stochastic depth start as CLIP's own do.
        ours = model.image_encoder.vision_model.encoder.layers[0].self_attn.q_proj.weight
        clip = CLIPVisionModel(model.config.vision_config).encoder.layers[0].self_attn.q_proj.weight
        assert ours.std().item() == pytest.approx(clip.std().item(), rel=0.1)


def test_defaults_are_rn50():
    config = DenseCLIPConfig()
    assert config.vision_config.depths == (3, 4, 6, 3) and config.vision_config.hidden_sizes == (256, 512, 1024, 2048)
    assert (config.text_config.hidden_size, config.projection_dim, config.num_context_tokens) == (512, 1024, 8)
    assert config.score_map_level == 3 and config.vision_config.num_attention_heads == 32
    assert DenseCLIPConfig(vision_config={"model_type": "clip_vision_model"}).feature_layers == (3, 5, 7, 11)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"score_map_level": 4}, "score_map_level"),
        ({"window_stride": 600}, "window_stride"),
        ({"window_size": (1, 2, 3)}, "window_size"),
        ({"temperature": 0.0}, "temperature"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
        ({"num_context_tokens": 0}, "num_context_tokens"),
        ({"context_decoder_num_attention_heads": 7}, "context_decoder_num_attention_heads"),
        ({"context_position": "middle"}, "context_position"),
        ({"inference_mode": "tiles"}, "inference_mode"),
        ({"projection_dim": "wide"}, "projection_dim"),
        ({"vision_config": {"model_type": "resnett"}}, "'resnett', which this release"),
        ({"vision_config": {"model_type": "clip_vision_model"}, "feature_layers": (3, 2, 7, 11)}, "feature_layers"),
        ({"vision_config": {"depths": (3, 4, 6)}}, "depths"),
        ({"class_token_ids": [[0, 1, 2]]}, "class_token_ids"),
    ],
)
def test_bad_configs_say_what_is_wrong(fields, message):
    with pytest.raises(Exception, match=message):
        DenseCLIPConfig(**fields)


# Operators whose result, or the shape of it, the host has to wait for where there is a device.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero")


class FindWaiting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name == "index" else ()
        if name.startswith(WAITING) or any(index is not None and index.dtype == torch.bool for index in indices):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("fields", [{}, {"prompting_mode": "pre_model"}, {"decode_head_type": "upernet"}])
@both_kinds
def test_training_step_makes_no_host_wait_for_the_device(kind, fields):
    model = tiny_model(kind, **fields).train()
    labels = torch.randint(0, NUM_CLASSES, (2, 64, 64))
    loss_function = SegmentationLoss(model.config)
    with FindWaiting() as finder:
        outputs = model(torch.rand(2, 3, 64, 64))
        sum(loss_function(outputs, labels).values()).backward()
    assert finder.found == []
    with FindWaiting() as finder:
        outputs.logits.max().item()
    assert finder.found  # it would have been seen


@all_models
@pytest.mark.parametrize("at_a_time", [2, 16])
@pytest.mark.parametrize(
    "windows", [{}, {"inference_mode": "slide", "window_size": (64, 96), "window_stride": (40, 50)}]
)
@torch.no_grad()
def test_classes_are_those_of_post_processing(kind, use_language, at_a_time, windows, monkeypatch):
    monkeypatch.setattr(inference_denseclip, "CLASSES_AT_A_TIME", at_a_time)
    model = spread_classes(tiny_model(kind, use_language=use_language), torch.rand(2, 3, 130, 203))
    pixel_values = torch.rand(2, 3, 130, 203)
    outputs = model(pixel_values, **windows)
    for size in ((130, 203), (97, 151), (260, 300)):
        expected = DenseCLIPImageProcessor().post_process_semantic_segmentation(outputs, target_sizes=[size] * 2)
        classes = model.segment_classes(pixel_values, target_size=size, **windows)
        assert classes.dtype == torch.int64 and classes.unique().numel() > 2
        # Where two classes are equal up to rounding, either may win.
        assert (classes != torch.stack(expected)).float().mean() < 1e-3


def test_windows_may_be_32_pixels_and_go_on_by_one():
    model = tiny_model("resnet", inference_mode="slide", window_size=(32, 40), window_stride=(1, 33))
    assert model.sliding_window() == ((32, 40), (1, 33))
    assert model.sliding_window(None, 33, (33, 1)) == ((33, 33), (33, 1))
    assert model.sliding_window("whole") is None


@pytest.mark.parametrize("size", [(64, 48), (64, 49), (65, 48), (48, 64), (60, 40), (40, 50), (90, 40)])
@torch.no_grad()
def test_classes_take_windows_where_a_call_does(size, monkeypatch):
    model = tiny_model("resnet", use_language=False).eval()
    window = {"inference_mode": "slide", "window_size": (64, 48), "window_stride": (32, 20)}
    seen = []
    segment_windows = model.segment_windows
    monkeypatch.setattr(model, "segment_windows", lambda *args: seen.append(args[1:]) or segment_windows(*args))
    pixel_values = torch.rand(1, 3, *size)
    slides = model(pixel_values, **window).logits.shape[-2:] == size
    assert slides == (size[0] > 64 or size[1] > 48)
    assert seen == [((64, 48), (32, 20))] * slides
    assert model.segment_classes(pixel_values, **window).shape == (1, *size)
    assert seen == [((64, 48), (32, 20))] * 2 * slides


@torch.no_grad()
def test_classes_are_enlarged_a_few_at_a_time_and_the_first_of_equal_ones_is_taken(monkeypatch):
    monkeypatch.setattr(inference_denseclip, "CLASSES_AT_A_TIME", 2)
    numbers = []
    resize_logits = inference_denseclip.resize_logits

    def counted(logits, size):
        numbers.append(logits.shape[1])
        return resize_logits(logits, size)

    monkeypatch.setattr(inference_denseclip, "resize_logits", counted)
    model = tiny_model("resnet").eval()
    logits = torch.zeros(1, NUM_CLASSES, 16, 16)
    logits[:, 0] = -1
    model.segment = lambda pixel_values: DenseCLIPSemanticSegmenterOutput(
        logits=logits.expand(len(pixel_values), -1, -1, -1)
    )
    assert (model.segment_classes(torch.rand(1, 3, 64, 64)) == 1).all() and numbers == []  # of whole images
    windows = {"inference_mode": "slide", "window_size": (64, 64), "window_stride": (64, 32)}
    classes = model.segment_classes(torch.rand(1, 3, 64, 96), **windows)
    assert (classes == 1).all() and set(numbers) == {1, 2}


def test_windows_in_half_precision_are_averaged_in_single():
    generator = torch.Generator().manual_seed(0)
    parts = torch.rand(9, 1, 2, 8, 8, generator=generator).bfloat16()
    windows = [(slice(0, 8), slice(0, 8), part) for part in parts]
    average = inference_denseclip.average_windows(windows, slice(None), (8, 8))
    assert average.dtype == torch.float32
    torch.testing.assert_close(average.double(), parts.double().mean(dim=0), rtol=1e-6, atol=0)


def test_classes_need_evaluation_mode_and_a_large_enough_image():
    with pytest.raises(ValueError, match="training mode"):
        tiny_model("vit").train().segment_classes(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="31 x 64 pixels"):
        tiny_model("vit").eval().segment_classes(torch.rand(1, 3, 31, 64))
