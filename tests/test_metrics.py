# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The metric, against figures of mmseg and of the public metric, a naive loop and cases done by hand."""

import math
import pickle
import threading
import warnings
from collections import Counter
from pathlib import Path

import evaluate
import numpy as np
import PIL.Image
import pytest
import torch

from tests.fixtures.make_public_mean_iou import load_case, make_cases
from training.metrics import MeanIoU, confusion_matrix, mean_iou_from_confusion
from training.metrics.mean_iou import mean_iou as mean_iou_module
from training.metrics.mean_iou.mean_iou import JointCounts


FIXTURE = Path(__file__).parent / "fixtures" / "mean_iou.npz"
MODULE = Path(__file__).parents[1] / "training" / "metrics" / "mean_iou"


@pytest.fixture(scope="module")
def loaded_class():
    return type(evaluate.load(str(MODULE)))


def score(predictions, labels, num_labels, ignore_index=255):
    confusion = confusion_matrix(torch.as_tensor(predictions), torch.as_tensor(labels), num_labels, ignore_index)
    return mean_iou_from_confusion(confusion)


def test_agrees_with_mmseg_over_images_of_different_sizes():
    data = np.load(FIXTURE)
    num_labels = len(data["iou"])
    confusion = sum(
        confusion_matrix(torch.from_numpy(data[f"pred_{i}"]), torch.from_numpy(data[f"label_{i}"]), num_labels)
        for i in range(3)
    )
    scores = mean_iou_from_confusion(confusion)
    np.testing.assert_allclose(scores.iou, data["iou"], rtol=1e-12)
    np.testing.assert_allclose(scores.accuracy, data["acc"], rtol=1e-12)
    assert scores.overall_accuracy == pytest.approx(float(data["aacc"]), rel=1e-12)
    assert scores.mean_iou == pytest.approx(np.nanmean(data["iou"]), rel=1e-12)
    assert scores.mean_accuracy == pytest.approx(np.nanmean(data["acc"]), rel=1e-12)


def test_agrees_with_a_loop_over_pixels():
    generator = np.random.default_rng(0)
    labels = generator.choice([0, 1, 2, 3, 255], (17, 23))
    predictions = generator.integers(0, 4, (17, 23))
    expected = np.zeros((4, 4), dtype=int)
    for label, prediction in zip(labels.flat, predictions.flat, strict=True):
        if label != 255:
            expected[label, prediction] += 1
    confusion = confusion_matrix(torch.from_numpy(predictions), torch.from_numpy(labels), 4)
    assert confusion.tolist() == expected.tolist()
    for k in range(4):
        seen = labels != 255
        union = (((labels == k) | (predictions == k)) & seen).sum()
        both = ((labels == k) & (predictions == k)).sum()
        assert mean_iou_from_confusion(confusion).iou[k] == pytest.approx(both / union)


def test_small_case_by_hand():
    # Class 0: 2 labelled, 1 hit, no false alarm. Class 1: 2 labelled, 2 hit, 1 false alarm. One pixel is unlabelled.
    scores = score([[0, 1, 1, 1, 0]], [[0, 0, 1, 1, 255]], 2)
    np.testing.assert_allclose(scores.iou, [1 / 2, 2 / 3])
    np.testing.assert_allclose(scores.accuracy, [1 / 2, 1])
    assert (scores.mean_iou, scores.mean_accuracy, scores.overall_accuracy) == pytest.approx((7 / 12, 3 / 4, 3 / 4))


def test_class_that_is_nowhere_counts_in_no_mean():
    scores = score([0, 0], [0, 0], 3)
    assert scores.iou[0] == 1 and np.isnan(scores.iou[1:]).all() and np.isnan(scores.accuracy[1:]).all()
    assert scores.mean_iou == 1 and scores.mean_accuracy == 1


def test_class_that_is_only_predicted_has_iou_zero_and_no_accuracy():
    scores = score([0, 1], [0, 0], 2)
    assert scores.iou[1] == 0 and math.isnan(scores.accuracy[1])
    assert scores.mean_iou == pytest.approx(0.25) and scores.mean_accuracy == pytest.approx(0.5)


