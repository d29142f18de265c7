"""The arrivals on which the champion is tried, on artifacts made by hand (the measure of a day: test_champion_day)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.data.arrival_checks import Measure
from pipeline.data.input_files import InputFile
from pipeline.errors import ArtifactError
from pipeline.evaluation import champion_trial, champions
from pipeline.evaluation.champion_trial import try_champion
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import UsedArrival, ValidationFigures
from tests.support.families import Parrot, family, made

REVIEWS = load_recipe("nsmc", "embedded")
DAY = "id\tdocument\tlabel\n1\tgood\t1\n2\tbad\t0\n3\tfine\t1\n4\tdull\t0\n"


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job(REVIEWS)


@pytest.fixture
def arrive() -> Callable[..., InputFile]:
    """`arrive(name, text, day)`: a file of arrivals whose digest is its name."""

    def arrive(name: str, text: str = DAY, day: date | None = None) -> InputFile:
        file = InputFile(f"nsmc/daily/{name}", Path(name), text.encode(), day)
        vars(file)["digest"] = name
        return file

    return arrive


def answering(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, outputs: Any) -> None:
    """Let champions with the labels of `recipe` answer `outputs` from now on."""
    monkeypatch.setattr(champions, "load_model", lambda *_: Parrot(recipe, outputs))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Champions answer 1, 0, 1, 1, ... from now on; the texts that they are asked about."""
    texts: list[list[str]] = []

    class Listening(Parrot):
        def answer(self, rows: pd.DataFrame) -> Any:
            texts.append(rows["text"].tolist())
            return np.eye(2)[[1, 0, 1, 1][: len(rows)]]

    monkeypatch.setattr(champions, "load_model", lambda recipe, _: Listening(recipe, None))
    return texts


def champion_of(job: Job, *known: str, sample: bool = False) -> Artifact:
    """Return a champion that was trained on the files `known`, and is right in 60 of 100 rows of its test file."""
    arrivals = tuple(UsedArrival(date=date(2026, 3, 1), sha256=name) for name in known)
    figures = ValidationFigures(train_rows=4000, test_rows=1000, sample=sample, arrivals=arrivals)
    validated = made(job.store, "validate", figures)
    labels = np.arange(100) % 2
    test = pd.DataFrame({"label": labels, "prediction": np.where(np.arange(100) < 60, labels, 1 - labels)})
    base = family(job.store, test=test)
    return made(job.store, "release", validated=validated, trained=base.trained, evaluated=base.evaluated)


def test_every_new_day_is_tried_in_order(job: Job, arrive: Callable[..., InputFile], asked: list[list[str]]) -> None:
    files = [arrive("a.txt"), arrive("b.txt", DAY.replace("good", "great"))]
    measures = try_champion(job, champion_of(job), files)
    assert list(measures) == ["nsmc/daily/a.txt", "nsmc/daily/b.txt"]
    assert asked == [["good", "bad", "fine", "dull"], ["great", "bad", "fine", "dull"]]
    # Of both classes 30 of 50 test rows were right: smoothed, (30 + 1/2) / 51.
    assert measures["nsmc/daily/a.txt"] == Measure(name="champion", found="75.0% right", usual="59.8%", level="ok")


def test_days_in_its_training_are_not_tried(job: Job, arrive: Callable[..., InputFile], asked: list[list[str]]) -> None:
    files = [arrive(name) for name in ("a.txt", "b.txt", "c.txt")]
    assert list(try_champion(job, champion_of(job, "a.txt", "c.txt"), files)) == ["nsmc/daily/b.txt"]
    assert try_champion(job, champion_of(job, "a.txt", "b.txt", "c.txt"), files) == {}
    assert len(asked) == 1


def test_champion_without_recorded_arrivals_is_tried(
    job: Job, arrive: Callable[..., InputFile], asked: list[list[str]]
) -> None:
    # Of a version that knew no arrivals.
    base = champion_of(job)
    validated = made(job.store, "validate", ValidationFigures(train_rows=4000, test_rows=1000, sample=False))
    trained, evaluated = base.input("trained"), base.input("evaluated")
    old = made(job.store, "release", validated=validated, trained=trained, evaluated=evaluated)
    assert list(try_champion(job, old, [arrive("a.txt")])) == ["nsmc/daily/a.txt"]


@pytest.mark.parametrize(
    ("sample", "recipe", "tried"),
    [(False, False, True), (True, True, True), (False, True, False), (True, False, False)],
)
def test_sample_and_real_data_are_never_mixed(
    job: Job, arrive: Callable[..., InputFile], asked: list[list[str]], sample: bool, recipe: bool, tried: bool
) -> None:
    mine = replace(job, recipe=REVIEWS.model_copy(update={"sample": recipe}))
    assert bool(try_champion(mine, champion_of(job, sample=sample), [arrive("a.txt")])) == tried


