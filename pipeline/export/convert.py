"""Convert a trained model to the files of a release: trace, fuse, quantize and check parity with the original."""

from __future__ import annotations

import logging
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from pipeline.errors import LatencyError, ParityError
from pipeline.evaluation.report import render_report
from pipeline.export.onnx_graph import fuse, simplify, to_cpu, to_fp16, to_packed, trace
from pipeline.export.onnx_session import ask, batches_of, feeds_of, open_session, run_onnx
from pipeline.export.parity import Parity, beyond, measure_parity
from pipeline.export.quantization import to_int8
from pipeline.job import Job
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import read_decision
from pipeline.store.figures import EvaluationFigures, ReleaseFigures
from pipeline.store.releases import Card, Golden, Variant
from pipeline.tasks.trained import Trained, load_trained
from pipeline.tracking.tracker import Tracker

log = logging.getLogger(__name__)

#: Model files by device, in order of preference.
Variants = dict[Literal["cpu", "cuda"], tuple[Variant, ...]]

GOLDEN = 12
#: Calibration inputs for int8, from the train file.
CALIBRATION = 320
#: Inputs on which the fp32 graph is compared with the trained model, and the largest difference as a share of the
#: answer's range. Rounding stays far below it. A graph that ignores the mask exceeds it, although it might pass the
#: recipe's bounds on labels and metric.
GRAPH_INPUTS, GRAPH_BOUND = 64, 1e-4
#: Measured calls for the latency, and unmeasured warm-up calls before them.
CALLS, WARM_UP_CALLS = 200, 20


def convert(
    job: Job,
    identity: str,
    validated: Artifact,
    trained: Artifact,
    evaluated: Artifact,
    decided: Artifact,
    draft: Path,
    tracker: Tracker,
) -> ReleaseFigures:
    """Write the files of the release `identity` into `draft` and return its figures. Raises as `export`."""
    recipe = job.recipe
    model = load_trained(recipe, trained, torch.device("cpu"))
    rows = _sample_rows(recipe, pd.read_parquet(validated.path / "test.parquet"))
    seen = _sample_rows(recipe, pd.read_parquet(validated.path / "train.parquet"))
    variants, parity = _write_variants(job, model, rows, seen, draft)
    latency = _latency(model, rows, draft / variants["cpu"][0].file)
    if latency > recipe.export.latency_ms:
        raise LatencyError(
            f"one input takes {latency:.1f} ms (p95, CPU), above export.latency_ms ({recipe.export.latency_ms:g}); "
            "export on a faster or idle machine, train a smaller model, or raise the bound"
        )
    golden, tolerance = _golden(model, rows, draft / variants["cpu"][0].file)
    figures = {name: item.value for name, item in EvaluationFigures.read(evaluated).test.items()}
    card = _card(model, identity, trained, variants, golden, tolerance, figures)
    (draft / "card.json").write_text(card.model_dump_json(indent=1), encoding="utf-8")
    model.tokenizer.backend_tokenizer.no_truncation()
    model.tokenizer.backend_tokenizer.save(str(draft / "tokenizer.json"))
    names = {device: [item.name for item in items] for device, items in variants.items()}
    exported = ReleaseFigures(id=card.id, variants=names, parity=parity, latency_ms=latency, **figures)
    # The report shows the decision, but the key of the release excludes it: the same model is the same release.
    report = render_report(recipe, job.run, read_decision(decided), evaluated, exported, tracked=tracker.address)
    (draft / "report.html").write_text(report, encoding="utf-8")
    return exported


def _sample_rows(recipe: Recipe, test: pd.DataFrame) -> pd.DataFrame:
    count = min(len(test), recipe.export.sentences)
    return test.sample(count, random_state=recipe.train.seed).reset_index(drop=True)


