"""A trained model as the files of a release: traced, fused, made small, and held against the original."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pandas as pd
import torch

from pipeline.artifacts import Artifact
from pipeline.data import text_columns
from pipeline.encode import Encoder
from pipeline.errors import LatencyError, ParityError
from pipeline.job import Job
from pipeline.metrics import compute_metrics
from pipeline.model import Collate, Rows, Trained, answers_of, load_trained, to_score
from pipeline.onnx_graph import Feed, fuse, simplify, to_cpu, to_fp16, to_int8, trace
from pipeline.progress import progress
from pipeline.recipe import ParityBound, Recipe
from pipeline.releases import Card, Golden, Variant, read_decision
from pipeline.report import render_report

log = logging.getLogger(__name__)

#: Differences in the answer's unit, the share of changed labels, and the change of the first metric.
Parity = dict[str, float]

GOLDEN = 12
#: Inputs in one batch of the parity check: rows of all lengths, so that most are padded.
BATCH = 32
#: Inputs of the train file by which int8 is prepared.
CALIBRATION = 320
#: Calls behind the latency figure, and unmeasured ones before them.
CALLS, WARM_UP = 200, 20
#: Inputs on which the fp32 graph is held against the trained model, and the largest difference, a share of the
#: answer's range. Rounding is far below it; a graph that ignores the mask is above, and the recipe's bounds on
#: labels and metric might let it pass.
GRAPH_INPUTS, GRAPH_BOUND = 64, 1e-4


def convert(
    job: Job, identity: str, validated: Artifact, trained: Artifact, evaluated: Artifact, decided: Artifact, draft: Path
) -> dict[str, Any]:
    """Write the files of the release `identity` into `draft`; its figures. Raises as `export` says."""
    recipe = job.recipe
    model = load_trained(recipe, trained, torch.device("cpu"))
    rows = _sample_rows(recipe, pd.read_parquet(validated.path / "test.parquet"))
    seen = _sample_rows(recipe, pd.read_parquet(validated.path / "train.parquet"))
    variants, parity = _write_variants(job, model, rows, seen, draft)
    latency = _latency(model, rows, draft / variants["cpu"].file)
    if latency > recipe.export.latency_ms:
        raise LatencyError(
            f"one input takes {latency:.1f} ms (p95, CPU), above export.latency_ms ({recipe.export.latency_ms:g})"
        )
    golden, tolerance = _golden(model, rows, draft / variants["cpu"].file)
    figures = {name: item["value"] for name, item in evaluated.figures["test"].items()}
    card = _card(model, identity, trained, variants, golden, tolerance, figures)
    (draft / "card.json").write_text(card.model_dump_json(indent=1), encoding="utf-8")
    model.tokenizer.backend_tokenizer.no_truncation()
    model.tokenizer.backend_tokenizer.save(str(draft / "tokenizer.json"))
    exported = {"id": card.id, "parity": parity, "latency_ms": latency}
    # The decision is told and not an input: the same model is the same release, whatever it was held against.
    report = render_report(recipe, job.run, read_decision(decided), evaluated, exported)
    (draft / "report.html").write_text(report, encoding="utf-8")
    return exported | figures


def _sample_rows(recipe: Recipe, test: pd.DataFrame) -> pd.DataFrame:
    count = min(len(test), recipe.export.sentences)
    return test.sample(count, random_state=recipe.train.seed).reset_index(drop=True)


def _write_variants(
    job: Job, model: Trained, rows: pd.DataFrame, seen: pd.DataFrame, draft: Path
) -> tuple[dict[Literal["cpu", "cuda"], Variant], dict[str, Parity]]:
    """The file for each device, compared on `rows`, and the parity of all; by `seen` rows int8 is prepared."""
    recipe = model.recipe
    traced, fused, on_cpu = draft / "traced.onnx", draft / "fused.onnx", draft / "model.fp32.onnx"
    trace(model, traced)
    fuse(model.module, traced, fused)
    crossed, first = recipe.model.objective == "cross-encoder", recipe.model.pooling == "cls"
    simplify(fused, with_types=crossed, first_row=first)
    to_cpu(fused, on_cpu)
    reference = model.answer(rows)
    for file in (fused, on_cpu):
        check_graph(model, rows, reference, file)
    whole, half = draft / "model.int8.onnx", draft / "model.fp16.onnx"
    to_int8(on_cpu, whole, feeds_of(model, seen.head(CALIBRATION)))
    to_fp16(fused, half)
    labels = rows["label"].to_numpy()

    def compare(file: Path) -> Parity:
        return measure_parity(recipe, labels, reference, run_onnx(model, rows, open_session(file), BATCH))

    parity = {"int8": compare(whole), "fp16": compare(half)}
    if problem := beyond(parity["fp16"], recipe.export.fp16, len(rows)):
        kept = job.settings.home / "refused" / recipe.name
        _keep(kept, half, fused)
        raise ParityError(f"fp16: {problem}; nothing was released; {kept} has {half.name} and {fused.name}, in fp32")
    variants: dict[Literal["cpu", "cuda"], Variant] = {
        "cuda": Variant(file=half.name, precision="fp16", parity=parity["fp16"])
    }
    if problem := beyond(parity["int8"], recipe.export.int8, len(rows)):
        log.warning("int8: %s; CPUs get the model in fp32, which is slower", problem)
        parity["fp32"] = compare(on_cpu)
        variants["cpu"] = Variant(file=on_cpu.name, precision="fp32", parity=parity["fp32"])
    else:
        variants["cpu"] = Variant(file=whole.name, precision="int8", parity=parity["int8"])
    served = {variant.file for variant in variants.values()}
    for file in (traced, fused, on_cpu, whole):
        if file.name not in served:
            file.unlink()
    return variants, parity


def _keep(directory: Path, *files: Path) -> None:
    """Have `files` to look at in `directory`, instead of those of the last time."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, directory / file.name)


