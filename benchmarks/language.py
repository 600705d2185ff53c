# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
What language is worth: the paper's rows in a painted world, where everything can be had.

    python -m benchmarks.language                       # two hours on two cores; goes on where it stopped
    python -m benchmarks.language --smoke               # seconds, and says nothing: only to see that all of it runs
    python -m benchmarks.language --street_scenes DIR   # and the rows without CLIP on photographs
    python -m benchmarks.language --tables              # the tables and the figure of the results that are kept

Four encoders learn the world of `benchmarks/language_world.py`, two from captions and two from numbers of classes
(`benchmarks/language_pretraining.py`). From each start the rows of `benchmarks/language_rows.py`: fine-tuned by
`training.train` on 40, 160 and 640 masks, scored by `training.evaluate`, with five seeds. A seed decides the scenes
with masks, their order, crops and colours alike for all rows, so that differences are taken seed by seed.

Beside the mIoU of 40 classes stand that of the 12 most and the 12 least frequent things, that of the score map alone,
and the IoU of 6 classes that captions name and no mask shows, found by `score_text` among all 46 names.

Each result is a line of OUTPUT/results.jsonl as soon as it is there. When all are, they are written to `--results`.
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F

import training.evaluate
import training.train
from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from training import REPOSITORY
from training.metrics import SegmentationScores, confusion_matrix, mean_iou_from_confusion

from .language_pretraining import PRETRAININGS, CaptionedPictures, Pretraining, pretrain, world_tokenizer
from .language_report import draw_figure, format_tables
from .language_rows import (
    ABLATIONS,
    BACKBONES,
    FROZEN,
    PHOTOGRAPHS,
    ROWS,
    STEPS,
    VITS,
    FineTuning,
    config_fields,
    size_words,
    training_words,
)
from .language_world import (
    ALL_NAMES,
    CLASS_NAMES,
    FREQUENT_NAMES,
    RARE_NAMES,
    UNLABELLED,
    UNSEEN_NAMES,
    meaningless_names,
    paint_captioned,
    paint_scene,
    write_split,
)


RESULTS = Path(__file__).with_suffix(".json")
FIGURE = REPOSITORY / "docs" / "images" / "language.png"
# Seeds of the scenes: those of pretraining, of what is held out from it, of validation; the seeds of rows follow.
CAPTIONED_SEED, HELD_OUT_SEED, VALIDATION_SEED, FIRST_SEED = 1, 2, 3, 100
# What trainings score in their end: little, since `training.evaluate` scores all of validation.
GLANCE, GLANCE_SCENES = "glance", 2
SCORING_BATCH = 16
# glibc is told to keep memory that is freed: a step takes and frees tens of tensors of some MiB, and where each page
# comes from the system again, that is a quarter of its time.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(2**26),
}
NO_FRACTIONS = ("seconds", "gamma")


@dataclass(frozen=True)
class Settings:
    """
    Sizes of the experiment.

    Args:
        captioned, held_out, validation (`int`): numbers of scenes.
        masks (`tuple[int, ...]`): numbers of masks that rows are trained on.
        ablation_masks (`int`): the one of them for ablations, the ViT, and the choice of a learning rate.
        seeds, street_seeds (`tuple[int, ...]`): of trainings, in the painted world and on photographs.
        learning_rates (`tuple[float, ...]`): among them the row "clip" alone chooses the one of all rows, by its mean
            mIoU on `tuning_seeds`, which no table has.
        rows (`tuple[str, ...]`): those that are trained.
        pretraining ([`Pretraining`]), fine_tuning, street ([`FineTuning`]): sizes of trainings.
    """

    captioned: int = 12_000
    held_out: int = 500
    validation: int = 128
    masks: tuple[int, ...] = (40, 160, 640)
    ablation_masks: int = 160
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    street_seeds: tuple[int, ...] = (0, 1, 2)
    learning_rates: tuple[float, ...] = (2e-3, 5e-3, 1e-2)
    tuning_seeds: tuple[int, ...] = (10, 11)
    rows: tuple[str, ...] = tuple(ROWS)
    pretraining: Pretraining = field(default_factory=Pretraining)
    fine_tuning: FineTuning = field(default_factory=FineTuning)
    street: FineTuning = field(default_factory=lambda: FineTuning(side=160, crop=(128, 160), steps=600))


