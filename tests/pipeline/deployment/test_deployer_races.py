"""Deployments and rollbacks that race with others, fail, or are undone, on a service in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from starlette.responses import Response

from pipeline.deployment.deployer import rollback
from pipeline.errors import ArtifactError, ConflictError, GoldenMismatchError, RefusedError, ServiceError, StoreError
from pipeline.job import open_store
from pipeline.settings import Settings
from pipeline.stages.deploy import deploy
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import Deployment, DeploymentLog
from pipeline.store.verdicts import change_hold, find_verdict, model_of, record_verdict
from tests.support.deploying import before_next_record, job_of, put
from tests.support.inprocess import InProcess, in_process
from tests.support.tiny_releases import TinyModel, make_decision

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("no_bentos")]

A, B, C = (letter * 16 for letter in "abc")
STAGE, UNSTAGE, ASK, LOOK = "POST /releases/stage", "DELETE /releases/stage", "POST /classify", "GET /releases"


@pytest.fixture
def service(settings: Settings) -> Iterator[InProcess]:
    with in_process(settings) as service:
        yield service


@pytest.fixture
def store(service: InProcess) -> Store:
    return service.store


@pytest.fixture
def log(store: Store) -> DeploymentLog:
    return DeploymentLog(store)


@pytest.fixture
def champion(store: Store, log: DeploymentLog, light: TinyModel) -> Artifact:
    """Return the live release of deployment 1."""
    release = light.publish(store, "nsmc", key=A)
    record(log, nsmc=release.ref)
    return release


@pytest.fixture
def challenger(store: Store, other_light: TinyModel) -> Artifact:
    return other_light.publish(store, "nsmc", key=B)


@pytest.fixture
def third(store: Store, light: TinyModel) -> Artifact:
    """Return the release that another run deploys in the meantime."""
    return light.publish(store, "nsmc", key=C)


@pytest.fixture
def pairs(store: Store, light: TinyModel) -> Artifact:
    """Return a release of another recipe."""
    return light.publish(store, "klue-sts", key=C)


def record(log: DeploymentLog, **releases: str) -> Deployment:
    """Deploy in another run: the newest deployment with these releases changed."""
    latest = log.latest()
    merged = (latest.releases if latest else {}) | {name.replace("_", "-"): ref for name, ref in releases.items()}
    return log.append(merged, after=latest.number if latest else 0, run="another", reason="another run")


def latest(log: DeploymentLog) -> Deployment:
    found = log.latest()
    assert found is not None
    return found


def swapped(body: bytes) -> bytes:
    """Return the same answer with swapped probabilities."""
    return body.replace(b"negative", b"other").replace(b"positive", b"negative").replace(b"other", b"positive")


def test_deploy_stages_asks_records_and_asks_again(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact
) -> None:
    made = put(service.settings, challenger)
    assert (made.number, made.releases, made.run) == (2, {"nsmc": challenger.ref}, "test-run")
    asks = [ASK] * 4
    assert service.asked == [LOOK, STAGE, LOOK, *asks, LOOK, *asks, UNSTAGE]
    service.look()
    for worker in service.followers[0].source.workers():
        assert (worker.deployment, worker.staged) == (2, [])


def test_release_that_a_worker_still_unloads_is_waited_for(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact
) -> None:
    staging = service.followers[0].source.staging
    assert staging is not None

    def unload() -> None:
        """Let the workers notice now that a failed deployment has unstaged it before this one."""
        staging.remove(challenger.ref)
        service.look()
        staging.add(challenger.ref)
        service.held |= {1, 2}
        service.on(LOOK, service.held.clear)

    service.on(ASK, unload)
    put(service.settings, challenger)
    assert latest(log).releases == {"nsmc": challenger.ref}
    assert service.asked.count(ASK) == 1 + 4 + 4, "the refused one, and all golden sentences twice"


def test_champion_that_changes_while_staging_is_not_overwritten(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact, third: Artifact
) -> None:
    service.on(STAGE, lambda: record(log, nsmc=third.ref))
    with pytest.raises(ConflictError, match=f"the champion of nsmc became {third.ref} in the meantime"):
        put(service.settings, challenger)
    assert latest(log).number == 2
    assert latest(log).releases == {"nsmc": third.ref}
    assert service.asked[-1] == UNSTAGE


@pytest.mark.parametrize("word", ["rejected", "held"])
def test_word_of_a_person_while_staging_counts(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact, word: str
) -> None:
    def say() -> None:
        if word == "held":
            change_hold(service.store, "nsmc", held=True, by="kim", why="")
        else:
            record_verdict(model_of(challenger), "rejected", by="kim", run="r")

    service.on(STAGE, say)
    with pytest.raises(RefusedError, match=r"kim rejected it in run r|promotion of nsmc is on hold"):
        put(service.settings, challenger)
    assert latest(log).number == 1
    assert service.asked[-1] == UNSTAGE


def test_champion_changed_before_record_is_not_overwritten(
    service: InProcess,
    log: DeploymentLog,
    champion: Artifact,
    challenger: Artifact,
    third: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_next_record(monkeypatch, lambda: record(log, nsmc=third.ref))
    with pytest.raises(ConflictError, match="became"):
        put(service.settings, challenger)
    assert (latest(log).number, latest(log).releases) == (2, {"nsmc": third.ref})


def test_another_recipe_recorded_meanwhile_stays_live(
    service: InProcess,
    log: DeploymentLog,
    champion: Artifact,
    challenger: Artifact,
    pairs: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_next_record(monkeypatch, lambda: record(log, klue_sts=pairs.ref))
    made = put(service.settings, challenger)
    assert (made.number, made.releases) == (3, {"nsmc": challenger.ref, "klue-sts": pairs.ref})


def test_workers_that_have_moved_further_have_moved(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact, pairs: Artifact
) -> None:
    def overtaken(_: object) -> None:
        if service.asked[-1] == LOOK and latest(log).number == 2:
            record(log, klue_sts=pairs.ref)

    service.script = overtaken  # type: ignore[assignment]
    assert put(service.settings, challenger).number == 2
    assert latest(log).releases == {"nsmc": challenger.ref, "klue-sts": pairs.ref}


@pytest.mark.parametrize("broken", [{"lies": True}, {"breaks": True}], ids=str)
def test_release_that_fails_while_staged_is_never_recorded(
    service: InProcess, log: DeploymentLog, champion: Artifact, other_light: TinyModel, broken: Mapping[str, bool]
) -> None:
    bad = other_light.publish(service.store, "nsmc", key=B, **broken)
    wanted = (GoldenMismatchError, "its card says") if "lies" in broken else (ArtifactError, "worker 1 cannot load")
    with pytest.raises(wanted[0], match=wanted[1]):
        put(service.settings, bad)
    assert log.numbers() == [1]
    assert service.asked[-1] == UNSTAGE


def test_unfetched_release_raises_a_retryable_error(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(ref: str) -> None:
        raise StoreError("the bucket is away")

    monkeypatch.setattr(service.followers[1].source, "directory", away)
    with pytest.raises(ServiceError, match=r"worker 2 cannot load .*: the bucket is away") as caught:
        put(service.settings, challenger)
    assert caught.value.retryable
    assert log.numbers() == [1]


def test_other_unloadable_release_stops_no_deployment(
    service: InProcess, champion: Artifact, challenger: Artifact, light: TinyModel
) -> None:
    broken = light.publish(service.store, "nsmc", key=C, breaks=True)
    staging = service.followers[0].source.staging
    assert staging is not None
    staging.add(broken.ref)
    assert put(service.settings, challenger).number == 2


def test_staged_release_that_cannot_be_dropped_is_logged(
    service: InProcess, champion: Artifact, challenger: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    service.script = lambda request: Response(status_code=500) if request.method == "DELETE" else None
    assert put(service.settings, challenger).number == 2
    assert f"{challenger.ref} stays staged at http" in caplog.text


def test_worker_loading_too_slowly_stops_the_deployment(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact
) -> None:
    service.held = {2}
    with pytest.raises(ServiceError, match=r"workers 2 of http\S+ did not load release/nsmc/b\S+ within 0.3 s"):
        put(service.settings, challenger)
    assert log.numbers() == [1]
    assert service.asked[-1] == UNSTAGE


def test_workers_that_cannot_switch_are_named(
    service: InProcess, champion: Artifact, challenger: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise StoreError("the bucket is away")

    monkeypatch.setattr(service.followers[1].source, "latest", away)
    with pytest.raises(ServiceError, match=r"workers 2 \(the bucket is away\) of"):
        put(service.settings, challenger)


def test_service_without_workers_is_waited_for(service: InProcess, champion: Artifact, challenger: Artifact) -> None:
    service.held = {1, 2}
    for follower in service.followers:
        follower.source.close()
    with pytest.raises(ServiceError, match="workers all of"):
        put(service.settings, challenger)


def test_worker_switching_too_slowly_undoes_the_deployment(
    service: InProcess,
    log: DeploymentLog,
    champion: Artifact,
    challenger: Artifact,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service.on(ASK, lambda: service.held.add(2))
    with pytest.raises(ServiceError, match=r"workers 2 of .* did not move to deployment 2 within"):
        put(service.settings, challenger)
    assert (latest(log).number, latest(log).releases) == (3, {"nsmc": champion.ref})
    assert "deployment 3 restores the releases, but not every replica serves it yet: workers 2 of" in caplog.text


def test_undo_waits_until_users_have_the_champion_back(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    service.rewrite = swapped
    with pytest.raises(GoldenMismatchError, match="its card says"):
        put(service.settings, challenger)
    assert (latest(log).number, latest(log).releases) == (3, {"nsmc": champion.ref})
    assert latest(log).reason == f"undoes deployment 2: {challenger.ref} failed once it was live"
    assert service.asked[-2:] == [LOOK, UNSTAGE]
    assert {worker.deployment for worker in service.followers[0].source.workers()} == {3}
    assert "is recorded, but" not in caplog.text
    # The deployment that was undone is not one to go back to.
    with pytest.raises(RefusedError, match="there is nothing earlier to roll back to"):
        rollback(service.settings, service.store, "test", None)


def test_service_of_another_store_is_left_alone(
    service: InProcess, light: TinyModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = service.settings.model_copy(update={"home": tmp_path / "ours"})
    release = light.publish(open_store(ours), "nsmc", key=A)
    with pytest.raises(ServiceError, match="no service answers for"):
        put(ours, release)
    assert put(ours, release, service=False).number == 1
    assert "serves another store than" in caplog.text
    assert {worker.deployment for worker in service.followers[0].source.workers()} == {0}


def test_public_route_with_old_release_undoes_deployment(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact
) -> None:
    # The numbers are correct; only the name shows that another release answered.
    service.rewrite = lambda body: body.replace(B.encode(), A.encode())
    with pytest.raises(GoldenMismatchError, match=f"answered with release nsmc-{A} instead of nsmc-{B}"):
        put(service.settings, challenger)
    assert latest(log).releases == {"nsmc": champion.ref}


def test_first_deployment_that_fails_leaves_nothing_live(
    service: InProcess, log: DeploymentLog, challenger: Artifact
) -> None:
    service.rewrite = swapped
    with pytest.raises(GoldenMismatchError):
        put(service.settings, challenger)
    assert (latest(log).number, latest(log).releases) == (2, {})


def test_undo_leaves_alone_what_another_run_deployed(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact, third: Artifact, pairs: Artifact
) -> None:
    def cross(_: object) -> None:
        if latest(log).number == 2:
            record(log, nsmc=third.ref, klue_sts=pairs.ref)

    service.script = cross  # type: ignore[assignment]
    service.rewrite = swapped
    with pytest.raises(GoldenMismatchError):
        put(service.settings, challenger)
    assert (latest(log).number, latest(log).run) == (3, "another")


def test_undo_retries_after_a_concurrent_record(
    service: InProcess,
    log: DeploymentLog,
    champion: Artifact,
    challenger: Artifact,
    pairs: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoil(body: bytes) -> bytes:
        if latest(log).number == 2:
            before_next_record(monkeypatch, lambda: record(log, klue_sts=pairs.ref))
        return swapped(body)

    service.rewrite = spoil
    with pytest.raises(GoldenMismatchError):
        put(service.settings, challenger)
    assert (latest(log).number, latest(log).releases) == (4, {"nsmc": champion.ref, "klue-sts": pairs.ref})


def test_deployment_killed_after_its_record_is_completed(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact
) -> None:
    job, decision = job_of(service.settings), make_decision(service.store, challenger, champion.ref)
    made = record(log, nsmc=challenger.ref)
    assert deploy(job, challenger, decision, require_service=True) == made
    assert service.asked == [LOOK, UNSTAGE, LOOK, *[ASK] * 4]
    assert log.numbers() == [1, 2]


def test_completed_deployment_that_fails_is_undone(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact, pairs: Artifact
) -> None:
    job, decision = job_of(service.settings), make_decision(service.store, challenger, champion.ref)
    record(log, nsmc=challenger.ref)
    record(log, klue_sts=pairs.ref)
    service.rewrite = swapped
    with pytest.raises(GoldenMismatchError):
        deploy(job, challenger, decision, require_service=True)
    assert (latest(log).number, latest(log).releases) == (4, {"nsmc": champion.ref, "klue-sts": pairs.ref})
    assert (latest(log).of, latest(log).reason) == (2, f"undoes deployment 2: {challenger.ref} failed once it was live")


def test_completed_deployment_that_was_replaced_is_left_alone(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact, third: Artifact
) -> None:
    job, decision = job_of(service.settings), make_decision(service.store, challenger, champion.ref)
    record(log, nsmc=challenger.ref)
    service.on(UNSTAGE, lambda: record(log, nsmc=third.ref))
    with pytest.raises(GoldenMismatchError, match=f"answered with release nsmc-{C} instead of nsmc-{B}"):
        deploy(job, challenger, decision, require_service=True)
    assert (latest(log).number, latest(log).run) == (3, "another")


def test_champion_judged_against_itself_is_not_asked_again(
    service: InProcess, log: DeploymentLog, champion: Artifact
) -> None:
    service.rewrite = swapped
    assert put(service.settings, champion).number == 1
    assert ASK not in service.asked


@pytest.fixture
def two(log: DeploymentLog, champion: Artifact, challenger: Artifact) -> Deployment:
    """Return deployment 2, which can be rolled back."""
    return record(log, nsmc=challenger.ref)


def test_rollback_stages_records_and_asks(
    service: InProcess, log: DeploymentLog, two: Deployment, champion: Artifact
) -> None:
    made = rollback(service.settings, service.store, "back")
    assert (made.number, made.releases, made.run) == (3, {"nsmc": champion.ref}, "back")
    assert made.reason == "rollback to deployment 1"
    asks = [ASK] * 4
    assert service.asked == [LOOK, STAGE, LOOK, *asks, LOOK, *asks, UNSTAGE]


def test_rollback_leaves_other_recipes_alone(
    service: InProcess, log: DeploymentLog, champion: Artifact, challenger: Artifact, pairs: Artifact
) -> None:
    record(log, klue_sts=pairs.ref)
    record(log, nsmc=challenger.ref)
    made = rollback(service.settings, service.store, "back")
    assert made.releases == {"nsmc": champion.ref, "klue-sts": pairs.ref}
    assert [asked for asked in service.asked if asked != LOOK] == [STAGE, *[ASK] * 8, UNSTAGE]
    assert find_verdict(model_of(pairs)) is None
    assert find_verdict(model_of(challenger)) is not None


def test_rollback_crossed_by_a_deployment_records_nothing(
    service: InProcess, log: DeploymentLog, two: Deployment, third: Artifact
) -> None:
    service.on(STAGE, lambda: record(log, nsmc=third.ref))
    with pytest.raises(ConflictError, match="deployment 3 is live, not 2"):
        rollback(service.settings, service.store, "back")
    assert latest(log).releases == {"nsmc": third.ref}


ONE, TWO = {"nsmc": "a", "same": "a", "old": "a"}, {"nsmc": "b", "same": "a", "new": "a"}
#: Deployments by others while deployment 3 (the releases of 1) fails its check, and the live releases after the undo.
MEANWHILE: list[tuple[dict[str, str], dict[str, str]]] = [
    ({}, TWO),
    *(({recipe: "c"}, TWO | {recipe: "c"}) for recipe in ("nsmc", "same", "old", "other")),
]


@pytest.mark.parametrize(("meanwhile", "wanted"), MEANWHILE, ids=lambda item: " ".join(item or ["nothing"]))
def test_rollback_that_fails_once_live_is_put_back(
    service: InProcess,
    log: DeploymentLog,
    light: TinyModel,
    other_light: TinyModel,
    meanwhile: dict[str, str],
    wanted: dict[str, str],
) -> None:
    @cache
    def ref(recipe: str, letter: str) -> str:
        return (other_light if letter == "b" else light).publish(service.store, recipe, key=letter * 16).ref

    def named(releases: Mapping[str, str]) -> dict[str, str]:
        return {recipe: ref(recipe, letter) for recipe, letter in releases.items()}

    def cross(_: object) -> None:
        if meanwhile and latest(log).number == 3:
            record(log, **named(meanwhile))

    log.append(named(ONE), after=0, run="test", reason="one")
    log.append(named(TWO), after=1, run="test", reason="two")
    service.script = cross  # type: ignore[assignment]
    service.rewrite = swapped
    with pytest.raises(GoldenMismatchError):
        rollback(service.settings, service.store, "back", 1)
    assert latest(log).releases == named(wanted)
    assert latest(log).reason == "undoes deployment 3, which failed once it was live"
    assert latest(log).number == (5 if meanwhile else 4)


def test_undo_of_restored_rollback_records_nothing(service: InProcess, log: DeploymentLog, two: Deployment) -> None:
    def cross(_: object) -> None:
        if latest(log).number == 3:
            record(log, **two.releases)

    service.script = cross  # type: ignore[assignment]
    service.rewrite = swapped
    with pytest.raises(GoldenMismatchError):
        rollback(service.settings, service.store, "back")
    assert (latest(log).number, latest(log).run) == (4, "another")


def test_undo_of_rollback_retries_after_conflict(
    service: InProcess, log: DeploymentLog, two: Deployment, pairs: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(body: bytes) -> bytes:
        if latest(log).number == 3:
            before_next_record(monkeypatch, lambda: record(log, klue_sts=pairs.ref))
        return swapped(body)

    service.rewrite = spoil
    with pytest.raises(GoldenMismatchError):
        rollback(service.settings, service.store, "back")
    assert (latest(log).number, latest(log).releases) == (5, two.releases | {"klue-sts": pairs.ref})


def test_every_release_that_comes_back_is_asked(
    service: InProcess, log: DeploymentLog, two: Deployment, pairs: Artifact, champion: Artifact
) -> None:
    record(log, klue_sts=pairs.ref)
    log.append({"nsmc": champion.ref}, after=3, run="test", reason="both are to come back")
    service.rewrite = lambda body: swapped(body) if b"klue" in body else body
    with pytest.raises(GoldenMismatchError, match="klue-sts"):
        rollback(service.settings, service.store, "back", 3)
    assert latest(log).releases == {"nsmc": champion.ref}


def killed(log: DeploymentLog, champion: Artifact) -> Deployment:
    """Return a rollback of run `back` that was killed after its record."""
    reason = "rollback to deployment 1"
    return log.append({"nsmc": champion.ref}, after=2, run="back", reason=reason, intent="rollback", of=1)


def test_rollback_killed_after_its_record_is_completed(
    service: InProcess, log: DeploymentLog, two: Deployment, champion: Artifact
) -> None:
    made = killed(log, champion)
    assert rollback(service.settings, service.store, "back") == made
    assert service.asked == [LOOK, UNSTAGE, LOOK, *[ASK] * 4]


def test_retried_rollback_ignores_deployments_since(
    service: InProcess, log: DeploymentLog, two: Deployment, champion: Artifact, pairs: Artifact, third: Artifact
) -> None:
    made = killed(log, champion)
    record(log, klue_sts=pairs.ref)
    assert rollback(service.settings, service.store, "back") == made
    record(log, nsmc=third.ref)
    assert rollback(service.settings, service.store, "back") == made
    assert latest(log).releases == {"nsmc": third.ref, "klue-sts": pairs.ref}


def test_completed_rollback_that_fails_is_put_back(
    service: InProcess, log: DeploymentLog, two: Deployment, champion: Artifact
) -> None:
    killed(log, champion)
    service.rewrite = swapped
    with pytest.raises(GoldenMismatchError):
        rollback(service.settings, service.store, "back")
    assert (latest(log).number, latest(log).releases) == (4, two.releases)


def test_retry_of_undone_rollback_rolls_back(
    service: InProcess, log: DeploymentLog, two: Deployment, champion: Artifact
) -> None:
    service.on(ASK, lambda: service.held.add(2))
    with pytest.raises(ServiceError, match="did not move to deployment 3"):
        rollback(service.settings, service.store, "back")
    assert latest(log).releases == two.releases
    service.held.clear()
    made = rollback(service.settings, service.store, "back")
    assert (made.number, made.releases) == (5, {"nsmc": champion.ref})


def test_decision_against_a_former_champion_deploys_nothing(
    service: InProcess, log: DeploymentLog, two: Deployment, champion: Artifact, third: Artifact
) -> None:
    decision = make_decision(service.store, third, champion.ref)
    with pytest.raises(ConflictError, match="compared with release/nsmc/a"):
        deploy(job_of(service.settings), third, decision, require_service=True)
    assert log.numbers() == [1, 2]
    assert STAGE not in service.asked
