"""Whole nights on the shipped sample: Airflow runs every stage, a real service serves what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.job import open_store
from pipeline.releases import DeploymentLog
from tests.dags.conftest import newest_run, rows
from tests.service import Service

REFS = ("validate", "tokenize", "train", "evaluate", "decide", "export", "deploy")


def events(airflow_home: Path, run: str) -> list[tuple[str, dict[str, Any]]]:
    """Assets that a run updated, with what it said of them."""
    query = "select uri, e.extra from asset_event e join asset a on a.id = e.asset_id where e.source_run_id = ?"
    return [(uri, json.loads(extra)) for uri, extra in rows(airflow_home, query, run)]


def test_what_passes_is_served_and_what_does_not_changes_nothing(
    airflow: Callable[..., str], airflow_home: Path, service: Service, hook: tuple[str, list[Any]]
) -> None:
    settings = service.settings
    log = DeploymentLog(open_store(settings))

    def night(**params: Any) -> tuple[str, dict[str, str]]:
        airflow(
            "nightly_retrain",
            {"recipes": ["nsmc"], **params},
            SAEBYEOK_HOME=str(settings.home),
            SAEBYEOK_SERVICE_URL=settings.service_url,
            SAEBYEOK_ALERT_WEBHOOK=hook[0],
        )
        run, states = newest_run(airflow_home, "nightly_retrain")
        assert {state for task, state in states.items() if task.startswith("klue-sts.")} == {"skipped"}
        return run, {task.removeprefix("nsmc."): state for task, state in states.items() if task.startswith("nsmc.")}

    # Half the recipe's epochs are enough for the sample's floors.
    run, states = night(epochs=3)
    assert set(states.values()) == {"success"}
    (deployment,) = [log.get(number) for number in log.numbers()]
    release = deployment.releases["nsmc"]
    assert deployment.run == run
    assert events(airflow_home, run) == [("saebyeok://champion/nsmc", {"deployment": 1, "release": release})]
    assert service.client.releases().deployment == 1
    results = dict(rows(airflow_home, "select task_id, value from xcom where key = 'return_value' and run_id = ?", run))
    for stage in REFS:
        assert (settings.home / "store" / json.loads(results[f"nsmc.{stage}"])).exists()

    # Nothing new: all is found again, nobody is asked, and who follows the champion is not woken.
    run, states = night(epochs=3, approval=True)
    assert states.pop("deploy") == "skipped"
    assert set(states.values()) == {"success"}
    assert events(airflow_home, run) == []

    # A model that has learned nothing.
    run, states = night(learning_rate="1e-9", epochs=1)
    assert {states.pop(stage) for stage in ("approve", "export", "deploy")} == {"skipped"}
    assert set(states.values()) == {"success"}
    assert rows(airflow_home, "select state from dag_run where run_id = ?", run) == [("success",)]
    (alert,) = hook[1]
    assert (alert["event"], alert["recipe"], alert["run"]) == ("refused", "nsmc", run)
    assert (settings.home / "store" / urlsplit(alert["report"]).path.removeprefix("/saebyeok/")).is_file()
    assert log.numbers() == [1]
    assert service.client.releases().deployment == 1
