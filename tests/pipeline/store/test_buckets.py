"""A store in a bucket: exclusive writes, the manifest last, and failures of S3."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from s3fs import S3FileSystem

from pipeline.errors import PrunedError, StoreError
from pipeline.store.artifacts import MANIFEST, Artifact, Store
from pipeline.store.files import backends as files
from pipeline.store.files.backends import BucketFiles, upload_seconds
from tests.support.bucket import Application, Silence, cut, lose, refuse
from tests.support.stores import FILES, find, found_ref, publish, read_all

if TYPE_CHECKING:
    from tests.support.bucket import Bucket

CONFLICT = refuse("409 Conflict", "ConditionalRequestConflict")
SLOW_DOWN = refuse("503 Slow Down", "SlowDown")
RECORD = "deployments/000001.json"
#: Every operation of a bucket, on an existing artifact.
OPERATIONS: dict[str, Callable[[BucketFiles, Artifact, Path], object]] = {
    "GET list": lambda found, made, _: found.list(made.ref),
    "GET sizes": lambda found, made, _: found.sizes(made.ref),
    "GET read": lambda found, made, _: found.read(f"{made.ref}/{MANIFEST}"),
    "GET get": lambda found, made, path: found.get(f"{made.ref}/weights.bin", path / "weights.bin"),
    "PUT create": lambda found, _, __: found.create(RECORD, b"mine"),
    "PUT replace": lambda found, _, __: found.replace(RECORD, b"mine"),
    "HEAD age": lambda found, made, _: found.age(f"{made.ref}/{MANIFEST}"),
    "DELETE delete": lambda found, made, _: found.delete(f"{made.ref}/{MANIFEST}"),
    "PUT put": lambda found, made, path: found.put(made.path, "train/nsmc/k2/1", MANIFEST),
    "POST remove": lambda found, made, _: found.remove(made.ref, MANIFEST),
}
#: Failures that break connections.
pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")]
every_operation = pytest.mark.parametrize("operation", OPERATIONS)


@pytest.fixture
def store(bucket: Bucket, tmp_path: Path) -> Store:
    return Store(bucket.uri, tmp_path / "cache")


@pytest.fixture
def impatient(two_tries: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients with few retries and short timeouts."""
    two_tries["read_timeout"] = 0.1
    monkeypatch.setattr(files, "UPLOAD_SECONDS", 0.3)


@pytest.fixture
def new_clients() -> Iterator[None]:
    """Clients that read AWS's variables again."""
    S3FileSystem.clear_instance_cache()
    yield
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses before retries."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


# --- order of writes ----------------------------------------------------------------------------


def test_the_manifest_is_written_after_all_others(bucket: Bucket, store: Store) -> None:
    made = publish(store)
    written = bucket.asked("PUT")
    assert sorted(written[:-1]) == sorted(f"{made.ref}/{name}" for name in FILES)
    assert written[-1] == f"{made.ref}/{MANIFEST}"
    assert bucket.refs() == sorted(written)


def test_the_manifest_is_what_makes_an_artifact(bucket: Bucket, store: Store) -> None:
    made = publish(store)
    bucket.delete(f"{made.ref}/{MANIFEST}")
    assert find(store) is None


def test_an_upload_that_fails_leaves_no_artifact(bucket: Bucket, store: Store) -> None:
    bucket.fail(refuse("403 Forbidden", "AccessDenied"), "PUT", "/weights.bin")
    with pytest.raises(StoreError, match=r"cannot be read or written \(AccessDenied\)") as caught:
        publish(store)
    assert "s3://" in str(caught.value)
    assert len(bucket.refs()) == len(FILES) - 1
    assert found_ref(store) is None


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"])
def test_refused_credentials_are_named(bucket: Bucket, store: Store, code: str) -> None:
    bucket.put(RECORD, b"")
    bucket.fail(refuse("403 Forbidden", code), "GET", RECORD)
    with pytest.raises(StoreError, match=rf"{RECORD}: S3 does not accept the AWS credentials; .* \(.*{code}.*\)"):
        store.read(RECORD)


def test_refusal_because_of_the_clock_names_it(bucket: Bucket, store: Store) -> None:
    bucket.put(RECORD, b"")
    bucket.fail(refuse("403 Forbidden", "RequestTimeTooSkewed"), "GET", RECORD)
    with pytest.raises(StoreError, match=rf"{RECORD}: the clock of this machine differs too much from that of S3"):
        store.read(RECORD)


def test_the_manifest_is_deleted_before_all_others(bucket: Bucket, store: Store) -> None:
    made = publish(store)
    bucket.fail(refuse("403 Forbidden", "AccessDenied"), "POST", after=1)
    with pytest.raises(StoreError, match="AccessDenied"):
        store.prune(made)
    assert [ref for ref in bucket.refs() if ref.startswith(made.ref)] == [f"{made.ref}/{name}" for name in FILES]
    with pytest.raises(PrunedError):
        store.open(made.ref)
    store.prune(made)
    assert bucket.refs() == [f"pruned/{made.ref}"]


