"""Counts of `python -m training.complexity`: beside sums by hand, beside fvcore, and beside the published figures."""

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from modeling_denseclip import DenseCLIPForSemanticSegmentation
from modeling_denseclip.tools.insight.complexity import (
    BETWEEN_PARTS,
    CONVOLUTION,
    LINEAR,
    MATCHING,
    NORMALIZATION,
    RESIZING,
    TEXT_TOWER,
    measure,
)
from tests.test_model_configs import FILES, FOLDER
from tests.tiny import TINY_CLASS_NAMES, tiny_config, tiny_model
from training.complexity import main
from training.options.recipes import load_recipe
from training.publishing.complexity import ADE20K_NAME_TOKENS, ADE20K_NUM_LABELS, read_config


RECIPES = FOLDER.parent / "recipes" / "ade20k"
NUM_LABELS = 150
# GFLOPs of the published code at 1024 x 1024, by fvcore 0.1.5, without the text tower. Products of fused attention are
# not in: the image encoder's. The context decoder's are, which are written as einsum there.
PUBLISHED_GFLOPS = {
    "clip_fpn_rn50": 248.83,
    "denseclip_fpn_rn50": 265.52,
    "clip_fpn_rn101": 326.62,
    "denseclip_fpn_rn101": 341.99,
    "clip_fpn_vit_b16": 554.07,
    "denseclip_fpn_vit_b16": 559.77,
}
# The published model resizes its logits to the image (4 per pixel), and fvcore counts nearest resizing (1 per pixel):
# the top-down steps of the neck, to strides 16, 8 and 4.
FINAL_RESIZE = 4 * NUM_LABELS * 1024**2
NEAREST = 256 * (64**2 + 128**2 + 256**2)
# Two products of all cells with all cells: 32 x 32 and their mean, 2048 channels; 64 x 64 and a class token.
POOL_PRODUCTS = 2 * (32**2 + 1) ** 2 * 2048
VIT_PRODUCTS = 12 * 2 * (64**2 + 1) ** 2 * 768
# Transposed 2 x 2 convolutions of 768 to 768 channels, each input cell once with all weights; the second of two sees
# four times as many cells.
TRANSPOSED = (64**2 + 128**2 + 64**2) * 768 * 768 * 2 * 2


@lru_cache
def measure_file(stem: str, size: tuple[int, int] = (1024, 1024)):
    return measure(read_config(FOLDER / f"{stem}.json"), size)


def test_vit_counts_are_the_sums_of_its_layers():
    """Every term by hand: 64 x 96 pixels, so a grid of 4 x 6."""
    config = tiny_config("vit")
    width, mlp, layers, joint, decoder, neck = 32, 64, 4, 32, 32, 16
    labels = len(TINY_CLASS_NAMES)
    cells, tokens = 4 * 6, 4 * 6 + 1
    grids = [16 * 24, 8 * 12, 4 * 6, 2 * 3]  # strides 4, 8, 16, 32
    expected = {
        "image_encoder.vision_model": {
            CONVOLUTION: cells * 3 * 16 * 16 * width,
            LINEAR: layers * tokens * (4 * width * width + 2 * width * mlp),
            MATCHING: layers * 2 * tokens**2 * width,
            NORMALIZATION: 5 * tokens * width * (1 + 2 * layers + 1),
            RESIZING: 4 * cells * width,  # position embeddings
        },
        "image_encoder.pyramid": {
            CONVOLUTION: 4 * width * width * (cells + 4 * cells + cells),
            NORMALIZATION: 4 * 5 * cells * width + 2 * 4 * cells * width,
        },
        "image_encoder.visual_projection": {LINEAR: tokens * width * joint},
        "context_decoder": {
            LINEAR: (tokens + labels) * joint * decoder
            + 2 * (4 * labels + 2 * labels + 2 * tokens + 2 * 4 * labels) * decoder**2
            + labels * decoder * joint,
            MATCHING: 2 * 2 * (labels * labels + labels * tokens) * decoder,
            NORMALIZATION: 5 * (tokens * (joint + decoder) + labels * joint + (2 * 3 + 1) * labels * decoder),
        },
        "neck": {
            CONVOLUTION: sum(grids) * width * neck + grids[2] * labels * neck + sum(grids) * 9 * neck * neck,
        },
        "decode_head": {
            CONVOLUTION: (grids[0] + grids[1] + sum(grids[1:3]) + sum(grids[1:4])) * 9 * neck * neck
            + grids[0] * neck * labels,
            NORMALIZATION: 2 * (grids[0] + grids[1] + sum(grids[1:3]) + sum(grids[1:4])) * neck,
            # Each step doubles, and each level is then brought to the size of the first once more.
            RESIZING: 4 * neck * (grids[0] + sum(grids[:2]) + sum(grids[:3]) + 3 * grids[0]),
        },
        BETWEEN_PARTS: {MATCHING: labels * joint * cells},
    }
    complexity = measure(config, (64, 96))
    counts = {name: dict(part.flops) for name, part in complexity.parts.items() if part.flops}
    for name in TEXT_TOWER:
        counts.pop(name)
    assert counts == expected
    assert complexity.flops == sum(sum(kinds.values()) for kinds in expected.values())

    parameters = {name: parameter.numel() for name, parameter in tiny_model("vit").named_parameters()}
    assert complexity.parameters + complexity.text_parameters == sum(parameters.values())
    assert complexity.text_parameters == sum(
        count for name, count in parameters.items() if name.startswith(("text_encoder.", "text_projection."))
    )