def test_nothing_is_tried_without_champion_or_arrivals(
    job: Job, arrive: Callable[..., InputFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("a champion is loaded for nothing")

    monkeypatch.setattr(champion_trial, "load_rival", load)
    data = REVIEWS.data.model_copy(update={"arrivals": None})
    without = replace(job, recipe=REVIEWS.model_copy(update={"data": data}))
    champion, day = champion_of(job), arrive("a.txt")
    assert try_champion(job, None, [day]) == {}
    assert try_champion(job, champion, []) == {}
    assert try_champion(without, champion, [day]) == {}
    assert try_champion(job, champion_of(job, "a.txt"), [day]) == {}
    assert try_champion(job, champion_of(job, sample=True), [day]) == {}
    # Nothing of an unfit champion is read.
    bare = made(job.store, "release")
    assert try_champion(job, bare, []) == {}
    assert try_champion(without, bare, [day]) == {}


def test_champion_of_another_kind_is_not_tried(
    job: Job, arrive: Callable[..., InputFile], asked: list[list[str]]
) -> None:
    champion = family(job.store, sample=False, fields={"kind": "regression", "labels": []}).release
    assert try_champion(job, champion, [arrive("a.txt")]) == {}
    assert asked == []


@pytest.mark.parametrize(
    "text", ["no header\n", "id\tdocument\tlabel\n1\tgood\tunknown\n"], ids=["unreadable", "without labels"]
)
def test_unusable_day_is_skipped(job: Job, arrive: Callable[..., InputFile], asked: list[list[str]], text: str) -> None:
    files = [arrive("a.txt", text), arrive("b.txt")]
    assert list(try_champion(job, champion_of(job), files)) == ["nsmc/daily/b.txt"]
    assert len(asked) == 1


def test_only_labelled_rows_are_asked(job: Job, arrive: Callable[..., InputFile], asked: list[list[str]]) -> None:
    day = "id\tdocument\tlabel\n0\tlost\tunknown\n1\tgood\t1\n2\tbad\t0\n"
    (measure,) = try_champion(job, champion_of(job), [arrive("a.txt", day)]).values()
    assert asked == [["good", "bad"]]
    assert measure.found == "100.0% right"


def test_unreadable_champion_stops_the_trial(job: Job, arrive: Callable[..., InputFile]) -> None:
    champion = champion_of(job)
    gone = replace(champion, manifest=champion.manifest.model_copy(update={"inputs": {}}))
    with pytest.raises(ArtifactError):
        try_champion(job, gone, [arrive("a.txt")])


def test_recipe_of_the_champion_names_its_labels(
    job: Job, arrive: Callable[..., InputFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = REVIEWS.model_copy(update={"labels": ("positive", "negative")})
    answering(monkeypatch, turned, np.eye(2)[[0, 1, 0, 1]])
    (measure,) = try_champion(job, champion_of(job), [arrive("a.txt")]).values()
    assert measure.found == "100.0% right"


#: 40 reviews, half of them of each label.
LONG_DAY = "id\tdocument\tlabel\n" + "".join(f"{number}\ttext {number}\t{number % 2}\n" for number in range(40))
DAYS = {name: date(2026, 3, day) for day, name in enumerate(("a.txt", "b.txt", "c.txt"), 1)}
WRONG = np.eye(2)[1 - np.arange(40) % 2]


@pytest.mark.parametrize(
    ("accepted", "level", "usual"),
    [
        ([], "critical", "59.8%"),
        (["2026-03-01"], "ok", "2.4%"),
        # Only an accepted day before the tried one counts.
        (["2026-03-03"], "critical", "59.8%"),
    ],
)
def test_day_like_last_accepted_is_no_fall(
    job: Job,
    arrive: Callable[..., InputFile],
    monkeypatch: pytest.MonkeyPatch,
    accepted: list[str],
    level: str,
    usual: str,
) -> None:
    answering(monkeypatch, REVIEWS, WRONG)
    files = [arrive(name, LONG_DAY, day) for name, day in DAYS.items()]
    measures = try_champion(job, champion_of(job, "a.txt", "c.txt"), files, accepted)
    found = Measure(name="champion", found="0.0% right", usual=usual, level=level)  # type: ignore[arg-type]
    assert measures == {"nsmc/daily/b.txt": found}


@pytest.mark.parametrize(
    ("accepted", "usual"), [(["2026-03-01", "2026-03-02"], "2.4%"), (["2026-03-01"], "59.8%")], ids=["both", "first"]
)
def test_last_accepted_day_counts_if_it_is_readable(
    job: Job, arrive: Callable[..., InputFile], monkeypatch: pytest.MonkeyPatch, accepted: list[str], usual: str
) -> None:
    answering(monkeypatch, REVIEWS, WRONG)
    texts = {"a.txt": "no header\n", "b.txt": LONG_DAY, "c.txt": LONG_DAY}
    files = [arrive(name, text, DAYS[name]) for name, text in texts.items()]
    (measure,) = try_champion(job, champion_of(job, "a.txt", "b.txt"), files, accepted).values()
    assert measure.usual == usual


def test_accepted_day_without_known_labels_is_passed_over(
    job: Job, arrive: Callable[..., InputFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, REVIEWS.model_copy(update={"labels": ("negative", "other")}), WRONG)
    unknown = "id\tdocument\tlabel\n" + "".join(f"{number}\ttext {number}\t1\n" for number in range(40))
    files = [arrive("a.txt", unknown, DAYS["a.txt"]), arrive("b.txt", LONG_DAY)]
    (measure,) = try_champion(job, champion_of(job, "a.txt"), files, ["2026-03-01"]).values()
    assert (measure.usual, measure.level) == ("59.8%", "critical")
