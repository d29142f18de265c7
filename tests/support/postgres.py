"""A PostgreSQL server for one test, on a socket in a directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: initdb and pg_ctl refuse to run as root.
USER = "postgres" if os.getuid() == 0 else None


@contextmanager
def postgres_server(superuser: str) -> Iterator[dict[str, str]]:
    """Yield the environment with which psql reaches the server as any user, without a password."""
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        if USER:
            shutil.chown(folder, USER, USER)

        def run(*command: str) -> None:
            subprocess.run(command, cwd=folder, user=USER, group=USER, stdout=subprocess.DEVNULL, check=True)

        data = str(Path(folder) / "data")
        run("initdb", "--pgdata", data, f"--username={superuser}", "--auth", "trust", "--no-sync", "--no-locale")
        run("pg_ctl", "--pgdata", data, "--log", f"{data}/log", "-o", f"-k {folder} -c listen_addresses=", "start")
        try:
            yield os.environ | {"PGHOST": folder}
        finally:
            run("pg_ctl", "--pgdata", data, "--mode", "immediate", "stop")
