"""kill -9 of a worker and of the whole service: it restarts with the newest deployment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from pipeline.job import open_store
from pipeline.store.artifacts import Store
from serving.api.counter_files import counter_directory
from serving.deployed.worker_files import live_workers
from tests.support.crowd import TimedAnswer
from tests.support.deploying import hammering, put
from tests.support.running_service import Service, eventually
from tests.support.tiny_releases import TinyModel

pytestmark = pytest.mark.faults

#: Clients that send one request after another.
USERS = 2
A, B, C = ("nsmc-" + letter * 16 for letter in "abc")


@pytest.fixture
def store(service: Service) -> Store:
    return open_store(service.settings)


def deployment_of_all(service: Service, workers: int = 2) -> int | None:
    """Return the deployment that all workers serve, or None while they differ or one is missing."""
    states = service.client.releases().workers
    numbers = {state.deployment for state in states}
    return numbers.pop() if len(states) == workers and len(numbers) == 1 else None


def named(seen: list[TimedAnswer], *, lost: int = 0) -> set[str]:
    """Return the releases that answered; at most `lost` requests may have no answer."""
    assert {answer.status for answer in seen} <= {0, 200}, {answer for answer in seen if answer.status not in (0, 200)}
    unanswered = [answer for answer in seen if answer.status == 0]
    assert len(unanswered) <= lost, unanswered
    return {answer.release for answer in seen if answer.status == 200}


def answers_again(seen: list[TimedAnswer]) -> Callable[[], bool]:
    """Return a condition that is true after ten more successful answers in a row."""
    begin = len(seen)
    return lambda: len(seen) > begin + 10 and all(answer.status == 200 for answer in seen[-10:])


def test_killed_workers_come_back(
    service: Service, store: Store, classifier: TinyModel, other_classifier: TinyModel
) -> None:
    put(service.settings, classifier.publish(store, "nsmc", key="a" * 16))
    first = service.pids()
    with hammering(service.settings.service_url, threads=USERS) as seen:
        eventually("users ask", answers_again(seen))
        for pid in first:
            os.kill(pid, signal.SIGKILL)
            eventually("the worker is back", lambda: deployment_of_all(service) == 1)
        eventually("users are answered", answers_again(seen))
        assert service.pids().isdisjoint(first)
        put(service.settings, other_classifier.publish(store, "nsmc", key="b" * 16))
        eventually("users are answered", answers_again(seen))
    # A dying worker loses its pending requests, at most one per client.
    assert named(seen, lost=USERS * len(first)) == {A, B}


def test_a_deployment_proceeds_while_a_killed_worker_comes_back(
    service: Service, store: Store, classifier: TinyModel, other_classifier: TinyModel
) -> None:
    put(service.settings, classifier.publish(store, "nsmc", key="a" * 16))
    killed = min(service.pids())
    os.kill(killed, signal.SIGKILL)
    record = put(service.settings, other_classifier.publish(store, "nsmc", key="b" * 16))
    eventually("two workers serve the new deployment", lambda: deployment_of_all(service) == record.number)
    assert killed not in service.pids()
    assert service.client.classify(["가"]).release == B


def test_a_killed_service_comes_back_with_the_newest_deployment(
    service: Service, store: Store, classifier: TinyModel, other_classifier: TinyModel
) -> None:
    settings = service.settings
    put(settings, classifier.publish(store, "nsmc", key="a" * 16))
    staged = other_classifier.publish(store, "nsmc", key="c" * 16)
    service.client.stage(staged.ref)
    workers, counters = settings.home / "service" / "workers", counter_directory(settings.home)
    with hammering(settings.service_url, threads=USERS, pause=0.05) as seen:
        eventually("users ask", answers_again(seen))
        before = len(seen)
        service.process.kill()
        service.process.wait()
        # No old process may hold the port or answer with the old release.
        eventually("the workers are gone", lambda: live_workers(workers) == [])
        put(settings, other_classifier.publish(store, "nsmc", key="b" * 16), service=False)
        gone = len(seen)
        back = Service(settings)
        try:
            back.wait_live()
            eventually("both serve it", lambda: deployment_of_all(back) == 2)
            counted = {int(file.stem.rpartition("_")[2]) for file in counters.iterdir()}
            assert counted <= back.pids(), "the counters of the killed service are gone"
            there = len(seen)
            eventually("users are answered", answers_again(seen))
            answered = len(seen)
        finally:
            back.stop()
    # Requests fail only while there is no service.
    assert named(seen[:before]) == {A}
    assert named(seen[before:gone], lost=gone - before) <= {A}
    assert named(seen[gone:there], lost=there - gone) <= {B}
    assert named(seen[there + USERS : answered]) == {B}
