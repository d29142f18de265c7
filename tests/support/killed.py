"""A kill at a chosen place: an exception in this process, or SIGKILL in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from typing import Any, Literal

from pipeline.config_file import ROOT
from tests.support.cli import Place

Moment = Literal["before", "after"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the pipeline catches it."""


def kill_at(step: str, moment: Moment) -> None:
    """Let this process kill itself before or after its first call of `step`, given as `module:Class.function`."""
    module, _, path = step.partition(":")
    *owners, name = path.split(".")
    owner = reduce(getattr, owners, import_module(module))
    real = getattr(owner, name)

    def last_step(*arguments: Any, **named: Any) -> None:
        if moment == "after":
            real(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, last_step)


@dataclass(frozen=True)
class Commands:
    """A process that has imported the deployer and runs each command in a copy of itself, without Bentos."""

    process: subprocess.Popen[str]

    def run(self, command: Sequence[str], step: str = "", moment: Moment = "before") -> int:
        """Return the exit status of a command; it is killed at `step` if one is named."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([step, moment, *command]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextmanager
def commands(place: Place) -> Iterator[Commands]:
    """Yield the process for the commands of a home."""
    serve = [sys.executable, "-c", "from tests.support.killed import serve; serve()"]
    with (
        place.log.open("w") as log,
        subprocess.Popen(
            serve,
            cwd=ROOT,
            env=place.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        yield Commands(process)


def serve() -> None:
    """Run the commands that standard input names, and print how each ended."""
    from pipeline.cli.app import main
    from pipeline.deployment import deployer

    deployer.ensure_bento = lambda *_: ""  # type: ignore[assignment]
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(json.loads(line), main)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _run(words: list[Any], main: Any) -> None:
    """Run a command and end this process with its status; its output joins the log."""
    step, moment, *command = words
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if step:
        kill_at(step, moment)
    sys.argv[1:] = command
    status = 1
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        os._exit(status)
