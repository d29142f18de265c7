"""Requests that share batches: who gets what, and what becomes of those that fail or go away."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts import Store
from pipeline.errors import BadInputError
from serving.engine import Answer, Engine, EngineOptions
from serving.sharing import MOST, Sharing
from tests.releases import SENTENCES, TinyModel

pytestmark = pytest.mark.asyncio


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@dataclass(eq=False)
class Slow:
    """Answers lengths of texts once it may go on, and remembers what it was asked."""

    asked: list[list[str]] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    started: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def answer(self, inputs: Sequence[str]) -> Answer:
        self.asked.append(list(inputs))
        self.started.release()
        assert self.go.wait(30)
        if "bad" in inputs:
            raise BadInputError(inputs.index("bad"), "it is bad")
        values = np.array([[len(text)] for text in inputs], dtype=np.float32)
        return Answer(values, np.zeros(len(inputs), dtype=np.bool_))


async def begun(slow: Slow, count: int) -> None:
    for _ in range(count):
        assert await asyncio.to_thread(slow.started.acquire, timeout=30)


def lengths(answer: Answer) -> list[float]:
    return answer.values[:, 0].tolist()


async def test_what_comes_while_others_compute_goes_together(pool: ThreadPoolExecutor) -> None:
    slow, sharing = Slow(), Sharing(pool, threads=1)
    first = asyncio.create_task(sharing.answer("x", slow.answer, ["a"]))
    await begun(slow, 1)
    others = [asyncio.create_task(sharing.answer("x", slow.answer, texts)) for texts in (["bb", "c"], [], ["dddd"])]
    await asyncio.sleep(0)
    slow.go.set()
    assert lengths(await first) == [1]
    assert [lengths(await other) for other in others] == [[2, 1], [], [4]]
    assert slow.asked == [["a"], ["bb", "c", "dddd"]]


async def test_threads_that_are_free_are_not_waited_for(pool: ThreadPoolExecutor) -> None:
    slow, sharing = Slow(), Sharing(pool, threads=2)
    tasks = [asyncio.create_task(sharing.answer("x", slow.answer, [text])) for text in ("a", "bb")]
    await begun(slow, 2)
    slow.go.set()
    assert [lengths(await task) for task in tasks] == [[1], [2]]
    assert sorted(slow.asked) == [["a"], ["bb"]]


async def test_what_is_asked_otherwise_shares_nothing(pool: ThreadPoolExecutor) -> None:
    slow, other, sharing = Slow(), Slow(), Sharing(pool, threads=1)
    tasks = [asyncio.create_task(sharing.answer(ask, ask.answer, ["a"])) for ask in (slow, other)]
    await begun(slow, 1)
    await begun(other, 1)
    slow.go.set()
    other.go.set()
    assert [lengths(await task) for task in tasks] == [[1], [1]]


async def test_a_bad_request_fails_alone_with_its_own_index(pool: ThreadPoolExecutor) -> None:
    slow, sharing = Slow(), Sharing(pool, threads=1)
    first = asyncio.create_task(sharing.answer("x", slow.answer, ["a"]))
    await begun(slow, 1)
    good = asyncio.create_task(sharing.answer("x", slow.answer, ["bb", "c"]))
    bad = asyncio.create_task(sharing.answer("x", slow.answer, ["d", "bad"]))
    await asyncio.sleep(0)
    slow.go.set()
    await first
    with pytest.raises(BadInputError, match="it is bad") as caught:
        await bad
    assert caught.value.index == 1
    assert lengths(await good) == [2, 1]


async def test_who_goes_away_costs_nothing_and_holds_nobody_up(pool: ThreadPoolExecutor) -> None:
    slow, sharing = Slow(), Sharing(pool, threads=1)
    first = asyncio.create_task(sharing.answer("x", slow.answer, ["a"]))
    await begun(slow, 1)
    gone = [asyncio.create_task(sharing.answer("x", slow.answer, ["gone"])) for _ in range(3)]
    stays = asyncio.create_task(sharing.answer("x", slow.answer, ["bb"]))
    await asyncio.sleep(0)
    for task in (first, *gone):
        task.cancel()
    await asyncio.sleep(0)
    slow.go.set()
    assert lengths(await stays) == [2]
    assert slow.asked == [["a"], ["bb"]]
    assert lengths(await sharing.answer("x", slow.answer, ["ccc"])) == [3]


async def test_a_batch_is_no_larger_than_it_may_be(pool: ThreadPoolExecutor) -> None:
    slow, sharing = Slow(), Sharing(pool, threads=1)
    first = asyncio.create_task(sharing.answer("x", slow.answer, ["a"]))
    await begun(slow, 1)
    sizes = [MOST + 1, MOST - 1, 1, 1]
    others = [asyncio.create_task(sharing.answer("x", slow.answer, ["b"] * size)) for size in sizes]
    await asyncio.sleep(0)
    slow.go.set()
    assert [len((await task).values) for task in (first, *others)] == [1, *sizes]
    assert [len(batch) for batch in slow.asked] == [1, MOST + 1, MOST, 1]


async def test_an_engine_answers_many_requests_as_alone_and_is_let_go(
    store: Store, classifier: TinyModel, pool: ThreadPoolExecutor
) -> None:
    # A sub-batch a text, since company moves what int8 answers.
    engine = Engine(classifier.publish(store, "nsmc", key="a" * 16).path, EngineOptions(device="cpu", batch_tokens=1))
    sharing = Sharing(pool, threads=1)
    texts: list[Any] = [(text,) for text in SENTENCES]
    answers = await asyncio.gather(*(sharing.answer(engine, engine.answer, [text]) for text in texts * 5))
    wanted = engine.answer(texts).values
    np.testing.assert_array_equal(np.concatenate([answer.values for answer in answers]), np.tile(wanted, (5, 1)))
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None
