# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
What holds for every input, tried on inputs that nobody thought of: Hypothesis makes them, and shrinks those that fail.

The same few are tried each time. `FUZZING=long pytest -n 0 tests/test_fuzzing.py` tries many others.
"""

import copy
import io
import json
import os
import shutil
import string
import struct
import zlib
from collections import Counter
from fractions import Fraction

import cv2
import datasets
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub.errors import StrictDataclassError
from hypothesis import HealthCheck, assume, event, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torch.nn import functional as F
from transformers.modeling_outputs import SemanticSegmenterOutput

from modeling_denseclip import (
    DenseCLIPConfig,
    DenseCLIPForSemanticSegmentation,
    DenseCLIPImageProcessor,
    tokenize_class_names,
)
from modeling_denseclip.modeling_denseclip_prompting import pack_prompts
from modeling_denseclip.tools.commands import info
from modeling_denseclip.tools.commands.info import collect
from modeling_denseclip.tools.files.loading import load_model, read_card_head
from modeling_denseclip.tools.files.photographs import read_photograph
from modeling_denseclip.tools.insight.complexity import measure
from tests.test_security import build_trainer
from tests.tiny import make_tiny_tokenizer, save_checkpoint, tiny_model
from training.data.findings import examine_pair
from training.data.load import check_for_training, load_data
from training.data.transforms import (
    ChangedRowError,
    EvaluationTransform,
    TrainingTransform,
    read_image,
    with_transform,
)
from training.inspect_dataset import draw_samples, inspect_dataset
from training.metrics import MeanIoU
from training.options.recipes import load_recipe
from training.run_onnx import read_picture


COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("quick", max_examples=60, derandomize=True, **COMMON)
settings.register_profile("long", max_examples=2000, **COMMON)
settings.load_profile(os.environ.get("FUZZING", "quick"))


def draw_random(draw):
    """A generator of numbers whose seed is drawn: for contents that are not worth shrinking."""
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


# -- images


sides = st.integers(1, 60)
resizings = st.one_of(
    st.fixed_dictionaries({"shortest_edge": sides}),
    st.fixed_dictionaries({"shortest_edge": sides, "longest_edge": sides}),
    st.fixed_dictionaries({"height": sides, "width": sides}),
)


@st.composite
def pictures(draw):
    """A picture of any 8-bit mode with its map of ids."""
    height, width = draw(sides), draw(sides)
    # A strip that grows to thousands of pixels only takes time.
    assume(max(height, width) <= 12 * min(height, width))
    random = draw_random(draw)
    rgb = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(rgb).convert(
        draw(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"]))
    )
    return picture, random.integers(0, 256, (height, width), dtype=np.uint8)


@given(st.data())
def test_pictures_and_maps_keep_together(data):
    """Sizes are those that are announced, ids are picked as OpenCV picks them, and a batch is its pictures."""
    batch = data.draw(st.lists(pictures(), min_size=1, max_size=3))
    processor = DenseCLIPImageProcessor(
        size=data.draw(resizings),
        do_resize=data.draw(st.booleans()),
        do_pad=data.draw(st.booleans()),
        do_reduce_labels=data.draw(st.booleans()),
    )
    images, maps = zip(*batch, strict=True)
    together = processor(list(images), segmentation_maps=list(maps))
    sizes = [processor.get_resized_size(*ids.shape) if processor.do_resize else ids.shape for ids in maps]
    canvas = tuple(max(side) for side in zip(*sizes, strict=True))
    for index, (image, ids) in enumerate(batch):
        pixel_values, labels = together["pixel_values"][index], together["labels"][index]
        height, width = sizes[index]
        assert pixel_values.shape == (3, *(canvas if processor.do_pad else sizes[index]))
        assert labels.shape == pixel_values.shape[1:] and np.isfinite(pixel_values).all()
        expected = ids.astype(np.int64)
        if processor.do_reduce_labels:
            expected = (expected.astype(np.uint8) - np.uint8(1)).astype(np.int64)  # 0 wraps around to 255
            expected[ids == 255] = 255
        if processor.do_resize:
            expected = cv2.resize(expected.astype(np.float64), (width, height), interpolation=cv2.INTER_NEAREST)
        assert (labels[:height, :width] == expected).all()
        # What is padded is nothing to learn from.
        assert (labels[height:] == 255).all() and (labels[:, width:] == 255).all()
        assert not pixel_values[:, height:].any() and not pixel_values[:, :, width:].any()
        alone = processor(image, do_pad=False)["pixel_values"][0]
        assert (pixel_values[:, :height, :width] == alone).all()


@given(st.data())
def test_layout_of_an_image_does_not_matter(data):
    picture = data.draw(pictures())[0].convert("RGB")
    processor = DenseCLIPImageProcessor(size=data.draw(resizings))
    expected = processor(picture)["pixel_values"][0]
    last = np.asarray(picture)
    first = last.transpose(2, 0, 1)
    convert = data.draw(st.sampled_from([np.asarray, torch.from_numpy, np.float32, np.int64, np.asfortranarray]))
    for layout, image in (("channels_last", last), ("channels_first", first)):
        image = convert(image.copy())
        assume(image.dtype in (np.uint8, torch.uint8) or image.max() > 1)  # floats up to 1 might be in [0, 1] already
        found = processor(image, input_data_format=layout)["pixel_values"][0]
        np.testing.assert_array_less(np.abs(found - expected), 0.02 if image.dtype == np.float32 else 1e-9)
        if not {1, 3, 4} & {image.shape[0] if layout == "channels_last" else image.shape[-1]}:
            np.testing.assert_array_equal(processor(image)["pixel_values"][0], found)


@given(st.data())
def test_ids_come_back_through_logits_of_any_canvas(data):
    """A map made into logits on a padded canvas, and back."""
    maps = data.draw(
        st.lists(st.tuples(sides, sides), min_size=1, max_size=3).map(
            lambda shapes: [np.random.default_rng(0).integers(0, 4, shape) for shape in shapes]
        )
    )
    largest = [max(side) for side in zip(*(ids.shape for ids in maps), strict=True)]
    pad_size = data.draw(
        st.none()
        | st.fixed_dictionaries({"height": st.integers(largest[0], 90), "width": st.integers(largest[1], 90)})
    )
    processor = DenseCLIPImageProcessor(do_resize=False, do_pad=True, pad_size=pad_size)
    images = [np.zeros((*ids.shape, 3), np.uint8) for ids in maps]
    labels = processor(images, segmentation_maps=maps, input_data_format="channels_last", return_tensors="pt")[
        "labels"
    ]
    # The padding looks like a fifth class, of which nothing may reach a map.
    logits = F.one_hot(labels.clamp(max=4), 5).movedim(-1, 1).float()
    outputs = SemanticSegmenterOutput(logits=logits)
    target_sizes = [ids.shape for ids in maps]
    found = processor.post_process_semantic_segmentation(outputs, target_sizes=target_sizes)
    for ids, segmentation in zip(maps, found, strict=True):
        assert segmentation.tolist() == ids.tolist()


@given(st.data())
def test_map_has_the_size_of_its_picture_and_no_class_of_the_padding(data):
    shapes = data.draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=3))
    assume(all(max(shape) <= 12 * min(shape) for shape in shapes))
    processor = DenseCLIPImageProcessor(size=data.draw(resizings), do_pad=True)
    sizes = [processor.get_resized_size(*shape) for shape in shapes]
    canvas = tuple(max(side) for side in zip(*sizes, strict=True))
    logits = torch.zeros(len(shapes), 3, *canvas)
    for index, (height, width) in enumerate(sizes):
        logits[index, 2] = 100  # the padding
        logits[index, 2, :height, :width] = 0
        logits[index, index % 2, :height, :width] = 1
    outputs = SemanticSegmenterOutput(logits=logits)
    for index, segmentation in enumerate(processor.post_process_semantic_segmentation(outputs, shapes)):
        assert segmentation.shape == shapes[index] and (segmentation == index % 2).all()
    for index, result in enumerate(processor.post_process_panoptic_segmentation(outputs, target_sizes=shapes)):
        assert result["segmentation"].shape == shapes[index]
        assert [segment["id"] for segment in result["segments_info"]] == [index % 2]


# -- sliding windows


@st.composite
def windows(draw):
    """Sizes of an image and a window, and a stride that the window allows."""
    size = tuple(draw(st.integers(1, 30)) for _ in range(2))
    window = tuple(draw(st.integers(1, 40)) for _ in range(2))
    stride = tuple(draw(st.integers(1, side)) for side in window)
    return size, window, stride


@pytest.fixture(scope="module")
def segmenter():
    return tiny_model("shallow").eval()


@given(windows(), st.integers(1, 5))
def test_windows_of_a_network_that_sees_single_pixels_are_the_whole_image(segmenter, geometry, batch_size):
    """Each window gives what stands in its own place, so all windows agree, and every pixel is in one."""
    size, window, stride = geometry
    model = copy.copy(segmenter)
    model.config = copy.copy(segmenter.config)
    model.config.window_batch_size = batch_size
    model.segment = lambda pixel_values: SemanticSegmenterOutput(logits=pixel_values)
    pixel_values = torch.arange(2 * 3 * size[0] * size[1], dtype=torch.float32).reshape(2, 3, *size)
    torch.testing.assert_close(model.slide(pixel_values, window, stride), pixel_values, rtol=1e-6, atol=0)


@given(windows())
def test_windows_of_any_network_are_averaged_pixel_by_pixel(segmenter, geometry):
    size, window, stride = geometry
    model = copy.copy(segmenter)
    # A network that sees all of its window: its mean, everywhere.
    model.segment = lambda pixel_values: SemanticSegmenterOutput(
        logits=pixel_values.mean(dim=(2, 3), keepdim=True).expand_as(pixel_values)
    )
    pixel_values = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
    sides = [min(*pair) for pair in zip(size, window, strict=True)]
    # From the left, as far apart as the stride says, until the image ends; what would stand out is moved back.
    starts = []
    for length, side, step in zip(size, sides, stride, strict=True):
        starts.append([0])
        while starts[-1][-1] + side < length:
            starts[-1].append(min(starts[-1][-1] + step, length - side))
    image = pixel_values[0, 0].double().numpy()
    expected = np.zeros(size)
    for row, column in np.ndindex(*size):
        expected[row, column] = np.mean(
            [
                image[top : top + sides[0], left : left + sides[1]].mean()
                for top in starts[0]
                for left in starts[1]
                if top <= row < top + sides[0] and left <= column < left + sides[1]
            ]
        )
    found = model.slide(pixel_values, window, stride)[0, 0].double().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@settings(max_examples=settings().max_examples // 5)
@given(st.data())
@torch.no_grad()
def test_a_window_as_large_as_the_image_is_the_whole_image(segmenter, data):
    size = tuple(data.draw(st.integers(32, 80)) for _ in range(2))
    window = tuple(data.draw(st.integers(side, 100)) for side in size)
    stride = tuple(data.draw(st.integers(1, side)) for side in window)
    pixel_values = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    options = {"inference_mode": "slide", "window_size": window, "window_stride": stride}
    expected = segmenter(pixel_values)
    assert torch.equal(segmenter(pixel_values, **options).logits, expected.logits)
    expected = DenseCLIPImageProcessor().post_process_semantic_segmentation(expected, target_sizes=[size])
    assert torch.equal(segmenter.segment_classes(pixel_values, **options), torch.stack(expected))


@given(st.data())
def test_windows_with_gaps_between_them_are_refused(segmenter, data):
    window = tuple(data.draw(st.integers(-5, 100)) for _ in range(2))
    stride = tuple(data.draw(st.integers(-5, 120)) for _ in range(2))
    assume(min(window) < 32 or min(stride) < 1 or stride[0] > window[0] or stride[1] > window[1])
    with pytest.raises(ValueError, match="must be positive and at most"):
        segmenter(torch.zeros(1, 3, 150, 150), inference_mode="slide", window_size=window, window_stride=stride)


# -- the metric


@st.composite
def label_maps(draw):
    """Maps of any size and integer type with few different ids, all of them classes or not, and a metric's options."""
    classes = st.lists(st.integers(0, 3), min_size=1, max_size=4)
    strange = st.sampled_from([254, 255, 256, 300, 65535, -1, -100, -32768]) | st.integers(-32768, 65535)
    ignore_index = draw(st.sampled_from([255] * 5 + [0, -100, 7]))
    predicted, labelled = draw(classes), [*draw(classes), 0, ignore_index]
    if draw(st.integers(0, 3)) == 3:
        labelled += draw(st.lists(strange, min_size=1, max_size=3))
        predicted += draw(st.lists(strange, max_size=1))
    renamed = st.dictionaries(st.sampled_from(labelled), st.sampled_from(labelled), min_size=1, max_size=3)
    maps = []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(arrays.array_shapes(min_dims=1, max_dims=2, min_side=2, max_side=30) | st.just((0, 5)))
        pair = []
        for ids in (predicted, labelled):
            kind = np.dtype(draw(st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])))
            fitting = [one for one in ids if np.iinfo(kind).min <= one <= np.iinfo(kind).max] or [0]
            flat = draw_random(draw).choice(fitting, int(np.prod(shape)))
            # Regions or noise: runs of equal pairs are counted otherwise than single pixels.
            flat = flat.repeat(draw(st.sampled_from([1, 9])))[: len(flat)]
            pair.append(flat.reshape(shape).astype(kind))
        maps.append(tuple(pair))
    options = {
        "num_labels": draw(st.sampled_from([4, 4, 2, 301])),
        "ignore_index": ignore_index,
        "reduce_labels": draw(st.booleans()),
        "label_map": draw(st.none() | renamed),
    }
    return maps, options


