"""Following the deployment log, one look at a time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.artifacts import Store
from pipeline.errors import ArtifactError
from pipeline.releases import DeploymentLog
from pipeline.settings import Settings
from serving.engine import EngineOptions
from serving.live import PATIENCE, Follower, LogSource
from serving.modelstore import import_release, model_tag
from tests.releases import SENTENCES, TinyModel


@pytest.fixture
def follower(settings: Settings, store: Store) -> Iterator[Follower]:
    follower = Follower(LogSource(settings, store), EngineOptions(threads=1))
    yield follower
    follower.close()


def record(store: Store, releases: dict[str, str]) -> None:
    log = DeploymentLog(store)
    latest = log.latest()
    log.append(releases, after=latest.number if latest else 0, run="test", reason="test")


def test_it_follows_the_log_and_says_so(follower: Follower, store: Store, classifier: TinyModel) -> None:
    follower.step()
    assert follower.snapshot.deployment is None
    assert [worker.deployment for worker in follower.source.workers()] == [0]
    release = classifier.publish(store, "nsmc", key="a" * 16)
    record(store, {"nsmc": release.ref})
    follower.step()
    assert follower.snapshot.live["nsmc"].card.id == "nsmc-" + "a" * 16
    (worker,) = follower.source.workers()
    assert (worker.deployment, worker.live, worker.problems) == (1, {"nsmc": release.ref}, [])


def test_a_release_that_cannot_be_loaded_changes_nothing(
    follower: Follower, store: Store, classifier: TinyModel
) -> None:
    good = classifier.publish(store, "nsmc", key="a" * 16)
    bad = classifier.publish(store, "nsmc", key="b" * 16, breaks=True)
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


def test_what_could_not_be_loaded_is_tried_again_later(
    follower: Follower, store: Store, classifier: TinyModel, settings: Settings
) -> None:
    release = classifier.publish(store, "nsmc", key="a" * 16)
    model = release.path / "model.int8.onnx"
    hidden = model.rename(model.with_suffix(".hidden"))
    record(store, {"nsmc": release.ref})
    follower.step()
    assert follower.snapshot.deployment is None
    hidden.rename(model)
    for _ in range(PATIENCE + 1):
        follower.step()
    assert follower.snapshot.deployment is not None
    assert follower.source.workers()[0].problems == []


def test_what_is_staged_again_is_tried_at_once(follower: Follower, store: Store, classifier: TinyModel) -> None:
    release = classifier.publish(store, "nsmc", key="a" * 16)
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


def test_staged_releases_come_and_go_beside_the_live_one(
    follower: Follower, store: Store, classifier: TinyModel, other_classifier: TinyModel
) -> None:
    live = classifier.publish(store, "nsmc", key="a" * 16)
    staged = other_classifier.publish(store, "nsmc", key="b" * 16)
    record(store, {"nsmc": live.ref})
    assert follower.source.staging is not None
    follower.source.staging.add(staged.ref)
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
    follower: Follower, store: Store, classifier: TinyModel, other_classifier: TinyModel
) -> None:
    record(store, {"nsmc": classifier.publish(store, "nsmc", key="a" * 16).ref})
    follower.step()
    in_flight = follower.snapshot.live["nsmc"]
    gone = weakref.ref(in_flight)
    gc.disable()
    try:
        record(store, {"nsmc": other_classifier.publish(store, "nsmc", key="b" * 16).ref})
        follower.step()
        assert in_flight.classify(SENTENCES[:1]).shape == (1, 2), "a request in flight keeps its engine"
        del in_flight
        assert gone() is None
    finally:
        gc.enable()


def test_a_copy_that_has_changed_is_imported_again(settings: Settings, store: Store, classifier: TinyModel) -> None:
    release = classifier.publish(store, "nsmc", key="a" * 16)
    directory = import_release(release, settings)
    assert directory.is_relative_to(settings.home / "bentoml" / "models")
    assert import_release(release, settings) == directory
    (directory / "model.int8.onnx").write_bytes(b"rotten")
    assert (import_release(release, settings) / "model.int8.onnx").read_bytes() == (
        release.path / "model.int8.onnx"
    ).read_bytes()


@pytest.mark.parametrize("ref", ["release/nsmc/key", "train/nsmc/key/attempt", "release/../../etc", "release/n/k/../x"])
def test_only_the_ref_of_a_release_names_a_model(ref: str) -> None:
    with pytest.raises(ArtifactError, match="not the ref of a release"):
        model_tag(ref)


def test_the_workers_directory_is_below_home(follower: Follower, settings: Settings) -> None:
    follower.step()
    assert len(list((settings.home / "service" / "workers").glob("*.json"))) == 1
    follower.close()
    assert list(Path(settings.home / "service" / "workers").iterdir()) == []
