"""Where a store keeps its files: a local directory, or a prefix of an S3 bucket."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from typing_extensions import override

from pipeline.errors import SaebyeokError, SettingsError, StoreError

#: How often an exclusive write is sent again while S3 answers that another one is under way.
CONFLICT_TRIES = 5
FULL = "the disk is full; free some space and run again"
FULL_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
#: Bytes; with less than this free a disk is as good as full.
FULL_BELOW = 256 * 1024


class Files(ABC):
    """The few operations that a store needs; a `ref` is a path below the root, with forward slashes.

    Every method raises StoreError where the place cannot be reached or written.
    """

    @abstractmethod
    def list(self, ref: str) -> list[str]:
        """Names right below `ref`, sorted, hidden ones left out; empty where it does not exist."""

    @abstractmethod
    def sizes(self, ref: str) -> dict[str, int]:
        """Every file below `ref`: its path from there, and its size in bytes."""

    @abstractmethod
    def read(self, ref: str) -> bytes | None:
        """Content of one file, or None where it does not exist."""

    @abstractmethod
    def create(self, ref: str, content: bytes) -> bool:
        """Write a small file that must not exist yet, whole or not at all; False where it exists."""

    @abstractmethod
    def remove(self, ref: str, first: str) -> None:
        """Delete the directory `ref` where it exists, its file `first` before all others."""

    @abstractmethod
    def put(self, directory: Path, ref: str, last: str) -> None:
        """Move or copy a directory to `ref`, which must not exist; the file `last` arrives last."""


class LocalFiles(Files):
    """Files below a directory of this machine."""

    def __init__(self, root: Path) -> None:
        """`root` is made when the first file is written."""
        self.root = root

    @override
    def list(self, ref: str) -> list[str]:
        with store_errors(str(self.root / ref)):
            try:
                names = [path.name for path in (self.root / ref).iterdir()]
            except FileNotFoundError:
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
            except FileNotFoundError:
                return None

    @override
    def create(self, ref: str, content: bytes) -> bool:
        path = self.root / ref
        beside = path.parent / f".{path.name}.{secrets.token_hex(4)}"
        with store_errors(str(path)):
            make_directory(path.parent)
            try:
                beside.write_bytes(content)
                sync(beside)
                # A link, unlike a rename, fails where the name is taken.
                os.link(beside, path)
            except FileExistsError:
                return False
            finally:
                beside.unlink(missing_ok=True)
            sync(path.parent)
        return True

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
                return
            with suppress(OSError):
                # Where it was the last of its key.
                base.parent.rmdir()


class BucketFiles(Files):
    """Files below `s3://bucket/prefix`; credentials and endpoint are AWS's own variables."""

    def __init__(self, uri: str) -> None:
        """Opens no connection yet. Raises SettingsError where the URI names no bucket."""
        import fsspec

        self._fs, root = fsspec.core.url_to_fs(uri)
        self._root: str = root.rstrip("/")
        self._bucket = self._root.split("/")[0]
        if not self._bucket:
            raise SettingsError(f"store {uri}: names no bucket; use s3://bucket/prefix")

    @override
    def list(self, ref: str) -> list[str]:
        base = f"{self._root}/{ref}"
        with store_errors(f"s3://{base}"):
            # Another machine may have written since; without this s3fs answers from memory.
            self._fs.invalidate_cache()
            try:
                paths = [path.rstrip("/") for path in self._fs.ls(base, detail=False)]
            except FileNotFoundError:
                self._check_bucket()
                return []
        # A console leaves an empty object named like the folder itself.
        names = {path.rsplit("/", 1)[1] for path in paths if path != base}
        return sorted(name for name in names if not name.startswith("."))

    @override
    def sizes(self, ref: str) -> dict[str, int]:
        base = f"{self._root}/{ref}"
        with store_errors(f"s3://{base}"):
            self._fs.invalidate_cache()
            found = self._fs.find(base, detail=True)
        return {path.removeprefix(f"{base}/"): int(info["size"]) for path, info in found.items()}

    @override
    def read(self, ref: str) -> bytes | None:
        with store_errors(f"s3://{self._root}/{ref}"):
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{ref}"))
            except FileNotFoundError:
                self._check_bucket()
                return None

    @override
    def create(self, ref: str, content: bytes) -> bool:
        where = f"s3://{self._root}/{ref}"
        for attempt in range(CONFLICT_TRIES):
            with store_errors(where):
                try:
                    self._fs.pipe_file(f"{self._root}/{ref}", content, mode="create")
                except OSError as error:
                    status = _http_status(error)
                    if status == 409:
                        time.sleep(0.1 * 2**attempt)
                        continue
                    if status == 412:
                        # A request whose answer was lost is sent twice: what exists may be this very record.
                        return self.read(ref) == content
                    raise
            return True
        raise StoreError(f"{where}: S3 reported conflicting writes {CONFLICT_TRIES} times; run again")

    @override
    def put(self, directory: Path, ref: str, last: str) -> None:
        files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
        with store_errors(f"s3://{self._root}/{ref}"):
            for path in sorted(files, key=lambda item: item == directory / last):
                self._fs.put_file(str(path), f"{self._root}/{ref}/{path.relative_to(directory).as_posix()}")

    @override
    def remove(self, ref: str, first: str) -> None:
        base = f"{self._root}/{ref}"
        with store_errors(f"s3://{base}"):
            for path in (f"{base}/{first}", base):
                with suppress(FileNotFoundError):
                    self._fs.rm(path, recursive=path == base)

    def get(self, ref: str, path: Path) -> bool:
        """Copy one file to `path`; False where it does not exist."""
        with store_errors(f"s3://{self._root}/{ref}"):
            try:
                self._fs.get_file(f"{self._root}/{ref}", str(path))
            except FileNotFoundError:
                self._check_bucket()
                return False
        return True

    def _check_bucket(self) -> None:
        # A mistyped bucket must not look like an empty store: a gate would find no champion there.
        if not self._fs.exists(self._bucket):
            raise StoreError(f"s3://{self._bucket}: no such bucket, or no access to it")


