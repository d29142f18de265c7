"""The directories of W&B runs below HOME: what each is about, and how far it has come to the server."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

#: A file with no more than this holds W&B's header and nothing of a run.
HEADER_BYTES = 7


class Story(BaseModel):
    """What a run's own file cannot say once it is closed: where it stands in the lineage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    store: str
    texts: bool
    uses: tuple[str, ...] = ()
    "Refs of the artifacts that it was made from and that are some at W&B too."
    made: str | None = None
    "Ref of the artifact that it made, where that is one at W&B too."
    crowns: bool = False
    "Whether the champion may be another one after it."


@dataclass(frozen=True)
class RunDirectory:
    """One run: W&B's file, and beside it Saebyeok's story and marks."""

    path: Path

    @property
    def name(self) -> str:
        """The directory's name, which begins with the time (`offline-run-20260101_030000-ab12cd34`)."""
        return self.path.name

    @property
    def id(self) -> str:
        """W&B's id of the run."""
        return self.path.name.rsplit("-", 1)[1]

    @property
    def file(self) -> Path:
        """W&B's own record of the run."""
        return self.path / f"run-{self.id}.wandb"

    @property
    def empty(self) -> bool:
        """Whether the run was killed before anything of it was on the disk."""
        return not self.file.is_file() or self.file.stat().st_size <= HEADER_BYTES

    @property
    def story(self) -> Story | None:
        """What it is about; None where its stage was killed, or an earlier version recorded it."""
        try:
            return Story.model_validate_json((self.path / "story.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def write(self, story: Story) -> None:
        """Keep `story`; once, before W&B's file is closed."""
        (self.path / "story.json").write_text(story.model_dump_json(indent=1), encoding="utf-8")

    def has(self, mark: str) -> bool:
        """Whether `mark` was made: `uploaded`, then `linked`."""
        return (self.path / mark).exists()

    def mark(self, mark: str) -> None:
        """Note that this much of it is at the server."""
        (self.path / mark).touch()

    @property
    def done(self) -> bool:
        """Whether all of it is at the server."""
        return self.has("uploaded") and self.has("linked")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else writes or uploads it meanwhile; a process that dies lets go. Raises BlockingIOError if held."""
        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield


def run_directories(home: Path) -> list[RunDirectory]:
    """Every run that was recorded below `home`, the oldest first."""
    found = (home / "wandb" / "wandb").glob("offline-run-*/run-*.wandb")
    return [RunDirectory(path) for path in sorted({file.parent for file in found})]
