"""The champion on what has arrived: what it should get right, and what a fall makes of the day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.arrivals import Measure
from pipeline.artifacts import Artifact
from pipeline.data import read_split
from pipeline.errors import ArtifactError, DataError
from pipeline.inputs import find_files
from pipeline.job import Job
from pipeline.sample import write_sample
from pipeline.trial import fall, try_champion
from pipeline.validate import validate
from tests.served import linked, republished, without_numbers
from tests.tiny import Road, anything_goes, open_road, small_recipe

pytestmark = pytest.mark.torch

DAY, NIGHT = date(2026, 11, 1), date(2026, 11, 2)
TRAIN, TEST, NEW = 1500, 400, 400
BOUNDS = {"data.min_train_rows": TRAIN, "data.min_test_rows": TEST}


def classes(*counts: tuple[str, int]) -> np.ndarray:
    return np.array([name for name, count in counts for _ in range(count)])


def right(*counts: tuple[int, int]) -> np.ndarray:
    """So many right of so many, class by class."""
    return np.array([n < good for good, count in counts for n in range(count)])


def test_what_should_be_right_and_its_chance_are_those_of_the_binomial() -> None:
    # So many test rows that what they leave open is nothing.
    then = right((840_000, 1_000_000))
    for good in (460, 480, 495, 504, 530):
        share, chance = fall(right((good, 600)), classes(("a", 600)), then, classes(("a", 1_000_000)))
        assert share == pytest.approx(0.84, abs=1e-5)
        assert chance == pytest.approx(stats.binom.cdf(good, 600, 0.84), rel=0.35, abs=2e-3)


def test_a_small_test_file_leaves_more_open() -> None:
    day = right((470, 600)), classes(("a", 600))
    chances = [fall(*day, right((84 * n, 100 * n)), classes(("a", 100 * n)))[1] for n in (1, 10, 1000)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.05 > 1e-3 > chances[-1]


def test_another_mix_of_classes_is_no_fall() -> None:
    then, names = right((450, 500), (350, 500)), classes(("positive", 500), ("negative", 500))
    # Nine in ten of its positive rows are right, and it has hardly any other.
    share, chance = fall(right((504, 560), (28, 40)), classes(("positive", 560), ("negative", 40)), then, names)
    assert share == pytest.approx((0.9 * 560 + 0.7 * 40) / 600, abs=2e-3)
    assert chance > 0.4
    # As many right of rows that are mostly negative would be more than should be, and so many fewer are too few.
    assert fall(right((36, 40), (392, 560)), classes(("positive", 40), ("negative", 560)), then, names)[1] > 0.4
    assert fall(right((400, 560), (28, 40)), classes(("positive", 560), ("negative", 40)), then, names)[1] < 1e-6


def test_a_class_that_the_test_file_has_not_says_nothing() -> None:
    share, chance = fall(right((0, 50)), classes(("new", 50)), right((9, 10)), classes(("old", 10)))
    assert np.isnan(share)
    assert chance == 1.0
    share, chance = fall(
        right((0, 50), (9, 10)), classes(("new", 50), ("old", 10)), right((90, 100)), classes(("old", 100))
    )
    assert share == pytest.approx(0.9, abs=0.01)
    assert chance > 0.3


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """A small model of reviews that knows what it is about, as a release."""
    overrides = anything_goes("nsmc") | BOUNDS | {"train.epochs": 4}
    recipe = small_recipe("nsmc", **{key.replace(".", "__"): value for key, value in overrides.items()})
    road = open_road(recipe, tmp_path_factory.mktemp("road"), TRAIN, TEST)
    assert road.evaluated.figures["test"]["accuracy"]["value"] > 0.65
    return road


@pytest.fixture(scope="module")
def champion(road: Road) -> Artifact:
    return road.released


@pytest.fixture
def arrived(road: Road, sample: Path, tmp_path: Path) -> Callable[[Callable[[pd.DataFrame], pd.DataFrame]], Path]:
    """Published files that the champion knows, and one day with reviews that nobody has seen, changed."""
    rows = read_split(road.recipe, sample, "train")
    test = read_split(road.recipe, sample, "test")
    day = rows[TRAIN:].groupby("label").head(NEW // 2)

    def write(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
        for name, table in (
            ("ratings_train", rows[:TRAIN]),
            ("ratings_test", test[:TEST]),
            (f"daily/{DAY}", change(day)),
        ):
            file = tmp_path / "nsmc" / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{row.id}\t{row.text}\t{row.label}" for row in table.itertuples()]
            file.write_text("\n".join(["id\tdocument\tlabel", *lines, ""]), encoding="utf-8")
        return tmp_path

    return write


def tried(job: Job, champion: Artifact | None, data: Path) -> dict[str, Measure]:
    return try_champion(job, champion, find_files(job.recipe, data, NIGHT).arrivals)


def as_it_is(day: pd.DataFrame) -> pd.DataFrame:
    return day


def half_turned(day: pd.DataFrame) -> pd.DataFrame:
    """As many positive as before: by the labels alone nobody sees it."""
    turned = day.groupby("label").head(NEW // 4).index
    return day.assign(label=day["label"].where(~day.index.isin(turned), 1 - day["label"]))


def test_a_usual_day_is_no_fall_and_is_used(road: Road, champion: Artifact, arrived: Callable[..., Path]) -> None:
    data = arrived(as_it_is)
    (measure,) = tried(road.job, champion, data).values()
    assert measure.level in ("ok", "warning"), measure
    made = validate(replace(road.job, cutoff=NIGHT), data, champion)
    assert made.figures["cutoff"] == str(DAY)


def test_a_balanced_day_with_turned_labels_is_seen_by_the_champion_alone(
    road: Road, champion: Artifact, arrived: Callable[..., Path]
) -> None:
    data = arrived(half_turned)
    job = replace(road.job, cutoff=NIGHT)
    with pytest.raises(DataError, match=r"out of line: [^;]*: champion: 4?5?\d\.\d% right \(usual: "):
        validate(job, data, champion)
    assert validate(job, data, None).figures["cutoff"] == str(DAY), "nothing else sees it"


def test_what_the_champion_was_trained_on_is_not_tried(
    road: Road, champion: Artifact, arrived: Callable[..., Path]
) -> None:
    data = arrived(half_turned)
    (file,) = find_files(road.recipe, data, NIGHT).arrivals
    assert set(tried(road.job, champion, data)) == {file.name}
    assert tried(road.job, None, data) == {}
    knowing = road.with_rows({})
    knowing.__dict__["validated"] = validate(replace(road.job, cutoff=NIGHT), data, None)
    assert tried(road.job, knowing.released, data) == {}


def test_a_champion_of_the_sample_says_nothing_of_real_days(
    road: Road, champion: Artifact, arrived: Callable[..., Path]
) -> None:
    real = replace(road.job, recipe=road.recipe.model_copy(update={"sample": False}))
    assert tried(real, champion, arrived(half_turned)) == {}


@pytest.mark.parametrize("how", ["torn", "no numbers"])
def test_a_champion_that_cannot_be_read_stops_the_night(
    how: str, road: Road, champion: Artifact, arrived: Callable[..., Path]
) -> None:
    torn = republished(road.trained, files={"model/model.safetensors": b"torn"})
    trained = torn if how == "torn" else without_numbers(road.trained)
    inputs = linked(trained=trained, evaluated=road.evaluated, validated=road.validated)
    broken = republished(champion, inputs=inputs)
    with pytest.raises(ArtifactError, match=rf"the champion {broken.ref} cannot be read"):
        tried(road.job, broken, arrived(as_it_is))
