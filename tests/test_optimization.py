"""Parameter groups and schedule, against those of the published code."""

import json
from pathlib import Path

import pytest
import torch

from modeling_denseclip.checkpoint_formats_denseclip import convert_denseclip_state_dict
from tests.test_model_configs import FOLDER, build_on_meta
from training.learning.optimization import (
    build_parameter_groups,
    format_parameter_table,
    freeze_image_encoder,
    freeze_text_encoder,
    published_poly,
)


FIXTURES = Path(__file__).parent / "fixtures"
GROUPS = json.loads((FIXTURES / "parameter_groups.json").read_text())
RATES = json.loads((FIXTURES / "learning_rates.json").read_text())
# Published configuration -> our architecture.
ROWS = {
    "denseclip_fpn_res50_512x512_80k": "denseclip_fpn_rn50",
    "denseclip_fpn_vit-b_640x640_80k": "denseclip_fpn_vit_b16",
    "fpn_clipres50_512x512_80k": "clip_fpn_rn50",
}


@pytest.mark.parametrize("published", ROWS)
def test_every_parameter_has_the_published_rate_and_decay(published):
    model = build_on_meta(FOLDER / f"{ROWS[published]}.json")
    # The conversion of weights knows which name is which; here it carries (multiplier, decay), three times since it
    # splits query, key and value apart.
    carried = {name: torch.tensor(values, dtype=torch.float64).repeat(3) for name, values in GROUPS[published].items()}
    expected = {name: tuple(values[:2].tolist()) for name, values in convert_denseclip_state_dict(carried).items()}

    freeze_text_encoder(model)
    groups = build_parameter_groups(model, 1.0, 1e-4, image_encoder_lr_multiplier=0.1)
    of_parameter = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    ours = {name: of_parameter.get(id(parameter), (0.0, 1e-4)) for name, parameter in model.named_parameters()}
    assert ours.keys() == expected.keys()
    for name, (multiplier, decay) in ours.items():
        # The published code holds float32 of neither; its conversion here does.
        assert (multiplier, decay) == pytest.approx(expected[name], rel=1e-6), name
    # The published text tower has the multiplier 0, and drifts; ours is frozen.
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, (multiplier, _) in expected.items() if multiplier == 0}


def test_of_a_swin_norms_and_position_biases_are_not_decayed():
    """As Swin's own repository has it: keys 'norm' and 'relative_position_bias_table', one rate for all."""
    model = build_on_meta(FOLDER / "denseclip_upernet_swin_tiny.json")
    freeze_text_encoder(model)
    groups = build_parameter_groups(model, 6e-5, 0.01, image_encoder_no_decay=["norm", "relative_position_bias_table"])
    assert [group["name"] for group in groups] == ["image_encoder", "image_encoder_no_decay", "decay", "no_decay"]
    assert {group["lr"] for group in groups} == {6e-5}
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0, 0.01, 0.0]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    undecayed = {names[id(parameter)] for parameter in groups[1]["params"]}
    backbone = model.image_encoder.backbone
    norms = [norm for norm in backbone.modules() if isinstance(norm, torch.nn.LayerNorm) and norm.weight.requires_grad]
    biases = [p for name, p in backbone.named_parameters() if "relative_position_bias_table" in name]
    assert (len(biases), len(undecayed)) == (2 + 2 + 6 + 2, 2 * len(norms) + len(biases))
    assert undecayed == {names[id(p)] for norm in norms for p in norm.parameters()} | {names[id(p)] for p in biases}
    # Each in exactly one group, and those of the context decoder as without the option.
    sorted_ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(sorted_ids) == len(set(sorted_ids)) == sum(p.requires_grad for p in model.parameters())
    assert all(names[id(parameter)].startswith("context_decoder.layers.") for parameter in groups[3]["params"])


def test_a_name_that_no_parameter_has_is_refused():
    model = build_on_meta(FOLDER / "upernet_swin_tiny.json")
    # "image_encoder" stands before all of their names, which says nothing.
    for wrong in ("layer_norm", "image_encoder"):
        with pytest.raises(ValueError, match=f"names {wrong}, which no parameter of the image encoder"):
            build_parameter_groups(model, 1.0, 1.0, image_encoder_no_decay=["norm", wrong])


