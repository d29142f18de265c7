"""Every check of the data gate, and what is written down of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import overlap, quarantine
from pipeline.arrivals import Arrival, Measure, check_arrivals
from pipeline.checks import Held, hold, sentence
from pipeline.data import SPLITS, Split, finished
from pipeline.datadocs import write_docs
from pipeline.datapage import build_page
from pipeline.inputs import Inputs, Part, SplitRows, join_parts, read_part
from pipeline.job import Job
from pipeline.overlap import Overlap, measure_overlap, write_overlap
from pipeline.quarantine import write_aside
from pipeline.suites import build_site


@dataclass(frozen=True)
class Gate:
    """All that was found in the data."""

    held: Held
    arrivals: list[Arrival]
    overlaps: list[Overlap]
    ignored: tuple[str, ...]


def check_data(job: Job, inputs: Inputs, falls: Mapping[str, Measure], draft: Path) -> tuple[dict[str, Any], list[str]]:
    """Hold all files against all rules; writes what `validate` names into `draft`.

    Its figures, or sentences why the run must stop: then only what was found is written. Raises DataError where a
    file cannot be read.
    """
    recipe = job.recipe
    published = {split: read_part(recipe, inputs.published[split]) for split in SPLITS}
    checked = check_arrivals(recipe, published["train"], inputs.arrivals, falls)
    arrived = [part for _, part in checked if part is not None]
    splits: dict[Split, SplitRows] = {
        "train": join_parts("train", [published["train"], *arrived]),
        "test": join_parts("test", [published["test"]]),
    }
    gate, problems = _hold(job, inputs, splits, [arrival for arrival, _ in checked], draft)
    if problems:
        return {}, problems
    for split, rows in gate.held.splits.items():
        table = finished(recipe, rows.rows, gate.held.tables[split]["label_number"])
        if split == "test":
            table["in_train"] = gate.held.tables[split]["in_train"]
        table.to_parquet(draft / f"{split}.parquet", index=False)
    return _figures(job, gate, arrived), []


def _hold(
    job: Job, inputs: Inputs, splits: Mapping[Split, SplitRows], arrivals: list[Arrival], draft: Path
) -> tuple[Gate, list[str]]:
    """All checks; leaves what was found in `draft`. The gate, and why the run must stop."""
    recipe = job.recipe
    with job.store.draft() as project:
        held = hold(job, splits, project)
        overlaps, listed = measure_overlap(recipe, held.splits)
        gate = Gate(held, arrivals, overlaps, inputs.ignored)
        problems = [*_arrival_problems(inputs, arrivals), *held.problems, *_overlap_problems(held, overlaps)]
        page = build_page(job, held, arrivals, overlaps, listed, problems)
        write_docs(build_site(held.suite), draft / "docs", page)
    write_aside(recipe, held.aside, draft / quarantine.FILE)
    write_overlap(recipe, listed, draft / overlap.FILE)
    document = {
        "recipe": recipe.name,
        "suite": recipe.data.suite,
        "run": job.run,
        "files": {split: {"path": str(file.path), "sha256": file.digest} for split, file in inputs.published.items()},
        "findings": [item.model_dump(mode="json") for item in held.findings],
        "arrivals": [item.model_dump(mode="json") for item in arrivals],
        "overlap": [asdict(item) for item in overlaps],
    }
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (draft / "validation.json").write_text(text, encoding="utf-8")
    return gate, problems


def _arrival_problems(inputs: Inputs, arrivals: Sequence[Arrival]) -> list[str]:
    """A sentence where the newest arrival is out of line: a night that would learn nothing of its day stops.

    Older ones are left out, and the run goes on: the nights after a bad day must not wait for somebody to come.
    """
    if not arrivals or arrivals[-1].level != "critical":
        return []
    return [f"{inputs.arrivals[-1].path}: the newest arrival is out of line: {arrivals[-1].sentence('critical')}"]


def _overlap_problems(held: Held, overlaps: Sequence[Overlap]) -> list[str]:
    return [
        f"{held.splits[item.split].parts[0].file.path}: {item.normalised:,} of {item.rows:,} rows {item.words} "
        f"(normalised; exactly: {item.exact:,}); data.overlap.{item.kind} allows {item.bound:.1%}"
        for item in overlaps
        if not item.passed
    ]


def _figures(job: Job, gate: Gate, arrived: Sequence[Part]) -> dict[str, Any]:
    held = gate.held
    left_out = [f"left out: {item.sentence('critical')}" for item in gate.arrivals if item.level == "critical"]
    odd = [item.sentence("warning") for item in gate.arrivals if item.level == "warning"]
    ignored = [f"{name} is not read: the name of an arrival is its date, YYYY-MM-DD" for name in gate.ignored]
    aside = f"{len(held.aside):,} {'row was' if len(held.aside) == 1 else 'rows were'} set aside into {quarantine.FILE}"
    rules = [sentence(job.recipe, held, item) for item in held.findings if not item.passed]
    return {
        "train_rows": len(held.splits["train"].rows),
        "test_rows": len(held.splits["test"].rows),
        "test_in_train": int(held.tables["test"]["in_train"].sum()),
        "warnings": [*left_out, *odd, *ignored, *([aside] if held.aside else []), *rules],
        "sample": job.recipe.sample,
        "cutoff": str(arrived[-1].file.date) if arrived else None,
        "arrivals": [{"date": str(part.file.date), "sha256": part.file.digest} for part in arrived],
        "left_out": left_out,
        "quarantined": len(held.aside),
        "overlap": {item.name: item.normalised for item in gate.overlaps},
    }
