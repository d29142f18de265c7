"""The engine as all benchmarks open it: on the CPU, with one thread per process."""

from __future__ import annotations

from pathlib import Path

from serving.engine.engine import Engine, EngineOptions


def open_engine(release: Path) -> Engine:
    """Return the engine of the release in directory `release`."""
    return Engine(release, EngineOptions(threads=1, device="cpu"))
