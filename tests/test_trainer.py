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
"""The Trainer: parameter groups, evaluation at original size, and the command line from a folder to a checkpoint."""

import json
import math
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from modeling_denseclip import (
    DenseCLIPConfig,
    DenseCLIPForSemanticSegmentation,
    DenseCLIPImageProcessor,
    tokenize_class_names,
)
from training.data import AugmentationEpoch, EvaluationTransform, TrainingTransform, load_folder_dataset
from training.demo import build_tokenizer
from training.train import main, parse_arguments
from training.trainer import (
    DenseCLIPTrainer,
    DenseCLIPTrainingArguments,
    build_parameter_groups,
    freeze_text_encoder,
)


SHARED = Path(__file__).parents[2] / "shared"
NAMES = ["sky", "stone road", "tree"]
TINY = {
    "text_config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
    },
    "vision_config": {"model_type": "denseclip_resnet", "embedding_size": 4, "depths": [1, 1, 1, 1], "image_size": 64},
    "projection_dim": 16,
    "context_decoder_hidden_size": 16,
    "context_decoder_num_hidden_layers": 1,
    "context_decoder_num_attention_heads": 2,
    "neck_hidden_size": 8,
    "decode_head_hidden_size": 8,
}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(NAMES)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    text_config = {**TINY["text_config"], "vocab_size": len(tokenizer)}
    return build_tiny(tokenizer, {**TINY, "text_config": text_config})


def build_tiny(tokenizer, overrides) -> DenseCLIPForSemanticSegmentation:
    class_token_ids = tokenize_class_names(NAMES, tokenizer)
    config = DenseCLIPConfig(**overrides, id2label=dict(enumerate(NAMES)), class_token_ids=class_token_ids)
    return DenseCLIPForSemanticSegmentation(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of different sizes, whose three classes are three colours; the lowest rows are unlabelled."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "classes.txt").write_text("\n".join(NAMES))
    generator = np.random.default_rng(0)
    for split, sizes in (
        ("training", [(64, 96)] * 6),
        ("validation", [(50, 70), (64, 96), (80, 61), (96, 64), (64, 65)]),
    ):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for index, (height, width) in enumerate(sizes):
            mask = np.repeat(np.repeat(generator.integers(0, 3, (8, 8)), 16, 0), 16, 1)[:height, :width].astype(
                np.uint8
            )
            image = np.uint8([[60, 60, 220], [128, 128, 128], [40, 160, 40]])[mask]
            mask[-5:] = 255
            PIL.Image.fromarray(image).save(folder / "images" / split / f"{index}.png")
            PIL.Image.fromarray(mask).save(folder / "annotations" / split / f"{index}.png")
    return folder


def trainer_for(model, folder, output_dir, **kwargs) -> DenseCLIPTrainer:
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    transform = TrainingTransform((64, 64), 64, 128, processor.image_mean, processor.image_std)
    arguments = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", **kwargs}
    return DenseCLIPTrainer(
        model=model,
        args=DenseCLIPTrainingArguments(output_dir=str(output_dir), **arguments),
        train_dataset=load_folder_dataset(folder, "training", NAMES).with_transform(transform),
        eval_dataset=load_folder_dataset(folder, "validation", NAMES).with_transform(EvaluationTransform(processor)),
        processing_class=processor,
        callbacks=[AugmentationEpoch(transform)],
    )


# ------------------------------------------------------------------------------------------------ parameter groups


def names_in(group, model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for parameter in group["params"]]


@pytest.mark.parametrize("frozen", [False, True])
def test_every_trainable_parameter_is_in_exactly_one_group(model, frozen):
    if frozen:
        freeze_text_encoder(model)
    groups = build_parameter_groups(model, 1e-3, 1e-4, 0.1)
    grouped = [name for group in groups for name in names_in(group, model)]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("text_encoder.") for name in grouped) != frozen
    assert "text_projection.weight" in grouped or frozen
    assert any("contexts" in name for name in grouped)  # the learned contexts train in any case


def test_groups_have_the_published_rates(model):
    groups = {group["name"]: group for group in build_parameter_groups(model, 1e-3, 1e-2, 0.1)}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "image_encoder": (pytest.approx(1e-4), 1e-2),
        "decay": (1e-3, 1e-2),
        "no_decay": (1e-3, 0.0),
    }
    assert all(name.startswith("image_encoder.") for name in names_in(groups["image_encoder"], model))
    undecayed = names_in(groups["no_decay"], model)
    # Published: the three norms of each layer of the context decoder, and nothing else.
    assert len(undecayed) == 6 and all("context_decoder" in name and "norm" in name for name in undecayed)


