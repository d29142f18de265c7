"""Bucket transfers: downloads are verified and cached; multipart uploads are complete or absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from s3fs import S3FileSystem

from pipeline.errors import ArtifactError, StoreError
from pipeline.store.artifacts import MANIFEST, Store
from tests.support.bucket import Application, cut, lose, refuse
from tests.support.stores import FILES, found_ref, publish, read_all, run_together

if TYPE_CHECKING:
    from tests.support.bucket import Bucket

#: Several parts of `PART` bytes, the last one shorter.
LARGE = {"model.onnx": bytes(range(256)) * 10, "weights.bin": b"small"}
PART = 1000
#: Failures that break connections.
pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")]
SLOW = refuse("503 Slow Down", "SlowDown")


@pytest.fixture
def store(bucket: Bucket, tmp_path: Path) -> Store:
    return Store(bucket.uri, tmp_path / "cache")


@pytest.fixture
def in_parts(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_tries: object) -> Store:
    """A store whose client uploads in parts from 2,000 bytes (instead of 100 MB) and tries twice."""
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda size, chunksize: PART)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", PART)
    monkeypatch.setattr(S3FileSystem, "default_block_size", PART)
    return Store(bucket.uri, tmp_path / "cache")


def uploads(bucket: Bucket) -> list[str]:
    """Return the keys of uploads that are neither completed nor aborted."""
    return [item["Key"] for item in bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])]


# --- fetching -----------------------------------------------------------------------------------


def test_cached_artifact_is_not_downloaded_again(bucket: Bucket, store: Store, tmp_path: Path) -> None:
    made = publish(store)
    first = store.open(made.ref).path
    assert first == tmp_path / "cache" / "artifacts" / made.ref
    for name in FILES:
        bucket.delete(f"{made.ref}/{name}")
    again = store.open(made.ref)
    assert again.path == first
    assert read_all(again) == FILES


@pytest.mark.parametrize("content", [b"bad", b"\xff" + FILES["weights.bin"][1:], None])
def test_a_damaged_copy_is_fetched_again(store: Store, content: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    made = publish(store)
    copy = store.open(made.ref).path / "weights.bin"
    copy.unlink()
    if content is not None:
        copy.write_bytes(content)
    assert read_all(store.open(made.ref)) == FILES
    assert "downloading again" in caplog.text


def test_damaged_bucket_file_is_not_cached(bucket: Bucket, store: Store, tmp_path: Path) -> None:
    made = publish(store)
    bucket.put(f"{made.ref}/weights.bin", b"\xff" + FILES["weights.bin"][1:])
    with pytest.raises(ArtifactError, match=rf"{made.uri}: file weights\.bin has changed"):
        _ = store.open(made.ref).path
    assert not (tmp_path / "cache" / "artifacts" / made.ref).exists()
    assert list((tmp_path / "cache" / "drafts").iterdir()) == []


def test_a_file_that_is_gone_is_named(bucket: Bucket, store: Store) -> None:
    made = publish(store)
    bucket.delete(f"{made.ref}/tokenizer.json")
    with pytest.raises(ArtifactError, match=rf"{made.uri}: file tokenizer\.json is missing; run its stage again"):
        _ = store.open(made.ref).path
    assert f"{made.ref}/weights.bin" not in bucket.asked("GET"), "the large file is not downloaded in vain"


def test_many_readers_may_fetch_at_once(bucket: Bucket, store: Store, tmp_path: Path) -> None:
    made = publish(store)
    # Not `path`: Python 3.11 locks cached properties.
    paths = run_together([lambda: Store(bucket.uri, tmp_path / "elsewhere").fetch(made)] * 6)
    assert len(set(paths)) == 1
    assert (paths[0] / "weights.bin").read_bytes() == FILES["weights.bin"]
    assert list((tmp_path / "elsewhere" / "drafts").iterdir()) == []


def test_concurrent_download_uses_the_existing_copy(bucket: Bucket, store: Store, tmp_path: Path) -> None:
    made = publish(store)
    first: list[Path] = []

    def overtaken(application: Application, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        first.append(store.fetch(made))
        (first[0] / "mark").touch()
        return application(environ, start)

    bucket.fail(overtaken, "GET", "/weights.bin")
    assert store.fetch(made) == first[0]
    assert (first[0] / "mark").exists()
    assert list((tmp_path / "cache" / "drafts").iterdir()) == []


def test_unwritable_cache_is_reported(store: Store, tmp_path: Path) -> None:
    made = publish(store)
    target = tmp_path / "cache" / "artifacts" / made.ref
    target.parent.mkdir(parents=True)
    target.write_text("a file in its place")
    with pytest.raises(StoreError, match=f"^{target}: .*Not a directory"):
        _ = store.open(made.ref).path


# --- in parts -----------------------------------------------------------------------------------


def test_a_large_file_arrives_whole(bucket: Bucket, in_parts: Store) -> None:
    made = publish(in_parts, files=LARGE)
    assert bucket.asked("PUT").count(f"{made.ref}/model.onnx") == 3
    assert bucket.asked("PUT")[-1] == f"{made.ref}/{MANIFEST}"
    assert read_all(in_parts.open(made.ref)) == LARGE
    assert uploads(bucket) == []


def test_a_large_file_whose_part_fails_leaves_nothing(bucket: Bucket, in_parts: Store) -> None:
    bucket.fail(refuse("403 Forbidden", "AccessDenied"), "PUT", "/model.onnx", after=2)
    with pytest.raises(StoreError, match="AccessDenied"):
        publish(in_parts, files=LARGE)
    assert bucket.refs() == []
    assert uploads(bucket) == []
    assert found_ref(in_parts) is None


def test_multipart_upload_to_lost_server_leaves_no_artifact(bucket: Bucket, in_parts: Store) -> None:
    for method in ("PUT", "DELETE"):
        bucket.fail(SLOW, method, "/model.onnx", times=9, after=method == "PUT")
    with pytest.raises(StoreError, match="SlowDown"):
        publish(in_parts, files=LARGE)
    bucket.server.heal()
    assert bucket.refs() == []
    assert len(uploads(bucket)) == 1
    assert found_ref(in_parts) is None


def test_parts_are_sent_again(bucket: Bucket, in_parts: Store) -> None:
    faults = [bucket.fail(answer, "PUT", "/model.onnx", after=after) for after, answer in enumerate((lose, SLOW))]
    made = publish(in_parts, files=LARGE)
    assert read_all(in_parts.open(made.ref)) == LARGE
    assert all(fault.seen > 3 for fault in faults)


def test_truncated_large_download_is_not_cached(bucket: Bucket, in_parts: Store, tmp_path: Path) -> None:
    made = publish(in_parts, files=LARGE)
    bucket.fail(cut, "GET", "/model.onnx", times=9, after=1)
    with pytest.raises(StoreError, match=rf"^{made.uri}/model\.onnx: "):
        _ = in_parts.open(made.ref).path
    bucket.server.heal()
    assert read_all(in_parts.open(made.ref)) == LARGE
