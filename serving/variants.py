"""Which of a release's files runs on this machine: the one that is fastest here, and answers as its card says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

from pydantic import BaseModel, ValidationError

from pipeline.errors import ArtifactError, GoldenMismatchError
from pipeline.releases import Card
from serving.engine import Device, Engine, EngineOptions
from serving.golden import check_golden, engine_answers
from serving.observe import Observer, unobserved
from serving.workers import locked, replace_file

log = logging.getLogger(__name__)

#: Rounds in which the files take turns, and the least of which counts; one more goes before, to warm up.
ROUNDS = 5


class Record(BaseModel):
    """What was measured of a release's files on this machine, for its other workers: they are to serve the same one."""

    device: Device
    rates: dict[str, float]


def open_fastest(
    directory: Path,
    options: EngineOptions | None = None,
    observe: Callable[[Card], Observer] = unobserved,
    record: Path | None = None,
) -> Engine:
    """Load the release in `directory` as `Engine` does, from the file that answers its golden sentences fastest.

    Its `rates` say what was measured, now or before as the file `record` tells. A file of the release after the first
    that cannot be loaded, or answers them otherwise than the card says, is left out.
    """
    with locked(record.with_suffix(".lock")) if record else nullcontext():
        first = Engine(directory, options, observe)
        names = [variant.name for variant in first.card.variants[first.device]]
        if len(names) == 1:
            return first
        found = _read(record, first)
        if found is not None:
            number = names.index(max(found, key=found.__getitem__))
            engine = Engine(directory, options, observe, variant=number) if number else first
        else:
            engine, found = _measure(first, directory, options, observe)
            if record:
                replace_file(record, Record(device=engine.device, rates=found).model_dump_json())
    engine.rates = found
    return engine


def _read(record: Path | None, first: Engine) -> dict[str, float] | None:
    """What is recorded of the files for the device of `first`; None where nothing is that can be read."""
    if record is None or not record.is_file():
        return None
    try:
        found = Record.model_validate_json(record.read_bytes())
    except ValidationError:
        return None
    known = {variant.name for variant in first.card.variants[first.device]}
    return found.rates if found.device == first.device and found.rates and found.rates.keys() <= known else None


def _measure(
    first: Engine, directory: Path, options: EngineOptions | None, observe: Callable[[Card], Observer]
) -> tuple[Engine, dict[str, float]]:
    """The fastest engine of the release, and golden sentences a second of each."""
    engines = [first]
    for number in range(1, len(first.card.variants[first.device])):
        try:
            other = Engine(directory, options, observe, variant=number)
            check_golden(other.card, engine_answers(other))
        except (ArtifactError, GoldenMismatchError) as error:
            log.warning("%s", error)
        else:
            engines.append(other)
    inputs = [golden.texts for golden in first.card.golden]
    seconds = [float("inf")] * len(engines)
    for turn in range(ROUNDS + 1):
        for place, engine in enumerate(engines):
            began = perf_counter()
            engine.answer(inputs)
            if turn:
                seconds[place] = min(seconds[place], perf_counter() - began)
    rates = {engine.variant.name: len(inputs) / took for engine, took in zip(engines, seconds, strict=True)}
    best = engines[seconds.index(min(seconds))]
    told = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    log.info("%s: golden sentences a second: %s; %s serves", best.card.id, told, best.variant.name)
    return best, rates
