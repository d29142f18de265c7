"""An installation without the checkout has all files that the packages read."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

from pipeline.config_file import ROOT


def test_the_wheel_holds_every_file_of_its_packages(tmp_path: Path) -> None:
    source = tmp_path / "source"
    leavings = shutil.ignore_patterns("__pycache__", "uncommitted", "*.egg-info")
    for folder in ("expectations", "pipeline", "serving"):
        shutil.copytree(ROOT / folder, source / folder, ignore=leavings)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    expected = {path.relative_to(source).as_posix() for path in source.rglob("*/*") if path.is_file()}
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), "."], cwd=source, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert sorted(expected - held) == []
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_installed_command_leads_to_a_function() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert list(scripts) == ["saebyeok"]
    module, _, function = scripts["saebyeok"].partition(":")
    assert callable(getattr(import_module(module), function))
