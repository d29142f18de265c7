"""Airflow's home: secrets, and variables that Airflow must not see."""

from __future__ import annotations

import json

import pytest

from pipeline.settings import Settings
from pipeline.stack.airflow_home import airflow_home, password_file, prepare, read_password, stack_environment
from tests.support.damage import damage_file, each_damage


def test_airflows_secrets_are_private_and_kept(settings: Settings) -> None:
    password = read_password(settings)
    prepare(settings)
    first = (airflow_home(settings) / "airflow.cfg").read_text()
    prepare(settings)
    assert (airflow_home(settings) / "airflow.cfg").read_text() == first
    assert read_password(settings) == password
    for path in airflow_home(settings).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@each_damage
def test_damaged_keys_and_password_are_made_again(settings: Settings, damage: str) -> None:
    read_password(settings)
    prepare(settings)
    home = airflow_home(settings)
    for path in (home / "keys.json", password_file(settings)):
        damage_file(path, damage)
        path.chmod(0o644)
    password = read_password(settings)
    prepare(settings)
    assert len(password) >= 16
    assert read_password(settings) == password
    keys = json.loads((home / "keys.json").read_text())
    assert keys.keys() == {"fernet", "secret", "jwt"}
    assert keys["fernet"] in (home / "airflow.cfg").read_text()
    for path in home.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_variables_of_another_airflow_are_left_out(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
    monkeypatch.setenv("AIRFLOW_HOME", "/somewhere/else")
    environment = stack_environment(settings)
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in environment
    assert environment["AIRFLOW_HOME"] == str(airflow_home(settings))
    assert environment["SAEBYEOK_HOME"] == str(settings.home)
