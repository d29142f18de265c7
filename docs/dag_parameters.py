"""The DAGs of docs/reference/dags.md."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from docs.generated import REFERENCE, code, first_paragraph, table
from pipeline.config_file import ROOT

FOLDER = ROOT / "dags"
PAGE = REFERENCE / "dags.md"
HEADER = ("Parameter", "Allowed values", "Default", "Meaning")
#: Keywords of JSON Schema with the sign of their bound.
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
#: Functions that build the DAGs, by module.
DAGS = {
    "nightly_retrain": "nightly_retrain",
    "rollback": "rollback_dag",
    "hold": "hold_dag",
    "accept_arrival": "accept_arrival",
    "retention": "retention",
}


def sections() -> dict[str, str]:
    """Return the parameters and tasks of every DAG."""
    # As in Airflow: DAG files import each other by bare name.
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    dags = [getattr(importlib.import_module(file), name)() for file, name in DAGS.items()]
    return {"dags": "\n\n".join(map(_section, dags))}


def _section(dag: Any) -> str:
    parts = [f"## {dag.dag_id}", f"{dag.description}. {_schedule(dag)}."]
    if dag.params:
        parts.append(table(HEADER, [_row(dag, name) for name in dag.params]))
    # The tasks of all recipes are alike.
    tasks = {task.task_id.rpartition(".")[2]: _text(task) for task in dag.topological_sort()}
    parts.append(table(("Task", "Meaning"), [(f"`{name}`", text) for name, text in tasks.items()]))
    return "\n\n".join(part.strip() for part in parts)


def _schedule(dag: Any) -> str:
    expression = getattr(dag.timetable, "expression", None)
    return f"Schedule: `{expression}`" if expression else "It runs when it is triggered"


def _row(dag: Any, name: str) -> tuple[str, str, str, str]:
    param = dag.params.get_param(name)
    # A parameter without a default has a marker as its value.
    default = param.value if isinstance(param.value, str | bool | list) else None
    return f"`{name}`", _allowed(param.schema), code(_json(default)), param.description or ""


def _allowed(schema: dict[str, Any]) -> str:
    values = schema.get("enum") or schema.get("items", {}).get("enum")
    if values:
        return ", ".join(code(value) for value in values if value is not None)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    bounds = [f"{sign} {schema[name]:,}" for name, sign in BOUNDS.items() if name in schema]
    return ", ".join([" or ".join(kind for kind in kinds if kind != "null"), *bounds])


def _json(value: Any) -> str:
    return "" if value in (None, "") else json.dumps(value)


def _text(task: Any) -> str:
    return first_paragraph(task.doc_md or task.doc or getattr(task.python_callable, "__doc__", ""))
