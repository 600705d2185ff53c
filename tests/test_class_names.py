"""Class names: tokens, packed prompts, and a head that follows the names."""

import json
import random
from pathlib import Path

import datasets
import pytest
import torch
from transformers import AutoConfig, AutoModelForSemanticSegmentation, CLIPTextModel

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation, tokenize_class_names
from modeling_denseclip.class_names_denseclip import check_class_names
from modeling_denseclip.modeling_denseclip_prompting import pack_prompts
from tests.tiny import TINY_CLASS_NAMES, make_tiny_tokenizer, tiny_config, tiny_model
from training.data.class_names import read_class_names
from training.data.load import _check_names
from training.data.rows import _names_in_features


ADE20K = json.loads((Path(__file__).parent / "fixtures" / "ade20k.json").read_text())


def token_ids_of_ade20k():
    # The published code pads with 0 behind the end token, which has the largest id.
    return [ids[: ids.index(max(ids)) + 1] for ids in ADE20K["token_ids"]]


# -- tokens


def test_ade20k_is_tokenised_as_published(clip_tokenizer):
    assert tokenize_class_names(ADE20K["classes"], clip_tokenizer) == tuple(map(tuple, token_ids_of_ade20k()))


def test_underscores_and_spaces_read_as_one_space(tiny_tokenizer):
    plain, *others = tokenize_class_names(["right ventricle cavity"], tiny_tokenizer) + tuple(
        tokenize_class_names([name], tiny_tokenizer)[0]
        for name in ("right_ventricle_cavity", " right  ventricle cavity ", "right_ ventricle__cavity")
    )
    assert all(ids == plain for ids in others)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "empty"),
        (["wall", "  "], "Class 1 has an empty name"),
        (["wall", "_"], "Class 1 has an empty name"),
        (["sky", "wall", "Sky"], "Classes 0 and 2 are both called"),
        (["traffic light", "traffic_light"], "Classes 0 and 1 are both called"),
        ("wall", "must be a list"),
    ],
)
def test_bad_names_are_refused_and_nothing_is_lost(names, message, tiny_tokenizer):
    model = tiny_model("resnet").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = model.config.to_dict()
    with pytest.raises(ValueError, match=message):
        model.set_class_names(names, tokenizer=tiny_tokenizer)
    assert model.config.to_dict() == config
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_name_longer_than_the_text_tower_is_named(tiny_tokenizer):
    model = tiny_model("resnet")
    positions = model.config.text_config.max_position_embeddings
    long_name = " ".join(["cavity"] * positions)
    config = model.config.to_dict()
    with pytest.raises(ValueError, match="cavity cavity") as error:
        model.set_class_names(["wall", long_name], tokenizer=tiny_tokenizer)
    assert str(positions) in str(error.value) and "Shorten" in str(error.value)
    assert model.config.to_dict() == config
    model.set_class_names(["wall", "right ventricle cavity"], tokenizer=tiny_tokenizer)
    assert model.eval()(torch.rand(1, 3, 64, 64)).logits.shape[1] == 2


# -- packed prompts


def test_ade20k_takes_343_positions_instead_of_1950():
    packed = pack_prompts(ADE20K["classes"], token_ids_of_ade20k(), 8, "before_name", 77)
    assert [len(sequence) for sequence in packed.source_index] == [343]
    assert len(ADE20K["classes"]) * (8 + 5) == 1950


@pytest.mark.parametrize("context_position", ["before_name", "after_name"])
@pytest.mark.parametrize("lengths", [(1, 3), (20, 20), (1, 60)])
@pytest.mark.parametrize("num_classes", [150, 1000, 5000])
def test_many_names_take_many_sequences_of_bounded_length(num_classes, lengths, context_position):
    """So time and memory grow with the number of names, and not with its square as one sequence's attention does."""
    generator = random.Random(0)
    token_ids = [[1, *([2] * generator.randint(*lengths)), 3] for _ in range(num_classes)]
    packed = pack_prompts([str(index) for index in range(num_classes)], token_ids, 8, context_position, 77)
    # What each prompt has for itself: its name, the end token, and contexts that stand behind the name.
    own = [len(ids) - 1 + (0 if context_position == "before_name" else 8) for ids in token_ids]
    longest = len(packed.source_index[0])
    assert longest <= 512 + 9 + max(own)
    needed = sum(own) + 9
    assert needed <= longest * len(packed.source_index) <= 1.25 * needed


