# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The experiment on the worth of language: its world, its encoders, its rows, and that pages hold its figures."""

import json
import math
import os
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks import language, language_pretraining, language_report, language_rows, language_world
from benchmarks.language_pretraining import CaptionedPictures, ResNetCLIP, ViTCLIP, pretrain, world_tokenizer
from benchmarks.language_world import ALL_NAMES, CLASS_NAMES, GROUNDS, SKIES, SYNONYMS, THINGS, UNSEEN_NAMES
from modeling_denseclip import DenseCLIPForSemanticSegmentation
from tests.tiny import save_tiny_dataset
from training import REPOSITORY
from training.data.segmentation_folder import SegmentationFolder


TINY = language.SMOKE.pretraining
CPU = torch.device("cpu")


def draw_scene(seed: int, **arguments) -> tuple[np.ndarray, np.ndarray]:
    return language_world.paint_scene(np.random.default_rng(seed), **arguments)


# ----------------------------------------------------------------------------------------------------------- world


def test_classes_are_composed_of_words_that_others_have_too():
    assert len(CLASS_NAMES) == 40 and len(set(ALL_NAMES)) == 46
    seen = [name.split() for name in THINGS if name not in UNSEEN_NAMES]
    counts = Counter(word for words in seen for word in words)
    assert all(counts[word] >= 3 for name in UNSEEN_NAMES for word in name.split())
    frequent, rare = language_world.FREQUENT_NAMES, language_world.RARE_NAMES
    assert not {*frequent, *rare} & {*UNSEEN_NAMES}
    frequencies = language_world.FREQUENCIES
    often, seldom = ([frequencies[name] for name in names] for names in (frequent, rare))
    assert min(often) > max(seldom) and sum(often) > 3 * sum(seldom)


def test_scenes_are_deterministic_and_show_unseen_things_only_where_they_may():
    first, again = draw_scene(5), draw_scene(5)
    assert all(np.array_equal(*arrays) for arrays in zip(first, again, strict=True))
    unseen_ids = range(len(CLASS_NAMES), len(ALL_NAMES))
    assert not any(np.isin(draw_scene(seed, with_unseen=False)[1], unseen_ids).any() for seed in range(40))
    assert any(np.isin(draw_scene(seed)[1], unseen_ids).any() for seed in range(40))


@pytest.mark.parametrize("seed", range(3))
def test_mask_is_where_things_are_painted(seed, monkeypatch):
    picture, mask = draw_scene(seed)
    paint_attribute, magenta = language_world._paint_attribute, np.float32([255, 0, 255])
    monkeypatch.setattr(
        language_world, "_paint_attribute", lambda *arguments: 0 * paint_attribute(*arguments) + magenta
    )
    other, same_mask = draw_scene(seed)
    assert np.array_equal(mask, same_mask)
    is_thing = (mask >= len(SKIES) + len(GROUNDS)).astype(np.uint8)
    # The last blur reaches three pixels beyond an outline.
    kernel = np.ones((7, 7), np.uint8)
    outside, inside = cv2.dilate(is_thing, kernel) == 0, cv2.erode(is_thing, kernel) == 1
    changed = np.abs(picture.astype(int) - other).max(axis=2)
    assert inside.any() and changed[outside].max() == 0
    assert (other[inside].astype(int)[:, 0] - other[inside][:, 1] > 60).all()


def test_plain_colours_look_as_they_are_called():
    wanted = {name: np.array(language_world._COLORS[name], float) for name in ("red", "blue", "yellow", "white")}
    found = Counter()
    for seed in range(60):
        picture, mask = draw_scene(seed)
        if mask.flat[0] == ALL_NAMES.index("night sky"):
            continue
        for name in language_world.find_names(mask):
            color = name.split()[0]
            if color in wanted:
                seen = np.median(picture[mask == ALL_NAMES.index(name)], axis=0)
                assert min(wanted, key=lambda other: np.abs(wanted[other] - seen).sum()) == color
                found[color] += 1
    assert set(found) == set(wanted)


