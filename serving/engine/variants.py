"""Variants: choose the file of a release that is fastest on this machine and answers as its card expects."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

import onnxruntime
from pydantic import BaseModel, TypeAdapter

from pipeline.atomic_files import locked, read_state, replace_file
from pipeline.store.releases import Card
from serving.engine.engine import Engine, EngineOptions
from serving.engine.golden import check_golden, engine_answers
from serving.engine.observer import Observer, unobserved
from serving.engine.session import Device

log = logging.getLogger(__name__)

#: Timed rounds, in which the files take turns; the fastest counts. One more round before them warms up.
ROUNDS = 5


class MeasuredRates(BaseModel):
    """Measured speed of a release's files on this machine, shared so that all workers serve the same file."""

    device: Device
    runtime: str
    rates: dict[str, float]


_RATES = TypeAdapter(MeasuredRates)


def open_fastest(
    directory: Path,
    options: EngineOptions | None = None,
    observe: Callable[[Card], Observer] = unobserved,
    record: Path | None = None,
) -> Engine:
    """Load the release in `directory` from the file that answers its golden sentences fastest.

    The engine's `rates` are the measured speeds, from now or from the file `record`. A file after the first is skipped
    if it cannot be loaded or run, or its answers differ from the card. Raises ArtifactError as `Engine` does.
    """
    first = Engine(directory, options)
    engine = first
    if len(first.card.variants[first.device]) > 1:
        with locked(record.with_suffix(".lock")) if record else nullcontext():
            found = _read(record, first)
            if found is None:
                engine, found = _measure(first, directory, options)
                if record:
                    _keep(record, MeasuredRates(device=engine.device, runtime=onnxruntime.__version__, rates=found))
            else:
                engine = _named(max(found, key=found.__getitem__), first, directory, options)
        engine.rates = found
    engine.observed_by(observe(engine.card))
    return engine


def _read(record: Path | None, first: Engine) -> dict[str, float] | None:
    """Return the recorded speeds for the device of `first`; None if there is no valid record."""
    found = read_state(record, _RATES) if record else None
    if found is None:
        return None
    known = {variant.name for variant in first.card.variants[first.device]}
    same = (found.device, found.runtime) == (first.device, onnxruntime.__version__)
    return found.rates if same and found.rates and found.rates.keys() <= known else None


def _keep(record: Path, measured: MeasuredRates) -> None:
    """Write the measured speeds for the other workers; a full disk only makes them measure again."""
    try:
        replace_file(record, measured.model_dump_json())
    except OSError as error:
        log.warning("%s: the measured speeds cannot be saved: %s", record, error)


def _named(name: str, first: Engine, directory: Path, options: EngineOptions | None) -> Engine:
    """Return the engine of the file `name`, or `first` if that file does not work now."""
    number = [variant.name for variant in first.card.variants[first.device]].index(name)
    return (_other(first, directory, options, number) if number else None) or first


def _other(first: Engine, directory: Path, options: EngineOptions | None, number: int) -> Engine | None:
    """Return the engine of file `number`, if it answers as the card expects on the device of `first`; else None."""
    try:
        other = Engine(directory, options, variant=number)
        check_golden(other.card, engine_answers(other))
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base, and the first file works
        log.warning("%s", error)
        return None
    return other if other.device == first.device else None


def _measure(first: Engine, directory: Path, options: EngineOptions | None) -> tuple[Engine, dict[str, float]]:
    """Return the fastest engine of the release, and the speed of each file: golden sentences per second, by file name.

    Each round answers all sentences in one call, then each alone.
    """
    numbers = range(1, len(first.card.variants[first.device]))
    engines = [first, *filter(None, (_other(first, directory, options, number) for number in numbers))]
    inputs = [golden.texts for golden in first.card.golden]
    seconds = [float("inf")] * len(engines)
    for turn in range(ROUNDS + 1):
        for place, engine in enumerate(engines):
            began = perf_counter()
            for asked in (inputs, *([item] for item in inputs)):
                engine.answer(asked)
            if turn:
                seconds[place] = min(seconds[place], perf_counter() - began)
    rates = {engine.variant.name: 2 * len(inputs) / took for engine, took in zip(engines, seconds, strict=True)}
    best = engines[seconds.index(min(seconds))]
    told = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    log.info("%s: golden sentences per second: %s; using %s", best.card.id, told, best.variant.name)
    return best, rates
