"""Leases in a store on a disk and in a bucket: one holder, then successors with higher numbers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.store import leases as module
from pipeline.store.artifacts import Store
from pipeline.store.leases import LEASE, Lease, take, wait_for
from tests.support.running_service import eventually
from tests.support.stores import run_together

NAME = "train/nsmc/key"


def taken(store: Store, home: str) -> Lease:
    lease = take(store, NAME, home)
    assert lease is not None
    return lease


def expire(store: Store) -> None:
    """Let the newest lease run out."""
    for path in (Path(store.uri) / "leases" / NAME).iterdir():
        old = path.stat().st_mtime - LEASE - 10
        os.utime(path, (old, old))


def test_one_of_several_hosts_gets_the_lease(open_again: Callable[[], Store]) -> None:
    stores = [open_again() for _ in range(4)]
    calls = [lambda place=place, store=store: take(store, NAME, f"home-{place}") for place, store in enumerate(stores)]
    found = [lease for lease in run_together(calls) if lease]
    assert [lease.attempt for lease in found] == [1]
    assert found[0].is_mine()


def test_released_lease_is_free_and_finished_work_leaves_nothing(open_again: Callable[[], Store]) -> None:
    store = open_again()
    first = taken(store, "one")
    first.renew()
    assert take(open_again(), NAME, "two") is None
    first.release()
    second = taken(open_again(), "two")
    assert (second.attempt, second.is_mine(), first.is_mine()) == (2, True, False)
    first.finish()
    assert second.is_mine(), "an older attempt deletes nothing"
    second.finish()
    assert store.list("leases/train/nsmc") == []


def test_home_of_a_dead_process_takes_over_at_once(store: Store) -> None:
    assert [taken(store, "one").attempt, taken(store, "one").attempt] == [1, 2]


@pytest.mark.parametrize("renewed", [True, False])
def test_other_host_takes_over_when_the_lease_runs_out(store: Store, renewed: bool) -> None:
    first = taken(store, "one")
    if renewed:
        first.renew()
    assert take(store, NAME, "two") is None
    expire(store)
    assert taken(store, "two").attempt == 2


def test_paused_holder_does_not_take_a_later_lease_for_its_own(store: Store) -> None:
    paused = taken(store, "one")
    expire(store)
    taken(store, "two").finish()
    # The numbers start again, but the holder is another one.
    assert taken(store, "three").attempt == paused.attempt == 1
    assert not paused.is_mine()


def test_holder_renews_and_hears_of_its_loss(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEWAL", 0.01)
    first, lost = taken(store, "one"), threading.Event()
    with first.kept(lost.set):
        eventually("it is renewed", lambda: store.read(f"leases/{NAME}/000001.beat") == first.holder.token.encode())
        taken(store, "one")
        eventually("it hears of it", lost.is_set)


def test_unreachable_store_ends_no_work(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> None:
        raise StoreError("the bucket is away")

    monkeypatch.setattr(module, "RENEWAL", 0.01)
    lease, lost = taken(store, "one"), threading.Event()
    with monkeypatch.context() as patch, lease.kept(lost.set):
        patch.setattr(Store, "replace", away)
        eventually("it is logged", lambda: "was not renewed: the bucket is away" in caplog.text)
    assert not lost.is_set()
    assert lease.is_mine()


def test_waiting_host_follows_and_says_for_whom_it_waits(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    first = taken(store, "one")
    lease = wait_for(store, NAME, "two", lambda _: first.release())
    assert lease.attempt == 2
    assert f"{NAME} is done by {first.holder.host}: waiting for it" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]"])
def test_damaged_record_is_held_until_it_runs_out(store: Store, content: bytes) -> None:
    store.create(f"leases/{NAME}/000003.json", content)
    assert take(store, NAME, "two") is None
    expire(store)
    assert taken(store, "two").attempt == 4
