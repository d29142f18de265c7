"""The deployment log: append-only, one winner per number, and errors if it is damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import ChainMap
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from pipeline.config_file import ROOT
from pipeline.errors import ArtifactError, ConflictError, NewerFormatError, RefusedError, StoreError
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import Deployment, DeploymentLog, served_on
from tests.support.stores import run_together
from tests.support.strict import check_strict


def make_release(store: Store, key: str = "k1") -> Artifact:
    with store.draft() as draft:
        return store.publish(draft, "release", "nsmc", key, run="test", inputs={}, fields={}, figures={})


def test_before_the_first_deployment_there_is_no_champion(open_again: Callable[[], Store]) -> None:
    log = DeploymentLog(open_again())
    assert log.numbers() == []
    assert log.latest() is None
    assert log.champion("nsmc") is None


def test_highest_number_is_live(open_again: Callable[[], Store]) -> None:
    store = open_again()
    first, second = make_release(store, "k1"), make_release(store, "k2")
    log = DeploymentLog(store)
    log.append({"nsmc": first.ref}, after=0, run="night-1", reason="first")
    made = log.append({"nsmc": second.ref}, after=1, run="night-2", reason="better")
    elsewhere = DeploymentLog(open_again())
    assert elsewhere.numbers() == [1, 2]
    assert elsewhere.latest() == made
    assert elsewhere.get(1).releases == {"nsmc": first.ref}
    assert (elsewhere.get(1).run, elsewhere.get(1).reason) == ("night-1", "first")
    champion = elsewhere.champion("nsmc")
    assert champion is not None
    assert champion.ref == second.ref
    assert elsewhere.champion("klue-sts") is None


def test_a_late_run_cannot_deploy_over_another(open_again: Callable[[], Store]) -> None:
    log = DeploymentLog(open_again())
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


def test_missing_deployment_number_raises(open_again: Callable[[], Store]) -> None:
    log, before = DeploymentLog(open_again()), datetime.now(UTC)
    assert before <= log.append({}, after=0, run="r", reason="r").created <= datetime.now(UTC)
    with pytest.raises(ArtifactError, match=r"no deployment 7; existing deployments: \[1\]"):
        log.get(7)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"number": 2}', b"[]", b'\xff\xfe{"number": 2}'],
    ids=["empty", "cut off", "incomplete", "list", "bytes"],
)
def test_damaged_record_raises(open_again: Callable[[], Store], content: bytes) -> None:
    store = open_again()
    log = DeploymentLog(store)
    log.append({"nsmc": make_release(store).ref}, after=0, run="r", reason="r")
    store.create("deployments/000002.json", content)
    for use in (log.latest, lambda: log.champion("nsmc"), lambda: log.get(2)):
        with pytest.raises(ArtifactError, match=r"deployments/000002\.json is damaged"):
            use()
    assert log.get(1).number == 1


def test_a_record_under_another_number_is_damaged(open_again: Callable[[], Store]) -> None:
    store = open_again()
    log = DeploymentLog(store)
    record = log.append({}, after=0, run="r", reason="r")
    store.create("deployments/000002.json", record.model_dump_json().encode())
    with pytest.raises(ArtifactError, match=r"000002\.json is damaged: it records deployment 1"):
        log.latest()


def test_missing_champion_raises(open_again: Callable[[], Store]) -> None:
    log = DeploymentLog(open_again())
    log.append({"nsmc": "release/nsmc/gone/1"}, after=0, run="r", reason="r")
    with pytest.raises(ArtifactError, match=r"release/nsmc/gone/1: no such artifact"):
        log.champion("nsmc")


def test_log_in_a_missing_bucket_raises(bucket: Any, tmp_path: Path) -> None:
    # Not "no champion yet": the gate would accept any model.
    log = DeploymentLog(Store("s3://mistyped-bucket/models", tmp_path))
    with pytest.raises(StoreError, match="no such bucket"):
        log.champion("nsmc")


def test_files_that_are_no_records_are_passed_over(open_again: Callable[[], Store]) -> None:
    store = open_again()
    log = DeploymentLog(store)
    log.append({}, after=0, run="r", reason="r")
    for stray in (".000009.json.ab12", "000009.json~", "notes.txt", "9.json"):
        store.create(f"deployments/{stray}", b"stray")
    assert log.numbers() == [1]
    assert log.append({}, after=1, run="r", reason="r").number == 2


#: Deploys after every number, and retries until the last number is written.
WRITER = """
import sys
from pathlib import Path
from pipeline.store.artifacts import Store
from pipeline.errors import ConflictError
from pipeline.store.deployments import DeploymentLog

