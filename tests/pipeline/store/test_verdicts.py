"""What people say about a model or a recipe; it follows the model through decisions and repeated trainings."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import ArtifactError, NewerFormatError, RefusedError
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.decisions import Decision
from pipeline.store.manifest import attempt_name
from pipeline.store.verdicts import (
    Hold,
    Verdict,
    change_hold,
    check_verdicts,
    find_bar,
    find_hold,
    find_model,
    find_verdict,
    find_waiver,
    model_of,
    open_questions,
    record_silence,
    record_verdict,
)
from tests.support.strict import check_strict
from tests.support.tiny_releases import linked, make_artifact, make_trained

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def decided_about(trained: Artifact, decision: Decision | None = None) -> Artifact:
    """Publish an evaluation of a model and a decision about it."""
    store, recipe = trained.store, trained.manifest.recipe
    evaluated = make_artifact(store, "evaluate", recipe, linked(trained=trained))
    return make_artifact(store, "decide", recipe, linked(evaluated=evaluated))


def promoting(*, promote: bool = True, champion: str | None = None, kind: str = "floor") -> Decision:
    check = {"kind": kind, "name": "accuracy", "value": 0.9, "bound": 0.8, "passed": promote}
    return Decision.model_validate(
        {"promote": promote, "reason": "r", "champion": champion, "best": None, "notes": (), "checks": (check,)}
    )


# --- verdicts ---


def test_rejection_follows_the_model_to_other_decisions(store: Store) -> None:
    trained = make_trained(store)
    first, second = decided_about(trained), decided_about(trained)
    record_verdict(model_of(first), "rejected", by="kim", run="night-1", why="it is rude", decided=first.ref)
    bar = find_bar(second, promoting())
    assert bar is not None
    assert (bar.verdict, bar.by, bar.why, bar.run, bar.trained, bar.decided) == (
        "rejected", "kim", "it is rude", "night-1", trained.ref, first.ref
    )  # fmt: skip
    assert str(bar) == "kim rejected it in run night-1 (it is rude)"
    release = make_artifact(store, "release", "nsmc", linked(trained=trained))
    assert model_of(release) == trained
    assert find_bar(decided_about(make_trained(store)), promoting()) is None


def test_same_weights_trained_again_are_the_same_model(store: Store) -> None:
    record_verdict(make_trained(store, weights="0.1 0.2"), "rejected", by="kim", run="r")
    again, other = make_trained(store, weights="0.1 0.2"), make_trained(store, weights="0.1 0.3")
    assert find_verdict(again) is not None
    assert find_verdict(other) is None
    assert find_verdict(make_trained(store, "klue-sts", "0.1 0.2")) is None


def test_rejection_outlives_new_names_and_libraries(store: Store) -> None:
    def trained(labels: str, version: str, weights: str = "0.1") -> Artifact:
        config = f'{{"id2label": {{"0": "{labels}"}}, "transformers_version": "{version}"}}'
        files = {"config.json": config, "tokenizer.json": version, "model.safetensors": weights}
        return make_artifact(store, "train", "nsmc", {}, files)

    record_verdict(trained("negative", "5.0"), "rejected", by="kim", run="r")
    assert find_verdict(trained("bad", "5.1")) is not None
    assert find_verdict(trained("negative", "5.0", weights="0.2")) is None


def test_verdict_under_the_digest_of_all_files_counts(store: Store) -> None:
    files = {"config.json": "{}", "model.safetensors": "0.1"}
    trained = make_artifact(store, "train", "nsmc", {}, files)
    # The name that versions until November 2026 gave to the folder of this model.
    digests = [(name, hashlib.sha256(content.encode()).hexdigest()) for name, content in files.items()]
    older = f"verdicts/nsmc/{hashlib.sha256(repr(digests).encode()).hexdigest()[:16]}"
    rejected = Verdict(verdict="rejected", recipe="nsmc", trained=trained.ref, by="kim", run="r", created=NOON)
    store.create(f"{older}/{attempt_name((), NOON)}.json", rejected.model_dump_json().encode())
    assert find_verdict(trained) == rejected
    approved = record_verdict(trained, "approved", by="kim", run="s")
    assert find_verdict(trained) == approved


def test_newest_verdict_counts(store: Store) -> None:
    decided = decided_about(make_trained(store))
    for verdict, barred in (("asked", True), ("approved", False), ("rejected", True), ("approved", False)):
        record_verdict(model_of(decided), verdict, by="kim", run="r")  # type: ignore[arg-type]
        assert (find_bar(decided, promoting()) is not None) == barred


@pytest.mark.parametrize(
    ("decision", "counts"),
    [
        (promoting(), True),
        (promoting(promote=False), False),
        # The champion's own model, of which this is another release.
        (promoting(champion="release/nsmc/k/1"), True),
        (promoting(champion="release/nsmc/k/1", kind="comparison"), True),
    ],
)
def test_verdict_bars_what_would_be_promoted(store: Store, decision: Decision, counts: bool) -> None:
    decided = decided_about(make_trained(store))
    record_verdict(model_of(decided), "rejected", by="kim", run="r")
    assert (find_bar(decided, decision) is not None) == counts


def test_barred_model_is_refused_with_the_way_out(store: Store) -> None:
    trained = make_trained(store)
    decided = decided_about(trained)
    check_verdicts(store, decided, promoting())
    record_verdict(trained, "rejected", by="kim", run="r")
    with pytest.raises(RefusedError) as caught:
        check_verdicts(store, decided, promoting())
    assert str(caught.value) == (
        "kim rejected it in run r, so the model is not deployed. To deploy it: `saebyeok approve nsmc --model "
        f"{trained.ref}`, then run again"
    )


@pytest.mark.parametrize(
    ("verdict", "by", "why", "said"),
    [
        ("asked", None, "", "run r asked for approval, and nobody has approved it yet"),
        ("rejected", None, "nobody answered within 12 hours", "nobody answered within 12 hours in run r"),
        ("approved", "kim", "", "kim approved it in run r"),
    ],
)
def test_verdict_is_a_sentence(store: Store, verdict: str, by: str | None, why: str, said: str) -> None:
    assert str(record_verdict(make_trained(store), verdict, by=by, run="r", why=why)) == said  # type: ignore[arg-type]


@pytest.mark.parametrize(("answer", "stays"), [("approved", True), ("rejected", True), ("asked", False), (None, False)])
def test_silence_is_recorded_unless_a_person_spoke(store: Store, answer: str | None, stays: bool) -> None:
    trained = make_trained(store)
    if answer:
        record_verdict(trained, answer, by="kim", run="night")  # type: ignore[arg-type]
    record_silence(trained, "night", "nobody answered", "decide/nsmc/k/1")
    verdict = find_verdict(trained)
    assert verdict is not None
    assert (verdict.verdict, verdict.by) == ((answer, "kim") if stays else ("rejected", None))


def test_silence_leaves_a_later_question_open(store: Store) -> None:
    trained = make_trained(store)
    for run in ("first", "second"):
        record_verdict(trained, "asked", by=None, run=run, deadline=NOON)
    record_silence(trained, "first", "nobody answered", "decide/nsmc/k/1")
    assert [question.run for question in open_questions(store, NOON - timedelta(hours=1))] == ["second"]
    record_silence(trained, "second", "nobody answered", "decide/nsmc/k/1")
    verdict = find_verdict(trained)
    assert verdict is not None
    assert (verdict.verdict, verdict.run) == ("rejected", "second")


def test_damaged_verdict_is_never_passed_over(store: Store) -> None:
    decided = decided_about(make_trained(store))
    record_verdict(model_of(decided), "rejected", by="kim", run="r")
    (path,) = Path(store.uri).glob("verdicts/nsmc/*/*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"{path.name} is damaged: Invalid JSON"):
        find_bar(decided, promoting())
    path.write_text(json.dumps(record | {"format": 2}), encoding="utf-8")
    with pytest.raises(NewerFormatError, match="has format 2"):
        find_bar(decided, promoting())


def test_records_of_people_are_strict(store: Store) -> None:
    check_strict(record_verdict(make_trained(store), "asked", by=None, run="r"))
    check_strict(change_hold(store, "nsmc", held=True, by="kim", why="w"))


# --- models that cannot be compared with the champion ---


def incomparable(*, floor_missed: bool = False) -> Decision:
    decision = promoting(promote=False, champion="release/nsmc/k/1", kind="comparison")
    (check,) = decision.checks
    missed = (check.model_copy(update={"kind": "floor"}),) if floor_missed else ()
    return decision.model_copy(update={"checks": (check.model_copy(update={"waivable": True}), *missed)})


def test_person_may_waive_a_comparison_after_the_decision(store: Store) -> None:
    trained = make_trained(store)
    record_verdict(trained, "approved", by="kim", run="before")
    decided = decided_about(trained)
    assert find_waiver(decided, incomparable()) is None
    record_verdict(trained, "rejected", by="kim", run="after")
    assert find_waiver(decided, incomparable()) is None
    assert find_bar(decided, incomparable()) is not None
    approval = record_verdict(trained, "approved", by="kim", run="after")
    assert find_waiver(decided, incomparable()) == approval
    assert find_waiver(decided, incomparable(floor_missed=True)) is None
    assert find_waiver(decided, promoting(promote=False)) is None


# --- rejections of version 0.1, which belonged to one decision ---


def old_rejection(decided: Artifact, by: str) -> Artifact:
    store = decided.store
    with store.draft() as draft:
        return store.publish(
            draft,
            "rejection",
            "nsmc",
            decided.key,
            run="old",
            inputs=linked(decided=decided),
            fields={},
            figures={"by": by},
        )


@pytest.mark.parametrize(
    ("by", "who", "said"),
    [
        ("kim rejected it", "kim", "kim rejected it in run old"),
        ("nobody answered within 12 hours", None, "nobody answered within 12 hours in run old"),
    ],
)
def test_old_rejection_counts_for_the_model(store: Store, by: str, who: str | None, said: str) -> None:
    trained = make_trained(store)
    first, second = decided_about(trained), decided_about(trained)
    old_rejection(first, by)
    verdict = find_bar(second, promoting())
    assert verdict is not None
    assert (verdict.by, verdict.decided, str(verdict)) == (who, first.ref, said)
    assert find_bar(decided_about(make_trained(store)), promoting()) is None
    record_verdict(trained, "approved", by="lee", run="new")
    assert find_bar(second, promoting()) is None


def test_old_rejection_of_a_pruned_model_is_passed_over(store: Store) -> None:
    decided = decided_about(make_trained(store))
    old_rejection(decided, "kim rejected it")
    store.prune(decided.input("evaluated"))
    assert find_verdict(make_trained(store)) is None


# --- questions ---


def test_question_is_open_until_its_deadline(store: Store) -> None:
    model, hour = make_trained(store), timedelta(hours=1)
    asked = record_verdict(model, "asked", by=None, run="r", deadline=NOON + hour)
    assert list(open_questions(store, NOON)) == [asked]
    assert list(open_questions(store, NOON + hour)) == []
    record_verdict(model, "approved", by="kim", run="r")
    assert list(open_questions(store, NOON)) == []


def test_questions_of_all_recipes_are_listed(store: Store) -> None:
    models = [make_trained(store, recipe) for recipe in ("klue-sts", "nsmc", "nsmc")]
    for model in models:
        record_verdict(model, "asked", by=None, run="r", deadline=NOON)
    listed = list(open_questions(store, NOON - timedelta(seconds=1)))
    assert {question.trained for question in listed} == {model.ref for model in models}
    assert [question.recipe for question in listed] == ["klue-sts", "nsmc", "nsmc"]


# --- the model that a person names ---


def test_model_is_the_newest_decisions_or_the_named_ones(store: Store) -> None:
    old, new = make_trained(store), make_trained(store)
    first = decided_about(old)
    decided_about(new)
    assert find_model(store, "nsmc", None) == new
    assert find_model(store, "nsmc", first.ref) == find_model(store, "nsmc", old.ref) == old
    with pytest.raises(ArtifactError, match=rf"{first.ref} belongs to recipe nsmc; name a model of klue-sts"):
        find_model(store, "klue-sts", first.ref)
    with pytest.raises(ArtifactError, match="has no decision of klue-sts yet; run `saebyeok run klue-sts` first"):
        find_model(store, "klue-sts", None)


# --- holds ---


@pytest.fixture
def held(store: Store) -> Hold:
    return change_hold(store, "nsmc", held=True, by="kim", why="labels are being checked")


def test_hold_stops_its_recipe_until_released(store: Store, held: Hold) -> None:
    assert find_hold(store, "nsmc") == held
    assert find_hold(store, "klue-sts") is None
    decided = decided_about(make_trained(store))
    since = f"{held.created:%Y-%m-%d %H:%M} UTC"
    said = f"promotion of nsmc is on hold since {since}, by kim (labels are being checked)"
    assert str(held) == said
    with pytest.raises(RefusedError) as caught:
        check_verdicts(store, decided, promoting())
    assert str(caught.value) == f"{said}. To resume: `saebyeok release nsmc`"
    assert "is not on hold since" in str(change_hold(store, "nsmc", held=False, by=None, why=""))
    assert find_hold(store, "nsmc") is None
    check_verdicts(store, decided, promoting())


def test_release_without_a_hold_is_refused(store: Store, held: Hold) -> None:
    change_hold(store, "nsmc", held=False, by="kim", why="")
    for recipe in ("nsmc", "klue-sts"):
        with pytest.raises(RefusedError, match=rf"^promotion of {recipe} is not on hold$"):
            change_hold(store, recipe, held=False, by="kim", why="")
    assert len(store.list("holds/nsmc")) == 2


def test_later_hold_replaces_the_reason(store: Store, held: Hold) -> None:
    change_hold(store, "nsmc", held=True, by="lee", why="a holiday")
    hold = find_hold(store, "nsmc")
    assert hold is not None
    assert (hold.by, hold.why) == ("lee", "a holiday")


def test_verdict_is_written_with_its_format(store: Store) -> None:
    trained = make_trained(store)
    record_verdict(trained, "rejected", by="kim", run="r")
    (path,) = Path(store.uri).glob("verdicts/nsmc/*/*.json")
    assert json.loads(path.read_text(encoding="utf-8"))["format"] == Verdict.newest_format() == 1
