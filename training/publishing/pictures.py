# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Graphs around a model in an ONNX file that takes pictures as they are: what the image processor does to them before it,
and the class of each pixel behind it.

They are written in the text form of ONNX, since what they compute depends on sizes that only a run knows. Browsers
compute no float64, in which the image processor has positions: here they are fractions of integers, which are rounded
to float32 where the image processor does so. Names of constants are bound by `CONSTANTS` and by each function.
"""

from typing import TYPE_CHECKING

import numpy as np

from modeling_denseclip.image_processing_denseclip import OPENCV_WEIGHT_BITS


if TYPE_CHECKING:
    import onnx


# Types of ONNX, as `Cast` names them.
FLOAT, UINT8, INT32, INT64 = 1, 2, 6, 7
CONSTANTS = {
    "first": np.int64(0),
    "step": np.int64(1),
    "zero": np.int64([0]),
    "one": np.int64([1]),
    "two": np.int64([2]),
    "last_axis": np.int64([-1]),
}
# Bits behind the leading one of a float32.
FRACTION_BITS = 23
CORNERS = ("here", "right", "below", "across")


def surround(core: "onnx.ModelProto", rule: dict, takes: str, output: str, num_labels: int) -> "onnx.ModelProto":
    """
    The file of a model with the graphs around it.

    Args:
        core (`onnx.ModelProto`): takes `pixel_values`, float32 of shape `(batch_size, 3, height, width)`, and gives
            `logits`. It is changed.
        rule (`dict`): `image_processor` of the JSON beside an exported file.
        takes (`str`): `"pictures"` or `"picture_values"`, as [`build_preparation`].
        output (`str`): `"logits"`, or `"class_map"` at the size of the pictures.
        num_labels (`int`): the number of classes.
    """
    from onnx import compose

    versions = core.ir_version, next(entry.version for entry in core.opset_import if entry.domain == "")
    before = build_preparation(rule, takes, *versions)
    behind = build_class_map(num_labels, *versions) if output == "class_map" else build_logits(*versions)
    del core.graph.value_info[:]  # the names of sizes in it stand for others here
    core = compose.add_prefix(core, "model.")
    before = compose.add_prefix(before, "before.", rename_inputs=False, rename_outputs=False)
    edges = [("logits_of_model", "model.logits"), ("size_of_pictures", "picture_size")]
    needed = [(there, here) for there, here in edges if there in {value.name for value in behind.graph.input}]
    merged = compose.merge_models(
        before, core, [("prepared", "model.pixel_values")], outputs=[here for _, here in needed]
    )
    # Without it onnxruntime 1.23 takes sizes that follow from this shape for empty.
    merged.graph.value_info.extend(value for value in before.graph.output if value.name == "prepared")
    return compose.merge_models(merged, behind, [(here, there) for there, here in needed])


def parse(text: str, constants: dict[str, np.ndarray], ir_version: int, opset: int) -> "onnx.ModelProto":
    """A graph from its text, with the constants that it names."""
    from onnx import numpy_helper, parser

    model = parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>\n{text}')
    used = {name for node in model.graph.node for name in node.input}
    bodies = [attribute.g for node in model.graph.node for attribute in node.attribute if attribute.HasField("g")]
    used |= {name for body in bodies for node in body.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used
    )
    return model


# --- Before the model ------------------------------------------------------------------------------------------------


def build_preparation(rule: dict, takes: str, ir_version: int, opset: int) -> "onnx.ModelProto":
    """
    Pictures -> `prepared`, float32 of shape `(batch_size, 3, resized_height, resized_width)`, and `picture_size`,
    their height and width as int64. To the last bit what the image processor makes of them.

    Args:
        rule (`dict`): as in [`surround`].
        takes (`str`): `"pictures"`, uint8 of shape `(batch_size, height, width, 3)`; or `"picture_values"`,
            float32 of shape `(batch_size, 3, height, width)` with whole numbers in [0, 255], in an input called
            `pixel_values`: what transformers.js makes of pictures that it neither resizes nor normalises.
    """
    if takes == "pictures":
        given, lines = "uint8[batch_size, height, width, 3] pictures", ""
    else:
        given = "float[batch_size, 3, height, width] pixel_values"
        lines = f"""
        channels_behind = Transpose <perm = [0, 2, 3, 1]> (pixel_values)
        pictures = Cast <to = {UINT8}> (channels_behind)"""
    bits = FRACTION_BITS - np.arange(FRACTION_BITS)
    constants = CONSTANTS | {
        "rescale_factor": np.float32(rule["rescale_factor"]),
        "image_mean": np.float32(rule["image_mean"]).reshape(3, 1, 1),
        "image_std": np.float32(rule["image_std"]).reshape(3, 1, 1),
        "float_unit": np.float32(1),
        "float_zero": np.float32(0),
        "weight_range": np.float32(2**OPENCV_WEIGHT_BITS),
        # By the exponent of a position: its bits behind the point, of which up to 12 come first.
        "powers": 2 ** np.arange(1, FRACTION_BITS),
        "upper_factors": 2 ** np.minimum(bits, 12),
        "lower_factors": 2 ** np.maximum(bits - 12, 0),
        "units": np.float32(0.5) ** bits.astype(np.float32),
        "inner_bits": np.int32(2**4),
        "outer_bits": np.int32(2**16),
        "rest_bits": np.int32(2**2),
        "half_of_rest": np.int32(2),
        "behind_length": np.int64([1]),
        "behind_width_and_channels": np.int64([1, 2]),
    }
    lines += """
        picture_size = Shape <start = 1, end = 3> (pictures)"""
    resized = "pictures"
    if rule["size"] is not None:
        size_lines, size_constants = size_of_resized(rule["size"])
        lines, constants, resized = lines + size_lines + RESIZE, constants | size_constants, "resized"
    text = f"""
    prepare ({given}) => (float[batch_size, 3, resized_height, resized_width] prepared, int64[2] picture_size)
    {{{lines}
        as_numbers = Cast <to = {FLOAT}> ({resized})
        channels_first = Transpose <perm = [0, 3, 1, 2]> (as_numbers)
        rescaled = Mul (channels_first, rescale_factor)
        centred = Sub (rescaled, image_mean)
        prepared = Div (centred, image_std)
    }}"""
    return parse(text, constants, ir_version, opset)


def size_of_resized(size: dict) -> tuple[str, dict[str, np.ndarray]]:
    """
    `resized_size` of `sizes_denseclip.py` as lines that make `size` of `picture_size`, and their constants.

    Halves are rounded up. In float64 some come out a little smaller and are rounded down: of 7 million sizes of
    pictures and a shortest edge of 360 that are 171, of one of 512 none.
    """
    if size.get("height") and size.get("width"):
        return "\n        size = Identity (fixed_size)", {"fixed_size": np.int64([size["height"], size["width"]])}
    constants = {name: np.int64([size[name]]) for name in ("shortest_edge", "longest_edge") if size.get(name)}
    lines = """
        shortest = ReduceMin (picture_size)"""
    if "longest_edge" in constants:
        lines += """
        longest = ReduceMax (picture_size)
        limit_of_longest = Mul (longest_edge, shortest)
        limit_of_shortest = Mul (shortest_edge, longest)
        is_limited = Less (limit_of_longest, limit_of_shortest)
        edge = Where (is_limited, longest_edge, shortest_edge)
        side = Where (is_limited, longest, shortest)"""
    else:
        lines += """
        edge = Identity (shortest_edge)
        side = Identity (shortest)"""
    lines += """
        twice_the_edge = Mul (edge, two)
        twice_the_side = Mul (side, two)
        scaled_sides = Mul (picture_size, twice_the_edge)
        almost_sides = Add (scaled_sides, side)
        whole_sides = Div (almost_sides, twice_the_side)
        size = Max (whole_sides, one)"""
    return lines, constants


def positions(side: str) -> str:
    """
    The lower and the upper neighbour of each resized row or column, and the share of the upper one.

    The position of the i-th is `((2 i + 1) old - new) / (2 new)`. As a float32 it has 24 bits from its leading one on:
    the quotient is taken with so many, and of what lies in the middle the even one. They come in two parts, since
    runtimes such as OpenVINO compute int64 in 32 bits. A position below 1 has more bits behind the point, and is a
    quotient of float32.
    """
    return (
        f"""
        {side}_count = Squeeze (new_{side})
        {side}_places = Range (first, {side}_count, step)
        {side}_twice = Mul ({side}_places, two)
        {side}_odd = Add ({side}_twice, one)
        {side}_scaled = Mul ({side}_odd, old_{side})
        {side}_numerator = Sub ({side}_scaled, new_{side})
        {side}_denominator = Mul (new_{side}, two)
        {side}_quotient = Div ({side}_numerator, {side}_denominator)
        {side}_product = Mul ({side}_quotient, {side}_denominator)
        {side}_remainder = Sub ({side}_numerator, {side}_product)
        {side}_of_each = Unsqueeze ({side}_quotient, one)
        {side}_reaches = GreaterOrEqual ({side}_of_each, powers)
        {side}_reached = Cast <to = {INT64}> ({side}_reaches)
        {side}_exponents = ReduceSum <keepdims = 0> ({side}_reached, one)"""
        + "".join(
            f"""
        {side}_{part}_factors = Gather ({part}_factors, {side}_exponents)
        {side}_{part}_grown = Mul ({side}_{before}remainder, {side}_{part}_factors)
        {side}_{part}_bits = Div ({side}_{part}_grown, {side}_denominator)
        {side}_{part}_product = Mul ({side}_{part}_bits, {side}_denominator)
        {side}_{part}_remainder = Sub ({side}_{part}_grown, {side}_{part}_product)
        {side}_{part}_shifted = Mul ({side}_{bits}, {side}_{part}_factors)
        {side}_{part}_quotient = Add ({side}_{part}_shifted, {side}_{part}_bits)"""
            for part, before, bits in (("upper", "", "quotient"), ("lower", "upper_", "upper_quotient"))
        )
        + f"""
        {side}_rest = Mul ({side}_lower_remainder, two)
        {side}_is_more = Greater ({side}_rest, {side}_denominator)
        {side}_is_middle = Equal ({side}_rest, {side}_denominator)
        {side}_last_bit = Mod ({side}_lower_quotient, two)
        {side}_is_odd = Equal ({side}_last_bit, one)
        {side}_is_odd_middle = And ({side}_is_middle, {side}_is_odd)
        {side}_is_rounded_up = Or ({side}_is_more, {side}_is_odd_middle)
        {side}_rounding = Cast <to = {INT64}> ({side}_is_rounded_up)
        {side}_rounded = Add ({side}_lower_quotient, {side}_rounding)
        {side}_rounded_float = Cast <to = {FLOAT}> ({side}_rounded)
        {side}_units = Gather (units, {side}_exponents)
        {side}_large = Mul ({side}_rounded_float, {side}_units)
        {side}_numerator_float = Cast <to = {FLOAT}> ({side}_numerator)
        {side}_denominator_float = Cast <to = {FLOAT}> ({side}_denominator)
        {side}_small = Div ({side}_numerator_float, {side}_denominator_float)
        {side}_is_small = Less ({side}_numerator, {side}_denominator)
        {side}_positions = Where ({side}_is_small, {side}_small, {side}_large)
        {side}_floors = Floor ({side}_positions)
        {side}_fractions = Sub ({side}_positions, {side}_floors)
        {side}_free = Cast <to = {INT64}> ({side}_floors)
        {side}_last = Sub (old_{side}, one)
        {side}_not_before = Max ({side}_free, zero)
        {side}_lower = Min ({side}_not_before, {side}_last)
        {side}_next = Add ({side}_free, one)
        {side}_next_not_before = Max ({side}_next, zero)
        {side}_upper = Min ({side}_next_not_before, {side}_last)"""
    )


def weights(side: str, shares: str, axes: str) -> str:
    """OpenCV's integer weights of both neighbours, with axes of one behind them."""
    return f"""
        {side}_share_of_lower = Sub (float_unit, {shares})""" + "".join(
        f"""
        {side}_{name}_scaled = Mul ({values}, weight_range)
        {side}_{name}_rounded = Round ({side}_{name}_scaled)
        {side}_{name}_whole = Cast <to = {INT32}> ({side}_{name}_rounded)
        {side}_{name}_weights = Unsqueeze ({side}_{name}_whole, {axes})"""
        for name, values in (("lower", f"{side}_share_of_lower"), ("upper", shares))
    )


