"""The inputs of a stage that runs alone: all of one lineage, also if trainings started from earlier models."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.stages.stage import find_inputs
from pipeline.store.artifacts import Artifact, Store
from tests.support.families import made

ROLES = {"start": "started_from", "champion": "compared_with", "best": "compared_with"}


def chain(store: Store, nights: int) -> list[dict[str, Artifact]]:
    """Publish nights whose trainings each start from the model before, and whose decisions compare with it."""
    found: list[dict[str, Artifact]] = []
    for _ in range(nights):
        before = found[-1] if found else {}
        validated = made(store, "validate")
        tokenized = made(store, "tokenize", validated=validated)
        start = {"start": before["train"]} if before else {}
        trained = made(store, "train", roles=ROLES, tokenized=tokenized, **start)  # type: ignore[arg-type]
        evaluated = made(store, "evaluate", validated=validated, tokenized=tokenized, trained=trained)
        rivals = {"champion": before["release"]} if before else {}
        decided = made(store, "decide", roles=ROLES, evaluated=evaluated, **rivals)  # type: ignore[arg-type]
        release = made(store, "release", validated=validated, trained=trained, evaluated=evaluated)
        artifacts = (validated, tokenized, trained, evaluated, decided, release)
        found.append({item.manifest.kind: item for item in artifacts})
    return found


def test_inputs_are_of_the_newest_lineage(make_job: Callable[..., Job]) -> None:
    job = make_job(load_recipe("nsmc", "embedded"))
    *_, newest = chain(job.store, 4)
    kinds = ("validate", "train", "evaluate", "decide")
    assert find_inputs(job, kinds) == [newest[kind] for kind in kinds]


def test_inputs_are_of_the_lineage_that_is_named(make_job: Callable[..., Job]) -> None:
    job = make_job(load_recipe("nsmc", "embedded"))
    _, second, *_ = chain(job.store, 4)
    kinds = ("validate", "train", "evaluate", "decide")
    assert find_inputs(job, kinds, [second["decide"].ref]) == [second[kind] for kind in kinds]
