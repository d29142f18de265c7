"""Airflow's home below SAEBYEOK_HOME: its configuration, its keys and its one user."""

from __future__ import annotations

import base64
import configparser
import io
import json
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import SecretStr, TypeAdapter

from pipeline.atomic_files import read_state, replace_state
from pipeline.settings import ROOT, Settings, library_environment
from pipeline.stack.preflight import address

USER = "admin"
WRITTEN = "# Written anew by every `saebyeok up`.\n"
LOCAL_SETTINGS = """import sys

from pipeline.stack.preload import preload

# Airflow takes what is named here for settings of its own.
__all__ = []

preload(sys.argv)
"""
#: Tasks at a time: one training (the pool sees to that) beside the light stages of the other recipe.
PARALLELISM = 3
#: Sockets live in the temporary directory, and the path of a Unix socket ends at 107 bytes.
LONGEST_TEMPORARY = 60
_WORDS = TypeAdapter(dict[str, str])


def prepare(settings: Settings) -> None:
    """Write what Airflow reads at start, keeping the keys of before."""
    home = airflow_home(settings)
    keys = _kept(home / "keys.json", _new_keys)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict(configuration(settings, keys))
    text = io.StringIO()
    parser.write(text)
    write_private(home / "airflow.cfg", f"{WRITTEN}{text.getvalue()}")
    # Airflow imports it in each of its processes, from there.
    (home / "config").mkdir(mode=0o700, exist_ok=True)
    write_private(home / "config" / "airflow_local_settings.py", f"{WRITTEN}{LOCAL_SETTINGS}")


def read_password(settings: Settings) -> str:
    """The password of Airflow's one user, made where there is none yet."""
    return _kept(password_file(settings), lambda: {USER: secrets.token_urlsafe(12)})[USER]


def airflow_home(settings: Settings) -> Path:
    """AIRFLOW_HOME."""
    return Path(library_environment(settings.home)["AIRFLOW_HOME"])


def password_file(settings: Settings) -> Path:
    """Where the user's password is."""
    return airflow_home(settings) / "simple_auth_manager_passwords.json.generated"


def configuration(settings: Settings, keys: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """`airflow.cfg`, by section: SQLite and LocalExecutor on loopback, all files below AIRFLOW_HOME."""
    home = airflow_home(settings)
    host, port = address(settings.airflow_url)
    return {
        "core": {
            "dags_folder": str(ROOT / "dags"),
            "plugins_folder": str(ROOT / "plugins"),
            "executor": "LocalExecutor",
            "parallelism": str(PARALLELISM),
            "load_examples": "False",
            "fernet_key": keys["fernet"],
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": str(password_file(settings)),
            "execution_api_server_url": f"http://{host}:{port}/execution/",
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}"},
        "api": {
            "host": host,
            "port": str(port),
            "base_url": f"http://{host}:{port}",
            "secret_key": keys["secret"],
            "instance_name": "Saebyeok",
        },
        "api_auth": {"jwt_secret": keys["jwt"]},
        "logging": {"base_log_folder": str(home / "logs")},
        "dag_processor": {
            "dag_bundle_storage_path": str(home / "bundles"),
            # The machine is small: one process reads the two DAG files.
            "parsing_processes": "1",
        },
        # An executor lets go of a task that has ended, or waits for a person, up to this many seconds later. By default
        # it is five: it would hold a place that the next task could have, and a person might answer before.
        "workers": {"min_heartbeat_interval": "1"},
        "usage_data_collection": {"enabled": "False"},
    }


def stack_environment(settings: Settings) -> dict[str, str]:
    """What the stack's processes see: this environment, with every library and setting pointed below HOME.

    Variables of another Airflow on this machine (`AIRFLOW__DATABASE__...`) must not reach this one.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    kept |= library_environment(settings.home) | setting_variables(settings)
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    kept["PYTHONUNBUFFERED"] = "1"
    temporary = settings.home / "tmp"
    if len(str(temporary)) <= LONGEST_TEMPORARY:
        temporary.mkdir(parents=True, exist_ok=True)
        kept["TMPDIR"] = str(temporary)
    return kept


def setting_variables(settings: Settings, *, secret: bool = False) -> dict[str, str]:
    """The settings as `SAEBYEOK_*` variables, for processes that read them anew; secret ones on demand."""
    variables = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value() if secret else None
        if value is not None:
            variables[f"SAEBYEOK_{name.upper()}"] = str(value)
    return variables


def _kept(path: Path, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """The JSON file at `path`, made where it is absent, damaged or lacks a key; nobody else may read it."""
    made, kept = make(), read_state(path, _WORDS)
    if kept is None or not made.keys() <= kept.keys():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, json.dumps(made))
        return made
    path.chmod(0o600)
    return kept


def _new_keys() -> dict[str, str]:
    fernet = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return {"fernet": fernet, "secret": secrets.token_urlsafe(32), "jwt": secrets.token_urlsafe(48)}


def write_private(path: Path, text: str) -> None:
    """Replace `path`, readable by this user only from the first byte on."""
    replace_state(path, text, mode=0o600)