def mix_columns(rows: str) -> str:
    """The part of these neighbours, `lower` or `upper` rows of the picture, in the resized picture."""
    return (
        f"""
        {rows}_rows = Gather <axis = 1> (pictures, height_{rows})"""
        + "".join(
            f"""
        {rows}_{columns}_bytes = Gather <axis = 2> ({rows}_rows, width_{columns})
        {rows}_{columns}_numbers = Cast <to = {INT32}> ({rows}_{columns}_bytes)
        {rows}_{columns} = Mul ({rows}_{columns}_numbers, width_{columns}_weights)"""
            for columns in ("lower", "upper")
        )
        + f"""
        {rows}_sum = Add ({rows}_lower, {rows}_upper)
        {rows}_mixed = Div ({rows}_sum, inner_bits)
        {rows}_weighted = Mul ({rows}_mixed, height_{rows}_weights)
        {rows}_part = Div ({rows}_weighted, outer_bits)"""
    )


# `_resize_bilinear` of the image processor: `pictures` -> `resized` of the height and width `size`, as integers.
# OpenCV drops the weight at the left and the right border, and repeats the row at the upper and the lower one.
# Divisions are its shifts: no number is negative.
RESIZE = (
    """
        old_height, old_width = Split <num_outputs = 2> (picture_size)
        new_height, new_width = Split <num_outputs = 2> (size)"""
    + positions("height")
    + positions("width")
    + """
        is_before = Less (width_free, zero)
        is_behind = GreaterOrEqual (width_free, width_last)
        is_border = Or (is_before, is_behind)
        width_shares = Where (is_border, float_zero, width_fractions)"""
    + weights("height", "height_fractions", "behind_width_and_channels")
    + weights("width", "width_shares", "behind_length")
    + mix_columns("lower")
    + mix_columns("upper")
    + """
        sum_of_parts = Add (lower_part, upper_part)
        almost = Add (sum_of_parts, half_of_rest)
        resized = Div (almost, rest_bits)"""
)


