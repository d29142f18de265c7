"""Measure the delay of training steps while a checkpoint goes to the store: a directory, and S3 (moto) with a latency.

python -m benchmarks.checkpoints [--rounds 400] [--latency 0.05] [--set K=V] [--json]
The stage's trainer fine-tunes the recipe on rows of equal length, so that all steps do the same work, and one upload
follows another. Of each four steps, the upload is stopped (SIGSTOP) during the second and third: neighbouring steps are
compared, so other load on the machine matters less. The result is the ratio of the seconds per step, with a 95%
interval over the rounds of four steps. The training waits for the start of an upload between two steps, which is
measured apart. The S3 server has the lowest priority, like the upload.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.checkouts.service import ratio
from benchmarks.wandb_delay import processor
from pipeline.cli.options import overrides
from pipeline.config_file import ROOT
from pipeline.job import open_job
from pipeline.settings import library_environment, load_settings
from pipeline.store.manifest import CHECKPOINT
from pipeline.tracking.tracker import Tracker
from pipeline.training.fine_tune import fit_here
from pipeline.training.shared_checkpoints import SNAPSHOT, Shared, Uploads
from tests.support.bucket import CREDENTIALS, Answer, Application, Environ, Fault, s3_server
from tests.support.small_pipeline import Road, copy_sample, sample_rows

#: Reviews per row: more than `LENGTH` tokens, so that every row is truncated to it.
REVIEWS, LENGTH = 8, 32
#: Steps before the first upload.
WARM_UP = 5
#: Whether the upload runs during each of four steps.
RUNS = (True, False, False, True)
BUCKET = "checkpoints"


class Alternation(TrainerCallback):
    """Upload the newest checkpoint again and again, with stops, and record the seconds of the steps."""

    def __init__(self, work: Path, shared: Shared, rounds: int) -> None:
        """Train for `rounds` of four steps; checkpoints in `work` go to the store that `shared` names."""
        self.rounds: list[list[float]] = []
        "Seconds of the four steps of each round in which one upload was running all the time."
        self.starts: list[float] = []
        "Seconds that the training waited for the start of each upload."
        self._work, self._shared, self._wanted = work, shared, rounds
        self._steps: list[float] = []
        self._stored: list[str] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Send the checkpoints to the store, which the trainer itself does not know of."""
        self._shared.write(self._work)
        self._uploads = Uploads(self._work)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Let the upload run or stop it; start the next one if there is none."""
        if state.global_step >= WARM_UP:
            upload = self._uploads.process
            if upload is None or upload.poll() is not None:
                upload = self._start(state.global_step)
            upload.send_signal(signal.SIGCONT if RUNS[len(self._steps)] else signal.SIGSTOP)
        self._began = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Record the step; save a checkpoint to upload after the first one."""
        control.should_save = state.global_step == 1
        if upload := self._uploads.process:
            self._steps.append(time.perf_counter() - self._began)
            if upload.poll() is not None:
                self._check_store()
                self._steps = []
            elif len(self._steps) == len(RUNS):
                self.rounds.append(self._steps)
                self._steps = []
        control.should_training_stop = len(self.rounds) == self._wanted

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop the last upload, which its last step let run."""
        self._uploads.close()

    def _start(self, step: int) -> subprocess.Popen[bytes]:
        newest = max(self._work.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
        started = time.perf_counter()
        self._uploads.offer([newest.name], step)
        self.starts.append(time.perf_counter() - started)
        assert self._uploads.process
        return self._uploads.process

    def _check_store(self) -> None:
        found = self._shared.store.list(f"{CHECKPOINT}/{self._shared.recipe}/{self._shared.key}")
        assert found != self._stored, "the checkpoint did not reach the store"
        self._stored = found


class Watched(Tracker):
    """A tracker that records nothing, with one callback."""

    def __init__(self, callback: TrainerCallback) -> None:
        """Add `callback` to the training."""
        super().__init__(None)
        self._callback = callback

    def trainer_callbacks(self) -> list[Any]:
        """Return the callback."""
        return [self._callback]


def main() -> None:
    """Measure both stores and print a table, or one JSON document; with `--store`, be one of the trainings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400, help="rounds of four steps per store; at least 2")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds until the S3 server handles a request")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe value")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.latency)
    if arguments.store:
        print(json.dumps(train(arguments)))
        return
    document = measure(arguments)
    print(json.dumps(document, indent=1)) if arguments.json else show(document)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of each store."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        stores = {"a directory": run(home, str(Path(directory) / "store"))}
        with slow_bucket(arguments.latency) as uri:
            stores[f"S3, {1000 * arguments.latency:g} ms per request"] = run(home, uri)
    return {"machine": f"{processor()}, {os.cpu_count()} cores", "rounds": arguments.rounds, "stores": stores}


