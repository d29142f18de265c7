"""Rollbacks as verdicts: the model that one leaves does not come back until a person says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import bentoml
import pytest

from pipeline.deployment.bento import ensure_bento
from pipeline.deployment.deployer import rollback
from pipeline.errors import PrunedError, RefusedError, ServiceError
from pipeline.settings import Settings
from pipeline.stages.deploy import deploy
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.verdicts import Verdict, change_hold, find_verdict, model_of, record_verdict
from serving.deployed.model_store import home_models, import_release, model_tag
from tests.support.deploying import job_of, put
from tests.support.tiny_releases import TinyModel, make_decision


@pytest.fixture
def releases(settings: Settings, store: Store, light: TinyModel, no_bentos: None) -> list[Artifact]:
    """Return the releases of two deployments, the second one live."""
    made = [light.publish(store, "nsmc", key=letter * 16) for letter in "ab"]
    for release in made:
        put(settings, release, service=False)
    return made


def verdict_on(release: Artifact) -> Verdict:
    verdict = find_verdict(model_of(release))
    assert verdict is not None
    return verdict


def test_rollback_rejects_the_model_that_it_leaves(settings: Settings, store: Store, releases: list[Artifact]) -> None:
    record = rollback(settings, store, "back", by="kim")
    assert (record.intent, record.of, record.by, record.releases) == ("rollback", 1, "kim", {"nsmc": releases[0].ref})
    verdict = verdict_on(releases[1])
    assert (verdict.verdict, verdict.by, verdict.run) == ("rejected", "kim", "back")
    assert verdict.why == "rolled back from deployment 2 to 1"
    assert find_verdict(model_of(releases[0])) is None


def test_model_rolled_back_from_is_not_promoted_again(
    settings: Settings, store: Store, releases: list[Artifact], light: TinyModel
) -> None:
    rollback(settings, store, "back", by="kim")
    # A later night exports the same weights again.
    again = light.publish(store, "nsmc", key="b" * 16)
    for release in (releases[1], again):
        with pytest.raises(RefusedError, match=r"kim rejected it in run back \(rolled back from deployment 2 to 1\)"):
            put(settings, release, service=False)
    assert DeploymentLog(store).numbers() == [1, 2, 3]
    put(settings, light.publish(store, "nsmc", key="c" * 16), service=False)
    record_verdict(model_of(again), "approved", by="kim", run="r", why="the labels were wrong")
    assert put(settings, again, service=False).releases == {"nsmc": again.ref}


def test_rollback_to_a_rejected_model_approves_it(settings: Settings, store: Store, releases: list[Artifact]) -> None:
    rollback(settings, store, "back", by="kim")
    rollback(settings, store, "forward", 2, by="lee")
    verdict = verdict_on(releases[1])
    assert (verdict.verdict, verdict.by, verdict.why) == ("approved", "lee", "rolled back to deployment 2")
    assert verdict_on(releases[0]).verdict == "rejected"
    # It leads back to what was served before, by the word of a person.
    assert rollback(settings, store, "back again", by="lee").of == 1


def test_rollback_keeps_the_approval_of_a_person(settings: Settings, store: Store, releases: list[Artifact]) -> None:
    record_verdict(model_of(releases[0]), "approved", by="kim", run="r", why="the labels were wrong")
    rollback(settings, store, "back", by="lee")
    verdict = verdict_on(releases[0])
    assert (verdict.verdict, verdict.by, verdict.why) == ("approved", "kim", "the labels were wrong")


def test_rollback_to_the_live_deployment_is_refused(settings: Settings, store: Store, releases: list[Artifact]) -> None:
    with pytest.raises(RefusedError, match="deployment 2 already serves the releases of deployment 2"):
        rollback(settings, store, "nowhere", 2)
    assert DeploymentLog(store).numbers() == [1, 2]


def test_retried_rollback_needs_no_service(settings: Settings, store: Store, releases: list[Artifact]) -> None:
    assert rollback(settings, store, "back") == rollback(settings, store, "back")
    assert DeploymentLog(store).numbers() == [1, 2, 3]


def test_deployment_without_a_service_uses_no_gpu(
    settings: Settings,
    store: Store,
    releases: list[Artifact],
    light: TinyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.engine.session.cuda_devices", lambda: 1)
    model = TinyModel(shutil.copytree(light.directory, tmp_path / "model"), light.head)
    (model.directory / "model.fp16.onnx").write_bytes(b"only a GPU would load it")
    assert put(settings, model.publish(store, "nsmc", key="c" * 16), service=False).number == 3


def test_deployment_deletes_local_models_no_longer_retained(
    settings: Settings, store: Store, releases: list[Artifact], light: TinyModel
) -> None:
    settings = settings.model_copy(update={"keep_deployments": 2})
    for release in releases:
        import_release(release, settings)
    put(settings, light.publish(store, "nsmc", key="c" * 16), service=False)
    assert [str(model.tag) for model in bentoml.models.list(_model_store=home_models(settings))] == [
        model_tag(releases[1].ref)
    ]


def test_deployment_whose_bento_fails_stays_live(
    settings: Settings, store: Store, releases: list[Artifact], light: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.deployment.deployer.ensure_bento", ensure_bento)
    # A file in the place of the directory in which the Bento's files are collected.
    (settings.home / "cache").mkdir(exist_ok=True)
    (settings.home / "cache" / "bento").touch()
    third = light.publish(store, "nsmc", key="c" * 16)
    with pytest.raises(ServiceError, match=r"could not write the Bento of deployment 3: .*`saebyeok deploy` again"):
        put(settings, third, service=False)
    latest = DeploymentLog(store).latest()
    assert latest is not None
    assert (latest.number, latest.releases) == (3, {"nsmc": third.ref})


def test_release_rolled_back_from_does_not_return(
    settings: Settings, store: Store, releases: list[Artifact], light: TinyModel
) -> None:
    # The live model was exported again, for example with other bounds.
    exported = light.publish(store, "nsmc", key="b" * 16)
    put(settings, exported, service=False)
    rollback(settings, store, "back", by="kim")
    decided = make_decision(store, exported, releases[1].ref, compared=False)
    with pytest.raises(RefusedError, match=r"kim rejected it in run back \(rolled back from deployment 3 to 2\)"):
        deploy(job_of(settings), exported, decided, require_service=False)
    record_verdict(model_of(exported), "approved", by="kim", run="r")
    assert deploy(job_of(settings), exported, decided, require_service=False).releases == {"nsmc": exported.ref}


def test_rollback_to_a_deleted_release_is_undone(
    settings: Settings, store: Store, releases: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete_first(*_: object) -> None:
        # As retention does while the service loads the release.
        store.prune(releases[0])

    monkeypatch.setattr("pipeline.deployment.deployer.check_golden", delete_first)
    with pytest.raises(PrunedError, match="was pruned"):
        rollback(settings, store, "back", by="kim")
    latest = DeploymentLog(store).latest()
    assert latest is not None
    assert (latest.intent, latest.of, latest.releases) == ("undo", 3, {"nsmc": releases[1].ref})


def test_damaged_record_prevents_no_numbered_rollback(
    settings: Settings, store: Store, releases: list[Artifact], light: TinyModel
) -> None:
    put(settings, light.publish(store, "nsmc", key="c" * 16), service=False)
    (Path(store.uri) / "deployments" / "000001.json").write_text("{", encoding="utf-8")
    assert rollback(settings, store, "back", 2, by="kim").releases == {"nsmc": releases[1].ref}


def test_rollback_from_an_unreadable_model_still_works(
    settings: Settings, store: Store, releases: list[Artifact], caplog: pytest.LogCaptureFixture
) -> None:
    (Path(store.uri) / releases[1].ref / "manifest.json").write_text("{", encoding="utf-8")
    assert rollback(settings, store, "back", by="kim").releases == {"nsmc": releases[0].ref}
    (warning,) = [item.getMessage() for item in caplog.records if "no verdict" in item.getMessage()]
    assert releases[1].ref in warning


def test_hold_stops_deployments_but_no_rollback(
    settings: Settings, store: Store, releases: list[Artifact], light: TinyModel
) -> None:
    change_hold(store, "nsmc", held=True, by="kim", why="labels are being checked")
    third = light.publish(store, "nsmc", key="c" * 16)
    with pytest.raises(RefusedError, match=r"promotion of nsmc is on hold .*To resume: `saebyeok release nsmc`"):
        put(settings, third, service=False)
    # A repeated deployment of the live release is no promotion.
    assert put(settings, releases[1], service=False).number == 2
    assert rollback(settings, store, "back", by="kim").number == 3
    change_hold(store, "nsmc", held=False, by="kim", why="")
    assert put(settings, third, service=False).number == 4


def test_approved_model_with_other_labels_is_deployed(
    settings: Settings, store: Store, releases: list[Artifact], light: TinyModel
) -> None:
    third, job = light.publish(store, "nsmc", key="c" * 16), job_of(settings)
    decided = make_decision(store, third, releases[1].ref, promote=False, waivable=True)
    with pytest.raises(RefusedError, match="was refused"):
        deploy(job, third, decided, require_service=False)
    record_verdict(model_of(third), "approved", by="kim", run="r", why="the labels are new")
    record = deploy(job, third, decided, require_service=False)
    assert record.reason.startswith(
        "Promoted: kim approved it in run r (the labels are new). The champion knows another"
    )
    assert record.releases == {"nsmc": third.ref}


@pytest.mark.parametrize("answer", ["approved", "rejected", None])
def test_asked_model_is_deployed_only_once_approved(
    settings: Settings, store: Store, releases: list[Artifact], light: TinyModel, answer: str | None
) -> None:
    third = light.publish(store, "nsmc", key="c" * 16)
    record_verdict(model_of(third), "asked", by=None, run="night")
    if answer:
        record_verdict(model_of(third), answer, by="kim", run="night")  # type: ignore[arg-type]
    if answer == "approved":
        record = put(settings, third, service=False)
        # The record of the deployment names the person.
        assert (record.number, record.reason.startswith("Promoted: kim approved it in run night. ")) == (3, True)
        return
    with pytest.raises(RefusedError, match="so the model is not deployed"):
        put(settings, third, service=False)
    assert DeploymentLog(store).numbers() == [1, 2]
