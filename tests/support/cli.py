"""The command line for tests, with its own home: in this process or in processes of its own."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.app import main
from pipeline.config_file import ROOT
from pipeline.nested import flatten
from pipeline.settings import library_environment
from pipeline.store.artifacts import Store
from tests.support.log_levels import log_levels_kept


def run_here(
    arguments: Sequence[str], environment: Mapping[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which has already imported the libraries, in `environment`."""
    out, err = io.StringIO(), io.StringIO()
    with _environment(environment), _logging_apart(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["saebyeok", *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as end:
            main()
    assert isinstance(end.value.code, int)
    return subprocess.CompletedProcess(arguments, end.value.code, out.getvalue(), err.getvalue())


@contextmanager
def _environment(environment: Mapping[str, str]) -> Iterator[None]:
    """Replace this process's environment; also undo the changes that the command makes to it."""
    before = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(environment)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _logging_apart() -> Iterator[None]:
    """Take pytest's handlers away, so that the command logs to its standard error as in a process of its own.

    The levels are put back here: the command may run in a fixture of a module, for which no other fixture does it.
    """
    handlers, level = logging.root.handlers, logging.root.level
    logging.root.handlers = []
    try:
        with log_levels_kept():
            yield
    finally:
        logging.root.handlers = handlers
        logging.root.setLevel(level)


class Place:
    """A home that several commands share, each a process; `environment` is added for every command."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.output, self.log = home / "started.out", home / "started.log"
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

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command, which writes its output to `self.output` and its messages to `self.log`."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self.output.open("w") as output, self.log.open("w") as log:
            return subprocess.Popen(self._command(arguments), cwd=ROOT, env=self.environment, stdout=output, stderr=log)

    @contextmanager
    def killed(
        self, *arguments: str, by: int = signal.SIGKILL, status: int = -signal.SIGKILL
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command that receives a signal at the end of the block and must exit with `status`."""
        process = self.start(*arguments)
        try:
            yield process
        finally:
            process.send_signal(by)
            process.wait()
        assert process.returncode == status, self.log.read_text()

    @staticmethod
    def _command(arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "pipeline.cli", *arguments]


class PlaceHere(Place):
    """The same, but `call` and `raw` run in this process."""

    def raw(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return run_here(arguments, self.environment, stdin.encode())


def sets(overrides: Mapping[str, Any]) -> list[str]:
    """Return recipe overrides (dotted keys or tables) as command-line options."""
    return [word for key, value in flatten(overrides).items() for word in ("--set", f"{key}={value}")]
