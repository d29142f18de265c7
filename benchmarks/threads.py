"""Training steps a second of an embedded model on a CPU: one thread or one a core, alone and two trainings at once.

python -m benchmarks.threads [--recipe nsmc] [--seconds 8] [--rounds 3] [--json]
The model and its batches have the size of the recipe's, the tokens are random; the ways are interleaved.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

from pipeline.recipe import load_recipe
from pipeline.settings import ROOT, library_environment

#: Threads (0: one a core) and OpenMP's way to wait at a barrier.
WAYS = {"one thread": (1, "PASSIVE"), "a thread a core, passive": (0, "PASSIVE"), "a thread a core, spinning": (0, "")}
#: Tokens of a batch's rows, padded to one another as `group_by_length` leaves them.
LENGTHS = (10, 14, 20, 28, 50)
WARM = 10


def main() -> None:
    """Run the rounds and print a table, or one JSON document; with `--threads`, be one of the trainings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="nsmc")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each training, after its first steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads is not None:
        print(train(arguments.recipe, arguments.threads, arguments.seconds))
        return
    document = measure(arguments.recipe, arguments.seconds, arguments.rounds)
    if arguments.json:
        print(json.dumps(document, indent=1))
        return
    print(f"{document['machine']}; steps a second of each training, median of {arguments.rounds}")
    for way, row in document["ways"].items():
        print(f"{way:<26} alone {row['alone']:5.1f}   two at once {row['two at once']:5.1f}")


def measure(recipe: str, seconds: float, rounds: int) -> dict[str, Any]:
    """Median steps a second of each way; of two at once, the slower one's."""
    seen: dict[str, dict[str, list[float]]] = {way: {"alone": [], "two at once": []} for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            for case, trainings in (("alone", 1), ("two at once", 2)):
                seen[way][case].append(slowest(recipe, way, seconds, trainings))
    return {
        "recipe": recipe,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "ways": {way: {case: statistics.median(found) for case, found in row.items()} for way, row in seen.items()},
    }


def slowest(recipe: str, way: str, seconds: float, trainings: int) -> float:
    """Steps a second of the slowest of so many processes at once."""
    threads, policy = WAYS[way]
    command = [sys.executable, "-m", "benchmarks.threads", "--recipe", recipe]
    command += ["--threads", str(threads), "--seconds", str(seconds)]
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | library_environment(Path(home)) | {"OMP_WAIT_POLICY": policy}
        if not policy:
            del environment["OMP_WAIT_POLICY"]
        processes = [
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) for _ in range(trainings)
        ]
        return min(float(process.communicate()[0]) for process in processes)


def train(name: str, threads: int, seconds: float) -> float:
    """Steps a second of one training."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    if threads:
        torch.set_num_threads(threads)
    recipe = load_recipe(name, "embedded")
    shape = recipe.model.scratch
    assert shape is not None
    torch.manual_seed(recipe.train.seed)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.intermediate,
        )
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.train.learning_rate)
    started = 0.0
    for step in count():
        if step == WARM:
            started = time.perf_counter()
        if started and (spent := time.perf_counter() - started) > seconds:
            return (step - WARM) / spent
        tokens = torch.randint(shape.vocabulary, (recipe.train.batch_size, LENGTHS[step % len(LENGTHS)]))
        labels = torch.randint(2, (recipe.train.batch_size,))
        model(input_ids=tokens, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    raise AssertionError


if __name__ == "__main__":
    main()