SMOKE = Settings(
    captioned=64,
    held_out=16,
    validation=4,
    masks=(4,),
    ablation_masks=4,
    seeds=(0,),
    street_seeds=(0,),
    learning_rates=(1e-3,),
    tuning_seeds=(10,),
    rows=("random", "vit_post_model", "convnext_post_model", "meaningless"),
    pretraining=Pretraining(side=64, width=64, resnet_width=8, vit_layers=2, steps=2, batch_size=16),
    fine_tuning=FineTuning(side=64, crop=(64, 64), width=8, steps=1, batch_size=2, warmup_steps=0),
    street=FineTuning(side=64, crop=(64, 64), width=8, steps=1, batch_size=2, warmup_steps=0),
)


@dataclass(frozen=True)
class Job:
    """One training, and by which name its result is found: a pretraining, or a row on so many masks."""

    row: str
    masks: int = 0  # 0 for a pretraining, and for all photographs
    seed: int = 0
    data: str = "world"  # or "street", "pretraining" or "tuning"
    learning_rate: float | None = None  # of tuning

    @property
    def key(self) -> str:
        row = self.row if self.learning_rate is None else f"{self.row}_{self.learning_rate:g}"
        return f"{self.data}/{row}/{self.masks}/{self.seed}"


@dataclass(frozen=True)
class Place:
    """Where everything is, and how large."""

    output: Path
    settings: Settings
    street_scenes: Path | None = None

    @property
    def scenes(self) -> Path:
        return self.output / "scenes"

    @property
    def encoders(self) -> Path:
        return self.output / "encoders"


# ----------------------------------------------------------------------------------------------------------- paint


def split_name(seed: int, masks: int) -> str:
    return f"seed{seed}_masks{masks}"


def paint(place: Place) -> None:
    """Paint all that is not painted yet: captioned pictures, and the folder of scenes with masks."""
    settings = place.settings
    for name, seed, count in (
        ("captioned", CAPTIONED_SEED, settings.captioned),
        ("held_out", HELD_OUT_SEED, settings.held_out),
    ):
        if not (place.output / f"{name}.npz").exists():
            print(f"painting {count} scenes with captions", flush=True)
            arrays = paint_captioned(seed, count, settings.pretraining.side)
            write_arrays(place.output / f"{name}.npz", **arrays)
    if (place.scenes / "validation.npz").exists():
        return
    seeds = (*settings.seeds, *settings.tuning_seeds)
    print(f"painting scenes with masks for {len(seeds)} seeds", flush=True)
    for seed in seeds:
        generators = (np.random.default_rng((FIRST_SEED + seed, index)) for index in range(max(settings.masks)))
        scenes = [paint_scene(generator, with_unseen=False) for generator in generators]
        for masks in settings.masks:  # the few are the first of the many
            write_split(place.scenes, split_name(seed, masks), scenes[:masks])
    scenes = [
        # Each class as often as the others, so that IoU of rare ones is not that of a few things.
        paint_scene(np.random.default_rng((VALIDATION_SEED, index)), evenly=True)
        for index in range(settings.validation)
    ]
    write_split(place.scenes, "validation", scenes)
    write_split(place.scenes, GLANCE, scenes[:GLANCE_SCENES])
    meaningless = "\n".join(meaningless_names(len(CLASS_NAMES)))
    (place.scenes / "meaningless.txt").write_text(meaningless + "\n", encoding="utf-8")
    pictures, masks = (np.stack(arrays) for arrays in zip(*scenes, strict=True))
    write_arrays(place.scenes / "validation.npz", pictures=pictures, masks=masks)