log = DeploymentLog(Store(sys.argv[1], Path(sys.argv[2])))
print("ready", flush=True)
name = sys.stdin.readline().strip()
for number in range(4):
    try:
        log.append({"nsmc": name}, after=number, run=name, reason="race")
        print(number + 1)
    except ConflictError:
        while max(log.numbers(), default=0) <= number:
            pass
"""


def test_concurrent_deployments_have_one_winner_per_number(store: Store, tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, store.uri, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for index, writer in enumerate(writers):
        assert writer.stdin is not None
        writer.stdin.write(f"writer-{index}\n")
        writer.stdin.flush()
    won = {}
    for index, writer in enumerate(writers):
        output, _ = writer.communicate(timeout=60)
        assert writer.returncode == 0
        for number in output.split():
            assert int(number) not in won, "two writers believe that they made the same deployment"
            won[int(number)] = f"writer-{index}"
    log = DeploymentLog(store)
    assert log.numbers() == [1, 2, 3, 4] == sorted(won)
    assert {number: log.get(number).run for number in log.numbers()} == won


def test_of_threads_that_deploy_at_once_one_wins(open_again: Callable[[], Store]) -> None:
    def deploy(name: str) -> bool:
        try:
            DeploymentLog(open_again()).append({"nsmc": name}, after=0, run=name, reason="race")
        except ConflictError:
            return False
        return True

    names = [f"writer-{number}" for number in range(4)]
    won = run_together([lambda name=name: deploy(name) for name in names])
    log = DeploymentLog(open_again())
    assert won.count(True) == 1
    assert [log.get(number).run for number in log.numbers()] == [names[won.index(True)]]


def test_overtaken_run_does_not_deploy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    log, link = DeploymentLog(store), os.link

    def overtaken(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        log.append({"nsmc": "theirs"}, after=0, run="theirs", reason="r")
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    with pytest.raises(ConflictError, match="deployment 1 already exists: another run deployed meanwhile") as caught:
        log.append({"nsmc": "mine"}, after=0, run="mine", reason="r")
    assert not caught.value.retryable
    assert [log.get(number).run for number in log.numbers()] == ["theirs"]


def test_a_record_is_strict_and_counted_from_one() -> None:
    record = Deployment(number=1, created=datetime.now(UTC), run="r", reason="r", releases={})
    check_strict(record)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Deployment.model_validate({**dict(record), "number": 0})


# --- the path to the live one --------------------------------------------------------------------


Step = dict[str, str] | tuple[str, int]


def log_of(store: Store, *steps: Step) -> DeploymentLog:
    """Return a log of promotions (maps), rollbacks and undos: ("rollback", 1) serves the releases of deployment 1."""
    log = DeploymentLog(store)
    for number, step in enumerate(steps):
        run = f"night-{number + 1}"
        if isinstance(step, dict):
            log.append(step, after=number, run=run, reason="r")
            continue
        intent, of = step
        served = of if intent == "rollback" else of - 1
        releases = log.get(served).releases if served else {}
        log.append(releases, after=number, run=run, reason="r", intent=intent, of=of)  # type: ignore[arg-type]
    return log


def back(number: int) -> tuple[str, int]:
    return ("rollback", number)


def undo(number: int) -> tuple[str, int]:
    return ("undo", number)


A, B, C, D = ({"nsmc": name} for name in "ABCD")


@pytest.mark.parametrize(
    ("steps", "target"),
    [
        ([A, B], 1),
        ([A, B, C], 2),
        # 3 rolls back to A, and nothing came before A.
        ([A, B, back(1)], None),
        ([A, B, C, back(2)], 1),
        ([A, B, C, back(1)], None),
        ([A, B, back(1), C], 1),
        ([A, B, C, back(2), D], 2),
        # Forward again, to a deployment that was rolled back from.
        ([A, B, C, back(1), back(3)], 2),
        ([A, B, C, back(2), back(4)], 1),
        # A model that is promoted again is no rollback: the better one in between was served before it.
        ([A, B, A], 2),
        ([A, B, A, C], 3),
        ([A, B, undo(2)], None),
        ([A, B, C, undo(3)], 1),
        ([A, B, C, back(1), undo(4)], 2),
        ([A, undo(1)], None),
        ([A, undo(1), B, C], 3),
        ([A], None),
        ([], None),
    ],
)
def test_one_back_follows_what_the_records_say(store: Store, steps: list[Step], target: int | None) -> None:
    log = log_of(store, *steps)
    if target is None:
        with pytest.raises(
            RefusedError,
            match="the releases of the first deployment are live, so there is nothing earlier to roll back to",
        ):
            log.one_back()
    else:
        assert log.one_back().number == target


def test_undo_keeps_what_other_recipes_deployed_since(store: Store) -> None:
    log = log_of(store, A, B, {"nsmc": "B", "klue-sts": "S"})
    log.append({"nsmc": "A", "klue-sts": "S"}, after=3, run="r", reason="r", intent="undo", of=2)
    assert [record.number for record in log.path()] == [1, 4]
    assert (log.served("nsmc"), log.served("klue-sts")) == (["A"], ["S"])


def test_rollback_after_two_failures_skips_both(store: Store) -> None:
    # Two recipes are deployed at the same time, and the service fails with both.
    first = {"nsmc": "A", "klue-sts": "S"}
    log = log_of(store, {"nsmc": "0"}, first, first | {"nsmc": "B"}, {"nsmc": "B", "klue-sts": "T"})
    log.append({"nsmc": "A", "klue-sts": "T"}, after=4, run="r", reason="r", intent="undo", of=3)
    assert [record.number for record in log.path()] == [1, 2, 5]
    log.append(first, after=5, run="r", reason="r", intent="undo", of=4)
    assert [record.number for record in log.path()] == [1, 2]


def test_undo_of_a_later_failure_keeps_other_recipes(store: Store) -> None:
    releases = [{"nsmc": "A", "b": "1", "c": "1"}, {"nsmc": "B"}, {"b": "2"}, {"c": "2"}]
    log = log_of(store, *(dict(ChainMap(*reversed(releases[: end + 1]))) for end in range(4)))
    log.append({"nsmc": "A", "b": "2", "c": "2"}, after=4, run="r", reason="r", intent="undo", of=2)
    log.append({"nsmc": "A", "b": "2", "c": "1"}, after=5, run="r", reason="r", intent="undo", of=4)
    # Deployment 3 has the new `b`, but also the `nsmc` that failed.
    assert [record.number for record in log.path()] == [1, 6]


def test_third_failure_keeps_the_first_in_mind(store: Store) -> None:
    first = {"nsmc": "A", "b": "1", "c": "1"}
    log = log_of(
        store, first, first | {"nsmc": "B"}, first | {"nsmc": "B", "b": "2"}, {"nsmc": "B", "b": "2", "c": "2"}
    )
    log.append({"nsmc": "A", "b": "2", "c": "2"}, after=4, run="r", reason="r", intent="undo", of=2)
    log.append({"nsmc": "A", "b": "1", "c": "2"}, after=5, run="r", reason="r", intent="undo", of=3)
    log.append(first, after=6, run="r", reason="r", intent="undo", of=4)
    assert [record.number for record in log.path()] == [1]


@pytest.mark.parametrize("intent", ["rollback", "undo"])
@pytest.mark.parametrize("of", [7, None])
def test_record_of_an_unknown_deployment_continues_the_path(
    store: Store, intent: Literal["rollback", "undo"], of: int | None
) -> None:
    log = log_of(store, A, B)
    log.append(A, after=2, run="r", reason="r", intent=intent, of=of)
    assert [record.number for record in log.path()] == [1, 2, 3]


def test_record_says_what_it_is_and_who_asked(store: Store) -> None:
    log = log_of(store, A, B)
    log.append(A, after=2, run="r", reason="back", intent="rollback", of=1, by="kim")
    first, last = log.get(1), log.get(3)
    assert (first.intent, first.of, first.by) == ("promotion", None, None)
    assert (last.intent, last.of, last.by, last.format) == ("rollback", 1, "kim", 2)


@pytest.mark.parametrize(
    ("reason", "intent", "of"),
    [
        ("Promoted: accuracy is 0.9.", "promotion", None),
        ("rollback to deployment 12", "rollback", 12),
        ("undoes deployment 7: release/nsmc/a/1 failed once it was live", "undo", 7),
        ("Promoted after a rollback to deployment 3", "promotion", None),
    ],
)
def test_record_of_format_1_states_intent_in_its_reason(store: Store, reason: str, intent: str, of: int | None) -> None:
    old = {"number": 1, "created": "2026-11-29T08:19:50Z", "run": "r", "reason": reason, "releases": A}
    store.create("deployments/000001.json", json.dumps(old).encode())
    record = DeploymentLog(store).get(1)
    assert (record.intent, record.of, record.by, record.reason) == (intent, of, None, reason)


def test_record_of_a_newer_version_names_both_formats(store: Store) -> None:
    log = log_of(store, A)
    newer = json.loads(log.get(1).model_dump_json()) | {"format": 3, "colour": "red"}
    store.create("deployments/000002.json", json.dumps(newer).encode())
    with pytest.raises(
        NewerFormatError, match=r"deployments/000002\.json has format 3; version .* reads formats up to 2\."
    ):
        log.latest()


def test_one_back_leaves_no_recipe_without_a_release(store: Store) -> None:
    more = {name: name.upper() for name in ("klue-sts", "extra", "b", "d", "a", "c")}
    log = log_of(store, B, A, {"nsmc": "A"} | more)
    with pytest.raises(
        RefusedError, match=r"deployment, 2, has no release of a, b, c, d, extra, klue-sts, .* specify the number 2$"
    ):
        log.one_back()


def test_one_back_may_bring_a_recipe_back(store: Store) -> None:
    assert log_of(store, {"nsmc": "A", "klue-sts": "S"}, B).one_back().number == 1


def test_a_rollback_chain_goes_back_step_by_step(store: Store) -> None:
    log = log_of(store, A, B, C)
    for expected, live in ((2, B), (1, A)):
        target = log.one_back()
        assert target.number == expected
        newest = log.numbers()[-1]
        log.append(target.releases, after=newest, run="rollback", reason="r", intent="rollback", of=target.number)
        latest = log.latest()
        assert latest is not None
        assert latest.releases == live
    with pytest.raises(RefusedError):
        log.one_back()


@pytest.mark.parametrize(
    ("steps", "served"),
    [
        ([], ""),
        ([A], "A"),
        ([A, B, C], "ABC"),
        ([A, B, back(1)], "A"),
        ([A, B, C, back(2)], "AB"),
        ([A, B, C, back(2), D], "ABD"),
        ([A, B, A], "BA"),
        ([A, A, B], "AB"),
    ],
)
def test_served_lists_the_path_to_the_live_release(store: Store, steps: list[Step], served: str) -> None:
    assert log_of(store, *steps).served("nsmc") == list(served)


def test_paths_lead_to_each_deployment(store: Store) -> None:
    log = log_of(store, A, B, C, back(1), D)
    numbers = {number: [record.number for record in path] for number, path in log.paths().items()}
    assert numbers == {1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1], 5: [1, 5]}
    assert served_on(log.paths()[3], "nsmc") == ["A", "B", "C"]


def test_promotion_is_first_deployment_of_last_unbroken_series(store: Store) -> None:
    log = DeploymentLog(store)
    for number, (run, nsmc, other) in enumerate(
        [("a", "n1", "k1"), ("b", "n2", "k1"), ("c", "n1", "k1"), ("d", "n1", "k2"), ("e", "n1", "k3")]
    ):
        log.append({"nsmc": nsmc, "klue-sts": other}, after=number, run=run, reason="test")
    found = [log.promotion("nsmc", "n1"), log.promotion("klue-sts", "k3")]
    assert [record and record.run for record in found] == ["c", "e"]
    assert log.promotion("nsmc", "n2") is None


def test_served_lists_releases_by_recipe(store: Store) -> None:
    log = log_of(store, A, {"nsmc": "A", "klue-sts": "S"}, {"nsmc": "B", "klue-sts": "S"}, {"klue-sts": "T"})
    assert log.served("nsmc") == ["A", "B"]
    assert log.served("klue-sts") == ["S", "T"]
    assert log.served("other") == []


def test_a_gap_in_the_log_is_no_end(store: Store) -> None:
    log = log_of(store, A, B, C)
    (Path(store.uri) / "deployments" / "000002.json").unlink()
    assert log.numbers() == [1, 3]
    assert log.one_back().number == 1
    assert log.served("nsmc") == ["A", "C"]
    with pytest.raises(ConflictError, match="deployment 3 is live, not 2"):
        log.append(D, after=2, run="r", reason="r")
    assert log.append(D, after=3, run="r", reason="r").number == 4


def test_numbers_go_on_beyond_six_digits(store: Store) -> None:
    log = DeploymentLog(store)
    record = Deployment(number=999_999, created=datetime.now(UTC), run="r", reason="r", releases=A)
    store.create("deployments/999999.json", record.model_dump_json().encode())
    assert log.append(B, after=999_999, run="r", reason="r").number == 1_000_000
    latest = log.latest()
    assert latest is not None
    assert latest.releases == B
    assert log.one_back().number == 999_999


def test_a_record_says_when_it_was_made(store: Store) -> None:
    before = datetime.now(UTC)
    made = log_of(store, A).get(1)
    assert before <= made.created <= datetime.now(UTC)