def test_captions_name_what_masks_show_and_nothing_else():
    own_word = {word: own for own, same in SYNONYMS.items() for word in same}
    tokenizer, vocabulary, varied = world_tokenizer(), set(language_world.vocabulary()), set()
    left_out, all_named = set(), 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        _, mask = language_world.paint_scene(generator)
        counts = np.bincount(mask.ravel(), minlength=256)
        shown = {ALL_NAMES[index] for index in np.flatnonzero(counts >= language_world.MIN_PIXELS)}
        chosen = language_world.choose_names(language_world.find_names(mask), generator)
        words = language_world.write_caption(chosen, generator).split()
        assert {*words} <= vocabulary and len(tokenizer(" ".join(words)).input_ids) == len(words) + 2
        meant = [own_word[word] for word in words if word in own_word]
        named = [f"{first} {second}" for first, second in zip(meant[::2], meant[1::2], strict=True)]
        assert named == chosen and {*named} <= shown and {*named} & {*THINGS}
        left_out |= shown - {*named}
        all_named += {*named} & {*THINGS} == shown & {*THINGS}
        varied |= {word for word in words if own_word.get(word, word) != word}
        assert len(words) + 2 <= language_pretraining.text_fields(TINY, tokenizer)["max_position_embeddings"]
    assert left_out & {*THINGS} and left_out & {*SKIES} and all_named > 10
    assert len(varied) > 15
    # Synonyms stand for one word each, and meaningless names say nothing of each other or of things.
    assert len(own_word) == sum(map(len, SYNONYMS.values()))
    names = language_world.meaningless_names(len(CLASS_NAMES))
    assert len(set(names)) == len(CLASS_NAMES)
    assert not {word for name in names for word in name.split()} & {*own_word}


def test_scenes_are_a_data_set_that_training_reads(tmp_path):
    scenes = [draw_scene(seed) for seed in range(8)]
    language_world.write_split(tmp_path, "some", scenes)
    rows = SegmentationFolder(tmp_path, "some", len(CLASS_NAMES)).load()
    hidden = 0
    for row, (picture, mask) in zip(rows, scenes, strict=True):
        labels = np.asarray(row["annotation"])
        assert np.array_equal(np.asarray(row["image"]), picture)
        assert np.array_equal(labels[labels < 255], mask[mask < len(CLASS_NAMES)])
        hidden += (labels == 255).sum()
    assert hidden > 0


# -------------------------------------------------------------------------------------------------------- encoders


@pytest.fixture(scope="module")
def pictures() -> CaptionedPictures:
    return CaptionedPictures(**language_world.paint_captioned(0, 16, TINY.side))