def test_baseline_without_language_has_no_empty_group(tokenizer):
    baseline = build_tiny(tokenizer, {**TINY, "use_language": False})
    assert [group["name"] for group in build_parameter_groups(baseline, 1.0, 0.0)] == ["image_encoder", "decay"]


def test_trainer_uses_the_groups_and_leaves_frozen_weights_alone(model, folder, tmp_path):
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = trainer_for(
        model, folder, tmp_path, max_steps=2, learning_rate=1e-3, weight_decay=0.1,
        freeze_text_encoder=True, image_encoder_lr_multiplier=0.5, lr_scheduler_type="constant",
    )  # fmt: skip
    trainer.train()
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [5e-4, 1e-3, 1e-3]
    for name, parameter in model.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed != name.startswith(("text_encoder.", "text_projection.")), name


def test_resuming_in_the_middle_of_an_epoch_changes_nothing(model, folder, tmp_path):
    # Six images in batches of two: step 4 is the first of the second epoch, and its crops are that epoch's.
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    arguments = {"max_steps": 6, "save_strategy": "steps", "save_steps": 4, "per_device_train_batch_size": 2}
    trainer_for(model, folder, tmp_path, **arguments).train()
    through = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(start)
    trainer_for(model, folder, tmp_path, **arguments).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, through[name]), name


# ------------------------------------------------------------------------------------------------------ evaluation


def test_evaluation_equals_a_loop_over_whole_images(model, folder, tmp_path):
    trainer = trainer_for(model, folder, tmp_path, per_device_eval_batch_size=2)
    metrics = trainer.evaluate()

    processor, rows = trainer.processing_class, load_folder_dataset(folder, "validation", NAMES)
    hits, labelled, predicted = np.zeros(3), np.zeros(3), np.zeros(3)
    model.eval()
    for row in rows:
        label = np.asarray(row["annotation"])
        with torch.no_grad():
            logits = model(**processor(row["image"], return_tensors="pt")).logits
        logits = nn.functional.interpolate(logits, label.shape, mode="bilinear", align_corners=False)
        prediction = logits[0].argmax(0).numpy()
        for k in range(3):
            hits[k] += ((prediction == k) & (label == k)).sum()
            labelled[k] += (label == k).sum()
            predicted[k] += ((prediction == k) & (label != 255)).sum()
    iou = hits / (labelled + predicted - hits)
    np.testing.assert_allclose(trainer.scores.iou, iou, rtol=1e-12)
    assert metrics["eval_mean_iou"] == pytest.approx(iou.mean())
    assert metrics["eval_overall_accuracy"] == pytest.approx(hits.sum() / labelled.sum())
    for name, value, recall in zip(NAMES, iou, hits / labelled, strict=True):
        assert metrics[f"eval_iou/{name}"] == pytest.approx(value)
        assert metrics[f"eval_accuracy/{name}"] == pytest.approx(recall)
    assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in metrics.values())


def test_batch_size_does_not_change_the_scores(model, folder, tmp_path):
    scores = []
    for batch_size in (1, 4):
        trainer = trainer_for(model, folder, tmp_path, per_device_eval_batch_size=batch_size)
        trainer.evaluate()
        scores.append(trainer.scores.iou)
    np.testing.assert_array_equal(*scores)


def test_class_that_never_occurs_has_no_key(model, folder, tmp_path):
    trainer = trainer_for(model, folder, tmp_path)
    rows = trainer.eval_dataset.with_format(None)

    class WithoutTrees(EvaluationTransform):
        def __call__(self, batch):
            output = super().__call__(batch)
            output["labels"] = [torch.where(label == 2, 255, label) for label in output["labels"]]
            return output

    with torch.no_grad():
        model.decode_head.classifier.bias[2] = -100.0  # never predicted either
    metrics = trainer.evaluate(rows.with_transform(WithoutTrees(trainer.processing_class)))
    assert "eval_iou/tree" not in metrics and "eval_accuracy/tree" not in metrics
    assert "NaN" not in json.dumps(metrics)
    assert metrics["eval_mean_iou"] == pytest.approx((metrics["eval_iou/sky"] + metrics["eval_iou/stone road"]) / 2)


def test_set_without_labels_is_refused(model, folder, tmp_path):
    trainer = trainer_for(model, folder, tmp_path)

    class Unlabelled(EvaluationTransform):
        def __call__(self, batch):
            output = super().__call__(batch)
            return {**output, "labels": [torch.full_like(label, 255) for label in output["labels"]]}

    rows = trainer.eval_dataset.with_format(None)
    with pytest.raises(ValueError, match="nothing to score"):
        trainer.evaluate(rows.with_transform(Unlabelled(trainer.processing_class)))


