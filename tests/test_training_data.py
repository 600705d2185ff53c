# Copyright 2026 The DenseCLIP for Transformers authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The folder data set: what it refuses, and that augmentation treats image and mask alike."""

import re
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader

from training.class_names import read_class_names
from training.data import (
    EvaluationTransform,
    TrainingTransform,
    collate_for_evaluation,
    load_folder_dataset,
    photometric_distortion,
    read_mask,
    resize_keep_ratio,
)


STREET_SCENES = Path(__file__).parents[2] / "shared" / "street-scenes"
NAMES = ["sky", "road", "traffic light"]


def write_pair(folder: Path, name: str, mask: PIL.Image.Image, size=None, split="training", suffix=".jpg"):
    for kind in ("images", "annotations"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size or mask.size, (10, 20, 30)).save(folder / "images" / split / f"{name}{suffix}")
    mask.save(folder / "annotations" / split / f"{name}.png")


def as_mask(values) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.array(values, dtype=np.uint8))


def transform_for(crop=(48, 64), short_side=48, long_side=200, **kwargs) -> TrainingTransform:
    return TrainingTransform(crop, short_side, long_side, [0.5] * 3, [0.25] * 3, **kwargs)


# ---------------------------------------------------------------------------------------------------- the folder


def test_pairs_are_found_by_name_and_sorted(tmp_path):
    write_pair(tmp_path, "b", as_mask([[0, 1], [2, 255]]))
    write_pair(tmp_path, "a", as_mask([[1, 1], [1, 1]]), suffix=".png")
    dataset = load_folder_dataset(tmp_path, "training", NAMES)
    assert dataset["name"][:] == ["a", "b"] and dataset["index"][:] == [0, 1]
    assert np.asarray(dataset[1]["annotation"]).tolist() == [[0, 1], [2, 255]]


def test_masks_are_ids_in_every_mode(tmp_path):
    ids = np.array([[0, 1, 2], [255, 2, 0]])
    palette_image = as_mask(ids)
    palette_image.putpalette([value for i in range(256) for value in (255 - i, 7, 200)])
    write_pair(tmp_path, "palette", palette_image)
    write_pair(tmp_path, "grey", as_mask(ids))
    write_pair(tmp_path, "sixteen", PIL.Image.fromarray(ids.astype(np.uint16)))
    dataset = load_folder_dataset(tmp_path, "training", NAMES)
    assert {PIL.Image.open(path).mode for path in (tmp_path / "annotations/training").iterdir()} == {"P", "L", "I;16"}
    for row in dataset:
        assert read_mask(row["annotation"]).tolist() == ids.tolist(), row["name"]


def test_colour_mask_is_refused(tmp_path):
    write_pair(tmp_path, "a", PIL.Image.new("RGB", (4, 3)))
    with pytest.raises(ValueError, match=r"a\.png has the mode RGB.*one id per pixel"):
        load_folder_dataset(tmp_path, "training", NAMES)


def test_image_without_mask_and_mask_without_image_are_refused(tmp_path):
    write_pair(tmp_path, "a", as_mask([[0]]))
    write_pair(tmp_path, "b", as_mask([[0]]))
    (tmp_path / "annotations/training/a.png").unlink()
    with pytest.raises(ValueError, match=r"a\.jpg has no mask"):
        load_folder_dataset(tmp_path, "training", NAMES)
    (tmp_path / "images/training/a.jpg").unlink()
    (tmp_path / "images/training/b.jpg").rename(tmp_path / "images/training/c.jpg")
    as_mask([[0]]).save(tmp_path / "annotations/training/c.png")
    with pytest.raises(ValueError, match=r"b\.png has no image"):
        load_folder_dataset(tmp_path, "training", NAMES)


def test_different_sizes_are_refused(tmp_path):
    write_pair(tmp_path, "a", as_mask([[0, 1, 2]]), size=(4, 2))
    with pytest.raises(ValueError, match=r"a\.png has 3 x 1 pixels .*a\.jpg has 4 x 2"):
        load_folder_dataset(tmp_path, "training", NAMES)


@pytest.mark.parametrize("wrong", [3, 254])
def test_id_out_of_range_is_refused_and_named(tmp_path, wrong):
    write_pair(tmp_path, "a", as_mask([[0, wrong, 255]]))
    with pytest.raises(ValueError, match=rf"a\.png holds the id {wrong}; with 3 classes .* \[0, 2\]"):
        load_folder_dataset(tmp_path, "training", NAMES)


def test_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_folder_dataset(tmp_path, "training", NAMES)
    for kind in ("images", "annotations"):
        (tmp_path / kind / "training").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no"):
        load_folder_dataset(tmp_path, "training", NAMES)


