# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
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
