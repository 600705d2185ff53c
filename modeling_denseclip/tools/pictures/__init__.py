# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Colours of classes, pictures to look at, and figures of Matplotlib."""

from .drawing import contact_sheet, draw_bars, draw_heat_map, draw_matrix, draw_overlay, mark_pixel, save_overlay
from .palettes import color_blind_palette, generate_palette
from .plots import plot_score_maps, plot_segmentation
