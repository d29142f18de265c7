"""Our service against the raw engine and against what else one would pick, with load from the same cores.

python -m benchmarks.service --data DIR [--release DIR] [--sentences 1 32] [--clients 32] [--rounds 3] [--json]
All answer from one release: the one that --release names (a directory in a store), or else the one that the pipeline's
stages make of DIR (finished ones are reused; --set says otherwise than the recipe). Each has --processes processes, and
these, the load generator and all else share --cores cores. In each round each is started anew, its labels are held
against the engine's, and it is asked for NSMC's texts by clients that keep their connections.

Sentences a second are said as shares of the raw engine's of the same round: of the engine called with one request's
texts at a time; of the engine at its best, called with many; and, for a machine that others use too, per core that the
serving processes had, against the engine called with one request's texts.
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
from pathlib import Path
from typing import Any

from benchmarks.ways import Bench, Way, agreement, serving
from pipeline.cli.options import overrides
from pipeline.errors import ArtifactError
from pipeline.job import keep_libraries_home, open_job, open_store
from pipeline.settings import ROOT, load_settings
from pipeline.stages.stage import STAGES, run_stage
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import read_card

#: Texts of a call for the engine at its best.
BEST = 1024
SHARES = ("of_engine", "of_best", "of_engine_per_core")


def main() -> None:
    """Run the rounds and print tables, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="directory with the published files")
    parser.add_argument("--release", type=Path, help="directory of a classification release in its store")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value in the recipe")
    parser.add_argument("--sentences", nargs="+", type=int, default=[1, 32], help="of a request")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cores", type=int, default=2, help="that all processes and the load generator share")
    parser.add_argument("--ways", nargs="+", help="only these")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    source = named_release(arguments.release) if arguments.release else make_release(arguments)
    with tempfile.TemporaryDirectory() as home:
        document = measure(prepare(source, Path(home), arguments))
    print(json.dumps(document, indent=1)) if arguments.json else show(document)


def named_release(directory: Path) -> Artifact:
    """The artifact in `directory`."""
    directory = directory.resolve()
    return Store(str(directory.parents[3]), directory).open("/".join(directory.parts[-4:]))


def make_release(arguments: argparse.Namespace) -> Artifact:
    """The release that the stages make of the data, or have made."""
    os.environ["SAEBYEOK_DATA"] = str(arguments.data.resolve())
    settings = load_settings()
    keep_libraries_home(settings)
    job = open_job("nsmc", settings=settings, overrides=overrides(arguments.set))
    made: dict[str, Artifact] = {}
    for stage in STAGES:
        made[stage.kind] = run_stage(job, stage, [made[kind] for kind in stage.inputs]).artifact
    return made["release"]


def prepare(source: Artifact, home: Path, arguments: argparse.Namespace) -> Bench:
    """A home in which the release is deployed, and the texts to ask."""
    copied = home / "store" / source.ref
    shutil.copytree(source.path, copied)
    settings = load_settings().model_copy(update={"home": home, "store": ""})
    releases = {source.manifest.recipe: source.ref}
    DeploymentLog(open_store(settings)).append(releases, after=0, run="benchmark", reason="to be measured")
    try:
        trained = source.store.open(read_card(source).trained)
        # A pipeline of transformers would have its own head read [CLS] instead.
        checkpoint = trained.path / "model" if trained.manifest.fields["pooling"] == "cls" else None
    except ArtifactError:
        checkpoint = None
    texts = home / "texts.json"
    texts.write_text(json.dumps(read_texts(arguments.data), ensure_ascii=False), encoding="utf-8")
    return Bench(home, copied, checkpoint, texts, arguments)


def read_texts(data: Path) -> list[str]:
    """The reviews of NSMC's test file in an order of their own, the same each time."""
    lines = (data / "nsmc" / "ratings_test.txt").read_text(encoding="utf-8").split("\n")[1:]
    texts = [parts[1] for line in lines if len(parts := line.split("\t")) == 3 and parts[1].strip()]
    random.Random(7).shuffle(texts)
    return texts


def measure(bench: Bench) -> dict[str, Any]:
    """All rounds, and what they come to."""
    arguments = bench.arguments
    ways = [way for way in bench.ways() if not arguments.ways or way.name in arguments.ways]
    able = [way for way in ways if way.missing is None]
    rounds = []
    for number in range(arguments.rounds):
        found = {str(size): engine(bench, size) for size in [*arguments.sentences, BEST]}
        # Which goes first changes, lest a machine that slows down favours one.
        turned = able[number % len(able) :] + able[: number % len(able)]
        rounds.append({"engine": found} | {way.name: one_way(bench, way) for way in turned})
    return {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "shared": f"{arguments.processes} processes, the load generator and all else share {arguments.cores} cores",
        "release": bench.release.parent.parent.name + "/" + bench.release.parent.name,
        "clients": arguments.clients,
        "seconds": arguments.seconds,
        "missing": {way.name: way.missing for way in ways if way.missing},
        "loads": {str(size): summarize(rounds, size) for size in arguments.sentences},
        "rounds": rounds,
    }


def engine(bench: Bench, sentences: int) -> dict[str, Any]:
    """The raw engine in as many processes, each called with so many texts at a time."""
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
    # Together, so that they share the cores all the while.
    outputs = [json.loads(found) for found in together(processes)]
    used = sum(item["cores"]["load"] for item in outputs)
    busy = statistics.mean(item["cores"]["load"] + item["cores"]["others"] for item in outputs)
    return {
        "sentences_per_second": sum(item["requests_per_second"] for item in outputs) * sentences,
        **{name: max(item[name] for item in outputs) for name in ("p50", "p95", "p99")},
        "cores": {"service": used, "others": max(0.0, busy - used)},
    }


def together(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Let them all begin; what each prints."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate()[0] for process in processes]


def one_way(bench: Bench, way: Way) -> dict[str, Any]:
    """What one way does under each load."""
    found: dict[str, Any] = {}
    with serving(bench, way) as (url, pid):
        found["agrees"] = agreement(bench, way, url)
        for sentences in bench.arguments.sentences:
            command = [sys.executable, "-m", "benchmarks.load", "--url", url, "--texts", str(bench.texts)]
            command += ["--sentences", str(sentences), "--clients", str(bench.arguments.clients)]
            command += ["--seconds", str(bench.arguments.seconds), "--pid", str(pid)]
            done = subprocess.run(command, cwd=ROOT, env=bench.environment(0), check=True, stdout=subprocess.PIPE)
            found[str(sentences)] = json.loads(done.stdout)
    return found


def summarize(rounds: list[dict[str, Any]], sentences: int) -> dict[str, Any]:
    """Medians of each way over the rounds, and its shares of the engine's speed, lowest and highest too."""
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
    """Sentences a second."""
    return float(run["sentences_per_second"])


def speed_per_core(run: dict[str, Any]) -> float:
    """Sentences a second and core that the serving processes really had, which others on the machine take less from."""
    return speed(run) / float(run["cores"]["service"])


def show(document: dict[str, Any]) -> None:
    """Print tables."""
    print(f"{document['machine']}; {document['shared']}")
    print(f"release {document['release']}, {document['clients']} clients, {len(document['rounds'])} rounds; medians")
    for size, rows in document["loads"].items():
        print(f"\n{size} sentence(s) a request")
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
    """Median and range of a share."""
    return f"{share['median']:.0%} ({share['low']:.0%} to {share['high']:.0%})"


if __name__ == "__main__":
    main()
