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
"""How a model with its class names and its tokenizer is loaded and saved."""

import copy
import os

from transformers.utils import logging

from .class_names_denseclip import class_names_of
from .loading_denseclip import HUB_KWARGS, ask_hub, check_weight_files, naming_checkpoint


logger = logging.get_logger(__name__)

# By which of Transformers' Auto classes a checkpoint is found.
AUTO_CLASSES = ("AutoModel", "AutoModelForSemanticSegmentation")


class DenseCLIPPretrainedMixin:
    """`from_pretrained` and `save_pretrained` of a [`DenseCLIPForSemanticSegmentation`]."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """
        As [`PreTrainedModel.from_pretrained`]. With other class names (`id2label`, `num_labels`, or a `config` that
        was made with them) the checkpoint is loaded with its own names first, those in its `config.json`, and then
        given the others by `set_class_names`.
        """
        hub_kwargs = {name: kwargs[name] for name in HUB_KWARGS if name in kwargs}
        requested = kwargs.pop("id2label", None)
        num_labels = kwargs.pop("num_labels", None)
        kwargs.pop("label2id", None)  # follows from id2label
        if config is None or isinstance(config, (str, os.PathLike)):
            source = pretrained_model_name_or_path if config is None else config
            stored = cls.config_class.from_dict(cls.config_class.get_config_dict(source, **hub_kwargs)[0])
        else:
            stored = config = copy.deepcopy(config)  # the caller's object is left as it is
        names = class_names_of(stored.id2label)
        weight_names = stored.class_names or names
        if config is not None and pretrained_model_name_or_path is not None:
            # What the weights stand for is said beside them: another config, once saved, calls its names its own.
            try:
                fields = cls.config_class.get_config_dict(pretrained_model_name_or_path, **hub_kwargs)[0]
            except OSError:  # weights lie without a config
                fields = {}
            if fields.get("model_type") == cls.config_class.model_type:
                own = cls.config_class.from_dict(fields)
                if own.class_names not in (None, weight_names):
                    config, weight_names = stored, own.class_names
                    for name in ("class_names", "prompt_names", "class_token_ids"):
                        setattr(config, name, getattr(own, name))
        if requested is not None:
            names = class_names_of(requested)
        elif num_labels is not None and num_labels != len(weight_names):
            names = tuple(f"LABEL_{index}" for index in range(num_labels))

        if names != weight_names:
            own_labels = {
                "id2label": dict(enumerate(weight_names)),
                "label2id": {name: index for index, name in enumerate(weight_names)},
            }
            if stored is config:
                config.update(own_labels)
            else:
                kwargs.update(own_labels)
        try:
            with naming_checkpoint(pretrained_model_name_or_path):
                loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        except OSError as error:
            if pretrained_model_name_or_path is None:
                raise
            raise ask_hub(pretrained_model_name_or_path, "model.safetensors", **hub_kwargs) or error from error
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if pretrained_model_name_or_path is not None:
            model._tokenizer_source = (str(pretrained_model_name_or_path), hub_kwargs)
        if model.config.untrained_contexts:
            model.remember_untrained_contexts()
        if names != weight_names:
            model.set_class_names(names)
        return loaded

    @classmethod
    def _load_pretrained_model(cls, model, state_dict, checkpoint_files, load_config, *args, **kwargs):
        """A step of `from_pretrained`: the model is there, without numbers, and files are named."""
        if state_dict is None and checkpoint_files:
            folder, is_quantized = load_config.pretrained_model_name_or_path, load_config.hf_quantizer is not None
            check_weight_files(model, checkpoint_files, folder, is_quantized)
        return super()._load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs)

    def save_pretrained(self, save_directory, is_main_process: bool = True, **kwargs):
        """As [`PreTrainedModel.save_pretrained`], with the tokenizer beside the weights, so that names can change."""
        if self.is_fused:
            raise ValueError("This model was fused for inference, so it cannot be saved. Save it before `fuse()`.")
        self._adopt_labels()
        self.config.untrained_contexts = self.config.use_language and self.has_untrained_contexts()
        if self._auto_class is not None:
            # Transformers notes one Auto class; of code from a Hub, the others would go on pointing there.
            code = f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__}"
            auto_map = getattr(self.config, "auto_map", None) or {}
            self.config.auto_map = {**auto_map, **dict.fromkeys(AUTO_CLASSES, code)}
        if is_main_process and self.config.use_language:
            try:
                tokenizer = self._load_tokenizer()
            except ValueError:
                logger.info("No tokenizer is known to this model, so none is saved beside it.")
            else:
                tokenizer.save_pretrained(save_directory)
        return super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)


__all__ = ["DenseCLIPPretrainedMixin"]
