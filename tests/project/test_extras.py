"""Scheduler, worker and server each install only their own extra, and it has everything that they import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from pipeline.config_file import ROOT
from tests.support.module_graph import EXTRAS_OF, Module, absent, belongs, direct, distributions, modules, third_party

#: The sides: their extras, and the packages that must be absent for the test to be valid.
SIDES = {
    (): {"airflow", "bentoml", "onnxruntime", "pandas", "torch", "transformers"},
    ("airflow",): {"bentoml", "great_expectations", "onnxruntime", "pandas", "torch", "transformers", "wandb"},
    ("serve",): {"airflow", "great_expectations", "pandas", "scipy", "sklearn", "torch", "transformers", "wandb"},
    ("train",): {"airflow", "bentoml"},
}
#: Imports every module named on its standard input, with the packages named there hidden.
IMPORTER = '''
import importlib, json, sys, traceback

asked = json.load(sys.stdin)
blocked = set(asked["blocked"])

class Hide:
    """A finder that hides the blocked packages, as if they were not installed."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in blocked else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

before = set(sys.modules)
sys.meta_path[:] = [Hide(finder) for finder in sys.meta_path]
sys.path[:0] = asked["path"]
failed = {}
for name in asked["modules"]:
    try:
        importlib.import_module(name)
    except BaseException:
        failed[name] = traceback.format_exc(limit=-4)
loaded = {name.split(".")[0] for name in set(sys.modules) - before} & blocked
json.dump({"failed": failed, "loaded": sorted(loaded)}, sys.stdout)
'''


def import_without(names: list[str], blocked: set[str], home: Path) -> dict[str, object]:
    """Return the errors of `names` that cannot be imported in a fresh process, and the loaded packages of `blocked`."""
    asked = {
        "modules": names,
        "blocked": sorted(blocked),
        "path": [str(ROOT), str(ROOT / "dags"), str(ROOT / "plugins")],
    }
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORTER],
        input=json.dumps(asked),
        env=os.environ | {"SAEBYEOK_HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report: dict[str, object] = json.loads(result.stdout[result.stdout.index('{"failed"') :])
    return report


def importable(module: Module) -> str:
    """Return the name by which Airflow (for its folders) or Python imports the module."""
    return module.path.stem if module.layer == "dags" else module.name


def test_every_module_is_on_a_side() -> None:
    assert {module.extras for module in modules()} <= set(SIDES)
    names = {module.name for module in modules()}
    assert [name for name in EXTRAS_OF if name not in names] == [], "a module of the table is gone"


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.airflow
@pytest.mark.parametrize("extras", SIDES, ids=lambda extras: "+".join(extras) or "base")
def test_a_side_imports_with_its_extra_alone(extras: tuple[str, ...], tmp_path: Path) -> None:
    blocked = absent(extras)
    assert SIDES[extras] <= blocked
    # `python -m` modules run when they are imported.
    names = [importable(m) for m in modules() if m.extras == extras and not m.name.endswith("__main__")]
    report = import_without(names, blocked, tmp_path)
    assert report == {"failed": {}, "loaded": []}


def test_the_blocking_works(tmp_path: Path) -> None:
    report = import_without(["pipeline.data.reading"], absent(("serve",)), tmp_path)
    assert list(report["failed"]) == ["pipeline.data.reading"]  # type: ignore[call-overload]


def packages_of(module: Module) -> set[str]:
    """Return the packages of other projects that a module needs."""
    # Tools import from other sides inside functions, and report a missing package themselves.
    return third_party(module.top if belongs(module.name, {"pipeline.cli.doctor"}) else module.imports)


def undeclared(module: Module) -> Iterator[str]:
    """Yield a sentence for each package that no extra of a module has."""
    for package in packages_of(module):
        providers = {canonicalize_name(name) for name in distributions().get(package, [])}
        if not providers:
            yield f"{module.name} imports {package}, which is not installed"
        elif not providers & direct(module.extras):
            yield f"{module.name} imports {package}: {module.extras} must name {providers}"


# The plain tests also run where torch is not installed.
@pytest.mark.parametrize("torch", [False, pytest.param(True, marks=pytest.mark.torch)])
def test_imports_of_module_are_in_its_extra(torch: bool) -> None:
    found = [module for module in modules() if ("torch" in packages_of(module)) == torch]
    assert len(found) > 20
    assert [sentence for module in found for sentence in undeclared(module)] == []
