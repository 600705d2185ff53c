# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The common image-processor tests of Transformers, and what its segmentation models ask of theirs beside them."""

import unittest

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_denseclip import DenseCLIPImageProcessor
from tests.transformers_common import import_common_tests


common = import_common_tests("test_image_processing_common")
if not hasattr(common, "ImageProcessingTester"):
    pytest.skip("this release looks image processors up in its own tables alone", allow_module_level=True)


class DenseCLIPImageProcessingTester(common.ImageProcessingTester):
    def __init__(self, parent, **kwargs):
        kwargs.setdefault("size", {"height": 30, "width": 30})
        super().__init__(parent, num_labels=5, **kwargs)

    def _get_image_processing_classes(self):
        return {"pil": DenseCLIPImageProcessor}

    def prepare_semantic_segmentation_inputs_ade20k(self, batched: bool = False):
        # Of ADE20K's sizes and ids, but painted: the pictures are on the Hub.
        generator = np.random.default_rng(0)
        images, segmentation_maps = [], []
        for height, width in ((512, 683), (480, 640)):
            images.append(Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)))
            segmentation_maps.append(Image.fromarray(generator.integers(0, 151, (height, width), dtype=np.uint8)))
        return (images, segmentation_maps) if batched else (images[0], segmentation_maps[0])


class DenseCLIPImageProcessingTest(
    common.ImageProcessingTestMixin, common.PostProcessSemanticSegmentationTestMixin, unittest.TestCase
):
    image_processor_tester_class = DenseCLIPImageProcessingTester
    test_cast_dtype = True

    @unittest.skip(reason="pictures are resized by OpenCV's rule, as published, which no backend of torchvision has")
    def test_new_models_require_torchvision_backend(self):
        pass

    def test_call_segmentation_maps(self):
        tester = self.image_processor_tester
        processor = DenseCLIPImageProcessor(**self.image_processor_dict)
        tensors = tester.prepare_image_inputs(equal_resolution=False, torchify=True)
        maps = [torch.zeros(tensor.shape[-2:], dtype=torch.long) for tensor in tensors]
        cases = (
            (tensors[0], maps[0], 1),
            (tensors, maps, tester.batch_size),
            (*tester.prepare_semantic_segmentation_inputs_ade20k(), 1),
            (*tester.prepare_semantic_segmentation_inputs_ade20k(batched=True), 2),
        )
        for images, segmentation_maps, batch_size in cases:
            encoding = processor(images, segmentation_maps, return_tensors="pt")
            self.assertEqual(encoding["pixel_values"].shape, (batch_size, 3, 30, 30))
            self.assertEqual(encoding["labels"].shape, (batch_size, 30, 30))
            self.assertEqual(encoding["labels"].dtype, torch.long)
            self.assertGreaterEqual(encoding["labels"].min(), 0)
            self.assertLessEqual(encoding["labels"].max(), 255)

    def test_reduce_labels(self):
        image, segmentation_map = self.image_processor_tester.prepare_semantic_segmentation_inputs_ade20k()
        plain = DenseCLIPImageProcessor(**self.image_processor_dict)(image, segmentation_map, return_tensors="pt")
        self.assertLessEqual(plain["labels"].max(), 150)
        processor = DenseCLIPImageProcessor(**self.image_processor_dict)
        processor.do_reduce_labels = True
        reduced = processor(image, segmentation_map, return_tensors="pt")
        self.assertTrue(torch.equal(reduced["labels"], torch.where(plain["labels"] == 0, 255, plain["labels"] - 1)))
