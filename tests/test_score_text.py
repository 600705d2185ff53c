# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of any words, `score_text` of the model and `training.score_text`, against plain ways to the same numbers."""

import copy
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.pictures.drawing import BACKGROUND, HEAT_COLORS, HEAT_OPACITY, OPACITY
from modeling_denseclip.tools.pictures.palettes import generate_palette
from tests.tiny import TINY_CLASS_NAMES, draw_picture, make_tiny_tokenizer, spread_classes, tiny_config, tiny_model
from training.demonstration.tokenizer import build_tokenizer
from training.score_text import draw_scores, main


KINDS = ("resnet", "vit")
MODES = ("language", "pre_model", "post_model")
SENTENCES = ("a photo of a sofa", "wall", "a cat on the right")
# What is new beside CLIP, made small.
SMALL_FIELDS = {"context_decoder_hidden_size": 32, "neck_hidden_size": 16, "decode_head_hidden_size": 16}
TOO_LONG = "a " * 60  # letters are tokens here


def make_pixel_values(height: int = 64, width: int = 96, batch_size: int = 2) -> torch.Tensor:
    return torch.randn(batch_size, 3, height, width, generator=torch.Generator().manual_seed(2))


def make_model(kind: str, **fields) -> DenseCLIPForSemanticSegmentation:
    """A tiny model whose parts all have something to say."""
    model = tiny_model(kind, **fields)
    # Fresh biases and norms are zeros and ones, which a mix-up would not show.
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.tokenizer = make_tiny_tokenizer()
    return spread_classes(model, make_pixel_values())


def largest_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape
    return (one - other).abs().max().item()


