"""Compare the service of this checkout with that of another one, such as an earlier commit, in one session.

python -m benchmarks.checkouts.service --against DIR --data DIR [--release DIR] [--starts 8] [--slices 6] [--json]
DIR of --against is a checkout, such as one of `git worktree add DIR COMMIT`; it runs in this environment. The older of
both must have written the release, because a version refuses records of a newer format. Each start starts both services
on one release, and sends the load to them in turn: slices of --seconds in the order A B B A. The idle service takes no
time. The result is the ratio of this checkout to the other one, with a 95% interval over the starts, of the sentences
per second, and of the sentences per CPU second of the service, which other load affects less.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks.service import load, load_parser, prepared, speed, speed_per_core
from benchmarks.ways import Bench, saebyeok, serving

Figures = dict[str, Any]
RATES: dict[str, Callable[[Figures], float]] = {
    "sentences per second": speed,
    "sentences per CPU second": speed_per_core,
}


def main() -> None:
    """Run the starts, and print the ratios or one JSON document."""
    parser = load_parser(__doc__)
    parser.add_argument("--against", required=True, type=Path, help="directory of the other checkout")
    parser.add_argument("--starts", type=int, default=8, help="starts of both services; at least 2")
    parser.add_argument("--slices", type=int, default=6, help="pairs of slices per start and load")
    arguments = parser.parse_args()
    with prepared(arguments) as bench, tempfile.TemporaryDirectory() as directory:
        # Each service keeps the state of its workers in its home.
        home = Path(shutil.copytree(bench.home, Path(directory) / "home"))
        benches = (bench, replace(bench, home=home))
        starts = [one_start(benches, turned=bool(number % 2)) for number in range(arguments.starts)]
    document = {str(size): summarize([start[size] for start in starts]) for size in arguments.sentences}
    print(json.dumps(document, indent=1)) if arguments.json else show(document)


def one_start(benches: tuple[Bench, Bench], *, turned: bool) -> dict[int, list[tuple[Figures, Figures]]]:
    """Return pairs of figures (this checkout, the other one) by sentences per request; `turned` swaps the order."""
    arguments = benches[0].arguments
    ways = saebyeok("here"), saebyeok("there", arguments.against.resolve())
    with ExitStack() as running:
        servers = [running.enter_context(serving(bench, way)) for bench, way in zip(benches, ways, strict=True)]

        def pair(size: int, *, swap: bool) -> tuple[Figures, Figures]:
            found = [load(benches[0], *server, size) for server in (servers[::-1] if swap else servers)]
            here, there = found[::-1] if swap else found
            return here, there

        slices = range(arguments.slices)
        return {size: [pair(size, swap=turned ^ bool(at % 2)) for at in slices] for size in arguments.sentences}


def summarize(starts: Sequence[Sequence[tuple[Figures, Figures]]]) -> dict[str, Any]:
    """Return the ratio of each rate with its interval, the medians of this checkout and the number of errors."""
    pairs = [pair for start in starts for pair in start]
    return {
        **{
            name: ratio([[math.log(rate(one) / rate(two)) for one, two in start] for start in starts])
            for name, rate in RATES.items()
        },
        "here": statistics.median(speed(here) for here, _ in pairs),
        "there": statistics.median(speed(there) for _, there in pairs),
        "errors": sum(sum(run["errors"].values()) for pair in pairs for run in pair),
    }


def ratio(logs: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the geometric mean of the ratios and its 95% interval (Student's t over the means of the starts)."""
    means = [statistics.fmean(start) for start in logs]
    center = statistics.fmean(means)
    half = stats.t.ppf(0.975, len(means) - 1) * statistics.stdev(means) / math.sqrt(len(means))
    return {"ratio": math.exp(center), "low": math.exp(center - half), "high": math.exp(center + half)}


def show(document: dict[str, dict[str, Any]]) -> None:
    """Print a line per load and rate."""
    for size, found in document.items():
        print(
            f"{size} sentence(s) per request: {found['here']:,.0f} and {found['there']:,.0f} sentences per second, "
            f"{found['errors']} errors"
        )
        for name in RATES:
            shares = found[name]
            print(f"  {name}: {shares['ratio']:.3f} ({shares['low']:.3f} to {shares['high']:.3f})")


if __name__ == "__main__":
    main()
