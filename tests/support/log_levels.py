"""Log levels that a command of the command line sets, for the process of the tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("pipeline", "pipeline.progress", "pipeline.training", "serving")


@contextmanager
def log_levels_kept() -> Iterator[None]:
    """Put back the levels that a command sets when it runs in the process of the tests."""
    loggers = [logging.getLogger(name) for name in NAMES]
    levels = [logger.level for logger in loggers]
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            # Setting a level clears the caches of all loggers, which thousands of tests would wait for.
            if logger.level != level:
                logger.setLevel(level)
