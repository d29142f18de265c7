"""The report at the end of `up`: requests with their answers, and next steps."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.job import open_store
from pipeline.settings import Settings
from pipeline.stack.run_report import ask, example_requests, live_recipes, next_steps
from pipeline.store.artifacts import Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import read_card
from tests.support.running_service import Service, serving
from tests.support.tiny_releases import TinyModel


def body_of(line: str) -> dict[str, list[object]]:
    """Return the body that a printed `curl` sends."""
    words = shlex.split(line)
    return dict(json.loads(words[words.index("-d") + 1]))


@pytest.fixture
def service(tmp_path: Path, classifier: TinyModel, cross_encoder: TinyModel) -> Iterator[Service]:
    """Yield a service of one worker with a classifier and a cross-encoder."""
    with serving(tmp_path / "service", {"SAEBYEOK_WORKERS": "1"}, classifier, cross_encoder) as service:
        yield service


@pytest.mark.slow
def test_each_endpoint_answers_with_release_examples(
    service: Service, pair_classifier: TinyModel, text_scorer: TinyModel
) -> None:
    settings, store = service.settings, open_store(service.settings)
    live = DeploymentLog(store).get(1).releases
    reviews, pairs = store.open(live["nsmc"]), store.open(live["klue-sts"])
    said = [list(ask(settings, request)) for request in example_requests(store, live_recipes(settings))]
    urls = [shlex.split(lines[0])[2].removeprefix(settings.service_url) for lines in said]
    assert urls == ["/livez", "/readyz", "/classify", "/similarity", "/releases", "/metrics", "/docs.json"]
    answers = dict(zip(urls, said, strict=True))
    for path, release, key in (("/classify", reviews, "texts"), ("/similarity", pairs, "pairs")):
        golden = {item.texts: item.expected for item in read_card(release).golden}
        asked = [tuple([item] if isinstance(item, str) else item) for item in body_of(answers[path][0])[key]]
        assert [golden[texts] for texts in asked] == [min(golden.values()), max(golden.values())]
        assert json.loads(answers[path][1])["sample"] is True
        assert len(json.loads(answers[path][1])["results"]) == 2
    assert answers["/livez"][1:] == ["    ok"]
    assert answers["/metrics"][0].endswith("/metrics | head -n 2")
    assert [line[:7] for line in answers["/metrics"][1:]] == ["    # H", "    # T"]
    assert len(answers["/docs.json"][1]) < 250
    rarer = pair_classifier.publish(store, "same", key="c" * 16), text_scorer.publish(store, "stars", key="d" * 16)
    with service.deployed(*rarer):
        asked = [request for request in example_requests(store, live_recipes(settings)) if request.body]
        said = [list(ask(settings, request)) for request in asked]
    assert [(call.path, list(call.body or {})) for call in asked] == [
        ("/classify", ["texts"]),
        ("/classify", ["pairs"]),
        ("/similarity", ["pairs"]),
        ("/score", ["texts"]),
    ]
    assert [len(json.loads(lines[1])["results"]) for lines in said] == [2] * 4


def test_nobody_is_asked_for_what_is_not_deployed(settings: Settings, store: Store) -> None:
    (first, *_) = found = example_requests(store, live_recipes(settings))
    assert [call.path for call in found] == ["/livez", "/readyz", "/releases", "/metrics", "/docs.json"]
    assert list(ask(settings, first))[1].startswith("    no answer: ")


def test_rollback_suggested_if_every_recipe_keeps_release(settings: Settings, store: Store) -> None:
    log = DeploymentLog(store)

    def suggests() -> bool:
        return any("saebyeok rollback" in line for line in next_steps(settings, store, {}))

    maps = [
        {"nsmc": "a"},
        {"nsmc": "a", "klue-sts": "b"},
        {"nsmc": "c", "klue-sts": "b"},
        {"nsmc": "a", "klue-sts": "b"},
    ]
    found = []
    for number, releases in enumerate(maps):
        back: dict[str, Any] = {"intent": "rollback", "of": 2} if number == 3 else {}
        log.append(releases, after=number, run="test", reason="test", **back)
        found.append(suggests())
    # The last deployment is already a rollback: before it there was only one recipe.
    assert found == [False, False, True, False]
