"""The live replicas of the service during a deployment: stage at each, and wait until each holds a release."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from pipeline.deployment.service_client import ServiceClient
from pipeline.errors import SaebyeokError, ServiceError
from pipeline.loopback import is_loopback
from pipeline.settings import Settings
from pipeline.store.artifacts import Store
from pipeline.store.replicas import Replica, ReplicaRegistry
from serving.api.auth import deploy_token
from serving.client.client import TIMEOUT
from serving.client.responses import ReleasesResponse

log = logging.getLogger(__name__)

#: Seconds between two looks at the replicas, and between two calls that extend the deadline of a staged release.
POLL, RENEWAL = 0.1, 60.0
#: Maximum number of replicas that are asked at once.
THREADS = 16
#: Looks that fit into `deploy_seconds` even if a replica never answers, and the minimum seconds for an answer.
LOOKS, ANSWER_SECONDS = 3, 5.0


@dataclass(frozen=True)
class Look:
    """The state of one replica in a wait: `late` names what to wait for, `error` says why waiting is useless."""

    late: str = ""
    error: SaebyeokError | None = None

    @property
    def is_done(self) -> bool:
        """Return whether there is nothing to wait for."""
        return not self.late and self.error is None


#: Returns the state of the replica that the client reaches, from its `/releases`. May raise the client's errors.
Watch = Callable[[ServiceClient, ReleasesResponse], Look]


@dataclass
class StagingReplica:
    """A replica in a deployment. Without a record in the store, it is the only service, at its URL."""

    client: ServiceClient
    replica: Replica | None = None
    staged: dict[str, float] = field(default_factory=dict)
    "Monotonic time of the last call that staged a release, by ref."

    def __str__(self) -> str:
        """Return address and host, for errors."""
        return str(self.replica or self.client.url)

    def releases(self) -> ReleasesResponse:
        """Return what the replica serves. Raises ServiceError if it does not answer, or if another one does."""
        found = self.client.releases()
        if self.replica and found.replica != self.replica.id:
            raise ServiceError(
                f"{self.client.url} is the address of replica {self.replica.id}, but {found.replica or 'a Bento'} "
                "answers there; set SAEBYEOK_ADVERTISE_URL of each replica to an address of its own"
            )
        return found

    def stage(self, refs: Sequence[str]) -> None:
        """Stage the releases at `refs`, and do it again before their deadline."""
        for ref in refs:
            if time.monotonic() - self.staged.get(ref, -RENEWAL) >= RENEWAL:
                self.client.stage(ref)
                self.staged[ref] = time.monotonic()

    def unstage(self, refs: Sequence[str]) -> None:
        """Unstage the releases at `refs`. If the replica does not answer, it drops them at their deadline."""
        self.staged.clear()
        for ref in refs:
            try:
                self.client.unstage(ref)
            except SaebyeokError as error:
                log.warning("%s stays staged at %s until its deadline: %s", ref, self, error)


class Replicas:
    """All live replicas. Each look asks the store for them again, because replicas come and go."""

    def __init__(self, settings: Settings, store: Store, single: ServiceClient | None, clients: ExitStack) -> None:
        """`single` reaches a service that has no record in the store; `clients` closes the clients of the others."""
        self._settings = settings
        self._registry = ReplicaRegistry(store)
        self._single = [StagingReplica(single)] if single else []
        self._clients = clients
        self._known: dict[tuple[str, str], StagingReplica] = {}
        self._left_out: set[str] = set()
        self._wanted: tuple[str, ...] = ()

    def members(self) -> list[StagingReplica]:
        """Return the replicas that have a record, or the single service if none has."""
        return [self._member(replica) for replica in self._registry.list() if self._is_member(replica)] or self._single

    def _is_member(self, replica: Replica) -> bool:
        """Return whether to call a replica: an address of a dead one may belong to somebody else by now."""
        if (replica.id, replica.url) in self._known:
            return True
        if not self._registry.is_alive(replica):
            self._bury(replica)
            return False
        if is_loopback(replica.url) and replica.host != socket.gethostname():
            if replica.id not in self._left_out:
                self._left_out.add(replica.id)
                log.warning("replica %s is left out: only its own host reaches it; set SAEBYEOK_ADVERTISE_URL", replica)
            return False
        return True

    def _bury(self, replica: Replica) -> None:
        log.warning("replica %s has not renewed its record: it counts as dead", replica)
        self._registry.withdraw(replica.id)

    def _member(self, replica: Replica) -> StagingReplica:
        place = replica.id, replica.url
        if place not in self._known:
            # Each look waits for all replicas: one that never answers must leave time to look at the others again.
            limit = max(ANSWER_SECONDS, self._settings.deploy_seconds / LOOKS)
            client = ServiceClient(replica.url, deploy_token(self._settings), min(TIMEOUT, limit))
            self._known[place] = StagingReplica(self._clients.enter_context(client))
        self._known[place].replica = replica
        return self._known[place]

    def live(self) -> list[str]:
        """Return the replicas that answer or have renewed their records; delete the records of dead ones."""
        return list(self._looks(lambda *_: Look()))

    @contextmanager
    def staged(self, refs: Sequence[str]) -> Iterator[None]:
        """Stage the releases at every replica that a wait in the block sees; unstage them afterwards."""
        self._wanted = tuple(refs)
        try:
            yield
        finally:
            self._wanted = ()
            self.unstage(refs)

    def unstage(self, refs: Sequence[str]) -> None:
        """Unstage the releases at every replica."""
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda member: member.unstage(refs), self.members()))

    def wait(self, what: str, watch: Watch) -> None:
        """Wait until every live replica is done, at most `deploy_seconds`; then the quorum is enough.

        Raises ServiceError that names the replicas that are late, and the error of a replica that cannot be done.
        """
        deadline = time.monotonic() + self._settings.deploy_seconds
        while True:
            looks = self._looks(watch)
            missing = {name: look for name, look in looks.items() if not look.is_done}
            if looks and not missing:
                return
            allowed = len(looks) - self._settings.deploy_quorum * len(looks)
            errors = [look.error for look in missing.values() if look.error]
            if len(errors) > allowed:
                raise errors[0]
            if len(errors) == len(missing) > 0 or time.monotonic() > deadline:
                self._check_quorum(what, missing, enough=0 < len(missing) <= allowed)
                return
            time.sleep(POLL)

    def _check_quorum(self, what: str, missing: dict[str, Look], *, enough: bool) -> None:
        late = "; ".join(look.late or f"{name} ({look.error})" for name, look in missing.items()) or "no replica"
        text = f"{late} did not {what} within {self._settings.deploy_seconds:g} s"
        if not enough:
            raise ServiceError(f"{text}; see the service's log, or raise SAEBYEOK_DEPLOY_SECONDS")
        log.error("%s; the other replicas are the quorum", text)

    def _looks(self, watch: Watch) -> dict[str, Look]:
        """Return the state of each live replica, by its name."""
        members = self.members()
        with ThreadPoolExecutor(THREADS) as pool:
            looks = list(pool.map(lambda member: self._look(member, watch), members))
        return {str(member): look for member, look in zip(members, looks, strict=True) if look}

    def _look(self, member: StagingReplica, watch: Watch) -> Look | None:
        """Return the state of a replica, None if it is dead."""
        try:
            member.stage(self._wanted)
            return watch(member.client, member.releases())
        except ServiceError as error:
            return Look(late=f"{member} ({error})") if self._is_alive(member) else None
        except SaebyeokError as error:
            return Look(error=error)

    def _is_alive(self, member: StagingReplica) -> bool:
        """Return whether to wait for a replica that does not answer; the record of a dead one is deleted."""
        replica = member.replica
        if replica is None or self._registry.is_alive(replica):
            return True
        self._bury(replica)
        return False


@contextmanager
def open_replicas(settings: Settings, store: Store) -> Iterator[Replicas | None]:
    """Yield the live replicas of the service, or None if there is none.

    Without a record in the store, a service at `settings.service_url` that serves the store is the only one.
    """
    with ExitStack() as clients:
        replicas = Replicas(settings, store, None, clients)
        if not replicas.live():
            single = clients.enter_context(ServiceClient(settings.service_url, deploy_token(settings)))
            found = Replicas(settings, store, single, clients) if single.serves(store) else None
            yield found
        else:
            yield replicas
