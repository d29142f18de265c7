"""Sync: upload recorded runs, missing artifacts and champions to Weights & Biases; idempotent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.errors import ArtifactError, SaebyeokError, SettingsError, TrackingError
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.tracking.lineage import HOSTED_TYPES, STAGE_OF, collection, hosted_name
from pipeline.tracking.run_directories import RunDirectory, run_directories
from pipeline.tracking.runs import Subject, recorded
from pipeline.tracking.upload import move_champions, start_upload
from pipeline.tracking.wandb_api import Hosted, find_account, find_address, find_project, tear_down

#: Timeout for one run with its artifacts, in seconds; enough for a large model on a slow line.
UPLOAD_TIMEOUT_SECONDS = 900.0
#: Kinds to upload first, because other runs use them.
FIRST = tuple(HOSTED_TYPES)

SyncState = Literal["uploaded", "busy", "empty", "failed", "not tried"]


class SyncedRun(BaseModel):
    """Result for one recorded run."""

    model_config = ConfigDict(frozen=True)

    run: str
    state: SyncState
    message: str = ""


class Synced(BaseModel):
    """Result of one sync."""

    model_config = ConfigDict(frozen=True)

    address: str
    project: str
    runs: tuple[SyncedRun, ...]
    recorded: tuple[str, ...]
    "Refs of artifacts that W&B lacked and no run had recorded."
    champions: dict[str, str | None]
    "Recipe to the ref to which the alias `champion` moved (None: removed)."
    problems: tuple[str, ...]

    @property
    def failed(self) -> int:
        """Number of problems and failed runs."""
        return len(self.problems) + sum(run.state in ("failed", "not tried") for run in self.runs)


def sync(settings: Settings, store: Store) -> Synced:
    """Upload all runs that are not on the server, the artifacts of `store` that it lacks, and the champions.

    Raises SettingsError without an API key, TrackingError if the server does not answer. Later failures are reported
    in the result and retried by the next sync.
    """
    if os.environ.get("WANDB_MODE") == "disabled":
        raise SettingsError("WANDB_MODE is disabled; unset it to upload to Weights & Biases")
    entity, project = find_account(os.environ), find_project(os.environ)
    try:
        return _sync(settings, store, entity, project)
    finally:
        tear_down()


def _sync(settings: Settings, store: Store, entity: str, project: str) -> Synced:
    missing = list(_missing(settings, store, _known(store, entity, project)))
    for artifact in missing:
        _record(settings, artifact)
    runs = tuple(_upload(settings, [run for run in run_directories(settings.home) if not run.done]))
    champions, problems = _crown(store, lambda: Hosted(entity, project, settings.wandb_registry))
    return Synced(
        address=find_address(os.environ),
        project=f"{entity}/{project}",
        runs=runs,
        recorded=tuple(artifact.ref for artifact in missing),
        champions=champions,
        problems=problems,
    )


def _known(store: Store, entity: str, project: str) -> set[str]:
    """Return all aliases on the server of the recipes in `store`."""
    try:
        hosted = Hosted(entity, project)
        return {
            alias
            for kind, recipe in _collections(store)
            for alias in hosted.aliases(HOSTED_TYPES[kind], collection(kind, recipe))
        }
    except Exception as error:
        raise TrackingError(f"Weights & Biases did not list its artifacts: {_line(error)}") from error


def _collections(store: Store) -> Iterator[tuple[str, str]]:
    for kind in HOSTED_TYPES:
        for recipe in store.list(kind):
            yield kind, recipe


def _missing(settings: Settings, store: Store, known: set[str]) -> Iterator[Artifact]:
    """Yield the artifacts that are neither on the server nor part of a pending run, oldest first."""
    stories = [run.story for run in run_directories(settings.home) if not run.done]
    waiting = {story.made for story in stories if story is not None}
    for kind, recipe in _collections(store):
        for ref in reversed(store.refs(kind, recipe)):
            if hosted_name(ref)[1] not in known and ref not in waiting:
                try:
                    yield store.open(ref)
                except ArtifactError:
                    continue  # an interrupted attempt, or one being written


def _record(settings: Settings, artifact: Artifact) -> None:
    """Record the run of a stage from its artifact; it is then uploaded like the others."""
    manifest = artifact.manifest
    stage = STAGE_OF.get(manifest.kind, manifest.kind)
    tags = (manifest.recipe, "recorded by sync")
    subject = Subject(settings, artifact.store, manifest.run, stage, f"{manifest.recipe}-{stage}", tags)
    inputs = {}
    for name, item in manifest.inputs.items():
        try:
            inputs[name] = artifact.store.open(item.ref)
        except ArtifactError:
            continue  # deleted from the store
    with recorded(subject, manifest.fields, inputs, follow=False) as tracker:
        tracker.summary(manifest.figures)
        tracker.makes(artifact)


def _upload(settings: Settings, runs: Sequence[RunDirectory]) -> Iterator[SyncedRun]:
    away = ""
    for run in sorted(runs, key=_turn):
        if away:
            yield SyncedRun(run=run.name, state="not tried", message=away)
            continue
        synced = _upload_one(settings, run)
        if synced.state == "failed":
            away = _away()
        yield synced


def _upload_one(settings: Settings, run: RunDirectory) -> SyncedRun:
    story = run.story
    if story is not None and story.texts and not settings.wandb_texts:
        message = "it contains texts of the data, but SAEBYEOK_WANDB_TEXTS is off; turn it on, or delete the directory"
        return SyncedRun(run=run.name, state="failed", message=message)
    try:
        with run.held():
            # Check this under the lock: a running stage may not have written anything yet.
            if run.empty:
                run.mark("uploaded")
                run.mark("linked")
                return SyncedRun(run=run.name, state="empty", message="its stage was killed at the start")
            if not run.done:
                start_upload(run).finish(UPLOAD_TIMEOUT_SECONDS)
    except BlockingIOError:
        return SyncedRun(run=run.name, state="busy", message="its stage or another sync is running")
    except (SaebyeokError, OSError) as error:
        return SyncedRun(run=run.name, state="failed", message=_line(error))
    return SyncedRun(run=run.name, state="uploaded")


def _turn(run: RunDirectory) -> tuple[int, str]:
    made = run.story.made if run.story else None
    kind = made.partition("/")[0] if made else None
    return (FIRST.index(kind) if kind in FIRST else len(FIRST), run.name)


def _away() -> str:
    """Return why the server is unreachable, or an empty text.

    The sync then skips the remaining runs, because each of them would time out.
    """
    try:
        find_account(os.environ)
    except SaebyeokError as error:
        return str(error)
    return ""


def _crown(store: Store, connect: Callable[[], Hosted]) -> tuple[dict[str, str | None], tuple[str, ...]]:
    records = DeploymentLog(store)
    if not records.numbers():
        return {}, ()
    if away := _away():
        return {}, (f"champions: {away}",)
    try:
        return move_champions(connect(), records), ()
    except Exception as error:  # noqa: BLE001 - W&B raises errors of many kinds
        return {}, (f"champions: {_line(error)}",)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, SaebyeokError) else f"{type(error).__name__}: {text}"
