"""Which build of torch to install: CPU or CUDA. Standard library only."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.devices import cuda_devices
from pipeline.stack.lock import locked, pinned

#: Bytes on disk of the CUDA libraries that the CUDA build needs (measured: 3.7 GB).
CUDA_BYTES = 4 * 10**9
#: Variables for a look at an index that may be unreachable: it must fail quickly.
QUICK = {"UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "0"}


@dataclass(frozen=True)
class TorchBuild:
    """The chosen build as text, and what selects it: arguments and environment variables for uv."""

    text: str
    #: Bytes on disk in addition to those of an installation with the CPU build.
    more: int = 0
    arguments: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)


def choose_torch(
    python: str, lock: str, environment: Mapping[str, str], folder: Path, *, wanted: bool = True
) -> TorchBuild:
    """Return the build of the torch that the text `lock` of constraints.lock pins, for `python`.

    Without a GPU it is a CPU build, if pip's configuration (in `environment`) or PyTorch's own index has one. `folder`
    receives files that uv reads.
    """
    version = pinned("torch", lock)
    if not wanted:
        return TorchBuild(
            "torch: left out", 0, ["--override", _file(folder, "torch.txt", "torch ; python_version < '3'")]
        )
    if backend := environment.get("UV_TORCH_BACKEND"):
        return TorchBuild(f"torch: the build {backend}, as UV_TORCH_BACKEND says")
    if sys.platform != "linux":
        return TorchBuild(f"torch: the build for {sys.platform}")
    if gpus := cuda_devices():
        # uv prefers 2.13.0+cpu to 2.13.0 if pip's configuration offers both.
        other = _file(folder, "torch.txt", f"torch!={version}+cpu")
        return TorchBuild(f"torch: the CUDA build, for {gpus} GPU(s)", CUDA_BYTES, ["-c", other])
    file = _file(folder, "torch.txt", f"torch=={version}+cpu")
    for variables in ({}, {"UV_TORCH_BACKEND": "cpu"}):
        if _exists(python, file, {**environment, **QUICK, **variables}):
            return TorchBuild("torch: the CPU build, because this machine has no GPU", 0, ["-c", file], variables)
    return TorchBuild(
        f"torch: no CPU build of {version} for this Python is within reach, so the CUDA build is installed: "
        "2.5 GB more to download, 4 GB more on disk. It works on CPUs. docs/how-to/install.md: ways to a CPU build.",
        CUDA_BYTES,
    )


def lock_for(lock: Path, environment: Mapping[str, str], folder: Path) -> Path:
    """Return the path of constraints.lock, or of a copy in `folder` without the hashes of torch.

    The hashes are those of the builds on PyPI and of the CPU builds; UV_TORCH_BACKEND may select others.
    """
    if environment.get("UV_TORCH_BACKEND", "cpu") == "cpu":
        return lock
    text = lock.read_text(encoding="utf-8")
    return Path(
        _file(folder, "constraints.lock", text.replace(locked("torch", text), f"torch=={pinned('torch', text)}\n"))
    )


def _file(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(f"{text}\n", encoding="utf-8")
    return str(path)


def _exists(python: str, requirement: str, environment: Mapping[str, str]) -> bool:
    """Return whether uv finds a wheel for the file `requirement`."""
    command = [python, "-m", "uv", "pip", "compile", "--no-deps", "--python", python, requirement]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0  # noqa: S603
