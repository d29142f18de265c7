"""Writing of log lines to their stream."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import pytest

from serving.api.logs import REQUEST_ID, JsonLines, OnceATurn


class Stream(io.StringIO):
    """Count the flushes, each of which is a system call."""

    flushes = 0

    def flush(self) -> None:
        self.flushes += 1


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def log(stream: Stream) -> logging.Logger:
    return logger_to(stream)


@pytest.fixture
def full_disk() -> Iterator[TextIO]:
    """Yield a file to which nothing can be written."""
    # What was not written is written again when the file is closed.
    with suppress(OSError), Path("/dev/full").open("w") as full:
        yield full


def logger_to(stream: TextIO) -> logging.Logger:
    """Return a logger that writes to `stream` like the service's."""
    log = logging.Logger("a test")
    handler = logging.StreamHandler(OnceATurn(stream))
    handler.setFormatter(JsonLines())
    log.addHandler(handler)
    return log


def messages(stream: Stream) -> list[str]:
    return [json.loads(line)["message"] for line in stream.getvalue().splitlines()]


@pytest.mark.asyncio
async def test_lines_of_one_turn_are_written_together(stream: Stream, log: logging.Logger) -> None:
    for number in range(5):
        log.warning("line %d", number)
    assert messages(stream) == []
    await asyncio.sleep(0)
    assert messages(stream) == [f"line {number}" for number in range(5)]
    assert stream.flushes == 1
    log.warning("the next turn's")
    await asyncio.sleep(0)
    assert stream.flushes == 2


@pytest.mark.asyncio
async def test_other_threads_write_immediately_in_order(stream: Stream, log: logging.Logger) -> None:
    log.warning("of the loop")
    thread = threading.Thread(target=log.warning, args=("of a thread",))
    thread.start()
    thread.join()
    assert messages(stream) == ["of the loop", "of a thread"]
    await asyncio.sleep(0)
    assert stream.flushes == 1


@pytest.mark.asyncio
async def test_full_disk_is_no_error_of_the_event_loop(full_disk: TextIO) -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    logger_to(full_disk).warning("no space")
    await asyncio.sleep(0)
    assert errors == []


def test_a_line_has_whatever_it_is_about(stream: Stream, log: logging.Logger) -> None:
    token = REQUEST_ID.set("night-7")
    try:
        log.warning("말 %s", "좋다", extra={"details": {"status": 200, "odd": object}})
        try:
            raise ValueError("wrong")
        except ValueError:
            log.exception("no answer")
    finally:
        REQUEST_ID.reset(token)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["message"], first["id"], first["status"]) == ("말 좋다", "night-7", 200)
    assert first["odd"] == "<class 'object'>"
    assert second["level"] == "error"
    assert "ValueError: wrong" in second["error"]
