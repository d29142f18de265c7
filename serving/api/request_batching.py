"""Requests on their way to the engines: who is computed at once, who together, who waits, and who is to come back."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from serving.api.errors import ApiError
from serving.engine.engine import Answer
from serving.schemas import ErrorType

#: What is asked of an engine, `Engine.answer` or `Engine.vectors`: texts or pairs to their answers, in order.
Ask = Callable[..., Answer]
#: Inputs of one batch, unless a single request has more; an engine cuts it into sub-batches of like length.
MOST = 128
#: Share of the newest batch in the mean of how long a request takes.
NEWEST = 0.1
#: Seconds; more is no advice.
LONGEST_ADVICE = 60


@dataclass(frozen=True, eq=False, slots=True)
class Waiting:
    """A request that nobody has computed yet, since when it is there, and with what it may share a batch."""

    ask: Ask
    options: dict[str, Any]
    inputs: Sequence[Any]
    alone: bool
    answer: asyncio.Future[Answer]
    since: float

    def goes_with(self, other: Waiting) -> bool:
        """Whether one call can answer both: it is the same method of the same engine, told the same."""
        return not (self.alone or other.alone) and self.ask == other.ask and self.options == other.options


class Sharing:
    """The threads of one event loop, the batches that they compute, and the queue before them.

    Nobody waits for company, but what comes while all threads compute goes together. A request that is cancelled while
    it waits is never computed; one that fails beside others is asked again alone. No engine is held longer than by its
    last request.
    """

    def __init__(self, threads: int, queue: int, begun: Callable[[float], object]) -> None:
        """`threads` batches are computed at once, `queue` requests may wait; `begun` is told each one's seconds."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batch")
        self._threads = threads
        self._queue = queue
        self._begun = begun
        self._running = 0
        self._waiting: deque[Waiting] = deque()
        self._mean = 0.0

    async def answer(self, ask: Ask, inputs: Sequence[Any], *, alone: bool = False, **options: Any) -> Answer:
        """`ask(inputs, **options)`, computed together with other requests that ask the same unless it is to be `alone`.

        Raises what `ask` raises, and ApiError OVERLOADED where the queue is full.
        """
        if self._running == self._threads:
            self._admit()
        request = Waiting(ask, options, inputs, alone, asyncio.get_running_loop().create_future(), perf_counter())
        self._waiting.append(request)
        self._start()
        return await request.answer

    def close(self) -> None:
        """Wait for what has begun."""
        self._pool.shutdown()

    def _admit(self) -> None:
        if len(self._waiting) >= self._queue:
            # Who has gone keeps nobody out.
            self._waiting = deque(request for request in self._waiting if not request.answer.cancelled())
        if len(self._waiting) >= self._queue:
            # When the queue will have moved, as far as the last requests tell.
            seconds = math.ceil(self._mean * len(self._waiting) / self._threads)
            headers = {"Retry-After": str(min(max(1, seconds), LONGEST_ADVICE))}
            raise ApiError(ErrorType.OVERLOADED, "the queue is full; try again later", headers=headers)

    def _start(self) -> None:
        """Have free threads compute what waits."""
        while self._running < self._threads and (batch := self._next()):
            self._running += 1
            now = perf_counter()
            for request in batch:
                self._begun(now - request.since)
            computed = asyncio.get_running_loop().run_in_executor(self._pool, _compute, batch)
            computed.add_done_callback(partial(self._finish, batch, now))

    def _next(self) -> list[Waiting]:
        """The request that waits longest, and those that can go with it, taken from the queue."""
        batch: list[Waiting] = []
        left: deque[Waiting] = deque()
        count = 0
        for request in self._waiting:
            if request.answer.cancelled():
                continue
            if batch and not (count + len(request.inputs) <= MOST and batch[0].goes_with(request)):
                left.append(request)
            else:
                batch.append(request)
                count += len(request.inputs)
        self._waiting = left
        return batch

    def _finish(
        self, batch: Sequence[Waiting], began: float, computed: asyncio.Future[list[Answer | Exception]]
    ) -> None:
        self._running -= 1
        seconds = (perf_counter() - began) / len(batch)
        self._mean += NEWEST * (seconds - self._mean) if self._mean else seconds
        # First, so that the thread has work while the answers are written.
        self._start()
        for request, answer in zip(batch, computed.result(), strict=True):
            if request.answer.cancelled():
                continue
            if isinstance(answer, Exception):
                request.answer.set_exception(answer)
            else:
                request.answer.set_result(answer)


def _compute(batch: Sequence[Waiting]) -> list[Answer | Exception]:
    """The answer to each request, or why there is none."""
    first = batch[0]
    try:
        answer = first.ask([item for request in batch for item in request.inputs], **first.options)
    except Exception as error:  # noqa: BLE001 - handed to who asked
        if len(batch) == 1:
            return [error]
        # One of them: the others shall not pay for it.
        return [found for request in batch for found in _compute([request])]
    parts: list[Answer | Exception] = []
    start = 0
    for request in batch:
        parts.append(answer.part(slice(start, start + len(request.inputs))))
        start += len(request.inputs)
    return parts