@pytest.mark.parametrize("model_class", [ResNetCLIP, ViTCLIP])
@torch.no_grad()
def test_what_has_been_pretrained_is_read_to_the_last_bit(model_class, pictures, tmp_path):
    torch.manual_seed(0)
    tokenizer = world_tokenizer()
    clip = model_class(TINY, tokenizer).eval()
    for parameter in clip.parameters():  # norms and biases too
        parameter.add_(0.05 * torch.randn_like(parameter))
    clip.save(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(tmp_path, class_names=["red kite", "red pond"])
    pixel_values = language_pretraining.prepare(pictures.pictures[:2], CPU)
    expected = clip.embed_images(pixel_values)
    torch.testing.assert_close(model.image_encoder(pixel_values).global_embedding, expected)
    texts = ["a red kite", "a wooden tent beside a pale arch"]
    input_ids = tokenizer(texts, padding=True, return_tensors="pt").input_ids
    scores = model.score_text(pixel_values, texts, learned_prompts=False)
    pixels = F.normalize(model.image_encoder(pixel_values).pixel_embeddings, dim=1)
    expected = torch.einsum("bchw,kc->bkhw", pixels, F.normalize(clip.embed_texts(input_ids), dim=1))
    torch.testing.assert_close(scores, expected)


def test_numbers_are_those_of_what_captions_name(pictures):
    own_word = {word: own for own, same in SYNONYMS.items() for word in same}
    for caption, named, shown in zip(pictures.captions, pictures.named, pictures.shown, strict=True):
        meant = [own_word[word] for word in caption.split() if word in own_word]
        names = {f"{first} {second}" for first, second in zip(meant[::2], meant[1::2], strict=True)}
        assert {ALL_NAMES[index] for index in np.flatnonzero(named)} == names
        assert not (named & ~shown).any()


def test_all_encoders_see_the_same_batches():
    sizes = replace(TINY, steps=7, batch_size=10)
    batches = list(language_pretraining.draw_batches(24, sizes, seed=1))
    again = list(language_pretraining.draw_batches(24, sizes, seed=1))
    assert all(
        np.array_equal(ours[0], other[0]) and ours[1] == other[1] for ours, other in zip(batches, again, strict=True)
    )
    counts = np.bincount(np.concatenate([batch for batch, _ in batches]), minlength=24)
    assert counts.sum() == 70 and counts.max() - counts.min() <= 1  # every picture comes before one comes again
    assert {is_mirrored for _, is_mirrored in batches} == {True, False}


@pytest.mark.parametrize("name", ["clip_resnet", "numbers_resnet"])
def test_encoders_learn(name, pictures, tmp_path):
    sizes = replace(TINY, steps=40, batch_size=16, learning_rate=3e-3)
    scores = pretrain(name, pictures, pictures, tmp_path, sizes, 0, CPU)
    # Of the pictures that it has seen: more than an encoder that has learned nothing can tell.
    assert scores["mean_average_precision"] > 3 * scores["chance_precision"]
    if name == "clip_resnet":
        assert min(scores["caption_recall"], scores["picture_recall"]) > 0.5


def test_average_precision():
    scores, is_positive = np.array([0.9, 0.1, 0.8, 0.4]), np.array([True, False, False, True])
    assert language_pretraining.average_precision(scores, is_positive) == pytest.approx((1 / 1 + 2 / 3) / 2)


# ------------------------------------------------------------------------------------------------------------ rows


def words_and_fields(name: str, tmp_path) -> tuple[dict[str, str], dict]:
    row, sizes = language_rows.ROWS[name], language.SMOKE.fine_tuning
    words = language_rows.training_words(
        row, TINY, sizes, world_tokenizer(), tmp_path / "encoders", tmp_path / name, 3
    )
    fields = json.loads((tmp_path / name / "architecture.json").read_text())
    given, key = {}, None
    for word in words:
        if word.startswith("--"):
            key = word
            given[key] = []
        else:
            given[key].append(word.replace(str(tmp_path / name), ""))
    return {key: " ".join(values) for key, values in given.items()}, fields


def changed(ours: dict, other: dict) -> dict:
    return {key: ours.get(key) for key in ours.keys() | other.keys() if ours.get(key) != other.get(key)}


@pytest.mark.parametrize(
    "name, other, words, fields",
    [
        ("clip", "numbers", {"--clip"}, {}),
        ("numbers", "random", {"--clip"}, {"text_config": None, "projection_dim": None}),
        ("language", "clip", {"--tokenizer"}, {"use_language": None, "prompting_mode": "language"}),
        ("pre_model", "language", set(), {"prompting_mode": "pre_model"}),
        ("post_model", "pre_model", set(), {"prompting_mode": "post_model"}),
        ("meaningless", "post_model", set(), {}),
        ("contexts_1", "post_model", set(), {"num_context_tokens": 1}),
        ("temperature_0.01", "post_model", set(), {"temperature": 0.01}),
        ("auxiliary_0", "post_model", set(), {"auxiliary_loss_weight": 0.0}),
        ("gamma_1", "post_model", set(), {"gamma_init_value": 1.0}),
        ("tuned_text", "post_model", {"--freeze_text_encoder"}, {}),
        ("frozen_image", "post_model", {"--freeze_image_encoder"}, {}),
        ("frozen_clip", "clip", {"--freeze_image_encoder"}, {}),
        ("full_rate", "post_model", {"--image_encoder_lr_multiplier"}, {}),
        (
            "convnext_post_model",
            "convnext",
            {"--clip", "--tokenizer"},
            {"use_language": None, "prompting_mode": "post_model"},
        ),
        ("vit_post_model", "vit", {"--tokenizer"}, {"use_language": None, "prompting_mode": "post_model"}),
    ],
)
def test_rows_differ_in_what_they_should_and_in_nothing_else(name, other, words, fields, tmp_path):
    (our_words, our_fields), (other_words, other_fields) = (words_and_fields(row, tmp_path) for row in (name, other))
    assert set(changed(our_words, other_words)) == words
    found = changed(our_fields, other_fields)
    if name == "numbers":  # the architecture of random weights is written out, that of others comes with them
        vision = found.pop("vision_config")
        assert vision["image_size"] == other_fields["vision_config"]["image_size"]
    assert found == fields


def test_all_rows_are_compared_above():
    """But those without pretraining and those that start a table, which are like others by construction."""
    cases = test_rows_differ_in_what_they_should_and_in_nothing_else.pytestmark[0].args[1]
    compared = {name for case in cases for name in case[:2]}
    assert set(language_rows.ROWS) - compared == {"random_language", "random_pre_model", "random_post_model"}


# ------------------------------------------------------------------------------------------------------------- run


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The arguments of a run of all kinds of jobs, and what it kept."""
    output, photographs = tmp_path_factory.mktemp("language"), tmp_path_factory.mktemp("photographs")
    save_tiny_dataset(photographs, training=2, validation=1)
    words = ["--smoke", "--workers", "0", "--output", str(output), "--street_scenes", str(photographs)]
    language.main(words)
    return words, output / "smoke", json.loads((output / "smoke" / "results.json").read_text())


def test_the_whole_path_runs_and_is_kept(smoke):
    _, folder, kept = smoke
    results = {result["key"]: result for result in kept["results"]}
    settings = language.SMOKE
    assert {key.split("/")[1] for key in results} == {*language.PRETRAININGS, "clip_0.001", *settings.rows}
    assert 0 <= results["street/random/0/0"]["mean_iou"] <= 1
    for key, result in results.items():
        if key.startswith("world"):
            row = language_rows.ROWS[key.split("/")[1]]
            assert 0 <= result["mean_iou"] <= 1 and 0 <= result["rare"] <= 1
            assert ("score_map" in result) == row.uses_language
            assert ("unseen" in result) == (row.uses_language and not row.has_meaningless_names)
    assert set(results["pretraining/clip_vit/0/0"]["zero_shot"]) == {
        "attention", "attention_unseen", "values", "values_unseen",
    }  # fmt: skip
    assert cv2.imread(str(folder / "figure.png")) is not None
    assert not list((folder / "rows").iterdir()) and not list((folder / "logs").iterdir())


def test_a_run_in_this_process_leaves_its_environment_alone(smoke, monkeypatch):
    words, _, _ = smoke
    names = {*language.ENVIRONMENT, "HF_DATASETS_CACHE"}
    for name in names:
        monkeypatch.delenv(name, raising=False)
    language.main(words)
    assert not names & {*os.environ}


def test_the_learning_rate_is_chosen_by_clip_without_language_on_other_seeds():
    settings = language.Settings(learning_rates=(1e-3, 1e-2), tuning_seeds=(7, 8))
    jobs = language.list_tunings(settings)
    assert {job.row for job in jobs} == {"clip"} and not {job.seed for job in jobs} & {*settings.seeds}
    scores = dict(zip([job.key for job in jobs], (0.1, 0.4, 0.3, 0.3), strict=True))
    results = {key: {"mean_iou": score} for key, score in scores.items()}
    assert language.choose_learning_rate(settings, results) == 1e-2
    defaults = language.Settings()
    assert not {*defaults.seeds} & {*defaults.tuning_seeds}


def test_a_run_goes_on_where_it_was_stopped(smoke, monkeypatch, capsys):
    words, folder, kept = smoke
    lines = (folder / "results.jsonl").read_text().splitlines()
    # Killed while it wrote the last line.
    (folder / "results.jsonl").write_text("\n".join(lines)[:-20])
    done = []

    def run_job(place, job):
        done.append(job.key)
        return json.loads(lines[-1])

    monkeypatch.setattr(language, "run_job", run_job)
    language.main(words)
    assert done == [json.loads(lines[-1])["key"]]
    assert json.loads((folder / "results.json").read_text()) == kept
    monkeypatch.setattr(language, "SMOKE", replace(language.SMOKE, validation=5))
    with pytest.raises(ValueError, match="other sizes"):
        language.main(words)


def test_a_failure_names_its_training_and_keeps_its_words(tmp_path):
    place = language.Place(tmp_path, language.SMOKE)
    with pytest.raises(RuntimeError, match=r"world/clip/4/0 failed .*clip_4_0.txt"):
        language.run_quietly(place, language.Job("clip", 4, 0))
    assert "Traceback" in (tmp_path / "logs" / "world_clip_4_0.txt").read_text()


# ---------------------------------------------------------------------------------------------------------- report


def test_intervals():
    # Of 1 to 5: deviation sqrt(2.5), t of four degrees of freedom 2.776.
    mean, half = language_report.interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3 and half == pytest.approx(2.776 * math.sqrt(2.5 / 5))
    # What all seeds have in common does not count in a difference.
    step, half = language_report.difference({0: 11.0, 1: 52.0, 2: 93.0}, {0: 10.0, 1: 50.0, 2: 90.0, 3: 7.0})
    assert step == 2 and half == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)


def make_kept() -> dict:
    """Results of two seeds, in which each row is a point above the one before, and two above with twice the masks."""
    results = [
        {
            "key": f"world/{row}/{masks}/{seed}",
            "mean_iou": 0.2 + 0.1 * seed + masks / 4000 * number,
            "seconds": 36.0,
            "peak_mib": 512,
        }
        for number, row in enumerate(language_rows.STEPS)
        for seed in (0, 1)
        for masks in (40, 80)
    ]
    settings = {"masks": [40, 80], "ablation_masks": 40, "seeds": [0, 1], "street_seeds": [0]}
    return {
        "settings": {**settings, "learning_rates": [0.1], "tuning_seeds": [5]},
        "results": results,
    }


def test_tables_show_steps_seed_by_seed():
    tables = language_report.format_tables(make_kept())
    first, second = tables["steps"].splitlines()[2:4]
    assert first == "| random weights + FPN | 25.0 | 25.0 | 25.0 |"
    assert second == '| "ImageNet" + FPN | 26.0 (+1.0 ± 0.0) | 27.0 (+2.0 ± 0.0) | 26.5 (+1.5 ± 0.0) |'
    assert tables["cost"].splitlines()[2] == "| rows | 24 | 36 s | 0.24 h | 0.5 GiB |"
    # Of rows and tables without results nothing is said.
    assert set(tables) == {"steps", "ablations", "cost"} and len(tables["ablations"].splitlines()) == 3


def test_a_pair_is_shown_from_its_row_without_language_on():
    kept = make_kept()
    kept["results"] += [
        {"key": f"world/frozen_image/40/{seed}", "mean_iou": 0.5, "seconds": 1.0, "peak_mib": 1} for seed in (0, 1)
    ]
    assert "pairs" not in language_report.format_tables(kept)
    kept["results"] += [
        {"key": f"world/frozen_clip/40/{seed}", "mean_iou": 0.4, "seconds": 1.0, "peak_mib": 1} for seed in (0, 1)
    ]
    assert language_report.format_tables(kept)["pairs"].splitlines()[2:] == [
        "| CLIP + FPN, image encoder frozen | 40.0 | - |",
        "| the same + post-model prompting | 50.0 (+10.0 ± 0.0) | - |",
    ]


def test_pages_hold_the_figures_of_the_results():
    if not language.RESULTS.exists():
        pytest.skip("The experiment has not been run yet: benchmarks/language.json is not there.")
    pages = "".join((REPOSITORY / page).read_text(encoding="utf-8") for page in ("README.md", "benchmarks/README.md"))
    tables = language_report.format_tables(json.loads(language.RESULTS.read_text(encoding="utf-8")))
    lines = {line for table in tables.values() for line in table.splitlines()}
    assert not [line for line in lines if line not in pages]
