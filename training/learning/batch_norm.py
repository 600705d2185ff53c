# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Batch norm over several processes, batch norm that keeps its statistics, and batches that are too small for it."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce

from modeling_denseclip import DenseCLIPForSemanticSegmentation


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """
    Batch norm with the statistics of all processes' images, where `nn.SyncBatchNorm` does not run: it needs a GPU.

    With it several processes on CPUs compute what one computes on all of their images together, gradients included;
    all processes must bring equal numbers of values.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(hidden_states)
        dims = (0, 2, 3)
        num_processes = dist.get_world_size()
        mean = all_reduce(hidden_states.mean(dims)) / num_processes
        centered = hidden_states - mean[:, None, None]
        variance = all_reduce(centered.square().mean(dims)) / num_processes
        with torch.no_grad():
            count = num_processes * hidden_states.numel() / hidden_states.shape[1]
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centered * scale[:, None, None] + self.bias[:, None, None]


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Let all batch norms of `model` take their statistics over all processes. Weights keep their names."""
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = CPUSyncBatchNorm  # the same parameters, buffers and settings
    return model


def pretrained_batch_norms(model: DenseCLIPForSemanticSegmentation) -> list[nn.Module]:
    """
    The batch norms whose statistics come from pretraining: those of a ResNet. Pyramid and head are new.

    Raises:
        ValueError: for a model without any.
    """
    backbone = getattr(model.image_encoder, "backbone", None)
    norms = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)] if backbone else []
    if not norms:
        raise ValueError(
            "--batch_norm frozen keeps the statistics of a pretrained ResNet; this model's image encoder has no batch"
            " norm. Leave it at 'sync'."
        )
    return norms


@torch.no_grad()
def find_norm_of_one_value(
    model: DenseCLIPForSemanticSegmentation, size: tuple[int, int], in_evaluation: Iterable[nn.Module] = ()
) -> str | None:
    """
    The name of a batch norm that sees one value per channel of an image of `size` (height and width): trained on it
    alone, it would divide by 0. Those in modules that stay in evaluation mode do not matter.
    """
    kept = {id(module) for part in in_evaluation for module in part.modules()}
    norms = {
        module: name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and id(module) not in kept
    }
    found = []

    def look(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if inputs[0][:, 0].numel() == 1:
            found.append(norms[module])

    hooks = [module.register_forward_pre_hook(look) for module in norms]
    was_training = model.training
    try:
        # In evaluation mode no random numbers are drawn, and no statistics change.
        model.eval()(torch.zeros(1, 3, *size, device=model.device), inference_mode="whole")
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return found[0] if found else None