@pytest.mark.parametrize(
    "row, new",
    [
        ("denseclip_fpn_rn50", ()),
        ("clip_fpn_rn50", ()),
        ("denseclip_fpn_vit_b16", ("image_encoder.pyramid.",)),
        # The attention pool of another backbone, and the norms that Transformers adds to Swin's maps.
        (
            "denseclip_upernet_swin_tiny",
            ("image_encoder.attention_pool.", "image_encoder.backbone.hidden_states_norms."),
        ),
    ],
)
def test_what_is_new_in_a_frozen_image_encoder_trains(row, new):
    model = build_on_meta(FOLDER / f"{row}.json")
    freeze_image_encoder(model)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith("image_encoder.") or name.startswith(new)), name
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all(any(name.startswith(part) for name in trained) for part in new)
    # The words of a recipe go on to fit, and the table says what is frozen.
    no_decay = ["norm", "relative_position_bias_table"] if "swin" in row else []
    table = format_parameter_table(model, build_parameter_groups(model, 1e-4, 1e-4, 0.1, no_decay))
    frozen = [line.split() for line in table.splitlines() if line.endswith("frozen             -")]
    size = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    assert [(row[0], int(row[2].replace(",", ""))) for row in frozen] == [("image_encoder", size)]


def optimizer_with(rates):
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def test_rates_are_the_published_ones_at_every_recorded_iteration():
    optimizer = optimizer_with(RATES["base_lrs"])
    schedule = published_poly(
        optimizer,
        RATES["max_iters"],
        RATES["warmup_iters"],
        RATES["power"],
        RATES["min_lr"],
        RATES["warmup_ratio"],
    )
    for iteration, expected in zip(RATES["iterations"], RATES["lrs"], strict=True):
        rates = [base * factor(iteration) for base, factor in zip(RATES["base_lrs"], schedule.lr_lambdas, strict=True)]
        assert rates == pytest.approx(expected, rel=1e-12)


def test_stepping_the_schedule_walks_along_it():
    optimizer = optimizer_with([1e-4, 1e-5])
    schedule = published_poly(optimizer, num_training_steps=10, warmup_steps=4)
    seen = []
    for _ in range(11):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert seen[0] == pytest.approx([1e-10, 1e-11])  # the warm-up starts at 1e-6 x
    assert [max(range(11), key=lambda t: seen[t][group]) for group in (0, 1)] == [4, 4]
    assert seen[10] == pytest.approx([1e-6, 1e-6])  # one minimum for all groups


def test_a_schedule_that_ends_at_zero():
    """Swin's: power 1, from 6e-5 to 0 in 160,000 steps, warmed up over 1,500."""
    (factor,) = published_poly(
        optimizer_with([6e-5]), 160_000, 1500, power=1.0, min_learning_rate=0.0, warmup_start_ratio=1e-6
    ).lr_lambdas
    rates = {step: 6e-5 * factor(step) for step in (0, 750, 1500, 80_000, 120_000, 160_000)}
    assert rates == pytest.approx(
        {
            0: 6e-11,
            750: 6e-5 * (159_250 / 160_000) * 0.5000005,
            1500: 5.94375e-5,
            80_000: 3e-5,
            120_000: 1.5e-5,
            160_000: 0,
        }
    )


def test_no_warm_up_starts_at_the_base_rate():
    optimizer = optimizer_with([1e-3])
    published_poly(optimizer, num_training_steps=5, warmup_steps=0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_group_without_a_rate_is_refused():
    with pytest.raises(ValueError, match="Freeze parameters"):
        published_poly(optimizer_with([0.0]), num_training_steps=5, warmup_steps=0)


def test_table_counts_every_parameter():
    model = build_on_meta(FOLDER / "denseclip_fpn_rn50.json")
    freeze_text_encoder(model)
    table = format_parameter_table(model, build_parameter_groups(model, 1e-4, 1e-4, 0.1))
    rows = {line.split()[0]: line.split() for line in table.splitlines()[1:]}
    assert rows["image_encoder"][1:] == ["174", rows["image_encoder"][2], "1.0e-05", "1.0e-04"]
    assert rows["no_decay"][1:] == ["18", "4,608", "1.0e-04", "0.0e+00"]
    assert rows["text_encoder"][-2:] == ["frozen", "-"]
    sizes = [int(row[2].replace(",", "")) for name, row in rows.items() if name != "total"]
    assert sum(sizes) == sum(p.numel() for p in model.parameters()) == int(rows["total"][2].replace(",", ""))
