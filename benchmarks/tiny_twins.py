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
Train a tiny twin of every row of the paper's Tables 2 and 5, from random weights, on a folder of pictures.

    python -m benchmarks.tiny_twins --data_dir DIR --tokenizer TOKENIZER --output_dir OUT [STEM ...]

A twin is the row's own file of `configuration/models/` with its widths and depths cut down, so that each part of the
row takes part: its kind of backbone, prompting mode and head. It shows that a row learns, not how good the row is:
without CLIP's and ImageNet's weights nothing that the paper compares is there. Needs the folder layout of
`training.data.segmentation_folder`. Prints a table, and writes it to OUT/results.md.
"""

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from training import REPOSITORY
from training.train import main as train


MODELS = REPOSITORY / "configuration" / "models"
ROWS = (
    *("denseclip_language_fpn_rn50", "denseclip_pre_model_fpn_rn50", "denseclip_fpn_rn50"),
    *("denseclip_imagenet_fpn_rn50", "denseclip_imagenet_fpn_rn101"),
    *("upernet_swin_tiny", "denseclip_upernet_swin_tiny", "upernet_swin_small", "denseclip_upernet_swin_small"),
)
# What is left of each part.
SMALL = {
    "projection_dim": 64,
    "context_decoder_hidden_size": 64,
    "context_decoder_num_hidden_layers": 1,
    "context_decoder_num_attention_heads": 2,
    "context_decoder_intermediate_size": 256,
    "neck_hidden_size": 48,
    "decode_head_hidden_size": 48,
    "auxiliary_head_hidden_size": 48,
    "attention_pool_grid_size": 8,
    "inference_mode": "whole",
}
SMALL_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 64,
}
SMALL_VISION = {
    "denseclip_resnet": {"embedding_size": 12, "num_attention_heads": 6, "image_size": 256},
    "resnet": {"embedding_size": 16, "hidden_sizes": [48, 96, 192, 384]},
    "swin": {"embed_dim": 24, "num_heads": [1, 2, 4, 8], "drop_path_rate": 0.1},
}


def shrink(fields: dict) -> dict:
    """The fields of a row's twin. Stages keep their proportion: a deeper row has a deeper twin."""
    twin = {name: SMALL.get(name, value) for name, value in fields.items()}
    vision = twin["vision_config"]
    twin["vision_config"] = vision | SMALL_VISION[vision["model_type"]]
    twin["vision_config"]["depths"] = [max(1, round(depth / 6)) for depth in vision["depths"]]
    if "text_config" in twin:
        twin["text_config"] = twin["text_config"] | SMALL_TEXT
    return twin


def train_twin(stem: str, args: argparse.Namespace) -> dict:
    """Train one; returns its figures."""
    output = Path(args.output_dir) / stem
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    config = output / "twin.json"
    config.write_text(json.dumps(shrink(json.loads((MODELS / f"{stem}.json").read_text()))))
    words = {
        **{"config": config, "data_dir": args.data_dir, "tokenizer": args.tokenizer, "output_dir": output},
        **{"max_steps": args.max_steps, "per_device_train_batch_size": args.batch_size, "learning_rate": 1e-3},
        **{
            "short_side": 240,
            "crop_size": 192,
            "weight_decay": 1e-4,
            "warmup_steps": 20,
            "lr_schedule": "published_poly",
        },
        **{
            "eval_strategy": "no",
            "save_strategy": "no",
            "logging_steps": min(50, args.max_steps),
            "report_to": "none",
            "seed": 0,
        },
    }
    start = time.perf_counter()
    trainer = train([word for name, value in words.items() for word in (f"--{name}", str(value))])
    seconds = time.perf_counter() - start
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    metrics = trainer.last_evaluation[1]
    return {
        "row": stem,
        "parameters": sum(p.numel() for name, p in trainer.model.named_parameters() if not name.startswith("text_")),
        "first": losses[0]["loss"],
        "last": losses[-1]["loss"],
        "mean_iou": metrics["eval_mean_iou"],
        "overall": metrics["eval_overall_accuracy"],
        "seconds": seconds,
    }


def format_table(results: Sequence[dict]) -> str:
    lines = [
        "| Tiny twin of | Parameters, M | Loss, first 50 steps | Loss, last 50 steps | mIoU | aAcc | Seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| `{r['row']}` | {r['parameters'] / 1e6:.2f} | {r['first']:.3f} | {r['last']:.3f} | {r['mean_iou']:.1%} |"
        f" {r['overall']:.1%} | {r['seconds']:.0f} |".replace("%", "")
        for r in results
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="STEM", help="rows; all of Tables 2 and 5 by default")
    parser.add_argument("--data_dir", required=True, help="folder of pictures and masks")
    parser.add_argument("--tokenizer", required=True, help="CLIP's tokenizer, a folder or a Hub id")
    parser.add_argument("--output_dir", required=True, help="where models and the table go")
    parser.add_argument("--max_steps", type=int, default=300)
    parser.add_argument("--batch_size", type=int, default=8)
    args = parser.parse_args()

    results = []
    for stem in args.rows or ROWS:
        results.append(train_twin(stem, args))
        Path(args.output_dir, "results.md").write_text(format_table(results) + "\n")
        print(format_table(results), flush=True)


if __name__ == "__main__":
    main()