@pytest.mark.parametrize("context_position", ["before_name", "after_name"])
@torch.no_grad()
def test_packed_prompts_equal_one_run_per_class(context_position):
    """Against `CLIPTextModel` itself: the contexts become words of its vocabulary, and each prompt runs alone."""
    model = tiny_model("resnet", context_position=context_position).eval()
    config = model.config
    contexts = model.prompts.contexts[0]
    vocab_size = config.text_config.vocab_size
    text_config = type(config.text_config)(
        **{**config.text_config.to_dict(), "vocab_size": vocab_size + len(contexts), "eos_token_id": 49407}
    )
    plain = CLIPTextModel(text_config).eval()
    state_dict = model.text_encoder.state_dict()
    name = next(name for name in state_dict if name.endswith("token_embedding.weight"))
    state_dict[name] = torch.cat([state_dict[name], contexts])
    plain.load_state_dict(state_dict)

    context_ids = list(range(vocab_size, vocab_size + len(contexts)))
    expected = []
    for ids in config.class_token_ids:
        if context_position == "before_name":
            prompt = [ids[0], *context_ids, *ids[1:]]
        else:
            prompt = [*ids[:-1], *context_ids, ids[-1]]
        hidden_states = plain(input_ids=torch.tensor([prompt])).last_hidden_state
        expected.append(model.text_projection(hidden_states[0, -1]))
    torch.testing.assert_close(model.encode_class_names(), torch.stack(expected), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_class_does_not_see_the_others(tiny_tokenizer):
    model = tiny_model("resnet").eval()
    together = model.encode_class_names()
    for index, name in enumerate(TINY_CLASS_NAMES):
        model.set_class_names([name], tokenizer=tiny_tokenizer)
        torch.testing.assert_close(model.encode_class_names()[0], together[index], rtol=0, atol=1e-5)


# -- before the names have tokens


def test_the_default_config_builds():
    with torch.device("meta"):  # it is RN50
        model = DenseCLIPForSemanticSegmentation(DenseCLIPConfig())
    assert model.decode_head.classifier.out_channels == model.num_labels == 2


@pytest.mark.parametrize("mode", ["language", "pre_model", "post_model"])
def test_a_model_without_tokens_is_whole_but_for_what_needs_them(mode, tmp_path, tiny_tokenizer):
    untold = tiny_model("resnet", class_token_ids=None, prompting_mode=mode)
    pixel_values, labels = torch.rand(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.long)
    for call in (
        lambda: untold.train()(pixel_values, labels=labels),
        lambda: untold.eval()(pixel_values),
        lambda: untold.segment_classes(pixel_values),
        lambda: untold(torch.rand(1, 3, 64, 96), inference_mode="slide", window_size=64, window_stride=48),
    ):
        with torch.no_grad(), pytest.raises(ValueError, match="class_token_ids.*set_class_names"):
            call()

    untold.save_pretrained(tmp_path)
    loaded = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path)
    assert loaded.config.class_token_ids is None
    for name, value in untold.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name

    # With the names that it has, every weight is kept, and it is the model that had their tokens from the start.
    report = loaded.set_class_names(TINY_CLASS_NAMES, tiny_tokenizer)
    assert report.kept == TINY_CLASS_NAMES and not report.new
    told = tiny_model("resnet", prompting_mode=mode).eval()
    told.load_state_dict(untold.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(pixel_values).logits, told(pixel_values).logits)
    loaded.save_pretrained(tmp_path)
    again = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path)
    assert again.config.class_token_ids == told.config.class_token_ids


def test_a_model_without_tokens_is_not_left_half_fused():
    model = tiny_model("resnet", class_token_ids=None).eval()
    modules = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match="class_token_ids"):
        model.fuse()
    assert not model.is_fused and [type(module) for module in model.modules()] == modules


