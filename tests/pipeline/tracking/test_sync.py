"""Sync: offline runs are uploaded once, with lineage and champion."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline.config_file import ROOT
from pipeline.errors import SettingsError, TrackingError
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.stages.find_or_build import find_or_build
from pipeline.store.artifacts import Artifact
from pipeline.store.deployments import DeploymentLog
from pipeline.store.figures import Figures, ReleaseFigures, ValidationFigures
from pipeline.tracking.run_directories import RunDirectory, run_directories
from pipeline.tracking.runs import tracked
from pipeline.tracking.sync import Synced, SyncedRun, SyncState, sync
from pipeline.tracking.wandb_api import RETRIES
from tests.support.running_service import eventually
from tests.support.wandb_http import DROP, ERROR, HANG, REFUSE
from tests.support.wandb_server import WandbServer

MODEL = b"\x00\x01" * 400
ROW = "정말 재미있게 봤어요"


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job(load_recipe("nsmc", "embedded", sample=True))


def make_data(job: Job) -> Artifact:
    """Publish a data set with a text in its files and in a sentence."""

    def build(draft: Path, _: object) -> ValidationFigures:
        (draft / "train.parquet").write_text(ROW)
        return ValidationFigures(train_rows=1, test_rows=1, warnings=(f"odd: {ROW}",), sample=True)

    return find_or_build(job, "validate", 1, fields={"seed": job.run}, inputs={}, build=build)


def make_release(job: Job, data: Artifact) -> Artifact:
    """Publish a release made from `data` through a model."""

    def build(draft: Path, _: object) -> ReleaseFigures:
        (draft / "model.int8.onnx").write_bytes(MODEL)
        (draft / "card.json").write_text(json.dumps({"golden": [ROW]}))
        return ReleaseFigures(id="nsmc-0", variants={}, parity={}, latency_ms=1.5, accuracy=0.9)

    trained = find_or_build(job, "train", 1, fields={}, inputs={"validated": data}, build=lambda *_: Figures())
    return find_or_build(job, "release", 1, fields={}, inputs={"trained": trained}, build=build)


def publish_release(job: Job, content: bytes) -> Artifact:
    """Publish a release without a W&B run."""
    with job.store.draft() as draft:
        (draft / "model.int8.onnx").write_bytes(content)
        return job.store.publish(draft, "release", "nsmc", "a" * 16, run=job.run, inputs={}, fields={}, figures={})


def deployed(job: Job, release: Artifact) -> None:
    records = DeploymentLog(job.store)
    releases = {job.recipe.name: release.ref}
    records.append(releases, after=max(records.numbers(), default=0), run=job.run, reason="a test")


def go(job: Job) -> Synced:
    return sync(job.settings, job.store)


def alias(artifact: Artifact) -> str:
    return artifact.ref.rsplit("/", 1)[1]


@pytest.fixture
def offline(wandb_online: WandbServer, monkeypatch: pytest.MonkeyPatch) -> WandbServer:
    """The server, while stages record offline; `sync` still uploads to it."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    return wandb_online


def test_sync_uploads_offline_runs_once_without_texts(job: Job, offline: WandbServer) -> None:
    data = make_data(job)
    release = make_release(job, data)
    deployed(job, release)
    assert offline.asked == []
    synced = go(job)
    assert [run.state for run in synced.runs] == ["uploaded"] * 3, synced
    assert (synced.failed, synced.recorded, synced.champions) == (0, (), {"nsmc": release.ref})
    validated, trained, exported = (offline.find_run(f"nsmc-{stage}") for stage in ("validate", "train", "export"))
    assert validated.summary["train_rows"] == 1
    assert trained.config["made_from"] == {"validated": data.ref}
    assert exported.summary["made"] == release.ref
    assert {run.fields["groupName"] for run in offline.runs.values()} == {"test-run"}
    assert offline.names(trained.uses) == offline.names(exported.uses) == {"nsmc-data"}
    assert offline.names(validated.makes) == {"nsmc-data"}
    version = offline.find_version("nsmc", "champion")
    assert version is not None
    assert alias(release) in version.aliases
    assert version.files["model.int8.onnx"] == MODEL
    assert json.loads(version.metadata)["ref"] == release.ref
    assert ROW not in offline.everything()
    before = offline.state()
    again = go(job)
    assert (again.runs, again.recorded, again.champions, again.failed) == ((), (), {}, 0)
    assert offline.state() == before


