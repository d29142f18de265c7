"""Pretrain an encoder and its vocabulary on raw lines."""

from __future__ import annotations

import json
import logging
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, PreTrainedModel, TrainerCallback, TrainingArguments, set_seed
from typing_extensions import override

from pipeline.errors import RecipeError
from pipeline.models.build import hide_bars_in_logs
from pipeline.models.hardware import best_device, cores, gpu_errors, has_bf16, training_attention, training_processes
from pipeline.models.tokenizer import SPECIAL, as_pretrained, train_wordpiece
from pipeline.pretraining.corpus import CollateLines, Corpus, encode_lines, read_lines
from pipeline.pretraining.loss_curve import draw_losses
from pipeline.pretraining.objectives import OBJECTIVES, Masking
from pipeline.pretraining.spec import EncoderSpec
from pipeline.store.manifest import file_digest
from pipeline.tracking.tracker import Tracker
from pipeline.training.checkpoints import CheckpointCallback, newest_checkpoint, seconds_behind
from pipeline.training.distributed import Order, spread
from pipeline.training.samplers import TokenBatches
from pipeline.training.trainer import BatchTrainer

log = logging.getLogger(__name__)

#: Every line whose number is divisible by this is held out for the validation loss.
HELD = 250
#: Files of an encoder's directory.
TOKENIZER, WEIGHTS, SAID = "tokenizer.json", "model.safetensors", "pretraining.json"
#: Directory of the checkpoints, next to the encoder's.
CHECKPOINTS = "checkpoints"


