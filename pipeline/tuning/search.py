"""Hyperparameter search on the validation split; the best values become a file of recipe overrides."""

from __future__ import annotations

import logging
import os
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
from pipeline.signals import on_sigterm
from pipeline.stages.running import build
from pipeline.stages.stage import TOKENIZE, TRAIN, VALIDATE
from pipeline.stages.train import VERSION as TRAINING
from pipeline.stages.train import alone
from pipeline.store.artifacts import Artifact
from pipeline.store.deployments import DeploymentLog
from pipeline.store.figures import TokenizationFigures, TrainingFigures
from pipeline.store.files.store_errors import full_disk_errors, store_errors
from pipeline.store.manifest import make_key
from pipeline.tuning.results import Report, Tried
from pipeline.tuning.space import Choices, Search, Span

log = logging.getLogger(__name__)

VERSION = 1
#: Attributes of trials in the study: the mark of the unchanged recipe's trial, and the results of a finished trial.
OWN, TRIED = "own", "tried"


def tune(search: Search, trials: int, out: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Run trials until `trials` are finished, the unchanged recipe first, and write the best to `out` after each.

    The state is in `HOME/tune/<recipe>-<profile>-<key>`; a search with the same recipe, data, fields and bounds resumes
    from it. An interrupted trial resumes from its checkpoint and counts once. If `out` is None, it is `best.toml` in
    that directory. `say` prints progress lines.

    Returns the document for `--json` (`Report.document`). Raises TrainingDivergedError if every trial failed,
    TerminatedError at SIGTERM, StoreError if `out` cannot be written, and the errors of the stages.
    """
    job = search.job
    with _terminable():
        say(f"[0/{trials}] {job.recipe.name} validate, tokenize ...")
        validated = build(job, VALIDATE)
        tokenized = build(job, TOKENIZE, validated)
        directory = job.settings.home / "tune" / f"{job.recipe.name}-{job.recipe.profile}-{_key(search, tokenized)}"
        target = out or directory / "best.toml"
        report = Report(search, trials, TokenizationFigures.read(tokenized).validation.rows, target, say)
        with full_disk_errors(str(job.settings.home)), alone(directory, "searches"):
            study = _open_study(directory)
            with store_errors(str(target)):
                target.parent.mkdir(parents=True, exist_ok=True)
            _try_all(study, search, validated, report)
            return report.document(_tried(study), directory)


def _key(search: Search, tokenized: Artifact) -> str:
    """Return the key of the search: a digest of everything that comparable trials have in common."""
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
    """Return the study in `directory`, without a running trial; no other process may have it open."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directory.mkdir(parents=True, exist_ok=True)
    journal = directory / "journal.log"
    _mend(journal)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(storage=storage, study_name=directory.name, direction="maximize", load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        # An interrupted trial does not count; the next trial gets the same values.
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _mend(journal: Path) -> None:
    """Repair the journal after a kill: remove its lock, and an incomplete last line, which would make it unreadable."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.is_file():
        whole = journal.read_bytes().rfind(b"\n") + 1
        if whole < journal.stat().st_size:
            log.warning("removed an incomplete last line from %s", journal)
            os.truncate(journal, whole)


def _try_all(study: optuna.Study, search: Search, validated: Artifact, report: Report) -> None:
    if ended := len(_tried(study)):
        report.say(f"      resuming after {ended} finished trials")
    for number in range(ended + 1, report.trials + 1):
        trial = _ask(study, search, number)
        own = OWN in trial.user_attrs
        values = _values(trial, search, own=own)
        report.begin(number, values, own=own)
        _try(study, trial, values, search, validated)
        report.end(_tried(study))


def _ask(study: optuna.Study, search: Search, number: int) -> Trial:
    """Return the next trial.

    Each trial has its own seeded sampler, so that its values depend only on the finished trials: a resumed search
    continues exactly as an uninterrupted one.
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
        # If the recipe's value is outside the bounds of a field, the sampler cannot use it.
        if field.holds(search.own[key]):
            _suggest(trial, key, field)
    return search.own


def _suggest(trial: Trial, key: str, field: Span | Choices) -> Any:
    if isinstance(field, Choices):
        return trial.suggest_categorical(key, field.values)
    if isinstance(field.low, int) and isinstance(field.high, int):
        return trial.suggest_int(key, field.low, field.high, log=field.log)
    value = trial.suggest_float(key, field.low, field.high, log=field.log)
    # Three significant digits, as a person would write it; more make no difference to a training.
    return min(max(float(f"{value:.3g}"), field.low), field.high)


def _try(study: optuna.Study, trial: Trial, values: dict[str, Any], search: Search, validated: Artifact) -> None:
    try:
        job = search.job_with(values)
        trained = build(job, TRAIN, build(job, TOKENIZE, validated))
    except (TrainingDivergedError, RecipeError) as error:
        trial.set_user_attr(TRIED, {"values": values, "problem": str(error)})
        study.tell(trial, state=TrialState.FAIL)
        return
    figures = TrainingFigures.read(trained)
    trial.set_user_attr(TRIED, {"values": values, "seconds": figures.seconds, "ref": trained.ref})
    study.tell(trial, figures.validation[job.recipe.selection_metric])


def _tried(study: optuna.Study) -> list[Tried]:
    """Return the finished trials, in order."""
    ended = [trial for trial in study.get_trials(deepcopy=False) if _has_ended(trial)]
    return [
        Tried(number, OWN in trial.user_attrs, value=trial.value, **trial.user_attrs[TRIED])
        for number, trial in enumerate(ended, start=1)
    ]


def _has_ended(trial: FrozenTrial) -> bool:
    failed = trial.state == TrialState.FAIL and "problem" in trial.user_attrs.get(TRIED, {})
    return failed or trial.state == TrialState.COMPLETE


class _Terminated(BaseException):
    """SIGTERM as an exception. Not an Exception, because libraries that catch Exception would swallow it."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into TerminatedError while the block runs; a running training first writes a checkpoint."""

    def terminate() -> None:
        raise _Terminated

    try:
        with on_sigterm(terminate):
            yield
    except _Terminated as error:
        said = "Stopped by SIGTERM. Run the same command again to resume after the finished trials."
        raise TerminatedError(said) from error
