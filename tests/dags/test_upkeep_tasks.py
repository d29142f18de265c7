"""The tasks of the DAGs `retention` and `rollback`, called in this process (whole runs: test_runs)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from tests.dags.conftest import RUN
from tests.support.tiny_releases import TinyModel, make_artifact

if TYPE_CHECKING:
    from airflow.sdk import Context

InTask = Callable[..., "Context"]


def task(module: str, name: str) -> Callable[[], Any]:
    """Return the function of a task."""
    found: Callable[[], Any] = getattr(importlib.import_module(module), name).function
    return found


def aged(store: Store, kind: str, days_ago: float) -> Artifact:
    """Return a small artifact that is some days old."""
    made = make_artifact(store, kind, "nsmc", {})
    created = datetime.now(UTC) - timedelta(days=days_ago)
    manifest = made.manifest.model_copy(update={"created": created})
    (Path(store.uri) / made.ref / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return made


# --- retention ---


def test_prune_deletes_by_the_settings_and_returns_bytes(
    in_task: InTask, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEBYEOK_KEEP_DAYS", "3")
    in_task()
    old, recent, newest = (aged(store, "train", days) for days in (3.1, 2.9, 2.8))
    assert task("retention", "prune")() == old.size > 0
    assert store.refs("train", "nsmc") == [newest.ref, recent.ref]
    assert task("retention", "prune")() == 0


def test_prune_with_a_damaged_log_fails_without_retry(in_task: InTask, store: Store) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    in_task()
    old = aged(store, "train", 400)
    aged(store, "train", 0)
    store.create("deployments/000001.json", b"{")
    with pytest.raises(AirflowFailException, match=r"000001\.json is damaged"):
        task("retention", "prune")()
    assert old.ref in store.refs("train", "nsmc")


# --- rollback ---


@pytest.fixture
def log(store: Store, classifier: TinyModel, other_classifier: TinyModel, no_bentos: None) -> DeploymentLog:
    """Return a log of three deployments of two recipes; only the release of `nsmc` changes."""
    log = DeploymentLog(store)
    pairs = classifier.publish(store, "klue-sts", key="d" * 16).ref
    for number, (model, letter) in enumerate(((classifier, "a"), (other_classifier, "b"), (classifier, "c"))):
        release = model.publish(store, "nsmc", key=letter * 16).ref
        log.append({"nsmc": release, "klue-sts": pairs}, after=number, run="night", reason="for a test")
    return log


def events(context: Context) -> list[tuple[str, dict[str, Any]]]:
    """Return the URIs of the assets that the task updated, and the details."""
    from airflow.sdk import AssetAlias

    found = context["outlet_events"][AssetAlias("saebyeok-rolled-back")].asset_alias_events
    return [(event.dest_asset_key.uri, event.extra) for event in found]


@pytest.mark.parametrize(("number", "target"), [(None, 2), (1, 1)])
def test_rollback_updates_the_assets_that_changed(
    in_task: InTask, log: DeploymentLog, number: int | None, target: int
) -> None:
    context = in_task(deployment=number)
    assert task("rollback", "rollback")() == "deployments/000004.json"
    made = log.get(4)
    assert (made.releases, made.run) == (log.get(target).releases, RUN)
    assert events(context) == [("saebyeok://champion/nsmc", {"deployment": 4, "release": made.releases["nsmc"]})]


@pytest.mark.parametrize(
    ("number", "text"), [(7, "there is no deployment 7"), (3, "deployment 3 already serves the releases of")]
)
def test_impossible_rollback_fails_without_retry(in_task: InTask, log: DeploymentLog, number: int, text: str) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    context = in_task(deployment=number)
    with pytest.raises(AirflowFailException, match=text):
        task("rollback", "rollback")()
    assert log.numbers() == [1, 2, 3]
    assert events(context) == []
