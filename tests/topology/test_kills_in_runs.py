"""kill -9 of random processes on all hosts during runs, with a client asking the replicas through the balancer.

SAEBYEOK_TEST_KILLS sets the number of kills; SAEBYEOK_TEST_SEED repeats the choices of an earlier run.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress

import psutil
import pytest

from pipeline.stack.airflow_api import AirflowApi
from tests.support.served_answers import promoted
from tests.topology.runner.cluster import Cluster
from tests.topology.runner.nights import EASY_GATE, RECIPE, begin, changed_recipe, noticed_within
from tests.topology.runner.watching import watched

pytestmark = pytest.mark.topology

KILLS = int(os.environ.get("SAEBYEOK_TEST_KILLS") or 5)
SEED = int(os.environ.get("SAEBYEOK_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
#: Maximum seconds between two kills, and seconds after which a task without a heartbeat counts as dead.
PAUSE, NOTICED = 60.0, 60.0


def test_random_kills_lose_no_run(
    cluster: Cluster, airflow: AirflowApi, record_property: pytest.RecordProperty
) -> None:
    record_property("note", f"seed {SEED}")
    chance, store = random.Random(SEED), cluster.store()
    scheduler = cluster.hosts["control"].containers["airflow-scheduler"]
    name = f"{KILLS} random kills (heartbeat timeout: {NOTICED:.0f} s)"
    with (
        changed_recipe(cluster, EASY_GATE),
        noticed_within(NOTICED, scheduler),
        watched(cluster, store, name, RECIPE, lambda: sum(night.lost() for night in nights)) as fault,
    ):
        nights = [begin(cluster, airflow, seed=100)]
        for _ in range(KILLS):
            time.sleep(PAUSE * chance.random())
            record_property("note", f"killed {kill_one(cluster, chance)}")
            if nights[-1].has_ended():
                nights.append(begin(cluster, airflow, seed=100 + len(nights)))
        fault.heal()
        for night in nights:
            night.finish()
        fault.recover()
    assert {answer.release for answer in fault.seen if answer.status == 200} <= promoted(store, RECIPE)
    assert night.deployed().run == night.id


def kill_one(cluster: Cluster, chance: random.Random) -> str:
    """Kill a process of a random container and return its name."""
    containers = [
        (host, part) for host in cluster.hosts.values() for part in host.containers.values() if part.processes()
    ]
    host, container = chance.choice(containers)
    victim = chance.choice(container.processes())
    with suppress(psutil.NoSuchProcess):
        name = f"{host.name}/{container.name}: {' '.join(victim.cmdline())[:60]}"
        victim.kill()
        return name
    return "a process that had ended"
