# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Which parameter learns how fast: the published groups, their schedule, and what is frozen."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from modeling_denseclip import DenseCLIPForSemanticSegmentation
from modeling_denseclip.modeling_denseclip_backbone import NEW_IN_BACKBONES


# The first part of a parameter's name says which part of the model it belongs to.
IMAGE_ENCODER = "image_encoder"
TEXT_ENCODER = ("text_encoder", "text_projection")
# What the names of peft's LoRA matrices hold.
LORA = ".lora_"


def freeze_text_encoder(model: nn.Module) -> None:
    """Freeze the text encoder and its projection. The learned contexts in its input are left trainable."""
    for name, parameter in model.named_parameters():
        if name.split(".")[0] in TEXT_ENCODER:
            parameter.requires_grad_(False)


def pretrained_image_modules(model: DenseCLIPForSemanticSegmentation) -> list[nn.Module]:
    """
    The modules of the image encoder that come from pretraining: CLIP's tower with its projection or attention pool, or
    another backbone. A pyramid, and the attention pool of another backbone, are new.
    """
    encoder, config = model.image_encoder, model.config
    if config.is_clip_vit:
        return [encoder.vision_model, *([encoder.visual_projection] if config.use_language else [])]
    return [encoder.backbone, *([encoder.attention_pool] if config.is_clip_resnet and config.use_language else [])]


def freeze_image_encoder(model: DenseCLIPForSemanticSegmentation) -> None:
    """Freeze what of the image encoder comes from pretraining. What is new in it is left trainable."""
    for module in pretrained_image_modules(model):
        for name, parameter in module.named_parameters():
            if not name.startswith(NEW_IN_BACKBONES):
                parameter.requires_grad_(False)


def build_parameter_groups(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    image_encoder_lr_multiplier: float = 1.0,
    image_encoder_no_decay: Sequence[str] = (),
) -> list[dict]:
    """
    Sort the trainable parameters into the groups of the published recipe.

    The image encoder has a learning rate of its own; LoRA matrices in it, which are new, have that of the rest.
    Everything decays but the norms in the context decoder's layers (not those around its projections, whose published
    names do not say that they are norms), and what of the image encoder `image_encoder_no_decay` names.

    Args:
        model (`nn.Module`): a DenseCLIP model; parameters with `requires_grad=False` are left out.
        learning_rate (`float`): the rate of all that is not the image encoder.
        weight_decay (`float`): the decoupled weight decay.
        image_encoder_lr_multiplier (`float`, *optional*, defaults to 1.0): factor on the image encoder's rate.
        image_encoder_no_decay (`Sequence[str]`, *optional*, defaults to `()`): parts of names. Parameters of the image
            encoder whose names hold one of them are not decayed. Published Swins have norms and positions there.

    Returns:
        `list[dict]`: groups for a `torch.optim.Optimizer`, each trainable parameter in exactly one, in a fixed order
        (a checkpoint of the optimizer knows its groups by their order only); empty groups are left out.

    Raises:
        ValueError: for a part that no parameter of the image encoder has in its name.

    Source: `paramwise_cfg` of the published configurations.
    """
    image_encoder_lr = learning_rate * image_encoder_lr_multiplier
    groups = {
        "image_encoder": {"lr": image_encoder_lr, "weight_decay": weight_decay},
        "image_encoder_no_decay": {"lr": image_encoder_lr, "weight_decay": 0.0},
        "decay": {"lr": learning_rate, "weight_decay": weight_decay},
        "no_decay": {"lr": learning_rate, "weight_decay": 0.0},
        "lora": {"lr": learning_rate, "weight_decay": weight_decay},
    }
    for group in groups.values():
        group["params"] = []
    unused = set(image_encoder_no_decay)
    for name, parameter in model.named_parameters():
        is_image_encoder = name.split(".")[0] == IMAGE_ENCODER
        own_name = name.removeprefix(IMAGE_ENCODER) if is_image_encoder else ""
        found = {part for part in image_encoder_no_decay if part in own_name}
        unused -= found  # for frozen parameters too, so that a recipe also serves with --freeze_image_encoder
        if not parameter.requires_grad:
            continue
        if LORA in name:
            groups["lora"]["params"].append(parameter)
        elif is_image_encoder:
            groups["image_encoder_no_decay" if found else "image_encoder"]["params"].append(parameter)
        elif name.startswith("context_decoder.layers.") and "norm" in name:
            groups["no_decay"]["params"].append(parameter)
        else:
            groups["decay"]["params"].append(parameter)
    if unused:
        raise ValueError(
            f"`image_encoder_no_decay` names {', '.join(sorted(unused))}, which no parameter of the image encoder has"
            " in its name. `model.image_encoder.named_parameters()` lists them."
        )
    return [{"name": name, **group} for name, group in groups.items() if group["params"]]


