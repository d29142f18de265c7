"""kill -9 of `saebyeok run` during deployment: no request fails, and the next run completes the deployment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.store.deployments import DeploymentLog
from tests.support.cli import Place, sets
from tests.support.deploying import hammering
from tests.support.running_service import Service, eventually
from tests.support.small_pipeline import SMALL, anything_goes
from tests.support.tiny_releases import SENTENCES

pytestmark = pytest.mark.faults

#: Thresholds are off: tiny models learn nothing, and which of two is better is chance.
ANY = SMALL | anything_goes("nsmc")
FIRST, SECOND = (["run", "nsmc", *sets(ANY | {"train.seed": seed})] for seed in (1, 2))


@pytest.fixture
def place(service: Service) -> Place:
    """Return the home of a service with one deployment."""
    place = Place(service.settings.home, SAEBYEOK_SERVICE_URL=service.settings.service_url)
    assert place.call(*FIRST)["deployment"] == 1
    return place


def numbers(place: Place) -> list[int]:
    return DeploymentLog(place.store).numbers()


def has_bento(place: Place, number: int) -> bool:
    return (place.home / "bentoml" / "bentos" / "saebyeok" / str(number) / "bento.yaml").is_file()


@contextmanager
def held_up(pid: int) -> Iterator[None]:
    """Stop (SIGSTOP) a process while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_killed_before_the_record_users_keep_the_old_release(place: Place, service: Service) -> None:
    url, client = service.settings.service_url, service.client
    old = client.classify(SENTENCES[:1]).release
    late, busy = sorted(service.pids())
    # A deployment waits for every worker: with one held up, it stays between staging and the record.
    with held_up(late), hammering(url, pause=0.05) as seen:
        with place.killed(*SECOND) as process:
            eventually("it is staged", lambda: process.poll() is not None or staged_by(service, busy))
        before = len(seen)
        eventually("users go on asking", lambda: len(seen) > before + 10)
    assert {(answer.status, answer.release) for answer in seen} == {(200, old)}
    assert numbers(place) == [1]
    again = place.call(*SECOND)
    assert again["deployment"] == 2
    assert [step["stage"] for step in again["stages"] if not step["reused"]] == []
    assert client.classify(SENTENCES[:1]).release == again["release"] != old
    assert client.releases().staged == []


def staged_by(service: Service, pid: int) -> bool:
    return any(worker.pid == pid and worker.staged for worker in service.client.releases().workers)


def test_killed_after_the_record_users_get_the_new_release(place: Place, service: Service) -> None:
    with place.killed(*SECOND) as process:
        eventually("it is recorded", lambda: process.poll() is not None or numbers(place) == [1, 2], pause=0.001)
    assert not has_bento(place, 2)
    eventually("both serve it", lambda: {state.deployment for state in service.client.releases().workers} == {2})
    again = place.call(*SECOND)
    assert (again["deployment"], numbers(place)) == (2, [1, 2])
    assert has_bento(place, 2)
    assert service.client.classify(SENTENCES[:1]).release == again["release"]
    assert service.client.releases().staged == []
