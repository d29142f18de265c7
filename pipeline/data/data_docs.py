"""The front page of the data docs: gather its content from the findings, and write it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.data.arrival_checks import Arrival, Measure
from pipeline.data.findings import RuleFinding
from pipeline.data.formats import row_unit
from pipeline.data.input_files import InputFile
from pipeline.data.overlap import Overlap, Repeated
from pipeline.data.quarantine import Aside
from pipeline.data.reading import Split
from pipeline.data.rules import Held
from pipeline.job import Job
from pipeline.templates import templates_in

HERE = Path(__file__).parent
#: Great Expectations' pages load styles and scripts from CDNs, and a logo whose address contains the project's id.
#: Offline they are unstyled; online they send telemetry.
OUTSIDE = re.compile(
    r"<script\b.*?</script>|<style\b.*?</style>|<link\b[^>]*>|<img\b[^>]*>|<footer\b.*?</footer>"
    r'|\son[a-z]+="[^"]*"',
    re.DOTALL | re.IGNORECASE,
)
#: Pages may load nothing: the rows that they show are untrusted.
POLICY_META = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""


#: Number of rows shown of the quarantine and of each kind of overlap; the TSV files contain all.
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
    """A finding with the name of its file and example rows."""

    finding: RuleFinding
    file: str
    examples: list[Example]


@dataclass(frozen=True)
class PageFile:
    """A published file; `arrivals` is the number of arrivals that were read with it."""

    split: Split
    name: str
    rows: int
    digest: str
    arrivals: int


@dataclass(frozen=True)
class PageOverlap:
    """One kind of overlap and example rows."""

    overlap: Overlap
    rows: list[Repeated]


@dataclass(frozen=True)
class PageDay:
    """An arrival and its measures by name."""

    arrival: Arrival
    measures: dict[str, Measure]


@dataclass(frozen=True)
class Page:
    """Content of the front page."""

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
    "Names of the arrivals' measures."


def build_page(
    job: Job,
    held: Held,
    arrivals: Sequence[Arrival],
    overlaps: Sequence[Overlap],
    listed: Sequence[Repeated],
    problems: Sequence[str],
) -> Page:
    """Return the content of the page; `problems` are the reasons why the run stops, empty if it continues."""
    recipe = job.recipe
    return Page(
        title=recipe.title,
        recipe=recipe.name,
        run=job.run,
        date=str(job.cutoff),
        sample=recipe.sample,
        unit=row_unit(recipe.data),
        texts=list(recipe.data.texts),
        problems=list(problems),
        files=[_file(split, [part.file for part in rows.parts], len(rows.rows)) for split, rows in held.splits.items()],
        findings=[_finding(held, recipe.text_columns, finding) for finding in held.findings],
        aside=sorted(held.aside, key=lambda item: (item.file, item.row))[:ASIDE],
        aside_count=len(held.aside),
        overlaps=[_overlap(item, listed, held) for item in overlaps],
        # Newest first: readers look for the latest day.
        days=[PageDay(item, {measure.name: measure for measure in item.measures}) for item in reversed(arrivals)],
        measures=list(dict.fromkeys(measure.name for item in arrivals for measure in item.measures)),
    )


def _file(split: Split, files: Sequence[InputFile], rows: int) -> PageFile:
    first, *more = [file for file in files if file.date is None]
    named = first.name + (f" and {len(more)} more" if more else "")
    return PageFile(split, named, rows, first.digest, len(files) - 1 - len(more))


def _finding(held: Held, texts: Sequence[str], finding: RuleFinding) -> PageFinding:
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


def write_docs(site: Path, target: Path, page: Page) -> None:
    """Write the data docs of `site` to `target`, with `page` as `index.html`; they open from the file system.

    `page` replaces Great Expectations' own index, which needs a script from a CDN.
    """
    style = (HERE / "data_docs.css").read_text(encoding="utf-8")
    links: dict[str, str] = {}
    for path in sorted(site.rglob("*.html")):
        relative = path.relative_to(site)
        if relative.name == "index.html":
            continue
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        (target / relative).write_text(offline(path.read_text(encoding="utf-8"), style), encoding="utf-8")
        links[relative.parts[2] if relative.parts[0] == "validations" else "suite"] = relative.as_posix()
    template = templates_in(HERE).get_template("data_docs.html")
    failed = [item for item in page.findings if not item.finding.passed]
    text = template.render(page=page, failed=failed, links=links, head=POLICY_META + f"<style>{style}</style>")
    (target / "index.html").write_text(text, encoding="utf-8")


def offline(html: str, style: str) -> str:
    """Return a Great Expectations page with the style sheet `style`, and without scripts and external resources."""
    html = OUTSIDE.sub("", html)
    return html.replace("</head>", f"{POLICY_META}<style>{style}</style>\n</head>", 1)
