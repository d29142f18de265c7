"""The best release before the champion, and the rows that count, on artifacts made by hand."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.data.splits import place_of
from pipeline.errors import ArtifactError, BrokenModelError, StoreError
from pipeline.evaluation import champions
from pipeline.evaluation.earlier_releases import find_rivals
from pipeline.evaluation.rivals import Rivals
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.stages import decide as stage
from pipeline.stages.decide import decide
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.decisions import Decision, read_decision
from pipeline.store.deployments import DeploymentLog
from pipeline.store.figures import SeenData
from pipeline.store.verdicts import record_verdict
from tests.support.families import TASK, Family, Parrot, family, gate_table, made, serve, texts_between
from tests.support.made_figures import evaluation
from tests.support.verdicts import with_margin

REVIEWS = with_margin(load_recipe("nsmc", "embedded"), 0.02)
ROWS = 400
#: The first tenth of the places holds 150 rows, the rest up to 0.4 holds 250.
TEXTS = (*texts_between(0.0, 0.1, 150), *texts_between(0.1, 0.4, 250))


class Night:
    """A store whose models answer the gate rows, `texts`, as they were told, and count their loads."""

    def __init__(self, job: Job, texts: Sequence[str] = TEXTS) -> None:
        self.job = job
        self.texts = texts
        self.labels = np.arange(len(texts)) % 2
        self.known: dict[str, Any] = {}
        self.loaded: list[str] = []

    def release(self, right: Any, *, figure: float = 0.9, **options: Any) -> Family:
        """Publish a model that is right in the rows `right` (bool, an error, or a share of the rows).

        `figure` is its accuracy in its own run.
        """
        options = {"sample": False, "gate_share": 0.4} | options
        predictions = self.labels
        if not isinstance(right, Exception):
            predictions = np.where(self._rows(right), self.labels, 1 - self.labels)
        rates = dict.fromkeys(self.job.recipe.gate.behaviour, 1.0)
        made = family(
            self.job.store,
            figures=evaluation({"accuracy": figure, "f1": 0.9}, behaviour=rates, sample=options["sample"]),
            gate=gate_table(self.labels, predictions, self.texts),
            **options,
        )
        self.known[made.release.ref] = right if isinstance(right, Exception) else np.eye(2)[predictions]
        return made

    def served(self, *shares: Any, **options: Any) -> list[Family]:
        """Publish and serve models in turn."""
        found = [self.release(share, **options) for share in shares]
        serve(*(item.release for item in found))
        return found

    def rivals(self, ours: Family) -> Rivals:
        champion = DeploymentLog(self.job.store).champion("nsmc")
        assert champion is not None
        return find_rivals(self.job, ours.evaluated, champion)

    def decide(self, ours: Family, **recipe: Any) -> tuple[Artifact, Decision]:
        """Return the decision on a model against the live champion."""
        job = replace(self.job, recipe=self.job.recipe.model_copy(update=recipe))
        decided = decide(job, ours.evaluated, DeploymentLog(job.store).champion("nsmc"))
        return decided, read_decision(decided)

    def load(self, recipe: Recipe, release: Artifact) -> Parrot:
        self.loaded.append(release.ref)
        return Parrot(recipe, self.known[release.ref])

    def _rows(self, right: Any) -> Any:
        if not isinstance(right, float):
            return right
        # The same share of both parts of the rows.
        return np.concatenate([np.arange(size) < round(right * size) for size in (150, 250)])


@pytest.fixture
def night(make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> Night:
    return prepared(Night(make_job(REVIEWS)), monkeypatch)


def prepared(night: Night, monkeypatch: pytest.MonkeyPatch) -> Night:
    monkeypatch.setattr(champions, "load_model", night.load)
    monkeypatch.setattr(stage, "render_report", lambda *_, **__: "report")
    return night


def note(release: Artifact, why: str) -> str:
    return f"the earlier release {release.ref} {why}; the model was not compared with it"


# --- which release is the best ---


@pytest.mark.parametrize(("figure", "today"), [(0.95, 0.87), (0.8, 0.8)], ids=["easier rows then", "no better then"])
def test_small_losses_stop_at_the_margin_whatever_an_old_figure_was(night: Night, figure: float, today: float) -> None:
    # Each model is wrong in two rows more than the one before it. An old figure of easier rows hid the first of them.
    old = night.release(today, figure=figure)
    right = [np.arange(ROWS) >= ROWS - 360 + 2 * lost for lost in range(20)]
    first = night.release(right[0], figure=right[0].mean())
    serve(old.release, first.release)
    promoted = 0
    for shares in right[1:]:
        ours = night.release(shares, figure=shares.mean())
        if not night.decide(ours)[1].promote:
            break
        serve(ours.release)
        promoted += 1
    # Two nights lose 4 of 400 rows; with the third, the lower end of the interval is below the margin of 0.02.
    assert promoted == 2


def after_loss(right: Any, draw: np.random.Generator) -> Any:
    """Return the correct rows of a model that loses 0.4% of the rows, and differs on another 4% in each direction."""
    apart, lost, found = int(0.04 * len(right)), int(0.004 * len(right)), right.copy()
    found[draw.choice(np.flatnonzero(~right), apart, replace=False)] = True
    found[draw.choice(np.flatnonzero(right), apart + lost, replace=False)] = False
    return found


@pytest.mark.parametrize(("figure", "today"), [(0.95, 0.87), (0.8, 0.8)], ids=["easier rows then", "no better then"])
def test_losses_on_real_numbers_of_rows_stop_at_the_second(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, figure: float, today: float
) -> None:
    # Behind an old figure of easier rows, ten such losses were promoted, from 0.905 to 0.87.
    draw, texts = np.random.default_rng(0), texts_between(0.0, 0.4, 9_966)
    night = prepared(Night(make_job(load_recipe("nsmc", "embedded")), texts), monkeypatch)
    old, right = (draw.random(len(texts)) < share for share in (today, 0.905))
    serve(night.release(old, figure=figure).release, night.release(right, figure=right.mean()).release)
    first, lost = right.mean(), [(0.0, True)]
    while lost[-1][1]:
        right = after_loss(right, draw)
        ours = night.release(right, figure=right.mean())
        lost.append((round(first - right.mean(), 3), night.decide(ours)[1].promote))
        serve(ours.release)
    assert lost == [(0.0, True), (0.004, True), (0.008, False)]


def test_best_is_the_best_on_todays_rows(night: Night) -> None:
    # The first had 0.95 on the easier rows of its own run; today it has 0.8.
    old, new, champion = (night.release(right, figure=own) for right, own in ((0.8, 0.95), (0.9, 0.6), (0.7, 0.9)))
    serve(old.release, new.release, champion.release)
    found = night.rivals(night.release(0.9))
    assert found.best == new.release
    assert [(item.ref, round(item.value, 3)) for item in found.scores] == [
        (old.release.ref, 0.8),
        (new.release.ref, 0.9),
    ]
    assert found.answers is not None
    assert (found.answers == found.rows["label"]).mean() == pytest.approx(0.9)


def test_losses_cannot_add_up_behind_an_old_figure(night: Night) -> None:
    # Before the data got harder, the first release had 0.95; today it is worse than all others.
    night.served(0.8, figure=0.95)
    first, share = night.served(0.9)[0], 0.9
    lost = []
    for _ in range(6):
        share -= 0.01
        ours = night.release(share)
        _, decision = night.decide(ours)
        against = [check.passed for check in decision.checks if check.kind == "comparison"]
        lost.append((decision.promote, against, decision.best == first.release.ref))
        if decision.promote:
            serve(ours.release)
    # Each loses 4 of 400 rows against the model before it, which the margin of 8 rows allows.
    assert lost[0] == (True, [True, True], False)
    assert lost[1] == (False, [True, False], True)
    assert not any(promoted for promoted, _, _ in lost[1:])


def test_candidates_are_of_the_same_data(night: Night) -> None:
    (real,) = night.served(0.8)
    night.served(0.95, sample=True)
    night.served(0.7)
    assert night.rivals(night.release(0.9)).best == real.release
    assert [item.ref for item in night.rivals(night.release(0.9)).scores] == [real.release.ref]


def test_model_and_champion_are_no_candidates(night: Night) -> None:
    again, other, champion = (night.release(right) for right in (0.9, 0.8, 0.7))
    same = night.release(0.7, trained=champion.trained)
    serve(again.release, same.release, other.release, champion.release)
    ours = night.release(0.9, trained=again.trained)
    assert [item.ref for item in night.rivals(ours).scores] == [other.release.ref]
    assert night.loaded == [other.release.ref]


def test_first_of_equal_releases_is_the_best(night: Night) -> None:
    first, *_ = night.served(0.8, 0.8, 0.7)
    assert night.rivals(night.release(0.9)).best == first.release


def test_rolled_back_release_is_no_candidate(night: Night) -> None:
    first, left = night.served(0.8, 0.95)
    log = DeploymentLog(night.job.store)
    log.append({"nsmc": first.release.ref}, after=2, run="r", reason="r", intent="rollback", of=1)
    night.served(0.7)
    scores = night.rivals(night.release(0.9)).scores
    assert [item.ref for item in scores] == [first.release.ref]
    assert left.release.ref not in night.loaded


# --- releases that cannot be read ---


def test_pruned_release_is_left_out_silently(night: Night) -> None:
    pruned, kept, _ = night.served(0.9, 0.8, 0.7)
    night.job.store.prune(pruned.release)
    found = night.rivals(night.release(0.9))
    assert (found.best, found.notes) == (kept.release, ())


@pytest.mark.parametrize("how", ["answers NaN", "lost release", "lost model"])
def test_unreadable_release_is_named_and_left_out(night: Night, how: str) -> None:
    wrong = BrokenModelError("NaN") if how == "answers NaN" else 0.9
    broken, kept, _ = night.served(wrong, 0.8, 0.7, gate_share=0.4)
    # It would leave few rows, so it must not restrict them either.
    if how != "answers NaN":
        shutil.rmtree((broken.release if how == "lost release" else broken.trained).path)
    found = night.rivals(night.release(0.9))
    assert found.best == kept.release
    assert [item.ref for item in found.scores] == [kept.release.ref]
    (told,) = found.notes
    assert told.startswith(f"the earlier release {broken.release.ref} cannot be read (")
    assert found.counted.sum() == ROWS


def test_unreadable_release_restricts_no_rows(night: Night) -> None:
    night.served(BrokenModelError("NaN"), gate_share=0.1)
    night.served(0.7)
    assert night.rivals(night.release(0.9)).counted.sum() == ROWS


def test_unreadable_log_is_named(night: Night) -> None:
    *_, champion = night.served(0.9, 0.7)
    (Path(night.job.store.uri) / "deployments/000001.json").write_text("{", encoding="utf-8")
    found = find_rivals(night.job, night.release(0.9).evaluated, champion.release)
    assert found.best is None
    assert found.notes[0].startswith("the deployment log cannot be read (")


def test_unreadable_champion_is_an_error(night: Night) -> None:
    *_, champion = night.served(0.9, 0.7)
    shutil.rmtree(champion.trained.path)
    with pytest.raises(ArtifactError, match=rf"the champion {champion.release.ref} cannot be read"):
        night.rivals(night.release(0.9))


def test_unreachable_store_is_no_lost_release(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    lost, champion = night.served(0.9, 0.7)
    ours, read = night.release(0.9), Store.open

    def away(store: Store, ref: str) -> Artifact:
        if ref == lost.release.ref:
            raise StoreError("the bucket is away")
        return read(store, ref)

    monkeypatch.setattr(Store, "open", away)
    with pytest.raises(StoreError, match="the bucket is away"):
        find_rivals(night.job, ours.evaluated, champion.release)


def test_models_answer_each_row_once(night: Night) -> None:
    best, _ = night.served(0.8, 0.7)
    for _ in range(3):
        assert night.rivals(night.release(0.9)).best == best.release
    assert night.loaded == [best.release.ref]


def test_answers_of_a_pruned_release_are_forgotten(night: Night) -> None:
    pruned, *_ = night.served(0.8, 0.8, 0.7)
    night.rivals(night.release(0.9))
    files = set(night.job.settings.home.rglob("*.npz"))
    night.job.store.prune(pruned.release)
    night.rivals(night.release(0.9))
    left = set(night.job.settings.home.rglob("*.npz"))
    assert (len(files), len(left), left < files) == (2, 1, True)


# --- the rows that count ---


def test_rows_that_the_champion_was_trained_on_do_not_count(night: Night) -> None:
    # The gate share was raised from 0.1 to 0.4. The champion knows by heart what it was trained on.
    by_heart = np.concatenate([np.arange(150) < 120, np.ones(250, dtype=bool)])
    night.served(by_heart, gate_share=0.1)
    _, decision = night.decide(night.release(0.9))
    assert decision.promote, decision.reason
    (check,) = (check for check in decision.checks if check.kind == "comparison")
    assert check.estimate is not None
    assert check.estimate.value == pytest.approx(0.1)
    assert (check.model_dump()["rows"], check.model_dump()["gate_rows"]) == (150, ROWS)
    assert [(item.model, round(item.value, 3), item.held_out) for item in decision.scores] == [
        ("challenger", 0.9, 0.4),
        ("champion", 0.8, 0.1),
    ]


@pytest.mark.parametrize("whose", ["earlier", "champion", "challenger", "start of the challenger"])
def test_rows_count_that_every_compared_model_held_out(night: Night, whose: str) -> None:
    night.served(0.8, gate_share=0.1 if whose == "earlier" else 0.4)
    night.served(0.7, gate_share=0.1 if whose == "champion" else 0.4)
    seen = SeenData(held_out=0.1, newest=None) if whose == "start of the challenger" else None
    ours = night.release(0.9, gate_share=0.1 if whose == "challenger" else 0.4, seen=seen)
    found = night.rivals(ours)
    assert found.counted.tolist() == [True] * 150 + [False] * 250
    assert found.rows["text"].tolist() == list(TEXTS[:150])
    assert found.answers is not None
    assert len(found.answers) == 150


def test_near_copies_of_training_rows_do_not_count(night: Night) -> None:
    night.served(0.7, gate_share=0.1)
    ours = night.release(0.9)
    gate = pd.read_parquet(ours.evaluated.path / "gate.parquet")
    # The last row gets a near copy of the text of row 100, with a place that the champion was trained on.
    spaced = ((" " * count).join(TEXTS[100]) for count in range(1, 100))
    copy = next(text for text in spaced if 0.1 <= place_of((text,)) < 0.4)
    twin = family(night.job.store, sample=False, gate_share=0.4, gate=gate.assign(text=[*TEXTS[:-1], copy]))
    expected = np.arange(ROWS) < 150
    expected[100] = False
    assert night.rivals(twin).counted.tolist() == expected.tolist()


# --- too few rows, other labels: a person decides, once ---


def approve(decided: Artifact, ours: Family) -> None:
    record_verdict(ours.trained, "approved", by="kim", run="r", why="seen", decided=decided.ref)


def test_few_shared_rows_need_a_person_once(night: Night) -> None:
    night.served(0.8, 0.8, gate_share=0.02)
    ours = night.release(0.8)
    decided, decision = night.decide(ours)
    rows = int(night.rivals(ours).counted.sum())
    assert 0 < rows < 100
    assert (decision.promote, decision.needs_person) == (False, True)
    assert decision.reason == (
        f"Refused: only {rows} of 400 gate rows were held out of training for every compared model, and the comparison "
        "needs 100; a person must approve the model (a larger data.gate_share gives more rows to later models)."
    )
    approve(decided, ours)
    serve(ours.release)
    # The releases that the person has seen do not stop the next models.
    decision = night.decide(night.release(0.8))[1]
    assert decision.promote, decision.reason
    assert len(decision.notes) == 2
    assert "a person has approved a later model in spite of that" in decision.notes[0]
    assert [check.model_dump()["rows"] for check in decision.checks if check.kind == "comparison"] == [ROWS]


def test_unreadable_decision_hides_no_approval(night: Night) -> None:
    _, champion = night.served(0.8, 0.8, gate_share=0.02)
    ours = night.release(0.8)
    approve(night.decide(ours)[0], ours)
    serve(ours.release)
    made(night.job.store, "decide", champion=champion.release)
    decision = night.decide(night.release(0.8))[1]
    assert decision.promote
    assert ["a person has approved a later model" in told for told in decision.notes] == [True, True]


def test_without_a_shared_row_no_release_is_the_best(night: Night) -> None:
    night.served(0.9, 0.8, gate_share=0.0)
    found = night.rivals(night.release(0.8))
    assert not found.counted.any()
    assert [math.isnan(item.value) for item in found.scores] == [True]
    assert (found.best, found.answers) == (None, None)


def test_clear_loss_on_few_shared_rows_is_refused(night: Night) -> None:
    night.served(1.0, gate_share=0.02)
    ours = night.release(np.zeros(ROWS, dtype=bool))
    decision = night.decide(ours)[1]
    assert (decision.promote, decision.needs_person) == (False, False)


def test_few_rows_of_an_earlier_release_need_a_person(night: Night) -> None:
    # It is not left out for lack of rows: it might be the best.
    night.served(0.72, gate_share=0.02)
    night.served(0.7)
    decision = night.decide(night.release(0.7))[1]
    assert (decision.promote, decision.needs_person) == (False, True)


@pytest.mark.parametrize("verdict", ["approved", "rejected"])
def test_unknown_labels_of_an_earlier_release_need_a_person_once(night: Night, verdict: Any) -> None:
    night.served(0.9, fields=TASK | {"labels": ["bad", "good"]})
    night.served(0.7)
    ours = night.release(0.9)
    decided, decision = night.decide(ours)
    assert (decision.promote, decision.needs_person) == (False, True)
    assert decision.reason.startswith(
        "Refused: an earlier release knows another task (bad, good) than this model (negative, positive), so they "
        "cannot be compared; set `renamed_labels` in the recipe"
    )
    record_verdict(ours.trained, verdict, by="kim", run="r", decided=decided.ref)
    # The answer is about this model alone until it is live.
    assert not night.decide(night.release(0.9))[1].promote
    serve(ours.release)
    assert night.decide(night.release(0.9))[1].promote == (verdict == "approved")


def test_approval_leaves_comparable_releases_candidates(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first release has exactly as many rows as a comparison needs.
    texts = (*texts_between(0.0, 0.1, 100), *texts_between(0.1, 0.4, 300))
    night = prepared(Night(make_job(REVIEWS), texts), monkeypatch)
    (comparable,) = night.served(0.8, gate_share=0.1)
    night.served(0.9, fields=TASK | {"labels": ["bad", "good"]})
    ours = night.release(0.9)
    approve(night.decide(ours)[0], ours)
    serve(ours.release)
    assert [item.ref for item in night.rivals(night.release(0.9)).scores] == [comparable.release.ref]


def test_renamed_labels_are_compared(night: Night) -> None:
    old, _ = night.served(0.9, fields=TASK | {"labels": ["bad", "good"]}), night.served(0.7)
    renamed = {"bad": "negative", "good": "positive"}
    decision = night.decide(night.release(0.8), renamed_labels=renamed)[1]
    assert decision.best == old[0].release.ref
    assert not decision.promote
    assert not decision.needs_person
