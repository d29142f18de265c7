"""Accepting an unusual day: what a person sees, what can be accepted, and what is usual afterwards."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from pipeline.data.acceptance import accept_day, find_day
from pipeline.data.arrival_checks import Arrival, check_arrivals
from pipeline.data.data_gate import read_published
from pipeline.data.input_files import find_files
from pipeline.errors import DataError, RefusedError, RejectedDataError
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.stages.validate import validate
from pipeline.store.acceptances import Acceptance, find_acceptances, record_acceptance
from pipeline.store.artifacts import Store
from tests.support.daily import DAYS, day_of, reviews_of, write_day, write_usual_days
from tests.support.gate_releases import republished
from tests.support.published import SMALL, Row, reviews

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("compiled_templates")]

WHY = Acceptance(by="kim", why="a campaign began")
ROWS = 300


def of_negative(number: int) -> list[Row]:
    """Return a day after a lasting change: half of the reviews are negative, instead of a fifth."""
    draw = random.Random(number)
    return [(id, text, "0" if draw.random() < 0.375 else label) for id, text, label in reviews_of(number)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write published files and six usual days."""
    return write_usual_days(tmp_path)


@pytest.fixture
def job(make_job: Callable[..., Job], data: Path) -> Job:
    """Return a run of the night after the first unusual day."""
    made = make_job(load_recipe("nsmc", "embedded", overrides=SMALL))
    settings = made.settings.model_copy(update={"data": data})
    return replace(made, settings=settings, cutoff=day_of(DAYS + 1))


def checked(job: Job, data: Path, last: int, accepted: dict[str, Acceptance]) -> list[Arrival]:
    inputs = find_files(job.recipe, data, day_of(last + 1))
    published = read_published(job.recipe, inputs)
    return [arrival for arrival, _ in check_arrivals(job.recipe, published, inputs.arrivals, {}, None, accepted)]


def test_lasting_change_is_usual_after_one_acceptance(job: Job, data: Path) -> None:
    changed = range(DAYS, DAYS + 5)
    for number in changed:
        write_day(data, number, of_negative(number))
    before = checked(job, data, changed[-1], {})
    assert [arrival.level for arrival in before[DAYS:]] == ["critical"] * 5
    third = before[DAYS + 2]
    after = checked(job, data, changed[-1], {third.date: WHY})
    assert [arrival.level for arrival in after[DAYS:]] == ["critical", "critical", "warning", "ok", "ok"]
    assert [arrival.accepted for arrival in after[DAYS:]] == [None, None, WHY, None, None]
    assert after[DAYS + 2].sentence("warning").endswith("; accepted by kim: a campaign began")
    # A day as before the change is used too, while such days prevail among the recent ones; one unlike both is not.
    write_day(data, changed[-1] + 1, reviews_of(changed[-1] + 1))
    write_day(data, changed[-1] + 2, [(a, b, "0") for a, b, _ in reviews_of(changed[-1] + 2)])
    *_, old, odd = checked(job, data, changed[-1] + 2, {third.date: WHY})
    assert (old.level, odd.level) == ("warning", "critical")


def test_accepted_day_is_used_from_the_next_run_on(job: Job, data: Path) -> None:
    write_day(data, DAYS, of_negative(DAYS))
    with pytest.raises(RejectedDataError, match=rf"or accept it: `saebyeok arrivals accept {day_of(DAYS)} --why"):
        validate(job, data)
    found = find_day(job, day_of(DAYS))
    assert [line for line in found.lines if line.startswith("critical")] == [
        f"critical labels: {found.checked.measures[-3].found} (usual: {found.checked.measures[-3].usual})"  # type: ignore[union-attr]
    ]
    record = accept_day(job, found, WHY)
    assert record.manifest.fields == {"file": f"nsmc/daily/{day_of(DAYS)}.txt", "sha256": found.file.digest}
    made = validate(job, data)
    assert made.manifest.figures["cutoff"] == str(day_of(DAYS))
    assert made.manifest.figures["train_rows"] == 60 + (DAYS + 1) * ROWS
    (warning,) = [item for item in made.manifest.figures["warnings"] if "accepted by" in item]
    assert warning.startswith(f"nsmc/daily/{day_of(DAYS)}.txt: labels: ")
    assert "accepted by kim: a campaign began" in (made.path / "docs" / "index.html").read_text(encoding="utf-8")


def test_acceptance_holds_for_the_content_alone(job: Job, data: Path) -> None:
    write_day(data, DAYS, of_negative(DAYS))
    accept_day(job, find_day(job, day_of(DAYS)), WHY)
    write_day(data, DAYS, [(a, b, "0") for a, b, _ in reviews_of(DAYS)])
    with pytest.raises(RejectedDataError, match="labels: "):
        validate(job, data)