# --- Behind the model ------------------------------------------------------------------------------------------------


def build_logits(ir_version: int, opset: int) -> "onnx.ModelProto":
    """The logits of the model as they are."""
    text = """
    finish (float[batch_size, num_labels, logits_height, logits_width] logits_of_model)
        => (float[batch_size, num_labels, logits_height, logits_width] logits)
    {
        logits = Identity (logits_of_model)
    }"""
    return parse(text, {}, ir_version, opset)


def build_class_map(num_labels: int, ir_version: int, opset: int) -> "onnx.ModelProto":
    """
    Logits and the size of the pictures -> the greatest class of each pixel, `(batch_size, height, width)`, uint8 for
    up to 256 classes, or else int32.

    The logits of one class at a time are enlarged: all of 150 classes, of a photograph of 12 megapixels, take 7 GB.
    And of only those classes that may win anywhere, which are few in a photograph; see `class_maps_denseclip.py`.
    """
    name, code, dtype = ("uint8", UINT8, np.uint8) if num_labels <= 256 else ("int32", INT32, np.int32)
    constants = CONSTANTS | {
        "lowest": np.float32([[[[-np.inf]]]]),
        "class_zero": np.zeros((1, 1, 1, 1), dtype),
        "first_cell": np.int64([[0], [0], [0]]),
    }
    text = f"""
    finish (float[batch_size, num_labels, logits_height, logits_width] logits_of_model, int64[2] size_of_pictures)
        => ({name}[batch_size, height, width] class_map)
    {{{CANDIDATES}
        count = Size (candidates)
        batch_size_alone = Shape <start = 0, end = 1> (logits_of_model)
        shape = Concat <axis = 0> (batch_size_alone, one, size_of_pictures)
        no_scores = Expand (lowest, shape)
        no_classes = Expand (class_zero, shape)
        best, classes = Loop <body = choose
            (int64 index, bool goes_on, float[b, 1, h, w] best_yet, {name}[b, 1, h, w] classes_yet)
            => (bool still_goes_on, float[b, 1, h, w] best_now, {name}[b, 1, h, w] classes_now)
        {{
            still_goes_on = Identity (goes_on)
            place = Unsqueeze (index, zero)
            candidate = Gather <axis = 0> (candidates, place)
            logits_of_class = Gather <axis = 1> (logits_of_model, candidate)
            enlarged = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
                (logits_of_class, "", "", shape)
            is_better = Greater (enlarged, best_yet)
            best_now = Where (is_better, enlarged, best_yet)
            class_id = Cast <to = {code}> (candidate)
            classes_now = Where (is_better, class_id, classes_yet)
        }}> (count, "", no_scores, no_classes)
        class_map = Squeeze (classes, one)
    }}"""
    return parse(text, constants, ir_version, opset)


