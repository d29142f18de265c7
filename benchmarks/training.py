"""Compare fine-tuning by the train stage with the usual script: same rows, same epochs, interleaved rounds.

python -m benchmarks.training --data DIR [--recipe nsmc] [--rows 20000] [--epochs 1] [--rounds 3] [--set K=V] [--json]
The usual script is that of the transformers examples: its Trainer with default settings, everything padded to the
recipe's `max_length`, fp32, one thread per core. Both start from the same weights and are evaluated on the same test
rows in fp32. Each side runs in its own process per round. On CUDA, wall times are from the start of that process to the
published artifact (ours) or the saved model (usual).
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
from pathlib import Path
from typing import Any

from benchmarks.cut import first_rows
from pipeline.config_file import ROOT
from pipeline.tasks.registry import task_of

SIDES = ("ours", "usual")
#: Number of measurements of the machine's rate.
PRODUCTS = 10


def main() -> None:
    """Run the rounds and print a table, or one JSON document; with `--side`, be one of the trainings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="nsmc")
    parser.add_argument("--data", required=True, type=Path, help="directory with the published files")
    parser.add_argument("--rows", type=int, default=20_000, help="number of rows of the train file to use")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe value")
    parser.add_argument("--square", type=int, default=2048, help="size of the matrices that give the machine's rate")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=7, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(one_side(arguments)))
        return
    document = measure(arguments)
    if arguments.json:
        print(json.dumps(document, indent=1))
        return
    print(f"{document['machine']}, {document['device']}; {document['train_rows']:,} rows, {arguments.epochs} epochs")
    for side in SIDES:
        print(f"{side:<6} " + "  ".join(f"{name} {value:,.4g}" for name, value in document[side].items()))
    print(f"ours is {document['ratio']:.1f} times as fast (rounds: {document['ratios']})")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the medians of both sides over the rounds, and the ratio of each round."""
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"SAEBYEOK_HOME": home, "WANDB_MODE": "disabled"}
        rounds = []
        for number in range(arguments.rounds):
            seeded = ["--seed", str(arguments.seed + number)]
            # Alternate the order, so that a machine that slows down does not favour one side.
            sides = SIDES if number % 2 else SIDES[::-1]
            rounds.append({side: run(["--side", side, *seeded], environment) for side in sides})
    ratios = [found["ours"]["samples_per_second"] / found["usual"]["samples_per_second"] for found in rounds]
    walls = [found["usual"]["wall_seconds"] / found["ours"]["wall_seconds"] for found in rounds]
    first = rounds[0]["ours"]
    return {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "device": first["device"],
        "recipe": arguments.recipe,
        "train_rows": first["train_rows"],
        **{side: middle([found[side] for found in rounds]) for side in SIDES},
        "accuracies": {side: [found[side]["metric"] for found in rounds] for side in SIDES},
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "wall_ratio": statistics.median(walls),
    }


def run(arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run one training in its own process and return its figures."""
    started = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # The evaluation is not part of the training time.
    found["wall_seconds"] = time.monotonic() - started - found.pop("other_seconds")
    return found


