"""How many requests are worked on at once, how many wait, and what the next one is told."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from serving.errors import ApiError
from serving.schemas import ErrorType

T = TypeVar("T")

#: Share of the newest request in the mean of how long one takes.
NEWEST = 0.1
#: Seconds; more is no advice.
LONGEST_ADVICE = 60


class Admission:
    """A worker's threads for requests, and the queue before them."""

    def __init__(self, concurrent: int, queue: int) -> None:
        """`concurrent` requests are worked on at once, `queue` more may wait."""
        self._pool = ThreadPoolExecutor(concurrent, thread_name_prefix="request")
        self._free = asyncio.Semaphore(concurrent)
        self._concurrent = concurrent
        self._queue = queue
        self._waiting = 0
        self._mean = 0.0

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, from a thread. Raises ApiError OVERLOADED where the queue is full.

        Where the caller is cancelled it leaves the queue; what a thread has begun keeps its place until it is done.
        """
        if self._free.locked():
            if self._waiting >= self._queue:
                raise ApiError(ErrorType.OVERLOADED, "the queue is full; try again later", headers=self._advice())
            self._waiting += 1
            try:
                await self._free.acquire()
            finally:
                self._waiting -= 1
        else:
            await self._free.acquire()
        began = time.monotonic()
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(lambda _: self._leave(time.monotonic() - began))
        return await asyncio.shield(future)

    def close(self) -> None:
        """Wait for what has begun."""
        self._pool.shutdown()

    def _leave(self, seconds: float) -> None:
        self._mean += NEWEST * (seconds - self._mean) if self._mean else seconds
        self._free.release()

    def _advice(self) -> dict[str, Any]:
        """When the queue will have moved, as far as the last requests tell."""
        seconds = math.ceil(self._mean * self._waiting / self._concurrent)
        return {"Retry-After": str(min(max(1, seconds), LONGEST_ADVICE))}
