"""Retention: a store stays of a size, and whatever may still be asked for is there."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bentoml
import pytest

from pipeline.artifacts import Artifact, Store
from pipeline.bento import NAME, bento_tag, ensure_bento, home_bentos
from pipeline.champions import rank_served
from pipeline.errors import ArtifactError, PrunedError
from pipeline.releases import DeploymentLog
from pipeline.retention import KINDS, delete_outdated, find_outdated
from pipeline.settings import Settings
from serving.modelstore import home_models, measured_file, model_tag
from tests.releases import TinyModel

CHAIN = ("validate", "tokenize", "train", "evaluate")
INPUT = {"tokenize": {"validated": "validate"}, "train": {"tokenized": "tokenize"}, "evaluate": {"trained": "train"}}


def night(store: Store, model: TinyModel, number: int, gate: float, *, days_ago: float = 30) -> Artifact:
    """All that a night leaves, its release deployed; its figure on the gate side is `gate`."""
    made: dict[str, Artifact] = {}
    created = datetime.now(UTC) - timedelta(days=days_ago)
    for kind in CHAIN:
        inputs = {name: made[source] for name, source in INPUT.get(kind, {}).items()}
        figures = {"gate": {"accuracy": {"value": gate}}, "sample": True} if kind == "evaluate" else {}
        made[kind] = publish(store, kind, inputs, number, figures, created)
    release = publish(
        store,
        "release",
        {"trained": made["train"], "evaluated": made["evaluate"]},
        number,
        {},
        created,
        model.publish(Store(f"{store.uri}-cards", store_cache(store)), "nsmc", key="a" * 16).path,
    )
    publish(store, "decide", {"evaluated": made["evaluate"]}, number, {}, created)
    log = DeploymentLog(store)
    log.append({"nsmc": release.ref}, after=len(log.numbers()), run="test", reason=f"night {number}")
    return release


def store_cache(store: Store) -> Path:
    return Path(f"{store.uri}-cache")


def publish(
    store: Store,
    kind: str,
    inputs: dict[str, Artifact],
    number: int,
    figures: dict[str, Any],
    created: datetime,
    files: Path | None = None,
) -> Artifact:
    with store.draft() as draft:
        if files is None:
            (draft / "rows.txt").write_text(f"{kind} {number}\n" * 100, encoding="utf-8")
        else:
            shutil.copytree(files, draft, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        refs = {name: {"ref": item.ref, "key": item.key} for name, item in inputs.items()}
        made = store.publish(
            draft, kind, "nsmc", f"{number:016d}", run=f"night-{number}", inputs=refs, fields={}, figures=figures
        )
    # It was made some days ago.
    aged = made.manifest.model_copy(update={"created": created})
    (made.path / "manifest.json").write_text(aged.model_dump_json(), encoding="utf-8")
    return store.open(made.ref)


def left(store: Store, kind: str) -> list[int]:
    """Numbers of the nights whose artifact of `kind` is there."""
    return sorted(int(ref.split("/")[2]) for ref in store.refs(kind, "nsmc"))


def keep(settings: Settings, deployments: int, days: float = 2.0) -> Settings:
    return settings.model_copy(update={"keep_deployments": deployments, "keep_days": days})


@pytest.fixture
def nights(store: Store, light: TinyModel) -> list[Artifact]:
    """Six nights; the second was the best."""
    return [night(store, light, number, gate) for number, gate in enumerate((0.8, 0.9, 0.7, 0.7, 0.7, 0.7), 1)]


def test_the_newest_deployments_and_the_best_before_them_stay_with_all_they_came_from(
    settings: Settings, store: Store, nights: list[Artifact]
) -> None:
    settings = keep(settings, 2)
    outdated = find_outdated(store, settings)
    assert outdated.deployments == (5, 6)
    assert outdated.size > 0
    delete_outdated(store, settings, outdated)
    for kind in (*CHAIN, "release"):
        assert left(store, kind) == [2, 5, 6]
    # Why each night ended as it did can always be read.
    assert left(store, "decide") == [1, 2, 3, 4, 5, 6]
    assert find_outdated(store, settings).artifacts == ()
    ranked = rank_served(store, "nsmc", "accuracy", sample=True, notes=(notes := []))
    assert [release.ref for release in ranked] == [nights[1].ref, nights[4].ref]
    assert notes == []


def test_what_was_deleted_is_told_from_what_was_lost(settings: Settings, store: Store, nights: list[Artifact]) -> None:
    delete_outdated(store, settings, find_outdated(store, keep(settings, 2)))
    with pytest.raises(PrunedError, match=r"was deleted on \d{4}-\d\d-\d\d: no deployment that is kept needs it"):
        store.open(nights[0].ref)
    shutil.rmtree(nights[4].path)
    with pytest.raises(ArtifactError, match="no such artifact") as caught:
        store.open(nights[4].ref)
    assert not isinstance(caught.value, PrunedError)
    rank_served(store, "nsmc", "accuracy", sample=True, notes=(notes := []))
    assert len(notes) == 1
    assert nights[4].ref in notes[0]


def test_a_size_is_reached_and_kept(settings: Settings, store: Store, light: TinyModel) -> None:
    settings, sizes = keep(settings, 3, days=0), []
    for number in range(1, 10):
        night(store, light, number, 0.5, days_ago=0)
        delete_outdated(store, settings, find_outdated(store, settings))
        sizes.append(sum(store.open(ref).size for kind in KINDS for ref in store.refs(kind, "nsmc")))
    assert sizes[0] < sizes[4] == sizes[-1]


def test_what_was_made_of_late_stays(settings: Settings, store: Store, light: TinyModel) -> None:
    for number, days in enumerate((9, 3, 1.5, 0.5), 1):
        night(store, light, number, 0.5, days_ago=days)
    # A later night was refused: nothing of it is deployed, and it is the newest of its kinds.
    publish(store, "validate", {}, 5, {}, datetime.now(UTC) - timedelta(days=5))
    outdated = find_outdated(store, keep(settings, 2, days=2))
    assert {artifact.manifest.run for artifact in outdated.artifacts} == {"night-2", "night-5"}


def test_nothing_is_deleted_where_the_log_cannot_be_read(
    settings: Settings, store: Store, nights: list[Artifact]
) -> None:
    (Path(store.uri) / "deployments" / "000006.json").write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"000006\.json is damaged"):
        find_outdated(store, keep(settings, 2))
    assert left(store, "release") == [1, 2, 3, 4, 5, 6]


def test_what_bentoml_has_of_it_goes_too(settings: Settings, store: Store, nights: list[Artifact]) -> None:
    log = DeploymentLog(store)
    for number in (1, 6):
        ensure_bento(settings, store, log.get(number))
        measured = measured_file(settings, nights[number - 1].ref)
        measured.parent.mkdir(parents=True, exist_ok=True)
        measured.write_text("{}", encoding="utf-8")
    delete_outdated(store, keep(settings, 2), find_outdated(store, keep(settings, 2)))
    assert [str(bento.tag) for bento in bentoml.list(NAME, _bento_store=home_bentos(settings))] == [
        bento_tag(log.get(6))
    ]
    (model,) = bentoml.models.list(_model_store=home_models(settings))
    assert str(model.tag) == model_tag(nights[5].ref)
    assert list(measured.parent.iterdir()) == [measured]


def test_a_bucket_is_pruned_as_a_directory_is(bucket: Any, tmp_path: Path) -> None:
    store = Store(bucket.uri, tmp_path / "cache")
    with store.draft() as draft:
        (draft / "rows.txt").write_text("rows", encoding="utf-8")
        made = store.publish(draft, "train", "nsmc", "0" * 16, run="test", inputs={}, fields={}, figures={})
    fetched = made.path
    store.prune(made)
    assert bucket.refs() == [f"pruned/{made.ref}"]
    assert not fetched.exists()
    with pytest.raises(PrunedError):
        store.open(made.ref)
    # A deletion that was cut off is made whole by the next one.
    store.prune(made)
