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
"""
The rule by which pictures are resized. It stands alone, without an import, so that what runs exported models without
PyTorch has it too.
"""


def resized_size(height: int, width: int, size: dict) -> tuple[int, int]:
    """
    Height and width in pixels that a picture has after resizing, at least 1 each.

    Args:
        height, width (`int`): of the original picture, in pixels.
        size (`dict`): `height` and `width`; or `shortest_edge`, with `longest_edge` where that is limited.

    Source: mmcv 1.3 `rescale_size`, which rounds `int(side * scale + 0.5)`; transformers' own keep-ratio resize cuts
    off, so that 768 x 1024 becomes 512 x 682 there and 512 x 683 here.
    """
    if size.get("height") and size.get("width"):
        return size["height"], size["width"]
    scale = size["shortest_edge"] / min(height, width)
    if size.get("longest_edge"):
        scale = min(scale, size["longest_edge"] / max(height, width))
    # A very long strip would round to no pixels at all.
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


__all__ = ["resized_size"]
