"""Preloading: only in the parent of all tasks, not with a GPU, and without threads that a fork loses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pipeline.config_file import ROOT
from pipeline.stack.preload import HEAVY

CODE = """
import json, os, sys
from pipeline.stack import preload
preload.cuda_devices = lambda: {devices}
preload.preload({arguments!r})
found = [name for name in preload.HEAVY if name in sys.modules]
own = [name for name in sys.modules if name.startswith("pipeline.")]
tasks = os.listdir("/proc/self/task")
threads = {{open(f"/proc/self/task/{{task}}/comm").read().strip() for task in tasks if task != str(os.getpid())}}
print(json.dumps({{"heavy": found, "own": sorted(own), "threads": sorted(threads)}}))
"""


def preloaded(arguments: list[str], devices: int = 0) -> dict[str, list[str]]:
    """Return the modules that a process with `arguments` has imported, and its additional threads."""
    code = CODE.format(arguments=arguments, devices=devices)
    # OpenBLAS restarts its threads after a fork.
    environment = {"PATH": "/usr/bin:/bin", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    return dict(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.torch
def test_scheduler_preloads_libraries_without_own_code_or_threads() -> None:
    found = preloaded(["airflow", "scheduler"])
    assert found == {
        "heavy": list(HEAVY),
        "own": ["pipeline.devices", "pipeline.stack", "pipeline.stack.preload"],
        # A thread of pyarrow, whose allocator restarts it after a fork.
        "threads": ["jemalloc_bg_thd"],
    }


@pytest.mark.parametrize(
    ("arguments", "devices"), [(["airflow", "api-server"], 0), (["airflow"], 0), (["airflow", "scheduler"], 1)]
)
def test_others_have_none(arguments: list[str], devices: int) -> None:
    assert preloaded(arguments, devices)["heavy"] == []