def corners_of_cells() -> str:
    """
    Cells between four neighbouring logits of which not all have the same greatest class, and their logits,
    `(num_cells, num_labels)`: `here`, to the `right`, `below`, and `across`. One more cell keeps them from being none.
    """
    lines = """
        winners = ArgMax <axis = 1, keepdims = 0> (logits_of_model)"""
    for axis, side in ((2, "row"), (3, "column")):
        lines += f"""
        {side}_length = Shape <start = {axis}, end = {axis + 1}> (logits_of_model)
        {side}_count = Squeeze ({side}_length)
        {side}_places = Range (first, {side}_count, step)
        {side}_last = Sub ({side}_length, one)
        {side}_free = Add ({side}_places, one)
        {side}_next = Min ({side}_free, {side}_last)"""
    return (
        lines
        + """
        winners_right = Gather <axis = 2> (winners, column_next)
        winners_below = Gather <axis = 1> (winners, row_next)
        winners_across = Gather <axis = 2> (winners_below, column_next)
        equal_right = Equal (winners, winners_right)
        equal_below = Equal (winners, winners_below)
        equal_across = Equal (winners, winners_across)
        equal_both = And (equal_right, equal_below)
        is_clear = And (equal_both, equal_across)
        is_doubtful = Not (is_clear)
        doubtful = NonZero (is_doubtful)
        cells = Concat <axis = 1> (doubtful, first_cell)
        images, rows, columns = Split <num_outputs = 3> (cells)
        next_rows = Gather (row_next, rows)
        next_columns = Gather (column_next, columns)
        labels_behind = Transpose <perm = [0, 2, 3, 1]> (logits_of_model)"""
        + "".join(
            f"""
        {corner}_indices = Concat <axis = 0> (images, {row}, {column})
        {corner}_places = Transpose ({corner}_indices)
        {corner} = GatherND (labels_behind, {corner}_places)
        {corner}_winner = ArgMax <axis = 1> ({corner})"""
            for corner, row, column in (
                ("here", "rows", "columns"),
                ("right", "rows", "next_columns"),
                ("below", "next_rows", "columns"),
                ("across", "next_rows", "next_columns"),
            )
        )
    )


