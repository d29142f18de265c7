"""Which of a release's files runs on this machine: the one that is fastest here, and answers as its card says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

import onnxruntime
from pydantic import BaseModel, TypeAdapter

from pipeline.atomic_files import locked, read_state, replace_state
from pipeline.store.releases import Card
from serving.engine.engine import Engine, EngineOptions
from serving.engine.golden import check_golden, engine_answers
from serving.engine.observer import Observer, unobserved
from serving.engine.session import Device

log = logging.getLogger(__name__)

#: Rounds in which the files take turns, and the least of which counts; one more goes before, to warm up.
ROUNDS = 5


class Record(BaseModel):
    """What was measured of a release's files on this machine, for its other workers: they are to serve the same one."""

    device: Device
    runtime: str
    rates: dict[str, float]


_RECORD = TypeAdapter(Record)


def open_fastest(
    directory: Path,
    options: EngineOptions | None = None,
    observe: Callable[[Card], Observer] = unobserved,
    record: Path | None = None,
) -> Engine:
    """Load the release in `directory` as `Engine` does, from the file that answers its golden sentences fastest.

    Its `rates` say what was measured, now or before as the file `record` tells. A file of the release after the first
    that cannot be loaded or run, or answers them otherwise than the card says, is left out.
    """
    first = Engine(directory, options)
    engine = first
    if len(first.card.variants[first.device]) > 1:
        with locked(record.with_suffix(".lock")) if record else nullcontext():
            found = _read(record, first)
            if found is None:
                engine, found = _measure(first, directory, options)
                if record:
                    _keep(record, Record(device=engine.device, runtime=onnxruntime.__version__, rates=found))
            else:
                engine = _named(max(found, key=found.__getitem__), first, directory, options)
        engine.rates = found
    engine.observed_by(observe(engine.card))
    return engine


def _read(record: Path | None, first: Engine) -> dict[str, float] | None:
    """What is recorded of the files for the device of `first`; None where nothing is that can be read."""
    found = read_state(record, _RECORD) if record else None
    if found is None:
        return None
    known = {variant.name for variant in first.card.variants[first.device]}
    same = (found.device, found.runtime) == (first.device, onnxruntime.__version__)
    return found.rates if same and found.rates and found.rates.keys() <= known else None


def _keep(record: Path, measured: Record) -> None:
    """Write what was measured for the other workers; a full disk costs them a measurement, and no release."""
    try:
        replace_state(record, measured.model_dump_json())
    except OSError as error:
        log.warning("%s: what was measured cannot be kept: %s", record, error)


def _named(name: str, first: Engine, directory: Path, options: EngineOptions | None) -> Engine:
    """The engine of the file called `name`, or `first` where that one does not work now."""
    number = [variant.name for variant in first.card.variants[first.device]].index(name)
    return (_other(first, directory, options, number) if number else None) or first


def _other(first: Engine, directory: Path, options: EngineOptions | None, number: int) -> Engine | None:
    """The engine of the file of that number, if it answers as the card says on the device of `first`."""
    try:
        other = Engine(directory, options, variant=number)
        check_golden(other.card, engine_answers(other))
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base, and the first file works
        log.warning("%s", error)
        return None
    return other if other.device == first.device else None


def _measure(first: Engine, directory: Path, options: EngineOptions | None) -> tuple[Engine, dict[str, float]]:
    """The fastest engine of the release, and golden sentences a second of each: all at once, then one by one."""
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
    log.info("%s: golden sentences a second: %s; %s serves", best.card.id, told, best.variant.name)
    return best, rates
