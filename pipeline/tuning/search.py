"""Tune: search for better hyperparameters, judged on the validation side; the best are a file of overrides."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.errors import RecipeError, TerminatedError, TrainingDivergedError
from pipeline.stages.stage import TOKENIZE, TRAIN, VALIDATE
from pipeline.stages.train import VERSION as TRAINING
from pipeline.stages.train import alone
from pipeline.store.artifacts import Artifact
from pipeline.store.deployments import DeploymentLog
from pipeline.store.manifest import make_key
from pipeline.store.store_errors import full_disk_errors, store_errors
from pipeline.tuning.results import Report, Tried
from pipeline.tuning.space import Choices, Search, Span

log = logging.getLogger(__name__)

VERSION = 1
#: Attributes of trials in the study: that it is of the recipe as it is, and all that is kept of one that has ended.
OWN, TRIED = "own", "tried"


def tune(search: Search, trials: int, out: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Try until `trials` have ended, the recipe as it is first, and write the best so far to `out` after each.

    All is kept in `HOME/tune/<recipe>-<profile>-<key>`, where the same search (recipe, data, fields and bounds) goes
    on. A trial that was cut off is tried again, from its checkpoint, and counts once. `out` is `best.toml` there where
    it is None. `say` is given lines for a person.

    Returns what `--json` prints: `Report.document`. Raises TrainingDivergedError where every trial failed,
    TerminatedError at SIGTERM, StoreError where `out` cannot be written, and what the stages raise.
    """
    job = search.job
    with _terminable():
        say(f"[0/{trials}] {job.recipe.name} validate, tokenize ...")
        validated = VALIDATE.run(job)
        tokenized = TOKENIZE.run(job, validated)
        directory = job.settings.home / "tune" / f"{job.recipe.name}-{job.recipe.profile}-{_key(search, tokenized)}"
        target = out or directory / "best.toml"
        report = Report(search, trials, tokenized.figures["validation"]["rows"], target, say)
        with full_disk_errors(str(job.settings.home)), alone(directory, "searches"):
            study = _open_study(directory)
            with store_errors(str(target)):
                target.parent.mkdir(parents=True, exist_ok=True)
            _try_all(study, search, validated, report)
            return report.document(_tried(study), directory)


def _key(search: Search, tokenized: Artifact) -> str:
    """What all trials that can be compared with each other have in common."""
    recipe = search.job.recipe
    read = {"kind", "labels", "score_range", "similar_at", "model", "train"}
    fields = {
        "recipe": recipe.model_dump(mode="json", include=read),
        "space": {key: asdict(field) for key, field in search.space.items()},
        "training": TRAINING,
    }
    inputs = {"tokenized": tokenized.key}
    if recipe.train.start == "champion" and (champion := DeploymentLog(search.job.store).champion(recipe.name)):
        inputs["champion"] = champion.key
    return make_key("tune", VERSION, fields, inputs)


def _open_study(directory: Path) -> optuna.Study:
    """The study in `directory`, with no trial under way; nobody else may have it open."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directory.mkdir(parents=True, exist_ok=True)
    journal = directory / "journal.log"
    _mend(journal)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(storage=storage, study_name=directory.name, direction="maximize", load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        # Cut off: it does not count, and the next one is given the same values.
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _mend(journal: Path) -> None:
    """Take away what a kill has left: a lock, and half a line, after which nothing could be read any more."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.is_file():
        whole = journal.read_bytes().rfind(b"\n") + 1
        if whole < journal.stat().st_size:
            log.warning("%s ends in half a line: removed", journal)
            os.truncate(journal, whole)


def _try_all(study: optuna.Study, search: Search, validated: Artifact, report: Report) -> None:
    if ended := len(_tried(study)):
        report.say(f"      going on from {ended} trials that have ended")
    for number in range(ended + 1, report.trials + 1):
        trial = _ask(study, search, number)
        own = OWN in trial.user_attrs
        values = _values(trial, search, own=own)
        report.begin(number, values, own=own)
        _try(study, trial, values, search, validated)
        report.end(_tried(study))


def _ask(study: optuna.Study, search: Search, number: int) -> Trial:
    """The next trial.

    With a sampler of its own, so that what it is given follows from the trials that have ended and from nothing else:
    a search that was cut off goes on as one that was not.
    """
    study.sampler = TPESampler(seed=search.job.recipe.train.seed + number)
    if number == 1 and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        inside = {key: value for key, value in search.own.items() if search.space[key].holds(value)}
        study.enqueue_trial(inside, user_attrs={OWN: True})
    return study.ask()


def _values(trial: Trial, search: Search, *, own: bool) -> dict[str, Any]:
    if not own:
        return {key: _suggest(trial, key, field) for key, field in search.space.items()}
    for key, field in search.space.items():
        # Of a field where the recipe lies outside the bounds its trial teaches the sampler nothing.
        if field.holds(search.own[key]):
            _suggest(trial, key, field)
    return search.own


def _suggest(trial: Trial, key: str, field: Span | Choices) -> Any:
    if isinstance(field, Choices):
        return trial.suggest_categorical(key, field.values)
    if isinstance(field.low, int) and isinstance(field.high, int):
        return trial.suggest_int(key, field.low, field.high, log=field.log)
    value = trial.suggest_float(key, field.low, field.high, log=field.log)
    # Three digits, as a person would write it: no training tells more of them apart.
    return min(max(float(f"{value:.3g}"), field.low), field.high)


def _try(study: optuna.Study, trial: Trial, values: dict[str, Any], search: Search, validated: Artifact) -> None:
    try:
        job = search.job_with(values)
        trained = TRAIN.run(job, TOKENIZE.run(job, validated))
    except (TrainingDivergedError, RecipeError) as error:
        trial.set_user_attr(TRIED, {"values": values, "problem": str(error)})
        study.tell(trial, state=TrialState.FAIL)
        return
    trial.set_user_attr(TRIED, {"values": values, "seconds": trained.figures["seconds"], "ref": trained.ref})
    study.tell(trial, trained.figures["validation"][job.recipe.metrics[0]])


def _tried(study: optuna.Study) -> list[Tried]:
    """The trials that have ended, in their order."""
    ended = [trial for trial in study.get_trials(deepcopy=False) if _has_ended(trial)]
    return [
        Tried(number, OWN in trial.user_attrs, value=trial.value, **trial.user_attrs[TRIED])
        for number, trial in enumerate(ended, start=1)
    ]


def _has_ended(trial: FrozenTrial) -> bool:
    failed = trial.state == TrialState.FAIL and "problem" in trial.user_attrs.get(TRIED, {})
    return failed or trial.state == TrialState.COMPLETE


class _Terminated(BaseException):
    """SIGTERM on its way up: as an Exception, libraries that go on after any of those would swallow it."""


@contextmanager
def _terminable() -> Iterator[None]:
    """While this is open SIGTERM is a TerminatedError; a training under way first writes a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        # Signals are not ours to handle.
        yield
        return

    def terminate(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except _Terminated as error:
        said = "stopped by SIGTERM; the same again goes on from the trials that have ended"
        raise TerminatedError(said) from error
    finally:
        signal.signal(signal.SIGTERM, before)
