"""The engine without HTTP, in one process: `python -m benchmarks.rivals.raw_engine TEXTS SENTENCES SECONDS`.

Prints `ready` after loading and warm-up, waits for a line, and prints one JSON document.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import cycle
from pathlib import Path

from benchmarks.load import Usage, percentiles
from benchmarks.rivals.engine import open_engine
from benchmarks.rivals.model import RELEASE

WARM = 20


def main() -> None:
    """Call the engine as the requests of a service would, one after the other."""
    texts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sentences, seconds = int(sys.argv[2]), float(sys.argv[3])
    engine = open_engine(RELEASE)
    source = cycle(texts)
    calls = cycle([[next(source) for _ in range(sentences)] for _ in range(max(64, len(texts) // sentences))])
    for _ in range(WARM):
        engine.classify(next(calls))
    print("ready", flush=True)
    sys.stdin.readline()
    took: list[float] = []
    before, began = Usage.now(None), time.perf_counter()
    last = began
    while last - began < seconds:
        engine.classify(next(calls))
        now = time.perf_counter()
        took.append(now - last)
        last = now
    spent, after = last - began, Usage.now(None)
    found = {"requests": len(took), "requests_per_second": len(took) / spent, **percentiles(sorted(took))}
    found |= {"cores": after.since(before, spent)}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
