"""What docs/ecosystem.md says of other libraries of Hugging Face, and its blocks."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import BitsAndBytesConfig, TorchAoConfig, pipeline

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from tests.pages import read_blocks
from tests.tiny import TINY_CLASS_NAMES, draw_picture, save_checkpoint, spread_classes, tiny_model


ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "ecosystem.md"
SWIN = {
    "model_type": "swin",
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 2,
    "image_size": 64,
}
MODELS = {
    "resnet": ("resnet", {}),
    "resnet, pre-model prompting": ("resnet", {"prompting_mode": "pre_model"}),
    "resnet, no language": ("resnet", {"use_language": False}),
    "vit": ("vit", {}),
    "swin": ("resnet", {"vision_config": SWIN}),
}
TEXTS = ["sofa", "a dog"]


def make_pixel_values():
    return torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=MODELS)
def saved(request, tmp_path_factory):
    """(folder, model)"""
    kind, fields = MODELS[request.param]
    folder = tmp_path_factory.mktemp("saved")
    model = spread_classes(tiny_model(kind, **fields), make_pixel_values())
    return save_checkpoint(model, DenseCLIPImageProcessor(size={"height": 96, "width": 64}), folder), model


def run_block(marker: str, names: dict, **replaced: str | int):
    """Runs the Python block of the page that holds `marker`, with these names, which it adds to."""
    (block,) = [block.text for block in read_blocks(PAGE.read_text(encoding="utf-8")) if marker in block.text]
    for old, new in replaced.items():
        assert f'"{old}"' in block
        block = block.replace(f'"{old}"', repr(new))
    exec(compile(block, str(PAGE), "exec"), names)


# ------------------------------------------------------------------------------------------------------------- loading


def load_from_disk(folder: Path, model, offload_folder: Path):
    """All weights stay on disk but those of the head. (accelerate 1.10 wants some in memory.)"""
    device_map = {name: "disk" for name, _ in model.named_children()} | {"decode_head": "cpu"}
    return DenseCLIPForSemanticSegmentation.from_pretrained(
        folder, device_map=device_map, offload_folder=offload_folder
    )


def check_offloaded(offloaded, model):
    assert "disk" in offloaded.hf_device_map.values()
    assert any(parameter.is_meta for parameter in offloaded.parameters())
    pixel_values = make_pixel_values()
    windows = {"inference_mode": "slide", "window_size": 64, "window_stride": 32}
    for call in ({}, windows):
        assert torch.equal(offloaded(pixel_values, **call).logits, model(pixel_values, **call).logits)
    if model.config.use_language:
        for learned_prompts in (None, False):
            ours = model.score_text(pixel_values, TEXTS, learned_prompts=learned_prompts)
            assert torch.equal(offloaded.score_text(pixel_values, TEXTS, learned_prompts=learned_prompts), ours)


@torch.no_grad()
def test_weights_on_disk_change_nothing(saved, tmp_path):
    folder, model = saved
    check_offloaded(load_from_disk(folder, model, tmp_path), model)


@pytest.mark.parametrize("saved", ["resnet", "vit"], indirect=True)
@torch.no_grad()
def test_what_does_not_fit_goes_to_disk(saved, tmp_path):
    folder, model = saved
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    names = {"pixel_values": make_pixel_values()}
    run_block("max_memory", names, **{"mine": str(folder), "offload": str(tmp_path), "2GB": int(0.8 * size)})
    assert torch.equal(names["logits"], model(names["pixel_values"]).logits)
    check_offloaded(names["model"], model)


@pytest.mark.parametrize("saved", ["resnet"], indirect=True)
def test_weights_on_disk_are_saved_but_not_edited(saved, tmp_path):
    folder, model = saved
    offloaded = load_from_disk(folder, model, tmp_path / "offload")
    for edit in (lambda: offloaded.set_class_names(["sky", "tree"]), offloaded.fuse):
        with pytest.raises(ValueError, match="without `device_map`"):
            edit()
    with pytest.raises(ValueError, match="without `device_map`"):
        DenseCLIPForSemanticSegmentation.from_pretrained(
            folder,
            id2label={0: "sky", 1: "tree"},
            device_map=offloaded.hf_device_map,
            offload_folder=tmp_path / "offload",
        )
    offloaded.save_pretrained(tmp_path / "again")
    again = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path / "again").state_dict()
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[name], values) for name, values in model.state_dict().items())


def test_untrained_contexts_are_known_on_disk(tmp_path):
    model = tiny_model("resnet")
    model.remember_untrained_contexts()
    model.save_pretrained(tmp_path / "saved")
    offloaded = load_from_disk(tmp_path / "saved", model, tmp_path / "offload")
    assert offloaded.has_untrained_contexts()


@pytest.mark.parametrize(
    "saved, dtype", [("resnet", "bfloat16"), ("vit", "float16"), ("swin", "bfloat16")], indirect=["saved"]
)
@torch.no_grad()
def test_half_precision_takes_pictures_as_they_come(saved, dtype):
    folder, model = saved
    half = DenseCLIPForSemanticSegmentation.from_pretrained(folder, dtype=dtype)
    assert half.dtype == getattr(torch, dtype)
    pixel_values = make_pixel_values()
    # The logits of each class have the variance 1.
    assert (half(pixel_values).logits.float() - model(pixel_values).logits).square().mean().sqrt() < 0.3


@pytest.mark.parametrize("saved", ["resnet"], indirect=True)
def test_shards_hold_the_model_and_nothing_is_pickled(saved, tmp_path):
    _, model = saved
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    shards = list(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    suffixes = {path.suffix for path in tmp_path.iterdir()}
    assert suffixes == {".json", ".py", ".safetensors"}
    loaded = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], values) for name, values in model.state_dict().items())


@pytest.mark.parametrize("saved", ["resnet"], indirect=True)
def test_pipeline_in_half_precision_and_batches(saved):
    folder, _ = saved
    pictures = [draw_picture(70, 100, seed) for seed in range(3)]
    where = {"model": str(folder), "trust_remote_code": True, "device": "cpu"}
    single, half = (pipeline("image-segmentation", **where, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert half.model.dtype == torch.bfloat16
    agree = []
    for one_by_one, batched in zip(single(pictures), half(pictures, batch_size=3), strict=True):
        masks = {segment["label"]: np.asarray(segment["mask"]) > 0 for segment in batched}
        nothing = np.zeros((100, 70), bool)
        agree += [(masks.get(segment["label"], nothing) & (np.asarray(segment["mask"]) > 0)) for segment in one_by_one]
    assert np.sum(agree) / (3 * 70 * 100) > 0.95


# ---------------------------------------------------------------------------------------------------------- quantised


def eight_bits(library: str):
    if library == "bitsandbytes":
        return BitsAndBytesConfig(load_in_8bit=True)
    return TorchAoConfig(pytest.importorskip("torchao.quantization").Int8WeightOnlyConfig())


@pytest.mark.parametrize("saved", ["resnet", "vit", "swin"], indirect=True)  # without language a ResNet has none
@pytest.mark.parametrize("library", ["bitsandbytes", "torchao"])
@torch.no_grad()
def test_linear_layers_of_8_bits(saved, library, tmp_path):
    pytest.importorskip(library, reason=f"{library} is not installed")
    folder, model = saved
    quantised = DenseCLIPForSemanticSegmentation.from_pretrained(
        folder, quantization_config=eight_bits(library), dtype=torch.float32, device_map="cpu"
    )
    pixel_values = make_pixel_values()
    logits = quantised(pixel_values).logits
    assert 0 < (logits - model(pixel_values).logits).square().mean().sqrt() < 0.3
    quantised.save_pretrained(tmp_path)
    again = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path, device_map="cpu")
    torch.testing.assert_close(again(pixel_values).logits, logits)


# ----------------------------------------------------------------------------------------------------------- training


def make_examples(count: int) -> list[dict]:
    generator = np.random.default_rng(0)
    examples = []
    for seed in range(count):
        label = generator.integers(0, len(TINY_CLASS_NAMES), (6, 8)).repeat(12, 0).repeat(13, 1).astype(np.uint8)
        label[:9] = 255
        examples.append({"image": draw_picture(104, 72, seed), "label": label})
    return examples


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The names that the block of the plain Trainer leaves behind."""
    monkeypatch.chdir(ROOT)  # the metric lies there
    model = tiny_model("resnet")
    save_checkpoint(model, DenseCLIPImageProcessor(), tmp_path / "mine")
    names = {"train_dataset": make_examples(8), "eval_dataset": make_examples(5), "before": model.state_dict()}
    run_block("batch_eval_metrics", names, mine=str(tmp_path / "mine"))
    return names