def cosines(pixel_embeddings: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
    """Of one text and one pixel after the other: (batch, C, height, width), (texts, C) -> (batch, texts, ...)."""
    batch_size, _, height, width = pixel_embeddings.shape
    result = torch.empty(batch_size, len(text_embeddings), height, width)
    for index in np.ndindex(*result.shape):
        image, text, row, column = index
        result[index] = F.cosine_similarity(pixel_embeddings[image, :, row, column], text_embeddings[text], dim=0)
    return result


@torch.no_grad()
def sentence_embeddings(
    model: DenseCLIPForSemanticSegmentation, sentences, projection: torch.Tensor | None = None
) -> torch.Tensor:
    """
    What Transformers' text tower makes of each sentence alone, with the weights of `model`, or another projection.
    """
    projection = model.text_projection.weight if projection is None else projection
    config = CLIPTextConfig(**{**model.config.text_config.to_dict(), "projection_dim": len(projection)})
    clip = CLIPTextModelWithProjection(config).eval()
    clip.text_model.load_state_dict(model.text_encoder.state_dict())
    clip.text_projection.weight.copy_(projection)
    tokens = [model.tokenizer(sentence, return_tensors="pt").input_ids for sentence in sentences]
    return torch.cat([clip(input_ids=input_ids).text_embeds for input_ids in tokens])


# --- Learned prompts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_classes_score_as_in_the_score_map(kind, mode):
    model, pixel_values = make_model(kind, prompting_mode=mode), make_pixel_values()
    with torch.no_grad():
        score_map = model(pixel_values).score_map
    assert largest_difference(model.score_text(pixel_values, TINY_CLASS_NAMES), score_map) < 1e-5
    assert (score_map[0] - score_map[1]).abs().max() > 0.01  # images differ, so a mix-up of them would show


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_texts_is_the_order_of_channels(mode):
    model, pixel_values = make_model("vit", prompting_mode=mode), make_pixel_values()
    order = [3, 0, 4, 2, 1]
    scores = model.score_text(pixel_values, TINY_CLASS_NAMES)
    permuted = model.score_text(pixel_values, [TINY_CLASS_NAMES[index] for index in order])
    assert largest_difference(permuted, scores[:, order]) < 1e-5
    assert largest_difference(permuted, scores) > 0.01


@pytest.mark.parametrize("mode", MODES)
def test_only_after_the_text_tower_do_texts_see_each_other(mode):
    """The context decoder of post-model prompting has self-attention among the texts; all else takes each alone."""
    model, pixel_values = make_model("vit", prompting_mode=mode), make_pixel_values()
    together = model.score_text(pixel_values, TINY_CLASS_NAMES)
    alone = torch.cat([model.score_text(pixel_values, [name]) for name in TINY_CLASS_NAMES], dim=1)
    difference = largest_difference(alone, together)
    assert difference > 0.01 if mode == "post_model" else difference < 1e-5


def test_learned_contexts_stand_behind_names_where_the_config_says_so():
    model, pixel_values = make_model("vit", context_position="after_name"), make_pixel_values()
    with torch.no_grad():
        score_map = model(pixel_values).score_map
    assert largest_difference(model.score_text(pixel_values, TINY_CLASS_NAMES), score_map) < 1e-5


# --- Plain texts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context_position", ["before_name", "after_name"])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_texts_are_read_as_by_clip(kind, context_position):
    model, pixel_values = make_model(kind, context_position=context_position), make_pixel_values()
    with torch.no_grad():
        pixel_embeddings = model.image_encoder(pixel_values).pixel_embeddings
    expected = cosines(pixel_embeddings, sentence_embeddings(model, SENTENCES))
    scores = model.score_text(pixel_values, SENTENCES, learned_prompts=False)
    assert largest_difference(scores, expected) < 1e-5
    assert largest_difference(model.score_text(pixel_values, SENTENCES), expected) > 0.01


@pytest.fixture(scope="module")
def clip() -> CLIPModel:
    torch.manual_seed(0)
    config = tiny_config("vit")
    towers = {name: getattr(config, name).to_dict() for name in ("text_config", "vision_config")}
    clip = CLIPModel(CLIPConfig(**towers, projection_dim=24)).eval()
    for parameter in clip.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return clip


@pytest.fixture(scope="module")
def clip_folder(clip, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    clip.save_pretrained(folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def fresh(clip_folder) -> DenseCLIPForSemanticSegmentation:
    return DenseCLIPForSemanticSegmentation.from_clip_pretrained(clip_folder, TINY_CLASS_NAMES, **SMALL_FIELDS)


@torch.no_grad()
def dense_clip_of_transformers(clip: CLIPModel, pixel_values, sentences, value_projection: bool) -> torch.Tensor:
    """
    Zero-shot dense CLIP by Transformers' CLIP alone, on a grid of 4 x 4 patches: (batch_size, texts, 4, 4).

    A token that runs through a layer on its own can only attend to itself, which is what values alone mean.
    """
    tokenizer, vision = make_tiny_tokenizer(), clip.vision_model
    states = vision(pixel_values, output_hidden_states=True).hidden_states
    if value_projection:
        layer, tokens = vision.encoder.layers[-1], states[-2].split(1, dim=1)
        last = torch.cat([layer(token, attention_mask=None) for token in tokens], dim=1)
    else:
        last = states[-1]
    pixels = clip.visual_projection(vision.post_layernorm(last[:, 1:])).transpose(1, 2).unflatten(2, (4, 4))
    tokens = [tokenizer(sentence, return_tensors="pt").input_ids for sentence in sentences]
    texts = torch.cat([clip.get_text_features(input_ids=input_ids).pooler_output for input_ids in tokens])
    return cosines(pixels, texts)


@pytest.mark.parametrize("value_projection", [False, True])
def test_zero_shot_is_the_clip_of_transformers(clip, fresh, value_projection):
    pixel_values = make_pixel_values(64, 64)  # CLIP's own size: at others positions are resized in two ways
    expected = dense_clip_of_transformers(clip, pixel_values, SENTENCES, value_projection)
    scores = fresh.score_text(pixel_values, SENTENCES, value_projection=value_projection)
    assert largest_difference(scores, expected) < 1e-5
    other = dense_clip_of_transformers(clip, pixel_values, SENTENCES, not value_projection)
    assert largest_difference(scores, other) > 0.01


BACKBONE = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 128], "depths": [1, 1, 1, 1]}


@pytest.mark.parametrize("fields", [{}, {"vision_config": BACKBONE}], ids=["clip", "backbone"])
def test_values_of_the_attention_pool(fields):
    """A map of one cell has a mean that equals it, so without positions the pool attends to that cell alone."""
    model, pixel_values = make_model("resnet", **fields), make_pixel_values()
    assert model.image_encoder.attention_pool.num_heads > 1
    pool = copy.deepcopy(model.image_encoder.attention_pool)
    with torch.no_grad():
        pool.position_embedding.zero_()
        feature_map = model.image_encoder(pixel_values).feature_maps[-1]
        pixel_embeddings = torch.empty(2, 32, 2, 3)
        for image, row, column in np.ndindex(2, 2, 3):
            cell = feature_map[image, :, row, column][None, :, None, None]
            pixel_embeddings[image, :, row, column] = pool(cell)[0][0, 1]
    expected = cosines(pixel_embeddings, sentence_embeddings(model, SENTENCES))
    scores = model.score_text(pixel_values, SENTENCES, learned_prompts=False, value_projection=True)
    assert largest_difference(scores, expected) < 1e-5
    assert largest_difference(model.score_text(pixel_values, SENTENCES, learned_prompts=False), expected) > 0.01


@torch.no_grad()
def teach(model: DenseCLIPForSemanticSegmentation, texts, embeddings: torch.Tensor) -> None:
    """Make plain `texts` mean `embeddings`, (texts, projection_dim): solve for the projection of the text tower."""
    end_states = sentence_embeddings(model, texts, projection=torch.eye(model.config.text_config.hidden_size))
    model.text_projection.weight.copy_((torch.linalg.pinv(end_states) @ embeddings).T)


@pytest.mark.parametrize("value_projection", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_means_a_cell_is_found_there(kind, value_projection):
    model, pixel_values = make_model(kind), make_pixel_values(128, 192, batch_size=1)
    cells = [(0, 1), (2, 3), (3, 0)]
    with torch.no_grad():
        outputs = model.image_encoder(pixel_values, value_projection=value_projection)
    pixels = (outputs.value_embeddings if value_projection else outputs.pixel_embeddings)[0]
    teach(model, SENTENCES, torch.stack([pixels[:, row, column] for row, column in cells]))
    scores = model.score_text(pixel_values, SENTENCES, learned_prompts=False, value_projection=value_projection)[0]
    for text, (row, column) in enumerate(cells):
        assert scores[text, row, column] == pytest.approx(1, abs=1e-4)
        assert scores[text].argmax() == row * scores.shape[-1] + column
        assert scores[:, row, column].argmax() == text


# --- Which prompts, by default ---------------------------------------------------------------------------------------


def reads_plainly(model: DenseCLIPForSemanticSegmentation) -> bool:
    """Which of the two a model does if nobody says; they must differ for that to be seen."""
    pixel_values = make_pixel_values(batch_size=1).to(model.dtype)
    scores = [model.score_text(pixel_values, SENTENCES, learned_prompts=choice) for choice in (None, False, True)]
    plain, learned = (torch.equal(scores[0], other) for other in scores[1:])
    assert plain != learned
    return plain


def test_a_fresh_model_reads_plainly_until_its_contexts_are_trained(fresh, tmp_path):
    assert reads_plainly(fresh)
    optimizer = torch.optim.SGD(fresh.parameters(), lr=1e-3)
    fresh(make_pixel_values(batch_size=1)).score_map.sum().backward()
    optimizer.step()
    assert not reads_plainly(fresh)
    fresh.save_pretrained(tmp_path)
    assert not reads_plainly(DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path))


def test_a_model_that_was_saved_untrained_reads_plainly_again(fresh, tmp_path):
    fresh.save_pretrained(tmp_path)
    loaded = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path)
    assert reads_plainly(loaded)
    with torch.no_grad():
        loaded.prompts.contexts.add_(1e-3)
    assert not reads_plainly(loaded)


