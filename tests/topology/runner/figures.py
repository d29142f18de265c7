"""The table of faults in docs/results/faults.md, written by the tests themselves."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.atomic_files import replace_file
from pipeline.config_file import ROOT
from tests.support.long_runs import commit

DOCUMENT = ROOT / "docs" / "results" / "faults.md"
COLUMNS = ("Fault", "Questions", "Unanswered", "Wrong answers", "Lost work", "Seconds to recovery", "Date", "Commit")
HEAD = f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}\n"


@dataclass(frozen=True)
class Figures:
    """The consequences of one fault."""

    asked: int
    unanswered: int
    wrong: int
    lost: int
    seconds: float

    def row(self, fault: str) -> str:
        """Return the row of the table."""
        *counts, seconds = astuple(self)
        cells = (fault, *counts, f"{seconds:.0f}", f"{datetime.now(UTC):%Y-%m-%d}", commit())
        return f"| {' | '.join(map(str, cells))} |\n"


def record(fault: str, figures: Figures, document: Path = DOCUMENT) -> None:
    """Replace the row of this fault in the table, which is the last part of the document, or add it."""
    introduction, _, rows = document.read_text(encoding="utf-8").partition(HEAD)
    others = [line for line in rows.splitlines(keepends=True) if not line.startswith(f"| {fault} |")]
    replace_file(document, introduction + HEAD + "".join(sorted([*others, figures.row(fault)])))
