# Copyright 2026 The DenseCLIP for Transformers authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
From logits to the class of each pixel of a picture.

Logits are enlarged bilinearly, and the greatest one names the class. Almost all of that work can be left out. What
lies between four logits of a class is a convex combination of them: a class that is beaten by another one at all four
is beaten everywhere between. So a cell between four positions whose greatest class is the same has that class
throughout, and in the others only the classes are enlarged that neither the winner of a corner beats at all four
corners, nor the mean of these winners, than which one of them is always greater.

Classes and logits are the same as if all were enlarged, to the last bit: every way computes a pixel by the same
operations, and a class counts as beaten only by more than these may round.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch


# Enlarged logits are made about this many at a time: all of them, for 150 classes and a photograph of 12 megapixels,
# would take 7 GB. What is larger leaves a CPU's cache, and is slower.
MAX_ELEMENTS = 2**19
# And on a device for which many small steps take longer than their arithmetic.
MAX_DEVICE_ELEMENTS = 2**25
# Logits that are looked at together, in rows of cells.
MAX_BAND_ELEMENTS = 2**22
# Cells of which the classes are compared together, and of which pixels are made together.
CELLS_AT_A_TIME, CELLS_OF_A_GROUP = 2048, 256
# Where a cell has fewer pixels than this, as in pictures that are hardly larger than their logits, where so large a
# share of the pixels is in doubt, or where so large a share of all enlarged logits would be needed, all are made: that
# is a simpler loop.
LEAST_PIXELS_OF_A_CELL, MOST_DOUBTFUL, GREATEST_SHARE = 8, 0.9, 0.4
# Each interpolated logit is off by a few roundings of the greatest one around it.
ROUNDINGS = 16
NOT_FINITE = (
    "Received logits that are NaN or infinite, and have no greatest class. Look for such values in the images, and in"
    " the weights, whose training may have diverged."
)


class AxisPositions(NamedTuple):
    """
    Where the pixels of a picture fall among its logits, along one axis.

    Attributes:
        lower, upper (`torch.LongTensor` of shape `(length,)`): the logits on both sides, in ascending order.
        weight (`torch.Tensor` of shape `(length,)`): of the upper one, in [0, 1).
    """

    lower: torch.Tensor
    upper: torch.Tensor
    weight: torch.Tensor

    def part(self, first: int, last: int) -> "AxisPositions":
        """The pixels from `first` up to, not including, `last`."""
        return AxisPositions(*(values[first:last] for values in self))

    def to(self, device: torch.device) -> "AxisPositions":
        return AxisPositions(*(values.to(device, non_blocking=True) for values in self))

    @property
    def nearest(self) -> torch.Tensor:
        """The nearer one of both logits; of equal distances the upper one."""
        return torch.where(self.weight < 0.5, self.lower, self.upper)