class Segmenter(nn.Module):
    def __init__(self, model: DenseCLIPForSemanticSegmentation):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values, inference_mode="whole").logits


def count_attention(inputs, outputs) -> dict[str, int]:
    """What fvcore does not have: query with key, then weights with value."""
    (*batch, queries, width), (*_, keys, _) = (value.type().sizes() for value in inputs[:2])
    return {"attention": 2 * torch.Size(batch).numel() * queries * keys * width}


@pytest.mark.parametrize("stem", [stem for stem in PUBLISHED_GFLOPS if "rn101" not in stem])
def test_counts_are_those_of_fvcore(stem):
    """The same model, traced by fvcore while it computes."""
    config = read_config(FOLDER / f"{stem}.json")
    with torch.device("meta"):
        model = DenseCLIPForSemanticSegmentation(config).eval()
    complexity = measure(config, (64, 96))

    model = model.to_empty(device="cpu")
    if config.use_language:
        model.prompts.pack(config.class_names, config.class_token_ids)
    analysis = FlopCountAnalysis(Segmenter(model), torch.zeros(1, 3, 64, 96))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.set_op_handle("aten::scaled_dot_product_attention", count_attention)
    with torch.no_grad():
        counts = analysis.by_operator()
    ours = sum((part.flops for part in complexity.parts.values()), start=type(counts)())
    assert ours[CONVOLUTION] == counts["conv"]
    assert ours[LINEAR] == counts["linear"]
    assert ours[MATCHING] == counts["attention"] + counts["matmul"]
    assert ours[NORMALIZATION] == counts["batch_norm"] + counts["layer_norm"] + counts["group_norm"]
    # In a trace the input is resized in any case, here to its own size.
    resized_input = 4 * 3 * 64 * 96
    assert ours[RESIZING] == counts["upsample_bilinear2d"] - resized_input
    assert ours.total() == counts.total() - counts["upsample_nearest2d"] - resized_input


@pytest.mark.parametrize("stem", PUBLISHED_GFLOPS)
def test_published_figures_differ_by_known_terms(stem):
    flops = measure_file(stem).flops
    fused = VIT_PRODUCTS if "vit" in stem else POOL_PRODUCTS if stem.startswith("denseclip") else 0
    published = flops - fused + FINAL_RESIZE + NEAREST
    assert published / 1e9 == pytest.approx(PUBLISHED_GFLOPS[stem], abs=0.006)

    paper = load_recipe(RECIPES / f"{stem}.yaml").paper["gflops"]
    if "vit" in stem:
        # fvcore before 2022 multiplied by the output's cells, which are four times the input's.
        assert (flops + 3 * TRANSPOSED + FINAL_RESIZE + NEAREST) / 1e9 == pytest.approx(paper, abs=0.05)
    else:
        assert flops / 1e9 == pytest.approx(paper, rel=0.005)
        assert flops / 1e9 == pytest.approx(PUBLISHED_GFLOPS[stem] + fused / 1e9, rel=0.005)


