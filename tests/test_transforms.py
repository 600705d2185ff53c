# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What happens to an image and its mask between file and model."""

import io
import re

import cv2
import datasets
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from torch.utils.data import DataLoader, default_collate
from transformers import TrainerControl, TrainerState

from modeling_denseclip import DenseCLIPImageProcessor
from tests.test_inspect_dataset import grey_png
from tests.test_training_data import as_mask, write_pair
from tests.tiny import draw_picture
from training.data.load import load_data
from training.data.transforms import (
    AugmentationEpoch,
    ChangedRowError,
    EvaluationTransform,
    TrainingTransform,
    collate_for_evaluation,
    has_dominant_class,
    jpeg_reduction,
    normalize_batch,
    photometric_distortion,
    read_image,
    read_labels,
    read_mask,
    read_pair,
    read_scaled_image,
    scaled_size,
    with_transform,
)


def processor_for(short_side=48, long_side=200, mean=(0.5,) * 3, std=(0.25,) * 3, **kwargs) -> DenseCLIPImageProcessor:
    size = {"shortest_edge": short_side, "longest_edge": long_side}
    return DenseCLIPImageProcessor(size=size, image_mean=mean, image_std=std, **kwargs)


def transform_for(crop=(48, 64), short_side=48, long_side=200, **kwargs) -> TrainingTransform:
    return TrainingTransform(processor_for(short_side, long_side), crop, **kwargs)


@pytest.fixture
def no_distortion(monkeypatch):
    monkeypatch.setattr("training.data.transforms.photometric_distortion", lambda image, generator: image)


def augment(transform, image, mask, index=0):
    """Pixel values and labels of one sample, as the model and the loss get them."""
    batch = normalize_batch(default_collate([transform.augment(image, mask, index)]), transform.image_processor)
    return batch["pixel_values"][0], batch["labels"][0]


# ------------------------------------------------------------------------------------------------------------- files


def encoded(path) -> dict:
    return {"path": str(path), "bytes": None}


def test_jpeg_pixels_are_those_of_pillow(tmp_path):
    picture = draw_picture(67, 45)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    options = {
        "plain": {},
        "coarse": {"quality": 30, "subsampling": 2},
        "fine": {"quality": 98, "subsampling": 0},
        "progressive": {"progressive": True},
        "rotated": {"exif": exif},
    }
    pictures = {name: (picture, kwargs) for name, kwargs in options.items()}
    pictures |= {"grey": (picture.convert("L"), {}), "cmyk": (picture.convert("CMYK"), {})}
    # As phones write them: a second picture behind the first.
    pictures["several"] = (picture, {"format": "MPO", "save_all": True, "append_images": [picture.rotate(90)]})
    for name, (image, kwargs) in pictures.items():
        path = tmp_path / f"{name}.jpg"
        image.save(path, **kwargs)
        expected = np.asarray(datasets.Image().decode_example(encoded(path)).convert("RGB"))
        assert np.array_equal(read_image(encoded(path)), expected), name
        assert np.array_equal(read_image({"path": None, "bytes": path.read_bytes()}), expected), name
        assert np.array_equal(read_image(PIL.Image.fromarray(expected)), expected), name
    assert read_image(encoded(tmp_path / "rotated.jpg")).shape == (67, 45, 3)