def _write_variants(
    job: Job, model: Trained, rows: pd.DataFrame, seen: pd.DataFrame, draft: Path
) -> tuple[Variants, dict[str, Parity]]:
    """Write the files for each device and return them with their parity to `model` on `rows`.

    `seen` are the calibration rows for int8. Raises ParityError if the fp32 graphs differ from the model, or if fp16
    exceeds the recipe's bounds. If int8 exceeds them, CPUs get the fp32 file only.
    """
    bounds, labels = model.recipe.export, rows["label"].to_numpy()
    fused, exact = draft / "fused.onnx", draft / "model.fp32.onnx"
    small, half, packed = (draft / f"model.{name}.onnx" for name in ("int8", "fp16", "packed"))
    reference = model.answer(rows)
    write_graphs(model, fused, exact, packed)
    for file in (fused, exact):
        check_graph(model, rows, reference, file)
    to_int8(exact, small, feeds_of(model, seen.head(CALIBRATION)))
    to_fp16(fused, half)
    parity = {
        name: measure_parity(model.recipe, labels, reference, run_onnx(model, rows, open_session(file)))
        for name, file in (("int8", small), ("fp32", exact), ("fp16", half))
    }
    if problem := beyond(parity["fp16"], bounds.fp16, len(rows)):
        kept = job.settings.home / "refused" / model.recipe.name
        _keep(kept, half, fused)
        raise ParityError(
            f"fp16: {problem}; nothing was released; compare {half.name} and {fused.name} (fp32) in {kept}, or raise "
            "export.fp16"
        )
    fused.unlink()
    cpu = [Variant(file=exact.name, precision="fp32", parity=parity["fp32"])]
    if problem := beyond(parity["int8"], bounds.int8, len(rows)):
        log.warning("int8: %s; CPUs get the model in fp32, which is slower", problem)
        small.unlink()
    else:
        cpu.insert(0, Variant(file=small.name, precision="int8", parity=parity["int8"]))
    cuda = (
        Variant(file=half.name, precision="fp16", parity=parity["fp16"]),
        # Its kernels exist only for CUDA. The service uses it only if it passes the golden sentences.
        Variant(file=packed.name, precision="fp16", packed=True, parity=None),
    )
    return {"cpu": tuple(cpu), "cuda": cuda}, parity


def check_graph(model: Trained, rows: pd.DataFrame, reference: np.ndarray[Any, Any], file: Path) -> None:
    """Raise ParityError unless the fp32 graph in `file` answers padded batches as `reference` does."""
    answers = run_onnx(model, rows.head(GRAPH_INPUTS), open_session(file))
    low, high = model.recipe.task.answer_range(model.recipe)
    difference = float(np.abs(answers - reference[:GRAPH_INPUTS]).max())
    if not difference <= GRAPH_BOUND * (high - low):
        raise ParityError(
            f"the exported graph differs from the trained model by up to {difference:.5f} in fp32 "
            f"(rounding explains at most {GRAPH_BOUND * (high - low):g}); nothing was released; use another base model"
        )


def write_graphs(model: Trained, fused: Path, exact: Path, packed: Path) -> None:
    """Write the graph for CUDA, the graph for the CPU, and the padding-free graph for CUDA in fp16."""
    trace(model, fused)
    fuse(model.network.transformer, fused, fused)
    types, first = model.recipe.task.joins_texts, model.recipe.model.pooling == "cls"
    simplify(fused, packed, with_types=types, first_row=False)
    to_packed(packed, packed)
    to_fp16(packed, packed)
    simplify(fused, fused, with_types=types, first_row=first)
    to_cpu(fused, exact)


def _keep(directory: Path, *files: Path) -> None:
    """Replace the contents of `directory` with copies of `files`, for inspection."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, directory / file.name)


def _latency(model: Trained, rows: pd.DataFrame, file: Path) -> float:
    session = open_session(file)
    times = []
    for inputs in batches_of(model, rows.sample(CALLS + WARM_UP_CALLS, replace=True, random_state=0), 1):
        started = time.perf_counter()
        ask(model, session, inputs)
        times.append(time.perf_counter() - started)
    return float(np.percentile(times[WARM_UP_CALLS:], 95) * 1000)


def _golden(model: Trained, rows: pd.DataFrame, file: Path) -> tuple[tuple[Golden, ...], float]:
    chosen = rows.head(GOLDEN)
    # One at a time, as in the later check: int8 activations are scaled per batch.
    answers = run_onnx(model, chosen, open_session(file), 1)
    reference = model.answer(chosen)
    golden = tuple(
        Golden(texts=texts, expected=tuple(float(value) for value in np.atleast_1d(answer)))
        for texts, answer in zip(
            chosen[model.recipe.text_columns].itertuples(index=False, name=None), answers, strict=True
        )
    )
    low, high = model.recipe.task.answer_range(model.recipe)
    # Margin for the other variant and other batch sizes: twice the error of this variant, plus 2% of the range.
    return golden, 2 * float(np.abs(answers - reference).max()) + 0.02 * (high - low)


def _card(
    model: Trained,
    identity: str,
    trained: Artifact,
    variants: Variants,
    golden: tuple[Golden, ...],
    tolerance: float,
    figures: dict[str, float],
) -> Card:
    recipe = model.recipe
    return Card(
        id=identity,
        recipe=recipe.name,
        title=recipe.title,
        kind=recipe.kind,
        inputs=recipe.inputs,
        objective=recipe.model.objective,
        sample=recipe.sample,
        labels=recipe.labels,
        score_range=recipe.score_range,
        similar_at=recipe.similar_at,
        calibration=model.calibration,
        euclidean=model.euclidean,
        max_length=recipe.model.max_length,
        variants=variants,
        golden=golden,
        golden_tolerance=tolerance,
        figures=figures,
        trained=trained.ref,
        created=datetime.now(UTC),
    )
