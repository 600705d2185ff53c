# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""`pipeline("image-segmentation")` against the processor and the model called by hand."""

import builtins

import numpy as np
import PIL.Image
import pytest
import torch
from huggingface_hub import ImageSegmentationOutputElement
from torch.nn import functional as F
from transformers import AutoModel, AutoProcessor, pipeline
from transformers.testing_utils import compare_pipeline_output_to_hub_spec

from modeling_denseclip import DenseCLIPImageProcessor, multi_scale_inference
from tests.tiny import TINY_CLASS_NAMES, draw_picture, spread_classes, tiny_model


SIZE = {"shortest_edge": 96, "longest_edge": 160}
CANVAS = {"height": 160, "width": 160}
# Width and height; the last is so long that its longer edge decides.
PICTURE_SIZES = ((120, 90), (90, 120), (64, 64), (133, 71), (400, 101))


def save_model(kind: str, directory, **processor_kwargs):
    processor = DenseCLIPImageProcessor(size=SIZE, **processor_kwargs)
    reference = [draw_picture(160, 128, seed) for seed in range(100, 104)]
    pixel_values = DenseCLIPImageProcessor(size=SIZE)(reference, return_tensors="pt").pixel_values
    model = spread_classes(tiny_model(kind), pixel_values)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return model, processor


@pytest.fixture(scope="module", params=["resnet", "vit"])
def saved(request, tmp_path_factory):
    """(kind, directory, model, processor)"""
    directory = tmp_path_factory.mktemp(request.param)
    return request.param, directory, *save_model(request.param, directory)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of different sizes."""
    directory = tmp_path_factory.mktemp("pictures")
    for index, (width, height) in enumerate(PICTURE_SIZES):
        draw_picture(width, height, seed=index).save(directory / f"{index}.png")
    return [str(path) for path in sorted(directory.iterdir())]


def load_pipeline(directory, **kwargs):
    return pipeline("image-segmentation", model=str(directory), trust_remote_code=True, device="cpu", **kwargs)


def as_map(segments, size) -> np.ndarray:
    """Class ids from the segments of one picture; fails unless they cover each pixel once."""
    width, height = size
    class_ids = np.full((height, width), -1)
    for segment in segments:
        mask = np.asarray(segment["mask"])
        assert mask.shape == (height, width) and set(np.unique(mask)) == {0, 255}
        assert (class_ids[mask > 0] == -1).all()
        class_ids[mask > 0] = TINY_CLASS_NAMES.index(segment["label"])
    assert (class_ids >= 0).all()
    return class_ids


@torch.no_grad()
def segment_by_hand(model, processor, picture) -> np.ndarray:
    outputs = model(**processor(picture, return_tensors="pt"))
    return processor.post_process_semantic_segmentation(outputs, target_sizes=[picture.size[::-1]])[0].numpy()


def test_a_list_of_files_of_different_sizes(saved, pictures):
    _, directory, model, processor = saved
    results = load_pipeline(directory)(pictures)
    seen = set()
    for index, segments in enumerate(results):
        picture = draw_picture(*PICTURE_SIZES[index], seed=index)
        class_ids = as_map(segments, picture.size)
        assert np.array_equal(class_ids, segment_by_hand(model, processor, picture))
        seen.update(np.unique(class_ids))
    assert seen == set(range(len(TINY_CLASS_NAMES))), "the test's model must find every class somewhere"


def test_masks_and_scores_by_a_plain_computation(saved, pictures):
    """Logits enlarged by torch in one piece; a score is the mean probability at the nearest logits of its pixels."""
    _, directory, model, processor = saved
    for index, segments in enumerate(load_pipeline(directory)(pictures)):
        picture = draw_picture(*PICTURE_SIZES[index], seed=index)
        with torch.no_grad():
            logits = model(processor(picture, return_tensors="pt").pixel_values).logits
        probabilities = F.interpolate(logits.softmax(dim=1), size=picture.size[::-1], mode="nearest-exact")[0]
        logits = F.interpolate(logits, size=picture.size[::-1], mode="bilinear", align_corners=False)[0]
        class_ids = logits.argmax(dim=0)
        differ = as_map(segments, picture.size) != class_ids.numpy()
        assert differ.mean() < 1e-3, "only ties may be decided otherwise"
        assert [segment["label"] for segment in segments] == [TINY_CLASS_NAMES[i] for i in class_ids.unique().tolist()]
        for segment in segments:
            own = probabilities[TINY_CLASS_NAMES.index(segment["label"])][np.asarray(segment["mask"]) > 0]
            assert segment["score"] == pytest.approx(own.mean().item(), abs=1e-5)


def test_subtask_semantic_gives_the_same_masks_without_scores(saved, pictures):
    _, directory, *_ = saved
    segmenter = load_pipeline(directory)
    with_scores, without = segmenter(pictures[0]), segmenter(pictures[0], subtask="semantic")
    assert [segment["score"] for segment in without] == [None] * len(without)
    for first, second in zip(with_scores, without, strict=True):
        assert first["label"] == second["label"] and first["mask"].tobytes() == second["mask"].tobytes()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L"])
def test_what_is_asked_of_every_segmentation_model(mode, saved):
    """By Transformers' own test of the pipeline, which its source distribution leaves out."""
    _, directory, model, processor = saved
    segmenter = load_pipeline(directory)
    picture = draw_picture(120, 90, seed=3).convert(mode)
    options = {"threshold": 0.0, "mask_threshold": 0.0, "overlap_mask_area_threshold": 0.0}
    segments = segmenter(picture, **options)
    for segment in segments:
        compare_pipeline_output_to_hub_spec(segment, ImageSegmentationOutputElement)
        assert isinstance(segment["score"], float) and isinstance(segment["label"], str)
        assert isinstance(segment["mask"], PIL.Image.Image)
    by_hand = segment_by_hand(model, processor, picture.convert("RGB"))
    assert np.array_equal(as_map(segments, picture.size), by_hand)
    for batch in segmenter([picture] * 5, batch_size=2, **options):
        assert [segment["label"] for segment in batch] == [segment["label"] for segment in segments]
        assert (as_map(batch, picture.size) != by_hand).mean() < 1e-3, "only ties may be decided otherwise"


