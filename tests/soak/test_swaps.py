"""A service under steady load while deployments come and go: no question fails, and no worker grows.

SAEBYEOK_SOAK_MINUTES says for how long. Minutes are counted round by round and kept in pytest's cache: a soak that was
cut off goes on counting, at the same commit.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import pytest

from pipeline.deploy import rollback
from pipeline.job import open_store
from tests.deploying import Answer, hammering, put
from tests.longer import commit, is_fresh
from tests.releases import TinyModel
from tests.service import Service

pytestmark = pytest.mark.soak

MINUTES = float(os.environ.get("SAEBYEOK_SOAK_MINUTES") or 10)
#: Seconds from swap to swap; rounds in which a worker may take what memory it needs; bytes it may grow by after them.
ROUND, WARM_UP, GROWTH = 30.0, 2, 64 * 1024**2
A, B = ("nsmc-" + letter * 16 for letter in "ab")


@dataclass
class Progress:
    """What was done at this commit, in all attempts."""

    seconds: float = 0.0
    requests: int = 0
    swaps: int = 0
    growth: int = 0

    def __str__(self) -> str:
        grown = f"workers grew by {self.growth / 1024**2:.1f} MiB at most"
        return f"{self.seconds / 60:.1f} minutes, {self.requests} questions, {self.swaps} swaps, {grown}"


def key() -> str:
    return f"soak/{commit()}"


def swap(service: Service, number: int, challenger: TinyModel) -> str:
    """Deploy the other release, or roll back to the one before; the id of what is live then."""
    store = open_store(service.settings)
    if number % 2 == 0:
        rollback(service.settings, store, "soak")
        return A
    release = store.newest("release", "nsmc") if number > 1 else challenger.publish(store, "nsmc", key="b" * 16)
    assert release is not None
    put(service.settings, release)
    return B


def take(seen: list[Answer]) -> list[Answer]:
    """The answers so far, taken off the list."""
    taken = seen[:]
    del seen[: len(taken)]
    return taken


def sizes(service: Service) -> dict[int, int]:
    """Resident bytes of each worker."""
    page = os.sysconf("SC_PAGE_SIZE")
    return {pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in service.pids()}


@pytest.mark.parametrize("minutes", [MINUTES], ids=lambda minutes: f"{minutes:g} minutes")
def test_nobody_notices_a_swap(
    minutes: float,
    service: Service,
    classifier: TinyModel,
    other_classifier: TinyModel,
    cache: pytest.Cache,
    record_property: pytest.RecordProperty,
) -> None:
    progress = Progress(**((not is_fresh() and cache.get(key(), None)) or {}))
    put(service.settings, classifier.publish(open_store(service.settings), "nsmc", key="a" * 16))
    warm: dict[int, int] = {}
    with hammering(service.settings.service_url, pause=0.02) as seen:
        for number in count(1):
            began = time.monotonic()
            live = swap(service, number, other_classifier)
            settled = time.monotonic()
            time.sleep(max(0.0, began + ROUND - settled))
            answers = take(seen)
            assert [answer for answer in answers if answer.status != 200] == []
            assert {answer.release for answer in answers} <= {A, B}
            assert {answer.release for answer in answers if answer.asked > settled} == {live}
            now = sizes(service)
            if number <= WARM_UP:
                warm = now
            assert now.keys() == warm.keys(), "no worker was replaced"
            progress.growth = max(progress.growth, *(now[pid] - warm[pid] for pid in now))
            assert progress.growth < GROWTH
            progress.seconds += time.monotonic() - began
            progress.requests += len(answers)
            progress.swaps += 1
            cache.set(key(), asdict(progress))
            if progress.seconds >= 60 * minutes and number > WARM_UP:
                break
    record_property("note", str(progress))
    cache.set(key(), None)