def open_files(uri: str) -> LocalFiles | BucketFiles:
    """The files at a directory or `s3://bucket/prefix`. Raises SettingsError for anything else."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        return LocalFiles(Path(rest if separator else uri).expanduser().absolute())
    if scheme != "s3":
        raise SettingsError(f"store {uri}: {scheme}:// is not known; use a directory or s3://bucket/prefix")
    return BucketFiles(uri)


def make_directory(path: Path) -> None:
    """Make a directory and its parents, each on the disk before what goes into it."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Turn what the disk or the bucket raises into a StoreError that names `where`."""
    try:
        yield
    except (OSError, BotoCoreError) as error:
        raise StoreError(f"{where}: {_advice(error)}") from error


@contextmanager
def full_disk_errors(where: str) -> Iterator[None]:
    """Turn what a full disk at `where` (a directory) makes libraries raise into a StoreError.

    Other errors pass as they are.
    """
    try:
        yield
    except SaebyeokError:
        raise
    except Exception as error:
        if not (_says_full(error) or _is_full(where)):
            raise
        raise StoreError(f"{where}: {FULL}") from error


def _says_full(error: Exception) -> bool:
    # Some libraries keep only the text: shutil of a tree, safetensors.
    number = error.errno if isinstance(error, OSError) else None
    return number in FULL_NUMBERS or any(os.strerror(known) in str(error) for known in FULL_NUMBERS)


def _is_full(where: str) -> bool:
    # And some not even that: torch says that a write has failed.
    try:
        return shutil.disk_usage(where).free < FULL_BELOW
    except OSError:
        return False


def _advice(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL_NUMBERS:
        return FULL
    if isinstance(error, PermissionError) or number == errno.EROFS:
        return f"may not be read or written ({error}); check the rights, or name another store"
    if isinstance(error, NoCredentialsError):
        return "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what else AWS offers"
    return str(error)


def _http_status(error: OSError) -> int | None:
    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return None
    return int(cause.response["ResponseMetadata"]["HTTPStatusCode"])