def test_accepted_content_that_arrives_again_is_not_accepted(job: Job, data: Path) -> None:
    # The upload is stuck: the next day has the same file.
    for number in (DAYS, DAYS + 1):
        write_day(data, number, of_negative(DAYS))
    accept_day(job, find_day(job, day_of(DAYS)), WHY)
    with pytest.raises(RejectedDataError, match=rf"{day_of(DAYS + 1)}\.txt: rows seen before: 100\.0%"):
        validate(replace(job, cutoff=day_of(DAYS + 2)), data)
    again = find_day(job, day_of(DAYS + 1))
    accept_day(job, again, WHY)
    assert again.checked is not None
    assert again.checked.level == "critical"


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([(a, b, "긍정" if n < 30 else c) for n, (a, b, c) in enumerate(reviews_of(DAYS))], "unusable rows: 30 of 300"),
        ([*reviews_of(DAYS)[90:], *((f"new-{a}", b, c) for a, b, c in reviews(60, 5000))], "rows of the test file"),
        ([], "reading: "),
    ],
    ids=["unusable", "leaked", "empty"],
)
def test_fault_of_a_file_cannot_be_accepted(job: Job, data: Path, rows: list[Row], fault: str) -> None:
    write_day(data, DAYS, rows)
    with pytest.raises(RejectedDataError) as caught:
        validate(job, data)
    assert "saebyeok arrivals accept" not in str(caught.value)
    with pytest.raises(RefusedError, match=rf"{fault}.*; only deviations from the usual values can be accepted"):
        accept_day(job, find_day(job, day_of(DAYS)), WHY)


def test_fault_of_an_accepted_file_still_counts(job: Job, data: Path) -> None:
    write_day(data, DAYS, [(a, b, "긍정" if n < 30 else c) for n, (a, b, c) in enumerate(of_negative(DAYS))])
    # Before any run has checked it, nobody knows of the fault.
    accept_day(job, find_day(job, day_of(DAYS)), WHY)
    with pytest.raises(RejectedDataError, match="unusable rows: 30 of 300"):
        validate(job, data)


def test_usual_day_needs_no_acceptance(job: Job, data: Path) -> None:
    validate(replace(job, cutoff=day_of(DAYS)), data)
    with pytest.raises(RefusedError, match="passed its last check, so there is nothing to accept"):
        accept_day(job, find_day(job, day_of(2)), WHY)


def test_day_without_a_file_is_named(job: Job, make_job: Callable[..., Job]) -> None:
    with pytest.raises(DataError, match=rf"daily has no file of 2020-01-01; the newest file is .*{day_of(DAYS - 1)}"):
        find_day(job, date(2020, 1, 1))
    with pytest.raises(DataError, match=r"recipe klue-sts has no daily arrivals; name another recipe"):
        find_day(make_job(load_recipe("klue-sts", "embedded")), date(2020, 1, 1))


def test_records_of_a_newer_version_are_read(job: Job, data: Path) -> None:
    write_day(data, DAYS, of_negative(DAYS))
    with pytest.raises(RejectedDataError) as caught:
        validate(job, data)
    found = find_day(job, day_of(DAYS))
    document = job.store.open(caught.value.ref).read_json("validation.json")
    for arrival in document["arrivals"]:
        arrival["weekday"] = "Monday"
        arrival["measures"][0]["since"] = "2026-12-01"
    content = json.dumps(document).encode()
    republished(job.store.open(caught.value.ref), files={"validation.json": content})
    assert find_day(job, day_of(DAYS)) == found
    record = accept_day(job, found, WHY)
    manifest = record.manifest
    further = {"fields": manifest.fields, "figures": manifest.figures | {"channel": "chat"}}
    with job.store.draft() as draft:
        job.store.publish(draft, manifest.kind, "nsmc", manifest.key, run="newer", inputs={}, **further)
    assert find_acceptances(job.store, "nsmc", {str(day_of(DAYS)): found.file.digest}) == {str(day_of(DAYS)): WHY}


def test_newest_acceptance_of_day_and_content_counts(store: Store) -> None:
    digest = "a" * 64
    for day, why in (("2026-11-01", "one"), ("2026-11-01", "two"), ("2026-11-02", "three")):
        record_acceptance(store, "nsmc", f"nsmc/daily/{day}.txt", digest, Acceptance(by="kim", why=why), "run")
    # Digests that begin alike share a key.
    days = {"2026-11-01": digest, "2026-11-02": digest, "2026-11-03": digest, "2026-11-04": "a" * 63 + "b"}
    found = find_acceptances(store, "nsmc", days)
    assert {day: given.why for day, given in found.items()} == {"2026-11-01": "two", "2026-11-02": "three"}
    assert find_acceptances(store, "nsmc", {"2026-11-01": "a" * 63 + "b", "2026-11-02": "c" * 64}) == {}
    assert find_acceptances(store, "klue-sts", days) == {}


def test_damaged_acceptance_leaves_the_one_before(store: Store) -> None:
    for why in ("one", "two"):
        record = record_acceptance(store, "nsmc", "2026-11-01.txt", "a" * 64, Acceptance(by="kim", why=why), "run")
    (Path(store.uri) / record.ref / "manifest.json").write_text("{", encoding="utf-8")
    assert find_acceptances(store, "nsmc", {"2026-11-01": "a" * 64}) == {"2026-11-01": Acceptance(by="kim", why="one")}