@pytest.mark.parametrize("mode", ["language", "pre_model", "post_model"])
@pytest.mark.parametrize("kind", KINDS)
def test_values_change_the_pixels_and_not_what_the_image_prompts(kind, mode):
    model, pixel_values = make_model(kind, prompting_mode=mode), make_pixel_values()
    with torch.no_grad():
        texts = model(pixel_values).text_embeddings
        values = model.image_encoder(pixel_values, value_projection=True).value_embeddings
    scores = model.score_text(pixel_values, TINY_CLASS_NAMES, tokenizer=make_tiny_tokenizer(), value_projection=True)
    for image, k in itertools.product(range(len(texts)), range(len(TINY_CLASS_NAMES))):
        cosine = F.cosine_similarity(values[image], texts[image, k, :, None, None], dim=0)
        torch.testing.assert_close(scores[image, k], cosine, rtol=1e-4, atol=1e-5)


def test_what_leaves_the_contexts_alone_does_not_train_them(fresh):
    with torch.no_grad():
        fresh.text_projection.weight.add_(0.1)
    fresh.set_class_names(["sky", "person"])
    assert reads_plainly(fresh)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision_does_not_train_the_contexts(fresh, dtype):
    assert reads_plainly(fresh.to(dtype))


# --- What it leaves alone, and refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_left_as_it_was(kind):
    model, pixel_values = make_model(kind), make_pixel_values()
    with torch.no_grad():
        logits = model(pixel_values).logits
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layout = {name: tensor.clone() for name, tensor in model.prompts.layout.items()}
    cached, config = model.text_cache._entry, model.config.to_dict()
    for arguments in ({}, {"learned_prompts": False}, {"value_projection": True}):
        scores = model.score_text(pixel_values, SENTENCES, **arguments)
        assert not scores.requires_grad and scores.dtype == torch.float32
        assert -1 - 1e-6 < scores.min() < scores.max() < 1 + 1e-6
    assert not model.training and model.text_cache._entry is cached and model.config.to_dict() == config
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, layout[name]) for name, tensor in model.prompts.layout.items())
    with torch.no_grad():
        assert torch.equal(model(pixel_values).logits, logits)


