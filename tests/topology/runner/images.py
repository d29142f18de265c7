"""Images, built from the Dockerfiles without an engine.

Each `RUN` and `COPY` is a layer, cached by the digest of all that it depends on, as Docker does. Base images cannot be
had: the directories of this machine stand for Debian's (`roots.BASE`), its Python for the one in /usr/local.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pipeline.config_file import ROOT
from pipeline.stack.pip_settings import pip_settings
from tests.topology.runner.dockerfile import Instruction, healthcheck, read_instructions
from tests.topology.runner.roots import enter, make_skeleton, mount_kernel, mount_root

CACHE = ROOT / ".pytest_cache" / "topology"
LAYERS = CACHE / "layers"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Subset of .dockerignore that can occur in the copied directories.
IGNORED = ("__pycache__", "*.egg-info")
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass(frozen=True)
class Image:
    """Layers, the lowest first, and what a container of them starts with."""

    layers: tuple[Path, ...]
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    directory: str = "/"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: dict[str, Any] = field(default_factory=dict)

    def and_layer(self, layer: Path) -> Image:
        return replace(self, layers=(*self.layers, layer))


def build_image(dockerfile: Path, arguments: Mapping[str, str], checkout: Path = ROOT) -> Image:
    """Return the image of `dockerfile`, which copies from the checkout. CalledProcessError: a command failed."""
    image = Image(())
    for instruction in read_instructions(dockerfile):
        image = _applied(image, instruction, arguments, checkout)
    return image


def _applied(image: Image, instruction: Instruction, arguments: Mapping[str, str], checkout: Path) -> Image:
    match instruction.name:
        case "FROM":
            return _base_of(instruction.text)
        case "ARG":
            given = {name: arguments.get(name, value) for name, value in instruction.pairs().items()}
            return replace(image, arguments=image.arguments | given)
        case "ENV":
            return replace(image, environment=image.environment | instruction.pairs())
        case "RUN":
            return image.and_layer(_run(image, instruction.text))
        case "COPY":
            return image.and_layer(_copy(image, instruction.words(), checkout))
        case "WORKDIR":
            return replace(image, directory=instruction.text)
        case "USER":
            return replace(image, user=instruction.text)
        case "ENTRYPOINT":
            return replace(image, entrypoint=tuple(instruction.words()))
        case "CMD":
            return replace(image, command=tuple(instruction.words()))
        case "HEALTHCHECK":
            return replace(image, healthcheck=healthcheck(instruction.text))
        case "EXPOSE":
            return image
    raise ValueError(f"{instruction.name} is not known here")


def _base_of(name: str) -> Image:
    skeleton = cached_layer("skeleton", lambda draft: make_skeleton(draft / "upper"))
    if name.startswith("python:"):
        return Image((skeleton, cached_layer(f"python {sys.version}", _add_python)))
    if name.startswith("debian:"):
        return Image((skeleton,))
    raise ValueError(f"base image {name} is not known here")


def _add_python(draft: Path) -> None:
    """Copy this Python to /usr/local, where the official image has it."""
    source, target = Path(sys.base_prefix), draft / "upper" / "usr" / "local"
    ignore = shutil.ignore_patterns("site-packages", "test", "__pycache__")
    shutil.copytree(source / "lib" / PYTHON, target / "lib" / PYTHON, ignore=ignore)
    (target / "bin").mkdir()
    shutil.copy2(source / "bin" / PYTHON, target / "bin")
    for library in (source / "lib").glob("libpython*.so*"):
        shutil.copy2(library, target / "lib", follow_symlinks=False)
    for alias in ("python", "python3"):
        (target / "bin" / alias).symlink_to(PYTHON)
    skeleton = cached_layer("skeleton", lambda other: make_skeleton(other / "upper"))
    _run_in(Image((skeleton,)), draft, "ldconfig && python -m ensurepip && ln -s pip3 /usr/local/bin/pip")


def cached_layer(key: str, make: Any) -> Path:
    """Return the layer with this key; `make(draft)` writes a missing one below `draft/upper`."""
    layer = LAYERS / hashlib.sha256(key.encode()).hexdigest()[:12]
    if not layer.exists():
        draft = Path(f"{layer}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "upper").mkdir(parents=True)
        make(draft)
        (draft / "upper").rename(layer)
        shutil.rmtree(draft)
    return layer


def _key(image: Image, *more: object) -> str:
    return repr([[layer.name for layer in image.layers], image.environment, image.arguments, image.user, *more])


def _run(image: Image, command: str) -> Path:
    return cached_layer(_key(image, image.directory, command), lambda draft: _run_in(image, draft, command))


def _run_in(image: Image, draft: Path, command: str) -> None:
    """Run a command of a Dockerfile in the image, with this machine's network; changes go to `draft/upper`."""
    root, temporary = draft / "root", draft / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    environment = image.environment | _packages() | {"HOME": "/root"} | image.arguments
    script = [
        "set -eu",
        *mount_root(root, image.layers, draft),
        *mount_kernel(root),
        f"mkdir -p {root}{image.directory} && mount --bind {temporary} {root}/tmp",
        enter(root, image.user, image.directory, environment, ["sh", "-c", command]),
    ]
    namespaces = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    subprocess.run([*namespaces, "bash", "-c", "\n".join(script)], check=True)


def _packages() -> dict[str, str]:
    """Return where this machine gets packages from, for uv and pip, as a build machine has it in its configuration."""
    settings = pip_settings(sys.executable)
    uv = settings.variables | {"UV_CONSTRAINT": " ".join(settings.constraints), "UV_LINK_MODE": "copy"}
    names = {"UV_DEFAULT_INDEX": "PIP_INDEX_URL", "UV_FIND_LINKS": "PIP_FIND_LINKS", "SSL_CERT_FILE": "PIP_CERT"}
    pip = {pip_name: uv[name] for name, pip_name in names.items() if name in uv}
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {**uv, **pip, **proxies}


def _copy(image: Image, words: list[str], checkout: Path) -> Path:
    *names, target = words
    inside, sources = Path(image.directory, target), [checkout / name for name in names]
    files = dict(copied_files(sources, inside, is_directory=target.endswith("/") or len(sources) > 1))
    digest = {str(name): (_digest(path), os.access(path, os.X_OK)) for name, path in files.items()}
    return cached_layer(_key(image, digest), lambda draft: _write(draft / "upper", files))


def copied_files(sources: list[Path], target: Path, *, is_directory: bool) -> Iterator[tuple[Path, Path]]:
    """Yield the path in the image and the path here of each copied file, by Docker's rules."""
    for source in sources:
        if not source.is_dir():
            yield (target / source.name if is_directory else target), source
            continue
        for path in sorted(source.rglob("*")):
            relative = path.relative_to(source)
            if path.is_file() and not any(fnmatch(part, name) for part in relative.parts for name in IGNORED):
                yield target / relative, path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(layer: Path, files: Mapping[Path, Path]) -> None:
    for inside, path in files.items():
        target = layer / inside.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