def count_naively(maps, num_labels, ignore_index, reduce_labels, label_map):
    """One pixel after the other; `None` for an id that is no class."""
    counts = Counter()
    for prediction, reference in maps:
        for predicted, label in zip(prediction.ravel().tolist(), reference.ravel().tolist(), strict=True):
            label = (label_map or {}).get(label, label)
            if reduce_labels:
                label = 255 if label in (0, 255) else label - 1
            if label == ignore_index:
                continue
            if not (0 <= label < num_labels and 0 <= predicted < num_labels):
                return None
            counts[label, predicted] += 1
    return counts


@given(label_maps())
def test_metric_counts_as_a_loop_over_pixels(case):
    maps, options = case
    metric = MeanIoU()
    metric.add_batch(predictions=[pair[0] for pair in maps[:1]], references=[pair[1] for pair in maps[:1]])
    rest = {"predictions": [pair[0] for pair in maps[1:]], "references": [pair[1] for pair in maps[1:]]}
    counts = count_naively(maps, **options)
    if counts is None:
        with pytest.raises(ValueError, match=r"Found the (label|prediction) -?\d+"):
            metric.compute(**rest, **options)
        return
    results = metric.compute(**rest, **options)
    classes = range(options["num_labels"])
    labelled, predicted = Counter(), Counter()
    for (label, prediction), number in counts.items():
        labelled[label] += number
        predicted[prediction] += number
    ious = {
        k: Fraction(counts[k, k], labelled[k] + predicted[k] - counts[k, k])
        for k in classes
        if labelled[k] + predicted[k]
    }
    accuracies = {k: Fraction(counts[k, k], labelled[k]) for k in classes if labelled[k]}
    total = labelled.total()

    def mean(values):
        return float(sum(values) / len(values)) if values else np.nan

    expected = {
        "mean_iou": mean(ious.values()),
        "mean_accuracy": mean(accuracies.values()),
        "overall_accuracy": sum(counts[k, k] for k in classes) / total if total else np.nan,
        "frequency_weighted_iou": float(sum(ious[k] * labelled[k] for k in ious) / total) if total else np.nan,
        "num_classes_present": len(accuracies),
        "per_category_iou": [float(ious.get(k, np.nan)) for k in classes],
        "per_category_accuracy": [float(accuracies.get(k, np.nan)) for k in classes],
    }
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(results[name], value, rtol=1e-12, err_msg=name)