def test_the_alias_goes_where_the_deployment_log_goes(job: Job, offline: WandbServer) -> None:
    first, second = (publish_release(job, content) for content in (b"first", b"second"))
    deployed(job, first)
    deployed(job, second)
    assert go(job).champions == {"nsmc": second.ref}
    deployed(job, first)
    assert go(job).champions == {"nsmc": first.ref}
    holders = [item for item in offline.versions.values() if "champion" in item.aliases]
    assert [alias(first) in item.aliases for item in holders] == [True]
    DeploymentLog(job.store).append({}, after=3, run="undone", reason="a test")
    assert go(job).champions == {"nsmc": None}
    assert offline.find_version("nsmc", "champion") is None


def test_champion_is_linked_to_the_registry(job: Job, offline: WandbServer) -> None:
    first, second = (publish_release(job, content) for content in (b"first", b"second"))
    settings = job.settings.model_copy(update={"wandb_registry": "model"})

    def champion() -> str | None:
        links = offline.links.get("wandb-registry-model/nsmc", {})
        holders = [offline.versions[version].aliases for version, aliases in links.items() if "champion" in aliases]
        return next((item.ref for item in (first, second) if [alias(item) in held for held in holders] == [True]), None)

    deployed(job, first)
    # Without a registry, nothing is linked; a sync that has one links the champion later.
    assert go(job).champions == {"nsmc": first.ref}
    assert offline.links == {}
    for release in (first, second, first):
        deployed(job, release)
        assert sync(settings, job.store).champions == {"nsmc": release.ref}
        assert champion() == release.ref
    before = offline.state()
    assert sync(settings, job.store).champions == {}
    assert offline.state() == before
    DeploymentLog(job.store).append({}, after=4, run="undone", reason="a test")
    assert sync(settings, job.store).champions == {"nsmc": None}
    assert champion() is None


def test_protected_alias_is_named_and_moved_once_allowed(job: Job, offline: WandbServer) -> None:
    release = publish_release(job, b"first")
    deployed(job, release)
    settings = job.settings.model_copy(update={"wandb_registry": "model"})
    offline.fail = lambda operation, body: 403 if operation == "LinkArtifact" else None
    refused = sync(settings, job.store)
    assert (refused.failed, refused.champions) == (1, {})
    (problem,) = refused.problems
    assert "alias champion of nsmc was not moved in the registry model" in problem
    assert "give the API key's account the role of a registry admin" in problem
    offline.fail = lambda operation, body: None
    assert sync(settings, job.store).champions == {"nsmc": release.ref}
    (aliases,) = offline.links["wandb-registry-model/nsmc"].values()
    assert aliases == ["champion"]


