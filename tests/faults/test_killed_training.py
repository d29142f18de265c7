"""A killed or terminated training: no partial artifact, and the next attempt gives the result of a complete one."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import FAILED
from pipeline.training.checkpoints import COMPLETE
from tests.support.cli import Place, sets
from tests.support.running_service import eventually
from tests.support.small_pipeline import SHAPE, SMALL

pytestmark = pytest.mark.faults

#: Many short epochs, so that a kill always hits a running one.
EPOCHS = 8


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Tokenize the sample."""
    place = Place(tmp_path_factory.mktemp("training") / "home")
    for stage in ("validate", "tokenize"):
        place.call(stage, "nsmc", *sets(SMALL))
    return place


def training(seed: int, dropout: float = 0.1) -> list[str]:
    """Return the arguments of a training; each seed is a separate one."""
    chosen = {"model.scratch": SHAPE | {"dropout": dropout}, "train.epochs": EPOCHS, "train.seed": seed}
    return ["train", "nsmc", *sets(SMALL | chosen)]


def checkpoints(place: Place, *, whole: bool) -> list[Path]:
    """Return complete (or incomplete) checkpoints, the newest last."""
    found = [path for path in (place.home / "work").glob("*/checkpoint-*") if (path / COMPLETE).exists() == whole]
    return sorted(found, key=lambda path: int(path.name.rsplit("-", 1)[1]))


def attempts(place: Place) -> list[str]:
    """Return all train artifacts in the store."""
    store = place.store
    return [f"{key}/{name}" for key in store.list("train/nsmc") for name in store.list(f"train/nsmc/{key}")]


def goes_on(place: Place, arguments: list[str], checkpoint: Path) -> None:
    """Rerun the training: it must resume from `checkpoint` and give the result of an uninterrupted one."""
    again = place.raw("--verbose", *arguments, "--json")
    assert again.returncode == 0, again.stderr
    assert f"resuming from {checkpoint}" in again.stderr
    resumed: dict[str, Any] = json.loads(again.stdout)
    whole: dict[str, Any] = place.call(*arguments, "--force")
    assert whole["ref"] != resumed["ref"]
    assert [epoch["epoch"] for epoch in resumed["figures"]["history"]] == list(range(1, EPOCHS + 1))
    assert resumed["figures"]["validation"] == whole["figures"]["validation"]
    first, second = (place.store.open(item["ref"]).manifest.files for item in (resumed, whole))
    assert first["model/model.safetensors"].sha256 == second["model/model.safetensors"].sha256
    assert list((place.home / "work").iterdir()) == []


@pytest.mark.parametrize(("threads", "dropout"), [(1, 0.1), (2, 0.0)])
def test_killed_training_resumes_from_its_checkpoint(place: Place, threads: int, dropout: float) -> None:
    # Without dropout, several threads share each batch.
    place = Place(place.home, SAEBYEOK_THREADS=str(threads))
    arguments, before = training(1, dropout), attempts(place)
    with place.killed(*arguments) as process:
        eventually("a whole checkpoint", lambda: process.poll() is not None or checkpoints(place, whole=True))
    assert attempts(place) == before
    goes_on(place, arguments, checkpoints(place, whole=True)[-1])
    assert len(attempts(place)) == len(before) + 2


def test_incomplete_checkpoint_is_skipped(place: Place) -> None:
    arguments, before = training(seed=2), attempts(place)

    def writes_the_next_one() -> bool:
        return bool(checkpoints(place, whole=True) and checkpoints(place, whole=False))

    # If the checkpoint was complete before the signal arrived, kill the next attempt later.
    while not writes_the_next_one():
        with place.killed(*arguments) as process:
            eventually("one is half written", lambda: process.poll() is not None or writes_the_next_one(), pause=0.001)
    assert attempts(place) == before
    goes_on(place, arguments, checkpoints(place, whole=True)[-1])


def test_truncated_checkpoint_is_skipped(place: Place) -> None:
    arguments = training(seed=3)
    with place.killed(*arguments) as process:
        eventually(
            "two whole checkpoints", lambda: process.poll() is not None or len(checkpoints(place, whole=True)) > 1
        )
    *_, before, newest = checkpoints(place, whole=True)
    file = newest / "optimizer.pt"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    goes_on(place, arguments, before)


def test_terminated_training_writes_a_checkpoint_first(place: Place) -> None:
    arguments, before = training(seed=4), attempts(place)
    with place.killed("--verbose", *arguments, by=signal.SIGTERM, status=FAILED) as process:
        eventually("a whole checkpoint", lambda: process.poll() is not None or checkpoints(place, whole=True))
        known = checkpoints(place, whole=True)
    assert attempts(place) == before
    assert "rerun the command to resume" in place.log.read_text("utf-8").splitlines()[-1]
    newest = checkpoints(place, whole=True)[-1]
    assert newest not in known
    goes_on(place, arguments, newest)
