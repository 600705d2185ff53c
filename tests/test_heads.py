"""UperNet and the auxiliary head: against Transformers' UperNet on the same weights, and what a call returns when."""

import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import ResNetConfig, UperNetConfig, UperNetForSemanticSegmentation
from transformers.models.upernet.modeling_upernet import UperNetHead

from modeling_denseclip import DenseCLIPForSemanticSegmentation
from tests.test_modeling_denseclip import rough_model
from tests.tiny import TINY_CLASS_NAMES, make_tiny_tokenizer


NUM_CLASSES = len(TINY_CLASS_NAMES)
RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 24],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
UPERNET = {"decode_head_type": "upernet", "decode_head_hidden_size": 16, "auxiliary_head_hidden_size": 12}


def upernet(**overrides):
    return rough_model("resnet", **{**UPERNET, "vision_config": RESNET, **overrides})


def as_transformers(model) -> UperNetForSemanticSegmentation:
    """Transformers' UperNet with the weights of `model`, which has no language."""
    config = UperNetConfig(
        backbone_config=ResNetConfig(**{**RESNET, "out_features": STAGES}),
        hidden_size=16,
        pool_scales=[1, 2, 3, 6],
        auxiliary_channels=12,
        auxiliary_num_convs=1,
        num_labels=NUM_CLASSES,
    )
    theirs = UperNetForSemanticSegmentation(config)
    renamed = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("image_encoder.backbone.", "backbone.").replace("decode_head.fusion.", "decode_head.")
        renamed[name.replace("auxiliary_head.conv.", "auxiliary_head.convs.0.")] = tensor
    theirs.load_state_dict(renamed)
    return theirs.eval()