def test_rotated_photograph_matches_its_upright_mask(tmp_path):
    write_pair(tmp_path, "a", as_mask(np.zeros((6, 4))))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (6, 4)).save(tmp_path / "images/training/a.jpg", exif=exif)
    row = load_folder_dataset(tmp_path, "training", NAMES)[0]
    assert row["image"].size == row["annotation"].size == (4, 6)


def test_class_names(tmp_path):
    path = tmp_path / "classes.txt"
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_class_names(tmp_path)
    path.write_text("sky\n traffic light \n\n")
    assert read_class_names(tmp_path) == ["sky", "traffic light"]
    path.write_text("sky\n\nroad\n")
    with pytest.raises(ValueError, match="no name on line 2"):
        read_class_names(tmp_path)
    path.write_text("sky\nroad\nsky\n")
    with pytest.raises(ValueError, match="'sky' twice, again on line 3"):
        read_class_names(tmp_path)


@pytest.mark.skipif(not STREET_SCENES.is_dir(), reason="needs the photographs in ../shared/street-scenes")
def test_street_scenes_load():
    names = read_class_names(STREET_SCENES)
    assert len(names) == 11 and names[6] == "sign symbol"
    sizes = {split: len(load_folder_dataset(STREET_SCENES, split, names)) for split in ("training", "validation")}
    assert sizes == {"training": 120, "validation": 32}
    with pytest.raises(ValueError, match=r"holds the id 10; with 10 classes"):
        load_folder_dataset(STREET_SCENES, "validation", names[:-1])


# ---------------------------------------------------------------------------------------------------- augmentation


def label_picture(height=60, width=90):
    """A mask of smooth regions with the ids 0, 40, 80, ... 200, and a picture whose grey value is the id."""
    noise = cv2.resize(np.random.default_rng(3).random((4, 5)).astype(np.float32), (width, height))
    mask = 40 * np.clip(6 * noise, 0, 5).astype(np.uint8)
    return PIL.Image.fromarray(np.repeat(mask[..., None], 3, axis=-1)), PIL.Image.fromarray(mask)


def test_image_and_mask_move_together(monkeypatch):
    monkeypatch.setattr("training.data.photometric_distortion", lambda image, generator: image)
    image, mask = label_picture()
    transform = transform_for()
    agreements = []
    for index in range(40):
        pixel_values, labels = transform.augment(image, mask, index)
        assert pixel_values.shape == (3, 48, 64) and labels.shape == (48, 64) and labels.dtype == torch.int64
        ids = (pixel_values[0] * 0.25 + 0.5) * 255
        assert set(labels.unique().tolist()) <= {0, 40, 80, 120, 160, 200, 255}  # nearest: no id that was not there
        assert (pixel_values[:, labels == 255] == 0).all()  # the padding
        agreements.append(((40 * (ids / 40).round() == labels) | (labels == 255)).float().mean().item())
    # Bilinear pictures differ from nearest masks on the boundaries only.
    assert min(agreements) > 0.9


def test_scale_stays_in_its_range_and_padding_fills_what_is_missing():
    image, mask = label_picture(50, 80)
    transform = transform_for(crop=(100, 160), short_side=50)
    heights = [int((transform.augment(image, mask, i)[1] != 255).any(dim=1).sum()) for i in range(60)]
    assert 25 <= min(heights) < 35 and 90 < max(heights) <= 100
    full = transform_for(crop=(50, 80), short_side=50, scale_range=(1.0, 1.0)).augment(image, mask, 0)[1].numpy()
    assert np.array_equal(full, np.asarray(mask)) or np.array_equal(full, np.asarray(mask)[:, ::-1])


def test_crops_of_one_class_are_drawn_again():
    mask = np.zeros((40, 400), dtype=np.uint8)
    mask[:, 360:] = 1  # a class in the last tenth
    image = PIL.Image.new("RGB", (400, 40))
    transform = transform_for(crop=(40, 40), short_side=40, long_side=400, scale_range=(1.0, 1.0))
    labels = [transform.augment(image, PIL.Image.fromarray(mask), index)[1] for index in range(100)]
    good = sum(0.25 < (label == 0).float().mean() < 0.75 for label in labels)
    # Of the 361 places 19 are good, so one try succeeds 5 times in 100 and ten do 42 times.
    assert 30 <= good <= 55


def test_unlabelled_pixels_do_not_count_as_a_class():
    mask = np.full((40, 40), 255, dtype=np.uint8)
    mask[:4] = 0
    mask[4:8] = 1
    transform = transform_for(crop=(40, 20), short_side=40, scale_range=(1.0, 1.0))
    tries = []

    class Generator:
        def integers(self, high):
            tries.append(high)
            return 0

    transform.random_crop(np.zeros((40, 40, 3), np.uint8), mask, Generator())
    assert len(tries) == 2  # 80 % is unlabelled, the rest is half and half: the first crop is good