# -- class names


names = st.text(max_size=12) | st.text(string.ascii_letters + "_ -", max_size=12)


@given(st.lists(names, max_size=5))
def test_any_names_become_prompts_or_are_refused(class_names):
    tokenizer = make_tiny_tokenizer()
    try:
        token_ids = tokenize_class_names(class_names, tokenizer)
        packed = pack_prompts(class_names, token_ids, 4, "before_name", 40)
    except ValueError as error:
        assert str(error)
        return
    assert len(token_ids) == len(set(token_ids)) == len(packed.prompt_index) == len(class_names) > 0
    assert len(packed.token_ids) == len(set(packed.token_ids))
    for ids, prompt in zip(token_ids, packed.prompt_index, strict=True):
        assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id and len(ids) > 2
        sequence, place = divmod(prompt, len(packed.end_index[0]))
        end = packed.end_index[sequence][place]
        # From the end of a prompt backwards stand its tokens, one position after the other.
        own = [packed.source_index[sequence][end - back] - 4 for back in range(len(ids) - 1)]
        assert [packed.token_ids[index] for index in own] == list(ids[:0:-1])
        assert packed.position_ids[sequence][end] == 4 + len(ids) - 1


@settings(max_examples=settings().max_examples // 2)
@given(st.lists(names, min_size=1, max_size=4))
@example(["wall", "wall"])
@example(["wall", "\ud800"])
@torch.no_grad()
def test_a_model_takes_names_whole_or_not_at_all(segmenter, class_names):
    model = copy.deepcopy(segmenter)
    pixel_values = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before, fields = model(pixel_values).logits, model.config.to_dict()
    try:
        model.set_class_names(class_names, make_tiny_tokenizer())
    except ValueError:
        assert model.config.to_dict() == fields
        assert torch.equal(model(pixel_values).logits, before)
        return
    outputs = model(pixel_values)
    assert outputs.logits.shape[1] == outputs.score_map.shape[1] == len(class_names)
    assert outputs.logits.isfinite().all()
    assert list(model.config.id2label.values()) == class_names
    DenseCLIPConfig.from_dict(json.loads(model.config.to_json_string()))


# -- headers


# Numbers that stand for sizes are small, so that what is accepted needs no memory.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 40) | st.floats(max_value=100) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    image_processor = DenseCLIPImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    return save_checkpoint(tiny_model("shallow"), image_processor, tmp_path_factory.mktemp("checkpoint"))


new_keys = st.text(string.ascii_lowercase + " é", max_size=10)


def write_changed(source, data, nested=()):
    """A JSON file with one or two of its values, of what is nested in it, or new ones, replaced by any."""
    content = json.loads(source.read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(["", *nested]))
        section = content[name] if name else content
        assume(isinstance(section, dict))
        key = data.draw(st.sampled_from(sorted(section)) | new_keys)
        assume(not (name and key in ("id2label", "label2id")))
        section[key] = data.draw(json_values)
    return json.dumps(content)


@given(st.data())
def test_any_config_file_is_read_or_refused(checkpoint, tmp_path, data):
    text = write_changed(checkpoint / "config.json", data, nested=("text_config", "vision_config"))
    (tmp_path / "config.json").write_text(text)
    try:
        config = DenseCLIPConfig.from_pretrained(tmp_path)
    except (ValueError, StrictDataclassError) as error:
        assert str(error)
        return
    # What was read can be written, and is read as the same.
    config.save_pretrained(tmp_path)
    assert DenseCLIPConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


@given(st.data())
def test_any_preprocessor_file_is_read_or_refused(checkpoint, tmp_path, data):
    (tmp_path / "preprocessor_config.json").write_text(write_changed(checkpoint / "preprocessor_config.json", data))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    try:
        processor = DenseCLIPImageProcessor.from_pretrained(tmp_path)
        pixel_values = processor(picture, return_tensors="np")["pixel_values"]
    except (ValueError, StrictDataclassError) as error:
        assert str(error)
        return
    assert pixel_values.ndim == 4 and pixel_values.dtype == np.float32 and np.isfinite(pixel_values).all()


sections = st.sampled_from(["paper", "model", "data", "training", "hardware"]) | st.text(max_size=6)
keys = st.sampled_from(["learning_rate", "max_steps", "config", "crop_size", "table", "8gpu"]) | st.text(max_size=6)


@given(
    st.dictionaries(sections, st.dictionaries(keys, json_values, max_size=3) | json_values, max_size=3) | json_values
)
def test_any_recipe_is_read_or_refused(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    try:
        recipe = load_recipe(path)
        words = recipe.words()
    except ValueError as error:
        assert "recipe.yaml" in str(error)
        return
    assert all(isinstance(word, str) for word in words)


@given(st.binary(max_size=60) | st.text("{}[]:-&*!|>'\"%@` \n\tab1.~", max_size=30).map(str.encode))
@example(b"{}")
def test_any_bytes_as_a_recipe_are_refused(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    try:
        load_recipe(path)
    except ValueError as error:
        assert "recipe.yaml" in str(error)
        return
    assert not any(yaml.safe_load(content).values())  # a recipe of nothing


@st.composite
def damages(draw):
    """How a file is damaged: cut off, or some bytes of its head others."""
    if draw(st.booleans()):
        return draw(st.integers(0, 2**40)), ()
    return None, draw(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), min_size=1, max_size=3))


def types_in(content):
    """The types in the head of a file of safetensors, or `None` where it cannot be read."""
    try:
        length = int.from_bytes(content[:8], "little")
        return sorted(entry.get("dtype", "") for entry in json.loads(content[8 : 8 + length]).values())
    except (ValueError, AttributeError):
        return None


@settings(max_examples=settings().max_examples // 3)
@given(damages())
def test_a_damaged_checkpoint_is_refused_or_reported(checkpoint, tmp_path, damage):
    """Never a model with other weights than those that were saved, but for those that the loading report names."""
    length, flips = damage
    content = bytearray((checkpoint / "model.safetensors").read_bytes())
    types = types_in(content)
    if length is not None:
        content = content[: length % len(content)]
    for place, mask in flips:
        content[place] ^= mask
    # An integer in place of a real number of the same width is as good as another number there.
    assume(types_in(content) in (types, None))
    shutil.copy(checkpoint / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    try:
        model, report = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    except (ValueError, OSError, RuntimeError) as error:
        assert str(tmp_path) in str(error)
        return
    expected = DenseCLIPForSemanticSegmentation.from_pretrained(checkpoint).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]) or name in report["missing_keys"], name


# -- photographs and masks


SIDE = 40  # the least that any of the encoders here takes, and some
ORIENTATION = 0x0112
file_forms = st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
small_numbers = st.integers(0, 9) | st.integers(-(2**31), 2**32 - 1)


@st.composite
def exif_entries(draw):
    """One tag of EXIF as it lies in a file: often the orientation, of any type, with any number of values."""
    tag = draw(
        st.sampled_from([ORIENTATION] * 3 + [0x0100, 0x0101, 0x011A, 0x0128, 0x8769, 0xA002]) | st.integers(0, 65535)
    )
    kind = draw(st.sampled_from([3, 3, 3, 4]) | st.integers(0, 20))
    number = draw(st.sampled_from([1, 1, 1, 0, 2, 5]) | st.integers(0, 2**32 - 1))
    value = draw(st.integers(0, 9).map(lambda number: struct.pack("<I", number)) | st.binary(min_size=4, max_size=4))
    return struct.pack("<HHI", tag, kind, number) + value


@st.composite
def exif_blocks(draw):
    """EXIF of random tags, all of it, or cut off, or hit by chance."""
    entries = draw(st.lists(exif_entries(), max_size=5))
    behind = draw(st.binary(max_size=20))
    block = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4) + behind
    if draw(st.integers(0, 3)) == 0:
        block = bytearray(block)
        for place, value in draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4)):
            block[place % len(block)] = value
        block = bytes(block[: draw(st.integers(0, len(block)))])
    return b"Exif\0\0" + block


