"""Preloading: in the parent of all tasks, nowhere else, not beside a GPU, and no thread that a fork loses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pipeline.settings import ROOT
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
    """What a process that is started so has imported, and the threads it has beside its first."""
    code = CODE.format(arguments=arguments, devices=devices)
    # OpenBLAS starts its threads anew after a fork.
    environment = {"PATH": "/usr/bin:/bin", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    return dict(json.loads(done.stdout))


@pytest.mark.torch
def test_the_scheduler_has_all_of_it_and_nothing_of_ours_or_a_thread_of_python() -> None:
    found = preloaded(["airflow", "scheduler"])
    assert found == {
        "heavy": list(HEAVY),
        "own": ["pipeline.devices", "pipeline.stack", "pipeline.stack.preload"],
        # Of pyarrow, whose allocator sees to it that a fork has it too.
        "threads": ["jemalloc_bg_thd"],
    }


@pytest.mark.parametrize(
    ("arguments", "devices"), [(["airflow", "api-server"], 0), (["airflow"], 0), (["airflow", "scheduler"], 1)]
)
def test_others_have_none(arguments: list[str], devices: int) -> None:
    assert preloaded(arguments, devices)["heavy"] == []
