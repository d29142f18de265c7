"""Single polls of a follower: a source in memory, and engines that only have a name."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ArtifactError, StoreError
from pipeline.settings import Settings
from pipeline.store.artifacts import Store
from pipeline.store.deployments import Deployment
from pipeline.store.replicas import ReplicaRegistry
from serving.client.responses import LoadProblem, WorkerState
from serving.deployed import follower as module
from serving.deployed.follower import LOAD_RETRY_POLLS, NOT_READY, BakedSource, Follower, LogSource, Snapshot
from serving.deployed.model_store import measured_file
from serving.engine.engine import EngineOptions
from serving.engine.observer import unobserved
from tests.support.running_service import eventually

OPTIONS = EngineOptions(threads=3)
REF = f"release/nsmc/{'a' * 16}/20260101T000000000000-aB12"


@dataclass
class Staged:
    refs: list[str] = field(default_factory=list)

    def read(self) -> list[str]:
        return list(self.refs)


@dataclass
class Memory:
    """A source of which a test sets the deployment and the staged refs; it keeps the reports."""

    poll: float = 0.001
    store: str | None = None
    replica: str | None = None
    staging: Any = field(default_factory=Staged)
    deployment: Deployment | None = None
    reports: list[WorkerState] = field(default_factory=list)
    closed: int = 0
    cleaned: int = 0

    def latest(self) -> Deployment | None:
        return self.deployment

    def directory(self, ref: str) -> Path:
        return Path("/models") / ref

    def record(self, ref: str) -> Path | None:
        return Path("/rates") / ref

    def report(self, state: WorkerState) -> None:
        self.reports.append(state)

    def workers(self) -> list[WorkerState]:
        return self.reports[-1:]

    def clean(self) -> None:
        self.cleaned += 1

    def close(self) -> None:
        self.closed += 1

    def deploy(self, **releases: str) -> None:
        number = self.deployment.number + 1 if self.deployment else 1
        self.deployment = Deployment(number=number, created=datetime.now(UTC), run="r", reason="r", releases=releases)


@pytest.fixture
def source() -> Memory:
    return Memory()


class Loader:
    """Stands for `open_fastest`: an engine is the path of its release, and `errors` are raised for some."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.errors: dict[str, Exception] = {}

    def __call__(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        name = arguments[0].name
        if name in self.errors:
            raise self.errors[name]
        return f"engine {name}"

    @property
    def names(self) -> list[str]:
        return [arguments[0].name for arguments in self.calls]


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Loader:
    made = Loader()
    monkeypatch.setattr(module, "open_fastest", made)
    return made


@pytest.fixture
def follower(source: Memory, loader: Loader) -> Iterator[Follower]:
    made = Follower(source, OPTIONS)
    yield made
    made.close()


# --- sources ---


def test_bucket_is_polled_less_often_than_a_disk(settings: Settings, store: Store, tmp_path: Path) -> None:
    for where, seconds in ((store, 0.3), (Store("s3://bucket/prefix", tmp_path), 2.0)):
        source = LogSource(settings, where)
        assert (source.poll, source.store) == (seconds, where.digest)
        source.close()


def test_measured_speed_is_recorded_per_release(settings: Settings, store: Store) -> None:
    source = LogSource(settings, store)
    assert source.record(REF) == measured_file(settings, REF)
    source.close()


def test_first_worker_renews_the_record_of_the_replica(settings: Settings, store: Store) -> None:
    registry = ReplicaRegistry(store)
    first, second = (Follower(LogSource(settings, store), OPTIONS) for _ in range(2))
    first.step()
    (found,) = registry.list()
    assert (found.id, len(found.pids)) == (first.source.replica, 2)
    registry.withdraw(found.id)
    second.step()
    assert registry.list() == []
    # The first worker has taken a new id.
    (settings.home / "service" / "replica.id").write_text("a" * 16, encoding="ascii")
    second.step()
    assert second.source.replica == "a" * 16
    first.close()
    second.step()
    assert len(registry.list()) == 1
    second.close()
    assert registry.list() == []


def test_worker_that_ends_is_gone_before_another_renews_the_record(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, listed = LogSource(settings, store), list[list[WorkerState]]()
    follower = Follower(source, OPTIONS)
    follower.step()
    assert len(source.workers()) == 1
    delete = store.delete

    def withdraw(ref: str) -> None:
        listed.append(source.workers())
        delete(ref)

    monkeypatch.setattr(store, "delete", withdraw)
    follower.close()
    assert listed == [[]]
    assert ReplicaRegistry(store).list() == []


def test_one_worker_deletes_outdated_models(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(module, "delete_outdated_models", lambda *about: asked.append(about))
    sources = [LogSource(settings, store) for _ in range(2)]
    for source in sources:
        source.clean()
    assert asked == [(settings, store)]
    for source in sources:
        source.close()


def test_bento_serves_its_own_deployment_for_good(source: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    source.deploy(nsmc="a")
    assert source.deployment is not None
    baked = BakedSource(source.deployment)
    assert (baked.latest(), baked.store, baked.staging, baked.record("a")) == (source.deployment, None, None, None)
    # It never changes, so the thread of the follower sleeps.
    assert baked.poll == 3600
    monkeypatch.setattr(module, "imported_release", lambda ref: Path("/bento") / ref)
    assert baked.directory("a") == Path("/bento/a")


def test_worker_of_a_bento_knows_only_itself(source: Memory, loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "imported_release", lambda ref: Path("/bento") / ref)
    source.deploy(nsmc="a")
    assert source.deployment is not None
    baked = BakedSource(source.deployment)
    assert baked.workers() == []
    follower = Follower(baked, OPTIONS)
    follower.step()
    (state,) = baked.workers()
    assert (state.pid, state.deployment, state.live, state.staged) == (os.getpid(), 1, {"nsmc": "a"}, [])
    follower.close()


# --- loading and switching ---


def test_engines_are_opened_with_the_workers_options(source: Memory, loader: Loader) -> None:
    def observe(_: Any) -> Any:
        return None

    source.deploy(nsmc="a")
    for follower in (Follower(source, OPTIONS), Follower(source, OPTIONS, observe)):
        follower.step()
    expected = (Path("/models/a"), OPTIONS)
    assert loader.calls == [(*expected, unobserved, Path("/rates/a")), (*expected, observe, Path("/rates/a"))]


def test_deployment_waits_for_all_its_releases(source: Memory, loader: Loader, follower: Follower) -> None:
    source.deploy(nsmc="a")
    follower.step()
    source.deploy(nsmc="b", pairs="p")
    loader.errors["p"] = ArtifactError("damaged")
    follower.step()
    assert (follower.snapshot.deployment is not None and follower.snapshot.deployment.number) == 1
    assert (source.reports[-1].deployment, source.reports[-1].newest) == (1, 2)
    assert follower.snapshot.live == {"nsmc": "engine a"}
    assert follower.problem is None
    source.deploy(nsmc="b")
    follower.step()
    assert follower.snapshot == Snapshot(source.deployment, {"nsmc": "engine b"}, {})


def test_staged_release_stays_loaded_when_it_goes_live(source: Memory, loader: Loader, follower: Follower) -> None:
    source.staging.refs = ["b", "a"]
    follower.step()
    assert follower.snapshot == Snapshot(None, {}, {"b": "engine b", "a": "engine a"})
    assert list(follower.snapshot.staged) == ["b", "a"]
    source.deploy(nsmc="a")
    source.staging.refs = ["b"]
    follower.step()
    assert follower.snapshot == Snapshot(source.deployment, {"nsmc": "engine a"}, {"b": "engine b"})
    assert follower.snapshot.engines() == {"a": "engine a", "b": "engine b"}
    assert loader.names == ["a", "b"]


def test_releases_are_loaded_in_order_of_refs(source: Memory, loader: Loader, follower: Follower) -> None:
    source.staging.refs = list("cfadbe")
    follower.step()
    assert loader.names == list("abcdef")


def test_source_without_staging_is_followed(source: Memory, loader: Loader, follower: Follower) -> None:
    source.staging = None
    source.deploy(nsmc="a")
    follower.step()
    assert follower.snapshot == Snapshot(source.deployment, {"nsmc": "engine a"}, {})


def test_empty_deployment_is_served(source: Memory, loader: Loader, follower: Follower) -> None:
    source.deploy(nsmc="a")
    follower.step()
    source.deploy()
    follower.step()
    assert follower.snapshot == Snapshot(source.deployment, {}, {})
    assert source.reports[-1].live == {}


def test_snapshot_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        Snapshot().deployment = None  # type: ignore[misc]


# --- failures ---


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (OSError(5, "Input/output error"), True),
        (StoreError("away"), True),
        (ArtifactError("damaged"), False),
        (ValueError("a bug"), False),
    ],
    ids=lambda item: type(item).__name__,
)
def test_failed_load_is_reported_with_its_kind(
    source: Memory, loader: Loader, follower: Follower, error: Exception, retryable: bool
) -> None:
    source.staging.refs, loader.errors["a"] = ["a", "b"], error
    follower.step()
    problem = LoadProblem(release="a", type=type(error).__name__, message=str(error), retryable=retryable)
    assert (source.reports[-1].problems, source.reports[-1].staged) == ([problem], ["b"])
    # The release's failure is not the worker's.
    assert (source.reports[-1].problem, follower.problem) == (None, None)


def test_failed_release_rests_for_twenty_polls(source: Memory, loader: Loader, follower: Follower) -> None:
    assert LOAD_RETRY_POLLS == 20
    source.staging.refs, loader.errors["a"] = ["a"], ArtifactError("damaged")
    for polls in (1, 21, 42):
        while len(source.reports) - 1 < polls:
            follower.step()
        # At the first poll, and at each one after a rest.
        assert len(loader.calls) == {1: 1, 21: 1, 42: 2}[polls]
    follower.step()
    assert len(loader.calls) == 3
    assert len(source.reports[-1].problems) == 1


def test_release_that_loads_at_last_has_no_problem(source: Memory, loader: Loader, follower: Follower) -> None:
    source.staging.refs, loader.errors["a"] = ["a"], ArtifactError("damaged")
    follower.step()
    del loader.errors["a"]
    for _ in range(21):
        assert source.reports[-1].problems
        follower.step()
    assert (source.reports[-1].problems, source.reports[-1].staged) == ([], ["a"])
    # The next failure is the first of a new series.
    source.staging.refs = []
    follower.step()
    source.staging.refs, loader.errors["a"] = ["a"], ArtifactError("damaged again")
    follower.step()
    assert [problem.message for problem in source.reports[-1].problems] == ["damaged again"]


def test_unstaged_release_is_forgotten_with_its_problem(source: Memory, loader: Loader, follower: Follower) -> None:
    source.staging.refs, loader.errors["a"], loader.errors["b"] = ["a", "b"], OSError("a"), OSError("b")
    follower.step()
    source.staging.refs = ["b"]
    follower.step()
    assert [problem.release for problem in source.reports[-1].problems] == ["b"]
    source.staging.refs = ["a", "b"]
    follower.step()
    # Only the one that was staged again is tried at once.
    assert loader.names == ["a", "b", "a"]


# --- readiness ---


def test_unready_names_each_failed_release_of_the_newest(source: Memory, loader: Loader, follower: Follower) -> None:
    follower.step()
    assert follower.unready() == NOT_READY
    source.deploy(nsmc="a")
    follower.step()
    assert follower.unready() is None
    loader.errors |= {"b": ArtifactError("damaged"), "d": OSError("away")}
    source.deploy(nsmc="b", pairs="c", scores="d")
    follower.step()
    assert follower.unready() == "deployment 2 cannot be loaded, still at deployment 1: b: damaged; d: away"
    source.deploy(nsmc="c")
    follower.step()
    assert follower.unready() is None


def test_worker_without_a_failed_release_stays_ready(source: Memory, loader: Loader, follower: Follower) -> None:
    source.deploy(nsmc="a")
    source.staging.refs, loader.errors["b"] = ["b"], ArtifactError("damaged")
    follower.step()
    assert follower.unready() is None
    # The log has lost its last record, then all.
    first = source.deployment
    source.deploy(nsmc="a")
    follower.step()
    assert first is not None
    source.deployment = first.model_copy(update={"releases": {"nsmc": "b"}})
    follower.step()
    assert (follower.snapshot.number, follower.unready()) == (2, None)
    source.deployment = None
    follower.step()
    assert follower.unready() is None


def test_worker_that_loads_the_newest_deployment_stays_ready(
    source: Memory, loader: Loader, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.deploy(nsmc="a")
    follower.step()
    during: list[str | None] = []

    def directory(ref: str) -> Path:
        during.append(follower.unready())
        return Path("/models") / ref

    monkeypatch.setattr(source, "directory", directory)
    source.deploy(nsmc="b")
    follower.step()
    assert (during, follower.snapshot.number) == ([None], 2)


def test_readiness_of_an_empty_deployment_ends_without_the_log(source: Memory, loader: Loader) -> None:
    follower = Follower(source, OPTIONS, follow_seconds=60.0)
    source.deploy()
    follower.step()
    assert follower.unready() is None
    follower._looked -= 61
    assert follower.unready() == (
        "the deployments could not be read for over 60 s, still at deployment 1: the store does not answer"
    )


# --- reports ---


def test_worker_reports_before_its_first_poll(source: Memory, loader: Loader, follower: Follower) -> None:
    (state,) = source.reports
    assert (state.pid, state.deployment, state.live, state.staged, state.problems) == (os.getpid(), 0, {}, [], [])
    assert (state.newest, state.problem, follower.problem) == (0, None, None)
    assert loader.calls == []


def test_report_has_start_heartbeat_and_problem(source: Memory, loader: Loader, follower: Follower) -> None:
    before = datetime.now(UTC)
    follower.pid = 7
    source.latest = lambda: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    follower.step()
    first, state = source.reports
    assert first.started == state.started <= before <= state.heartbeat <= datetime.now(UTC)
    assert (state.pid, state.problem, follower.problem) == (7, "division by zero", "division by zero")


def test_move_and_its_report_are_logged_once(
    source: Memory, loader: Loader, follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source.deploy(nsmc="a")
    source.staging.refs = ["b"]
    for _ in range(2):
        follower.step()
    source.staging.refs = []
    follower.step()
    told = [item.getMessage() for item in caplog.records if item.name == "serving.deployed.follower"]
    assert told == ["serving deployment 1: {'nsmc': 'a'}", "staged: b", "staged: nothing"]
    # Only a move can make a release superfluous.
    assert source.cleaned == 2


# --- the thread ---


def test_start_polls_once_and_close_joins(source: Memory, loader: Loader) -> None:
    follower = Follower(source, OPTIONS)
    source.deploy(nsmc="a")
    seen: list[str] = []
    step = follower.step

    def watched() -> None:
        seen.append(threading.current_thread().name)
        step()

    follower.step = watched  # type: ignore[method-assign]
    follower.start()
    # A service is ready when its start returns.
    assert seen[0] == threading.current_thread().name
    assert follower.snapshot.live == {"nsmc": "engine a"}
    (thread,) = [item for item in threading.enumerate() if item.name == "follower"]
    assert thread.daemon
    eventually("the thread polls", lambda: "follower" in seen, pause=0.001)
    follower.close()
    assert not thread.is_alive()
    assert source.closed == 1


def test_follower_that_was_not_started_closes(source: Memory, loader: Loader) -> None:
    Follower(source, OPTIONS).close()
    assert source.closed == 1