def test_nothing_labelled_is_nan_throughout():
    scores = score([0, 1], [255, 255], 2)
    means = (scores.mean_iou, scores.mean_accuracy, scores.overall_accuracy, scores.frequency_weighted_iou)
    assert all(map(math.isnan, (*means, *scores.iou, *scores.accuracy)))
    assert scores.num_classes_present == 0 and scores.pixels.tolist() == [0, 0]


def test_frequency_weighted_iou_and_what_is_present_by_hand():
    # Of class 0, three labelled pixels, two hit: 2 / 3. Class 1 is predicted once and never labelled. Class 2: 1 / 1.
    scores = score([0, 0, 1, 2], [0, 0, 0, 2], 4)
    assert scores.frequency_weighted_iou == pytest.approx((3 * 2 / 3 + 1 * 1) / 4)
    assert scores.num_classes_present == 2 and scores.pixels.tolist() == [3, 0, 1, 0]


def test_ignore_index_may_be_another_and_uint8_does_not_overflow():
    labels = torch.full((4,), 200, dtype=torch.uint8)
    assert confusion_matrix(labels.clone(), labels, 201, ignore_index=7)[200, 200] == 4
    assert confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, 7]), 2, ignore_index=7).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("labels, predictions", [([3], [0]), ([-1], [0]), ([0], [3]), ([0], [-1])])
def test_ids_out_of_range_are_refused(labels, predictions):
    with pytest.raises(ValueError, match=r"(3|-1); with 3 classes ids lie in \[0, 2\]"):
        score(predictions, labels, 3)


def test_different_sizes_are_refused():
    with pytest.raises(ValueError, match="resize the predictions"):
        score([[0, 0]], [[0], [0]], 1)


