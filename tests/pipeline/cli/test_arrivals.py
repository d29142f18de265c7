"""`saebyeok arrivals accept`: its figures, its record and its errors."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from pipeline.errors import FAILED, REFUSED, USAGE
from pipeline.store.acceptances import Acceptance, find_acceptances
from tests.support.cli import PlaceHere
from tests.support.daily import DAYS, day_of, reviews_of, write_day
from tests.support.published import reviews, write_reviews

pytestmark = pytest.mark.torch
SETS = ["--set", "data.min_train_rows=40", "--set", "data.min_test_rows=20", "--set", "model.base=scratch"]


@pytest.fixture
def place(tmp_path: Path) -> PlaceHere:
    write_reviews(tmp_path / "data", reviews(60, 1), reviews(60, 5000))
    for number in range(DAYS):
        write_day(tmp_path / "data", number, reviews_of(number))
    write_day(tmp_path / "data", DAYS, [(a, b, "0") for a, b, _ in reviews_of(DAYS)])
    return PlaceHere(tmp_path / "home", SAEBYEOK_DATA=str(tmp_path / "data"))


def test_unusual_day_is_accepted_from_the_command_line(place: PlaceHere) -> None:
    night, day = ["--date", str(day_of(DAYS + 1)), *SETS], str(day_of(DAYS))
    place.call("validate", "nsmc", *night, code=FAILED)
    said = place.call("arrivals", "accept", day, "--why", " a strike ")
    assert (said["file"], said["why"], said["by"]) == (f"nsmc/daily/{day}.txt", "a strike", getpass.getuser())
    assert {item["name"] for item in said["measures"] if item["level"] == "critical"} == {"labels"}
    given = Acceptance(by=getpass.getuser(), why="a strike")
    assert find_acceptances(place.store, "nsmc", {day: said["sha256"]}) == {day: given}
    assert place.call("validate", "nsmc", *night)["figures"]["cutoff"] == day
    # It is used now, so there is nothing left to accept.
    place.call("arrivals", "accept", day, "--why", "again", code=REFUSED)


def test_mistakes_are_reported_in_one_line(place: PlaceHere) -> None:
    day = str(day_of(DAYS))
    for arguments, code, text in (
        (["accept", day], USAGE, "--why"),
        (["accept", day, "--why", " "], USAGE, "must not be empty"),
        (["accept", "tomorrow", "--why", "so"], USAGE, "DATE"),
        (["accept", "2020-01-01", "--why", "so"], FAILED, "has no file of 2020-01-01"),
        (["accept", day, "--why", "so", "--recipe", "klue-sts"], FAILED, "has no daily arrivals"),
    ):
        result = place.raw("arrivals", *arguments)
        assert (result.returncode, result.stdout) == (code, "")
        assert text in result.stderr.splitlines()[-1]
