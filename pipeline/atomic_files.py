"""Small files: written atomically, and state files treated as absent if damaged."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TextIO, TypeVar

from pydantic import TypeAdapter, ValidationError

log = logging.getLogger(__name__)

T = TypeVar("T")


def read_state(path: Path, kind: TypeAdapter[T]) -> T | None:
    """Return the content of the JSON file at `path`, or None if it is absent, unreadable or damaged.

    Damage is logged once, not at every read, because some of these files are read several times per second.
    """
    try:
        return kind.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        warn_of_damage(path, error.errors()[0]["msg"])
    except OSError as error:
        warn_of_damage(path, str(error.strerror))
    return None


def replace_file(path: Path, content: str | bytes, *, mode: int = 0o666, durable: bool = True) -> None:
    """Replace the file at `path` atomically: a reader sees the old or the new content, never a part.

    `mode` is the file mode before the umask. With `durable` the replacement is also atomic across a power loss;
    otherwise the file may then be empty. Raises OSError if it cannot be written, and leaves no temporary file.
    """
    with _temporary_file(path, content, mode, durable=durable) as temporary:
        temporary.replace(path)
    if durable:
        sync(path.parent)


def create_file(path: Path, content: str | bytes, *, mode: int = 0o666) -> bool:
    """Create the file at `path` atomically and durably; return False, and change nothing, if it already exists.

    Of several processes that create the same file, one succeeds. Raises OSError like `replace_file`.
    """
    with _temporary_file(path, content, mode, durable=True) as temporary:
        try:
            # A link, unlike a rename, fails if the name exists.
            os.link(temporary, path)
        except FileExistsError:
            return False
    sync(path.parent)
    return True


@contextmanager
def _temporary_file(path: Path, content: str | bytes, mode: int, *, durable: bool) -> Iterator[Path]:
    """Yield a new file next to `path` with `content`; it is deleted afterwards unless it was renamed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        if durable:
            sync(temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def warn_of_damage(path: Path, reason: str) -> None:
    """Log once per version of the file that the state at `path` is damaged and counts as absent."""
    try:
        changed = path.lstat().st_mtime_ns
    except OSError:
        changed = 0
    _warn_once(path, changed, reason)


@lru_cache(maxsize=256)
def _warn_once(path: Path, changed: int, reason: str) -> None:
    # `changed` is part of the cache key, so that later damage with the same reason is logged again.
    log.warning("%s is damaged and counts as absent: %s", path, reason)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[TextIO]:
    """Hold an exclusive lock between the processes of this machine; the kernel releases it if the process dies.

    Yields the locked file: a child process that inherits it holds the lock, too, until it ends.
    Without `wait`, raises BlockingIOError if another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file


def sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
