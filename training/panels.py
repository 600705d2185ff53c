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
"""Pictures of what a model does with single images: photograph, truth, prediction, score map."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from transformers import Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback

from .visualize import contact_sheet, draw_heat_map, draw_overlay


SAMPLES_FOLDER = "samples"


@dataclass
class Comparison:
    """
    Args:
        photograph, truth, prediction (`PIL.Image.Image`): of one size.
        score_map (`PIL.Image.Image`, *optional*): the score map of one class over the photograph. Only with language.
        class_name (`str`): that class: the one with the most labelled pixels.
    """

    photograph: PIL.Image.Image
    truth: PIL.Image.Image
    prediction: PIL.Image.Image
    score_map: PIL.Image.Image | None
    class_name: str


@torch.no_grad()
def draw_comparison(trainer: Trainer, row: dict, sample: dict) -> Comparison:
    """
    Draw what the trainer's model, as it stands, makes of one image.

    Args:
        trainer ([`DenseCLIPTrainer`]): its model is put into evaluation mode.
        row (`dict`): the image's row of the data set.
        sample (`dict`): the same row after the [`EvaluationTransform`].
    """
    model, config = trainer.model.eval(), trainer.model.config
    copies = [copy.to(trainer.args.device) for copy in sample["pixel_values"]]
    labels = sample["labels"].to(trainer.args.device)
    segmentation, _ = trainer.segment_for_scoring(model, copies, labels)
    photograph = row["image"].convert("RGB")
    labelled = labels[labels != config.ignore_index]
    class_id = int(labelled.mode().values) if labelled.numel() else 0
    class_name = config.id2label[class_id]

    def overlay(ids: torch.Tensor) -> PIL.Image.Image:
        return draw_overlay(photograph, ids.cpu().numpy(), config.id2label, config.palette, legend=False)

    score_map = None
    if config.use_language:
        scores = model(copies[0][None], inference_mode="whole").score_map[0, class_id].float().cpu().numpy()
        score_map = draw_heat_map(photograph, scores, title=class_name)
    return Comparison(photograph, overlay(labels), overlay(segmentation), score_map, class_name)


class SamplePanels(TrainerCallback):
    """
    Draws the same few validation images at every evaluation, into `samples/step-N.jpg` of the output folder and, where
    logs go there, into TensorBoard.
    """

    def __init__(self, trainer: Trainer, rows, num_images: int):
        self.trainer = trainer
        self.rows = rows
        # Spread evenly over the set.
        self.indices = [int(index) for index in np.linspace(0, len(rows) - 1, min(num_images, len(rows)))]

    def on_evaluate(self, args, state, control, **kwargs):
        # A sharded model needs all processes to run; a whole one runs here alone.
        if not self.indices or not state.is_world_process_zero or self.trainer.is_fsdp_enabled:
            return
        panel = self.draw()
        folder = Path(args.output_dir) / SAMPLES_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        panel.save(folder / f"step-{state.global_step:06d}.jpg", quality=90)
        for callback in self.trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_image("samples", np.asarray(panel), state.global_step, dataformats="HWC")

    def draw(self) -> PIL.Image.Image:
        pictures, captions = [], []
        for index in self.indices:
            comparison = draw_comparison(self.trainer, self.rows[index], self.trainer.eval_dataset[index])
            pictures += [comparison.photograph, comparison.truth, comparison.prediction]
            captions += [self.rows[index]["name"], "truth", "prediction"]
            if comparison.score_map is not None:
                pictures.append(comparison.score_map)
                captions.append(f"score map: {comparison.class_name}")
        return contact_sheet(pictures, captions, columns=4 if self.trainer.model.config.use_language else 3)
