"""Build wheel and sdist of `saebyeok` and `saebyeok-client`, byte for byte the same each time: `make dist`."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from copy import copy
from pathlib import Path

from pipeline.config_file import ROOT
from tests.support.checkout import git

#: Files that building or running leaves in the sources.
LEFT = shutil.ignore_patterns("__pycache__", "uncommitted", "build", "*.egg-info")
PACKAGES = ("expectations", "pipeline", "serving")
UV = (sys.executable, "-m", "uv")
#: In an environment of its own, because it has many dependencies.
TWINE = (*UV, "tool", "run", "--cache-dir", str(ROOT / ".pytest_cache" / "uv"), "--from", "twine==7.0.0", "twine")


def main(target: Path) -> None:
    """Replace the directory `target` by the four files, dated by the commit, and check them with twine."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or git(ROOT, "log", "-1", "--format=%ct"))
    shutil.rmtree(target, ignore_errors=True)
    built = [file for copy in (copy_project, copy_client) for file in build(copy, target, epoch)]
    subprocess.run([*TWINE, "check", "--strict", *map(str, built)], check=True)


def copy_project(directory: Path) -> None:
    """Copy the sources of `saebyeok` into `directory`."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, directory / name, ignore=LEFT)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, directory / name)


def copy_client(directory: Path) -> None:
    """Copy the sources of `saebyeok-client` into `directory`."""
    shutil.copytree(ROOT / "serving" / "client", directory, ignore=LEFT, dirs_exist_ok=True)
    shutil.copy(ROOT / "LICENSE", directory / "LICENSE")


def build(copy: Callable[[Path], None], target: Path, epoch: int) -> list[Path]:
    """Return the sdist and the wheel in `target`, of the sources that `copy` writes; `epoch` is their Unix time."""
    with tempfile.TemporaryDirectory() as temporary:
        source, made = Path(temporary) / "source", Path(temporary) / "made"
        source.mkdir()
        copy(source)
        _uv_build("--sdist", source, made, epoch)
        (sdist,) = made.glob("*.tar.gz")
        target.mkdir(parents=True, exist_ok=True)
        sdist = Path(shutil.move(sdist, target))
        settle(sdist, epoch)
        # From the sdist, which must therefore be complete.
        _uv_build("--wheel", sdist, made, epoch)
        (wheel,) = made.glob("*.whl")
        return [sdist, Path(shutil.move(wheel, target))]


def _uv_build(kind: str, source: Path, target: Path, epoch: int) -> None:
    # With the pinned setuptools of this environment.
    command = [*UV, "build", kind, "--no-build-isolation", "--offline", "--quiet", "--python", sys.executable]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch)}
    found = subprocess.run([*command, "--out-dir", str(target), str(source)], env=environment, capture_output=True)
    assert found.returncode == 0, found.stderr.decode()


def settle(sdist: Path, epoch: int) -> None:
    """Rewrite an sdist with sorted names, one time, no owner and usual modes; setuptools writes those of the files."""
    packed = io.BytesIO()
    with tarfile.open(sdist) as before, tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as after:
        for member in sorted(before.getmembers(), key=lambda member: member.name):
            runs = member.isdir() or member.mode & 0o100
            # `TarInfo.replace` is newer than Debian's Python 3.11.2.
            settled = copy(member)
            settled.mtime, settled.mode = epoch, 0o755 if runs else 0o644
            settled.uid = settled.gid = 0
            settled.uname = settled.gname = ""
            after.addfile(settled, before.extractfile(member))
    sdist.write_bytes(gzip.compress(packed.getvalue(), mtime=epoch))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