# -- the head follows the names


def head(model):
    classifier = model.decode_head.classifier
    lateral = model.neck.lateral_convs[model.score_map_level].weight
    num_features = model.image_encoder.feature_sizes[model.score_map_level]
    return classifier.weight, classifier.bias, lateral[:, :num_features], lateral[:, num_features:]


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_reordered_names_give_reordered_logits(kind, tiny_tokenizer):
    model = tiny_model(kind).eval()
    pixel_values = torch.rand(1, 3, 70, 103)
    with torch.no_grad():
        before = model(pixel_values)
    order = [2, 0, *range(3, len(TINY_CLASS_NAMES)), 1]
    report = model.set_class_names([TINY_CLASS_NAMES[i] for i in order], tokenizer=tiny_tokenizer)
    with torch.no_grad():
        after = model(pixel_values)
    assert report.kept == tuple(TINY_CLASS_NAMES[i] for i in order) and report.new == () == report.dropped
    torch.testing.assert_close(after.logits, before.logits[:, order], rtol=0, atol=1e-5)
    torch.testing.assert_close(after.score_map, before.score_map[:, order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("use_language", [True, False])
def test_kept_and_new_classes_are_told_apart(use_language, tiny_tokenizer, caplog):
    model = tiny_model("resnet", use_language=use_language)
    weight, bias, features, scores = (tensor.clone() for tensor in head(model))
    names = ["zebra", TINY_CLASS_NAMES[1], "giraffe"]
    report = model.set_class_names(names, tokenizer=tiny_tokenizer)
    assert report.kept == (TINY_CLASS_NAMES[1],)
    assert report.new == ("zebra", "giraffe")
    assert set(report.dropped) == set(TINY_CLASS_NAMES) - {TINY_CLASS_NAMES[1]}
    assert "kept for" in str(report) and "'zebra', 'giraffe'" in str(report) and "Fine-tune" in str(report)

    new_weight, new_bias, new_features, new_scores = head(model)
    assert new_weight.shape[0] == len(names) and new_bias.shape[0] == len(names)
    assert torch.equal(new_weight[1], weight[1]) and torch.equal(new_bias[1], bias[1])
    assert torch.equal(new_features, features)
    if use_language:
        assert torch.equal(new_scores[:, 1], scores[:, 1])
        assert not torch.equal(new_scores[:, 0], scores[:, 0])
    assert not torch.equal(new_weight[0], weight[0])
    assert model.config.id2label == dict(enumerate(names))
    assert model.config.label2id == {name: index for index, name in enumerate(names)}
    outputs = model(torch.rand(2, 3, 64, 64), labels=torch.full((2, 64, 64), 2))
    outputs.loss.backward()
    assert outputs.logits.shape[1] == 3


def test_frozen_heads_stay_frozen(tiny_tokenizer):
    model = tiny_model("resnet").requires_grad_(False)
    model.set_class_names(["zebra", "sky"], tokenizer=tiny_tokenizer)
    assert not any(parameter.requires_grad for parameter in model.parameters())


# -- loaded with other names


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("checkpoint")
    model = tiny_model("resnet").eval()
    model.tokenizer = tiny_tokenizer
    model.save_pretrained(folder)
    return folder, model


def test_the_tokenizer_lies_beside_the_weights(checkpoint):
    folder, _ = checkpoint
    model = DenseCLIPForSemanticSegmentation.from_pretrained(folder)
    model.set_class_names(["zebra", "traffic light"])
    assert model.config.class_names == ("zebra", "traffic light")


OTHER_NAMES = {
    "same number": ["zebra", *TINY_CLASS_NAMES[1:]],
    "fewer": ["zebra", TINY_CLASS_NAMES[2]],
    "more": [*TINY_CLASS_NAMES, "zebra"],
    "same words, other order": [*TINY_CLASS_NAMES[1:], TINY_CLASS_NAMES[0]],
}
WAYS = {
    "id2label": lambda folder, names: DenseCLIPForSemanticSegmentation.from_pretrained(
        folder, id2label=dict(enumerate(names))
    ),
    "id2label with string keys": lambda folder, names: DenseCLIPForSemanticSegmentation.from_pretrained(
        folder, id2label={str(index): name for index, name in enumerate(names)}
    ),
    "config": lambda folder, names: DenseCLIPForSemanticSegmentation.from_pretrained(
        folder, config=DenseCLIPConfig.from_pretrained(folder, id2label=dict(enumerate(names)))
    ),
    "auto model": lambda folder, names: AutoModelForSemanticSegmentation.from_pretrained(
        folder, id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)}
    ),
    "auto config, then auto model": lambda folder, names: AutoModelForSemanticSegmentation.from_pretrained(
        folder, config=AutoConfig.from_pretrained(folder, id2label=dict(enumerate(names)))
    ),
}


