"""Measure the cost of Weights & Biases per stage, for a server that is absent, answers, refuses, fails, hangs or dies.

python -m benchmarks.wandb_delay [--rounds 5] [--json]
Each sample is a stage that records one table and a few points, in its own process as Airflow starts it, with a
server on loopback. The ways are interleaved; extra seconds are relative to a stage with W&B disabled.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config_file import ROOT
from pipeline.settings import library_environment
from tests.support.wandb_http import ERROR, HANG, REFUSE
from tests.support.wandb_server import KEY, wandb_server

#: Prints the seconds of the stage, from the call to its result.
STAGE = """
import time
from pipeline.job import open_job
from pipeline.stages.find_or_build import find_or_build
from pipeline.settings import load_settings

def build(draft, tracker):
    for step in range(20):
        tracker.log({"loss": 1.0 / (step + 1)}, step)
    tracker.table("figures", ["name", "value"], [["accuracy", 0.9]])
    return {"accuracy": 0.9}

job = open_job("nsmc", settings=load_settings(), sample=True)
started = time.perf_counter()
find_or_build(job, "train", 1, fields={}, inputs={}, build=build)
print(time.perf_counter() - started)
"""
#: A port without a listener.
CLOSED = "http://127.0.0.1:1"
WAYS = {
    "disabled": "W&B disabled",
    "offline": "offline (no key)",
    "answers": "a server that answers",
    "closed": "nothing listens",
    "refuses": "a server that refuses the key",
    "errs": "a server that errs",
    "hangs": "a server that never answers",
    "dies": "a server that hangs half-way",
}
FAILURES = {"refuses": REFUSE, "errs": ERROR, "hangs": HANG}


def main() -> None:
    """Run the rounds and print a table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    document = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(document, indent=1))
        return
    print(f"{document['machine']}; medians of {arguments.rounds} rounds, the last way once")
    print("| Weights & Biases | Seconds of the stage | Extra | Requests |\n| --- | --- | --- | --- |")
    for way, row in document["ways"].items():
        print(f"| {WAYS[way]} | {row['seconds']:.2f} | {row['extra']:.2f} | {row['requests']} |")


def measure(rounds: int) -> dict[str, Any]:
    """Return the median seconds of every way, the extra seconds over `disabled`, and the requests of one stage."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    requests: dict[str, int] = {}
    for number in range(rounds):
        for way in WAYS:
            # This way waits for the full timeout every time, so once is enough.
            if way != "dies" or number == 0:
                spent, requests[way] = one_stage(way)
                seconds[way].append(spent)
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "rounds": rounds,
        "ways": {
            way: {"seconds": value, "extra": value - medians["disabled"], "requests": requests[way]}
            for way, value in medians.items()
        },
    }


def one_stage(way: str) -> tuple[float, int]:
    """Return the seconds of one stage and the number of requests that reached the server."""
    with tempfile.TemporaryDirectory(prefix="saebyeok-wandb-") as place, _server(way) as (environment, asked):
        home = Path(place)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "SAEBYEOK_"))}
        result = subprocess.run(
            [sys.executable, "-c", STAGE],
            cwd=ROOT,
            env={**kept, **library_environment(home), "SAEBYEOK_HOME": str(home), **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return float(result.stdout.split()[-1]), len(asked)


@contextmanager
def _server(way: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    if way in ("disabled", "offline"):
        yield {"WANDB_MODE": way}, []
        return
    if way == "closed":
        yield {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": CLOSED}, []
        return
    with wandb_server() as server:
        if way == "dies":
            server.fail = lambda operation, body: HANG if server.counts["UpsertBucket"] else None
        elif way in FAILURES:
            server.fail = lambda operation, body: FAILURES[way]
        yield {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}, server.asked


def processor() -> str:
    """Return the name of the CPU."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
