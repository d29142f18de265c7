"""transformers' Trainer as we use it, and what it says of its speed."""

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

#: Number of a layer in the name of one of its parameters.
LAYER = re.compile(r"\.layer\.(\d+)\.")


@dataclass
class Meter:
    """Counts what goes into a model, padding apart."""

    rows: int = 0
    tokens: int = 0
    places: int = 0
    "Tokens with the padding."
    packed: bool = False
    "Whether padding is not computed."
    processes: int = 1
    "That do the same at the same time; rates are those of all."
    started: float = field(default_factory=time.monotonic)

    def count(self, inputs: Mapping[str, Any]) -> None:
        """Count a batch, as `Collate` makes it."""
        masks = [value for name, value in inputs.items() if name.startswith("attention_mask")]
        self.rows += len(inputs["labels"])
        tokens = sum(int(mask.sum()) for mask in masks)
        self.tokens += tokens
        self.places += tokens if self.packed else sum(mask.numel() for mask in masks)

    @property
    def padding(self) -> float:
        """Share of the places that were padding."""
        return 1 - self.tokens / self.places if self.places else 0.0

    def figures(self) -> dict[str, float]:
        """Rows and tokens a second, the share of padding, and the memory that was taken of a GPU."""
        seconds = max(1e-9, time.monotonic() - self.started)
        rows, tokens = self.processes * self.rows, self.processes * self.tokens
        rates = {"samples_per_second": rows / seconds, "tokens_per_second": tokens / seconds}
        return rates | {"padding": self.padding} | gpu_memory()


def decay_by_layer(model: nn.Module, groups: Sequence[dict[str, Any]], decay: float) -> list[dict[str, Any]]:
    """An optimizer's groups of parameters, split so that each layer has its own rate (Howard and Ruder 2018).

    What stands on the encoder keeps the group's rate, its last layer has `decay` times that, and so on down to the
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
    """transformers' Trainer over the batches of a sampler of ours."""

    def __init__(self, *, batches: Batches, args: TrainingArguments, **options: Any) -> None:
        """As the Trainer's."""
        # Otherwise it splits batches over all GPUs from one process, each with a copy of the model made every step.
        args._n_gpu = min(1, args.n_gpu)
        super().__init__(args=args, **options)
        self._batches = batches
        if self.args.process_index:
            # The weights are those of the first process; what is drawn in training is not to be the same everywhere.
            torch.manual_seed(self.args.seed + self.args.process_index)
        # It prints to standard output what Watch writes to the log.
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
        # As is done for one process: of several, each would be given other batches.
        return prepare_data_loader(  # type: ignore[no-any-return]
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def collate(self, rows: list[Any]) -> dict[str, Any]:
        """Rows to train on to a batch."""
        batch: dict[str, Any] = self.data_collator(rows)
        return batch


class FineTuner(BatchTrainer):
    """Beside each loss it logs how fast it goes and how much of that is padding; a batch too large is halved.

    A loss over pairs of rows, as a bi-encoder's, sees those of each part only. Several processes, or threads on a CPU,
    share each batch, and make the step that one would.
    """

    def __init__(
        self,
        *,
        layer_decay: float,
        packed: bool,
        compare: Callable[[Tensor, Tensor], Tensor] | None,
        mix: Callable[[Sequence[Row]], list[Row]] | None,
        sharing: int = 1,
        **options: Any,
    ) -> None:
        """As the Trainer's; each layer learns at `layer_decay` times the rate of the one above it.

        `packed` says that padding is not computed; `compare` is the loss of logits (batch,) and labels (batch,) where
        it is no mean over rows, and `mix` makes other rows of those of a batch. `sharing` threads share a batch.
        """
        super().__init__(**options)
        self._layer_decay = layer_decay
        self._packed, self._compare, self._mix = packed, compare, mix
        self._threads = BatchThreads(sharing) if sharing > 1 else None
        if self._threads:
            # torch keeps the weights in bf16 for all threads at once, and any that is done throws them away: whether a
            # gradient is added up in bf16 or in fp32 would depend on which thread was first.
            self.accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)
        self.meter, self._lately = self._new_meter(), self._new_meter()
        self.parts = 1
        "In how many parts a batch is computed, for memory."
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
        # Here, where they are not yet on a GPU, which would have to be waited for.
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
                # Of several processes the others would wait for this one where it no longer is.
                if self.parts >= rows or processes > 1:
                    raise
            # Out here, since the error holds on to what did not fit.
            model.zero_grad()
            torch.cuda.empty_cache()
            self.parts *= 2
            log.warning("out of memory: from now on batches are computed in %d parts", self.parts)

    def _by_threads(self, threads: BatchThreads, model: nn.Module, inputs: Batch) -> Tensor:
        """One step on a CPU, as the Trainer's own but for the threads."""
        model.train()
        alone = super().compute_loss
        weight = self._weight_of(inputs, inputs)

        def forward(piece: Batch) -> Tensor:
            with self.compute_loss_context_manager():
                found: Any = model(**piece)["logits"] if self._compare else alone(model, piece)
            assert isinstance(found, Tensor)
            return found * weight

        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return threads.learn(parameters, inputs, forward, self._compare)

    def _in_parts(self, model: nn.Module, inputs: Batch) -> Tensor:
        """One step whose gradients are those of the whole batch, however many parts it is computed in."""
        losses = []
        for piece in pieces_of(inputs, self.parts):
            self._weight = self._weight_of(piece, inputs)
            losses.append(super().training_step(model, piece))
        self._weight = 1.0
        return torch.stack(losses).sum()

    def _weight_of(self, piece: Batch, batch: Batch) -> float:
        """What the mean loss of a piece of this process's share of a batch is multiplied with.

        Every row counts as much as any other of the epoch: of long ones a batch has few, and in its mean each of them
        would count for more than a short one. Rows that are compared with each other make one loss of the batch.
        """
        rows = len(piece["labels"])
        return rows / len(batch["labels"]) if self._compare else rows * self.args.world_size / self._batches.mean_rows

    @override
    def compute_loss(self, model: nn.Module, inputs: Batch, *args: Any, **options: Any) -> Any:
        processes = self.args.world_size
        if self._compare and model.training and processes > 1:
            logits, labels = all_rows(model(**inputs)["logits"]), all_rows(inputs["labels"])
            # Each adds the gradients of its own rows, and what is taken of them is the mean.
            return self._compare(logits, labels) * processes
        found = super().compute_loss(model, inputs, *args, **options)
        return (found[0] * self._weight, *found[1:]) if isinstance(found, tuple) else found * self._weight

    @override
    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        if "loss" in logs:
            logs |= self._lately.figures()
        # What evaluation takes is no time of training.
        self._lately = self._new_meter()
        super().log(logs, *args, **options)
