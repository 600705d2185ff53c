# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""An exponential moving average of the weights, to evaluate and to save in place of the last ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback

from .resuming import check_tensors


AVERAGED_WEIGHTS_NAME = "averaged_weights.safetensors"


class AveragedWeights(TrainerCallback):
    """
    A callback that averages a model's weights: after each step, average = decay * average + (1 - decay) * weights.
    Buffers (the statistics of batch norm, averages themselves) are taken as they are.

    Args:
        model (`nn.Module`): what is averaged, itself and not a wrapper around it.
        decay (`float`): in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = model
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._is_applied = False

    def on_step_end(self, args, state, control, **kwargs):
        self.average.update_parameters(self.model)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the model has the averaged weights. Contexts may be nested."""
        if self._is_applied:
            yield
            return
        self._swap()
        self._is_applied = True
        try:
            yield
        finally:
            self._swap()
            self._is_applied = False

    def _swap(self) -> None:
        for own, averaged in zip(self.model.parameters(), self.average.module.parameters(), strict=True):
            own.data, averaged.data = averaged.data, own.data

    def save(self, folder: str) -> None:
        """Write the average beside a checkpoint. Frozen weights are in the checkpoint already."""
        state = {name: tensor.contiguous() for name, tensor in self._state().items()}
        save_file(state, Path(folder) / AVERAGED_WEIGHTS_NAME)

    def load(self, folder: str) -> None:
        """
        Raises:
            ValueError: for a checkpoint of a run without averaging, or whose average is of other weights.
        """
        path = Path(folder) / AVERAGED_WEIGHTS_NAME
        if not path.is_file():
            raise ValueError(f"{folder} comes from a run without --ema_decay, so it cannot be gone on from with it.")
        own = self._state()
        check_tensors([path], own)
        state = load_file(path)
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def _state(self) -> dict[str, torch.Tensor]:
        state = {n: p.detach() for n, p in self.average.module.named_parameters() if p.requires_grad}
        return {"num_updates": self.average.n_averaged, **state}
