"""A lower bound for the cost of HTTP in Python: an ASGI function under uvicorn, and the engine with a micro-batcher.

While one batch is computed in a thread, requests gather for the next. There are no checks, limits, metrics or ids.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.rivals.engine import open_engine
from benchmarks.rivals.model import RELEASE

#: Maximum texts per batch, unless one request has more.
MOST = 64


class Batcher:
    """Combines waiting requests into batches."""

    def __init__(self) -> None:
        self._engine = open_engine(RELEASE)
        self._labels = self._engine.card.labels
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[list[str], asyncio.Future[list[dict[str, Any]]]]] = []
        self._running: asyncio.Task[None] | None = None

    async def answer(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return label and score of each text."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((texts, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = [self._waiting.pop(0)]
            count = len(batch[0][0])
            while self._waiting and count + len(self._waiting[0][0]) <= MOST:
                batch.append(self._waiting.pop(0))
                count += len(batch[-1][0])
            texts = [text for own, _ in batch for text in own]
            found = iter(await loop.run_in_executor(self._thread, self._compute, texts))
            for own, future in batch:
                future.set_result([next(found) for _ in own])

    def _compute(self, texts: list[str]) -> list[dict[str, Any]]:
        rows = self._engine.classify(texts)
        best = rows.argmax(1).tolist()
        return [{"label": self._labels[at], "score": float(row[at])} for row, at in zip(rows, best, strict=True)]


BATCHER = Batcher()


async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Answer a POST request whose body has `texts`."""
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            break
    answer = json.dumps({"results": await BATCHER.answer(json.loads(body)["texts"])}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
