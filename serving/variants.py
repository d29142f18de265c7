"""Which of a release's files runs on this machine: the one that is fastest here, and answers as its card says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from pipeline.errors import ArtifactError, GoldenMismatchError
from pipeline.releases import Card
from serving.engine import Engine, EngineOptions
from serving.golden import check_golden, engine_answers
from serving.observe import Observer, unobserved

log = logging.getLogger(__name__)

#: Rounds in which the files take turns, and the least of which counts; one more goes before, to warm up.
ROUNDS = 5


def open_fastest(
    directory: Path, options: EngineOptions | None = None, observe: Callable[[Card], Observer] = unobserved
) -> Engine:
    """Load the release in `directory` as `Engine` does, from the file that answers its golden sentences fastest.

    Its `rates` say what was measured. A file after the first that cannot be loaded, or answers them otherwise than the
    card says, is left out.
    """
    first = Engine(directory, options, observe)
    engines = [first]
    for number in range(1, len(first.card.variants[first.device])):
        try:
            other = Engine(directory, options, observe, variant=number)
            check_golden(other.card, engine_answers(other))
        except (ArtifactError, GoldenMismatchError) as error:
            log.warning("%s", error)
        else:
            engines.append(other)
    if len(engines) == 1:
        return first
    inputs = [golden.texts for golden in first.card.golden]
    seconds = [float("inf")] * len(engines)
    for turn in range(ROUNDS + 1):
        for place, engine in enumerate(engines):
            began = perf_counter()
            engine.answer(inputs)
            if turn:
                seconds[place] = min(seconds[place], perf_counter() - began)
    best = engines[seconds.index(min(seconds))]
    best.rates = {engine.variant.name: len(inputs) / took for engine, took in zip(engines, seconds, strict=True)}
    told = ", ".join(f"{name} {rate:,.0f}" for name, rate in best.rates.items())
    log.info("%s: golden sentences a second: %s; %s serves", best.card.id, told, best.variant.name)
    return best