def check_graph(model: Trained, rows: pd.DataFrame, reference: np.ndarray[Any, Any], file: Path) -> None:
    """Raise ParityError unless the fp32 graph in `file` answers padded batches as `reference` does."""
    answers = run_onnx(model, rows.head(GRAPH_INPUTS), open_session(file), BATCH)
    low, high = model.recipe.score_range or (0.0, 1.0)
    difference = float(np.abs(answers - reference[:GRAPH_INPUTS]).max())
    if not difference <= GRAPH_BOUND * (high - low):
        raise ParityError(
            f"the exported graph differs from the trained model by up to {difference:.5f} in fp32 "
            f"(at most {GRAPH_BOUND * (high - low):g} is rounding); nothing was released"
        )


def beyond(parity: Parity, bound: ParityBound, rows: int) -> str | None:
    """What of `parity`, measured on so many rows, is above its bound; None where nothing is.

    One label may change among however few rows: a smaller share than that cannot be told.
    """
    for name, limit in bound.model_dump().items():
        allowed = max(limit, 1 / rows) if name == "changed_labels" else limit
        if not keeps(parity[name], allowed):
            found = f"{name} is {parity[name]:.5f} on {rows:,} rows of the test file"
            return f"{found}, above {allowed:g} (set by the recipe's [export])"
    return None


def keeps(value: float, limit: float) -> bool:
    """Whether `value` is at most `limit`, but for rounding: 0.827 - 0.826 is a little above 0.001. NaN never is."""
    return value <= limit or math.isclose(value, limit)


def measure_parity(
    recipe: Recipe, labels: np.ndarray[Any, Any], reference: np.ndarray[Any, Any], answers: np.ndarray[Any, Any]
) -> Parity:
    """How far `answers` are from `reference`: differences in the answer's unit, changed labels, first metric."""
    differences = np.abs(answers - reference)
    if recipe.kind == "classification":
        changed = answers.argmax(axis=1) != reference.argmax(axis=1)
    else:
        changed = (answers >= recipe.similar_at) != (reference >= recipe.similar_at)
    first = recipe.metrics[0]
    before, after = (compute_metrics(recipe, labels, item)[first] for item in (reference, answers))
    return {
        "largest_difference": float(differences.max()),
        "mean_difference": float(differences.mean()),
        "changed_labels": float(changed.mean()),
        "metric_change": abs(after - before),
    }


