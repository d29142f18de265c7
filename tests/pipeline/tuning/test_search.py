"""Hyperparameter search: its trials and output, and a resumed search equals an uninterrupted one."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from safetensors.torch import load_file, save_file

from benchmarks.cut import first_rows
from pipeline.errors import RecipeError, TerminatedError, TrainingDivergedError
from pipeline.job import Job, open_job
from pipeline.recipes.files import RECIPES, read_toml
from pipeline.recipes.loading import load_recipe, recipe_names
from pipeline.recipes.overrides import read_overrides
from pipeline.recipes.schema import SCRATCH
from pipeline.sample import write_sample
from pipeline.settings import load_settings
from pipeline.stages.running import build
from pipeline.stages.stage import TOKENIZE, TRAIN, VALIDATE
from pipeline.tuning.search import tune
from pipeline.tuning.space import Choices, Span, default_space, open_search
from tests.support.cli import PlaceHere, sets
from tests.support.killed import Killed
from tests.support.running_service import eventually
from tests.support.small_pipeline import SMALL, save_base

pytestmark = pytest.mark.torch

TINY = SMALL | {"train.epochs": 1, "train.batch_size": 64, "data.min_train_rows": 1, "data.min_test_rows": 1}
RATE = "train.learning_rate=1e-3..1e-2"
#: At most four trainings, for any number of trials.
FEW = ("train.batch_size=64,128", "train.epochs=1,2")


def open_in(home: Path, **further: Any) -> Job:
    settings = load_settings().model_copy(update={"home": home, "data": home / "few"})
    return open_job("nsmc", settings=settings, overrides=TINY | further)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with few rows of the sample, validated and tokenized."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    write_sample(home / "few")
    job = open_in(home)
    for file, rows in ((job.recipe.data.train, 800), (job.recipe.data.test, 100)):
        (home / "few" / file).write_bytes(first_rows(home / "few" / file, rows))
    build(job, TOKENIZE, build(job, VALIDATE))
    return home


@pytest.fixture
def home(prepared: Path, tmp_path: Path) -> Path:
    """Return a copy for one test."""
    return shutil.copytree(prepared, tmp_path / "home")


@pytest.fixture
def place(home: Path) -> PlaceHere:
    """Return the command line in that home."""
    return PlaceHere(home, SAEBYEOK_DATA=str(home / "few"))


def nothing(_: str) -> None:
    """Discard the line."""


def search(
    home: Path,
    *fields: str,
    trials: int = 3,
    say: Callable[[str], None] = nothing,
    out: Path | None = None,
    **more: Any,
) -> dict[str, Any]:
    return tune(open_search(open_in(home, **more), TINY | more, fields), trials, out, say)


def values(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial["values"] for trial in found["trials"]]


def at(start: str, then: Callable[[], object]) -> Callable[[str], None]:
    """Return a listener that calls `then` when a line begins with `start`."""

    def say(line: str) -> None:
        if line.startswith(start):
            then()

    return say


def kill() -> None:
    raise Killed


def terminate() -> None:
    """Send SIGTERM inside code that swallows any Exception."""
    with suppress(Exception):
        os.kill(os.getpid(), signal.SIGTERM)


# --- trials and results ---


def test_search_tries_recipe_first_and_writes_best(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "best.toml"
    found = search(home, RATE, "train.warmup=0..0.5", out=out)
    first, *others = found["trials"]
    assert first["own"]
    assert first["values"] == {"train.learning_rate": 3e-3, "train.warmup": 0.1}
    assert len(others) == 2
    assert all(1e-3 <= trial["values"]["train.learning_rate"] <= 1e-2 for trial in others)
    assert all(0 <= trial["values"]["train.warmup"] <= 0.5 for trial in others)
    assert found["best"]["value"] == max(trial["value"] for trial in found["trials"])
    # The file has everything that is needed to train that model again.
    job = open_job("nsmc", settings=open_in(home).settings, overrides=read_overrides(out))
    trained = build(job, TRAIN, build(job, TOKENIZE, build(job, VALIDATE)))
    assert trained.ref == found["best"]["ref"]
    comment = [line for line in out.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert f"accuracy {found['best']['value']:.4f} on" in comment[0]
    assert f"of 3, 0 of which failed. The unchanged recipe reached accuracy {first['value']:.4f}" in comment[1]


def test_only_the_validation_side_is_looked_at(home: Path) -> None:
    found = search(home, RATE, trials=2)
    store = open_in(home).store
    for trial in found["trials"]:
        assert trial["value"] == store.open(trial["ref"]).manifest.figures["validation"]["accuracy"]
    assert found["rows"] == store.open(store.refs("tokenize", "nsmc")[0]).manifest.figures["validation"]["rows"]
    assert store.list("evaluate") == []


def test_recipe_outside_bounds_is_tried_too(home: Path) -> None:
    found = search(home, "train.learning_rate=1e-2..5e-2", "train.weight_decay=0.2,0.3", trials=2)
    assert values(found)[0] == {"train.learning_rate": 3e-3, "train.weight_decay": 0.1}
    assert 1e-2 <= values(found)[1]["train.learning_rate"] <= 5e-2
    assert values(found)[1]["train.weight_decay"] in (0.2, 0.3)
    # The sampler does not learn about values that the recipe did not use.
    storage = JournalStorage(JournalFileBackend(str(Path(found["study"]) / "journal.log")))
    (study,) = optuna.get_all_study_names(storage)
    assert optuna.load_study(study_name=study, storage=storage).trials[0].params == {}


def test_another_space_or_recipe_is_another_search(home: Path) -> None:
    studies = {
        search(home, *fields, trials=1, **more)["study"]
        for fields, more in [((RATE,), {}), (FEW, {}), ((RATE,), {"train.seed": 8}), ((RATE,), {"train.seed": 8})]
    }
    assert len(studies) == 3


def test_what_diverges_fails_and_the_search_goes_on(home: Path, tmp_path: Path) -> None:
    good, bad = (save_base(tmp_path / name, ["정말 재미있는 영화"]) for name in ("good", "bad"))
    tensors = load_file(bad / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][:] = math.nan
    save_file(tensors, bad / "model.safetensors", {"format": "pt"})
    bases = f"model.base={good},{bad}"
    found = search(home, bases, trials=4, **{"model.base": str(good)})
    assert {trial["values"]["model.base"] for trial in found["trials"]} == {str(good), str(bad)}
    for trial in found["trials"]:
        assert (trial["value"] is None) == (trial["values"]["model.base"] == str(bad))
        assert (trial["value"] is None) == ("has diverged" in (trial["problem"] or ""))
    assert found["best"]["number"] == 1
    assert ", and no trial was better." in Path(found["out"]).read_text(encoding="utf-8")
    assert list((home / "work").glob("*/")) == [], "checkpoints of a training that would diverge again"
    with pytest.raises(TrainingDivergedError, match=r"all 1 trials failed, .* Search lower learning rates"):
        search(home, bases, trials=1, **{"model.base": str(bad)})


# --- interruption ---


def test_resumed_search_equals_an_uninterrupted_one(home: Path, tmp_path: Path) -> None:
    other = shutil.copytree(home, tmp_path / "other")
    # The recipe's trial, a random one, and one for which the sampler uses the earlier ones.
    for cut in (1, 2, 12):
        with pytest.raises(Killed):
            search(home, *FEW, trials=13, say=at(f"[{cut}/", kill))
    lines: list[str] = []
    cut_off, whole = search(home, *FEW, trials=13, say=lines.append), search(other, *FEW, trials=13)
    assert values(cut_off) == values(whole)
    assert [trial["number"] for trial in cut_off["trials"]] == list(range(1, 14))
    assert [line.split("/")[0] for line in lines if line.startswith("[")] == ["[0", "[12", "[13"]
    assert len({tuple(item.items()) for item in values(whole)}) > 2, "the trials differ"


@pytest.mark.slow
def test_killed_search_resumes_without_losing_a_trial(home: Path, place: PlaceHere) -> None:
    arguments = ["--verbose", "tune", "nsmc", *sets(TINY | {"train.epochs": 8}), "--search", RATE, "--trials", "1"]

    def checkpoints() -> list[Path]:
        return list((home / "work").glob("*/checkpoint-*/COMPLETE"))

    with place.killed(*arguments) as process:
        eventually("a checkpoint", lambda: process.poll() is not None or checkpoints())
    again = place.raw(*arguments, "--json")
    assert again.returncode == 0, again.stderr
    assert "resuming from" in again.stderr
    (trial,) = json.loads(again.stdout)["trials"]
    assert trial["own"]


def test_sigterm_and_interrupt_end_it_in_good_order(home: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TerminatedError, match="Run the same command again"):
        search(home, RATE, trials=2, say=at("[2/", terminate))
    assert signal.getsignal(signal.SIGTERM) is before
    # A shell that starts the tests in the background makes them ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            search(home, RATE, trials=2, say=at("[2/", lambda: os.kill(os.getpid(), signal.SIGINT)))
    finally:
        signal.signal(signal.SIGINT, before)
    (best,) = (home / "tune").glob("*/best.toml")
    assert "trial 1 of 1" in best.read_text(encoding="utf-8")
    assert len(search(home, RATE, trials=2)["trials"]) == 2


def test_damaged_journal_does_not_stop_the_search(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = search(home, *FEW, trials=2)
    journal = Path(first["study"]) / "journal.log"
    journal.with_name("journal.log.lock").symlink_to(journal)
    with journal.open("a", encoding="utf-8") as file:
        file.write('{"op_code": 4, "worker')
    second = search(home, *FEW, trials=3)
    assert second["trials"][:2] == first["trials"]
    assert "removed an incomplete last line" in caplog.text
    assert len(search(home, *FEW, trials=4)["trials"]) == 4


# --- the search space ---


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("train.epochs", "is not KEY=LOW..HIGH or KEY=A,B,C; write --search train.learning_rate=1e-4..1e-3"),
        ("train.epochs=", "is not KEY=LOW..HIGH"),
        ("train.epochs=3..1", "the lower end must be below the upper end"),
        ("train.epochs=1..2.5", "the field takes whole numbers"),
        ("train.epochs=0..3", "`train.epochs` Input should be greater than or equal to 1 (it is 0)"),
        ("train.epochs=1,2,many", "`train.epochs` Input should be a valid integer"),
        ("train.epochs=3", "a single value leaves nothing to search; use --set"),
        ("train.learning_rate=low..high", "both ends must be numbers"),
        ("train.learning_rate=1e-4..inf", "both ends must be numbers"),
        ("train.learning_rate=1e-4..0.5", "`train.learning_rate` Input should be less than or equal to 0.1"),
        ("train.speed=1..2", "unknown key `train.speed`; allowed there: batch_size"),
        ("train.speed=1,2", "unknown key `train.speed`; allowed there: batch_size"),
        ("train.tune=full,head", "needs a pretrained encoder"),
        ("train.seed=1..9", "`train.seed` cannot be searched"),
        ("data.validation_share=0.1..0.2", "`data.validation_share` cannot be searched"),
        ("model.scratch.heads=2,3", "hidden (32) must be a multiple of heads (3)"),
        ("model.max_length=[1],[2]", "[1] is neither a number nor a text"),
    ],
)
def test_unsearchable_field_gives_one_message(item: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        open_search(open_in(tmp_path), TINY, [item])
    assert str(caught.value).startswith(f"--search {item}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_field_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"`train\.epochs` is given twice"):
        open_search(open_in(tmp_path), TINY, ["train.epochs=1,2", "train.epochs=1..3"])


def test_ranges_and_choices_take_the_field_type(tmp_path: Path) -> None:
    items = ["train.warmup=0..1e-1", "train.learning_rate=3e-5..3e-4", "train.epochs=1..4", "train.weight_decay=0,0.1"]
    space = open_search(open_in(tmp_path), TINY, items).space
    assert space == {
        "train.warmup": Span(0.0, 0.1, log=False),
        "train.learning_rate": Span(3e-5, 3e-4, log=True),
        "train.epochs": Span(1, 4, log=False),
        "train.weight_decay": Choices((0.0, 0.1)),
    }
    assert all(type(value) is float for value in (space["train.warmup"].low, *space["train.weight_decay"].values))  # type: ignore[union-attr]


@pytest.mark.parametrize("name", recipe_names())
def test_by_default_it_searches_around_every_recipe(name: str) -> None:
    for profile in read_toml(RECIPES / f"{name}.toml", name)["profiles"]:
        recipe = load_recipe(name, profile)
        space = default_space(recipe)
        assert space["train.learning_rate"].holds(recipe.train.learning_rate)
        for key, field in space.items():
            assert field.holds(getattr(recipe.train, key.removeprefix("train.")))
            for value in (field.low, field.high) if isinstance(field, Span) else field.values:
                load_recipe(name, profile, overrides={key: value})
        assert "train.layer_decay" in space, "every profile starts from a pretrained encoder"
    scratch = load_recipe(name, "embedded", overrides={"model.base": SCRATCH})
    assert "train.layer_decay" not in default_space(scratch)


# --- the command line ---


def test_command_line_searches_and_uses_the_result(place: PlaceHere, tmp_path: Path) -> None:
    out = tmp_path / "best.toml"
    found = place.raw("tune", "nsmc", *sets(TINY), "--search", RATE, "--trials", "2", "--out", str(out))
    assert found.returncode == 0, found.stderr
    assert " validation rows, trial " in found.stdout
    assert f"--overrides {out}" in found.stdout
    assert "searching train.learning_rate: 0.001 to 0.01 (log scale) (recipe: 0.003)" in found.stderr
    trained = place.call("train", "nsmc", "--overrides", str(out))
    assert trained["reused"], "the run reuses the training of the best trial"
    assert f"accuracy {trained['figures']['validation']['accuracy']:.4f} on" in found.stdout


def test_bounds_that_make_no_sense_are_one_line(tmp_path: Path) -> None:
    refused = PlaceHere(tmp_path / "home").call("tune", "nsmc", "--search", "train.epochs=5..1", code=2)
    assert refused["error"]["type"] == "RecipeError"
    assert "the lower end must be below the upper end" in refused["error"]["message"]
