"""Airflow's home: secrets, and what it must not see."""

from __future__ import annotations

import pytest

from pipeline.settings import Settings
from pipeline.stack.airflow_home import airflow_home, prepare, read_password, stack_environment


def test_airflows_secrets_are_private_and_kept(settings: Settings) -> None:
    password = read_password(settings)
    prepare(settings)
    first = (airflow_home(settings) / "airflow.cfg").read_text()
    prepare(settings)
    assert (airflow_home(settings) / "airflow.cfg").read_text() == first
    assert read_password(settings) == password
    for path in airflow_home(settings).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_another_airflow_on_the_machine_does_not_leak_in(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
    monkeypatch.setenv("AIRFLOW_HOME", "/somewhere/else")
    environment = stack_environment(settings)
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in environment
    assert environment["AIRFLOW_HOME"] == str(airflow_home(settings))
    assert environment["SAEBYEOK_HOME"] == str(settings.home)