def test_sync_records_untracked_artifacts_from_the_store(
    job: Job, offline: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    data = make_data(job)
    release = make_release(job, data)
    deployed(job, release)
    with pytest.raises(SettingsError, match="WANDB_MODE"):
        go(job)
    monkeypatch.setenv("WANDB_MODE", "offline")
    synced = go(job)
    assert synced.recorded == (data.ref, release.ref)
    assert synced.failed == 0, synced
    exported = offline.find_run("nsmc-export")
    assert exported.fields["groupName"] == "test-run"
    assert exported.summary["accuracy"] == 0.9
    assert offline.names(exported.uses) == {"nsmc-data"}
    assert offline.names(exported.makes) == {"nsmc"}
    before = offline.state()
    assert go(job).recorded == ()
    assert offline.state() == before


def test_sync_uploads_texts_only_when_enabled(make_job: Callable[..., Job], offline: WandbServer) -> None:
    plain = make_job(load_recipe("nsmc", "embedded", sample=True))
    job = replace(plain, settings=plain.settings.model_copy(update={"wandb_texts": True}))
    make_data(job)
    synced = go(plain)
    assert [run.state for run in synced.runs] == ["failed"]
    assert "SAEBYEOK_WANDB_TEXTS" in synced.runs[0].message
    assert ROW not in offline.everything()
    assert go(job).failed == 0
    assert ROW in offline.everything()


def is_about_a_table(server: WandbServer, operation: str, body: bytes) -> bool:
    """Return whether a request is about a table, which W&B keeps in an artifact `run-...`."""
    tables = [item.id for item in server.versions.values() if item.collection.startswith("run-")]
    marks = {"CreateArtifact": [b"run-"], "CommitArtifact": map(str.encode, tables), "upload": [b'"columns"']}
    return any(mark in body for mark in marks.get(operation, []))


@pytest.mark.parametrize(
    ("operation", "failure"),
    [
        ("CreateArtifact", REFUSE),
        pytest.param("CommitArtifact", ERROR, marks=pytest.mark.slow),
        pytest.param("upload", DROP, marks=pytest.mark.slow),
    ],
)
def test_failed_run_is_named_and_others_arrive(job: Job, offline: WandbServer, operation: str, failure: int) -> None:
    data = make_data(job)
    with tracked(job, "tokenize", {}) as tracker:
        tracker.table("odd", ["a"], [[1]])
    offline.fail = lambda asked, body: (
        failure if asked == operation and is_about_a_table(offline, asked, body) else None
    )
    synced = go(job)
    assert sorted(run.state for run in synced.runs) == ["failed", "uploaded"]
    (failed,) = [run for run in synced.runs if run.state == "failed"]
    assert failed.message
    assert synced.failed == 1
    # W&B's own mark would let `wandb clean` remove data that is not uploaded.
    assert not list((job.settings.home / "wandb" / "wandb" / failed.run).glob("*.synced"))
    assert not [item for item in offline.versions.values() if item.collection.startswith("run-") and item.aliases]
    offline.fail = lambda operation, body: None
    assert [run.state for run in go(job).runs] == ["uploaded"]
    (table,) = [item for item in offline.versions.values() if item.collection.startswith("run-")]
    assert (table.state, "latest" in table.aliases) == ("COMMITTED", True)
    assert offline.find_version("nsmc-data", alias(data)) is not None


def test_lost_server_is_not_tried_for_every_run(
    job: Job, offline: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("a", "b", "c"):
        with tracked(job, stage, {}):
            pass
    # The check of the key, the library's request, and then no responses.
    offline.fail = lambda operation, body: HANG if offline.counts["Viewer"] > 2 else None
    monkeypatch.setattr("pipeline.tracking.wandb_api.REACH_TIMEOUT", 0.5)
    synced = go(job)
    assert [run.state for run in synced.runs] == ["failed", "not tried", "not tried"]
    assert synced.failed == 3
    # The first run's requests, and the check whether to continue.
    assert offline.asked == ["Viewer"] * 4


@pytest.mark.parametrize(("failure", "says"), [(REFUSE, "401"), (ERROR, "500"), (HANG, "timed out")])
def test_unresponsive_server_is_a_single_error(
    job: Job, offline: WandbServer, failure: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.tracking.wandb_api.REACH_TIMEOUT", 0.5)
    offline.fail = lambda operation, body: failure
    with pytest.raises(TrackingError, match=says):
        go(job)
    assert offline.asked == ["Viewer"]


@pytest.mark.parametrize(
    ("states", "problems", "failed"),
    [
        (["uploaded", "busy", "empty"], (), 0),
        (["failed", "not tried", "uploaded"], (), 2),
        (["failed"], ("champions: away",), 2),
    ],
)
def test_synced_counts_failures(states: list[SyncState], problems: tuple[str, ...], failed: int) -> None:
    runs = tuple(SyncedRun(run=state, state=state) for state in states)
    synced = Synced(address="a", project="p", runs=runs, recorded=(), champions={}, problems=problems)
    assert synced.failed == failed


def test_missing_key_error_names_the_variable(job: Job, monkeypatch: pytest.MonkeyPatch, tracking_on: None) -> None:
    with pytest.raises(SettingsError, match="WANDB_API_KEY is not set"):
        go(job)


def test_sync_skips_a_run_in_progress(job: Job, offline: WandbServer) -> None:
    with tracked(job, "train", {}) as tracker:
        tracker.log({"loss": 1.0})
        assert [run.state for run in go(job).runs] == ["busy"]
    assert [run.state for run in go(job).runs] == ["uploaded"]


KILLED = """
import os, signal, sys
import psutil
from pipeline.job import open_job
from pipeline.settings import load_settings
from pipeline.tracking.runs import tracked

job = open_job("nsmc", settings=load_settings(), sample=True)
with tracked(job, "train", {}) as tracker:
    for step in range(int(sys.argv[1])):
        tracker.log({f"loss/{part}": float(step) for part in range(20)}, step)
    import time
    file = next(job.settings.home.rglob("run-*.wandb"))
    while int(sys.argv[1]) > 1 and file.stat().st_size < 100_000:
        time.sleep(0.1)
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("points", "state"), [(1, "empty"), (1000, "uploaded")])
def test_run_of_a_killed_stage_arrives_partially(job: Job, offline: WandbServer, points: int, state: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(points)]
    result = subprocess.run(command, cwd=ROOT, timeout=120, stdout=subprocess.PIPE, text=True)
    assert result.returncode == -signal.SIGKILL
    writers = [int(pid) for pid in result.stdout.split()]
    assert writers
    # W&B's own process keeps writing until it notices.
    eventually("nobody writes any more", lambda: not any(map(psutil.pid_exists, writers)))
    (run,) = run_directories(job.settings.home)
    if state == "uploaded":
        # The kill truncates the file at a random place; this place is within a record.
        os.truncate(run.file, 90_001)
    assert [run.state for run in go(job).runs] == [state]
    assert go(job).runs == ()
    if state == "uploaded":
        arrived = offline.find_run("nsmc-train")
        assert len(arrived.history) > 10
        assert arrived.exit_code == 1


def test_sync_uploads_data_before_dependent_runs(
    job: Job, offline: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    data = make_data(job)
    monkeypatch.setenv("WANDB_MODE", "offline")
    find_or_build(job, "train", 1, fields={}, inputs={"validated": data}, build=lambda *_: Figures())
    synced = go(job)
    assert (synced.recorded, synced.failed) == ((data.ref,), 0), synced
    assert offline.names(offline.find_run("nsmc-train").uses) == {"nsmc-data"}


def test_deleted_input_does_not_block_the_sync(job: Job, offline: WandbServer) -> None:
    data = make_data(job)
    (run,) = run_directories(job.settings.home)
    for name in ("uploaded", "linked"):
        run.mark(name)
    make_release(job, data)
    (data.path / "manifest.json").unlink()
    assert go(job).failed == 0
    assert offline.find_run("nsmc-export").uses == []


@pytest.mark.slow
def test_from_the_command_line(job: Job, offline: WandbServer) -> None:
    make_data(job)

    def saebyeok(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli", "sync", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=dict(os.environ))

    offline.fail = lambda operation, body: ERROR if operation == "UpsertBucket" else None
    failed = saebyeok("--json")
    assert failed.returncode == 1, failed.stderr
    document = json.loads(failed.stdout)
    assert (document["failed"], document["runs"][0]["state"]) == (1, "failed")
    assert offline.counts["UpsertBucket"] == 1 + RETRIES
    offline.fail = lambda operation, body: None
    done = saebyeok()
    assert done.returncode == 0, done.stderr
    assert "1 runs uploaded to team/saebyeok" in done.stdout
    assert RunDirectory(next((job.settings.home / "wandb" / "wandb").glob("offline-run-*"))).done
