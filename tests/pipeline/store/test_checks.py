"""Checks of the gate: stored as figures, shown in words."""

from __future__ import annotations

import json
import math
from datetime import date
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.store.checks import (
    AgeCheck,
    BehaviourCheck,
    Check,
    ComparisonCheck,
    EarlierModelCheck,
    SampleCheck,
    TaskCheck,
    ThresholdCheck,
    WordedCheck,
    check_document,
    reason_of,
)
from tests.support.made_figures import comparison, estimate, threshold
from tests.support.strict import check_strict

READER: TypeAdapter[Check] = TypeAdapter(Check)
FAILED: dict[str, Any] = {"value": 0.25, "bound": 0.5, "passed": False}
BEHAVIOUR = BehaviourCheck(capability="names", estimate=estimate(0.25), **FAILED)
SAMPLE = SampleCheck(value=0.0, bound=1.0, passed=False)
AGE = AgeCheck(value=-1, bound=0.0, passed=False, newest=date(2015, 8, 5), champions=date(2015, 8, 6))
EARLIER = EarlierModelCheck(value=0.0, bound=1.0, passed=False, trained="train/nsmc/k/1")
TASK = TaskCheck(value=0.0, bound=1.0, passed=False, task="bad, good", champions="negative, positive")
UNSET = ThresholdCheck(metric="accuracy", sample=False, unset=True, **FAILED)
WITHOUT_THRESHOLD = (
    "accuracy on the test file is 0.2500, and the recipe has no threshold for it (gate.floors.accuracy); "
    "`saebyeok propose-floors` derives one from several trainings"
)
#: A check with its words, of a version before decision 26.
OLD = WordedCheck(kind="floor", name="accuracy", value=math.nan, bound=0.5, passed=False, miss="no value")
BARRED = "it was trained on the shipped sample, and the champion on real data"
OLDER_DATA = "its newest data are of 2015-08-05, and the champion knows those of 2015-08-06"
REPLACED = (
    "it was trained before the champion on the same data (train/nsmc/k/1); to serve it again, roll back to its "
    "deployment (saebyeok rollback)"
)
FEW_ROWS = (
    "there are only 29 gate rows, and the comparison needs 30; a person must approve the model (a larger "
    "data.gate_share gives more rows to later models)"
)
INCOMPARABLE = (
    "the champion knows another task (negative, positive) than this model (bad, good), so they cannot be compared; set "
    "`renamed_labels` in the recipe if labels were only renamed, otherwise a person must approve the model"
)


def thin(check: ComparisonCheck) -> ComparisonCheck:
    """Return the same comparison on too few rows."""
    return check.model_copy(update={"rows": 29, "passed": False})


@pytest.mark.parametrize(
    ("check", "kind", "name", "miss"),
    [
        (threshold(0.9, 0.8), "floor", "accuracy on the test file", None),
        (BEHAVIOUR, "behaviour", "share of correct names cases", None),
        (comparison(0.125, 0.01), "comparison", "accuracy against the champion (+0.1250), at worst", None),
        (
            thin(comparison(-0.03125, 0.01, rival="best")),
            "comparison",
            "accuracy against the best before it (-0.0312), at worst",
            FEW_ROWS,
        ),
        (
            thin(comparison(0.125, 0.01)).model_copy(update={"gate_rows": 1_000}),
            "comparison",
            "accuracy against the champion (+0.1250), at worst",
            "only 29 of 1,000 gate rows were held out of training for every compared model, and the comparison needs "
            "30; a person must approve the model (a larger data.gate_share gives more rows to later models)",
        ),
        (comparison(math.nan, 0.01), "comparison", "accuracy against the champion", None),
        (SAMPLE, "comparison", "share of real data in training", BARRED),
        (AGE, "comparison", "days of data ahead of the champion's", OLDER_DATA),
        (EARLIER, "comparison", "trained after the champion", REPLACED),
        (TASK, "comparison", "same task as the champion", INCOMPARABLE),
        (
            TASK.model_copy(update={"rival": "best"}),
            "comparison",
            "same task as an earlier release",
            INCOMPARABLE.replace("the champion knows", "an earlier release knows"),
        ),
        (UNSET, "floor", "accuracy on the test file", WITHOUT_THRESHOLD),
    ],
)
def test_check_is_stored_as_figures_and_told_in_words(check: Check, kind: str, name: str, miss: str | None) -> None:
    told = check_document(check)
    assert (told["kind"], told["name"], told["miss"]) == (kind, name, miss)
    assert list(told) == ["kind", "name", "value", "bound", "passed", "estimate", "miss", "waivable"]
    written = check.model_dump_json()
    assert not {"kind", "name", "miss", "waivable"} & set(json.loads(written)), "words"
    assert told["waivable"] == (miss is not None and "a person must approve the model" in miss)
    read = READER.validate_json(written)
    assert type(read) is type(check)
    assert read.model_dump_json() == written


