"""Tables, pictures and reports of a stage's result for Weights & Biases."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.store.decisions import Decision
from pipeline.tracking.tracker import Tracker

#: Parts of a report that quote the data or the behavioural cases. Texts are escaped, so they cannot contain the marks.
QUOTED = re.compile(r"<!-- texts -->.*?<!-- /texts -->", re.DOTALL)


Rows = list[dict[str, Any]]
Figures = Mapping[str, Any]


def show(tracker: Tracker, kind: str, figures: Figures, draft: Path) -> None:
    """Log tables, pictures and report of the artifact in `draft`; texts of the data only if the tracker accepts them.

    Raises FileNotFoundError, KeyError or ValidationError if the artifact is not of `kind`.
    """
    for picture in sorted(draft.glob("*.png")):
        tracker.image(f"{kind}/{picture.stem}", picture)
    for name, rows in _tables(kind, figures, draft).items():
        _table(tracker, f"{kind}/{name}", rows)
    if (report := draft / "report.html").is_file():
        page = report.read_text(encoding="utf-8")
        tracker.page(f"{kind}/report", page if tracker.texts else without_texts(page))
    if not tracker.texts:
        return
    for name, file in TEXT_FILES.get(kind, {}).items():
        _table(tracker, f"{kind}/{name}", _read(draft / file))


def _tables(kind: str, figures: Figures, draft: Path) -> dict[str, Rows]:
    make = MAKERS.get(kind)
    return make(figures, draft) if make else {}


def validation_tables(figures: Figures, draft: Path) -> dict[str, Rows]:
    """Return `rules` (each rule and its broken rows), `arrivals` (the used ones) and `overlap` (rows by kind)."""
    document = _read(draft / "validation.json") or {}
    columns = ("split", "severity", "passed", "rule", "rows", "bad_rows")
    return {
        "rules": [{name: item[name] for name in columns} for item in document.get("findings", [])],
        "arrivals": [dict(item) for item in figures.get("arrivals", [])],
        "overlap": [{"kind": name, "rows": rows} for name, rows in figures.get("overlap", {}).items()],
    }


def training_tables(figures: Figures, _: Path) -> dict[str, Rows]:
    """Return `epochs`: the validation figures of each epoch."""
    return {"epochs": [dict(row) for row in figures.get("history", [])]}


def evaluation_tables(figures: Figures, _: Path) -> dict[str, Rows]:
    """Return `metrics` with intervals, `slices`, `behaviour`, `calibration` per bin, `similarity` of a bi-encoder."""
    judged = ("test", "test_without_train_texts", "gate")
    return {
        "metrics": [
            {"rows": name, "count": figures[f"{name}_rows"], "metric": metric, **figure}
            for name in judged
            for metric, figure in figures[name].items()
        ],
        "slices": [
            {"slice": part["slice"], "part": part["part"], "rows": part["rows"], **(part["figure"] or NO_FIGURE)}
            for part in figures["slices"]
        ],
        "behaviour": [
            {"capability": name, "cases": item["cases"], "passed": item["passed"], **item["rate"]}
            for name, item in figures["behaviour"].items()
        ],
        "behaviour_tests": [
            {"capability": name, **test} for name, item in figures["behaviour"].items() for test in item["tests"]
        ],
        "calibration": [dict(item) for item in figures.get("calibration", {}).get("curve", [])],
        "similarity": [
            {"by": way, "metric": metric, **figure}
            for way, metrics in figures.get("similarity", {}).items()
            for metric, figure in metrics.items()
        ],
    }


def decision_tables(_: Figures, draft: Path) -> dict[str, Rows]:
    """Return `checks`: every figure that was compared with a bound, with its interval if it has one."""
    decision = Decision.parse((draft / "decision.json").read_bytes(), "decision.json")
    return {
        "checks": [
            {
                "kind": check.kind,
                "check": check.name,
                "value": check.value,
                "bound": check.bound,
                "passed": check.passed,
            }
            | ({"low": check.estimate.low, "high": check.estimate.high} if check.estimate else {})
            for check in decision.checks
        ]
    }


NO_FIGURE = {"value": None, "low": None, "high": None}
MAKERS: Mapping[str, Callable[[Figures, Path], dict[str, Rows]]] = {
    "validate": validation_tables,
    "train": training_tables,
    "evaluate": evaluation_tables,
    "decide": decision_tables,
}
#: Tables of texts, and the files of an artifact that hold them.
TEXT_FILES = {"evaluate": {"mistakes": "mistakes.json", "behaviour_failures": "behaviour.json"}}


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _table(tracker: Tracker, name: str, rows: Iterable[Mapping[str, Any]] | None) -> None:
    found = list(rows or ())
    columns = list(dict.fromkeys(column for row in found for column in row))
    if found:
        tracker.table(name, columns, [[_cell(row.get(column)) for column in columns] for row in found])


def _cell(value: Any) -> Any:
    # Otherwise W&B splits lists into cells.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def without_texts(page: str) -> str:
    """Return a page of `render_report` without the parts that quote the data or the behavioural cases."""
    return QUOTED.sub('<p class="quiet">Texts are omitted here. The report in the store contains them.</p>', page)
