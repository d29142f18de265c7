"""The manifest, which makes a directory an artifact, and the key by which the artifact is found."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline import __version__
from pipeline.errors import ArtifactError
from pipeline.store.formats import Record

MANIFEST = "manifest.json"
#: Kind of the checkpoints of a training that another host may resume; deleted when it is finished.
CHECKPOINT = "checkpoint"
#: Time format at the start of an attempt's name, down to microseconds, so that names sort by time.
ATTEMPT_TIME = "%Y%m%dT%H%M%S%f"


#: Role of an input. An artifact is made from data and models, which are kept with it. A training starts from the
#: weights of a model, which is not needed once the training is complete. A decision compares with other models.
Role = Literal["made_from", "started_from", "compared_with"]
#: Roles of the inputs of manifests of format 1, which had none, by kind and name. All others are `made_from`.
OLD_ROLES: dict[tuple[str, str], Role] = {
    ("train", "start"): "started_from",
    ("decide", "champion"): "compared_with",
    ("decide", "best"): "compared_with",
}


class FileEntry(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(description="SHA-256 of the content, in hex")
    size: int = Field(ge=0, description="bytes")


class Input(BaseModel):
    """An input of an artifact: another artifact, and its role."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: str = Field(description="its path in the store")
    key: str = Field(description="its key")
    role: Role = Field(default="made_from", description="how it was used")


class Manifest(Record):
    """The manifest of an artifact; written last, it marks the artifact as complete."""

    format: int = Field(default=2, description="format of the record")
    kind: str = Field(description="kind of the artifact")
    recipe: str = Field(description="name of the recipe")
    run: str = Field(description="id of the run that built it")
    key: str = Field(description="digest of the inputs, by which later runs find it")
    created: datetime = Field(description="time of its completion, in UTC")
    code: str = Field(description="version of the code that built it")
    inputs: dict[str, Input] = Field(description="inputs by name")
    fields: dict[str, Any] = Field(description="the recipe fields that the stage read")
    figures: dict[str, Any] = Field(description="what the stage measured; parsed by `pipeline.store.figures`")
    files: dict[str, FileEntry] = Field(description="files by their path in the artifact")

    @classmethod
    def upgraded(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return a document of format 1 with the roles of its inputs."""
        kind, inputs = str(document.get("kind")), document.get("inputs")
        if not isinstance(inputs, dict):
            return document
        roles = {
            name: item | {"role": OLD_ROLES[kind, name]}
            for name, item in inputs.items()
            if (kind, name) in OLD_ROLES and isinstance(item, dict)
        }
        return document | {"inputs": inputs | roles}

    @field_validator("files")
    @classmethod
    def _files_stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            path = PurePosixPath(name)
            if not path.parts or path.is_absolute() or ".." in path.parts:
                raise ValueError(f"file name {name!r} is not inside the artifact")
        return files


def make_key(stage: str, version: int, fields: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the key of a stage's result: 16 hex digits of the SHA-256 of stage, version, fields and inputs."""
    document = {"stage": stage, "version": version, "fields": fields, "inputs": dict(inputs)}
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> Any:
    # Not str(): the text of a set or of a plain object differs between processes.
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a key; use numbers, texts, lists and dicts")


def attempt_name(taken: Iterable[str], now: datetime) -> str:
    """Return a name for an attempt made `now` (UTC) that sorts after `taken`, the names of all existing attempts.

    The clock alone is not enough: it may be set back, or differ between machines.
    """
    newest = max(filter(None, map(attempt_time, taken)), default=None)
    moment = max(now, newest + timedelta(microseconds=1)) if newest else now
    return f"{moment:{ATTEMPT_TIME}}-{secrets.token_hex(2)}"


def attempt_of(ref: str) -> str:
    """Return the name of the attempt at `ref`. Names of one kind and recipe sort by age, the newest last."""
    return ref.rsplit("/", 1)[1]


def attempt_time(name: str) -> datetime | None:
    """Return the time in the name of an attempt; None for another name."""
    try:
        return datetime.strptime(name.partition("-")[0], ATTEMPT_TIME).replace(tzinfo=UTC)
    except ValueError:  # not an attempt's directory
        return None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_files(directory: Path, files: Mapping[str, FileEntry], name: str) -> None:
    """Raise ArtifactError unless every file of `files` is in `directory`, complete and unchanged."""
    for relative, entry in files.items():
        path = directory / relative
        size = path.stat().st_size if path.is_file() else None
        if size != entry.size:
            raise ArtifactError(f"{name}: file {relative} is {size_state(size, entry.size)}")
        if file_digest(path) != entry.sha256:
            raise ArtifactError(f"{name}: file {relative} has changed since it was written; run its stage with --force")


def size_state(size: int | None, expected: int) -> str:
    """Return the fault of a file of `size` bytes (None: missing) and the remedy, as part of a sentence."""
    state = "missing" if size is None else f"{size} bytes long, not {expected}"
    return f"{state}; run its stage again"


@cache
def code_version() -> str:
    """Return the package version, with the git commit if the code is a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return __version__
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:  # git is not installed
        return __version__
    return f"{__version__}+{result.stdout.strip()}" if result.returncode == 0 else __version__
