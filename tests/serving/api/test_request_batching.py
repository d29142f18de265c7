"""Dynamic batching: shared batches, failed requests, cancelled requests and the queue."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pipeline.errors import BadInputError
from pipeline.store.artifacts import Store
from serving.api import request_batching
from serving.api.errors import ApiError
from serving.api.request_batching import Sharing, work_of
from serving.engine.engine import Answer, Engine, EngineOptions
from serving.schemas import ErrorType
from tests.support.clock import Clock
from tests.support.tiny_releases import SENTENCES, TinyModel

pytestmark = pytest.mark.asyncio


@pytest.fixture
def make() -> Iterator[Callable[..., Sharing]]:
    """Create a Sharing, by default with one thread and a long queue."""
    made: list[Sharing] = []

    def sharing(
        threads: int = 1,
        queue: int = 256,
        begun: Callable[[float], object] = lambda seconds: None,
        patience: float = math.inf,
    ) -> Sharing:
        made.append(Sharing(threads, queue, begun, patience))
        return made[-1]

    yield sharing
    for each in made:
        each.close()


@dataclass(eq=False)
class Slow:
    """Return the lengths of texts after `go` is set, and record the calls."""

    asked: list[list[str]] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    started: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def answer(self, inputs: Sequence[str], times: int = 1) -> Answer:
        self.asked.append(list(inputs))
        self.started.release()
        assert self.go.wait(30)
        if "bad" in inputs:
            raise BadInputError("it is bad", inputs.index("bad"))
        values = np.array([[times * len(text)] for text in inputs], dtype=np.float32).reshape(-1, 1)
        nothing = np.zeros(len(inputs), dtype=np.int64)
        return Answer(values, nothing > 0, nothing, nothing)


async def begun(slow: Slow, count: int) -> None:
    for _ in range(count):
        assert await asyncio.to_thread(slow.started.acquire, timeout=30)


def lengths(answer: Answer) -> list[float]:
    return answer.values[:, 0].tolist()


async def test_requests_during_computation_share_a_batch(make: Callable[..., Sharing]) -> None:
    slow, sharing = Slow(), make()
    first = asyncio.create_task(sharing.answer(slow.answer, ["a"]))
    await begun(slow, 1)
    others = [asyncio.create_task(sharing.answer(slow.answer, texts)) for texts in (["bb", "c"], [], ["dddd"])]
    await asyncio.sleep(0)
    slow.go.set()
    assert lengths(await first) == [1]
    assert [lengths(await other) for other in others] == [[2, 1], [], [4]]
    assert slow.asked == [["a"], ["bb", "c", "dddd"]]


async def test_threads_that_are_free_are_not_waited_for(make: Callable[..., Sharing]) -> None:
    slow, sharing = Slow(), make(threads=2)
    tasks = [asyncio.create_task(sharing.answer(slow.answer, [text])) for text in ("a", "bb")]
    await begun(slow, 2)
    slow.go.set()
    assert [lengths(await task) for task in tasks] == [[1], [2]]
    assert sorted(slow.asked) == [["a"], ["bb"]]


async def test_only_equal_calls_share_batches_in_order(make: Callable[..., Sharing]) -> None:
    slow, other, sharing = Slow(), Slow(), make()
    tasks = [asyncio.create_task(sharing.answer(slow.answer, ["a"]))]
    await begun(slow, 1)
    asked: list[tuple[Slow, str, dict[str, int]]] = [
        (other, "b", {}), (slow, "c", {"times": 2}), (slow, "d", {}), (other, "e", {}), (slow, "f", {"times": 2}),
    ]  # fmt: skip
    tasks += [asyncio.create_task(sharing.answer(who.answer, [text], **options)) for who, text, options in asked]
    await asyncio.sleep(0)
    slow.go.set()
    other.go.set()
    assert [lengths(await task) for task in tasks] == [[1], [1], [2], [1], [1], [2]]
    assert slow.asked == [["a"], ["c", "f"], ["d"]]
    assert other.asked == [["b", "e"]]


async def test_request_alone_shares_no_batch(make: Callable[..., Sharing]) -> None:
    slow, sharing = Slow(), make()
    asked = [("a", False), ("b", False), ("c", True), ("d", True), ("e", False)]
    tasks = [asyncio.create_task(sharing.answer(slow.answer, [text], alone=alone)) for text, alone in asked]
    await begun(slow, 1)
    slow.go.set()
    assert [lengths(await task) for task in tasks] == [[1]] * 5
    assert slow.asked == [["a"], ["b", "e"], ["c"], ["d"]]


async def test_alone_request_takes_no_later_one_along(make: Callable[..., Sharing]) -> None:
    slow, sharing = Slow(), make()
    asked = [("a", False), ("b", True), ("c", False), ("d", False)]
    tasks = [asyncio.create_task(sharing.answer(slow.answer, [text], alone=alone)) for text, alone in asked]
    await begun(slow, 1)
    slow.go.set()
    assert [lengths(await task) for task in tasks] == [[1]] * 4
    assert slow.asked == [["a"], ["b"], ["c", "d"]]


async def test_two_threads_work_on_two_batches_at_once(make: Callable[..., Sharing]) -> None:
    slow, sharing = Slow(), make(threads=2)
    tasks = [asyncio.create_task(sharing.answer(slow.answer, [text])) for text in "abcd"]
    await begun(slow, 2)
    assert sorted(slow.asked) == [["a"], ["b"]]
    slow.go.set()
    await asyncio.gather(*tasks)
    assert slow.asked[2:] == [["c", "d"]]
    names = {thread.name for thread in threading.enumerate() if thread.name.startswith("batch")}
    assert len(names) == 2


async def test_close_waits_for_what_has_begun(make: Callable[..., Sharing]) -> None:
    slow, sharing = Slow(), make()
    task = asyncio.create_task(sharing.answer(slow.answer, ["a"]))
    await begun(slow, 1)
    closing = asyncio.create_task(asyncio.to_thread(sharing.close))
    done, _ = await asyncio.wait({closing}, timeout=0.02)
    assert not done, "its thread is still at work"
    slow.go.set()
    await closing
    assert lengths(await task) == [1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(request_batching, "perf_counter", found)
    return found


async def take(sharing: Sharing, clock: Clock, seconds: float, requests: int = 1) -> None:
    """Have a batch of so many requests take so long."""
    slow, before = Slow(), Slow()
    if requests > 1:
        # While this is computed, in no time, the others gather.
        first = asyncio.create_task(sharing.answer(before.answer, ["x"]))
        await begun(before, 1)
    tasks = [asyncio.create_task(sharing.answer(slow.answer, ["x"])) for _ in range(requests)]
    await asyncio.sleep(0)
    before.go.set()
    if requests > 1:
        await first
    await begun(slow, 1)
    clock.now += seconds
    slow.go.set()
    await asyncio.gather(*tasks)
    assert len(slow.asked) == 1


async def advice(sharing: Sharing, threads: int, queue: int) -> int:
    """What one too many is told, while `threads` requests are at work and `queue` wait."""
    slow = Slow()
    tasks = [asyncio.create_task(sharing.answer(slow.answer, ["x"])) for _ in range(threads + queue)]
    await begun(slow, threads)
    with pytest.raises(ApiError) as caught:
        await sharing.answer(slow.answer, ["x"])
    for task in tasks:
        task.cancel()
    slow.go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    return int(caught.value.headers["Retry-After"])


@pytest.mark.parametrize(
    ("seconds", "threads", "queue", "told"),
    [
        (10.0, 1, 2, 20), (10.0, 2, 2, 10), (10.01, 1, 2, 21), (0.4, 1, 2, 1), (0.51, 1, 2, 2), (0.0, 1, 2, 1),
        (30.0, 1, 2, 60), (30.01, 1, 2, 60), (29.5, 1, 2, 59), (29.51, 1, 2, 60), (1000.0, 1, 1, 60), (5.0, 1, 0, 1),
    ],
)  # fmt: skip
async def test_advice_is_the_time_the_queue_takes(
    make: Callable[..., Sharing], clock: Clock, seconds: float, threads: int, queue: int, told: int
) -> None:
    sharing = make(threads=threads, queue=queue)
    await take(sharing, clock, seconds)
    assert await advice(sharing, threads, queue) == told


@pytest.mark.parametrize(("first", "second", "told"), [(10.0, 30.0, 24), (30.0, 10.0, 56)])
async def test_advice_follows_the_newest_batch_by_a_tenth(
    make: Callable[..., Sharing], clock: Clock, first: float, second: float, told: int
) -> None:
    sharing = make(queue=2)
    await take(sharing, clock, first)
    await take(sharing, clock, second)
    # A tenth of the way from 10 to 30 is 12, and from 30 to 10 it is 28.
    assert await advice(sharing, 1, 2) == told


async def test_advice_counts_a_batch_by_its_requests(make: Callable[..., Sharing], clock: Clock) -> None:
    sharing = make(queue=4)
    # Four that took 40 seconds together took 10 each; the one before them took none, and is no mean yet.
    await take(sharing, clock, 40.0, requests=4)
    assert await advice(sharing, 1, 4) == 40


async def test_bad_request_fails_alone(make: Callable[..., Sharing]) -> None:
    slow, sharing = Slow(), make()
    first = asyncio.create_task(sharing.answer(slow.answer, ["a"]))
    await begun(slow, 1)
    good = asyncio.create_task(sharing.answer(slow.answer, ["bb", "c"]))
    bad = asyncio.create_task(sharing.answer(slow.answer, ["d", "bad"]))
    await asyncio.sleep(0)
    slow.go.set()
    await first
    with pytest.raises(BadInputError, match="it is bad") as caught:
        await bad
    assert caught.value.index == 1
    assert lengths(await good) == [2, 1]


async def test_cancelled_request_is_not_computed(make: Callable[..., Sharing]) -> None:
    slow, sharing = Slow(), make(queue=4)
    first = asyncio.create_task(sharing.answer(slow.answer, ["a"]))
    await begun(slow, 1)
    gone = [asyncio.create_task(sharing.answer(slow.answer, ["gone"])) for _ in range(3)]
    stays = asyncio.create_task(sharing.answer(slow.answer, ["bb"]))
    await asyncio.sleep(0)
    for task in (first, *gone):
        task.cancel()
    await asyncio.sleep(0)
    # Their places are free immediately.
    late = [asyncio.create_task(sharing.answer(slow.answer, ["cc"])) for _ in range(3)]
    await asyncio.sleep(0)
    slow.go.set()
    assert [lengths(await task) for task in (stays, *late)] == [[2]] * 4
    assert slow.asked == [["a"], ["bb", "cc", "cc", "cc"]]
    assert lengths(await sharing.answer(slow.answer, ["ccc"])) == [3]


async def test_full_queue_reports_retry_after(make: Callable[..., Sharing]) -> None:
    slow, sharing = Slow(), make(queue=2)
    tasks = [asyncio.create_task(sharing.answer(slow.answer, ["a"])) for _ in range(3)]
    await begun(slow, 1)
    with pytest.raises(ApiError, match="the queue is full") as caught:
        await sharing.answer(slow.answer, ["b"])
    assert caught.value.kind is ErrorType.OVERLOADED
    assert 1 <= int(caught.value.headers["Retry-After"]) <= 60
    slow.go.set()
    assert [lengths(await task) for task in tasks] == [[1]] * 3


async def test_request_that_would_be_late_is_refused_at_once(make: Callable[..., Sharing], clock: Clock) -> None:
    # A text of one character takes ten seconds; answers after 80% of 40 seconds are too late.
    sharing = make(patience=40.0)
    await take(sharing, clock, 10.0)
    slow = Slow()
    tasks = [asyncio.create_task(sharing.answer(slow.answer, ["x"])) for _ in range(4)]
    await begun(slow, 1)
    with pytest.raises(ApiError, match="too long to answer in time") as caught:
        await sharing.answer(slow.answer, ["x"])
    assert (caught.value.kind, caught.value.headers["Retry-After"]) == (ErrorType.OVERLOADED, "8")
    slow.go.set()
    assert [lengths(await task) for task in tasks] == [[1]] * 4


async def test_queued_requests_are_refused_when_the_rate_is_known(make: Callable[..., Sharing], clock: Clock) -> None:
    sharing, slow = make(patience=40.0), Slow()
    tasks = [asyncio.create_task(sharing.answer(slow.answer, ["x"])) for _ in range(6)]
    await begun(slow, 1)
    clock.now += 10.0
    slow.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    # The first took 10 seconds; after it there are 22 seconds for two more.
    assert [isinstance(answer, Answer) for answer in found] == [True, True, True, False, False, False]
    refused = found[3]
    assert isinstance(refused, ApiError)
    assert refused.kind is ErrorType.OVERLOADED
    assert slow.asked == [["x"], ["x", "x"]]


async def test_long_request_is_computed_if_nothing_else_waits(make: Callable[..., Sharing], clock: Clock) -> None:
    sharing = make(patience=1.0)
    await take(sharing, clock, 10.0)
    slow = Slow()
    first = asyncio.create_task(sharing.answer(slow.answer, ["x"]))
    await begun(slow, 1)
    second = asyncio.create_task(sharing.answer(slow.answer, ["xx"]))
    await asyncio.sleep(0)
    slow.go.set()
    assert [lengths(await task) for task in (first, second)] == [[1], [2]]


@pytest.mark.parametrize(("patience", "refused"), [(90.0, [18]), (89.0, [1, 1])])
async def test_requests_beyond_the_limit_are_refused(
    make: Callable[..., Sharing], clock: Clock, patience: float, refused: list[int]
) -> None:
    # A text takes 18 seconds, and 80% of 90 seconds are exactly four texts. Of four that wait, the last one fits at
    # first, and not after the one before them took 18 seconds. Within 80% of 89 seconds, there is room for one less.
    sharing, slow = make(patience=patience), Slow()
    await take(sharing, clock, 18.0)
    tasks = [asyncio.create_task(sharing.answer(slow.answer, ["x"])) for _ in range(5)]
    await begun(slow, 1)
    assert sum(task.done() for task in tasks) == len(refused) - 1, "refused at once"
    clock.now += 18.0
    slow.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    told = [int(error.headers["Retry-After"]) for error in found if isinstance(error, ApiError)]
    assert told == refused
    assert slow.asked == [["x"], ["x"] * (4 - len(refused))]


async def test_cancelled_requests_take_no_time_of_others(make: Callable[..., Sharing], clock: Clock) -> None:
    sharing, slow = make(patience=90.0), Slow()
    await take(sharing, clock, 18.0)
    tasks = [asyncio.create_task(sharing.answer(slow.answer, ["x"])) for _ in range(5)]
    await begun(slow, 1)
    for task in tasks[1:3]:
        task.cancel()
    await asyncio.sleep(0)
    # With the two, there would be no room for these.
    tasks += [asyncio.create_task(sharing.answer(slow.answer, ["x"])) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.sleep(0)
    # There is time for two more; with the cancelled one, it would be for one.
    clock.now += 19.0
    slow.go.set()
    assert [lengths(await task) for task in (tasks[0], *tasks[4:6])] == [[1]] * 3
    with pytest.raises(ApiError, match="too long to answer in time"):
        await tasks[6]
    assert slow.asked == [["x"], ["x"] * 2]


async def test_cancelled_request_leaves_its_batch_alone(make: Callable[..., Sharing]) -> None:
    before, slow, sharing = Slow(), Slow(), make()
    first = asyncio.create_task(sharing.answer(before.answer, ["a"]))
    await begun(before, 1)
    gone = asyncio.create_task(sharing.answer(slow.answer, ["b"]))
    stays = asyncio.create_task(sharing.answer(slow.answer, ["cc"]))
    await asyncio.sleep(0)
    before.go.set()
    await first
    await begun(slow, 1)
    gone.cancel()
    slow.go.set()
    assert lengths(await asyncio.wait_for(stays, 30)) == [2]


@pytest.mark.parametrize(
    ("inputs", "work"), [([], 1), (["가나다"], 20), (["ab", "c"], 36), ([("ab", "c"), ("d", "e")], 70)]
)
async def test_work_counts_characters_and_texts(inputs: list[Any], work: int) -> None:
    assert work_of(inputs) == work


async def test_answer_tells_how_long_it_waited(make: Callable[..., Sharing], clock: Clock) -> None:
    sharing, slow = make(), Slow()
    first = asyncio.create_task(sharing.answer(slow.answer, ["a"]))
    await begun(slow, 1)
    clock.now += 2.0
    second = asyncio.create_task(sharing.answer(slow.answer, ["b"]))
    await asyncio.sleep(0)
    clock.now += 3.0
    slow.go.set()
    assert [(await task).timing.queue for task in (first, second)] == [0.0, 3.0]


async def test_without_a_queue_only_running_requests_fit(make: Callable[..., Sharing]) -> None:
    slow, sharing = Slow(), make(queue=0)
    first = asyncio.create_task(sharing.answer(slow.answer, ["a"]))
    await begun(slow, 1)
    with pytest.raises(ApiError, match="the queue is full"):
        await sharing.answer(slow.answer, ["b"])
    slow.go.set()
    assert lengths(await first) == [1]


async def test_each_request_is_reported_at_its_start(make: Callable[..., Sharing], clock: Clock) -> None:
    waited: list[float] = []
    slow, sharing = Slow(), make(begun=waited.append)
    clock.now += 1.0
    tasks = [asyncio.create_task(sharing.answer(slow.answer, ["a"])) for _ in range(3)]
    await begun(slow, 1)
    assert waited == [0.0]
    clock.now += 2.0
    slow.go.set()
    await asyncio.gather(*tasks)
    assert waited == [0.0, 2.0, 2.0]


async def test_batch_size_is_limited(make: Callable[..., Sharing]) -> None:
    slow, sharing = Slow(), make()
    first = asyncio.create_task(sharing.answer(slow.answer, ["a"]))
    await begun(slow, 1)
    sizes = [129, 127, 1, 1]
    others = [asyncio.create_task(sharing.answer(slow.answer, ["b"] * size)) for size in sizes]
    await asyncio.sleep(0)
    slow.go.set()
    assert [len((await task).values) for task in (first, *others)] == [1, *sizes]
    assert [len(batch) for batch in slow.asked] == [1, 129, 128, 1]


async def test_batched_answers_equal_single_ones(
    store: Store, classifier: TinyModel, make: Callable[..., Sharing]
) -> None:
    # One sub-batch per text, because int8 answers depend on the sub-batch.
    engine = Engine(classifier.publish(store, "nsmc", key="a" * 16).path, EngineOptions(device="cpu", batch_tokens=1))
    sharing = make()
    texts: list[Any] = [(text,) for text in SENTENCES]
    answers = await asyncio.gather(*(sharing.answer(engine.answer, [text]) for text in texts * 5))
    wanted = engine.answer(texts).values
    np.testing.assert_array_equal(np.concatenate([answer.values for answer in answers]), np.tile(wanted, (5, 1)))
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None
