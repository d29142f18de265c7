"""The container files, checked without an engine: names, settings, extras, secrets."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config_file import ROOT
from pipeline.settings import Settings

DOCKER = ROOT / "docker"
SETTINGS = {f"SAEBYEOK_{name.upper()}" for name in Settings.model_fields}
#: Variable that only compose reads, to mount the data.
MOUNTS = {"SAEBYEOK_DATA_IN_CONTAINER"}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", sorted(DOCKER.rglob("*")), ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    if path.is_dir():
        assert list(path.iterdir())
        return
    assert set(re.findall(r"SAEBYEOK_[A-Z_]+", path.read_text())) <= SETTINGS | MOUNTS


@pytest.mark.parametrize("path", sorted(DOCKER.glob("*.Dockerfile")), ids=lambda path: path.name)
def test_image_installs_constrained_extras_without_root(path: Path) -> None:
    text = path.read_text()
    extras = re.search(r'pip install -c constraints\.txt "\.\[([a-z,]+)\]"', text)
    assert extras is not None
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= set(known) - {"dev"}
    assert "\nUSER saebyeok\n" in text
    for source in re.findall(r"^COPY (.+) \S+$", text, re.M):
        for name in source.split():
            assert (ROOT / name).exists(), name


def test_compose_is_whole() -> None:
    compose = documents(DOCKER / "compose.yaml")[0]
    services = compose["services"]
    for name, service in services.items():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name
        for other in service.get("depends_on", {}):
            assert other in services
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or source.startswith(("$", ".")), volume
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} would be open to the network"


def test_dashboard_is_in_grafanas_configured_path() -> None:
    services = documents(DOCKER / "compose.monitoring.yaml")[0]["services"]
    mounts = dict(volume.split(":")[:2] for name in services for volume in services[name]["volumes"])
    inside = {target: DOCKER / source for source, target in mounts.items() if source.startswith(".")}
    assert all(path.exists() for path in inside.values())
    [provider] = documents(DOCKER / "monitoring" / "providers" / "saebyeok.yaml")[0]["providers"]
    assert list(inside[provider["options"]["path"]].glob("*.json"))
    [job] = documents(inside["/etc/prometheus/prometheus.yml"])[0]["scrape_configs"]
    host, port = job["static_configs"][0]["targets"][0].split(":")
    compose = documents(DOCKER / "compose.yaml")[0]
    assert compose["services"][host]["ports"][0].endswith(f":{port}")
    for name in services:
        assert all(port.startswith("127.0.0.1:") for port in services[name].get("ports", []))


def test_compose_secrets_are_empty_in_the_example() -> None:
    required = set(re.findall(r"\$\{([A-Z_]+):\?", (DOCKER / "compose.yaml").read_text()))
    lines = [line for line in (DOCKER / "env.example").read_text().splitlines() if line and line[0] != "#"]
    assert {line.removesuffix("=") for line in lines} == required
    assert all(line.endswith("=") for line in lines)


def test_first_deployment_reaches_unready_service() -> None:
    manifests = documents(DOCKER / "kubernetes" / "service.yaml")
    values = documents(DOCKER / "kubernetes" / "airflow-values.yaml")[0]
    url = next(item["value"] for item in values["env"] if item["name"] == "SAEBYEOK_SERVICE_URL")
    services = {item["metadata"]["name"]: item["spec"] for item in manifests if item["kind"] == "Service"}
    name, port = re.fullmatch(r"http://([a-z-]+):(\d+)", url).groups()  # type: ignore[union-attr]
    assert services[name]["publishNotReadyAddresses"] is True
    assert services[name]["ports"][0]["port"] == int(port)
