"""Build a Bento for every deployment: the service's code together with the deployment's releases."""

from __future__ import annotations

import contextlib
import dis
import json
import logging
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import CodeType
from typing import TextIO

import bentoml
from bentoml._internal.bento.bento import BentoStore
from bentoml.exceptions import NotFound
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.atomic_files import locked
from pipeline.config_file import ROOT
from pipeline.errors import NewerFormatError, ServiceError
from pipeline.settings import Settings, library_environment
from pipeline.store.artifacts import Store
from pipeline.store.deployments import BAKED_DEPLOYMENT, Deployment, DeploymentLog
from pipeline.store.releases import Card, read_card
from serving.deployed.model_store import forget_models, import_release, model_tag, remove_damaged
from serving.deployed.outdated_models import delete_outdated_models

log = logging.getLogger(__name__)

BENTO_NAME = "saebyeok"


def bento_tag(deployment: Deployment) -> str:
    """Return the tag of a deployment's Bento: `saebyeok:<number>`."""
    return f"{BENTO_NAME}:{deployment.number}"


def ensure_bento(settings: Settings, store: Store, deployment: Deployment) -> str:
    """Build the Bento of `deployment` unless it exists, and return its tag. The Bento runs without store and log.

    Raises ServiceError if BentoML fails, StoreError if the disk is full; the deployment itself stays valid.
    """
    tag = bento_tag(deployment)
    with _writing(settings) as (bentos, lock):
        context = settings.home / "cache" / "bento"
        try:
            if not _is_built(bentos, deployment):
                _make(settings, store, deployment, context, bentos, lock)
                log.info("built Bento %s", tag)
        finally:
            # Also the one of a killed deployment, whose build has ended by now.
            shutil.rmtree(context, ignore_errors=True)
    return tag


def _make(
    settings: Settings, store: Store, deployment: Deployment, context: Path, bentos: BentoStore, lock: TextIO
) -> None:
    releases = {recipe: store.open(ref) for recipe, ref in sorted(deployment.releases.items())}
    cards = {recipe: read_card(release) for recipe, release in releases.items()}
    try:
        for release in releases.values():
            import_release(release, settings)
        write_context(context, deployment, cards)
        _build(settings, context, deployment, bentos, lock)
    except OSError as error:
        raise ServiceError(
            f"could not write the Bento of deployment {deployment.number}: {error}; fix the cause, then run "
            "`saebyeok deploy` again"
        ) from error


def write_context(directory: Path, deployment: Deployment, cards: Mapping[str, Card]) -> None:
    """Write the input of `bentoml build`: code, deployment, README, and the build file with pinned requirements.

    `cards` are the cards of the releases, by recipe.
    """
    shutil.rmtree(directory, ignore_errors=True)
    for source in service_modules():
        target = directory / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    (directory / BAKED_DEPLOYMENT).write_text(deployment.model_dump_json(indent=1), encoding="utf-8")
    (directory / "README.md").write_text(_readme(deployment, cards), encoding="utf-8")
    # JSON is valid YAML, and quotes Korean text and colons correctly.
    (directory / "bentofile.yaml").write_text(json.dumps(_build_file(deployment), indent=1), encoding="utf-8")


def service_modules() -> list[Path]:
    """Return the files of `serving` and of the pipeline modules that it imports, sorted."""
    found: set[Path] = set()
    waiting = [path for path in (ROOT / "serving").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if path.suffix == ".py":
            waiting += _imported(path)
    return sorted(found)


def requirements(extra: str = "serve") -> list[str]:
    """Return the base and `extra` requirements with their dependencies, at the versions of constraints.txt."""
    pins = _pins(ROOT / "constraints.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [Requirement(item) for item in [*project["dependencies"], *project["optional-dependencies"][extra]]]
    chosen: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        chosen[name] = f"{name}=={pins.get(name) or metadata.version(name)}"
        waiting += _needed_by(name, requirement.extras)
    return sorted(chosen.values())


def _needed_by(name: str, extras: set[str]) -> Iterator[Requirement]:
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def _pins(path: Path) -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, _, version in pairs}


def _imported(path: Path) -> Iterator[Path]:
    """Yield the files below ROOT that a module imports, `__init__.py` files included."""
    for name in _imported_names(compile(path.read_bytes(), str(path), "exec")):
        parts = name.split(".")
        candidates = [ROOT.joinpath(*parts).with_suffix(".py"), ROOT.joinpath(*parts, "__init__.py")]
        parents = [ROOT.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts))]
        yield from (item for item in [*candidates, *parents] if item.is_file())