@pytest.mark.parametrize(
    "texts, message",
    [
        ([], "empty"),
        (["wall", " "], "' '"),
        (["wall", "sky", "Wall"], "0 and 2"),
        ("wall", "'wall'"),
        ([TOO_LONG], "text tower has 40"),
    ],
)
@pytest.mark.parametrize("learned_prompts", [True, False])
def test_texts_that_cannot_be_read(texts, message, learned_prompts):
    with pytest.raises(ValueError, match=message):
        make_model("vit").score_text(make_pixel_values(), texts, learned_prompts=learned_prompts)


def test_plain_texts_have_the_positions_of_the_contexts_too():
    model = make_model("vit")
    text = "a " * 36  # and start and end: 38 of 40 positions, which leaves none for 8 contexts
    assert model.score_text(make_pixel_values(), [text], learned_prompts=False).shape == (2, 1, 4, 6)
    with pytest.raises(ValueError, match="46 positions"):
        model.score_text(make_pixel_values(), [text], learned_prompts=True)


def test_models_that_cannot_read():
    with pytest.raises(ValueError, match="use_language=False"):
        tiny_model("vit", use_language=False).score_text(make_pixel_values(), ["wall"])
    model = tiny_model("vit")
    with pytest.raises(ValueError, match="training mode"):
        model.train().score_text(make_pixel_values(), ["wall"])
    model.eval()
    with pytest.raises(ValueError, match="tokenizer"):
        model.score_text(make_pixel_values(), ["wall"])
    with pytest.raises(ValueError, match="31 x 64 pixels.*at least 32"):
        model.score_text(torch.rand(1, 3, 31, 64), ["wall"], tokenizer=make_tiny_tokenizer())
    with pytest.raises(ValueError, match="has a token .*, the text tower only 87"):
        model.score_text(make_pixel_values(), ["wall"], tokenizer=build_tokenizer(["wall", *map(str, range(99))]))
    given = model.score_text(make_pixel_values(), ["wall"], tokenizer=make_tiny_tokenizer())
    assert given.shape == (2, 1, 4, 6) and model.tokenizer is None


# --- Pictures --------------------------------------------------------------------------------------------------------

GAP = 8  # around each tile of a contact sheet
WIDTH = 640


