"""Requests that come at the same time share the batches of an engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from serving.engine import Answer

#: What is asked of an engine, `Engine.answer` or `Engine.vectors`: texts or pairs to their answers, in order.
Ask = Callable[[Sequence[Any]], Answer]
#: Inputs of one batch, unless a single request has more; an engine cuts it into sub-batches of like length.
MOST = 128


@dataclass(frozen=True)
class Waiting:
    """A request that nobody has computed yet."""

    inputs: Sequence[Any]
    answer: asyncio.Future[Answer]


@dataclass
class Line:
    """What waits for one thing, and how much of it is being computed."""

    ask: Ask
    waiting: deque[Waiting] = field(default_factory=deque)
    running: int = 0


class Sharing:
    """Batches for one event loop: nobody waits for company, but what comes while all threads compute goes together.

    A request that is cancelled while it waits is never computed; one that fails beside others is asked again alone.
    """

    def __init__(self, pool: Executor, threads: int) -> None:
        """Batches are computed in `pool`, `threads` of them at once for each thing that is asked."""
        self._pool = pool
        self._threads = threads
        self._lines: dict[Hashable, Line] = {}

    async def answer(self, key: Hashable, ask: Ask, inputs: Sequence[Any]) -> Answer:
        """`ask(inputs)`, computed together with other requests of the same `key`. Raises what `ask` raises."""
        loop = asyncio.get_running_loop()
        line = self._lines.setdefault(key, Line(ask))
        request = Waiting(inputs, loop.create_future())
        line.waiting.append(request)
        self._start(key, line, loop)
        return await request.answer

    def _start(self, key: Hashable, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        while line.running < self._threads and (batch := _next(line.waiting)):
            line.running += 1
            computed = loop.run_in_executor(self._pool, _compute, line.ask, [item.inputs for item in batch])
            computed.add_done_callback(partial(self._finish, key, line, loop, batch))
        if not line.running and not line.waiting:
            # An engine that is served no more must not be held here.
            del self._lines[key]

    def _finish(
        self,
        key: Hashable,
        line: Line,
        loop: asyncio.AbstractEventLoop,
        batch: Sequence[Waiting],
        computed: asyncio.Future[list[Answer | Exception]],
    ) -> None:
        line.running -= 1
        self._start(key, line, loop)
        for item, answer in zip(batch, computed.result(), strict=True):
            if item.answer.cancelled():
                continue
            if isinstance(answer, Exception):
                item.answer.set_exception(answer)
            else:
                item.answer.set_result(answer)


def _next(waiting: deque[Waiting]) -> list[Waiting]:
    """The requests of the next batch, taken from the front; who has gone is left out."""
    batch: list[Waiting] = []
    count = 0
    while waiting:
        if waiting[0].answer.cancelled():
            waiting.popleft()
        elif batch and count + len(waiting[0].inputs) > MOST:
            break
        else:
            batch.append(waiting.popleft())
            count += len(batch[-1].inputs)
    return batch


def _compute(ask: Ask, requests: Sequence[Sequence[Any]]) -> list[Answer | Exception]:
    """The answer to each request, or why there is none."""
    try:
        answer = ask([item for request in requests for item in request])
    except Exception as error:  # noqa: BLE001 - handed to who asked
        if len(requests) == 1:
            return [error]
        # One of them: the others shall not pay for it.
        return [found for request in requests for found in _compute(ask, [request])]
    parts: list[Answer | Exception] = []
    start = 0
    for request in requests:
        parts.append(answer.part(slice(start, start + len(request))))
        start += len(request)
    return parts
