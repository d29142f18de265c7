"""Simulate the nightly runs for all daily files, each with only the data from before its date.

python -m benchmarks.nights --data DIR [--plant faults|people] [--rows 50000] [--json]
With `--plant faults` five of the days are corrupted. With `--plant people` a person decides: the labels change for
good, and the third such day is accepted; later a deployment is rolled back, and nights without a new file follow.
Runs the whole pipeline (`saebyeok run nsmc --date ...`) on the first `--rows` reviews of the train file and a fifth of
that number of the test file. `SETTINGS` differ from profile `embedded`: the small model from scratch, and bounds that
depend on the number of rows.
Rerun the command to resume: a run with a line in `results.jsonl` is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks.cut import first_rows
from pipeline.cli.run import run_all
from pipeline.data.acceptance import accept_day, find_day
from pipeline.deployment.deployer import rollback
from pipeline.deployment.retention import delete_outdated, find_outdated
from pipeline.errors import DataError, RefusedError
from pipeline.job import Job, keep_libraries_home, open_job, open_store
from pipeline.recipes.schema import SCRATCH
from pipeline.settings import Settings, load_settings
from pipeline.store.acceptances import Acceptance
from pipeline.store.checks import ComparisonCheck
from pipeline.store.decisions import read_decision
from pipeline.store.deployments import DeploymentLog
from pipeline.store.figures import EvaluationFigures, ValidationFigures

#: For a third of the reviews: lower thresholds, and enough gate rows to tell a loss of the margin from chance.
SETTINGS = {
    # Runs of minutes: the small model from scratch.
    "model.base": SCRATCH,
    "model.pooling": "cls",
    "train.epochs": 1,
    "train.learning_rate": 1e-3,
    "train.batch_size": 64,
    "data.min_train_rows": 1_000,
    "data.min_test_rows": 1_000,
    "data.gate_share": 0.15,
    "gate.floors": {"accuracy": 0.8, "f1": 0.79},
    "gate.margin": 0.02,
    "gate.behaviour": {"negation": 0.3, "intensifiers": 0.55, "typos": 0.65, "names": 0.75, "emoji": 0.75},
}
HEADER = "id\tdocument\tlabel"
KEPT = 3


@dataclass(frozen=True)
class Known:
    """Unused rows of the train file, and the rows of the first day's file."""

    spare: list[str]
    first: list[str]


def flipped(lines: list[str], _: Known) -> bytes:
    """Return the day's file with the labels of 30% of the rows inverted."""
    chosen = set(random.Random(7).sample(range(len(lines)), round(0.3 * len(lines))))
    turned = [line[:-1] + str(1 - int(line[-1])) if number in chosen else line for number, line in enumerate(lines)]
    return as_file(turned)


def tenfold(lines: list[str], known: Known) -> bytes:
    """Return the day's file with ten times the rows, all of them new."""
    return as_file([*lines, *random.Random(7).sample(known.spare, 9 * len(lines))])


def half_empty(lines: list[str], _: Known) -> bytes:
    """Return the day's file with every other document empty."""
    return as_file([blank(line) if number % 2 else line for number, line in enumerate(lines)])


def other_encoding(lines: list[str], _: Known) -> bytes:
    """Return the day's file in CP949 instead of UTF-8."""
    return as_file(lines).decode("utf-8").encode("cp949", errors="replace")


def old_file(_: list[str], known: Known) -> bytes:
    """Return the file of three weeks earlier."""
    return as_file(known.first)


def less_positive(lines: list[str], known: Known) -> bytes:
    """Return the day's file with 64% positive reviews: negative ones from the train file replace positive ones."""
    negative = [line for line in known.spare if line.endswith("0")]
    positive = [number for number, line in enumerate(lines) if line.endswith("1")]
    draw = random.Random(lines[0])
    replaced = draw.sample(positive, max(0, len(positive) - round(0.64 * len(lines))))
    changed = dict(zip(replaced, draw.sample(negative, len(replaced)), strict=True))
    return as_file([changed.get(number, line) for number, line in enumerate(lines)])


#: Days of the month from which the labels change for good, of the accepted file, of the rollback, and without files.
SHIFT, ACCEPTED, ROLLBACK, NOTHING_NEW = 8, 10, 18, (19, 20, 21)
#: By `--plant`: the day of the month and its corruption; None removes the file.
PLANTED: dict[str | None, dict[int, Callable[[list[str], Known], bytes] | None]] = {
    None: {},
    "faults": {6: flipped, 10: tenfold, 14: half_empty, 18: other_encoding, 22: old_file},
    "people": dict.fromkeys(range(SHIFT, 32), less_positive) | dict.fromkeys(NOTHING_NEW),
}


