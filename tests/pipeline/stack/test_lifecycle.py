"""Starting and stopping: twice, two at once, with other settings."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.errors import StackError
from pipeline.settings import Settings
from pipeline.stack import lifecycle as control
from pipeline.stack.processes import Member, StackRecord, is_running
from pipeline.stack.terminal import Progress


def test_down_where_nothing_was_started_is_no_error(settings: Settings) -> None:
    out = io.StringIO()
    control.down(settings, Progress(out))
    assert out.getvalue().startswith("nothing to stop")
    assert not settings.home.exists()


def test_down_stops_once_and_forgets(
    settings: Settings, sleeper: Callable[..., tuple[StackRecord, Member]], stranger: psutil.Process
) -> None:
    record, member = sleeper()
    settings.home.mkdir(parents=True)
    control.record_path(settings).write_text(record.model_dump_json())
    out = io.StringIO()
    control.down(settings, Progress(out))
    control.down(settings, Progress(out))
    assert "stopped Airflow and the service (1 processes)" in out.getvalue()
    assert "nothing to stop" in out.getvalue()
    assert not is_running(member, record.mark)
    assert stranger.is_running()


def test_down_stops_what_a_damaged_record_was_of(
    settings: Settings, sleeper: Callable[..., tuple[StackRecord, Member]]
) -> None:
    record, member = sleeper()
    settings.home.mkdir(parents=True)
    control.record_path(settings).write_text("")
    out = io.StringIO()
    for _ in range(2):
        control.down(settings, Progress(out))
    assert not is_running(member, record.mark)
    assert not control.record_path(settings).exists()


def test_down_removes_damaged_record_of_ended_processes(settings: Settings) -> None:
    settings.home.mkdir(parents=True)
    control.record_path(settings).write_text("")
    control.down(settings, Progress(io.StringIO()))
    assert not control.record_path(settings).exists()


@pytest.mark.parametrize("url", ["localhost", "http://127.0.0.1:99999", "http://127.0.0.1:3000"])
def test_invalid_address_does_not_stop_running_stack(
    url: str, settings: Settings, sleeper: Callable[..., tuple[StackRecord, Member]]
) -> None:
    settings = settings.model_copy(update={"airflow_url": url, "service_url": "http://127.0.0.1:3000"})
    record, member = sleeper()
    settings.home.mkdir(parents=True)
    control.record_path(settings).write_text(record.model_dump_json())
    with pytest.raises(StackError, match="SAEBYEOK_AIRFLOW_URL"):
        control.up(settings, Progress(io.StringIO()))
    assert is_running(member, record.mark)


def test_two_at_once_are_refused(settings: Settings) -> None:
    settings.home.mkdir(parents=True)
    with (
        control.stack_lock(settings),
        pytest.raises(StackError, match="another `saebyeok up` or `down` is running"),
        control.stack_lock(settings),
    ):
        pass


def test_fingerprint_changes_with_the_settings(settings: Settings) -> None:
    before = control.fingerprint(settings)
    assert control.fingerprint(settings) == before
    assert control.fingerprint(settings.model_copy(update={"data": Path("/data")})) != before
