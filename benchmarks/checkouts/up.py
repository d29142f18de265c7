"""Compare the time of `make up` of this commit with that of another one, from nothing to answered requests.

python -m benchmarks.checkouts.up --against COMMIT [--rounds 2] [--python PATH] [--json]
Each run is a fresh clone with a fresh virtual environment and empty caches of pip and uv; nothing else may use the
ports of Airflow and of the service. A run ends when `make up` has ended and the service has answered one review; the
time of `make down` does not count. The commits run in turn, in the order A B B A. The result is the ratio of this
commit to the other one: the geometric mean over the rounds, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ENDPOINT = "http://127.0.0.1:3000/classify"


def main() -> None:
    """Run the rounds, and print the ratio or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, help="the other commit")
    parser.add_argument("--rounds", type=int, default=2, help="pairs of runs")
    parser.add_argument("--python", default="", help="interpreter for both (default: the choice of each Makefile)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    rounds = []
    for number in range(arguments.rounds):
        order = ("HEAD", arguments.against) if number % 2 == 0 else (arguments.against, "HEAD")
        seconds = {commit: one_up(commit, arguments.python) for commit in order}
        rounds.append((seconds["HEAD"], seconds[arguments.against]))
    found = summarize(rounds)
    print(json.dumps(found, indent=1) if arguments.json else worded(found))


def one_up(commit: str, python: str) -> float:
    """Return the seconds from an empty directory to the first answer of `commit`; raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as directory:
        clone = Path(directory) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        subprocess.run(["git", "checkout", "--quiet", "--detach", resolved(commit)], cwd=clone, check=True)
        interpreter = [f"PYTHON={python}"] if python else []
        env = environment(Path(directory))
        begun = time.monotonic()
        try:
            subprocess.run(["make", "up", *interpreter], cwd=clone, env=env, check=True, stdout=subprocess.DEVNULL)
            ask()
            return time.monotonic() - begun
        finally:
            subprocess.run(["make", "down"], cwd=clone, env=env, check=True, stdout=subprocess.DEVNULL)


def resolved(commit: str) -> str:
    """Return the full name of `commit` of this repository, which a clone can check out."""
    command = ["git", "rev-parse", "--verify", f"{commit}^{{commit}}"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def environment(directory: Path) -> dict[str, str]:
    """Return this environment with empty caches, without settings of Saebyeok, Python and an outer `make`."""
    dropped = ("SAEBYEOK_", "MAKE", "MFLAGS", "PYTHON", "VIRTUAL_ENV")
    options = ("DATA", "RUN")  # of `make up`; with PYTHON, `make` exports those of its command line
    kept = {name: value for name, value in os.environ.items() if not (name.startswith(dropped) or name in options)}
    return kept | {f"{tool}_CACHE_DIR": str(directory / tool) for tool in ("PIP", "UV")}


def ask() -> None:
    """Ask the service about one review; raises OSError when it does not answer with 200."""
    body = json.dumps({"texts": ["정말 재미있게 봤어요."]}).encode()
    request = urllib.request.Request(ENDPOINT, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def summarize(rounds: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return the seconds of both commits and their ratio, from (seconds here, seconds there) of each round."""
    ratios = [here / there for here, there in rounds]
    return {
        "here": [round(here) for here, _ in rounds],
        "there": [round(there) for _, there in rounds],
        "ratio": statistics.geometric_mean(ratios),
        "low": min(ratios),
        "high": max(ratios),
    }


def worded(found: dict[str, Any]) -> str:
    """Return a line for the reader."""
    return (
        f"make up: {found['here']} s here, {found['there']} s there; "
        f"ratio {found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
    )


if __name__ == "__main__":
    main()