@dataclass(frozen=True)
class Scenario:
    """The settings of all runs, the file of their results, all days, the corrupted ones, and whether people decide."""

    settings: Settings
    results: Path
    days: tuple[date, ...]
    planted: dict[date, str]
    people: bool


def main() -> None:
    """Run all nights and print a line each, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="directory with the published files and nsmc/daily")
    parser.add_argument("--rows", type=int, default=50_000, help="number of rows of the train file to use")
    parser.add_argument("--plant", choices=[name for name in PLANTED if name], help="what happens to the days")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    scenario = prepare(arguments.data, arguments.rows, arguments.plant)
    nights = run_nights(scenario)
    document = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "rows": arguments.rows, "nights": nights}
    document |= conclude(scenario, nights)
    if arguments.json:
        print(json.dumps(document, ensure_ascii=False, indent=1))
        return
    for night in nights:
        print(line_of(night))
    for name in (
        "promoted",
        "refused",
        "caught",
        "barred",
        "people",
        "leaks",
        "best",
        "last",
        "behind",
        "seconds",
        "megabytes",
    ):
        print(f"{name}: {document[name]}")


def prepare(data: Path, rows: int, plant: str | None) -> Scenario:
    """Rebuild the scenario's data directory below SAEBYEOK_HOME and return the scenario with its settings."""
    home = load_settings().home / "nights" / f"{rows}{f'-{plant}' if plant else ''}"
    target = home / "data" / "nsmc"
    shutil.rmtree(target, ignore_errors=True)
    (target / "daily").mkdir(parents=True)
    published = read_lines(data / "nsmc" / "ratings_train.txt")
    daily = sorted((data / "nsmc" / "daily").glob("*.txt"))
    known = Known(published[rows:], read_lines(daily[0]))
    for name, count in (("ratings_train.txt", rows), ("ratings_test.txt", rows // 5)):
        (target / name).write_bytes(first_rows(data / "nsmc" / name, count))
    planted = {}
    for file in daily:
        day = date.fromisoformat(file.stem)
        content: bytes | None = file.read_bytes()
        if day.day in PLANTED[plant]:
            change = PLANTED[plant][day.day]
            content = change(read_lines(file), known) if change else None
            planted[day] = change.__name__.replace("_", " ") if change else "no file"
        if content is not None:
            (target / "daily" / file.name).write_bytes(content)
    os.environ |= {"SAEBYEOK_HOME": str(home), "SAEBYEOK_DATA": str(home / "data"), "SAEBYEOK_STORE": ""}
    settings = load_settings().model_copy(update={"keep_deployments": KEPT, "keep_days": 0.0})
    keep_libraries_home(settings)
    days = tuple(date.fromisoformat(file.stem) for file in daily)
    return Scenario(settings, home / "results.jsonl", days, planted, plant == "people")


def run_nights(scenario: Scenario) -> list[dict[str, Any]]:
    """Run the night after each daily file, except those with a line in the results; return all lines."""
    done = {}
    if scenario.results.is_file():
        done = {night["date"]: night for night in map(json.loads, scenario.results.read_text().splitlines())}
    for day in scenario.days:
        cutoff = day + timedelta(days=1)
        if str(cutoff) not in done:
            job = open_job("nsmc", settings=scenario.settings, overrides=SETTINGS, run=f"night-{cutoff}", cutoff=cutoff)
            done[str(cutoff)] = night = one_night(job, scenario)
            with scenario.results.open("a", encoding="utf-8") as results:
                results.write(json.dumps(night, ensure_ascii=False) + "\n")
    return list(done.values())


def decide_as_person(job: Job, day: date) -> str:
    """Do what a person decides in the evening of `day`; return it in words, or an empty text."""
    if day.day == ACCEPTED:
        record = accept_day(job, find_day(job, day), Acceptance(by="a person", why="the labels changed for good"))
        return f"accepted {record.manifest.fields['file']}"
    if day.day == ROLLBACK:
        deployment = rollback(job.settings, job.store, f"rollback-{day}", by="a person")
        return f"rolled back, deployment {deployment.number}: {deployment.reason}"
    return ""


def one_night(job: Job, scenario: Scenario) -> dict[str, Any]:
    """Run one night, prune the store as the retention DAG does, and return outcome, seconds and store size."""
    day = job.cutoff - timedelta(days=1)
    log = DeploymentLog(job.store)
    before, started = log.latest(), time.monotonic()
    found: dict[str, Any] = {"date": str(job.cutoff), "planted": scenario.planted.get(day)}
    try:
        outcome = run_all(job)
    except (DataError, RefusedError) as error:
        caught = "caught" if isinstance(error, DataError) else "barred"
        found |= {"outcome": caught, "reason": str(error).splitlines()[0]}
    else:
        assert outcome.decision is not None
        promotable = "promoted" if outcome.deployed_now else "live already"
        validated = ValidationFigures.read(outcome.made["validate"])
        evaluated = EvaluationFigures.read(outcome.made["evaluate"])
        found |= {
            "outcome": promotable if outcome.decision.promote else "refused",
            "reason": outcome.decision.reason,
            "train_rows": validated.train_rows,
            "newest": str(validated.cutoff) if validated.cutoff else None,
            "left_out": len(validated.left_out),
            "gate": evaluated.gate["accuracy"].value,
            "test": evaluated.test["accuracy"].value,
            "behaviour": {name: round(tests.rate.value, 2) for name, tests in evaluated.behaviour.items()},
        }
    seconds = time.monotonic() - started
    latest = log.latest()
    untouched = (before.releases if before else None) == (latest.releases if latest else None)
    if scenario.people:
        found["person"] = decide_as_person(job, day)
    delete_outdated(job.store, job.settings, find_outdated(job.store, job.settings))
    size = sum(path.stat().st_size for path in Path(job.store.uri).rglob("*") if path.is_file())
    return found | {"champion_untouched": untouched, "seconds": round(seconds, 1), "megabytes": round(size / 2**20, 1)}


def conclude(scenario: Scenario, nights: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of all runs."""
    promoted = [night for night in nights if night["outcome"] == "promoted"]
    best = max(promoted, key=lambda night: float(night["gate"]))
    return {
        "promoted": len(promoted),
        "refused": sum(night["outcome"] == "refused" for night in nights),
        "caught": {night["date"]: night["reason"] for night in nights if night["outcome"] == "caught"},
        "barred": {night["date"]: night["reason"] for night in nights if night["outcome"] == "barred"},
        "people": {night["date"]: night["person"] for night in nights if night.get("person")},
        # Runs that read data of their own day or a later one.
        "leaks": [night["date"] for night in nights if (night.get("newest") or "") >= night["date"]],
        "best": best["date"],
        "last": promoted[-1]["date"],
        "behind": last_against_best(scenario),
        "seconds": [statistics.median(night["seconds"] for night in part) for part in thirds(promoted)],
        "megabytes": [statistics.median(night["megabytes"] for night in part) for part in thirds(nights)],
    }


def last_against_best(scenario: Scenario) -> dict[str, float] | str:
    """Return the last champion minus the best release before it on the gate rows of its run, with its 90% interval."""
    store = open_store(scenario.settings)
    champion = DeploymentLog(store).champion("nsmc")
    assert champion is not None
    for decided in map(store.open, store.refs("decide", "nsmc")):
        if decided.input_ref("evaluated") == champion.input_ref("evaluated"):
            checks = read_decision(decided).checks
            found = [item for item in checks if isinstance(item, ComparisonCheck) and item.rival == "best"]
            return found[0].estimate.model_dump() if found else "there is none before the previous champion"
    raise LookupError(f"no decision about {champion.ref}")


def thirds(items: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the first, the middle and the last third."""
    size = max(1, len(items) // 3)
    return [items[:size], items[size : 2 * size], items[2 * size :]]


def line_of(night: dict[str, Any]) -> str:
    """Return the line that is printed for one run."""
    figures = f"gate {night['gate']:.4f}  test {night['test']:.4f}" if "gate" in night else f"{'':<25}"
    planted = f"  [{night['planted']}]" if night["planted"] else ""
    cost = f"{night['seconds']:>6.1f} s {night['megabytes']:>6.1f} MB"
    return f"{night['date']}  {night['outcome']:<12}  {figures}  {cost}{planted}  {night['reason']}"


def read_lines(file: Path) -> list[str]:
    """Return the raw rows of a published file, without the header."""
    return [line for line in file.read_bytes().decode("utf-8").split("\n")[1:] if line]


def as_file(lines: list[str]) -> bytes:
    """Return a file of these rows in the published format."""
    return "\n".join([HEADER, *lines, ""]).encode("utf-8")


def blank(line: str) -> str:
    """Return a row with an empty document."""
    first, *_, last = line.split("\t")
    return f"{first}\t\t{last}"


if __name__ == "__main__":
    main()
