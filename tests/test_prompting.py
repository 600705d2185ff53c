"""The three prompting modes of Table 2, against a loop over images and classes with unpadded prompts."""

import math

import pytest
import torch
from torch.nn import functional as F

from modeling_denseclip import modeling_denseclip_prompting
from modeling_denseclip.modeling_denseclip_prompting import prompt_attention_mask
from tests.test_modeling_denseclip import rough_model
from tests.tiny import TINY_CLASS_NAMES, make_tiny_tokenizer


KINDS = ("resnet", "vit")
MODES = ("language", "pre_model", "post_model")
both_kinds = pytest.mark.parametrize("kind", KINDS)


def attention(module, queries, memory, num_heads):
    """One head after the other, one query after the other."""
    query, key, value = module.q_proj(queries), module.k_proj(memory), module.v_proj(memory)
    width = query.shape[-1] // num_heads
    rows = []
    for row in query:
        parts = []
        for head in range(num_heads):
            part = slice(head * width, (head + 1) * width)
            weights = torch.softmax(key[:, part] @ row[part] / math.sqrt(width), dim=0)
            parts.append(weights @ value[:, part])
        rows.append(torch.cat(parts))
    return module.out_proj(torch.stack(rows))


def decode(decoder, queries, visual):
    """The context decoder on one image, in evaluation mode: (queries, width), (1 + cells, C) -> (queries, width)."""
    num_heads = decoder.config.context_decoder_num_attention_heads
    memory = decoder.memory_norm_out(decoder.memory_proj(decoder.memory_norm_in(visual)))
    states = decoder.text_proj(decoder.text_norm(queries))
    for layer in decoder.layers:
        normed = layer.self_attention_norm(states)
        states = states + attention(layer.self_attention, normed, normed, num_heads)
        states = states + attention(layer.cross_attention, layer.cross_attention_norm(states), memory, num_heads)
        states = states + layer.fc2(F.gelu(layer.fc1(layer.mlp_norm(states))))
    return decoder.out_proj(decoder.out_norm(states))


def read(model, contexts, token_ids):
    """One prompt alone, [start, contexts, name, end], through the text tower: (C,)."""
    text, embeddings = model.text_encoder, model.text_encoder.embeddings
    tokens = embeddings.token_embedding(torch.tensor(token_ids))
    states = torch.cat([tokens[:1], contexts, tokens[1:]])
    states = (states + embeddings.position_embedding.weight[: len(states)])[None]
    mask = torch.full((len(states[0]), len(states[0])), -torch.inf).triu(1)[None, None]
    for layer in text.encoder.layers:
        states = layer(states, mask)
    return model.text_projection(text.final_layer_norm(states[0, -1]))


def embed(model, image_outputs, image):
    """Class embeddings of one image of a batch, from the definition of each mode: (K, C)."""
    pixels = image_outputs.pixel_embeddings[image].flatten(1).T
    visual = torch.cat([image_outputs.global_embedding[image][None], pixels])
    contexts = model.prompts.contexts[0]
    if model.config.prompting_mode == "pre_model":
        contexts = decode(model.context_decoder, contexts, visual)
    texts = torch.stack([read(model, contexts, token_ids) for token_ids in model.config.class_token_ids])
    if model.config.prompting_mode == "post_model":
        texts = texts + model.context_decoder.gamma * decode(model.context_decoder, texts, visual)
    return texts


@both_kinds
@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_class_embeddings_and_score_map_are_those_of_a_plain_loop(kind, mode):
    model = rough_model(kind, prompting_mode=mode).eval()
    pixel_values = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    outputs, image_outputs = model(pixel_values), model.image_encoder(pixel_values)
    for image in range(2):
        texts = embed(model, image_outputs, image)
        torch.testing.assert_close(outputs.text_embeddings[image], texts, rtol=1e-4, atol=1e-4)
        for k, text in enumerate(texts):
            cosine = F.cosine_similarity(image_outputs.pixel_embeddings[image], text[:, None, None], dim=0)
            torch.testing.assert_close(outputs.score_map[image, k], cosine, rtol=1e-4, atol=1e-5)


@both_kinds
@torch.no_grad()
def test_contexts_may_stand_after_the_name_in_pre_model_prompting(kind):
    """The contexts then belong to no shared prefix, and stand in every prompt."""
    model = rough_model(kind, prompting_mode="pre_model", context_position="after_name").eval()
    pixel_values = torch.rand(2, 3, 64, 64)
    together = model(pixel_values).text_embeddings
    for image in range(2):
        alone = model(pixel_values[image : image + 1]).text_embeddings[0]
        torch.testing.assert_close(together[image], alone, rtol=1e-4, atol=1e-5)
    before = rough_model(kind, prompting_mode="pre_model").eval()(pixel_values).text_embeddings
    assert (together - before).abs().max() > 1e-3


