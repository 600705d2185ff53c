# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Break one part of the demonstration's model after another, and score each.

There are two ways. Broken *after* training, a part that works costs the trained model much of its mIoU: the
demonstration demands this of the parts in `DEMANDED`, in seconds. Broken *in* training (`--ablation`, a training
each), the mIoU shows what the rest of the model makes up for. It makes up for two breaks entirely: with one name for
all classes the score map still is one channel through which the attention pool tells day from night, and without the
top-down path the decode head still sums the levels. So a high mIoU alone does not prove that these two parts work, but
breaking them in the trained model does. A model that was trained without one of them would not pass: breaking the part
again costs it nothing.

What one name for all classes costs *after* training depends on the seed (mIoU from 30 to 70 was seen), so it is shown
and not demanded.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from modeling_denseclip import DenseCLIPForSemanticSegmentation

from ..data.transforms import IGNORE_INDEX
from ..learning.trainer import DenseCLIPTrainer


@contextmanager
def without_score_map(model: DenseCLIPForSemanticSegmentation) -> Iterator[None]:
    """The score map is computed, and its auxiliary loss is paid, but the neck gets zeros in its place."""
    level, num_labels = model.score_map_level, model.config.num_labels

    def erase(neck: nn.Module, arguments: tuple) -> tuple:
        feature_maps = list(arguments[0])
        features, score_map = feature_maps[level].tensor_split([-num_labels], dim=1)
        feature_maps[level] = torch.cat([features, torch.zeros_like(score_map)], dim=1)
        return (feature_maps,)

    handle = model.neck.register_forward_pre_hook(erase)
    yield
    handle.remove()


@contextmanager
def without_top_down(model: DenseCLIPForSemanticSegmentation) -> Iterator[None]:
    """No level of the neck hears of the coarser ones."""
    neck = model.neck

    def forward(feature_maps):
        laterals = map(nn.Module.__call__, neck.lateral_convs, feature_maps)
        return list(map(nn.Module.__call__, neck.output_convs, laterals))

    neck.forward = forward
    yield
    del neck.forward


@contextmanager
def with_names(model: DenseCLIPForSemanticSegmentation, order: Callable[[tuple], tuple]) -> Iterator[None]:
    """The text tower reads other names than those that the score map's channels stand for."""
    names, token_ids = model.config.class_names, model.config.class_token_ids
    model.prompts.pack(names, order(token_ids))
    yield
    model.prompts.pack(names, token_ids)


def names_shifted(model: DenseCLIPForSemanticSegmentation):
    return with_names(model, lambda token_ids: (*token_ids[1:], token_ids[0]))


def one_name_for_all(model: DenseCLIPForSemanticSegmentation):
    return with_names(model, lambda token_ids: (token_ids[0],) * len(token_ids))


def with_reduced_labels(augment: Callable) -> Callable:
    """Labels shifted by one, as if 0 were "unlabelled": the reduction of ADE20K where it does not belong."""

    def reduced(*row) -> dict[str, torch.Tensor]:
        sample = augment(*row)
        labels = sample["labels"]
        unlabelled = (labels == 0) | (labels == IGNORE_INDEX)
        return {**sample, "labels": torch.where(unlabelled, IGNORE_INDEX, labels - 1)}

    return reduced


def with_unflipped_labels(augment: Callable) -> Callable:
    """Half of the pictures are mirrored without their masks. They are as large as the crop: no padding moves along."""

    def unflipped(image, mask, index) -> dict[str, torch.Tensor]:
        sample = augment(image, mask, index)
        return {**sample, "pixel_values": sample["pixel_values"].flip(-1)} if index % 2 else sample

    return unflipped


AFTER_TRAINING = {
    "score map erased": without_score_map,
    "names in another order": names_shifted,
    "one name for all classes": one_name_for_all,
    "no top-down path": without_top_down,
}
DEMANDED = ("score map erased", "names in another order", "no top-down path")
DURING_TRAINING = {
    "no language branch": (nullcontext, {"use_language": False}, None),
    "score map erased": (without_score_map, {}, None),
    "one name for all classes": (one_name_for_all, {}, None),
    "no top-down path": (without_top_down, {}, None),
    "labels reduced by one": (nullcontext, {}, with_reduced_labels),
    "labels not mirrored": (nullcontext, {}, with_unflipped_labels),
}


def break_after_training(trainer: DenseCLIPTrainer) -> dict[str, float]:
    """Evaluate a trained model with one part broken at a time. Returns what was broken -> mIoU."""
    mean_iou = {}
    for name, broken in AFTER_TRAINING.items():
        with broken(trainer.model):
            trainer.evaluate()
        mean_iou[name] = trainer.scores.mean_iou
    return mean_iou


def break_in_training(build_trainer: Callable[..., DenseCLIPTrainer]) -> dict[str, float]:
    """
    Train and evaluate with one part broken from the start, once for every part. Returns what was broken -> mIoU.
    `build_trainer` returns a Trainer with a fresh model; it takes fields of the model's configuration.
    """
    mean_iou = {}
    for name, (broken, overrides, labels) in DURING_TRAINING.items():
        trainer = build_trainer(**overrides)
        if labels is not None:
            transform = trainer.train_dataset.format["format_kwargs"]["transform"]
            transform.augment = labels(transform.augment)
        with broken(trainer.model):
            trainer.train()
            trainer.evaluate()
        mean_iou[name] = trainer.scores.mean_iou
    return mean_iou
