"""Artifacts are whole or absent, on a disk and in a bucket, whatever is killed, full or damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import MANIFEST, STALE_DRAFT_SECONDS, Artifact, Store
from pipeline.errors import ArtifactError, SettingsError, StoreError
from pipeline.manifest import Manifest, make_key
from pipeline.settings import ROOT
from tests.disks import small_disk

FILES = {"weights.bin": b"\x00\x01" * 500, "docs/index.html": b"<p>ok</p>", "docs/manifest.json": b"{}"}


def publish(store: Store, key: str = "k1", files: dict[str, bytes] = FILES, **inputs: Artifact) -> Artifact:
    with store.draft() as draft:
        for name, content in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(content)
        return store.publish(
            draft,
            "train",
            "nsmc",
            key,
            run="test",
            inputs={name: {"ref": item.ref, "key": item.key} for name, item in inputs.items()},
            fields={"seed": 7},
            figures={"seconds": 1.5, "history": [{"loss": 0.5}]},
        )


def find(store: Store, key: str = "k1", **inputs: Artifact) -> Artifact | None:
    return store.find("train", "nsmc", key, inputs)


@pytest.fixture(params=["disk", "bucket"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store is: a directory, and a bucket."""
    if request.param == "disk":
        return str(tmp_path / "store")
    bucket: Any = request.getfixturevalue("bucket")
    return str(bucket.uri)


