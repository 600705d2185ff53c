# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The demonstration's scenes, its tokenizer, its overlay, and a run of it that is too short to learn anything."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

import training.demo
from modeling_denseclip.tools.pictures.drawing import save_overlay
from tests.warm import write_scripts
from training.data.class_names import read_class_names
from training.data.segmentation_folder import SegmentationFolder
from training.demo import build_model, build_tokenizer
from training.demonstration import ablation
from training.demonstration.scenes import CLASS_NAMES, HEIGHT, PALETTE, VILLAGE, WIDTH, paint_scene, write_scenes


# ---------------------------------------------------------------------------------------------------------- scenes


def test_scenes_are_a_valid_data_set_with_every_class(tmp_path):
    write_scenes(tmp_path, 4, 2, seed=1)
    names = read_class_names(tmp_path)
    assert names == list(CLASS_NAMES)
    training, validation = (
        SegmentationFolder(tmp_path, split, len(names)).load() for split in ("training", "validation")
    )
    assert (len(training), len(validation)) == (4, 2)
    present = {value for row in training for value in np.unique(np.asarray(row["annotation"]))}
    assert present == set(range(len(names)))
    assert training[0]["image"].size == (WIDTH, HEIGHT) and training[0]["image"].mode == "RGB"
    pictures = [np.asarray(row["image"]) for dataset in (training, validation) for row in dataset]
    assert all(not np.array_equal(pictures[0], other) for other in pictures[1:])


def test_scenes_are_deterministic():
    first, again = (paint_scene(np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])


@pytest.mark.parametrize("seed", range(4))
def test_day_and_night_differ_only_around_the_sun_and_the_moon(seed):
    (day, day_mask), (night, night_mask) = (
        paint_scene(np.random.default_rng(seed), night=night) for night in (False, True)
    )
    columns = np.flatnonzero((day != night).any(axis=(0, 2)))
    reach = max(columns.max(), 0) if columns.max() < WIDTH / 2 else WIDTH - columns.min()
    # Between them and the village lies more than half of what a stride-32 feature map can see, 105 pixels.
    assert 0 < reach < VILLAGE - 6 - 105 / 2
    names = np.array(CLASS_NAMES)
    pairs = set(zip(names[day_mask].flat, names[night_mask].flat, strict=True))
    for by_day, by_night in pairs - {("sun", "moon")}:
        assert by_day.removeprefix("day ") == by_night.removeprefix("night ")


# ------------------------------------------------------------------------------------------------------- tokenizer


def test_every_word_is_one_token_and_words_are_shared():
    tokenizer = build_tokenizer(CLASS_NAMES)
    start, end = tokenizer.convert_tokens_to_ids(["<|startoftext|>", "<|endoftext|>"])
    assert end == len(tokenizer) - 1  # the end token has the highest id, as in CLIP
    for name in CLASS_NAMES:
        ids = tokenizer(name).input_ids
        assert ids[0] == start and ids[-1] == end and len(ids) == 2 + len(name.split())
        assert tokenizer.decode(ids[1:-1]) == name
    assert tokenizer("day wall").input_ids[1] == tokenizer("day pond").input_ids[1]
    assert tokenizer("DAY  Wall").input_ids == tokenizer("day wall").input_ids


def test_tokenizer_survives_saving(tmp_path):
    tokenizer = build_tokenizer(["stone road", "rose"])
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("stone road", "rose", "ore stones"):
        assert again(text).input_ids == tokenizer(text).input_ids


# --------------------------------------------------------------------------------------------------------- overlay


def test_overlay_shows_classes_boundaries_and_a_legend(tmp_path):
    image = Image.new("RGB", (700, 40), (100, 100, 100))
    segmentation = np.zeros((40, 700), dtype=np.int64)
    segmentation[:, 300:] = 1
    segmentation[:, 600:] = 255
    palette = [(255, 0, 0), (0, 0, 255), (0, 255, 0)]
    save_overlay(image, segmentation, {0: "sky", 1: "road", 2: "tree"}, palette, tmp_path / "a.png")
    picture = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    middle = picture.shape[0] // 2
    left, right, unlabelled = picture[middle, 100], picture[middle, 450], picture[middle, 650]
    assert left[0] > left[2] + 100 and right[2] > right[0] + 100
    assert unlabelled.tolist() == [100, 100, 100]
    assert picture[middle, 299].sum() < 0.5 * left.sum()  # the boundary
    legend = picture[:, 700:].reshape(-1, 3)
    assert picture.shape[1] > 800
    for color, shown in (((255, 0, 0), True), ((0, 0, 255), True), ((0, 255, 0), False)):
        assert (legend == color).all(axis=1).any() == shown


