"""Leases in the store: one host at a time does a piece of work, and each next holder has a higher attempt number."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from pipeline.errors import StoreError
from pipeline.store.artifacts import Store

log = logging.getLogger(__name__)

LEASES = "leases"
#: Seconds between two renewals of a lease, and the age from which its holder counts as dead.
RENEWAL, LEASE = 10.0, 60.0
#: Seconds between two looks at a lease that another host holds.
POLL = 5.0
RELEASED = b"released"


class Holder(BaseModel):
    """The holder of one attempt. `home` identifies its home directory, whose processes exclude each other by a lock."""

    token: str
    home: str
    host: str


@dataclass(frozen=True)
class Lease:
    """One attempt at the work `name`. Its holder renews it; a later attempt fences it."""

    store: Store
    name: str
    attempt: int
    holder: Holder

    def is_mine(self) -> bool:
        """Return whether no later attempt has begun, and this one has not been replaced. Raises StoreError."""
        return _newest(self.store, self.name) == self.attempt and self._holder() == self.holder

    def renew(self) -> None:
        """Start the time of the lease again. Raises StoreError."""
        self.store.replace(_beat(self.name, self.attempt), self.holder.token.encode())

    def release(self) -> None:
        """Let the next host begin at once, after a failure. Raises StoreError."""
        self.store.replace(_beat(self.name, self.attempt), RELEASED)

    def finish(self) -> None:
        """Delete the records of all attempts, after the work is done. Raises StoreError."""
        if self.is_mine():
            self.store.sweep(f"{LEASES}/{self.name}")

    def _holder(self) -> Holder | None:
        return _read(self.store, self.name, self.attempt)

    @contextmanager
    def kept(self, lost: Callable[[], object]) -> Iterator[None]:
        """Renew the lease in a thread during the block; call `lost` once if a later attempt has begun."""
        ended = threading.Event()
        thread = threading.Thread(target=self._keep, args=(ended, lost), name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _keep(self, ended: threading.Event, lost: Callable[[], object]) -> None:
        while not ended.wait(RENEWAL):
            try:
                if not self.is_mine():
                    log.warning("another host has taken over %s", self.name)
                    lost()
                    return
                self.renew()
            except StoreError as error:
                log.warning("the lease of %s was not renewed: %s", self.name, error)


def take(store: Store, name: str, home: str) -> Lease | None:
    """Return the lease of the work `name` for a process of `home`, or None while another host holds it.

    The caller holds the lock of `home` for this work, so an older attempt of `home` is dead. Raises StoreError.
    """
    newest = _newest(store, name)
    if newest and _is_held(store, name, newest, home):
        return None
    holder = Holder(token=secrets.token_hex(8), home=home, host=socket.gethostname())
    # Of several hosts that see the same end of a lease, one creates the next attempt.
    if not store.create(_ref(name, newest + 1), holder.model_dump_json().encode()):
        return None
    return Lease(store, name, newest + 1, holder)


def wait_for(store: Store, name: str, home: str, wait: Callable[[float], object]) -> Lease:
    """Return the lease of the work `name` as soon as no other host holds it; `wait` is called in between.

    Raises StoreError.
    """
    while (lease := take(store, name, home)) is None:
        holder = _read(store, name, _newest(store, name))
        log.warning("%s is done by %s: waiting for it", name, holder.host if holder else "another host")
        wait(POLL)
    return lease


def _is_held(store: Store, name: str, attempt: int, home: str) -> bool:
    holder, beat = _read(store, name, attempt), store.read(_beat(name, attempt))
    if beat == RELEASED or (holder and holder.home == home):
        return False
    age = store.age(_ref(name, attempt) if beat is None else _beat(name, attempt))
    return age is not None and age <= LEASE


def _newest(store: Store, name: str) -> int:
    """Return the highest attempt number; 0 if there is none."""
    numbers = (found.removesuffix(".json") for found in store.list(f"{LEASES}/{name}") if found.endswith(".json"))
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _read(store: Store, name: str, attempt: int) -> Holder | None:
    content = store.read(_ref(name, attempt))
    try:
        return None if content is None else Holder.model_validate_json(content)
    except ValidationError:
        return None


def _ref(name: str, attempt: int) -> str:
    return f"{LEASES}/{name}/{attempt:06d}.json"


def _beat(name: str, attempt: int) -> str:
    return f"{LEASES}/{name}/{attempt:06d}.beat"