def open_session(file: Path) -> onnxruntime.InferenceSession:
    """A session on the CPU, where parity is measured: CUDA's kernels are asked again by the golden sentences."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def run_onnx(
    model: Trained, rows: pd.DataFrame, session: onnxruntime.InferenceSession, batch: int
) -> np.ndarray[Any, Any]:
    """Answers of an exported file to `rows` in their order, `batch` at a time, as `Trained.answer` gives them."""
    outputs = []
    with progress("comparing", len(rows)) as advance:
        for inputs in _batches(model, rows, batch):
            outputs.append(_ask(session, inputs))
            advance(len(outputs[-1]))
    answers = answers_of(model.recipe, np.concatenate(outputs).astype(np.float32))
    return to_score(model.recipe, model.calibration, answers)


def feeds_of(model: Trained, rows: pd.DataFrame) -> Iterator[Feed]:
    """Inputs of the exported graph: `rows` in their order, in padded batches."""
    for inputs in _batches(model, rows, BATCH):
        yield from _feeds(inputs)


def _batches(model: Trained, rows: pd.DataFrame, batch: int) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    table = Encoder(model.tokenizer, model.recipe.model.max_length, model.recipe.model.objective).encode(rows).rows
    encoded = Rows(table, [name for name in table.columns if name not in ("id", "length", "label")])
    collate = Collate(model.tokenizer.pad_token_id)
    for start in range(0, len(encoded), batch):
        inputs = collate([encoded[index] for index in range(start, min(start + batch, len(encoded)))])
        yield {name: tensor.numpy().astype(np.int32) for name, tensor in inputs.items()}


def _feeds(inputs: dict[str, np.ndarray[Any, Any]]) -> Iterator[Feed]:
    """What a session is given for a batch: once, or for a bi-encoder once a side of its pairs."""
    for suffix in ("", "_pair") if "input_ids_pair" in inputs else ("",):
        feed = {name: inputs[f"{name}{suffix}"] for name in ("input_ids", "attention_mask")}
        yield feed | {name: inputs[name] for name in ("token_type_ids",) if name in inputs}


def _ask(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    outputs = [np.asarray(session.run(None, dict(feed))[0]) for feed in _feeds(inputs)]
    return outputs[0] if len(outputs) == 1 else np.asarray(np.prod(outputs, axis=0).sum(axis=-1))


def _latency(model: Trained, rows: pd.DataFrame, file: Path) -> float:
    session = open_session(file)
    times = []
    for inputs in _batches(model, rows.sample(CALLS + WARM_UP, replace=True, random_state=0), 1):
        started = time.perf_counter()
        _ask(session, inputs)
        times.append(time.perf_counter() - started)
    return float(np.percentile(times[WARM_UP:], 95) * 1000)


def _golden(model: Trained, rows: pd.DataFrame, file: Path) -> tuple[tuple[Golden, ...], float]:
    chosen = rows.head(GOLDEN)
    # One at a time, as they will be asked: int8 activations are scaled by the batch.
    answers = run_onnx(model, chosen, open_session(file), 1)
    reference = model.answer(chosen)
    golden = tuple(
        Golden(texts=texts, expected=tuple(float(value) for value in np.atleast_1d(answer)))
        for texts, answer in zip(
            chosen[text_columns(model.recipe)].itertuples(index=False, name=None), answers, strict=True
        )
    )
    low, high = model.recipe.score_range or (0.0, 1.0)
    # Room for the other variant and for batches of other sizes: what int8 costs here, twice, and 2% of the range.
    return golden, 2 * float(np.abs(answers - reference).max()) + 0.02 * (high - low)


def _card(
    model: Trained,
    identity: str,
    trained: Artifact,
    variants: dict[Literal["cpu", "cuda"], Variant],
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
