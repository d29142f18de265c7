"""Following the deployment log, one poll at a time."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ArtifactError, SaebyeokError, StoreError
from pipeline.settings import Settings
from pipeline.store.artifacts import Store
from pipeline.store.deployments import Deployment, DeploymentLog
from serving.client.responses import WorkerState
from serving.deployed.follower import LOAD_RETRY_POLLS, NOT_READY, Follower, LogSource
from serving.deployed.model_store import import_release, model_tag
from serving.deployed.worker_files import UNREADABLE, StagedList
from serving.engine.engine import EngineOptions
from tests.support.damage import damage_file, each_damage
from tests.support.running_service import eventually
from tests.support.tiny_releases import SENTENCES, TinyModel


@pytest.fixture
def follower(settings: Settings, store: Store) -> Iterator[Follower]:
    follower = Follower(LogSource(settings, store), EngineOptions(threads=1))
    yield follower
    follower.close()


def record(store: Store, releases: dict[str, str]) -> None:
    log = DeploymentLog(store)
    latest = log.latest()
    log.append(releases, after=latest.number if latest else 0, run="test", reason="test")


def test_follower_follows_the_log_and_reports(follower: Follower, store: Store, light: TinyModel) -> None:
    follower.step()
    assert follower.snapshot.deployment is None
    assert [worker.deployment for worker in follower.source.workers()] == [0]
    release = light.publish(store, "nsmc", key="a" * 16)
    record(store, {"nsmc": release.ref})
    follower.step()
    assert follower.snapshot.live["nsmc"].card.id == "nsmc-" + "a" * 16
    (worker,) = follower.source.workers()
    assert (worker.deployment, worker.live, worker.problems) == (1, {"nsmc": release.ref}, [])


def test_a_release_that_cannot_be_loaded_changes_nothing(follower: Follower, store: Store, light: TinyModel) -> None:
    good = light.publish(store, "nsmc", key="a" * 16)
    bad = light.publish(store, "nsmc", key="b" * 16, breaks=True)
    record(store, {"nsmc": good.ref})
    follower.step()
    record(store, {"nsmc": bad.ref})
    follower.step()
    assert follower.snapshot.live["nsmc"].card.id.endswith("a" * 16)
    (worker,) = follower.source.workers()
    assert worker.deployment == 1
    assert [(problem.release, problem.retryable) for problem in worker.problems] == [(bad.ref, False)]
    record(store, {"nsmc": good.ref})
    follower.step()
    (worker,) = follower.source.workers()
    assert (worker.deployment, worker.problems) == (3, [])


def test_readiness_ends_while_the_newest_deployment_cannot_be_loaded(
    follower: Follower, store: Store, light: TinyModel
) -> None:
    assert follower.unready() == NOT_READY
    good = light.publish(store, "nsmc", key="a" * 16)
    bad = light.publish(store, "nsmc", key="b" * 16, breaks=True)
    record(store, {"nsmc": good.ref})
    assert follower.source.staging is not None
    follower.source.staging.add(bad.ref)
    follower.step()
    assert follower.unready() is None, "a staged release that cannot be loaded concerns no user"
    record(store, {"nsmc": bad.ref})
    follower.step()
    assert f"deployment 2 cannot be loaded, still at deployment 1: {bad.ref}: " in str(follower.unready())
    record(store, {"nsmc": good.ref})
    follower.step()
    assert follower.unready() is None


def test_readiness_ends_after_a_time_without_the_deployments(
    settings: Settings, store: Store, light: TinyModel
) -> None:
    follower = Follower(Failing(settings, store), EngineOptions(threads=1), follow_seconds=60.0)
    record(store, {"nsmc": light.publish(store, "nsmc", key="a" * 16).ref})
    follower.step()
    assert isinstance(follower.source, Failing)
    follower.source.error = StoreError("the bucket is away")
    follower.step()
    assert follower.unready() is None
    follower._looked -= 61
    assert follower.unready() == (
        "the deployments could not be read for over 60 s, still at deployment 1: the bucket is away"
    )
    follower.source.error = None
    follower.step()
    assert follower.unready() is None
    follower.close()


def test_slow_load_of_a_release_does_not_end_readiness(settings: Settings, store: Store, light: TinyModel) -> None:
    class Slow(LogSource):
        def directory(self, ref: str) -> Path:
            if ref == slow.ref:
                follower._looked -= 200
                during.append(follower.unready())
            return super().directory(ref)

    during: list[str | None] = []
    follower = Follower(Slow(settings, store), EngineOptions(threads=1), follow_seconds=60.0)
    slow = light.publish(store, "nsmc", key="b" * 16)
    record(store, {"nsmc": light.publish(store, "nsmc", key="a" * 16).ref})
    follower.step()
    assert follower.source.staging is not None
    follower.source.staging.add(slow.ref)
    follower.step()
    assert (during, follower.unready()) == ([None], None)
    follower.close()


def test_releases_that_no_retained_deployment_names_are_deleted(
    settings: Settings, store: Store, light: TinyModel
) -> None:
    settings = settings.model_copy(update={"keep_deployments": 2})
    follower = Follower(LogSource(settings, store), EngineOptions(threads=1))
    releases = [light.publish(store, "nsmc", key=letter * 16) for letter in "abcde"]
    assert follower.source.staging is not None
    for release in releases[:4]:
        record(store, {"nsmc": release.ref})
        follower.step()
    follower.source.staging.add(releases[4].ref)
    follower.step()
    assert imported(settings) == {model_tag(release.ref) for release in releases[2:]}
    follower.source.staging.remove(releases[4].ref)
    # One more poll, because the worker's state still lists it as loaded in the first.
    follower.step()
    record(store, {"nsmc": releases[3].ref})
    follower.step()
    assert imported(settings) == {model_tag(releases[3].ref)}
    follower.close()


def imported(settings: Settings) -> set[str]:
    """Return the tags of the releases in the machine's model store."""
    models = settings.home / "bentoml" / "models"
    return {f"{path.parent.name}:{path.name}" for path in models.glob("*/*") if path.is_dir()}


