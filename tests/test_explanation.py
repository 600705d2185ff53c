# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Explanations against loops over pixels, CLIP's text tower of Transformers, and results by hand."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.insight.explanation import (
    ImageExplanation,
    class_similarity,
    confusable_names,
    explain_image,
    load_text_reader,
    similarity_threshold,
)
from modeling_denseclip.tools.insight.explanation_sheets import (
    MAXIMUM_NAMES,
    draw_class,
    draw_pixel,
    draw_similarity,
)
from modeling_denseclip.tools.pictures.drawing import HEAT_COLORS, PICTURE_WIDTH
from tests.tiny import TINY_CLASS_NAMES, draw_picture, make_tiny_tokenizer, spread_classes, tiny_config, tiny_model


NUM_CLASSES = len(TINY_CLASS_NAMES)
SIZE = (96, 128)  # of what the model sees
PHOTO_SIZE = (150, 199)  # of the photograph


def make_pixel_values() -> torch.Tensor:
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def make_model(kind: str = "resnet", **fields) -> DenseCLIPForSemanticSegmentation:
    """A model that gives each class to some pixels."""
    model = spread_classes(tiny_model(kind, **fields), make_pixel_values())
    model.tokenizer = make_tiny_tokenizer()
    return model


@torch.no_grad()
def embed_names(model: DenseCLIPForSemanticSegmentation, names, contexts=None) -> torch.Tensor:
    """
    What the text tower of Transformers makes of each name alone, with vectors before it that are made tokens of their
    own.
    """
    vocabulary = model.text_encoder.get_input_embeddings().weight
    contexts = vocabulary[:0] if contexts is None else contexts
    table = torch.cat([vocabulary, contexts])
    config = CLIPTextConfig(
        **{
            **model.config.text_config.to_dict(),
            "vocab_size": len(table),
            "projection_dim": model.config.projection_dim,
        }
    )
    clip = CLIPTextModelWithProjection(config).eval()
    state = {**model.text_encoder.state_dict(), "embeddings.token_embedding.weight": table}
    clip.text_model.load_state_dict(state)
    clip.text_projection.weight.copy_(model.text_projection.weight)
    embeddings = []
    for name in names:
        start, *rest = make_tiny_tokenizer()(name).input_ids
        ids = torch.tensor([[start, *range(len(vocabulary), len(table)), *rest]])
        embeddings.append(clip(input_ids=ids).text_embeds[0])
    return torch.stack(embeddings)


