"""Storage backends: a local directory, or a prefix of an S3 bucket."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path

from botocore.exceptions import ClientError
from typing_extensions import override

from pipeline.atomic_files import create_file, replace_file, sync
from pipeline.errors import SettingsError, StoreError
from pipeline.store.files.store_errors import bucket_errors, store_errors

#: Pauses in seconds between attempts of an exclusive write, while S3 reports a concurrent write.
CONFLICT_PAUSES = (0.1, 0.2, 0.4, 0.8)
#: Timeout of an upload: a fixed part, and the time at the minimum speed (half a megabit per second).
UPLOAD_SECONDS = 300
UPLOAD_BYTES_PER_SECOND = 64 * 1024


class Files(ABC):
    """The storage operations of a store; a `ref` is a path below the root, with forward slashes.

    Every method raises StoreError if the storage cannot be reached or written.
    """

    @abstractmethod
    def list(self, ref: str) -> list[str]:
        """Return the names directly below `ref`, sorted, without hidden ones; empty if `ref` does not exist."""

    @abstractmethod
    def sizes(self, ref: str) -> dict[str, int]:
        """Map each file below `ref`, by its path relative to `ref`, to its size in bytes."""

    @abstractmethod
    def read(self, ref: str) -> bytes | None:
        """Return the content of one file, or None if it does not exist."""

    @abstractmethod
    def create(self, ref: str, content: bytes) -> bool:
        """Create a small file atomically; return False if it already exists."""

    @abstractmethod
    def replace(self, ref: str, content: bytes) -> None:
        """Write a small file atomically, also over an existing one."""

    @abstractmethod
    def age(self, ref: str) -> float | None:
        """Return the seconds since the file was written, by the storage's own clock; None if it does not exist."""

    @abstractmethod
    def delete(self, ref: str) -> None:
        """Delete one file if it exists."""

    @abstractmethod
    def remove(self, ref: str, first: str) -> None:
        """Delete the directory `ref` if it exists, its file `first` before all others."""

    @abstractmethod
    def put(self, directory: Path, ref: str, last: str) -> None:
        """Move or copy a directory to `ref`, which must not exist; the file `last` arrives last."""


class LocalFiles(Files):
    """Files below a directory on this machine."""

    def __init__(self, root: Path) -> None:
        """`root` is created when the first file is written."""
        self.root = root

    @override
    def list(self, ref: str) -> list[str]:
        with store_errors(str(self.root / ref)):
            try:
                names = [path.name for path in (self.root / ref).iterdir()]
            except (FileNotFoundError, NotADirectoryError):
                self._check_root()
                return []
        return sorted(name for name in names if not name.startswith("."))

    @override
    def sizes(self, ref: str) -> dict[str, int]:
        base = self.root / ref
        with store_errors(str(base)):
            return {
                path.relative_to(base).as_posix(): path.stat().st_size for path in base.rglob("*") if path.is_file()
            }

    @override
    def read(self, ref: str) -> bytes | None:
        with store_errors(str(self.root / ref)):
            try:
                return (self.root / ref).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                self._check_root()
                return None

    @override
    def create(self, ref: str, content: bytes) -> bool:
        path = self.root / ref
        with store_errors(str(path)):
            make_directory(path.parent)
            return create_file(path, content)

    @override
    def replace(self, ref: str, content: bytes) -> None:
        path = self.root / ref
        with store_errors(str(path)):
            make_directory(path.parent)
            # Only leases are replaced, which end with the machine, so they need not survive a power loss.
            replace_file(path, content, durable=False)

    @override
    def age(self, ref: str) -> float | None:
        path = self.root / ref
        with store_errors(str(path)):
            try:
                written = path.stat().st_mtime
                # A file server stamps files by its own clock, which may differ from this machine's.
                with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".clock.") as now:
                    return max(0.0, os.fstat(now.fileno()).st_mtime - written)
            except (FileNotFoundError, NotADirectoryError):
                return None

    @override
    def delete(self, ref: str) -> None:
        with store_errors(str(self.root / ref)), suppress(FileNotFoundError, NotADirectoryError):
            (self.root / ref).unlink()

    @override
    def put(self, directory: Path, ref: str, last: str) -> None:
        target = self.root / ref
        with store_errors(str(target)):
            for path in (*directory.rglob("*"), directory):
                sync(path)
            make_directory(target.parent)
            directory.rename(target)
            sync(target.parent)

    @override
    def remove(self, ref: str, first: str) -> None:
        base = self.root / ref
        with store_errors(str(base)):
            try:
                (base / first).unlink(missing_ok=True)
                sync(base)
                shutil.rmtree(base)
            except FileNotFoundError:
                # Another process has deleted it, and a third may have begun to publish under its key.
                return
            with suppress(OSError):
                # Fails unless it was the last artifact of its key.
                base.parent.rmdir()

    def _check_root(self) -> None:
        # A file at the root must not look like an empty store; files below it may be a user's notes.
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.root} is a file; choose a directory, or move the file away")


