"""The compose files as Docker Compose reads them: extended services, merged files, variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from pipeline.config_file import ROOT

DOCKER = ROOT / "docker"
#: The files that a host is started with.
HOSTS = {
    "one": ("compose.yaml",),
    "one with GPU": ("compose.yaml", "compose.gpu.yaml", "compose.service-gpu.yaml", "compose.monitoring.yaml"),
    "control": ("compose.yaml", "compose.control.yaml"),
    "worker": ("compose.worker.yaml",),
    "GPU worker": ("compose.worker.yaml", "compose.gpu.yaml"),
    "serving": ("compose.service.yaml",),
    "GPU serving": ("compose.service.yaml", "compose.service-gpu.yaml"),
}
EXAMPLE = (DOCKER / "env.example").read_text(encoding="utf-8")
#: The variables that must be set everywhere, and those that may be.
REQUIRED = set(re.findall(r"^([A-Z_]+)=$", EXAMPLE, re.M))
OPTIONAL = set(re.findall(r"^#([A-Z_]+)=", EXAMPLE, re.M))
#: Values that only a host of several needs.
SEVERAL = {"PRIVATE_ADDRESS": "10.0.0.2", "WORKER_HOST": "worker-1.internal", "CONTROL_HOST": "control.internal"}
BASE = dict.fromkeys(REQUIRED, "secret") | SEVERAL
#: `$$`, `${NAME}`, and `${NAME:-value}` or its like.
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<kind>[-?+])(?P<text>[^}]*))?\})")


@cache
def read(name: str) -> dict[str, Any]:
    """Return the content of a file; nobody may change it."""
    document: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))
    return document


def project(*names: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the project of these files, merged in this order. KeyError: a required variable is unset."""
    merged: dict[str, Any] = {}
    for name in names:
        services = {key: extended(service) for key, service in read(name)["services"].items()}
        merged = merge(merged, {**read(name), "services": services})
    filled = fill({key: part for key, part in merged.items() if not key.startswith("x-")}, variables)
    for service in filled["services"].values():
        service["environment"] = passed_on(service.get("environment") or {}, variables)
    return filled


def extended(service: Mapping[str, Any]) -> dict[str, Any]:
    """Return a service together with the one that it extends."""
    if "extends" not in service:
        return dict(service)
    base = read(service["extends"]["file"])["services"][service["extends"]["service"]]
    return merge(base, {key: part for key, part in service.items() if key != "extends"})


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Return `low` with the values of `high`: mappings are merged, ports added, volumes replaced by target."""
    merged = dict(low)
    for key, value in high.items():
        if isinstance(value, Mapping) and isinstance(low.get(key), Mapping):
            merged[key] = merge(low[key], value)
        elif key == "volumes" and isinstance(value, list):
            merged[key] = list({target(volume): volume for volume in [*low.get(key, []), *value]}.values())
        elif key == "ports":
            merged[key] = [*low.get(key, []), *value]
        else:
            merged[key] = value
    return merged


def target(volume: str) -> str:
    """Return the path in the container of `source:target` or `source:target:ro`; the source may contain colons."""
    return volume.removesuffix(":ro").rpartition(":")[2]


def source(volume: str) -> str:
    return volume.removesuffix(":ro").rpartition(":")[0]


def fill(value: Any, variables: Mapping[str, str]) -> Any:
    """Return `value` with all variables in its texts replaced."""
    if isinstance(value, Mapping):
        return {key: fill(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [fill(part, variables) for part in value]
    return VARIABLE.sub(lambda found: replaced(found, variables), value) if isinstance(value, str) else value


def replaced(found: re.Match[str], variables: Mapping[str, str]) -> str:
    if found["name"] is None:
        return "$"
    given = variables.get(found["name"], "")
    if found["kind"] == "+":
        return found["text"] if given else ""
    if found["kind"] == "?" and not given:
        raise KeyError(found["name"])
    return given or found["text"] or ""


def passed_on(environment: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a container: a variable without a value has the one of `variables`, if it is set."""
    given = {name: variables.get(name) if value is None else str(value) for name, value in environment.items()}
    return {name: value for name, value in given.items() if value is not None}
