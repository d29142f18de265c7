"""Artifacts: complete directories in a store, found again by a key that is derived from their inputs."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import ArtifactError, PrunedError
from pipeline.store.files.backends import BucketFiles, LocalFiles, open_files
from pipeline.store.files.drafts import open_draft
from pipeline.store.files.store_errors import store_errors
from pipeline.store.formats import Record
from pipeline.store.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    attempt_name,
    attempt_of,
    code_version,
    file_digest,
    size_state,
    verify_files,
)

__all__ = ["MANIFEST", "Artifact", "FileEntry", "Manifest", "Store", "file_digest", "verify_files"]

#: Folder of the store with a record of each pruned artifact, under its ref.
PRUNED = "pruned"

AnyRecord = TypeVar("AnyRecord", bound=Record)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Artifact:
    """A finished artifact in `store`; `ref` is its path there (`train/nsmc/<key>/<attempt>`)."""

    store: Store
    ref: str
    manifest: Manifest

    @property
    def key(self) -> str:
        """The key of the stage's inputs, by which the artifact is found."""
        return self.manifest.key

    @property
    def uri(self) -> str:
        """Its full URI."""
        return self.store.address(self.ref)

    @property
    def size(self) -> int:
        """Total size of its files in bytes."""
        return sum(entry.size for entry in self.manifest.files.values())

    def input_ref(self, name: str) -> str | None:
        """Return the ref of its input `name`, or None if it has no such input."""
        found = self.manifest.inputs.get(name)
        return found.ref if found else None

    @property
    def made_from(self) -> list[str]:
        """The refs of the artifacts that it was made from, without those that it started from or was compared with."""
        return [item.ref for item in self.manifest.inputs.values() if item.role == "made_from"]

    def input(self, name: str) -> Artifact:
        """Return the artifact that is its input `name`. Raises ArtifactError if it does not exist (any more)."""
        ref = self.input_ref(name)
        if ref is None:
            raise ArtifactError(
                f"{self.uri} has no input {name!r}; it has: {', '.join(self.manifest.inputs) or 'none'}"
            )
        return self.store.open(ref)

    @cached_property
    def path(self) -> Path:
        """Its directory on this machine, downloaded if the store is remote, with every file verified.

        Raises ArtifactError if a file is missing or differs from the manifest.
        """
        return self.store.fetch(self)

    def read_json(self, name: str) -> Any:
        """Parse one of its JSON files. Raises ArtifactError if there is no such file."""
        return json.loads(self._content(name))

    def read_record(self, name: str, model: type[AnyRecord]) -> AnyRecord:
        """Return the record in one of its JSON files.

        Raises ArtifactError if it is missing or damaged, NewerFormatError if a newer version wrote it.
        """
        try:
            return model.parse(self._content(name), f"{self.uri}/{name}")
        except (FileNotFoundError, ValueError) as error:
            raise ArtifactError(
                f"{self.uri}: {name} is missing or damaged ({error}); run its stage with --force"
            ) from error

    def _content(self, name: str) -> bytes:
        if name not in self.manifest.files:
            raise ArtifactError(f"{self.uri} has no file {name}; it has: {', '.join(self.manifest.files)}")
        return (self.path / name).read_bytes()