# --- exclusive writes ---------------------------------------------------------------------------


@pytest.mark.parametrize("conflicts", [1, 4])
def test_a_write_in_conflict_is_sent_again(bucket: Bucket, store: Store, pauses: list[float], conflicts: int) -> None:
    bucket.fail(CONFLICT, "PUT", RECORD, times=conflicts)
    assert store.create(RECORD, b"mine")
    assert store.read(RECORD) == b"mine"
    assert bucket.asked("PUT") == [RECORD] * (conflicts + 1)
    assert pauses == [0, 0.1, 0.2, 0.4, 0.8][: conflicts + 1]


def test_a_write_always_in_conflict_is_given_up(bucket: Bucket, store: Store, pauses: list[float]) -> None:
    bucket.fail(CONFLICT, "PUT", RECORD, times=5)
    with pytest.raises(StoreError, match=rf"{RECORD}: S3 reported conflicting writes 5 times; run again") as caught:
        store.create(RECORD, b"mine")
    assert caught.value.retryable
    assert bucket.asked("PUT") == [RECORD] * 5
    assert store.read(RECORD) is None


def test_write_that_lost_a_conflict_returns_false(bucket: Bucket, store: Store, pauses: list[float]) -> None:
    def rival(_: Application, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        bucket.put(RECORD, b"theirs")
        return CONFLICT(_, environ, start)

    bucket.fail(rival, "PUT", RECORD)
    assert not store.create(RECORD, b"mine")
    assert store.read(RECORD) == b"theirs"


@pytest.mark.timeout(60)
def test_record_with_a_lost_response_counts_as_written(bucket: Bucket, two_tries: object, store: Store) -> None:
    bucket.fail(lose, "PUT", RECORD)
    assert store.create(RECORD, b"mine")
    assert bucket.asked("PUT") == [RECORD] * 2
    assert store.read(RECORD) == b"mine"
    assert not store.create(RECORD, b"yours")


def test_record_without_a_response_is_reported(bucket: Bucket, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "UPLOAD_SECONDS", 0.02)
    bucket.fail(Silence(), "PUT", RECORD)
    with pytest.raises(StoreError, match=rf"{RECORD}: no answer in time; run again"):
        store.create(RECORD, b"mine")


# --- bad days -----------------------------------------------------------------------------------


def test_overloaded_s3_is_retried(bucket: Bucket, tmp_path: Path, two_tries: object) -> None:
    store = Store(bucket.uri, tmp_path / "cache")
    faults = [bucket.fail(SLOW_DOWN, *which) for which in (("PUT", "/weights.bin"), ("GET", "/weights.bin"), ("GET",))]
    made = publish(store)
    assert read_all(store.open(made.ref)) == FILES
    assert all(fault.seen > 1 for fault in faults)


@every_operation
def test_persistently_overloaded_s3_is_reported(
    bucket: Bucket, store: Store, tmp_path: Path, two_tries: object, operation: str
) -> None:
    made = publish(store)
    _ = made.path
    fault = bucket.fail(SLOW_DOWN, operation.split()[0], times=9)
    # The response to HEAD has no body that names the error, so s3fs does not try again.
    tries = 1 if operation.startswith("HEAD") else 2
    with pytest.raises(StoreError, match=f"^s3://{bucket.name}/.*(SlowDown|Service Unavailable)") as caught:
        OPERATIONS[operation](BucketFiles(bucket.uri), made, tmp_path)
    assert caught.value.retryable
    assert fault.seen == tries


@every_operation
@pytest.mark.timeout(60)
def test_silent_s3_is_reported(
    bucket: Bucket,
    store: Store,
    tmp_path: Path,
    impatient: None,
    operation: str,
) -> None:
    made = publish(store)
    _ = made.path
    bucket.fail(Silence(), operation.split()[0], times=9)
    with pytest.raises(StoreError, match=f"^s3://{bucket.name}/.*(no answer in time|Read timeout)") as caught:
        OPERATIONS[operation](BucketFiles(bucket.uri), made, tmp_path)
    assert caught.value.retryable


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name.startswith("GET")])
def test_truncated_response_is_retried(
    bucket: Bucket, store: Store, tmp_path: Path, two_tries: object, operation: str
) -> None:
    made = publish(store)
    whole = OPERATIONS[operation](BucketFiles(bucket.uri), made, tmp_path)
    fault = bucket.fail(cut, "GET")
    assert OPERATIONS[operation](BucketFiles(bucket.uri), made, tmp_path) == whole
    assert fault.seen > 1
    if operation == "GET get":
        assert (tmp_path / "weights.bin").read_bytes() == FILES["weights.bin"]


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name.startswith("GET")])
def test_persistently_truncated_response_is_reported(
    bucket: Bucket, store: Store, tmp_path: Path, two_tries: object, operation: str
) -> None:
    made = publish(store)
    bucket.fail(cut, "GET", times=9)
    with pytest.raises(StoreError, match=f"^s3://{bucket.name}/") as caught:
        OPERATIONS[operation](BucketFiles(bucket.uri), made, tmp_path)
    assert caught.value.retryable


