"""JSON logs: one object per line, with the request's id and without its texts."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

from pydantic_core import to_json

#: Id of the current request; empty outside a request.
REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default="")


class JsonLines(logging.Formatter):
    """Format records with `time`, `level`, `logger`, `message`, `id`, their `details`, and the traceback as `error`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
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
    """A stream that collects the lines of one turn of the event loop and writes them in one system call.

    Requests that share a batch are answered in one turn. Lines of other threads are written immediately, in order.
    """

    def __init__(self, stream: TextIO) -> None:
        """`stream` is the stream to write to."""
        self._stream = stream
        self._lines: deque[str] = deque()

    def write(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)

    def flush(self) -> None:
        """Write the lines at the end of this turn, or immediately outside the event loop."""
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
            # On a full disk. The event loop would log the error, fail at that line, too, and so on at every turn.
            with suppress(OSError):
                self._stream.write("".join(lines))
                self._stream.flush()


def log_as_json() -> None:
    """Make BentoML's log handlers write JSON lines, and log each request."""
    # Thread and process are not logged; do not query them for every record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # All of BentoML's loggers share the root's handler; its filter adds fields for BentoML's own format only.
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setFormatter(JsonLines())
            handler.setStream(OnceATurn(handler.stream))
            handler.filters.clear()
    logging.getLogger("saebyeok.requests").setLevel(logging.INFO)