def test_instances_are_refused(saved, pictures):
    with pytest.raises(ValueError, match="Subtask instance is not supported"):
        load_pipeline(saved[1])(pictures[0], subtask="instance")


def test_different_sizes_need_padding_to_share_a_batch(saved, pictures):
    _, directory, *_ = saved
    with pytest.raises(RuntimeError, match="must match"):
        load_pipeline(directory)(pictures, batch_size=4)


def test_batches_on_one_canvas_crop_the_padding(saved, pictures):
    """The model sees the padding, so the masks are those of padded pictures; they are laid out as the picture is."""
    _, directory, model, _ = saved
    processor = DenseCLIPImageProcessor(size=SIZE, do_pad=True, pad_size=CANVAS)
    segmenter = load_pipeline(directory, image_processor=processor)
    one_by_one, batched = segmenter(pictures), segmenter(pictures, batch_size=4)
    for index, (segments, same) in enumerate(zip(batched, one_by_one, strict=True)):
        picture = draw_picture(*PICTURE_SIZES[index], seed=index)
        class_ids = as_map(segments, picture.size)
        assert (class_ids != as_map(same, picture.size)).mean() < 1e-3  # other sums of other batch sizes

        # By hand: enlarge the canvas to where one of its pixels is one of the processed picture, crop, resize.
        inputs = processor(picture, return_tensors="pt")
        assert inputs.pixel_values.shape[-2:] == (CANVAS["height"], CANVAS["width"])
        height, width = processor.get_resized_size(*picture.size[::-1])
        with torch.no_grad():
            logits = model(**inputs).logits
        logits = F.interpolate(logits, size=tuple(CANVAS.values()), mode="bilinear")[..., :height, :width]
        by_hand = F.interpolate(logits, size=picture.size[::-1], mode="bilinear").argmax(dim=1)[0].numpy()
        # Two resizings by hand, one in the processor: borders of classes move by less than a pixel.
        assert (class_ids != by_hand).mean() < 0.02


def test_padding_changes_what_the_model_sees(saved, pictures):
    """Why padding is off unless asked for. The share is a reading, not a promise; weights are random here."""
    kind, directory, *_ = saved
    plain = load_pipeline(directory)(pictures)
    processor = DenseCLIPImageProcessor(size=SIZE, do_pad=True, pad_size=CANVAS)
    padded = load_pipeline(directory, image_processor=processor)(pictures)
    changed = total = 0
    for first, second, size in zip(plain, padded, PICTURE_SIZES, strict=True):
        changed += (as_map(first, size) != as_map(second, size)).sum()
        total += size[0] * size[1]
    print(f"{kind}: padding changes {changed / total:.1%} of the pixels")
    assert changed > 0


