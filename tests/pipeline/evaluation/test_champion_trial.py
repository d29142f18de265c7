"""The champion trial on arrivals: the consequences of a drop in accuracy (its significance: test_champion_day)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.data.arrival_checks import Measure
from pipeline.data.input_files import find_files
from pipeline.data.reading import read_split
from pipeline.errors import ArtifactError, DataError
from pipeline.evaluation.champion_trial import try_champion
from pipeline.job import Job
from pipeline.sample import write_sample
from pipeline.stages.validate import validate
from pipeline.store.artifacts import Artifact
from tests.support.gate_releases import republished, without_numbers
from tests.support.small_pipeline import Road
from tests.support.tiny_releases import linked, make_artifact

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("compiled_templates")]

DAY, NIGHT = date(2026, 11, 1), date(2026, 11, 2)
NEW = 400


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def road(reviews: Road) -> Road:
    """Return the reviews; their files are large enough."""
    rows = {f"min_{split}_rows": len(table) for split, table in reviews.rows.items()}
    data = reviews.recipe.data.model_copy(update=rows)
    road = reviews.with_recipe(reviews.recipe.model_copy(update={"data": data}))
    vars(road).update({name: getattr(reviews, name) for name in ("validated", "tokenized", "trained", "evaluated")})
    assert road.evaluated.manifest.figures["test"]["accuracy"]["value"] > 0.7
    return road


def champion_of(road: Road, **others: Artifact) -> Artifact:
    """Return a release of the pipeline's model, with the parts that a trial reads."""
    inputs = {"validated": road.validated, "trained": road.trained, "evaluated": road.evaluated} | others
    return make_artifact(road.job.store, "release", "nsmc", linked(**inputs))


@pytest.fixture(scope="module")
def champion(road: Road) -> Artifact:
    return champion_of(road)


