"""Deployment and rollback on the real service."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from pipeline.deployment.bento import ensure_bento, home_bentos
from pipeline.deployment.deployer import rollback
from pipeline.deployment.service_client import ServiceClient
from pipeline.errors import (
    ArtifactError,
    ConflictError,
    GoldenMismatchError,
    RefusedError,
    SaebyeokError,
    ServiceError,
)
from pipeline.job import open_store
from pipeline.settings import Settings
from pipeline.stages.deploy import deploy
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.tracking.run_directories import run_directories
from pipeline.tracking.sync import sync
from serving.api.auth import deploy_token
from tests.support.deploying import hammering, job_of, put
from tests.support.inprocess import InProcess, in_process
from tests.support.running_service import Service, eventually, model_files, service_settings
from tests.support.tiny_releases import SENTENCES, TinyModel, make_decision
from tests.support.wandb_files import read_wandb_file
from tests.support.wandb_server import KEY, wandb_server

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("no_bentos")]

A, B, C = ("nsmc-" + letter * 16 for letter in "abc")


@pytest.fixture
def bentos(no_bentos: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build Bentos after all."""
    monkeypatch.setattr("pipeline.deployment.deployer.ensure_bento", ensure_bento)


@pytest.fixture
def here(settings: Settings) -> Iterator[InProcess]:
    """Yield a service in this process, for tests that need no process of BentoML; each takes 5 CPU seconds."""
    with in_process(settings) as service:
        yield service


@pytest.fixture
def client(here: InProcess) -> Iterator[ServiceClient]:
    with ServiceClient(here.settings.service_url) as client:
        yield client


def numbers(store: Store) -> list[int]:
    return DeploymentLog(store).numbers()


@pytest.mark.slow
def test_deployment_under_load_drops_no_request(
    service: Service,
    classifier: TinyModel,
    other_classifier: TinyModel,
) -> None:
    settings, store = service.settings, open_store(service.settings)
    first = put(settings, classifier.publish(store, "nsmc", key="a" * 16))
    assert (first.number, service.client.classify(["가"]).release) == (1, A)
    with hammering(service.settings.service_url) as seen:
        with pytest.raises(GoldenMismatchError, match="its card says"):
            put(settings, other_classifier.publish(store, "nsmc", key="b" * 16, lies=True))
        with pytest.raises(ArtifactError, match="cannot load"):
            put(settings, other_classifier.publish(store, "nsmc", key="b" * 16, breaks=True))
        assert numbers(store) == [1]
        assert service.client.releases().recipes["nsmc"].release == A
        before = len(seen)
        eventually("the champion answers", lambda: len(seen) > before)
        second = put(settings, other_classifier.publish(store, "nsmc", key="c" * 16))
        before = len(seen)
        eventually("the new one answers", lambda: len(seen) > before + 4)
    assert second.number == 2
    assert {answer.status for answer in seen} == {200}
    assert {answer.release for answer in seen} == {A, C}
    assert max(seen, key=lambda answer: answer.asked).release == C
    # Each worker polls on its own.
    eventually("nothing is staged", lambda: service.client.releases().staged == [])


def test_two_recipes_roll_back_step_by_step(
    here: InProcess,
    client: ServiceClient,
    classifier: TinyModel,
    other_classifier: TinyModel,
    sentence_encoder: TinyModel,
) -> None:
    settings, store = here.settings, here.store
    first = put(settings, classifier.publish(store, "nsmc", key="a" * 16))
    second = put(settings, sentence_encoder.publish(store, "klue-sts", key="b" * 16))
    third = put(settings, other_classifier.publish(store, "nsmc", key="c" * 16))
    assert second.releases == first.releases | {"klue-sts": second.releases["klue-sts"]}
    assert client.similarity([SENTENCES[:2]]).release == "klue-sts-" + "b" * 16
    fourth = rollback(settings, store, "first back", None)
    assert (fourth.number, fourth.releases) == (4, second.releases)
    # A retry of the same run does not go back another step.
    assert rollback(settings, store, "first back", None) == fourth
    assert client.classify(["가"]).release == A
    with pytest.raises(RefusedError, match=r"the previous deployment, 1, has no release of klue-sts.*the number 1"):
        rollback(settings, store, "second back", None)
    fifth = rollback(settings, store, "to the first", 1)
    assert fifth.releases == first.releases
    with pytest.raises(RefusedError, match="there is nothing earlier to roll back to"):
        rollback(settings, store, "third back", None)
    sixth = rollback(settings, store, "to the third", 3)
    assert (sixth.number, sixth.releases) == (6, third.releases)
    assert client.classify(["가"]).release == C
    with pytest.raises(RefusedError, match="already"):
        rollback(settings, store, "to the third again", 3)


@pytest.mark.slow
def test_two_recipes_deploying_at_once_both_go_live(
    bentos: None,
    here: InProcess,
    classifier: TinyModel,
    sentence_encoder: TinyModel,
) -> None:
    settings, store = here.settings, here.store
    releases = [
        classifier.publish(store, "nsmc", key="a" * 16),
        sentence_encoder.publish(store, "klue-sts", key="b" * 16),
    ]
    failures: list[SaebyeokError] = []

    def run(release: Artifact) -> None:
        try:
            put(settings, release)
        except SaebyeokError as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(release,)) for release in releases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    latest = DeploymentLog(store).latest()
    assert latest is not None
    assert latest.releases == {"nsmc": releases[0].ref, "klue-sts": releases[1].ref}
    assert len(home_bentos(settings).list()) == 2