xmp_blocks = st.builds(
    "<x:xmpmeta>{}tiff:Orientation{}{}{}</x:xmpmeta>".format,
    st.sampled_from(["", "<", "exif:"]),
    st.sampled_from(['="', ">", "='", " = "]),
    small_numbers,
    st.sampled_from(['"', "<", "'", ""]),
).map(str.encode) | st.binary(max_size=30)


def with_metadata(data: bytes, form: str, exif: bytes | None, xmp: bytes | None) -> bytes:
    """A JPEG or a PNG with metadata put in by hand, as Pillow writes none that is broken."""
    if form == "JPEG":
        blocks = [exif, None if xmp is None else b"http://ns.adobe.com/xap/1.0/\0" + xmp]
        segments = [b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block for block in blocks if block is not None]
        return data[:2] + b"".join(segments) + data[2:]
    chunks = [] if exif is None else [(b"eXIf", exif.removeprefix(b"Exif\0\0"))]
    chunks += [] if xmp is None else [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)]
    packed = [
        struct.pack(">I", len(block)) + name + block + struct.pack(">I", zlib.crc32(name + block))
        for name, block in chunks
    ]
    return data[:33] + b"".join(packed) + data[33:]


def read_at_all_doors(path):
    """What each reader of photographs makes of a file: pixels, or what it says."""
    found = {}
    for name, read in {
        "prediction": lambda: np.asarray(read_photograph(path)),
        "training": lambda: read_image({"path": str(path), "bytes": None}),
        "run_onnx.py": lambda: read_picture(path),
    }.items():
        try:
            found[name] = read()
        except (OSError, ValueError) as error:
            assert path.name in str(error), name
            found[name] = None
    facts, _, findings = examine_pair({"path": str(path), "bytes": None}, None, "The image", "The mask", 2, False)
    first = found["prediction"]
    for name, picture in found.items():
        assert (picture is None) == (first is None), name
        if picture is not None:
            assert picture.dtype == np.uint8 and picture.shape[2:] == (3,)
            np.testing.assert_array_equal(picture, first, err_msg=name)
    assert facts.is_read == (first is not None), findings
    if first is not None:
        assert facts.size == first.shape[1::-1]
    return first