class BucketFiles(Files):
    """Files below `s3://bucket/prefix`; credentials and endpoint come from AWS's standard variables."""

    def __init__(self, uri: str) -> None:
        """Parse `uri` without opening a connection. Raises SettingsError if it has no bucket."""
        import fsspec

        self._fs, self._root = fsspec.core.url_to_fs(uri)
        self._bucket = self._root.split("/")[0]
        if not self._bucket:
            raise SettingsError(f"store {uri} has no bucket; use s3://bucket/prefix")

    @override
    def list(self, ref: str) -> list[str]:
        base = f"{self._root}/{ref}"
        with bucket_errors(f"s3://{base}"):
            # s3fs caches listings, but another machine may have written since.
            self._fs.invalidate_cache()
            try:
                paths = [path.removesuffix("/") for path in self._fs.ls(base, detail=False)]
            except FileNotFoundError:
                self._check_bucket()
                return []
        # The S3 console creates an empty object with the folder's own name.
        names = {path.rsplit("/", 1)[1] for path in paths if path != base}
        return sorted(name for name in names if not name.startswith("."))

    @override
    def sizes(self, ref: str) -> dict[str, int]:
        base = f"{self._root}/{ref}"
        with bucket_errors(f"s3://{base}"):
            self._fs.invalidate_cache()
            found = self._fs.find(base, detail=True)
        return {path.removeprefix(f"{base}/"): int(info["size"]) for path, info in found.items()}

    @override
    def read(self, ref: str) -> bytes | None:
        with bucket_errors(f"s3://{self._root}/{ref}"):
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{ref}"))
            except FileNotFoundError:
                self._check_bucket()
                return None

    @override
    def create(self, ref: str, content: bytes) -> bool:
        for pause in (0, *CONFLICT_PAUSES):
            time.sleep(pause)
            made = self._try_to_create(ref, content)
            if made is not None:
                return made
        tries = len(CONFLICT_PAUSES) + 1
        raise StoreError(f"s3://{self._root}/{ref}: S3 reported conflicting writes {tries} times; run again")

    def _try_to_create(self, ref: str, content: bytes) -> bool | None:
        """Create the object; return whether this content was written, or None while another write is in progress."""
        path = f"{self._root}/{ref}"
        with bucket_errors(f"s3://{path}"):
            try:
                self._fs.pipe_file(path, content, mode="create", timeout=upload_seconds(len(content)))
            except OSError as error:
                status = _http_status(error)
                if status == 409:
                    return None
                if status == 412:
                    # A request without a response is sent twice: the existing object may be this one.
                    return self.read(ref) == content
                raise
        return True

    @override
    def replace(self, ref: str, content: bytes) -> None:
        path = f"{self._root}/{ref}"
        with bucket_errors(f"s3://{path}"):
            self._fs.pipe_file(path, content, timeout=upload_seconds(len(content)))

    @override
    def age(self, ref: str) -> float | None:
        _, _, key = f"{self._root}/{ref}".partition("/")
        with bucket_errors(f"s3://{self._root}/{ref}"):
            try:
                head = self._fs.call_s3("head_object", Bucket=self._bucket, Key=key)
            except FileNotFoundError:
                self._check_bucket()
                return None
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        return float(max(0.0, (now - head["LastModified"]).total_seconds()))

    @override
    def delete(self, ref: str) -> None:
        with bucket_errors(f"s3://{self._root}/{ref}"):
            try:
                self._fs.rm_file(f"{self._root}/{ref}")
            except FileNotFoundError:
                # S3 answers 404 only if the bucket is missing, other servers also if the file is.
                self._check_bucket()

    @override
    def put(self, directory: Path, ref: str, last: str) -> None:
        files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
        with bucket_errors(f"s3://{self._root}/{ref}"):
            for path in sorted(files, key=lambda item: item == directory / last):
                name, seconds = path.relative_to(directory).as_posix(), upload_seconds(path.stat().st_size)
                self._fs.put_file(str(path), f"{self._root}/{ref}/{name}", timeout=seconds)

    @override
    def remove(self, ref: str, first: str) -> None:
        base = f"{self._root}/{ref}"
        with bucket_errors(f"s3://{base}"):
            for path in (f"{base}/{first}", base):
                with suppress(FileNotFoundError):
                    self._fs.rm(path, recursive=path == base)

    def get(self, ref: str, path: Path) -> bool:
        """Copy one file to `path`; return False if it does not exist."""
        with bucket_errors(f"s3://{self._root}/{ref}"):
            try:
                self._fs.get_file(f"{self._root}/{ref}", str(path))
            except FileNotFoundError:
                self._check_bucket()
                return False
        return True

    def _check_bucket(self) -> None:
        # A misspelt bucket must not look like an empty store: the gate would find no champion.
        if not self._fs.exists(self._bucket):
            raise StoreError(f"s3://{self._bucket}: no such bucket, or no access to it; check its name and credentials")


def open_files(uri: str) -> LocalFiles | BucketFiles:
    """Return the backend for a directory or `s3://bucket/prefix`. Raises SettingsError for other URIs."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        return LocalFiles(Path(rest if separator else uri).expanduser().absolute())
    if scheme != "s3":
        raise SettingsError(f"store {uri}: {scheme}:// is not supported; use a directory or s3://bucket/prefix")
    return BucketFiles(uri)


def make_directory(path: Path) -> None:
    """Create a directory and its parents; each is flushed to disk before its content."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def upload_seconds(size: int) -> float:
    """Return the timeout in seconds for an upload of `size` bytes."""
    # The S3 client has no timeout for uploads: it can wait forever for "100 Continue" or to send.
    return UPLOAD_SECONDS + size / UPLOAD_BYTES_PER_SECOND


def _http_status(error: OSError) -> int | None:
    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return None
    return int(cause.response["ResponseMetadata"]["HTTPStatusCode"])