def tile(sheet: Image.Image, row_top: int, column: int) -> np.ndarray:
    """The pixels of a tile from its upper left corner on."""
    left = GAP + column * (WIDTH + GAP)
    return np.asarray(sheet)[row_top:, left : left + WIDTH].astype(float)


def second_row(sheet: Image.Image) -> int:
    """Where the row below the photograph and the legend begins: at the next dark pixel behind its caption."""
    rows = np.flatnonzero((np.asarray(sheet)[:, GAP] != BACKGROUND).any(axis=1))
    return int(rows[np.flatnonzero(np.diff(rows) > 1)[0] + 1])


def test_picture_of_two_texts():
    photograph = Image.new("RGB", (200, 100))  # black, so that colours are those of the maps alone
    # One step between two halves; the second text scores less everywhere on the left, and wins on the right.
    scores = torch.tensor([[[0.5, 0.1]], [[0.3, 0.2]]])
    sheet = draw_scores(photograph, scores, ["sky", "road"], temperature=0.1, name="street.jpg")
    assert sheet.width == 2 * WIDTH + 3 * GAP
    assert not tile(sheet, GAP, 0)[:320].any()  # the photograph, at a width of 640
    left, right = (slice(100, 200), slice(20, 120)), (slice(100, 200), slice(520, 620))

    best = tile(sheet, GAP, 1)
    for place, color in ((left, generate_palette(2)[0]), (right, generate_palette(2)[1])):
        assert np.abs(best[place] - OPACITY * np.array(color)).max() <= 1
    top = second_row(sheet)
    # Cosines: 0.1 and 0.5 are the ends of the scale, for both texts.
    cosine = tile(sheet, top, 0)
    for place, color in ((left, HEAT_COLORS[-1]), (right, HEAT_COLORS[0])):
        assert np.abs(cosine[place] - HEAT_OPACITY * np.array(color)).max() <= 1
    # Shares: 1 / (1 + exp(-2)) = 0.881 on the left and 1 / (1 + exp(1)) = 0.269 on the right, of a scale from 0 to 1.
    share = tile(sheet, top, 1)
    for place, value in ((left, 0.8808), (right, 0.2689)):
        color = [np.interp(value, np.linspace(0, 1, 9), channel) for channel in zip(*HEAT_COLORS, strict=True)]
        assert np.abs(share[place] - HEAT_OPACITY * np.array(color)).max() <= 1
    # The second text, one row further down: 0.3 is the middle of the scale, although it is the most of this text.
    height = 320 + 3 * (WIDTH // 32) + 22 + GAP
    middle = tile(sheet, top + height, 0)[left]
    assert np.abs(middle - HEAT_OPACITY * np.array(HEAT_COLORS[4])).max() <= 1


def test_picture_of_one_text_compares_it_with_nothing():
    scores = torch.tensor([[[0.5, 0.1]]])
    sheet = draw_scores(Image.new("RGB", (200, 100)), scores, ["sky"], temperature=0.1, name="street.jpg")
    assert sheet.height == GAP + 320 + 3 * (WIDTH // 32) + 22 + GAP  # one row
    assert np.abs(tile(sheet, GAP, 1)[100, 20] - HEAT_OPACITY * np.array(HEAT_COLORS[-1])).max() <= 1


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_model("vit").save_pretrained(folder)
    DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 256}).save_pretrained(folder)
    return folder


@pytest.fixture
def photograph(tmp_path) -> Path:
    path = tmp_path / "street.jpg"
    draw_picture(96, 64).save(path)
    return path


def printed_cosines(text: str) -> np.ndarray:
    """Least, mean and greatest of each text, as the last table has them."""
    lines = text[text.rindex("cosine: least") :].split("\n\n")[0].splitlines()[1:]
    return np.array([[float(value) for value in line.split()[-3:]] for line in lines])