class Store:
    """A local directory or an `s3://bucket/prefix` of artifacts."""

    def __init__(self, uri: str, cache_directory: Path) -> None:
        """`cache_directory` holds downloads from a bucket, and drafts for it.

        Raises SettingsError if `uri` is neither a directory nor a bucket.
        """
        self.uri = uri
        self._files = open_files(uri)
        self._cache = cache_directory

    @property
    def local(self) -> bool:
        """Whether the store is a directory on this machine."""
        return isinstance(self._files, LocalFiles)

    def is_below(self, directory: Path) -> bool:
        """Return whether the store is a directory below `directory`, which other hosts do not share."""
        return isinstance(self._files, LocalFiles) and self._files.root.is_relative_to(directory)

    @property
    def digest(self) -> str:
        """Identifier that does not reveal the store's address: 16 hex digits of the address's SHA-256."""
        place = str(self._files.root.resolve()) if isinstance(self._files, LocalFiles) else self.uri.rstrip("/")
        return hashlib.sha256(place.encode()).hexdigest()[:16]

    def address(self, ref: str) -> str:
        """Return the full URI of a path in the store."""
        return f"{self.uri.rstrip('/')}/{ref}"

    def open(self, ref: str) -> Artifact:
        """Return the artifact at `ref`. Raises ArtifactError if there is none (PrunedError if it was pruned)."""
        artifact = self._open(ref)
        if artifact is not None:
            return artifact
        day = self.read(f"{PRUNED}/{ref}")
        if day is not None:
            raise PrunedError(
                f"{self.address(ref)} was pruned on {day.decode()}: no retained deployment needs it; run its recipe "
                "again to rebuild it"
            )
        raise ArtifactError(
            f"{self.address(ref)}: no such artifact, or an incomplete one ({MANIFEST} is missing); check the ref, or "
            "run its stage again"
        )

    def prune(self, artifact: Artifact) -> None:
        """Delete an artifact and its local copy, and record the deletion."""
        # Record first, so that an interrupted deletion does not look like data loss.
        self.create(f"{PRUNED}/{artifact.ref}", f"{datetime.now(UTC):%Y-%m-%d}".encode())
        self.sweep(artifact.ref)

    def sweep(self, ref: str) -> None:
        """Delete the files at `ref` and their local copy, also after an interrupted deletion."""
        self._files.remove(ref, first=MANIFEST)
        self.forget(ref)

    def forget(self, ref: str) -> None:
        """Delete the local copy of an artifact that was downloaded from a bucket."""
        shutil.rmtree(self._cache / "artifacts" / ref, ignore_errors=True)

    def _open(self, ref: str) -> Artifact | None:
        text = self.read(f"{ref}/{MANIFEST}")
        if text is None:
            return None
        try:
            return Artifact(self, ref, Manifest.parse(text, f"{self.address(ref)}/{MANIFEST}"))
        except ValueError as error:
            raise ArtifactError(f"{self.address(ref)}/{MANIFEST} is damaged: {error}") from error

    def find(self, kind: str, recipe: str, key: str, inputs: Mapping[str, Artifact]) -> Artifact | None:
        """Return the newest complete artifact with this key and exactly these inputs, or None.

        A damaged artifact is skipped with a warning, so that its stage builds it again.
        """
        wanted = {name: artifact.ref for name, artifact in inputs.items()}
        for attempt in reversed(self.list(f"{kind}/{recipe}/{key}")):
            ref = f"{kind}/{recipe}/{key}/{attempt}"
            try:
                artifact = self._open(ref)
                if artifact and {name: item.ref for name, item in artifact.manifest.inputs.items()} == wanted:
                    self._check_sizes(artifact)
                    return artifact
            except ArtifactError as error:
                log.warning("an artifact is not reused: %s", error)
        return None

    def _check_sizes(self, artifact: Artifact) -> None:
        # Sizes are cheap enough for every look-up, also in a bucket; digests are checked when files are read.
        sizes = self._files.sizes(artifact.ref)
        for name, entry in artifact.manifest.files.items():
            if sizes.get(name) != entry.size:
                raise ArtifactError(f"{artifact.uri}: file {name} is {size_state(sizes.get(name), entry.size)}")

    def newest(self, kind: str, recipe: str) -> Artifact | None:
        """Return the most recent artifact of this kind, or None."""
        return next((artifact for ref in self.refs(kind, recipe) if (artifact := self._open(ref))), None)

    def refs(self, kind: str, recipe: str) -> list[str]:
        """Return the refs of all attempts of this kind, complete or not, newest first."""
        refs = [
            f"{kind}/{recipe}/{key}/{name}"
            for key in self.list(f"{kind}/{recipe}")
            for name in self.list(f"{kind}/{recipe}/{key}")
        ]
        return sorted(refs, key=attempt_of, reverse=True)

    def files_below(self, ref: str) -> list[str]:
        """Return the paths of all files below `ref`, in any order."""
        return [f"{ref}/{path}" for path in self._files.sizes(ref)]

    def list(self, ref: str) -> list[str]:
        """Return the names directly below `ref`, sorted, without hidden ones; empty if `ref` does not exist."""
        return self._files.list(ref)

    def read(self, ref: str) -> bytes | None:
        """Return the content of one file, or None if it does not exist."""
        return self._files.read(ref)

    def create(self, ref: str, content: bytes) -> bool:
        """Create a small file atomically; return False if it already exists."""
        return self._files.create(ref, content)

    def replace(self, ref: str, content: bytes) -> None:
        """Write a small file atomically, also over an existing one."""
        self._files.replace(ref, content)

    def age(self, ref: str) -> float | None:
        """Return the seconds since the file was written, by the store's own clock; None if it does not exist."""
        return self._files.age(ref)

    def delete(self, ref: str) -> None:
        """Delete one file if it exists."""
        self._files.delete(ref)

    def draft(self) -> AbstractContextManager[Path]:
        """Return a context manager with a directory to build an artifact in; it is deleted unless published.

        Raises StoreError if the directory cannot be created or the disk is full.
        """
        # Drafts of a local store are inside it: a rename is atomic only within one file system.
        parent = self._files.root / ".drafts" if isinstance(self._files, LocalFiles) else self._cache / "drafts"
        return open_draft(parent)

    def publish(self, draft: Path, kind: str, recipe: str, key: str, **fields: Any) -> Artifact:
        """Publish `draft` as an artifact: files first, the manifest last. `fields` are further manifest fields."""
        now = datetime.now(UTC)
        with store_errors(str(draft)):
            files = {
                path.relative_to(draft).as_posix(): FileEntry(sha256=file_digest(path), size=path.stat().st_size)
                for path in sorted(draft.rglob("*"))
                if path.is_file()
            }
            manifest = Manifest(
                kind=kind, recipe=recipe, key=key, created=now, code=code_version(), files=files, **fields
            )
            text = manifest.model_dump_json(indent=1)
            (draft / MANIFEST).write_text(text, encoding="utf-8")
        taken = map(attempt_of, self.refs(kind, recipe))
        ref = f"{kind}/{recipe}/{key}/{attempt_name(taken, now)}"
        self._files.put(draft, ref, last=MANIFEST)
        # Parse the written text, so that a new artifact equals a reused one (tuples become lists).
        return Artifact(self, ref, Manifest.model_validate_json(text))

    def fetch(self, artifact: Artifact) -> Path:
        """Return the artifact's directory on this machine with every file verified; download it from a bucket.

        Raises ArtifactError if a file is missing or differs from the manifest.
        """
        files = artifact.manifest.files
        if isinstance(self._files, LocalFiles):
            verify_files(self._files.root / artifact.ref, files, artifact.uri)
            return self._files.root / artifact.ref
        target = self._cache / "artifacts" / artifact.ref
        if target.is_dir():
            try:
                verify_files(target, files, str(target))
            except ArtifactError as error:
                log.warning("downloading again: %s", error)
                shutil.rmtree(target, ignore_errors=True)
            else:
                return target
        self._download(self._files, artifact, target)
        return target

    def _download(self, files: BucketFiles, artifact: Artifact, target: Path) -> None:
        with self.draft() as draft:
            for name in artifact.manifest.files:
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                if not files.get(f"{artifact.ref}/{name}", draft / name):
                    raise ArtifactError(f"{artifact.uri}: file {name} is missing; run its stage again")
            verify_files(draft, artifact.manifest.files, artifact.uri)
            with store_errors(str(target)):
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    draft.rename(target)
                except OSError as error:
                    # Another process has downloaded and verified it meanwhile.
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