@pytest.mark.parametrize("names", OTHER_NAMES.values(), ids=OTHER_NAMES)
@pytest.mark.parametrize("load", WAYS.values(), ids=WAYS)
@torch.no_grad()
def test_loaded_with_other_names_the_words_change_with_the_head(load, names, checkpoint, tiny_tokenizer):
    folder, original = checkpoint
    model = load(folder, names)
    assert model.config.id2label == dict(enumerate(names))
    assert model.config.class_token_ids == tokenize_class_names(names, tiny_tokenizer)
    assert model.config.label2id == {name: index for index, name in enumerate(names)}
    assert not model.training
    expected = original.encode_class_names()
    found = model.encode_class_names()
    assert found.shape[0] == model.decode_head.classifier.out_channels == len(names)
    for index, name in enumerate(names):
        if name in TINY_CLASS_NAMES:
            old = TINY_CLASS_NAMES.index(name)
            torch.testing.assert_close(found[index], expected[old], rtol=0, atol=1e-5)
            assert torch.equal(model.decode_head.classifier.weight[index], original.decode_head.classifier.weight[old])
        else:
            assert not torch.allclose(found[index], expected[index % len(expected)])


def test_names_edited_in_the_config_file_are_read(checkpoint, tmp_path):
    folder, _ = checkpoint
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["id2label"] = {"0": "zebra", "1": "giraffe"}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    model = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path)
    assert model.config.class_names == ("zebra", "giraffe")
    assert model(torch.rand(1, 3, 64, 64)).logits.shape[1] == 2


# -- renamed in the config

RENAMINGS = {
    "one": {0: "Mauer"},
    "all": dict(enumerate("abcde")),
    "permuted": dict(enumerate(TINY_CLASS_NAMES[1:] + TINY_CLASS_NAMES[:1])),
}
LOADINGS = {
    "from_pretrained": DenseCLIPForSemanticSegmentation.from_pretrained,
    "auto model": AutoModelForSemanticSegmentation.from_pretrained,
    "auto config": lambda folder: AutoModelForSemanticSegmentation.from_pretrained(
        folder, config=AutoConfig.from_pretrained(folder)
    ),
    "same id2label asked for": lambda folder: DenseCLIPForSemanticSegmentation.from_pretrained(
        folder, id2label=json.loads((folder / "config.json").read_text())["id2label"]
    ),
}


@pytest.fixture
def renamed(request, tmp_path, tiny_tokenizer):
    """A model whose `config.id2label` was edited, saved; its logits before, and the names as edited."""
    use_language, names, way = request.param
    model = tiny_model("resnet", use_language).eval()
    model.tokenizer = tiny_tokenizer if use_language else None
    pixel_values = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        logits = model(pixel_values).logits
    names = dict(enumerate(TINY_CLASS_NAMES)) | names
    if way == "entries":
        model.config.id2label.update(names)
    elif way == "attribute":
        model.config.id2label = names
    model.save_pretrained(tmp_path)
    if way == "file":
        stored = json.loads((tmp_path / "config.json").read_text())
        stored["id2label"] = {str(index): name for index, name in names.items()}
        (tmp_path / "config.json").write_text(json.dumps(stored))
    return tmp_path, pixel_values, logits, names