@torch.no_grad()
def test_a_plain_trainer(trained, tmp_path):
    model, before = trained["model"], trained["before"]
    moved = {name.split(".")[0] for name, values in model.named_parameters() if not torch.equal(values, before[name])}
    assert moved == {"image_encoder", "prompts", "context_decoder", "neck", "decode_head"}
    # mIoU by hand, with a batch for each picture.
    model.eval()
    counts = np.zeros((len(TINY_CLASS_NAMES), len(TINY_CLASS_NAMES)), dtype=np.int64)
    for example in trained["eval_dataset"]:
        inputs = trained["collate"]([example])
        logits = F.interpolate(model(inputs.pixel_values).logits, size=(96, 128), mode="bilinear")
        for label, class_id in zip(
            inputs.labels.flatten().tolist(), logits.argmax(dim=1).flatten().tolist(), strict=True
        ):
            if label != 255:
                counts[label, class_id] += 1
    overlap = np.diag(counts)
    iou = overlap / (counts.sum(axis=0) + counts.sum(axis=1) - overlap)
    evaluated = trained["trainer"].state.log_history[-1]
    assert evaluated["eval_mean_iou"] == pytest.approx(iou.mean(), abs=1e-4)
    assert evaluated["eval_overall_accuracy"] == pytest.approx(overlap.sum() / counts.sum(), abs=1e-4)
    # What it saved is ready for the pipeline.
    segmenter = pipeline("image-segmentation", model=str(tmp_path / "mine"), trust_remote_code=True, device="cpu")
    assert segmenter(trained["eval_dataset"][0]["image"])[0]["label"] in TINY_CLASS_NAMES


