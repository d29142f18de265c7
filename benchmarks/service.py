"""Compare the service with the raw engine and with other ways to serve, with load from the same cores.

python -m benchmarks.service --data DIR [--release DIR] [--sentences 1 32] [--clients 32] [--rounds 3] [--json]
All servers use one release: --release (a directory in a store), or the release that the pipeline's stages build from
the data (finished stages are reused; --set overrides recipe values). Each server has --processes processes, which share
--cores cores with the load generator and everything else. Each round restarts every server, compares its labels with
those of the engine, and sends NSMC's texts from clients with keep-alive connections.

Sentences per second are also given as shares of the raw engine's rate in the same round, in three ways: (1) the engine
is called with the texts of one request at a time; (2) the engine is at its best, with large calls; (3) like (1), but
both rates are per core that the serving processes used, for machines under other load.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.ways import Bench, Way, agreement, serving
from pipeline.cli.options import overrides
from pipeline.config_file import ROOT
from pipeline.errors import ArtifactError
from pipeline.job import keep_libraries_home, open_job, open_store
from pipeline.settings import load_settings
from pipeline.stages.running import run_stage
from pipeline.stages.stage import STAGES
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import read_card

#: Texts per call for the engine at its best.
BEST = 1024
SHARES = ("of_engine", "of_best", "of_engine_per_core")


def main() -> None:
    """Run the rounds and print tables, or one JSON document."""
    parser = load_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", help="servers to measure (default: all)")
    arguments = parser.parse_args()
    with prepared(arguments) as bench:
        document = measure(bench)
    print(json.dumps(document, indent=1)) if arguments.json else show(document)


def load_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser for the options of release, load and cores."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="directory with the published files")
    parser.add_argument("--release", type=Path, help="directory of a classification release in its store")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe value")
    parser.add_argument("--sentences", nargs="+", type=int, default=[1, 32], help="sentences per request")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds per measurement")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cores", type=int, default=2, help="cores that all processes and the load generator share")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


@contextmanager
def prepared(arguments: argparse.Namespace) -> Iterator[Bench]:
    """Restrict this process to its cores, and deploy the release in a temporary home."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    source = named_release(arguments.release) if arguments.release else make_release(arguments)
    with tempfile.TemporaryDirectory() as home:
        yield prepare(source, Path(home), arguments)


def named_release(directory: Path) -> Artifact:
    """Return the artifact in `directory`."""
    directory = directory.resolve()
    return Store(str(directory.parents[3]), directory).open("/".join(directory.parts[-4:]))


def make_release(arguments: argparse.Namespace) -> Artifact:
    """Return the release of the data, built by the stages or reused."""
    os.environ["SAEBYEOK_DATA"] = str(arguments.data.resolve())
    settings = load_settings()
    keep_libraries_home(settings)
    job = open_job("nsmc", settings=settings, overrides=overrides(arguments.set))
    made: dict[str, Artifact] = {}
    for stage in STAGES:
        made[stage.kind] = run_stage(job, stage, [made[kind] for kind in stage.inputs]).artifact
    return made["release"]


def prepare(source: Artifact, home: Path, arguments: argparse.Namespace) -> Bench:
    """Deploy the release in a new home, write the texts, and return both."""
    copied = home / "store" / source.ref
    shutil.copytree(source.path, copied)
    settings = load_settings().model_copy(update={"home": home, "store": ""})
    releases = {source.manifest.recipe: source.ref}
    DeploymentLog(open_store(settings)).append(releases, after=0, run="benchmark", reason="to be measured")
    try:
        trained = source.store.open(read_card(source).trained)
        # transformers' pipeline supports only [CLS] pooling.
        checkpoint = trained.path / "model" if trained.manifest.fields["pooling"] == "cls" else None
    except ArtifactError:
        checkpoint = None
    texts = home / "texts.json"
    texts.write_text(json.dumps(read_texts(arguments.data), ensure_ascii=False), encoding="utf-8")
    return Bench(home, copied, checkpoint, texts, arguments)


def read_texts(data: Path) -> list[str]:
    """Return the reviews of NSMC's test file in a fixed random order."""
    lines = (data / "nsmc" / "ratings_test.txt").read_text(encoding="utf-8").split("\n")[1:]
    texts = [parts[1] for line in lines if len(parts := line.split("\t")) == 3 and parts[1].strip()]
    random.Random(7).shuffle(texts)
    return texts


def measure(bench: Bench) -> dict[str, Any]:
    """Return all rounds and their summary."""
    arguments = bench.arguments
    ways = [way for way in bench.ways() if not arguments.ways or way.name in arguments.ways]
    able = [way for way in ways if way.missing is None]
    rounds = []
    for number in range(arguments.rounds):
        found = {str(size): engine(bench, size) for size in [*arguments.sentences, BEST]}
        # Rotate the order, so that a machine that slows down does not favour one way.
        turned = able[number % len(able) :] + able[: number % len(able)]
        rounds.append({"engine": found} | {way.name: one_way(bench, way) for way in turned})
    return {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "shared": f"{arguments.processes} processes, the load generator and the rest share {arguments.cores} cores",
        "release": bench.release.parent.parent.name + "/" + bench.release.parent.name,
        "clients": arguments.clients,
        "seconds": arguments.seconds,
        "missing": {way.name: way.missing for way in ways if way.missing},
        "loads": {str(size): summarize(rounds, size) for size in arguments.sentences},
        "rounds": rounds,
    }