def cosines_by_loop(pixel_embeddings: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
    """(C, height, width), (K, C) -> (K, height, width), one pixel and one class after the other."""
    result = torch.empty(len(text_embeddings), *pixel_embeddings.shape[1:])
    for label, row, column in np.ndindex(*result.shape):
        result[label, row, column] = F.cosine_similarity(
            pixel_embeddings[:, row, column], text_embeddings[label], dim=0
        )
    return result


# ------------------------------------------------------------------------------------------------------ photographs


@pytest.mark.parametrize("mode", ["post_model", "pre_model", "language"])
@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_scores_before_prompting_are_those_of_the_text_tower_alone(kind, mode):
    model, pixel_values = make_model(kind, prompting_mode=mode), make_pixel_values()
    explanation = explain_image(model, pixel_values)
    with torch.no_grad():
        pixels, outputs = model.image_encoder(pixel_values).pixel_embeddings[0], model(pixel_values)
    names = embed_names(model, TINY_CLASS_NAMES, model.prompts.contexts[0].detach())
    torch.testing.assert_close(explanation.score_before, cosines_by_loop(pixels, names), atol=1e-5, rtol=0)
    torch.testing.assert_close(explanation.score_after, outputs.score_map[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(explanation.logits, outputs.logits[0], atol=1e-4, rtol=0)
    change = (explanation.score_after - explanation.score_before).abs().max()
    assert change < 1e-6 if mode == "language" else change > 1e-3
    assert explanation.class_names == TINY_CLASS_NAMES and explanation.size == SIZE


def test_a_fused_model_explains_the_same():
    for mode in ("post_model", "pre_model"):
        model, pixel_values = make_model(prompting_mode=mode), make_pixel_values()
        plain, fused = explain_image(model, pixel_values), explain_image(model.fuse(), pixel_values)
        for name in ("score_before", "score_after", "logits"):
            torch.testing.assert_close(getattr(fused, name), getattr(plain, name), atol=1e-4, rtol=0)


def test_every_pixel_has_the_class_that_post_processing_gives_it():
    model, pixel_values = make_model(), make_pixel_values()
    explanation = explain_image(model, pixel_values, PHOTO_SIZE)
    with torch.no_grad():
        outputs = model(pixel_values)
    processor = DenseCLIPImageProcessor()
    segmentation = processor.post_process_semantic_segmentation(outputs, target_sizes=[PHOTO_SIZE])[0]
    enlarged = F.interpolate(outputs.logits, size=PHOTO_SIZE, mode="bilinear")[0].softmax(dim=0)
    assert len(segmentation.unique()) == NUM_CLASSES
    height, width = PHOTO_SIZE
    for row in (0, 1, 2, 37, 74, height - 2, height - 1):
        for column in (0, 1, 3, 50, 133, width - 1):
            pixel = explanation.explain_pixel(row, column)
            torch.testing.assert_close(pixel.probabilities, enlarged[:, row, column], atol=1e-5, rtol=0)
            assert pixel.probabilities.argmax() == segmentation[row, column]
    assert np.array_equal(explanation.segmentation(PHOTO_SIZE), segmentation.numpy())


def test_the_scores_of_a_pixel_are_those_of_the_cell_that_holds_it():
    explanation = explain_image(make_model(), make_pixel_values(), PHOTO_SIZE)
    grid_height, grid_width = explanation.score_after.shape[1:]
    assert (grid_height, grid_width) == (3, 4)
    for row in range(0, PHOTO_SIZE[0], 7):
        for column in range(0, PHOTO_SIZE[1], 7):
            # The cell that the centre of the pixel lies in
            cell = (
                math.floor((row + 0.5) / PHOTO_SIZE[0] * grid_height),
                math.floor((column + 0.5) / PHOTO_SIZE[1] * grid_width),
            )
            pixel = explanation.explain_pixel(row, column)
            assert pixel.cell == cell and (pixel.row, pixel.column) == (row, column)
            assert torch.equal(pixel.score_before, explanation.score_before[:, cell[0], cell[1]])
            assert torch.equal(pixel.score_after, explanation.score_after[:, cell[0], cell[1]])


def test_what_a_class_is_confused_with_is_the_mean_over_its_pixels():
    explanation = explain_image(make_model(), make_pixel_values(), PHOTO_SIZE)
    logits = explanation.logits.double().numpy()
    _, height, width = logits.shape
    for index in range(NUM_CLASSES):
        total, count, best = np.zeros(NUM_CLASSES), 0, (0.0, None)
        for row in range(height):
            for column in range(width):
                powers = np.exp(logits[:, row, column])
                probabilities = powers / powers.sum()
                if logits[:, row, column].argmax() == index:
                    total, count = total + probabilities, count + 1
                if probabilities[index] > best[0]:
                    best = (probabilities[index], (row, column))
        a_class = explanation.explain_class(index)
        assert a_class.share == pytest.approx(count / (height * width)) and 0 < a_class.share < 1
        np.testing.assert_allclose(a_class.probabilities, total / count, atol=1e-5)
        assert a_class.probability_map.max().item() == pytest.approx(best[0], abs=1e-5)
        # The pixel of the photograph lies in the cell of the logits.
        cell = (a_class.best_pixel[0] * height // PHOTO_SIZE[0], a_class.best_pixel[1] * width // PHOTO_SIZE[1])
        assert cell == best[1]
        assert torch.equal(a_class.score_after, explanation.score_after[index])
        assert torch.equal(a_class.score_before, explanation.score_before[index])


def test_a_class_that_is_nowhere_has_no_mean():
    logits = torch.zeros(3, 4, 4)
    logits[0], logits[2, 1, 3] = 5.0, 2.0
    explanation = ImageExplanation(
        ("sky", "road", "tree"), (40, 40), torch.zeros(3, 2, 2), torch.zeros(3, 2, 2), logits
    )
    tree = explanation.explain_class(2)
    assert tree.share == 0 and tree.probabilities.isnan().all() and tree.best_pixel == (15, 35)
    powers = np.exp([5.0, 0.0, 2.0])
    assert tree.probability_map.max().item() == pytest.approx(powers[2] / powers.sum())


@pytest.mark.parametrize("row, column", [(-1, 0), (0, -1), (150, 0), (0, 199)])
def test_pixels_outside_of_the_photograph_are_refused(row, column):
    explanation = explain_image(make_model(), make_pixel_values(), PHOTO_SIZE)
    with pytest.raises(ValueError, match=rf"column {column} \(x\) and row {row} \(y\).*199 columns and 150 rows"):
        explanation.explain_pixel(row, column)


def test_what_cannot_be_explained_is_refused():
    pixel_values = make_pixel_values()
    plain = tiny_model("resnet", use_language=False).eval()
    for refused in (lambda: explain_image(plain, pixel_values), lambda: class_similarity(plain)):
        with pytest.raises(ValueError, match="no text tower"):
            refused()
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        explain_image(tiny_model("resnet").train(), pixel_values)
    with pytest.raises(ValueError, match=r"one image; got the shape \(2, 3, 96, 128\)"):
        explain_image(make_model(), pixel_values.expand(2, -1, -1, -1))
    with pytest.raises(ValueError, match="no class 5: ids go from 0 to 4"):
        explain_image(make_model(), pixel_values).explain_class(5)


# ------------------------------------------------------------------------------------------------------------ names


def test_similarity_is_the_cosine_of_names_that_are_read_one_by_one():
    model = make_model("vit")
    contexts = model.prompts.contexts[0].detach()
    for names in (None, ["person", "wall", "a big sky"]):
        similarity = class_similarity(model, names)
        embeddings = embed_names(model, names or TINY_CLASS_NAMES, contexts)
        for one in range(len(embeddings)):
            for other in range(len(embeddings)):
                expected = F.cosine_similarity(embeddings[one], embeddings[other], dim=0)
                assert similarity[one, other].item() == pytest.approx(expected.item(), abs=1e-5)
        off_diagonal = similarity[~torch.eye(len(similarity), dtype=torch.bool)]
        assert off_diagonal.max() < 0.999 and off_diagonal.max() - off_diagonal.min() > 0.01


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    torch.manual_seed(0)
    folder, config = tmp_path_factory.mktemp("clip"), tiny_config("vit")
    towers = {name: getattr(config, name).to_dict() for name in ("text_config", "vision_config")}
    clip = CLIPModel(CLIPConfig(**towers, projection_dim=32))
    for parameter in clip.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    clip.save_pretrained(folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_clip_reads_sentences(clip_folder):
    names = ["wall", "traffic_light", "person"]
    similarity = class_similarity(load_text_reader(str(clip_folder), names), names)
    clip, tokenizer = CLIPModel.from_pretrained(clip_folder), make_tiny_tokenizer()
    sentences = ["a photo of a wall", "a photo of a traffic light", "a photo of a person"]
    with torch.no_grad():
        embeddings = [
            clip.get_text_features(**tokenizer(sentence, return_tensors="pt")).pooler_output[0]
            for sentence in sentences
        ]
    for one in range(3):
        for other in range(3):
            expected = F.cosine_similarity(embeddings[one], embeddings[other], dim=0).item()
            assert similarity[one, other].item() == pytest.approx(expected, abs=1e-5)


def test_a_denseclip_reads_with_its_own_contexts(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    similarity = class_similarity(load_text_reader(str(tmp_path), ["never", "read"]), TINY_CLASS_NAMES)
    torch.testing.assert_close(similarity, class_similarity(model), atol=1e-6, rtol=0)


def test_what_is_no_model_cannot_read(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises((ValueError, OSError)):
        load_text_reader(str(tmp_path), ["a", "b"])


def test_a_clip_has_no_names_of_its_own(clip_folder):
    with pytest.raises(ValueError, match="no DenseCLIP, so it has no class names of its own"):
        load_text_reader(str(clip_folder))


def test_no_pixel_scores_two_names_more_apart_than_their_embeddings_are():
    """The bound that the threshold rests on: sqrt(2 - 2 cos), which one direction attains."""
    one, other = F.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    bound = math.sqrt(2 - 2 * (one @ other).item())
    pixels = F.normalize(torch.randn(10_000, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    assert (pixels @ (one - other)).abs().max().item() < bound
    assert (F.normalize(one - other, dim=0) @ (one - other)).item() == pytest.approx(bound, abs=1e-6)


def test_confusable_names_by_hand():
    names = ["sofa", "couch", "lamp", "chair"]
    similarity = torch.eye(4)
    for (one, other), cosine in {
        (0, 1): 0.96,
        (0, 2): 0.7,
        (0, 3): 0.8,
        (1, 2): 0.6,
        (1, 3): 0.9,
        (2, 3): 0.7,
    }.items():
        similarity[one, other] = similarity[other, one] = cosine
    # The median of 0.6 0.7 0.7 0.8 0.9 0.96 is 0.75; a quarter of what it lacks to 1 is 0.0625.
    assert similarity_threshold(similarity) == pytest.approx(0.9375)
    assert [pair[:2] for pair in confusable_names(similarity, names)] == [("sofa", "couch")]
    pairs = confusable_names(similarity, names, threshold=0.8)
    assert [pair[:2] for pair in pairs] == [("sofa", "couch"), ("couch", "chair"), ("sofa", "chair")]
    assert [pair[2] for pair in pairs] == pytest.approx([0.96, 0.9, 0.8])
    with pytest.raises(ValueError, match=r"each of the 3 names; got the shape \(4, 4\)"):
        confusable_names(similarity, names[:3])


def test_two_names_have_nothing_to_be_compared_with_unless_they_are_equal():
    assert confusable_names(torch.tensor([[1.0, 0.99], [0.99, 1.0]]), ["a", "b"]) == []
    assert confusable_names(torch.ones(2, 2), ["a", "b"]) == [("a", "b", 1.0)]
    assert confusable_names(torch.ones(1, 1), ["a"]) == []


# --------------------------------------------------------------------------------------------------------- pictures


def test_the_sheet_of_a_pixel_marks_it_on_each_photograph():
    photograph = draw_picture(PHOTO_SIZE[1], PHOTO_SIZE[0])
    explanation = explain_image(make_model(), make_pixel_values(), PHOTO_SIZE)
    sheets = [
        np.asarray(draw_pixel(photograph, explanation, explanation.explain_pixel(row, column))).astype(int)
        for row, column in ((30, 40), (120, 150))
    ]
    height = round(PHOTO_SIZE[0] * PICTURE_WIDTH / PHOTO_SIZE[1])
    changed = (sheets[0] != sheets[1]).any(axis=2)[8 : 8 + height, 8 : 8 + PICTURE_WIDTH]
    rows, columns = np.nonzero(changed)
    scale = PICTURE_WIDTH / PHOTO_SIZE[1]
    # Two rings, and nothing else of the photograph
    for row, column in ((30.5, 40.5), (120.5, 150.5)):
        near = np.hypot(rows - row * scale, columns - column * scale) < 30
        assert rows[near].mean() == pytest.approx(row * scale, abs=1)
        assert columns[near].mean() == pytest.approx(column * scale, abs=1)
        rows, columns = rows[~near], columns[~near]
    assert rows.size == 0


def test_score_maps_before_and_after_are_drawn_on_one_scale():
    photograph = draw_picture(PHOTO_SIZE[1], PHOTO_SIZE[0]).convert("L").point(lambda _: 0)  # black
    before, after = torch.zeros(2, 2, 2), torch.ones(2, 2, 2)
    explanation = ImageExplanation(("sky", "road"), PHOTO_SIZE, before, after, torch.randn(2, 8, 8))
    sheet = np.asarray(draw_class(photograph.convert("RGB"), explanation, explanation.explain_class(0)))
    height = sheet.shape[0]
    colors = [sheet[height - 200, 8 + PICTURE_WIDTH // 2 + index * (PICTURE_WIDTH + 8)] for index in range(2)]
    for color, expected in zip(colors, (HEAT_COLORS[0], HEAT_COLORS[-1]), strict=True):
        np.testing.assert_allclose(color, 0.6 * np.array(expected), atol=1)


def test_only_the_most_similar_of_many_names_are_drawn(monkeypatch):
    embeddings = F.normalize(torch.randn(60, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    embeddings[41] = F.normalize(embeddings[7] + 0.01 * embeddings[41], dim=0)
    names, drawn = [f"name {index}" for index in range(60)], []
    monkeypatch.setattr(
        "modeling_denseclip.tools.insight.explanation_sheets.draw_matrix", lambda *arguments: drawn.append(arguments)
    )
    similarity = embeddings @ embeddings.T
    draw_similarity(similarity, names)
    ((values, shown, title),) = drawn
    assert len(set(shown)) == MAXIMUM_NAMES and shown[:2] == ["name 7", "name 41"] and "24 of 60" in title
    ids = [names.index(name) for name in shown]
    np.testing.assert_array_equal(values, similarity[ids][:, ids])
    # No pair of names that are left out is more similar than the least that brought one in.
    outside = [index for index in range(60) if index not in ids]
    least = min(np.sort(values, axis=1)[:, -2])
    assert similarity[outside][:, outside].fill_diagonal_(-1).max() <= least + 1e-6


def test_pictures_of_the_smallest_models_are_drawn():
    """One class, one name that is alone."""
    explanation = ImageExplanation(("sky",), (20, 30), torch.ones(1, 1, 1), torch.ones(1, 1, 1), torch.zeros(1, 5, 8))
    photograph = draw_picture(30, 20)
    assert draw_pixel(photograph, explanation, explanation.explain_pixel(3, 4)).width > 3 * PICTURE_WIDTH
    assert draw_class(photograph, explanation, explanation.explain_class(0)).width > 3 * PICTURE_WIDTH