# What turns an array upright, by the table of the EXIF standard.
TURNS = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def encode(picture: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


STORED = {form: encode(Image.fromarray(PIXELS), form) for form in ("JPEG", "PNG")}
STORED_PIXELS = {form: np.asarray(Image.open(io.BytesIO(data))) for form, data in STORED.items()}


@settings(max_examples=6 * settings().max_examples)
@given(st.sampled_from(["JPEG", "PNG"]), st.none() | exif_blocks(), st.none() | xmp_blocks)
@pytest.mark.filterwarnings("ignore")
def test_any_metadata_turns_a_photograph_or_not_and_alike_at_every_door(tmp_path, form, exif, xmp):
    """The pixels are whole, so that each is read: as it lies, or turned in one of seven ways."""
    path = tmp_path / "a.png"
    path.write_bytes(with_metadata(STORED[form], form, exif, xmp))
    picture, stored = read_at_all_doors(path), STORED_PIXELS[form]
    assert picture is not None
    assert any(np.array_equal(picture, turn(stored)) for turn in [lambda pixels: pixels, *TURNS.values()])


MODES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr"],
    "WEBP": ["RGB", "RGBA"],
    "BMP": ["1", "L", "P", "RGB", "RGBA"],
}
OPTIONS = {
    "PNG": [{}, {"compress_level": 0}, {"save_all": True}],
    "JPEG": [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 5}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}, {"save_all": True}],
    "WEBP": [{}, {"lossless": True}, {"save_all": True}],
    "BMP": [{}],
}


