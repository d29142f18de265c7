"""The nightly DAG as Airflow reads it: its graph, its form, and what reading it costs."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.recipe import recipe_names
from pipeline.settings import ROOT
from tests.dags.conftest import parse

STAGES = ("validate", "tokenize", "train", "evaluate", "decide", "gate", "approve", "export", "deploy")
HEAVY = ("torch", "transformers", "great_expectations", "wandb", "onnxruntime", "bentoml", "pandas", "numpy", "httpx")


@pytest.fixture
def tasks(parsed: Mapping[str, Any]) -> Mapping[str, Any]:
    tasks: Mapping[str, Any] = parsed["graph"]["nightly_retrain"]
    return tasks


def test_every_file_parses(parsed: Mapping[str, Any]) -> None:
    assert parsed["errors"] == {}
    assert sorted(parsed["graph"]) == ["nightly_retrain", "retention", "rollback"]


def test_nothing_heavy_is_imported(parsed: Mapping[str, Any]) -> None:
    # httpx is Airflow's own: that it is there shows that the list of modules is.
    assert set(HEAVY) & set(parsed["modules"]) == {"httpx"}


def test_a_group_of_stages_for_each_recipe(tasks: Mapping[str, Any]) -> None:
    assert set(tasks) == {f"{name}.{stage}" for name in recipe_names() for stage in STAGES}


@pytest.mark.parametrize("recipe", recipe_names())
def test_the_stages_follow_each_other(tasks: Mapping[str, Any], recipe: str) -> None:
    def after(stage: str) -> set[str]:
        return {name.removeprefix(f"{recipe}.") for name in tasks[f"{recipe}.{stage}"]["downstream"]}

    for stage, following in itertools.pairwise(STAGES):
        assert following in after(stage)
    assert after("deploy") == set()
    # What a refusal must not reach is behind the gate and the person alone.
    assert after("gate") == {"approve"}
    assert after("approve") == {"export"}
    assert after("export") == {"deploy"}


def test_only_what_wants_a_gpu_waits_for_one(tasks: Mapping[str, Any]) -> None:
    where = {task: (options["queue"], options["pool"]) for task, options in tasks.items()}
    for name in recipe_names():
        for stage in STAGES:
            wanted = ("gpu", "gpu") if stage in ("train", "evaluate", "export") else ("default", "default_pool")
            assert where[f"{name}.{stage}"] == wanted


def test_tasks_are_described_linked_and_retried(tasks: Mapping[str, Any]) -> None:
    for task, options in tasks.items():
        assert len(options["doc"]) > 60, task
        assert options["retries"] == 2
    assert tasks["nsmc.validate"]["links"] == ["Data docs"]
    assert tasks["nsmc.decide"]["links"] == ["Report"]
    assert tasks["klue-sts.deploy"]["outlets"] == ["saebyeok://champion/klue-sts"]
    assert [task for task, options in tasks.items() if options["outlets"]] == ["klue-sts.deploy", "nsmc.deploy"]


def test_a_recipe_more_is_a_group_more(airflow_home: Path, tmp_path: Path) -> None:
    for package in ("pipeline", "dags"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    recipes = tmp_path / "pipeline" / "recipes"
    text = (recipes / "nsmc.toml").read_text(encoding="utf-8").replace('name = "nsmc"', 'name = "reviews"')
    (recipes / "reviews.toml").write_text(text, encoding="utf-8")
    (recipes / "broken.toml").write_text("title = ", encoding="utf-8")
    parsed = parse(tmp_path)
    assert parsed["errors"] == {}
    assert set(parsed["graph"]["nightly_retrain"]) == {
        f"{name}.{stage}" for name in (*recipe_names(), "reviews", "broken") for stage in STAGES
    }
