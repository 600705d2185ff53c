"""
Equal to the published code: features, embeddings, logits, windows, multi-scale, losses and gradients.

Ours is computed in float64, in which neither processor nor number of threads shows: what is left between the two is
the rounding of the published arrays, which were made in float32 and do not change. Limits are a few times that.
"""

import pytest
import torch
from torch.nn import functional as F

from modeling_denseclip import multi_scale_inference
from modeling_denseclip.checkpoint_formats_denseclip import convert_denseclip_state_dict
from tests.parity import CASES, REFERENCE, load_fixture, load_reference


# In standard deviations of an array. Rounding made 2e-5 of the score map of the ResNet, 2e-6 of the others.
TOLERANCE = 1e-4
# Of a gradient's norm, and of the largest norm of the model. Rounding made 1.5e-5 and 7e-11 of them; the smallest norm
# that is not zero but for rounding is 2e-8 of the largest.
GRADIENT_TOLERANCE, GRADIENT_ROUNDING = 1e-4, 1e-10
SIZES = {(64, 64): "0", (96, 128): "1", (70, 103): "2"}
TTA_SCALES = (0.75, 1, 1.5)

needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the whole arrays of the published code are not beside this checkout"
)


@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param((load_fixture, name), id=f"{name}-sampled") for name in CASES),
        *(pytest.param((load_reference, name), id=f"{name}-whole", marks=needs_reference) for name in CASES),
    ],
)
def case(request):
    load, name = request.param
    case = load(name)
    is_image = ("pixel_values", "tta_image")
    case.inputs |= {key: values.double() for key, values in case.inputs.items() if key.startswith(is_image)}
    return case


@pytest.fixture(scope="module")
def model(case):
    return case.build_model().double()


def resize(values, size):
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)


@torch.no_grad()
def test_every_array_of_a_forward_pass(case, model):
    seen = set()
    for name, pixel_values in case.inputs.items():
        if not name.startswith("pixel_values"):
            continue
        index = name[-1]
        assert SIZES[tuple(pixel_values.shape[-2:])] == index
        image_outputs = model.image_encoder(pixel_values)
        outputs = model(pixel_values, inference_mode="whole")
        arrays = {f"feature_{level}": values for level, values in enumerate(image_outputs.feature_maps)}
        arrays["decode_head"] = outputs.logits
        arrays["logits"] = resize(outputs.logits, pixel_values.shape[-2:])
        arrays["slide"] = resize(model(pixel_values).logits, pixel_values.shape[-2:])
        if model.config.use_language:
            arrays |= {
                "global": image_outputs.global_embedding,
                "visual": image_outputs.pixel_embeddings,
                "text_embeddings": outputs.text_embeddings,
                "score_map": outputs.score_map,
            }
        for array, values in arrays.items():
            assert case.error(f"{array}_{index}", values) < TOLERANCE, f"{array} at {tuple(pixel_values.shape)}"
            seen.add(f"{array}_{index}")
    others = {name for name in case.expected if name.startswith(("loss.", "tta_"))}
    assert seen == set(case.expected) - others, "an array of the published code was not compared"


def test_sliding_windows_are_used_where_published(case, model):
    """The arrays above would agree trivially if no window were ever taken."""
    pixel_values = case.inputs["pixel_values_2"]
    whole = resize(model(pixel_values, inference_mode="whole").logits, pixel_values.shape[-2:])
    is_slide = model.config.inference_mode == "slide"
    assert (case.error("slide_2", whole) > 0.05) == is_slide


