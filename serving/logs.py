"""Logs as JSON, one object a line, with the id of the request that they are about and without its texts."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

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
        return json.dumps(line, ensure_ascii=False, default=str)


def log_as_json() -> None:
    """Have what BentoML has set up write JSON lines, and one a request instead of its own."""
    # BentoML gives all its loggers one handler, the root's.
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines())
    logging.getLogger("bentoml.access").disabled = True
    logging.getLogger("saebyeok.requests").setLevel(logging.INFO)