def test_text_tower_is_packed():
    """12 layers of width 512 over 9 shared positions, all name tokens, and 150 end tokens."""
    names = json.loads((Path(__file__).parent / "fixtures" / "ade20k.json").read_text())["token_ids"]
    assert sum(sum(token > 0 for token in ids) - 2 for ids in names) == ADE20K_NAME_TOKENS
    assert len(names) == ADE20K_NUM_LABELS
    positions = 9 + ADE20K_NAME_TOKENS + 150
    complexity = measure_file("denseclip_fpn_rn50", (64, 64))
    assert complexity.parts["text_encoder"].flops == {
        LINEAR: positions * 12 * 12 * 512**2,
        MATCHING: 12 * 2 * positions**2 * 512,
        NORMALIZATION: 5 * 512 * (24 * positions + 150),
    }
    assert complexity.parts["text_projection"].flops == {LINEAR: 150 * 512 * 1024}
    # The published tower: 13 positions for each class, all through the last norm, and attention that fvcore overlooks.
    published = 150 * (13 * 12 * 12 * 512**2 + 5 * 512 * 13 * 25 + 512 * 1024)
    assert published / 1e9 == pytest.approx(73.8, abs=0.05)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_architecture_is_counted_whole(path):
    config = read_config(path)
    complexity = measure_file(path.stem)
    assert config.num_labels == NUM_LABELS
    text = sum(complexity.parts[name].flops.total() for name in TEXT_TOWER) if config.use_language else 0
    assert (text > 0) == config.use_language
    # With pre-model prompting the text tower reads the image, and cannot have run before.
    is_pre_model = path.stem.startswith("denseclip_pre_model")
    assert complexity.flops_with_text - complexity.flops == (0 if is_pre_model else text)
    products = ("mm", "matmul", "conv", "linear", "einsum", "attention", "dot", "mv", "bilinear")
    assert not [name for name in complexity.uncounted if any(word in name for word in products)]
    # All work belongs to a part, but for the score map and the resizing of maps to one another.
    assert complexity.parts[BETWEEN_PARTS].flops.keys() <= {MATCHING, RESIZING}
    assert min(complexity.parts[BETWEEN_PARTS].flops.values(), default=0) >= 0


def test_command_prints_our_values_beside_the_papers(capsys):
    main([str(FOLDER / "clip_fpn_rn50.json"), str(FOLDER / "denseclip_fpn_small.json"), "--size", "64", "96"])
    lines = capsys.readouterr().out.splitlines()
    paper = load_recipe(RECIPES / "clip_fpn_rn50.yaml").paper
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[:4] == ["clip_fpn_rn50", "31.043", str(paper["parameters_millions"]), "-"]
    assert (cells[5], cells[6]) == (str(paper["gflops"]), "-")
    assert [cell.strip() for cell in lines[3].strip("|").split("|")][2] == "-"
    assert any("64 x 96" in line for line in lines)
    assert any(line.startswith("Counted as 0") and "avg_pool2d" in line for line in lines)


def test_breakdown_adds_up(capsys):
    main([str(FOLDER / "denseclip_fpn_vit_b16.json"), "--by_module"])
    tables = capsys.readouterr().out.split("\n\n")
    total = float(tables[0].splitlines()[2].split("|")[-2])
    title, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in tables[3].splitlines())
    values = {row[0]: dict(zip(title[1:], map(float, row[1:]), strict=True)) for row in rows}
    assert sum(row["GFLOPs"] for row in values.values()) == pytest.approx(total, abs=0.01)
    assert values["image_encoder.pyramid"][CONVOLUTION] == pytest.approx(TRANSPOSED / 1e9, abs=0.001)
    assert values["image_encoder.vision_model"][MATCHING] == pytest.approx(VIT_PRODUCTS / 1e9, abs=0.001)


def test_checkpoint_counts_with_its_own_classes(tmp_path, capsys):
    tiny_model("resnet").save_pretrained(tmp_path / "mine")
    config = read_config(tmp_path / "mine")
    assert config.class_names == TINY_CLASS_NAMES
    assert config.class_token_ids == tiny_config("resnet").class_token_ids
    assert read_config(tmp_path / "mine" / "config.json", num_labels=7).num_labels == 7
    main([str(tmp_path / "mine"), str(tmp_path / "mine" / "config.json"), "--size", "64", "64"])
    assert capsys.readouterr().out.count("| mine |") == 2


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (None, [], "does not exist"),
        ("{", [], "is no valid JSON"),
        ("[]", [], "holds a list; it is a mapping of fields to values"),
        ('{"model_type": "segformer"}', [], "is not the config of a DenseCLIP"),
        ('{"use_langauge": true}', [], "use_langauge"),
        ('{"use_language": "yes"}', [], "use_language"),
        ("{}", ["--size", "16", "64"], "too small"),
    ],
)
def test_bad_input_is_said_in_one_line(tmp_path, content, words, message):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        main([str(path), *words])
    assert "\n" not in str(error.value)
