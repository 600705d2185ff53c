# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The common model tests of Transformers, on three image encoders: CLIP's ViT, its ResNet, and a DINOv2 backbone."""

import contextlib
import copy
import unittest

import torch
from torch import nn
from transformers.testing_utils import torch_device

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation
from tests.tiny import tiny_config
from tests.transformers_common import import_common_tests


common = import_common_tests("test_modeling_common")
ConfigTester = import_common_tests("test_configuration_common").ConfigTester


class DenseCLIPModelTester:
    """
    A tiny model and its inputs. The image encoder has four layers or stages, whose outputs are all used, and the other
    parts as few as they can: nearly all of these tests build several models.
    """

    batch_size = 3
    num_channels = 3
    image_size = 64
    is_training = True
    num_attention_heads = 4
    hidden_size = 32
    expected_num_hidden_layers = 5

    def __init__(self, parent: unittest.TestCase, seq_length: int, num_attentions: int, **config_kwargs):
        self.parent = parent
        self.seq_length = seq_length
        self.num_hidden_layers = num_attentions
        self.config_kwargs = config_kwargs

    def get_config(self) -> DenseCLIPConfig:
        return tiny_config(**self.config_kwargs)

    def prepare_config_and_inputs_for_common(self):
        shape = [self.batch_size, self.num_channels, self.image_size, self.image_size]
        return self.get_config(), {"pixel_values": common.floats_tensor(shape)}


class DenseCLIPTests(common.ModelTesterMixin):
    all_model_classes = (DenseCLIPForSemanticSegmentation,)
    test_resize_embeddings = False
    _is_composite = True

    def setUp(self):
        self.model_tester = DenseCLIPModelTester(self, **self.tester_kwargs)
        self.config_tester = ConfigTester(
            self, config_class=DenseCLIPConfig, has_text_modality=False, projection_dim=37
        )

    def subTest(self, *args, **kwargs):
        # Thousands of them, one for each weight, whose reports would take longer than what they compare. The first
        # that fails ends its test; what differs is in its message.
        return contextlib.nullcontext()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        # Transformers' own does so for the models that it knows by name.
        inputs_dict = copy.deepcopy(inputs_dict)
        if return_labels:
            batch_size, _, height, width = inputs_dict["pixel_values"].shape
            inputs_dict["labels"] = torch.zeros((batch_size, height, width), dtype=torch.long, device=torch_device)
        return inputs_dict

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_model_get_set_embeddings(self):
        # Of images: a convolution, as in Transformers' vision models.
        model = DenseCLIPForSemanticSegmentation(self.model_tester.get_config())
        self.assertIsInstance(model.get_input_embeddings(), nn.Module)
        new = nn.Identity()
        model.set_input_embeddings(new)
        self.assertIs(model.get_input_embeddings(), new)
        self.assertIsNone(model.get_output_embeddings())

    @unittest.skip(
        reason="DenseCLIP takes feature maps of four layers, as BEiT's segmentation, which may have four too"
    )
    def test_num_layers_is_small(self):
        pass

    def test_training_overfit(self):
        # Transformers' own is for text models.
        torch.manual_seed(0)
        model = DenseCLIPForSemanticSegmentation(self.model_tester.get_config()).to(torch_device).train()
        columns = torch.arange(4, device=torch_device).repeat_interleave(16).expand(64, 64)
        labels = torch.stack([columns, columns.T])
        colors = torch.randn(4, 3, device=torch_device)
        pixel_values = colors[labels].permute(0, 3, 1, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
        losses = []
        for _ in range(60):
            loss = model(pixel_values, labels=labels).loss
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.assertLess(losses[-1], 0.1 * losses[0])


# Of 25 cases for all models: ours takes no attention mask, and so computes the same whether and where that would be 0.
for name in vars(common.ModelTesterMixin):
    case = name.partition("test_eager_matches_sdpa_inference_")[2]
    if ("pad_left" in case and "output_attentions" not in case) or "no_attn_mask" in case:
        setattr(DenseCLIPTests, name, None)


class DenseCLIPViTModelTest(DenseCLIPTests, unittest.TestCase):
    test_bc_torch_dtype = None  # of a former keyword and seven values, which no image encoder sees: once is enough
    tester_kwargs = {
        "kind": "vit",
        "seq_length": 1 + 4 * 4,
        "num_attentions": 4,
        "context_decoder_num_hidden_layers": 1,
    }


class DenseCLIPResNetModelTest(DenseCLIPTests, unittest.TestCase):
    # Of the attention pool, on 2 x 2 cells and their mean.
    tester_kwargs = {"kind": "shallow", "seq_length": 1 + 2 * 2, "num_attentions": 1}

    def test_hidden_states_output(self):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        config.output_hidden_states = True
        by_config = DenseCLIPForSemanticSegmentation(config).to(torch_device).eval()
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        by_call = DenseCLIPForSemanticSegmentation(config).to(torch_device).eval()
        with torch.no_grad():
            for outputs in (by_config(**inputs), by_call(**inputs, output_hidden_states=True)):
                # The stem and four stages.
                strides = [self.model_tester.image_size // states.shape[-1] for states in outputs.hidden_states]
                self.assertEqual(strides, [4, 4, 8, 16, 32])


class DenseCLIPBackboneModelTest(DenseCLIPTests, unittest.TestCase):
    test_bc_torch_dtype = None
    tester_kwargs = {
        "kind": "shallow",
        "seq_length": 1 + 6 * 6,  # images are resized to a multiple of two patches, 84 x 84
        "num_attentions": 5,  # that of the attention pool comes last
        "vision_config": {
            "model_type": "dinov2",
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
        },
    }

    @unittest.skip(reason="the backbone has a copy of its sub-config that names the stages which DenseCLIP takes")
    def test_internal_model_config_and_subconfig_are_same(self):
        pass