@pytest.fixture
def arrived(road: Road, sample: Path, tmp_path: Path) -> Callable[[Callable[[pd.DataFrame], pd.DataFrame]], Path]:
    """Return published files that the champion was trained on, and a day of new reviews, modified."""
    rows = read_split(road.recipe, sample, "train")
    day = rows[len(road.rows["train"]) :].groupby("label").head(NEW // 2)

    def write(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
        for name, table in (
            ("ratings_train", road.rows["train"]),
            ("ratings_test", road.rows["test"]),
            (f"daily/{DAY}", change(day)),
        ):
            file = tmp_path / "nsmc" / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{row.id}\t{row.text}\t{row.label}" for row in table.itertuples()]
            file.write_text("\n".join(["id\tdocument\tlabel", *lines, ""]), encoding="utf-8")
        return tmp_path

    return write


def tried(
    job: Job, champion: Artifact | None, data: Path, night: date = NIGHT, accepted: Collection[str] = ()
) -> dict[str, Measure]:
    return try_champion(job, champion, find_files(job.recipe, data, night).arrivals, accepted)


def as_it_is(day: pd.DataFrame) -> pd.DataFrame:
    return day


def half_turned(day: pd.DataFrame) -> pd.DataFrame:
    """Swap labels but keep their counts, so that a check of label shares does not notice."""
    turned = day.groupby("label").head(NEW // 4).index
    return day.assign(label=day["label"].where(~day.index.isin(turned), 1 - day["label"]))


def test_a_usual_day_is_no_fall_and_is_used(road: Road, champion: Artifact, arrived: Callable[..., Path]) -> None:
    data = arrived(as_it_is)
    (measure,) = tried(road.job, champion, data).values()
    assert measure.level in ("ok", "warning"), measure
    made = validate(replace(road.job, cutoff=NIGHT), data, champion)
    assert made.manifest.figures["cutoff"] == str(DAY)


def test_only_champion_detects_balanced_day_with_swapped_labels(
    road: Road, champion: Artifact, arrived: Callable[..., Path]
) -> None:
    data = arrived(half_turned)
    job = replace(road.job, cutoff=NIGHT)
    with pytest.raises(DataError, match=r"failed its checks: [^;]*: champion: 4?5?\d\.\d% right \(usual: "):
        validate(job, data, champion)
    assert validate(job, data, None).manifest.figures["cutoff"] == str(DAY), "another check noticed it"


@pytest.mark.parametrize(("change", "falls"), [(as_it_is, False), (half_turned, True)])
def test_champion_with_renamed_labels_is_tried(
    road: Road, arrived: Callable[..., Path], change: Callable[[pd.DataFrame], pd.DataFrame], falls: bool
) -> None:
    recipe = road.recipe.model_copy(update={"renamed_labels": {"bad": "negative", "good": "positive"}})
    fields = road.trained.manifest.fields | {"labels": ["bad", "good"]}
    champion = champion_of(road, trained=republished(road.trained, fields=fields))
    (measure,) = tried(replace(road.job, recipe=recipe), champion, arrived(change)).values()
    assert (measure.level == "critical") == falls


def test_what_the_champion_was_trained_on_is_not_tried(
    road: Road, champion: Artifact, arrived: Callable[..., Path]
) -> None:
    data = arrived(half_turned)
    (file,) = find_files(road.recipe, data, NIGHT).arrivals
    assert set(tried(road.job, champion, data)) == {file.name}
    assert tried(road.job, None, data) == {}
    knowing = validate(replace(road.job, cutoff=NIGHT), data, None)
    assert tried(road.job, champion_of(road, validated=knowing), data) == {}


def test_rows_without_a_label_are_no_part_of_the_trial(
    road: Road, champion: Artifact, arrived: Callable[..., Path]
) -> None:
    alone = tried(road.job, champion, arrived(as_it_is))
    (measure,) = alone.values()
    assert measure.found.endswith("% right")
    spoilt = arrived(lambda day: pd.concat([day, day.head(100).assign(label="unknown")]))
    assert tried(road.job, champion, spoilt) == alone
    assert tried(road.job, champion, arrived(lambda day: day.assign(label="unknown"))) == {}


def test_file_that_cannot_be_read_is_left_to_the_arrival_check(
    road: Road, champion: Artifact, arrived: Callable[..., Path]
) -> None:
    data = arrived(as_it_is)
    (data / "nsmc" / "daily" / f"{DAY}.txt").write_bytes("id\tdocument\tlabel\n1\t좋다\t1\n".encode("cp949"))
    assert tried(road.job, champion, data) == {}


def test_sample_champion_is_not_tried_on_real_data(
    road: Road, champion: Artifact, arrived: Callable[..., Path]
) -> None:
    real = replace(road.job, recipe=road.recipe.model_copy(update={"sample": False}))
    assert tried(real, champion, arrived(half_turned)) == {}


@pytest.mark.parametrize(
    "other", [{"kind": "regression", "labels": [], "calibrated_to": [0.0, 1.0]}, {"objective": "cross-encoder"}]
)
def test_champion_of_another_kind_is_not_tried(road: Road, arrived: Callable[..., Path], other: dict[str, Any]) -> None:
    champion = champion_of(road, trained=republished(road.trained, fields=road.trained.manifest.fields | other))
    assert tried(road.job, champion, arrived(half_turned)) == {}


@pytest.mark.parametrize("how", ["torn", "no numbers"])
def test_a_champion_that_cannot_be_read_stops_the_night(how: str, road: Road, arrived: Callable[..., Path]) -> None:
    torn = republished(road.trained, files={"model/model.safetensors": b"torn"})
    trained = torn if how == "torn" else without_numbers(road.trained)
    broken = champion_of(road, trained=trained)
    with pytest.raises(ArtifactError, match=rf"the champion {broken.ref} cannot be read"):
        tried(road.job, broken, arrived(as_it_is))


def test_day_like_an_accepted_one_is_no_fall(road: Road, champion: Artifact, arrived: Callable[..., Path]) -> None:
    data = arrived(half_turned)
    daily = data / "nsmc" / "daily"
    # The next day continues like it; on the day after that, no label is right.
    first = (daily / f"{DAY}.txt").read_text(encoding="utf-8")
    (daily / "2026-11-02.txt").write_text(first + "\n", encoding="utf-8")
    all_turned = arrived(lambda day: day.assign(label=1 - day["label"]))
    (daily / "2026-11-03.txt").write_bytes((all_turned / "nsmc" / "daily" / f"{DAY}.txt").read_bytes())
    (daily / f"{DAY}.txt").write_text(first, encoding="utf-8")
    night = date(2026, 11, 4)
    one, two, three = tried(road.job, champion, data, night).values()
    assert {one.level, two.level, three.level} == {"critical"}
    one, two, three = tried(road.job, champion, data, night, {str(DAY)}).values()
    assert (one.level, two.level, three.level) == ("critical", "ok", "critical")
    assert two.usual != one.usual