def middle(found: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median of each figure."""
    names = [name for name, value in found[0].items() if isinstance(value, float)]
    return {name: statistics.median(item[name] for item in found) for name in names}


def one_side(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train as one of the two sides, evaluate the model, and return its figures."""
    from pipeline.cli.options import overrides
    from pipeline.job import keep_libraries_home, open_job
    from pipeline.settings import load_settings
    from pipeline.stages.running import run_stage
    from pipeline.stages.stage import TOKENIZE, VALIDATE
    from pipeline.store.figures import TokenizationFigures

    if arguments.side == "usual":
        # OpenMP is configured when torch is loaded: load it before Saebyeok's own settings apply (decision 7).
        import torch  # noqa: F401
    data = cut_data(arguments.data.resolve(), load_settings().home / "data", arguments.recipe, arguments.rows)
    os.environ["SAEBYEOK_DATA"] = str(data)
    settings = load_settings()
    keep_libraries_home(settings)
    chosen = overrides(arguments.set, epochs=arguments.epochs, seed=arguments.seed) | {"data.min_train_rows": 1}
    started = time.monotonic()
    job = open_job(arguments.recipe, settings=settings, overrides=chosen, run=f"{arguments.side}-{arguments.seed}")
    validated = run_stage(job, VALIDATE, []).artifact
    tokenized = run_stage(job, TOKENIZE, [validated]).artifact
    apart = time.monotonic() - started
    trained, seconds, padding = (ours if arguments.side == "ours" else usual)(job, tokenized)
    started = time.monotonic()
    figures = TokenizationFigures.read(tokenized).train
    peak = matrix_rate(trained.device, arguments.square)
    rows, tokens = figures.rows * arguments.epochs, figures.rows * figures.mean_length * arguments.epochs
    return {
        "device": device_name(trained.device),
        "train_rows": figures.rows,
        "seconds": seconds,
        "samples_per_second": rows / seconds,
        "tokens_per_second": tokens / seconds,
        "padding": padding,
        "share_of_peak": tokens / seconds * work_of(trained, figures.mean_length) / peak,
        "metric": judge(job.recipe, trained, tokenized),
        "other_seconds": apart + time.monotonic() - started,
    }


def cut_data(source: Path, target: Path, recipe: str, rows: int) -> Path:
    """Copy the published files with the first `rows` rows of the train file and without arrivals; return `target`."""
    from pipeline.recipes.loading import load_recipe

    spec = load_recipe(recipe, "embedded").data
    for name in (spec.train, spec.test):
        file = target / name
        if file.is_file():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(first_rows(source / name, rows) if name == spec.train else (source / name).read_bytes())
    return target


def ours(job: Any, tokenized: Any) -> tuple[Any, float, float]:
    """Train by the stage. Return the model, the seconds of training, and the share of padding."""
    from pipeline.stages.running import run_stage
    from pipeline.stages.stage import TRAIN
    from pipeline.store.figures import TrainingFigures
    from pipeline.tasks.trained import load_trained

    artifact = run_stage(job, TRAIN, [tokenized]).artifact
    figures = TrainingFigures.read(artifact)
    return load_trained(job.recipe, artifact), figures.seconds, figures.padding


def usual(job: Any, tokenized: Any) -> tuple[Any, float, float]:
    """Train as the transformers examples do: everything padded to `max_length`, the Trainer with default settings."""
    import numpy as np
    import pandas as pd
    import torch
    from transformers import Trainer, TrainingArguments, default_data_collator, set_seed

    from pipeline.models.base_model import Base
    from pipeline.models.build import save_trained
    from pipeline.models.tokenizer import load_tokenizer
    from pipeline.store.figures import TokenizationFigures
    from pipeline.tasks.trained import Trained

    recipe = job.recipe
    torch.set_num_threads(os.cpu_count() or 1)
    tokenizer = load_tokenizer(tokenized.path / "tokenizer")
    base = TokenizationFigures.read(tokenized).base
    directory = None if base.revision is None else Base(base.base, base.revision).fetch()
    set_seed(recipe.train.seed)
    network = task_of(recipe).build(directory, tokenizer)
    model = network.module
    table = pd.read_parquet(tokenized.path / "train.parquet")
    length = recipe.model.max_length

    def padded(values: Any, filler: int) -> list[np.ndarray[Any, Any]]:
        return [np.pad(item, (0, length - len(item)), constant_values=filler) for item in values]

    columns: dict[str, Any] = {"labels": table["label"].tolist()}
    if "token_type_ids" in table:
        columns["token_type_ids"] = padded(table["token_type_ids"], 0)
    for name in [name for name in table if name.startswith("input_ids")]:
        columns[name] = padded(table[name], tokenizer.pad_token_id)
        columns[name.replace("input_ids", "attention_mask")] = padded([np.ones_like(item) for item in table[name]], 0)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    settings = recipe.train
    with tempfile.TemporaryDirectory() as directory_:
        arguments = TrainingArguments(
            output_dir=directory_,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size,
            warmup_steps=settings.warmup,
            weight_decay=settings.weight_decay,
            seed=settings.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=default_data_collator)
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
        save_trained(network.transformer, tokenizer, Path(directory_))
    device = next(model.parameters()).device
    padding = 1 - float(np.mean([row["attention_mask"].mean() for row in rows]))
    model.eval()
    return Trained(recipe, network, tokenizer, None, None, device), seconds, padding


def judge(recipe: Any, trained: Any, tokenized: Any) -> float:
    """Return the recipe's first metric on the test rows, predicted in fp32."""
    import pandas as pd

    rows = pd.read_parquet(tokenized.path / "test.parquet")
    found = task_of(recipe).metrics(rows["label"].to_numpy(), trained.answer_encoded(rows))
    return float(found[recipe.metrics[0]])


def work_of(trained: Any, length: float) -> float:
    """Return the floating-point operations per token, forward and backward, for inputs of `length` tokens."""
    inner = trained.network.transformer.base_model
    weights = sum(item.numel() for item in inner.encoder.parameters())
    attention = 2 * inner.config.num_hidden_layers * inner.config.hidden_size * length
    return 6.0 * (weights + attention)


def matrix_rate(device: Any, size: int) -> float:
    """Return the operations per second of this machine's bf16 products of square matrices (fp32 if it has no bf16)."""
    import torch

    from pipeline.models.hardware import has_bf16

    kind = torch.bfloat16 if has_bf16() else torch.float32
    torch.set_num_threads(os.cpu_count() or 1)
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(PRODUCTS):
        wait(device)
        started = time.perf_counter()
        left @ right
        wait(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def wait(device: Any) -> None:
    """Wait until the GPU has finished its work."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def device_name(device: Any) -> str:
    """Return the name of the device."""
    import torch

    return torch.cuda.get_device_name() if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
