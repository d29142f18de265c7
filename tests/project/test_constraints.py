"""constraints.txt pins every package of an installation; some pins are easily broken."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import distribution, distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pipeline.settings import ROOT
from pipeline.stack.bootstrap import EXTRAS


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


def test_every_package_is_pinned_at_what_is_installed() -> None:
    pinned = pins()
    unpinned = {
        name: str(version)
        for name, version in closure().items()
        # A local label (`+cpu`) names the build, not the version.
        if str(version).split("+")[0] != str(pinned.get(name))
    }
    assert unpinned == {}


def test_one_onnx_runtime_is_installed() -> None:
    # The CPU and the GPU package install into the same folder, and the last one overwrites the other.
    names = {canonicalize_name(item.metadata["Name"]) for item in distributions()}
    assert "onnxruntime-gpu" in names
    assert "onnxruntime" not in names


@pytest.mark.airflow
def test_airflows_celery_executor_can_be_imported() -> None:
    # celery 5.7 breaks it, although `pip check` passes.
    code = "from airflow.providers.celery.executors.celery_executor import CeleryExecutor"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
