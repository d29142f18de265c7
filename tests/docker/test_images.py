"""The images, their scripts and the monitoring, checked without an engine."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import tomllib
from contextlib import closing
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.config_file import ROOT
from pipeline.settings import Settings
from tests.support.composed import BASE, DOCKER, project, read
from tests.support.postgres import postgres_server

SETTINGS = {f"SAEBYEOK_{name.upper()}" for name in Settings.model_fields}
IMAGES = sorted(DOCKER.glob("*.Dockerfile"))
SCRIPTS = sorted(DOCKER.glob("*.sh"))

images = pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)


@pytest.mark.parametrize("path", sorted(DOCKER.rglob("*")), ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    if path.is_dir():
        assert list(path.iterdir())
        return
    assert set(re.findall(r"SAEBYEOK_[A-Z_]+", path.read_text())) <= SETTINGS


@images
def test_image_installs_constrained_extras_without_root(path: Path) -> None:
    text = path.read_text("utf-8")
    # One command, with its continued lines.
    [install] = re.findall(r"^RUN pip install (?:\\\n|.)*", text, re.M)
    assert install.count(" install ") == install.count(" -c constraints.txt ")
    extras = set(re.findall(r"--extra (\w+)", install))
    assert extras
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert extras <= set(known) - {"dev"}
    assert "\nUSER saebyeok\n" in text
    for source in re.findall(r"^COPY (.+) \S+$", text, re.M):
        for name in source.split():
            assert (ROOT / name).exists(), name


@images
def test_image_has_the_exact_base_user_and_first_process_of_all(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.findall(r"^FROM (.+)$", text, re.M) == ["python:3.11.14-slim-bookworm"]
    # User and group of Airflow's own image; the service shares the store with the workers.
    assert "useradd --create-home --uid 50000 --gid 0 saebyeok" in text
    assert re.search(r'^ENTRYPOINT \["dumb-init", "--", ', text, re.M)


def words(path: Path, accelerator: str, torch: str = "cpu") -> list[str]:
    """Return what the shell puts into the commands of an image that is built with these arguments."""
    parts = re.findall(r"\$\(test .*?\)(?= )|\$\(test .*?\)$", path.read_text("utf-8"), re.M)
    environment = {"ACCELERATOR": accelerator, "TORCH_BACKEND": torch, "PATH": os.environ["PATH"]}
    return subprocess.check_output(["bash", "-c", "echo " + " ".join(parts)], env=environment, text=True).split()


def test_cuda_images_have_compiler_and_libraries() -> None:
    worker, service = DOCKER / "worker.Dockerfile", DOCKER / "service.Dockerfile"
    assert words(worker, "cpu") == ["--torch-backend", "cpu"]
    assert words(worker, "cpu", torch="") == []
    assert words(worker, "cuda") == ["gcc", "libc6-dev"]
    assert words(service, "cpu") == []
    assert words(service, "cuda") == ["onnxruntime-gpu[cuda,cudnn]"]


def test_cuda_libraries_of_the_service_are_pinned() -> None:
    names = [
        requirement.name
        for requirement in map(Requirement, requires("onnxruntime-gpu") or [])
        if any(requirement.marker and requirement.marker.evaluate({"extra": extra}) for extra in ("cuda", "cudnn"))
    ]
    assert any("cudnn" in name for name in names)
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}
    assert {canonicalize_name(name) for name in names} <= pinned


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_is_executable_and_bash_reads_it(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


def test_entry_point_becomes_the_command() -> None:
    code = "import os, sys; old = os.umask(0); print(oct(old), os.getpid(), sys.argv[1]); sys.exit(3)"
    with subprocess.Popen(
        [DOCKER / "entrypoint.sh", sys.executable, "-c", code, "two words"], stdout=subprocess.PIPE, text=True
    ) as process:
        output, _ = process.communicate()
    assert output.strip() == f"0o2 {process.pid} two words"
    assert process.returncode == 3


def test_old_logs_are_deleted_until_the_container_stops(tmp_path: Path) -> None:
    folders = {name: tmp_path / "logs" / name for name in ("old", "new")}
    for name, days in (("old", 3), ("new", 1)):
        folders[name].mkdir(parents=True)
        log = folders[name] / "attempt=1.log"
        log.touch()
        then = time.time() - days * 86400
        for path in (log, folders[name]):
            os.utime(path, (then, then))
    environment = os.environ | {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__LOG_RETENTION_DAYS": "2"}
    with subprocess.Popen([DOCKER / "clean-logs.sh"], env=environment) as process:
        while (folders["old"] / "attempt=1.log").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        assert process.wait() == 0
    assert (folders["new"] / "attempt=1.log").exists()


@pytest.mark.slow
@pytest.mark.airflow
def test_init_makes_pool_and_user_and_keeps_the_slots_of_an_operator(tmp_path: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__AUTH_MANAGER": project("compose.yaml", variables=BASE)["services"]["airflow-init"][
            "environment"
        ]["AIRFLOW__CORE__AUTH_MANAGER"],
    }
    subprocess.run([DOCKER / "init.sh"], env=environment | {"AIRFLOW_ADMIN_PASSWORD": "first"}, check=True)
    with closing(sqlite3.connect(tmp_path / "airflow.db")) as database:
        assert database.execute("SELECT slots FROM slot_pool WHERE pool = 'gpu'").fetchall() == [(1,)]
        assert database.execute("SELECT username FROM ab_user").fetchall() == [("admin",)]
        database.execute("UPDATE slot_pool SET slots = 3 WHERE pool = 'gpu'")
        database.commit()
        subprocess.run([DOCKER / "init.sh"], env=environment, check=True)
        assert database.execute("SELECT slots FROM slot_pool WHERE pool = 'gpu'").fetchall() == [(3,)]


@pytest.mark.server
@pytest.mark.skipif(not (shutil.which("initdb") and shutil.which("psql")), reason="PostgreSQL is not installed")
def test_celery_user_reaches_only_its_own_database() -> None:
    with postgres_server("airflow") as environment:

        def psql(user: str, database: str, command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["psql", f"--username={user}", f"--dbname={database}", f"--command={command}"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )

        assert psql("airflow", "postgres", "CREATE DATABASE airflow").returncode == 0
        image = {"POSTGRES_USER": "airflow", "POSTGRES_DB": "airflow", "CELERY_PASSWORD": "it's a secret"}
        subprocess.run([DOCKER / "celery-database.sh"], env=environment | image, check=True, stdout=subprocess.DEVNULL)
        assert psql("celery", "celery", "CREATE TABLE results (id int)").returncode == 0
        assert psql("airflow", "airflow", "SELECT 1").returncode == 0
        assert "permission denied for database" in psql("celery", "airflow", "SELECT 1").stderr


def test_dashboard_is_in_grafanas_configured_path() -> None:
    services = read("compose.monitoring.yaml")["services"]
    mounts = dict(volume.split(":")[:2] for name in services for volume in services[name]["volumes"])
    inside = {target: DOCKER / source for source, target in mounts.items() if source.startswith(".")}
    assert all(path.exists() for path in inside.values())
    [provider] = yaml.safe_load((DOCKER / "monitoring/providers/saebyeok.yaml").read_text("utf-8"))["providers"]
    assert list(inside[provider["options"]["path"]].glob("*.json"))


def test_alert_rules_are_mounted_and_name_metrics_of_the_service() -> None:
    prometheus = read("compose.monitoring.yaml")["services"]["prometheus"]
    mounts = dict(volume.split(":")[:2] for volume in prometheus["volumes"])
    monitoring = DOCKER / "monitoring"
    [rules] = yaml.safe_load((monitoring / "prometheus.yml").read_text("utf-8"))["rule_files"]
    assert rules in mounts.values()
    metrics = set(re.findall(r"saebyeok_\w+", (ROOT / "serving/api/metrics.py").read_text("utf-8")))
    [group] = yaml.safe_load((monitoring / "alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]:
        assert set(re.findall(r"saebyeok_\w+", rule["expr"])) <= metrics


def test_prometheus_reads_the_service_with_its_key() -> None:
    whole = project("compose.yaml", "compose.monitoring.yaml", variables=BASE | {"METRICS_KEY": "key"})
    [job] = yaml.safe_load((DOCKER / "monitoring" / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    host, port = job["static_configs"][0]["targets"][0].split(":")
    assert whole["services"][host]["ports"][0].endswith(f":{port}")
    [config] = whole["services"]["prometheus"]["configs"]
    assert config["target"] == job["authorization"]["credentials_file"]
    assert whole["configs"][config["source"]]["content"] == "key"
