"""Artifacts on a disk and in a bucket: complete or absent, found by key, and in order."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ArtifactError, NewerFormatError, PrunedError, SettingsError
from pipeline.store.artifacts import MANIFEST, Store
from pipeline.store.formats import Record
from tests.support.stores import FILES, find, found_ref, publish, read_all, run_together

Overwrite = Callable[[str, bytes | None], None]
SetClock = Callable[[timedelta], None]
HOUR = timedelta(hours=1)


@pytest.fixture
def overwrite(uri: str, request: pytest.FixtureRequest) -> Overwrite:
    """Overwrite a file of the store directly; None removes it."""

    def in_bucket(ref: str, content: bytes | None) -> None:
        bucket = request.getfixturevalue("bucket")
        bucket.delete(ref) if content is None else bucket.put(ref, content)

    def on_disk(ref: str, content: bytes | None) -> None:
        (Path(uri) / ref).unlink(missing_ok=True)
        if content is not None:
            (Path(uri) / ref).write_bytes(content)

    return in_bucket if uri.startswith("s3://") else on_disk


class Named(Record):
    """A record in an artifact."""

    name: str


def newest_ref(store: Store) -> str | None:
    artifact = store.newest("train", "nsmc")
    return artifact.ref if artifact else None


def test_published_artifact_is_found_and_read_elsewhere(
    uri: str, open_again: Callable[[], Store], caplog: pytest.LogCaptureFixture
) -> None:
    made = publish(open_again())
    found = find(open_again())
    assert found is not None
    assert (found.ref, found.manifest, found.uri) == (made.ref, made.manifest, f"{uri}/{made.ref}")
    assert read_all(found) == FILES
    assert [item.getMessage() for item in caplog.records if item.levelname == "WARNING"] == []
    assert found.read_json("docs/manifest.json") == {}
    assert found.size == sum(map(len, FILES.values()))
    assert found.manifest.files["weights.bin"].sha256 == hashlib.sha256(FILES["weights.bin"]).hexdigest()
    assert open_again().open(made.ref).manifest.figures == {"seconds": 1.5, "history": [{"loss": 0.5}]}


def test_nothing_is_found_in_an_empty_store(open_again: Callable[[], Store]) -> None:
    store = open_again()
    assert find(store) is None
    assert store.newest("train", "nsmc") is None
    assert store.list("deployments") == []
    with pytest.raises(ArtifactError, match=r"train/nsmc/k1/1: no such artifact"):
        store.open("train/nsmc/k1/1")


def test_inputs_are_opened_by_name(open_again: Callable[[], Store]) -> None:
    store = open_again()
    first = publish(store, "tokens")
    made = publish(store, "k1", tokenized=first)
    assert made.input_ref("tokenized") == first.ref
    assert made.input("tokenized").ref == first.ref
    assert made.input_ref("trained") is None
    with pytest.raises(ArtifactError, match="has no input 'trained'"):
        made.input("trained")


def test_artifact_is_made_from_inputs_of_that_role(store: Store) -> None:
    made = publish(store, "k1", tokenized=publish(store, "tokens"), start=publish(store, "start"))
    inputs = made.manifest.inputs
    started = inputs | {"start": inputs["start"].model_copy(update={"role": "started_from"})}
    artifact = replace(made, manifest=made.manifest.model_copy(update={"inputs": started}))
    assert artifact.made_from == [inputs["tokenized"].ref]


def test_record_of_an_artifact_is_read_or_named(store: Store) -> None:
    files = {"a.json": b'{"name": "a"}', "cut.json": b"{", "new.json": b'{"format": 2, "name": "a"}'}
    made = publish(store, files=files)
    assert made.read_record("a.json", Named) == Named(name="a")
    with pytest.raises(ArtifactError, match=rf"^{made.uri}: cut\.json is missing or damaged .*; run its stage with"):
        made.read_record("cut.json", Named)
    with pytest.raises(NewerFormatError, match=rf"^{made.uri}/new\.json has format 2"):
        made.read_record("new.json", Named)
    for name in files:
        (made.path / name).unlink()
    with pytest.raises(ArtifactError, match=r"a\.json is missing or damaged"):
        made.read_record("a.json", Named)


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
    assert found_ref(store) == newer.ref != older.ref
    assert read_all(older) == FILES
    other_key = publish(store, "a-key-that-sorts-first")
    assert newest_ref(store) == other_key.ref
    assert store.refs("train", "nsmc") == [other_key.ref, newer.ref, older.ref]


def test_a_stage_finds_what_it_made_unchanged(open_again: Callable[[], Store]) -> None:
    store = open_again()
    with store.draft() as draft:
        made = store.publish(
            draft, "train", "nsmc", "k1", run="r", inputs={}, fields={"texts": ("a", "b")}, figures={"r": float("nan")}
        )
    assert made.manifest.fields == {"texts": ["a", "b"]}
    found = store.open(made.ref)
    assert found.manifest.fields == made.manifest.fields
    assert found.manifest.figures["r"] != found.manifest.figures["r"], (
        "a figure that is not a number must not turn into an absent one"
    )


def test_damaged_manifest_raises_and_is_not_reused(
    open_again: Callable[[], Store], overwrite: Overwrite, caplog: pytest.LogCaptureFixture
) -> None:
    made = publish(open_again())
    text = json.dumps(json.loads(made.manifest.model_dump_json()) | {"files": 3})
    for content in (b"", b'{"kind": "tra', text.encode()):
        overwrite(f"{made.ref}/{MANIFEST}", content)
        with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
            open_again().open(made.ref)
        caplog.clear()
        assert find(open_again()) is None
        assert "is damaged" in caplog.text
    assert publish(open_again()).ref == found_ref(open_again())


def test_truncated_file_raises_and_is_not_reused(
    open_again: Callable[[], Store], overwrite: Overwrite, caplog: pytest.LogCaptureFixture
) -> None:
    made = publish(open_again())
    overwrite(f"{made.ref}/weights.bin", FILES["weights.bin"][:-1])
    with pytest.raises(ArtifactError, match=r"weights\.bin is 999 bytes long, not 1000; run its stage again"):
        _ = open_again().open(made.ref).path
    assert find(open_again()) is None
    assert "weights.bin" in caplog.text


def test_changed_file_of_equal_size_raises(open_again: Callable[[], Store], overwrite: Overwrite) -> None:
    made = publish(open_again())
    overwrite(f"{made.ref}/weights.bin", b"\x02" + FILES["weights.bin"][1:])
    with pytest.raises(ArtifactError, match=r"weights\.bin has changed since it was written"):
        _ = open_again().open(made.ref).path


def test_missing_file_raises(open_again: Callable[[], Store], overwrite: Overwrite) -> None:
    made = publish(open_again())
    overwrite(f"{made.ref}/weights.bin", None)
    with pytest.raises(ArtifactError, match=r"weights\.bin is missing"):
        _ = open_again().open(made.ref).path
    assert find(open_again()) is None


def test_file_name_outside_the_artifact_is_refused(open_again: Callable[[], Store], overwrite: Overwrite) -> None:
    made = publish(open_again())
    for name in ("../../escaped", "/etc/passwd", "."):
        document = json.loads(made.manifest.model_dump_json())
        document["files"][name] = {"sha256": "0", "size": 0}
        overwrite(f"{made.ref}/{MANIFEST}", json.dumps(document).encode())
        with pytest.raises(ArtifactError, match="is not inside the artifact"):
            open_again().open(made.ref)


def test_a_file_that_was_never_there_is_named(open_again: Callable[[], Store]) -> None:
    with pytest.raises(
        ArtifactError, match=r"has no file card\.json; it has: docs/manifest\.json, tokenizer\.json, weights\.bin"
    ):
        publish(open_again()).read_json("card.json")


def test_concurrent_writers_of_one_key_all_succeed(open_again: Callable[[], Store]) -> None:
    contents = [bytes([number]) * 1000 for number in range(6)]
    made = run_together([lambda c=content: publish(open_again(), files={"weights.bin": c}) for content in contents])
    assert len({artifact.ref for artifact in made}) == len(contents)
    read = sorted((open_again().open(artifact.ref).path / "weights.bin").read_bytes() for artifact in made)
    assert read == contents
    assert found_ref(open_again()) == max(artifact.ref for artifact in made)


def test_of_many_creators_exactly_one_wins(open_again: Callable[[], Store]) -> None:
    contents = [f"writer {number}".encode() for number in range(8)]
    for number in range(2):
        ref = f"deployments/{number:06d}.json"
        won = run_together([lambda c=content, r=ref: open_again().create(r, c) for content in contents])
        assert won.count(True) == 1
        assert open_again().read(ref) == contents[won.index(True)]
        assert not open_again().create(ref, b"late")
        assert open_again().read(ref) == contents[won.index(True)]


def test_list_omits_hidden_names_and_folder_markers(
    uri: str, open_again: Callable[[], Store], request: pytest.FixtureRequest
) -> None:
    open_again().create("deployments/000001.json", b"{}")
    open_again().create("deployments/.000002.json.ab12", b"{}")
    if uri.startswith("s3://"):
        request.getfixturevalue("bucket").put("deployments/", b"")
    assert open_again().list("deployments") == ["000001.json"]


def test_an_artifact_is_where_it_always_was(uri: str, open_again: Callable[[], Store], overwrite: Overwrite) -> None:
    # Literal names: existing stores must stay readable.
    made = publish(open_again())
    ref = "train/nsmc/k9/20250102T030405678901-ab12"
    for name in ("docs/manifest.json", "tokenizer.json", "weights.bin"):
        assert open_again().create(f"{ref}/{name}", FILES[name])
    assert open_again().create(f"{ref}/manifest.json", made.manifest.model_dump_json().encode())
    found = find(open_again(), "k9")
    assert found is not None
    assert found.ref == ref
    assert read_all(found) == FILES
    assert open_again().create(f"pruned/{ref}", b"2025-02-03")
    overwrite(f"{ref}/manifest.json", None)
    with pytest.raises(PrunedError, match="was pruned on 2025-02-03"):
        open_again().open(ref)


def test_a_stray_file_is_passed_over(open_again: Callable[[], Store]) -> None:
    store = open_again()
    first = publish(store)
    assert store.create("train/nsmc/notes.txt", b"do not delete")
    assert store.create("train/nsmc/k1/zz-notes.txt", b"do not delete")
    assert store.list("train/nsmc/notes.txt") == []
    assert found_ref(store) == newest_ref(store) == first.ref
    assert publish(store).ref == found_ref(store)


def test_small_file_is_replaced_and_deleted(open_again: Callable[[], Store]) -> None:
    store, ref = open_again(), "leases/training/000001.beat"
    for content in (b"first", b"second"):
        store.replace(ref, content)
        assert open_again().read(ref) == content
        assert store.files_below("leases") == [ref]
    for _ in range(2):
        store.delete(ref)
        assert open_again().read(ref) is None
    store.delete(f"{ref}/below")


def test_age_counts_from_the_last_write(uri: str, open_again: Callable[[], Store]) -> None:
    store, ref = open_again(), "leases/training/000001.beat"
    assert store.age(ref) is None
    store.replace(ref, b"beat")
    assert store.age(f"{ref}/below") is None
    age = store.age(ref)
    assert age is not None
    assert 0 <= age < HOUR.total_seconds()
    if uri.startswith("s3://"):
        return
    # By the clock of the file server, which may be ahead or behind.
    now = (Path(uri) / ref).stat().st_mtime
    for hours, expected in ((-2, 2), (2, 0)):
        os.utime(Path(uri) / ref, times=(0, now + hours * HOUR.total_seconds()))
        age = store.age(ref)
        assert age is not None
        assert age // HOUR.total_seconds() == expected
        # A file from the future is new.
        assert (age == 0) == (hours > 0)
    assert store.list("leases/training") == ["000001.beat"]


def test_age_is_measured_in_the_store_and_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, ref = Store(str(tmp_path / "store"), tmp_path / "cache"), "leases/training/000001.beat"
    store.replace(ref, b"beat")
    fstat, seen = os.fstat, list[list[str]]()

    def meanwhile(descriptor: int) -> os.stat_result:
        seen.append(store.list("leases/training"))
        return fstat(descriptor)

    # A disk of this machine has another clock than a file server.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    monkeypatch.setattr(os, "fstat", meanwhile)
    assert store.age(ref) is not None
    assert seen == [["000001.beat"]]


# --- order ------------------------------------------------------------------------------------


def test_an_attempt_is_named_by_its_time(open_again: Callable[[], Store]) -> None:
    before = datetime.now(UTC)
    made = publish(open_again())
    name = made.ref.rsplit("/", 1)[1]
    assert re.fullmatch(r"\d{8}T\d{12}-[0-9a-f]{4}", name)
    named = datetime.strptime(name[:-5] + "+0000", "%Y%m%dT%H%M%S%f%z")
    assert before <= named == made.manifest.created <= datetime.now(UTC)


def test_a_clock_set_back_changes_no_order(open_again: Callable[[], Store], set_clock: SetClock) -> None:
    store = open_again()
    old = publish(store)
    set_clock(-HOUR)
    forced = publish(store)
    assert found_ref(store) == newest_ref(store) == forced.ref
    other_key = publish(store, "a-key-that-sorts-first")
    assert newest_ref(store) == other_key.ref
    assert store.refs("train", "nsmc") == [other_key.ref, forced.ref, old.ref]
    # The time of the clock.
    assert forced.manifest.created < old.manifest.created - HOUR / 2


def test_machines_with_clocks_an_hour_apart_agree(open_again: Callable[[], Store], set_clock: SetClock) -> None:
    made = []
    for error in (HOUR, -HOUR, HOUR, -HOUR):
        set_clock(error)
        made.append(publish(open_again()).ref)
        assert found_ref(open_again()) == made[-1]
    assert open_again().refs("train", "nsmc") == made[::-1]


def test_two_publishers_with_a_clock_set_back_succeed(open_again: Callable[[], Store], set_clock: SetClock) -> None:
    store = open_again()
    publish(store)
    set_clock(-HOUR)
    both = [made.ref for made in run_together([lambda: publish(open_again())] * 2)]
    assert found_ref(store) == max(both)
    assert set(store.refs("train", "nsmc")[:2]) == set(both)
    assert publish(store).ref == found_ref(store) > max(both)


def test_an_unfinished_attempt_keeps_its_place(open_again: Callable[[], Store], overwrite: Overwrite) -> None:
    store = open_again()
    unfinished = publish(store)
    overwrite(f"{unfinished.ref}/{MANIFEST}", None)
    finished = publish(store)
    assert newest_ref(store) == finished.ref > unfinished.ref


# --- deletion -----------------------------------------------------------------------------------


def test_pruned_artifact_is_recorded(open_again: Callable[[], Store]) -> None:
    store = open_again()
    kept, gone = publish(store), publish(store)
    assert gone.path.is_dir()
    store.prune(gone)
    assert found_ref(store) == kept.ref
    assert read_all(kept) == FILES
    assert not gone.store._cache.joinpath("artifacts", gone.ref).exists()
    with pytest.raises(PrunedError, match=rf"was pruned on {datetime.now(UTC):%Y-%m-%d}: no retained deployment"):
        store.open(gone.ref)
    store.prune(gone)
    assert store.list("train/nsmc/k1") == [kept.ref.rsplit("/", 1)[1]]


def test_interrupted_deletion_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    gone = publish(store)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.prune(gone)
    with pytest.raises(PrunedError):
        store.open(gone.ref)
    store.prune(gone)
    assert store.list("train/nsmc") == []


def test_second_deletion_leaves_the_key_to_its_next_artifact(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    gone = publish(store)
    store.prune(gone)
    # Another process is about to publish an artifact with this key.
    key = (tmp_path / "store" / gone.ref).parent
    key.mkdir()
    store.prune(gone)
    assert key.is_dir()


def test_a_key_goes_with_its_last_artifact(open_again: Callable[[], Store]) -> None:
    store = open_again()
    store.prune(publish(store))
    assert store.list("train/nsmc") == []
    assert found_ref(store) is None


# --- drafts -------------------------------------------------------------------------------------


def test_drafts_of_a_directory_are_inside_it(tmp_path: Path) -> None:
    # A rename to another file system would copy.
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    with store.draft() as draft:
        assert draft.parent == tmp_path / "store" / ".drafts"
    with Store("s3://bucket/prefix", tmp_path / "cache").draft() as draft:
        assert draft.parent == tmp_path / "cache" / "drafts"


def test_artifact_is_immutable(tmp_path: Path) -> None:
    made = publish(Store(str(tmp_path / "store"), tmp_path / "cache"))
    with pytest.raises(FrozenInstanceError):
        made.ref = "another"  # type: ignore[misc]


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["gs://bucket/x", "http://example.com/x", "s3://", "s3:///x"])
def test_an_address_of_another_kind_is_refused(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"use .*s3://bucket/prefix") as caught:
        Store(wrong, tmp_path)
    assert not caught.value.retryable


@pytest.mark.parametrize("name", ["store", "a://b"])
def test_a_file_uri_is_a_directory(name: str, tmp_path: Path) -> None:
    made = publish(Store(f"file://{tmp_path}/{name}", tmp_path / "cache"))
    assert (tmp_path / name / made.ref / MANIFEST).is_file()


def test_store_path_does_not_depend_on_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = Store("~/store", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    relative = Store("store", tmp_path / "cache")
    monkeypatch.chdir("/")
    assert publish(relative).ref == found_ref(store)


def test_store_knows_whether_other_hosts_share_it(tmp_path: Path) -> None:
    local, bucket = Store(str(tmp_path / "home" / "store"), tmp_path), Store("s3://home/store", tmp_path)
    assert (local.local, bucket.local) == (True, False)
    assert local.is_below(tmp_path / "home")
    assert not local.is_below(tmp_path / "other")
    assert not bucket.is_below(Path("/"))


def test_addresses_have_one_slash_between_their_parts(tmp_path: Path) -> None:
    for uri in ("s3://bucket/prefix", "s3://bucket/prefix/"):
        assert Store(uri, tmp_path).address("train/nsmc") == "s3://bucket/prefix/train/nsmc"


def test_store_digest_ignores_the_spelling_of_its_address(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    same = [f"{tmp_path}/store", f"{tmp_path}/store/", f"file://{tmp_path}/store", f"{tmp_path}/link"]
    bucket = ["s3://bucket/prefix", "s3://bucket/prefix/"]
    others = [f"{tmp_path}/other", "s3://bucket", "s3://bucket/prefixX"]
    digests = [Store(uri, tmp_path / "cache").digest for uri in [*same, *bucket, *others]]
    assert len(set(digests[:4])) == len(set(digests[4:6])) == 1
    assert len(set(digests)) == 5
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in digests)
