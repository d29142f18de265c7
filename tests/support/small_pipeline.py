"""Tiny recipes and the artifacts of their real stages, small enough for each test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

from pipeline.data.reading import read_split
from pipeline.job import Job, day_of, open_store
from pipeline.models.tokenizer import learn_tokenizer
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import SCRATCH, Recipe
from pipeline.sample import write_sample
from pipeline.settings import load_settings
from pipeline.stages.decide import decide
from pipeline.stages.evaluate import evaluate
from pipeline.stages.find_or_build import find_or_build
from pipeline.stages.tokenize import tokenize
from pipeline.stages.train import train
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import ValidationFigures
from pipeline.tracking.tracker import Tracker

SHAPE = {"vocabulary": 600, "layers": 1, "hidden": 32, "heads": 2, "intermediate": 64, "dropout": 0.1}
SMALL: dict[str, Any] = {
    "model.base": SCRATCH,
    "model.scratch": SHAPE,
    "model.max_length": 32,
    # Tiny vocabularies know little.
    "model.unknown_share": 1.0,
    "train.epochs": 2,
    "train.batch_size": 32,
    "train.learning_rate": 3e-3,
    "train.left_out": 0.0,
    "train.strangers": 0.0,
    "train.joined": 0.0,
    "export.sentences": 100,
    # A model of this size answers in a millisecond, even on a busy machine.
    "export.latency_ms": 5000.0,
    "export.int8": {"changed_labels": 0.2, "metric_change": 0.1},
}


def small_recipe(name: str, **overrides: Any) -> Recipe:
    """Return a tiny version of recipe `name` on the sample data; `train__epochs=2` sets `train.epochs`."""
    chosen = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_recipe(name, "embedded", sample=True, overrides=SMALL | chosen)


def anything_goes(name: str) -> dict[str, float]:
    """Return overrides with which the gate of recipe `name` accepts any working model."""
    gate = load_recipe(name, "embedded").gate
    bounds = {f"gate.behaviour.{capability}": 1e-9 for capability in gate.behaviour}
    return bounds | {f"gate.floors.{metric}": 0.01 for metric in gate.floors} | {"gate.margin": 0.9}


def sample_rows(
    recipe: Recipe, directory: Path, train: int | None = None, test: int | None = None
) -> dict[str, pd.DataFrame]:
    """Return the first rows (or all) of both files of the sample in `directory`."""
    return {
        "train": read_split(recipe, directory, "train")[:train],
        "test": read_split(recipe, directory, "test")[:test],
    }


def make_validated(job: Job, rows: dict[str, pd.DataFrame]) -> Artifact:
    """Publish a validate artifact of these rows, without the data gate."""
    texts = [name for name in ("text", "text_pair") if name in rows["train"]]
    known = pd.MultiIndex.from_frame(rows["train"][texts])

    def build(draft: Path, _: Tracker) -> ValidationFigures:
        test = rows["test"].reset_index(drop=True)
        in_train = pd.MultiIndex.from_frame(test[texts]).isin(known)
        rows["train"].reset_index(drop=True).to_parquet(draft / "train.parquet", index=False)
        test.assign(in_train=in_train).to_parquet(draft / "test.parquet", index=False)
        return ValidationFigures(
            train_rows=len(rows["train"]),
            test_rows=len(test),
            test_in_train=int(in_train.sum()),
            warnings=(),
            sample=True,
            cutoff=None,
            arrivals=(),
        )

    digest = {name: int(pd.util.hash_pandas_object(table).sum()) for name, table in rows.items()}
    return find_or_build(job, "validate", 1, fields=digest, inputs={}, build=build)


@dataclass(frozen=True)
class Road:
    """One job from accepted rows to figures; each stage runs when it is first accessed."""

    job: Job
    rows: dict[str, pd.DataFrame]

    @property
    def recipe(self) -> Recipe:
        return self.job.recipe

    @cached_property
    def validated(self) -> Artifact:
        return make_validated(self.job, self.rows)

    @cached_property
    def tokenized(self) -> Artifact:
        return tokenize(self.job, self.validated)

    @cached_property
    def trained(self) -> Artifact:
        return train(self.job, self.tokenized)

    @cached_property
    def evaluated(self) -> Artifact:
        return evaluate(self.job, self.validated, self.tokenized, self.trained)

    @cached_property
    def decided(self) -> Artifact:
        return decide(self.job, self.evaluated, None)

    @cached_property
    def released(self) -> Artifact:
        # Imported here because only few tests export.
        from pipeline.stages.export import export

        return export(self.job, self.validated, self.trained, self.evaluated, self.decided)

    def with_recipe(self, recipe: Recipe, *, force: bool = False) -> Road:
        """Return a pipeline of another recipe on the same rows in the same store."""
        return Road(replace(self.job, recipe=recipe, force=force), self.rows)

    def with_rows(self, rows: dict[str, pd.DataFrame]) -> Road:
        """Return a pipeline of the same recipe on other rows in the same store."""
        return Road(self.job, rows)


def open_road(recipe: Recipe, home: Path, train: int = 600, test: int = 200) -> Road:
    """Return a pipeline in a new home on the first rows of the sample."""
    settings = load_settings().model_copy(update={"home": home})
    job = Job(recipe, settings, open_store(settings), run="test-run", cutoff=day_of(settings))
    return Road(job, sample_rows(recipe, copy_sample(home / "sample"), train, test))


def copy_sample(directory: Path) -> Path:
    """Write the sample to `directory` from memory, and return `directory`."""
    for name, content in _sample_files().items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


@cache
def _sample_files() -> dict[Path, bytes]:
    """Return the sample's files, which are generated once per process."""
    with TemporaryDirectory() as directory:
        sample = write_sample(Path(directory))
        return {path.relative_to(sample): path.read_bytes() for path in sample.rglob("*") if path.is_file()}


def save_base(directory: Path, texts: list[str], *, kind: str = "bert", **shape: Any) -> Path:
    """Create a base model directory with random weights and a tokenizer trained on `texts`.

    `shape` sets fields of its configuration, such as `num_hidden_layers`.
    """
    tokenizer = learn_tokenizer(texts, 600)
    small: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(5)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **small | shape))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def weights(trained: Artifact) -> dict[str, torch.Tensor]:
    """Return the weights of a train artifact by parameter name."""
    return load_file(trained.path / "model" / "model.safetensors")
