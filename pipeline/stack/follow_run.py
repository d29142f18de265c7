"""Following a run of the DAG over REST: what each recipe is at, since when, and what comes next."""

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
from pipeline.stack.airflow_api import OPEN, AirflowApi, Task
from pipeline.stack.terminal import Progress, clock

ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
#: Seconds between two looks, and how many may fail in a row before we give up on Airflow.
POLL_SECONDS = 2.0
FAILED_POLLS = 30


@dataclass
class Follower:
    """Says what changes in a run; each look at it is a list of tasks."""

    order: list[str]
    progress: Progress
    #: What a task that has ended came to, in a few words.
    outcome: Callable[[str], str]
    #: Why a task failed, in a few words.
    reason: Callable[[Task], str]
    #: How far a running task is, in a few words, or nothing.
    detail: Callable[[Task], str]
    clock: Callable[[], float] = time.monotonic
    _states: dict[str, tuple[str | None, int]] = field(default_factory=dict)
    _begun: dict[str, float] = field(default_factory=dict)

    def look(self, tasks: Iterable[Task]) -> None:
        """Say what has changed since the last look, then where it stands."""
        found = {task.task_id: task for task in tasks}
        current = [found[name] for name in self.order if name in found]
        for task in current:
            before = self._states.get(task.task_id)
            if before != (task.state, task.try_number):
                self._states[task.task_id] = (task.state, task.try_number)
                self._changed(task)
        self.progress.show(self.standing(current))

    def standing(self, tasks: list[Task]) -> str:
        """One line: what each group is at."""
        parts = []
        for group in dict.fromkeys(split(task.task_id)[0] for task in tasks):
            own = [task for task in tasks if split(task.task_id)[0] == group]
            now = next((task for task in own if task.state not in ENDED), None)
            if now is None:
                parts.append(f"{group}: ended")
            elif now.state == "running":
                since = self.clock() - self._begun.get(now.task_id, self.clock())
                far = f" ({detail})" if (detail := self.detail(now)) else ""
                parts.append(f"{group}: {split(now.task_id)[1]} for {clock(since)}{far}{self._next(now.task_id)}")
            else:
                parts.append(f"{group}: {split(now.task_id)[1]} {waiting_for(now)}")
        return " | ".join(parts)

    def _changed(self, task: Task) -> None:
        group, name = split(task.task_id)
        if task.state == "running":
            self._begun[task.task_id] = self.clock()
            again = f" (try {task.try_number})" if task.try_number > 1 else ""
            text = f"started{again}"
        elif task.state == "success":
            outcome = self.outcome(task.task_id)
            text = f"done in {clock(task.duration or 0)}{f', {outcome}' if outcome else ''}{self._next(task.task_id)}"
        elif task.state in ("failed", "up_for_retry"):
            what = "FAILED" if task.state == "failed" else "failed, and is tried again"
            text = f"{what}: {in_a_line(self.reason(task))}"
        elif task.state == "skipped":
            text = "skipped"
        else:
            # Waiting is said by `standing`; that nothing comes after a failed task needs no line for each.
            return
        self.progress.step(f"{group:<10} {name:<9} {text}")

    def _next(self, task: str) -> str:
        """The task of the same group that comes next, as the end of a sentence."""
        group = split(task)[0]
        rest = self.order[self.order.index(task) + 1 :]
        following = next((name for name in rest if split(name)[0] == group), None)
        return f"; next: {split(following)[1]}" if following else ""


def split(task: str) -> tuple[str, str]:
    """Group and name of a task id; a task outside every group is its own."""
    group, _, name = task.rpartition(".")
    return group or task, name


def in_a_line(text: str) -> str:
    """The first and the last line of a text, which is where a sentence and a cause stand."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ... ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else ""


def waiting_for(task: Task) -> str:
    """Why a task that has not started has not."""
    if task.state in ("scheduled", "queued") and task.pool != "default_pool":
        return f"waits for its turn in pool {task.pool}"
    if task.state == "up_for_retry":
        return "waits to be tried again"
    return "comes next" if task.state is None else task.state.replace("_", " ")


def follow(api: AirflowApi, dag: str, run: str, follower: Follower) -> str:
    """Follow a run to its end. Returns its state, `success` or `failed`.

    Raises ServiceError where Airflow stops answering for good.
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
            state = OPEN[0]
        if state not in OPEN:
            return state
        time.sleep(POLL_SECONDS)


def task_log(logs: Path, dag: str, run: str, task: Task) -> Path:
    """Where Airflow keeps the log of a task's last try."""
    return logs / f"dag_id={dag}" / f"run_id={run}" / f"task_id={task.task_id}" / f"attempt={task.try_number}.log"


def steps_done(log: Path) -> str:
    """The newest `step N of M` of a training's log, `row N of M` of another's, or nothing."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        found = re.findall(r"(?:step|row) \d+ of \d+", file.read().decode("utf-8", errors="replace"))
        return found[-1] if found else ""
    return ""


def read_task_log(log: Path) -> list[str]:
    """The lines of a task's log as text: level and message, and an error's sentence below."""
    lines = []
    with suppress(OSError):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                lines.append(line)
                continue
            lines.append(f"{event.get('level', '')}: {event.get('event', '')}".removeprefix(": "))
            # The first is what was raised, the others what it came from.
            causes = {error["exc_value"]: describe(error) for error in reversed(event.get("error_detail") or [])}
            lines += [f"  {text}" for text in reversed(causes.values())]
    return [line for line in lines if "::group::" not in line and "::endgroup::" not in line]


def describe(error: dict[str, str]) -> str:
    """An exception of a task's log; the DAG's own wrapping carries nothing but the sentence."""
    wrapped = error["exc_type"] == "AirflowFailException"
    return error["exc_value"] if wrapped else f"{error['exc_type']}: {error['exc_value']}"


def failure_reason(log: Path) -> str:
    """The sentence that a task failed with, from its log."""
    lines = read_task_log(log)
    for line, following in pairwise(lines):
        if line.startswith("error: Task failed"):
            return following.strip()
    return lines[-1] if lines else f"no log at {log}"
