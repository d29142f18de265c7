"""Logs as JSON, one object a line, with the id of the request that they are about and without its texts."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

from pydantic_core import to_json

#: Id of the request that is being answered; empty where none is.
REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default="")


class JsonLines(logging.Formatter):
    """`time`, `level`, `logger`, `message`, `id`, whatever a record has as `details`, and the traceback as `error`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            line["id"] = request_id
        line |= getattr(record, "details", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return to_json(line, fallback=str).decode()


class OnceATurn:
    """A stream that writes what is logged in one turn of the event loop at its end: a line alone costs a system call.

    Requests that share a batch are answered in one turn. What other threads log is written at once, after all before.
    """

    def __init__(self, stream: TextIO) -> None:
        """`stream` is where it goes in the end."""
        self._stream = stream
        self._lines: deque[str] = deque()

    def write(self, line: str) -> None:
        """Take a line."""
        self._lines.append(line)

    def flush(self) -> None:
        """See that it is written."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write()
        else:
            loop.call_soon(self._write)

    def _write(self) -> None:
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        if lines:
            self._stream.write("".join(lines))
            self._stream.flush()


def log_as_json() -> None:
    """Have what BentoML has set up write JSON lines, and one a request."""
    # Of which thread and process a line is says nothing here, and is asked of the system for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # BentoML gives all its loggers one handler, the root's; its filter adds what only its own lines have.
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setFormatter(JsonLines())
            handler.setStream(OnceATurn(handler.stream))
            handler.filters.clear()
    logging.getLogger("saebyeok.requests").setLevel(logging.INFO)