@torch.no_grad()
def test_upernet_is_transformers_upernet():
    model = upernet(use_language=False).eval()
    theirs = as_transformers(model)
    pixel_values = torch.rand(2, 3, 96, 64)
    ours = F.interpolate(model(pixel_values).logits, size=(96, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours, theirs(pixel_values).logits, rtol=1e-4, atol=1e-5)


def test_auxiliary_head_and_its_share_of_the_loss_are_transformers():
    model = upernet(use_language=False, decode_head_dropout=0.0)
    theirs = as_transformers(model).train()
    pixel_values, labels = torch.rand(2, 3, 64, 64), torch.randint(0, NUM_CLASSES, (2, 64, 64))
    outputs = model.train()(pixel_values, labels=labels)
    assert outputs.auxiliary_logits.shape == (2, NUM_CLASSES, 4, 4)
    torch.testing.assert_close(outputs.loss, theirs(pixel_values, labels=labels).loss, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_score_map_joins_the_last_map():
    model = upernet().eval()
    pixel_values = torch.rand(2, 3, 64, 96)
    outputs, feature_maps = model(pixel_values), list(model.image_encoder(pixel_values).feature_maps)
    feature_maps[3] = torch.cat([feature_maps[3], outputs.score_map], dim=1)
    # Transformers' head by itself, with its own classifier
    head = UperNetHead(
        UperNetConfig(hidden_size=16, pool_scales=[1, 2, 3, 6], num_labels=NUM_CLASSES),
        in_channels=[8, 12, 16, 24 + NUM_CLASSES],
    ).eval()
    head.load_state_dict(
        {name.removeprefix("fusion."): tensor for name, tensor in model.decode_head.state_dict().items()}
    )
    torch.testing.assert_close(outputs.logits, head(feature_maps), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("head", ["semantic_fpn", "upernet"])
@torch.no_grad()
def test_score_map_may_join_any_map(head, level):
    """Brought to its size: the same as a model that is given the resized score map as further channels."""
    model = upernet(decode_head_type=head, score_map_level=level).eval()
    pixel_values = torch.rand(2, 3, 64, 96)
    outputs, feature_maps = model(pixel_values), list(model.image_encoder(pixel_values).feature_maps)
    size = (16 // 2**level, 24 // 2**level)
    resized = F.interpolate(outputs.score_map, size=size, mode="bilinear", align_corners=False)
    feature_maps[level] = torch.cat([feature_maps[level], resized], dim=1)
    decoded = model.decode_head(feature_maps if head == "upernet" else model.neck(feature_maps))
    torch.testing.assert_close(outputs.logits, decoded)


def test_auxiliary_logits_come_in_training_only():
    model = upernet()
    pixel_values, labels = torch.rand(2, 3, 64, 64), torch.randint(0, NUM_CLASSES, (2, 64, 64))
    with torch.no_grad():
        assert model.eval()(pixel_values, labels=labels).auxiliary_logits is None
    outputs = model.train()(pixel_values, labels=labels)
    outputs.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    # The loss is the sum of its three cross-entropies.
    parts = [outputs.logits, outputs.score_map / 0.07, outputs.auxiliary_logits]
    losses = [F.cross_entropy(F.interpolate(part, size=(64, 64), mode="bilinear"), labels) for part in parts]
    torch.testing.assert_close(outputs.loss, losses[0] + 0.4 * losses[1] + 0.4 * losses[2])


def test_auxiliary_head_is_upernets_by_default_and_can_be_had_or_left():
    assert not rough_model("resnet").config.use_auxiliary_head
    assert not hasattr(upernet(use_auxiliary_head=False), "auxiliary_head")
    model = rough_model("vit", use_auxiliary_head=True).train()
    assert model(torch.rand(2, 3, 64, 64)).auxiliary_logits.shape == (2, NUM_CLASSES, 4, 4)


def test_one_image_alone_cannot_train_upernet():
    model = upernet().train()
    with pytest.raises(ValueError, match="batch of one image in training mode.*at least two"):
        model(torch.rand(1, 3, 64, 64))
    model.eval()(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_upernet_on_clips_encoders(kind):
    model = rough_model(kind, **UPERNET).train()
    outputs = model(torch.rand(2, 3, 64, 96), labels=torch.randint(0, NUM_CLASSES, (2, 64, 96)))
    assert outputs.logits.shape == (2, NUM_CLASSES, 16, 24) and outputs.loss.isfinite()


@pytest.mark.parametrize("level", [1, 3])
@torch.no_grad()
def test_class_names_move_every_weight_of_their_class(level, tmp_path):
    """Both ways of renaming; classes in another order are the same model with its channels in another order."""
    model = upernet(score_map_level=level).eval()
    model.tokenizer = make_tiny_tokenizer()
    model.save_pretrained(tmp_path)
    pixel_values = torch.rand(2, 3, 64, 96)
    before, auxiliary_classifier = model(pixel_values), copy.deepcopy(model.auxiliary_head.classifier)
    order = [4, 2, 0, 1, 3]
    names = [TINY_CLASS_NAMES[index] for index in order]
    loaded = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path, id2label=dict(enumerate(names)))
    model.set_class_names(names)
    for renamed in (model, loaded):
        after = renamed(pixel_values)
        torch.testing.assert_close(after.score_map, before.score_map[:, order], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(after.logits, before.logits[:, order], rtol=1e-4, atol=1e-4)
        for name, parameter in renamed.auxiliary_head.classifier.named_parameters():
            assert torch.equal(parameter, auxiliary_classifier.get_parameter(name)[order])


@pytest.mark.parametrize("level", [1, 3])
@torch.no_grad()
def test_dropped_classes_leave_and_new_ones_begin_small(level):
    """With two classes kept and three dropped, a kept score-map channel weighs in every convolution as it did."""
    model = upernet(score_map_level=level).eval()
    convs = model.decode_head.convs_reading(level)
    assert len(convs) == (1 if level == 1 else 5)  # a lateral, or four poolings and the bottleneck
    features = model.image_encoder.feature_sizes[level]
    before = [conv.weight.clone() for conv in convs]
    report = model.set_class_names(["person", "mud", "wall"], make_tiny_tokenizer())
    assert (report.kept, report.new) == (("person", "wall"), ("mud",))
    for conv, old in zip(convs, before, strict=True):
        assert conv.in_channels == conv.weight.shape[1] == old.shape[1] - NUM_CLASSES + 3
        assert torch.equal(conv.weight[:, :features], old[:, :features])
        assert torch.equal(conv.weight[:, features], old[:, features + TINY_CLASS_NAMES.index("person")])
        assert torch.equal(conv.weight[:, features + 2], old[:, features + TINY_CLASS_NAMES.index("wall")])
        assert torch.equal(conv.weight[:, features + 3 :], old[:, features + NUM_CLASSES :])
        assert 0 < conv.weight[:, features + 1].std() < 3 * (2 / (conv.weight[:, 0].numel())) ** 0.5
    assert model(torch.rand(1, 3, 64, 64)).logits.shape == (1, 3, 16, 16)
    assert model.auxiliary_head.classifier.weight.shape[0] == 3
