"""The loss of training against the model's own, and its options against sums written out."""

import math

import pytest
import torch

from modeling_denseclip import DenseCLIPSemanticSegmenterOutput, loss_denseclip
from modeling_denseclip.resizing_denseclip import resize_logits
from tests.tiny import tiny_config, tiny_model
from training.learning.losses import SegmentationLoss, dice_loss, read_class_weights


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    return DenseCLIPSemanticSegmenterOutput(logits=torch.randn(2, 5, 6, 8, generator=generator))


@pytest.fixture
def labels():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (2, 6, 8), generator=generator)  # class 4 does not occur
    labels[:, :2] = 255
    return labels


def pixels_of(outputs, labels):
    """(probabilities, label) of every labelled pixel."""
    for image, ids in zip(outputs.logits, labels, strict=True):
        for y in range(ids.shape[0]):
            for x in range(ids.shape[1]):
                if ids[y, x] != 255:
                    yield image[:, y, x].double().softmax(0).tolist(), int(ids[y, x])


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("use_language", [True, False])
def test_without_options_it_is_the_models_own_loss(kind, use_language):
    model = tiny_model(kind, use_language).eval()
    pixel_values, labels = torch.randn(2, 3, 64, 96), torch.randint(0, 5, (2, 50, 70))
    labels[0] = 255
    with torch.no_grad():
        outputs = model(pixel_values, labels=labels)
        parts = SegmentationLoss(model.config)(outputs, labels)
    assert list(parts) == (["decode", "score_map"] if use_language else ["decode"])
    torch.testing.assert_close(sum(parts.values()), outputs.loss)


def test_labels_of_a_byte_give_the_same_loss(outputs, labels):
    """Masks of an evaluation are kept as bytes."""
    for options in ({}, {"dice_weight": 0.5}, {"ohem_threshold": 0.7}, {"class_weights": torch.rand(5)}):
        loss = SegmentationLoss(tiny_config("resnet"), **options)
        assert loss(outputs, labels.to(torch.uint8)) == loss(outputs, labels)
        loss.config.ignore_index = 256  # which no byte holds, and which is 0 as one
        few = labels.clamp(max=4)
        assert loss(outputs, few.to(torch.uint8)) == loss(outputs, few)


@pytest.mark.parametrize("use_language", [True, False])
def test_in_training_the_auxiliary_head_is_a_part_of_the_models_own_loss(use_language):
    model = tiny_model("resnet", use_language, use_auxiliary_head=True, auxiliary_head_hidden_size=8)
    pixel_values, labels = torch.randn(2, 3, 64, 96), torch.randint(0, 5, (2, 50, 70))
    outputs = model(pixel_values, labels=labels)
    parts = SegmentationLoss(model.config)(outputs, labels)
    assert list(parts) == (["decode", "score_map", "auxiliary"] if use_language else ["decode", "auxiliary"])
    torch.testing.assert_close(sum(parts.values()), outputs.loss)
    assert "auxiliary" not in SegmentationLoss(model.config)(model.eval()(pixel_values), labels)


def test_auxiliary_part_is_its_weight_times_the_cross_entropy(outputs, labels):
    auxiliary = DenseCLIPSemanticSegmenterOutput(logits=outputs.logits.flip(1))
    parts = SegmentationLoss(tiny_config("resnet", auxiliary_loss_weight=0.25))(
        DenseCLIPSemanticSegmenterOutput(logits=outputs.logits, auxiliary_logits=auxiliary.logits), labels
    )
    expected = sum(-math.log(p[label]) for p, label in pixels_of(auxiliary, labels)) / labels.numel()
    assert parts["auxiliary"].item() == pytest.approx(0.25 * expected, rel=1e-5)


def test_nothing_labelled_gives_zero_and_zero_gradients(outputs):
    outputs.logits.requires_grad_()
    labels = torch.full((2, 6, 8), 255)
    parts = SegmentationLoss(tiny_config("resnet"), dice_weight=1.0, ohem_threshold=0.7)(outputs, labels)
    sum(parts.values()).backward()
    assert all(part == 0 for part in parts.values()) and not outputs.logits.grad.any()


