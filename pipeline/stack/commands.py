"""The commands `saebyeok up` and `down`."""

from __future__ import annotations

from typing import TextIO

from pipeline.errors import FAILED, INTERRUPTED, REFUSED
from pipeline.job import open_store
from pipeline.settings import Settings
from pipeline.stack import lifecycle as control
from pipeline.stack.airflow_api import AirflowApi, TaskInstance
from pipeline.stack.airflow_home import airflow_home
from pipeline.stack.follow_run import (
    RunFollower,
    failure_reason,
    follow,
    read_task_log,
    skip_reason,
    split,
    steps_done,
    task_log,
)
from pipeline.stack.lifecycle import DAG, DAGS, SCHEDULED
from pipeline.stack.run_report import ARTIFACT_TASKS, RecipeOutcome, is_sample, made_by, outcomes, summary
from pipeline.stack.terminal import Progress
from pipeline.stages.stage import STAGES
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.decisions import read_decision
from pipeline.store.deployments import DeploymentLog
from pipeline.store.figures import EvaluationFigures


def up(settings: Settings, out: TextIO, *, run: bool | None = None, begun: float | None = None) -> int:
    """Start the stack, run the DAG if that is due (see `run_to_follow`), and print the results.

    The printed times count from `begun`, a time of the monotonic clock, or from now.
    Returns the exit code: 0, FAILED, REFUSED, or INTERRUPTED after Ctrl-C.
    """
    progress = Progress(out, begun)
    progress.say("Starting takes about a minute. A run on the sample then takes 3 to 6 minutes on two cores.")
    api = control.up(settings, progress)
    name = run_to_follow(api, open_store(settings), progress, run=run)
    if name is None:
        progress.say(f"No run was started, and {DAG} is left as it is. To retrain now: make up RUN=yes")
        for line in summary(settings, [], paused=_paused(api), succeeded=True):
            progress.say(line)
        return 0
    try:
        state = follow(api, DAG, name, _follower(settings, api, name, progress))
    except KeyboardInterrupt:
        progress.say("\nThe run continues. Follow it again: make up. Check it: make status. Stop the stack: make down.")
        return INTERRUPTED
    results = outcomes(settings, api, DAG, name)
    failed = [task for task in api.tasks(DAG, name) if task.state == "failed"]
    lines = summary(settings, results, paused=_paused(api), succeeded=state == "success")
    for line in (*lines, *_failures(settings, name, failed)):
        progress.say(line)
    return _status(state, results, progress)


def run_to_follow(api: AirflowApi, store: Store, progress: Progress, *, run: bool | None) -> str | None:
    """Return the run in progress, a new run, or None, and unpause what the run needs.

    `run` is the user's choice. If `run` is None, a new run is triggered if the store is empty (this also switches the
    schedules on), or if nothing is deployed and the DAG is not paused. So the run never replaces a live model.
    """
    if run is False:
        return None
    empty = not any(store.list(stage.kind) for stage in STAGES)
    needed = SCHEDULED if empty else (DAG,) if run else ()
    for dag in needed:
        if api.is_paused(dag):
            api.unpause(dag)
            progress.step(f"switched on the schedule of {dag}")
    if current := api.active_run(DAG):
        progress.step(f"following {api.url}/dags/{DAG}/runs/{current}")
        return current
    if not (run or empty or (DeploymentLog(store).latest() is None and not api.is_paused(DAG))):
        return None
    name = api.trigger(DAG, {}, "Started by `saebyeok up`")
    progress.step(f"triggered {api.url}/dags/{DAG}/runs/{name}")
    return name


def _paused(api: AirflowApi) -> list[str]:
    return [dag for dag in DAGS if api.is_paused(dag)]


def _status(state: str, results: list[RecipeOutcome], progress: Progress) -> int:
    refused = [item.recipe for item in results if item.decision and not item.decision.promote]
    if refused:
        progress.say(f"\nA gate refused {' and '.join(refused)}; see the reason above. The current model stays live.")
    if state != "success":
        return FAILED
    return REFUSED if refused else 0


def _follower(settings: Settings, api: AirflowApi, run: str, progress: Progress) -> RunFollower:
    store = open_store(settings)
    logs = airflow_home(settings) / "logs"

    def outcome(task: str) -> str:
        recipe, stage = split(task)
        artifact = made_by(api, store, DAG, run, task) if stage in ARTIFACT_TASKS else None
        sample = is_sample(made_by(api, store, DAG, run, f"{recipe}.validate"))
        return in_brief(stage, artifact, run, sample=sample) if artifact else ""

    def reason(task: TaskInstance) -> str:
        log = task_log(logs, DAG, run, task)
        return skip_reason(log) if task.state == "skipped" else failure_reason(log)

    def detail(task: TaskInstance) -> str:
        return steps_done(task_log(logs, DAG, run, task))

    return RunFollower(api.task_order(DAG), progress, outcome, reason, detail)


def in_brief(stage: str, artifact: Artifact, run: str, *, sample: bool) -> str:
    """Return the result of a stage in a few words; `sample` tells whether it used the shipped sample."""
    words = ["reused from the store"] if artifact.manifest.run != run else []
    if stage == "evaluate":
        figures = EvaluationFigures.read(artifact).test
        words += [f"{name} {figure.value:.4f}" for name, figure in figures.items()]
    if stage == "decide":
        decision = read_decision(artifact)
        words.append("promoted" if decision.promote else f"REFUSED: {decision.reason}")
    return ", ".join([*words, "on sample data"] if sample else words)


def _failures(settings: Settings, run: str, failed: list[TaskInstance]) -> list[str]:
    """Return the reason and the last log lines of each failed task."""
    lines = []
    for task in failed:
        log = task_log(airflow_home(settings) / "logs", DAG, run, task)
        lines += ["", f"{task.task_id} FAILED: {failure_reason(log)}", "  last lines of its log:"]
        lines += [f"    {line[:300]}" for line in read_task_log(log)[-8:]]
        lines.append(f"  full log: {log}")
    return lines


def down(settings: Settings, out: TextIO) -> None:
    """Stop the processes that `up` started."""
    control.down(settings, Progress(out))
