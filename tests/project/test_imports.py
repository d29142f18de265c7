"""Imports follow the layers: dags, tools, stages, ground floor; the service knows only releases."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import dedent

import pytest

from pipeline.config_file import ROOT
from tests.support.module_graph import FOLDERS, GROUND, Module, belongs, imports_of, modules, third_party

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
HEAVY = {
    "accelerate", "bentoml", "datasets", "great_expectations", "matplotlib", "onnx", "onnxruntime", "optuna",
    "pandas", "scipy", "sklearn", "tokenizers", "torch", "transformers", "wandb",
}  # fmt: skip


@cache
def layers() -> dict[str, str]:
    """Map each module to its layer."""
    return {module.name: module.layer for module in modules()}


def layer_of(name: str) -> str | None:
    """Return the layer of an imported module, or None if it is not the project's; DAG files import by bare name."""
    return layers().get(name) or layers().get(f"dags.{name}")


def wrong_imports(module: Module) -> Iterator[str]:
    """Yield a sentence for each import of a module that does not lie below it."""
    for name in module.imports:
        layer = layer_of(name)
        if layer is None:
            if name.split(".")[0] in FOLDERS:
                yield f"{module.name} imports {name}, which does not exist"
        elif layer == "serving" and module.layer in ("stages", "tools"):
            if not belongs(module.name, MAY_IMPORT_SERVING):
                yield f"{module.name} imports {name}: ask the service over HTTP"
        elif layer not in MAY_IMPORT[module.layer]:
            yield f"{module.name} ({module.layer}) imports {name} ({layer})"


def test_imports_are_found_in_every_block() -> None:
    source = """
    import a
    def f():
        import b
        async def g():
            with h: import c
    class C:
        if x: import d
        elif y: import e
        else: import f
        for i in j: import k
        else: import l
        while m: import n
    try: import o
    except E: import p
    else: import q
    finally: import r
    match s:
        case t: import u
    """
    assert imports_of(ast.parse(dedent(source)), "z") == set("abcdefklnopqru")


def test_a_module_imports_only_what_lies_below_it() -> None:
    assert [sentence for module in modules() for sentence in wrong_imports(module)] == []


@pytest.mark.parametrize(
    ("name", "imported", "sentences"),
    [
        ("pipeline.settings", "pipeline.cli.app", ["pipeline.settings (ground) imports pipeline.cli.app (tools)"]),
        ("pipeline.job", "serving.engine", ["pipeline.job (ground) imports serving.engine (serving)"]),
        ("pipeline.stages", "serving.engine", ["pipeline.stages imports serving.engine: ask the service over HTTP"]),
        ("pipeline.cli.app", "serving.gone", ["pipeline.cli.app imports serving.gone, which does not exist"]),
        ("pipeline.cli.app", "serving.engine", []),
        ("pipeline.stages.train", "pipeline.settings", []),
        ("pipeline.stages.train", "pathlib", []),
    ],
)  # fmt: skip
def test_wrong_import_is_noticed(name: str, imported: str, sentences: list[str]) -> None:
    module = Module(name, Path("file.py"), top=frozenset(), lazy=frozenset({imported}))
    assert list(wrong_imports(module)) == sentences


def test_the_ground_floor_uses_little() -> None:
    used = {module.name: third_party(module.imports) - GROUND_USES for module in modules() if module.layer == "ground"}
    assert {name: packages for name, packages in used.items() if packages} == {}


def test_only_dags_know_airflow() -> None:
    others = [module for module in modules() if module.layer != "dags"]
    assert [module.name for module in others if "airflow" in third_party(module.imports)] == []


def test_dag_files_and_commands_import_nothing_heavy_at_top() -> None:
    heavy = {module.name: third_party(module.top) & HEAVY for module in modules() if module.layer in ("dags", "tools")}
    assert len(heavy) > 30
    assert {name: packages for name, packages in heavy.items() if packages} == {}


def test_dags_use_the_task_sdk_alone() -> None:
    public = ("airflow.sdk", "airflow.providers.")
    files = [module for module in modules() if module.name.startswith("dags.")]
    used = {file.name: [name for name in file.imports if name.startswith("airflow")] for file in files}
    assert any(used.values())
    assert [(file, name) for file, names in used.items() for name in names if not name.startswith(public)] == []


def test_every_name_of_the_ground_floor_exists() -> None:
    assert set(layers()) >= GROUND | MAY_IMPORT_SERVING, "a module of the rules is gone: the rules would hold nothing"


def test_import_chains_have_no_circle_and_are_short() -> None:
    packages = {"pipeline", "serving"}
    graph = {m.name: m.imports & layers().keys() - packages for m in modules() if m.layer != "dags"}
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
