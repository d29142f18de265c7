"""Full and read-only disks: clear errors, and nothing partially written."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from botocore.parsers import ResponseParserError

from pipeline.errors import ArtifactError, StoreError
from pipeline.store.artifacts import Store
from pipeline.store.files.store_errors import bucket_errors, full_disk_errors, store_errors
from tests.support.disks import small_disk
from tests.support.stores import find, found_ref, publish


@pytest.fixture
def full_soon(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with small_disk(tmp_path / "small", 256 * 1024) as disk:
        yield disk.path


def test_full_disk_is_reported_and_leaves_nothing(full_soon: Path, tmp_path: Path) -> None:
    store = Store(str(full_soon / "store"), tmp_path / "cache")
    small = publish(store, files={"weights.bin": b"1" * 1000})
    with pytest.raises(StoreError, match="the disk is full; free some space") as caught:
        publish(store, files={"weights.bin": b"1" * 1_000_000})
    assert caught.value.retryable
    assert found_ref(store) == small.ref
    assert list((full_soon / "store" / ".drafts").iterdir()) == []


def test_full_disk_is_reported_despite_library_errors(full_soon: Path, tmp_path: Path) -> None:
    store = Store(str(full_soon / "store"), tmp_path / "cache")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "large").write_bytes(b"1" * 1_000_000)
    # shutil collects failures in its own error, which has no errno.
    with pytest.raises(StoreError, match="the disk is full"), store.draft() as draft:
        shutil.copytree(tmp_path / "tree", draft / "tree")


def test_record_on_a_full_disk_is_atomic(full_soon: Path, tmp_path: Path) -> None:
    store = Store(str(full_soon / "store"), tmp_path / "cache")
    assert store.create("deployments/000001.json", b"{}")
    with (full_soon / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):  # noqa: PT012
        while True:
            filler.write(b"0" * 4096)
    with pytest.raises(StoreError, match="the disk is full"):
        store.create("deployments/000002.json", b"x" * 8192)
    assert [path.name for path in (full_soon / "store" / "deployments").iterdir()] == ["000001.json"]


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run as a user without write permission (root may write anywhere)."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_read_only_store_is_reported() -> None:
    # Not in tmp_path, whose parents other users may not enter.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o555)
        store = Store(directory, Path(directory) / "cache")
        with unprivileged():
            for write in (lambda: publish(store), lambda: store.create("deployments/000001.json", b"{}")):
                with pytest.raises(StoreError, match=r"cannot be read or written .*fix its permissions"):
                    write()
            assert find(store) is None


def test_file_instead_of_the_store_is_reported(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a directory")
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    reads = [lambda: find(store), lambda: store.list("deployments"), lambda: store.read("x/y"), lambda: store.open("x")]
    for use in (*reads, lambda: publish(store), lambda: store.create("x/y", b"")):
        with pytest.raises(StoreError, match=r"/store\b"):
            use()


# --- what is said -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; .*`saebyeok prune --dry-run`"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full; free some space and run again"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot be read or written .*; fix its permissions"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be read or written .*; fix its permissions"),
        (PermissionError("Forbidden"), r"cannot be read or written \(Forbidden\)"),
        (NoCredentialsError(), "no AWS credentials; set AWS_ACCESS_KEY_ID"),
        (EndpointConnectionError(endpoint_url="http://s3"), 'Could not connect to the endpoint URL: "http://s3"'),
        (OSError(errno.EIO, "Input/output error"), r"\[Errno 5\] Input/output error"),
        (TimeoutError(), "no answer in time; run again"),
    ],
)
def test_store_error_names_place_and_remedy(error: Exception, text: str) -> None:
    with pytest.raises(StoreError, match=f"^s3://b/r: {text}") as caught, store_errors("s3://b/r"):
        raise error
    assert caught.value.retryable
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("ExpiredToken", "S3 does not accept the AWS credentials; correct or renew them"),
        ("InvalidAccessKeyId", "S3 does not accept the AWS credentials; correct or renew them"),
        ("InvalidToken", "S3 does not accept the AWS credentials; correct or renew them"),
        ("SignatureDoesNotMatch", "S3 does not accept the AWS credentials; correct or renew them"),
        ("RequestTimeTooSkewed", "the clock of this machine differs too much from that of S3; correct it"),
        ("AccessDenied", "cannot be read or written"),
    ],
)
def test_refusal_by_s3_names_its_remedy(code: str, advice: str) -> None:
    # As s3fs raises it.
    error = PermissionError("Forbidden")
    error.__cause__ = ClientError({"Error": {"Code": code}}, "PutObject")
    with pytest.raises(StoreError, match=rf"^s3://b/r: {advice} \(Forbidden\)"), store_errors("s3://b/r"):
        raise error


def test_half_an_answer_of_a_bucket_is_a_store_error() -> None:
    error = ResponseParserError("no element found")
    with pytest.raises(StoreError, match=r"^s3://b/r: no element found$") as caught, bucket_errors("s3://b/r"):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("errors", [store_errors, bucket_errors])
def test_other_errors_pass_unchanged(errors: Callable[[str], AbstractContextManager[None]]) -> None:
    with pytest.raises(ValueError, match=r"^mine$"), errors("s3://b/r"):
        raise ValueError("mine")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.ENOSPC, "a text of another language"),
        shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]),
        RuntimeError("I/O error: Disk quota exceeded (os error 122)"),
    ],
)
def test_full_disk_is_recognised_by_number_or_text(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"^{tmp_path}: the disk is full"), full_disk_errors(str(tmp_path)):
        raise error


@pytest.mark.parametrize(("free", "full"), [(256 * 1024 - 1, True), (256 * 1024, False)])
def test_full_disk_is_recognised_by_free_space(
    free: int, full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch's message, which gives no reason.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - free, free))
    expected = StoreError if full else RuntimeError
    with pytest.raises(expected), full_disk_errors(str(tmp_path)):
        raise RuntimeError("unexpected pos 64 vs 0")


def test_an_error_with_its_directory_gone_passes(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^mine$"), full_disk_errors(str(tmp_path / "gone")):
        raise RuntimeError("mine")


def test_saebyeok_error_passes_on_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"^No space"), full_disk_errors(str(tmp_path)):
        raise ArtifactError("No space left on device, says the artifact")
