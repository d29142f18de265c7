"""Measure the embedded profile on the real data over several seeds.

python -m benchmarks.mini --data DIR [--recipe nsmc klue-sts] [--seeds 7 8 9] [--set K=V] [--json]
Trains with the stages of the pipeline (finished ones are reused) and reports the metrics on the validation rows and the
seconds. Settings are compared on these rows, because comparisons on the test file would soon overestimate its results.
With `--test`, for a claim about the unchanged recipe, it reports the metrics on the test file, a baseline without
learning, and how many of these equivalent models the promotion gate would refuse if another of them were the champion.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

from pipeline.cli.options import overrides
from pipeline.evaluation.promotion_gate import compare
from pipeline.job import Job, keep_libraries_home, open_job
from pipeline.recipes.loading import recipe_names
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings, load_settings
from pipeline.stages.running import run_stage
from pipeline.stages.stage import EVALUATE, STAGES, TRAIN, Stage
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import EvaluationFigures, TrainingFigures
from pipeline.tasks.registry import task_of


def main() -> None:
    """Run the seeds and print tables, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="+", default=list(recipe_names()))
    parser.add_argument("--data", required=True, type=Path, help="directory with the published files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[7, 8, 9])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe value")
    parser.add_argument("--test", action="store_true", help="report figures on the test file; not with --set")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    if arguments.test and arguments.set:
        parser.error("--test is for the unchanged recipe; compare settings on the validation rows, without --test")
    os.environ["SAEBYEOK_DATA"] = str(arguments.data.resolve())
    settings = load_settings()
    keep_libraries_home(settings)
    document = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "recipes": {
            recipe: measure(settings, recipe, arguments.seeds, overrides(arguments.set), test=arguments.test)
            for recipe in arguments.recipe
        },
    }
    if arguments.json:
        print(json.dumps(document, indent=1))
        return
    for recipe, found in document["recipes"].items():
        show(recipe, found)


def show(recipe: str, found: dict[str, Any]) -> None:
    """Print the result of `measure` as a table."""
    print(f"{recipe}, {found['rows']} rows")
    for row in [*found["seeds"], *([found["baseline"]] if found["baseline"] else [])]:
        print(
            "  ".join(f"{name} {value:.4f}" if isinstance(value, float) else f"{value}" for name, value in row.items())
        )
    for name, value in found["mean"].items():
        print(f"mean {name} {value:.4f}, spread {found['spread'][name]:.4f}")
    if pairs := found["pairs"]:
        print(
            f"{pairs['refused']} of {pairs['count']} refused by margin {pairs['margin']}, worst {pairs['worst']:+.4f}"
        )


def measure(settings: Settings, recipe: str, seeds: list[int], chosen: dict[str, Any], *, test: bool) -> dict[str, Any]:
    """Return the metrics of every seed on the validation rows or the test file, their mean and standard deviation.

    With `test`, also the comparisons of the seeds, and the baseline if the recipe has one.
    """
    jobs = [open_job(recipe, settings=settings, overrides=chosen | {"train.seed": seed}) for seed in seeds]
    judge = tested_seed if test else validated_seed
    judged = [judge(job, seed) for job, seed in zip(jobs, seeds, strict=True)]
    rows = [row for row, _ in judged]
    metrics = jobs[0].recipe.metrics
    return {
        "rows": "test" if test else "validation",
        "seeds": rows,
        "mean": {name: statistics.mean(row[name] for row in rows) for name in metrics},
        "spread": {name: statistics.stdev(row[name] for row in rows) if len(rows) > 1 else 0.0 for name in metrics},
        "pairs": compare_all(jobs[0].recipe, [evaluated for _, evaluated in judged]) if test else None,
        "baseline": baseline(open_job(recipe, settings=settings)) if test else None,
    }


def validated_seed(job: Job, seed: int) -> tuple[dict[str, Any], Artifact]:
    """Return the metrics on the validation rows and the training seconds of one seed, and its trained artifact."""
    trained = built(job, TRAIN)
    figures = TrainingFigures.read(trained["train"])
    values = {name: figures.validation[name] for name in job.recipe.metrics}
    return {"seed": seed, **values, "train_seconds": figures.seconds}, trained["train"]


def built(job: Job, last: Stage) -> dict[str, Artifact]:
    """Return the artifacts of the stages up to `last`, by kind."""
    made: dict[str, Artifact] = {}
    for stage in STAGES[: STAGES.index(last) + 1]:
        made[stage.kind] = run_stage(job, stage, [made[kind] for kind in stage.inputs]).artifact
    return made


def tested_seed(job: Job, seed: int) -> tuple[dict[str, Any], Artifact]:
    """Return the metrics on the test file and the training seconds of one seed, and its evaluation."""
    made = built(job, EVALUATE)
    figures = EvaluationFigures.read(made["evaluate"])
    values = {name: figures.test[name].value for name in job.recipe.metrics}
    if ways := figures.similarity:
        values["pearson_by_distance"] = ways["euclidean"]["pearson"].value
    return {"seed": seed, **values, "train_seconds": TrainingFigures.read(made["train"]).seconds}, made["evaluate"]


def compare_all(recipe: Recipe, evaluated: list[Artifact]) -> dict[str, Any] | None:
    """Return the results of the promotion gate for all ordered pairs of seeds: challenger and champion."""
    import pandas as pd

    sides = [pd.read_parquet(item.path / "gate.parquet") for item in evaluated]
    lows = [
        compare(
            recipe, ours["label"].to_numpy(), ours["prediction"].to_numpy(), theirs["prediction"].to_numpy(), "champion"
        ).value
        for ours, theirs in itertools.permutations(sides, 2)
    ]
    if not lows:
        return None
    margin = recipe.gate.margin
    return {"count": len(lows), "margin": margin, "refused": sum(low < -margin for low in lows), "worst": min(lows)}


def baseline(job: Job) -> dict[str, Any] | None:
    """Return the metrics of a baseline: cosine of character n-gram TF-IDF vectors (1 to 3), scaled to scores by a line.

    The line is fitted on the train file. None if the recipe has no scores.
    """
    if job.recipe.kind != "regression":
        return None
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    from pipeline.data.reading import read_split
    from pipeline.tasks.regression import fit_line

    assert job.settings.data is not None
    train, test = (read_split(job.recipe, job.settings.data, split) for split in ("train", "test"))
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3)).fit([*train["text"], *train["text_pair"]])

    def cosines(rows: Any) -> Any:
        left, right = vectorizer.transform(rows["text"]), vectorizer.transform(rows["text_pair"])
        return np.asarray(left.multiply(right).sum(axis=1)).reshape(-1)

    line = fit_line(cosines(train), train["label"].to_numpy())
    scores = task_of(job.recipe).scale(cosines(test), line)
    return {"baseline": "character TF-IDF cosine", **task_of(job.recipe).metrics(test["label"].to_numpy(), scores)}


if __name__ == "__main__":
    main()
