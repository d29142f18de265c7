"""The golden answers of releases as JSON, from a process: `python -m tests.support.golden_answers DIRECTORY ...`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from serving.engine.engine import Engine, EngineOptions
from serving.engine.golden import engine_answers


def answers(directory: Path) -> dict[str, list[list[float]]]:
    """Return what each file for CPUs of the release in `directory` answers to its golden inputs, one at a time."""
    options = EngineOptions(threads=1, device="cpu")
    first = Engine(directory, options)
    engines = [Engine(directory, options, variant=place) for place in range(len(first.card.variants["cpu"]))]
    golden = [item.texts for item in first.card.golden]
    return {engine.variant.name: [engine_answers(engine)([texts])[0] for texts in golden] for engine in engines}


if __name__ == "__main__":
    print(json.dumps([answers(Path(directory)) for directory in sys.argv[1:]]))  # noqa: T201