def write_arrays(path: Path, **arrays) -> None:
    """Write a file of arrays in one move, so that one that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    os.replace(partial, path)


# ------------------------------------------------------------------------------------------------------------ jobs


def list_pretrainings() -> list[Job]:
    return [Job(name, data="pretraining") for name in PRETRAININGS]


def list_tunings(settings: Settings) -> list[Job]:
    return [
        Job("clip", settings.ablation_masks, seed, "tuning", rate)
        for rate in settings.learning_rates
        for seed in settings.tuning_seeds
    ]


def choose_learning_rate(settings: Settings, results: dict[str, dict]) -> float:
    """The rate by which the row "clip" has the highest mean mIoU on `tuning_seeds`."""
    scores: dict[float, list[float]] = {}
    for job in list_tunings(settings):
        scores.setdefault(job.learning_rate, []).append(results[job.key]["mean_iou"])
    return max(scores, key=lambda rate: np.mean(scores[rate]))


def list_rows(settings: Settings, with_photographs: bool) -> list[Job]:
    """All trainings of tables; those that tell most come first."""
    few = (settings.ablation_masks,)
    groups = [
        (STEPS, settings.masks, settings.seeds, "world"),
        (BACKBONES, settings.masks, settings.seeds, "world"),
        (VITS, few, settings.seeds, "world"),
        (FROZEN, few, settings.seeds, "world"),
        (ABLATIONS, few, settings.seeds, "world"),
        (PHOTOGRAPHS, (0,), settings.street_seeds if with_photographs else (), "street"),
    ]
    return [
        Job(row, masks, seed, data)
        for rows, numbers, seeds, data in groups
        for seed in seeds
        for masks in numbers
        for row in rows
        if row in settings.rows
    ]


def run_job(place: Place, job: Job) -> dict:
    """
    One training in this process. Returns its line of the results: what the job is, its scores as fractions, the
    processor time that it took, and the most memory that the process has had resident.
    """
    start = time.process_time()
    scores = run_pretraining(place, job) if job.data == "pretraining" else run_row(place, job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10
    return {"key": job.key, **scores, "seconds": round(time.process_time() - start, 1), "peak_mib": peak}


def run_pretraining(place: Place, job: Job) -> dict:
    settings, device = place.settings, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pictures = (CaptionedPictures(**np.load(place.output / f"{name}.npz")) for name in ("captioned", "held_out"))
    folder = place.encoders / job.row
    scores = pretrain(job.row, *pictures, folder, settings.pretraining, job.seed, device)
    if job.row.startswith("clip"):
        scores["zero_shot"] = score_zero_shot(place, job.row)
    return scores


def run_row(place: Place, job: Job) -> dict:
    """Fine-tune by `training.train`, score by `training.evaluate`, and look at the score map."""
    settings, row = place.settings, ROWS[job.row]
    is_street = job.data == "street"
    sizes = settings.street if is_street else settings.fine_tuning
    if job.learning_rate is not None:
        sizes = dataclasses.replace(sizes, learning_rate=job.learning_rate)
    folder = place.output / "rows" / job.key.replace("/", "_")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    tokenizer = world_tokenizer()
    words = training_words(row, settings.pretraining, sizes, tokenizer, place.encoders, folder, job.seed)
    data_words = ["--data_dir", str(place.street_scenes if is_street else place.scenes), *size_words(sizes)]
    data_words += ["--preprocessing_num_workers", "1"]
    if row.has_meaningless_names:
        data_words += ["--class_names_file", str(place.scenes / "meaningless.txt")]
    splits = [] if is_street else ["--train_split", split_name(job.seed, job.masks), "--validation_split", GLANCE]
    training.train.main([*words, *data_words, *splits])
    model = str(folder / "model")
    report = training.evaluate.main([model, *data_words, "--dataloader_num_workers", "0"])
    scores = {"mean_iou": report["mean_iou"]}
    if not is_street:
        iou = {name: found["iou"] for name, found in zip(CLASS_NAMES, report["per_class"], strict=True)}
        scores |= {"frequent": mean_of(iou, FREQUENT_NAMES), "rare": mean_of(iou, RARE_NAMES)}
        if row.uses_language:
            scores |= look_at_score_map(place, model, row.has_meaningless_names)
    shutil.rmtree(folder)
    return {name: None if value is None else round(value, 5) for name, value in scores.items()}


def mean_of(iou: dict[str, float | None], names: Iterable[str]) -> float:
    """The mean IoU of some classes; one that is neither in masks nor in predictions counts in none."""
    return float(np.mean([iou[name] for name in names if iou[name] is not None]))


# ------------------------------------------------------------------------------------------------------- score maps


def look_at_score_map(place: Place, checkpoint: str, has_meaningless_names: bool) -> dict[str, float | None]:
    """
    Of a trained model: the score map's own mIoU, the mIoU of classes that no mask showed, by their names among all
    names, and the mean of gamma's magnitude, where there is one.
    """
    model = DenseCLIPForSemanticSegmentation.from_pretrained(checkpoint).eval()
    image_processor = DenseCLIPImageProcessor.from_pretrained(checkpoint)
    known = score_maps(place, image_processor, lambda pixel_values: model(pixel_values).score_map, len(CLASS_NAMES))
    scores = {"score_map": known.mean_iou}
    if not has_meaningless_names:
        every = score_maps(
            place, image_processor, lambda pixel_values: model.score_text(pixel_values, ALL_NAMES), len(ALL_NAMES)
        )
        scores["unseen"] = float(np.nanmean(every.iou[-len(UNSEEN_NAMES) :]))
    gamma = getattr(getattr(model, "context_decoder", None), "gamma", None)
    if gamma is not None:
        scores["gamma"] = float(gamma.detach().abs().mean())
    return scores


def score_zero_shot(place: Place, encoder: str) -> dict[str, float]:
    """
    mIoU of a CLIP that has seen no mask, by names as captions have them, with pixels as its last attention gives them
    and by their own values alone: of the classes of masks, and of the others among all.
    """
    settings, row = place.settings, STEPS["language"] if encoder == "clip_resnet" else VITS["vit_post_model"]
    fields = config_fields(row, settings.pretraining, settings.fine_tuning, world_tokenizer())
    model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(
        place.encoders / encoder, class_names=CLASS_NAMES, **fields
    )
    side = settings.fine_tuning.side
    image_processor = DenseCLIPImageProcessor(size={"shortest_edge": side, "longest_edge": 4 * side})
    scores = {}
    for way, value_projection in (("attention", False), ("values", True)):
        for names in (CLASS_NAMES, ALL_NAMES):
            texts = [name if name.split()[-1] in ("sky", "ground") else f"a {name}" for name in names]

            def score(pixel_values, texts=texts, value_projection=value_projection):
                return model.score_text(pixel_values, texts, learned_prompts=False, value_projection=value_projection)

            found = score_maps(place, image_processor, score, len(names))
            if names is CLASS_NAMES:
                scores[way] = round(found.mean_iou, 5)
            else:
                scores[f"{way}_unseen"] = round(float(np.nanmean(found.iou[-len(UNSEEN_NAMES) :])), 5)
    return scores


@torch.no_grad()
def score_maps(
    place: Place,
    image_processor: DenseCLIPImageProcessor,
    score: Callable[[torch.Tensor], torch.Tensor],
    num_labels: int,
) -> SegmentationScores:
    """
    Scores of the class that scores best at each pixel, on the scenes of validation. Pixels of classes
    beyond `num_labels` do not count.
    """
    arrays = np.load(place.scenes / "validation.npz")
    pictures, masks = list(arrays["pictures"]), torch.from_numpy(arrays["masks"])
    masks = torch.where(masks < num_labels, masks, UNLABELLED).long()
    confusion = torch.zeros(num_labels, num_labels, dtype=torch.int64)
    for start in range(0, len(pictures), SCORING_BATCH):
        batch = slice(start, start + SCORING_BATCH)
        maps = score(image_processor(pictures[batch], return_tensors="pt").pixel_values)
        maps = F.interpolate(maps, size=masks.shape[1:], mode="bilinear", align_corners=False)
        confusion += confusion_matrix(maps.argmax(dim=1), masks[batch], num_labels)
    return mean_iou_from_confusion(confusion)


# --------------------------------------------------------------------------------------------------------- schedule


def read_results(output: Path, settings: Settings) -> dict[str, dict]:
    """
    The lines that are there, by their keys.

    Raises:
        ValueError: for those of other sizes.
    """
    path, fields = output / "results.jsonl", json.loads(json.dumps(dataclasses.asdict(settings)))
    if not path.exists():
        output.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"settings": fields}) + "\n", encoding="utf-8")
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[-1]:  # a line that was not finished when the run was killed
        path.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
    head, *results = map(json.loads, lines[:-1])
    if head["settings"] != fields:
        raise ValueError(f"{path} is of a run with other sizes. Name another folder by --output, or remove it.")
    return {result["key"]: result for result in results}


def in_processes(place: Place, jobs: list[Job], workers: int) -> Iterator[dict]:
    """The results of jobs as they come. With 0 workers all is done in this process, one after the other."""
    if workers == 0:
        yield from (run_quietly(place, job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = [pool.submit(run_quietly, place, job) for job in jobs]
        try:
            for done in as_completed(waiting):
                yield done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_quietly(place: Place, job: Job) -> dict:
    """[`run_job`], with all that it prints in a file that is kept only if it fails."""
    log = place.output / "logs" / f"{job.key.replace('/', '_')}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with log.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            result = run_job(place, job)
        except Exception as error:
            traceback.print_exc()
            raise RuntimeError(f"{job.key} failed ({type(error).__name__}: {error}); see {log}.") from error
    log.unlink()
    return result


def run(place: Place, workers: int) -> dict[str, dict]:
    """Do all that is not done yet. Returns all results by their keys."""
    settings = place.settings
    results = read_results(place.output, settings)
    paint(place)
    run_missing(place, list_pretrainings(), results, workers)
    run_missing(place, list_tunings(settings), results, workers)
    rate = choose_learning_rate(settings, results)
    print(f"learning rate of all rows, chosen by CLIP + FPN on other seeds: {rate:g}", flush=True)
    fine_tuning = dataclasses.replace(settings.fine_tuning, learning_rate=rate)
    place = dataclasses.replace(place, settings=dataclasses.replace(settings, fine_tuning=fine_tuning))
    run_missing(place, list_rows(settings, place.street_scenes is not None), results, workers)
    return results


def run_missing(place: Place, jobs: list[Job], results: dict[str, dict], workers: int) -> None:
    """Do those of the jobs that have no result yet, and add each result as it comes, to the file too."""
    missing = [job for job in jobs if job.key not in results]
    print(f"{len(jobs) - len(missing)} of {len(jobs)} trainings are done", flush=True)
    for result in in_processes(place, missing, workers):
        results[result["key"]] = result
        with (place.output / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(describe(result), flush=True)


def describe(result: dict) -> str:
    """A line for people: fractions in per cent."""
    shown = {name: value for name, value in result.items() if isinstance(value, float) and name not in NO_FRACTIONS}
    scores = ", ".join(f"{name} {100 * value:.1f}" for name, value in shown.items())
    return f"{result['key']}: {scores}; {result['seconds']:.0f} s"


def keep(results: dict[str, dict], settings: Settings, path: Path) -> None:
    """Write all results into one file, a line each, in the order of their keys."""
    head = json.dumps(
        {"settings": dataclasses.asdict(settings), "torch": torch.__version__, "opencv": cv2.__version__}
    )
    lines = ",\n".join(json.dumps(results[key]) for key in sorted(results))
    path.write_text(f'{head[:-1]}, "results": [\n{lines}\n]}}\n', encoding="utf-8")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/language"), help="folder of the run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON of all results in the end")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="PNG that is drawn of it")
    parser.add_argument("--street_scenes", type=Path, help="a folder of photographs and masks, to train on as well")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each; 0 for none but this")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, in a folder and files of their own")
    parser.add_argument("--tables", action="store_true", help="only print and draw what --results holds")
    args = parser.parse_args(words)
    if args.smoke:
        args.output = args.output / "smoke"
        args.results, args.figure = args.output / "results.json", args.output / "figure.png"
    if not args.tables:
        if args.workers:
            # For the processes that are started; this one has imported all that reads them.
            for name, value in {**ENVIRONMENT, "HF_DATASETS_CACHE": str(args.output / "cache")}.items():
                os.environ.setdefault(name, value)
        place = Place(args.output, SMOKE if args.smoke else Settings(), args.street_scenes)
        keep(run(place, args.workers), place.settings, args.results)
    kept = json.loads(args.results.read_text(encoding="utf-8"))
    print("\n\n".join(format_tables(kept).values()))
    draw_figure(kept, args.figure)


if __name__ == "__main__":
    sys.exit(main())
