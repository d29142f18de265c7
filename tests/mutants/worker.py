"""Runs one module's tests again and again, each time in a fork of this warm process, with another mutant in place.

It is started in a copy of the checkout (`sandbox`), takes one JSON document a line from standard input, and answers
with one. The libraries that the tests use are imported once, here; the project's own code never is, so that every fork
imports the mutant. Whatever a fork starts is killed with it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "pytest_timeout")
#: They start threads where they are imported, or are to be imported by pytest itself.
NEVER_WARM = ("wandb", "pytest", "_pytest", "hypothesis", "schemathesis")
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GIGABYTE = 1 << 30
#: Exit statuses of pytest: all passed; some failed; interrupted, as by a module that cannot be imported; no tests.
PASSED, FAILED, INTERRUPTED, NO_TESTS = 0, 1, 2, 5


@dataclass
class Outcome:
    """What became of one run of the tests."""

    status: str
    seconds: float
    #: The test that failed first.
    killer: str = ""
    #: CPU seconds of the fork itself.
    cpu: float = 0.0
    modules: list[str] = field(default_factory=list)
    #: Seconds of each test.
    durations: dict[str, float] = field(default_factory=dict)
    tail: str = ""


class Recorder:
    """Plugin of a fork: runs the likely killer first, then the quick tests of each file; writes which test failed."""

    def __init__(self, first: str, known: dict[str, float], report: Path) -> None:
        self.first = first
        self.known = known
        self.report = report
        self.killer = ""
        self.durations = Counter[str]()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        files = list(dict.fromkeys(item.path for item in items))
        items.sort(
            key=lambda item: (
                item.nodeid != self.first,
                files.index(item.path),
                self.known.get(item.nodeid, 0.0),
            )
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.durations[report.nodeid] += report.duration
        if report.failed and not self.killer:
            self.killer = report.nodeid
            self.write()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.killer:
            self.killer = f"{report.nodeid} (import)"
            self.write()

    def write(self, modules: tuple[str, ...] = ()) -> None:
        usage = time.process_time()
        told = {"killer": self.killer, "cpu": usage, "modules": modules, "durations": self.durations}
        self.report.write_text(json.dumps(told))


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def third_party_modules() -> tuple[str, ...]:
    """Imported modules of installed packages, but for those that are better imported by each fork."""
    return tuple(
        name
        for name, module in list(sys.modules.items())
        if "site-packages" in (getattr(module, "__file__", None) or "") and not name.startswith(NEVER_WARM)
    )


def warm(names: list[str]) -> None:
    """Import modules; a fork imports what cannot be imported here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            with suppress(BaseException):
                importlib.import_module(name)
    # Otherwise each fork would walk through all these objects when pytest collects garbage, and copy their pages.
    gc.collect()
    gc.freeze()


def run_forked(
    arguments: list[str], first: str, known: dict[str, float], limits: dict[str, float], home: Path
) -> Outcome:
    """Run pytest in a fork of this process, kill what it leaves behind, and say how it ended."""
    work = Path(tempfile.mkdtemp(dir=home))
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run_tests(arguments, Recorder(first, known, work / "report.json"), limits, work)
    status = wait(child, limits["wall"])
    kill_descendants()
    seconds = time.monotonic() - started
    report = work / "report.json"
    told: dict[str, Any] = json.loads(report.read_text()) if report.exists() and report.stat().st_size else {}
    tail = (work / "output").read_text(errors="replace")[-3000:]
    shutil.rmtree(work, ignore_errors=True)
    return Outcome(_name(status), seconds, **told, tail=tail)


def _run_tests(arguments: list[str], recorder: Recorder, limits: dict[str, float], work: Path) -> None:
    """In the fork: never returns."""
    code = 70
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        cpu = int(limits["cpu"]) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (8 * GIGABYTE, 8 * GIGABYTE))
        resource.setrlimit(resource.RLIMIT_FSIZE, (GIGABYTE, GIGABYTE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        output = os.open(work / "output", os.O_CREAT | os.O_WRONLY, 0o600)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        tempfile.tempdir = None
        os.environ["TMPDIR"] = str(work)
        code = int(pytest.main([*PLUGINS, f"--basetemp={work / 'tmp'}", *arguments], plugins=[recorder]))
        recorder.write(third_party_modules() if limits.get("modules") else ())
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    """Return the wait status of a fork, or None if it took more than `seconds` and was killed.

    The time in which it waits for a CPU does not count: on a busy machine, a mutant that hangs and one that only waits
    would look the same, and a survivor would count as noticed. Nor does the time for which both are stopped (SIGSTOP).
    """
    waited, pause = 0.0, 0.005
    while waited < seconds + _waited_for_cpu(child):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(pause)
        waited += pause
        pause = min(pause * 1.5, 0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _waited_for_cpu(process: int) -> float:
    nanoseconds = Path(f"/proc/{process}/schedstat").read_text(encoding="ascii").split()[1]
    return int(nanoseconds) / 1e9


def _name(status: int | None) -> str:
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in {signal.SIGXCPU, signal.SIGKILL}):
        return "timeout"
    if os.WIFSIGNALED(status):
        return "killed"
    codes = {PASSED: "survived", FAILED: "killed", INTERRUPTED: "killed", NO_TESTS: "no tests"}
    return codes.get(os.WEXITSTATUS(status), "killed")


def kill_descendants() -> None:
    """Kill every process that a fork left behind: as their reaper, this process is their parent by now."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=10)


def main() -> None:
    """Answer requests until standard input ends."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    home = Path(tempfile.mkdtemp(prefix="warm-"))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        warm(request.get("warm", []))
        sys.dont_write_bytecode = bool(request.get("mutant"))
        if sys.dont_write_bytecode:
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        outcome = run_forked(request["arguments"], request["first"], request["known"], request["limits"], home)
        answers.write(json.dumps(asdict(outcome) | {"threads": threading.active_count()}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