def engine(bench: Bench, sentences: int) -> dict[str, Any]:
    """Return the figures of the raw engine in `--processes` processes, called with `sentences` texts at a time."""
    arguments = bench.arguments
    command = [sys.executable, "-m", "benchmarks.rivals.raw_engine", str(bench.texts), str(sentences)]
    command += [str(arguments.seconds)]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env=bench.environment(0), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(arguments.processes)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    # Start them together, so that they share the cores for the whole time.
    outputs = [json.loads(found) for found in together(processes)]
    used = sum(item["cores"]["load"] for item in outputs)
    busy = statistics.mean(item["cores"]["load"] + item["cores"]["others"] for item in outputs)
    return {
        "sentences_per_second": sum(item["requests_per_second"] for item in outputs) * sentences,
        **{name: max(item[name] for item in outputs) for name in ("p50", "p95", "p99")},
        "cores": {"service": used, "others": max(0.0, busy - used)},
    }


def together(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Start all processes at once and return their outputs."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate()[0] for process in processes]


def one_way(bench: Bench, way: Way) -> dict[str, Any]:
    """Return the figures of one way under each load."""
    found: dict[str, Any] = {}
    with serving(bench, way) as (url, pid):
        found["agrees"] = agreement(bench, way, url)
        for sentences in bench.arguments.sentences:
            found[str(sentences)] = load(bench, url, pid, sentences)
    return found


def load(bench: Bench, url: str, pid: int, sentences: int) -> dict[str, Any]:
    """Return the figures of the server at `url`, with process id `pid`, at `sentences` texts per request."""
    command = [sys.executable, "-m", "benchmarks.load", "--url", url, "--texts", str(bench.texts)]
    command += ["--sentences", str(sentences), "--clients", str(bench.arguments.clients)]
    command += ["--seconds", str(bench.arguments.seconds), "--pid", str(pid)]
    done = subprocess.run(command, cwd=ROOT, env=bench.environment(0), check=True, stdout=subprocess.PIPE)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def summarize(rounds: list[dict[str, Any]], sentences: int) -> dict[str, Any]:
    """Return the medians of each way over the rounds, and its share of the engine's rate with the range."""
    size, rows = str(sentences), {}
    for name in rounds[0]:
        runs = [found[name][size] for found in rounds]
        row: dict[str, Any] = {
            part: statistics.median(run[part] for run in runs)
            for part in ("sentences_per_second", "p50", "p95", "p99")
            if all(part in run for run in runs)
        }
        for share, base, rate in (
            ("of_engine", size, speed),
            ("of_best", str(BEST), speed),
            ("of_engine_per_core", size, speed_per_core),
        ):
            shares = [rate(found[name][size]) / rate(found["engine"][base]) for found in rounds]
            row[share] = {"median": statistics.median(shares), "low": min(shares), "high": max(shares)}
        row["cores"] = {part: statistics.median(run["cores"][part] for run in runs) for part in runs[0]["cores"]}
        row["requests"] = sum(run.get("requests", 0) for run in runs)
        row["errors"] = sum(sum(run.get("errors", {}).values()) for run in runs)
        rows[name] = row
    return rows


def speed(run: dict[str, Any]) -> float:
    """Return the sentences per second."""
    return float(run["sentences_per_second"])


def speed_per_core(run: dict[str, Any]) -> float:
    """Return the sentences per second and core that the serving processes used, to reduce the effect of other load."""
    return speed(run) / float(run["cores"]["service"])


def show(document: dict[str, Any]) -> None:
    """Print tables."""
    print(f"{document['machine']}; {document['shared']}")
    print(f"release {document['release']}, {document['clients']} clients, {len(document['rounds'])} rounds; medians")
    for size, rows in document["loads"].items():
        print(f"\n{size} sentence(s) per request")
        print(f"{'':<18}{'sentences/s':>12}  {'of the engine':<20}{'of its best':<20}{'per core of it':<20}", end="")
        print(f"{'p50':>7}{'p95':>8}{'p99':>8} ms{'errors':>14}   cores: service, load, others")
        for name, row in rows.items():
            print(f"{name:<18}{row['sentences_per_second']:>12,.0f}  ", end="")
            print("".join(f"{spread(row[share]):<20}" for share in SHARES), end="")
            print(f"{row.get('p50', 0):>7.1f}{row.get('p95', 0):>8.1f}{row.get('p99', 0):>8.1f}   ", end="")
            print(f"{row['errors']:>4} in {row['requests']:<8,}", end="")
            print("   " + ", ".join(f"{row['cores'].get(part, 0):.2f}" for part in ("service", "load", "others")))
        for name, reason in document["missing"].items():
            print(f"{name:<18}{reason}")


def spread(share: dict[str, float]) -> str:
    """Return the median and range of a share as text."""
    return f"{share['median']:.0%} ({share['low']:.0%} to {share['high']:.0%})"


if __name__ == "__main__":
    main()