@torch.no_grad()
def test_multi_scale_and_flip(case, model):
    image = case.inputs["tta_image"]
    if model.config.inference_mode == "slide":
        probabilities = multi_scale_inference(model, image, TTA_SCALES)
        assert case.error("tta_probabilities", probabilities) < TOLERANCE
        return
    # These arrays were made with image metadata that gave every copy the size of the original, at which mmseg's whole
    # mode cuts the logits of the larger copies off. With the same cut ours are equal; without it they are the average
    # that is meant, which the next test holds against a plain loop.
    height, width = image.shape[-2:]
    total = 0
    for scale in TTA_SCALES:
        scaled = resize(image, (int(height * scale + 0.5), int(width * scale + 0.5)))
        for mirrored in (False, True):
            copy = scaled.flip(-1) if mirrored else scaled
            logits = resize(resize(model(copy).logits, scaled.shape[-2:])[:, :, :height, :width], (height, width))
            probabilities = logits.softmax(dim=1)
            total = total + (probabilities.flip(-1) if mirrored else probabilities)
    assert case.error("tta_probabilities", total / 6) < TOLERANCE


@torch.no_grad()
def test_multi_scale_is_the_plain_average(case, model):
    image = case.inputs["tta_image"]
    single = {}
    for scale in TTA_SCALES:
        scaled = resize(image, (int(image.shape[-2] * scale + 0.5), int(image.shape[-1] * scale + 0.5)))
        logits = resize(resize(model(scaled).logits, scaled.shape[-2:]), image.shape[-2:])
        single[scale] = multi_scale_inference(model, image, [scale], flip=False)
        torch.testing.assert_close(single[scale], logits.softmax(dim=1), rtol=0, atol=1e-9)
        mirrored = multi_scale_inference(model, image.flip(-1), [scale], flip=False).flip(-1)
        torch.testing.assert_close(
            multi_scale_inference(model, image, [scale]), (single[scale] + mirrored) / 2, rtol=0, atol=1e-9
        )
    average = sum(single.values()) / len(TTA_SCALES)
    torch.testing.assert_close(multi_scale_inference(model, image, TTA_SCALES, flip=False), average, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        average.sum(dim=1), torch.ones(1, *image.shape[-2:], dtype=torch.float64), rtol=0, atol=1e-12
    )


@torch.no_grad()
def test_float32_is_float64_but_for_rounding(case, model):
    """What users compute in. A fault would be at least of the order of 1e-2."""
    pixel_values = case.inputs["pixel_values_2"]
    single = case.build_model()(pixel_values.float()).logits
    assert ((single - model(pixel_values).logits).abs().max() / single.std()).item() < 1e-3


def published_loss(case) -> float:
    losses = [value for name, value in case.expected.items() if name.startswith("loss.") and name.endswith("loss_ce")]
    return float(sum(float(value[0]) for value in losses))


def test_loss_counts_ignored_pixels_as_published(case, model):
    labels = case.inputs["labels_0"]
    assert (labels == 255).any()
    outputs = model(case.inputs["pixel_values_0"], labels=labels)
    assert outputs.loss.item() == pytest.approx(published_loss(case), rel=1e-6)


def test_gradient_norm_of_every_parameter(case, model):
    model.zero_grad()
    model(case.inputs["pixel_values_0"], labels=case.inputs["labels_0"]).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    # A fused tensor of the published code is several of ours; its norm is theirs together. One tensor is converted at
    # a time, beside the one that tells a ViT from a ResNet.
    marker = "backbone.class_embedding"
    marked = {marker: case.state_dict[marker]} if marker in case.state_dict else {}
    of_marker = set(convert_denseclip_state_dict(marked)) if marked else set()
    compared = set()
    largest = max(norm for norm in case.gradient_norms.values() if norm is not None)
    for published, norm in case.gradient_norms.items():
        ours = set(convert_denseclip_state_dict({**marked, published: case.state_dict[published]}))
        ours = of_marker if published == marker else ours - of_marker
        assert all(gradients[name] is not None for name in ours), published
        squares = sum(gradients[name].double().square().sum().item() for name in ours)
        assert squares**0.5 == pytest.approx(norm, rel=GRADIENT_TOLERANCE, abs=GRADIENT_ROUNDING * largest), published
        compared |= ours
    model.zero_grad()
    assert compared == set(gradients), "a parameter has no published counterpart"
