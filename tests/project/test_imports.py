"""Imports follow the layers: dags, tools, stages, ground floor; the service knows only releases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from tests.support.module_graph import FOLDERS, GROUND, Module, belongs, modules, third_party

#: Packages that the ground floor may import besides the standard library: it runs everywhere.
GROUND_USES = {"botocore", "fsspec", "pydantic", "pydantic_settings", "rich", "s3fs", "typing_extensions"}
#: Pipeline modules that may import the service; all others use HTTP.
MAY_IMPORT_SERVING = {"pipeline.cli", "pipeline.deployment"}
MAY_IMPORT = {
    "ground": {"ground"},
    "stages": {"ground", "stages"},
    "tools": {"ground", "stages", "tools"},
    "serving": {"ground", "serving"},
    "dags": {"ground", "stages", "dags"},
}
#: Modules in the longest chain of imports, with those inside functions.
LONGEST_CHAIN = 17
LAYERS = {module.name: module.layer for module in modules()}
HEAVY = {
    "accelerate", "bentoml", "datasets", "great_expectations", "matplotlib", "onnx", "onnxruntime", "optuna",
    "pandas", "scipy", "sklearn", "tokenizers", "torch", "transformers", "wandb",
}  # fmt: skip
every_module = pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)


def layer_of(name: str) -> str | None:
    """Return the layer of an imported module, or None if it is not the project's; DAG files import by bare name."""
    return LAYERS.get(name) or LAYERS.get(f"dags.{name}")


@every_module
def test_a_module_imports_only_what_lies_below_it(module: Module) -> None:
    for name in module.imports:
        layer = layer_of(name)
        if layer is None:
            assert name.split(".")[0] not in FOLDERS, f"{module.name} imports {name}, which does not exist"
        elif layer == "serving" and module.layer in ("stages", "tools"):
            assert belongs(module.name, MAY_IMPORT_SERVING), f"{module.name} imports {name}: ask the service over HTTP"
        else:
            assert layer in MAY_IMPORT[module.layer], f"{module.name} ({module.layer}) imports {name} ({layer})"


@pytest.mark.parametrize("module", [m for m in modules() if m.layer == "ground"], ids=lambda module: module.name)
def test_the_ground_floor_uses_little(module: Module) -> None:
    assert third_party(module.imports) <= GROUND_USES


@pytest.mark.parametrize("module", [m for m in modules() if m.layer != "dags"], ids=lambda module: module.name)
def test_only_dags_know_airflow(module: Module) -> None:
    assert "airflow" not in third_party(module.imports)


@pytest.mark.parametrize("module", [m for m in modules() if m.layer == "dags"], ids=lambda module: module.name)
def test_dag_files_import_nothing_heavy_at_top(module: Module) -> None:
    assert not third_party(module.top) & HEAVY


@pytest.mark.parametrize("module", [m for m in modules() if m.name.startswith("dags.")], ids=lambda module: module.name)
def test_dags_use_the_task_sdk_alone(module: Module) -> None:
    public = ("airflow.sdk", "airflow.providers.")
    assert [name for name in module.imports if name.startswith("airflow") and not name.startswith(public)] == []


@pytest.mark.parametrize("module", [m for m in modules() if m.layer == "tools"], ids=lambda module: module.name)
def test_a_command_starts_without_anything_heavy(module: Module) -> None:
    assert not third_party(module.top) & HEAVY


def test_every_name_of_the_ground_floor_exists() -> None:
    assert set(LAYERS) >= GROUND | MAY_IMPORT_SERVING, "a module of the rules is gone: the rules would hold nothing"


def test_import_chains_have_no_circle_and_are_short() -> None:
    packages = {"pipeline", "serving"}
    graph = {m.name: m.imports & LAYERS.keys() - packages for m in modules() if m.layer != "dags"}
    chain = 0
    while leaves := {name for name, below in graph.items() if not below & graph.keys()}:
        graph = {name: below for name, below in graph.items() if name not in leaves}
        chain += 1
    assert sorted(graph) == []
    assert chain <= LONGEST_CHAIN, "move a definition to a lower module, or import it from where it is defined"


@pytest.mark.parametrize(
    ("file", "line", "rule"),
    [
        ("dags/x.py", "from airflow.models import Variable", "TID251"),
        ("dags/x.py", "from airflow.decorators import task", "TID251"),
        ("dags/x.py", "import torch", "TID253"),
        ("dags/x.py", "import great_expectations", "TID253"),
        ("pipeline/cli/app.py", "import pandas as pd", "TID253"),
        ("pipeline/settings.py", "import torch", "TID253"),
    ],
)
def test_the_linter_holds_it_too(file: str, line: str, rule: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID", "--stdin-filename", str(ROOT / file), "-"]
    result = subprocess.run(command, input=f"{line}\n", capture_output=True, text=True, check=False, cwd=ROOT)
    assert rule in result.stdout


@pytest.mark.parametrize("line", ["import torch", "import pandas as pd"])
def test_the_linter_lets_stages_import_what_they_need(line: str) -> None:
    file = Path(ROOT) / "pipeline" / "stages" / "train.py"
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID", "--stdin-filename", str(file), "-"]
    result = subprocess.run(command, input=f"{line}\n", capture_output=True, text=True, check=False, cwd=ROOT)
    assert "TID253" not in result.stdout


#: Packages that take seconds to import and are needed only to build artifacts.
BUILDING = {"great_expectations", "onnxruntime", "sklearn", "torch", "transformers"}


def test_reusing_an_artifact_imports_no_builder() -> None:
    stages = "validate, tokenize, train, evaluate, decide, export"
    code = f"import sys; from pipeline.stages import {stages}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not BUILDING & set(found.stdout.split())