@both_kinds
@torch.no_grad()
def test_what_the_class_embeddings_know_of_the_image(kind):
    pixel_values = torch.rand(2, 3, 64, 64)
    for mode in MODES:
        first, second = rough_model(kind, prompting_mode=mode).eval()(pixel_values).text_embeddings
        assert torch.equal(first, second) == (mode == "language"), mode


@both_kinds
def test_text_tower_runs_once_per_image_in_pre_model_prompting_and_once_at_all_otherwise(kind):
    """One packed pass for a batch: its rows are the images, and no class is a row."""
    batches = {}
    for mode in MODES:
        model = rough_model(kind, prompting_mode=mode).eval()
        seen = batches.setdefault(mode, [])
        # A hook on the tower would keep its result from being kept; this is called beside it.
        encode = model.encode_prompts
        model.encode_prompts = lambda contexts, layout, seen=seen, encode=encode: (
            seen.append(contexts.shape[0]) or encode(contexts, layout)
        )
        with torch.no_grad():
            for _ in range(3):
                model(torch.rand(2, 3, 64, 64))
    assert batches == {"language": [1], "pre_model": [2, 2, 2], "post_model": [1]}


@both_kinds
@pytest.mark.parametrize("mode", MODES)
def test_every_part_of_the_prompts_learns(kind, mode):
    model = rough_model(kind, prompting_mode=mode).train()
    labels = torch.randint(0, len(TINY_CLASS_NAMES), (2, 64, 64))
    model(torch.rand(2, 3, 64, 64), labels=labels).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert ("context_decoder" in names) == (mode != "language")
    assert (hasattr(model, "context_decoder") and model.context_decoder.gamma is not None) == (mode == "post_model")


@both_kinds
@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_new_names_are_read_in_every_mode(kind, mode):
    model = rough_model(kind, prompting_mode=mode).eval()
    pixel_values = torch.rand(2, 3, 64, 64)
    before = model(pixel_values)
    order = [3, 0, 4, 1, 2]
    model.set_class_names([TINY_CLASS_NAMES[index] for index in order], make_tiny_tokenizer())
    after = model(pixel_values)
    torch.testing.assert_close(after.score_map, before.score_map[:, order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.logits, before.logits[:, order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "fields", [{}, {"prompting_mode": "pre_model"}, {"prompting_mode": "pre_model", "context_position": "after_name"}]
)
@pytest.mark.parametrize(("positions", "sequences"), [(1, 5), (3, 4), (8, 2), (1000, 1)])
def test_prompts_of_many_classes_are_read_in_several_sequences(fields, positions, sequences, monkeypatch):
    """Against all as one sequence, which the plain loop above is the measure of; gradients too."""
    pixel_values = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    results = []
    for bound in (10**9, positions):
        monkeypatch.setattr(modeling_denseclip_prompting, "POSITIONS_PER_SEQUENCE", bound)
        model = rough_model("resnet", **fields).eval()
        norm, runs = model.text_encoder.final_layer_norm, []
        norm.register_forward_hook(lambda module, args, output, runs=runs: runs.append(output.shape[1]))
        outputs = model(pixel_values)
        outputs.score_map.square().sum().backward()
        results.append((outputs.text_embeddings, outputs.score_map, model.prompts.contexts.grad))
    if fields.get("context_position") is None:  # five names of 1, 1, 2, 3 and 1 words, each with an end token
        assert len(runs) == sequences
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mask_lets_a_position_see_the_prefix_and_its_own_class_up_to_itself(dtype):
    class_index = torch.tensor([-1, -1, 0, 0, 1, 1])
    mask = prompt_attention_mask(class_index, dtype)
    lowest = torch.finfo(dtype).min
    for position, seen in enumerate([[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [0, 1, 4, 5]]):
        assert mask[0, 0, position].tolist() == [0.0 if other in seen else lowest for other in range(6)]
    assert mask.dtype == dtype and mask.shape == (1, 1, 6, 6)
    # Padding, which nothing sees, has something to see: a softmax over nothing is NaN.
    padded = prompt_attention_mask(torch.tensor([-1, 0, -2, -2]), dtype)
    assert (padded[0, 0] == 0).tolist() == [[j in seen for j in range(4)] for seen in ([0], [0, 1], [0, 2], [0, 2, 3])]
    assert prompt_attention_mask(class_index.to("meta"), dtype).device.type == "meta"


def test_unknown_mode_is_refused():
    with pytest.raises(Exception, match="prompting_mode"):
        rough_model("resnet", prompting_mode="mid_model")
