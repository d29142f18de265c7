"""Tables, pictures and reports of a stage's result for Weights & Biases."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.store.decisions import Decision
from pipeline.store.figures import DecisionFigures, EvaluationFigures, Figures, TrainingFigures, ValidationFigures
from pipeline.tracking.tracker import Tracker

#: Parts of a report that quote the data or the behavioural cases. Texts are escaped, so they cannot contain the marks.
QUOTED = re.compile(r"<!-- texts -->.*?<!-- /texts -->", re.DOTALL)


Rows = list[dict[str, Any]]


def show(tracker: Tracker, kind: str, figures: Figures, draft: Path) -> None:
    """Log tables, pictures and report of the artifact in `draft`; texts of the data only if the tracker accepts them.

    Raises FileNotFoundError or ValidationError if a file of the artifact is missing or damaged.
    """
    for picture in sorted(draft.glob("*.png")):
        tracker.image(f"{kind}/{picture.stem}", picture)
    for name, rows in _tables(figures, draft).items():
        _table(tracker, f"{kind}/{name}", rows)
    if (report := draft / "report.html").is_file():
        page = report.read_text(encoding="utf-8")
        tracker.page(f"{kind}/report", page if tracker.texts else without_texts(page))
    if not tracker.texts:
        return
    for name, file in TEXT_FILES.get(kind, {}).items():
        _table(tracker, f"{kind}/{name}", _read(draft / file))


def _tables(figures: Figures, draft: Path) -> dict[str, Rows]:
    match figures:
        case ValidationFigures():
            return validation_tables(figures, draft)
        case TrainingFigures():
            return training_tables(figures)
        case EvaluationFigures():
            return evaluation_tables(figures)
        case DecisionFigures():
            return decision_tables(draft)
        case _:
            return {}


def validation_tables(figures: ValidationFigures, draft: Path) -> dict[str, Rows]:
    """Return `rules` (each rule and its broken rows), `arrivals` (the used ones) and `overlap` (rows by kind)."""
    document = _read(draft / "validation.json") or {}
    columns = ("split", "severity", "passed", "rule", "rows", "bad_rows")
    return {
        "rules": [{name: item[name] for name in columns} for item in document.get("findings", [])],
        "arrivals": [item.model_dump(mode="json") for item in figures.arrivals],
        "overlap": [{"kind": name, "rows": rows} for name, rows in figures.overlap.items()],
    }


def training_tables(figures: TrainingFigures) -> dict[str, Rows]:
    """Return `epochs`: the validation figures of each epoch."""
    return {"epochs": [dict(row) for row in figures.history]}


def evaluation_tables(figures: EvaluationFigures) -> dict[str, Rows]:
    """Return `metrics` with intervals, `slices`, `behaviour`, `calibration` per bin, `similarity` of a bi-encoder."""
    judged = {
        "test": (figures.test_rows, figures.test),
        "test_without_train_texts": (figures.test_without_train_texts_rows, figures.test_without_train_texts),
        "gate": (figures.gate_rows, figures.gate),
    }
    return {
        "metrics": [
            {"rows": name, "count": count, "metric": metric, **dict(figure)}
            for name, (count, metrics) in judged.items()
            for metric, figure in metrics.items()
        ],
        "slices": [
            {"slice": part.slice, "part": part.part, "rows": part.rows, **dict(part.figure or NO_FIGURE)}
            for part in figures.slices
        ],
        "behaviour": [
            {"capability": name, "cases": item.cases, "passed": item.passed, **dict(item.rate)}
            for name, item in figures.behaviour.items()
        ],
        "behaviour_tests": [
            {"capability": name, **dict(test)} for name, item in figures.behaviour.items() for test in item.tests
        ],
        "calibration": [dict(item) for item in figures.calibration.curve] if figures.calibration else [],
        "similarity": [
            {"by": way, "metric": metric, **dict(figure)}
            for way, metrics in figures.similarity.items()
            for metric, figure in metrics.items()
        ],
    }


def decision_tables(draft: Path) -> dict[str, Rows]:
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
