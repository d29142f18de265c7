"""Short runs of the DAGs by Airflow itself; `tests/e2e` has whole runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.deployment.service_client import ServiceClient
from pipeline.errors import RejectedDataError
from pipeline.job import Job, open_job
from pipeline.recipes.files import RECIPES
from pipeline.recipes.loading import load_recipe
from pipeline.run_notes import WRITTEN
from pipeline.sample import write_sample
from pipeline.settings import Settings
from pipeline.stages.deploy import deploy
from pipeline.stages.running import build
from pipeline.stages.stage import VALIDATE
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import read_card
from pipeline.store.verdicts import find_hold
from tests.dags.conftest import DagRun, finished_run, parse, rows
from tests.support.hook import Hook
from tests.support.inprocess import in_process
from tests.support.tiny_releases import TinyModel, make_artifact, make_decision

pytestmark = pytest.mark.airflow

Airflow = Callable[..., DagRun]
#: Changes of the shipped recipe: a tiny model of the sample, accepted by the gate. `tests/e2e` runs it unchanged.
TINY = {
    r"scratch = \{ vocabulary = 3_000.*": (
        'base = "scratch"\nunknown_share = 1.0\n'
        "scratch = { vocabulary = 600, layers = 1, hidden = 32, heads = 2, intermediate = 64, dropout = 0.1 }"
    ),
    r"learning_rate = 5e-4\nbatch_size = 16": "learning_rate = 3e-3\nbatch_size = 32",
    r"floors = \{ accuracy = 0\.87, f1 = 0\.87 \}": "floors = { accuracy = 0.5, f1 = 0.01 }",
    r"(negation|intensifiers|typos|names|emoji) = 0\.\d+(?=\n(.*\n)*\[profiles.embedded.sample.export\])": r"\1 = 1e-9",
    r"sentences = 500\n": "sentences = 100\nlatency_ms = 5000.0\n",
    r"int8 = \{ changed_labels = 0\.01, .*": "int8 = { changed_labels = 0.2, metric_change = 0.1 }",
}


def write_tiny(folder: Path) -> None:
    """Write a tiny nsmc, which hides the shipped one, into a new folder of recipes."""
    text = (RECIPES / "nsmc.toml").read_text(encoding="utf-8")
    for pattern, new in TINY.items():
        text, count = re.subn(pattern, new, text)
        assert count, pattern
    (folder / "behaviour").mkdir(parents=True)
    (folder / "nsmc.toml").write_text(text, encoding="utf-8")
    shutil.copy(RECIPES / "behaviour" / "nsmc.toml", folder / "behaviour")


def test_night_passes_every_stage_and_serves_the_model(
    database: Path,
    airflow_home: Path,
    settings: Settings,
    hook: Hook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_bentos: None,
) -> None:
    write_tiny(tmp_path / "recipes")
    monkeypatch.setenv("SAEBYEOK_RECIPES", str(tmp_path / "recipes"))
    with in_process(settings) as service:
        monkeypatch.setenv("SAEBYEOK_SERVICE_URL", service.settings.service_url)
        night = finished_run(database, parse(), "nightly_retrain", {"recipes": ["nsmc"]})
        (live,) = service.store.refs("release", "nsmc")
        with ServiceClient(service.settings.service_url) as client:
            assert client.classify(["정말 재미있게 봤어요."]).release == read_card(service.store.open(live)).id
    assert night.state == "success"
    stages = {task.removeprefix("nsmc."): state for task, state in night.tasks.items() if task.startswith("nsmc.")}
    assert set(stages.values()) == {"success"}
    latest = DeploymentLog(service.store).latest()
    assert latest is not None
    assert (latest.run, latest.releases) == (night.id, {"nsmc": live})
    query = "select uri from asset_event e join asset a on a.id = e.asset_id where e.source_run_id = ?"
    assert rows(database, query, night.id) == [("saebyeok://champion/nsmc",)]
    assert [body["event"] for body in hook.bodies] == ["promoted"]


def test_rejected_data_stop_recipe_and_link_data_docs(
    airflow: Airflow,
    database: Path,
    settings: Settings,
    hook: Hook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = write_sample(tmp_path / "data")
    train = data / "nsmc" / "ratings_train.txt"
    train.write_text(train.read_text(encoding="utf-8").replace("\t1\n", "\t9\n"), encoding="utf-8")
    # A person saw the command line's refusal, but no alert was sent.
    tried = open_job("nsmc", settings=settings.model_copy(update={"data": data}))
    with pytest.raises(RejectedDataError):
        build(tried, VALIDATE)
    monkeypatch.setenv("SAEBYEOK_DATA", str(data))
    first, again = (airflow("nightly_retrain", recipes=["nsmc"]) for _ in range(2))
    assert (first.state, again.state) == ("failed", "success")
    assert "skipped: not among the chosen recipes: nsmc" in caplog.text
    assert set(again.tasks.values()) == {"skipped"}
    assert f"the data are the same as in run {first.id}, which failed at this task: {train}" in caplog.text
    assert first.tasks["nsmc.validate"] == "failed"
    assert first.tasks["nsmc.deploy"] == "upstream_failed"
    assert {state for task, state in first.tasks.items() if task.startswith("klue-sts.")} == {"skipped"}
    # A refused recipe and one that was not chosen look different in the list of runs.
    notes = dict(rows(database, "select run_id, content from dag_run_note join dag_run on id = dag_run_id"))
    unchosen = "klue-sts skipped: not among the chosen recipes: nsmc\n\n"
    assert notes[first.id].startswith(f"nsmc.validate failed: {train}")
    assert notes[first.id].endswith(f"\n\n{unchosen}{WRITTEN}")
    same = f"nsmc skipped: the data are the same as in run {first.id}"
    assert notes[again.id].startswith(f"{unchosen}{same}")
    ((on_task,),) = rows(
        database,
        "select content from task_instance_note join task_instance on id = ti_id where task_id = ? and run_id = ?",
        "nsmc.validate",
        first.id,
    )
    assert on_task.startswith(f"nsmc.validate failed: {train}")
    (alert,) = hook.bodies
    assert alert["task"] == "nsmc.validate"
    assert str(train) in alert["text"]
    link = "select value from xcom where key = '_link_DataDocsLink' and task_id = 'nsmc.validate' and run_id = ?"
    ((address,),) = rows(database, link, first.id)
    path = str(address).strip('"').removeprefix("/saebyeok/")
    assert path.startswith("rejected-data/nsmc/")
    assert "label" in (settings.home / "store" / path).read_text(encoding="utf-8")


def test_rollback_serves_named_deployment_and_updates_asset(
    airflow: Airflow,
    database: Path,
    hook: Hook,
    make_job: Callable[..., Job],
    classifier: TinyModel,
    other_classifier: TinyModel,
    no_bentos: None,
) -> None:
    job = make_job(load_recipe("nsmc", "embedded"))
    champion = None
    for model, letter in ((classifier, "a"), (other_classifier, "b"), (classifier, "c")):
        release = model.publish(job.store, "nsmc", key=letter * 16)
        deploy(job, release, make_decision(job.store, release, champion), require_service=False)
        champion = release.ref
    log = DeploymentLog(job.store)
    # Not the previous one, which is the default without a number.
    done = airflow("rollback", deployment=1)
    assert (done.state, done.tasks) == ("success", {"rollback": "success"})
    assert log.numbers() == [1, 2, 3, 4]
    assert (log.get(4).releases, log.get(4).run) == (log.get(1).releases, done.id)
    query = "select uri, e.extra from asset_event e join asset a on a.id = e.asset_id where e.source_run_id = ?"
    ((uri, extra),) = rows(database, query, done.id)
    assert uri == "saebyeok://champion/nsmc"
    assert json.loads(extra) == {"deployment": 4, "release": log.get(1).releases["nsmc"]}
    assert [(body["event"], body["of"], body["by"]) for body in hook.bodies] == [("rolled_back", 1, log.get(4).by)]
    unknown = airflow("rollback", deployment=7)
    assert (unknown.state, unknown.tasks) == ("failed", {"rollback": "failed"})
    _, alert = hook.bodies
    assert (alert["event"], alert["dag"], alert["task"], alert["run"]) == ("failed", "rollback", "rollback", unknown.id)
    assert "no deployment 7" in alert["text"]
    assert log.numbers() == [1, 2, 3, 4]


def test_hold_and_release_are_recorded_with_the_asker(airflow: Airflow, store: Store, hook: Hook) -> None:
    done = airflow("hold", recipe="klue-sts", why="labels are being checked")
    assert (done.state, done.tasks) == ("success", {"hold": "success"})
    hold = find_hold(store, "klue-sts")
    assert hold is not None
    # Airflow's name for whoever runs a DAG in a test.
    assert (hold.by, hold.why) == ("dag_test", "labels are being checked")
    assert airflow("hold", recipe="klue-sts", action="release").state == "success"
    assert find_hold(store, "klue-sts") is None
    assert hook.bodies == []
    # There is nothing to release any more.
    assert airflow("hold", recipe="klue-sts", action="release").state == "failed"
    assert "promotion of klue-sts is not on hold" in hook.bodies[0]["text"]


def made(store: Store, kind: str, days_ago: float) -> Artifact:
    """Return a small artifact that is `days_ago` days old."""
    artifact = make_artifact(store, kind, "nsmc", {})
    created = datetime.now(UTC) - timedelta(days=days_ago)
    manifest = artifact.manifest.model_copy(update={"created": created})
    (artifact.path / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return artifact


def test_retention_deletes_outdated_and_alerts_on_failure(
    airflow: Airflow, database: Path, store: Store, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEBYEOK_KEEP_DAYS", "3")
    old, recent, newest = (made(store, "train", days) for days in (3.1, 2.9, 2.8))
    decided = made(store, "decide", 300)
    done = airflow("retention")
    assert (done.state, done.tasks) == ("success", {"prune": "success"})
    assert set(store.refs("train", "nsmc")) == {recent.ref, newest.ref}
    assert store.refs("decide", "nsmc") == [decided.ref]
    ((freed,),) = rows(database, "select value from xcom where key = 'return_value' and run_id = ?", done.id)
    assert int(freed) == old.size > 0
    assert hook.bodies == []
    # If a deployment cannot be read, its inputs are unknown.
    old = made(store, "train", 4)
    (Path(store.uri) / "deployments").mkdir()
    (Path(store.uri) / "deployments" / "000001.json").write_text("{", encoding="utf-8")
    failed = airflow("retention")
    assert (failed.state, failed.tasks) == ("failed", {"prune": "failed"})
    assert old.ref in store.refs("train", "nsmc")
    (alert,) = hook.bodies
    assert (alert["event"], alert["dag"], alert["task"], alert["run"]) == ("failed", "retention", "prune", failed.id)
    assert "000001.json is damaged" in alert["text"]
