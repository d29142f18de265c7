"""The log of deployments: append-only, one winner a number, and loud where it is damaged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ArtifactError, ConflictError, StoreError
from pipeline.settings import ROOT
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import read_card

WRITERS = 6


@pytest.fixture(params=["disk", "bucket"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens one store, on a disk and in a bucket, as another process would."""
    uri = str(tmp_path / "store") if request.param == "disk" else request.getfixturevalue("bucket").uri
    return lambda: Store(uri, tmp_path / "cache")


def make_release(store: Store, key: str = "k1", card: bytes = b"{}") -> Artifact:
    with store.draft() as draft:
        (draft / "card.json").write_bytes(card)
        return store.publish(draft, "release", "nsmc", key, run="test", inputs={}, fields={}, figures={})


def test_before_the_first_deployment_there_is_no_champion(open_store: Callable[[], Store]) -> None:
    log = DeploymentLog(open_store())
    assert log.numbers() == []
    assert log.latest() is None
    assert log.champion("nsmc") is None


def test_the_highest_number_is_live_and_the_log_is_history(open_store: Callable[[], Store]) -> None:
    store = open_store()
    first, second = make_release(store, "k1"), make_release(store, "k2")
    log = DeploymentLog(store)
    log.append({"nsmc": first.ref}, after=0, run="night-1", reason="first")
    made = log.append({"nsmc": second.ref}, after=1, run="night-2", reason="better")
    elsewhere = DeploymentLog(open_store())
    assert elsewhere.numbers() == [1, 2]
    assert elsewhere.latest() == made
    assert elsewhere.get(1).releases == {"nsmc": first.ref}
    assert (elsewhere.get(1).run, elsewhere.get(1).reason) == ("night-1", "first")
    champion = elsewhere.champion("nsmc")
    assert champion is not None
    assert champion.ref == second.ref
    assert elsewhere.champion("klue-sts") is None


def test_a_late_run_cannot_deploy_over_another(open_store: Callable[[], Store]) -> None:
    log = DeploymentLog(open_store())
    log.append({"nsmc": "release/nsmc/a/1"}, after=0, run="quick", reason="r")
    log.append({"nsmc": "release/nsmc/b/1"}, after=1, run="quick", reason="r")
    for after in (0, 1, 5):
        with pytest.raises(ConflictError, match="another run deployed meanwhile") as caught:
            log.append({"nsmc": "release/nsmc/late/1"}, after=after, run="late", reason="r")
        assert not caught.value.retryable
    assert log.numbers() == [1, 2]
    latest = log.latest()
    assert latest is not None
    assert latest.run == "quick"


def test_a_number_that_does_not_exist_is_said(open_store: Callable[[], Store]) -> None:
    log = DeploymentLog(open_store())
    log.append({}, after=0, run="r", reason="r")
    with pytest.raises(ArtifactError, match=r"no deployment 7; there are: \[1\]"):
        log.get(7)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"number": 2}', b"[]", b'\xff\xfe{"number": 2}'],
    ids=["empty", "cut off", "incomplete", "list", "bytes"],
)
def test_a_damaged_record_is_loud(open_store: Callable[[], Store], content: bytes) -> None:
    store = open_store()
    log = DeploymentLog(store)
    log.append({"nsmc": make_release(store).ref}, after=0, run="r", reason="r")
    store.create("deployments/000002.json", content)
    for use in (log.latest, lambda: log.champion("nsmc"), lambda: log.get(2)):
        with pytest.raises(ArtifactError, match=r"deployments/000002\.json is damaged"):
            use()
    assert log.get(1).number == 1


def test_a_record_under_another_number_is_damaged(open_store: Callable[[], Store]) -> None:
    store = open_store()
    log = DeploymentLog(store)
    record = log.append({}, after=0, run="r", reason="r")
    store.create("deployments/000002.json", record.model_dump_json().encode())
    with pytest.raises(ArtifactError, match=r"000002\.json is damaged: it is the record of 1"):
        log.latest()


def test_a_champion_that_is_named_and_missing_is_loud(open_store: Callable[[], Store]) -> None:
    log = DeploymentLog(open_store())
    log.append({"nsmc": "release/nsmc/gone/1"}, after=0, run="r", reason="r")
    with pytest.raises(ArtifactError, match=r"release/nsmc/gone/1: no such artifact"):
        log.champion("nsmc")


def test_a_log_in_a_bucket_that_is_not_there_is_loud(bucket: Any, tmp_path: Path) -> None:
    # Not "no champion yet": a gate would let anything pass.
    log = DeploymentLog(Store("s3://mistyped-bucket/models", tmp_path))
    with pytest.raises(StoreError, match="no such bucket"):
        log.champion("nsmc")


def test_files_that_are_no_records_are_passed_over(open_store: Callable[[], Store]) -> None:
    store = open_store()
    log = DeploymentLog(store)
    log.append({}, after=0, run="r", reason="r")
    for stray in (".000009.json.ab12", "000009.json~", "notes.txt", "9.json"):
        store.create(f"deployments/{stray}", b"stray")
    assert log.numbers() == [1]
    assert log.append({}, after=1, run="r", reason="r").number == 2


#: Deploys once after every number, as often as it takes until somebody wrote the last one.
WRITER = """
import sys, time
from pathlib import Path
from pipeline.store.artifacts import Store
from pipeline.errors import ConflictError
from pipeline.store.deployments import DeploymentLog

uri, cache, name, last = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
log = DeploymentLog(Store(uri, cache))
log.numbers()
(cache / f"ready-{name}").touch()
while not (cache / "go").exists():
    time.sleep(0.005)
for number in range(last):
    try:
        log.append({"nsmc": name}, after=number, run=name, reason="race")
        print(number + 1)
    except ConflictError:
        while max(log.numbers(), default=0) <= number:
            pass
"""


def test_of_processes_that_deploy_at_once_one_wins_each_number(open_store: Callable[[], Store], tmp_path: Path) -> None:
    last, cache = 5, tmp_path / "cache"
    cache.mkdir()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, open_store().uri, str(cache), f"writer-{number}", str(last)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(WRITERS)
    ]
    while len(list(cache.glob("ready-*"))) < WRITERS:
        assert all(writer.poll() is None for writer in writers)
        time.sleep(0.01)
    (cache / "go").touch()
    won = {}
    for index, writer in enumerate(writers):
        output, _ = writer.communicate(timeout=60)
        assert writer.returncode == 0
        for number in output.split():
            assert int(number) not in won, "two writers believe that they made the same deployment"
            won[int(number)] = f"writer-{index}"
    log = DeploymentLog(open_store())
    assert log.numbers() == list(range(1, last + 1)) == sorted(won)
    assert {number: log.get(number).run for number in log.numbers()} == won


@pytest.mark.parametrize("content", [b"", b"{", b'{"id": 3}', b'{"id": "x", "unknown": 1}'])
def test_a_damaged_card_is_loud(store: Store, content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"card\.json is missing or damaged"):
        read_card(make_release(store, card=content))


def test_a_release_without_a_card_is_loud(store: Store) -> None:
    with store.draft() as draft:
        release = store.publish(draft, "release", "nsmc", "k", run="r", inputs={}, fields={}, figures={})
    with pytest.raises(ArtifactError, match=r"has no file card\.json"):
        read_card(release)