def in_mode(values: np.ndarray, mode: str) -> Image.Image:
    """A grey picture of these values, in any mode of Pillow."""
    types = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    if mode in types:
        return Image.fromarray(values.astype(types[mode]))
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


@st.composite
def encoded_pictures(draw):
    """A picture as a file of any of the five formats, of any mode and orientation."""
    form = draw(file_forms)
    mode, options = draw(st.sampled_from(MODES[form])), dict(draw(st.sampled_from(OPTIONS[form])))
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    picture = in_mode(draw_random(draw).integers(0, 256, (height, width)), mode)
    if options.get("save_all"):
        options["append_images"] = [picture.resize((width + 1, height)) if form == "TIFF" else picture.copy()]
    orientation = draw(st.sampled_from([None, None, 1, 3, 6, 7]))
    if orientation is not None and form != "BMP":
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION] = orientation
    return encode(picture, form, **options)


@settings(max_examples=2 * settings().max_examples)
@given(encoded_pictures(), st.none() | damages())
@pytest.mark.filterwarnings("ignore")
def test_any_picture_is_read_alike_at_every_door_or_refused_at_all(tmp_path, data, damage):
    if damage is not None:
        length, flips = damage
        data = bytearray(data if length is None else data[: length % len(data)])
        for place, mask in flips:
            data[place % len(data)] ^= mask
    path = tmp_path / "a.png"
    path.write_bytes(data)
    read_at_all_doors(path)


# -- data sets


seldom = st.sampled_from([None] * 7 + [True])


@st.composite
def masks(draw, size):
    """A mask as a file: mostly of ids of classes, sometimes of others, and of odd modes and forms."""
    height, width = size
    ids = draw_random(draw).choice([0, 1, 2, 3, 4, 255], (height, width))
    if draw(seldom) is None:
        return encode(Image.fromarray(ids.astype(np.uint8)), "PNG")
    strange = draw(st.sampled_from([None] * 4 + [5, 254, 255, 256, 65535, -1, 2**31 - 1]))
    form = draw(st.sampled_from(["PNG"] * 5 + ["TIFF", "TIFF", "JPEG", "BMP", "WEBP"]))
    mode = draw(st.sampled_from(["L"] * 3 + [None])) or draw(st.sampled_from(MODES[form]))
    if mode not in MODES[form]:
        mode = draw(st.sampled_from(MODES[form]))
    if strange is not None:
        ids[draw(st.sampled_from([np.s_[:], np.s_[0, 0]]))] = strange
    picture = in_mode(ids, mode)
    if mode == "P":
        picture = Image.fromarray(ids.astype(np.uint8))
        picture.putpalette(bytes(range(256)) * 3)
    options = {}
    if mode == "P" and form == "PNG" and draw(st.booleans()):
        options["transparency"] = 0
    if form in ("PNG", "TIFF") and draw(st.integers(0, 5)) == 0:
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION] = draw(st.integers(0, 9))
    if form == "PNG" and mode in ("L", "P") and draw(st.integers(0, 5)) == 0:
        options["bits"] = draw(st.sampled_from([1, 2, 4]))
    if form in ("PNG", "TIFF") and draw(st.integers(0, 7)) == 0:
        options |= {"save_all": True, "append_images": [picture.copy()]}
    return encode(picture, form, **options)


@st.composite
def images(draw, size):
    form = draw(st.sampled_from(["JPEG"] * 4) | file_forms)
    mode = draw(st.sampled_from(MODES[form])) if draw(seldom) or "RGB" not in MODES[form] else "RGB"
    values = draw_random(draw).integers(0, 256, size)
    data = encode(in_mode(values, mode), form)
    exif, xmp = (draw(blocks) if draw(seldom) else None for blocks in (exif_blocks(), xmp_blocks))
    return with_metadata(data, form, exif, xmp) if form in ("JPEG", "PNG") else data


