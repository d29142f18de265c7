"""Load on an HTTP service, from a process of its own: clients that ask again as soon as they are answered.

python -m benchmarks.load --url URL --texts FILE [--sentences 1] [--clients 32] [--seconds 5] [--pid PID]
Prints one JSON document: how many answers came, how long they took, what went wrong, and who used the cores meanwhile:
this process, the service (PID and all below it) and all others. FILE is a JSON list of texts.

Requests are made beforehand and answers only counted, so that of cores that are shared as little as can be is taken.
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

#: Requests that are made beforehand; asked again from the first when they are through.
PREPARED = 4096
#: Seconds before the first answer that counts, and between a lost connection and the next.
WARM, PAUSE = 1.0, 0.02
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def main() -> None:
    """Put the load on and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--texts", required=True, type=Path)
    parser.add_argument("--sentences", type=int, default=1, help="of a request")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--pid", type=int, help="of the service: it and its children are told from all others")
    arguments = parser.parse_args()
    texts = json.loads(arguments.texts.read_text(encoding="utf-8"))
    crowd = Crowd(cycle(requests(arguments.url, texts, arguments.sentences)))
    print(json.dumps(uvloop.run(crowd.measure(arguments))))


def requests(url: str, texts: list[str], sentences: int) -> list[bytes]:
    """Whole HTTP requests of so many texts each."""
    place = urlsplit(url)
    prepared = []
    source = cycle(texts)
    for _ in range(min(PREPARED, max(64, len(texts) // sentences))):
        body = json.dumps({"texts": [next(source) for _ in range(sentences)]}, ensure_ascii=False).encode()
        head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        prepared.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return prepared


@dataclass
class Crowd:
    """All clients together: what they ask, and what came of it since the counting began."""

    requests: Any
    seconds: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    over: bool = False

    async def measure(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """Requests, latencies in ms, errors, and cores in use."""
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
                _, client = await loop.create_connection(lambda: Client(self), host, port)
            except OSError as error:
                self.errors[type(error).__name__] += 1
            else:
                await client.lost
            await asyncio.sleep(PAUSE)


class Client(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, crowd: Crowd) -> None:
        """`lost` is done when the connection is gone."""
        self._crowd = crowd
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Ask the first time."""
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._received, self._whole = b"", 0
        self._asked = time.perf_counter()
        self._transport.write(next(self._crowd.requests))

    def data_received(self, data: bytes) -> None:
        """Count the answer once all of it is there, and ask again."""
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
        """The question that was under way has no answer."""
        if not self._crowd.over:
            self._crowd.errors["connection lost"] += 1
        if not self.lost.done():
            self.lost.set_result(None)


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far of this process, of the service, and of all processes on the cores that this one may use."""

    load: float
    service: float
    all: float

    @classmethod
    def now(cls, pid: int | None) -> Usage:
        """As of now; `pid` is the service's."""
        cores = os.sched_getaffinity(0)
        busy = sum(
            item.user + item.nice + item.system + item.irq + item.softirq
            for core, item in enumerate(psutil.cpu_times(percpu=True))
            if core in cores
        )
        return cls(time.process_time(), tree_seconds(pid) if pid else 0.0, busy)

    def since(self, before: Usage, seconds: float) -> dict[str, float]:
        """Cores in use on average over the `seconds` since then."""
        load, service = self.load - before.load, self.service - before.service
        # The machine counts in hundredths of a second: what is left can come out a little below nothing.
        others = max(0.0, self.all - before.all - load - service)
        return {name: part / seconds for name, part in (("load", load), ("service", service), ("others", others))}


def tree_seconds(pid: int) -> float:
    """CPU seconds of a process and all below it that still run."""
    total = 0.0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def percentiles(latencies: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds of sorted seconds; nothing where there are none."""
    if not latencies:
        return {}
    return {f"p{p}": 1000 * latencies[min(len(latencies) - 1, len(latencies) * p // 100)] for p in (50, 95, 99)}


if __name__ == "__main__":
    main()
