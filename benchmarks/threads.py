"""Measure training steps per second of `mini` on a CPU: one thread or one per core, one training or two at once.

python -m benchmarks.threads [--recipe nsmc] [--ways WAY ...] [--seconds 8] [--warm 10] [--rounds 3] [--json]
Several threads share each matrix product, or compute a part of the batch each (`pipeline/training/batch_threads.py`).
Batches have the recipe's size and random tokens; the ways are interleaved.
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

from pipeline.config_file import ROOT
from pipeline.recipes.loading import load_recipe
from pipeline.settings import library_environment
from pipeline.training.batch_threads import Batch, BatchThreads

#: Threads that share a batch, threads that share each matrix product (0: one per core), and OpenMP's wait policy.
WAYS = {
    "one thread": (1, 1, "PASSIVE"),
    "a thread a core, passive": (1, 0, "PASSIVE"),
    "a thread a core, spinning": (1, 0, ""),
    "a thread a core, of a batch": (0, 1, "PASSIVE"),
}
#: Tokens per row of successive batches, padded as after `group_by_length`.
LENGTHS = (10, 14, 20, 28, 50)


def main() -> None:
    """Run the rounds and print a table, or one JSON document; with `--one`, be one of the trainings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="nsmc")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds per training, after the warm-up")
    parser.add_argument("--warm", type=int, default=10, help="steps of the warm-up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(train(arguments.recipe, arguments.ways[0], arguments.seconds, arguments.warm))
        return
    document = measure(arguments)
    if arguments.json:
        print(json.dumps(document, indent=1))
        return
    print(f"{document['machine']}; steps per second of each training, median of {arguments.rounds}")
    for way, row in document["ways"].items():
        print(f"{way:<28} alone {row['alone']:5.1f}   two at once {row['two at once']:5.1f}")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the median steps per second of each way; for two trainings at once, of the slower one."""
    seen: dict[str, dict[str, list[float]]] = {way: {"alone": [], "two at once": []} for way in arguments.ways}
    for _ in range(arguments.rounds):
        for way in arguments.ways:
            for case, trainings in (("alone", 1), ("two at once", 2)):
                seen[way][case].append(slowest(arguments, way, trainings))
    return {
        "recipe": arguments.recipe,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "ways": {way: {case: statistics.median(found) for case, found in row.items()} for way, row in seen.items()},
    }


def slowest(arguments: argparse.Namespace, way: str, trainings: int) -> float:
    """Return the steps per second of the slowest of `trainings` concurrent processes."""
    policy = WAYS[way][-1]
    command = [sys.executable, "-m", "benchmarks.threads", "--one"]
    command += ["--recipe", arguments.recipe, "--ways", way]
    command += ["--seconds", str(arguments.seconds), "--warm", str(arguments.warm)]
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | library_environment(Path(home)) | {"OMP_WAIT_POLICY": policy}
        if not policy:
            del environment["OMP_WAIT_POLICY"]
        processes = [
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) for _ in range(trainings)
        ]
        return min(float(process.communicate()[0]) for process in processes)


def train(name: str, way: str, seconds: float, warm: int) -> float:
    """Return the steps per second of one training."""
    import torch
    from torch import Tensor
    from transformers import AutoConfig, BertForSequenceClassification

    from pipeline.models.base_model import shipped
    from pipeline.models.hardware import cores, has_bf16, training_attention

    sharing, threads = (count or cores() for count in WAYS[way][:2])
    torch.set_num_threads(threads)
    settings = load_recipe(name, "embedded").train
    torch.manual_seed(settings.seed)
    config = AutoConfig.from_pretrained(shipped("mini"), attn_implementation=training_attention())
    model = BertForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, fused=True)

    def forward(piece: Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(), cache_enabled=False):
            loss: Tensor = model(**piece).loss
        return loss

    side_by_side, parameters = BatchThreads(sharing), list(model.parameters())
    started = 0.0
    for step in count():
        if step == warm:
            started = time.perf_counter()
        if started and (spent := time.perf_counter() - started) > seconds:
            return (step - warm) / spent
        tokens = torch.randint(config.vocab_size, (settings.batch_size, LENGTHS[step % len(LENGTHS)]))
        batch = {"input_ids": tokens, "labels": torch.randint(2, (settings.batch_size,))}
        side_by_side.learn(parameters, batch, forward)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    raise AssertionError


if __name__ == "__main__":
    main()