@gpu_errors()
def pretrain(
    spec: EncoderSpec,
    files: Sequence[Path],
    directory: Path,
    *,
    start: Path | None = None,
    threads: int,
    save_steps: int,
) -> dict[str, Any]:
    """Pretrain on the lines of `files`; write weights (fp16), configuration and tokenizer to `directory/encoder`.

    `start` is the directory of an encoder from an earlier pretraining, whose weights and vocabulary are used.

    Also writes `curve.png`, the losses over the steps, and `pretraining.json`, which is returned together with the
    directory as `encoder`: `parameters`, `steps`, `seconds`, `lines`, `tokens` (per epoch), `device`, `spec`,
    `files` (name to sha256), `history`, and `start`, the `pretraining.json` of that encoder.

    Several GPUs share every batch that is large enough (`pipeline.models.hardware`); with the contrastive objective,
    each GPU compares only its own lines. An interrupted run resumes from its newest complete checkpoint in
    `directory/checkpoints`, written every `save_steps` steps; `spec.steps` may have changed.
    Raises DataError if `files` cannot be read, RecipeError if `start` is invalid or has another shape,
    TrainingDivergedError if the loss is NaN or infinite, TerminatedError at SIGTERM, ProcessError if a process dies,
    GpuError if other processes occupy the only GPU.
    """
    learn = partial(_learn, spec, files, directory, start=start, save_steps=save_steps)
    processes = training_processes(spec.batch_tokens // spec.max_length)
    if processes == 1:
        document = learn(Tracker(None), threads=threads)
    else:
        if start is None:
            _vocabulary(spec, read_lines(files), directory)
        order = Order(learn, directory / CHECKPOINTS, max(1, (threads or cores()) // processes))
        document = spread(order, Tracker(None), processes)
    return {"encoder": str(directory / "encoder"), **document}


def _learn(
    spec: EncoderSpec,
    files: Sequence[Path],
    directory: Path,
    tracker: Tracker,
    *,
    start: Path | None,
    threads: int,
    save_steps: int,
) -> dict[str, Any]:
    """Pretrain in this process, or its share of several processes; only the first process writes."""
    hide_bars_in_logs()
    if threads:
        torch.set_num_threads(threads)
    lines = read_lines(files)
    log.info("read %d lines", len(lines))
    tokenizer, before = (_vocabulary(spec, lines, directory), None) if start is None else _read_start(start)
    # Validation batches keep this order; sorted by length they need little padding.
    held = encode_lines(tokenizer, sorted(lines[::HELD], key=len), spec.max_length)
    corpus = encode_lines(tokenizer, [line for n, line in enumerate(lines) if n % HELD], spec.max_length)
    log.info("%d training lines with %d tokens, %d validation lines", len(corpus), len(corpus.ids), len(held))
    set_seed(spec.seed)
    config = _config(spec, tokenizer)
    masking = Masking(spec.masked, SPECIAL.index("[MASK]"), len(SPECIAL), config.vocab_size)
    model: Any = OBJECTIVES[spec.objective](spec, config, masking)
    if start is not None:
        _begin_with(model.encoder, start)
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.set_attn_implementation(training_attention())
    checkpoints = directory / CHECKPOINTS
    checkpoint = newest_checkpoint(checkpoints)
    watch = CheckpointCallback(spent=seconds_behind(checkpoint))
    callbacks = [watch, *tracker.trainer_callbacks()]
    trainer = Pretrainer(spec, model, corpus, held, _arguments(spec, checkpoints, save_steps), callbacks)
    with watch.terminable():
        trainer.train(resume_from_checkpoint=checkpoint)
    document = {
        "parameters": sum(parameter.numel() for parameter in model.encoder.parameters()),
        "steps": trainer.state.global_step,
        "seconds": watch.seconds,
        "lines": len(corpus),
        "tokens": len(corpus.ids),
        "device": torch.cuda.get_device_name() if best_device().type == "cuda" else "cpu",
        "spec": spec.model_dump(),
        "files": {file.name: file_digest(file) for file in files},
        "history": trainer.state.log_history,
        "start": before,
    }
    if not trainer.is_world_process_zero():
        return document
    target = directory / "encoder"
    model.encoder.half().save_pretrained(target)
    as_pretrained(tokenizer).save_pretrained(target)
    draw_losses(trainer.state.log_history, target / "curve.png")
    (target / SAID).write_text(json.dumps(document, indent=1), encoding="utf-8")
    return document


def _vocabulary(spec: EncoderSpec, lines: Sequence[str], directory: Path) -> Tokenizer:
    path = directory / TOKENIZER
    if not path.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        log.info("learning a vocabulary of %d word pieces", spec.shape.vocabulary)
        train_wordpiece(lines, spec.shape.vocabulary).save(str(path))
    return Tokenizer.from_file(str(path))


def _read_start(start: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """Return the tokenizer and the `pretraining.json` of `start`, read before training so that errors show early."""
    try:
        return Tokenizer.from_file(str(start / TOKENIZER)), json.loads((start / SAID).read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception
        raise RecipeError(
            f"{start} contains no encoder of `saebyeok pretrain` ({error}); name its directory `encoder`"
        ) from error


def _begin_with(encoder: PreTrainedModel, start: Path) -> None:
    try:
        # The saved weights are fp16; training needs fp32.
        encoder.load_state_dict({name: weight.float() for name, weight in load_file(start / WEIGHTS).items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise RecipeError(
            f"the encoder in {start} has another shape than the one to train ({error}); name another --encoder or "
            "--start"
        ) from error


def _config(spec: EncoderSpec, tokenizer: Tokenizer) -> BertConfig:
    return BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=spec.shape.hidden,
        num_hidden_layers=spec.shape.layers,
        num_attention_heads=spec.shape.heads,
        intermediate_size=spec.shape.intermediate,
        max_position_embeddings=spec.positions,
        hidden_dropout_prob=spec.shape.dropout,
        attention_probs_dropout_prob=spec.shape.dropout,
        pad_token_id=tokenizer.token_to_id("[PAD]"),
    )


def _arguments(spec: EncoderSpec, checkpoints: Path, save_steps: int) -> TrainingArguments:
    cuda = best_device().type == "cuda"
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=spec.steps,
        per_device_eval_batch_size=max(1, spec.batch_tokens // spec.max_length),
        learning_rate=spec.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": spec.decay_steps, "decay_type": "linear"},
        warmup_steps=spec.warmup_steps,
        weight_decay=spec.weight_decay,
        adam_epsilon=1e-6,
        seed=spec.seed,
        bf16=has_bf16(),
        use_cpu=not cuda,
        eval_strategy="steps",
        eval_steps=save_steps,
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=2,
        logging_steps=min(50, save_steps),
        logging_nan_inf_filter=False,
        prediction_loss_only=True,
        remove_unused_columns=False,
        # There are no labels: the objective derives them from the ids.
        label_names=["input_ids"],
        dataloader_pin_memory=cuda,
        # The generator's own embedding table is unused: it reads the encoder's.
        ddp_find_unused_parameters=spec.objective == "replaced-tokens",
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
    )


class Pretrainer(BatchTrainer):
    """A trainer that also logs the figures of the objective."""

    def __init__(
        self,
        spec: EncoderSpec,
        model: nn.Module,
        corpus: Corpus,
        held: Corpus,
        arguments: TrainingArguments,
        callbacks: list[TrainerCallback],
    ) -> None:
        """`held` are the lines for the validation loss."""
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=corpus,
            eval_dataset=held,
            data_collator=CollateLines(0),
            callbacks=callbacks,
            batches=TokenBatches(corpus.lengths, spec.batch_tokens, spec.seed),
        )
        self._said: dict[str, list[Tensor]] = defaultdict(list)

    @override
    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **options: Any) -> Any:
        said = model(**inputs)
        for name, value in said.items():
            if name != "loss" and model.training:
                self._said[name].append(value.detach())
        return (said["loss"], said) if options.get("return_outputs") else said["loss"]

    @override
    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        if "loss" in logs:
            logs |= {name: float(torch.stack(values).nanmean()) for name, values in self._said.items()}
            self._said.clear()
        super().log(logs, *args, **options)
