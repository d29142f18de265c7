"""The table of faults in docs/results/topology.md, written by the tests themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.atomic_files import replace_file
from pipeline.config_file import ROOT
from tests.support.long_runs import commit

DOCUMENT = ROOT / "docs" / "results" / "topology.md"
HEAD = (
    "| Fault | Questions | Failed | Wrong answers | Repeated tasks | Seconds to recovery | Date | Commit |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


@dataclass(frozen=True)
class Figures:
    """The consequences of one fault."""

    asked: int
    failed: int
    wrong: int
    repeated: int
    seconds: float

    def row(self, fault: str) -> str:
        figures = f"{self.asked} | {self.failed} | {self.wrong} | {self.repeated} | {self.seconds:.0f}"
        return f"| {fault} | {figures} | {datetime.now(UTC):%Y-%m-%d} | {commit()} |\n"


def record(fault: str, figures: Figures) -> None:
    """Replace the row of this fault, or add it."""
    replace_file(DOCUMENT, with_row(DOCUMENT.read_text(encoding="utf-8"), fault, figures.row(fault)))


def with_row(text: str, fault: str, row: str) -> str:
    """Return the document with `row` for this fault; the table is its last part."""
    introduction, _, rows = text.partition(HEAD)
    others = [line for line in rows.splitlines(keepends=True) if not line.startswith(f"| {fault} |")]
    return introduction + HEAD + "".join(sorted([*others, row]))
