"""Follow a run of the DAG over REST: the current task of each recipe, its duration, and the next task."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from pipeline.errors import ServiceError
from pipeline.progress import format_duration
from pipeline.stack.airflow_api import UNFINISHED, AirflowApi, TaskInstance
from pipeline.stack.terminal import Progress

#: Start of a task's log line about the reason why it skips itself (`skip` in dags/wiring.py).
SKIPPED = "warning: skipped: "
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
#: Seconds between polls, and the number of consecutive failed polls after which following the run fails.
POLL_SECONDS = 2.0
FAILED_POLLS = 30


@dataclass
class RunFollower:
    """Prints the changes in a run, from the lists of its tasks that it gets one after the other."""

    order: list[str]
    progress: Progress
    #: Result of a finished task, in a few words.
    outcome: Callable[[str], str]
    #: Reason why a task failed, in a few words.
    reason: Callable[[TaskInstance], str]
    #: Progress of a running task, in a few words, or an empty string.
    detail: Callable[[TaskInstance], str]
    clock: Callable[[], float] = time.monotonic
    _states: dict[str, tuple[str | None, int]] = field(default_factory=dict)
    _begun: dict[str, float] = field(default_factory=dict)

    def look(self, tasks: Iterable[TaskInstance]) -> None:
        """Print the changes since the last look, then the current state."""
        found = {task.task_id: task for task in tasks}
        current = [found[name] for name in self.order if name in found]
        for task in current:
            before = self._states.get(task.task_id)
            if before != (task.state, task.try_number):
                self._states[task.task_id] = (task.state, task.try_number)
                self._changed(task)
        self.progress.show(self.standing(current))

    def standing(self, tasks: list[TaskInstance]) -> str:
        """Return one line with the current task of each group."""
        parts = []
        for group in dict.fromkeys(split(task.task_id)[0] for task in tasks):
            own = [task for task in tasks if split(task.task_id)[0] == group]
            now = next((task for task in own if task.state not in ENDED), None)
            if now is None:
                parts.append(f"{group}: ended")
            elif now.state == "running":
                since = self.clock() - self._begun.get(now.task_id, self.clock())
                far = f" ({detail})" if (detail := self.detail(now)) else ""
                name, took = split(now.task_id)[1], format_duration(since)
                parts.append(f"{group}: {name} for {took}{far}{self._next(now.task_id)}")
            else:
                parts.append(f"{group}: {split(now.task_id)[1]} {waiting_for(now)}")
        return " | ".join(parts)

    def _changed(self, task: TaskInstance) -> None:
        group, name = split(task.task_id)
        if task.state == "running":
            self._begun[task.task_id] = self.clock()
            again = f" (try {task.try_number})" if task.try_number > 1 else ""
            text = f"started{again}"
        elif task.state == "success":
            outcome = self.outcome(task.task_id)
            done = f"done in {format_duration(task.duration or 0)}"
            text = f"{done}{f', {outcome}' if outcome else ''}{self._next(task.task_id)}"
        elif task.state in ("failed", "up_for_retry"):
            what = "FAILED" if task.state == "failed" else "failed, will be retried"
            text = f"{what}: {in_a_line(self.reason(task))}"
        elif task.state == "skipped":
            reason = self.reason(task)
            text = f"skipped: {reason}" if reason else "skipped"
        else:
            # `standing` shows the waiting tasks, and a failed task needs no line for each task after it.
            return
        self.progress.step(f"{group:<10} {name:<9} {text}")

    def _next(self, task: str) -> str:
        """Return the next task of the same group, as the end of a sentence, or an empty string."""
        group = split(task)[0]
        rest = self.order[self.order.index(task) + 1 :]
        following = next((name for name in rest if split(name)[0] == group), None)
        return f"; next: {split(following)[1]}" if following else ""


def split(task: str) -> tuple[str, str]:
    """Return group and name of a task id; a task outside every group is its own group."""
    group, _, name = task.rpartition(".")
    return group or task, name


def in_a_line(text: str) -> str:
    """Return the first and the last line of a text, which hold the message and the cause."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ... ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else ""


def waiting_for(task: TaskInstance) -> str:
    """Return the reason why a task has not started yet."""
    if task.state in ("scheduled", "queued") and task.pool != "default_pool":
        return "waits until another recipe's task ends (one trains, evaluates or exports at a time)"
    if task.state == "up_for_retry":
        return "waits for a retry"
    return "comes next" if task.state is None else task.state.replace("_", " ")


def follow(api: AirflowApi, dag: str, run: str, follower: RunFollower) -> str:
    """Follow a run to its end and return its state, `success` or `failed`.

    Raises ServiceError if more than `FAILED_POLLS` consecutive polls fail.
    """
    failures = 0
    while True:
        try:
            state = api.run_state(dag, run)
            follower.look(api.tasks(dag, run))
            failures = 0
        except ServiceError:
            failures += 1
            if failures > FAILED_POLLS:
                raise
            state = UNFINISHED[0]
        if state not in UNFINISHED:
            return state
        time.sleep(POLL_SECONDS)


def task_log(logs: Path, dag: str, run: str, task: TaskInstance) -> Path:
    """Return the path of the log of a task's last try."""
    return logs / f"dag_id={dag}" / f"run_id={run}" / f"task_id={task.task_id}" / f"attempt={task.try_number}.log"


def steps_done(log: Path) -> str:
    """Return the newest `step N of M` (training) or `row N of M` (other tasks) in a log, or an empty string."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        found = re.findall(r"(?:step|row) \d+ of \d+", file.read().decode("utf-8", errors="replace"))
        return found[-1] if found else ""
    return ""


def read_task_log(log: Path) -> list[str]:
    """Return the lines of a task's log as text, `level: message` with errors below; empty if it cannot be read."""
    lines = []
    with suppress(OSError):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                lines.append(line)
                continue
            lines.append(f"{event.get('level', '')}: {event.get('event', '')}".removeprefix(": "))
            # The first is the raised exception, the others are its causes.
            causes = {error["exc_value"]: describe(error) for error in reversed(event.get("error_detail") or [])}
            lines += [f"  {text}" for text in reversed(causes.values())]
    return [line for line in lines if "::group::" not in line and "::endgroup::" not in line]


def describe(error: dict[str, str]) -> str:
    """Return type and message of an exception in a task's log; only the message for AirflowFailException."""
    wrapped = error["exc_type"] == "AirflowFailException"
    return error["exc_value"] if wrapped else f"{error['exc_type']}: {error['exc_value']}"


def skip_reason(log: Path) -> str:
    """Return why a task skipped itself, from its log; empty if another task's end skipped it."""
    reasons = [line.partition(SKIPPED)[2] for line in read_task_log(log) if SKIPPED in line]
    return reasons[-1] if reasons else ""


def failure_reason(log: Path) -> str:
    """Return the error message that a task failed with, from its log."""
    lines = read_task_log(log)
    for line, following in pairwise(lines):
        if line.startswith("error: Task failed"):
            return following.strip()
    return lines[-1] if lines else f"no log at {log}"
