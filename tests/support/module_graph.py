"""The project's modules, their imports, and the side of an installation to which each belongs."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.config_file import ROOT

FOLDERS = ("dags", "pipeline", "plugins", "serving")

GROUND = {
    "pipeline",
    "pipeline.atomic_files",
    "pipeline.config_file",
    "pipeline.devices",
    "pipeline.errors",
    "pipeline.job",
    "pipeline.loopback",
    "pipeline.nested",
    "pipeline.progress",
    "pipeline.recipes",
    "pipeline.sample",
    "pipeline.settings",
    "pipeline.signals",
    "pipeline.toml_lines",
    "pipeline.store",
    "pipeline.texts",
}
#: Entry points for users; above the stages, and imported by nothing.
TOOLS = {"pipeline.cli", "pipeline.stack"}
#: Modules that have another name elsewhere: in the distribution of the client, and in published models.
PORTABLE = {"serving.client", "pipeline.models.mean_pooled"}
#: Modules whose side differs from that of their folder, and their extras. Applications use the client.
EXTRAS_OF = {
    "pipeline.cli.predict": ("train",),
    "pipeline.deployment": ("serve",),
    "pipeline.http_requests": (),
    "pipeline.stack": ("airflow",),
    "pipeline.stages.deploy": ("serve",),
    "pipeline.stages.running": (),
    "pipeline.stages.stage": (),
    "serving.client": (),
    "serving.schemas": (),
}
EXTRAS_OF_FOLDER = {"dags": ("airflow",), "pipeline": ("train",), "plugins": ("airflow",), "serving": ("serve",)}


@dataclass(frozen=True)
class Module:
    """One Python file; `top` are its module-level imports, `lazy` those inside functions."""

    name: str
    path: Path
    top: frozenset[str]
    lazy: frozenset[str]

    @property
    def imports(self) -> frozenset[str]:
        """All imported modules."""
        return self.top | self.lazy

    @property
    def layer(self) -> str:
        """One of `ground`, `stages`, `tools`, `serving` and `dags`."""
        folder = self.name.split(".")[0]
        if folder != "pipeline":
            return "dags" if folder == "plugins" else folder
        if belongs(self.name, GROUND):
            return "ground"
        return "tools" if belongs(self.name, TOOLS) else "stages"

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras with which it must be importable (the base is always installed)."""
        named = next((extras for name, extras in EXTRAS_OF.items() if belongs(self.name, {name})), None)
        if named is not None:
            return named
        if self.layer in ("ground", "tools"):
            return ()
        return EXTRAS_OF_FOLDER[self.name.split(".")[0]]


def belongs(name: str, group: set[str]) -> bool:
    """Return whether a module or a package that contains it is in `group`; the root package counts only for itself."""
    return name in group or any(name.startswith(f"{entry}.") for entry in group if entry not in FOLDERS)


@cache
def modules() -> tuple[Module, ...]:
    """Return every module of the project."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return tuple(_read(path) for path in paths)


def _read(path: Path) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    top = {found for statement in tree.body for found in _imported(statement, name)}
    return Module(name, path, frozenset(top), frozenset(imports_of(tree, name) - top))


def imports_of(tree: ast.Module, name: str) -> set[str]:
    """Return all modules that a module imports, at its top or inside functions."""
    return {found for node in statements(tree) for found in _imported(node, name)}


def statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield every statement, in a tenth of the time of `ast.walk`, which visits all parts of expressions too."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            waiting += below if isinstance(below := getattr(node, field, None), list) else []


def _imported(node: ast.AST, importer: str) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        module = _absolute(node, importer)
        return {_target(module, alias.name) for alias in node.names}
    return set()


def _absolute(node: ast.ImportFrom, importer: str) -> str:
    """Return the module that `node` imports from; only those in `PORTABLE` may import relatively."""
    assert node.module is not None
    if node.level == 0:
        return node.module
    package = importer if (ROOT / importer.replace(".", "/")).is_dir() else importer.rpartition(".")[0]
    assert node.level == 1, f"{importer}: import from a parent"
    assert belongs(importer, PORTABLE), f"{importer}: relative import"
    return f"{package}.{node.module}"


def _target(module: str, name: str) -> str:
    # `from pipeline import releases` imports a module, `from pipeline import __version__` does not.
    below = ROOT / module.replace(".", "/") / name
    return f"{module}.{name}" if below.with_suffix(".py").exists() or below.is_dir() else module


def third_party(names: frozenset[str]) -> set[str]:
    """Return the packages among `names` that are neither Python's nor the project's."""
    own = {*FOLDERS, "expectations", *(path.stem for path in (ROOT / "dags").glob("*.py"))}
    return {name.split(".")[0] for name in names} - own - set(sys.stdlib_module_names)


@cache
def declared() -> dict[str, tuple[Requirement, ...]]:
    """Return the requirements in pyproject.toml: by extra, and of the base under ''."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: tuple(Requirement(text) for text in texts) for extra, texts in groups.items()}


def direct(extras: tuple[str, ...]) -> set[str]:
    """Return the distributions that the base and `extras` require directly."""
    return {canonicalize_name(item.name) for extra in ("", *extras) for item in declared()[extra]}


@cache
def closure(extras: tuple[str, ...]) -> frozenset[str]:
    """Return the distributions in an installation with the base and `extras`."""
    seen: set[tuple[str, str]] = set()
    queue = [item for extra in ("", *extras) for item in declared()[extra]]
    while queue:
        item = queue.pop()
        for extra in ("", *item.extras):
            name = canonicalize_name(item.name)
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            queue += _requirements(name, extra)
    return frozenset(name for name, _ in seen)


def _requirements(name: str, extra: str) -> list[Requirement]:
    try:
        found = [Requirement(text) for text in requires(name) or ()]
    except PackageNotFoundError:
        return []
    return [item for item in found if item.marker is None or item.marker.evaluate({"extra": extra})]


@cache
def distributions() -> Mapping[str, list[str]]:
    """Return the distributions that provide each package; cached, because reading them takes a second."""
    return packages_distributions()


def absent(extras: tuple[str, ...]) -> set[str]:
    """Return the top-level packages installed here that an installation with `extras` would not have."""
    held = closure(extras)
    return {
        package
        for package, providers in distributions().items()
        if not {canonicalize_name(name) for name in providers} & held
        and package not in FOLDERS
        and package not in sys.stdlib_module_names
        and re.fullmatch(r"\w+", package)
    }
