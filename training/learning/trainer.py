# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The Hugging Face Trainer with DenseCLIP's learning rates, losses, batch norms, and evaluation at original size.

Methods of the Trainer that begin with an underscore may change with any release. Those that are overridden here have
no public counterpart; each says what would be lost without it.
"""

import math
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from huggingface_hub import HfApi
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer import SCALER_NAME, TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import (
    PREFIX_CHECKPOINT_DIR,
    EvalLoopOutput,
    HubStrategy,
    PredictionOutput,
    TrainOutput,
    get_last_checkpoint,
    has_length,
)
from transformers.utils import logging

from modeling_denseclip import average_probabilities
from modeling_denseclip.class_maps_denseclip import class_maps, id_dtype, whole_positions

from ..data.processes import explain_worker_errors, leave_interrupts_to_us
from ..data.streaming import STREAM_POSITION, TrainingStream
from ..data.transforms import collate_for_evaluation, normalize_batch
from ..metrics import SegmentationScores, mean_iou_from_confusion
from ..publishing.hub import HUB_ERRORS, explain_hub_error, push_directory
from .adapters import ADAPTER_DIR, add_lora, load_with_adapter, merged_state_dict, save_adapter
from .averaging import AVERAGED_WEIGHTS_NAME, AveragedWeights
from .batch_norm import find_norm_of_one_value, pretrained_batch_norms, synchronize_batch_norm
from .checkpoints import LAST, alone_in, checkpoint_to_resume, explain_full_disk, is_json
from .losses import SegmentationLoss
from .optimization import (
    build_parameter_groups,
    freeze_image_encoder,
    freeze_text_encoder,
    pretrained_image_modules,
    published_poly,
)
from .resuming import check_optimizer, check_resumable, check_weights, naming_file, unusable
from .scoring import RunningCounts, check_metric_for_best_model, name_scores
from .stream_progress import STATES, StreamProgress


logger = logging.get_logger(__name__)

LOSSES_OF_A_RUN = 20  # that are printed, if it is no longer than makes one in each 500 steps


class DenseCLIPTrainer(Trainer):
    """
    Trains DenseCLIP with its parameter groups, and evaluates it at the original size of the masks.

    Evaluation keeps no logits: each image's are brought to the size of its mask, turned into classes by the image
    processor's `post_process_semantic_segmentation`, and counted in one confusion matrix, summed over processes. An
    image that an [`EvaluationTransform`] brings in several sizes is evaluated at all of them, each mirrored as well,
    and the probabilities are averaged.

    It reports `eval_mean_iou` and the other scores of `training.metrics.SCORES`, and per class `eval_iou/<name>` and
    `eval_accuracy/<name>`, all fractions in [0, 1]; a class for which a score is not defined has no key.

    Pass the image processor as `processing_class`: it is saved with every checkpoint.

    Attributes:
        last_evaluation (`tuple[int, dict]`, *optional*): after which step, and what it reported.
        scores ([`SegmentationScores`], *optional*): of the last evaluation, or of `predict`.
        confusion (`torch.Tensor` of shape `(num_labels, num_labels)`, *optional*): of the same.
        worst_images (`list[tuple[float, int]]`): of the same, at most 20: mean IoU over the classes that the image's
            labels or its prediction hold, and `index` of the row; the worst first.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not isinstance(self.model, PreTrainedModel):
            raise ValueError(
                f"DenseCLIPTrainer trains the model itself, got a {type(self.model).__name__} around it. For LoRA pass"
                " the model, and `lora_rank` in the training arguments."
            )
        self.args.check_launcher()
        if self.args.metric_for_best_model is not None:
            set_names = list(self.eval_dataset) if isinstance(self.eval_dataset, dict) else []
            check_metric_for_best_model(self.args.metric_for_best_model, self.model.config.id2label, set_names)
        if self.args.freeze_text_encoder:
            freeze_text_encoder(self.model)
        if self.args.freeze_image_encoder:
            freeze_image_encoder(self.model)
        self._is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        for name in ("lora_rank", "ema_decay"):
            if getattr(self.args, name) is not None and self._is_sharded:
                raise ValueError(f"--{name} needs whole weights on every device; FSDP and DeepSpeed shard them.")
        if self.args.lora_rank is not None:
            add_lora(self.model, self.args.lora_rank, self.args.lora_alpha)
        if self.args.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if self.args.world_size > 1 and self.args.batch_norm != "local":
            synchronize_batch_norm(self.model, self.args.device)
        self._modules_in_evaluation = self._find_modules_in_evaluation()

        self.loss_function = SegmentationLoss.from_arguments(self.model.config, self.args)
        self._loss_parts: dict[str, torch.Tensor] = {}
        self._num_loss_parts = 0

        self.averaged_weights: AveragedWeights | None = None
        if self.args.ema_decay is not None:
            self.averaged_weights = AveragedWeights(self.model, self.args.ema_decay)
            self.add_callback(self.averaged_weights)

        self.stream_progress: StreamProgress | None = None
        if isinstance(self.train_dataset, TrainingStream):
            self.stream_progress = StreamProgress(self.train_dataset)
            self.add_callback(self.stream_progress)
            # The stream itself goes on where it was. The Trainer would read all former batches again, and begin the
            # second pass at the end of the first one.
            self.args.ignore_data_skip = True

        self.last_evaluation: tuple[int, dict[str, float]] | None = None
        self.scores: SegmentationScores | None = None
        self.confusion: torch.Tensor | None = None
        self.worst_images: list[tuple[float, int]] = []
        self._state_of_checkpoint: dict = {}
        self._push: Future | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs) -> TrainOutput:
        """
        As [`Trainer.train`].

        Raises:
            ValueError: if another training writes into the output directory, or for a checkpoint that cannot be gone
                on from; it names the file.
            ChildProcessError: if a process that loads images died.
        """
        alone = alone_in(self.args.output_dir) if self.is_world_process_zero() else nullcontext()
        with alone, explain_worker_errors(self._advise_last_checkpoint):
            if resume_from_checkpoint is True:
                resume_from_checkpoint = get_last_checkpoint(self.args.output_dir) or True
            if isinstance(resume_from_checkpoint, str | Path):
                self._check_checkpoint(Path(resume_from_checkpoint))
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def _check_checkpoint(self, checkpoint: Path) -> None:
        """Check what can be checked before any of it is loaded, and keep the state of the Trainer that it holds."""
        state = check_resumable(checkpoint, self.args.world_size, self.args.output_dir, self._is_sharded)
        for name in ("logging_steps", "eval_steps"):  # of these the checkpoint's apply, and steps are divided by them
            if state.get(name) == 0 and getattr(self.args, name) != 0:
                raise unusable(checkpoint / TRAINER_STATE_NAME, f"{name} is 0")
        if self.stream_progress is not None:
            self.stream_progress.load(checkpoint)
        elif any(checkpoint.glob(STATES)):
            raise ValueError(f"{checkpoint} comes from a run with --streaming. Go on from it with the same.")
        if (checkpoint / SCALER_NAME).is_file() and getattr(self.accelerator, "scaler", None) is None:
            raise ValueError(f"{checkpoint} comes from a run with --fp16. Go on from it with the same.")
        self._state_of_checkpoint = state

    def _advise_last_checkpoint(self) -> str:
        if self.is_in_train and checkpoint_to_resume(self.args.output_dir, LAST):
            return f" The last checkpoint is in {self.args.output_dir}: --resume_from_checkpoint {LAST}."
        return ""

    def _run_epoch(self, *args, **kwargs) -> None:
        # The Trainer always runs the epoch of the checkpoint's step. Without this, a run that was stopped after its
        # last step, while it was evaluated, say, would train one step more than one that was never stopped.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def set_initial_training_values(self, *args, **kwargs) -> tuple:
        """As [`Trainer.set_initial_training_values`]: a short run prints its loss on the way too."""
        values = super().set_initial_training_values(*args, **kwargs)
        if self.args.logs_by_length:
            *_, max_steps = values
            self.args.logging_steps = min(max(1, max_steps // LOSSES_OF_A_RUN), TrainingArguments.logging_steps)
        if self.stream_progress is not None:
            # A stream does not end, so one epoch of the Trainer does, in place of as many as a number can count.
            return 1, *values[1:]
        return values

    # ------------------------------------------------------------------------------------------------- optimisation

    def parameter_groups(self, model: nn.Module | None = None) -> list[dict]:
        """The groups of the optimizer that training will use, by default those of the Trainer's own model."""
        args = self.args
        return build_parameter_groups(
            model or self.model,
            args.learning_rate,
            args.weight_decay,
            args.image_encoder_lr_multiplier,
            args.image_encoder_no_decay,
        )

    def _find_modules_in_evaluation(self) -> list[nn.Module]:
        """What stays in evaluation mode while the rest trains."""
        if self.args.freeze_image_encoder:
            return pretrained_image_modules(self.model)
        if self.args.batch_norm == "frozen":
            return pretrained_batch_norms(self.model)
        if self.args.lora_rank is not None:
            modules = [module for part in pretrained_image_modules(self.model) for module in part.modules()]
            return [module for module in modules if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        return []

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            groups = self.parameter_groups(model)
            with _naming_arguments("--optim", self.args.optim, "--optim_args", self.args.optim_args):
                optimizer_class, optimizer_kwargs = self.get_optimizer_cls_and_kwargs(self.args, model or self.model)
                self.optimizer = optimizer_class(groups, **optimizer_kwargs)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        args = self.args
        if self.lr_scheduler is None and args.lr_schedule == "published_poly":
            self.lr_scheduler = published_poly(
                optimizer or self.optimizer,
                num_training_steps,
                args.get_warmup_steps(num_training_steps),
                args.lr_power,
                args.min_learning_rate,
                args.warmup_start_ratio,
            )
            self._created_lr_scheduler = True
        names = ("--lr_scheduler_type", args.lr_scheduler_type)
        with _naming_arguments(*names, "--lr_scheduler_kwargs", args.lr_scheduler_kwargs):
            return super().create_scheduler(num_training_steps, optimizer)  # where there is none yet

    def get_train_dataloader(self) -> DataLoader:
        """
        As [`Trainer.get_train_dataloader`]. A last batch of a single image, of which a batch norm sees one value per
        channel, is dropped with a warning: the model cannot be trained on it.

        Raises:
            ValueError: if all batches are like that, or none is left.
        """
        if self.stream_progress is not None:
            return self._stream_dataloader()
        with self._loading(self.data_collator, self._must_drop_last() or self.args.dataloader_drop_last):
            dataloader = leave_interrupts_to_us(super().get_train_dataloader())
        if has_length(dataloader) and len(dataloader) == 0:
            raise ValueError(
                f"Of {len(self.train_dataset)} training images no batch is left: {self._train_batch_size} for each of"
                f" {self.args.world_size} process{'' if self.args.world_size == 1 else 'es'} make one, and"
                " --dataloader_drop_last drops what makes none. Set that to false, or lower"
                " --per_device_train_batch_size."
            )
        return dataloader

    def _stream_dataloader(self) -> DataLoader:
        # Not prepared by Accelerate, which would let one process read for all of them, or each read everything.
        self._must_drop_last()  # of full batches none is dropped; it raises where they are of one image
        self.stream_progress.begin()
        args = self.args
        return leave_interrupts_to_us(
            DataLoader(
                self.train_dataset,
                batch_size=self._train_batch_size,
                collate_fn=self.data_collator,
                num_workers=args.dataloader_num_workers,
                pin_memory=args.dataloader_pin_memory,
                prefetch_factor=args.dataloader_prefetch_factor,
                multiprocessing_context=args.dataloader_multiprocessing_context,
                # From the global one it would draw a number behind the point to which a resumed run sets that back.
                generator=torch.Generator(),
            )
        )

    def training_step(self, model, inputs, *args, **kwargs) -> torch.Tensor:
        if STREAM_POSITION in inputs:
            self.stream_progress.note(inputs.pop(STREAM_POSITION))
        return super().training_step(model, inputs, *args, **kwargs)

    def _must_drop_last(self) -> bool:
        """Whether the last batch is one image on which the model cannot be trained; raises if all batches are."""
        num_processes, batch_size = self.args.world_size, self._train_batch_size
        is_streamed = self.stream_progress is not None
        if self._is_sharded or not (is_streamed or has_length(self.train_dataset)):
            return False
        if num_processes > 1 and self.args.batch_norm != "local":
            return False  # statistics are over the images of all processes
        # With several processes, the last batches are filled up with images from the beginning; a stream has no last.
        last = len(self.train_dataset) % batch_size if num_processes == 1 and not is_streamed else 0
        if batch_size > 1 and (last != 1 or self.args.dataloader_drop_last):
            return False
        if is_streamed:
            size = self.train_dataset.transform.crop_size
        else:
            size = tuple(self.train_dataset[0]["pixel_values"].shape[-2:])
        norm = find_norm_of_one_value(self.model, size, self._modules_in_evaluation)
        if norm is None:
            return False
        reason = (
            f"of one image of {size[0]} x {size[1]} pixels the batch norm {norm} sees one value per channel, which has"
            " no variance"
        )
        if batch_size == 1 or len(self.train_dataset) == 1:
            images = "--per_device_train_batch_size" if batch_size == 1 else "the number of training images"
            raise ValueError(
                f"The model cannot be trained on batches of one image: {reason}. Raise {images} to 2 or more"
                f"{', or let --batch_norm be sync' if num_processes > 1 else ''}. Accumulated batches do not help:"
                " each is normalised on its own."
            )
        logger.warning(f"The last batch of each epoch, a single image, is dropped (--dataloader_drop_last): {reason}.")
        return True

    @contextmanager
    def _loading(self, data_collator, drop_last: bool) -> Iterator[None]:
        """Within this context DataLoaders are made with this collator, and drop or keep an incomplete last batch."""
        former = self.data_collator, self.args.dataloader_drop_last
        self.data_collator, self.args.dataloader_drop_last = data_collator, drop_last
        try:
            yield
        finally:
            self.data_collator, self.args.dataloader_drop_last = former

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        # Not once before the training: the Trainer puts all of the model into training mode in each step.
        for module in self._modules_in_evaluation:
            module.eval()
        if "sizes" in inputs:  # a batch of [`TrainingTransform`], which leaves normalising to the device
            inputs = normalize_batch(inputs, self.processing_class)
        outputs = model(pixel_values=inputs["pixel_values"], return_dict=True)
        parts = self.loss_function(outputs, inputs["labels"])
        if model.training:
            for name, part in parts.items():
                self._loss_parts[name] = self._loss_parts.get(name, 0) + part.detach()
            self._num_loss_parts += 1
        loss = sum(parts.values())
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        # The Trainer logs the training loss as "loss", on all processes, and whatever else under other names.
        if "loss" in logs and self._num_loss_parts:
            for name, total in self._loss_parts.items():
                mean = self.accelerator.reduce(total / self._num_loss_parts, reduction="mean")
                logs[f"loss_{name}"] = mean.item()
            self._loss_parts, self._num_loss_parts = {}, 0
        super().log(logs, start_time)

    # --------------------------------------------------------------------------------------------------- evaluation

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        with self._loading(collate_for_evaluation, drop_last=False):
            return leave_interrupts_to_us(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset) -> DataLoader:
        with self._loading(collate_for_evaluation, drop_last=False):
            return leave_interrupts_to_us(super().get_test_dataloader(test_dataset))

    def evaluated_weights(self) -> AbstractContextManager:
        """Within this context the model has the weights to evaluate and to save: averaged ones, if there are any."""
        return nullcontext() if self.averaged_weights is None else self.averaged_weights.applied()

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """
        As [`Trainer.evaluate`], of the averaged weights where weights are averaged.

        Raises:
            ChildProcessError: if a process that loads images died.
        """
        with self.evaluated_weights(), explain_worker_errors(self._advise_last_checkpoint):
            metrics = super().evaluate(*args, **kwargs)
        self.last_evaluation = (self.state.global_step, metrics)
        return metrics

    def predict(self, *args, **kwargs) -> PredictionOutput:
        """
        As [`Trainer.predict`]: what `evaluate` reports, of a set with masks, its names beginning with `test_`.

        The maps themselves are not kept, so `predictions` and `label_ids` are `None`. The pipeline makes them, and
        `denseclip predict`, which need no masks.

        Raises:
            ValueError: for a set without masks.
            ChildProcessError: if a process that loads images died.
        """
        with self.evaluated_weights(), explain_worker_errors(self._advise_last_checkpoint):
            return super().predict(*args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Count the classes of a batch of images of any sizes. Returns neither loss nor logits nor labels."""
        inputs = self._prepare_inputs(inputs)
        images = list(zip(inputs["pixel_values"], inputs["labels"], inputs["index"], strict=True))
        # Images that fill up the last batches are segmented, as each process has to run the model equally often, but
        # not counted.
        num_to_count = self._num_images_to_count(len(images))
        for position, (copies, labels, index) in enumerate(images):
            with torch.no_grad(), self.compute_loss_context_manager():
                segmentation, loss = self.segment_for_scoring(model, copies, labels)
            if position < num_to_count:
                self._counts.add(segmentation, labels, loss, index)
        return None, None, None

    def segment_for_scoring(
        self, model: nn.Module, copies: list[torch.Tensor], labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Segment one image at the size of its labels.

        Args:
            model (`nn.Module`): in evaluation mode.
            copies (`list[torch.Tensor]`): the image, `(3, height, width)`, not padded; in several sizes for
                multi-scale testing.
            labels (`torch.Tensor` of shape `(height, width)`): ids. The loss is computed with them too or, where they
                have more pixels than the image that the model sees, with those nearest to its logits.

        Returns:
            The class id of each pixel, of the shape of `labels`, and the loss of a single-scale image.
        """
        if len(copies) > 1:
            probabilities = average_probabilities(model, [copy[None] for copy in copies], tuple(labels.shape))
            return probabilities[0].argmax(dim=0), None
        outputs = model(pixel_values=copies[0][None], return_dict=True)
        # At the size of a photograph of 12 megapixels, to which the loss brings them, logits of 150 classes are 7 GB.
        is_larger = labels.numel() > copies[0][0].numel()
        labels_for_loss = _take_nearest(labels, outputs.logits.shape[-2:]) if is_larger else labels
        loss = sum(self.loss_function(outputs, labels_for_loss[None]).values())
        positions = whole_positions(tuple(labels.shape), outputs.logits)
        (found,) = class_maps([(outputs.logits[0], *positions)], dtype=id_dtype(outputs.logits.shape[1]))
        return found.class_ids, loss.detach()

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        config = self.model.config
        self._counts = RunningCounts(config, self.args.device)
        output = super().evaluation_loop(
            dataloader, description, True, ignore_keys=ignore_keys, metric_key_prefix=metric_key_prefix
        )
        self._counts.sum_over_processes(
            lambda tensor: self.accelerator.reduce(tensor.to(self.args.device), reduction="sum")
        )
        if self._counts.num_images != self.num_examples(dataloader):
            raise RuntimeError(f"{self._counts.num_images} images were counted of {self.num_examples(dataloader)}.")
        self.confusion = self._counts.confusion
        if not self.confusion.any():
            raise ValueError(
                f"All labels are {config.ignore_index} (unlabelled): there is nothing to score in this set."
            )
        self.scores = mean_iou_from_confusion(self.confusion)
        self.worst_images = self._counts.worst_images
        if losses := self._counts.losses:  # multi-scale testing has none
            output.metrics[f"{metric_key_prefix}_loss"] = math.fsum(losses) / len(losses)
        for name, value in name_scores(self.scores, config.id2label).items():
            output.metrics[f"{metric_key_prefix}_{name}"] = value
        return output

    def _determine_best_metric(self, metrics: dict[str, float], trial) -> bool:
        # Without this, a training would end by a KeyError at an evaluation in which the score is not defined.
        name = self.args.metric_for_best_model
        if name is not None and f"eval_{name.removeprefix('eval_')}" not in metrics:
            logger.warning(
                f"{name} is not defined in this evaluation, as of a class that no labelled pixel has: this model is"
                " not compared with the best one."
            )
            return False
        return super()._determine_best_metric(metrics, trial)

    def _num_images_to_count(self, batch_size: int) -> int:
        """
        How many of this process's images are not repeats.

        Several processes take turns in batches, and the last turn is filled up with images from the beginning.
        """
        state = self.accelerator.gradient_state
        if state.end_of_dataloader and state.remainder > 0:
            return min(batch_size, max(0, state.remainder - self.args.process_index * self.args.eval_batch_size))
        return batch_size

    # ------------------------------------------------------------------------------------------- checkpoints and Hub

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """
        Save model, code, tokenizer and image processor. The model of the run itself (without `output_dir`) is the
        averaged one where weights are averaged; checkpoints hold the weights that training goes on from. Nothing is
        pushed: [`push_to_hub`] does that, when there are figures for the card.
        """
        if output_dir is not None:
            super().save_model(output_dir, _internal_call=True)
            return
        with self.evaluated_weights(), explain_full_disk("The model, trained to its end,", self.args.output_dir):
            super().save_model(output_dir, _internal_call=True)

    def _save_checkpoint(self, model: nn.Module, trial) -> None:
        # Without this, a full disk would be a traceback of whichever library was writing. And a checkpoint of the same
        # step of an earlier run, whose state says that it is whole, would still say so while it is written over.
        if self.args.should_save:
            checkpoint = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            (checkpoint / TRAINER_STATE_NAME).unlink(missing_ok=True)
        with explain_full_disk(f"The checkpoint of step {self.state.global_step}", self.args.output_dir):
            super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        # The last thing that is written before the main process writes the state, which says that a checkpoint is
        # whole. Without this, averaged weights would be lacking in it, and random numbers of other processes might be.
        if self.averaged_weights is not None and self.args.should_save:
            self.averaged_weights.save(output_dir)
        if self.stream_progress is not None:
            self.stream_progress.save(output_dir)
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # Without this, weights with LoRA would be saved unmerged, under names that no model without LoRA has.
        if self.args.lora_rank is not None:
            state_dict = merged_state_dict(self.model)
        super()._save(output_dir, state_dict)
        if self.args.lora_rank is not None and self.args.should_save:
            save_adapter(self.model, Path(output_dir or self.args.output_dir) / ADAPTER_DIR)

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        # Metrics are combined with those in a file, of which a run that was killed may have left half.
        combined_path = Path(self.args.output_dir) / "all_results.json"
        if self.is_world_process_zero() and not is_json(combined_path):
            combined_path.unlink(missing_ok=True)
        super().save_metrics(split, metrics, combined)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        # Without this, weights of other names or shapes would be passed over with a warning, and those of a run with
        # LoRA, which are saved merged, would not be loaded.
        checkpoint = Path(resume_from_checkpoint)
        if self.args.lora_rank is not None:
            check_weights(checkpoint, merged_state_dict(self.model))
            load_with_adapter(self.model, checkpoint)
        elif (checkpoint / ADAPTER_DIR).is_dir():
            raise ValueError(f"{checkpoint} comes from a run with --lora_rank. Go on from it with the same.")
        else:
            if not self._is_sharded:
                check_weights(checkpoint, self.model.state_dict())
            with naming_file(checkpoint):
                super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        # Without this, merged weights would not be loaded into a model with LoRA.
        if self.args.lora_rank is not None:
            load_with_adapter(self.model, Path(self.state.best_model_checkpoint))
        else:
            super()._load_best_model()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # Between the making of both and the loading of their states, which torch does not check. Without this, a
        # damaged file would train to weights that are no numbers, or crash, and averaged weights would begin anew.
        if checkpoint is None:
            return
        if not self._is_sharded:
            optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # Accelerate has put its own around it
            step = self._state_of_checkpoint["global_step"]
            check_optimizer(Path(checkpoint), step, optimizer, self.lr_scheduler)
        if self.averaged_weights is not None:
            self.averaged_weights.load(checkpoint)
        elif (Path(checkpoint) / AVERAGED_WEIGHTS_NAME).is_file():
            raise ValueError(f"{checkpoint} comes from a run with --ema_decay. Go on from it with the same.")
        with naming_file(Path(checkpoint)):
            super()._load_optimizer_and_scheduler(checkpoint)
        best = self._state_of_checkpoint.get("best_model_checkpoint")
        if best is not None and Path(best).is_dir():
            self.state.best_model_checkpoint = best
        # The Trainer writes the state of each callback in place of that in the checkpoint, which may lack new ones.
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())

    def init_hf_repo(self, token: str | None = None, **kwargs) -> None:
        """
        Make the repository before anything is trained for it.

        Raises:
            OSError: says what is wrong with token, name or connection; see [`push_directory`].
        """
        try:
            super().init_hf_repo(token, **kwargs)
        except HUB_ERRORS as error:
            repo_id = self.args.hub_model_id or Path(self.args.output_dir).name
            state = "Nothing was trained yet. Without --push_to_hub no Hub is needed."
            raise explain_hub_error(error, repo_id, token or self.args.hub_token, state) from error

    def push_to_hub(self, commit_message: str = "End of training", **card) -> str | None:
        """
        Save the model of the run and push it with its card, as one commit. `card` are `recipe` and `base_model` of
        [`push_directory`]. Returns the address of the commit, on the main process.
        """
        if self.hub_model_id is None:
            self.init_hf_repo()
        self.save_model()
        if not self.is_world_process_zero():
            return None
        self.finish_push()
        return push_directory(
            self.args.output_dir,
            self.hub_model_id,
            token=self.args.hub_token,
            private=self.args.hub_private_repo,
            revision=self.args.hub_revision,
            commit_message=commit_message,
            **card,
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """
        Push a whole checkpoint, code and tokenizer included, as one commit, while the training goes on. An error is
        logged and does not end the run: the next checkpoint is pushed anew.
        """
        # Without this, the Trainer would push weights without the code and the card that they need.
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if self._push is not None:
            if not self._push.done():
                return
            self.finish_push()
        self._push = HfApi().run_as_future(
            push_directory,
            checkpoint_folder,
            self.hub_model_id,
            token=self.args.hub_token,
            private=self.args.hub_private_repo,
            revision=self.args.hub_revision,
            commit_message=f"Training in progress, step {self.state.global_step}",
        )

    def finish_push(self) -> None:
        """Wait for a push that runs beside the training."""
        if self._push is not None:
            push, self._push = self._push, None
            try:
                push.result()
            except (OSError, ValueError) as error:
                logger.warning(f"A checkpoint could not be pushed to the Hub: {error}")


def _take_nearest(labels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Labels (height, width) at another size, by the rule of OpenCV's nearest neighbours."""
    rows, columns = (
        torch.arange(new, device=labels.device) * old // new for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]


@contextmanager
def _naming_arguments(name: str, choice: str, options_name: str, options: object) -> Iterator[None]:
    """Turn whatever Transformers and torch raise into an error that names these arguments."""
    try:
        yield
    except Exception as error:
        given = f" with {options_name} {options}" if options else ""
        raise ValueError(
            f"{name} {getattr(choice, 'value', choice)}{given} cannot be used: {' '.join(str(error).split())}"
        ) from error
