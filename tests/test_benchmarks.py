"""What is measured is what it is said to be. Times themselves no test measures."""

import itertools
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPSegConfig

from benchmarks import gpu, growth, peers
from benchmarks.plain import TEXT_LENGTH, PlainDenseCLIP
from benchmarks.speed import Rate, alternate, multiply_adds
from tests.test_modeling_denseclip import rough_model
from tests.tiny import tiny_config, tiny_model


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@torch.no_grad()
def test_plain_model_gives_the_same(kind):
    # A name of four pieces is an error in the published code.
    names = {"id2label": {0: "wall", 1: "sky", 2: "traffic light"}, "class_token_ids": None}
    config = tiny_config(kind)
    names["class_token_ids"] = config.class_token_ids[:3]
    ours = rough_model(kind, **names).eval()
    plain = PlainDenseCLIP(tiny_config(kind, **names)).eval()
    plain.load_state_dict(ours.state_dict())
    seen = []
    first = plain.text_encoder.encoder.layers[0]
    first.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    pixel_values = torch.rand(2, 3, 96, 160)
    expected = ours(pixel_values)
    for _ in range(2):
        outputs = plain(pixel_values)
        for key, value in expected.items():
            torch.testing.assert_close(outputs[key], value, rtol=1e-4, atol=1e-4 * value.std().item())
    assert seen == [(3, TEXT_LENGTH, 32)] * 2  # padded prompts, in each call
    assert {module.config._attn_implementation for module in plain.modules() if hasattr(module, "config")} == {"eager"}

    windows = {"inference_mode": "slide", "window_size": 64, "window_stride": 48}
    logits = ours(pixel_values, **windows).logits
    seen.clear()
    torch.testing.assert_close(
        plain(pixel_values, **windows).logits, logits, rtol=1e-4, atol=1e-4 * logits.std().item()
    )
    assert len(seen) == 2 * 3  # one window after the other


def make_clock(*durations: float):
    """A clock by which the calls that it times take so many seconds, one after the other, and then a second each."""
    now, steps = 0.0, itertools.chain(durations, itertools.repeat(1.0))
    starts = itertools.cycle((True, False))

    def clock() -> float:
        nonlocal now
        now += 0.0 if next(starts) else next(steps)
        return now

    return clock


def test_the_rate_is_the_best_of_all_that_was_seen():
    # Four things are timed in each look: products of 128^3 and of 256 x 64 x 64, convolutions of 64 channels on 8 x 8
    # and of 256 channels on 2 x 2.
    rate = Rate(size=128, clock=make_clock(1, 1, 1, 1, 1, 1, 0.5, 1, 2, 2, 2, 2))
    assert rate.best == 9 * 64 * 64 * 8 * 8
    rate.look()
    assert rate.best == 2 * 9 * 64 * 64 * 8 * 8
    rate.look()
    assert rate.best == 2 * 9 * 64 * 64 * 8 * 8


def test_the_rate_is_measured_before_each_turn():
    calls = []

    class Looks:
        look = partial(calls.append, "rate")

    alternate(partial(calls.append, "plain"), partial(calls.append, "ours"), 2, rate=Looks())
    assert calls == ["plain", "ours", *["rate", "plain", "rate", "ours"], *["rate", "ours", "rate", "plain"]]


@torch.no_grad()
def test_a_floor_counts_what_a_fused_model_multiplies():
    model = tiny_model("vit").eval().fuse()
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 96, 160))
    assert multiply_adds(tiny_config("vit"), (96, 160)) == counter.get_total_flops() // 2


def test_growth_is_the_exponent(monkeypatch, capsys):
    runs = {size: partial(lambda seconds: seconds, 3 * size**1.3) for size in (1, 2, 4, 8)}
    monkeypatch.setitem(growth.ROWS, "windows", ("what", lambda folder: runs))
    growth.main(["windows", "--rounds", "1"])
    assert "| what | 1, 2, 4, 8 | 3, 7.39, 18.2, 44.8 | 1.30 | no |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "key, parameters, multiply_adds",
    [
        ("segformer", 27.5, 62.4),  # SegFormer, table 1
        # Swin Transformer, table 3: 60 M with an auxiliary head, of 9 x 384 x 256 + 2 x 256 + 257 x 150; 945 G for
        # 512 x 2048 pixels.
        ("upernet", 60 - 0.9, 945 / 4),
    ],
)
def test_peers_have_the_published_size(key, parameters, multiply_adds):
    ours = peers.CONTESTANTS[key].measure_size()
    assert ours == pytest.approx((parameters, multiply_adds), rel=0.005)


@torch.no_grad()
def test_clipseg_of_words_is_transformers_own_call_for_each_word():
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPSegConfig(
        text_config={**layers, "vocab_size": 20, "bos_token_id": 18, "eos_token_id": 19},
        vision_config={**layers, "image_size": 32, "patch_size": 8},
        projection_dim=16,
        extract_layers=(0, 1),
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    torch.manual_seed(0)
    model = peers.CLIPSegOfWords(config).eval()
    token_ids = torch.tensor([[18, 3, 19, 19], [18, 4, 5, 19], [18, 6, 19, 19]])
    pixel_values = torch.rand(1, 3, 48, 48)
    model.read_words(token_ids)
    expected = super(peers.CLIPSegOfWords, model).forward(token_ids, pixel_values.expand(3, -1, -1, -1)).logits
    torch.testing.assert_close(model(pixel_values), expected[None])
    assert (expected[0] - expected[1]).abs().max() > 1e-3


def test_a_table_for_a_gpu_is_made_without_one(capsys):
    gpu.main(["--smoke", "--tables", "ids"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|") and "---" not in line]
    assert [row.split(" | ")[0] for row in rows] == [
        "| Class ids of a batch",
        "| denseclip_fpn_small, segment_classes, 2 x 64 x 64",
        "| denseclip_fpn_small, post_process, 2 x 64 x 64",
        "| denseclip_fpn_small, segment_classes, 2 x 96 x 128",
        "| denseclip_fpn_small, post_process, 2 x 96 x 128",
    ]
