"""Deployments of tiny releases during which a fault happens, and a client that asks through the balancer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from pipeline.errors import SaebyeokError
from pipeline.job import open_store
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import Deployment, DeploymentLog
from tests.support.crowd import TimedAnswer
from tests.support.deploying import hammering, put
from tests.support.served_answers import deployed, wrong_answers
from tests.support.tiny_releases import TinyModel
from tests.topology.runner.cluster import Cluster
from tests.topology.runner.figures import Figures, record
from tests.topology.runner.hosts import eventually

#: A recipe that no run of these tests trains.
RECIPE = "klue-sts"
#: Attempts of a deployment, as in Airflow, and the seconds between them.
ATTEMPTS, PAUSE = 3, 5.0
#: Seconds until all replicas must serve the newest deployment after a fault.
RECOVERY_SECONDS = 180.0


@dataclass
class Watch:
    """A fault while the client asks: `heal` is called at its end, `recover` waits for the replicas."""

    cluster: Cluster
    store: Store
    seen: list[TimedAnswer]
    healed: float = field(default_factory=time.monotonic)
    seconds: float = math.inf

    def heal(self) -> None:
        """Note the end of the fault, from which the time to recovery counts."""
        self.healed = time.monotonic()

    def recover(self) -> None:
        """Wait until every replica is ready with the newest deployment."""
        newest = DeploymentLog(self.store).numbers()[-1]
        eventually("every replica serves it", lambda: self.cluster.deployments() == {newest}, RECOVERY_SECONDS)
        self.note_recovery()

    def note_recovery(self) -> None:
        """Note the seconds since the end of the fault."""
        self.seconds = time.monotonic() - self.healed

    def write(self, fault: str, recipe: str, *, lost: int) -> None:
        """Write the row of the fault, and check it."""
        assert self.seconds < math.inf, "the test did not wait for the recovery"
        unanswered = sum(answer.status != 200 for answer in self.seen)
        wrong = wrong_answers(self.store, self.seen, recipe)
        record(fault, Figures(len(self.seen), unanswered, len(wrong), lost, self.seconds))
        assert (wrong, lost) == ([], 0)


@contextmanager
def watched(cluster: Cluster, store: Store, fault: str, recipe: str, lost: Callable[[], int]) -> Iterator[Watch]:
    """Ask during the block, then write the row of the fault. No answer may be wrong, and no work lost."""
    with hammering(cluster.url, threads=1, pause=0.2, recipe=recipe) as seen:
        watch = Watch(cluster, store, seen)
        yield watch
    watch.write(fault, recipe, lost=lost())


@dataclass
class Bench:
    """A deployer outside the hosts. Its releases answer as one of two models, in turns."""

    cluster: Cluster
    settings: Settings
    models: tuple[TinyModel, TinyModel]
    wanted: list[str] = field(default_factory=list)
    published: int = 0

    @property
    def store(self) -> Store:
        return open_store(self.settings)

    def models_at(self, replica: str) -> int:
        """Return the number of this recipe's releases on the disk of a replica."""
        home = self.cluster.hosts[replica].state / "volumes" / "service-home"
        return sum(path.is_dir() for path in home.glob(f"bentoml/models/saebyeok-{RECIPE}/*"))

    def publish(self, **faults: bool) -> Artifact:
        """Publish the next release."""
        self.published += 1
        return self.models[self.published % 2].publish(self.store, RECIPE, key=f"{self.published:016x}", **faults)

    def put(self, release: Artifact | None = None) -> Deployment:
        """Deploy a release, the next one by default; as in Airflow, repeat it after an error that may pass."""
        release = release or self.publish()
        self.wanted.append(release.ref)
        for left in reversed(range(ATTEMPTS)):
            try:
                return put(self.settings, release)
            except SaebyeokError as error:
                if not error.retryable:
                    # Not lost, but refused.
                    self.wanted.remove(release.ref)
                if not error.retryable or not left:
                    raise
                time.sleep(PAUSE)
        raise AssertionError

    def watched(self, fault: str) -> AbstractContextManager[Watch]:
        """Ask during the block, then write the row of the fault."""
        return watched(self.cluster, self.store, fault, RECIPE, self.lost)

    def lost(self) -> int:
        """Return the number of deployments that were not recorded."""
        found = deployed(self.store, RECIPE).values()
        return sum(ref not in found for ref in self.wanted)
