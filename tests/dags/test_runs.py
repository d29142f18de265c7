"""DAGs run by Airflow itself, as far as they go in seconds; `tests/e2e` has whole nights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.deploy import deploy
from pipeline.errors import RejectedDataError
from pipeline.job import Job, open_job
from pipeline.recipe import load_recipe
from pipeline.releases import DeploymentLog
from pipeline.sample import write_sample
from pipeline.settings import Settings
from pipeline.stages import VALIDATE
from tests.dags.conftest import newest_runs, rows
from tests.hook import Hook
from tests.releases import TinyModel, make_decision


def test_refused_data_stop_their_recipe_and_can_be_looked_at(
    airflow: Callable[..., str], airflow_home: Path, settings: Settings, hook: Hook, tmp_path: Path
) -> None:
    data = write_sample(tmp_path / "data")
    train = data / "nsmc" / "ratings_train.txt"
    train.write_text(train.read_text(encoding="utf-8").replace("\t1\n", "\t9\n"), encoding="utf-8")
    # Whoever tried it on the command line has seen it, and nobody else was told.
    tried = open_job("nsmc", settings=settings.model_copy(update={"data": data}))
    with pytest.raises(RejectedDataError):
        VALIDATE.run(tried)
    environment = {"SAEBYEOK_DATA": str(data), "SAEBYEOK_ALERT_WEBHOOK": hook.url}
    chosen = {"recipes": ["nsmc"]}
    output = airflow("nightly_retrain", chosen, chosen, fail=[True, False], **environment)
    assert "klue-sts was not chosen" in output
    (run, states), (_, again) = newest_runs(airflow_home, "nightly_retrain", 2)
    assert set(again.values()) == {"skipped"}
    assert f"nothing new since run {run}, which was stopped here: {train}" in output
    assert states["nsmc.validate"] == "failed"
    assert states["nsmc.deploy"] == "upstream_failed"
    assert {state for task, state in states.items() if task.startswith("klue-sts.")} == {"skipped"}
    (alert,) = hook.bodies
    assert alert["task"] == "nsmc.validate"
    assert str(train) in alert["text"]
    (link,) = rows(
        airflow_home,
        "select value from xcom where key = '_link_DataDocsLink' and task_id = 'nsmc.validate' and run_id = ?",
        run,
    )
    path = str(link[0]).strip('"').removeprefix("/saebyeok/")
    assert path.startswith("rejected-data/nsmc/")
    assert "label" in (settings.home / "store" / path).read_text(encoding="utf-8")


def test_a_rollback_serves_the_deployment_that_is_named_and_tells_who_follows(
    airflow: Callable[..., str],
    airflow_home: Path,
    settings: Settings,
    make_job: Callable[..., Job],
    classifier: TinyModel,
    other_classifier: TinyModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The roll-back in its own process builds one.
    monkeypatch.setattr("pipeline.deploy.ensure_bento", lambda *_: "")
    job = make_job(load_recipe("nsmc", "embedded"))
    champion = None
    for model, letter in ((classifier, "a"), (other_classifier, "b"), (classifier, "c")):
        release = model.publish(job.store, "nsmc", key=letter * 16)
        deploy(job, release, make_decision(job.store, release, champion), require_service=False)
        champion = release.ref
    log = DeploymentLog(job.store)
    # Not the one before, which it takes where none is named.
    output = airflow("rollback", {"deployment": 1}, {"deployment": 7}, fail=[False, True])
    (run, states), (_, unknown) = newest_runs(airflow_home, "rollback", 2)
    assert states == {"rollback": "success"}
    assert log.numbers() == [1, 2, 3, 4]
    assert (log.get(4).releases, log.get(4).run) == (log.get(1).releases, run)
    events = rows(
        airflow_home,
        "select uri, e.extra from asset_event e join asset a on a.id = e.asset_id where e.source_run_id = ?",
        run,
    )
    assert [(uri, json.loads(extra)["deployment"]) for uri, extra in events] == [("saebyeok://champion/nsmc", 4)]
    assert "no deployment 7" in output
    assert unknown == {"rollback": "failed"}