@pytest.mark.parametrize(
    "words, arguments, statement",
    [
        ([], {"learned_prompts": True}, "They attend to each other"),
        (["--plain"], {"learned_prompts": False}, "read plainly"),
        (["--learned_prompts", "--value_projection"], {"value_projection": True}, "it knows 5 classes alone"),
    ],
)
def test_command_on_a_denseclip(model_folder, photograph, tmp_path, capsys, words, arguments, statement):
    texts = ["traffic light", "sky"]
    paths = main(
        [str(model_folder), str(photograph), "--texts", *texts, "--output", str(tmp_path / "out" / "new"), *words]
    )
    assert paths == [tmp_path / "out" / "new" / "street-texts.png"]
    assert [path.name for path in paths[0].parent.iterdir()] == ["street-texts.png"]
    printed = capsys.readouterr().out
    assert "decode head takes no part" in printed and statement in printed

    model = DenseCLIPForSemanticSegmentation.from_pretrained(model_folder)
    pixel_values = DenseCLIPImageProcessor.from_pretrained(model_folder)(
        Image.open(photograph), return_tensors="pt"
    ).pixel_values
    scores = model.score_text(pixel_values, texts, **arguments)[0]
    expected = [[values.min(), values.mean(), values.max()] for values in scores]
    np.testing.assert_allclose(printed_cosines(printed), expected, atol=6e-4)
    drawn = draw_scores(Image.open(photograph), scores, texts, model.config.temperature, "street.jpg")
    assert np.abs(np.asarray(drawn).astype(int) - np.asarray(Image.open(paths[0]))).max() <= 1


def test_command_says_that_an_untrained_checkpoint_is_read_plainly(fresh, tmp_path, capsys):
    fresh.save_pretrained(tmp_path / "model")
    DenseCLIPImageProcessor(size={"shortest_edge": 64}).save_pretrained(tmp_path / "model")
    draw_picture(96, 64).save(tmp_path / "picture.png")
    words = [str(tmp_path / "model"), str(tmp_path / "picture.png"), "--texts", *SENTENCES]
    main([*words, "--output", str(tmp_path / "out")])
    by_itself = capsys.readouterr().out
    main([*words, "--output", str(tmp_path / "out"), "--plain"])
    assert by_itself == capsys.readouterr().out and "Texts are read plainly" in by_itself


