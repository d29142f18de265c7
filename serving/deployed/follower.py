"""Follow the deployment log: load new releases and replace the worker's immutable snapshot in one assignment."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pipeline.errors import SaebyeokError
from pipeline.settings import Settings
from pipeline.store.artifacts import Store
from pipeline.store.deployments import Deployment, DeploymentLog
from pipeline.store.releases import Card
from serving.client.responses import LoadProblem, WorkerState
from serving.deployed.model_store import import_release, imported_release, measured_file
from serving.deployed.outdated_models import delete_outdated_models
from serving.deployed.registration import Registration
from serving.deployed.worker_files import StagedList, WorkerFile, live_workers
from serving.engine.engine import Engine, EngineOptions
from serving.engine.observer import Observer, unobserved
from serving.engine.variants import open_fastest

log = logging.getLogger(__name__)

#: Polling interval of the deployment log in seconds; a bucket charges for each request.
POLL_LOCAL, POLL_REMOTE = 0.3, 2.0
#: Number of polls before a failed release is loaded again.
LOAD_RETRY_POLLS = 20
NOT_READY = "no deployment is loaded; deploy a release, then try again; GET /releases shows the state of the workers"


@dataclass(frozen=True)
class Snapshot:
    """The loaded engines: `live` maps recipe to engine, `staged` maps ref to engine."""

    deployment: Deployment | None = None
    live: Mapping[str, Engine] = field(default_factory=dict)
    staged: Mapping[str, Engine] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Return the number of the deployment; 0: none yet."""
        return self.deployment.number if self.deployment else 0

    def live_engines(self) -> dict[str, Engine]:
        """Return the engine of each live release, by ref."""
        refs = self.deployment.releases if self.deployment else {}
        return {refs[recipe]: engine for recipe, engine in self.live.items()}

    def engines(self) -> dict[str, Engine]:
        """Return every loaded engine by the ref of its release."""
        return {**self.staged, **self.live_engines()}


class Source(Protocol):
    """Source of the deployment that a worker serves."""

    poll: float
    store: str | None
    replica: str | None
    staging: StagedList | None

    def latest(self) -> Deployment | None:
        """Return the deployment to serve, or None before the first."""

    def directory(self, ref: str) -> Path:
        """Return a release's directory on this machine."""

    def record(self, ref: str) -> Path | None:
        """Return the file in which the workers of this machine share the release's measured speed, if they do."""

    def report(self, state: WorkerState) -> None:
        """Publish this worker's state, which acknowledges its deployment."""

    def workers(self) -> list[WorkerState]:
        """Return the states of the live workers of this machine."""

    def clean(self) -> None:
        """Delete the releases on this machine that no retained deployment needs."""

    def close(self) -> None:
        """Withdraw this worker's state."""


class LogSource:
    """The deployment log in the store; releases and the workers' states are kept below HOME."""

    def __init__(self, settings: Settings, store: Store) -> None:
        """Register this worker; from now on a deployment waits for it."""
        self.poll = POLL_LOCAL if store.local else POLL_REMOTE
        self.store: str | None = store.digest
        self.staging: StagedList | None = StagedList(settings.home / "service")
        self._settings = settings
        self._store = store
        self._log = DeploymentLog(store)
        self._directory = settings.home / "service" / "workers"
        self._file = WorkerFile(self._directory)
        self._registration = Registration(settings, store)
        self.replica: str | None = self._registration.id()

    def latest(self) -> Deployment | None:
        """Return the newest deployment, or None before the first."""
        return self._log.latest()

    def directory(self, ref: str) -> Path:
        """Return the release's directory in this machine's model store."""
        directory = import_release(self._store.open(ref), self._settings)
        # The download, of which the directory is a copy.
        self._store.forget(ref)
        return directory

    def record(self, ref: str) -> Path:
        """Return a file below HOME."""
        return measured_file(self._settings, ref)

    def report(self, state: WorkerState) -> None:
        """Write this worker's state for the others to read, and renew the replica's record in the store."""
        try:
            self._file.write(state)
        finally:
            # A replica on a full disk still answers users: a deployment must not count it as dead.
            if self._registration.is_mine():
                self._registration.renew(self.workers())
        self.replica = self._registration.id()

    def workers(self) -> list[WorkerState]:
        """Return the states of all live workers."""
        return live_workers(self._directory)

    def clean(self) -> None:
        """Delete the releases that neither a retained deployment nor a worker of this machine needs."""
        if self._registration.is_mine():
            delete_outdated_models(self._settings, self._store)

    def close(self) -> None:
        """Remove this worker's files, and withdraw the replica's record if this worker renews it."""
        self._file.close()
        self._registration.close()


