"""Retention: the store stops growing, and everything that may still be needed stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bentoml
import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.deployment.bento import BENTO_NAME, bento_tag, ensure_bento, home_bentos
from pipeline.deployment.retention import PRUNED_KINDS, _best, _needs, delete_outdated, find_outdated
from pipeline.errors import ArtifactError, PrunedError, StoreError
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import Deployment, DeploymentLog
from pipeline.store.figures import EvaluationFigures, SeenData
from pipeline.store.verdicts import record_verdict
from serving.deployed.model_store import home_models, import_release, measured_file, model_tag
from tests.support.families import made, training
from tests.support.made_figures import evaluation
from tests.support.tiny_releases import TinyModel

CHAIN = ("validate", "tokenize", "train", "evaluate")
INPUT = {"tokenize": {"validated": "validate"}, "train": {"tokenized": "tokenize"}, "evaluate": {"trained": "train"}}


def night(
    store: Store,
    model: TinyModel,
    number: int,
    gate: float,
    *,
    days_ago: float = 30,
    sample: bool = True,
    recipe: str = "nsmc",
) -> Artifact:
    """Publish all artifacts of a run and deploy its release; on the gate rows of every run, its metric is `gate`."""
    made: dict[str, Artifact] = {}

    def add(kind: str, inputs: Mapping[str, str], files: Path | None = None, **figures: Any) -> Artifact:
        sources = {name: made[source] for name, source in inputs.items()}
        made[kind] = publish(store, kind, sources, number, figures, days_ago, files, recipe)
        return made[kind]

    for kind in CHAIN:
        figures = evaluation({"accuracy": gate}, sample=sample).document() if kind == "evaluate" else {}
        add(kind, INPUT.get(kind, {}), **figures)
    cards = Store(f"{store._cache}-cards", store._cache)
    files = model.publish(cards, recipe, key="a" * 16).path
    release = add("release", {"trained": "train", "evaluated": "evaluate"}, files)
    log = DeploymentLog(store)
    earlier = [store.open(ref) for ref in log.served(recipe)[:-1] if ref in store.refs("release", recipe)]
    made |= {"champion": champion} if (champion := log.champion(recipe)) else {}
    made |= {"best": max(earlier, key=metric_of)} if earlier else {}
    add("decide", {"evaluated": "evaluate"} | {name: name for name in ("champion", "best") if name in made})
    live = latest.releases if (latest := log.latest()) else {}
    log.append(live | {recipe: release.ref}, after=len(log.numbers()), run="test", reason=f"night {number}")
    return release


@pytest.mark.parametrize("recorded", [True, False], ids=["complete", "of an older version"])
def test_chain_of_started_trainings_does_not_stay(settings: Settings, store: Store, recorded: bool) -> None:
    start: Artifact | None = None
    log = DeploymentLog(store)
    for number in range(1, 9):
        tokens = made(store, "tokenize", validated=made(store, "validate"))
        figures = training(SeenData(held_out=0.1, newest=None) if recorded else None)
        inputs = {"tokenized": tokens} | ({"start": start} if start else {})
        start = made(store, "train", figures, roles={"start": "started_from"}, **inputs)
        release = made(store, "release", trained=start)
        log.append({"nsmc": release.ref}, after=number - 1, run="r", reason="r")
    kept = {ref for kind in PRUNED_KINDS for ref in store.refs(kind, "nsmc")} - outdated_refs(store, settings, days=0)
    # Of the last two deployments and the release before them. What an older model started from tells what it has seen.
    assert len([ref for ref in kept if ref.startswith("train/")]) == (3 if recorded else 8)
    assert len([ref for ref in kept if ref.startswith("validate/")]) == (3 if recorded else 8)


def test_artifact_needs_only_what_it_was_made_from(store: Store) -> None:
    evaluated, other = made(store, "evaluate"), made(store, "release")
    release = made(store, "release", roles={"best": "compared_with"}, evaluated=evaluated, best=other)
    assert _needs(release) == [evaluated.ref]


def metric_of(release: Artifact) -> float:
    return EvaluationFigures.read(release.input("evaluated")).gate["accuracy"].value


def publish(
    store: Store,
    kind: str,
    inputs: Mapping[str, Artifact],
    number: int,
    figures: Mapping[str, Any],
    days_ago: float,
    files: Path | None = None,
    recipe: str = "nsmc",
) -> Artifact:
    """Publish an artifact that is some days old; in a bucket, a new one."""
    with store.draft() as draft:
        if files is None:
            (draft / "rows.txt").write_text(f"{kind} {number}\n" * 100, encoding="utf-8")
        else:
            shutil.copytree(files, draft, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        refs = {name: {"ref": item.ref, "key": item.key} for name, item in inputs.items()}
        made = store.publish(
            draft, kind, recipe, f"{number:016d}", run=f"night-{number}", inputs=refs, fields={}, figures=figures
        )
    if not store.local:
        return made
    aged = made.manifest.model_copy(update={"created": datetime.now(UTC) - timedelta(days=days_ago)})
    manifest_of(made).write_text(aged.model_dump_json(), encoding="utf-8")
    return store.open(made.ref)


def manifest_of(artifact: Artifact) -> Path:
    """Return the path of its manifest in a local store."""
    return Path(artifact.store.uri) / artifact.ref / "manifest.json"


def outdated_refs(store: Store, settings: Settings, deployments: int = 2, days: float = 2.0) -> set[str]:
    return {artifact.ref for artifact in find_outdated(store, keep(settings, deployments, days)).artifacts}


def left(store: Store, kind: str, recipe: str = "nsmc") -> list[int]:
    """Return the numbers of the runs whose artifact of `kind` still exists."""
    return sorted(int(ref.split("/")[2]) for ref in store.refs(kind, recipe))


def keep(settings: Settings, deployments: int, days: float = 2.0) -> Settings:
    return settings.model_copy(update={"keep_deployments": deployments, "keep_days": days})


@pytest.fixture(scope="module")
def six_nights(tmp_path_factory: pytest.TempPathFactory, light: TinyModel) -> tuple[Path, list[str]]:
    """Return the directory of a store after six runs, and their releases; never change it."""
    home = tmp_path_factory.mktemp("nights")
    store = Store(str(home / "store"), home / "cache")
    gates = (0.8, 0.9, 0.7, 0.7, 0.7, 0.7)
    return home / "store", [night(store, light, number, gate).ref for number, gate in enumerate(gates, 1)]


@pytest.fixture
def nights(store: Store, six_nights: tuple[Path, list[str]]) -> list[Artifact]:
    """Return the releases of six runs; the second was the best."""
    made, releases = six_nights
    shutil.copytree(made, store.uri, dirs_exist_ok=True)
    return [store.open(ref) for ref in releases]


def test_newest_and_best_releases_stay_with_ancestors(settings: Settings, store: Store, nights: list[Artifact]) -> None:
    settings = keep(settings, 2)
    outdated = find_outdated(store, settings)
    assert outdated.deployments == (5, 6)
    assert outdated.size > 0
    delete_outdated(store, settings, outdated)
    for kind in (*CHAIN, "release"):
        assert left(store, kind) == [2, 5, 6]
    # The reason for the result of each run stays readable.
    assert left(store, "decide") == [1, 2, 3, 4, 5, 6]
    assert find_outdated(store, settings).artifacts == ()


def test_pruned_artifact_differs_from_lost_one(settings: Settings, store: Store, nights: list[Artifact]) -> None:
    delete_outdated(store, settings, find_outdated(store, keep(settings, 2)))
    with pytest.raises(PrunedError, match=r"was pruned on \d{4}-\d\d-\d\d: no retained deployment needs it"):
        store.open(nights[0].ref)
    shutil.rmtree(nights[4].path)
    with pytest.raises(ArtifactError, match="no such artifact") as caught:
        store.open(nights[4].ref)
    assert not isinstance(caught.value, PrunedError)


def test_a_size_is_reached_and_kept(settings: Settings, store: Store, light: TinyModel) -> None:
    settings, sizes = keep(settings, 3, days=0), []
    for number in range(1, 10):
        night(store, light, number, 0.5, days_ago=0)
        delete_outdated(store, settings, find_outdated(store, settings))
        sizes.append(sum(store.open(ref).size for kind in PRUNED_KINDS for ref in store.refs(kind, "nsmc")))
    assert sizes[0] < sizes[4] == sizes[-1]


def test_what_was_made_of_late_stays(settings: Settings, store: Store, light: TinyModel) -> None:
    for number, days in enumerate((9, 8, 3, 0.5), 1):
        night(store, light, number, 0.5, days_ago=days)
    # A later run was refused: nothing of it is deployed, but it has the newest artifacts of its kinds.
    publish(store, "validate", {}, 5, {}, 5)
    outdated = find_outdated(store, keep(settings, 2, days=2))
    assert {artifact.manifest.run for artifact in outdated.artifacts} == {"night-2", "night-5"}


def test_rollback_while_deleting_keeps_its_release(
    settings: Settings, store: Store, nights: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, log, prune = keep(settings, 2), DeploymentLog(store), Store.prune

    def roll_back_first(self: Store, artifact: Artifact) -> None:
        prune(self, artifact)
        if log.numbers()[-1] == 6:
            log.append({"nsmc": nights[2].ref}, after=6, run="back", reason="r", intent="rollback", of=3)

    monkeypatch.setattr(Store, "prune", roll_back_first)
    outdated = find_outdated(store, settings)
    assert nights[2].ref in {artifact.ref for artifact in outdated.artifacts}
    delete_outdated(store, settings, outdated)
    # The release of run 4 was deleted before the rollback; from then on, what deployment 7 needs is kept.
    for kind in (*CHAIN, "release"):
        assert 3 in left(store, kind)
    assert left(store, "release") == [2, 3, 5, 6]
    assert left(store, "train") == [2, 3, 5, 6]


@pytest.mark.parametrize("event", ["decision", "question"])
def test_model_that_is_needed_while_deleting_stays(
    settings: Settings, store: Store, light: TinyModel, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    # A run finds an old model again, or asks a person about it, after the search for outdated artifacts.
    trained = publish(store, "train", {}, 1, {}, 30)
    evaluated = publish(store, "evaluate", {"trained": trained}, 1, {}, 30)
    decided = publish(store, "decide", {"evaluated": evaluated}, 1, {}, 30)
    for number, gate in enumerate((0.4, 0.6, 0.5, 0.5), 2):
        night(store, light, number, gate)
    settings, prune, pruned = keep(settings, 1), Store.prune, list[str]()

    def happens_first(self: Store, artifact: Artifact) -> None:
        prune(self, artifact)
        pruned.append(artifact.ref)
        if len(pruned) > 1:
            return
        if event == "decision":
            publish(store, "decide", {"evaluated": evaluated}, 5, {}, 0)
        else:
            later = datetime.now(UTC) + timedelta(hours=1)
            record_verdict(trained, "asked", by=None, run="r", decided=decided.ref, deadline=later)

    outdated = find_outdated(store, settings)
    assert {trained.ref, evaluated.ref} <= {artifact.ref for artifact in outdated.artifacts}
    monkeypatch.setattr(Store, "prune", happens_first)
    delete_outdated(store, settings, outdated)
    # The release of run 2 is deleted first, and then all that only it needs.
    assert len(pruned) == 1 + len(CHAIN)
    assert (left(store, "train"), left(store, "evaluate")) == ([1, 3, 4, 5], [1, 3, 4, 5])


def test_best_before_every_rollback_target_stays(settings: Settings, store: Store, light: TinyModel) -> None:
    # Run 8 turns out bad in production. After a rollback to run 7, the best before it is run 1.
    releases = [night(store, light, number, gate) for number, gate in enumerate((0.9, *[0.894] * 6, 0.905, 0.903), 1)]
    settings = keep(settings, 3)
    delete_outdated(store, settings, find_outdated(store, settings))
    assert left(store, "release") == [1, 7, 8, 9]
    log = DeploymentLog(store)
    log.append({"nsmc": releases[6].ref}, after=9, run="back", reason="r", intent="rollback", of=7)
    delete_outdated(store, settings, find_outdated(store, settings))
    assert releases[0].ref in store.refs("release", "nsmc")


def test_target_of_the_next_rollback_stays(settings: Settings, store: Store, light: TinyModel) -> None:
    releases = [night(store, light, number, 0.9 if number == 1 else 0.5) for number in range(1, 7)]
    log = DeploymentLog(store)
    log.append({"nsmc": releases[2].ref}, after=6, run="back", reason="r", intent="rollback", of=3)
    settings = keep(settings, 1)
    delete_outdated(store, settings, find_outdated(store, settings))
    # Deployment 7 serves run 3; `saebyeok rollback` leads to run 2. The best release before run 3 is that of run 1, and
    # the newest decision is about those of run 5 and 6.
    assert log.one_back().number == 2
    assert left(store, "release") == [1, 2, 3, 5, 6]
    assert left(store, "train") == [1, 2, 3, 5, 6]


@pytest.mark.parametrize(
    ("days_ago", "event", "stays"),
    [(1.9, "", True), (2.1, "", False), (2.1, "question", True), (2.1, "decision", True)],
)
def test_model_of_a_decision_that_counts_stays(
    settings: Settings, store: Store, light: TinyModel, days_ago: float, event: str, stays: bool
) -> None:
    # The model of an old training is reused by a later decision; newer models and decisions follow.
    trained = publish(store, "train", {}, 1, {}, 30)
    evaluated = publish(store, "evaluate", {"trained": trained}, 1, {}, 30)
    decided = publish(store, "decide", {"evaluated": evaluated}, 1, {}, days_ago)
    for number in (2, 3):
        night(store, light, number, 0.5)
    if event == "question":
        later = datetime.now(UTC) + timedelta(hours=1)
        record_verdict(trained, "asked", by=None, run="r", decided=decided.ref, deadline=later)
    if event == "decision":
        # The newest of its recipe.
        publish(store, "decide", {"evaluated": evaluated}, 4, {}, days_ago)
    outdated = outdated_refs(store, settings, deployments=1)
    assert (trained.ref not in outdated, evaluated.ref not in outdated) == (stays, stays)


def test_unreadable_log_deletes_nothing(settings: Settings, store: Store, nights: list[Artifact]) -> None:
    (Path(store.uri) / "deployments" / "000006.json").write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"000006\.json is damaged"):
        find_outdated(store, keep(settings, 2))
    assert left(store, "release") == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_what_bentoml_has_of_it_goes_too(settings: Settings, store: Store, nights: list[Artifact]) -> None:
    log = DeploymentLog(store)
    for number in (1, 6):
        ensure_bento(settings, store, log.get(number))
        measured = measured_file(settings, nights[number - 1].ref)
        measured.parent.mkdir(parents=True, exist_ok=True)
        measured.write_text("{}", encoding="utf-8")
    delete_outdated(store, keep(settings, 2), find_outdated(store, keep(settings, 2)))
    assert [str(bento.tag) for bento in bentoml.list(BENTO_NAME, _bento_store=home_bentos(settings))] == [
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
    # The next call completes an interrupted deletion.
    store.prune(made)


def test_best_by_todays_rows_stays_and_not_the_best_figure(settings: Settings, store: Store, light: TinyModel) -> None:
    # The rows got harder after run 1, so its figure says nothing; on the rows of later runs, run 2 is the best.
    log = DeploymentLog(store)
    first = night(store, light, 1, 0.95)
    second, *later = (night(store, light, number, 0.9 - number / 100) for number in range(2, 7))
    for number, champion in enumerate(later[-2:], 11):
        compared = {"evaluated": champion.input("evaluated"), "champion": champion, "best": second}
        publish(store, "decide", compared, number, {}, 30)
    assert len(log.numbers()) == 6
    delete_outdated(store, settings, find_outdated(store, keep(settings, 2)))
    assert first.ref not in store.refs("release", "nsmc")
    assert left(store, "release") == [2, 5, 6]


def test_release_before_an_uncompared_champion_stays(settings: Settings, store: Store, light: TinyModel) -> None:
    # Nothing was compared with run 6 yet; the best before it is run 5, or the best before that.
    for number, gate in enumerate((0.7, 0.9, 0.7, 0.7, 0.95, 0.7), 1):
        night(store, light, number, gate)
    assert {1, 3, 4} == {int(ref.split("/")[2]) for ref in outdated_refs(store, settings, deployments=2)}


def test_best_release_of_the_newest_comparison_stays(settings: Settings, store: Store, light: TinyModel) -> None:
    # The first deployment does not have the recipe.
    night(store, light, 1, 0.5)
    gates = enumerate((0.4, 0.6, 0.5, 0.5), 2)
    best, *_, champion = [night(store, light, number, gate, recipe="klue-sts") for number, gate in gates]
    assert best.ref in outdated_refs(store, settings, deployments=1)
    # The newest decision compared with no earlier release.
    compared = {"evaluated": champion.input("evaluated"), "champion": champion}
    for earlier in ({"best": best}, {}):
        publish(store, "decide", compared | earlier, 7, {}, 30, recipe="klue-sts")
    assert best.ref not in outdated_refs(store, settings, deployments=1)


@pytest.mark.parametrize(
    ("best", "kept"),
    [
        ({"a2": "a0", "b2": "b0"}, ["a0", "b0"]),
        # Not compared yet: the release before, and the best before that.
        ({"a2": "a0", "b1": "b0"}, ["a0", "b1", "b0"]),
        ({"a2": "a0"}, ["a0", "b1"]),
        ({}, ["a1", "b1"]),
    ],
)
def test_best_release_before_is_that_of_every_recipe(best: dict[str, str], kept: list[str]) -> None:
    releases = ({"a": "a1", "b": "b1"}, {"a": "a2", "b": "b2"})
    path = [
        Deployment(number=number, created=datetime.now(UTC), run="r", reason="r", releases=refs)
        for number, refs in enumerate(releases, 1)
    ]
    assert list(_best(path, best)) == kept


def test_each_recipe_keeps_its_own_best_and_newest(settings: Settings, store: Store, light: TinyModel) -> None:
    for number, gate in enumerate((0.5, 0.9, 0.6, 0.7, 0.7, 0.7), 1):
        night(store, light, number, gate)
        night(store, light, number, 1 - gate, recipe="klue-sts")
    delete_outdated(store, settings, find_outdated(store, keep(settings, 2)))
    # Of twelve deployments, the last two name run 6 of both recipes, and run 5 of one. The next run compares with run 5
    # of the other one, too: no decision against run 6 has found a better release yet.
    assert left(store, "release") == [2, 5, 6]
    assert left(store, "release", "klue-sts") == [1, 5, 6]


@pytest.mark.parametrize("kind", [*CHAIN, "release", "rejected-data"])
def test_newest_of_each_kind_is_kept_however_old(
    settings: Settings, store: Store, nights: list[Artifact], kind: str
) -> None:
    # Ordered by creation time; their refs sort the other way round.
    newest = publish(store, kind, {}, 8, {}, 10)
    older = publish(store, kind, {}, 7, {}, 20)
    outdated = outdated_refs(store, settings)
    assert older.ref in outdated
    assert newest.ref not in outdated


def test_artifact_exactly_keep_days_old_is_outdated(settings: Settings, store: Store) -> None:
    minute = 1 / (24 * 60)
    ages = (2 + minute, 2 - minute, 1.0)
    made = [publish(store, "train", {}, number, {}, days) for number, days in enumerate(ages, 1)]
    assert outdated_refs(store, settings, days=2) == {made[0].ref}


def test_decisions_and_rejections_are_never_deleted(settings: Settings, store: Store) -> None:
    for kind in ("decide", "rejection"):
        for number in (1, 2):
            publish(store, kind, {}, number, {}, 400)
    assert outdated_refs(store, settings) == set()


def test_damaged_unneeded_manifest_is_not_deleted(
    settings: Settings, store: Store, nights: list[Artifact], caplog: pytest.LogCaptureFixture
) -> None:
    damaged = nights[2].input("trained")
    manifest_of(damaged).write_bytes(b"")
    outdated = find_outdated(store, keep(settings, 2))
    delete_outdated(store, settings, outdated)
    assert left(store, "train") == [2, 3, 5, 6]
    assert (Path(store.uri) / damaged.ref / "rows.txt").is_file()
    assert [record.message for record in caplog.records if "not deleted" in record.message] == [
        f"not deleted: {store.address(damaged.ref)}/manifest.json is damaged: "
        "Invalid JSON: EOF while parsing a value at line 1 column 0"
    ]


def test_damaged_old_decision_is_logged_and_stops_nothing(
    settings: Settings, store: Store, nights: list[Artifact], caplog: pytest.LogCaptureFixture
) -> None:
    expected, decided = outdated_refs(store, settings), store.open(store.refs("decide", "nsmc")[-1])
    manifest_of(decided).write_bytes(b"{")
    assert outdated_refs(store, settings) == expected != set()
    assert f"a decision cannot be read, so its inputs are not retained: {decided.uri}" in caplog.text


@pytest.mark.parametrize("kind", ["trained", None], ids=["what it was made from", "a release that is kept"])
def test_damaged_needed_manifest_deletes_nothing(
    settings: Settings, store: Store, nights: list[Artifact], kind: str | None
) -> None:
    damaged = nights[4].input(kind) if kind else nights[4]
    manifest_of(damaged).write_bytes(b"{")
    with pytest.raises(ArtifactError, match=rf"{damaged.ref}/manifest\.json is damaged"):
        find_outdated(store, keep(settings, 2))


def test_deployment_whose_release_is_gone_keeps_the_others(
    settings: Settings, store: Store, nights: list[Artifact]
) -> None:
    shutil.rmtree(nights[4].path)
    assert {ref.split("/")[2][-1] for ref in outdated_refs(store, settings)} == {"1", "3", "4", "5"}


def test_deletion_ends_with_what_others_were_made_from(
    settings: Settings, store: Store, nights: list[Artifact], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    delete_outdated(store, settings, find_outdated(store, keep(settings, 2)))
    told = [record.args[0].split("/")[0] for record in caplog.records if record.msg == "deleted %s"]  # type: ignore[index,union-attr]
    assert told == [kind for kind in ("release", *reversed(CHAIN)) for _ in range(3)]


def test_interrupted_deletion_is_completed_by_the_next(
    settings: Settings, store: Store, nights: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    import_release(nights[0], settings)
    outdated = find_outdated(store, keep(settings, 2))
    with monkeypatch.context() as patched:

        def killed(*_: object) -> None:
            raise StoreError("killed")

        patched.setattr(shutil, "rmtree", killed)
        patched.setattr("pipeline.deployment.bento.forget_models", lambda _, refs: told.extend(refs))
        told: list[str] = []
        with pytest.raises(StoreError):
            delete_outdated(store, settings, outdated)
    # The BentoML copies were deleted first. A release with undeleted files is distinguished from a lost one.
    first = outdated.artifacts[-1]
    assert set(told) == {nights[number].ref for number in (0, 2, 3)}
    assert (Path(store.uri) / first.ref / "card.json").is_file()
    with pytest.raises(PrunedError):
        store.open(first.ref)
    rest = find_outdated(store, keep(settings, 2))
    assert (rest.artifacts, rest.remains) == (outdated.artifacts[:-1], (first.ref,))
    delete_outdated(store, settings, rest)
    assert left(store, "release") == [2, 5, 6]
    assert find_outdated(store, keep(settings, 2)).remains == ()


def test_checkpoints_of_abandoned_trainings_are_deleted(settings: Settings, store: Store) -> None:
    now, days, minute = datetime.now(UTC), timedelta(days=settings.keep_days), timedelta(minutes=1)
    times = [now - days - minute, now - days + minute]
    old, new = (f"checkpoint/nsmc/key/{time:%Y%m%dT%H%M%S%f}-aB12" for time in times)
    for ref in (old, new, "checkpoint/nsmc/key/notes"):
        store.create(f"{ref}/manifest.json", b"{}")
    outdated = find_outdated(store, settings)
    assert outdated.remains == (old,)
    delete_outdated(store, settings, outdated)
    assert [f"checkpoint/nsmc/key/{name}" for name in store.list("checkpoint/nsmc/key")] == [
        new,
        "checkpoint/nsmc/key/notes",
    ]


def test_first_deployment_that_was_undone_stops_nothing(settings: Settings, store: Store, light: TinyModel) -> None:
    night(store, light, 1, 0.5)
    DeploymentLog(store).append({}, after=1, run="test", reason="undone", intent="undo", of=1)
    assert outdated_refs(store, settings) == set()


@pytest.mark.parametrize("place", ["directory", pytest.param("bucket", marks=[pytest.mark.server, pytest.mark.slow])])
def test_prune_names_and_frees_just_what_it_deletes(
    place: str,
    settings: Settings,
    light: TinyModel,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = str(tmp_path / "elsewhere") if place == "directory" else request.getfixturevalue("bucket").uri
    store = Store(uri, tmp_path / "cache")
    for number, gate in enumerate((0.8, 0.9, 0.7, 0.7), 1):
        night(store, light, number, gate)
    monkeypatch.setenv("SAEBYEOK_KEEP_DEPLOYMENTS", "2")
    monkeypatch.setenv("SAEBYEOK_KEEP_DAYS", "0")
    wanted = {ref for kind in PRUNED_KINDS for ref in store.refs(kind, "nsmc") if ref.split("/")[2].endswith("1")}
    size = sum(entry.size for ref in wanted for entry in store.open(ref).manifest.files.values())

    def prune(*options: str) -> str:
        done = CliRunner().invoke(app, ["prune", "--store", uri, *options], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    said = {f"would delete {ref} ({store.open(ref).size / 2**20:,.1f} MiB)" for ref in wanted}
    *listed, last = prune("--dry-run").splitlines()
    kept = [line for line in listed if line.startswith("would keep ")]
    assert (set(listed) - set(kept), last) == (said, f"5 artifacts, {size / 2**20:,.1f} MiB")
    # The last two deployments, and the best before them. Each artifact is listed once, with its first reason.
    reasons = [(line.split()[2], line.partition("): ")[2]) for line in kept]
    assert reasons == [
        ("10", "the newest 2 deployments (SAEBYEOK_KEEP_DEPLOYMENTS)"),
        ("5", "the best release before each of these"),
    ]
    document = json.loads(prune("--dry-run", "--json"))
    assert (document["deleted"], sum(item["artifacts"] for item in document["kept"])) == ([], 15)
    assert left(store, "train") == [1, 2, 3, 4]
    document = json.loads(prune("--json"))
    assert (set(document["deleted"]), set(document["outdated"]), document["bytes"]) == (wanted, wanted, size)
    for kind in (*CHAIN, "release"):
        assert left(store, kind) == [2, 3, 4]
    assert prune() == "0 artifacts, 0.0 MiB\n"
    night(store, light, 5, 0.6)
    assert "deleted release/nsmc/0000000000000003" in prune()
