"""Directories of W&B runs below HOME, with their lineage and upload state."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.atomic_files import locked

#: A file of at most this size contains only W&B's header.
HEADER_BYTES = 7


class Story(BaseModel):
    """The lineage of a run, kept in a file of its own because W&B's file is closed before the lineage is uploaded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    store: str
    texts: bool
    uses: tuple[str, ...] = ()
    "Refs of its input artifacts that W&B also knows."
    made: str | None = None
    "Ref of its output artifact, if W&B also knows it."
    crowns: bool = False
    "Whether it may change the champion."


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one run: W&B's file, and Saebyeok's story and marks."""

    path: Path

    @property
    def name(self) -> str:
        """The directory's name, which contains the start time (`offline-run-20260101_030000-ab12cd34`)."""
        return self.path.name

    @property
    def id(self) -> str:
        """W&B's id of the run."""
        return self.path.name.rsplit("-", 1)[1]

    @property
    def file(self) -> Path:
        """W&B's file of the run."""
        return self.path / f"run-{self.id}.wandb"

    @property
    def empty(self) -> bool:
        """Whether the run was killed before any of it was written to disk."""
        return not self.file.is_file() or self.file.stat().st_size <= HEADER_BYTES

    @property
    def story(self) -> Story | None:
        """The run's lineage; None if its stage was killed, or an earlier version recorded it."""
        try:
            return Story.model_validate_json((self.path / "story.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def write(self, story: Story) -> None:
        """Save `story`; called once, before W&B's file is closed."""
        (self.path / "story.json").write_text(story.model_dump_json(indent=1), encoding="utf-8")

    def has(self, mark: str) -> bool:
        """Return whether `mark` is set: `uploaded`, then `linked`."""
        return (self.path / mark).exists()

    def mark(self, mark: str) -> None:
        """Set `mark` after this part of the upload."""
        (self.path / mark).touch()

    @property
    def done(self) -> bool:
        """Whether the run is completely uploaded."""
        return self.has("uploaded") and self.has("linked")

    def held(self) -> AbstractContextManager[object]:
        """Lock the run against other writers and uploads; released if the process dies. Raises BlockingIOError."""
        return locked(self.path / "lock", wait=False)


def run_directories(home: Path) -> list[RunDirectory]:
    """Return every run recorded below `home`, oldest first."""
    found = (home / "wandb" / "wandb").glob("offline-run-*/run-*.wandb")
    return [RunDirectory(path) for path in sorted({file.parent for file in found})]
