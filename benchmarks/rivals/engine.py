"""Our engine as all that measure it open it: on the CPU, with one thread a process."""

from __future__ import annotations

from pathlib import Path

from serving.engine.engine import Engine, EngineOptions


def open_engine(release: Path) -> Engine:
    """The engine of the release in that directory."""
    return Engine(release, EngineOptions(threads=1, device="cpu"))
