"""The distributions `saebyeok` and `saebyeok-client`: complete, reproducible, and independent of each other."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from tests.support.distributions import PACKAGES, TWINE, build, copy_client, copy_project
from tests.support.module_graph import modules, third_party

EPOCH = 1_700_000_000
pytestmark = pytest.mark.slow

#: Prints the file of a module, or why it cannot be imported.
FIND = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        print(importlib.import_module(name).__file__)
    except ImportError as error:
        print(error)
"""


def light_project(directory: Path) -> None:
    """Copy the sources of `saebyeok` without the weights, whose compression takes most of the time."""
    copy_project(directory)
    (directory / "pipeline" / "models" / "mini" / "model.safetensors").write_bytes(b"")


COPIES: dict[str, Callable[[Path], None]] = {"saebyeok": light_project, "saebyeok-client": copy_client}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The sdist and the wheel by the name of the distribution."""
    target = tmp_path_factory.mktemp("dist")
    return {name: build(copy, target, EPOCH) for name, copy in COPIES.items()}


def names_in(files: list[Path]) -> set[str]:
    """Return the names in the wheel."""
    return set(zipfile.ZipFile(files[1]).namelist())


def test_wheel_of_the_project_has_every_file_of_its_packages(built: dict[str, list[Path]], tmp_path: Path) -> None:
    copy_project(tmp_path)
    files = [path for package in PACKAGES for path in (tmp_path / package).rglob("*") if path.is_file()]
    of_the_client = {tmp_path / "serving" / "client" / name for name in ("README.md", "pyproject.toml")}
    expected = {path.relative_to(tmp_path).as_posix() for path in files if path not in of_the_client}
    held = {name for name in names_in(built["saebyeok"]) if ".dist-info/" not in name}
    assert held == expected


def test_wheel_of_the_client_has_every_module(built: dict[str, list[Path]]) -> None:
    modules_of_client = {path.name for path in (ROOT / "serving" / "client").glob("*.py")}
    held = {name for name in names_in(built["saebyeok-client"]) if ".dist-info/" not in name}
    assert held == {f"saebyeok_client/{name}" for name in (*modules_of_client, "py.typed")}


@pytest.mark.parametrize("name", ["saebyeok", "saebyeok-client"])
def test_wheel_has_the_license(built: dict[str, list[Path]], name: str) -> None:
    assert any(item.endswith("licenses/LICENSE") for item in names_in(built[name]))


@pytest.mark.parametrize("name", [pytest.param("saebyeok", marks=pytest.mark.slow), "saebyeok-client"])
def test_second_build_has_equal_bytes(built: dict[str, list[Path]], tmp_path: Path, name: str) -> None:
    def later(directory: Path) -> None:
        """Copy the sources with other times and modes."""
        COPIES[name](directory)
        for path in directory.rglob("*.py"):
            path.touch()
            path.chmod(0o640)

    for first, second in zip(built[name], build(later, tmp_path, EPOCH), strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("removed", "left"), [("saebyeok", "saebyeok_client"), ("saebyeok-client", "serving.client")])
def test_removing_one_distribution_leaves_the_other(
    built: dict[str, list[Path]], tmp_path: Path, removed: str, left: str
) -> None:
    def uv(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "uv", *arguments, "--quiet", "--offline"], check=True)

    python = tmp_path / "venv" / "bin" / "python"
    uv("venv", "--python", sys.executable, str(tmp_path / "venv"))
    packages = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    # The dependencies of both.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    uv("pip", "install", "--python", str(python), "--no-deps", *(str(files[1]) for files in built.values()))
    uv("pip", "uninstall", "--python", str(python), removed)
    gone = {"saebyeok": "serving.client", "saebyeok-client": "saebyeok_client"}[removed]
    command = [str(python), "-c", FIND, left, gone]
    found, missing = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()
    assert Path(found).is_relative_to(packages)
    assert missing == f"No module named '{gone.partition('.')[0]}'"
    assert (python.parent / "saebyeok").exists() is (removed != "saebyeok")
    assert (python.parent / "saebyeok-client").exists() is (removed != "saebyeok-client")


def test_client_imports_two_packages_and_nothing_of_the_project() -> None:
    client = [module for module in modules() if module.name.startswith("serving.client")]
    assert {name for module in client for name in third_party(module.imports)} == {"httpx", "pydantic"}
    own = {name for module in client for name in module.imports if name.startswith(("pipeline", "serving"))}
    assert own
    assert all(name.startswith("serving.client.") for name in own)


def test_both_distributions_have_one_version() -> None:
    files = (ROOT / "pyproject.toml", ROOT / "serving" / "client" / "pyproject.toml")
    first, second = (tomllib.loads(file.read_text(encoding="utf-8"))["project"] for file in files)
    assert (first["version"], first["license"]) == (second["version"], second["license"])


@pytest.mark.parametrize("file", ["pyproject.toml", "serving/client/pyproject.toml"])
def test_installed_command_leads_to_a_function(file: str) -> None:
    project = tomllib.loads((ROOT / file).read_text(encoding="utf-8"))["project"]
    assert list(project["scripts"]) == [project["name"]]
    module, _, function = project["scripts"][project["name"]].partition(":")
    module = module.replace("saebyeok_client", "serving.client")
    assert callable(getattr(import_module(module), function))


def test_twine_finds_no_fault(built: dict[str, list[Path]]) -> None:
    found = subprocess.run([*TWINE, "--version"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"twine cannot be installed: {found.stderr.strip().splitlines()[-1]}")
    files = [str(file) for pair in built.values() for file in pair]
    checked = subprocess.run([*TWINE, "check", "--strict", *files], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout.count("PASSED")) == (0, 4), checked.stdout
