"""transformers' Trainer with this project's batches, and its speed figures."""

from __future__ import annotations

import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import AutocastKwargs
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments
from typing_extensions import override

from pipeline.models.hardware import gpu_memory
from pipeline.training.batch_threads import Batch, BatchThreads, pieces_of
from pipeline.training.collectives import all_rows
from pipeline.training.pair_augmentation import Row
from pipeline.training.samplers import Batches, Share

log = logging.getLogger(__name__)

#: Layer number in the name of a parameter.
LAYER = re.compile(r"\.layer\.(\d+)\.")


@dataclass
class Meter:
    """Count the rows and tokens that go into a model, with and without padding."""

    rows: int = 0
    tokens: int = 0
    places: int = 0
    "Tokens including padding."
    packed: bool = False
    "Whether batches are padding-free."
    processes: int = 1
    "Processes that train together; rates are totals over all of them."
    started: float = field(default_factory=time.monotonic)

    def count(self, inputs: Mapping[str, Any]) -> None:
        """Count a batch of `Collate`."""
        masks = [value for name, value in inputs.items() if name.startswith("attention_mask")]
        self.rows += len(inputs["labels"])
        tokens = sum(int(mask.sum()) for mask in masks)
        self.tokens += tokens
        self.places += tokens if self.packed else sum(mask.numel() for mask in masks)

    @property
    def padding(self) -> float:
        """Return the share of padding among all tokens."""
        return 1 - self.tokens / self.places if self.places else 0.0

    def figures(self) -> dict[str, float]:
        """Return rows and tokens per second, the share of padding, and the peak GPU memory."""
        seconds = max(1e-9, time.monotonic() - self.started)
        rows, tokens = self.processes * self.rows, self.processes * self.tokens
        rates = {"samples_per_second": rows / seconds, "tokens_per_second": tokens / seconds}
        return rates | {"padding": self.padding} | gpu_memory()