@pytest.mark.parametrize(
    "size, resized, factor",
    [
        ((3000, 4000), (512, 683), 4),
        ((3000, 4000), (375, 500), 8),  # just enough
        ((3000, 4000), (376, 501), 4),
        ((3000, 4000), (751, 1001), 2),
        ((3000, 4000), (1501, 2001), 1),
        ((3000, 4000), (300, 600), 4),  # the wider one counts
        ((512, 683), (1024, 1366), 1),
        ((64, 64), (8, 8), 8),
        # 3001 pixels are 375 eighths and one more, which stands for 7 beyond the edge. 3008 in place of 3001 move the
        # last of 375 pixels by 375 * 7 / 3001 = 0.9, the last of 100 by 0.23.
        ((3001, 4000), (375, 500), 2),  # at 1/4, 3 beyond: 375 * 3 / 3001 = 0.37; at 1/2, 1 beyond: 0.12
        ((3001, 4000), (100, 133), 8),
        ((4000, 3001), (133, 100), 8),
    ],
)
def test_jpegs_are_reduced_as_far_as_nothing_is_lost_or_moved(size, resized, factor):
    assert jpeg_reduction(size, resized) == factor


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_reduced_jpegs_have_the_pixels_of_pillows_draft(tmp_path, mode, orientation, factor):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    draw_picture(128, 64).convert(mode).save(tmp_path / "a.jpg", exif=exif, quality=90)
    asked = []

    def resized_size(height, width):
        asked.append((height, width))
        return height // factor, width // factor

    pixels, size = read_scaled_image(encoded(tmp_path / "a.jpg"), resized_size)
    draft = PIL.Image.open(tmp_path / "a.jpg")
    draft.draft(mode, (128 // factor, 64 // factor))
    expected = np.asarray(PIL.ImageOps.exif_transpose(draft).convert("RGB"))
    upright = (128, 64) if orientation == 6 else (64, 128)
    assert size == upright and asked == [upright]
    assert pixels.shape == expected.shape == (upright[0] // factor, upright[1] // factor, 3)
    # Two builds of libjpeg may round in other ways.
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_only_jpegs_are_reduced(tmp_path):
    picture = draw_picture(64, 64)
    picture.save(tmp_path / "a.png")
    picture.convert("CMYK").save(tmp_path / "a.jpg")
    for image in (encoded(tmp_path / "a.png"), encoded(tmp_path / "a.jpg"), picture):
        pixels, size = read_scaled_image(image, lambda height, width: (8, 8))
        assert size == (64, 64) and np.array_equal(pixels, read_image(image))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_other_images_are_brought_to_rgb(tmp_path, mode):
    picture = draw_picture(20, 10).convert(mode)
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_image(encoded(tmp_path / "a.png")), np.asarray(picture.convert("RGB")))


def test_masks_keep_their_ids(tmp_path):
    ids = np.array([[0, 1, 2], [255, 2, 0]])
    palette_image = as_mask(ids)
    palette_image.putpalette([value for i in range(256) for value in (255 - i, 7, 200)])
    sixteen = PIL.Image.fromarray((ids + 1000).astype(np.uint16))
    for name, mask, expected in (("p", palette_image, ids), ("l", as_mask(ids), ids), ("s", sixteen, ids + 1000)):
        mask.save(tmp_path / f"{name}.png")
        assert read_mask(encoded(tmp_path / f"{name}.png")).tolist() == read_mask(mask).tolist() == expected.tolist()
    with pytest.raises(ValueError, match=r"The mask has the mode RGB.*one id per pixel"):
        read_mask(PIL.Image.new("RGB", (2, 2)))


def test_masks_are_turned_as_images_are(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    as_mask([[0, 1, 2], [255, 2, 0]]).save(tmp_path / "a.png", exif=exif)
    expected = [[255, 0], [2, 1], [0, 2]]
    assert read_mask(encoded(tmp_path / "a.png")).tolist() == expected
    image = read_image(encoded(tmp_path / "a.png"))
    assert image.shape == (3, 2, 3) and image[..., 0].tolist() == expected


@pytest.mark.parametrize("bits, factor", [(2, 85), (4, 17)])
def test_greyscale_mask_of_few_bits_is_refused(tmp_path, bits, factor):
    path = tmp_path / "a.png"
    path.write_bytes(grey_png([[0, 1, 2, 2], [0, 0, 1, 1]], bits))
    assert np.asarray(PIL.Image.open(path)).tolist()[0] == [0, factor, 2 * factor, 2 * factor]  # the trap
    named = (encoded(path), f"The mask {re.escape(str(path))}")
    in_memory = ({"path": None, "bytes": path.read_bytes()}, "The mask"), (PIL.Image.open(path), "The mask")
    for mask, name in (named, *in_memory):
        with pytest.raises(ValueError, match=rf"{name} is a .* PNG of {bits} bits.*times {factor}\).*8 bits"):
            read_mask(mask)
    # A palette gives the indices, however many bits they take.
    palette_image = as_mask([[0, 1, 2, 2]])
    palette_image.putpalette([value for i in range(2**bits) for value in (255 - i, 7, 200)])
    palette_image.save(path)
    assert path.read_bytes()[24] == bits
    assert read_mask(encoded(path)).tolist() == [[0, 1, 2, 2]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_zero_label_is_reduced_as_the_image_processor_says(dtype):
    ids = np.array([[0, 1, 2, 150, 254, 255]], dtype=dtype)
    mask = PIL.Image.fromarray(ids)
    assert read_labels(mask, processor_for()).tolist() == ids.tolist()
    # By hand: 0 is unlabelled, so is 255, and every class is one lower.
    expected = [[255, 0, 1, 149, 253, 255]]
    assert read_labels(mask, processor_for(do_reduce_labels=True)).tolist() == expected
    image = PIL.Image.new("RGB", (6, 1))
    for reduce, labels in ((False, ids.tolist()), (True, expected)):
        processor = processor_for(1, 6, do_reduce_labels=reduce)
        trained = augment(TrainingTransform(processor, (1, 6), scale_range=(1, 1)), image, mask)[1].tolist()
        assert trained in (labels, [labels[0][::-1]])
        rows = {"image": [image], "annotation": [mask], "index": [0]}
        assert EvaluationTransform(processor)(rows)["labels"][0].tolist() == labels


# ------------------------------------------------------------------------------------------------- image beside mask


def label_picture(height=60, width=90):
    """A mask of smooth regions with the ids 0, 40, 80, ... 200, and a picture whose grey value is the id."""
    noise = cv2.resize(np.random.default_rng(3).random((4, 5)).astype(np.float32), (width, height))
    mask = 40 * np.clip(6 * noise, 0, 5).astype(np.uint8)
    return PIL.Image.fromarray(np.repeat(mask[..., None], 3, axis=-1)), PIL.Image.fromarray(mask)


def test_image_that_equals_its_mask_still_does(no_distortion):
    image, mask = label_picture(48, 72)
    transform = transform_for(crop=(40, 80), scale_range=(1.0, 1.0))
    seen = set()
    for index in range(40):
        pixel_values, labels = augment(transform, image, mask, index)
        ids = torch.where(labels == 255, 127.5, labels)  # padding is the mean colour
        for plane in pixel_values:
            torch.testing.assert_close((plane * 0.25 + 0.5) * 255, ids.float(), rtol=0, atol=1e-3)
        seen.add(labels.numpy().tobytes())
    assert len(seen) > 12  # 9 places, mirrored or not


def test_image_and_mask_move_together(no_distortion):
    image, mask = label_picture()
    transform = transform_for()
    agreements = []
    for index in range(40):
        pixel_values, labels = augment(transform, image, mask, index)
        assert pixel_values.shape == (3, 48, 64) and labels.shape == (48, 64) and labels.dtype == torch.int64
        ids = (pixel_values[0] * 0.25 + 0.5) * 255
        assert set(labels.unique().tolist()) <= {0, 40, 80, 120, 160, 200, 255}  # nearest: no id that was not there
        assert (pixel_values[:, labels == 255] == 0).all()  # the padding
        agreements.append(((40 * (ids / 40).round() == labels) | (labels == 255)).float().mean().item())
    # Bilinear pictures differ from nearest masks on the boundaries only.
    assert min(agreements) > 0.9


def test_ids_above_255_are_resized_and_cropped_like_others(no_distortion):
    image, mask = label_picture()
    many = PIL.Image.fromarray(np.asarray(mask).astype(np.uint16) + 1000)
    transform = transform_for()
    for index in range(10):
        (_, labels), (_, high) = (augment(transform, image, ids, index) for ids in (mask, many))
        assert torch.equal(torch.where(labels == 255, 255, labels + 1000), high)


def test_scale_stays_in_its_range_and_padding_fills_what_is_missing():
    image, mask = label_picture(50, 80)
    transform = transform_for(crop=(100, 160), short_side=50)
    heights = [int((augment(transform, image, mask, i)[1] != 255).any(dim=1).sum()) for i in range(60)]
    assert 25 <= min(heights) < 35 and 90 < max(heights) <= 100
    full = augment(transform_for(crop=(50, 80), short_side=50, scale_range=(1.0, 1.0)), image, mask)[1].numpy()
    assert np.array_equal(full, np.asarray(mask)) or np.array_equal(full, np.asarray(mask)[:, ::-1])


@pytest.mark.parametrize("long_side, shape", [(2048, (512, 683)), (600, (450, 600))])
def test_resize_rounds_half_up_and_respects_the_long_side(long_side, shape):
    image, mask = PIL.Image.new("RGB", (500, 375)), PIL.Image.new("L", (500, 375))
    transform = transform_for(crop=(700, 700), short_side=512, long_side=long_side, scale_range=(1.0, 1.0))
    labels = augment(transform, image, mask, 0)[1]
    assert ((labels == 0).any(dim=1).sum(), (labels == 0).any(dim=0).sum()) == shape


def test_scaled_sizes_are_cut_off():
    size = processor_for(512, 2048).size
    # 512 * 1.249 = 639.488, 2048 * 1.249 = 2557.952
    assert scaled_size(size, 1.249) == {"shortest_edge": 639, "longest_edge": 2557}
    assert scaled_size({"height": 30, "width": 50}, 0.75) == {"height": 22, "width": 37}


def test_samples_are_bytes(no_distortion):
    image, mask = PIL.Image.new("RGB", (80, 40), (10, 20, 30)), PIL.Image.new("L", (80, 40), 7)
    # Larger and smaller than the crop: 48 x 96 pixels, of which 48 x 64 are cut out, and 24 x 48.
    for scale, size in ((1.0, [48, 64]), (0.5, [24, 48])):
        sample = transform_for(crop=(48, 64), scale_range=(scale, scale)).augment(image, mask, 0)
        assert [sample[name].dtype for name in sample] == [torch.uint8, torch.uint8, torch.int64]
        assert sample["pixel_values"].shape == (3, 48, 64) and sample["labels"].shape == (48, 64)
        assert sample["sizes"].tolist() == size
        inside = np.zeros((48, 64), dtype=bool)
        inside[: size[0], : size[1]] = True
        assert (sample["labels"].numpy() == np.where(inside, 7, 255)).all()
        assert (sample["pixel_values"].permute(1, 2, 0).numpy()[inside] == (10, 20, 30)).all()


@pytest.mark.parametrize(
    "options",
    [
        {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)},
        {"mean": 0.5, "std": (0.3, 0.1, 0.77)},
        {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375), "do_rescale": False},
        {"do_normalize": False},
    ],
)
def test_batch_is_normalised_as_by_the_image_processor_and_then_padded(options):
    processor = processor_for(**options)
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (4, 3, 20, 24), dtype=np.uint8)
    pictures[0, :, :11] = np.arange(11 * 24, dtype=np.uint8).reshape(11, 24)  # every value of every channel
    labels = generator.integers(0, 256, (4, 20, 24), dtype=np.uint8)
    sizes = [(20, 24), (20, 7), (1, 24), (13, 9)]
    batch = {name: torch.from_numpy(array) for name, array in (("pixel_values", pictures), ("labels", labels))}
    normalized = normalize_batch({**batch, "sizes": torch.tensor(sizes)}, processor)
    expected = np.zeros(pictures.shape, dtype=np.float32)
    for picture, canvas, (height, width) in zip(pictures, expected, sizes, strict=True):
        crop = PIL.Image.fromarray(picture[:, :height, :width].transpose(1, 2, 0))
        canvas[:, :height, :width] = processor(crop, do_resize=False, return_tensors="np").pixel_values[0]
    assert normalized.keys() == {"pixel_values", "labels"}
    # Bit for bit: 0 and -0 are equal.
    assert normalized["pixel_values"].numpy().tobytes() == expected.tobytes()
    assert normalized["labels"].dtype == torch.int64 and torch.equal(normalized["labels"], batch["labels"].long())


def test_unchanged_image_is_that_of_evaluation(no_distortion):
    picture = draw_picture(75, 50)
    processor = processor_for()
    # 48 / 50 * 75 = 72
    transform = TrainingTransform(processor, (48, 72), scale_range=(1.0, 1.0))
    expected = processor(picture, return_tensors="pt").pixel_values[0]
    augmented = [augment(transform, picture, PIL.Image.new("L", picture.size), index)[0] for index in range(8)]
    assert all(torch.equal(image, expected) or torch.equal(image, expected.flip(-1)) for image in augmented)
    assert {torch.equal(image, expected) for image in augmented} == {False, True}


# -------------------------------------------------------------------------------------------------------------- crop


def naive_dominant_class(labels, max_class_share):
    counts = {}
    for label in labels.ravel().tolist():
        if label != 255:
            counts[label] = counts.get(label, 0) + 1
    return len(counts) < 2 or max(counts.values()) >= max_class_share * sum(counts.values())


def test_dominant_class_is_that_of_a_plain_count():
    generator = np.random.default_rng(0)
    found = []
    for index in range(400):
        weights = generator.dirichlet(np.full(generator.integers(1, 12), 0.3))
        ids = generator.choice([0, 1, 2, 7, 255, 3, 4, 5, 254, 9, 10][: len(weights)], (40, 37), p=weights)
        labels = ids.astype(np.uint8 if index % 2 else np.int32)[2:, 3:]
        found.append(has_dominant_class(labels, 0.75))
        assert found[-1] == naive_dominant_class(labels, 0.75)
    assert 100 < sum(found) < 300


@pytest.mark.parametrize(
    "ones, expected", [(0, True), (1, True), (100, True), (101, False), (299, False), (300, True)]
)
def test_dominant_class_at_its_limits(ones, expected):
    labels = np.zeros((20, 25), dtype=np.uint8)
    labels.ravel()[:ones] = 1
    labels.ravel()[-100:] = 255  # 400 are labelled, 300 of them are three quarters
    assert has_dominant_class(labels, 0.75) == expected == naive_dominant_class(labels, 0.75)


def test_nothing_labelled_is_no_good_crop():
    assert has_dominant_class(np.full((20, 20), 255, dtype=np.uint8), 0.75)
    sparse = np.full((20, 20), 255, dtype=np.uint8)
    sparse[1, :2] = 0, 1  # between the pixels that are looked at first
    assert not has_dominant_class(sparse, 0.75)


def test_crops_of_one_class_are_drawn_again():
    mask = np.zeros((40, 400), dtype=np.uint8)
    mask[:, 360:] = 1  # a class in the last tenth
    image = PIL.Image.new("RGB", (400, 40))
    transform = transform_for(crop=(40, 40), short_side=40, long_side=400, scale_range=(1.0, 1.0))
    labels = [augment(transform, image, PIL.Image.fromarray(mask), index)[1] for index in range(100)]
    good = sum(0.25 < (label == 0).float().mean() < 0.75 for label in labels)
    # Of the 361 places 19 are good, so one draw succeeds 5 times in 100, and one and ten redraws do 45 times.
    assert 30 <= good <= 60


class CornerGenerator:
    """Always draws the first place, and keeps count."""

    def __init__(self):
        self.draws = 0

    def integers(self, high):
        self.draws += 1
        return 0


@pytest.mark.parametrize(
    "crop, share, bad, draws",
    [
        ((40, 20), 0.75, False, 1),  # 80 % is unlabelled, the rest is half and half: the first crop is good
        ((40, 20), 0.75, True, 11),
        ((40, 20), 1.0, True, 1),  # no limit
        ((40, 60), 0.75, True, 1),  # there is no other crop
    ],
)
def test_crop_is_drawn_as_often_as_needed(crop, share, bad, draws):
    labels = np.full((40, 40), 255, dtype=np.uint8)
    labels[:4] = 0
    labels[4:8] = 0 if bad else 1
    generator = CornerGenerator()
    transform_for(crop=crop, max_class_share=share).random_crop(np.zeros((40, 40, 3), np.uint8), labels, generator)
    assert generator.draws == 2 * draws  # top and left


# -------------------------------------------------------------------------------------------- photometric distortion


def naive_distortion(image, generator):
    """Step after step on the whole picture."""

    def coin():
        return generator.random() < 0.5

    def convert(values, alpha=1.0, beta=0.0):
        return np.clip(values.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

    if coin():
        image = convert(image, beta=generator.uniform(-32, 32))
    contrast_first = coin()
    if contrast_first and coin():
        image = convert(image, alpha=generator.uniform(0.5, 1.5))
    if coin():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = convert(hsv[..., 1], alpha=generator.uniform(0.5, 1.5))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if coin():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + generator.integers(-18, 18)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not contrast_first and coin():
        image = convert(image, alpha=generator.uniform(0.5, 1.5))
    return image


def distort(image, seed):
    return photometric_distortion(image, np.random.default_rng(seed))


def test_photometric_distortion_equals_the_plain_one():
    # Every value of every channel, and random colours.
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    image[:4] = np.arange(4 * 48 * 3, dtype=np.uint8).reshape(4, 48, 3)
    window = image[:, 5:40]
    unchanged = 0
    for seed in range(200):
        expected = naive_distortion(window, np.random.default_rng(seed))
        assert np.array_equal(distort(window, seed), expected), seed
        unchanged += np.array_equal(window, expected)
    # Nothing is converted where nothing changes: one picture in 16 stays as it is.
    assert 5 <= unchanged <= 22


def test_photometric_distortion_changes_each_property_half_of_the_time():
    grey = np.full((4, 4, 3), 100, dtype=np.uint8)
    red = np.full((4, 4, 3), (180, 60, 60), dtype=np.uint8)
    grey_values, hues = [], []
    for seed in range(400):
        grey_values.append(distort(grey, seed)[0, 0])
        hue = int(cv2.cvtColor(distort(red, seed), cv2.COLOR_RGB2HSV)[0, 0, 0])
        hues.append((hue + 90) % 180 - 90)
    grey_values = np.array(grey_values)
    # Grey has neither hue nor saturation: what remains is brightness (+-32) and contrast (x 0.5 .. 1.5).
    assert (np.ptp(grey_values, axis=1) <= 1).all()
    assert (abs(grey_values[:, 0].astype(int) - 100) <= 1).mean() == pytest.approx(1 / 4, abs=0.08)
    assert 33 <= grey_values.min() < 55 and 170 < grey_values.max() <= 198
    assert min(hues) >= -20 and max(hues) <= 20 and max(hues) > 10 and min(hues) < -10
    assert np.mean([abs(hue) <= 1 for hue in hues]) == pytest.approx(0.55, abs=0.12)


# -------------------------------------------------------------------------------------------- batches of a data set


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> datasets.Dataset:
    folder = tmp_path_factory.mktemp("scenes")
    generator = np.random.default_rng(0)
    for index in range(6):
        write_pair(folder, f"{index}", as_mask(generator.integers(0, 3, (30 + index, 40))))
    (folder / "classes.txt").write_text("sky\nroad\ntraffic light\n")
    return load_data(data_dir=folder, splits=("training",)).train


def test_batches_do_not_depend_on_the_number_of_workers(rows):
    transform = transform_for(crop=(24, 24), short_side=30, seed=5)
    dataset = with_transform(rows, transform)
    transform.set_epoch(2)
    alone, shared = (list(DataLoader(dataset, batch_size=2, num_workers=workers)) for workers in (0, 2))
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["pixel_values"], other["pixel_values"]) and torch.equal(one["labels"], other["labels"])


def test_masks_of_8_and_of_16_bits_meet_in_a_batch(tmp_path):
    ids = np.repeat(np.arange(3, dtype=np.uint8), 14)[None].repeat(30, axis=0)
    for name, mask_type in (("a", np.uint8), ("b", np.uint16), ("c", np.uint8)):
        write_pair(tmp_path, name, PIL.Image.fromarray(ids.astype(mask_type)))
    (tmp_path / "classes.txt").write_text("sky\nroad\ntraffic light\n")
    rows = load_data(data_dir=tmp_path, splits=("training",)).train
    dataset = with_transform(rows, transform_for(crop=(30, 42), short_side=30, scale_range=(1.0, 1.0)))
    mixed, alone = (batch["labels"] for batch in DataLoader(dataset, batch_size=2, num_workers=1))
    assert mixed.dtype == torch.int32 and alone.dtype == torch.uint8
    for labels in (*mixed, *alone):
        assert labels.tolist() in (ids.tolist(), ids[:, ::-1].tolist())


def test_decoded_rows_give_the_same(rows):
    transform = transform_for(crop=(24, 24), short_side=30)
    for decoded, encoded_row in zip(rows.with_transform(transform), with_transform(rows, transform), strict=True):
        assert torch.equal(decoded["pixel_values"], encoded_row["pixel_values"])
        assert torch.equal(decoded["labels"], encoded_row["labels"])


def waves(height: int, width: int) -> np.ndarray:
    """A picture of waves, 12 to the short side: what moves by a pixel of a sample shows."""
    rows, columns = (np.arange(length) * (24 * np.pi / min(height, width)) for length in (height, width))
    return (127.5 + 60 * np.sin(rows)[:, None] + 60 * np.sin(columns)).astype(np.uint8)


@pytest.mark.parametrize("height, width", [(1152, 1536), (1153, 1541)])
def test_samples_of_reduced_jpegs_are_the_published_ones(tmp_path, no_distortion, height, width):
    """The same labels, and the same places of the picture: none moves by as much as half a pixel of the sample."""
    picture = waves(height, width)
    ids = (np.add.outer(np.arange(height) // 90, np.arange(width) // 110) % 4).astype(np.uint8)
    PIL.Image.fromarray(picture).convert("RGB").save(tmp_path / "a.jpg", quality=98)
    PIL.Image.fromarray(ids).save(tmp_path / "a.png")
    files = [encoded(tmp_path / name) for name in ("a.jpg", "a.png")]
    # A short side of 72 to 288 of 1152: at 1/4 or 1/8, and odd sides at 1/2 where it is long.
    full, reduced = (
        transform_for((320, 420), short_side=144, long_side=600, reduce_jpegs=flag) for flag in (False, True)
    )
    for index in range(12):
        one, other = (transform.augment(*files, index) for transform in (full, reduced))
        assert torch.equal(one["labels"], other["labels"]) and torch.equal(one["sizes"], other["sizes"])
        (rows, columns), pixels = one["sizes"].tolist(), one["pixel_values"].float()
        difference = (pixels - other["pixel_values"].float())[:, :rows, :columns].abs()
        # Along rows and columns waves differ by 60 * 4 * 12 / 288 = 10 levels on average from a pixel of the largest
        # samples to the next, and by more in smaller ones.
        assert difference.mean() < 4, index


def test_jpegs_that_are_no_larger_than_samples_stay_as_published(tmp_path):
    draw_picture(90, 60).save(tmp_path / "a.jpg")
    PIL.Image.new("L", (90, 60), 1).save(tmp_path / "a.png")
    files = [encoded(tmp_path / name) for name in ("a.jpg", "a.png")]
    samples = [
        [transform_for(short_side=61, reduce_jpegs=flag).augment(*files, index) for index in range(8)]
        for flag in (False, True)
    ]
    for one, other in zip(*samples, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_seed_epoch_and_index_all_change_the_crop():
    def first(seed, epoch, index=0):
        transform = transform_for(crop=(24, 24), short_side=30, seed=seed)
        transform.set_epoch(epoch)
        image, mask = label_picture()
        return augment(transform, image, mask, index)[0]

    reference = first(0, 0)
    assert torch.equal(reference, first(0, 0))
    for other in (first(1, 0), first(0, 1), first(0, 0, 1)):
        assert not torch.equal(reference, other)


def test_epoch_reaches_workers_that_outlive_it(rows):
    transform = transform_for(crop=(24, 24), short_side=30)
    callback = AugmentationEpoch(transform)
    loader = DataLoader(with_transform(rows, transform), batch_size=6, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in (0, 1.5):
        callback.on_epoch_begin(None, TrainerState(epoch=epoch), TrainerControl())
        epochs.append(next(iter(loader))["pixel_values"])
    assert not torch.equal(*epochs)
    assert int(transform.epoch) == 1


def test_evaluation_keeps_the_mask_at_its_original_size(rows):
    # 15 / 30 * 40 = 20, 15 / 33 * 40 = 18.2
    dataset = rows.with_transform(EvaluationTransform(processor_for(15, 200)))
    batch = collate_for_evaluation([dataset[0], dataset[3]])
    assert [[tuple(image.shape) for image in images] for images in batch["pixel_values"]] == [
        [(3, 15, 20)],
        [(3, 15, 18)],
    ]
    assert [tuple(label.shape) for label in batch["labels"]] == [(30, 40), (33, 40)]
    assert batch["labels"][1].dtype == torch.uint8  # as in the file: eight bytes would take longer to send
    assert np.array_equal(batch["labels"][1], np.asarray(rows[3]["annotation"]))
    assert list(batch)[0] == "num_images" and len(batch["num_images"]) == 2
    assert batch["index"].tolist() == [0, 3]


def test_every_scale_is_made_from_the_original(rows):
    processor = processor_for(31, 64)
    picture = draw_picture(75, 50)
    batch = {"image": [picture], "annotation": [PIL.Image.new("L", (75, 50))], "index": [4]}
    transformed = EvaluationTransform(processor, scales=(0.5, 1.0, 1.75))(batch)
    # 31 * 0.5 = 15.5 and 64 * 0.5 = 32, 31 * 1.75 = 54.25 and 64 * 1.75 = 112, cut off
    sizes = [(15, 32), (31, 64), (54, 112)]
    for image, (short, long) in zip(transformed["pixel_values"][0], sizes, strict=True):
        scale = min(short / 50, long / 75)
        height, width = int(50 * scale + 0.5), int(75 * scale + 0.5)
        pixels = cv2.resize(np.asarray(picture), (width, height), interpolation=cv2.INTER_LINEAR)
        expected = torch.from_numpy((pixels / np.float32(255) - 0.5) / 0.25).permute(2, 0, 1)
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)
    assert transformed["index"] == [4] and transformed["labels"][0].shape == (50, 75)


# ------------------------------------------------------------------------------------ what changed behind the check


def encoded_pair(folder, ids: np.ndarray) -> tuple[dict, dict]:
    """An image and a mask of these ids, as files."""
    PIL.Image.fromarray(ids).save(folder / "mask.png")
    PIL.Image.new("RGB", ids.shape[::-1]).save(folder / "image.png")
    return tuple({"path": str(folder / f"{kind}.png"), "bytes": None} for kind in ("image", "mask"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("reduce_labels", [False, True])
@pytest.mark.parametrize("num_labels", [2, 5, 150, 254, 255, 256, 300])
def test_only_ids_of_classes_become_labels(tmp_path, dtype, reduce_labels, num_labels):
    """One by one, all that a mask can store, up to some beyond the classes."""
    processor = processor_for(do_reduce_labels=reduce_labels)
    unlabelled = {255, 0} if reduce_labels else {255}
    highest = num_labels if reduce_labels else num_labels - 1
    for label in sorted({0, 1, 4, 5, 6, 149, 150, 151, 254, 255, 256, num_labels, num_labels + 1, 65535}):
        if label > np.iinfo(dtype).max:
            continue
        image, mask = encoded_pair(tmp_path, np.array([[1, 255], [label, 1]], dtype))
        if label in unlabelled or label <= highest:
            read_pair(image, mask, 7, processor, num_labels)
        else:
            message = rf"row 7, .*mask\.png, cannot .* \(it holds the id {label}, which is none of the {num_labels}"
            with pytest.raises(ChangedRowError, match=message):
                read_pair(image, mask, 7, processor, num_labels)


def test_negative_and_huge_ids_are_named_and_not_counted(tmp_path):
    for label in (-1, -(2**31), 2**31 - 1):
        PIL.Image.fromarray(np.array([[1, label]], np.int32)).save(tmp_path / "mask.tif")
        PIL.Image.new("RGB", (2, 1)).save(tmp_path / "image.png")
        image, mask = ({"path": str(tmp_path / name), "bytes": None} for name in ("image.png", "mask.tif"))
        for transform in (TrainingTransform, EvaluationTransform):
            options = {"crop_size": (1, 1)} if transform is TrainingTransform else {}
            rows = {"image": [image], "annotation": [mask], "index": [0]}
            with pytest.raises(ChangedRowError, match=rf"mask\.tif, cannot be read \(it holds the id {label}, which"):
                transform(processor_for(), **options, num_labels=5)(rows)


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda folder: (folder / "mask.png").unlink(),
            r"The mask of row 0, .*mask\.png, cannot be read \(.*No such file",
        ),
        (
            lambda folder: (folder / "image.png").write_text("x"),
            r"The image of row 0, .*image\.png, cannot be read \(",
        ),
        (
            lambda folder: PIL.Image.new("RGB", (4, 4)).save(folder / "mask.png"),
            r"mask\.png, cannot be read \(.*mode RGB",
        ),
        (
            lambda folder: PIL.Image.new("L", (4, 4)).save(folder / "mask.png", "JPEG"),
            r"mask\.png, cannot .* is a JPEG",
        ),
        (
            lambda folder: PIL.Image.new("L", (4, 4), 77).save(folder / "mask.png"),
            r"mask\.png, cannot be read \(it holds the id 77",
        ),
        (
            lambda folder: PIL.Image.new("L", (4, 5)).save(folder / "image.png"),
            r"image\.png, has \(5, 4\) pixels .* \(4, 4\)",
        ),
    ],
)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_a_worker_meets_is_said_in_one_line(tmp_path, change, words, num_workers):
    image, mask = encoded_pair(tmp_path, np.ones((4, 4), np.uint8))
    rows = datasets.Dataset.from_dict({"image": [image["path"]], "annotation": [mask["path"]], "index": [0]})
    for column in ("image", "annotation"):
        rows = rows.cast_column(column, datasets.Image())
    rows = with_transform(rows, TrainingTransform(processor_for(), (4, 4), num_labels=5))
    loader = DataLoader(rows, num_workers=num_workers)
    next(iter(loader))
    change(tmp_path)
    with pytest.raises(ChangedRowError, match=words) as raised:
        next(iter(loader))
    assert "\n" not in str(raised.value) and "Traceback" not in str(raised.value)
    assert str(raised.value).startswith("The ") and str(raised.value).endswith("by --resume_from_checkpoint last.")


def test_a_jpeg_with_a_fault_in_its_data_is_refused():
    """Data that are streamed are read by nobody before."""
    pixels = np.random.default_rng(0).integers(0, 255, (320, 400, 3), dtype=np.uint8)
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "JPEG")
    encoded = bytearray(stream.getvalue())
    encoded[len(encoded) // 2 : len(encoded) // 2 + 2] = b"\xff\xf0"
    with pytest.raises(OSError, match="broken data stream"):
        read_image({"bytes": bytes(encoded), "path": "broken.jpg"})