class BakedSource:
    """The fixed deployment of a Bento; it follows no log and writes nothing."""

    poll = 3600.0
    store: str | None = None
    replica: str | None = None
    staging: StagedList | None = None

    def __init__(self, deployment: Deployment) -> None:
        """`deployment` is the one in the Bento."""
        self._deployment = deployment
        self._state: WorkerState | None = None

    def latest(self) -> Deployment:
        """Return the Bento's deployment."""
        return self._deployment

    def directory(self, ref: str) -> Path:
        """Return the release's directory among the Bento's models."""
        return imported_release(ref)

    def record(self, ref: str) -> None:
        """Return None: a Bento writes nothing."""

    def report(self, state: WorkerState) -> None:
        """Keep the state in memory."""
        self._state = state

    def workers(self) -> list[WorkerState]:
        """Return this worker's state only: a Bento's workers share nothing."""
        return [self._state] if self._state else []

    def clean(self) -> None:
        """Do nothing: a Bento has only the releases that it serves."""

    def close(self) -> None:
        """Do nothing."""


class Follower:
    """Keep `snapshot` up to date with `source`, in a background thread."""

    def __init__(
        self,
        source: Source,
        options: EngineOptions,
        observe: Callable[[Card], Observer] = unobserved,
        follow_seconds: float = math.inf,
    ) -> None:
        """`options` apply to each engine; `observe` creates its observer.

        After `follow_seconds` without a successful look at the deployments, the worker is not ready.
        """
        self.source = source
        self.pid = os.getpid()
        self.snapshot = Snapshot()
        self.problem: str | None = None
        "Why the last poll failed or its state could not be published; None if it succeeded."
        self._options = options
        self._observe = observe
        self._follow_seconds = follow_seconds
        self._newest: Deployment | None = None
        self._looked = time.monotonic()
        self._loading = False
        self._started = datetime.now(UTC)
        self._problems: dict[str, LoadProblem] = {}
        self._rests: dict[str, int] = {}
        self._logged: set[type[Exception]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._attempt(lambda: self._report(None))

    def start(self) -> None:
        """Load the current deployment, then follow the log in the background."""
        self.step()
        self._thread.start()

    def close(self) -> None:
        """Stop following; loaded releases keep answering."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.source.close()

    def _follow(self) -> None:
        while not self._stop.wait(self.source.poll):
            self.step()

    def step(self) -> None:
        """Poll once: load new releases, switch to the newest deployment if all its releases loaded, publish the state.

        Raises nothing, because the loaded releases must keep answering: a failure is stored in `problem`, logged once,
        and retried at the next poll.
        """
        moved = self._attempt(self._move)
        reported = self._attempt(lambda: self._report(moved))
        self.problem = moved or reported
        if self._logged and self.problem is None:
            log.info("polling succeeds again, at deployment %s", self.snapshot.number)
            self._logged.clear()

    def _attempt(self, action: Callable[[], None]) -> str | None:
        """Run `action`; return its error as text, or None. Each kind of error is logged once, not at every poll."""
        try:
            action()
        except Exception as error:
            if type(error) not in self._logged:
                self._logged.add(type(error))
                foreseen = isinstance(error, SaebyeokError | OSError)
                log.warning(
                    "still at deployment %s: %s", self.snapshot.number, error, exc_info=None if foreseen else error
                )
            return str(error) or type(error).__name__
        return None

    def unready(self) -> str | None:
        """Return why this worker should get no requests; None if it should."""
        if self.snapshot.deployment is None:
            return NOT_READY
        newest = self._newest
        failed = [self._problems.get(ref) for ref in newest.releases.values()] if newest else []
        if newest and newest.number > self.snapshot.number and any(failed):
            why = "; ".join(f"{problem.release}: {problem.message}" for problem in failed if problem)
            return f"deployment {newest.number} cannot be loaded, still at deployment {self.snapshot.number}: {why}"
        # A long download or measurement is no time without the store: the live releases answer meanwhile.
        if not self._loading and time.monotonic() - self._looked > self._follow_seconds:
            return (
                f"the deployments could not be read for over {self._follow_seconds:g} s, still at deployment "
                f"{self.snapshot.number}: {self.problem or 'the store does not answer'}"
            )
        return None

    def _move(self) -> None:
        newest = self.source.latest()
        self._newest, self._looked = newest, time.monotonic()
        staged = self.source.staging.read() if self.source.staging else []
        engines = self.snapshot.engines()
        wanted = {*staged, *(newest.releases.values() if newest else ())}
        # Forget the failures of releases that are not wanted: if staged again, they are loaded immediately.
        self._problems = {ref: problem for ref, problem in self._problems.items() if ref in wanted}
        self._rests = {ref: rest for ref, rest in self._rests.items() if ref in wanted}
        for ref in sorted(wanted - engines.keys()):
            self._loading = True
            engine = self._load(ref)
            self._loading, self._looked = False, time.monotonic()
            if engine is not None:
                engines[ref] = engine
        current = self.snapshot.deployment, self.snapshot.live
        if newest is not None and engines.keys() >= set(newest.releases.values()):
            current = newest, {recipe: engines[ref] for recipe, ref in newest.releases.items()}
        self._swap(Snapshot(*current, staged={ref: engines[ref] for ref in staged if ref in engines}))

    def _swap(self, after: Snapshot) -> None:
        before, self.snapshot = self.snapshot, after
        if after.deployment != before.deployment:
            log.info("serving deployment %s: %s", self.snapshot.number, dict(after.deployment.releases))  # type: ignore[union-attr]
        if after.staged.keys() != before.staged.keys():
            log.info("staged: %s", ", ".join(after.staged) or "nothing")
        if (after.deployment, after.staged.keys()) != (before.deployment, before.staged.keys()):
            self.source.clean()

    def _load(self, ref: str) -> Engine | None:
        """Load the engine of `ref`; return None if it fails, or failed within the last `LOAD_RETRY_POLLS` polls."""
        if self._rests.get(ref, 0) > 0:
            self._rests[ref] -= 1
            return None
        try:
            directory, record = self.source.directory(ref), self.source.record(ref)
            engine = open_fastest(directory, self._options, self._observe, record)
        except Exception as error:  # noqa: BLE001 - a release that cannot be loaded must not stop the others
            log.warning("%s cannot be loaded: %s", ref, error)
            retryable = isinstance(error, OSError) or getattr(error, "retryable", False)
            name = type(error).__name__
            self._problems[ref] = LoadProblem(release=ref, type=name, message=str(error), retryable=retryable)
            self._rests[ref] = LOAD_RETRY_POLLS
            return None
        self._problems.pop(ref, None)
        self._rests.pop(ref, None)
        return engine

    def _report(self, problem: str | None) -> None:
        now = self.snapshot
        refs = now.deployment.releases if now.deployment else {}
        state = WorkerState(
            pid=self.pid,
            started=self._started,
            heartbeat=datetime.now(UTC),
            deployment=self.snapshot.number,
            newest=self._newest.number if self._newest else 0,
            live=dict(refs),
            staged=list(now.staged),
            problem=problem,
            problems=list(self._problems.values()),
        )
        self.source.report(state)