def test_normalisation_is_the_processors(monkeypatch):
    monkeypatch.setattr("training.data.photometric_distortion", lambda image, generator: image)
    image = PIL.Image.new("RGB", (64, 64), (255, 0, 51))
    mask = as_mask(np.zeros((64, 64)))
    transform = TrainingTransform((64, 64), 64, 64, [0.1, 0.2, 0.3], [0.5, 0.25, 0.1], scale_range=(1, 1))
    pixel_values, _ = transform.augment(image, mask, 0)
    torch.testing.assert_close(pixel_values.mean(dim=(1, 2)), torch.tensor([0.9 / 0.5, -0.2 / 0.25, -0.1 / 0.1]))


def test_photometric_distortion_changes_each_property_half_of_the_time():
    grey = np.full((4, 4, 3), 100, dtype=np.uint8)
    red = np.full((4, 4, 3), (180, 60, 60), dtype=np.uint8)
    grey_values, hues = [], []
    for seed in range(400):
        grey_values.append(photometric_distortion(grey, np.random.default_rng(seed))[0, 0])
        hue = int(cv2.cvtColor(photometric_distortion(red, np.random.default_rng(seed)), cv2.COLOR_RGB2HSV)[0, 0, 0])
        hues.append((hue + 90) % 180 - 90)
    grey_values = np.array(grey_values)
    # Grey has neither hue nor saturation: what remains is brightness (+-32) and contrast (x 0.5 .. 1.5).
    assert (np.ptp(grey_values, axis=1) <= 1).all()
    assert (abs(grey_values[:, 0].astype(int) - 100) <= 1).mean() == pytest.approx(1 / 4, abs=0.08)
    assert 33 <= grey_values.min() < 55 and 170 < grey_values.max() <= 198
    assert min(hues) >= -20 and max(hues) <= 20 and max(hues) > 10 and min(hues) < -10
    assert np.mean([abs(hue) <= 1 for hue in hues]) == pytest.approx(0.55, abs=0.12)


def test_resize_rounds_half_up_and_respects_the_long_side():
    image, mask = np.zeros((375, 500, 3), np.uint8), np.zeros((375, 500), np.int64)
    assert resize_keep_ratio(image, mask, 512, 2048)[1].shape == (512, 683)
    assert resize_keep_ratio(image, mask, 512, 600)[0].shape == (450, 600, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    generator = np.random.default_rng(0)
    for index in range(6):
        write_pair(folder, f"{index}", as_mask(generator.integers(0, 3, (30 + index, 40))))
    return folder


def test_batches_do_not_depend_on_the_number_of_workers(folder):
    transform = transform_for(crop=(24, 24), short_side=30, seed=5)
    dataset = load_folder_dataset(folder, "training", NAMES).with_transform(transform)
    transform.set_epoch(2)
    alone, shared = (list(DataLoader(dataset, batch_size=2, num_workers=workers)) for workers in (0, 2))
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["pixel_values"], other["pixel_values"]) and torch.equal(one["labels"], other["labels"])


def test_seed_epoch_and_index_all_change_the_crop(folder):
    def first(seed, epoch, index=0):
        transform = transform_for(crop=(24, 24), short_side=30, seed=seed)
        transform.set_epoch(epoch)
        image, mask = label_picture()
        return transform.augment(image, mask, index)[0]

    reference = first(0, 0)
    assert torch.equal(reference, first(0, 0))
    for other in (first(1, 0), first(0, 1), first(0, 0, 1)):
        assert not torch.equal(reference, other)


def test_epoch_reaches_workers_that_outlive_it(folder):
    transform = transform_for(crop=(24, 24), short_side=30)
    dataset = load_folder_dataset(folder, "training", NAMES).with_transform(transform)
    loader = DataLoader(dataset, batch_size=6, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in (0, 1):
        transform.set_epoch(epoch)
        epochs.append(next(iter(loader))["pixel_values"])
    assert not torch.equal(*epochs)


def test_evaluation_keeps_the_mask_at_its_original_size(folder):
    class Halve:
        def __call__(self, image, return_tensors):
            return {"pixel_values": torch.zeros(1, 3, image.height // 2, image.width // 2)}

    rows = load_folder_dataset(folder, "training", NAMES)
    dataset = rows.with_transform(EvaluationTransform(Halve()))
    batch = collate_for_evaluation([dataset[0], dataset[3]])
    assert [tuple(image.shape) for image in batch["pixel_values"]] == [(3, 15, 20), (3, 16, 20)]
    assert [tuple(label.shape) for label in batch["labels"]] == [(30, 40), (33, 40)]
    assert np.array_equal(batch["labels"][1], np.asarray(rows[3]["annotation"]))
    assert list(batch)[0] == "num_images" and len(batch["num_images"]) == 2
