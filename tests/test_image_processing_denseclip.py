# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Tests of the image processor against OpenCV, the published pipeline, `torch.nn.functional` and plain loops.

`fixtures/preprocessing.npz` holds what OpenCV 5.0 makes of the patterns below (OpenCV 4 gives the same numbers):

    arrays = {}
    for name, (height, width, new_height, new_width, step) in RESIZE_CASES.items():
        size = (new_width, new_height)
        picture = cv2.resize(make_picture(height, width), size, interpolation=cv2.INTER_LINEAR)
        ids = cv2.resize(make_ids(height, width).astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
        arrays[f"{name}_picture"], arrays[f"{name}_ids"] = picture[::step, ::step], ids[::step, ::step]
    np.savez_compressed("tests/fixtures/preprocessing.npz", **arrays)
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from modeling_denseclip.image_processing_denseclip import DenseCLIPImageProcessor


FIXTURE = Path(__file__).parent / "fixtures" / "preprocessing.npz"
PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "reference" / "preprocessing" / "preprocessing.npz"
MEAN = np.array([0.48145466, 0.4578275, 0.40821073]).reshape(3, 1, 1)
STD = np.array([0.26862954, 0.26130258, 0.27577711]).reshape(3, 1, 1)
# OpenCV's integer arithmetic is less than this from the exact result.
ONE_LEVEL = 1 / 255 / STD.min()

# name: height, width, mmcv's height and width for (2048, shortest edge) worked out by hand, and the step at which the
# fixture samples the result.
RESIZE_CASES = {
    "enlarged_512": (61, 97, 512, 814, 7),
    "enlarged_640": (97, 61, 1018, 640, 7),
    "reduced_512": (700, 900, 512, 658, 5),
    "strongly_reduced_32": (450, 301, 48, 32, 1),
    "limited_by_longest_edge_512": (150, 800, 384, 2048, 7),
    "rounded_up_512": (375, 500, 512, 683, 5),
    "unchanged_64": (64, 90, 64, 90, 1),
    "halved_48": (96, 130, 48, 65, 1),
}


def make_picture(height, width):
    """A uint8 (height, width, 3) picture with slopes, edges and fine texture, by integer arithmetic only."""
    rows, columns, channels = np.ogrid[:height, :width, :3]
    slopes = (rows * 255 // height) * (columns + 1) // width + 31 * channels
    edges = 90 * ((rows // 9 + columns // 13 + channels) % 2)
    texture = (rows * rows * 7 + columns * columns * 3 + rows * columns * (5 + channels)) % 97
    return ((slopes + edges + texture) % 256).astype(np.uint8)


def make_ids(height, width):
    """int64 (height, width) class ids, 0 to 299, different at neighbouring pixels."""
    rows, columns = np.ogrid[:height, :width]
    return (rows * 37 + columns * 11) % 300


def make_logits(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def make_outputs(logits):
    return SimpleNamespace(logits=logits)


def to_levels(pixel_values):
    """Undoes the normalisation: (3, height, width) values in units of 1/255."""
    return (np.asarray(pixel_values, dtype=np.float64) * STD + MEAN) * 255


def assert_same_up_to_ties(segmentation, scores):
    """The map holds the best class of `scores`, or one whose score equals the best but for rounding."""
    assert segmentation.dtype == torch.int64
    assert segmentation.shape == scores.shape[1:]
    chosen = scores.gather(0, segmentation[None])[0]
    torch.testing.assert_close(chosen, scores.amax(dim=0), atol=1e-5, rtol=0)
    assert (segmentation != scores.argmax(dim=0)).float().mean() < 1e-3


@pytest.fixture(scope="module")
def opencv():
    with np.load(FIXTURE) as arrays:
        return dict(arrays)


class TestResize:
    @pytest.mark.parametrize("name", RESIZE_CASES)
    def test_picture_equals_opencv_to_the_last_bit(self, name, opencv):
        height, width, new_height, new_width, step = RESIZE_CASES[name]
        processor = DenseCLIPImageProcessor(size={"shortest_edge": int(name.split("_")[-1]), "longest_edge": 2048})
        pixel_values = processor(make_picture(height, width), return_tensors="np")["pixel_values"][0]
        assert pixel_values.dtype == np.float32
        assert pixel_values.shape == (3, new_height, new_width)
        levels = to_levels(pixel_values)
        assert np.abs(levels - np.rint(levels)).max() < 1e-3
        expected = opencv[f"{name}_picture"].transpose(2, 0, 1)
        np.testing.assert_array_equal(np.rint(levels)[:, ::step, ::step], expected)

    @pytest.mark.parametrize("name", RESIZE_CASES)
    def test_labels_equal_opencv_nearest(self, name, opencv):
        height, width, new_height, new_width, step = RESIZE_CASES[name]
        processor = DenseCLIPImageProcessor(size={"shortest_edge": int(name.split("_")[-1]), "longest_edge": 2048})
        batch = processor(make_picture(height, width), make_ids(height, width), return_tensors="pt")
        assert set(batch) == {"pixel_values", "labels"}
        assert batch["labels"].dtype == torch.int64
        assert batch["labels"].shape == (1, new_height, new_width) == (1, *batch["pixel_values"].shape[-2:])
        np.testing.assert_array_equal(batch["labels"][0, ::step, ::step], opencv[f"{name}_ids"])

    def test_any_size_equals_opencv_where_it_is_installed(self):
        cv2 = pytest.importorskip(
            "cv2", reason="a sweep over sizes; the stored expectations are checked without OpenCV"
        )
        generator = np.random.default_rng(0)
        for height, width, new_height, new_width in generator.integers(1, 150, (100, 4)).tolist():
            picture = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            ids = generator.integers(0, 2**16, (height, width), dtype=np.uint16)
            processor = DenseCLIPImageProcessor(
                size={"height": new_height, "width": new_width}, do_rescale=False, do_normalize=False
            )
            batch = processor(picture, ids, input_data_format="channels_last", return_tensors="np")
            expected = cv2.resize(picture, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
            np.testing.assert_array_equal(batch["pixel_values"][0].transpose(1, 2, 0), expected)
            expected = cv2.resize(ids, (new_width, new_height), interpolation=cv2.INTER_NEAREST)
            np.testing.assert_array_equal(batch["labels"][0], expected)
            as_float = processor(picture.astype(np.float32), input_data_format="channels_last")["pixel_values"][0]
            expected = cv2.resize(picture.astype(np.float32), (new_width, new_height), interpolation=cv2.INTER_LINEAR)
            np.testing.assert_allclose(as_float.transpose(1, 2, 0), expected, atol=2e-3)

    @pytest.mark.parametrize("index, shortest_edge", [(0, 512), (1, 640), (2, 512)])
    def test_published_pipeline(self, index, shortest_edge):
        if not PUBLISHED.exists():
            pytest.skip("the published pipeline's photographs may not be copied into this repository")
        with np.load(PUBLISHED) as arrays:
            picture = arrays[f"image_{index}"]
            expected = arrays[f"output_{index}_{shortest_edge}"].astype(np.float32)
        processor = DenseCLIPImageProcessor(size={"shortest_edge": shortest_edge, "longest_edge": 2048})
        pixel_values = processor(picture, return_tensors="np")["pixel_values"][0]
        assert pixel_values.shape == expected.shape
        # What is left is the float16 of the stored tensors: no pixel is off by a level.
        assert np.abs(to_levels(pixel_values) - to_levels(expected)).max() < 0.07
        np.testing.assert_array_equal(np.rint(to_levels(pixel_values)), np.rint(to_levels(expected)))

    @pytest.mark.parametrize(
        "original, size, expected",
        [
            ((768, 1024), {"shortest_edge": 512, "longest_edge": 2048}, (512, 683)),
            ((512, 683), {"shortest_edge": 512, "longest_edge": 2048}, (512, 683)),
            ((100, 1000), {"shortest_edge": 512, "longest_edge": 2048}, (205, 2048)),
            ((1000, 100), {"shortest_edge": 512, "longest_edge": 2048}, (2048, 205)),
            ((100, 1000), {"shortest_edge": 512}, (512, 5120)),
            ((100, 1000), {"height": 33, "width": 44}, (33, 44)),
            ((1, 5000), {"shortest_edge": 512, "longest_edge": 2048}, (1, 2048)),
        ],
    )
    def test_resized_size(self, original, size, expected):
        assert DenseCLIPImageProcessor(size=size).get_resized_size(*original) == expected
        assert DenseCLIPImageProcessor().get_resized_size(*original, size=size) == expected

    def test_unsupported_settings_are_refused(self):
        picture = make_picture(20, 30)
        with pytest.raises(ValueError, match="'shortest_edge' alone"):
            DenseCLIPImageProcessor(size={"longest_edge": 100})(picture)
        with pytest.raises(ValueError, match="without antialiasing"):
            DenseCLIPImageProcessor()(picture, resample=Image.Resampling.BICUBIC)
        with pytest.raises(ValueError, match="do_center_crop"):
            DenseCLIPImageProcessor()(picture, do_center_crop=True, crop_size=10)


class TestImages:
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 24, "longest_edge": 96})

    def process(self, image, **kwargs):
        return self.processor(image, return_tensors="np", **kwargs)["pixel_values"]

    def test_steps_can_be_switched_off_one_by_one(self):
        picture = make_picture(20, 30)
        channels_first = picture.transpose(2, 0, 1).astype(np.float64)
        plain = self.process(picture, do_resize=False, do_rescale=False, do_normalize=False)[0]
        np.testing.assert_array_equal(plain, channels_first)
        rescaled = self.process(picture, do_resize=False, do_normalize=False)[0]
        np.testing.assert_allclose(rescaled, channels_first / 255, atol=1e-6)
        normalized = self.process(picture, do_resize=False)[0]
        np.testing.assert_allclose(normalized, (channels_first / 255 - MEAN) / STD, atol=1e-5)
        assert normalized.dtype == np.float32
        scalars = self.process(picture, do_resize=False, image_mean=0.5, image_std=0.25)[0]
        np.testing.assert_allclose(scalars, (channels_first / 255 - 0.5) / 0.25, atol=1e-5)

    def test_same_picture_in_every_container(self):
        picture = make_picture(20, 30)
        expected = self.process(Image.fromarray(picture))
        channels_first = np.ascontiguousarray(picture.transpose(2, 0, 1))
        containers = [
            picture,
            channels_first,
            torch.from_numpy(channels_first),
            torch.from_numpy(channels_first)[None],
            [torch.from_numpy(picture)],
            [[Image.fromarray(picture)]],
            picture.astype(np.int64),
            picture.astype(np.uint16),
        ]
        for container in containers:
            np.testing.assert_array_equal(self.process(container), expected)
        # These are resized without rounding to levels.
        for container in [picture.astype(np.float64), torch.from_numpy(channels_first).to(torch.bfloat16)]:
            np.testing.assert_allclose(self.process(container), expected, atol=ONE_LEVEL)

    def test_pil_modes(self):
        picture = Image.fromarray(make_picture(20, 30))
        with_alpha = picture.copy()
        with_alpha.putalpha(7)
        np.testing.assert_array_equal(self.process(with_alpha), self.process(picture))
        np.testing.assert_array_equal(self.process(np.asarray(with_alpha)), self.process(picture))
        grey = picture.convert("L")
        repeated = self.process(np.repeat(np.asarray(grey)[..., None], 3, axis=-1))
        for image in [
            grey,
            np.asarray(grey),
            [np.asarray(grey)],
            np.asarray(grey)[None],
            torch.tensor(np.asarray(grey)),
        ]:
            np.testing.assert_array_equal(self.process(image), repeated)
        for mode in ["1", "P", "CMYK", "LA", "HSV", "YCbCr"]:
            converted = picture.convert(mode)
            np.testing.assert_array_equal(self.process(converted), self.process(converted.convert("RGB")))

    def test_rotation_tag_is_left_to_load_image(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(make_picture(20, 30)).save(tmp_path / "rotated.png", exif=exif)
        assert self.process(Image.open(tmp_path / "rotated.png")).shape[-2:] == (24, 36)
        assert self.process(str(tmp_path / "rotated.png")).shape[-2:] == (36, 24)

    @pytest.mark.parametrize("mode, dtype", [("I;16", np.uint16), ("I", np.int32), ("F", np.float32)])
    def test_pil_modes_of_unknown_range_are_refused(self, mode, dtype):
        image = Image.fromarray(np.full((20, 30), 3000, dtype=dtype))
        assert image.mode == mode
        with pytest.raises(ValueError, match=f"mode '{mode}'.*8 bits per channel"):
            self.process(image)

    @pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0)])
    def test_empty_pictures_are_refused(self, shape):
        with pytest.raises(ValueError, match=r"shape \(.*0.*none of them empty"):
            self.process([np.zeros(shape, np.uint8)])
        with pytest.raises(ValueError, match="empty list"):
            self.process([])

    def test_unknown_layouts_are_refused(self):
        with pytest.raises(ValueError, match=r"\(20, 30, 5\).*Select three channels"):
            self.process(np.zeros((20, 30, 5), np.uint8))
        with pytest.raises(ValueError, match="5 channels"):
            self.process(np.zeros((20, 30, 5), np.uint8), input_data_format="channels_last")
        with pytest.raises(ValueError, match="4 channels.*do_convert_rgb"):
            self.process(np.zeros((20, 30, 4), np.uint8), do_convert_rgb=False)

    def test_floats_in_unit_range_are_not_rescaled_twice(self):
        unit = (make_picture(20, 30) / 255).astype(np.float32)
        with pytest.raises(ValueError, match=r"\[0, 1\].*rescaled twice.*do_rescale=False"):
            self.process(unit)
        expected = self.process(make_picture(20, 30))
        np.testing.assert_allclose(self.process(unit, do_rescale=False), expected, atol=ONE_LEVEL)
        # A black picture means the same in both ranges.
        np.testing.assert_array_equal(self.process(unit * 0), self.process(make_picture(20, 30) * 0))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_non_finite_values_are_refused(self, value):
        picture = make_picture(20, 30).astype(np.float32)
        picture[3, 4, 1] = value
        for do_rescale in (True, False):
            with pytest.raises(ValueError, match="NaN or infinite"):
                self.process(picture, do_rescale=do_rescale)

    def test_values_out_of_range_are_refused(self):
        with pytest.raises(ValueError, match=r"uint16 with values in \[0, 3000\], outside \[0, 255\]"):
            self.process(np.arange(0, 3001, 5, dtype=np.uint16)[:600].reshape(20, 30) // 2995 * 3000)
        with pytest.raises(ValueError, match=r"outside \[0, 255\]"):
            self.process(make_picture(20, 30).astype(np.float32) - 5)
        with pytest.raises(ValueError, match="type bool"):
            self.process(np.ones((20, 30, 3), bool))
        # 16 bits are fine once the factor says so.
        sixteen_bits = make_picture(20, 30).astype(np.uint16) * 257
        np.testing.assert_allclose(
            self.process(sixteen_bits, rescale_factor=1 / 65535),
            self.process(make_picture(20, 30)),
            atol=ONE_LEVEL,
        )

    def test_sizes_that_differ_need_padding(self):
        pictures = [make_picture(20, 30), make_picture(30, 20)]
        with pytest.raises(ValueError, match=r"\(24, 36\), \(36, 24\).*do_pad=True"):
            self.process(pictures)
        assert [image.shape for image in self.processor(pictures)["pixel_values"]] == [(3, 24, 36), (3, 36, 24)]
        assert self.process(pictures, do_pad=True).shape == (2, 3, 36, 36)

    def test_inputs_are_not_changed(self):
        picture, ids = make_picture(24, 36).astype(np.float32), make_ids(24, 36)
        picture_before, ids_before = picture.copy(), ids.copy()
        self.processor(picture, ids, do_reduce_labels=True, do_pad=True, return_tensors="np")
        np.testing.assert_array_equal(picture, picture_before)
        np.testing.assert_array_equal(ids, ids_before)


class TestSegmentationMaps:
    processor = DenseCLIPImageProcessor(size={"height": 20, "width": 30})

    def labels(self, segmentation_maps, images=None, **kwargs):
        images = make_picture(20, 30) if images is None else images
        return self.processor(images, segmentation_maps, return_tensors="np", **kwargs)["labels"]

    def test_ids_survive_every_container(self):
        ids = make_ids(20, 30)
        small = ids % 200
        palette = Image.fromarray(small.astype(np.uint8))
        palette.putpalette([(index * 83) % 256 for index in range(768)])
        assert palette.mode == "P"
        assert len(np.unique(np.asarray(palette.convert("L")))) != len(np.unique(small))
        for container in [palette, Image.fromarray(small.astype(np.uint8)), small.astype(np.uint8)]:
            np.testing.assert_array_equal(self.labels(container)[0], small)
        sixteen_bits, thirty_two_bits = Image.fromarray(ids.astype(np.uint16)), Image.fromarray(ids.astype(np.int32))
        assert (sixteen_bits.mode, thirty_two_bits.mode) == ("I;16", "I")
        containers = [
            sixteen_bits,
            thirty_two_bits,
            ids,
            ids.astype(np.float32),
            torch.from_numpy(ids),
            [ids],
            ids[None],
            [ids[None]],
            [ids[..., None]],
            ids[None, None],
        ]
        for container in containers:
            labels = self.labels(container)
            assert labels.dtype == np.int64
            np.testing.assert_array_equal(labels, ids[None])

    def test_batches(self):
        pictures = [make_picture(20, 30)] * 3
        maps = np.stack([make_ids(20, 30), make_ids(20, 30) + 1, make_ids(20, 30) + 2])
        for container in [maps, list(maps), torch.from_numpy(maps), maps[:, None]]:
            np.testing.assert_array_equal(self.labels(container, images=pictures), maps)

    def test_colour_maps_are_refused(self):
        for coloured in [Image.fromarray(make_picture(20, 30)), make_picture(20, 30), [make_picture(20, 30)]]:
            with pytest.raises(ValueError, match=r"shape \(20, 30, 3\).*without converting it to RGB"):
                self.labels(coloured)

    def test_maps_that_do_not_fit_are_refused(self):
        with pytest.raises(ValueError, match=r"\(19, 30\).*\(20, 30\)"):
            self.labels(make_ids(19, 30))
        with pytest.raises(ValueError, match="2 segmentation maps for 1 images"):
            self.labels([make_ids(20, 30)] * 2)
        with pytest.raises(ValueError, match="id -1"):
            self.labels(make_ids(20, 30) - 1)
        with pytest.raises(ValueError, match="fractions"):
            self.labels(make_ids(20, 30) / 2)

    def test_reduce_labels(self):
        ids = np.array([[0, 1, 2, 150], [253, 254, 255, 255], [257, 256, 40000, 65535], [3, 0, 0, 4]])
        expected = np.array([[255, 0, 1, 149], [252, 253, 255, 255], [256, 255, 39999, 65534], [2, 255, 255, 3]])
        settings = {"images": make_picture(4, 4), "do_resize": False, "input_data_format": "channels_last"}
        for dtype in (np.uint16, np.int64):
            labels = self.labels(ids.astype(dtype), do_reduce_labels=True, **settings)
            np.testing.assert_array_equal(labels[0], expected)
        settings["images"] = make_picture(2, 4)
        in_8_bits = self.labels(ids[:2].astype(np.uint8), do_reduce_labels=True, **settings)
        np.testing.assert_array_equal(in_8_bits[0], expected[:2])
        np.testing.assert_array_equal(self.labels(ids[:2], **settings)[0], ids[:2])

    def test_padding_is_not_reduced(self):
        labels = self.labels(
            make_ids(20, 30), do_pad=True, pad_size={"height": 22, "width": 33}, do_reduce_labels=True
        )[0]
        assert (labels[20:] == 255).all() and (labels[:, 30:] == 255).all()
        assert (labels[:20, :30] == np.where(make_ids(20, 30) == 0, 255, make_ids(20, 30) - 1)).mean() > 0.99


class TestPadding:
    def test_bottom_and_right_with_the_mean_colour(self):
        size = {"shortest_edge": 24, "longest_edge": 96}
        processor = DenseCLIPImageProcessor(size=size, do_pad=True, pad_size={"height": 40, "width": 50})
        batch = processor(make_picture(20, 30), make_ids(20, 30), return_tensors="pt")
        assert set(batch) == {"pixel_values", "labels"}
        assert batch["pixel_values"].shape == (1, 3, 40, 50)
        assert batch["labels"].shape == (1, 40, 50)
        plain = DenseCLIPImageProcessor(size=size)(make_picture(20, 30), make_ids(20, 30), return_tensors="pt")
        assert torch.equal(batch["pixel_values"][..., :24, :36], plain["pixel_values"])
        assert torch.equal(batch["labels"][..., :24, :36], plain["labels"])
        outside = torch.ones(40, 50, dtype=torch.bool)
        outside[:24, :36] = False
        assert (batch["pixel_values"][:, :, outside] == 0).all()
        assert (batch["labels"][:, outside] == 255).all()

    def test_too_small_canvas_is_refused(self):
        processor = DenseCLIPImageProcessor(do_pad=True, pad_size={"height": 512, "width": 600})
        with pytest.raises(ValueError, match=r"\(512, 683\).*canvas \(512, 600\).*Enlarge `pad_size`"):
            processor(make_picture(75, 100))
        with pytest.raises(ValueError, match="'height' and 'width'"):
            processor(make_picture(75, 100), pad_size={"shortest_edge": 5})


class TestSemanticPostProcessing:
    processor = DenseCLIPImageProcessor()

    @pytest.mark.parametrize("target", [(1, 1), (13, 17), (52, 68), (101, 37), (9, 300), (7, 5)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_equals_interpolate(self, target, dtype):
        logits = make_logits(2, 5, 13, 17, dtype=dtype)
        expected = F.interpolate(logits.float(), size=target, mode="bilinear", align_corners=False)
        maps = self.processor.post_process_semantic_segmentation(make_outputs(logits), [target, target])
        with_scores = self.processor.post_process_semantic_segmentation(
            make_outputs(logits), torch.tensor([target, target]), return_segmentation_scores=True
        )
        assert len(maps) == len(with_scores) == 2
        for index in range(2):
            assert_same_up_to_ties(maps[index], expected[index])
            assert torch.equal(maps[index], with_scores[index].segmentation)
            torch.testing.assert_close(with_scores[index].segmentation_scores, expected[index], atol=1e-5, rtol=0)

    def test_each_picture_has_its_own_size(self):
        logits = make_logits(2, 5, 13, 17)
        maps = self.processor.post_process_semantic_segmentation(make_outputs(logits), [(20, 31), (45, 12)])
        assert [tuple(segmentation.shape) for segmentation in maps] == [(20, 31), (45, 12)]

    def test_without_target_sizes(self):
        logits = make_logits(2, 5, 13, 17).requires_grad_()
        for processor in (self.processor, DenseCLIPImageProcessor(do_pad=True, pad_size={"height": 9, "width": 9})):
            maps = processor.post_process_semantic_segmentation(make_outputs(logits))
            assert torch.equal(torch.stack(maps), logits.argmax(dim=1))

    def test_wrong_sizes_are_refused(self):
        outputs = make_outputs(make_logits(2, 5, 13, 17))
        for method in (
            self.processor.post_process_semantic_segmentation,
            self.processor.post_process_panoptic_segmentation,
        ):
            with pytest.raises(ValueError, match="3 `target_sizes` for a batch of 2"):
                method(outputs, target_sizes=[(20, 20)] * 3)
            with pytest.raises(ValueError, match="1 `input_sizes` for a batch of 2"):
                method(outputs, target_sizes=[(20, 20)] * 2, input_sizes=[(20, 20)])
            with pytest.raises(ValueError, match="two positive integers"):
                method(outputs, target_sizes=[(20, 20), (0, 20)])
            with pytest.raises(ValueError, match="without `target_sizes`"):
                method(outputs, input_sizes=[(20, 20)] * 2)
            with pytest.raises(ValueError, match=r"\(5, 13, 17\).*batch_size"):
                method(make_outputs(outputs.logits[0]), target_sizes=[(20, 20)] * 5)


class TestUndoPadding:
    # A 60 x 90 picture becomes 64 x 96, on a canvas of 128 x 160.
    processor = DenseCLIPImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 160}, do_pad=True, pad_size={"height": 128, "width": 160}
    )

    @pytest.mark.parametrize("stride", [1, 4])
    def test_equals_interpolate_of_the_cropped_logits(self, stride):
        logits = make_logits(2, 5, 128 // stride, 160 // stride)
        maps = self.processor.post_process_semantic_segmentation(make_outputs(logits), [(60, 90), (90, 60)])
        crops = [logits[:1, :, : 64 // stride, : 96 // stride], logits[1:, :, : 96 // stride, : 64 // stride]]
        for segmentation, crop, target in zip(maps, crops, [(60, 90), (90, 60)], strict=True):
            expected = F.interpolate(crop, size=target, mode="bilinear", align_corners=False)[0]
            assert_same_up_to_ties(segmentation, expected)

    def test_padding_never_bleeds_in(self):
        logits = make_logits(1, 5, 32, 40)
        logits[:, :, 16:] = logits[:, :, :, 24:] = torch.nan
        with_scores = self.processor.post_process_semantic_segmentation(
            make_outputs(logits), [(60, 90)], return_segmentation_scores=True
        )[0]
        assert torch.isfinite(with_scores.segmentation_scores).all()

    @pytest.mark.parametrize(
        "canvas, logits_size", [((128, 160), (32, 40)), ((70, 102), (17, 25)), ((70, 102), (18, 26))]
    )
    def test_smooth_field_is_where_it_is_without_padding(self, canvas, logits_size):
        # Class k's logit is a plane over the picture, so bilinear sampling is exact between the logits' centres.
        slopes = make_logits(5, 2)
        offsets = make_logits(5)

        def sample(rows, columns):
            planes = slopes[:, 0, None, None] * rows[:, None] + slopes[:, 1, None, None] * columns
            return planes / 20 + offsets[:, None, None]

        def centres(count, length):
            return (torch.arange(count) + 0.5) * length / count

        logits = sample(centres(logits_size[0], canvas[0]), centres(logits_size[1], canvas[1]))
        processor = DenseCLIPImageProcessor(
            size={"shortest_edge": 64, "longest_edge": 160},
            do_pad=True,
            pad_size={"height": canvas[0], "width": canvas[1]},
        )
        scores = processor.post_process_semantic_segmentation(
            make_outputs(logits[None]), [(60, 90)], return_segmentation_scores=True
        )[0].segmentation_scores
        expected = sample(centres(60, 64), centres(90, 96))
        # Half a stride from the border there is nothing to interpolate from.
        torch.testing.assert_close(scores[:, 3:-3, 3:-3], expected[:, 3:-3, 3:-3], atol=1e-4, rtol=0)
        not_undone = DenseCLIPImageProcessor().post_process_semantic_segmentation(
            make_outputs(logits[None]), [(60, 90)], return_segmentation_scores=True
        )[0]
        assert (not_undone.segmentation_scores - expected).abs().max() > 0.3

    def test_batch_padded_to_its_largest_picture(self):
        pictures = [make_picture(60, 90), make_picture(90, 60)]
        size = {"shortest_edge": 64, "longest_edge": 160}
        pixel_values = DenseCLIPImageProcessor(size=size, do_pad=True)(pictures, return_tensors="pt")["pixel_values"]
        assert pixel_values.shape[-2:] == (96, 96)
        logits = make_logits(2, 5, 24, 24)
        targets = [(60, 90), (90, 60)]
        crops = [logits[:1, :, :16], logits[1:, :, :, :16]]
        expected = [
            F.interpolate(crop, size=target, mode="bilinear")[0] for crop, target in zip(crops, targets, strict=True)
        ]
        implicit = DenseCLIPImageProcessor(size=size, do_pad=True)
        in_the_call = DenseCLIPImageProcessor(size=size)
        input_sizes = [in_the_call.get_resized_size(*target) for target in targets]
        for maps in (
            implicit.post_process_semantic_segmentation(make_outputs(logits), targets),
            in_the_call.post_process_semantic_segmentation(make_outputs(logits), targets, input_sizes=input_sizes),
            in_the_call.post_process_semantic_segmentation(
                make_outputs(logits), targets, input_sizes=torch.tensor(input_sizes)
            ),
        ):
            for segmentation, scores in zip(maps, expected, strict=True):
                assert_same_up_to_ties(segmentation, scores)

    def test_targets_other_than_the_original_sizes(self):
        logits = make_logits(1, 5, 32, 40)
        segmentation = self.processor.post_process_semantic_segmentation(
            make_outputs(logits), [(200, 333)], input_sizes=[(64, 96)]
        )[0]
        expected = F.interpolate(logits[:, :, :16, :24], size=(200, 333), mode="bilinear")[0]
        assert_same_up_to_ties(segmentation, expected)

    def test_without_resizing(self):
        processor = DenseCLIPImageProcessor(do_resize=False, do_pad=True, pad_size={"height": 128, "width": 160})
        logits = make_logits(1, 5, 32, 40)
        segmentation = processor.post_process_semantic_segmentation(make_outputs(logits), [(64, 96)])[0]
        assert_same_up_to_ties(segmentation, F.interpolate(logits[:, :, :16, :24], size=(64, 96), mode="bilinear")[0])

    def test_picture_larger_than_the_canvas_is_refused(self):
        with pytest.raises(ValueError, match=r"\(160, 64\).*canvas \(128, 160\)"):
            self.processor.post_process_semantic_segmentation(make_outputs(make_logits(1, 5, 32, 40)), [(100, 40)])


class TestPanopticPostProcessing:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_scores_are_mean_probabilities_of_the_nearest_logits(self, dtype):
        processor = DenseCLIPImageProcessor()
        logits = make_logits(2, 6, 13, 17, dtype=dtype)
        logits[:, 3] -= 100
        # The thresholds that the pipeline always sends drop nothing.
        results = processor.post_process_panoptic_segmentation(
            make_outputs(logits),
            threshold=0.9,
            mask_threshold=0.5,
            overlap_mask_area_threshold=0.5,
            target_sizes=[(40, 31)] * 2,
        )
        maps = processor.post_process_semantic_segmentation(make_outputs(logits), [(40, 31)] * 2)
        # Of a pixel whose centre lies in the middle between two logits, the second one.
        rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in ((40, 13), (31, 17)))
        probabilities = logits.float().softmax(dim=1)[:, :, rows[:, None], columns]
        for index, result in enumerate(results):
            segmentation = result["segmentation"]
            assert torch.equal(segmentation, maps[index])
            assert [segment["id"] for segment in result["segments_info"]] == [0, 1, 2, 4, 5]
            for segment in result["segments_info"]:
                assert set(segment) == {"id", "label_id", "score"}
                assert segment["label_id"] == segment["id"]
                assert type(segment["score"]) is float
                values = [
                    probabilities[index, segment["id"], row, column].item()
                    for row, column in (segmentation == segment["id"]).nonzero().tolist()
                ]
                assert segment["score"] == pytest.approx(sum(values) / len(values), abs=1e-6)

    def test_large_logits_do_not_overflow(self):
        logits = torch.tensor([60000.0, 59999.0], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, 4, 4)
        (segment,) = DenseCLIPImageProcessor().post_process_panoptic_segmentation(make_outputs(logits))[0][
            "segments_info"
        ]
        assert segment == {"id": 0, "label_id": 0, "score": pytest.approx(1 / (1 + np.exp(-1.0)))}

    def test_padding_is_undone(self):
        processor = DenseCLIPImageProcessor(
            size={"shortest_edge": 64, "longest_edge": 160}, do_pad=True, pad_size={"height": 128, "width": 160}
        )
        outputs = make_outputs(make_logits(1, 5, 32, 40))
        for kwargs in ({}, {"input_sizes": [(64, 100)]}):
            (result,) = processor.post_process_panoptic_segmentation(outputs, target_sizes=[(60, 90)], **kwargs)
            (segmentation,) = processor.post_process_semantic_segmentation(outputs, [(60, 90)], **kwargs)
            assert torch.equal(result["segmentation"], segmentation)


class TestSettings:
    def test_defaults_are_the_published_pipeline(self):
        processor = DenseCLIPImageProcessor()
        assert processor.size == {"shortest_edge": 512, "longest_edge": 2048}
        assert list(processor.image_mean) == MEAN.ravel().tolist()
        assert list(processor.image_std) == STD.ravel().tolist()
        assert (processor.do_pad, processor.pad_size, processor.do_reduce_labels) == (False, None, False)
        assert processor.model_input_names == ["pixel_values"]

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {
                "do_resize": False,
                "size": {"height": 32, "width": 48},
                "do_rescale": False,
                "rescale_factor": 0.5,
                "do_normalize": False,
                "image_mean": [0.1, 0.2, 0.3],
                "image_std": [0.4, 0.5, 0.6],
                "do_convert_rgb": False,
                "do_pad": True,
                "pad_size": {"height": 64, "width": 96},
                "do_reduce_labels": True,
            },
            {"size": {"shortest_edge": 640, "longest_edge": 2048}},
        ],
    )
    def test_save_and_load_keep_every_setting(self, settings, tmp_path):
        processor = DenseCLIPImageProcessor(**settings)
        processor.save_pretrained(tmp_path)
        loaded = DenseCLIPImageProcessor.from_pretrained(tmp_path)
        assert loaded.to_dict() == processor.to_dict()
        names = DenseCLIPImageProcessor.valid_kwargs.__annotations__
        assert {name: getattr(loaded, name) for name in names} == {name: getattr(processor, name) for name in names}
        for name, value in settings.items():
            kept = getattr(loaded, name)
            assert (list(kept) if isinstance(value, list) else kept) == value
        saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
        assert saved["image_processor_type"] == "DenseCLIPImageProcessor"

    def test_arguments_of_a_call_do_not_stay(self):
        processor = DenseCLIPImageProcessor()
        before = processor.to_dict()
        processor(make_picture(20, 30), make_ids(20, 30), size=640, do_pad=True, do_reduce_labels=True)
        assert processor.to_dict() == before
        # An integer is the shorter edge.
        assert processor(make_picture(20, 30), size=40)["pixel_values"][0].shape == (3, 40, 60)

    def test_unknown_arguments_are_refused(self):
        with pytest.raises(Exception, match="reduce_label"):
            DenseCLIPImageProcessor()(make_picture(20, 30), reduce_label=True)
