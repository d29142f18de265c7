"""Deletion of the releases on this machine that no retained deployment needs."""

from __future__ import annotations

import logging

from pipeline.errors import SaebyeokError
from pipeline.settings import Settings
from pipeline.store.artifacts import Store
from pipeline.store.deployments import DeploymentLog
from serving.deployed.model_store import keep_models
from serving.deployed.worker_files import StagedList, live_workers

log = logging.getLogger(__name__)


def delete_outdated_models(settings: Settings, store: Store) -> None:
    """Delete all releases from this machine's model store except those that `needed_releases` returns.

    If the deployments cannot be read, it deletes nothing and logs a warning.
    """
    try:
        keep_models(settings, lambda: needed_releases(settings, DeploymentLog(store)))
    except (SaebyeokError, OSError) as error:
        log.warning("outdated releases stay on this machine: %s", error)


def needed_releases(settings: Settings, records: DeploymentLog) -> set[str]:
    """Return the refs of the releases of the retained deployments, and of those that a worker of this machine holds."""
    service = settings.home / "service"
    workers = live_workers(service / "workers")
    kept = map(records.get, records.numbers()[-settings.keep_deployments :])
    return {
        *StagedList(service).read(),
        *(ref for worker in workers for ref in (*worker.live.values(), *worker.staged)),
        *(ref for record in kept for ref in record.releases.values()),
    }