@pytest.mark.slow
def test_a_bucket_joins_machines_that_share_no_disk(
    tmp_path: Path, bucket: Any, classifier: TinyModel, other_classifier: TinyModel
) -> None:
    serving = service_settings(tmp_path / "server").model_copy(update={"store": bucket.uri})
    token = deploy_token(serving)
    deploying = serving.model_copy(update={"home": tmp_path / "worker", "deploy_token": SecretStr(token)})
    store = open_store(deploying)
    service = Service(serving, env={"SAEBYEOK_STORE": bucket.uri, "SAEBYEOK_WORKERS": "1"})
    try:
        service.wait_live(workers=1)
        put(deploying, classifier.publish(store, "nsmc", key="a" * 16))
        assert service.client.classify(["가"]).release == A
        put(deploying, other_classifier.publish(store, "nsmc", key="b" * 16))
        assert service.client.classify(["가"]).release == B
    finally:
        service.stop()
    assert model_files(serving.home), "the server has copies of its own"


@pytest.fixture
def alone(settings: Settings) -> Settings:
    """Return settings with a service URL that does not answer."""
    return service_settings(settings.home)


def test_without_a_service_it_is_recorded_or_refused(
    alone: Settings,
    classifier: TinyModel,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = open_store(alone)
    release = classifier.publish(store, "nsmc", key="a" * 16)
    with pytest.raises(ServiceError, match="no service answers"):
        put(alone, release)
    assert numbers(store) == []
    caplog.set_level("INFO")
    assert put(alone, release, service=False).number == 1
    assert "when it starts" in caplog.text
    liar = classifier.publish(store, "nsmc", key="b" * 16, lies=True)
    with pytest.raises(GoldenMismatchError):
        put(alone, liar, service=False)
    assert numbers(store) == [1]


def test_a_deployment_is_a_tracked_run_too(tracking_on: None, alone: Settings, classifier: TinyModel) -> None:
    release = classifier.publish(open_store(alone), "nsmc", key="a" * 16)
    put(alone, release, service=False)
    (record,) = (alone.home / "wandb").rglob("offline-run-*/run-*.wandb")
    content = record.read_bytes()
    for part in (b"nsmc-deploy", release.ref.encode(), b"deployment"):
        assert part in content


@pytest.mark.server
def test_a_rollback_is_a_tracked_run_of_its_recipes(
    alone: Settings, light: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(alone)
    for letter in "ab":
        for recipe in ("nsmc", "klue-sts"):
            put(alone, light.publish(store, recipe, key=letter * 16), service=False)
    monkeypatch.delenv("WANDB_MODE")
    made = rollback(alone, store, "back", 2)
    (run,) = run_directories(alone.home)
    assert run.story
    assert (run.story.stage, run.story.crowns, run.story.uses) == (
        "rollback",
        True,
        (made.releases["klue-sts"], made.releases["nsmc"]),
    )
    records = read_wandb_file(run.file)
    (started,) = [record.run for record in records if record.HasField("run")]
    assert (started.display_name, started.job_type, started.run_group) == ("rollback", "rollback", "back")
    assert list(started.tags) == ["klue-sts", "nsmc"]
    assert {item.key: item.value_json for item in started.config.update}["target"] == "2"
    summary = {item.key: item.value_json for record in records for item in record.summary.update}
    assert summary.items() >= {"deployment": "5", "reason": '"rollback to deployment 2"'}.items()


@pytest.mark.slow
def test_online_the_alias_champion_follows_deployments_and_rollbacks(
    alone: Settings, classifier: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    store = open_store(alone)
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        releases = [classifier.publish(store, "nsmc", key=letter * 16) for letter in "ab"]
        assert sync(alone, store).failed == 0

        def champion() -> str:
            version = server.find_version("nsmc", "champion")
            assert version is not None
            return str(json.loads(version.metadata)["ref"])

        for release in releases:
            put(alone, release, service=False)
            assert champion() == release.ref
        rollback(alone, store, "back")
        assert champion() == releases[0].ref
        assert server.names(server.find_run("rollback").uses) == {"nsmc"}


def test_the_champion_is_not_deployed_again(
    alone: Settings,
    classifier: TinyModel,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = open_store(alone)
    release = classifier.publish(store, "nsmc", key="a" * 16)
    first = put(alone, release, service=False)
    caplog.set_level("INFO")
    stale = make_decision(store, release, None)
    assert deploy(job_of(alone), release, stale, require_service=False) == first
    assert "is already the champion" in caplog.text
    assert numbers(store) == [1]


def test_stale_foreign_or_negative_decision_deploys_nothing(
    alone: Settings,
    classifier: TinyModel,
    other_classifier: TinyModel,
) -> None:
    store, job = open_store(alone), job_of(alone)
    champion = classifier.publish(store, "nsmc", key="a" * 16)
    put(alone, champion, service=False)
    late = other_classifier.publish(store, "nsmc", key="b" * 16)
    cases: list[tuple[type[SaebyeokError], Artifact]] = [
        (ConflictError, make_decision(store, late, None)),
        (RefusedError, make_decision(store, champion, champion.ref)),
        (RefusedError, make_decision(store, late, champion.ref, promote=False)),
    ]
    for error, decision in cases:
        with pytest.raises(error):
            deploy(job, late, decision, require_service=False)
    assert numbers(store) == [1]


def test_rollback_without_deployment_is_refused(alone: Settings) -> None:
    with pytest.raises(RefusedError, match="nothing is deployed"):
        rollback(alone, open_store(alone), "test", None)
