"""Weights & Biases: one run a stage, written to this disk and sent from there, never in the way of the stage."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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

#: Seconds that a stage which is done waits for the rest of its run to arrive.
FINISH_TIMEOUT_SECONDS = 60.0

Mode = Literal["online", "offline", "disabled"]


@dataclass(frozen=True)
class Subject:
    """What a W&B run is about, and where its story goes on."""

    settings: Settings
    store: Store
    #: The pass that it belongs to: W&B's group.
    run: str
    stage: str
    name: str
    tags: tuple[str, ...]
    #: Whether the champion may be another one after it.
    crowns: bool = False


@contextmanager
def tracked(
    job: Job, stage: str, config: Mapping[str, Any], inputs: Mapping[str, Artifact] | None = None
) -> Iterator[Tracker]:
    """`recorded` for a stage of a recipe: the run `<recipe>-<stage>`, grouped by the job's run."""
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
    """One W&B run around a block, written to a directory below HOME and sent from there where W&B can be reached.

    The run is W&B's active one inside the block. It is always finished, as failed where the block raised; the
    block's exception passes through unchanged. Nothing of W&B raises from here, and the block itself never waits
    for a network: another process follows what is written, and gets `FINISH_TIMEOUT_SECONDS` once the block is done.
    What has not arrived by then stays for `saebyeok sync`, and so does all of it without `follow`.
    """
    with ExitStack() as stack:
        recording = _start(subject, config, stack, follow=follow)
        tracker = Tracker(recording.run if recording else None, texts=subject.settings.wandb_texts)
        tracker.uses(inputs)
        exit_code = 1
        try:
            yield tracker
            exit_code = 0
        finally:
            if recording is not None:
                recording.finish(tracker, subject, exit_code)


def choose_mode(environment: Mapping[str, str]) -> Mode:
    """Online only with a key, unless WANDB_MODE says otherwise, and only where the server knows it.

    It is asked once, in a request of a few seconds.
    """
    wanted = environment.get("WANDB_MODE", "")
    if wanted == "disabled":
        return "disabled"
    if not environment.get("WANDB_API_KEY") or wanted in ("offline", "dryrun"):
        return "offline"
    try:
        find_account(environment)
    except TrackingError as error:
        log.warning("%s; the run is kept on this disk, `saebyeok sync` uploads it later", error)
        return "offline"
    return "online"


@dataclass
class _Recording:
    """A run that is being written, and the process that follows it."""

    run: Any
    directory: RunDirectory
    upload: Upload | None = field(default=None)

    def finish(self, tracker: Tracker, subject: Subject, exit_code: int) -> None:
        """Close the run and see it off."""
        try:
            self.directory.write(tracker.story(subject.stage, subject.store, crowns=subject.crowns))
            self.run.finish(exit_code=exit_code)
        except Exception as error:  # noqa: BLE001 - whatever W&B raises, the stage goes on
            if tracker.active:
                warn("not finished", error)
        tear_down()
        if self.upload is None:
            return
        try:
            self.upload.finish(FINISH_TIMEOUT_SECONDS)
        except Exception as error:  # noqa: BLE001 - as above
            log.warning(
                "Weights & Biases: %s; the run is kept in %s, `saebyeok sync` uploads it later",
                error,
                self.directory.path,
            )


def _start(subject: Subject, config: Mapping[str, Any], stack: ExitStack, *, follow: bool) -> _Recording | None:
    keep_libraries_home(subject.settings)
    directory = subject.settings.home / "wandb"
    try:
        mode = choose_mode(os.environ) if follow else "offline"
        if mode == "disabled":
            return None
        # W&B would fall back to the system's temporary directory, outside SAEBYEOK_HOME.
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.R_OK | os.W_OK):
            raise PermissionError(f"{directory} cannot be written")
        run = _init(subject, config, directory, mode)
        recording = _Recording(run, RunDirectory(Path(run.dir).parent))
        stack.enter_context(recording.directory.held())
        if mode == "online":
            recording.upload = start_upload(recording.directory, live=True)
    except Exception as error:  # noqa: BLE001 - whatever W&B raises, the stage goes on
        warn("not started", error)
        tear_down()
        return None
    return recording


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
        # Also where it is sent: a server that dies half-way must find nobody in this process who waits for it.
        mode="offline",
        reinit="finish_previous",
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            save_code=False,
            x_save_requirements=False,
            disable_job_creation=True,
            # Not `x_disable_machine_info`, which switches off the curves below as well.
            x_disable_meta=True,
            # W&B's own curves of this machine: a GPU's use and memory are kept also where they are looked at later, a
            # CPU's are worth a process only where somebody can watch.
            x_disable_stats=mode != "online" and not cuda_devices(),
        ),
    )
