"""A kill at a chosen place."""

from __future__ import annotations


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the pipeline catches it."""
