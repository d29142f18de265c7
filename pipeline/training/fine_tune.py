"""Fine-tuning with transformers' Trainer: resume, best epoch, and the linear fit from cosines to scores."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate
from transformers import (
    EvalPrediction,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from pipeline.job import Job
from pipeline.metrics.arrays import Numbers
from pipeline.models.base_model import Base
from pipeline.models.batches import Collate, Rows, load_rows
from pipeline.models.build import freeze_layers, save_trained
from pipeline.models.hardware import (
    batch_threads,
    best_device,
    compiles,
    cores,
    gpu_errors,
    gpu_memory,
    has_bf16,
    packs_rows,
    training_attention,
    training_processes,
)
from pipeline.models.heads import Head
from pipeline.models.network import Network
from pipeline.models.tokenizer import load_tokenizer
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import TokenizationFigures, TrainingFigures
from pipeline.tasks.registry import task_of
from pipeline.tasks.task import Task
from pipeline.tracking.tracker import Tracker
from pipeline.training.checkpoints import CheckpointCallback, fetch_newer, newest_checkpoint, seconds_behind
from pipeline.training.class_loss import class_loss
from pipeline.training.cls_only import compute_first_row
from pipeline.training.distributed import Order, spread
from pipeline.training.forecast import forecasts
from pipeline.training.head_only import Vectors
from pipeline.training.packing import can_pack, compile_layers, pack_rows
from pipeline.training.pair_augmentation import Mixing
from pipeline.training.samplers import Batches, EvenBatches
from pipeline.training.shared_checkpoints import Uploads
from pipeline.training.trainer import FineTuner, Meter

log = logging.getLogger(__name__)

#: Threads for a model from scratch: in so small a model, synchronization takes longer than the work (decision 7).
SCRATCH_THREADS = 1


@gpu_errors()
def fit_here(job: Job, inputs: Mapping[str, Artifact], draft: Path, work: Path, tracker: Tracker) -> TrainingFigures:
    """Call `fit` in this process, or in one process per GPU; both give the same model up to rounding.

    A newer checkpoint of another host is used. Raises StoreError if the store cannot be read, GpuError if other
    processes occupy the only GPU, ProcessError if they occupy one of several.
    """
    fetch_newer(work)
    scratch = TokenizationFigures.read(inputs["tokenized"]).base.revision is None
    threads = job.settings.threads or (SCRATCH_THREADS if scratch else cores())
    processes = training_processes(job.recipe.train.batch_size) if job.recipe.train.tune == "full" else 1
    if processes == 1:
        return fit(job, inputs, draft, work, tracker, threads=threads)
    order = Order(partial(fit, job, inputs, draft, work), work, max(1, threads // processes))
    return spread(order, tracker, processes)


def fit(
    job: Job, inputs: Mapping[str, Artifact], draft: Path, work: Path, tracker: Tracker, *, threads: int
) -> TrainingFigures:
    """Fine-tune, resuming from the newest complete checkpoint in `work`; inputs, figures and errors as in `train`.

    With several processes, each computes its share of every batch and the first writes the files.
    """
    recipe, tokenized = job.recipe, inputs["tokenized"]
    base = TokenizationFigures.read(tokenized).base
    if start := inputs.get("start"):
        directory: Path | None = start.path / "model"
    else:
        directory = None if base.revision is None else Base(base.base, base.revision).fetch()
    tokenizer = load_tokenizer(tokenized.path / "tokenizer")
    set_seed(recipe.train.seed)
    task = task_of(recipe)
    network = task.build(directory, tokenizer)
    freeze_layers(network.transformer, recipe.train.frozen_layers)
    sharing = _sharing(recipe, network.module, threads)
    torch.set_num_threads(threads // sharing)
    checkpoint = newest_checkpoint(work)
    uploads = Uploads(work)
    watch = CheckpointCallback(seconds_behind(checkpoint), uploads)
    network.transformer.set_attn_implementation(training_attention())
    if network.reads_first:
        compute_first_row(network.transformer)
    lesson = _lesson(recipe, network, tokenized, tokenizer.pad_token_id)
    packed = _quicken(recipe, network, recipe.train.epochs * len(lesson.batches))
    trainer = _trainer(
        task, lesson, work, [watch, *forecasts(), *tracker.trainer_callbacks()], packed=packed, sharing=sharing
    )
    with closing(uploads), watch.terminable():
        trainer.train(resume_from_checkpoint=checkpoint)
    # Later steps have larger batches, which no batch threads share.
    torch.set_num_threads(threads)
    seconds = watch.seconds
    if trainer.is_world_process_zero():
        save_trained(network.transformer, tokenizer, draft / "model")
    history = [entry for entry in trainer.state.log_history if "eval_loss" in entry or "loss" in entry]
    best = _best(recipe, history)
    return TrainingFigures(
        seconds=seconds,
        samples_per_second=len(lesson.train) * recipe.train.epochs / seconds,
        padding=trainer.meter.padding,
        parts=trainer.parts,
        best_epoch=round(best["epoch"]),
        validation={name: best[f"eval_{name}"] for name in recipe.metrics},
        history=tuple(_epochs(history)),
        parameters=sum(parameter.numel() for parameter in network.module.parameters()),
        **gpu_memory(),
        device=torch.cuda.get_device_name() if best_device().type == "cuda" else "cpu",
        precision="bf16" if trainer.args.bf16 else "fp32",
        **task.calibrate(partial(_validate, trainer)),
        base=base,
    )


def _sharing(recipe: Recipe, module: nn.Module, threads: int) -> int:
    """Return how many threads share a batch; 1 if dropout would make the result depend on the order of threads."""
    draws = any(isinstance(part, nn.Dropout) and part.p > 0 for part in module.modules())
    if draws or recipe.train.tune != "full" or torch.distributed.is_initialized():
        return 1
    return batch_threads(recipe.train.batch_size, threads)


def _quicken(recipe: Recipe, network: Network, steps: int) -> bool:
    """Pack and compile the layers if that is faster on this machine; return whether batches are padding-free."""
    encoder = network.transformer
    if recipe.train.tune != "full" or not can_pack(encoder):
        return False
    if packed := packs_rows(mixed=network.compare is not None):
        pack_rows(encoder)
    if compiles(steps):
        compile_layers(encoder)
    return packed


@dataclass(frozen=True)
class Lesson:
    """The module to train, its data, and how rows become batches."""

    module: nn.Module
    train: Rows | Vectors
    validation: Rows | Vectors
    batches: Batches
    collate: Callable[[Any], Any]
    uses_all: bool = False
    "Whether every parameter is known to be used in every step."
    compare: Callable[[Tensor, Tensor], Tensor] | None = None
    "See `Network`."
    row_loss: Callable[[Tensor, Tensor], Tensor] | None = None
    "The mean loss of logits and labels (batch,), if it is not the module's own."


def _lesson(recipe: Recipe, network: Network, tokenized: Artifact, pad: int) -> Lesson:
    train, validation = (tokenized.path / f"{side}.parquet" for side in ("train", "validation"))
    # Scores have no labels to weight.
    labels = pd.read_parquet(train, columns=["label"])["label"].to_numpy() if recipe.labels else None
    row_loss = None if labels is None else class_loss(recipe.train, labels, len(recipe.labels))
    if recipe.train.tune == "full":
        lengths = pd.read_parquet(train, columns=["length"])["length"].to_numpy()
        if network.compare:
            # The loss compares the rows of a batch, so batches are mixed by length and equal in size.
            lengths = np.ones_like(lengths)
        batches = EvenBatches(lengths, recipe.train.batch_size, recipe.train.seed)
        # If rows are evaluated independently, sort them by length to reduce padding.
        judged = load_rows(validation, by_length=not network.compare)
        uses_all = can_pack(network.transformer)
        rows = load_rows(train)
        return Lesson(network.module, rows, judged, batches, Collate(pad), uses_all, network.compare, row_loss)
    classifier, pooling = network.transformer, recipe.model.pooling
    read, kept = (Vectors(classifier, pooling, side, pad) for side in (train, validation))
    batches = EvenBatches(np.ones(len(read)), recipe.train.batch_size, recipe.train.seed)
    return Lesson(Head(classifier), read, kept, batches, default_collate, row_loss=row_loss)


def _trainer(
    task: Task, lesson: Lesson, work: Path, callbacks: list[TrainerCallback], *, packed: bool, sharing: int = 1
) -> FineTuner:
    recipe = task.recipe

    def figures(prediction: EvalPrediction) -> dict[str, float]:
        found = task.judge(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))
        # Count an epoch without a value as the worst: after NaN, no later epoch would compare as better.
        return {name: -1.0 if math.isnan(value) else value for name, value in found.items()}

    return FineTuner(
        batches=lesson.batches,
        layer_decay=recipe.train.layer_decay,
        packed=packed,
        compare=lesson.compare,
        mix=_mix(recipe),
        row_loss=lesson.row_loss,
        sharing=sharing,
        model=lesson.module,
        args=_arguments(recipe, lesson, work),
        train_dataset=lesson.train,
        eval_dataset=lesson.validation,
        data_collator=lesson.collate,
        compute_metrics=figures,
        callbacks=callbacks,
    )


def _arguments(recipe: Recipe, lesson: Lesson, work: Path) -> TrainingArguments:
    settings = recipe.train
    cuda = best_device().type == "cuda"
    return TrainingArguments(
        output_dir=str(work),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="linear",
        seed=settings.seed,
        bf16=has_bf16(),
        use_cpu=not cuda,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=recipe.selection_metric,
        greater_is_better=True,
        logging_steps=max(1, min(50, len(lesson.batches) // 5)),
        # Show NaN instead of averaging it away.
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=cuda,
        # If true, evaluation losses are multiplied by the number of processes.
        average_tokens_across_devices=False,
        # If every parameter is used, DDP need not search for unused ones.
        ddp_find_unused_parameters=not lesson.uses_all,
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
    )


def _mix(recipe: Recipe) -> Mixing | None:
    settings = recipe.train
    if not (settings.left_out or settings.strangers or settings.joined):
        return None
    return Mixing(
        left_out=settings.left_out,
        strangers=settings.strangers,
        joined=settings.joined,
        lowest=recipe.task.answer_range(recipe)[0],
        max_length=recipe.model.max_length,
        seed=settings.seed,
    )


def _best(recipe: Recipe, history: list[dict[str, Any]]) -> dict[str, Any]:
    first = f"eval_{recipe.selection_metric}"
    return max((entry for entry in history if first in entry), key=lambda entry: float(entry[first]))


def _epochs(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for entry in history:
        row = rows.setdefault(math.ceil(entry["epoch"] - 1e-9), {})
        # Keep the last loss of an epoch, but not the speed of its last steps, which does not represent the epoch.
        row |= {name: value for name, value in entry.items() if name not in ("epoch", "step", *Meter().figures())}
    return [{"epoch": epoch, **row} for epoch, row in sorted(rows.items())]


def _validate(trainer: FineTuner) -> tuple[Numbers, Numbers]:
    """Return the raw outputs and the labels of the validation split."""
    assert trainer.eval_dataset is not None
    found = trainer.predict(trainer.eval_dataset)  # type: ignore[arg-type]
    return np.asarray(found.predictions), np.asarray(found.label_ids)
