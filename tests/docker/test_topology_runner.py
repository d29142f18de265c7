"""The rules of Docker that the runner of `make test-topology` follows, without namespaces."""

from __future__ import annotations

from pathlib import Path

from pipeline.config_file import ROOT
from tests.support.composed import DOCKER
from tests.topology.runner.containers import seconds
from tests.topology.runner.dockerfile import healthcheck, read_instructions
from tests.topology.runner.images import copied_files


def test_continued_lines_are_one_instruction_without_comments() -> None:
    found = list(read_instructions(DOCKER / "worker.Dockerfile"))
    (environment,) = (part.pairs() for part in found if part.name == "ENV" and "AIRFLOW_HOME" in part.text)
    assert environment["DUMB_INIT_SETSID"] == "0"
    assert environment["SAEBYEOK_HOME"] == "/saebyeok/home"
    (install,) = (part.text for part in found if part.text.startswith("pip install"))
    assert install.endswith('--torch-backend "$TORCH_BACKEND"})')
    assert [part.name for part in found[:4]] == ["FROM", "ARG", "ARG", "ARG"]
    assert [part.name for part in found[-3:]] == ["ENV", "ENTRYPOINT", "CMD"]


def test_health_check_has_the_form_of_a_compose_file() -> None:
    (check,) = (part for part in read_instructions(DOCKER / "service.Dockerfile") if part.name == "HEALTHCHECK")
    found = healthcheck(check.text)
    assert (found["interval"], found["timeout"], found["start_period"]) == ("10s", "5s", "30s")
    assert found["test"][:3] == ["CMD", "python", "-c"]
    assert healthcheck("CMD test -e /x")["test"] == ["CMD-SHELL", "test -e /x"]


def test_duration_is_in_seconds() -> None:
    assert [seconds(text) for text in ("1m30s", "10m", "500ms", "0s")] == [90, 600, 0.5, 0]


def test_copied_file_goes_into_a_directory_or_gets_the_name() -> None:
    copied = dict(copied_files([DOCKER / "init.sh"], Path("/init"), is_directory=False))
    assert copied == {Path("/init"): DOCKER / "init.sh"}
    names = dict(copied_files([ROOT / "README.md", ROOT / "LICENSE"], Path("/app"), is_directory=True))
    assert set(names) == {Path("/app/README.md"), Path("/app/LICENSE")}
    packages = dict(copied_files([ROOT / "serving"], Path("/app/serving"), is_directory=False))
    assert Path("/app/serving/api/auth.py") in packages
    assert not [path for path in packages if "__pycache__" in path.parts]