def test_every_upload_has_a_timeout(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    client, bounds = store._files._fs, []

    def watch(name: str) -> None:
        call = getattr(client, name)

        def bounded(*arguments: Any, **options: Any) -> Any:
            bounds.append(options.get("timeout"))
            return call(*arguments, **options)

        monkeypatch.setattr(client, name, bounded)

    watch("pipe_file")
    watch("put_file")
    assert store.create(RECORD, b"0" * 65_536)
    store.replace(RECORD, b"0" * 196_608)
    publish(store, files={"weights.bin": b"0" * 131_072})
    record, replaced, weights, manifest = bounds
    assert (record, replaced, weights) == (301, 303, 302)
    assert 300 < manifest < 301


def test_upload_timeout_grows_with_size() -> None:
    # A BERT-base release takes half an hour at 1 Mbit/s; nothing waits forever.
    assert upload_seconds(0) == 300
    assert 30 * 60 < upload_seconds(220_000_000) < 2 * 3600
    assert upload_seconds(65_536) == 301


# --- another bucket, server or user -------------------------------------------------------------


def test_missing_bucket_is_not_an_empty_store(bucket: Bucket, tmp_path: Path) -> None:
    store = Store("s3://mistyped-bucket/models", tmp_path / "cache")
    reads = [lambda: find(store), lambda: store.open("train/nsmc/k1/1"), lambda: store.list("deployments")]
    for use in (*reads, lambda: store._files.get("deployments/000001.json", tmp_path / "record")):
        with pytest.raises(StoreError, match="mistyped-bucket: no such bucket"):
            use()
    for use in (lambda: store.age(RECORD), lambda: store.delete(RECORD)):
        with pytest.raises(StoreError, match="mistyped-bucket: no such bucket"):
            use()
    for write in (lambda: publish(store), lambda: store.create(RECORD, b"{}")):
        with pytest.raises(StoreError, match="mistyped-bucket"):
            write()


def test_unreachable_server_error_is_retryable(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_clients: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    with pytest.raises(StoreError, match="Could not connect") as caught:
        Store(bucket.uri, tmp_path / "cache").list("deployments")
    assert caught.value.retryable


def test_missing_credentials_are_reported(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_clients: None
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="no AWS credentials; set AWS_ACCESS_KEY_ID"):
        Store(bucket.uri, tmp_path / "cache").list("deployments")


def test_another_process_is_seen(bucket: Bucket, store: Store) -> None:
    assert store.list("deployments") == []
    bucket.put(RECORD, b"theirs")
    assert store.list("deployments") == ["000001.json"]
    assert store._files.sizes("deployments") == {"000001.json": 6}
    bucket.put(RECORD, b"changed")
    assert store._files.sizes("deployments") == {"000001.json": 7}
    assert store.list("deployments") == ["000001.json"]
    bucket.put("deployments/000002.json", b"theirs")
    assert store.list("deployments") == ["000001.json", "000002.json"]
    for name in store.list("deployments"):
        bucket.delete(f"deployments/{name}")
    assert store._files.sizes("deployments") == {}


@pytest.mark.parametrize(("written", "age"), [("01:00:00", 7200.0), ("03:00:00", 0.0), ("05:00:00", 0.0)])
def test_age_counts_by_the_clock_of_s3(bucket: Bucket, store: Store, written: str, age: float) -> None:
    def at_three(application: Application, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        def dated(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [(name, value) for name, value in headers if name.lower() not in {"date", "last-modified"}]
            day = "Tue, 03 Feb 2026"
            dates = [("Date", f"{day} 03:00:00 GMT"), ("Last-Modified", f"{day} {written} GMT")]
            return start(status, [*kept, *dates], *rest)

        return application(environ, dated)

    bucket.put(RECORD, b"{}")
    bucket.fail(at_three, "HEAD", RECORD)
    assert store.age(RECORD) == age


def test_file_that_s3_reports_as_absent_counts_as_deleted(bucket: Bucket, store: Store) -> None:
    fault = bucket.fail(refuse("404 Not Found", "NoSuchKey"), "DELETE", RECORD)
    store.delete(RECORD)
    assert fault.seen == 1