def renamings(ways=("entries", "attribute", "file")):
    return pytest.mark.parametrize(
        "renamed",
        [
            pytest.param((use_language, names, way), id=f"{title}-{way}-{'language' if use_language else 'plain'}")
            for title, names in RENAMINGS.items()
            for way in (ways if title == "one" else ways[:1])
            for use_language in (True, False)
        ],
        indirect=True,
    )


@renamings()
@torch.no_grad()
def test_a_renamed_class_keeps_all_its_weights(renamed, caplog):
    folder, pixel_values, logits, names = renamed
    for load in LOADINGS.values():
        model = load(folder)
        torch.testing.assert_close(model(pixel_values).logits, logits)
        assert model.config.id2label == names
        assert model.config.label2id == {name: index for index, name in names.items()}
        if model.config.use_language:
            # The text tower reads what it was trained with.
            assert model.config.class_token_ids == tiny_config("resnet").class_token_ids
    # Again, and from its config alone.
    model.save_pretrained(folder)
    again = DenseCLIPForSemanticSegmentation.from_pretrained(folder)
    torch.testing.assert_close(again(pixel_values).logits, logits)
    assert again.config.id2label == names
    assert type(again)(again.config).config.id2label == names
    assert not [record for record in caplog.records if "newly initialised" in record.getMessage()]


@renamings(ways=["entries"])
@torch.no_grad()
def test_after_a_renaming_classes_go_by_their_new_names(renamed, tiny_tokenizer):
    folder, pixel_values, logits, names = renamed
    wanted = ["zebra", names[3], names[0]]
    for model in (
        DenseCLIPForSemanticSegmentation.from_pretrained(folder, id2label=dict(enumerate(wanted))),
        DenseCLIPForSemanticSegmentation.from_pretrained(
            folder, config=AutoConfig.from_pretrained(folder, id2label=dict(enumerate(wanted)))
        ),
    ):
        assert model.config.id2label == dict(enumerate(wanted))
        original = DenseCLIPForSemanticSegmentation.from_pretrained(folder)
        weights, rows = model.decode_head.classifier.weight, original.decode_head.classifier.weight
        assert torch.equal(weights[1], rows[3]) and torch.equal(weights[2], rows[0])
        assert not any(torch.equal(weights[0], row) for row in rows)
        if model.config.use_language:
            words = ["zebra", TINY_CLASS_NAMES[3], TINY_CLASS_NAMES[0]]
            assert model.config.class_token_ids == tokenize_class_names(words, tiny_tokenizer)
            embeddings, own = model.encode_class_names(), original.encode_class_names()
            torch.testing.assert_close(embeddings[1:], own[[3, 0]])
        report = model.set_class_names(wanted)
        assert report.kept == tuple(wanted)


@torch.no_grad()
@pytest.mark.parametrize("use_language", [True, False])
@torch.no_grad()
def test_a_config_made_with_other_names_asks_for_other_classes_in_any_form(use_language, tmp_path, tiny_tokenizer):
    """What weights stand for is said by the config beside them, not by the one that is handed in."""
    model = tiny_model("resnet", use_language).eval()
    model.tokenizer = tiny_tokenizer if use_language else None
    model.save_pretrained(tmp_path / "model")
    order = [1, 0, 4, 2, 3]
    names = {index: TINY_CLASS_NAMES[row] for index, row in enumerate(order)}
    config = AutoConfig.from_pretrained(tmp_path / "model", id2label=names)
    config.save_pretrained(tmp_path / "config")
    pixel_values = torch.rand(1, 3, 64, 64)
    expected = model(pixel_values).logits[:, order]
    from_dict = DenseCLIPConfig.from_dict(config.to_dict())
    for given in (config, str(tmp_path / "config"), from_dict):
        loaded = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path / "model", config=given)
        assert tuple(loaded.config.id2label.values()) == loaded.config.class_names == tuple(names.values())
        torch.testing.assert_close(loaded(pixel_values).logits, expected, rtol=1e-4, atol=1e-5)


def test_an_edit_that_gives_two_classes_one_name_is_refused(tmp_path):
    model = tiny_model("resnet", use_language=False)
    model.config.id2label = dict(enumerate(["sky", "Sky", "a", "b", "c"]))
    with pytest.raises(ValueError, match="Classes 0 and 1 are both called"):
        model.save_pretrained(tmp_path)


