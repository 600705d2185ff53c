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
"""What `--config` names: a JSON file with fields of the model's config."""

import dataclasses
import os

from modeling_denseclip import DenseCLIPConfig
from modeling_denseclip.conversion_denseclip import CHECKPOINT_FIELDS
from modeling_denseclip.tools.files.loading import read_json


def read_config_fields(path: str | os.PathLike) -> dict:
    """
    Fields of [`DenseCLIPConfig`] from a JSON file: one of `configuration/models/`, a few fields, or a saved config.

    Raises:
        ValueError: for a field that the config does not have, or a value that it does not take.
    """
    fields = read_json(path)
    known = {field.name for field in dataclasses.fields(DenseCLIPConfig)} | set(CHECKPOINT_FIELDS)
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise ValueError(f"{path} has fields that DenseCLIPConfig does not know: {', '.join(unknown)}.")
    return fields
