"""The replicas of the service that follow the store: each has a record, which it renews while it lives."""

from __future__ import annotations

import logging

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.loopback import is_service_url
from pipeline.store.artifacts import Store
from pipeline.texts import without_secrets

log = logging.getLogger(__name__)

REPLICAS = "replicas"
#: Seconds between two renewals of a record, and the age from which its replica counts as dead.
RENEWAL, LEASE = 5.0, 20.0


class Replica(BaseModel):
    """The record of one replica: the worker processes that share one home directory."""

    # A replica of a newer version may have more fields.
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    url: str = Field(description="address at which the deployer reaches the replica")
    host: str
    pids: tuple[int, ...] = Field(description="process ids of the workers")
    deployment: int = Field(description="oldest deployment that one of the workers serves; 0: none yet")
    releases: tuple[str, ...] = Field(description="refs of the releases that every worker has loaded, also staged ones")
    problem: str | None = Field(default=None, description="why a worker cannot follow the deployments; None if all can")

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        """Raise ValueError for an address that no client can call."""
        if not is_service_url(url):
            raise ValueError(f"{without_secrets(url)!r} is not the address of a service")
        return url

    def __str__(self) -> str:
        """Return host and address, for errors."""
        return f"{self.url} ({self.host})"


class ReplicaRegistry:
    """The records of all replicas, in `replicas/<id>.json` of the store."""

    def __init__(self, store: Store) -> None:
        """Open the records in `store`."""
        self._store = store

    def renew(self, replica: Replica) -> None:
        """Write the record of `replica`, which starts its lease again. Raises StoreError."""
        self._store.replace(_ref(replica.id), replica.model_dump_json(indent=1).encode())

    def withdraw(self, replica: str) -> None:
        """Delete the record of the replica with this id. Raises StoreError."""
        self._store.delete(_ref(replica))

    def list(self) -> list[Replica]:
        """Return all records, also those of dead replicas; unreadable ones are left out with a warning."""
        names = (name.removesuffix(".json") for name in self._store.list(REPLICAS))
        return [replica for replica in map(self.get, names) if replica]

    def get(self, replica: str) -> Replica | None:
        """Return the record of a replica, or None if it has none; an unreadable one is logged and counts as absent."""
        content = self._store.read(_ref(replica))
        try:
            return None if content is None else Replica.model_validate_json(content)
        except ValidationError as error:
            log.warning(
                "%s is not a replica's record: %s", self._store.address(_ref(replica)), error.errors()[0]["msg"]
            )
            return None

    def is_alive(self, replica: Replica) -> bool:
        """Return whether the replica has renewed its record within `LEASE` seconds, by the store's clock."""
        age = self._store.age(_ref(replica.id))
        return age is not None and age <= LEASE


def _ref(replica: str) -> str:
    return f"{REPLICAS}/{replica}.json"