@settings(max_examples=settings().max_examples // 3)
@given(st.data())
@pytest.mark.filterwarnings("ignore")
def test_inspection_accepts_what_training_accepts(tmp_path_factory, data):
    """All of a folder: both say yes, or both say no; and so do the rows of a data set that hold the same files."""
    folder = tmp_path_factory.mktemp("data")
    reduce_labels = data.draw(st.booleans())
    (folder / "classes.txt").write_text("wall\nsky\nroad\ntree\nsea")
    files = {}
    for split in ("training", "validation"):
        pairs = files[split] = []
        for index in range(data.draw(st.integers(1, 2))):
            height, width = SIDE, 4 if data.draw(seldom) else SIDE + 3
            size = (width, height) if data.draw(seldom) else (height, width)
            pairs.append((data.draw(images((height, width))), data.draw(masks(size))))
            for kind, content in zip(("images", "annotations"), pairs[-1], strict=True):
                path = folder / kind / split / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    report = inspect_dataset(folder, reduce_labels=reduce_labels, short_side=64, long_side=256, num_workers=0)
    processor = DenseCLIPImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 256}, do_reduce_labels=reduce_labels
    )
    (folder / "rows").mkdir()
    for split, pairs in files.items():
        features = datasets.Features({"image": datasets.Image(), "annotation": datasets.Image()})
        rows = {
            "image": [{"bytes": image} for image, _ in pairs],
            "annotation": [{"bytes": mask} for _, mask in pairs],
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "rows" / f"{split}.parquet")
    of_rows = {
        "dataset_name": str(folder / "rows"),
        "train_split": "train",
        "class_names_file": folder / "classes.txt",
    }
    for source in ({"data_dir": folder}, of_rows):
        try:
            loaded = load_data(**source, reduce_labels=reduce_labels, cache_dir=folder / "cache")
            check_for_training(loaded, processor)
            training = TrainingTransform(processor, (32, 32), num_labels=5)
            transforms = ((loaded.train, training), (loaded.validation, EvaluationTransform(processor, num_labels=5)))
            for rows, transform in transforms:
                with_transform(rows, transform)[:]
            is_accepted = True
        except (OSError, ValueError) as error:
            is_accepted = False
            assert not isinstance(error, ChangedRowError), error  # which the check should have found
            assert report.findings_of("error"), error
        assert is_accepted == report.accepted, report.findings
    if report.accepted:
        draw_samples(report, 4)
    event(f"{', '.join(report.findings_of('error')) or 'accepted'}")


# -- checkpoints from elsewhere


# As `json_values`, with numbers of which one would fill any memory. Nothing of their size may be made.
hostile_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.sampled_from([0, -1, 10**6, 10**9, 2**31, 2**62, 10**400])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["float16", "int8", "nn", "../x", "/etc/passwd", "model.safetensors", "\x1b[2J", "\0"]),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


def put(value, data):
    """A JSON value with one of its parts, at any depth, replaced or added."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 9)):
        key = data.draw(st.sampled_from(sorted(value)) | new_keys)
        return {**value, key: put(value.get(key), data)}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        index = data.draw(st.integers(0, len(value) - 1))
        return [*value[:index], put(value[index], data), *value[index + 1 :]]
    return data.draw(hostile_values)


@pytest.fixture
def elsewhere(checkpoint, measured_once, tmp_path):
    """A folder to damage: the files of a checkpoint, which may be replaced but not be written to."""
    folder = tmp_path / "elsewhere"

    def restore():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in checkpoint.iterdir():
            (folder / path.name).symlink_to(path)
        return folder

    return restore


@pytest.fixture(scope="module")
def measured_once():
    """Let `collect` count each architecture once: that depends on nothing else, and takes it most of its time."""
    measured = {}

    def measure_once(config, size):
        key = config.to_json_string(use_diff=False), size
        if key not in measured:
            measured[key] = measure(config, size)
        return measured[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(info, "measure", measure_once)
        yield


def put_file(path, content):
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def load_or_refuse(folder):
    """Both commands that read a checkpoint give a result, or one line that says what is wrong."""
    for read in (load_model, collect):
        try:
            read(str(folder))
        except (ValueError, OSError, ImportError) as error:
            assert str(error) and (isinstance(error, ImportError) or "\n" not in str(error))
            assert len(str(error)) < 1000


@settings(max_examples=settings().max_examples // 2)
@given(st.sampled_from(["config.json", "preprocessor_config.json"]), st.data())
def test_any_json_in_a_checkpoint_is_read_or_refused_in_a_line(checkpoint, elsewhere, name, data):
    folder = elsewhere()
    content = put(json.loads((checkpoint / name).read_text()), data)
    put_file(folder / name, json.dumps(content).encode())
    load_or_refuse(folder)


@settings(max_examples=settings().max_examples // 2)
@given(st.data())
def test_any_index_of_shards_is_read_or_refused_in_a_line(checkpoint, elsewhere, data):
    folder = elsewhere()
    (folder / "model.safetensors").rename(folder / "shard.safetensors")
    names = [name for name, _ in safetensors_head(checkpoint) if name != "__metadata__"]
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "shard.safetensors")}
    put_file(folder / "model.safetensors.index.json", json.dumps(put(index, data)).encode())
    load_or_refuse(folder)


def safetensors_head(checkpoint):
    content = (checkpoint / "model.safetensors").read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).items()


@settings(max_examples=settings().max_examples // 2)
@given(st.data())
def test_any_head_of_safetensors_is_read_or_refused_in_a_line(checkpoint, elsewhere, data):
    folder = elsewhere()
    content = (checkpoint / "model.safetensors").read_bytes()
    values = content[8 + int.from_bytes(content[:8], "little") :]
    head = json.dumps(put(dict(safetensors_head(checkpoint)), data)).encode()
    length = data.draw(st.just(len(head)) | st.integers(0, 2**64 - 1))
    put_file(folder / "model.safetensors", length.to_bytes(8, "little") + head + values)
    load_or_refuse(folder)


yaml_words = st.text("{}[]:-&*!|>'\"%@<` \n\tab1.~", max_size=40)


@given(
    st.binary(max_size=60) | yaml_words.map(str.encode) | hostile_values.map(lambda value: json.dumps(value).encode())
)
@example(b"license: &a [*a]")
@example(b"<<: [&a {b: 1}, *a]")
@example(b"license: 2001-13-01")
def test_any_head_of_a_card_is_read_or_refused_in_a_line(tmp_path, content):
    path = tmp_path / "README.md"
    path.write_bytes(b"---\n" + content + b"\n---\nA model.\n")
    try:
        head = read_card_head(path, "README.md")
    except ValueError as error:
        assert str(error).startswith("README.md is no valid YAML: ") and "\n" not in str(error)
        return
    assert isinstance(head, dict)


# -- checkpoints that a training goes on from


STATE_FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
WEIGHT_FILES = ("model.safetensors", "averaged_weights.safetensors")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A checkpoint of two steps, and the weights of the run that goes on from it to the third."""
    folder = tmp_path_factory.mktemp("stopped")
    build_trainer(folder, max_steps=2, logging_steps=1).train()
    return folder / "checkpoint-2", go_on(folder / "checkpoint-2")


