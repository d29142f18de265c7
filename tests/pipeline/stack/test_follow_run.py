"""Following a run: the output on a terminal and in a file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

from pipeline.stack.airflow_api import TaskInstance
from pipeline.stack.follow_run import RunFollower, failure_reason, skip_reason, steps_done
from pipeline.stack.terminal import Progress

ORDER = ["nsmc.validate", "nsmc.train", "nsmc.deploy"]


def look(state: dict[str, str | None], train_tries: int = 1, pool: str = "default_pool") -> list[TaskInstance]:
    """Return the tasks of a run, unordered."""
    tries = {"nsmc.train": train_tries}
    return [
        TaskInstance(task_id=name, state=state.get(name), try_number=tries.get(name, 1), duration=62.0, pool=pool)
        for name in reversed(ORDER)
    ]


def make_follower(out: io.StringIO, clock: Callable[[], float] = lambda: 0.0) -> RunFollower:
    reasons = {"nsmc.train": "the loss became NaN\n  at step 7\nsee the log"}
    reasons |= {"nsmc.validate": "it has no data", "nsmc.deploy": ""}
    outcomes = {"nsmc.validate": "reused from the store"}
    return RunFollower(
        ORDER,
        Progress(out),
        outcome=lambda task: outcomes.get(task, ""),
        reason=lambda task: reasons[task.task_id],
        detail=lambda task: "step 3 of 9" if task.task_id == "nsmc.train" else "",
        clock=clock,
    )


def texts(out: io.StringIO) -> list[str]:
    """Return the lines without the time before them."""
    return [line.lstrip().split("  ", maxsplit=1)[1] for line in out.getvalue().splitlines()]


def test_each_change_is_one_line_with_next_task() -> None:
    out = io.StringIO()
    follower = make_follower(out)
    for _ in range(2):
        follower.look(look({"nsmc.validate": "running"}))
    for state, tries in (("running", 1), ("up_for_retry", 1), ("running", 2), ("failed", 2)):
        follower.look(look({"nsmc.validate": "success", "nsmc.train": state}, tries))
    follower.look(look({"nsmc.validate": "success", "nsmc.train": "failed", "nsmc.deploy": "upstream_failed"}, 2))
    assert texts(out) == [
        "nsmc       validate  started",
        "nsmc       validate  done in 1 min 2 s, reused from the store; next: train",
        "nsmc       train     started",
        "nsmc       train     failed, will be retried: the loss became NaN ... see the log",
        "nsmc       train     started (try 2)",
        "nsmc       train     FAILED: the loss became NaN ... see the log",
    ]


def test_skipped_task_says_why_if_it_knows() -> None:
    out = io.StringIO()
    make_follower(out).look(look({"nsmc.validate": "skipped", "nsmc.deploy": "skipped"}))
    assert texts(out) == ["nsmc       validate  skipped: it has no data", "nsmc       deploy    skipped"]


def test_skip_reason_is_read_from_task_log(tmp_path: Path) -> None:
    log = tmp_path / "attempt=1.log"
    assert skip_reason(log) == ""
    log.write_text(json.dumps({"level": "info", "event": "skipped: as a library says it"}))
    assert skip_reason(log) == ""
    log.write_text(json.dumps({"level": "warning", "event": "skipped: it has no data"}))
    assert skip_reason(log) == "it has no data"


def test_the_standing_line_says_stage_and_elapsed() -> None:
    now = 0.0
    follower = make_follower(io.StringIO(), clock=lambda: now)
    training = look({"nsmc.validate": "success", "nsmc.train": "running"})
    follower.look(training)
    now = 65.0
    assert follower.standing(training[::-1]) == "nsmc: train for 1 min 5 s (step 3 of 9); next: deploy"
    assert follower.standing(look({})[::-1]) == "nsmc: validate comes next"
    queued = look({"nsmc.validate": "success", "nsmc.train": "scheduled"}, pool="gpu")
    assert follower.standing(queued[::-1]) == (
        "nsmc: train waits until another recipe's task ends (one trains, evaluates or exports at a time)"
    )
    assert follower.standing(look(dict.fromkeys(ORDER, "success"))) == "nsmc: ended"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_status_line_is_rewritten_only_on_terminal() -> None:
    terminal, file = Terminal(), io.StringIO()
    for out in (terminal, file):
        progress = Progress(out)
        progress.show("train for 1.0 s")
        progress.show("train for 2.0 s")
        progress.step("done")
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().count("\r") == 3
    assert texts(file) == ["done"]


def test_failure_reason_is_read_from_task_log(tmp_path: Path) -> None:
    log = tmp_path / "attempt=1.log"
    events = [
        {"level": "info", "event": "::group::Execute"},
        {
            "level": "error",
            "event": "Task failed with exception",
            "error_detail": [
                {"exc_type": "AirflowFailException", "exc_value": "ratings_train.txt, line 7: not UTF-8"},
                {"exc_type": "UnicodeDecodeError", "exc_value": "invalid start byte"},
            ],
        },
        {"level": "error", "event": "nightly_retrain: nsmc.validate failed"},
    ]
    log.write_text("\n".join(json.dumps(event) for event in events))
    assert failure_reason(log) == "ratings_train.txt, line 7: not UTF-8"
    assert failure_reason(tmp_path / "absent.log") == f"no log at {tmp_path / 'absent.log'}"


def test_newest_training_step_is_read_from_log(tmp_path: Path) -> None:
    log = tmp_path / "attempt=1.log"
    assert steps_done(log) == ""
    log.write_text("x" * 50_000 + '{"event": "step 20 of 606: loss 0.3"}\n{"event": "step 40 of 606: loss 0.2"}\n')
    assert steps_done(log) == "step 40 of 606"
    log.write_text('{"event": "answering: row 2048 of 50000"}\n{"event": "answering: row 4096 of 50000"}\n')
    assert steps_done(log) == "row 4096 of 50000"