def assert_same_results(results, expected):
    assert results.keys() == {*expected, "frequency_weighted_iou", "num_classes_present"}
    for name, value in expected.items():
        np.testing.assert_allclose(results[name], value, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("case", make_cases())
def test_metric_gives_the_results_of_the_public_one(loaded_class, case):
    predictions, references, options, expected = load_case(case)
    at_once = MeanIoU()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_results(at_once.compute(predictions=predictions, references=references, **options), expected)
    streaming = loaded_class()
    streaming.add_batch(predictions=predictions[:1], references=references[:1])
    for prediction, reference in zip(predictions[1:], references[1:], strict=True):
        streaming.add(prediction=prediction, reference=reference)
    assert_same_results(streaming.compute(**options), expected)
    for of_maps_alone in (loaded_class(), MeanIoU()):
        assert_same_results(of_maps_alone._compute(predictions, references, **options), expected)


def test_metric_agrees_with_mmseg_in_any_order_and_through_confusion_matrices():
    data = np.load(FIXTURE)
    num_labels = len(data["iou"])
    metric = MeanIoU()
    metric.add(prediction=data["pred_2"], reference=data["label_2"])
    predictions, labels = torch.from_numpy(data["pred_0"]), torch.from_numpy(data["label_0"])
    metric.add_counts(confusion_matrix(predictions, labels, num_labels))
    results = metric.compute(
        predictions=[data["pred_1"]], references=[data["label_1"]], num_labels=num_labels, ignore_index=255
    )
    np.testing.assert_allclose(results["per_category_iou"], data["iou"], rtol=1e-12)
    np.testing.assert_allclose(results["per_category_accuracy"], data["acc"], rtol=1e-12)
    assert results["overall_accuracy"] == pytest.approx(float(data["aacc"]), rel=1e-12)


def counted_pairs(metric):
    """How often each (label, prediction) pair was counted."""
    ids, table = metric._counts.ids.tolist(), metric._counts.table
    return {(ids[row], ids[column]): int(table[row, column]) for row, column in table.nonzero().tolist()}


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("lowest, highest", [(0, 3), (100, 256), (0, 257), (-100, 300), (0, 900)])
@pytest.mark.parametrize("run_length", [1, 3, 16])
def test_runs_and_wide_ranges_of_ids_are_counted_as_a_loop_counts_them(
    run_length, lowest, highest, on_cpu, monkeypatch
):
    # The code for other devices runs on a CPU too.
    monkeypatch.setattr(mean_iou_module, "_is_on_cpu", lambda tensor: on_cpu)
    # Runs of 16 pixels are counted as runs, those of one pixel one by one. They end at the borders of rows or do not.
    generator = np.random.default_rng(0)
    stripes = generator.integers(lowest, highest, 20 * 48 // run_length).repeat(run_length)
    label, prediction = stripes.reshape(20, 48), np.roll(stripes, run_length // 2).reshape(20, 48)
    prediction[7, 5:30] = highest - 1
    expected = Counter(zip(label.flat, prediction.flat, strict=True))
    metric = MeanIoU()
    metric.add(prediction=prediction, reference=label)
    assert counted_pairs(metric) == expected


def palette_image(array):
    image = PIL.Image.fromarray(array.astype(np.uint8), mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "convert",
    [
        *[np.dtype(name).type for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")],
        *[lambda array, name=name: torch.from_numpy(array.astype(name)) for name in ("uint8", "uint16", "int64")],
        lambda array: array.astype(">i4"),
        lambda array: array[::-1].copy()[::-1],
        lambda array: np.asfortranarray(array),
        lambda array: torch.from_numpy(array.T.copy()).T,
        np.ndarray.tolist,
        palette_image,
        read_only,
    ],
)
def test_every_kind_of_map_is_taken(convert):
    generator = np.random.default_rng(0)
    prediction, reference = generator.integers(0, 3, (2, 11, 7))
    expected = confusion_matrix(torch.from_numpy(prediction), torch.from_numpy(reference), 3)
    metric = MeanIoU()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'mode' parameter", category=DeprecationWarning)
        maps = convert(prediction), convert(reference)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.add(prediction=maps[0], reference=maps[1])
    assert metric.confusion(3).tolist() == expected.tolist()


def test_stacked_maps_masks_of_two_classes_and_maps_without_a_pixel():
    metric = MeanIoU()
    stacked = torch.tensor([[[0, 1]], [[1, 1]]])
    metric.add_batch(predictions=stacked, references=stacked.numpy())
    metric.add(prediction=np.array([[True, False]]), reference=np.array([[True, True]]))
    metric.add(prediction=np.zeros((0, 5), int), reference=np.zeros((0, 5), int))
    assert metric.confusion(2).tolist() == [[1, 0], [1, 4]]


def test_compute_begins_anew_and_says_when_nothing_was_added():
    metric = MeanIoU()
    with pytest.raises(ValueError, match="Nothing was added"):
        metric.compute(num_labels=2, ignore_index=255)
    metric.add(prediction=[[0, 1]], reference=[[1, 1]])
    assert metric.compute(num_labels=2, ignore_index=255)["overall_accuracy"] == 0.5
    metric.add(prediction=[[1, 1]], reference=[[1, 1]])
    assert metric.compute(num_labels=2, ignore_index=255)["overall_accuracy"] == 1.0
    metric.add(prediction=[[0]], reference=[[0]])
    metric.reset()
    assert metric.confusion(2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    "prediction, reference, options, message",
    [
        ([[0]], [[7]], {}, "Found the label 7; with 3 classes ids lie in .0, 2., and 255 is unlabelled"),
        ([[0]], [[-1]], {}, "Found the label -1; with 3"),
        ([[7]], [[0]], {}, "Found the prediction 7; with 3 classes"),
        ([[255]], [[0]], {}, "Found the prediction 255; with 3 classes"),
        ([[0]], [[4]], {"reduce_labels": True}, r"Found the label 3 \(it was 4 in the references\)"),
        ([[0]], [[0]], {"reduce_labels": True, "ignore_index": -1}, r"Found the label 255 \(it was 0 in"),
        ([[0]], [[1]], {"label_map": {1: 9}}, r"Found the label 9 \(it was 1 in"),
    ],
)
def test_what_the_public_metric_drops_is_an_error_and_loses_nothing(prediction, reference, options, message):
    options = {"num_labels": 3, "ignore_index": 255, **options}
    metric = MeanIoU()
    metric.add(prediction=[[2, 2, 2]], reference=[[2, 2, 2]])
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=[prediction], references=[reference], **options)
    assert metric.confusion(3).sum() == 3


def test_a_batch_with_a_bad_map_is_not_counted_at_all():
    good = np.zeros((2, 2), int)
    metric = MeanIoU()
    for bad, message in (
        (np.zeros((2, 3), int), "resize the predictions"),
        (np.zeros((2, 2)), "holds integers"),
        (torch.zeros(2, 2), "holds integers"),
        (np.full((2, 2), 70000), r"from 70000 to 70000 in a segmentation map; ids lie in \[-32768, 65535\]"),
        (np.full((2, 2), -40000), "from -40000"),
        (np.arange(5000), "more than 4096 different ids"),
    ):
        reference = good if bad.shape == (2, 3) else np.zeros(bad.shape, int)
        with pytest.raises(ValueError, match=message):
            metric.add_batch(predictions=[good, bad], references=[good, reference])
    with pytest.raises(ValueError, match="2. and references .1"):
        metric.add_batch(predictions=[good, good], references=[good])
    with pytest.raises(ValueError, match="Both predictions and references"):
        metric.compute(predictions=[good], num_labels=3, ignore_index=255)
    with pytest.raises(ValueError, match="Nothing was added"):
        metric.compute(num_labels=3, ignore_index=255)


@pytest.mark.parametrize(
    "counts", [torch.zeros(2, 3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), torch.eye(2)]
)
def test_counts_have_to_be_a_confusion_matrix(counts):
    with pytest.raises(ValueError, match="square and holds integers"):
        MeanIoU().add_counts(counts)


def test_maps_are_counted_where_they_are_or_where_it_is_said():
    # Meta tensors have a device and a shape, but no contents, so they show where work is done and nothing else.
    here, there = torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(2, 3, dtype=torch.uint8, device="meta")
    assert mean_iou_module._is_on_cpu(here) and not mean_iou_module._is_on_cpu(there)
    for metric, prediction, reference in (
        (MeanIoU(device="meta"), here, here),
        (MeanIoU(), there, here),
        (MeanIoU(device="meta"), here, there),
    ):
        metric.add(prediction=prediction, reference=reference)
        assert {metric._counts.table.device.type, metric._counts.ids.device.type} == {"meta"}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_processes_exchange_integers_on_the_device_that_was_named(device):
    class Stop(Exception):
        pass

    def reduce(tensor):
        # One number per id from -32768 to 65535.
        assert (tensor.device.type, tensor.dtype, tensor.shape) == (device, torch.int64, (2**15 + 2**16,))
        raise Stop

    with pytest.raises(Stop):
        MeanIoU(device=device).sum_over_processes(reduce)


def test_regions_are_counted_as_runs_and_noise_stays_as_it_is():
    label = torch.tensor([[0] * 5 + [1] * 7, [1] * 12, [2] * 12])
    prediction = label.clone()
    prediction[2, 6:] = 0
    # Runs go on over the border of two rows, and end where either map changes.
    columns, rows, num_pixels = JointCounts("cpu").find(prediction, label)
    assert (rows.tolist(), columns.tolist(), num_pixels.tolist()) == ([0, 1, 2, 2], [0, 1, 2, 0], [5, 19, 6, 6])
    noise = torch.arange(36).reshape(3, 12)
    columns, rows, num_pixels = JointCounts("cpu").find(prediction, noise)
    assert rows.tolist() == list(range(36)) and num_pixels.tolist() == [1] * 36
    assert rows.data_ptr() == noise.data_ptr() and columns.data_ptr() == prediction.data_ptr(), "a map was copied"


def test_lowest_and_highest_id_and_as_many_as_fit_are_counted():
    metric = MeanIoU()
    metric.add(prediction=[-32768, 7], reference=[65535, -32768])
    metric.sum_over_processes(lambda tensor: 2 * tensor)  # two processes that saw the same
    assert counted_pairs(metric) == {(65535, -32768): 2, (-32768, 7): 2}
    metric.reset()
    every = np.arange(4096)
    metric.add(prediction=every, reference=every)
    assert metric.confusion(4096, ignore_index=-1).diagonal().tolist() == [1] * 4096


@pytest.mark.parametrize("num_labels", [3, 400])
def test_counts_come_back_as_they_were(num_labels):
    counts = torch.randint(0, 2**40, (num_labels, num_labels), generator=torch.Generator().manual_seed(0))
    metric = MeanIoU()
    metric.add_counts(counts)
    metric.add_counts(counts)
    assert torch.equal(metric.confusion(num_labels, ignore_index=-1), 2 * counts)


def test_processes_that_met_other_ids_or_none_agree_on_one_sum():
    # Three threads stand for three processes: each hands in a tensor, and gets the sum of all three.
    barrier, inbox = threading.Barrier(3, timeout=30), [None, None, None]
    maps = [([[0, 300, 7]], [[0, 300, 500]]), ([[7, 7]], [[500, -100]]), None]
    results = [None, None, None]

    def run(process):
        def reduce(tensor):
            inbox[process] = tensor
            barrier.wait()
            assert len({tensor.shape for tensor in inbox}) == 1
            total = sum(inbox[1:], inbox[0])
            barrier.wait()
            return total

        try:
            metric = MeanIoU()
            if maps[process]:
                metric.add(prediction=maps[process][0], reference=maps[process][1])
            metric.sum_over_processes(reduce)
            results[process] = metric.compute(num_labels=501, ignore_index=-100)
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(process,)) for process in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = MeanIoU()
    together.add_batch(predictions=[maps[0][0], maps[1][0]], references=[maps[0][1], maps[1][1]])
    expected = together.compute(num_labels=501, ignore_index=-100)
    for result in results:
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(result[name], value)


def test_nothing_is_kept_of_a_map_and_nothing_is_written(tmp_path):
    metric = MeanIoU(cache_dir=str(tmp_path))

    def size():
        # All that the object holds but its bound methods, which hold the object.
        return len(pickle.dumps({name: value for name, value in vars(metric).items() if not callable(value)}))

    label = np.random.default_rng(0).integers(0, 150, (100, 200))
    metric.add(prediction=label, reference=label)
    once = size()
    assert once < 2**21
    for _ in range(30):
        metric.add_batch(predictions=[label, label], references=[label, label])
    assert size() == once
    assert metric.confusion(150).sum() == 61 * label.size
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_loaded", [True, False])
def test_it_is_a_module_of_evaluate(loaded_class, is_loaded, tmp_path):
    metric = (loaded_class if is_loaded else MeanIoU)("some_config", experiment_id="x", cache_dir=str(tmp_path))
    assert (metric.config_name, metric.experiment_id) == ("some_config", "x")
    assert Path(metric.data_dir).relative_to(tmp_path).parts[-2:] == (metric.name, "some_config")
    assert metric.module_type == "metric" and set(metric.features) == {"predictions", "references"}
    assert metric.reference_urls[0].startswith("https://github.com/open-mmlab/mmsegmentation/blob/v0.19.0/mmseg/")
    assert metric.reference_urls[0].endswith("metrics.py") and "MMSegmentation" in metric.citation
    assert "Intersection over union" in metric.description and "num_labels" in metric.inputs_description
    for method in (metric.add, metric.add_batch, metric.compute):
        assert method.__doc__.endswith(metric.inputs_description)
    combined = evaluate.combine({"a": metric, "b": MeanIoU()})
    combined.add(prediction=[[0, 1]], reference=[[1, 1]])
    combined.add_batch(predictions=[[[0, 1]]], references=[[[0, 1]]])
    results = combined.compute(num_labels=2, ignore_index=255)
    assert results["a_overall_accuracy"] == results["b_overall_accuracy"] == 0.75


def test_confusion_matrix_may_be_an_array_and_ignore_another_label():
    metric = MeanIoU()
    metric.add(prediction=[0, 1, 1, 0], reference=[0, 1, 0, 255])
    confusion = metric.confusion(2)
    assert confusion.tolist() == [[1, 1], [0, 1]]
    assert metric.confusion(256, ignore_index=1).sum() == 3
    np.testing.assert_array_equal(mean_iou_from_confusion(confusion.numpy()).iou, [1 / 2, 1 / 2])
    assert mean_iou_from_confusion(confusion).mean_iou == 1 / 2


def test_files_between_processes_are_refused(loaded_class):
    with pytest.raises(ValueError, match="sum_over_processes"):
        loaded_class(num_process=2, process_id=1)
