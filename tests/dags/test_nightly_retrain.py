"""The nightly DAG as Airflow parses it: graph, artifacts passed between stages, and parsing cost."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.config_file import ROOT
from pipeline.recipes.files import RECIPES
from pipeline.recipes.loading import recipe_names
from tests.dags.conftest import parse

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import BundleDagBag

STAGES = ("validate", "tokenize", "train", "evaluate", "decide", "gate", "approve", "export", "deploy")
#: The stage that builds the artifact of each task argument.
MADE_BY = {
    "validated": "validate",
    "tokenized": "tokenize",
    "trained": "train",
    "evaluated": "evaluate",
    "decided": "decide",
    "released": "export",
}
HEAVY = ("torch", "transformers", "great_expectations", "wandb", "onnxruntime", "bentoml", "pandas", "numpy", "httpx")
#: Parses all DAGs in a separate Airflow process.
PARSE = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag

bag = BundleDagBag(sys.argv[1], bundle_path=Path(sys.argv[1]), bundle_name="dags-folder")
print(json.dumps({"errors": bag.import_errors, "dags": sorted(bag.dags), "modules": sorted(sys.modules)}))
"""


def test_every_file_parses_and_nothing_heavy_is_imported(airflow_home: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PARSE, str(ROOT / "dags")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        check=True,
    )
    parsed = json.loads(result.stdout.splitlines()[-1])
    assert parsed["errors"] == {}
    assert parsed["dags"] == ["accept_arrival", "hold", "nightly_retrain", "retention", "rollback"]
    # Airflow itself imports httpx, so its presence shows that the list of modules is complete.
    assert set(HEAVY) & set(parsed["modules"]) == {"httpx"}


@pytest.mark.parametrize("recipe", recipe_names())
def test_the_stages_follow_each_other(bag: BundleDagBag, recipe: str) -> None:
    tasks = bag.dags["nightly_retrain"].task_dict

    def after(stage: str) -> set[str]:
        return {name.removeprefix(f"{recipe}.") for name in tasks[f"{recipe}.{stage}"].downstream_task_ids}

    for stage, following in itertools.pairwise(STAGES):
        assert following in after(stage)
    assert after("deploy") == set()
    # Tasks that a refusal must skip are behind both the gate and the approval.
    assert after("gate") == {"approve"}
    assert after("approve") == {"export"}
    assert after("export") == {"deploy"}


@pytest.mark.parametrize("recipe", recipe_names())
def test_each_stage_gets_artifacts_named_by_its_arguments(bag: BundleDagBag, recipe: str) -> None:
    tasks = bag.dags["nightly_retrain"].task_dict
    for stage in set(STAGES) - {"approve"}:
        task = tasks[f"{recipe}.{stage}"]
        name, *names = inspect.signature(task.python_callable).parameters
        assert (name, task.op_args[0], task.op_kwargs) == ("recipe", recipe, {})
        given = [argument.operator.task_id for argument in task.op_args[1:]]
        assert given == [f"{recipe}.{MADE_BY[name]}" for name in names], stage
    approve = tasks[f"{recipe}.approve"]
    assert (approve.recipe, approve.decided.operator.task_id) == (recipe, f"{recipe}.decide")
    # The fields of the answer.
    assert list(approve.params) == ["why"]


def test_a_recipe_more_is_a_group_more(bag: BundleDagBag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {*bag.dags["nightly_retrain"].task_dict} == {
        f"{name}.{stage}" for name in recipe_names() for stage in STAGES
    }
    (tmp_path / "recipes").mkdir()
    text = (RECIPES / "nsmc.toml").read_text(encoding="utf-8").replace('name = "nsmc"', 'name = "reviews"')
    (tmp_path / "recipes" / "reviews.toml").write_text(text, encoding="utf-8")
    (tmp_path / "recipes" / "broken.toml").write_text("title = ", encoding="utf-8")
    (tmp_path / "recipes" / "binary.toml").write_bytes(b"title = '\xff'")
    (tmp_path / "recipes" / "directory.toml").mkdir()
    # Valid TOML with other types, and a byte order mark.
    (tmp_path / "recipes" / "odd.toml").write_bytes(b"\xef\xbb\xbftitle = 3\nprofiles = 'x'")
    # No group ids: a copy, a backup and a side file of macOS. They are ignored.
    for name in ("nsmc copy", "nsmc.old", "._nsmc"):
        (tmp_path / "recipes" / f"{name}.toml").write_bytes(b"\0\5\x16\7")
    monkeypatch.setenv("SAEBYEOK_RECIPES", str(tmp_path / "recipes"))
    more = parse()
    assert more.import_errors == {}
    names = {"klue-sts", "nsmc", "reviews", "broken", "binary", "directory", "odd"}
    dag = more.dags["nightly_retrain"]
    assert {*dag.task_dict} == {f"{name}.{stage}" for name in names for stage in STAGES}
    shown = dag.params.get_param("recipes").schema["values_display"]
    assert shown["reviews"] == "Sentiment of Korean film reviews (NSMC)"
    # A recipe that cannot be read is named by its file, and fails in its own `validate`.
    assert (shown["broken"], shown["directory"], shown["odd"]) == ("broken", "directory", "3")
    for other, field in (("hold", "recipe"), ("accept_arrival", "recipe")):
        assert set(more.dags[other].params.get_param(field).schema["enum"]) == names
    groups = {name: group.tooltip for name, group in dag.task_group.get_task_group_dict().items() if name}
    assert groups == shown