def test_a_canvas_that_fits_changes_nothing(saved):
    _, directory, model, processor = saved
    picture = draw_picture(160, 96, seed=3)
    padding = DenseCLIPImageProcessor(size=SIZE, do_pad=True, pad_size={"height": 96, "width": 160})
    assert np.array_equal(segment_by_hand(model, padding, picture), segment_by_hand(model, processor, picture))


def test_sliding_windows_are_a_setting_of_the_checkpoint(saved, tmp_path):
    """The pipeline cannot pass arguments to `forward`, so it takes the config's word."""
    _, directory, model, processor = saved
    window = {"inference_mode": "slide", "window_size": 64, "window_stride": 43}
    picture = draw_picture(400, 101, seed=4)
    inputs = processor(picture, return_tensors="pt")
    assert max(inputs.pixel_values.shape[-2:]) > 64
    with torch.no_grad():
        outputs = model(**inputs, **window)
    expected = processor.post_process_semantic_segmentation(outputs, [picture.size[::-1]])[0].numpy()
    whole = segment_by_hand(model, processor, picture)
    assert (expected != whole).any(), "the windows must matter, or the test proves nothing"

    given_at_loading = load_pipeline(directory, model_kwargs=window)
    assert np.array_equal(as_map(given_at_loading(picture), picture.size), expected)

    given_at_loading.model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert np.array_equal(as_map(load_pipeline(tmp_path)(picture), picture.size), expected)

    given_at_loading.model.config.inference_mode = "whole"
    assert np.array_equal(as_map(given_at_loading(picture), picture.size), whole)


def test_one_scale_of_multi_scale_testing_is_the_pipeline(saved):
    _, directory, model, processor = saved
    picture = draw_picture(120, 90, seed=5)
    pixel_values = processor(picture, return_tensors="pt").pixel_values
    probabilities = multi_scale_inference(model, pixel_values, scales=(1.0,), flip=False)
    logits = F.interpolate(model(pixel_values).logits, size=pixel_values.shape[-2:], mode="bilinear")
    torch.testing.assert_close(probabilities, logits.softmax(dim=1))
    segments = load_pipeline(directory)(picture)
    full_size = multi_scale_inference(model, pixel_values, (1.0,), False, picture.size[::-1]).argmax(dim=1)[0].numpy()
    assert (as_map(segments, picture.size) != full_size).mean() < 0.02  # twice resized


@pytest.mark.parametrize("answer", ["without an argument", "trust_remote_code=False", "objects"])
def test_without_trust_where_the_package_is_imported(answer, saved, monkeypatch):
    """
    Nothing of the checkpoint has to be run, since the package is here. Without the argument the library still asks
    whether it may: it looks for a video processor in every checkpoint with code of its own. "No" is a good answer.
    """
    _, directory, model, processor = saved
    questions = []
    monkeypatch.setattr(builtins, "input", lambda question: questions.append(question) or "n")
    if answer == "objects":
        segmenter = pipeline("image-segmentation", model=model, image_processor=processor, device="cpu")
    else:
        kwargs = {} if answer == "without an argument" else {"trust_remote_code": False}
        segmenter = pipeline("image-segmentation", model=str(directory), device="cpu", **kwargs)
    picture = draw_picture(120, 90, seed=6)
    assert np.array_equal(as_map(segmenter(picture), picture.size), segment_by_hand(model, processor, picture))
    assert type(segmenter.model) is type(model) and type(segmenter.image_processor) is type(processor)
    assert answer == "without an argument" or not questions


@pytest.mark.parametrize("kwargs", [{}, {"trust_remote_code": False}, {"trust_remote_code": True}])
def test_auto_classes_where_the_package_is_imported(kwargs, saved, monkeypatch):
    """As for SegFormer: what prepares images, though a tokenizer lies beside it. Nobody is asked."""
    monkeypatch.setattr(builtins, "input", lambda question: pytest.fail(question))
    _, directory, model, processor = saved
    assert type(AutoModel.from_pretrained(directory, **kwargs)) is type(model)
    assert type(AutoProcessor.from_pretrained(directory, **kwargs)) is type(processor)
    assert AutoProcessor.from_pretrained(directory, **kwargs).to_dict() == processor.to_dict()


def test_pipeline_logs_nothing(saved, caplog, capfd):
    """Not even that the class is unknown, which the library says of every model that is not its own."""
    from transformers.utils import logging

    _, directory, *_ = saved
    logging.enable_propagation()
    try:
        load_pipeline(directory)(draw_picture(120, 90))
    finally:
        logging.disable_propagation()
    assert [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
