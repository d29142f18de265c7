"""Load for soak tests: steady users, whose responses are recorded, and rude ones, who disconnect early."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

#: Number of users of each kind.
STEADY, RUDE = 8, 2
#: Share of requests after which a steady user reconnects; timeout in seconds.
RECONNECT, ANSWER_SECONDS = 0.05, 60.0


class TimedAnswer(NamedTuple):
    """A response of `/classify`; status 0 means none, with the reason in `release`. Times are monotonic."""

    status: int
    release: str
    asked: float
    came: float
    values: tuple[float, ...] = ()


@dataclass
class Crowd:
    """All users of one service; `rate` is the steady users' requests per second, None for no limit."""

    url: str
    texts: tuple[str, ...]
    rate: float | None = None
    rude: bool = False
    answers: list[TimedAnswer] = field(default_factory=list)
    departures: int = 0
    over: bool = False

    def take(self) -> list[TimedAnswer]:
        """Return the responses so far and clear the list."""
        taken = self.answers[:]
        del self.answers[: len(taken)]
        return taken

    @contextmanager
    def at_work(self) -> Iterator[Crowd]:
        """Send requests from a thread until the block ends."""
        thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="crowd")
        thread.start()
        try:
            yield self
        finally:
            self.over = True
            thread.join()

    async def _all(self) -> None:
        await asyncio.gather(*(self._steady() for _ in range(STEADY)), *(self._rude(seed) for seed in range(RUDE)))

    def request(self) -> bytes:
        """Send one complete request."""
        place = urlsplit(self.url)
        body = json.dumps({"texts": self.texts}).encode()
        head = f"POST /classify HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        place = urlsplit(self.url)
        return await asyncio.open_connection(place.hostname, place.port)

    async def _steady(self) -> None:
        request, chance = self.request(), random.Random(0)
        reader, writer = await self._connect()
        due = time.monotonic()
        while not self.over:
            due = max(due + STEADY / self.rate, time.monotonic()) if self.rate else time.monotonic()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            # A server may close an idle connection.
            if reader.at_eof() or chance.random() < RECONNECT:
                writer.close()
                reader, writer = await self._connect()
            asked = time.monotonic()
            try:
                writer.write(request)
                status, body = await asyncio.wait_for(read_answer(reader), ANSWER_SECONDS)
                release = body.get("release", str(body))
                values = tuple(result["probabilities"]["positive"] for result in body.get("results", ()))
            except (OSError, EOFError, TimeoutError) as error:
                status, release, values = 0, repr(error), ()
                writer.close()
                reader, writer = await self._connect()
            self.answers.append(TimedAnswer(status, release, asked, time.monotonic(), values))
        writer.close()

    async def _rude(self, seed: int) -> None:
        """Disconnect after a part of a request or all of it, or close the sending side; read no response."""
        request, chance = self.request(), random.Random(seed)
        while not self.over:
            await asyncio.sleep(chance.uniform(0.0, 0.2))
            if not self.rude:
                continue
            _, writer = await self._connect()
            writer.write(request[: chance.choice((10, len(request) - 5, len(request)))])
            if chance.random() < 0.5:
                await asyncio.sleep(chance.uniform(0.0, 0.01))
            if chance.random() < 0.3:
                writer.write_eof()
                await asyncio.sleep(chance.uniform(0.0, 0.1))
            # If a response is in transit, this resets the connection.
            writer.transport.abort() if chance.random() < 0.5 else writer.close()
            self.departures += 1


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    """Return status and body. Raises EOFError if the connection ends before."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.partition("content-length:")[2].partition("\r\n")[0])
    return int(head.split(" ", 2)[1]), json.loads(await reader.readexactly(length))
