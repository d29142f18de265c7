"""The front page of the data docs: what it shows, gathered from what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.data.daily_arrivals import Arrival, Measure
from pipeline.data.expectation_suite import Finding
from pipeline.data.overlap import Overlap, Repeated
from pipeline.data.quarantine import Aside
from pipeline.data.reading import Split, row_unit, text_columns
from pipeline.data.rules import Held
from pipeline.job import Job

#: Rows shown of the quarantine, and of each kind of overlap; the files beside the page have all.
ASIDE, REPEATED = 50, 5


@dataclass(frozen=True)
class Example:
    """A row that breaks a rule."""

    row: str
    id: str
    texts: list[str]
    label: str


@dataclass(frozen=True)
class PageFinding:
    """A finding with the name of its file and rows to look at."""

    finding: Finding
    file: str
    examples: list[Example]


@dataclass(frozen=True)
class PageFile:
    """One of the published files; `arrivals` is how many more were read with it."""

    split: Split
    name: str
    rows: int
    digest: str
    arrivals: int


@dataclass(frozen=True)
class PageOverlap:
    """One kind of overlap, and rows of it to look at."""

    overlap: Overlap
    rows: list[Repeated]


@dataclass(frozen=True)
class PageDay:
    """One arrival, and its measures by name."""

    arrival: Arrival
    measures: dict[str, Measure]


@dataclass(frozen=True)
class Page:
    """What the front page shows."""

    title: str
    recipe: str
    run: str
    date: str
    sample: bool
    unit: str
    texts: list[str]
    problems: list[str]
    files: list[PageFile]
    findings: list[PageFinding]
    aside: list[Aside]
    aside_count: int
    overlaps: list[PageOverlap]
    days: list[PageDay]
    measures: list[str]
    "Names of the measures of the days."


def build_page(
    job: Job,
    held: Held,
    arrivals: Sequence[Arrival],
    overlaps: Sequence[Overlap],
    listed: Sequence[Repeated],
    problems: Sequence[str],
) -> Page:
    """Gather the page; `problems` are why the run stops, empty where it goes on."""
    recipe = job.recipe
    return Page(
        title=recipe.title,
        recipe=recipe.name,
        run=job.run,
        date=str(job.cutoff),
        sample=recipe.sample,
        unit=row_unit(recipe),
        texts=list(recipe.data.texts),
        problems=list(problems),
        files=[
            PageFile(split, first.file.name, len(rows.rows), first.file.digest, len(more))
            for split, rows in held.splits.items()
            for first, *more in [rows.parts]
        ],
        findings=[_finding(held, text_columns(recipe), finding) for finding in held.findings],
        aside=sorted(held.aside, key=lambda item: (item.file, item.row))[:ASIDE],
        aside_count=len(held.aside),
        overlaps=[_overlap(item, listed, held) for item in overlaps],
        # The newest first: that is the one that somebody looks for.
        days=[PageDay(item, {measure.name: measure for measure in item.measures}) for item in reversed(arrivals)],
        measures=list(dict.fromkeys(measure.name for item in arrivals for measure in item.measures)),
    )


def _finding(held: Held, texts: Sequence[str], finding: Finding) -> PageFinding:
    split = held.splits[finding.split]
    table = held.tables[finding.split].set_index("row")
    examples = []
    for row in finding.examples:
        record, (file, line) = table.loc[row], split.place(row)
        place = f"{line}" if file == split.parts[0].file else f"{file.path.name}:{line}"
        shown = [_shown(record[name]) for name in texts]
        examples.append(Example(place, _shown(record["id"]), shown, _shown(record["label"])))
    return PageFinding(finding, split.parts[0].file.name, examples)


def _overlap(item: Overlap, listed: Sequence[Repeated], held: Held) -> PageOverlap:
    files = {part.file.name for part in held.splits[item.split].parts}
    rows = [row for row in listed if row.kind == item.kind and row.file in files]
    return PageOverlap(item, rows[:REPEATED])


def _shown(value: Any) -> str:
    return "(none)" if pd.isna(value) else str(value)