@pytest.fixture
def open_again(uri: str, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same store as another process on the same machine would."""
    return lambda: Store(uri, tmp_path / "cache")


# --- what both kinds of store promise ---------------------------------------------------------


def test_what_is_published_is_found_and_read_elsewhere(uri: str, open_again: Callable[[], Store]) -> None:
    made = publish(open_again())
    found = find(open_again())
    assert found is not None
    assert (found.ref, found.manifest, found.uri) == (made.ref, made.manifest, f"{uri}/{made.ref}")
    assert {name: (found.path / name).read_bytes() for name in FILES} == FILES
    assert found.read_json("docs/manifest.json") == {}
    assert found.manifest.files["weights.bin"].sha256 == hashlib.sha256(FILES["weights.bin"]).hexdigest()
    assert open_again().open(made.ref).figures == {"seconds": 1.5, "history": [{"loss": 0.5}]}


def test_nothing_is_found_in_an_empty_store(open_again: Callable[[], Store]) -> None:
    store = open_again()
    assert find(store) is None
    assert store.newest("train", "nsmc") is None
    assert store.list("deployments") == []
    with pytest.raises(ArtifactError, match=r"train/nsmc/k1/1: no such artifact"):
        store.open("train/nsmc/k1/1")


def test_only_the_same_key_and_inputs_are_found(open_again: Callable[[], Store]) -> None:
    store = open_again()
    first, second = publish(store, "tokens"), publish(store, "tokens")
    made = publish(store, "k1", tokenized=first)
    again = find(store, "k1", tokenized=first)
    assert again is not None
    assert again.ref == made.ref
    assert find(store, "k1", tokenized=second) is None
    assert find(store, "k1", other=first) is None
    assert find(store, "k1") is None
    assert find(store, "k2", tokenized=first) is None


def test_the_newest_attempt_wins(open_again: Callable[[], Store]) -> None:
    store = open_again()
    older, newer = publish(store), publish(store, files={"weights.bin": b"new"})
    found = find(store)
    assert found is not None
    assert found.ref == newer.ref != older.ref
    assert (older.path / "weights.bin").read_bytes() == FILES["weights.bin"]
    other_key = publish(store, "a-key-that-sorts-first")
    newest = store.newest("train", "nsmc")
    assert newest is not None
    assert newest.ref == other_key.ref


def test_a_stage_finds_what_it_made_unchanged(open_again: Callable[[], Store]) -> None:
    store = open_again()
    with store.draft() as draft:
        made = store.publish(
            draft, "train", "nsmc", "k1", run="r", inputs={}, fields={"texts": ("a", "b")}, figures={"r": float("nan")}
        )
    assert made.manifest.fields == {"texts": ["a", "b"]}
    found = store.open(made.ref)
    assert found.manifest.fields == made.manifest.fields
    assert found.figures["r"] != found.figures["r"], "a figure that is not a number must not turn into an absent one"


def test_a_damaged_manifest_is_loud_and_its_stage_runs_again(
    uri: str, open_again: Callable[[], Store], request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    made = publish(open_again())
    text = json.dumps(json.loads(made.manifest.model_dump_json()) | {"files": 3})
    for content in (b"", b'{"kind": "tra', text.encode()):
        overwrite(uri, request, f"{made.ref}/{MANIFEST}", content)
        with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
            open_again().open(made.ref)
        caplog.clear()
        assert find(open_again()) is None
        assert "is damaged" in caplog.text
    assert publish(open_again()).ref == found_ref(open_again())


def test_a_truncated_file_is_loud_and_its_stage_runs_again(
    uri: str, open_again: Callable[[], Store], request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    made = publish(open_again())
    overwrite(uri, request, f"{made.ref}/weights.bin", FILES["weights.bin"][:-1])
    with pytest.raises(ArtifactError, match=r"weights\.bin is 999 bytes long, not 1000; run its stage again"):
        _ = open_again().open(made.ref).path
    assert find(open_again()) is None
    assert "weights.bin" in caplog.text


def test_a_changed_file_of_the_same_size_is_loud(
    uri: str, open_again: Callable[[], Store], request: pytest.FixtureRequest
) -> None:
    made = publish(open_again())
    overwrite(uri, request, f"{made.ref}/weights.bin", b"\x02" + FILES["weights.bin"][1:])
    with pytest.raises(ArtifactError, match=r"weights\.bin has changed since it was made"):
        _ = open_again().open(made.ref).path


def test_a_missing_file_is_loud(uri: str, open_again: Callable[[], Store], request: pytest.FixtureRequest) -> None:
    made = publish(open_again())
    overwrite(uri, request, f"{made.ref}/weights.bin", None)
    with pytest.raises(ArtifactError, match=r"weights\.bin is missing"):
        _ = open_again().open(made.ref).path
    assert find(open_again()) is None


def test_a_file_name_cannot_lead_out_of_an_artifact(
    uri: str, open_again: Callable[[], Store], request: pytest.FixtureRequest
) -> None:
    made = publish(open_again())
    for name in ("../../escaped", "/etc/passwd", "."):
        document = json.loads(made.manifest.model_dump_json())
        document["files"][name] = {"sha256": "0", "size": 0}
        overwrite(uri, request, f"{made.ref}/{MANIFEST}", json.dumps(document).encode())
        with pytest.raises(ArtifactError, match="leads out of the artifact"):
            open_again().open(made.ref)


def test_a_file_that_was_never_there_is_named(open_again: Callable[[], Store]) -> None:
    with pytest.raises(ArtifactError, match=r"has no file card\.json; it has: docs/index\.html"):
        publish(open_again()).read_json("card.json")


def test_many_writers_of_one_key_leave_one_whole_artifact_each(open_again: Callable[[], Store]) -> None:
    contents = [bytes([number]) * 1000 for number in range(6)]
    made = run_together([lambda c=content: publish(open_again(), files={"weights.bin": c}) for content in contents])
    assert len({artifact.ref for artifact in made}) == len(contents)
    read = sorted((open_again().open(artifact.ref).path / "weights.bin").read_bytes() for artifact in made)
    assert read == contents
    assert found_ref(open_again()) == max(artifact.ref for artifact in made)


def test_of_many_creators_exactly_one_wins(open_again: Callable[[], Store]) -> None:
    contents = [f"writer {number}".encode() for number in range(8)]
    for number in range(5):
        ref = f"deployments/{number:06d}.json"
        won = run_together([lambda c=content, r=ref: open_again().create(r, c) for content in contents])
        assert won.count(True) == 1
        assert open_again().read(ref) == contents[won.index(True)]
        assert not open_again().create(ref, b"late")
        assert open_again().read(ref) == contents[won.index(True)]


def test_hidden_names_and_the_folders_own_marker_are_not_listed(
    uri: str, open_again: Callable[[], Store], request: pytest.FixtureRequest
) -> None:
    open_again().create("deployments/000001.json", b"{}")
    open_again().create("deployments/.000002.json.ab12", b"{}")
    if uri.startswith("s3://"):
        request.getfixturevalue("bucket").put("deployments/", b"")
    assert open_again().list("deployments") == ["000001.json"]


# --- kill -9 -----------------------------------------------------------------------------------

#: For each number that it reads, a copy of itself publishes three files and kills itself just before the n-th time that
#: it opens, makes or renames something of the store, or (bucket) sends something; how the copy ended is written.
PUBLISHER = """
import os, signal, sys
from pathlib import Path
import s3fs
from pipeline.artifacts import Store

def publish(uri, cache, point):
    seen = 0

    def hook(event, args):
        nonlocal seen
        if event in ("open", "os.mkdir", "os.rename") and "store" in str(args[0]) or "drafts" in str(args[0:1]):
            seen += 1
            if seen == point:
                os.kill(os.getpid(), signal.SIGKILL)

    store = Store(uri, cache)
    with store.draft() as draft:
        for name in ("a.bin", "b.bin", "c.bin"):
            (draft / name).write_bytes(name.encode() * 100)
        sys.addaudithook(hook)
        store.publish(draft, "train", "nsmc", "k1", run="killed", inputs={}, fields={}, figures={})

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            publish(sys.argv[1], Path(sys.argv[2]), int(line))
            code = 0
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_publisher_killed_at_any_point_leaves_a_whole_artifact_or_none(
    uri: str, open_again: Callable[[], Store], tmp_path: Path
) -> None:
    outcomes = []
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, uri, str(tmp_path / "cache")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as publisher:
        assert publisher.stdin is not None
        assert publisher.stdout is not None
        for point in range(1, 60):
            before = found_ref(open_again())
            publisher.stdin.write(f"{point}\n")
            publisher.stdin.flush()
            code = int(publisher.stdout.readline())
            for attempt in open_again().list("train/nsmc/k1"):
                if open_again().read(f"train/nsmc/k1/{attempt}/{MANIFEST}") is not None:
                    artifact = open_again().open(f"train/nsmc/k1/{attempt}")
                    assert {path.name for path in artifact.path.iterdir()} >= {"a.bin", "b.bin", "c.bin"}
            outcomes.append(found_ref(open_again()) != before)
            if code == 0:
                break
            assert code == -signal.SIGKILL
    assert len(outcomes) > 6, "the hook saw too little to mean anything"
    assert not any(outcomes[:5]), "an artifact appeared before its manifest was in place"
    assert outcomes[-1]
    survivor = find(open_again())
    assert survivor is not None
    assert (survivor.path / "a.bin").read_bytes() == b"a.bin" * 100


def test_in_a_bucket_the_manifest_is_what_makes_an_artifact(bucket: Any, tmp_path: Path) -> None:
    made = publish(Store(bucket.uri, tmp_path / "cache"))
    assert bucket.refs() == sorted(f"{made.ref}/{name}" for name in (*FILES, MANIFEST))
    bucket.delete(f"{made.ref}/{MANIFEST}")
    assert find(Store(bucket.uri, tmp_path / "cache")) is None


def test_drafts_of_killed_runs_go_and_those_of_running_ones_stay(open_again: Callable[[], Store]) -> None:
    store = open_again()
    with store.draft() as running:
        (running / "checkpoint").mkdir()
        parent = running.parent
        old, busy = parent / "killed", parent / "long-at-work"
        for directory in (old, busy):
            (directory / "deep").mkdir(parents=True)
            (directory / "deep" / "weights.bin").write_bytes(b"half")
            long_ago = time.time() - STALE_DRAFT_SECONDS - 60
            for path in (directory / "deep" / "weights.bin", directory / "deep", directory):
                os.utime(path, (long_ago, long_ago))
        os.utime(busy / "deep" / "weights.bin")
        publish(store)
        assert running.is_dir()
        assert not old.exists()
        assert busy.exists()


def test_a_draft_that_is_not_published_goes(open_again: Callable[[], Store]) -> None:
    with open_again().draft() as draft:
        (draft / "half.bin").write_bytes(b"half")
    assert list(draft.parent.iterdir()) == []


# --- disks ---------------------------------------------------------------------------------------


@pytest.fixture
def full_soon(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with small_disk(tmp_path / "small", 256 * 1024) as disk:
        yield disk.path


def test_a_full_disk_is_said_and_leaves_nothing(full_soon: Path, tmp_path: Path) -> None:
    store = Store(str(full_soon / "store"), tmp_path / "cache")
    small = publish(store, files={"weights.bin": b"1" * 1000})
    with pytest.raises(StoreError, match="the disk is full; free some space") as caught:
        publish(store, files={"weights.bin": b"1" * 1_000_000})
    assert caught.value.retryable
    found = find(store)
    assert found is not None
    assert found.ref == small.ref
    assert list((full_soon / "store" / ".drafts").iterdir()) == []


def test_a_full_disk_is_said_also_where_a_library_hides_it(full_soon: Path, tmp_path: Path) -> None:
    store = Store(str(full_soon / "store"), tmp_path / "cache")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "large").write_bytes(b"1" * 1_000_000)
    # shutil collects what went wrong in an error of its own, without a number.
    with pytest.raises(StoreError, match="the disk is full"), store.draft() as draft:
        shutil.copytree(tmp_path / "tree", draft / "tree")


def test_other_errors_in_a_draft_pass_as_they_are(open_again: Callable[[], Store]) -> None:
    with pytest.raises(RuntimeError, match="not about disks"), open_again().draft():
        raise RuntimeError("not about disks")


def test_a_record_on_a_full_disk_is_not_half_there(full_soon: Path, tmp_path: Path) -> None:
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
    """As a user who may write nothing here (root may write anywhere)."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_store_that_may_not_be_written_is_said() -> None:
    # Not in tmp_path, whose parents nobody else may enter.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o555)
        store = Store(directory, Path(directory) / "cache")
        with unprivileged():
            for write in (lambda: publish(store), lambda: store.create("deployments/000001.json", b"{}")):
                with pytest.raises(StoreError, match=r"may not be read or written .*check the rights"):
                    write()
            assert find(store) is None


def test_a_file_where_the_store_should_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a directory")
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    for use in (lambda: publish(store), lambda: find(store), lambda: store.create("x/y", b"")):
        with pytest.raises(StoreError, match="store"):
            use()


@pytest.mark.parametrize("wrong", ["gs://bucket/x", "http://example.com/x", "s3://", "s3:///x"])
def test_an_address_of_another_kind_is_refused(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"use .*s3://bucket/prefix") as caught:
        Store(wrong, tmp_path)
    assert not caught.value.retryable


def test_a_file_uri_is_a_directory(tmp_path: Path) -> None:
    made = publish(Store(f"file://{tmp_path}/store", tmp_path / "cache"))
    assert found_ref(Store(str(tmp_path / "store"), tmp_path / "cache")) == made.ref


# --- buckets -----------------------------------------------------------------------------------


def test_a_store_is_told_from_others_whatever_way_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    same = [f"{tmp_path}/store", f"{tmp_path}/store/", f"file://{tmp_path}/store", f"{tmp_path}/link"]
    bucket = ["s3://bucket/prefix", "s3://bucket/prefix/"]
    digests = [Store(uri, tmp_path / "cache").digest for uri in [*same, *bucket, f"{tmp_path}/other", "s3://bucket"]]
    assert len(set(digests[:4])) == len(set(digests[4:6])) == 1
    assert len(set(digests)) == 4
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in digests)


def test_what_was_fetched_is_not_fetched_again(bucket: Any, tmp_path: Path) -> None:
    made = publish(Store(bucket.uri, tmp_path / "cache"))
    first = Store(bucket.uri, tmp_path / "cache").open(made.ref).path
    for name in FILES:
        bucket.delete(f"{made.ref}/{name}")
    again = Store(bucket.uri, tmp_path / "cache").open(made.ref)
    assert again.path == first
    assert (again.path / "weights.bin").read_bytes() == FILES["weights.bin"]


def test_a_damaged_copy_is_fetched_again(bucket: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = publish(Store(bucket.uri, tmp_path / "cache"))
    copy = Store(bucket.uri, tmp_path / "cache").open(made.ref).path
    (copy / "weights.bin").write_bytes(b"bad")
    again = Store(bucket.uri, tmp_path / "cache").open(made.ref).path
    assert (again / "weights.bin").read_bytes() == FILES["weights.bin"]
    assert "fetched again" in caplog.text


def test_many_readers_may_fetch_at_once(bucket: Any, tmp_path: Path) -> None:
    made = publish(Store(bucket.uri, tmp_path / "cache"))
    readers = [lambda: Store(bucket.uri, tmp_path / "elsewhere").open(made.ref).path for _ in range(6)]
    paths = run_together(readers)
    assert len(set(paths)) == 1
    assert (paths[0] / "weights.bin").read_bytes() == FILES["weights.bin"]
    assert list((tmp_path / "elsewhere" / "drafts").iterdir()) == []


def test_a_record_whose_answer_was_lost_is_ones_own(bucket: Any, tmp_path: Path) -> None:
    store = Store(bucket.uri, tmp_path / "cache")
    bucket.lose_answers(1)
    assert store.create("deployments/000001.json", b"mine")
    assert store.read("deployments/000001.json") == b"mine"
    assert not store.create("deployments/000001.json", b"yours")


def test_a_bucket_that_is_not_there_is_not_an_empty_store(bucket: Any, tmp_path: Path) -> None:
    store = Store("s3://mistyped-bucket/models", tmp_path / "cache")
    for use in (lambda: find(store), lambda: store.open("train/nsmc/k1/1"), lambda: store.list("deployments")):
        with pytest.raises(StoreError, match="mistyped-bucket: no such bucket"):
            use()
    with pytest.raises(StoreError, match="mistyped-bucket"):
        publish(store)


def test_a_server_that_does_not_answer_may_be_tried_again(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match="Could not connect") as caught:
        Store(bucket.uri, tmp_path / "cache").list("deployments")
    assert caught.value.retryable


def test_missing_credentials_are_said(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="no AWS credentials; set AWS_ACCESS_KEY_ID"):
        Store(bucket.uri, tmp_path / "cache").list("deployments")


# --- keys ----------------------------------------------------------------------------------------


def test_a_key_is_decided_by_all_that_it_is_made_of() -> None:
    base = make_key("train", 1, {"epochs": 1, "texts": ("a", "b")}, {"tokenized": "k"})
    assert len(base) == 16
    assert base == make_key("train", 1, {"texts": ["a", "b"], "epochs": 1}, {"tokenized": "k"})
    others = {
        make_key("tokenize", 1, {"epochs": 1, "texts": ("a", "b")}, {"tokenized": "k"}),
        make_key("train", 2, {"epochs": 1, "texts": ("a", "b")}, {"tokenized": "k"}),
        make_key("train", 1, {"epochs": 2, "texts": ("a", "b")}, {"tokenized": "k"}),
        make_key("train", 1, {"epochs": 1, "texts": ("b", "a")}, {"tokenized": "k"}),
        make_key("train", 1, {"epochs": 1, "texts": ("a", "b")}, {"tokenized": "l"}),
        make_key("train", 1, {"epochs": 1, "texts": ("a", "b")}, {"other": "k"}),
    }
    assert len(others) == 6
    assert base not in others


def test_a_key_is_the_same_in_every_process() -> None:
    code = "from pipeline.manifest import make_key; print(make_key('t', 1, {'b': 1, 'a': [1.5, None]}, {'x': 'y'}))"
    keys = set()
    for seed in ("1", "2"):
        environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        keys.add(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)
    assert len(keys) == 1


def test_a_value_without_a_stable_text_cannot_be_part_of_a_key() -> None:
    with pytest.raises(TypeError, match="set cannot be part of a key"):
        make_key("train", 1, {"labels": {"a", "b"}}, {})
    assert make_key("train", 1, {"base": Path("models/x")}, {}) == make_key("train", 1, {"base": "models/x"}, {})


def test_a_manifest_says_which_code_made_it(tmp_path: Path) -> None:
    made = publish(Store(str(tmp_path / "store"), tmp_path / "cache"))
    assert isinstance(made.manifest, Manifest)
    assert made.manifest.code.startswith("0.1.0")
    assert made.manifest.run == "test"


# --- helpers -------------------------------------------------------------------------------------


def found_ref(store: Store) -> str | None:
    artifact = find(store)
    return artifact.ref if artifact else None


def overwrite(uri: str, request: pytest.FixtureRequest, ref: str, content: bytes | None) -> None:
    """Damage the store behind its back; None removes."""
    if uri.startswith("s3://"):
        bucket = request.getfixturevalue("bucket")
        bucket.delete(ref) if content is None else bucket.put(ref, content)
        return
    path = Path(uri) / ref
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def run_together(calls: list[Callable[[], Any]]) -> list[Any]:
    """Results of calls that start at the same moment, in threads."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [errno.EIO] * len(calls)

    def run(number: int) -> None:
        barrier.wait()
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
