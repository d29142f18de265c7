"""Data gate: run all checks on the data and write the findings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.data import overlap, quarantine
from pipeline.data.arrival_checks import Arrival, Measure, check_arrivals
from pipeline.data.data_docs import build_page, write_docs
from pipeline.data.expectation_suite import build_site
from pipeline.data.input_files import (
    InputFile,
    InputFiles,
    Part,
    SplitRows,
    arrival_suffix,
    join_parts,
    most_aside,
    read_part,
)
from pipeline.data.overlap import Overlap, Repeated, measure_overlap, write_overlap
from pipeline.data.quarantine import write_aside
from pipeline.data.reading import Split, finished
from pipeline.data.rules import Held, hold, sentence
from pipeline.data.splits import hold_out
from pipeline.data.suite_files import suite_name
from pipeline.job import Job
from pipeline.models.base_model import Base
from pipeline.recipes.schema import Recipe
from pipeline.store.acceptances import Acceptance
from pipeline.store.figures import UsedArrival, ValidationFigures
from pipeline.texts import some_of


@dataclass(frozen=True)
class Findings:
    """All findings about the data."""

    held: Held
    arrivals: list[Arrival]
    arrived: list[Part]
    "Arrivals that were accepted."
    overlaps: list[Overlap]
    listed: list[Repeated]
    problems: list[str]
    "One sentence for each failed check of the published files combined with the accepted arrivals."


def check_data(
    job: Job,
    inputs: InputFiles,
    falls: Mapping[str, Measure],
    accepted: Mapping[str, Acceptance],
    base: Base | None,
    draft: Path,
) -> tuple[ValidationFigures | None, list[str]]:
    """Check all files against all rules and write the files of a `validate` artifact into `draft`.

    Returns the stage's figures and the problems, one sentence each. If there are problems, the run must stop: the
    figures are None and only the findings are written. `falls` maps the name of an arrival to the champion's drop in
    accuracy on it, `accepted` maps the date of an arrival to its acceptance by a person. `base` provides the
    tokenizer; None if the recipe learns its own vocabulary. Raises DataError if a file cannot be read.
    """
    recipe = job.recipe
    published = read_published(recipe, inputs)
    doubts = {name: [fall] for name, fall in falls.items()}
    with job.store.draft() as project:
        findings = _check(job, published, inputs.arrivals, doubts, base, accepted, project / "0")
        # An arrival that breaks a rule of the combined data is left out, so that it does not stop every later run.
        while found := _spoilers(job, published, findings, project / f"{len(doubts)}-spoilers"):
            for name, measure in found.items():
                doubts.setdefault(name, []).append(measure)
            findings = _check(job, published, inputs.arrivals, doubts, base, accepted, project / f"{len(doubts)}")
        problems = [*_arrival_problems(inputs, findings.arrivals), *findings.problems]
        _write_findings(job, inputs, findings, problems, draft)
    if problems:
        return None, problems
    for split, rows in findings.held.splits.items():
        table = finished(recipe, rows.rows, findings.held.tables[split]["label_number"])
        if split == "test":
            table["in_train"] = findings.held.tables[split]["in_train"]
        table.to_parquet(draft / f"{split}.parquet", index=False)
    return _figures(job, inputs, findings), []


def read_published(recipe: Recipe, inputs: InputFiles) -> dict[Split, tuple[Part, ...]]:
    """Return the published files of each split. Raises DataError if a file cannot be read."""
    read = {split: tuple(read_part(recipe, file) for file in files) for split, files in inputs.published.items()}
    return read if "test" in read else hold_out(recipe, read["train"])


def _check(
    job: Job,
    published: Mapping[Split, Sequence[Part]],
    files: Sequence[InputFile],
    doubts: Mapping[str, Sequence[Measure]],
    base: Base | None,
    accepted: Mapping[str, Acceptance],
    project: Path,
) -> Findings:
    """Check every arrival alone, then the accepted arrivals combined with the published files."""
    checked = check_arrivals(job.recipe, published, files, doubts, base, accepted)
    arrived = [part for _, part in checked if part is not None]
    return _together(job, published, [arrival for arrival, _ in checked], arrived, project)


def _together(
    job: Job, published: Mapping[Split, Sequence[Part]], arrivals: list[Arrival], arrived: list[Part], project: Path
) -> Findings:
    splits: dict[Split, SplitRows] = {
        "train": join_parts("train", [*published["train"], *arrived]),
        "test": join_parts("test", published["test"]),
    }
    held = hold(job, splits, project)
    overlaps, listed = measure_overlap(job.recipe, held.splits)
    problems = [*held.problems, *_overlap_problems(held, overlaps)]
    return Findings(held, arrivals, arrived, overlaps, listed, problems)


def _spoilers(
    job: Job, published: Mapping[Split, Sequence[Part]], findings: Findings, project: Path
) -> dict[str, Measure]:
    """Return by name the arrivals that make rules fail on the combined files; empty if no arrival is the cause."""
    excess = {
        part.file.name: Measure(
            name="rows that break a rule",
            found=f"{findings.held.excess[part.file.name]:,} of {part.count:,}",
            usual=f"at most {most_aside(job.recipe, part):,}, by {job.recipe.data.quarantine:.1%}",
            level="critical",
        )
        for part in findings.arrived
        if part.file.name in findings.held.excess
    }
    if excess or not findings.problems or not findings.arrived:
        return excess
    # These rules fail with all arrivals and hold with none. Bisect to find the first day that breaks them.
    brought = _broken(findings) - _broken(_together(job, published, [], [], project / "0"))
    if not brought:
        return {}
    low, high, worst = 0, len(findings.arrived), findings
    while high - low > 1:
        middle = (low + high) // 2
        tried = _together(job, published, [], findings.arrived[:middle], project / str(middle))
        low, high, worst = (low, middle, tried) if brought & _broken(tried) else (middle, high, worst)
    found = "; ".join(worst.problems)
    with_it = Measure(name="combined data", found=found, usual="every critical rule holds", level="critical")
    return {findings.arrived[high - 1].file.name: with_it}


def _broken(findings: Findings) -> set[str]:
    """Return the names of failed critical rules, exceeded overlaps, and files with too many rows to set aside."""
    missed = [item for item in findings.held.findings if item.severity == "critical" and not item.passed]
    rules = {f"{item.split} {item.rule}" for item in missed}
    return rules | findings.held.excess.keys() | {item.name for item in findings.overlaps if not item.passed}


def _write_findings(job: Job, inputs: InputFiles, findings: Findings, problems: list[str], draft: Path) -> None:
    """Write the data docs, the quarantined rows, the overlapping rows and `validation.json`."""
    recipe, held = job.recipe, findings.held
    page = build_page(job, held, findings.arrivals, findings.overlaps, findings.listed, problems)
    write_docs(build_site(held.suite), draft / "docs", page)
    write_aside(recipe, held.aside, draft / quarantine.FILE)
    write_overlap(recipe, findings.listed, draft / overlap.FILE)
    document = {
        "recipe": recipe.name,
        "suite": suite_name(recipe),
        "run": job.run,
        "files": {
            split: [{"path": str(file.path), "sha256": file.digest} for file in files]
            for split, files in inputs.published.items()
        },
        "findings": [item.model_dump(mode="json") for item in held.findings],
        "arrivals": [item.model_dump(mode="json") for item in findings.arrivals],
        "overlap": [asdict(item) for item in findings.overlaps],
    }
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (draft / "validation.json").write_text(text, encoding="utf-8")


def _arrival_problems(inputs: InputFiles, arrivals: Sequence[Arrival]) -> list[str]:
    """Return a sentence if the newest arrival failed its checks: a run without new data must stop.

    Older arrivals that failed are left out and the run continues, so a bad day does not block later runs.
    """
    if not arrivals or arrivals[-1].level != "critical":
        return []
    newest = arrivals[-1]
    found = newest.sentence("critical")
    accept = f", or accept it: `saebyeok arrivals accept {newest.date} --why REASON`" if newest.acceptable else ""
    advice = f"correct the file and run again{accept}; later runs leave it out"
    return [f"{inputs.arrivals[-1].path}: the newest arrival failed its checks: {found}; {advice}"]


def _overlap_problems(held: Held, overlaps: Sequence[Overlap]) -> list[str]:
    return [
        f"{held.splits[item.split].shown}: {item.normalised:,} of {item.rows:,} rows {item.words} "
        f"(normalised; exact: {item.exact:,}); data.overlap.{item.kind} allows {item.bound:.1%}"
        for item in overlaps
        if not item.passed
    ]


def _ignored_sentence(recipe: Recipe, inputs: InputFiles) -> list[str]:
    if not inputs.ignored or recipe.data.arrivals is None:
        return []
    rule = f"an arrival is named by its date: YYYY-MM-DD{arrival_suffix(recipe)}"
    return [f"ignored in {recipe.data.arrivals.directory}: {some_of(inputs.ignored)}; {rule}"]


def _figures(job: Job, inputs: InputFiles, findings: Findings) -> ValidationFigures:
    held = findings.held
    left_out = [f"left out: {item.sentence('critical')}" for item in findings.arrivals if item.level == "critical"]
    odd = [item.sentence("warning") for item in findings.arrivals if item.level == "warning"]
    ignored = _ignored_sentence(job.recipe, inputs)
    aside = f"{len(held.aside):,} {'row was' if len(held.aside) == 1 else 'rows were'} set aside in {quarantine.FILE}"
    rules = [sentence(job.recipe, held, item) for item in held.findings if not item.passed]
    return ValidationFigures(
        train_rows=len(held.splits["train"].rows),
        test_rows=len(held.splits["test"].rows),
        test_in_train=int(held.tables["test"]["in_train"].sum()),
        warnings=(*left_out, *odd, *ignored, *([aside] if held.aside else []), *rules),
        sample=job.recipe.sample,
        cutoff=findings.arrived[-1].file.date if findings.arrived else None,
        arrivals=tuple(UsedArrival(date=part.file.date, sha256=part.file.digest) for part in findings.arrived),
        left_out=tuple(left_out),
        quarantined=len(held.aside),
        overlap={item.name: item.normalised for item in findings.overlaps},
    )
