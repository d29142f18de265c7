"""An installation from a folder of wheels: hashes, the build of torch, resuming, and pip in place of uv."""

from __future__ import annotations

import io
import os
import shutil
from importlib.metadata import Distribution, distributions, version
from pathlib import Path

import pytest

from pipeline.devices import cuda_devices
from pipeline.stack.installer import EXTRAS, Installer, InstallError, pip_progress, uv_progress
from pipeline.stack.terminal import Progress
from tests.support.wheels import installed_wheel, sha256, small_wheel

PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "small"
version = "1"
dependencies = ["one", "torch"]
[tool.setuptools]
py-modules = []
[project.optional-dependencies]
"""


@pytest.fixture(scope="module")
def only_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("installer") / "venv"


@pytest.fixture
def venv(only_venv: Path) -> Path:
    """Return an environment that is absent, or has only pip: creating one takes seconds."""
    for package in packages(only_venv):
        metadata = Path(str(package.locate_file(f"{package.name}-{package.version}.dist-info")))
        for file in package.files or ():
            Path(str(file.locate())).unlink(missing_ok=True)
        shutil.rmtree(metadata)
    shutil.rmtree(only_venv / "cache", ignore_errors=True)
    return only_venv


def packages(venv: Path) -> list[Distribution]:
    """Return the packages of the tests that an environment has, without a process of it."""
    found = distributions(path=[str(site) for site in venv.glob("lib/python*/site-packages")])
    return [item for item in found if item.name in ("one", "small", "torch", "uv")]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the wheels of uv and setuptools."""
    folder = tmp_path_factory.mktemp("tools")
    return [installed_wheel(folder, name) for name in ("uv", "setuptools")]


