"""Weights & Biases: one run per stage, written to the local disk and uploaded from there, independent of the stage."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from pipeline.devices import cuda_devices
from pipeline.errors import TrackingError
from pipeline.job import Job, keep_libraries_home
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from pipeline.tracking.run_directories import RunDirectory
from pipeline.tracking.tracker import Tracker, warn
from pipeline.tracking.upload import Upload, start_upload
from pipeline.tracking.wandb_api import find_account, find_project, tear_down

log = logging.getLogger(__name__)

#: Maximum seconds that a finished stage waits for the upload of its run.
FINISH_TIMEOUT_SECONDS = 60.0

Mode = Literal["online", "offline", "disabled"]


@dataclass(frozen=True)
class Subject:
    """Description of a W&B run: its store, group, stage, name and tags."""

    settings: Settings
    store: Store
    #: The pipeline run that it belongs to; W&B's group.
    run: str
    stage: str
    name: str
    tags: tuple[str, ...]
    #: Whether it may change the champion.
    crowns: bool = False


@contextmanager
def tracked(
    job: Job, stage: str, config: Mapping[str, Any], inputs: Mapping[str, Artifact] | None = None
) -> Iterator[Tracker]:
    """Call `recorded` for a stage of a recipe: the run is named `<recipe>-<stage>` and grouped by the job's run."""
    recipe = job.recipe
    subject = Subject(
        settings=job.settings,
        store=job.store,
        run=job.run,
        stage=stage,
        name=f"{recipe.name}-{stage}",
        tags=(recipe.name, recipe.profile, *(["sample"] if recipe.sample else [])),
        crowns=stage == "deploy",
    )
    with recorded(subject, config, inputs or {}) as tracker:
        yield tracker


@contextmanager
def recorded(
    subject: Subject, config: Mapping[str, Any], inputs: Mapping[str, Artifact], *, follow: bool = True
) -> Iterator[Tracker]:
    """Record a block as one W&B run below HOME, and upload it from there if W&B can be reached.

    The run is W&B's active run inside the block. It is always finished, as failed if the block raises; the block's
    exception passes through unchanged. Errors of W&B are only logged, and the block never waits for the network:
    another process uploads the run, and has `FINISH_TIMEOUT_SECONDS` after the end of the block. `saebyeok sync` later
    uploads the runs that were not uploaded, which are all runs if `follow` is false.
    """
    with ExitStack() as stack:
        recording = _start(subject, config, stack, follow=follow)
        texts = subject.settings.wandb_texts
        tracker = Tracker(recording.run, texts=texts, address=recording.address) if recording else Tracker(None)
        tracker.uses(inputs)
        exit_code = 1
        try:
            yield tracker
            exit_code = 0
        finally:
            if recording is not None:
                recording.finish(tracker, subject, exit_code)


@dataclass(frozen=True)
class Destination:
    """The mode, and the W&B entity that owns the runs if the mode is online."""

    mode: Mode
    entity: str = ""


def find_destination(environment: Mapping[str, str]) -> Destination:
    """Return where runs go: online only if there is an API key that the server accepts, and WANDB_MODE allows it.

    The server is asked once, with a timeout of a few seconds.
    """
    wanted = environment.get("WANDB_MODE", "")
    if wanted == "disabled":
        return Destination("disabled")
    if not environment.get("WANDB_API_KEY") or wanted in ("offline", "dryrun"):
        return Destination("offline")
    try:
        return Destination("online", find_account(environment))
    except TrackingError as error:
        log.warning("%s; the run is saved locally; upload it later with `saebyeok sync`", error)
        return Destination("offline")


@dataclass
class _Recording:
    """A run in progress, and the process that uploads it."""

    run: Any
    directory: RunDirectory
    #: Address of the run's page on the server; None unless the run is uploaded now.
    address: str | None = None
    upload: Upload | None = field(default=None)

    def finish(self, tracker: Tracker, subject: Subject, exit_code: int) -> None:
        """Close the run and wait for its upload."""
        try:
            self.directory.write(tracker.story(subject.stage, subject.store, crowns=subject.crowns))
            self.run.finish(exit_code=exit_code)
        except Exception as error:  # noqa: BLE001 - no error of W&B may stop the stage
            if tracker.active:
                warn("not finished", error)
        tear_down()
        if self.upload is None:
            return
        try:
            self.upload.finish(FINISH_TIMEOUT_SECONDS)
        except Exception as error:  # noqa: BLE001 - as above
            log.warning(
                "Weights & Biases: %s; the run is saved in %s; upload it later with `saebyeok sync`",
                error,
                self.directory.path,
            )


def _start(subject: Subject, config: Mapping[str, Any], stack: ExitStack, *, follow: bool) -> _Recording | None:
    keep_libraries_home(subject.settings)
    directory = subject.settings.home / "wandb"
    try:
        destination = find_destination(os.environ) if follow else Destination("offline")
        if destination.mode == "disabled":
            return None
        # W&B would fall back to the system's temporary directory, outside SAEBYEOK_HOME.
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.R_OK | os.W_OK):
            raise PermissionError(f"{directory} is not readable and writable")
        run = _init(subject, config, directory, destination.mode)
        recording = _Recording(run, RunDirectory(Path(run.dir).parent))
        stack.enter_context(recording.directory.held())
        if destination.mode == "online":
            recording.address = _address(run, destination.entity)
            recording.upload = start_upload(recording.directory, live=True)
    except Exception as error:  # noqa: BLE001 - no error of W&B may stop the stage
        warn("not started", error)
        tear_down()
        return None
    return recording


def _address(run: Any, entity: str) -> str:
    """Return the address of a run's page, without a password: others read the report that shows it."""
    address = run.settings.model_copy(update={"entity": entity}).run_url
    return str(httpx.URL(address).copy_with(userinfo=b""))


def _init(subject: Subject, config: Mapping[str, Any], directory: Path, mode: Mode) -> Any:
    import wandb

    return wandb.init(
        project=find_project(os.environ),
        name=subject.name,
        group=subject.run,
        job_type=subject.stage,
        tags=subject.tags,
        config=dict(config),
        dir=str(directory),
        # Offline even when uploading: a separate process syncs the run, so a hanging server cannot block this one.
        mode="offline",
        reinit="finish_previous",
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            save_code=False,
            x_save_requirements=False,
            disable_job_creation=True,
            # Not `x_disable_machine_info`, which also switches off the system metrics below.
            x_disable_meta=True,
            # System metrics need a process: always record those of a GPU, those of a CPU only if the run is online.
            x_disable_stats=mode != "online" and not cuda_devices(),
        ),
    )
