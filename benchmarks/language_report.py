# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""The results of `benchmarks/language.py` as Markdown and as a figure. Intervals are of 95 %, by Student's t."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from .language_rows import ABLATIONS, BACKBONES, FROZEN, PHOTOGRAPHS, STEPS, VITS


# The 97.5th percentiles of Student's t, by degrees of freedom.
STUDENT_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
COLORS = ("#9aa0a6", "#5f6368", "#1a73e8", "#12a4af", "#f29900", "#d93025")
PRETRAINED = {
    "clip_resnet": "ResNet, captions",
    "clip_vit": "ViT, captions",
    "numbers_resnet": "ResNet, numbers",
    "numbers_convnext": "ConvNeXt, numbers",
}
# Rows without language, and the same with it.
PAIRS = {
    "convnext": "convnext_post_model",
    "vit": "vit_post_model",
    "frozen_clip": "frozen_image",
}


class Runs:
    """
    Scores by what they are of. `kept` is what `--results` holds.

    Attributes:
        masks (`list[int]`): the numbers of masks, ascending.
        ablation_masks (`int`): of them, those of ablations.
    """

    def __init__(self, kept: dict):
        self.results = {result["key"]: result for result in kept["results"]}
        self.settings = kept["settings"]
        self.masks = sorted(self.settings["masks"])
        self.ablation_masks = self.settings["ablation_masks"]

    def scores(self, row: str, masks: int, name: str = "mean_iou", data: str = "world") -> dict[int, float]:
        """Seed -> score in per cent (gamma as it is); empty where there is none."""
        found = {}
        for seed in self.settings["street_seeds" if data == "street" else "seeds"]:
            value = self.results.get(f"{data}/{row}/{masks}/{seed}", {}).get(name)
            if value is not None:
                found[seed] = value if name == "gamma" else 100 * value
        return found

    def mean_scores(self, row: str) -> dict[int, float]:
        """Seed -> mean mIoU over all numbers of masks, of the seeds that have each."""
        scores = [self.scores(row, masks) for masks in self.masks]
        seeds = set.intersection(*(set(found) for found in scores))
        return {seed: statistics.mean(found[seed] for found in scores) for seed in sorted(seeds)}

    def pretraining(self, name: str) -> dict:
        return self.results.get(f"pretraining/{name}/0/0", {})


def interval(values: Sequence[float]) -> tuple[float, float]:
    """
    The mean and half the width of its interval, NaN for a single value.

    Raises:
        ValueError: for no value, or more than ten.
    """
    if not 1 <= len(values) <= len(STUDENT_T) + 1:
        raise ValueError(f"Intervals are of 1 to {len(STUDENT_T) + 1} values; got {len(values)}.")
    if len(values) == 1:
        return values[0], math.nan
    half = STUDENT_T[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), half


def difference(ours: dict[int, float], other: dict[int, float]) -> tuple[float, float]:
    """The mean of the differences seed by seed, of the seeds that both have, and half its interval."""
    return interval([ours[seed] - other[seed] for seed in sorted(ours.keys() & other.keys())])


def show(values: dict[int, float], digits: int = 1) -> str:
    if not values:
        return "-"
    mean, half = interval(list(values.values()))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def show_step(ours: dict[int, float], other: dict[int, float]) -> str:
    """A mean, and in brackets how much it is above the other."""
    if not ours:
        return "-"
    mean = statistics.mean(ours.values())
    if not ours.keys() & other.keys():
        return f"{mean:.1f}"
    step, half = difference(ours, other)
    return f"{mean:.1f} ({step:+.1f} ± {half:.1f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, numbers to the right, of the rows of which something is known; empty if there is none."""
    known = [row for row in rows if {*row[1:]} != {"-"}]
    rule = f"|---|{'---:|' * (len(head) - 1)}"
    first, *others = (f"| {' | '.join(line)} |" for line in (head, *known))
    return "\n".join([first, rule, *others]) if known else ""


