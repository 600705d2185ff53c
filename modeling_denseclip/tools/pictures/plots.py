# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Figures of Matplotlib: the image under its classes, and score maps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .drawing import HEAT_OPACITY, choose_palette, draw_overlay, gather_unnamed, legend_rows, printable


if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_segmentation(
    image: "Image.Image | np.ndarray | torch.Tensor",
    segmentation: "Image.Image | np.ndarray | torch.Tensor",
    id2label: Mapping[int, str],
    palette: Sequence[Sequence[int]] | None = None,
    title: str = "",
    ax: "Axes | None" = None,
) -> "Figure":
    """
    Plot the image under the colours of its classes, with boundaries and a legend, by Matplotlib.

    The figure is one of pyplot: `plt.show()` shows it. A notebook shows it at the end of the cell anyway, so there
    give the result a name, or the same figure comes twice.

    Args:
        image (`PIL.Image.Image`, array or tensor): the photograph; `(height, width, 3)` or `(3, height, width)`, as
            integers in [0, 255] or floats in [0, 1].
        segmentation (`PIL.Image.Image`, array or tensor of shape `(height, width)`): a class id per pixel of the
            image, as `post_process_semantic_segmentation(outputs, target_sizes=[(height, width)])[0]`; ids that
            `id2label` does not name (such as 255) are left uncoloured.
        id2label (`Mapping[int, str]`): the names, as in `model.config.id2label`.
        palette (`Sequence` of RGB triples in [0, 255], *optional*): one colour per id, such as `model.config.palette`,
            or of [`color_blind_palette`]. Generated if `None`.
        title (`str`, *optional*): written above.
        ax (`matplotlib.axes.Axes`, *optional*): where to plot. By default on a new figure.

    Raises:
        `ValueError`: if image and segmentation differ in size, or one of them is none.
        `ImportError`: if Matplotlib is not installed.
    """
    plt = _import_pyplot()
    picture, segmentation = _to_picture(image), _to_array(segmentation)
    overlay = draw_overlay(picture, segmentation, id2label, palette, legend=False)
    if ax is None:
        height = min(max(7 * picture.height / picture.width, 2.5), 9)
        ax = plt.figure(figsize=(height * picture.width / picture.height + 2.5, height), layout="constrained").gca()
    ax.imshow(overlay)
    ax.set_axis_off()
    ax.set_anchor("W")  # the legend stands at the right
    ax.set_title(title)
    rows = legend_rows(gather_unnamed(segmentation, id2label), id2label, choose_palette(id2label, palette))
    labels = [f"{name}  {share}" for name, share, _ in rows]
    handles = [plt.Rectangle((0, 0), 1, 1, facecolor=np.divide(color, 255)) for *_, color in rows]
    # Set later, since Matplotlib leaves labels out that begin with "_", and reads mathematics between dollars.
    legend = ax.legend(handles, map(str, range(len(rows))), loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    for handle, text, label in zip(legend.legend_handles, legend.get_texts(), labels, strict=True):
        handle.set_label(label)
        text.set(text=label, parse_math=False)
    return ax.figure


def plot_score_maps(
    image: "Image.Image | np.ndarray | torch.Tensor",
    score_map: "np.ndarray | torch.Tensor",
    labels: Sequence[str] | Mapping[int, str],
    classes: Sequence[str] | None = None,
    top_k: int = 5,
    columns: int = 3,
) -> "Figure":
    """
    Plot the photograph and, over it in grey, the score maps of some classes, by Matplotlib. All maps share one scale
    of colours, so that a class that is nowhere in the photograph is as dark as it scores.

    The figure is one of pyplot, see [`plot_segmentation`].

    Args:
        image (`PIL.Image.Image`, array or tensor): the photograph, as in [`plot_segmentation`].
        score_map (array or tensor of shape `(num_labels, grid_height, grid_width)`): `outputs.score_map[0]`, or what
            `model.score_text` gives for one image; spread over the whole photograph. Images must not be padded.
        labels (`Sequence[str]` or `Mapping[int, str]`): a name for each map, as in `model.config.id2label`.
        classes (`Sequence[str]`, *optional*): names of the maps to plot, in this order.
        top_k (`int`, *optional*, defaults to 5): how many to plot if `classes` is not given: those that score best in
            the most cells, and then those with the greatest score.
        columns (`int`, *optional*, defaults to 3): panels per row.

    Raises:
        `ValueError`: if the maps are not one per label, a class is unknown, or a number is not positive.
        `ImportError`: if Matplotlib is not installed.
    """
    plt = _import_pyplot()
    picture, score_map = _to_picture(image), _to_array(score_map)
    names = list(labels) if not isinstance(labels, Mapping) else [labels[index] for index in range(len(labels))]
    if score_map.ndim != 3 or len(score_map) != len(names) or not np.isfinite(score_map).all():
        raise ValueError(
            f"`score_map` is (num_labels, grid_height, grid_width) of finite numbers, a map for each of the "
            f"{len(names)} labels; got the shape {score_map.shape}. Pass that of one image: `outputs.score_map[0]`."
        )
    if min(top_k, columns) < 1:
        raise ValueError(f"`top_k` and `columns` are at least 1, got {top_k} and {columns}.")
    wins = np.bincount(score_map.argmax(axis=0).ravel(), minlength=len(names))
    if classes is None:
        chosen = np.lexsort((-score_map.max(axis=(1, 2)), -wins))[:top_k]
    elif unknown := [name for name in classes if name not in names]:
        raise ValueError(f"No label is called {', '.join(map(repr, unknown))}; the labels are {', '.join(names)}.")
    else:
        chosen = [names.index(name) for name in classes]

    num_panels = 1 + len(chosen)
    columns = min(columns, num_panels)
    rows = -(-num_panels // columns)
    height = 4 * picture.height / picture.width
    figure, axes = plt.subplots(
        rows, columns, figsize=(4 * columns + 0.8, (height + 0.4) * rows), squeeze=False, layout="constrained"
    )
    for ax in axes.flat:
        ax.set_axis_off()
    axes.flat[0].imshow(picture)
    axes.flat[0].set_title("photograph")
    shown = score_map[chosen]
    for ax, index in zip(axes.flat[1:], chosen, strict=False):
        ax.imshow(picture.convert("L"), cmap="gray", vmin=0, vmax=255)
        heat_map = ax.imshow(
            score_map[index],
            cmap="viridis",
            vmin=shown.min(),
            vmax=shown.max(),
            alpha=HEAT_OPACITY,
            interpolation="bilinear",
            extent=(-0.5, picture.width - 0.5, picture.height - 0.5, -0.5),
        )
        title = f"{printable(names[index])}: best in {wins[index] / wins.sum():.0%}"
        ax.set_title(title, parse_math=False)
    figure.colorbar(heat_map, ax=axes, label="score (cosine)", shrink=0.8)
    return figure


def _import_pyplot():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            'Plots need Matplotlib, which is not installed: pip install "modeling-denseclip[plot]". Without it, '
            "`draw_overlay` and `draw_heat_map` make pictures."
        ) from error
    return plt


def _to_array(values: "Image.Image | np.ndarray | torch.Tensor") -> np.ndarray:
    """An array of what may lie on any device, require gradients, or be in half precision."""
    import torch

    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def _to_picture(image: "Image.Image | np.ndarray | torch.Tensor") -> Image.Image:
    """
    An RGB picture of one in any container.

    Raises:
        `ValueError`: for a shape or for values that are no picture's.
    """
    from ..files.photographs import to_rgb

    if isinstance(image, Image.Image):
        return to_rgb(image)
    pixels = _to_array(image)
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] != 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"An image is (height, width, 3) or (3, height, width); got the shape {pixels.shape}.")
    is_float = np.issubdtype(pixels.dtype, np.floating)
    if not (pixels >= 0).all() or not (pixels <= (1 if is_float else 255)).all():
        raise ValueError(
            f"An image has integers in [0, 255] or floats in [0, 1]; got {pixels.dtype} from {pixels.min():.4g} to "
            f"{pixels.max():.4g}. Pass the photograph, not the `pixel_values` that the image processor makes of it."
        )
    return Image.fromarray((pixels * 255 if is_float else pixels).round().astype(np.uint8))