def test_names_are_set_on_a_model_whose_config_was_edited(tiny_tokenizer):
    model = tiny_model("vit").eval()
    pixel_values = torch.rand(1, 3, 64, 64)
    logits = model(pixel_values).logits
    model.config.id2label[1] = "Himmel"
    report = model.set_class_names(["Himmel", "wall", "person"], tokenizer=tiny_tokenizer)
    assert report.new == () and report.dropped == ("traffic light", "right ventricle cavity")
    # The word that is read of a class finds it too, unless another class is called so.
    report = model.set_class_names(["sky", "wall"], tokenizer=tiny_tokenizer)
    assert report.kept == ("sky", "wall") and model.config.prompt_names is None
    weights = tiny_model("vit").decode_head.classifier.weight
    assert torch.equal(model.decode_head.classifier.weight, weights[[1, 0]])
    assert logits.shape[1] == 5


@pytest.mark.parametrize("edit", [{5: "zebra"}, {7: "zebra"}])
@pytest.mark.parametrize("use_language", [True, False])
def test_classes_are_not_added_by_an_edit(edit, use_language, tmp_path, tiny_tokenizer):
    model = tiny_model("resnet", use_language)
    model.config.id2label.update(edit)
    with pytest.raises(ValueError, match="6 names, the model 5 classes.*set_class_names|without a gap"):
        model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="id2label"):
        model.set_class_names(["wall"], tokenizer=tiny_tokenizer)
    assert not list(tmp_path.iterdir())


def test_same_names_are_left_alone(checkpoint):
    folder, original = checkpoint
    model = DenseCLIPForSemanticSegmentation.from_pretrained(folder, id2label=dict(enumerate(TINY_CLASS_NAMES)))
    for name, value in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_the_config_handed_in_is_not_changed(checkpoint):
    folder, _ = checkpoint
    config = DenseCLIPConfig.from_pretrained(folder, id2label={0: "zebra"})
    before = config.to_dict()
    DenseCLIPForSemanticSegmentation.from_pretrained(folder, config=config)
    assert config.to_dict() == before


def test_without_a_tokenizer_the_error_says_what_to_do(tmp_path):
    tiny_model("resnet").save_pretrained(tmp_path)
    DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="No CLIP tokenizer .* Pass `tokenizer`"):
        DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path, id2label={0: "zebra", 1: "sky"})
    with pytest.raises(ValueError, match="tokenizer="):
        tiny_model("resnet").set_class_names(["zebra"])


def test_a_config_with_tokens_of_other_names_builds_no_model():
    config = tiny_config("resnet")
    config.id2label = {index: f"other {index}" for index in config.id2label}
    with pytest.raises(ValueError, match="set_class_names"):
        DenseCLIPForSemanticSegmentation(config)


def test_gaps_in_the_ids_are_refused(checkpoint):
    folder, _ = checkpoint
    with pytest.raises(ValueError, match="without a gap"):
        DenseCLIPForSemanticSegmentation.from_pretrained(folder, id2label={0: "wall", 2: "sky"})


# ---------------------------------------------------------------------------------------------- one check at all doors


def names_of_file(names, folder):
    (folder / "classes.txt").write_text("\n".join(names), encoding="utf-8", newline="\n")
    read_class_names(folder)


def names_of_data_set(names, folder):
    (found,) = _names_in_features({"label": datasets.ClassLabel(names=list(names))}).values()
    _check_names("data", found)


def names_of_config(names, folder):
    tiny_model("resnet", use_language=False, id2label=dict(enumerate(names)))