def format_tables(kept: dict) -> dict[str, str]:
    """Name -> Markdown of each table for which there are results. A run that has not ended yet has few."""
    runs = Runs(kept)
    tables = {
        "steps": steps_table(runs),
        "tail": tail_table(runs),
        "score_map": score_map_table(runs),
        "pairs": pairs_table(runs),
        "ablations": ablations_table(runs),
        "pretraining": pretraining_table(runs),
        "tuning": tuning_table(runs),
        "cost": cost_table(runs),
        "street": street_table(runs),
    }
    return {name: lines for name, lines in tables.items() if lines}


def steps_table(runs: Runs) -> str:
    """mIoU of the paper's rows, and the step from the row above; and of the mean over the numbers of masks."""
    lines, above = [], [{}] * (len(runs.masks) + 1)
    for name, row in STEPS.items():
        scores = [*(runs.scores(name, masks) for masks in runs.masks), runs.mean_scores(name)]
        lines.append([row.title, *map(show_step, scores, above)])
        above = scores
    return table(["mIoU, step from the row above", *(f"{masks} masks" for masks in runs.masks), "mean"], lines)


def tail_table(runs: Runs) -> str:
    """mIoU of the most and the least frequent things."""
    head = [f"{kind}, {masks} masks" for kind in ("frequent", "rare") for masks in runs.masks]
    lines = [
        [row.title, *(show(runs.scores(name, masks, kind)) for kind in ("frequent", "rare") for masks in runs.masks)]
        for name, row in STEPS.items()
    ]
    return table(["mIoU of things", *head], lines)


def score_map_table(runs: Runs) -> str:
    """What the score map finds by itself, before and after training, and of classes without masks."""
    kinds = {"score_map": "score map alone", "unseen": "classes without masks"}
    head = [f"{title}, {masks} masks" for title in kinds.values() for masks in runs.masks]
    lines = []
    for encoder, title in (("clip_resnet", "CLIP's ResNet before, by {}"), ("clip_vit", "CLIP's ViT before, by {}")):
        zero_shot = runs.pretraining(encoder).get("zero_shot", {})
        for way, words in (("attention", "its attention"), ("values", "values")):
            if way in zero_shot:
                before = [f"{100 * zero_shot[key]:.1f}" for key in (way, f"{way}_unseen") for _ in runs.masks]
                lines.append([title.format(words), *before])
    rows = {**STEPS, **BACKBONES, **VITS}
    for name in ("language", "pre_model", "post_model", "vit_post_model", "convnext_post_model"):
        cells = [show(runs.scores(name, masks, kind)) for kind in kinds for masks in runs.masks]
        lines.append([rows[name].title, *cells])
    return table(["mIoU", *head], lines)


def pairs_table(runs: Runs) -> str:
    """Other encoders and other trainings without and with language, and the step."""
    lines, rows = [], {**BACKBONES, **VITS, **FROZEN}
    for plain, prompted in PAIRS.items():
        without, with_language = ([runs.scores(name, masks) for masks in runs.masks] for name in (plain, prompted))
        if any(without):
            lines.append([rows[plain].title, *(show_step(scores, {}) for scores in without)])
            steps = zip(with_language, without, strict=True)
            lines.append(["the same + post-model prompting", *(show_step(*scores) for scores in steps)])
    return table(["mIoU, step from the row above", *(f"{masks} masks" for masks in runs.masks)], lines)


def ablations_table(runs: Runs) -> str:
    """Each variant of post-model prompting, and how much it is above that."""
    masks = runs.ablation_masks
    base = runs.scores("post_model", masks)
    lines = []
    for name, row in {"post_model": STEPS["post_model"], **ABLATIONS}.items():
        kinds = ("frequent", "rare", "score_map", "unseen")
        others = [show(runs.scores(name, masks, kind)) for kind in kinds]
        title = "post-model prompting as it is" if name == "post_model" else row.title
        step = show_step(runs.scores(name, masks), {} if name == "post_model" else base)
        lines.append([title, step, *others, show(runs.scores(name, masks, "gamma"), 4)])
    head = [f"{masks} masks", "mIoU, step from the first row", "frequent", "rare", "score map", "without masks"]
    return table([*head, "gamma's magnitude"], lines)


