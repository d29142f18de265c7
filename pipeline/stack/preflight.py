"""What can be known before minutes are spent: rights, room, ports, data.

Standard library only, as it runs before there is a virtual environment.
Each check returns a sentence to show, or None where all is well.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

#: Bytes that an installation takes, with room for one night's artifacts (measured: 3.0 GB and 0.3 GB).
INSTALL_BYTES = 6 * 10**9
RUN_BYTES = 10**9


def writing_problem(directory: Path) -> str | None:
    """Why `directory` cannot be written, it being made where it is absent."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return f"{directory} cannot be written ({error.strerror}): choose another place, or mend its permissions"


def room_problem(directory: Path, needed: int) -> str | None:
    """Whether fewer than `needed` bytes are free where `directory` is."""
    free = shutil.disk_usage(directory).free
    if free >= needed:
        return None
    return (
        f"the disk that holds {directory} has {free / 1e9:.1f} GB free and {needed / 1e9:.0f} GB are needed: "
        "free some space, or work in a checkout on a larger disk"
    )


def port_problem(url: str, variable: str) -> str | None:
    """Whether something listens already where `url` points, or nothing could; `variable` is the setting to change."""
    if problem := address_problem(url, variable):
        return problem
    host, port = address(url)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return (
                f"port {port} on {host} cannot be used ({error.strerror}): stop the program that holds it, "
                f"or choose another port, for instance: make up {variable}=http://{host}:{port + 1}"
            )
    return None


def address(url: str) -> tuple[str, int]:
    """Host and port of a `http://` URL."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


def address_problem(url: str, variable: str) -> str | None:
    """Whether `url`, which is setting `variable`, is no address to listen at."""
    if is_address(url):
        return None
    return f"{variable} is {url!r}: name a host and a port from 1 to 65535, for instance http://127.0.0.1:8080"


def is_address(url: str) -> bool:
    """Whether `url` is `http://`, an IPv4 address or a name, and a port."""
    parts = urlsplit(url)
    try:
        return parts.scheme == "http" and bool(parts.port) and ":" not in (parts.hostname or ":")
    except ValueError:  # the port is no number, or too large a one
        return False


def same_port_problem(one: str, other: str) -> str | None:
    """Whether Airflow (`one`) and the service (`other`) are to listen at the same port."""
    if not (is_address(one) and is_address(other)) or address(one)[1] != address(other)[1]:
        return None
    return f"SAEBYEOK_AIRFLOW_URL ({one}) and SAEBYEOK_SERVICE_URL ({other}) name the same port: choose two"


def data_problem(directory: Path, recipes: Path) -> str | None:
    """Which of the recipes' published files are missing below `directory`, or which recipe does not name any."""
    files = []
    for path in sorted(recipes.glob("*.toml")):
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))["data"]
            files += [data["train"], data["test"]]
        except (ValueError, KeyError, TypeError) as error:
            return f"{path} is no recipe ({type(error).__name__}: {error}): mend it, or move it away"
    missing = [name for name in files if not (directory / name).is_file()]
    if not missing:
        return None
    return f"{directory} has no {', no '.join(missing)}: the data directory holds the published files under these names"


def text_setting(name: str, default: str) -> str:
    """Environment variable `name`, or `default` where it is unset or empty."""
    return os.environ.get(name) or default
