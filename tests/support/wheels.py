"""Wheels for installations without a network: small ones, and those of installed packages."""

from __future__ import annotations

import hashlib
import sysconfig
import zipfile
from importlib.metadata import distribution
from pathlib import Path


def small_wheel(folder: Path, name: str, version: str, code: bytes = b"") -> Path:
    """Write the wheel of a package of one module and return its path."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    return _write(folder / f"{name}-{version}-py3-none-any.whl", info, files)


def installed_wheel(folder: Path, name: str) -> Path:
    """Write the wheel of an installed package and return its path; its programs are scripts in the wheel."""
    installed = distribution(name)
    info = f"{name}-{installed.version}.dist-info"
    tag = next(line.split()[1] for line in (installed.read_text("WHEEL") or "").splitlines() if line.startswith("Tag:"))
    scripts = Path(sysconfig.get_path("scripts")).resolve()
    files = {}
    for file in installed.files or ():
        path = Path(str(file.locate())).resolve()
        if file.suffix == ".pyc" or file.name in ("RECORD", "INSTALLER", "REQUESTED"):
            continue
        inside = path.parent != scripts
        files[str(file) if inside else f"{name}-{installed.version}.data/scripts/{path.name}"] = path.read_bytes()
    return _write(folder / f"{name}-{installed.version}-{tag}.whl", info, files)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, info: str, files: dict[str, bytes]) -> Path:
    record = "".join(f"{name},,\n" for name in files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, f"{info}/RECORD": record.encode()}.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if "/scripts/" in name else 0o100644) << 16
            archive.writestr(entry, content)
    return path
