"""The command line for tests: real processes with their own home."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config_file import ROOT
from pipeline.nested import flatten
from pipeline.settings import library_environment
from pipeline.store.artifacts import Store


class Place:
    """A home that several commands share; `environment` is added for every command."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.environment = {
            **os.environ,
            **library_environment(home),
            "SAEBYEOK_HOME": str(home),
            **environment,
        }

    @property
    def store(self) -> Store:
        """Return the store that the commands write to."""
        return Store(self.environment.get("SAEBYEOK_STORE") or str(self.home / "store"), self.home / "cache" / "store")

    def call(self, *arguments: str, code: int = 0, stdin: str = "") -> Any:
        """Run a command that must exit with `code`; return its JSON document."""
        result = self.raw(*arguments, "--json", stdin=stdin)
        assert result.returncode == code, result.stderr[-4000:]
        return json.loads(result.stdout)

    def raw(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(arguments),
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=900,
        )

    @contextmanager
    def killed(
        self, *arguments: str, by: int = signal.SIGKILL, status: int = -signal.SIGKILL
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command that receives a signal at the end of the block and must exit with `status`."""
        with (self.home / "killed.log").open("w") as log:
            process = subprocess.Popen(self._command(arguments), cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.send_signal(by)
            process.wait()
        assert process.returncode == status, (self.home / "killed.log").read_text()

    @staticmethod
    def _command(arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "pipeline.cli", *arguments]


def sets(overrides: Mapping[str, Any]) -> list[str]:
    """Return recipe overrides (dotted keys or tables) as command-line options."""
    return [word for key, value in flatten(overrides).items() for word in ("--set", f"{key}={value}")]
