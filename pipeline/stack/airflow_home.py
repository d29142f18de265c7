"""Airflow's home below SAEBYEOK_HOME: its configuration, its keys and its single user."""

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

from pipeline.atomic_files import read_state, replace_file
from pipeline.config_file import ROOT
from pipeline.settings import Settings, library_environment
from pipeline.stack.preflight import address

USER = "admin"
WRITTEN = "# Rewritten by every `saebyeok up`.\n"
LOCAL_SETTINGS = """import sys

from pipeline.stack.preload import preload

# Airflow imports the names in `__all__` as its own settings.
__all__ = []

preload(sys.argv)
"""
#: Tasks at a time: one training (the pool has one slot) and light stages of other recipes.
PARALLELISM = 3
#: Maximum length of TMPDIR: it contains Unix sockets, whose paths have at most 107 bytes.
LONGEST_TEMPORARY = 60
_WORDS = TypeAdapter(dict[str, str])


def prepare(settings: Settings) -> None:
    """Write Airflow's configuration files; existing keys are kept."""
    home = airflow_home(settings)
    keys = _kept(home / "keys.json", _new_keys)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict(configuration(settings, keys))
    text = io.StringIO()
    parser.write(text)
    write_private(home / "airflow.cfg", f"{WRITTEN}{text.getvalue()}")
    # Each Airflow process imports `airflow_local_settings` from this folder.
    (home / "config").mkdir(mode=0o700, exist_ok=True)
    write_private(home / "config" / "airflow_local_settings.py", f"{WRITTEN}{LOCAL_SETTINGS}")


def read_password(settings: Settings) -> str:
    """Return the password of Airflow's single user; it is created if absent."""
    return _kept(password_file(settings), lambda: {USER: secrets.token_urlsafe(12)})[USER]


def airflow_home(settings: Settings) -> Path:
    """Return AIRFLOW_HOME."""
    return Path(library_environment(settings.home)["AIRFLOW_HOME"])


def password_file(settings: Settings) -> Path:
    """Return the path of the file with the user's password."""
    return airflow_home(settings) / "simple_auth_manager_passwords.json.generated"


def configuration(settings: Settings, keys: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return `airflow.cfg` by section: SQLite and LocalExecutor on loopback, all files below AIRFLOW_HOME."""
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
            # One process is enough for so few DAG files.
            "parsing_processes": "1",
            # Seconds between two parses of an unchanged DAG file, whose recipes may have changed. With the default of
            # 30, parsing takes 4% of a core all day. A changed DAG file is parsed at once.
            "min_file_process_interval": "120",
        },
        # Seconds until the executor releases a task that has ended or waits for a person. With the default of 5 the
        # task blocks a slot longer, and a person might answer before the release (see dags/approval.py).
        "workers": {"min_heartbeat_interval": "1"},
        "usage_data_collection": {"enabled": "False"},
    }


def stack_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of the stack's processes: the current one, with all libraries and settings below HOME.

    Variables of another Airflow on this machine (`AIRFLOW__DATABASE__...`) are left out.
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
    """Return the settings as `SAEBYEOK_*` variables, for processes that read them again; secrets only with `secret`."""
    variables = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value() if secret else None
        if value is not None:
            variables[f"SAEBYEOK_{name.upper()}"] = str(value)
    return variables


def _kept(path: Path, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return the JSON file at `path`; create it if it is absent, damaged or lacks a key. Only this user may read it."""
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
    """Replace the file at `path`; it is readable by this user only, from the first byte on."""
    replace_file(path, text, mode=0o600)
