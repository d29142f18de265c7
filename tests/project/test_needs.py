"""The markers of what tests need: derived from fixtures, and deselected in plain runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.config_file import ROOT
from tests.support.needs import needs_of_command

#: Tests by module, all run by one pytest with `--plain`.
MODULES = {
    "imports": "def test_it():\n    import torch",
    "imports_at_the_top": "import moto\ndef test_it(): pass",
    "starts": "import subprocess\ndef test_it():\n    subprocess.run(['true', '-m', 'serving'])",
    "starts_another": "import subprocess\ndef test_it():\n    subprocess.run(['true', 'serving'])",
    # Stands for the module, which imports BentoML.
    "serves_here": "import sys\ndef test_it():\n    sys.modules['tests.support.inprocess'] = sys",
    "needs_nothing": "def test_it(): pass",
    "marked": "import pytest\npytestmark = [pytest.mark.server, pytest.mark.torch]\nraise RuntimeError",
    "marked_on_lines": "import pytest\npytestmark = [\n    1,\n    pytest.mark.torch,\n]\nraise RuntimeError",
    "left_out": "import pytest\npytestmark = [pytest.mark.other, pytest.mark.slow]\nraise RuntimeError",
    "marked_in_part": "import pytest\n@pytest.mark.airflow\ndef test_it(): assert False",
    "fixture": "import pytest\n@pytest.fixture\ndef bucket(): pass\ndef test_it(bucket): assert False",
    "parameter": "import pytest\n@pytest.mark.parametrize('on', ['bucket'])\ndef test_it(on): assert False",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return pytest's output about the tests."""
    folder = tmp_path_factory.mktemp("plain")
    # Substitutes for packages that take seconds to import.
    for name in ("torch", "moto"):
        (folder / f"{name}.py").touch()
    (folder / "pytest.ini").touch()
    (folder / "conftest.py").write_text("pytest_plugins = ('tests.support.needs',)\n", encoding="utf-8")
    for name, text in MODULES.items():
        (folder / f"test_{name}.py").write_text(f"{text}\n", encoding="utf-8")
    plugins = [f"-pno:{name}" for name in ("anyio", "asyncio", "cacheprovider", "hypothesispytest", "schemathesis")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--plain",
            "-m",
            "not other and not slow",
            "--continue-on-collection-errors",
            "-q",
            "-rA",
            *plugins,
        ],
        cwd=folder,
        env=environment | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "need"),
    [
        ("imports::test_it", "torch"),
        ("starts::test_it", "server"),
        ("serves_here::test_it", "server"),
        ("imports_at_the_top", "server"),
    ],
)
def test_an_unmarked_need_fails_when_plain(name: str, need: str, said: str) -> None:
    node = f"test_{name.replace('::', '.py::')}" if "::" in name else f"test_{name}.py"
    assert f"{node} needs {need} and is not marked so: mark it with pytest.mark.{need}" in said


@pytest.mark.parametrize("name", ["needs_nothing", "starts_another"])
def test_a_test_without_needs_is_run_when_plain(name: str, said: str) -> None:
    assert f"PASSED test_{name}.py::test_it" in said


def test_what_is_marked_is_not_run_when_plain(said: str) -> None:
    assert "3 failed, 2 passed, 3 deselected, 1 error" in said


def test_a_command_shows_what_it_needs() -> None:
    assert needs_of_command(["/venv/bin/airflow", "db", "migrate"]) == {"airflow"}
    assert needs_of_command([sys.executable, "-m", "serving"]) == {"server"}
    assert needs_of_command(["initdb", "--pgdata", "data"]) == {"server"}
    assert needs_of_command([sys.executable, "-m", "pipeline.cli", "serving"]) == set()
