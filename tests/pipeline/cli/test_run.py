"""The whole pipeline on the sample from the command line: built, reused, refused, evaluated and queried."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.bounds import most_of
from pipeline.errors import REFUSED
from pipeline.recipes.loading import load_recipe
from pipeline.store.verdicts import model_of, record_verdict
from tests.support.cli import PlaceHere, sets
from tests.support.small_pipeline import SMALL, anything_goes

pytestmark = [pytest.mark.torch, pytest.mark.slow]

CHANGED = 0.02
#: A tiny model; `tests/e2e` runs the recipes unchanged.
TINY = sets(SMALL | anything_goes("nsmc") | {"export.int8": {"changed_labels": CHANGED, "metric_change": CHANGED}})
STAGES = ["validate", "tokenize", "train", "evaluate", "decide", "export"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> PlaceHere:
    return PlaceHere(tmp_path_factory.mktemp("road") / "home")


@pytest.fixture(scope="module")
def first(place: PlaceHere) -> Any:
    """Return the document of the first run of nsmc."""
    return place.call("run", "nsmc", *TINY)


@pytest.fixture(scope="module")
def judged(first: Any, place: PlaceHere) -> Any:
    """Return the metrics of the champion on the test file."""
    data = load_recipe("nsmc", "embedded", sample=True).data
    return place.call("evaluate", "nsmc", "--file", str(place.home / "sample" / data.test))


def refs(document: Any) -> dict[str, str]:
    return {step["stage"]: step["ref"] for step in document["stages"]}


def test_a_run_makes_everything_and_deploys(first: Any, place: PlaceHere) -> None:
    assert (first["promoted"], first["sample"], first["deployment"]) == (True, True, 1)
    assert [step["stage"] for step in first["stages"]] == STAGES
    assert not any(step["reused"] for step in first["stages"])
    for figure in first["figures"].values():
        assert figure["floor"] == 0.01 <= figure["value"]
        assert figure["low"] < figure["value"] < figure["high"]
    assert place.call("releases")["live"] == 1


def test_the_report_says_what_the_document_says(first: Any) -> None:
    report = Path(first["report"]).read_text(encoding="utf-8")
    assert "Promoted" in report
    assert "sample data" in report
    assert f"{first['figures']['accuracy']['value']:.4f}" in report
    assert Path(first["data_docs"]).is_file()


def test_second_run_reuses_everything_and_deploys_nothing(first: Any, place: PlaceHere) -> None:
    second = place.call("run", "nsmc", *TINY)
    reused = {step["stage"] for step in second["stages"] if step["reused"]}
    # The champion is an input of the decision, and it has changed.
    assert reused >= set(STAGES) - {"decide"}
    assert second["deployment"] == 1
    assert second["release"] == first["release"]


def test_rejected_model_is_not_deployed_by_later_run(first: Any, place: PlaceHere, tmp_path: Path) -> None:
    # The same artifacts, without a deployment.
    again = PlaceHere(tmp_path / "home")
    shutil.copytree(place.home / "store", again.home / "store", ignore=shutil.ignore_patterns("deployments"))
    decided = again.store.open(refs(first)["decide"])
    record_verdict(model_of(decided), "rejected", by="admin", run="scheduled__x")
    refused = again.call("run", "nsmc", *TINY, code=REFUSED)
    assert refused["error"]["message"].startswith("admin rejected it in run scheduled__x, so the model is not deployed")
    assert again.call("releases")["live"] is None


def test_release_is_exported_without_a_deployment(first: Any, place: PlaceHere, tmp_path: Path) -> None:
    # The same artifacts, without a deployment.
    again = PlaceHere(tmp_path / "home")
    shutil.copytree(place.home / "store", again.home / "store", ignore=shutil.ignore_patterns("deployments"))
    document = again.call("run", "nsmc", *TINY, "--no-deploy")
    assert (document["promoted"], document["deployment"], document["release"]) == (True, None, first["release"])
    assert again.call("releases")["live"] is None
    people = again.raw("run", "nsmc", *TINY, "--no-deploy")
    assert people.returncode == 0, people.stderr
    assert f"{first['release']}, not deployed; to deploy it: saebyeok deploy nsmc" in people.stdout
    assert "[6/6] nsmc export" in people.stderr


def test_unreachable_threshold_refuses_without_training_again(first: Any, place: PlaceHere) -> None:
    unreachable = ("--set", "gate.floors.accuracy=0.9999")
    document = place.call("run", "nsmc", *TINY, *unreachable, code=REFUSED)
    assert (document["promoted"], document["deployment"], document["release"]) == (False, None, None)
    assert refs(document)["train"] == refs(first)["train"]
    assert [check["passed"] for check in document["checks"]].count(False) >= 1
    assert place.call("releases")["live"] == 1
    people = place.raw("decide", "nsmc", *TINY, *unreachable)
    assert people.returncode == REFUSED
    assert document["reason"] in people.stdout
    assert refs(document)["decide"] in people.stdout


def test_champion_metrics_on_test_file_match_report(first: Any, judged: Any) -> None:
    recipe = load_recipe("nsmc", "embedded", sample=True)
    assert judged["release"] == first["release"]
    assert judged["rows"] >= recipe.data.min_test_rows
    # The served file is quantized: it may change as many labels as the export allows for this number of rows.
    allowed = most_of(judged["rows"], CHANGED) / judged["rows"]
    for metric in recipe.metrics:
        assert judged["metrics"][metric] == pytest.approx(first["figures"][metric]["value"], abs=allowed)


def test_what_is_predicted_is_what_is_judged(judged: Any, place: PlaceHere) -> None:
    recipe = load_recipe("nsmc", "embedded", sample=True)
    rows = (place.home / "sample" / recipe.data.test).read_text(encoding="utf-8").splitlines()[1:]
    labelled = [(text, recipe.labels[int(label)]) for _, text, label in (row.split("\t") for row in rows) if text]
    result = place.raw("predict", "nsmc", stdin="\n".join(text for text, _ in labelled))
    assert result.returncode == 0, result.stderr
    predicted = [json.loads(line)["label"] for line in result.stdout.splitlines()]
    right = sum(label == guess for (_, label), guess in zip(labelled, predicted, strict=True))
    assert right / len(labelled) == pytest.approx(judged["metrics"]["accuracy"], abs=0.005)


def test_each_stage_alone_finds_what_the_run_made(first: Any, place: PlaceHere) -> None:
    for stage in ("tokenize", "train", "evaluate", "export"):
        document = place.call(stage, "nsmc", *TINY)
        assert (document["ref"], document["reused"]) == (refs(first)[stage], True)


def test_sample_by_hand_equals_shipped_and_force_rebuilds(first: Any, place: PlaceHere, tmp_path: Path) -> None:
    directory = tmp_path / "made"
    assert place.call("sample", str(directory)) == {"directory": str(directory)}
    for arguments in (("--data", str(directory)), ()):
        again = place.call("validate", "nsmc", *arguments)
        assert (again["sample"], again["reused"], again["ref"]) == (True, True, refs(first)["validate"])
        assert again["figures"]["train_rows"] > 0
    forced = place.call("validate", "nsmc", "--force")
    assert forced["reused"] is False
    assert forced["ref"] != refs(first)["validate"]