def published_poly(
    optimizer: torch.optim.Optimizer,
    num_training_steps: int,
    warmup_steps: int,
    power: float = 0.9,
    min_learning_rate: float = 1e-6,
    warmup_start_ratio: float = 1e-6,
) -> LambdaLR:
    """
    The schedule of the published recipe: polynomial decay of every group to one and the same rate, and a warm-up.

        rate(t) = (base - minimum) * (1 - t / T)^power + minimum
        before the end of the warm-up: rate(t) * (1 - (1 - t / W) * (1 - ratio))

    It differs from Transformers' "polynomial" in two ways: the minimum is a rate, not a share of the group's own, and
    the decay runs from the first step, beneath the warm-up.

    Args:
        optimizer (`torch.optim.Optimizer`): its groups' `lr` are the base rates, all above 0.
        num_training_steps (`int`): T, the steps of the whole run.
        warmup_steps (`int`): W, 0 for none.
        power (`float`, *optional*, defaults to 0.9): exponent of the decay.
        min_learning_rate (`float`, *optional*, defaults to 1e-6): the rate at the end, in every group; 0 is one.
        warmup_start_ratio (`float`, *optional*, defaults to 1e-6): factor at step 0.

    Raises:
        ValueError: for a group with a base rate of 0 or less, which has to be frozen instead.

    Source: mmcv 1.3 `PolyLrUpdaterHook` (`by_epoch=False`) with linear warm-up.
    """

    def factor_of(base: float) -> Callable[[int], float]:
        if base <= 0:
            raise ValueError(
                f"A parameter group has the learning rate {base}; it must be positive. Freeze parameters that are not"
                " to train (`requires_grad_(False)`): the published schedule would move them all the same."
            )

        def factor(step: int) -> float:
            remaining = max(1 - step / num_training_steps, 0)
            rate = (base - min_learning_rate) * remaining**power + min_learning_rate
            if step < warmup_steps:
                rate *= 1 - (1 - step / warmup_steps) * (1 - warmup_start_ratio)
            return rate / base

        return factor

    return LambdaLR(optimizer, [factor_of(group["lr"]) for group in optimizer.param_groups])


def format_parameter_table(model: nn.Module, parameter_groups: list[dict]) -> str:
    """One row per parameter group and one per frozen part: how many parameters, learning rate, weight decay."""
    rows = [
        (
            group["name"],
            len(group["params"]),
            sum(parameter.numel() for parameter in group["params"]),
            f"{group['lr']:.1e}",
            f"{group['weight_decay']:.1e}",
        )
        for group in parameter_groups
    ]
    frozen: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            frozen.setdefault(name.split(".")[0], []).append(parameter.numel())
    rows += [(part, len(sizes), sum(sizes), "frozen", "-") for part, sizes in frozen.items()]
    rows.append(("total", sum(row[1] for row in rows), sum(row[2] for row in rows), "", ""))

    width = max(15, *(len(row[0]) for row in rows))
    lines = [f"{'parameter group':<{width}}  tensors   parameters  learning rate  weight decay"]
    lines += [
        f"{name:<{width}}  {tensors:>7}  {size:>11,}  {rate:>13}  {decay:>12}".rstrip()
        for name, tensors, size, rate, decay in rows
    ]
    return "\n".join(lines)
