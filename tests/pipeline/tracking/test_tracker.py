"""The tracker of a stage, with a run that records all calls."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.store.artifacts import Artifact, Store
from pipeline.tracking.run_directories import Story
from pipeline.tracking.tracker import STEP, Tracker


class Noted:
    """A substitute for W&B's run: records every call, and raises from call number `dies` on."""

    def __init__(self, dies: int | None = None) -> None:
        self.calls: list[Any] = []
        self.dies = dies
        self.config = self.summary = self

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if self.dies is not None and len(self.calls) >= self.dies:
            raise ConnectionError("wandb-core has gone")

    def log(self, point: dict[str, Any]) -> None:
        self._note("log", point)

    def update(self, values: dict[str, Any]) -> None:
        self._note("update", values)

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self._note("artifact", artifact.name, aliases)


def publish(store: Store, kind: str, **inputs: Artifact) -> Artifact:
    with store.draft() as draft:
        (draft / "a.txt").write_text("x")
        refs: Any = {name: {"ref": item.ref, "key": item.key} for name, item in inputs.items()}
        return store.publish(draft, kind, "nsmc", "a" * 16, run="r", inputs=refs, fields={}, figures={})


def test_a_point_has_its_step_as_a_value() -> None:
    run = Noted()
    tracker = Tracker(run)
    tracker.log({"loss": 0.5}, step=0)
    tracker.log({"loss": 0.4})
    assert run.calls == [("log", {"loss": 0.5, STEP: 0}), ("log", {"loss": 0.4})]
    assert STEP == "train/global_step"


def test_nested_figures_are_flattened_without_lists() -> None:
    run = Noted()
    Tracker(run).summary({"a": {"b": {"c": 1.5}}, "ok": True, "n": 0, "s": "x", "rows": [1], "none": None})
    assert run.calls == [("update", {"a/b/c": 1.5, "ok": True, "n": 0, "s": "x"})]


def test_first_failure_warns_and_ends_the_logging(caplog: pytest.LogCaptureFixture) -> None:
    run = Noted(dies=2)
    tracker = Tracker(run, texts=True)
    tracker.log({"x": 1.0})
    assert tracker.active
    for _ in range(3):
        tracker.log({"x": 2.0})
        tracker.summary({"x": 2.0})
    assert len(run.calls) == 2
    assert (tracker.active, tracker.texts) == (False, False)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "stopped logging (ConnectionError: wandb-core has gone)" in warning


@pytest.mark.parametrize(("run", "texts", "may"), [(Noted(), True, True), (Noted(), False, False), (None, True, False)])
def test_texts_require_the_setting_and_a_run(run: Noted | None, texts: bool, may: bool) -> None:
    assert Tracker(run, texts=texts).texts is may


def test_story_records_inputs_and_output(store: Store) -> None:
    data, other = publish(store, "validate"), publish(store, "validate")
    tokens = publish(store, "tokenize", validated=data)
    release = publish(store, "release", tokens=tokens)
    run = Noted()
    tracker = Tracker(run, texts=True)
    tracker.uses({"tokenized": tokens})
    tracker.uses({"validated": data, "drawn": other})
    tracker.makes(tokens)
    tracker.makes(release)
    attempt = release.ref.rsplit("/", 1)[1]
    assert run.calls == [
        ("update", {"made_from": {"tokenized": tokens.ref}}),
        ("update", {"made_from": {"validated": data.ref, "drawn": other.ref}}),
        ("update", {"made": tokens.ref}),
        ("update", {"made": release.ref}),
        ("artifact", "nsmc", [attempt]),
    ]
    assert tracker.story("export", store, crowns=True) == Story(
        stage="export", store=store.uri, texts=True, uses=(data.ref, other.ref), made=release.ref, crowns=True
    )