def axis_positions(
    target_length: int, input_length: int, canvas_length: int, logits_length: int, dtype: torch.dtype
) -> AxisPositions:
    """
    Positions along one axis, on the CPU.

    Output pixel centre -> pixel of the processed picture -> position in the logits, which cover the whole canvas. With
    `input_length == canvas_length` this is `torch.nn.functional.interpolate(align_corners=False)`.
    """
    # Only logits that the picture touches are used, so that those of pure padding never are.
    last = -(-input_length * logits_length // canvas_length) - 1
    scale = input_length * logits_length / (canvas_length * target_length)
    centres = torch.arange(target_length, dtype=dtype) + 0.5
    positions = (centres * scale - 0.5).clamp(0, last)
    lower = positions.long()
    return AxisPositions(lower, (lower + 1).clamp(max=last), positions - lower)


def whole_positions(size: tuple[int, int], logits: torch.Tensor) -> tuple[AxisPositions, AxisPositions]:
    """Of the rows and columns of a picture of this height and width, all of which its logits (..., h, w) cover."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    rows, columns = (
        axis_positions(new, new, new, old, dtype) for new, old in zip(size, logits.shape[-2:], strict=True)
    )
    return rows, columns


def id_dtype(num_labels: int) -> torch.dtype:
    """The type of the fewest bytes that holds the ids of this many classes."""
    return torch.uint8 if num_labels <= 2**8 else torch.int32


def mix(lower: torch.Tensor, upper: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """
    `lower + (upper - lower) * weight`, in operations of their own. `torch.lerp` fuses multiplication and addition in
    some parts of a tensor and not in others, so that equal logits become unequal.
    """
    return ((upper - lower) * weight).add_(lower)


def iterate_enlarged(
    logits: torch.Tensor, rows: AxisPositions, columns: AxisPositions
) -> Iterator[tuple[slice, torch.Tensor]]:
    """
    Enlarge logits, from top to bottom.

    Resizing is separable: rows are mixed first, on the few columns of the logits, then columns. Classes lie last so
    that all logits of a pixel are copied, and compared, as one block of memory.

    Args:
        logits (`torch.Tensor` of shape `(num_labels, logits_height, logits_width)`): of any floating-point type.
        rows, columns ([`AxisPositions`]): of the picture's height and width, on the CPU.

    Yields:
        A slice of rows, and their logits of shape `(num_rows, width, num_labels)`, in float32 or more.
    """
    num_labels, logits_height, logits_width = logits.shape
    height, width = len(rows.lower), len(columns.lower)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    # Where the map is smaller than the logits, a slab is computed from more values than it has itself.
    elements_per_row = num_labels * max(width, logits_width) * -(-logits_height // height)
    max_elements = MAX_ELEMENTS if logits.device.type == "cpu" else MAX_DEVICE_ELEMENTS
    rows_per_slab = max(1, max_elements // elements_per_row)
    last_column = columns.upper[-1].item()
    columns, device_rows = columns.to(logits.device), rows.to(logits.device)
    for start in range(0, height, rows_per_slab):
        end = min(start + rows_per_slab, height)
        first, last = rows.lower[start].item(), rows.upper[end - 1].item()
        band = logits[:, first : last + 1, : last_column + 1].permute(1, 2, 0).to(dtype).contiguous()
        part = device_rows.part(start, end)
        slab = mix(band[part.lower - first], band[part.upper - first], part.weight[:, None, None])
        enlarged = mix(slab[:, columns.lower], slab[:, columns.upper], columns.weight[:, None])
        yield slice(start, end), enlarged


class ClassScores(NamedTuple):
    """
    How many pixels each class has, and how sure the model is of them.

    Attributes:
        pixels (`torch.DoubleTensor` of shape `(num_labels,)`): numbers of pixels.
        probability_sums (`torch.DoubleTensor` of shape `(num_labels,)`): the softmax probability of the class, summed
            over its pixels; that of a pixel is that of the nearest logits.
    """

    pixels: torch.Tensor
    probability_sums: torch.Tensor


class ClassMap(NamedTuple):
    """
    The greatest class of each pixel of a picture.

    Attributes:
        class_ids (`torch.Tensor` of shape `(height, width)`): integers.
        scores ([`ClassScores`], *optional*): if asked for.
        enlarged (`torch.FloatTensor` of shape `(num_labels, height, width)`, *optional*): all logits, in float32, if
            asked for.
    """

    class_ids: torch.Tensor
    scores: ClassScores | None
    enlarged: torch.Tensor | None


def class_maps(
    pictures: Iterable[tuple[torch.Tensor, AxisPositions, AxisPositions]],
    with_scores: bool = False,
    with_enlarged: bool = False,
    dtype: torch.dtype = torch.int64,
) -> list[ClassMap]:
    """
    The greatest class of each pixel; of equal ones the lowest.

    On a CPU it is found with as few enlarged logits as needed. Elsewhere all are made, and the host waits for the
    device once, after the last picture.

    Args:
        pictures: of each one the logits (`torch.Tensor` of shape `(num_labels, logits_height, logits_width)`, of any
            floating-point type) and, on the CPU, the [`AxisPositions`] of its rows and its columns.
        with_scores (`bool`, *optional*, defaults to `False`): whether to count and score classes too.
        with_enlarged (`bool`, *optional*, defaults to `False`): whether to keep all enlarged logits.
        dtype (`torch.dtype`, *optional*, defaults to `torch.int64`): of the ids. The fewer bytes it has, the less time
            goes into writing them.

    Returns:
        `list[ClassMap]`: of each picture, on the device of its logits.

    Raises:
        ValueError: for logits of a picture that are not finite. (Those of padding may be anything.)
    """
    maps, checks = [], []
    for logits, rows, columns in pictures:
        size = len(rows.lower), len(columns.lower)
        class_ids = torch.empty(size, dtype=dtype, device=logits.device)
        totals = torch.zeros(2, len(logits), dtype=torch.float64, device=logits.device) if with_scores else None
        enlarged = None
        if with_enlarged:
            enlarged = torch.empty(len(logits), *size, dtype=torch.float32, device=logits.device)
        seen = logits[:, : rows.upper[-1] + 1, : columns.upper[-1] + 1]
        checks.append(seen.isfinite().all())
        if logits.device.type == "cpu":
            _check_finite(checks)
        if with_enlarged or logits.device.type != "cpu":
            _enlarge_all(seen, rows, columns, class_ids, totals, enlarged)
        else:
            for start, end in _bands(seen, rows):
                _find_classes(seen, rows.part(start, end), columns, class_ids[start:end], totals)
        maps.append(ClassMap(class_ids, None if totals is None else ClassScores(*totals), enlarged))
    _check_finite(checks)
    return maps


def _check_finite(checks: Sequence[torch.Tensor]) -> None:
    """The host waits here. (Maps of logits that are not finite are worth nothing, but made without an error.)"""
    if checks and not torch.stack(checks).all():
        raise ValueError(NOT_FINITE)


def _enlarge_all(
    logits: torch.Tensor,
    rows: AxisPositions,
    columns: AxisPositions,
    class_ids: torch.Tensor,
    totals: torch.Tensor | None,
    kept: torch.Tensor | None = None,
) -> None:
    """
    Write the class of each pixel into `class_ids`, and add to `totals`, by all logits of all pixels, which are written
    into `kept`.
    """
    for part, enlarged in iterate_enlarged(logits, rows, columns):
        class_ids[part] = enlarged.argmax(dim=-1)
        if kept is not None:
            kept[:, part] = enlarged.movedim(-1, 0)
    if totals is not None:
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
        near_rows, near_columns = (
            positions.nearest.to(logits.device, non_blocking=True) for positions in (rows, columns)
        )
        nearest = near_rows[:, None], near_columns
        greatest = precise.amax(dim=0)
        sums = (precise - greatest).exp_().sum(dim=0)
        found = class_ids.long()  # torch takes indices of 8 bits for a mask
        of_pixels = (precise[(found, *nearest)] - greatest[nearest]).exp_() / sums[nearest]
        found = found.flatten()
        totals[0].index_add_(0, found, totals.new_ones(1).expand(len(found)))
        totals[1].index_add_(0, found, of_pixels.flatten().to(totals.dtype))


def _bands(logits: torch.Tensor, rows: AxisPositions) -> Iterator[tuple[int, int]]:
    """Parts of the picture's rows, of whole cells, that are made of few logits."""
    num_labels, _, logits_width = logits.shape
    cells = max(1, MAX_BAND_ELEMENTS // (num_labels * logits_width) - 1)
    last = rows.lower[-1].item()
    ends = torch.searchsorted(rows.lower, torch.arange(cells, last + cells + 1, cells)).tolist()
    yield from ((start, end) for start, end in zip([0, *ends], ends, strict=False) if end > start)


class _Cells(NamedTuple):
    """The pixels between neighbouring logits, along one axis; `starts` has one entry more than there are cells."""

    positions: AxisPositions
    starts: torch.Tensor
    nearer: torch.Tensor  # (2, number of cells): how many pixels are nearer to the lower logits, and to the upper ones

    @classmethod
    def of(cls, positions: AxisPositions) -> "_Cells":
        first = positions.lower[0]
        positions = AxisPositions(positions.lower - first, positions.upper - first, positions.weight)
        count = int(positions.lower[-1]) + 1
        starts = torch.searchsorted(positions.lower, torch.arange(count + 1))
        upper = torch.zeros(count, dtype=torch.int64).index_add_(0, positions.lower, (positions.weight >= 0.5).long())
        return cls(positions, starts, torch.stack([starts.diff() - upper, upper]))

    @property
    def sizes(self) -> torch.Tensor:
        return self.starts.diff()

    def pixels(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Places of the pixels of cells, `(number of cells, the most pixels of one)`, and which of them count."""
        sizes = self.sizes[cells, None]
        steps = torch.arange(int(sizes.max()))
        return self.starts[cells, None] + torch.minimum(steps, sizes - 1), steps < sizes


def _at_corners(values: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """
    Values around cells: (height, width, ...) -> (*cells, 4, ...), the upper left, upper right, lower left and lower
    right one; at the border those of the last row and column count twice.
    """
    below, right = (rows + 1).clamp(max=values.shape[0] - 1), (columns + 1).clamp(max=values.shape[1] - 1)
    places = ((rows, columns), (rows, right), (below, columns), (below, right))
    return torch.stack([values[place] for place in places], dim=torch.broadcast_tensors(rows, columns)[0].ndim)


def _find_classes(
    logits: torch.Tensor,
    rows: AxisPositions,
    columns: AxisPositions,
    class_ids: torch.Tensor,
    totals: torch.Tensor | None,
) -> None:
    """
    Write the class of each pixel into `class_ids`, and add to `totals`: of a cell whose corners agree at once, and in
    the others by those classes alone that may win there.
    """
    row_cells, column_cells = _Cells.of(rows), _Cells.of(columns)
    used_rows, used_columns = (
        slice(int(positions.lower[0]), int(positions.upper[-1]) + 1) for positions in (rows, columns)
    )
    band = logits[:, used_rows, used_columns].permute(1, 2, 0)
    band = band.to(torch.promote_types(band.dtype, torch.float32)).contiguous()
    sizes = row_cells.sizes[:, None] * column_cells.sizes
    grid = torch.arange(len(row_cells.sizes))[:, None], torch.arange(len(column_cells.sizes))

    best, winners = band.max(dim=-1)
    lead = best - band.scatter(-1, winners[..., None], -torch.inf).amax(dim=-1)
    least_lead = ROUNDINGS * torch.finfo(band.dtype).eps * float(band.abs().max())
    of_corners = _at_corners(winners, *grid)
    is_clear = (of_corners == of_corners[..., :1]).all(dim=-1) & (_at_corners(lead, *grid) > least_lead).all(dim=-1)
    doubtful = (~is_clear & (sizes > 0)).nonzero().unbind(dim=1)
    is_small = sizes.float().mean() < LEAST_PIXELS_OF_A_CELL
    if is_small or sizes[doubtful].sum() > MOST_DOUBTFUL * sizes.sum():
        candidates = None
    else:
        candidates = _find_candidates(band, winners, doubtful, least_lead)
        enlarged = int((candidates.sum(dim=1) * sizes[doubtful]).sum())
    if candidates is None or enlarged > GREATEST_SHARE * int(sizes.sum()) * len(logits):
        _enlarge_all(band.permute(2, 0, 1), row_cells.positions, column_cells.positions, class_ids, totals)
        return

    of_cells = of_corners[..., 0].to(id_dtype(len(logits)))  # fewer bytes to gather
    class_ids.copy_(of_cells[row_cells.positions.lower][:, column_cells.positions.lower])
    if totals is not None:
        normalizers = best, (band - best[..., None]).exp_().sum(dim=-1)
        clear = is_clear.nonzero().unbind(dim=1)
        # Pixels of a cell by the corner that is nearest, (num_cells, 4).
        nearest = (row_cells.nearer[:, clear[0]].T[:, :, None] * column_cells.nearer[:, clear[1]].T[:, None]).flatten(
            1
        )
        probabilities = _at_corners(normalizers[1].reciprocal(), *clear)
        _add(totals, of_corners[..., :1][clear], nearest[..., None], probabilities[..., None])
    for group, classes in _groups(candidates):
        cells = doubtful[0][group], doubtful[1][group]
        around = _at_corners(band, *cells).gather(-1, classes[:, None].expand(-1, 4, -1))
        nearest = _decide(around, classes, row_cells, column_cells, cells, class_ids, totals is not None)
        if totals is not None:
            greatest, sums = (_at_corners(values, *cells)[..., None] for values in normalizers)
            _add(totals, classes, nearest, (around - greatest).exp_() / sums)


def _find_candidates(
    band: torch.Tensor, winners: torch.Tensor, cells: tuple[torch.Tensor, torch.Tensor], least_lead: float
) -> torch.Tensor:
    """
    Which classes may win in each cell, (num_cells, num_labels): those that neither the winner of a corner beats at all
    four corners, nor the mean of the four winners, than which one of these is greater anywhere.
    """
    found = []
    for part in zip(*(places.split(CELLS_AT_A_TIME) for places in cells), strict=True):
        around = _at_corners(band, *part)  # (cells, 4, num_labels)
        rivals = around.gather(-1, _at_corners(winners, *part)[:, None].expand(-1, 4, -1))  # (cells, 4, 4 winners)
        rivals = torch.cat([rivals, rivals.mean(dim=-1, keepdim=True)], dim=-1)
        is_beaten = [(rival[..., None] - around > least_lead).all(dim=1) for rival in rivals.unbind(dim=-1)]
        found.append(~torch.stack(is_beaten).any(dim=0))
    return torch.cat(found) if found else torch.ones(0, band.shape[-1], dtype=torch.bool)


def _groups(candidates: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """
    Cells with about as many candidates, and these, (number of cells, the most candidates of one), in ascending order.
    Where a cell has fewer, its first one stands for the rest, which changes no maximum.
    """
    counts = candidates.sum(dim=1)
    for group in counts.argsort(stable=True).split(CELLS_OF_A_GROUP) if len(counts) else ():
        most = int(counts[group[-1]])
        classes = candidates[group].byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        yield group, torch.where(torch.arange(most) < counts[group, None], classes, classes[:, :1])


def _decide(
    logits: torch.Tensor,
    classes: torch.Tensor,
    row_cells: _Cells,
    column_cells: _Cells,
    cells: tuple[torch.Tensor, torch.Tensor],
    class_ids: torch.Tensor,
    with_counts: bool,
) -> torch.Tensor | None:
    """
    Write the classes of all pixels of some cells.

    Args:
        logits (`torch.Tensor` of shape `(num_cells, 4, num_classes)`): of the candidates at the corners.
        classes (`torch.LongTensor` of shape `(num_cells, num_classes)`): the candidates.

    Returns:
        How many pixels each candidate has by the corner that is nearest, `(num_cells, 4, num_classes)`, if asked for.
    """
    (rows, has_row), (columns, has_column) = row_cells.pixels(cells[0]), column_cells.pixels(cells[1])
    column_weight = column_cells.positions.weight[columns][:, None, :, None]
    is_right = (column_cells.positions.weight >= 0.5)[columns]
    counts = torch.zeros(len(logits), 4 * classes.shape[1]) if with_counts else None
    steps = max(1, MAX_ELEMENTS // (logits[:, 0].numel() * columns.shape[1]))
    for part, has_part in zip(rows.split(steps, dim=1), has_row.split(steps, dim=1), strict=True):
        row_weight = row_cells.positions.weight[part][..., None]
        left, right = (mix(logits[:, None, side], logits[:, None, side + 2], row_weight) for side in (0, 1))
        chosen = mix(left[:, :, None], right[:, :, None], column_weight).argmax(dim=-1)  # (cells, rows, columns)
        found = classes.gather(1, chosen.flatten(1)).view_as(chosen)
        class_ids[part[:, :, None], columns[:, None]] = found.to(class_ids.dtype)
        if counts is not None:
            corner = 2 * (row_cells.positions.weight[part] >= 0.5)[..., None] + is_right[:, None].long()
            counted = (has_part[..., None] & has_column[:, None]).float()
            counts.scatter_add_(1, (corner * classes.shape[1] + chosen).flatten(1), counted.flatten(1))
    return None if counts is None else counts.view(len(logits), 4, -1)


def _add(totals: torch.Tensor, classes: torch.Tensor, nearest: torch.Tensor, probabilities: torch.Tensor) -> None:
    """
    Add pixels to `totals`, (2, num_labels).

    Args:
        classes (`torch.LongTensor` of shape `(num_cells, num_classes)`): the classes of cells.
        nearest (`torch.Tensor` of shape `(num_cells, 4, num_classes)`): their pixels, by the corner that is nearest.
        probabilities (`torch.Tensor` of shape `(num_cells, 4, num_classes)`): theirs at the corners.
    """
    nearest = nearest.to(totals.dtype)
    sums = (nearest * probabilities).sum(dim=1)
    totals[0].index_add_(0, classes.flatten(), nearest.sum(dim=1).flatten())
    totals[1].index_add_(0, classes.flatten(), sums.flatten())


__all__ = [
    "NOT_FINITE",
    "AxisPositions",
    "ClassMap",
    "ClassScores",
    "axis_positions",
    "class_maps",
    "id_dtype",
    "iterate_enlarged",
    "whole_positions",
]
