"""The servers that `benchmarks.service` compares: start, readiness, comparison with the engine, stop."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.rivals.engine import open_engine
from pipeline.config_file import ROOT
from pipeline.settings import library_environment

#: Number of texts to compare with the engine, and the minimum share of equal labels: other batches and fp32 differ.
CHECKED, AGREEMENT = 64, 0.8
#: Seconds until a server must answer; successive answers, on new connections, after which all processes count as ready.
DEADLINE, IN_A_ROW = 120.0, 12
LITSERVE = "0.2.19"


@dataclass(frozen=True)
class Way:
    """One way to serve: its command for a port, the reason if it cannot be started, and the checkout with its code."""

    name: str
    command: Callable[[int], list[str]]
    missing: str | None = None
    root: Path = ROOT


@dataclass(frozen=True)
class Bench:
    """Shared by all measurements: a home with the release, the texts, and the command-line arguments."""

    home: Path
    release: Path
    checkpoint: Path | None
    texts: Path
    arguments: argparse.Namespace

    def ways(self) -> list[Way]:
        """Return all ways, Saebyeok first."""
        python, rivals = sys.executable, "benchmarks.rivals"

        def bento(service: str) -> Callable[[int], list[str]]:
            serve = [python, "-m", "bentoml", "serve", f"{rivals}.{service}", "--working-dir", str(ROOT)]
            return lambda port: [*serve, "--host", "127.0.0.1", "--port", str(port)]

        workers = ["--workers", str(self.arguments.processes), "--log-level", "warning"]
        uvicorn = [python, "-m", "uvicorn", f"{rivals}.bare_uvicorn:app", *workers]
        no_litserve = (
            None if importlib.util.find_spec("litserve") else f"not installed: pip install litserve=={LITSERVE}"
        )
        no_checkpoint = "the release's trained model is not in the store, or has mean pooling (model.pooling)"
        return [
            saebyeok(),
            Way("bentoml plain", bento("bentoml_plain:Plain"), None if self.checkpoint else no_checkpoint),
            Way("bentoml batching", bento("bentoml_batching:Batching")),
            Way("litserve", lambda port: [python, "-m", f"{rivals}.litserve_batching", str(port)], no_litserve),
            Way("bare uvicorn", lambda port: [*uvicorn, "--port", str(port)]),
        ]

    def environment(self, port: int) -> dict[str, str]:
        """Return the environment of a process that serves on `port`."""
        threads = max(1, self.arguments.cores // self.arguments.processes)
        return {
            **os.environ,
            **library_environment(self.home),
            "SAEBYEOK_HOME": str(self.home),
            "SAEBYEOK_STORE": "",
            "SAEBYEOK_SERVICE_URL": f"http://127.0.0.1:{port}",
            "SAEBYEOK_WORKERS": str(self.arguments.processes),
            "SAEBYEOK_THREADS": str(threads),
            "BENCHMARK_RELEASE": str(self.release),
            "BENCHMARK_CHECKPOINT": str(self.checkpoint),
            "BENCHMARK_PROCESSES": str(self.arguments.processes),
        }


def saebyeok(name: str = "saebyeok", root: Path = ROOT) -> Way:
    """Return the way to start the service of the checkout at `root`."""
    return Way(name, lambda _: [sys.executable, "-m", "serving"], root=root)


@contextmanager
def serving(bench: Bench, way: Way) -> Iterator[tuple[str, int]]:
    """Start a way, yield its URL and process id when all its processes answer, and stop it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    log = bench.home / f"{way.name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            way.command(port),
            cwd=way.root,
            # The environment's own installation would take precedence in the service's workers.
            env={**bench.environment(port), "PYTHONPATH": str(way.root)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}/classify"
    try:
        wait(url, process, log)
        yield url, process.pid
    finally:
        below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        _, left = psutil.wait_procs([process, *below], timeout=20)
        for item in left:
            item.kill()
        process.wait()


def wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for `IN_A_ROW` successive answers. Raises RuntimeError if the server fails or `DEADLINE` passes."""
    row, deadline = 0, time.monotonic() + DEADLINE
    while row < IN_A_ROW:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"{log.stem} does not answer at {url}; the end of its log:"
                f"\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}"
            )
        try:
            answer = httpx.post(url, json={"texts": ["좋다"]}, timeout=30)
        except httpx.HTTPError:
            row = 0
        else:
            if answer.is_client_error:
                raise RuntimeError(
                    f"{url} ({log.stem}) returned HTTP {answer.status_code}: {answer.text[:300]}; see {log}"
                )
            row = row + 1 if answer.is_success else 0
        if not row:
            time.sleep(0.2)


def agreement(bench: Bench, way: Way, url: str) -> float:
    """Return the share of texts with the engine's label. Raises RuntimeError if it is below `AGREEMENT`."""
    raw = open_engine(bench.release)
    names = list(raw.card.labels)
    texts = json.loads(bench.texts.read_text(encoding="utf-8"))[:CHECKED]
    wanted = [names[at] for at in raw.classify(texts).argmax(1)]
    answer = httpx.post(url, json={"texts": texts}, timeout=60)
    if not answer.is_success:
        raise RuntimeError(f"{url} ({way.name}) returned HTTP {answer.status_code}: {answer.text[:300]}")
    given = labels_of(answer.json(), names)
    agrees = statistics.mean(ours == theirs for ours, theirs in zip(wanted, given, strict=True))
    if agrees < AGREEMENT:
        raise RuntimeError(f"{way.name} agrees with only {agrees:.0%} of the engine's labels: it serves another model")
    return agrees


def labels_of(answer: Any, names: list[str]) -> list[str]:
    """Return the labels of an answer, which has results with labels or rows of probabilities."""
    rows = answer["results"] if isinstance(answer, dict) else answer
    return [row["label"] if isinstance(row, dict) else names[row.index(max(row))] for row in rows]