def test_record_of_a_newer_version_is_named_and_not_followed(
    follower: Follower, store: Store, light: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    release = light.publish(store, "nsmc", key="a" * 16)
    record(store, {"nsmc": release.ref})
    follower.step()
    newer = json.loads(DeploymentLog(store).get(1).model_dump_json()) | {"number": 2, "format": 3, "canary": 0.1}
    store.create("deployments/000002.json", json.dumps(newer).encode())
    for _ in range(3):
        follower.step()
    assert follower.problem is not None
    assert "000002.json has format 3; version" in follower.problem
    assert follower.problem.endswith("A newer version of Saebyeok wrote it: update Saebyeok here")
    assert follower.snapshot.live["nsmc"].card.id.endswith("a" * 16)
    (warning,) = [item for item in caplog.records if item.levelname == "WARNING"]
    assert (warning.getMessage(), warning.exc_info) == (f"still at deployment 1: {follower.problem}", None)


def test_failed_release_is_loaded_again_later(
    follower: Follower, store: Store, light: TinyModel, settings: Settings
) -> None:
    release = light.publish(store, "nsmc", key="a" * 16)
    model = release.path / "model.int8.onnx"
    hidden = model.rename(model.with_suffix(".hidden"))
    record(store, {"nsmc": release.ref})
    follower.step()
    assert follower.snapshot.deployment is None
    hidden.rename(model)
    for _ in range(LOAD_RETRY_POLLS + 1):
        follower.step()
    assert follower.snapshot.deployment is not None
    assert follower.source.workers()[0].problems == []


def test_restaged_release_is_loaded_immediately(follower: Follower, store: Store, light: TinyModel) -> None:
    release = light.publish(store, "nsmc", key="a" * 16)
    model = release.path / "model.int8.onnx"
    hidden = model.rename(model.with_suffix(".hidden"))
    assert follower.source.staging is not None
    follower.source.staging.add(release.ref)
    follower.step()
    hidden.rename(model)
    follower.step()
    assert release.ref not in follower.snapshot.staged
    follower.source.staging.remove(release.ref)
    follower.step()
    follower.source.staging.add(release.ref)
    follower.step()
    assert release.ref in follower.snapshot.staged


def test_staged_releases_do_not_affect_the_live_one(
    follower: Follower, settings: Settings, store: Store, light: TinyModel, other_light: TinyModel
) -> None:
    live = light.publish(store, "nsmc", key="a" * 16)
    staged = other_light.publish(store, "nsmc", key="b" * 16)
    record(store, {"nsmc": live.ref})
    assert follower.source.staging is not None
    # By another worker of this machine.
    StagedList(settings.home / "service").add(staged.ref)
    follower.step()
    assert follower.source.workers()[0].staged == [staged.ref]
    assert follower.snapshot.live["nsmc"].card.id.endswith("a" * 16)
    loaded = follower.snapshot.staged[staged.ref]
    record(store, {"nsmc": staged.ref})
    follower.source.staging.remove(staged.ref)
    follower.step()
    assert follower.snapshot.live["nsmc"] is loaded, "it is not loaded twice"
    assert follower.source.workers()[0].staged == []


def test_the_engine_that_was_replaced_is_freed(
    follower: Follower, store: Store, light: TinyModel, other_light: TinyModel
) -> None:
    record(store, {"nsmc": light.publish(store, "nsmc", key="a" * 16).ref})
    follower.step()
    in_flight = follower.snapshot.live["nsmc"]
    gone = weakref.ref(in_flight)
    gc.disable()
    try:
        record(store, {"nsmc": other_light.publish(store, "nsmc", key="b" * 16).ref})
        follower.step()
        assert in_flight.classify(SENTENCES[:1]).shape == (1, 2), "a request in flight keeps its engine"
        del in_flight
        assert gone() is None
    finally:
        gc.enable()


def test_a_copy_that_has_changed_is_imported_again(settings: Settings, store: Store, light: TinyModel) -> None:
    release = light.publish(store, "nsmc", key="a" * 16)
    directory = import_release(release, settings)
    assert directory.is_relative_to(settings.home / "bentoml" / "models")
    assert import_release(release, settings) == directory
    (directory / "model.int8.onnx").write_bytes(b"rotten")
    assert (import_release(release, settings) / "model.int8.onnx").read_bytes() == (
        release.path / "model.int8.onnx"
    ).read_bytes()


def test_imported_release_leaves_no_download(settings: Settings, store: Store, light: TinyModel) -> None:
    release = light.publish(store, "nsmc", key="a" * 16)
    source = LogSource(settings, store)
    # As from a bucket.
    download = shutil.copytree(release.path, store._cache / "artifacts" / release.ref)
    assert (source.directory(release.ref) / "model.int8.onnx").is_file()
    assert not download.exists()
    source.close()


@pytest.mark.parametrize("ref", ["release/nsmc/key", "train/nsmc/key/attempt", "release/../../etc", "release/n/k/../x"])
def test_model_tag_accepts_only_release_refs(ref: str) -> None:
    with pytest.raises(ArtifactError, match="not the ref of a release"):
        model_tag(ref)


def test_the_workers_directory_is_below_home(follower: Follower, settings: Settings) -> None:
    follower.step()
    assert len(list((settings.home / "service" / "workers").glob("*.json"))) == 1
    follower.close()
    assert list(Path(settings.home / "service" / "workers").iterdir()) == []


@each_damage
def test_a_damaged_staged_list_stops_no_worker(
    follower: Follower, store: Store, settings: Settings, light: TinyModel, damage: str
) -> None:
    release = light.publish(store, "nsmc", key="a" * 16)
    assert follower.source.staging is not None
    follower.source.staging.add(release.ref)
    damage_file(settings.home / "service" / "staged.json", damage)
    record(store, {"nsmc": release.ref})
    follower.step()
    assert (follower.problem, follower.snapshot.deployment is not None) == (None, True)


class Failing(LogSource):
    """A source whose polls or reports raise `error` while it is set."""

    error: Exception | None = None
    deaf: Exception | None = None
    looks = 0

    def latest(self) -> Deployment | None:
        self.looks += 1
        if self.error:
            raise self.error
        return super().latest()

    def report(self, state: WorkerState) -> None:
        if self.deaf:
            raise self.deaf
        super().report(state)


@pytest.fixture
def failing(settings: Settings, store: Store) -> Iterator[Follower]:
    """A follower with a failing source."""
    follower = Follower(Failing(settings, store), EngineOptions(threads=1))
    follower.source.poll = 0.001
    yield follower
    follower.close()


ERRORS = [StoreError("the bucket is away"), OSError(5, "Input/output error"), RuntimeError("a bug"), KeyError("nsmc")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_follower_thread_outlives_any_error(
    failing: Follower, store: Store, light: TinyModel, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    source = failing.source
    assert isinstance(source, Failing)
    source.error = error
    failing.start()
    eventually("it looks again and again", lambda: source.looks > 3)
    assert failing.problem == str(error)
    (worker,) = source.workers()
    assert worker.problem == str(error)
    told = [item for item in caplog.records if "still at deployment 0" in item.message]
    assert [bool(item.exc_info) for item in told] == [not isinstance(error, SaebyeokError | OSError)]
    record(store, {"nsmc": light.publish(store, "nsmc", key="a" * 16).ref})
    source.error = None
    eventually("it follows", lambda: failing.snapshot.deployment is not None)
    eventually("it says that it does", lambda: [worker.problem for worker in source.workers()] == [None])
    eventually("its readiness says so too", lambda: failing.problem is None)


def test_recurring_error_is_logged_again(failing: Follower, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(failing.source, Failing)
    caplog.set_level("INFO")
    for error in (RuntimeError(), RuntimeError(), None, RuntimeError()):
        failing.source.error = error
        failing.step()
        assert failing.problem == ("RuntimeError" if error else None)
    told = [item.levelname for item in caplog.records if item.name == "serving.deployed.follower"]
    assert told == ["WARNING", "INFO", "WARNING"]


def test_worker_that_cannot_report_still_serves(
    failing: Follower, store: Store, light: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(failing.source, Failing)
    record(store, {"nsmc": light.publish(store, "nsmc", key="a" * 16).ref})
    failing.source.deaf = OSError(28, "No space left on device")
    for _ in range(2):
        failing.step()
    assert failing.snapshot.live["nsmc"].card.recipe == "nsmc"
    assert failing.problem == "[Errno 28] No space left on device"
    assert caplog.text.count("No space left") == 1
    assert [worker.deployment for worker in failing.source.workers()] == [0]
    failing.source.deaf = None
    failing.step()
    assert (failing.problem, [worker.deployment for worker in failing.source.workers()]) == (None, [1])


def test_a_worker_that_cannot_acknowledge_at_first_starts(settings: Settings, store: Store) -> None:
    class Deaf(Failing):
        deaf = OSError(28, "No space left on device")

    follower = Follower(Deaf(settings, store), EngineOptions(threads=1))
    (listed,) = follower.source.workers()
    assert (listed.deployment, listed.problem) == (0, UNREADABLE)
    follower.close()