DOORS = {
    "a model with language": lambda names, folder: tiny_model("resnet").set_class_names(names, make_tiny_tokenizer()),
    "a model without": lambda names, folder: tiny_model("resnet", use_language=False).set_class_names(names),
    "words to look for": lambda names, folder: (
        tiny_model("resnet").eval().score_text(torch.zeros(1, 3, 32, 32), names, make_tiny_tokenizer())
    ),
    "a config": names_of_config,
    "classes.txt": names_of_file,
    "a data set": names_of_data_set,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("letter", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\ufeff"])
def test_letters_that_cannot_be_seen_are_refused_at_every_door(door, letter, tmp_path):
    with pytest.raises(ValueError, match=f"holds U\\+{ord(letter):04X}, which cannot be seen") as raised:
        DOORS[door](["wall", f"sk{letter}y"], tmp_path)
    assert letter not in str(raised.value)


@pytest.mark.parametrize("door", DOORS)
def test_names_of_many_letters_are_refused_before_they_are_read(door, tmp_path):
    with pytest.raises(ValueError, match="has 1,001 letters, 'aaaaaaaaaaaaaaaaaaaa'...; 1,000 are the limit"):
        DOORS[door](["wall", "a" * 1001], tmp_path)


@pytest.mark.parametrize(
    "name", ["  sky ", "sky\t", "\u2003sky\n", "می\u200cخواهم", "\u200fשמיים", "👩\u200d🚀", "ﬁ", "名"]
)
def test_spaces_around_a_name_and_letters_that_spelling_needs_are_taken(name, tmp_path):
    """Farsi parts words by U+200C, emoji are joined by U+200D, and directions are told by U+200F."""
    assert check_class_names(["wall", name]) == ["wall", name.strip()]
    names_of_config(["wall", name], tmp_path)
    names_of_data_set(["wall", name], tmp_path)
    (tmp_path / "classes.txt").write_text(f"wall\r\n{name.strip()}\r\n", encoding="utf-8", newline="")
    assert read_class_names(tmp_path) == ["wall", name.strip()]


# ------------------------------------------------------------------------------------------- files that number classes


@pytest.mark.parametrize(
    "text",
    [
        "Pixel Value, Class\n0, land\n1, 2nd lake\n",
        "0 land\n1 2nd lake\n",
        "1: 2nd lake\n0: land\n",
        "land,0\n2nd lake,1\n",
        '{\n "0": "land",\n "1": "2nd lake"\n}\n',
        '{"land": 0, "2nd lake": 1}',
        '["land", "2nd lake"]',
        "id,name,r,g,b\n0,land,0,128,0\n1,2nd lake,0,0,255\n",
    ],
)
@pytest.mark.parametrize("file", ["classes.txt", "_classes.csv"])
def test_names_are_read_without_their_numbers(tmp_path, text, file):
    (tmp_path / file).write_text(text)
    assert read_class_names(tmp_path / file) == ["land", "2nd lake"]


@pytest.mark.parametrize(
    "names",
    [
        ["3d printer", "2 wheeler", "car"],
        ["2 wheeler", "3 wheeler"],
        ["1 storey", "2 storey"],
        ["0", "1"],
        ["type 1", "type 2"],
        ["door, double door", "wall"],
        ["Boeing 737", "Airbus 320"],
        ["void", "unknown"],
        ["label", "class"],
    ],
)
def test_numbers_that_belong_to_names_stay(tmp_path, names):
    (tmp_path / "classes.txt").write_text("\n".join(names))
    assert read_class_names(tmp_path) == names


@pytest.mark.parametrize(
    "text, words",
    [
        ("1 land\n2 lake", "numbers 2 classes from 1 to 2, and ids here count from 0 without a gap"),
        ("0: land\n255: lake", "numbers 2 classes from 0 to 255"),
        ("__ignore__\n_background_\ncat", "numbers 3 classes from -1 to 1"),
        ("land:0,128,0::\nlake:0,0,255::", "gives classes colours, which masks of ids do not have"),
        ("name,r,g,b\nland,0,128,0\nlake,0,0,255", "gives classes colours"),
        ("2 wheeler\n3 phase motor", "can be read in two ways"),
        ("0: land\n0: lake", "gives the number 0 to 'land' and, on line 2, to 'lake'"),
        ("0: land\n1: land", "names 'land' twice, again on line 2"),
        ('{"0": "land", "1": 3}', "holds '3' where a name is to stand"),
    ],
)
def test_files_that_number_otherwise_are_refused(tmp_path, text, words):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ValueError, match=f"classes.txt {words}"):
        read_class_names(tmp_path)
