"""Convert errors of a disk or a bucket into StoreError with the location and a remedy."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from pipeline.errors import SaebyeokError, StoreError
from pipeline.texts import without_secrets

FULL = "the disk is full; free some space and run again (`saebyeok prune --dry-run` lists what can be deleted)"
FULL_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
CREDENTIALS = "S3 does not accept the AWS credentials; correct or renew them"
#: What to do after a refusal by S3, by its code. s3fs turns most of them into errors of permissions.
REFUSALS = {
    "ExpiredToken": CREDENTIALS,
    "InvalidAccessKeyId": CREDENTIALS,
    "InvalidToken": CREDENTIALS,
    "RequestTimeTooSkewed": "the clock of this machine differs too much from that of S3; correct it",
    "SignatureDoesNotMatch": CREDENTIALS,
}
#: A disk with fewer free bytes than this counts as full.
FULL_BELOW = 256 * 1024


@contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Convert errors of the disk or the bucket into a StoreError that names `where`."""
    try:
        yield
    except (OSError, BotoCoreError) as error:
        raise StoreError(f"{where}: {_advice(error)}") from error


@contextmanager
def bucket_errors(where: str) -> Iterator[None]:
    """Convert errors of the S3 client, also after its last retry, into a StoreError that names `where`."""
    # Imported here because only bucket stores need s3fs.
    from s3fs.core import S3_RETRYABLE_ERRORS

    with store_errors(where):
        try:
            yield
        except S3_RETRYABLE_ERRORS as error:
            raise StoreError(f"{where}: {_advice(error)}") from error


@contextmanager
def full_disk_errors(where: str) -> Iterator[None]:
    """Convert the errors that libraries raise if the disk of `where` (a directory) is full into a StoreError.

    Other errors pass unchanged.
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
    # Some errors keep only the text: those of `shutil.copytree` and of safetensors.
    number = error.errno if isinstance(error, OSError) else None
    return number in FULL_NUMBERS or any(os.strerror(known) in str(error) for known in FULL_NUMBERS)


def _is_full(where: str) -> bool:
    # Others do not mention the disk at all: torch only reports a failed write.
    try:
        return shutil.disk_usage(where).free < FULL_BELOW
    except OSError:
        return False


def _advice(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL_NUMBERS:
        return FULL
    if refusal := REFUSALS.get(_s3_code(error)):
        return f"{refusal} ({error})"
    if isinstance(error, PermissionError) or number == errno.EROFS:
        return f"cannot be read or written ({error}); fix its permissions, or choose another store"
    if isinstance(error, NoCredentialsError):
        return "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use another AWS method"
    # Timeouts have no text.
    return without_secrets(str(error)) or "no answer in time; run again"


def _s3_code(error: Exception) -> str:
    """Return the code of a refusal by S3; empty for another error."""
    cause = error.__cause__
    return str(cause.response["Error"]["Code"]) if isinstance(cause, ClientError) else ""