def test_overlay_refuses_another_size(tmp_path):
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(4, 3\)"):
        save_overlay(Image.new("RGB", (3, 4)), np.zeros((3, 4)), {0: "sky"}, None, tmp_path / "a.png")


# ------------------------------------------------------------------------------------------------------------- run


def test_demo_runs_to_its_picture_and_fails_on_a_low_score(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.demo, "NUM_TRAINING", 2)
    monkeypatch.setattr(training.demo, "NUM_VALIDATION", 2)
    monkeypatch.setattr(training.demo.sys, "executable", str(write_scripts(tmp_path / "bin") / "python"))
    with pytest.raises(SystemExit, match="below"):
        training.demo.main(["--output_dir", str(tmp_path), "--num_train_epochs", "1"])
    output = capsys.readouterr().out
    assert all(name in output for name in (*CLASS_NAMES, "mIoU"))
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert Image.open(tmp_path / "overlay.png").width > 2 * WIDTH  # twice enlarged, and the legend


def test_ablations_do_what_they_say_and_leave_no_trace():
    torch.manual_seed(0)
    model = build_model(CLASS_NAMES, build_tokenizer(CLASS_NAMES)).eval()
    pixel_values = torch.rand(1, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        intact = model(pixel_values)
        for name, broken in ablation.AFTER_TRAINING.items():
            with broken(model):
                outputs = model(pixel_values)
            assert not torch.allclose(outputs.logits, intact.logits, atol=1e-5), name
            changes_scores = not torch.allclose(outputs.score_map, intact.score_map)
            assert changes_scores == ("name" in name), name
            assert torch.equal(model(pixel_values).logits, intact.logits), name
        with ablation.names_shifted(model):
            shifted = model(pixel_values).score_map
    # gamma is small at first: the context decoder hardly mixes classes, so the channels change places.
    torch.testing.assert_close(shifted, intact.score_map.roll(-1, dims=1), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "mean_iou, broken, message",
    [
        (0.74, {}, "74.00 is below"),
        (float("nan"), {}, "below"),
        (0.9, {"score map erased": 0.9}, "'score map erased' the mIoU is still 90.00"),
        (0.9, {"names in another order": 0.9}, "'names in another order' the mIoU is still 90.00"),
        (0.9, {"no top-down path": 0.9}, "'no top-down path' the mIoU is still 90.00"),
        (0.9, {"no top-down path": float("nan")}, "'no top-down path'"),
    ],
)
def test_demo_fails_on_a_low_score_and_on_a_part_that_is_not_used(mean_iou, broken, message):
    with pytest.raises(SystemExit, match=message):
        training.demo.check(mean_iou, {**dict.fromkeys(ablation.AFTER_TRAINING, 0.3), **broken})
    training.demo.check(0.9, dict.fromkeys(ablation.AFTER_TRAINING, 0.3))


def test_ablations_in_training_break_what_they_say(tmp_path, monkeypatch):
    monkeypatch.setattr(training.demo, "NUM_TRAINING", 2)
    write_scenes(tmp_path, 2, 2)
    models = []

    def build_trainer(**overrides):
        model = build_model(CLASS_NAMES, build_tokenizer(CLASS_NAMES), **overrides)
        models.append(model)
        return training.demo.build_trainer(model, tmp_path, tmp_path / "model", 1, seed=0)

    scores = ablation.break_in_training(build_trainer)
    assert list(scores) == list(ablation.DURING_TRAINING) and all(0 <= value <= 1 for value in scores.values())
    assert [model.config.use_language for model in models] == [False, True, True, True, True, True]


def test_ablation_of_labels():
    pixel_values = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
    labels = torch.tensor([[0, 1], [16, 255]], dtype=torch.uint8)
    sample = {"pixel_values": pixel_values, "labels": labels, "sizes": torch.tensor([2, 2])}
    reduced = ablation.with_reduced_labels(lambda *row: sample)(None, None, 0)
    assert reduced["labels"].tolist() == [[255, 0], [15, 255]] and reduced["labels"].dtype == torch.uint8
    for index in (0, 1):
        unflipped = ablation.with_unflipped_labels(lambda *row: sample)(None, None, index)
        assert unflipped.keys() == reduced.keys() == sample.keys()
        assert torch.equal(unflipped["labels"], labels)
        assert torch.equal(unflipped["pixel_values"], pixel_values.flip(-1) if index else pixel_values)


def test_palette_names_the_classes():
    assert tuple(PALETTE) == CLASS_NAMES and len(set(PALETTE.values())) == len(CLASS_NAMES)