@pytest.mark.parametrize(
    "process_index, remainder, end, expected",
    [(0, 3, True, 2), (1, 3, True, 1), (2, 3, True, 0), (1, 3, False, 2), (1, 0, True, 2), (0, 1, True, 1)],
)
def test_images_that_fill_up_the_last_round_are_not_counted(
    model, folder, tmp_path, monkeypatch, process_index, remainder, end, expected
):
    # Three processes with batches of two: of the last six images `remainder` are new.
    trainer = trainer_for(model, folder, tmp_path, per_device_eval_batch_size=2)
    state = type("State", (), {"end_of_dataloader": end, "remainder": remainder})()
    monkeypatch.setattr(trainer.accelerator, "gradient_state", state)
    monkeypatch.setattr(type(trainer.args), "process_index", process_index)
    assert trainer._num_images_to_count(2) == expected


# ---------------------------------------------------------------------------------------------------- command line


def test_command_line_from_folder_to_checkpoint(folder, tokenizer, tmp_path, capsys):
    config = {**TINY, "text_config": {**TINY["text_config"], "vocab_size": len(tokenizer)}}
    (tmp_path / "model.json").write_text(json.dumps(config))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    output = tmp_path / "output"
    trainer = main(
        f"--dataset_dir {folder} --output_dir {output} "
        f"--config {tmp_path}/model.json --tokenizer {tmp_path}/tokenizer "
        "--short_side 64 --long_side 128 --crop_size 64 --max_steps 2 --use_cpu true --report_to none "
        "--per_device_train_batch_size 2 --disable_tqdm true".split()
    )  # fmt: skip
    table = capsys.readouterr().out
    for name in (*NAMES, "mIoU", "mAcc", "aAcc"):
        assert name in table
    saved = json.loads((output / "eval_results.json").read_text())
    assert saved["eval_mean_iou"] == pytest.approx(trainer.scores.mean_iou)

    reloaded = DenseCLIPForSemanticSegmentation.from_pretrained(output)
    assert list(reloaded.config.id2label.values()) == NAMES
    pixel_values = torch.rand(1, 3, 64, 64)
    trainer.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(reloaded.eval()(pixel_values).logits, trainer.model(pixel_values).logits)
    assert DenseCLIPImageProcessor.from_pretrained(output).size["shortest_edge"] == 64
    assert AutoTokenizer.from_pretrained(output)("stone road").input_ids == tokenizer("stone road").input_ids
    assert (output / "modeling_denseclip.py").is_file()


@pytest.mark.skipif(not (SHARED / "reference").is_dir(), reason="needs the reference CLIP in ../shared")
def test_command_line_from_clip_weights_freezes_the_text_encoder(folder, tmp_path):
    source, tokenizer = SHARED / "reference/openai-clip-resnet/RN.pt", SHARED / "clip-tokenizer"
    trainer = main(
        f"--dataset_dir {folder} --output_dir {tmp_path} --clip {source} --tokenizer {tokenizer} "
        "--short_side 64 --long_side 128 --crop_size 64 --max_steps 1 --learning_rate 1e-3 --use_cpu true "
        "--lr_scheduler_type constant --report_to none --per_device_train_batch_size 2 --disable_tqdm true".split()
    )  # fmt: skip
    rates = {group["name"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == {"image_encoder": pytest.approx(1e-4), "decay": 1e-3, "no_decay": 1e-3}
    start = DenseCLIPForSemanticSegmentation.from_clip_pretrained(source, class_names=NAMES, tokenizer=str(tokenizer))
    trained = trainer.model.state_dict()
    for name, tensor in start.state_dict().items():
        if name.startswith(("text_encoder.", "text_projection.")):
            assert torch.equal(trained[name], tensor), name
    assert not torch.equal(trained["prompts.contexts"], start.state_dict()["prompts.contexts"])


def test_defaults_from_clip_are_the_published_ones(tmp_path):
    common = ["--dataset_dir", "d", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    _, _, scratch = parse_arguments([*common, "--tokenizer", "t"])
    _, _, clip = parse_arguments([*common, "--clip", "c"])
    _, _, own = parse_arguments([*common, "--clip=c", "--image_encoder_lr_multiplier", "0.3"])
    assert (scratch.image_encoder_lr_multiplier, scratch.freeze_text_encoder) == (1.0, False)
    assert (clip.image_encoder_lr_multiplier, clip.freeze_text_encoder) == (0.1, True)
    assert (own.image_encoder_lr_multiplier, own.freeze_text_encoder) == (0.3, True)
    assert not scratch.remove_unused_columns


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("--tokenizer t --crop_size 1 2 3", r"\[1, 2, 3\]"),
        ("--tokenizer t --scale_range 2 1", "low"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(f"--dataset_dir d --output_dir {tmp_path} --use_cpu true {wrong}".split())
