"""Load generator for an HTTP service, in its own process: closed-loop clients that send the next request at once.

python -m benchmarks.load --url URL --texts FILE [--sentences 1] [--clients 32] [--seconds 5] [--pid PID]
Prints one JSON document: number of answers, latencies, errors, and the core usage of this process, of the service (PID
and its descendants) and of all other processes. FILE is a JSON list of texts.

Requests are prepared in advance and answers are only counted, so that the load generator takes little of the shared
cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import uvloop

#: Prepared requests, sent in a cycle.
PREPARED = 4096
#: Seconds of warm-up, and seconds between a lost connection and the next one.
WARM, PAUSE = 1.0, 0.02
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def main() -> None:
    """Run the load and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--texts", required=True, type=Path)
    parser.add_argument("--sentences", type=int, default=1, help="sentences per request")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--pid", type=int, help="process id of the service, to report its core usage")
    arguments = parser.parse_args()
    texts = json.loads(arguments.texts.read_text(encoding="utf-8"))
    crowd = LoadClients(cycle(requests(arguments.url, texts, arguments.sentences)))
    print(json.dumps(uvloop.run(crowd.measure(arguments))))


def requests(url: str, texts: list[str], sentences: int) -> list[bytes]:
    """Return complete HTTP requests with `sentences` texts each."""
    place = urlsplit(url)
    prepared = []
    source = cycle(texts)
    for _ in range(min(PREPARED, max(64, len(texts) // sentences))):
        body = json.dumps({"texts": [next(source) for _ in range(sentences)]}, ensure_ascii=False).encode()
        head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        prepared.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return prepared


@dataclass
class LoadClients:
    """All clients: their requests, and the latencies and errors since the end of the warm-up."""

    requests: Any
    seconds: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    over: bool = False

    async def measure(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """Return the number of requests, latencies in ms, errors, and cores in use."""
        place = urlsplit(arguments.url)
        clients = [
            asyncio.ensure_future(self._keep_asking(place.hostname, place.port)) for _ in range(arguments.clients)
        ]
        await asyncio.sleep(WARM)
        del self.seconds[:]
        self.errors.clear()
        before, began = Usage.now(arguments.pid), time.perf_counter()
        await asyncio.sleep(arguments.seconds)
        spent, after = time.perf_counter() - began, Usage.now(arguments.pid)
        counted, errors = len(self.seconds), dict(self.errors)
        latencies = sorted(self.seconds)
        self.over = True
        for client in clients:
            client.cancel()
        return {
            "requests": counted,
            "requests_per_second": counted / spent,
            "sentences_per_second": counted * arguments.sentences / spent,
            **percentiles(latencies),
            "errors": errors,
            "cores": after.since(before, spent),
        }

    async def _keep_asking(self, host: str | None, port: int | None) -> None:
        loop = asyncio.get_running_loop()
        while not self.over:
            try:
                _, client = await loop.create_connection(lambda: LoadConnection(self), host, port)
            except OSError as error:
                self.errors[type(error).__name__] += 1
            else:
                await client.lost
            await asyncio.sleep(PAUSE)


class LoadConnection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, crowd: LoadClients) -> None:
        """Create a client whose future `lost` is done when the connection is lost."""
        self._crowd = crowd
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._received, self._whole = b"", 0
        self._asked = time.perf_counter()
        self._transport.write(next(self._crowd.requests))

    def data_received(self, data: bytes) -> None:
        """Count a complete answer and send the next request."""
        self._received += data
        if not self._whole:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            length = LENGTH.search(self._received, 0, end)
            if length is None:
                self._crowd.errors["an answer without a length"] += 1
                self._transport.close()
                return
            self._whole = end + 4 + int(length[1])
        if len(self._received) < self._whole:
            return
        status = self._received[9:12]
        if status == b"200":
            self._crowd.seconds.append(time.perf_counter() - self._asked)
        else:
            self._crowd.errors[status.decode()] += 1
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        """Count the lost connection as an error, unless the measurement is over."""
        if not self._crowd.over:
            self._crowd.errors["connection lost"] += 1
        if not self.lost.done():
            self.lost.set_result(None)


@dataclass(frozen=True)
class Usage:
    """CPU seconds of this process, of the service, and of all processes on the cores that this one may use."""

    load: float
    service: float
    all: float

    @classmethod
    def now(cls, pid: int | None) -> Usage:
        """Return the usage up to now; `pid` is the service's process id."""
        cores = os.sched_getaffinity(0)
        busy = sum(
            item.user + item.nice + item.system + item.irq + item.softirq
            for core, item in enumerate(psutil.cpu_times(percpu=True))
            if core in cores
        )
        return cls(time.process_time(), tree_seconds(pid) if pid else 0.0, busy)

    def since(self, before: Usage, seconds: float) -> dict[str, float]:
        """Return the average number of cores in use over the `seconds` since `before`."""
        load, service = self.load - before.load, self.service - before.service
        # The kernel counts in hundredths of a second, so the difference can be slightly negative.
        others = max(0.0, self.all - before.all - load - service)
        return {name: part / seconds for name, part in (("load", load), ("service", service), ("others", others))}


def tree_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and its running descendants."""
    total = 0.0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def percentiles(latencies: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99 in milliseconds of sorted seconds; an empty dictionary if there are none."""
    if not latencies:
        return {}
    return {f"p{p}": 1000 * latencies[min(len(latencies) - 1, len(latencies) * p // 100)] for p in (50, 95, 99)}


if __name__ == "__main__":
    main()
