"""The commands with which a person holds and releases a recipe, and approves and rejects a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli.app import app
from pipeline.errors import RecipeError, RefusedError
from pipeline.store.artifacts import Store
from pipeline.store.verdicts import find_hold, find_verdict
from tests.support.tiny_releases import make_artifact, make_trained

Call = Callable[..., Result]


@pytest.fixture
def call(store: Store, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return `call("hold", "nsmc", ...)`, which runs a command in this process on the test's store."""
    monkeypatch.setattr("getpass.getuser", lambda: "kim")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--store", store.uri], catch_exceptions=False)

    return run


def document(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_hold_and_release_change_the_recipe(call: Call, store: Store) -> None:
    assert call("hold", "nsmc", "--why", "labels are being checked").stdout.startswith("promotion of nsmc is on hold")
    hold = find_hold(store, "nsmc")
    assert hold is not None
    assert (hold.by, hold.why) == ("kim", "labels are being checked")
    released = document(call("release", "nsmc", "--json"))
    assert (released["recipe"], released["held"], released["by"], released["why"]) == ("nsmc", False, "kim", "")
    assert "format" not in released
    assert find_hold(store, "nsmc") is None


def test_release_of_nothing_is_a_refusal(call: Call) -> None:
    result = call("release", "nsmc", "--json")
    assert document(result)["error"]["type"] == RefusedError.__name__
    assert result.exit_code == 3


@pytest.mark.parametrize("command", ["hold", "approve", "reject"])
def test_unknown_recipe_is_named(call: Call, command: str) -> None:
    result = call(command, "imdb", "--why", "w", "--json")
    assert (result.exit_code, document(result)["error"]["type"]) == (2, RecipeError.__name__)


@pytest.mark.parametrize(("command", "verdict"), [("approve", "approved"), ("reject", "rejected")])
def test_verdict_is_recorded_with_name_and_words(call: Call, store: Store, command: str, verdict: str) -> None:
    old, new = make_trained(store), make_trained(store)
    evaluated = make_artifact(store, "evaluate", "nsmc", {"trained": {"ref": new.ref, "key": new.key}})
    make_artifact(store, "decide", "nsmc", {"evaluated": {"ref": evaluated.ref, "key": evaluated.key}})
    # Without --model, the newest decision's.
    told = document(call(command, "nsmc", "--why", "I read its answers", "--json"))
    assert (told["verdict"], told["trained"], told["by"], told["why"]) == (
        verdict, new.ref, "kim", "I read its answers"
    )  # fmt: skip
    assert call(command, "nsmc", "--why", "w", "--model", old.ref).stdout == f"{verdict} {old.ref}\n"
    assert [(found.verdict, found.why) for item in (new, old) if (found := find_verdict(item))] == [
        (verdict, "I read its answers"),
        (verdict, "w"),
    ]


@pytest.mark.parametrize("command", ["hold", "reject"])
def test_stopping_something_needs_a_reason(call: Call, command: str) -> None:
    assert call(command, "nsmc").exit_code == 2
