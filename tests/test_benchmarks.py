"""The plain DenseCLIP that ours is measured against computes the same, and does what makes it plain."""

import pytest
import torch

from benchmarks.plain import TEXT_LENGTH, PlainDenseCLIP
from tests.test_modeling_denseclip import rough_model
from tests.tiny import tiny_config


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
