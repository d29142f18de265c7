"""Every check of the data gate, and what is written down of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.data import overlap, quarantine
from pipeline.data.daily_arrivals import Arrival, Measure, check_arrivals
from pipeline.data.data_docs import build_page, write_docs
from pipeline.data.expectation_suite import build_site
from pipeline.data.input_files import InputFile, Inputs, Part, SplitRows, join_parts, read_part
from pipeline.data.overlap import Overlap, Repeated, measure_overlap, write_overlap
from pipeline.data.quarantine import write_aside
from pipeline.data.reading import SPLITS, Split, finished
from pipeline.data.rules import Held, hold, sentence
from pipeline.job import Job
from pipeline.models.base_model import Base


@dataclass(frozen=True)
class Gate:
    """All that was found in the data."""

    held: Held
    arrivals: list[Arrival]
    arrived: list[Part]
    "Those that are used."
    overlaps: list[Overlap]
    listed: list[Repeated]
    problems: list[str]
    "What does not hold for the published files with what arrived, in sentences."


def check_data(
    job: Job, inputs: Inputs, falls: Mapping[str, Measure], base: Base | None, draft: Path
) -> tuple[dict[str, Any], list[str]]:
    """Hold all files against all rules; writes what `validate` names into `draft`.

    `base` is the model that is to read what arrived, None where a vocabulary is learnt. Its figures, or sentences why
    the run must stop: then only what was found is written. Raises DataError where a file cannot be read.
    """
    recipe = job.recipe
    published = {split: read_part(recipe, inputs.published[split]) for split in SPLITS}
    doubts = {name: [fall] for name, fall in falls.items()}
    with job.store.draft() as project:
        gate = _check(job, published, inputs.arrivals, doubts, base, project / "0")
        # What a day's file spoils in the whole must cost that day, and not every night from then on.
        while found := _spoilers(job, published, gate, project / f"{len(doubts)}-spoilers"):
            for name, measure in found.items():
                doubts.setdefault(name, []).append(measure)
            gate = _check(job, published, inputs.arrivals, doubts, base, project / f"{len(doubts)}")
        problems = [*_arrival_problems(inputs, gate.arrivals), *gate.problems]
        _write_findings(job, inputs, gate, problems, draft)
    if problems:
        return {}, problems
    for split, rows in gate.held.splits.items():
        table = finished(recipe, rows.rows, gate.held.tables[split]["label_number"])
        if split == "test":
            table["in_train"] = gate.held.tables[split]["in_train"]
        table.to_parquet(draft / f"{split}.parquet", index=False)
    return _figures(job, inputs, gate), []


def _check(
    job: Job,
    published: Mapping[Split, Part],
    files: Sequence[InputFile],
    doubts: Mapping[str, Sequence[Measure]],
    base: Base | None,
    project: Path,
) -> Gate:
    """Every arrival alone, then those that are left and the published files together."""
    checked = check_arrivals(job.recipe, published, files, doubts, base)
    arrived = [part for _, part in checked if part is not None]
    return _together(job, published, [arrival for arrival, _ in checked], arrived, project)


def _together(
    job: Job, published: Mapping[Split, Part], arrivals: list[Arrival], arrived: list[Part], project: Path
) -> Gate:
    splits: dict[Split, SplitRows] = {
        "train": join_parts("train", [published["train"], *arrived]),
        "test": join_parts("test", [published["test"]]),
    }
    held = hold(job, splits, project)
    overlaps, listed = measure_overlap(job.recipe, held.splits)
    problems = [*held.problems, *_overlap_problems(held, overlaps)]
    return Gate(held, arrivals, arrived, overlaps, listed, problems)


def _spoilers(job: Job, published: Mapping[Split, Part], gate: Gate, project: Path) -> dict[str, Measure]:
    """The arrivals, by name, with which rules break that hold without them; empty where none is to blame."""
    excess = {
        part.file.name: Measure(
            name="rows that break a rule",
            found=f"{gate.held.excess[part.file.name]:,} of {part.count:,}",
            usual=f"at most {job.recipe.data.quarantine:.1%}",
            level="critical",
        )
        for part in gate.arrived
        if part.file.name in gate.held.excess
    }
    if excess or not gate.problems or not gate.arrived:
        return excess
    # What breaks with all of them and not without any: somewhere between it begins.
    brought = _broken(gate) - _broken(_together(job, published, [], [], project / "0"))
    if not brought:
        return {}
    low, high, worst = 0, len(gate.arrived), gate
    while high - low > 1:
        middle = (low + high) // 2
        tried = _together(job, published, [], gate.arrived[:middle], project / str(middle))
        low, high, worst = (low, middle, tried) if brought & _broken(tried) else (middle, high, worst)
    found = "; ".join(worst.problems)
    with_it = Measure(name="with it", found=found, usual="every critical rule holds", level="critical")
    return {gate.arrived[high - 1].file.name: with_it}


def _broken(gate: Gate) -> set[str]:
    """What does not hold, by name: critical rules, kinds of overlap, files with too many rows to set aside."""
    missed = [item for item in gate.held.findings if item.severity == "critical" and not item.passed]
    rules = {f"{item.split} {item.rule}" for item in missed}
    return rules | gate.held.excess.keys() | {item.name for item in gate.overlaps if not item.passed}


def _write_findings(job: Job, inputs: Inputs, gate: Gate, problems: list[str], draft: Path) -> None:
    """Data docs, what was set aside, what overlaps, and all findings for programs."""
    recipe, held = job.recipe, gate.held
    page = build_page(job, held, gate.arrivals, gate.overlaps, gate.listed, problems)
    write_docs(build_site(held.suite), draft / "docs", page)
    write_aside(recipe, held.aside, draft / quarantine.FILE)
    write_overlap(recipe, gate.listed, draft / overlap.FILE)
    document = {
        "recipe": recipe.name,
        "suite": recipe.data.suite,
        "run": job.run,
        "files": {split: {"path": str(file.path), "sha256": file.digest} for split, file in inputs.published.items()},
        "findings": [item.model_dump(mode="json") for item in held.findings],
        "arrivals": [item.model_dump(mode="json") for item in gate.arrivals],
        "overlap": [asdict(item) for item in gate.overlaps],
    }
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (draft / "validation.json").write_text(text, encoding="utf-8")


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


def _figures(job: Job, inputs: Inputs, gate: Gate) -> dict[str, Any]:
    held = gate.held
    left_out = [f"left out: {item.sentence('critical')}" for item in gate.arrivals if item.level == "critical"]
    odd = [item.sentence("warning") for item in gate.arrivals if item.level == "warning"]
    ignored = [f"{name} is not read: the name of an arrival is its date, YYYY-MM-DD" for name in inputs.ignored]
    aside = f"{len(held.aside):,} {'row was' if len(held.aside) == 1 else 'rows were'} set aside into {quarantine.FILE}"
    rules = [sentence(job.recipe, held, item) for item in held.findings if not item.passed]
    return {
        "train_rows": len(held.splits["train"].rows),
        "test_rows": len(held.splits["test"].rows),
        "test_in_train": int(held.tables["test"]["in_train"].sum()),
        "warnings": [*left_out, *odd, *ignored, *([aside] if held.aside else []), *rules],
        "sample": job.recipe.sample,
        "cutoff": str(gate.arrived[-1].file.date) if gate.arrived else None,
        "arrivals": [{"date": str(part.file.date), "sha256": part.file.digest} for part in gate.arrived],
        "left_out": left_out,
        "quarantined": len(held.aside),
        "overlap": {item.name: item.normalised for item in gate.overlaps},
    }
