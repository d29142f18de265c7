"""constraints.txt pins every package of an installation; some pins are easily broken."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, distributions

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from pipeline.config_file import ROOT
from pipeline.stack.installer import EXTRAS
from pipeline.stack.lock import locked
from tests.support.lock_writer import TORCH_CPU, locked_packages


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def wanted() -> list[Requirement]:
    """Return the requirements of pyproject.toml, with every installed extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(EXTRAS.split(",")) == set(extras)
    return [Requirement(text) for text in sum(extras.values(), project["dependencies"])]


def closure() -> dict[str, Version]:
    """Return the installed version of every package that pyproject.toml requires, directly or not."""
    found: dict[str, Version] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = wanted()
    while waiting:
        requirement = waiting.pop()
        state = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if state in seen:
            continue
        seen.add(state)
        installed = distribution(requirement.name)
        assert requirement.specifier.contains(installed.version, prereleases=True), requirement
        found[state[0]] = Version(installed.version)
        for text in installed.requires or []:
            further = Requirement(text)
            markers = [{"extra": extra} for extra in requirement.extras or {""}]
            if further.marker is None or any(further.marker.evaluate(marker) for marker in markers):
                waiting.append(further)
    return found


@pytest.mark.torch
def test_every_package_is_pinned_at_what_is_installed() -> None:
    pinned = pins()
    unpinned = {
        name: str(version)
        for name, version in closure().items()
        # A local label (`+cpu`) names the build, not the version.
        if str(version).split("+")[0] != str(pinned.get(name))
    }
    assert unpinned == {}


def test_lock_has_hashes_for_every_pin_and_names_no_index() -> None:
    text = (ROOT / "constraints.lock").read_text(encoding="utf-8")
    blocks = re.findall(r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", text, re.M)
    assert {canonicalize_name(name): Version(pin) for name, pin, _ in blocks} == pins()
    rest = re.sub(r"^\S+==\S+(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n", "", text, flags=re.M)
    assert all(line.startswith("#") for line in rest.splitlines())
    assert "://" not in text


def test_lock_accepts_the_cpu_builds_of_torch() -> None:
    version, built = TORCH_CPU
    entry = locked("torch", (ROOT / "constraints.lock").read_text(encoding="utf-8"))
    assert entry.startswith(f"torch=={version} ")
    assert all(sha in entry for sha in built.values())


def test_lock_writer_keeps_pins_and_leaves_out_other_platforms() -> None:
    one, two = "1" * 64, "2" * 64
    text = (
        f"numpy==2.5.1 ; python_full_version < '3.15' \\\n    --hash=sha256:{two} \\\n    --hash=sha256:{one}\n"
        f"pywin32==312 ; sys_platform == 'win32' \\\n    --hash=sha256:{one}\n"
        f"torch=={TORCH_CPU[0]} \\\n    --hash=sha256:{one}\n"
    )
    numpy, torch = locked_packages(text)
    assert numpy == ("numpy==2.5.1", [one, two])
    assert torch == (f"torch=={TORCH_CPU[0]}", sorted([one, *TORCH_CPU[1].values()]))


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_python_versions_are_named_alike(minor: int) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"3.{minor}" in SpecifierSet(project["requires-python"])
    assert f"Programming Language :: Python :: 3.{minor}" in project["classifiers"]
    assert f"python3.{minor}" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_one_onnx_runtime_is_installed() -> None:
    # The CPU and the GPU package install into the same folder, and the last one overwrites the other.
    names = {canonicalize_name(item.metadata["Name"]) for item in distributions()}
    assert "onnxruntime-gpu" in names
    assert "onnxruntime" not in names


@pytest.mark.airflow
@pytest.mark.slow
def test_airflows_celery_executor_can_be_imported() -> None:
    # celery 5.7 breaks it, although `pip check` passes.
    code = "from airflow.providers.celery.executors.celery_executor import CeleryExecutor"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
