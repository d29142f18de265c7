"""A worker ends with its supervisor, also with one that died while the worker was starting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pipeline.config_file import ROOT
from serving.api.supervision import SUPERVISOR

WORKER = "from serving.api.supervision import end_with_supervisor; end_with_supervisor(); print('alive', flush=True)"
#: A process that starts a worker, which then waits.
PARENT = f"""import subprocess, sys
subprocess.run([sys.executable, "-c", {WORKER + "; import time; time.sleep(600)"!r}])
"""


def start(code: str, **environment: str) -> subprocess.Popen[str]:
    command, inherited = [sys.executable, "-c", code], {**os.environ, **environment}
    return subprocess.Popen(command, cwd=ROOT, env=inherited, stdout=subprocess.PIPE, text=True)


def test_worker_of_a_dead_supervisor_ends() -> None:
    # Another process has adopted the worker: its parent is not the supervisor that it was started by.
    worker = start(WORKER, **{SUPERVISOR: str(os.getpid() + 1)})
    assert worker.communicate() == ("", None)
    assert worker.returncode == -signal.SIGTERM


@pytest.mark.parametrize("environment", [{SUPERVISOR: str(os.getpid())}, {}], ids=["named", "not named"])
def test_worker_of_a_living_supervisor_starts(environment: dict[str, str]) -> None:
    worker = start(WORKER, **environment)
    assert worker.communicate() == ("alive\n", None)
    assert worker.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the signal at the death of a parent is Linux's")
def test_worker_ends_when_its_supervisor_is_killed() -> None:
    with start(PARENT) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "alive\n"
        supervisor.kill()
        # The worker has the other end of the pipe, which closes with it.
        assert supervisor.stdout.read() == ""
