"""Feature maps and logits show the whole picture, and each thing where it is, at any size."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modeling_denseclip import average_probabilities
from tests.tiny import TINY_CLASS_NAMES, tiny_model


VIT = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2), "window_size": 2}
# Each with the side of a cell of its coarsest map: of a ViT two patches.
ENCODERS = {
    "resnet": (None, 32),
    "vit-14": (VIT | {"patch_size": 14, "image_size": 56}, 28),
    "vit-16": (VIT | {"patch_size": 16, "image_size": 64}, 32),
    "vit-32": (VIT | {"patch_size": 32, "image_size": 64}, 64),
    "dinov2-14": (VIT | {"model_type": "dinov2", "patch_size": 14, "image_size": 56}, 28),
    "dinov2-12": (VIT | {"model_type": "dinov2", "patch_size": 12, "image_size": 48}, 24),
    "swin": (SWIN, 32),
}
# Heights and widths around multiples of 28, 32 and 64, odd and even.
SIZES = [(64, 65), (97, 200), (124, 250), (131, 113)]
all_encoders = pytest.mark.parametrize("encoder", ENCODERS)


def model_on(encoder: str, **fields):
    vision_config, _ = ENCODERS[encoder]
    kind = "vit" if encoder.startswith("vit") else "resnet"
    fields = fields if vision_config is None else fields | {"vision_config": vision_config}
    return tiny_model(kind, **fields).eval()


def draw(height: int, width: int) -> torch.Tensor:
    """
    The same scene of waves, drawn at any size: a pixel has the value at its centre, so nothing is resized. Six waves
    a colour, none shorter than a sixth of the picture.
    """
    generator = np.random.default_rng(0)
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    picture = np.zeros((3, height, width))
    for color in picture:
        for up, along, phase in generator.uniform(0, (6, 6, 2 * np.pi), (6, 3)):
            color += np.cos(2 * np.pi * (up * rows[:, None] + along * columns) + phase) / 2
    return torch.tensor(picture, dtype=torch.float32)[None]


def distance(maps: torch.Tensor, others: torch.Tensor) -> float:
    """Of two maps of one picture, relative to what is in them. Maps of pictures that are a cell apart have about 1."""
    maps = F.interpolate(maps, size=others.shape[-2:], mode="bilinear", align_corners=False)
    return ((maps - others).norm() / (others - others.mean(dim=(2, 3), keepdim=True)).norm()).item()


@all_encoders
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_a_scene_has_the_same_maps_at_any_size(encoder, size):
    """Drawn at a size off the grid, and at the next size on it."""
    model, cell = model_on(encoder), ENCODERS[encoder][1]
    scene, on_grid = draw(*size), draw(*(math.ceil(side / cell) * cell for side in size))
    assert distance(model(scene).logits, model(on_grid).logits) < 0.1
    maps = zip(model.image_encoder(scene).feature_maps, model.image_encoder(on_grid).feature_maps, strict=True)
    assert max(distance(*pair) for pair in maps) < 0.1


@pytest.mark.parametrize("encoder", ["resnet", "vit-14", "vit-16"])
@torch.no_grad()
def test_the_published_way_shifts_maps(encoder):
    """What the test above would have found, and that the field reaches it."""
    cell = ENCODERS[encoder][1]
    scene, on_grid = draw(97, 200), draw(math.ceil(97 / cell) * cell, math.ceil(200 / cell) * cell)
    model = model_on(encoder, fit_to_grid=False)
    assert distance(model(scene).logits, model(on_grid).logits) > 0.5


@all_encoders
@torch.no_grad()
def test_multi_scale_testing_shows_things_where_they_are(encoder):
    """Copies of sizes off the grid, each mirrored too, against copies that were drawn on it."""
    model, cell = model_on(encoder), ENCODERS[encoder][1]
    sizes = [(97, 200), (131, 270)]
    on_grid = [tuple(math.ceil(side / cell) * cell for side in size) for size in sizes]
    found, expected = (
        average_probabilities(model, (draw(*size) for size in copies), target_size=(128, 256))
        for copies in (sizes, on_grid)
    )
    assert distance(found, expected) < 0.1


@all_encoders
@torch.no_grad()
def test_windows_show_things_where_they_are(encoder):
    model, cell = model_on(encoder, use_language=False), ENCODERS[encoder][1]
    height, width = 4 * cell, 6 * cell
    window = {"inference_mode": "slide", "window_size": (height - 3, width - 5), "window_stride": (height // 2,) * 2}
    whole, slid = model(draw(height, width)).logits, model(draw(height, width), **window).logits
    assert slid.shape[-2:] == (height, width)
    # Windows see less around them, so logits differ somewhat; more so where they are moved by four rows or columns.
    moved = [distance(slid.roll(shift, dims=dim), whole) for dim in (2, 3) for shift in (-4, 4)]
    assert distance(slid, whole) < min(moved)


def blind_rows_and_columns(model, pixel_values: torch.Tensor, **kwargs) -> list[str]:
    pixel_values = pixel_values.clone().requires_grad_()
    logits = model(pixel_values, **kwargs).logits
    # Not their plain sum, of which a norm may leave nothing.
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    rows, columns = pixel_values.grad.abs().sum(dim=(0, 1, 3)), pixel_values.grad.abs().sum(dim=(0, 1, 2))
    blind = [f"row {row}" for row in (rows == 0).nonzero().flatten().tolist()]
    return blind + [f"column {column}" for column in (columns == 0).nonzero().flatten().tolist()]


@all_encoders
@pytest.mark.parametrize("extra", [(0, 1), (1, 17), (31, 13)])
def test_each_row_and_column_counts(encoder, extra):
    model, cell = model_on(encoder, use_language=False), ENCODERS[encoder][1]
    size = (cell + extra[0], 2 * cell + extra[1])
    pixel_values = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    assert not blind_rows_and_columns(model, pixel_values)
    window = (cell + 1, cell + 5)
    assert not blind_rows_and_columns(
        model, pixel_values, inference_mode="slide", window_size=window, window_stride=window
    )


@pytest.mark.parametrize("size", [(200, 300), (64, 200), (40, 70)])
def test_each_row_and_column_counts_where_a_backbone_takes_one_size(size):
    vision_config = {
        **{"model_type": "hiera", "embed_dim": 8, "image_size": [64, 96], "depths": [1, 1, 1, 1]},
        "num_heads": [1, 1, 2, 2],
    }
    model = tiny_model("resnet", use_language=False, vision_config=vision_config).eval()
    assert model.image_encoder.layout.input_size == (64, 96)
    pixel_values = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    assert not blind_rows_and_columns(model, pixel_values)


@pytest.mark.parametrize("encoder", ["vit-14", "vit-16"])
def test_the_published_way_does_not_see_all(encoder):
    model, cell = model_on(encoder, use_language=False, fit_to_grid=False), ENCODERS[encoder][1]
    blind = blind_rows_and_columns(model, torch.randn(1, 3, cell, 2 * cell + 13))
    assert f"column {2 * cell + 12}" in blind and f"column {2 * cell - 1}" not in blind


@all_encoders
@pytest.mark.parametrize("fit_to_grid", [True, False])
def test_the_least_size_is_one_cell_of_the_coarsest_map(encoder, fit_to_grid):
    model, cell = model_on(encoder, fit_to_grid=fit_to_grid), ENCODERS[encoder][1]
    assert model.min_image_size == cell
    labels = torch.zeros(2, cell, cell + 1, dtype=torch.long)
    assert model(torch.randn(2, 3, cell, cell + 1), labels=labels).loss.isfinite()
    with pytest.raises(
        ValueError, match=f"{cell - 1} x {cell} pixels; both sides must have at least {cell}, one cell"
    ):
        model(torch.randn(1, 3, cell - 1, cell))
    with pytest.raises(ValueError, match=f"windows at least {cell} pixels"):
        model(torch.randn(1, 3, 128, 128), inference_mode="slide", window_size=cell - 1, window_stride=8)


@all_encoders
def test_training_reads_labels_where_the_picture_has_them(encoder):
    """The loss of logits that are brought to labels of the picture's own size, off the grid, by a plain formula."""
    model = model_on(encoder, use_language=False)
    labels = torch.randint(0, len(TINY_CLASS_NAMES), (1, 97, 131), generator=torch.Generator().manual_seed(0))
    outputs = model(draw(97, 131), labels=labels)
    resized = F.interpolate(outputs.logits, size=(97, 131), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(resized.double(), labels)
    assert outputs.loss.item() == pytest.approx(expected.item(), rel=1e-5)
