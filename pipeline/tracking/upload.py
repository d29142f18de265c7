"""Upload one recorded run in a separate process, so that its parent can stop waiting at any time.

`python -m pipeline.tracking.upload DIRECTORY [--live]`, with a pipe as standard input; the process ends when its
parent does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from pipeline.config_file import ROOT
from pipeline.errors import SaebyeokError, TrackingError
from pipeline.job import open_store
from pipeline.settings import load_settings
from pipeline.store.artifacts import MANIFEST
from pipeline.store.deployments import DeploymentLog
from pipeline.tracking.lineage import collection, hosted_name
from pipeline.tracking.run_directories import RunDirectory, Story
from pipeline.tracking.wandb_api import Hosted, bounds, find_account, find_project

log = logging.getLogger(__name__)

#: W&B's error for a file that ends inside a record, as after a kill. Everything before that record has been sent, and
#: the rest does not exist.
TORN = re.compile(r"runsync: incomplete transaction log: .*unexpected EOF")


@dataclass(frozen=True)
class Upload:
    """A process that uploads one run."""

    run: RunDirectory
    process: subprocess.Popen[bytes]

    def finish(self, patience: float) -> None:
        """Wait at most `patience` seconds. Raises TrackingError if the run is not completely uploaded."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise TrackingError(
                f"the upload took longer than {patience:g} s; run `saebyeok sync` to upload the rest"
            ) from None
        finally:
            self.stop()
        if not self.run.done:
            raise TrackingError(self._reason())

    def stop(self) -> None:
        """Kill the process; W&B's own process ends with it."""
        self.process.kill()
        self.process.communicate()

    def _reason(self) -> str:
        lines = (self.run.path / "upload" / "log.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line for line in lines if line.strip()]
        return said[-1].removeprefix("error: ") if said else "the upload process died without an error message"


def start_upload(run: RunDirectory, *, live: bool = False) -> Upload:
    """Start the upload process; `live`: the run is still being recorded, and is followed to its end."""
    place = run.path / "upload"
    # The log decides whether this attempt succeeded, so remove the log of an earlier one.
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    # The caller's mode may be offline; the upload process must be online, and log to `place`.
    environment = {name: value for name, value in os.environ.items() if name not in ("WANDB_MODE", "WANDB_SERVICE")}
    environment |= {"WANDB_DIR": str(place)}
    command = [sys.executable, "-m", "pipeline.tracking.upload", str(run.path), *(["--live"] if live else [])]
    with (place / "log.txt").open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output
        )
    return Upload(run, process)


def upload(run: RunDirectory, *, live: bool) -> None:
    """Upload the missing parts of `run`: the run with its artifacts, its lineage, the champion.

    Raises TrackingError if W&B accepted only a part of it, and W&B's own errors.
    """
    entity, project = find_account(os.environ), find_project(os.environ)
    if not run.has("uploaded"):
        _replay(run, entity, project, live=live)
        run.mark("uploaded")
    story = run.story
    if story is not None and not run.has("linked"):
        _link(run, story, Hosted(entity, project, load_settings().wandb_registry))
    run.mark("linked")


def _link(run: RunDirectory, story: Story, hosted: Hosted) -> None:
    store = open_store(load_settings(), story.store)
    for ref in story.uses:
        name, version = hosted_name(ref)
        # An artifact that was deleted from the store will never be uploaded; do not wait for it.
        if not hosted.use(run.id, name, version) and store.read(f"{ref}/{MANIFEST}") is not None:
            raise TrackingError(f"the run's input {name}:{version} is not uploaded yet; run `saebyeok sync`")
    if story.crowns:
        move_champions(hosted, DeploymentLog(store))


def move_champions(hosted: Hosted, records: DeploymentLog) -> dict[str, str | None]:
    """Move the alias `champion` to the releases of the newest deployment; return the moved recipes and refs.

    A ref is None if the recipe has lost its champion.
    """
    deployments = [records.get(number) for number in records.numbers()]
    # A recipe whose only deployment was rolled back has no champion any more.
    recipes = sorted({recipe for deployment in deployments for recipe in deployment.releases})
    moved = {}
    for recipe in recipes:
        ref = deployments[-1].releases.get(recipe)
        if hosted.crown(collection("release", recipe), hosted_name(ref)[1] if ref else None):
            moved[recipe] = ref
    return moved


def _replay(run: RunDirectory, entity: str, project: str, *, live: bool) -> None:
    import wandb
    from wandb.cli.cli import cli

    wandb.setup(settings=wandb.Settings(**bounds()))
    marker = run.file.with_name(f"{run.file.name}.synced")
    marker.unlink(missing_ok=True)
    command = ["beta", "sync", "--live", "--yes"] if live else ["sync"]
    cli([*command, "--entity", entity, "--project", project, str(run.path)], standalone_mode=False)
    if shortfall := find_shortfall(_problems(run.path / "upload"), synced=marker.exists()):
        marker.unlink(missing_ok=True)
        raise TrackingError(shortfall)


def find_shortfall(problems: list[str], *, synced: bool) -> str | None:
    """Return why the upload of a run is incomplete, from the errors in W&B's log and its mark; None if complete.

    W&B marks a run as synced even if it gave up on some of its files, and never marks a run whose file is truncated.
    """
    if lost := [problem for problem in problems if not TORN.fullmatch(problem)]:
        return lost[0]
    return None if problems or synced else "W&B did not upload the run; its log gives the reason"


def _problems(place: Path) -> list[str]:
    found = []
    for file in sorted(place.rglob("debug-sync*.log")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if str(entry.get("level", "")).startswith("ERROR"):
                    found.append(str(entry.get("msg", "")).partition("\n")[0])
    return found


def _end_with_parent() -> None:
    # Not sys.stdin: this thread would hold its lock when the process ends.
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    """Upload the run given on the command line; an error is the last line on standard error."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run = RunDirectory(Path(sys.argv[1]))
    try:
        upload(run, live="--live" in sys.argv)
    except Exception as error:  # noqa: BLE001 - any error of W&B is reported in one line
        text = str(error) if isinstance(error, SaebyeokError) else f"{type(error).__name__}: {error}"
        sys.stderr.write(f"error: {' '.join(text.split())}\n")
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