def show(document: dict[str, Any]) -> None:
    """Print a line per store."""
    print(f"{document['machine']}; {document['rounds']} rounds")
    print("| Store | Step during an upload / step without | ms per step | Checkpoint, MB | Start, ms | Uploads |")
    print("| --- | --- | --- | --- | --- | --- |")
    for store, row in document["stores"].items():
        shares = f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        others = " | ".join(f"{row[name]:.0f}" for name in ("step_ms", "megabytes", "start_ms", "uploads"))
        print(f"| {store} | {shares} | {others} |")


def run(home: Path, uri: str) -> dict[str, Any]:
    """Return the figures of one training, in its own process with the environment of a stage."""
    command = [sys.executable, "-m", "benchmarks.checkpoints", *sys.argv[1:], "--store", uri]
    environment = os.environ | library_environment(home) | {"SAEBYEOK_HOME": str(home)}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train while checkpoints go to the store, and return its figures."""
    road = long_rows(arguments.set)
    home, recipe = road.job.settings.home, road.recipe.name
    cache = str(home / "cache" / "store")
    shared = Shared(arguments.store, cache, recipe, "0" * 16, attempt=1, run="benchmark", seconds=0.0)
    with tempfile.TemporaryDirectory(dir=home) as directory:
        work = Path(directory) / "work"
        turns = Alternation(work, shared, arguments.rounds)
        fit_here(road.job, {"tokenized": road.tokenized}, Path(directory) / "draft", work, Watched(turns))
        size = sum(path.stat().st_size for path in (work / SNAPSHOT).rglob("*") if path.is_file())
    return {**summarize(turns.rounds, turns.starts), "megabytes": size / 1e6}


def long_rows(chosen: list[str]) -> Road:
    """Return the pipeline of the recipe on rows of several reviews each."""
    long = {"model.max_length": LENGTH, "train.epochs": 100}
    job = open_job("nsmc", settings=load_settings(), sample=True, overrides=long | overrides(chosen))
    rows = sample_rows(job.recipe, copy_sample(job.settings.home / "sample"))
    for table in rows.values():
        texts = table["text"].tolist()
        table["text"] = [" ".join((texts * 2)[number : number + REVIEWS]) for number in range(len(texts))]
    return Road(job, rows)


def summarize(rounds: list[list[float]], starts: list[float]) -> dict[str, Any]:
    """Return the ratio of the seconds per step with its interval, and medians."""
    halves = [
        [statistics.fmean(took for took, runs in zip(steps, RUNS, strict=True) if runs is wanted) for steps in rounds]
        for wanted in (True, False)
    ]
    return {
        **ratio([[math.log(during / apart)] for during, apart in zip(*halves, strict=True)]),
        "step_ms": 1000 * statistics.median(halves[1]),
        "start_ms": 1000 * statistics.median(starts),
        "uploads": len(starts),
    }


@contextmanager
def slow_bucket(latency: float) -> Iterator[str]:
    """Yield the URI of a store on an S3 server in another process, which handles each request after `latency` s."""
    command = [sys.executable, "-m", "benchmarks.checkpoints", "--serve", "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        url = server.stdout.readline().strip()
        assert url, "the S3 server did not start"
        os.environ |= CREDENTIALS | {"AWS_ENDPOINT_URL": url}
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        try:
            yield f"s3://{BUCKET}/store"
        finally:
            server.terminate()


def serve(latency: float) -> None:
    """Print the URL of an S3 server, which runs until this process is killed."""

    def later(application: Application, environ: Environ, start: Any) -> Any:
        time.sleep(latency)
        return application(environ, start)

    os.nice(19)
    answer: Answer = later
    with s3_server() as (url, server):
        server.faults += [Fault(answer, method, "", 10**9, 0) for method in ("GET", "HEAD", "POST", "PUT", "DELETE")]
        print(url, flush=True)
        time.sleep(10**6)


if __name__ == "__main__":
    main()