def pretraining_table(runs: Runs) -> str:
    """What the encoders have learned, on scenes that were held out."""
    lines = []
    for name, title in PRETRAINED.items():
        scores = runs.pretraining(name)
        keys = ("caption_recall", "picture_recall", "mean_average_precision", "chance_precision")
        lines.append([title, *(f"{100 * scores[key]:.1f}" if key in scores else "-" for key in keys)])
    head = ["per cent", "own caption nearest", "own picture nearest", "average precision of things", "by chance"]
    return table(head, lines)


def tuning_table(runs: Runs) -> str:
    """By which the learning rate is chosen."""
    rates = runs.settings["learning_rates"]
    cells = []
    for rate in rates:
        keys = (f"tuning/clip_{rate:g}/{runs.ablation_masks}/{seed}" for seed in runs.settings["tuning_seeds"])
        values = [100 * runs.results[key]["mean_iou"] for key in keys if key in runs.results]
        cells.append(", ".join(f"{value:.1f}" for value in values) or "-")
    return table(["learning rate", *(f"{rate:g}" for rate in rates)], [["mIoU of CLIP + FPN, other seeds", *cells]])


def cost_table(runs: Runs) -> str:
    """What all of it took."""
    lines = []
    kinds = {"pretraining": "pretrainings", "tuning": "choice of the rate", "world": "rows", "street": "photographs"}
    for data, title in kinds.items():
        results = [result for key, result in runs.results.items() if key.startswith(f"{data}/")]
        if results:
            seconds = [result["seconds"] for result in results]
            peak = max(result["peak_mib"] for result in results) / 2**10
            each = f"{statistics.median(seconds):.0f} s"
            lines.append([title, str(len(results)), each, f"{sum(seconds) / 3600:.2f} h", f"{peak:.1f} GiB"])
    return table(["processor time", "trainings", "each", "all", "peak memory of a process"], lines)


def street_table(runs: Runs) -> str:
    """Photographs, from random weights."""
    base = runs.scores("random", 0, data="street")
    lines = []
    for name, row in PHOTOGRAPHS.items():
        other = {} if name == "random" else base
        lines.append([row.title, show_step(runs.scores(name, 0, data="street"), other)])
    return table(["photographs", "mIoU, step from the first row"], lines)


def draw_figure(kept: dict, path: Path) -> None:
    """mIoU of the paper's rows over the number of masks, with intervals, and what the later rows add to CLIP + FPN."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs = Runs(kept)
    figure, (levels, gains) = pyplot.subplots(1, 2, figsize=(9.6, 3.8), dpi=100)
    places = range(len(runs.masks))
    for number, ((name, row), color) in enumerate(zip(STEPS.items(), COLORS, strict=True)):
        shift = 0.05 * (number - 2.5)
        scores = [runs.scores(name, masks) for masks in runs.masks]
        if not all(scores):
            continue
        means, halves = zip(*(interval(list(values.values())) for values in scores), strict=True)
        levels.errorbar([place + shift for place in places], means, halves, color=color, label=row.title, capsize=2)
        others = [runs.scores("clip", masks) for masks in runs.masks]
        if name not in ("random", "numbers", "clip") and all(others):
            steps = [difference(ours, other) for ours, other in zip(scores, others, strict=True)]
            means, halves = zip(*steps, strict=True)
            gains.errorbar([place + shift for place in places], means, halves, color=color, fmt="o", capsize=2)
    levels.set_ylabel("mIoU of 40 classes, per cent")
    gains.set_ylabel("above CLIP + FPN, same seeds")
    gains.axhline(0, color="#9aa0a6", linewidth=1)
    for axes in (levels, gains):
        axes.set_xticks(places, [f"{masks} masks" for masks in runs.masks])
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="upper center", ncols=len(STEPS) // 2, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.9))  # the legend is above
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)