def go_on(checkpoint) -> dict[str, torch.Tensor]:
    trainer = build_trainer(checkpoint.parent / "out", max_steps=3, logging_steps=1)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 3
    return trainer.model.state_dict()


def is_refused(checkpoint) -> dict[str, torch.Tensor] | None:
    """What becomes of a training that goes on; `None` if it is refused in a line that names the checkpoint."""
    try:
        return go_on(checkpoint)
    except (ValueError, OSError) as error:
        assert str(checkpoint) in str(error) and "\n" not in str(error), error
        return None


def places_in(value, path=()):
    """The paths to all that a nested value holds."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        yield from places_in(inner, (*path, key))


def replace(value, path, change):
    """A nested value in which `change` was made at one place. A key of a mapping that becomes `Ellipsis` is lost."""
    if not path:
        return change(value)
    key, *rest = path
    if isinstance(value, dict):
        changed = {**value, key: replace(value[key], rest, change)}
        return {name: inner for name, inner in changed.items() if inner is not ...}
    changed = [replace(inner, rest, change) if index == key else inner for index, inner in enumerate(value)]
    return type(value)(inner for inner in changed if inner is not ...)


strange_values = st.one_of(
    st.sampled_from([..., None, True, "", "step", [], {}, (), -1, 0, 3, 10**18, float("nan"), float("inf"), -1e-3]),
    st.text(max_size=5),
    st.integers(),
    st.floats(),
)
strange_tensors = st.sampled_from(
    [
        lambda tensor: torch.zeros(3),
        lambda tensor: torch.zeros_like(tensor)[..., None],
        lambda tensor: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor.float(),
        lambda tensor: torch.zeros_like(tensor, dtype=torch.int32),
        lambda tensor: torch.zeros_like(tensor, dtype=torch.complex64),
        lambda tensor: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape),
        lambda tensor: torch.zeros_like(tensor).to_sparse(),
        lambda tensor: torch.zeros_like(tensor, device="meta"),
        lambda tensor: -1 - tensor.abs() if tensor.is_floating_point() else tensor + 300,
        lambda tensor: tensor.flatten()[:-1],
        lambda tensor: tensor.tolist(),
    ]
)


@settings(max_examples=settings().max_examples // 2)
@given(st.data())
def test_a_checkpoint_that_was_tampered_with_is_refused_or_trains(stopped, tmp_path_factory, data):
    """No field of it, whatever it holds, ends a training by a traceback, a signal, or weights that are no numbers."""
    folder = shutil.copytree(stopped[0], tmp_path_factory.mktemp("tampered") / "checkpoint-2")
    name = data.draw(st.sampled_from([*STATE_FILES, "trainer_state.json"]))
    if name.endswith(".json"):
        value = json.loads((folder / name).read_text())
    else:
        value = torch.load(folder / name, weights_only=False)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places_in(value))))

        def change(found):
            if isinstance(found, torch.Tensor) and data.draw(st.booleans()):
                return data.draw(strange_tensors)(found)
            return data.draw(strange_values)

        value = replace(value, path, change)
    if name.endswith(".json"):
        (folder / name).write_text(json.dumps(value))
    else:
        torch.save(value, folder / name)
    weights = is_refused(folder)
    event("refused" if weights is None else f"trains with another {name}")
    assert weights is None or all(tensor.isfinite().all() for tensor in weights.values())
    shutil.rmtree(folder.parent)


@settings(max_examples=settings().max_examples // 2)
@given(st.data())
def test_a_checkpoint_that_was_damaged_is_refused_or_trains_alike(stopped, tmp_path_factory, data):
    """Bytes that are others, that are lost or too many. Safetensors have no checksum: there, numbers may differ."""
    folder = shutil.copytree(stopped[0], tmp_path_factory.mktemp("damaged") / "checkpoint-2")
    name = data.draw(st.sampled_from([*STATE_FILES, *WEIGHT_FILES, "trainer_state.json", "config.json"]))
    content = bytearray((folder / name).read_bytes())
    kind = data.draw(st.sampled_from(["flip", "flip", "cut", "append", "empty", "other"]))
    if kind == "flip":
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    elif kind == "append":
        content += data.draw(st.binary(min_size=1))
    else:
        content = b"" if kind == "empty" else (folder / data.draw(st.sampled_from(STATE_FILES))).read_bytes()
    (folder / name).write_bytes(content)
    weights = is_refused(folder)
    event(f"{kind}: {'refused' if weights is None else f'trains with another {name}'}")
    if weights is not None and name in STATE_FILES:
        assert all(torch.equal(tensor, stopped[1][key]) for key, tensor in weights.items())
    shutil.rmtree(folder.parent)