def beaten_by(rival: str) -> str:
    """The classes that a rival beats at all four corners of a cell, and so everywhere in it, `(cells, num_labels)`."""
    less = "".join(
        f"""
        {rival}_is_greater_{corner} = Less ({corner}, {rival}_{corner})"""
        for corner in CORNERS
    )
    return f"""{less}
        {rival}_beats_above = And ({rival}_is_greater_here, {rival}_is_greater_right)
        {rival}_beats_below = And ({rival}_is_greater_below, {rival}_is_greater_across)
        {rival}_beats = And ({rival}_beats_above, {rival}_beats_below)"""


def find_candidates() -> str:
    """
    The classes that may win at any pixel, `(num_candidates,)`, in ascending order: those that win at a logit, and in
    cells whose corners disagree those that neither one of the winners beats, nor their mean, than which one of them is
    greater.
    """
    lines = corners_of_cells()
    for rival in CORNERS:
        lines += "".join(
            f"""
        {rival}_{corner} = GatherElements <axis = 1> ({corner}, {rival}_winner)"""
            for corner in CORNERS
        ) + beaten_by(rival)
    lines += "".join(
        f"""
        mean_{corner} = Mean ({", ".join(f"{rival}_{corner}" for rival in CORNERS)})"""
        for corner in CORNERS
    )
    return (
        lines
        + beaten_by("mean")
        + """
        beaten_above = Or (here_beats, right_beats)
        beaten_below = Or (below_beats, across_beats)
        beaten_by_one = Or (beaten_above, beaten_below)
        is_beaten = Or (beaten_by_one, mean_beats)
        may_win = Not (is_beaten)
        pairs = NonZero (may_win)
        cells_of_pairs, classes_of_pairs = Split <num_outputs = 2> (pairs)
        more_candidates = Reshape (classes_of_pairs, last_axis)
        all_winners = Reshape (winners, last_axis)
        repeated = Concat <axis = 0> (all_winners, more_candidates)
        candidates = Unique <sorted = 1> (repeated)"""
    )


CANDIDATES = find_candidates()
