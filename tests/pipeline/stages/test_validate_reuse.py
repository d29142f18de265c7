"""Changes after which the data are validated again, by two rules of the shipped suite."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from pipeline.errors import DataError, RejectedDataError
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings
from pipeline.stages.validate import _label_fields, validate
from tests.support.published import STRICT, reviews, write_reviews
from tests.support.suites import with_rules

pytestmark = pytest.mark.usefixtures("no_rule_pages")

MakeJob = Callable[..., Job]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_rules(
        settings, tmp_path, "a document has at most 10,000 characters", "every label is one of the recipe's"
    )


def test_validation_is_reused_until_an_input_changes(nsmc: Recipe, make_job: MakeJob, data: Path) -> None:
    write_reviews(data, reviews(60, 1), reviews(30, 5000))
    first = validate(make_job(nsmc), data)
    assert validate(make_job(nsmc, run="another"), data).ref == first.ref
    cut_elsewhere = load_recipe("nsmc", "embedded", overrides=STRICT | {"data.gate_share": 0.3, "train.epochs": 2})
    assert validate(make_job(cut_elsewhere), data).ref == first.ref
    assert validate(make_job(nsmc, force=True), data).ref != first.ref
    stricter = load_recipe("nsmc", "embedded", overrides=STRICT | {"data.min_test_rows": 30})
    assert validate(make_job(stricter), data).key != first.key
    write_reviews(data, reviews(60, 1), reviews(31, 5000))
    assert validate(make_job(nsmc), data).key != first.key


def test_unchanged_bad_files_are_rechecked_only_with_force(nsmc: Recipe, make_job: MakeJob, data: Path) -> None:
    write_reviews(data, [*reviews(60, 1), ("99", "보통", "7")], reviews(30, 5000))
    with pytest.raises(RejectedDataError) as caught:
        validate(make_job(nsmc), data)
    for force in (False, True):
        with pytest.raises(RejectedDataError) as again:
            validate(make_job(nsmc, run="later", force=force), data)
        assert again.value.run == ("later" if force else "test-run")
        assert force or str(again.value) == str(caught.value)


def test_a_changed_suite_is_run_again(
    nsmc: Recipe, make_job: MakeJob, data: Path, settings: Settings, tmp_path: Path
) -> None:
    write_reviews(data, reviews(60, 1), reviews(30, 5000))
    first = validate(make_job(nsmc), data)
    project = tmp_path / "project"
    shutil.copytree(settings.expectations, project)
    suite = project / "expectations" / "nsmc.json"
    document = json.loads(suite.read_text("utf-8"))
    longest = next(item for item in document["expectations"] if item["kwargs"].get("max_value") == 10_000)
    longest["kwargs"]["max_value"] = 5
    suite.write_text(json.dumps(document), encoding="utf-8")
    job = make_job(nsmc)
    elsewhere = Job(nsmc, settings.model_copy(update={"expectations": project}), job.store, "second", cutoff=job.cutoff)
    with pytest.raises(DataError, match="60 of 60 rows break"):
        validate(elsewhere, data)
    assert validate(job, data).ref == first.ref


def test_suite_beside_own_recipe_is_used(make_job: MakeJob, data: Path, settings: Settings, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(settings.expectations / "expectations", own / "expectations")
    shutil.copytree(ROOT / "pipeline" / "recipes" / "behaviour", own / "behaviour")
    text = (ROOT / "pipeline" / "recipes" / "nsmc.toml").read_text(encoding="utf-8")
    (own / "films.toml").write_text(text.replace('"nsmc"', '"films"', 1), encoding="utf-8")
    (own / "behaviour" / "nsmc.toml").rename(own / "behaviour" / "films.toml")
    recipe = load_recipe("films", "embedded", overrides=STRICT, directories=[own])
    plain = make_job(recipe)
    job = replace(plain, settings=settings.model_copy(update={"recipes": str(own)}))
    write_reviews(data, reviews(60, 1), reviews(30, 5000))
    first = validate(job, data)
    suite = own / "expectations" / "nsmc.json"
    document = json.loads(suite.read_text("utf-8"))
    (rule,) = [item for item in document["expectations"] if item["kwargs"].get("max_value") == 10_000]
    # Its checkpoint in the project belongs to the shipped suite, not to this one without an id.
    suite.write_text(json.dumps({"expectations": [rule | {"description": "our own rule"}]}), encoding="utf-8")
    changed = validate(job, data)
    assert changed.key != first.key
    assert {item["rule"] for item in changed.read_json("validation.json")["findings"]} == {"our own rule"}
    suite.unlink()
    assert validate(job, data).key == validate(plain, data).key != changed.key


@pytest.mark.parametrize(
    ("labels", "further"),
    [
        (("bad", "good"), []),
        (("0", "1"), []),
        (("0.5", "1.0"), ["0.5", "1.0", "1"]),
        (("1 star", "2 stars"), ["no numbers"]),
        ((), []),
    ],
)
def test_labels_read_in_another_way_change_the_key(labels: tuple[str, ...], further: list[str]) -> None:
    recipe = load_recipe("nsmc", "embedded").model_copy(update={"labels": labels})
    assert _label_fields(recipe) == [*labels, *further]