def test_check_of_an_older_version_keeps_its_words() -> None:
    check_strict(OLD)
    read = READER.validate_json(OLD.model_dump_json())
    assert check_document(read) == pytest.approx(check_document(OLD), nan_ok=True)
    assert (read.kind, read.name, read.miss, read.waivable) == ("floor", "accuracy", "no value", False)
    assert math.isnan(read.value)
    for kind in ("floor", "behaviour", "comparison"):
        assert READER.validate_json(OLD.model_copy(update={"kind": kind}).model_dump_json()).kind == kind


def test_check_document_has_the_interval_or_none() -> None:
    assert check_document(BEHAVIOUR)["estimate"] == estimate(0.25)
    assert check_document(SAMPLE)["estimate"] is None


def test_metric_is_named_with_its_file() -> None:
    names = [
        ThresholdCheck(metric=metric, sample=sample, new_texts=metric == "f1", **FAILED).name
        for metric in ("accuracy", "f1", "pearson")
        for sample in (False, True)
    ]
    assert names == [
        "accuracy on the test file",
        "accuracy on the sample's test file",
        "F1 on new texts of the test file",
        "F1 on new texts of the sample's test file",
        "Pearson r on the test file",
        "Pearson r on the sample's test file",
    ]


def test_thirty_rows_are_enough_for_a_comparison() -> None:
    check = thin(comparison(0.125, 0.01))
    assert check.miss is not None
    assert check.model_copy(update={"rows": 30}).miss is None


def test_few_rows_of_more_name_both_numbers() -> None:
    few = thin(comparison(0.125, 0.01))
    told = [few.model_copy(update={"gate_rows": rows}).miss for rows in (29, 30)]
    assert [miss and miss.partition(" gate rows")[0] for miss in told] == ["there are only 29", "only 29 of 30"]


def test_clear_loss_on_few_rows_is_no_lack_of_rows() -> None:
    # The whole interval is below minus the margin, so more rows would not help.
    worse, unsure = (thin(comparison(difference, 0.01)) for difference in (-0.08, -0.06))
    assert (worse.waivable, worse.miss) == (False, None)
    assert unsure.waivable
    # The upper end is the margin itself.
    assert thin(comparison(-0.125, 0.0625)).waivable
    assert not thin(comparison(0.5, 0.01)).model_copy(update={"passed": True}).waivable
    without_value = thin(comparison(math.nan, 0.01))
    assert without_value.waivable
    assert not without_value.model_copy(update={"rows": 30}).waivable


def test_model_without_arrivals_is_told_apart() -> None:
    check = AGE.model_copy(update={"value": math.nan, "newest": None})
    assert check.miss == "no data that arrived is in it, and the champion knows those of 2015-08-06"


@pytest.mark.parametrize("check", [threshold(0.9, 0.8), BEHAVIOUR, comparison(0.125, 0.01), SAMPLE, AGE, EARLIER, TASK])
def test_checks_are_strict(check: Check) -> None:
    check_strict(check)
    with pytest.raises(ValidationError):
        READER.validate_python(check.model_dump() | {"name": "words beside the figures"})


# --- the sentence ---


def test_refusal_names_every_failed_check_alone() -> None:
    checks = (threshold(0.9, 0.8), BEHAVIOUR, comparison(-0.125, 0.01), thin(comparison(0.5, 0.01)), SAMPLE, AGE)
    assert reason_of(checks, first=False) == (
        "Refused: share of correct names cases is 0.2500, below 0.5; "
        "accuracy against the champion (-0.1250), at worst -0.2500 (margin 0.01); "
        f"{FEW_ROWS}; "
        f"{BARRED}; {OLDER_DATA}."
    )


def test_refusal_without_a_value_says_so() -> None:
    nothing = threshold(math.nan, 0.8)
    assert reason_of((nothing,), first=True) == (
        "Refused: accuracy on the test file has no value, for example because all answers are equal "
        "(at least 0.8 is needed)."
    )


def test_promotion_counts_behaviour_and_names_the_rest() -> None:
    met = BEHAVIOUR.model_copy(update={"passed": True})
    floors = (threshold(0.9, 0.8), ThresholdCheck(metric="f1", sample=True, value=0.85, bound=0.8, passed=True))
    told = (
        "Promoted: accuracy on the test file is 0.9000 (threshold 0.8), "
        "F1 on the sample's test file is 0.8500 (threshold 0.8)"
    )
    assert reason_of(floors, first=True) == f"{told}; there is no champion yet."
    assert reason_of((*floors, met, met), first=False) == (
        f"{told}; all 2 behavioural bounds are met; it is the champion's own model."
    )
    assert reason_of((*floors, comparison(0.25, 0.01)), first=False) == (
        f"{told}; accuracy against the champion (+0.2500), at worst +0.1250 (margin 0.01)."
    )