def test_class_weights_scale_the_pixels_of_their_class(outputs, labels):
    weights = torch.tensor([1.0, 0.0, 2.5, 1.0, 9.0])
    loss = SegmentationLoss(tiny_config("resnet"), class_weights=weights)(outputs, labels)["decode"]
    expected = sum(-weights[label].item() * math.log(p[label]) for p, label in pixels_of(outputs, labels))
    assert loss.item() == pytest.approx(expected / labels.numel(), rel=1e-5)
    with pytest.raises(ValueError, match="4 class weights for 5 classes"):
        SegmentationLoss(tiny_config("resnet"), class_weights=torch.ones(4))


@pytest.mark.parametrize("threshold, min_kept", [(0.2, 1), (0.05, 20), (1.0, 1)])
def test_hard_examples_are_those_of_low_probability(outputs, labels, threshold, min_kept):
    loss = SegmentationLoss(tiny_config("resnet"), ohem_threshold=threshold, ohem_min_kept=min_kept)
    probabilities = sorted(p[label] for p, label in pixels_of(outputs, labels))
    kept = [p for p in probabilities if p <= threshold]
    kept = kept if len(kept) >= min_kept else probabilities[:min_kept]
    assert 1 < len(kept) <= len(probabilities)
    expected = sum(-math.log(p) for p in kept) / len(kept)
    assert loss(outputs, labels)["decode"].item() == pytest.approx(expected, rel=1e-5)


def test_hard_examples_may_be_fewer_than_asked_for(outputs, labels):
    loss = SegmentationLoss(tiny_config("resnet"), ohem_threshold=0.1, ohem_min_kept=10**6)
    expected = [-math.log(p[label]) for p, label in pixels_of(outputs, labels)]
    assert loss(outputs, labels)["decode"].item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_dice_of_each_class_that_is_there(outputs, labels):
    overlap, squares, pixels = [0.0] * 5, [0.0] * 5, [0] * 5
    for p, label in pixels_of(outputs, labels):
        overlap[label] += p[label]
        pixels[label] += 1
        for k in range(5):
            squares[k] += p[k] ** 2
    expected = [1 - 2 * overlap[k] / (squares[k] + pixels[k]) for k in range(4)]
    assert dice_loss(outputs.logits, labels, 255).item() == pytest.approx(sum(expected) / 4, rel=1e-5)
    part = SegmentationLoss(tiny_config("resnet"), dice_weight=0.5)(outputs, labels)["dice"]
    assert part.item() == pytest.approx(0.5 * sum(expected) / 4, rel=1e-5)


def test_logits_are_resized_once_for_all_parts_that_read_them(monkeypatch, outputs):
    resized = []

    def resize(logits, size):
        resized.append(size)
        return resize_logits(logits, size)

    monkeypatch.setattr(loss_denseclip, "resize_logits", resize)
    SegmentationLoss(tiny_config("resnet"), dice_weight=0.5)(outputs, torch.zeros(2, 24, 32, dtype=torch.long))
    assert resized == [(24, 32)]


def test_perfect_prediction_has_no_dice_loss(labels):
    logits = 50.0 * torch.nn.functional.one_hot(labels.where(labels != 255, 0), 5).movedim(-1, 1).float()
    assert dice_loss(logits, labels, 255).item() == pytest.approx(0, abs=1e-6)


def test_class_weights_file(tmp_path):
    path = tmp_path / "weights.txt"
    path.write_text("1.5\n0\n2\n")
    assert read_class_weights(path, 3).tolist() == [1.5, 0, 2]
    with pytest.raises(ValueError, match="3 weights; .* each of the 5 classes"):
        read_class_weights(path, 5)
    for wrong, message in (("1\n-2\n1\n", "-2.0 on line 2"), ("1\nnan\n1\n", "line 2"), ("1\nroad\n1\n", "no number")):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=message):
            read_class_weights(path, 3)
