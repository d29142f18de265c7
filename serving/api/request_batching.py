"""Dynamic batching: which requests run now, share a batch, wait in the queue, or are told to retry."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any

from serving.api.errors import ApiError
from serving.engine.engine import Answer
from serving.schemas import ErrorType

#: `Engine.answer` or `Engine.vectors`: computes texts or pairs, in order.
EngineMethod = Callable[..., Answer]
#: Maximum inputs per batch, unless a single request has more; an engine splits it into sub-batches by length.
MOST = 128
#: Weight of the newest batch in the moving average of the seconds per character.
NEWEST = 0.1
#: Characters that cost as much as what each text costs besides its characters.
FIXED = 16
#: Share of the time limit in which a queued request must be answered by estimate; the rest is for errors of estimates.
SAFE = 0.8
#: Maximum Retry-After, in seconds.
LONGEST_ADVICE = 60


@dataclass(frozen=True, eq=False, slots=True)
class Waiting:
    """A queued request, the time since which it waits, and the properties that decide which batch it may join."""

    ask: EngineMethod
    options: dict[str, Any]
    inputs: Sequence[Any]
    alone: bool
    work: int
    answer: asyncio.Future[Answer]
    since: float

    def goes_with(self, other: Waiting) -> bool:
        """Return whether one batch can compute both: same method, engine and options, and neither must be alone."""
        return not (self.alone or other.alone) and self.ask == other.ask and self.options == other.options


class Sharing:
    """The batching threads of one event loop and their queue.

    A request runs immediately if a thread is free; requests that arrive while all threads are busy share a batch. A
    request that is cancelled while it waits is never computed. A request is refused at once if the queue could not be
    computed in time, by the rate of recent batches. If a batch fails, its requests are computed again one by one. An
    engine is referenced only until its last request is done.
    """

    def __init__(self, threads: int, queue: int, begun: Callable[[float], object], patience: float = math.inf) -> None:
        """Compute up to `threads` batches concurrently and queue up to `queue` requests.

        `begun` is called with the seconds that each request waited. An answer after `patience` seconds is too late.
        """
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batch")
        self._threads = threads
        self._queue = queue
        self._begun = begun
        self._running = 0
        self._waiting: deque[Waiting] = deque()
        self._patience = SAFE * patience
        #: Seconds per character on one thread.
        self._rate = 0.0

    async def answer(self, ask: EngineMethod, inputs: Sequence[Any], *, alone: bool = False, **options: Any) -> Answer:
        """Return `ask(inputs, **options)`; unless `alone`, it may share a batch with requests of the same `ask`.

        Raises the error of `ask`, and ApiError OVERLOADED if the queue is full or it could not be answered in time.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        request = Waiting(ask, options, inputs, alone, work_of(inputs), answer, perf_counter())
        if self._running == self._threads:
            self._admit(request)
        self._waiting.append(request)
        self._start()
        return await request.answer

    def close(self) -> None:
        """Wait for running batches."""
        self._pool.shutdown()

    def _admit(self, request: Waiting) -> None:
        queued = self._queued()
        if len(self._waiting) >= self._queue or queued + self._seconds(request.work) > self._patience:
            # Cancelled requests do not count.
            self._waiting = deque(other for other in self._waiting if not other.answer.cancelled())
            queued = self._queued()
        if len(self._waiting) >= self._queue:
            raise _overloaded("the queue is full; try again later", queued)
        if self._waiting and (late := queued + self._seconds(request.work) - self._patience) > 0:
            raise _overloaded("the queue is too long to answer in time; try again later", late)

    def _queued(self) -> float:
        """Return the estimated seconds until the queue is empty."""
        return self._seconds(sum(request.work for request in self._waiting))

    def _seconds(self, work: int) -> float:
        return self._rate * work / self._threads

    def _shed(self) -> None:
        """Refuse the waiting requests that can no longer be answered in time by the newest rate."""
        work, now = 0, perf_counter()
        for request in self._waiting:
            if request.answer.done():
                continue
            late = now - request.since + self._seconds(work + request.work) - self._patience
            if work and late > 0:
                request.answer.set_exception(
                    _overloaded("the queue is too long to answer in time; try again later", late)
                )
            else:
                work += request.work

    def _start(self) -> None:
        """Start batches on free threads."""
        while self._running < self._threads and (batch := self._next()):
            self._running += 1
            now = perf_counter()
            for request in batch:
                self._begun(now - request.since)
            computed = asyncio.get_running_loop().run_in_executor(self._pool, _compute, batch)
            computed.add_done_callback(partial(self._finish, batch, now))

    def _next(self) -> list[Waiting]:
        """Remove the oldest request and all that can share its batch from the queue, and return them."""
        batch: list[Waiting] = []
        left: deque[Waiting] = deque()
        count = 0
        for request in self._waiting:
            if request.answer.done():
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
        seconds = (perf_counter() - began) / sum(request.work for request in batch)
        self._rate += NEWEST * (seconds - self._rate) if self._rate else seconds
        self._shed()
        # Start the next batch first, so that the thread works while the responses are written.
        self._start()
        for request, answer in zip(batch, computed.result(), strict=True):
            if request.answer.cancelled():
                continue
            if isinstance(answer, Exception):
                request.answer.set_exception(answer)
            else:
                timing = replace(answer.timing, queue=began - request.since)
                request.answer.set_result(replace(answer, timing=timing))


def work_of(inputs: Sequence[Any]) -> int:
    """Return the cost of texts or pairs in characters; at least 1."""
    texts = inputs if inputs and isinstance(inputs[0], str) else [text for item in inputs for text in item]
    return 1 + sum(map(len, texts)) + FIXED * len(texts)


def _overloaded(message: str, seconds: float) -> ApiError:
    # Rounded first: 24.000000000000004 seconds are 24.
    headers = {"Retry-After": str(min(max(1, math.ceil(round(seconds, 6))), LONGEST_ADVICE))}
    return ApiError(ErrorType.OVERLOADED, message, headers=headers)


def _compute(batch: Sequence[Waiting]) -> list[Answer | Exception]:
    """Return the answer to each request, or the exception that it caused."""
    first = batch[0]
    try:
        answer = first.ask([item for request in batch for item in request.inputs], **first.options)
    except Exception as error:  # noqa: BLE001 - raised in the request's own task
        if len(batch) == 1:
            return [error]
        # One request caused the error; the others must not fail with it.
        return [found for request in batch for found in _compute([request])]
    parts: list[Answer | Exception] = []
    start = 0
    for request in batch:
        parts.append(answer.part(slice(start, start + len(request.inputs))))
        start += len(request.inputs)
    return parts
