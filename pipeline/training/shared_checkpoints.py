"""Checkpoints in a shared store, so that another host can resume a training: uploaded by a process in the background.

`python -m pipeline.training.shared_checkpoints` is that process. It has the lowest priority and rests most of the time,
so that it does not delay the training.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import ArtifactError, SaebyeokError
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.manifest import CHECKPOINT, MANIFEST

log = logging.getLogger(__name__)

#: File in a training's directory that names what to upload; without it, the training belongs to this host alone.
SHARED = "shared.json"
#: Directory in a training's directory with the files that are being uploaded.
SNAPSHOT = "upload"
TAKEN_OVER = "another host has taken over this training; rerun the command to use its result"
#: Seconds to wait for the upload of the last checkpoint of a training that is stopped.
LAST_UPLOAD = 60.0
#: Argument of the process if no training runs at the same time.
ALONE = "--alone"
#: Seconds of CPU time, and the seconds that an upload rests after them while a training runs.
WORK, REST = 0.005, 0.02


@dataclass(frozen=True)
class Shared:
    """A training whose checkpoints go to the store at `uri`. A higher `attempt` fences the lower ones."""

    uri: str
    cache: str
    recipe: str
    key: str
    attempt: int
    run: str
    seconds: float
    "Minimum seconds between the starts of two uploads."

    def write(self, work: Path) -> None:
        """Write it into the training's directory."""
        work.mkdir(parents=True, exist_ok=True)
        (work / SHARED).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, work: Path) -> Shared | None:
        """Return what `write` wrote, or None."""
        try:
            return cls(**json.loads((work / SHARED).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    @property
    def store(self) -> Store:
        """Return the store."""
        return Store(self.uri, Path(self.cache))


class Uploads:
    """The uploads of one training's checkpoints, one at a time."""

    def __init__(self, work: Path) -> None:
        """`work` is the directory of the training."""
        self._work = work
        self.shared = Shared.read(work)
        self._due = time.monotonic() + (self.shared.seconds if self.shared else 0.0)
        self.process: subprocess.Popen[bytes] | None = None

    def is_lost(self) -> bool:
        """Return whether another host has taken over this training."""
        return self.shared is not None and not (self._work / SHARED).exists()

    def offer(self, names: list[str], step: int) -> None:
        """Start the upload of the checkpoints `names`, the newest of which is of `step`, if one is due."""
        if self.shared and time.monotonic() >= self._due and not self._is_running():
            self._start(names, step)

    def finish(self, names: list[str], step: int) -> None:
        """Upload the last checkpoints of a training that is stopped, so that another host can resume from them."""
        if self.shared and not self.is_lost():
            self.close()
            self._start(names, step, ALONE)
            assert self.process
            try:
                self.process.wait(LAST_UPLOAD)
            except subprocess.TimeoutExpired:
                log.warning("the last checkpoint did not reach the store within %g s", LAST_UPLOAD)
                self.close()

    def close(self) -> None:
        """Stop an upload."""
        if self.process and self._is_running():
            self.process.terminate()
            self.process.wait()

    def _is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _start(self, names: list[str], step: int, *options: str) -> None:
        assert self.shared
        snapshot = self._work / SNAPSHOT
        shutil.rmtree(snapshot, ignore_errors=True)
        for name in dict.fromkeys(names):
            # Links, because the trainer deletes older checkpoints during the upload. It takes no time and no space.
            shutil.copytree(self._work / name, snapshot / name, copy_function=os.link)
        command = [sys.executable, "-m", "pipeline.training.shared_checkpoints", str(self._work), str(step), *options]
        self.process = subprocess.Popen(command)  # noqa: S603 - our own interpreter
        self._due = time.monotonic() + self.shared.seconds


def upload(work: Path, step: int) -> Artifact | None:
    """Publish the files that `Uploads` has linked as an artifact; return None if another host has taken over.

    Older checkpoints of the training are then deleted from the store. Raises StoreError.
    """
    shared = Shared.read(work)
    if shared is None:
        return None
    store = shared.store
    with store.draft() as draft:
        shutil.copytree(work / SNAPSHOT, draft, dirs_exist_ok=True, copy_function=_link)
        fields = {"attempt": shared.attempt, "step": step}
        made = store.publish(
            draft, CHECKPOINT, shared.recipe, shared.key, run=shared.run, inputs={}, fields=fields, figures={}
        )
    for older in _found(store, shared.recipe, shared.key)[1:]:
        store.sweep(older.ref)
    return made


def _link(source: str, target: str) -> None:
    """Link a file, or copy it to another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def download(work: Path, local_step: int) -> int | None:
    """Copy the newest checkpoint of the store into `work` if its step is higher than `local_step`; return its step.

    A damaged checkpoint is skipped with a warning. Raises StoreError.
    """
    shared = Shared.read(work)
    if shared is None:
        return None
    store = shared.store
    for artifact in _found(store, shared.recipe, shared.key):
        step = int(artifact.manifest.fields["step"])
        if step <= local_step:
            return None
        try:
            source = artifact.path
        except ArtifactError as error:
            log.warning("a checkpoint is not used: %s", error)
            continue
        for path in sorted(source.iterdir()):
            if path.is_dir():
                shutil.rmtree(work / path.name, ignore_errors=True)
                shutil.copytree(path, work / path.name)
        store.forget(artifact.ref)
        log.info("step %d comes from %s", step, artifact.uri)
        return step
    return None


def forget(shared: Shared) -> None:
    """Delete all checkpoints of a training from the store. Raises StoreError."""
    for attempt in shared.store.list(f"{CHECKPOINT}/{shared.recipe}/{shared.key}"):
        shared.store.sweep(f"{CHECKPOINT}/{shared.recipe}/{shared.key}/{attempt}")


def _found(store: Store, recipe: str, key: str) -> list[Artifact]:
    """Return the complete checkpoints of a training, the newest of the highest attempt first."""
    folder = f"{CHECKPOINT}/{recipe}/{key}"
    found = list(_readable(store, [f"{folder}/{name}" for name in store.list(folder)]))
    return sorted(found, key=lambda item: (item.manifest.fields["attempt"], item.manifest.fields["step"]), reverse=True)


def _readable(store: Store, refs: list[str]) -> Iterator[Artifact]:
    for ref in refs:
        if store.read(f"{ref}/{MANIFEST}") is not None:
            try:
                yield store.open(ref)
            except ArtifactError as error:
                log.warning("a checkpoint is not used: %s", error)


def main() -> None:
    """Upload the checkpoint that the arguments name; a failure is logged, and the next upload tries again."""
    if ALONE not in sys.argv:
        _give_way()
    work, step = Path(sys.argv[1]), int(sys.argv[2])
    try:
        upload(work, step)
    except SaebyeokError as error:
        log.warning("the checkpoint of step %d did not reach the store: %s", step, error)


def _give_way() -> None:
    """Leave the cores to the training.

    The lowest priority is not enough: also on another core, the upload takes memory bandwidth, and two virtual cores
    may share a real one.
    """
    os.nice(19)
    signal.signal(signal.SIGPROF, lambda *_: time.sleep(REST))
    signal.setitimer(signal.ITIMER_PROF, WORK, WORK)


if __name__ == "__main__":
    main()
