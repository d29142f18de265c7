"""A service at 70% load during deployments and client disconnects: no request fails and no worker's memory grows.

SAEBYEOK_SOAK_MINUTES sets the duration. Minutes are counted round by round in pytest's cache: an interrupted soak
resumes counting at the same commit.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import pytest

from pipeline.deployment.deployer import rollback
from pipeline.job import open_store
from pipeline.store.verdicts import model_of, record_verdict
from tests.support.crowd import Crowd, TimedAnswer
from tests.support.deploying import put
from tests.support.long_runs import commit, is_fresh
from tests.support.running_service import Service
from tests.support.tiny_releases import SENTENCES, TinyModel, expected

pytestmark = pytest.mark.soak

MINUTES = float(os.environ.get("SAEBYEOK_SOAK_MINUTES") or 20)
#: Seconds between swaps (fewer in a short soak); rounds in which the memory of a worker may still grow; the share by
#: which it may grow after them.
ROUND, WARM_UP, GROWTH = min(60.0, 12 * MINUTES), 2, 0.05
#: Latency limits during deployments, in idle medians: the maximum, and p99.9.
SLOWEST, OFTEN = 200.0, 40.0
#: Load as a share of the capacity; seconds of the capacity measurement.
LOAD, MEASURE = 0.7, min(15.0, ROUND)
TEXTS = SENTENCES[:3]
A, B = ("nsmc-" + letter * 16 for letter in "ab")


@dataclass
class SoakProgress:
    """Return the rounds that ran at this commit, in all attempts."""

    seconds: float = 0.0
    requests: int = 0
    departures: int = 0
    swaps: int = 0
    growth: float = 0.0
    slowest: float = 0.0

    def __str__(self) -> str:
        asked = f"{self.requests} questions and {self.departures} who went away"
        return (
            f"{self.seconds / 60:.1f} minutes, {asked}, {self.swaps} swaps, workers grew by {self.growth:.1%} at most, "
            f"the slowest answer took {self.slowest:.0f} quiet medians"
        )


def key() -> str:
    return f"soak/{commit()}"


def swap(service: Service, number: int, challenger: TinyModel) -> str:
    """Deploy the other release, or roll back to the previous one, and return the id of the live release."""
    store = open_store(service.settings)
    if number % 2 == 0:
        rollback(service.settings, store, "soak")
        return A
    release = store.newest("release", "nsmc") if number > 1 else challenger.publish(store, "nsmc", key="b" * 16)
    assert release is not None
    # Rolling back from it rejected it.
    record_verdict(model_of(release), "approved", by="soak", run="soak")
    put(service.settings, release)
    return B


def sizes(service: Service) -> dict[int, int]:
    """Return the resident memory of each worker, in bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    return {pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in service.pids()}


def waits(answers: Sequence[TimedAnswer]) -> list[float]:
    """Return the latency of each request in seconds, sorted."""
    return sorted(answer.came - answer.asked for answer in answers)


def quiet_median(crowd: Crowd) -> float:
    """Return the median latency in seconds without deployments, at the request rate of the soak."""
    crowd.take()
    time.sleep(MEASURE)
    answers = waits(crowd.take())
    return answers[len(answers) // 2]


def capacity(crowd: Crowd) -> float:
    """Return the answered requests per second when all clients send without pause."""
    time.sleep(MEASURE / 3)
    crowd.take()
    time.sleep(MEASURE)
    answers = crowd.take()
    assert {answer.status for answer in answers} == {200}
    return len(answers) / MEASURE


def values(model: TinyModel) -> list[float]:
    """Return a model's answers to the texts of the requests."""
    return [expected(model, (text,))[1] for text in TEXTS]


def named(answer: TimedAnswer, truth: Mapping[str, Sequence[float]]) -> str:
    """Return the release whose answers these are; they vary slightly with the other rows of the batch."""
    return min(truth, key=lambda name: math.dist(truth[name], answer.values))


@pytest.mark.parametrize("minutes", [MINUTES], ids=lambda minutes: f"{minutes:g} minutes")
def test_nobody_notices_a_swap(
    minutes: float,
    service: Service,
    classifier: TinyModel,
    other_classifier: TinyModel,
    cache: pytest.Cache,
    record_property: pytest.RecordProperty,
) -> None:
    progress = SoakProgress(**((not is_fresh() and cache.get(key(), None)) or {}))
    put(service.settings, classifier.publish(open_store(service.settings), "nsmc", key="a" * 16))
    truth = {name: values(model) for name, model in ((A, classifier), (B, other_classifier))}
    warm: dict[int, int] = {}
    live = A
    with Crowd(service.settings.service_url, TEXTS).at_work() as crowd:
        crowd.rate = LOAD * capacity(crowd)
        quiet = quiet_median(crowd)
        crowd.rude = True
        for number in count(1):
            began, before = time.monotonic(), live
            live = swap(service, number, other_classifier)
            settled = time.monotonic()
            # A swap on a busy machine can take longer than that.
            time.sleep(max(ROUND / 4, began + ROUND - settled))
            answers = crowd.take()
            assert [answer for answer in answers if answer.status != 200] == []
            assert [answer for answer in answers if named(answer, truth) != answer.release] == []
            slow = waits(answers)
            assert slow[int(0.999 * len(slow))] < OFTEN * quiet, "one in a thousand waits"
            assert slow[-1] < SLOWEST * quiet, "somebody waits"
            progress.slowest = max(progress.slowest, slow[-1] / quiet)
            assert {answer.release for answer in answers if answer.came < began} <= {before}
            assert {answer.release for answer in answers if answer.asked > settled} == {live}
            now = sizes(service)
            if number <= WARM_UP:
                warm = now
            assert now.keys() == warm.keys(), "no worker was replaced"
            progress.growth = max(progress.growth, *(now[pid] / warm[pid] - 1 for pid in now))
            assert progress.growth < GROWTH
            progress.seconds += time.monotonic() - began
            progress.requests += len(answers)
            progress.departures, crowd.departures = progress.departures + crowd.departures, 0
            progress.swaps += 1
            cache.set(key(), asdict(progress))
            if progress.seconds >= 60 * minutes and number > WARM_UP:
                break
    assert progress.departures
    record_property("note", f"{progress}; {crowd.rate:.0f} questions a second")
    cache.set(key(), None)
