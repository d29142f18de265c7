"""Many deployments and rollbacks in a row on three replicas behind the balancer, under load."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from pipeline.deployment.deployer import rollback
from pipeline.store.deployments import Deployment
from pipeline.store.releases import release_id
from tests.support.crowd import TimedAnswer
from tests.support.deploying import hammering
from tests.support.served_answers import wrong_answers
from tests.topology.runner.cluster import REPLICAS
from tests.topology.runner.hosts import eventually
from tests.topology.runner.watching import RECIPE, Bench

pytestmark = pytest.mark.topology

DEPLOYMENTS, ROLLBACKS = 20, 5
#: Seconds until all replicas must serve a new deployment.
LIMIT = 10.0


@pytest.mark.usefixtures("no_bentos")
def test_many_swaps_under_load_fail_no_request(bench: Bench, record_property: pytest.RecordProperty) -> None:
    bench.put()
    with hammering(bench.cluster.url, recipe=RECIPE) as seen:
        took = [reached(bench, seen, bench.put()) for _ in range(DEPLOYMENTS)]
        took += [reached(bench, seen, rollback(bench.settings, bench.store, f"back {n}")) for n in range(ROLLBACKS)]
    record_property("note", f"{len(seen)} answers; the last replica followed after {max(took):.1f} s")
    assert {answer.status for answer in seen} == {200}
    assert wrong_answers(bench.store, seen, RECIPE) == []


def reached(bench: Bench, seen: Sequence[TimedAnswer], made: Deployment) -> float:
    """Return the seconds from the record of a deployment to the last question that another release answered.

    The disks of the replicas must stay flat.
    """
    eventually("it is everywhere", lambda: bench.cluster.deployments() == {made.number}, LIMIT)
    recorded = time.monotonic() - (time.time() - made.created.timestamp())
    release = release_id(bench.store, made.releases[RECIPE])
    took = max(answer.asked for answer in seen if answer.asked <= recorded or answer.release != release) - recorded
    assert took <= LIMIT, f"deployment {made.number} reached all replicas after {took:.1f} s"
    # One more may be staged at the moment.
    assert max(map(bench.models_at, REPLICAS)) <= bench.settings.keep_deployments + 1
    return took
