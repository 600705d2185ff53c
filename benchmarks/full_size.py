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
One training step of whole rows of the paper at their own size, with random weights.

    python -m benchmarks.full_size [STEM ...]

Two images of 512 x 512 and 150 classes, forward and backward: the loss, whether every trainable parameter has a finite
gradient, seconds, and the peak of resident memory. Each row runs in a process of its own.
"""

import argparse
import multiprocessing
import resource
import time

import torch

from modeling_denseclip import DenseCLIPForSemanticSegmentation

from .speed import make_config


ROWS = ("denseclip_fpn_rn50", "denseclip_fpn_vit_b16", "denseclip_upernet_swin_tiny")


def run(stem: str) -> None:
    """Print one line of the table."""
    torch.manual_seed(0)
    model = DenseCLIPForSemanticSegmentation(make_config(stem)).train()
    pixel_values = torch.randn(2, 3, 512, 512)
    labels = torch.randint(0, model.num_labels, (2, 512, 512))
    start = time.perf_counter()
    loss = model(pixel_values, labels=labels).loss
    forward = time.perf_counter() - start
    loss.backward()
    seconds = time.perf_counter() - start
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    finite = sum(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in trainable)
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"| `{stem}` | {loss.item():.3f} | {finite} of {len(trainable)} | {forward:.1f} | {seconds - forward:.1f} |"
        f" {gigabytes:.1f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="STEM", help=f"rows of configuration/models; by default {ROWS}")
    print("| Row | Loss | Finite gradients | Forward, s | Backward, s | Peak, GiB |\n|---|---:|---:|---:|---:|---:|")
    for stem in parser.parse_args().rows or ROWS:
        process = multiprocessing.get_context("spawn").Process(target=run, args=(stem,))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise SystemExit(f"{stem} failed.")


if __name__ == "__main__":
    main()