def test_command_on_a_clip_finds_what_it_was_taught(clip, tmp_path, capsys):
    """
    From painted photograph to printed table and picture: a CLIP without positions, whose texts mean two colours.
    """
    clip = copy.deepcopy(clip)
    photograph = Image.new("RGB", (1024, 512), (200, 40, 40))
    photograph.paste((40, 40, 200), (512, 0, 1024, 512))
    photograph.save(tmp_path / "halves.png")
    pixel_values = DenseCLIPImageProcessor()(photograph, return_tensors="pt").pixel_values
    texts = ["a photo of red", "a photo of light"]
    with torch.no_grad():
        clip.vision_model.embeddings.position_embedding.weight.zero_()
        clip.save_pretrained(tmp_path / "clip")
        make_tiny_tokenizer().save_pretrained(tmp_path / "clip")
        model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(tmp_path / "clip", ["wall"], **SMALL_FIELDS)
        pixels = model.image_encoder(pixel_values, value_projection=True).value_embeddings[0]
        teach(model, texts, torch.stack([pixels[:, 5, 5], pixels[:, 5, -5]]))
        clip.text_projection.weight.copy_(model.text_projection.weight)
    clip.save_pretrained(tmp_path / "clip")

    words = [str(tmp_path / "clip"), str(tmp_path / "halves.png"), "--clip", "--value_projection"]
    (path,) = main([*words, "--texts", *texts, "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "Zero-shot" in printed and "no masks" in printed
    np.testing.assert_allclose(printed_cosines(printed)[:, 2], 1, atol=2e-3)
    scores = model.score_text(pixel_values, texts, value_projection=True)[0]
    drawn = draw_scores(photograph, scores, texts, temperature=0.01, name="halves.png")
    assert np.abs(np.asarray(drawn).astype(int) - np.asarray(Image.open(path))).max() <= 1
    best = tile(Image.open(path), GAP, 1)
    palette = np.array(generate_palette(2), dtype=float)
    for columns, text in ((slice(20, 290), 0), (slice(350, 620), 1)):
        color = best[20:300, columns].mean(axis=(0, 1))
        assert np.abs(color - palette).sum(axis=1).argmin() == text


def test_padding_is_not_drawn(model_folder, photograph, tmp_path):
    shutil.copytree(model_folder, tmp_path / "padding")
    image_processor = DenseCLIPImageProcessor.from_pretrained(model_folder)
    image_processor.do_pad, image_processor.pad_size = True, {"height": 256, "width": 256}
    image_processor.save_pretrained(tmp_path / "padding")
    pictures = [
        Path(*main([str(folder), str(photograph), "--texts", "sky", "--output", str(tmp_path / name)])).read_bytes()
        for folder, name in ((model_folder, "plain"), (tmp_path / "padding", "padded"))
    ]
    assert pictures[0] == pictures[1]


def test_photographs_are_drawn_upright(model_folder, tmp_path):
    photograph = draw_picture(96, 64)
    photograph.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    photograph.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    words = [str(model_folder), str(tmp_path / "upright.png"), str(tmp_path / "turned.png")]
    pictures = [np.asarray(Image.open(path)) for path in main([*words, "--texts", "sky", "--output", str(tmp_path)])]
    assert np.array_equal(*(picture[: GAP + 400] for picture in pictures))  # but for their captions


BROKEN = {
    "photograph missing": ("MODEL nowhere.jpg", "", "nowhere.jpg"),
    "photograph broken": ("MODEL street.png no_image.jpg", "", "no_image.jpg"),
    "same names": ("MODEL street.png other/street.png", "", "would both become"),
    "photograph replaced": ("MODEL street.png street-texts.png", "--output .", "would be replaced"),
    "output is a file": ("MODEL street.png", "--output file", "must be a folder"),
    "no such model": ("./nowhere street.png", "", "nowhere"),
    "a CLIP": ("CLIP street.png", "", "--clip"),
    "a DenseCLIP as CLIP": ("MODEL street.png", "--clip", "denseclip"),
    "contexts of a CLIP": ("CLIP street.png", "--clip --learned_prompts", "no learned prompts"),
    "temperature": ("MODEL street.png", "--temperature 0", "positive; got 0"),
    "device": ("MODEL street.png", "--device abacus", "--device abacus"),
    "tokenizer": ("MODEL street.png", "--tokenizer other", "No CLIP tokenizer"),
    "texts repeated": ("MODEL street.png", "--texts sky sky", "0 and 1"),
    "text too long": ("MODEL street.png", f"--texts {'a' * 60}", "text tower has 40"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_nothing_is_written_on_an_error(model_folder, clip_folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("no_image.jpg").write_text("x")
    Path("other").mkdir()
    for photograph in ("street.png", "other/street.png", "street-texts.png"):
        draw_picture(96, 64).save(photograph)
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    inputs, options, message = BROKEN[name]
    folders = {"MODEL": str(model_folder), "CLIP": str(clip_folder)}
    words = [folders.get(word, word) for word in inputs.split()]
    with pytest.raises((ValueError, OSError), match=message):
        main([*words, "--texts", "sky", "--output", "out", *options.split()])
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before


def test_a_picture_that_cannot_be_written_leaves_the_old_one(model_folder, photograph, tmp_path, monkeypatch):
    words = [str(model_folder), str(photograph), "--texts", "sky", "--output", str(tmp_path / "out")]
    (path,) = main(words)
    before = path.read_bytes()

    def save_half(self, target, **kwargs):
        Path(target).write_bytes(before[:100])
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", save_half)
    with pytest.raises(OSError, match="no space"):
        main(words)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_photographs_whose_names_do_not_serve(model_folder, photograph, tmp_path):
    words = ["--texts", "sky", "--output", str(tmp_path / "out")]
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    with pytest.raises(FileNotFoundError, match="There is no photograph .*loop.png"):
        main([str(model_folder), str(loop), *words])
    with pytest.raises(ValueError, match="is too long for its results: "):
        main([str(model_folder), str(tmp_path / f"{'x' * 250}.png"), *words])
    assert not (tmp_path / "out").exists()
