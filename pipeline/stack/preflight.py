"""Checks before an installation or start that takes minutes: permissions, disk space, ports, data.

Standard library only, because it runs before the virtual environment exists.
Each check returns a message for the user, or None if there is no problem.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.config_file import read_config
from pipeline.recipes.files import published_files
from pipeline.texts import without_secrets

#: Oldest version of glibc that the wheels of torch and onnxruntime-gpu accept, by machine.
OLDEST_GLIBC = {"x86_64": [2, 28], "aarch64": [2, 34]}
#: Bytes that an installation and one run's artifacts need (measured: 2.5 GB and 0.3 GB).
INSTALL_BYTES = 4 * 10**9
RUN_BYTES = 10**9


def platform_problem(system: str, machine: str, libc: tuple[str, str]) -> str | None:
    """Return a message if torch or ONNX Runtime has no wheels for this platform; `libc` is `platform.libc_ver()`."""
    oldest = OLDEST_GLIBC.get(machine)
    name, version = libc
    if system == "Linux" and oldest and name == "glibc" and [int(part) for part in version.split(".")] >= oldest:
        return None
    here = f"{system} on {machine}"
    if system == "Linux":
        here += f" with {name} {version}" if name else " with a C library other than glibc"
    return (
        "training and serving need Linux on x86_64 (glibc 2.28 or newer) or aarch64 (glibc 2.34 or newer), "
        f"but this is {here}. Elsewhere, the command line and the service's client work: "
        "pip install -c constraints.txt ."
    )


def writing_problem(directory: Path) -> str | None:
    """Return a message if `directory` cannot be written; it is created if absent."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return f"{directory} is not writable ({error.strerror}): choose another directory or fix its permissions"


def room_problem(directory: Path, needed: int) -> str | None:
    """Return a message if fewer than `needed` bytes are free on the disk of `directory`."""
    free = shutil.disk_usage(directory).free
    if free >= needed:
        return None
    return (
        f"the disk that holds {directory} has {free / 1e9:.1f} GB free, but {needed / 1e9:.0f} GB are needed: "
        "free some space, or use a checkout on a larger disk"
    )


def port_problem(url: str, variable: str) -> str | None:
    """Return a message if no server can listen at `url`: taken or invalid. `variable` is the setting to change."""
    if problem := address_problem(url, variable):
        return problem
    host, port = address(url)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set this option too: a port whose last connections are in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return (
                f"port {port} on {host} cannot be used ({error.strerror}): stop the program that uses it, "
                f"or choose another port, for example: make up {variable}=http://{host}:{port + 1}"
            )
    return None


def address(url: str) -> tuple[str, int]:
    """Return host and port of an `http://` URL."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


def address_problem(url: str, variable: str) -> str | None:
    """Return a message if `url`, the value of setting `variable`, is not an address to listen at."""
    if is_address(url):
        return None
    return f"{variable} is {without_secrets(url)!r}: set a host and a port from 1 to 65535, for example http://127.0.0.1:8080"


def is_address(url: str) -> bool:
    """Return whether `url` is `http://` with an IPv4 address or host name and a port."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and bool(parts.port) and ":" not in (parts.hostname or ":")
    except ValueError:  # no closing bracket, or the port is not a number or too large
        return False


def same_port_problem(one: str, other: str) -> str | None:
    """Return a message if Airflow (URL `one`) and the service (URL `other`) have the same port."""
    if not (is_address(one) and is_address(other)) or address(one)[1] != address(other)[1]:
        return None
    return (
        f"SAEBYEOK_AIRFLOW_URL ({one}) and SAEBYEOK_SERVICE_URL ({other}) have the same port: set two different ports"
    )


def data_problem(directory: Path, recipes: Sequence[Path]) -> str | None:
    """Return a message if `directory` has no recipe's published files, or only some of the files of one.

    `recipes` are the directories of all recipes. A recipe without any file there is skipped by the runs. An invalid
    recipe fails in its own `validate` task.
    """
    published = published_files(recipes)
    missing = {
        recipe: [name for name in names if not (directory / name).exists()] for recipe, names in published.items()
    }
    usable = any(not names for names in missing.values())
    partly = {recipe for recipe, names in missing.items() if len(names) < len(published[recipe])}
    named = [name for recipe, names in missing.items() for name in names if not usable or recipe in partly]
    if not named:
        return None
    return f"{directory} lacks {', '.join(named)}: the data directory must hold the published files by these names"


def text_setting(name: str, default: str) -> str:
    """Return environment variable `name`, else the setting in the configuration file, else `default`."""
    value = read_config().values.get(name.removeprefix("SAEBYEOK_").lower())
    return os.environ.get(name) or (value if isinstance(value, str) else "") or default
