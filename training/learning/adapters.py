# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
LoRA on the image encoder: few weights learn beside the pretrained ones, and are merged where they are saved.

By peft, and not by `add_adapter` of Transformers: after it `save_pretrained` writes the adapter alone, where prompts,
neck and head are trained as well and a checkpoint has to be a whole model. `load_adapter` of Transformers makes a new
adapter, where a run goes on with its own.
"""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils import SAFE_WEIGHTS_NAME

from modeling_denseclip import DenseCLIPForSemanticSegmentation

from .optimization import LORA, freeze_image_encoder, pretrained_image_modules
from .resuming import check_tensors, naming_file


# Beside the merged weights: the adapter alone, as peft saves it.
ADAPTER_DIR = "adapter"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_NAME = "default"  # peft's name of an adapter that was given none
BASE_LAYER = ".base_layer."  # in the names of an adapted layer's own parameters
PREFIX = "base_model.model."  # of all names in a file of peft, which has a PeftModel around the model


def add_lora(model: DenseCLIPForSemanticSegmentation, rank: int, alpha: int | None = None) -> None:
    """
    Freeze what of the image encoder comes from pretraining, and put LoRA beside its layers, in place. Everything else
    of the model, which must not be fused, trains as before. Updates are scaled by alpha / rank; alpha defaults to
    twice the rank.

    Raises:
        ImportError: where peft is not installed.

    Source: "LoRA: Low-Rank Adaptation of Large Language Models".
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError('--lora_rank needs peft: pip install "modeling-denseclip[lora]"') from error
    freeze_image_encoder(model)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    targets = "|".join(map(re.escape, lora_targets(model)))  # of a list, peft would match endings of names
    config = LoraConfig(r=rank, lora_alpha=2 * rank if alpha is None else alpha, target_modules=targets)
    inject_adapter_in_model(config, model)
    for parameter in trainable:  # peft has frozen all but its own
        parameter.requires_grad_(True)


def lora_targets(model: DenseCLIPForSemanticSegmentation) -> list[str]:
    """
    Names of the layers that get LoRA. Of CLIP's ViT the projections of each attention; of CLIP's ResNet convolutions
    and the projections of the attention pool; of other backbones linear layers, or convolutions if they have none.
    """
    names = {id(module): name for name, module in model.named_modules()}
    modules = [module for part in pretrained_image_modules(model) for module in part.modules()]
    linear = [names[id(module)] for module in modules if isinstance(module, nn.Linear)]
    convolutions = [names[id(module)] for module in modules if isinstance(module, nn.Conv2d) and module.groups == 1]
    if model.config.is_clip_vit:
        return [name for name in linear if ".self_attn." in name]
    if model.config.is_clip_resnet:
        return convolutions + linear
    return linear or convolutions


@torch.no_grad()
def merged_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a model with LoRA, merged, by the names of a model without. The model itself is not changed."""
    state = model.state_dict()
    for name, module in adapted_layers(model).items():
        weight = f"{name}{BASE_LAYER}weight"
        state[weight] = state[weight] + module.get_delta_weight(ADAPTER_NAME)
    return {name.replace(BASE_LAYER, "."): tensor for name, tensor in state.items() if LORA not in name}


def adapted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers with LoRA, by their names in a model without."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def save_adapter(model: nn.Module, folder: Path) -> None:
    """Write the matrices of LoRA alone, so that `peft.PeftModel.from_pretrained` reads them."""
    model.peft_config[ADAPTER_NAME].save_pretrained(folder)
    save_file(adapter_state_dict(model), folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def adapter_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The matrices of LoRA alone, as peft names them in a file."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {PREFIX + name: tensor.contiguous() for name, tensor in state.items()}


@torch.no_grad()
def load_with_adapter(model: nn.Module, checkpoint: Path) -> None:
    """
    Load what a run with LoRA has saved into a model with LoRA, bit by bit. A checkpoint has the weights of the adapted
    layers only merged; unmerged, `model` has them, if it was started from the same weights as the run was.

    Raises:
        ValueError: for a checkpoint without LoRA, with another one or with damaged files, or a model that was started
            from other weights.
    """
    from peft import set_peft_model_state_dict

    folder = checkpoint / ADAPTER_DIR
    if not folder.is_dir():
        raise ValueError(f"{checkpoint} comes from a run without --lora_rank, so it cannot be gone on from with it.")
    own = model.peft_config[ADAPTER_NAME]
    with naming_file(folder / ADAPTER_CONFIG):
        fields = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        rank, alpha = fields["r"], fields["lora_alpha"]
    if (rank, alpha) != (own.r, own.lora_alpha):
        raise ValueError(
            f"{checkpoint} comes from a run with --lora_rank {rank} --lora_alpha {alpha}, so it cannot be gone on from"
            f" with --lora_rank {own.r} --lora_alpha {own.lora_alpha}."
        )
    check_tensors([folder / ADAPTER_WEIGHTS], adapter_state_dict(model))
    set_peft_model_state_dict(
        model, {name.removeprefix(PREFIX): t for name, t in load_file(folder / ADAPTER_WEIGHTS).items()}
    )
    merged = load_file(checkpoint / SAFE_WEIGHTS_NAME)
    adapted = [f"{name}.weight" for name in adapted_layers(model)]
    state = model.state_dict()
    named_as_merged = {name.replace(BASE_LAYER, "."): name for name in state}
    model.load_state_dict(state | {named_as_merged[name]: merged[name] for name in merged if name not in adapted})

    now = merged_state_dict(model)
    for name in adapted:
        # Not exactly, since another device rounds differently.
        if (now[name].cpu() - merged[name]).abs().max() > 1e-3 * merged[name].abs().max():
            raise ValueError(
                f"{checkpoint} was started from other weights than this model, as {name} shows. Start from the same"
                " --clip or --image as the run did."
            )