def decay_by_layer(model: nn.Module, groups: Sequence[dict[str, Any]], decay: float) -> list[dict[str, Any]]:
    """Split an optimizer's parameter groups so that each layer has its own learning rate (Howard and Ruder 2018).

    The head keeps the rate of the group, the encoder's last layer gets `decay` times that, and so on down to the
    embeddings.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    layers = 1 + max((int(found[1]) for found in map(LAYER.search, names.values()) if found), default=-1)

    def below(name: str) -> int:
        if found := LAYER.search(name):
            return layers - int(found[1])
        return layers + 1 if "embeddings" in name else 0

    split = []
    for group in groups:
        depths = defaultdict(list)
        for parameter in group["params"]:
            depths[below(names[parameter])].append(parameter)
        split += [
            {**group, "params": parameters, "lr": group["lr"] * decay**depth}
            for depth, parameters in sorted(depths.items())
        ]
    return split


class BatchTrainer(Trainer):
    """transformers' Trainer with the batches of a `Batches` sampler."""

    def __init__(self, *, batches: Batches, args: TrainingArguments, **options: Any) -> None:
        """`options` are those of the Trainer."""
        # Otherwise one process splits batches over all GPUs (DataParallel) and copies the model to each in every step.
        args._n_gpu = min(1, args.n_gpu)
        super().__init__(args=args, **options)
        self._batches = batches
        if self.args.process_index:
            # Processes start from equal weights, but must draw different random numbers in training.
            torch.manual_seed(self.args.seed + self.args.process_index)
        # It prints to standard output; CheckpointCallback logs the same values.
        self.remove_callback(PrinterCallback)

    @override
    def get_train_dataloader(self) -> DataLoader[Any]:
        rank, processes = self.args.process_index, self.args.world_size
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=self._batches if processes == 1 else Share(self._batches, rank, processes),
            collate_fn=self.collate,
            pin_memory=self.args.dataloader_pin_memory,
        )
        if processes == 1:
            return self.accelerator.prepare(loader)  # type: ignore[no-any-return]
        # Prepare as for one process; with several, accelerate would shard the batches again.
        return prepare_data_loader(  # type: ignore[no-any-return]
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def collate(self, rows: list[Any]) -> dict[str, Any]:
        """Return the batch for training rows."""
        batch: dict[str, Any] = self.data_collator(rows)
        return batch


class FineTuner(BatchTrainer):
    """Trainer that logs speed and padding with each loss, and splits batches that exceed the GPU memory.

    A loss over pairs of rows, such as a bi-encoder's, covers only the rows of each part. Several processes, or threads
    on a CPU, share each batch and take the same step as one process would.
    """

    def __init__(
        self,
        *,
        layer_decay: float,
        packed: bool,
        compare: Callable[[Tensor, Tensor], Tensor] | None,
        mix: Callable[[Sequence[Row]], list[Row]] | None,
        row_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        sharing: int = 1,
        **options: Any,
    ) -> None:
        """`options` are those of the Trainer.

        Each layer learns at `layer_decay` times the rate of the layer above it. `packed`: batches are padding-free.
        `compare`: the loss of logits (batch,) and labels (batch,), if it is not a mean over rows. `mix`: augmentation
        of the rows of a batch. `row_loss`: the mean loss of logits and labels (batch,) in training, if it is not the
        model's own. `sharing`: number of threads that share a batch.
        """
        super().__init__(**options)
        self._layer_decay = layer_decay
        self._packed, self._compare, self._mix, self._row_loss = packed, compare, mix, row_loss
        self._threads = BatchThreads(sharing) if sharing > 1 else None
        if self._threads:
            # torch shares its cache of bf16 weights between threads, and the first thread to finish clears it. Whether
            # a gradient is accumulated in bf16 or fp32 would then depend on timing.
            self.accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)
        self.meter, self._lately = self._new_meter(), self._new_meter()
        self.parts = 1
        "Parts into which a batch is split to fit into memory."
        self._weight = 1.0

    def _new_meter(self) -> Meter:
        return Meter(packed=self._packed, processes=self.args.world_size)

    @override
    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        optimizer = super().create_optimizer(model)
        if self._layer_decay < 1:
            assert isinstance(self.model, nn.Module)
            optimizer.param_groups[:] = decay_by_layer(self.model, optimizer.param_groups, self._layer_decay)
        return optimizer

    @override
    def collate(self, rows: list[Any]) -> dict[str, Any]:
        batch = super().collate(self._mix(rows) if self._mix else rows)
        # Count here, before the batch is on a GPU, to avoid a synchronization.
        self.meter.count(batch)
        self._lately.count(batch)
        return batch

    @override
    def training_step(self, model: nn.Module, inputs: Batch, *args: Any, **options: Any) -> Tensor:
        if self._threads:
            return self._by_threads(self._threads, model, inputs)
        rows, processes = len(inputs["labels"]), self.args.world_size
        while True:
            try:
                loss = self._in_parts(model, inputs)
                return loss / processes if self._compare else loss
            except torch.OutOfMemoryError:
                # With several processes, the others would wait in a collective operation that this one has left.
                if self.parts >= rows or processes > 1:
                    raise
            # Outside of the handler, because the error keeps the tensors that did not fit alive.
            model.zero_grad()
            torch.cuda.empty_cache()
            self.parts *= 2
            log.warning("out of memory: from now on batches are computed in %d parts", self.parts)

    def _by_threads(self, threads: BatchThreads, model: nn.Module, inputs: Batch) -> Tensor:
        """Run one step on a CPU, as the Trainer does, but in several threads."""
        model.train()
        weight = self._weight_of(inputs, inputs)

        def forward(piece: Batch) -> Tensor:
            with self.compute_loss_context_manager():
                found: Any = model(**piece)["logits"] if self._compare else self._mean_loss(model, piece)
            assert isinstance(found, Tensor)
            return found * weight

        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return threads.learn(parameters, inputs, forward, self._compare)

    def _in_parts(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Run one step in parts, with the gradients of the whole batch."""
        losses = []
        for piece in pieces_of(inputs, self.parts):
            self._weight = self._weight_of(piece, inputs)
            losses.append(super().training_step(model, piece))
        self._weight = 1.0
        return torch.stack(losses).sum()

    def _weight_of(self, piece: Batch, batch: Batch) -> float:
        """Return the factor for the mean loss of a piece of this process's share of a batch.

        The factor gives every row of the epoch the same weight. Otherwise a row in a batch of few long rows would weigh
        more than a row in a batch of many short ones. A loss that compares rows with each other is not weighted: it is
        one value per batch.
        """
        rows = len(piece["labels"])
        return rows / len(batch["labels"]) if self._compare else rows * self.args.world_size / self._batches.mean_rows

    @override
    def compute_loss(self, model: nn.Module, inputs: Batch, *args: Any, **options: Any) -> Any:
        processes = self.args.world_size
        if self._compare and model.training and processes > 1:
            logits, labels = all_rows(model(**inputs)["logits"]), all_rows(inputs["labels"])
            # Each process has the gradients of its own rows, and DDP averages them.
            return self._compare(logits, labels) * processes
        found = self._mean_loss(model, inputs, *args, **options)
        return (found[0] * self._weight, *found[1:]) if isinstance(found, tuple) else found * self._weight

    def _mean_loss(self, model: nn.Module, inputs: Batch, *args: Any, **options: Any) -> Any:
        """Return the mean loss of a batch: in training `row_loss`, if there is one."""
        if self._row_loss is None or not model.training:
            return super().compute_loss(model, inputs, *args, **options)
        return self._row_loss(model(**inputs)["logits"], inputs["labels"])

    @override
    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        if "loss" in logs:
            logs |= self._lately.figures()
        # Restart the clock, so that evaluation does not count as training time.
        self._lately = self._new_meter()
        super().log(logs, *args, **options)
