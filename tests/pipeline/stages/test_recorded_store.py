"""A store that commit 93b5202 wrote can be read and reused.

`tests/recorded/store-93b5202.tar.xz` is the store that `saebyeok run RECIPE --overrides tests/recorded/RECIPE.toml` of
that commit wrote for both recipes on the shipped sample.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.config_file import ROOT
from pipeline.job import open_job
from pipeline.recipes.overrides import read_overrides
from pipeline.settings import Settings
from pipeline.stages.running import run_stage
from pipeline.stages.stage import DECIDE, EVALUATE, STAGES, TOKENIZE
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.decisions import read_decision
from pipeline.store.deployments import DeploymentLog
from pipeline.store.figures import (
    DecisionFigures,
    EvaluationFigures,
    Figures,
    ReleaseFigures,
    TokenizationFigures,
    TrainingFigures,
    ValidationFigures,
)
from pipeline.store.manifest import MANIFEST
from pipeline.store.releases import read_card

RECORDED = ROOT / "tests" / "recorded"
RECIPES = ("nsmc", "klue-sts")
#: Fields of a manifest that did not exist then.
NEW: Any = {"format": True, "inputs": {"__all__": {"role"}}}
FIGURES: dict[str, type[Figures]] = {
    "validate": ValidationFigures,
    "tokenize": TokenizationFigures,
    "train": TrainingFigures,
    "evaluate": EvaluationFigures,
    "decide": DecisionFigures,
    "release": ReleaseFigures,
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the recorded store, which no test may change."""
    directory = tmp_path_factory.mktemp("recorded")
    with tarfile.open(RECORDED / "store-93b5202.tar.xz") as archive:
        # The archive is the project's own. The argument `filter` of `extractall` is newer than Debian's Python 3.11.2.
        archive.extraction_filter = lambda member, _: member
        archive.extractall(directory)
    return directory


@pytest.fixture
def recorded(unpacked: Path, settings: Settings, store: Store) -> Store:
    """Return a copy of the recorded store, at the location that this test's settings name."""
    shutil.copytree(unpacked, store.uri)
    return store


@pytest.mark.torch
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_stage_reuses_recorded_artifact(recipe: str, recorded: Store, settings: Settings) -> None:
    # The first decision was made before there was a champion.
    shutil.rmtree(Path(recorded.uri) / "deployments")
    job = open_job(recipe, settings=settings, overrides=read_overrides(RECORDED / f"{recipe}.toml"))
    made: dict[str, Artifact] = {}
    today: dict[str, Artifact] = {}
    for stage in STAGES:
        (key,) = recorded.list(f"{stage.kind}/{recipe}")
        # An evaluation needs the gate rows of today's split.
        asked = made | today if stage is EVALUATE else made
        step = run_stage(job, stage, [asked[kind] for kind in stage.inputs])
        if stage is TOKENIZE:
            today[stage.kind] = step.artifact
        # Since then, near copies of a text stay on one side of the split, a test row with one in train is no new text,
        # and the gate has got another rule.
        assert (step.artifact.key == key, step.reused) == (stage not in (TOKENIZE, EVALUATE, DECIDE),) * 2, stage.name
        # The next stages are asked with the recorded artifact, because nothing else in their keys has changed.
        made[stage.kind] = recorded.open(recorded.refs(stage.kind, recipe)[-1])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", FIGURES)
def test_recorded_figures_are_written_unchanged(kind: str, recipe: str, recorded: Store) -> None:
    refs = recorded.refs(kind, recipe)
    assert refs
    for ref in refs:
        artifact = recorded.open(ref)
        figures = FIGURES[kind].read(artifact).document()
        # Manifests of that commit have neither a number of their format nor roles of their inputs.
        manifest = artifact.manifest.model_copy(update={"figures": figures})
        written = manifest.model_dump_json(indent=1, exclude=NEW)
        assert written.encode() == recorded.read(f"{ref}/{MANIFEST}")


def test_recorded_deployments_are_read(recorded: Store) -> None:
    log = DeploymentLog(recorded)
    assert log.numbers() == [1, 2]
    assert [(record.intent, record.of, record.by) for record in log.path()] == [("promotion", None, None)] * 2
    for recipe in RECIPES:
        champion = log.champion(recipe)
        assert champion is not None
        assert champion.path.is_dir()
        assert read_card(champion).recipe == recipe
        assert read_decision(recorded.open(recorded.refs("decide", recipe)[0])).promote


def test_every_recorded_manifest_is_read(recorded: Store) -> None:
    refs = [ref for stage in STAGES for recipe in RECIPES for ref in recorded.refs(stage.kind, recipe)]
    assert len(refs) == len(STAGES) * len(RECIPES)
    for ref in refs:
        written = json.loads((Path(recorded.uri) / ref / "manifest.json").read_bytes())
        assert "format" not in written
        assert recorded.open(ref).manifest.model_dump(mode="json", exclude=NEW) == written
