"""The doctor: it finds problems, suggests fixes, and survives broken checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.cli import doctor
from pipeline.cli.doctor import Diagnosis, diagnose
from pipeline.devices import cuda_devices
from pipeline.settings import Settings
from pipeline.tracking.run_directories import RunDirectory
from tests.support.http_server import running
from tests.support.running_service import free_url

if TYPE_CHECKING:
    from tests.pipeline.conftest import Bucket


@pytest.fixture
def quiet(settings: Settings) -> Settings:
    """Return settings whose ports are free."""
    service, airflow = (free_url() for _ in range(2))
    return settings.model_copy(update={"service_url": service, "airflow_url": airflow})


@pytest.fixture
def answers() -> Iterator[Callable[[dict[str, int]], str]]:
    """Yield `answers({"/livez": 200})`, which returns the URL of a server with these statuses, and 404 elsewhere."""
    servers = ExitStack()

    def serve(statuses: dict[str, int]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(statuses.get(self.path, 404))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return servers.enter_context(running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)))

    with servers:
        yield serve


def test_healthy_machine_reports_every_check_without_problems(quiet: Settings) -> None:
    findings = diagnose(quiet)
    assert [item for item in findings if item.state == "problem"] == []
    assert {item.check for item in findings} == {
        "python",
        "packages",
        "onnxruntime",
        "gpu",
        "disk",
        "store",
        "recipes",
        "data",
        "service",
        "airflow",
        "tracking",
    }
    assert all(item.do for item in findings if item.state == "note")


def test_unusable_recipe_files_are_problems(quiet: Settings, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("title = ", encoding="utf-8")
    (tmp_path / "nsmc copy.toml").touch()
    settings = quiet.model_copy(update={"recipes": f"{tmp_path}:{tmp_path / 'absent'}"})
    findings = list(doctor.check_recipes(settings))
    assert {item.state for item in findings} == {"problem"}
    assert [item.text.partition(";")[0].partition(":")[0] for item in findings] == [
        f"SAEBYEOK_RECIPES names {tmp_path / 'absent'}, which is not a directory",
        f"{tmp_path / 'nsmc copy.toml'} is ignored",
        f"{tmp_path / 'broken.toml'} is not TOML",
    ]


def test_a_package_of_another_version_is_named(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("# header\npydantic==1.0.0\nnot-installed-here==3.1\n", encoding="utf-8")
    (finding,) = doctor.check_packages(constraints)
    assert finding.state == "problem"
    assert "1 of 1 packages differ" in finding.text
    assert "pydantic 2." in finding.text
    assert "(not 1.0.0)" in finding.text


def test_unwritable_store_is_a_problem(quiet: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (finding,) = doctor.check_store(quiet, str(tmp_path / "file" / "store"))
    assert finding.state == "problem"
    assert "SAEBYEOK_STORE" in finding.do


def test_a_store_may_be_checked_twice(quiet: Settings) -> None:
    assert [item.state for _ in range(2) for item in doctor.check_store(quiet, None)] == ["ok", "ok"]


def test_home_that_cannot_be_created_is_a_problem(quiet: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (finding,) = doctor.check_disk(quiet.model_copy(update={"home": tmp_path / "file" / "home"}))
    assert finding.state == "problem"


@pytest.mark.parametrize(
    ("statuses", "state", "says"),
    [
        ({"/livez": 200, "/readyz": 200}, "ok", "is ready"),
        ({"/livez": 200, "/readyz": 503}, "problem", "alive but not ready"),
        ({}, "problem", ", not the service"),
    ],
)
def test_the_service_is_asked(
    statuses: dict[str, int],
    state: str,
    says: str,
    quiet: Settings,
    answers: Callable[[dict[str, int]], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A proxy for the outside must not catch a call to this machine.
    for name, value in {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}.items():
        monkeypatch.setenv(name, value)
    (finding,) = doctor.check_service(quiet.model_copy(update={"service_url": answers(statuses)}))
    assert finding.state == state
    assert says in finding.text


def test_another_server_on_airflows_port_is_a_problem(
    quiet: Settings, answers: Callable[[dict[str, int]], str]
) -> None:
    (finding,) = doctor.check_airflow(quiet.model_copy(update={"airflow_url": answers({})}))
    assert finding.state == "problem"
    assert "SAEBYEOK_AIRFLOW_URL" in finding.do


def test_data_that_are_not_there_are_a_problem(quiet: Settings, tmp_path: Path) -> None:
    for directory, state in ((tmp_path / "gone", "problem"), (tmp_path, "ok")):
        (finding,) = doctor.check_data(quiet.model_copy(update={"data": directory}))
        assert finding.state == state


def test_a_key_with_no_server_is_a_problem(tracking_on: None, quiet: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", free_url())
    (finding,) = doctor.check_tracking(quiet)
    assert finding.state == "problem"


def test_runs_that_wait_to_be_sent_are_counted(quiet: Settings) -> None:
    directories = [quiet.home / "wandb" / "wandb" / f"offline-run-20260101_03000{n}-ab12cd3{n}" for n in range(3)]
    for directory in directories:
        directory.mkdir(parents=True)
        (directory / f"run-{RunDirectory(directory).id}.wandb").write_bytes(b"recorded")
    for mark in ("uploaded", "linked"):
        RunDirectory(directories[0]).mark(mark)
    waiting = [item for item in doctor.check_tracking(quiet) if item.do == "saebyeok sync"]
    assert [item.text for item in waiting] == ["2 offline runs are not uploaded to Weights & Biases yet"]


def test_failing_check_does_not_stop_the_others(quiet: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def die() -> Iterator[Diagnosis]:
        raise RuntimeError("the driver is broken")

    monkeypatch.setattr(doctor, "check_gpu", die)
    findings = {item.check: item for item in diagnose(quiet)}
    assert "the driver is broken" in findings["gpu"].text
    assert findings["tracking"].state == "note"


@pytest.mark.parametrize(
    ("installed", "state"),
    [
        (["onnxruntime_gpu"], "ok"),
        (["onnxruntime"], "note"),
        ([], "note"),
        (["onnxruntime", "onnxruntime_gpu"], "problem"),
    ],
)
def test_onnxruntime_gpu_must_be_installed_alone(
    installed: list[str], state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in installed:
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    (finding,) = doctor.check_onnxruntime()
    assert finding.state == state


def test_onnxruntime_runs_what_the_probe_asks() -> None:
    # Without CUDA it must report the fallback; with CUDA, that there was none.
    works, reason = doctor._onnxruntime_cuda()
    assert works == bool(cuda_devices())
    assert works or "CPUExecutionProvider" in reason


def test_compiler_is_found_as_triton_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert doctor._compiler().state == "problem"
    for name in ("clang", "gcc"):
        (tmp_path / name).touch(mode=0o755)
        assert doctor._compiler().text.endswith(str(tmp_path / name))
    monkeypatch.setenv("CC", "/opt/cc")
    assert doctor._compiler().text.endswith("/opt/cc")


def test_bucket_is_checked_and_missing_is_a_problem(quiet: Settings, bucket: Bucket) -> None:
    (there,) = doctor.check_store(quiet, bucket.uri)
    assert there.state == "ok"
    (gone,) = doctor.check_store(quiet, f"s3://{bucket.name}-gone/prefix")
    assert gone.state == "problem"
    assert gone.do
