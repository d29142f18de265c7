"""The promises of gate, verdicts, rollbacks and retention hold in any order of nights and people (few examples)."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from pipeline.store.artifacts import Store
from tests.support.promises import Promises
from tests.support.properties import settings as options
from tests.support.remembering import answer_from_memory
from tests.support.tiny_releases import TinyModel

#: `tests/models/test_promises.py` has many.
FEW = options(derandomize=True, database=None, max_examples=4, stateful_step_count=30)


def test_promises_hold_in_any_order(store: Store, light: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_from_memory(monkeypatch)
    files = light.publish(store, "nsmc", key="a" * 16, sample=False).path
    run_state_machine_as_test(lambda: Promises(files), settings=FEW)
