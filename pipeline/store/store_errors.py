"""What a disk or a bucket raises, turned into errors that say where it happened and what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, NoCredentialsError

from pipeline.errors import SaebyeokError, StoreError

FULL = "the disk is full; free some space and run again"
FULL_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
#: Bytes; with less than this free a disk is as good as full.
FULL_BELOW = 256 * 1024


@contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Turn what the disk or the bucket raises into a StoreError that names `where`."""
    try:
        yield
    except (OSError, BotoCoreError) as error:
        raise StoreError(f"{where}: {_advice(error)}") from error


@contextmanager
def bucket_errors(where: str) -> Iterator[None]:
    """Turn what S3's client raises into a StoreError that names `where`, also what it gave up to try again."""
    # Here and not at the top: who has a bucket has imported it already.
    from s3fs.core import S3_RETRYABLE_ERRORS

    with store_errors(where):
        try:
            yield
        except S3_RETRYABLE_ERRORS as error:
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
    # What ran out of time has no text of its own.
    return str(error) or "no answer in time; run again"
