"""The compose files of each kind of host, checked without an engine."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from typing import Any

import pytest

from pipeline.config_file import ROOT
from pipeline.settings import Settings
from tests.support.composed import BASE, DOCKER, HOSTS, OPTIONAL, REQUIRED, SEVERAL, project, source, target

#: Directories that the images of others make for their user.
MADE = {"postgres": {"/var/lib/postgresql/data"}, "redis": {"/data"}, "prom/prometheus": {"/prometheus"}}
#: Settings that the images or the DAG files fix, or that are for a checkout.
FIXED = {"home", "config", "expectations", "service_url", "airflow_url", "gpu_queue", "gpu_pool", "recipes"}

hosts = pytest.mark.parametrize("host", HOSTS)


def services(host: str, **more: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = project(*HOSTS[host], variables=BASE | more)["services"]
    return found


def settings_read_in(*folders: str) -> set[str]:
    """Return the settings that the modules of these folders read."""
    text = "".join(path.read_text("utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return set(re.findall(r"\bsettings\.(\w+)", text, re.I)) & set(Settings.model_fields)


@hosts
def test_every_container_is_limited_checked_and_of_an_exact_version(host: str) -> None:
    for name, service in services(host).items():
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert service["mem_limit"], name
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?$", service["image"]), name
        built = "build" in service and "HEALTHCHECK" in (ROOT / service["build"]["dockerfile"]).read_text("utf-8")
        # The one that ends.
        assert built or "healthcheck" in service, name
        assert service["restart"] == ("no" if name == "airflow-init" else "unless-stopped")
        assert service.get("healthcheck", {}).get("disable", False) == (name == "airflow-init")


def test_images_have_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    built = [s["image"] for host in HOSTS for s in services(host).values() if "build" in s]
    assert {image.partition(":")[2] for image in built} == {version, f"{version}-cuda"}
    for host in HOSTS:
        for service in services(host).values():
            cuda = service.get("build", {}).get("args", {}).get("ACCELERATOR") == "cuda"
            assert service["image"].endswith("-cuda") == cuda
            assert ("deploy" in service) == cuda


@hosts
def test_writable_volume_is_at_a_directory_that_its_image_makes(host: str) -> None:
    # Docker gives a new volume the owner of that directory. If there is none, root owns the volume.
    whole = project(*HOSTS[host], variables=BASE)
    for name, service in whole["services"].items():
        for volume in service.get("volumes", []):
            if source(volume).startswith((".", "/")):
                continue
            assert source(volume) in whole["volumes"], name
            if volume.endswith(":ro"):
                continue
            if "build" in service:
                text = (ROOT / service["build"]["dockerfile"]).read_text("utf-8")
                made = set(re.search(r"install -d -o saebyeok [^/]*(/.*)", text)[1].split())  # type: ignore[index]
            else:
                made = MADE[service["image"].partition(":")[0]]
            assert target(volume) in made, name


@hosts
def test_ports_are_open_on_loopback_or_the_private_network(host: str) -> None:
    for name, service in services(host).items():
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:", f"{SEVERAL['PRIVATE_ADDRESS']}:")), name


@hosts
def test_dependencies_are_in_the_project(host: str) -> None:
    found = services(host)
    assert all(other in found for service in found.values() for other in service.get("depends_on", {}))
    for service in found.values():
        for volume in service.get("volumes", []):
            assert not source(volume).startswith(".") or (DOCKER / source(volume)).exists()


def test_every_variable_of_the_example_changes_a_container() -> None:
    assert SEVERAL.keys() <= REQUIRED | OPTIONAL
    before = {files: project(*files, variables=BASE) for files in HOSTS.values()}
    unused = {
        name
        for name in REQUIRED | OPTIONAL
        if all(project(*files, variables=BASE | {name: "other"}) == before[files] for files in before)
    }
    assert unused == set()


def test_every_variable_of_the_compose_files_is_in_the_example() -> None:
    text = "".join(path.read_text("utf-8") for path in DOCKER.glob("*.yaml"))
    read = set(re.findall(r"\$\{(\w+)", text)) | set(re.findall(r"^ +([A-Z_]+):$", text, re.M))
    assert read == REQUIRED | OPTIONAL


def test_required_variable_stops_the_start() -> None:
    for name in REQUIRED:
        with pytest.raises(KeyError, match=name):
            project("compose.yaml", variables={key: value for key, value in BASE.items() if key != name})


@pytest.mark.parametrize(
    ("container", "folders"),
    [
        ("serving/service", ["serving"]),
        ("worker/worker", ["dags", "pipeline/stages", "pipeline/deployment", "pipeline/store", "pipeline/data"]),
        ("worker/worker-gpu", ["pipeline/training", "pipeline/export", "pipeline/evaluation", "pipeline/tracking"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_container_gets_the_settings_that_its_code_reads(container: str, folders: list[str]) -> None:
    read = settings_read_in(*folders) - FIXED
    assert read
    host, name = container.split("/")
    environment = services(host, **{f"SAEBYEOK_{setting.upper()}": "1" for setting in read})[name]["environment"]
    assert {setting for setting in read if f"SAEBYEOK_{setting.upper()}" not in environment} == set()


def test_bucket_credentials_reach_workers_and_service() -> None:
    for host in ("one", "worker", "serving"):
        for name, service in services(host, AWS_ACCESS_KEY_ID="key", AWS_ENDPOINT_URL="http://s3").items():
            if name.startswith(("worker", "service", "airflow-api")):
                assert service["environment"]["AWS_ACCESS_KEY_ID"] == "key"
                assert service["environment"]["AWS_ENDPOINT_URL"] == "http://s3"


def test_data_of_the_host_are_the_data_of_the_workers() -> None:
    plain, given = services("one"), services("one", SAEBYEOK_DATA="/srv/korean")
    for name in ("worker", "worker-gpu"):
        assert plain[name]["environment"]["SAEBYEOK_DATA"] == ""
        assert given[name]["environment"]["SAEBYEOK_DATA"] == "/data"
        assert "no-data:/data:ro" in plain[name]["volumes"]
        assert "/srv/korean:/data:ro" in given[name]["volumes"]


def test_workers_have_no_key_to_sign_tokens_and_no_access_to_airflows_database() -> None:
    for host in ("one", "worker"):
        for name in ("worker", "worker-gpu"):
            environment = services(host)[name]["environment"]
            assert not {key for key in environment if re.search("JWT|FERNET|SQL_ALCHEMY|POSTGRES", key)}
            assert environment["AIRFLOW__CELERY__RESULT_BACKEND"].endswith("/celery")
    assert "AIRFLOW__API_AUTH__JWT_SECRET" in services("one")["airflow-scheduler"]["environment"]


def test_worker_of_another_host_uses_the_addresses_of_the_control_host() -> None:
    environment = services("worker")["worker"]["environment"]
    ports = {port.split(":")[1] for s in services("control").values() for port in s.get("ports", [])}
    for url in ("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "AIRFLOW__CELERY__BROKER_URL"):
        assert SEVERAL["CONTROL_HOST"] in environment[url]
        assert re.search(r":(\d+)/", environment[url].partition("@")[2] or environment[url])[1] in ports  # type: ignore[index]
    assert f"@{SEVERAL['CONTROL_HOST']}/celery" in environment["AIRFLOW__CELERY__RESULT_BACKEND"]
    assert "5432" in ports
    assert all(services("worker")[name]["hostname"] == SEVERAL["WORKER_HOST"] for name in ("worker", "worker-gpu"))


def test_control_host_leaves_workers_and_service_to_others() -> None:
    found = services("control")
    assert {name for name in found if "profiles" in found[name]} == {"worker", "worker-gpu", "service"}


def test_one_training_at_a_time_per_host() -> None:
    queues = {}
    for name in ("worker", "worker-gpu"):
        command = services("worker")[name]["command"]
        options = dict(pairwise(command))
        queues[options["--queues"]] = (name, options["--concurrency"], options["--celery-hostname"])
    assert queues["gpu"] == ("worker-gpu", "1", "gpu@%h")
    assert queues["default"][0] == "worker"
    assert Settings.model_fields["gpu_queue"].default == "gpu"


@hosts
def test_health_check_asks_the_worker_by_its_own_name(host: str) -> None:
    for service in services(host).values():
        if "--celery-hostname" in service.get("command", []):
            name = service["command"][service["command"].index("--celery-hostname") + 1]
            assert service["healthcheck"]["test"][1].endswith(f" --destination {name.replace('%h', '$HOSTNAME')}")


@hosts
def test_urls_of_databases_name_an_installed_driver(host: str) -> None:
    from sqlalchemy import create_engine

    urls = [
        value.removeprefix("db+")
        for service in services(host).values()
        for value in service["environment"].values()
        if re.match(r"(db\+)?postgresql", value)
    ]
    assert urls or "serving" in host
    for url in urls:
        assert create_engine(url).driver == "psycopg"


@pytest.mark.airflow
@pytest.mark.slow
def test_classes_that_are_named_can_be_imported() -> None:
    text = "".join(path.read_text("utf-8") for path in DOCKER.rglob("*.yaml"))
    names = set(re.findall(r"airflow\.providers\.[\w.]+", text)) | {"socket.gethostname"}
    assert len(names) == 2
    code = "import sys; from pydoc import locate; print([name for name in sys.argv[1:] if locate(name) is None])"
    result = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_secrets_of_docker_are_in_no_commit_and_no_image() -> None:
    for name in (".gitignore", ".dockerignore"):
        assert "docker/.env" in (ROOT / name).read_text("utf-8").splitlines()