def test_a_loop_of_ones_own(trained, tmp_path):
    names = {name: trained[name] for name in ("train_dataset", "collate")} | {"model": tiny_model("resnet")}
    start = {name: values.clone() for name, values in names["model"].state_dict().items()}
    run_block("Accelerator(", names, mine=str(tmp_path / "loop"))
    saved = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path / "loop")
    moved = {name.split(".")[0] for name, values in saved.named_parameters() if not torch.equal(values, start[name])}
    assert moved == {"image_encoder", "prompts", "context_decoder", "neck", "decode_head"}


# ---------------------------------------------------------------------------------------------------------- neighbours


@pytest.fixture(scope="module")
def small():
    """(model, image processor), and a picture in which all classes are found."""
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 96, "longest_edge": 160})
    picture = draw_picture(150, 100, seed=3)
    return (
        spread_classes(tiny_model("resnet"), processor(picture, return_tensors="pt").pixel_values),
        processor,
        picture,
    )


def test_supervision_takes_what_the_image_processor_finds(small, tmp_path):
    sv = pytest.importorskip("supervision", reason="supervision is not installed")
    model, image_processor, image = small
    names = {"model": model, "image_processor": image_processor, "image": image}
    with torch.no_grad():
        run_block("sv.Detections", names)
    outputs, kept = names["outputs"], names["detections"]
    (class_ids,) = image_processor.post_process_semantic_segmentation(outputs, target_sizes=[image.size[::-1]])
    class_ids = class_ids.numpy()
    (found,) = image_processor.post_process_panoptic_segmentation(outputs, target_sizes=[image.size[::-1]])
    detections = sv.Detections.from_transformers(found, id2label=model.config.id2label)
    assert 0 < len(kept) < len(detections) == len(np.unique(class_ids)) >= 4
    for mask, class_id, name, box in zip(
        detections.mask, detections.class_id, detections["class_name"], detections.xyxy, strict=True
    ):
        assert np.array_equal(mask, class_ids == class_id) and name == TINY_CLASS_NAMES[class_id]
        rows, columns = np.nonzero(class_ids == class_id)
        assert box.tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]
    assert detections.confidence.tolist() == [segment["score"] for segment in found["segments_info"]]
    assert names["annotated"].size == image.size
    without_scores = sv.Detections.from_transformers(torch.from_numpy(class_ids), id2label=model.config.id2label)
    assert np.array_equal(without_scores.mask, detections.mask) and without_scores.confidence is None
    save_checkpoint(model, image_processor, tmp_path)
    segmenter = pipeline("image-segmentation", model=str(tmp_path), trust_remote_code=True, device="cpu")
    with pytest.raises(ValueError, match="valid fields"):
        sv.Detections.from_transformers(segmenter(image))


def test_torchmetrics_has_our_mean_iou_under_another_name(small):
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    from torchmetrics.segmentation import MeanIoU

    model, image_processor, _ = small
    examples = make_examples(5)
    for example in examples:  # no label of the last class, which is predicted, nor of the first in some pictures
        example["label"][example["label"] == 4] = 255
    examples[0]["label"][examples[0]["label"] == 0] = 1
    names = {"model": model, "image_processor": image_processor, "eval_dataset": examples}
    run_block("JaccardIndex(", names)
    ours = evaluate.load(str(ROOT / "training" / "metrics" / "mean_iou"))
    per_picture = MeanIoU(num_classes=5, input_format="index")
    for example in examples:
        label = torch.as_tensor(example["label"])
        with torch.no_grad():
            outputs = model(**image_processor(example["image"], return_tensors="pt"))
        (class_ids,) = image_processor.post_process_semantic_segmentation(outputs, target_sizes=[tuple(label.shape)])
        ours.add_batch(predictions=[class_ids.numpy()], references=[example["label"]])
        with pytest.raises(RuntimeError):
            per_picture.update(class_ids[None], label[None].long())
        labelled = torch.where(label == 255, class_ids, label)  # as if what has no label were right
        per_picture.update(class_ids[None], labelled[None].long())
    expected = ours.compute(num_labels=5, ignore_index=255)["mean_iou"]
    assert 0.05 < expected < 0.95
    assert names["mean_iou"] == pytest.approx(expected, abs=1e-6)
    assert abs(per_picture.compute().item() - expected) > 0.01
    assert torchmetrics.__version__