@pytest.fixture
def wheels(tmp_path: Path, tools: list[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder in which pip and uv look for wheels."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for tool in tools:
        (folder / tool.name).hardlink_to(tool)
    for name in ("one-1.0", "torch-2.0", "torch-2.0+cpu"):
        small_wheel(folder, *name.split("-"))
    for name in os.environ:
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def installer(tmp_path: Path, venv: Path, wheels: Path) -> Installer:
    """Return the installer of a project that requires `one` and `torch`."""
    root = tmp_path / "project"
    root.mkdir()
    extras = "".join(f"{name} = []\n" for name in EXTRAS.split(","))
    (root / "pyproject.toml").write_text(PROJECT + extras, encoding="utf-8")
    pins = {name: version(name) for name in ("uv", "setuptools")} | {"one": "1.0", "torch": "2.0"}
    (root / "constraints.txt").write_text("".join(f"{name}=={pin}\n" for name, pin in pins.items()), encoding="utf-8")
    blocks = []
    for name, pin in pins.items():
        hashes = [f"    --hash=sha256:{sha256(path)}" for path in sorted(wheels.glob(f"{name}-*"))]
        blocks.append(" \\\n".join([f"{name}=={pin}", *hashes]))
    (root / "constraints.lock").write_text("\n".join([*blocks, ""]), encoding="utf-8")
    return Installer(root, venv, tmp_path / "home" / "logs" / "install.log", Progress(io.StringIO()))


def said(installer: Installer) -> str:
    out = installer.progress._out
    assert isinstance(out, io.StringIO)
    return out.getvalue()


def installed(installer: Installer) -> dict[str, str]:
    return {item.name: item.version for item in packages(installer.venv) if item.name != "small"}


@pytest.mark.slow
@pytest.mark.skipif(cuda_devices() > 0, reason="this machine has a GPU")
def test_machine_without_gpu_gets_the_cpu_build_of_torch(installer: Installer) -> None:
    installer.install()
    assert installed(installer) == {"one": "1.0", "torch": "2.0+cpu", "uv": version("uv")}
    assert "torch: the CPU build" in said(installer)
    assert not (installer.venv / "cache").exists()


@pytest.mark.slow
@pytest.mark.skipif(cuda_devices() > 0, reason="this machine has a GPU")
def test_without_cpu_build_the_other_is_installed_and_named(installer: Installer, wheels: Path) -> None:
    (wheels / "torch-2.0+cpu-py3-none-any.whl").unlink()
    installer.install()
    assert installed(installer)["torch"] == "2.0"
    assert "torch: no CPU build of 2.0 for this Python is within reach" in said(installer)


@pytest.mark.slow
def test_changed_file_is_refused(installer: Installer, wheels: Path) -> None:
    small_wheel(wheels, "one", "1.0", b"changed = True")
    with pytest.raises(InstallError, match=r"Hash mismatch for `one==1\.0`"):
        installer.install()


@pytest.mark.slow
def test_interrupted_installation_resumes(installer: Installer, wheels: Path, tmp_path: Path) -> None:
    path = wheels / "one-1.0-py3-none-any.whl"
    path.rename(tmp_path / path.name)
    with pytest.raises(InstallError, match="rerun the command to resume; downloads are kept"):
        installer.install()
    kept = (installer.venv / "pyvenv.cfg").stat().st_ino
    assert (installer.venv / "cache").exists()
    (tmp_path / path.name).rename(path)
    installer.install()
    assert installed(installer)["one"] == "1.0"
    assert (installer.venv / "pyvenv.cfg").stat().st_ino == kept


@pytest.mark.slow
def test_torch_can_be_left_out(installer: Installer) -> None:
    Installer(installer.root, installer.venv, installer.log, installer.progress, torch=False).install()
    assert "torch" not in installed(installer)
    assert installed(installer)["one"] == "1.0"


@pytest.mark.slow
def test_pip_installs_the_pins_if_uv_is_absent(installer: Installer, wheels: Path) -> None:
    next(wheels.glob("uv-*")).unlink()
    installer.install()
    assert installed(installer) == {"one": "1.0", "torch": "2.0+cpu"}
    assert "uv cannot be installed, so pip installs the packages" in said(installer)


def test_uvs_log_becomes_progress() -> None:
    log = ""
    said = []
    for line in (
        "Using Python 3.13.0 environment at: /venv",
        "Resolved 303 packages in 3.12s",
        "Downloading torch (502.2MiB)",
        "Downloading uv (16.6MiB)",
        " Downloaded uv",
        " Downloaded torch",
        "Prepared 303 packages in 1m 15s",
    ):
        log += f"{line}\n"
        said.append(uv_progress(log, lambda: 2))
    assert said == [
        "resolving the packages",
        "downloading 303 packages, 0 of 0 large ones done",
        "downloading 303 packages, 0 of 1 large ones done; now torch (502.2MiB)",
        "downloading 303 packages, 0 of 2 large ones done; now torch (502.2MiB), uv (16.6MiB)",
        "downloading 303 packages, 1 of 2 large ones done; now torch (502.2MiB)",
        "downloading 303 packages, 2 of 2 large ones done",
        "unpacked 2 packages",
    ]


def test_pips_log_becomes_progress() -> None:
    log = ""
    said = []
    for line in (
        "Obtaining file:///checkout",
        "Collecting apache-airflow<3.4,>=3.3 (from saebyeok==0.1.0)",
        "  Downloading apache_airflow-3.3.2-py3-none-any.whl (12 kB)",
        "Processing /wheels/torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl (from saebyeok==0.1.0)",
        "  Downloading ruamel.yaml-0.19.1-py3-none-any.whl (1.1 MB)",
        "Installing collected packages: a, b, c",
    ):
        log += f"{line}\n"
        said.append(pip_progress(log, lambda: 2))
    assert said == [
        "resolving the packages",
        "fetched 0 packages, at apache-airflow",
        "fetched 0 packages, at apache-airflow",
        "fetched 1 packages, at torch",
        "fetched 2 packages, at ruamel-yaml (1.1 MB)",
        "unpacked 2 of 3 packages (the longest step)",
    ]
