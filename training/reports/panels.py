# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of what a model does with single images: photograph, truth, prediction, score map."""

from pathlib import Path

import numpy as np
import PIL.Image
import torch
from transformers import Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback

from modeling_denseclip.tools.pictures.drawing import contact_sheet, draw_heat_map, draw_overlay

from ..data.transforms import read_image, with_encoded


@torch.no_grad()
def draw_comparison(trainer: Trainer, row: dict, sample: dict, faint_id: int | None = None) -> list[PIL.Image.Image]:
    """
    Draw what the trainer's model, as it stands, makes of one image: photograph, truth and prediction.

    Args:
        trainer ([`DenseCLIPTrainer`]): its model is put into evaluation mode.
        row (`dict`): the image's row of the data set; the image decoded or not.
        sample (`dict`): the same row after the [`EvaluationTransform`].
        faint_id (`int`, *optional*): a class that is coloured faintly.
    """
    model, config = trainer.model.eval(), trainer.model.config
    copies = [copy.to(trainer.args.device) for copy in sample["pixel_values"]]
    segmentation, _ = trainer.segment_for_scoring(model, copies, sample["labels"].to(trainer.args.device))
    photograph = PIL.Image.fromarray(read_image(row["image"]))
    overlays = [
        draw_overlay(photograph, ids.cpu().numpy(), config.id2label, config.palette, legend=False, faint_id=faint_id)
        for ids in (sample["labels"], segmentation)
    ]
    return [photograph, *overlays]


@torch.no_grad()
def draw_score_map(trainer: Trainer, row: dict, sample: dict) -> tuple[PIL.Image.Image, str]:
    """
    Draw the score map of one class over the photograph: of the class with the most labelled pixels, whose name is
    returned too. Arguments as in [`draw_comparison`]; the model has to have language.
    """
    model, config = trainer.model.eval(), trainer.model.config
    labels = sample["labels"].long()
    labelled = labels[labels != config.ignore_index]
    class_id = int(labelled.mode().values) if labelled.numel() else 0
    pixel_values = sample["pixel_values"][0].to(trainer.args.device)
    scores = model(pixel_values[None], inference_mode="whole", return_dict=True).score_map[0, class_id]
    class_name = config.id2label[class_id]
    photograph = PIL.Image.fromarray(read_image(row["image"]))
    return draw_heat_map(photograph, scores.float().cpu().numpy(), title=class_name), class_name


class SamplePanels(TrainerCallback):
    """
    Draws the same few validation images at every evaluation, into `samples/step-N.jpg` of the output folder and, where
    logs go there, into TensorBoard.
    """

    def __init__(self, trainer: Trainer, rows, num_images: int):
        self.trainer = trainer
        self.rows = with_encoded(rows, "image", "annotation")
        # Spread evenly over the set.
        self.indices = [int(index) for index in np.linspace(0, len(rows) - 1, min(num_images, len(rows)))]

    def on_evaluate(self, args, state, control, **kwargs):
        # The main process draws alone, with which a sharded model cannot run.
        if not self.indices or not state.is_world_process_zero or self.trainer.is_fsdp_enabled:
            return
        panel = self.draw()
        folder = Path(args.output_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        panel.save(folder / f"step-{state.global_step:06d}.jpg", quality=90)
        for callback in self.trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_image("samples", np.asarray(panel), state.global_step, dataformats="HWC")

    def draw(self) -> PIL.Image.Image:
        use_language = self.trainer.model.config.use_language
        pictures, captions = [], []
        for index in self.indices:
            row, sample = self.rows[index], self.trainer.eval_dataset[index]
            pictures += draw_comparison(self.trainer, row, sample)
            captions += [row["name"], "truth", "prediction"]
            if use_language:
                score_map, class_name = draw_score_map(self.trainer, row, sample)
                pictures.append(score_map)
                captions.append(f"score map: {class_name}")
        return contact_sheet(pictures, captions, columns=4 if use_language else 3)
