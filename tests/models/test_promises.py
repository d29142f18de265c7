"""The promises of gate, verdicts, rollbacks and retention hold in many random orders, and broken gates break them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase
from hypothesis.stateful import run_state_machine_as_test

from pipeline.deployment import retention
from pipeline.evaluation import earlier_releases, promotion_gate
from pipeline.stages import deploy
from pipeline.store.artifacts import Store
from pipeline.store.deployments import Deployment, DeploymentLog
from tests.support import promises
from tests.support.promises import Promises
from tests.support.properties import settings as options
from tests.support.remembering import answer_from_memory
from tests.support.tiny_releases import TinyModel
from tests.support.verdicts import with_margin

pytestmark = pytest.mark.models

#: Other orders in each run; a failure prints how to repeat it.
MANY = options(database=None, max_examples=60, stateful_step_count=50, print_blob=True)
#: Without a search for the shortest example.
FIRST = options(MANY, max_examples=1000, phases=(Phase.generate,))


@pytest.fixture
def files(store: Store, light: TinyModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the files of a release, while models answer from memory."""
    answer_from_memory(monkeypatch)
    return light.publish(store, "nsmc", key="a" * 16, sample=False).path


def test_promises_hold_in_many_orders(files: Path) -> None:
    run_state_machine_as_test(lambda: Promises(files), settings=MANY)


def generous_compare(recipe: Any, *sides: Any) -> Any:
    return COMPARE(with_margin(recipe, 3 * recipe.gate.margin), *sides)


def first_on_path(log: DeploymentLog) -> Deployment:
    return log.path()[0]


def outdated_but_live(store: Any, settings: Any) -> Any:
    """Return what is outdated if only the live deployment counts."""
    return FIND_OUTDATED(store, settings.model_copy(update={"keep_deployments": 1}))


COMPARE, FIND_OUTDATED = promotion_gate.compare, retention.find_outdated
BREAKS: dict[str, tuple[Any, str, Callable[..., Any], str]] = {
    "verdicts": (deploy, "check_verdicts", lambda *_: None, "a rejected model is served|on hold"),
    "margin": (promotion_gate, "compare", generous_compare, "worse by .* than an earlier model"),
    "best": (earlier_releases._Search, "candidates", lambda *_: iter(()), "worse by .* than an earlier model"),
    "rollback": (DeploymentLog, "one_back", first_on_path, "led to another deployment|was pruned"),
    "retention": (promises, "find_outdated", outdated_but_live, "was pruned"),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_broken_gate_breaks_a_promise(broken: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, instead, words = BREAKS[broken]
    monkeypatch.setattr(where, name, instead)
    with pytest.raises(Exception, match=words):
        run_state_machine_as_test(lambda: Promises(files), settings=FIRST)