def _imported_names(code: CodeType) -> Iterator[str]:
    """Yield the names of imported modules, and of the names imported from them, which may be modules too."""
    # From bytecode, because Python 3.11's `ast.parse` may fail in a thread while another thread parses.
    module = ""
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            module = step.argval
            yield module
        elif step.opname == "IMPORT_FROM":
            yield f"{module}.{step.argval}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imported_names(constant)


def home_bentos(settings: Settings) -> BentoStore:
    """Return the Bento store below HOME, independent of BENTOML_HOME in this process."""
    path = settings.home / "bentoml" / "bentos"
    path.mkdir(parents=True, exist_ok=True)
    return BentoStore(path)


def forget_bentos(settings: Settings, numbers: Collection[int], releases: Iterable[str]) -> None:
    """Delete the Bentos of all deployments except `numbers`, and `releases` from this machine's BentoML model store."""
    kept = {str(number) for number in numbers}
    with _writing(settings) as (bentos, _):
        # Listed without a name, because `bentoml.list` raises an error if no Bento has that name.
        for bento in bentoml.list(_bento_store=bentos):
            if bento.tag.name == BENTO_NAME and bento.tag.version not in kept:
                bentoml.delete(bento.tag, _bento_store=bentos)
    forget_models(settings, releases)


def forget_outdated(settings: Settings, store: Store) -> None:
    """Delete from this machine the Bentos and releases of deployments that are no longer retained."""
    forget_bentos(settings, DeploymentLog(store).numbers()[-settings.keep_deployments :], ())
    delete_outdated_models(settings, store)


@contextlib.contextmanager
def _writing(settings: Settings) -> Iterator[tuple[BentoStore, TextIO]]:
    """Yield the Bento store below HOME, without damaged Bentos and locked against other writers, and the lock."""
    bentos = home_bentos(settings)
    with locked(settings.home / "service" / "bentos.lock") as lock:
        remove_damaged(bentos)
        yield bentos, lock


def _is_built(bentos: BentoStore, deployment: Deployment) -> bool:
    try:
        bento = bentoml.get(bento_tag(deployment), _bento_store=bentos)
        baked = Path(bento.path) / "src" / BAKED_DEPLOYMENT
        return Deployment.parse(baked.read_bytes(), str(baked)) == deployment
    except (NotFound, FileNotFoundError, ValueError, NewerFormatError):
        return False


def _build(settings: Settings, directory: Path, deployment: Deployment, bentos: BentoStore, lock: TextIO) -> None:
    tag = bento_tag(deployment)
    with contextlib.suppress(NotFound):
        # An existing Bento with this number belongs to the log of another store.
        bentoml.delete(tag, _bento_store=bentos)
    # In a separate process, because BentoML imports the copied service, which would clash with the one imported here.
    environment = {**os.environ, **library_environment(settings.home), "SAEBYEOK_HOME": str(settings.home)}
    # BentoML ignores files in a hidden directory, which HOME is by default, unless the command line names them. So the
    # command names the build file, and runs in its directory.
    command = [sys.executable, "-m", "bentoml", "build", "--bentofile", "bentofile.yaml"]
    command += ["--version", str(deployment.number), "."]
    # The build inherits the lock: if this process is killed, the next one waits until the build has ended.
    result = subprocess.run(  # noqa: S603 - our own interpreter
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, pass_fds=[lock.fileno()]
    )
    if result.returncode != 0:
        raise ServiceError(
            f"BentoML could not build {tag}; fix the cause, then run `saebyeok deploy` again. Its last output: "
            f"{(result.stderr or result.stdout).strip()[-800:]}"
        )


def _build_file(deployment: Deployment) -> dict[str, object]:
    return {
        "service": "serving.service:Saebyeok",
        "name": BENTO_NAME,
        "labels": {"deployment": str(deployment.number), "run": deployment.run[:60]},
        "include": ["**/*"],
        "models": [model_tag(ref) for _, ref in sorted(deployment.releases.items())],
        "python": {"packages": requirements(), "lock_packages": False},
        "docker": {"python_version": f"{sys.version_info.major}.{sys.version_info.minor}"},
        "envs": [
            {"name": "BENTOML_DO_NOT_TRACK", "value": "True"},
            {"name": "ORT_DISABLE_TELEMETRY", "value": "1"},
        ],
    }


def _readme(deployment: Deployment, cards: Mapping[str, Card]) -> str:
    releases = "\n".join(
        f"- {recipe}: `{deployment.releases[recipe]}`{', trained on the shipped sample' if card.sample else ''}"
        for recipe, card in cards.items()
    )
    return f"# Saebyeok, deployment {deployment.number}\n\n{deployment.reason}\n\n{releases}\n"
