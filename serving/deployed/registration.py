"""The record of this replica in the store, by which the deployer finds it; one of the workers renews it."""

from __future__ import annotations

import fcntl
import logging
import re
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from pipeline.atomic_files import create_file, replace_file, warn_of_damage
from pipeline.errors import StoreError
from pipeline.settings import Settings
from pipeline.store.artifacts import Store
from pipeline.store.replicas import RENEWAL, Replica, ReplicaRegistry
from serving.client.responses import WorkerState

log = logging.getLogger(__name__)

ID_FILE = "replica.id"
ID = re.compile(r"[0-9a-f]{16}")
#: Addresses on which a service listens for calls to any of the machine's addresses.
ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


class Registration:
    """The record of the replica whose workers share a home directory. The worker that holds a lock renews it."""

    def __init__(self, settings: Settings, store: Store) -> None:
        """Create the replica's id below HOME, once."""
        self._directory = settings.home / "service"
        self._id = replica_id(self._directory)
        self._url = advertised_url(settings)
        self._registry = ReplicaRegistry(store)
        self._lock = self._directory / "replica.lock"
        self._held: TextIO | None = None
        self._written: Replica | None = None
        self._problem = ""
        self._due = 0.0

    def id(self) -> str:
        """Return the replica's id; the worker that renews the record may change it."""
        return replica_id(self._directory)

    def is_mine(self) -> bool:
        """Return whether this worker renews the record: it is the first one, or its predecessor has ended."""
        if self._held is None:
            file = self._lock.open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            self._held = file
        return True

    def renew(self, workers: Sequence[WorkerState]) -> None:
        """Write the record with the states of all `workers` if it is due or has changed.

        Raises StoreError; after a failure, the record is written again only when it is due.
        """
        record = self._record(workers)
        if time.monotonic() < self._due and (self._problem or record == self._written):
            if self._problem:
                raise StoreError(self._problem)
            return
        self._due = time.monotonic() + RENEWAL
        try:
            self._leave_copy()
            self._registry.renew(record.model_copy(update={"id": self._id}))
        except StoreError as error:
            self._problem = str(error)
            raise
        self._written, self._problem = record, ""

    def _leave_copy(self) -> None:
        """Take a new id if a live replica at another address has this one: one's HOME is a copy of the other's."""
        found = self._registry.get(self._id)
        if found is None or (found.url, found.host) == (self._url, socket.gethostname()):
            return
        if self._registry.is_alive(found):
            replace_file(self._directory / ID_FILE, new_id())
            self._id = self.id()
            log.warning("HOME is a copy of that of replica %s: this replica is %s from now on", found, self._id)

    def close(self) -> None:
        """Withdraw the record if this worker renews it. If the store does not answer, the lease runs out."""
        if self._held is None:
            return
        with suppress(StoreError):
            self._registry.withdraw(self._id)
        self._held.close()
        self._held = None

    def _record(self, workers: Sequence[WorkerState]) -> Replica:
        held = [{*worker.live.values(), *worker.staged} for worker in workers]
        return Replica(
            id=self._id,
            url=self._url,
            host=socket.gethostname(),
            pids=tuple(worker.pid for worker in workers),
            deployment=min((worker.deployment for worker in workers), default=0),
            releases=tuple(sorted(set.intersection(*held) if held else ())),
            problem=next(filter(None, map(problem_of, workers)), None),
        )


def problem_of(worker: WorkerState) -> str | None:
    """Return why a worker cannot follow the deployments or load a release; None if it can."""
    return worker.problem or next((f"{item.release}: {item.message}" for item in worker.problems), None)


def replica_id(directory: Path) -> str:
    """Return the id of the replica with this directory; a new one is written there first."""
    path = directory / ID_FILE
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        create_file(path, new_id())
    found = path.read_text(encoding="ascii", errors="replace")
    if ID.fullmatch(found):
        return found
    warn_of_damage(path, "it is not 16 hex digits")
    path.unlink(missing_ok=True)
    return replica_id(directory)


def new_id() -> str:
    """Return an id that no other replica has."""
    return secrets.token_hex(8)


def advertised_url(settings: Settings) -> str:
    """Return the URL of this replica for the deployer.

    It is `advertise_url`, else the URL of the service. If that listens on all addresses, the host name replaces them.
    """
    if settings.advertise_url:
        return settings.advertise_url
    url = urlsplit(settings.service_url)
    if url.hostname not in ALL_ADDRESSES:
        return settings.service_url
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{socket.gethostname()}{port}"
